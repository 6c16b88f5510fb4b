"""What must be true of every run when it is over, written once from the contract.

The rules that are about the moment in which an attempt begins are in `history.py`.
"""

from __future__ import annotations

import calendar
import os
import time
from typing import TYPE_CHECKING, Any, Final

from bridge.core.model import DONE
from tests.e2e.killjudge import Ask, Told, judge_task
from tests.simulation.callers import Request
from tests.simulation.history import Story, is_guard_over, outcome_of
from tests.simulation.pausing import NEVER
from tests.simulation.plan import EPOCH
from tests.simulation.rest import check_exits, check_records

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

MOST_SENDS: Final = 2
MOST_ATTEMPTS: Final = 4
SLACK_S: Final = 0.3
"""How late an answer may be in a world whose disk works, turns of the loop and commits included."""
SKEW_S: Final = 2.6
"""How wrong a clock may be unnoticed: 2 s are tolerated, and a Date header has whole seconds."""
_UNSEEN: Final = (-32800, -32031, -32032)
"""Such an answer says nothing of the task: nobody has looked for it, or could."""
_LONGEST_S: Final = {
    "key": 3600.0,
    "address": 86400.0,
    "method": 86400.0,
    "quality": 600.0,
    "transport": 60.0,
}


def check_all(world: World) -> None:
    """Judge a whole run."""
    history = world.history
    for story in history.stories.values():
        check_limits(world, story)
        check_windows(world, story)
        for request in story.requests:
            for at, answer in request.answers:
                check_truth(world, story, request, at, answer)
        check_row(world, story)
        check_causes(world, story)
        check_as_kill_loops_do(world, story)
    for request in history.requests:
        check_answered(world, request)
    check_records(world)
    check_exits(world)
    for attempt in world.network.attempts:
        if attempt.judged in (
            "body_members",
            "task_id_missing",
            "key_missing",
            "no_such_method",
            "body_not_json",
        ):
            world.break_rule(f"{attempt}: the upstream cannot read it ({attempt.judged})")
    if os.path.exists(world.disk.path):
        for suffix in ("", "-wal"):
            if os.path.exists(world.disk.path + suffix):
                with open(world.disk.path + suffix, "rb") as file:
                    history.check_secret("the ledger" + suffix, file.read())


def is_unguarded(answer: dict[str, Any]) -> bool:
    """True if it says that what other bridges did could not be known."""
    warnings = outcome_of(answer)[1].get("warnings", ())
    return any(warning["kind"] == "duplicates_unguarded" for warning in warnings)


