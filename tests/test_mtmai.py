"""What is particular to Mtmai's sessions: the contract, credentials, what is sent, odd answers and errors."""

from __future__ import annotations

import base64
import json
import traceback
import uuid
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    AnswerWarning,
    AuthFailed,
    BadAnswer,
    BadOption,
    Bridge,
    Chat,
    ConfigError,
    Conversation,
    DeliveryUnknown,
    Feature,
    Message,
    NotFound,
    RequestRefused,
    Role,
    Unavailable,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.backend import ContextOwner, Stores
from chatbridge.config import BackendURL
from chatbridge.http import ApiError, BrokenContent, structure
from chatbridge.registry import resolve
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.mtmai import ADAPTER, MtmaiOptions, wire
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator

Reach = Callable[..., Awaitable[Bridge]]
Json = dict[str, Any]

TENANT = "707d0855-80ab-4e1f-a156-f1c4546cbf52"
SESSION = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
CHATS = f"/api/v1/tenants/{TENANT}/chats"
AT = "2025-02-11T08:00:00Z"
META = {"id": SESSION, "createdAt": AT, "updatedAt": AT}
NOON = datetime(2025, 2, 11, 8, tzinfo=UTC)


@pytest.fixture
def emulator() -> MtmaiEmulator:
    return MtmaiEmulator()


@pytest.fixture
async def mtmai(reach: Reach, emulator: MtmaiEmulator) -> Bridge:
    return await reach(emulator)


def answer(emulator: MtmaiEmulator, value: object, operation: str | None = None) -> None:
    """Have the next call answered with *value*; halves of characters are escaped."""
    emulator.fail(Fault(status=200, body=json.dumps(value).encode()), operation=operation)


def session(**fields: object) -> Json:
    return {"metadata": META, "name": "会话", "version": "1", **fields}


def message(number: int, **fields: object) -> Json:
    at = f"2025-02-11T08:00:{number:02}Z"
    metadata = {"id": f"m{number}", "createdAt": at, "updatedAt": at}
    return {"metadata": metadata, "role": "user", "content": f"no {number}", **fields}


async def listed(bridge: Bridge) -> list[Conversation]:
    return [conversation async for conversation in bridge.conversations()]


async def history(chat: Chat, **how: Any) -> list[Message]:
    return [each async for each in chat.bridge.backend.list_messages(chat.id, **how)]


# The profile, options and credentials


def options(**given: object) -> MtmaiOptions:
    target = resolve(BackendURL.parse("mtmai://mtm.ai"), {"key": "k", "tenant": TENANT, **given}, {})
    assert isinstance(target.options, MtmaiOptions)
    return target.options


def test_what_can_be_done_depends_on_the_team() -> None:
    sessions = {
        Feature.CREATE, Feature.TITLE, Feature.GET, Feature.LIST, Feature.RENAME, Feature.HISTORY,
    }  # fmt: skip
    for team, features in ((None, sessions), ("t", sessions | {"send", "stream", "usage"})):
        for profile in (ADAPTER.profile(options(team=team)),):
            assert features == {feature for feature in Feature if profile.can(feature)}
            assert (ContextOwner.NONE, Stores.NEVER) == (profile.context, profile.stores)
            assert (frozenset(), frozenset()) == (profile.options, profile.settle_by)
    assert ADAPTER.profile(None) == ADAPTER.profile(options())


async def test_without_a_team_a_message_cannot_be_sent_and_the_error_says_how_it_could() -> None:
    async with connect("mtmai://mtm.ai", key="k", tenant=TENANT) as bridge:
        chat = bridge.open(SESSION)
        for call in (lambda: chat.send("Hi"), lambda: chat.stream("Hi").__aenter__()):
            with pytest.raises(UnsupportedFeature, match=r"name a team \(option team\)"):
                await call()


@pytest.mark.parametrize(
    "tenant", ["t", TENANT[:-1], TENANT + "0", TENANT.replace("-", ""), "g" * 36, TENANT + "\n"]
)
def test_a_tenant_is_a_uuid_of_36_characters(tenant: str) -> None:
    with pytest.raises(BadOption, match="is not a UUID of 36 characters, such as"):
        options(tenant=tenant)


def test_a_tenant_may_be_written_in_capitals() -> None:
    assert TENANT.upper() == options(tenant=TENANT.upper()).tenant


