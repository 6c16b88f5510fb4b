"""From a host name to a stream that is ready for a request: name, TCP, proxy tunnel, TLS.

Every wait keeps to one instant given by the caller. Reads no environment: proxy, CA and key-log variables do
not count. Knows nothing of reports; imported by the client and the probe.
"""

from __future__ import annotations

import os
import ssl
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from bridge.engine import Engine, NoResources, TimedOut
from bridge.upstream.heads import Answer, Cut, Reader
from bridge.upstream.names import Address, Names, Place
from bridge.upstream.streams import PIECE_BYTES, SocketStream, Stream, is_lack

_NETWORK: Final = (OSError, ValueError, OverflowError, Cut)
FAILURES: Final[Mapping[str, tuple[type[BaseException], ...]]] = {
    "dns": _NETWORK,
    "connect": _NETWORK,
    "proxy": _NETWORK,
    "certificate": (ssl.SSLCertVerificationError,),
    "tls": _NETWORK,
}
"""Which exceptions are failures of a step, in words of `Exchange.failure`; others are mistakes of ours."""


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
    """Parse ``http://[user:password@]host[:port]``; port 80 unless told.

    Raises:
        ValueError: it is something else. The message never repeats the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = 80 if parts.port is None else parts.port
    except ValueError:
        raise ValueError("the proxy is not a URL like http://host:port") from None
    if parts.scheme == "https":
        raise ValueError("a proxy spoken to over https is not supported; use one with an http:// URL")
    if parts.scheme != "http" or not parts.hostname or not port:
        raise ValueError("the proxy is not a URL like http://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("the proxy's URL has a path, a query or a fragment")
    authorization = None
    if parts.username is not None or parts.password is not None:
        login = unquote_to_bytes(parts.username or "") + b":" + unquote_to_bytes(parts.password or "")
        authorization = "Basic " + b2a_base64(login, newline=False).decode("ascii")
    return Proxy(Place(parts.hostname, port), authorization)


def is_loopback(host: str) -> bool:
    """Tell whether the host can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def bracket(host: str) -> str:
    """Spell a host as URLs and header lines do."""
    return f"[{host}]" if ":" in host else host


def make_tls_context(ca_file: str) -> ssl.SSLContext:
    """Make the context all connections share: TLS 1.2 or later, chain and host name verified.

    Not `ssl.create_default_context`, which writes session keys where SSLKEYLOGFILE says.

    Raises:
        OSError: the file cannot be read or holds no certificate (`ssl.SSLError`).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    loader: Any = __spec__.loader
    archive = getattr(loader, "archive", None)
    if archive is not None and ca_file.startswith(archive + os.sep):
        # The one-file program: the usual certificates lie inside it, where OpenSSL cannot read them.
        context.load_verify_locations(cadata=loader.get_data(ca_file).decode("ascii"))
    else:
        context.load_verify_locations(cafile=ca_file)
    return context


class Dialer:
    """Opens connections to one place, directly or through a proxy.

    Args:
        engine: where to wait.
        place: the upstream.
        make_context: makes the TLS context on first use; None for plain HTTP.
        proxy: None for a direct connection.
    """

    def __init__(
        self,
        engine: Engine,
        place: Place,
        make_context: Callable[[], ssl.SSLContext] | None,
        proxy: Proxy | None,
    ) -> None:
        self._engine = engine
        self._place = place
        self._make_context = make_context
        self._context: ssl.SSLContext | None = None
        self._names = Names(engine, proxy.place if proxy else place)
        self._tunnel_head: bytes | None = None
        if proxy:
            target = f"{bracket(place.host)}:{place.port}"
            lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
            if proxy.authorization:
                lines.append(f"Proxy-Authorization: {proxy.authorization}")
            self._tunnel_head = "\r\n".join([*lines, "", ""]).encode("ascii")

    def warm_up(self) -> None:
        """Load the trusted certificates now; it takes 30 ms that the first report need not wait for.

        Raises:
            OSError: they cannot be read.
        """
        if self._make_context is not None and self._context is None:
            self._context = self._make_context()

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
            if self._make_context is not None:
                step = "tls"
                self.warm_up()
                assert self._context is not None
                stream.start_tls(self._context, self._place.host, until)
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
                continue
            self._names.prefer(address)
            return stream
        self._names.forget()
        raise OSError("no address answered")


def name_failure(step: str, error: BaseException) -> str | None:
    """Say which `Exchange.failure` an exception is at a step: ``dns``, ``connect``, ``proxy`` or ``tls``.

    Returns:
        None if the network cannot have caused it: a mistake in this program.
    """
    if step == "tls" and isinstance(error, FAILURES["certificate"]):
        return "certificate"
    return step if isinstance(error, FAILURES[step]) else None


def _open_tunnel(stream: SocketStream, head: bytes, until: float) -> None:
    stream.send_all(head, until)
    answer = Answer()
    reader = Reader(answer, b"", lambda: stream.receive(PIECE_BYTES, until))
    reader.read_head()
    if not 200 <= (answer.status or 0) < 300 or reader.has_surplus:
        raise OSError("the proxy opened no tunnel")
