"""Calls side by side: how many at once, in which order, and what cancelling and closing do to them."""

from __future__ import annotations

import asyncio
import gc

import pytest
from attrs import frozen

from chatbridge import errors
from chatbridge.errors import ChatbridgeError, Outcome, Phase
from chatbridge.http import Endpoint, JsonLines, Kind
from chatbridge.http.limiter import Limiter
from chatbridge.retry import Failure
from chatbridge.testing.clock import ManualClock
from fault_server import Client, Script, Step, answer, client_of, settle

READ, READ_HEAD, RESET, FIN, STALL, HANG = Step

FAR = 1e9


@frozen
class Hi:
    end: bool = False


SEND = Endpoint("say", "POST", "/say", answer=Hi)
GET = Endpoint("get", "GET", "/get", Kind.READ, answer=Hi)
COMPLETE = Endpoint("complete", "POST", "/complete", Kind.COMPLETE, answer=Hi)
STREAM = Endpoint("ask", "POST", "/ask", answer=Hi, framing=JsonLines, ends=lambda hi: hi.end)
OK: Script = (READ, answer(b"{}"))
STREAMING: Script = (READ, answer(b"{}\n", framed=False), STALL)


async def test_k1_the_places_are_given_in_the_order_of_asking() -> None:
    limiter, order = Limiter(2, ManualClock()), list[int]()

    async def call(number: int) -> None:
        await limiter.acquire(FAR)
        order.append(number)

    calls = [asyncio.ensure_future(call(number)) for number in range(6)]
    for given in (2, 3, 4, 5, 6):
        await settle()
        assert list(range(given)) == order
        late = asyncio.ensure_future(call(given + 4))
        calls.append(late)
        limiter.release()
    await settle()
    assert list(range(7)) == order
    for one in calls:
        one.cancel()


async def test_k1_the_queue_has_an_end() -> None:
    limiter = Limiter(1, ManualClock())
    await limiter.acquire(FAR)
    waiting = [asyncio.ensure_future(limiter.acquire(FAR)) for _ in range(Limiter.LONGEST_QUEUE)]
    await settle()
    with pytest.raises(Failure, match="64 calls wait already") as caught:
        await limiter.acquire(FAR)
    assert (Phase.QUEUE, False) == (caught.value.phase, caught.value.timed_out)
    waiting.pop().cancel()
    await settle()
    waiting.append(asyncio.ensure_future(limiter.acquire(FAR)))
    for one in waiting:
        limiter.release()
        await one


async def test_k1_who_is_cancelled_or_late_in_the_queue_holds_up_nobody() -> None:
    clock = ManualClock()
    limiter = Limiter(1, clock)
    await limiter.acquire(FAR)
    cancelled, late, last = (
        asyncio.ensure_future(limiter.acquire(deadline)) for deadline in (FAR, clock.now() + 5, FAR)
    )
    await settle()
    cancelled.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await cancelled
    clock.advance(5)
    with pytest.raises(Failure) as caught:
        await late
    assert (Phase.QUEUE, True) == (caught.value.phase, caught.value.timed_out)
    limiter.release()
    await last


async def test_c5_closing_turns_away_all_who_wait_and_who_come_later() -> None:
    clock = ManualClock()
    limiter = Limiter(1, clock)
    await limiter.acquire(FAR)
    soon = clock.now() + 5
    waiting = [asyncio.ensure_future(limiter.acquire(deadline)) for deadline in (FAR, soon, FAR)]
    await settle()
    clock.advance(5)
    asyncio.get_running_loop().call_soon(limiter.close)  # As one deadline passes.
    for one in (*waiting, asyncio.ensure_future(limiter.acquire(FAR))):
        with pytest.raises(Failure, match="the bridge is closed") as caught:
            await one
        assert Phase.LOCAL is caught.value.phase


async def test_c5_closing_frees_who_waits_for_a_stream_that_is_never_left() -> None:
    async with client_of(STREAMING, concurrency=1) as client, client.api.stream(STREAM):
        call = asyncio.ensure_future(client.api.call(SEND))
        await settle()
        await client.api.transport.close()
        with pytest.raises(errors.UsageError, match="the bridge is closed"):
            await call


async def test_k1_a_place_given_to_a_call_as_it_is_cancelled_goes_to_the_next() -> None:
    limiter = Limiter(1, ManualClock())
    await limiter.acquire(FAR)
    first, second = (asyncio.ensure_future(limiter.acquire(FAR)) for _ in range(2))
    await settle()
    limiter.release()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second


