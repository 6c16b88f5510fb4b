"""Tests of `bridge.cli.pauses`: what holds reports back, and how a person ends it."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.ledgers import ACCOUNT, BACKENDS, ENDPOINT, MadeLedger, make_of
from tests.unit.conftest import Run


@pytest.fixture(params=BACKENDS)
def ledger(request: pytest.FixtureRequest) -> MadeLedger:
    """A ledger of each kind with a pause that only a person ends, and one that ends by itself."""
    made = make_of(request.param, request)()
    made.add_reports({"task_id": 1})
    now = time.time()
    made.add_pause("key_refused", ACCOUNT, "key_does_not_exist", now - 60, None)
    made.add_pause("method_withdrawn", "reportIncorrectHcaptcha", "no_such_method", now, now + 600)
    return made


def test_list_says_why_and_until_when(run: Run, ledger: MadeLedger) -> None:
    """Each pause is a line with its cause and its end, and the advice of its error follows."""
    code, out, err = run("pauses", "list", "--ledger", str(ledger))
    assert (code, err) == (0, "")
    assert "key_does_not_exist" in out
    assert "never by itself: run pauses resume" in out
    assert ", then one report is tried" in out
    assert "Copy the key again" in out
    assert ACCOUNT not in out


def test_json_tells_times_as_the_wire_does(run: Run, ledger: MadeLedger) -> None:
    """Instants are RFC 3339 on the wall clock, whatever the ledger's timeline is."""
    _, out, _ = run("pauses", "list", "--json", "--ledger", str(ledger))
    first, second = json.loads(out)["pauses"]
    assert (first["scope"], first["manual"], first["endsAt"]) == ("key", True, None)
    assert first["account"] == ACCOUNT[:8]
    assert first["openedAt"].startswith(time.strftime("%Y-%m-%dT", time.gmtime()))
    assert (second["scope"], second["manual"]) == ("method", False)


def test_a_pause_of_a_wrong_clock_is_shown_mended(run: Run, ledger: MadeLedger) -> None:
    """What was opened in the future ends by its own length from now, in the table as in JSON."""
    before = int(time.time())
    ahead = before + 400 * 86_400.0
    ledger.add_pause("key_balance", ACCOUNT, "zero_balance", ahead, ahead + 600)
    words = ("pauses", "list", "--ledger", str(ledger))
    shown = json.loads(run(*words, "--json")[1])["pauses"]
    (pause,) = [pause for pause in shown if pause["cause"] == "zero_balance"]
    opened, ends = (datetime.fromisoformat(pause[name]).timestamp() for name in ("openedAt", "endsAt"))
    assert before <= opened <= time.time()
    assert ends - opened == pytest.approx(600, abs=0.01)
    assert "in 400 d" not in run(*words)[1]


def test_another_upstream_has_no_pause(run: Run, ledger: MadeLedger) -> None:
    """With --url only the pauses of that upstream are shown."""
    _, out, _ = run("pauses", "list", "--ledger", str(ledger), "--url", "http://127.0.0.1:9")
    assert "No pause holds" in out


def test_resume_turns_the_next_report_into_a_probe(run: Run, ledger: MadeLedger) -> None:
    """Only the asked scope is resumed, and afterwards it is due."""
    words = ("--ledger", str(ledger), "--url", ENDPOINT)
    code, out, _ = run("pauses", "resume", "--scope", "key", *words)
    assert code == 0
    assert "key (key_does_not_exist)" in out
    _, out, _ = run("pauses", "list", *words)
    assert "the next report is tried" in out
    assert "never by itself" not in out
    code, out, _ = run("pauses", "resume", "--scope", "address", *words)
    assert (code, out) == (0, "There was no pause to resume.\n")


def test_what_is_listed_is_resumed(run: Run, ledger: MadeLedger) -> None:
    """Without --url the pauses of every upstream end, as they are shown; with it those of that one alone."""
    words = ("--ledger", str(ledger))
    _, out, _ = run("pauses", "resume", *words, "--url", "http://127.0.0.1:9", "--json")
    assert json.loads(out) == {"resumed": []}
    code, out, err = run("pauses", "resume", *words, "--json")
    assert (code, err) == (0, "")
    listed = json.loads(run("pauses", "list", "--json", *words)[1])["pauses"]
    for pauses in (listed, json.loads(out)["resumed"]):
        assert [(pause["scope"], pause["endpoint"], pause["manual"]) for pause in pauses] == [
            ("key", ENDPOINT, False),
            ("method", ENDPOINT, False),
        ]
    assert run("pauses", "list", *words)[1].count("the next report is tried") == 2


def test_resume_makes_no_ledger(run: Run, tmp_path: Path) -> None:
    """Without a ledger it is a sentence and exit code 1."""
    code, _, err = run("pauses", "resume", "--ledger", str(tmp_path / "none"))
    assert code == 1
    assert "no ledger" in err
    assert list(tmp_path.iterdir()) == []


def test_list_takes_no_scope(run: Run, ledger: MadeLedger) -> None:
    """A flag that would do nothing is refused."""
    code, _, err = run("pauses", "list", "--scope", "key", "--ledger", str(ledger))
    assert (code, "--scope, which is for resume" in err) == (2, True)
