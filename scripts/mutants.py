"""Makes mutants: copies of a module's syntax tree with one small change.

Classical changes of comparisons, numbers, logic, calls and statements, and of the words of SQL texts.
The order is that of the tree, so the same source gives the same mutants. Used by ``mutate.py``.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from typing import NamedTuple

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
}
_NAMES_OF_TYPES = ("__slots__ = ", "Told = ", "Events = ", "Changes = ", "Landed = ")
_TWINS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE) |[ .]\w+ (=|<|>=|IN) [:('\w]")
_SQL_CHANGES = (
    (r"\bAND\b", "OR"),
    (r"(?<=\w) = (?=[?:'\d])", " <> "),
    (r" <> ", " = "),
    (r" < ", " <= "),
    (r" >= ", " > "),
    (r"(?<= = )NULL", "0"),
    (r"(?<=\W)(?<!\?)\d+\b", "7"),
    (r"'(?=\w)", "'x"),
    (r"\bDESC\b", "ASC"),
    (r"\bDISTINCT\b", ""),
    (r"\bNOT NULL\b", "NULL"),
    (r"\bmax\(", "min("),
    (r"\bmin\(", "max("),
    (r" ORDER BY \w+(, \w+)?", ""),
    (r" LIMIT \?", " LIMIT ? + 1"),
    (r"\bOR REPLACE\b", "OR IGNORE"),
)


class Mutant(NamedTuple):
    """One change. `number` and `variant` say which node of the tree becomes what."""

    number: int
    variant: int
    line: int
    place: str
    """The function, or the module's own level."""
    what: str
    """The line of code and what becomes of a part of it."""


def find_mutants(source: str) -> Iterator[Mutant]:
    """List all mutants of a module."""
    tree = ast.parse(source)
    lines = source.splitlines()
    places = _find_places(tree)
    hidden = _find_hidden(tree)
    for index, node in enumerate(ast.walk(tree)):
        if node in hidden:
            continue
        for variant, (new, label) in enumerate(_vary(node)):
            del new
            line = getattr(node, "lineno", 0)
            text = " ".join(lines[line - 1].split())
            yield Mutant(index, variant, line, places.get(node, "module"), f"{text[:90]}  =>  {label}")


def find_functions(source: str) -> set[str]:
    """Places whose code can be exchanged in a loaded module: functions that nothing is wrapped around."""
    tree = ast.parse(source)
    places = _find_places(tree)
    return {
        f"{places[node]}.{node.name}" if node in places else node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and all(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)
    }


def apply(source: str, mutant: Mutant) -> ast.Module:
    """Make the mutant's tree."""
    tree = ast.parse(source)
    for index, node in enumerate(ast.walk(tree)):
        if index == mutant.number:
            new = _vary(node)[mutant.variant][0]
            break
    _Replacer(node, new).visit(tree)
    return ast.fix_missing_locations(tree)


class _Replacer(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._old:
            return ast.copy_location(self._new, node)
        return self.generic_visit(node)


def _find_places(tree: ast.Module) -> dict[ast.AST, str]:
    places: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        here = places.get(node, "")
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            here = f"{here}.{node.name}" if here else node.name
        for child in ast.iter_child_nodes(node):
            if here:
                places[child] = here
    return places


def _find_hidden(tree: ast.Module) -> set[ast.AST]:
    """What no test can or need notice: docstrings, annotations, messages of errors, assertions."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node)
        elif isinstance(node, (ast.AnnAssign, ast.arg)):
            roots.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            roots.append(node.returns)
        elif isinstance(node, ast.Raise):
            roots.append(node.exc)
        elif isinstance(node, ast.Assert) or ast.unparse(node).startswith(_NAMES_OF_TYPES):
            roots.append(node)
    return {inner for root in roots if root is not None for inner in ast.walk(root)}


def _vary(node: ast.AST) -> list[tuple[ast.AST, str]]:
    """What a node may become, each with words for people."""
    found: list[tuple[ast.AST, str]] = []

    def become(new: ast.AST) -> None:
        found.append((new, _show(node, new)))

    def become_with(**fields: object) -> None:
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        become(new)

    if isinstance(node, ast.Compare):
        for place, old in enumerate(node.ops):
            for other in _COMPARISONS[type(old)]:
                become_with(ops=[*node.ops[:place], other(), *node.ops[place + 1 :]])
    elif isinstance(node, ast.Constant):
        found += [(ast.Constant(value), label) for value, label in _vary_constant(node.value)]
    elif isinstance(node, ast.BoolOp):
        become_with(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        become_with(op=_ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        become(node.operand)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TWINS:
        become_with(func=ast.Name(_TWINS[node.func.id], ast.Load()))
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)) and isinstance(
        node.test, (ast.Name, ast.Attribute, ast.Call)
    ):
        become_with(test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.comprehension) and node.ifs:
        become_with(ifs=[])
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        become_with(value=ast.Constant(None))
    elif _is_removable(node):
        become(ast.Pass())
    return found


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_removable(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    if isinstance(node, ast.Return):
        return node.value is None
    return isinstance(node, (ast.AugAssign, ast.Delete, ast.Continue, ast.Break, ast.Raise))


def _vary_constant(value: object) -> Iterator[tuple[bool | int | float | str, str]]:
    if isinstance(value, bool):
        yield not value, f"{not value}"
    elif isinstance(value, (int, float)):
        yield value + 1, f"{value} -> {value + 1}"
        yield value - 1, f"{value} -> {value - 1}"
    elif isinstance(value, str) and _SQL.search(value):
        for pattern, word in _SQL_CHANGES:
            for match in re.finditer(pattern, value):
                before = value[max(0, match.start() - 25) : match.start()]
                after = value[match.end() : match.end() + 15]
                changed = value[: match.start()] + word + value[match.end() :]
                yield changed, f"...{before}[{match.group()} -> {word}]{after}..."
    elif isinstance(value, str):
        yield "x" + value, f"{value!r} -> {'x' + value!r}"


def _show(old: ast.AST, new: ast.AST) -> str:
    if isinstance(new, ast.Pass):
        return "removed"
    if isinstance(new, ast.comprehension):
        return "without its condition"
    if isinstance(new, (ast.If, ast.While)):
        return f"not {ast.unparse(new.test.operand)}" if isinstance(new.test, ast.UnaryOp) else ""
    return " ".join(ast.unparse(new).split())[:90]
