"""When to stop sending: pauses, probes and single-flight, as pure decisions.

The ledger calls `PausePolicy` inside the transaction that begins or records an attempt and stores
what it returns. The rules are rows of ``schemas/errors.json``; ``proof`` is the one rule that has
no row: a key that never had a verdict is treated like a pause that is always due for a probe, which
is what makes attempts for it single-flight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from bridge.core.errors import PauseRule, pause_rules
from bridge.core.model import (
    CLOSED,
    NOT_SENT,
    OPEN,
    PROBING,
    REFUSED,
    UNKNOWN,
    Ending,
    Gate,
    PauseEvent,
    PauseKey,
    PauseState,
    Row,
    Task,
    Verdict,
    Window,
)
from bridge.reports.advice import tally
from bridge.reports.window import ends_at, starts_by

PROOF: Final = "proof"
"""Rule name of single-flight for keys without a verdict."""
_DISPROVING: Final = frozenset({"key_refused", "key_balance", "address_not_allowed", "address_blocked"})
"""Rules fed by the verdicts that do not prove a key: errorId 1, 55, 10, 11, 21."""
_FOREVER: Final = float("inf")
_MOST_REMEMBERED: Final = 1024
"""Accounts and methods whose keys are kept: making them anew costs a tenth of a report."""

_BEGUN: Final[tuple[Gate, tuple[PauseState, ...], tuple[PauseEvent, ...]]] = (Gate("begun"), (), ())

Changes = tuple[tuple[PauseState, ...], tuple[PauseEvent, ...]]


class PausePolicy:
    """Decides whether an attempt may begin and what an attempt's end does to the pauses.

    Args:
        machine: Identity of this machine; address and transport pauses are about it.
        context: Fingerprint of url, proxy and CA; a change lifts pauses caused by them.
        enabled: False turns all pauses and single-flight off.

    Thread safety: any thread may call anything.
    """

    def __init__(self, machine: str, context: str = "", enabled: bool = True) -> None:
        self.machine = machine
        self.context = context
        self.enabled = enabled
        self._rules: Mapping[str, PauseRule] = pause_rules()
        self.tally = tally
        """What a report that has ended adds to the counts."""
        self._known: dict[tuple[str, str], tuple[tuple[PauseKey, ...], dict[str, list[PauseKey]]]] = {}

    # --- which pauses concern an attempt -----------------------------------------------------

    def keys(self, task: Task, method: str) -> tuple[PauseKey, ...]:
        """The pauses that concern an attempt for this task with this method."""
        return (self._known.get((task.account, method)) or self._find(task, method))[0]

    def subjects(self, task: Task, method: str) -> Mapping[str, Collection[PauseKey]]:
        """The same by what they are about."""
        return (self._known.get((task.account, method)) or self._find(task, method))[1]

    def _find(self, task: Task, method: str) -> tuple[tuple[PauseKey, ...], dict[str, list[PauseKey]]]:
        keys: tuple[PauseKey, ...] = ()
        if self.enabled:
            parts = {"account": task.account, "machine": self.machine, "method": method}
            named = (PauseKey(rule.name, _join(rule, parts)) for rule in self._rules.values())
            keys = (PauseKey(PROOF, task.account), *named)
        subjects: dict[str, list[PauseKey]] = {}
        for key in keys:
            subjects.setdefault(key.subject, []).append(key)
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        known = self._known[task.account, method] = keys, subjects
        return known

    def scope(self, state: PauseState) -> str:
        """The scope shown on the wire; ``proof`` for single-flight, which is not shown."""
        rule = self._rules.get(state.key.rule)
        return PROOF if rule is None else rule.scope

    def parts(self, key: PauseKey) -> tuple[tuple[str, str], ...]:
        """What a pause is about, for people: some of ``account`` (8 digits) and ``method``."""
        rule = self._rules.get(key.rule)
        values = {} if rule is None else dict(zip(rule.per, key.subject.split("/"), strict=False))
        shown = [("account", values["account"][:8])] if "account" in values else []
        return (*shown, *([("method", values["method"])] if "method" in values else []))

    # --- may an attempt begin? ---------------------------------------------------------------

    def gate(
        self,
        now: float,
        task: Task,
        method: str,
        owner: str,
        states: Mapping[PauseKey, PauseState],
        window: Window,
    ) -> tuple[Gate, tuple[PauseState, ...], tuple[PauseEvent, ...]]:
        """Decide whether an attempt may begin now.

        Returns:
            The gate, the states to store, and the events. A due pause turns to ``probing`` with this
            report as its probe, but only if nothing else holds the attempt back.
        """
        if self._is_calm(states):
            return _BEGUN
        probe = task_name(task)
        mended: list[PauseState] = []
        lifted: list[PauseState] = []
        due: list[PauseState] = []
        waiting: PauseState | None = None
        paused: PauseState | None = None
        for key in self.keys(task, method):
            state = states.get(key)
            if state is None and key.rule == PROOF:
                state = _default(key)
            if state is None or state.state == CLOSED:
                continue
            told, state = state, self.mend_times(now, state)
            if state is not told:
                mended.append(state)
            if self._is_lifted(state):
                lifted.append(PauseState(key))
            elif state.state == PROBING:
                if (state.probe_owner, state.probe_task) != (owner, probe):
                    waiting = waiting or state
            elif state.ends_at is None or now < state.ends_at:
                if paused is None or _end(state) > _end(paused):
                    paused = state
            else:
                due.append(state)
        closed = (*mended, *lifted), tuple(PauseEvent("pause_closed", state) for state in lifted)
        if paused is not None:
            return Gate("paused", pause=paused, until=paused.ends_at), *closed
        if waiting is not None:
            return Gate("busy", pause=waiting), *closed
        probing = tuple(s._replace(state=PROBING, probe_owner=owner, probe_task=probe) for s in due)
        events = tuple(PauseEvent("pause_probing", s) for s in probing if s.key.rule != PROOF)
        return Gate("begun"), (*closed[0], *probing), (*closed[1], *events)

    def mend_times(self, now: float, state: PauseState) -> PauseState:
        """A pause without what a wrong clock did to it: opened by now, no longer than its rule's longest.

        What was written in another boot may lie in the future of this one.
        """
        rule = self._rules.get(state.key.rule)
        if state.ends_at is None:
            return state
        if rule is None or rule.max_s is None:
            # Due in any case: single-flight pauses nobody, and what waits for a person ends when resumed.
            return state if state.ends_at <= now else state._replace(ends_at=now)
        opened_at = now if state.opened_at is None else min(state.opened_at, now)
        length_s = state.ends_at - (opened_at if state.opened_at is None else state.opened_at)
        ends_at = min(state.ends_at, now + rule.max_s, opened_at + max(length_s, 0.0))
        if ends_at == state.ends_at and (state.opened_at is None or opened_at == state.opened_at):
            return state
        return state._replace(opened_at=opened_at, ends_at=ends_at)

    @staticmethod
    def _is_calm(states: Mapping[PauseKey, PauseState]) -> bool:
        """True if nothing is known but that the key is proven, as nearly always."""
        if len(states) != 1:
            return False
        (state,) = states.values()
        return state.key.rule == PROOF and state.state == CLOSED

    def _is_lifted(self, state: PauseState) -> bool:
        rule = self._rules.get(state.key.rule)
        return rule is not None and rule.lifted_by_context and state.context != self.context

    # --- what an attempt's end teaches -------------------------------------------------------

    def learn(
        self,
        now: float,
        task: Task,
        method: str,
        owner: str,
        began_at: float,
        verdict: Verdict,
        states: Mapping[PauseKey, PauseState],
    ) -> Changes:
        """Decide what the end of an attempt does to the pauses that concern it.

        A verdict of an attempt that began before a pause opened neither lengthens nor closes it:
        only the probe does.
        """
        feeds_nothing = verdict.pause is None and verdict.has_status
        if feeds_nothing and self._is_calm(states):
            return (), ()
        changed: list[PauseState] = []
        events: list[PauseEvent] = []
        holder = (owner, task_name(task))
        for key in self.keys(task, method):
            state = states.get(key)
            if state is None:
                if feeds_nothing and key.rule != PROOF:
                    continue  # closed and without a streak: nothing can come of it
                state = _default(key)
            is_probe = state.state == PROBING and (state.probe_owner, state.probe_task) == holder
            rule = self._rules.get(key.rule)
            if rule is None:
                after = self._prove(now, state, is_probe, verdict)
            elif _feeds(rule, verdict, is_probe):
                after = self._feed(now, task, rule, state, is_probe, verdict)
            else:
                after = self._clear(now, rule, state, is_probe, verdict)
            if after == state:
                continue
            changed.append(after)
            if after.state == OPEN and (state.state == CLOSED or after.level != state.level or is_probe):
                if after.cause is not None:
                    events.append(PauseEvent("pause_opened", after))
            elif after.state == CLOSED and state.state != CLOSED:
                # Also for a key that is proven now: reports that wait for that may go on.
                events.append(PauseEvent("pause_closed", after))
        return tuple(changed), tuple(events)

    def _prove(self, now: float, state: PauseState, is_probe: bool, verdict: Verdict) -> PauseState:
        if state.state == CLOSED:
            return state
        if verdict.has_verdict and verdict.pause not in _DISPROVING:
            return PauseState(state.key)
        return self.release(now, state) if is_probe else state

    def _feed(
        self, now: float, task: Task, rule: PauseRule, state: PauseState, is_probe: bool, verdict: Verdict
    ) -> PauseState:
        if is_probe:
            return self._open(now, rule, state, state.level + 1, verdict)
        if state.state != CLOSED:
            return state
        if rule.threshold > 1 and rule.consecutive:
            if state.streak + 1 < rule.threshold:
                return state._replace(streak=state.streak + 1)
        elif rule.threshold > 1:
            window_s = rule.window_s or _FOREVER
            name = task_name(task)
            kept = (seen for seen in state.recent if 0.0 <= now - seen[0] < window_s and seen[1] != name)
            recent = (*kept, (now, name))
            if len(recent) < rule.threshold:
                return state._replace(recent=recent)
        return self._open(now, rule, state, 0, verdict)

    def _clear(
        self, now: float, rule: PauseRule, state: PauseState, is_probe: bool, verdict: Verdict
    ) -> PauseState:
        speaks = verdict.has_status if rule.name == "transport" else _is_definite(verdict)
        if is_probe:
            return PauseState(state.key) if speaks else self.release(now, state)
        if state.state == CLOSED and state.streak and rule.consecutive and speaks:
            return PauseState(state.key)
        return state

    def _open(
        self, now: float, rule: PauseRule, state: PauseState, level: int, verdict: Verdict
    ) -> PauseState:
        ends: float | None = None
        if rule.first_s is not None and rule.max_s is not None:
            length_s = min(rule.max_s, rule.first_s * rule.factor ** min(level, 64))
            if rule.name == "address_rate" and verdict.retry_after_s is not None:
                length_s = min(rule.max_s, max(length_s, verdict.retry_after_s))
            ends = now + length_s
        return PauseState(
            state.key,
            OPEN,
            cause=verdict.event,
            level=level,
            opened_at=now,
            ends_at=ends,
            context=self.context,
        )

    # --- the rest ----------------------------------------------------------------------------

    def release(self, now: float, state: PauseState) -> PauseState:
        """What becomes of a pause whose probe ended without saying anything: due again."""
        return state._replace(state=OPEN, ends_at=now, probe_owner=None, probe_task=None)

    def resume(self, now: float, state: PauseState, scope: str | None) -> PauseState | None:
        """Make an open pause of the given scope (None: any) due for a probe; None if it is not meant.

        The doubling is kept. The probe is single-flight, so a resumed key is unproven again.
        """
        rule = self._rules.get(state.key.rule)
        if rule is None or state.state != OPEN or (scope is not None and rule.scope != scope):
            return None
        return state._replace(ends_at=now)

    def ends_at(self, window: Window, retrying: bool) -> float:
        """When the window is over; see `bridge.reports.window.ends_at`."""
        return ends_at(window, retrying)

    def is_late(self, now: float, window: Window, retrying: bool) -> bool:
        """True if no attempt may start any more; see `bridge.reports.window.starts_by`."""
        return now > starts_by(window, retrying)

    def settle_dead(self, row: Row) -> Ending:
        """The ending of a report that nobody could resume inside its window."""
        if row.perhaps or row.state == "sending":
            return Ending(UNKNOWN, -32002, "outcome_unknown")
        return Ending(NOT_SENT, -32010, "window_closed")


def is_transport_probe(event: PauseEvent) -> bool:
    """True if an attempt that begins is to show whether the upstream can be reached at all."""
    return event.name == "pause_probing" and event.state.key.rule == "transport"


def task_name(task: Task) -> str:
    """The name by which a probe's report is known to other bridges."""
    return f"{task.account}/{task.task_id}"


def _default(key: PauseKey) -> PauseState:
    if key.rule == PROOF:
        return PauseState(key, OPEN, ends_at=0.0)
    return PauseState(key)


def _join(rule: PauseRule, parts: Mapping[str, str]) -> str:
    return "/".join(parts[name] for name in rule.per)


def _end(state: PauseState) -> float:
    return _FOREVER if state.ends_at is None else state.ends_at


def _feeds(rule: PauseRule, verdict: Verdict, is_probe: bool) -> bool:
    """True if the attempt's end counts towards the rule."""
    if rule.name == "transport":
        return not verdict.has_status and verdict.kind != "window_closed"
    if verdict.pause != rule.name:
        return False
    # Only certain refusals count as wrong answers; a probe that may be one stays on the safe side.
    return rule.name != "quality" or verdict.outcome == REFUSED or is_probe


def _is_definite(verdict: Verdict) -> bool:
    """True if the upstream said yes or no, by verdict or by an HTTP refusal."""
    if verdict.has_verdict:
        return True
    status = verdict.http_status
    return verdict.next == "done" and status is not None and 300 <= status < 500