def test_key_and_tenant_come_from_the_variables_of_the_worker() -> None:
    environ = {"HATCHET_CLIENT_TOKEN": "second", "HATCHET_CLIENT_TENANT_ID": TENANT}
    url = BackendURL.parse("mtmai://mtm.ai")
    chosen = resolve(url, {}, environ).options
    assert isinstance(chosen, MtmaiOptions)
    assert ("second", TENANT) == (chosen.key.reveal(), chosen.tenant)
    first = resolve(url, {}, {**environ, "MTMAI_TOKEN": "first"}).options
    assert isinstance(first, MtmaiOptions)
    assert "first" == first.key.reveal()


def test_what_is_missing_is_said() -> None:
    with pytest.raises(BadOption, match="HATCHET_CLIENT_TENANT_ID"):
        resolve(BackendURL.parse("mtmai://mtm.ai"), {"key": "k"}, {})
    with pytest.raises(ConfigError, match="mtmai has no public host"):
        resolve(BackendURL.parse("mtmai:"), {"key": "k", "tenant": TENANT}, {})


@pytest.mark.parametrize(
    ("auth", "key", "header", "value"),
    [
        ("bearer", "token", "Authorization", "Bearer token"),
        ("basic", "me:a:b\u00e9", "Authorization", "Basic " + base64.b64encode(b"me:a:b\xc3\xa9").decode()),
        ("basic", "nöm:päss中", "Authorization", "Basic " + base64.b64encode("nöm:päss中".encode()).decode()),
        ("cookie", "v=1", "Cookie", "hatchet=v=1"),
        ("cookie", "hatchet=v", "Cookie", "hatchet=v"),
    ],
)
async def test_a_key_is_presented_in_one_of_three_ways(
    reach: Reach, emulator: MtmaiEmulator, auth: str, key: str, header: str, value: str
) -> None:
    emulator.key = key
    bridge = await reach(emulator, auth=auth)
    emulator.key = key.removeprefix("hatchet=")
    assert [] == await listed(bridge)
    (call,) = emulator.calls
    assert value == call.headers[header]
    assert {"Authorization", "Cookie"} - {header} == {"Authorization", "Cookie"}.difference(call.headers)


@pytest.mark.parametrize(
    ("auth", "key"),
    [
        ("basic", "sesame"),
        ("cookie", "sesame; admin=1"),
        ("cookie", "sesame,x"),
        ("cookie", 'ses"ame'),
        ("cookie", "ses ame"),
        ("cookie", "ses\\ame"),
        ("cookie", "sesam\u00e9"),
        ("cookie", "hatchet="),
        ("cookie", "hatchet=sesame;"),
    ],
)
def test_a_key_that_cannot_be_presented_is_refused_and_not_shown(auth: str, key: str) -> None:
    with pytest.raises(BadOption) as refused:
        connect("mtmai://mtm.ai", key=key, tenant=TENANT, auth=auth)
    shown = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    told = "".join(frame for frame in shown.format() if "test_mtmai" not in frame)
    assert "sesam" not in told
    assert "mtmai: option 'key' " in str(refused.value)


@pytest.mark.parametrize(
    ("auth", "key", "echo"),
    [
        ("bearer", "eyJhbGciOi.x.y", "Bearer eyJhbGciOi.x.y"),
        ("basic", "me:pass-word", "pass-word " + base64.b64encode(b"me:pass-word").decode()),
        ("basic", "nobody:", "nobody: " + base64.b64encode(b"nobody:").decode()),
        ("cookie", "hatchet=cookie-value", "hatchet=cookie-value cookie-value"),
    ],
)
async def test_no_form_of_a_key_that_a_server_repeats_is_shown(
    reach: Reach, emulator: MtmaiEmulator, auth: str, key: str, echo: str
) -> None:
    emulator.key = key
    bridge = await reach(emulator, auth=auth)
    emulator.fail(Fault(status=403, error=f"not {echo} here"))
    with pytest.raises(AuthFailed) as refused:
        await listed(bridge)
    shown = repr(vars(refused.value)) + str(refused.value)
    for word in (*echo.split(), key, key.partition(":")[2] or key):
        assert word == "Bearer" or word not in shown
    assert "here" in shown


