"""A store that does not answer holds nobody up, and what was found out is written all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from chatbridge import (
    Bridge,
    Chat,
    Finished,
    Message,
    Opaque,
    PartAdded,
    Reply,
    Reset,
    Started,
    StoreError,
    StreamCut,
    StreamEvent,
    Text,
    TextDelta,
    Turn,
    TurnState,
    UsageError,
)
from chatbridge.history import MemoryStore
from chatbridge.history.rows import Hold, Remote
from chatbridge.history.store import to_its_end
from chatbridge.options import CommonOptions
from chatbridge.order import Order
from chatbridge.progress import Progress
from chatbridge.testing.clock import ManualClock
from chatbridge.writing import Writing
from doubles import Double, turns_of_the_loop

T = TypeVar("T")

GRACE, LEAVING, CLOSING = Writing.GRACE, Writing.LEAVING, Writing.CLOSING


class Stalling(MemoryStore):
    """A store that outlasts the process, as it says, and answers no write while it stalls."""

    durable = True
    lease = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.answers.set()
        self.partial: list[str] = []

    async def hold(self, *given: Any, **named: Any) -> Hold:
        return await self._write(super().hold(*given, **named))

    async def release(self, *given: Any, **named: Any) -> bool:
        return await self._write(super().release(*given, **named))

    async def record(self, remote: Remote, turn: Turn, *given: Any, **named: Any) -> Turn:
        done = await self._write(super().record(remote, turn, *given, **named))
        if turn.state is TurnState.ACCEPTED:
            self.partial.append(turn.partial)
        return done

    async def _write(self, work: Coroutine[Any, Any, T]) -> T:
        return await to_its_end(self._late(work))

    async def _late(self, work: Coroutine[Any, Any, T]) -> T:
        await self.answers.wait()
        return await work

    async def states(self, chat: Chat) -> list[TurnState]:
        return [row.turn.state for row in await self.turns(Remote("double", chat.id))]


@pytest.fixture
def store() -> Stalling:
    return Stalling()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
async def chat(store: Stalling, clock: ManualClock, double: Double) -> Chat:
    return await Bridge(double, store=store, clock=clock, options=CommonOptions(timeout=1)).create()


async def settled(clock: ManualClock, seconds: float) -> None:
    """Let *seconds* go by."""
    await turns_of_the_loop()
    clock.advance(seconds)
    await turns_of_the_loop()


# ----------------------------------------------------------------------------------------- cancelling


async def test_c5_who_is_cancelled_before_the_message_left_does_not_wait_for_the_store(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    store.answers.clear()
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    task.cancel()
    await settled(clock, LEAVING)
    assert task.cancelled()

    following = asyncio.create_task(chat.send("Ho"))
    await turns_of_the_loop()
    store.answers.set()
    await following
    assert ["Ho"] == [message.text for _, message, _ in double.sent]
    assert [TurnState.DELIVERED] == await store.states(chat)


async def test_c5_an_intent_that_was_being_written_becomes_not_sent(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    record = store.record

    async def stall(*given: Any, **named: Any) -> Turn:
        store.answers.clear()
        begun.set()
        return await record(*given, **named)

    monkeypatch.setattr(store, "record", stall)
    task = asyncio.create_task(chat.send("Hi"))
    await begun.wait()
    monkeypatch.undo()
    await turns_of_the_loop()
    task.cancel()
    await settled(clock, LEAVING)
    assert task.cancelled()
    assert [] == await store.states(chat)

    store.answers.set()
    await chat.bridge.close()
    assert [] == double.sent
    assert [TurnState.NOT_SENT] == await store.states(chat)


async def test_c5_an_intent_that_was_written_just_before_becomes_not_sent(
    chat: Chat, store: Stalling, double: Double
) -> None:
    writing = chat.bridge.deliveries.writing

    def cancel(_: object) -> None:
        task.cancel()

    task = asyncio.create_task(chat.send("Hi"))
    await asyncio.sleep(0)
    vars(writing)["_last"][chat.id].add_done_callback(cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    await chat.bridge.close()

    assert [] == double.sent
    assert [TurnState.NOT_SENT] == await store.states(chat)


@pytest.mark.parametrize("streamed", [False, True])
async def test_c5_who_is_cancelled_while_the_answer_is_awaited_does_not_wait_for_the_store(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double, streamed: bool
) -> None:
    double.gates["send"] = double.gates["stream"] = asyncio.Event()
    call = chat.stream("Hi").__aenter__() if streamed else chat.send("Hi")
    task = asyncio.ensure_future(call)
    await turns_of_the_loop(40)
    assert 1 == len(double.sent)
    store.answers.clear()
    task.cancel()
    await settled(clock, LEAVING)

    assert task.cancelled()
    assert [TurnState.PENDING] == await store.states(chat)
    store.answers.set()
    await chat.bridge.close()
    assert [TurnState.UNKNOWN] == await store.states(chat)


async def test_c5_an_answer_that_is_being_written_is_though_nobody_waits(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    double.gates["send"] = asyncio.Event()
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop(40)
    store.answers.clear()
    double.gates["send"].set()
    await turns_of_the_loop()
    task.cancel()
    await settled(clock, LEAVING)

    assert task.cancelled()
    store.answers.set()
    await chat.bridge.close()
    assert [TurnState.DELIVERED] == await store.states(chat)


# ------------------------------------------------------------------------------------------ deadlines


async def test_d1_a_message_whose_store_does_not_answer_fails_at_its_deadline(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    store.answers.clear()
    task = asyncio.create_task(chat.send("Hi"))
    await settled(clock, 1 + GRACE)

    with pytest.raises(StoreError, match="until the deadline") as caught:
        await task
    assert ("locked", "not_sent", None) == (caught.value.kind, caught.value.outcome, caught.value.reply)
    store.answers.set()
    await chat.bridge.close()
    assert [] == double.sent
    assert TurnState.PENDING not in await store.states(chat)


@pytest.mark.parametrize("streamed", [False, True])
async def test_d1_an_answer_whose_store_does_not_answer_is_in_the_error_at_the_deadline(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double, streamed: bool
) -> None:
    double.gates["send"] = double.gates["stream"] = asyncio.Event()
    task = asyncio.create_task(read(chat) if streamed else chat.send("Hi"))
    await turns_of_the_loop(40)
    store.answers.clear()
    double.gates["send"].set()
    await turns_of_the_loop(60)
    clock.advance(1 + GRACE)

    with pytest.raises(StoreError, match="the answer is here, and could not be stored") as caught:
        await task
    assert caught.value.reply is not None
    assert ("locked", "ok") == (caught.value.kind, caught.value.outcome)
    store.answers.set()
    await chat.send("Ho")
    assert [TurnState.DELIVERED] * 2 == await store.states(chat)


async def read(chat: Chat) -> Reply:
    async with chat.stream("Hi") as stream:
        async for _ in stream:
            pass
    return stream.reply


async def test_d1_a_failure_whose_store_does_not_answer_is_told_at_the_deadline(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    double.gates["send"] = asyncio.Event()
    double.fails["send"] = StreamCut("cut", kind="cut")
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop(40)
    store.answers.clear()
    double.gates["send"].set()
    await settled(clock, 1 + GRACE)
    await settled(clock, LEAVING)

    with pytest.raises(StreamCut) as caught:
        await task
    assert caught.value.turn is not None
    assert TurnState.ACCEPTED is caught.value.turn.state
    store.answers.set()
    await chat.bridge.close()
    assert [TurnState.ACCEPTED] == await store.states(chat)


# -------------------------------------------------------------------------------------------- closing


async def test_m5_an_answer_that_comes_while_the_bridge_closes_is_stored(
    chat: Chat, store: Stalling, double: Double
) -> None:
    double.gates["send"] = double.gates["close"] = asyncio.Event()
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop(40)
    closing = asyncio.create_task(chat.bridge.close())
    await turns_of_the_loop()
    store.answers.clear()
    double.gates["send"].set()
    await turns_of_the_loop(60)
    assert not closing.done()
    store.answers.set()
    await task
    await closing

    kept = await store.find(Remote("double", chat.id))
    assert kept is not None
    assert [TurnState.DELIVERED] == await store.states(chat)
    assert 0 >= kept.held_for


async def test_m2_a_message_whose_intent_is_written_while_the_bridge_closes_is_not_sent(
    chat: Chat, store: Stalling, double: Double
) -> None:
    store.answers.clear()
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    closing = asyncio.create_task(chat.bridge.close())
    await turns_of_the_loop()
    store.answers.set()

    with pytest.raises(UsageError, match="closed"):
        await task
    await closing
    assert [] == double.sent
    assert [TurnState.NOT_SENT] == await store.states(chat)


async def test_closing_waits_for_a_store_only_so_long(
    chat: Chat, store: Stalling, clock: ManualClock
) -> None:
    store.answers.clear()
    task = asyncio.create_task(chat.send("Hi"))
    await settled(clock, 1 + GRACE)
    with pytest.raises(StoreError):
        await task
    closing = asyncio.create_task(chat.bridge.close())
    await settled(clock, CLOSING)
    await settled(clock, CLOSING + GRACE)

    await asyncio.wait_for(closing, 5)
    store.answers.set()
    await turns_of_the_loop()


# -------------------------------------------------------------------------------------- partial texts


def script(double: Double, *texts: str) -> None:
    reply = Reply([Message.assistant("".join(texts))])
    double.script = [Started("m"), *map(TextDelta, texts), Finished(reply)]


async def test_m7_a_stream_goes_on_while_its_store_does_not_answer(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    script(double, "x" * 5000, "y" * 5000, "z")
    async with chat.stream("Hi") as stream:
        await anext(stream)
        store.answers.clear()
        for _ in range(3):
            assert isinstance(await anext(stream), TextDelta)
        await settled(clock, 0.5)
        store.answers.set()
        async for _ in stream:
            pass

    assert [TurnState.DELIVERED] == await store.states(chat)
    assert not any("z" in partial for partial in store.partial)


async def test_a_stream_whose_end_is_being_written_is_read_by_no_other_task(
    chat: Chat, store: Stalling, double: Double
) -> None:
    double.script = [TextDelta("Ho"), Finished(Reply([Message.assistant("Ho")]))]
    async with chat.stream("Hi") as stream:
        await anext(stream)
        store.answers.clear()
        last = asyncio.create_task(anext(stream))
        await turns_of_the_loop()

        with pytest.raises(UsageError, match="read by one task at a time"):
            await anext(stream)

        store.answers.set()
        assert isinstance(await last, Finished)
        assert [] == [event async for event in stream]
    assert "Ho" == stream.reply.text
    assert [TurnState.DELIVERED] == await store.states(chat)


async def test_m5_what_came_before_a_stream_stalls_is_kept_within_a_second(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    script(double, "one ", "two")
    async with chat.stream("Hi") as stream:
        for _ in range(3):
            await anext(stream)
            await turns_of_the_loop()
        await settled(clock, 0.9)
        assert [""] == store.partial
        await settled(clock, 0.1)
        assert ["", "one two"] == store.partial


def saving(save: Callable[[str], bool]) -> Callable[[str], asyncio.Task[bool]]:
    async def call(text: str) -> bool:
        return save(text)

    return lambda text: asyncio.create_task(call(text))


async def test_m5_a_text_that_is_kept_already_is_not_written_again(
    clock: ManualClock,
) -> None:
    seen, kept = list[StreamEvent](), list[str]()

    def save(text: str) -> bool:
        kept.append(text)
        return True

    progress = Progress(clock, seen, saving(save))
    for event in (
        Started("m"),
        TextDelta("one"),
        TextDelta(""),
        Reset("no"),
        PartAdded(Text("one"), 1),
        PartAdded(Opaque("double", "widget", {}), 2),
    ):
        seen.append(event)
        progress.add(event)
        await settled(clock, 1)

    assert ["", "one", "", "one"] == kept


async def test_m5_what_cannot_be_kept_is_tried_again_ever_later(clock: ManualClock) -> None:
    seen, moments = list[StreamEvent](), list[float]()

    def save(_: str) -> bool:
        moments.append(clock.now() - 1000)
        return len(moments) > 4

    progress = Progress(clock, seen, saving(save))
    for _ in range(20):
        seen.append(TextDelta("x" * 5000))
        progress.add(TextDelta("x" * 5000))
        await settled(clock, 1)

    assert [0, 1, 3, 7, 15, 15, 16, 17, 18, 19] == moments


async def test_m5_nothing_of_a_stream_is_kept_after_its_end(clock: ManualClock) -> None:
    seen, kept = list[StreamEvent](), list[str]()

    def save(text: str) -> bool:
        kept.append(text)
        return True

    progress = Progress(clock, seen, saving(save))
    for text in ("one", "two", "three", "four"):
        seen.append(TextDelta(text))
        progress.add(seen[-1])
        await turns_of_the_loop()
        if text == "two":
            progress.end()
    progress.flush()
    await settled(clock, 2)

    assert ["one"] == kept


async def test_m8_closing_keeps_what_came_of_an_open_stream(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    """Within the second in which nothing is written of it else; and tries no closed store again."""
    script(double, "one ", "two ", "three")
    before = asyncio.all_tasks()
    async with chat.stream("Hi") as stream:
        for _ in range(3):
            await anext(stream)
            await turns_of_the_loop()
        assert [""] == store.partial
        await chat.bridge.close()
        await settled(clock, Progress.LONGEST_PAUSE)
        assert ["", "one two "] == store.partial
        assert before == asyncio.all_tasks()


async def test_m8_closing_writes_nothing_that_is_kept_already(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    script(double, "one")
    async with chat.stream("Hi") as stream:
        await anext(stream)
        await anext(stream)
        await settled(clock, Progress.SECONDS)
        await chat.bridge.close()
        assert ["", "one"] == store.partial


async def test_m8_closing_says_nothing_of_a_stream_of_which_nothing_was_read(
    chat: Chat, store: Stalling, clock: ManualClock, double: Double
) -> None:
    script(double, "one")
    async with chat.stream("Hi") as stream:
        await chat.bridge.close()
        assert [TurnState.UNKNOWN] == await store.states(chat)
        assert Started("m") == await anext(stream)
        await settled(clock, Progress.SECONDS)
        assert [] == store.partial
    assert [TurnState.ACCEPTED] == await store.states(chat)


def test_m8_what_came_of_a_stream_in_a_loop_that_is_closed_is_kept(clock: ManualClock) -> None:
    seen, kept = [TextDelta("one ")], list[str]()

    def save(text: str) -> bool:
        kept.append(text)
        return True

    progress = Progress(clock, seen, saving(save))

    async def begin() -> None:
        for _ in range(2):
            progress.add(seen[0])
            await turns_of_the_loop()
        seen.append(TextDelta("two"))

    async def end() -> None:
        progress.flush()
        await turns_of_the_loop()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    asyncio.run(end())

    assert ["one ", "one two"] == kept


def test_what_was_being_written_in_a_loop_that_is_closed_is_not_waited_for(clock: ManualClock) -> None:
    writing = Writing(clock, Order(clock), durable=True)
    written: list[str] = []

    async def begin() -> asyncio.Task[bool]:
        return writing.begin("a", asyncio.Event().wait)

    async def write() -> None:
        written.append("a")

    async def go_on() -> None:
        await writing.leave("b", write)
        await writing.end()
        await writing.wait("a", write, clock.now() + 1)

    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(begin())
    loop.close()

    asyncio.run(asyncio.wait_for(go_on(), 10))
    assert ["a", "a"] == written
    assert not left.done()
