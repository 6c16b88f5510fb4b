"""``report-bridge simulate``: serve the documented upstream API on loopback until a signal ends it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import suppress

from bridge.cli.commands import number
from bridge.cli.terminal import progress
from bridge.core.exits import ConfigError, UsageError
from bridge.ops.process import put_file
from bridge.settings.parsing import parse_integer, parse_seconds

PROGRESS_S = 0.5
"""How often the progress of a scenario is shown on a terminal."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    port = number(parse_integer, 0, 65535, "must be a number from 0 to 65535")
    seconds = number(parse_seconds, 0, 86400, "must be a number of seconds from 0 to 86400")
    add("--port", type=port, default=0, metavar="N", help="port; 0 picks a free one")
    add("--ready-file", metavar="F", help="write the base URL and a newline here once it can be called")
    add("--scenario", metavar="F", help="JSON file that says what happens, and when")
    add("--latency", type=seconds, default=0.0, metavar="S", help="seconds before every answer")
    add("--no-auto", action="store_true", help="unknown task ids are not fresh tasks")
    add("--tls-cert", metavar="F", help="certificate chain (PEM), to serve https")
    add("--tls-key", metavar="F", help="private key (PEM) of the certificate")


def run(args: argparse.Namespace) -> None:
    """Serve until a signal comes.

    Raises:
        UsageError: the flags do not go together.
        ConfigError: a file, the port or the certificate cannot be used.
    """
    from bridge.engine import Engine
    from bridge.simulator import NotValid, Simulator, load_scenario

    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("--tls-cert and --tls-key go together.")
    try:
        scenario = None if args.scenario is None else load_scenario(args.scenario)
    except (NotValid, OSError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise ConfigError(f"The scenario {args.scenario} cannot be used: {reason}.") from None
    engine = Engine(lambda _: simulator.note_bug())
    simulator = Simulator(
        engine,
        port=args.port,
        scenario=scenario,
        auto=not args.no_auto,
        tls=(args.tls_cert, args.tls_key) if args.tls_cert else None,
        latency_s=args.latency,
    )
    ended = engine.waiter()
    try:
        if args.ready_file is not None:
            with suppress(FileNotFoundError):
                os.unlink(args.ready_file)  # one left by an earlier run would tell a port nobody serves
        base_url = simulator.start()
        # Nobody hears of a signal before this greenlet waits.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            engine.on_signal(number, ended.wake)
        if args.ready_file is not None:
            put_file(args.ready_file, f"{base_url}\n".encode("ascii"))
    except OSError as problem:
        where = problem.filename or f"port {args.port} of 127.0.0.1"
        also = " with that certificate" if args.tls_cert else ""
        raise ConfigError(f"Cannot use {where}{also}: {problem.strerror or problem}.") from None
    with simulator:
        for stream, line in ((sys.stderr, f"listening on {base_url}"), (sys.stdout, base_url)):
            with suppress(OSError):  # neither needs a reader
                print(line, file=stream, flush=True)
        with progress("scenario") as tell:

            def show() -> None:
                elapsed_s = length_s = 0.0
                while elapsed_s <= length_s:
                    engine.sleep(PROGRESS_S)
                    elapsed_s, length_s = simulator.progress()
                    tell(int(elapsed_s * 1000), int(length_s * 1000))

            if scenario and scenario.get("steps"):
                engine.spawn(show)
            ended.wait()
