"""Tests of `bridge.settings` and of its table, parsers and sources."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from bridge.core.events import events
from bridge.core.exits import ConfigError
from bridge.settings import Settings, describe, drop_secrets, load
from bridge.settings.parsing import (
    BadValue,
    has_password,
    mask_password,
    parse_ledger,
    parse_proxy,
    parse_seconds,
    parse_upstream,
    shown,
)
from bridge.settings.table import GROUPS, TABLE

KEY = "0123456789abcdef0123456789abcdef"


class Place:
    """A user with a home directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / ".config" / "report-bridge" / "config.toml"

    def write(self, text: str) -> None:
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(text, encoding="utf-8")

    def load(self, flags: Mapping[str, str | bool] | None = None, **variables: str) -> Settings:
        return load(flags or {}, {"HOME": str(self.home), **variables})

    def refusal(self, flags: Mapping[str, str | bool] | None = None, **variables: str) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(flags, **variables)
        assert caught.value.exit_code == 3
        text = str(caught.value)
        assert text.endswith((".", "?"))
        assert "\n" not in text
        return text


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Give a user on Linux, whatever the machine."""
    monkeypatch.setattr(sys, "platform", "linux")
    return Place(tmp_path)


# --- the table -------------------------------------------------------------------------------


def test_every_row_is_complete() -> None:
    """Each setting has a sentence, a known group, unique names, and a default its own parser accepts."""
    for column in ("name", "key", "variable"):
        names = [getattr(row, column) for row in TABLE]
        assert len(set(names)) == len(names), column
    for row in TABLE:
        assert row.help.endswith("."), row.name
        assert row.group in GROUPS, row.name
        assert row.name in Settings.__annotations__, row.name
        if row.kind in ("integer", "seconds"):
            assert row.low <= row.default <= row.high, row.name
        if row.kind == "secret":
            assert row.flag is None, row.name
            assert not row.in_file, row.name


def test_defaults_are_those_of_the_contract(place: Place) -> None:
    """With nothing given every setting has its documented default."""
    found = place.load()
    assert found.url == "https://api.anti-captcha.com"
    assert (found.concurrency, found.queue, found.timeout_s, found.connect_timeout_s) == (32, 1000, 10, 3)
    assert (found.max_message, found.max_batch, found.max_depth, found.drain_s) == (1048576, 1000, 64, 8)
    assert (found.pauses, found.parent_watch, found.require_ledger, found.sandbox) == (
        True,
        True,
        False,
        False,
    )
    assert (found.log_level, found.log_format, found.log_file) == ("warning", "auto", None)
    assert (found.proxy, found.ca_file, found.key_file, found.key_command, found.client_key) == (None,) * 5
    assert found.ledger == str(place.home / ".local/state/report-bridge/ledger.sqlite3")
    assert found.origin("url") == "default"
    assert found.notices == ()


# --- sources and their order -----------------------------------------------------------------


def test_flags_beat_environment_beats_file_beats_default(place: Place) -> None:
    """The nearest source wins for each setting apart, and the origin names it."""
    place.write("concurrency = 1\nqueue = 2\nmax_batch = 3\n")
    found = place.load(
        {"concurrency": "10"},
        REPORT_BRIDGE_CONCURRENCY="20",
        REPORT_BRIDGE_QUEUE="30",
        REPORT_BRIDGE_DRAIN="0.5",
    )
    assert (found.concurrency, found.queue, found.max_batch, found.drain_s) == (10, 30, 3, 0.5)
    assert found.origin("concurrency") == "flag --concurrency"
    assert found.origin("queue") == "environment REPORT_BRIDGE_QUEUE"
    assert found.origin("max_batch") == f"file {place.config}"
    assert found.origin("max_depth") == "default"


def test_every_setting_can_be_given_in_every_source(place: Place) -> None:
    """Each row is read from its flag, its variable and its file key, with the same result."""
    ca_file = place.home / "ca.pem"
    ca_file.touch()
    samples = {
        "integer": ("77", "77", 77),
        "seconds": ("1.5", "1.5", 1.5),
        "path": (str(ca_file), f'"{ca_file}"', str(ca_file)),
        "text": ("pass show key", '"pass show key"', "pass show key"),
        "upstream": ("http://127.0.0.1:8080/", '"http://127.0.0.1:8080"', "http://127.0.0.1:8080"),
        "proxy": ("http://proxy:3128", '"http://proxy:3128"', "http://proxy:3128"),
        "ledger": ("memory", '"memory"', "memory"),
    }
    text: str
    toml: str
    value: object
    for row in TABLE:
        if row.kind == "secret":
            continue
        if row.kind == "switch":
            text, toml, value = str(not row.default), str(not row.default).lower(), not row.default
        elif row.kind == "choice":
            text, toml, value = row.choices[0].upper(), f'"{row.choices[0]}"', row.choices[0]
        else:
            text, toml, value = samples[row.kind]
        place.write("")
        assert getattr(place.load({row.name: text}), row.name) == value
        assert getattr(place.load({}, **{row.variable: text}), row.name) == value
        place.write(f"{row.key} = {toml}\n")
        assert getattr(place.load(), row.name) == value


def test_empty_variables_count_as_not_set(place: Place) -> None:
    """An empty variable changes nothing, except an empty key, which is refused."""
    for row in TABLE:
        if row.kind != "secret":
            assert place.load({}, **{row.variable: ""}).origin(row.name) == "default"
    assert "ANTICAPTCHA_CLIENT_KEY" in place.refusal({}, ANTICAPTCHA_CLIENT_KEY="")


def test_unknown_variables_are_a_warning(place: Place) -> None:
    """A variable with our prefix and no setting gives one event with a suggestion."""
    found = place.load({}, REPORT_BRIDGE_CONCURENCY="5", REPORT_BRIDGE_BIN="/x", REPORT_BRIDGE_ZZZ="1")
    assert [name for name, _ in found.notices] == ["setting_unknown", "setting_unknown"]
    assert found.notices[0][1]["name"] == "REPORT_BRIDGE_CONCURENCY"
    assert "REPORT_BRIDGE_CONCURRENCY" in found.notices[0][1]["hint"]
    assert found.notices[1][1]["hint"] == "Unset it."
    for name, fields in found.notices:
        assert set(fields) <= set(events()[name].fields)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("REPORT_BRIDGE_CLIENT_KEY", "ANTICAPTCHA_CLIENT_KEY"),
        ("REPORT_BRIDGE_ANTICAPTCHA_CLIENT_KEY", "ANTICAPTCHA_CLIENT_KEY"),
        ("REPORT_BRIDGE_KEY_FILE", "ANTICAPTCHA_CLIENT_KEY_FILE"),
        ("REPORT_BRIDGE_CLIENT_KEY_FILE", "ANTICAPTCHA_CLIENT_KEY_FILE"),
        ("REPORT_BRIDGE_KEY_COMAND", "REPORT_BRIDGE_KEY_COMMAND"),
        ("REPORT_BRIDGE_CAFILE", "REPORT_BRIDGE_CA_FILE"),
    ],
)
def test_only_variables_that_exist_are_suggested(place: Place, typed: str, meant: str) -> None:
    """What was probably meant is named as it is spelled, also where that has another beginning."""
    ((_, fields),) = place.load({}, **{typed: "x"}).notices
    assert fields["hint"] == f"Did you mean {meant}?"


def test_unknown_file_keys_are_refused(place: Place) -> None:
    """A key of the file that is no setting ends the start, with a suggestion where one is near."""
    place.write("concurency = 5\n")
    assert "did you mean concurrency" in place.refusal()
    place.write(f'client_key = "{KEY}"\n')
    text = place.refusal()
    assert "key_file" in text
    assert KEY not in text
    for text in (f"{KEY} = 1\n", f"[{KEY}]\n", f"[{KEY}]\n[{KEY}]\n", f"{KEY} = 1\n{KEY}.x = 1\n"):
        place.write(text)
        text = place.refusal()
        assert str(place.config) in text
        assert KEY not in text
    place.write('ledger_password = "x"\n')
    assert "REPORT_BRIDGE_LEDGER_PASSWORD" in place.refusal()
    place.write("[table]\nurl = 1\n")
    assert "'table'" in place.refusal()


def test_file_values_need_the_right_type(place: Place) -> None:
    """A TOML value of another type is refused with a sentence naming setting and file."""
    for line in (
        'concurrency = "5"', "concurrency = true", "concurrency = 1.5", "concurrency = -1", "timeout = inf",
        "timeout = 1e300", 'pauses = "on"', "pauses = 1", "url = 5", "log_file = [1]", 'log_file = ""',
    ):  # fmt: skip
        place.write(line + "\n")
        text = place.refusal()
        assert line.partition(" ")[0] in text
        assert str(place.config) in text
    place.write("timeout = 5\ndrain = 2.5\n")
    found = place.load()
    assert (found.timeout_s, found.drain_s) == (5, 2.5)


def test_a_broken_file_is_refused(place: Place) -> None:
    """A file that is no TOML, no UTF-8 or unreadable ends the start and is named."""
    place.write("url = \n")
    assert "not valid TOML" in place.refusal()
    place.config.write_bytes(b"# \xff\n")
    assert "UTF-8" in place.refusal()
    place.config.unlink()
    place.config.mkdir()
    assert "cannot be read" in place.refusal()


def test_the_working_directory_is_never_searched(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration files in the working directory are not read."""
    work = place.home / "work"
    (work / "report-bridge").mkdir(parents=True)
    for name in ("config.toml", "report-bridge.toml", "report-bridge/config.toml"):
        (work / name).write_text("nonsense = 1\n")
    monkeypatch.chdir(work)
    assert place.load({}, XDG_CONFIG_HOME="", XDG_STATE_HOME=".").origin("url") == "default"
    assert place.load({}, XDG_CONFIG_HOME=".").config_file == str(place.config)


