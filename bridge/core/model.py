"""The values that cross module borders: a task, an exchange, a verdict, a row, an operation.

Nothing here decides or does anything. Everything is immutable. Imported by every layer.
Times named ``*_at`` or ``*_s`` are seconds: ``now``-like instants are on the ledger's timeline
(see `bridge.engine.core`), ``*_wall`` instants are UNIX time, ``*_s`` are lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

# --- outcomes and states ---------------------------------------------------------------------

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
UNKNOWN: Final = "unknown"
NOT_SENT: Final = "not_sent"
OUTCOMES: Final = (ACCEPTED, REFUSED, UNKNOWN, NOT_SENT)

QUEUED: Final = "queued"
SENDING: Final = "sending"
WAITING: Final = "waiting"
DONE: Final = "done"

TRANSITIONS: Final[Mapping[str, Mapping[str | None, tuple[str, ...]]]] = {
    # event -> {state before: states after}; None is "no row".
    "claimed": {None: (QUEUED,), DONE: (QUEUED,)},
    "begun": {QUEUED: (SENDING,), WAITING: (SENDING,)},
    "deferred": {SENDING: (WAITING,)},
    "settled": {QUEUED: (DONE,), WAITING: (DONE,), SENDING: (DONE,)},
    "refused_locally": {None: (DONE,), DONE: (DONE,)},
    "adopted": {QUEUED: (QUEUED,), WAITING: (WAITING,), SENDING: (WAITING,)},
    "withdrawn": {SENDING: (QUEUED, WAITING)},
}
"""What may happen to a report: ``queued`` (intent committed, never begun), ``sending`` (an attempt
has begun), ``waiting`` (between two attempts), ``done`` (it has an outcome)."""

MAX_ATTEMPTS: Final = 4
"""Attempts a task may have in its whole life, recovery included."""
MAX_SENDS: Final = 2
"""Complete sends a task may have in its whole life, recovery included."""
GUARD_S: Final = 86_400.0
"""How long a finished report answers for its task, in seconds. Task ids can come back later."""
HISTORY_S: Final = 90 * 86_400.0
"""How long finished reports are kept in a ledger that lasts, in seconds."""


# --- the task and its report -----------------------------------------------------------------


class Task(NamedTuple):
    """What makes a report the same report: one per task, whatever the method."""

    endpoint: str
    """Canonical base URL of the upstream."""
    account: str
    """Keyed hash of the client key, 32 hex digits; the wire shows the first 8."""
    task_id: int


class Window(NamedTuple):
    """When a task may be reported, on the ledger's timeline. See `bridge.reports.window`."""

    until: float | None
    """The end known from ``completedAt``: 60 s after it. None if no request told it."""
    since: float | None
    """The first receipt of a request that did not tell ``completedAt``. None if all told it."""

    def narrowed_by(self, other: Window) -> Window:
        """The earliest ends that either of the two knows."""
        if self == other:
            return self  # as nearly always
        return Window(_earliest(self.until, other.until), _earliest(self.since, other.since))


