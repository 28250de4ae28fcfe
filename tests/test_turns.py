"""Turns: what is recorded of each message, what blocks the next, and the caller's word on it (M1, M4, M6)."""

from __future__ import annotations

import asyncio
import logging
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve

from chatbridge import (
    Bridge,
    Chat,
    DeliveryUnknown,
    Feature,
    Finished,
    Message,
    Role,
    Started,
    StreamCut,
    TextDelta,
    Turn,
    TurnState,
    UnsettledTurn,
    UnsupportedFeature,
    UsageError,
)
from chatbridge.errors import NotSent, RateLimited
from chatbridge.history import MemoryStore
from chatbridge.history.ledger import Ledger
from chatbridge.testing.clock import ManualClock
from chatbridge.turns import TurnEvent
from doubles import Double, assert_nothing_left, turns_of_the_loop

LOST = DeliveryUnknown("the connection was lost", kind="lost")
STARTED_AT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


class Watch:
    """Notes the states that turns go through."""

    def __init__(self) -> None:
        self.events: list[TurnEvent] = []

    def __call__(self, event: TurnEvent) -> None:
        self.events.append(event)

    @property
    def states(self) -> list[str]:
        return [event.turn.state.value for event in self.events]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def bridge(double: Double, watch: Watch) -> Bridge:
    return Bridge(double, clock=ManualClock(), on_turn=watch)


@pytest.fixture
async def chat(bridge: Bridge) -> Chat:
    return await bridge.create()


async def read(chat: Chat, text: str | Message = "Hi", **options: Any) -> None:
    async with chat.stream(text, **options) as stream:
        async for _ in stream:
            pass


async def send(chat: Chat, text: str | Message = "Hi", **options: Any) -> None:
    await chat.send(text, **options)


def fail(double: Double, error: BaseException) -> None:
    double.fails = {"send": error}
    double.script = [error]


def mend(double: Double) -> None:
    double.fails = {}
    double.script = None


async def doubtful(chat: Chat, double: Double, asked: Any = send, text: str = "Hi") -> Turn:
    """Send a message that stays in doubt."""
    fail(double, LOST)
    with pytest.raises(DeliveryUnknown) as caught:
        await asked(chat, text)
    mend(double)
    assert caught.value.turn is not None
    return caught.value.turn


both = pytest.mark.parametrize("asked", [send, read])


@both
async def test_m1_a_turn_is_pending_before_the_backend_is_asked_and_then_delivered(
    chat: Chat, double: Double, watch: Watch, asked: Any
) -> None:
    double.gates = {"send": asyncio.Event(), "stream": asyncio.Event()}
    task = asyncio.create_task(asked(chat))
    await turns_of_the_loop()
    (turn,) = await chat.turns()
    assert (TurnState.PENDING, "Hi", chat.id) == (turn.state, turn.message.text, turn.conversation_id)
    assert turn.id == turn.message.id
    assert STARTED_AT == turn.started_at

    for gate in double.gates.values():
        gate.set()
    await task

    assert (evolve(turn, state=TurnState.DELIVERED),) == await chat.turns()
    assert turn.id == double.sent[0][1].id
    assert ["pending", "delivered"] == watch.states
    assert [None, TurnState.PENDING] == [event.before for event in watch.events]
    assert {"double"} == {event.provider for event in watch.events}