def test_directories_of_the_user(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG variables win, HOME comes next, and macOS has its own place."""
    found = place.load({}, XDG_CONFIG_HOME="/c", XDG_STATE_HOME="/s")
    assert found.config_file == "/c/report-bridge/config.toml"
    assert found.state_dir == "/s/report-bridge"
    assert found.ledger == "/s/report-bridge/ledger.sqlite3"
    monkeypatch.setattr(sys, "platform", "darwin")
    found = place.load()
    assert found.state_dir == f"{place.home}/Library/Application Support/report-bridge"
    assert found.config_file == f"{place.home}/Library/Application Support/report-bridge/config.toml"


def test_an_empty_environment_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HOME the user database is asked, and without that the ledger is in memory, with a warning."""
    import pwd

    class Entry:
        pw_dir = "/from/database"

    monkeypatch.setattr(pwd, "getpwuid", lambda uid: Entry)
    assert load({}, {}).state_dir is not None
    assert "/from/database" in load({}, {}).ledger

    def unknown_user(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown_user)
    found = load({}, {})
    assert found.ledger == "memory"
    assert found.origin("ledger") == "default"
    assert (found.state_dir, found.config_file) == (None, None)
    assert [name for name, _ in found.notices] == ["ledger_memory"]
    with pytest.raises(ConfigError, match="memory"):
        load({"require_ledger": True}, {})


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"concurrency": "0"}, "from 1 to 1024"),
        ({"concurrency": "1025"}, "from 1 to 1024"),
        ({"concurrency": "many"}, "whole number"),
        ({"concurrency": "1_0"}, "whole number"),
        ({"concurrency": "٣"}, "whole number"),
        ({"queue": "-1"}, "whole number"),
        ({"queue": "9" * 5000}, "whole number"),
        ({"timeout_s": "nan"}, "decimal number"),
        ({"timeout_s": "inf"}, "decimal number"),
        ({"timeout_s": "1e3"}, "decimal number"),
        ({"timeout_s": "."}, "decimal number"),
        ({"timeout_s": "0"}, "0.05"),
        ({"timeout_s": "1,5"}, "decimal number"),
        ({"pauses": "maybe"}, "true or false"),
        ({"log_level": "loud"}, "debug or info or warning or error"),
        ({"log_format": "xml"}, "json or text or auto"),
        ({"url": "ftp://example.com"}, "https://"),
        ({"url": "api.anti-captcha.com"}, "https://"),
        ({"url": "http://api.anti-captcha.com"}, "write https"),
        ({"url": "https://me:secret@example.com"}, "user name"),
        ({"url": "https://me@example.com"}, "user name"),
        ({"url": "https://@example.com"}, "user name"),
        ({"url": "https://example.com?x=1"}, "query"),
        ({"url": "https://example.com/#"}, "fragment"),
        ({"url": "https://"}, "host"),
        ({"url": "https://exa mple.com"}, "host"),
        ({"url": "https://bücher.example"}, "xn--"),
        ({"url": "https://[::1"}, "host"),
        ({"url": "https://[nothex]"}, "host"),
        ({"url": "https://example.com:0"}, "port"),
        ({"url": "https://example.com:65536"}, "port"),
        ({"url": "https://example.com:x"}, "port"),
        ({"url": "https://[::1]x"}, "port"),
        ({"url": "https://example.com/a b"}, "path"),
        ({"proxy": "proxy:3128"}, "http://"),
        ({"proxy": "socks5://proxy:1080"}, "http://"),
        ({"proxy": "https://proxy:3128"}, "http://"),
        ({"proxy": "http://proxy:3128/path"}, "path"),
        ({"proxy": "http://me:secret@proxy:3128?x"}, "query"),
        ({"proxy": "http://me:secret@proxy:0"}, "port"),
        ({"proxy": "http://me:secret@:3128"}, "host"),
        ({"ledger": "mysql://host/db"}, "postgresql://"),
        ({"ledger": "postgresql:host"}, "incomplete"),
        ({"ledger": ""}, "path"),
        ({"ledger": "postgresql://me:secret@host/db"}, "REPORT_BRIDGE_LEDGER_PASSWORD"),
        ({"ledger": "postgres://host/db?sslmode=require&password=secret"}, "REPORT_BRIDGE_LEDGER_PASSWORD"),
        ({"ledger": "memory", "require_ledger": True}, "--ledger"),
        ({"ca_file": "/nonexistent/ca.pem"}, "PEM"),
        ({"key_file": "a", "key_command": "b"}, "flag --key-file and flag --key-command"),
        ({"key_command": "  "}, "empty"),
        ({"log_file": "a\0b"}, "path"),
    ],
)
def test_bad_values_are_refused_with_a_sentence(
    place: Place, flags: Mapping[str, str | bool], word: str
) -> None:
    """Each bad value names its setting and origin, says what to write, and shows no password."""
    text = place.refusal(flags)
    assert word in text
    assert "secret" not in text
    assert any(f"flag {row.flag}" in text for row in TABLE if row.name in flags)


