"""Streams as an application reads them."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    Attachment,
    Bridge,
    Chat,
    ChatbridgeError,
    DeliveryUnknown,
    Feature,
    Finished,
    Message,
    Part,
    PartAdded,
    Progress,
    ProviderFailed,
    Reasoning,
    Reply,
    ReplyStream,
    Reset,
    Role,
    SendOptions,
    Started,
    StreamCut,
    StreamEvent,
    Support,
    Text,
    TextDelta,
    ToolCall,
    Unavailable,
    UsageError,
)
from chatbridge.backend import PartialBackend, Profile
from chatbridge.clock import current_deadline
from chatbridge.errors import DeliveryUnknownTimeout, StreamCutTimeout
from chatbridge.http import Transport
from chatbridge.options import CommonOptions
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.fake import FakeBackend
from chatbridge.turns import TurnState
from doubles import Double, Step, assert_nothing_left, lanes, turns_of_the_loop

REPLY = Reply((Message.assistant("one two"),))
TIMEOUT, IDLE = 10.0, 3.0
SHORT = CommonOptions(timeout=TIMEOUT, idle_timeout=IDLE)


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bridge(double: Double, clock: ManualClock) -> Bridge:
    return Bridge(double, options=SHORT, clock=clock)


@pytest.fixture
async def chat(bridge: Bridge) -> Chat:
    return await bridge.create()


async def read(stream: ReplyStream) -> list[StreamEvent]:
    async with stream:
        return [event async for event in stream]


async def read_text(stream: ReplyStream) -> list[str]:
    async with stream:
        return [piece async for piece in stream.text()]


# ------------------------------------------------------------------------------------- to the end


async def test_entering_sends_and_nothing_before_it_does(double: Double, chat: Chat) -> None:
    stream = chat.stream("Hi")
    await turns_of_the_loop()
    assert [] == double.sent

    async with stream:
        assert ["Hi"] == [message.text for _, message, _ in double.sent]


async def test_the_events_end_with_the_one_that_has_the_reply(chat: Chat) -> None:
    stream = chat.stream("Hi")
    events = await read(stream)

    assert isinstance(events[0], Started)
    assert (
        [Finished(stream.reply)] == [event for event in events if isinstance(event, Finished)] == events[-1:]
    )
    assert stream.reply.text == stream.partial


async def test_the_text_is_that_of_the_reply(chat: Chat) -> None:
    stream = chat.stream("Hi")
    pieces = await read_text(stream)

    assert 2 < len(pieces)
    assert stream.reply.text == "".join(pieces) == "Turn 1: you said 'Hi'."


async def test_the_reply_is_there_only_at_the_end(double: Double, chat: Chat) -> None:
    double.script = [Finished(REPLY)]
    async with chat.stream("Hi") as stream:
        with pytest.raises(UsageError, match="not been read to its end"):
            _ = stream.reply
        assert [Finished(REPLY)] == [event async for event in stream]
        assert [] == [event async for event in stream]

    assert REPLY is stream.reply


async def test_what_could_not_be_honoured_is_said_in_the_reply() -> None:
    chat = await Bridge(Double(options=())).create()
    async with chat.stream("Hi", temperature=0.5) as stream:
        *_, last = [event async for event in stream]

    assert ("double cannot honour temperature, which was left out",) == stream.reply.warnings
    assert Finished(stream.reply) == last


async def test_t4_events_after_the_last_are_ignored(bridge: Bridge, double: Double, chat: Chat) -> None:
    double.script = [TextDelta("one"), Finished(REPLY), TextDelta("more"), Finished(REPLY)]

    assert [TextDelta("one"), Finished(REPLY)] == await read(chat.stream("Hi"))
    assert 1 == double.left
    assert_nothing_left(bridge)


@pytest.mark.parametrize("error", [Unavailable("cannot"), TimeoutError(), None])
async def test_a_backend_that_fails_to_close_does_not_cost_the_answer(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock, error: Exception | None
) -> None:
    """Whether it raises or hangs."""
    if error is None:
        double.gates["leave"] = asyncio.Event()
    else:
        double.fails["leave"] = error
    double.script = [Finished(REPLY)]
    task = asyncio.create_task(read(chat.stream("Hi")))
    await turns_of_the_loop()
    clock.advance(bridge.bounds.CLOSING + bridge.bounds.GRACE)

    assert [Finished(REPLY)] == await task
    assert_nothing_left(bridge)


# --------------------------------------------------------------------------------------- misuse


async def test_a_stream_is_entered_once(double: Double, chat: Chat) -> None:
    stream = chat.stream("Hi")
    async with stream:
        with pytest.raises(UsageError, match="entered once"):
            await stream.__aenter__()
    with pytest.raises(UsageError, match="entered once"):
        await stream.__aenter__()

    assert 1 == len(double.sent)


async def test_a_stream_that_was_not_entered_cannot_be_read(chat: Chat) -> None:
    stream = chat.stream("Hi")

    with pytest.raises(UsageError, match="async with"):
        aiter(stream)
    with pytest.raises(UsageError, match="async with"):
        await anext(stream)
    with pytest.raises(UsageError, match="async with"):
        await anext(aiter(stream.text()))


async def test_two_tasks_cannot_read_one_stream(bridge: Bridge, double: Double, chat: Chat) -> None:
    """The reader is not disturbed."""
    ready = asyncio.Event()
    double.script = [TextDelta("one"), ready, TextDelta(" two"), Finished(REPLY)]
    async with chat.stream("Hi") as stream:
        await anext(stream)
        reader = asyncio.ensure_future(anext(stream))
        await turns_of_the_loop()

        with pytest.raises(UsageError, match="read by one task at a time"):
            await anext(stream)

        ready.set()
        assert TextDelta(" two") == await reader
    assert_nothing_left(bridge)


# ------------------------------------------------------------------------------------ leaving early


async def by_break(stream: ReplyStream) -> None:
    async with stream:
        async for _ in stream:
            break


async def by_break_in_text(stream: ReplyStream) -> None:
    async with stream:
        async for _ in stream.text():
            break


async def by_return(stream: ReplyStream) -> StreamEvent:
    async with stream:
        async for event in stream:
            return event
    raise AssertionError


async def by_error(stream: ReplyStream) -> None:
    async def fail() -> None:
        async with stream:
            async for _ in stream:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def unread(stream: ReplyStream) -> None:
    async with stream:
        pass


@pytest.mark.parametrize("leave", [by_break, by_break_in_text, by_return, by_error, unread])
async def test_c4_leaving_early_closes_the_backends_stream_and_frees_the_turn(
    bridge: Bridge, double: Double, chat: Chat, leave: Callable[[ReplyStream], Awaitable[object]]
) -> None:
    stream = chat.stream("Hi")
    await leave(stream)

    assert 1 == double.left
    assert_nothing_left(bridge)
    with pytest.raises(UsageError, match="no reply"):
        _ = stream.reply
    assert [] == [event async for event in stream]
    await chat.send("next")


async def left_with_a_reader(stream: ReplyStream) -> asyncio.Future[StreamEvent]:
    """Leave *stream* by an error while another task reads it; give that task's next event."""
    readers: list[asyncio.Future[StreamEvent]] = []

    async def fail() -> None:
        async with stream:
            await anext(stream)
            readers.append(asyncio.ensure_future(anext(stream)))
            await turns_of_the_loop()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    return readers[0]


