"""Every exception the libraries below can raise has a word, or is a mistake of ours by name."""

from __future__ import annotations

import builtins
import socket
import ssl
import types
from typing import Any

import httptools.parser.errors
import pytest
import requests.exceptions

from bridge import engine
from bridge.upstream import answers, connecting
from bridge.upstream.client import FAILURES, name_failure
from bridge.upstream.connecting import Dialer, Names, Unreached
from bridge.upstream.streams import LACKS, SocketStream, is_lack
from tests.world import raise_bug

MISTAKE = None
"""Says that the exception can only come from a mistake in this program."""

WORDS = ("dns", "connect", "tls", "certificate", "proxy", "reset", "timeout", "cut", "malformed", "window")

REQUESTS: dict[str, str | None] = {
    "RequestException": MISTAKE,
    "InvalidJSONError": MISTAKE,
    "JSONDecodeError": MISTAKE,
    "CompatJSONDecodeError": "malformed",
    "HTTPError": MISTAKE,
    "BaseHTTPError": MISTAKE,
    "ConnectionError": MISTAKE,
    "ProxyError": MISTAKE,
    "SSLError": MISTAKE,
    "Timeout": MISTAKE,
    "ConnectTimeout": MISTAKE,
    "ReadTimeout": MISTAKE,
    "URLRequired": MISTAKE,
    "TooManyRedirects": MISTAKE,
    "MissingSchema": MISTAKE,
    "InvalidSchema": MISTAKE,
    "InvalidURL": MISTAKE,
    "InvalidHeader": MISTAKE,
    "InvalidProxyURL": MISTAKE,
    "ChunkedEncodingError": MISTAKE,
    "ContentDecodingError": MISTAKE,
    "StreamConsumedError": MISTAKE,
    "RetryError": MISTAKE,
    "UnrewindableBodyError": MISTAKE,
    "RequestsWarning": MISTAKE,
    "FileModeWarning": MISTAKE,
    "RequestsDependencyWarning": MISTAKE,
}
OURS: dict[str, str | None] = {"Malformed": "malformed", "Cut": "cut"}
ENGINE: dict[str, str | None] = {
    "NoResources": "reset",  # raised before anything was sent it is handed on, see below
    "TimedOut": "timeout",
}
SYSTEM: dict[str, str | None] = {
    "OSError": "reset",
    "BlockingIOError": "reset",
    "ChildProcessError": "reset",
    "ConnectionError": "reset",
    "BrokenPipeError": "reset",
    "ConnectionAbortedError": "reset",
    "ConnectionRefusedError": "reset",
    "ConnectionResetError": "reset",
    "FileExistsError": "reset",
    "FileNotFoundError": "reset",
    "InterruptedError": "reset",
    "IsADirectoryError": "reset",
    "NotADirectoryError": "reset",
    "PermissionError": "reset",
    "ProcessLookupError": "reset",
    "TimeoutError": "timeout",
    "EnvironmentError": "reset",
    "IOError": "reset",
    "WindowsError": "reset",
}
TLS: dict[str, str | None] = {
    "SSLError": "reset",
    "SSLZeroReturnError": "reset",
    "SSLWantReadError": "reset",
    "SSLWantWriteError": "reset",
    "SSLSyscallError": "reset",
    "SSLEOFError": "reset",
    "SSLCertVerificationError": "reset",
    "CertificateError": "reset",
    "socket_error": "reset",
}
SOCKET: dict[str, str | None] = {
    "error": "reset",
    "gaierror": "reset",
    "herror": "reset",
    "timeout": "timeout",
}
LIBRARIES: list[tuple[types.ModuleType, type[BaseException], dict[str, str | None]]] = [
    (requests.exceptions, Exception, REQUESTS),
    (answers, Exception, OURS),
    (engine, Exception, ENGINE),
    (builtins, OSError, SYSTEM),
    (ssl, OSError, TLS),
    (socket, OSError, SOCKET),
]
STEPS: dict[str, tuple[object, str]] = {
    "dns": (Names, "find"),
    "connect": (Dialer, "_reach"),
    "proxy": (connecting, "_open_tunnel"),
    "tls": (SocketStream, "start_tls"),
}
"""Step of opening a connection -> what does it."""
BEFORE = (*STEPS, "certificate", "window")
"""What is told before anything has left."""


