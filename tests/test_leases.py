"""Several bridges and processes with one store: one message at a time, no word lost (M2, M4, M6)."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from chatbridge import (
    Bridge,
    Chat,
    DeliveryUnknown,
    Message,
    Role,
    StoreError,
    Turn,
    TurnState,
    UnsettledTurn,
    UsageError,
)
from chatbridge.backend import SettleBy
from chatbridge.errors import OverloadedTimeout, Phase, RateLimited
from chatbridge.history import SQLiteStore, holders
from chatbridge.history.holders import is_gone, new_holder
from chatbridge.history.ledger import Ledger
from chatbridge.history.rows import Change, Hold, Remote, StoredConversation
from chatbridge.options import CommonOptions
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from doubles import Double, turns_of_the_loop

LOST = DeliveryUnknown("lost", kind="lost")


class Still(ManualClock):
    """A clock that does not move on by itself: who waits tries again as soon as others had their turn."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Shared(SQLiteStore):
    """
    One process's store on the file.

    Attributes:
        meanwhile: What another process does between this one's reading and its next writing.
        before: A text, and what another process does before a turn with it is written.
        between: What it does between this one's reading turns and its reading whether they are under way.
    """

    meanwhile: Callable[[], Awaitable[object]] | None = None
    before: tuple[str, Callable[[], Awaitable[object]]] | None = None
    between: Callable[[], Awaitable[object]] | None = None

    async def _commit(self, change: Change) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super()._commit(change)

    async def record(self, remote: Remote, turn: Turn, *given: Any, **named: Any) -> Turn:
        if self.before is not None and turn.message.text == self.before[0]:
            (_, act), self.before = self.before, None
            await act()
        return await super().record(remote, turn, *given, **named)

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        between, self.between = self.between, None
        if between is not None:
            await between()
        return await super()._find(which)

    def _connect(self, patience: float) -> sqlite3.Connection:
        connection = super()._connect(patience)
        connection.execute("PRAGMA synchronous = OFF")  # What outlasts the machine is tried elsewhere.
        return connection

    async def be_impatient(self) -> None:
        """Wait for no other process that is writing."""
        await self._run(lambda connection: connection.execute("PRAGMA busy_timeout = 0"))


