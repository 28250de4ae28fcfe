"""
What chatbridge costs beside plain aiohttp, as ratios of processor time in the same run.

    python tests/benchmarks/bench.py [--rounds 7] [--calls 2000]

Both sides talk to the same server in another process, in turns; the median of the ratios
counts. A streamed chunk is one line of JSON in a burst; plain aiohttp reads it line by line and parses it.
Where the API keeps nothing, both sides keep the conversation, send all of it each time, and begin another
after fifty answers, and each one begins empty or with a thousand messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from chatbridge import Bridge, Chat, Message, TextDelta, connect
from chatbridge.history import MemoryStore

CHUNKS = 1000
TURNS = 50
TEXT = "The maples of Kyoto turn in the second half of November, a little later in the valley. "
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


def plain_completions(session: aiohttp.ClientSession, url: str, seed: Sequence[Message]) -> tuple[Work, Work]:
    """Do the same with an API that keeps nothing."""
    headers = {"Authorization": "Bearer sk-benchmark"}
    begin = [{"role": each.role.value, "content": each.text} for each in seed]
    free: list[list[dict[str, str]]] = []

    async def whole() -> None:
        messages = free.pop() if free else list(begin)
        messages.append({"role": "user", "content": "When?"})
        request = {"model": "m", "messages": messages}
        async with session.post(url, json=request, headers=headers) as response:
            response.raise_for_status()
            answer = await response.json()
            messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        if len(messages) < len(begin) + TURNS * 2:
            free.append(messages)

    async def streamed() -> None:
        messages = [*begin, {"role": "user", "content": "When?"}]
        request = {"model": "m", "messages": messages, "stream": True}
        async with session.post(url, json=request, headers=headers) as response:
            response.raise_for_status()
            pieces: list[str] = [
                json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                async for line in response.content
                if line.startswith(b"data: {")
            ]
            messages.append({"role": "assistant", "content": "".join(pieces)})
            assert len(pieces) == CHUNKS + 1

    return whole, streamed


def bridged_completions(bridge: Bridge, seed: Sequence[Message]) -> tuple[Work, Work]:
    """Do them with chatbridge."""
    free: list[tuple[Chat, int]] = []

    async def whole() -> None:
        chat, answered = free.pop() if free else (await bridge.create(history=seed), 0)
        reply = await chat.send("When?")
        assert reply.text
        if answered + 1 < TURNS:
            free.append((chat, answered + 1))

    async def streamed() -> None:
        chat, count = await bridge.create(history=seed), 0
        async with chat.stream("When?") as stream:
            async for event in stream:
                count += isinstance(event, TextDelta)
        assert count == CHUNKS

    return whole, streamed


async def ratio(name: str, rounds: int, amount: int, works: tuple[Work, Work], per: int = 1) -> None:
    """Print what *works*, theirs and ours, cost, one at once and 64."""
    for at_once in (1, 64):
        pairs: list[tuple[float, float]] = []
        for _ in range(rounds + 1):
            a, b = [await measure(work, amount, at_once) / per for work in works]
            pairs.append((a, b))
        pairs = pairs[1:]  # The first round warms up.
        median = statistics.median(b / a for a, b in pairs)
        a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
        costs = f"aiohttp {a:7.2f} us, chatbridge {b:7.2f} us, ratio {median:.2f}"
        print(f"{name:32} {at_once:3} at once: {costs}")


async def compare(port: int, rounds: int, calls: int) -> None:
    """Print the ratios."""
    host = f"http://127.0.0.1:{port}"
    few = max(64, calls // 20)
    said = [Message.user("Which trees, and where do they stand?"), Message.assistant(TEXT)]
    options: dict[str, Any] = {"key": "sk-benchmark", "concurrency": 64}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        connect(f"h2ogpte+{host}/api/v1", **options) as keeping,
        connect(f"openai+{host}/v1?model=m", store=MemoryStore(keeps=10**6), **options) as forgetful,
    ):
        whole, streamed = zip(
            plain(session, f"{host}/api/v1/chats/c/completions"),
            bridged([keeping.open(f"c{number}") for number in range(64)]),
            strict=True,
        )
        await ratio("call", rounds, calls, whole)
        await ratio("streamed chunk", rounds, few, streamed, CHUNKS)
        for name, seed in {"nothing kept": [], "nothing kept, 1,000 messages": said * 500}.items():
            whole, streamed = zip(
                plain_completions(session, f"{host}/v1/chat/completions", seed),
                bridged_completions(forgetful, seed),
                strict=True,
            )
            await ratio(f"call, {name}", rounds, few if seed else calls, whole)
            if not seed:
                await ratio(f"chunk, {name}", rounds, few, streamed, CHUNKS)


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
