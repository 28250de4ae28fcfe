"""What is made of the answers, streams and errors of servers of chat completions."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    FinishReason,
    Opaque,
    Part,
    PartAdded,
    Progress,
    Reasoning,
    Reply,
    Started,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    Usage,
)
from chatbridge.http import DONE, Chunk, Hint, ServerSentEvents, read_event, structure
from chatbridge.http.completion_fold import DIFFERS, LEFT_OUT
from chatbridge.testing.checking import fold
from chatbridge_adapters.openai import OpenAIBackend
from chatbridge_adapters.openai.emulator import OpenAIEmulator
from chatbridge_adapters.openai.fold import EMPTY, NO_CHOICE, AnswerFold
from chatbridge_adapters.openai.wire import read_error
from openai_kit import HELLO, NOTHING, Json, answer, end, events, opener, said, streamed

_KEPT = "so it is kept as an Opaque part and not as a ToolCall"
NO_OBJECT = f"a call of the tool 'add' cannot be read: its arguments are no JSON object, {_KEPT}"
CUT_OFF = f"a call of the tool 'add' cannot be read: the answer was cut off within it, {_KEPT}"


@pytest.fixture
def emulator() -> OpenAIEmulator:
    return OpenAIEmulator()


@pytest.fixture
async def backend(emulator: OpenAIEmulator) -> AsyncGenerator[OpenAIBackend, None]:
    async with opener() as reach:
        yield await reach(emulator)


def whole(document: object) -> Reply:
    """Take a whole answer."""
    answer = AnswerFold()
    told = [*answer.take(structure(document, Chunk), whole=True), *answer.finish()]
    reply = answer.reply()
    assert reply.message.parts == fold(told)
    return reply


def read(body: bytes, *cuts: int) -> tuple[list[StreamEvent], Reply]:
    """Take a stream that arrives cut at *cuts*."""
    framer, answer, told = ServerSentEvents(), AnswerFold(), list[StreamEvent]()
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, stop in pairwise(edges):
        for frame in framer.feed(body[start:stop]):
            chunk = structure(read_event(frame), Chunk)
            told += [] if chunk.object == DONE else answer.take(chunk)
    told += answer.finish()
    return told, answer.reply()


def named(reply: Reply) -> list[tuple[str, Mapping[str, Any]]]:
    """Give the names and arguments of calls."""
    return [(part.name, part.arguments) for part in reply.message.parts if isinstance(part, ToolCall)]


def call(**piece: Any) -> Json:
    """Write the delta of a piece of a call; *arguments* and *name* are the function's."""
    function = {name: piece.pop(name) for name in ("name", "arguments") if name in piece}
    return {"tool_calls": [{**piece, "function": function}]}


# Whole answers


def test_what_the_model_has_no_place_for_is_kept() -> None:
    document = said(content="Hi", annotations=[{"type": "url_citation"}], audio=None)
    document |= {"service_tier": "default", "usage": {"prompt_tokens": 1, "queue_time": 0.1}}
    document["choices"][0] |= {"logprobs": {"content": [{"token": "Hi"}]}, "stop_reason": 7}
    reply = whole(document)
    assert {
        "id": "chatcmpl-1",
        "created": 1,
        "service_tier": "default",
        "stop_reason": 7,
        "logprobs": {"content": [{"token": "Hi"}]},
        "usage": {"queue_time": 0.1},
    } == reply.extra
    assert {"annotations": [{"type": "url_citation"}]} == reply.message.extra
    assert ("m", Usage(1)) == (reply.model, reply.usage)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("function_call", FinishReason.OTHER),
        ("eos_token", FinishReason.OTHER),
        ("", None),
        (None, None),
    ],
)
async def test_a_finish_reason_that_is_not_known_is_never_stop(
    backend: OpenAIBackend, emulator: OpenAIEmulator, word: str | None, reason: FinishReason | None
) -> None:
    document = said(content="Hi")
    document["choices"][0]["finish_reason"] = word
    answer(emulator, document)
    reply = await backend.complete(HELLO, NOTHING)
    answer(emulator, events({"content": "Hi"}, end(word)))
    assert 2 * [(reason, word or None)] == [
        (each.finish_reason, each.raw_finish_reason) for each in (reply, (await streamed(backend)).reply)
    ]


@pytest.mark.parametrize("beside", [{}, {"annotations": [], "audio": {}, "refusal": None}])
@pytest.mark.parametrize("content", [None, "", [], [{"type": "text", "text": ""}]])
def test_an_empty_answer_is_one(content: object, beside: Json) -> None:
    reply = whole(said(content=content, **beside))
    assert ((), "", FinishReason.STOP) == (reply.message.parts, reply.text, reply.finish_reason)
    assert (EMPTY,) == reply.warnings


@pytest.mark.parametrize("message", [{"content": "Hi"}, {"audio": {"id": "a", "transcript": "Hi"}}])
def test_an_answer_of_another_kind_is_not_empty(message: Json) -> None:
    assert () == whole(said(**message)).warnings


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_empty_answer_whose_reason_explains_it_is_not_explained(reason: str) -> None:
    document = said(content="")
    document["choices"][0]["finish_reason"] = reason
    assert () == whole(document).warnings


async def test_an_answer_without_a_choice_says_so(backend: OpenAIBackend, emulator: OpenAIEmulator) -> None:
    answer(emulator, {"id": "x", "choices": [], "usage": {"prompt_tokens": 1}})
    reply = await backend.complete(HELLO, NOTHING)
    assert ((NO_CHOICE,), (), Usage(1)) == (reply.warnings, reply.message.parts, reply.usage)


