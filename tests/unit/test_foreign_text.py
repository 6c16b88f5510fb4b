"""Foreign text through every command: nothing that somebody else has said steers a terminal."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bridge.core.text import escape_char
from bridge.ledger.statistics import NoLedger
from tests.ledgers import BACKENDS, START, MadeLedger, make_of
from tests.unit.conftest import Run

BAD = "=x\x1b[2J\x1b]0;t\x07\x9b\r\n\t\x7f\u2028\u2029\u202e\u2066\u200f"
"""Clears a screen, sets a title, breaks lines and turns the reading direction; a formula, too."""
HARMLESS = {"\n"}


@pytest.fixture(params=BACKENDS)
def ledger(request: pytest.FixtureRequest) -> MadeLedger:
    """A ledger in which every text that somebody else may have chosen is a bad one."""
    made = make_of(request.param, request)()
    made.add_reports(
        {
            "task_id": 1,
            "method": BAD,
            "outcome": "refused",
            "code": 24,
            "kind": BAD,
            "endpoint": f"https://{BAD}",
            "task_type": BAD,
            "language_pool": BAD,
            "recorded_wall": START,
            "detail": {
                "errorCode": BAD,
                "errorDescription": BAD,
                "hints": [{"kind": "age", "message": BAD}],
                BAD: [BAD, {"x": BAD}],
            },
            "events": {"claimed": {"owner": BAD, BAD: BAD}, "settled": {"cause": {"message": BAD}}},
        },
        {"task_id": 2, "outcome": "not_sent", "code": -32001, "kind": BAD, "detail": {"cause": BAD}},
    )
    made.add_pause("key_refused", "0123456789abcdef" * 2, BAD, time.time() - 60, None)
    made.add_pause("method_withdrawn", BAD, BAD, time.time(), time.time() + 600)
    return made


def assert_harmless(text: str) -> None:
    """Assert that a text may be shown in any terminal."""
    found = {char for char in text if escape_char(char) != char} - HARMLESS
    assert not found, ascii(text)


@pytest.mark.parametrize(
    "words",
    [
        ("history",),
        ("history", "list", "--json"),
        ("history", "--columns", "method,kind,type,upstream"),
        ("history", "show", "1"),
        ("history", "show", "1", "--json"),
        ("history", "export"),
        ("history", "export", "--format", "jsonl"),
        ("stats",),
        ("stats", "--by", "method"),
        ("stats", "--by", "error", "--json"),
        ("stats", "--by", "method", "--csv"),
        ("pauses",),
        ("pauses", "--json"),
        ("doctor", "--full"),
        ("doctor", "--json"),
        ("ledger", "check", "--full"),
    ],
    ids=" ".join,
)
def test_what_the_ledger_holds_is_shown_harmless(
    run: Run, ledger: MadeLedger, words: tuple[str, ...]
) -> None:
    """Texts of the upstream and of callers come out of each command as visible characters, on one line."""
    code, out, err = run(*words, "--ledger", str(ledger))
    assert code in (0, 1)
    assert out
    assert_harmless(out + err)
    assert not any(line.startswith("\\u") for line in out.splitlines())


def test_columns_for_the_terminal_escape_what_is_shown(run: Run, ledger: MadeLedger) -> None:
    """The text is there, spelled out."""
    assert "=x\\u001b[2J" in run("history", "--ledger", str(ledger))[1]
    assert "=x\\u001b[2J" in run("history", "show", "1", "--ledger", str(ledger))[1]


def test_the_page_holds_no_markup_of_others(run: Run, ledger: MadeLedger, tmp_path: Path) -> None:
    """What others wrote is text on the page, and cannot turn its direction."""
    ledger.add_reports({"task_id": 3, "method": "</svg><script>x</script>" + BAD, "outcome": "accepted"})
    page = tmp_path / "page.html"
    for by in ("method", "error"):
        code, _, _ = run("stats", "--html", str(page), "--by", by, "--ledger", str(ledger))
        assert code == 0
        text = page.read_text(encoding="utf-8")
        assert_harmless(text.replace("\t", ""))
        assert "<script" not in text


def test_no_cell_of_a_spreadsheet_is_a_formula(run: Run, ledger: MadeLedger, tmp_path: Path) -> None:
    """Cells that begin as a formula does get an apostrophe, in the file and on stdout; our numbers stay."""
    target = tmp_path / "out.csv"
    run("history", "export", "--output", str(target), "--ledger", str(ledger))
    for text in (run("history", "export", "--ledger", str(ledger))[1], target.read_text(encoding="utf-8")):
        assert_harmless(text)
        rows = list(csv.DictReader(io.StringIO(text)))
        by_task = {row["taskId"]: row for row in rows}
        assert by_task["1"]["taskType"].startswith("'=x\\u001b")
        assert by_task["1"]["method"].startswith("'=x")
        assert by_task["2"]["code"] == "-32001"
        cells = [cell for row in rows for name, cell in row.items() if name != "code"]
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    _, out, _ = run("stats", "--by", "method", "--csv", "--ledger", str(ledger))
    assert not any(line.startswith(("=", "+", "-", "@")) for line in out.splitlines())


@pytest.fixture
def hostile_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a name that clears the screen."""
    home = tmp_path / BAD.replace("\x9b", "\x1b[1m")
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return home


