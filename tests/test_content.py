"""JSON is read and written to the letter, and no half of a character gets out."""

import json
import math
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chatbridge.http.content import (
    BrokenContent,
    Mender,
    TextJoiner,
    loads,
    may_hold_surrogates,
    mend,
    mend_all,
)
from chatbridge.strict import MAX_DEPTH, dumps, problem_of

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ANY_TEXT = st.one_of(st.text(), st.text("a\ud800\udbff\udc00\udfff\ud83d\ude00\ufffd\0"))
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.none(), st.booleans(), NUMBERS, text)
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=15)


def kind_of(data: bytes) -> str:
    """Return the kind of the error that reading *data* raises."""
    with pytest.raises(BrokenContent) as caught:
        loads(data)
    assert None is caught.value.__context__
    return caught.value.kind


@pytest.fixture
def _no_digit_limit() -> Iterator[None]:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


# Reading.


@UNTIMED
@given(value=values(st.text()), ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 3]))
def test_valid_documents_are_read_as_the_standard_library_reads_them(
    value: object, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    expected = json.loads(text)

    assert repr(expected) == repr(loads(text.encode()))
    assert repr(expected) == repr(loads(b"\xef\xbb\xbf \r\n\t" + text.encode() + b" \r\n\t"))


@UNTIMED
@given(st.one_of(st.binary(), st.text('[]{}":,\\ue0-19.aNaIx \n').map(str.encode)))
@example(b"\xef\xbb\xbf\xef\xbb\xbf1")
@example(b"\x0b1")
def test_whatever_arrives_is_a_value_or_broken_content(data: bytes) -> None:
    try:
        value = loads(data)
    except BrokenContent:
        return
    assert repr(value) == repr(json.loads(data.decode("utf-8-sig")))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xff", "encoding"),
        (b'"\xed\xa0\x80"', "encoding"),
        ('"text"'.encode("utf-16"), "encoding"),
        (b"NaN", "json"),
        (b"[Infinity]", "json"),
        (b'{"a": -Infinity}', "json"),
        (b"1e400", "json"),
        (b"-1e400", "json"),
        (b"1" * 400 + b".5", "json"),
        (b'{"a": 1, "a": 1}', "json"),
        (b'[{"x": {"a": 1, "b": 2, "\\u0061": 3}}]', "json"),
        (b"{} {}", "json"),
        (b"{}x", "json"),
        (b'{"a": 1', "json"),
        (b"[1,]", "json"),
        (b"// no\n1", "json"),
        (b"'a'", "json"),
        (b'"a\nb"', "json"),
        (b'"\\x"', "json"),
        (b"01", "json"),
        (b"\xc2\xa01", "json"),
    ],
)
def test_what_is_not_strict_json_is_refused(data: bytes, kind: str) -> None:
    assert kind == kind_of(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'"sk-secret', "not JSON at character 0: Unterminated string starting at"),
        (b'{"sk-secret": 1, "sk-secret": 2}', "an object names a key twice"),
        (b'"\xff sk-secret"', "not UTF-8 at byte 1"),
        (b'"sk-secret" "sk-secret"', "more data after the document's end at character 11"),
        (b"  ", "nothing where a JSON document was expected"),
    ],
)
def test_an_error_says_what_and_where_but_shows_nothing(data: bytes, said: str) -> None:
    with pytest.raises(BrokenContent) as caught:
        loads(data)

    assert said == str(caught.value)


def test_broken_content_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BrokenContent("cut", "the end is missing")))

    assert ("cut", "the end is missing") == (error.kind, str(error))


@pytest.mark.parametrize("sign", [b"", b"-"])
@pytest.mark.parametrize("around", [(b"", b""), (b'{"pad": "' + b"x" * 431 + b'", "n": [', b", 1]}")])
@pytest.mark.parametrize("limited", [True, False])
def test_integers_have_at_most_4300_digits(
    sign: bytes, around: tuple[bytes, bytes], limited: bool, request: pytest.FixtureRequest
) -> None:
    """Also where the interpreter's own limit was lifted."""
    if not limited:
        request.getfixturevalue("_no_digit_limit")
    before, after = around

    assert json.loads(before + sign + b"7" * 4300 + after) == loads(before + sign + b"7" * 4300 + after)
    assert "json" == kind_of(before + sign + b"7" * 4301 + after)


