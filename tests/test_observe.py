"""What is told of each attempt: by the hook, and in the log; never content, never a secret."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from chatbridge import Bridge, ChatbridgeError, DeliveryUnknown, connect
from chatbridge.errors import Attempt, Phase
from chatbridge.observe import AttemptEvent
from chatbridge.turns import TurnEvent
from fault_server import FaultServer, Script, Step, SteppingClock, answer, chunked, settle
from scan import KEY, SPELLINGS, assert_log_clean, assert_nothing_in

READ, RESET, STALL = Step.READ, Step.RESET, Step.STALL
TEXT = "It is between us"
OK = answer(b'{"body": "Yes, between us", "message_id": "m"}')
LINE = chunked(b'{"body": "Yes", "message_id": "m", "finished": true}\n')
SLOW = answer(f'{{"code": 429, "message": "Not so fast, {TEXT}"}}'.encode(), "429 Slow")


class Watch:
    def __init__(self) -> None:
        self.attempts: list[AttemptEvent] = []
        self.also: Callable[[], object] = list[object]
        self.turns: list[TurnEvent] = []

    def on_attempt(self, event: AttemptEvent) -> None:
        self.attempts.append(event)
        self.also()

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return [
            (each.attempt.number, each.attempt.phase, each.attempt.status, each.attempt.wait)
            for each in self.attempts
        ]


@asynccontextmanager
async def watched(*scripts: Script, **options: Any) -> AsyncGenerator[tuple[Bridge, Watch, FaultServer]]:
    watch = Watch()
    async with FaultServer(scripts) as server:
        given: dict[str, Any] = {"key": KEY, "settle_timeout": 0, "clock": SteppingClock()}
        given |= {"on_attempt": watch.on_attempt, "on_turn": watch.turns.append, **options}
        async with connect(f"h2ogpte+{server.url}", **given) as bridge:
            yield bridge, watch, server


async def read(bridge: Bridge) -> None:
    async with bridge.open("c").stream(TEXT) as stream:
        async for _ in stream:
            pass


async def test_an_attempt_tells_all_that_a_span_needs() -> None:
    async with watched((READ, OK)) as (bridge, watch, server):
        await bridge.open("c").send(TEXT)

    (event,) = watch.attempts
    assert (
        AttemptEvent(
            "h2ogpte",
            "get_completion",
            "send",
            "POST",
            f"{server.url}/api/v1/chats/c/completions",
            Attempt(1, None, 200, None, 0.0),
            datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
            watch.turns[0].turn.id,
        )
        == event
    )


@pytest.mark.parametrize("streamed", [False, True])
async def test_each_attempt_is_told_before_the_next_with_the_wait_between(
    streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "chatbridge.http")
    async with watched((READ, SLOW), (READ, SLOW), (READ, LINE if streamed else OK)) as (
        bridge,
        watch,
        server,
    ):
        begun: list[int] = []
        watch.also = lambda: begun.append(server.begun)
        await (read(bridge) if streamed else bridge.open("c").send(TEXT))
        url = f"POST {server.url}/api/v1/chats/c/completions"
        of = f"of message {watch.turns[0].turn.id}"

    status = Phase.STATUS
    assert [(1, status, 429, 0.25), (2, status, 429, 0.5), (3, None, 200, None)] == watch.told
    assert [1, 2, 3] == begun
    name = "h2ogpte get_completion"
    assert [
        ("DEBUG", f"{name}: {url}, attempt 1 {of}: status (429) after 0.000 s"),
        ("INFO", f"{name}: attempt 1 failed (429), the next comes in 0.25 s"),
        ("DEBUG", f"{name}: {url}, attempt 2 {of}: status (429) after 0.000 s"),
        ("INFO", f"{name}: attempt 2 failed (429), the next comes in 0.50 s"),
        ("DEBUG", f"{name}: {url}, attempt 3 {of}: ok (200) after 0.000 s"),
    ] == [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("script", "told"),
    [
        ((READ, RESET), [(1, Phase.LOST, None, None)]),
        ((READ, answer(b"{}", "400 No")), [(1, Phase.STATUS, 400, None)]),
        ((READ, answer(b"[1]")), [(1, Phase.CONTENT, 200, None)]),
    ],
)
async def test_an_attempt_that_fails_for_good_is_told_once(
    streamed: bool, script: Script, told: Sequence[Any]
) -> None:
    async with watched(script) as (bridge, watch, _):
        with pytest.raises(ChatbridgeError):
            await (read(bridge) if streamed else bridge.open("c").send(TEXT))
    number, phase, status, wait = told[0]
    if streamed and phase is Phase.CONTENT:
        phase = Phase.FIRST_EVENT
    assert [(number, phase, status, wait)] == watch.told


@pytest.mark.parametrize("before", [0, 1])
async def test_an_attempt_that_is_cancelled_is_told_as_such(before: int) -> None:
    async with watched(*[(READ, SLOW)] * before, (READ, STALL)) as (bridge, watch, server):
        task = asyncio.create_task(bridge.open("c").send(TEXT))
        await server.reached.wait()
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    attempt = watch.attempts[-1].attempt
    assert (before + 1, None, "cancelled") == (attempt.number, attempt.phase, attempt.error)
    assert before + 1 == len(watch.attempts)


async def test_a_read_carries_no_message() -> None:
    async with watched((READ, answer(b'{"id": "c"}'))) as (bridge, watch, _):
        await bridge.open("c").refresh()
    assert [("read", "GET", None)] == [(each.kind, each.method, each.message_id) for each in watch.attempts]


async def test_what_is_streamed_is_over_with_its_first_event() -> None:
    events = chunked(b'{"body": "Yes", "finished": false}\n', last=b"")
    async with watched((READ, events, Step.FIN)) as (bridge, watch, _):
        with pytest.raises(ChatbridgeError):
            await read(bridge)
    assert [(1, None, 200, None)] == watch.told


async def test_a_hook_that_fails_costs_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> None:
        raise RuntimeError(TEXT)

    async with watched((READ, SLOW), (READ, OK), on_attempt=broken, on_turn=broken) as (bridge, _, _server):
        assert "Yes, between us" == (await bridge.open("c").send(TEXT)).text
    assert ["chatbridge"] * 4 == [record.name for record in caplog.records if record.levelname == "ERROR"]
    assert TEXT not in caplog.text
    assert "broken raised RuntimeError" in caplog.text


async def test_x5_no_line_has_content_or_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = " ".join([TEXT, *SPELLINGS.values()])
    fields = [f"X-Request-Id: {KEY}", f"Retry-After: {KEY}"]
    scripts: list[Script] = [
        (READ, answer(said.encode(), f"{status} {KEY}", *fields)) for status in (429, 503, 400, 200)
    ]
    for script in [*scripts, (READ, RESET), (RESET,), (READ, answer(said.encode())[:-1], Step.FIN)]:
        async with watched(script) as (bridge, watch, _):
            for call in (bridge.open("c").send(TEXT), bridge.open("c").refresh(), bridge.create()):
                with pytest.raises(ChatbridgeError):
                    await call
            with pytest.raises(ChatbridgeError):
                async for _conversation in bridge.conversations():
                    pass
        assert_nothing_in(repr(watch.attempts), "an event")
        assert TEXT not in repr(watch.attempts)
    assert caplog.records
    assert_log_clean(caplog.records)
    assert TEXT not in caplog.text


async def test_where_nobody_listens_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("chatbridge").setLevel(logging.WARNING)
    try:
        monkeypatch.setattr("chatbridge.http.api.AttemptWatch.__init__", None)
        async with watched((READ, OK), on_attempt=None) as (bridge, _, _server):
            await bridge.open("c").send(TEXT)
    finally:
        logging.getLogger("chatbridge").setLevel(logging.NOTSET)


async def test_the_library_prints_nothing_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    async with watched((READ, RESET)) as (bridge, _, _server):
        with pytest.raises(DeliveryUnknown):
            await bridge.open("c").send(TEXT)
    assert ("", "") == capfd.readouterr()
