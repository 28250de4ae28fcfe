"""The history of Tachyon's rooms, and what a message to one carries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatbridge import (
    AnswerWarning,
    Attachment,
    Bridge,
    Message,
    Opaque,
    Part,
    Role,
    SendOptions,
    Text,
    ToolCall,
    ToolResult,
    UnsupportedFeature,
    UsageError,
)
from chatbridge.http import BrokenContent, structure
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.tachyon import TachyonBackend, wire
from chatbridge_adapters.tachyon.backend import EXTRA_TO_RUN, EXTRA_TO_SEND
from chatbridge_adapters.tachyon.emulator import TachyonEmulator

Reach = Callable[..., Awaitable[Bridge]]
Json = dict[str, Any]
ROOM = "ch_01jm4x3w6r7n8p9q0s1t2v3w4x"


@pytest.fixture
def emulator() -> TachyonEmulator:
    return TachyonEmulator()


@pytest.fixture
async def bridge(reach: Reach, emulator: TachyonEmulator) -> Bridge:
    return await reach(emulator)


def own(bridge: Bridge) -> TachyonBackend:
    return cast(TachyonBackend, bridge.api)


def answer(emulator: TachyonEmulator, operation: str, value: object) -> None:
    """Have the next call of *operation* answered with *value*."""
    emulator.fail(Fault(status=200, body=json.dumps(value).encode()), operation=operation)


def operations(emulator: TachyonEmulator) -> list[str | None]:
    return [call.operation for call in emulator.calls]


async def ids(conversations: AsyncIterator[Any]) -> list[str]:
    return [conversation.id async for conversation in conversations]


# History

STORED: Json = {
    "id": "me_1",
    "chatroom_id": ROOM,
    "user_id": "us_1",
    "role": "assistant",
    "content": {"type": "text", "text": "Hi"},
    "created_at": "2026-01-01T12:00:00Z",
}


async def history(bridge: Bridge, emulator: TachyonEmulator, *messages: Json) -> list[Message]:
    answer(emulator, "get_chatroom_messages", {"messages": messages})
    answer(emulator, "get_chatroom_messages", {"messages": []})
    return [message async for message in bridge.open(ROOM).messages()]


CALL = {"type": "tool-call", "tool_call_id": "c", "tool_name": "weather"}


@pytest.mark.parametrize(
    ("content", "parts", "extra"),
    [
        ({"type": "text", "text": "Hi"}, [Text("Hi")], {}),
        ("Hi", [Text("Hi")], {}),
        ("", [Text("")], {}),
        (None, [], {}),
        ([], [], {}),
        (["a", {"type": "text", "text": "b"}, None], [Text("a"), Text("b")], {}),
        ({"type": "image", "image": "https://x/a.png?size=1#f"},
         [Attachment("image/png", url="https://x/a.png?size=1#f")], {}),
        ({"type": "image", "image": "https://x/a"}, [Attachment("image/*", url="https://x/a")], {}),
        ({"type": "image", "image": "data:image/webp;base64,AAAA"},
         [Attachment("image/webp", url="data:image/webp;base64,AAAA")], {}),
        ({"type": "image", "image": "data:,x"}, [Attachment("image/*", url="data:,x")], {}),
        ({"type": "image", "image": ""}, [Attachment("image/*", url="")], {}),
        ({"type": "file", "file": "https://x/a/report.pdf"},
         [Attachment("application/pdf", url="https://x/a/report.pdf")], {}),
        ({"type": "file", "file": "http://["}, [Attachment("application/octet-stream", url="http://[")], {}),
        ({**CALL, "args": '{"city": "\u4ed9\u53f0"}', "is_client_tool": False},
         [ToolCall("c", "weather", {"city": "\u4ed9\u53f0"})], {"is_client_tool": False}),
        ({**CALL, "args": " "}, [ToolCall("c", "weather", {})], {}),
        ({"type": "tool-result", "tool_call_id": "c", "tool_name": "weather", "result": "sunny"},
         [ToolResult("c", "sunny")], {"tool_name": "weather"}),
        ({"type": "attempt-completion", "result": "Done", "command": "ls"},
         [Text("Done")], {"command": "ls"}),
        ({"type": "attempt-completion", "result": "Done", "command": None}, [Text("Done")], {}),
    ],
)  # fmt: skip
async def test_parts_of_every_type_arrive_as_ours(
    bridge: Bridge, emulator: TachyonEmulator, content: object, parts: list[Part], extra: Json
) -> None:
    (message,) = await history(bridge, emulator, {**STORED, "content": content})
    assert tuple(parts) == message.parts
    assert {"user_id": "us_1", **extra} == message.extra
    assert ("me_1", Role.ASSISTANT, datetime(2026, 1, 1, 12, tzinfo=UTC)) == (
        message.id, message.role, message.created_at,
    )  # fmt: skip


NO_ARGUMENTS: tuple[object, ...] = (
    "[1]", "sunny", "{", "NaN", '{"a": 1, "a": 2}', [1], "[" * 200,
)  # fmt: skip
NO_PARTS: tuple[Json, ...] = (
    {"type": "video", "video": "https://x"},
    {"type": "text"},
    {"type": "text", "text": 5},
    {"type": "image"},
    {},
    {"type": None},
    *({**CALL, "args": args} for args in NO_ARGUMENTS),
)


@pytest.mark.parametrize("content", NO_PARTS)
async def test_what_has_no_type_of_ours_is_kept_whole(
    bridge: Bridge, emulator: TachyonEmulator, content: Json
) -> None:
    (message,) = await history(bridge, emulator, {**STORED, "content": content})
    assert (Opaque("tachyon", content.get("type") or "", content),) == message.parts
    assert {"user_id": "us_1"} == message.extra


@pytest.mark.parametrize("args", [{"city": "Sendai"}, '{"city": "Sendai"}'])
async def test_arguments_may_be_an_object_or_one_in_a_text(
    bridge: Bridge, emulator: TachyonEmulator, args: object
) -> None:
    (message,) = await history(bridge, emulator, {**STORED, "content": {**CALL, "args": args}})
    assert (ToolCall("c", "weather", {"city": "Sendai"}),) == message.parts


async def test_a_result_may_be_anything_and_have_failed(bridge: Bridge, emulator: TachyonEmulator) -> None:
    content = {
        "type": "tool-result",
        "tool_call_id": "c",
        "tool_name": "w",
        "result": {"a": 1},
        "is_error": True,
    }
    (message,) = await history(bridge, emulator, {**STORED, "content": content})
    assert (ToolResult("c", '{"a": 1}', is_error=True),) == message.parts


@pytest.mark.parametrize(
    ("odd", "parts"),
    [
        ({"content": 5}, (Opaque("tachyon", "", 5),)),
        ({"content": [True, "a"]}, (Opaque("tachyon", "", True), Text("a"))),
        ({"role": None}, (Text("Hi"),)),
        ({"role": 5}, (Text("Hi"),)),
        ({"id": None}, (Text("Hi"),)),
    ],
)
async def test_one_odd_message_does_not_cost_the_history(
    bridge: Bridge, emulator: TachyonEmulator, odd: Json, parts: tuple[Part, ...]
) -> None:
    sound = {**STORED, "id": "me_0", "content": "Hi"}
    first, second = await history(bridge, emulator, sound, {**STORED, "content": "Hi", **odd})
    assert ((Text("Hi"),), parts) == (first.parts, second.parts)


@pytest.mark.parametrize("role", [*Role])
async def test_a_message_has_the_role_that_it_is_stored_with(
    bridge: Bridge, emulator: TachyonEmulator, role: Role
) -> None:
    (message,) = await history(bridge, emulator, {**STORED, "role": role.value})
    assert (role, {"user_id": "us_1"}) == (message.role, message.extra)


async def test_a_role_that_is_none_of_ours_is_kept_beside(bridge: Bridge, emulator: TachyonEmulator) -> None:
    (message,) = await history(bridge, emulator, {**STORED, "role": "developer"})
    assert (Role.ASSISTANT, "developer") == (message.role, message.extra["role"])


async def test_a_history_is_read_whole_and_sorted_by_time(bridge: Bridge, emulator: TachyonEmulator) -> None:
    """Messages of one time stay in the order received, and one without a time stays where it was."""
    times = {"a": "03Z", "b": "01Z", "c": "02Z", "d": "02Z", "e": None}
    messages = [
        {**STORED, "id": key, "created_at": time and f"2026-01-01T12:00:{time}"}
        for key, time in times.items()
    ]
    read = await history(bridge, emulator, *messages)
    assert ["b", "c", "d", "e", "a"] == [message.id for message in read]
    assert [{"limit": "100", "offset": "0", "search": ""}, {"limit": "100", "offset": "5", "search": ""}] == [
        call.query for call in emulator.calls
    ]


async def test_nothing_is_read_of_a_history_of_which_nothing_is_wanted(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    assert [] == [message async for message in bridge.open(ROOM).messages(limit=0)]
    assert [] == emulator.calls


async def test_half_a_character_in_a_history_is_replaced_with_a_warning(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    with pytest.warns(AnswerWarning, match="halves of characters"):
        (message,) = await history(bridge, emulator, {**STORED, "content": "a\ud800"})
    assert "a\ufffd" == message.text
    content = {**CALL, "args": r'{"city": "a\ud800"}'}
    with pytest.warns(AnswerWarning, match="halves of characters"):
        (message,) = await history(bridge, emulator, {**STORED, "content": content})
    assert (ToolCall("c", "weather", {"city": "a\ufffd"}),) == message.parts


KEYS = st.sampled_from(
    [
        "type",
        "text",
        "image",
        "file",
        "args",
        "result",
        "tool_call_id",
        "tool_name",
        "command",
        "role",
        "content",
    ]
)
TYPES = st.sampled_from(
    ["text", "image", "file", "tool-call", "tool-result", "attempt-completion", "{}", "[]"]
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner | TYPES, max_size=6)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | TYPES | st.text(), nested, max_leaves=8)


@given(JSON)
@example({"type": "image", "image": "data:;,"})
@example({"type": "file", "file": "a:[/\x00?.png"})
def test_whatever_a_content_holds_it_is_parts_or_refused(content: object) -> None:
    stored = {**STORED, "content": content}
    try:
        parts = wire.to_message(structure(stored, wire.ChatMessage)).parts
    except BrokenContent:
        parts = ()
    told = cast(list[object], content) if isinstance(content, list) else [content]
    assert all(part.data in told for part in parts if isinstance(part, Opaque))


# What a message carries


async def test_a_plain_message_carries_nothing_else(bridge: Bridge, emulator: TachyonEmulator) -> None:
    chat = await bridge.create()
    await chat.send("\u4ed9\u53f0\u306e\u5929\u6c17\u306f?")
    messages = [{"role": "user", "content": "\u4ed9\u53f0\u306e\u5929\u6c17\u306f?"}]
    assert {"messages": messages} == emulator.calls[-1].json()
    async with chat.stream("Hello") as stream:
        assert [event async for event in stream]
    assert {"messages": [{"role": "user", "content": "Hello"}], "stream": True} == emulator.calls[-1].json()
    assert "event-stream" in emulator.calls[-1].headers["Accept"]


async def test_every_option_and_every_field_reaches_the_server(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    extra: Json = {
        "presence_penalty": 0,
        "frequency_penalty": -0.5,
        "user": "ada",
        "memory_settings": {"extract_memory": False, "max_memories": 1, "min_relevance_score": 0.5},
        "communication_style": "plain",
        "explanation_style": "short",
        "technical_level": "high",
    }
    assert set(EXTRA_TO_SEND) == set(extra)
    tool = {"name": "weather", "description": "Tells it", "parameters": {"type": "object"}}
    options = SendOptions(
        model="anthropic/claude",
        temperature=0.0,
        top_p=0.25,
        max_output_tokens=99,
        tools=(tool,),
        tool_choice="auto",
        response_format={"type": "json_object"},
        extra=extra,
    )
    reply = await (await bridge.create()).send("Hello", options)
    assert {
        **extra,
        "messages": [{"role": "user", "content": "Hello"}],
        "model": "anthropic/claude",
        "temperature": 0.0,
        "top_p": 0.25,
        "max_completion_tokens": 99,
        "tools": [{"type": "function", "function": tool}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
    } == emulator.calls[-1].json()
    assert ("anthropic:claude", ()) == (reply.model, reply.warnings)


@pytest.mark.parametrize("mode", ["completion", "agent"])
async def test_the_model_of_the_config_goes_with_each_message_unless_another_is_named(
    reach: Reach, emulator: TachyonEmulator, mode: str
) -> None:
    chat = await (await reach(emulator, model="large", mode=mode)).create()
    for model, sent in ((None, "large"), ("small", "small")):
        await chat.send("Hello", model=model)
        assert isinstance(body := emulator.calls[-1].json(), dict)
        assert sent == body["model"]


async def test_a_task_carries_what_the_api_takes(reach: Reach, emulator: TachyonEmulator) -> None:
    extra: Json = {
        "additional_tool_description": "d",
        "agent_protocol_id": "p",
        "agent_protocol_mode": "manual",
        "assistant_name": "Ada",
        "auto_approve": False,
        "chatroom_name_generation": "never",
        "max_requests": 3,
        "mcp_hub_config_json": "{}",
        "tool_access": [{"type": "builtin", "name": "web"}],
        "use_json_tool_calls": True,
        "user_custom_instructions": "Be brief.",
    }
    assert set(EXTRA_TO_RUN) == set(extra)
    chat = await (await reach(emulator, mode="agent")).create()
    await chat.send("Say hello")
    assert {"task": "Say hello"} == emulator.calls[-1].json()
    assert () == (await chat.send("Say hello", extra=extra)).warnings
    assert {"task": "Say hello", **extra} == emulator.calls[-1].json()


@pytest.mark.parametrize("mode", ["completion", "agent"])
async def test_what_cannot_be_sent_is_refused_before_anything_leaves(
    reach: Reach, emulator: TachyonEmulator, mode: str
) -> None:
    bridge = await reach(emulator, mode=mode)
    chat = bridge.open(ROOM)
    refused: tuple[tuple[str | Message, SendOptions], ...] = (
        ("a\ud800", SendOptions()),
        ("Hello", SendOptions(extra={"user": "\ud800", "assistant_name": "\ud800"})),
        ("Hello", SendOptions(extra={"n": 2})),
        ("Hello", SendOptions(extra={"task": "Another"})),
        ("Hello", SendOptions(extra={"messages": []})),
        (Message.user([ToolResult("1", "2")]), SendOptions()),
        (Message.user([ToolCall("1", "2", {})]), SendOptions()),
        (Message.user([Opaque("tachyon", "x", {})]), SendOptions()),
        (Message(Role.TOOL, [ToolResult("1", "2")]), SendOptions()),
        (Message.assistant("Hello"), SendOptions()),
    )
    for message, options in refused:
        with pytest.raises(UsageError):
            await chat.send(message, options)
        with pytest.raises(UsageError):
            await chat.stream(message, options).__aenter__()
    for extra in ({"name": "n"}, {"operator_id": "o"}, {"metadata": {"a": "\ud800"}}):
        with pytest.raises(UsageError):
            await bridge.create(extra=extra)
    for room in ("a/b", "..", "\ud800"):
        with pytest.raises(UsageError):
            await bridge.open(room).send("Hello")
    with pytest.raises(UnsupportedFeature, match="instead: say it in the first message"):
        await bridge.create(history=[Message.user("Hello")])
    with pytest.raises(UnsupportedFeature, match="instead: "):
        await bridge.create(system="Be brief.")
    assert [] == emulator.calls


async def test_what_a_tool_gave_has_no_documented_way_back(bridge: Bridge) -> None:
    with pytest.raises(UsageError, match="say it in a text"):
        await bridge.open(ROOM).send(Message.user([ToolResult("1", "sunny")]))


async def test_messages_without_an_id_are_all_read(bridge: Bridge, emulator: TachyonEmulator) -> None:
    """However many pages they come on, and whatever memory their neighbours had."""
    stored = [
        {"role": "user", "content": str(number), "id": ["", None][number % 2]} for number in range(1000)
    ]
    for offset in range(0, 1100, 100):
        answer(emulator, "get_chatroom_messages", {"messages": stored[offset : offset + 100]})
    read = [message async for message in bridge.open(ROOM).messages()]
    assert [str(number) for number in range(1000)] == [message.text for message in read]
    assert {None} == {message.id for message in read}


async def test_a_message_that_comes_on_two_pages_is_one(bridge: Bridge, emulator: TachyonEmulator) -> None:
    first, second, third = ({**STORED, "id": key} for key in "abc")
    for page in ([first, second], [second, third], []):
        answer(emulator, "get_chatroom_messages", {"messages": page})
    assert ["a", "b", "c"] == await ids(bridge.open(ROOM).messages())


async def test_a_role_that_is_no_word_is_kept_beside(bridge: Bridge, emulator: TachyonEmulator) -> None:
    (message,) = await history(bridge, emulator, {**STORED, "role": 5})
    assert (Role.ASSISTANT, 5) == (message.role, message.extra["role"])
