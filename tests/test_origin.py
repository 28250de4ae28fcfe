"""Nothing goes anywhere but to the server that was named, and one layer alone repeats (X1, X2, B4, C6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chatbridge import Bridge, ChatbridgeError, DeliveryUnknown, Outcome, RedirectRefused, connect
from chatbridge.errors import Unavailable
from chatbridge.testing.clock import ManualClock
from doubles import Double
from fault_server import FaultServer, Step, answer
from scan import KEY

READ, STALL = Step.READ, Step.STALL
OPTIONS: dict[str, str] = {
    "h2ogpte": "",
    "kaziro": "",
    "datamonkey": "",
    "tachyon": "?operator=tn_x",
    "mtmai": "?tenant=707d0855-80ab-4e1f-a156-f1c4546cbf52&team=0b0e9f0c-6f5d-4a3e-9f0b-2f1f4a6f7a11",
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("api", list(OPTIONS))
async def test_x1_x2_a_redirection_is_followed_by_nothing_neither_message_nor_key(
    api: str, status: int
) -> None:
    """Not even to the same host, as another port is another server."""
    async with FaultServer(((READ, answer(b"{}")),)) as elsewhere:
        goes = f"Location: {elsewhere.url}/else"
        script = (READ, answer(b"", f"{status} Go", goes))
        given: dict[str, Any] = {"key": KEY, "settle_timeout": 0, "clock": ManualClock()}
        async with (
            FaultServer((script,)) as server,
            connect(f"{api}+{server.url}{OPTIONS[api]}", **given) as bridge,
        ):
            chat = bridge.open("6f1d5a52-9c1e-4c9e-8f6a-1f2e3d4c5b6a")
            stream = chat.stream("Hello", resend=True)
            calls: list[Callable[[], Awaitable[object]]] = [bridge.create, lambda: chat.send("Hello")]
            for number, call in enumerate([*calls, stream.__aenter__], 1):
                with pytest.raises(ChatbridgeError) as caught:
                    await call()
                assert number == len(server.requests)
                assert isinstance(caught.value, RedirectRefused)
                expected = Outcome.ACCEPTED if status == 303 else Outcome.REFUSED
                assert expected is caught.value.outcome
                assert KEY not in str(caught.value)
        assert 0 == elsewhere.begun


async def test_b4_a_backend_that_brings_its_own_transport_is_never_repeated() -> None:
    double = Double()
    bridge = Bridge(double, clock=ManualClock())
    chat = await bridge.create()
    double.fails = {"send": DeliveryUnknown("lost", kind="lost"), "get": Unavailable("down")}
    with pytest.raises(DeliveryUnknown):
        await chat.send("Hi")
    with pytest.raises(Unavailable):
        await chat.refresh()
    assert (1, 1) == (double.calls.count("send"), double.calls.count("get"))


async def test_c6_what_is_not_wanted_of_an_answer_is_not_read() -> None:
    """A refusal's body may go on for ever."""
    endless = answer(b"x" * 2**20, "400 No", framed=False)
    async with FaultServer(((READ, endless, STALL),)) as server:
        given: dict[str, Any] = {"key": KEY, "settle_timeout": 0, "clock": ManualClock()}
        async with connect(f"h2ogpte+{server.url}", **given) as bridge:
            with pytest.raises(ChatbridgeError, match="400"):
                await bridge.open("c").send("Hello")
            await server.left.wait()
