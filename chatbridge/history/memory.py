"""A store in memory: what a bridge has unless it is given another."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

from attrs import define, evolve, field

from chatbridge.errors import StoreError
from chatbridge.history.chain import Entry
from chatbridge.history.rows import Change, Remote, StoredConversation, TurnRow
from chatbridge.history.store import Store

__all__ = ["MemoryStore"]

_TICK = timedelta(microseconds=1)


@define(eq=False)
class _Shelf:
    """What there is of one conversation."""

    kept: StoredConversation
    entries: list[Entry] = field(factory=list[Entry])
    # How many of its first messages are no longer there.
    gone: int = 0
    turns: dict[str, TurnRow] = field(factory=dict[str, TurnRow])
    unsettled: dict[str, TurnRow] = field(factory=dict[str, TurnRow])
    until: float = 0.0

    @property
    def may_go(self) -> bool:
        return self.until <= time.monotonic() and not any(row.turn.blocks for row in self.unsettled.values())


class MemoryStore(Store):
    """
    Keeps what was used last for as long as the program runs.

    Args:
        keeps: How many conversations and messages together: beyond that, the conversations that were used
            longest ago are forgotten, and the first messages of one that is longer; nothing in doubt is.
        turns: How many turns that block nothing, of all conversations.
    """

    lease = math.inf
    durable = False

    def __init__(self, *, keeps: int = 10_000, turns: int = 1_000) -> None:
        self._keeps = keeps
        self._keeps_turns = turns
        # The last used is the last.
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._ids: dict[Remote, str] = {}
        self._settled: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._size = 0
        self._now = datetime.min.replace(tzinfo=UTC)
        self._closed = False

    async def open(self) -> None:
        """Do nothing: it is open until it is closed."""
        self._check_open()

    async def close(self) -> None:
        """Let nobody use it any more."""
        self._closed = True

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        self._check_open()
        shelf = self._shelf(which)
        if shelf is None:
            return None
        if shelf.until in {0.0, math.inf}:
            return shelf.kept
        return evolve(shelf.kept, held_for=shelf.until - time.monotonic())

    async def _list(
        self, backend: str | None, behind: StoredConversation | None, limit: int
    ) -> Sequence[StoredConversation]:
        self._check_open()
        last = None if behind is None else behind.used_at
        rows = (shelf.kept for shelf in reversed(self._shelves.values()))
        found = (
            kept
            for kept in rows
            if backend in {None, kept.remote.backend}
            and (last is None or (kept.used_at is not None and kept.used_at < last))
        )
        return list(islice(found, limit))

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        self._check_open()
        shelf = self._shelves.get(conversation_id)
        return [] if shelf is None else shelf.entries[max(start - shelf.gone, 0) : max(stop - shelf.gone, 0)]

    async def _turns(
        self, remote: Remote | None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[TurnRow]:
        self._check_open()
        shelf = None if remote is None else self._shelf(remote)
        shelves = self._shelves.values() if remote is None else () if shelf is None else (shelf,)
        rows = [each.unsettled if unsettled else each.turns for each in shelves]
        if turn_id is not None:
            return [each[turn_id] for each in rows if turn_id in each]
        return [row for each in rows for row in each.values()]

    async def _commit(self, change: Change) -> bool:
        self._check_open()
        kept = change.conversation
        shelf = self._shelf(kept.remote)
        if kept.revision != (0 if shelf is None else shelf.kept.revision):
            return False
        if shelf is None:
            shelf = self._shelves[kept.id] = _Shelf(kept)
            self._ids[kept.remote] = kept.id
            self._size += 1
        if change.lease is not None:
            shelf.until = time.monotonic() + change.lease if change.lease else 0.0
        self._now = max(datetime.now(UTC), self._now + _TICK)
        shelf.kept = evolve(
            kept,
            revision=kept.revision + 1,
            used_at=self._now,
            held_for=math.inf if shelf.until == math.inf else 0.0,
        )
        self._shelves.move_to_end(kept.id)
        self._put(shelf, change)
        return True

    def _put(self, shelf: _Shelf, change: Change) -> None:
        if change.start is not None:
            stays = max(change.start - shelf.gone, 0)
            self._size -= len(shelf.entries) - stays
            del shelf.entries[stays:]
        shelf.entries.extend(change.entries)
        self._size += len(change.entries)
        for row in change.turns:
            shelf.turns[row.turn.id] = row
            if row.turn.unsettled:
                shelf.unsettled[row.turn.id] = row
            else:
                shelf.unsettled.pop(row.turn.id, None)
            place = shelf.kept.id, row.turn.id
            self._settled.pop(place, None)
            if not row.turn.blocks:
                self._settled[place] = None
        self._make_room(shelf)

    def _make_room(self, used: _Shelf) -> None:
        while len(self._settled) > self._keeps_turns:
            (name, turn_id), _ = self._settled.popitem(last=False)
            self._shelves[name].turns.pop(turn_id, None)
            self._shelves[name].unsettled.pop(turn_id, None)
        while self._size > self._keeps:
            oldest = next((each for each in self._shelves.values() if each is not used and each.may_go), None)
            if oldest is not None:
                self._drop(oldest)
            elif used.entries:
                first = used.entries.pop(0)
                if used.entries:
                    used.entries[0].parent = first.hash
                used.gone += 1
                self._size -= 1
            else:
                break

    async def _forget(self, conversation_id: str) -> None:
        self._check_open()
        shelf = self._shelves.get(conversation_id)
        if shelf is not None:
            self._drop(shelf)

    def _drop(self, shelf: _Shelf) -> None:
        del self._shelves[shelf.kept.id]
        del self._ids[shelf.kept.remote]
        self._size -= 1 + len(shelf.entries)
        for turn_id in shelf.turns:
            self._settled.pop((shelf.kept.id, turn_id), None)

    def _shelf(self, which: str | Remote) -> _Shelf | None:
        return self._shelves.get(self._ids.get(which, "") if isinstance(which, Remote) else which)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", kind="closed")
