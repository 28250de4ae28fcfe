"""
A backend that answers from a recording, as the server did that it was made with.

    async with connect("replay:?file=kyoto.jsonl") as bridge: ...

The program under test must make the calls that were recorded, each one, and in their order; of calls at once
the order does not matter. Time is the recording's: nothing waits.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any, Literal, cast

import aiohttp
from attrs import evolve, fields, frozen
from multidict import CIMultiDict, CIMultiDictProxy

from chatbridge.backend import ChatBackend, CompletionBackend, ContextOwner, Profile, Stores
from chatbridge.clock import Clock
from chatbridge.config import BackendURL
from chatbridge.delivery import current_delivery
from chatbridge.errors import ConfigError, Outcome, Phase, UsageError
from chatbridge.http.endpoint import Endpoint
from chatbridge.http.recording import BadRecording, Exchange, Recording
from chatbridge.http.transport import Answer, OnHead, Request, Transport
from chatbridge.observe import OnAttempt
from chatbridge.options import CommonOptions, option
from chatbridge.registry import Adapter, Defaults, InProcess, Target, resolve
from chatbridge.retry import Failure, Retrier, outcome_of
from chatbridge.secret import Secret
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.matching import Asked, Matcher
from chatbridge.testing.tape import ReplayMismatch, Tape, called

__all__ = ["ADAPTER", "ReplayIncomplete", "ReplayMismatch", "ReplayOptions", "ReplayTransport"]

NAME = "replay"

_SHOWN = 5  # Of calls that were never made.

Rest = Literal["error", "ignore"]


@frozen(kw_only=True)
class ReplayOptions(CommonOptions):
    """
    What a replay can be told.

    All other options are those of the recorded session. A common one that is given here and is not the
    default wins over them.
    """

    file: str | None = option("The recording.", default=None)
    rest: Rest = option("What to make of recorded calls that were never made.", default="error")


class ReplayIncomplete(UsageError):
    """
    The session is over, and recorded calls were never made.

    Attributes:
        calls: Their numbers, methods and paths.
    """

    def __init__(self, file: str, calls: list[str]) -> None:
        self.calls = tuple(calls)
        shown = "; ".join(calls[:_SHOWN]) + (f"; and {len(calls) - _SHOWN} more" if calls[_SHOWN:] else "")
        super().__init__(
            f"the recording {file!r} has {len(calls)} calls that were never made: {shown} "
            "(rest=ignore lets them be)",
            provider=NAME,
        )


class _Content:
    """The content of a streamed answer: recorded pieces, one at a time, and what came after them."""

    def __init__(self, pieces: Sequence[bytes], fails: Callable[[], Exception] | None) -> None:
        self._pieces = deque(pieces)
        self._fails = fails

    def exception(self) -> None:
        """Say that nothing is wrong before it is read."""

    def read_nowait(self, n: int = -1) -> bytes:
        del n
        return self._pieces.popleft() if self._pieces else b""

    def at_eof(self) -> bool:
        return not self._pieces and self._fails is None

    async def readany(self) -> bytes:
        if not self._pieces and self._fails is not None:
            raise self._fails()
        return self.read_nowait()

    def set_exception(self, error: Exception) -> None:
        self._pieces.clear()
        self._fails = lambda: error


@frozen(eq=False)
class _Response:
    """An open response, of which only its content is wanted."""

    content: _Content

    def close(self) -> None:
        """Free nothing."""


class ReplayTransport(Transport):
    """
    Answers calls from a recording, in place of the server.

    Args:
        target: What was recorded.
        recording: What to answer from.
        file: Its name.
        rest: What to make of calls that were never made.
    """

    PATIENCE = 5.0
    """Seconds of real time that a call waits to be given up by its caller, as it was when recorded."""
    TURNS = 200
    """How often a call lets other tasks go on, so that they can make the calls that come before it."""

    def __init__(
        self,
        target: Target,
        recording: Recording,
        *,
        file: str,
        rest: Rest = "error",
        clock: Clock | None = None,
        on_attempt: OnAttempt | None = None,
    ) -> None:
        super().__init__(str(target.base_url), target.options, clock=clock, on_attempt=on_attempt)
        # The budget for retries is not that of the server, which others may be using.
        self.retrier = Retrier(self.clock, target.options.attempts)
        self.target = target
        self._file = file
        self._rest = rest
        self._gone = asyncio.Event()
        self._under_way = set[asyncio.Future[None]]()
        started = recording.head.started
        if isinstance(self.clock, ManualClock) and started is not None:
            self.clock.set_wall(started.timestamp())
        wall = self.clock.wall()
        self._matcher = Matcher(wall if started is None else started.timestamp(), wall)
        self._tape = Tape(recording, file, self._matcher)

    async def close(self) -> None:
        """
        Close, and say which recorded calls were never made.

        Where a call was not in the recording, its error is raised once more, as it may not have come through.
        An error that is on its way already is left alone.

        Raises:
            ReplayIncomplete: There are some, and `rest` is error.
        """
        await super().close()
        self._gone.set()
        under_way, mismatch = sys.exception(), self._tape.mismatch
        if under_way is not None and mismatch is not None and mismatch is not under_way:
            # It may be what led there, and a bot may have caught it.
            under_way.add_note("\n".join(filter(None, (str(mismatch), mismatch.difference))))
        if self._rest == "ignore" or under_way is not None:
            return
        if mismatch is not None:
            raise mismatch
        if missed := self._tape.missed():
            raise ReplayIncomplete(self._file, [called(each) for each in missed])

    async def attempt(
        self,
        endpoint: Endpoint[Any],
        request: Request,
        deadline: float,
        *,
        fresh: bool = False,  # noqa: ARG002 - there is no connection
        streamed: bool = False,
        on_head: OnHead | None = None,
    ) -> Answer:
        """
        Answer *request* as it was answered when recorded.

        Raises:
            ReplayMismatch: It is not in the recording, or was made more often than there, or too early.
            Failure: It failed then.
        """
        self._check(deadline)
        exchange = self._tape.take(Asked.of(request, self.base_url), self.clock.wall())
        await self._let_others_go_first(exchange)
        await self.limiter.acquire(deadline)
        delivery = None if endpoint.kind.by_id else current_delivery()
        before = Outcome.NOT_SENT if delivery is None else delivery.outcome

        def note(outcome: Outcome) -> None:
            if delivery is not None:
                delivery.note(outcome, before)

        kept = False
        try:
            self._check(deadline)
            note(Outcome.UNKNOWN)
            try:
                answer = await self._answer(endpoint, exchange, on_head, streamed=streamed)
                if answer.status in endpoint.success:
                    note(Outcome.ACCEPTED)
                else:
                    note(outcome_of(Failure(Phase.STATUS, "", status=answer.status)))
            except Failure as failure:
                note(outcome_of(failure))
                raise
            kept = answer.response is not None
            return answer
        finally:
            if not kept:
                self.release(None)

    async def _answer(
        self, endpoint: Endpoint[Any], exchange: Exchange, on_head: OnHead | None, *, streamed: bool
    ) -> Answer:
        """Let time pass as it did, and give the answer."""
        if exchange.status is None and exchange.end == "left":
            await self._wait_to_be_left(exchange)
        over = asyncio.get_running_loop().create_future()
        self._under_way.add(over)
        try:
            begun = self.clock.now()
            await asyncio.sleep(0)  # Calls at once begin at once.
            if (wait := begun + exchange.seconds - self.clock.now()) > 0:
                await self.clock.sleep(wait)
        finally:
            self._under_way.discard(over)
            over.set_result(None)
        if self._closed:
            raise _closed()
        if isinstance(self.clock, ManualClock) and exchange.at is not None:
            self.clock.set_wall(exchange.at.timestamp())
        headers = CIMultiDictProxy(CIMultiDict([(name, value) for name, value in exchange.answer_headers]))
        if exchange.answer_headers and on_head is not None:
            on_head(headers)
        failure, status = exchange.failed(), exchange.status
        if status is None:
            raise failure or Failure(Phase.LOST, "the recording has no answer")
        parts = [self._matcher.in_ours(part) for part in exchange.parts()]
        success = status in endpoint.success
        if not (streamed and success):
            if failure is not None:
                raise failure
            unread = success and endpoint.answer is NoneType
            return Answer(status, headers, None if unread else b"".join(parts))
        fails = None if exchange.end == "whole" else lambda: failure or self._left_here(exchange)
        response = cast(aiohttp.ClientResponse, _Response(_Content(parts, fails)))
        self._responses.add(response)
        return Answer(status, headers, None, response)

    async def _let_others_go_first(self, exchange: Exchange) -> None:
        """Let other tasks make the calls that were answered before that of *exchange* began."""
        turns = 0
        while (first := self._tape.overtaken(exchange)) is not None:
            if turns == self.TURNS:
                raise self._tape.stray(
                    f"{exchange.method} {exchange.path} comes too early: in the recording {self._file!r} "
                    f"it is call {exchange.number}, and call {called(first)} was answered before it began"
                )
            turns += 1
            if self._under_way:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)

    def _left_here(self, exchange: Exchange) -> Failure:
        """Make the failure of who reads on where the recorded program did not."""
        problem = (
            f"the recording {self._file!r} ends here: the program left this answer when it was recorded, "
            f"that of call {called(exchange)}"
        )
        self._tape.stray(problem)
        return Failure(Phase.EVENTS, problem, kind="cut")

    async def _wait_to_be_left(self, exchange: Exchange) -> None:
        """Wait to be cancelled, as the recorded call was before it had its answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.PATIENCE):
                await self._gone.wait()
            raise _closed()
        problem = (
            f"{called(exchange)} has no answer in the recording {self._file!r}: its caller gave it up then"
        )
        raise self._tape.stray(problem)


