"""One conversation: bytes from the reader to calls, answers to the outlet, and admission between.

Joins `wire` and `rpc`; knows nothing of what the methods do. At most `queue` reports are admitted and
unanswered, those included whose answers nobody has read: what was read beyond that is parked, and nothing
more is read until there is room. A full queue alone stops nothing, so that cancels and questions are still
heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bridge.core import strict_json
from bridge.core.errors import BridgeError, rule
from bridge.engine import Engine, Outlet
from bridge.reports.verdict import answer_ending, local_ending
from bridge.rpc import envelope
from bridge.rpc.dispatcher import PENDING, Dispatcher
from bridge.rpc.envelope import Call, Invalid
from bridge.wire.framing import HEADER, BadFraming, Framer, Oversize

if TYPE_CHECKING:
    from bridge.server.methods import Methods

CANCEL: Final = "$/cancelRequest"
ENDINGS: Final = {("shutdown", True), ("exit", False)}
"""What language clients end a server with, and whether it has an id; only in their header framing."""
MOST_BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""Nothing is taken while more than this waits for the client to read its answers."""

Respond = Callable[[bytes | None], object]
"""Takes the answer to one call, or None if there is none."""
Answered = Callable[["Context", bytes | None], object]
"""The same with the call that it is about."""


class Context:
    """One call that is being served; it is answered exactly once, perhaps later."""

    __slots__ = ("_dispatcher", "_respond", "call", "is_taken", "received_at")

    def __init__(self, dispatcher: Dispatcher, call: Call, respond: Answered, received_at: float) -> None:
        self.call = call
        self.received_at = received_at
        """When it was read, on the boot clock: a wait for room, a key or the ledger uses up its window."""
        self._dispatcher = dispatcher
        self._respond: Answered | None = respond
        self.is_taken = False
        """True once what was asked for is a report under way, and ends as that does."""

    @property
    def is_settled(self) -> bool:
        """True once it is answered."""
        return self._respond is None

    @property
    def name(self) -> Any:
        """Comparable form of the id, for cancellation; None for a notification."""
        return (envelope.id_key(self.call.id),) if self.call.has_id else None

    def serve(self) -> None:
        """Call the method, and answer the call unless the method will."""
        call = self.call
        try:
            outcome = self._dispatcher.dispatch(call.method, strict_json.plain(call.params), self)
        except Exception as bug:
            outcome = bug
        if outcome is not PENDING:
            self.settle(outcome)

    def settle(self, value: Any) -> None:
        """Answer the call with a result, with a `BridgeError`, or with what else was raised: a bug.

        Who is late is not heard: it was let go before.
        """
        if self._respond is None:
            return
        payload, mark = None, self._dispatcher.mark
        try:
            if isinstance(value, Exception):
                error = value if isinstance(value, BridgeError) else self._dispatcher.fail(value)
                response = envelope.error_response(self.call.id, error, mark)
            else:
                # What describes the protocol is a document of its own.
                if mark and not self.call.method.startswith("rpc."):
                    value = {**value, **mark}
                response = envelope.success_response(self.call.id, value)
            if self.call.has_id:
                payload = strict_json.dump(response)
        except Exception as bug:
            self.settle(bug)
        else:
            respond, self._respond = self._respond, None
            respond(self, payload)


