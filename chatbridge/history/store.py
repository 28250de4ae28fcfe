"""
What a store is: six primitives over rows, and everything else made of them.

A conversation is known by an id of the store's own, and by where it is kept: the backend, and its id there.
Its messages are a chain (`chatbridge.history.chain`). Its turns are what `chatbridge.turns` says, each
written before anything of its message leaves.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, Self, TypeVar

from attrs import evolve, frozen

from chatbridge.domain import Conversation, Message, Reply
from chatbridge.errors import UsageError, WrongBackend
from chatbridge.history.chain import Entry, entries_of
from chatbridge.history.codec import dump, load
from chatbridge.text import quoted
from chatbridge.turns import Turn, TurnState

__all__ = ["Change", "Remote", "Store", "StoreLedger", "StoredConversation", "TurnRow"]

T = TypeVar("T")


@frozen
class Remote:
    """Where a conversation is kept: its backend's name, its id there, and whose it is, if that is told."""

    backend: str
    id: str
    account: str | None = None


@frozen
class StoredConversation:
    """
    A conversation as a store has it.

    Attributes:
        id: The store's own id of it; later ones are greater.
        remote: Where it is kept.
        conversation: What its backend last told of it.
        length: How many messages of it the store has.
        head: The identity of the last of them.
        revision: How often the row was written; 0 while it is not in the store.
    """

    __hash__ = None  # type: ignore[assignment]  # nor has a conversation one

    id: str
    remote: Remote
    conversation: Conversation
    length: int = 0
    head: str | None = None
    revision: int = 0


@frozen
class TurnRow:
    """A turn as it is written; *unsettled* is what is asked for most."""

    remote: Remote
    id: str
    unsettled: bool
    body: str


@frozen
class Change:
    """
    What is written at once, or not at all.

    Attributes:
        turn: Replaces the turn of its id; a new one comes behind the others.
        conversation: As it will be, but for its revision, which is the one that it must have until then.
        entries: The last of its messages, which are new.
    """

    turn: TurnRow | None = None
    conversation: StoredConversation | None = None
    entries: tuple[Entry, ...] = ()


