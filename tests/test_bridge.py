"""The bridge: opening, creating, what a backend lacks, limits of time, and closing."""

from __future__ import annotations

import asyncio
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from chatbridge import (
    BackendURL,
    BadOption,
    Bridge,
    Chat,
    ConfigError,
    Conversation,
    ConversationKept,
    Feature,
    Message,
    MissingSecret,
    NotFound,
    Profile,
    Support,
    Unavailable,
    UnknownBackend,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.errors import AnswerLost, UnavailableTimeout
from chatbridge.http import Transport
from chatbridge.options import CommonOptions
from chatbridge.registry import Adapter, Defaults, Target, load_adapter
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Emulator, serve
from chatbridge.testing.fake import FakeOptions
from doubles import Double, turns_of_the_loop

TIMEOUT = 10.0
SHORT = CommonOptions(timeout=TIMEOUT, idle_timeout=3.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def options_of(bridge: Bridge) -> FakeOptions:
    assert isinstance(bridge.options, FakeOptions)
    return bridge.options


# ------------------------------------------------------------------------------------------ connect


@pytest.fixture
def no_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the place of a config file that does not exist, named nowhere."""
    monkeypatch.delenv("CHATBRIDGE_BACKEND", raising=False)
    monkeypatch.delenv("CHATBRIDGE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "chatbridge" / "config.toml"


KEY, IN_ENVIRONMENT = "hunter2-in-code", "hunter2-in-environment"


@pytest.mark.usefixtures("no_config")
@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("h2ogpte://h?timeout=-1", {}),
        ("h2ogpte://h?nonsense=1", {}),
        ("h2ogpte://h?llm=", {}),
        ("h2ogpte://h?key=env:NOT_SET", {}),
        ("h2ogpte://h?key=env:BROKEN_KEY", {}),
        ("h2ogpte:", {}),
        ("h2ogpte+http://example.com", {}),
        ("h2ogpte://h", {"key": KEY, "timeout": -1}),
        ("h2ogpte://h", {"key": KEY + "\n"}),
        ("h2ogpte://h", {"key": "env:" + KEY}),
        ("h2ogpte://h", {"key": KEY.encode()}),
        ("h2ogpte://h", {"passphrase": KEY}),
        ("h2ogpte+http://example.com", {"key": KEY}),
        ("nope:", {"key": KEY}),
        ("not a config string", {"key": KEY}),
        (None, {"key": KEY}),
    ],
)
def test_x4_a_connect_that_fails_shows_no_secret_in_a_traceback_with_locals(
    monkeypatch: pytest.MonkeyPatch, url: str | None, options: dict[str, Any]
) -> None:
    """Neither one given nor one of the environment; the caller's own frame is the caller's."""
    monkeypatch.setenv("H2OGPTE_API_KEY", "" if url == "h2ogpte:" else IN_ENVIRONMENT)
    monkeypatch.setenv("BROKEN_KEY", IN_ENVIRONMENT + "\x7f")
    with pytest.raises(ConfigError) as caught:
        connect(url, **options)

    trace = caught.value.__traceback__
    assert trace is not None
    error = caught.value.with_traceback(trace.tb_next)
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "in connect\n" in shown
    assert "hunter2" not in shown


def test_connect_takes_a_config_string() -> None:
    assert "parrot" == options_of(connect("fake:parrot")).model


def test_connect_takes_a_parsed_url() -> None:
    assert "parrot" == options_of(connect(BackendURL("fake", model="parrot"))).model


def test_connect_takes_a_name_from_the_config_file(no_config: Path) -> None:
    no_config.parent.mkdir()
    no_config.write_text('default = "work"\n[backends.work]\nurl = "fake:parrot"\n')

    assert "parrot" == options_of(connect("work")).model
    assert "parrot" == options_of(connect()).model


def test_connect_without_a_string_takes_the_variable(
    no_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATBRIDGE_BACKEND", "fake:parrot")

    assert "parrot" == options_of(connect()).model
    assert not no_config.exists()


def test_keywords_win_over_the_string() -> None:
    bridge = connect("fake:parrot?reply=string&timeout=5", reply="keyword", model="crow")

    assert ("keyword", "crow", 5.0) == (
        options_of(bridge).reply,
        options_of(bridge).model,
        bridge.options.timeout,
    )


@pytest.mark.parametrize(
    ("url", "options", "error"),
    [
        ("nowhere:", {}, UnknownBackend),
        ("fake:?bogus=1", {}, BadOption),
        ("fake:", {"bogus": 1}, BadOption),
        ("fake:?timeout=soon", {}, BadOption),
        ("fake://host", {}, ConfigError),
        ("a: | b:", {}, ConfigError),
        ("", {}, ConfigError),
        ("no-such-name", {}, ConfigError),
        (None, {}, ConfigError),
        ("kaziro:", {}, MissingSecret),
        ("kaziro:?key=sk-secret", {}, ConfigError),
        ("kaziro+http://example.com", {"key": "x"}, ConfigError),
    ],
)
def test_what_is_wrong_is_said_at_connect(
    no_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str | None,
    options: dict[str, Any],
    error: type[ConfigError],
) -> None:
    """Outside of an event loop, so that there can be no I/O."""
    assert not no_config.exists()
    monkeypatch.delenv("KAZIRO_API_KEY", raising=False)
    with pytest.raises(error) as caught:
        connect(url, **options)

    assert "sk-secret" not in str(caught.value)


class Forgetful:
    """Keeps nothing."""

    profile = Profile("forgetful", {})


def test_a_backend_that_keeps_nothing_and_does_not_say_so_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def profile(_: CommonOptions) -> Profile:
        return Forgetful.profile

    def open_backend(_: CommonOptions, __: object) -> Any:
        return Forgetful()

    adapter = Adapter(
        "forgetful", "Forgets.", CommonOptions, profile, open_backend, Defaults(in_process=True)
    )

    def resolved(url: BackendURL, _: object) -> Target:
        return Target(url, adapter, CommonOptions(), None)

    monkeypatch.setattr("chatbridge.bridge.resolve", resolved)

    with pytest.raises(
        ConfigError, match="forgetful: a backend whose context is client has complete and stream"
    ):
        connect("forgetful:")


async def test_nothing_is_opened_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge that is never used opens no session, and closes."""
    opened: list[bool] = []

    def open_session(_: Transport, *, fresh: bool) -> None:
        opened.append(fresh)

    monkeypatch.setattr(Transport, "_session", open_session)

    async with connect("kaziro:", key="sk-mine") as bridge:
        bridge.open("t-1")
        bridge.open("t-1").stream("Hi")

    assert [] == opened


async def test_a_secret_may_be_given_in_code() -> None:
    emulator: Emulator = load_adapter("kaziro").load_emulator()(key="sk-in-code")
    async with serve(emulator) as served, connect(served.config, key="sk-in-code") as bridge:
        await (await bridge.create()).send("Hi")

    assert {200, 201} >= {call.status for call in emulator.calls}
    assert 2 == len(emulator.calls)


# ------------------------------------------------------------------------------- create, open, temporary


async def test_create_gives_the_backend_what_it_takes_itself() -> None:
    bridge = connect("fake:")
    earlier = (Message.user("Hi"), Message.assistant("Hello"))

    chat = await bridge.create(title="Kyoto", system="Be brief.", history=earlier)

    assert ("Kyoto", "Be brief.") == (chat.conversation.title, chat.conversation.system)
    assert ["Hi", "Hello"] == [message.text async for message in chat.messages()]
    assert None is chat.system, "the backend has it, so it need not go with each message"
    assert "Before that you said 'Hi'" in (await chat.send("More")).text


@pytest.mark.parametrize("history", [["Hello"], "Hello", [Message.user("Hi"), None]])
async def test_a_history_of_something_else_than_messages_is_refused(history: Any) -> None:
    double = Double()

    with pytest.raises(UsageError, match="a history is made of messages, and has a"):
        await Bridge(double).create(history=history)
    assert [] == double.calls


async def test_a_title_is_given_by_renaming_where_creation_takes_none() -> None:
    double = Double(without=[Feature.TITLE])
    bridge = Bridge(double)

    assert Support.EMULATED is bridge.profile.support(Feature.TITLE)
    chat = await bridge.create(title="Kyoto")

    assert ["create", "rename"] == double.calls
    assert "Kyoto" == chat.conversation.title
    assert "Kyoto" == (await chat.refresh()).title


async def test_no_title_costs_no_renaming() -> None:
    double = Double(without=[Feature.TITLE])

    await Bridge(double).create()

    assert ["create"] == double.calls


async def test_a_title_that_fails_does_not_orphan_the_conversation() -> None:
    """The error carries the new conversation's id."""
    double = Double(without=[Feature.TITLE])
    double.fails["rename"] = Unavailable("down")

    with pytest.raises(Unavailable) as caught:
        await Bridge(double).create(title="Kyoto")

    (conversation,) = [conversation async for conversation in double.list_conversations()]
    assert conversation.id == caught.value.conversation_id


async def test_creating_and_renaming_share_one_deadline(clock: ManualClock) -> None:
    double = Double(without=[Feature.TITLE])
    double.gates = {"create": asyncio.Event(), "rename": asyncio.Event()}
    task = asyncio.create_task(Bridge(double, options=SHORT, clock=clock).create(title="Kyoto"))
    await turns_of_the_loop()
    clock.advance(TIMEOUT - 1)
    double.gates["create"].set()
    await turns_of_the_loop()
    assert ["create", "rename"] == double.calls

    clock.advance(1 + Bridge(double).bounds.GRACE)

    with pytest.raises(UnavailableTimeout) as caught:
        await task
    assert "conversation-1" == caught.value.conversation_id


async def test_a_system_prompt_goes_with_each_message_where_creation_takes_none() -> None:
    double = Double(without=[Feature.SYSTEM])
    bridge = Bridge(double)

    assert Support.EMULATED is bridge.profile.support(Feature.SYSTEM)
    chat = await bridge.create(system="Be brief.")
    await chat.send("one")
    async with chat.stream("two") as stream:
        async for _ in stream:
            pass
    await chat.send("three", system="Be verbose.")

    assert None is chat.conversation.system
    assert ["Be brief.", "Be brief.", "Be verbose."] == [options.system for _, _, options in double.sent]


@pytest.mark.parametrize(
    ("feature", "given"),
    [
        (Feature.SYSTEM, {"system": "Be brief."}),
        (Feature.HISTORY_SEED, {"history": [Message.user("Hi")]}),
        (Feature.CREATE, {}),
    ],
)
async def test_what_a_creation_cannot_have_is_refused_before_anything_is_created(
    feature: Feature, given: dict[str, Any]
) -> None:
    double = Double(without=[feature], options=(), instead={feature: "a song"})
    with pytest.raises(UnsupportedFeature, match=f"double does not support {feature}; instead: a song"):
        await Bridge(double).create(**given)

    assert [] == double.calls


async def test_open_asks_nobody() -> None:
    double = Double()
    chat = Bridge(double).open("conversation-9", system="Be brief.")

    assert ("conversation-9", "Be brief.", []) == (chat.id, chat.system, double.calls)


def test_open_refuses_what_cannot_be() -> None:
    bridge = Bridge(Double(options=()))

    with pytest.raises(UsageError, match="not empty"):
        bridge.open("")
    with pytest.raises(UnsupportedFeature, match="system"):
        bridge.open("a", system="Be brief.")


async def test_a_temporary_conversation_is_deleted_at_the_end() -> None:
    double = Double()
    async with Bridge(double).temporary(title="Kyoto") as chat:
        assert "Kyoto" == chat.conversation.title
        await chat.send("Hi")
        assert "delete" not in double.calls

    assert [] == [conversation async for conversation in double.list_conversations()]


class BodyError(Exception):
    pass


async def failing_body(bridge: Bridge) -> None:
    async with bridge.temporary():
        raise BodyError


async def test_a_temporary_conversation_is_deleted_after_an_error_too() -> None:
    double = Double()

    with pytest.raises(BodyError):
        await failing_body(Bridge(double))

    assert [] == [conversation async for conversation in double.list_conversations()]


async def test_a_temporary_conversation_is_deleted_after_a_cancellation_too() -> None:
    double = Double()

    async def body() -> None:
        async with Bridge(double).temporary():
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await turns_of_the_loop()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ["create", "delete"] == double.calls


async def test_a_temporary_conversation_that_the_block_deleted_is_no_error() -> None:
    double = Double()
    async with Bridge(double).temporary() as chat:
        await chat.delete()

    assert ["create", "delete", "delete"] == double.calls


async def keep_one(bridge: Bridge) -> None:
    async with bridge.temporary():
        pass


async def test_a_conversation_that_stays_is_warned_of_at_the_callers_line() -> None:
    bridge = Bridge(Double(without=[Feature.DELETE]))
    with pytest.warns(ConversationKept) as caught:
        await keep_one(bridge)

    first_line = keep_one.__code__.co_firstlineno
    assert ["the conversation conversation-1 is still there: double cannot delete it"] == [
        str(warning.message) for warning in caught
    ]
    assert [(__file__, first_line + 1)] == [(warning.filename, warning.lineno) for warning in caught]


async def test_a_failed_deletion_is_an_error_where_nothing_else_failed() -> None:
    double = Double()
    double.fails["delete"] = Unavailable("down")

    with pytest.raises(Unavailable) as caught:
        async with Bridge(double).temporary():
            pass

    assert "conversation-1" == caught.value.conversation_id


async def test_a_failed_deletion_does_not_mask_the_error_of_the_block() -> None:
    double = Double()
    double.fails["delete"] = Unavailable("down")

    with pytest.warns(ConversationKept, match="down"), pytest.raises(BodyError):
        await failing_body(Bridge(double))


@pytest.mark.parametrize("without", [[], [Feature.DELETE]])
async def test_not_even_a_warning_that_is_an_error_masks_the_error_of_the_block(
    without: list[Feature],
) -> None:
    double = Double(without=without)
    double.fails["delete"] = Unavailable("down")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BodyError):
            await failing_body(Bridge(double))


async def test_a_warning_that_is_an_error_is_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConversationKept):
            async with Bridge(Double(without=[Feature.DELETE])).temporary():
                pass


