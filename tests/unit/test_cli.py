"""Tests of the command line: `bridge.cli.main`, its flags and the small commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bridge
from bridge.cli import call
from bridge.cli.commands import COMMANDS, make_parser, parse_arguments, settings_of, shown_flag
from bridge.cli.help import TOPICS
from bridge.core import exits
from bridge.core.exits import EXITS, ConfigError, UsageError, exit_for
from bridge.settings.table import TABLE
from tests.unit.conftest import Run

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put a service in place that only notes its arguments."""
    calls: list[Any] = []
    module = ModuleType("fake_serve")

    def note(args: Any) -> int:
        calls.append(args)
        return 0

    module.__dict__.update(
        configure=lambda parser: parser.add_argument("--stdio", action="store_true"),
        run=note,
    )
    monkeypatch.setitem(sys.modules, "bridge.cli.serve", module)
    return calls


# --- finding the command ---------------------------------------------------------------------


def test_no_words_and_flags_alone_mean_serve(run: Run, service: list[Any]) -> None:
    """Without a command the service starts, with the flags given; --stdio changes nothing."""
    assert run() == (0, "", "")
    assert run("--stdio", "--queue", "5") == (0, "", "")
    assert run("serve", "--queue=5", "--no-pauses", "--sandbox") == (0, "", "")
    assert [args.given for args in service] == [
        {},
        {"queue": "5"},
        {"queue": "5", "pauses": False, "sandbox": True},
    ]


@given(
    st.lists(
        st.sampled_from(
            [row.flag for row in TABLE if row.flag] + ["--stdio", "--no-pauses", "--no-sandbox", "7", "x=y"]
        )
        | st.sampled_from(["--queue=1", "--url=", "--sandbox=1", "--que", "--", "-", ""]),
        max_size=5,
    )
)
def test_settings_are_read_the_same_with_and_without_a_parser(words: list[str]) -> None:
    """What is given before a word of the command's own is what would be given without it, mistakes too."""

    def read(words: list[str]) -> Any:
        try:
            return parse_arguments("serve", words).given
        except UsageError as error:
            return str(error)

    assert read(["--json", *words]) == read(words)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--queue", "-1"], {"queue": "-1"}),
        (["--queue=--", "--url", "-"], {"queue": "--", "url": "-"}),
        (["--no-sandbox", "--sandbox"], {"sandbox": True}),
        (["--key-command", "a --b", "--queue", "1", "--queue", "2"], {"key_command": "a --b", "queue": "2"}),
    ],
)
def test_flags_of_settings_are_read(words: list[str], given: dict[str, Any]) -> None:
    """A value may begin with one dash, the last of two counts, and an equals sign takes whatever follows."""
    assert parse_arguments("serve", words).given == given


