"""What is particular to Tachyon: its options, rooms, errors, and failures under way."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AuthFailed,
    BadAnswer,
    BadOption,
    Bridge,
    ChatbridgeError,
    DeliveryUnknown,
    Feature,
    NotFound,
    Outcome,
    RateLimited,
    RequestRefused,
    Role,
    Support,
    Unavailable,
    UsageError,
    connect,
)
from chatbridge.http import Hint
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.tachyon import ADAPTER, TachyonBackend, TachyonOptions, wire
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


# Configuration


@pytest.mark.parametrize("mode", ["completion", "agent"])
def test_what_tachyon_cannot_do_says_what_there_is_instead(mode: Any) -> None:
    profile = ADAPTER.profile(TachyonOptions(key=cast(Any, "k"), operator="tn_x", mode=mode))
    cannot = {feature for feature in Feature if not profile.can(feature)}
    assert cannot == set(profile.instead)
    assert profile == pickle.loads(pickle.dumps(profile))
    assert (mode == "completion") is profile.can(Feature.TOOLS)
    others = {"temperature", "top_p", "max_output_tokens", "tools", "tool_choice", "response_format"}
    assert {"model"} | (others if mode == "completion" else set()) == profile.options


def test_only_what_the_api_itself_documents_for_rooms_is_not_marked_as_beyond() -> None:
    documented = {endpoint.operation for endpoint in wire.ENDPOINTS if endpoint.beyond is None}
    assert {"create_chatroom", "update_chatroom", "delete_chatroom"} == documented


def test_what_is_told_of_the_backend_needs_no_options() -> None:
    assert Support.EMULATED is ADAPTER.profile(None).support(Feature.GET)


def test_without_an_operator_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TACHYON_OPERATOR_ID", raising=False)
    with pytest.raises(BadOption, match=r"'operator' is required \(or set TACHYON_OPERATOR_ID\)"):
        connect("tachyon:", key="k")


@pytest.mark.parametrize("operator", ["tn\nx", "tn x", "\u4eac", "tn_\x00", "tn\ud800"])
def test_an_operator_that_no_header_can_carry_is_refused(operator: str) -> None:
    with pytest.raises(BadOption, match="operator"):
        connect("tachyon:", key="k", operator=operator)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(BadOption, match="one of completion, agent"):
        connect("tachyon:?mode=chat", key="k", operator="tn_x")


async def test_the_operator_comes_from_its_variable_and_goes_with_every_call(
    monkeypatch: pytest.MonkeyPatch, reach: Reach, emulator: TachyonEmulator
) -> None:
    monkeypatch.setenv("TACHYON_OPERATOR_ID", emulator.operator)
    monkeypatch.setattr(TachyonEmulator, "options", {})
    bridge = await reach(emulator)
    chat = await bridge.create()
    await chat.rename("Kyoto")
    assert [message async for message in chat.messages()] == []
    await chat.send("Hello")
    assert {(emulator.operator, f"Bearer {emulator.key}")} == {
        (call.headers["x-operator-id"], call.headers["Authorization"]) for call in emulator.calls
    }


# Rooms


async def test_a_room_is_created_with_an_empty_object_where_nothing_is_asked_for(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    conversation = (await bridge.create()).conversation
    (call,) = emulator.calls
    assert (b"{}", {}) == (call.body, call.query)
    assert "New Room" == conversation.title
    assert {"operator_id", "owner_id", "metadata"} == set(conversation.extra)
    assert conversation.created_at == conversation.updated_at
    assert conversation.created_at is not None


async def test_a_name_and_metadata_go_with_the_creation(bridge: Bridge, emulator: TachyonEmulator) -> None:
    chat = await bridge.create(
        title="\u4eac\u90fd \U0001f98c", extra={"metadata": {"user_id": "u", "n": [None]}}
    )
    assert {"name": "\u4eac\u90fd \U0001f98c", "metadata": {"user_id": "u", "n": [None]}} == emulator.calls[
        0
    ].json()
    assert "\u4eac\u90fd".encode() in emulator.calls[0].body
    assert {"user_id": "u", "n": [None]} == (await chat.refresh()).extra["metadata"]


@pytest.mark.parametrize("metadata", [{}, [], 0, "", False, {"a": {"b": 1.5}}])
async def test_metadata_may_be_any_json_but_null(
    bridge: Bridge, emulator: TachyonEmulator, metadata: object
) -> None:
    chat = await bridge.create(extra={"metadata": {"old": 1}})
    conversation = await own(bridge).set_metadata(chat.id, metadata)
    assert metadata == conversation.extra["metadata"]
    assert {"metadata": metadata} == emulator.calls[-1].json()
    made = await bridge.create(extra={"metadata": metadata})
    assert metadata == made.conversation.extra["metadata"]


async def test_null_is_never_sent(bridge: Bridge, emulator: TachyonEmulator) -> None:
    await bridge.create(title="")
    assert b"{}" == emulator.calls[-1].body
    with pytest.raises(UsageError, match=r"give \{\}"):
        await bridge.create(extra={"metadata": None})
    with pytest.raises(UsageError, match=r"give \{\}"):
        await own(bridge).set_metadata(ROOM, None)
    assert 1 == len(emulator.calls)


@pytest.mark.parametrize("room_id", ["a/b", "..", "a\0"])
async def test_what_can_be_no_id_is_not_looked_for(
    bridge: Bridge, emulator: TachyonEmulator, room_id: str
) -> None:
    with pytest.raises(UsageError) as refused:
        await own(bridge).get_conversation(room_id)
    assert ("tachyon", []) == (refused.value.provider, emulator.calls)


async def test_a_room_that_moves_to_the_front_while_it_is_looked_for_is_found(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    rooms = [await bridge.create() for _ in range(150)]
    oldest = rooms[0]
    second = asyncio.Event()
    fault = emulator.fail(Fault(hold=asyncio.Event()), operation="get_chatrooms")
    assert fault.hold is not None
    reading = asyncio.create_task(bridge.open(oldest.id).refresh())
    await fault.reached.wait()
    held = emulator.fail(Fault(hold=second), operation="get_chatrooms")
    fault.hold.set()
    await held.reached.wait()  # The first page has been read.
    await oldest.rename("Moved")
    second.set()
    assert "Moved" == (await reading).title


async def test_renaming_leaves_the_metadata_and_the_other_way_round(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    chat = await bridge.create(title="Kyoto", extra={"metadata": {"a": 1}})
    assert {"a": 1} == (await chat.rename("  Nara\t")).extra["metadata"]
    assert {"name": "  Nara\t"} == emulator.calls[-1].json()
    assert "Nara" == chat.conversation.title  # The server trims.
    assert "Nara" == (await own(bridge).set_metadata(chat.id, {"b": 2})).title


@pytest.mark.parametrize("bare", [True, False])
async def test_a_changed_room_may_come_bare(bridge: Bridge, emulator: TachyonEmulator, bare: bool) -> None:
    room = {"id": ROOM, "name": "Nara", "updated_at": "2026-01-01T12:00:00Z", "owner_id": "us_x"}
    answer(emulator, "update_chatroom", room if bare else {"chatroom": room})
    conversation = await bridge.open(ROOM).rename("Nara")
    assert (ROOM, "Nara", datetime(2026, 1, 1, 12, tzinfo=UTC), {"owner_id": "us_x"}) == (
        conversation.id, conversation.title, conversation.updated_at, conversation.extra,
    )  # fmt: skip


@pytest.mark.parametrize("value", [{}, {"chatroom": None}, {"chatroom": {"name": "n"}}, [], {"id": []}])
async def test_what_is_no_room_is_a_bad_answer(
    bridge: Bridge, emulator: TachyonEmulator, value: object
) -> None:
    answer(emulator, "update_chatroom", value)
    with pytest.raises(BadAnswer):
        await bridge.open(ROOM).rename("Nara")


@pytest.mark.parametrize("status", [200, 201])
async def test_a_creation_is_a_200_or_a_201(bridge: Bridge, emulator: TachyonEmulator, status: int) -> None:
    body = json.dumps({"chatroom": {"id": ROOM}}).encode()
    emulator.fail(Fault(status=status, body=body))
    assert ROOM == (await bridge.create()).id


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00:00.25Z", datetime(2026, 1, 1, 12, 0, 0, 250000, tzinfo=UTC)),
        ("2026-01-01T12:00:00.123456789Z", datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)),
        ("lately", None),
        (None, None),
    ],
)
async def test_times_come_with_or_without_a_fraction(
    bridge: Bridge, emulator: TachyonEmulator, text: object, moment: datetime | None
) -> None:
    answer(emulator, "create_chatroom", {"chatroom": {"id": ROOM, "created_at": text, "updated_at": None}})
    conversation = (await bridge.create()).conversation
    assert (moment, None) == (conversation.created_at, conversation.updated_at)
    assert (text if moment is None else None) == conversation.extra.get("created_at")


async def test_half_a_character_in_a_room_is_replaced_with_a_warning(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    answer(emulator, "create_chatroom", {"chatroom": {"id": ROOM, "name": "a\ud800"}})
    answer(emulator, "update_chatroom", {"chatroom": {"id": ROOM, "name": "b\udc00"}})
    chat = await bridge.create()
    assert ("a\ufffd", 1) == (chat.conversation.title, len(chat.conversation.warnings))
    await chat.rename("b")
    assert ("b\ufffd", 1) == (chat.conversation.title, len(chat.conversation.warnings))


async def test_a_room_is_looked_for_in_the_list_page_by_page(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    assert Support.EMULATED is bridge.profile.support(Feature.GET)
    oldest = await bridge.create(title="oldest")
    for _ in range(249):
        await bridge.create()
    newest = await bridge.create(title="newest")
    emulator.calls.clear()
    assert "newest" == (await newest.refresh()).title
    assert [("0", "100")] == [(call.query["offset"], call.query["limit"]) for call in emulator.calls]
    assert "oldest" == (await oldest.refresh()).title
    assert ["0", "0", "100", "200"] == [call.query["offset"] for call in emulator.calls]


@pytest.mark.parametrize(("rooms", "offsets"), [(1, ["0", "1"]), (150, ["0", "100", "0"])])
async def test_the_first_page_is_read_again_only_where_there_are_more(
    bridge: Bridge, emulator: TachyonEmulator, rooms: int, offsets: list[str]
) -> None:
    for _ in range(rooms):
        await bridge.create()
    with pytest.raises(NotFound):
        await bridge.open(ROOM).refresh()
    assert offsets == [call.query["offset"] for call in emulator.calls[rooms:]]


async def test_an_id_is_found_letter_by_letter(bridge: Bridge) -> None:
    chat = await bridge.create()
    with pytest.raises(NotFound):
        await bridge.open(chat.id.upper()).refresh()


async def test_a_room_that_is_not_in_the_list_is_not_found(bridge: Bridge) -> None:
    with pytest.raises(NotFound) as missing:
        await bridge.open(ROOM).refresh()
    assert (ROOM, "tachyon", Outcome.REFUSED) == (
        missing.value.conversation_id, missing.value.provider, missing.value.outcome,
    )  # fmt: skip


async def test_rooms_are_listed_latest_update_first_and_once(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    made = [(await bridge.create()).id for _ in range(150)]
    rooms = bridge.conversations()
    listed = [(await anext(rooms)).id for _ in range(100)]
    assert ["get_chatrooms"] == operations(emulator)[150:]
    await bridge.create()  # It comes first, and pushes the hundredth to the second page.
    listed += await ids(rooms)
    assert made[::-1] == listed


@pytest.mark.parametrize("clip", [1, 20, 59, 60, 100])
async def test_a_server_that_clips_the_pages_is_read_to_the_end(
    bridge: Bridge, emulator: TachyonEmulator, clip: int
) -> None:
    rooms = [{"id": f"ch_{number}", "name": None} for number in range(60)]
    for offset in range(0, 60 + clip, clip):
        answer(emulator, "get_chatrooms", {"chatrooms": rooms[offset : offset + clip], "paginator": {}})
    assert [room["id"] for room in rooms] == await ids(bridge.conversations())


async def test_rooms_are_searched_by_name_and_by_the_user_in_their_metadata(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    kyoto = (await bridge.create(title="Kyoto \u4eac\u90fd", extra={"metadata": {"user_id": "ada"}})).id
    nara = (await bridge.create(title="Nara & more", extra={"metadata": {"user_id": "bob"}})).id
    backend = own(bridge)
    assert [kyoto] == await ids(backend.search_conversations("\u4eac\u90fd"))
    assert [nara] == await ids(backend.search_conversations("a & m"))
    assert [kyoto] == await ids(backend.search_conversations(metadata_user_id="ada"))
    assert [] == await ids(backend.search_conversations("Nara", metadata_user_id="ada"))
    assert [nara, kyoto] == await ids(backend.search_conversations())
    assert {"limit", "offset"} == set(emulator.calls[-1].query)
    with pytest.raises(UsageError):
        await ids(backend.search_conversations("\ud800"))


async def test_a_deletion_in_doubt_that_then_finds_nothing_is_done(
    reach: Reach, emulator: TachyonEmulator
) -> None:
    chat = await (await reach(emulator, clock=ManualClock())).create()
    emulator.fail(Fault(drop="after", kept="turn"), operation="delete_chatroom")
    await chat.delete()
    assert [None, 404] == [call.status for call in emulator.calls[1:]]
    with pytest.raises(NotFound):
        await chat.delete()


@pytest.mark.parametrize("fault", [Fault(status=200, body=b"done"), Fault(status=204, body=b"")])
async def test_a_deletion_is_judged_by_its_status_alone(
    bridge: Bridge, emulator: TachyonEmulator, fault: Fault
) -> None:
    emulator.fail(fault, operation="delete_chatroom")
    await bridge.open(ROOM).delete()


# Errors


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            {"message": "NotFoundError: chatroom is not found"},
            "NotFoundError",
            "NotFoundError: chatroom is not found",
        ),
        ({"message": "chatroom is: not found"}, None, "chatroom is: not found"),
        ({"code": "NOT_FOUND", "message": "no: such"}, "NOT_FOUND", "no: such"),
        ({"code": None, "message": "BadRequest: so not"}, "BadRequest", "BadRequest: so not"),
        ({"code": 7, "message": 8}, None, None),
        ({"error": "No pending tool call"}, None, "No pending tool call"),
        ({"error": {"code": "X", "message": "no"}}, "X", "no"),
        ({"code": "X"}, "X", None),
        ("bare", None, "bare"),
        ("", None, None),
        (None, None, None),
        ([], None, None),
    ],
)
def test_an_error_is_read_in_every_form_that_it_may_have(
    body: object, code: str | None, message: str | None
) -> None:
    error = wire.read_error(400, body)
    assert (code, message, None) == (error.code, error.message, error.hint)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["code", "message", "error"])
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


@given(st.recursive(st.none() | st.integers() | st.text() | st.just("A: b"), nested, max_leaves=6))
def test_whatever_an_error_holds_it_is_read(body: object) -> None:
    wire.read_error(400, body)


@pytest.mark.parametrize("errors", ["0.58.1", "v1"])
async def test_a_refusal_tells_code_and_message(reach: Reach, emulator: TachyonEmulator, errors: Any) -> None:
    emulator.errors = errors
    bridge = await reach(emulator)
    code = {"0.58.1": "NotFoundError", "v1": "NOT_FOUND"}[errors]
    calls: list[Awaitable[object]] = [bridge.open(ROOM).send("Hello"), bridge.open(ROOM).rename("Nara")]
    for call in calls:
        with pytest.raises(NotFound, match="chatroom is not found") as refused:
            await call
        assert (404, code) == (refused.value.status, refused.value.code)
    with pytest.raises(RequestRefused) as malformed:
        await bridge.open("kyoto").send("Hello")
    assert 400 == malformed.value.status
    with pytest.raises(RequestRefused, match="1 to 100 characters") as unfit:
        await bridge.create(title="a" * 101)
    assert 422 == unfit.value.status


async def test_a_wrong_key_is_told_and_not_shown(reach: Reach, emulator: TachyonEmulator) -> None:
    bridge = await reach(emulator)
    emulator.key = "another"
    with pytest.raises(AuthFailed, match="verify token failed") as refused:
        await bridge.create()
    assert "UNAUTHORIZED" == refused.value.code
    assert "sk-emulator" not in repr(vars(refused.value)) + str(refused.value)


@pytest.mark.parametrize("errors", ["0.58.1", "v1"])
async def test_without_credits_a_message_is_refused_and_nothing_is_stored(
    bridge: Bridge, emulator: TachyonEmulator, errors: Any
) -> None:
    emulator.errors, emulator.broke = errors, True
    chat = await bridge.create()
    with pytest.raises(RequestRefused, match="insufficient credits") as refused:
        await chat.send("Hello")
    with pytest.raises(RequestRefused):
        await chat.stream("Hello").__aenter__()
    assert (402, Outcome.REFUSED, False) == (
        refused.value.status, refused.value.outcome, refused.value.retryable,
    )  # fmt: skip
    assert [] == [message async for message in chat.messages()]


@pytest.mark.parametrize(
    "body",
    [
        b'{"code": "PAYMENT_REQUIRED", "message": "no"}',
        b'{"message": "PaymentRequired: no"}',
        b'{"code": "insufficient_quota", "message": "no"}',
    ],
)
async def test_a_429_that_is_about_money_is_not_tried_again(
    reach: Reach, emulator: TachyonEmulator, body: bytes
) -> None:
    assert Hint.QUOTA is wire.read_error(429, json.loads(body)).hint
    chat = await (await reach(emulator, clock=ManualClock())).create()
    emulator.fail(Fault(status=429, body=body), operation="chat_completion_on_chatroom")
    with pytest.raises(RateLimited) as refused:
        await chat.send("Hello")
    assert (2, False) == (len(emulator.calls), refused.value.retryable)


async def test_a_429_of_the_other_kind_waits_as_long_as_the_server_asks(
    reach: Reach, emulator: TachyonEmulator
) -> None:
    clock = ManualClock()
    chat = await (await reach(emulator, clock=clock)).create()
    emulator.fail(Fault(status=429, headers={"Retry-After": "7"}), operation="chat_completion_on_chatroom")
    assert "Turn 1: you said 'Hello'." == (await chat.send("Hello")).text
    assert [7.0] == clock.slept


# Failures under way

OUTCOMES: dict[str, tuple[str, type[ChatbridgeError]]] = {
    "create": ("create_chatroom", DeliveryUnknown),
    "send": ("chat_completion_on_chatroom", DeliveryUnknown),
    "stream": ("chat_completion_on_chatroom", DeliveryUnknown),
    "run": ("execute_agent", DeliveryUnknown),
    "rename": ("update_chatroom", Unavailable),
    "metadata": ("update_chatroom", Unavailable),
    "delete": ("delete_chatroom", Unavailable),
    "get": ("get_chatrooms", Unavailable),
    "list": ("get_chatrooms", Unavailable),
    "messages": ("get_chatroom_messages", Unavailable),
    "log": ("get_agent_messages", Unavailable),
}


async def call(name: str, bridge: Bridge) -> object:
    chat, backend = bridge.open(ROOM), own(bridge)
    match name:
        case "create":
            return await bridge.create()
        case "send" | "run":
            return await chat.send("Hello")
        case "stream":
            return await chat.stream("Hello").__aenter__()
        case "rename":
            return await chat.rename("Nara")
        case "metadata":
            return await backend.set_metadata(ROOM, {})
        case "delete":
            await chat.delete()
            return None
        case "get":
            return await chat.refresh()
        case "list":
            return await ids(bridge.conversations())
        case "messages":
            return [message async for message in chat.messages()]
        case _:
            return await backend.agent_log(ROOM)


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize(
    "fault",
    [Fault(drop="after"), Fault(status=503), Fault(status=500, body=b"<html>")],
    ids=["drop", "503", "500"],
)
async def test_what_sends_or_creates_is_made_once_and_the_rest_is_tried_again(
    reach: Reach, emulator: TachyonEmulator, name: str, fault: Fault
) -> None:
    mode = "agent" if name == "run" else "completion"
    bridge = await reach(emulator, clock=ManualClock(), mode=mode)
    operation, kind = OUTCOMES[name]
    emulator.fail(fault, operation=operation, times=3)
    with pytest.raises(kind) as failed:
        await call(name, bridge)
    attempts = 1 if kind is DeliveryUnknown else 3
    assert attempts == len(failed.value.attempts) == len(emulator.calls)
    assert kind is not DeliveryUnknown or Outcome.UNKNOWN is failed.value.outcome


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_refusal_of_any_operation_is_one(
    reach: Reach, emulator: TachyonEmulator, name: str, status: int
) -> None:
    bridge = await reach(emulator, mode="agent" if name == "run" else "completion")
    emulator.fail(Fault(status=status, body=b""), operation=OUTCOMES[name][0])
    with pytest.raises((AuthFailed, NotFound, RequestRefused)) as refused:
        await call(name, bridge)
    assert (status, Outcome.REFUSED, 1) == (refused.value.status, refused.value.outcome, len(emulator.calls))


@pytest.mark.parametrize("name", [name for name in OUTCOMES if name != "delete"])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"5", b'{"a": NaN}', b"{", b"\xff", b'{"chatrooms": 1}']
)
async def test_an_answer_that_cannot_be_read_is_an_error_of_ours(
    reach: Reach, emulator: TachyonEmulator, name: str, body: bytes
) -> None:
    bridge = await reach(emulator, clock=ManualClock(), mode="agent" if name == "run" else "completion")
    emulator.fail(Fault(status=200, body=body), operation=OUTCOMES[name][0], times=3)
    with pytest.raises(ChatbridgeError) as failed:
        await call(name, bridge)
    sends = OUTCOMES[name][1] is DeliveryUnknown
    assert (Outcome.ACCEPTED, 1) == (failed.value.outcome, len(emulator.calls)) or not sends


async def test_a_page_that_fails_ends_the_list_with_an_error(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    for _ in range(101):
        await bridge.create()
    rooms = bridge.conversations()
    for _ in range(100):
        await anext(rooms)
    emulator.fail(Fault(status=401), operation="get_chatrooms")
    with pytest.raises(AuthFailed):
        await anext(rooms)


async def test_a_turn_is_stored_with_its_answer_so_that_a_doubt_can_be_settled(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    chat = await bridge.create()
    emulator.fail(evolve(Fault(drop="after")), operation="chat_completion_on_chatroom")
    with pytest.raises(DeliveryUnknown):
        await chat.send("Hello")
    said = [(message.role, message.text) async for message in chat.messages()]
    assert [(Role.USER, "Hello"), (Role.ASSISTANT, "Turn 1: you said 'Hello'.")] == said
