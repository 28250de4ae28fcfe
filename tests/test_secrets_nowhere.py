"""The key shows nowhere, whatever a server answers to whatever call (X4, X5, E2, E4)."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import evolve

from chatbridge import ChatbridgeError, connect
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, Fault, serve
from operations import APIS, BEYOND, OPERATIONS, Row, Scene
from scan import KEY, SPELLINGS, assert_clean, assert_log_clean, assert_nothing_in


async def streamed(scene: Scene) -> None:
    async with scene.chat.stream("Hello") as stream:
        async for _ in stream:
            pass


ROWS = OPERATIONS + BEYOND
STREAMS = [Row(name, "", "", "", streamed) for name in APIS] + [
    Row("tachyon", "", "", "", streamed, {"mode": "agent"})
]

TELLS_ALL = "agent_stream"
"""Whatever document it gives is an event, and so content, which is handed out."""

SAID = " ".join(SPELLINGS.values())
BODIES = [
    SAID.encode(),
    f"<html>{SAID}</html>".encode(),
    b"".join(b"\xff" + spelling.encode() for spelling in SPELLINGS.values()),
    json.dumps({"message": SAID, "error": SAID, "detail": SAID, "code": SAID}).encode(),
    json.dumps({"errors": [{"description": SAID, "code": SAID}], "error": {"message": SAID}}).encode(),
    json.dumps({"detail": [{"loc": [SAID], "msg": SAID, "type": SAID, "input": SAID}], "code": 7}).encode(),
    json.dumps({spelling: spelling for spelling in SPELLINGS.values()}).encode(),
    json.dumps([SAID]).encode(),
    json.dumps({"type": SAID, "detail": SAID}).encode(),
    json.dumps(
        {
            "type": "error",
            "message": {"text": SAID},
            **{name: {SAID: SAID} for name in ("content_block", "delta", "usage", "error")},
            "content": [{"text": SAID}],
        }
    ).encode(),
    json.dumps({"object": SAID, "model": SAID, "usage": {SAID: SAID}, "error": {"message": SAID}}).encode(),
]
HEADERS = {
    "X-Request-Id": KEY,
    "Retry-After": KEY,
    "Location": f"http://user:{KEY}@elsewhere.example/{KEY}?key={KEY}",
    "WWW-Authenticate": f'Bearer error="{KEY}"',
    "Set-Cookie": f"key={KEY}",
}


@asynccontextmanager
async def scene_of(row: Row, emulator: Emulator) -> AsyncGenerator[Scene]:
    options: dict[str, Any] = {"key": KEY, "settle_timeout": 0, "clock": ManualClock(), **row.options}
    async with serve(emulator) as served, connect(served.config, **options) as bridge:
        chat = await bridge.create()
        yield Scene(bridge, chat, await chat.send("Hello"))


def faults() -> list[Fault]:
    refusals = [
        Fault(status=status, body=body, headers=HEADERS)
        for status in (302, 400, 401, 429, 500, 503)
        for body in BODIES[: 4 if status % 100 else None]
    ]
    kept: Any = "turn"
    answers = [Fault(status=200, body=body, headers={"X-Request-Id": KEY}, kept=kept) for body in BODIES]
    coded = Fault(status=200, body=SAID.encode(), headers={"Content-Encoding": "gzip"})
    broken = [Fault(drop="before"), Fault(drop="after"), Fault(cut_after=0), Fault(cut_after=1, cut="end")]
    return [*refusals, *answers, coded, *broken]


@pytest.mark.parametrize("row", [*ROWS, *STREAMS], ids=lambda row: f"{row.api}-{row.operation or 'stream'}")
async def test_x5_a_key_that_the_server_tells_back_shows_nowhere(
    row: Row, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    emulator = APIS[row.api].emulator()
    if hasattr(emulator, "key"):
        emulator.key = KEY
    errors = 0
    async with scene_of(row, emulator) as scene:
        for fault in faults():
            planned = evolve(fault)
            # A read that is repeated meets the same fault each time.
            emulator.faults = [(row.operation or None, planned)] * 3
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    await row.reach(scene)
                except ChatbridgeError as error:
                    errors += 1
                    if row.operation != TELLS_ALL or fault.status != 200:
                        assert_clean(error)
            for warning in caught:
                assert_nothing_in(str(warning.message), "a warning")
            emulator.faults.clear()
            for turn in await scene.chat.turns():
                await scene.chat.waive(turn)
    assert errors > 10
    assert_log_clean(caplog.records)
    for stream in capfd.readouterr():
        assert_nothing_in(stream, "what was printed")


def test_the_scan_finds_what_it_looks_for() -> None:
    def raised(error: Exception, *, cause: Exception | None = None) -> Exception:
        try:
            raise error from cause
        except type(error) as caught:
            return caught

    for bad in (
        ChatbridgeError(f"it said {SPELLINGS['base64']}"),
        ChatbridgeError("no").because(excerpt=KEY),
        raised(ChatbridgeError("no"), cause=ValueError(KEY)),
        raised(ChatbridgeError("no"), cause=OSError("no")),
        raised(ChatbridgeError("no"), cause=json.JSONDecodeError("no", "", 0)),
    ):
        with pytest.raises(AssertionError):
            assert_clean(bad)
    with pytest.raises(AssertionError):
        assert_log_clean([logging.LogRecord("a", 10, "", 0, "%s", (KEY,), None)])
