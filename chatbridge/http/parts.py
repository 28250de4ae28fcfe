"""The parts of an answer, put together from its pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import define, field

from chatbridge.domain import Opaque, Part, PartAdded, Reset, StreamEvent, ToolCall
from chatbridge.http.content import BrokenContent, Mender, loads
from chatbridge.http.fold import ReasoningFold, TextFold

__all__ = ["CallFold", "PartsFold", "to_tool_call", "unread_warning"]


def to_tool_call(
    call_id: str, name: str, arguments: str, unread: Opaque, mended: Mender
) -> ToolCall | Opaque:
    """Say a call of a tool in ours; *unread* stands for it where its arguments are no JSON object."""
    try:
        value: object = loads(mended(arguments).encode()) if arguments.strip() else {}
    except BrokenContent:
        return unread
    if not isinstance(value, dict):
        return unread
    return ToolCall(mended(call_id), mended(name), mended(cast(dict[str, Any], value)))


def unread_warning(name: object, *, cut: bool = False) -> str:
    """Warn of a call of the tool *name* that cannot be read; *cut* says that the answer ended within it."""
    why = "the answer was cut off within it" if cut else "its arguments are no JSON object"
    return (
        f"a call of the tool {name!r} cannot be read: {why}, so it is kept as an Opaque part and not as a "
        "ToolCall"
    )


@define(eq=False)
class CallFold:
    """
    A call of a tool whose pieces arrive.

    Attributes:
        index: The part's, in the answer.
        named: Whether its id was told, and is not one that stands in for it.
        answered: Whether a result of it has come.
        custom: Whether its tool takes a text, so that it is kept as it came.
        beside: What else is said of it, which its API may want back.
        changed: Whether it is another than was told last.
    """

    index: int
    id: str = ""
    name: str = ""
    named: bool = False
    answered: bool = False
    custom: bool = False
    beside: dict[str, Any] = field(factory=dict[str, Any])
    changed: bool = True
    _pieces: list[str] = field(factory=list[str])

    def add(self, call_id: str, name: str, piece: str) -> None:
        """Take what a piece tells; what it leaves out stays as it is."""
        self.id, self.name = call_id or self.id, name or self.name
        self.named = self.named or bool(call_id)
        self._pieces.append(piece)
        self.changed = True

    def forget(self) -> None:
        """Drop the arguments so far, as others take their place."""
        self._pieces.clear()

    @property
    def arguments(self) -> str:
        """The arguments so far."""
        return "".join(self._pieces)


@define
class PartsFold:
    """
    Turns pieces into parts, in the order in which they begin, and notes the events that tell them.

    Only the text at the end grows, so that none that was shown comes out of order; it ends as soon as another
    part begins. A call is told once something else than a call comes. What is added to it later is told when
    its first result comes, and at the end, however often it grows.

    Attributes:
        origin: The backend's name.
        mended: Mends what is no piece of a text.
    """

    origin: str
    _unread_call: Callable[[CallFold], dict[str, Any]]  # In the API's form, for one that cannot be read.
    mended: Mender = field(factory=Mender)
    _parts: list[TextFold | Part | None] = field(factory=list[TextFold | Part | None])
    _text: TextFold | None = None
    _calls: list[CallFold] = field(factory=list[CallFold])
    _untold: list[CallFold] = field(factory=list[CallFold])
    _reasons: list[str] = field(factory=list[str])
    _cut: bool = False
    _events: list[StreamEvent] = field(factory=list[StreamEvent])

    @property
    def parts(self) -> tuple[Part, ...]:
        """What there is so far."""
        parts = (part.part if isinstance(part, TextFold) else part for part in self._parts)
        return tuple(part for part in parts if part is not None)

    @property
    def calls(self) -> Sequence[CallFold]:
        """The calls of tools so far."""
        return self._calls

    @property
    def warnings(self) -> list[str]:
        """What had to be mended or taken back, and which calls cannot be read, each once."""
        of_texts = [each for part in self._parts if isinstance(part, TextFold) for each in part.warnings]
        halves = [Mender.WARNING] if self.mended.replaced else []
        unread = [
            unread_warning(self.mended(call.name), cut=self._is_cut(call))
            for call in self._calls
            if isinstance(self._parts[call.index], Opaque) and not call.custom
        ]
        return list(dict.fromkeys([*self._reasons, *of_texts, *halves, *unread]))

    def events(self) -> list[StreamEvent]:
        """Give what there is to tell since the last time."""
        events, self._events = self._events, []
        return events

    def say(self, piece: str, *, fresh: bool = False) -> TextFold:
        """Add to the text at the end; one begins behind something else, or where a *fresh* one is wanted."""
        if fresh or isinstance(self._text, ReasoningFold):
            self._end_text()
        return self._grow(self._text or TextFold(len(self._parts)), piece)

    def think(self, piece: str, signature: str | None = None) -> TextFold:
        """Add to the reasoning at the end; one begins behind something else, or with another signature."""
        if not (isinstance(self._text, ReasoningFold) and self._text.signature == signature):
            self._end_text()
        return self._grow(self._text or ReasoningFold(len(self._parts), signature), piece)

    def call(self, call_id: str) -> CallFold:
        """Begin a call."""
        self._end_text()
        call = CallFold(self._new_index(), call_id)
        self._calls.append(call)
        self._untold.append(call)
        return call

    def begin(self) -> int:
        """Begin a part that is neither text nor a call, and give its index."""
        self._tell_calls()
        self._end_text()
        return self._new_index()

    def put(self, part: Part, index: int | None = None) -> None:
        """Put a part where it began, or at the end."""
        index = self.begin() if index is None else index
        self._parts[index] = part
        self._events.append(PartAdded(part, index))

    def answer(self, call: CallFold) -> None:
        """Take note that a result of *call* comes."""
        self._tell_calls()
        if not call.answered:
            call.answered = True
            self._tell(call)

    def take_back(self, texts: Sequence[TextFold], reason: str) -> None:
        """Take *texts* out of the answer, and show again what else there is."""
        self._reasons.append(reason)
        self._events.append(Reset(reason))
        if self._text in texts:
            self._text = None
        for text in texts:
            self._parts[text.index] = None
        for index, part in enumerate(self._parts):
            if isinstance(part, TextFold):
                self._events += part.again()
            elif part is not None:
                self._events.append(PartAdded(part, index))

    def finish(self, *, cut: bool = False) -> None:
        """End the answer; *cut* says that it was cut short, so that a call at its end may not be whole."""
        self._cut = cut
        self._end_text()
        for call in self._calls:
            self._tell(call)

    def _grow(self, text: TextFold, piece: str) -> TextFold:
        self._tell_calls()
        if text is not self._text:
            self._text = text
            self._parts.append(text)
        self._events += text.add(piece)
        return text

    def _new_index(self) -> int:
        self._parts.append(None)
        return len(self._parts) - 1

    def _end_text(self) -> None:
        if self._text is not None:
            self._events += self._text.finish()
            self._text = None

    def _tell_calls(self) -> None:
        if not self._untold:
            return
        untold, self._untold = self._untold, []
        for call in untold:
            self._tell(call)

    def _tell(self, call: CallFold) -> None:
        if call.changed:
            call.changed = False
            unread = Opaque(self.origin, "tool_call", self.mended(self._unread_call(call)))
            read = to_tool_call(call.id, call.name, call.arguments, unread, self.mended)
            lost = self._is_cut(call) and not call.arguments.strip()
            self.put(unread if call.custom or lost else read, call.index)

    def _is_cut(self, call: CallFold) -> bool:
        return self._cut and call.index == len(self._parts) - 1
