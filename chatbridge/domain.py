"""
What a conversation is made of: plain immutable values that know no API.

Times are aware and in UTC; a number that nobody reported is None, never 0.
Equality compares every field but the `extra` that keeps what an API sent beyond
the common model. Mappings are copied when a value is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self, cast

from attrs import field, frozen

__all__ = [
    "Attachment",
    "Conversation",
    "FinishReason",
    "Finished",
    "Message",
    "Opaque",
    "Part",
    "PartAdded",
    "Progress",
    "Reasoning",
    "ReasoningDelta",
    "Reference",
    "Reply",
    "Reset",
    "Role",
    "SendOptions",
    "Started",
    "StreamEvent",
    "Text",
    "TextDelta",
    "ToolCall",
    "ToolResult",
    "Usage",
]


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    if moment.tzinfo is UTC:
        return moment
    if moment.utcoffset() is None:
        raise ValueError(f"a time needs a time zone, and {moment.isoformat()} has none")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        pass
    raise ValueError(f"{moment.isoformat()} is beyond the years 1 to 9999 in UTC")


def _copy(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(mapping)


def _bytes(data: bytes | bytearray | memoryview | None) -> bytes | None:
    return bytes(data) if isinstance(data, bytearray | memoryview) else data


def _copy_if_given(mapping: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if mapping is None else dict(mapping)


def _copy_data(value: Opaque | Progress) -> None:
    data: object = value.data
    if isinstance(data, Mapping):
        object.__setattr__(value, "data", dict(cast(Mapping[str, Any], data)))


def _empty() -> Mapping[str, Any]:
    return {}


def _extra() -> Any:  # noqa: ANN401 - like attrs' own `field`, whose type is the annotation's
    return field(factory=_empty, eq=False, converter=_copy, kw_only=True)


# A string is an iterable of strings, too: taken for one, it would fall apart into letters.
def _texts_given(texts: str | Iterable[str]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _names(names: str | Iterable[str]) -> frozenset[str]:
    return frozenset(_texts_given(names))


def _finish_reason(value: str | None) -> FinishReason | None:
    return None if value is None else FinishReason(value)


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    """Why an answer ended; an API's word beyond these is `OTHER`, and stays in `Reply.raw_finish_reason`."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    TOOL_CALLS = "tool_calls"
    INPUT_REQUIRED = "input_required"
    ERROR = "error"
    OTHER = "other"


@frozen
class Text:
    """Words."""

    text: str


@frozen
class Reasoning:
    """What a model says that it thought, with the mark by which its API knows it again."""

    text: str
    signature: str | None = None


@frozen
class Attachment:
    """A file: its bytes, copied where they can change, or where they are; exactly one of the two."""

    media_type: str
    data: bytes | None = field(default=None, converter=_bytes)
    url: str | None = None
    name: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an attachment has either data or a url")


@frozen
class ToolCall:
    """A model's wish to have a tool run."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(converter=_copy)


@frozen
class ToolResult:
    """What a tool answered to the call *call_id*."""

    call_id: str
    content: str
    is_error: bool = False


@frozen
class Opaque:
    """
    What an API sends and the model has no type for, kept whole.

    Attributes:
        origin: The backend that sent it; only that one is ever given it back.
        kind: The API's own word for it.
        data: As received, parsed from JSON.
    """

    origin: str
    kind: str
    data: Any

    def __attrs_post_init__(self) -> None:
        _copy_data(self)


Part = Text | Reasoning | Attachment | ToolCall | ToolResult | Opaque
"""One piece of a message."""


@frozen
class Reference:
    """A place in a document that an answer rests on."""

    document_id: str
    title: str | None = None
    uri: str | None = None
    pages: str | None = None
    score: float | None = None
    excerpt: str | None = None
    extra: Mapping[str, Any] = _extra()


def _references(references: Iterable[Reference]) -> tuple[Reference, ...]:
    return tuple(references)


def _parts(parts: str | Iterable[Part | str]) -> tuple[Part, ...]:
    if isinstance(parts, str):
        return (Text(parts),)
    return tuple(Text(part) if isinstance(part, str) else part for part in parts)


def _texts(parts: Iterable[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))


@frozen
class Message:
    """
    One utterance.

    Attributes:
        role: Who speaks.
        parts: What is said; a string stands for a `Text`.
        id: The backend's id. On the way out it is the turn's own id, made by the bridge.
        author: The name of the agent or user, where the API tells.
        reply_to: The id of the message that this one answers.
        references: Documents that an answer rests on.
    """

    __hash__ = None  # type: ignore[assignment]  # parts may hold mappings

    role: Role = field(converter=Role)
    parts: tuple[Part, ...] = field(default=(), converter=_parts)
    id: str | None = None
    author: str | None = None
    created_at: datetime | None = field(default=None, converter=_utc)
    reply_to: str | None = None
    references: tuple[Reference, ...] = field(default=(), converter=_references)
    extra: Mapping[str, Any] = _extra()

    @classmethod
    def user(cls, parts: str | Iterable[Part | str]) -> Self:
        """Make a message of the user's."""
        return cls(Role.USER, parts)

    @classmethod
    def assistant(cls, parts: str | Iterable[Part | str]) -> Self:
        """Make a message of the assistant's."""
        return cls(Role.ASSISTANT, parts)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return _texts(self.parts)

    def same_content(self, other: Message) -> bool:
        """Say whether *other* has the same role and parts, whatever its id and times."""
        return self.role == other.role and self.parts == other.parts


