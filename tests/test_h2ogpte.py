"""What is particular to h2oGPTe: sessions, their history, and what a question carries."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from chatbridge import (
    BadOption,
    Bridge,
    Feature,
    Message,
    NotFound,
    RequestRefused,
    Role,
    SendOptions,
    Support,
    ToolResult,
    UnsupportedFeature,
    UsageError,
)
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.h2ogpte import ADAPTER, H2OGPTeBackend, wire
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


def test_what_h2ogpte_cannot_do_says_what_there_is_instead() -> None:
    profile = ADAPTER.profile(None)
    cannot = {feature for feature in Feature if not profile.can(feature)}
    assert cannot == set(profile.instead)


# Sessions


async def test_a_session_is_created_without_a_body_or_a_parameter(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    await h2ogpte.create()
    (call,) = h2ogpte_emulator.calls
    assert (b"", {}, None) == (call.body, call.query, call.headers.get("Content-Type"))
    assert f"Bearer {h2ogpte_emulator.key}" == call.headers["Authorization"]


async def test_a_new_session_has_the_collection_and_the_template_of_the_config(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    bridge = await reach(h2ogpte_emulator, collection="maples", prompt_template="guide")
    conversation = (await bridge.create()).conversation
    assert ("maples", "guide") == (
        conversation.extra["collection_id"],
        conversation.extra["prompt_template_id"],
    )
    create, template = h2ogpte_emulator.calls
    assert {"collection_id": "maples"} == create.query
    assert {"prompt_template_id": "guide"} == template.json()


async def test_what_the_call_says_wins_over_the_config(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    bridge = await reach(h2ogpte_emulator, collection="maples", prompt_template="guide")
    extra = {"collection_id": "oaks", "prompt_template_id": None, "workspace": "w"}
    conversation = (await bridge.create(extra=extra)).conversation
    assert ("oaks", "w") == (conversation.extra["collection_id"], conversation.extra["workspace"])
    assert ["create_chat_session"] == operations(h2ogpte_emulator)


async def test_a_template_that_is_refused_after_creation_does_not_orphan_the_session(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    h2ogpte_emulator.fail(Fault(status=404), operation="update_chat_session_prompt_template")
    with pytest.raises(NotFound) as refused:
        await h2ogpte.create(extra={"prompt_template_id": "gone"})
    (kept,) = [conversation.id async for conversation in h2ogpte.conversations()]
    assert kept == refused.value.conversation_id


async def test_a_title_is_given_by_renaming_the_new_session(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    assert Support.EMULATED is h2ogpte.profile.support(Feature.TITLE)
    chat = await h2ogpte.create(title="Kyoto")
    assert ["create_chat_session", "update_chat_session"] == operations(h2ogpte_emulator)
    assert "Kyoto" == chat.conversation.title == (await chat.refresh()).title


async def test_a_title_that_is_refused_does_not_orphan_the_session(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    h2ogpte_emulator.fail(Fault(status=400), operation="update_chat_session")
    with pytest.raises(RequestRefused) as refused:
        await h2ogpte.create(title="Kyoto")
    (kept,) = [conversation.id async for conversation in h2ogpte.conversations()]
    assert kept == refused.value.conversation_id


async def test_a_collection_and_a_template_can_be_changed_and_taken_away(h2ogpte: Bridge) -> None:
    chat, backend = await h2ogpte.create(), own(h2ogpte)
    assert "maples" == (await backend.attach_collection(chat.id, "maples")).extra["collection_id"]
    assert "collection_id" not in (await backend.detach_collection(chat.id)).extra
    assert "guide" == (await backend.set_prompt_template(chat.id, "guide")).extra["prompt_template_id"]
    assert "prompt_template_id" not in (await backend.remove_prompt_template(chat.id)).extra


async def test_sessions_are_listed_page_by_page_and_only_as_far_as_asked(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    made = [(await h2ogpte.create()).id for _ in range(250)]
    h2ogpte_emulator.calls.clear()

    listed = [conversation.id async for conversation in h2ogpte.conversations()]
    assert made[::-1] == listed
    assert [("0", "100"), ("100", "100"), ("200", "100")] == [
        (call.query["offset"], call.query["limit"]) for call in h2ogpte_emulator.calls
    ]

    h2ogpte_emulator.calls.clear()
    some = h2ogpte.conversations()
    assert made[::-1][:101] == [(await anext(some)).id for _ in range(101)]
    assert 2 == len(h2ogpte_emulator.calls)


async def test_a_last_page_that_is_full_is_followed_by_an_empty_one(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    for _ in range(100):
        await h2ogpte.create()
    h2ogpte_emulator.calls.clear()
    assert 100 == len([conversation async for conversation in h2ogpte.conversations()])
    assert 2 == len(h2ogpte_emulator.calls)


async def test_a_session_that_moves_between_two_pages_is_listed_once(h2ogpte: Bridge) -> None:
    made = [(await h2ogpte.create()).id for _ in range(150)]
    sessions = h2ogpte.conversations()
    listed = [(await anext(sessions)).id for _ in range(100)]
    await h2ogpte.create()  # The newest comes first, and pushes the hundredth to the second page.
    listed += [conversation.id async for conversation in sessions]
    assert made[::-1] == listed


async def test_sessions_are_counted_without_listing_them(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    await h2ogpte.create()
    await h2ogpte.create()
    assert 2 == await own(h2ogpte).count_conversations()
    assert "get_chat_session_count" == operations(h2ogpte_emulator)[-1]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=200, body=b'{"id": "s", "updated_at": "2026-01-01T00:00:00Z"}'),
        Fault(status=200, body=b"done"),
        Fault(status=204, body=b""),
    ],
)
async def test_a_deletion_is_judged_by_its_status_alone(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, fault: Fault
) -> None:
    h2ogpte_emulator.fail(fault, operation="delete_chat_session")
    await h2ogpte.open("s").delete()
    assert {} == h2ogpte_emulator.calls[-1].query


async def test_how_long_a_deletion_may_take_is_an_option(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    bridge = await reach(h2ogpte_emulator, timeout_delete=20)
    await (await bridge.create()).delete()
    assert {"timeout": "20"} == h2ogpte_emulator.calls[-1].query


async def test_a_deletion_in_doubt_that_then_finds_nothing_is_done(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    chat = await (await reach(h2ogpte_emulator, clock=ManualClock())).create()
    h2ogpte_emulator.fail(Fault(drop="after", kept="turn"), operation="delete_chat_session")
    await chat.delete()
    assert [None, 404] == [call.status for call in h2ogpte_emulator.calls[1:]]


async def test_deleting_what_never_was_is_refused(h2ogpte: Bridge) -> None:
    with pytest.raises(NotFound):
        await h2ogpte.open("nowhere").delete()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00:00+00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T14:00:00.5+02:00", datetime(2026, 1, 1, 12, 0, 0, 500000, tzinfo=UTC)),
        ("2026-01-01T12:00:00.123456Z", datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2026-01-01 12:00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("lately", None),
        ("", None),
        (None, None),
        ([], None),
    ],
)
async def test_a_time_is_read_in_every_form_and_one_that_cannot_be_costs_nothing(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, text: object, moment: datetime | None
) -> None:
    answer(h2ogpte_emulator, "get_chat_session", {"id": "s", "updated_at": text})
    conversation = await h2ogpte.open("s").refresh()
    assert moment == conversation.updated_at
    assert (text if moment is None else None) == conversation.extra.get("updated_at")


async def test_fields_of_newer_servers_are_kept(h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator) -> None:
    session = {"id": 7, "name": None, "updated_at": "2026-01-01T12:00:00Z", "status": "active", "color": None}
    answer(h2ogpte_emulator, "get_chat_session", session)
    conversation = await h2ogpte.open("7").refresh()
    assert ("7", None) == (conversation.id, conversation.title)
    assert {"status": "active"} == conversation.extra


# History

QUESTION: Json = {
    "id": "q",
    "content": "Hello",
    "votes": 0,
    "created_at": "2026-01-01T12:00:00Z",
    "has_references": False,
    "total_references": 0,
}
ANSWER: Json = {**QUESTION, "id": "a", "content": "Hi", "reply_to": "q"}


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (QUESTION, Role.USER),
        ({**QUESTION, "reply_to": None}, Role.USER),
        (ANSWER, Role.ASSISTANT),
        ({**ANSWER, "reply_to": 7}, Role.ASSISTANT),
    ],
)
async def test_what_replies_is_the_assistants_and_all_else_the_users(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, message: Json, role: Role
) -> None:
    answer(h2ogpte_emulator, "get_chat_session_messages", [message])
    answer(h2ogpte_emulator, "get_chat_session_messages", [])
    (read,) = [each async for each in h2ogpte.open("s").messages()]
    assert role is read.role
    assert (message["id"], message["content"]) == (read.id, read.text)
    reply_to = message.get("reply_to")
    assert (None if reply_to is None else str(reply_to)) == read.reply_to
    assert {"votes": 0, "has_references": False, "total_references": 0} == read.extra


async def test_what_else_is_told_of_a_message_is_kept(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    told = {**QUESTION, "username": "ada", "error": "The model left", "llm_args": "null", "created_at": "?"}
    answer(h2ogpte_emulator, "get_chat_session_messages", [told])
    answer(h2ogpte_emulator, "get_chat_session_messages", [])
    (message,) = [each async for each in h2ogpte.open("s").messages()]
    assert ("ada", None, "?") == (message.author, message.created_at, message.extra["created_at"])
    assert ("The model left", "null", 0) == tuple(message.extra[n] for n in ("error", "llm_args", "votes"))


@pytest.mark.parametrize("clip", [1, 50, 60, 119, 120, 121])
async def test_a_server_that_clips_the_pages_is_read_to_the_end(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, clip: int
) -> None:
    for _ in range(120):
        await h2ogpte.create()
    h2ogpte_emulator.max_limit = clip
    assert 120 == len([conversation async for conversation in h2ogpte.conversations()])


@pytest.mark.parametrize(
    ("lengths", "requests"), [([0], 1), ([3, 0], 2), ([100, 0], 2), ([100, 99], 2), ([50, 50, 20], 3)]
)
async def test_pages_end_with_one_that_is_empty_or_shorter_than_the_one_before(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, lengths: list[int], requests: int
) -> None:
    for number, length in enumerate(lengths):
        page = [{**QUESTION, "id": f"{number}.{each}"} for each in range(length)]
        answer(h2ogpte_emulator, "get_chat_session_messages", page)
    assert sum(lengths) == len([message async for message in h2ogpte.open("s").messages()])
    assert requests == len(h2ogpte_emulator.calls)


async def test_a_history_is_read_page_by_page_and_only_as_far_as_asked(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    page = [{**QUESTION, "id": f"m{number}"} for number in range(100)]
    answer(h2ogpte_emulator, "get_chat_session_messages", page)
    answer(h2ogpte_emulator, "get_chat_session_messages", [{**QUESTION, "id": "last"}])
    chat = h2ogpte.open("s")
    assert 101 == len([message async for message in chat.messages()])
    assert ["0", "100"] == [call.query["offset"] for call in h2ogpte_emulator.calls]
    answer(h2ogpte_emulator, "get_chat_session_messages", page)
    assert ["m0", "m1"] == [message.id async for message in chat.messages(limit=2)]
    assert 3 == len(h2ogpte_emulator.calls)


async def test_an_unknown_message_to_begin_behind_is_an_error(h2ogpte: Bridge) -> None:
    chat = await h2ogpte.create()
    with pytest.raises(UsageError, match="'nowhere'"):
        await anext(chat.messages(after="nowhere"))


# What a question carries


async def test_a_plain_question_carries_nothing_else(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    chat = await h2ogpte.create()
    await chat.send("Hello")
    assert {"message": "Hello"} == h2ogpte_emulator.calls[-1].json()
    async with chat.stream("Hello") as stream:
        assert [piece async for piece in stream.text()]
    assert {"message": "Hello", "stream": True} == h2ogpte_emulator.calls[-1].json()


async def test_every_option_and_every_field_reaches_the_server(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    extra: Json = {
        "image_batch_final_prompt": "final",
        "image_batch_image_prompt": "image",
        "include_chat_history": "auto",
        "llm_args": {"use_agent": True, "temperature": 1.0},
        "pre_prompt_query": "before",
        "prompt_query": "after",
        "rag_config": {"rag_type": "llm_only"},
        "self_reflection_config": {"llm_reflection": "gpt"},
        "tags": ["tree"],
    }
    assert set(extra) == set(wire.CompletionRequest.__annotations__) - {
        "message", "system_prompt", "llm", "stream",
    }  # fmt: skip
    options = SendOptions(
        model="big",
        system="Be brief.",
        temperature=0.5,
        top_p=0.25,
        max_output_tokens=99,
        seed=7,
        extra=extra,
    )
    reply = await (await h2ogpte.create()).send("Hello", options)
    llm_args = {"use_agent": True, "temperature": 0.5, "top_p": 0.25, "max_new_tokens": 99, "seed": 7}
    assert {
        **extra,
        "message": "Hello",
        "system_prompt": "Be brief.",
        "llm": "big",
        "llm_args": llm_args,
    } == h2ogpte_emulator.calls[-1].json()
    assert () == reply.warnings


async def test_options_of_the_config_go_with_each_question(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    bridge = await reach(h2ogpte_emulator, llm="auto", include_chat_history="false")
    chat = await bridge.create(system="Be brief.")
    await chat.send("One")
    assert {
        "message": "One",
        "llm": "auto",
        "include_chat_history": "false",
        "system_prompt": "Be brief.",
    } == h2ogpte_emulator.calls[-1].json()
    assert "Turn 1: you said 'Two'." == (await chat.send("Two")).text
    seen = await chat.send("Three", model="big", extra={"include_chat_history": True})
    assert "Turn 3: you said 'Three'. Before that you said 'Two'." == seen.text
    assert isinstance(body := h2ogpte_emulator.calls[-1].json(), dict)
    assert ("big", "true") == (body["llm"], body["include_chat_history"])


@pytest.mark.parametrize(("given", "sent"), [(True, "true"), (False, "false"), ("auto", "auto")])
async def test_whether_the_history_is_seen_is_sent_as_text(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, given: object, sent: str
) -> None:
    await (await h2ogpte.create()).send("Hello", extra={"include_chat_history": given})
    assert {"message": "Hello", "include_chat_history": sent} == h2ogpte_emulator.calls[-1].json()


async def test_no_llm_args_are_none(h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator) -> None:
    chat = await h2ogpte.create()
    for llm_args in ("{}", "null"):
        await chat.send("Hello", extra={"llm_args": json.loads(llm_args)})
        assert {"message": "Hello"} == h2ogpte_emulator.calls[-1].json()


async def test_what_cannot_be_sent_is_refused_before_anything_leaves(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    chat = h2ogpte.open("s")
    refused: tuple[tuple[str | Message, SendOptions], ...] = (
        ("a\ud800", SendOptions()),
        ("Hello", SendOptions(system="\udc00")),
        ("Hello", SendOptions(extra={"tags": ["\ud800"]})),
        ("Hello", SendOptions(extra={"llm_args": "hot"})),
        ("Hello", SendOptions(extra={"llm_args": {"temperature": float("nan")}})),
        ("Hello", SendOptions(extra={"timeout": 3})),
        (Message.user([ToolResult("1", "2")]), SendOptions()),
        (Message.assistant("Hello"), SendOptions()),
    )
    for message, options in refused:
        with pytest.raises(UsageError):
            await chat.send(message, options)
        with pytest.raises(UsageError):
            await chat.stream(message, options).__aenter__()
    for extra in ({"name": "n"}, {"collection": "c"}):
        with pytest.raises(BadOption, match="options: collection_id, prompt_template_id, workspace"):
            await h2ogpte.create(extra=extra)
    for session_id in ("a/b", "..", "\ud800"):
        with pytest.raises(UsageError):
            await h2ogpte.open(session_id).send("Hello")
    with pytest.raises(UnsupportedFeature, match="instead: say it in the first message"):
        await h2ogpte.create(history=[Message.user("Hello")])
    assert [] == h2ogpte_emulator.calls
