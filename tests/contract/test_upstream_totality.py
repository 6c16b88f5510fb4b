"""Every exception the libraries below can raise has a word, or is a mistake of ours by name."""

from __future__ import annotations

import builtins
import http.client
import socket
import ssl
import types

import pytest
import requests.exceptions

from bridge.upstream import attempt
from bridge.upstream.transport import FAILURES, name_failure

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
    "ConnectionError": "reset",
    "ProxyError": "reset",
    "SSLError": "reset",
    "Timeout": "timeout",
    "ConnectTimeout": "timeout",
    "ReadTimeout": "timeout",
    "URLRequired": MISTAKE,
    "TooManyRedirects": MISTAKE,
    "MissingSchema": MISTAKE,
    "InvalidSchema": MISTAKE,
    "InvalidURL": MISTAKE,
    "InvalidHeader": MISTAKE,
    "InvalidProxyURL": MISTAKE,
    "ChunkedEncodingError": "cut",
    "ContentDecodingError": "malformed",
    "StreamConsumedError": MISTAKE,
    "RetryError": MISTAKE,
    "UnrewindableBodyError": MISTAKE,
    "RequestsWarning": MISTAKE,
    "FileModeWarning": MISTAKE,
    "RequestsDependencyWarning": MISTAKE,
}
HTTP: dict[str, str | None] = {
    "HTTPException": "malformed",
    "NotConnected": "malformed",
    "InvalidURL": "malformed",
    "UnknownProtocol": "malformed",
    "UnknownTransferEncoding": "malformed",
    "UnimplementedFileMode": "malformed",
    "IncompleteRead": "cut",
    "ImproperConnectionState": "malformed",
    "CannotSendRequest": "malformed",
    "CannotSendHeader": "malformed",
    "ResponseNotReady": "malformed",
    "BadStatusLine": "malformed",
    "LineTooLong": "malformed",
    "RemoteDisconnected": "reset",
    "error": "malformed",
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
    (http.client, Exception, HTTP),
    (builtins, OSError, SYSTEM),
    (ssl, OSError, TLS),
    (socket, OSError, SOCKET),
]


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
    named = {name: name_failure(attempt.EXCHANGE, make(kind)) for name, kind in classes.items()}
    assert named == {name: words[name] for name in classes}


@pytest.mark.parametrize("module", [builtins, ssl, socket], ids=lambda module: module.__name__)
def test_system_errors_have_a_word_in_every_phase(module: types.ModuleType) -> None:
    """Whatever the system or TLS raises while connecting is told by the step it was at."""
    certificate = {"SSLCertVerificationError", "CertificateError"}
    for name, kind in find_classes(module, OSError).items():
        told = {
            phase: name_failure(phase, make(kind)) for phase in attempt.PHASES if phase != attempt.EXCHANGE
        }
        assert told == {
            attempt.LOOKUP: "dns",
            attempt.DIAL: "connect",
            attempt.TUNNEL: "proxy",
            attempt.HANDSHAKE: "certificate" if name in certificate else "tls",
        }


def test_proxy_may_answer_anything() -> None:
    """Whatever `http.client` finds wrong with a proxy's answer is the proxy's fault."""
    for kind in find_classes(http.client, http.client.HTTPException).values():
        assert name_failure(attempt.TUNNEL, make(kind)) == "proxy"


def test_table_uses_known_words_and_phases_only() -> None:
    """The table has a row for every phase and no word that the verdict does not know."""
    assert set(FAILURES) == set(attempt.PHASES)
    used = {failure for rows in FAILURES.values() for _, failure in rows}
    assert used == set(WORDS)


def test_end_of_the_window_is_told() -> None:
    """The window that closed before sending has its own word."""
    assert name_failure(attempt.EXCHANGE, attempt.WindowOver()) == "window"


@pytest.mark.parametrize("kind", [LookupError, TypeError, AttributeError, AssertionError, MemoryError])
def test_mistakes_have_no_word(kind: type[Exception]) -> None:
    """What neither network nor upstream can cause is not blamed on them."""
    assert [name_failure(phase, kind()) for phase in attempt.PHASES] == [None] * len(attempt.PHASES)
