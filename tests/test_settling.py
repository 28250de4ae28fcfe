"""A message in doubt is looked for in the conversation, and never sent (M3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    AnswerWarning,
    Bridge,
    Chat,
    DeliveryUnknown,
    Message,
    NotSent,
    ProviderFailed,
    Role,
    SendOptions,
    StreamCut,
    ToolCall,
    ToolResult,
    Turn,
    TurnState,
    UnsettledTurn,
    connect,
    search,
    settling,
)
from chatbridge.backend import SettleBy
from chatbridge.book import Book
from chatbridge.domain import Reply
from chatbridge.errors import AnswerLostTimeout, AuthFailed, BadAnswer, Outcome, Unavailable
from chatbridge.history.ledger import Ledger
from chatbridge.options import CommonOptions
from chatbridge.settling import History, Seen, Trail, find, fingerprint
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, serve
from chatbridge.testing.faults import Fault
from chatbridge.testing.memory import MemoryBackend
from chatbridge.trails import Trails
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.tachyon.emulator import TachyonEmulator
from doubles import Double, turns_of_the_loop

HOUR = 3600.0


class Clock(ManualClock):
    """A clock that stands still but for sleeping, and on which things happen."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[tuple[float, Callable[[], object]]] = []

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Do *action* once *seconds* have passed."""
        self.due.append((self.now() + seconds, action))

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        for entry in list(self.due):
            if entry[0] <= self.now():
                self.due.remove(entry)
                entry[1]()
                await asyncio.sleep(0.01)  # What it set going runs in the server.


class Line:
    """A bridge to an emulator."""

    def __init__(self, emulator: Emulator, bridge: Bridge, clock: Clock) -> None:
        self.emulator, self.bridge, self.clock = emulator, bridge, clock

    def fail(self, **fault: Any) -> Fault:
        self.emulator.calls.clear()
        return self.emulator.fail(Fault(**fault))

    @property
    def sent(self) -> int:
        """How many requests went out that are no reads."""
        return sum(call.method != "GET" for call in self.emulator.calls)

    @property
    def looks(self) -> int:
        return sum(call.method == "GET" for call in self.emulator.calls)


APIS: dict[str, tuple[type[Emulator], dict[str, Any]]] = {
    "h2ogpte": (H2OGPTeEmulator, {}),
    "datamonkey": (DatamonkeyEmulator, {}),
    "tachyon": (TachyonEmulator, {}),
    "tachyon_agent": (TachyonEmulator, {"mode": "agent"}),
}


@pytest.fixture(params=list(APIS))
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def open_line(api: str) -> Any:
    async with AsyncExitStack() as stack:

        async def open_line(emulator: Emulator | None = None, **options: Any) -> Line:
            make, settings = APIS[api]
            emulator = make() if emulator is None else emulator
            clock = Clock()
            served = await stack.enter_async_context(serve(emulator))
            given: dict[str, Any] = {"key": emulator.key, **settings, **options}
            bridge = await stack.enter_async_context(connect(served.config, clock=clock, **given))
            return Line(emulator, bridge, clock)

        yield open_line


@pytest.fixture
async def line(open_line: Any) -> Line:
    made: Line = await open_line()
    return made


async def sent(chat: Chat, text: str, **options: Any) -> Reply:
    return await chat.send(text, **options)


async def streamed(chat: Chat, text: str, **options: Any) -> Reply:
    async with chat.stream(text, **options) as stream:
        shown = "".join([piece async for piece in stream.text()])
    assert stream.reply.text == shown
    return stream.reply


async def said(chat: Chat) -> list[str]:
    return [message.text async for message in chat.messages() if message.role is Role.USER]


both = pytest.mark.parametrize("asked", [sent, streamed])


@both
async def test_an_answer_that_was_lost_is_found_and_the_message_sent_once(line: Line, asked: Any) -> None:
    chat = await line.bridge.create()
    before = await asked(chat, "First")
    line.fail(drop="after")

    reply = await asked(chat, "Second")

    assert not before.recovered
    assert reply.recovered
    assert "'Second'" in reply.text
    assert 1 == line.sent
    assert line.looks <= 2  # Of some APIs an empty page tells the end.
    assert ["First", "Second"] == await said(chat)
    assert [TurnState.DELIVERED] * 2 == [turn.state for turn in await chat.turns()]
    assert reply == (await chat.turns())[1].reply


@both
async def test_an_answer_that_cannot_be_read_is_found(line: Line, asked: Any) -> None:
    chat = await line.bridge.create()
    line.fail(status=200, body=b"{", kept="turn")

    assert "'Hello'" in (await asked(chat, "Hello")).text
    assert 1 == line.sent


@both
@pytest.mark.parametrize("seconds", [0.2, 3.0, 20.0])
async def test_an_api_that_is_still_at_work_is_waited_for(line: Line, asked: Any, seconds: float) -> None:
    chat = await line.bridge.create()
    await asked(chat, "First")
    fault = line.fail(drop="during", hold=asyncio.Event())
    assert fault.hold is not None
    line.clock.at(seconds, fault.hold.set)

    reply = await asked(chat, "Second")

    assert reply.recovered
    assert "'Second'" in reply.text
    assert 1 == line.sent
    assert seconds <= sum(line.clock.slept) <= 2 * seconds + 0.25


@both
async def test_what_does_not_come_stays_in_doubt_and_can_be_settled_later(line: Line, asked: Any) -> None:
    chat = await line.bridge.create()
    fault = line.fail(drop="during", hold=asyncio.Event())
    assert fault.hold is not None

    with pytest.raises(DeliveryUnknown) as caught:
        await asked(chat, "Hello")
    assert (1, TurnState.UNKNOWN) == (line.sent, caught.value.turn and caught.value.turn.state)
    assert 30 == sum(line.clock.slept)
    with pytest.raises(UnsettledTurn):
        await asked(chat, "Next")

    (turn,) = await chat.settle(wait=0)
    assert TurnState.UNKNOWN is turn.state
    fault.hold.set()
    await asyncio.sleep(0.01)
    (turn,) = await chat.settle()
    assert TurnState.DELIVERED is turn.state
    assert turn.reply is not None
    assert "'Hello'" in turn.reply.text
    assert () == await chat.settle()
    await asked(chat, "Next")
    assert ["Hello", "Next"] == await said(chat)


@both
async def test_absence_proves_nothing_unless_the_user_knows_their_server(open_line: Any, asked: Any) -> None:
    line = await open_line(absent_after=12.0)
    assert 12.0 == line.bridge.profile.absent_after
    chat = await line.bridge.create()
    line.fail(drop="before")

    with pytest.raises(NotSent, match="not in the conversation") as caught:
        await asked(chat, "Hello")

    assert (Outcome.NOT_SENT, True) == (caught.value.outcome, caught.value.retryable)
    assert TurnState.NOT_SENT is (await chat.turns())[0].state
    assert 12.0 == pytest.approx(sum(line.clock.slept))
    assert 1 == line.sent
    await asked(chat, "Hello")
    assert ["Hello"] == await said(chat)


@both
async def test_settling_by_hand_proves_absence_too(open_line: Any, asked: Any) -> None:
    line = await open_line(absent_after=HOUR, settle_timeout=0)
    chat = await line.bridge.create()
    line.fail(drop="before")
    with pytest.raises(DeliveryUnknown):
        await asked(chat, "Hello")
    assert 0 == line.looks

    (turn,) = await chat.settle()
    assert TurnState.UNKNOWN is turn.state
    line.clock.advance(HOUR - 1)
    (turn,) = await chat.settle()
    assert TurnState.UNKNOWN is turn.state
    (turn,) = await chat.settle(wait=1)
    assert TurnState.NOT_SENT is turn.state
    await asked(chat, "Next")


@both
async def test_the_api_s_own_failure_and_absence_prove_that_it_is_not_there(line: Line, asked: Any) -> None:
    chat = await line.bridge.create()
    line.fail(status=500, error="The model failed")

    with pytest.raises(NotSent, match="not in the conversation") as caught:
        await asked(chat, "Hello")

    assert 500 == caught.value.status
    assert caught.value.from_api
    assert [] == line.clock.slept
    assert 1 == line.sent


@both
@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_failure_of_a_gateway_proves_nothing(line: Line, asked: Any, status: int) -> None:
    chat = await line.bridge.create()
    line.fail(status=status)

    with pytest.raises(DeliveryUnknown):
        await asked(chat, "Hello")
    assert 1 == line.sent


@both
async def test_a_page_of_a_gateway_proves_nothing(line: Line, asked: Any) -> None:
    chat = await line.bridge.create()
    line.fail(status=500, body=b"<html>oops</html>", headers={"Content-Type": "text/html"})

    with pytest.raises(DeliveryUnknown):
        await asked(chat, "Hello")


@both
@pytest.mark.parametrize("kept", ["nothing", "turn"])
async def test_of_two_equal_texts_in_a_row_the_second_is_not_taken_for_the_first(
    open_line: Any, asked: Any, kept: Any
) -> None:
    line = await open_line(absent_after=0)
    chat = await line.bridge.create()
    await asked(chat, "Go on")
    line.fail(drop="after", kept=kept)

    if kept == "turn":
        reply = await asked(chat, "Go on")
        assert reply.recovered
        assert 2 == len(await said(chat))
    else:
        with pytest.raises(NotSent):
            await asked(chat, "Go on")
        assert 1 == len(await said(chat))
        await asked(chat, "Go on")
        assert 2 == len(await said(chat))


@both
@pytest.mark.parametrize("kept", ["nothing", "turn"])
async def test_an_equal_text_from_before_this_program_is_not_taken_for_it(
    open_line: Any, asked: Any, kept: Any
) -> None:
    emulator = (await open_line()).emulator
    earlier, line = await open_line(emulator), await open_line(emulator, absent_after=0)
    old = await earlier.bridge.create()
    await asked(old, "Go on")
    chat = line.bridge.open(old.id)
    await chat.send("Hello")  # Before which the conversation was read.
    line.fail(drop="after", kept=kept)

    if kept == "turn":
        assert (await asked(chat, "Go on")).recovered
    else:
        with pytest.raises(NotSent):
            await asked(chat, "Go on")


@both
async def test_what_another_writer_says_meanwhile_is_not_taken_for_it(open_line: Any, asked: Any) -> None:
    emulator = (await open_line()).emulator
    other, line = await open_line(emulator), await open_line(emulator, absent_after=5)
    chat = await line.bridge.create()
    await asked(chat, "Mine")
    theirs = other.bridge.open(chat.id)
    await theirs.send("Theirs")
    await asked(chat, "Mine again")
    fault = line.fail(drop="during", hold=asyncio.Event())
    assert fault.hold is not None
    line.clock.at(3, lambda: writing.append(asyncio.ensure_future(theirs.send("Theirs again"))))
    line.clock.at(3.5, fault.hold.set)
    writing: list[asyncio.Future[Reply]] = []

    reply = await asked(chat, "Mine at last")

    assert "'Mine at last'" in reply.text
    await asyncio.gather(*writing)
    line.fail(drop="before")
    with pytest.raises(NotSent):
        await asked(chat, "Mine once more")
    expected = ["Mine", "Theirs", "Mine again", "Theirs again", "Mine at last"]
    assert sorted(expected) == sorted(await said(chat))


@both
async def test_where_another_writer_says_the_same_nothing_is_claimed(open_line: Any, asked: Any) -> None:
    emulator = (await open_line()).emulator
    other, line = await open_line(emulator), await open_line(emulator, absent_after=0)
    chat = await line.bridge.create()
    await other.bridge.open(chat.id).send("Hello")
    await other.bridge.open(chat.id).send("Hello")
    line.fail(drop="after")

    with pytest.raises(DeliveryUnknown):
        await asked(chat, "Hello")
    (turn,) = await chat.settle(wait=0)
    assert TurnState.UNKNOWN is turn.state


@both
@pytest.mark.parametrize("kept", ["nothing", "turn"])
async def test_the_end_of_a_page_hides_nothing(open_line: Any, asked: Any, kept: Any) -> None:
    """The message is behind as many others as a page holds, and one less and more."""
    line = await open_line(absent_after=0)
    chat = await line.bridge.create()
    for number in range(49):
        await chat.send(f"number {number}")
    for number in range(3):
        line.fail(drop="after", kept=kept)
        if kept == "turn":
            assert f"'last {number}'" in (await asked(chat, f"last {number}")).text
        else:
            with pytest.raises(NotSent):
                await asked(chat, f"last {number}")
            await chat.send("more")
    assert 52 == len(await said(chat))


@both
@pytest.mark.parametrize("minutes", [-90, 90])
async def test_a_server_whose_clock_is_wrong_misleads_nobody(
    open_line: Any, api: str, asked: Any, minutes: int
) -> None:
    make, _ = APIS[api]
    wrong = datetime.now(UTC) + timedelta(minutes=minutes)
    line = await open_line(make(now=lambda: wrong), absent_after=0)
    chat = await line.bridge.create()
    await asked(chat, "Go on")
    line.fail(drop="after")
    assert (await asked(chat, "Go on")).recovered
    line.fail(drop="before")
    with pytest.raises(NotSent):
        await asked(chat, "Go on")


@both
async def test_a_conversation_made_elsewhere_is_read_once_before_the_first_message(
    open_line: Any, asked: Any
) -> None:
    emulator = (await open_line()).emulator
    other, line = await open_line(emulator), await open_line(emulator)
    chat = line.bridge.open((await other.bridge.create()).id)
    emulator.calls.clear()

    await asked(chat, "One")
    assert (1, True) == (line.sent, 1 <= line.looks <= 2)
    looks = line.looks
    await asked(line.bridge.open(chat.id), "Two")
    assert (2, looks) == (line.sent, line.looks)

    lazy = await open_line(emulator, settle_timeout=0)
    emulator.calls.clear()
    await asked(lazy.bridge.open(chat.id), "Three")
    assert (1, 0) == (lazy.sent, lazy.looks)


async def test_h2ogpte_s_message_without_an_answer_is_accepted_and_not_waited_for() -> None:
    """After a failed completion the question is kept alone, with its error."""
    emulator, clock = H2OGPTeEmulator(), Clock()
    async with serve(emulator) as served, connect(served.config, key=emulator.key, clock=clock) as bridge:
        chat = await bridge.create()
        emulator.fail(Fault(status=500, error="The model failed", kept="question"))
        with pytest.raises(ProviderFailed, match="in the conversation, without an answer") as caught:
            await chat.send("Hello")
        assert TurnState.ACCEPTED is (await chat.turns())[0].state
        assert Outcome.ACCEPTED is caught.value.outcome
        assert [] == clock.slept

        emulator.fail(Fault(drop="after", kept="question"))
        with pytest.raises(AnswerLostTimeout):
            await chat.send("Hello again")
        await chat.send("It goes on")


async def test_a_question_that_datamonkey_kept_alone_after_its_own_failure_is_not_waited_for() -> None:
    """As when the answer could not be saved."""
    emulator, clock = DatamonkeyEmulator(), Clock()
    async with serve(emulator) as served, connect(served.config, key=emulator.key, clock=clock) as bridge:
        chat = await bridge.create()
        emulator.fail(Fault(status=500, error="Failed to save response", kept="question"))
        with pytest.raises(ProviderFailed, match="without an answer"):
            await chat.send("Hello")
    assert [] == clock.slept


class Slow(Double):
    """A backend that can be read back, and whose answers come when a test lets them."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self._profile = evolve(self._profile, settle_by={SettleBy.READ_BACK}, **changes)

    def keep(self, chat: Chat, *messages: Message) -> None:
        self._kept[chat.id].messages.extend(messages)