async def test_a_stream_of_nothing_but_its_end_says_so(
    backend: OpenAIBackend, emulator: OpenAIEmulator
) -> None:
    """As a server sends that the history is too long for."""
    answer(emulator, events())
    stream = await streamed(backend)
    assert (Started(), (NO_CHOICE,)) == (stream.events[0], stream.reply.warnings)


def test_only_the_first_answer_counts() -> None:
    document = said(content="One")
    document["choices"].insert(0, {"index": 1, "message": {"role": "assistant", "content": "Two"}})
    reply = whole(document)
    assert ("One", (LEFT_OUT,)) == (reply.text, reply.warnings)


def test_an_answer_may_have_another_number_than_0() -> None:
    document = said(content="One")
    document["choices"][0]["index"] = 1
    chunks = [{"choices": [{"index": 1, "delta": {"content": piece}}]} for piece in ("On", "e")]
    for reply in (whole(document), read(events(*chunks, done=True))[1]):
        assert ("One", ()) == (reply.text, reply.warnings)


def test_answers_whose_pieces_alternate_are_not_mixed() -> None:
    texts = ((1, "On"), (0, "Tw"), (1, "e"), (0, "o"))
    chunks = [{"choices": [{"index": index, "delta": {"content": piece}}]} for index, piece in texts]
    _, reply = read(events(*chunks))
    assert ("One", (LEFT_OUT,)) == (reply.text, reply.warnings)


def test_answers_that_come_together_are_not_mixed() -> None:
    texts = ((0, ("On", "e")), (1, ("Tw", "o")))
    one, two = ([{"index": index, "delta": {"content": text}} for text in pieces] for index, pieces in texts)
    _, reply = read(events(*({"choices": choices} for choices in (two[:1], [one[0], two[1]], one[1:]))))
    assert ("Two", (LEFT_OUT,)) == (reply.text, reply.warnings)


def test_what_is_told_without_a_number_is_of_the_answer_that_is_read() -> None:
    chunks: list[Json] = [
        {"choices": [{"index": 1, "delta": {"content": "Hi"}}]},
        {"choices": [{"finish_reason": "stop"}]},
    ]
    _, reply = read(events(*chunks))
    assert ("Hi", FinishReason.STOP, ()) == (reply.text, reply.finish_reason, reply.warnings)


def test_parts_of_a_content_that_are_not_text_are_kept_whole() -> None:
    picture = {"type": "image", "image": [{"type": "text", "text": "Hm."}]}
    reply = whole(said(content=[picture, {"type": "text", "text": "Hi"}, " there"]))
    assert (Opaque("openai", "image", picture), Text("Hi there")) == reply.message.parts


@pytest.mark.parametrize(
    ("message", "thought", "beside"),
    [
        ({"reasoning_content": "A"}, "openai:reasoning_content", {}),
        ({"reasoning": "A"}, "openai:reasoning", {}),
        ({"reasoning_content": "A", "reasoning": "A"}, "openai:reasoning_content", {}),
        ({"reasoning_content": "", "reasoning": "A"}, "openai:reasoning", {}),
        ({"reasoning_content": "A", "reasoning": ""}, "openai:reasoning_content", {}),
        ({"reasoning_content": "A", "reasoning": "B"}, "openai:reasoning_content", {"reasoning": "B"}),
        ({"reasoning": {"effort": 1}}, None, {"reasoning": {"effort": 1}}),
        ({"reasoning": None}, None, {}),
    ],
)
def test_reasoning_is_read_from_either_field(message: Json, thought: str | None, beside: Json) -> None:
    reply = whole(said(content="Hi", **message))
    parts = (Text("Hi"),) if thought is None else (Reasoning("A", thought), Text("Hi"))
    assert (parts, beside) == (reply.message.parts, reply.message.extra)


def test_a_refusal_may_be_a_part_of_the_content() -> None:
    refusal: list[Json] = [{"type": "refusal", "refusal": "No."}]
    for reply in (whole(said(content=refusal)), read(events({"content": refusal}, end()))[1]):
        assert ((Text("No."),), FinishReason.REFUSAL) == (reply.message.parts, reply.finish_reason)
        assert {"refusal": "No."} == reply.message.extra


def test_reasoning_may_be_parts_of_the_content() -> None:
    thoughts: list[Json] = [
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}
        for text in ("A", "B")
    ]
    told, reply = read(events(*thoughts, {"content": "Hi"}, end()))
    assert (Reasoning("AB", "openai:thinking"), Text("Hi")) == reply.message.parts == fold(told)
    nothing: Json = {"type": "thinking", "thinking": []}
    assert () == whole(said(content=[nothing])).message.parts
    odd = {"type": "thinking", "thinking": [{"type": "reference"}]}
    assert (Opaque("openai", "thinking", odd),) == whole(said(content=[odd])).message.parts


@pytest.mark.parametrize(
    "odd", [{"usage": ""}, {"usage": []}, {"usage": 5}, {"model": 5}, {"model": None}, {"model": [""]}]
)
def test_what_decides_nothing_costs_no_answer(odd: Json) -> None:
    reply = whole({**said(content="Hi"), **odd})
    assert ("Hi", None) == (reply.text, reply.usage)


@pytest.mark.parametrize("calls", [{}, "", 0, False])
def test_calls_that_are_none_cost_no_answer(calls: object) -> None:
    assert "Hi" == whole(said(content="Hi", tool_calls=calls)).text


