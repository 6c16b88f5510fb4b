"""Tests of `bridge.ledger.figures` and its SQLite reader: counts, lists, and a ledger left untouched."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.core.model import Listing
from bridge.ledger import sqlite_figures
from bridge.ledger.figures import Age, Cause, Cell, Latency, NoLedger, Pause, Reader, Span, open_reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.reports.methods import methods
from tests.ledgers import ACCOUNT, ENDPOINT, START, add_reports, make_ledger

METHODS = tuple(methods())
HOUR = int(START // 3600)


def opened(path: Path) -> Reader:
    """Open a ledger with clocks that stand still."""
    return open_reader(str(path), 1000.0, START)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """An empty ledger."""
    return make_ledger(tmp_path / "ledger.sqlite3")


def test_every_kind_of_figure_is_counted(ledger: Path) -> None:
    """Outcome, code, age, latency, cause and pause of each report come out as they went in."""
    add_reports(
        ledger,
        {"task_id": 1, "age_s": 3.7, "latency_ms": 80},
        {"task_id": 2, "outcome": "refused", "code": 16, "kind": "no_such_captcha", "age_s": 61},
        {"task_id": 3, "outcome": "not_sent", "code": -32001, "kind": "x", "detail": {"cause": "dns"}},
        {"task_id": 4, "outcome": "refused", "code": -32003, "kind": "x", "detail": {"httpStatus": 403}},
        {"task_id": 5, "outcome": "not_sent", "code": -32010, "kind": "x", "age_s": 5e9, "latency_ms": None},
        {"task_id": 6, "outcome": None, "method": "reportCorrectRecaptcha", "latency_ms": None},
        {
            "task_id": 7,
            "outcome": "refused",
            "code": 2**31 - 1,
            "kind": "unknown_code",
            "events": {"claimed": {}, "pause_opened": {"rule": "quality", "cause": "no_such_captcha"}},
        },
    )
    figures = opened(ledger).figures(Span(), METHODS)
    image = "reportIncorrectImageCaptcha"
    assert figures.cells == Counter(
        {
            Cell(HOUR, image, "accepted", 0): 1,
            Cell(HOUR, image, "refused", 16): 1,
            Cell(HOUR, image, "not_sent", -32001): 1,
            Cell(HOUR, image, "refused", -32003): 1,
            Cell(HOUR, image, "not_sent", -32010): 1,
            Cell(HOUR, "reportCorrectRecaptcha", "in_flight", 0): 1,
            Cell(HOUR, image, "refused", 2**31 - 1): 1,
        }
    )
    short = ACCOUNT[:8]
    assert figures.ages[Age(short, image, "accepted", "", 3)] == 1
    assert figures.ages[Age(short, image, "refused", "error_16", 61)] == 1
    assert figures.ages[Age(short, image, "not_sent", "window_closed", 600)] == 1
    assert figures.ages[Age(short, image, "refused", "", None)] == 2
    assert figures.latencies == Counter({Latency(image, 80): 1, Latency(image, 100): 4})
    assert figures.causes == Counter({Cause(-32001, "dns"): 1, Cause(-32003, "HTTP 403"): 1})
    assert figures.pauses == Counter({Pause(HOUR, "quality", "no_such_captcha"): 1})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    ages=st.lists(st.none() | st.floats(0, 700), max_size=30),
    codes=st.lists(
        st.sampled_from([0, 1, 16, 57, 2**31 - 1, -32001, -32010, -32021]), min_size=30, max_size=30
    ),
)
def test_every_report_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, ages: list[float | None], codes: list[int]
) -> None:
    """However reports are mixed, cells and ages each count all of them, and the codes are kept."""
    ledger = make_ledger(tmp_path_factory.mktemp("l") / "ledger.sqlite3")
    rows = [
        {
            "task_id": index + 1,
            "outcome": "accepted" if code == 0 else "refused" if code > 0 else "not_sent",
            "code": code,
            "kind": "x",
            "age_s": age,
            "recorded_wall": START + index * 1800,
        }
        for index, (age, code) in enumerate(zip(ages, codes, strict=False))
    ]
    add_reports(ledger, *rows)
    figures = opened(ledger).figures(Span(), METHODS)
    assert figures.cells.total() == figures.ages.total() == len(rows)
    counted: Counter[int] = Counter()
    for cell, many in figures.cells.items():
        counted[cell.code] += many
    assert counted == Counter(row["code"] for row in rows)


def test_a_span_counts_only_what_is_in_it(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, upstream, account and method each leave the others out, over many small steps."""
    monkeypatch.setattr(sqlite_figures, "STEP", 3)
    rows = [{"task_id": n + 1, "recorded_wall": START + n * 3600} for n in range(10)]
    add_reports(ledger, *rows)
    add_reports(ledger, {"task_id": 50, "endpoint": "http://127.0.0.1:1", "recorded_wall": START})
    add_reports(ledger, {"task_id": 51, "account": "f" * 32, "method": "reportIncorrectRecaptcha"})
    reader = opened(ledger)

    def total(**span: object) -> int:
        return reader.figures(Span(**span), METHODS).cells.total()  # type: ignore[arg-type]

    assert total() == 12
    assert total(since_wall=START + 3600, until_wall=START + 4 * 3600) == 3
    assert total(since_wall=START + 10**9) == 0
    assert total(until_wall=START) == 0
    assert total(endpoint=ENDPOINT) == 11
    assert total(account="ffff") == 1
    assert total(account="none") == 0
    assert total(method="reportIncorrectRecaptcha") == 1


