"""Every cell of the retry matrix at real sockets: how often the server sees a request, and what is said."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from attrs import evolve, frozen

from chatbridge import ChatbridgeError, errors
from chatbridge.errors import Outcome, Phase
from chatbridge.http import ApiError, Endpoint, Id, JsonLines, Kind
from chatbridge.retry import MATRIX, STATUS_RULES, Failure, Hint, Repeat, StatusRule, outcome_of
from fault_server import Client, Script, Step, answer, chunked, client_of

READ, READ_HEAD, RESET, FIN, STALL, HANG = Step
ATTEMPTS = 4
TIMES = {Repeat.NEVER: 1, Repeat.ONCE: 2, Repeat.ALWAYS: ATTEMPTS}
CONNECT, FIRST_BYTE = 5.0, 300.0


@frozen
class Hi:
    id: Id


# Each kind by the methods that have it.
METHODS: dict[Kind, tuple[str, ...]] = {
    Kind.READ: ("GET", "POST"),
    Kind.WRITE: ("PUT", "PATCH", "DELETE"),
    Kind.COMPLETE: ("POST",),
    Kind.CREATE: ("POST", "PUT"),
    Kind.SEND: ("POST", "PUT", "GET"),
    Kind.SEND_WITH_KEY: ("POST", "PUT"),
    Kind.RESULT: ("GET", "POST"),
}
assert set(METHODS) == set(Kind)

FAULTS: dict[Phase, dict[str, Script]] = {
    Phase.LOST: {
        "reset at once": (RESET,),
        "reset in the request": (READ_HEAD, RESET),
        "reset": (READ, RESET),
        "end": (READ, FIN),
        "cut head": (READ, answer(b"{}")[:20], FIN),
    },
    Phase.NO_HEAD: {"silence": (READ, STALL), "silence in the head": (READ, answer(b"{}")[:20], STALL)},
    Phase.BAD_HEAD: {
        "no HTTP": (READ, b"hello\r\n\r\n"),
        "two lengths": (READ, answer(b"{}", "200 OK", "Content-Length: 3")),
        "huge field": (READ, answer(b"{}", "200 OK", "A: " + "b" * 9000)),
    },
    Phase.BODY: {
        "cut": (READ, answer(b'{"id":"x"}')[:-3], FIN),
        "reset": (READ, answer(b'{"id":"x"}')[:-3], RESET),
        "cut chunk": (READ, chunked(b'{"id"', last=b""), FIN),
    },
    Phase.CONTENT: {
        "empty": (READ, answer(b"")),
        "no JSON": (READ, answer(b'{"id":')),
        "wrong shape": (READ, answer(b'{"id": []}')),
        "gzip": (READ, answer(gzip.compress(b'{"id":"x"}'), "200 OK", "Content-Encoding: gzip")),
        "no UTF-8": (READ, answer(b'{"id":"\xff"}')),
    },
    Phase.FIRST_EVENT: {
        "nothing": (READ, chunked()),
        "cut": (READ, chunked(b'{"id"', last=b""), FIN),
        "reset": (READ, chunked(b'{"id"', last=b""), RESET),
    },
    Phase.EVENTS: {
        "cut": (READ, chunked(b'{"id":"x"}\n', last=b""), FIN),
        "reset": (READ, chunked(b'{"id":"x"}\n', b'{"id"', last=b""), RESET),
        "no end mark": (READ, chunked(b'{"id":"x"}\n')),
        "no JSON": (READ, chunked(b'{"id":"x"}\n', b"nonsense\n")),
    },
}
STREAMED = {Phase.FIRST_EVENT, Phase.EVENTS}


def endpoint(kind: Kind, method: str, *, streamed: bool = False) -> Endpoint[Hi]:
    whole: Endpoint[Hi] = Endpoint("say", method, "/say", kind, answer=Hi)
    return evolve(whole, framing=JsonLines, ends=_is_end) if streamed else whole


def _is_end(event: Hi) -> bool:
    return event.id == "end"


async def run(client: Client, called: Endpoint[Hi]) -> ChatbridgeError:
    async def call() -> None:
        if called.framing is None:
            await client.api.call(called)
            return
        async with client.api.stream(called) as events:
            async for _ in events:
                pass

    with pytest.raises(ChatbridgeError) as caught:
        await client.clock.through_stalls(client.server, call(), FIRST_BYTE)
    return caught.value


def expect(error: ChatbridgeError, kind: Kind, outcome: Outcome, attempts: int) -> None:
    assert attempts == len(error.attempts) or (attempts == 1 and len(error.attempts) <= 1)
    if kind is Kind.RESULT:
        assert Outcome.ACCEPTED is error.outcome
    elif not kind.by_id:
        assert outcome is error.outcome
        assert not (outcome in {Outcome.UNKNOWN, Outcome.ACCEPTED} and error.retryable)


CELLS = [
    (kind, method, phase, name)
    for phase, faults in FAULTS.items()
    for name in faults
    for kind in Kind
    for method in METHODS[kind]
]


@pytest.mark.parametrize(("kind", "method", "phase", "name"), CELLS)
async def test_s1_each_phase_is_repeated_as_often_as_the_table_says(
    kind: Kind, method: str, phase: Phase, name: str
) -> None:
    async with client_of(FAULTS[phase][name], attempts=ATTEMPTS, can_settle=True) as client:
        error = await run(client, endpoint(kind, method, streamed=phase in STREAMED))
        repeat = MATRIX[phase][kind]

    assert TIMES[repeat] == client.server.begun
    assert phase is error.phase
    expect(error, kind, outcome_of(Failure(phase, "")), TIMES[repeat])


STATUSES = sorted(set(range(300, 600)) - {304})
SOME = [
    *(
        300,
        301,
        302,
        303,
        307,
        308,
        400,
        401,
        402,
        403,
        404,
        405,
        408,
        409,
        410,
        413,
        418,
        422,
        423,
        425,
        426,
    ),
    *(425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 507, 511, 520, 524, 529, 599),
]


def rule(status: int) -> StatusRule:
    return next(each for each in STATUS_RULES if status in each.statuses)


def repeat_of_status(kind: Kind, status: int) -> Repeat:
    if kind.by_id or kind is Kind.SEND_WITH_KEY:
        return rule(status).by_id
    return rule(status).complete if kind is Kind.COMPLETE else rule(status).others


@pytest.mark.parametrize("status", SOME)
@pytest.mark.parametrize("kind", list(Kind))
async def test_s1_each_status_is_repeated_as_often_as_the_table_says(kind: Kind, status: int) -> None:
    for method in METHODS[kind]:
        async with client_of((READ, answer(b"{}", f"{status} No")), attempts=ATTEMPTS) as client:
            error = await run(client, endpoint(kind, method))
        repeat = repeat_of_status(kind, status)
        assert TIMES[repeat] == len(client.server.requests)
        assert {method} == {request.method for request in client.server.requests}
        assert status == error.status
        expect(error, kind, rule(status).outcome, TIMES[repeat])


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.RESULT}))
async def test_only_what_has_a_place_on_the_server_can_be_missing(kind: Kind, status: int) -> None:
    async with client_of((READ, answer(b"{}", f"{status} No"))) as client:
        error = await run(client, endpoint(kind, METHODS[kind][0]))
    assert (errors.RequestRefused if kind is Kind.COMPLETE else errors.NotFound) is type(error)


def test_each_status_is_in_one_rule_first() -> None:
    assert all(rule(status) for status in STATUSES)
    assert set(SOME) <= set(STATUSES)


HINTS = {Hint.LOCKED: ATTEMPTS, Hint.REFUSED: ATTEMPTS, Hint.QUOTA: 1, Hint.TOO_LONG: 1}


@pytest.mark.parametrize("hint", list(Hint))
@pytest.mark.parametrize("kind", list(Kind))
async def test_what_an_adapter_reads_off_an_answer_decides(kind: Kind, hint: Hint) -> None:
    def read(_: int, __: Any) -> ApiError:
        return ApiError("no", hint=hint)

    for status in (409, 429, 503):
        async with client_of(
            (READ, answer(b"{}", f"{status} No")), attempts=ATTEMPTS, read_error=read
        ) as client:
            error = await run(client, endpoint(kind, METHODS[kind][0]))
        assert HINTS[hint] == len(client.server.requests)
        if kind is Kind.SEND and hint in {Hint.REFUSED, Hint.TOO_LONG}:
            assert Outcome.REFUSED is error.outcome


@pytest.mark.parametrize("kind", list(Kind))
async def test_x_should_retry_stops_any_repetition_and_widens_none(kind: Kind) -> None:
    for status in (429, 503):
        for said in ("false", "true"):
            script = (READ, answer(b"{}", f"{status} No", f"x-should-retry: {said}"))
            async with client_of(script, attempts=ATTEMPTS) as client:
                await run(client, endpoint(kind, METHODS[kind][0]))
            allowed = TIMES[repeat_of_status(kind, status)] if said == "true" else 1
            assert allowed == len(client.server.requests)


class Counting:
    """Counts the attempts to connect, which end as told."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.attempts = 0

    async def __call__(self, *_: object, **__: object) -> Any:
        self.attempts += 1
        raise self.error