async def test_nothing_is_deleted_unless_asked() -> None:
    double = Double()
    async with Bridge(double) as bridge:
        chat = await bridge.create()
        await chat.send("Hi")
        await chat.rename("Kyoto")
        bridge.open(chat.id)

    assert "delete" not in double.calls
    assert [chat.id] == [conversation.id async for conversation in double.list_conversations()]


# ------------------------------------------------------------------------------------------- methods


async def outcome(result: object) -> None:
    """Await what may be awaited; lists and streams refuse without."""
    if isinstance(result, Awaitable):
        await result


METHODS: list[tuple[Feature, Callable[[Bridge, Chat], object]]] = [
    (Feature.CREATE, lambda bridge, _: bridge.create()),
    (Feature.LIST, lambda bridge, _: bridge.conversations()),
    (Feature.GET, lambda _, chat: chat.refresh()),
    (Feature.RENAME, lambda _, chat: chat.rename("Kyoto")),
    (Feature.DELETE, lambda _, chat: chat.delete()),
    (Feature.HISTORY, lambda _, chat: chat.messages()),
    (Feature.SEND, lambda _, chat: chat.send("Hi")),
    (Feature.STREAM, lambda _, chat: chat.stream("Hi")),
]


@pytest.mark.parametrize(("feature", "method"), METHODS)
async def test_a_method_whose_feature_is_missing_says_what_there_is(
    feature: Feature, method: Callable[[Bridge, Chat], object]
) -> None:
    """CREATE and SEND are missing too: they could make up for others."""
    missing = {feature, Feature.CREATE, Feature.SEND}
    double = Double(without=missing, instead=dict.fromkeys(missing, "a song"))
    bridge = Bridge(double)

    with pytest.raises(UnsupportedFeature) as caught:
        await outcome(method(bridge, bridge.open("conversation-1")))

    assert (f"double does not support {feature}; instead: a song", feature) == (
        str(caught.value),
        caught.value.feature,
    )
    assert [] == double.calls


