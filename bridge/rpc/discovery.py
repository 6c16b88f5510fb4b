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
    "request_cancelled upstream_unreachable outcome_unknown upstream_http window_closed task_conflict "
    "wrong_method language_refused key_missing sending_paused ledger_unavailable shutting_down"
)


def _own(name: str, summary: str, kinds: str = "", params: str = "") -> Method:
    """A method of the bridge's own; its params have a schema of its name unless told."""
    return Method(
        name,
        summary,
        params or f"{name}.params",
        f"{name}.result",
        "protocol.error",
        (*PROTOCOL_KINDS, *kinds.split()),
    )


_OTHERS: Final = (
    _own("rpc.discover", "Return this document.", params="none.params"),
    _own("bridge.info", "Tell who answers, and within which limits.", params="none.params"),
    _own("bridge.status", "Tell what happened since the start, and what holds now.", params="none.params"),
    _own(
        "bridge.getReport",
        "Look up what the ledger knows of a task's report.",
        "report_not_found key_missing ledger_unavailable",
    ),
    _own("bridge.listReports", "List the reports that the ledger knows, newest first.", "ledger_unavailable"),
    _own("bridge.resume", "Let the next report probe whether a pause is over.", "ledger_unavailable"),
    _own(
        "bridge.noteTasks",
        "Count solved tasks, so that advice has figures: the vendor ignores reports of an account with "
        "fewer than 100 reCAPTCHA tasks in 24 h, or whose share of reported tasks jumps.",
    ),
    Method(
        "$/cancelRequest",
        "Cancel the requests with an id that have not begun; begun ones end as they end.",
        params="cancel.params",
        result=None,
        error=None,
        kinds=(),
    ),
)


def methods() -> tuple[Method, ...]:
    """List every method: the reports of methods.json, then the bridge's own, the notification last."""
    kinds = (*PROTOCOL_KINDS, *_REPORT.split())
    reports = [
        Method(entry["name"], entry["summary"], "report.params", "report.result", "report.error", kinds)
        for entry in load_json("methods.json")["methods"]
    ]
    return (*reports, *_OTHERS)
