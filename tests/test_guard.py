"""The switch that keeps tests on this machine."""

from __future__ import annotations

import re

import pytest

from chatbridge import Bridge, LiveBackendForbidden, Outcome, connect
from chatbridge.guard import check_reachable, is_loopback, only_loopback
from chatbridge.testing.emulator import serve
from chatbridge_adapters.kaziro.emulator import KaziroEmulator


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.8.7", "::1"])
def test_this_machine_may_be_reached(host: str) -> None:
    assert is_loopback(host)
    with only_loopback("the test"):
        check_reachable(f"http://{f'[{host}]' if ':' in host else host}:8080/base")


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "10.0.0.1", "::2", "0.0.0.0", ""])
def test_no_other_may(host: str) -> None:
    assert not is_loopback(host)
    with only_loopback("the test"), pytest.raises(LiveBackendForbidden, match=f"^'{re.escape(host)}' is "):
        check_reachable(f"https://{f'[{host}]' if ':' in host else host}")


def test_opening_a_bridge_to_another_machine_raises_and_says_what_to_do() -> None:
    with only_loopback("the test"), pytest.raises(LiveBackendForbidden) as caught:
        connect("kaziro://kaziro.example.com", key="k")

    assert ("kaziro.example.com", "the test") == (caught.value.host, caught.value.forbidden_by)
    assert str(caught.value) == (
        "'kaziro.example.com' is another machine, and the test forbids to reach one; "
        "use fake:, an emulator or a recording"
    )


async def test_a_bridge_that_is_open_sends_nothing_there() -> None:
    async with connect("kaziro://kaziro.invalid", key="k") as bridge:
        chat = bridge.open("room-1")
        with only_loopback("the test"), pytest.raises(LiveBackendForbidden) as caught:
            await chat.send("Hello")

        assert Outcome.NOT_SENT is caught.value.outcome
        assert bridge.loop is None  # No connection was tried.


async def test_what_is_here_goes_on_to_work() -> None:
    with only_loopback("the test"):
        async with serve(KaziroEmulator()) as served, served.connect() as bridge:
            assert "Hello" in await answer(bridge)
        assert "Hello" in await answer(connect("fake:"))


async def answer(bridge: Bridge) -> str:
    return (await (await bridge.create()).send("Hello")).text


def test_the_innermost_reason_is_named_and_after_the_last_all_is_as_before() -> None:
    with only_loopback("the suite"):
        with only_loopback("the test"), pytest.raises(LiveBackendForbidden, match="the test"):
            check_reachable("https://example.com")
        with pytest.raises(LiveBackendForbidden, match="the suite"):
            check_reachable("https://example.com")
    check_reachable("https://example.com")
