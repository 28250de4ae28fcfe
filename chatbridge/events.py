"""The events of a streamed answer, put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

from chatbridge.domain import Finished, PartAdded, Reply, Reset, StreamEvent, Text, TextDelta
from chatbridge.errors import AnswerLost, StreamCut

__all__ = ["GAP", "paragraph", "reply_of", "shown_text", "text_of"]

GAP = "\n\n"
"""What stands between two messages in what is shown."""


def text_of(event: StreamEvent, begun: set[int]) -> str:
    """Give the text that *event* adds; *begun* holds the parts of which some came before."""
    if isinstance(event, TextDelta):
        begun.add(event.index)
        return event.text
    if isinstance(event, PartAdded) and isinstance(event.part, Text) and event.index not in begun:
        return event.part.text
    return ""


def shown_text(events: Iterable[StreamEvent]) -> str:
    """Give the text that *events* leave on show."""
    pieces: list[str] = []
    begun: set[int] = set()
    for event in events:
        if isinstance(event, Reset):
            pieces.clear()
            begun.clear()
        pieces.append(text_of(event, begun))
    return "".join(pieces)


def paragraph(text: str, index: int, gap: str) -> Iterator[StreamEvent]:
    """
    Give a text part behind others, with *gap* before it in what is shown, and without it in the part.

    Between two messages of one reply the gap is `GAP`, as in `Reply.text`.
    """
    yield TextDelta(gap + text, index)
    if gap:
        yield PartAdded(Text(text), index)


async def reply_of(events: AsyncGenerator[StreamEvent, None]) -> Reply:
    """
    Read a stream to its end and give its reply, for an API whose every answer is a stream.

    Raises:
        AnswerLost: With what had arrived.
        ChatbridgeError: Any other, as it came.
    """
    seen: list[StreamEvent] = []
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finished):
                    return event.reply
                seen.append(event)
    except AnswerLost as error:
        error.partial, error.events = error.partial or shown_text(seen), error.events or tuple(seen)
        raise
    raise StreamCut(
        "the backend ended its stream without a reply", kind="cut", partial=shown_text(seen), events=seen
    )
