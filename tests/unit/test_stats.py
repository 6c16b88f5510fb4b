"""Tests of `bridge.cli.stats`, its summary, its advice and its page: what the figures are made to say."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.ledger import show_time
from bridge.cli.stats import nice_ceiling, render, render_page, short
from bridge.cli.summary import GROUPS, STATES, explain, quantile, summarise
from bridge.cli.terminal import Screen
from bridge.core.counting import Counts, Note
from bridge.core.errors import rows
from bridge.core.model import Task
from bridge.engine import SystemClock
from bridge.ledger.statistics import Cause, Cell, Figures, Latency, Pause
from tests.ledgers import ACCOUNT, BACKENDS, ENDPOINT, START, MadeLedger, make_of, transact
from tests.unit.conftest import Run

HOUR = int(START // 3600)
IMAGE = "reportIncorrectImageCaptcha"
TOKEN = "reportIncorrectRecaptcha"


@pytest.fixture(params=BACKENDS)
def ledger(request: pytest.FixtureRequest) -> MadeLedger:
    """A ledger of each kind with a little of everything."""
    made = make_of(request.param, request)()
    late = {"outcome": "not_sent", "code": -32010, "kind": "window_closed", "age_s": 75, "latency_ms": None}
    refused = {"outcome": "refused", "code": 16, "kind": "no_such_captcha"}
    made.add_reports(
        *({"task_id": n, "age_s": n, "latency_ms": 100 * n} for n in range(1, 11)),
        *({"task_id": n, **late} for n in range(11, 17)),
        *({"task_id": n, **refused, "recorded_wall": START + 90_000} for n in range(17, 29)),
        {"task_id": 30, "outcome": "not_sent", "code": -32001, "kind": "x", "detail": {"cause": "<b>"}},
    )
    return made


def figures_of(cells: dict[Cell, int], **more: Any) -> Figures:
    """Figures with these cells and nothing else but what is given."""
    empty: dict[str, Any] = {"ages": {}, "latencies": {}, "causes": {}, "pauses": {}}
    return Figures(Counter(cells), *(Counter(more.get(name, {})) for name in empty))


def test_json_has_every_total(run: Run, ledger: MadeLedger) -> None:
    """Counts, reasons, ages and latencies are numbers that fit each other."""
    code, out, _ = run("stats", "--json", "--ledger", str(ledger))
    told = json.loads(out)
    assert code == 0
    assert told["reports"] == 29 == sum(told["outcomes"].values())
    assert [(row["code"], row["reports"]) for row in told["refused"]] == [(16, 12)]
    assert [(row["code"], row["reports"]) for row in told["notSent"]] == [(-32010, 6), (-32001, 1)]
    assert told["notSent"][1]["causes"] == {"<b>": 1}
    assert (told["ages"]["known"], told["ages"]["unknown"], told["ages"]["past60"]) == (16, 13, 6)
    assert (told["latency"]["p50Ms"], told["latency"]["p95Ms"]) == (100, 900)
    assert sum(row["reports"] for row in told["latency"]["bins"]) == told["latency"]["attempts"]
    # Nothing is shown beyond the oldest task and the longest attempt.
    assert [told[name]["bins"][-1]["to"] for name in ("ages", "latency")] == [90, 2000]
    assert (told["advice"], told["claims"]) == ([], [])


def test_the_first_and_the_last_are_told_to_the_minute(run: Run, ledger: MadeLedger) -> None:
    """What is counted says when its first and last report were recorded, not when their hours began."""
    ledger.add_reports(
        *({"task_id": n, "recorded_wall": START + 120 * n, "method": TOKEN} for n in range(50, 60))
    )
    words = ("stats", "--json", "--method", TOKEN, "--ledger", str(ledger))
    bounds = ("--since", str(START + 120 * 51), "--until", str(START + 120 * 58))
    for more, first, last in ((), 50, 59), (bounds, 51, 57):
        told = json.loads(run(*words, *more)[1])
        assert [told["first"], told["last"]] == [
            show_time(START + 120 * n, "%Y-%m-%dT%H:%MZ") for n in (first, last)
        ]


@pytest.mark.parametrize("by", GROUPS)
def test_every_grouping_counts_every_report(run: Run, ledger: MadeLedger, by: str) -> None:
    """The rows of each table add up to all reports."""
    code, out, _ = run("stats", "--csv", "--by", by, "--ledger", str(ledger))
    table = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert sum(int(row["reports"]) for row in table) == 29
    assert all(int(row["reports"]) == sum(int(row[state]) for state in STATES) for row in table)
    assert len({row[by] for row in table}) == len(table)


def test_plain_text_has_no_control_characters_and_no_bars(run: Run, ledger: MadeLedger) -> None:
    """What goes to a file is ASCII, in lines, and says honest words."""
    code, out, err = run("stats", "--ledger", str(ledger))
    assert (code, err) == (0, "")
    assert out.isascii()
    assert "\x1b" not in out
    assert "#" not in out
    assert "the wall" in out
    assert "money comes back" in " ".join(out.split())
    assert "accepted by the API" in out


def test_a_terminal_gets_bars_if_it_is_wide_enough(ledger: MadeLedger, run: Run) -> None:
    """Bars appear at 100 columns and not at 40, and no line is wider than the terminal."""
    summary = summarise(figures_of({Cell(HOUR, IMAGE, "accepted", 0): 5}), "day") | {
        "advice": [],
        "claims": [],
    }
    screen = Screen(io.StringIO())
    screen.is_terminal = screen.is_unicode = True
    screen.width = 100
    wide = render(summary, screen)
    screen.width = 40
    narrow = render(summary, screen)
    assert any("█" in line for line in wide)
    assert not any("█" in line for line in narrow)
    assert max(map(len, wide)) <= 100


def test_an_empty_span_is_said(run: Run, ledger: MadeLedger, tmp_path: Path) -> None:
    """No report in the span is a sentence in every form, never a division by zero."""
    for words in (), ("--json",), ("--csv",), ("--by", "account"), ("--html", str(tmp_path / "p.html")):
        code, _, err = run("stats", "--since", "1s", "--ledger", str(ledger), *words)
        assert (code, err) == (0, "")


def test_the_page_is_whole_and_loads_nothing(run: Run, ledger: MadeLedger, tmp_path: Path) -> None:
    """The page's tags match, its charts are described, foreign text is escaped, and nothing is loaded."""
    target = tmp_path / "page.html"
    assert run("stats", "--html", str(target), "--ledger", str(ledger))[0] == 0
    text = target.read_text(encoding="utf-8")
    reader = TagReader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert not {"script", "img", "link", "iframe", "object"} & reader.tags
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "$" not in text
    assert "&lt;b&gt;" in text
    assert len(reader.described) == 4
    assert all("The table has the numbers." in text for text in reader.described)


