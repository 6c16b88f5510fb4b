"""The list of all methods: what each is for, and its schemas by name.

Knows shapes only: it calls nothing and checks nothing. The OpenRPC document is generated from it.
"""

from __future__ import annotations

from typing import NamedTuple

from bridge.core.resources import load_json


class Method(NamedTuple):
    """One method of the wire."""

    name: str
    summary: str
    params: str
    """Schema of the params, such as ``report.params``."""
    result: str | None
    """Schema of the result; None for a notification."""


def methods() -> tuple[Method, ...]:
    """List every method: the reports of methods.json, then the bridge's own, the notification last."""
    table = load_json("methods.json")
    reports = [
        Method(entry["name"], entry["summary"], "report.params", "report.result")
        for entry in table["methods"]
    ]
    return (*reports, *(Method(**entry) for entry in table["protocol"]))
