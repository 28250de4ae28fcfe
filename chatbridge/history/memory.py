"""A store in memory, for tests and for what need not outlast the program."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import islice

from attrs import evolve

from chatbridge.errors import StoreError
from chatbridge.history.chain import Entry
from chatbridge.history.store import Change, Remote, Store, StoredConversation, TurnRow

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """Keeps everything for as long as the program runs."""

    def __init__(self) -> None:
        self._conversations: dict[str, StoredConversation] = {}
        self._ids: dict[Remote, str] = {}
        self._order: list[str] = []
        self._messages: dict[str, list[Entry]] = {}
        self._rows: dict[Remote, dict[str, TurnRow]] = {}
        self._closed = False

    async def close(self) -> None:
        """Let nobody use it any more."""
        self._closed = True

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        self._check_open()
        return self._conversations.get(self._ids.get(which, "") if isinstance(which, Remote) else which)

    async def _list(
        self, backend: str | None, before: str | None, limit: int
    ) -> Sequence[StoredConversation]:
        self._check_open()
        end = len(self._order) if before is None else bisect_left(self._order, before)
        found = (self._conversations[self._order[index]] for index in range(end - 1, -1, -1))
        return list(islice((each for each in found if backend in {None, each.remote.backend}), limit))

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        self._check_open()
        return self._messages[conversation_id][start:stop]

    async def _turns(
        self, remote: Remote, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[str]:
        self._check_open()
        return [
            row.body
            for row in self._rows.get(remote, {}).values()
            if (turn_id is None or row.id == turn_id) and (row.unsettled or not unsettled)
        ]

    async def _commit(self, change: Change) -> bool:
        self._check_open()
        turn, kept = change.turn, change.conversation
        if kept is not None:
            known = self._conversations.get(self._ids.get(kept.remote, ""))
            if kept.revision != (0 if known is None else known.revision):
                return False
            if known is None:
                insort(self._order, kept.id)
            self._conversations[kept.id] = evolve(kept, revision=kept.revision + 1)
            self._ids[kept.remote] = kept.id
            self._messages.setdefault(kept.id, []).extend(change.entries)
        if turn is not None:
            self._rows.setdefault(turn.remote, {})[turn.id] = turn
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", kind="closed")
