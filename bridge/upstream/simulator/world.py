"""Accounts, tasks and the vendor's rules for reports, read afresh from its documents.

Has no I/O and no clock: the time is handed in. Must not import anything of the bridge's own client,
verdict or tables, because it exists to disagree with them where they are wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from bridge.upstream.simulator import replies

IMAGE_KINDS: Final = frozenset({"image", "coordinates"})
RECAPTCHA_KINDS: Final = frozenset(
    {"recaptcha_v2", "recaptcha_v2_enterprise", "recaptcha_v3", "recaptcha_v3_enterprise"}
)
KINDS: Final = (*sorted(IMAGE_KINDS), *sorted(RECAPTCHA_KINDS), "hcaptcha", "other")
"""Task kinds. ``other`` stands for every kind that no method reports (Turnstile and so on)."""
POOLS: Final = ("en", "rn")

METHODS: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    # method -> kinds it fits, kind of a fresh task in auto mode
    "reportIncorrectImageCaptcha": (IMAGE_KINDS, "image"),
    "reportIncorrectRecaptcha": (RECAPTCHA_KINDS, "recaptcha_v2"),
    "reportCorrectRecaptcha": (RECAPTCHA_KINDS, "recaptcha_v3"),
    "reportIncorrectHcaptcha": (frozenset({"hcaptcha"}), "hcaptcha"),
}

ACCOUNT_STATES: Final[Mapping[str, tuple[int, str]]] = {
    # state -> errorId it is refused with, reason in the log
    "ok": (0, ""),
    "unknown": (1, "key_unknown"),
    "zero_balance": (10, "zero_balance"),
    "ip_not_allowed": (11, "ip_not_allowed"),
    "ip_blocked": (21, "ip_blocked"),
    "suspended": (55, "suspended"),
}

MAX_TASKS: Final = 500_000
"""Fresh tasks of auto mode that are kept, about 200 bytes each; the oldest are forgotten first."""

NO_TASK: Final = 16


class Settings:
    """What can be changed about the simulated upstream while it runs."""

    __slots__ = (
        "auto",
        "clock_skew_s",
        "content_type",
        "latency_s",
        "magic",
        "other_keys",
        "spelling",
        "strict",
        "window_s",
    )

    def __init__(self, auto: bool = True, latency_s: float = 0.0) -> None:
        self.auto = auto
        self.magic = True
        self.strict = True
        self.spelling = "CAPCHA"
        self.content_type = "application/json"
        self.latency_s = latency_s
        self.clock_skew_s = 0.0
        self.window_s = 60.0
        self.other_keys = "ok"


class Task:
    """A captcha task as the upstream knows it."""

    __slots__ = ("account", "end_time", "ended_in_error", "kind", "language_pool", "reported", "task_id")

    def __init__(
        self,
        task_id: int,
        kind: str,
        end_time: float,
        *,
        language_pool: str = "en",
        ended_in_error: bool = False,
        account: str | None = None,
        reported: bool = False,
    ) -> None:
        self.task_id = task_id
        self.kind = kind
        self.end_time = end_time
        self.language_pool = language_pool
        self.ended_in_error = ended_in_error
        self.account = account
        """Fingerprint of the owner; None: belongs to whoever asks."""
        self.reported = reported

    def describe(self) -> dict[str, Any]:
        """Return the task as the control endpoint shows it."""
        return {
            "taskId": self.task_id,
            "kind": self.kind,
            "languagePool": self.language_pool,
            "endTime": self.end_time,
            "endedInError": self.ended_in_error,
            "account": self.account,
            "reported": self.reported,
        }


class Facts(NamedTuple):
    """What a report's body says, as far as it can be read."""

    client_key: str | None
    task_id: int | None
    body_keys: tuple[str, ...]
    """Member names of the body in the order received, repeated ones included."""
    refusal: tuple[int, str] | None
    """Error id and reason if the body alone is enough to refuse."""
    key_problem: bool
    """True if `refusal` is about the key, so that nothing else is looked at before it."""


class Judgement(NamedTuple):
    """What the rules say to one report."""

    error_id: int
    reason: str
    """``taken``, ``ignored`` (taken, but known to have no effect), or why it was refused."""
    body: bytes

    @property
    def taken(self) -> bool:
        """True if the report counts as the task's one report."""
        return self.error_id == 0


_decode = json.JSONDecoder(object_pairs_hook=tuple).decode


