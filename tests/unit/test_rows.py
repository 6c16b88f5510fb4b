"""Tests of how reports, pauses and counts are written down."""

from __future__ import annotations

import json
import re

import pytest

from bridge.core.counting import Counts, Figure, Tallied, Tally
from bridge.core.model import Listing, PauseKey, PauseState, Task
from bridge.ledger import rows


def test_what_has_no_hash_is_told_too() -> None:
    """A list among the values is written as any other value."""
    assert rows.encode_told("odd", {"seen": [1, "é"]}) == r'{"seen":[1,"\u00e9"]}'


def test_no_number_is_written_that_json_does_not_have() -> None:
    """Such a value is a fault of the program and stays one."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        rows.encode({"at": float("nan")})


def test_counts_and_figures_are_put_together_by_account() -> None:
    """Texts are taken for numbers, times are moved to the timeline; who has one of both only is there too."""
    shift_s = 5.5
    tallies = [
        ("https://u", "one", "20", "image", "7", "3", "2", "0.5", "1", "4", "0", "6"),
        ("https://u", "one", 3600, "recaptcha", 2, 1, 0, 0.0, 0, 0, 0, 0),
        ("https://u", "two", 20, "image", 8, 1, 0, 0.0, 0, 0, 0, 0),
    ]
    figures = [
        ("https://u", "two", json.dumps({"": [[100, 9]], "Q": [[200, 1], [300.5, 2]]})),
        ("https://v", "three", json.dumps({"": []})),
    ]
    assert set(rows.group_tallied(tallies, figures, shift_s)) == {
        Tallied(
            Task("https://u", "one", 0),
            (
                Tally("image", 20, 145.5, Counts(3, 2, 0.5, 1, 4, 0, 6)),
                Tally("recaptcha", 3600, 7205.5, Counts(1)),
            ),
            (),
        ),
        Tallied(
            Task("https://u", "two", 0),
            (Tally("image", 20, 165.5, Counts(1)),),
            (Figure("", 105.5, 9), Figure("Q", 205.5, 1), Figure("Q", 306.0, 2)),
        ),
        Tallied(Task("https://v", "three", 0), (), ()),
    }
    assert rows.to_tally(tallies[0][2:]).at == 140.0
    assert rows.to_figures('{"Q":[[200,1]]}') == (Figure("Q", 200.0, 1),)
    [unmoved] = rows.group_tallied(tallies[:1], [])
    assert unmoved.tallies[0].at == 140.0


@pytest.mark.parametrize("recent", [(), ((1.5, "a"), (2.0, "b"))])
def test_a_pause_comes_back_as_it_was(recent: tuple[tuple[float, str], ...]) -> None:
    """With what it has seen, which is written as nothing if it is nothing."""
    state = PauseState(PauseKey("quality", "a/b"), streak=2, recent=recent)
    values = rows.from_pause(state)
    assert rows.to_pause(values) == state
    assert values[rows.PAUSE_COLUMNS.index("recent")] == (json.dumps(recent, separators=(",", ":")))


def test_every_value_of_a_listing_has_its_mark_and_a_type_that_every_store_knows() -> None:
    """PostgreSQL asks for the types; and only what is no secret of the index is spelled out."""
    listing = Listing("https://u", 1.0, 2.0, "refused", "reportIncorrectImageCaptcha", before_seq=99)
    statement, values = rows.select_listing(listing)
    marks = re.findall(r"(\S+|recorded_wall) (=|<|>=) CAST\(\$(\d) AS (\w+)\)", statement)
    assert values == ["https://u", 99, 1.0, 2.0, "reportIncorrectImageCaptcha"]
    assert [(place, kind) for _, _, place, kind in marks] == [
        ("1", "text"), ("2", "bigint"), ("3", "float8"), ("3", "float8"), ("4", "float8"), ("4", "float8"),
        ("5", "text"),
    ]  # fmt: skip
    assert "r.outcome = 'refused' AND r.outcome <> 'accepted' AND r.method = CAST($5 AS text)" in statement
    accepted, _ = rows.select_listing(Listing(None, outcome="accepted"))
    assert accepted.endswith("r.outcome = 'accepted'")
    strange, _ = rows.select_listing(Listing(None, outcome="' OR 1"))
    assert strange.endswith("r.outcome = '' AND r.outcome <> 'accepted'")
