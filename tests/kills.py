"""Processes that are killed while they send to an emulator, and what the store has of their messages."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from attrs import define, field

from chatbridge import Chat, Role, Turn, TurnState
from chatbridge.testing.emulator import serve
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator

__all__ = ["Toll", "kills"]

# It begins a process for each line that it reads, with everything imported.
NURSERY = """
import asyncio, os, sys
from itertools import count
from chatbridge import Chat, connect
import chatbridge.history, chatbridge.http
import chatbridge_adapters.h2ogpte

url, key, store, conversation = sys.argv[1:]

async def send(life):
    async with connect(url, key=key, store=store) as bridge:
        chat = bridge.open(conversation)
        for turn in await chat.settle(wait=0):
            await chat.waive(turn)
        for number in count():
            text = f"{life} {number}"
            print("sends", flush=True)
            if number % 2:
                async with chat.stream(text) as stream:
                    async for _ in stream:
                        pass
            else:
                await chat.send(text)

for line in sys.stdin:
    child = os.fork()
    if not child:
        asyncio.run(send(line.strip()))
    print("begins", child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@define
class Toll:
    """
    What became of the messages.

    Attributes:
        killed: How many processes.
        states: The turns by their states, as the processes left them.
        lost: Messages in the conversation without a turn.
        doubled: Messages that are there twice.
        resent: Turns that were sent twice.
        denied: Turns that say they are there, or are not, and it is not so.
        damaged: What is wrong with the file.
    """

    killed: int = 0
    states: Counter[str] = field(factory=Counter[str])
    lost: int = 0
    doubled: int = 0
    resent: int = 0
    denied: int = 0
    damaged: list[object] = field(factory=list[object])

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


async def kills(folder: Path, seed: str, rounds: int) -> Toll:
    """Kill a process that sends, *rounds* times, each after some messages and somewhere within one."""
    chance, toll, path = random.Random(seed), Toll(), folder / "store.db"
    async with serve(H2OGPTeEmulator()) as at, at.connect(store=f"sqlite:///{path}") as bridge:
        chat = await bridge.create()
        nursery = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", NURSERY, at.config, at.emulator.key, f"sqlite:///{path}", chat.id),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for life in range(rounds):
            nursery.stdin.write(f"{life}\n".encode())
            child, sends = 0, chance.randrange(1, 6)
            while not child or sends:
                word, *more = (await nursery.stdout.readline()).decode().split()
                sends -= word == "sends"
                child = int(more[0]) if more else child
            for _ in range(chance.randrange(60)):  # The emulator answers meanwhile.
                await asyncio.sleep(0)
            os.kill(child, signal.SIGKILL)
            while await nursery.stdout.readline() != b"ended\n":
                pass
            toll.killed += 1
            toll.states.update(
                turn.state for turn in await chat.turns() if turn.unsettled and not turn.waived
            )
        nursery.stdin.close()
        await nursery.wait()
        await _settle(chat)
        toll.count(await chat.turns(), await _there(chat))
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
        toll.damaged = [
            row for row in (found, *connection.execute("PRAGMA foreign_key_check")) if row != "ok"
        ]
    return toll


async def _settle(chat: Chat) -> None:
    for turn in await chat.settle(wait=0):
        await chat.waive(turn)


async def _there(chat: Chat) -> Counter[str]:
    return Counter([message.text async for message in chat.messages() if message.role is Role.USER])
