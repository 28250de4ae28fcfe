"""
What a chat completion answers, whole or event by event, in the form that most of such APIs share.

A whole answer has choices with messages, an event of a stream choices with what is added to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from attrs import Attribute, define, field

from chatbridge.http.content import loads
from chatbridge.http.framing import Frame
from chatbridge.http.loose import as_object, read_fields, read_loosely
from chatbridge.http.wire import Raw, keep_raw

__all__ = [
    "DONE",
    "Choice",
    "Chunk",
    "Said",
    "read_event",
    "tells_failure",
    "words",
]

DONE = "[DONE]"
"""The data of the event that ends a stream."""


def tells_failure(fields: Mapping[str, Any]) -> bool:
    """Tell whether the data of an event that is not named so is an error all the same."""
    told = (fields.get("message"), fields.get("error"))
    return fields.get("type") == "error" or any(told)


def _text_or_list(_: object, __: Attribute[Any], value: object) -> None:
    if not isinstance(value, str | list | None):
        raise TypeError("expected a text or a list")


def _objects(_: object, __: Attribute[Any], value: object) -> None:
    listed = cast(list[object], value) if isinstance(value, list) else [None]
    if value and not all(isinstance(each, dict) for each in listed):
        raise TypeError("expected a list of objects")


@define
class Said:
    """
    What a choice says: a message, or what a chunk adds to it.

    Attributes:
        content: A text, or a list of parts.
        tool_calls: A list of objects; whatever is empty is none.
    """

    role: str | None = None
    content: Any = field(default=None, validator=_text_or_list)
    tool_calls: Any = field(default=None, validator=_objects)
    raw: Raw = keep_raw()


@define
class Choice:
    """
    One answer; only one is asked for.

    Attributes:
        error: What failed, as of a server that asks others.
    """

    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    error: Any = field(default=None, repr=False)
    raw: Raw = keep_raw()

    @property
    def number(self) -> float | None:
        """Which of the answers it is, as far as it was told."""
        index = self.raw.get("index")
        return index if isinstance(index, int | float) else None


def _place(choice: Choice) -> float:
    return choice.number or 0


@define
class Chunk:
    """
    A whole answer, or one event of a streamed one.

    Attributes:
        model: A text, where it is told.
        usage: An object, where it is told.
        error: What failed, whatever it is; then there is no more. What is empty is nothing.
        object: `[DONE]` stands for the end mark.
        beside: The whole event, where its name says that it is no part of the answer.
    """

    choices: list[Choice] | None = None
    # Not shown: any of them may tell the key back, and tracebacks may show a chunk.
    model: Any = field(default=None, repr=False)  # Neither this nor usage is worth an answer.
    usage: Any = field(default=None, repr=False)
    error: Any = field(default=None, repr=False)
    object: Any = field(default=None, repr=False)
    beside: Raw | None = field(default=None, repr=False)
    raw: Raw = keep_raw()

    @property
    def choice(self) -> Choice | None:
        """The answer with the lowest number, where none is the lowest: only one was asked for."""
        choices = self.choices or ()
        return choices[0] if len(choices) == 1 else min(choices, key=_place, default=None)

    @property
    def failure(self) -> Raw | None:
        """What has, as its `error`, what failed of all or of the first answer; None where nothing did."""
        if self.error:
            return self.raw
        choice = self.choice
        return {"error": choice.error} if choice is not None and choice.error else None

    @property
    def is_answer(self) -> bool:
        """Whether it is a whole answer: without a message, or with a failure, it is none."""
        choice = self.choice
        return self.failure is None and choice is not None and (choice.message or choice.delta) is not None


def read_event(frame: Frame) -> object:
    """
    Make of an event a `Chunk`, or what one is built from: the end mark and failures are no chunks.

    Raises:
        BrokenContent: Its data is not JSON.
    """
    data = frame.data.strip()
    if data == DONE.encode():
        return {"object": DONE}
    if frame.name == "error":
        return {"error": read_loosely(data) or True}
    if frame.name != "message":  # So an event without a name is called.
        fields = read_fields(frame)
        if "choices" in fields or _is_error(fields):
            return fields
        return {"beside": {**fields, "type": fields.get("type") or frame.name}}
    value: object = loads(data) if data else {}
    fields = as_object(value)
    if (chunk := _text_chunk(fields)) is not None:
        return chunk
    return {"error": value} if tells_failure(fields) and "choices" not in fields else value


def _is_error(fields: Mapping[str, Any]) -> bool:
    """Tell whether a named event is an error of the answer's; one of a tool's stands beside what it is of."""
    error = fields.get("error")
    return bool(error) and (len(fields) == 1 or "message" in as_object(error))


def _text_chunk(fields: Mapping[str, Any]) -> Chunk | None:
    """Build by hand, in a third of the time, what nearly every event is: one that adds a text and no more."""
    try:
        (choice,), model, told = fields["choices"], fields["model"], fields.get
        delta, of_choice = choice["delta"], choice.get
        content, role, of_delta = delta["content"], delta.get("role"), delta.get
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if not (
        type(content) is type(model) is str
        and (role is None or type(role) is str)
        and of_delta("tool_calls") is of_choice("finish_reason") is of_choice("message") is None
        and of_choice("error") is None
        and told("usage") is told("error") is told("beside") is None
    ):
        return None
    said = Said(role, content, raw=delta)
    return Chunk([Choice(said, raw=choice)], model, object=told("object"), raw=fields)


def words(part: object) -> str | None:
    """Give the text of a part; None where it is no text."""
    match part:
        case str(text) | {"type": "text", "text": str(text)}:
            return text
        case _:
            return None