@asynccontextmanager
async def unconnected(error: Exception) -> AsyncGenerator[tuple[Client, Counting]]:
    """Give a client of which no connection comes about."""
    async with client_of((READ, STALL), attempts=ATTEMPTS) as client:
        counting = Counting(error)
        for fresh in (True, False):
            connector = cast(Any, client.api.transport)._session(fresh=fresh).connector
            connector._wrap_create_connection = counting
        yield client, counting


KEY: Any = cast(Any, aiohttp).client_reqrep.ConnectionKey("h", 443, True, True, None, None, None)
UNCONNECTED: dict[Phase, Exception] = {
    Phase.DNS: aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "no name")),
    Phase.CONNECT: aiohttp.ClientConnectorError(KEY, OSError(111, "refused")),
    Phase.TLS: aiohttp.ClientConnectorSSLError(KEY, OSError(1, "no TLS")),
    Phase.CERTIFICATE: aiohttp.ClientConnectorCertificateError(KEY, Exception("self-signed")),
}


@pytest.mark.parametrize("phase", list(UNCONNECTED))
@pytest.mark.parametrize("kind", list(Kind))
async def test_without_a_connection_each_kind_is_tried_as_often_as_the_table_says(
    kind: Kind, phase: Phase
) -> None:
    """Aiohttp's own errors stand in for name servers and certificates, which a test has none of."""
    async with unconnected(UNCONNECTED[phase]) as (client, counting):
        error = await run(client, endpoint(kind, METHODS[kind][0]))
    repeat = MATRIX[phase][kind]
    assert (TIMES[repeat], 0) == (counting.attempts, len(client.server.requests))
    expect(error, kind, Outcome.NOT_SENT, TIMES[repeat])


