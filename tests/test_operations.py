"""Every operation of every API is reached by a public call: the 36 of the documents, and those beyond."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import entry_points

import pytest

from chatbridge import Bridge
from operations import APIS, BEYOND, OPERATIONS, Row, Scene

TOGETHER = {frozenset({"agent_run", "agent_stream"})}
"""Operations that one public call makes one after the other."""


@pytest.mark.parametrize("row", OPERATIONS + BEYOND, ids=lambda row: f"{row.api}-{row.operation}")
async def test_an_operation_is_reached_by_its_public_call(
    row: Row, reach: Callable[..., Awaitable[Bridge]]
) -> None:
    emulator = APIS[row.api].emulator()
    bridge = await reach(emulator, **row.options)
    chat = await bridge.create()
    scene = Scene(bridge, chat, await chat.send("Hello"))
    emulator.calls.clear()

    await row.reach(scene)

    made = frozenset(each.operation or "" for each in emulator.calls)
    assert made == {row.operation} or (row.operation in made and made in TOGETHER)
    call = next(each for each in emulator.calls if each.operation == row.operation)
    assert row.method == call.method
    assert emulator.base_path + row.path.format(**call.params) == call.path
    ids = {name: scene.answer_id if name == "message_id" else chat.id for name in call.params}
    known = {name: value for name, value in call.params.items() if name not in {"tenant", "stream"}}
    assert {name: ids[name] for name in known} == known
    assert call.status is not None
    assert 200 <= call.status < 300


def table(rows: Sequence[Row], api: str) -> set[tuple[str, str, str]]:
    return {(row.operation, row.method, row.path) for row in rows if row.api == api}


@pytest.mark.parametrize("api", APIS)
def test_an_adapter_declares_the_operations_in_the_table_and_names_the_source_of_those_beyond(
    api: str,
) -> None:
    endpoints = APIS[api].wire.ENDPOINTS
    documented = {(e.operation, e.method, e.path) for e in endpoints if e.beyond is None}
    beyond = {(e.operation, e.method, e.path) for e in endpoints if e.beyond}

    assert (table(OPERATIONS, api), table(BEYOND, api)) == (documented, beyond)
    assert len(endpoints) == sum(bool(e.beyond is None or e.beyond.strip()) for e in endpoints)


@pytest.mark.parametrize("api", APIS)
def test_an_emulator_serves_the_operations_in_the_table(api: str) -> None:
    served = [(each.id, each.method, each.path) for each in APIS[api].emulator().operations]

    assert len(served) == len(set(served))
    assert set() == (table(OPERATIONS, api) | table(BEYOND, api)) - set(served)


def test_the_table_has_the_36_documented_operations_of_every_adapter_each_once() -> None:
    ours = {
        entry.name
        for entry in entry_points(group="chatbridge.backends")
        if entry.value.startswith("chatbridge_adapters.")
    }
    assert ours == set(APIS) == {row.api for row in OPERATIONS}
    kept_there = {"kaziro": 3, "datamonkey": 6, "tachyon": 3, "h2ogpte": 15, "mtmai": 5}
    assert {**kept_there, "openai": 2, "anthropic": 2} == Counter(row.api for row in OPERATIONS)
    rows = OPERATIONS + BEYOND
    assert len(rows) == len({(row.api, row.operation) for row in rows})
