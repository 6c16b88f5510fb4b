"""From a host name to a stream that is ready for a request: name, TCP, proxy tunnel, TLS.

Every wait keeps to one instant given by the caller. Reads no environment: proxy, CA and key-log variables do
not count. Knows nothing of reports; imported by the client.
"""

from __future__ import annotations

import socket
import ssl
from binascii import b2a_base64
from collections.abc import Callable
from functools import cache, partial
from ipaddress import ip_address
from itertools import zip_longest
from math import inf
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

import certifi

from bridge.engine import Engine, Waiter
from bridge.upstream.answers import Answer, Cut
from bridge.upstream.streams import PIECE_BYTES, SocketStream, Stream, is_lack

NAME_KEPT_S: Final = 30.0
"""How long an address is believed. Half a minute spares lookups in a burst and still follows a move."""
MAX_ADDRESSES: Final = 4
"""Addresses tried per connection: each gets at least a quarter of the time, 0.75 s by default."""

Address = tuple[int, Any]
"""Address family and what `socket.connect` takes."""
Place = tuple[str, int]
"""Host and port to connect to."""


class Unreached(Exception):
    """Nothing of the request has left, and it is not this machine's fault; `Exchange.failure` says why."""

    def __init__(self, failure: str) -> None:
        super().__init__(failure)
        self.failure = failure


Connect = Callable[[float], Stream]
"""Opens a stream until a moment of the boot clock; raises `Unreached`, or what `is_lack` knows."""


def parse_proxy(url: str) -> tuple[Place, str]:
    """Take ``http://[user:password@]host[:port]`` apart, which the settings let pass; port 80 unless told.

    Returns:
        Where it is, and the header line that tells it the login, a secret; empty without one.
    """
    parts = urlsplit(url)
    place = (parts.hostname or "", parts.port or 80)
    if "@" not in parts.netloc:
        return place, ""
    login = unquote_to_bytes(f"{parts.username or ''}:{parts.password or ''}")
    return place, f"Proxy-Authorization: Basic {b2a_base64(login, newline=False).decode('ascii')}\r\n"


def is_loopback(host: str) -> bool:
    """Tell whether the host can only be this machine."""
    found = _numeric_addresses((host, 0))
    return bool(found) and all(ip_address(address[0]).is_loopback for _, address in found)


