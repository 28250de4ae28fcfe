"""Limits of time on what a backend does (D1), and the end of what is under way when a bridge closes (C5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chatbridge import (
    Bridge,
    Chat,
    ChatbridgeError,
    Conversation,
    DeliveryUnknown,
    Message,
    Outcome,
    Started,
    StreamCut,
    TextDelta,
    Unavailable,
    UsageError,
    connect,
)
from chatbridge.bounds import expire
from chatbridge.clock import SystemClock, current_deadline
from chatbridge.errors import DeliveryUnknownTimeout, UnavailableTimeout
from chatbridge.http import Transport
from chatbridge.options import CommonOptions
from chatbridge.registry import load_adapter
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault, Served, serve
from doubles import Double, assert_nothing_left, turns_of_the_loop

TIMEOUT = 10.0
SHORT = CommonOptions(timeout=TIMEOUT, idle_timeout=3.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


# ------------------------------------------------------------------------------------ limits of time


async def drain(items: AsyncIterator[object]) -> None:
    async for _ in items:
        pass


async def read(chat: Chat) -> None:
    async with chat.stream("Hi") as stream:
        await drain(stream)


HANGS: list[tuple[str, Callable[[Bridge, Chat], Awaitable[object]], type[ChatbridgeError]]] = [
    ("create", lambda bridge, _: bridge.create(), DeliveryUnknownTimeout),
    ("send", lambda _, chat: chat.send("Hi"), DeliveryUnknownTimeout),
    ("stream", lambda _, chat: read(chat), DeliveryUnknownTimeout),
    ("get", lambda _, chat: chat.refresh(), UnavailableTimeout),
    ("rename", lambda _, chat: chat.rename("x"), UnavailableTimeout),
    ("delete", lambda _, chat: chat.delete(), UnavailableTimeout),
    ("list", lambda bridge, _: drain(bridge.conversations()), UnavailableTimeout),
    ("messages", lambda _, chat: drain(chat.messages()), UnavailableTimeout),
]


@pytest.mark.parametrize(("name", "method", "error"), HANGS)
async def test_d1_a_backend_that_hangs_is_given_up_just_after_the_deadline(
    clock: ManualClock,
    name: str,
    method: Callable[[Bridge, Chat], Awaitable[object]],
    error: type[ChatbridgeError],
) -> None:
    double = Double()
    bridge = Bridge(double, options=SHORT, clock=clock)
    double.gates[name] = asyncio.Event()
    task = asyncio.ensure_future(method(bridge, bridge.open("conversation-1")))
    await turns_of_the_loop()

    clock.advance(TIMEOUT)
    await turns_of_the_loop()
    assert not task.done(), "what keeps to the deadline by itself comes first"
    clock.advance(bridge.bounds.GRACE)

    with pytest.raises(error, match="double did not answer within 10 s") as caught:
        await task
    assert (True, "double") == (caught.value.timed_out, caught.value.provider)
    assert None is caught.value.__cause__
    assert None is caught.value.__context__
    assert {} == {name: count for name, count in double.under_way.items() if count}
    assert_nothing_left(bridge)


async def test_a_time_limit_of_the_backends_own_is_one_of_ours() -> None:
    double = Double()
    double.fails = {"send": TimeoutError("too slow"), "get": TimeoutError("too slow")}
    chat = await Bridge(double).create()

    with pytest.raises(DeliveryUnknownTimeout):
        await chat.send("Hi")
    with pytest.raises(UnavailableTimeout):
        await chat.refresh()


async def test_every_endpoint_call_below_shares_the_deadline(clock: ManualClock) -> None:
    seen: list[float | None] = []

    class Asked(Double):
        async def get_conversation(self, conversation_id: str) -> Conversation:
            seen.append(current_deadline())
            await asyncio.sleep(0)
            seen.append(current_deadline())
            return await super().get_conversation(conversation_id)

    bridge = Bridge(Asked(), options=SHORT, clock=clock)
    await (await bridge.create()).refresh()

    assert [clock.now() + TIMEOUT] * 2 == seen
    assert None is current_deadline()


async def test_a_call_may_fail_and_recover_while_it_waits() -> None:
    """What a backend catches between two waits stays its own, and hangs on nothing that it raises later."""
    ready = asyncio.get_running_loop().create_future()

    async def call() -> str:
        caught: Exception | None = None
        try:
            await ready
        except ConnectionError as error:
            caught = error
        assert caught is not None
        await asyncio.sleep(0)
        raise Unavailable("lost")

    bridge = Bridge(Double())
    task = asyncio.create_task(bridge.bounds.call(call()))
    await turns_of_the_loop()
    ready.set_exception(ConnectionError("with headers"))

    with pytest.raises(Unavailable) as caught:
        await task
    assert None is caught.value.__context__


async def test_what_a_call_makes_of_an_error_does_not_carry_it(clock: ManualClock) -> None:
    """E4: raised in answer to a foreign error that ended a wait, outside of its handler."""
    ready = asyncio.get_running_loop().create_future()

    async def call() -> str:
        try:
            await ready
        except ConnectionError:
            pass
        else:
            return "never"
        raise Unavailable("lost")

    async def recovers() -> str:
        try:
            await ready
        except ConnectionError:
            return "recovered"
        return "never"

    bridge = Bridge(Double(), clock=clock)
    tasks = [asyncio.create_task(bridge.bounds.call(each())) for each in (call, recovers)]
    await turns_of_the_loop()
    ready.set_exception(ConnectionError("with headers"))
    lost, recovered = await asyncio.gather(*tasks, return_exceptions=True)

    assert "recovered" == recovered
    assert isinstance(lost, Unavailable)
    assert None is lost.__context__


@pytest.mark.parametrize(("name", "method", "_"), HANGS)
async def test_c1_a_cancelled_call_raises_cancelled_error(
    name: str, method: Callable[[Bridge, Chat], Awaitable[object]], _: object
) -> None:
    double = Double()
    double.gates[name] = asyncio.Event()
    bridge = Bridge(double)
    task = asyncio.ensure_future(method(bridge, bridge.open("conversation-1")))
    await turns_of_the_loop()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_left(bridge)


@pytest.mark.parametrize(("name", "method", "error"), HANGS)
async def test_a_cancellation_of_the_backends_own_is_an_error_of_ours(
    name: str, method: Callable[[Bridge, Chat], Awaitable[object]], error: type[ChatbridgeError]
) -> None:
    """A task group would take CancelledError for its own doing, and lose it."""
    double = Double()
    bridge = Bridge(double)
    double.fails[name] = asyncio.CancelledError()

    with pytest.raises((DeliveryUnknown, Unavailable), match="double cancelled the call by itself") as caught:
        await method(bridge, bridge.open("conversation-1"))
    assert issubclass(error, type(caught.value))
    assert (Outcome.UNKNOWN, False) == (caught.value.outcome, caught.value.timed_out)
    assert None is caught.value.__context__
    assert_nothing_left(bridge)


async def test_a_stream_that_is_cancelled_by_its_backend_is_cut() -> None:
    double = Double()
    double.script = [Started(), TextDelta("Hel"), asyncio.CancelledError()]
    bridge = Bridge(double)

    with pytest.raises(StreamCut, match="the backend cancelled its stream by itself") as caught:
        await read(bridge.open("conversation-1"))
    assert ("Hel", None) == (caught.value.partial, caught.value.__context__)
    assert_nothing_left(bridge)


async def test_a_backend_that_cancels_itself_as_it_closes_is_closed() -> None:
    double = Double()
    double.fails["close"] = asyncio.CancelledError()
    await Bridge(double).close()
    assert ["close"] == double.calls


async def test_closing_can_be_cancelled() -> None:
    double = Double()
    double.gates["close"] = asyncio.Event()
    closing = asyncio.create_task(Bridge(double).close())
    await turns_of_the_loop()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_a_call_that_is_cancelled_before_it_begins_leaves_no_coroutine_behind() -> None:
    bridge = Bridge(Double())
    chat = await bridge.create()
    task = asyncio.create_task(chat.send("Hi"))
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_left(bridge)


# ------------------------------------------------------------------------------------------ closing


async def test_a_timer_that_fires_already_is_left_alone() -> None:
    clock = SystemClock()
    timer = clock.timeout_at(clock.now() + 60)

    async def wait() -> None:
        async with timer:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    expire(clock, [timer])
    await asyncio.sleep(0)
    assert timer.expired()
    expire(clock, [timer])

    with pytest.raises(TimeoutError):
        await task


@pytest.mark.parametrize(("name", "method", "error"), HANGS)
async def test_c5_closing_ends_the_calls_under_way(
    clock: ManualClock,
    name: str,
    method: Callable[[Bridge, Chat], Awaitable[object]],
    error: type[ChatbridgeError],
) -> None:
    """Even of a backend that would wait for ever."""
    double = Double()
    double.gates[name] = asyncio.Event()
    bridge = Bridge(double, clock=clock)
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(method(bridge, bridge.open("conversation-1")))
    await turns_of_the_loop()

    closing = asyncio.create_task(bridge.close())
    await turns_of_the_loop()
    assert not task.done(), "it may still end by itself"
    clock.advance(bridge.bounds.GRACE)
    await closing

    with pytest.raises(
        (DeliveryUnknown, Unavailable), match="the bridge was closed before double answered"
    ) as caught:
        await task
    assert issubclass(error, type(caught.value))
    assert (Outcome.UNKNOWN, False) == (caught.value.outcome, caught.value.timed_out)
    assert before == asyncio.all_tasks()
    assert_nothing_left(bridge)


async def test_c5_closing_turns_away_who_waits_for_a_turn(clock: ManualClock) -> None:
    """At once, and nothing of theirs is sent, whoever holds the turn."""
    double = Double()
    bridge = Bridge(double, clock=clock)
    chat = await bridge.create()
    async with chat.stream("one") as stream:
        await anext(stream)
        waiting: list[asyncio.Task[object]] = [
            asyncio.create_task(chat.send("two")),
            asyncio.create_task(read(chat)),
        ]
        await turns_of_the_loop()
        await bridge.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)

    assert [UsageError] * 2 == [type(result) for result in results]
    assert ["the bridge is closed"] * 2 == [str(result) for result in results]
    assert ["one"] == [message.text for _, message, _ in double.sent]
    assert_nothing_left(bridge)


async def test_c5_a_list_that_is_being_read_ends_with_an_error() -> None:
    bridge = Bridge(Double())
    chat = await bridge.create(history=[Message.user("Hi"), Message.assistant("Hello")])
    messages = chat.messages()
    await anext(messages)
    await bridge.close()

    with pytest.raises(UsageError, match="closed"):
        await anext(messages)


async def test_c5_a_backend_that_hangs_in_closing_is_left_behind(clock: ManualClock) -> None:
    double = Double()
    double.gates["close"] = asyncio.Event()
    bridge = Bridge(double, clock=clock)
    task = asyncio.create_task(bridge.close())
    await turns_of_the_loop()
    assert not task.done()

    clock.advance(2.0)
    await task
    assert 2.0 > bridge.bounds.CLOSING + 3 * bridge.bounds.GRACE


async def test_c5_the_transport_is_closed_whatever_the_backend_does() -> None:
    double = Double()
    double.fails["close"] = Unavailable("down")
    transport = Transport("http://127.0.0.1:1", SHORT)
    bridge = Bridge(double, transport=transport)

    with pytest.raises(Unavailable):
        await bridge.close()
    assert vars(transport)["_closed"]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve(load_adapter("h2ogpte").load_emulator()()) as served:
        yield served


async def test_c5_closing_ends_calls_over_http(served: Served) -> None:
    """With errors of the transport's own, nothing sent twice, and no task left."""
    emulator = served.emulator
    bridge = connect(served.config, key=emulator.key)
    chats = [await bridge.create() for _ in range(3)]
    hold = asyncio.Event()
    fault = emulator.fail(Fault(hold=hold), times=3)
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(chats[0].send("Hi")),
        asyncio.create_task(read(chats[1])),
        asyncio.create_task(drain(chats[2].messages())),
        asyncio.create_task(chats[0].send("waits")),
    ]
    while len(emulator.calls) < 6:
        await fault.reached.wait()
        await asyncio.sleep(0)

    async with asyncio.timeout(2):
        await bridge.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    hold.set()

    assert [DeliveryUnknown, DeliveryUnknown, Unavailable, UsageError] == [type(result) for result in results]
    assert 6 == len(emulator.calls)
    assert_nothing_left(bridge)