async def test_a_password_of_a_few_letters_is_left_where_it_turns_up_by_chance(
    reach: Reach, emulator: MtmaiEmulator
) -> None:
    emulator.key = "me:s"
    bridge = await reach(emulator, auth="basic")
    emulator.fail(Fault(status=403, error="this is so: me:s, " + base64.b64encode(b"me:s").decode()))
    with pytest.raises(AuthFailed) as refused:
        await listed(bridge)
    assert "this is so: ***, ***" == refused.value.excerpt
    emulator.key = ":"
    bridge = await reach(emulator, auth="basic")
    emulator.fail(Fault(status=403, error="so: no"))
    with pytest.raises(AuthFailed, match="so: no"):
        await listed(bridge)


# What is sent


async def test_what_is_sent_is_what_the_documents_say(mtmai: Bridge, emulator: MtmaiEmulator) -> None:
    await mtmai.create()
    chat = await mtmai.create(title="会话")
    await chat.refresh()
    await chat.rename("新名字")
    await listed(mtmai)
    await history(chat)
    one = f"{CHATS}/{chat.id}"
    assert [
        ("POST", CHATS, b"{}"),
        ("POST", CHATS, '{"name":"会话"}'.encode()),
        ("GET", one, b""),
        ("PUT", one, '{"name":"新名字"}'.encode()),
        ("GET", CHATS, b""),
        ("GET", f"{one}/messages", b""),
    ] == [(call.method, call.path, call.body) for call in emulator.calls]
    for call in emulator.calls:
        assert ("application/json", {}) == (call.headers["Accept"], call.query)
        assert ("Content-Type" in call.headers) is (call.method in {"POST", "PUT"})


async def test_what_cannot_be_sent_is_refused_before_anything_leaves(
    mtmai: Bridge, emulator: MtmaiEmulator
) -> None:
    chat = mtmai.open(SESSION)
    impossible: list[Awaitable[object]] = [
        mtmai.create(title="\ud83d"),
        chat.rename("\ud83d"),
        chat.send("\ud83d"),
        chat.send(Message.assistant("Hi")),
        mtmai.open("a/b").refresh(),
        mtmai.open("..").rename("x"),
    ]
    for call in impossible:
        with pytest.raises(UsageError):
            await call
    unknown: list[Awaitable[object]] = [
        mtmai.create(extra={"metadata": {}}), chat.send("Hi", extra={"team": "t"}),
    ]  # fmt: skip
    for call in unknown:
        with pytest.raises(BadOption, match="is unknown in extra"):
            await call
    unsupported: list[Awaitable[object]] = [
        mtmai.create(system="x"), mtmai.create(history=[Message.user("x")]), chat.delete(),
    ]  # fmt: skip
    for call in unsupported:
        with pytest.raises(UnsupportedFeature, match="; instead: "):
            await call
    assert [] == emulator.calls


# Sessions as they are read


async def test_a_session_keeps_what_else_the_server_tells(mtmai: Bridge, emulator: MtmaiEmulator) -> None:
    answer(emulator, session(team="t", metadata={**META, "owner": "me"}, mood=None))
    read = await mtmai.open(SESSION).refresh()
    assert Conversation(SESSION, title="会话", created_at=NOON, updated_at=NOON) == read
    assert {"version": "1", "team": "t", "metadata": {"owner": "me"}} == read.extra


async def test_a_time_that_nobody_can_read_is_kept(mtmai: Bridge, emulator: MtmaiEmulator) -> None:
    answer(emulator, session(metadata={"id": 7, "createdAt": "yesterday"}))
    read = await mtmai.open(SESSION).refresh()
    assert ("7", None, {"createdAt": "yesterday"}) == (read.id, read.created_at, read.extra["metadata"])


async def test_the_server_names_a_session_that_is_created_without_a_title(mtmai: Bridge) -> None:
    for chat in (await mtmai.create(), await mtmai.create(title="")):
        assert chat.conversation.title


NAMELESS = [
    {"name": "x", "version": "1"},
    session(metadata=None),
    session(metadata={"createdAt": AT, "updatedAt": AT}),
    session(metadata={**META, "id": None}),
    session(metadata={**META, "id": ""}),
]


