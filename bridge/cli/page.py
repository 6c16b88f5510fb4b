"""The page with charts: one file that loads nothing, for a phone or a desk, light or dark.

Everything foreign is escaped. Every chart has its numbers in a table behind it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from bridge import __version__
from bridge.cli import drawing
from bridge.cli.advice import spell_advice
from bridge.cli.drawing import Picture, markup
from bridge.cli.summary import COLUMNS, FATES, MEANINGS, NAMES, STATES, WALL_S, Rows, count_table
from bridge.cli.terminal import share
from bridge.cli.times import show_time
from bridge.core.text import plural

_AXES: Final = {
    "s": "seconds since the worker finished; steps of 5 s up to the wall, wider after it",
    "ms": "milliseconds; steps grow to the right",
}
_MOST_GROUPS: Final = 400


def render_page(summary: dict[str, Any], made_wall: float) -> str:
    """Return the page.

    Args:
        summary: of `bridge.cli.summary.summarise`, with its advice.
        made_wall: UNIX seconds now.
    """
    if summary["reports"]:
        first, last = _show_time(summary["first"]), _show_time(summary["last"])
        span = f"{plural(summary['reports'], 'report')}, recorded {first} to {last} UTC"
        charts = (_outcomes, _ages, _reasons, _latency, _pauses, _groups)
        content = _totals(summary) + _advice(summary)
        content += f'<div class="charts">{"".join(chart(summary) for chart in charts)}</div>'
    else:
        span = "No report fits."
        content = '<p class="card">There is nothing to show for this span: no report was recorded.</p>'
    fields = {
        "span": markup(span),
        "content": content,
        "notes": "".join(f'<p class="soft">{markup(note)}</p>' for note in summary["notes"]),
        "version": markup(__version__),
        "made": show_time(made_wall, "%Y-%m-%d %H:%M"),
    }
    with open(os.path.join(os.path.dirname(__file__), "page.html"), encoding="utf-8") as file:
        text = file.read()
    for name, value in fields.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def _show_time(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")


def _totals(summary: dict[str, Any]) -> str:
    cards = [
        f'<div style="--c:var(--{name})"><dt>{MEANINGS[name]}</dt>'
        f"<dd>{count:,} <small>{share(count, summary['reports'])}</small></dd></div>"
        for name, count in summary["outcomes"].items()
        if count or name != "in_flight"
    ]
    return f'<dl class="totals">{"".join(cards)}</dl>'


def _advice(summary: dict[str, Any]) -> str:
    items = {
        title: "".join(f"<li>{markup(line)}</li>" for line in lines)
        for title, lines in spell_advice(summary).items()
    }
    return "".join(f'<h2>{title}</h2><ul class="advice">{told}</ul>' for title, told in items.items() if told)


# --- charts ----------------------------------------------------------------------------------


def _outcomes(summary: dict[str, Any]) -> str:
    unit, points = summary["timeline"]["unit"], summary["timeline"]["points"]
    return _columns("outcomes", f"Outcomes by {unit}", unit, points, _used(STATES, points))


def _ages(summary: dict[str, Any]) -> str:
    ages, bins = summary["ages"], summary["ages"]["bins"]
    title = f"Age of the task at the report, against the {WALL_S}-second wall"
    if not ages["known"]:
        return _card(
            title, "No report told completedAt, so no age is known. Pass the endTime of getTaskResult."
        )
    words = (
        f"Half came within {ages['p50']} s, 95% within {ages['p95']} s. {ages['past60']:,} of "
        f"{ages['known']:,} came after the wall; of {ages['unknown']:,} the age is unknown."
    )
    return _columns("ages", title, "s", bins, _used(FATES, bins), words)


def _reasons(summary: dict[str, Any]) -> str:
    title = "Why reports were refused or not sent"
    found = [(row, "refused") for row in summary["refused"]]
    found += [(row, "not_sent") for row in summary["notSent"]]
    if not found:
        return _card(title, "None was.")
    found.sort(key=lambda item: -item[0]["reports"])
    rows = []
    for row, colour in found:
        causes = "".join(f" {cause}: {many:,}." for cause, many in row["causes"].items())
        meaning = row["message"] + causes
        rows.append([str(row["code"]), NAMES[colour], f"{row['reports']:,}", meaning, row["advice"]])
    table = _table(["code", "outcome", "reports", "meaning", "what to do"], rows)
    drawn = [(f"{row['code']} {row['kind']}", row["reports"], colour) for row, colour in found[:10]]
    return _figure("reasons", title, "", ["refused", "not_sent"], drawing.bars(drawn), table)


def _latency(summary: dict[str, Any]) -> str:
    title, latency = "How long the last attempt took", summary["latency"]
    if not latency["attempts"]:
        return _card(title, "Nothing was sent.")
    bins = list(latency["bins"])
    while len(bins) > 4 and not bins[-1]["reports"]:
        bins.pop()
    words = f"Half took at most {latency['p50Ms']:,} ms, 95% at most {latency['p95Ms']:,} ms."
    return _columns("latency", title, "ms", bins, ["reports"], words)


def _pauses(summary: dict[str, Any]) -> str:
    title, timeline = "Pauses: when the bridge stopped itself", summary["timeline"]
    if not summary["pauses"]:
        return _card(title, "No pause opened.")
    words = " ".join(
        f"{row['rule']} ({row['cause']}): {row['openings']:,}, last {_show_time(row['lastHour'])}."
        for row in summary["pauses"]
    )
    return _columns("pauses", title, timeline["unit"], timeline["points"], ["pauses"], words)


def _groups(summary: dict[str, Any]) -> str:
    by, groups = summary["by"], summary["groups"][-_MOST_GROUPS:]
    return (
        f'<section class="card"><h2>By {by}</h2><details open><summary>{plural(len(groups), "row")}</summary>'
        f"{_table(*count_table(by, groups, COLUMNS))}</details></section>"
    )


# --- their parts -----------------------------------------------------------------------------


def _used(names: Sequence[str], rows: Rows) -> list[str]:
    return [name for name in names if any(row[name] for row in rows)]


def _columns(name: str, title: str, unit: str, rows: Rows, shown: Sequence[str], words: str = "") -> str:
    """A figure of what happened by day or hour, or from one edge to the next, with a table of its numbers."""
    is_histogram = "from" in rows[0]
    labels = [drawing.short(row["from"]) if is_histogram else row[unit].partition("-")[2] for row in rows]
    wall = (sum(row["from"] < WALL_S for row in rows), f"wall: {WALL_S} s") if unit == "s" else None
    picture = drawing.columns(labels, rows, shown, wall, is_histogram)
    table = _table(*count_table(unit, rows, shown))
    return _figure(name, title, words, shown, picture, table, _AXES.get(unit, ""))


def _card(title: str, text: str) -> str:
    return f'<section class="card"><h2>{markup(title)}</h2><p>{markup(text)}</p></section>'


def _figure(
    name: str, title: str, words: str, shown: Sequence[str], picture: Picture, table: str, axis: str = ""
) -> str:
    items = "".join(f'<li><i style="--c:var(--{key})"></i>{NAMES[key]}</li>' for key in shown)
    description = words or f"By colour: {', '.join(NAMES[key] for key in shown)}. The table has the numbers."
    return (
        f'<figure role="group" aria-labelledby="{name}-h"><figcaption><h2 id="{name}-h">{markup(title)}</h2>'
        f'<p>{markup(words)}</p></figcaption><ul class="legend">{items}</ul>'
        f"{drawing.image(name, title, description, picture)}"
        f'<p class="soft">{axis}</p><details><summary>Numbers</summary>{table}</details></figure>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{markup(text)}</th>' for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{markup(text)}</td>' for text in row)}</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table of numbers"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