def _earliest(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


class Facts(NamedTuple):
    """What the caller told about a task; kept for hints, recovery and statistics."""

    completed_at: float | None = None
    """``completedAt`` as given: UNIX seconds on the upstream's clock."""
    task_type: str | None = None
    language_pool: str | None = None
    age_s: float | None = None
    """Age of the task at receipt in seconds, clock skew corrected; None without ``completedAt``."""


# --- one attempt -----------------------------------------------------------------------------

Moment = Callable[[], float]
"""Tells a moment of the boot clock, which may come nearer."""


class Exchange(NamedTuple):
    """What one HTTP attempt met, as bare facts; `bridge.reports.verdict` says what they prove."""

    failure: str | None
    """None: a complete HTTP answer arrived. Else the first thing that went wrong, one of
    ``dns`` ``connect`` ``tls`` ``certificate`` ``proxy`` (nothing of the request left),
    ``reset`` ``timeout`` ``cut`` ``malformed`` (see `sent` for whether a byte had left),
    ``window`` (the time to begin ran out before a byte left)."""
    sent: bool
    """True once the first byte of the request may have left this host."""
    status: int | None = None
    """HTTP status, as soon as a whole status line was read (also when the rest failed)."""
    headers: Mapping[str, str] = {}
    """Answer headers, names in lower case; repeated ones joined by ``, ``."""
    body: bytes = b""
    """The answer's body, at most 64 KiB of it."""
    oversize: bool = False
    """True if the body was longer than 64 KiB."""
    elapsed_s: float = 0.0
    reused: bool = False
    """True if the request went over a kept-alive connection."""


class Verdict(NamedTuple):
    """What is known after one attempt, earlier ones considered. Made by `reports.verdict.judge`."""

    outcome: str
    """The outcome if nothing more is sent: one of `OUTCOMES`."""
    code: int
    """The wire code if nothing more is sent; 0 for accepted."""
    kind: str
    """Row of ``schemas/errors.json`` that the wire error has; ``accepted`` for accepted."""
    event: str
    """Row of ``schemas/errors.json`` for what this attempt alone met (``no_such_captcha``,
    ``dns_failure``, ``http_forbidden`` ...); equal to `kind` when nothing was lost before."""
    next: str
    """``done`` (final), ``again`` (back-off, while attempts and window last), ``again_once`` (one
    more complete send, if at least 5 s remain), ``again_refused`` (one more complete send, after a
    certain refusal that is transient), ``wait`` (as again, but not before `retry_after_s`)."""
    perhaps: bool
    """True if this or an earlier attempt may have been taken."""
    is_send: bool
    """True if this attempt counts as a complete send."""
    has_status: bool
    """True if an HTTP status was read: the upstream can be reached."""
    has_verdict: bool
    """True if a JSON verdict was read."""
    pause: str | None = None
    """Name of the pause rule in ``schemas/errors.json`` that this attempt feeds."""
    error_id: int | None = None
    error_code: str | None = None
    error_description: str | None = None
    """Upstream text, control characters escaped, at most 512 characters; redact before use."""
    http_status: int | None = None
    retry_after_s: float | None = None
    cause: str | None = None
    """``dns`` ``connect`` ``tls`` ``certificate`` ``proxy`` or None."""
    likely: str | None = None


class Ending(NamedTuple):
    """A final answer about a task, as it is stored and told. ``detail`` is JSON-ready."""

    outcome: str
    code: int
    """Wire code; 0 for accepted."""
    kind: str
    detail: Mapping[str, Any] = {}
    """Optional members of the answer: errorId, errorCode, errorDescription, httpStatus, likely,
    cause, hints, warnings, pause, ageSeconds, clockSkewSeconds."""


# --- pauses ----------------------------------------------------------------------------------


class PauseKey(NamedTuple):
    """Which pause: a rule of ``schemas/errors.json`` and what it is about."""

    rule: str
    """Rule name (``key_refused``, ``address_blocked`` ...), or ``proof`` for single-flight."""
    subject: str
    """Account, machine id, method or a join of them with a slash, as the rule's ``per`` says."""


CLOSED: Final = "closed"
OPEN: Final = "open"
PROBING: Final = "probing"


class PauseState(NamedTuple):
    """One pause as the ledger keeps it, per endpoint."""

    key: PauseKey
    state: str = CLOSED
    """``closed``, ``open`` (until ends_at, then the next report probes), ``probing``."""
    cause: str | None = None
    """Kind of the event that opened it."""
    streak: int = 0
    """Consecutive events so far, for rules with a threshold."""
    recent: tuple[tuple[float, str], ...] = ()
    """Time and task (``account/task id``) of the events inside the rule's ``windowSeconds``."""
    level: int = 0
    """How often the pause has been doubled."""
    opened_at: float | None = None
    ends_at: float | None = None
    """When a probe is allowed; None while open: only a person ends it."""
    probe_owner: str | None = None
    probe_task: str | None = None
    """``account/task id`` of the probing report."""
    context: str = ""
    """Fingerprint of what lifts the pause when it changes (url, proxy, CA)."""


class PauseEvent(NamedTuple):
    """A pause opened, closed or began to probe; for the ledger's events, the log and the status."""

    name: str
    """``pause_opened``, ``pause_closed`` or ``pause_probing``."""
    state: PauseState


class Gate(NamedTuple):
    """The answer to "may this attempt begin now?"."""

    status: str
    """``begun``, ``paused`` (see `pause`), ``busy`` (another report probes or proves the key),
    ``lost`` (the row is no longer ours), ``late`` (the window that the row knows is over),
    ``spent`` (no attempt or send is left). Judged in the order lost, late, spent, pauses."""
    pause: PauseState | None = None
    until: float | None = None
    """Earliest time to ask again on the ledger's timeline; None: when another attempt ends."""


# --- rows and operations of the ledger -------------------------------------------------------


class Row(NamedTuple):
    """One report as the ledger keeps it."""

    seq: int
    task: Task
    method: str
    state: str
    outcome: str | None
    owner: str | None
    """Instance that works on it; None when done."""
    attempts: int
    sends: int
    perhaps: bool
    window: Window
    facts: Facts
    code: int | None
    kind: str | None
    detail: Mapping[str, Any]
    recorded_wall: float
    finished_wall: float | None
    latency_ms: int | None
    """Length of the last attempt."""


class Claim(NamedTuple):
    """Commit the intent to report a task, or learn what became of it. Result: `Claimed`."""

    task: Task
    method: str
    window: Window
    facts: Facts
    begin: bool
    """Also begin the first attempt if the gate allows it, in the same commit."""
    refusal: Ending | None = None
    """A local refusal (outcome ``not_sent``): recorded if nothing but ``not_sent`` is known."""


class Claimed(NamedTuple):
    """What became of a `Claim`."""

    status: str
    """``new`` (ours now), ``again`` (was not_sent, ours now), ``adopted`` (a dead bridge's, ours
    now), ``known`` (done: replay), ``conflict`` (another method, or a refusal while it is in flight),
    ``elsewhere`` (a living bridge has it), ``refused`` (the given refusal was recorded)."""
    row: Row
    gate: Gate | None = None
    """What became of ``begin``; None if it was not asked for or not reached. ``late``, asked for or not, if
    the earliest window known of the task is over: then a given refusal was not recorded, and the report is
    ours."""
    events: tuple[PauseEvent, ...] = ()
    durable: bool = True
    guarded: bool = True
    """False if other processes could not be asked (warning ``duplicates_unguarded``)."""


class Begin(NamedTuple):
    """Begin the next attempt of our own report. Result: `Begun`."""

    task: Task


class Begun(NamedTuple):
    """What became of a `Begin`."""

    gate: Gate
    row: Row | None
    events: tuple[PauseEvent, ...] = ()
    durable: bool = True
    guarded: bool = True


class Record(NamedTuple):
    """Commit what an attempt met, and the ending if it is final. Result: `Recorded`."""

    task: Task
    verdict: Verdict
    began_at: float
    latency_ms: int
    ending: Ending | None
    """None: another attempt follows (state ``waiting``)."""
    again_at: float | None = None
    """Before this it is not to be, because the upstream asked for it."""


class Settle(NamedTuple):
    """End our own report without an attempt (window over, cancelled, shut down). Result: `Recorded`."""

    task: Task
    ending: Ending


class Recorded(NamedTuple):
    """What became of a `Record` or a `Settle`."""

    status: str
    """``ok`` or ``lost`` (the row is no longer ours; `row` is what it became)."""
    row: Row | None
    events: tuple[PauseEvent, ...] = ()
    durable: bool = True


class Withdraw(NamedTuple):
    """Take back a beginning that was committed and provably not followed by an attempt (cancelled, stopped,
    too late, no resources): it is not counted, and its probe is let go. Result: `Recorded`."""

    task: Task
    ending: Ending | None
    """None: the report waits for another attempt (state ``waiting``; ``queued`` if it never had one)."""


class Narrow(NamedTuple):
    """Take note that a task's window ends earlier. Result: None."""

    task: Task
    window: Window


class Look(NamedTuple):
    """Read one report without changing anything. Result: `Row` or None."""

    task: Task


class Sweep(NamedTuple):
    """Take over or end what dead bridges left. Result: `Swept`."""

    endpoint: str
    accounts: frozenset[str]
    """Accounts whose key this bridge holds."""
    ours: frozenset[Task] | None = None
    """The reports of this bridge that it knows of; what else it owns is taken up, too. None: it knows all."""


class Swept(NamedTuple):
    """What a `Sweep` found."""

    adopted: tuple[Row, ...]
    """Ours now: never begun, or begun with one more attempt allowed."""
    settled: tuple[Row, ...]
    """Ended at their window because nobody could resume them."""


class Listing(NamedTuple):
    """Read reports, newest first. Result: tuple of `Row` and the next cursor (int) or None."""

    endpoint: str | None
    since_wall: float | None = None
    until_wall: float | None = None
    outcome: str | None = None
    method: str | None = None
    limit: int = 100
    before_seq: int | None = None


class Pauses(NamedTuple):
    """Read the pauses of an endpoint that are not closed. Result: tuple of `PauseState`."""

    endpoint: str


class Resume(NamedTuple):
    """Turn pauses into "probe with the next report". Result: tuple of `PauseState` changed."""

    endpoint: str
    scope: str | None
    account: str | None
    """Only pauses that belong to it; those of a method, or of a machine whatever the key, belong to none."""


class Prune(NamedTuple):
    """Delete done reports older than ``before_wall``, at most `limit`. Result: number deleted."""

    before_wall: float
    limit: int = 500


Change = Claim | Begin | Record | Settle | Withdraw | Narrow | Sweep | Resume | Prune
"""What changes a ledger."""
Operation = Change | Look | Listing | Pauses