async def test_c4_leaving_a_stream_ends_the_read_of_another_task(
    bridge: Bridge, double: Double, chat: Chat
) -> None:
    """The block's own error comes out; who was reading is told, and is not taken for cancelled."""
    double.script = [TextDelta("one"), asyncio.Event()]
    reader = await left_with_a_reader(chat.stream("Hi"))

    assert 1 == double.left
    assert_nothing_left(bridge)
    with pytest.raises(StreamCut, match="left while it was being read") as caught:
        await reader
    assert "one" == caught.value.partial
    assert isinstance(reader, asyncio.Task)
    assert 0 == reader.cancelling()


async def test_c4_a_read_that_ends_as_the_stream_is_left_hands_nothing_out(
    bridge: Bridge, double: Double, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a backend that goes on when it is cancelled is closed."""

    async def stubborn(*_: object) -> AsyncGenerator[StreamEvent, None]:
        yield TextDelta("one")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield TextDelta("two")
        finally:
            await asyncio.sleep(0)
            double.left += 1

    monkeypatch.setattr(double, "stream", stubborn)
    reader = await left_with_a_reader(chat.stream("Hi"))

    assert 1 == double.left
    assert_nothing_left(bridge)
    with pytest.raises(StreamCut):
        await reader


async def test_c1_a_reader_that_is_cancelled_as_the_stream_is_left_stays_cancelled(
    bridge: Bridge, double: Double, chat: Chat
) -> None:
    double.script = [TextDelta("one"), asyncio.Event()]
    stream = await chat.stream("Hi").__aenter__()
    await anext(stream)
    reader = asyncio.ensure_future(anext(stream))
    await turns_of_the_loop()

    reader.cancel()
    await stream.__aexit__()

    await asyncio.wait([reader])
    assert reader.cancelled()
    assert_nothing_left(bridge)


async def test_a_backend_that_does_not_let_go_keeps_nobody_from_leaving(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn is free once it does."""
    free = asyncio.Event()

    async def deaf(*_: object) -> AsyncGenerator[StreamEvent, None]:
        yield TextDelta("one")
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await free.wait()
        yield Finished(REPLY)

    monkeypatch.setattr(double, "stream", deaf)
    leaver = asyncio.ensure_future(left_with_a_reader(chat.stream("Hi")))
    await turns_of_the_loop(40)
    clock.advance(bridge.bounds.CLOSING + bridge.bounds.GRACE)
    reader = await leaver
    assert {} != lanes(bridge.order)

    free.set()
    with pytest.raises(StreamCut):
        await reader
    assert_nothing_left(bridge)


async def test_what_was_read_before_leaving_is_kept(double: Double, chat: Chat) -> None:
    double.script = [TextDelta("one"), TextDelta(" two"), Finished(REPLY)]
    async with chat.stream("Hi") as stream:
        await anext(stream)

    assert "one" == stream.partial


@pytest.mark.parametrize("native", [True, False])
async def test_a_stream_that_is_dropped_is_warned_of_and_frees_the_turn(native: bool) -> None:
    """Even where warnings are errors; nothing else is heard of it."""
    double = Double(without=() if native else [Feature.STREAM])
    bridge = Bridge(double)
    chat = await bridge.create()
    stream = chat.stream("Hi")
    await stream.__aenter__()
    assert {} != lanes(bridge.order)

    with pytest.warns(ResourceWarning, match="dropped without being left") as caught:
        del stream
    assert 1 == len(caught)
    await turns_of_the_loop()
    assert_nothing_left(bridge)
    (turn,) = await chat.turns()
    assert TurnState.ACCEPTED is turn.state
    gc.collect()
    assert native == (1 == double.left)
    await chat.send("next")


async def test_a_dropped_stream_lets_the_next_message_go(double: Double, chat: Chat) -> None:
    stream = chat.stream("one")
    await stream.__aenter__()
    task = asyncio.create_task(chat.send("two"))
    await turns_of_the_loop()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del stream
    await task
    assert ["one", "two"] == [message.text for _, message, _ in double.sent]


# --------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    "error", [ProviderFailed("overheated", kind="provider"), StreamCut("cut", kind="cut")]
)
async def test_an_error_in_the_middle_carries_what_had_come(
    bridge: Bridge, double: Double, chat: Chat, error: AnswerLost
) -> None:
    double.script = [Started(), TextDelta("one"), error]
    stream = chat.stream(Message(Role.USER, "Hi", id="turn-1"))
    with pytest.raises(type(error)) as caught:
        await read(stream)

    assert error is caught.value
    assert ("one", (Started(), TextDelta("one"))) == (error.partial, error.events)
    assert ("double", chat.id, "turn-1") == (error.provider, error.conversation_id, error.client_id)
    assert "one" == stream.partial
    assert 1 == double.left
    assert None is error.__context__
    assert_nothing_left(bridge)
    await chat.send("next")


