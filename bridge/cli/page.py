"""The page with charts: one file that loads nothing, for a phone or a desk, light or dark.

Everything foreign is escaped. Every chart has its numbers in a table behind it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from bridge import __version__
from bridge.cli import drawing, summary
from bridge.cli.advice import spell_advice
from bridge.cli.drawing import Picture, markup
from bridge.cli.terminal import share
from bridge.cli.times import show_time
from bridge.core.text import plural

_AXES: Final = {
    "s": "seconds since the worker finished; steps of 5 s up to the wall, wider after it",
    "ms": "milliseconds; steps grow to the right",
}
_MOST_GROUPS: Final = 400


def render_page(facts: dict[str, Any], made_wall: float) -> str:
    """Return the page.

    Args:
        facts: of `bridge.cli.summary.summarise`, with its advice.
        made_wall: UNIX seconds now.
    """
    if facts["reports"]:
        first, last = _show_time(facts["first"]), _show_time(facts["last"])
        span = f"{plural(facts['reports'], 'report')}, recorded {first} to {last} UTC"
        timeline, ages = facts["timeline"], facts["ages"]
        told = " ".join(summary.tell_pauses(facts["pauses"]))
        charts = (
            _columns("outcomes", "Outcomes over time", summary.STATES, **timeline),
            _columns("ages", summary.AGES, summary.FATES, "s", ages["bins"], summary.tell_ages(ages)),
            _reasons(facts),
            _latency(facts["latency"]),
            _columns("pauses", "Pauses: when the bridge stopped itself", ["pauses"], **timeline, words=told),
            _groups(facts),
        )
        content = f'{_totals(facts)}{_advice(facts)}<div class="charts">{"".join(charts)}</div>'
    else:
        span = "No report fits."
        content = '<p class="card">There is nothing to show for this span: no report was recorded.</p>'
    fields = {
        "span": markup(span),
        "content": content,
        "notes": "".join(f'<p class="soft">{markup(note)}</p>' for note in facts["notes"]),
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


def _totals(facts: dict[str, Any]) -> str:
    cards = [
        f'<div style="--c:var(--{name})"><dt>{summary.MEANINGS[name]}</dt>'
        f"<dd>{count:,} <small>{share(count, facts['reports'])}</small></dd></div>"
        for name, count in facts["outcomes"].items()
        if count or name != "in_flight"
    ]
    return f'<dl class="totals">{"".join(cards)}</dl>'


def _advice(facts: dict[str, Any]) -> str:
    items = {
        title: "".join(f"<li>{markup(line)}</li>" for line in lines)
        for title, lines in spell_advice(facts).items()
    }
    return "".join(f'<h2>{title}</h2><ul class="advice">{told}</ul>' for title, told in items.items() if told)


# --- charts ----------------------------------------------------------------------------------


def _reasons(facts: dict[str, Any]) -> str:
    title = "Why reports were refused or not sent"
    found = [(row, "refused") for row in facts["refused"]]
    found += [(row, "not_sent") for row in facts["notSent"]]
    if not found:
        return _card(title, "None was.")
    found.sort(key=lambda item: -item[0]["reports"])
    rows = []
    for row, colour in found:
        causes = "".join(f" {cause}: {many:,}." for cause, many in row["causes"].items())
        meaning = row["message"] + causes
        rows.append([str(row["code"]), summary.NAMES[colour], f"{row['reports']:,}", meaning, row["advice"]])
    table = _table(["code", "outcome", "reports", "meaning", "what to do"], rows)
    drawn = [(f"{row['code']} {row['kind']}", row["reports"], colour) for row, colour in found[:10]]
    return _figure("reasons", title, "", ["refused", "not_sent"], drawing.bars(drawn), table)


def _latency(latency: dict[str, Any]) -> str:
    title, words = "How long the last attempt took", "Nothing was sent."
    if latency["attempts"]:
        words = f"Half took at most {latency['p50Ms']:,} ms, 95% at most {latency['p95Ms']:,} ms."
    bins = list(latency["bins"])
    while len(bins) > 4 and not bins[-1]["reports"]:
        bins.pop()
    return _columns("latency", title, ["reports"], "ms", bins, words)


def _groups(facts: dict[str, Any]) -> str:
    by, groups = facts["by"], facts["groups"][-_MOST_GROUPS:]
    return (
        f'<section class="card"><h2>By {by}</h2><details open><summary>{plural(len(groups), "row")}</summary>'
        f"{_table(*summary.count_table(by, groups, summary.COLUMNS))}</details></section>"
    )


# --- their parts -----------------------------------------------------------------------------


def _columns(
    name: str, title: str, names: Sequence[str], unit: str, rows: summary.Rows, words: str = ""
) -> str:
    """What happened by day or hour, or from one edge to the next, with a table of its numbers.

    Args:
        names: what is counted; of that, what there is none of is not shown.
        words: if there is nothing at all, all that is shown.
    """
    shown = [name for name in names if any(row[name] for row in rows)]
    if not shown:
        return _card(title, words)
    labels = [drawing.short(row["from"]) if "from" in row else row[unit].partition("-")[2] for row in rows]
    wall = (summary.WALL_AT, f"wall: {summary.WALL_S} s") if unit == "s" else None
    picture = drawing.columns(labels, rows, shown, wall)
    table = _table(*summary.count_table(unit, rows, shown))
    return _figure(name, title, words, shown, picture, table, _AXES.get(unit, ""))


def _card(title: str, text: str) -> str:
    return f'<section class="card"><h2>{markup(title)}</h2><p>{markup(text)}</p></section>'


def _figure(
    name: str, title: str, words: str, shown: Sequence[str], picture: Picture, table: str, axis: str = ""
) -> str:
    items = "".join(f'<li><i style="--c:var(--{key})"></i>{summary.NAMES[key]}</li>' for key in shown)
    description = (
        words or f"By colour: {', '.join(summary.NAMES[key] for key in shown)}. The table has the numbers."
    )
    height, content = picture
    return (
        f'<figure role="group" aria-labelledby="{name}-h"><figcaption><h2 id="{name}-h">{markup(title)}</h2>'
        f'<p>{markup(words)}</p></figcaption><ul class="legend">{items}</ul>'
        f'<svg viewBox="0 0 {drawing.WIDTH} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{markup(title)}</title><desc id="{name}-d">{markup(description)}</desc>'
        f"{content}</svg>"
        f'<p class="soft">{axis}</p><details><summary>Numbers</summary>{table}</details></figure>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{markup(text)}</th>' for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{markup(text)}</td>' for text in row)}</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table of numbers"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
