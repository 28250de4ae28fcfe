"""The greeter's tests, run as a stranger's are: beside an installed chatbridge, with no configuration."""

import asyncio
import re
from pathlib import Path

import pytest
from greeter import greet

from chatbridge import Bridge, LiveBackendForbidden, connect
from chatbridge.testing.dialogue import Dialogue, say
from chatbridge.testing.fake import FakeBackend
from chatbridge.testing.pytest_plugin import EmulatorFactory


def test_it_greets(bridge: Bridge, fake_backend: FakeBackend) -> None:
    assert "Ahoy! Turn 1: you said 'Hello'." == asyncio.run(greet(bridge, "Hello"))
    assert fake_backend is bridge.backend


@pytest.mark.chatbridge("fake:", reply="Who are you?")
def test_it_passes_on_what_is_asked(bridge: Bridge) -> None:
    dialogue = say("Hello").expect("Ahoy! Who are you?").say("Me").expect(re.compile("Ahoy"))
    asyncio.run(dialogue.run(bridge, greet))


def test_it_holds_a_dialogue(bridge: Bridge) -> None:
    asyncio.run(Dialogue.load(Path(__file__).with_name("greeting.dialogue")).run(bridge, greet))


@pytest.mark.usefixtures("no_live_backends")
def test_it_greets_over_http(chatbridge_emulator: EmulatorFactory) -> None:
    async def main() -> str:
        async with chatbridge_emulator("tachyon") as served, served.connect() as bridge:
            return await greet(bridge, "Hello")

    assert "Hello" in asyncio.run(main())
    with pytest.raises(LiveBackendForbidden):
        connect("kaziro://kaziro.example.com", key="none")


@pytest.mark.chatbridge_recording("kaziro://kaziro.example.com")
def test_it_greets_as_it_did(bridge: Bridge) -> None:
    assert asyncio.run(greet(bridge, "Hello")).startswith("Ahoy! Turn 1")
