"""The line that a fake seems to be at the end of: its calls are noted, fail as planned, and are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from attrs import evolve, field, fields, frozen

from chatbridge.clock import Clock
from chatbridge.delivery import current_delivery
from chatbridge.domain import Message, SendOptions
from chatbridge.errors import ChatbridgeError, Outcome, Phase
from chatbridge.observe import AttemptWatch, OnAttempt
from chatbridge.options import CommonOptions
from chatbridge.retry import Failure, Kind, Retrier, outcome_of
from chatbridge.secret import Secret
from chatbridge.testing.exchange import Kept
from chatbridge.testing.faults import Fault

__all__ = ["MESSAGES", "FakeCall", "Line"]

T = TypeVar("T")

MESSAGES = ("send", "stream")
"""The operations that carry a message."""

_RETRY_AFTER = "retry-after"


@frozen(kw_only=True)
class FakeCall:
    """
    A call of a fake backend: one attempt, as a server would have seen it.

    Attributes:
        operation: The method of the backend.
        conversation_id: None of a creation or a list.
        message: Of a send or a stream, as it went out.
        options: The same.
        failed: How it failed, in words; None where it was answered.
    """

    operation: str
    conversation_id: str | None = None
    message: Message | None = None
    options: SendOptions | None = None
    failed: str | None = None
    number: int = field(default=0, repr=False)

    @property
    def turn(self) -> str | None:
        """The id of the turn that it belongs to, the same at each attempt."""
        return None if self.message is None else self.message.id

    def __str__(self) -> str:
        said = "" if self.message is None else f" {self.message.text!r}"
        where = "" if self.conversation_id is None else f" to {self.conversation_id}"
        return f"{self.operation}{said}{where}" + ("" if self.failed is None else f": {self.failed}")


class Line:
    """
    Carries the calls of one fake.

    Attributes:
        calls: Every call so far, oldest first.
        faults: The planned faults that have not struck, each with the operations that it waits for (none:
            any) and at which turn of them, counted from the first (None: the next).
    """

    def __init__(
        self, name: str, options: CommonOptions, clock: Clock, on_attempt: OnAttempt | None = None
    ) -> None:
        self.calls: list[FakeCall] = []
        self.faults: list[tuple[tuple[str, ...], int | None, Fault]] = []
        self._name = name
        self._options = options
        self._clock = clock
        self._on_attempt = on_attempt
        self._retrier = Retrier(clock, options.attempts)
        self._serving: set[asyncio.Task[Any]] = set()

    async def carry(
        self,
        call: FakeCall,
        kind: Kind,
        work: Callable[[], Awaitable[T]],
        keep: Callable[[Kept, T], None] = lambda _, __: None,
        pause: float = 0.0,
    ) -> tuple[T, Fault]:
        """
        Have *call* answered by *work*, and give the answer with the fault for its stream.

        Args:
            call: What is noted.
            kind: What repeating it would cost.
            work: Does what the server would do, once for each attempt that reaches it.
            keep: Stores what a message leaves behind, once it is answered or lost.
            pause: Seconds that the server takes.
        """
        deadline = self._clock.now() + self._options.timeout
        watch = self._watch(call, kind)

        async def attempt(_: tuple[Failure, ...]) -> tuple[T, Fault]:
            delivery = None if kind.by_id else current_delivery()
            before = None
            if delivery is not None:
                delivery.begin()
                before = delivery.outcome
                delivery.note(Outcome.UNKNOWN, before)
            noted = evolve(call, number=len(self.calls))
            self.calls.append(noted)
            outcome, failed = Outcome.ACCEPTED, None
            try:
                return await self._attempt(noted, work, keep, pause)
            except Failure as failure:
                outcome, failed = outcome_of(failure), failure.reason
                raise
            except ChatbridgeError as error:
                outcome, failed = error.outcome, f"{type(error).__name__}: {error}"
                raise
            except asyncio.CancelledError:
                outcome, failed = Outcome.UNKNOWN, "cancelled"
                raise
            finally:
                self.calls[noted.number] = evolve(noted, failed=failed)
                if delivery is not None:
                    delivery.note(outcome, before)

        started = self._clock.now()
        try:
            return await self._retrier.run(kind, deadline, attempt, watch)
        except Failure as caught:
            failure = caught
        raise self.error(call, kind, failure, started)

    def error(
        self, call: FakeCall, kind: Kind, failure: Failure, started: float | None = None
    ) -> ChatbridgeError:
        """Make the error of a call that failed."""
        from chatbridge.http.failures import to_error  # noqa: PLC0415 - aiohttp takes time to import
        from chatbridge.http.redact import Redactor  # noqa: PLC0415 - the same

        if failure.excerpt is not None:
            failure.excerpt = Redactor(self._secrets()).clean(failure.excerpt)
        elapsed = None if started is None else self._clock.now() - started
        return to_error(kind, failure, provider=self._name, operation=call.operation, elapsed=elapsed)

    def _secrets(self) -> list[Secret]:
        values = (getattr(self._options, attribute.name) for attribute in fields(type(self._options)))
        return [value for value in values if isinstance(value, Secret)]

    async def close(self) -> None:
        """End what a lost connection has left under way."""
        self._retrier.close()
        for task in tuple(self._serving):
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _attempt(
        self, call: FakeCall, work: Callable[[], Awaitable[T]], keep: Callable[[Kept, T], None], pause: float
    ) -> tuple[T, Fault]:
        """Wait for what is served; a client that leaves does not stop the server."""
        fault = self._next_fault(call)
        serving = asyncio.get_running_loop().create_task(self._serve(fault, work, keep, pause))
        self._serving.add(serving)
        serving.add_done_callback(self._served)
        if fault.drop == "during":
            raise _lost()
        timer = self._clock.timeout_at(self._clock.now() + self._options.first_byte_timeout)
        try:
            async with timer:
                await asyncio.wait([serving])
            if serving.cancelled():
                raise Failure(Phase.LOST, "the bridge was closed", final=True)
            return serving.result(), fault
        except TimeoutError:
            if not timer.expired():
                raise
        raise Failure(Phase.NO_HEAD, "no answer in time", kind="timeout", timed_out=True)

    async def _serve(
        self, fault: Fault, work: Callable[[], Awaitable[T]], keep: Callable[[Kept, T], None], pause: float
    ) -> T:
        if pause:
            await self._clock.sleep(pause)
        if fault.drop != "after" and fault.cut_after is None:
            await fault.wait(self._clock.sleep)
        if fault.drop == "before":
            raise _lost()
        if fault.status is not None and fault.leaves == "nothing":
            raise _refused(fault, fault.status)
        result = await work()
        keep(fault.leaves, result)
        if fault.drop == "after":
            await fault.wait(self._clock.sleep)
            raise _lost()
        if fault.status is not None:
            raise _refused(fault, fault.status)
        return result

    def _served(self, serving: asyncio.Task[Any]) -> None:
        self._serving.discard(serving)
        if not serving.cancelled():
            serving.exception()  # Whoever waits for it is told; where nobody does, nobody is to be.

    def _next_fault(self, call: FakeCall) -> Fault:
        for index, (operations, nth, fault) in enumerate(self.faults):
            if operations and call.operation not in operations:
                continue
            if nth is None or nth == self.count(operations):
                del self.faults[index]
                return fault
        return Fault()

    def count(self, operations: tuple[str, ...]) -> int:
        """Count the turns, and the calls that are none, of *operations*."""
        calls = (call for call in self.calls if not operations or call.operation in operations)
        return len({call.turn or call.number for call in calls})

    def _watch(self, call: FakeCall, kind: Kind) -> AttemptWatch | None:
        if not AttemptWatch.is_wanted(self._on_attempt):
            return None
        return AttemptWatch(
            self._name,
            call.operation,
            kind.value,
            "CALL",
            f"{self._name}:",
            call.turn,
            self._clock.wall,
            self._on_attempt,
        )


def _lost() -> Failure:
    return Failure(Phase.LOST, "the connection was lost before the answer")


def _refused(fault: Fault, status: int) -> Failure:
    headers: Mapping[str, str] = {name.lower(): value for name, value in fault.headers.items()}
    asked = headers.get(_RETRY_AFTER, "")
    success = 200 <= status < 300  # noqa: PLR2004 - what HTTP calls successful
    return Failure(
        Phase.CONTENT if success else Phase.STATUS,
        f"the server answered {status}" + (", and what cannot be read" if success else ""),
        kind="schema" if success else "server_error",
        status=status,
        retry_after=float(asked) if asked.isdigit() else None,
        from_api=status == 500 and fault.body is None,  # noqa: PLR2004 - what an API itself says
        excerpt=fault.words,
    )
