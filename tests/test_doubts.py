"""What must never pass for knowledge: a message in doubt under every circumstance that misled us once."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from typing import Any

import pytest
from attrs import evolve

from chatbridge import (
    AnswerLost,
    Bridge,
    Chat,
    ConfigError,
    DeliveryUnknown,
    Message,
    NotSent,
    Role,
    SendOptions,
    Started,
    TextDelta,
    TurnState,
    UnsettledTurn,
    UsageError,
    connect,
)
from chatbridge.backend import SettleBy
from chatbridge.domain import Reply
from chatbridge.errors import BadOption, ConnectFailed, NotFound, OverloadedTimeout, RateLimited, Unavailable
from chatbridge.history import MemoryStore
from chatbridge.http import Transport
from chatbridge.options import CommonOptions
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.memory import MemoryBackend
from chatbridge.trails import Trails
from doubles import Double, turns_of_the_loop

LOST = DeliveryUnknown("lost", kind="lost")


class Shown(Double):
    """A double whose conversations can be read back."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self._profile = evolve(self._profile, settle_by={SettleBy.READ_BACK}, **changes)

    def keep(self, chat: Chat, *texts: str) -> None:
        """Have messages and answers in the conversation, in turn."""
        roles = (Role.USER, Role.ASSISTANT)
        kept = [Message(roles[number % 2], text) for number, text in enumerate(texts)]
        self._kept[chat.id].messages.extend(kept)

    def prune(self, chat: Chat, count: int) -> None:
        """Forget the first messages of the conversation."""
        del self._kept[chat.id].messages[:count]

    def held(self, chat: Chat) -> list[str]:
        return [each.text for each in self._kept[chat.id].messages if each.role is Role.USER]


def bridge_to(backend: Double, **options: Any) -> Bridge:
    return Bridge(backend, clock=ManualClock(), options=CommonOptions(**options))


async def elsewhere(backend: Double, bridge: Bridge) -> Chat:
    """Open a conversation that the bridge did not create."""
    return bridge.open((await MemoryBackend.create_conversation(backend)).id)


async def in_doubt(chat: Chat, backend: Double, text: str = "Hi", **options: Any) -> DeliveryUnknown:
    backend.fails["send"] = DeliveryUnknown("lost", kind="lost")
    with pytest.raises(DeliveryUnknown) as caught:
        await chat.send(text, **options)
    del backend.fails["send"]
    return caught.value


async def read(chat: Chat, message: str | Message) -> None:
    async with chat.stream(message) as stream:
        async for _ in stream:
            pass


async def test_m3_a_message_that_was_there_when_the_conversation_was_learned_is_not_taken_for_absent() -> (
    None
):
    backend = Shown(absent_after=0.0)
    bridge = bridge_to(backend, settle_timeout=1)
    chat = await elsewhere(backend, bridge)
    backend.fails["messages"] = Unavailable("down")
    error = await in_doubt(chat, backend)
    del backend.fails["messages"]
    backend.keep(chat, "Hi", "Hello")
    assert error.turn is not None
    await chat.waive(error.turn)
    await chat.send("Next")

    assert () == await chat.settle()

    turn, _ = await chat.turns()
    assert (["Hi", "Next"], TurnState.UNKNOWN) == (backend.held(chat), turn.state)


async def test_m3_the_failure_of_a_second_sending_proves_nothing_of_the_first() -> None:
    backend = Shown()
    bridge = bridge_to(backend, settle_timeout=1)
    chat = await bridge.create()
    first = await in_doubt(chat, backend)
    backend.fails["send"] = DeliveryUnknown("500", kind="server_error", from_api=True, status=500)

    with pytest.raises(DeliveryUnknown) as caught:
        await chat.send("Hi", resend=True)

    assert first.turn == caught.value.turn
    assert (TurnState.UNKNOWN, False) == ((await chat.turns())[0].state, caught.value.retryable)


async def test_m3_absence_for_long_enough_proves_it_of_every_sending() -> None:
    backend = Shown(absent_after=12.0)
    bridge = bridge_to(backend, settle_timeout=0)
    chat = await bridge.create()
    await in_doubt(chat, backend)
    await in_doubt(chat, backend, resend=True)
    bridge.clock.advance(13)  # type: ignore[attr-defined]

    (turn,) = await chat.settle(wait=0)

    assert (TurnState.NOT_SENT, 2) == (turn.state, turn.sends)


