"""Hundreds of messages to an emulator through faults placed at random, and what became of each of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from attrs import define

from chatbridge import Bridge, Chat, ChatbridgeError, Message, Role, Turn, TurnState, connect
from chatbridge.backend import SettleBy
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, serve
from chatbridge.testing.exchange import Kept
from chatbridge.testing.faults import Fault
from chatbridge.testing.responder import Exchange, respond
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator
from chatbridge_adapters.tachyon.emulator import TachyonEmulator

__all__ = ["APIS", "LATEST", "RUNS", "StormClock", "Tally", "storm"]

APIS: dict[str, tuple[type[Emulator], dict[str, Any]]] = {
    "h2ogpte": (H2OGPTeEmulator, {}),
    "datamonkey": (DatamonkeyEmulator, {}),
    "tachyon": (TachyonEmulator, {}),
    "tachyon_agent": (TachyonEmulator, {"mode": "agent"}),
    "kaziro": (KaziroEmulator, {}),
    "mtmai": (MtmaiEmulator, {}),
}

LATEST = 20.0
"""Seconds that an API may be at work after its connection was lost."""

RUNS: list[tuple[str, float | None]] = [
    *((api, None) for api in APIS),
    *((api, LATEST + 1) for api in APIS if api not in {"kaziro", "mtmai"}),
]
"""Each API without `absent_after`, and with one where its conversations can be read back."""


class StormClock(ManualClock):
    """A clock that stands still but for sleeping, and on which things happen."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[tuple[float, Callable[[], object]]] = []

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Do *action* once *seconds* have passed."""
        self.due.append((self.now() + seconds, action))

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.pass_on()

    async def pass_on(self) -> None:
        """Do what is due, and let the server go on with it."""
        due = [entry for entry in self.due if entry[0] <= self.now()]
        for entry in due:
            self.due.remove(entry)
            entry[1]()
        for _ in range(20 if due else 0):
            await asyncio.sleep(0)


@define
class Tally:
    """What became of the messages: the turns, and how often each text is in the conversation."""

    turns: Sequence[Turn]
    there: Counter[str]
    requests: int

    def count(self, *states: TurnState) -> int:
        """Count the turns in one of *states*."""
        return sum(turn.state in states for turn in self.turns)

    def texts(self, *states: TurnState) -> Counter[str]:
        """Count the turns in one of *states* by their texts."""
        return Counter(turn.message.text for turn in self.turns if turn.state in states)

    def sendings(self, *states: TurnState) -> Counter[str]:
        """Count how often the turns in one of *states* may have arrived, by their texts."""
        counts = Counter[str]()
        for turn in self.turns:
            if turn.state in states:
                counts[turn.message.text] += turn.sends
        return counts

    @property
    def lost(self) -> int:
        """How many messages are delivered by what is recorded, and not in the conversation."""
        return (self.texts(TurnState.DELIVERED) - self.there).total()

    @property
    def doubled(self) -> int:
        """How many are in the conversation more often than they were sent by the caller's word."""
        return (self.there - self.sendings(*TurnState)).total()

    @property
    def denied(self) -> int:
        """How many are certainly not sent or refused by what is recorded, and yet in the conversation."""
        arrived = {TurnState.DELIVERED, TurnState.ACCEPTED, TurnState.UNKNOWN}
        return (self.there - self.sendings(*arrived)).total()


@asynccontextmanager
async def _bridge(
    emulator: Emulator, clock: StormClock, options: dict[str, Any]
) -> AsyncGenerator[tuple[Bridge, Bridge]]:
    """Give a bridge to *emulator*, and another that looks when all is over."""
    async with (
        serve(emulator) as served,
        connect(served.config, key=emulator.key, clock=clock, **options) as bridge,
        connect(served.config, key=emulator.key, settle_timeout=0, **options) as observer,
    ):
        yield bridge, observer


