"""Every documented operation of every API is reached by a public call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points

import pytest

from chatbridge import Bridge
from operations import APIS, OPERATIONS, Row, Scene


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: f"{row.api}-{row.operation}")
async def test_an_operation_is_reached_by_its_public_call(
    row: Row, reach: Callable[..., Awaitable[Bridge]]
) -> None:
    emulator = APIS[row.api].emulator()
    bridge = await reach(emulator)
    chat = await bridge.create()
    scene = Scene(bridge, chat, await chat.send("Hello"))
    emulator.calls.clear()

    await row.reach(scene)

    call = emulator.calls[0]
    assert {call.operation} == {each.operation for each in emulator.calls}
    assert (row.operation, row.method) == (call.operation, call.method)
    assert emulator.base_path + row.path.format(**call.params) == call.path
    assert call.params.get("session_id", chat.id) == chat.id
    assert call.params.get("message_id", scene.answer_id) == scene.answer_id
    assert call.status is not None
    assert 200 <= call.status < 300


def table(api: str) -> set[tuple[str, str, str]]:
    return {(row.operation, row.method, row.path) for row in OPERATIONS if row.api == api}


@pytest.mark.parametrize("api", APIS)
def test_an_adapter_declares_the_operations_in_the_table_and_marks_others_as_beyond(api: str) -> None:
    endpoints = APIS[api].wire.ENDPOINTS
    documented = {(e.operation, e.method, e.path) for e in endpoints if e.beyond is None}
    assert table(api) == documented


@pytest.mark.parametrize("api", APIS)
def test_an_emulator_serves_the_operations_in_the_table(api: str) -> None:
    served = [(each.id, each.method, each.path) for each in APIS[api].emulator().operations]
    assert len(served) == len(set(served))
    assert table(api) == set(served)


def test_the_table_knows_every_adapter_and_names_no_operation_twice() -> None:
    ours = {
        entry.name
        for entry in entry_points(group="chatbridge.backends")
        if entry.value.startswith("chatbridge_adapters.")
    }
    assert ours == set(APIS) == {row.api for row in OPERATIONS}
    assert len(OPERATIONS) == len({(row.api, row.operation) for row in OPERATIONS})
    assert (3, 15) == (len(table("kaziro")), len(table("h2ogpte")))