def read_body(body: bytes, strict: bool) -> Facts:
    """Read a report's body; never raises.

    Args:
        body: as received.
        strict: refuse members other than the two documented ones, and repeated ones.
    """
    try:
        # Objects become tuples of pairs and arrays lists, so repeated names stay visible.
        value: Any = _decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return Facts(None, None, (), (22, "body_not_json"), False)
    if not isinstance(value, tuple):
        return Facts(None, None, (), (22, "body_not_object"), False)
    names = tuple(name for name, _ in value)
    members = dict(value)
    key = members.get("clientKey")
    task_id = members.get("taskId")
    if not isinstance(key, str) or not key:
        key = None
    if isinstance(task_id, bool) or not isinstance(task_id, int) or not 0 < task_id < 2**63:
        task_id = None
    refusal: tuple[int, str] | None = None
    if key is None:
        refusal = (1, "key_missing")
    elif task_id is None:
        refusal = (24, "task_id_missing")
    elif strict and len(names) != 2:
        refusal = (24, "body_members")
    return Facts(key, task_id, names, refusal, key is None)


class World:
    """The accounts and tasks, and the judge over reports. Guarded by its caller's lock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.accounts: dict[str, str] = {}
        """Fingerprint -> one of `ACCOUNT_STATES`."""
        self.tasks: dict[int, Task] = {}
        """Tasks that were created by somebody, by id."""
        self.fresh: dict[tuple[str, int], Task] = {}
        """Tasks that auto mode made up, by account and id."""
        self.next_id = 1_000_000

    def add(self, task: Task) -> None:
        """Put a task into the world, over one of the same id."""
        self.tasks[task.task_id] = task

    def new_id(self) -> int:
        """Return an id that no created task has."""
        while self.next_id in self.tasks:
            self.next_id += 1
        self.next_id += 1
        return self.next_id - 1

    def judge(
        self,
        method: str,
        facts: Facts,
        account: str,
        now_s: float,
        invent: Callable[[int, str, str, float], Task | None] | None = None,
    ) -> Judgement:
        """Apply the rules to a report, and take it if they allow.

        Args:
            method: last part of the path, as sent.
            facts: the body.
            account: fingerprint of the key in the body.
            now_s: UNIX seconds on the upstream's clock.
            invent: makes the task of an id that is special: (id, method, account, now) -> task.
        """
        rule = METHODS.get(method)
        if rule is None:
            return self._refuse(14, "no_such_method")
        if facts.refusal is not None and (facts.key_problem or facts.client_key is None):
            return self._refuse(*facts.refusal)
        error_id, reason = ACCOUNT_STATES[self.accounts.get(account, self.settings.other_keys)]
        if error_id:
            return self._refuse(error_id, reason)
        if facts.refusal is not None or facts.task_id is None:
            return self._refuse(*(facts.refusal or (24, "task_id_missing")))
        task = self.find(facts.task_id, method, account, now_s, invent)
        if task is None:
            return self._refuse(NO_TASK, "no_such_task")
        reason = self._objection(task, rule[0], account, now_s)
        if reason:
            return self._refuse(NO_TASK, reason)
        task.reported = True
        ignored = method == "reportCorrectRecaptcha" and task.kind == "recaptcha_v2"
        return Judgement(0, "ignored" if ignored else "taken", replies.SUCCESS)

    def find(
        self,
        task_id: int,
        method: str,
        account: str,
        now_s: float,
        invent: Callable[[int, str, str, float], Task | None] | None = None,
    ) -> Task | None:
        """Return the task an account means by an id; auto mode makes up what it does not know."""
        task = self.tasks.get(task_id)
        if task is not None:
            return task
        own = (account, task_id)
        task = self.fresh.get(own)
        if task is None:
            if invent is not None:
                task = invent(task_id, method, account, now_s)
            elif self.settings.auto:
                task = self.make_fresh(task_id, method, account, now_s)
            if task is not None:
                if len(self.fresh) >= MAX_TASKS:
                    del self.fresh[next(iter(self.fresh))]
                self.fresh[own] = task
        return task

    def make_fresh(self, task_id: int, method: str, account: str, now_s: float) -> Task:
        """Return a task of the kind that a method fits, completed just now."""
        return Task(task_id, METHODS[method][1], now_s, account=account)

    def _objection(self, task: Task, kinds: frozenset[str], account: str, now_s: float) -> str:
        """Return why a task may not be reported, or an empty string. All of these are error 16."""
        if task.account is not None and task.account != account:
            return "other_account"
        if now_s - task.end_time > self.settings.window_s:
            return "late"
        if task.reported:
            return "duplicate"
        if task.kind not in kinds:
            return "wrong_kind"
        if task.ended_in_error:
            return "ended_in_error"
        if task.kind in IMAGE_KINDS and task.language_pool != "en":
            return "language"
        return ""

    def _refuse(self, error_id: int, reason: str) -> Judgement:
        code = replies.OTHER_SPELLING if error_id == NO_TASK and self.settings.spelling == "CAPTCHA" else None
        return Judgement(error_id, reason, replies.error_body(error_id, code))