def check_truth(world: World, story: Story, request: Request, at: float, answer: dict[str, Any]) -> None:
    """An answer says nothing but what is so."""
    outcome, data = outcome_of(answer)
    if outcome is None:
        return
    process = request.process
    memory_only = world.plan.setup["ledger"] == "memory"
    known = [a for a in story.attempts if a.left_at is not None and a.left_at < at]
    known = [a for a in known if a.began_at >= story.since or at < story.since]
    if story.is_loose or memory_only or is_unguarded(answer):
        # What other bridges did meanwhile could not be known, and an ending on record is told as it is.
        is_stored = data.get("replayed") or answer.get("error", {}).get("code") == -32011
        known = [a for a in known if a.process is process and not is_stored]
    told = f"{request} was answered {outcome} at {at:.3f} ({answer})"
    if answer.get("error", {}).get("code") in (-32800, -32032) and outcome == "not_sent":
        # It is about this request, which was let go before anybody looked for the task.
        known = known if data["attempts"] else []
    elif answer.get("error", {}).get("code") == -32031:
        # Refused because the ledger cannot tell what others did.
        known = [a for a in known if a.process is process]
    elif request.batch is not None and outcome == "not_sent":
        # It had ended before, and was told when the last of the batch was done.
        earlier = [a for a in known if a.began_at < (request.read_at or 0.0)]
        known = sorted(known, key=lambda a: a.began_at)[: max(len(earlier), data.get("attempts", 0))]
    if outcome == "accepted":
        if not any(a.is_accepted and a.taken_at is not None and a.taken_at <= at for a in story.attempts):
            world.break_rule(f"{told}, but the upstream never said so")
    elif outcome in ("refused", "not_sent"):
        for attempt in known:
            if attempt.taken_at is not None:
                world.break_rule(f"{told}, but it was taken: {attempt}")
            elif attempt.is_perhaps:
                world.break_rule(f"{told}, but it was perhaps taken: {attempt}")
        if outcome == "not_sent" and any(
            a.process is process and a.ended_at is None for a in known if process.is_alive
        ):
            world.break_rule(f"{told}, while it was being sent")
        if outcome == "refused" and "error" in answer and answer["error"]["code"] > 0:
            code = answer["error"]["code"]
            if not any(a.meaning is not None and a.meaning.number == code for a in story.attempts):
                world.break_rule(f"{told}, but the upstream never said that")
    elif outcome == "unknown":
        flying = [a for a in story.attempts if a.began_at <= at and (a.ended_at is None or a.ended_at >= at)]
        elsewhere = [p for _, p in story.claims if p is not process] if not answer.get("result") else []
        is_left = process.stopped_at is not None and process.stopped_at <= at
        is_lost = any(a.is_perhaps for a in story.attempts if a.began_at <= at)
        # Who is let go from a report that goes on cannot be told how it will end.
        is_left = is_left or answer.get("error", {}).get("code") == -32800
        if not (is_lost or flying or story.crashes or elsewhere or is_left):
            world.break_rule(f"{told}, but nothing was ever lost: {story.attempts}")
    if "attempts" in data:
        made = len([a for a in story.attempts if a.began_at <= at and a.failure != "NoResources"])
        # Whose ledger falls silent tells what it last saw of another bridge's report.
        seen = story.doubts if outcome == "unknown" and data.get("replayed") else 0
        # So does who waits for another bridge that has begun, and never says how it went.
        read_at = request.read_at or 0.0
        seen += outcome == "unknown" and any(
            begin <= at and read_at <= end for begin, end in story.beginnings
        )
        if data["attempts"] > made + story.crashes + seen and not story.is_loose:
            world.break_rule(f"{told}, but {made} attempts were made")
        own = [
            a
            for a in story.attempts
            if a.process is process and a.failure != "NoResources" and a.began_at <= at
        ]
        is_own_news = (
            not data["replayed"]
            and outcome in ("accepted", "refused")
            and answer.get("error", {}).get("code") != -32011
        )
        if is_own_news and data["attempts"] < len(own):
            world.break_rule(f"{told}, but {len(own)} attempts were made by it alone")
    if (
        data.get("durable")
        and outcome != "not_sent"
        and not world.history.clock_was_set
        and not is_guard_over(world)
    ):
        row = story.row
        is_truth = row is None or row.outcome == outcome
        if not is_truth and answer.get("error", {}).get("code") != -32011:
            world.break_rule(f"{told} and durable, but the ledger says {row and row.outcome}")
    pause = data.get("pause")
    if pause and pause["endsAt"]:
        wall = EPOCH + at + process.host.off_s
        left_s = _seconds(pause["endsAt"]) - wall
        if left_s > _LONGEST_S.get(pause["scope"], 0.0) + 5.0 and not world.history.clock_was_set:
            world.break_rule(f"{told}, but no such pause may last that long")


def _seconds(text: str) -> float:
    return float(calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))) + float(text[19:-1])


def check_limits(world: World, story: Story) -> None:
    """At most two complete sends and four attempts in a task's life."""
    made = [a for a in story.attempts if a.failure != "NoResources"]
    if world.history.boots:
        # A guard lasts a day; a machine that was off for longer begins anew.
        days = sorted({sum(at < a.began_at for at, _ in world.history.boots) for a in made})
        groups = [
            [a for a in made if sum(at < a.began_at for at, _ in world.history.boots) == day] for day in days
        ]
        groups = groups if is_guard_over(world) else [made]
    else:
        groups = [made]
    for group in groups:
        lives = [group]
        if story.is_loose or world.plan.setup["ledger"] == "memory":
            lives = [[a for a in group if a.process is p] for p in world.processes]
        for life in lives:
            sends = [a for a in life if a.is_send]
            if len(life) > MOST_ATTEMPTS or len(sends) > MOST_SENDS:
                world.break_rule(f"{story}: {len(life)} attempts and {len(sends)} complete sends: {life}")


def check_windows(world: World, story: Story) -> None:
    """No byte leaves after the earliest window end that was known."""
    for attempt in story.attempts:
        if attempt.left_at is None:
            continue
        before = [a for a in story.attempts if a.began_at < attempt.began_at and a.failure != "NoResources"]
        if story.is_loose or world.plan.setup["ledger"] == "memory":
            # A bridge may not have known of another one's, or of its former life's.
            before = [a for a in before if a.process is attempt.process]
        if is_guard_over(world):
            # Those of a task whose id came back, after a machine was off for long, are another one's.
            since = max((at for at, _ in world.history.boots if at < attempt.began_at), default=0.0)
            before = [a for a in before if a.began_at > since]
        retrying = bool(before)
        for request in story.requests:
            end = window_end(world, request, attempt.left_at, retrying)
            if end is None or request.read_at is None or request.read_at > attempt.began_at - 0.01:
                continue
            if is_guard_over(world) and any(
                request.read_at < at < attempt.began_at for at, _ in world.history.boots
            ):
                continue
            is_crowded = world.plan.setup["queue"] < 100
            first = next((r for r in story.requests if r.process is attempt.process), None)
            if is_crowded and request is not first:
                # It may not have been admitted yet.
                continue
            if request.process is not attempt.process or is_crowded:
                # It must have been heard of: not by another bridge alone, and not behind a full queue.
                if story.is_loose or world.plan.setup["ledger"] == "memory":
                    continue
                is_known = any(
                    p is request.process and request.read_at <= at < attempt.began_at - 0.01
                    for at, p in story.claims
                )
                if not is_known:
                    continue
            if attempt.left_at > end:
                world.break_rule(
                    f"{story}: {attempt} left after the window of {request}, which ended at {end:.3f}"
                )


