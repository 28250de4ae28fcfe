"""What the agents of a run say, one after another, put together from its events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from attrs import define, field

from chatbridge.domain import Message, PartAdded, Progress, Reset, Role, StreamEvent, Text, TextDelta, Usage
from chatbridge.events import GAP
from chatbridge.http import Mender, Raw, TextFold, beyond, to_usage
from chatbridge_adapters.mtmai import wire

__all__ = ["Agents"]

ECHO = "user"
OVERLAPS = "an agent went on speaking after another had begun"


@define(eq=False)
class _Speech:
    """
    One message of an agent's: one part of the answer.

    Attributes:
        source: The agent; None while nobody told.
        whole: Whether its final text has come.
        held: Whether pieces of it were not shown, as another had begun; its final text has them.
        extra: What else came with that.
        gap: What was shown between it and the message before.
    """

    source: str | None
    fold: TextFold
    whole: bool = False
    held: bool = False
    extra: Raw = field(factory=dict[str, Any])
    gap: str = ""

    def to_message(self) -> Message:
        return Message(Role.ASSISTANT, self.fold.shown, author=self.source, extra=self.extra)


class Agents:
    """
    Turns the events of a run into those of an answer, and knows what was said.

    Pieces are shown as they come, and the message that ends them has the final text. Messages stand in the
    order in which they began; those after the first begin with a blank line in what is shown, and without
    it in the part that is then added.

    Attributes:
        ended: Whether an end was told, and nothing was said behind it.
    """

    def __init__(self) -> None:
        self.ended = False
        self._speeches: list[_Speech] = []
        # Those that have no final text yet, by their agents; the one who spoke last is the last.
        self._open: dict[str | None, _Speech] = {}
        self._shown: _Speech | None = None
        self._overlaps = False
        self._usage: Usage | None = None
        self._uncounted = False
        self._mended = Mender()

    @property
    def messages(self) -> list[Message]:
        """What was said, in order."""
        return [speech.to_message() for speech in self._speeches]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing: who has handed over, without a final text, has said their pieces."""
        return not any(speech.held or speech is self._speeches[-1] for speech in self._open.values())

    @property
    def usage(self) -> Usage | None:
        """The sum of what is told; None where a message tells nothing, as the sum is not known then."""
        return None if self._uncounted else self._usage

    @property
    def warnings(self) -> list[str]:
        """What had to be mended or taken back, each once."""
        told = [warning for speech in self._speeches for warning in speech.fold.warnings]
        told += [OVERLAPS] * self._overlaps + [Mender.WARNING] * self._mended.replaced
        return list(dict.fromkeys(told))

    def take(self, event: wire.Event) -> Iterator[StreamEvent]:
        """Tell what *event* adds to the answer."""
        told = event.fields.get("models_usage")
        usage = to_usage(cast(Raw, told)) if isinstance(told, dict) else None
        if usage is not None:
            self._usage = _sum(self._usage or Usage(0, 0), usage)
        said = event.said
        if said is None:
            self.ended = self.ended or event.kind in {wire.END_OF_TEXT, wire.END_OF_RUN}
            if event.kind == wire.END_OF_TEXT and None in self._open:
                yield from self._finish(self._open[None])
            yield Progress(self._mended(event.kind) or "event", self._mended(event.fields))
        elif event.kind == wire.CHUNK:
            speech = self._speech_of(self._mended(said.source))
            if self._is_behind(speech):
                speech.held = speech.held or bool(said.content)
            else:
                yield from self._show(speech, speech.fold.add(said.content))
        elif said.source != ECHO:
            self._uncounted = self._uncounted or usage is None
            speech = self._speech_of(self._mended(said.source))
            more = beyond(event.fields, "event", "type", "source", "content", models_usage=usage)
            speech.extra = self._mended(more)
            yield from self._finish(speech, said.content)

    def end(self) -> Iterator[StreamEvent]:
        """Tell what is left to tell once there are no more events."""
        for speech in list(self._open.values()):
            yield from self._finish(speech)

    def _speech_of(self, source: str | None) -> _Speech:
        """Give what *source* is saying; where nobody tells who speaks, that is who spoke last."""
        self.ended = False
        if source is None:
            source = next(reversed(self._open), None)
        speech = self._open.pop(source, None) or self._open.pop(None, None)
        if speech is None:
            speech = _Speech(source, TextFold(len(self._speeches)))
            self._speeches.append(speech)
        speech.source = source
        self._open[source] = speech
        return speech

    def _finish(self, speech: _Speech, final: str | None = None) -> Iterator[StreamEvent]:
        """End *speech*, and give the whole part in place of what was shown, where that began with a gap."""
        yield from self._show(speech, speech.fold.finish(final))
        speech.whole = True
        del self._open[speech.source]
        yield from _part(speech)

    def _is_behind(self, speech: _Speech) -> bool:
        """Tell whether what comes after *speech* has been shown."""
        return self._shown is not None and speech.fold.index < self._shown.fold.index

    def _show(self, speech: _Speech, events: Sequence[StreamEvent]) -> Iterator[StreamEvent]:
        """Show what a fold tells of *speech*; where that does not come last, all that was said again."""
        if events and self._is_behind(speech):
            self._overlaps = True
            events = [Reset(OVERLAPS)]
        for event in events:
            if isinstance(event, Reset):
                yield event
                yield from self._show_again()
                return
            if isinstance(event, TextDelta):
                yield from self._gapped(speech, event.text)

    def _show_again(self) -> Iterator[StreamEvent]:
        self._shown = None
        for speech in self._speeches:
            speech.gap = ""
            if speech.fold.shown:
                yield from self._gapped(speech, speech.fold.shown)
            if speech.whole:
                yield from _part(speech)

    def _gapped(self, speech: _Speech, text: str) -> Iterator[StreamEvent]:
        if self._shown is not speech:
            speech.gap = GAP if self._shown else ""
            text = speech.gap + text
            self._shown = speech
        yield TextDelta(text, speech.fold.index)


def _part(speech: _Speech) -> Iterator[StreamEvent]:
    if speech.gap:
        yield PartAdded(Text(speech.fold.shown), speech.fold.index)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(_add(one.input_tokens, other.input_tokens), _add(one.output_tokens, other.output_tokens))


def _add(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