def test_a_lower_limit_of_the_interpreter_is_broken_content_too() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert "json" == kind_of(b"1" * 641)
    finally:
        sys.set_int_max_str_digits(limit)


@pytest.mark.usefixtures("_no_digit_limit")
@UNTIMED
@given(padding=st.integers(0, 1000), digits=st.integers(4301, 4800))
def test_a_long_integer_is_found_wherever_it_stands(padding: int, digits: int) -> None:
    assert "json" == kind_of(b'["' + b"x" * padding + b'", ' + b"4" * digits + b"]")


def test_long_digits_that_are_no_integer_are_read() -> None:
    digits = "4" * 9000

    assert [digits, 0.4444444444444444, 12] == loads(f'["{digits}", 0.{digits}, 12]'.encode())


def nested(arrays: list[bool], noise: str) -> bytes:
    """Return a document with one level per item: an array or an object."""
    text = json.dumps(noise)
    opened = "".join(f"[{text}, " if is_array else f"{{{text}: " for is_array in arrays)
    return (opened + "1" + "".join("]" if is_array else "}" for is_array in reversed(arrays))).encode()


@UNTIMED
@given(
    arrays=st.lists(st.booleans(), min_size=90, max_size=110),
    noise=st.text('[]{}"\\x\n'),
    siblings=st.integers(1, 5),
)
@example(arrays=[True] * 100, noise="", siblings=5)
@example(arrays=[False] * 101, noise='\\"]}', siblings=1)
def test_nesting_of_100_passes_and_of_101_does_not(arrays: list[bool], noise: str, siblings: int) -> None:
    """Brackets inside strings count for nothing, however the strings are escaped."""
    document = b"[" + b",".join([nested(arrays[1:], noise)] * siblings) + b"]"
    if len(arrays) <= 100:
        assert json.loads(document) == loads(document)
    else:
        with pytest.raises(BrokenContent, match="nested over 100 deep"):
            loads(document)


@pytest.mark.parametrize(
    "data", [b"[" * 200_000, b'{"":' * 200_000, b"]" * 300 + b"[" * 300, b'["' + b"[" * 300]
)
def test_brackets_without_end_never_exhaust_the_stack(data: bytes) -> None:
    assert "json" == kind_of(data)


# Writing.


@UNTIMED
@given(values(st.text()))
def test_what_is_written_is_read_back(value: object) -> None:
    assert value == loads(dumps(value))


def test_writing_is_compact_and_utf_8() -> None:
    assert '{"a":["é",1,null]}'.encode() == dumps({"a": ("é", 1, None)})


LOOP: list[object] = []
LOOP.append({"again": LOOP})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"messages": [{"content": "sk\ud800"}]}, "$.messages[0].content: holds half of a surrogate pair"),
        ({"content-type": ["ok", math.nan]}, '$["content-type"][1]: is not a finite number'),
        (math.inf, "$: is not a finite number"),
        ({"a": (1, b"sk")}, "$.a[1]: is of type bytes, which JSON does not have"),
        ({"a": {"\udc00": 1}}, "$.a: has a key that holds half of a surrogate pair"),
        ({"a": {("sk",): 1}}, "$.a: has a key that is of type tuple, which JSON does not have"),
        ({"ok": 1, "n": 10**4300}, "$.n: has too many digits"),
        ([{"ok": ["fine"]}, [1], {"late": math.nan}], "$[2].late: is not a finite number"),
    ],
)
def test_what_json_cannot_hold_is_named_by_its_path_and_not_shown(value: object, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared below
        dumps(value)

    assert said == str(caught.value)
    assert None is caught.value.__context__


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [LOOP, deep(200_000)])
def test_a_value_that_holds_itself_or_is_too_deep_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is nested too deep, or holds itself"):
        dumps(value)
    assert "is nested too deep, or holds itself" in str(problem_of(value))


@UNTIMED
@given(values(st.text()))
def test_there_is_no_problem_with_what_can_be_read_back(value: object) -> None:
    assert None is problem_of(value)


