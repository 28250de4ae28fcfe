"""
The rules that every backend keeps, for authors of adapters to run.

    class TestAcme(ChatBackendContract):
        def open_backend(self): return connect("acme+http://127.0.0.1:8101", key="...")

A test framework such as pytest finds a test for each rule in that class; without one there is
`await check_backend(open_backend)`. For an adapter that names its emulator, it is shorter still, and faults
are tried too:

    class TestAcme(EmulatorContract):
        backend = "acme"

The rules ask what the profile claims, never what the backend is called: what is claimed must work, and what
is not must be refused before any I/O. They need a partner that answers alike each time, such as an emulator.
What an API that keeps nothing is told is tried where the partner shows it (`Witness`). Of options it is tried
that they are told, and that an answer ends where one says so; not what else the model makes of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

from attrs import evolve

from chatbridge.bridge import Bridge
from chatbridge.domain import SendOptions
from chatbridge.registry import load_adapter
from chatbridge.testing.checking import Ask, NotApplicable, OpenBackend, Opened, Partner, Witness, expect
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, serve
from chatbridge.testing.fault_checks import FaultChecks
from chatbridge.testing.feature_checks import FeatureChecks
from chatbridge.testing.house_checks import HouseChecks
from chatbridge.testing.responder import Exchange, respond
from chatbridge.testing.rules import Contract, Result
from chatbridge.testing.turn_checks import TurnChecks

__all__ = [
    "SAY_NOTHING",
    "Ask",
    "ChatBackendContract",
    "EmulatorContract",
    "NotApplicable",
    "OpenBackend",
    "Opened",
    "Partner",
    "Result",
    "Witness",
    "ask_to_reason",
    "check_backend",
    "taciturn",
]


class ChatBackendContract(HouseChecks, FaultChecks, TurnChecks, FeatureChecks, Contract):
    """
    What types cannot say of a `ChatBackend`, as checks.

    Each `check_...` opens a backend of its own, and raises AssertionError with what is wrong, or
    `NotApplicable`; the first line of its docstring is the rule, as told to a backend. A subclass may add
    checks, and override the hooks of `Checks` where its partner answers differently. For each check it has a
    `test_...`, which needs no running event loop.
    """


SAY_NOTHING = "Say nothing."
"""What `taciturn` answers with nothing."""


class EmulatorContract(ChatBackendContract):
    """
    The contract for a backend against the emulator that its adapter names.

    Its bridge has a clock that stands still, so that no retry waits.

    Attributes:
        backend: Its name, the scheme of its config strings.
        settings: What the emulator is made with.
        options: What the bridge is opened with, beside the key.
    """

    backend: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[Mapping[str, Any]] = {}

    def open_backend(self) -> AbstractAsyncContextManager[Bridge]:
        """Serve an emulator, and open a bridge to it."""
        return self.served()

    def new_emulator(self) -> Emulator:
        """Make the emulator, which says nothing where it is asked to."""
        make: type[Emulator] = load_adapter(self.backend).load_emulator()
        return make(responder=taciturn, **self.settings)

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[Bridge]:
        """Serve a new emulator for the length of the block, and give a bridge to it."""
        self.emulator = emulator = self.new_emulator()
        try:
            options = {"clock": ManualClock(), **self.options}
            async with serve(emulator) as at, at.connect(**options) as bridge:
                yield bridge
        finally:
            expect(not emulator.crashes, f"the emulator crashed: {emulator.crashes!r}")

    def ask_for_nothing(self) -> Ask | None:
        """Give what makes the emulator answer with an empty text."""
        return Ask(SAY_NOTHING)

    def ask_to_reason(self) -> Ask | None:
        """Give what makes the emulator show reasoning."""
        return ask_to_reason(self.emulator, super().ask_to_reason())


def ask_to_reason(partner: object, ask: Ask | None) -> Ask | None:
    """Give what makes *partner* show reasoning, if it is an emulator; of any other *ask* does."""
    if ask is None or not isinstance(partner, Emulator):
        return ask
    extra = partner.reasoning
    return None if extra is None else evolve(ask, options=SendOptions(extra=extra))


def taciturn(text: str, history: Sequence[Exchange]) -> str:
    """Answer as emulators do, but say nothing where asked to."""
    return "" if text == SAY_NOTHING else respond(text, history)


async def check_backend(open_backend: OpenBackend, *, emulator: Partner | None = None) -> tuple[Result, ...]:
    """
    Try all rules.

    Args:
        open_backend: Opens the backend, anew for each rule.
        emulator: Where faults can be planned, if it is known beforehand.
    """

    class Contract(ChatBackendContract):
        def open_backend(self) -> Opened:
            return open_backend()

    contract = Contract()
    contract.emulator = emulator
    return await contract.run()