class Site:
    """A backend, and a file that any number of bridges share."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.path, self._stack = path, stack
        self.double = Double()
        profile = evolve(self.double.profile, settle_by={SettleBy.READ_BACK}, absent_after=60.0)
        vars(self.double)["_profile"] = profile

    async def bridge(self, clock: ManualClock | None = None, **options: Any) -> Bridge:
        """Open a bridge of another process."""
        store = await self._stack.enter_async_context(Shared(self.path))
        clock = ManualClock() if clock is None else clock
        bridge = Bridge(self.double, clock=clock, options=CommonOptions(**options), store=store)
        return await self._stack.enter_async_context(bridge)

    async def chats(self, **options: Any) -> tuple[Chat, Chat]:
        """Make a conversation, and open it in two processes."""
        one, two = await self.bridge(Still(), **options), await self.bridge(Still(), **options)
        chat = await one.create()
        return chat, two.open(chat.id)

    def gate(self) -> asyncio.Event:
        """Let messages wait in the backend."""
        gate = self.double.gates["send"] = asyncio.Event()
        return gate

    async def sent(self, count: int, sending: asyncio.Task[Any]) -> None:
        """Wait until so many messages have reached the backend, the last by *sending*."""
        while len(self.double.sent) < count:
            await asyncio.sleep(0)
            if sending.done():
                sending.result()
        await turns_of_the_loop()

    def lose_lease(self) -> None:
        """Let the time be over for which anything was held."""
        self.query("UPDATE conversations SET held_until = 0")

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with AsyncExitStack() as stack:
        yield Site(tmp_path / "store.db", stack)


async def waiting(chat: Chat) -> None:
    """Wait until the bridge has found that another has the conversation."""
    while not clock_of(chat).slept:
        await turns_of_the_loop()


def clock_of(chat: Chat) -> ManualClock:
    clock = chat.bridge.clock
    assert isinstance(clock, ManualClock)
    return clock


def store_of(chat: Chat) -> Shared:
    store = chat.bridge.store
    assert isinstance(store, Shared)
    return store


async def states(chat: Chat) -> list[tuple[str, str]]:
    return [(turn.message.text, turn.state.value) for turn in await chat.turns()]


# ------------------------------------------------------------------------------ one after the other


async def test_m6_messages_of_two_processes_go_one_at_a_time(site: Site) -> None:
    one, two = await site.chats()

    await asyncio.gather(*(chat.send(f"{number}") for number in range(3) for chat in (one, two)))

    assert 6 == len(site.double.sent)
    assert not site.double.overlapped
    assert {"delivered"} == {state for _, state in await states(one)}


async def test_m6_the_second_waits_until_the_first_has_its_answer(site: Site) -> None:
    one, two = await site.chats()
    gate = site.gate()
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    second = asyncio.create_task(two.send("2"))
    await waiting(two)

    assert [("1", "pending")] == await states(two)
    gate.set()
    await asyncio.gather(first, second)

    assert ["1", "2"] == [message.text for _, message, _ in site.double.sent]


async def test_m6_a_stream_is_waited_for_as_well(site: Site) -> None:
    one, two = await site.chats()
    async with one.stream("1") as stream:
        second = asyncio.create_task(two.send("2"))
        await waiting(two)
        assert 1 == len(site.double.sent)
        async for _ in stream:
            pass
    await second

    assert not site.double.overlapped


async def test_m6_settling_waits_for_a_message_of_another_process(site: Site) -> None:
    one, two = await site.chats()
    gate = site.gate()
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    settling = asyncio.create_task(two.settle())
    await waiting(two)
    gate.set()
    await first

    assert () == await settling


async def test_m6_who_waits_may_be_cancelled(site: Site) -> None:
    one, two = await site.chats()
    gate = site.gate()
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    second = asyncio.create_task(two.send("2"))
    await waiting(two)
    second.cancel()
    await asyncio.wait([second])
    assert second.cancelled()
    gate.set()
    await first

    await two.send("3")

    assert ["1", "3"] == [message.text for _, message, _ in site.double.sent]
    assert [("1", "delivered"), ("3", "delivered")] == await states(one)


async def send(chat: Chat) -> None:
    await chat.send("2")


async def stream(chat: Chat) -> None:
    await chat.stream("2").__aenter__()


async def settle(chat: Chat) -> None:
    await chat.settle(wait=60)


@pytest.mark.parametrize("act", [send, stream, settle])
async def test_m6_who_waits_does_so_until_the_deadline(
    site: Site, act: Callable[[Chat], Awaitable[object]]
) -> None:
    one, _ = await site.chats()
    two = (await site.bridge(timeout=60.0)).open(one.id)
    gate = site.gate()
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)

    with pytest.raises(OverloadedTimeout, match="another process has been sending") as caught:
        await act(two)
    assert ("not_sent", Phase.QUEUE, one.id) == (
        caught.value.outcome,
        caught.value.phase,
        caught.value.conversation_id,
    )
    slept = clock_of(two).slept
    assert [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0] == slept[:7]
    assert 60 == round(sum(slept), 6)
    gate.set()
    await first

    assert [("1", "delivered")] == await states(two)


async def test_m6_closing_the_bridge_ends_the_wait(site: Site) -> None:
    one, two = await site.chats()
    gate = site.gate()
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    second = asyncio.create_task(two.send("2"))
    await waiting(two)
    await two.bridge.close()

    with pytest.raises(UsageError, match="closed"):
        await second
    gate.set()
    await first


# What it waits for shows on its clock.
SECOND = """
import asyncio, sys
from chatbridge import connect
from chatbridge.clock import SystemClock

url, key, path, conversation = sys.argv[1:]

class Clock(SystemClock):
    async def sleep(self, seconds):
        print("waits", flush=True)
        await super().sleep(seconds)

async def main():
    async with connect(url, key=key, store=f"sqlite:///{path}", clock=Clock()) as bridge:
        print((await bridge.open(conversation).send("2")).text)

