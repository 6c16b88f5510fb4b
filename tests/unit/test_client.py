"""What the client accepts, refuses and makes of its connections, which are played."""

from __future__ import annotations

import json
import traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.core.model import Exchange
from bridge.core.redact import Secret
from bridge.engine import Engine, NoResources, TimedOut
from bridge.upstream.client import Client, report_body
from bridge.upstream.connecting import Connect, Unreached, make_tls_context
from bridge.upstream.streams import LACKS
from tests.simulation.virtual import VirtualLoop, VirtualTime
from tests.world import raise_bug

KEY = Secret("canary-0123456789abcdef-canary")


def make(url: str = "https://upstream.test", connect: Connect | None = None, **settings: Any) -> Client:
    """Make a client with settings that matter little."""
    defaults: dict[str, Any] = {"ca_file": None, "proxy": None, "connect_timeout_s": 1.0, "concurrency": 1}
    told: Any = SimpleNamespace(**(defaults | settings))
    return Client(Engine(raise_bug, VirtualLoop(VirtualTime())), url, told, connect)


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
    "url", ["http://upstream.test", "http://localhost.example", "ftp://upstream.test", "upstream.test", ""]
)
def test_other_urls_are_refused(url: str) -> None:
    """Whatever the settings let through, nothing is sent in the clear to another machine."""
    with pytest.raises(ValueError, match="loopback"):
        make(url)


def test_bad_ca_files_are_refused_at_once(tmp_path: Path) -> None:
    """A CA file that is missing or holds no certificate is told before anything is sent."""
    with pytest.raises(ValueError, match="No such file"):
        make(ca_file=str(tmp_path / "missing.pem"))
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing here\n")
    with pytest.raises(ValueError, match="no usable certificate"):
        make(ca_file=str(empty))


def test_usual_certificates_load_once() -> None:
    """Certificates are loaded on warm-up or first use, and never again."""
    make_tls_context.cache_clear()
    client = make()
    assert make_tls_context.cache_info().misses == 0
    client.warm_up()
    client.warm_up()
    make().warm_up()
    assert make_tls_context.cache_info().misses == 1
    make("http://localhost:1").warm_up()
    assert make_tls_context.cache_info().misses == 1


def test_body_of_a_report_is_spelled_as_json() -> None:
    """Exactly the key and the task's number, whatever characters the key has."""
    visible = "".join(chr(code) for code in range(33, 127))
    assert json.loads(report_body(Secret(visible), 2**53 - 1)) == {"clientKey": visible, "taskId": 2**53 - 1}
    assert report_body(KEY, 1) == b'{"clientKey":"%b","taskId":1}' % KEY.reveal().encode()
    with pytest.raises(TypeError):
        report_body(KEY, "1")  # type: ignore[arg-type]


