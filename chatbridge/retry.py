"""
Which failed calls are repeated: the rules as tables, carried out by tenacity.

A call is repeated only while that cannot double anything. The rows say how far it
had come, the columns what a repetition would do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from attrs import define, evolve, field, frozen
from tenacity import AsyncRetrying, RetryCallState

from chatbridge.clock import Clock, Pauses
from chatbridge.errors import Attempt, Outcome, Phase
from chatbridge.observe import AttemptWatch

__all__ = [
    "MATRIX",
    "STATUS_RULES",
    "Failure",
    "Hint",
    "Kind",
    "Repeat",
    "Retrier",
    "StatusRule",
    "TokenBucket",
    "outcome_of",
    "repeat_of",
]

T = TypeVar("T")


class Kind(StrEnum):
    """
    What repeating an operation would cost.

    A `RESULT` is the answer to a send, fetched by a call of its own. It may be there to be fetched once, so
    it is repeated as a send is; whatever becomes of it, the message was accepted.
    """

    READ = "read"
    WRITE = "write"
    COMPLETE = "complete"
    CREATE = "create"
    SEND = "send"
    SEND_WITH_KEY = "send_with_key"
    RESULT = "result"

    @property
    def by_id(self) -> bool:
        """Whether doing it twice is the same as once."""
        return self in {Kind.READ, Kind.WRITE}


class Repeat(Enum):
    """How often a failure lets its call be repeated."""

    NEVER = "-"
    ONCE = "1"
    ALWAYS = "R"


class Hint(StrEnum):
    """
    What an adapter reads off an error body that its status does not say.

    Each says that nothing was done. What is locked, or refused for now, may be asked again; where money is
    spent, or what is asked is too long for the model, the answer stays the same.
    """

    LOCKED = "locked"
    QUOTA = "quota"
    REFUSED = "refused"
    TOO_LONG = "too_long"


def _row(marks: str) -> Mapping[Kind, Repeat]:
    return MappingProxyType(dict(zip(Kind, map(Repeat, marks.split()), strict=True)))


# fmt: off
MATRIX: Final[Mapping[Phase, Mapping[Kind, Repeat]]] = MappingProxyType({
    #                        READ  WRITE  COMPLETE  CREATE  SEND  SEND_WITH_KEY  RESULT
    Phase.LOCAL:       _row("-     -      -         -       -     -              -"),
    Phase.QUEUE:       _row("-     -      -         -       -     -              -"),
    Phase.DNS:         _row("R     R      R         R       R     R              R"),
    Phase.CONNECT:     _row("R     R      R         R       R     R              R"),
    Phase.TLS:         _row("R     R      R         R       R     R              R"),
    Phase.CERTIFICATE: _row("-     -      -         -       -     -              -"),
    Phase.UPLOAD:      _row("R     R      R         R       R     R              R"),
    Phase.LOST:        _row("R     R      1         -       -     R              -"),
    Phase.NO_HEAD:     _row("R     R      -         -       -     R              -"),
    Phase.BAD_HEAD:    _row("1     1      -         -       -     1              -"),
    Phase.BODY:        _row("R     -      -         -       -     R              -"),
    Phase.CONTENT:     _row("-     -      -         -       -     -              -"),
    Phase.FIRST_EVENT: _row("R     -      -         -       -     R              -"),
    Phase.EVENTS:      _row("-     -      -         -       -     -              -"),
})
# fmt: on

_NOT_SENT: Final = frozenset({
    Phase.LOCAL, Phase.QUEUE, Phase.DNS, Phase.CONNECT, Phase.TLS, Phase.CERTIFICATE, Phase.UPLOAD,
})  # fmt: skip
_UNKNOWN: Final = frozenset({Phase.LOST, Phase.NO_HEAD, Phase.BAD_HEAD})


@frozen
class StatusRule:
    """
    What an HTTP status means.

    Attributes:
        by_id: Whether reads, writes and sends with a key are repeated.
        complete: Whether stateless completions are.
        others: Whether creations, sends and their results are.
        outcome: What is then known of a send.
    """

    statuses: frozenset[int]
    by_id: Repeat
    complete: Repeat
    others: Repeat
    outcome: Outcome


def _rule(statuses: set[int] | range, marks: str, outcome: Outcome) -> StatusRule:
    by_id, complete, others = map(Repeat, marks.split())
    return StatusRule(frozenset(statuses), by_id, complete, others, outcome)


# fmt: off
STATUS_RULES: Final = (
    #     statuses                                          by id  COMPLETE  CREATE and SEND
    _rule({303},                                           "-      -         -", Outcome.ACCEPTED),
    _rule({408},                                           "R      1         -", Outcome.UNKNOWN),
    _rule({425},                                           "1      1         1", Outcome.REFUSED),
    _rule({429, 529},                                      "R      R         R", Outcome.REFUSED),
    _rule({501, 505, 511},                                 "-      -         -", Outcome.REFUSED),
    _rule(range(300, 500),                                 "-      -         -", Outcome.REFUSED),
    _rule(range(500, 600),                                 "R      R         -", Outcome.UNKNOWN),
)
# fmt: on
_STRANGE: Final = _rule(range(0), "- - -", Outcome.UNKNOWN)


def _status_rule(status: int | None) -> StatusRule:
    return next((rule for rule in STATUS_RULES if status in rule.statuses), _STRANGE)


@define(eq=False, slots=False)
class Failure(Exception):
    """
    One attempt that failed; `errors.py` has the public errors that it is turned into.

    Attributes:
        phase: How far it came.
        reason: What happened, in words, free of secrets.
        kind: The `kind` of the error it will become, where that has one.
        hint: What the adapter read off the answer.
        final: Whether the server asked not to be asked again.
        from_api: Whether the API itself reported it, and not something in between.
        attempts: All attempts of the call up to now: up to this one while it goes on, all once it is over.
    """

    phase: Phase
    reason: str
    kind: str = field(default="lost", kw_only=True)
    timed_out: bool = field(default=False, kw_only=True)
    status: int | None = field(default=None, kw_only=True)
    code: str | None = field(default=None, kw_only=True)
    hint: Hint | None = field(default=None, kw_only=True)
    final: bool = field(default=False, kw_only=True)
    from_api: bool = field(default=False, kw_only=True)
    retry_after: float | None = field(default=None, kw_only=True)
    request_id: str | None = field(default=None, kw_only=True)
    excerpt: str | None = field(default=None, kw_only=True)
    attempts: tuple[Attempt, ...] = field(default=(), init=False)
    budget_exhausted: bool = field(default=False, init=False)


def outcome_of(failure: Failure) -> Outcome:
    """Tell what is known of the call's effect after *failure*."""
    if failure.phase in _NOT_SENT:
        return Outcome.NOT_SENT
    if failure.phase in _UNKNOWN or failure.kind == "not_the_api":
        return Outcome.UNKNOWN
    if failure.phase is not Phase.STATUS:
        return Outcome.ACCEPTED
    if failure.hint in {Hint.REFUSED, Hint.TOO_LONG}:
        return Outcome.REFUSED
    return _status_rule(failure.status).outcome