class TagReader(HTMLParser):
    """Notes tags that are open, and how charts are described."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.described: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        assert "href" not in given
        assert "src" not in given
        if given.get("role") == "img":
            self.described.append(str(given["aria-label"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


WHOSE = Task(ENDPOINT, ACCOUNT, 0)


def note_a_day(ledger: MadeLedger) -> None:
    """Let an account have 72 tokens in the last day, a third of them reported, and images without a cost."""
    now = SystemClock.wall()
    notes = [Note(WHOSE, "recaptcha", now - 3600.0 * hour, Counts(3, 3, 0.006, 1, 1)) for hour in range(24)]
    notes.append(Note(WHOSE, "image", now, Counts(50, wrong=1, sent=1)))
    transact(ledger, *notes)


def test_advice_and_claims_of_the_last_day_are_told(run: Run, ledger: MadeLedger, tmp_path: Path) -> None:
    """Every form has the advice with its account, and claims where the cost is known, not refunds."""
    note_a_day(ledger)
    told = json.loads(run("stats", "--json", "--ledger", str(ledger))[1])
    assert [(one["kind"], one["account"]) for one in told["advice"]] == [("few_tasks", ACCOUNT[:8])]
    image, token = told["claims"]
    assert (image["subject"], image["complaints"], image["claimed"]) == ("image", 1, None)
    assert token["costOfTask"] == pytest.approx(0.002)
    assert token["claimed"] == pytest.approx(0.002 * token["complaints"])
    path = tmp_path / "page.html"
    for words in ((), ("--html", str(path))):
        text = " ".join(run("stats", "--ledger", str(ledger), *words)[1].split())
        text = " ".join(path.read_text().split()) if words else text
        assert "fewer than 100 the vendor counts no report" in text
        assert "claims, not refunds" in text
        assert "claimed at 0.00200 a task" in text
        assert "pass cost to bridge.noteTasks" in text
    other = json.loads(run("stats", "--json", "--account", "ffff", "--ledger", str(ledger))[1])
    assert (other["advice"], other["claims"]) == ([], [])


def test_doctor_tells_advice(run: Run, ledger: MadeLedger) -> None:
    """What makes reports worthless is a warning of the doctor, and nothing is one, too."""
    before = json.loads(run("doctor", "--json", "--ledger", str(ledger))[1])["checks"]
    assert [check["status"] for check in before if check["name"] == "advice"] == ["ok"]
    note_a_day(ledger)
    after = json.loads(run("doctor", "--json", "--ledger", str(ledger))[1])["checks"]
    told = [check for check in after if check["name"] == "advice"]
    assert [check["status"] for check in told] == ["warning"]
    assert ACCOUNT[:8] in told[0]["message"]


@pytest.mark.parametrize("row", [row for row in rows("wire") if row.code], ids=lambda row: row.kind)
def test_every_code_of_the_bridge_is_explained(row: Any) -> None:
    """Each wire code has its own kind, sentence and advice."""
    assert explain(row.code)["kind"] == row.kind
    assert explain(row.code)["advice"]


@given(st.integers(1, 2**31 - 1))
def test_every_code_of_the_upstream_is_explained(code: int) -> None:
    """Known or not, an errorId has a sentence."""
    assert explain(code)["message"]


@given(st.dictionaries(st.integers(0, 1000), st.integers(1, 50), max_size=30), st.floats(0.01, 1.0))
def test_a_quantile_is_a_value_with_that_part_at_or_below(counts: dict[int, int], part: float) -> None:
    """At least the part lies at or below it, and less than the part lies below it."""
    found = quantile(counts, part)
    if not counts:
        assert found is None
        return
    assert found is not None
    whole = sum(counts.values())
    assert sum(n for value, n in counts.items() if value <= found) >= part * whole - 1e-6
    assert sum(n for value, n in counts.items() if value < found) < part * whole + 1e-6


@given(st.integers(0, 10**9))
def test_an_axis_ends_at_a_round_number_above(value: int) -> None:
    """The top is never below the highest column, and not more than twice as high."""
    top = nice_ceiling(value)
    assert max(value, 1) <= top <= max(2 * value, 1)
    assert len(short(top)) <= 4


def test_pauses_and_causes_are_listed() -> None:
    """Openings are added up by rule, and causes go with their code."""
    cells = {Cell(HOUR, IMAGE, "refused", -32003): 3}
    pauses = {Pause(HOUR, "quality", "x"): 2, Pause(HOUR + 5, "quality", "x"): 1}
    figures = figures_of(
        cells, pauses=pauses, causes={Cause(-32003, "HTTP 403"): 3}, latencies={Latency(IMAGE, 10): 3}
    )
    summary = summarise(figures, "day")
    assert [(row["rule"], row["openings"]) for row in summary["pauses"]] == [("quality", 3)]
    assert summary["refused"][0]["causes"] == {"HTTP 403": 3}
    assert "HTTP 403: 3" in render_page(summary | {"advice": [], "claims": []}, START)
