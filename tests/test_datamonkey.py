"""What is particular to Datamonkey: what is sent, what is made of odd answers and errors, and failures."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    AuthFailed,
    BadAnswer,
    BadOption,
    Bridge,
    Chat,
    ChatbridgeError,
    DeliveryUnknown,
    Feature,
    Message,
    NotFound,
    Outcome,
    RateLimited,
    RedirectRefused,
    RequestRefused,
    Role,
    Text,
    ToolCall,
    Unavailable,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.backend import Profile
from chatbridge.errors import AnswerWarning
from chatbridge.http import ApiError, BrokenContent, structure
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault, serve
from chatbridge.testing.responder import Exchange, Responder
from chatbridge_adapters.datamonkey import ADAPTER, wire
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator

Reach = Callable[..., Awaitable[Bridge]]
Json = dict[str, Any]

CREATE, LIST, GET = "create_conversation", "list_user_conversations", "get_conversation"
DELETE, MESSAGES, SEND = "delete_conversation", "get_conversation_messages", "send_conversation_message"

AT = 1730000005123
MOMENT = datetime(2024, 10, 27, 3, 33, 25, 123000, tzinfo=UTC)
CONVERSATION = {"id": "conv-1", "created": AT, "updated": AT}
REPLY = {"role": "assistant", "content": "hi", "timestamp": AT}


@pytest.fixture
def emulator() -> DatamonkeyEmulator:
    return DatamonkeyEmulator()


@pytest.fixture
async def bridge(reach: Reach, emulator: DatamonkeyEmulator) -> Bridge:
    return await reach(emulator)


@pytest.fixture
async def patient(emulator: DatamonkeyEmulator) -> AsyncGenerator[tuple[Bridge, ManualClock], None]:
    """Give a bridge for which waiting costs no time."""
    clock = ManualClock()
    async with (
        serve(emulator) as at,
        connect(at.config, key=emulator.key, clock=clock, settle_timeout=0) as bridge,
    ):
        yield bridge, clock


def answer(emulator: DatamonkeyEmulator, operation: str, value: object, status: int = 200) -> None:
    """Have the next call of *operation* answered with *value*."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    emulator.fail(Fault(status=status, body=body), operation=operation)


def always(text: str) -> Responder:
    """Answer with *text*, whatever is said."""

    def respond(_: str, __: Sequence[Exchange]) -> str:
        return text

    return respond


async def listed(bridge: Bridge) -> list[object]:
    return [conversation async for conversation in bridge.conversations()]


async def said(chat: Chat, **wanted: Any) -> list[tuple[Role, str]]:
    return [(message.role, message.text) async for message in chat.messages(**wanted)]


# What is sent


