"""
What chatbridge costs beside plain aiohttp, as ratios of processor time in the same run.

    python tests/benchmarks/bench.py [--rounds 7] [--calls 2000]

Both sides talk to the same server in another process, in turns; the median of the ratios
counts. A streamed chunk is one line of JSON in a burst; plain aiohttp reads it line by line and parses it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from chatbridge import Chat, TextDelta, connect

CHUNKS = 1000
Work = Callable[[], Awaitable[None]]


async def measure(work: Work, calls: int, at_once: int) -> float:
    """Processor time of one call, in microseconds."""

    async def worker(count: int) -> None:
        for _ in range(count):
            await work()

    begun = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker(calls // at_once))
    return (time.process_time() - begun) / (calls // at_once * at_once) * 1e6


def plain(session: aiohttp.ClientSession, url: str) -> tuple[Work, Work]:
    """Do the calls with aiohttp alone."""
    headers = {"Authorization": "Bearer sk-benchmark"}

    async def whole() -> None:
        async with session.post(url, json={"message": "When?"}, headers=headers) as response:
            response.raise_for_status()
            answer = await response.json()
            assert answer["body"]

    async def streamed() -> None:
        async with session.post(url, json={"message": "When?", "stream": True}, headers=headers) as response:
            response.raise_for_status()
            count = 0
            async for line in response.content:
                count += bool(json.loads(line)["body"])
            assert count == CHUNKS + 1

    return whole, streamed


def bridged(chats: list[Chat]) -> tuple[Work, Work]:
    """Do them with chatbridge, each task in a conversation of its own."""
    free = list(chats)

    async def whole() -> None:
        chat = free.pop()
        reply = await chat.send("When?")
        assert reply.text
        free.append(chat)

    async def streamed() -> None:
        chat, count = free.pop(), 0
        async with chat.stream("When?") as stream:
            async for event in stream:
                count += isinstance(event, TextDelta)
        assert count == CHUNKS
        free.append(chat)

    return whole, streamed


async def compare(port: int, rounds: int, calls: int) -> None:
    """Print the ratios."""
    base = f"http://127.0.0.1:{port}/api/v1"
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        connect(f"h2ogpte+{base}", key="sk-benchmark", concurrency=64) as bridge,
    ):
        theirs = plain(session, f"{base}/chats/c/completions")
        ours = bridged([bridge.open(f"c{number}") for number in range(64)])
        for index, (name, per, amount) in enumerate(
            [("call", 1, calls), ("streamed chunk", CHUNKS, max(64, calls // 20))]
        ):
            for at_once in (1, 64):
                pairs: list[tuple[float, float]] = []
                for _ in range(rounds + 1):
                    a = await measure(theirs[index], amount, at_once)
                    b = await measure(ours[index], amount, at_once)
                    pairs.append((a / per, b / per))
                pairs = pairs[1:]  # The first round warms up.
                ratio = statistics.median(b / a for a, b in pairs)
                a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
                costs = f"aiohttp {a:7.2f} us, chatbridge {b:7.2f} us, ratio {ratio:.2f}"
                print(f"{name:15} {at_once:3} at once: {costs}")


def fresh(code: str, *arguments: str) -> float:
    """Wall time of *code* in a new interpreter, best of five, in milliseconds."""
    program = (
        f"import time, sys; begun = time.perf_counter()\n{code}\nprint((time.perf_counter() - begun) * 1000)"
    )
    command = [sys.executable, "-c", program, *arguments]
    return min(float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(5))


FIRST_PLAIN = """
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{sys.argv[1]}/api/v1/chats/c/completions"
        async with session.post(url, json={"message": "When?"}) as response:
            await response.json()
asyncio.run(main())
"""
FIRST_BRIDGED = """
import asyncio
from chatbridge import connect
async def main():
    async with connect(f"h2ogpte+http://127.0.0.1:{sys.argv[1]}", key="k") as bridge:
        await bridge.open("c").send("When?")
asyncio.run(main())
"""


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2000)
    arguments = parser.parse_args()
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        imports = fresh("import aiohttp"), fresh("import chatbridge")
        print(f"import: aiohttp {imports[0]:.0f} ms, chatbridge {imports[1]:.0f} ms")
        first = fresh(FIRST_PLAIN, str(port)), fresh(FIRST_BRIDGED, str(port))
        print(f"import and first call: aiohttp {first[0]:.0f} ms, chatbridge {first[1]:.0f} ms")
        asyncio.run(compare(port, arguments.rounds, arguments.calls))
        server.terminate()


if __name__ == "__main__":
    main()