def repeat_of(kind: Kind, failure: Failure) -> Repeat:
    """Tell how often a call of *kind* may be repeated after *failure*."""
    if failure.final or failure.hint in {Hint.QUOTA, Hint.TOO_LONG}:
        return Repeat.NEVER
    if failure.hint in {Hint.LOCKED, Hint.REFUSED}:
        return Repeat.ALWAYS
    if failure.phase is not Phase.STATUS:
        return MATRIX[failure.phase][kind]
    rule = _status_rule(failure.status)
    if kind.by_id or kind is Kind.SEND_WITH_KEY:
        return rule.by_id
    return rule.complete if kind is Kind.COMPLETE else rule.others


@define
class TokenBucket:
    """
    Keeps retries from making an outage worse: what they spend, successes earn back.

    A retry costs `RETRY` tokens, or `RATE_LIMITED_RETRY` after a 429. Its success gives them
    back; a success at the first try gives one.
    """

    CAPACITY = 100
    RETRY = 10
    RATE_LIMITED_RETRY = 5

    tokens: int = CAPACITY

    def take(self, cost: int) -> bool:
        """Spend *cost*, if there is as much."""
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True

    def give(self, tokens: int = 1) -> None:
        """Earn *tokens*, up to the capacity."""
        self.tokens = min(self.CAPACITY, self.tokens + tokens)


_RATE_LIMITED = 429


@define
class _Call:
    """One call over all its attempts."""

    kind: Kind
    deadline: float
    watch: AttemptWatch | None
    failures: list[Failure] = field(factory=list[Failure])
    attempts: list[Attempt] = field(factory=list[Attempt])
    repeated_once: bool = False
    last_cost: int = 0

    def record(self, failure: Failure, seconds: float) -> None:
        self.failures.append(failure)
        number = len(self.attempts) + 1
        self.attempts.append(Attempt(number, failure.phase, failure.status, failure.reason, seconds))

    def verdict(self) -> Failure:
        """Choose the failure that is true of the whole call: one in doubt outweighs a later refusal."""
        verdict = self.failures[-1]
        if self.kind is not Kind.READ and outcome_of(verdict) in {Outcome.NOT_SENT, Outcome.REFUSED}:
            doubtful = {Outcome.UNKNOWN, Outcome.ACCEPTED}
            verdict = next((f for f in reversed(self.failures) if outcome_of(f) in doubtful), verdict)
        verdict.attempts = tuple(self.attempts)
        verdict.budget_exhausted = self.failures[-1].budget_exhausted
        return verdict