@pytest.mark.parametrize("key", [1, 1.5, True, None])
def test_a_key_that_is_no_text_is_a_problem_though_it_can_be_written(key: object) -> None:
    """It would come back as another one; what is only sent, such as `logit_bias`, may have it."""
    value = {"ok": [{"a": {key: 2}}]}
    kind = type(key).__name__
    assert f"$.ok[0].a: has a key that is of type {kind}, and is no text" == problem_of(value)
    assert {"ok": [{"a": {json.dumps(key): 2}}]} == loads(dumps(value))


@pytest.mark.parametrize("innermost", [1, [], {"a": 1}])
def test_what_is_nested_too_deep_to_be_read_back_is_a_problem(innermost: object) -> None:
    """A whole request may be deeper, as what was read is nested in it."""
    value, levels = innermost, MAX_DEPTH - (innermost != 1)
    for _ in range(levels):
        value = [value]
    assert value == loads(dumps(value))
    assert None is problem_of(value)

    assert b"[" == dumps([value])[:1]
    assert f"${'[0]' * MAX_DEPTH}: is nested too deep, or holds itself" == problem_of([value])


# Halves of characters.


def is_clean(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é 😀 \0 \ufffd", ("plain é 😀 \0 \ufffd", False)),
        ("\ud83d\ude00", ("😀", False)),
        ("a\ud83d", ("a\ufffd", True)),
        ("\ude00\ud83d", ("\ufffd\ufffd", True)),
        ("\ud83d\ud83d\ude00", ("\ufffd😀", True)),
        ("\ufffd-\udfff", ("\ufffd-\ufffd", True)),
    ],
)
def test_pairs_are_joined_and_lone_halves_replaced(text: str, expected: tuple[str, bool]) -> None:
    assert expected == mend(text)


@UNTIMED
@given(st.lists(ANY_TEXT))
def test_a_text_in_pieces_is_mended_like_the_whole(pieces: list[str]) -> None:
    joiner = TextJoiner()
    fed = [joiner.feed(piece) for piece in pieces]
    text = "".join([*fed, joiner.flush()])

    assert mend("".join(pieces)) == (text, joiner.replaced)
    assert all(map(is_clean, fed))
    assert "" == joiner.flush()


def test_only_a_high_half_at_the_end_is_held_back() -> None:
    joiner = TextJoiner()

    assert "a" == joiner.feed("a\ud83d")
    assert "" == joiner.feed("")
    assert "😀b" == joiner.feed("\ude00b")
    assert not joiner.replaced
    assert "\ufffd" == joiner.feed("\ude00")
    assert joiner.replaced


@UNTIMED
@given(values(ANY_TEXT))
def test_a_whole_document_is_mended_and_keeps_its_shape(value: object) -> None:
    document = json.dumps(value).encode()
    mended, replaced = mend_all(json.loads(document))
    written = json.dumps(json.loads(document), ensure_ascii=False)

    assert mend(written)[1] == replaced
    if not replaced:
        assert json.loads(mend(written)[0]) == mended
    assert is_clean(json.dumps(mended, ensure_ascii=False))


def test_keys_are_mended_like_values() -> None:
    assert ({"k\ufffd": ["v\ufffd", 1, None]}, True) == mend_all({"k\ud800": ["v\udfff", 1, None]})


@UNTIMED
@given(values(ANY_TEXT))
@example("\ud800")
@example("\udfff")
def test_a_document_that_is_said_to_hold_no_surrogate_holds_none(value: object) -> None:
    document = json.dumps(value).encode()

    assert may_hold_surrogates(document) or is_clean(json.dumps(json.loads(document), ensure_ascii=False))


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b'"\\ud83d"', True), (b'"\\uDFFF"', True), (b'"plain \\u00e9"', False), ('"😀"'.encode(), False)],
)
def test_a_surrogate_can_only_come_from_its_escape(data: bytes, expected: bool) -> None:
    assert expected is may_hold_surrogates(data)


def test_a_mender_remembers_whether_anything_was_replaced() -> None:
    mender = Mender()
    assert ({"a": ["b"]}, False) == (mender({"a": ["b"]}), mender.replaced)
    assert (["\ufffd"], True) == (mender(["\ud83d"]), mender.replaced)
    assert ("\U0001f341", True) == (mender("\ud83c\udf41"), mender.replaced)
