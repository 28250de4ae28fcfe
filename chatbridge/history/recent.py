"""The histories that were read last, so that a store need not read again what it has read before."""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field

from chatbridge.domain import Message
from chatbridge.history.memory import size_of
from chatbridge.history.rows import StoredConversation
from chatbridge.history.store import Store

__all__ = ["Recent"]


@define(eq=False)
class _Read:
    messages: list[Message] = field(factory=list[Message])
    head: str | None = None
    size: int = 0


class Recent:
    """
    Reads whole histories from a store.

    Of one that was read before only what is new is read: the identity of its last message tells whether all
    before is as it was. What a store has in memory is not kept twice.
    """

    # How much is kept, by the size of content.
    SIZE = 16 * 2**20
    # What a message takes beside its content.
    MESSAGE = 1000

    def __init__(self, store: Store) -> None:
        self._store = store
        # The last read is the last.
        self._reads: OrderedDict[str, _Read] = OrderedDict()
        self._size = 0

    async def messages(self, kept: StoredConversation) -> list[Message]:
        """Give the messages of a conversation, in a list of the caller's own."""
        if not self._store.durable:
            return [message async for message in self._store.messages(kept.id)]
        read = self._take(kept.id) or _Read()
        if not await self._read_on(kept, read):
            read = _Read()
            await self._read_on(kept, read)
        self._take(kept.id)  # Another task may have read it meanwhile.
        if read.messages:
            self._reads[kept.id] = read
            self._size += read.size
        messages = read.messages.copy()
        while self._size > self.SIZE:
            self._take(next(iter(self._reads)))
        return messages

    def _take(self, conversation_id: str) -> _Read | None:
        read = self._reads.pop(conversation_id, None)
        if read is not None:
            self._size -= read.size
        return read

    async def _read_on(self, kept: StoredConversation, read: _Read) -> bool:
        """Read what is new; False if what was read before is no longer the beginning."""
        start = len(read.messages)
        async for entry in self._store.entries(kept.id, start=max(start - 1, 0)):
            if start and entry.hash != read.head:
                return False
            if not start:
                read.messages.append(entry.message)
                read.size += size_of(entry.message) + self.MESSAGE
                read.head = entry.hash
            start = 0
        return not start
