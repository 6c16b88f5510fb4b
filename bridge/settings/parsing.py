"""Turns the text of a setting into its value, or says in one sentence why it cannot be used.

Pure functions; no environment, no files, and no heavy imports: the bridge starts through here.
A sentence completes "The setting X ...": it never repeats a value that may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.redact import Secret
from bridge.settings.table import MEMORY, Setting

_SWITCH: Final = dict.fromkeys(("1", "true", "on", "yes"), True) | dict.fromkeys(
    ("0", "false", "off", "no"), False
)
# Patterns are text, and compiled where one is needed: none is at an ordinary start.
_HOST: Final = r"\[[0-9a-f.:]*:[0-9a-f.:]*\]|[a-z0-9._-]+(?=:|\Z)"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OCTET: Final = "25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9]"
_LOOPBACK: Final = rf"localhost|\[::1\]|127(\.({_OCTET})){{3}}"
"""What names this machine without asking anybody: a host in lower case, IPv6 in brackets."""


class BadValue(ValueError):
    """The value cannot be used; the text completes "The setting X ..."."""


def shown(value: str) -> str:
    """Return a value as it may be repeated in a message: quoted, cut, and masked if it may be a key."""
    if re.search(r"(?=[^\s/=:@]*[0-9])[^\s/=:@]{16,}", value):
        return "(not shown, since it looks like a key)"
    return ascii(value if len(value) <= 80 else value[:80] + "...")


def parse_switch(text: str) -> bool:
    """Parse ``1/0``, ``true/false``, ``on/off``, ``yes/no`` in any case."""
    value = _SWITCH.get(text.strip().lower())
    if value is None:
        raise BadValue(f"is {shown(text)}; write 1 or 0, true or false, on or off, yes or no")
    return value


def parse_integer(text: str, low: float, high: float) -> int:
    """Parse decimal digits within bounds, both allowed."""
    return int(_parse_number(text, "[0-9]+", "a whole number", low, high))


def parse_seconds(text: str, low: float, high: float) -> float:
    """Parse a plain decimal number (no exponent, no sign) of seconds within bounds, both allowed."""
    return _parse_number(text, r"[0-9]+\.?[0-9]*|\.[0-9]+", "seconds as a decimal number", low, high)


def _parse_number(text: str, form: str, what: str, low: float, high: float) -> float:
    digits = text.strip()
    if len(digits) > 30 or not re.fullmatch(form, digits):
        raise BadValue(f"is {shown(text)}; write {what} from {low:.15g} to {high:.15g}")
    value = float(digits)
    if not low <= value <= high:
        raise BadValue(f"is {value:.15g}; it has to be from {low:.15g} to {high:.15g}")
    return value


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
    if userinfo is not None:
        raise BadValue("holds a user name or password; give the address alone")
    if "?" in rest or "#" in rest:
        raise BadValue("holds a query or fragment; give scheme, host and, where needed, port and path alone")
    if any(not "!" <= char <= "~" or char in '\\"<>^`{|}' for char in rest):
        raise BadValue("has a path with characters that no URL may hold; percent-encode them")
    if scheme == "http" and not re.fullmatch(_LOOPBACK, host):
        raise BadValue("is plain http to another host, which would show the key to the network; write https")
    return f"{scheme}://{host}{port}{rest.rstrip('/')}"


def parse_proxy(text: str) -> str:
    """Return the canonical URL of an HTTP proxy that is spoken to without TLS, its login as given."""
    scheme, host, port, rest, userinfo = _split(text, ("http",))
    if rest.strip("/"):
        raise BadValue("has a path, query or fragment; give http://host:port alone")
    return f"{scheme}://{userinfo + '@' if userinfo else ''}{host}{port}"


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
    return mask_password(url) != url


def mask_password(url: str) -> str:
    """Return a URL with its password replaced by asterisks, for showing."""
    scheme, separator, rest = url.partition("://")
    if scheme.strip().lower() == "http":  # of a proxy: its user alone is often a token
        rest = re.sub("^[^:/?#]+:?@", "***@", rest)
    # To libpq all up to an @ before the first slash is user info, question marks too. Who wrote a slash into
    # a password meant one all the same.
    rest = re.sub(r"^([^:/@]*):[^/]+@(?:[^?]+@)?|^([^:?]*):[^?]+@", r"\1\2:***@", rest)
    # A parameter whose name is percent-encoded may be one that holds a password.
    names = "password|secret|scram|%"
    rest = re.sub(rf"([?&][^=&]*(?:{names})[^=&]*)(?:=[^&]*)?", r"\1=***", rest, flags=re.IGNORECASE)
    return f"{scheme}{separator}{rest}"


def _split(text: str, schemes: tuple[str, ...]) -> tuple[str, str, str, str, str | None]:
    """Return scheme, host, port with its colon, what follows them, and the user info, if there is any.

    IPv6 hosts keep their brackets; a default port is left out.
    """
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in schemes:
        loopback = " (http:// only for loopback)" if schemes[0] == "https" else ""
        raise BadValue(f"has to begin with {schemes[0]}://{loopback}")
    location = re.split("[/?#]", rest, maxsplit=1)[0]
    rest = rest[len(location) :]
    userinfo, at, place = location.rpartition("@")
    host = re.match(_HOST, place.lower())
    if host is None:
        raise BadValue("has no host name that can be used; write names of other scripts in their xn-- form")
    digits = re.fullmatch("(?::([0-9]{0,5}))?", place[host.end() :])
    port = digits and int(digits[1] or _DEFAULT_PORTS[scheme])
    if port is None or not 1 <= port <= 65535:
        raise BadValue("has a port that is no number from 1 to 65535")
    port_part = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
    return scheme, host[0], port_part, rest, userinfo if at else None


PARSERS: Final[Mapping[str, Callable[[str, Setting], Any]]] = {
    "integer": lambda text, row: parse_integer(text, row.low, row.high),
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