@pytest.mark.parametrize("words", [["--queue"], ["--queue", "--sandbox"], ["--sandbox=1"], ["--no-pauses="]])
def test_flags_without_what_they_take_are_told(words: list[str]) -> None:
    """A value that is missing, or one too many, is a mistake that names the flag."""
    with pytest.raises(UsageError, match=f"^{words[0].partition('=')[0]} takes (a|no) value; see"):
        parse_arguments("serve", words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["confg"], "report-bridge config"),
        (["--key", KEY], "--key-file"),
        (["--key", KEY], "ANTICAPTCHA_CLIENT_KEY"),
        (["help", "999"], "error"),
        (["help", "errors", "no_such_captch"], "error"),
        (["help", "history", "16"], "error"),
        *(
            (["call", "reportIncorrectImageCaptcha", word], word.partition("=")[0])
            for word in ("completedAt=nan", "completedAt=inf", "completedAt=1e400", "taskId=", "taskId=-1")
        ),
        (["--sandbx"], "--sandbox"),
        (["serve", "--time", "5"], "--timeout"),
        (["serve", "--url"], "--url"),
        (["--sandbox", "config"], "first"),
        (["config", "extra"], "too many"),
        (["version", "--url", "https://x"], "does not take --url"),
        (["version", "--no-sandbox"], "does not take --no-sandbox"),
        (["call"], "report-bridge: METHOD is missing: name of a method"),
        (["ledger"], "report-bridge: ACTION is missing: copy|check|migrate; see"),
        (["history", "--colums", "task"], "--colums is not known; did you mean --columns?"),
        (["history", "--limit", "0"], "report-bridge: --limit takes a whole number from 1 on; see"),
        (["history", "--outcome", "accept"], "not_sent; did you mean accepted? See"),
        (["history", "--output"], "report-bridge: --output takes a value; see"),
        (["pauses", "--timeout", "3"], "does not take --timeout"),
        (["call", "reportIncorrectImage", "taskId=1"], "reportIncorrectImageCaptcha"),
        (["call", "$/cancelRequest", "id=1"], "no such method"),
        (["call", "reportIncorrectImageCaptcha", "taskid=1"], "taskId"),
        (["call", "reportIncorrectImageCaptcha", "1"], "NAME=VALUE"),
        (["call", "reportIncorrectImageCaptcha", "taskId=1.5"], "whole number"),
        (["call", "reportIncorrectImageCaptcha", "taskId=1", "taskId=2"], "twice"),
        (["call", "reportIncorrectImageCaptcha", "completedAt=now"], "a number"),
        (["call", "bridge.info", "x=1"], "none"),
        (["help", "error"], "errors"),
        (["report", "--help"], "report-bridge call METHOD"),
        (["reportIncorrectImageCaptcha", "taskId=1"], "report-bridge call METHOD"),
        (["x" * 50], "no command"),
        (["\u00e4"], "no command"),
        (["serve", "--" + "x" * 50], "not known"),
    ],
)
def test_usage_errors_are_one_sentence(run: Run, words: Sequence[str], said: str) -> None:
    """Each mistake on the command line ends with exit code 2 and one line that helps."""
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("report-bridge: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--key", KEY],
        [f"--key={KEY}"],
        ["serve", f"--clientKey={KEY}"],
        [f"--{KEY}"],
        [KEY],
        ["config", KEY],
        ["config", "--queue", KEY],
        ["config", "--log-level", KEY],
        ["config", "--url", KEY],
        ["config", "--sandbox=" + KEY],
        ["config", "--ca-file", KEY],
        ["call", KEY],
        ["call", "bridge.getReport", f"clientKey={KEY}"],
        ["call", "bridge.getReport", KEY],
        ["call", "bridge.getReport", f"taskId={KEY}"],
        ["help", KEY],
    ],
)
def test_a_key_on_the_command_line_is_never_repeated(run: Run, words: Sequence[str]) -> None:
    """A key given to the wrong place is refused and is in no message."""
    code, out, err = run(*words)
    assert code in (2, 3)
    assert KEY not in out + err


def test_a_key_in_the_place_of_its_file_is_not_shown(run: Run, tmp_path: Path) -> None:
    """`config` shows the path of a key file, but not what is no file and may be the key."""
    code, out, _ = run("config", "--key-file", KEY)
    assert (code, KEY in out, "***" in out) == (0, False, True)
    file = tmp_path / "a1b2c3d4e5f6a7b8c9d0"
    file.touch()
    assert str(file) in run("config", "--key-file", str(file))[1]


# --- help ------------------------------------------------------------------------------------


def test_help_lists_every_command_and_topic(run: Run) -> None:
    """The overview needs nothing and names every command, topic and an example."""
    for words in (["--help"], ["-h"], ["help"]):
        code, out, err = run(*words)
        assert (code, err) == (0, "")
        assert all(name in out for name in (*COMMANDS, *TOPICS, "Examples"))
        assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_complete_help(run: Run, name: str) -> None:
    """Each command has a sentence of help that fits a screen, and names the flags of the settings it uses."""
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert out == run("help", name)[1]
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) <= (30 if name == "history" else 24)
    assert {shown_flag(row) for row in settings_of(name)} <= set(out.split())
    whole = dict.fromkeys(("serve", "doctor", "config"), 24) | dict.fromkeys(
        ("history", "stats", "ledger"), 2
    )
    assert len(settings_of(name)) == (whole | {"call": 14, "pauses": 4}).get(name, 0)
    for action in make_parser(name)._actions:
        assert action.help, action.dest