def test_zeros_replace_no_usage() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    told = end(usage={"prompt_tokens": 3, "completion_tokens": 1, "queue": 1})
    _, reply = read(events({"content": "Hi"}, told, {"choices": [], "usage": {**zeros, "queue": 0}}))
    assert (Usage(3, 1), {"queue": 1}) == (reply.usage, reply.extra["usage"])
    assert Usage(0, 0, 0) == whole({**said(content="Hi"), "usage": zeros}).usage


# Calls of tools


@pytest.mark.parametrize("arguments", ["not JSON", "[1]", '{"a": 1', "3"])
def test_a_call_that_cannot_be_read_is_kept_as_it_came(arguments: str) -> None:
    function = {"name": "add", "arguments": arguments}
    shown = {"id": "a", "type": "function", "function": function}
    first, *rest = call(index=0, id="a", name="add", arguments=arguments[:2])["tool_calls"]
    pieces = [{"tool_calls": [first, *rest]}, call(index=0, arguments=arguments[2:])]
    told, streamed = read(events(*pieces, end("tool_calls")))
    reply = whole(said(content=None, tool_calls=[shown]))
    assert (
        (Opaque("openai", "tool_call", shown),) == reply.message.parts == streamed.message.parts == fold(told)
    )
    assert (NO_OBJECT,) == reply.warnings == streamed.warnings


@pytest.mark.parametrize(("reason", "warning"), [("length", CUT_OFF), ("tool_calls", NO_OBJECT)])
def test_a_call_at_which_an_answer_was_cut_off_is_told(reason: str, warning: str) -> None:
    """Only the last one can be it: what comes before was whole."""
    pieces = [
        call(index=0, id="a", name="first", arguments="[1]"),
        call(index=1, id="b", name="add", arguments='{"a'),
    ]
    reply = read(events(*pieces, end(reason)))[1]
    assert (NO_OBJECT.replace("add", "first"), warning) == reply.warnings


@pytest.mark.parametrize("arguments", ["", " ", None])
@pytest.mark.parametrize("reason", ["length", "content_filter", "refusal", "error"])
def test_a_call_that_is_cut_off_before_its_arguments_is_none_that_can_be_run(
    reason: str, arguments: str | None
) -> None:
    """Only the last one can be it; one that takes no arguments says `{}`."""
    calls = [(name, name, given) for name, given in (("a", ""), ("add", arguments))]
    pieces = [call(index=i, id=one, name=name, arguments=given) for i, (one, name, given) in enumerate(calls)]
    document = said(tool_calls=[piece["tool_calls"][0] for piece in pieces])
    document["choices"][0]["finish_reason"] = reason
    function = {"name": "add", "arguments": arguments or ""}
    kept = Opaque("openai", "tool_call", {"id": "add", "type": "function", "function": function})
    told, streamed = read(events(*pieces, end(reason)))
    for reply in (streamed, whole(document)):
        assert (ToolCall("a", "a", {}), kept) == reply.message.parts == fold(told)
        assert (CUT_OFF,) == reply.warnings
    _, reply = read(events(call(index=0, id="a", name="add", arguments="{}"), end(reason)))
    assert (ToolCall("a", "add", {}),) == reply.message.parts


def test_a_call_without_arguments_that_is_followed_by_more_was_not_cut_off() -> None:
    _, reply = read(events(call(index=0, id="a", name="add", arguments=""), {"content": "Hi"}, end("length")))
    assert ((ToolCall("a", "add", {}), Text("Hi")), ()) == (reply.message.parts, reply.warnings)


@pytest.mark.parametrize(("arguments", "expected"), [("", {}), (" ", {}), (None, {}), ({"a": 1}, {"a": 1})])
def test_arguments_may_be_missing_or_an_object(arguments: object, expected: Json) -> None:
    reply = whole(said(tool_calls=[{"id": "a", "function": {"name": "add", "arguments": arguments}}]))
    assert (ToolCall("a", "add", expected),) == reply.message.parts