async def test_what_an_error_knows_itself_is_kept(double: Double, chat: Chat) -> None:
    error = StreamCut("cut", kind="cut", partial="more", events=[TextDelta("more")], provider="inner")
    double.script = [TextDelta("one"), error]
    with pytest.raises(StreamCut):
        await read(chat.stream("Hi"))

    assert ("more", (TextDelta("more"),), "inner") == (error.partial, error.events, error.provider)


@pytest.mark.parametrize("method", ["stream", "send"])
async def test_an_error_before_the_first_event_is_raised_on_entering(method: str) -> None:
    double = Double(without=[Feature.STREAM] if method == "send" else [])
    double.fails[method] = DeliveryUnknown("lost", kind="lost")
    bridge = Bridge(double)
    chat = await bridge.create()

    with pytest.raises(DeliveryUnknown) as caught:
        await chat.stream(Message(Role.USER, "Hi", id="turn-1")).__aenter__()

    assert ("double", chat.id, "turn-1") == (
        caught.value.provider,
        caught.value.conversation_id,
        caught.value.client_id,
    )
    assert_nothing_left(bridge)


@pytest.mark.parametrize("script", [[], [Started()], [TextDelta("one"), TextDelta(" two")]])
async def test_a_stream_without_its_last_event_is_cut(
    bridge: Bridge, double: Double, chat: Chat, script: list[Step]
) -> None:
    double.script = script
    with pytest.raises(StreamCut, match="without a reply") as caught:
        await read(chat.stream("Hi"))

    assert "".join(event.text for event in script if isinstance(event, TextDelta)) == caught.value.partial
    assert tuple(script) == caught.value.events
    assert "cut" == caught.value.kind
    assert_nothing_left(bridge)


