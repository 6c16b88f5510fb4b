"""``report-bridge pauses``: which pauses hold now, and how to end one."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any, Final

from bridge.cli import reading
from bridge.cli.main import print_text
from bridge.cli.moments import show_length, show_time
from bridge.cli.show import Screen
from bridge.core import exits
from bridge.core.errors import find_row
from bridge.core.exits import UsageError
from bridge.core.model import PauseState
from bridge.reports.knowledge import rfc3339
from bridge.reports.pauses import PROOF, PausePolicy
from bridge.settings import drop_secrets, load

HELP = "Show which pauses hold reports back, or turn them into a probe with the next report."
EPILOG = """actions:
  list      the pauses that hold now, why they opened and when they end
  resume    let the next report probe; --scope chooses the pauses

examples:
  report-bridge pauses list
  report-bridge pauses resume --scope key"""

SCOPES: Final = ("key", "address", "method", "quality", "transport")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("action", choices=("list", "resume"), metavar="ACTION", help="list|resume")
    parser.add_argument("--scope", choices=SCOPES, help="resume: only pauses of this scope")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> int:
    """List or resume and return the exit code."""
    return _list(args) if args.action == "list" else _resume(args)


def _list(args: argparse.Namespace) -> int:
    if args.scope is not None:
        raise UsageError("pauses list shows every pause; --scope is for resume.")
    policy = PausePolicy("")
    with reading.reading(args) as (settings, reader):
        endpoint = reading.chosen_endpoint(settings)
        found = [
            (place, state)
            for place, state in reader.pauses()
            if state.key.rule != PROOF and endpoint in (None, place)
        ]
    if args.json:
        shown = [_describe(place, state, policy) for place, state in found]
        print_text(json.dumps({"pauses": shown}, indent=2) + "\n")
        return exits.DONE
    if not found:
        print_text("No pause holds: reports are sent.\n")
        return exits.DONE
    screen = Screen()
    now = time.time()
    rows = []
    for place, state in found:
        parts = dict(policy.parts(state.key))
        about = " ".join(parts.values()) or "this machine"
        opened = "" if state.opened_at is None else show_time(state.opened_at)
        rows.append((policy.scope(state), about, state.cause or "", opened, _ends(state, now), place))
    lines = screen.table(("scope", "about", "cause", "opened (UTC)", "ends", "upstream"), rows, left=6)
    for cause in dict.fromkeys(state.cause for _, state in found if state.cause):
        advice = _advice(cause)
        lines += ["", f"{cause}: {advice}"] if advice else []
    print_text("\n".join(lines) + "\n")
    return exits.DONE


def _ends(state: PauseState, now: float) -> str:
    if state.state == "probing":
        return "a report is probing now"
    if state.ends_at is None:
        return "when a person acts: pauses resume"
    if state.ends_at <= now:
        return "the next report probes"
    return f"in {show_length(state.ends_at - now)}, then the next report probes"


def _advice(cause: str) -> str:
    try:
        return find_row(cause).advice
    except KeyError:
        return ""


def _describe(place: str, state: PauseState, policy: PausePolicy) -> dict[str, Any]:
    return {
        "scope": policy.scope(state),
        "cause": state.cause,
        "state": state.state,
        "openedAt": None if state.opened_at is None else rfc3339(state.opened_at),
        "endsAt": None if state.ends_at is None else rfc3339(state.ends_at),
        "manual": state.ends_at is None,
        **dict(policy.parts(state.key)),
        "endpoint": place,
    }


def _resume(args: argparse.Namespace) -> int:
    with reading.reading(args) as (_, reader):
        # Says it in a sentence if there is no ledger, or none to write, instead of resuming in memory only.
        if (trouble := reader.try_write()) is not None:
            raise trouble
    settings = load(args.given, os.environ)
    drop_secrets(os.environ)
    from bridge.app import run_once

    response = run_once(settings, "bridge.resume", {} if args.scope is None else {"scope": args.scope})
    if "error" in response:
        raise reading.NothingToRead(response["error"]["message"])
    resumed = response["result"]["resumed"]
    if args.json:
        print_text(json.dumps(response["result"], indent=2) + "\n")
    elif not resumed:
        print_text("No pause was to be resumed.\n")
    else:
        scopes = ", ".join(f"{pause['scope']} ({pause['cause']})" for pause in resumed)
        print_text(f"The next report probes: {scopes}.\n")
    return exits.DONE
