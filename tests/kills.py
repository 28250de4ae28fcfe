"""Processes that are killed while they send to an emulator, and what the store has of their messages."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final

from attrs import define, field

from chatbridge import Chat, Role, Turn, TurnState
from chatbridge.testing.emulator import Emulator, Fault, serve
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator

__all__ = ["Toll", "kills", "settle", "there", "unanswered"]

_POINTS: Final = {
    # The message is recorded, and nothing of it has left.
    "intent": {"unknown"},
    # The server has it, and does nothing with it until the process is dead.
    "asked": {"unknown"},
    # The server has taken it, and its answer has not left.
    "answered": {"unknown"},
    # A part of the answer is here.
    "streaming": {"accepted"},
    # The answer is here, and its transaction not committed.
    "storing": {"unknown", "accepted"},
    # Wherever it comes to.
    "anywhere": set[str](),
}
"""Where a process is killed in a message, and the states in which that may be left there."""

_COMPLETION: Final = "get_completion"

_FAULTS: Final[dict[str, Callable[[], Fault]]] = {
    "asked": lambda: Fault(hold=asyncio.Event()),
    "answered": lambda: Fault(hold=asyncio.Event(), drop="after"),
    "streaming": lambda: Fault(hold=asyncio.Event(), cut_after=3, cut="resume"),
}

# It begins a process for each line that it reads, with everything imported.
NURSERY = """
import asyncio, os, sys, threading
from itertools import count
from chatbridge import TextDelta, TurnState, connect
from chatbridge.history import SQLiteStore
import chatbridge.http
import chatbridge_adapters.h2ogpte

url, key, path, conversation = sys.argv[1:]

def stop():
    print("there", flush=True)
    threading.Event().wait()

class Store(SQLiteStore):
    lease = 3600.0  # Nobody could wait for its end.
    watches = said = False

    def _connect(self, patience):
        connection = super()._connect(patience)
        connection.set_trace_callback(self.trace)
        return connection

    def trace(self, statement):
        self.said = self.said or statement.startswith("INSERT INTO entries")
        if self.watches and self.said and statement == "COMMIT":
            stop()

async def live(life, point, before, streams):
    store = Store(path)
    left = int(before)

    def on_turn(event):
        nonlocal left
        if event.turn.state is TurnState.PENDING:
            print("sends", flush=True)
            left -= 1
            store.watches, store.said = point == "storing" and left < 0, False
            if point == "intent" and left < 0:
                stop()

    async with connect(url, key=key, store=store, on_turn=on_turn) as bridge:
        chat = bridge.open(conversation)
        for turn in await chat.settle(wait=0):
            await chat.waive(turn)
        for number in count():
            text = f"{life} {number}"
            if (number + int(streams)) % 2:
                async with chat.stream(text) as stream:
                    async for event in stream:
                        if point == "streaming" and left < 0 and isinstance(event, TextDelta):
                            while (await chat.turns())[-1].state is not TurnState.ACCEPTED:
                                await asyncio.sleep(0)  # It is written beside the reading.
                            print("there", flush=True)
            else:
                await chat.send(text)

