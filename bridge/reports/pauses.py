"""When to stop sending: pauses, probes and single-flight, as pure decisions.

The ledger calls `PausePolicy` inside the transaction that begins or records an attempt and stores
what it returns. The rules are rows of ``schemas/errors.json``; ``proof`` is the one rule that has
no row: a key that never had a verdict is treated like a pause that is always due for a probe, which
is what makes attempts for it single-flight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

from bridge.core import model
from bridge.core.errors import PauseRule, pause_rules
from bridge.core.model import CLOSED, OPEN, PROBING, REFUSED, PauseEvent, PauseKey, PauseState, Task, Verdict
from bridge.core.text import rfc3339
from bridge.reports import advice
from bridge.reports import window as windows
from bridge.reports.verdict import local_ending

PROOF: Final = "proof"
"""Rule name of single-flight for keys without a verdict."""
_DISPROVING: Final = frozenset({"key_refused", "key_balance", "address_not_allowed", "address_blocked"})
"""Rules fed by the verdicts that do not prove a key: errorId 1, 55, 10, 11, 21."""
_MOST_REMEMBERED: Final = 1024
"""Accounts and methods whose keys are kept: making them anew costs a tenth of a report."""

_BEGUN: Final = model.Gate("begun")

States = Mapping[PauseKey, PauseState]
Changes = tuple[tuple[PauseState, ...], tuple[PauseEvent, ...]]


class PausePolicy:
    """Decides whether an attempt may begin and what an attempt's end does to the pauses.

    Args:
        machine: Identity of this machine; address and transport pauses are about it.
        context: Fingerprint of url, proxy and CA; a change lifts pauses caused by them.
        enabled: False turns all pauses and single-flight off.

    Thread safety: any thread may call anything.
    """

    tally = staticmethod(advice.tally)
    ends_at = staticmethod(windows.ends_at)

    def __init__(self, machine: str, context: str = "", enabled: bool = True) -> None:
        self.machine = machine
        self.context = context
        self.enabled = enabled
        self._rules = pause_rules()
        self._known = lru_cache(_MOST_REMEMBERED)(self._find)

    # --- which pauses concern an attempt -----------------------------------------------------

    def keys(self, task: Task, method: str) -> tuple[PauseKey, ...]:
        """The pauses that concern an attempt for this task with this method."""
        return self._known(task.account, method)[0]

    def subjects(self, task: Task, method: str) -> Mapping[str, Collection[PauseKey]]:
        """The same by what they are about."""
        return self._known(task.account, method)[1]

    def _find(self, account: str, method: str) -> tuple[tuple[PauseKey, ...], dict[str, list[PauseKey]]]:
        parts = {"account": account, "machine": self.machine, "method": method}
        rules = [(PROOF, ("account",)), *((rule.name, rule.per) for rule in self._rules.values())]
        keys = [PauseKey(rule, "/".join(parts[part] for part in per)) for rule, per in rules if self.enabled]
        subjects: dict[str, list[PauseKey]] = {}
        for key in keys:
            subjects.setdefault(key.subject, []).append(key)
        return tuple(keys), subjects

    # --- what people are shown ---------------------------------------------------------------

    def parts(self, key: PauseKey) -> tuple[tuple[str, str], ...]:
        """What a pause is about, for people: some of ``account`` (8 digits) and ``method``."""
        rule = self._rules.get(key.rule)
        values = {} if rule is None else dict(zip(rule.per, key.subject.split("/"), strict=False))
        if "account" in values:
            values["account"] = values["account"][:8]
        return tuple((name, values[name]) for name in ("account", "method") if name in values)

    def show(self, state: PauseState, to_wall: float) -> dict[str, Any]:
        """A pause as the wire shows it.

        Args:
            to_wall: What makes UNIX time of a moment of the timeline.
        """
        opened_at, ends_at = state.opened_at, state.ends_at
        rule = self._rules.get(state.key.rule)
        return {
            "scope": PROOF if rule is None else rule.scope,
            "cause": state.cause,
            "openedAt": None if opened_at is None else rfc3339(opened_at + to_wall),
            "endsAt": None if ends_at is None else rfc3339(ends_at + to_wall),
            "manual": ends_at is None,
        }

    # --- may an attempt begin? ---------------------------------------------------------------

    def gate(
        self, now: float, task: Task, method: str, owner: str, states: States
    ) -> tuple[model.Gate, *Changes]:
        """Decide whether an attempt may begin now.

        Returns:
            The gate, the states to store, and the events. A due pause turns to ``probing`` with this
            report as its probe, but only if nothing else holds the attempt back.
        """
        if self._is_calm(states):
            return _BEGUN, (), ()
        probe = task_name(task)
        changed: list[PauseState] = []
        events: list[PauseEvent] = []
        holding: list[PauseState] = []
        due: list[PauseState] = []
        waiting: PauseState | None = None
        for key in self.keys(task, method):
            told = states.get(key) or _default(key)
            if told.state == CLOSED:
                continue
            state = self.mend_times(now, told)
            if state is not told:
                changed.append(state)
            rule = self._rules.get(key.rule)
            if rule is not None and rule.lifted_by_context and state.context != self.context:
                changed.append(PauseState(key))
                events.append(PauseEvent("pause_closed", PauseState(key)))
            elif state.state == PROBING:
                if (state.probe_owner, state.probe_task) != (owner, probe):
                    waiting = waiting or state
            elif state.ends_at is None or now < state.ends_at:
                holding.append(state)
            else:
                due.append(state._replace(state=PROBING, probe_owner=owner, probe_task=probe))
        if holding:
            paused = max(holding, key=end_of)
            gate = model.Gate("paused", pause=paused, until=paused.ends_at)
        elif waiting is not None:
            gate = model.Gate("busy", pause=waiting)
        else:
            gate = _BEGUN
            changed += due
            events += (PauseEvent("pause_probing", state) for state in due if state.key.rule != PROOF)
        return gate, tuple(changed), tuple(events)

    def mend_times(self, now: float, state: PauseState) -> PauseState:
        """A pause without what a wrong clock did to it: opened by now, no longer than its rule's longest.

        What was written in another boot may lie in the future of this one.
        """
        if state.ends_at is None:
            return state
        rule = self._rules.get(state.key.rule)
        # Without a longest it is due in any case: single-flight pauses nobody, a person has resumed the rest.
        most_s = 0.0 if rule is None else rule.max_s or 0.0
        told_at = now if state.opened_at is None else state.opened_at
        opened_at = min(told_at, now)
        ends_at = min(state.ends_at, now + most_s, opened_at + max(state.ends_at - told_at, 0.0))
        if (opened_at, ends_at) == (told_at, state.ends_at):
            return state
        return state._replace(opened_at=opened_at, ends_at=ends_at)

    @staticmethod
    def _is_calm(states: States) -> bool:
        """True if nothing is known but that the key is proven, as nearly always."""
        if len(states) != 1:
            return False
        (state,) = states.values()
        return state.key.rule == PROOF and state.state == CLOSED

    # --- what an attempt's end teaches -------------------------------------------------------

    def learn(
        self, now: float, task: Task, method: str, owner: str, verdict: Verdict, states: States
    ) -> Changes:
        """Decide what the end of an attempt does to the pauses that concern it.

        A verdict of an attempt that began before a pause opened neither lengthens nor closes it:
        only the probe does.
        """
        if verdict.pause is None and verdict.has_status and self._is_calm(states):
            return (), ()
        changed: list[PauseState] = []
        events: list[PauseEvent] = []
        name = task_name(task)
        for key in self.keys(task, method):
            state = states.get(key) or _default(key)
            is_probe = state.state == PROBING and (state.probe_owner, state.probe_task) == (owner, name)
            rule = self._rules.get(key.rule)
            if rule is not None and _feeds(rule, verdict, is_probe):
                after = self._feed(now, name, rule, state, is_probe, verdict)
            elif _clears(rule, state, is_probe, verdict):
                after = PauseState(key)
            else:
                after = self.release(now, state) if is_probe else state
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

    def _feed(
        self, now: float, name: str, rule: PauseRule, state: PauseState, is_probe: bool, verdict: Verdict
    ) -> PauseState:
        """The pause after an event that counts towards its rule."""
        if is_probe:
            return self._open(now, rule, state.key, state.level + 1, verdict)
        if state.state != CLOSED:
            return state
        if rule.consecutive:
            if state.streak + 1 < rule.threshold:
                return state._replace(streak=state.streak + 1)
        else:
            window_s = rule.window_s or float("inf")
            kept = (seen for seen in state.recent if 0.0 <= now - seen[0] < window_s and seen[1] != name)
            recent = (*kept, (now, name))
            if len(recent) < rule.threshold:
                return state._replace(recent=recent)
        return self._open(now, rule, state.key, 0, verdict)

    def _open(self, now: float, rule: PauseRule, key: PauseKey, level: int, verdict: Verdict) -> PauseState:
        ends_at: float | None = None
        if rule.first_s is not None and rule.max_s is not None:
            length_s = rule.first_s * rule.factor ** min(level, 64)
            if rule.name == "address_rate":
                length_s = max(length_s, verdict.retry_after_s or 0.0)
            ends_at = now + min(rule.max_s, length_s)
        return PauseState(
            key,
            OPEN,
            cause=verdict.event,
            level=level,
            opened_at=now,
            ends_at=ends_at,
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

    def is_late(self, now: float, window: model.Window, retrying: bool) -> bool:
        """True if no attempt may start any more; see `bridge.reports.window.starts_by`."""
        return now > windows.starts_by(window, retrying)

    def settle_dead(self, row: model.Row) -> model.Ending:
        """The ending of a report that nobody could resume inside its window."""
        if row.perhaps or row.state == "sending":
            return local_ending("outcome_unknown")
        return local_ending("window_closed")


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


def end_of(state: PauseState) -> float:
    """When a pause ends by itself, if it does."""
    return float("inf") if state.ends_at is None else state.ends_at


def _feeds(rule: PauseRule, verdict: Verdict, is_probe: bool) -> bool:
    """True if the attempt's end counts towards the rule."""
    if verdict.pause != rule.name:
        return False
    # Only certain refusals count as wrong answers; a probe that may be one stays on the safe side.
    return rule.name != "quality" or verdict.outcome == REFUSED or is_probe


def _clears(rule: PauseRule | None, state: PauseState, is_probe: bool, verdict: Verdict) -> bool:
    """True if the attempt's end, which does not count towards the rule, ends its pause or its run."""
    if rule is None:
        return state.state != CLOSED and verdict.has_verdict and verdict.pause not in _DISPROVING
    is_run = rule.consecutive and state.state == CLOSED and state.streak
    # What its own event says without counting, a 16 that may be an acceptance, leaves a run as it is.
    if not is_probe and (not is_run or verdict.pause == rule.name):
        return False
    if rule.name == "transport":
        return verdict.has_status
    # The upstream has said yes or no, by a verdict or by an HTTP refusal.
    is_refusal = verdict.next == "done" and 300 <= (verdict.http_status or 0) < 500
    return verdict.has_verdict or is_refusal
