"""How far a store's copy of a conversation has drifted from what its API shows, and how to make up for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from enum import StrEnum
from typing import TYPE_CHECKING, cast

from attrs import evolve, frozen

from chatbridge.backend import Feature
from chatbridge.domain import Message
from chatbridge.errors import UnsupportedFeature
from chatbridge.history.chain import canonical

if TYPE_CHECKING:
    from chatbridge.bridge import Bridge

__all__ = ["Drift", "DriftState", "pull"]


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


Ours = Callable[[int], AsyncGenerator[str, None]]


async def compare(ours: Ours, theirs: AsyncIterator[Message], keep_from: int) -> tuple[Drift, list[Message]]:
    """
    Compare two histories as they pass by, theirs once.

    Args:
        ours: Gives what the store's messages say, from a number on.
        theirs: The API's messages.
        keep_from: The number of the first of them that is wanted, if all before are alike.

    Returns:
        What was found, with `new` for the number of their messages that ours lack; and those of them that are
        wanted.
    """
    kept: list[Message] = []
    at: int | None = None
    length = found = 0
    within = True
    async with AsyncExitStack() as stack:
        # Those of ours that were not found among theirs yet, in order.
        missing = await stack.enter_async_context(aclosing(ours(0)))
        awaited = await anext(missing, None)
        # Those of ours among which the rest of theirs may be, once the two differ.
        rest: AsyncIterator[str] = missing
        async for message in theirs:
            said = canonical(message)
            if at is None and said != awaited:
                at, rest = length, await stack.enter_async_context(aclosing(ours(length)))
            within = within and (at is None or await _reach(rest, said))
            if said == awaited:
                found += 1
                awaited = await anext(missing, None)
            if length >= keep_from and (at is None or at >= keep_from):
                kept.append(message)
            length += 1
    if awaited is None:
        state = DriftState.IN_STEP if at is None else DriftState.REMOTE_AHEAD
        return Drift(state, at, length - found), kept
    if at is None or within:
        return Drift(DriftState.LOCAL_AHEAD, length if at is None else at), kept
    return Drift(DriftState.DIVERGED, at, length - at), kept


async def _reach(messages: AsyncIterator[str], said: str) -> bool:
    """Go on to the next message that says *said*; False if there is none."""
    async for each in messages:
        if each == said:
            return True
    return False


async def pull(bridge: Bridge, conversation_id: str, *, overwrite: bool = False) -> Drift:
    """
    Compare what a bridge's store has of a conversation with what the API shows, and take over what is new.

    Raises:
        UnsupportedFeature: The API shows no history, or none of what is sent.
        StoreError: The store cannot be read or written.
        ChatbridgeError: The conversation cannot be read.
    """
    bridge.bounds.check_open()
    if Feature.HISTORY in bridge.filling.features or not bridge.profile.can(Feature.HISTORY):
        raise UnsupportedFeature(
            backend=bridge.profile.name,
            feature="pulling: it does not show what is said in a conversation",
            instead="chat.messages(), which has what went through chatbridge",
        )
    async with bridge.deliveries.alone(conversation_id, bridge.clock.now() + bridge.options.timeout):
        await bridge.deliveries.look(conversation_id)
        while True:
            drift = await _pull(bridge, conversation_id, overwrite=overwrite)
            if drift is not None:
                return drift


async def _pull(bridge: Bridge, conversation_id: str, *, overwrite: bool) -> Drift | None:
    """Do it once; None where another has written to the store meanwhile."""
    store, remote = bridge.store, bridge.deliveries.ledger.remote(conversation_id)
    kept = await store.find(remote)
    gone, length = (0, 0) if kept is None else (kept.gone, kept.length)

    async def ours(start: int) -> AsyncGenerator[str, None]:
        if kept is not None:
            async with aclosing(store.entries(kept.id, start=gone + start)) as entries:
                async for entry in entries:
                    yield entry.content

    keep_from = length - gone
    while True:
        shown = bridge.bounds.each(
            bridge.backend.list_messages(conversation_id), conversation_id=conversation_id
        )
        async with aclosing(cast(AsyncGenerator[Message, None], shown)):
            drift, new = await compare(ours, shown, keep_from)
        if drift.at is None:
            return drift
        if drift.state is not DriftState.REMOTE_AHEAD and not overwrite:
            return evolve(drift, new=0)
        if drift.at >= keep_from:
            break
        keep_from = drift.at  # What stands behind the first that is new gets another place.
    before = kept or await store.keep(remote)
    start = gone + drift.at if drift.at else 0
    done = await store.replace(before, start, new[drift.at - keep_from :])
    return None if done is None else drift