def find_classes(module: types.ModuleType, root: type[BaseException]) -> dict[str, type[BaseException]]:
    """Find the exception classes of a module."""
    found = {name: item for name, item in vars(module).items() if isinstance(item, type)}
    return {name: item for name, item in found.items() if issubclass(item, root)}


def make(kind: type[BaseException]) -> BaseException:
    """Make an exception without its constructor, whose arguments differ."""
    return kind.__new__(kind)


@pytest.mark.parametrize(("module", "root", "words"), LIBRARIES, ids=[row[0].__name__ for row in LIBRARIES])
def test_every_class_has_its_word(
    module: types.ModuleType, root: type[BaseException], words: dict[str, str | None]
) -> None:
    """Each class means, after the request left, what was decided here; a new class must be decided on."""
    classes = find_classes(module, root)
    assert set(classes) - set(words) == set()
    named = {name: name_failure(make(kind)) for name, kind in classes.items()}
    assert named == {name: words[name] for name in classes}


def open_failing(step: str, error: BaseException) -> None:
    """Open a connection through a proxy that fails at a step."""

    def fail(*_: object) -> Any:
        raise error

    dialer = Dialer(engine.Engine(raise_bug), "https://upstream.test", None, "http://192.0.2.1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SocketStream, "connect", lambda *_: None)
        patch.setattr(connecting, "_open_tunnel", lambda *_: None)
        target, name = STEPS[step]
        patch.setattr(target, name, fail)
        if step != "proxy":
            dialer._tunnel_head = None
        dialer.open(dialer._engine.now() + 60.0)


@pytest.mark.parametrize("module", [builtins, ssl, socket], ids=lambda module: module.__name__)
@pytest.mark.parametrize("step", STEPS)
def test_system_errors_have_a_word_at_every_step(module: types.ModuleType, step: str) -> None:
    """Whatever the system or TLS raises while connecting is told by the step it was at."""
    for name, kind in find_classes(module, OSError).items():
        with pytest.raises(Unreached) as caught:
            open_failing(step, make(kind))
        is_distrust = name in ("SSLCertVerificationError", "CertificateError")
        assert caught.value.failure == ("certificate" if is_distrust else step)


def test_whatever_the_parser_raises_is_caught() -> None:
    """Who reads chunks makes `Malformed` of one class, and all others are kinds of it, or of no answer."""
    raised = find_classes(httptools.parser.errors, Exception)
    del raised["HttpParserUpgrade"]  # only after a head that offers another protocol, and it gets none
    assert all(issubclass(kind, httptools.HttpParserError) for kind in raised.values())


def test_proxy_may_answer_anything() -> None:
    """Whatever is wrong with a proxy's answer is the proxy's fault."""
    for kind in find_classes(answers, Exception).values():
        with pytest.raises(Unreached, match="proxy"):
            open_failing("proxy", make(kind))


def test_tables_use_known_words_only() -> None:
    """Every word that the verdict knows is said somewhere, and no other."""
    assert {failure for _, failure in FAILURES if failure} | set(BEFORE) == set(WORDS)


@pytest.mark.parametrize("word", BEFORE)
def test_step_that_failed_is_told(word: str) -> None:
    """Who connects has named the failure already."""
    assert name_failure(Unreached(word)) == word


@pytest.mark.parametrize("kind", [LookupError, TypeError, AttributeError, AssertionError, MemoryError])
def test_mistakes_have_no_word(kind: type[Exception]) -> None:
    """What neither network nor upstream can cause is not blamed on them."""
    assert name_failure(kind()) is None
    for step in STEPS:
        with pytest.raises(kind):
            open_failing(step, kind())


@pytest.mark.parametrize("module", [builtins, ssl, socket], ids=lambda module: module.__name__)
def test_lack_is_told_by_its_number_whatever_the_class(module: types.ModuleType) -> None:
    """No descriptor, no memory: whichever class of the system says so; nothing else is a lack."""
    for kind in find_classes(module, OSError).values():
        if not issubclass(kind, socket.gaierror):  # its numbers are of another kind
            assert all(is_lack(kind(number, "lack")) for number in LACKS)
        assert not is_lack(kind(1, "something else"))
    assert is_lack(socket.gaierror(socket.EAI_MEMORY, "no memory"))
    assert not is_lack(socket.gaierror(socket.EAI_AGAIN, "try again"))
    assert is_lack(engine.NoResources("no thread"))
    assert is_lack(MemoryError())
    assert not is_lack(engine.TimedOut("late"))