@pytest.mark.parametrize(
    ("given_url", "canonical"),
    [
        ("https://API.Anti-Captcha.com", "https://api.anti-captcha.com"),
        ("HTTPS://api.anti-captcha.com:443/", "https://api.anti-captcha.com"),
        ("https://api.anti-captcha.com:8443//", "https://api.anti-captcha.com:8443"),
        ("https://example.com/Base/Path/", "https://example.com/Base/Path"),
        ("http://localhost:80", "http://localhost"),
        ("http://LOCALHOST:8080/", "http://localhost:8080"),
        ("http://127.9.8.7:1", "http://127.9.8.7:1"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]"),
        (" https://example.com\n", "https://example.com"),
        ("https://example.com:", "https://example.com"),
    ],
)
def test_upstream_addresses_become_canonical(given_url: str, canonical: str) -> None:
    """Spellings of one address become one, which stays as it is when parsed again."""
    assert parse_upstream(given_url) == canonical
    assert parse_upstream(canonical) == canonical


@given(st.text(max_size=40), st.sampled_from(["https://", "http://", "postgresql://", ""]))
def test_parsers_refuse_or_accept_but_never_crash(text: str, scheme: str) -> None:
    """Any text is either a value or a sentence; accepted addresses are stable and ASCII."""
    for parse in (parse_upstream, parse_proxy, parse_ledger):
        try:
            value = parse(scheme + text)
        except BadValue:
            continue
        if parse is parse_upstream:
            assert parse(value) == value
            assert value.isascii()


