"""``report-bridge call``: one call, done in this process, for shells and people."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from bridge.cli.terminal import print_json, print_text
from bridge.core import exits
from bridge.core.errors import upstream_row, wire_row
from bridge.core.exits import UsageError, exit_for
from bridge.core.resources import load_json
from bridge.core.text import escape, suggest
from bridge.rpc.discovery import Method, methods
from bridge.settings import drop_secrets, load

HELP = "Do one call in this process, with the same ledger and pauses as the service, and print the answer."


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
    drop_secrets(os.environ)
    from bridge.app import run_once

    response = run_once(settings, method.name, params)
    if args.json:
        print_json(response, indent=None)
    else:
        print_text(render(response))
    return exit_for(response)


def find_method(name: str) -> Method:
    """Return the method of this name.

    Raises:
        UsageError: there is none that can be called.
    """
    callable_ones = {method.name: method for method in methods() if method.result}
    if name not in callable_ones:
        nearest = suggest(name, callable_ones)
        raise UsageError(f"There is no such method{nearest} The methods are: {', '.join(callable_ones)}.")
    return callable_ones[name]


def parse_params(method: Method, words: Sequence[str]) -> dict[str, Any]:
    """Turn ``name=value`` words into params, each of the type its schema names.

    Raises:
        UsageError: a word is no pair, a name is no param, or a value has another type.
    """
    properties: Mapping[str, Any] = load_json(f"{method.params}.json").get("properties", {})
    params: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError("Params are written NAME=VALUE, without blanks around the equals sign.")
        if name not in properties:
            nearest = suggest(name, properties)
            known = ", ".join(properties) or "none"
            raise UsageError(f"{method.name} has no param of that name{nearest} Its params: {known}.")
        if name == "clientKey":
            raise UsageError(
                "The key does not belong on a command line, which everybody on this machine can see; "
                "use --key-file, --key-command or the variable ANTICAPTCHA_CLIENT_KEY."
            )
        if name in params:
            raise UsageError(f"The param {name} is given twice.")
        params[name] = _parse_value(name, text, _types(properties[name]))
    return params


def _types(schema: Mapping[str, Any]) -> Sequence[str]:
    reference = schema.get("$ref")
    if reference is not None:
        file, _, pointer = reference.partition("#/definitions/")
        schema = load_json(file)["definitions"][pointer]
    types = schema.get("type", "string")
    return [types] if isinstance(types, str) else types


def _parse_value(name: str, text: str, types: Sequence[str]) -> Any:
    if "integer" in types:
        if text.isascii() and text.isdigit() and len(text) <= 18:
            return int(text)
        raise UsageError(f"The value of {name} is a whole number, such as {name}=123.")
    if "number" in types:
        try:
            number = float(text)
        except ValueError:
            number = inf
        if abs(number) < 1e18:
            return number
        raise UsageError(f"The value of {name} is a number, such as {name}=123.")
    return text


def render(response: Mapping[str, Any]) -> str:
    """Return an answer for people: a headline, then all of it, indented."""
    error = response.get("error")
    content = response.get("result") if error is None else error.get("data", {})
    body = json.dumps(content, indent=2)
    if error is not None:
        return f"{_headline(error)}\n{body}\n"
    if isinstance(content, dict) and content.get("outcome") == "accepted" and "taskId" in content:
        how = (
            "known from before, nothing was sent" if content.get("replayed") else f"{content['elapsedMs']} ms"
        )
        return f"accepted: task {content['taskId']} ({how})\n{body}\n"
    return f"{body}\n"


def _headline(error: Mapping[str, Any]) -> str:
    data = error.get("data", {})
    outcome = data.get("outcome") or "failed"
    sentence = data.get("sentence") or error["message"]
    text = f"{outcome}: {escape(sentence)} ({data.get('kind', 'error')}, code {error['code']})"
    row = upstream_row(error["code"], data.get("errorCode")) if error["code"] > 0 else wire_row(data["kind"])
    return f"{text}\n{row.advice}" if row.advice and exit_for({"error": error}) != exits.DONE else text
