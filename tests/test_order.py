"""The order of messages within a conversation (M6)."""

from __future__ import annotations

import asyncio
import gc
import random
from pathlib import Path

import pytest

from chatbridge import Bridge, Chat, ReplyStream, UsageError
from chatbridge.bridge import connect
from chatbridge.domain import Text
from chatbridge.errors import (
    DeliveryUnknownTimeout,
    Outcome,
    OverloadedTimeout,
    Phase,
    RequestRefused,
    UnsettledTurn,
)
from chatbridge.options import CommonOptions
from chatbridge.order import Lane, Order
from chatbridge.testing.clock import ManualClock
from chatbridge.turns import TurnState
from doubles import Double, assert_nothing_left, lanes, turns_of_the_loop

TIMEOUT = 10.0


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bridge(double: Double, clock: ManualClock) -> Bridge:
    return Bridge(double, options=CommonOptions(timeout=TIMEOUT), clock=clock)


@pytest.fixture
async def chat(bridge: Bridge) -> Chat:
    return await bridge.create()


async def read(chat: Chat, text: str) -> str:
    async with chat.stream(text) as stream:
        return "".join([piece async for piece in stream.text()])


async def send(chat: Chat, text: str) -> str:
    return (await chat.send(text)).text


def said(double: Double) -> list[str]:
    return [message.text for _, message, _ in double.sent]


@pytest.mark.parametrize("seed", range(5))
async def test_m6_messages_go_one_at_a_time_in_call_order_whatever_the_handle(
    bridge: Bridge, double: Double, chat: Chat, seed: int
) -> None:
    """Twenty tasks over two handles, sends and streams mixed."""
    dice = random.Random(seed)
    handles = (chat, bridge.open(chat.id))
    texts = [f"message {number}" for number in range(20)]

    async def say(text: str) -> None:
        handle = dice.choice(handles)
        if dice.random() < 0.5:
            await handle.send(text)
        else:
            await read(handle, text)

    async with asyncio.TaskGroup() as group:
        for text in texts:
            group.create_task(say(text))
            await turns_of_the_loop(dice.randrange(3))

    assert texts == said(double)
    assert not double.overlapped
    assert texts == [message.text async for message in chat.messages() if message.role == "user"]
    assert_nothing_left(bridge)


async def test_different_conversations_do_not_wait_for_each_other(bridge: Bridge, double: Double) -> None:
    chats = [await bridge.create() for _ in range(5)]
    double.gates["send"] = asyncio.Event()

    tasks = [asyncio.create_task(chat.send("Hi")) for chat in chats]
    await turns_of_the_loop()

    assert 5 == sum(double.under_way.values())
    double.gates["send"].set()
    await asyncio.gather(*tasks)
    assert_nothing_left(bridge)


@pytest.mark.parametrize("cancelled", [1, 2, 3])
async def test_a_message_that_is_cancelled_as_it_waits_leaves_the_others_in_order(
    bridge: Bridge, double: Double, chat: Chat, cancelled: int
) -> None:
    double.gates["send"] = asyncio.Event()
    tasks = [asyncio.create_task(chat.send(str(number))) for number in range(4)]
    await turns_of_the_loop()

    tasks[cancelled].cancel()
    await turns_of_the_loop()
    assert tasks[cancelled].cancelled()
    double.gates["send"].set()
    await asyncio.gather(*tasks, return_exceptions=True)

    sent = [number for number in range(4) if number != cancelled]
    assert [str(number) for number in sent] == said(double)
    assert not double.overlapped
    assert_nothing_left(bridge)


@pytest.mark.parametrize("after", range(6))
async def test_a_turn_that_comes_while_its_task_is_cancelled_is_passed_on(
    bridge: Bridge, chat: Chat, double: Double, after: int
) -> None:
    double.gates["send"] = asyncio.Event()
    tasks = [asyncio.create_task(chat.send(str(number))) for number in range(3)]
    await turns_of_the_loop()
    double.gates["send"].set()
    await turns_of_the_loop(after)

    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert not isinstance(results[0], BaseException)
    doubtful = [turn.message.text for turn in await chat.turns() if turn.blocks]
    assert doubtful in ([], ["1"])
    assert bool(doubtful) == isinstance(results[2], UnsettledTurn)
    assert ["0", "2"][: 2 - len(doubtful)] == [text for text in said(double) if text != "1"]
    assert_nothing_left(bridge)


