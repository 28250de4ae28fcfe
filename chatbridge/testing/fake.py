"""
A backend that lives in the process: every feature, no network, the same answers each time.

It answers as the emulators do, counting the turns and quoting the message before. Its clock starts
in 2025 and moves on a second at each look.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

from attrs import AttrsInstance, asdict, define, evolve, field, fields, frozen, has

from chatbridge.backend import (
    ContextOwner,
    Feature,
    Profile,
    SettleBy,
    Stores,
    Support,
    check_extra,
    select_messages,
)
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
    Usage,
)
from chatbridge.errors import NotFound, UsageError
from chatbridge.options import CommonOptions, option
from chatbridge.registry import Adapter, Defaults
from chatbridge.testing.responder import Exchange, pieces, respond

__all__ = ["ADAPTER", "FakeBackend", "FakeOptions"]

NAME = "fake"


@frozen(kw_only=True)
class FakeOptions(CommonOptions):
    """What the fake can be told."""

    model: str = option("The model that it claims to be.", default="fake-model")
    reply: str | None = option(
        "The answer to everything, in place of the usual one.", default=None, empty=True
    )


PROFILE = Profile(
    NAME,
    dict.fromkeys(Feature, Support.NATIVE),
    options={attribute.name for attribute in fields(SendOptions)} - {"include", "extra"},
    context=ContextOwner.SERVER,
    stores=Stores.WITH,
    settle_by={SettleBy.READ_BACK},
    absent_after=0.0,
    notes=(
        "temperature, top_p, seed, tool_choice and response_format change nothing: it answers by rule.",
        "It reasons where `extra` says reasoning=true, and calls a tool that the message names.",
        "Conversations are gone with the bridge.",
    ),
)


@define(eq=False)
class _Kept:
    conversation: Conversation
    messages: list[Message] = field(factory=list[Message])


class FakeBackend:
    """Keeps conversations in memory and answers by rule."""

    def __init__(self, options: FakeOptions | None = None, _: object = None) -> None:
        self.options = FakeOptions() if options is None else options
        self._kept: dict[str, _Kept] = {}
        self._numbers = count(1)
        self._seconds = count()

    @property
    def profile(self) -> Profile:
        """Everything."""
        return PROFILE

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Make a conversation, beginning with *history*; it takes no `extra`."""
        check_extra(extra or {}, (), PROFILE)
        _check_sendable(title, system, *history)
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
        return self._find(conversation_id).conversation

    async def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield the conversations, the one that changed last first."""
        for kept in sorted(self._kept.values(), key=_changed, reverse=True):
            yield kept.conversation

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a conversation another title."""
        kept = self._find(conversation_id)
        _check_sendable(title)
        kept.conversation = evolve(kept.conversation, title=title, updated_at=self._now())
        return kept.conversation

    async def delete_conversation(self, conversation_id: str) -> None:
        """Forget a conversation."""
        del self._kept[self._find(conversation_id).conversation.id]

    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages."""
        messages = _each(self._find(conversation_id).messages)
        selected = select_messages(messages, after=after, limit=limit, newest_first=newest_first)
        async with aclosing(selected):
            async for message in selected:
                yield message

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Answer *message*."""
        kept = self._find(conversation_id)
        if message.role is not Role.USER:
            raise UsageError(f"{NAME} takes messages of the user only, not of the {message.role.value}")
        check_extra(options.extra, ("reasoning",), PROFILE)
        _check_sendable(message, options)
        reply = self._answer(kept, message, options)
        kept.messages.append(evolve(message, created_at=self._now()))
        kept.messages.append(reply.message)
        kept.conversation = evolve(kept.conversation, updated_at=self._now())
        return reply

    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answer *message* a word at a time."""
        reply = await self.send(conversation_id, message, options)
        yield Started(reply.message.id, reply.model)
        for index, part in enumerate(reply.message.parts):
            if isinstance(part, Text):
                for piece in pieces(part.text):
                    yield TextDelta(piece, index)
            elif isinstance(part, Reasoning):
                yield ReasoningDelta(part.text, index)
            else:
                yield PartAdded(part, index)
        yield Finished(reply)

    async def close(self) -> None:
        """Keep everything, so that a test can still look."""

    def _find(self, conversation_id: str) -> _Kept:
        if conversation_id not in self._kept:
            raise NotFound(
                f"{NAME} has no conversation {conversation_id!r}",
                provider=NAME,
                conversation_id=conversation_id,
            )
        return self._kept[conversation_id]

    def _now(self) -> datetime:
        return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self._seconds))

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def _answer(self, kept: _Kept, message: Message, options: SendOptions) -> Reply:
        said = message.text
        text = self.options.reply
        if text is None:
            text = respond(said, _exchanges(kept.messages))
        attached = sum(not isinstance(part, Text) for part in message.parts)
        text += f" Attached: {attached}." if attached else ""
        text, reason = _shortened(text, options)
        names = (tool.get("name") for tool in options.tools)
        tool = next((name for name in names if name in said.split()), None)
        parts: list[Part] = []
        if options.extra.get("reasoning"):
            parts.append(Reasoning(f"I was asked {said!r}."))
        parts.append(Text(text) if tool is None else ToolCall(self._id("call"), tool, {"said": said}))
        answer = Message(
            Role.ASSISTANT,
            parts,
            id=self._id("message"),
            created_at=self._now(),
            reply_to=message.id,
            references=[Reference("fake-document", title="A document")]
            if "references" in options.include
            else (),
        )
        return Reply(
            (answer,),
            finish_reason=reason if tool is None else FinishReason.TOOL_CALLS,
            usage=Usage(len(said.split()), len(text.split())),
            model=options.model or self.options.model,
        )


def _changed(kept: _Kept) -> tuple[datetime | None, str]:
    return kept.conversation.updated_at, kept.conversation.id


async def _each(messages: Sequence[Message]) -> AsyncIterator[Message]:
    for message in tuple(messages):
        yield message


def _check_sendable(*values: object) -> None:
    """Refuse texts that no API could be sent."""
    plain = [asdict(cast(AttrsInstance, value)) if has(type(value)) else value for value in values]
    try:
        json.dumps(plain, ensure_ascii=False, skipkeys=True, default=lambda _: None).encode()
    except UnicodeEncodeError:
        pass
    else:
        return
    raise UsageError(f"{NAME}: what is sent holds half a character (a lone surrogate)", provider=NAME)


def _exchanges(messages: Sequence[Message]) -> list[Exchange]:
    """Pair each message of the user's with the answer behind it."""
    exchanges: list[Exchange] = []
    for message in messages:
        if message.role is Role.USER:
            exchanges.append(Exchange(message.text, ""))
        elif exchanges:
            exchanges[-1] = evolve(exchanges[-1], answered=message.text)
    return exchanges


def _shortened(text: str, options: SendOptions) -> tuple[str, FinishReason]:
    for stop in options.stop:
        text = text.partition(stop)[0] if stop else text
    words = pieces(text)
    if options.max_output_tokens is not None and len(words) > options.max_output_tokens:
        return "".join(words[: options.max_output_tokens]), FinishReason.LENGTH
    return text, FinishReason.STOP


def profile(_: FakeOptions | None = None) -> Profile:
    """Tell what the fake can do: everything."""
    return PROFILE


ADAPTER = Adapter(
    NAME,
    "A backend in this process, for tests and trials",
    options=FakeOptions,
    profile=profile,
    open=FakeBackend,
    defaults=Defaults(model_option="model", in_process=True),
)
