"""The contract on the command line: its rules, and which feature each of them speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatbridge.backend import Feature
from chatbridge.bridge import Bridge
from chatbridge.domain import SendOptions
from chatbridge.testing import fake
from chatbridge.testing.checking import expect
from chatbridge.testing.contract import (
    SAY_NOTHING,
    Ask,
    ChatBackendContract,
    NotApplicable,
    OpenBackend,
    Opened,
    Result,
    ask_to_reason,
)
from chatbridge.testing.emulator import Emulator

__all__ = ["FEATURES", "Contract", "FakeContract", "summary", "try_rules"]

FEATURES: Mapping[str, Feature] = {f"check_{feature.value}": feature for feature in Feature} | {
    "check_cancelling": Feature.SEND,
    "check_cancelling_closes": Feature.SEND,
    "check_context": Feature.SEND,
    "check_conversations_at_once": Feature.SEND,
    "check_empty_answer": Feature.SEND,
    "check_half_characters": Feature.SEND,
    "check_leaving_a_stream": Feature.STREAM,
    "check_long_text": Feature.SEND,
    "check_lost_answers": Feature.SEND,
    "check_doubt": Feature.SEND,
    "check_failures": Feature.SEND,
    "check_late_arrival": Feature.SEND,
    "check_order": Feature.SEND,
    "check_sending_inside_a_stream": Feature.STREAM,
    "check_stream_equals_send": Feature.STREAM,
    "check_text": Feature.SEND,
}
"""The feature that does not work if a rule is broken; the rules that are not here belong to none."""


FEW = 12
"""How many conversations and messages are made where they cost money or time."""

UNFORETELLABLE = frozenset({
    "check_context", "check_conversations_at_once", "check_empty_answer", "check_long_text",
    "check_reasoning", "check_stream_equals_send", "check_tools",
})  # fmt: skip
"""The rules that need to know what will be answered."""


class Contract(ChatBackendContract):
    """
    The rules, tried over what *open_backend* opens.

    Args:
        emulator: Where it leads to, if that is known.
        live: Whether a model answers, which says what it likes.
    """

    def __init__(
        self, open_backend: OpenBackend, emulator: Emulator | None = None, *, live: bool = False
    ) -> None:
        self._open_backend = open_backend
        self.emulator = emulator
        self._live = live
        if live:
            self.PATIENCE, self.MANY = 300.0, FEW
            self.SAMPLES = {**self.SAMPLES, "model": None}  # Which ones there are is not known.

    def open_backend(self) -> Opened:
        """Open the backend."""
        return self._open_backend()

    def quotes(self, answer: str, message: str) -> bool:
        """Take any text for an answer, where nothing better is known."""
        return answer.strip() != "" if self._live else super().quotes(answer, message)

    def ask_for_nothing(self) -> Ask | None:
        """Give what makes an emulator say nothing."""
        return None if self.emulator is None else Ask(SAY_NOTHING)

    def ask_to_reason(self) -> Ask | None:
        """Give what makes an emulator show reasoning."""
        return ask_to_reason(self.emulator, super().ask_to_reason())

    async def check(self, name: str) -> None:
        """Try a rule, unless nobody knows what will be answered."""
        if self._live and name in UNFORETELLABLE:
            raise NotApplicable("what a model answers cannot be foretold")
        try:
            await super().check(name)
        finally:
            crashes = self.emulator.crashes if isinstance(self.emulator, Emulator) else ()
            expect(not crashes, f"the emulator crashed: {crashes!r}")


class FakeContract(Contract):
    """The fake reasons and says nothing only if told to in its own way."""

    def ask_to_reason(self) -> Ask:
        """Give what makes it reason."""
        return Ask("Think about it.", SendOptions(extra={"reasoning": True}))

    def ask_for_nothing(self) -> Ask | None:
        """Give what makes it say nothing, where its profile lets it be told to."""
        fake = self.open_backend()
        told = isinstance(fake, Bridge) and "max_output_tokens" in fake.profile.options
        return Ask(SAY_NOTHING, SendOptions(max_output_tokens=0)) if told else None


async def try_rules(name: str, open_backend: OpenBackend, emulator: Emulator | None) -> Sequence[Result]:
    """Try every rule over the backend *name*, whose *emulator*, if it has one, is where it leads to."""
    contract = (FakeContract if name == fake.NAME else Contract)(open_backend, emulator)
    contract.MANY = FEW
    return await contract.run()


def summary(results: Sequence[Result]) -> str:
    """Count what came of the rules, as in ``32 rules kept, 1 does not apply: empty answer``."""
    broken = sum(result.problem is not None for result in results)
    skipped = [_name(result) for result in results if result.skipped is not None]
    counts = [f"{len(results) - broken - len(skipped)} rules kept"]
    if broken:
        counts.append(f"{broken} broken")
    if skipped:
        verb = "does" if len(skipped) == 1 else "do"
        counts.append(f"{len(skipped)} {verb} not apply: {', '.join(skipped)}")
    return ", ".join(counts)


def _name(result: Result) -> str:
    return result.check.removeprefix("check_").replace("_", " ")
