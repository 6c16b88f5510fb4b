"""Tests of `bridge.ledger.statistics` and both of its readers: counts, lists, and a ledger left untouched."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.core.model import OUTCOMES, Listing
from bridge.ledger.postgres_reader import PostgresReader
from bridge.ledger.reading import open_reader
from bridge.ledger.sqlite_reader import SqliteReader
from bridge.ledger.statistics import Age, Cause, Cell, Figures, Latency, NoLedger, Pause, Reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.reports.methods import methods
from tests.ledgers import ACCOUNT, BACKENDS, ENDPOINT, START, FileLedger, MadeLedger, make_of

METHODS = tuple(methods())
HOUR = int(START // 3600)


def opened(ledger: object) -> Reader:
    """Open a ledger with clocks that stand still."""
    return open_reader(str(ledger), 1000.0, START)


@pytest.fixture(params=BACKENDS)
def ledger(request: pytest.FixtureRequest) -> MadeLedger:
    """An empty ledger of each kind."""
    return make_of(request.param, request)()


@pytest.fixture
def reader(ledger: MadeLedger) -> Iterator[Reader]:
    """A reader of the ledger of this test."""
    with closing(opened(ledger)) as found:
        yield found


def set_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the readers count so few reports at a time."""
    monkeypatch.setattr(SqliteReader, "step", step)
    monkeypatch.setattr(PostgresReader, "step", step)


def figures_of(
    reader: Reader, account: str | None = None, endpoint: str | None = None, **span: Any
) -> Figures:
    """Count what is in a span."""
    return reader.figures(Listing(endpoint, **span), account, METHODS)


