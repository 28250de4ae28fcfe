"""The contract in the demo: its rules tried over a backend, and which feature each of them speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatbridge.backend import Feature
from chatbridge.domain import SendOptions
from chatbridge.testing import fake
from chatbridge.testing.contract import Ask, ChatBackendContract, OpenBackend, Opened, Result
from chatbridge.testing.emulator import Emulator

__all__ = ["FEATURES", "summary", "try_rules"]

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


class _Contract(ChatBackendContract):
    PATIENCE = 10.0

    def __init__(self, open_backend: OpenBackend) -> None:
        self._open_backend = open_backend

    def open_backend(self) -> Opened:
        return self._open_backend()


class _FakeContract(_Contract):
    """The fake reasons and says nothing only if told to in its own way."""

    def ask_to_reason(self) -> Ask:
        return Ask("Think about it.", SendOptions(extra={"reasoning": True}))

    def ask_for_nothing(self) -> Ask:
        return Ask("Say nothing.", SendOptions(max_output_tokens=0))


async def try_rules(name: str, open_backend: OpenBackend, emulator: Emulator | None) -> Sequence[Result]:
    """Try every rule over the backend *name*, whose *emulator*, if it has one, is where it leads to."""
    contract = (_FakeContract if name == fake.NAME else _Contract)(open_backend)
    contract.emulator = emulator
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