@pytest.mark.parametrize("name", TOPICS)
def test_every_topic_is_printed(run: Run, name: str) -> None:
    """Each topic is text of its own, made from the tables, that fits a terminal and breaks no address."""
    code, out, err = run("help", name)
    assert (code, err) == (0, "")
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 80
    if name == "exit-codes":
        assert all(f"{code:>5}  " in out for code in EXITS)
    if name == "environment":
        assert all(row.variable in out for row in TABLE)
        assert "REPORT_BRIDGE_BIN" in out
        assert "https://api.anti-captcha.com" in out
    if name == "errors":
        assert "-32021" in out
        assert "ERROR" not in out.split()
        assert "    16  no_such_captcha" in out


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("16",), "no_such_captcha"),
        (("errors", "16"), "no_such_captcha"),
        (("-32010",), "window_closed"),
        (("window_closed",), "window_closed"),
        (("errors", "window_closed"), "window_closed"),
        (("ERROR_NO_SUCH_CAPCHA_ID",), "no_such_captcha"),
        (("errors", "ERROR_NO_SUCH_CAPTCHA_ID"), "no_such_captcha"),
    ],
)
def test_one_error_is_explained(run: Run, words: tuple[str, ...], kind: str) -> None:
    """A code in hand, a kind or the upstream's name is enough for its meaning, its advice and its cause."""
    code, out, err = run("help", *words)
    assert (code, err) == (0, "")
    assert f"{kind}: " in out
    assert len(out.splitlines()) < 15


# --- version and config ----------------------------------------------------------------------