class Abrupt(PartialBackend):
    """Raises where it should give a generator."""

    @property
    def profile(self) -> Profile:
        return Profile("abrupt", {Feature.STREAM: Support.NATIVE})

    def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        del conversation_id, message, options
        raise UsageError("cannot say that")


async def test_a_backend_that_refuses_at_once_frees_the_turn() -> None:
    bridge = Bridge(Abrupt())

    with pytest.raises(UsageError, match="cannot say that"):
        await bridge.open("a").stream("Hi").__aenter__()
    assert_nothing_left(bridge)


async def test_a_programming_error_comes_out_as_it_is(bridge: Bridge, double: Double, chat: Chat) -> None:
    double.script = [Started(), ZeroDivisionError()]

    with pytest.raises(ZeroDivisionError):
        await read(chat.stream("Hi"))
    assert 1 == double.left
    assert_nothing_left(bridge)


# ------------------------------------------------------------------------------------- taking back


async def test_text_stops_where_it_was_taken_back(double: Double, chat: Chat) -> None:
    """The final text and a warning are in the reply; `partial` starts anew."""
    double.script = [TextDelta("wrong"), Reset("filtered"), TextDelta("one two"), Finished(REPLY)]
    stream = chat.stream("Hi")

    assert ["wrong"] == await read_text(stream)
    assert "one two" == stream.reply.text == stream.partial
    assert ("what was shown was taken back: filtered",) == stream.reply.warnings


async def test_a_backend_that_warns_of_its_reset_is_not_repeated(double: Double, chat: Chat) -> None:
    reply = Reply((Message.assistant("one"),), warnings=("filtered",))
    double.script = [TextDelta("wrong"), Reset("filtered"), Finished(reply)]
    stream = chat.stream("Hi")
    await read(stream)

    assert ("filtered",) == stream.reply.warnings


async def test_after_a_reset_an_error_has_only_what_came_since(double: Double, chat: Chat) -> None:
    added = PartAdded(Text("two"), 0)
    double.script = [TextDelta("wrong"), Reset("filtered"), added, StreamCut("cut", kind="cut")]
    with pytest.raises(StreamCut) as caught:
        await read(chat.stream("Hi"))

    assert "two" == caught.value.partial


async def test_a_text_that_comes_whole_is_given_once(double: Double, chat: Chat) -> None:
    """A part that replaces its pieces adds nothing to them."""
    double.script = [
        TextDelta("one", 0),
        PartAdded(Text("one"), 0),
        PartAdded(Text(" two"), 1),
        PartAdded(ToolCall("1", "look", {}), 2),
        Progress("thinking"),
        Finished(REPLY),
    ]
    stream = chat.stream("Hi")

    assert ["one", " two"] == await read_text(stream)
    assert "one two" == stream.partial


# ------------------------------------------------------------------------------------ made up for


def in_pieces(reply: Reply) -> Double:
    double = Double(without=[Feature.STREAM])
    double.reply = reply
    return double


