"""Sessions that are recorded at an emulator and replayed from the file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from chatbridge import Bridge, Chat, ChatbridgeError, Feature, connect
from chatbridge.completing import is_kept_here
from chatbridge.observe import AttemptEvent
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, Fault, serve
from scan import assert_clean

Plan = Callable[[Fault], object]
"""Lets the next request meet a fault, if there is a server."""


@define
class Session:
    """
    What a program does with a bridge, and what it is told.

    Attributes:
        results: Of each step, in order.
        attempts: Every attempt to call the API.
    """

    bridge: Bridge
    plan: Plan
    results: list[object] = field(factory=list[object])

    async def step(self, call: Awaitable[object]) -> None:
        """Note the result of *call*, or its error."""
        try:
            self.results.append(await call)
        except ChatbridgeError as error:
            assert_clean(error)
            self.results.append((type(error), str(error), error.outcome, len(error.attempts)))

    async def streamed(self, chat: Chat, text: str) -> object:
        """Read a streamed answer to its end."""
        async with chat.stream(text) as stream:
            pieces = [event async for event in stream]
            return [*pieces, stream.reply]

    async def history(self, chat: Chat) -> object:
        """Read a history that the API shows, or one that is in the store alone, where ids are made anew."""
        if Feature.HISTORY in self.bridge.filling.features:
            return None
        messages = [message async for message in chat.messages()]
        if is_kept_here(self.bridge.profile):
            return [evolve(message, id=None) for message in messages]
        return messages


Told = tuple[list[object], list[tuple[object, ...]]]
"""The results of a session, and its attempts."""

Talk = Callable[[Session], Awaitable[object]]


async def record(emulator: Emulator, path: Path, talk: Talk, **options: object) -> Told:
    """Record *talk* with *emulator*; give its results and attempts."""
    async with serve(emulator) as at:
        given: dict[str, Any] = {"key": emulator.key, "clock": ManualClock(), **options}
        return await run(at.config, emulator.fail, talk, record=path, **given)


async def replay(path: Path, talk: Talk, **options: object) -> Told:
    """Replay *talk*; give the same."""
    return await run(f"replay:?file={path}", lambda _: None, talk, **options)


async def run(url: str, plan: Plan, talk: Talk, **options: Any) -> Told:
    attempts: list[tuple[object, ...]] = []

    def note(event: AttemptEvent) -> None:
        tried = event.attempt
        attempts.append((event.operation, tried.number, tried.phase, tried.status, tried.error, tried.wait))

    async with connect(url, on_attempt=note, **options) as bridge:
        session = Session(bridge, plan)
        await talk(session)
    return session.results, attempts