async def test_m6_those_who_wait_behind_a_message_that_stays_in_doubt_are_told_so(
    bridge: Bridge, double: Double, chat: Chat
) -> None:
    double.gates["send"] = asyncio.Event()
    tasks = [asyncio.create_task(send(chat, str(number))) for number in range(3)]
    tasks.append(asyncio.create_task(read(chat, "3")))
    await turns_of_the_loop()

    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(results[0], asyncio.CancelledError)
    for result in results[1:]:
        assert isinstance(result, UnsettledTurn)
        assert result.turn is not None
        assert ("0", TurnState.UNKNOWN) == (result.turn.message.text, result.turn.state)
    assert ["0"] == said(double)
    assert_nothing_left(bridge)


async def test_waiting_for_the_turn_counts_against_the_deadline(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock
) -> None:
    double.gates["send"] = asyncio.Event()
    first = asyncio.create_task(chat.send("first"))
    await turns_of_the_loop()
    clock.advance(TIMEOUT / 2)
    second = asyncio.create_task(chat.send("second"))
    third = asyncio.create_task(read(chat, "third"))
    await turns_of_the_loop()

    clock.advance(TIMEOUT / 2 + 1)
    with pytest.raises(DeliveryUnknownTimeout):
        await first
    with pytest.raises(UnsettledTurn):
        await second
    with pytest.raises(UnsettledTurn):
        await third
    assert ["first"] == said(double)
    assert_nothing_left(bridge)


async def test_what_is_left_of_the_deadline_after_waiting_is_what_the_message_has(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock
) -> None:
    gate = double.gates["send"] = asyncio.Event()
    first = asyncio.create_task(chat.send("first"))
    await turns_of_the_loop()
    second = asyncio.create_task(chat.send("second"))
    third = asyncio.create_task(read(chat, "third"))
    await turns_of_the_loop()
    clock.advance(TIMEOUT / 2)
    gate.set()
    await first
    gate.clear()
    await turns_of_the_loop()

    clock.advance(TIMEOUT / 2 + bridge.bounds.GRACE)
    with pytest.raises(DeliveryUnknownTimeout):
        await second
    with pytest.raises((OverloadedTimeout, UnsettledTurn)):
        await third
    assert_nothing_left(bridge)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_turn_that_does_not_come_in_time_says_that_nothing_was_sent(
    bridge: Bridge, chat: Chat, double: Double, clock: ManualClock, streamed: bool
) -> None:
    async with chat.stream("open") as stream:
        task = asyncio.create_task((read if streamed else send)(chat, "late"))
        await turns_of_the_loop()
        clock.advance(TIMEOUT)
        with pytest.raises(OverloadedTimeout) as caught:
            await task
        assert [event async for event in stream]

    assert Outcome.NOT_SENT is caught.value.outcome
    assert Phase.QUEUE is caught.value.phase
    assert ("double", chat.id) == (caught.value.provider, caught.value.conversation_id)
    assert caught.value.client_id
    assert ["open"] == said(double)
    assert_nothing_left(bridge)


async def test_a_failure_frees_the_turn(bridge: Bridge, double: Double, chat: Chat) -> None:
    double.fails["send"] = RequestRefused("no")
    tasks = [asyncio.create_task(chat.send(str(number))) for number in range(3)]

    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [RequestRefused] * 3 == [type(result) for result in results]
    assert ["0", "1", "2"] == said(double)
    assert_nothing_left(bridge)


async def test_a_task_does_not_wait_for_its_own_open_stream(
    bridge: Bridge, double: Double, chat: Chat
) -> None:
    """It would wait for ever; another handle makes no difference."""
    async with chat.stream("one") as stream:
        await anext(stream)
        with pytest.raises(UsageError, match="would wait for itself: finish or leave its stream"):
            await bridge.open(chat.id).send("two")
        with pytest.raises(UsageError, match="would wait for itself: finish or leave its stream"):
            await chat.stream("three").__aenter__()
        other = await bridge.create()
        await other.send("elsewhere")

    assert ["one", "elsewhere"] == said(double)
    await chat.send("four")
    assert_nothing_left(bridge)


async def test_the_turn_is_free_once_the_stream_has_finished(
    bridge: Bridge, double: Double, chat: Chat
) -> None:
    async with chat.stream("one") as stream:
        async for _ in stream:
            pass
        await chat.send("two")

    assert ["one", "two"] == said(double)
    assert_nothing_left(bridge)


async def test_a_task_whose_stream_has_finished_waits_behind_those_who_wait(
    double: Double, chat: Chat
) -> None:
    """It is not taken for one that still reads."""
    async with chat.stream("one") as stream:
        await anext(stream)
        task = asyncio.create_task(chat.send("two"))
        await turns_of_the_loop()
        async for _ in stream:
            pass
        await chat.send("three")

    await task
    assert ["one", "two", "three"] == said(double)