def test_a_tool_that_takes_a_text_is_kept_whole() -> None:
    custom = {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    reply = whole(said(tool_calls=[custom, {"id": "b", "function": {"name": "add"}}]))
    assert (Opaque("openai", "tool_call", custom), ToolCall("b", "add", {})) == reply.message.parts
    assert () == reply.warnings


def test_a_call_without_an_id_gets_one_that_no_other_has() -> None:
    """Not even one of a later answer: there are servers whose answers all have one id."""
    document = said(tool_calls=2 * [{"function": {"name": "add", "arguments": "{}"}}])
    calls = [part for _ in range(2) for part in whole(document).message.parts]
    assert 4 == len({part.id for part in calls if isinstance(part, ToolCall) and part.id})


ADD = ToolCall("a", "add", {"x": 1})
CUT = ToolCall("b", "cut", {"y": 2})


@pytest.mark.parametrize(
    "pieces",
    [
        [
            call(index=0, id="a", name="add", arguments='{"x"'),
            call(index=0, arguments=": 1}"),
            call(index=1, id="b", name="cut", arguments=""),
            call(index=1, arguments='{"y": 2}'),
        ],
        # In turns.
        [
            call(index=0, id="a", name="add"),
            call(index=1, id="b", name="cut"),
            call(index=0, arguments='{"x": 1}'),
            call(index=1, arguments='{"y": 2}'),
        ],
        # Each whole, all with the same number.
        [
            call(index=0, id="a", name="add", arguments='{"x": 1}'),
            call(index=0, id="b", name="cut", arguments='{"y": 2}'),
        ],
        # Without numbers.
        [
            call(id="a", name="add", arguments='{"x": 1'),
            call(arguments="}"),
            call(id="b", name="cut", arguments='{"y":'),
            call(arguments=" 2}"),
        ],
        # With name and id in each piece.
        [
            call(index=0, id="a", name="add", arguments='{"x"'),
            call(index=0, id="a", name="add", arguments=": 1}"),
            call(index=1, id="b", name="cut", arguments='{"y": 2}'),
            call(index=1, id="b", name="cut", arguments=""),
        ],
    ],
)
def test_the_pieces_of_calls_are_put_together(pieces: list[Json]) -> None:
    told, reply = read(events({"role": "assistant", "content": None}, *pieces, end("tool_calls")))
    assert (ADD, CUT) == reply.message.parts == fold(told)


def test_calls_with_neither_ids_nor_numbers_are_told_apart_once_one_is_whole() -> None:
    pieces = [
        call(name="add", arguments='{"x": '),
        call(name="add", arguments="1}"),
        call(name="cut", arguments='{"y": 2}'),
    ]
    told, reply = read(events(*pieces, end("tool_calls")))
    assert reply.message.parts == fold(told)
    assert [("add", {"x": 1}), ("cut", {"y": 2})] == named(reply)


def test_calls_without_ids_and_arguments_are_told_apart_by_their_names() -> None:
    for numbers in ({}, {"index": 0}):
        pieces = [call(name=name, arguments="", **numbers) for name in ("add", "cut")]
        assert [("add", {}), ("cut", {})] == named(read(events(*pieces, end("tool_calls")))[1])


def test_a_tool_that_takes_a_text_is_called_piece_by_piece() -> None:
    pieces: list[Json] = [
        {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": ""}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "SELECT"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": " 1"}}]},
    ]
    told, reply = read(events(*pieces, end("tool_calls")))
    custom = {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    assert (Opaque("openai", "tool_call", custom),) == reply.message.parts == fold(told)


def test_what_a_server_says_of_a_call_is_kept_by_its_id() -> None:
    beside = {"extra_content": {"google": {"thought_signature": "SIG"}}}
    pieces = [call(index=0, id="a", name="add", arguments="", **beside), call(index=0, arguments="{}")]
    shown = {"id": "a", "type": "function", **beside, "function": {"name": "add"}}
    for reply in (read(events(*pieces, end()))[1], whole(said(tool_calls=[shown]))):
        assert {"tool_calls": {"a": beside}} == reply.message.extra


def test_a_call_is_told_once_something_else_comes() -> None:
    add = call(index=0, id="a", name="add", arguments='{"x": 1}')
    told, reply = read(events(add, {"content": "Hm."}, end()))
    assert [PartAdded(ADD, 0), TextDelta("Hm.", 1)] == told
    assert (ADD, Text("Hm.")) == reply.message.parts


# Streams


def test_a_call_without_an_id_is_told_once() -> None:
    """So that its result can be found for what a stream told first."""
    for numbers in ({}, {"index": 0}):
        pieces = [call(name="add", **numbers), call(arguments='{"x": 1}', **numbers), {"content": "Hm."}]
        told, reply = read(events(*pieces, end()))
        first = told[0]
        assert isinstance(first, PartAdded)
        assert isinstance(first.part, ToolCall)
        assert [first, TextDelta("Hm.", 1)] == told
        assert (True, [("add", {"x": 1})]) == (bool(first.part.id), named(reply))
        assert first.part == reply.message.parts[0]


def test_an_id_that_comes_late_is_that_of_its_call() -> None:
    pieces = [call(index=0, name="add"), call(index=0, id="a", arguments='{"x": 1}')]
    assert (ADD,) == read(events(*pieces, end()))[1].message.parts


def test_reasoning_ends_where_the_answer_begins() -> None:
    thoughts: list[Json] = [{"reasoning": "A"}, {"reasoning": "B"}]
    told, reply = read(events(*thoughts, {"content": "Hi"}, {"reasoning_content": "C"}, end()))
    parts = (Reasoning("AB", "openai:reasoning"), Text("Hi"), Reasoning("C", "openai:reasoning_content"))
    assert parts == reply.message.parts == fold(told)


def test_what_comes_piece_by_piece_beside_an_answer_is_joined() -> None:
    pieces: list[Json] = [
        {"content": "Hi", "annotations": [1], "audio": {"id": "x", "data": "QU"}},
        {"annotations": [2], "audio": {"data": "JD", "expires_at": 1}},
        {"function_call": {"name": "f", "arguments": "{"}},
        {"audio": {"expires_at": 2}, "function_call": {"arguments": "}"}, "odd": 1},
        {"odd": "text"},
    ]
    chunks = [
        {"choices": [{"index": 0, "delta": piece, "logprobs": {"content": [n], "refusal": None}}]}
        for n, piece in enumerate(pieces)
    ]
    _, reply = read(events(*chunks, end()))
    assert {
        "annotations": [1, 2],
        "audio": {"id": "x", "data": "QUJD", "expires_at": 2},
        "function_call": {"name": "f", "arguments": "{}"},
        "odd": "text",
    } == reply.message.extra
    assert {"content": [0, 1, 2, 3, 4]} == reply.extra["logprobs"]


def test_usage_may_come_anywhere_and_the_last_counts() -> None:
    usage = [{"prompt_tokens": 1, "completion_tokens": n, "total_tokens": 1 + n} for n in range(3)]
    first: Json = {"choices": [{"index": 0, "delta": {"content": "Hi"}}], "usage": usage[0]}
    _, reply = read(events(first, end(usage=usage[1]), {"choices": [], "usage": usage[2]}))
    assert (Usage(1, 2, 3), "Hi") == (reply.usage, reply.text)


def test_an_event_of_another_name_is_progress() -> None:
    body = b'event: hermes.tool\ndata: {"tool": "look"}\n\n' + events({"content": "Hi"}, end())
    told, reply = read(body)
    assert [Progress("hermes.tool", {"tool": "look", "type": "hermes.tool"}), TextDelta("Hi")] == told
    assert "Hi" == reply.text


def test_an_error_of_a_tool_in_an_event_of_another_name_is_progress() -> None:
    told, reply = read(
        b'event: tool\ndata: {"tool": "look", "error": "gone"}\n\n' + events({"content": "Hi"})
    )
    assert Progress("tool", {"tool": "look", "error": "gone", "type": "tool"}) == told[0]
    assert "Hi" == reply.text


def test_an_event_with_choices_is_part_of_the_answer_whatever_its_name() -> None:
    body = events({"content": "Hi"}, end(), done=False).replace(b"data:", b"event: chunk\ndata:")
    told, reply = read(body)
    assert ([TextDelta("Hi")], FinishReason.STOP) == (told, reply.finish_reason)


def test_a_message_in_an_event_is_taken_for_what_it_adds_all_at_once() -> None:
    _, reply = read(
        events({"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]})
    )
    assert "Hi" == reply.text


def both(delta: Json | None, **message: Any) -> Json:
    """Write an event that has a message beside what it adds."""
    return {"choices": [{"index": 0, "delta": delta, "message": {"role": "assistant", **message}}]}


SO_FAR = [("He", "He"), ("llo", "Hello"), (" you", "Hello you"), ("", "Hello you.")]


def test_the_text_so_far_beside_each_piece_is_not_told_again() -> None:
    """As Perplexity streams; what the message alone has is kept."""
    chunks = [both({"role": "assistant", "content": piece}, content=text) for piece, text in SO_FAR]
    chunks[-1]["choices"][0]["message"]["annotations"] = [{"type": "url_citation"}]
    told, reply = read(events(*chunks, end()))
    assert [TextDelta("He"), TextDelta("llo"), TextDelta(" you"), TextDelta(".")] == told
    assert ("Hello you.", {"annotations": [{"type": "url_citation"}]}) == (reply.text, reply.message.extra)
    assert () == reply.warnings


def test_a_message_at_the_end_of_a_stream_is_not_told_again() -> None:
    pieces: list[Json] = [{"reasoning_content": "Hm"}, {"content": "He"}, {"content": "llo"}]
    lasts: tuple[Json | None, ...] = ({}, None)
    for last in lasts:
        whole_again = both(last, content="Hello", reasoning_content="Hm")
        told, reply = read(events(*pieces, whole_again, end()))
        assert (Reasoning("Hm", "openai:reasoning_content"), Text("Hello")) == fold(told)
        assert (fold(told), {}) == (reply.message.parts, reply.message.extra)


PICTURE: Json = {"type": "image", "image": "QQ"}


@pytest.mark.parametrize(
    ("delta", "message", "parts"),
    [
        ({"reasoning": "Hm"}, {"content": "Hi"}, (Reasoning("Hm", "openai:reasoning"), Text("Hi"))),
        (
            {"reasoning_content": "Hm"},
            {"reasoning": "Hm", "content": "Hi"},
            (Reasoning("Hm", "openai:reasoning_content"), Text("Hi")),
        ),
        ({"content": "Hi"}, call(id="a", name="add", arguments='{"x": 1}'), (Text("Hi"), ADD)),
        ({"content": "", "annotations": [1]}, {"content": "Hi"}, (Text("Hi"),)),
        ({"content": "", "id": "q"}, {"content": "Hi"}, (Text("Hi"),)),
        ({"content": "\n"}, {"content": "Hi"}, (Text("\nHi"),)),
        ({"content": "H"}, {"content": "Hi"}, (Text("Hi"),)),
        ({"content": " Hi"}, {"content": "Hi"}, (Text(" Hi"),)),
        ({"refusal": "N"}, {"content": None, "refusal": "No."}, (Text("No."),)),
        (
            {"content": "H"},
            {"content": [{"type": "text", "text": "Hi"}, PICTURE]},
            (Text("Hi"), Opaque("openai", "image", PICTURE)),
        ),
        (
            {"content": [PICTURE, "H"]},
            {"content": [PICTURE, "Hi"]},
            (Opaque("openai", "image", PICTURE), Text("Hi")),
        ),
    ],
)
def test_what_only_the_message_at_the_end_of_a_stream_has_is_told(
    delta: Json, message: Json, parts: Sequence[Part]
) -> None:
    told, reply = read(events(delta, both(None, **message), end()))
    assert (parts, ()) == (reply.message.parts, reply.warnings)
    assert fold(told) == reply.message.parts


def test_a_message_that_differs_from_the_pieces_is_warned_of() -> None:
    _, reply = read(events({"content": "Hello"}, *2 * [both(None, content="Bye")], end()))
    assert ("Hello", (DIFFERS,)) == (reply.text, reply.warnings)


def test_a_message_that_is_its_piece_again_is_not_warned_of() -> None:
    pieces = (both({"content": text}, content=text) for text in ("He", "llo", "llo"))
    _, reply = read(events(*pieces, end()))
    assert ("Hellollo", ()) == (reply.text, reply.warnings)


@pytest.mark.parametrize("delta", [None, {}, {"role": "assistant", "content": ""}])
@pytest.mark.parametrize(
    ("expected", "texts"),
    [
        ("Hello you.", [text for _, text in SO_FAR]),
        ("Hello you.", ["He", "llo", " y", "ou", "."]),
        ("haha!", ["ha", "ha", "!", ""]),
        ("Hello you ", ["Hello ", "Hello you ", "Hello you"]),
        ("Hello", ["He", "Hello", "Hello", ""]),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_messages_in_a_stream_without_pieces_are_the_text_so_far_or_what_they_add(
    expected: str, texts: list[str], listed: bool, delta: Json | None
) -> None:
    contents: list[Any] = [[{"type": "text", "text": text}] if listed else text for text in texts]
    told, reply = read(events(*(both(delta, content=content) for content in contents), end()))
    assert ((Text(expected),), ()) == (reply.message.parts, reply.warnings)
    assert fold(told) == reply.message.parts


def test_messages_that_tell_the_text_so_far_tell_thoughts_and_what_is_beside_them_again() -> None:
    texts: list[tuple[str, Json]] = [
        ("", {"citations": [1]}),
        ("He", {"citations": [1], "audio": {"data": "QU"}}),
        ("Hello", {"citations": [1, 2], "audio": {"data": "QUJD", "id": "x"}}),
    ]
    told, reply = read(events(*(both(None, content=text, reasoning="Hm", **more) for text, more in texts)))
    assert (Reasoning("Hm", "openai:reasoning"), Text("Hello")) == fold(told) == reply.message.parts
    assert {"citations": [1, 2], "audio": {"data": "QUJD", "id": "x"}} == reply.message.extra


def test_what_messages_tell_piece_by_piece_beside_a_text_is_joined() -> None:
    pieces = (both(None, content=text, citations=[n], id="q") for n, text in enumerate(["He", "llo"]))
    _, reply = read(events(*pieces, end()))
    assert ("Hello", {"citations": [0, 1], "id": "q"}) == (reply.text, reply.message.extra)


@pytest.mark.parametrize("streamed", [True, False])
def test_calls_of_the_message_so_far_are_not_told_again(streamed: bool) -> None:
    one, two = (call(index=i, id="ab"[i], name="add", arguments="") for i in range(2))
    pieces = [one, call(index=0, arguments='{"x": 1'), call(index=0, arguments="}"), two]
    texts = ["", '{"x": 1', '{"x": 1}']
    messages = [call(id="a", name="add", arguments=text)["tool_calls"] for text in texts]
    messages.append([*messages[-1], *call(id="b", name="add", arguments="")["tool_calls"]])
    chunks = [
        both(piece if streamed else None, tool_calls=calls)
        for piece, calls in zip(pieces, messages, strict=True)
    ]
    told, reply = read(events(*chunks, end("tool_calls")))
    assert (ToolCall("a", "add", {"x": 1}), ToolCall("b", "add", {})) == reply.message.parts == fold(told)


@pytest.mark.parametrize("beside", [{"id": "a"}, {"index": 0}, {}])
@pytest.mark.parametrize("shape", ["delta", "message"])
@pytest.mark.parametrize("last", ['{"x":1}', '{ "x": 1}', '{"x": 1'])
def test_a_call_that_is_told_again_in_other_words_is_one(shape: str, beside: Json, last: str) -> None:
    first, again = (call(name="add", arguments=text, **beside) for text in ('{"x": 1}', last))
    told, reply = read(events({"choices": [{shape: first}]}, both(None, **again), end("tool_calls")))
    assert [("add", {"x": 1})] == named(reply)
    assert fold(told) == reply.message.parts


def test_other_arguments_of_the_same_call_replace_those_that_came() -> None:
    messages = [call(id="a", name="add", arguments=text) for text in ("{}", '{"x": 1}')]
    _, reply = read(events(*(both(None, **message) for message in messages), end("tool_calls")))
    assert (ADD,) == reply.message.parts


def test_a_call_in_a_message_may_come_piece_by_piece() -> None:
    first, last = call(id="a", name="add", arguments='{"x"'), call(arguments=": 1}")
    _, reply = read(events(both(None, **first), both(None, **last), end("tool_calls")))
    assert (ADD,) == reply.message.parts


@pytest.mark.parametrize("ids", [("a", "b"), (None, None)])
def test_calls_in_messages_that_are_not_the_same_are_each_told(ids: tuple[str | None, ...]) -> None:
    calls = [
        call(id=each, name="add", arguments=text)
        for each, text in zip(ids, ('{"x": 1}', '{"x": 2}'), strict=True)
    ]
    _, reply = read(events(*(both(None, **each) for each in calls), end("tool_calls")))
    assert [("add", {"x": 1}), ("add", {"x": 2})] == named(reply)
    _, reply = read(events(both(None, tool_calls=2 * calls[0]["tool_calls"]), end("tool_calls")))
    assert 2 == len(named(reply))


def test_a_message_that_tells_a_call_again_behind_the_end_adds_nothing() -> None:
    answer, message = AnswerFold(), call(id="a", name="add", arguments="{}")
    for value in (message, end("tool_calls"), both(None, **message)):
        chunk = value if "choices" in value else {"choices": [{"delta": value}]}
        answer.take(structure(chunk, Chunk))
    assert answer.has_ended


@pytest.mark.parametrize(("name", "kind"), [("reasoning", Reasoning), ("refusal", Text)])
def test_a_whole_message_without_a_content_is_read_beside_an_empty_delta(name: str, kind: type[Part]) -> None:
    document = said(content="", **{name: "Hm"})
    document["choices"][0]["delta"] = {"content": ""}
    assert [kind] == [type(part) for part in whole(document).message.parts]


def test_halves_of_characters_are_joined() -> None:
    halves = [json.dumps({"choices": [{"delta": {"content": half}}]}) for half in ("\ud83d", "\ude00")]
    assert "\U0001f600" == read(events(*halves, end()))[1].text


STREAM = b": OPENROUTER PROCESSING\r\n\r\n" + events(
    {"role": "assistant", "content": ""},
    {"reasoning": "Hm, \u00e9."},
    {"content": "On"},
    {"content": "e \U0001f600"},
    call(index=0, id="a", name="add", arguments='{"x"'),
    call(index=0, arguments=": 1}"),
    end("tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 3}},
)
EXPECTED = (Reasoning("Hm, \u00e9.", "openai:reasoning"), Text("One \U0001f600"), ADD)


@given(st.lists(st.integers(min_value=0), max_size=8))
def test_a_stream_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    told, reply = read(STREAM, *cuts)
    assert EXPECTED == reply.message.parts == fold(told)
    assert (FinishReason.TOOL_CALLS, Usage(3)) == (reply.finish_reason, reply.usage)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
deltas = st.lists(
    st.one_of(
        st.fixed_dictionaries({"content": words}),
        st.fixed_dictionaries({"reasoning_content": words}),
        st.fixed_dictionaries({"refusal": words}),
        st.fixed_dictionaries({"content": st.none(), "annotations": st.lists(st.integers(), max_size=2)}),
    ),
    max_size=8,
)


@given(deltas)
def test_the_events_of_a_stream_are_its_reply(pieces: list[Json]) -> None:
    told, reply = read(events(*pieces, end()))
    assert reply.message.parts == fold(told)
    shown = "".join(piece.get("content") or piece.get("refusal") or "" for piece in pieces)
    assert shown == reply.text
    refused = any(piece.get("refusal") for piece in pieces)
    assert (FinishReason.REFUSAL if refused else FinishReason.STOP) == reply.finish_reason


@given(words, words, st.booleans())
def test_a_streamed_answer_is_the_whole_one(thought: str, text: str, refused: bool) -> None:
    name = "refusal" if refused else "content"
    message = {"reasoning": thought, name: text, "extra": [1, 2]}
    pieces: list[Json] = [{"reasoning": thought}, {name: text[:3]}, {name: text[3:]}]
    one, other = whole(said(**message)), read(events(*pieces, {"extra": [1]}, {"extra": [2]}, end()))[1]
    assert (one.message.parts, one.finish_reason) == (other.message.parts, other.finish_reason)
    assert {**one.message.extra, "refusal": ""} == {**other.message.extra, "refusal": ""}


# Errors


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"message": "No", "type": "t", "param": None, "code": "c"}}, "No", "c"),
        ({"error": {"message": "No", "type": "t", "code": None}}, "No", "t"),
        ({"error": {"message": "No", "type": "t", "code": 400}}, "No", "t"),
        ({"error": {"message": "No", "type": "t", "code": "400"}}, "No", "t"),
        ({"error": "Unauthorized"}, "Unauthorized", None),
        ({"status": 400, "error": "Bad Request", "message": "No"}, "Bad Request: No", None),
        ({"error": "No", "message": "No", "code": "c"}, "No", "c"),
        ({"error": "", "message": "No"}, "No", None),
        ({"error": {}, "detail": "No"}, "No", None),
        ({"object": "error", "message": "No", "type": "t", "code": 400}, "No", "t"),
        ({"detail": "No"}, "No", None),
        ({"detail": {"error": "No"}}, "No", None),
        (
            {"detail": [{"loc": ["body", 0], "msg": "Bad"}, {"msg": "Worse"}, 3]},
            "body.0: Bad; Worse; 3",
            None,
        ),
        ([{"error": {"code": 400, "message": "No", "status": "INVALID_ARGUMENT"}}], "No", None),
        ([], None, None),
        ({"error": {}}, None, None),
        ({"error": 3}, "3", None),
        ({"error": True, "message": "No", "code": "c"}, "No", "c"),
        ({"error": True}, None, None),
        ({}, None, None),
        ("No", "No", None),
        (None, None, None),
    ],
)
def test_an_error_is_read_in_each_form(body: object, message: str | None, code: str | None) -> None:
    error = read_error(400, body)
    assert (message, code, None) == (error.message, error.code, error.hint)
    assert (message is not None) is error.from_api


@pytest.mark.parametrize(
    ("server", "status", "error"),
    [
        ("OpenAI", 400, {"code": "context_length_exceeded", "message": "x"}),
        ("OpenAI", 400, "This model's maximum context length is 8 tokens. However, you requested 9 tokens"),
        ("OpenAI", 400, "Your input exceeds the context window of this model."),
        (
            "vLLM",
            400,
            (
                "You passed 9 input tokens and requested 1 output tokens. However, the model's context "
                "length is only 8 tokens, resulting in a maximum input length of 7 tokens."
            ),
        ),
        ("vLLM", 400, "The decoder prompt (length 9) is longer than the maximum model length of 8."),
        ("SGLang", 400, "The input (9 tokens) is longer than the model's context length (8 tokens)."),
        ("llama.cpp", 400, {"type": "exceed_context_size_error", "message": "x"}),
        (
            "llama.cpp",
            400,
            "request (9 tokens) exceeds the available context size (8 tokens), try increasing",
        ),
        (
            "llama.cpp",
            500,
            {"type": "server_error", "code": 500, "message": "Context size has been exceeded."},
        ),
        ("llama-cpp-python", 500, "Requested tokens (9) exceed context window of 8"),
        ("Ollama", 400, "prompt too long; exceeded max context length by 1 tokens"),
        ("LM Studio", 400, "Cannot truncate prompt with n_keep (9) >= n_ctx (8)"),
        (
            "LM Studio",
            400,
            (
                "Trying to keep the first 9 tokens when context the overflows. However, the model is loaded "
                "with context length of only 8 tokens, which is not enough."
            ),
        ),
        ("Anthropic", 400, "prompt is too long: 9 tokens > 8 maximum"),
        ("Anthropic", 400, "input length and `max_tokens` exceed context limit: 9 + 1 > 8"),
        ("Gemini", 400, "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
        ("xAI", 400, "This model's maximum prompt length is 8 but the request contains 9 tokens."),
        ("Bedrock", 400, "Input is too long for requested model."),
        (
            "Cohere",
            400,
            "too many tokens: size limit exceeded by 9 tokens. Try using shorter or fewer inputs.",
        ),
        (
            "Cohere",
            400,
            "too many tokens: total number of tokens (prompt and prediction) cannot exceed 8 - received 9.",
        ),
        (
            "TGI",
            422,
            (
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8. Given: 9 `inputs` "
                "tokens and 1 `max_new_tokens`"
            ),
        ),
        ("TGI", 422, "Input validation error: `inputs` must have less than 8 tokens. Given: 9"),
        (
            "Moonshot",
            400,
            "Invalid request: Your request exceeded model token limit: 8 (requested: 9)",
        ),
        ("Qwen", 400, "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 8]"),
    ],
)
def test_what_does_not_fit_has_one_code_whatever_the_words(server: str, status: int, error: object) -> None:
    """None of it is asked again: it never fits."""
    for each in (status, 200):
        told = read_error(each, {"error": error})
        assert (server, "context_length_exceeded", Hint.TOO_LONG) == (server, told.code, told.hint)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, "the size of the context cannot be read"),
        (429, "Tokens per minute exceed the context size of your tier"),
        (429, "Request too large on tokens per min (TPM): Limit 30000, Requested 40000."),
        (503, "Overloaded: your prompt exceeds the maximum number of tokens per minute"),
        (400, "Rate limit: the input exceeds the model's context length"),
        (403, "Your input exceeds the maximum number of tokens allowed per day"),
        (413, "Input is too long for your quota"),
        (400, "max_tokens: 99999 exceeds the maximum number of tokens allowed for completion (4096)"),
        (400, "The user id in the input is too long"),
        (400, "Range of max_tokens should be [1, 8192]"),
        (422, "Input validation error: `max_new_tokens` must be <= 4096. Given: 8192"),
        (400, "too many tokens: max tokens must be less than or equal to 4096 - received 8192."),
        (400, "too many tokens: size limit exceeded by 9 tokens per minute"),
        (400, "Tool name in prompt is too long: at most 64 characters"),
    ],
)
def test_an_error_that_may_pass_is_none_of_length(status: int, words: str) -> None:
    for each in (status, 200):
        if status != 429 or each == status:
            told = read_error(each, {"error": words})
            assert (words, None, None) == (told.message, told.code, told.hint)