def window_end(world: World, request: Request, at: float, retrying: bool) -> float | None:
    """The last moment by which a byte may leave for a request; None if it sets no window."""
    if request.read_at is None or not request.answers:
        return None
    for _, answer in request.answers:
        code = answer.get("error", {}).get("code")
        if code in (-32800, -32011, -32012, -32013, -32020, -32031, -32032, -32602, -32603):
            return None
    backward = sum(
        max(0.0, -forward) for boot, forward in world.history.boots if request.read_at < boot <= at
    )
    read_at, process = request.read_at, request.process
    told = request.params.get("completedAt")
    if told is None:
        return read_at + (32.0 if retrying else 57.0) + backward + 0.05
    off_s = process.host.off_s
    knows = process.knows_time_at is not None and process.knows_time_at < read_at
    wrong = 0.0 if knows else max(0.0, -min(off_s, request.off_s))
    if world.history.clock_was_set and not knows:
        wrong = NEVER
    end: float = min(read_at + 60.0, max(read_at, told - EPOCH + 60.0 + wrong + SKEW_S))
    return end + backward + 0.05


def check_answered(world: World, request: Request) -> None:
    """One answer for each request, by the end of its window and its last attempt."""
    process = request.process
    count = len(request.answers)
    if request.id is None:
        return
    if count > 1:
        world.break_rule(f"{request} was answered {count} times: {request.answers}")
    if request.read_at is None:
        return
    is_whole = not process.output.is_gone and (process.is_alive or process.exit_code is not None)
    if process.exit_code is not None and process.output.backlog:
        is_whole = False
    if count == 0:
        if is_whole:
            world.break_rule(f"{request} was never answered")
        return
    at = request.answers[0][0]
    setup = world.plan.setup
    if not request.is_report:
        if at > request.read_at + 2.0 + _delays(world, request.read_at, at, process):
            world.break_rule(f"{request} was answered after {at - request.read_at:.3f} s")
        return
    together = [request]
    if request.batch is not None:
        together = [r for r in world.history.requests if r.process is process and r.batch == request.batch]
    latest = max(_latest_answer(world, member, at) for member in together)
    latest += SLACK_S + _delays(world, request.read_at, at, process)
    if setup["queue"] < 100:
        latest += 60.0 + setup["timeout_s"]
    if at > latest and process.output.is_read:
        world.break_rule(f"{request} was answered at {at:.3f}, after {latest:.3f}")


def _latest_answer(world: World, request: Request, at: float) -> float:
    """By when a report must have its ending: the end of its window, or that of the attempt it waits for."""
    assert request.read_at is not None
    end = window_end(world, request, at, False)
    latest = request.read_at + 60.0 if end is None else end
    attempts = world.history.story(*request.story).attempts
    in_flight = any(a.process is request.process and a.began_at <= latest + 1.0 for a in attempts)
    return latest + (world.plan.setup["timeout_s"] if in_flight else 0.0)


def _delays(world: World, begin: float, end: float, process: Process) -> float:
    """What held a bridge up between two moments, besides itself."""
    held = sum(max(0.0, min(end, until) - max(begin, since)) for since, until in process.suspended)
    for fault in world.plan.faults:
        since, lasts_s = fault.at, fault.more.get("lasts_s", 0.0)
        if fault.kind == "disk" and since < end and since + lasts_s + fault.more["slow_s"] > begin:
            held += 12.0 + 3 * fault.more["slow_s"]
    # Who is suspended may have the lock of the ledger.
    asleep = [span for other in world.processes for span in other.suspended]
    held += sum(12.0 + until - since for since, until in asleep if since < end and until > begin)
    for act in world.plan.acts:
        if (
            act.kind == "unread"
            and act.at < end
            and act.at + act.more["lasts_s"] > begin
            and act.slot == process.slot
        ):
            held += act.more["lasts_s"]
    # Opening the ledger in a crowd takes its time.
    opening_s: float = world.plan.setup["opening_s"]
    commit_s: float = world.plan.setup["commit_s"]
    return held + 5 * opening_s + 10 * commit_s


