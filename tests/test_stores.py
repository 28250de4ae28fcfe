"""A bridge with a store: what it keeps there, what it finds there again, and what it does without one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from chatbridge import (
    Bridge,
    DeliveryUnknown,
    Feature,
    Message,
    Reply,
    SendOptions,
    StoreError,
    Support,
    Turn,
    TurnState,
    UnsettledTurn,
    UsageError,
    WrongBackend,
    connect,
)
from chatbridge.backend import SettleBy
from chatbridge.history import MemoryStore, Store
from chatbridge.history.rows import Remote, TurnRow
from chatbridge.options import CommonOptions
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.fake import FakeBackend
from doubles import Double

LOST = DeliveryUnknown("lost", kind="lost")


class Died(BaseException):
    """The end of a process."""


class Shown(Double):
    """
    A double that can be read back.

    Attributes:
        after: What is raised once a message is stored and answered.
        meanwhile: What happens while it is answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self._profile = evolve(self._profile, settle_by={SettleBy.READ_BACK}, absent_after=60.0)
        self.after: BaseException | None = None
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        reply = await super().send(conversation_id, message, options)
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.after is not None:
            raise self.after
        return reply


class Dead(MemoryStore):
    """A store whose process has died once an intent was written: what comes later is not in it."""

    dead = False

    async def record(
        self,
        remote: Remote,
        turn: Turn,
        answer: Reply | None = None,
        **named: Any,
    ) -> Turn:
        if self.dead and turn.state is not TurnState.PENDING:
            raise StoreError("it is too late")
        return await super().record(remote, turn, answer, **named)

    async def bury(self, bridge: Bridge, conversation_id: str) -> None:
        """Let the process of *bridge* have died, and the time be over for which it held the conversation."""
        self.dead = False
        ledger = bridge.deliveries.ledger
        assert await self.release(ledger.remote(conversation_id), ledger.holder)


def bridge_to(backend: Double, store: Store | str | None, **options: Any) -> Bridge:
    return Bridge(backend, clock=ManualClock(), options=CommonOptions(**options), store=store)


async def texts(store: Store) -> list[str]:
    (kept,) = [each async for each in store.conversations()]
    return [message.text async for message in store.messages(kept.id)]


# ------------------------------------------------------------------------------------ what is kept


async def test_a_conversation_is_kept_with_what_was_said(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/chats.db"
    async with connect("fake:", store=where) as bridge:
        chat = await bridge.create(title="Kyoto", history=[Message.user("Hi"), Message.assistant("Ho")])
        await chat.send("When?")
        async with chat.stream("Where?") as stream:
            async for _ in stream:
                pass
        await chat.rename("Nara")

    async with connect("fake:", store=where) as bridge:
        (kept,) = [each async for each in bridge.store.conversations()]
        assert ("fake", chat.id, None) == (kept.remote.backend, kept.remote.id, kept.remote.account)
        assert "Nara" == kept.conversation.title
        said = await texts(bridge.store)
        assert ["Hi", "Ho", "When?", "Where?"] == [*said[:3], said[4]]
        assert 6 == len(said)
        again = await bridge.resume(kept.id)
        assert (chat.id, "Nara") == (again.id, again.conversation.title)
        assert ["When?", "Where?"] == [turn.message.text for turn in await again.turns()]


async def test_an_answer_that_was_read_back_is_kept_once() -> None:
    backend, store = Shown(), MemoryStore()
    bridge = bridge_to(backend, store)
    chat = await bridge.create()
    backend.after = LOST

    reply = await chat.send("Hi")

    assert reply.recovered
    assert ["Hi", reply.text] == await texts(store)


async def test_a_system_prompt_that_goes_with_each_message_comes_back() -> None:
    backend, store = Double(without=[Feature.SYSTEM]), MemoryStore()
    bridge = bridge_to(backend, store)
    assert Support.EMULATED is bridge.profile.support(Feature.SYSTEM)
    await bridge.create(system="Be brief.")
    (kept,) = [each async for each in store.conversations()]

    chat = await bridge.resume(kept.id)
    await chat.send("Hi")

    assert "Be brief." == chat.system == backend.sent[-1][2].system


async def test_a_system_prompt_that_the_api_keeps_is_not_sent_again() -> None:
    store = MemoryStore()
    bridge = bridge_to(Double(), store)
    await bridge.create(system="Be brief.")
    (kept,) = [each async for each in store.conversations()]

    assert None is (await bridge.resume(kept.id)).system
    assert "Be brief." == kept.conversation.system


async def test_what_is_deleted_on_the_server_stays_in_the_store() -> None:
    store = MemoryStore()
    chat = await bridge_to(Double(), store).create()
    await chat.send("Hi")

    await chat.delete()

    assert 2 == len(await texts(store))


async def test_a_deletion_is_done_whatever_the_store_says() -> None:
    store = MemoryStore()
    chat = await bridge_to(Double(), store).create()
    await store.close()

    await chat.delete()


# -------------------------------------------------------------------------------- whose store it is


async def test_a_store_by_name_is_closed_with_its_bridge() -> None:
    async with connect("fake:", store="memory:") as bridge:
        await (await bridge.create()).send("Hi")
        store = bridge.store

    with pytest.raises(StoreError, match="closed"):
        await store.conversation("x", "fake")


async def test_a_store_that_was_given_stays_open() -> None:
    async with MemoryStore() as store:
        for _ in range(2):
            async with connect("fake:", store=store) as bridge:
                await bridge.create()

        assert [] != [each async for each in store.conversations()]


WATCHED = """
import asyncio, os, sys
from chatbridge import Message, connect

written = []

def watch(event, args):
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(args[0])
    elif event.startswith(("os.mkdir", "os.rename", "os.link", "os.symlink", "sqlite3.")):
        written.append(event)

async def main():
    async with connect("fake:") as bridge:
        chat = await bridge.create(history=[Message.user("Hi"), Message.assistant("Ho")])
        await chat.send("When?")
        async with chat.stream("Where?") as stream:
            async for _ in stream:
                pass
        (kept,) = [each async for each in bridge.store.conversations()]
        assert 6 == kept.length
        assert 2 == len(await (await bridge.resume(kept.id)).turns())

asyncio.run(asyncio.sleep(0))  # What a loop opens is its own.
sys.addaudithook(watch)
asyncio.run(main())
print(written, "sqlite3" in sys.modules)
"""


def test_without_a_chosen_store_it_remembers_and_writes_nothing_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED], check=True, capture_output=True, text=True, cwd=tmp_path
    )

    assert "[] False" == done.stdout.strip()
    assert [] == list(tmp_path.iterdir())


