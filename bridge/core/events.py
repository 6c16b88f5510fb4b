"""The table of events: every notable thing that can happen while the bridge runs, spelled once.

The log is one reader of it, ``docs/operations.md`` another. A row says how loud the event is, the
sentence a person reads and the fields a program reads. Nothing here logs anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40

LEVELS: Final[Mapping[str, int]] = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
LEVEL_NAMES: Final[Mapping[int, str]] = {number: name for name, number in LEVELS.items()}


class EventRow(NamedTuple):
    """One kind of event."""

    level: int
    sentence: str
    """Template over the fields, ``{name}``; a field that is missing is shown as ``?``."""
    fields: Mapping[str, str]
    """Field name to type: ``string`` ``integer`` ``number`` ``boolean``, with ``?`` if it may be null."""
    description: str
    """When it is said, for the operator's documentation."""


_TASK: Final = {"task_id": "integer", "method": "string", "account": "string"}
_PAUSE: Final = {
    "rule": "string",
    "scope": "string",
    "subject": "string",
    "cause": "string?",
    "until": "string",
    "doublings": "integer",
}

EVENTS: Final[Mapping[str, EventRow]] = {
    # --- life of the process ---
    "started": EventRow(
        INFO,
        "report-bridge {version} is ready (process {pid}).",
        {"version": "string", "pid": "integer", "url": "string", "ledger": "string", "sandbox": "boolean"},
        "Once, as soon as requests can be taken.",
    ),
    "stopping": EventRow(
        INFO,
        "Stopping ({reason}); requests still to be answered: {in_flight}.",
        {"reason": "string", "in_flight": "integer"},
        "Once, when no more input is taken; `in_flight` counts requests that were read and not answered yet.",
    ),
    "stopped": EventRow(
        INFO,
        "Stopped with exit code {exit_code}.",
        {"exit_code": "integer", "undone": "integer"},
        "Last event of the process; `undone` counts requests left to recovery.",
    ),
    "parent_gone": EventRow(
        WARNING,
        "The parent process {parent_pid} is gone: finishing what was accepted, then ending.",
        {"parent_pid": "integer"},
        "The process that started the bridge ended while the pipe stayed open; see `--no-parent-watch`.",
    ),
    "stdout_gone": EventRow(
        WARNING,
        "Nobody reads stdout any more: finishing what was accepted, then ending.",
        {},
        "Writing an answer failed for good; outcomes are still recorded.",
    ),
    "signal_received": EventRow(
        INFO,
        "{signal} received: stopping within {drain_s} s.",
        {"signal": "string", "drain_s": "number"},
        "A signal asks the bridge to stop.",
    ),
    "sigint_ignored": EventRow(
        WARNING,
        "SIGINT ignored once: the parent decides by closing stdin; the next one stops the bridge.",
        {},
        "Ctrl-C reaches the whole foreground group; a parent that lives on still wants its answers.",
    ),
    # --- settings and keys ---
    "setting_unknown": EventRow(
        WARNING,
        "The environment variable {name} is not a setting and is ignored. {hint}",
        {"name": "string", "hint": "string"},
        "A `REPORT_BRIDGE_` variable has a name that no setting has; probably a spelling mistake.",
    ),
    "key_file_loose": EventRow(
        WARNING,
        "The key file {path} can be read by others (mode {mode}): run `chmod 600` on it.",
        {"path": "string", "mode": "string"},
        "Once per file and mode.",
    ),
    "key_loaded": EventRow(
        INFO,
        "The client key was read from {source}.",
        {"source": "string"},
        "The first time a key source gives a key.",
    ),
    "key_reloaded": EventRow(
        INFO,
        "The client key from {source} was read again and has changed.",
        {"source": "string"},
        "A key source gives another key than before.",
    ),
    "key_unreadable": EventRow(
        WARNING,
        "The client key cannot be taken from {source}: {reason}{consequence}.",
        {"source": "string", "reason": "string", "consequence": "string"},
        "A key source failed after the start; the last good key stays in use if there is one.",
    ),
    # --- the ledger ---
    "ledger_memory": EventRow(
        WARNING,
        "The ledger is kept in memory only: {reason}. Duplicates are not known after a restart.",
        {"reason": "string", "state": "string?", "sentence": "string?"},
        "No ledger file can be made, and none was asked for by name.",
    ),
    "ledger_degraded": EventRow(
        WARNING,
        "The ledger cannot be {operation}: {reason}. Reports go on; their outcomes are written later.",
        {
            "operation": "string",
            "reason": "string",
            "state": "string",
            "sentence": "string",
            "owed": "integer?",
        },
        "The ledger is full, read-only, locked or unreachable; answers say `durable: false`.",
    ),
    "ledger_recovered": EventRow(
        WARNING,
        "The ledger works again after {down_s} s; {owed} owed outcomes were written.",
        {"down_s": "number", "owed": "integer", "state": "string", "sentence": "string"},
        "The first commit after `ledger_degraded`; as loud as that, so that both ends are seen.",
    ),
    "ledger_network_fs": EventRow(
        WARNING,
        "The ledger {path} is on a network file system ({filesystem}); its locks may fail: use a local path.",
        {"path": "string", "filesystem": "string"},
        "Once, when the ledger is opened.",
    ),
    "ledger_modes_repaired": EventRow(
        WARNING,
        "{path} could be read by others; its mode was {mode} and has been corrected.",
        {"path": "string", "mode": "string"},
        "Once per file, when the ledger is opened.",
    ),
    "ledger_directory_loose": EventRow(
        WARNING,
        "The ledger's directory {path} can be written by others (mode {mode}): run `chmod 700` on it.",
        {"path": "string", "mode": "string"},
        "Once, when the ledger is opened.",
    ),
    "ledger_wal_kept": EventRow(
        WARNING,
        "The ledger stays in WAL mode because others use it; SQLite {sqlite} has a known fault there.",
        {"sqlite": "string"},
        "Once, when the ledger is opened with a version of SQLite that should not use WAL.",
    ),
    "ledger_not_durable": EventRow(
        WARNING,
        "The ledger's file system does not keep what is committed (SQLite {sqlite}).",
        {"sqlite": "string"},
        "Once, when a PRAGMA that was set reads back otherwise.",
    ),
    # --- reports ---
    "report_settled": EventRow(
        INFO,
        "Report of task {task_id}: {outcome} ({kind}, attempts: {attempts}).",
        {
            **_TASK,
            "outcome": "string",
            "code": "integer",
            "kind": "string",
            "attempts": "integer",
            "elapsed_ms": "integer?",
            "replayed": "boolean",
            "durable": "boolean",
        },
        "A report has its outcome; `code` is the wire code, 0 for accepted.",
    ),
    "attempt_done": EventRow(
        DEBUG,
        "Attempt {attempt} for task {task_id}: {met} after {latency_ms} ms; next: {next}.",
        {
            **_TASK,
            "attempt": "integer",
            "met": "string",
            "next": "string",
            "http_status": "integer?",
            "error_id": "integer?",
            "latency_ms": "integer",
        },
        "One HTTP attempt ended; `met` is a row of `schemas/errors.json`.",
    ),
    "report_resumed": EventRow(
        INFO,
        "Report of task {task_id}, left by an earlier process, was taken up again (state {state}).",
        {**_TASK, "state": "string"},
        "Recovery after a crash or a stop.",
    ),
    "report_abandoned": EventRow(
        WARNING,
        "Report of task {task_id} was left by a bridge that is gone; its window is over: {outcome}.",
        {**_TASK, "outcome": "string"},
        "Nobody who holds the key resumed it in time.",
    ),
    "report_conflict": EventRow(
        WARNING,
        "Task {task_id} was reported with {stored_method} before; {method} was refused.",
        {**_TASK, "stored_method": "string", "outcome": "string?"},
        "The same task was reported with another method: usually a mistake of the caller.",
    ),
    "clock_skew": EventRow(
        WARNING,
        "The local clock differs from the upstream's by {skew_s} s; ages are corrected; set the clock right.",
        {"skew_s": "number"},
        "The upstream's Date header differs by more than 2 s; once until it changes by more than 2 s.",
    ),
    "proxy_hint": EventRow(
        WARNING,
        "Connecting failed. {variable} is set, but the bridge ignores it: name a proxy with --proxy.",
        {"variable": "string"},
        "Once, after a connect failure; proxy variables of the environment are never used.",
    ),
    # --- pauses ---
    "pause_opened": EventRow(
        WARNING,
        "Sending is paused ({scope}): {cause}. It ends {until}.",
        _PAUSE,
        "The bridge stops itself before the upstream bans the address or the account.",
    ),
    "pause_probing": EventRow(
        INFO,
        "One report is tried, to see whether the pause ({scope}) is over.",
        _PAUSE,
        "The time of a pause is over or a person resumed it; the next report decides.",
    ),
    "pause_closed": EventRow(
        WARNING,
        "The pause ({scope}) has ended.",
        _PAUSE,
        "A verdict showed that the cause is gone; as loud as the opening, so that both ends are seen.",
    ),
    # --- advice ---
    "advice": EventRow(
        WARNING,
        "Advice for account {account} ({kind}): {sentence}",
        {"account": "string", "kind": "string", "sentence": "string"},
        "Why reports may be worth nothing; at most once an hour for each kind and account.",
    ),
    # --- the wire ---
    "lone_bracket": EventRow(
        WARNING,
        "A line holds only a bracket: send one message per line, for example through jq -c.",
        {},
        "Once; pretty-printed JSON does not work with line framing.",
    ),
    "empty_input": EventRow(
        WARNING,
        "The input ended before anything was read; with docker use run -i.",
        {},
        "At the end of input, if it is no terminal and not one byte came.",
    ),
    # --- this program ---
    "metrics_unwritable": EventRow(
        WARNING,
        "The metrics file {path} cannot be written: {reason}.",
        {"path": "string", "reason": "string"},
        "Once until it can be written again; it is tried every 15 s.",
    ),
    "internal_error": EventRow(
        ERROR,
        "Internal error in {where}, reference {reference}: {error}",
        {"reference": "string", "where": "string", "error": "string", "trace": "string?"},
        "A fault of this program; the caller got only the reference. `trace` only with level debug.",
    ),
    "library_message": EventRow(
        DEBUG,
        "{library}: {text}",
        {"library": "string", "severity": "string", "text": "string"},
        "What a library said through the standard logging module.",
    ),
    "log_dropped": EventRow(
        WARNING,
        "Log lines dropped because nobody read the log fast enough: {count}.",
        {"count": "integer"},
        "As soon as the log can be written again.",
    ),
}
"""Event name to row, in the order of the documentation."""


class _Shown(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return "?"


def render_sentence(name: str, fields: Mapping[str, Any]) -> str:
    """Return the sentence of an event with its fields filled in; never raises.

    Args:
        name: a row of `EVENTS`; an unknown one is rendered as the bare name and its fields.
        fields: values for the template; missing ones are shown as ``?``.
    """
    row = EVENTS.get(name)
    if row is None:
        return f"{name} {dict(fields)!r}" if fields else name
    try:
        return row.sentence.format_map(_Shown(fields))
    except Exception:
        # A value that cannot be formatted must not cost the line.
        return row.sentence
