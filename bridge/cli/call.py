"""``report-bridge call``: one call, done in this process, for shells and people."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.cli.commands import NO_PLACE_FOR_KEYS
from bridge.cli.terminal import Screen, print_json, print_lines
from bridge.core.errors import find_row, upstream_row
from bridge.core.exits import UsageError, exit_for
from bridge.core.model import ACCEPTED
from bridge.core.resources import load_json
from bridge.core.strict_json import Number
from bridge.core.text import suggest
from bridge.rpc.discovery import Method, methods
from bridge.settings import load


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("method", metavar="METHOD", help="name of a method, such as reportIncorrectRecaptcha")
    parser.add_argument("params", nargs="*", metavar="NAME=VALUE", help="params of the method")
    parser.add_argument("--json", action="store_true", help="print the JSON-RPC response on one line")


def run(args: argparse.Namespace) -> int:
    """Do the call, print the answer and return the exit code that says how it went."""
    method = find_method(args.method)
    params = parse_params(method, args.params)
    settings = load(args.given, os.environ)
    from bridge.app import run_once

    response = run_once(settings, method.name, params)
    if args.json:
        print_json(response, indent=None)
    else:
        print_lines(render(response, Screen()))
    return exit_for(response)


def callable_methods() -> dict[str, Method]:
    """Return the methods that are answered, by name."""
    return {method.name: method for method in methods() if method.result}


def find_method(name: str) -> Method:
    """Return the method of this name.

    Raises:
        UsageError: there is none that can be called.
    """
    known = callable_methods()
    if name not in known:
        names = ", ".join(known)
        raise UsageError(f"There is no such method{suggest(name, known)} The methods are: {names}.")
    return known[name]


def members(method: Method) -> dict[str, dict[str, Any]]:
    """Return the schemas of the params of a method, by name, with what they refer to."""
    found = {}
    for name, schema in load_json(f"{method.params}.json").get("properties", {}).items():
        file, _, pointer = schema.get("$ref", "").partition("#/definitions/")
        found[name] = (load_json(file)["definitions"][pointer] if file else {}) | schema
    return found


def parse_params(method: Method, words: Sequence[str], takes_key: bool = False) -> dict[str, Any]:
    """Turn ``name=value`` words into params, each of the type its schema names.

    Args:
        takes_key: nobody else can see the words, as they were typed into the program.

    Raises:
        UsageError: a word is no pair, a name is no param, or a value has another type.
    """
    properties = members(method)
    params: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError("Params are written NAME=VALUE, without blanks around the equals sign.")
        if name not in properties:
            nearest = suggest(name, properties)
            known = ", ".join(properties) or "none"
            raise UsageError(f"{method.name} has no param of that name{nearest} Its params: {known}.")
        if name == "clientKey" and not takes_key:
            raise UsageError(NO_PLACE_FOR_KEYS)
        if name in params:
            raise UsageError(f"The param {name} is given twice.")
        params[name] = _parse_value(name, text, properties[name]["type"])
    return params


def _parse_value(name: str, text: str, kind: str) -> Any:
    if kind not in ("integer", "number"):
        return text
    if re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):  # as in JSON
        value = Number(text).to_python()
        if 0 <= value < 1e18 and (kind == "number" or isinstance(value, int)):
            return value
    told = "whole number" if kind == "integer" else "number"
    raise UsageError(f"The value of {name} is a {told}, such as {name}=123.")


def render(response: Mapping[str, Any], screen: Screen) -> list[str]:
    """Return the lines of an answer for people: a headline, what to do, then all of it."""
    if (error := response.get("error")) is not None:
        content, code = dict(error["data"]), error["code"]
        outcome, kind = content.pop("outcome", "failed"), content.pop("kind")
        sentence = content.pop("sentence", error["message"])
        if content.get("pointer") == "":
            del content["pointer"]  # the params as a whole: what is missing is in the sentence
        head = screen.wrap(f"{outcome}: {sentence} ({kind}, code {code})")
        row = upstream_row(code, content.get("errorCode")) if code > 0 else find_row(kind)
        if row.advice:
            head += screen.wrap(row.advice)
    else:
        content = dict(response["result"] or {})
        if "openrpc" in content:
            return json.dumps(content, indent=2).split("\n")
        outcome = content.get("outcome")
        if outcome != ACCEPTED or "elapsedMs" not in content:
            return screen.fields(content)
        replayed = "known from before, nothing was sent"
        how = replayed if content["replayed"] else f"{content['elapsedMs']} ms"
        head = [f"accepted: task {content['taskId']} ({how})"]
    head[0] = screen.paint(outcome, outcome) + head[0].removeprefix(outcome)
    return head + screen.fields(content)