class Retrier:
    """
    Runs the attempts of calls to one origin.

    The first attempt runs bare; tenacity takes over after a failure, as it costs more
    than many a call.

    Attributes:
        bucket: The retry budget of the origin.
    """

    BASE = 0.5
    LONGEST_BACKOFF = 8.0
    LONGEST_WAIT = 60.0
    SHORTEST_ATTEMPT = 0.1

    def __init__(self, clock: Clock, attempts: int, bucket: TokenBucket | None = None) -> None:
        self._clock = clock
        self._attempts = attempts
        self.bucket = TokenBucket() if bucket is None else bucket
        self._pauses = Pauses(clock)
        self._retrying = AsyncRetrying(
            sleep=self._pauses.wait,
            retry=self._may_repeat,
            wait=self._wait,
            stop=self._must_stop,
            before_sleep=self._tell,
            reraise=True,
        )

    async def run(
        self,
        kind: Kind,
        deadline: float,
        attempt: Callable[[tuple[Failure, ...]], Awaitable[T]],
        watch: AttemptWatch | None = None,
    ) -> T:
        """
        Run *attempt* until it succeeds or the rules say stop; it is given the failures before it.

        Each is told to *watch* when it is over, before the wait for the next.

        Raises:
            Failure: The one that says what is known of the whole call, with all attempts.
        """
        started = self._clock.now()
        try:
            result = await attempt(())
        except Failure as failure:
            first = failure
        except BaseException as error:
            if watch is not None:
                watch.ended(1, error, self._clock.now() - started)
            raise
        else:
            self.bucket.give()
            if watch is not None:
                watch.succeeded(1, self._clock.now() - started)
            return result
        call = _Call(kind, deadline, watch)
        call.record(first, self._clock.now() - started)
        try:
            result = cast(T, await self._retrying.copy()(self._again, call, attempt, [first]))
        except Failure:
            if watch is not None:
                watch.tell(call.attempts[-1])
        else:
            self.bucket.give(call.last_cost)
            return result
        raise call.verdict()

    def close(self) -> None:
        """End the waits between attempts; what comes after them is the attempts' to refuse."""
        self._pauses.close()

    async def _again(
        self,
        call: _Call,
        attempt: Callable[[tuple[Failure, ...]], Awaitable[Any]],
        pending: list[Failure],
    ) -> Any:  # noqa: ANN401 - tenacity loses the type
        if pending:  # What tenacity counts as the first attempt has been made.
            raise pending.pop()
        call.failures[-1].attempts = tuple(call.attempts)
        started, watch = self._clock.now(), call.watch
        try:
            result = await attempt(tuple(call.failures))
        except Failure as failure:
            call.record(failure, self._clock.now() - started)
            raise
        except BaseException as error:
            if watch is not None:
                watch.ended(len(call.attempts) + 1, error, self._clock.now() - started)
            raise
        if watch is not None:
            watch.succeeded(len(call.attempts) + 1, self._clock.now() - started)
        return result

    def _tell(self, state: RetryCallState) -> None:
        call = cast(_Call, state.args[0])
        if call.watch is not None:
            call.watch.tell(call.attempts[-1])

    def _may_repeat(self, state: RetryCallState) -> bool:
        call = cast(_Call, state.args[0])
        outcome = state.outcome
        failure = outcome.exception() if outcome is not None else None
        if not isinstance(failure, Failure):
            return False
        repeat = repeat_of(call.kind, failure)
        if repeat is Repeat.ONCE:
            repeat = Repeat.NEVER if call.repeated_once else Repeat.ALWAYS
            call.repeated_once = True
        return repeat is Repeat.ALWAYS

    def _wait(self, state: RetryCallState) -> float:
        ceiling = min(self.LONGEST_BACKOFF, self.BASE * 2.0 ** (state.attempt_number - 1))
        asked = cast(_Call, state.args[0]).failures[-1].retry_after
        return max(self._clock.random() * ceiling, asked or 0.0)

    def _must_stop(self, state: RetryCallState) -> bool:
        call, wait = cast(_Call, state.args[0]), state.upcoming_sleep
        if state.attempt_number >= self._attempts or wait > self.LONGEST_WAIT:
            return True
        if self._clock.now() + wait > call.deadline - self.SHORTEST_ATTEMPT:
            return True
        failure = call.failures[-1]
        limited = failure.status == _RATE_LIMITED
        call.last_cost = TokenBucket.RATE_LIMITED_RETRY if limited else TokenBucket.RETRY
        if not self.bucket.take(call.last_cost):
            failure.budget_exhausted = True
            return True
        call.attempts[-1] = evolve(call.attempts[-1], wait=wait)
        return False
