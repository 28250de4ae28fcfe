"""Each fault of the wire in front of each emulator: what was delivered, and what is said of it (S1, M3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from chatbridge import Chat, ChatbridgeError, Outcome, Reply, Role, TurnState, connect
from chatbridge.backend import SettleBy
from chatbridge.errors import Phase
from chatbridge.testing.emulator import Emulator, serve
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from fault_proxy import FaultProxy, Wrong
from fault_server import SteppingClock, settle
from storm import APIS


class Clock(SteppingClock):
    """A clock whose sleeps let a late request go on after a while."""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__()
        self.proxy = proxy

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self.now() > 1005:
            self.proxy.go_on.set()
            for _ in range(50):
                await asyncio.sleep(0)


@asynccontextmanager
async def line(api: str) -> AsyncGenerator[tuple[Chat, Emulator, FaultProxy, Clock]]:
    make, settings = APIS[api]
    emulator = make()
    async with serve(emulator) as served, FaultProxy(served.base_url) as proxy:
        clock = Clock(proxy)
        options: dict[str, Any] = {"key": emulator.key, "clock": clock, **settings}
        async with connect(emulator.config(proxy.url), **options) as bridge:
            yield await bridge.create(), emulator, proxy, clock


async def send(chat: Chat) -> Reply:
    return await chat.send("Hello")


async def stream(chat: Chat) -> Reply:
    async with chat.stream("Hello") as events:
        async for _ in events:
            pass
    return events.reply


async def through(call: Any, proxy: FaultProxy, clock: Clock) -> Reply | ChatbridgeError:
    """Await *call*; whenever the proxy is silent, let the time pass that is being waited."""
    task = asyncio.ensure_future(call)
    while not task.done():
        await asyncio.sleep(0)
        if proxy.reached.is_set():
            for _ in range(30):
                await asyncio.sleep(0)
            proxy.reached.clear()
            clock.advance(next((each for each in (60.0, 300.0) if clock.waits(each)), 0.0))
    try:
        result: Reply = task.result()
    except ChatbridgeError as error:
        return error
    return result


@pytest.mark.parametrize("asked", [send, stream])
@pytest.mark.parametrize("wrong", list(Wrong))
@pytest.mark.parametrize("api", list(APIS))
async def test_a_message_is_delivered_once_and_what_is_said_of_it_is_true(
    api: str, wrong: Wrong, asked: Any
) -> None:
    async with line(api) as (chat, _, proxy, clock):
        proxy.delivered.clear()
        proxy.then([wrong])
        result = await through(asked(chat), proxy, clock)
        proxy.go_on.set()
        await settle()

        sent = [request for request in proxy.delivered if b"Hello" in request.body]
        again = wrong is Wrong.BUSY  # The one refusal after which it is sent again at once.
        assert (1 if wrong.delivers or again else 0) == len(sent)
        (turn,) = await chat.turns()
        can_look = SettleBy.READ_BACK in chat.bridge.profile.settle_by
        if isinstance(result, Reply):
            assert TurnState.DELIVERED is turn.state
            assert "Hello" in result.text
            assert result.recovered <= can_look
        else:
            assert turn == result.turn
            assert turn.state.value == result.outcome.value
        if turn.state in {TurnState.NOT_SENT, TurnState.REFUSED}:
            assert 0 == len(sent)
        if wrong.delivers and can_look:
            if turn.partial:  # Nothing is looked for by itself once text was handed out.
                (turn,) = await chat.settle()
                assert turn.reply is not None
                assert "Hello" in turn.reply.text
            assert TurnState.DELIVERED is turn.state
            texts = [message.text async for message in chat.messages() if message.role is Role.USER]
            assert ["Hello"] == texts


@pytest.mark.parametrize("wrong", list(Wrong))
async def test_a_read_is_repeated_until_it_succeeds(wrong: Wrong) -> None:
    async with line("h2ogpte") as (chat, _, proxy, clock):
        proxy.then([wrong])
        proxy.go_on.set()
        task = asyncio.ensure_future(chat.refresh())
        while not task.done():
            await asyncio.sleep(0)
            if proxy.reached.is_set():
                proxy.reached.clear()
                for _ in range(30):
                    await asyncio.sleep(0)
                clock.advance(next((each for each in (60.0, 300.0) if clock.waits(each)), 0.0))
        once = {Wrong.REDIRECT: Outcome.REFUSED, Wrong.GZIP: Outcome.ACCEPTED}
        if wrong in once:
            with pytest.raises(ChatbridgeError) as caught:
                await task
            assert once[wrong] is caught.value.outcome
            if wrong is Wrong.GZIP:
                assert Phase.CONTENT is caught.value.phase
        else:
            assert chat.id == (await task).id


async def test_without_a_plan_the_proxy_changes_nothing() -> None:
    emulator = H2OGPTeEmulator()
    async with (
        serve(emulator) as served,
        FaultProxy(served.base_url) as proxy,
        aiohttp.ClientSession() as session,
    ):
        told: list[tuple[int, bytes]] = []
        for url in (served.base_url, proxy.url):
            for headers in ({}, {"Authorization": f"Bearer {emulator.key}"}):
                async with session.get(f"{url}{emulator.base_path}/chats", headers=headers) as answer:
                    told.append((answer.status, await answer.read()))
        assert told[:2] == told[2:]
        assert 2 == len(proxy.delivered)
        assert proxy.delivered == proxy.received
