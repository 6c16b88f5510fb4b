"""The page with charts: one file that loads nothing, for a phone or a desk, light or dark.

Everything foreign is escaped. Every chart has its numbers in a table behind it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge import __version__
from bridge.cli import drawing
from bridge.cli.advice import spell_claim
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


def _advice(summary: dict[str, Any]) -> str:
    advice = [f"{found['account']}: {found['message']}" for found in summary["advice"]]
    claims = [f"{spell_claim(claim)}." for claim in summary["claims"]]
    return _list("advice", "Advice, from the last 24 hours", advice) + _list(
        "claims", "At stake in the last 24 hours: claims, not refunds", claims
    )


def _list(name: str, title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{markup(line)}</li>" for line in lines)
    return f'<h2 id="{name}">{title}</h2><ul class="advice" aria-labelledby="{name}">{items}</ul>'


# --- charts ----------------------------------------------------------------------------------


def _outcomes(summary: dict[str, Any]) -> str:
    unit, points = summary["timeline"]["unit"], summary["timeline"]["points"]
    shown = [name for name in STATES if any(point[name] for point in points)]
    words = f"Stacked columns, one for each {unit}: {', '.join(_NAMES[name] for name in shown)}."
    chart = _columns("outcomes", f"Outcomes by {unit}", words, _labels(summary), points, shown)
    rows = [[point["at"], *_numbers(point, shown)] for point in points]
    table = _table([unit, *(_NAMES[name] for name in shown)], rows)
    return _figure("outcomes", f"Outcomes by {unit}", "", chart, shown, table)


def _ages(summary: dict[str, Any]) -> str:
    ages, bins = summary["ages"], summary["ages"]["bins"]
    title = f"Age of the task at the report, against the {WALL_S}-second wall"
    if not ages["known"]:
        return _card(
            title, "No report told completedAt, so no age is known. Pass the endTime of getTaskResult."
        )
    shown = [name for name in FATES if any(row[name] for row in bins)]
    wall = next(index for index, row in enumerate(bins) if row["from"] == WALL_S)
    words = (
        f"Half came within {ages['p50']} s, 95% within {ages['p95']} s. {ages['past60']:,} of "
        f"{ages['known']:,} came after the wall; of {ages['unknown']:,} the age is unknown."
    )
    labels = [str(row["from"]) for row in bins]
    chart = _columns("ages", title, words, labels, bins, shown, [(wall, f"wall: {WALL_S} s")], True)
    rows = [[_edge(row, "s"), *_numbers(row, shown)] for row in bins]
    axis = "seconds since the worker finished; steps of 5 s up to the wall, wider after it"
    return _figure(
        "ages", title, words, chart, shown, _table(["age", *(_NAMES[name] for name in shown)], rows), axis
    )


def _reasons(summary: dict[str, Any]) -> str:
    title = "Why reports were refused or not sent"
    found = [(row, "refused") for row in summary["refused"]]
    found += [(row, "not_sent") for row in summary["notSent"]]
    if not found:
        return _card(title, "None was.")
    found.sort(key=lambda item: -item[0]["reports"])
    drawn = [(f"{row['code']} {row['kind']}", row["reports"], colour) for row, colour in found[:10]]
    rows = []
    for row, colour in found:
        causes = "".join(f" {cause}: {many:,}." for cause, many in row["causes"].items())
        meaning = row["message"] + causes
        rows.append([str(row["code"]), _NAMES[colour], f"{row['reports']:,}", meaning, row["advice"]])
    words = "; ".join(f"{label}: {value:,}" for label, value, _ in drawn)
    table = _table(["code", "outcome", "reports", "meaning", "what to do"], rows, words=(3, 4))
    chart = drawing.bars("reasons", title, words, drawn)
    return _figure("reasons", title, "", chart, ["refused", "not_sent"], table)


def _latency(summary: dict[str, Any]) -> str:
    title, latency = "How long the last attempt took", summary["latency"]
    if not latency["attempts"]:
        return _card(title, "Nothing was sent.")
    bins = list(latency["bins"])
    while len(bins) > 4 and not bins[-1]["reports"]:
        bins.pop()
    words = f"Half took at most {latency['p50Ms']:,} ms, 95% at most {latency['p95Ms']:,} ms."
    marks = [(_place(bins, latency["p50Ms"]), "p50"), (_place(bins, latency["p95Ms"]), "p95")]
    if marks[1][0] - marks[0][0] < 1:
        del marks[0]
    series = [{"latency": row["reports"]} for row in bins]
    labels = [drawing.short(row["from"]) for row in bins]
    chart = _columns("latency", title, words, labels, series, ["latency"], marks, True)
    table = _table(["latency", "reports"], [[_edge(row, "ms"), f"{row['reports']:,}"] for row in bins])
    return _figure("latency", title, words, chart, [], table, "milliseconds; steps grow to the right")


def _place(bins: list[dict[str, Any]], value: int) -> float:
    for index, row in enumerate(bins):
        if row["to"] is None or value < row["to"]:
            return index + (0.5 if row["to"] is None else (value - row["from"]) / (row["to"] - row["from"]))
    return float(len(bins))


def _pauses(summary: dict[str, Any]) -> str:
    title, pauses, unit = (
        "Pauses: when the bridge stopped itself",
        summary["pauses"],
        summary["timeline"]["unit"],
    )
    if not pauses:
        return _card(title, "No pause opened.")
    words = f"Pauses opened in each {unit}; {sum(row['openings'] for row in pauses)} in all."
    points = summary["timeline"]["points"]
    chart = _columns("pauses", title, words, _labels(summary), points, ["pauses"])
    rows = [
        [row["rule"], row["cause"], f"{row['openings']:,}", _show_time(row["lastHour"])] for row in pauses
    ]
    return _figure("pauses", title, "", chart, ["pauses"], _table(["rule", "cause", "times", "last"], rows))


def _groups(summary: dict[str, Any]) -> str:
    by = summary["by"]
    names = ("reports", "accepted", "refused", "error16", "unknown", "not_sent")
    rows = [[str(row[by]), *_numbers(row, names)] for row in summary["groups"][-400:]]
    table = _table([by, *(name.replace("_", " ").replace("error16", "error 16") for name in names)], rows)
    return (
        f'<section class="card"><h2>By {markup(by)}</h2>'
        f"<details open><summary>{plural(len(rows), 'row')}</summary>{table}</details></section>"
    )


# --- their parts -----------------------------------------------------------------------------


def _columns(
    name: str,
    title: str,
    words: str,
    labels: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    shown: Sequence[str],
    *options: Any,
) -> str:
    series = {key: [row[key] for row in rows] for key in shown}
    return drawing.columns(name, title, words, labels, series, *options)


def _labels(summary: dict[str, Any]) -> list[str]:
    skipped = 5 if summary["timeline"]["unit"] == "day" else 0
    return [point["at"][skipped:] for point in summary["timeline"]["points"]]


def _numbers(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{row[name]:,}" for name in names]


def _edge(row: dict[str, Any], unit: str) -> str:
    return f"{row['from']} {unit} and more" if row["to"] is None else f"{row['from']} to {row['to']} {unit}"


def _card(title: str, text: str) -> str:
    return f'<section class="card"><h2>{markup(title)}</h2><p>{markup(text)}</p></section>'


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
