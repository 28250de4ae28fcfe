"""What h2oGPTe says of an answer, references, usage and metadata; its errors, and failures under way."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    AuthFailed,
    BadAnswer,
    Bridge,
    ChatbridgeError,
    DeliveryUnknown,
    Reference,
    RequestRefused,
    SendOptions,
    Unavailable,
    Usage,
)
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.h2ogpte import H2OGPTeBackend, MessageMeta, wire
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator

Reach = Callable[..., Awaitable[Bridge]]
Json = dict[str, Any]


def own(bridge: Bridge) -> H2OGPTeBackend:
    return cast(H2OGPTeBackend, bridge.api)


def answer(emulator: H2OGPTeEmulator, operation: str, value: object) -> None:
    """Have the next call of *operation* answered with *value*."""
    emulator.fail(Fault(status=200, body=json.dumps(value).encode()), operation=operation)


def operations(emulator: H2OGPTeEmulator) -> list[str | None]:
    return [call.operation for call in emulator.calls]


# References, usage, metadata


async def test_references_and_usage_are_attached_where_they_are_asked_for(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    bridge = await reach(h2ogpte_emulator, include="references,usage", collection="maples", llm="big")
    chat = await bridge.create()
    reply = await chat.send("Hello")
    first, second = reply.message.references
    assert ("document-1.pdf", "1", 1.0, "Excerpt 1 of collection maples.") == (
        first.title, first.pages, first.score, first.excerpt,
    )  # fmt: skip
    assert {"collection_id": "maples", "chunk_id": 2, "were_references_deleted": False} == second.extra
    assert "big" == reply.model
    assert reply.usage is not None
    assert 0.001 == reply.usage.cost
    assert reply.usage.total_tokens == (reply.usage.input_tokens or 0) + (reply.usage.output_tokens or 0) > 0
    assert 0.5 == reply.extra["usage_stats"]["response_time"]
    assert ["get_message_references", "get_message_meta"] == operations(h2ogpte_emulator)[-2:]
    assert {"info_type": "usage_stats"} == h2ogpte_emulator.calls[-1].query


async def test_nothing_more_is_read_unless_it_is_asked_for(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    reply = await (await h2ogpte.create()).send("Hello")
    assert ((), None, None) == (reply.message.references, reply.usage, reply.model)
    assert ["create_chat_session", "get_completion"] == operations(h2ogpte_emulator)


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_cannot_be_read_beside_an_answer_is_a_warning(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, streamed: bool
) -> None:
    chat = await h2ogpte.create()
    h2ogpte_emulator.fail(Fault(status=404), operation="get_message_references")
    answer(h2ogpte_emulator, "get_message_meta", {"not": "a list"})
    options = SendOptions(include=["references", "usage"])
    if streamed:
        async with chat.stream("Hello", options) as stream:
            assert [event async for event in stream]
        reply = stream.reply
    else:
        reply = await chat.send("Hello", options)
    assert "Turn 1: you said 'Hello'." == reply.text
    references, usage = reply.warnings
    assert references.startswith("the references could not be read: h2ogpte get_message_references")
    assert usage.startswith("the usage could not be read: h2ogpte get_message_meta")


async def test_a_server_that_tells_no_usage_is_a_warning(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    chat = await h2ogpte.create()
    answer(h2ogpte_emulator, "get_message_meta", [])
    reply = await chat.send("Hello", include={"usage"})
    assert (None, ("the server told no usage that can be read",)) == (reply.usage, reply.warnings)


async def test_an_older_server_that_gives_no_id_is_a_warning_where_more_was_asked_for(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    chat = h2ogpte.open("s")
    answer(h2ogpte_emulator, "get_completion", {"body": "Hi"})
    reply = await chat.send("Hello", include={"usage"})
    assert ("Hi", None) == (reply.text, reply.message.id)
    assert ("the server gave the answer no id, so nothing more can be read of it",) == reply.warnings
    answer(h2ogpte_emulator, "get_completion", {"body": "Hi"})
    assert () == (await chat.send("Hello")).warnings
    assert ["get_completion"] * 2 == operations(h2ogpte_emulator)


async def test_what_else_comes_with_an_answer_is_kept_whatever_it_is(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    told = {"body": "Hi", "message_id": 5, "usage_stats": "none", "llm": 3}
    answer(h2ogpte_emulator, "get_completion", told)
    reply = await h2ogpte.open("s").send("Hello")
    assert ("5", None, {"usage_stats": "none", "llm": 3}) == (reply.message.id, reply.model, reply.extra)


async def test_the_metadata_of_a_message_is_read_whole_or_by_type(h2ogpte: Bridge) -> None:
    chat, backend = await h2ogpte.create(), own(h2ogpte)
    options = SendOptions(extra={"rag_config": {"rag_type": "llm_only"}})
    message_id = (await chat.send("Hello", options)).message.id or ""
    entries = await backend.message_meta(message_id)
    assert ["usage_stats", "prompt_raw", "llm_only"] == [entry.message_type for entry in entries]
    assert (MessageMeta("llm_only", "Turn 1: you said 'Hello'."),) == await backend.message_meta(
        message_id, "llm_only"
    )
    with pytest.raises(RequestRefused, match="info_type must be one of"):
        await backend.message_meta(message_id, "mood")


async def test_references_and_questions_can_be_limited(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    chat, backend = await h2ogpte.create(extra={"collection_id": "maples"}), own(h2ogpte)
    message_id = (await chat.send("Hello")).message.id or ""
    assert 2 == len(await backend.message_references(message_id))
    assert {} == h2ogpte_emulator.calls[-1].query
    assert 1 == len(await backend.message_references(message_id, limit=1))
    questions = ("What can you do?", "What follows from 'Hello'?")
    assert questions == await backend.suggested_questions(chat.id)
    assert questions[:1] == await backend.suggested_questions(chat.id, limit=1)


async def test_references_of_older_servers_have_no_score(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    old = {"document_id": "d", "document_name": "D", "chunk_id": 1, "pages": "1-2", "content": None}
    answer(h2ogpte_emulator, "get_message_references", [old])
    assert (Reference("d", title="D", pages="1-2"),) == await own(h2ogpte).message_references("m")


@pytest.mark.parametrize(
    ("stats", "usage"),
    [
        ({"usage": [{"input_tokens": 1, "output_tokens": 2}, {"input_tokens": 4}]}, Usage(5, 2)),
        ({"usage": {"input_tokens": 1}, "input_tokens": 9}, Usage(1)),
        ({"input_tokens": 1, "output_tokens": 2, "cost": 1}, Usage(1, 2, cost=1.0)),
        ({"usage": [], "cost": 0.5}, Usage(cost=0.5)),
        ({"usage": [{"input_tokens": "1", "output_tokens": True}, 7]}, None),
        ({"usage": None, "cost": True}, None),
        ({"cost": 10**400}, None),
        ({}, None),
    ],
)
def test_usage_is_read_as_far_as_it_is_known(stats: Json, usage: Usage | None) -> None:
    entries = [MessageMeta("prompt_raw", "{"), MessageMeta("usage_stats", json.dumps(stats))]
    assert (usage, stats) == wire.to_usage(entries)


def test_usage_beyond_json_or_in_no_object_is_none() -> None:
    for content in ("", "not JSON", "[1]", "NaN", '{"cost": 1e999}', "[" * 5000, '{"a": 1, "a": 2}'):
        assert (None, {}) == wire.to_usage([MessageMeta("usage_stats", content)])
    usage, stats = wire.to_usage([MessageMeta("usage_stats", r'{"llm": "a\ud800", "cost": 1}')])
    assert (Usage(cost=1.0), {"llm": "a\ufffd", "cost": 1}) == (usage, stats)


NAMES = st.sampled_from(["usage", "input_tokens", "output_tokens", "cost", "llm"]) | st.text()


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(NAMES, inner)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), nested))
@example({"usage": [{"input_tokens": 10**400}], "cost": -(10**400)})
def test_whatever_usage_stats_hold_it_is_usage_or_nothing(stats: object) -> None:
    usage, kept = wire.to_usage([MessageMeta("usage_stats", json.dumps(stats))])
    assert usage is None or usage != Usage()
    assert kept in ({}, stats)


# Errors


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b'{"code": 400, "message": "So not", "error_type": "bad"}', "bad", "So not"),
        (b'{"code": 400, "message": "So not"}', None, "So not"),
        (b'{"code": "x", "message": null}', None, '{"code": "x", "message": null}'),
        (b'["no"]', None, '["no"]'),
        (b"nginx", None, "nginx"),
        (b"", None, None),
    ],
)
async def test_an_error_is_read_in_every_form_that_it_may_have(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, body: bytes, code: str | None, said: str | None
) -> None:
    h2ogpte_emulator.fail(Fault(status=400, body=body))
    with pytest.raises(RequestRefused) as refused:
        await h2ogpte.open("s").send("Hello")
    assert (400, code, said) == (refused.value.status, refused.value.code, refused.value.excerpt)


async def test_a_wrong_key_is_told_and_not_shown(reach: Reach, h2ogpte_emulator: H2OGPTeEmulator) -> None:
    bridge = await reach(h2ogpte_emulator)
    h2ogpte_emulator.key = "another"
    with pytest.raises(AuthFailed, match="missing API key") as refused:
        await bridge.create()
    assert "sk-emulator" not in repr(vars(refused.value)) + str(refused.value)


@pytest.mark.parametrize(
    ("operation", "value", "path"),
    [
        ("get_chat_session", {"updated_at": "2026-01-01T12:00:00Z"}, "$.id"),
        ("get_chat_session", {"id": "s", "name": 5}, "$.name"),
        ("get_chat_session", [], "$"),
    ],
)
async def test_an_answer_of_another_form_says_where(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, operation: str, value: object, path: str
) -> None:
    answer(h2ogpte_emulator, operation, value)
    with pytest.raises(BadAnswer) as bad:
        await h2ogpte.open("s").refresh()
    assert str(bad.value).endswith(f"@ {path}")


async def test_an_answer_without_a_body_is_lost(h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator) -> None:
    answer(h2ogpte_emulator, "get_completion", {"message_id": "m"})
    with pytest.raises(AnswerLost, match=r"required field missing @ \$.body"):
        await h2ogpte.open("s").send("Hello")


# Failures under way


@pytest.mark.parametrize("fault", [Fault(drop="after"), Fault(drop="before"), Fault(status=503)])
async def test_a_send_whose_answer_is_lost_is_in_doubt_and_is_not_repeated(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, fault: Fault
) -> None:
    chat = await h2ogpte.create()
    h2ogpte_emulator.fail(fault, operation="get_completion")
    with pytest.raises(DeliveryUnknown) as unknown:
        await chat.send("Hello")
    assert 1 == operations(h2ogpte_emulator).count("get_completion")
    assert (chat.id, False) == (unknown.value.conversation_id, unknown.value.retryable)


async def test_reading_is_repeated_where_the_server_is_busy(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    clock = ManualClock()
    bridge = await reach(h2ogpte_emulator, clock=clock)
    await bridge.create()
    h2ogpte_emulator.fail(Fault(status=503), operation="list_chat_sessions")
    assert 1 == len([conversation async for conversation in bridge.conversations()])
    assert [503, 200, 200] == [call.status for call in h2ogpte_emulator.calls[1:]]
    assert [0.25] == clock.slept


async def test_reading_and_renaming_wait_as_long_as_the_server_asks(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    clock = ManualClock()
    chat = await (await reach(h2ogpte_emulator, clock=clock)).create()
    for operation, seconds in {"get_chat_session": "5", "update_chat_session": "6"}.items():
        h2ogpte_emulator.fail(Fault(status=429, headers={"Retry-After": seconds}), operation=operation)
    await chat.refresh()
    assert "Nara" == (await chat.rename("Nara")).title
    assert [5.0, 6.0] == clock.slept


async def test_reading_gives_up_after_the_last_attempt(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    bridge = await reach(h2ogpte_emulator, clock=ManualClock(), attempts=2)
    h2ogpte_emulator.fail(Fault(status=500), operation="get_chat_session", times=2)
    with pytest.raises(Unavailable) as lost:
        await bridge.open("s").refresh()
    assert 2 == len(lost.value.attempts) == len(h2ogpte_emulator.calls)


async def test_a_page_that_fails_ends_the_list_with_an_error(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    bridge = await reach(h2ogpte_emulator, clock=ManualClock())
    for _ in range(101):
        await bridge.create()
    sessions = bridge.conversations()
    for _ in range(100):
        await anext(sessions)
    h2ogpte_emulator.fail(Fault(status=401), operation="list_chat_sessions")
    with pytest.raises(ChatbridgeError):
        await anext(sessions)
