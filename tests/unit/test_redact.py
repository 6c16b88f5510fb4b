"""Tests of `bridge.core.redact`."""

from __future__ import annotations

import base64
import html
import json
import pickle
import time
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.redact import MASK, Scrubber, Secret

KEY = "0123456789abcdef0123456789ABCDEF"
NASTY = "a\"b\\c/d%41+[x]{2}(.*)&amp;$^|?\\u0041<>'"

keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=128)
noise = st.text(st.sampled_from('%\\&#;x0u5a1 "/+=é\n'), max_size=12)


def scrubber_for(*values: str) -> Scrubber:
    """Return a scrubber that has learnt these values."""
    scrubber = Scrubber()
    for value in values:
        scrubber.learn(Secret(value))
    return scrubber


def test_secret_never_prints_itself() -> None:
    """A secret shows asterisks in every way of printing and gives its value out on demand only."""
    secret = Secret(KEY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>8}", f"{secret!r}", f"{[secret]}"]
    assert not any(KEY[:6] in text for text in shown)
    assert secret.reveal() == KEY


def test_secret_compares_by_value() -> None:
    """Two secrets of one value are equal and hash alike; a plain string is never equal."""
    assert Secret(KEY) == Secret(KEY)
    assert hash(Secret(KEY)) == hash(Secret(KEY))
    assert Secret(KEY) != Secret(NASTY)
    assert Secret(KEY) != KEY
    assert not Secret("")


def test_secret_is_not_pickled() -> None:
    """Pickling a secret fails."""
    secret = Secret(KEY)
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize("key", [KEY, NASTY], ids=["plain", "nasty"])
@pytest.mark.parametrize(
    "form",
    [
        str,
        str.upper,
        str.lower,
        urllib.parse.quote,
        lambda key: urllib.parse.quote(key, safe="").lower(),
        lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
        lambda key: "".join(f"%{ord(char):02x}" for char in key),
        lambda key: json.dumps(key)[1:-1],
        lambda key: json.dumps(json.dumps(key)),
        lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
        lambda key: "".join(f"\\u{ord(char):04X}" for char in key),
        lambda key: "".join(f"\\\\u{ord(char):04x}" for char in key),
        lambda key: "".join(f"\\x{ord(char):02x}" for char in key),
        lambda key: repr(key.encode()),
        html.escape,
        lambda key: html.escape(html.escape(key)),
        lambda key: "".join(f"&#{ord(char)};" for char in key),
        lambda key: "".join(f"&#x{ord(char):X};" for char in key),
        lambda key: "".join(f"&#{ord(char):04}" for char in key),
        lambda key: key.encode().hex(),
        lambda key: key.encode().hex().upper(),
        lambda key: base64.b64encode(key.encode()).decode(),
        lambda key: base64.b64encode(b"x" + key.encode()).decode(),
        lambda key: base64.b64encode(b"xy" + key.encode() + b"zzzz").decode(),
        lambda key: base64.urlsafe_b64encode(b"x" + key.encode() + b"~~").decode(),
        lambda key: urllib.parse.quote(base64.b64encode(b"xy" + key.encode()).decode(), safe=""),
        lambda key: json.dumps(base64.b64encode(key.encode()).decode()).replace("/", "\\/"),
    ],
)
def test_every_form_of_a_key_is_replaced(key: str, form: object) -> None:
    """Each usual encoding of a key disappears, and the text around it stays."""
    assert callable(form)
    encoded = form(key)
    scrubbed = scrubber_for(key).scrub(f"before {encoded} after")
    assert scrubbed.startswith("before ")
    assert scrubbed.endswith(" after")
    assert MASK in scrubbed
    assert encoded[8:16] not in scrubbed
    # What is left beside the mask is shorter than any part of the key worth having.
    assert len(scrubbed.replace(MASK, "")) <= len("before  after") + 12


@given(key=keys, before=noise, after=noise, data=st.data())
def test_any_mixture_of_escapes_is_replaced(key: str, before: str, after: str, data: st.DataObject) -> None:
    """A key with each character escaped in another way is found whatever stands around it."""
    forms = st.sampled_from(
        ["{0}", "%{1:02x}", "%{1:02X}", "\\u{1:04x}", "\\x{1:02x}", "&#{1};", "&#{1}", "&#x{1:x};"]
    )
    encoded = "".join(data.draw(forms).format(char, ord(char)) for char in key)
    scrubbed = scrubber_for(key).scrub(before + encoded + after)
    assert MASK in scrubbed
    assert len(scrubbed) <= len(before) + len(after) + len(MASK) * 4
    assert key not in scrubbed