def test_version_is_printed(run: Run) -> None:
    """The version is on stdout, also as JSON with what it stands on."""
    for words in (["--version"], ["-V"], ["version"], ["--stdio", "--queue", "5", "--version"]):
        assert run(*words) == (0, f"report-bridge {bridge.__version__}\n", "")
    code, out, _ = run("version", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["version"] == bridge.__version__
    assert facts["protocol"] == 1
    assert facts["libraries"]["requests"]


def test_config_shows_values_and_origins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is printed with its origin; keys and passwords are not."""
    monkeypatch.setenv("ANTICAPTCHA_CLIENT_KEY", KEY)
    monkeypatch.setenv("REPORT_BRIDGE_PROXY", "http://me:hush@proxy:3128")
    monkeypatch.setenv("REPORT_BRIDGE_QEUE", "1")
    code, out, err = run("config", "--timeout", "2.5", "--no-pauses")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split(None, 1)[1] for line in out.splitlines() if line}
    assert rows["timeout"].split() == ["2.5", "flag", "--timeout"]
    assert rows["pauses"].split()[0] == "off"
    assert rows["client_key"].split() == ["set", "environment", "ANTICAPTCHA_CLIENT_KEY"]
    assert rows["proxy"].split()[0] == "http://me:***@proxy:3128"
    assert "ignored. Did you mean REPORT_BRIDGE_QUEUE?" in out
    assert "config.toml (not there, not needed)\n" in out
    assert KEY not in out
    assert "hush" not in out
    code, out, err = run("config", "--json")
    found = json.loads(out)
    assert found["settings"]["client_key"] == {"value": "set", "origin": "environment ANTICAPTCHA_CLIENT_KEY"}
    assert found["settings"]["queue"] == {"value": 1000, "origin": "default"}
    assert found["notices"][0]["event"] == "setting_unknown"
    assert KEY not in out


def test_bad_settings_end_with_code_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that cannot be used is one sentence and exit code 3, for every command that uses it."""
    monkeypatch.setenv("REPORT_BRIDGE_URL", "http://example.com")
    for words in (["config"], ["call", "bridge.info"], []):
        code, out, err = run(*words)
        assert (code, out) == (3, "")
        assert "environment REPORT_BRIDGE_URL" in err
        assert err.count("\n") == 1


# --- call ------------------------------------------------------------------------------------


def test_params_get_the_type_of_their_schema() -> None:
    """What the wire takes for numbers becomes numbers, everything else stays text."""
    method = call.find_method("reportIncorrectImageCaptcha")
    words = ["taskId=9007199254740991", "completedAt=1767323045.25", "taskType=123", "languagePool=en"]
    assert call.parse_params(method, words) == {
        "taskId": 9007199254740991,
        "completedAt": 1767323045.25,
        "taskType": "123",
        "languagePool": "en",
    }
    assert call.parse_params(method, ["taskId=5.0", "completedAt=1.5e9"]) == {
        "taskId": 5,
        "completedAt": 15 * 10**8,
    }
    for text in ("1_000", "\u0667", " 7", "7 ", "+8", "08", "0x8", "true", "[1]", "1.5", "1e99", "1e-9", ""):
        with pytest.raises(UsageError, match="taskId is a whole number"):
            call.parse_params(method, [f"taskId={text}"])
    for text in ("1_0.5", "\u0667", " 7.5", "1.", ".5", "infinity", "NaN", "1e999"):
        with pytest.raises(UsageError, match="completedAt is a number"):
            call.parse_params(method, [f"completedAt={text}"])
    method = call.find_method("bridge.listReports")
    assert call.parse_params(method, ["limit=5", "outcome=unknown", "cursor=a=b"]) == {
        "limit": 5,
        "outcome": "unknown",
        "cursor": "a=b",
    }


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Any]]:
    """Put an application in place that gives one answer and notes what it was asked."""

    def install(response: Any) -> list[Any]:
        asked: list[Any] = []
        module = ModuleType("fake_app")

        def run_once(settings: Any, method: str, params: Any) -> Any:
            asked.append((settings.sandbox, method, params))
            return response

        module.__dict__["run_once"] = run_once
        monkeypatch.setitem(sys.modules, "bridge.app", module)
        return asked

    return install


def test_call_prints_the_answer(run: Run, answer: Callable[[Any], list[Any]]) -> None:
    """The answer is printed for people, or as one line of JSON; flags may stand anywhere."""
    result = {"status": "success", "taskId": 5, "outcome": "accepted", "elapsedMs": 7, "replayed": False}
    response = {"jsonrpc": "2.0", "id": 1, "result": result}
    asked = answer(response)
    words = ["call", "reportIncorrectImageCaptcha", "--sandbox", "taskId=5"]
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["accepted: task 5 (7 ms)", "status     success"]
    assert run(*words, "--json") == (0, json.dumps(response) + "\n", "")
    assert asked == [(True, "reportIncorrectImageCaptcha", {"taskId": 5})] * 2
    result["replayed"] = True
    assert "nothing was sent" in run(*words)[1]
    answer({"jsonrpc": "2.0", "id": 1, "result": {"pid": 1}})
    assert run("call", "bridge.info")[1] == "pid  1\n"


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (1, "key_does_not_exist", 4),
        (16, "no_such_captcha", 1),
        (999, "unknown_code", 1),
        (-32020, "key_missing", 4),
        (-32021, "sending_paused", 1),
        (-32010, "window_closed", 1),
        (-32002, "outcome_unknown", 5),
        (-32001, "upstream_unreachable", 6),
        (-32003, "upstream_http", 1),
        (-32602, "invalid_params", 2),
        (-32603, "internal_error", 70),
        (-32031, "ledger_unavailable", 1),
        (-32014, "report_not_found", 1),
    ],
)
def test_exit_code_says_how_the_call_went(
    run: Run, answer: Callable[[Any], list[Any]], code: int, kind: str, exit_code: int
) -> None:
    """Each kind of error has its exit code, and its advice is printed."""
    answer({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "Fixed.", "data": {"kind": kind}}})
    found, out, _ = run("call", "reportCorrectRecaptcha", "taskId=1")
    assert found == exit_code
    headline, advice, _ = out.split("\n", 2)
    assert kind in headline
    assert str(code) in headline
    assert advice.endswith(".")