@pytest.mark.parametrize(("_", "method"), METHODS)
async def test_after_close_every_method_raises_usage_error(
    _: Feature, method: Callable[[Bridge, Chat], object]
) -> None:
    double = Double()
    bridge = Bridge(double)
    chat = await bridge.create()
    await bridge.close()
    await bridge.close()

    with pytest.raises(UsageError, match="the bridge is closed"):
        await outcome(method(bridge, chat))
    assert ["create", "close"] == double.calls


async def test_a_closed_bridge_cannot_be_entered_or_asked_for_handles() -> None:
    bridge = Bridge(Double())
    stream = (await bridge.create()).stream("Hi")
    await bridge.close()

    with pytest.raises(UsageError, match="closed"):
        await bridge.__aenter__()
    with pytest.raises(UsageError, match="closed"):
        bridge.open("a")
    with pytest.raises(UsageError, match="closed"):
        await bridge.temporary().__aenter__()
    with pytest.raises(UsageError, match="closed"):
        await stream.__aenter__()


async def test_a_chat_reads_and_changes_its_conversation() -> None:
    bridge = connect("fake:")
    chat = await bridge.create()

    renamed = await chat.rename("Nara")
    assert renamed is chat.conversation
    assert "Nara" == (await bridge.open(chat.id).refresh()).title
    assert ["Nara"] == [conversation.title async for conversation in bridge.conversations()]

    await chat.delete()
    for gone in (chat.refresh, chat.delete, lambda: chat.send("Hi"), lambda: chat.rename("x")):
        with pytest.raises(NotFound) as caught:
            await gone()
        assert chat.id == caught.value.conversation_id