def check_causes(world: World, story: Story) -> None:
    """One request causes a send, the others are replayed; who was let go before causes none."""
    news = [
        (request, at)
        for request in story.requests
        for at, answer in request.answers
        if answer.get("result", {}).get("replayed") is False
    ]
    if len(news) > len([a for a in story.attempts if a.is_accepted]):
        world.break_rule(f"{story}: more than one request is told that it caused the send: {news}")
    for request in story.requests:
        check_own(world, story, request)
        if request.cancelled_at is None or request.batch is not None or not request.answers:
            continue
        let_go_at, process = request.cancelled_at, request.process
        others = [r for r in story.requests if r is not request and r.process is process]
        later = [a for a in story.attempts if a.process is process and a.began_at > let_go_at + 0.001]
        earlier = [a for a in story.attempts if a.began_at <= let_go_at + 0.001]
        answered_at, answer = request.answers[0]
        is_quick = request.read_at is not None and request.read_at <= let_go_at < answered_at
        is_alone = not others and not earlier and not story.crashes and not process.suspended
        is_reading = process.stopped_at is None or process.stopped_at > let_go_at
        is_heard = is_quick and is_reading and world.plan.setup["queue"] > 100
        if is_heard and is_alone and later and later[0].began_at < answered_at:
            world.break_rule(f"{request} was let go at {let_go_at:.3f}, but {later[0]} followed: {answer}")


def check_own(world: World, story: Story, request: Request) -> None:
    """A refusal on record is not told to the one request whose own attempt was perhaps taken."""
    others = [r for r in story.requests if r is not request and r.process is request.process]
    if others or request.read_at is None or not request.answers:
        return
    at, answer = request.answers[0]
    own = [a for a in story.attempts if a.process is request.process and request.read_at <= a.began_at < at]
    outcome = outcome_of(answer)[0]
    if outcome in ("refused", "not_sent") and any(a.is_perhaps for a in own):
        world.break_rule(f"{request} caused {own} and was answered {outcome} at {at:.3f} ({answer})")


def check_as_kill_loops_do(world: World, story: Story) -> None:
    """What the loops that kill bridges demand of a task holds here, wherever bridges know of each other."""
    is_apart = story.is_loose or world.plan.setup["ledger"] == "memory"
    if is_apart or world.history.clock_was_set or world.history.boots or is_guard_over(world):
        return
    calls = [
        {
            "at": a.left_at if a.taken_at is None else a.taken_at,
            "taken": a.taken_at is not None,
            "reason": None if a.has_arrived else "unread",
            "status": a.meaning.number if a.meaning is not None and a.meaning.kind == "status" else 200,
        }
        for a in story.attempts
        if a.left_at is not None
    ]
    answers = [
        Told(Ask(story.task_id, request.method, request.read_at or 0.0), at, answer)
        for request in story.requests
        if request.batch is None  # others are answered when the last one of a batch is
        for at, answer in request.answers
        if outcome_of(answer)[0] is not None
        and answer.get("error", {}).get("code") not in _UNSEEN
        and not is_unguarded(answer)
    ]
    row = story.row and (
        story.task_id,
        story.row.method,
        story.row.state,
        story.row.outcome,
        story.row.attempts,
        story.row.sends,
        story.row.perhaps,
    )
    for kind, words in judge_task(row, calls, answers):
        world.break_rule(f"{story}: {kind}: {words}")


def check_row(world: World, story: Story) -> None:
    """What the ledger says in the end is true, and counts what was made."""
    row = story.row
    made = [a for a in story.attempts if a.failure != "NoResources"]
    if world.plan.setup["ledger"] == "memory" or story.is_loose:
        return
    if row is None:
        if made:
            world.break_rule(f"{story}: the ledger never heard of {made}")
        return
    if row.state != DONE:
        world.break_rule(f"{story} is {row.state} in the end")
        return
    taken = any(a.taken_at is not None for a in made)
    if is_guard_over(world):
        return
    if row.outcome == "accepted" and not any(a.is_accepted for a in made):
        world.break_rule(f"{story} is accepted in the ledger, but {made}")
    if row.outcome in ("refused", "not_sent") and (taken or any(a.is_perhaps for a in made)):
        world.break_rule(f"{story} is {row.outcome} in the ledger, but {made}")
    # Whoever was killed may have sent, and what he was told may have been owed to the ledger.
    is_left = any(not a.process.is_alive and a.process.exit_code is None for a in made)
    if row.outcome == "unknown" and not (story.crashes or is_left or any(a.is_perhaps for a in made)):
        world.break_rule(f"{story} is unknown in the ledger, but {made}")
    if not len(made) <= row.attempts <= min(MOST_ATTEMPTS, len(made) + story.crashes):
        world.break_rule(
            f"{story} has {row.attempts} attempts on record, {story.crashes} crashes, but {made}"
        )
