"""The control endpoint: JSON over HTTP under ``/_control/``, a thin skin over `state.State`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from bridge.simulator import magic, replies
from bridge.simulator.reader import Request
from bridge.simulator.scenario import LISTS, SCENARIO, SETTINGS, NotValid, Schema, check, closed, read_json

if TYPE_CHECKING:
    from bridge.simulator.simulator import Simulator

VERSION: Final = 1
"""Version of the control endpoint; rises only when something that worked stops working."""

MAX_LISTED: Final = 1000
"""Entries of the log in one answer unless ``limit`` asks for another number."""


Query = Mapping[str, Any]
Handler = Callable[["Simulator", Any, Query], Any]


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


_TASK_ID: Final = _whole(1, 2**53 - 1)
_QUERIES: Final = {
    ("GET", "tasks"): closed(taskId=_TASK_ID),
    ("GET", "log"): closed(since=_whole(0, 2**63), taskId=_TASK_ID, limit=_whole(1, 1_000_000)),
    ("GET", "deliveries"): closed(taskId=_TASK_ID),
    ("DELETE", "faults"): closed(id=_whole(1, 2**63)),
}
"""What the query of a call may hold; those of others hold nothing."""
_TOLD: Final = (*LISTS, "settings")
"""The paths that take a body with POST."""


def _make(name: str) -> Handler:
    """Make one thing, or all of a list; nothing is done unless all of it is as documented."""

    several = closed(**{name: SCENARIO["properties"][name]})

    def handle(host: Simulator, body: Any, query: Query) -> Any:
        if isinstance(body, dict) and name in body:
            return {name: [host.state.make(name, item) for item in check(body, several)[name]]}
        return host.state.make(name, check(body, LISTS[name]))

    return handle


def _list(name: str) -> Handler:
    """Return all that there is of something, or what is tied to one task."""
    return lambda host, _, query: {name: host.state.list(name, query.get("taskId"))}


def _get_index(host: Simulator, body: Any, query: Query) -> Any:
    paths = sorted(f"{verb} /_control/{path}" for verb, path in ROUTES)
    return {"name": "report-bridge simulator", "version": VERSION, "baseUrl": host.base_url, "paths": paths}


def _get_log(host: Simulator, body: Any, query: Query) -> Any:
    since = query.get("since", 0)
    entries = host.state.journal.select(since, query.get("taskId"), query.get("limit", MAX_LISTED))
    return {"entries": entries, "next": entries[-1]["seq"] if entries else since}


def _reset(host: Simulator, body: Any, query: Query) -> Any:
    host.reset()
    return {"reset": True}


ROUTES: Final[Mapping[tuple[str, str], Handler]] = {
    **{("POST", name): _make(name) for name in LISTS},
    **{("GET", name): _list(name) for name in LISTS},
    ("GET", ""): _get_index,
    ("DELETE", "faults"): lambda host, _, query: {"cleared": host.state.clear_faults(query.get("id"))},
    ("GET", "settings"): lambda host, _, query: host.state.settings,
    ("POST", "settings"): lambda host, body, query: host.state.change_settings(check(body, SETTINGS)),
    ("GET", "log"): _get_log,
    ("GET", "deliveries"): lambda host, _, query: {
        "deliveries": host.state.journal.deliveries(query.get("taskId"))
    },
    ("GET", "counters"): lambda host, _, query: host.state.journal.counters,
    ("GET", "magic"): lambda host, _, query: magic.describe(),
    ("POST", "disconnect"): lambda host, _, query: {"closed": host.disconnect()},
    ("POST", "reset"): _reset,
}
"""Verb and path after ``/_control/`` -> what is done."""


def serve_control(host: Simulator, request: Request) -> bytes:
    """Return the whole HTTP answer to a request under ``/_control/``; never raises for a bad one."""
    path, _, query = request.target.removeprefix("/_control/").partition("?")
    route = (request.verb, path)
    handler = ROUTES.get(route)
    status, value = 404, {"error": "there is no such path; GET /_control/ lists them", "pointer": None}
    if handler is not None:
        try:
            body = read_json(request.body) if request.body.strip() else None
            if request.verb != "POST" or path not in _TOLD:
                check({} if body is None else body, closed())
            status, value = 200, handler(host, body, _read_query(query, _QUERIES.get(route, closed())))
        except NotValid as refusal:
            status, value = 400, {"error": str(refusal), "pointer": refusal.pointer}
    elif any(known == path for _, known in ROUTES):
        status, value = 405, {"error": "this path does not know this verb", "pointer": None}
    data = json.dumps(value).encode() + b"\n"
    headers = "" if request.keep_alive else "Connection: close\r\n"
    return replies.render(status, data, date=host.state.date(), content_type=replies.JSON, headers=headers)


def _read_query(text: str, shape: Schema) -> Query:
    query: dict[str, Any] = {}
    for part in text.split("&") if text else ():
        name, _, value = part.partition("=")
        query[name] = int(value) if value.isascii() and value.isdigit() and len(value) < 19 else value
    checked: Query = check(query, shape, "?")
    return checked