for line in sys.stdin:
    child = os.fork()
    if not child:
        asyncio.run(live(*line.split()))
    print("begins", child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@define
class Toll:
    """
    What became of the messages.

    Attributes:
        killed: How many processes, by the points of their end.
        left: The turns that were then under way, by the point and their state.
        lost: Messages in the conversation without a turn.
        doubled: Messages that are there twice.
        resent: Turns that were sent twice.
        denied: Turns that say they are there, or are not, and it is not so.
        unanswered: Turns that are delivered and whose answer the store does not have.
        damaged: What is wrong with the file.
    """

    killed: Counter[str] = field(factory=Counter[str])
    left: Counter[tuple[str, str]] = field(factory=Counter[tuple[str, str]])
    lost: int = 0
    doubled: int = 0
    resent: int = 0
    denied: int = 0
    unanswered: int = 0
    damaged: list[object] = field(factory=list[object])

    @property
    def missed(self) -> list[str]:
        """The points at which it was not the message under way that the end struck, or not as it may."""
        return [
            point
            for point, states in _POINTS.items()
            if states and self.killed[point] != sum(self.left[point, state] for state in states)
        ]

    def count(self, turns: Iterable[Turn], there: Counter[str]) -> None:
        """Compare what the store says with what is in the conversation."""
        told = {turn.message.text: turn for turn in turns}
        self.lost = len(there.keys() - told.keys())
        self.doubled = sum(count > 1 for count in there.values())
        self.resent = sum(turn.sends > 1 for turn in told.values())
        for text, turn in told.items():
            if turn.state in {TurnState.DELIVERED, TurnState.ACCEPTED}:
                self.denied += text not in there
            elif turn.state in {TurnState.NOT_SENT, TurnState.REFUSED}:
                self.denied += text in there


class _Nursery:
    """The process that begins the others."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self.child = 0

    def begin(self, *words: object) -> None:
        self._stdin.write(f"{' '.join(map(str, words))}\n".encode())
        self.child = 0

    async def hear(self, wanted: str, count: int = 1) -> None:
        """Wait until the child has said *wanted* so often, and is known."""
        while not self.child or count:
            word, *more = (await self._stdout.readline()).decode().split()
            assert word != "ended" or wanted == "ended", "it ended by itself"
            count -= word == wanted
            self.child = int(more[0]) if more else self.child

    async def kill(self) -> None:
        os.kill(self.child, signal.SIGKILL)
        await self.hear("ended")

    async def close(self) -> None:
        self._stdin.close()
        await self.process.wait()


async def kills(folder: Path, seed: str, rounds: int) -> Toll:
    """Kill a process that sends, *rounds* times, at one of the points after the other."""
    chance, toll, path = random.Random(seed), Toll(), folder / "store.db"
    emulator = H2OGPTeEmulator()
    async with serve(emulator) as at, at.connect(store=f"sqlite:///{path}") as bridge:
        chat = await bridge.create()
        arguments = (NURSERY, at.config, emulator.key, str(path), chat.id)
        nursery = _Nursery(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
        for life in range(rounds):
            point = list(_POINTS)[life % len(_POINTS)]
            await _kill(nursery, emulator, life, point, chance)
            toll.killed[point] += 1
            toll.left.update(
                (point, turn.state.value) for turn in await chat.turns() if turn.unsettled and not turn.waived
            )
        await nursery.close()
        await settle(chat)
        turns = await chat.turns()
        toll.count(turns, await there(chat))
        toll.unanswered = await unanswered(chat, turns)
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
        toll.damaged = [
            row for row in (found, *connection.execute("PRAGMA foreign_key_check")) if row != "ok"
        ]
    return toll


async def _kill(nursery: _Nursery, emulator: Emulator, life: int, point: str, chance: random.Random) -> None:
    """Begin a process, and kill it at *point* of a message after some others."""
    before = chance.randrange(4)
    streams = before % 2 == 0 if point == "streaming" else chance.randrange(2)
    fault = Fault()
    emulator.faults.clear()
    if point in _FAULTS:
        emulator.fail(Fault(), operation=_COMPLETION, times=before)
        fault = emulator.fail(_FAULTS[point](), operation=_COMPLETION)
    nursery.begin(life, point, before, int(streams))
    if point == "anywhere":
        await nursery.hear("sends", before + 1)
        for _ in range(chance.randrange(60)):  # The emulator answers meanwhile.
            await asyncio.sleep(0)
    else:
        if fault.hold is not None:
            await nursery.hear("sends", before + 1)
            await fault.reached.wait()
        if point not in {"asked", "answered"}:
            await nursery.hear("there")
    await nursery.kill()
    if fault.hold is not None:
        fault.hold.set()


async def settle(chat: Chat) -> None:
    """Leave no message of the conversation in doubt."""
    for turn in await chat.settle(wait=0):
        await chat.waive(turn)


async def there(chat: Chat) -> Counter[str]:
    """Give the messages that are in the conversation."""
    return Counter([message.text async for message in chat.messages() if message.role is Role.USER])


async def unanswered(chat: Chat, turns: Iterable[Turn]) -> int:
    """Count the turns that are delivered without an answer behind their message in the store."""
    store, ledger = chat.bridge.store, chat.bridge.deliveries.ledger
    kept = await store.find(ledger.remote(chat.id))
    assert kept is not None
    said = [message async for message in store.messages(kept.id)]
    answered = {one.text for one, two in pairwise(said) if two.role is Role.ASSISTANT}
    return sum(turn.state is TurnState.DELIVERED and turn.message.text not in answered for turn in turns)