@both
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (LOST, TurnState.UNKNOWN),
        (RateLimited("slow down"), TurnState.REFUSED),
        (NotSent("no connection"), TurnState.NOT_SENT),
        (UsageError("no such thing"), TurnState.NOT_SENT),
        (StreamCut("it broke off", kind="cut", partial="So f"), TurnState.ACCEPTED),
        (ValueError("a bug of the backend"), TurnState.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_turn_says_what_its_error_says(
    chat: Chat, double: Double, asked: Any, error: Exception, state: TurnState
) -> None:
    fail(double, error)
    with pytest.raises(type(error)) as caught:
        await asked(chat)

    (turn,) = await chat.turns()
    assert state is turn.state
    assert ("So f" if state is TurnState.ACCEPTED else "") == turn.partial
    if not isinstance(error, ValueError):
        assert turn == caught.value.turn  # type: ignore[attr-defined]
        assert turn == pickle.loads(pickle.dumps(caught.value)).turn
        assert turn.id == caught.value.client_id  # type: ignore[attr-defined]


async def test_a_stream_that_breaks_off_keeps_what_was_shown(chat: Chat, double: Double) -> None:
    double.script = [Started(), TextDelta("Half of "), TextDelta("it"), LOST]
    with pytest.raises(DeliveryUnknown):
        await read(chat)
    double.script = [Started(), TextDelta("Half of "), TextDelta("it")]
    with pytest.raises(StreamCut) as caught:
        await read(chat, resend=True)

    assert caught.value.turn is not None
    assert (TurnState.ACCEPTED, "Half of it") == (caught.value.turn.state, caught.value.turn.partial)


@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_a_stream_that_is_left_early_is_accepted_with_what_was_shown(chat: Chat, pieces: int) -> None:
    async with chat.stream("Hi") as stream:
        shown = ""
        async for piece in stream.text():
            if not pieces:
                break
            shown, pieces = shown + piece, pieces - 1

    (turn,) = await chat.turns()
    assert TurnState.ACCEPTED is turn.state
    assert turn.partial.startswith(shown)
    assert "" != (await chat.send("Next")).text


async def test_c3_a_cancelled_send_of_a_backend_that_tells_nothing_is_in_doubt(
    chat: Chat, double: Double, watch: Watch
) -> None:
    double.gates["send"] = asyncio.Event()
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ["pending", "unknown"] == watch.states


@both
@pytest.mark.parametrize("then", [send, read])
async def test_m6_a_message_in_doubt_blocks_the_next_until_it_is_waived(
    bridge: Bridge, chat: Chat, double: Double, asked: Any, then: Any
) -> None:
    turn = await doubtful(chat, double, asked)
    sent = len(double.sent)

    with pytest.raises(UnsettledTurn, match=rf"{turn.id} .*settle|waive|resend") as caught:
        await then(bridge.open(chat.id), "Next")
    assert turn == caught.value.turn
    assert chat.id == caught.value.conversation_id
    assert sent == len(double.sent)
    other = await bridge.create()
    await then(other)

    waived = await chat.waive(turn)
    assert (True, TurnState.UNKNOWN) == (waived.waived, waived.state)
    assert waived == await chat.waive(turn)
    await then(chat, "Next")
    assert ["Next"] == [message.text for _, message, _ in double.sent[sent + 1 :]]
    assert [turn.id] == [each.id for each in await chat.turns() if each.waived]
    assert_nothing_left(bridge)


@both
async def test_m4_resend_sends_the_same_message_again_under_its_id(
    chat: Chat, double: Double, asked: Any
) -> None:
    turn = await doubtful(chat, double, asked)

    await asked(chat, "Hi", resend=True)

    assert [turn.id, turn.id] == [message.id for _, message, _ in double.sent]
    (known,) = await chat.turns()
    assert (turn.id, TurnState.DELIVERED, 2) == (known.id, known.state, known.sends)


@both
@pytest.mark.parametrize("error", [RateLimited("slow down"), NotSent("no connection")])
async def test_a_resend_that_does_not_arrive_leaves_the_doubt_about_the_first(
    chat: Chat, double: Double, asked: Any, error: Exception
) -> None:
    turn = await doubtful(chat, double, asked)
    fail(double, error)
    with pytest.raises(DeliveryUnknown, match=f"{error}; but an earlier attempt") as caught:
        await asked(chat, "Hi", resend=True)
    mend(double)

    assert [turn] == list(await chat.turns())
    assert (turn, False) == (caught.value.turn, caught.value.retryable)
    with pytest.raises(UnsettledTurn):
        await asked(chat, "Next")


async def test_a_delivered_message_stays_delivered_when_it_cannot_be_sent_again(
    chat: Chat, double: Double
) -> None:
    message = Message(Role.USER, "Hi", id="mine")
    await chat.send(message)
    fail(double, RateLimited("slow down"))
    with pytest.raises(RateLimited):
        await chat.send(message, resend=True)

    (turn,) = await chat.turns()
    assert (TurnState.DELIVERED, 1) == (turn.state, turn.sends)


async def test_resend_of_another_message_waives_what_is_in_doubt(chat: Chat, double: Double) -> None:
    turn = await doubtful(chat, double)

    await chat.send("Something else", resend=True)

    first, second = await chat.turns()
    assert (turn.id, TurnState.UNKNOWN, True) == (first.id, first.state, first.waived)
    assert (TurnState.DELIVERED, 1) == (second.state, second.sends)
    assert second.id != turn.id


@pytest.mark.parametrize("state", ["delivered", "accepted"])
async def test_a_message_that_went_out_goes_out_again_only_if_told_so(
    chat: Chat, double: Double, state: str
) -> None:
    message = Message(Role.USER, "Hi", id="mine")
    if state == "accepted":
        double.script = [Started(), TextDelta("H")]
        with pytest.raises(StreamCut):
            await read(chat, message)
        mend(double)
    else:
        await chat.send(message)

    with pytest.raises(UsageError, match=f"mine was sent before and is {state}") as caught:
        await chat.send(message)
    assert caught.value.turn is not None
    assert 1 == len(double.sent)
    await chat.send(message, resend=True)
    assert 2 == len(double.sent)


@pytest.mark.parametrize("error", [RateLimited("slow down"), NotSent("no connection")])
async def test_a_message_that_did_not_arrive_may_be_sent_again(
    chat: Chat, double: Double, error: Exception
) -> None:
    message = Message(Role.USER, "Hi", id="mine")
    fail(double, error)
    with pytest.raises(type(error)):
        await chat.send(message)
    mend(double)

    await chat.send(message)

    (turn,) = await chat.turns()
    assert (TurnState.DELIVERED, 1) == (turn.state, turn.sends)


async def test_only_a_turn_of_the_conversation_can_be_waived(
    bridge: Bridge, chat: Chat, double: Double
) -> None:
    turn = await doubtful(chat, double)
    other = await bridge.create()

    with pytest.raises(UsageError, match="has no turn"):
        await other.waive(turn)
    delivered = (await other.send("Hi"), (await other.turns())[0])[1]
    assert delivered == await other.waive(delivered)


async def test_m3_what_cannot_be_read_back_says_so(chat: Chat, double: Double) -> None:
    await doubtful(chat, double)
    with pytest.raises(UnsupportedFeature, match=r"settling.*waive"):
        await chat.settle()
    assert Feature.HISTORY in {feature for feature in Feature if double.profile.can(feature)}


async def test_one_line_at_warning_for_a_message_in_doubt_and_none_of_its_text(
    chat: Chat, double: Double, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "chatbridge")
    turn = await doubtful(chat, double, text="It is a secret")

    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "chatbridge.turns" == record.name
    assert f"double: whether message {turn.id} arrived in conversation {chat.id}" in record.getMessage()
    assert "secret" not in caplog.text


async def test_a_message_that_nobody_waited_for_is_warned_of_too(
    chat: Chat, double: Double, caplog: pytest.LogCaptureFixture
) -> None:
    double.gates["send"] = asyncio.Event()
    task = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    task.cancel()
    await asyncio.wait([task])
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "nobody waited" in record.getMessage()


async def test_a_hook_that_fails_costs_no_message(double: Double, caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: TurnEvent) -> None:
        raise RuntimeError(event.turn.message.text)

    chat = await Bridge(double, on_turn=broken).create()
    await chat.send("It is a secret")

    assert ["ERROR", "ERROR"] == [record.levelname for record in caplog.records]
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_the_ledger_forgets_the_oldest_of_what_blocks_nothing() -> None:
    def turn(number: int, state: TurnState) -> Turn:
        return Turn(str(number), f"c{number % 2}", Message.user("Hi"), STARTED_AT, state)

    ledger = Ledger(MemoryStore(turns=3), "double")
    states = [TurnState.UNKNOWN, TurnState.ACCEPTED, *[TurnState.DELIVERED] * 4]
    turns = [turn(number, state) for number, state in enumerate(states)]
    for each in turns:
        await ledger.hold(each.conversation_id)
        await ledger.record(evolve(each, state=TurnState.PENDING))
        await ledger.record(each)

    assert (turns[0], turns[4]) == await ledger.turns("c0")
    assert (turns[3], turns[5]) == await ledger.turns("c1")
    assert (turns[0],) == await ledger.unsettled("c0")
    assert () == await ledger.unsettled("c1")
    assert None is await ledger.find("c1", "1")
    assert turns[5] == await ledger.find("c1", "5")
    await ledger.record(evolve(turns[0], waived=True))
    assert (turns[0].id, turns[4].id) == tuple(each.id for each in await ledger.turns("c0"))
    assert (turns[5],) == await ledger.turns("c1")


async def test_finished_is_the_moment_of_delivery(chat: Chat, watch: Watch) -> None:
    async with chat.stream("Hi") as stream:
        async for event in stream:
            delivered = "delivered" in watch.states
            assert isinstance(event, Finished) == delivered
    assert ["pending", "delivered"] == watch.states
