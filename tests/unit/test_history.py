"""Tests of `bridge.cli.history`: lists, one report's story, exports and pruning."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from bridge.cli import history
from tests.ledgers import BACKENDS, START, MadeLedger, make_of
from tests.process import PATIENCE_S, ROOT
from tests.unit.conftest import Run

DAY = 86_400.0


def talk_on_terminal(words: list[str], columns: int) -> list[str]:
    """Run the program on a terminal of so many columns and return its lines."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", *words],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "COLUMNS": str(columns),
        },
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    data = b""
    with suppress(OSError):  # the terminal is gone with its process
        while piece := os.read(master, 65536):
            data += piece
    os.close(master)
    assert process.wait(PATIENCE_S) == 0, data
    return data.decode("utf-8").splitlines()


@pytest.fixture(params=BACKENDS)
def ledger(request: pytest.FixtureRequest) -> MadeLedger:
    """A ledger of each kind with three reports."""
    made = make_of(request.param, request)()
    made.add_reports(
        {
            "task_id": 1,
            "recorded_wall": START,
            "events": {"claimed": {"owner": "a"}, "begun": {"attempt": 1}},
        },
        {
            "task_id": 2,
            "recorded_wall": START + DAY,
            "outcome": "refused",
            "code": 16,
            "kind": "no_such_captcha",
        },
        {"task_id": 3, "recorded_wall": START + 2 * DAY, "method": "reportIncorrectRecaptcha"},
    )
    return made


def test_list_shows_the_newest_first(run: Run, ledger: MadeLedger) -> None:
    """Each report is a line, and the newest comes first; the command alone lists, too."""
    code, out, err = run("history", "list", "--ledger", str(ledger))
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert [line.split()[2] for line in lines[1:]] == ["3", "2", "1"]
    assert "no_such_captcha" in lines[2]
    assert run("history", "--ledger", str(ledger)) == (code, out, err)
    assert run("history", "--limit", "1", "--json", "--ledger", str(ledger))[1].count("taskId") == 1


def test_columns_can_be_chosen(run: Run, ledger: MadeLedger) -> None:
    """The list has the named columns in their order; a name that is none is answered with those there are."""
    _, out, _ = run("history", "--columns", "task,outcome,took", "--ledger", str(ledger))
    assert out.splitlines()[0].split() == ["task", "outcome", "took"]
    assert out.splitlines()[1].split() == ["3", "accepted", "100", "ms"]
    code, _, err = run("history", "--columns", "task,outcom", "--ledger", str(ledger))
    assert code == 2
    assert "did you mean outcome?" in err


def test_a_list_fits_a_terminal_of_80_columns(ledger: MadeLedger) -> None:
    """No line wraps; what had no room is named."""
    lines = talk_on_terminal(["history", "--ledger", str(ledger)], columns=80)
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[2:] == ["3", "reportIncorrectRecaptcha", "accepted", "1"]
    assert lines[-1] == "No room for: kind, account."


@pytest.mark.parametrize("is_json", [False, True])
def test_follow_shows_what_comes_and_how_it_ends(
    run: Run, ledger: MadeLedger, monkeypatch: pytest.MonkeyPatch, is_json: bool
) -> None:
    """Reports come oldest first; each is shown when it is recorded and when it ends, and no other twice."""
    now = time.time()
    steps: list[Callable[[], object]] = [
        lambda: ledger.add_reports({"task_id": 8, "recorded_wall": now, "outcome": None}),
        lambda: ledger.select(
            "UPDATE reports SET state = 'done', outcome = 'accepted', code = 0, kind = 'accepted', "
            f"owner = NULL, finished_at = 1, finished_wall = {now} WHERE task_id = 8 RETURNING 1"
        ),
        lambda: None,
    ]

    def step(_: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    monkeypatch.setattr(time, "sleep", step)
    words = ["history", "--follow", "--limit", "1", "--ledger", str(ledger)]
    code, out, _ = run(*words, *(["--json"] if is_json else []))
    assert code == 130
    if is_json:
        told = [json.loads(line) for line in out.splitlines()]
        found = [(str(row["taskId"]), row["outcome"] or row["state"]) for row in told]
    else:
        found = [(line.split()[2], line.split()[4]) for line in out.splitlines()[1:]]
    assert found == [("3", "accepted"), ("8", "queued"), ("8", "accepted")]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        *(
            ("--limit takes a whole number from 1 on", (f"--limit={text}",))
            for text in ("0", "-1", "x", "1.5")
        ),
        *(("", words) for words in (("show",), ("show", "x"), ("list", "5"), ("show", "0"), ("nothing",))),
        ("does not take", ("prune", "--outcome", "refused")),
        ("does not take", ("prune", "--since", "2026-01-01")),
        ("does not take", ("list", "--before", "30d")),
        ("does not take", ("export", "--json")),
        ("does not take", ("path", "--limit", "3")),
        ("does not take", ("show", "1", "--output", "x")),
        ("did you mean reportIncorrectHcaptcha?", ("list", "--method", "reportIncorrectHcaptch")),
        # A moment less than a day ago would take what guards a task.
        ("guard", ("prune", "--before", "2h")),
    ],
)
def test_what_is_not_understood_is_a_usage_mistake(
    run: Run, ledger: MadeLedger, said: str, words: tuple[str, ...]
) -> None:
    """It ends with 2 and one line without names from inside, and no action keeps to a flag in part."""
    code, _, err = run("history", *words, "--ledger", str(ledger))
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert "_" not in err
    assert run("history", "list", "--json", "--ledger", str(ledger))[1].count("taskId") == 3