async def test_m3_a_history_that_lacks_what_was_there_proves_no_absence() -> None:
    backend = Shown(absent_after=0.0)
    chat = await bridge_to(backend, settle_timeout=1).create()
    for _ in range(3):
        await chat.send("Go on")
    backend.keep(chat, "Go on", "The answer")
    backend.prune(chat, 4)

    error = await in_doubt(chat, backend, "Go on")

    assert error.turn is not None
    assert TurnState.UNKNOWN is error.turn.state


@pytest.mark.parametrize("error", [ConnectFailed("no connection"), RateLimited("slow down")])
async def test_s4_a_refused_second_sending_does_not_hide_that_the_first_arrived(error: Exception) -> None:
    backend = Shown()
    chat = await bridge_to(backend, timeout=40).create()
    await in_doubt(chat, backend)
    backend.keep(chat, "Hi")
    backend.fails["send"] = error

    with pytest.raises(AnswerLost, match=f"{error}; but") as caught:
        await chat.send("Hi", resend=True)

    assert not caught.value.retryable
    assert caught.value.turn is not None
    assert TurnState.ACCEPTED is caught.value.turn.state


async def test_c3_a_backend_of_its_own_ways_that_is_cancelled_may_have_sent() -> None:
    class Own(Double):
        async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
            await asyncio.get_running_loop().create_future()
            return await super().send(conversation_id, message, options)

    options = CommonOptions()
    async with Bridge(
        Own(), options=options, transport=Transport("https://x.example:443", options)
    ) as bridge:
        chat = await bridge.create()
        task = asyncio.create_task(chat.send("Hi"))
        await turns_of_the_loop()
        task.cancel()
        await asyncio.wait([task])
        assert [TurnState.UNKNOWN] == [turn.state for turn in await chat.turns()]


async def test_s4_what_fails_after_the_answer_began_does_not_make_the_message_unsent() -> None:
    backend = Double()
    chat = await Bridge(backend).create()
    backend.script = [Started(), TextDelta("Half of"), ConnectFailed("no connection")]

    with pytest.raises(AnswerLost) as caught:
        await read(chat, "Hi")

    turn = caught.value.turn
    assert turn is not None
    assert (TurnState.ACCEPTED, "Half of", "Half of") == (turn.state, turn.partial, caught.value.partial)


async def test_s4_what_fails_after_the_message_was_accepted_does_not_make_it_refused(h2ogpte: Bridge) -> None:
    backend: Any = h2ogpte.backend
    send = backend.send

    async def send_and_look(*given: Any) -> Reply:
        await send(*given)
        await backend.get_conversation("00000000-0000-0000-0000-000000000000")
        raise AssertionError

    chat = await h2ogpte.create()
    backend.send = send_and_look
    with pytest.raises(AnswerLost) as caught:
        await chat.send("Hi")
    assert not isinstance(caught.value, NotFound)
    assert caught.value.turn is not None
    assert TurnState.ACCEPTED is caught.value.turn.state


@pytest.mark.parametrize("second_arrives", [True, False])
async def test_m3_of_equal_texts_no_answer_is_given_to_the_wrong_one(second_arrives: bool) -> None:
    backend = Shown()
    chat = await bridge_to(backend, settle_timeout=0).create()
    first = await in_doubt(chat, backend, "Roll a die")
    assert first.turn is not None
    await chat.waive(first.turn)
    backend.keep(chat, "Roll a die", "One")
    if second_arrives:
        assert "One" != (await chat.send("Roll a die")).text
    else:
        await in_doubt(chat, backend, "Roll a die")
        backend.keep(chat, "Roll a die", "Two")

    settled = await chat.settle(wait=0)

    turns = await chat.turns()
    assert turns[1:][second_arrives:] == settled
    assert (TurnState.ACCEPTED, None) == (turns[0].state, turns[0].reply)
    if not second_arrives:
        assert turns[1].reply is not None
        assert "Two" == turns[1].reply.text


async def test_c5_a_stream_that_is_collected_in_another_thread_gives_its_turn_back() -> None:
    backend = Double()
    bridge = Bridge(backend)
    chat = await bridge.create()

    async def lose() -> None:
        stream = chat.stream("Hi")
        await stream.__aenter__()
        cycle: list[object] = [stream]
        cycle.append(cycle)

    gc.disable()
    try:
        await lose()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await asyncio.to_thread(gc.collect)
    finally:
        gc.enable()
    await turns_of_the_loop()

    assert [TurnState.ACCEPTED] == [turn.state for turn in await chat.turns()]
    assert (await chat.send("Next")).text


