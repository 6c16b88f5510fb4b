"""From a host name to a stream that is ready for a request: name, TCP, proxy tunnel, TLS.

Every wait keeps to one instant given by the caller. Reads no environment: proxy, CA and key-log variables do
not count. Knows nothing of reports; imported by the client and the probe.
"""

from __future__ import annotations

import ssl
from binascii import b2a_base64
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

import certifi

from bridge.engine import Engine, NoResources, TimedOut
from bridge.upstream.answers import Answer, Cut
from bridge.upstream.names import Address, Names, Place
from bridge.upstream.streams import PIECE_BYTES, SocketStream, Stream, is_lack

_NETWORK: Final = (OSError, ValueError, OverflowError, Cut)
"""Which exceptions are failures of a step; others are mistakes of ours."""


class Unreached(Exception):
    """No connection came about, and it is not this machine's fault."""

    def __init__(self, failure: str) -> None:
        super().__init__(failure)
        self.failure = failure


Connect = Callable[[float], Stream]
"""Opens a stream until a moment of the boot clock; raises `Unreached` or `NoResources`."""


class Proxy(NamedTuple):
    """A plain HTTP proxy that tunnels with CONNECT."""

    place: Place
    authorization: str | None
    """Value of Proxy-Authorization: secret."""

    def __repr__(self) -> str:
        return f"Proxy({self.place.host}:{self.place.port})"


def parse_proxy(url: str) -> Proxy:
    """Parse ``http://[user:password@]host[:port]`` as the settings have it; port 80 unless told.

    Raises:
        ValueError: it cannot be used. The message never repeats the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        place = Place(parts.hostname or "", parts.port or 80)
    except ValueError:
        raise ValueError("the proxy is not a URL like http://host:port") from None
    if parts.scheme != "http":
        raise ValueError("a proxy spoken to over https is not supported; use one with an http:// URL")
    authorization = None
    if "@" in parts.netloc:
        login = unquote_to_bytes(f"{parts.username or ''}:{parts.password or ''}")
        authorization = "Basic " + b2a_base64(login, newline=False).decode("ascii")
    return Proxy(place, authorization)


def is_loopback(host: str) -> bool:
    """Tell whether the host can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


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
        place = Place(self._host, parts.port or (443 if self._is_tls else 80))
        self._ca_file = ca_file or certifi.where()
        self._context: ssl.SSLContext | None = None
        way = parse_proxy(proxy) if proxy else None
        self._tunnel_head: bytes | None = None
        if way and not is_loopback(self._host):
            target = parts.netloc if parts.port else f"{parts.netloc}:{place.port}"
            login = f"Proxy-Authorization: {way.authorization}\r\n" if way.authorization else ""
            self._tunnel_head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n".encode("ascii")
            place = way.place
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
        if self._is_tls and self._context is None:
            self._context = make_tls_context(self._ca_file)

    def open(self, until: float) -> SocketStream:
        """Open one connection.

        Raises:
            Unreached: it did not work until then; says at which step.
            NoResources: this machine has no descriptor, thread or memory for it.
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
                self.warm_up()
                assert self._context is not None
                stream.start_tls(self._context, self._host, until)
            return stream
        except BaseException as error:
            if stream is not None:
                stream.close()
            if is_lack(error):
                raise NoResources(f"no resources to connect with ({type(error).__name__})") from error
            failure = name_failure(step, error)
            if failure is None:
                raise
            raise Unreached(failure) from error

    def _reach(self, addresses: tuple[Address, ...], until: float) -> SocketStream:
        for index, address in enumerate(addresses):
            # A fair share each: one address that swallows everything must not eat the others' time.
            now = self._engine.now()
            if now >= until:
                raise TimedOut("no time is left to connect")
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


def name_failure(step: str, error: BaseException) -> str | None:
    """Say which `Exchange.failure` an exception is at a step: ``dns``, ``connect``, ``proxy`` or ``tls``.

    Returns:
        None if the network cannot have caused it: a mistake in this program.
    """
    if step == "tls" and isinstance(error, ssl.SSLCertVerificationError):
        return "certificate"
    return step if isinstance(error, _NETWORK) else None


def _open_tunnel(stream: SocketStream, head: bytes, until: float) -> None:
    stream.send_all(head, until)
    answer = Answer()
    answer.read_head(partial(stream.receive, PIECE_BYTES, until))
    if not 200 <= (answer.status or 0) < 300 or answer.data:
        raise OSError("the proxy opened no tunnel")