@cache  # loading the usual certificates takes 30 ms
def make_tls_context(ca_file: str) -> ssl.SSLContext:
    """Make the context all connections share: TLS 1.2 or later, chain and host name verified.

    Not `ssl.create_default_context`, which writes session keys where SSLKEYLOGFILE says.

    Raises:
        OSError: the file cannot be read or holds no certificate (`ssl.SSLError`).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(cafile=ca_file)
    return context


class Dialer:
    """Opens connections to one place, directly or through a proxy.

    Args:
        engine: where to wait.
        url: the upstream's, as the settings have it.
        ca_file: PEM file of the certificates to trust instead of the usual ones (certifi's).
        proxy: ``http://[user:password@]host:port``; not used for loopback.

    Raises:
        ValueError: a setting cannot be used; the message is fit for the user and holds no password.
    """

    def __init__(self, engine: Engine, url: str, ca_file: str | None, proxy: str | None) -> None:
        parts = urlsplit(url)
        self._engine = engine
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        if not (self._is_tls or is_loopback(self._host)):
            raise ValueError("plain http is for loopback only; use https")
        place = (self._host, parts.port or (443 if self._is_tls else 80))
        self._ca_file = ca_file or certifi.where()
        self._tunnel_head: bytes | None = None
        if proxy and not is_loopback(self._host):
            target = parts.netloc if parts.port else f"{parts.netloc}:{place[1]}"
            place, login = parse_proxy(proxy)
            self._tunnel_head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n".encode("ascii")
        self._names = Names(engine, place)
        if ca_file:
            try:
                self.warm_up()
            except OSError as error:
                is_no_certificate = isinstance(error, ssl.SSLError)
                reason = "it holds no usable certificate" if is_no_certificate else error.strerror
                raise ValueError(f"the CA file cannot be used: {reason}") from None

    def warm_up(self) -> None:
        """Load the trusted certificates now; it takes 30 ms that the first report need not wait for.

        Raises:
            OSError: they cannot be read.
        """
        if self._is_tls:
            make_tls_context(self._ca_file)

    def open(self, until: float) -> SocketStream:
        """Open one connection.

        Raises:
            Unreached: it did not work until then; says at which step.
            Exception: this machine has no descriptor, thread or memory for it (`is_lack`).
        """
        step = "proxy" if self._tunnel_head else "dns"
        stream = None
        try:
            addresses = self._names.find(until)
            step = "proxy" if self._tunnel_head else "connect"
            stream = self._reach(addresses, until)
            if self._tunnel_head:
                _open_tunnel(stream, self._tunnel_head, until)
            if self._is_tls:
                step = "tls"
                stream.start_tls(make_tls_context(self._ca_file), self._host, until)
            return stream
        except BaseException as error:
            if stream is not None:
                stream.close()
            if is_lack(error) or not isinstance(error, (OSError, ValueError, Cut)):
                raise  # what this machine lacks, or a mistake in this program
            if isinstance(error, ssl.SSLCertVerificationError):
                step = "certificate"
            raise Unreached(step) from error

    def _reach(self, addresses: tuple[Address, ...], until: float) -> SocketStream:
        for index, address in enumerate(addresses):
            # A fair share each: one address that swallows everything must not eat the others' time.
            now = self._engine.now()
            stream = SocketStream(self._engine, address[0])
            try:
                stream.connect(address[1], now + (until - now) / (len(addresses) - index))
            except BaseException as error:
                stream.close()
                if not isinstance(error, OSError) or is_lack(error):
                    raise
            else:
                self._names.prefer(address)
                return stream
        self._names.forget()
        raise OSError("no address answered")


def _open_tunnel(stream: SocketStream, head: bytes, until: float) -> None:
    stream.send_all(head, until)
    answer = Answer()
    answer.read_head(partial(stream.receive, PIECE_BYTES, until))
    if not 200 <= (answer.status or 0) < 300 or answer.data:
        raise OSError("the proxy opened no tunnel")


# --- names ------------------------------------------------------------------------------------


class Names:
    """Addresses of one place.

    `getaddrinfo` has no time-out, so it runs on a thread of the engine's; all who need the name share it, so
    there is never more than one. Numeric addresses and localhost need no thread, and localhost is the
    loopback address whatever the system's files say.
    """

    def __init__(self, engine: Engine, place: Place) -> None:
        self._engine = engine
        self._place = place
        self._waiting: list[Waiter] = []
        self._found = _numeric_addresses(place)
        self._fresh_until = inf if self._found else 0.0

    def find(self, until: float) -> tuple[Address, ...]:
        """Return the addresses, best first.

        Raises:
            OSError: the name is not found, or not before the moment `until`.
            NoResources: there is no thread to look it up with.
        """
        if self._found and self._engine.now() < self._fresh_until:
            return self._found
        if not self._waiting:
            self._engine.spawn(self._look_up)
        waiter = self._engine.waiter()
        self._waiting.append(waiter)
        found: tuple[Address, ...] = waiter.wait(until)
        return found

    def prefer(self, address: Address) -> None:
        """Try this address first from now on: it has just answered."""
        if address in self._found[1:]:
            self._found = (address, *(other for other in self._found if other != address))

    def forget(self) -> None:
        """Look the name up again next time: none of its addresses answered."""
        self._found = _numeric_addresses(self._place)

    def _look_up(self) -> None:
        host, port = self._place
        told: tuple[Address, ...] | Exception
        try:
            rows = self._engine.run_in_thread(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
            told = self._found = _alternate_families([(row[0], row[4]) for row in rows])
        except Exception as error:  # OSError, or UnicodeError from a name that cannot be one
            told = error if is_lack(error) else _find_lack() or error
        self._fresh_until = self._engine.now() + NAME_KEPT_S
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.throw(told) if isinstance(told, Exception) else waiter.wake(told)


def _find_lack() -> OSError | None:
    # Without a descriptor the system's resolver says that there is no such name, or that it cannot tell now.
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as error:
        return error if is_lack(error) else None
    return None


def _numeric_addresses(place: Place) -> tuple[Address, ...]:
    host, port = place
    if host == "localhost" or host.endswith(".localhost"):
        return ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0)))
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ()
    return ((rows[0][0], rows[0][4]),)


def _alternate_families(found: list[Address]) -> tuple[Address, ...]:
    # A machine whose IPv6 leads nowhere must reach an IPv4 address second, not fifth (RFC 8305, section 4).
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    mixed = [address for pair in zip_longest(first, others) for address in pair if address is not None]
    return tuple(mixed[:MAX_ADDRESSES])
