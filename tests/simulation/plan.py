"""What a seed means: how the bridges are set up, what their callers do when, and which faults come.

A plan is data, so a failing one can be made smaller by leaving parts out. Everything else that needs chance
(delays, fates of attempts) is drawn by name while it runs, so that what is left out changes little else.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tests.simulation.chance import Dice

EPOCH: Final = 2_500_000_000.0
"""UNIX time at which a simulation begins: in 2049, so that no real clock comes near."""
KEYS: Final = tuple(letter * 8 + "0123456789abcdef" + letter * 8 for letter in "pqr")
"""The client keys of the callers; the first is that of the settings."""
IMAGE: Final = "reportIncorrectImageCaptcha"
METHODS: Final = (IMAGE, "reportIncorrectRecaptcha", "reportCorrectRecaptcha", "reportIncorrectHcaptcha")
_KINDS: Final = {
    IMAGE: ("image", "ImageToTextTask"),
    METHODS[1]: ("recaptcha_v2", "RecaptchaV2TaskProxyless"),
    METHODS[2]: ("recaptcha_v3", "RecaptchaV3TaskProxyless"),
    METHODS[3]: ("hcaptcha", "HCaptchaTask"),
}
STEPS: Final = 40
"""What callers do in a run, about."""


class TaskPlan(NamedTuple):
    """A captcha task of the upstream."""

    task_id: int
    key: int
    """Number of the key whose account owns it."""
    method: str
    kind: str
    task_type: str
    ended_at: float
    """Seconds of true time; may lie before the beginning."""
    exists: bool
    language_pool: str


class Act(NamedTuple):
    """Something that the caller of a bridge does."""

    at: float
    slot: int
    kind: str
    """``report``, ``batch``, ``cancel``, ``ask``, ``resume``, ``close``, ``garbage``, ``unread`` ..."""
    more: dict[str, Any]


class Fault(NamedTuple):
    """Something that goes wrong."""

    at: float
    kind: str
    more: dict[str, Any]


class Plan(NamedTuple):
    """A whole run."""

    seed: int
    setup: dict[str, Any]
    tasks: tuple[TaskPlan, ...]
    acts: tuple[Act, ...]
    faults: tuple[Fault, ...]


# What becomes of an attempt in bad weather. The words are read by `network.py`.
NOT_REACHED: Final = ("dns", "refused", "unroutable", "tls", "certificate", "lacking")
LOST: Final = (
    "swallowed",
    "reset_before",
    "reset_after",
    "hang_after",
    "cut_head",
    "cut_body",
    "drip",
    "late",
)
ODD: Final = (
    "html",
    "empty",
    "gzip",
    "huge",
    "garbage",
    "not_json",
    "old_http",
    "odd_head",
    "chunked",
    "interim",
)
STATUSES: Final = (
    "408", "429", "429+1", "429+5", "429+40", "429+junk", "503", "503+2", "500", "502", "301", "307", "401",
    "403", "404", "405", "413", "418",
)  # fmt: skip
ERRORS: Final = (
    "rate",
    "overload",
    "e10",
    "e11",
    "e21",
    "e14",
    "e55",
    "e12",
    "e22",
    "e999",
    "echo",
    "e0-500",
    "e16-404",
)
WEATHER: Final[tuple[tuple[tuple[str, ...], float], ...]] = (
    (NOT_REACHED[:4], 3.0),
    (("lacking",), 1.0),
    (("certificate",), 0.3),
    (LOST, 4.0),
    (("reset_after", "hang_after", "cut_body"), 2.0),
    (("reset_before", "swallowed"), 2.0),
    (("late", "slow"), 1.5),
    (ODD, 1.5),
    (("408", "429+1", "429+5", "503+2", "500", "rate", "overload"), 2.5),
    (("429", "429+40", "rate", "429+junk"), 1.0),
    (STATUSES, 1.0),
    (ERRORS, 1.5),
    (("slow",), 1.0),
    (("e16",), 0.7),
)


def make_plan(seed: int, steps: int = STEPS) -> Plan:
    """The plan of a seed."""
    dice = Dice(seed, "plan")
    horizon = dice.pick((20.0, 45.0, 70.0, 100.0))
    slots = dice.pick_by(((1, 3.0), (2, 4.0), (3, 2.0), (4, 1.0), (5, 1.0)))
    setup: dict[str, Any] = {
        "horizon": horizon,
        "slots": slots,
        "machines": [dice.pick((0, 0, 0, 1)) for _ in range(slots)],
        "ledger": "memory" if slots == 1 and dice.chance(0.15) else "file",
        "concurrency": dice.pick((1, 2, 4, 32)),
        "queue": dice.pick((2, 5, 1000, 1000)),
        "timeout_s": dice.pick((10.0, 10.0, 4.0)),
        "drain_s": dice.pick((8.0, 2.0, 0.5)),
        "pauses": not dice.chance(0.08),
        "require": dice.chance(0.08),
        "wall": dice.pick_by(
            ((0.0, 6.0), (dice.between(-30.0, 30.0), 2.0), (400 * 86400.0, 0.3), (-3600.0, 0.5))
        ),
        "starts": [0.0 if dice.chance(0.6) else round(dice.between(0.0, 0.5), 3) for _ in range(slots)],
        "opening_s": dice.pick((0.0, 0.01, 0.05, 0.4, 0.9)),
        "commit_s": dice.pick((0.0002, 0.001, 0.003)),
        "header": dice.chance(0.1),
        "framing": dice.pick(("line", "line", "line", "header")),
        "rtt_s": dice.pick((0.02, 0.05, 0.2)),
        "idle_s": dice.pick((5.0, 15.0, 55.0, 1000.0)),
        "keys": dice.pick_by(((1, 6.0), (2, 2.0), (3, 1.0))),
        "states": [
            dice.pick_by((("ok", 12.0), ("unknown", 1.5), ("zero_balance", 0.5), ("suspended", 0.5)))
            for _ in KEYS
        ],
    }
    tasks = tuple(_make_task(dice, setup, number, horizon) for number in range(dice.whole(2, 12)))
    if dice.chance(0.15):
        # Many wrong ids one after another: what the quality pause is about.
        tasks = tuple(task._replace(exists=False, method=tasks[0].method, key=tasks[0].key) for task in tasks)
        tasks += tuple(tasks[0]._replace(task_id=9000 + n) for n in range(12))
    moments = [round(dice.between(0.0, horizon), 3) for _ in range(max(1, steps // 4))]
    acts: list[Act] = []
    while len(acts) < steps:
        acts += _make_acts(dice, setup, tasks, moments, len(acts))
    acts.sort(key=lambda act: act.at)
    faults = _make_faults(dice, setup, moments, horizon)
    if seed % 20 == 14:
        faults = _make_board(dice, setup, horizon)
    return Plan(seed, setup, tasks, tuple(acts), tuple(sorted(faults, key=lambda fault: fault.at)))


def _make_board(dice: Dice, setup: dict[str, Any], horizon: float) -> list[Fault]:
    """A board without a clock battery: 400 days ahead at first, right after the next boot."""
    setup.update(wall=400 * 86400.0, ledger="file", pauses=True)
    fates = dice.pick((("e10", "e21"), ("e11", "401"), ("403",), ("e14", "404"), ("301",)))
    at = horizon * dice.between(0.3, 0.6)
    return [
        Fault(0.0, "weather", {"lasts_s": at, "share": 1.0, "fates": fates}),
        Fault(at, "power", {"off_s": dice.pick((0.5, 5.0, 50.0)), "wall": 0.0}),
    ]


def _make_task(dice: Dice, setup: dict[str, Any], number: int, horizon: float) -> TaskPlan:
    method = dice.pick_by(((METHODS[0], 5.0), (METHODS[1], 2.0), (METHODS[2], 1.0), (METHODS[3], 1.0)))
    kind, task_type = _KINDS[method]
    if dice.chance(0.08):
        kind, task_type = _KINDS[dice.pick(METHODS)]
    ended_at = dice.between(-55.0, horizon) if dice.chance(0.7) else dice.between(-60.0, -40.0)
    language = "rn" if dice.chance(0.04) else "en"
    return TaskPlan(
        100 + number,
        dice.whole(0, setup["keys"] - 1),
        method,
        kind,
        task_type,
        ended_at,
        not dice.chance(0.08),
        language,
    )


def _make_acts(
    dice: Dice, setup: dict[str, Any], tasks: tuple[TaskPlan, ...], moments: list[float], done: int
) -> list[Act]:
    at = dice.pick(moments) if dice.chance(0.7) else dice.between(0.0, setup["horizon"])
    slot = dice.whole(0, setup["slots"] - 1)
    kind = dice.pick_by(
        (("report", 24.0), ("volley", 2.5), ("batch", 2.0), ("ask", 3.0), ("resume", 0.8), ("close", 0.8),
         ("term", 1.2), ("garbage", 0.5), ("unread", 0.5), ("deaf", 0.2))
    )  # fmt: skip
    if kind == "report":
        report = _make_report(dice, tasks, f"{done}")
        task = next(task for task in tasks if task.task_id == report["params"]["taskId"])
        at = max(at, task.ended_at + dice.pick((0.0, 1.0, 3.0))) if dice.chance(0.9) else at
        acts = [Act(at, slot, "report", report)]
        if dice.chance(0.2):
            # The same again: at once, soon, by somebody else.
            later = at + dice.pick((0.0, 0.0, 0.05, 0.3, 2.0, 5.0, 20.0))
            other = dice.whole(0, setup["slots"] - 1)
            acts.append(Act(later, other, "report", {**report, "id": f"{done}b"}))
        if dice.chance(0.16):
            delay = dice.pick((0.0, 0.0, 0.0, 0.0005, 0.001, 0.01, 0.1, 1.0))
            acts.append(Act(at + delay, slot, "cancel", {"id": report["id"]}))
        return acts
    if kind == "volley":
        # Several different reports at one moment, some bridges each.
        reports = [_make_report(dice, tasks, f"{done}v{n}") for n in range(dice.whole(3, 10))]
        return [Act(at, dice.whole(0, setup["slots"] - 1), "report", report) for report in reports]
    if kind == "batch":
        members = [_make_report(dice, tasks, f"{done}m{n}") for n in range(dice.whole(1, 5))]
        return [Act(at, slot, "batch", {"members": members, "odd": dice.chance(0.3)})]
    if kind == "ask":
        task = dice.pick(tasks)
        method = dice.pick(("bridge.status", "bridge.getReport", "bridge.listReports"))
        params = {"taskId": task.task_id, "clientKey": KEYS[task.key]} if method == "bridge.getReport" else {}
        return [Act(at, slot, "ask", {"id": f"{done}", "method": method, "params": params})]
    if kind == "resume":
        return [Act(at, slot, "resume", {"id": f"{done}"})]
    back_s = dice.pick((0.01, 0.5, 3.0, 15.0))
    if kind == "unread":
        return [Act(at, slot, "unread", {"lasts_s": dice.pick((0.5, 5.0, 20.0))})]
    return [Act(at, slot, kind, {"back_s": back_s})]


def _make_report(dice: Dice, tasks: tuple[TaskPlan, ...], name: str) -> dict[str, Any]:
    task = dice.pick(tasks)
    method = task.method if dice.chance(0.93) else dice.pick(METHODS)
    params: dict[str, Any] = {"taskId": task.task_id}
    if task.key or dice.chance(0.3):
        params["clientKey"] = KEYS[task.key]
    told = dice.number()
    if told < 0.5:
        params["completedAt"] = round(EPOCH + task.ended_at, 3)
    elif told < 0.56:
        params["completedAt"] = round(EPOCH + task.ended_at + dice.pick((-30.0, -55.0, 20.0, 4000.0)), 3)
    if dice.chance(0.3):
        params["taskType"] = task.task_type if dice.chance(0.9) else "SomethingNewTask"
    if dice.chance(0.2):
        params["languagePool"] = task.language_pool
    return {"id": name, "method": method, "params": params, "notify": dice.chance(0.04)}


def _make_faults(dice: Dice, setup: dict[str, Any], moments: list[float], horizon: float) -> list[Fault]:
    faults: list[Fault] = []

    def moment() -> float:
        # Where callers are busy, faults hit.
        return dice.pick(moments) + dice.between(0.0, 0.4) if dice.chance(0.6) else dice.between(0.0, horizon)

    for _ in range(dice.pick((0, 1, 1, 2, 3))):
        fates = dice.pick_by(WEATHER)
        lasts_s = dice.pick((0.3, 2.0, 10.0, 30.0, horizon))
        share = dice.pick((0.15, 0.5, 1.0, 1.0))
        faults.append(Fault(moment(), "weather", {"lasts_s": lasts_s, "share": share, "fates": fates}))
    rate = dice.pick((0, 0, 1, 2, 5))
    for _ in range(rate):
        at, slot = moment(), dice.whole(0, setup["slots"] - 1)
        back_s = dice.pick((0.001, 0.1, 1.0, 6.0, 30.0))
        faults.append(Fault(at, "kill", {"slot": slot, "turns": dice.whole(0, 40), "back_s": back_s}))
    if dice.chance(0.15):
        lasts_s = dice.pick((0.5, 5.0, 25.0, 61.0))
        slot = dice.whole(-1, setup["slots"] - 1)
        faults.append(
            Fault(moment(), "suspend", {"slot": slot, "lasts_s": lasts_s, "turns": dice.whole(0, 40)})
        )
    if dice.chance(0.12):
        wall = dice.pick_by(
            ((0.0, 3.0), (dice.between(-40.0, 40.0), 2.0), (-400 * 86400.0, 1.0), (400 * 86400.0, 1.0))
        )
        off_s = dice.pick((0.5, 5.0, 50.0, 700.0, 90000.0))
        faults.append(Fault(moment(), "power", {"off_s": off_s, "wall": wall}))
    if dice.chance(0.1):
        faults.append(Fault(moment(), "clock", {"by": dice.pick((-3000.0, -20.0, -3.0, 3.0, 20.0, 3000.0))}))
    if setup["ledger"] == "file":
        for _ in range(dice.pick((0, 0, 0, 1, 2))):
            kind = dice.pick(("full", "readonly", "locked", "unreadable", "slow", "slow", "doubt", "deleted"))
            lasts_s = dice.pick((0.05, 1.0, 3.0, 10.0, 40.0))
            slow_s = dice.pick((0.05, 0.5, 2.0, 4.0))
            faults.append(Fault(moment(), "disk", {"kind": kind, "lasts_s": lasts_s, "slow_s": slow_s}))
    if dice.chance(0.2):
        faults.append(Fault(moment(), "nat", {"how": dice.pick(("silent", "reset", "fin"))}))
    if dice.chance(0.12):
        state = dice.pick(("unknown", "zero_balance", "suspended", "ip_blocked", "ip_not_allowed"))
        more = {
            "key": dice.whole(0, setup["keys"] - 1),
            "state": state,
            "lasts_s": dice.pick((1.0, 10.0, 1000.0)),
        }
        faults.append(Fault(moment(), "account", more))
    return faults