async def test_c5_an_open_stream_over_http_ends_with_an_error(served: Served) -> None:
    bridge = connect(served.config, key=served.emulator.key)
    chat = await bridge.create()
    async with chat.stream("Hi") as stream:
        await anext(stream)
        await bridge.close()
        with pytest.raises(ChatbridgeError, match="closed before the answer was complete"):
            await drain(stream)

    assert_nothing_left(bridge)


# ------------------------------------------------------------------------------- the clock of these tests


async def test_the_manual_clock_moves_only_when_it_is_moved(clock: ManualClock) -> None:
    start, wall = clock.now(), clock.wall()
    clock.advance(2)
    await clock.sleep(3)

    assert (start + 5, wall + 5, [3]) == (clock.now(), clock.wall(), clock.slept)


async def test_the_manual_clock_fires_what_is_due_and_nothing_else(clock: ManualClock) -> None:
    async def wait(timer: asyncio.Timeout) -> None:
        async with timer:
            await asyncio.Event().wait()

    early, late, moved = (clock.timeout_at(clock.now() + seconds) for seconds in (1, 3, 2))
    unused = clock.timeout_at(clock.now() + 1)
    tasks = [asyncio.create_task(wait(timer)) for timer in (early, late, moved)]
    await turns_of_the_loop()
    clock.postpone(moved, clock.now() + 5)
    clock.advance(2)
    await turns_of_the_loop()
    assert [True, False, False] == [task.done() for task in tasks]
    clock.postpone(moved, clock.now())
    await turns_of_the_loop()
    assert [True, False, True] == [task.done() for task in tasks]
    clock.advance(1)
    await asyncio.wait(tasks)

    assert [TimeoutError] * 3 == [type(task.exception()) for task in tasks]
    assert not unused.expired()
