"""Dialogues: held with backends and bots, written down, and shown where they go otherwise."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chatbridge import (
    Bridge,
    connect,
)
from chatbridge.testing.dialogue import Dialogue, DialogueMismatch, say

Reach = Callable[..., Awaitable[Bridge]]

STORY = "fake:?reply=Once%20upon%20a%20time"


async def echo(_: Bridge, said: str) -> str:
    return said


async def whole(bridge: Bridge, said: str) -> str:
    return (await (await bridge.create()).send(said)).text


async def spell(_: Bridge, said: str) -> AsyncIterator[str]:
    for piece in said.split(" "):
        yield piece


async def failing(_: Bridge, said: str) -> AsyncIterator[str]:
    yield "Well "
    raise KeyError(said)


async def mismatch(
    dialogue: Dialogue, bot: Callable[[Bridge, str], Awaitable[str] | AsyncIterator[str]]
) -> str:
    """Give the text of the failure of *dialogue*."""
    with pytest.raises(DialogueMismatch) as failed:
        await dialogue.run("fake:", bot)
    return str(failed.value)


# ------------------------------------------------------------------------------ holding a dialogue


async def test_a_backend_answers_by_itself_in_one_conversation() -> None:
    dialogue = (
        say("one")
        .expect(re.compile("Turn 1"))
        .say("two")
        .expect("Turn 2: you said 'two'. Before that you said 'one'.")
    )
    await dialogue.run("fake:")


async def test_an_answer_is_a_text_a_pattern_or_what_a_function_holds_for() -> None:
    await say("hello").expect("hello").expect(re.compile("^h.*o$")).expect(str.islower).run("fake:", echo)


async def test_an_answer_that_nothing_is_expected_of_is_right() -> None:
    await say("hello").say("again").run("fake:", echo)


async def test_a_bridge_is_not_closed_and_a_chat_is_gone_on_with() -> None:
    async with connect("fake:") as bridge:
        chat = await bridge.create()
        await say("one").run(bridge)
        await say("two").expect(re.compile("Turn 1")).run(chat)
        await say("three").expect(re.compile("Turn 2")).run(chat)


async def test_a_bot_is_asked_over_the_bridge() -> None:
    await (
        say("hello")
        .expect("Turn 1: you said 'hello'.")
        .say("hi")
        .expect("Turn 1: you said 'hi'.")
        .run("fake:", whole)
    )


async def test_what_a_bot_streams_is_put_together() -> None:
    await say("a b").expect("ab").expect_stream("a", "b").run("fake:", spell)


async def test_a_bot_with_a_memory_is_an_object() -> None:
    class Counting:
        def __init__(self) -> None:
            self.turns = 0

        async def __call__(self, bridge: Bridge, said: str) -> str:
            self.turns += 1
            return f"{self.turns}: {said}"

    await say("a").expect("1: a").say("b").expect("2: b").run("fake:", Counting())