async def storm(api: str, seed: str, count: int, absent_after: float | None) -> Tally:
    """Send *count* messages through faults, settle at last, and tell what became of them."""
    make, options = APIS[api]
    dice, clock, processed = random.Random(seed), StormClock(), Counter[str]()

    def answer(said: str, history: Sequence[Exchange]) -> str:
        processed[said] += 1
        return respond(said, history)

    emulator = make(responder=answer)
    if absent_after is not None:
        options = {**options, "absent_after": absent_after}
    async with _bridge(emulator, clock, options) as (bridge, observer):
        chat = await bridge.create()
        for number in range(count):
            emulator.faults = [(None, _fault(dice, clock)) for _ in range(12)]
            # One in five is a text that was sent before.
            text = f"message {dice.randrange(number) if number and dice.random() < 0.2 else number}"
            await _say(dice, chat, text)
            await _go_on(dice, chat)
        emulator.faults.clear()
        await clock.sleep(LATEST + 60)
        if SettleBy.READ_BACK in bridge.profile.settle_by:
            await chat.settle()
        there = await _texts(emulator, observer, chat.id, processed)
        return Tally(await chat.turns(), there, len(emulator.calls))


async def _texts(
    emulator: Emulator, observer: Bridge, conversation_id: str, processed: Counter[str]
) -> Counter[str]:
    """Count the texts of the user's in a conversation, by asking the server."""
    if isinstance(emulator, KaziroEmulator):
        return Counter(exchange.said for exchange in emulator.threads[conversation_id])
    if isinstance(emulator, MtmaiEmulator):
        return processed  # It keeps none; a run that was begun counts as there.
    messages = observer.open(conversation_id).messages()
    return Counter([message.text async for message in messages if message.role is Role.USER])


async def _say(dice: random.Random, chat: Chat, text: str) -> None:
    """Send or stream a message, cancel it at times, and send it again where that is safe."""
    message = Message(Role.USER, text, id=f"{dice.getrandbits(64):016x}")
    for _ in range(3):
        asked = _send if dice.random() < 0.5 else _stream
        task = asyncio.create_task(asked(chat, message))
        if dice.random() < 0.1:
            for _ in range(dice.randrange(80)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        again = False if task.cancelled() else task.result()
        if not again:
            return


async def _send(chat: Chat, message: Message, *, resend: bool = False) -> bool:
    try:
        await chat.send(message, resend=resend)
    except ChatbridgeError as error:
        return error.retryable
    return False


async def _stream(chat: Chat, message: Message) -> bool:
    try:
        async with chat.stream(message) as stream:
            async for _ in stream:
                pass
    except ChatbridgeError as error:
        return error.retryable
    return False


async def _go_on(dice: random.Random, chat: Chat) -> None:
    """Settle what is in doubt, send it again, or let it stand."""
    for turn in await chat.turns():
        if not turn.blocks:
            continue
        if SettleBy.READ_BACK in chat.bridge.profile.settle_by and dice.random() < 0.5:
            with suppress(ChatbridgeError):
                await chat.settle(wait=dice.choice([0.0, 1.0, 30.0]))
        elif dice.random() < 0.3:
            await _send(chat, turn.message, resend=True)
        await chat.waive(turn)


def _fault(dice: random.Random, clock: StormClock) -> Fault:
    """Draw what goes wrong with a request; with most of them nothing does."""
    if dice.random() < 0.7:
        return Fault()
    kind = dice.randrange(9)
    if kind == 0:
        return Fault(drop="before")
    if kind == 1:
        return Fault(drop="after")
    if kind == 2:
        late = asyncio.Event()
        clock.at(dice.uniform(0, LATEST), late.set)
        return Fault(drop="during", hold=late)
    if kind == 3:
        return Fault(status=dice.choice([429, 503, 400]), headers={"Retry-After": "1"})
    if kind == 4:
        kept: Kept = dice.choice(["turn", "nothing"])
        return Fault(status=dice.choice([502, 504]), body=b"<html>gateway</html>", kept=kept)
    if kind == 5:
        return Fault(status=500, error="The model failed", kept=dice.choice(["nothing", "question"]))
    if kind == 6:
        return Fault(status=200, body=b'{"cut', kept="turn")
    how = dice.choice(["abort", "end"])
    return Fault(cut_after=dice.randrange(4), cut="abort" if how == "abort" else "end", kept="turn")
