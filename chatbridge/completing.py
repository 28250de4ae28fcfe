"""
Conversations over an API that keeps nothing: each call carries the history, which a store has.

All but the answers is done here, so it costs no call and works as well as on a server. The bridge writes
a message down together with its answer, as it does for every backend, and what is written down is the
conversation: what was not answered is not in it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from inspect import isawaitable
from secrets import token_hex
from typing import TYPE_CHECKING, Any, cast

from attrs import define, evolve

from chatbridge.backend import (
    ChatBackend,
    CompletionBackend,
    ContextOwner,
    Feature,
    Profile,
    Stores,
    Support,
    check_extra,
    check_parts,
    select_messages,
)
from chatbridge.bounds import is_cancelled
from chatbridge.clock import Clock, current_deadline
from chatbridge.domain import (
    Conversation,
    Finished,
    Message,
    Reply,
    Role,
    SendOptions,
    StreamEvent,
    Text,
    ToolResult,
)
from chatbridge.errors import ChatbridgeError, ConfigError, NotFound, UsageError
from chatbridge.history.recent import Recent
from chatbridge.overflow import (
    CONTEXT_LENGTH,
    SHORTENED,
    Overflow,
    begins_turn,
    drop_oldest,
    from_first_turn,
    made_shorter,
    without_first,
)
from chatbridge.sending import check_text
from chatbridge.text import printable, quoted

if TYPE_CHECKING:
    from chatbridge.history.ledger import Ledger
    from chatbridge.history.rows import StoredConversation

__all__ = ["Completing", "full_backend", "is_kept_here", "with_conversations"]

_KEPT = (
    Feature.CREATE,
    Feature.TITLE,
    Feature.HISTORY_SEED,
    Feature.GET,
    Feature.LIST,
    Feature.RENAME,
    Feature.DELETE,
    Feature.HISTORY,
)
_Key = tuple[str, str | None, int | None, int]
_NOTE = "The API keeps nothing: conversations are in the store, by default in memory, and nowhere else."


def is_kept_here(profile: Profile) -> bool:
    """Tell whether the conversations of a backend with this *profile* are in the store and nowhere else."""
    return profile.context is ContextOwner.CLIENT


def with_conversations(profile: Profile) -> Profile:
    """Add to the *profile* of an API that keeps nothing what a store does for it; others stay as they are."""
    if not is_kept_here(profile) or profile.can(Feature.CREATE):
        return profile
    kept = {*_KEPT, *({Feature.SYSTEM} if "system" in profile.options else ())}
    return evolve(
        profile.with_features(dict.fromkeys(kept, Support.NATIVE)),
        stores=Stores.WITH,
        instead={feature: what for feature, what in profile.instead.items() if feature not in kept},
        notes=(*profile.notes, _NOTE),
    )


def full_backend(
    backend: ChatBackend | CompletionBackend,
    ledger: Ledger,
    clock: Clock,
    overflow: Overflow | None = None,
) -> ChatBackend:
    """
    Give *backend*, with conversations added where it keeps none; the rest is as for `Completing`.

    Raises:
        ConfigError: It is not what its profile says.
    """
    name, kept_here = backend.profile.name, is_kept_here(backend.profile)
    if isinstance(backend, Completing):
        raise ConfigError(
            f"{name}: this backend has a store already, that of the bridge that made it: give bridge.api",
            provider=name,
        )
    if hasattr(backend, "create_conversation") == kept_here:
        raise ConfigError(
            f"{name}: a backend whose context is client has complete and stream, and keeps no "
            "conversations; any other one keeps them",
            provider=name,
        )
    if kept_here:
        return Completing(cast(CompletionBackend, backend), ledger, clock, overflow)
    return cast(ChatBackend, backend)


class Completing:
    """
    A `ChatBackend` of a `CompletionBackend` and a store.

    Args:
        api: The backend that completes what it is given.
        ledger: What keeps the conversations.
        clock: Tells the time, and measures it.
        overflow: Shortens a conversation that the API refuses for its length; without it, that is an error.
    """

    # Of how many conversations it is remembered how much of them was too long.
    REMEMBERED = 1000

    def __init__(
        self,
        api: CompletionBackend,
        ledger: Ledger,
        clock: Clock,
        overflow: Overflow | None = None,
    ) -> None:
        self._api = api
        self._profile = with_conversations(api.profile)
        self._ledger = ledger
        self._clock = clock
        self._overflow = overflow
        self._recent = Recent(ledger.store)
        # How many of the first messages of a conversation were too many.
        self._too_many: OrderedDict[_Key, int] = OrderedDict()

    @property
    def profile(self) -> Profile:
        """What can be done, by the API or by the store."""
        return self._profile

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Make a conversation in the store, beginning with *history*; there is no `extra`."""
        if system:
            self._need(Feature.SYSTEM)
        check_extra(extra or {}, (), self._profile)
        check_text("the title", title)
        check_text("the system prompt", system)
        for message in history:
            self._check_parts(message)
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        made = Conversation(token_hex(16), title, system, created_at=now, updated_at=now)
        await self._ledger.store.keep(self._ledger.remote(made.id), made, history, created=True)
        return made

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """Give a conversation."""
        return _told(await self._find(conversation_id))

    async def list_conversations(self) -> AsyncGenerator[Conversation, None]:
        """Yield all conversations, the last used first."""
        async for kept in self._ledger.conversations():
            if _is_there(kept):
                yield _told(kept)

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a conversation another title."""
        check_text("the title", title)
        renamed = evolve(await self.get_conversation(conversation_id), title=title)
        return _told(await self._ledger.store.keep(self._ledger.remote(conversation_id), renamed))

    async def delete_conversation(self, conversation_id: str) -> None:
        """Remove a conversation from the store, with its messages and turns."""
        await self._ledger.store.forget((await self._find(conversation_id)).id)

    def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages; one that the API gave no id has its identity for one."""
        if after is None:
            return self._messages(conversation_id, limit, newest_first=newest_first)
        return select_messages(
            self._messages(conversation_id), after=after, limit=limit, newest_first=newest_first
        )

    async def _messages(
        self, conversation_id: str, limit: int | None = None, *, newest_first: bool = False
    ) -> AsyncGenerator[Message, None]:
        kept = await self._find(conversation_id)
        async for message in self._ledger.messages(kept, limit, newest_first=newest_first):
            yield message

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Answer *message*, given the history; the bridge writes both down."""
        self._need(Feature.SEND)
        prompt = await self._prompt(conversation_id, message, options)
        while True:
            try:
                return self._answered(prompt, await self._api.complete(prompt.sent, prompt.options))
            except ChatbridgeError as error:
                await self._shorten(prompt, error)

    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answer it as the answer arrives."""
        self._need(Feature.STREAM)
        prompt = await self._prompt(conversation_id, message, options)
        while True:
            begun = False
            try:
                async with aclosing(self._api.stream(prompt.sent, prompt.options)) as events:
                    async for event in events:
                        begun = True
                        if isinstance(event, Finished):
                            event = Finished(self._answered(prompt, event.reply))  # noqa: PLW2901 - the same, warned
                        yield event
            except ChatbridgeError as error:
                if begun:
                    raise
                await self._shorten(prompt, error)
            else:
                return

    async def close(self) -> None:
        """Free what the API's backend made."""
        await self._api.close()

    async def _prompt(self, conversation_id: str, message: Message, options: SendOptions) -> _Prompt:
        """Put together what goes out, the message last, without what was too much before."""
        self._check_sendable(message)
        kept = await self._find(conversation_id)
        messages = await self._recent.messages(kept)
        messages.append(message)
        gone = kept.gone
        if gone:  # What is left may begin within a turn.
            whole = from_first_turn(messages)
            if whole is None:
                raise self._cut_off(conversation_id)
            messages, gone = whole, gone + len(messages) - len(whole)
        system = kept.conversation.system
        if system and options.system is None:
            options = evolve(options, system=system)
        key = conversation_id, options.model, options.max_output_tokens, len(options.tools)
        prompt = _Prompt(key, messages, messages, options, gone)
        cut = self._too_many.get(prompt.key, 0) - gone
        if 0 < cut < len(messages) and begins_turn(messages[cut]):
            prompt.sent = without_first(messages, cut)
        return prompt

    async def _shorten(self, prompt: _Prompt, error: ChatbridgeError) -> None:
        """Make *prompt* shorter; raise *error* where that is not what it asks for, or cannot be done."""
        if error.code != CONTEXT_LENGTH or self._overflow is None:
            raise error
        if prompt.shortened == SHORTENED:
            error.add_note(f"it was made shorter {SHORTENED} times, and not more is tried for one message")
            raise error
        try:
            given = self._overflow(list(prompt.sent))
            left = given
            if isawaitable(given):
                until = current_deadline()
                async with self._clock.timeout_at(math.inf if until is None else until):
                    left = await given
        except (ChatbridgeError, TimeoutError, asyncio.CancelledError) as failed:
            if isinstance(failed, asyncio.CancelledError) and is_cancelled():
                raise
            reason = f"{type(failed).__name__}: {failed}".removesuffix(": ")
            error.add_note(printable(f"it was to be made shorter, and overflow failed: {reason}"))
            raise error from failed
        shorter = made_shorter(left, prompt.sent)
        if shorter is None:
            raise error
        prompt.sent = shorter
        prompt.shortened += 1

    def _answered(self, prompt: _Prompt, reply: Reply) -> Reply:
        """Remember how much of *prompt* was too much, and warn of it in the reply."""
        if prompt.shortened and self._overflow is drop_oldest:
            self._too_many[prompt.key] = prompt.gone + prompt.cut
            self._too_many.move_to_end(prompt.key)
            if len(self._too_many) > self.REMEMBERED:
                self._too_many.popitem(last=False)
        warnings = prompt.warnings
        return evolve(reply, warnings=(*warnings, *reply.warnings)) if warnings else reply

    async def _find(self, conversation_id: str) -> StoredConversation:
        kept = await self._ledger.store.find(self._ledger.remote(conversation_id))
        if kept is not None and _is_there(kept):
            return kept
        name = self._profile.name
        hint = "" if self._ledger.store.durable else "; one in memory forgets what was used longest ago"
        raise NotFound(
            f"the store has no conversation {quoted(conversation_id)} of {name}{hint}",
            provider=name,
            conversation_id=conversation_id,
        )

    def _cut_off(self, conversation_id: str) -> NotFound:
        return NotFound(
            "the message gives results of tools, and the question that their turn begins with is not in the "
            "store any more: one in memory forgets what was said longest ago, one in a file or a database "
            "nothing; ask the question anew",
            provider=self._profile.name,
            conversation_id=conversation_id,
        )

    def _need(self, feature: Feature) -> None:
        if not self._profile.can(feature):
            raise self._profile.unsupported(feature)

    def _check_sendable(self, message: Message) -> None:
        """Refuse what is neither the user's nor results of tools, and what cannot be written."""
        name, role = self._profile.name, message.role
        if role not in {Role.USER, Role.TOOL}:
            raise UsageError(
                f"{name} takes messages of the user and results of tools, and none of the {role.value}",
                provider=name,
            )
        if not message.parts:
            raise UsageError(
                "a message without parts says nothing: give it a text, or the results of tools",
                provider=name,
            )
        if role is Role.TOOL and not all(isinstance(part, ToolResult) for part in message.parts):
            raise UsageError("a message of the tool's holds results of tools and nothing else", provider=name)
        self._check_parts(message)

    def _check_parts(self, message: Message) -> None:
        check_parts(message, self._profile)
        for part in message.parts:
            if isinstance(part, Text):
                check_text("a message", part.text)
            elif isinstance(part, ToolResult):
                check_text("the result of a tool", part.content)