asyncio.run(main())
"""


async def test_m6_two_real_processes_wait_for_each_other(tmp_path: Path) -> None:
    emulator, path = H2OGPTeEmulator(), tmp_path / "store.db"
    async with serve(emulator) as at, at.connect(store=f"sqlite:///{path}") as bridge:
        chat = await bridge.create()
        held = emulator.fail(Fault(hold=asyncio.Event()), operation="get_completion")
        assert held.hold is not None
        first = asyncio.create_task(chat.send("1"))
        await held.reached.wait()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SECOND, at.config, emulator.key, str(path), chat.id),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert b"waits\n" == await process.stdout.readline()
        assert 1 == sum(call.operation == "get_completion" for call in emulator.calls)
        held.hold.set()
        await first
        await process.communicate()

        assert 0 == process.returncode
        assert [("1", "delivered"), ("2", "delivered")] == await states(chat)
        assert 2 == sum(call.operation == "get_completion" for call in emulator.calls)


# ------------------------------------------------------------------------- who was held for too long


async def test_a_message_that_has_not_left_stays_when_the_conversation_is_lost(site: Site) -> None:
    """It is held, and another process takes it while what is in it is read."""
    one, _ = await site.chats()
    late = (await site.bridge()).open(one.id)
    gate = site.double.gates["messages"] = asyncio.Event()
    second = asyncio.create_task(late.send("2"))
    while "messages" not in site.double.calls:
        await turns_of_the_loop()
    await turns_of_the_loop()
    site.lose_lease()
    site.double.gates.clear()
    await one.send("1")
    gate.set()

    with pytest.raises(StoreError, match="another process has taken it; try again") as caught:
        await second

    assert ("locked", True) == (caught.value.kind, caught.value.retryable)
    assert ["1"] == [message.text for _, message, _ in site.double.sent]
    assert [("1", "delivered"), ("2", "not_sent")] == await states(one)


async def test_m4_a_message_whose_sender_lost_the_conversation_is_in_doubt_for_others(site: Site) -> None:
    one, two = await site.chats()
    gate = site.gate()
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    site.lose_lease()

    with pytest.raises(UnsettledTurn):
        await two.send("2")
    assert [("1", "unknown")] == await states(two)
    assert 1 == len(site.double.sent)
    gate.set()
    reply = await first

    assert [("1", "delivered")] == await states(two)
    kept = await store_of(two).find(Remote("double", two.id))
    assert kept is not None
    assert ["1", reply.text] == [each.text async for each in store_of(two).messages(kept.id)]


async def test_the_last_word_on_a_message_does_not_release_what_another_holds(site: Site) -> None:
    one, two = await site.chats()
    gates = [site.gate()]
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    site.lose_lease()
    gates.append(site.gate())
    second = asyncio.create_task(two.send("2", resend=True))
    await site.sent(2, second)
    gates[0].set()
    await first
    three = (await site.bridge(timeout=5.0)).open(one.id)

    with pytest.raises(OverloadedTimeout):
        await three.send("3")
    gates[1].set()
    await second

    assert [("1", "delivered"), ("2", "delivered")] == await states(one)


async def test_a_clock_that_is_set_back_leaves_nothing_held_for_longer(site: Site) -> None:
    ledger = (await site.bridge()).deliveries.ledger
    assert Hold.AFTER_ANOTHER is await (await site.bridge()).deliveries.ledger.hold("c")
    assert Hold.BUSY is await ledger.hold("c")
    site.query("UPDATE conversations SET held_until = held_until + 7200000000")

    assert Hold.BUSY is await ledger.hold("c")
    assert 0 < await left(ledger) <= ledger.store.lease


async def test_a_clock_that_is_set_back_takes_nothing_from_who_lives(site: Site, ledger: Ledger) -> None:
    other = (await site.bridge()).deliveries.ledger
    site.query("UPDATE conversations SET held_until = held_until + 7200000000")
    store = other.store
    assert isinstance(store, Shared)
    store.meanwhile = ledger.renew

    assert Hold.BUSY is await other.hold("c")
    assert 0 < await left(ledger) <= ledger.store.lease
    assert Hold.BUSY is await other.hold("c")


class Timer:
    """Takes note of what is to be done later, in place of the event loop."""

    def __init__(self) -> None:
        self.planned: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = False

    def __call__(self, seconds: float, action: Callable[[], None]) -> Any:
        self.planned.append((seconds, action))
        return self

    def cancel(self) -> None:
        self.cancelled = True

    async def fire(self, ledger: Ledger) -> None:
        self.planned.pop()[1]()
        await vars(ledger)["_renewing"]


@pytest.fixture
async def ledger(site: Site) -> Ledger:
    """Give a ledger that holds the conversation 'c', whose time is nearly over, and plans with a `Timer`."""
    ledger = (await site.bridge()).deliveries.ledger
    ledger.later = Timer()
    assert Hold.AFTER_ANOTHER is await ledger.hold("c")
    return ledger


async def left(ledger: Ledger) -> float:
    kept = await ledger.store.find(ledger.remote("c"))
    assert kept is not None
    return kept.held_for


def hurry(site: Site) -> None:
    """Let little be left of the time for which something is held."""
    site.query("UPDATE conversations SET held_until = held_until - 5000000 WHERE held_until > 0")


async def test_who_holds_a_conversation_says_so_in_time(site: Site, ledger: Ledger) -> None:
    timer: Any = ledger.later
    ((seconds, _),) = timer.planned
    assert ledger.store.lease / 3 == seconds
    await ledger.hold("d")
    assert 1 == len(timer.planned)
    hurry(site)
    assert 5 >= await left(ledger)

    await timer.fire(ledger)

    assert 5 < await left(ledger)
    assert [seconds] == [each for each, _ in timer.planned]
    await ledger.release("c")
    await ledger.release("d")
    await timer.fire(ledger)
    assert [] == timer.planned
    assert 0 >= await left(ledger)
    await ledger.hold("c")
    assert 1 == len(timer.planned)


async def test_the_event_loop_is_the_timer(site: Site) -> None:
    ledger = (await site.bridge()).deliveries.ledger
    vars(ledger)["RENEWALS"] = 10**9
    await ledger.hold("c")
    while [(3,)] > site.query("SELECT revision FROM conversations"):
        await turns_of_the_loop()


async def test_what_another_has_taken_is_held_no_more(site: Site, ledger: Ledger) -> None:
    other = (await site.bridge()).deliveries.ledger
    assert Hold.BUSY is await other.hold("c")
    site.lose_lease()
    assert Hold.AFTER_ANOTHER is await other.hold("c")
    timer: Any = ledger.later

    await timer.fire(ledger)

    assert [] == timer.planned
    assert Hold.BUSY is await ledger.hold("c")
    await ledger.release("c")
    assert Hold.BUSY is await ledger.hold("c")


async def test_a_conversation_released_while_it_is_renewed_stays_released(ledger: Ledger) -> None:
    store = ledger.store
    assert isinstance(store, Shared)
    store.meanwhile = lambda: ledger.release("c")

    await ledger.renew()

    assert 0 >= await left(ledger)


async def test_what_is_held_anew_while_the_hold_before_is_renewed_is_renewed_as_well(
    site: Site, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew = ledger.store.release

    async def slowly(remote: Remote, holder: str, *, lease: float = 0.0) -> bool:
        monkeypatch.undo()
        await ledger.release("c")
        still = await renew(remote, holder, lease=lease)
        await ledger.hold("c")
        return still

    monkeypatch.setattr(ledger.store, "release", slowly)
    await ledger.renew()
    hurry(site)

    await ledger.renew()

    assert 5 < await left(ledger)


async def test_what_cannot_be_renewed_now_is_the_next_time(site: Site, ledger: Ledger) -> None:
    timer: Any = ledger.later
    assert isinstance(ledger.store, Shared)
    await ledger.store.be_impatient()
    hurry(site)
    with closing(sqlite3.connect(site.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await timer.fire(ledger)
    assert 5 >= await left(ledger)

    await timer.fire(ledger)

    assert 5 < await left(ledger)


async def test_it_is_planned_again_until_the_last_word_is_written(ledger: Ledger, site: Site) -> None:
    timer: Any = ledger.later
    turn = Turn("1", "c", Message(Role.USER, "Hi", id="1"), datetime.now(UTC), state=TurnState.DELIVERED)
    ledger.late = lambda: ["c", "d"]
    site.query("CREATE TRIGGER no BEFORE INSERT ON turns BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreError):
        await ledger.record(turn, last=True)
    assert not ledger.holds("c")
    hurry(site)
    await timer.fire(ledger)
    assert 5 < await left(ledger)
    site.query("DROP TRIGGER no")
    await ledger.record(turn, last=True)
    assert 0 >= await left(ledger)

    await timer.fire(ledger)

    assert [] == timer.planned


async def test_closing_releases_what_is_held(site: Site, ledger: Ledger) -> None:
    timer: Any = ledger.later
    timer.planned.pop()[1]()

    await ledger.close()

    assert timer.cancelled
    assert 0 >= await left(ledger)
    assert Hold.AFTER_ANOTHER is await (await site.bridge()).deliveries.ledger.hold("c")


def test_what_is_held_is_renewed_in_each_event_loop(tmp_path: Path) -> None:
    bridge = Bridge(Double(), store=SQLiteStore(tmp_path / "store.db"))
    ledger = bridge.deliveries.ledger

    async def renewed(conversation_id: str) -> None:
        timer = Timer()
        ledger.later = timer
        await ledger.hold(conversation_id)
        await timer.fire(ledger)
        assert 1 == len(timer.planned)

    async def held() -> list[str]:
        return [kept.remote.id async for kept in bridge.store.conversations() if kept.held_for > 0]

    asyncio.run(renewed("c"))
    asyncio.run(renewed("d"))
    assert ["d"] == asyncio.run(held())
    asyncio.run(bridge.close())
    assert [] == asyncio.run(held())
    asyncio.run(bridge.store.close())


async def test_each_process_of_a_fork_has_its_own_name(
    site: Site, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = ledger.holder
    assert parent == ledger.holder
    monkeypatch.setattr(os, "getpid", os.getppid)

    assert str(os.getppid()) == ledger.holder.rsplit("/", 2)[1]
    assert Hold.BUSY is await ledger.hold("c")
    await ledger.renew()
    await ledger.release("c")
    assert [(parent,)] == site.query("SELECT holder FROM conversations WHERE held_until > 0")


async def test_who_is_cancelled_while_taking_a_conversation_does_not_keep_it(site: Site) -> None:
    ledger = (await site.bridge()).deliveries.ledger
    holding = asyncio.create_task(ledger.hold("c"))
    await asyncio.sleep(0)
    holding.cancel()
    await asyncio.wait([holding])

    assert holding.cancelled()
    assert [(0,)] == site.query("SELECT held_until FROM conversations")


# --------------------------------------------------------------------------- what others said meanwhile


async def test_m3_what_another_process_said_is_not_taken_for_ours(site: Site) -> None:
    one = await (await site.bridge()).create()
    two = (await site.bridge()).open(one.id)
    await one.send("Hi")
    await two.send("Hi")
    site.double.fails["send"] = LOST

    with pytest.raises(DeliveryUnknown):
        await one.send("Hi")

    (turn,) = await one.settle(wait=0)
    assert (TurnState.UNKNOWN, (2, 0)) == (turn.state, turn.baseline)


async def test_m3_nor_is_what_it_said_after_taking_the_conversation(site: Site) -> None:
    one = await (await site.bridge()).create()
    two = (await site.bridge()).open(one.id)
    gate = site.gate()
    site.double.fails["send"] = LOST
    first = asyncio.create_task(one.send("Hi"))
    await site.sent(1, first)
    site.lose_lease()
    del site.double.gates["send"], site.double.fails["send"]
    (turn,) = await two.turns()
    await two.waive(turn)
    await two.send("Hi")
    site.double.fails["send"] = LOST
    gate.set()

    with pytest.raises(DeliveryUnknown):
        await first

    assert [TurnState.UNKNOWN, TurnState.DELIVERED] == [turn.state for turn in await one.turns()]


async def test_m3_nor_is_what_it_said_before_forgetting_the_conversation(site: Site) -> None:
    one = await (await site.bridge()).create()
    two = (await site.bridge()).open(one.id)
    await one.send("Hi")
    await two.send("Hi")
    await two.forget()
    site.double.fails["send"] = LOST

    with pytest.raises(DeliveryUnknown):
        await one.send("Hi")

    (turn,) = await one.settle(wait=0)
    assert (TurnState.UNKNOWN, (2, 0)) == (turn.state, turn.baseline)


async def test_what_is_known_is_not_read_again_while_no_other_process_speaks(site: Site) -> None:
    one, two = await site.chats()
    await one.send("1")
    await one.send("2")
    assert 0 == site.double.calls.count("messages")
    await two.send("3")
    await two.send("4")
    assert 1 == site.double.calls.count("messages")
    await one.send("5")
    assert 2 == site.double.calls.count("messages")


# ------------------------------------------------------------------------------------- words at once


async def test_m6_waiving_takes_nothing_back_that_the_sender_has_recorded(site: Site) -> None:
    """It is refused while the other process waives it."""
    one, two = await site.chats()
    gate = site.gate()
    site.double.fails["send"] = RateLimited("slow down")
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    (turn,) = await two.turns()
    assert TurnState.PENDING is turn.state

    async def refuse() -> None:
        gate.set()
        await asyncio.wait([first])

    store_of(two).meanwhile = refuse
    waived = await two.waive(turn)

    assert (TurnState.REFUSED, True) == (waived.state, waived.waived)
    assert [waived] == list(await one.turns())
    with pytest.raises(RateLimited):
        await first


async def test_m4_a_message_that_cannot_be_recorded_waives_no_other(site: Site) -> None:
    one, two = await site.chats(settle_timeout=0)
    site.double.fails["send"] = LOST
    with pytest.raises(DeliveryUnknown):
        await one.send("1")

    async def lose() -> None:
        site.query("UPDATE conversations SET held_until = 0")
        await two.bridge.deliveries.ledger.hold(one.id)

    store_of(one).before = "2", lose
    with pytest.raises(StoreError, match="another process has taken it"):
        await one.send("2", resend=True)

    assert [("1", True)] == [(turn.message.text, turn.blocks) for turn in await two.turns() if turn.blocks]
    assert 1 == len(site.double.sent)


async def test_m6_recording_takes_no_waiver_back(site: Site) -> None:
    one, two = await site.chats(settle_timeout=0)
    gate = site.gate()
    site.double.fails["send"] = LOST
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    (turn,) = await two.turns()
    store_of(one).meanwhile = lambda: two.waive(turn)
    gate.set()
    with pytest.raises(DeliveryUnknown):
        await first

    assert [(TurnState.UNKNOWN, True)] == [(turn.state, turn.waived) for turn in await one.turns()]
    site.double.fails.clear()
    await two.send("2")


async def test_a_turn_that_is_forgotten_while_it_is_waived_is_gone(site: Site) -> None:
    one, two = await site.chats(settle_timeout=0)
    site.double.fails["send"] = LOST
    with pytest.raises(DeliveryUnknown):
        await one.send("1")
    (turn,) = await two.turns()

    async def forget() -> None:
        kept = await store_of(one).find(Remote("double", one.id))
        assert kept is not None
        await store_of(one).forget(kept.id)

    store_of(two).meanwhile = forget
    assert turn == await two.waive(turn)
    assert () == await two.turns()


async def test_m4_what_is_told_late_of_a_sending_takes_back_nothing_of_the_next(site: Site) -> None:
    """The first process cannot write what became of its message, and the second one sends it again."""
    one, two = await site.chats(settle_timeout=0)
    site.double.fails["send"] = LOST
    await store_of(one).be_impatient()
    with closing(sqlite3.connect(site.path, isolation_level=None)) as other:
        gate = site.gate()
        first = asyncio.create_task(one.send("1"))
        await site.sent(1, first)
        other.execute("BEGIN IMMEDIATE")
        gate.set()
        with pytest.raises(DeliveryUnknown) as caught:
            await first
    site.lose_lease()
    site.double.fails.clear()
    assert caught.value.turn is not None
    await two.send(caught.value.turn.message, resend=True)

    (turn,) = await one.turns()

    assert (TurnState.DELIVERED, 2) == (turn.state, turn.sends)
    assert [turn] == list(await two.turns())
    await two.send("2")


async def test_m4_a_message_that_is_sent_again_is_in_doubt_again(site: Site) -> None:
    one, _ = await site.chats(settle_timeout=0)
    site.double.fails["send"] = LOST
    with pytest.raises(DeliveryUnknown) as caught:
        await one.send("1")
    assert caught.value.turn is not None
    await one.waive(caught.value.turn)

    with pytest.raises(DeliveryUnknown):
        await one.send(caught.value.turn.message, resend=True)

    (turn,) = await one.turns()
    assert (2, False, True) == (turn.sends, turn.waived, turn.blocks)
    with pytest.raises(UnsettledTurn):
        await one.send("2")


async def test_an_answer_is_kept_once_though_its_message_is_sent_again_in_vain(site: Site) -> None:
    one, _ = await site.chats(settle_timeout=0)
    await one.send("1")
    (turn,) = await one.turns()
    place = Remote("double", one.id)
    found = evolve(turn, reply=site.double.reply)
    await store_of(one).record(place, found)
    site.double.fails["send"] = RateLimited("slow down")

    with pytest.raises(RateLimited):
        await one.send(turn.message, resend=True)

    assert [("1", "delivered")] == await states(one)
    kept = await store_of(one).find(place)
    assert 2 == getattr(kept, "length", None)


@pytest.mark.parametrize("unsettled", [False, True])
async def test_what_is_delivered_while_the_turns_are_read_is_in_no_doubt(site: Site, unsettled: bool) -> None:
    one, two = await site.chats()
    gate = site.gate()
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)

    async def deliver() -> None:
        gate.set()
        await first

    store_of(two).between = deliver
    rows = await store_of(two).turns(Remote("double", one.id), unsettled=unsettled)

    assert ([] if unsettled else ["delivered"]) == [row.turn.state.value for row in rows]


async def test_what_is_sent_again_while_the_turns_are_read_is_under_way(site: Site) -> None:
    one, two = await site.chats(settle_timeout=0)
    gate = site.gate()
    first = asyncio.create_task(one.send("1"))
    await site.sent(1, first)
    (turn,) = await two.turns()
    site.lose_lease()
    second: list[asyncio.Task[Any]] = []

    async def send_again() -> None:
        second.append(asyncio.create_task(two.send(turn.message, resend=True)))
        await site.sent(2, second[0])

    class Reader(Shared):
        async def _find(self, which: str | Remote) -> StoredConversation | None:
            found = await super()._find(which)
            if not second:
                await send_again()
            return found

    async with Reader(site.path) as reader:
        try:
            (row,) = await reader.turns(Remote("double", one.id))
        finally:
            gate.set()
            await asyncio.gather(first, *second)

    assert (TurnState.PENDING, 2) == (row.turn.state, row.turn.sends)


# ------------------------------------------------------------------------------------------ holders


@pytest.fixture
def ended() -> str:
    """Give the name of a holder whose process has ended."""
    place, _, rest = new_holder().rsplit("/", 2)
    process = subprocess.Popen([sys.executable, "-S", "-E", "-c", ""])
    process.wait()
    return f"{place}/{process.pid}/{rest}"


def test_a_process_that_has_ended_is_gone(ended: str) -> None:
    assert is_gone(ended)


def test_names_of_holders_are_their_own() -> None:
    one, two = new_holder(), new_holder()

    assert one != two
    assert str(os.getpid()) == one.rsplit("/", 2)[1]
    assert not is_gone(one)


@pytest.mark.parametrize(
    "name",
    ["", "x", "x/1", "/1/x", "elsewhere/1/x", "{here}/x/x", "{here}/-1/x", "{here}/" + "9" * 30 + "/x"],
)
def test_of_what_is_not_known_it_is_not_said_to_be_gone(name: str) -> None:
    assert not is_gone(name.format(here=new_holder().rsplit("/", 2)[0]))


def test_another_users_process_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)

    assert not is_gone(new_holder())


def test_where_processes_cannot_be_told_none_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holders, "_BOOT", tmp_path / "none")

    assert not is_gone(f"{new_holder().rsplit('/', 2)[0]}/4194305/x")
    assert f"/{os.getpid()}/" in new_holder()


def test_the_same_id_in_another_container_is_another_process(
    ended: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(holders, "_PROCESSES", tmp_path)

    assert not is_gone(ended)


async def test_what_a_dead_process_held_is_free_at_once(site: Site, ended: str) -> None:
    bridge = await site.bridge()
    assert Hold.AFTER_ANOTHER is await bridge.store.hold(Remote("double", "c"), ended)

    assert Hold.AFTER_ANOTHER is await bridge.deliveries.ledger.hold("c")
