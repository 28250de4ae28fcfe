"""Cancelled at fifty random moments of a send and of a stream, by the real clock (C1, C2)."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from chatbridge import Chat, TurnState, connect
from chatbridge.testing.emulator import Emulator, Fault, serve
from storm import APIS

pytestmark = pytest.mark.soak

MOMENTS = 50


async def send(chat: Chat) -> None:
    await chat.send("Hello " * 200)


async def stream(chat: Chat) -> None:
    async with chat.stream("Hello " * 200) as stream:
        async for _ in stream:
            pass


class Server:
    """Counts the connections that an emulator has open, in front of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        upstream = await asyncio.open_connection("127.0.0.1", self.port)
        ways = [
            asyncio.create_task(_copy(reader, upstream[1])),
            asyncio.create_task(_copy(upstream[0], writer)),
        ]
        try:
            await asyncio.wait(ways[:1])
        finally:
            self.open -= 1
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            upstream[1].transport.abort()
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize("asked", [send, stream])
@pytest.mark.parametrize("api", list(APIS))
async def test_it_is_cancelled_the_connection_closed_and_nothing_pending(
    api: str, asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make, options = APIS[api]
    dice, emulator = random.Random(f"{api} {asked.__name__}"), make()
    states: dict[str, int] = {}
    slowest = 0.0
    async with serve(emulator) as served:
        front = Server(int(served.base_url.rsplit(":", 1)[1]))
        server = await asyncio.start_server(front, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(emulator.config(url), key=emulator.key, **options) as bridge:
            chat = await bridge.create()
            for _ in range(MOMENTS):
                waiting = _slow(emulator, dice)
                task = asyncio.create_task(asked(chat))
                await asyncio.sleep(dice.random() * 0.03)
                done = not task.cancel()
                await asyncio.wait([task])
                assert done or task.cancelled()
                begun = time.monotonic()
                # What is not pooled is closed.
                while front.open > _pooled(bridge):
                    await asyncio.sleep(0.001)
                    assert time.monotonic() - begun < 1
                slowest = max(slowest, time.monotonic() - begun)
                waiting.set()
                for turn in await chat.turns():
                    assert TurnState.PENDING is not turn.state
                    await chat.waive(turn)
                (*_, last) = await chat.turns() or [None]
                if last is not None:
                    states[last.state.value] = states.get(last.state.value, 0) + 1
            await asyncio.sleep(0)
        server.close()
    with capsys.disabled():
        print(f"\n{api} {asked.__name__}: closed within {slowest:.3f} s; last turns {states}")  # noqa: T201


def _slow(emulator: Emulator, dice: random.Random) -> asyncio.Event:
    emulator.faults.clear()
    waiting = asyncio.Event()
    if dice.random() < 0.7:
        emulator.fail(Fault(hold=waiting))
    return waiting


def _pooled(bridge: Any) -> int:
    sessions = bridge._transport._sessions.values()
    return sum(len(each) for session in sessions for each in session.connector._conns.values())
