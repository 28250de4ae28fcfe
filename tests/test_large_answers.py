"""An answer of 5 MB, in several scripts, comes through every API as it was said: sent, streamed, read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chatbridge import Bridge, Feature, Message
from chatbridge.backend import Stores
from chatbridge.testing.emulator import Emulator
from operations import APIS

Reach = Callable[..., Awaitable[Bridge]]

# Emulators stream words, so these are long ones.
WORD = "Maples\u7d05\u8449\u3082\u307f\u3058\U0001f341\x00\\u0041<b>&amp;</b>\"'" * 1000
LINE = f"{WORD} \u2028 {WORD}\n"
ANSWER = LINE * (5_000_000 // len(LINE.encode()) + 1)

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in APIS},
    "tachyon-agent": ("tachyon", {"mode": "agent"}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_large_answer_comes_through_whole(way: str, reach: Reach) -> None:
    name, options = WAYS[way]
    emulator: Emulator = APIS[name].emulator(responder=lambda _, __: ANSWER)
    bridge = await reach(emulator, **options)
    chat = await bridge.create()

    sent = await chat.send("Tell me all")
    held: list[Message] = []
    if bridge.profile.can(Feature.HISTORY) and bridge.profile.stores is not Stores.NEVER:
        held = [message async for message in chat.messages()]
    async with chat.stream("Tell me again") as stream:
        shown = "".join([piece async for piece in stream.text()])

    assert 5_000_000 <= len(ANSWER.encode()) < 5_100_000
    assert [True] * 3 == [ANSWER == text for text in (sent.text, shown, stream.reply.text)]
    assert () == sent.warnings == stream.reply.warnings
    assert [True] * len(held[1:]) == [ANSWER == message.text for message in held[1:]]


async def test_a_large_message_of_a_history_that_others_wrote_comes_through_whole(reach: Reach) -> None:
    emulator = APIS["mtmai"].emulator()
    bridge = await reach(emulator)
    chat = await bridge.create()
    emulator.remember(chat.id, "assistant", ANSWER)  # type: ignore[attr-defined]  # Mtmai's

    (message,) = [message async for message in bridge.backend.list_messages(chat.id)]
    assert ANSWER == message.text