async def test_a_history_is_read_from_anywhere() -> None:
    chat = await connect("fake:").create()
    for text in ("one", "two"):
        await chat.send(text)
    ids = [message.id async for message in chat.messages()]

    assert ids[1:3] == [message.id async for message in chat.messages(after=ids[0], limit=2)]
    assert ids[::-1][:3] == [message.id async for message in chat.messages(newest_first=True, limit=3)]
    assert [] == [message async for message in chat.messages(limit=0)]
    with pytest.raises(UsageError, match="-1"):
        chat.messages(limit=-1)


async def test_an_error_in_a_list_says_of_which_conversation() -> None:
    double = Double()
    double.fails["messages"] = Unavailable("down")

    with pytest.raises(Unavailable) as caught:
        _ = [message async for message in Bridge(double).open("conversation-7").messages()]

    assert "conversation-7" == caught.value.conversation_id


async def test_a_list_that_is_left_early_closes_the_backends() -> None:
    double = Double()
    chat = await Bridge(double).create(history=[Message.user("Hi"), Message.assistant("Hello")])

    messages = chat.messages()
    await anext(messages)
    assert 0 == double.left
    await messages.aclose()  # type: ignore[attr-defined]  # an iterator by type, a generator in fact
    assert 1 == double.left


class Plain(Double):
    """Lists by an iterator that is no generator."""

    def list_conversations(self) -> AsyncIterator[Conversation]:
        return self

    def __aiter__(self) -> AsyncIterator[Conversation]:
        return self

    async def __anext__(self) -> Conversation:
        raise StopAsyncIteration


