"""What the agents of a run say, one after another, put together from its events."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, cast

from attrs import define, field

from chatbridge.domain import Message, PartAdded, Progress, Reset, Role, StreamEvent, Text, TextDelta, Usage
from chatbridge.http import Mender, Raw, TextFold, beyond, to_usage
from chatbridge_adapters.mtmai import wire

__all__ = ["Agents"]

ECHO = "user"
GAP = "\n\n"


@define(eq=False)
class _Speech:
    """
    One message of an agent's: one part of the answer.

    Attributes:
        source: The agent; None while nobody told.
        whole: Whether its final text has come.
        extra: What else came with that.
        gap: What was shown between it and the message before; None while nothing of it was shown.
    """

    source: str | None
    fold: TextFold
    whole: bool = False
    extra: Raw = field(factory=dict[str, Any])
    gap: str | None = None

    def to_message(self) -> Message:
        return Message(Role.ASSISTANT, self.fold.shown, author=self.source, extra=self.extra)


class Agents:
    """
    Turns the events of a run into those of an answer, and knows what was said.

    Pieces are shown as they come, and the message that ends them has the final text. Messages after the
    first begin with a blank line in what is shown, and without it in the part that is then added.

    Attributes:
        usage: The sum of what the events tell; None where none tells anything.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._speeches: list[_Speech] = []
        self._text_ended = False
        self._mended = Mender()

    @property
    def messages(self) -> list[Message]:
        """What was said, in order."""
        return [speech.to_message() for speech in self._speeches]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing at the end of what was said."""
        last = self._speeches[-1] if self._speeches else None
        return last is None or last.whole or (last.source is None and self._text_ended)

    @property
    def warnings(self) -> list[str]:
        """What had to be mended or taken back, each once."""
        told = [warning for speech in self._speeches for warning in speech.fold.warnings]
        return list(dict.fromkeys([*told, *([Mender.WARNING] if self._mended.replaced else [])]))

    def take(self, event: wire.Event) -> Iterator[StreamEvent]:
        """Tell what *event* adds to the answer."""
        told = event.fields.get("models_usage")
        usage = to_usage(cast(Raw, told)) if isinstance(told, dict) else None
        self.usage = _sum(self.usage, usage)
        said = event.said
        if said is None:
            self._text_ended = self._text_ended or event.kind == wire.END_OF_TEXT
            yield Progress(self._mended(event.kind) or "event", self._mended(event.fields))
        elif event.kind == wire.CHUNK:
            speech = yield from self._speech_of(self._mended(said.source))
            yield from self._show(speech, speech.fold.add(said.content))
        elif said.source != ECHO:
            speech = yield from self._speech_of(self._mended(said.source))
            more = beyond(event.fields, "event", "type", "source", "content", models_usage=usage)
            speech.whole, speech.extra = True, self._mended(more)
            yield from self._show(speech, speech.fold.finish(said.content))
            yield from _part(speech)

    def end(self) -> Iterator[StreamEvent]:
        """Tell what is left to tell once there are no more events."""
        if self._speeches and not self._speeches[-1].whole:
            yield from _part(self._speeches[-1])

    def _speech_of(self, source: str | None) -> Generator[StreamEvent, None, _Speech]:
        """Give what *source* is saying. Agents take turns: where another speaks, the one before has ended."""
        last = self._speeches[-1] if self._speeches else None
        if last is None or last.whole or last.source not in {None, source}:
            yield from self.end()
            last = _Speech(source, TextFold(len(self._speeches)))
            self._speeches.append(last)
        last.source = source
        return last

    def _show(self, speech: _Speech, events: Sequence[StreamEvent]) -> Iterator[StreamEvent]:
        """Show what a fold tells of *speech*; after a reset, all that was said before as well."""
        for event in events:
            if isinstance(event, Reset):
                yield event
                for each in self._speeches:
                    each.gap = None
                for each in self._speeches[:-1]:
                    yield from self._gapped(each, each.fold.shown)
                    yield from _part(each)
            elif isinstance(event, TextDelta):
                yield from self._gapped(speech, event.text)

    def _gapped(self, speech: _Speech, text: str) -> Iterator[StreamEvent]:
        if text and speech.gap is None:
            speech.gap = GAP if any(each.gap is not None for each in self._speeches[:-1]) else ""
            text = speech.gap + text
        if text:
            yield TextDelta(text, speech.fold.index)


def _part(speech: _Speech) -> Iterator[StreamEvent]:
    """Give the whole part in place of what was shown, where that began with a gap."""
    if speech.gap:
        yield PartAdded(Text(speech.fold.shown), speech.fold.index)


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return Usage(_add(one.input_tokens, other.input_tokens), _add(one.output_tokens, other.output_tokens))


def _add(one: int | None, other: int | None) -> int | None:
    return (one or 0) + (other or 0) if one is not None or other is not None else None
