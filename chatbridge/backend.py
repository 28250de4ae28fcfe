"""What an API must look like to be a backend, and how it says what it can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from enum import StrEnum
from operator import itemgetter
from typing import Any, NoReturn, Protocol, cast, runtime_checkable

from attrs import evolve, field, frozen

from chatbridge.domain import (
    Attachment,
    Conversation,
    Message,
    Opaque,
    Part,
    Reasoning,
    Reply,
    Role,
    SendOptions,
    StreamEvent,
    Text,
    ToolCall,
    ToolResult,
)
from chatbridge.errors import BadOption, UnsupportedFeature, UsageError
from chatbridge.messages import check_types
from chatbridge.secret import Secret

__all__ = [
    "ChatBackend",
    "CompletionBackend",
    "ContextOwner",
    "Feature",
    "IssuesKeys",
    "PartialBackend",
    "Profile",
    "SettleBy",
    "Stores",
    "Support",
    "by_time",
    "check_extra",
    "check_parts",
    "check_tools",
    "select_messages",
    "text_to_send",
]


class Feature(StrEnum):
    """Everything that a backend may be able to do; the list is closed."""

    CREATE = "create"
    TITLE = "title"
    SYSTEM = "system"
    HISTORY_SEED = "history_seed"
    GET = "get"
    LIST = "list"
    RENAME = "rename"
    DELETE = "delete"
    HISTORY = "history"
    SEND = "send"
    STREAM = "stream"
    ATTACHMENTS = "attachments"
    TOOLS = "tools"
    REFERENCES = "references"
    USAGE = "usage"
    REASONING = "reasoning"


class Support(StrEnum):
    """Whether the API has a feature, chatbridge makes up for it, or there is none."""

    NATIVE = "native"
    EMULATED = "emulated"
    UNSUPPORTED = "unsupported"


class ContextOwner(StrEnum):
    """Who gives the model the earlier turns."""

    SERVER = "server"
    CLIENT = "client"
    NONE = "none"


class Stores(StrEnum):
    """When the API stores a turn, as seen from its answer."""

    BEFORE = "before"
    WITH = "with"
    NEVER = "never"
    UNDOCUMENTED = "undocumented"


class SettleBy(StrEnum):
    """What can settle a delivery that is in doubt."""

    KEY = "key"
    CLIENT_ID = "client_id"
    READ_BACK = "read_back"


def _features(features: Mapping[Feature, Support]) -> Mapping[Feature, Support]:
    return dict(features)


# A string is an iterable of strings, too: taken for one, it would fall apart into letters.
def _option_names(names: str | Iterable[str]) -> frozenset[str]:
    return frozenset(_sentences(names))


def _settlers(ways: Iterable[SettleBy]) -> frozenset[SettleBy]:
    return frozenset(ways)


def _sentences(sentences: str | Iterable[str]) -> tuple[str, ...]:
    return (sentences,) if isinstance(sentences, str) else tuple(sentences)


@frozen
class Profile:
    """
    What a backend can do, as data.

    Attributes:
        name: The backend's name.
        features: The support of each feature; one that is not named is unsupported.
        options: The fields of `SendOptions` that the API honours (`extra` keys are the adapter's to check).
        context: Who gives the model the earlier turns.
        stores: When the API stores a turn.
        settle_by: What can settle a delivery in doubt; empty where nothing can.
        absent_after: Seconds after which absence from the history proves that a message
            did not arrive; None where nothing proves it.
        instead: For an unsupported feature, what there is in its place.
        notes: What a user should know and the fields above cannot say, a sentence each.
    """

    name: str
    features: Mapping[Feature, Support] = field(converter=_features)
    options: frozenset[str] = field(default=frozenset(), converter=_option_names)
    context: ContextOwner = ContextOwner.SERVER
    stores: Stores = Stores.UNDOCUMENTED
    settle_by: frozenset[SettleBy] = field(default=frozenset(), converter=_settlers)
    absent_after: float | None = None
    instead: Mapping[Feature, str] = field(factory=dict[Feature, str])
    notes: tuple[str, ...] = field(default=(), converter=_sentences)

    def support(self, feature: Feature) -> Support:
        """How *feature* is supported."""
        return self.features.get(feature, Support.UNSUPPORTED)

    def can(self, feature: Feature) -> bool:
        """Whether *feature* works at all, natively or emulated."""
        return self.support(feature) is not Support.UNSUPPORTED

    def unsupported(self, feature: Feature) -> UnsupportedFeature:
        """Make the error that says that *feature* is not there, and what is instead."""
        return UnsupportedFeature(backend=self.name, feature=feature.value, instead=self.instead.get(feature))

    def with_features(self, features: Mapping[Feature, Support]) -> Profile:
        """Make a profile that differs in *features*."""
        return evolve(self, features={**self.features, **features})


class ChatBackend(Protocol):
    """
    One chat API that keeps conversations, seen through the common model.

    Adapters match this protocol by shape and need not inherit from it. A method whose
    feature the profile does not claim raises `UnsupportedFeature` before any I/O.
    Every other failure is a `ChatbridgeError` that says whether the message may have arrived.
    """

    @property
    def profile(self) -> Profile:
        """What this backend can do, with the options it was opened with."""
        ...

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Make a conversation on the server; *extra* holds the API's own fields, checked by the adapter."""
        ...

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """Read what the API tells of a conversation, its messages aside."""
        ...

    # Not `async def`: calling an async generator gives its iterator at once.
    def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield all conversations, reading page after page as they are asked for."""
        ...

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a conversation another title."""
        ...

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation on the server."""
        ...

    def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages, oldest first; *after* is the id of a message to begin behind."""
        ...

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Add *message* to the conversation and wait for the whole answer."""
        ...

    def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer as it arrives; the last event is always `Finished`. Close it with `aclosing`."""
        ...

    async def close(self) -> None:
        """Free what the backend itself made; the transport is the bridge's."""
        ...


class CompletionBackend(Protocol):
    """
    One API that keeps nothing: each call carries the whole history, and the profile's context is `client`.

    The bridge adds conversations to it, which are in its store. An error that says that there are too many
    messages for the model has the code `chatbridge.overflow.CONTEXT_LENGTH`, whatever the API's own is.
    """

    @property
    def profile(self) -> Profile:
        """What this backend can do, with the options it was opened with."""
        ...

    async def complete(self, messages: Sequence[Message], options: SendOptions) -> Reply:
        """Answer the last of *messages*."""
        ...

    def stream(self, messages: Sequence[Message], options: SendOptions) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer as it arrives; the last event is always `Finished`."""
        ...

    async def close(self) -> None:
        """Free what the backend itself made; the transport is the bridge's."""
        ...


@runtime_checkable
class IssuesKeys(Protocol):
    """
    A backend whose server gives out keys, such as a session's token; its option `key` takes them.

    Attributes:
        on_session_token: Called with each key that the server gives, to save it; an awaitable that it gives
            is awaited.
    """

    on_session_token: Callable[[Secret], Awaitable[None] | None] | None

    @property
    def session_token(self) -> Secret | None:
        """The key in use; None before there is one."""
        ...


class PartialBackend(ABC):
    """
    A base for backends of APIs that cannot do everything: each method that is not overridden says so.

    It is a `ChatBackend` by shape once it has a profile.
    """

    @property
    @abstractmethod
    def profile(self) -> Profile:
        """What this backend can do."""

    async def create_conversation(
        self,
        *,
        title: str | None = None,  # noqa: ARG002 - the protocol's
        system: str | None = None,  # noqa: ARG002
        history: Sequence[Message] = (),  # noqa: ARG002
        extra: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Conversation:
        """Refuse."""
        self._refuse(Feature.CREATE)

    async def get_conversation(self, conversation_id: str) -> Conversation:  # noqa: ARG002
        """Refuse."""
        self._refuse(Feature.GET)

    def list_conversations(self) -> AsyncIterator[Conversation]:
        """Refuse."""
        self._refuse(Feature.LIST)

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:  # noqa: ARG002
        """Refuse."""
        self._refuse(Feature.RENAME)

    async def delete_conversation(self, conversation_id: str) -> None:  # noqa: ARG002
        """Refuse."""
        self._refuse(Feature.DELETE)

    def list_messages(
        self,
        conversation_id: str,  # noqa: ARG002
        *,
        after: str | None = None,  # noqa: ARG002
        limit: int | None = None,  # noqa: ARG002
        newest_first: bool = False,  # noqa: ARG002
    ) -> AsyncIterator[Message]:
        """Refuse."""
        self._refuse(Feature.HISTORY)

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:  # noqa: ARG002
        """Refuse."""
        self._refuse(Feature.SEND)

    def stream(
        self,
        conversation_id: str,  # noqa: ARG002
        message: Message,  # noqa: ARG002
        options: SendOptions,  # noqa: ARG002
    ) -> AsyncGenerator[StreamEvent, None]:
        """Refuse."""
        self._refuse(Feature.STREAM)

    async def close(self) -> None:  # noqa: B027 - most backends make nothing that needs closing
        """Do nothing: there is nothing that the backend made itself."""

    def _refuse(self, feature: Feature) -> NoReturn:
        raise self.profile.unsupported(feature)

    def _refuse_given(self, **given: object) -> None:
        """Refuse what is asked of a creation, by feature, unless it is empty."""
        for name, value in given.items():
            if value:
                self._refuse(Feature(name))


def text_to_send(message: Message, profile: Profile) -> str:
    """
    Give the text of a user's message, for an API that takes only such.

    Raises:
        UnsupportedFeature: There are parts other than text.
        UsageError: It is not the user's, or has a part that is given back to its origin only.
    """
    if message.role is not Role.USER:
        raise UsageError(
            f"{profile.name} takes messages of the user only, not of the {message.role.value}",
            provider=profile.name,
        )
    check_parts(message, profile)
    for part in message.parts:
        if isinstance(part, Opaque):
            raise UsageError(
                f"{profile.name} takes text only, and a part of the kind {part.kind!r} "
                f"can be given back to {part.origin} only",
                provider=profile.name,
            )
        if not isinstance(part, Text):
            raise profile.unsupported(_FEATURE_OF[type(part)])
    return message.text


def check_parts(message: Message, profile: Profile) -> None:
    """
    Refuse a message with parts for which the backend has no feature, or with what is none.

    Raises:
        UnsupportedFeature: Naming the first of them.
        UsageError: Something is no part, or of another type than it says, or no JSON where it must be.
    """
    check_types(message)
    for part in message.parts:
        feature = _FEATURE_OF.get(type(part))
        if feature is not None and not profile.can(feature):
            raise profile.unsupported(feature)


_FEATURE_OF: Mapping[type[Part], Feature] = {
    Attachment: Feature.ATTACHMENTS,
    Reasoning: Feature.REASONING,
    ToolCall: Feature.TOOLS,
    ToolResult: Feature.TOOLS,
}


def by_time(messages: Iterable[Message]) -> list[Message]:
    """Sort *messages* by the time they were made; one without a time stays behind the one before it."""
    latest = datetime.min.replace(tzinfo=UTC)
    placed: list[tuple[datetime, Message]] = []
    for message in messages:
        latest = message.created_at or latest
        placed.append((latest, message))
    return [message for _, message in sorted(placed, key=itemgetter(0))]


async def select_messages(
    messages: AsyncIterator[Message] | Iterable[Message],
    *,
    after: str | None = None,
    limit: int | None = None,
    newest_first: bool = False,
) -> AsyncGenerator[Message, None]:
    """
    Filter a history that an API gives from its beginning, and close it.

    With *newest_first* all of it is read before the first message is yielded; with a *limit* of 0 none is.

    Raises:
        UsageError: No message has the id *after*.
    """
    chosen: list[Message] = []
    found, yielded = after is None, 0
    async with AsyncExitStack() as stack:
        each = _each(messages) if isinstance(messages, Iterable) else messages
        if isinstance(each, AsyncGenerator):
            stack.push_async_callback(cast(AsyncGenerator[Message, None], each).aclose)
        if limit == 0:
            return
        async for message in each:
            if not found:
                found = message.id == after
            elif newest_first:
                chosen.append(message)
            else:
                yield message
                yielded += 1
                if yielded == limit:
                    return
    if not found:
        raise UsageError(f"the history has no message with the id {after!r}")
    for message in chosen[::-1][:limit]:
        yield message


async def _each(messages: Iterable[Message]) -> AsyncGenerator[Message, None]:
    for message in messages:
        yield message


def check_extra(extra: Mapping[str, Any], known: Sequence[str], profile: Profile) -> None:
    """
    Refuse options of one API that its adapter does not know.

    Raises:
        BadOption: Naming the first of them, and what is known.
    """
    for name in extra:
        if name not in known:
            raise BadOption(
                backend=profile.name, option=name, problem="is unknown in extra", known=tuple(known)
            )


def check_tools(tools: Sequence[Mapping[str, Any]], profile: Profile) -> None:
    """
    Refuse tools that cannot be called, for want of a name.

    Raises:
        BadOption: One has none, or is in an API's own form.
    """
    for tool in tools:
        if not isinstance(tool.get("name"), str):
            hint = ": give what is under 'function'" if "function" in tool else ""
            raise BadOption(
                backend=profile.name,
                option="tools",
                problem=f"takes mappings with name, description and parameters{hint}",
            )
