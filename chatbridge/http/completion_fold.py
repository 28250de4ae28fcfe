"""An answer of chat completions, put together from what a stream adds to it, or taken whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from chatbridge.domain import Message, Opaque, Progress, Reply, Role, StreamEvent, Usage
from chatbridge.http.calls import CallPiece, begins, is_again, read_piece, tell_again
from chatbridge.http.chunks import Choice, Chunk, Said, words
from chatbridge.http.completions import CUT_SHORT, beside_usage, to_finish_reason, to_usage
from chatbridge.http.content import Mender
from chatbridge.http.loose import as_list, as_object, as_text
from chatbridge.http.parts import CallFold, PartsFold
from chatbridge.http.so_far import SoFar, merged, without
from chatbridge.http.wire import Raw, beyond

__all__ = ["CALLS", "CompletionFold", "Increments", "to_progress"]

CALLS = "tool_calls"
"""Where the `extra` of an answer has what calls of tools say beyond ours, by their ids."""

LEFT_OUT = "the server sent more than one answer, and only the one that came first was read"
DIFFERS = "a text that the server told in pieces and again as a whole differs, and the pieces were kept"


def to_progress(beside: Raw, mended: Mender) -> Progress:
    """Say an event that is no part of an answer in ours."""
    data = mended(beside)
    return Progress(as_text(data.get("type")), data)


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
    _called: bool = False
    _so_far: SoFar = field(factory=SoFar)
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
        choice = self._ours(chunk)
        if choice is None:
            return []
        ended = self.has_reason
        if choice.finish_reason not in _NO_REASONS:
            self._reason = choice.finish_reason
        self._of_choices.update(choice.raw)
        if logprobs := as_object(choice.raw.get("logprobs")):
            self._logprobs.add(logprobs)
        self._called = False
        said = self._whole(choice) if whole else None
        if said is not None:
            self._take(said, whole=True)
        elif not whole:
            self._piece(choice)
        events = self._parts.events()
        if ended and (events or self._called):
            self._went_on = True
        return events

    def finish(self, *, cut: bool = False) -> list[StreamEvent]:
        """End the answer; *cut* says that it may not be whole, whatever was told of its end."""
        self._parts.finish(cut=cut or to_finish_reason(self._reason) in CUT_SHORT)
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

    def _ours(self, chunk: Chunk) -> Choice | None:
        """Choose what is of the answer that is read, which is the one that came first."""
        if self._number is None and chunk.choice is not None:
            self._number = chunk.choice.number or 0
        ours = None
        for choice in chunk.choices or ():
            if ours is None and choice.number in {None, self._number}:
                ours = choice
            elif LEFT_OUT not in self._warnings:
                self._warnings.append(LEFT_OUT)
        return ours

    def _whole(self, choice: Choice) -> Said | None:
        """Choose what says a whole answer: its message, unless that says nothing."""
        message, delta = choice.message, choice.delta
        if message is None or delta is None:
            return message or delta
        told = message.content or message.tool_calls or any(self._texts(message, whole=True).values())
        return message if told else delta

    def _piece(self, choice: Choice) -> None:
        """Take what an event adds; some servers tell what came so far beside each piece, or at the end."""
        texts = dict[str, str]()
        if choice.delta is not None:
            texts = self._texts(choice.delta, whole=False)
            self._so_far.hear(texts, choice.delta.content if texts else None)
            self._take(choice.delta, whole=False)
        if choice.message is not None:
            self._retell(choice.message, texts)

    def _retell(self, message: Said, beside: Mapping[str, str]) -> None:
        """Take of a *message* in a stream what goes beyond what came."""
        texts = self._texts(message, whole=True)
        known = self._so_far.known(texts, beside)
        if self._so_far.differs and DIFFERS not in self._warnings:
            self._warnings.append(DIFFERS)
        content = message.content
        if "content" in known:
            content = without(content, known["content"], self._so_far.known_parts(content))
        raw = {
            name: value[known[name] :]
            for name, value in message.raw.items()
            if name in known and isinstance(value, str)
        }
        self._take(Said(message.role, content, raw=raw), whole=True)
        self._repeated = merged(self._repeated, beyond(message.raw, *_SAID, *raw))
        came = list(self._parts.calls)
        for position, piece in enumerate(message.tool_calls or ()):
            self._call_again(read_piece(position, piece), came)

    def _texts(self, said: Said, *, whole: bool) -> dict[str, str]:  # noqa: ARG002 - a subclass may mind
        """Give the texts of what is said, by their fields."""
        content = said.content
        if not isinstance(content, str):
            content = "".join(filter(None, map(words, as_list(content))))
        return {"content": content}

    def _take(self, said: Said, *, whole: bool) -> None:
        """Take a message that is *whole*, or what is added to one."""
        if not said.raw.keys() <= _SAID:
            self._of_messages.add(beyond(said.raw, *_SAID))
        if said.content:
            self._hear(said, whole=whole)
        for position, piece in enumerate(said.tool_calls or ()):
            self._call(read_piece(position, piece), whole=whole)

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

    def _call(self, piece: CallPiece, *, whole: bool) -> None:
        call = self._calls.get(piece.place)
        if whole or call is None or begins(call, piece):
            call = self._calls[piece.place] = self._begin(piece.id)
        call.add(piece.id, piece.name, piece.arguments)
        self._note(call, piece)

    def _call_again(self, piece: CallPiece, came: list[CallFold]) -> None:
        """Take a call of a message in a stream, which may be one of those that *came*; each is told once."""
        at_place = self._calls.get(piece.place)
        call = next((each for each in came if is_again(each, piece, at_place=each is at_place)), None)
        if call is None:
            self._call(piece, whole=True)
            return
        came.remove(call)
        if tell_again(call, piece):
            self._note(call, piece)

    def _note(self, call: CallFold, piece: CallPiece) -> None:
        self._called = True
        call.custom = call.custom or piece.custom
        call.beside.update(piece.beside)

    def _begin(self, call_id: str) -> CallFold:
        """Begin a call."""
        return self._parts.call(call_id)


def _unread_call(call: CallFold) -> dict[str, Any]:
    kind, given = ("custom", "input") if call.custom else ("function", "arguments")
    return {**call.beside, "id": call.id, "type": kind, kind: {"name": call.name, given: call.arguments}}
