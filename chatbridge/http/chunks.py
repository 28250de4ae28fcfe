"""
What a chat completion answers, whole or event by event, in the form that most of such APIs share.

A whole answer has choices with messages, an event of a stream choices with what is added to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, cast

from attrs import Attribute, define, evolve, field

from chatbridge.domain import Message, Opaque, Progress, Reply, Role, StreamEvent, Usage
from chatbridge.http.completions import CUT_SHORT, beside_usage, to_finish_reason, to_usage
from chatbridge.http.content import BrokenContent, Mender, loads
from chatbridge.http.framing import Frame
from chatbridge.http.loose import as_list, as_object, as_text, read_fields, read_loosely
from chatbridge.http.parts import CallFold, PartsFold
from chatbridge.http.wire import Raw, beyond, keep_raw

__all__ = [
    "CALLS",
    "DONE",
    "Choice",
    "Chunk",
    "CompletionFold",
    "Increments",
    "Said",
    "read_event",
    "tells_failure",
    "to_progress",
    "words",
]

DONE = "[DONE]"
"""The data of the event that ends a stream."""

CALLS = "tool_calls"
"""Where the `extra` of an answer has what calls of tools say beyond ours, by their ids."""

LEFT_OUT = "the server sent more than one answer, and only the one that came first was read"


def tells_failure(fields: Mapping[str, Any]) -> bool:
    """Tell whether the data of an event that is not named so is an error all the same."""
    told = (fields.get("message"), fields.get("error"))
    return fields.get("type") == "error" or any(told)


def to_progress(beside: Raw, mended: Mender) -> Progress:
    """Say an event that is no part of an answer in ours."""
    data = mended(beside)
    return Progress(as_text(data.get("type")), data)


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
    def number(self) -> float:
        """Which of the answers it is; without a number it is the first, 0."""
        index = self.raw.get("index")
        return index if isinstance(index, int | float) else 0


_number = attrgetter("number")


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
    model: Any = None  # Neither is worth an answer.
    usage: Any = None
    error: Any = field(default=None, repr=False)
    object: Any = None
    beside: Raw | None = None
    raw: Raw = keep_raw()

    @property
    def choice(self) -> Choice | None:
        """The answer with the lowest number: only one was asked for."""
        return min(self.choices or (), key=_number, default=None)

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


def _joined(values: list[Any]) -> Any:  # noqa: ANN401 - JSON
    """Join what came of one field: texts, lists and objects piece by piece; of others the last counts."""
    if all(isinstance(value, str) for value in values):
        return "".join(values)
    if all(isinstance(value, list) for value in values):
        return [item for value in values for item in value]
    if all(isinstance(value, dict) for value in values):
        fields = Increments()
        for value in values:
            fields.add(value)
        return fields.joined()
    return values[-1]


@define
class Increments:
    """The fields of pieces, to be joined; null counts as not sent."""

    _values: dict[str, list[Any]] = field(factory=dict[str, list[Any]])

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, fields: Mapping[str, Any]) -> None:
        """Take the fields of the next piece."""
        for name, value in fields.items():
            if value is not None:
                self._values.setdefault(name, []).append(value)

    def joined(self) -> dict[str, Any]:
        """Give them."""
        return {
            name: values[0] if len(values) == 1 else _joined(values) for name, values in self._values.items()
        }


_SAID = frozenset({"role", "content", "tool_calls"})
_NO_REASONS = (None, "", "null")


@define(repr=False)
class CompletionFold:
    """
    An answer, put together from a stream or taken whole; what its API has beyond the form, a subclass reads.

    Attributes:
        origin: The backend's name.
        model: The model that answers, as far as it was told.
    """

    origin: str
    model: str | None = None
    _usage: Usage | None = None
    _reason: str | None = None
    _went_on: bool = False
    _parts: PartsFold = field(init=False)
    _calls: dict[int, CallFold] = field(factory=dict[int, CallFold])
    _warnings: list[str] = field(factory=list[str])
    _told: dict[str, Any] = field(factory=dict[str, Any])
    _of_chunks: dict[str, Any] = field(factory=dict[str, Any])
    _of_choices: dict[str, Any] = field(factory=dict[str, Any])
    _of_messages: Increments = field(factory=Increments)
    _logprobs: Increments = field(factory=Increments)
    _number: float | None = None
    _in_pieces: bool = False
    _so_far: dict[str, str] = field(factory=dict[str, str])
    _repeated: dict[str, Any] = field(factory=dict[str, Any])

    def __attrs_post_init__(self) -> None:
        self._parts = PartsFold(self.origin, _unread_call)

    @property
    def has_reason(self) -> bool:
        """Whether it was told why the answer ended; there are servers that tell so with each piece of it."""
        return self._reason is not None

    @property
    def has_ended(self) -> bool:
        """Whether it was told why the answer ended, and nothing of the answer came after that."""
        return self.has_reason and not self._went_on

    def take(self, chunk: Chunk, *, whole: bool = False) -> list[StreamEvent]:
        """Take a chunk, or a *whole* answer, and tell what it adds."""
        if chunk.beside is not None:
            return [to_progress(chunk.beside, self._parts.mended)]
        if chunk.model != self.model and isinstance(chunk.model, str):
            self.model = self._parts.mended(chunk.model) or self.model
        if chunk.usage:
            self._count(as_object(chunk.usage))
        self._of_chunks.update(chunk.raw)  # What is known of it is picked out once, at the end.
        choice = chunk.choice
        if choice is None or not self._is_ours(choice.number):
            return []
        ended = self.has_reason
        if choice.finish_reason not in _NO_REASONS:
            self._reason = choice.finish_reason
        self._of_choices.update(choice.raw)
        if logprobs := as_object(choice.raw.get("logprobs")):
            self._logprobs.add(logprobs)
        said = self._whole(choice) if whole else self._piece(choice)
        if said is not None:
            self._take(said, whole=whole or said is not choice.delta)
        events = self._parts.events()
        if ended and (events or (said is not None and said.tool_calls)):
            self._went_on = True
        return events

    def finish(self) -> list[StreamEvent]:
        """End the answer."""
        self._parts.finish(cut=to_finish_reason(self._reason) in CUT_SHORT)
        return self._parts.events()

    def reply(self) -> Reply:
        """Give the answer, once it has ended."""
        mended = self._parts.mended
        beside = {call.id: call.beside for call in self._parts.calls if call.beside}
        told = {**self._repeated, **self._of_messages.joined(), **({CALLS: beside} if beside else {})}
        message = Message(Role.ASSISTANT, self._parts.parts, extra=mended(told))
        reason = mended(self._reason)
        extra = mended({
            **beyond(self._of_chunks, "object", "model", "choices", "usage", "error"),
            **beyond(self._of_choices, "index", "delta", "message", "finish_reason", "error"),
            **({"logprobs": self._logprobs.joined()} if self._logprobs else {}),
            **self._told,
        })  # fmt: skip
        return Reply(
            (message,),
            finish_reason=to_finish_reason(reason),
            raw_finish_reason=reason,
            usage=self._usage,
            model=self.model,
            warnings=(*self._warnings, *self._parts.warnings),
            extra=extra,
        )

    def _count(self, told: Raw) -> None:
        """Take what is told of usage; one of nothing but zeros replaces none that tells more."""
        usage = to_usage(told)
        if usage is None or self._usage is None or usage.input_tokens or usage.output_tokens:
            self._usage = usage or self._usage
            self._told |= beside_usage(told)

    def _is_ours(self, number: float) -> bool:
        """Tell whether the answer with this *number* is the one that is read: the one that came first."""
        if self._number is None:
            self._number = number
        elif number != self._number and LEFT_OUT not in self._warnings:
            self._warnings.append(LEFT_OUT)
        return number == self._number

    def _whole(self, choice: Choice) -> Said | None:
        """Choose what says a whole answer: its message, unless that says nothing."""
        message, delta = choice.message, choice.delta
        told = message is not None and (message.content or message.tool_calls)
        return message if told or delta is None else delta

    def _piece(self, choice: Choice) -> Said | None:
        """Choose what an event adds: there are servers that tell the text so far beside each piece of it."""
        message, delta = choice.message, choice.delta
        if not self._in_pieces and delta is not None:
            self._in_pieces = any(value for name, value in delta.raw.items() if name != "role")
        if message is None:
            return delta
        if self._in_pieces:
            self._repeated = self._beyond_pieces(message)
            return delta
        return self._since(message)

    def _since(self, message: Said) -> Said:
        """Give what *message* adds, in a stream without pieces: some servers tell the text so far in each."""
        told = dict(message.raw)
        for name, value in message.raw.items():
            if isinstance(value, str):
                so_far = self._so_far.get(name, "")
                told[name] = value.removeprefix(so_far)
                self._so_far[name] = so_far + told[name]
        return evolve(message, content=told.get("content"), raw=told)

    def _beyond_pieces(self, message: Said) -> dict[str, Any]:
        """Pick what a *message* may tell that the pieces of it do not."""
        return beyond(message.raw, *_SAID)

    def _take(self, said: Said, *, whole: bool) -> None:
        """Take a message that is *whole*, or what is added to one."""
        if not said.raw.keys() <= _SAID:
            self._of_messages.add(beyond(said.raw, *_SAID))
        if said.content:
            self._hear(said, whole=whole)
        for position, piece in enumerate(said.tool_calls or ()):
            self._call(position, piece, whole=whole)

    def _hear(self, said: Said, *, whole: bool) -> None:  # noqa: ARG002 - a subclass may mind
        """Take the content of a message."""
        self._say(said.content)

    def _say(self, content: str | list[object]) -> None:
        if isinstance(content, str):
            self._parts.say(content)
            return
        for part in as_list(content):
            text = words(part)
            if text is None:
                self._put(part)
            elif text:
                self._parts.say(text)

    def _put(self, part: object) -> None:
        """Take a part of a content that is no text."""
        kind = as_text(as_object(part).get("type"))
        self._parts.put(Opaque(self.origin, kind, self._parts.mended(part)))

    def _call(self, position: int, piece: Mapping[str, Any], *, whole: bool) -> None:
        index = piece.get("index")
        place = index if isinstance(index, int) else position
        custom = "custom" in piece  # Such a tool takes a text.
        function = as_object(piece.get("custom" if custom else "function"))
        given = function.get("input" if custom else "arguments")
        call_id, name, arguments = (
            as_text(value) for value in (piece.get("id"), function.get("name"), given)
        )
        call = self._calls.get(place)
        if whole and call is not None and call_id and (call_id, name) == (call.id, call.name):
            arguments = arguments.removeprefix(call.arguments)
        elif whole or call is None or _begins(call, call_id, name, arguments):
            call = self._calls[place] = self._begin(call_id)
        call.add(call_id, name, arguments)
        call.custom = call.custom or custom
        call.beside.update(beyond(piece, "index", "id", "type", "function", "custom"))

    def _begin(self, call_id: str) -> CallFold:
        """Begin a call."""
        return self._parts.call(call_id)


def _unread_call(call: CallFold) -> dict[str, Any]:
    kind, given = ("custom", "input") if call.custom else ("function", "arguments")
    return {**call.beside, "id": call.id, "type": kind, kind: {"name": call.name, given: call.arguments}}


def _begins(call: CallFold, call_id: str, name: str, arguments: str) -> bool:
    """Tell whether a piece with the number of *call* begins another, as numbers count again from 0."""
    if call.answered:
        return bool(call_id or name)
    if call_id:
        return call.named and call_id != call.id
    if call.named or not name:
        return False
    return (bool(call.name) and name != call.name) or (bool(arguments) and _is_whole(call.arguments))


def _is_whole(arguments: str) -> bool:
    try:
        return isinstance(loads(arguments.encode("utf-8", "surrogatepass")), dict)
    except BrokenContent:
        return False
