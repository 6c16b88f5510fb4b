"""The door to jsonrpcserver: calls a method by name, with nothing but our own errors coming out.

The envelope has been checked before, each batch member comes alone. Only the library's dispatcher
is loaded, into a package object without its ``__init__``, which imports jsonschema, asyncio and
http.server: that costs more than the rest of our start. Set ``_BRIDGE_PLAIN_IMPORTS=1`` to load it the
plain way (the tests do both).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from inspect import BoundArguments, Signature
from types import ModuleType
from typing import Any, Final

from bridge.core.errors import BridgeError, find_row
from bridge.core.text import nearest
from bridge.rpc.envelope import NO_MARK, Mark

PENDING: Final = object()
"""What a method returns when its answer comes later, through the context it was given."""

Method = Callable[[Any, dict[str, Any]], Any]
"""A method: called with the context and the params by name; returns a JSON-ready result or
`PENDING`; raises `BridgeError`."""


def _load() -> tuple[ModuleType, ModuleType]:
    """Import jsonrpcserver's dispatcher and its result module."""
    if os.environ.get("_BRIDGE_PLAIN_IMPORTS") != "1":
        for name in ("jsonrpcserver", "oslash"):
            spec = None if name in sys.modules else PathFinder.find_spec(name)
            if spec is not None and spec.submodule_search_locations is not None:
                # A package needs only its path for its submodules to be found.
                sys.modules[name] = package = ModuleType(name)
                package.__spec__, package.__path__ = spec, spec.submodule_search_locations
    from jsonrpcserver import dispatcher, result

    # It logs tracebacks with arguments, and arguments hold keys.
    dispatcher.logger.disabled = True
    return dispatcher, result


class Dispatcher:
    """Calls methods by name.

    Args:
        methods: Name to method.
        on_bug: Told of an exception that is not a `BridgeError`; returns the reference to answer with.
        mark: What every result and the data of every error says besides.

    Thread safety: `dispatch` may be called from any thread.
    """

    def __init__(
        self, methods: Mapping[str, Method], on_bug: Callable[[BaseException], str], mark: Mark = NO_MARK
    ) -> None:
        self._on_bug = on_bug
        self.mark = mark
        library, results = _load()
        self._dispatch = library.dispatch_request
        self._request = library.Request
        self._success = results.Success
        self._methods = {name: self._guard(method) for name, method in methods.items()}

    def dispatch(self, name: str, params: Any, context: Any) -> Any:
        """Call a method.

        Args:
            params: The request's params: a dict, a list, or None if there were none.
            context: Handed to the method.

        Returns:
            The method's result, `PENDING`, or the `BridgeError` that it ended in.
        """
        if isinstance(params, list) and name in self._methods:
            return BridgeError("invalid_params", _ARRAY)
        # Its outer layers take texts and batches apart, which has been done. Params are one argument to it.
        _, outcome = self._dispatch(self._methods, context, self._request(name, [params or {}], None))
        value = getattr(outcome, "_value", None)
        if value is not None:
            return value.result
        # One of the library's own: its data may hold input or exception text, so only the code counts.
        code = outcome._error.code
        if code != find_row("method_not_found").code:
            return self.fail(RuntimeError(f"the dispatcher answered {code}"))
        suggestion = nearest(name, self._methods)
        return BridgeError("method_not_found", {"suggestion": suggestion} if suggestion else None)

    def fail(self, bug: BaseException) -> BridgeError:
        """Turn a bug into an internal error with a reference that the log has too."""
        return BridgeError("internal_error", {"reference": self._on_bug(bug)})

    def _guard(self, method: Method) -> Callable[..., Any]:
        def guarded(context: Any, params: dict[str, Any]) -> Any:
            # Errors go through the library as values: its own shape of them would be taken apart again.
            try:
                return self._success(method(context, params))
            except BridgeError as error:
                return self._success(error)
            except Exception as bug:
                return self._success(self.fail(bug))

        # Found here by the library, which would else work it out at every call.
        guarded.__signature__ = _ANYTHING  # type: ignore[attr-defined]
        return guarded


class _Anything(Signature):
    """The signature of what takes any arguments: there is nothing to find out by binding them."""

    def bind(self, *_args: Any, **_kwargs: Any) -> BoundArguments:
        """Bind nothing; the library wants to know whether it fails."""
        return _NOTHING


_ANYTHING: Final = _Anything()
_NOTHING: Final = Signature().bind()
_ARRAY: Final = {
    "pointer": "",
    "rule": "type",
    "sentence": "Params are by name: send an object, not an array.",
}