async def test_an_answer_that_cannot_be_streamed_comes_part_by_part() -> None:
    call = ToolCall("1", "look", {})
    reply = Reply(
        (
            Message(Role.ASSISTANT, [Reasoning("hm"), "one", " two"], id="a"),
            Message(Role.TOOL, "not the assistant's"),
            Message(Role.ASSISTANT, [call, ""], id="b"),
            Message(Role.ASSISTANT, ["three", " four"], id="c"),
        ),
        model="m",
    )
    bridge = Bridge(in_pieces(reply))
    assert Support.EMULATED is bridge.profile.support(Feature.STREAM)
    chat = await bridge.create()

    expected = [
        Started("c", "m"),
        PartAdded(Reasoning("hm"), 0),
        TextDelta("one", 1),
        TextDelta(" two", 2),
        PartAdded(call, 3),
        TextDelta("\n\nthree", 5),
        PartAdded(Text("three"), 5),
        TextDelta(" four", 6),
        Finished(reply),
    ]
    assert expected == await read(chat.stream("Hi"))
    assert_nothing_left(bridge)


PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, st.text(max_size=3)),
    st.builds(Reasoning, st.text(max_size=3)),
    st.just(ToolCall("1", "look", {})),
    st.just(Attachment("image/png", url="https://example.com")),
)
MESSAGES = st.builds(Message, st.sampled_from([Role.ASSISTANT, Role.TOOL]), st.lists(PARTS, max_size=4))


@given(st.lists(MESSAGES, max_size=4))
def test_whatever_the_answer_its_pieces_are_its_text(messages: list[Message]) -> None:
    async def check() -> None:
        reply = Reply((*messages, Message.assistant("end")))
        chat = await Bridge(in_pieces(reply)).create()
        stream = chat.stream("Hi")
        assert reply.text == "".join(await read_text(stream))
        assert reply.text == stream.partial
        assert reply is stream.reply

    asyncio.run(check())


# ------------------------------------------------------------------------------------- time limits


async def test_d1_a_stream_that_hangs_before_its_first_event(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock
) -> None:
    """Perhaps it arrived: the first event may take all the time that the call has."""
    double.script = [asyncio.Event()]
    task = asyncio.create_task(read(chat.stream("Hi")))
    await turns_of_the_loop()
    clock.advance(TIMEOUT)
    await turns_of_the_loop()
    assert not task.done()
    clock.advance(bridge.bounds.GRACE)

    with pytest.raises(DeliveryUnknownTimeout) as caught:
        await task
    assert chat.id == caught.value.conversation_id
    assert 1 == double.left
    assert_nothing_left(bridge)


async def test_d3_a_stream_that_falls_silent(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock
) -> None:
    """It arrived, and the answer is partial: between events the idle limit holds."""
    double.script = [TextDelta("one"), asyncio.Event()]
    task = asyncio.create_task(read(chat.stream("Hi")))
    await turns_of_the_loop()
    clock.advance(IDLE)
    await turns_of_the_loop()
    assert not task.done()
    clock.advance(bridge.bounds.GRACE)

    with pytest.raises(StreamCutTimeout, match="stopped coming") as caught:
        await task
    assert ("one", "idle") == (caught.value.partial, caught.value.kind)
    assert 1 == double.left
    assert None is caught.value.__context__
    assert_nothing_left(bridge)


async def test_d3_a_stream_over_the_transport_is_the_transports_to_watch(clock: ManualClock) -> None:
    """It has an idle limit of its own, and counts events that the adapter keeps to itself."""
    double = Double()
    gate = asyncio.Event()
    double.script = [TextDelta("one"), gate, Finished(REPLY)]
    bridge = Bridge(double, options=SHORT, clock=clock, transport=Transport("http://127.0.0.1:1", SHORT))
    stream = (await bridge.create()).stream("Hi")
    task = asyncio.create_task(read(stream))
    await turns_of_the_loop()
    clock.advance(10 * TIMEOUT)
    gate.set()

    await task
    assert REPLY == stream.reply
    await bridge.close()


async def test_d3_the_readers_time_does_not_count(double: Double, chat: Chat, clock: ManualClock) -> None:
    double.script = [TextDelta("one"), TextDelta(" two"), Finished(REPLY)]
    async with chat.stream("Hi") as stream:
        async for _ in stream:
            clock.advance(10 * TIMEOUT)

    assert REPLY is stream.reply


async def test_d3_all_waits_together_have_one_limit(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock
) -> None:
    """Four waits of less than the idle limit are more than the whole call may take."""
    gates = [asyncio.Event() for _ in range(4)]
    double.script = [Started(), *(step for gate in gates for step in (gate, TextDelta("x")))]
    task = asyncio.create_task(read(chat.stream("Hi")))
    for gate in gates:
        await turns_of_the_loop()
        clock.advance(IDLE - 0.1)
        gate.set()
    clock.advance(bridge.bounds.GRACE)

    with pytest.raises(StreamCutTimeout) as caught:
        await task
    assert "xxx" == caught.value.partial