def demand_bare(error: BaseException) -> None:
    """Demand that an exception has neither a cause nor a frame that shows the key."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert KEY.reveal() not in shown


def send_report(client: Client, is_fresh: bool = False) -> Exchange:
    """Send one report; no frame of this keeps the key."""
    far = client._now() + 60.0
    return client.send("reportX", report_body(KEY, 1), until=far, leave_by=lambda: far, fresh=is_fresh)


class Link:
    """Plays a connection that says what it is told to, and notes what it was sent."""

    def __init__(self, *says: bytes | Exception, fault: Exception | None = None) -> None:
        self.says = list(says)
        self.fault = fault
        self.was_sent: list[bytes] = []
        self.is_open = True
        self.has_spoken = False

    def send_all(self, data: bytes, until: float) -> None:
        if self.fault is not None:
            raise self.fault
        self.was_sent.append(data)

    def receive(self, most: int, until: float) -> bytes:
        said = self.says.pop(0) if self.says else b""
        if isinstance(said, Exception):
            raise said
        return said

    def is_stale(self) -> bool:
        return self.has_spoken

    def close(self) -> None:
        self.is_open = False


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def connect_to(*links: Link | Exception) -> Connect:
    """Open these connections one after another."""
    waiting = list(links)

    def connect(until: float) -> Link:
        link = waiting.pop(0)
        if isinstance(link, Exception):
            raise link
        return link

    return connect


def make_with(*links: Link | Exception) -> Client:
    """Make a client that opens these connections."""
    return make("http://localhost:1", concurrency=8, connect=connect_to(*links))


@pytest.mark.parametrize("kind", [LookupError, MemoryError, TypeError])
@pytest.mark.parametrize("step", ["send_all", "receive"])
def test_mistake_in_the_program_raises_without_the_key(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], step: str
) -> None:
    """An exception no network can cause is raised bare: no cause and no frame has the key."""
    link = Link()

    def break_down(*_: Any) -> bytes:
        raise kind(KEY.reveal())

    monkeypatch.setattr(link, step, break_down)
    with pytest.raises(RuntimeError, match=rf"{kind.__name__} while sending \(sent True\)") as caught:
        send_report(make_with(link))
    demand_bare(caught.value)
    assert not link.is_open


def test_mistake_while_connecting_raises_too() -> None:
    """What is wrong with the way to connect is not blamed on the network."""
    with pytest.raises(RuntimeError, match=r"LookupError while sending \(sent False\)") as caught:
        send_report(make_with(LookupError()))
    demand_bare(caught.value)


@pytest.mark.parametrize("failure", ["dns", "connect", "tls", "certificate", "proxy"])
def test_connection_that_does_not_come_about_is_told(failure: str) -> None:
    """The word of who connects is the word that is told, and nothing was sent."""
    assert send_report(make_with(Unreached(failure)))[:3] == (failure, False, None)


@pytest.mark.parametrize("errno_", sorted(LACKS))
def test_lack_of_resources_is_no_failure_of_the_network(errno_: int) -> None:
    """Without descriptors or memory nothing is sent; an exception of its own says that, without a key."""
    link = Link(fault=NoResources("no memory"))
    for met in (OSError(errno_, "lack"), NoResources("no thread"), MemoryError(), link):
        client = make_with(met, Link(ANSWER))
        with pytest.raises(NoResources) as caught:
            send_report(client)
        demand_bare(caught.value)
        assert len(client._adapter.idle) == 0
        assert send_report(client)[:3] == (None, True, 200)
    assert not link.is_open


@pytest.mark.parametrize("errno_", sorted(LACKS))
def test_lack_after_the_request_left_is_a_failure_of_the_attempt(errno_: int) -> None:
    """Once a byte may have left nobody says that nothing was sent."""
    assert send_report(make_with(Link(OSError(errno_, "lack"))))[:3] == ("reset", True, None)


def keep(count: int, *links: Link | Exception) -> tuple[Client, list[Link]]:
    """Make a client with so many kept connections; it opens the other ones when it needs them."""
    kept = [Link(ANSWER) for _ in range(count)]
    client = make_with(*kept, *links)
    for _ in range(count):
        assert send_report(client, is_fresh=True).failure is None
    assert len(client._adapter.idle) == count
    return client, kept


def test_fresh_request_takes_no_kept_connection() -> None:
    """A second attempt opens a connection of its own, whatever is idle."""
    fresh = Link(ANSWER)
    client, kept = keep(3, fresh)
    exchange = send_report(client, is_fresh=True)
    assert (exchange.failure, exchange.reused) == (None, False)
    assert len(fresh.was_sent) == 1
    assert [len(link.was_sent) for link in kept] == [1, 1, 1]


@pytest.mark.parametrize(
    "end", [TimeoutError("silence"), ConnectionResetError("reset"), b"", BrokenPipeError("send")]
)
def test_kept_connection_that_fails_before_its_answer_takes_all_idle_ones_along(
    end: bytes | Exception,
) -> None:
    """After a change of the network all kept connections are dead, so none of them is tried again."""
    new = Link(ANSWER)
    client, kept = keep(8, new)
    if isinstance(end, BrokenPipeError):
        kept[-1].fault = end
    else:
        kept[-1].says.append(end)
    exchange = send_report(client)
    assert (exchange.failure, exchange.sent, exchange.reused) == (
        "timeout" if isinstance(end, TimeoutError) else "reset",
        True,
        True,
    )
    assert [link.is_open for link in kept] == [False] * 8
    assert len(client._adapter.idle) == 0
    assert send_report(client)[:3] == (None, True, 200)


@pytest.mark.parametrize("end", [b"", TimeoutError("drip"), ConnectionResetError("reset")])
def test_failure_inside_an_answer_leaves_the_other_connections(end: bytes | Exception) -> None:
    """A kept connection that has begun to answer lives, whatever else is wrong; so do the other ones."""
    client, kept = keep(3)
    kept[-1].says += [ANSWER[:-1], end]
    assert send_report(client).status == 200
    assert [link.is_open for link in kept] == [True, True, False]


def test_failure_on_a_new_connection_leaves_the_kept_ones() -> None:
    """What was wrong with a new connection says nothing about the others."""
    client, kept = keep(2, Link(b""))
    assert send_report(client, is_fresh=True).failure == "reset"
    assert len(client._adapter.idle) == 2
    assert all(link.is_open for link in kept)


@pytest.mark.parametrize("limit", ["until", "leave_by"])
def test_time_that_is_over_says_nothing_about_connections(limit: str) -> None:
    """An attempt that had no time left sends nothing, and lets nothing go but what it took."""
    client, kept = keep(3)
    far = client._now() + 60.0
    moments = {"until": far, "leave_by": far, limit: client._now()}
    until, leave_by = moments["until"], moments["leave_by"]
    exchange = client.send("reportX", b"{}", until=until, leave_by=lambda: leave_by, fresh=False)
    assert exchange[:3] == ("window" if limit == "leave_by" else "timeout", False, None)
    assert len(client._adapter.idle) == 2
    assert [len(link.was_sent) for link in kept] == [1, 1, 1]


def test_request_leaves_before_both_limits() -> None:
    """Sending may wait until the window's end or the attempt's, whichever is earlier."""
    moments: list[float] = []

    class Slow(Link):
        def send_all(self, data: bytes, until: float) -> None:
            moments.append(until)
            raise TimedOut("no room")

    now = make()._now()
    for until, leave_by in ((now + 60.0, now + 50.0), (now + 40.0, now + 50.0)):
        told = partial(float, leave_by)
        exchange = make_with(Slow()).send("reportX", b"{}", until=until, leave_by=told, fresh=False)
        assert exchange[:2] == ("timeout", True)
    assert moments == [now + 50.0, now + 40.0]


def test_an_end_that_comes_nearer_while_connecting_counts() -> None:
    """No byte leaves after the end that is known by then."""
    link, now = Link(ANSWER), make()._now()
    ends = iter((now + 50.0, now))
    exchange = make_with(link).send(
        "reportX", b"{}", until=now + 60.0, leave_by=partial(next, ends), fresh=False
    )
    assert (exchange[:2], link.was_sent) == (("window", False), [])


def test_any_body_of_any_method_is_sent() -> None:
    """The client knows no method; what it is given is what leaves."""
    link = Link(ANSWER)
    far = make()._now() + 60.0
    make_with(link).send("getSpendingStats", b'{"x":1}', until=far, leave_by=lambda: far, fresh=False)
    head, _, body = link.was_sent[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /getSpendingStats HTTP/1.1\r\nHost: localhost:1\r\n")
    assert head.endswith(b"\r\nContent-Length: 7")
    assert body == b'{"x":1}'
