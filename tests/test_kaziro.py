"""What is particular to Kaziro: what the client sends, and what it makes of odd answers and errors."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    AuthFailed,
    BadOption,
    Bridge,
    DeliveryUnknown,
    Feature,
    FinishReason,
    Message,
    NotFound,
    Outcome,
    RateLimited,
    RequestRefused,
    Role,
    Text,
    ToolCall,
    Unavailable,
    UnsupportedFeature,
    Usage,
    UsageError,
)
from chatbridge.http import ApiError
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.kaziro import ADAPTER, wire
from chatbridge_adapters.kaziro.emulator import COMPLETE, CREATE, RETRIEVE, KaziroEmulator

Reach = Callable[..., Awaitable[Bridge]]

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
SMALLEST = {"id": "x", "created": 1700000000, "choices": [CHOICE]}


def answer(emulator: KaziroEmulator, value: object, operation: str = COMPLETE) -> None:
    """Have the next call answered with *value*."""
    emulator.fail(Fault(status=200, body=json.dumps(value).encode()), operation=operation)


async def test_what_is_sent_is_what_the_client_of_kaziro_sends(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    chat = await kaziro.create()
    await chat.refresh()
    await chat.send("hi é")
    create, retrieve, complete = kaziro_emulator.calls
    for call in (create, retrieve, complete):
        assert kaziro_emulator.key == call.headers["Kaziro-API-Key"]
    assert (b"", None) == (create.body, create.headers.get("Content-Type"))
    assert ({"thread_id": chat.id}, b"") == (retrieve.query, retrieve.body)
    assert "application/json" == complete.headers["Content-Type"]
    assert {
        "model": "kaziro-broker",
        "messages": [{"role": "user", "content": "hi é"}],
        "thread_id": chat.id,
    } == complete.json()


async def test_the_model_of_the_config_is_the_default_and_that_of_the_call_wins(
    reach: Reach, kaziro_emulator: KaziroEmulator
) -> None:
    chat = await (await reach(kaziro_emulator, model="configured")).create()
    models = [(await chat.send("Hello")).model, (await chat.send("Hello", model="asked")).model]
    assert ["configured", "asked"] == models


async def test_extra_headers_go_into_the_body_and_not_among_the_headers(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    chat = await kaziro.create()
    await chat.send("Hello", extra={"extra_headers": {"X-Trace": "1"}})
    call = kaziro_emulator.calls[-1]
    assert isinstance(body := call.json(), dict)
    assert {"X-Trace": "1"} == body["extra_headers"]
    assert "X-Trace" not in call.headers


async def test_what_cannot_be_sent_is_refused_before_anything_leaves(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    chat = kaziro.open("thread")
    for message in ("\ud800", Message.user([Text("a"), ToolCall("1", "f", {})]), Message.assistant("a")):
        with pytest.raises(UsageError):
            await chat.send(message)
    with pytest.raises(BadOption, match="extra_header"):
        await chat.send("Hello", extra={"extra_header": {}})
    with pytest.raises(BadOption, match="workspace"):
        await kaziro.create(extra={"workspace": "w"})
    with pytest.raises(UnsupportedFeature, match="; instead: "):
        await kaziro.create(system="x")
    assert [] == kaziro_emulator.calls


def test_what_kaziro_cannot_do_says_what_there_is_instead() -> None:
    profile = ADAPTER.profile(None)
    assert {Feature.CREATE, Feature.GET, Feature.SEND, Feature.USAGE} == {
        f for f in Feature if profile.can(f)
    }
    for feature in (Feature.LIST, Feature.RENAME, Feature.DELETE, Feature.HISTORY, Feature.ATTACHMENTS):
        assert profile.unsupported(feature).instead


# Answers


async def test_the_smallest_answer_is_one(kaziro: Bridge, kaziro_emulator: KaziroEmulator) -> None:
    answer(kaziro_emulator, {**SMALLEST, "choices": [{"index": 0, "message": CHOICE["message"]}]})
    reply = await kaziro.open("t").send("Hello")
    assert ("hi", "x", None, None) == (reply.text, reply.message.id, reply.usage, reply.model)
    assert datetime.fromtimestamp(1700000000, UTC) == reply.message.created_at
    assert (FinishReason.STOP, None) == (reply.finish_reason, reply.raw_finish_reason)
    assert ({}, {}, ()) == (reply.extra, reply.message.extra, reply.warnings)


async def test_null_stands_for_a_default(kaziro: Bridge, kaziro_emulator: KaziroEmulator) -> None:
    nulls = dict.fromkeys(("object", "model", "usage", "extra"))
    answer(kaziro_emulator, {**SMALLEST, **nulls, "choices": [{**CHOICE, "finish_reason": None}]})
    reply = await kaziro.open("t").send("Hello")
    assert (FinishReason.STOP, None) == (reply.finish_reason, reply.raw_finish_reason)
    assert (None, None, {}) == (reply.model, reply.usage, reply.extra)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [("length", FinishReason.LENGTH), ("content_filter", FinishReason.CONTENT_FILTER), ("bored", "other")],
)
async def test_a_finish_reason_beyond_ours_is_other_and_stays_as_it_came(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator, raw: str, reason: str
) -> None:
    answer(kaziro_emulator, {**SMALLEST, "choices": [{**CHOICE, "finish_reason": raw}]})
    reply = await kaziro.open("t").send("Hello")
    assert (reason, raw) == (reply.finish_reason, reply.raw_finish_reason)


async def test_an_answer_without_a_choice_is_an_empty_one_with_a_warning(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    answer(kaziro_emulator, {**SMALLEST, "choices": [], "model": "m", "note": "n"})
    reply = await kaziro.open("t").send("Hello")
    assert ("", "x", "m", {"note": "n"}) == (reply.text, reply.message.id, reply.model, reply.extra)
    assert ("the answer holds no choice, so there is no text",) == reply.warnings
    assert reply.finish_reason is None


async def test_of_several_choices_the_first_is_the_answer_and_all_are_kept(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    other = {**CHOICE, "index": 1, "message": {"role": "assistant", "content": "ho"}}
    answer(kaziro_emulator, {**SMALLEST, "choices": [CHOICE, other]})
    reply = await kaziro.open("t").send("Hello")
    assert "hi" == reply.text
    assert {"choices": [other]} == reply.extra


async def test_another_role_is_still_the_assistants_answer_and_is_kept(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    said = {"role": "broker", "content": "hi"}
    answer(kaziro_emulator, {**SMALLEST, "choices": [{**CHOICE, "message": said}]})
    message = (await kaziro.open("t").send("Hello")).message
    assert (Role.ASSISTANT, "hi", {"role": "broker"}) == (message.role, message.text, message.extra)


async def test_fields_that_the_model_has_no_place_for_are_kept(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    said = {"role": "assistant", "content": "hi", "mood": "good"}
    answer(
        kaziro_emulator,
        {
            **SMALLEST,
            "object": "chat.completion",
            "extra": {"thread_id": "t"},
            "choices": [{**CHOICE, "message": said, "logprobs": [1]}],
        },
    )
    reply = await kaziro.open("t").send("Hello")
    assert {"object": "chat.completion", "extra": {"thread_id": "t"}} == reply.extra
    assert {"mood": "good", "logprobs": [1]} == reply.message.extra


@pytest.mark.parametrize("created", ["yesterday", [], 1e300, True])
async def test_a_time_that_cannot_be_read_costs_nothing_and_is_kept(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator, created: object
) -> None:
    answer(kaziro_emulator, {**SMALLEST, "created": created})
    reply = await kaziro.open("t").send("Hello")
    assert ("hi", None) == (reply.text, reply.message.created_at)
    assert {"created": created} == reply.extra


async def test_half_a_character_in_an_answer_is_replaced_with_a_warning(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    answer(
        kaziro_emulator,
        {**SMALLEST, "choices": [{**CHOICE, "message": {"role": "assistant", "content": "a\ud800"}}]},
    )
    reply = await kaziro.open("t").send("Hello")
    assert "a\ufffd" == reply.text
    assert 1 == len(reply.warnings)


USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (USAGE, Usage(3, 4, 7)),
        ({"prompt_tokens": 3}, Usage(3)),
        ({"prompt_tokens": "3", "completion_tokens": True, "total_tokens": None}, None),
        ({"tokens": 3}, None),
    ],
)
async def test_usage_is_read_as_far_as_it_is_known_and_kept_as_it_came(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator, raw: dict[str, Any], usage: Usage | None
) -> None:
    answer(kaziro_emulator, {**SMALLEST, "usage": raw})
    reply = await kaziro.open("t").send("Hello")
    assert usage == reply.usage
    assert {"usage": raw} == reply.extra
    assert () == reply.warnings


async def test_usage_that_is_asked_for_and_not_told_is_a_warning(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    reply = await (await kaziro.create()).send("Hello", include="usage")
    assert () == reply.warnings
    for raw in (None, {"tokens": 7}):
        answer(kaziro_emulator, {**SMALLEST, "usage": raw})
        reply = await kaziro.open("t").send("Hello", include="usage")
        assert (None, ("the server told no usage that can be read",)) == (reply.usage, reply.warnings)


@pytest.mark.parametrize(
    "value",
    [
        {"id": "x"},
        {**SMALLEST, "choices": None},
        {**SMALLEST, "choices": [{"index": 0}]},
        {**SMALLEST, "choices": [{**CHOICE, "message": {"role": "assistant", "content": None}}]},
        [],
        "hi",
    ],
)
async def test_an_answer_of_another_form_is_lost_and_says_where(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator, value: object
) -> None:
    answer(kaziro_emulator, value)
    with pytest.raises(AnswerLost, match=r"\$|expected") as lost:
        await kaziro.open("t").send("Hello")
    assert ("schema", Outcome.ACCEPTED, "t") == (
        lost.value.kind,
        lost.value.outcome,
        lost.value.conversation_id,
    )


# Threads


async def test_the_state_of_a_thread_goes_into_extra(kaziro: Bridge) -> None:
    conversation = await (await kaziro.create()).refresh()
    assert {"status": "idle", "user_id": "user_emulator"} == conversation.extra


async def test_a_state_that_is_all_null_tells_nothing(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    answer(kaziro_emulator, dict.fromkeys(("status", "user_id", "processing_message_type")), RETRIEVE)
    conversation = await kaziro.open("t").refresh()
    assert ("t", {}) == (conversation.id, conversation.extra)


async def test_an_id_with_any_signs_arrives_as_it_is(kaziro: Bridge, kaziro_emulator: KaziroEmulator) -> None:
    with pytest.raises(NotFound):
        await kaziro.open("a&b=c é/%2F+?#").refresh()
    assert {"thread_id": "a&b=c é/%2F+?#"} == kaziro_emulator.calls[-1].query


async def test_a_new_thread_keeps_what_else_the_server_tells(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    answer(kaziro_emulator, {"thread_id": 7, "region": "eu"}, CREATE)
    conversation = (await kaziro.create()).conversation
    assert ("7", {"region": "eu"}) == (conversation.id, conversation.extra)


# Errors


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b'{"detail": {"status": "error", "status_code": 400, "message": "Invalid thread"}}',
            "Invalid thread",
        ),
        (
            b'{"detail": [{"loc": ["body", "messages", 0], "msg": "Field required", "type": "missing"}, 7]}',
            "body.messages.0: Field required; not valid",
        ),
        (b'{"detail": "Not authenticated"}', "Not authenticated"),
        (b'{"detail": [{"msg": "Field required"}]}', "?: Field required"),
        (b'{"detail": {"message": 5}}', '{"detail": {"message": 5}}'),
        (b'{"detail": []}', '{"detail": []}'),
        (b'{"detail": null}', '{"detail": null}'),
        (b"[1]", "[1]"),
        (b"Bad Gateway", "Bad Gateway"),
        (b"<html>\xff</html>", "<html>\ufffd</html>"),
        (b"", None),
    ],
)
async def test_an_error_is_read_in_every_form_that_it_may_have(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator, body: bytes, said: str | None
) -> None:
    kaziro_emulator.fail(Fault(status=400, body=body), operation=COMPLETE)
    with pytest.raises(RequestRefused) as refused:
        await kaziro.open("t").send("Hello")
    assert (400, said) == (refused.value.status, refused.value.excerpt)
    assert said is None or said in str(refused.value)
    assert 1 == len(kaziro_emulator.calls)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(st.sampled_from(["detail", "message", "loc", "msg"]), inner)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), nested))
def test_whatever_an_error_body_is_it_can_be_read(body: object) -> None:
    assert isinstance(wire.read_error(400, body), ApiError)
    assert isinstance(wire.read_error(400, {"detail": body}), ApiError)


async def test_a_wrong_key_is_told_and_not_shown(reach: Reach, kaziro_emulator: KaziroEmulator) -> None:
    bridge = await reach(kaziro_emulator)
    kaziro_emulator.key = "another"
    with pytest.raises(AuthFailed, match="Invalid API key") as refused:
        await bridge.create()
    assert "sk-emulator" not in repr(vars(refused.value)) + str(refused.value)


async def test_an_unknown_thread_is_refused_and_named(kaziro: Bridge) -> None:
    with pytest.raises(RequestRefused, match="Invalid thread") as refused:
        await kaziro.open("nowhere").send("Hello")
    assert ("nowhere", 400, False) == (
        refused.value.conversation_id,
        refused.value.status,
        refused.value.retryable,
    )


# Failures under way


@pytest.mark.parametrize("fault", [Fault(drop="after"), Fault(drop="before"), Fault(status=500)])
async def test_a_send_whose_answer_is_lost_is_in_doubt_and_is_not_repeated(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator, fault: Fault
) -> None:
    chat = await kaziro.create()
    kaziro_emulator.fail(fault, operation=COMPLETE)
    with pytest.raises(DeliveryUnknown) as unknown:
        await chat.send("Hello")
    assert 1 == [call.operation for call in kaziro_emulator.calls].count(COMPLETE)
    assert (Outcome.UNKNOWN, False, chat.id) == (
        unknown.value.outcome,
        unknown.value.retryable,
        unknown.value.conversation_id,
    )


async def test_a_creation_whose_answer_is_lost_is_in_doubt_and_is_not_repeated(
    kaziro: Bridge, kaziro_emulator: KaziroEmulator
) -> None:
    kaziro_emulator.fail(Fault(drop="after"))
    with pytest.raises(DeliveryUnknown):
        await kaziro.create()
    assert 1 == len(kaziro_emulator.calls)


async def test_reading_is_repeated_where_the_server_is_busy(
    reach: Reach, kaziro_emulator: KaziroEmulator
) -> None:
    clock = ManualClock()
    chat = await (await reach(kaziro_emulator, clock=clock)).create()
    kaziro_emulator.fail(Fault(status=503), operation=RETRIEVE, times=2)
    assert chat.id == (await chat.refresh()).id
    assert [503, 503, 200] == [call.status for call in kaziro_emulator.calls[1:]]
    assert [0.25, 0.5] == clock.slept


async def test_reading_gives_up_after_the_last_attempt(reach: Reach, kaziro_emulator: KaziroEmulator) -> None:
    chat = (await reach(kaziro_emulator, clock=ManualClock())).open("t")
    kaziro_emulator.fail(Fault(drop="before"), operation=RETRIEVE, times=3)
    with pytest.raises(Unavailable) as lost:
        await chat.refresh()
    assert (3, 3) == (len(kaziro_emulator.calls), len(lost.value.attempts))


async def test_a_send_that_is_one_too_many_waits_as_long_as_the_server_asks(
    reach: Reach, kaziro_emulator: KaziroEmulator
) -> None:
    clock = ManualClock()
    chat = await (await reach(kaziro_emulator, clock=clock)).create()
    kaziro_emulator.fail(Fault(status=429, headers={"Retry-After": "7"}), operation=COMPLETE)
    assert "Turn 1: you said 'Hello'." == (await chat.send("Hello")).text
    assert [7.0] == clock.slept


async def test_a_wait_that_is_too_long_is_left_to_the_caller(
    reach: Reach, kaziro_emulator: KaziroEmulator
) -> None:
    clock = ManualClock()
    chat = await (await reach(kaziro_emulator, clock=clock)).create()
    kaziro_emulator.fail(Fault(status=429, headers={"Retry-After": "3600"}), operation=COMPLETE)
    with pytest.raises(RateLimited) as limited:
        await chat.send("Hello")
    assert (3600.0, [], True) == (limited.value.retry_after, clock.slept, limited.value.retryable)
