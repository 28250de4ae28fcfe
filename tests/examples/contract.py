"""
Try an installed adapter by the rules that every backend keeps.

    python contract.py NAME [OPTION=VALUE ...]
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from chatbridge import Bridge, ChatbridgeError, connect
from chatbridge.registry import load_adapter
from chatbridge.testing.contract import Ask, ChatBackendContract
from chatbridge.testing.emulator import Emulator, serve
from chatbridge.testing.responder import Exchange, respond


def taciturn(text: str, history: Sequence[Exchange]) -> str:
    """Answer as emulators do, but say nothing when asked to."""
    return "" if text == "Say nothing." else respond(text, history)


class Contract(ChatBackendContract):
    """The rules, tried against the emulator that an adapter names."""

    def __init__(self, emulator: type[Emulator], options: dict[str, Any]) -> None:
        super().__init__()
        self.new_emulator, self.options = emulator, options

    @asynccontextmanager
    async def open_bridge(self) -> AsyncGenerator[Bridge]:
        """Serve a new emulator, and open a bridge to it."""
        self.emulator = self.new_emulator(responder=taciturn)
        options: dict[str, Any] = {"key": self.emulator.key} | self.options
        async with serve(self.emulator) as served, connect(served.config, **options) as bridge:
            try:
                yield bridge
            finally:
                assert not self.emulator.crashes, f"the emulator crashed: {self.emulator.crashes!r}"

    def ask_for_nothing(self) -> Ask:
        """Give what makes it answer with an empty text."""
        return Ask("Say nothing.")


def main(name: str = "", *options: str) -> int | str:
    """Print how each rule is kept; what is given back is the exit status."""
    try:
        emulator = load_adapter(name).load_emulator() if name else None
    except ChatbridgeError as error:
        return f"contract.py: {error}"
    if emulator is None or not all("=" in option for option in options):
        return (__doc__ or "").strip()
    given = dict(option.split("=", 1) for option in options)
    results = asyncio.run(Contract(emulator, given).run())
    sys.stdout.write("".join(f"{result}\n" for result in results))
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