async def test_a_list_need_not_be_a_generator() -> None:
    assert [] == [conversation async for conversation in Bridge(Plain()).conversations()]


async def test_a_creation_that_is_followed_by_a_renaming_keeps_its_warnings() -> None:
    class Warns(Double):
        async def create_conversation(self, **given: Any) -> Conversation:
            return evolve(await super().create_conversation(**given), warnings="made oddly")

        async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
            renamed = await super().rename_conversation(conversation_id, title)
            return evolve(renamed, warnings="renamed oddly")

    chat = await Bridge(Warns(without={Feature.TITLE})).create(title="Kyoto")
    assert ("made oddly", "renamed oddly") == chat.conversation.warnings


async def test_a_conversation_without_an_id_is_a_lost_answer() -> None:
    class Nameless(Double):
        async def create_conversation(self, **given: Any) -> Conversation:
            return evolve(await super().create_conversation(**given), id="")

    with pytest.raises(AnswerLost, match="double gave the new conversation no id") as caught:
        await Bridge(Nameless()).create()
    assert ("schema", "double") == (caught.value.kind, caught.value.provider)


@pytest.mark.parametrize("given", [{"title": "\ud83d"}, {"system": "a \udf41"}])
async def test_half_a_character_is_refused_before_anything_is_created(given: dict[str, str]) -> None:
    double = Double(without={Feature.TITLE, Feature.SYSTEM})
    with pytest.raises(UsageError, match="half a character"):
        await Bridge(double).create(**given)  # type: ignore[arg-type]  # a title or a system prompt
    assert [] == double.calls


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="the value for the header Kaziro-API-Key") as caught:
        connect("kaziro:", key="\u043a\u043b\u044e\u0447-hunter2")
    assert "hunter2" not in str(caught.value)
