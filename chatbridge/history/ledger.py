"""The turns of one bridge in its store, and the conversations that it holds there."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import suppress

from attrs import evolve

from chatbridge.domain import Conversation, Message, Reply
from chatbridge.errors import StoreError
from chatbridge.history.holders import new_holder
from chatbridge.history.rows import Hold, Remote, StoredConversation
from chatbridge.history.store import Store
from chatbridge.turns import Turn

__all__ = ["Ledger"]

Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class Ledger:
    """
    What one bridge has in a store: the turns of the conversations that its backend keeps.

    Attributes:
        store: The store.
        later: Takes the place of the event loop's `call_later`.
        late: Begins to record what the store did not take, and gives the conversations of it. It is called
            with each renewal.

    Args:
        store: The store.
        backend: The backend's name.
        account: Whose conversations, and on which of its servers; None where there is but one.
        kept_here: Whether the backend keeps nothing, and the store is all that there is of a conversation.
    """

    # How often it says that it still holds what it holds, within the time for which it does.
    RENEWALS = 3

    def __init__(
        self, store: Store, backend: str, account: str | None = None, *, kept_here: bool = False
    ) -> None:
        self.store = store
        self.later: Later | None = None
        self.late: Callable[[], Collection[str]] = tuple
        self._backend = backend
        self._account = account
        self._kept_here = kept_here
        self._holder = ""
        self._process: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # What is held, and by which attempt.
        self._held: dict[str, object] = {}
        # What is to be free with the last word on a message, which is not written yet.
        self._leaving: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None

    @property
    def holder(self) -> str:
        """The name under which the bridge holds conversations; after a fork each process has its own."""
        if self._process != os.getpid():
            self._holder, self._process = new_holder(), os.getpid()
            self._held.clear()
            self._leaving.clear()
        return self._holder

    def remote(self, conversation_id: str) -> Remote:
        """Say where a conversation of the backend is kept."""
        return Remote(self._backend, conversation_id, self._account)

    async def conversations(self) -> AsyncGenerator[StoredConversation, None]:
        """List the conversations of the backend and the account, the last used first."""
        async for kept in self.store.conversations(self._backend):
            if kept.remote.account == self._account:
                yield kept

    async def orphans(self, older_than: float, *, empty: bool) -> AsyncGenerator[Conversation, None]:
        """
        List those that were made here and never used.

        Args:
            older_than: Seconds since they were made; with 0 all.
            empty: Whether those that were made with messages are left out.
        """
        now = await self.store.now()
        async for kept in self.conversations():
            age = 0.0 if kept.used_at is None else (now - kept.used_at).total_seconds()
            unused = kept.created and not kept.used and not kept.deleted and not (empty and kept.length)
            if unused and (not older_than or age >= older_than):
                yield kept.conversation

    async def messages(
        self, kept: StoredConversation, limit: int | None = None, *, newest_first: bool = False
    ) -> AsyncGenerator[Message, None]:
        """Read the messages of a conversation; one without an id has its identity for one."""
        async for entry in self.store.entries(kept.id, limit=limit, newest_first=newest_first):
            yield entry.message if entry.message.id else evolve(entry.message, id=entry.hash)

    async def hold(self, conversation_id: str) -> Hold:
        """Try to hold a conversation until it is released."""
        remote = self.remote(conversation_id)
        await self._enter_loop()
        try:
            hold = await self.store.hold(remote, self.holder)
        except BaseException:  # Perhaps it is held all the same.
            with suppress(StoreError):
                await self.store.release(remote, self.holder)
            raise
        if hold is not Hold.BUSY:
            self._held[conversation_id] = object()
            self._leaving.discard(conversation_id)
            self._plan()
        return hold

    def holds(self, conversation_id: str) -> bool:
        """Tell whether the conversation is held, and not only until the last word on it is written."""
        return conversation_id in self._held

    async def release(self, conversation_id: str) -> None:
        """Let others hold the conversation, if it is still held here."""
        if self._held.pop(conversation_id, None) is not None:
            await self.store.release(self.remote(conversation_id), self.holder)

    async def drop_if_empty(self, conversation_id: str) -> None:
        """Forget the conversation where nothing but that it is held was ever known of it."""
        kept = await self.store.find(self.remote(conversation_id))
        if kept is not None and not (kept.created or kept.used or kept.length):
            await self.store.forget(kept.id, revision=kept.revision)

    async def renew(self) -> None:
        """Say that all that is held is still held; what cannot be told now is told the next time."""
        held = {
            each: self._held.get(each) for each in self._leaving.intersection(self.late()).union(self._held)
        }
        for conversation_id, hold in held.items():
            with suppress(StoreError):
                remote, lease = self.remote(conversation_id), self.store.lease
                still = await self.store.release(remote, self.holder, lease=lease)
                if not still and hold is not None and self._held.get(conversation_id) is hold:
                    del self._held[conversation_id]

    async def _enter_loop(self) -> None:
        """Leave what is planned in another event loop to it; release what was held in one that is closed."""
        before, loop = self._loop, asyncio.get_running_loop()
        if before is not loop:
            self._loop, self._timer, self._renewing = loop, None, None
            if before is not None and before.is_closed():
                await self._release_all()

    def _plan(self) -> None:
        if self._timer is None and (self._held or self._leaving) and math.isfinite(self.store.lease):
            later = self.later or asyncio.get_running_loop().call_later
            self._timer = later(self.store.lease / self.RENEWALS, self._begin)

    def _begin(self) -> None:
        self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        await self.renew()
        self._timer = None
        self._plan()

    async def close(self) -> None:
        """Release everything."""
        await self._enter_loop()
        if self._timer is not None:
            self._timer.cancel()
        if self._renewing is not None:
            await asyncio.wait([self._renewing])
        await self._release_all()

    async def _release_all(self) -> None:
        held = self._leaving.union(self._held)
        self._held.clear()
        self._leaving.clear()
        for conversation_id in held:
            with suppress(StoreError):
                await self.store.release(self.remote(conversation_id), self.holder)

    async def record(
        self, turn: Turn, answer: Reply | None = None, *, last: bool = False, sends: int = 0
    ) -> Turn:
        """
        Keep *turn*, in place of what is kept under its id, and with it the *answer* that came; give it.

        Args:
            turn: What is known of the message.
            answer: The answer, if it is not in the turn.
            last: Whether the conversation is then released.
            sends: How often the message was sent, where the last time came to nothing.
        """
        if last and self._held.pop(turn.conversation_id, None) is not None:
            self._leaving.add(turn.conversation_id)
        turn = await self.store.record(
            self.remote(turn.conversation_id),
            turn,
            answer,
            holder=self.holder,
            last=last,
            sends=sends,
            kept_here=self._kept_here,
        )
        if last:
            self._leaving.discard(turn.conversation_id)
        return turn

    async def waive(self, conversation_id: str, turn_id: str) -> Turn | None:
        """Note that the doubt about a turn may stand, and give it as it is now; None where there is none."""
        return await self.store.waive(self.remote(conversation_id), turn_id)

    async def find(self, conversation_id: str, turn_id: str) -> Turn | None:
        """Give a turn; None where it is not known."""
        found = await self.store.turns(self.remote(conversation_id), turn_id)
        return found[0].turn if found else None

    async def turns(self, conversation_id: str) -> Sequence[Turn]:
        """Give the turns of a conversation, oldest first."""
        return tuple(row.turn for row in await self.store.turns(self.remote(conversation_id)))

    async def unsettled(self, conversation_id: str) -> Sequence[Turn]:
        """Give those of them that are pending, unknown or accepted, oldest first."""
        rows = await self.store.turns(self.remote(conversation_id), unsettled=True)
        return tuple(row.turn for row in rows)
