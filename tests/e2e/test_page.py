"""The page of ``report-bridge stats --html`` in a real browser: three widths, light and dark, no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.cli import main
from scripts.fill_ledger import fill
from tests.browser import Tab, browsing
from tests.ledgers import START, make_ledger

WIDTHS = (360, 768, 1280)

# For every element that shows text of its own: the worst contrast between it and what is behind it.
CONTRAST = """
(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parse(c).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if ((parse(c)[3] ?? 1) > 0) return c; }
    return 'rgb(255,255,255)'; };
  let worst = 21;
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (['TITLE', 'DESC'].includes(e.tagName.toUpperCase())) continue;
    const style = getComputedStyle(e);
    const ink = light(e instanceof SVGElement ? style.fill : style.color), paper = light(behind(e));
    worst = Math.min(worst, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05));
  }
  return worst;
})()
"""
BARS = """
[...new Set([...document.querySelectorAll('.chart i')].map(e => getComputedStyle(e).backgroundColor))].length
"""
SMALLEST = """
Math.min(...[...document.querySelectorAll('.chart li')].map(e => parseFloat(getComputedStyle(e).fontSize)))
"""
OVERLAPS = """
[...document.querySelectorAll('.chart')].flatMap(chart => {
  const boxes = [], range = document.createRange();
  const words = document.createTreeWalker(chart, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    range.selectNodeContents(words.currentNode);
    if (words.currentNode.data.trim()) boxes.push([words.currentNode.data, range.getBoundingClientRect()]);
  }
  const whole = chart.getBoundingClientRect();
  const hit = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  return boxes.flatMap(([text, box], i) => [
    ...(box.left < whole.left - 1 || box.right > whole.right + 1 ? [text + ' is cut'] : []),
    ...boxes.slice(i + 1).filter(([, other]) => hit(box, other)).map(([other]) => text + ' on ' + other)]);
})
"""
# Columns that are not as high, or bars not as wide, as their share of the largest one of their chart.
FALSE = """
[...document.querySelectorAll('.card')].flatMap(card => {
  const side = card.querySelector('.bars') ? 'width' : 'height';
  const drawn = [...card.querySelectorAll('.columns li, .bars li')].map(li =>
    [...li.querySelectorAll('i')].reduce((sum, i) => sum + i.getBoundingClientRect()[side], 0));
  const number = cell => parseInt(cell.textContent.replaceAll(',', ''));
  const told = [...card.querySelectorAll('details tbody tr')].map(row => side === 'width'
    ? number(row.cells[2]) : [...row.cells].slice(1).reduce((sum, cell) => sum + number(cell), 0));
  const most = [Math.max(...drawn), Math.max(...told)];
  return drawn.filter((size, n) => Math.abs(size - told[n] / most[1] * most[0]) > 5);
})
"""


# Rows of cards that are not as high as each other, or do not reach from one side to the other.
HOLES = """
(() => {
  const frame = document.querySelector('.charts').getBoundingClientRect(), rows = new Map();
  for (const card of document.querySelectorAll('.charts > *')) {
    const box = card.getBoundingClientRect();
    rows.set(box.top, [...(rows.get(box.top) ?? []), box]);
  }
  return [...rows.values()].filter(row => Math.abs(row[0].left - frame.left) > 1
    || Math.abs(row.at(-1).right - frame.right) > 1
    || row.some(box => Math.abs(box.bottom - row[0].bottom) > 1)).length;
})()
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for all tests of this file."""
    with browsing(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page with a month of reports, and one with none."""
    folder = tmp_path_factory.mktemp("pages")
    fill(str(folder / "full.sqlite3"), 3000, days=30, until_wall=START)
    make_ledger(folder / "empty.sqlite3")
    made = {}
    for name in ("full", "empty"):
        made[name] = folder / f"{name}.html"
        words = ("stats", "--ledger", str(folder / f"{name}.sqlite3"), "--html", str(made[name]))
        assert main.main(words) == 0
    return made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_readable(tab: Tab, pages: dict[str, Path], width: int, scheme: str) -> None:
    """Nothing is wider than the screen, text stands out, labels keep apart, what is drawn is as told."""
    tab.show(pages["full"], width, scheme)
    assert tab.ask("document.documentElement.scrollWidth") <= width
    assert tab.ask(CONTRAST) >= 4.5
    assert tab.ask(SMALLEST) >= 9.0
    assert tab.ask(OVERLAPS) == []
    assert tab.ask(HOLES) == 0
    assert tab.ask(FALSE) == []
    assert tab.ask(BARS) >= 5
    background = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert len(tab.shoot()) > 20_000


def test_every_chart_has_words_and_numbers(tab: Tab, pages: dict[str, Path]) -> None:
    """Each picture has a title and a description for those who do not see it, and a table that opens."""
    tab.show(pages["full"], 768, "light")
    assert tab.ask("document.querySelectorAll('.chart[role=img]').length") == 5
    named = "[...document.querySelectorAll('.chart')].every(chart => chart.getAttribute('aria-label')"
    assert tab.ask(f"{named}.startsWith(chart.parentElement.querySelector('h2').textContent))")
    tables = "[...document.querySelectorAll('.chart')].every(chart => chart.parentElement"
    assert tab.ask(f"{tables}.querySelector('details table'))")
    tab.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.ask(
        "[...document.querySelectorAll('table')].every(t => t.getBoundingClientRect().height > 20)"
    )
    assert tab.ask("document.documentElement.scrollWidth") <= 768
    assert tab.ask("document.documentElement.lang") == "en"
    assert tab.ask("document.querySelectorAll('h1').length") == 1


def test_the_numbers_fit_on_a_phone(tab: Tab, pages: dict[str, Path]) -> None:
    """Opened tables scroll inside their frame, not the page."""
    tab.show(pages["full"], 360, "light")
    tab.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.ask("document.documentElement.scrollWidth") <= 360


def test_an_empty_page_says_so(tab: Tab, pages: dict[str, Path]) -> None:
    """Without a report there is a sentence and no empty chart."""
    tab.show(pages["empty"], 360, "dark")
    assert "nothing to show" in tab.ask("document.body.innerText")
    assert tab.ask("document.querySelectorAll('.chart').length") == 0


def test_nothing_is_loaded_and_nothing_complains(tab: Tab, pages: dict[str, Path]) -> None:
    """The page asks for itself only, and the browser has nothing to say about it."""
    tab.requests.clear()
    tab.complaints.clear()
    tab.show(pages["full"], 768, "light")
    tab.shoot()
    assert tab.requests == [pages["full"].as_uri()]
    assert tab.complaints == []
