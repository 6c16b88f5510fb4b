"""The faults by name, as data: what each does, its parameters, its number among the magic ids.

All times are in seconds. Adding a fault means adding a script and a row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bridge.upstream.simulator import scripts
from bridge.upstream.simulator.checks import (
    Anything,
    Flag,
    Integer,
    Named,
    Node,
    Number,
    OrNull,
    Shape,
    Tagged,
    Text,
)
from bridge.upstream.simulator.world import METHODS

MAX_TASK_ID: Final = 2**53 - 1

_LENGTH = Named("length", Number(0, 86_400, "seconds"))
_TEXT = Text(longest=1_000_000)
_STATUS = Named("status", Integer(200, 599, "HTTP status"))
_SIZE = Integer(0, 256 * 1024 * 1024, "bytes")
_TAKEN = Named("taken", Flag("let the rules judge the report first, so that a good one is taken"))


class FaultType(NamedTuple):
    """One kind of fault."""

    number: int
    """Its place among the magic ids; 0 if it cannot be asked for by a task id."""
    summary: str
    tells: str
    """What a call that ends this way was sent: ``verdict``, ``other``, ``part`` or ``nothing``."""
    script: scripts.Script
    params: Mapping[str, tuple[Node, Any]] = {}
    """Parameter -> shape and default."""
    is_global: bool = False
    """True if it acts on connections, so that it cannot be tied to a task or method."""


FAULTS: Final[Mapping[str, FaultType]] = {
    "latency": FaultType(
        1, "takes the report, waits, answers", "verdict", scripts.latency, {"seconds": (_LENGTH, 1.0)}
    ),
    "hang": FaultType(
        2,
        "reads the report and never answers; closes after `seconds` if given",
        "nothing",
        scripts.hang,
        {"seconds": (OrNull(_LENGTH), None), "taken": (_TAKEN, False)},
    ),
    "reset_before": FaultType(
        3,
        "resets before the report is read (tied to a task or method: once that much is known); never taken",
        "nothing",
        scripts.reset_unread,
    ),
    "reset_read": FaultType(4, "reads the whole report, resets, not taken", "nothing", scripts.reset_unread),
    "reset_after": FaultType(5, "takes the report, resets without an answer", "nothing", scripts.reset_after),
    "close_read": FaultType(
        6, "reads the report, closes without an answer, not taken", "nothing", scripts.close_read
    ),
    "close_after": FaultType(7, "takes the report, closes without an answer", "nothing", scripts.close_after),
    "drip_headers": FaultType(
        8,
        "takes the report, sends the head of the answer byte by byte, `seconds` apart",
        "verdict",
        scripts.drip_headers,
        {"seconds": (_LENGTH, 0.5)},
    ),
    "drip_body": FaultType(
        9,
        "takes the report, sends the body of the answer byte by byte, `seconds` apart",
        "verdict",
        scripts.drip_body,
        {"seconds": (_LENGTH, 0.5)},
    ),
    "endless_continue": FaultType(
        10,
        "sends `100 Continue` for ever, `seconds` apart",
        "other",
        scripts.endless_continue,
        {"seconds": (Number(0.001, 86_400, "seconds"), 0.05), "taken": (_TAKEN, True)},
    ),
    "cut_headers": FaultType(
        11, "sends half of the head, closes", "part", scripts.cut_headers, {"taken": (_TAKEN, True)}
    ),
    "cut_body": FaultType(
        12,
        "sends the head and half of the promised body, closes",
        "part",
        scripts.cut_body,
        {"taken": (_TAKEN, True)},
    ),
    "garbage": FaultType(
        13, "sends bytes that are not HTTP, closes", "other", scripts.garbage, {"taken": (_TAKEN, True)}
    ),
    "html": FaultType(14, "answers 200 with an HTML page", "other", scripts.html, {"taken": (_TAKEN, False)}),
    "empty": FaultType(
        15, "answers 200 with an empty body", "other", scripts.empty, {"taken": (_TAKEN, False)}
    ),
    "status": FaultType(
        16,
        "answers with an HTTP status and a page; a 3xx carries a Location",
        "other",
        scripts.status,
        {
            "status": (_STATUS, 500),
            "retryAfterSeconds": (OrNull(Number(0, 10_000_000, "seconds")), None),
            "retryAfterForm": (Text("seconds", "date", "junk"), "seconds"),
            "taken": (_TAKEN, False),
        },
    ),
    "gzip": FaultType(
        17,
        "takes the report, answers with a gzip body; `bytes` is its unpacked size",
        "other",
        scripts.gzip,
        {"bytes": (_SIZE, 0)},
    ),
    "redirect": FaultType(
        18,
        "redirects, to `/_redirected/<method>` of the simulator unless `location` is given",
        "other",
        scripts.redirect,
        {
            "status": (Integer(300, 399, "HTTP status"), 307),
            "location": (OrNull(Text(longest=2000)), None),
            "taken": (_TAKEN, False),
        },
    ),
    "oversize": FaultType(
        19,
        "takes the report, answers with a true verdict padded to `bytes`",
        "other",
        scripts.oversize,
        {"bytes": (_SIZE, 1_048_576)},
    ),
    "not_object": FaultType(
        20,
        "answers 200 with JSON that is not an object (or any other `text`)",
        "other",
        scripts.body,
        {"text": (_TEXT, "[0]"), "status": (_STATUS, 200), "taken": (_TAKEN, True)},
    ),
    "error_id_type": FaultType(
        21,
        "takes the report, answers with an `errorId` that is no integer or out of range, or `missing`",
        "other",
        scripts.changed_error_id,
        {
            "errorId": (Anything("put in place of errorId"), "0"),
            "missing": (Flag("leave errorId out"), False),
        },
    ),
    "verdict_status": FaultType(
        22,
        "answers with the true verdict under another HTTP status",
        "verdict",
        scripts.verdict_status,
        {"status": (_STATUS, 500)},
    ),
    "wrong_date": FaultType(
        23,
        "answers well with a Date header that is off, missing or unreadable",
        "verdict",
        scripts.wrong_date,
        {
            "form": (Text("skew", "missing", "junk"), "skew"),
            "skewSeconds": (Number(-100_000_000, 100_000_000, "seconds"), 300.0),
        },
    ),
    "rate_limit": FaultType(24, "answers ERROR_RATE_LIMIT, not taken", "verdict", scripts.rate_limit),
    "service_overload": FaultType(
        25, "answers ERROR_SERVICE_OVERLOAD, not taken", "verdict", scripts.service_overload
    ),
    "error": FaultType(
        26,
        "answers with any error id, code and description, not taken",
        "verdict",
        scripts.error,
        {
            "errorId": (Integer(-(2**63), 2**63), 7777),
            "errorCode": (OrNull(Text(longest=10_000)), "ERROR_FROM_THE_FUTURE"),
            "errorDescription": (OrNull(Text(longest=100_000)), None),
        },
    ),
    "echo_key": FaultType(
        27,
        "answers with an error whose description repeats the key in an `encoding`",
        "verdict",
        scripts.echo_key,
        {"encoding": (Text(*scripts.ENCODINGS), "raw"), "errorId": (Integer(1, 2**31 - 1), 24)},
    ),
    "close_idle": FaultType(
        28,
        "answers well, then closes the connection after `seconds` without a request",
        "verdict",
        scripts.close_idle,
        {"seconds": (_LENGTH, 0.0)},
    ),
    "connection_close": FaultType(
        29, "answers well with `Connection: close`, closes", "verdict", scripts.connection_close
    ),
    "chunked": FaultType(30, "answers well, in chunks", "verdict", scripts.chunked),
    "huge_headers": FaultType(
        31,
        "takes the report, answers with a head of `bytes`",
        "verdict",
        scripts.huge_headers,
        {"bytes": (Integer(0, 16 * 1024 * 1024, "bytes"), 262_144)},
    ),
    "extra_bytes": FaultType(
        32, "answers well, then sends bytes that belong to no request", "verdict", scripts.extra_bytes
    ),
    "raw": FaultType(
        33,
        "sends `text`, one byte a character, instead of an answer, closes",
        "other",
        scripts.raw,
        {"text": (_TEXT, "SSH-2.0-Simulator\r\n"), "taken": (_TAKEN, False)},
    ),
    "hang_before": FaultType(
        0,
        "reads nothing for `seconds` (null: for ever); with https the handshake stays open",
        "nothing",
        scripts.hang,
        {"seconds": (OrNull(_LENGTH), None), "taken": (_TAKEN, False)},
        is_global=True,
    ),
    "slow_accept": FaultType(
        0,
        "accepts connections only after `seconds`",
        "nothing",
        scripts.hang,
        {"seconds": (_LENGTH, 1.0)},
        is_global=True,
    ),
    "refuse": FaultType(
        0,
        "refuses connections and drops the open ones, control endpoint included, for `forSeconds`",
        "nothing",
        scripts.hang,
        is_global=True,
    ),
}
"""Fault name -> type. Numbers are published and must not change."""

EARLY: Final = frozenset({"reset_before", "hang_before"})
"""Faults that, tied to nothing, act before a request is read."""

_COUNTED: Final[Mapping[str, Named]] = {
    "count": Named("count", Integer(1, 1_000_000_000, "break only so many calls")),
    "skip": Named("skip", Integer(0, 1_000_000_000, "let so many matching calls pass first")),
}
_TIMED: Final[Mapping[str, Named]] = {
    "forSeconds": Named("forSeconds", Number(0.001, 31_536_000, "disarm after so many seconds")),
}
_TIED: Final[Mapping[str, Named]] = {
    "taskId": Named("taskId", Integer(1, MAX_TASK_ID, "only calls about this task")),
    "method": Named("method", Text(*METHODS, note="only calls of this method")),
}


def _shape(name: str, kind: FaultType) -> Shape:
    fields: dict[str, Node] = {"fault": Text(name)}
    fields.update({param: node for param, (node, _) in kind.params.items()})
    if not kind.is_global:
        fields.update(_TIED)
    if name not in ("refuse", "slow_accept"):
        fields.update(_COUNTED)
    fields.update(_TIMED)
    required = ["fault", "forSeconds"] if name == "refuse" else ["fault"]
    return Shape(fields, required=required, note=kind.summary.replace("`", ""))


FAULT: Final = Named("fault", Tagged("fault", {name: _shape(name, kind) for name, kind in FAULTS.items()}))
"""Shape of a fault in the scenario file and at the control endpoint."""

NAMED: Final = (_LENGTH, _STATUS, _TAKEN, *_COUNTED.values(), *_TIMED.values(), *_TIED.values(), FAULT)
"""What the schema of the scenario file spells once."""
