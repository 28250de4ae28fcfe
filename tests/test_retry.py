"""Which calls are repeated, how often, after which wait, and what is said of the whole call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge.errors import Outcome, Phase
from chatbridge.retry import (
    MATRIX,
    STATUS_RULES,
    Failure,
    Hint,
    Kind,
    Repeat,
    Retrier,
    TokenBucket,
    outcome_of,
    repeat_of,
)
from chatbridge.testing.clock import ManualClock

FAR = 1e9
ATTEMPTS = 5
TIMES = {Repeat.NEVER: 1, Repeat.ONCE: 2, Repeat.ALWAYS: ATTEMPTS}

# fmt: off
EXPECTED: dict[str, tuple[str, Outcome]] = {
    #          READ WRITE COMPLETE CREATE SEND SEND_WITH_KEY RESULT   what is known
    "local":       ("- - - - - - -", Outcome.NOT_SENT),
    "queue":       ("- - - - - - -", Outcome.NOT_SENT),
    "dns":         ("R R R R R R R", Outcome.NOT_SENT),
    "connect":     ("R R R R R R R", Outcome.NOT_SENT),
    "tls":         ("R R R R R R R", Outcome.NOT_SENT),
    "certificate": ("- - - - - - -", Outcome.NOT_SENT),
    "upload":      ("R R R R R R R", Outcome.NOT_SENT),
    "lost":        ("R R 1 - - R -", Outcome.UNKNOWN),
    "no_head":     ("R R - - - R -", Outcome.UNKNOWN),
    "bad_head":    ("1 1 - - - 1 -", Outcome.UNKNOWN),
    "body":        ("R - - - - R -", Outcome.ACCEPTED),
    "content":     ("- - - - - - -", Outcome.ACCEPTED),
    "first_event": ("R - - - - R -", Outcome.ACCEPTED),
    "events":      ("- - - - - - -", Outcome.ACCEPTED),
}
EXPECTED_STATUSES: list[tuple[list[int | None], str, Outcome]] = [
    # statuses                                           READ WRITE COMPLETE CREATE SEND SEND_WITH_KEY RESULT
    ([303],                                              "- - - - - - -", Outcome.ACCEPTED),
    ([300, 301, 302, 304, 307, 308],                     "- - - - - - -", Outcome.REFUSED),
    ([400, 401, 403, 404, 407, 409, 410, 413, 424, 426, 431, 451], "- - - - - - -", Outcome.REFUSED),
    ([408],                                              "R R 1 - - R -", Outcome.UNKNOWN),
    ([425],                                              "1 1 1 1 1 1 1", Outcome.REFUSED),
    ([429, 529],                                         "R R R R R R R", Outcome.REFUSED),
    ([500, 502, 503, 504, 507, 520, 599],                "R R R - - R -", Outcome.UNKNOWN),
    ([501, 505, 511],                                    "- - - - - - -", Outcome.REFUSED),
    ([101, 600, 999, None],                              "- - - - - - -", Outcome.UNKNOWN),
]
# fmt: on

CELLS = [
    (kind, Failure(Phase(phase), "no"), Repeat(mark), outcome)
    for phase, (marks, outcome) in EXPECTED.items()
    for kind, mark in zip(Kind, marks.split(), strict=True)
] + [
    (kind, Failure(Phase.STATUS, "no", status=status), Repeat(mark), outcome)
    for statuses, marks, outcome in EXPECTED_STATUSES
    for status in statuses
    for kind, mark in zip(Kind, marks.split(), strict=True)
]


class Scripted:
    """An attempt that fails as told, one failure after the other, and then succeeds."""

    def __init__(self, failures: Sequence[BaseException]) -> None:
        self.failures = list(failures)
        self.earlier: list[tuple[Failure, ...]] = []

    async def __call__(self, earlier: tuple[Failure, ...]) -> str:
        self.earlier.append(earlier)
        if len(self.earlier) <= len(self.failures):
            raise self.failures[len(self.earlier) - 1]
        return "done"

    @property
    def times(self) -> int:
        return len(self.earlier)


def retrier(
    attempts: int = ATTEMPTS, random: Callable[[], float] = lambda: 0.5
) -> tuple[Retrier, ManualClock]:
    clock = ManualClock(random)
    return Retrier(clock, attempts), clock


def status(number: int, **facts: Any) -> Failure:
    return Failure(Phase.STATUS, f"the server answered {number}", status=number, **facts)


async def failing(attempt: Scripted, kind: Kind = Kind.READ, **options: Any) -> Failure:
    deadline = options.pop("deadline", FAR)
    with pytest.raises(Failure) as caught:
        await retrier(**options)[0].run(kind, deadline, attempt)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "failure", "repeat", "outcome"),
    CELLS,
    ids=lambda value: str(getattr(value, "status", None) or value),
)
async def test_each_cell_of_the_matrix(
    kind: Kind, failure: Failure, repeat: Repeat, outcome: Outcome
) -> None:
    """A failure is repeated as often as the tables say, and leaves behind what they say (2.2, S1, S2)."""
    attempt = Scripted([failure] * 100)
    assert outcome is outcome_of(await failing(attempt, kind))
    assert TIMES[repeat] == attempt.times


def test_s2_the_tables_are_complete_and_none_has_a_row_that_this_test_does_not_know() -> None:
    assert {Phase(name) for name in EXPECTED} == set(MATRIX) == set(Phase) - {Phase.STATUS}
    assert all(set(Kind) == set(row) for row in MATRIX.values())
    known = {number for statuses, _, _ in EXPECTED_STATUSES for number in statuses}
    assert all(rule.statuses & known for rule in STATUS_RULES)


@given(st.sampled_from(Kind), st.sampled_from(Phase), st.none() | st.integers(0, 1000), st.booleans())
def test_s1_no_send_is_repeated_in_doubt(kind: Kind, phase: Phase, number: int | None, final: bool) -> None:
    failure = Failure(phase, "no", status=number, final=final)
    doubt = outcome_of(failure) in {Outcome.UNKNOWN, Outcome.ACCEPTED}
    if doubt and kind in {Kind.SEND, Kind.CREATE, Kind.RESULT}:
        assert Repeat.NEVER is repeat_of(kind, failure)
    if final:
        assert Repeat.NEVER is repeat_of(kind, failure)


def test_a_web_page_in_place_of_an_answer_leaves_doubt() -> None:
    assert Outcome.UNKNOWN is outcome_of(Failure(Phase.CONTENT, "html", kind="not_the_api"))


@pytest.mark.parametrize("kind", Kind)
async def test_a_lock_and_a_declared_refusal_are_repeated_and_what_never_changes_is_not(kind: Kind) -> None:
    for hint, number, times, outcome in (
        (Hint.LOCKED, HTTPStatus.CONFLICT, ATTEMPTS, Outcome.REFUSED),
        (Hint.REFUSED, HTTPStatus.SERVICE_UNAVAILABLE, ATTEMPTS, Outcome.REFUSED),
        (Hint.QUOTA, HTTPStatus.TOO_MANY_REQUESTS, 1, Outcome.REFUSED),
        (Hint.TOO_LONG, HTTPStatus.INTERNAL_SERVER_ERROR, 1, Outcome.REFUSED),
    ):
        attempt = Scripted([status(number, hint=hint)] * 100)
        assert outcome is outcome_of(await failing(attempt, kind))
        assert times == attempt.times


@pytest.mark.parametrize("kind", Kind)
async def test_a_server_that_asks_not_to_be_asked_again_is_not(kind: Kind) -> None:
    """The header is `x-should-retry: false`; it outweighs the tables and any hint."""
    for failure in (status(429, final=True), status(503, final=True, hint=Hint.REFUSED)):
        attempt = Scripted([failure] * 2)
        await failing(attempt, kind)
        assert 1 == attempt.times


async def test_a_success_ends_the_attempts_each_of_which_is_told_what_came_before() -> None:
    failures = [status(503), Failure(Phase.LOST, "lost")]
    attempt = Scripted(failures)
    subject, clock = retrier()
    assert "done" == await subject.run(Kind.READ, FAR, attempt)
    assert [(), (failures[0],), tuple(failures)] == attempt.earlier
    assert [0.25, 0.5] == clock.slept


async def test_once_is_once_in_the_whole_call() -> None:
    attempt = Scripted([Failure(Phase.LOST, "lost"), status(408), status(408)])
    await failing(attempt, Kind.COMPLETE)
    assert 2 == attempt.times


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.READ])
@pytest.mark.parametrize(
    "last", [status(401), Failure(Phase.CONNECT, "refused"), Failure(Phase.LOCAL, "closed")]
)
async def test_a_call_once_in_doubt_stays_in_doubt(kind: Kind, last: Failure) -> None:
    """A later attempt that was refused says nothing of the one that was lost."""
    if kind in {Kind.SEND, Kind.CREATE, Kind.RESULT}:
        first = status(429)
        expected = outcome_of(last)
    else:
        first = Failure(Phase.LOST, "lost")
        expected = Outcome.UNKNOWN
    verdict = await failing(Scripted([first, last]), kind, attempts=2)
    assert expected is outcome_of(verdict)
    assert [first.phase, last.phase] == [attempt.phase for attempt in verdict.attempts]


async def test_of_a_read_the_last_failure_counts() -> None:
    verdict = await failing(Scripted([Failure(Phase.LOST, "lost"), status(401)]))
    assert HTTPStatus.UNAUTHORIZED == verdict.status


async def test_e1_each_attempt_is_recorded_with_its_wait() -> None:
    verdict = await failing(Scripted([status(503), Failure(Phase.LOST, "lost")] * 2), attempts=3)
    seen = [(one.number, one.phase, one.status, one.error, one.wait) for one in verdict.attempts]
    assert [
        (1, Phase.STATUS, 503, "the server answered 503", 0.25),
        (2, Phase.LOST, None, "lost", 0.5),
        (3, Phase.STATUS, 503, "the server answered 503", None),
    ] == seen


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999999])
async def test_b1_waits_are_drawn_below_a_ceiling_that_doubles_up_to_eight_seconds(draw: float) -> None:
    subject, clock = retrier(attempts=9, random=lambda: draw)
    with pytest.raises(Failure):
        await subject.run(Kind.READ, FAR, Scripted([status(503)] * 9))
    assert [draw * ceiling for ceiling in (0.5, 1, 2, 4, 8, 8, 8, 8)] == clock.slept


@pytest.mark.parametrize(
    ("asked", "waited"), [(None, 0.25), (0.0, 0.25), (0.1, 0.25), (3.0, 3.0), (60.0, 60.0)]
)
async def test_w1_the_server_may_ask_for_a_longer_wait_and_not_for_a_shorter(
    asked: float | None, waited: float
) -> None:
    subject, clock = retrier()
    await subject.run(Kind.SEND, FAR, Scripted([status(429, retry_after=asked)]))
    assert [waited] == clock.slept


@pytest.mark.parametrize(("asked", "deadline"), [(60.1, FAR), (1e9, FAR), (1e300, FAR), (20.0, 1020.05)])
async def test_w2_a_wait_that_is_too_long_or_beyond_the_deadline_ends_the_call_at_once(
    asked: float, deadline: float
) -> None:
    subject, clock = retrier()
    with pytest.raises(Failure) as caught:
        await subject.run(Kind.READ, deadline, Scripted([status(429, retry_after=asked)]))
    assert ([], asked) == (clock.slept, caught.value.retry_after)
    assert TokenBucket.CAPACITY == subject.bucket.tokens


@given(st.floats(0, 20), st.floats(0, 1, exclude_max=True), st.floats(0, 20))
def test_d2_no_wait_leaves_less_than_a_tenth_of_a_second(left: float, draw: float, asked: float) -> None:
    async def go() -> None:
        subject, clock = retrier(random=lambda: draw)
        deadline = clock.now() + left

        async def attempt(earlier: tuple[Failure, ...]) -> None:
            assert not earlier or clock.now() <= deadline - Retrier.SHORTEST_ATTEMPT
            raise status(429, retry_after=asked)

        with pytest.raises(Failure):
            await subject.run(Kind.READ, deadline, attempt)

    asyncio.run(go())


async def test_b2_a_retry_costs_tokens_that_its_success_gives_back() -> None:
    for number, cost in ((503, TokenBucket.RETRY), (429, TokenBucket.RATE_LIMITED_RETRY)):
        subject, _ = retrier()
        subject.bucket.tokens = 50
        await subject.run(Kind.READ, FAR, Scripted([status(number)]))
        assert 50 == subject.bucket.tokens
        with pytest.raises(Failure):
            await subject.run(Kind.READ, FAR, Scripted([status(number)] * 5))
        assert 50 - 4 * cost == subject.bucket.tokens


async def test_b2_what_was_not_sent_is_charged_too() -> None:
    subject, _ = retrier()
    with pytest.raises(Failure):
        await subject.run(Kind.SEND, FAR, Scripted([Failure(Phase.CONNECT, "refused")] * 5))
    assert TokenBucket.CAPACITY - 4 * TokenBucket.RETRY == subject.bucket.tokens


async def test_b2_an_empty_bucket_ends_the_call_and_says_so() -> None:
    subject, clock = retrier()
    subject.bucket.tokens = TokenBucket.RETRY - 1
    for kind, exhausted in ((Kind.READ, True), (Kind.SEND, False)):
        with pytest.raises(Failure) as caught:
            await subject.run(kind, FAR, Scripted([status(503)]))
        assert exhausted is caught.value.budget_exhausted
    assert [] == clock.slept


async def test_b2_a_verdict_from_an_earlier_attempt_says_that_the_budget_was_spent() -> None:
    subject, _ = retrier()
    subject.bucket.tokens = TokenBucket.RETRY
    with pytest.raises(Failure) as caught:
        await subject.run(Kind.WRITE, FAR, Scripted([Failure(Phase.LOST, "lost"), status(429), status(429)]))
    assert (Phase.LOST, True) == (caught.value.phase, caught.value.budget_exhausted)


async def test_b3_a_thousand_reads_of_a_failing_server_make_few_retries_which_come_back_with_success() -> (
    None
):
    subject, _ = retrier(attempts=3)
    delivered = 0
    for _ in range(1000):
        attempt = Scripted([status(503)] * 3)
        with pytest.raises(Failure):
            await subject.run(Kind.READ, FAR, attempt)
        delivered += attempt.times
    assert 1010 == delivered
    for _ in range(100):
        assert "done" == await subject.run(Kind.READ, FAR, Scripted([]))
    assert TokenBucket.CAPACITY == subject.bucket.tokens
    assert "done" == await subject.run(Kind.READ, FAR, Scripted([status(503)]))


async def test_c1_what_is_no_failure_comes_out_unchanged_from_any_attempt() -> None:
    for error, before in product((asyncio.CancelledError("why"), KeyError("x")), (0, 1)):
        attempt = Scripted([*[status(503)] * before, error])
        with pytest.raises(type(error)) as caught:
            await retrier()[0].run(Kind.READ, FAR, attempt)
        assert error is caught.value
        assert before + 1 == attempt.times


async def test_c1_a_cancelled_wait_ends_at_once_and_no_attempt_follows() -> None:
    class Patient(ManualClock):
        async def sleep(self, seconds: float) -> None:
            waiting.set()
            await asyncio.Event().wait()
            await super().sleep(seconds)

    waiting = asyncio.Event()
    attempt = Scripted([status(503)] * 3)
    call = asyncio.ensure_future(Retrier(Patient(), 3).run(Kind.READ, FAR, attempt))
    await waiting.wait()
    call.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await call
    assert 1 == attempt.times


async def test_calls_at_the_same_time_do_not_share_their_count() -> None:
    subject, _ = retrier(attempts=3)
    attempts = [Scripted([status(503)] * n) for n in (0, 1, 2)]
    results = await asyncio.gather(*(subject.run(Kind.READ, FAR, attempt) for attempt in attempts))
    assert ["done"] * 3 == results
    assert [1, 2, 3] == [attempt.times for attempt in attempts]