@pytest.mark.parametrize("code", [429, "429", "rate_limit_exceeded"])
def test_a_rate_limit_within_an_answer_is_known_by_its_code(code: object) -> None:
    """A history must not be made shorter for it."""
    words = "Your input exceeds the context window of this model."
    told = read_error(200, {"error": {"code": code, "message": words}})
    assert (str(code), Hint.REFUSED) == (told.code, told.hint)


@pytest.mark.parametrize(
    ("status", "error", "hint"),
    [
        (429, {"code": "insufficient_quota"}, Hint.QUOTA),
        (429, {"code": "rate_limit_exceeded"}, None),
        (403, {"code": "billing_hard_limit_reached"}, Hint.QUOTA),
        (402, {"message": "Insufficient Balance"}, Hint.QUOTA),
        (500, {"code": "insufficient_quota"}, None),
        (503, {"type": "unavailable_error", "message": "Loading model"}, Hint.REFUSED),
        (503, {"type": "server_error"}, None),
        (500, {"code": 402}, None),
        (400, {"code": 502}, None),
        (200, {"code": 402}, Hint.QUOTA),
        (200, {"code": "402", "message": "Insufficient credits"}, Hint.QUOTA),
        (200, {"code": 429, "type": "insufficient_quota"}, Hint.QUOTA),
        (200, {"type": "billing_error"}, Hint.QUOTA),
        (200, {"code": 502, "type": "BadGateway"}, Hint.REFUSED),
        (200, {"code": 400, "type": "BadRequestError"}, None),
        (200, {"code": 2, "message": "x"}, None),
        (200, {"code": True}, None),
    ],
)
def test_what_an_error_says_beyond_its_status(status: int, error: Json, hint: Hint | None) -> None:
    assert hint == read_error(status, {"error": error}).hint


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (429, {"code": "insufficient_quota", "message": "No."}, "No."),
        (403, {"code": "billing_hard_limit_reached", "message": "No."}, "billing_hard_limit_reached: No."),
        (402, {"message": "Insufficient Balance"}, "Insufficient Balance"),
        (402, {}, None),
        (200, {"code": 402, "message": "Insufficient credits"}, "Insufficient credits"),
        (200, {"type": "billing_error", "message": "No."}, "billing_error: No."),
    ],
)
def test_spent_credit_has_one_code_whatever_the_servers(status: int, error: Json, words: str | None) -> None:
    told = read_error(status, {"error": error})
    assert ("insufficient_quota", words) == (told.code, told.message)


fields = st.sampled_from(["error", "detail", "message", "code", "type", "msg", "loc"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(fields, value, max_size=4),
)


@given(st.integers(200, 599), json_values)
def test_no_error_is_too_odd_to_be_read(status: int, body: object) -> None:
    error = read_error(status, body)
    assert isinstance(error.message, str | None)
    assert isinstance(error.code, str | None)
