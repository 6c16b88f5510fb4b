"""``report-bridge simulate``: serve the documented upstream API on loopback until a signal ends it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from bridge.core import exits

if TYPE_CHECKING:
    from bridge.engine import Engine
    from bridge.simulator import Simulator

HELP = "serve a simulation of the upstream API on loopback, for tests"

PROGRESS_S = 0.5
"""How often the progress of a scenario is shown on a terminal."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.description = (
        "Serves the four report methods with their real rules, and faults by name, on 127.0.0.1. "
        "The base URL goes to stdout. Ends on SIGTERM or SIGINT."
    )
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="port; 0 picks a free one")
    parser.add_argument(
        "--ready-file", metavar="F", help="write the base URL and a newline here once it can be called"
    )
    parser.add_argument("--scenario", metavar="F", help="JSON file that says what happens, and when")
    parser.add_argument(
        "--latency", type=_seconds, default=0.0, metavar="S", help="seconds before every answer"
    )
    parser.add_argument("--no-auto", action="store_true", help="unknown task ids are not fresh tasks")
    parser.add_argument("--tls-cert", metavar="F", help="certificate chain (PEM), to serve https")
    parser.add_argument("--tls-key", metavar="F", help="private key (PEM) of the certificate")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes; returns the exit code."""
    from bridge.engine import Engine
    from bridge.simulator import NotValid, Simulator, load_scenario

    if bool(args.tls_cert) != bool(args.tls_key):
        return _complain("--tls-cert and --tls-key go together", exits.USAGE)
    scenario = None
    if args.scenario is not None:
        try:
            scenario = load_scenario(args.scenario)
        except NotValid as refusal:
            return _complain(f"the scenario {args.scenario} cannot be used: {refusal}", exits.CONFIG)
        except OSError as problem:
            return _complain(f"the scenario {args.scenario} cannot be read: {problem.strerror}", exits.CONFIG)
    engine = Engine(lambda _: simulator.note_bug())
    simulator = Simulator(
        engine,
        port=args.port,
        scenario=scenario,
        auto=not args.no_auto,
        tls=(args.tls_cert, args.tls_key) if args.tls_cert else None,
        latency_s=args.latency,
    )
    has_ended = _end_on_signals(engine)
    try:
        if args.ready_file is not None:
            _remove(args.ready_file)  # one left by an earlier run would tell a port nobody serves
    except OSError as problem:
        return _complain(
            f"the ready file {args.ready_file} cannot be written: {problem.strerror}", exits.CONFIG
        )
    try:
        base_url = simulator.start()
    except OSError as problem:
        where = f"on port {args.port} of 127.0.0.1" if problem.filename is None else "with that certificate"
        return _complain(f"cannot serve {where}: {problem.strerror or problem}", exits.CONFIG)
    with simulator:
        if args.ready_file is not None:
            try:
                write_atomically(args.ready_file, f"{base_url}\n")
            except OSError as problem:
                return _complain(
                    f"the ready file {args.ready_file} cannot be written: {problem.strerror}", exits.CONFIG
                )
        _announce(base_url)
        _wait(simulator, has_ended, bool(scenario and scenario.get("steps")))
    return exits.DONE


def write_atomically(path: str, text: str) -> None:
    """Put a file into place in one step, so that a reader sees all of it or none.

    Raises:
        OSError: the folder cannot be written.
    """
    # In the same folder, because a rename is atomic only inside one file system.
    draft = f"{path}.{os.getpid()}.new"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError:
        _remove(draft)
        raise


def _announce(base_url: str) -> None:
    """Tell the address: to people on stderr, to scripts on stdout. Neither needs a reader."""
    for stream, line in ((sys.stderr, f"listening on {base_url}"), (sys.stdout, base_url)):
        try:
            print(line, file=stream, flush=True)
        except OSError:
            continue


def _end_on_signals(engine: Engine) -> Callable[[float | None], bool]:
    """Return what waits so many seconds (None: for ever) for a signal, and says whether one came."""
    import signal

    waiter = engine.waiter()
    came: list[int] = []

    def note(number: int) -> None:
        came.append(number)
        waiter.wake()

    def has_ended(seconds: float | None) -> bool:
        if not came:
            try:
                waiter.wait(None if seconds is None else engine.now() + seconds)
            except TimeoutError:
                return False
        return True

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        engine.on_signal(getattr(signal, name), note)
    return has_ended


def _wait(simulator: Simulator, has_ended: Callable[[float | None], bool], has_steps: bool) -> None:
    """Wait for a signal; show the progress of a scenario if somebody is looking."""
    shows = has_steps and sys.stderr is not None and sys.stderr.isatty()
    while not has_ended(PROGRESS_S if shows else None):
        elapsed, length, to_come = simulator.progress()
        _show(sys.stderr, progress_line(elapsed, length, to_come, simulator.counters()["requests"]))
        if elapsed > length:
            _show(sys.stderr, "\n")
            shows = False


def progress_line(elapsed_s: float, length_s: float, to_come: int, calls: int) -> str:
    """Return the line that overwrites itself while a scenario runs."""
    share = 1.0 if length_s <= 0 else min(elapsed_s / length_s, 1.0)
    bar = "#" * int(share * 20)
    steps = "1 step" if to_come == 1 else f"{to_come} steps"
    return (
        f"\r[{bar:<20}] {min(elapsed_s, length_s):.0f} of {length_s:.0f} s, {steps} to come, {calls} calls "
    )


def _show(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        return


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _complain(sentence: str, code: int) -> int:
    print(f"report-bridge simulate: {sentence}", file=sys.stderr)
    return code


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("must be a number of seconds from 0 to 86400")
    return seconds
