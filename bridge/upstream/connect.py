"""From a host name to a connection that is ready for a request: name, TCP, proxy tunnel, TLS.

Every step keeps to one instant given by the caller. Reads no environment: proxy, CA and key-log variables
do not count.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from binascii import b2a_base64
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from bridge.upstream.answer import Answer, Inlet
from bridge.upstream.attempt import DIAL, HANDSHAKE, LOOKUP, TUNNEL, Attempt, now
from bridge.upstream.resolver import Address, Place, Resolver


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

    Thread safety: any number of threads may dial at once.
    """

    def __init__(
        self, place: Place, make_context: Callable[[], ssl.SSLContext] | None, proxy: Proxy | None
    ) -> None:
        """Remember where to.

        Args:
            place: the upstream.
            make_context: makes the TLS context on first use; None for plain HTTP.
            proxy: None for a direct connection.
        """
        self._place = place
        self._make_context = make_context
        self._context: ssl.SSLContext | None = None
        self._context_lock = threading.Lock()
        self._resolver = Resolver(proxy.place if proxy else place)
        self._tunnel_head: bytes | None = None
        if proxy:
            target = f"{bracket(place.host)}:{place.port}"
            lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
            if proxy.authorization:
                lines.append(f"Proxy-Authorization: {proxy.authorization}")
            self._tunnel_head = "\r\n".join([*lines, "", ""]).encode("ascii")

    def warm_up(self) -> None:
        """Load the trusted certificates now; it takes 30 ms that the first report need not wait for."""
        if self._make_context is not None:
            self._tls_context()

    def dial(self, attempt: Attempt) -> socket.socket:
        """Open one connection before ``attempt.connect_until``, telling the attempt which step it is at.

        Raises:
            OSError, ValueError, RuntimeError, http.client.HTTPException: it did not work;
                the step and the class say why.
        """
        until = attempt.connect_until
        through_proxy = self._tunnel_head is not None
        attempt.phase = TUNNEL if through_proxy else LOOKUP
        addresses = self._resolver.find(until)
        attempt.phase = TUNNEL if through_proxy else DIAL
        sock = self._reach(addresses, until)
        try:
            if self._tunnel_head is not None:
                _open_tunnel(sock, self._tunnel_head, until)
            if self._make_context is not None:
                attempt.phase = HANDSHAKE
                sock = self._tls_context().wrap_socket(
                    sock, server_hostname=self._place.host, do_handshake_on_connect=False
                )
                sock.settimeout(_time_left(until))
                sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        return sock

    def _tls_context(self) -> ssl.SSLContext:
        context = self._context
        if context is None:
            assert self._make_context is not None
            with self._context_lock:
                context = self._context = self._context or self._make_context()
        return context

    def _reach(self, addresses: tuple[Address, ...], until: float) -> socket.socket:
        for index, address in enumerate(addresses):
            # A fair share each: one address that swallows everything must not eat the others' time.
            share_s = _time_left(until) / (len(addresses) - index)
            sock = socket.socket(address[0], socket.SOCK_STREAM)
            try:
                sock.settimeout(share_s)
                sock.connect(address[1])
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                sock.close()
                continue
            self._resolver.prefer(address)
            return sock
        self._resolver.forget()
        raise OSError("no address answered")


def _open_tunnel(sock: socket.socket, head: bytes, until: float) -> None:
    sock.settimeout(_time_left(until))
    sock.sendall(head)
    inlet = Inlet(sock)
    inlet.expect(until)
    answer = Answer(inlet, method="CONNECT")
    try:
        answer.begin()
        if not 200 <= answer.status < 300 or inlet.has_surplus():
            raise OSError("the proxy opened no tunnel")
    finally:
        answer.close()


def _time_left(until: float) -> float:
    left_s = until - now()
    if left_s <= 0.0:
        raise TimeoutError("no time is left to connect")
    return left_s