async def test_k1_the_server_never_sees_more_than_the_limit() -> None:
    gate = asyncio.Event()
    async with client_of((READ, gate, answer(b"{}")), concurrency=3) as client:
        calls = [asyncio.ensure_future(client.api.call(SEND)) for _ in range(20)]
        await client.server.reached.wait()
        await settle()
        assert 3 == client.server.begun
        gate.set()
        await asyncio.gather(*calls)
    assert (20, 3) == (client.server.begun, client.server.busiest)


async def test_k1_the_sixty_fifth_that_waits_is_turned_away_and_nothing_was_sent() -> None:
    gate = asyncio.Event()
    async with client_of((READ, gate, answer(b"{}")), concurrency=1) as client:
        calls = [asyncio.ensure_future(client.api.call(GET)) for _ in range(65)]
        await client.server.reached.wait()
        with pytest.raises(errors.Overloaded) as caught:
            await client.api.call(SEND)
        assert (Outcome.NOT_SENT, True, 1) == (
            caught.value.outcome,
            caught.value.retryable,
            len(caught.value.attempts),
        )
        gate.set()
        await asyncio.gather(*calls)
    assert 65 == client.server.begun


async def test_k1_who_was_given_a_place_and_has_not_run_yet_is_not_counted_as_waiting() -> None:
    limiter = Limiter(2, ManualClock())
    await limiter.acquire(FAR)
    await limiter.acquire(FAR)
    waiting = [asyncio.ensure_future(limiter.acquire(FAR)) for _ in range(limiter.LONGEST_QUEUE)]
    await settle()
    limiter.release()
    another = asyncio.ensure_future(limiter.acquire(FAR))
    await settle()
    assert [True, False] == [waiting[0].done(), another.done()]
    for _ in range(len(waiting)):
        limiter.release()
    await asyncio.gather(*waiting, another)


async def test_k1_the_deadline_runs_in_the_queue() -> None:
    async with client_of(STREAMING, concurrency=1, timeout=50.0) as client, client.api.stream(STREAM):
        for limit in (50.0, 49.95):
            call = asyncio.ensure_future(client.api.call(GET))
            await settle()
            client.clock.advance(limit)
            if limit < 50:
                await settle()
                assert not call.done()
                client.clock.advance(0.1)
            with pytest.raises(errors.OverloadedTimeout):
                await call
    assert 1 == client.server.begun


async def test_d2_a_place_that_comes_too_late_is_not_used() -> None:
    async with client_of(STREAMING, OK, concurrency=1, timeout=50.0) as client:
        async with client.api.stream(STREAM):
            call = asyncio.ensure_future(client.api.call(GET))
            await settle()
            client.clock.advance(49.95)
        with pytest.raises(errors.OverloadedTimeout):
            await call
        assert 1 == client.server.begun
        assert Hi() == await client.api.call(GET)


async def test_an_open_stream_holds_its_place_until_it_is_left() -> None:
    async with client_of(STREAMING, OK, concurrency=1) as client:
        async with client.api.stream(STREAM) as events:
            assert Hi() == await anext(events)
            call = asyncio.ensure_future(client.api.call(GET))
            await settle()
            assert (False, 1) == (call.done(), client.server.begun)
        assert Hi() == await call
        await client.server.left.wait()


@pytest.mark.parametrize(
    "body", [answer(b"", "500 No"), answer(b"{}\n{]"), answer(b""), answer(b'{"end":true}')]
)
async def test_however_a_stream_ends_its_place_is_given_back_once(body: bytes) -> None:
    async with client_of((READ, body), concurrency=2) as client:
        for _ in range(3):
            try:
                async with client.api.stream(STREAM) as events:
                    async for _ in events:
                        pass
            except ChatbridgeError:
                pass
        client.server.scripts = ((READ, HANG),)
        calls = [asyncio.ensure_future(client.api.call(GET)) for _ in range(3)]
        await client.server.reached.wait()
        await settle()
        assert 3 + 2 == client.server.begun
        for call in calls:
            call.cancel()


async def test_k2_a_call_that_is_slow_or_cancelled_holds_up_no_other() -> None:
    async with client_of((READ, STALL), OK) as client:
        slow = asyncio.ensure_future(client.api.call(SEND))
        await client.server.reached.wait()
        assert Hi() == await client.api.call(GET)
        slow.cancel()
        assert Hi() == await client.api.call(GET)
        assert slow.cancelled()