def test_success_is_exit_code_0() -> None:
    """A result is success whatever it says, and every exit code is in the table."""
    assert exit_for({"result": None}) == exits.DONE
    assert set(exits._BY_CODE.values()) <= set(EXITS)


# --- ways of ending --------------------------------------------------------------------------


def explode(error: BaseException) -> Callable[[Any], int]:
    """Return a command that raises."""

    def run_it(args: Any) -> int:
        raise error

    return run_it


def test_internal_errors_are_one_line_without_text(
    run: Run, service: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault is exit code 70 and one line; at level debug it says where, never the exception's text."""
    monkeypatch.setattr(sys.modules["bridge.cli.serve"], "run", explode(ValueError(KEY)))
    code, out, err = run()
    assert (code, out) == (70, "")
    assert err.count("\n") == 1
    assert "ValueError" in err
    monkeypatch.setenv("REPORT_BRIDGE_LOG_LEVEL", "debug")
    _, _, debug = run()
    assert "main.py:" in debug
    assert KEY not in err + debug


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(KeyboardInterrupt(), 130), (ConfigError("No."), 3), (UsageError("No."), 2), (SystemExit(5), 70)],
)
def test_ways_of_ending_have_exit_codes(
    run: Run, service: list[Any], monkeypatch: pytest.MonkeyPatch, error: BaseException, exit_code: int
) -> None:
    """Interruptions and mistakes end with their code and without a traceback."""
    monkeypatch.setattr(sys.modules["bridge.cli.serve"], "run", explode(error))
    code, _, err = run()
    assert code == exit_code
    assert "Traceback" not in err


def run_program(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the program in a process of its own with an empty environment."""
    root = Path(bridge.__file__).parent.parent
    kwargs.setdefault("env", {})
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words], cwd=root, timeout=60, check=False, **kwargs
    )


@pytest.mark.parametrize("words", [["--help"], ["help", "errors"], ["version"], ["config", "--help"]])
def test_closed_stdout_ends_quietly(words: list[str]) -> None:
    """If nobody reads stdout a command ends with 74 and says nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_program(*words, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (74, b"")


if os.path.exists("/dev/full"):

    @pytest.mark.parametrize("line", ["--help", "help errors", "serve --help", "call rpc.discover --sandbox"])
    def test_a_full_disk_is_no_fault_of_the_program(line: str) -> None:
        """If stdout cannot be written, be it much or little, a command ends with 74 and says why."""
        with open("/dev/full", "wb") as full:
            done = run_program(*line.split(), stdout=full, stderr=subprocess.PIPE)
        told = b"report-bridge: Standard output cannot be written: No space left on device.\n"
        assert (done.returncode, done.stderr) == (74, told)


@pytest.mark.parametrize(
    "environ", [{}, {"LANG": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}]
)
@pytest.mark.parametrize("words", [["--help"], ["config"], ["help", "environment"], ["help", "errors"]])
def test_an_empty_environment_and_ascii_terminals_work(words: list[str], environ: dict[str, str]) -> None:
    """Help and commands work without any variable, and where only ASCII can be shown."""
    done = run_program(*words, env=environ, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


def test_paths_that_cannot_be_shown_are_escaped(tmp_path: Path) -> None:
    """A home directory with bytes that are no text does not break the output."""
    home = os.fsencode(tmp_path) + b"/\xff\xc3\xa4"
    done = run_program(
        "config", env={"HOME": os.fsdecode(home), "PYTHONIOENCODING": "ascii"}, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\udcff" in done.stdout
