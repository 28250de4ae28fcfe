"""The example bots: the same dialogues on the fake and on the emulator of each API."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chatbridge import Bridge, Feature, Support, connect
from chatbridge.registry import load_adapter
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.dialogue import Dialogue, say
from chatbridge.testing.emulator import Emulator, Fault, serve
from examples.faq_bot import FaqBot
from examples.summariser_bot import summarise
from examples.triage_bot import TriageBot

EXAMPLES = Path(__file__).parent / "examples"
APIS = ("anthropic", "datamonkey", "h2ogpte", "kaziro", "mtmai", "openai", "tachyon")
BACKENDS = ("fake", *APIS)
TEXT = "Maples turn red in November, and all the crowds of Kyoto come to see them."


class Answering:
    """Plans faults for the second request of two by which Mtmai is sent a message."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    def fail(self, fault: Fault) -> None:
        self.emulator.fail(fault, operation="agent_stream")


@asynccontextmanager
async def opened(name: str) -> AsyncGenerator[tuple[Bridge, Emulator | None]]:
    """
    Open a bridge to the fake or to a new emulator, which comes with it.

    An answer that is lost stays so: it is not looked for, and an API that keeps nothing not asked again.
    """
    if name == "fake":
        async with connect("fake:") as bridge:
            yield bridge, None
        return
    emulator: Emulator = load_adapter(name).load_emulator()()
    async with (
        serve(emulator) as served,
        connect(served.config, key=emulator.key, settle_timeout=0, attempts=1) as bridge,
    ):
        yield bridge, emulator
    assert [] == emulator.crashes


@pytest.mark.parametrize("name", BACKENDS)
async def test_the_faq_bot_remembers_the_name_of_its_user(name: str) -> None:
    async with opened(name) as (bridge, _):
        await Dialogue.load(EXAMPLES / "faq.dialogue").run(bridge, FaqBot({"When do you open?": "At nine."}))


@pytest.mark.parametrize("name", BACKENDS)
async def test_the_triage_bot_briefs_the_expert(name: str) -> None:
    async with opened(name) as (desk, _), opened(name) as (expert, _), connect("fake:") as other:
        bot = TriageBot({"refund": expert})
        await Dialogue.load(EXAMPLES / "triage.dialogue").run(desk, bot, backends={"other": other})


@pytest.mark.parametrize("name", BACKENDS)
async def test_the_summariser_streams(name: str) -> None:
    text = "Maples turn red in November, and all the crowds of Kyoto come to see them."
    dialogue = (
        say("Hello").expect("That is short enough already.").say(text).expect(re.compile("Maples turn red"))
    )
    async with opened(name) as (bridge, _):
        if bridge.profile.support(Feature.STREAM) is Support.NATIVE:
            dialogue = dialogue.expect_stream(re.compile("Maples turn red"))
        await dialogue.run(bridge, summarise)


@pytest.mark.parametrize("name", APIS)
async def test_the_bots_go_on_after_a_message_whose_answer_is_lost(name: str) -> None:
    faq = (
        say("Is there a terrace?").expect(re.compile("terrace"))
        .fault("lost")
        .say("Is there a garden?").expect("I cannot look that up just now. Please ask me again.")
        .say("Is there a garden?").expect(re.compile("you said .*Is there a garden"))
    )  # fmt: skip
    triage = (
        say("Good morning").expect(re.compile("you said 'Good morning'"))
        .fault("lost")
        .say("How are you?").expect("Nobody can answer just now. Please say that again.")
        .say("Are you there?").expect(re.compile("You take over.*Good morning.*Are you there"))
    )  # fmt: skip
    async with opened(name) as (bridge, emulator):
        await faq.run(bridge, FaqBot({}), partner=emulator)
        await triage.run(bridge, TriageBot({}), partner=emulator)


@pytest.mark.parametrize("name", APIS)
async def test_the_triage_bot_stays_at_the_desk_while_the_expert_does_not_answer(name: str) -> None:
    async with opened(name) as (desk, _), opened(name) as (expert, emulator):
        assert emulator is not None
        emulator.key = "another"
        dialogue = say("I want a refund").expect(re.compile("^Turn 1: you said 'I want a refund'"))
        await dialogue.run(desk, TriageBot({"refund": expert}))


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        # What an API that keeps nothing did not answer was not said.
        ("lost", "There is no summary: |The summariser is busy"),
        ("cut:1", r"The summary breaks off here\.\]$"),
        ("403", "There is no summary: "),
    ],
)
async def test_the_summariser_says_that_the_summary_is_missing_or_incomplete(
    name: str, fault: str, said: str
) -> None:
    dialogue = Dialogue().fault(fault).say(TEXT).expect(re.compile(said))
    async with opened(name) as (bridge, emulator):
        assert emulator is not None
        partner = Answering(emulator) if (name, fault) == ("mtmai", "cut:1") else emulator
        await dialogue.run(bridge, summarise, partner=partner)


@pytest.mark.parametrize("name", ["anthropic", "openai"])
async def test_over_an_api_that_keeps_nothing_a_bot_need_not_notice_a_lost_answer(name: str) -> None:
    emulator: Emulator = load_adapter(name).load_emulator()()
    dialogue = say("Good morning").expect(re.compile("Good morning"))
    dialogue = dialogue.fault("lost").say("How are you?").expect(re.compile("^Turn 2: .*How are you"))
    async with serve(emulator) as served, served.connect(clock=ManualClock()) as bridge:
        await dialogue.run(bridge, TriageBot({}), partner=emulator)


async def test_the_summariser_says_when_nothing_was_asked() -> None:
    async with connect("kaziro+http://127.0.0.1:1", key="k", attempts=1) as bridge:
        dialogue = say(TEXT).expect("The summariser is busy. Please try again in a moment.")
        await dialogue.run(bridge, summarise)