def _closed() -> Failure:
    return Failure(Phase.LOST, "the bridge was closed", final=True)


def _load(options: ReplayOptions) -> tuple[Recording, Target]:
    """
    Read the recording, and find the backend that it was made with.

    Raises:
        ConfigError: There is no recording, or none that can be used here.
    """
    if options.file is None:
        raise ConfigError(f"{NAME} needs a recording: write {NAME}:?file=FILE", provider=NAME)
    recording, problem = Recording.load(options.file), ""
    head = recording.head
    masks = {name: Secret(str(mask)) for name, mask in head.secrets.items()}
    try:
        url = BackendURL.parse(head.config).with_options(**dict.fromkeys(masks))
        target = resolve(url, {**head.options, **masks}, environ={})
    except ConfigError as error:
        problem = str(error)
    else:
        if target.base_url is not None:
            changed = {
                each.name: value
                for each in fields(CommonOptions)
                if (value := getattr(options, each.name)) != each.default
            }
            return recording, evolve(target, options=evolve(target.options, **changed))
        problem = f"{head.config} is no backend that can be recorded"
    raise BadRecording(Path(options.file), problem, 1)


def profile(options: ReplayOptions | None = None) -> Profile:
    """Tell what the recorded backend can do."""
    if options is None or options.file is None:
        return _PROFILE
    _, target = _load(options)
    return target.adapter.profile(target.options)


_PROFILE = Profile(
    NAME,
    {},
    context=ContextOwner.NONE,
    stores=Stores.NEVER,
    notes=("What a replay can do is what the backend of its recording could: name the file.",),
)


def _transport(options: ReplayOptions, place: InProcess) -> ReplayTransport:
    recording, target = _load(options)
    return ReplayTransport(
        target,
        recording,
        file=str(options.file),
        rest=options.rest,
        clock=place.clock,
        on_attempt=place.on_attempt,
    )


def _open(_: ReplayOptions, transport: ReplayTransport) -> ChatBackend | CompletionBackend:
    return transport.target.adapter.open(transport.options, transport)


ADAPTER = Adapter(
    NAME,
    "Answers from a recording of another backend",
    options=ReplayOptions,
    profile=profile,
    open=_open,
    transport=_transport,
    clock=ManualClock,
    defaults=Defaults(in_process=True),
)
