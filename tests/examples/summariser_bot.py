"""A bot that summarises what it is given, and shows the summary as it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from chatbridge import AnswerLost, Bridge, ChatbridgeError, Feature, NotSent

__all__ = ["summarise"]

TASK = "Summarise the user's text in three sentences."
SHORT = 8


async def summarise(bridge: Bridge, said: str) -> AsyncIterator[str]:
    """Stream a summary of *said*; one that breaks off is told to be incomplete."""
    if len(said.split()) < SHORT:
        yield "That is short enough already."
        return
    prompted = bridge.profile.can(Feature.SYSTEM)
    chat = None
    try:
        chat = await bridge.create(system=TASK if prompted else None)
        async with chat.stream(said if prompted else f"{TASK}\n\n{said}") as stream:
            async for piece in stream.text():
                yield piece
    except AnswerLost:
        yield " [The summary breaks off here.]"
    except NotSent:
        yield "The summariser is busy. Please try again in a moment."
    except ChatbridgeError as error:
        yield f"There is no summary: {error}"
    finally:
        if chat is not None and bridge.profile.can(Feature.DELETE):
            with suppress(ChatbridgeError):  # The summary is there, or said to be missing.
                await chat.delete()
