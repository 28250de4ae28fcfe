"""Whatever a server answers: a value of the declared types, or an error of ours (E2, J1, J2)."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chatbridge import (
    AnswerWarning,
    Chat,
    ChatbridgeError,
    Conversation,
    Message,
    Reply,
    Role,
    Usage,
    connect,
)
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, Fault, serve
from hostile import Mutation, Recorded, mutations, record, wrong_in
from operations import APIS, BEYOND, OPERATIONS, Row, Scene

ENOUGH = 80
"""So many mutations of each answer are tried here; all of them in the long test."""


async def stream(scene: Scene) -> object:
    async with scene.chat.stream("Hello") as events:
        told = [event async for event in events]
    return (tuple(told), events.reply)


STREAMS = [
    Row("h2ogpte", "get_completion", "", "", stream),
    Row("tachyon", "chat_completion_on_chatroom", "", "", stream),
    Row("tachyon", "execute_agent", "", "", stream, {"mode": "agent"}),
    Row("mtmai", "agent_run", "", "", stream),
    Row("mtmai", "agent_stream", "", "", stream),
    Row("openai", "createChatCompletion", "", "", stream),
    Row("anthropic", "messages.create", "", "", stream),
]
ROWS = [*OPERATIONS, *BEYOND, *STREAMS]
IDS = [f"{row.api}-{row.operation}-{'stream' if row in STREAMS else 'call'}" for row in ROWS]


@asynccontextmanager
async def scene_of(row: Row) -> AsyncGenerator[tuple[Scene, Emulator, str]]:
    emulator = APIS[row.api].emulator()
    options: dict[str, Any] = {
        "key": emulator.key, "settle_timeout": 0, "clock": ManualClock(), "attempts": 1, **row.options
    }  # fmt: skip
    async with serve(emulator) as served, connect(served.config, **options) as bridge:
        chat = await bridge.create()
        yield Scene(bridge, chat, await chat.send("Hello")), emulator, served.base_url


async def recorded(row: Row) -> Recorded | None:
    """Give what the emulator answers to the operation; None where that has no content."""
    async with scene_of(row) as (scene, emulator, base_url):
        emulator.calls.clear()
        await row.reach(scene)
        call = next((each for each in emulator.calls if each.operation == row.operation), None)
        if call is None or call.method == "DELETE":
            return None
    async with scene_of(row) as (scene, emulator, base_url):
        emulator.calls.clear()
        if row.operation == "agent_stream":  # What is pulled once cannot be asked for again.
            return Recorded(b"".join(_told(emulator)), "text/plain", 200)
        await row.reach(scene)
        call = next(each for each in emulator.calls if each.operation == row.operation)
        return await record(base_url, call)


def _told(emulator: Any) -> Sequence[bytes]:
    runs: list[bytes] = emulator._told("Hello")
    return runs


def chosen(all_of_them: Sequence[Mutation], count: int) -> Sequence[Mutation]:
    """Take *count* of them, spread evenly."""
    step = max(1, len(all_of_them) // count)
    return [*all_of_them[::step], *[each for each in all_of_them if each.only_time][:20]]


async def tried(row: Row, answer: Recorded, damage: Sequence[Mutation]) -> list[str]:
    """Give back each damaged answer in turn, and tell what went wrong."""
    problems: list[str] = []
    async with scene_of(row) as (scene, emulator, _):
        for mutation in damage:
            headers = {"Content-Type": answer.content_type} if answer.content_type else {}
            fault = Fault(status=answer.status, body=mutation.body, headers=headers)
            emulator.faults = [(row.operation, fault)]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                problems += [f"{mutation.name}: {each}" for each in await _one(row, scene, mutation)]
            problems += [
                f"{mutation.name}: warns of {each.message!r}"
                for each in caught
                if not issubclass(each.category, AnswerWarning)
            ]
            emulator.faults.clear()
            for turn in await scene.chat.turns():
                await scene.chat.waive(turn)
    return problems


async def _one(row: Row, scene: Scene, mutation: Mutation) -> list[str]:
    try:
        value = await row.reach(scene)
    except ChatbridgeError as error:
        return _wrong_with(error, mutation)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return [f"raises {error!r}"]
    return list(wrong_in(value.conversation if isinstance(value, Chat) else value))


def _wrong_with(error: ChatbridgeError, mutation: Mutation) -> list[str]:
    problems: list[str] = []
    if not str(error).isprintable():
        problems.append(f"says {str(error)!r}")
    if str(pickle.loads(pickle.dumps(error))) != str(error):
        problems.append("is another after pickling")
    if mutation.only_time:
        problems.append(f"loses it all for a time: {error!r}")
    return problems


@pytest.mark.parametrize("row", ROWS, ids=IDS)
async def test_j2_a_damaged_answer_is_a_value_of_the_declared_types_or_an_error_of_ours(row: Row) -> None:
    answer = await recorded(row)
    if answer is None or not answer.body.strip():
        return  # It has no content, so there is nothing to damage.
    problems = await tried(row, answer, chosen(list(mutations(answer)), ENOUGH))
    assert [] == problems[:20]


def test_the_check_of_types_sees_what_is_wrong() -> None:
    def broken(value: Any, name: str, wrong: object) -> Any:
        object.__setattr__(value, name, wrong)
        return value

    sound = Reply([Message.assistant("Hi")], usage=Usage(1, 2))
    assert [] == list(wrong_in([sound, Conversation("c")]))
    for value in (
        broken(Conversation("c"), "id", 7),
        broken(Conversation("c"), "warnings", ("a", None)),
        broken(Message(Role.USER, "Hi"), "created_at", "yesterday"),
        broken(Message(Role.USER, "Hi"), "role", "user"),
        Reply([broken(Message.assistant("Hi"), "parts", ("Hi",))]),
        broken(Usage(1, 2), "input_tokens", True),
        broken(Conversation("c"), "extra", {1: 2}),
    ):
        assert list(wrong_in([value])), value
