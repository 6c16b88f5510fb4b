"""A person at the terminal: lines are edited, remembered and completed; answers read as those of `call`.

Used only if stdin is a terminal; programs get the wire protocol and nothing else. A thread asks for the
lines, one at a time: the next one once the last is answered, so that nothing is printed into what is typed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from itertools import count
from typing import Any, Final

from bridge.cli import call
from bridge.cli.ledger import NotPossible, writing
from bridge.cli.terminal import Screen, print_lines, print_text
from bridge.core.exits import UsageError
from bridge.core.redact import Scrubber
from bridge.core.text import hide_keys
from bridge.engine import Engine
from bridge.reports.advice import find_subject

_HELP: Final = ("help", "?")
_QUIT: Final = ("quit", "exit")
_KEPT: Final = 500
"""Lines that are remembered from one time to the next."""


class Console:
    """Reads what is typed, and renders what is answered. To the service it is the reader of its input.

    Args:
        source: the terminal; put back to where others expect it.
        sink: where answers go, perhaps elsewhere: then people see on stderr what they type.
        folder: where a file remembers lines; None: nowhere.
        scrubber: knows the keys, which are never remembered.
        is_raw: answers are printed as they are.
    """

    def __init__(
        self, source: int, sink: int, folder: str | None, scrubber: Scrubber, is_raw: bool = False
    ) -> None:
        os.dup2(source, 0)
        self._elsewhere = None if os.isatty(sink) else StringIO()
        """What the answers go to if that is no terminal: nothing that could show a colour."""
        if self._elsewhere is None:
            os.dup2(sink, 1)
        self._history_path = os.devnull if folder is None else os.path.join(folder, "typed-lines")
        self._scrubber = scrubber
        self.render = None if is_raw else self._render
        """What turns an answer into what a person reads, if anything does."""
        self._edits = os.isatty(1)
        self._readline: Any = None
        self._ids = count(1)
        self._before = termios.tcgetattr(0)

    def start(self, engine: Engine) -> None:
        """Begin; from now on `read` waits for a person."""
        self._engine = engine
        self._answer = engine.waiter()
        if self._edits:
            self._prepare_editing()
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]

    def read(self) -> bytes:
        """Let the person type, and return the message; none once the person, or the service, has ended."""
        self._engine.start_thread(self._ask, "console")
        message: bytes = self._answer.wait()
        return message

    def stop(self) -> None:
        """Read no more, and leave the terminal as it was found."""
        self._answer.wake(b"")
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, self._before)

    def _render(self, payload: bytes) -> bytes:
        response, screen = json.loads(payload), Screen(self._elsewhere)
        answers = response if isinstance(response, list) else [response]
        lines = [line for answer in answers for line in call.render(answer, screen)]
        return "\n".join(lines).encode(sys.stdout.encoding, "backslashreplace")

    # --- in the thread ---------------------------------------------------------------------------

    def _ask(self) -> None:
        message = None
        try:
            while message is None:
                message = self._take(input("> " if self._edits else "").strip())
        except (EOFError, OSError):
            message = b""
            with suppress(OSError):  # The terminal may be gone.
                print_text("\n" if self._edits else "")
        self._engine.call_soon_from_thread(self._answer.wake, message)

    def _take(self, line: str) -> bytes | None:
        """Return the message that a line stands for; empty: the person ends; None: it was dealt with."""
        word, _, rest = line.partition(" ")
        if word in _QUIT:
            return b""
        try:
            if not word or word in _HELP:
                print_lines(_help(rest.strip()) if word else [])
                return None
            message = self._translate(line)
        except UsageError as error:
            self._remember(line, for_good=False)
            print_lines(Screen().wrap(str(error)))
            return None
        self._remember(line, for_good=True)
        return message + b"\n"

    def _translate(self, line: str) -> bytes:
        """Turn ``method name=value ...`` into a request; leave JSON as it is."""
        if line[:1] in ("{", "["):
            return line.encode("utf-8", "surrogateescape")
        name, *pairs = line.split()
        method = call.find_method(name)
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method.name}
        if params := call.parse_params(method, pairs, takes_key=True):
            request["params"] = params
        return json.dumps(request).encode("ascii")

    # --- editing ---------------------------------------------------------------------------------

    def _prepare_editing(self) -> None:
        try:
            import readline
        except ImportError:  # a Python that was built without it: lines are taken as the terminal gives them
            return
        self._readline = readline
        readline.set_auto_history(False)
        readline.set_completer_delims(" ")
        readline.set_completer(self._complete)
        is_editline = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_editline else "tab: complete")
        for line in self._load_history():
            readline.add_history(line)

    def _complete(self, text: str, state: int) -> str | None:
        """Return the nth word that begins with a text; readline asks until there is none."""
        before = self._readline.get_line_buffer()[: self._readline.get_begidx()].split()
        return next((word for n, word in enumerate(complete(before, text)) if n == state), None)

    def _load_history(self) -> list[str]:
        with suppress(OSError), open(self._history_path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()[-_KEPT:]
        return []

    def _remember(self, line: str, for_good: bool) -> None:
        """Keep a line, to be brought back by the arrow keys; one that may hold a key is kept nowhere."""
        if self._readline is None or may_hold_key(line) or self._scrubber.scrub(line) != line:
            return
        if not line.isprintable():  # no text, or it would be more than one line in the file
            return
        self._readline.add_history(line)
        if for_good:
            kept = [*self._load_history(), line][-_KEPT:]
            with suppress(OSError, NotPossible):
                os.makedirs(os.path.dirname(self._history_path), 0o700, exist_ok=True)
                with writing(self._history_path) as write:
                    write("".join(f"{old}\n" for old in kept))


def may_hold_key(line: str) -> bool:
    """True if a line may hold a key that nobody has learnt yet, escaped or in the place of another value.

    Numbers as long as a task id and names of task types, which look like keys, are none.
    """
    if "key" in line.lower() or "\\" in line:
        return True
    words = re.findall("[0-9A-Za-z]{16,}", line)
    return any(
        hide_keys(word) != word and not re.fullmatch("[0-9]{16,18}", word) and find_subject(word) is None
        for word in words
    )


def complete(before: list[str], text: str) -> Iterator[str]:
    """Yield what a word may become.

    Args:
        before: the words before it: none, and it is a method or a word of the terminal's own.
        text: what is typed of it.
    """
    known = call.callable_methods()
    if not before or (before[0] in _HELP and len(before) == 1):
        words = [f"{name} " for name in (*known, *(_HELP[:1] + _QUIT if not before else ()))]
    elif before[0] in known:
        given = [word.partition("=")[0] for word in before]
        words = [f"{name}=" for name in call.members(known[before[0]]) if name not in given]
    else:
        words = []
    return (word for word in words if word.startswith(text))


def _help(about: str) -> list[str]:
    screen = Screen()
    known = call.callable_methods()
    if about in known:
        lines = screen.wrap(known[about].summary, always=True)
        for name, schema in call.members(known[about]).items():
            what = schema.get("description", "").partition(" Source:")[0]
            lines += screen.wrap(what, f"  {name:<13} ", always=True)
        return lines
    if about:
        from bridge.cli.help import explain

        return explain(about)
    lines = ["A line is a method with its params, or one JSON-RPC message:"]
    lines += ["", "  reportIncorrectImageCaptcha taskId=123", "", "Methods:"]
    for name, method in known.items():
        lines += screen.wrap(method.summary, f"  {name:<28} ", always=True)
    return [
        *lines,
        "",
        "help METHOD lists its params, help 16 explains an error. Tab completes,",
        "the arrow keys bring lines back. quit, exit or Ctrl-D ends.",
    ]
