"""
What a store costs when it is full, as ratios of what it costs with little in it.

    python tests/benchmarks/stores.py [--store sqlite:///DIRECTORY/{}.db] [--many 100000] [--rounds 200]

`{}` in the string is replaced by `few` and `many`: one store with ten conversations, of which one has ten
messages, and one with as many as said. Both are opened, written to and read in turns; the medians count. At
the end the whole history of the large one is read, and the most memory that this took is told. What a send
costs is in bench.py: a bridge has a store in memory by default.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from attrs import evolve

from chatbridge import Conversation, Message, Reply, Turn, TurnState
from chatbridge.history import Remote, Store, open_store

FEW = 10
AT_ONCE = 500
LONG = Remote("bench", "long")
ANSWER = Reply(
    [Message.assistant("The maples turn in the third week of November, a little later by the river.")]
)


def exchange(number: int) -> Turn:
    """Make a message that is about to leave."""
    message = Message.user(f"When do the maples turn? {number}")
    return Turn(f"turn-{number}-{time.time_ns()}", LONG.id, message, datetime.now(UTC))


async def fill(place: str, count: int) -> None:
    """Make *count* conversations and, in one more, *count* messages."""
    async with open_store(place) as store:
        for start in range(0, count, AT_ONCE):
            batch = range(start, min(start + AT_ONCE, count))
            await store.keep(LONG, messages=[Message.user(f"Message {number}, of many") for number in batch])
            for number in batch:
                await store.keep(Remote("bench", f"c{number}"), Conversation(f"c{number}", f"Talk {number}"))


async def opening(place: str, _: int) -> None:
    """Open the store and find the conversation."""
    async with open_store(place) as store:
        assert await store.find(LONG)


async def send(store: Store, number: int) -> None:
    """Do what a send does: hold, record, record the answer and release."""
    turn = exchange(number)
    await store.hold(LONG, "bench")
    await store.turns(LONG, unsettled=True)
    await store.record(LONG, turn, holder="bench")
    await store.record(LONG, evolve(turn, state=TurnState.DELIVERED), ANSWER, holder="bench", last=True)


async def last_page(store: Store, _: int) -> None:
    """Read the last ten messages."""
    kept = await store.find(LONG)
    assert kept is not None
    assert 10 == len([each async for each in store.messages(kept.id, limit=10, newest_first=True)])


async def compare(name: str, steps: Sequence[Callable[[int], Awaitable[None]]], rounds: int) -> None:
    """Time *steps*, one for each store, in turns, and print the medians and their ratio."""
    times: list[list[float]] = [[], []]
    for number in range(rounds):
        for step, taken in zip(steps, times, strict=True):
            begun = time.perf_counter()
            await step(number)
            taken.append((time.perf_counter() - begun) * 1e3)
    few, many = (statistics.median(each) for each in times)
    print(f"{name:14} few {few:8.3f} ms, many {many:8.3f} ms, ratio {many / few:.2f}")


async def whole(store: Store) -> None:
    """Read everything, and tell how much memory that took at once."""
    kept = await store.find(LONG)
    assert kept is not None
    tracemalloc.start()
    begun = time.perf_counter()
    count = 0
    async for _ in store.messages(kept.id):
        count += 1
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    seconds = time.perf_counter() - begun
    print(f"full read      {count} messages in {seconds:.1f} s (traced), peak {peak:.1f} MiB")


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store")
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.store or f"sqlite:///{Path(folder)}/{{}}.db"
        places = [place.replace("{}", size) for size in ("few", "many")]
        for each, count in zip(places, (FEW, arguments.many), strict=True):
            begun = time.perf_counter()
            await fill(each, count)
            print(f"filled with {count} in {time.perf_counter() - begun:.1f} s", file=sys.stderr)
        await compare("open and find", [partial(opening, each) for each in places], arguments.rounds)
        async with open_store(places[0]) as few, open_store(places[1]) as many:
            await compare("send", [partial(send, few), partial(send, many)], arguments.rounds)
            await compare("last page", [partial(last_page, few), partial(last_page, many)], arguments.rounds)
            await whole(many)


if __name__ == "__main__":
    asyncio.run(main())