@given(st.floats(0, 1000, allow_nan=False))
def test_seconds_are_read_exactly(value: float) -> None:
    """Plain decimal numbers are read as Python reads them."""
    text = f"{value:.6f}"
    assert parse_seconds(text, 0, 1000) == float(text)


def test_loopback_needs_a_literal() -> None:
    """Only the name localhost and literal loopback addresses are loopback."""
    for host in ("localhost", "127.0.0.1", "127.255.255.255", "[::1]"):
        assert parse_upstream(f"http://{host}") == f"http://{host}"
    others = ["127.0.0.256", "127.0.0", "127.1", "127.0.0.01", "128.0.0.1", "[::]", "[::2]", "x.localhost"]
    for host in (*others, "localhost.example.com", "127.0.0.1.example.com"):
        with pytest.raises(BadValue, match="write https"):
            parse_upstream(f"http://{host}")


def test_passwords_in_urls_are_seen_and_masked() -> None:
    """User info and query parameters are searched; the user of a proxy without a password is one."""
    assert has_password("postgresql://me:pw@host/db")
    assert has_password("postgresql://host/db?sslpassword=pw")
    assert has_password("postgresql://host/db?p%61ssword=pw")
    assert not has_password("postgresql://me@host/db?application_name=x")
    assert (
        mask_password("postgresql://me:pw@host/db?password=pw&a=b")
        == "postgresql://me:***@host/db?password=***&a=b"
    )
    assert mask_password("http://me:p@ss@host") == "http://me:***@host"
    assert mask_password("http://host:80") == "http://host:80"
    for login in ("token@", "token:@", "to@ken@", "tok%3Aen@"):
        assert mask_password(f"http://{login}host:80") == "http://***@host:80"
    assert has_password(" HTTP://token@host:80")
    for ledger in ("postgresql://me@host/db", "postgres://me:@host/db"):
        assert not has_password(ledger)
    for password in ("p?w", "p/w", "p#w", "p@w?x", "p@w/x", "a/b=", "p%3Fw", "p:w"):
        assert mask_password(f"postgresql://me:{password}@host:1/db") == "postgresql://me:***@host:1/db"
    for plain in ("me:@host", "host:1/db?user=me:x@y", "me@host:1?user=x@y", "[::1]:1/db?user=x@y"):
        assert not has_password(f"postgresql://{plain}")