async def test_calls_below_a_stream_share_what_is_left_of_its_time(clock: ManualClock) -> None:
    seen: list[float | None] = []

    class Asked(FakeBackend):
        async def stream(
            self, conversation_id: str, message: Message, options: SendOptions
        ) -> AsyncGenerator[StreamEvent, None]:
            del conversation_id, message, options
            seen.append(current_deadline())
            await clock.sleep(2)
            yield Started()
            seen.append(current_deadline())
            yield Finished(REPLY)

    chat = await Bridge(Asked(), options=SHORT, clock=clock).create()
    start = clock.now()
    async with chat.stream("Hi") as stream:
        clock.advance(100)
        await read_on(stream)
        assert None is current_deadline()

    assert [start + TIMEOUT, start + 100 + TIMEOUT] == seen


async def read_on(stream: ReplyStream) -> None:
    async for _ in stream:
        pass


async def test_waiting_for_the_turn_counts_against_the_stream(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock
) -> None:
    double.script = [asyncio.Event()]
    lane = await bridge.order.take(chat.id, clock.now() + 1)
    task = asyncio.create_task(read(chat.stream("Hi")))
    await turns_of_the_loop()
    clock.advance(TIMEOUT - 1)
    bridge.order.give_back(lane)
    await turns_of_the_loop()
    clock.advance(1 + bridge.bounds.GRACE)

    with pytest.raises(DeliveryUnknownTimeout):
        await task


async def test_c5_a_stream_that_waits_ends_when_the_bridge_is_closed(
    bridge: Bridge, double: Double, chat: Chat, clock: ManualClock
) -> None:
    double.script = [TextDelta("one"), asyncio.Event()]
    task = asyncio.create_task(read(chat.stream("Hi")))
    await turns_of_the_loop()
    closing = asyncio.create_task(bridge.close())
    await turns_of_the_loop()
    clock.advance(bridge.bounds.GRACE)
    await closing

    with pytest.raises(StreamCut, match="the bridge was closed") as caught:
        await task
    assert ("one", False) == (caught.value.partial, caught.value.timed_out)
    assert_nothing_left(bridge)


# ------------------------------------------------------------------------------------- cancellation


async def use(chat: Chat) -> None:
    async with chat.stream("Hi") as stream:
        async for _ in stream:
            await asyncio.sleep(0)


@pytest.mark.parametrize("without", [[], [Feature.STREAM]])
async def test_c1_a_stream_may_be_cancelled_anywhere(without: Sequence[Feature]) -> None:
    """At every wait there is: CancelledError, the backend's stream closed, the turn free."""
    cancelled = 0
    for point in range(200):
        double = Double(without=without)
        bridge = Bridge(double)
        chat = await bridge.create()
        task = asyncio.create_task(use(chat))
        await turns_of_the_loop(point)
        if not task.cancel():
            break
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled += 1
        assert {} == {name: count for name, count in double.under_way.items() if count}
        assert double.calls.count("stream") == double.left
        assert_nothing_left(bridge)
        for turn in await chat.turns():
            assert turn.state in {TurnState.ACCEPTED, TurnState.UNKNOWN, TurnState.DELIVERED}
            await chat.waive(turn)
        assert "next" in (await chat.send("next")).text
    else:
        pytest.fail("the stream never came to its end")

    assert cancelled > 3


async def test_c1_a_limit_of_the_callers_own_works_around_a_stream(
    double: Double, bridge: Bridge, chat: Chat
) -> None:
    double.script = [TextDelta("one"), asyncio.Event()]
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0):
            await use(chat)

    assert not isinstance(caught.value, ChatbridgeError)
    assert_nothing_left(bridge)


async def test_c1_a_stream_works_in_a_task_group(double: Double, bridge: Bridge, chat: Chat) -> None:
    double.script = [TextDelta("one"), asyncio.Event()]

    async def fail() -> None:
        await turns_of_the_loop()
        raise ZeroDivisionError

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(use(chat))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        await both()

    assert [ZeroDivisionError] == [type(error) for error in caught.value.exceptions]
    assert 1 == double.left
    assert_nothing_left(bridge)
