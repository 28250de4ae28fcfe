"""How completions of Tachyon are read, whole and streamed: text, tools, the end, and failures."""

from __future__ import annotations

import json
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    Bridge,
    Chat,
    DeliveryUnknown,
    FinishReason,
    Opaque,
    Outcome,
    Part,
    PartAdded,
    Progress,
    ProviderFailed,
    Reply,
    Role,
    SendOptions,
    Started,
    StreamCut,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
)
from chatbridge.events import shown_text
from chatbridge.http import BrokenContent, Chunk, Frame, Mender, read_event, structure
from chatbridge.testing.checking import fold
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.tachyon.completion import NO_CALL, RoomFold
from chatbridge_adapters.tachyon.emulator import TachyonEmulator

Reach = Callable[..., Awaitable[Bridge]]
Json = dict[str, Any]
ROOM = "ch_01jm4x3w6r7n8p9q0s1t2v3w4x"
MODEL = "anthropic:claude-sonnet-4-5-20250929"
MAPLE = "\U0001f341"
DONE = b"data: [DONE]\n\n"


def event(value: object, name: str | None = None) -> bytes:
    """Write an event; halves of characters are escaped."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(delta: Json, reason: str | None = None, **more: Any) -> bytes:
    choice: Json = {"delta": delta, "index": 0}
    choice |= {} if reason is None else {"finish_reason": reason}
    return event(
        {"id": "msg_1", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice], **more}
    )


def say(text: Any) -> bytes:
    return chunk({"role": "assistant", "content": text})


def stream(*chunks: bytes) -> bytes:
    return b"".join(chunks) + chunk({}, "stop") + DONE


def calling(*calls: Json, **more: Any) -> bytes:
    return chunk({"tool_calls": list(calls), **more})


def piece(
    index: int | None = None, call_id: str | None = None, name: str | None = None, args: Any = None
) -> Json:
    fields: Json = {"index": index, "id": call_id, "function": {"name": name, "arguments": args}}
    return {key: value for key, value in fields.items() if value is not None}


@pytest.fixture
def emulator() -> TachyonEmulator:
    return TachyonEmulator()


@pytest.fixture
async def bridge(reach: Reach, emulator: TachyonEmulator) -> Bridge:
    return await reach(emulator)


class Reader:
    """Reads what the server is told to answer, in a room that need not exist."""

    def __init__(self, bridge: Bridge, emulator: TachyonEmulator) -> None:
        self.chat: Chat = bridge.open(ROOM)
        self.emulator = emulator
        self.events: list[StreamEvent] = []

    async def __call__(self, body: bytes, content_type: str = "text/event-stream", **options: Any) -> Reply:
        self.events.clear()
        self.emulator.fail(Fault(status=200, body=body, headers={"Content-Type": content_type}))
        async with self.chat.stream("Hello", SendOptions(**options)) as stream:
            async for each in stream:
                self.events.append(each)
        parts = [part for part in stream.reply.message.parts if part != Text("")]
        assert tuple(parts) == fold(self.events)
        assert shown_text(self.events) == stream.reply.text
        return stream.reply

    async def whole(self, value: object, **options: Any) -> Reply:
        self.emulator.fail(Fault(status=200, body=json.dumps(value).encode()))
        return await self.chat.send("Hello", SendOptions(**options))

    @property
    def deltas(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, TextDelta)]

    @property
    def added(self) -> list[Part]:
        return [event.part for event in self.events if isinstance(event, PartAdded)]


@pytest.fixture
def read(bridge: Bridge, emulator: TachyonEmulator) -> Reader:
    return Reader(bridge, emulator)


# Text


async def test_the_stream_of_the_documents_is_read_to_its_end(read: Reader) -> None:
    reply = await read(stream(chunk({"role": "assistant"}), say("\u4ed9\u53f0\u306e"), say("\u5929\u6c17")))
    assert [Started(model=MODEL), TextDelta("\u4ed9\u53f0\u306e"), TextDelta("\u5929\u6c17")] == read.events[
        :-1
    ]
    assert ("\u4ed9\u53f0\u306e\u5929\u6c17", FinishReason.STOP, "stop", MODEL, None, ()) == (
        reply.text, reply.finish_reason, reply.raw_finish_reason, reply.model, reply.usage, reply.warnings,
    )  # fmt: skip
    assert ({"id": "msg_1"}, None) == (reply.extra, reply.message.id)


@pytest.mark.parametrize("content", ["", None, [], [""], [{"type": "text", "text": ""}]])
async def test_a_content_of_nothing_adds_nothing(read: Reader, content: Any) -> None:
    reply = await read(stream(say("Red"), say(content), chunk({"content": content}), chunk({"role": None})))
    assert (["Red"], (Text("Red"),)) == (read.deltas, reply.message.parts)


async def test_a_content_may_be_a_list(read: Reader) -> None:
    other = {"type": "image_url", "image_url": {"url": "https://x\ud800"}}
    content = [{"type": "text", "text": "Red"}, " leaves", other, 5, "."]
    seen = {"type": "image_url", "image_url": {"url": "https://x\ufffd"}}
    parts = (Text("Red leaves"), Opaque("tachyon", "image_url", seen), Opaque("tachyon", "", 5), Text("."))
    reply = await read(stream(say(content)))
    assert (parts, (Mender.WARNING,)) == (reply.message.parts, reply.warnings)
    whole = await read.whole({"choices": [{"message": {"content": content}}]})
    assert (parts, 1) == (whole.message.parts, len(whole.warnings))


async def test_fields_of_the_stateless_stream_do_not_disturb(read: Reader) -> None:
    nulls = {"content": None, "tool_calls": None, "refusal": None}
    more: Json = {"created": 7, "system_fingerprint": None, "service_tier": "x"}
    reply = await read(
        stream(chunk({**nulls, "role": "assistant"}, **more), say("Red"), event({"choices": []}))
    )
    assert ("Red", {"id": "msg_1", "created": 7, "service_tier": "x"}) == (reply.text, reply.extra)


async def test_fields_that_nobody_knows_are_kept(read: Reader) -> None:
    said = {"role": "assistant", "content": "Red", "refusal": "no"}
    choice: Json = {"index": 0, "message": said, "finish_reason": "stop", "logprobs": {"content": []}}
    reply = await read.whole({"id": "c", "object": "chat.completion", "created": 7, "choices": [choice]})
    assert ({"id": "c", "created": 7, "logprobs": {"content": []}}, {"refusal": "no"}) == (
        reply.extra, reply.message.extra,
    )  # fmt: skip


@pytest.mark.parametrize("word", ["stop", "length", "tool_calls", "content_filter", "tired"])
async def test_why_an_answer_ends_is_told(read: Reader, word: str) -> None:
    streamed = await read(say("Red") + chunk({}, word) + DONE)
    whole = await read.whole({"choices": [{"message": {"content": "Red"}, "finish_reason": word}]})
    reason = FinishReason.OTHER if word == "tired" else FinishReason(word)
    for reply in (streamed, whole):
        assert (reason, word) == (reply.finish_reason, reply.raw_finish_reason)


async def test_an_answer_need_not_say_why_it_ends(read: Reader) -> None:
    reply = await read(say("Red") + DONE)
    assert (None, None) == (reply.finish_reason, reply.raw_finish_reason)


@pytest.mark.parametrize("shape", ["message", "delta"])
@pytest.mark.parametrize("said", [{"role": "assistant", "content": "Red"}, {"content": "Red"}])
async def test_a_whole_answer_has_a_message_or_a_delta(read: Reader, shape: str, said: Json) -> None:
    """The text of one without a role is the answer's, too: only in streams it is a tool's."""
    reply = await read.whole({"model": MODEL, "choices": [{shape: said}]})
    assert ("Red", (Text("Red"),), MODEL) == (reply.text, reply.message.parts, reply.model)


async def test_the_only_answer_is_read_whatever_its_number(read: Reader) -> None:
    document: Json = {"choices": [{"index": 1, "message": {"content": "Red"}}]}
    assert "Red" == (await read.whole(document)).text == (await read(json.dumps(document).encode())).text


async def test_a_message_is_read_before_a_delta(read: Reader) -> None:
    choice = {"message": {"content": "Red"}, "delta": {"content": "Blue"}}
    assert "Red" == (await read.whole({"choices": [choice]})).text


@pytest.mark.parametrize("content", ["", None])
async def test_an_answer_may_be_empty(read: Reader, content: str | None) -> None:
    for reply in (
        await read.whole({"choices": [{"message": {"role": "assistant", "content": content}}]}),
        await read(stream(say(content))),
        await read(DONE),
    ):
        assert ("", (), ()) == (reply.text, reply.message.parts, reply.warnings)


async def test_an_answer_of_5_mb_is_read_in_both_ways(read: Reader) -> None:
    text = "maple \u7d05\u8449 " * 400_000
    whole = {"choices": [{"message": {"content": text}}]}
    read.emulator.fail(Fault(status=200, body=json.dumps(whole, ensure_ascii=False).encode()))
    assert text == (await read.chat.send("Hello")).text
    assert text == (await read(f"data: {json.dumps(whole, ensure_ascii=False)}\n\n".encode() + DONE)).text


async def test_text_of_any_script_is_carried(read: Reader) -> None:
    text = "\u4f60\u597d \u3053\u3093\u306b\u3061\u306f \U0001f469\u200d\U0001f467 a\x00b \u2028\x85 [DONE]"
    value = {"choices": [{"delta": {"role": "assistant", "content": text}}]}
    body = b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
    assert text == (await read(body + DONE)).text


# Framing


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_the_stream_is_read_whatever_ends_its_lines(read: Reader, end: bytes) -> None:
    body = b": ping\n\nretry: 5\nid: 7\nevent: message\n" + stream(
        say("Re"), b"\n\nevent: ping\n\n", say("d")
    )
    assert (["Re", "d"]) == (await read(body.replace(b"\n", end)), read.deltas)[1]


@pytest.mark.parametrize("mark", [b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"event: done\ndata: [DONE]\n\n"])
async def test_the_end_mark_is_known_in_any_dress(read: Reader, mark: bytes) -> None:
    assert "Red" == (await read(say("Red") + mark + say("Blue") + event({"message": "late"}, "error"))).text


@pytest.mark.parametrize("content_type", ["application/json", "text/plain; charset=x"])
async def test_the_form_of_the_stream_decides_and_not_what_the_header_says(
    read: Reader, content_type: str
) -> None:
    assert "Red" == (await read(stream(say("Red")), content_type)).text


@pytest.mark.parametrize("shape", ["message", "delta"])
@pytest.mark.parametrize("indent", [None, 2])
async def test_a_document_in_place_of_a_stream_is_the_answer(
    read: Reader, shape: str, indent: int | None
) -> None:
    choice = {shape: {"content": "Red leaves"}, "finish_reason": "stop"}
    document = {"model": MODEL, "choices": [choice], "usage": {"prompt_tokens": 1}}
    reply = await read(json.dumps(document, indent=indent).encode(), "application/json")
    assert ("Red leaves", ["Red leaves"], Usage(1)) == (reply.text, read.deltas, reply.usage)


# Halves of characters


async def test_a_character_that_is_cut_between_two_chunks_is_joined(read: Reader) -> None:
    reply = await read(stream(say("a\ud83c"), say("\udf41b")))
    assert (["a", f"{MAPLE}b"], ()) == (read.deltas, reply.warnings)


@pytest.mark.parametrize("texts", [["a\ud83c", "b"], ["a", "\udf41b"], ["a\ud83c"]])
async def test_half_a_character_is_replaced_with_a_warning(read: Reader, texts: list[str]) -> None:
    reply = await read(stream(*map(say, texts)))
    expected = "".join(texts).replace("\ud83c", "\ufffd").replace("\udf41", "\ufffd")
    assert (expected, (Mender.WARNING,)) == (reply.text, reply.warnings)


async def test_half_a_character_elsewhere_is_replaced_too(read: Reader) -> None:
    odd = {"role": "assistant", "content": "a", "note\ud800": "b\ud800"}
    reply = await read(
        chunk(odd, e="\udc00")
        + calling(piece(0, "i\ud800", "n\ud800", r'{"a": "\ud800"'), piece(0, args="\ud800 }"))
        + calling(piece(1, "j", "n", r'{"a": "\ud800"}'))
        + chunk({"content": "sunny\ud800"})
        + chunk({}, "c\ud800", model="d\ud800")
        + DONE
    )
    assert ("d\ufffd", "c\ufffd", FinishReason.OTHER) == (
        reply.model, reply.raw_finish_reason, reply.finish_reason,
    )  # fmt: skip
    halves, of_call = reply.warnings
    assert (Mender.WARNING, True) == (
        halves,
        of_call.startswith("a call of the tool 'n\ufffd' cannot be read"),
    )
    assert ({"note\ufffd": "b\ufffd"}, {"id": "msg_1", "e": "\ufffd"}) == (reply.message.extra, reply.extra)
    _, unread, call, result = reply.message.parts
    assert isinstance(unread, Opaque)
    assert "i\ufffd" == unread.data["id"]
    assert (ToolCall("j", "n", {"a": "\ufffd"}), ToolResult("i\ufffd", "sunny\ufffd")) == (call, result)
    assert json.dumps([reply.extra, unread.data], ensure_ascii=False).encode()


# Tools


async def test_a_call_on_offer_comes_back_as_a_part_streamed_and_whole(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    parameters: dict[str, Any] = {"properties": {"place": {}}}
    tool = {"name": "weather", "description": "Tells it", "parameters": parameters}
    chat = await bridge.create()
    whole = await chat.send("Ask weather please", tools=(tool,))
    async with chat.stream("Ask weather please", tools=(tool,)) as stream:
        events = [each async for each in stream]
    for reply in (whole, stream.reply):
        (call,) = reply.message.parts
        assert isinstance(call, ToolCall)
        assert ("weather", {"place": "Ask weather please"}) == (call.name, call.arguments)
        assert (FinishReason.TOOL_CALLS, "") == (reply.finish_reason, reply.text)
    assert stream.reply.message.parts == fold(events)
    held = [message.parts async for message in chat.messages()]
    assert [whole.message.parts, stream.reply.message.parts] == held[1::2]
    assert "weather" == emulator.calls[1].json()["tools"][0]["function"]["name"]  # type: ignore[index]


async def test_fragments_of_calls_are_joined_by_their_number(read: Reader) -> None:
    reply = await read(
        calling(piece(0, "a", "weather", ""), piece(1, "b", "time"))
        + calling(piece(1, args='{"zone": '))
        + calling(piece(0, args='{"city": "\u4ed9'), piece(1, args='"JST"}'))
        + calling(piece(0, "a", args='\u53f0"}'))
        + chunk({}, "tool_calls")
        + DONE
    )
    calls = (ToolCall("a", "weather", {"city": "\u4ed9\u53f0"}), ToolCall("b", "time", {"zone": "JST"}))
    assert (calls, list(calls)) == (reply.message.parts, read.added)


async def test_a_number_that_is_used_again_with_another_id_is_another_call(read: Reader) -> None:
    reply = await read(stream(calling(piece(0, "a", "x", "{}")), calling(piece(0, "b", "y", "{}"))))
    assert (ToolCall("a", "x", {}), ToolCall("b", "y", {})) == reply.message.parts


async def test_what_a_tool_on_the_server_gave_is_the_delta_without_a_role(read: Reader) -> None:
    reply = await read(
        stream(
            chunk({"role": "assistant"}),
            say("Let me see."),
            calling(piece(0, "a", "weather"), role="assistant"),
            calling(piece(0, args="{}")),
            chunk({"content": '{"weather":"sunny"}'}),
            say("It is"),
            say(" sunny."),
        )
    )
    parts = (
        Text("Let me see."), ToolCall("a", "weather", {}), ToolResult("a", '{"weather":"sunny"}'),
        Text("It is sunny."),
    )  # fmt: skip
    assert (parts, "Let me see.It is sunny.") == (reply.message.parts, reply.text)
    assert [0, 1, 2, 3, 3] == [each.index for each in read.events if isinstance(each, PartAdded | TextDelta)]


@pytest.mark.parametrize(
    ("delta", "result"),
    [
        ({"content": "sunny"}, ToolResult("", "sunny")),
        ({"role": None, "content": "sunny"}, ToolResult("", "sunny")),
        ({"role": "tool", "content": "sunny"}, ToolResult("", "sunny")),
        ({"content": ["sun", {"type": "text", "text": "ny"}]}, ToolResult("", "sunny")),
        ({"content": [{"weather": "\u6674"}]}, ToolResult("", '[{"weather": "\u6674"}]')),
    ],
)
async def test_a_result_without_a_call_belongs_to_none(read: Reader, delta: Json, result: ToolResult) -> None:
    reply = await read(stream(chunk(delta), say("Red")))
    assert ((result, Text("Red")), "Red") == (reply.message.parts, reply.text)


@pytest.mark.parametrize("arguments", ["[1]", "sunny", '{"a": ', "NaN", 5, '{"a": 1, "a": 2}', "1" * 5000])
async def test_arguments_that_are_no_object_leave_the_call_whole(read: Reader, arguments: object) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    kept = {**call, "function": {"name": "weather", "arguments": str(arguments)}}
    expected = (Opaque("tachyon", "tool_call", kept),)
    assert expected == (await read.whole({"choices": [{"message": {"tool_calls": [call]}}]})).message.parts
    assert expected == (await read(stream(calling(call)))).message.parts


@pytest.mark.parametrize("arguments", ["", " ", None, {}, "{}"])
async def test_a_call_without_arguments_has_none(read: Reader, arguments: object) -> None:
    call = {"id": "a", "function": {"name": "weather", "arguments": arguments}}
    reply = await read.whole({"choices": [{"message": {"content": "Red", "tool_calls": [call, {"id": 7}]}}]})
    assert (Text("Red"), ToolCall("a", "weather", {}), ToolCall("7", "", {})) == reply.message.parts


async def test_what_tools_on_the_server_do_is_in_the_history_as_well(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    emulator.deltas = [
        {"role": "assistant", "tool_calls": [piece(0, "a", "weather", "")]},
        {"tool_calls": [piece(0, args='{"city":"x"}')]},
        {"content": "sunny"},
    ]
    chat = await bridge.create()
    async with chat.stream("Hello") as stream:
        shown = "".join([text async for text in stream.text()])
    assert "Turn 1: you said 'Hello'." == shown == stream.reply.text
    held = [(message.role, message.parts) async for message in chat.messages()]
    call, result, text = stream.reply.message.parts
    assert [
        (Role.USER, (Text("Hello"),)),
        (Role.ASSISTANT, (call,)),
        (Role.TOOL, (result,)),
        (Role.ASSISTANT, (text,)),
    ] == held
    assert (ToolCall("a", "weather", {"city": "x"}), ToolResult("a", "sunny")) == (call, result)


# Usage


async def test_usage_is_told_by_whole_answers(read: Reader) -> None:
    usage = {
        "prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "total_cost": 0.5,
        "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4,
    }  # fmt: skip
    document = {"choices": [{"message": {"content": "Red"}}], "usage": usage}
    reply = await read.whole(document, include={"usage"})
    assert (Usage(9, 12, 21, cached_tokens=3, cost=0.5), ()) == (reply.usage, reply.warnings)
    assert {"usage": {"cache_creation_input_tokens": 4}} == reply.extra


async def test_usage_in_a_stream_is_taken_where_it_is_told(read: Reader) -> None:
    told = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12}})
    reply = await read(say("Red") + chunk({}, "stop", usage=None) + told + DONE, include={"usage"})
    assert (Usage(9, 12), ()) == (reply.usage, reply.warnings)


async def test_usage_that_was_asked_for_and_is_not_told_is_a_warning(read: Reader) -> None:
    streamed = await read(stream(say("Red")), include={"usage"})
    whole = await read.whole({"choices": [{"delta": {"content": "Red"}}]}, include={"usage"})
    for reply in (streamed, whole):
        assert (None, ("the server told no usage that can be read",)) == (reply.usage, reply.warnings)


# Failures


async def failing(read: Reader, body: bytes) -> AnswerLost:
    with pytest.raises(AnswerLost) as lost:
        await read(body)
    assert (ROOM, Outcome.ACCEPTED, "tachyon") == (
        lost.value.conversation_id, lost.value.outcome, lost.value.provider,
    )  # fmt: skip
    assert ["chat_completion_on_chatroom"] == [call.operation for call in read.emulator.calls]
    return lost.value


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (event({"code": "STREAM_ERROR", "message": "gone"}, "error"), "STREAM_ERROR", "gone"),
        (event({"message": "ProviderError: gone"}, "error"), "ProviderError", "gone"),
        (event({"error": {"code": "X", "message": "gone"}}, "error"), "X", "gone"),
        (event("gone", "error"), None, "gone"),
        (b"event: error\ndata: gone\n\n", None, "gone"),
        (event({"error": {"code": "X", "message": "gone"}}), "X", "gone"),
        (event({"error": "gone"}), None, "gone"),
        (event({"code": "X", "message": "gone"}), "X", "gone"),
        (event({"detail": 5}, "error"), None, ""),
        (event(None, "error"), None, ""),
        (b"event: error\n\n", None, ""),
        (b"event: error\ndata: \xff\n\n", None, ""),
    ],
)
async def test_an_error_inside_the_stream_fails_the_answer_and_keeps_what_was_said(
    read: Reader, failure: bytes, code: str | None, said: str
) -> None:
    error = await failing(read, stream(say("Red"), say(" leaves"), failure))
    assert isinstance(error, ProviderFailed)
    assert ("provider", "Red leaves", code) == (error.kind, error.partial, error.code)
    assert said in str(error)
    assert (Started(model=MODEL), TextDelta("Red"), TextDelta(" leaves")) == error.events


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"code": "X", "message": "no model"}, "no model"),
        ({"message": "BadRequest: no model"}, "no model"),
        ({"error": {"message": "no model"}}, "no model"),
        ({"choices": []}, "not an answer"),
        ({"choices": None}, "not an answer"),
        ({"choices": [{"index": 0}]}, "not an answer"),
        ({"type": "error", "code": "X"}, "not an answer"),
        ({"status": "queued"}, "not an answer"),
        ({}, "not an answer"),
    ],
)
async def test_a_document_that_is_no_answer_fails_it(read: Reader, document: Json, said: str) -> None:
    error = await failing(read, json.dumps(document).encode())
    with pytest.raises(ProviderFailed, match=said) as sent:
        await read.whole(document)
    assert isinstance(error, ProviderFailed)
    assert said in str(error)
    assert error.code == sent.value.code


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        (b"", "cut"),
        (chunk({}, "stop"), "cut"),
        (b"data: [DONE]", "cut"),
        (b"data: no JSON\n\n", "json"),
        (b'data: {"choices": 5}\n\n', "schema"),
        (event({"choices": [{"delta": {"content": 5}}]}), "schema"),
        (event({"choices": [{"delta": {"role": 5}}]}), "schema"),
        (event({"choices": [{"delta": {"tool_calls": [5]}}]}), "schema"),
        (event([1]), "schema"),
    ],
)
async def test_a_stream_that_does_not_end_as_it_should_is_cut_and_keeps_what_was_said(
    read: Reader, rest: bytes, kind: str
) -> None:
    error = await failing(read, say("Red") + say(" leaves") + rest)
    assert isinstance(error, StreamCut)
    assert (kind, "Red leaves") == (error.kind, error.partial)


FORMS: tuple[tuple[Json, str], ...] = (
    ({"choices": 5}, r"expected a list @ \$.choices"),
    ({"choices": [{"message": {"content": 5}}]}, r"expected a text or a list @ \$.choices\[0\].message"),
    ({"choices": [{"message": "Red"}]}, r"@ \$.choices\[0\].message"),
    ({"choices": [{"message": {"tool_calls": 5}}]}, r"@ \$.choices\[0\].message"),
)


@pytest.mark.parametrize(("document", "said"), FORMS)
async def test_a_whole_answer_of_another_form_is_lost(read: Reader, document: Json, said: str) -> None:
    with pytest.raises(AnswerLost, match=said) as lost:
        await read.whole(document)
    assert ("schema", Outcome.ACCEPTED) == (lost.value.kind, lost.value.outcome)


@pytest.mark.parametrize("body", [b"", b"\n\n", b": nothing\n\n"])
async def test_a_stream_of_nothing_is_no_answer(read: Reader, body: bytes) -> None:
    assert (await failing(read, body)).kind in {"empty", "cut"}


async def test_a_web_page_in_place_of_a_stream_leaves_the_delivery_in_doubt(read: Reader) -> None:
    with pytest.raises(DeliveryUnknown) as unknown:
        await read(b"<!doctype html>\n\n<p>Sign in", "text/html")
    assert ("not_the_api", 1) == (unknown.value.kind, len(read.emulator.calls))


@pytest.mark.parametrize(
    ("fault", "kind", "kept"),
    [
        (Fault(cut_after=3), "cut", 2),
        (Fault(cut_after=3, cut="end"), "cut", 2),
        (Fault(cut_after=3, error="The model left"), "provider", 0),
    ],
)
async def test_an_answer_that_breaks_off_is_not_asked_for_again(
    bridge: Bridge, emulator: TachyonEmulator, fault: Fault, kind: str, kept: int
) -> None:
    """A turn that was not answered is not stored at all."""
    chat = await bridge.create()
    emulator.fail(evolve(fault), operation="chat_completion_on_chatroom")
    with pytest.raises(AnswerLost) as lost:
        async with chat.stream("Hello") as stream:
            assert [each async for each in stream]
    assert (kind, "Turn 1:", chat.id) == (lost.value.kind, lost.value.partial, lost.value.conversation_id)
    assert 2 == len(emulator.calls)
    assert kept == len([message async for message in chat.messages()])


async def test_a_stream_that_is_left_early_still_ends_in_the_history(bridge: Bridge) -> None:
    chat = await bridge.create()
    async with chat.stream("Hello") as stream:
        await anext(stream)
    await chat.send("Are you there?")
    assert "Are you there?" == [message.text async for message in chat.messages()][-2]


# Properties


@given(st.text(), st.data())
def test_however_a_text_is_cut_it_is_the_text(text: str, data: st.DataObject) -> None:
    units = text.encode("utf-16-le")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(units) // 2), max_size=5)))
    places = [0, *(2 * cut for cut in cuts), len(units)]
    answer = RoomFold()
    events: list[StreamEvent] = []
    for begin, end in pairwise(places):
        content = units[begin:end].decode("utf-16-le", "surrogatepass")
        value = {"choices": [{"delta": {"role": "assistant", "content": content}}]}
        events += answer.take(structure(value, Chunk))
    events += answer.finish()
    reply = answer.reply()
    assert (text, ()) == (reply.text, reply.warnings)
    assert reply.message.parts == fold(events)


KEYS = st.sampled_from([
    "choices", "delta", "message", "content", "role", "tool_calls", "function", "arguments", "name", "id",
    "index", "type", "text", "usage", "error", "model", "finish_reason", "prompt_tokens", "object",
])  # fmt: skip
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)


JSON = st.recursive(VALUES | st.sampled_from(["{}", "\ud83c", "text", "tool"]), nested, max_leaves=10)
Made = st.SearchStrategy[Any]
SAID: Made = st.fixed_dictionaries(
    {}, optional={"role": JSON, "content": JSON, "tool_calls": st.lists(JSON, max_size=3)}
)
CHOICE: Made = st.fixed_dictionaries({}, optional={"delta": SAID, "message": SAID, "finish_reason": JSON})
CHUNK: Made = JSON | st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=2)}, optional={"usage": JSON, "model": JSON, "id": JSON}
)


@given(st.lists(CHUNK, max_size=5), st.booleans())
def test_whatever_a_server_sends_it_is_a_reply_or_broken(values: list[object], whole: bool) -> None:
    answer = RoomFold()
    events: list[StreamEvent] = []
    for value in values:
        with suppress(BrokenContent):
            events += answer.take(structure(value, Chunk), whole=whole)
    events += answer.finish()
    reply = answer.reply()
    assert reply.message.parts == fold(events)
    assert repr(reply).encode()
    assert json.dumps([reply.extra, reply.message.extra], ensure_ascii=False).encode()


@given(st.binary(), st.sampled_from(["message", "error", "ping"]))
def test_whatever_an_event_holds_it_is_json_or_broken(data: bytes, name: str) -> None:
    with suppress(BrokenContent):
        read_event(Frame(name, data))


async def test_results_go_to_the_calls_that_have_none_in_order(read: Reader) -> None:
    reply = await read(stream(
        calling(piece(0, "a", "w", "{}"), piece(1, "b", "w", "{}")),
        chunk({"content": "sun"}), chunk({"content": "rain"}), say("Both."),
    ))  # fmt: skip
    results = [part for part in reply.message.parts if isinstance(part, ToolResult)]
    assert [ToolResult("a", "sun"), ToolResult("b", "rain")] == results
    assert () == reply.warnings


async def test_a_message_at_the_end_of_a_stream_is_not_told_again(read: Reader) -> None:
    """What a tool gave is no part of its text."""
    call = piece(0, "a", "w", "{}")
    message = {"role": "assistant", "content": "Both.", "tool_calls": [call]}
    last = event({"choices": [{"message": message, "finish_reason": "stop"}]})
    reply = await read(stream(calling(call), chunk({"content": "sun"}), say("Bo"), last))
    assert (ToolCall("a", "w", {}), ToolResult("a", "sun"), Text("Both.")) == reply.message.parts
    assert () == reply.warnings


async def test_text_between_the_pieces_of_a_call_does_not_end_it(read: Reader) -> None:
    reply = await read(
        stream(calling(piece(0, "a", "w", '{"x":')), say("Hm."), calling(piece(0, args=" 1}")))
    )
    assert (ToolCall("a", "w", {"x": 1}), Text("Hm.")) == reply.message.parts


async def test_a_result_before_any_call_is_warned_of_once(read: Reader) -> None:
    reply = await read(stream(say("He"), chunk({"content": "llo"}), chunk({"content": "!"})))
    assert (Text("He"), ToolResult("", "llo"), ToolResult("", "!")) == reply.message.parts
    assert (NO_CALL,) == reply.warnings


@pytest.mark.parametrize(
    "message", [{"role": "assistant", "content": None}, {"role": "assistant", "content": ""}]
)
async def test_where_the_message_says_nothing_the_delta_is_taken(read: Reader, message: Json) -> None:
    document = {"choices": [{"message": message, "delta": {"content": "Red"}}]}
    assert "Red" == (await read.whole(document)).text
    assert "Red" == (await read(json.dumps(document).encode(), "application/json")).text


@pytest.mark.parametrize(
    "document",
    [
        {"code": "PAYMENT_REQUIRED", "message": "boom"},
        {"error": {"code": "PAYMENT_REQUIRED", "message": "boom"}},
        {
            "choices": [{"message": {"content": "a"}}],
            "error": {"code": "PAYMENT_REQUIRED", "message": "boom"},
        },
    ],
)
async def test_a_failure_under_status_200_is_one_in_both_ways(read: Reader, document: Json) -> None:
    for asked in (read.whole(document), read(json.dumps(document).encode(), "application/json")):
        with pytest.raises(ProviderFailed, match="boom") as caught:
            await asked
        assert ("PAYMENT_REQUIRED", Outcome.ACCEPTED) == (caught.value.code, caught.value.outcome)


@pytest.mark.parametrize(
    ("other", "data"),
    [
        (b"event: ping\ndata: hey\n\n", {"type": "ping", "message": "hey"}),
        (b'event: notice\ndata: {"message": "cached"}\n\n', {"type": "notice", "message": "cached"}),
        (b"event: ping\n\n", {"type": "ping"}),
    ],
)
async def test_an_event_of_another_name_is_progress(read: Reader, other: bytes, data: Json) -> None:
    reply = await read(other + say("Red") + other + DONE)
    assert "Red" == reply.text
    assert [Progress(data["type"], data)] * 2 == [each for each in read.events if isinstance(each, Progress)]


@pytest.mark.parametrize("index", [0, 0.0, None, "0", [], {}])
async def test_the_choice_that_was_asked_for_has_the_number_0_or_none(read: Reader, index: object) -> None:
    second = {"index": 1, "message": {"role": "assistant", "content": "second"}, "finish_reason": "length"}
    first = {"index": index, "message": {"role": "assistant", "content": "first"}, "finish_reason": "stop"}
    whole = await read.whole({"choices": [second, first]})
    streamed = await read(event({"choices": [first]}) + event({"choices": [second]}) + DONE)
    assert [("first", "stop")] * 2 == [(each.text, each.raw_finish_reason) for each in (whole, streamed)]


async def test_pieces_of_a_field_beyond_ours_are_joined_and_null_is_none(read: Reader) -> None:
    more: list[Json] = [
        {"role": "assistant", "content": "a", "reasoning_content": text, "n": 1}
        for text in ("th\ud83c", None)
    ]
    last = {"role": "assistant", "reasoning_content": "\udf41ink", "n": 2}
    reply = await read(stream(*map(chunk, [*more, last])))
    assert {"reasoning_content": f"th{MAPLE}ink", "n": 2} == reply.message.extra


@pytest.mark.parametrize("call_id", [None, "a"])
async def test_a_number_that_is_used_again_after_its_result_is_another_call(
    read: Reader, call_id: str | None
) -> None:
    reply = await read(stream(
        calling(piece(0, call_id, "x", "{}")), chunk({"content": "1"}),
        calling(piece(0, call_id, "y", '{"n":')), calling(piece(0, args="2}")), chunk({"content": "2"}),
    ))  # fmt: skip
    own = call_id or ""
    assert (
        ToolCall(own, "x", {}), ToolResult(own, "1"), ToolCall(own, "y", {"n": 2}), ToolResult(own, "2"),
    ) == reply.message.parts  # fmt: skip


async def test_a_call_is_told_when_text_interrupts_it_and_again_once_it_is_answered(read: Reader) -> None:
    reply = await read(stream(
        calling(piece(0, "a", "w", "{}")), say("Hm."), calling(piece(0, name="x")), chunk({"content": "r"}),
        chunk({"content": "s"}), calling(piece(0, args=" ")),
    ))  # fmt: skip
    assert (ToolCall("a", "x", {}), Text("Hm."), ToolResult("a", "r"), ToolResult("a", "s")) == (
        reply.message.parts
    )
    told = [ToolCall("a", "w", {}), ToolCall("a", "x", {}), *reply.message.parts[2:], ToolCall("a", "x", {})]
    assert (told, ()) == (read.added, reply.warnings)


async def test_pieces_of_calls_without_a_number_are_told_apart_by_their_place(read: Reader) -> None:
    reply = await read(stream(calling(piece(None, None, "x", "{}"), piece(None, None, "y", "{}"))))
    assert (ToolCall("", "x", {}), ToolCall("", "y", {})) == reply.message.parts


async def test_calls_of_a_whole_answer_are_each_complete(read: Reader) -> None:
    message = {"tool_calls": [piece(0, None, "x", "{}"), piece(0, None, "y", "{}")]}
    reply = await read.whole({"choices": [{"message": message}]})
    assert (ToolCall("", "x", {}), ToolCall("", "y", {})) == reply.message.parts


async def test_a_name_that_is_told_again_replaces_the_first(read: Reader) -> None:
    reply = await read(stream(calling(piece(0, "a", "x", "{}")), calling(piece(0, name="y"))))
    assert (ToolCall("a", "y", {}),) == reply.message.parts


async def test_what_is_told_once_is_not_lost_by_what_comes_later(read: Reader) -> None:
    usage = {"prompt_tokens": 1, "more": 2}
    reply = await read(
        chunk({"role": "assistant", "content": "a"}, "length", usage=usage)
        + chunk({}, usage={"prompt_tokens": None}, message="cached")
        + DONE
    )
    assert ("length", Usage(1), {"more": 2}, "cached") == (
        reply.raw_finish_reason, reply.usage, reply.extra["usage"], reply.extra["message"],
    )  # fmt: skip


async def test_every_warning_of_a_reply_is_told(read: Reader) -> None:
    reply = await read(stream(say("a\ud83c"), chunk({"content": "r"})), include={"usage"})
    assert ("the server told no usage that can be read", NO_CALL, Mender.WARNING) == reply.warnings


async def test_an_event_of_another_name_tells_its_name_where_its_data_tells_null(read: Reader) -> None:
    await read(say("Red") + event({"type": None}, "ping") + DONE)
    assert [Progress("ping", {"type": "ping"})] == [
        each for each in read.events if isinstance(each, Progress)
    ]


@pytest.mark.parametrize(
    "deltas",
    [
        [{"role": "assistant", "content": "Well. "}],
        [{"tool_calls": [piece(0, "a", "x", {"n": 1})]}, {"content": [{"weather": "sunny"}]}],
        [{"tool_calls": [piece(0, "a", "x", "{}")]}, {"content": "re"}, {"content": "s"}],
        [
            {"tool_calls": [piece(0, "a", "x", '{"n":'), piece(1, "b", "y")]},
            {"tool_calls": [piece(1, args="{}"), piece(0, args=" 1}")]},
            {"content": [{"type": "text", "text": "1"}]},
            {"role": "tool", "content": "2"},
        ],
    ],
)
async def test_the_history_holds_what_the_reply_does(
    bridge: Bridge, emulator: TachyonEmulator, deltas: list[Json]
) -> None:
    emulator.deltas, chat = deltas, await bridge.create()
    async with chat.stream("Go") as stream:
        assert [event async for event in stream]
    held = [part for message in [each async for each in chat.messages()][1:] for part in message.parts]
    assert [*stream.reply.message.parts] == held


async def test_a_key_in_an_error_shows_in_no_traceback(read: Reader, emulator: TachyonEmulator) -> None:
    failure = b"event: error\ndata: " + json.dumps({"code": emulator.key}).encode() + b"\n\n"
    document = {"code": emulator.key, "message": f"no {emulator.key}"}
    for asked in (read(say("a") + failure), read(json.dumps(document).encode()), read.whole(document)):
        with pytest.raises(ProviderFailed) as caught:
            await asked
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        frames = [frame for frame in shown.stack if "chatbridge" in frame.filename]
        assert [] == [
            name for frame in frames for name, value in (frame.locals or {}).items() if emulator.key in value
        ]
