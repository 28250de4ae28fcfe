"""Words that many APIs share: finish reasons and usage."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import FinishReason, Role, Usage
from chatbridge.http import Increments, beside_usage, to_finish_reason, to_role, to_usage


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (None, None),
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("eos", FinishReason.OTHER),
        ("", FinishReason.OTHER),
    ],
)
def test_a_finish_reason_that_is_none_of_ours_is_another(
    word: str | None, reason: FinishReason | None
) -> None:
    assert reason == to_finish_reason(word)


def test_usage_is_read_by_its_names() -> None:
    told = {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 13,
        "cache_read_input_tokens": 4,
        "total_cost": 0.5,
    }
    assert Usage(10, 2, 13, cached_tokens=4, cost=0.5) == to_usage(told)


def test_a_total_that_is_not_told_is_the_sum() -> None:
    assert Usage(10, 2, 12) == to_usage({"prompt_tokens": 10, "completion_tokens": 2})


@pytest.mark.parametrize("told", [None, {}, {"prompt_tokens": None}, {"tokens": 3}])
def test_usage_that_is_not_told_is_none(told: dict[str, Any] | None) -> None:
    assert None is to_usage(told)


odd = (
    st.none() | st.booleans() | st.text() | st.integers(max_value=-1) | st.just(math.inf) | st.just(math.nan)
)


@given(st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_cost"]), odd))
def test_what_is_no_count_is_not_told(told: dict[str, Any]) -> None:
    assert None is to_usage(told)


@pytest.mark.parametrize("role", Role)
def test_a_role_is_said_as_it_is(role: Role) -> None:
    assert (role, {}) == to_role(role.value)


@pytest.mark.parametrize("word", ["model", "", "User"])
def test_a_role_that_is_none_of_ours_passes_for_the_assistant_and_is_kept(word: str) -> None:
    assert (Role.ASSISTANT, {"role": word}) == to_role(word)


def test_details_of_usage_are_read_and_what_is_beyond_is_kept() -> None:
    told: dict[str, Any] = {
        "prompt_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
        "queue_time": 0.5,
    }
    assert Usage(9, cached_tokens=4, reasoning_tokens=2) == to_usage(told)
    assert {"usage": {"prompt_tokens_details": {"audio_tokens": 1}, "queue_time": 0.5}} == beside_usage(told)


def test_a_count_of_cached_tokens_by_its_own_name_wins() -> None:
    told = {"cache_read_input_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    assert Usage(cached_tokens=3) == to_usage(told)


@pytest.mark.parametrize("details", [[], "many", {"cached_tokens": "4"}, 3])
def test_details_that_are_none_are_kept_as_they_are(details: object) -> None:
    told = {"prompt_tokens": 1, "prompt_tokens_details": details}
    assert Usage(1) == to_usage(told)
    assert {"usage": {"prompt_tokens_details": details}} == beside_usage(told)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=3), value, max_size=3),
)


@given(st.dictionaries(st.text(max_size=3), json_values), st.dictionaries(st.text(max_size=3), json_values))
def test_pieces_of_fields_are_joined_by_their_kind(one: dict[str, Any], other: dict[str, Any]) -> None:
    fields = Increments()
    fields.add(one)
    assert {name: value for name, value in one.items() if value is not None} == fields.joined()
    fields.add(other)
    for name, value in fields.joined().items():
        first, second = one.get(name), other.get(name)
        if first is None or second is None:
            assert value == (second if first is None else first)
        elif type(first) is type(second) and type(first) in {str, list}:
            assert first + second == value
        elif not isinstance(second, dict) or not isinstance(first, dict):
            assert second == value
