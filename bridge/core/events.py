"""The table of events: every notable thing that can happen while the bridge runs, spelled once.

The log is one reader of it, ``docs/operations.md`` another. A row says how loud the event is, the
sentence a person reads and the fields a program reads. Nothing here logs anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

LEVELS: Final = ("debug", "info", "warning", "error")
"""From the quietest."""


class EventRow(NamedTuple):
    """One kind of event."""

    sentence: str
    """Template over the fields, ``{name}``; a field that is missing is shown as ``?``."""
    description: str
    """When it is said, for the operator's documentation."""
    more: str = ""
    """For the documentation: fields that the sentence does not name, and with ``?`` those that may be null,
    separated by blanks."""
    level: str = "warning"
    """One of `LEVELS`."""


_info: Final = partial(EventRow, level="info")
_PAUSE: Final = "rule subject cause? until doublings"

EVENTS: Final[Mapping[str, EventRow]] = {
    # --- life of the process ---
    "started": _info(
        "report-bridge {version} is ready (process {pid}).",
        "Once, as soon as requests can be taken.",
        "url ledger sandbox",
    ),
    "stopping": _info(
        "Stopping ({reason}); requests still to be answered: {in_flight}.",
        "Once, when no more input is taken; `in_flight` counts requests that were read and not answered yet.",
    ),
    "stopped": _info(
        "Stopped with exit code {exit_code}.",
        "Last event of the process; `undone` counts requests left to recovery and answers that nobody read.",
        "undone",
    ),
    "parent_gone": EventRow(
        "The parent process {parent_pid} is gone: finishing what was accepted, then ending.",
        "The process that started the bridge ended while the pipe stayed open; see `--no-parent-watch`.",
    ),
    "stdout_gone": EventRow(
        "Nobody reads stdout any more: finishing what was accepted, then ending.",
        "Writing an answer failed for good; outcomes are still recorded.",
    ),
    "answers_unread": EventRow(
        "{count} answers could not be written before the end, since nobody read them.",
        "A bridge that was stopped by a signal has waited for its drain time; outcomes are recorded.",
    ),
    "signal_received": _info(
        "{signal} received: stopping within {drain_s} s.",
        "A signal asks the bridge to stop.",
    ),
    "sigint_ignored": EventRow(
        "SIGINT ignored once: the parent decides by closing stdin; the next one stops the bridge.",
        "Ctrl-C reaches the whole foreground group; a parent that lives on still wants its answers.",
    ),
    # --- settings and keys ---
    "setting_unknown": EventRow(
        "The environment variable {name} is not a setting and is ignored. {hint}",
        "A `REPORT_BRIDGE_` variable has a name that no setting has; probably a spelling mistake.",
    ),
    "key_file_loose": EventRow(
        "The key file {path} can be read by others (mode {mode}): run `chmod 600` on it.",
        "Once per file and mode.",
    ),
    "key_loaded": _info(
        "The client key was read from {source}.",
        "The first time a key source gives a key.",
    ),
    "key_reloaded": _info(
        "The client key from {source} was read again and has changed.",
        "A key source gives another key than before.",
    ),
    "key_unreadable": EventRow(
        "The client key cannot be taken from {source}: {reason}{consequence}.",
        "A key source failed after the start; the last good key stays in use if there is one.",
    ),
    # --- the ledger ---
    "ledger_memory": EventRow(
        "The ledger is kept in memory only: {reason}. Duplicates are not known after a restart.",
        "No ledger file can be made, and none was asked for by name.",
        "state? sentence?",
    ),
    "ledger_degraded": EventRow(
        "The ledger cannot be {operation}: {reason}. Reports go on; their outcomes are written later.",
        "The ledger is full, read-only, locked or unreachable; answers say `durable: false`.",
        "state sentence owed?",
    ),
    "ledger_recovered": EventRow(
        "The ledger works again after {down_s} s; {owed} owed outcomes were written.",
        "The first commit after `ledger_degraded`; as loud as that, so that both ends are seen.",
        "state sentence",
    ),
    "ledger_network_fs": EventRow(
        "The ledger {path} is on a network file system ({filesystem}); its locks may fail: use a local path.",
        "Once, when the ledger is opened.",
    ),
    "ledger_modes_repaired": EventRow(
        "{path} could be read by others; its mode was {mode} and has been corrected.",
        "Once per file, when the ledger is opened.",
    ),
    "ledger_directory_loose": EventRow(
        "The ledger's directory {path} can be written by others (mode {mode}): run `chmod 700` on it.",
        "Once, when the ledger is opened.",
    ),
    "ledger_not_durable": EventRow(
        "The ledger's file system does not keep what is committed (SQLite {sqlite}).",
        "Once, when a PRAGMA that was set reads back otherwise.",
    ),
    # --- reports ---
    "report_settled": _info(
        "Report of task {task_id}: {outcome} ({kind}, attempts: {attempts}).",
        "A report has its outcome; `code` is the wire code, 0 for accepted.",
        "method account code elapsed_ms? replayed durable",
    ),
    "attempt_done": EventRow(
        "Attempt {attempt} for task {task_id}: {met} after {latency_ms} ms; next: {next}.",
        "One HTTP attempt ended; `met` is a row of `schemas/errors.json`.",
        "method account http_status? error_id?",
        level="debug",
    ),
    "report_resumed": _info(
        "Report of task {task_id}, left by an earlier process, was taken up again (state {state}).",
        "Recovery after a crash or a stop.",
        "method account",
    ),
    "report_abandoned": EventRow(
        "Report of task {task_id} was left by a bridge that is gone; its window is over: {outcome}.",
        "Nobody who holds the key resumed it in time.",
        "method account",
    ),
    "report_conflict": EventRow(
        "Task {task_id} was reported with {stored_method} before; {method} was refused.",
        "The same task was reported with another method: usually a mistake of the caller.",
        "account outcome?",
    ),
    "clock_skew": EventRow(
        "The local clock differs from the upstream's by {skew_s} s; ages are corrected; set the clock right.",
        "The upstream's Date header differs by more than 2 s; once until it changes by more than 2 s.",
    ),
    "proxy_hint": EventRow(
        "Connecting failed. {variable} is set, but the bridge ignores it: name a proxy with --proxy.",
        "Once, after a connect failure; proxy variables of the environment are never used.",
    ),
    # --- pauses ---
    "pause_opened": EventRow(
        "Sending is paused ({scope}): {cause}. It ends {until}.",
        "The bridge stops itself before the upstream bans the address or the account.",
        _PAUSE,
    ),
    "pause_probing": _info(
        "One report is tried, to see whether the pause ({scope}) is over.",
        "The time of a pause is over or a person resumed it; the next report decides.",
        _PAUSE,
    ),
    "pause_closed": EventRow(
        "The pause ({scope}) has ended.",
        "A verdict showed that the cause is gone; as loud as the opening, so that both ends are seen.",
        _PAUSE,
    ),
    # --- advice ---
    "advice": EventRow(
        "Advice for account {account} ({kind}): {sentence}",
        "Why reports may be worth nothing; at most once an hour for each kind and account.",
    ),
    # --- the wire ---
    "lone_bracket": EventRow(
        "A line holds only a bracket: send one message per line, for example through jq -c.",
        "Once; pretty-printed JSON does not work with line framing.",
    ),
    "empty_input": EventRow(
        "The input ended before anything was read; with docker use run -i.",
        "At the end of input, if it is no terminal and not one byte came.",
    ),
    # --- this program ---
    "metrics_unwritable": EventRow(
        "The metrics file {path} cannot be written: {reason}.",
        "Once until it can be written again; it is tried every 15 s.",
    ),
    "internal_error": EventRow(
        "Internal error in {where}, reference {reference}: {error}",
        "A fault of this program; the caller got only the reference. `trace` only with level debug.",
        "trace?",
        level="error",
    ),
    "log_dropped": EventRow(
        "Log lines dropped because nobody read the log fast enough: {count}.",
        "As soon as the log can be written again.",
    ),
}
"""Event name to row, in the order of the documentation."""


def render_sentence(name: str, fields: Mapping[str, Any]) -> str:
    """Return the sentence of an event with its fields filled in.

    Args:
        name: a row of `EVENTS`.
        fields: numbers and texts for the template; missing ones are shown as ``?``.
    """
    return EVENTS[name].sentence.format_map(defaultdict(lambda: "?", fields))