async def test_a_bridges_own_memory_ends_with_it() -> None:
    async with connect("fake:") as one, connect("fake:") as two:
        await one.create()

        assert isinstance(one.store, MemoryStore)
        assert [] == [each async for each in two.store.conversations()]


def test_a_wrong_store_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no kind of store"):
        connect("fake:", store="chats.db")


async def test_a_conversation_is_not_opened_through_another_backend() -> None:
    store = MemoryStore()
    fake = FakeBackend()
    await Bridge(fake, clock=fake.clock, store=store).create()
    (kept,) = [each async for each in store.conversations()]

    with pytest.raises(WrongBackend, match="is kept by fake, and cannot be opened through double"):
        await bridge_to(Double(), store).resume(kept.id)
    with pytest.raises(UsageError, match="the store has no conversation 'x'"):
        await bridge_to(Double(), store).resume("x")


async def test_a_bridge_to_another_backend_does_not_see_the_turns() -> None:
    store, fake = MemoryStore(), FakeBackend()
    chat = await Bridge(fake, clock=fake.clock, store=store).create()
    await chat.send("Hi")

    assert () == await bridge_to(Double(), store).open(chat.id).turns()


# ---------------------------------------------------------------------------- when a process has died


async def die(backend: Shown, store: Dead, *, arrives: bool, earlier: int = 0) -> Turn:
    """Send "Hi" from a process that dies before it hears more, after sending it *earlier* times in peace."""
    bridge = bridge_to(backend, store)
    chat = await bridge.create()
    for _ in range(earlier):
        await chat.send("Hi")
    store.dead = True
    if arrives:
        backend.after = Died()
    else:
        backend.fails["send"] = Died()
    with pytest.raises(Died):
        await chat.send("Hi")
    backend.after = None
    backend.fails.clear()
    (row,) = await store.turns(Remote("double", chat.id), unsettled=True)
    assert TurnState.PENDING is row.turn.state
    await store.bury(bridge, chat.id)
    return row.turn


@pytest.mark.parametrize("earlier", [0, 2])
async def test_m2_a_message_that_arrived_is_found_by_the_next_process(earlier: int) -> None:
    backend, store = Shown(), Dead()
    turn = await die(backend, store, arrives=True, earlier=earlier)
    chat = bridge_to(backend, store).open(turn.conversation_id)
    sent = len(backend.sent)

    with pytest.raises(UnsettledTurn, match="settle"):
        await chat.send("And now?")
    (settled,) = await chat.settle(wait=0)

    assert (turn.id, TurnState.DELIVERED) == (settled.id, settled.state)
    assert settled.reply is not None
    assert sent == len(backend.sent)
    assert ["Hi", settled.reply.text] == (await texts(store))[-2:]
    assert 2 * (earlier + 1) == len(await texts(store))
    await chat.send("And now?")


@pytest.mark.parametrize("earlier", [0, 2])
async def test_m2_a_message_that_did_not_arrive_is_known_not_to_after_its_time(earlier: int) -> None:
    backend, store = Shown(), Dead()
    turn = await die(backend, store, arrives=False, earlier=earlier)
    chat = bridge_to(backend, store).open(turn.conversation_id)
    sent = len(backend.sent)

    (still,) = await chat.settle(wait=0)
    assert still.blocks
    (settled,) = await chat.settle(wait=61)

    assert (turn.id, TurnState.NOT_SENT) == (settled.id, settled.state)
    assert sent == len(backend.sent)
    await chat.send("Hi")