@given(key=keys, before=st.binary(max_size=7), after=st.binary(max_size=7), url=st.booleans())
def test_base64_at_any_alignment_is_replaced(key: str, before: bytes, after: bytes, url: bool) -> None:
    """A key inside longer base64 text disappears, and the text cannot be decoded back to it."""
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = encode(before + key.encode() + after).decode()
    scrubbed = scrubber_for(key).scrub(text)
    assert MASK in scrubbed
    assert len(scrubbed) <= 4 * (len(before) + len(after)) + 16


@given(st.text(max_size=200))
def test_clean_text_is_returned_as_it_is(text: str) -> None:
    """Text without a secret comes back as the same object, escapes or not."""
    assert scrubber_for(KEY, NASTY).scrub(text) is text


@given(keys, st.integers(0, 40))
def test_a_key_is_found_at_any_place(key: str, offset: int) -> None:
    """The sampling of the text does not depend on where the key begins."""
    assert scrubber_for(key).scrub("\x01" * offset + key + "\x02" * offset) == (
        "\x01" * offset + MASK + "\x02" * offset
    )


def test_json_text_stays_json() -> None:
    """Scrubbing JSON text with a key that ends in a backslash does not break a string open."""
    key = '"quoted 0123456789 \\'.replace(" ", "_")
    for value in (key, key + '"', key + "\\", "\\" + key):
        scrubbed = scrubber_for(key).scrub(json.dumps({"text": value, "n": 1}))
        assert MASK in json.loads(scrubbed)["text"]


def test_short_secrets_are_found_plain() -> None:
    """A password of a few characters is replaced; one of fewer than four is not learnt."""
    assert scrubber_for("hunter2").scrub("http://me:hunter2@proxy") == f"http://me:{MASK}@proxy"
    assert scrubber_for("hunter2").scrub("p%68unter2") == f"p{MASK}"
    assert scrubber_for("abc").scrub("abcabc") == "abcabc"


def test_overlapping_finds_become_one_mask() -> None:
    """Two known secrets that overlap leave nothing of either."""
    scrubber = scrubber_for("aaaabbbbccccdddd", "ccccddddeeeeffff")
    assert scrubber.scrub("aaaabbbbccccddddeeeeffff!") == f"{MASK}!"


def test_old_secrets_are_forgotten_but_kept_ones_stay() -> None:
    """Memory is bounded: after two generations only the kept secret and the newest are known."""
    scrubber = Scrubber()
    scrubber.learn(Secret("kept-secret-0123456789"), keep=True)
    for number in range(1600):
        scrubber.learn(Secret(f"key-{number:04}-{number * 7919:08}-x"))
    last = f"key-1599-{1599 * 7919:08}-x"
    first = "key-0000-00000000-x"
    assert scrubber.scrub(f"kept-secret-0123456789 {last}") == f"{MASK} {MASK}"
    assert scrubber.scrub(first) == first


def test_values_are_scrubbed_as_text() -> None:
    """Numbers, truths and nothing stay what they are; everything else becomes text without the secret."""
    scrubber = scrubber_for(KEY)
    assert [scrubber.scrub_value(value) for value in (5, 0.5, True, None)] == [5, 0.5, True, None]
    assert scrubber.scrub_value(f"x{KEY}") == f"x{MASK}"
    assert scrubber.scrub_value([KEY, {KEY: 1}]) == f"['{MASK}', {{'{MASK}': 1}}]"
    assert scrubber.scrub_value(ValueError(KEY)) == MASK


@pytest.mark.parametrize("piece", ["\\", "%", "%25", "&", "&amp;", "&#1", "\\u00", "%2"])
def test_hostile_text_costs_linear_time(piece: str) -> None:
    """Rows of escape characters do not make the search explode (bound: four times the text, ten the time)."""
    scrubber = scrubber_for(KEY, NASTY)

    def spend(text: str) -> float:
        began = time.process_time()
        assert scrubber.scrub(text) is text
        return time.process_time() - began

    short = min(spend(piece * 500) for _ in range(3))
    assert min(spend(piece * 2000) for _ in range(3)) < 10 * short + 0.05


def test_a_clean_text_costs_little_however_many_keys_are_known() -> None:
    """A thousand known keys do not make a clean line slow (a generous bound: 20 ms for 16 lines)."""
    scrubber = scrubber_for(*(f"{number:032x}" for number in range(1000)))
    line = "an ordinary line without anything in it " * 12
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(16):
            scrubber.scrub(line)
        spent.append(time.perf_counter() - began)
    assert min(spent) < 0.02


def test_numbers_that_are_no_characters_are_left_alone() -> None:
    """Escapes beyond the last character of Unicode stand for nothing, and do no harm to what follows them."""
    scrubber = Scrubber()
    scrubber.learn(Secret("0123456789abcdef"))
    text = "\\U00110000 &#1114112; &#x110000; &#x110000"
    assert scrubber.scrub(text) == text
    assert scrubber.scrub(f"{text} 0123456789abcdef") == f"{text} ***"