@pytest.mark.parametrize("value", [*NAMELESS, {"metadata": META}, session(name=None), [], None])
async def test_a_new_session_that_cannot_be_addressed_is_an_answer_that_is_lost(
    mtmai: Bridge, emulator: MtmaiEmulator, value: object
) -> None:
    answer(emulator, value)
    with pytest.raises(AnswerLost) as lost:
        await mtmai.create()
    assert ("schema", "chat_create_chat_session") == (lost.value.kind, lost.value.operation)


@pytest.mark.parametrize("value", NAMELESS)
async def test_a_session_that_is_read_or_renamed_has_the_id_that_it_was_asked_for_by(
    mtmai: Bridge, emulator: MtmaiEmulator, value: Json
) -> None:
    chat = mtmai.open(SESSION)
    for call in (chat.refresh, lambda: chat.rename("x")):
        answer(emulator, value)
        read = await call()
        assert (SESSION, value["name"]) == (read.id, read.title)


async def test_a_session_without_metadata_is_read_and_renamed_as_the_emulator_shows_it(
    reach: Reach, emulator: MtmaiEmulator
) -> None:
    emulator.metadata, emulator.ids = False, lambda: uuid.UUID(SESSION)
    bridge = await reach(emulator)
    with pytest.raises(AnswerLost):
        await bridge.create(title="old")
    chat = bridge.open(SESSION)
    for call, title in ((chat.refresh, "old"), (lambda: chat.rename("new"), "new")):
        read = await call()
        assert (SESSION, title) == (read.id, read.title)


async def test_sessions_without_an_id_are_left_out_of_the_list_with_a_warning(
    mtmai: Bridge, emulator: MtmaiEmulator
) -> None:
    answer(emulator, {"rows": [*NAMELESS, session()]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [SESSION] == [conversation.id for conversation in await listed(mtmai)]
    assert [AnswerWarning] * 5 == [each.category for each in caught]
    assert "mtmai chat_list: a session without an id was left out" == str(caught[0].message)


@pytest.mark.parametrize("value", [{}, {"rows": None}, {"rows": [], "metadata": META}])
async def test_rows_may_be_missing_or_null(mtmai: Bridge, emulator: MtmaiEmulator, value: object) -> None:
    answer(emulator, value)
    assert [] == await listed(mtmai)


@pytest.mark.parametrize("empty", ["array", "missing", "null"])
async def test_an_emulator_that_shows_nothing_in_any_form_is_read(
    reach: Reach, emulator: MtmaiEmulator, empty: Any
) -> None:
    emulator.empty = empty
    bridge = await reach(emulator)
    assert [] == await listed(bridge)
    assert [] == await history(await bridge.create())


async def test_sessions_come_newest_first(mtmai: Bridge) -> None:
    for title in ("a", "b", "c"):
        await mtmai.create(title=title)
    assert ["c", "b", "a"] == [conversation.title for conversation in await listed(mtmai)]


# Messages


async def test_a_message_keeps_what_else_the_server_tells(mtmai: Bridge, emulator: MtmaiEmulator) -> None:
    config = {"message_type": "text", "source": "web"}
    answer(emulator, {"messages": [message(1, role="assistant", source="ann", config=config, x=None)]})
    (read,) = await history(mtmai.open(SESSION))
    at = datetime(2025, 2, 11, 8, 0, 1, tzinfo=UTC)
    assert Message(Role.ASSISTANT, "no 1", "m1", author="ann", created_at=at) == read
    assert {"config": config, "metadata": {"updatedAt": "2025-02-11T08:00:01Z"}} == read.extra


async def test_a_role_that_is_none_of_ours_is_the_assistants_and_kept(
    mtmai: Bridge, emulator: MtmaiEmulator
) -> None:
    roles = ("user", "assistant", "system", "tool", "agent", "")
    answer(emulator, {"messages": [message(n, role=role) for n, role in enumerate(roles)]})
    read = await history(mtmai.open(SESSION))
    assert ["user", "assistant", "system", "tool", "assistant", "assistant"] == [each.role for each in read]
    assert [None] * 4 + ["agent", ""] == [each.extra.get("role") for each in read]


async def test_messages_are_sorted_by_their_time_and_can_be_cut(
    mtmai: Bridge, emulator: MtmaiEmulator
) -> None:
    chat = mtmai.open(SESSION)
    for how, expected in (
        ({}, "m1 m2 m3"),
        ({"limit": 2}, "m1 m2"),
        ({"after": "m1"}, "m2 m3"),
        ({"newest_first": True, "limit": 2}, "m3 m2"),
    ):
        answer(emulator, {"messages": [message(n) for n in (2, 3, 1)]})
        assert expected.split() == [each.id for each in await history(chat, **how)]


@pytest.mark.parametrize("value", [{}, {"messages": None}, {"messages": []}])
async def test_messages_may_be_missing_or_null(mtmai: Bridge, emulator: MtmaiEmulator, value: object) -> None:
    answer(emulator, value)
    assert [] == await history(mtmai.open(SESSION))


async def test_a_history_holds_what_the_api_has_and_not_what_was_sent(
    mtmai: Bridge, emulator: MtmaiEmulator
) -> None:
    chat = await mtmai.create()
    emulator.remember(chat.id, "user", "你好\x00")
    await chat.send("Hello")
    assert [(Role.USER, "你好\x00")] == [(each.role, each.text) for each in await history(chat)]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"metadata": None}, "$.messages[1].metadata"),
        ({"metadata": {}}, "$.messages[1].metadata.id"),
        ({"content": None}, "$.messages[1].content"),
        ({"role": 1}, "$.messages[1].role"),
    ],
)
async def test_a_message_of_another_form_says_where(
    mtmai: Bridge, emulator: MtmaiEmulator, fields: Json, path: str
) -> None:
    answer(emulator, {"messages": [message(1), message(2, **fields)]})
    with pytest.raises(BadAnswer) as bad:
        await history(mtmai.open(SESSION))
    assert path in str(bad.value)