_SECRETS = ("password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret")
_PIECES = [*"u:@/?#%=&,1", "%41", "[::1]", "password", "p%61ssword", "sslpassword", "scram_client_key"]
_PARTS = st.lists(st.sampled_from(_PIECES), max_size=8).map("".join)


@given(_PARTS, _PARTS)
@example("u:", "?x@h/d")
@example("h/d?oauth_client_secret=", "")
def test_what_libpq_takes_for_a_secret_is_seen_and_masked(before: str, after: str) -> None:
    """Wherever a secret stands in a URL: if libpq finds it there it is not shown."""
    url = f"postgresql://{before}s3cret{after}"
    with suppress(ProgrammingError):
        found = conninfo_to_dict(url)
        if any("s3cret" in str(found.get(name)) for name in _SECRETS):
            assert "s3cret" not in mask_password(url)
            assert has_password(url)


def test_values_that_may_be_keys_are_not_repeated() -> None:
    """A message never repeats what looks like a key, and never much of anything."""
    assert KEY not in shown(KEY)
    assert KEY not in shown(f"/secrets/{KEY}")
    assert len(shown("x" * 5000)) < 100
    assert shown("a\nb\x1b") == "'a\\nb\\x1b'"


def test_paths_become_absolute(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths count from the working directory, those of the file from the file's folder, ~ from home."""
    monkeypatch.chdir(place.home)
    assert place.load({"log_file": "x/log"}).log_file == str(place.home / "x/log")
    assert place.load({"ledger": "~/l.db"}).ledger == str(place.home / "l.db")
    place.write('log_file = "log"\nledger = "~/m.db"\n')
    found = place.load()
    assert found.log_file == str(place.config.parent / "log")
    assert found.ledger == str(place.home / "m.db")


def test_relative_paths_need_a_working_directory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the working directory was removed a relative path is refused by a sentence."""

    def gone() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    assert "working directory" in place.refusal({"log_file": "log"})


def test_ledger_urls_keep_their_password_from_the_environment(place: Place) -> None:
    """A password in REPORT_BRIDGE_LEDGER is allowed, used, and masked when shown."""
    found = place.load({}, REPORT_BRIDGE_LEDGER="postgres://me:secret@host/db")
    assert found.ledger == "postgresql://me:secret@host/db"
    shown_rows = {name: value for name, value, _ in describe(found)}
    assert shown_rows["ledger"] == "postgresql://me:***@host/db"


# --- the key's source ------------------------------------------------------------------------


def test_both_key_variables_at_once_are_an_error(place: Place) -> None:
    """Two key variables contradict each other; a flag beats both."""
    both = {"ANTICAPTCHA_CLIENT_KEY": KEY, "ANTICAPTCHA_CLIENT_KEY_FILE": "/k"}
    text = place.refusal({}, **both)
    assert "ANTICAPTCHA_CLIENT_KEY_FILE" in text
    assert KEY not in text
    found = place.load({"key_file": "/other"}, **both)
    assert (found.key_file, found.client_key) == ("/other", None)
    assert found.origin("key_file") == "flag --key-file"
    assert place.refusal({}, ANTICAPTCHA_CLIENT_KEY=KEY, REPORT_BRIDGE_KEY_COMMAND="pass")


def test_the_environment_key_beats_a_key_file_of_the_configuration(place: Place) -> None:
    """Only the nearest source that names a key source counts."""
    place.write('key_file = "/k"\n')
    assert place.load().key_file == "/k"
    found = place.load({}, ANTICAPTCHA_CLIENT_KEY=KEY)
    assert found.key_file is None
    assert found.client_key is not None
    assert found.client_key.reveal() == KEY
    place.write('key_file = "/k"\nkey_command = "pass"\n')
    text = place.refusal()
    assert "key_file and key_command" in text


def test_secrets_are_dropped_from_the_environment() -> None:
    """No child process inherits a secret variable."""
    rest = {"PATH": "/bin", "REPORT_BRIDGE_LEDGER": "postgresql://me@host/db"}
    secrets = {"REPORT_BRIDGE_LEDGER_PASSWORD": "x", "REPORT_BRIDGE_PROXY": "http://token@host"}
    environ = {"ANTICAPTCHA_CLIENT_KEY": KEY, **rest, **secrets}
    drop_secrets(environ)
    drop_secrets(environ)
    assert environ == rest


# --- the sandbox -----------------------------------------------------------------------------


def test_the_sandbox_reads_no_key_and_keeps_its_ledger_in_memory(place: Place) -> None:
    """Key sources are not read, not even wrong ones, and of ledgers only one that a flag names counts."""
    place.write('ledger = "/real.db"\nkey_file = "/k"\nkey_command = "x"\n')
    found = place.load({"sandbox": True}, ANTICAPTCHA_CLIENT_KEY="", ANTICAPTCHA_CLIENT_KEY_FILE="/k")
    assert (found.ledger, found.key_file, found.key_command, found.client_key) == ("memory", None, None, None)
    assert found.notices == ()
    assert place.load({"sandbox": True, "ledger": "/x.db"}).ledger == "/x.db"
    assert place.load({}, REPORT_BRIDGE_SANDBOX="on", REPORT_BRIDGE_LEDGER="/y.db").ledger == "memory"
    assert (
        place.load({"sandbox": False}, REPORT_BRIDGE_SANDBOX="1", ANTICAPTCHA_CLIENT_KEY_FILE="/k").key_file
        == "/k"
    )
    place.write("")
    assert "memory" in place.refusal({"sandbox": True, "require_ledger": True})


# --- the object ------------------------------------------------------------------------------


def test_settings_do_not_change(place: Place) -> None:
    """Attributes can be neither set nor deleted."""
    found = place.load()
    with pytest.raises(AttributeError):
        found.url = "x"
    with pytest.raises(AttributeError):
        del found.url


def test_description_masks_secrets(place: Place) -> None:
    """Every setting is described with its origin, and no secret is in the description."""
    found = place.load(
        {"proxy": "http://me:hush@proxy:3128"},
        ANTICAPTCHA_CLIENT_KEY=KEY,
        REPORT_BRIDGE_LEDGER_PASSWORD="hush",
    )
    rows = {name: (value, origin) for name, value, origin in describe(found)}
    assert list(rows) == [row.key for row in TABLE]
    assert rows["client_key"] == ("set", "environment ANTICAPTCHA_CLIENT_KEY")
    assert rows["ledger_password"][0] == "set"
    assert rows["proxy"] == ("http://me:***@proxy:3128", "flag --proxy")
    token = place.load({"proxy": "http://hush@proxy:3128"})
    assert "hush" not in repr(describe(token))
    assert "hush" not in repr(rows)
    assert KEY not in repr(rows)
    commands = place.load({"key_command": "vault read --token hush"})
    assert dict((name, value) for name, value, _ in describe(commands))["key_command"] == "vault ***"
