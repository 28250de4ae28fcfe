"""A backend that keeps conversations in memory, does what its profile says, and never fails."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

from attrs import AttrsInstance, asdict, define, evolve, field, fields, has

from chatbridge.backend import (
    ContextOwner,
    Feature,
    Profile,
    SettleBy,
    Stores,
    Support,
    check_extra,
    check_tools,
    select_messages,
)
from chatbridge.completing import is_kept_here
from chatbridge.domain import (
    Conversation,
    Finished,
    FinishReason,
    Message,
    Part,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    Reference,
    Reply,
    Role,
    SendOptions,
    Started,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
)
from chatbridge.errors import NotFound, RequestRefused, UsageError
from chatbridge.testing.answers import Answers, Pieces, as_text, by_rule, heard_in
from chatbridge.testing.asked import check_tool_choice, in_form, shortened, tool_named, tool_wanted
from chatbridge.testing.instances import arguments
from chatbridge.testing.responder import pieces
from chatbridge.text import quoted

__all__ = ["COMPLETIONS", "EVERYTHING", "MemoryBackend", "events_of", "words_in"]

EVERYTHING = Profile(
    "fake",
    dict.fromkeys(Feature, Support.NATIVE),
    options={attribute.name for attribute in fields(SendOptions)} - {"include", "extra"},
    context=ContextOwner.SERVER,
    stores=Stores.WITH,
    settle_by={SettleBy.READ_BACK},
    notes=(
        "temperature, top_p and seed change nothing: it answers by rule.",
        "It reasons where `extra` says reasoning=true, and calls a tool that the message names.",
        "By rule it heeds tool_choice and response_format; where answers are given to it, tool_choice=none.",
        "Conversations are gone with the bridge.",
    ),
)
"""The profile of a backend that has every feature."""

COMPLETIONS = evolve(
    EVERYTHING,
    features=dict.fromkeys(
        (
            Feature.SYSTEM, Feature.SEND, Feature.STREAM, Feature.ATTACHMENTS, Feature.TOOLS,
            Feature.REFERENCES, Feature.USAGE, Feature.REASONING,
        ),
        Support.NATIVE,
    ),
    context=ContextOwner.CLIENT,
    stores=Stores.NEVER,
    settle_by=(),
    notes=EVERYTHING.notes[:3],
)  # fmt: skip
"""The profile of a backend that keeps nothing, and has every other feature."""


@define(eq=False)
class _Kept:
    conversation: Conversation
    messages: list[Message] = field(factory=list[Message])


class MemoryBackend:
    """
    Keeps conversations in memory and answers by rule; its clock starts in 2025 and moves on at each look.

    Args:
        profile: What it can do; what it cannot, it refuses.
        answers: What it says, given all that the model sees, the message to answer last.
        model: The model that it claims to be.
    """

    def __init__(
        self, profile: Profile = EVERYTHING, answers: Answers = by_rule, model: str = "fake-model"
    ) -> None:
        self._profile = profile
        self._answers = answers
        self._model = model
        self._kept: dict[str, _Kept] = {}
        self._numbers = count(1)
        self._seconds = count()

    @property
    def profile(self) -> Profile:
        """What it can do."""
        return self._profile

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Make a conversation, beginning with *history*; it takes no `extra`."""
        self._check_creation(title, system, history, extra)
        return self.add(*history, title=title, system=system)

    def add(self, *history: Message, title: str | None = None, system: str | None = None) -> Conversation:
        """Have a conversation that somebody else has made."""
        now = self._now()
        conversation = Conversation(
            self._id("conversation"), title=title, system=system, created_at=now, updated_at=now
        )
        kept = _Kept(conversation)
        for message in history:
            kept.messages.append(evolve(message, id=self._id("message"), created_at=self._now()))
        self._kept[conversation.id] = kept
        return conversation

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """Give a conversation."""
        self._need(Feature.GET)
        return self._find(conversation_id).conversation

    def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield the conversations, the one that changed last first."""
        self._need(Feature.LIST)
        return _each([kept.conversation for kept in sorted(self._kept.values(), key=_changed, reverse=True)])

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a conversation another title."""
        self._need(Feature.RENAME)
        kept = self._find(conversation_id)
        self._check_sendable(title)
        kept.conversation = evolve(kept.conversation, title=title, updated_at=self._now())
        return kept.conversation

    async def delete_conversation(self, conversation_id: str) -> None:
        """Forget a conversation."""
        self._need(Feature.DELETE)
        del self._kept[self._find(conversation_id).conversation.id]

    def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages."""
        self._need(Feature.HISTORY)
        messages = self._messages(conversation_id)
        return select_messages(messages, after=after, limit=limit, newest_first=newest_first)

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Answer *message*."""
        self._need(Feature.SEND)
        reply, _ = self._say(conversation_id, message, options)
        return reply

    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answer *message* a word at a time, or in the pieces that were chosen."""
        self._need(Feature.STREAM)
        reply, chosen = self._say(conversation_id, message, options)
        for event in events_of(reply, chosen):
            yield event

    async def close(self) -> None:
        """Keep everything, so that a test can still look."""

    def _check_creation(
        self,
        title: str | None,
        system: str | None,
        history: Sequence[Message],
        extra: Mapping[str, Any] | None,
    ) -> None:
        self._need(Feature.CREATE)
        for feature, given in {
            Feature.TITLE: title, Feature.SYSTEM: system, Feature.HISTORY_SEED: history
        }.items():  # fmt: skip
            if given:
                self._need(feature)
        check_extra(extra or {}, (), self._profile)
        self._check_sendable(title, system, *history)

    def _need(self, feature: Feature) -> None:
        if not self._profile.can(feature):
            raise self._profile.unsupported(feature)

    def _check_sendable(self, *values: object) -> None:
        """Refuse texts that no API could be sent."""
        plain = [asdict(cast(AttrsInstance, value)) if has(type(value)) else value for value in values]
        try:
            json.dumps(plain, ensure_ascii=False, skipkeys=True, default=lambda _: None).encode()
        except UnicodeEncodeError:
            pass
        else:
            return
        name = self._profile.name
        raise UsageError(f"{name}: what is sent holds half a character (a lone surrogate)", provider=name)

    def _check_message(self, message: Message, options: SendOptions) -> None:
        """Refuse what can be refused without asking anybody."""
        name, takes_results = self._profile.name, self._takes_results
        if message.role not in ({Role.USER, Role.TOOL} if takes_results else {Role.USER}):
            raise UsageError(f"{name} takes messages of the user only, not of the {message.role.value}")
        if not takes_results and any(isinstance(part, ToolResult) for part in message.parts):
            self._need(Feature.TOOLS)
            raise UsageError(f"{name} takes no results of tools: say them in a text")
        if message.role is Role.TOOL and not all(isinstance(part, ToolResult) for part in message.parts):
            raise UsageError("a message of the tool's holds results of tools and nothing else")
        if any(not isinstance(part, Text | ToolResult) for part in message.parts):
            self._need(Feature.ATTACHMENTS)
        extras = ("reasoning",) if self._profile.can(Feature.REASONING) else ()
        check_extra(options.extra, extras, self._profile)
        check_tools(options.tools, self._profile)
        check_tool_choice(options, self._profile)
        self._check_sendable(message, options)

    @property
    def _takes_results(self) -> bool:
        """
        Whether it takes what tools gave.

        An API that keeps conversations may call tools and yet take no results: of another one's the profile
        does not say it.
        """
        own = self._profile.name == EVERYTHING.name
        return self._profile.can(Feature.TOOLS) and (own or is_kept_here(self._profile))

    def _find(self, conversation_id: str) -> _Kept:
        if conversation_id not in self._kept:
            name = self._profile.name
            raise NotFound(
                f"{name} has no conversation {conversation_id!r}",
                provider=name,
                conversation_id=conversation_id,
            )
        return self._kept[conversation_id]

    async def _messages(self, conversation_id: str) -> AsyncIterator[Message]:
        for message in tuple(self._find(conversation_id).messages):
            yield message

    def _now(self) -> datetime:
        return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self._seconds))

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def _say(self, conversation_id: str, message: Message, options: SendOptions) -> tuple[Reply, Pieces]:
        """Answer *message* and keep both."""
        self._check_message(message, options)
        reply, chosen = self._answer(conversation_id, message, options)
        self._keep(conversation_id, message, reply)
        return reply, chosen

    def _keep(self, conversation_id: str, *said: Message | Reply | None) -> None:
        """Store what was said, where the profile says that anything is stored."""
        kept = self._kept.get(conversation_id)
        if kept is None or self._profile.stores is Stores.NEVER:
            return
        asked = next((_before(each) for each in said if isinstance(each, Reply)), None) or self._now()
        for each in said:
            if isinstance(each, Reply):
                kept.messages.extend(each.messages)
            elif each is not None:
                kept.messages.append(evolve(each, created_at=asked))
        kept.conversation = evolve(kept.conversation, updated_at=self._now())

    def _answer(self, conversation_id: str, message: Message, options: SendOptions) -> tuple[Reply, Pieces]:
        """
        Make the answer to *message*, and say in which pieces its text was given.

        Raises:
            RequestRefused: There is a result of a tool that nothing has called.
        """
        earlier: Sequence[Message] = ()
        if self._profile.stores is not Stores.NEVER:  # Else a message goes into no conversation.
            earlier = self._find(conversation_id).messages
        seen = (*earlier, message) if self._profile.context is ContextOwner.SERVER else (message,)
        self._check_results(seen)
        return self._reply(seen, options)

    def _reply(self, seen: Sequence[Message], options: SendOptions) -> tuple[Reply, Pieces]:
        """Make the answer to the last of the messages *seen*, and say in which pieces its text was given."""
        message, can = seen[-1], self._profile.can
        by_own_rule = self._answers is by_rule
        tool = (tool_wanted if by_own_rule else tool_named)(message, options) if can(Feature.TOOLS) else None
        text, chosen = ("", ()) if tool is not None else as_text(self._answers(seen))
        self._now()  # When it was asked.
        attached = sum(not isinstance(part, Text | ToolResult) for part in message.parts)
        if attached and tool is None:
            text, chosen = f"{text} Attached: {attached}.", ()
        if by_own_rule and tool is None:
            text = in_form(text, options.response_format)
        text, reason = shortened(text, options)
        parts: list[Part] = []
        if options.extra.get("reasoning"):
            parts.append(Reasoning(f"I was asked {message.text!r}."))
        if tool is None:
            parts.append(Text(text))
        else:
            given = arguments(tool.get("parameters"), heard_in(message))
            parts.append(ToolCall(self._id("call"), tool["name"], given))
        cites = "references" in options.include and can(Feature.REFERENCES)
        answer = Message(
            Role.ASSISTANT,
            parts,
            id=self._id("message"),
            created_at=self._now(),
            reply_to=message.id,
            references=[Reference("fake-document", title="A document")] if cites else (),
        )
        reply = Reply(
            (answer,),
            finish_reason=reason if tool is None else FinishReason.TOOL_CALLS,
            usage=Usage(words_in(seen), words_in((answer,))) if can(Feature.USAGE) else None,
            model=options.model or self._model,
        )
        return reply, chosen if text == "".join(chosen) else ()

    def _check_results(self, messages: Sequence[Message]) -> None:
        """Refuse results of tools that no message before has called."""
        called = set[str]()
        for message in messages:
            for part in message.parts:
                if isinstance(part, ToolCall):
                    called.add(part.id)
                elif isinstance(part, ToolResult) and part.call_id not in called:
                    raise RequestRefused(
                        f"there is a result of the call {quoted(part.call_id)}, and no such call before it",
                        provider=self.profile.name,
                        status=400,
                        from_api=True,
                    )


def events_of(reply: Reply, chosen: Pieces = ()) -> Iterator[StreamEvent]:
    """Give *reply* as events: its text a word at a time, or in the pieces *chosen*."""
    yield Started(reply.message.id, reply.model)
    for index, part in enumerate(reply.message.parts):
        if isinstance(part, Text):
            for piece in chosen or pieces(part.text):
                yield TextDelta(piece, index)
        elif isinstance(part, Reasoning):
            yield ReasoningDelta(part.text, index)
        else:
            yield PartAdded(part, index)
    yield Finished(reply)


def words_in(messages: Sequence[Message]) -> int:
    """Count the words that a model reads or writes: texts, calls of tools, and what those gave."""
    calls = (part for message in messages for part in message.parts if isinstance(part, ToolCall))
    written = (f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in calls)
    return sum(len(text.split()) for text in (*map(heard_in, messages), *written))


def _before(reply: Reply) -> datetime | None:
    """Say when what *reply* answers was asked, which was at the look before."""
    answered = reply.message.created_at
    return None if answered is None else answered - timedelta(seconds=1)


def _changed(kept: _Kept) -> tuple[datetime | None, str]:
    return kept.conversation.updated_at, kept.conversation.id


async def _each(conversations: Sequence[Conversation]) -> AsyncIterator[Conversation]:
    for conversation in conversations:
        yield conversation