async def test_d1_a_history_that_hangs_leaves_the_message_its_time() -> None:
    class Hanging(Shown):
        async def _begin(self, name: str) -> None:
            if name == "messages":
                await clock.sleep(1000)
            await super()._begin(name)

    backend, clock = Hanging(), ManualClock()
    chat = await elsewhere(backend, Bridge(backend, clock=clock, options=CommonOptions(timeout=60)))
    began = clock.now()

    assert (await chat.send("Hi")).text
    assert 25 < clock.now() - began < 35
    assert (await chat.send("Again")).text
    assert clock.now() - began < 35, "what cannot be read is not read at every message"


async def test_a_message_does_not_go_out_after_closing() -> None:
    backend = Shown()
    bridge = bridge_to(backend)
    chat = await elsewhere(backend, bridge)
    backend.gates["messages"] = asyncio.Event()
    sending = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    backend.gates["messages"].set()
    await bridge.close()
    with pytest.raises(UsageError, match="closed"):
        await sending
    assert [] == backend.held(chat)


@pytest.mark.parametrize(("settle_timeout", "absent_after"), [(5.0, 500.0), (5.0, None)])
async def test_looking_for_what_is_not_there_ends_with_its_time(
    settle_timeout: float, absent_after: float | None
) -> None:
    backend = Shown(absent_after=absent_after)
    bridge = bridge_to(backend, settle_timeout=settle_timeout)
    chat = await bridge.create()
    began = bridge.clock.now()
    await in_doubt(chat, backend)
    assert settle_timeout == bridge.clock.now() - began


async def test_settling_waits_no_longer_for_a_message_under_way_than_it_is_told() -> None:
    backend = Shown()
    bridge = bridge_to(backend, settle_timeout=0)
    chat = await bridge.create()
    backend.gates["send"] = asyncio.Event()
    sending = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    with pytest.raises(OverloadedTimeout):
        await chat.settle(wait=0)
    backend.gates["send"].set()
    await sending
    for wait in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UsageError, match="makes no sense"):
            await chat.settle(wait=wait)


async def test_m6_a_second_sending_that_is_not_sent_leaves_the_turn_as_it_was() -> None:
    backend = Shown()
    bridge = bridge_to(backend, settle_timeout=0)
    chat = await bridge.create()
    message = Message(Role.USER, "Hi", id="mine")
    backend.script = [Started(), TextDelta("Half an answer"), AnswerLost("cut", kind="cut")]
    with pytest.raises(AnswerLost):
        await read(chat, message)
    before = await chat.turns()
    assert "Half an answer" == before[0].partial
    bridge.clock.advance(60)  # type: ignore[attr-defined]
    backend.fails["send"] = NotSent("no connection")
    with pytest.raises(AnswerLost):
        await chat.send(message, resend=True)
    assert before == await chat.turns()


async def test_m6_a_doubt_that_was_waived_stays_waived_after_a_sending_in_vain() -> None:
    backend = Shown()
    chat = await bridge_to(backend, settle_timeout=0).create()
    error = await in_doubt(chat, backend)
    assert error.turn is not None
    await chat.waive(error.turn)
    backend.fails["send"] = NotSent("no connection")
    with pytest.raises(DeliveryUnknown):
        await chat.send(error.turn.message, resend=True)
    del backend.fails["send"]
    assert (await chat.send("Next")).text


async def test_m6_a_message_that_is_waived_while_it_is_under_way_blocks_nothing() -> None:
    backend = Shown()
    chat = await bridge_to(backend, settle_timeout=0).create()
    backend.gates["send"], backend.fails["send"] = asyncio.Event(), LOST
    sending = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    await chat.waive((await chat.turns())[0])
    backend.gates["send"].set()
    with pytest.raises(DeliveryUnknown):
        await sending
    backend.fails.clear()
    assert (await chat.send("Next")).text


async def test_m6_looking_ends_soon_after_the_doubt_is_waived() -> None:
    backend = Shown()
    bridge = bridge_to(backend, settle_timeout=0)
    chat = await bridge.create()
    error = await in_doubt(chat, backend)
    assert error.turn is not None
    settling = asyncio.create_task(chat.settle(wait=600))
    await turns_of_the_loop(30)
    await chat.waive(error.turn)
    (turn,) = await settling
    assert turn.waived
    assert sum(bridge.clock.slept) < 600  # type: ignore[attr-defined]


