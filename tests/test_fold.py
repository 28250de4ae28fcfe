"""The text of a streamed answer, from increments, from the text so far, and from halves of characters."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatbridge import Part, PartAdded, Reasoning, ReasoningDelta, Reset, StreamEvent, Text, TextDelta
from chatbridge.http import PartsFold, TextFold
from chatbridge.http.fold import DIFFERS, ReasoningFold
from chatbridge.testing.checking import fold as put_together

HALVES = "the answer held halves of characters, which are replaced by U+FFFD"
MAPLE = "\U0001f341"
HIGH, LOW = "\ud83c", "\udf41"  # Its halves.


def shown(events: list[StreamEvent]) -> str:
    """Read *events* as a reader does."""
    text = ""
    for event in events:
        if isinstance(event, Reset):
            text = ""
        elif isinstance(event, TextDelta):
            text += event.text
    return text


def run(pieces: list[str], final: str | None = None) -> tuple[TextFold, list[StreamEvent]]:
    fold = TextFold()
    events = [event for piece in pieces for event in fold.add_either(piece)]
    if final is not None:
        events += fold.finish(final)
    return fold, events


def test_increments_are_shown_as_they_are() -> None:
    fold = TextFold()
    assert [TextDelta("The "), TextDelta("the")] == [*fold.add("The "), *fold.add("the"), *fold.add("")]
    assert "The the" == fold.shown


@pytest.mark.parametrize(
    ("pieces", "deltas"),
    [
        (["Red", " leaves", " fall"], ["Red", " leaves", " fall"]),
        (["Red", "Red leaves", "Red leaves fall"], ["Red", " leaves", " fall"]),
        (["Red", "", "Red leaves", "Red leaves"], ["Red", " leaves"]),
        (["ab", "cd", "abcd"], ["ab", "cd", "abcd"]),
    ],
)
def test_pieces_are_increments_or_the_text_so_far(pieces: list[str], deltas: list[str]) -> None:
    fold, events = run(pieces)
    assert [TextDelta(delta) for delta in deltas] == events
    assert "".join(deltas) == fold.shown


@pytest.mark.parametrize(
    ("final", "events"),
    [
        ("Red leaves", []),
        ("Red leaves fall", [TextDelta(" fall")]),
        ("Green leaves", [Reset(DIFFERS), TextDelta("Green leaves")]),
        ("Red", [Reset(DIFFERS), TextDelta("Red")]),
        ("", [Reset(DIFFERS)]),
    ],
)
def test_the_final_text_wins_over_the_pieces(final: str, events: list[StreamEvent]) -> None:
    fold, _ = run(["Red", " leaves"])
    assert events == fold.finish(final)
    assert final == fold.shown
    assert ([DIFFERS] if Reset(DIFFERS) in events else []) == fold.warnings


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([HIGH, LOW], MAPLE),
        (["a" + HIGH, LOW + "b"], f"a{MAPLE}b"),
        ([HIGH, MAPLE, MAPLE + "!"], MAPLE + "!"),
        (["a" + HIGH, "a" + MAPLE, f"a{MAPLE}b"], f"a{MAPLE}b"),
    ],
)
@pytest.mark.parametrize("ends", [True, False])
def test_halves_of_a_character_are_joined_in_both_kinds_of_pieces(
    pieces: list[str], text: str, ends: bool
) -> None:
    fold, events = run(pieces, text if ends else None)
    assert text == shown(events) == fold.shown
    assert [] == fold.warnings


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a" + LOW], "a\ufffd"),
        ([HIGH, "x"], "\ufffdx"),
        (["a" + HIGH, "a" + HIGH + "b", "a" + HIGH + "bc"], "a\ufffdbc"),
    ],
)
def test_a_half_that_stays_alone_is_replaced_with_a_warning(pieces: list[str], text: str) -> None:
    fold, events = run(pieces, text)
    assert text == shown(events)
    assert [HALVES] == fold.warnings


def test_a_half_in_the_final_text_is_replaced_with_a_warning() -> None:
    fold, events = run([], "a" + HIGH)
    assert "a\ufffd" == shown(events)
    assert [HALVES] == fold.warnings


def test_a_half_that_only_the_pieces_left_alone_is_no_matter_of_the_final_text() -> None:
    fold, events = run(["a" + HIGH], "a" + MAPLE)
    assert "a" + MAPLE == shown(events)
    assert [] == fold.warnings


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
UNITS = st.lists(st.text(st.sampled_from(["a", " ", MAPLE, HIGH, LOW, "\ufffd"]), max_size=4))


@given(st.lists(TEXT))
def test_the_text_so_far_gives_the_text_whatever_it_is(words: list[str]) -> None:
    so_far = ["".join(words[: end + 1]) for end in range(len(words))]
    fold, events = run(so_far, "".join(words))
    assert not any(isinstance(event, Reset) for event in events)
    assert "".join(words) == shown(events) == fold.shown


@given(UNITS, st.text(st.sampled_from(["a", MAPLE, HIGH, LOW])))
@example([HIGH, LOW + HIGH, LOW], MAPLE + MAPLE)
def test_a_reader_ends_with_the_final_text_and_never_sees_half_a_character(
    pieces: list[str], final: str
) -> None:
    fold, events = run(pieces, final)
    mended = final.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert mended == shown(events) == fold.shown
    for event in events:
        assert isinstance(event, Reset | TextDelta)
        str(event).encode()


@given(TEXT, st.lists(st.integers(0, 40)))
def test_increments_joined_are_the_text_wherever_it_was_cut(text: str, cuts: list[int]) -> None:
    """Cut in UTF-16, as servers that count in it do, so that characters fall in halves."""
    units = text.encode("utf-16-le")
    ends = sorted({min(2 * cut, len(units)) for cut in cuts} | {0, len(units)})
    fold, events = TextFold(), list[StreamEvent]()
    for start, end in pairwise(ends):
        events += fold.add(units[start:end].decode("utf-16-le", "surrogatepass"))
    assert text == shown(events) == fold.shown
    assert [] == fold.finish(text)
    assert [] == fold.warnings


def test_the_deltas_belong_to_the_part_that_the_fold_is_of() -> None:
    assert [TextDelta("a", 3)] == TextFold(3).add("a")


def test_a_text_may_end_without_being_told_whole_and_half_a_character_at_its_end_shows() -> None:
    fold, _ = run(["leaf ", HIGH])
    assert [TextDelta("\ufffd")] == fold.finish()
    assert ("leaf \ufffd", [HALVES]) == (fold.shown, fold.warnings)

    fold, _ = run(["leaf ", HIGH, LOW])
    assert [] == fold.finish()
    assert (f"leaf {MAPLE}", []) == (fold.shown, fold.warnings)


def test_reasoning_is_told_as_such_and_whole_at_its_end_where_it_is_signed() -> None:
    signed, plain = ReasoningFold(1, "s"), ReasoningFold()
    assert [ReasoningDelta("Hm", 1)] == signed.add("Hm")
    assert [PartAdded(Reasoning("Hm", "s"), 1)] == signed.finish()
    assert [ReasoningDelta("Hm")] == plain.add("Hm")
    assert [] == plain.finish()
    assert Reasoning("Hm") == plain.part


def test_reasoning_and_text_follow_each_other() -> None:
    """Reasoning with another signature is another part."""
    parts = PartsFold("acme", lambda _: {})
    parts.think("A", "s")
    parts.think("B", "s")
    parts.think("C", "t")
    parts.say("D")
    text = parts.say("E")
    parts.think("F")
    parts.finish()
    expected: tuple[Part, ...] = (Reasoning("AB", "s"), Reasoning("C", "t"), Text("DE"), Reasoning("F"))
    assert expected == parts.parts == put_together(parts.events())
    parts.take_back([text], "so")
    assert (*expected[:2], expected[3]) == parts.parts
    assert [ReasoningDelta("AB"), ReasoningDelta("C", 1), ReasoningDelta("F", 3)] == parts.events()[1:]
