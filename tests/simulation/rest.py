"""When all is over: every bridge is at rest, tells the same of every report, and has ended as it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.callers import Request
from tests.simulation.history import is_guard_over, outcome_of

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World


def check_rest(world: World, process: Process) -> None:
    """A while after the last fault nothing is left to do."""
    reporter = process.app.reporter
    lifecycle = reporter._lifecycle
    conversation = process.server._conversation
    left = {
        "jobs": len(reporter._jobs),
        "used slots": world.plan.setup["concurrency"] - lifecycle._slots._free,
        "waiting for a slot": len(lifecycle._slots._waiting.entries),
        "waiting for another": len(lifecycle._flight._waiting.entries),
        "unanswered": conversation.unanswered,
        "open reports": conversation._unanswered_reports,
        "waiting for the ledger": process.app.methods._aside,
        "owed": process.app.ledger._failover.outbox.owed,
        "held": len(process.app.ledger._failover.outbox.held),
        "backlog": process.output.backlog,
        "attempts": len(process.flying),
    }
    for what, count in left.items():
        if count:
            world.break_rule(f"{process.name} is not at rest: {count} {what}")
    status = process.app.ledger.status()
    if not status["healthy"]:
        world.break_rule(f"{process.name} is not at rest: the ledger is {status}")


def check_records(world: World) -> None:
    """Records, lists and status agree, in every bridge."""
    records: dict[tuple[str, int], dict[str, Any]] = {}
    for request in world.history.requests:
        if not str(request.id).startswith("end-") or not request.answers:
            continue
        answer = request.answers[0][1]
        if request.method == "bridge.getReport":
            if "error" in answer:
                kind = answer["error"]["data"]["kind"]
                row = world.history.story(*request.story).row
                # A clock that is a year ahead makes every report so old that it is deleted.
                is_file = world.plan.setup["ledger"] == "file"
                is_kept = row is not None and is_file and not is_guard_over(world)
                if kind != "report_not_found" or is_kept:
                    world.break_rule(f"{request}: {answer}")
                continue
            # A bridge that could not open its ledger at first names accounts in its own way until it ends.
            record = {name: value for name, value in answer["result"].items() if name != "account"}
            known = records.setdefault(request.story, record)
            if known != record:
                world.break_rule(f"two records of one report: {known} and {record}")
            row = world.history.story(*request.story).row
            told = (record["outcome"], record["attempts"], record["method"])
            is_told = row is None or told == (row.outcome, row.attempts, row.method)
            if not is_told and not world.history.story(*request.story).is_loose:
                world.break_rule(f"{record} is shown, but {row} was committed")
    for request in world.history.requests:
        if request.id == "end-list" and request.answers:
            listed = request.answers[0][1]["result"]["reports"]
            listed = [
                {name: value for name, value in record.items() if name != "account"} for record in listed
            ]
            for record in records.values():
                if record not in listed and world.plan.setup["ledger"] == "file":
                    world.break_rule(f"{record} is not in the list of {request.process.name}")
        if request.id == "end-status" and request.answers:
            check_status(world, request)
    if world.plan.setup["ledger"] == "file":
        check_advice(world)


def check_advice(world: World) -> None:
    """Every bridge of a ledger tells the same advice; how it names accounts may be its own."""
    told: dict[str, list[tuple[str, str]]] = {}
    for request in world.history.requests:
        if request.id == "end-status" and request.answers:
            advice = request.answers[0][1]["result"]["advice"]
            told[request.process.name] = sorted((one["kind"], one["message"]) for one in advice)
    if len({repr(advice) for advice in told.values()}) > 1:
        world.break_rule(f"the bridges advise differently: {told}")


def check_status(world: World, request: Request) -> None:
    """The status counts what was answered."""
    status = request.answers[0][1]["result"]
    process = request.process
    if status["inFlight"] or status["queued"]:
        world.break_rule(f"{process.name} is not at rest: {status}")
    for pause in status["pauses"]:
        if pause["state"] == "probing":
            world.break_rule(f"{process.name}: a probe that never ends: {pause}")
    news: dict[str, int] = {}
    for other in world.history.requests:
        if other.process is process and other.is_report:
            for _, answer in other.answers:
                outcome, data = outcome_of(answer)
                code = answer.get("error", {}).get("code")
                if (
                    outcome is not None
                    and data.get("replayed") is False
                    and code not in (-32011, -32800, -32032)
                ):
                    news[outcome] = news.get(outcome, 0) + 1
    for outcome, count in news.items():
        if status["outcomes"][outcome] < count:
            world.break_rule(f"{process.name} has answered {news}, but counts {status['outcomes']}")


def check_exits(world: World) -> None:
    """Every bridge that was told to end has ended, and says how."""
    for process in world.processes:
        if process.is_alive:
            world.break_rule(f"{process.name} never ended")
        elif process.exit_code is None or (process.output.is_gone and process.exit_code in (0, 74, 75)):
            continue
        elif process.exit_code not in (0, 75):
            world.break_rule(f"{process.name} ended with {process.exit_code}")
