"""The control endpoint: JSON over HTTP under ``/_control/``, a thin skin over `stage.Stage`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from bridge.upstream.simulator import magic, replies
from bridge.upstream.simulator.checks import Flag, Integer, List, NotValid, Shape
from bridge.upstream.simulator.fault_table import FAULT, MAX_TASK_ID
from bridge.upstream.simulator.inbound import Request
from bridge.upstream.simulator.scenario import ACCOUNT, TASK
from bridge.upstream.simulator.stage import Stage

VERSION: Final = 1
"""Version of the control endpoint; rises only when something that worked stops working."""

MAX_LISTED: Final = 1000
"""Entries of the log in one answer unless ``limit`` asks for another number."""


class Host(Protocol):
    """What the control endpoint needs of the simulator."""

    stage: Stage
    base_url: str

    def disconnect(self) -> int:
        """Close all idle connections that carried calls; return how many."""

    def reset(self) -> None:
        """Start the scenario again."""


class Refused(Exception):
    """A control request that cannot be served."""

    def __init__(self, status: int, problem: str, pointer: str | None = None) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem
        self.pointer = pointer


Query = Mapping[str, int]
Handler = Callable[[Host, Any, Query], Any]

_TASKS: Final = Shape({"tasks": List(TASK)}, required=("tasks",))
_FAULTS: Final = Shape({"faults": List(FAULT)}, required=("faults",))
_ACCOUNTS: Final = Shape({"accounts": List(ACCOUNT)}, required=("accounts",))
_RESET: Final = Shape({"confirm": Flag()})
_QUERY: Final[Mapping[str, Integer]] = {
    "taskId": Integer(1, MAX_TASK_ID),
    "since": Integer(0, 2**63),
    "limit": Integer(1, 1_000_000),
    "id": Integer(1, 2**63),
}


def _many(body: Any, name: str, shape: Shape, add: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Do one thing, or all of a list; nothing is done unless all of it is as documented."""
    if isinstance(body, dict) and name in body:
        shape.check(body)
        return {name: [add(item) for item in body[name]]}
    return add(body)


def _get_index(host: Host, body: Any, query: Query) -> Any:
    return {
        "name": "report-bridge simulator",
        "version": VERSION,
        "baseUrl": host.base_url,
        "paths": sorted({f"{verb} /_control/{path}" for verb, path in ROUTES}),
    }


def _get_log(host: Host, body: Any, query: Query) -> Any:
    since = query.get("since", 0)
    entries = host.stage.log(since, query.get("taskId"), query.get("limit", MAX_LISTED))
    return {"entries": entries, "next": entries[-1]["seq"] if entries else since}


def _get_tasks(host: Host, body: Any, query: Query) -> Any:
    return {"tasks": host.stage.tasks(query.get("taskId"))}


def _get_deliveries(host: Host, body: Any, query: Query) -> Any:
    return {"deliveries": host.stage.deliveries(query.get("taskId"))}


def _reset(host: Host, body: Any, query: Query) -> Any:
    _RESET.check({} if body is None else body)
    host.reset()
    return {"reset": True}


ROUTES: Final[Mapping[tuple[str, str], Handler]] = {
    ("GET", ""): _get_index,
    ("GET", "tasks"): _get_tasks,
    ("POST", "tasks"): lambda host, body, query: _many(body, "tasks", _TASKS, host.stage.add_task),
    ("GET", "faults"): lambda host, body, query: {"faults": host.stage.list_faults()},
    ("POST", "faults"): lambda host, body, query: _many(body, "faults", _FAULTS, host.stage.add_fault),
    ("DELETE", "faults"): lambda host, body, query: {"cleared": host.stage.clear_faults(query.get("id"))},
    ("GET", "accounts"): lambda host, body, query: {"accounts": host.stage.list_accounts()},
    ("POST", "accounts"): lambda host, body, query: _many(
        body, "accounts", _ACCOUNTS, host.stage.set_account
    ),
    ("GET", "settings"): lambda host, body, query: host.stage.list_settings(),
    ("POST", "settings"): lambda host, body, query: host.stage.change_settings(body),
    ("GET", "log"): _get_log,
    ("GET", "deliveries"): _get_deliveries,
    ("GET", "counters"): lambda host, body, query: host.stage.counters(),
    ("GET", "magic"): lambda host, body, query: magic.describe(),
    ("POST", "disconnect"): lambda host, body, query: {"closed": host.disconnect()},
    ("POST", "reset"): _reset,
}
"""Verb and path after ``/_control/`` -> what is done."""


def serve_control(host: Host, request: Request) -> bytes:
    """Return the whole HTTP answer to a request under ``/_control/``; never raises for a bad one."""
    try:
        status, value = 200, _dispatch(host, request)
    except NotValid as refusal:
        status, value = 400, {"error": str(refusal), "pointer": refusal.pointer}
    except Refused as refusal:
        status, value = refusal.status, {"error": refusal.problem, "pointer": refusal.pointer}
    return replies.render(
        status,
        json.dumps(value).encode() + b"\n",
        date=host.stage.date(),
        content_type="application/json",
        headers="" if request.head.keep_alive else "Connection: close\r\n",
    )


def _dispatch(host: Host, request: Request) -> Any:
    path, _, query_text = request.head.path.partition("?")
    path = path.removeprefix("/_control/")
    handler = ROUTES.get((request.head.verb, path))
    if handler is None:
        if any(known == path for _, known in ROUTES):
            raise Refused(405, "this path does not know this verb")
        raise Refused(404, "there is no such path; GET /_control/ lists them")
    return handler(host, _read_json(request.body), _read_query(query_text))


def _read_json(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON", "") from None


def _read_query(text: str) -> Query:
    found: dict[str, int] = {}
    for part in text.split("&") if text else ():
        name, _, value = part.partition("=")
        if name not in _QUERY:
            raise Refused(400, f"the query knows only {', '.join(_QUERY)}")
        if not value.isascii() or not value.isdigit() or len(value) > 18:
            raise Refused(400, f"{name} in the query must be a number")
        _QUERY[name].check(int(value), f"?{name}")
        found[name] = int(value)
    return found
