"""Time: the clocks themselves, and every limit that a call, an attempt or a stream has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from attrs import frozen

from chatbridge import clock as clocks
from chatbridge import errors
from chatbridge.clock import Clock, SystemClock, current_deadline
from chatbridge.errors import Outcome, Phase
from chatbridge.http import Endpoint, JsonLines, Kind
from chatbridge.testing.clock import ManualClock
from fault_server import Client, Step, answer, client_of, settle

READ, READ_HEAD, RESET, FIN, STALL, HANG = Step


@frozen
class Hi:
    id: str = ""
    end: bool = False


SEND = Endpoint("say", "POST", "/say", answer=Hi)
GET = Endpoint("get", "GET", "/get", Kind.READ, answer=Hi)
STREAM = Endpoint("ask", "POST", "/ask", answer=Hi, framing=JsonLines, ends=lambda hi: hi.end)
EVENT, END = b'{"id":"a"}\n', b'{"end":true}\n'


async def outlast(
    clock: Clock, when: float, then: Callable[[asyncio.Timeout], object] = lambda _: None
) -> None:
    """Do *then*, and wait until the time is out."""
    async with clock.timeout_at(when) as timeout:
        then(timeout)
        await asyncio.Event().wait()


async def test_the_systems_clock_is_the_loops() -> None:
    clock: Clock = SystemClock()
    before = asyncio.get_running_loop().time()
    assert before <= clock.now() <= asyncio.get_running_loop().time()
    assert 1.7e9 < clock.wall()
    assert 0 <= clock.random() < 1
    await clock.sleep(0)
    with pytest.raises(TimeoutError):
        await outlast(clock, clock.now())
    with pytest.raises(TimeoutError):
        await outlast(clock, clock.now() + 1e6, lambda timeout: clock.postpone(timeout, clock.now() - 1))
    async with clock.timeout_at(clock.now() + 1e6) as timeout:
        clock.postpone(timeout, clock.now() + 2e6)


async def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(random=lambda: 0.25, wall=5000.0)
    assert (1000.0, 5000.0, 0.25) == (clock.now(), clock.wall(), clock.random())
    clock.advance(2.5)
    await clock.sleep(7.5)
    assert (1010.0, 5010.0, [7.5]) == (clock.now(), clock.wall(), clock.slept)
    assert 0.5 == ManualClock().random()


@pytest.mark.parametrize("late", [0.0, 1.0, 100.0])
async def test_a_manual_clocks_timeout_fires_when_the_clock_is_moved_to_it(late: float) -> None:
    clock = ManualClock()

    waiting = asyncio.ensure_future(outlast(clock, 1010.0))
    await settle()
    clock.advance(9.9)
    await settle()
    assert not waiting.done()
    clock.advance(0.1 + late)
    with pytest.raises(TimeoutError):
        await waiting


async def test_a_manual_clocks_timeout_may_be_due_already_or_moved_to_be_or_moved_on() -> None:
    clock = ManualClock()
    with pytest.raises(TimeoutError):
        await outlast(clock, 999.0)
    with pytest.raises(TimeoutError):
        await outlast(clock, 1010.0, lambda timeout: clock.postpone(timeout, 1000.0))
    async with clock.timeout_at(1010.0) as timeout:
        clock.postpone(timeout, 1030.0)
        clock.advance(20)
        await settle()
    async with clock.timeout_at(1000.0) as timeout:
        clock.postpone(timeout, 1030.0)
        await settle()
    clock.advance(100)  # What is over already does not fire.


async def test_a_deadline_is_seen_within_its_block_and_by_no_other_task() -> None:
    assert None is current_deadline()

    async def other() -> float | None:
        await asyncio.sleep(0)
        return current_deadline()

    before = asyncio.ensure_future(other())
    with clocks.deadline(5.0):
        with clocks.deadline(3.0):
            assert 3.0 == current_deadline()
        assert 5.0 == current_deadline()
        assert None is await before
    assert None is current_deadline()


async def timed_out(client: Client, call: Awaitable[object], seconds: float) -> errors.ChatbridgeError:
    """Wait for the server to stand still, let all but an instant pass, and then the rest."""
    task = asyncio.ensure_future(call)
    await client.server.reached.wait()
    await settle()
    client.clock.advance(seconds - 0.01)
    await settle()
    assert not task.done()
    client.clock.advance(0.02)
    with pytest.raises(TimeoutError) as caught:
        await task
    assert isinstance(caught.value, errors.ChatbridgeError)
    assert caught.value.timed_out
    return caught.value


async def read_all(client: Client) -> None:
    async with client.api.stream(STREAM, {}) as events:
        async for _ in events:
            pass


async def test_d3_a_name_that_is_looked_up_for_too_long_is_no_connection() -> None:
    async with client_of((READ, answer(b"{}")), resolver=None, attempts=1) as client:
        call = asyncio.ensure_future(client.api.call(SEND))
        await client.clock.until_waiting(5.0)
        await settle()
        client.clock.advance(5.0)
        with pytest.raises(errors.ConnectFailedTimeout) as caught:
            await call
    assert (Phase.CONNECT, Outcome.NOT_SENT, 0) == (
        caught.value.phase,
        caught.value.outcome,
        client.server.begun,
    )


async def test_d3_no_head_in_time() -> None:
    for kind, cls in ((Kind.SEND, errors.DeliveryUnknownTimeout), (Kind.READ, errors.UnavailableTimeout)):
        async with client_of((READ, STALL), attempts=1, first_byte_timeout=7.0) as client:
            call = client.api.call(Endpoint("x", "POST", "/x", kind, answer=Hi))
            assert cls is type(await timed_out(client, call, 7.0))


async def test_d3_a_body_that_stops() -> None:
    for kind, cls in ((Kind.SEND, errors.AnswerLostTimeout), (Kind.READ, errors.UnavailableTimeout)):
        async with client_of((READ, answer(b"{}")[:-1], STALL), attempts=1, idle_timeout=7.0) as client:
            call = client.api.call(Endpoint("x", "POST", "/x", kind, answer=Hi))
            assert cls is type(await timed_out(client, call, 7.0))


async def test_d3_a_body_that_trickles_may_take_longer_than_the_idle_limit() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    steps = [
        step for gate, chunk in zip(gates, (b"{", b"}", b" ", b" "), strict=True) for step in (gate, chunk)
    ]
    async with client_of((READ, answer(b"    ")[:-4], *steps), idle_timeout=7.0) as client:
        call = asyncio.ensure_future(client.api.call(SEND))
        for gate in gates:
            await client.server.reached.wait()
            client.server.reached.clear()
            await settle()
            client.clock.advance(6.0)
            gate.set()
        assert Hi() == await call


async def test_d3_a_stream_is_idle_without_events_whatever_else_comes() -> None:
    """Blank lines and the beginning of a line are no progress."""
    gates = [asyncio.Event(), asyncio.Event()]
    steps = (EVENT, gates[0], b"\n\n", gates[1], b'{"id":', STALL)
    async with client_of((READ, answer(b"", framed=False), *steps), idle_timeout=7.0) as client:
        call = asyncio.ensure_future(read_all(client))
        for gate in gates:
            await client.server.reached.wait()
            client.server.reached.clear()
            await settle()
            client.clock.advance(3.0)
            gate.set()
        await client.server.reached.wait()
        await settle()
        assert not call.done()
        client.clock.advance(1.5)
        with pytest.raises(errors.StreamCutTimeout) as caught:
            await call
    assert (Phase.EVENTS, "idle") == (caught.value.phase, caught.value.kind)


async def test_d3_the_first_event_has_the_limit_of_the_first_byte() -> None:
    async with client_of((READ, answer(b"", framed=False), STALL), first_byte_timeout=7.0) as client:
        error = await timed_out(client, read_all(client), 7.0)
    assert (errors.StreamCutTimeout, Phase.FIRST_EVENT) == (type(error), error.phase)


async def test_d3_the_readers_own_time_costs_a_stream_nothing() -> None:
    gate = asyncio.Event()
    script = (READ, answer(b"", framed=False), EVENT, EVENT, gate, EVENT, END, FIN)
    async with client_of(script, timeout=100.0) as client, client.api.stream(STREAM, {}) as events:
        count = 0
        async for _ in events:
            count += 1
            client.clock.advance(3600)
            gate.set()
    assert 4 == count


async def test_d1_a_streams_waiting_counts_against_the_deadline() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    steps = [step for gate in gates for step in (gate, EVENT)]
    async with client_of((READ, answer(b"", framed=False), EVENT, *steps, STALL), timeout=100.0) as client:
        call = asyncio.ensure_future(read_all(client))
        for gate in gates:
            await client.server.reached.wait()
            client.server.reached.clear()
            await settle()
            client.clock.advance(30.0)
            gate.set()
        error = await timed_out(client, call, 10.0)
    assert errors.StreamCutTimeout is type(error)


async def test_d1_one_deadline_covers_all_attempts_and_waits() -> None:
    async with client_of((READ, STALL), timeout=100.0, first_byte_timeout=60.0) as client:
        call = asyncio.ensure_future(client.api.call(GET))
        for seconds in (60.0, 39.75):
            await client.server.reached.wait()
            client.server.reached.clear()
            await settle()
            client.clock.advance(seconds)
        with pytest.raises(errors.UnavailableTimeout) as caught:
            await call
    assert 100.0 == caught.value.elapsed
    assert [60.0, 39.75] == [attempt.seconds for attempt in caught.value.attempts]


async def test_d1_the_deadline_around_a_call_counts_if_it_is_sooner() -> None:
    for ambient, limit in ((40.0, 40.0), (400.0, 100.0)):
        async with client_of((READ, STALL), timeout=100.0, attempts=1) as client:
            with clocks.deadline(client.clock.now() + ambient):
                call = client.api.call(SEND)
                assert errors.DeliveryUnknownTimeout is type(await timed_out(client, call, limit))


@pytest.mark.parametrize("left", [-5.0, 0.0, 0.05, 0.0999])
async def test_d2_nothing_is_begun_with_less_than_a_tenth_of_a_second_left(left: float) -> None:
    async with client_of((READ, answer(b"{}"))) as client:
        with clocks.deadline(client.clock.now() + left):
            for call in (lambda: client.api.call(GET), lambda: read_all(client)):
                with pytest.raises(errors.OverloadedTimeout) as caught:
                    await call()
                assert (Phase.QUEUE, Outcome.NOT_SENT) == (caught.value.phase, caught.value.outcome)
        with clocks.deadline(client.clock.now() + 0.11):
            assert Hi() == await client.api.call(GET)
    assert 1 == client.server.begun


async def test_a_timeout_that_comes_before_the_end_of_a_sleep_fires_at_its_own_moment() -> None:
    clock = ManualClock()
    with pytest.raises(TimeoutError):
        async with clock.timeout_at(1030.0):
            await clock.sleep(60.0)
    assert 1030.0 == clock.now()
