"""No spelling of a secret survives in text that is to be shown, and that text is one short printable line."""

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from chatbridge.http.redact import Redactor
from chatbridge.secret import Secret
from chatbridge.text import printable

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ENOUGH = 1_000_000
KEY = "sk-L0ng/and+odd"
# What surrounds a secret in these tests occurs in no spelling of any.
OUTSIDE = st.text("漢字仮名")
# Without "*": a secret such as "1***" can come out of the replacement itself.
SECRETS = st.one_of(
    st.text(st.characters(exclude_characters="*漢字仮名", exclude_categories=["Cs"]), min_size=4),
    st.text("\"\\/<>&'+ %=\n\x7fé😀aZ0", min_size=4),
    st.from_regex(r"sk-[A-Za-z0-9_-]{8,40}", fullmatch=True),
)


def lower_escapes(text: str) -> str:
    return re.sub("%..", lambda match: match[0].lower(), text)


def upper_json(text: str) -> str:
    escaped = (json.dumps(c)[1:-1] for c in text)
    return "".join(
        re.sub("(?<=u)....", lambda match: match[0].upper(), e) if len(e) > 2 else e for e in escaped
    )


def all_units(text: str) -> str:
    """Write all but letters, digits and the like as UTF-16 units, as .NET and Go do with some of it."""
    units = (c.encode("utf-16-be").hex() for c in text)
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "-._~") else re.sub("(....)", r"\\u\1", unit)
        for c, unit in zip(text, units, strict=True)
    )


# Each spells a text character by character, so the spelling of a prefix is a prefix of the spelling.
BY_CHARACTER: dict[str, Callable[[str], str]] = {
    "plain": str,
    "quote": quote,
    "quote_all": lambda text: quote(text, safe=""),
    "quote_plus": quote_plus,
    "quote_lower": lambda text: lower_escapes(quote(text)),
    "quote_plus_lower": lambda text: lower_escapes(quote_plus(text)),
    "component": lambda text: quote(text, safe="!~*'()"),
    "json": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json_ascii": lambda text: json.dumps(text)[1:-1],
    "json_upper": upper_json,
    "json_slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json_units": all_units,
    "html": html.escape,
    "hex": lambda text: text.encode().hex(),
    "hex_upper": lambda text: text.encode().hex().upper(),
}
AS_BASE64: dict[str, Callable[[str], str]] = {
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64_bare": lambda text: b64encode(text.encode()).decode().rstrip("="),
    "base64_url": lambda text: urlsafe_b64encode(text.encode()).decode(),
    "base64_quoted": lambda text: quote_plus(b64encode(text.encode()).decode()),
    "base64_json": lambda text: b64encode(text.encode()).decode().replace("/", "\\/"),
}


SPELLINGS = BY_CHARACTER | AS_BASE64


@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(UNTIMED, max_examples=25)
@given(value=SECRETS, before=OUTSIDE, after=OUTSIDE)
@example(value=KEY, before="", after="")
@example(value='\\\\"\\u005c', before="漢", after="字")
def test_every_spelling_of_a_secret_becomes_stars(spelling: str, value: str, before: str, after: str) -> None:
    text = before + SPELLINGS[spelling](value) + after

    assert f"{before}***{after}" == Redactor([Secret(value)]).clean(text, ENOUGH)