def test_progress_ends_at_the_whole(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last thing told is that everything is done."""
    monkeypatch.setattr(sqlite_figures, "STEP", 2)
    add_reports(ledger, *({"task_id": n + 1} for n in range(5)))
    told: list[tuple[int, int]] = []
    opened(ledger).figures(Span(), METHODS, lambda done, whole: told.append((done, whole)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_reading_changes_nothing_and_makes_nothing(ledger: Path) -> None:
    """A reader leaves the file's bytes and its folder as they were."""
    add_reports(ledger, {"task_id": 1})
    before, folder = ledger.read_bytes(), sorted(os.listdir(ledger.parent))
    reader = opened(ledger)
    reader.figures(Span(), METHODS)
    list(reader.pages(Listing(None)))
    assert reader.try_write() is None
    assert reader.check() == ()
    reader.close()
    assert ledger.read_bytes() == before
    assert sorted(os.listdir(ledger.parent)) == folder


def test_a_bridge_can_commit_between_two_pages(ledger: Path) -> None:
    """While a listing is half read, somebody else's commit goes through at once."""
    add_reports(ledger, *({"task_id": n + 1} for n in range(6)))
    pages = opened(ledger).pages(Listing(None, limit=2))
    seen = [row.task.task_id for row in next(pages)]
    other = sqlite3.connect(ledger, timeout=0)
    other.execute("DELETE FROM reports WHERE task_id = 3")
    other.commit()
    other.close()
    seen += [row.task.task_id for page in pages for row in page]
    assert seen == [6, 5, 4, 2, 1]


def test_a_task_is_found_with_its_history(ledger: Path) -> None:
    """Every account's report of an id is found, an older one of the same task too, newest first."""
    add_reports(ledger, {"task_id": 9, "current": 0}, {"task_id": 9}, {"task_id": 9, "account": "e" * 32})
    assert [row.seq for row in opened(ledger).find(9, None)] == [3, 2, 1]
    assert opened(ledger).find(9, "https://other.example.test") == ()
    assert opened(ledger).find(10, None) == ()


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_ledger_is_a_sentence(tmp_path: Path, name: str) -> None:
    """A file that is missing or empty is no ledger yet, and is not made."""
    path = tmp_path / name
    if name == "empty":
        path.touch()
    with pytest.raises(NoLedger, match=r"no ledger at .* yet"):
        opened(path)
    assert path.exists() == (name == "empty")


@pytest.mark.parametrize("ledger", ["memory", "postgresql://db.example.test/x"])
def test_what_is_no_file_says_where_to_ask(ledger: str) -> None:
    """A ledger in memory or in a database is refused with another way."""
    with pytest.raises(NoLedger, match=r"bridge\.listReports"):
        open_reader(ledger, 0.0, 0.0)


def test_a_stranger_is_trouble(tmp_path: Path) -> None:
    """A file that is no ledger is refused and left alone."""
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to be looked at" * 50)
    with pytest.raises(LedgerTrouble):
        opened(path)