@define
class _Prompt:
    """
    What one message is answered by.

    Attributes:
        key: The conversation, and what it shares the room with: the model, tokens of the answer, tools.
        messages: All that there are.
        sent: Those that go out.
        gone: How many before them are not there any more, or are no use.
        shortened: How often they were made shorter.
    """

    key: _Key
    messages: Sequence[Message]
    sent: Sequence[Message]
    options: SendOptions
    gone: int = 0
    shortened: int = 0

    @property
    def cut(self) -> int:
        """How many of the first messages are left out, with those of the system among them."""
        spoken = [number for number, each in enumerate(self.messages) if each.role is not Role.SYSTEM]
        return spoken[-sum(each.role is not Role.SYSTEM for each in self.sent)]

    @property
    def warnings(self) -> list[str]:
        """Say what of the conversation the model did not see."""
        told: list[str] = []
        if self.gone:
            told.append(
                f"the first {self.gone} messages of the conversation are not in the store any more, and the "
                "model did not see them; a store in a file or a database forgets none"
            )
        if self.sent is not self.messages:
            left = (Counter(map(id, self.messages)) - Counter(map(id, self.sent))).total()
            told.append(
                f"the conversation is longer than the model takes, so {left} of its {len(self.messages)} "
                "messages were left out"
            )
        return told


def _is_there(kept: StoredConversation) -> bool:
    """Tell whether a conversation was made, and not only written to by its id."""
    return kept.created and not kept.deleted


def _told(kept: StoredConversation) -> Conversation:
    return evolve(kept.conversation, updated_at=kept.used_at or kept.conversation.updated_at)
