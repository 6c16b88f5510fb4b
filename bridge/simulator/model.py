"""Accounts, tasks and the vendor's rules for reports and figures, read afresh from its documents.

Has no I/O, no clock and no chance: the time is handed in. Must not import anything of the bridge's own
client, verdict or tables, because it exists to disagree with them where they are wrong.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain, count
from typing import Any, Final, NamedTuple

from bridge.simulator import magic, replies
from bridge.simulator.journal import Row

QUEUES: Final[Mapping[str, str]] = {
    # kind -> name of its queue in the figures; the vendor prints the first and that of plain V2 only
    "image": "English ImageToText",
    "coordinates": "ImageToCoordinates",
    "recaptcha_v2": "Recaptcha Proxyless",
    "recaptcha_v2_enterprise": "Recaptcha Enterprise Proxyless",
    "recaptcha_v3": "Recaptcha V3",
    "recaptcha_v3_enterprise": "Recaptcha V3 Enterprise",
    "hcaptcha": "HCaptcha Proxyless",
    "other": "Other",
}
_OTHER_LANGUAGE: Final = "Russian ImageToText"
KINDS: Final = tuple(QUEUES)
"""Task kinds. ``other`` stands for every kind that no method reports (Turnstile and so on)."""
IMAGE_KINDS: Final = frozenset({"image", "coordinates"})
RECAPTCHA_KINDS: Final = frozenset(kind for kind in KINDS if kind.startswith("recaptcha"))


class Method(NamedTuple):
    """A report method."""

    kinds: frozenset[str]
    fresh_kind: str
    """Kind of a fresh task in auto mode."""
    spelling: str
    """How the method's own page spells error 16."""


METHODS: Final[Mapping[str, Method]] = {
    "reportIncorrectImageCaptcha": Method(IMAGE_KINDS, "image", "CAPCHA"),
    "reportIncorrectRecaptcha": Method(RECAPTCHA_KINDS, "recaptcha_v2", "CAPTCHA"),
    "reportCorrectRecaptcha": Method(RECAPTCHA_KINDS, "recaptcha_v3", "CAPTCHA"),
    "reportIncorrectHcaptcha": Method(frozenset({"hcaptcha"}), "hcaptcha", "CAPCHA"),
}
SPENDING: Final = "getSpendingStats"
"""The one method that reads figures."""

ACCOUNT_STATES: Final = {
    "ok": 0,
    "unknown": 1,
    "zero_balance": 10,
    "ip_not_allowed": 11,
    "ip_blocked": 21,
    "suspended": 55,
}
"""State of an account -> errorId it is refused with."""

_PRICE: Final = 0.002
"""What a task costs; that of an image a third of it. Of the order of the published prices, no more."""

HOUR_S: Final = 3600
_HOUR_STARTS_AT: Final = 2700
"""Records of the figures begin 45 minutes past the hour, as the vendor's sample does (1550533500)."""
_SPENDING_TYPES: Final = {"clientKey": str, "date": int, "queue": str, "softId": int, "ip": str}

MAX_TASKS: Final = 500_000
"""Fresh tasks of auto mode that are kept, about 200 bytes each; the oldest are forgotten first."""

NO_TASK: Final = 16


def make_task(task_id: int, kind: str, end_time: float, account: str | None = None, **more: Any) -> Row:
    """Return a captcha task as the upstream knows it, and as the control endpoint shows it.

    Args:
        task_id: any.
        kind: one of `KINDS`.
        end_time: when it was completed, in UNIX seconds.
        account: fingerprint of the owner; None: belongs to whoever asks.
        more: members that are not as those of a fresh task.
    """
    task = {"taskId": task_id, "kind": kind, "languagePool": "en", "endTime": end_time}
    return {**task, "endedInError": False, "account": account, "reported": False, **more}


class Facts(NamedTuple):
    """What a call's body says, as far as it can be read."""

    client_key: str | None
    task_id: int | None
    body_keys: tuple[str, ...]
    """Member names of the body in the order received, repeated ones included."""
    members: Mapping[str, Any]
    problem: str = ""
    """Why the body is no JSON object; empty if it is one."""


class Judgement(NamedTuple):
    """What the rules say to one call."""

    error_id: int
    reason: str
    """``taken``, ``ignored`` (taken, but known to have no effect), ``figures``, or why it was refused."""
    body: bytes

    @property
    def taken(self) -> bool:
        """True if the call counts as a task's one report."""
        return self.reason in ("taken", "ignored")


