"""One conversation: bytes from the reader to calls, answers to the writer, and admission between.

Joins `wire` and `rpc`; knows nothing of what the methods do. At most `queue` reports are admitted
and unanswered: what was read beyond that is parked, and nothing more is read until there is room.
A full queue alone stops nothing, so that cancels and questions are still heard.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from bridge.core import strict_json
from bridge.core.errors import wire_row
from bridge.ops.clock import boot_clock
from bridge.reports.flight import Answer
from bridge.rpc import envelope
from bridge.rpc.dispatcher import PENDING, Dispatcher, Failure
from bridge.rpc.envelope import Call, Invalid
from bridge.wire.framing import BadFraming, Framer, Oversize
from bridge.wire.stdio import Writer

CANCEL: Final = "$/cancelRequest"
_NO_MARK: Final[Mapping[str, Any]] = {}
MOST_BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""Nothing is read while more than this waits for the client to read its answers."""


class Context:
    """One call that is being served; `answer` may come later and from any thread, exactly once."""

    __slots__ = ("_dispatcher", "_mark", "_respond", "call", "received_boot")

    def __init__(
        self,
        dispatcher: Dispatcher,
        call: Call,
        respond: Callable[[bytes | None], None],
        mark: Mapping[str, Any] = _NO_MARK,
    ) -> None:
        self.call = call
        self.received_boot = boot_clock()
        """When it was read; what waits for room, a key or the ledger uses up its window."""
        self._dispatcher = dispatcher
        self._respond = respond
        self._mark = mark

    @property
    def name(self) -> Any:
        """Comparable form of the id, for cancellation; None for a notification."""
        return (envelope.id_key(self.call.id),) if self.call.has_id else None

    def answer(self, answer: Answer) -> None:
        """Answer the call as the service decided."""
        if answer.result is not None:
            self.settle(answer.result)
        else:
            self.settle(Failure(answer.code, answer.message, answer.data))

    def settle(self, value: Any) -> None:
        """Answer the call with a result or a `Failure`."""
        if not self.call.has_id:
            self._respond(None)
            return
        try:
            payload = strict_json.dump(self._response(value))
        except Exception as bug:
            payload = strict_json.dump(self._response(self._dispatcher.fail(bug)))
        self._respond(payload)

    def _response(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Failure):
            data = {**value.data, **self._mark}
            return envelope.error_response(self.call.id, value.code, value.message, data)
        return envelope.success_response(self.call.id, value)


