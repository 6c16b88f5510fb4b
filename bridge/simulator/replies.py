"""What the simulated upstream says: its errors, its verdicts as JSON, and HTTP/1.1 answers as bytes.

A second reading of the vendor's documents: it must not share a table with the part that reads answers.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

JSON: Final = "application/json"
SUCCESS: Final = b'{"errorId":0,"status":"success"}'
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

RATE_LIMIT_ID: Final = 1001
"""The vendor publishes no id for ERROR_RATE_LIMIT; this one is ours, above all documented ids."""
SERVICE_OVERLOAD_ID: Final = 1002
"""As `RATE_LIMIT_ID`, for ERROR_SERVICE_OVERLOAD."""

_CODES: Final = """
    1 ERROR_KEY_DOES_NOT_EXIST  2 ERROR_NO_SLOT_AVAILABLE  3 ERROR_ZERO_CAPTCHA_FILESIZE
    4 ERROR_TOO_BIG_CAPTCHA_FILESIZE  10 ERROR_ZERO_BALANCE  11 ERROR_IP_NOT_ALLOWED
    12 ERROR_CAPTCHA_UNSOLVABLE  13 ERROR_BAD_DUPLICATES  14 ERROR_NO_SUCH_METHOD
    15 ERROR_IMAGE_TYPE_NOT_SUPPORTED  16 ERROR_NO_SUCH_CAPCHA_ID  20 ERROR_EMPTY_COMMENT
    21 ERROR_IP_BLOCKED  22 ERROR_TASK_ABSENT  23 ERROR_TASK_NOT_SUPPORTED  24 ERROR_INCORRECT_SESSION_DATA
    25 ERROR_PROXY_CONNECT_REFUSED  26 ERROR_PROXY_CONNECT_TIMEOUT  27 ERROR_PROXY_READ_TIMEOUT
    28 ERROR_PROXY_BANNED  29 ERROR_PROXY_TRANSPARENT  30 ERROR_RECAPTCHA_TIMEOUT
    31 ERROR_RECAPTCHA_INVALID_SITEKEY  32 ERROR_RECAPTCHA_INVALID_DOMAIN  33 ERROR_RECAPTCHA_OLD_BROWSER
    34 ERROR_TOKEN_EXPIRED  35 ERROR_PROXY_HAS_NO_IMAGE_SUPPORT  36 ERROR_PROXY_INCOMPATIBLE_HTTP_VERSION
    37 ERROR_FACTORY_SERVER_API_CONNECTION_FAILED  38 ERROR_FACTORY_SERVER_BAD_JSON
    39 ERROR_FACTORY_SERVER_ERRORID_MISSING  40 ERROR_FACTORY_SERVER_ERRORID_NOT_ZERO
    41 ERROR_FACTORY_MISSING_PROPERTY  42 ERROR_FACTORY_PROPERTY_INCORRECT_FORMAT
    43 ERROR_FACTORY_ACCESS_DENIED  44 ERROR_FACTORY_SERVER_OPERATION_FAILED
    45 ERROR_FACTORY_PLATFORM_OPERATION_FAILED  46 ERROR_FACTORY_PROTOCOL_BROKEN
    47 ERROR_FACTORY_TASK_NOT_FOUND  48 ERROR_FACTORY_IS_SANDBOXED  49 ERROR_PROXY_NOT_AUTHORISED
    50 ERROR_FUNCAPTCHA_NOT_ALLOWED  51 ERROR_INVISIBLE_RECAPTCHA  52 ERROR_FAILED_LOADING_WIDGET
    53 ERROR_VISIBLE_RECAPTCHA  54 ERROR_ALL_WORKERS_FILTERED  55 ERROR_ACCOUNT_SUSPENDED
    56 ERROR_TEMPLATE_NOT_FOUND  57 ERROR_TASK_CANCELED  1001 ERROR_RATE_LIMIT  1002 ERROR_SERVICE_OVERLOAD
"""

ERRORS: Final = dict(zip(map(int, _CODES.split()[::2]), _CODES.split()[1::2], strict=True))
"""``errorId`` -> code, as published."""

OTHER_SPELLING: Final = "ERROR_NO_SUCH_CAPTCHA_ID"
"""The second spelling of error 16 that the documents use."""

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


def error_code(error_id: int) -> str:
    """Return the code of an error id; ids that nobody documents get ``ERROR_SIMULATED_<id>``."""
    return ERRORS.get(error_id) or f"ERROR_SIMULATED_{error_id}".replace("-", "MINUS_")


def error_body(error_id: int, code: str, description: str | None = None) -> bytes:
    """Return an error verdict as JSON, by default with a description that says the code in words."""
    if description is None:
        description = code.removeprefix("ERROR_").replace("_", " ").capitalize() + "."
    return to_bytes({"errorId": error_id, "errorCode": code, "errorDescription": description})


def to_bytes(value: Any) -> bytes:
    """Return a value as the JSON of an answer."""
    return json.dumps(value, separators=(",", ":")).encode()


@lru_cache(100)  # making it anew for each answer would cost a tenth of the time
def http_date(wall_s: int) -> str:
    """Return UNIX seconds as an HTTP date.

    Source: RFC 9110 section 5.6.7. Not made with strftime, whose names depend on the locale.
    """
    day, month, date, clock, year = time.asctime(time.gmtime(wall_s)).split()
    return f"{day}, {date:>02} {month} {year:>04} {clock} GMT"


def render(
    status: int, body: bytes, *, date: str | None, content_type: str, headers: str = "", framing: str = ""
) -> bytes:
    """Return a whole HTTP/1.1 answer.

    Args:
        status: the status code; 204 and 304 have no body whatever is given.
        body: the body as it goes over the wire.
        date: the Date header; None leaves it out.
        content_type: the Content-Type header.
        headers: more header lines, each with CR LF at its end.
        framing: the line that says how long the body is; by default a Content-Length.
    """
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Simulated')}\r\nServer: report-bridge-simulator\r\n"
    if date is not None:
        head += f"Date: {date}\r\n"
    head += f"Content-Type: {content_type}\r\n{headers}"
    if status in (204, 304):
        return f"{head}\r\n".encode("latin-1")
    head += framing or f"Content-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode("latin-1") + body