async def test_half_a_character_in_an_answer_is_replaced_with_a_warning(
    mtmai: Bridge, emulator: MtmaiEmulator
) -> None:
    chat = mtmai.open(SESSION)
    for call in (chat.refresh, lambda: chat.rename("x")):
        answer(emulator, session(name="a\ud83d"))
        read = await call()
        assert ("a\ufffd", 1) == (read.title, len(read.warnings))
    answer(emulator, session(name="a\ud83d"))
    assert 1 == len((await mtmai.create()).conversation.warnings)
    answer(emulator, {"rows": [session(name="a\ud83d")]})
    with pytest.warns(AnswerWarning, match="U\\+FFFD"):
        assert "a\ufffd" == (await listed(mtmai))[0].title
    answer(emulator, {"messages": [message(1, content="\udc00b")]})
    with pytest.warns(AnswerWarning, match="U\\+FFFD"):
        assert "\ufffdb" == (await history(chat))[0].text


# Errors


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"errors": [{"code": 1400, "field": "a", "description": "so"}]}, "1400", "a: so"),
        ({"errors": [{"description": "one"}, 7, {"description": "two", "code": "x"}]}, "x", "one; two"),
        ({"description": "Please provide valid credentials"}, None, "Please provide valid credentials"),
        ({"description": "bad", "code": 5}, "5", "bad"),
        ({"message": "Unprocessable"}, None, "Unprocessable"),
        ({"errors": [], "message": "Unprocessable"}, None, "Unprocessable"),
        ({"error": "team crashed"}, None, "team crashed"),
        ({"error": {"message": "team crashed", "code": 7}}, "7", "team crashed"),
        ({"description": "", "message": "", "error": ""}, None, None),
        ({"error": 5}, None, None),
        ({"errors": "none"}, None, None),
        ({"errors": [{"description": 7, "code": 1.5}]}, None, None),
        (["no"], None, None),
        ({"message": 7, "description": None}, None, None),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 500])
def test_an_error_is_read_in_every_form_that_it_may_have(
    status: int, body: object, code: str | None, message: str | None
) -> None:
    assert ApiError(message, code) == wire.read_error(status, body)


async def test_an_unknown_session_is_not_found_though_the_answer_is_empty(mtmai: Bridge) -> None:
    chat = mtmai.open(SESSION)
    for call in (chat.refresh, lambda: chat.rename("x"), lambda: history(chat)):
        with pytest.raises(NotFound) as missing:
            await call()
        assert (404, None) == (missing.value.status, missing.value.excerpt)


