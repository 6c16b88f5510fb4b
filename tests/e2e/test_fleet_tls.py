"""A ledger that is reached by TLS: who is trusted, who is not, and what is told about it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.simulator import Simulator
from tests.fleet import IMAGE, Fleet, Ledger, TlsRelay, code_of, prove
from tests.pgserver import PASSWORD, PgServer
from tests.process import BridgeProcess, Ended

HOST = "localhost"
"""The name in the certificate. The address, which is no part of it, leads to the same server."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the server's certificate."""
    return trustme.CA()


@pytest.fixture
def fleet(
    bridge_process: Callable[..., BridgeProcess], simulator: Simulator, pg_server: PgServer, tmp_path: Path
) -> Fleet:
    """Start bridges on machines of their own, on the empty ledger of this test."""
    return Fleet(bridge_process, simulator, Ledger(pg_server), tmp_path)


@pytest.fixture
def relay(fleet: Fleet, authority: trustme.CA) -> Iterator[TlsRelay]:
    """The way to the server by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    with TlsRelay(fleet.ledger.server.port, context) as running:
        yield running


@pytest.fixture
def address(fleet: Fleet, relay: TlsRelay, authority: trustme.CA, tmp_path: Path) -> Callable[..., str]:
    """Make the ledger's address."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))

    def make(mode: str, ca: str | None = None, host: str = HOST, port: int = relay.port) -> str:
        root = "" if ca is None else f"&sslrootcert={tmp_path / ca}"
        return f"postgresql://bridge@{host}:{port}/{fleet.ledger.database}?sslmode={mode}{root}"

    return make


def check_secrets(url: str, *texts: Any) -> None:
    """Demand that neither the password nor the address is in what a bridge said."""
    for text in map(str, texts):
        assert PASSWORD not in text
        assert url not in text
        assert "sslrootcert=" not in text
        assert "bridge@" not in text


def check_refused(bridge: BridgeProcess, url: str, words: str) -> Ended:
    """Demand that a bridge goes on without its ledger and says why, and nothing that is secret."""
    answer = bridge.call(IMAGE, {"taskId": 1})
    assert code_of(answer) == 0
    assert answer["result"]["durable"] is False
    assert "duplicates_unguarded" in [warning["kind"] for warning in answer["result"]["warnings"]]
    status = bridge.call("bridge.status")["result"]
    assert (status["ledger"]["healthy"], status["ledger"]["state"]) == (False, "unreadable")
    assert words in status["ledger"]["message"]
    # Kept from the first answer on, though nobody else knows of it.
    assert bridge.call(IMAGE, {"taskId": 1})["result"]["replayed"] is True
    ended = bridge.close()
    assert [event["event"] for event in ended.events][:1] == ["ledger_memory"]
    assert words in ended.events[0]["sentence"]
    check_secrets(url, answer, status, ended.stderr)
    return ended


def test_ledger_works_by_tls(fleet: Fleet, relay: TlsRelay, address: Callable[..., str]) -> None:
    """With the authority's certificate and the right name a bridge is durable, and says nothing in plain."""
    url = address("verify-full", "ca.pem")
    bridge = fleet.start(url=url)
    prove(bridge)
    relay.cut()
    prove(bridge, 2)
    status = bridge.call("bridge.status")["result"]
    ended = bridge.close()
    assert ended.events == []
    assert (relay.secured >= 2, relay.plain) == (True, 0)
    assert fleet.ledger.count("outcome = 'accepted'") == 2
    check_secrets(url, status, ended.stderr)


@pytest.mark.parametrize(
    ("mode", "ca", "host", "words"),
    [
        ("verify-full", "other.pem", HOST, "no certificate that is trusted"),
        ("verify-full", "missing.pem", HOST, "check sslrootcert"),
        ("verify-full", "ca.pem", "127.0.0.1", "for another name"),
    ],
)
def test_strange_server_is_told_nothing(
    fleet: Fleet, relay: TlsRelay, address: Callable[..., str], mode: str, ca: str, host: str, words: str
) -> None:
    """A server that cannot show who it is gets no password; reports go on without a ledger."""
    url = address(mode, ca, host)
    check_refused(fleet.start(url=url), url, words)
    assert fleet.ledger.select("SELECT 1 WHERE to_regnamespace('report_bridge') IS NOT NULL") == []


def test_server_without_tls_is_not_used_where_tls_is_demanded(
    fleet: Fleet, address: Callable[..., str]
) -> None:
    """A server that says it has no TLS is left alone, and the sentence names the setting."""
    url = address("verify-full", "ca.pem", HOST, fleet.ledger.server.port)
    check_refused(fleet.start(url=url), url, "check sslmode")


def test_required_ledger_refuses_behind_a_strange_certificate(
    fleet: Fleet, address: Callable[..., str]
) -> None:
    """With a required ledger a report is refused, with the reason and without the address."""
    url = address("verify-full", "other.pem")
    bridge = fleet.start("--require-ledger", url=url)
    answer = bridge.call(IMAGE, {"taskId": 1})
    assert code_of(answer) == -32031
    check_secrets(url, answer, bridge.close().stderr)
    assert fleet.simulator.log() == []


def test_mode_without_names_takes_any_name_of_the_authority(
    fleet: Fleet, address: Callable[..., str]
) -> None:
    """``verify-ca`` asks who signed and not for whom, as libpq documents it."""
    prove(fleet.start(url=address("verify-ca", "ca.pem", "127.0.0.1")))
    prove(fleet.start(url=address("require", None, "127.0.0.1"), machine="two"), 2)


def test_certificate_that_is_replaced_is_taken_up(
    fleet: Fleet, relay: TlsRelay, address: Callable[..., str], authority: trustme.CA
) -> None:
    """A certificate that turns wrong costs the next session, until it is right again."""
    bridge = fleet.start(url=address("verify-full", "ca.pem"))
    prove(bridge)
    good, relay._context = relay._context, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.test").configure_cert(relay._context)
    relay.cut()
    answer = bridge.call(IMAGE, {"taskId": 2})
    assert (code_of(answer), answer["result"]["durable"]) == (0, False)
    assert "for another name" in bridge.call("bridge.status")["result"]["ledger"]["message"]
    relay._context = good
    fleet.ledger.wait_until_done(2, 30)
    ended = bridge.close()
    assert [event["event"] for event in ended.events] == ["ledger_degraded", "ledger_recovered"]
    assert "for another name" in ended.events[0]["sentence"]