async def test_m6_a_second_sending_that_is_cancelled_before_anything_left_waives_nothing() -> None:
    backend = Shown()
    bridge = bridge_to(backend, settle_timeout=1)
    chat = await elsewhere(backend, bridge)
    backend.fails["messages"] = Unavailable("down")
    await in_doubt(chat, backend)
    del backend.fails["messages"]
    backend.gates["messages"] = asyncio.Event()
    sending = asyncio.create_task(chat.send("Other", resend=True))
    await turns_of_the_loop()
    sending.cancel()
    await asyncio.wait([sending])
    backend.gates.clear()
    with pytest.raises(UnsettledTurn):
        await chat.send("Next")


async def test_what_is_not_a_turn_cannot_be_waived() -> None:
    chat = await bridge_to(Shown()).create()
    for turn in ("an id", None):
        with pytest.raises(UsageError, match="waive takes a turn"):
            await chat.waive(turn)  # type: ignore[arg-type]


async def test_doubts_of_deleted_conversations_are_not_kept_for_ever() -> None:
    backend, store = Shown(), MemoryStore(turns=5)
    options = CommonOptions(settle_timeout=0)
    bridge = Bridge(backend, clock=ManualClock(), options=options, store=store)
    for _ in range(20):
        chat = await bridge.create()
        await in_doubt(chat, backend)
        await chat.delete()
    assert 5 == len(await store.turns())


async def test_a_conversation_in_use_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trails, "KNOWN", 1)
    backend = Shown()
    bridge = bridge_to(backend, settle_timeout=3)
    chat = await bridge.create()
    backend.gates["send"], backend.fails["send"] = asyncio.Event(), LOST
    sending = asyncio.create_task(chat.send("Hi"))
    await turns_of_the_loop()
    await bridge.create()
    backend.keep(chat, "Hi", "Yes")
    backend.gates["send"].set()
    assert "Yes" == (await sending).text


async def test_e2_a_history_with_half_a_character_is_no_obstacle() -> None:
    backend = Shown()
    bridge = bridge_to(backend)
    chat = await elsewhere(backend, bridge)
    backend.keep(chat, "\ud83d", "What?")
    assert (await chat.send("Hi")).text


async def test_x5_ids_cannot_forge_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    backend = Double()
    backend.fails["send"] = LOST
    with caplog.at_level(logging.WARNING), pytest.raises(DeliveryUnknown):
        await Bridge(backend).open("x\nERROR root: \x1b[31m").send(Message(Role.USER, "Hi", id="y\nz"))
    assert r"x\nERROR root: \x1b[31m" in caplog.text
    assert r"y\nz" in caplog.text


async def hook(_: object) -> None:
    raise AssertionError


class Hook:
    async def __call__(self, _: object) -> None:
        raise AssertionError


@pytest.mark.parametrize("name", ["on_turn", "on_attempt"])
@pytest.mark.parametrize("given", [hook, Hook(), 3])
@pytest.mark.parametrize("url", ["fake:", "h2ogpte://h.example"])
def test_a_hook_that_could_never_run_is_refused(name: str, given: Any, url: str) -> None:
    options: dict[str, Any] = {"key": "k"} if url != "fake:" else {}
    with pytest.raises(ConfigError, match=f"{name} takes a plain function"):
        connect(url, **{name: given}, **options)


async def test_c2_a_hook_that_cancels_leaves_nothing_pending() -> None:
    def cancelling(_: object) -> None:
        raise asyncio.CancelledError

    chat = await Bridge(Double(), on_turn=cancelling).create()
    with pytest.raises(asyncio.CancelledError):
        await chat.send("Hi")
    assert [TurnState.NOT_SENT] == [turn.state for turn in await chat.turns()]


async def test_a_stream_that_ends_in_doubt_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    backend = Double()
    chat = await Bridge(backend).create()
    backend.script = [Started(), LOST]
    with caplog.at_level(logging.WARNING), pytest.raises(DeliveryUnknown):
        await read(chat, "Hi")
    assert ["chatbridge.turns"] == [record.name for record in caplog.records]


def test_absent_after_is_refused_where_nothing_can_be_read_back() -> None:
    with pytest.raises(BadOption, match=r"absent_after.*would have no effect"):
        connect("kaziro:", key="k", absent_after=5)