async def test_another_task_waits_for_an_open_stream(bridge: Bridge, double: Double, chat: Chat) -> None:
    async with chat.stream("one") as stream:
        await anext(stream)
        task = asyncio.create_task(chat.send("two"))
        await turns_of_the_loop()
        assert ["one"] == said(double)

    await task
    assert ["one", "two"] == said(double)
    assert_nothing_left(bridge)


async def test_k2_one_bridge_serves_many_tasks(double: Double) -> None:
    """Two hundred conversations; the slow and the cancelled neither block nor fail another."""
    bridge = Bridge(double)
    chats = [await bridge.create() for _ in range(200)]
    slow = asyncio.Event()

    async def talk(number: int) -> str:
        chat = chats[number]
        await chat.send("one")
        if number % 10 == 0:
            async with chat.stream("slow") as stream:
                await slow.wait()
                async for _ in stream:
                    pass
                return stream.reply.text
        return (await chat.send("two")).text

    tasks = [asyncio.create_task(talk(number)) for number in range(200)]
    await turns_of_the_loop()
    quick = [task for number, task in enumerate(tasks) if number % 10]
    assert all(task.done() for task in quick)
    cancelled = tasks[::20]
    for task in cancelled:
        task.cancel()
    slow.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    for number, result in enumerate(results):
        if number % 20 == 0:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert isinstance(result, str)
            assert result.startswith("Turn 2: you said")
    assert_nothing_left(bridge)


async def test_a_turn_is_not_given_once_the_turns_are_over() -> None:
    """Nor to those who wait already, nor to the one whose turn comes in the same moment."""
    clock = ManualClock()
    order = Order(clock)
    lane = await order.take("a", clock.now() + 1)
    waiting = [asyncio.create_task(order.take("a", clock.now() + 1)) for _ in range(3)]
    await turns_of_the_loop()

    order.give_back(lane)
    order.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert [UsageError] * 3 == [type(result) for result in results]
    with pytest.raises(UsageError, match="closed"):
        await order.take("b", clock.now() + 1)
    assert {} == lanes(order)


@pytest.mark.filterwarnings("ignore:a stream was dropped")
async def test_a_stream_that_was_opened_by_a_task_and_dropped_does_not_keep_its_turn(
    bridge: Bridge, chat: Chat
) -> None:
    stream = await asyncio.create_task(chat.stream("Hi").__aenter__())
    del stream
    gc.collect()
    await turns_of_the_loop()
    assert_nothing_left(bridge)


@pytest.mark.filterwarnings("ignore:a stream was dropped")
@pytest.mark.parametrize("durable", [False, True])
def test_a_stream_that_was_left_in_a_closed_loop_does_not_keep_its_turn(
    tmp_path: Path, *, durable: bool
) -> None:
    """Its message is in doubt from then on, as that of a process that died."""
    store = f"sqlite:///{tmp_path}/store.db" if durable else None
    bridge = connect("fake:", store=store)

    async def begin() -> ReplyStream:
        stream = (await bridge.create()).stream("Hi")
        return await stream.__aenter__()

    async def go_on() -> list[TurnState]:
        async with bridge:
            (conversation,) = [each async for each in bridge.conversations()]
            chat = bridge.open(conversation.id)
            with pytest.raises(UnsettledTurn):
                await chat.send("Ho")
            await chat.settle(wait=0)
            await chat.send("Ho")
            return [turn.state for turn in await chat.turns()]

    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(begin())
    loop.close()
    del stream
    gc.collect()

    assert [TurnState.DELIVERED] * 2 == asyncio.run(go_on())
    assert {} == lanes(bridge.order)


def test_a_turn_that_was_left_in_a_closed_loop_is_free_and_given_back_later_it_ends_no_other() -> None:
    clock = ManualClock()
    order = Order(clock)

    async def take() -> Lane:
        return await order.take("a", clock.now() + 1)

    async def go_on(old: Lane) -> None:
        lane = await take()
        waiting = asyncio.create_task(take())
        await turns_of_the_loop()
        order.give_back(old)
        await turns_of_the_loop()
        assert not waiting.done()
        order.give_back(lane)
        order.give_back(await waiting)

    loop = asyncio.new_event_loop()
    lane = loop.run_until_complete(take())
    loop.close()

    asyncio.run(go_on(lane))
    assert {} == lanes(order)


async def test_the_order_holds_for_a_bridge_made_by_connect() -> None:
    async with connect("fake:") as bridge:
        chat = await bridge.create()
        replies = await asyncio.gather(*(chat.send(str(number)) for number in range(5)))

    assert [f"Turn {number + 1}" for number in range(5)] == [
        reply.text.partition(":")[0] for reply in replies
    ]
    assert all(isinstance(part, Text) for reply in replies for part in reply.message.parts)
