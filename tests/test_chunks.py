"""Events of chat completions: built by hand or not, they are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge.http import BrokenContent, Chunk, Frame, read_event, structure

Json = dict[str, Any]
Strategy = st.SearchStrategy[Any]


def built(value: object) -> tuple[object, ...] | str:
    """Build a chunk and give all that it holds; or say what is wrong."""
    try:
        chunk = structure(value, Chunk)
    except BrokenContent as error:
        return str(error)
    assert isinstance(chunk, Chunk)
    choices = chunk.choices or ()
    saids = [said for choice in choices for said in (choice.delta, choice.message) if said is not None]
    return chunk, chunk.raw, [choice.raw for choice in choices], [said.raw for said in saids]


objects: Strategy = st.dictionaries(st.text(max_size=1), st.integers(), max_size=1)
odd: Strategy = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.none(), max_size=1) | objects
deltas: Strategy = st.fixed_dictionaries(
    {}, optional={"content": st.text(max_size=3) | odd, "role": odd, "tool_calls": odd, "reasoning": odd}
)
choices: Strategy = st.fixed_dictionaries(
    {},
    optional={
        "delta": deltas | odd,
        "message": deltas | odd,
        "finish_reason": odd,
        "index": odd,
        "error": odd,
    },
)
chunks: Strategy = st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=2) | odd},
    optional={"model": odd, "usage": odd, "error": odd, "object": odd, "beside": odd},
)


@given(chunks)
def test_what_is_built_by_hand_is_what_is_built_by_the_rules(value: Json) -> None:
    assert built(value) == built(read_event(Frame("message", json.dumps(value).encode())))


def test_what_only_adds_a_text_is_built_by_hand() -> None:
    plain = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}], "model": "m"}
    assert isinstance(read_event(Frame("message", json.dumps(plain).encode())), Chunk)


@pytest.mark.parametrize(("data", "value"), [(b"[DONE]", {"object": "[DONE]"}), (b" ", {})])
def test_an_end_mark_and_an_empty_event_are_no_answers(data: bytes, value: Json) -> None:
    assert value == read_event(Frame("message", data))