class Store(ABC):
    """
    Keeps conversations, their messages and turns, for any number of bridges and tasks.

    A subclass has the methods that are abstract here. They raise StoreError and nothing else; what
    `_commit` has written outlasts the process, where the store does.
    """

    # How many rows are read at once.
    PAGE = 100

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way, and free what the store holds; closing again does nothing."""

    @abstractmethod
    async def _find(self, which: str | Remote) -> StoredConversation | None:
        """Give a conversation by the store's id or by where it is kept."""

    @abstractmethod
    async def _list(
        self, backend: str | None, before: str | None, limit: int
    ) -> Sequence[StoredConversation]:
        """Give conversations, the last made first: of *backend* only, and with ids below *before* only."""

    @abstractmethod
    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        """Give the messages of the store's conversation with the numbers from *start* up to *stop*."""

    @abstractmethod
    async def _turns(
        self, remote: Remote, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[str]:
        """Give the bodies of the turns of a conversation, oldest first: of one id, or the unsettled, only."""

    @abstractmethod
    async def _commit(self, change: Change) -> bool:
        """Write *change*; False, and nothing written, where its conversation has another revision."""

    def ledger(self, backend: str) -> StoreLedger:
        """Give the turns of the conversations that *backend* keeps."""
        return StoreLedger(self, backend)

    async def conversation(self, conversation_id: str, backend: str) -> StoredConversation:
        """
        Give the conversation with this id of the store's, for use through *backend*.

        Raises:
            WrongBackend: Another backend keeps it.
            UsageError: There is none.
        """
        kept = await self._find(conversation_id)
        if kept is None:
            raise UsageError(
                f"the store has no conversation {quoted(conversation_id)}; store.conversations() lists them"
            )
        if kept.remote.backend != backend:
            raise WrongBackend(conversation=conversation_id, backend=backend, kept_by=kept.remote.backend)
        return kept

    async def find(self, remote: Remote) -> StoredConversation | None:
        """Give the conversation that is kept there; None where the store has none."""
        return await self._find(remote)

    async def conversations(self, backend: str | None = None) -> AsyncGenerator[StoredConversation, None]:
        """List the conversations, the last made first, all or those of one *backend*."""
        before: str | None = None
        while page := await self._list(backend, before, self.PAGE):
            for kept in page:
                yield kept
            before = page[-1].id

    async def messages(
        self, conversation_id: str, *, limit: int | None = None, newest_first: bool = False
    ) -> AsyncGenerator[Message, None]:
        """
        Read the messages of a conversation by its id in the store, page by page.

        Those that are added meanwhile do not come.
        """
        kept = await self._find(conversation_id)
        length = 0 if kept is None else kept.length
        wanted = length if limit is None else min(limit, length)
        for done in range(0, wanted, self.PAGE):
            upto = min(done + self.PAGE, wanted)
            start, stop = (length - upto, length - done) if newest_first else (done, upto)
            page = await self._read(conversation_id, start, stop)
            for entry in reversed(page) if newest_first else page:
                yield entry.message

    async def keep(
        self, backend: str, told: Conversation, history: Iterable[Message] = ()
    ) -> StoredConversation:
        """
        Take in what *backend* has *told* of a conversation; what it leaves out stays as it was.

        *history* is added to its messages.
        """
        work = self._write(Remote(backend, told.id), told=told, messages=tuple(history))
        return await _to_its_end(work)

    async def append(self, remote: Remote, messages: Iterable[Message]) -> StoredConversation:
        """Add *messages* to a conversation."""
        return await _to_its_end(self._write(remote, messages=tuple(messages)))

    async def record(self, remote: Remote, turn: Turn, answer: Reply | None = None) -> None:
        """Keep *turn*; at once with it, its message and *answer* once it is delivered."""
        row = TurnRow(remote, turn.id, turn.unsettled, dump(turn, Turn))
        answer = turn.reply if answer is None else answer
        if turn.state is TurnState.DELIVERED and answer is not None:
            await _to_its_end(
                self._write(remote, turn=turn, row=row, messages=(turn.message, *answer.messages))
            )
        else:
            await _to_its_end(self._commit(Change(row)))

    async def turns(
        self, remote: Remote, turn_id: str | None = None, *, unsettled: bool = False
    ) -> tuple[Turn, ...]:
        """Give the turns of a conversation, oldest first: of one id, or the unsettled, only."""
        return tuple(load(body, Turn) for body in await self._turns(remote, turn_id, unsettled=unsettled))

    async def _write(
        self,
        remote: Remote,
        *,
        told: Conversation | None = None,
        messages: tuple[Message, ...] = (),
        turn: Turn | None = None,
        row: TurnRow | None = None,
    ) -> StoredConversation:
        """Change a conversation, made if there is none; begin again when another writer was faster."""
        while True:
            kept = await self._find(remote)
            if kept is None:
                kept = StoredConversation(
                    _new_id(), remote, evolve(told or Conversation(remote.id), warnings=())
                )
            elif told is not None:
                kept = evolve(kept, conversation=_merged(kept.conversation, told))
            written = turn is not None and await self._has(remote, turn)
            entries = () if written else tuple(entries_of(messages, kept.head))
            if entries:
                kept = evolve(kept, length=kept.length + len(entries), head=entries[-1].hash)
            if await self._commit(Change(row, kept, entries)):
                return evolve(kept, revision=kept.revision + 1)

    async def _has(self, remote: Remote, turn: Turn) -> bool:
        """Tell whether the answer to this sending of *turn* is here already: a record may be repeated."""
        return any(
            known.state is TurnState.DELIVERED and known.sends == turn.sends
            for known in await self.turns(remote, turn.id)
        )


class StoreLedger:
    """The turns in a store of the conversations that one backend keeps: a `Ledger`."""

    def __init__(self, store: Store, backend: str) -> None:
        self._store = store
        self._backend = backend

    async def record(self, turn: Turn, answer: Reply | None = None) -> None:
        """Keep *turn*, in place of what is kept under its id, and with it the *answer* that came."""
        await self._store.record(Remote(self._backend, turn.conversation_id), turn, answer)

    async def find(self, conversation_id: str, turn_id: str) -> Turn | None:
        """Give a turn; None where it is not known."""
        found = await self._store.turns(Remote(self._backend, conversation_id), turn_id)
        return found[0] if found else None

    async def turns(self, conversation_id: str) -> Sequence[Turn]:
        """Give the turns of a conversation, oldest first."""
        return await self._store.turns(Remote(self._backend, conversation_id))

    async def unsettled(self, conversation_id: str) -> Sequence[Turn]:
        """Give those of them that are pending, unknown or accepted, oldest first."""
        return await self._store.turns(Remote(self._backend, conversation_id), unsettled=True)


def _new_id() -> str:
    return f"{time.time_ns():016x}{token_hex(6)}"


def _merged(old: Conversation, new: Conversation) -> Conversation:
    return evolve(
        new,
        title=old.title if new.title is None else new.title,
        system=old.system if new.system is None else new.system,
        created_at=new.created_at or old.created_at,
        updated_at=new.updated_at or old.updated_at,
        warnings=(),
    )


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await *work*; who is cancelled meanwhile waits for its end first, so that what was begun is written."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # Nobody is left to be told.
        raise
