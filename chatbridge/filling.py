"""What is made up for where a backend lacks it: by its other features, or from a store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast

from attrs import evolve

from chatbridge.backend import (
    ChatBackend,
    Feature,
    Profile,
    SettleBy,
    Stores,
    Support,
    select_messages,
)
from chatbridge.completing import is_kept_here, with_conversations
from chatbridge.domain import Conversation, Message
from chatbridge.errors import BadOption, NotFound, StoreError
from chatbridge.text import quoted

if TYPE_CHECKING:
    from chatbridge.history.ledger import Ledger
    from chatbridge.history.rows import StoredConversation
    from chatbridge.options import CommonOptions

__all__ = ["Filling", "from_store", "with_emulations"]

_ONLY = "what went through chatbridge, from its store"
_FORGET = "chat.forget() drops what chatbridge has of it"


def from_store(profile: Profile) -> frozenset[Feature]:
    """
    Tell what a store makes up for where a backend has this *profile*.

    It can show what was said where the API does not; and, of conversations that are made here, which there
    are and, where the API has no titles at all, their titles.
    """
    can, filled = profile.can, set[Feature]()
    if can(Feature.SEND) and (profile.stores is Stores.NEVER or not can(Feature.HISTORY)):
        filled.add(Feature.HISTORY)
    if can(Feature.CREATE):
        filled.update(feature for feature in (Feature.GET, Feature.LIST) if not can(feature))
        if not can(Feature.TITLE) and not can(Feature.RENAME):
            filled.update((Feature.TITLE, Feature.RENAME))
    return frozenset(filled)


def with_emulations(profile: Profile, options: CommonOptions) -> Profile:
    """
    Mark what is made up for in a backend's *profile* as emulated, and add what the user knows.

    Raises:
        BadOption: An option would have no effect.
    """
    profile = with_conversations(profile)
    kept, filled = from_store(profile), set[Feature]()
    if profile.can(Feature.CREATE) and profile.can(Feature.RENAME):
        filled.add(Feature.TITLE)
    if "system" in profile.options:
        filled.add(Feature.SYSTEM)
    if profile.can(Feature.SEND):
        filled.add(Feature.STREAM)
    emulated = kept | {feature for feature in filled if not profile.can(feature)}
    if options.absent_after is not None:
        if SettleBy.READ_BACK not in profile.settle_by:
            raise BadOption(
                backend=profile.name,
                option="absent_after",
                problem="would have no effect: what arrived in a conversation cannot be read back",
            )
        profile = evolve(profile, absent_after=options.absent_after)
    return evolve(
        profile.with_features(dict.fromkeys(emulated, Support.EMULATED)),
        instead=_instead(profile, kept),
        notes=(*profile.notes, *_notes(profile, kept)),
    )


def _instead(profile: Profile, kept: frozenset[Feature]) -> dict[Feature, str]:
    instead = {**profile.instead, **dict.fromkeys(kept, _ONLY)}
    if profile.can(Feature.SEND) and not profile.can(Feature.DELETE):
        instead[Feature.DELETE] = "; ".join(filter(None, (instead.get(Feature.DELETE), _FORGET)))
    return instead


def _notes(profile: Profile, kept: frozenset[Feature]) -> list[str]:
    notes: list[str] = []
    if Feature.HISTORY in kept:
        notes.append(
            "The history holds only what went through chatbridge and was answered, as its store has it."
        )
    if Feature.HISTORY in kept and profile.can(Feature.HISTORY):
        notes.append("`bridge.api.list_messages` gives the history that the API shows.")
    if Feature.LIST in kept:
        notes.append("The list holds only conversations that went through chatbridge, as its store has them.")
    if Feature.RENAME in kept:
        notes.append("Titles are those that were given through chatbridge: the API is told none.")
    return notes


class Filling:
    """
    The conversations of a backend, with what it does not tell of them from a store.

    Its methods are those of the backend. Where the store cannot be read, they raise StoreError.

    Attributes:
        features: What comes from the store.
    """

    def __init__(self, backend: ChatBackend, ledger: Ledger) -> None:
        self.features = from_store(backend.profile)
        self._backend = backend
        self._ledger = ledger

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """
        Read a conversation.

        Raises:
            NotFound: There is none, or the store that is to tell of it knows none.
        """
        if Feature.GET not in self.features:
            return await self._titled(await self._backend.get_conversation(conversation_id))
        kept = await self._find(conversation_id)
        if kept is not None and _is_there(kept):
            return kept.conversation
        provider = self._backend.profile.name
        raise NotFound(
            f"{provider} cannot be asked for the conversation {quoted(conversation_id)}, "
            "and nothing of it went through chatbridge",
            provider=provider,
        )

    def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield all conversations; from the store, the one that was used last first."""
        if Feature.LIST in self.features:
            return self._list()
        listed = self._backend.list_conversations()
        return self._all_titled(listed) if Feature.RENAME in self.features else listed

    async def _list(self) -> AsyncGenerator[Conversation, None]:
        async for kept in self._ledger.conversations():
            if _is_there(kept):
                yield kept.conversation

    async def _all_titled(self, listed: AsyncIterator[Conversation]) -> AsyncGenerator[Conversation, None]:
        async with AsyncExitStack() as stack:
            if isinstance(listed, AsyncGenerator):
                stack.push_async_callback(cast(AsyncGenerator[Conversation, None], listed).aclose)
            async for conversation in listed:
                yield await self._titled(conversation)

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a conversation another title; one in the store only to a conversation that there is."""
        if Feature.RENAME not in self.features:
            return await self._backend.rename_conversation(conversation_id, title)
        renamed = evolve(await self.get_conversation(conversation_id), title=title)
        await self._ledger.store.keep(self._ledger.remote(conversation_id), renamed)
        return renamed

    def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages; in the store, one without an id has its identity for one."""
        if Feature.HISTORY not in self.features:
            return self._backend.list_messages(
                conversation_id, after=after, limit=limit, newest_first=newest_first
            )
        if after is None:
            return self._messages(conversation_id, limit, newest_first=newest_first)
        return select_messages(
            self._messages(conversation_id), after=after, limit=limit, newest_first=newest_first
        )

    async def _messages(
        self, conversation_id: str, limit: int | None = None, *, newest_first: bool = False
    ) -> AsyncGenerator[Message, None]:
        kept = await self._find(conversation_id)
        if kept is not None:
            async for message in self._ledger.messages(kept, limit, newest_first=newest_first):
                yield message

    async def forgotten(self, conversation_id: str) -> int:
        """Tell how many of the first messages the store, if they come from there, does not have any more."""
        if Feature.HISTORY not in self.features and not is_kept_here(self._backend.profile):
            return 0
        kept = await self._find(conversation_id)
        return 0 if kept is None else kept.gone

    async def _titled(self, conversation: Conversation) -> Conversation:
        """Give *conversation* the title that it was given here, where the API has none."""
        if Feature.RENAME not in self.features or conversation.title is not None:
            return conversation
        try:
            kept = await self._find(conversation.id)
        except StoreError as error:
            return evolve(
                conversation, warnings=(*conversation.warnings, f"its title cannot be read: {error}")
            )
        return conversation if kept is None else evolve(conversation, title=kept.conversation.title)

    async def _find(self, conversation_id: str) -> StoredConversation | None:
        return await self._ledger.store.find(self._ledger.remote(conversation_id))


def _is_there(kept: StoredConversation) -> bool:
    """Tell whether a conversation is known to be there, and not only to have been asked for."""
    return not kept.deleted and (kept.created or kept.length > 0 or kept.conversation.title is not None)
