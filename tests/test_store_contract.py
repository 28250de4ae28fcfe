"""The contract for stores: kept by each of ours, and broken by stores that are broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from chatbridge import Message, Turn, TurnState, UsageError
from chatbridge.history import Hit, MemoryStore, SQLiteStore, Store, StoredConversation
from chatbridge.history.chain import Entry
from chatbridge.history.known import died
from chatbridge.history.rows import Change, Remote, TurnRow
from chatbridge.testing.store_contract import StoreContract


class Memory(StoreContract):
    LASTS = False
    make: type[MemoryStore] = MemoryStore

    def open_store(self) -> Store:
        return self.make()


class TestMemory(Memory):
    pass


class Plain(MemoryStore):
    """Has nothing of its own but the primitives."""

    lease = 1000.0
    hold = Store.hold
    release = Store.release
    record = Store.record


class TestPrimitives(Memory):
    make = Plain


class TestSQLite(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store.db"

    def open_store(self) -> Store:
        return SQLiteStore(self.path)


class TestSQLiteWithALogAhead(TestSQLite):
    """As it is on a SQLite that is new enough."""

    def open_store(self) -> Store:
        store = SQLiteStore(self.path)
        store.WAL = True
        return store


# ----------------------------------------------------------------------------------- broken stores


class Forgets(Plain):
    """Writes a turn, and leaves out what belongs to it."""

    async def _commit(self, change: Change) -> bool:
        return await super()._commit(evolve(change, entries=()) if change.turns else change)


class OverwritesOthers(Plain):
    """Takes any revision for the right one."""

    async def _commit(self, change: Change) -> bool:
        kept = change.conversation
        await asyncio.sleep(0)
        known = await self._find(kept.remote)
        kept = evolve(kept, id=known.id if known else kept.id, revision=known.revision if known else 0)
        start = kept.length - len(change.entries)
        return await super()._commit(evolve(change, conversation=kept, start=start))


class HoldsForEver(Plain):
    """Never lets a conversation go."""

    async def _commit(self, change: Change) -> bool:
        return await super()._commit(change if change.lease else evolve(change, lease=None))


class SearchesLetters(Plain):
    """Finds what is within a word."""

    async def _search(self, words: Sequence[str]) -> AsyncGenerator[Hit, None]:
        async for kept in self.conversations():
            async for message in self.messages(kept.id):
                if all(word in message.text.lower() for word in words):
                    yield Hit(kept, message)


class ForgetsTheRow(Plain):
    """Forgets a conversation, and not its turns."""

    async def _turns(
        self, remote: Remote | None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[TurnRow]:
        if remote is not None and await self._find(remote) is None:
            return [TurnRow(remote, Turn("1", remote.id, Message.user("Hi"), datetime.now(UTC)))]
        return await super()._turns(remote, turn_id, unsettled=unsettled)


class ForgetsWhatIsNew(Plain):
    """Forgets a conversation whatever its revision is."""

    async def _forget(self, conversation_id: str, revision: int | None = None) -> None:  # noqa: ARG002 - so
        await super()._forget(conversation_id)


class ReadsBeyond(Plain):
    """Gives one message too many."""

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        return await super()._read(conversation_id, start, stop + 1)


class MixesAccounts(Plain):
    """Knows a conversation by its backend and its id alone."""

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        return await super()._find(evolve(which, account=None) if isinstance(which, Remote) else which)

    async def _turns(
        self, remote: Remote | None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[TurnRow]:
        remote = None if remote is None else evolve(remote, account=None)
        return await super()._turns(remote, turn_id, unsettled=unsettled)


class ListsInPages(Plain):
    """Begins anew with every page, up to the third."""

    pages = 0

    async def _list(
        self,
        backend: str | None,
        behind: StoredConversation | None,  # noqa: ARG002 - what is broken
        limit: int,
    ) -> Sequence[StoredConversation]:
        self.pages += 1
        return await super()._list(backend, None, limit) if self.pages < 4 else []


class HoldsWhatIsWritten(Plain):
    """Holds a conversation again whenever it is written."""

    async def _commit(self, change: Change) -> bool:
        return await super()._commit(evolve(change, lease=1000.0) if change.lease is None else change)


class HasOneLoop(Plain):
    """Serves the event loop that was the first to use it."""

    loop: asyncio.AbstractEventLoop | None = None

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("another event loop")
        return await super()._find(which)


class WantsText(Plain):
    """Lets an error out that is not its own."""

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        str(which).encode() if isinstance(which, str) else which.id.encode()
        return await super()._find(which)


class WritesTwice(SQLiteStore):
    """Writes a turn before the messages that come with it."""

    async def _commit(self, change: Change) -> bool:
        kept = change.conversation
        if change.entries and change.turns:
            first = evolve(kept, length=kept.length - len(change.entries), tip=change.entries[0].before)
            if not await super()._commit(evolve(change, conversation=first, entries=())):
                return False
            change = evolve(change, conversation=evolve(kept, revision=kept.revision + 1), turns=())
        return await super()._commit(change)


async def test_a_store_that_writes_in_two_steps_breaks_a_rule(tmp_path: Path) -> None:
    class Contract(StoreContract):
        def open_store(self) -> Store:
            return WritesTwice(tmp_path / "store.db")

    with pytest.raises(AssertionError, match="the state"):
        await Contract().check_a_turn_and_its_answer_are_written_at_once()


class LooksTwice(Plain):
    """Reads the turns of a conversation, and then whether it is held."""

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        await asyncio.sleep(0)
        return await super()._find(which)

    async def _turns(
        self, remote: Remote | None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[TurnRow]:
        await asyncio.sleep(0)
        return await super()._turns(remote, turn_id, unsettled=unsettled)

    async def turns(
        self, remote: Remote | None = None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> tuple[TurnRow, ...]:
        rows = await self._turns(remote, turn_id, unsettled=unsettled)
        return tuple([row if await self._held(row) else died(row) for row in rows])

    async def _held(self, row: TurnRow) -> bool:
        kept = await self._find(row.remote)
        return row.turn.state is not TurnState.PENDING or (kept is not None and kept.held_for > 0)


class TakesBack(Plain):
    """Takes whoever tells of a turn for the one who knows most of it."""

    async def record(self, remote: Remote, turn: Turn, *given: Any, **named: Any) -> Turn:
        return await super().record(remote, turn, *given, **{**named, "sends": 9})


class TakesNothingBack(Plain):
    """Takes nobody for who knows that a message was sent in vain."""

    async def record(self, remote: Remote, turn: Turn, *given: Any, **named: Any) -> Turn:
        return await super().record(remote, turn, *given, **{**named, "sends": 0})


class AddsToAny(Plain):
    """Adds an answer to whatever was said meanwhile."""

    async def record(self, remote: Remote, turn: Turn, *given: Any, **named: Any) -> Turn:
        return await super().record(remote, turn, *given, **{**named, "kept_here": False})


class BringsBack(Plain):
    """Makes a conversation again that was forgotten."""

    async def record(self, remote: Remote, turn: Turn, *given: Any, **named: Any) -> Turn:
        holder = None if await self._find(remote) is None else named.pop("holder", None)
        return await super().record(remote, turn, *given, **{**named, "holder": holder})


class StaysOpen(Plain):
    """Works on after its end."""

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("store", "check"),
    [
        (Forgets, "check_an_answer_comes_with_its_turn"),
        (OverwritesOthers, "check_writers_at_once_lose_nothing"),
        (ReadsBeyond, "check_histories_are_read_in_pages"),
        (MixesAccounts, "check_backends_do_not_see_each_others_turns"),
        (ListsInPages, "check_conversations_are_listed"),
        (HoldsForEver, "check_one_holds_a_conversation"),
        (SearchesLetters, "check_messages_are_found_by_their_words"),
        (ForgetsTheRow, "check_what_is_forgotten_is_gone"),
        (ForgetsWhatIsNew, "check_what_is_forgotten_is_gone"),
        (HoldsWhatIsWritten, "check_only_what_is_about_holding_changes_it"),
        (HasOneLoop, "check_several_event_loops_share_it"),
        (WantsText, "check_a_strange_id_is_taken_or_refused"),
        (LooksTwice, "check_a_turn_is_not_in_doubt_while_its_end_is_written"),
        (TakesBack, "check_a_late_word_on_a_sending_leaves_the_next_as_it_is"),
        (TakesNothingBack, "check_a_sending_in_vain_is_taken_back"),
        (AddsToAny, "check_an_answer_comes_too_late_where_others_went_on"),
        (BringsBack, "check_what_is_told_late_brings_nothing_back"),
        (StaysOpen, "check_a_closed_store_says_so"),
    ],
)
async def test_a_broken_store_breaks_its_rule(store: type[Plain], check: str) -> None:
    contract = Memory()
    contract.make = store

    broken = [result.check for result in await contract.run() if result.problem is not None]

    assert check in broken


async def test_a_store_that_keeps_the_rules_is_told_so_without_a_test_framework() -> None:
    results = await Memory().run()

    assert [] == [str(result) for result in results if result.problem is not None]
    assert 4 == sum(result.skipped is not None for result in results)


def test_a_contract_without_a_store_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="StoreContract needs an open_store"):
        StoreContract().open_store()