async def test_what_is_sent_is_what_the_document_says_with_the_token_as_bearer(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    chat = await bridge.create(title="T é")
    await bridge.create()
    await chat.send("hi <é>")
    assert 2 == len(await listed(bridge))
    await chat.refresh()
    assert 2 == len(await said(chat))
    await chat.delete()
    titled, untitled, send, *others = emulator.calls
    for call in emulator.calls:
        assert f"Bearer {emulator.key}" == call.headers["Authorization"]
        assert "user_token" not in {*call.headers, *call.query}
        assert "application/json" == call.headers["Accept"]
    assert ({"title": "T é"}, "application/json") == (titled.json(), titled.headers["Content-Type"])
    assert {"message": "hi <é>"} == send.json()
    for call in (untitled, *others):
        assert (b"", None) == (call.body, call.headers.get("Content-Type"))
    assert [LIST, GET, MESSAGES, DELETE] == [call.operation for call in others]


async def test_an_empty_title_is_not_sent(bridge: Bridge, emulator: DatamonkeyEmulator) -> None:
    assert None is (await bridge.create(title="")).conversation.title
    assert b"" == emulator.calls[-1].body


async def test_what_cannot_be_sent_is_refused_before_anything_leaves(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    chat = bridge.open("conv-1")
    for message in ("\ud800", Message.user([Text("a"), ToolCall("1", "f", {})]), Message.assistant("a")):
        with pytest.raises(UsageError):
            await chat.send(message)
    for extra in ({"fileId": "f"}, {"title": "x"}):
        with pytest.raises(BadOption, match="is unknown in extra"):
            await chat.send("Hello", extra=extra)
        with pytest.raises(BadOption, match="is unknown in extra"):
            await bridge.create(extra=extra)
    for create in (bridge.create(system="x"), bridge.create(history=[Message.user("x")])):
        with pytest.raises(UnsupportedFeature, match="; instead: "):
            await create
    with pytest.raises(UnsupportedFeature, match="give the title at creation"):
        await chat.rename("x")
    with pytest.raises(UsageError, match="half"):
        await bridge.create(title="\ud800")
    for conversation_id in ("a/b", "..", "%2e%2E", "a\x00"):
        with pytest.raises(UsageError):
            await bridge.open(conversation_id).refresh()
    assert [] == emulator.calls


async def test_an_empty_message_is_the_servers_to_refuse(bridge: Bridge) -> None:
    chat = await bridge.create()
    with pytest.raises(RequestRefused, match="Field validation for 'Message' failed") as refused:
        await chat.send("")
    assert (Outcome.REFUSED, 400) == (refused.value.outcome, refused.value.status)
    assert [] == await said(chat)


def test_what_datamonkey_cannot_do_says_what_there_is_instead() -> None:
    profile: Profile = ADAPTER.profile(None)
    native = {Feature.CREATE, Feature.TITLE, Feature.GET, Feature.LIST, Feature.DELETE, Feature.HISTORY}
    assert {*native, Feature.SEND} == {feature for feature in Feature if profile.can(feature)}
    for feature in (Feature.SYSTEM, Feature.HISTORY_SEED, Feature.RENAME, Feature.ATTACHMENTS, Feature.TOOLS):
        assert profile.unsupported(feature).instead


async def test_a_stream_is_the_answer_in_one_piece(bridge: Bridge, emulator: DatamonkeyEmulator) -> None:
    async with (await bridge.create()).stream("Hello") as stream:
        assert ["Turn 1: you said 'Hello'."] == [piece async for piece in stream.text()]
    assert [CREATE, SEND] == [call.operation for call in emulator.calls]


# Conversations


async def test_milliseconds_become_times_and_the_title_is_told(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    emulator.now = lambda: MOMENT
    created = (await bridge.create(title="京都 <&>")).conversation
    assert ("京都 <&>", MOMENT, MOMENT) == (created.title, created.created_at, created.updated_at)
    emulator.now = lambda: MOMENT + timedelta(seconds=1)
    chat = bridge.open(created.id)
    await chat.send("hi")
    read = await chat.refresh()
    assert ("京都 <&>", MOMENT, emulator.now()) == (read.title, read.created_at, read.updated_at)
    assert [read] == await listed(bridge)
    assert ({}, {}) == (created.extra, read.extra)


@pytest.mark.parametrize("fields", [{}, {"title": ""}, {"title": None}])
async def test_an_empty_title_is_none_wherever_it_comes(
    bridge: Bridge, emulator: DatamonkeyEmulator, fields: Json
) -> None:
    answer(emulator, CREATE, CONVERSATION | fields, 201)
    answer(emulator, GET, CONVERSATION | fields | {"messages": None})
    answer(emulator, LIST, {"conversations": [CONVERSATION | fields]})
    chat = await bridge.create()
    assert (None, {}, None) == (
        chat.conversation.title,
        chat.conversation.extra,
        (await chat.refresh()).title,
    )
    assert [chat.conversation] == await listed(bridge)


@pytest.mark.parametrize("value", [{"conversations": []}, {"conversations": None}, {}])
async def test_a_list_of_none_is_empty_in_any_form(
    bridge: Bridge, emulator: DatamonkeyEmulator, value: Json
) -> None:
    answer(emulator, LIST, value)
    assert [] == await listed(bridge)


async def test_what_else_is_told_of_a_conversation_is_kept_but_not_its_messages(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    odd = {"id": 7, "created": "never", "updated": None, "messages": ["not", 1], "jobs": ["j"], "note": None}
    answer(emulator, GET, odd)
    conversation = await bridge.open("7").refresh()
    assert ("7", None, None) == (conversation.id, conversation.created_at, conversation.updated_at)
    assert {"created": "never", "jobs": ["j"]} == conversation.extra


# Messages


@pytest.mark.parametrize("value", [{"messages": []}, {"messages": None}, {}])
async def test_a_history_without_messages_is_empty_in_any_form(
    bridge: Bridge, emulator: DatamonkeyEmulator, value: Json
) -> None:
    answer(emulator, MESSAGES, value)
    assert [] == await said(bridge.open("c"))


async def test_messages_of_one_time_keep_the_order_in_which_they_come(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    emulator.now = lambda: MOMENT
    chat = await bridge.create()
    replies = [await chat.send(text) for text in ("b", "a")]
    messages = [message async for message in chat.messages()]
    assert ["b", replies[0].text, "a", replies[1].text] == [message.text for message in messages]
    assert [(None, MOMENT)] * 4 == [(message.id, message.created_at) for message in messages]
    assert ["b", replies[0].text] == [text for _, text in await said(chat, limit=2)]
    assert [replies[1].text, "a"] == [text for _, text in await said(chat, newest_first=True, limit=2)]
    assert [] == await said(chat, limit=0)


async def test_the_order_received_wins_over_the_times(bridge: Bridge, emulator: DatamonkeyEmulator) -> None:
    late = {"role": "user", "content": "late", "timestamp": AT + 1}
    answer(emulator, MESSAGES, {"messages": [late, REPLY, {"role": "user", "content": "no time"}]})
    messages = [message async for message in bridge.open("c").messages()]
    assert ["late", "hi", "no time"] == [message.text for message in messages]
    assert None is messages[2].created_at


async def test_no_message_can_be_named_to_begin_behind(bridge: Bridge, emulator: DatamonkeyEmulator) -> None:
    with pytest.raises(UsageError, match="messages have no ids"):
        await said(bridge.open("c"), after="m")
    assert [] == emulator.calls


async def test_a_role_beyond_ours_is_the_assistants_and_is_kept(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    spoken = [{"role": role, "content": role, "mood": 1} for role in ("system", "tool", "model", "")]
    answer(emulator, MESSAGES, {"messages": spoken})
    messages = [message async for message in bridge.open("c").messages()]
    assert [Role.SYSTEM, Role.TOOL, Role.ASSISTANT, Role.ASSISTANT] == [message.role for message in messages]
    assert [{}, {}, {"role": "model"}, {"role": ""}] == [
        {name: value for name, value in message.extra.items() if name != "mood"} for message in messages
    ]
    assert [1] * 4 == [message.extra["mood"] for message in messages]


async def test_a_reply_is_the_assistants_whatever_its_role_and_keeps_what_else_comes(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    answer(emulator, SEND, {"message": REPLY | {"role": "user", "tools": ["t"]}, "usage": {"tokens": 3}})
    reply = await bridge.open("c").send("Hello")
    assert (Role.ASSISTANT, "hi", MOMENT, None) == (
        reply.message.role,
        reply.text,
        reply.message.created_at,
        reply.message.id,
    )
    assert ({"role": "user", "tools": ["t"]}, {"usage": {"tokens": 3}}) == (reply.message.extra, reply.extra)
    assert (None, None, None, ()) == (reply.finish_reason, reply.usage, reply.model, reply.warnings)


@pytest.mark.parametrize("time", ["yesterday", [], 1e300, True, -(10**30)])
async def test_a_time_that_cannot_be_read_costs_nothing_and_is_kept(
    bridge: Bridge, emulator: DatamonkeyEmulator, time: object
) -> None:
    answer(emulator, SEND, {"message": REPLY | {"timestamp": time}})
    reply = await bridge.open("c").send("Hello")
    assert ("hi", None, {"timestamp": time}) == (reply.text, reply.message.created_at, reply.message.extra)


async def test_half_a_character_is_replaced_with_a_warning_where_the_result_has_a_place_for_it(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    half = "a\ud800"
    answer(emulator, SEND, {"message": REPLY | {"content": half}})
    answer(emulator, CREATE, CONVERSATION | {"title": half}, 201)
    answer(emulator, GET, CONVERSATION | {"title": half})
    chat = await bridge.create()
    reply = await chat.send("Hello")
    assert ("a\ufffd", "a\ufffd") == (reply.text, chat.conversation.title)
    for warnings in (reply.warnings, chat.conversation.warnings, (await chat.refresh()).warnings):
        assert ("the answer held halves of characters, which are replaced by U+FFFD",) == warnings
    answer(emulator, MESSAGES, {"messages": [REPLY | {"content": half}]})
    with pytest.warns(AnswerWarning, match="halves of characters"):
        assert [(Role.ASSISTANT, "a\ufffd")] == await said(chat)
    answer(emulator, LIST, {"conversations": [CONVERSATION | {"title": half}]})
    with pytest.warns(AnswerWarning, match="halves of characters"):
        assert ["a\ufffd"] == [each.title async for each in bridge.conversations()]


TEXT = "你好 こんにちは 🦌 \x00 \u2028 e\u0301 "


async def test_an_answer_of_5_mb_comes_whole_sent_streamed_and_in_the_history(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    text = (TEXT + "a" * 500) * 10_000
    assert 5 * 10**6 < len(text.encode()) < 8 * 2**20
    emulator.responder = always(text)
    chat = await bridge.create()
    assert text == (await chat.send("Hello")).text
    assert [text] == [spoken for role, spoken in await said(chat) if role is Role.ASSISTANT]
    async with chat.stream("Again") as stream:
        assert text == "".join([piece async for piece in stream.text()])


async def test_an_answer_beyond_the_limit_is_lost_and_not_read_on(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    emulator.responder = always("a" * (16 * 2**20))
    with pytest.raises(AnswerLost) as lost:
        await (await bridge.create()).send("Hello")
    assert ("oversize", Outcome.ACCEPTED) == (lost.value.kind, lost.value.outcome)


async def test_an_empty_answer_is_an_answer(bridge: Bridge, emulator: DatamonkeyEmulator) -> None:
    emulator.responder = always("")
    chat = await bridge.create()
    reply = await chat.send("Hello")
    assert ("", ()) == (reply.text, reply.warnings)
    async with chat.stream("Hello") as stream:
        assert "" == "".join([piece async for piece in stream.text()])
    assert [(Role.USER, "Hello"), (Role.ASSISTANT, "")] * 2 == await said(chat)


# Mappings


times = st.none() | st.integers(-(10**16), 10**16) | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
others = st.dictionaries(st.text(), values, max_size=3)


@given(others, st.text(), st.none() | st.text(), times, times)
def test_a_conversation_loses_nothing(
    other: Json, conversation_id: str, title: str | None, created: object, updated: object
) -> None:
    value = {**other, "id": conversation_id, "title": title, "created": created, "updated": updated}
    told = wire.to_conversation(structure(value, wire.ChatConversation))
    assert (conversation_id, title or None) == (told.id, told.title)
    for name, time, raw in (("created", told.created_at, created), ("updated", told.updated_at, updated)):
        assert (raw if time is None else None) == told.extra.get(name)
    known = {"id", "title", "created", "updated", "messages"}
    kept = {name: item for name, item in told.extra.items() if name not in known}
    assert {name: item for name, item in other.items() if name not in known and item is not None} == kept


@given(others, st.text(), st.text(), times)
def test_a_message_loses_nothing(other: Json, role: str, content: str, timestamp: object) -> None:
    value = {**other, "role": role, "content": content, "timestamp": timestamp}
    told = wire.to_message(structure(value, wire.ChatMessage))
    assert (content, None) == (told.text, told.id)
    assert role == told.extra.get("role", told.role.value)
    assert (timestamp if told.created_at is None else None) == told.extra.get("timestamp")
    reply = wire.to_reply(structure({"message": value}, wire.Answer), ["w"])
    assert (content, ("w",)) == (reply.message.text, reply.warnings)
    assert role == reply.message.extra.get("role", "assistant")


@given(st.integers(10**11, 7 * 10**12))
def test_a_time_in_milliseconds_is_that_time(milliseconds: int) -> None:
    told = wire.to_message(structure(REPLY | {"timestamp": milliseconds}, wire.ChatMessage))
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds) == told.created_at


def problem(value: object, kind: type) -> str | None:
    """Read *value* as a *kind*, and say in a word why that cannot be."""
    try:
        assert isinstance(structure(value, kind), kind)
    except BrokenContent as broken:
        return broken.kind
    return None


@given(values)
def test_whatever_an_answer_is_it_is_read_or_said_to_be_of_another_form(value: object) -> None:
    shaped = dict.fromkeys(("id", "conversations", "messages", "message"), value)
    for kind in (wire.ChatConversation, wire.ConversationList, wire.History, wire.Answer):
        assert {problem(value, kind), problem(shaped, kind)} <= {"schema", None}


@given(st.integers(), values | st.dictionaries(st.sampled_from(["error", "message", "code"]), values))
def test_whatever_an_error_body_is_it_can_be_read(status: int, body: object) -> None:
    told = wire.read_error(status, body)
    assert isinstance(told, ApiError)
    assert "" != told.message


# Errors


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b'{"error":"Invalid request: EOF"}', None, "Invalid request: EOF"),
        (b'{"code":400,"message":"So not"}', None, "So not"),
        (b'{"error":"So not","code":"bad","details":"d"}', "bad", "So not"),
        (b'{"error":"","message":"So not"}', None, "So not"),
        (b'{"error":{"a":1},"message":"So not"}', None, "So not"),
        (b'{"error":5}', None, '{"error":5}'),
        (b'{"error":null,"message":null}', None, '{"error":null,"message":null}'),
        (b'["no"]', None, '["no"]'),
        (b"nginx", None, "nginx"),
        (b"\xff", None, "\ufffd"),
        (b"", None, None),
    ],
)
async def test_an_error_is_read_in_every_form_that_it_may_have(
    bridge: Bridge, emulator: DatamonkeyEmulator, body: bytes, code: str | None, said: str | None
) -> None:
    emulator.fail(Fault(status=400, body=body))
    with pytest.raises(RequestRefused) as refused:
        await bridge.open("c").send("Hello")
    assert (400, code, said) == (refused.value.status, refused.value.code, refused.value.excerpt)


async def test_a_path_that_is_not_the_apis_is_told_from_a_missing_conversation(
    emulator: DatamonkeyEmulator,
) -> None:
    async with serve(emulator) as at:
        for path, words in (("/wrong", "where the API begins"), ("", "Conversation not found")):
            async with connect(at.config + path, key=emulator.key) as bridge:
                with pytest.raises(NotFound, match=words):
                    await bridge.open("conv-1").refresh()


async def test_a_redirection_is_not_followed(bridge: Bridge, emulator: DatamonkeyEmulator) -> None:
    emulator.fail(Fault(status=301, headers={"Location": "/api/v1/chat"}))
    with pytest.raises(RedirectRefused):
        await listed(bridge)
    assert 1 == len(emulator.calls)


async def test_what_is_anothers_and_what_is_not_there_are_told_apart(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    async with serve(emulator) as at, connect(at.config, key=DatamonkeyEmulator().key) as other:
        chat = bridge.open((await other.create()).id)
    for call in (chat.refresh, chat.delete, lambda: said(chat), lambda: chat.send("Hello")):
        with pytest.raises(AuthFailed, match="You don't have permission to") as forbidden:
            await call()
        assert (403, chat.id) == (forbidden.value.status, forbidden.value.conversation_id)
    nowhere = bridge.open("conv-0")
    for call in (nowhere.refresh, nowhere.delete, lambda: said(nowhere), lambda: nowhere.send("Hello")):
        with pytest.raises(NotFound, match="Conversation not found") as missing:
            await call()
        assert (404, "conv-0") == (missing.value.status, missing.value.conversation_id)


# Failures under way


CALLS: dict[str, Callable[[Bridge], Awaitable[object]]] = {
    CREATE: lambda bridge: bridge.create(),
    LIST: listed,
    GET: lambda bridge: bridge.open("c").refresh(),
    DELETE: lambda bridge: bridge.open("c").delete(),
    MESSAGES: lambda bridge: said(bridge.open("c")),
    SEND: lambda bridge: bridge.open("c").send("Hello"),
}
TURNS = {CREATE, SEND}


async def failure(bridge: Bridge, operation: str) -> ChatbridgeError:
    with pytest.raises(ChatbridgeError) as failed:
        await CALLS[operation](bridge)
    error = failed.value
    assert ("datamonkey", operation) == (error.provider, error.operation)
    return error


@pytest.mark.parametrize("fault", [Fault(drop="before"), Fault(drop="after"), Fault(status=500, body=b"")])
@pytest.mark.parametrize("operation", CALLS)
async def test_what_got_no_answer_is_repeated_where_that_is_safe_and_else_in_doubt(
    patient: tuple[Bridge, ManualClock], emulator: DatamonkeyEmulator, operation: str, fault: Fault
) -> None:
    bridge, _ = patient
    emulator.fail(fault, operation=operation, times=3)
    error = await failure(bridge, operation)
    assert (DeliveryUnknown if operation in TURNS else Unavailable, Outcome.UNKNOWN) == (
        type(error),
        error.outcome,
    )
    assert (1 if operation in TURNS else 3) == len(emulator.calls)
    assert (operation not in TURNS) == error.retryable


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RequestRefused), (401, AuthFailed), (403, AuthFailed), (404, NotFound), (501, RequestRefused)],
)
@pytest.mark.parametrize("operation", CALLS)
async def test_a_refusal_is_final(
    bridge: Bridge, emulator: DatamonkeyEmulator, operation: str, status: int, kind: type[ChatbridgeError]
) -> None:
    emulator.fail(Fault(status=status, error="So not"), operation=operation)
    error = await failure(bridge, operation)
    assert (kind, Outcome.REFUSED, "So not", False) == (
        type(error),
        error.outcome,
        error.excerpt,
        error.retryable,
    )
    assert 1 == len(emulator.calls)


@pytest.mark.parametrize("operation", CALLS)
async def test_one_too_many_waits_as_long_as_the_server_asks(
    patient: tuple[Bridge, ManualClock], emulator: DatamonkeyEmulator, operation: str
) -> None:
    bridge, clock = patient
    emulator.fail(Fault(status=429, headers={"Retry-After": "7"}), operation=operation, times=3)
    error = await failure(bridge, operation)
    assert (RateLimited, 7.0, [7.0, 7.0]) == (type(error), error.retry_after, clock.slept)


ODD = [
    b"",
    b"{]",
    b"[]",
    b'"x"',
    b"null",
    b'{"id":[],"conversations":{},"messages":5,"message":null}',
    b"\xff",
]


@pytest.mark.parametrize("body", [*ODD, b"<html>Sign in</html>"])
@pytest.mark.parametrize("operation", [operation for operation in CALLS if operation != DELETE])
async def test_an_answer_that_cannot_be_read_says_so_and_that_the_call_was_taken(
    bridge: Bridge, emulator: DatamonkeyEmulator, operation: str, body: bytes
) -> None:
    answer(emulator, operation, body, 201 if operation == CREATE else 200)
    error = await failure(bridge, operation)
    if body.startswith(b"<"):
        assert (DeliveryUnknown if operation in TURNS else BadAnswer) is type(error)
    else:
        assert (AnswerLost if operation in TURNS else BadAnswer, Outcome.ACCEPTED) == (
            type(error),
            error.outcome,
        )
    assert 1 == len(emulator.calls)


@pytest.mark.parametrize(
    ("operation", "value", "path"),
    [
        (GET, {"created": AT}, "$.id"),
        (GET, CONVERSATION | {"title": 5}, "$.title"),
        (LIST, {"conversations": [CONVERSATION, {}]}, "$.conversations[1].id"),
        (MESSAGES, {"messages": [{"role": "user"}]}, "$.messages[0].content"),
        (SEND, {}, "$.message"),
        (SEND, {"message": REPLY | {"content": None}}, "$.message.content"),
    ],
)
async def test_an_answer_of_another_form_says_where(
    bridge: Bridge, emulator: DatamonkeyEmulator, operation: str, value: Json, path: str
) -> None:
    answer(emulator, operation, value)
    assert str(await failure(bridge, operation)).endswith(f"@ {path}")


@pytest.mark.parametrize("operation", CALLS)
async def test_another_status_of_success_is_none_that_is_documented(
    bridge: Bridge, emulator: DatamonkeyEmulator, operation: str
) -> None:
    answer(emulator, operation, CONVERSATION, 202)
    error = await failure(bridge, operation)
    assert (AnswerLost if operation in TURNS else BadAnswer) is type(error)


async def test_a_deletion_that_was_done_though_its_answer_was_lost_is_done(
    patient: tuple[Bridge, ManualClock], emulator: DatamonkeyEmulator
) -> None:
    bridge, _ = patient
    chat = await bridge.create()
    emulator.fail(Fault(drop="after"), operation=DELETE)
    await chat.delete()
    assert [None, 404] == [call.status for call in emulator.calls if call.operation == DELETE]
    with pytest.raises(NotFound):
        await chat.delete()


async def test_reading_is_repeated_where_the_server_is_busy(
    patient: tuple[Bridge, ManualClock], emulator: DatamonkeyEmulator
) -> None:
    bridge, clock = patient
    chat = await bridge.create()
    emulator.fail(Fault(status=503), operation=MESSAGES, times=2)
    assert [] == await said(chat)
    assert [503, 503, 200] == [call.status for call in emulator.calls[1:]]
    assert [0.25, 0.5] == clock.slept


async def test_a_server_without_a_model_leaves_a_send_in_doubt_and_the_conversation_as_it_was(
    bridge: Bridge, emulator: DatamonkeyEmulator
) -> None:
    emulator.has_model = False
    chat = await bridge.create()
    with pytest.raises(DeliveryUnknown) as unknown:
        await chat.send("Hello")
    assert ("server_error", 500, None) == (unknown.value.kind, unknown.value.status, unknown.value.excerpt)
    assert [] == await said(chat)
