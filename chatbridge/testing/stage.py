"""Who answers in a dialogue: a bot or a backend, and what can be done to it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Protocol, Self, cast, runtime_checkable

from attrs import define, evolve, field, frozen

from chatbridge.backend import SettleBy
from chatbridge.bridge import Bridge, connect
from chatbridge.chat import Chat
from chatbridge.config import BackendURL
from chatbridge.errors import ChatbridgeError, UsageError
from chatbridge.observe import run_hook
from chatbridge.testing.faults import Fault
from chatbridge.testing.script import Expect, Expectation, Expected, ExpectError, ExpectStream, Fail
from chatbridge.text import quoted
from chatbridge.turns import Turn, TurnEvent, TurnState

__all__ = ["RECORDED", "Answered", "Bot", "Partner", "Speaker", "Stage", "Target"]

Bot = Callable[[Bridge, str], Awaitable[str] | AsyncIterator[str]]
"""
Answers what a user says, whole or, as an asynchronous generator does, in pieces.

It is given the bridge to the backend that goes on; a bot with a memory is an object with `__call__`.
"""

Target = Bridge | Chat | BackendURL | str
"""What a dialogue is run against: what is not open yet is opened for the run."""


@runtime_checkable
class Partner(Protocol):
    """
    What faults can be planned at, such as an emulator.

    One that shows the `faults` that have not struck, as an emulator and a fake do, is held to them.
    """

    def fail(self, fault: Fault, /) -> object:
        """Plan *fault* for the next request."""
        ...


class _Recorded:
    def fail(self, fault: Fault, /) -> None:
        pass


RECORDED: Partner = _Recorded()
"""The partner of a run against a recording, which has the faults already."""


@frozen
class Answered:
    """
    What came of a message.

    Attributes:
        pieces: What was streamed, until the error if there is one.
        streamed: Whether it is to be shown in its pieces.
    """

    text: str = ""
    pieces: tuple[str, ...] = ()
    error: Exception | None = None
    streamed: bool = False

    @property
    def entries(self) -> tuple[str, ...]:
        """Show it in a transcript."""
        pieces = [piece for piece in self.pieces if piece.strip()]
        shown = str(ExpectStream(tuple(pieces)) if self.streamed and pieces else Expect(self.text))
        if self.error is None:
            return (shown,)
        failed = f"<! {type(self.error).__name__}: {self.error}"
        return (shown, failed) if self.text else (failed,)

    def keeps(self, step: Expectation) -> bool:
        """Say whether it is what *step* expects."""
        if isinstance(step, Expect):
            return _fits(step.answer, self.text)
        if isinstance(step, ExpectError):
            found = isinstance(self.error, step.kind)
            return found and (step.match is None or _fits(step.match, str(self.error)))
        first, *others = step.pieces
        pieces = [piece.strip() for piece in self.pieces if piece.strip()]
        if others:
            return len(pieces) == len(step.pieces) and all(map(_fits, step.pieces, pieces))
        streamed = len(pieces) > 1 or (len(pieces) == 1 and self.error is not None)
        return streamed and _fits(first, self.text.strip())


def _fits(expected: Expected, text: str) -> bool:
    if isinstance(expected, str):
        return expected == text
    return expected.search(text) is not None if isinstance(expected, re.Pattern) else expected(text)


@define(eq=False)
class Speaker:
    """What answers over one bridge: the bot, or without one the backend, in one conversation."""

    bot: Bot | None
    bridge: Bridge
    partner: Partner | None
    chat: Chat | None = None

    async def answer(self, text: str, faults: Sequence[Fault], *, streamed: bool) -> Answered:
        """
        Have *text* answered, with *faults* planned for it.

        Raises:
            UsageError: The faults cannot be planned, or struck nothing; or the bot's answer is no text.
        """
        pieces: list[str] = []
        with _Planned(self.bridge, self.partner, faults) as planned:
            try:
                whole = cast(object, await self._ask(text, pieces, streamed=streamed))
            except Exception as error:  # noqa: BLE001 - an error may be expected
                answered = Answered("".join(pieces), tuple(pieces), error, streamed)
            else:
                if not isinstance(whole, str):
                    raise UsageError(
                        f"the bot answered with a {type(whole).__name__}; a bot's answer is a str"
                    )
                answered = Answered(whole, tuple(pieces), streamed=streamed)
        planned.check(answered)
        return answered

    async def _ask(self, text: str, pieces: list[str], *, streamed: bool) -> str:
        """Give the whole answer; what is streamed goes to *pieces* as it arrives."""
        if self.bot is not None:
            answer = self.bot(self.bridge, text)
            if not isinstance(answer, AsyncIterator):
                if not isinstance(cast(object, answer), Awaitable):
                    raise UsageError(
                        f"the bot answered with a {type(answer).__name__} at once; "
                        "a bot is an asynchronous function, or an asynchronous generator"
                    )
                return await answer
            try:
                await _collect(answer, pieces)
            finally:
                if isinstance(answer, AsyncGenerator):
                    await cast("AsyncGenerator[str]", answer).aclose()
            return "".join(pieces)
        if self.chat is None:
            self.chat = await self.bridge.create()
        if not streamed:
            return (await self.chat.send(text)).text
        async with self.chat.stream(text) as stream:
            await _collect(stream.text(), pieces)
        return stream.reply.text

    async def waive(self, error: Exception | None) -> None:
        """Let the doubt that an expected *error* leaves stand; a bot does so itself, if it wants to."""
        turn = error.turn if isinstance(error, ChatbridgeError) else None
        if self.chat is not None and turn is not None and turn.state is TurnState.UNKNOWN:
            await self.chat.waive(turn)


async def _collect(source: AsyncIterator[str], pieces: list[str]) -> None:
    async for piece in source:
        pieces.append(piece)  # noqa: PERF401 - what came before an error is kept


class _Planned:
    """Faults that are planned for as long as a message is on its way, so that they strike nothing else."""

    def __init__(self, bridge: Bridge, partner: Partner | None, faults: Sequence[Fault]) -> None:
        self._provider = bridge.profile.name
        self._deliveries = bridge.deliveries
        self._hook = bridge.deliveries.on_turn
        # Copies, to be told from whatever else is planned.
        self._faults = deque(evolve(fault) for fault in faults)
        self._planned: list[Fault] = []
        self._turn: str | None = None
        # A message with a key of its own is sent again where its answer was cut.
        self._cut_shows = SettleBy.KEY not in bridge.profile.settle_by
        self._problem: str | None = None
        backend = bridge.api
        self._partner = partner or (backend if isinstance(backend, Partner) else None)
        if faults and self._partner is None:
            raise UsageError(
                f"nothing can plan a fault for {self._provider}: give the run its emulator as partner "
                "(in partners, for a backend that is switched to), or RECORDED for a recording"
            )

    def __enter__(self) -> Self:
        if self._faults:
            self._deliveries.on_turn = self
        return self

    def __exit__(self, *_: object) -> None:
        self._deliveries.on_turn = self._hook
        self._end(delivered=False)

    def __call__(self, event: TurnEvent) -> None:
        """Take note of a turn."""
        if event.turn.state is TurnState.PENDING:
            self._begin(event.turn)
        elif event.turn.id == self._turn:
            self._end(delivered=event.turn.state is TurnState.DELIVERED)
        if self._hook is not None:
            run_hook(self._hook, event)

    def _begin(self, turn: Turn) -> None:
        """Plan the faults, which are for the attempts to send the message of *turn*."""
        try:
            while self._faults and self._partner:
                self._turn = turn.id
                self._partner.fail(self._faults[0])
                self._planned.append(self._faults.popleft())
        except Exception as error:  # noqa: BLE001 - what a hook raises would only be logged
            self._problem = (
                f"the fault for {self._provider} could not be planned: {type(error).__name__}: {error}"
            )

    def _end(self, *, delivered: bool) -> None:
        """Take back the faults that are left when the message is over, and see whether a cut did cut."""
        planned, self._planned = self._planned, []
        left = [fault for fault in planned if self._take_back(fault)]
        problem: str | None = None
        if left:
            words = ", ".join(str(Fail(fault)) for fault in left)
            problem = f"nothing was left of the message to {self._provider} for {words} to strike"
        elif delivered and self._cut_shows and planned and planned[-1].cuts:
            problem = f"{Fail(planned[-1])} left the answer of {self._provider} whole"
        self._problem = self._problem or problem

    def _take_back(self, fault: Fault) -> bool:
        """Say whether *fault* is still planned; where the plan is a list, it is no more."""
        plan = cast(Sequence[object], getattr(self._partner, "faults", ()))
        for index, entry in enumerate(plan):
            if fault is (cast(tuple[object, ...], entry)[-1] if isinstance(entry, tuple) else entry):
                if isinstance(plan, list):
                    del plan[index]
                return True
        return False

    def check(self, answered: Answered) -> None:
        """
        Check that all faults struck.

        Raises:
            UsageError: They did not.
        """
        problem = self._problem
        if problem is None and self._faults:
            problem = f"no message went out to {self._provider} that a fault could strike"
        if problem is not None:
            raise UsageError(f"{problem}; what came was {'; '.join(answered.entries)}")


@define(eq=False)
class Stage:
    """Who can speak in a run, each opened when first needed."""

    bot: Bot | None
    stack: AsyncExitStack
    backends: Mapping[str, Target]
    partners: Mapping[str, Partner]
    _speakers: dict[Bridge | Chat | str | None, Speaker] = field(
        init=False, factory=dict["Bridge | Chat | str | None", Speaker]
    )

    async def go_on(self, name: str) -> Speaker:
        """
        Give who speaks after a switch to *name*.

        Raises:
            UsageError: It is no backend that was given, nor a config string.
        """
        if name not in self.backends and ":" not in name:
            given = ", ".join(map(quoted, self.backends)) or "none"
            raise UsageError(
                f"the dialogue goes on with {quoted(name)}, and the backends given to its run are: {given}"
            )
        return await self.open(self.backends.get(name, name), self.partners.get(name), name)

    async def open(self, target: Target, partner: Partner | None, name: str | None = None) -> Speaker:
        """Give who speaks over *target*: always the same by one name, bridge or chat."""
        known = target if isinstance(target, Bridge | Chat) else name
        if known not in self._speakers:
            self._speakers[known] = await self._open(target, partner)
        return self._speakers[known]

    async def _open(self, target: Target, partner: Partner | None) -> Speaker:
        if isinstance(target, Chat):
            if self.bot is not None:
                raise UsageError(
                    "a bot opens conversations itself: run the dialogue on the bridge, not on a chat"
                )
            return Speaker(None, target.bridge, partner, target)
        if isinstance(target, Bridge):
            return Speaker(self.bot, target, partner)
        return Speaker(self.bot, await self.stack.enter_async_context(connect(target)), partner)
