"""The page with charts: one file that loads nothing, for a phone or a desk, light or dark.

Everything foreign is escaped. Every chart has its numbers in a table behind it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from bridge import __version__
from bridge.cli import drawing
from bridge.cli.drawing import markup
from bridge.cli.summary import FATES, STATES, WALL_S
from bridge.cli.terminal import share
from bridge.cli.times import show_time
from bridge.core.text import plural

_NAMES: Final = {
    "accepted": "accepted by the API",
    "refused": "refused",
    "unknown": "unknown, perhaps taken",
    "not_sent": "not sent",
    "in_flight": "in flight",
    "error16": "error 16",
    "tooLate": "too late, not sent",
    "other": "other",
    "pauses": "pauses opened",
}


def render_page(summary: dict[str, Any], made_wall: float) -> str:
    """Return the page.

    Args:
        summary: of `bridge.cli.summary.summarise`, with its warnings.
        made_wall: UNIX seconds now.
    """
    if summary["reports"]:
        first, last = _show_time(summary["first"]), _show_time(summary["last"])
        span = f"{plural(summary['reports'], 'report')}, recorded {first} to {last} UTC"
        charts = (_outcomes, _ages, _reasons, _latency, _pauses, _groups)
        content = _totals(summary) + _warnings(summary)
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
    text = _load_template()
    for name, value in fields.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def _load_template() -> str:
    with open(os.path.join(os.path.dirname(__file__), "page.html"), encoding="utf-8") as file:
        return file.read()


def _show_time(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")


def _totals(summary: dict[str, Any]) -> str:
    cards = [
        f'<div style="--c:var(--{name})"><dt>{_NAMES[name]}</dt>'
        f"<dd>{count:,} <small>{share(count, summary['reports'])}</small></dd></div>"
        for name, count in summary["outcomes"].items()
        if count or name != "in_flight"
    ]
    return f'<dl class="totals">{"".join(cards)}</dl>'


def _warnings(summary: dict[str, Any]) -> str:
    if not summary["warnings"]:
        return ""
    items = "".join(f"<li>{markup(warning['message'])}</li>" for warning in summary["warnings"])
    return f'<h2 id="warnings">Warnings</h2><ul class="warnings" aria-labelledby="warnings">{items}</ul>'


# --- charts ----------------------------------------------------------------------------------


def _outcomes(summary: dict[str, Any]) -> str:
    unit, points = summary["timeline"]["unit"], summary["timeline"]["points"]
    shown = [name for name in STATES if any(point[name] for point in points)]
    labels = [point["at"][5:] if unit == "day" else point["at"] for point in points]
    series = {name: [point[name] for point in points] for name in shown}
    title = f"Outcomes by {unit}"
    described = f"Stacked columns, one for each {unit}: {', '.join(_NAMES[name] for name in shown)}."
    rows = [[point["at"], *(f"{point[name]:,}" for name in shown)] for point in points]
    return _figure(
        "outcomes",
        title,
        "",
        drawing.columns("outcomes", title, described, labels, series),
        shown,
        _table([unit, *(_NAMES[name] for name in shown)], rows),
    )


def _ages(summary: dict[str, Any]) -> str:
    ages = summary["ages"]
    title = f"Age of the task at the report, against the {WALL_S}-second wall"
    if not ages["known"]:
        text = "No report told completedAt, so no age is known. Pass the endTime that getTaskResult answers."
        return f'<section class="card"><h2>{markup(title)}</h2><p>{text}</p></section>'
    bins = ages["bins"]
    shown = [name for name in FATES if any(row[name] for row in bins)]
    labels = [str(row["from"]) for row in bins]
    series = {name: [row[name] for row in bins] for name in shown}
    wall = next(index for index, row in enumerate(bins) if row["from"] == WALL_S)
    words = (
        f"Half came within {ages['p50']} s, 95% within {ages['p95']} s. {ages['past60']:,} of "
        f"{ages['known']:,} came after the wall; of {ages['unknown']:,} the age is unknown."
    )
    rows = [[_edge(row, "s"), *(f"{row[name]:,}" for name in shown)] for row in bins]
    return _figure(
        "ages",
        title,
        words,
        drawing.columns("ages", title, words, labels, series, [(wall, f"wall: {WALL_S} s")], True),
        shown,
        _table(["age", *(_NAMES[name] for name in shown)], rows),
        "seconds since the worker finished; steps of 5 s up to the wall, wider after it",
    )


def _edge(row: dict[str, Any], unit: str) -> str:
    return f"{row['from']} {unit} and more" if row["to"] is None else f"{row['from']} to {row['to']} {unit}"


def _reasons(summary: dict[str, Any]) -> str:
    rows = [(row, "refused") for row in summary["refused"]] + [
        (row, "not_sent") for row in summary["notSent"]
    ]
    title = "Why reports were refused or not sent"
    if not rows:
        return f'<section class="card"><h2>{title}</h2><p>None was.</p></section>'
    rows.sort(key=lambda item: -item[0]["reports"])
    drawn = [(f"{row['code']} {row['kind']}", row["reports"], colour) for row, colour in rows[:10]]
    table = [
        [
            str(row["code"]),
            _NAMES[colour],
            f"{row['reports']:,}",
            row["message"] + "".join(f" {cause}: {many:,}." for cause, many in row["causes"].items()),
            row["advice"],
        ]
        for row, colour in rows
    ]
    described = "; ".join(f"{label}: {value:,}" for label, value, _ in drawn)
    return _figure(
        "reasons",
        title,
        "",
        drawing.bars("reasons", title, described, drawn),
        ["refused", "not_sent"],
        _table(["code", "outcome", "reports", "meaning", "what to do"], table, words=(3, 4)),
    )


def _latency(summary: dict[str, Any]) -> str:
    latency = summary["latency"]
    title = "How long the last attempt took"
    if not latency["attempts"]:
        return f'<section class="card"><h2>{title}</h2><p>Nothing was sent.</p></section>'
    bins = latency["bins"]
    while len(bins) > 4 and not bins[-1]["reports"]:
        bins = bins[:-1]
    words = f"Half took at most {latency['p50Ms']:,} ms, 95% at most {latency['p95Ms']:,} ms."
    marks = [(_place(bins, latency["p50Ms"]), "p50"), (_place(bins, latency["p95Ms"]), "p95")]
    if marks[1][0] - marks[0][0] < 1:
        marks = marks[1:]
    rows = [[_edge(row, "ms"), f"{row['reports']:,}"] for row in bins]
    return _figure(
        "latency",
        title,
        words,
        drawing.columns(
            "latency",
            title,
            words,
            [drawing.short(row["from"]) for row in bins],
            {"latency": [row["reports"] for row in bins]},
            marks,
            True,
        ),
        [],
        _table(["latency", "reports"], rows),
        "milliseconds; steps grow to the right",
    )


def _place(bins: list[dict[str, Any]], value: int) -> float:
    for index, row in enumerate(bins):
        if row["to"] is None or value < row["to"]:
            return index + (0.5 if row["to"] is None else (value - row["from"]) / (row["to"] - row["from"]))
    return float(len(bins))


def _pauses(summary: dict[str, Any]) -> str:
    title = "Pauses: when the bridge stopped itself"
    if not summary["pauses"]:
        return f'<section class="card"><h2>{title}</h2><p>No pause opened.</p></section>'
    points = summary["timeline"]["points"]
    unit = summary["timeline"]["unit"]
    labels = [point["at"][5:] if unit == "day" else point["at"] for point in points]
    rows = [
        [row["rule"], row["cause"], f"{row['openings']:,}", _show_time(row["lastHour"])]
        for row in summary["pauses"]
    ]
    described = f"Pauses opened in each {unit}; {sum(row['openings'] for row in summary['pauses'])} in all."
    return _figure(
        "pauses",
        title,
        "",
        drawing.columns(
            "pauses", title, described, labels, {"pauses": [point["pauses"] for point in points]}
        ),
        ["pauses"],
        _table(["rule", "cause", "times", "last"], rows),
    )


def _groups(summary: dict[str, Any]) -> str:
    by = summary["by"]
    names = ("reports", "accepted", "refused", "error16", "unknown", "not_sent")
    rows = [[str(row[by]), *(f"{row[name]:,}" for name in names)] for row in summary["groups"][-400:]]
    table = _table([by, *(name.replace("_", " ").replace("error16", "error 16") for name in names)], rows)
    return (
        f'<section class="card"><h2>By {markup(by)}</h2>'
        f"<details><summary>{plural(len(rows), 'row')}</summary>{table}</details></section>"
    )


def _figure(
    name: str, title: str, words: str, chart: str, legend: Sequence[str], table: str, axis: str = ""
) -> str:
    items = "".join(f'<li><i style="--c:var(--{key})"></i>{_NAMES[key]}</li>' for key in legend)
    return (
        f'<figure role="group" aria-labelledby="{name}-h"><figcaption><h2 id="{name}-h">{markup(title)}</h2>'
        + (f"<p>{markup(words)}</p>" if words else "")
        + "</figcaption>"
        + (f'<ul class="legend">{items}</ul>' if items else "")
        + chart
        + (f'<p class="soft">{markup(axis)}</p>' if axis else "")
        + f"<details><summary>Numbers</summary>{table}</details></figure>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    def cell(tag: str, index: int, text: str) -> str:
        kind = ' class="words"' if index in words else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{kind}{scope}>{markup(text)}</{tag}>"

    top = "".join(cell("th", index, text) for index, text in enumerate(head))
    body = "".join(
        f"<tr>{''.join(cell('td', index, text) for index, text in enumerate(row))}</tr>" for row in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table of numbers"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
