"""How far a message had come when nobody waited any more (C1 to C3), at real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from chatbridge import Bridge, Chat, TurnState, connect
from chatbridge.delivery import Delivery
from chatbridge.errors import Outcome
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, Fault, serve
from chatbridge.turns import Turn
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator
from chatbridge_adapters.tachyon.emulator import TachyonEmulator
from fault_server import FaultServer, FixedResolver, Script, Step, SteppingClock, answer, chunked, settle

KEY = "sk-Zq83hF/x+71kd"
READ, STALL = Step.READ, Step.STALL
EVENT = b'{"body": "Half of", "finished": false}\n'


@asynccontextmanager
async def chat_over(*scripts: Script, **options: Any) -> AsyncGenerator[tuple[Chat, FaultServer]]:
    """Give a chat of h2oGPTe over a server that plays *scripts*."""
    async with FaultServer(scripts) as server:
        given: dict[str, Any] = {"key": KEY, "settle_timeout": 0, "clock": SteppingClock(), **options}
        async with connect(f"h2ogpte+{server.url}", **given) as bridge:
            yield bridge.open("c"), server


async def sent(chat: Chat) -> None:
    await chat.send("Hi")


async def streamed(chat: Chat) -> None:
    async with chat.stream("Hi") as stream:
        async for _ in stream:
            pass


both = pytest.mark.parametrize("asked", [sent, streamed])


async def cancelled(chat: Chat, asked: Any, when: Callable[[], bool]) -> Turn:
    """Cancel a message once *when* holds, and give what is recorded of it."""
    task = asyncio.create_task(asked(chat))
    for _ in range(10_000):
        if when():
            break
        await asyncio.sleep(0)
    else:
        pytest.fail("it never came so far")
    await settle()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    (turn,) = await chat.turns()
    return turn


@both
async def test_c3_a_message_that_was_cancelled_while_connecting_was_not_sent(asked: Any) -> None:
    async with chat_over((READ, STALL)) as (chat, server):
        transport = cast(Any, chat.bridge)._transport
        transport.base_url = server.url.replace("127.0.0.1", "acme.test")
        for fresh in (True, False):
            transport._session(fresh=fresh).connector._resolver = FixedResolver(None)
        waits = transport.clock.waits
        turn = await cancelled(chat, asked, lambda: bool(waits(transport.options.connect_timeout)))
    assert TurnState.NOT_SENT is turn.state
    assert 0 == server.begun


@both
async def test_c3_a_message_that_was_cancelled_in_the_queue_was_not_sent(asked: Any) -> None:
    async with chat_over((READ, STALL), concurrency=1) as (chat, server):
        other = asyncio.create_task(chat.bridge.open("d").refresh())
        await server.reached.wait()
        turn = await cancelled(chat, asked, lambda: True)
        other.cancel()
        await asyncio.wait([other])
    assert TurnState.NOT_SENT is turn.state
    assert 1 == len(server.requests)


@both
async def test_c3_a_message_that_was_cancelled_before_an_answer_is_in_doubt(asked: Any) -> None:
    async with chat_over((READ, STALL)) as (chat, server):
        turn = await cancelled(chat, asked, server.reached.is_set)
        await server.left.wait()
    assert TurnState.UNKNOWN is turn.state


@both
@pytest.mark.parametrize(
    "rest", [answer(b'{"body": "Hi"}')[:-1], chunked(EVENT, last=b"")[:-20], chunked(b"\n", last=b"")]
)
async def test_c3_a_message_that_was_cancelled_after_a_good_head_is_accepted(asked: Any, rest: bytes) -> None:
    async with chat_over((READ, rest, STALL)) as (chat, server):
        turn = await cancelled(chat, asked, server.reached.is_set)
        await server.left.wait()
    assert (TurnState.ACCEPTED, "") == (turn.state, turn.partial)


@both
async def test_c3_a_message_that_was_cancelled_while_a_refusal_was_read_is_refused(asked: Any) -> None:
    async with chat_over((READ, answer(b"", "400 No", "A: b")[:-4], STALL)) as (chat, server):
        turn = await cancelled(chat, asked, server.reached.is_set)
    assert TurnState.UNKNOWN is turn.state, "a head that is not whole says nothing"
    async with chat_over((READ, answer(b"{}", "400 No")[:-1], STALL)) as (chat, server):
        turn = await cancelled(chat, asked, server.reached.is_set)
    assert TurnState.REFUSED is turn.state


class Pausing(SteppingClock):
    """A clock whose sleeps last until a test is done with them."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeping = False

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.sleeping = True
        await asyncio.Event().wait()


@both
async def test_c1_a_message_that_was_cancelled_between_two_attempts_is_as_the_first_left_it(
    asked: Any,
) -> None:
    clock = Pausing()
    async with chat_over((READ, answer(b"{}", "429 Slow")), clock=clock) as (chat, server):
        turn = await cancelled(chat, asked, lambda: clock.sleeping)
    assert TurnState.REFUSED is turn.state
    assert 1 == len(server.requests)


async def test_c3_a_stream_that_was_cancelled_keeps_what_was_shown() -> None:
    events = chunked(EVENT, last=b"")
    async with chat_over((READ, events, STALL)) as (chat, server):
        turn = await cancelled(chat, streamed, server.reached.is_set)
        await server.left.wait()
    assert (TurnState.ACCEPTED, "Half of") == (turn.state, turn.partial)


@pytest.mark.parametrize("before", list(Outcome))
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_doubt_is_removed_by_proof_of_arrival_only(before: Outcome, outcome: Outcome) -> None:
    delivery = Delivery()
    delivery.note(outcome, before)
    kept = before is Outcome.ACCEPTED or (before is Outcome.UNKNOWN and outcome is not Outcome.ACCEPTED)
    assert (before if kept else outcome) is delivery.outcome


EMULATORS: list[type[Emulator]] = [
    KaziroEmulator, DatamonkeyEmulator, TachyonEmulator, H2OGPTeEmulator, MtmaiEmulator,
]  # fmt: skip


@asynccontextmanager
async def bridge_to(make: type[Emulator]) -> AsyncGenerator[tuple[Bridge, Emulator]]:
    emulator = make()
    options: dict[str, Any] = {"key": emulator.key, "clock": ManualClock()}
    async with serve(emulator) as served, connect(served.config, **options) as bridge:
        yield bridge, emulator


@pytest.mark.parametrize("make", EMULATORS, ids=lambda make: str(make.name))
@both
async def test_c1_cancelled_at_any_moment_it_is_cancelled_and_nothing_stays_pending(
    make: type[Emulator], asked: Any
) -> None:
    """Ten of the fifty moments that the long test draws; wherever it was, the conversation goes on."""
    dice = random.Random(f"{make.name} {asked.__name__}")
    async with bridge_to(make) as (bridge, emulator):
        chat = await bridge.create()
        for _ in range(10):
            if dice.random() < 0.3:
                emulator.fail(Fault(hold=asyncio.Event()))
            task = asyncio.create_task(asked(chat))
            for _ in range(dice.randrange(60)):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            emulator.faults.clear()
            for turn in await chat.turns():
                assert TurnState.PENDING is not turn.state
                await chat.waive(turn)
        await chat.send("It goes on")
        assert [] == [task for task in asyncio.all_tasks() if "attempt" in str(task.get_coro())]
