"""Turns the text of a setting into its value, or says in one sentence why it cannot be used.

Pure functions; no environment, no files, and no heavy imports: the bridge starts through here.
A sentence completes "The setting X ...": it never repeats a value that may be a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.redact import Secret
from bridge.settings.table import MEMORY, Setting

TRUE_WORDS: Final = frozenset({"1", "true", "on", "yes"})
FALSE_WORDS: Final = frozenset({"0", "false", "off", "no"})

_DIGITS: Final = frozenset("0123456789")
HEX: Final = frozenset("0123456789abcdefABCDEF")
_HOST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class BadValue(ValueError):
    """The value cannot be used; the text completes "The setting X ..."."""


def shown(value: str) -> str:
    """Return a value as it may be repeated in a message: quoted, cut, and masked if it may be a key."""
    words = value.replace("/", " ").replace("=", " ").replace(":", " ").replace("@", " ").split()
    if any(len(word) >= 16 and not _DIGITS.isdisjoint(word) for word in words):
        return "(not shown, since it looks like a key)"
    if len(value) > 80:
        value = value[:80] + "..."
    return ascii(value)


def parse_switch(text: str) -> bool:
    """Parse ``1/0``, ``true/false``, ``on/off``, ``yes/no`` in any case."""
    word = text.strip().lower()
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    raise BadValue(f"is {shown(text)}; write 1 or 0, true or false, on or off, yes or no")


def parse_integer(text: str, low: int, high: int) -> int:
    """Parse decimal digits within bounds, both allowed."""
    digits = text.strip()
    if not digits or not _DIGITS.issuperset(digits) or len(digits) > 15:
        raise BadValue(f"is {shown(text)}; write a whole number from {low} to {high}")
    check_range(int(digits), low, high)
    return int(digits)


def parse_seconds(text: str, low: float, high: float) -> float:
    """Parse a plain decimal number (no exponent, no sign) of seconds within bounds, both allowed."""
    digits = text.strip()
    whole, _, fraction = digits.partition(".")
    if not (whole or fraction) or not _DIGITS.issuperset(whole + fraction) or len(digits) > 30:
        raise BadValue(f"is {shown(text)}; write seconds as a decimal number from {low:g} to {high:g}")
    check_range(float(digits), low, high)
    return float(digits)


def check_range(value: float, low: float, high: float) -> None:
    """Refuse a number outside the bounds; both bounds are allowed."""
    if not low <= value <= high:
        raise BadValue(f"is {value:.15g}; it has to be from {low:.15g} to {high:.15g}")


def parse_choice(text: str, choices: tuple[str, ...]) -> str:
    """Parse one of a few words, in any case."""
    word = text.strip().lower()
    if word not in choices:
        raise BadValue(f"is {shown(text)}; write {' or '.join(choices)}")
    return word


def parse_text(text: str) -> str:
    """Check that there is something at all."""
    if not text.strip():
        raise BadValue("is empty")
    return text


def parse_secret(text: str) -> Secret:
    """Keep a secret as it is; what it may be is judged where it is used."""
    if not text:
        raise BadValue("is empty; set it to a value or do not set it")
    return Secret(text)


def parse_path(text: str) -> str:
    """Check that a path can be one at all; it is made absolute elsewhere."""
    if not text or "\0" in text:
        raise BadValue("is no path; write the name of a file")
    return text


# --- addresses -------------------------------------------------------------------------------


def parse_upstream(text: str) -> str:
    """Return the canonical base URL of the upstream: lower case, no default port, no slash at the end."""
    scheme, host, port, rest, userinfo = _split(text, ("https", "http"))
    if userinfo:
        raise BadValue("holds a user name or password; give the address alone")
    if "?" in rest or "#" in rest:
        raise BadValue("holds a query or fragment; give scheme, host and, where needed, port and path alone")
    if any(not "!" <= char <= "~" or char in '\\"<>^`{|}' for char in rest):
        raise BadValue("has a path with characters that no URL may hold; percent-encode them")
    if scheme == "http" and not is_loopback(host):
        raise BadValue("is plain http to another host, which would show the key to the network; write https")
    return f"{scheme}://{_authority(scheme, host, port)}{rest.rstrip('/')}"


def parse_proxy(text: str) -> str:
    """Return the canonical URL of an HTTP proxy, with its user name and password as given."""
    scheme, host, port, rest, userinfo = _split(text, ("http", "https"))
    if rest.strip("/"):
        raise BadValue("has a path, query or fragment; give http://host:port alone")
    return f"{scheme}://{userinfo + '@' if userinfo else ''}{_authority(scheme, host, port)}"


def parse_ledger(text: str) -> str:
    """Return ``memory``, a PostgreSQL URL as given, or a path."""
    if text.strip().lower() == MEMORY:
        return MEMORY
    scheme, separator, _ = text.partition("://")
    if not separator or "/" in scheme:
        if text.lower().startswith(("postgresql:", "postgres:")):
            raise BadValue("is an incomplete URL; write postgresql://host/database")
        return parse_path(text)
    if scheme.lower() not in ("postgresql", "postgres"):
        raise BadValue(f"is a {shown(scheme)} URL; write a path, memory, or postgresql://host/database")
    return f"postgresql://{text.partition('://')[2]}"


def is_database(ledger: str) -> bool:
    """Return whether a parsed ledger setting is a PostgreSQL URL."""
    return ledger.startswith("postgresql://")


def has_password(url: str) -> bool:
    """Return whether a URL carries a password, in its user info or as a query parameter."""
    authority, _, query = url.partition("://")[2].partition("?")
    userinfo = authority.rpartition("@")[0]
    names = [pair.partition("=")[0].strip().lower() for pair in query.split("&")]
    return bool(userinfo.partition(":")[2]) or any("password" in name or "%" in name for name in names)


def mask_password(url: str) -> str:
    """Return a URL with its password replaced by asterisks, for showing."""
    scheme, separator, rest = url.partition("://")
    location, question, query = rest.partition("?")
    userinfo, at, place = location.rpartition("@")
    name, colon, password = userinfo.partition(":")
    if password:
        userinfo = f"{name}{colon}***"
    if question:
        pairs = [pair.partition("=") for pair in query.split("&")]
        query = "&".join(
            f"{key}=***" if "password" in key.lower() or "%" in key else f"{key}{equals}{value}"
            for key, equals, value in pairs
        )
    return f"{scheme}{separator}{userinfo}{at}{place}{question}{query}"


def is_loopback(host: str) -> bool:
    """Return whether a host in lower case (IPv6 in brackets) names this machine without asking anybody."""
    if host in ("localhost", "[::1]"):
        return True
    parts = host.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(_is_octet(part) for part in parts)


def _is_octet(part: str) -> bool:
    return 0 < len(part) <= 3 and _DIGITS.issuperset(part) and int(part) < 256 and str(int(part)) == part


def _split(text: str, schemes: tuple[str, ...]) -> tuple[str, str, int | None, str, str]:
    """Return scheme, host, port, what follows the host, and the user info. IPv6 hosts keep brackets."""
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in schemes:
        loopback = " (http:// only for loopback)" if schemes[0] == "https" else ""
        raise BadValue(f"has to begin with {schemes[0]}://{loopback}")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    location, rest = rest[:end], rest[end:]
    userinfo, _, location = location.rpartition("@")
    if location.startswith("["):
        host, bracket, after = location.partition("]")
        host = (host + bracket).lower()
        colon, port = after[:1], after[1:]
        is_good = bool(bracket) and HEX.union(":.").issuperset(host[1:-1]) and ":" in host
    else:
        host, colon, port = location.partition(":")
        host = host.lower()
        is_good = bool(host) and _HOST.issuperset(host)
    if not is_good:
        raise BadValue("has no host name that can be used; write names of other scripts in their xn-- form")
    if colon not in ("", ":") or (colon and not _is_port(port)):
        raise BadValue("has a port that is no number from 1 to 65535")
    return scheme, host, int(port) if port else None, rest, userinfo


def _is_port(port: str) -> bool:
    return _DIGITS.issuperset(port) and len(port) <= 5 and (not port or 1 <= int(port) <= 65535)


def _authority(scheme: str, host: str, port: int | None) -> str:
    return host if port is None or port == _DEFAULT_PORTS[scheme] else f"{host}:{port}"


PARSERS: Final[Mapping[str, Callable[[str, Setting], Any]]] = {
    "integer": lambda text, row: parse_integer(text, int(row.low), int(row.high)),
    "seconds": lambda text, row: parse_seconds(text, row.low, row.high),
    "switch": lambda text, _: parse_switch(text),
    "choice": lambda text, row: parse_choice(text, row.choices),
    "upstream": lambda text, _: parse_upstream(text),
    "proxy": lambda text, _: parse_proxy(text),
    "path": lambda text, _: parse_path(text),
    "ledger": lambda text, _: parse_ledger(text),
    "secret": lambda text, _: parse_secret(text),
    "text": lambda text, _: parse_text(text),
}
"""Kind of a setting to its parser."""
