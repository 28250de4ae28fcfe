"""Processes that send to one conversation at the same time, by one store, and are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self

from attrs import define, field

from chatbridge.testing.emulator import serve
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from kills import Toll, settle, there, unanswered

__all__ = ["rivals"]

# It begins a process for each line that it reads, with everything imported, and tells of all they do.
NURSERY = """
import asyncio, os, signal, sys
from itertools import count
from chatbridge import Overloaded, UnsettledTurn, connect
import chatbridge.history, chatbridge.http
import chatbridge_adapters.h2ogpte

url, key, store, conversation = sys.argv[1:]

def tell(word, process):
    os.write(1, f"{word} {process}\\n".encode())

async def say(chat, number, text):
    tell("sends", os.getpid())
    if number % 2:
        async with chat.stream(text) as stream:
            async for _ in stream:
                pass
    else:
        await chat.send(text)

async def clear(chat):
    while True:
        try:
            for turn in await chat.settle(wait=0):
                await chat.waive(turn)
            return
        except Overloaded:  # Another process is sending.
            await asyncio.sleep(0.01)

async def send(life):
    async with connect(url, key=key, store=store) as bridge:
        chat = bridge.open(conversation)
        for number in count():
            while True:
                try:
                    await say(chat, number, f"{life} {number}")
                    break
                except UnsettledTurn:  # Of a process that was killed.
                    await clear(chat)

def reap(*_):
    while True:
        try:
            child, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not child:
            return
        tell("ended", child)

signal.signal(signal.SIGCHLD, reap)
for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asyncio.run(send(line.strip()))
    tell("begins", child)
"""


# Seconds, in which a process gets some way with a message: how far does not matter, but it should vary.
LONGEST_WAIT = 0.02


@define
class Nursery:
    """
    A process that begins others, which send to a conversation until they are killed.

    Attributes:
        sending: Gets each child when it is about to send.
    """

    _process: asyncio.subprocess.Process
    sending: asyncio.Queue[int] = field(factory=asyncio.Queue[int], init=False)
    _begun: asyncio.Queue[int] = field(factory=asyncio.Queue[int], init=False)
    _ended: dict[int, asyncio.Event] = field(factory=dict[int, asyncio.Event], init=False)

    @classmethod
    @asynccontextmanager
    async def open(cls, *args: str) -> AsyncGenerator[Self]:
        """Open one whose children are given *args*; those that live at its end are killed."""
        command, pipe = (sys.executable, "-c", NURSERY, *args), asyncio.subprocess.PIPE
        nursery = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        listening = asyncio.create_task(nursery._listen())
        yield nursery
        for child, ended in nursery._ended.items():
            if not ended.is_set():
                await nursery.kill(child)
        assert nursery._process.stdin is not None
        nursery._process.stdin.close()
        await listening
        await nursery._process.wait()

    async def begin(self, life: str) -> None:
        """Begin a child, whose messages tell that they are of *life*."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{life}\n".encode())
        await asyncio.wait_for(self._begun.get(), 30)

    async def next(self) -> int:
        """Give the next child that is about to send, when it is."""
        while True:
            child = await asyncio.wait_for(self.sending.get(), 30)
            if not self._ended[child].is_set():
                return child

    async def kill(self, child: int) -> None:
        """Kill a child, and wait until it is gone."""
        os.kill(child, signal.SIGKILL)
        await self._ended[child].wait()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, child = line.decode().split()
            if word == "begins":
                self._ended[int(child)] = asyncio.Event()
                self._begun.put_nowait(int(child))
            elif word == "sends":
                self.sending.put_nowait(int(child))
            else:
                self._ended[int(child)].set()


async def rivals(store: str, seed: str, rounds: int, processes: int = 3) -> Toll:
    """
    Kill some of the processes that send to one conversation at the same time, each somewhere in a message.

    Args:
        store: The string of their store.
        seed: What decides which, and when.
        rounds: How many.
        processes: How many of them send at a time.
    """
    chance, toll = random.Random(seed), Toll()
    async with serve(H2OGPTeEmulator()) as at, at.connect(store=store) as bridge:
        chat = await bridge.create()
        async with Nursery.open(at.config, at.emulator.key, store, chat.id) as nursery:
            for number in range(processes):
                await nursery.begin(f"first{number}")
            for life in range(rounds):
                for _ in range(chance.randrange(5)):
                    await nursery.next()
                child = await nursery.next()
                await asyncio.sleep(chance.uniform(0, LONGEST_WAIT))  # The emulator answers meanwhile.
                await nursery.kill(child)
                toll.killed["anywhere"] += 1
                toll.left.update(
                    ("anywhere", turn.state.value)
                    for turn in await chat.turns()
                    if turn.unsettled and not turn.waived
                )
                await nursery.begin(f"{life}")
        await settle(chat)
        await chat.pull()  # An answer that was found after later ones is put in its place.
        turns = await chat.turns()
        toll.count(turns, await there(chat))
        toll.unanswered = await unanswered(chat, turns)
    return toll