@UNTIMED
@given(value=SECRETS, before=st.binary(), after=st.binary(), alphabet=st.sampled_from(["+/", "-_"]))
@example(value=KEY, before=b"user:", after=b"", alphabet="+/")
def test_a_secret_inside_a_longer_base64_text_leaves_no_digit_of_its_own(
    value: str, before: bytes, after: bytes, alphabet: str
) -> None:
    octets = value.encode()
    encoded = b64encode(before + octets + after, alphabet.encode()).decode()
    first = len(before) * 8 // 6
    last = -(-(len(before) + len(octets)) * 8 // 6)
    cleaned = Redactor([Secret(value)]).clean(encoded, ENOUGH)

    assert encoded[first:last] not in cleaned
    assert "***" in cleaned


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_digits_that_a_secret_shares_with_its_neighbours_go_too(offset: int) -> None:
    encoded = b64encode(b"\xff" * offset + KEY.encode() + b"\xff" * 3).decode()
    own_and_shared = encoded[offset * 8 // 6 : -(-(offset + len(KEY)) * 8 // 6)]

    assert encoded.replace(own_and_shared, "***") == Redactor([Secret(KEY)]).clean(encoded)


@pytest.mark.parametrize("spelling", BY_CHARACTER)
@settings(UNTIMED, max_examples=25)
@given(value=SECRETS.filter(lambda value: len(value) > 6), before=OUTSIDE, data=st.data())
def test_a_secret_cut_off_after_six_characters_becomes_stars(
    spelling: str, value: str, before: str, data: st.DataObject
) -> None:
    spell = BY_CHARACTER[spelling]
    spelled = spell(value)
    cut = data.draw(st.integers(len(spell(value[:6])), len(spelled)))

    cleaned = Redactor([Secret(value)]).clean(before + spelled[:cut], ENOUGH)

    assert before + "***" == cleaned[: len(before) + 3]
    # A % or & also matches as it stands, and may then leave the rest of its escape: nothing of the secret.
    assert re.fullmatch(r"\w{0,4}" if set(value) & set("%&") else "", cleaned[len(before) + 3 :])


def test_a_base64_text_cut_off_inside_a_secret_keeps_nothing_of_it() -> None:
    encoded = b64encode(b"user:" + KEY.encode()).decode()

    for cut in range(16, len(encoded)):
        assert "dXNlcj***" == Redactor([Secret(KEY)]).clean(encoded[:cut]), cut


def test_a_beginning_of_a_secret_that_the_text_goes_on_after_is_left() -> None:
    assert "sk-L0ng-winded" == Redactor([Secret(KEY)]).clean("sk-L0ng-winded")
    assert "sk-L0" == Redactor([Secret(KEY)]).clean("sk-L0")


def test_a_very_short_secret_is_replaced_in_plain_form_only() -> None:
    assert "*** %61%2F%62 YS9i" == Redactor([Secret("a/b")]).clean("a/b %61%2F%62 YS9i")


def test_several_secrets_are_replaced_and_the_longer_one_wins() -> None:
    redactor = Redactor([Secret("token-1"), Secret("token-1-extended")])

    assert "***, ***." == redactor.clean("token-1, token-1-extended.")


def test_a_secret_added_later_is_replaced_from_then_on() -> None:
    redactor = Redactor()
    before = redactor.clean("token-1")
    redactor.add(Secret("token-1"))

    assert "token-1" == before
    assert "***" == redactor.clean("token-1")
    assert "***" == redactor.clean("token-1")


def test_a_redactor_shows_no_secret() -> None:
    redactor = Redactor([Secret(KEY)])
    redactor.clean("text")

    shown = repr([getattr(redactor, name) for name in Redactor.__slots__]) + repr(redactor)

    assert "sk-L" not in shown


def test_many_backslashes_cost_no_time() -> None:
    """A pattern that chose between one and two backslashes for each would try two to the power of 60 ways."""
    value = "\\" * 60 + "end"

    assert "\\" * 100 + " other" == Redactor([Secret(value)]).clean("\\" * 100 + " other")


@UNTIMED
@given(value=SECRETS, text=st.text(st.characters(exclude_categories=[])), limit=st.integers(1, 40))
def test_any_text_becomes_one_printable_line_within_the_limit(value: str, text: str, limit: int) -> None:
    cleaned = Redactor([Secret(value)]).clean(text, limit)

    assert cleaned.isprintable()
    assert len(cleaned) <= limit


@UNTIMED
@given(before=st.integers(0, 40), limit=st.integers(1, 40))
def test_cutting_leaves_no_part_of_a_secret(before: int, limit: int) -> None:
    cleaned = Redactor([Secret(KEY)]).clean("." * before + KEY + "." * 40, limit)

    assert ("." * before + "***" + "." * 40)[: limit - 1] + "…" == cleaned


@pytest.mark.parametrize(("length", "expected"), [(10, "x" * 10), (11, "x" * 9 + "…")])
def test_only_a_text_over_the_limit_is_cut(length: int, expected: str) -> None:
    assert expected == Redactor().clean("x" * length, 10)


def test_of_a_long_text_only_the_beginning_is_searched() -> None:
    """A long secret makes the search slow, and the text is the server's."""
    searched: list[int] = []

    class Noting(Redactor):
        __slots__ = ()

        def _compile(self) -> Callable[[str, str], str]:
            substitute = super()._compile()

            def noted(mask: str, text: str) -> str:
                searched.append(len(text))
                return substitute(mask, text)

            return noted

    key = "a" * 1500 + "b"
    assert "x" * 499 + "…" == Noting([Secret(key)]).clean("x" * 65_536)
    assert "said: ***" == Noting([Secret(key)]).clean("said: " + key)
    assert "a" not in Noting([Secret(key)]).clean(key * 43)
    assert max(searched) <= 4096


@pytest.mark.parametrize("spell", ["plain", "json_units", "hex", "base64", "quote"])
@pytest.mark.parametrize("filler", [KEY, "."])
def test_where_the_search_stops_no_secret_begins_to_show(spell: str, filler: str) -> None:
    secret, clean = "漢/Z" + KEY, Redactor([Secret("漢/Z" + KEY), Secret(KEY)]).clean
    for length in range(3900, 4100):
        before = (
            (filler * length)[:length] if filler == "." else KEY * (length // len(KEY)) + "." * (length % 15)
        )
        cleaned = clean(before + SPELLINGS[spell](secret) + "." * 1000)
        assert set(cleaned) <= set("*.…")


def test_the_limit_is_500_unless_told() -> None:
    assert 500 == len(Redactor().clean("x" * 600))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, été, 漢字", "plain text, été, 漢字"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x85\u2028\u2029", r"\x85\u2028\u2029"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, expected: str) -> None:
    assert expected == printable(text)


@UNTIMED
@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assume(text.isprintable())

    assert text == printable(text)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_secret_in_json_in_json_is_replaced(depth: int) -> None:
    text = '"sk-a\\/b\\"c"'
    for _ in range(depth):
        text = json.dumps(text)

    assert "sk-a" not in Redactor([Secret('sk-a/b"c')]).clean(text)