@pytest.mark.parametrize(
    "script",
    [(READ, STALL), (READ, answer(b"{}")[:-1], STALL), (READ, answer(b"", "400 No", "A: b")[:-4], STALL)],
)
async def test_c1_c2_cancelling_comes_out_unchanged_and_the_server_sees_the_end(script: Script) -> None:
    async with client_of(script, concurrency=1) as client:
        for _ in range(2):
            client.server.reached.clear()
            client.server.left.clear()
            call = asyncio.ensure_future(client.api.call(GET))
            await client.server.reached.wait()
            await settle()
            call.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough") as caught:
                await call
            assert "aiohttp" not in str([entry.path for entry in caught.traceback])
            await client.server.left.wait()
    assert 2 == client.server.begun


async def test_c1_the_callers_own_time_limit_is_the_callers() -> None:
    async with client_of((READ, STALL)) as client:
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(client.api.call(SEND), 0)
        assert not isinstance(caught.value, ChatbridgeError)
        with pytest.raises(ExceptionGroup) as group:
            await in_group(client)
        assert [KeyError] == [type(error) for error in group.value.exceptions]


async def in_group(client: Client) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(client.api.call(SEND))
        await client.server.reached.wait()
        raise KeyError


async def test_c5_closing_ends_calls_under_way_with_an_error_of_ours() -> None:
    """Whatever they wait for: a place, a name, the head, the body, or the next event."""
    half: Script = (READ, answer(b"{}")[:-1], STALL)
    for script, kind in (((READ, STALL), errors.DeliveryUnknown), (half, errors.AnswerLost)):
        async with client_of(script, concurrency=1) as client:
            call = asyncio.ensure_future(client.api.call(SEND))
            await client.server.reached.wait()
            queued = asyncio.ensure_future(client.api.call(GET))
            await settle()
            await client.api.transport.close()
            with pytest.raises(kind, match=r"acme say: the bridge was closed$"):
                await call
            with pytest.raises(errors.UsageError, match="closed"):
                await queued
            await client.server.left.wait()
        assert 1 == client.server.begun


@pytest.mark.parametrize("endpoint", [GET, COMPLETE])
async def test_c5_what_closing_broke_is_not_repeated_and_stays_in_doubt(endpoint: Endpoint[Hi]) -> None:
    async with client_of((READ, STALL)) as client:
        call = asyncio.ensure_future(client.api.call(endpoint))
        await client.server.reached.wait()
        await client.api.transport.close()
        with pytest.raises(
            (errors.Unavailable, errors.DeliveryUnknown), match="the bridge was closed"
        ) as caught:
            await call
    assert (Outcome.UNKNOWN, [], 1) == (caught.value.outcome, client.clock.slept, client.server.begun)


async def test_c5_closing_during_a_name_lookup_is_not_mistaken_for_cancelling() -> None:
    async with client_of(OK, resolver=None) as client:
        calls = [asyncio.ensure_future(client.api.call(SEND)) for _ in range(2)]
        await client.clock.until_waiting(5.0)
        await settle()
        calls[1].cancel("enough")
        await client.api.transport.close()
        with pytest.raises(errors.ConnectFailed, match="the bridge was closed"):
            await calls[0]
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await calls[1]
    assert 0 == client.server.begun


async def test_c5_closing_ends_a_stream() -> None:
    async with client_of(STREAMING) as client, client.api.stream(STREAM) as events:
        await anext(events)
        following = asyncio.ensure_future(anext(events))
        await settle()
        await client.api.transport.close()
        with pytest.raises(errors.StreamCut, match="the bridge was closed"):
            await following
        await client.server.left.wait()


async def test_c5_once_closed_every_call_is_a_usage_error_and_closing_again_is_nothing() -> None:
    async with client_of(OK) as client:
        await client.api.call(GET)
        await client.api.call(SEND)
        for _ in range(2):
            await client.api.transport.close()
        with pytest.raises(errors.UsageError, match="closed"):
            await client.api.call(GET)
        with pytest.raises(errors.UsageError, match="closed"):
            await client.api.stream(STREAM).__aenter__()
    assert 2 == client.server.begun


async def test_k3_nothing_is_left_behind() -> None:
    """Neither tasks, nor connections, nor (as warnings are errors) anything that should have been closed."""
    before = len(asyncio.all_tasks())
    async with client_of(OK, (READ, RESET), (READ, answer(b"", "500 No"))) as client:
        for _ in range(20):
            await asyncio.gather(*(client.api.call(GET) for _ in range(8)), return_exceptions=True)
            with pytest.raises(ChatbridgeError):
                await client.api.stream(STREAM).__aenter__()
        await client.api.transport.close()
        await settle()
        assert 0 == client.server.open
    assert before == len(asyncio.all_tasks())
    gc.collect()
