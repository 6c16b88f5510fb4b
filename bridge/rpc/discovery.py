"""The list of all methods: what each is for, and its schemas by name.

Knows shapes only: it calls nothing and checks nothing. The OpenRPC document is generated from it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bridge.core.resources import load_json


class Method(NamedTuple):
    """One method of the wire."""

    name: str
    summary: str
    params: str
    """Schema of the params, such as ``report.params``."""
    result: str | None
    """Schema of the result; None for a notification."""


def _own(name: str, summary: str, params: str = "") -> Method:
    """A method of the bridge's own; its params have a schema of its name unless told."""
    return Method(name, summary, params or f"{name}.params", f"{name}.result")


_OTHERS: Final = (
    _own("rpc.discover", "Return this document.", params="none.params"),
    _own("bridge.info", "Tell who answers, and within which limits.", params="none.params"),
    _own("bridge.status", "Tell what happened since the start, and what holds now.", params="none.params"),
    _own("bridge.getReport", "Look up what the ledger knows of a task's report."),
    _own("bridge.listReports", "List the reports that the ledger knows, newest first."),
    _own("bridge.resume", "Let the next report probe whether a pause is over."),
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
    ),
)


def methods() -> tuple[Method, ...]:
    """List every method: the reports of methods.json, then the bridge's own, the notification last."""
    reports = [
        Method(entry["name"], entry["summary"], "report.params", "report.result")
        for entry in load_json("methods.json")["methods"]
    ]
    return (*reports, *_OTHERS)