@pytest.mark.parametrize(
    "words",
    [
        ("config",),
        ("config", "--json"),
        ("config", "--log-file", BAD, "--key-command", BAD),
        ("config", "--ca-file", BAD),
        ("config", "--url", "https://" + BAD),
        ("config", "--log-level", BAD),
        ("config", "--timeout", BAD),
        ("config", "--ledger", BAD + "://x"),
        ("doctor", "--key-file", BAD),
        ("doctor", "--key-command", f"'{BAD}'"),
        ("doctor", "--json", "--key-file", BAD),
        ("doctor", "--online", "--url", "http://127.0.0.1:1"),
        ("history", "path"),
        ("history",),
        ("history", "export", "--output", BAD + "/x"),
        ("history", "--columns", BAD),
        ("history", "--since", BAD),
        ("history", BAD),
        ("history", "show", BAD),
        ("stats", "--html", BAD + "/x"),
        ("ledger", "check"),
        ("ledger", "copy", BAD, BAD + "2"),
        ("help", BAD),
        ("help", "errors", BAD),
        ("call", BAD),
        ("call", "bridge.getReport", f"{BAD}=1"),
        ("snippet", BAD),
        ("completion", BAD),
        ("--" + BAD,),
        (BAD,),
    ],
    ids=lambda words: " ".join(words).split("=")[0],
)
def test_names_of_files_and_words_are_shown_harmless(
    run: Run, hostile_home: Path, words: tuple[str, ...]
) -> None:
    """Paths, values and words that somebody chose cannot steer the terminal of whoever reads about them."""
    _, out, err = run(*words)
    assert out + err
    assert_harmless(out + err)
    assert len(err.splitlines()) <= 1


def test_a_bad_configuration_file_is_told_harmless(run: Run, hostile_home: Path) -> None:
    """What stands in the file comes out escaped, whatever is wrong with it."""
    file = hostile_home / ".config" / "report-bridge" / "config.toml"
    file.parent.mkdir(parents=True)
    for text in (f'"{json.dumps(BAD)[1:-1]}" = 1', f'url = "{json.dumps(BAD)[1:-1]}"', "a\x1b = \x07"):
        file.write_text(text, encoding="utf-8")
        code, out, err = run("config")
        assert (code, out) == (3, "")
        assert_harmless(err)
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_an_answer_of_the_upstream_is_told_harmless(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Whatever the error says, the call prints it as visible characters."""
    data = {"kind": "unknown_code", "errorCode": BAD, "errorDescription": BAD, "hints": [{"message": BAD}]}
    response = {"error": {"code": 24, "message": "Refused.", "data": {**data, "sentence": BAD}}}
    module = ModuleType("fake_app")
    module.__dict__["run_once"] = lambda settings, method, params: response
    monkeypatch.setitem(sys.modules, "bridge.app", module)
    code, out, _ = run("call", "reportIncorrectImageCaptcha", "taskId=1", *words)
    assert code == 1
    assert_harmless(out)


def test_what_a_ledger_says_of_itself_is_told_harmless(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence that holds a path or a server's words is escaped on its way to stderr."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise NoLedger(BAD)

    monkeypatch.setattr("bridge.cli.ledger.open_reader", refuse)
    code, out, err = run("history", "--ledger", "/x")
    assert (code, out) == (1, "")
    assert_harmless(err)
    assert len(err.splitlines()) == 1