class Figures(NamedTuple):
    """What an account has spent in one queue and hour."""

    volume: int
    money: float


_decode = json.JSONDecoder(object_pairs_hook=tuple).decode


def read_body(body: bytes) -> Facts:
    """Read a call's body; never raises."""
    try:
        # Objects become tuples of pairs and arrays lists, so repeated names stay visible.
        value: Any = _decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return Facts(None, None, (), {}, "body_not_json")
    if not isinstance(value, tuple):
        return Facts(None, None, (), {}, "body_not_object")
    members = dict(value)
    key, task_id = members.get("clientKey"), members.get("taskId")
    return Facts(
        key if isinstance(key, str) and key else None,
        task_id if type(task_id) is int and 0 < task_id < 2**63 else None,
        tuple(name for name, _ in value),
        members,
    )


def hour_of(wall_s: float) -> int:
    """Return when the record of the figures begins that a moment falls into; both in UNIX seconds."""
    return int((wall_s - _HOUR_STARTS_AT) // HOUR_S * HOUR_S) + _HOUR_STARTS_AT


class Model:
    """The accounts and tasks, and the judge over calls.

    Args:
        settings: as in a scenario; followed at every call.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.accounts: dict[str, str] = {}
        """Fingerprint -> one of `ACCOUNT_STATES`."""
        self.tasks: dict[int, Row] = {}
        """Tasks that were created by somebody, by id."""
        self.fresh: OrderedDict[tuple[str, int], Row] = OrderedDict()
        """Tasks that auto mode made up, by account and id."""
        self.figures: dict[str | None, dict[tuple[str, int], Figures]] = {}
        """Figures that were set: account (None: whoever asks) -> queue and begin of the hour -> figures."""
        self._ids = count(1_000_000)

    def known(self) -> Iterator[Row]:
        """Return all tasks, those of auto mode included."""
        return chain(self.tasks.values(), self.fresh.values())

    def effect_of(self, task_id: int | None) -> magic.Effect:
        """Return what a task id does by itself."""
        return magic.look_up(task_id) if task_id and self.settings["magic"] else magic.ORDINARY

    def new_id(self) -> int:
        """Return an id that no created task has."""
        return next(task_id for task_id in self._ids if task_id not in self.tasks)

    def judge(self, method: str, facts: Facts, account: str, now_s: float) -> Judgement:
        """Apply the rules to a call; a report is taken if they allow.

        Args:
            method: last part of the path, as sent.
            facts: the body.
            account: fingerprint of the key in the body.
            now_s: UNIX seconds on the upstream's clock.
        """
        if method not in METHODS and method != SPENDING:
            return self._refuse(14, "no_such_method")
        if facts.problem:
            return self._refuse(22, facts.problem)
        if facts.client_key is None:
            return self._refuse(1, "key_missing")
        state = self.accounts.get(account, self.settings["otherKeys"])
        if state != "ok":
            return self._refuse(ACCOUNT_STATES[state], "key_unknown" if state == "unknown" else state)
        if method == SPENDING:
            return self._tell_spending(facts, account, now_s)
        if facts.task_id is None:
            return self._refuse(24, "task_id_missing")
        if self.settings["strict"] and len(facts.body_keys) != 2:
            return self._refuse(24, "body_members")
        task = self.find(facts.task_id, method, account, now_s)
        reason = "no_such_task" if task is None else self._objection(task, method, account, now_s)
        if task is None or reason:
            is_other = task is None and self.effect_of(facts.task_id).situation == "other_spelling"
            code = replies.OTHER_SPELLING if is_other else self.code_of(NO_TASK, method)
            return self._refuse(NO_TASK, reason, code)
        task["reported"] = True
        ignored = method == "reportCorrectRecaptcha" and task["kind"] == "recaptcha_v2"
        return Judgement(0, "ignored" if ignored else "taken", replies.SUCCESS)

    def find(self, task_id: int, method: str, account: str, now_s: float) -> Row | None:
        """Return the task an account means by an id; auto mode makes up what it does not know."""
        task = self.tasks.get(task_id) or self.fresh.get((account, task_id))
        if task is not None:
            return task
        task, effect = make_task(task_id, METHODS[method].fresh_kind, now_s, account), self.effect_of(task_id)
        is_magic = effect is not magic.ORDINARY
        if not (_place(task, effect, self.settings["windowSeconds"]) if is_magic else self.settings["auto"]):
            return None
        if len(self.fresh) >= MAX_TASKS:
            self.fresh.popitem(last=False)
        self.fresh[account, task_id] = task
        return task

    def _objection(self, task: Row, method: str, account: str, now_s: float) -> str:
        """Return why a task may not be reported, or an empty string. All of these are error 16."""
        objections = {
            "other_account": task["account"] not in (None, account),
            "late": now_s - task["endTime"] > self.settings["windowSeconds"],
            "duplicate": task["reported"],
            "wrong_kind": task["kind"] not in METHODS[method].kinds,
            "ended_in_error": task["endedInError"],
            "language": task["kind"] in IMAGE_KINDS and task["languagePool"] != "en",
        }
        return next((reason for reason, holds in objections.items() if holds), "")

    def _refuse(self, error_id: int, reason: str, code: str = "") -> Judgement:
        return Judgement(error_id, reason, replies.error_body(error_id, code or replies.error_code(error_id)))

    def code_of(self, error_id: int, method: str) -> str:
        """Return the code of an error id; error 16 is spelled as the setting says, or the method's page."""
        spelling = self.settings["spelling"]
        if spelling == "BY_METHOD" and method in METHODS:
            spelling = METHODS[method].spelling
        is_other = error_id == NO_TASK and spelling == "CAPTCHA"
        return replies.OTHER_SPELLING if is_other else replies.error_code(error_id)

    # --- figures -----------------------------------------------------------------------------

    def _tell_spending(self, facts: Facts, account: str, now_s: float) -> Judgement:
        members = facts.members
        is_known = len(members) == len(facts.body_keys) and members.keys() <= _SPENDING_TYPES.keys()
        types = ((type(members[name]), kind) for name, kind in _SPENDING_TYPES.items() if name in members)
        if (self.settings["strict"] and not is_known) or any(found is not kind for found, kind in types):
            return self._refuse(24, "body_members")
        start = hour_of(members["date"]) if "date" in members else hour_of(now_s) - 23 * HOUR_S
        records = list(self._records(account, members.get("queue"), start, now_s))
        return Judgement(0, "figures", replies.to_bytes({"errorId": 0, "data": records}))

    def _records(self, account: str, queue: str | None, start: int, now_s: float) -> Iterator[dict[str, Any]]:
        spent = self._spent_by(account)
        for hour in range(start, min(start + 24 * HOUR_S, int(now_s) + 1), HOUR_S):
            told = [one for (name, begin), one in spent.items() if begin == hour and queue in (None, name)]
            volume, money = sum(one.volume for one in told), round(sum(one.money for one in told), 5)
            if volume or money or self.settings["emptyHours"]:
                record = {"dateFrom": hour, "dateTill": hour + HOUR_S - 1, "volume": volume, "money": money}
                as_string = self.settings["numbersAsStrings"]
                yield {name: str(value) for name, value in record.items()} if as_string else record

    def _spent_by(self, account: str) -> dict[tuple[str, int], Figures]:
        """Return what was set for the account or for whoever asks, else what the tasks here cost."""
        own = (task for task in self.known() if task["account"] in (None, account))
        counted = Counter((_queue_of(task), hour_of(task["endTime"])) for task in own)
        spent = {(queue, hour): priced(queue, volume) for (queue, hour), volume in counted.items()}
        return spent | self.figures.get(None, {}) | self.figures.get(account, {})


def _queue_of(task: Row) -> str:
    """Return the name of a task's queue in the figures."""
    is_foreign = task["kind"] == "image" and task["languagePool"] != "en"
    return _OTHER_LANGUAGE if is_foreign else QUEUES[task["kind"]]


def _place(task: Row, effect: magic.Effect, window_s: float) -> bool:
    """Bring the fresh task of a magic id into its situation, if any; False if it was never issued."""
    match effect.situation:
        case "late":
            task["endTime"] -= window_s + 30
        case "nearly_late":
            task["endTime"] -= max(window_s - 5, 0)
        case "wrong_kind":
            task["kind"] = "recaptcha_v2" if task["kind"] in IMAGE_KINDS else "image"
    task.update(effect.changes)
    return effect.situation not in ("no_such_task", "other_spelling")


def priced(queue: str, volume: int) -> Figures:
    """Return figures whose money is what so many tasks of a queue cost."""
    return Figures(volume, round(volume * (_PRICE / 3 if "ImageTo" in queue else _PRICE), 5))