class Conversation:
    """Serves one client.

    Args:
        methods: What is served, within which limits.
        changed: Called whenever an answer was given.
        render: Turns an answer into what a person reads; None on the wire.
    """

    def __init__(
        self,
        engine: Engine,
        methods: Methods,
        framer: Framer,
        sink: Outlet,
        changed: Callable[[], object],
        render: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._engine = engine
        self._methods = methods
        self._dispatcher = methods.dispatcher
        self._queue: int = methods.limits["queue"]
        self.framer = framer
        self._sink = sink
        self._changed = changed
        self._render = render
        self._open: dict[Context, None] = {}
        """Calls that were read and not answered yet."""
        self._unanswered_reports = 0
        """Reports among them, those included that are parked."""
        self._parked: deque[Context] = deque()
        self._untaken: deque[bytes | Oversize | BadFraming] = deque()
        """What was read while the client did not read its answers."""
        self._has_exited = False

    @property
    def is_over(self) -> bool:
        """True once the client has said that nothing more comes, or the stream is beyond repair."""
        return self._has_exited or self.framer.failed

    @property
    def unanswered(self) -> int:
        """Calls that were read and not answered yet."""
        return len(self._open)

    @property
    def is_idle(self) -> bool:
        """True if everything that was read is answered."""
        return not self._open and not self._untaken

    # --- reading -----------------------------------------------------------------------------

    def has_room(self) -> bool:
        """True if more may be read."""
        return (
            not self._parked
            and not self._untaken
            and len(self._open) - self._unanswered_reports + self._sink.backlog < self._queue
            and self._sink.backlog_bytes < MOST_BACKLOG_BYTES
        )

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        self._untaken += self.framer.feed(data)
        self.go_on()

    def end(self) -> None:
        """Take the end of the stream."""
        if not self.is_over:
            self._untaken += self.framer.end()
            self.go_on()

    def go_on(self) -> None:
        """Go on with what was read, as far as there is room; to be called when there may be more."""
        while self._parked and self._reports_beyond(len(self._parked)) < self._queue:
            self._parked.popleft().serve()
        while self._untaken and self._sink.backlog_bytes < MOST_BACKLOG_BYTES:
            self._take(self._untaken.popleft())
        self._changed()

    def _reports_beyond(self, others: int) -> int:
        """Reports that are unanswered, or whose answers nobody has read, but so many of them."""
        return self._unanswered_reports - others + self._sink.backlog

    def give_up(self) -> int:
        """Answer at the end what waits for room, a key or the ledger; returns how many reports those were."""
        while self._untaken:
            self._take(self._untaken.popleft())
        dropped = self._let_go("shutting_down")
        for context in [context for context in self._open if not context.is_taken]:
            context.settle(BridgeError("ledger_unavailable"))
        return dropped

    def _let_go(self, kind: str, name: Any = None) -> int:
        """Answer what was not begun yet: all reports, or whatever has a name; returns how many.

        Args:
            kind: Row of the table of errors, such as ``shutting_down``.
        """
        reports = self._methods.reports
        # To resume a pause changes something, and is not known to have been left undone.
        waiting = [each for each in self._open if not each.is_taken and each.call.method != "bridge.resume"]
        leaving = [each for each in waiting if name in (None, each.name)]
        if name is None:
            leaving = [each for each in leaving if each.call.method in reports]
        for each in leaving:
            is_report = each.call.method in reports
            each.settle(answer_ending(local_ending(kind)) if is_report else BridgeError(kind))
        self._parked = deque(context for context in self._parked if not context.is_settled)
        return len(leaving)

    def _take(self, text: bytes | Oversize | BadFraming) -> None:
        if self._has_exited:
            return
        if isinstance(text, Oversize):
            self._send(self._refuse(BridgeError("invalid_request", rule("message_too_large"))))
            return
        if isinstance(text, BadFraming):
            self._send(self._refuse(BridgeError("parse_error", rule(f"framing_{text.reason}"))))
            return
        try:
            message = strict_json.parse(text, self._methods.limits["maxDepth"])
        except strict_json.NotJson:
            self._send(self._refuse(BridgeError("parse_error")))
            return
        except strict_json.NotAcceptable as refused:
            message = refused.value
        members = envelope.split(message, self._methods.limits["maxBatch"])
        if isinstance(members, list):
            batch = _Batch(len(members), self._send)
            for position, member in enumerate(members):
                self._admit(member, partial(batch.settle, position))
        else:
            self._admit(members, self._send)

    def _admit(self, member: Call | Invalid, respond: Respond) -> None:
        if isinstance(member, Invalid):
            respond(self._refuse(BridgeError("invalid_request", rule(member.rule)), member.id))
            return
        method = member.method
        if method == CANCEL and not member.has_id:
            self._cancel_by(member.params)
            respond(None)
            return
        if self.framer.framing == HEADER and (method, member.has_id) in ENDINGS:
            self._has_exited = not member.has_id
            answer = envelope.success_response(member.id, None)
            respond(strict_json.dump(answer) if member.has_id else None)
            return
        is_report = method in self._methods.reports
        self._unanswered_reports += is_report
        context = Context(self._dispatcher, member, partial(self._answered, respond), self._engine.now())
        self._open[context] = None
        if is_report and (self._parked or self._reports_beyond(1) >= self._queue):
            self._parked.append(context)
        else:
            context.serve()

    def _refuse(self, error: BridgeError, id: envelope.Id = None) -> bytes:
        return strict_json.dump(envelope.error_response(id, error, self._dispatcher.mark))

    def _cancel_by(self, params: Any) -> None:
        if isinstance(params, dict) and type(params.get("id", params)) in envelope.ID_TYPES:
            name = (envelope.id_key(params["id"]),)
            self._let_go("request_cancelled", name)
            self._methods.cancel(name)

    # --- serving -----------------------------------------------------------------------------

    def _answered(self, respond: Respond, context: Context, payload: bytes | None) -> None:
        respond(payload)
        del self._open[context]
        self._unanswered_reports -= context.call.method in self._methods.reports
        if self._parked:
            self._engine.call_soon(self.go_on)
        self._changed()

    def _send(self, payload: bytes | None) -> None:
        if payload is None:
            return
        if self._render is not None:
            payload = self._render(payload)
        self._sink.put(self.framer.frame(payload))


class _Batch:
    """Collects the answers of a batch and sends them together, in the order of the members."""

    def __init__(self, size: int, send: Respond) -> None:
        self._parts: list[bytes | None] = [None] * size
        self._missing = size
        self._send = send

    def settle(self, position: int, payload: bytes | None) -> None:
        self._parts[position] = payload
        self._missing -= 1
        if not self._missing:
            parts = [part for part in self._parts if part is not None]
            if parts:
                self._send(b"[" + b",".join(parts) + b"]")
