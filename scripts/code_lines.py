"""Counts the lines of code of the program, room by room, and says how far they are above what is wanted.

A line counts if a token of code stands on it: no blank line, no comment, no docstring.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent / "bridge"
WANTED: Final = 13_000
"""Lines of the whole program."""
SERVING: Final = 7_500
"""Lines of what serves: everything but the commands for people and the simulator."""
NOT_SERVING: Final = frozenset({"cli", "simulator"})
_NO_CODE: Final = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
)


def count_lines(source: str) -> int:
    """Count the lines of code of one module."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def main() -> int:
    """Print the count."""
    rooms: Counter[str] = Counter()
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        rooms[parts[0] if len(parts) > 1 else "."] += count_lines(path.read_text(encoding="utf-8"))
    serving = sum(count for room, count in rooms.items() if room not in NOT_SERVING)
    told = ", ".join(f"{room} {count:,}" for room, count in sorted(rooms.items()))
    total = sum(rooms.values())
    print(f"code lines: {total:,}, wanted {WANTED:,}; serving part {serving:,}, wanted {SERVING:,} ({told})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