@frozen
class Conversation:
    """
    A conversation that a backend keeps.

    Attributes:
        id: The backend's id, opaque.
        system: The system prompt, where the API tells it.
        warnings: What went wrong without costing the call that gave this.
    """

    __hash__ = None  # type: ignore[assignment]  # it stands for what changes on the server

    id: str
    title: str | None = None
    system: str | None = None
    created_at: datetime | None = field(default=None, converter=_utc)
    updated_at: datetime | None = field(default=None, converter=_utc)
    warnings: tuple[str, ...] = field(default=(), converter=_texts_given)
    extra: Mapping[str, Any] = _extra()


@frozen
class Usage:
    """
    What one answer cost, in the backend's own count.

    Attributes:
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written, reasoning included.
        total_tokens: As reported; else the sum of both, as far as both are known.
        cost: In the API's currency, US dollars where it does not say.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.total_tokens is None and self.input_tokens is not None and self.output_tokens is not None:
            object.__setattr__(self, "total_tokens", self.input_tokens + self.output_tokens)


def _messages(messages: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(messages)


def _tools(tools: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(dict(tool) for tool in tools)


@frozen
class Reply:
    """
    The answer to one message.

    Attributes:
        messages: What was said, at least one message of the assistant's; a run of agents gives several.
        raw_finish_reason: The API's own word for *finish_reason*.
        warnings: What was asked and not honoured, or went wrong without costing the answer.
        recovered: Whether the answer was read back after its delivery had been in doubt.
    """

    __hash__ = None  # type: ignore[assignment]  # nor do its messages have one

    messages: tuple[Message, ...] = field(converter=_messages)
    finish_reason: FinishReason | None = field(default=None, converter=_finish_reason)
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    warnings: tuple[str, ...] = field(default=(), converter=_texts_given)
    recovered: bool = False
    extra: Mapping[str, Any] = _extra()

    def __attrs_post_init__(self) -> None:
        if not any(message.role is Role.ASSISTANT for message in self.messages):
            raise ValueError("a reply has at least one message of the assistant's")

    @property
    def message(self) -> Message:
        """The last message of the assistant's."""
        return next(message for message in reversed(self.messages) if message.role is Role.ASSISTANT)

    @property
    def text(self) -> str:
        """The texts of the assistant's messages, a blank line between two of them."""
        texts = (message.text for message in self.messages if message.role is Role.ASSISTANT)
        return "\n\n".join(text for text in texts if text)


@frozen
class SendOptions:
    """
    How one message is to be answered; None leaves a choice to the backend.

    Attributes:
        stop: Texts before which the answer ends.
        tools: Tools on offer, each a mapping with `name`, `description`, `parameters` (JSON Schema).
        include: What to fetch beside the answer: `references`, `usage`. It costs extra reads,
            whose failure is a warning.
        extra: Options of one API, checked by its adapter; part of what is compared.
    """

    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = field(default=(), converter=_texts_given)
    seed: int | None = None
    tools: tuple[Mapping[str, Any], ...] = field(default=(), converter=_tools)
    tool_choice: str | None = None
    response_format: Mapping[str, Any] | None = field(default=None, converter=_copy_if_given)
    include: frozenset[str] = field(default=frozenset(), converter=_names)
    extra: Mapping[str, Any] = field(factory=_empty, converter=_copy)


@frozen
class Started:
    """The answer begins."""

    message_id: str | None = None
    model: str | None = None


@frozen
class TextDelta:
    """More text of the part *index*."""

    text: str
    index: int = 0


@frozen
class ReasoningDelta:
    """More reasoning of the part *index*."""

    text: str
    index: int = 0


@frozen
class PartAdded:
    """A whole part; it replaces the deltas of its *index*."""

    part: Part
    index: int


@frozen
class Progress:
    """Something happens that is no part of the answer, such as a tool at work."""

    kind: str
    data: Any = None

    def __attrs_post_init__(self) -> None:
        _copy_data(self)


@frozen
class Reset:
    """Discard what was shown of this answer so far, and why."""

    reason: str


@frozen
class Finished:
    """The answer is complete: exactly one, and the last event of a stream."""

    reply: Reply


StreamEvent = Started | TextDelta | ReasoningDelta | PartAdded | Progress | Reset | Finished
"""What a streamed answer consists of."""
