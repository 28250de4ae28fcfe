"""The contract for stores: kept by each of ours, and broken by stores that are broken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve

from chatbridge import UsageError
from chatbridge.history import MemoryStore, SQLiteStore, Store, StoredConversation
from chatbridge.history.chain import Entry
from chatbridge.history.store import Change, Remote
from chatbridge.testing.store_contract import StoreContract


class Memory(StoreContract):
    LASTS = False
    make: type[MemoryStore] = MemoryStore

    def open_store(self) -> Store:
        return self.make()


class TestMemory(Memory):
    pass


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


class Forgets(MemoryStore):
    """Writes a turn, and leaves out what belongs to it."""

    async def _commit(self, change: Change) -> bool:
        return await super()._commit(change if change.turn is None else Change(change.turn))


class OverwritesOthers(MemoryStore):
    """Takes any revision for the right one."""

    async def _commit(self, change: Change) -> bool:
        kept = change.conversation
        await asyncio.sleep(0)
        if kept is not None:
            known = await self._find(kept.remote)
            change = evolve(change, conversation=evolve(kept, revision=known.revision if known else 0))
        return await super()._commit(change)


class ReadsBeyond(MemoryStore):
    """Gives one message too many."""

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        return await super()._read(conversation_id, start, stop + 1)


class MixesBackends(MemoryStore):
    """Knows a conversation by its id alone."""

    async def _turns(
        self, remote: Remote, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[str]:
        return await super()._turns(Remote("a", remote.id), turn_id, unsettled=unsettled)


class ListsInPages(MemoryStore):
    """Begins anew with every page, up to the third."""

    pages = 0

    async def _list(
        self,
        backend: str | None,
        before: str | None,  # noqa: ARG002 - what is broken
        limit: int,
    ) -> Sequence[StoredConversation]:
        self.pages += 1
        return await super()._list(backend, None, limit) if self.pages < 4 else []


class StaysOpen(MemoryStore):
    """Works on after its end."""

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("store", "check"),
    [
        (Forgets, "check_an_answer_comes_with_its_turn"),
        (OverwritesOthers, "check_writers_at_once_lose_nothing"),
        (ReadsBeyond, "check_histories_are_read_in_pages"),
        (MixesBackends, "check_backends_do_not_see_each_others_turns"),
        (ListsInPages, "check_conversations_are_listed"),
        (StaysOpen, "check_a_closed_store_says_so"),
    ],
)
async def test_a_broken_store_breaks_its_rule(store: type[MemoryStore], check: str) -> None:
    contract = Memory()
    contract.make = store

    broken = [result.check for result in await contract.run() if result.problem is not None]

    assert check in broken


async def test_a_store_that_keeps_the_rules_is_told_so_without_a_test_framework() -> None:
    results = await Memory().run()

    assert [] == [str(result) for result in results if result.problem is not None]
    assert 2 == sum(result.skipped is not None for result in results)


def test_a_contract_without_a_store_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="StoreContract needs an open_store"):
        StoreContract().open_store()