@pytest.mark.parametrize("kind", list(Kind))
async def test_what_never_began_is_not_repeated(kind: Kind) -> None:
    called = endpoint(kind, METHODS[kind][0])
    async with client_of((READ, STALL), attempts=ATTEMPTS, concurrency=1) as client:
        open_call = asyncio.create_task(client.api.call(endpoint(Kind.READ, "GET")))
        await client.server.reached.wait()
        limiter: Any = client.api.transport.limiter
        limiter.LONGEST_QUEUE = 0
        expect(await run(client, called), kind, Outcome.NOT_SENT, 1)
        open_call.cancel()
        await asyncio.wait([open_call])
        await client.api.transport.close()
        expect(await run(client, called), kind, Outcome.NOT_SENT, 1)
        assert 1 == client.server.begun
    assert {Repeat.NEVER} == {MATRIX[phase][kind] for phase in (Phase.LOCAL, Phase.QUEUE)}


@pytest.mark.parametrize("kind", list(Kind))
async def test_an_upload_that_breaks_off_is_repeated_as_the_table_says(kind: Kind) -> None:
    called: Endpoint[Hi] = Endpoint("say", "POST", "/say", kind, answer=Hi, request=dict)
    async with client_of((READ_HEAD, RESET), attempts=ATTEMPTS) as client:
        with pytest.raises(ChatbridgeError) as caught:
            await client.api.call(called, {"text": "x" * 2**24})
    assert Phase.UPLOAD is caught.value.phase
    assert TIMES[MATRIX[Phase.UPLOAD][kind]] == client.server.begun
    expect(caught.value, kind, Outcome.NOT_SENT, client.server.begun)


def test_every_phase_of_the_table_is_tried_here() -> None:
    elsewhere = {Phase.LOCAL, Phase.QUEUE, Phase.UPLOAD}
    assert set(MATRIX) == set(FAULTS) | set(UNCONNECTED) | elsewhere


async def test_b3_a_storm_of_503_is_not_made_worse_and_retries_come_back() -> None:
    """A thousand reads deliver at most 1,020 requests; after recovery retries return within 100 successes."""
    down, up = (READ, answer(b"{}", "503 No")), (READ, answer(b'{"id":"x"}'))
    async with client_of(down, attempts=3) as client:
        read = endpoint(Kind.READ, "GET")
        failures = [await run(client, read) for _ in range(1000)]
        assert 1000 <= len(client.server.requests) <= 1020
        assert failures[-1].budget_exhausted
        assert {errors.Unavailable} == {type(failure) for failure in failures}
        client.server.scripts = (up,)
        for _ in range(100):
            await client.api.call(read)
        client.server.scripts = (down, up)
        client.server.begun = 0
        await client.api.call(read)
        assert 2 == client.server.begun
