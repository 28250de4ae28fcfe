"""How far a store's copy of a conversation has drifted from what its API shows, and how to make up for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self, cast

from attrs import define, evolve, field, frozen

from chatbridge.backend import Feature
from chatbridge.completing import is_kept_here
from chatbridge.domain import Message, Reasoning, Role
from chatbridge.errors import StoreError, UnsupportedFeature
from chatbridge.history.chain import Entry, canonical, said_in

if TYPE_CHECKING:
    from chatbridge.bridge import Bridge

__all__ = ["Drift", "DriftState", "pull"]


# How often a pull begins again because another has written to the store meanwhile.
_ATTEMPTS: Final = 5


class DriftState(StrEnum):
    """
    What two histories of one conversation are to each other: the store's, and the API's.

    They are `in_step` when they say the same. `remote_ahead` is an API that has all of the store's messages
    in their order, and others before, behind or between them; `local_ahead` is the reverse. Else they have
    `diverged`.
    """

    IN_STEP = "in_step"
    REMOTE_AHEAD = "remote_ahead"
    LOCAL_AHEAD = "local_ahead"
    DIVERGED = "diverged"


@frozen
class Drift:
    """
    What a comparison has found.

    Attributes:
        state: What the two histories were to each other.
        at: The number of the first message in which they differ, from 0; None where they do not.
        new: How many of the API's messages were taken over.
    """

    state: DriftState
    at: int | None = None
    new: int = 0


@frozen
class _Piece:
    """One part of a message of ours, the message's number, and whether it is the last part of it."""

    said: str
    number: int
    ends: bool


Ours = Callable[[int], AsyncGenerator[Entry, None]]


def pieces_of(message: Message, content: str | None = None) -> tuple[str, ...]:
    """
    Give each thing that *message* says, with who says it; *content* is its canonical form, where known.

    One API makes a message of each part of an answer, and another one message of them all. Tools speak for
    the assistant. Who only thinks says nothing.
    """
    said = said_in(message)
    if not said.parts and any(isinstance(part, Reasoning) for part in message.parts):
        return ()
    if len(said.parts) <= 1 and said.role is not Role.TOOL:
        return (content or canonical(message),)
    role = Role.ASSISTANT if said.role is Role.TOOL else said.role
    return tuple(canonical(Message(role, (part,))) for part in said.parts) or (canonical(Message(role)),)


async def _pieces(ours: Ours, start: int) -> AsyncGenerator[_Piece, None]:
    number = start
    async with aclosing(ours(start)) as entries:
        async for entry in entries:
            *others, last = pieces_of(entry.message, entry.content) or (None,)
            for said in others:
                yield _Piece(said, number, ends=False)
            if last is not None:
                yield _Piece(last, number, ends=True)
            number += 1


