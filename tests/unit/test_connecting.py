"""Where the client connects to, and what it refuses to."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from bridge.upstream.connecting import is_loopback, make_tls_context, parse_proxy


@pytest.mark.parametrize(
    ("url", "host", "port", "login"),
    [
        ("http://proxy.test:3128", "proxy.test", 3128, ""),
        ("http://proxy.test/", "proxy.test", 80, ""),
        ("http://[::1]:3128", "::1", 3128, ""),
        ("http://user:pass@proxy.test:1", "proxy.test", 1, "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"),
        ("http://user@proxy.test:1", "proxy.test", 1, "Proxy-Authorization: Basic dXNlcjo=\r\n"),
        (
            "http://u%3Aser:p%40%C3%A9@proxy.test:1",
            "proxy.test",
            1,
            "Proxy-Authorization: Basic dTpzZXI6cEDDqQ==\r\n",
        ),
    ],
)
def test_proxy_is_parsed(url: str, host: str, port: int, login: str) -> None:
    """Host, port and login of a proxy are read from its URL."""
    assert parse_proxy(url) == ((host, port), login)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("localhost", "api.localhost", "127.0.0.1", "127.9.9.9", "::1")),
        *((host, False) for host in ("localhost.example", "notlocalhost", "127.0.0.1.example")),
        *((host, False) for host in ("10.0.0.1", "0.0.0.0", "::", "")),
    ],
)
def test_loopback_is_this_machine_only(host: str, expected: bool) -> None:
    """Only what can be nothing but this machine is loopback."""
    assert is_loopback(host) is expected


def test_tls_verifies_and_logs_no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The context checks chain and name, speaks 1.2 or later and ignores the key-log variable."""
    import certifi

    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    make_tls_context.cache_clear()
    context = make_tls_context(certifi.where())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert getattr(context, "keylog_filename", None) is None
    assert context.cert_store_stats()["x509_ca"] > 50