def test_every_kind_of_figure_is_counted(ledger: MadeLedger, reader: Reader) -> None:
    """Outcome, code, age, latency, cause and pause of each report come out as they went in."""
    ledger.add_reports(
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
    figures = reader.figures(Listing(None), None, METHODS)
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


REPORTS = st.lists(
    st.fixed_dictionaries(
        {
            "account": st.sampled_from([ACCOUNT, "f" * 32]),
            "method": st.sampled_from([*METHODS, "reportSomethingElse"]),
            "code": st.sampled_from([None, 0, 1, 16, 2**31 - 1, -32001, -32003, -32010, -32021]),
            "age_s": st.none() | st.floats(-1, 700),
            "latency_ms": st.none() | st.integers(0, 10**6),
            "recorded_wall": st.floats(START, START + 1e6),
            "detail": st.sampled_from([{}, {"cause": "dns"}, {"cause": ""}, {"httpStatus": 503}]),
        }
    ),
    max_size=25,
)
_SPANS: list[dict[str, Any]] = [
    {},
    {"since_wall": START + 2e5, "until_wall": START + 8e5},
    {"account": "ffff"},
    {"method": METHODS[0], "endpoint": ENDPOINT},
]


def _columns_of(index: int, drawn: dict[str, Any]) -> dict[str, Any]:
    code = drawn["code"]
    if code is None:
        return {**drawn, "task_id": index + 1, "outcome": None}
    outcome = "accepted" if code == 0 else "refused" if code > 0 else OUTCOMES[index % 2 * 2 + 1]
    return {**drawn, "task_id": index + 1, "outcome": outcome, "kind": "x"}


@pytest.fixture
def both(request: pytest.FixtureRequest) -> list[MadeLedger]:
    """A ledger of each kind."""
    return [make_of(kind, request)() for kind in BACKENDS]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(drawn=REPORTS)
def test_every_report_is_counted_once(both: list[MadeLedger], drawn: list[dict[str, Any]]) -> None:
    """However reports are mixed, cells and ages each count all of them, and both readers agree."""
    rows = [_columns_of(index, columns) for index, columns in enumerate(drawn)]
    for made in both:
        made.select("DELETE FROM reports")
        made.add_reports(*rows)
    readers = [opened(made) for made in both]
    for span in _SPANS:
        first, second = (figures_of(reader, **span) for reader in readers)
        assert first == second
        if not span:
            assert first.cells.total() == first.ages.total() == len(rows)
            counted: Counter[int] = Counter()
            for cell, many in first.cells.items():
                counted[cell.code] += many
            assert counted == Counter(row["code"] or 0 for row in rows)
    for reader in readers:
        reader.close()


def test_a_span_counts_only_what_is_in_it(
    ledger: MadeLedger, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time, upstream, account and method each leave the others out, over many small steps."""
    set_step(monkeypatch, 3)
    opening = {"pause_opened": {"rule": "quality", "cause": "x"}}
    rows = [{"task_id": n + 1, "recorded_wall": START + n * 3600, "events": opening} for n in range(10)]
    ledger.add_reports(*rows)
    ledger.add_reports({"task_id": 50, "endpoint": "http://127.0.0.1:1", "recorded_wall": START})
    ledger.add_reports({"task_id": 51, "account": "f" * 32, "method": "reportIncorrectRecaptcha"})

    def total(**span: Any) -> tuple[int, int]:
        figures = figures_of(reader, **span)
        return figures.cells.total(), figures.pauses.total()

    assert total() == (12, 10)
    assert total(since_wall=START + 3600, until_wall=START + 4 * 3600) == (3, 3)
    assert total(since_wall=START + 10**9) == (0, 0)
    assert total(until_wall=START) == (0, 0)
    assert total(endpoint=ENDPOINT) == (11, 10)
    assert total(account="ffff") == (1, 0)
    assert total(account="none") == (0, 0)
    assert total(method="reportIncorrectRecaptcha") == (1, 0)


def test_progress_ends_at_the_whole(
    ledger: MadeLedger, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last thing told is that everything is done."""
    set_step(monkeypatch, 2)
    ledger.add_reports(*({"task_id": n + 1} for n in range(5)))
    told: list[tuple[int, int]] = []
    reader.figures(Listing(None), None, METHODS, lambda done, whole: told.append((done, whole)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_reading_changes_nothing_and_makes_nothing(tmp_path: Path) -> None:
    """A reader leaves the file's bytes and its folder as they were."""
    ledger = FileLedger(tmp_path / "ledger.sqlite3")
    ledger.add_reports({"task_id": 1})
    before, folder = ledger.path.read_bytes(), sorted(os.listdir(tmp_path))
    reader = opened(ledger)
    reader.figures(Listing(None), None, METHODS)
    list(reader.pages(Listing(None)))
    reader.try_write()
    assert reader.check() == reader.check(full=True) == ()
    reader.close()
    assert ledger.path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == folder


def test_a_bridge_can_commit_between_two_pages(ledger: MadeLedger, reader: Reader) -> None:
    """While a listing is half read, somebody else's commit goes through at once."""
    ledger.add_reports(*({"task_id": n + 1} for n in range(6)))
    pages = reader.pages(Listing(None, limit=2))
    seen = [row.task.task_id for row in next(pages)]
    ledger.select("DELETE FROM reports WHERE task_id = 3")
    seen += [row.task.task_id for page in pages for row in page]
    assert seen == [6, 5, 4, 2, 1]


def test_a_sound_ledger_says_so(ledger: MadeLedger, reader: Reader) -> None:
    """No damage is found in it, nobody is at work, and its reports are counted."""
    ledger.add_reports({"task_id": 1, "events": {"claimed": {}}})
    assert reader.check() == reader.check(full=True) == ()
    assert not reader.is_at_work()
    assert reader.health()["reports"] == 1


def test_a_count_goes_no_further_than_asked(ledger: MadeLedger, reader: Reader) -> None:
    """A count keeps to the filter and not to the limit, and stops where it is told to."""
    ledger.add_reports(*({"task_id": n + 1, "recorded_wall": START + n} for n in range(6)))
    ledger.add_reports({"task_id": 9, "outcome": "refused", "code": 16, "recorded_wall": START + 3})
    listing = Listing(ENDPOINT, START + 2, START + 5, limit=1)
    assert [reader.count(listing), reader.count(listing, 2), reader.count(listing, 9)] == [4, 2, 4]
    assert reader.count(listing._replace(outcome="refused")) == 1
    assert reader.count(Listing("http://127.0.0.1:1")) == 0


def test_a_task_is_found_with_its_history(ledger: MadeLedger, reader: Reader) -> None:
    """Every account's report of an id is found, an older one of the same task too, newest first."""
    ledger.add_reports(
        {"task_id": 9, "current": 0}, {"task_id": 9}, {"task_id": 9, "account": "e" * 32}, {"task_id": 8}
    )
    found = reader.find(9, None)
    assert [row.seq for row in found] == [3, 2, 1]
    assert reader.find(9, "https://other.example.test") == ()
    assert reader.find(10, None) == ()


def test_a_story_is_told_in_order(ledger: MadeLedger, reader: Reader) -> None:
    """Events come with their data as they were written."""
    ledger.add_reports({"task_id": 1, "events": {"claimed": {"owner": "a"}, "begun": {"attempt": 1}}})
    assert [(event.name, event.data) for event in reader.events(1)] == [
        ("claimed", {"owner": "a"}),
        ("begun", {"attempt": 1}),
    ]
    assert reader.events(2) == ()


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_ledger_is_a_sentence(tmp_path: Path, name: str) -> None:
    """A file that is missing or empty is no ledger yet, and is not made."""
    path = tmp_path / name
    if name == "empty":
        path.touch()
    with pytest.raises(NoLedger, match=r"no ledger at .* yet"):
        opened(path)
    assert path.exists() == (name == "empty")


def test_a_ledger_in_memory_says_where_to_ask() -> None:
    """What only the bridge itself can read is refused with another way."""
    with pytest.raises(NoLedger, match=r"bridge\.listReports"):
        open_reader("memory", 0.0, 0.0)


def test_a_stranger_is_trouble(tmp_path: Path) -> None:
    """A file that is no ledger is refused and left alone."""
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to be looked at" * 50)
    with pytest.raises(LedgerTrouble):
        opened(path)