LOST = DeliveryUnknown("the connection was lost", kind="lost")
QUESTION, ANSWER = Message(Role.USER, "Hi", id="q"), Message(Role.ASSISTANT, "Hello", id="a")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@both
@pytest.mark.parametrize("seconds", [0.1, 10.0, 100.0])
async def test_the_answer_to_a_message_that_is_there_is_waited_for(
    clock: Clock, asked: Any, seconds: float
) -> None:
    """Within the deadline, however long the looking for what is not there may last."""
    slow = Slow()
    chat = await Bridge(slow, clock=clock).create()
    slow.fails, slow.script = {"send": LOST}, [LOST]
    slow.keep(chat, QUESTION)
    clock.at(seconds, lambda: slow.keep(chat, ANSWER))

    reply = await asked(chat, "Hi")

    assert ("Hello", True) == (reply.text, reply.recovered)
    assert sum(clock.slept) >= seconds


@both
async def test_an_answer_that_never_comes_is_lost_in_the_end(clock: Clock, asked: Any) -> None:
    slow = Slow()
    bridge = Bridge(slow, clock=clock, options=CommonOptions(timeout=50))
    chat = await bridge.create()
    slow.fails, slow.script = {"send": LOST}, [LOST]
    slow.keep(chat, QUESTION)

    with pytest.raises(AnswerLostTimeout, match="did not come in time") as caught:
        await asked(chat, "Hi")

    assert (Outcome.ACCEPTED, "idle") == (caught.value.outcome, caught.value.kind)
    assert 40 < sum(clock.slept) <= 50
    slow.fails, slow.script = {}, None
    await asked(chat, "It goes on, as nothing is in doubt")


