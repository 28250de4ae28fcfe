"""Doubles of backends for the tests of the bridge: the fake, with less, slower, or failing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve

from chatbridge.backend import Feature, Profile, Support
from chatbridge.bridge import Bridge
from chatbridge.domain import (
    Conversation,
    Finished,
    Message,
    Reply,
    SendOptions,
    Started,
    StreamEvent,
    TextDelta,
)
from chatbridge.order import Order
from chatbridge.testing.memory import EVERYTHING, MemoryBackend
from chatbridge.testing.responder import pieces

Step = StreamEvent | BaseException | asyncio.Event
"""What a scripted stream does next: yield an event, fail, or wait."""


class Double(MemoryBackend):
    """
    The fake backend with a narrower profile, which notes every call and waits or fails where it is told.

    Attributes:
        calls: The methods that were called, in order.
        sent: What each send and stream was given.
        gates: Events that a method waits for before it does anything.
        fails: What a method raises.
        script: What a stream does, in place of the fake's answer.
        reply: What a send answers, in place of the fake's answer.
        under_way: Sends and streams that have begun and not ended, by conversation.
        overlapped: Whether two were under way in one conversation at once.
        left: How often a stream's generator came to its end, whatever the way.
    """

    def __init__(
        self,
        *,
        without: Iterable[Feature] = (),
        options: Iterable[str] = EVERYTHING.options,
        instead: Mapping[Feature, str] | None = None,
    ) -> None:
        super().__init__()
        lacking = dict.fromkeys(without, Support.UNSUPPORTED)
        # It cannot be read back, so that a failure stays what it was.
        unsettled: dict[str, Any] = {"settle_by": (), "absent_after": None}
        narrowed = evolve(EVERYTHING.with_features(lacking), name="double", options=options, **unsettled)
        self._profile = evolve(narrowed, instead=instead or {})
        self.calls: list[str] = []
        self.sent: list[tuple[str, Message, SendOptions]] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.fails: dict[str, BaseException] = {}
        self.script: Sequence[Step] | None = None
        self.reply: Reply | None = None
        self.under_way: dict[str, int] = {}
        self.overlapped = False
        self.left = 0

    @property
    def profile(self) -> Profile:
        return self._profile

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        await self._begin("create")
        return await super().create_conversation(title=title, system=system, history=history, extra=extra)

    async def get_conversation(self, conversation_id: str) -> Conversation:
        await self._begin("get")
        return await super().get_conversation(conversation_id)

    async def list_conversations(self) -> AsyncIterator[Conversation]:
        await self._begin("list")
        async for conversation in super().list_conversations():
            yield conversation

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        await self._begin("rename")
        return await super().rename_conversation(conversation_id, title)

    async def delete_conversation(self, conversation_id: str) -> None:
        await self._begin("delete")
        await super().delete_conversation(conversation_id)

    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        await self._begin("messages")
        try:
            async for message in super().list_messages(
                conversation_id, after=after, limit=limit, newest_first=newest_first
            ):
                yield message
        finally:
            self.left += 1

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        self.sent.append((conversation_id, message, options))
        self._enter(conversation_id)
        try:
            await self._begin("send")
            return self.reply or await super().send(conversation_id, message, options)
        finally:
            self.under_way[conversation_id] -= 1

    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        self.sent.append((conversation_id, message, options))
        self._enter(conversation_id)
        try:
            await self._begin("stream")
            for step in await self._steps(conversation_id, message, options):
                await asyncio.sleep(0)
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step
        finally:
            self.under_way[conversation_id] -= 1
            self.left += 1
            await self._begin("leave")

    async def close(self) -> None:
        await self._begin("close")

    async def _begin(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(0)
        if name in self.gates:
            await self.gates[name].wait()
        if name in self.fails:
            raise self.fails[name]

    async def _steps(self, conversation_id: str, message: Message, options: SendOptions) -> Sequence[Step]:
        if self.script is not None:
            return self.script
        reply = await super().send(conversation_id, message, options)
        words = [TextDelta(piece) for piece in pieces(reply.text)]
        return [Started(reply.message.id, reply.model), *words, Finished(reply)]

    def _enter(self, conversation_id: str) -> None:
        self.under_way[conversation_id] = self.under_way.get(conversation_id, 0) + 1
        self.overlapped = self.overlapped or self.under_way[conversation_id] > 1


async def turns_of_the_loop(count: int = 20) -> None:
    """Let everything run that can run without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


def lanes(order: Order) -> object:
    """Give the conversations whose turn is held or waited for."""
    return vars(order)["_lanes"]


def assert_nothing_left(bridge: Bridge) -> None:
    """Check that no turn is held and no timer runs."""
    assert {} == lanes(bridge.order)
    assert set() == vars(bridge.order)["_waiting"]
    assert set() == vars(bridge.bounds)["_timers"]
