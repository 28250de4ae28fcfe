"""Try an installed adapter by the rules that every backend keeps: `python contract.py NAME`."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from chatbridge import Bridge, connect
from chatbridge.registry import load_adapter
from chatbridge.testing.contract import Ask, ChatBackendContract
from chatbridge.testing.emulator import serve
from chatbridge.testing.responder import Exchange, respond


def taciturn(text: str, history: Sequence[Exchange]) -> str:
    """Answer as emulators do, but say nothing when asked to."""
    return "" if text == "Say nothing." else respond(text, history)


class Contract(ChatBackendContract):
    """The rules, tried against the emulator that the adapter names."""

    @asynccontextmanager
    async def open_bridge(self) -> AsyncGenerator[Bridge]:
        """Serve a new emulator, and open a bridge to it."""
        emulator = load_adapter(sys.argv[1]).load_emulator()(responder=taciturn)
        async with serve(emulator) as served, connect(served.config, key=emulator.key) as bridge:
            yield bridge
        assert [] == emulator.crashes

    def ask_for_nothing(self) -> Ask:
        """Give what makes it answer with an empty text."""
        return Ask("Say nothing.")


results = asyncio.run(Contract().run())
sys.stdout.write("".join(f"{result}\n" for result in results))
sys.exit(any(result.problem for result in results))
