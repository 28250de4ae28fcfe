"""The events of a stream, put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from chatbridge import Finished, Message, PartAdded, Reply, Reset, StreamEvent, Text, TextDelta, ToolCall
from chatbridge.errors import NotFound, ProviderFailed, StreamCut
from chatbridge.events import reply_of, shown_text

REPLY = Reply((Message.assistant("Hello"),))


async def stream(
    *steps: StreamEvent | Exception, closed: list[bool] | None = None
) -> AsyncGenerator[StreamEvent, None]:
    try:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            yield step
    finally:
        if closed is not None:
            closed.append(True)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ((), ""),
        ((TextDelta("He"), TextDelta("llo")), "Hello"),
        ((TextDelta("gone"), Reset("why"), TextDelta("Hello")), "Hello"),
        ((TextDelta("draft", 0), PartAdded(Text("final"), 0), PartAdded(Text(" more"), 1)), "draft more"),
        ((PartAdded(ToolCall("1", "weather", {}), 0), TextDelta("Sunny", 1)), "Sunny"),
    ],
)
def test_the_text_on_show_is_that_of_the_deltas_since_the_last_reset(
    events: tuple[StreamEvent, ...], text: str
) -> None:
    assert text == shown_text(events)


async def test_the_reply_of_a_stream_is_that_of_its_last_event_and_the_stream_is_closed() -> None:
    closed: list[bool] = []
    assert REPLY is await reply_of(stream(TextDelta("Hello"), Finished(REPLY), closed=closed))
    assert [True] == closed


async def test_a_lost_answer_carries_what_had_arrived() -> None:
    lost = ProviderFailed("no", kind="provider")
    with pytest.raises(ProviderFailed) as caught:
        await reply_of(stream(TextDelta("Hel"), TextDelta("lo"), lost))

    assert ("Hello", (TextDelta("Hel"), TextDelta("lo"))) == (caught.value.partial, caught.value.events)


async def test_another_error_comes_as_it_is() -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await reply_of(stream(NotFound("nowhere")))


async def test_a_stream_that_ends_without_a_reply_is_cut() -> None:
    with pytest.raises(StreamCut) as caught:
        await reply_of(stream(TextDelta("Hel")))

    assert "Hel" == caught.value.partial