async def test_m2_what_nobody_can_tell_waits_for_a_word() -> None:
    """The conversation is another's, and could not be read before the message went."""
    backend, store = Shown(), Dead()
    chat = await bridge_to(backend, None).create()
    await chat.send("Hi")
    backend.fails["messages"] = UsageError("not now")
    store.dead, backend.after = True, Died()
    bridge = bridge_to(backend, store)
    with pytest.raises(Died):
        await bridge.open(chat.id).send("Hi")
    backend.after = None
    backend.fails.clear()
    await store.bury(bridge, chat.id)

    later = bridge_to(backend, store).open(chat.id)
    (turn,) = await later.settle(wait=100)
    assert turn.blocks
    await later.waive(turn)
    await later.send("Hi")

    assert ["unknown", "delivered"] == [each.state for each in await later.turns()]


async def test_m4_only_the_caller_sends_again() -> None:
    backend, store = Shown(), Dead()
    turn = await die(backend, store, arrives=False)
    chat = bridge_to(backend, store).open(turn.conversation_id)

    await chat.send("Hi", resend=True)

    (again,) = await chat.turns()
    assert (turn.id, 2, TurnState.DELIVERED) == (again.id, again.sends, again.state)
    assert again.earlier is not None
    assert again.earlier.baseline == again.baseline == (0, 0)


async def test_equal_texts_of_later_messages_are_not_taken_for_it() -> None:
    backend, store = Shown(), Dead()
    turn = await die(backend, store, arrives=False)
    second = bridge_to(backend, store).open(turn.conversation_id)
    await second.waive(turn)
    await second.send("Hi")

    third = bridge_to(backend, store).open(turn.conversation_id)
    assert () == await third.settle(wait=100)
    settled, _ = await third.turns()

    assert settled.state is not TurnState.DELIVERED


# -------------------------------------------------------------------- when the store fails meanwhile


class Fragile(MemoryStore):
    """Fails when told to: at reading turns, or at writing what is not pending."""

    reading = writing = False

    async def turns(self, *given: Any, **named: Any) -> tuple[TurnRow, ...]:
        if self.reading:
            raise StoreError("it cannot be read")
        return await super().turns(*given, **named)

    async def record(self, *given: Any, **named: Any) -> Turn:
        if self.writing and given[1].state is not TurnState.PENDING:
            raise StoreError("it cannot be written")
        return await super().record(*given, **named)

    async def waive(self, *given: Any, **named: Any) -> Turn | None:
        if self.writing:
            raise StoreError("it cannot be written")
        return await super().waive(*given, **named)


async def test_what_is_known_of_a_message_is_told_though_the_store_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend, store = Shown(), Fragile()
    chat = await bridge_to(backend, store).create()
    backend.after = LOST

    async def fail() -> None:
        store.reading = store.writing = True

    backend.meanwhile = fail
    with pytest.raises(DeliveryUnknown) as caught:
        await chat.send("Hi")

    assert caught.value.turn is not None
    assert TurnState.UNKNOWN is caught.value.turn.state
    assert "is unknown, which could not be stored: it cannot be written" in caplog.text
    with pytest.raises(StoreError, match="it cannot be written"):
        await chat.turns()
    store.reading = store.writing = False
    assert ["unknown"] == [turn.state for turn in await chat.turns()]


async def test_a_word_of_the_callers_must_be_written() -> None:
    backend, store = Shown(), Fragile()
    chat = await bridge_to(backend, store, settle_timeout=0).create()
    backend.after = LOST
    with pytest.raises(DeliveryUnknown) as caught:
        await chat.send("Hi")
    assert caught.value.turn is not None
    store.writing = True

    with pytest.raises(StoreError, match="it cannot be written"):
        await chat.waive(caught.value.turn)


async def test_a_word_given_meanwhile_is_not_lost() -> None:
    backend, store = Shown(), Fragile()
    chat = await bridge_to(backend, store, settle_timeout=0).create()
    backend.after = LOST

    async def waive_elsewhere() -> None:
        (turn,) = await chat.turns()
        await bridge_to(backend, store).open(chat.id).waive(turn)
        store.writing = True

    backend.meanwhile = waive_elsewhere
    with pytest.raises(DeliveryUnknown):
        await chat.send("Hi")
    store.writing = False

    assert [("unknown", True)] == [(turn.state, turn.waived) for turn in await chat.turns()]


async def test_what_cannot_be_read_while_looking_is_in_doubt_still() -> None:
    store = Fragile()

    class Blinding(Shown):
        async def list_messages(self, *_: object, **__: object) -> AsyncGenerator[Message, None]:
            store.reading = True
            for message in tuple[Message, ...]():
                yield message

    backend = Blinding()
    chat = await bridge_to(backend, store).create()
    backend.fails["send"] = LOST

    with pytest.raises(DeliveryUnknown):
        await chat.send("Hi")

    store.reading = False
    assert ["unknown"] == [turn.state for turn in await chat.turns()]
