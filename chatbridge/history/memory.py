"""A store in memory: what a bridge has unless it is given another."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from secrets import token_hex
from typing import cast

from attrs import define, field

from chatbridge.domain import (
    Attachment,
    Conversation,
    Message,
    Part,
    Reasoning,
    Reply,
    Text,
    ToolCall,
    ToolResult,
)
from chatbridge.errors import StoreError
from chatbridge.history.chain import Entry, entries_of
from chatbridge.history.known import check_answer, check_holder, died, settled
from chatbridge.history.late import to_be_added
from chatbridge.history.rows import Change, Hold, Remote, StoredConversation, TurnRow
from chatbridge.history.store import Store
from chatbridge.turns import Turn, TurnState

__all__ = ["MemoryStore", "size_of"]

_TICK = timedelta(microseconds=1)


@define(eq=False)
class _Shelf:
    """What there is of one conversation."""

    id: str
    remote: Remote
    conversation: Conversation
    used_at: datetime
    entries: list[Entry] = field(factory=list[Entry])
    # How many of its first messages are no longer there.
    gone: int = 0
    turns: dict[str, TurnRow] = field(factory=dict[str, TurnRow])
    unsettled: dict[str, TurnRow] = field(factory=dict[str, TurnRow])
    revision: int = 0
    holder: str | None = None
    until: float = 0.0
    # The event loop that its holder runs in: who is in the middle of something when it is closed never ends.
    loop: asyncio.AbstractEventLoop | None = None
    created: bool = False
    used: bool = False
    deleted: bool = False

    @property
    def is_held(self) -> bool:
        return self.held_for > 0

    @property
    def held_for(self) -> float:
        over = not self.until or (self.loop is not None and self.loop.is_closed())
        return 0.0 if over else self.until - time.monotonic()

    def hold(self, lease: float) -> None:
        self.until = time.monotonic() + lease if lease else 0.0
        self.loop = asyncio.get_running_loop() if lease else None

    @property
    def may_go(self) -> bool:
        return not self.is_held and not any(row.turn.blocks for row in self.unsettled.values())

    @property
    def tip(self) -> Entry | None:
        return self.entries[-1] if self.entries else None

    @property
    def kept(self) -> StoredConversation:
        return StoredConversation(
            id=self.id,
            remote=self.remote,
            conversation=self.conversation,
            length=self.gone + len(self.entries),
            gone=self.gone,
            tip=self.tip,
            revision=self.revision,
            holder=self.holder,
            held_for=self.held_for,
            used_at=self.used_at,
            created=self.created,
            used=self.used,
            deleted=self.deleted,
        )


class MemoryStore(Store):
    """
    Keeps what was used last for as long as the program runs.

    Nobody else has it, so who holds a conversation holds it until it is released, or its event loop closed.

    Args:
        keeps: How many conversations and messages together. Of the conversation written longest ago the first
            messages are forgotten beyond that, and at last it; no turn that is in doubt is, nor does a
            conversation count of which nothing else is left.
        size: How many characters and bytes of content in all messages together, with the same end. At most
            half of them are in turns of which no message is there and nothing more can be known, as refused
            ones. A turn whose message may be in a conversation that a server keeps takes none of this room.
        turns: How many turns that block nothing, of all conversations.
    """

    lease = math.inf
    durable = False

    def __init__(self, *, keeps: int = 1_000, size: int = 64 * 2**20, turns: int = 1_000) -> None:
        self._keeps = keeps
        self._keeps_size = size
        self._keeps_turns = turns
        # The last used is the last.
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._ids: dict[Remote, str] = {}
        self._settled: OrderedDict[tuple[str, str], None] = OrderedDict()
        # How much content those of them have of which no message is there.
        self._alone: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._alone_size = 0
        # Of what something may go, the last written last: what may not is looked through by nobody.
        self._room: OrderedDict[str, _Shelf] = OrderedDict()
        self._count = 0
        self._size = 0
        self._now = datetime.min.replace(tzinfo=UTC)
        self._closed = False

    async def open(self, *, write: bool = False) -> None:  # noqa: ARG002 - it always can be
        """Do nothing: it is open until it is closed."""
        self._check_open()

    async def close(self) -> None:
        """Let nobody use it any more."""
        self._closed = True

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        shelf = self._shelf(which)
        return None if shelf is None else shelf.kept

    async def _list(
        self, backend: str | None, behind: StoredConversation | None, limit: int
    ) -> Sequence[StoredConversation]:
        self._check_open()
        last = None if behind is None else behind.used_at
        found = (
            shelf.kept
            for shelf in reversed(self._shelves.values())
            if backend in {None, shelf.remote.backend} and (last is None or shelf.used_at < last)
        )
        return list(islice(found, limit))

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        shelf = self._shelf(conversation_id)
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
        kept = change.conversation
        shelf = self._shelf(kept.remote)
        if kept.revision != (0 if shelf is None else shelf.revision):
            return False
        shelf = self._at(kept)
        shelf.conversation, shelf.holder = kept.conversation, kept.holder
        shelf.created, shelf.used, shelf.deleted = kept.created, kept.used, kept.deleted
        if change.lease is not None:
            shelf.hold(change.lease)
        if change.start is not None:
            stays = max(change.start - shelf.gone, 0)
            goes = shelf.entries[stays:]
            self._account_for(goes, -1)
            for entry in goes:
                place = shelf.id, entry.message.id or ""
                turn = shelf.turns.get(place[1])
                if turn is not None and not turn.turn.unsettled and place not in self._alone:
                    self._leave_alone(place, size_of(entry.message))
            del shelf.entries[stays:]
            shelf.gone = min(shelf.gone, change.start)
        self._put(shelf, change.entries, change.turns, use=change.use or not kept.revision)
        return True

    # The next three do in one step, and without a copy of the row, what they do in every store.

    async def hold(self, remote: Remote, holder: str) -> Hold:
        """Try to hold a conversation for *holder*, to send something to it."""
        shelf = self._at(remote)
        before = shelf.holder
        if before != holder:
            if shelf.is_held:
                return Hold.BUSY
            dead = [row for row in shelf.unsettled.values() if row.turn.state is TurnState.PENDING]
            self._put(shelf, turns=map(died, dead))
        shelf.holder = holder
        shelf.hold(self.lease)
        shelf.revision += 1
        return Hold.OURS if before == holder else Hold.AFTER_ANOTHER

    async def release(self, remote: Remote, holder: str, *, lease: float = 0.0) -> bool:
        """Let others hold a conversation that *holder* has held."""
        shelf = self._shelf(remote)
        if shelf is None or shelf.holder != holder or (lease and not shelf.is_held):
            return False
        shelf.hold(lease)
        shelf.revision += 1
        self._sort(shelf)
        return True

    async def record(
        self,
        remote: Remote,
        turn: Turn,
        answer: Reply | None = None,
        *,
        holder: str | None = None,
        last: bool = False,
        sends: int = 0,
        kept_here: bool = False,
    ) -> Turn:
        """Keep *turn* and give it; with it, its message and *answer* once it is delivered."""
        shelf = self._shelf(remote)
        there = None if shelf is None else shelf.holder
        check_holder(turn, there, holder)
        known = None if shelf is None else shelf.turns.get(turn.id)
        turn, said = settled(None if known is None else known.turn, turn, answer, sends)
        if said and kept_here:
            check_answer(there, holder)
        if shelf is None:
            if holder is not None:
                return turn  # It was forgotten meanwhile.
            shelf = self._at(remote)
        if said and turn.reply is not None:
            turns = [row.turn for row in shelf.turns.values()]
            said = to_be_added(said, turn, turns, shelf.entries[-len(said) :])
        shelf.used = True
        if last and shelf.holder == holder:
            shelf.hold(0.0)
        use = turn.state is TurnState.PENDING
        row = TurnRow(remote, turn)
        self._put(shelf, entries_of(said, shelf.tip), (row,), use=use, kept_here=kept_here)
        return turn

    def _at(self, place: Remote | StoredConversation) -> _Shelf:
        """Give the shelf of a conversation, a new one if there is none."""
        remote = place if isinstance(place, Remote) else place.remote
        shelf = self._shelf(remote)
        if shelf is None:
            name = token_hex(8) if isinstance(place, Remote) else place.id
            shelf = _Shelf(name, remote, Conversation(remote.id), self._tick())
            self._shelves[name], self._ids[remote] = shelf, name
        return shelf

    def _tick(self) -> datetime:
        """Give a time after all others."""
        self._now = max(datetime.now(UTC), self._now + _TICK)
        return self._now

    def _put(
        self,
        shelf: _Shelf,
        entries: Iterable[Entry] = (),
        turns: Iterable[TurnRow] = (),
        *,
        use: bool = False,
        kept_here: bool = False,
    ) -> None:
        """Add to a conversation, which is the last used then, where that is a *use* of it."""
        if use:
            shelf.used_at = self._tick()
            self._shelves.move_to_end(shelf.id)
        shelf.revision += 1
        new = tuple(entries)
        shelf.entries += new
        self._account_for(new)
        for row in turns:
            self._put_turn(shelf, row, kept_here=kept_here)
        self._make_room(shelf)

    def _put_turn(self, shelf: _Shelf, row: TurnRow, *, kept_here: bool) -> None:
        turn = row.turn
        shelf.turns[turn.id] = row
        if turn.unsettled:
            shelf.unsettled[turn.id] = row
        else:
            shelf.unsettled.pop(turn.id, None)
        place = shelf.id, turn.id
        self._unsettle(place)
        if not turn.blocks:
            self._settled[place] = None
            # A message that a server may have could be sent to it again, were its turn forgotten.
            over = not turn.unsettled or (kept_here and turn.earlier is None)
            if over and turn.state is not TurnState.DELIVERED:
                self._leave_alone(place, size_of(turn.message) + len(turn.partial))

    def _make_room(self, shelf: _Shelf) -> None:
        """Forget what there is no room for, now that *shelf* was written."""
        while len(self._settled) > self._keeps_turns:
            self._drop_turn(next(iter(self._settled)))
        while 2 * self._alone_size > self._keeps_size:
            self._drop_turn(next(iter(self._alone)))
        self._sort(shelf)
        while self._is_full:
            first = next(iter(self._room.values()))
            if first.entries:
                self._drop_first(first)
            elif first is shelf:
                break
            elif first.may_go:
                self._drop(first)
            else:
                del self._room[first.id]

    def _sort(self, shelf: _Shelf) -> None:
        """Note whether anything of a conversation may go; then it is the last that does."""
        self._room.pop(shelf.id, None)
        if shelf.entries or shelf.may_go:
            self._room[shelf.id] = shelf

    @property
    def _is_full(self) -> bool:
        return self._count + len(self._room) > self._keeps or self._size > self._keeps_size

    def _drop_first(self, shelf: _Shelf) -> None:
        """Forget as many of the first messages of a conversation as there is no room for."""
        dropped = 0
        for entry in shelf.entries:
            if not self._is_full:
                break
            dropped += 1
            self._account_for((entry,), -1)
            place = shelf.id, entry.message.id or ""  # The id of a message that was sent is that of its turn.
            if place in self._settled:
                self._drop_turn(place)
        del shelf.entries[:dropped]
        shelf.gone += dropped
        if shelf.entries:
            shelf.entries[0].parent = None  # Else it would keep what is dropped.

    def _account_for(self, entries: Sequence[Entry], sign: int = 1) -> None:
        self._count += sign * len(entries)
        self._size += sign * sum(size_of(entry.message) for entry in entries)

    async def _forget(self, conversation_id: str, revision: int | None = None) -> None:
        shelf = self._shelf(conversation_id)
        if shelf is not None and revision in {None, shelf.revision}:
            self._drop(shelf)

    def _drop(self, shelf: _Shelf) -> None:
        del self._shelves[shelf.id]
        del self._ids[shelf.remote]
        self._room.pop(shelf.id, None)
        self._account_for(shelf.entries, -1)
        for turn_id in shelf.turns:
            self._unsettle((shelf.id, turn_id))

    def _leave_alone(self, place: tuple[str, str], size: int) -> None:
        """Count *size* for a turn of which no message is there."""
        self._alone[place] = size
        self._alone_size += size
        self._size += size

    def _unsettle(self, place: tuple[str, str]) -> None:
        self._settled.pop(place, None)
        size = self._alone.pop(place, 0)
        self._alone_size -= size
        self._size -= size

    def _drop_turn(self, place: tuple[str, str]) -> None:
        self._unsettle(place)
        name, turn_id = place
        self._shelves[name].turns.pop(turn_id, None)
        self._shelves[name].unsettled.pop(turn_id, None)

    def _shelf(self, which: str | Remote) -> _Shelf | None:
        self._check_open()
        return self._shelves.get(self._ids.get(which, "") if isinstance(which, Remote) else which)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", kind="closed")


def size_of(message: Message) -> int:
    """Tell how much content *message* has, in characters and bytes."""
    return sum(map(_size, message.parts))


def _size(part: Part) -> int:
    """Tell how much of the content of *part* may be large."""
    if isinstance(part, Text | Reasoning):
        return len(part.text)
    if isinstance(part, Attachment):
        return len(part.data or part.url or "")
    if isinstance(part, ToolResult):
        return len(part.content)
    return _size_of_json(part.arguments if isinstance(part, ToolCall) else part.data)


def _size_of_json(document: object) -> int:
    """Tell about how long *document* is, each number being taken for a short one."""
    size = 0
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, Mapping):
            items = cast(Mapping[str, object], value)
            waiting += items.keys()
            waiting += items.values()
        elif isinstance(value, list | tuple):
            waiting += cast(Sequence[object], value)
        else:
            size += 1
    return size