@define(eq=False)
class _Comparison:
    """
    Two histories as they pass by: theirs once, and ours as often as needed.

    Attributes:
        keep: Whether theirs are wanted from the first difference on, wherever that is.
        wanted: Theirs from the first difference on; None where they were not kept.
    """

    ours: Ours
    keep: bool
    wanted: list[Message] | None = field(factory=list[Message])
    _stack: AsyncExitStack = field(factory=AsyncExitStack)
    # What of ours was not found among theirs yet; and, once they differ, where the rest of theirs may be.
    _missing: AsyncGenerator[_Piece, None] = field(init=False)
    _awaited: _Piece | None = None
    _rest: AsyncGenerator[_Piece, None] | None = None
    _within: bool = True
    # How many whole messages of each say the same, and how many pieces more do.
    _same_ours: int = 0
    _same_theirs: int = 0
    _more: int = 0
    # Whether, and with which number of ours, a message of both has come to its end.
    _ends: bool = True
    _number: int = 0
    _count: int = 0
    _new: int = 0

    async def __aenter__(self) -> Self:
        self._missing = await self._read(0)
        self._awaited = await anext(self._missing, None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def take(self, message: Message) -> None:
        """Take in the next message of theirs."""
        if self.wanted is not None:
            self.wanted.append(message)
        found = [await self._take(said) for said in pieces_of(message)]
        self._count += 1
        self._new += not all(found)
        if self._rest is None and self._ends:
            self._same_ours, self._same_theirs, self._more = self._number, self._count, 0
            if self.wanted is not None:
                self.wanted.clear()

    async def _take(self, said: str) -> bool:
        """Tell whether a piece of theirs is the next of ours that was not found yet."""
        awaited = self._awaited
        found = awaited is not None and awaited.said == said
        if self._rest is None and not found:
            self._rest = await self._read(self._same_ours)
            for _ in range(self._more):
                await anext(self._rest)
            if awaited is not None and not self.keep:
                self.wanted = None
        if self._rest is not None and self._within:
            self._within = await _reach(self._rest, said)
        if awaited is not None and found:
            self._number, self._ends = awaited.number + 1, awaited.ends
            self._more += 1
            self._awaited = await anext(self._missing, None)
        return found

    async def _read(self, start: int) -> AsyncGenerator[_Piece, None]:
        return await self._stack.enter_async_context(aclosing(_pieces(self.ours, start)))

    def drift(self) -> Drift:
        """Say what was found, with `new` for how many of theirs are to be taken over."""
        if self._awaited is None and self._rest is None:
            return Drift(DriftState.IN_STEP)
        if self._awaited is None:
            return Drift(DriftState.REMOTE_AHEAD, self._same_ours, self._new)
        if self._within:
            return Drift(DriftState.LOCAL_AHEAD, self._same_ours)
        return Drift(DriftState.DIVERGED, self._same_ours, self._count - self._same_theirs)


async def _reach(pieces: AsyncIterator[_Piece], said: str) -> bool:
    """Go on behind the next that says *said*; False if there is none."""
    async for each in pieces:
        if each.said == said:
            return True
    return False


async def with_ours(ours: AsyncGenerator[Entry, None], theirs: Sequence[Message]) -> list[Message]:
    """
    Give *theirs*, which say all that *ours* do, with ours in the place of those that say the same.

    Ours have what an API may not show again: what was thought, ids, and how much was used. Where the two are
    divided into messages so that their ends do not meet, theirs stay.
    """
    pieces = [(number, said) for number, message in enumerate(theirs) for said in pieces_of(message)]
    edges = {0, len(pieces), *(at for at in range(1, len(pieces)) if pieces[at][0] != pieces[at - 1][0])}
    joined: list[Message] = []
    # How many of theirs are joined already, and how many of their pieces were passed.
    taken = passed = 0
    # Ours since an end of both, and the first piece of theirs that they say.
    group: list[Message] = []
    first: int | None = None
    async with aclosing(ours) as entries:
        async for entry in entries:
            before, found = passed, list[int]()
            for said in pieces_of(entry.message, entry.content):
                while passed < len(pieces) and pieces[passed][1] != said:
                    passed += 1
                found.append(passed)
                passed += 1
            if passed > len(pieces):
                return list(theirs)  # Somebody has written to ours meanwhile.
            if found and first is not None and found[0] != before:
                group, first = [], None
            group.append(entry.message)
            if not found:
                continue
            first = found[0] if first is None else first
            if passed in edges or passed - found[0] > len(found):
                if first in edges and passed - found[0] == len(found):
                    start = _start(theirs, pieces[first][0], taken, group)
                    joined += [*theirs[taken:start], *group]
                    taken = pieces[passed - 1][0] + 1
                group, first = [], None
    silent = 0 if first is not None else len(group)
    joined += group[:silent]
    while silent and taken < len(theirs) and not pieces_of(theirs[taken]):
        taken, silent = taken + 1, silent - 1
    return [*joined, *theirs[taken:]]


def _start(theirs: Sequence[Message], start: int, taken: int, ours: Sequence[Message]) -> int:
    """Go back from *start* over what theirs show apart as thought, where *ours* have it."""
    if any(isinstance(part, Reasoning) for message in ours for part in message.parts):
        while start > taken and not pieces_of(theirs[start - 1]):
            start -= 1
    return start


async def pull(bridge: Bridge, conversation_id: str, *, overwrite: bool = False) -> Drift:
    """
    Compare what a bridge's store has of a conversation with what the API shows, and take over what is new.

    Raises:
        UnsupportedFeature: The API shows no history, or none of what is sent.
        StoreError: The store cannot be read or written, or others write to the conversation all the time.
        ChatbridgeError: The conversation cannot be read.
    """
    bridge.bounds.check_open()
    if is_kept_here(bridge.profile):
        raise UnsupportedFeature(
            backend=bridge.profile.name, feature="pulling: the store alone has its conversations"
        )
    if Feature.HISTORY in bridge.filling.features or not bridge.profile.can(Feature.HISTORY):
        raise UnsupportedFeature(
            backend=bridge.profile.name,
            feature="pulling: it does not show what is said in a conversation",
            instead="chat.messages(), which has what went through chatbridge",
        )
    async with bridge.deliveries.alone(conversation_id, bridge.clock.now() + bridge.options.timeout):
        await bridge.deliveries.look(conversation_id)
        for _ in range(_ATTEMPTS):
            drift = await _pull(bridge, conversation_id, overwrite=overwrite)
            if drift is not None:
                return drift
    raise StoreError("others write to the conversation all the time; try again", kind="locked")


async def _pull(bridge: Bridge, conversation_id: str, *, overwrite: bool) -> Drift | None:
    """Do it once; None where another has written to the store meanwhile."""
    store, remote = bridge.store, bridge.deliveries.ledger.remote(conversation_id)
    kept = await store.find(remote) or await store.keep(remote)

    async def ours(start: int) -> AsyncGenerator[Entry, None]:
        async with aclosing(store.entries(kept.id, start=kept.gone + start)) as entries:
            async for entry in entries:
                yield entry

    async def look(*, keep: bool) -> tuple[Drift, list[Message] | None]:
        messages = bridge.backend.list_messages(conversation_id)
        shown = bridge.bounds.each(messages, conversation_id=conversation_id)
        async with (
            aclosing(cast(AsyncGenerator[Message, None], shown)),
            _Comparison(ours, keep) as comparison,
        ):
            async for message in shown:
                await comparison.take(message)
            return comparison.drift(), comparison.wanted

    drift, new = await look(keep=False)
    if new is None and (overwrite or drift.state is DriftState.REMOTE_AHEAD):
        drift, new = await look(keep=True)
    if drift.at is None:
        return drift
    if new is None or (drift.state is not DriftState.REMOTE_AHEAD and not overwrite):
        return evolve(drift, new=0)
    if drift.state is DriftState.REMOTE_AHEAD:
        new = await with_ours(ours(drift.at), new)
    if drift.state is DriftState.REMOTE_AHEAD:
        new = await with_ours(ours(drift.at), new)
    done = await store.replace(kept, kept.gone + drift.at if drift.at else 0, new)
    return None if done is None else drift