async def test_a_refused_name_says_which_field(mtmai: Bridge) -> None:
    chat = await mtmai.create()
    with pytest.raises(RequestRefused, match="name must be a non-empty string") as refused:
        await chat.rename("")
    assert ("1400", 400) == (refused.value.code, refused.value.status)


@pytest.mark.parametrize("status", [401, 403])
async def test_another_tenants_and_missing_rights_are_told(
    mtmai: Bridge, emulator: MtmaiEmulator, status: int
) -> None:
    emulator.fail(Fault(status=status))
    with pytest.raises(AuthFailed):
        await mtmai.create()
    emulator.tenant = TENANT[::-1]
    with pytest.raises(AuthFailed, match="Please provide valid credentials"):
        await listed(mtmai)


@pytest.mark.parametrize("fault", [Fault(drop="after"), Fault(drop="before"), Fault(status=500)])
async def test_a_creation_in_doubt_is_not_repeated_and_what_is_by_id_is(
    reach: Reach, emulator: MtmaiEmulator, fault: Fault
) -> None:
    bridge = await reach(emulator, clock=ManualClock())
    chat = await bridge.create(title="a")
    emulator.fail(fault)
    with pytest.raises(DeliveryUnknown):
        await bridge.create()
    assert 2 == len(emulator.calls)
    calls: list[Callable[[], Awaitable[object]]] = [
        chat.refresh, lambda: chat.rename("b"), lambda: history(chat), lambda: listed(bridge),
    ]  # fmt: skip
    for call in calls:
        emulator.fail(fault)
        await call()
        emulator.fail(fault, times=3)
        with pytest.raises(Unavailable):
            await call()


@pytest.mark.parametrize("body", [b"", b"null", b"[1", b'{"rows": 1, "messages": 1}', b"\xff", b"NaN"])
async def test_an_answer_that_is_none_is_an_error_of_the_right_kind(
    mtmai: Bridge, emulator: MtmaiEmulator, body: bytes
) -> None:
    chat = mtmai.open(SESSION)
    calls: list[Callable[[], Awaitable[object]]] = [
        chat.refresh, lambda: chat.rename("b"), lambda: history(chat), lambda: listed(mtmai),
    ]  # fmt: skip
    for call in calls:
        emulator.fail(Fault(status=200, body=body))
        with pytest.raises(BadAnswer):
            await call()
    emulator.fail(Fault(status=200, body=body))
    with pytest.raises(AnswerLost):
        await mtmai.create()


# Whatever comes

NAMES = st.sampled_from(
    ["metadata", "id", "createdAt", "updatedAt", "name", "version", "team", "role", "content", "source",
     "config", "errors", "description", "code", "field", "message", "rows", "messages"]
)  # fmt: skip


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(AT), nested
)
META_LIKE = st.fixed_dictionaries(
    {}, optional={"id": st.text() | JSON, "createdAt": JSON, "updatedAt": JSON, "more": JSON}
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={"metadata": META_LIKE | JSON, "name": st.text() | JSON, "role": st.text() | JSON,
              "content": st.text() | JSON, "source": JSON, "team": JSON},
)  # fmt: skip


@given(OBJECTS)
def test_whatever_a_session_holds_it_is_a_conversation_or_of_another_form(value: Json) -> None:
    try:
        read = structure(value, wire.CreatedSession)
    except BrokenContent:
        return
    conversation = wire.to_conversation(read, read.metadata.id)
    assert str(value["metadata"]["id"]) == conversation.id != ""
    assert value["name"] == conversation.title
    kept = {
        name: each for name, each in value.items() if name not in {"metadata", "name"} and each is not None
    }
    assert kept == {name: each for name, each in conversation.extra.items() if name != "metadata"}


@given(OBJECTS)
def test_whatever_a_message_holds_it_is_a_message_or_of_another_form(value: Json) -> None:
    try:
        read = structure(value, wire.ChatMessage)
    except BrokenContent:
        return
    said = wire.to_message(read)
    assert (value["content"], value.get("source")) == (said.text, said.author)
    assert value["role"] == said.extra.get("role", said.role)


@given(JSON)
def test_whatever_an_error_body_holds_it_is_read(body: object) -> None:
    read = wire.read_error(400, body)
    assert isinstance(read, ApiError)
    for text in (read.message, read.code):
        assert text is None or isinstance(text, str)