class Session:
    """Serves one client.

    Args:
        slow: Names of the methods that are admitted against the queue: those that report.
        cancel: Lets go the requests of a comparable id.
        translate: Turns what a person typed into a message; None on the wire.
        render: Turns an answer into what a person reads; None on the wire.
        mark: What the data of every error says besides.

    Thread safety: `feed` and `end` belong to the reader's thread; answers may come from any.
    """

    def __init__(
        self,
        framer: Framer,
        writer: Writer,
        dispatcher: Dispatcher,
        *,
        max_batch: int,
        max_depth: int,
        queue: int,
        slow: Collection[str],
        cancel: Callable[[Any], None],
        wake: Callable[[], None],
        translate: Callable[[bytes], bytes] | None = None,
        render: Callable[[bytes], bytes] | None = None,
        mark: Mapping[str, Any] = _NO_MARK,
    ) -> None:
        self._dispatcher = dispatcher
        self.framer = framer
        self._writer = writer
        self._max_batch = max_batch
        self._max_depth = max_depth
        self._queue = queue
        self._slow = slow
        self._cancel = cancel
        self._wake = wake
        self._translate = translate
        self._render = render
        self._mark = mark
        self._lock = threading.Lock()
        self._open = 0
        self._reports = 0
        self._unwritten = 0
        self._parked: deque[Context] = deque()
        self.messages = 0
        """Messages that arrived, bad ones included."""

    # --- the reader's side -------------------------------------------------------------------

    def ready(self) -> bool:
        """True if more may be read."""
        return (
            not self._parked
            and not self.framer.failed
            and self._open - self._reports + self._unwritten < self._queue
            and self._writer.backlog_bytes < MOST_BACKLOG_BYTES
        )

    @property
    def is_idle(self) -> bool:
        """True if every request that arrived has been answered and handed to the writer."""
        return not self._parked and self._open == 0

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        for event in self.framer.feed(data):
            self._take(event)

    def end(self) -> None:
        """Take the end of the stream."""
        for event in self.framer.end():
            self._take(event)

    def unpark(self) -> None:
        """Admit what waits for room, as far as there is room."""
        while self._parked and self._reports < self._queue:
            self._serve(self._parked.popleft())

    def drop_parked(self, failure: Failure) -> int:
        """Answer everything that was read but never admitted; returns how many those were."""
        dropped = len(self._parked)
        while self._parked:
            context = self._parked.popleft()
            self._count(1, True)
            context.settle(failure)
        return dropped

    def _take(self, event: bytes | Oversize | BadFraming) -> None:
        self.messages += 1
        if isinstance(event, Oversize):
            self._send(self._refusal(envelope.invalid_response()))
            return
        if isinstance(event, BadFraming):
            self._send(self._refusal(envelope.parse_error_response()))
            return
        try:
            text = event if self._translate is None else self._translate(event)
            message = strict_json.parse(text, self._max_depth)
        except strict_json.NotJson:
            self._send(self._refusal(envelope.parse_error_response()))
            return
        except strict_json.NotAcceptable as refused:
            message = refused.value
        members = envelope.split(message, self._max_batch)
        if isinstance(members, list):
            batch = _Batch(len(members), self._send)
            for position, member in enumerate(members):
                self._admit(member, batch.seat(position))
        else:
            self._admit(members, self._send)

    def _admit(self, member: Call | Invalid, respond: Callable[[bytes | None], None]) -> None:
        if isinstance(member, Invalid):
            respond(self._refusal(envelope.invalid_response(member.id)))
            return
        if member.method == CANCEL and not member.has_id:
            self._cancel_by(member.params)
            respond(None)
            return
        is_report = member.method in self._slow
        context = Context(self._dispatcher, member, self._counted(respond, is_report), self._mark)
        if is_report and (self._parked or self._reports >= self._queue):
            self._parked.append(context)
        else:
            self._serve(context)

    def _refusal(self, response: dict[str, Any]) -> bytes:
        response["error"]["data"].update(self._mark)
        return strict_json.dump(response)

    def _serve(self, context: Context) -> None:
        call = context.call
        self._count(1, call.method in self._slow)
        params = call.params if call.params is None else strict_json.plain(call.params)
        outcome = self._dispatcher.dispatch(call.method, params, context)
        if outcome is not PENDING:
            context.settle(outcome)

    def _cancel_by(self, params: Any) -> None:
        if not isinstance(params, dict) or "id" not in params:
            return
        id = params["id"]
        if not (id is None or type(id) in (str, int, strict_json.Number)):
            return
        name = (envelope.id_key(id),)
        for context in [c for c in self._parked if c.name == name]:
            self._parked.remove(context)
            self._count(1, True)
            context.settle(never_admitted("request_cancelled"))
        self._cancel(name)

    # --- the writer's side -------------------------------------------------------------------

    def _counted(
        self, respond: Callable[[bytes | None], None], is_report: bool
    ) -> Callable[[bytes | None], None]:
        def settle(payload: bytes | None) -> None:
            respond(payload)
            self._count(-1, is_report)

        return settle

    def _count(self, change: int, is_report: bool) -> None:
        with self._lock:
            self._open += change
            if is_report:
                self._reports += change
        if change < 0 and (self._parked or self._open == 0 or self._is_near_full):
            self._wake()

    def _send(self, payload: bytes | None) -> None:
        if payload is None:
            return
        if self._render is not None:
            payload = self._render(payload)
        with self._lock:
            self._unwritten += 1
        self._writer.put(self.framer.frame(payload), self._on_written)

    def _on_written(self) -> None:
        with self._lock:
            self._unwritten -= 1
        if self._is_near_full or self._writer.backlog_bytes > 0:
            self._wake()

    @property
    def _is_near_full(self) -> bool:
        others = self._open - self._reports + self._unwritten
        return max(others, self._reports) + 1 >= self._queue


class _Batch:
    """Collects the answers of a batch and sends them together, in the order of the members."""

    def __init__(self, size: int, send: Callable[[bytes | None], None]) -> None:
        self._lock = threading.Lock()
        self._parts: list[bytes | None] = [None] * size
        self._missing = size
        self._send = send

    def seat(self, position: int) -> Callable[[bytes | None], None]:
        def settle(payload: bytes | None) -> None:
            with self._lock:
                self._parts[position] = payload
                self._missing -= 1
                if self._missing:
                    return
            parts = [part for part in self._parts if part is not None]
            if parts:
                self._send(b"[" + b",".join(parts) + b"]")

        return settle


def never_admitted(kind: str) -> Failure:
    """The answer to a report that was read and let go before anything was done about it.

    Args:
        kind: Row of the table of errors, such as ``shutting_down``.
    """
    row = wire_row(kind)
    assert row.code is not None
    data = {
        "kind": kind,
        "outcome": row.outcome,
        "retryable": row.retryable,
        "attempts": 0,
        "replayed": False,
        "durable": False,
    }
    return Failure(row.code, row.message, data)
