"""The text of a streamed answer, put together from its pieces."""

from __future__ import annotations

from chatbridge.domain import Part, PartAdded, Reasoning, ReasoningDelta, Reset, StreamEvent, Text, TextDelta
from chatbridge.http.content import Mender, TextJoiner, mend

__all__ = ["ReasoningFold", "TextFold"]

DIFFERS = "the final text differs from the pieces that were streamed"


class TextFold:
    """
    Turns pieces of one text part into stream events, and knows what was handed out.

    Attributes:
        index: The part's, in the answer.
        warnings: What had to be mended or taken back.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self._pieces: list[str] = []
        self.warnings: list[str] = []
        self._joiner = TextJoiner()
        self._replaced = False
        # The last piece, as long as each began with the one before; in UTF-16, where half a character counts.
        self._so_far: bytes | None = b""

    @property
    def shown(self) -> str:
        """The text handed out so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def part(self) -> Part:
        """The part, as far as it was handed out."""
        return Text(self.shown)

    def delta(self, piece: str) -> StreamEvent:
        """Make the event that tells of *piece*."""
        return TextDelta(piece, self.index)

    def again(self) -> list[StreamEvent]:
        """Hand out once more what was."""
        return [self.delta(self.shown)] if self.shown else []

    def add(self, piece: str) -> list[StreamEvent]:
        """Take an increment."""
        return self._show(self._feed(piece))

    def add_either(self, piece: str) -> list[StreamEvent]:
        """Take what may be an increment, or the whole text so far, as APIs differ without saying so."""
        if not piece:
            return []
        units = piece.encode("utf-16-le", "surrogatepass")
        if self._so_far is None or not units.startswith(self._so_far):
            self._so_far = None
            return self.add(piece)
        self._so_far, self._joiner = units, TextJoiner()
        return self._show(self._feed(piece)[len(self.shown) :])

    def finish(self, final: str | None = None) -> list[StreamEvent]:
        """End the text; where the API gives the whole of it at the end, that wins over the pieces."""
        if final is None:
            final = self.shown + self._joiner.flush()
            self._replaced = self._replaced or self._joiner.replaced
        final, replaced = mend(final)
        if replaced or self._replaced:
            self.warnings.append(Mender.WARNING)
        events: list[StreamEvent] = []
        if not final.startswith(self.shown):
            self.warnings.append(DIFFERS)
            events.append(Reset(DIFFERS))
            self._pieces.clear()
        return [*events, *self._show(final[len(self.shown) :])]

    def _feed(self, piece: str) -> str:
        text = self._joiner.feed(piece)
        self._replaced = self._replaced or self._joiner.replaced
        return text

    def _show(self, text: str) -> list[StreamEvent]:
        if not text:
            return []
        self._pieces.append(text)
        return [self.delta(text)]


class ReasoningFold(TextFold):
    """The same for what a model thinks; at its end the part is told whole where it has a *signature*."""

    def __init__(self, index: int = 0, signature: str | None = None) -> None:
        super().__init__(index)
        self.signature = signature

    @property
    def part(self) -> Part:
        """The part, as far as it was handed out."""
        return Reasoning(self.shown, self.signature)

    def delta(self, piece: str) -> StreamEvent:
        """Make the event that tells of *piece*."""
        return ReasoningDelta(piece, self.index)

    def finish(self, final: str | None = None) -> list[StreamEvent]:
        """End it, as a text."""
        events = super().finish(final)
        return events if self.signature is None else [*events, PartAdded(self.part, self.index)]