@both
async def test_an_answer_that_may_be_another_s_is_not_claimed_nor_waited_for(
    clock: Clock, asked: Any
) -> None:
    slow = Slow()
    chat = await Bridge(slow, clock=clock).create()
    slow.fails, slow.script = {"send": LOST}, [LOST]
    slow.keep(chat, Message(Role.USER, "Theirs"), QUESTION, ANSWER)

    with pytest.raises(AnswerLost, match="cannot be told from others") as caught:
        await asked(chat, "Hi")
    assert [] == clock.slept
    assert TurnState.ACCEPTED is (caught.value.turn and caught.value.turn.state)


@both
async def test_a_failure_to_read_is_not_the_end_of_looking(clock: Clock, asked: Any) -> None:
    slow = Slow()
    chat = await Bridge(slow, clock=clock).create()
    slow.fails = {"send": LOST, "messages": Unavailable("down")}
    slow.script = [LOST]
    slow.keep(chat, QUESTION, ANSWER)
    clock.at(7, lambda: slow.fails.pop("messages"))

    assert "Hello" == (await asked(chat, "Hi")).text


@pytest.mark.parametrize("count", [1, 40])
async def test_one_look_costs_the_same_for_each_of_many_messages(
    clock: Clock, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, the turns are read once, and each text is named a few times."""
    slow = Slow()
    bridge = Bridge(slow, clock=clock)
    chat = await bridge.create()
    for number in range(count):
        turn = turn_of(f"{number}", number, state=TurnState.ACCEPTED, baseline=(0, 0))
        slow.keep(chat, turn.message, ANSWER)
        await bridge.deliveries.ledger.record(evolve(turn, conversation_id=chat.id))
    bridge = Bridge(slow, clock=clock, store=bridge.store)
    read, named, all_turns = list[str](), list[Message](), Ledger.turns

    async def turns(self: Ledger, conversation_id: str) -> Sequence[Turn]:
        read.append(conversation_id)
        return await all_turns(self, conversation_id)

    def name(message: Message) -> bytes:
        named.append(message)
        return fingerprint(message)

    monkeypatch.setattr(Ledger, "turns", turns)
    monkeypatch.setattr(search, "fingerprint", name)
    monkeypatch.setattr(settling, "fingerprint", name)
    settled = await bridge.open(chat.id).settle(wait=0)

    assert [TurnState.DELIVERED] * count == [turn.state for turn in settled]
    assert [chat.id] == read
    assert len(named) <= 8 * count


@both
async def test_where_the_conversation_cannot_be_read_the_first_error_stands(clock: Clock, asked: Any) -> None:
    slow = Slow()
    chat = await Bridge(slow, clock=clock).create()
    slow.fails, slow.script = {"send": LOST, "messages": AuthFailed("no")}, [LOST]

    with pytest.raises(DeliveryUnknown):
        await asked(chat, "Hi")
    assert [] == clock.slept
    with pytest.raises(AuthFailed) as caught:
        await chat.settle()
    assert chat.id == caught.value.conversation_id
    assert caught.value.turn is not None
    assert TurnState.UNKNOWN is caught.value.turn.state


@both
async def test_a_history_with_warnings_that_are_errors_is_one_that_cannot_be_read(
    clock: Clock, asked: Any
) -> None:
    slow = Slow()
    made = await MemoryBackend.create_conversation(slow)
    chat = Bridge(slow, clock=clock).open(made.id)
    slow.fails["messages"] = AnswerWarning("halves of characters")
    await asked(chat, "Hello")
    slow.fails["send"], slow.script = LOST, [LOST]

    with pytest.raises(DeliveryUnknown) as caught:
        await asked(chat, "Hi")
    assert TurnState.UNKNOWN is (caught.value.turn and caught.value.turn.state)
    with pytest.raises(BadAnswer, match="halves"):
        await chat.settle(wait=0)


@both
async def test_what_is_noted_on_an_error_stays_with_the_better_one(clock: Clock, asked: Any) -> None:
    slow = Slow(absent_after=0.0)
    chat = await Bridge(slow, clock=clock).create()
    lost = DeliveryUnknown("the connection was lost", kind="lost")
    lost.add_note("the new token is not saved")
    slow.fails, slow.script = {"send": lost}, [lost]
    with pytest.raises(NotSent) as caught:
        await asked(chat, "Hi")
    assert ["the new token is not saved"] == caught.value.__notes__


async def test_what_is_in_doubt_counts_when_a_conversation_is_read_anew(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be taken for the next message of the same text, should it come late."""
    monkeypatch.setattr(Trails, "KNOWN", 1)
    slow = Slow()
    bridge = Bridge(slow, clock=clock)
    chat = await bridge.create()
    slow.fails = {"send": LOST}
    with pytest.raises(DeliveryUnknown) as caught:
        await chat.send("Hi")
    assert caught.value.turn is not None
    await chat.waive(caught.value.turn)
    await bridge.create()  # Which lets the first be forgotten.

    task = asyncio.create_task(chat.send("Hi"))
    slow.keep(chat, QUESTION, ANSWER)
    with pytest.raises(DeliveryUnknown):
        await task


async def test_a_message_whose_end_is_forgotten_is_given_its_time_anew(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Book, "KNOWN", 1)
    slow = Slow(absent_after=60.0)
    bridge = Bridge(slow, clock=clock, options=CommonOptions(settle_timeout=0, absent_after=60.0))
    chats = [await bridge.create() for _ in range(2)]
    slow.fails = {"send": LOST}
    for chat in chats:
        with pytest.raises(DeliveryUnknown):
            await chat.send("Hi")
    clock.advance(61)
    states = [(await chat.settle(wait=0))[0].state for chat in chats]
    assert [TurnState.UNKNOWN, TurnState.NOT_SENT] == states
    clock.advance(61)
    assert TurnState.NOT_SENT is (await chats[0].settle(wait=0))[0].state


async def test_a_stream_that_is_cancelled_before_it_begins_leaves_no_turn(clock: Clock) -> None:
    slow = Slow()
    chat = Bridge(slow, clock=clock).open((await MemoryBackend.create_conversation(slow)).id)
    slow.gates["messages"] = asyncio.Event()
    task = asyncio.create_task(chat.stream("Hi").__aenter__())
    await turns_of_the_loop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert () == await chat.turns()
    slow.gates["messages"].set()
    await chat.send("It goes on")


async def test_c5_a_bridge_that_closes_records_the_streams_that_were_dropped_before(clock: Clock) -> None:
    slow = Slow()
    bridge = Bridge(slow, clock=clock)
    chat = await bridge.create()
    stream = chat.stream("Hi")
    await stream.__aenter__()
    with pytest.warns(ResourceWarning):
        del stream
    await bridge.close()
    assert [TurnState.ACCEPTED] == [turn.state for turn in await chat.turns()]


async def test_a_stream_that_broke_off_is_settled_by_hand(clock: Clock) -> None:
    slow = Slow()
    chat = await Bridge(slow, clock=clock).create()
    slow.script = [StreamCut("it broke off", kind="cut", partial="Hel")]
    slow.keep(chat, QUESTION, ANSWER)
    async with chat.stream("Hi") as stream:
        assert "Hello" == "".join([piece async for piece in stream.text()])
    assert stream.reply.recovered


async def test_a_failure_that_the_api_reports_inside_its_answer_is_raised_at_once(clock: Clock) -> None:
    slow = Slow()
    chat = await Bridge(slow, clock=clock).create()
    slow.fails = {"send": ProviderFailed("no credit", kind="provider", from_api=True)}

    with pytest.raises(ProviderFailed):
        await chat.send("Hi")
    assert "messages" not in slow.calls
    (turn,) = await chat.settle()
    assert TurnState.NOT_SENT is turn.state


async def test_one_who_is_cancelled_while_looking_leaves_the_turn_in_doubt(clock: Clock) -> None:
    slow = Slow()
    bridge = Bridge(slow, clock=clock)
    chat = await bridge.create()
    slow.fails = {"send": LOST}
    slow.gates["messages"] = asyncio.Event()
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    assert "messages" in slow.calls
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [TurnState.UNKNOWN] == [turn.state for turn in await chat.turns()]
    stream = chat.stream("Hi", resend=True)
    slow.script, slow.calls = [LOST], []
    entering = asyncio.create_task(stream.__aenter__())
    await turns_of_the_loop()
    assert "messages" in slow.calls
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert [TurnState.UNKNOWN] == [turn.state for turn in await chat.turns()]


class Dozing(Clock):
    """A clock whose sleeps last until the test ends them."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.Event().wait()


async def test_c5_closing_ends_the_pause_between_two_looks() -> None:
    slow, clock = Slow(), Dozing()
    bridge = Bridge(slow, clock=clock)
    chat = await bridge.create()
    slow.fails = {"send": LOST}
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    assert [0.25] == clock.slept

    await bridge.close()
    with pytest.raises(DeliveryUnknown):
        await task
    assert 1 == slow.calls.count("messages")


async def test_what_was_waived_is_looked_for_once(clock: Clock) -> None:
    slow = Slow()
    chat = await Bridge(slow, clock=clock, options=CommonOptions(settle_timeout=0)).create()
    slow.fails = {"send": LOST}
    with pytest.raises(DeliveryUnknown) as caught:
        await chat.send("Hi")
    assert caught.value.turn is not None
    await chat.waive(caught.value.turn)

    assert () == await chat.settle(wait=30)
    (turn,) = await chat.turns()
    assert (TurnState.UNKNOWN, True, []) == (turn.state, turn.waived, clock.slept)
    slow.keep(chat, QUESTION, ANSWER)
    assert () == await chat.settle()
    (turn,) = await chat.turns()
    assert TurnState.DELIVERED is turn.state


async def test_conversations_that_were_not_spoken_in_for_long_are_read_anew(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trails, "KNOWN", 2)
    slow = Slow()
    bridge = Bridge(slow, clock=clock)
    first, second, third = [await bridge.create() for _ in range(3)]
    slow.calls = []
    for chat in (second, third, second, first, second):
        await chat.send("Hi")
    assert ["send", "send", "send", "messages", "send", "send"] == slow.calls
    await third.send("Hi")
    assert 2 == slow.calls.count("messages")


async def test_a_closed_bridge_does_not_look(clock: Clock) -> None:
    slow = Slow()
    bridge = Bridge(slow, clock=clock)
    chat = await bridge.create()
    slow.gates["send"] = asyncio.Event()
    task = asyncio.create_task(chat.send("Hi"))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(bridge.close())
    await asyncio.sleep(0.01)
    clock.advance(1)
    with pytest.raises(DeliveryUnknown):
        await task
    await closing
    assert "messages" not in slow.calls
    assert [TurnState.UNKNOWN] == [turn.state for turn in await chat.turns()]


async def test_m3_a_message_to_a_long_conversation_that_was_made_elsewhere_is_told_from_older_ones(
    clock: Clock,
) -> None:
    slow = Slow(absent_after=0.0)
    chat = Bridge(slow, clock=clock).open((await MemoryBackend.create_conversation(slow)).id)
    for _ in range(1200):
        slow.keep(chat, QUESTION, ANSWER)
    slow.fails = {"send": LOST}

    with pytest.raises(NotSent) as caught:
        await chat.send("Hi")

    assert caught.value.turn is not None
    assert (1200, 0) == caught.value.turn.baseline


@pytest.mark.parametrize(
    ("problem", "reads", "state"),
    [
        (AuthFailed("no"), 1, TurnState.UNKNOWN),
        (BadAnswer("no JSON"), 1, TurnState.UNKNOWN),
        (Unavailable("down"), 2, TurnState.NOT_SENT),
    ],
    ids=["denied", "unreadable", "down"],
)
async def test_where_a_conversation_is_not_known_an_equal_text_may_be_an_old_one(
    clock: Clock,
    problem: Exception,
    reads: int,
    state: TurnState,
) -> None:
    """It cannot be read, which may pass; of a text that is nowhere there is no doubt."""
    slow = Slow(absent_after=0.0)
    chat = Bridge(slow, clock=clock).open((await MemoryBackend.create_conversation(slow)).id)
    slow.keep(chat, QUESTION, ANSWER)
    slow.fails["messages"] = problem
    await chat.send("Hello")
    slow.fails = {"send": LOST}

    with pytest.raises((DeliveryUnknown, NotSent)) as caught:
        await chat.send("Hi")

    before = slow.calls[: [place for place, call in enumerate(slow.calls) if call == "send"][1]]
    assert reads == before.count("messages")
    assert caught.value.turn is not None
    assert state is caught.value.turn.state
    with pytest.raises(NotSent):
        await chat.send("Never said before", resend=True)


# The rule by which a message is told from others of the same text

TEXTS = st.sampled_from(["a", "b"])


def turn_of(text: str, number: int, **changes: Any) -> Turn:
    return Turn(str(number), "c", Message(Role.USER, text), datetime.now(UTC), **changes)


def history_of(texts: Sequence[str]) -> list[Message]:
    messages: list[Message] = []
    for number, text in enumerate(texts):
        messages.append(Message(Role.USER, text, id=str(number)))
        messages.append(Message(Role.ASSISTANT, f"answer {number}"))
    return messages


@given(st.lists(TEXTS), st.lists(st.tuples(TEXTS, st.booleans(), st.booleans())), TEXTS, st.booleans())
def test_no_message_is_found_that_is_not_there_or_missed_that_is(
    before: list[str], turns: list[tuple[str, bool, bool]], text: str, arrived: bool
) -> None:
    """
    Whatever was said before.

    Of each earlier turn it is drawn whether it arrived, and whether that is known; so of a message in doubt
    it may be unclear, but never wrong.
    """
    there = list(before)
    trail = Trail.of(history_of(before))
    for number, (each, came, known) in enumerate(turns):
        pending = turn_of(each, number)
        trail.record(pending, None)
        state = {True: TurnState.DELIVERED, False: TurnState.NOT_SENT}[came] if known else TurnState.UNKNOWN
        trail.record(evolve(pending, state=state), pending)
        there += [each] * came
    turn = turn_of(text, len(turns))
    trail.record(turn, None)
    there += [text] * arrived

    found = find(turn, History(history_of(there)), trail)

    doubts = any(each == text and not known for each, _, known in turns)
    if found.seen is Seen.UNCLEAR:
        assert doubts
    elif found.seen is Seen.ABSENT:
        assert not arrived
    else:
        assert Seen.ANSWERED is found.seen
        assert arrived
        assert found.reply is not None
        assert f"answer {len(there) - 1}" == found.reply.text
    if not doubts:
        assert arrived == (found.seen is Seen.ANSWERED)


@pytest.mark.parametrize(
    ("sent_text", "stored"),
    [
        (" blank  around\n", "blank around"),
        ("e\u0301t\u00e9", "\u00e9te\u0301"),
        ("nul\0led", "nulled"),
        ("", ""),
    ],
)
def test_a_text_that_the_server_tidied_up_is_still_found(sent_text: str, stored: str) -> None:
    turn = turn_of(sent_text, 1)
    trail = Trail()
    trail.record(turn, None)
    assert Seen.ANSWERED is find(turn, History(history_of([stored])), trail).seen


def test_an_answer_is_linked_or_follows_and_is_nobody_else_s() -> None:
    def found(*history: Message) -> Any:
        turn = turn_of("Hi", 1)
        trail = Trail()
        trail.record(turn, None)
        return find(turn, History(history), trail)

    ours, theirs = Message(Role.USER, "Hi", id="1"), Message(Role.USER, "Yo", id="2")
    to_ours = Message(Role.ASSISTANT, "to ours", reply_to="1")
    to_theirs = Message(Role.ASSISTANT, "to theirs", reply_to="2")
    bare = Message(Role.ASSISTANT, "bare")
    assert "to ours" == found(ours, theirs, to_theirs, to_ours).reply.text
    assert Seen.ALONE is found(theirs, ours, to_theirs).seen
    assert Seen.ALONE is found(ours, to_theirs).seen
    assert "bare" == found(bare, ours, bare, theirs, to_theirs).reply.text
    assert Seen.MIXED is found(theirs, ours, bare).seen
    assert Seen.ALONE is found(theirs, ours).seen
    assert Seen.ALONE is found(ours, theirs, bare).seen
    tool = Message(Role.TOOL, "42")
    assert (tool, bare) == found(ours, tool, bare).reply.messages
    assert Seen.ALONE is found(ours, tool).seen
    assert Seen.FAILED is found(evolve(ours, extra={"error": "no"})).seen
    assert Seen.UNCLEAR is find(turn_of("Hi", 1), History([ours]), None).seen


@pytest.mark.parametrize("arrived", [False, True])
def test_another_result_of_the_same_call_is_not_taken_for_an_earlier_one(arrived: bool) -> None:
    call = Message(Role.ASSISTANT, (ToolCall("c", "f", {}),))
    first = [QUESTION, call, Message(Role.TOOL, (ToolResult("c", "one"),)), Message(Role.ASSISTANT, "done")]
    again = Message(Role.TOOL, (ToolResult("c", "two"),))
    trail = Trail.of(first)
    turn = evolve(turn_of("", 1), message=again, baseline=trail.baseline(again))
    trail.record(turn, None)

    then = [*first, again, Message(Role.ASSISTANT, "better")] if arrived else first
    for known in (trail, Trail.recalled(turn, ())):
        found = find(turn, History(then), known)
        assert (Seen.ANSWERED if arrived else Seen.ABSENT) is found.seen
        assert ("better" if arrived else None) == (found.reply and found.reply.text)


async def test_the_options_of_a_message_do_not_matter_to_settling(clock: Clock) -> None:
    slow = Slow()
    chat = await Bridge(slow, clock=clock).create()
    slow.fails = {"send": LOST}
    slow.keep(chat, QUESTION, ANSWER)
    reply = await chat.send("Hi", SendOptions(temperature=0.5))
    assert reply.recovered


async def test_an_answer_that_was_lost_may_stay_lost(clock: Clock) -> None:
    slow = Slow()
    chat = await Bridge(slow, clock=clock).create()
    slow.fails = {"send": AnswerLost("it cannot be read", kind="json")}
    with pytest.raises(AnswerLost, match="it cannot be read"):
        await chat.send("Hi")
    assert 30 == sum(clock.slept)
    (turn,) = await chat.turns()
    assert TurnState.ACCEPTED is turn.state
