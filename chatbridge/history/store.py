"""
What a store is: a handful of primitives over rows, and everything else made of them.

A conversation is known by an id of the store's own, and by where it is kept: the backend, the account, and
its id there. Its messages are a chain (`chatbridge.history.chain`). Its turns are what `chatbridge.turns`
says, each written before anything of its message leaves. Who sends to a conversation holds it: no other does
meanwhile, in whatever process.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Self, TypeVar

from attrs import evolve

from chatbridge.domain import Conversation, Message, Reply
from chatbridge.errors import UsageError, WrongBackend
from chatbridge.history.chain import Entry, entries_of
from chatbridge.history.known import check_answer, check_holder, died, is_held, merged, settled
from chatbridge.history.late import to_be_added
from chatbridge.history.rows import Change, Hit, Hold, Remote, StoredConversation, TurnRow
from chatbridge.text import quoted
from chatbridge.turns import Turn, TurnState

__all__ = ["Store"]

T = TypeVar("T")


class Store(ABC):
    """
    Keeps conversations, their messages and turns, for any number of bridges and tasks.

    A subclass has these methods, of which `chatbridge.testing.store_contract` checks that they do what they
    say in their own descriptions; all else is made of them:

        async open()
        async close()
        async _find(which) -> StoredConversation | None
        async _list(backend, behind, limit) -> Sequence[StoredConversation]
        async _read(conversation_id, start, stop) -> Sequence[Entry]
        async _turns(remote, turn_id=None, *, unsettled=False) -> Sequence[TurnRow]
        async _commit(change) -> bool
        async _forget(conversation_id, revision=None)

    Where it has an index of words it has `_search` too, and `now` where its clock is not the machine's. They
    raise StoreError and nothing else. `_commit` is the only one that writes messages and turns; what it has
    written outlasts the process, where the store does.

    Attributes:
        lease: Seconds for which a conversation is held, unless its holder says again that it is; about the
            same for all that share the place.
        durable: Whether what it has outlasts the process.
    """

    # How many rows are read at once; and of what was searched for, how many places.
    PAGE = 100
    PLACES = 10_000

    lease = 10.0
    durable = True

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def open(self, *, write: bool = False) -> None:
        """Make sure that it can be read, as the first use does by itself; and that it can be written."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way, and free what the store holds; closing again does nothing."""

    @abstractmethod
    async def _find(self, which: str | Remote) -> StoredConversation | None:
        """Give a conversation by the store's id or by where it is kept."""

    @abstractmethod
    async def _list(
        self, backend: str | None, behind: StoredConversation | None, limit: int
    ) -> Sequence[StoredConversation]:
        """
        Give conversations, the last used first, and of those used at the same time the greatest id.

        Of *backend* only, and only those that come *behind* one.
        """

    @abstractmethod
    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        """Give the messages of the store's conversation with the numbers from *start* up to *stop*."""

    @abstractmethod
    async def _turns(
        self, remote: Remote | None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[TurnRow]:
        """Give the turns of a conversation, or of all; oldest first: of one id, or the unsettled, only."""

    @abstractmethod
    async def _commit(self, change: Change) -> bool:
        """Write *change*; False, and nothing written, where its conversation has another revision."""

    @abstractmethod
    async def _forget(self, conversation_id: str, revision: int | None = None) -> None:
        """
        Remove a conversation, its turns, and the messages that are in no other.

        Nothing is removed where a *revision* is given and the conversation has another.
        """

    async def _search(self, words: Sequence[str]) -> AsyncGenerator[Hit, None]:
        """
        Give the messages with words that begin with each of *words*, which are in lower case.

        Those of the conversation last used come first, and of one conversation the first said. A store that
        has an index uses it here; this reads everything.
        """
        async for kept in self.conversations():
            async for message in self.messages(kept.id):
                there = words_of(message.text)
                if all(any(each.startswith(word) for each in there) for word in words):
                    yield Hit(kept, message)

    async def conversation(
        self, conversation_id: str, backend: str, account: str | None = None
    ) -> StoredConversation:
        """
        Give the conversation with this id of the store's, for use through *backend*.

        Raises:
            WrongBackend: Another backend keeps it, or it is another account's.
            UsageError: There is none.
        """
        kept = await self._find(conversation_id)
        if kept is None:
            raise UsageError(
                f"the store has no conversation {quoted(conversation_id)}; store.conversations() lists them"
            )
        if (kept.remote.backend, kept.remote.account) != (backend, account):
            asked = Remote(backend, "", account)
            raise WrongBackend(
                conversation=conversation_id, provider=backend, backend=str(asked), kept_by=str(kept.remote)
            )
        return kept

    async def now(self) -> datetime:
        """Tell the time by the clock that `StoredConversation.used_at` is of: here the machine's."""
        return datetime.now(UTC)

    async def find(self, which: str | Remote) -> StoredConversation | None:
        """Give a conversation by the store's id or by where it is kept; None where the store has none."""
        return await self._find(which)

    async def conversations(self, backend: str | None = None) -> AsyncGenerator[StoredConversation, None]:
        """
        List the conversations, the last used first, all or those of one *backend*.

        One that is used while they are listed may be left out.
        """
        behind: StoredConversation | None = None
        while page := await self._list(backend, behind, self.PAGE):
            for kept in page:
                yield kept
            behind = page[-1]

    async def messages(
        self, conversation_id: str, *, limit: int | None = None, newest_first: bool = False
    ) -> AsyncGenerator[Message, None]:
        """
        Read the messages of a conversation by its id in the store, page by page.

        Those that are added meanwhile do not come.
        """
        async for page in self._pages(conversation_id, 0, limit, newest_first=newest_first):
            for entry in page:
                yield entry.message

    async def entries(
        self, conversation_id: str, *, start: int = 0, limit: int | None = None, newest_first: bool = False
    ) -> AsyncGenerator[Entry, None]:
        """Read the same with their identities, but for the first *start*."""
        async for page in self._pages(conversation_id, start, limit, newest_first=newest_first):
            for entry in page:
                yield entry

    async def _pages(
        self, conversation_id: str, start: int, limit: int | None, *, newest_first: bool
    ) -> AsyncGenerator[Iterable[Entry], None]:
        kept = await self._find(conversation_id)
        length = 0 if kept is None else kept.length
        wanted = max(length - start, 0)
        wanted = wanted if limit is None else min(limit, wanted)
        for done in range(0, wanted, self.PAGE):
            upto = min(done + self.PAGE, wanted)
            begin, end = (length - upto, length - done) if newest_first else (start + done, start + upto)
            page = await self._read(conversation_id, begin, end)
            yield reversed(page) if newest_first else page

    async def search(self, text: str) -> AsyncGenerator[Hit, None]:
        """
        Give the messages that have every word of *text*, in any case and with any ending.

        Raises:
            UsageError: There is no word in it.
        """
        words = sorted(words_of(text))
        if not words:
            raise UsageError(f"there is no word to search for in {quoted(text)}")
        async with aclosing(self._search(words)) as hits:
            async for hit in hits:
                yield hit

    async def keep(
        self,
        remote: Remote,
        told: Conversation | None = None,
        messages: Iterable[Message] = (),
        *,
        created: bool = False,
        deleted: bool = False,
        holder: str | None = None,
    ) -> StoredConversation:
        """
        Take in what a backend has *told* of a conversation; what it leaves out stays as it was.

        Args:
            remote: Where it is kept.
            told: What its backend tells of it.
            messages: Are added to its messages.
            created: Whether chatbridge has just made it there.
            deleted: Whether chatbridge has just deleted it there.
            holder: Who has made it, and knows all that is in it; it is not held by that.
        """
        added = tuple(messages)

        def change(kept: StoredConversation) -> Change:
            if told is not None:
                kept = evolve(kept, conversation=merged(kept.conversation, told))
            kept = evolve(kept, created=kept.created or created, deleted=kept.deleted or deleted)
            if not kept.revision:
                kept = evolve(kept, holder=holder)
            if added and kept.revision:
                kept = evolve(kept, used=True)
            return _with_messages(Change(kept, use=bool(added)), added)

        return await self._whole(self._update(remote, change))

    async def replace(
        self, before: StoredConversation, start: int, messages: Iterable[Message]
    ) -> StoredConversation | None:
        """
        Put *messages* in the place of all but the first *start* of a conversation.

        Returns:
            It; None, and nothing is changed, if it has other messages than when it was read as *before*.
        """
        return await self._whole(self._replace(before, start, tuple(messages)))

    async def _replace(
        self, before: StoredConversation, start: int, messages: Sequence[Message]
    ) -> StoredConversation | None:
        while True:
            kept = await self._find(before.id)
            if kept is None or _history(kept) != _history(before):
                return None
            first = await self._read(kept.id, start - 1, start) if start else ()
            entries = tuple(entries_of(messages, first[0] if first else None))
            tip = entries[-1] if entries else first[0] if first else None
            kept = evolve(kept, length=start + len(entries), tip=tip, used=kept.used or bool(entries))
            if await self._commit(Change(kept, entries=entries, start=start)):
                return evolve(kept, revision=kept.revision + 1)

    async def forget(self, conversation_id: str, *, revision: int | None = None) -> None:
        """
        Remove a conversation, its turns, and the messages that are in no other; its backend keeps it.

        With a *revision*, only if nothing was written to it since it was that.
        """
        await self._whole(self._forget(conversation_id, revision))

    async def hold(self, remote: Remote, holder: str) -> Hold:
        """
        Try to hold a conversation for *holder*, to send something to it, for `lease` seconds.

        Turns that were pending belong to a process that has died; they become unknown.
        """
        return await self._whole(self._hold(remote, holder))

    async def _hold(self, remote: Remote, holder: str) -> Hold:
        while True:
            before = await self._known(remote)
            ours = before.holder == holder
            if not ours and is_held(before):
                if before.held_for > 2 * self.lease:  # The clock was set back; who lives says so again soon.
                    await self._commit(Change(before, lease=self.lease))
                return Hold.BUSY
            dead = () if ours or not before.revision else await self._turns(remote, unsettled=True)
            turns = tuple(died(row) for row in dead if row.turn.state is TurnState.PENDING)
            change = Change(evolve(before, holder=holder), turns, lease=self.lease)
            if await self._commit(change):
                return Hold.OURS if ours else Hold.AFTER_ANOTHER

    async def release(self, remote: Remote, holder: str, *, lease: float = 0.0) -> bool:
        """
        Let others hold a conversation that *holder* has held: in *lease* seconds, by default at once.

        Returns:
            Whether *holder* held it still.
        """
        return await self._whole(self._release(remote, holder, lease))

    async def _release(self, remote: Remote, holder: str, lease: float) -> bool:
        while True:
            kept = await self._find(remote)
            # What was released while it was to be renewed stays so.
            if kept is None or kept.holder != holder or (lease and not is_held(kept)):
                return False
            if await self._commit(Change(kept, lease=lease)):
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
        """
        Keep *turn* and give it; at once with it, its message and *answer* once it is delivered.

        That a turn was delivered, or waived, or sent again is not taken back by one that does not know of it:
        only one that is sent again is in doubt again.

        Args:
            remote: Its conversation.
            turn: What is known of it.
            answer: The answer, if it is not in the turn.
            holder: Who must hold the conversation, if the message is about to leave.
            last: Whether the conversation is then released, if *holder* held it.
            sends: How often the message was sent as far as is known to who tells this: more often than *turn*
                says where the last time came to nothing.
            kept_here: Whether nobody else keeps the conversation, so that what was said in it meanwhile was
                said without this message.

        Raises:
            StoreError: It cannot be written. Where another has taken the conversation, it is of kind "locked"
                for a message that is about to leave, "taken" for an answer that may no longer be added.
        """
        work = self._record(
            TurnRow(remote, turn), answer, holder, last=last, sends=sends, kept_here=kept_here
        )
        return await self._whole(work)

    async def _record(
        self,
        row: TurnRow,
        answer: Reply | None,
        holder: str | None,
        *,
        last: bool,
        sends: int,
        kept_here: bool,
    ) -> Turn:
        remote, told = row.remote, row.turn
        while True:
            kept = await self._known(remote)
            check_holder(told, kept.holder, holder)
            rows = await self._turns(remote, told.id) if kept.revision else ()
            turn, said = settled(rows[0].turn if rows else None, told, answer, sends)
            if said and kept_here:
                check_answer(kept.holder, holder)
            if not kept.revision and holder is not None:
                return turn  # It was forgotten meanwhile.
            if said and turn.reply is not None:
                turns = [row.turn for row in await self._turns(remote)]
                end = await self._read(kept.id, max(kept.length - len(said), 0), kept.length)
                said = to_be_added(said, turn, turns, end)
            change = Change(
                evolve(kept, used=True),
                (TurnRow(remote, turn),),
                lease=0.0 if last and kept.holder == holder else None,
                use=turn.state is TurnState.PENDING,
            )
            if await self._commit(_with_messages(change, said)):
                return turn

    async def waive(self, remote: Remote, turn_id: str) -> Turn | None:
        """Note that the doubt about a turn may stand, and give it as it is now; None where there is none."""
        return await self._whole(self._waive(remote, turn_id))

    async def _waive(self, remote: Remote, turn_id: str) -> Turn | None:
        while True:
            kept, rows = await self._find(remote), await self.turns(remote, turn_id)
            if kept is None or not rows:
                return None
            row = evolve(rows[0], turn=evolve(rows[0].turn, waived=True))
            if await self._commit(Change(kept, (row,))):
                return row.turn

    async def turns(
        self, remote: Remote | None = None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> tuple[TurnRow, ...]:
        """
        Give the turns of a conversation, or of all; oldest first: of one id, or the unsettled, only.

        One that is pending though nobody holds its conversation any more is unknown.
        """
        rows = await self._turns(remote, turn_id, unsettled=unsettled)
        now = [await self._as_it_is(row, unsettled=unsettled) for row in rows]
        return tuple(row for row in now if row is not None)

    async def _as_it_is(self, row: TurnRow, *, unsettled: bool) -> TurnRow | None:
        """
        Give *row*, or put it in doubt: pending, and its conversation not held, both at the same time.

        None where it is gone meanwhile, or the *unsettled* only are wanted and it is settled.
        """
        before: int | None = None
        while row.turn.state is TurnState.PENDING:
            kept = await self._find(row.remote)
            if kept is not None and is_held(kept):
                return row
            revision = 0 if kept is None else kept.revision
            if revision == before:
                return died(row)
            before = revision
            rows = await self._turns(row.remote, row.turn.id, unsettled=unsettled)
            if not rows:
                return None
            (row,) = rows
        return row

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do *work*; what is begun of it is written, though its task is cancelled."""
        return await (to_its_end(work) if self.durable else work)

    async def _known(self, remote: Remote) -> StoredConversation:
        """Give a conversation, a new one if there is none."""
        kept = await self._find(remote)
        return StoredConversation(token_hex(8), remote, Conversation(remote.id)) if kept is None else kept

    async def _update(
        self, remote: Remote, change: Callable[[StoredConversation], Change]
    ) -> StoredConversation:
        """Change a conversation; begin again when another writer was faster."""
        while True:
            wanted = change(await self._known(remote))
            if await self._commit(wanted):
                return evolve(wanted.conversation, revision=wanted.conversation.revision + 1)


def words_of(text: str) -> set[str]:
    """Give the words of *text*, in lower case."""
    return set(re.findall(r"[^\W_]+", text.lower()))


def _history(kept: StoredConversation) -> tuple[int, int, str | None]:
    return kept.gone, kept.length, kept.head


def _with_messages(change: Change, messages: Sequence[Message]) -> Change:
    kept = change.conversation
    entries = tuple(entries_of(messages, kept.tip))
    if not entries:
        return change
    kept = evolve(kept, length=kept.length + len(entries), tip=entries[-1])
    return evolve(change, conversation=kept, entries=entries)


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
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
