"""What the client accepts and refuses before it sends anything."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from bridge.core.redact import Secret
from bridge.upstream import client as module
from bridge.upstream.attempt import Attempt
from bridge.upstream.client import Client
from bridge.upstream.connect import make_tls_context

KEY = Secret("canary-0123456789abcdef-canary")


def make(url: str = "https://upstream.test", **settings: Any) -> Client:
    """Make a client with settings that matter little."""
    defaults: dict[str, Any] = {"ca_file": None, "proxy": None, "connect_timeout_s": 1.0, "pool_size": 1}
    return Client(url, **(defaults | settings))


@pytest.mark.parametrize(
    "url",
    [
        "https://upstream.test",
        "https://upstream.test:8443/path/",
        "https://b\xfccher.test",
        "http://localhost:1",
        "http://127.0.0.1:1/x",
        "http://[::1]:1",
    ],
)
def test_good_urls_are_accepted(url: str) -> None:
    """https anywhere and plain http on loopback are fine."""
    make(url).close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://upstream.test", "loopback"),
        ("http://localhost.example", "loopback"),
        ("ftp://upstream.test", "https://"),
        ("upstream.test", "https://"),
        ("https://", "https://"),
        ("", "https://"),
        ("https://user:secret-word@upstream.test", "user"),
        ("https://upstream.test?x=secret-word", "query"),
        ("https://upstream.test#secret-word", "fragment"),
        ("https://upstream.test:99999", "not a URL"),
        ("https://[upstream", "not a URL"),
    ],
)
def test_bad_urls_are_refused(url: str, reason: str) -> None:
    """Anything else is refused by name, without repeating what may be secret."""
    with pytest.raises(ValueError, match=reason) as caught:
        make(url)
    assert "secret" not in str(caught.value)


def test_bad_ca_files_are_refused_at_once(tmp_path: Path) -> None:
    """A CA file that is missing or holds no certificate is told before anything is sent."""
    with pytest.raises(ValueError, match="No such file"):
        make(ca_file=str(tmp_path / "missing.pem"))
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing here\n")
    with pytest.raises(ValueError, match="no usable certificate"):
        make(ca_file=str(empty))


def test_bad_proxy_is_refused_at_once() -> None:
    """A proxy that is not supported is told before anything is sent."""
    with pytest.raises(ValueError, match="not supported"):
        make(proxy="https://proxy.test:443")


def test_usual_certificates_load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates are loaded on warm-up or first use, and never again."""
    loaded: list[str] = []
    real = make_tls_context

    def load(ca_file: str) -> Any:
        loaded.append(ca_file)
        return real(ca_file)

    monkeypatch.setattr(module, "make_tls_context", load)
    client = make()
    assert loaded == []
    client.warm_up()
    client.warm_up()
    assert len(loaded) == 1
    make("http://localhost:1").warm_up()
    assert len(loaded) == 1


def test_odd_method_names_never_reach_a_url() -> None:
    """A method name that is more than letters is a mistake of the caller."""
    with pytest.raises(ValueError, match="method name"):
        make().send("../x", KEY, 1, deadline_s=1.0, connect_by_s=1.0)


@pytest.mark.parametrize("step", ["begin", "go_on", "send"])
def test_mistake_in_the_program_raises_without_the_key(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """An exception no network can cause is raised bare: no cause, no frame and no object has the key."""
    client = make()
    held: list[Attempt] = []

    def break_down(*_: Any, **options: Any) -> None:
        attempt = options["timeout"] if step == "send" else _[0]
        held.append(attempt)
        if step != "send":
            assert KEY.reveal().encode() in attempt.unsent
        raise LookupError(attempt.unsent)

    monkeypatch.setattr(client._session if step == "send" else client._adapter, step, break_down)
    if step == "send":
        monkeypatch.setattr(client._adapter, "go_on", lambda attempt: setattr(attempt, "unsent", b""))
    with pytest.raises(RuntimeError, match="LookupError while sending") as caught:
        client.send("reportX", KEY, 1, deadline_s=1.0, connect_by_s=1.0)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert KEY.reveal() not in shown
    assert held[0].unsent == b""


def test_new_client_has_no_connections() -> None:
    """The counters begin at nothing."""
    assert make().stats() == (0, 0, 0)