@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        (("--outcome", "refused"), [2]),
        (("--method", "reportIncorrectRecaptcha"), [3]),
        (("--since", "2026-01-02"), [3, 2]),
        (("--until", "2026-01-02T00:00Z"), [1]),
        (("--limit", "1"), [3]),
        (("--since", "1s"), []),
    ],
)
def test_list_keeps_to_its_filters(
    run: Run, ledger: MadeLedger, words: tuple[str, ...], tasks: list[int]
) -> None:
    """Each flag leaves out what does not fit."""
    code, out, _ = run("history", "list", "--json", "--ledger", str(ledger), *words)
    assert code == 0
    assert [json.loads(line)["taskId"] for line in out.splitlines()] == tasks


def test_show_tells_the_events_in_order(run: Run, ledger: MadeLedger) -> None:
    """The record comes first, then what happened, oldest first."""
    code, out, _ = run("history", "show", "1", "--ledger", str(ledger))
    assert code == 0
    assert out.index("accepted") < out.index("claimed") < out.index("begun")
    code, out, _ = run("history", "show", "1", "--json", "--ledger", str(ledger))
    assert [event["event"] for event in json.loads(out)["reports"][0]["events"]] == ["claimed", "begun"]


def test_show_tells_what_an_attempt_met_beside_the_name_of_the_event(run: Run, ledger: MadeLedger) -> None:
    """The kind of what was met does not take the place of the event's name."""
    ledger.add_reports({"task_id": 9, "events": {"waiting": {"event": "connection_reset"}}})
    _, out, _ = run("history", "show", "9", "--json", "--ledger", str(ledger))
    (event,) = json.loads(out)["reports"][0]["events"]
    assert (event["event"], event["met"]) == ("waiting", "connection_reset")
    assert "waiting         met connection_reset" in run("history", "show", "9", "--ledger", str(ledger))[1]


def test_show_says_that_nothing_is_known(run: Run, ledger: MadeLedger) -> None:
    """A task without a report is one sentence and exit code 1."""
    code, out, err = run("history", "show", "77", "--ledger", str(ledger))
    assert (code, out) == (1, "")
    assert "no report of task 77" in err


def test_exports_agree_with_each_other(run: Run, ledger: MadeLedger, tmp_path: Path) -> None:
    """CSV and JSON lines hold the same reports, and a file of the export is the user's alone."""
    _, out, _ = run("history", "export", "--ledger", str(ledger))
    rows = list(csv.DictReader(io.StringIO(out)))
    target = tmp_path / "out.jsonl"
    code, out, err = run(
        "history", "export", "--format", "jsonl", "--output", str(target), "--ledger", str(ledger)
    )
    assert (code, out) == (0, "")
    assert "3 reports" in err
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert [int(row["taskId"]) for row in rows] == [record["taskId"] for record in records] == [3, 2, 1]
    assert [row["outcome"] for row in rows] == [record["outcome"] for record in records]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_list_says_how_many_it_leaves_out(
    run: Run, ledger: MadeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line tells the whole, or that it is not counted to its end."""
    ledger.add_reports(*({"task_id": n} for n in range(10, 60)))
    assert run("history", "list", "--ledger", str(ledger))[1].splitlines()[-1].startswith("50 of 53;")
    monkeypatch.setattr(history, "_COUNTED", 52)
    assert run("history", "list", "--ledger", str(ledger))[1].splitlines()[-1].startswith("50 of 52 or more;")


def test_export_stops_at_its_limit(run: Run, ledger: MadeLedger) -> None:
    """No more than the asked number of reports is written."""
    _, out, _ = run("history", "export", "--limit", "2", "--ledger", str(ledger))
    assert len(out.splitlines()) == 3


def test_export_to_nowhere_is_a_sentence(run: Run, ledger: MadeLedger, tmp_path: Path) -> None:
    """A file that cannot be made is one line and exit code 1."""
    code, _, err = run("history", "export", "--output", str(tmp_path / "no" / "x"), "--ledger", str(ledger))
    assert code == 1
    assert "cannot be written" in err


def test_prune_deletes_only_what_is_old(run: Run, ledger: MadeLedger) -> None:
    """Reports older than the moment go with their events; younger ones stay."""
    ledger.add_reports({"task_id": 4, "recorded_wall": time.time()})
    code, out, _ = run("history", "prune", "--before", "2026-01-03", "--ledger", str(ledger))
    assert code == 0
    assert out.startswith("2 reports ")
    assert ledger.select("SELECT task_id FROM reports ORDER BY 1") == [(3,), (4,)]
    assert ledger.select("SELECT count(*) FROM events") == [(0,)]


def test_path_prints_the_path_and_nothing_else(run: Run, ledger: MadeLedger) -> None:
    """Scripts can use the output as it is."""
    assert run("history", "path", "--ledger", str(ledger)) == (0, f"{ledger}\n", "")


@pytest.mark.parametrize(
    "words", [("history", "list"), ("history", "export"), ("history", "prune"), ("stats",)]
)
def test_a_missing_ledger_is_a_sentence(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Nothing to read is exit code 1 and a sentence, and nothing is made."""
    code, out, err = run(*words, "--ledger", str(tmp_path / "none.sqlite3"))
    assert (code, out) == (1, "")
    assert "the first report makes it" in err
    assert list(tmp_path.iterdir()) == []
