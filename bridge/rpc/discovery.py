"""The list of all methods: their schemas by name, and the errors they can be answered with.

Knows shapes only: it calls nothing and checks nothing. The OpenRPC document is generated from it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bridge.core.resources import load_json


class Method(NamedTuple):
    """One method of the wire: its schemas by name, and what it can be answered with."""

    name: str
    summary: str
    params: str
    """Schema of the params, such as ``report.params``."""
    result: str | None
    """Schema of the result; None for a notification."""
    error: str | None
    """Schema of ``error.data`` of errors that are not JSON-RPC's own; None for a notification."""
    kinds: tuple[str, ...]
    """Kinds of the table's section ``wire`` that it can be answered with."""


PROTOCOL_KINDS: Final = ("invalid_request", "invalid_params", "internal_error")
"""Kinds of the JSON-RPC errors that any method can be answered with."""
_REPORT: Final = (
    *PROTOCOL_KINDS,
    "request_cancelled",
    "upstream_unreachable",
    "outcome_unknown",
    "upstream_http",
    "window_closed",
    "task_conflict",
    "wrong_method",
    "language_refused",
    "key_missing",
    "sending_paused",
    "ledger_unavailable",
    "shutting_down",
)


def _bridge(name: str, summary: str, params: str, *kinds: str) -> Method:
    return Method(name, summary, params, f"{name}.result", "protocol.error", (*PROTOCOL_KINDS, *kinds))


_OTHERS: Final = (
    _bridge("rpc.discover", "Return this document.", "none.params"),
    _bridge("bridge.info", "Tell who answers, and within which limits.", "none.params"),
    _bridge("bridge.status", "Tell what happened since the start, and what holds now.", "none.params"),
    _bridge(
        "bridge.getReport",
        "Look up what the ledger knows of a task's report.",
        "bridge.getReport.params",
        "report_not_found",
        "key_missing",
        "ledger_unavailable",
    ),
    _bridge(
        "bridge.listReports",
        "List the reports that the ledger knows, newest first.",
        "bridge.listReports.params",
        "ledger_unavailable",
    ),
    _bridge(
        "bridge.resume",
        "Let the next report probe whether a pause is over.",
        "bridge.resume.params",
        "ledger_unavailable",
    ),
    _bridge(
        "bridge.noteTasks",
        "Count solved tasks, so that advice has figures: the vendor ignores reports of an account with "
        "fewer than 100 reCAPTCHA tasks in 24 h, or whose share of reported tasks jumps.",
        "bridge.noteTasks.params",
    ),
    Method(
        "$/cancelRequest",
        "Cancel the requests with an id that have not begun; begun ones end as they end.",
        "cancel.params",
        None,
        None,
        (),
    ),
)


def methods() -> tuple[Method, ...]:
    """List every method: the reports of methods.json, then the bridge's own, the notification last."""
    reports = [
        Method(entry["name"], entry["summary"], "report.params", "report.result", "report.error", _REPORT)
        for entry in load_json("methods.json")["methods"]
    ]
    return (*reports, *_OTHERS)
