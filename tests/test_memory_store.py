"""The store in memory: what it forgets when there is too much, and what it never does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from attrs import evolve

from chatbridge import (
    Attachment,
    Bridge,
    DeliveryUnknown,
    Message,
    Opaque,
    Part,
    Reasoning,
    Reply,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    TurnState,
    UsageError,
    connect,
)
from chatbridge.history import MemoryStore
from chatbridge.history.chain import entries_of
from chatbridge.history.rows import Hold, Remote
from chatbridge.testing.clock import ManualClock
from doubles import Double

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NOTHING = Reply([Message.assistant("")])


def place(name: str) -> Remote:
    return Remote("a", name)


def turn(name: str, number: int, state: TurnState = TurnState.DELIVERED) -> Turn:
    return Turn(f"{number}", name, Message.user(f"{number}"), NOW, state)


async def names(store: MemoryStore) -> list[str]:
    return [kept.remote.id async for kept in store.conversations()]


async def numbers(store: MemoryStore, name: str) -> list[str]:
    return [row.turn.id for row in await store.turns(place(name))]


async def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    store = MemoryStore(keeps=4)
    for name in "abcd":
        await store.keep(place(name))
    await store.keep(place("a"), messages=[Message.user("Hi")])
    await store.keep(place("e"))
    assert ["e", "a", "d"] == await names(store)

    await store.keep(place("d"), messages=[Message.user("Hi")])

    assert ["d", "e", "a"] == await names(store)
    assert None is await store.find(place("c"))


async def test_the_first_messages_of_one_that_is_longer_are_forgotten() -> None:
    store = MemoryStore(keeps=4)
    said = [Message.user(f"{number}") for number in range(6)]
    await store.keep(place("other"))
    kept = await store.keep(place("a"))
    for message in said:
        await store.keep(place("a"), messages=[message])

    assert ["a"] == await names(store)
    assert ["3", "4", "5"] == [each.text async for each in store.messages(kept.id)]
    found = await store.find(place("a"))
    assert found is not None
    assert (6, [*entries_of(said[3:], None)][-1].hash) == (found.length, found.head)
    replaced = await store.replace(found, 4, [Message.user("new")])
    assert replaced is not None
    assert ["3", "new"] == [each.text async for each in store.messages(kept.id)]
    assert 5 == replaced.length


@pytest.mark.parametrize("state", [TurnState.PENDING, TurnState.UNKNOWN])
async def test_nothing_in_doubt_is_forgotten(state: TurnState) -> None:
    store = MemoryStore(keeps=2, turns=1)
    await store.record(place("a"), turn("a", 0, state))
    for number in range(1, 5):
        await store.record(place("a"), turn("a", number))
        await store.keep(place(f"{number}"))

    assert ["4", "3", "a"] == await names(store)
    assert ["0", "4"] == await numbers(store, "a")
    await store.waive(place("a"), "0")
    await store.record(place("a"), turn("a", 5))
    assert ["5"] == await numbers(store, "a")
    await store.keep(place("5"))
    await store.keep(place("6"))
    assert ["6", "5"] == await names(store)


async def test_conversations_in_doubt_leave_room_for_others() -> None:
    store = MemoryStore(keeps=3)
    for name in "abcd":
        await store.record(place(name), turn(name, 0, TurnState.UNKNOWN))

    kept = await store.keep(place("e"), messages=[Message.user("1"), Message.user("2")])

    assert ["1", "2"] == [each.text async for each in store.messages(kept.id)]
    assert 5 == len(await names(store))


async def test_nothing_that_is_held_is_forgotten() -> None:
    store = MemoryStore(keeps=1)
    assert Hold.AFTER_ANOTHER is await store.hold(place("a"), "one")
    await store.keep(place("b"))
    await store.keep(place("c"))
    assert ["c", "a"] == await names(store)

    await store.release(place("a"), "one")
    await store.keep(place("d"))

    assert ["d"] == await names(store)


def test_what_was_held_in_an_event_loop_that_is_closed_is_free() -> None:
    store = MemoryStore()
    asyncio.run(store.hold(place("a"), "one"))
    asyncio.run(store.record(place("a"), turn("a", 1, TurnState.PENDING), holder="one"))

    (row,) = asyncio.run(store.turns(place("a")))
    assert TurnState.UNKNOWN is row.turn.state
    assert Hold.AFTER_ANOTHER is asyncio.run(store.hold(place("a"), "two"))


async def test_the_last_turns_of_all_conversations_are_kept() -> None:
    store = MemoryStore(turns=3)
    for number in range(4):
        for name in "ab":
            await store.record(place(name), turn(name, number))

    assert (["3"], ["2", "3"]) == (await numbers(store, "a"), await numbers(store, "b"))
    kept = await store.find(place("b"))
    assert kept is not None
    await store.forget(kept.id)
    for number in range(4, 7):
        await store.record(place("a"), turn("a", number))
    assert ["4", "5", "6"] == await numbers(store, "a")


def long(name: str, number: int, state: TurnState, length: int = 10) -> Turn:
    return evolve(turn(name, number, state), message=evolve(Message.user("x" * length), id=f"{number}"))


@pytest.mark.parametrize(
    ("state", "kept_here"),
    [(TurnState.REFUSED, False), (TurnState.NOT_SENT, False), (TurnState.ACCEPTED, True)],
)
async def test_turns_without_messages_take_no_more_than_half_of_the_room(
    state: TurnState, *, kept_here: bool
) -> None:
    store = MemoryStore(size=100)
    for number in range(3):
        await store.record(place("a"), long("a", number, TurnState.DELIVERED), NOTHING)
    for number in range(3, 10):
        await store.record(place("a"), long("a", number, state), kept_here=kept_here)
    assert ["0", "1", "2", "5", "6", "7", "8", "9"] == await numbers(store, "a")

    for number in range(10, 20):
        await store.record(place("a"), long("a", number, TurnState.DELIVERED), NOTHING)
    assert [*"56789", "15", "16", "17", "18", "19"] == await numbers(store, "a")


@pytest.mark.parametrize("state", [TurnState.ACCEPTED, TurnState.UNKNOWN])
async def test_no_turn_is_forgotten_for_its_size_whose_message_a_server_may_have(state: TurnState) -> None:
    store = MemoryStore(size=100)
    for number in range(9):
        await store.record(place("a"), long("a", number, state, 60))
        await store.waive(place("a"), f"{number}")
    assert 9 == len(await numbers(store, "a"))

    await store.record(place("a"), long("a", 9, TurnState.DELIVERED, 60), NOTHING)
    kept = await store.find(place("a"))
    assert 2 == getattr(kept, "length", None), "nor do they take room of messages"


async def test_a_turn_of_a_message_sent_again_outlasts_the_message_that_is_replaced() -> None:
    store = MemoryStore(size=100)
    first = long("a", 0, TurnState.DELIVERED, 60)
    await store.record(place("a"), first, NOTHING)
    again = evolve(first, state=TurnState.ACCEPTED, sends=2, earlier=first)
    await store.record(place("a"), again)
    found = await store.find(place("a"))
    assert found is not None

    await store.replace(found, 0, [Message.user("new")])

    assert ["0"] == await numbers(store, "a")


async def test_a_message_left_in_its_stream_is_not_sent_twice_however_many_are() -> None:
    bridge = connect("fake:", store=MemoryStore(size=100))
    chat = await bridge.create()
    messages = [evolve(Message.user("x" * 60), id=f"{number}") for number in range(3)]
    for message in messages:
        async with chat.stream(message) as stream:
            await anext(aiter(stream))

    with pytest.raises(UsageError, match="was sent before and is accepted"):
        await chat.send(messages[0])


async def test_a_turn_takes_the_room_of_its_partial_answer_and_none_beside_its_message() -> None:
    store = MemoryStore(size=100)
    lost = evolve(long("a", 0, TurnState.ACCEPTED), partial="y" * 30)
    await store.record(place("a"), lost, kept_here=True)
    await store.record(place("a"), long("a", 1, TurnState.REFUSED))
    await store.record(place("a"), evolve(lost, state=TurnState.DELIVERED, partial=""), NOTHING)
    for number in range(2, 6):
        await store.record(place("a"), long("a", number, TurnState.REFUSED))
    assert ["0", "1", "2", "3", "4", "5"] == await numbers(store, "a")

    await store.record(place("a"), long("a", 6, TurnState.REFUSED))
    assert ["0", "2", "3", "4", "5", "6"] == await numbers(store, "a")


async def test_a_turn_whose_message_is_replaced_takes_room_of_its_own() -> None:
    store = MemoryStore(size=100)
    for number in range(8):
        await store.record(place("a"), long("a", number, TurnState.DELIVERED), NOTHING)
    found = await store.find(place("a"))
    assert found is not None
    await store.replace(found, 0, [Message.user("new")])
    assert ["3", "4", "5", "6", "7"] == await numbers(store, "a")

    await store.forget(found.id)
    for number in range(5):
        await store.record(place("b"), long("b", number, TurnState.REFUSED))
    assert 5 == len(await numbers(store, "b"))


async def test_an_answer_of_a_turn_that_was_accepted_is_kept_once_found() -> None:
    store = MemoryStore(turns=1)
    lost = turn("a", 1, TurnState.ACCEPTED)
    await store.record(place("a"), lost)
    assert [lost] == [row.turn for row in await store.turns(place("a"), unsettled=True)]

    found = evolve(lost, state=TurnState.DELIVERED, reply=Reply([Message.assistant("Ho")]))
    await store.record(place("a"), found)

    assert () == await store.turns(place("a"), unsettled=True)
    kept = await store.find(place("a"))
    assert 2 == getattr(kept, "length", None)


async def test_what_a_bridge_keeps_by_default_has_a_limit() -> None:
    double = Double()
    store = MemoryStore(keeps=6, turns=2)
    bridge = Bridge(double, clock=ManualClock(), store=store)
    doubtful = await bridge.create()
    double.fails["send"] = DeliveryUnknown("lost", kind="lost")
    with pytest.raises(DeliveryUnknown):
        await doubtful.send("Hi")
    double.fails.clear()
    for _ in range(5):
        await (await bridge.create()).send("Hi")

    assert [TurnState.UNKNOWN] == [each.state for each in await doubtful.turns()]
    assert 3 == len([kept async for kept in store.conversations()])


async def test_a_turn_is_forgotten_with_its_message() -> None:
    double = Double()
    chat = await Bridge(double, clock=ManualClock(), store=MemoryStore(keeps=5)).create()
    for number in range(4):
        await chat.send(f"{number}")

    assert ["2", "3"] == [each.message.text for each in await chat.turns()]


@pytest.mark.parametrize(
    "part",
    [
        Text("x" * 100),
        Reasoning("x" * 100),
        Attachment("image/png", data=b"x" * 100),
        Attachment("image/png", url="data:" + "x" * 95),
        ToolResult("1", "x" * 100),
        ToolCall("1", "draw", {"lines": ["x" * 50, {"label": "x" * 40}]}),
        ToolCall("1", "draw", {"points": [1.5] * 94}),
        Opaque("fake", "blob", {"x" * 100: None}),
    ],
)
async def test_whatever_a_message_is_made_of_takes_room(part: Part) -> None:
    store = MemoryStore(size=250)
    for _ in range(3):
        await store.keep(place("a"), messages=[Message.assistant([part])])

    kept = await store.find(place("a"))

    assert kept is not None
    assert 1 == kept.gone
