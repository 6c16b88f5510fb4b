"""``report-bridge pauses``: which pauses hold now, and how to end one."""

from __future__ import annotations

import argparse
import time
from contextlib import closing, suppress
from typing import Any, Final

from bridge.cli import ledger
from bridge.cli.terminal import Screen, print_json, print_lines
from bridge.core.errors import find_row
from bridge.core.model import PauseState, Resume
from bridge.engine import SystemClock
from bridge.reports.pauses import PROOF, PausePolicy

SCOPES: Final = ("key", "address", "method", "quality", "transport")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    add = parser.add_argument
    add("action", nargs="?", choices=tuple(_ACTIONS), default="list", metavar="ACTION", help="see below")
    add("--scope", choices=SCOPES, metavar="NAME", help=f"resume: {'|'.join(SCOPES)}, of all accounts")
    add("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> None:
    """List or resume."""
    ledger.run_action("pauses", _ACTIONS, args)


def _list(args: argparse.Namespace) -> None:
    policy = PausePolicy("")
    with ledger.reading(args) as (_, endpoint, reader):
        found = [
            (place, policy.mend_times(time.time(), state))
            for place, state in reader.pauses()
            if state.key.rule != PROOF and endpoint in (None, place)
        ]
    if args.json:
        print_json({"pauses": [_tell(policy, place, state, 0.0) for place, state in found]})
        return
    if not found:
        print_lines(["No pause holds: reports are sent."])
        return
    screen = Screen()
    rows = []
    for place, state in found:
        about = " ".join(dict(policy.parts(state.key)).values()) or "this machine"
        opened = "" if state.opened_at is None else ledger.show_time(state.opened_at)
        rows.append((policy.show(state, 0.0)["scope"], state.cause or "", _ends(state), about, opened, place))
    lines = screen.table(("scope", "cause", "ends", "about", "opened (UTC)", "upstream"), rows, left=6)
    for cause in dict.fromkeys(state.cause for _, state in found if state.cause):
        with suppress(KeyError):
            lines += ["", *screen.wrap(f"{cause}: {find_row(cause).advice}")]
    print_lines(lines)


def _ends(state: PauseState) -> str:
    if state.state == "probing":
        return "one report is being tried"
    if state.ends_at is None:
        return "never by itself: run pauses resume"
    left_s = state.ends_at - time.time()
    if left_s <= 0:
        return "the next report is tried"
    return f"in {ledger.show_length(left_s)}, then one report is tried"


def _resume(args: argparse.Namespace) -> None:
    policy = PausePolicy("")
    resumed: list[dict[str, Any]] = []
    with ledger.reading(args, to_write=True) as (settings, endpoint, reader):
        places = dict.fromkeys(place for place, _ in reader.pauses() if endpoint in (None, place))
        with closing(ledger.open_store(settings)) as store:
            now, wall = SystemClock.now() + store.clock_offset_s, SystemClock.wall()
            for place in places:
                for state in store.transact([Resume(place, args.scope, None)])[0]:
                    resumed.append(_tell(policy, place, policy.mend_times(now, state), wall - now))
    if args.json:
        print_json({"resumed": resumed})
        return
    told = [f"{pause['scope']} ({pause['cause']}) of {pause['endpoint']}" for pause in resumed]
    sentence = f"The next report is tried: {', '.join(told)}." if told else "There was no pause to resume."
    print_lines(Screen().wrap(sentence))


def _tell(policy: PausePolicy, place: str, pause: PauseState, to_wall: float) -> dict[str, Any]:
    """A pause as `bridge.status` has it, with its upstream."""
    about = {"state": pause.state, **dict(policy.parts(pause.key)), "endpoint": place}
    return policy.show(pause, to_wall) | about


_ACTIONS: Final[ledger.Actions] = {"list": (_list, ("json",)), "resume": (_resume, ("json", "scope"))}
