"""What the simulated upstream says: its errors, its verdicts as JSON, and HTTP/1.1 answers as bytes.

A second reading of the vendor's documents: it must not share a table with the part that reads answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

JSON: Final = "application/json"
SUCCESS: Final = b'{"errorId":0,"status":"success"}'
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

RATE_LIMIT_ID: Final = 1001
"""The vendor publishes no id for ERROR_RATE_LIMIT; this one is ours, above all documented ids."""
SERVICE_OVERLOAD_ID: Final = 1002
"""As `RATE_LIMIT_ID`, for ERROR_SERVICE_OVERLOAD."""

ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    1: ("ERROR_KEY_DOES_NOT_EXIST", "No account has this key. Look for stray blanks around it."),
    2: ("ERROR_NO_SLOT_AVAILABLE", "No worker is free at the price you offer."),
    3: ("ERROR_ZERO_CAPTCHA_FILESIZE", "The image is smaller than 100 bytes."),
    4: ("ERROR_TOO_BIG_CAPTCHA_FILESIZE", "The image is larger than 500,000 bytes."),
    10: ("ERROR_ZERO_BALANCE", "The balance of the account is zero or below."),
    11: ("ERROR_IP_NOT_ALLOWED", "The account does not allow requests from this address."),
    12: ("ERROR_CAPTCHA_UNSOLVABLE", "Five workers could not solve this captcha."),
    13: ("ERROR_BAD_DUPLICATES", "Too few of the duplicate answers agreed."),
    14: ("ERROR_NO_SUCH_METHOD", "There is no API method of this name."),
    15: ("ERROR_IMAGE_TYPE_NOT_SUPPORTED", "The image is not of a supported file type."),
    16: ("ERROR_NO_SUCH_CAPCHA_ID", "Not a task of yours, too old, ended in error, or reported before."),
    20: ("ERROR_EMPTY_COMMENT", "This task needs a comment."),
    21: ("ERROR_IP_BLOCKED", "This address is banned for improper use of the API."),
    22: ("ERROR_TASK_ABSENT", "The request holds no task that could be read."),
    23: ("ERROR_TASK_NOT_SUPPORTED", "There is no task type of this name."),
    24: ("ERROR_INCORRECT_SESSION_DATA", "A value that this method needs is missing or wrong."),
    25: ("ERROR_PROXY_CONNECT_REFUSED", "The proxy of the task refused the connection."),
    26: ("ERROR_PROXY_CONNECT_TIMEOUT", "The proxy of the task could not be reached in time."),
    27: ("ERROR_PROXY_READ_TIMEOUT", "The proxy of the task did not answer in time."),
    28: ("ERROR_PROXY_BANNED", "The target site bans the proxy of the task."),
    29: ("ERROR_PROXY_TRANSPARENT", "The proxy of the task reveals its client."),
    30: ("ERROR_RECAPTCHA_TIMEOUT", "The recaptcha did not load in time."),
    31: ("ERROR_RECAPTCHA_INVALID_SITEKEY", "The site key is not known to its provider."),
    32: ("ERROR_RECAPTCHA_INVALID_DOMAIN", "The site key is not made for this domain."),
    33: ("ERROR_RECAPTCHA_OLD_BROWSER", "The user agent is too old for its provider."),
    34: ("ERROR_TOKEN_EXPIRED", "The extra token of the task is out of date."),
    35: ("ERROR_PROXY_HAS_NO_IMAGE_SUPPORT", "The proxy of the task does not pass images."),
    36: ("ERROR_PROXY_INCOMPATIBLE_HTTP_VERSION", "The proxy of the task speaks another HTTP."),
    37: ("ERROR_FACTORY_SERVER_API_CONNECTION_FAILED", "The factory server could not be reached."),
    38: ("ERROR_FACTORY_SERVER_BAD_JSON", "The factory server sent broken JSON."),
    39: ("ERROR_FACTORY_SERVER_ERRORID_MISSING", "The factory server sent no error id."),
    40: ("ERROR_FACTORY_SERVER_ERRORID_NOT_ZERO", "The factory server sent an error."),
    41: ("ERROR_FACTORY_MISSING_PROPERTY", "The factory task lacks a property."),
    42: ("ERROR_FACTORY_PROPERTY_INCORRECT_FORMAT", "A property of the factory task is malformed."),
    43: ("ERROR_FACTORY_ACCESS_DENIED", "The factory is not yours to use."),
    44: ("ERROR_FACTORY_SERVER_OPERATION_FAILED", "The factory server failed."),
    45: ("ERROR_FACTORY_PLATFORM_OPERATION_FAILED", "The factory platform failed."),
    46: ("ERROR_FACTORY_PROTOCOL_BROKEN", "The factory broke its protocol."),
    47: ("ERROR_FACTORY_TASK_NOT_FOUND", "The factory knows no such task."),
    48: ("ERROR_FACTORY_IS_SANDBOXED", "The factory is not released."),
    49: ("ERROR_PROXY_NOT_AUTHORISED", "The proxy of the task refused its login."),
    50: ("ERROR_FUNCAPTCHA_NOT_ALLOWED", "This option is not enabled for the account."),
    51: ("ERROR_INVISIBLE_RECAPTCHA", "An invisible recaptcha was sent as a visible one."),
    52: ("ERROR_FAILED_LOADING_WIDGET", "The captcha did not load in the worker's browser."),
    53: ("ERROR_VISIBLE_RECAPTCHA", "A visible recaptcha was sent as an invisible one."),
    54: ("ERROR_ALL_WORKERS_FILTERED", "Your complaints leave no worker for this task."),
    55: ("ERROR_ACCOUNT_SUSPENDED", "The account is suspended; write to the support."),
    56: ("ERROR_TEMPLATE_NOT_FOUND", "There is no template of this name."),
    57: ("ERROR_TASK_CANCELED", "The task was cancelled."),
    RATE_LIMIT_ID: ("ERROR_RATE_LIMIT", "Too many requests; slow down."),
    SERVICE_OVERLOAD_ID: ("ERROR_SERVICE_OVERLOAD", "The service is overloaded; try later."),
}
"""``errorId`` -> code and description. Codes as published, descriptions in our own words."""

OTHER_SPELLING: Final = "ERROR_NO_SUCH_CAPTCHA_ID"
"""The second spelling of error 16 that the documents use."""

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


def error_code(error_id: int) -> str:
    """Return the code of an error id; ids that nobody documents get ``ERROR_SIMULATED_<id>``."""
    unknown = f"ERROR_SIMULATED_{error_id}".replace("-", "MINUS_")
    return ERRORS.get(error_id, (unknown, ""))[0]


def error_body(error_id: int, code: str, description: str | None = None) -> bytes:
    """Return an error verdict as JSON."""
    if description is None:
        description = ERRORS.get(error_id, ("", "An error that is in no published list."))[1]
    return to_bytes({"errorId": error_id, "errorCode": code, "errorDescription": description})


def to_bytes(value: Any) -> bytes:
    """Return a value as the JSON of an answer."""
    return json.dumps(value, separators=(",", ":")).encode()


def http_date(wall_s: float) -> str:
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
