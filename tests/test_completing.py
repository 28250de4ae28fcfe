"""Conversations over an API that keeps nothing: what a store and a bridge make of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve

from chatbridge import (
    Bridge,
    Chat,
    Conversation,
    Feature,
    Message,
    NotFound,
    NotSent,
    Reply,
    Role,
    SendOptions,
    Support,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.backend import ContextOwner, Profile, Stores
from chatbridge.completing import Completing, with_conversations
from chatbridge.config import BackendURL
from chatbridge.errors import (
    AnswerLost,
    BadOption,
    ConfigError,
    DeliveryUnknown,
    NotSentTimeout,
    RequestRefused,
    StoreError,
    StreamCut,
)
from chatbridge.filling import with_emulations
from chatbridge.history import MemoryStore, SQLiteStore, Store
from chatbridge.history.chain import Entry
from chatbridge.history.recent import Recent
from chatbridge.history.rows import Remote
from chatbridge.options import CommonOptions
from chatbridge.overflow import (
    CONTEXT_LENGTH,
    SHORTENED,
    Overflow,
    begins_turn,
    drop_oldest,
    read_overflow,
)
from chatbridge.registry import declared_profile
from chatbridge.testing.checking import Checks
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.fake import FakeBackend, FakeCompletions, FakeOptions, Fault
from chatbridge.testing.memory import COMPLETIONS
from chatbridge.turns import Turn, TurnState
from cli_kit import check, run

WEATHER = {"name": "weather", "description": "Tells the weather", "parameters": {"type": "object"}}


def fake(**options: Any) -> FakeBackend:
    return FakeBackend(FakeOptions(keeps="nothing", **options))


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store, None]:
    async with MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "chats.db") as store:
        yield store


def over(
    backend: FakeBackend, store: Store | None = None, overflow: str | Overflow | None = None, **options: Any
) -> Bridge:
    function = overflow if callable(overflow) else None
    word: Any = None if function else overflow
    given = evolve(backend.options, **options, overflow=word)
    return Bridge(backend.completions, options=given, clock=backend.clock, store=store, overflow=function)


async def said(chat: Chat, **how: Any) -> list[str]:
    return [message.text async for message in chat.messages(**how)]


async def streamed(chat: Chat, message: str | Message) -> str:
    async with chat.stream(message) as stream:
        return "".join([event.text async for event in stream if isinstance(event, TextDelta)])


# --------------------------------------------------------------------------------------- what is claimed


def test_a_store_does_for_an_api_that_keeps_nothing_what_a_server_does() -> None:
    profile = with_conversations(COMPLETIONS)

    assert {Support.NATIVE} == {profile.support(feature) for feature in Feature}
    assert (ContextOwner.CLIENT, Stores.WITH) == (profile.context, profile.stores)
    assert any("keeps nothing" in note for note in profile.notes)
    assert profile == with_conversations(profile), "adding it again adds nothing"


def test_what_the_api_lacks_stays_lacking() -> None:
    small = Profile("small", {Feature.SEND: Support.NATIVE}, context=ContextOwner.CLIENT)

    profile = with_emulations(small, CommonOptions())

    assert {Feature.SYSTEM, Feature.ATTACHMENTS, Feature.TOOLS} <= {f for f in Feature if not profile.can(f)}
    assert Support.EMULATED is profile.support(Feature.STREAM)
    assert Support.NATIVE is profile.support(Feature.DELETE)


def test_a_bridge_claims_what_a_description_says() -> None:
    bridge = connect("fake:?keeps=nothing")

    assert bridge.profile == with_emulations(
        declared_profile(BackendURL.parse("fake:?keeps=nothing")), CommonOptions()
    )


def test_a_backend_that_claims_to_keep_nothing_and_does_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="a backend whose context is client has complete and stream"):
        Bridge(FakeBackend(profile=COMPLETIONS))


def test_what_a_bridge_has_made_of_an_api_that_keeps_nothing_is_no_backend_of_another() -> None:
    with pytest.raises(ConfigError, match=r"has a store already, that of the bridge .*: give bridge\.api"):
        Bridge(over(fake()).backend)


def test_what_the_adapter_made_is_reached_whether_conversations_are_added_to_it_or_not() -> None:
    completions, kept = fake().completions, FakeBackend()

    assert completions is Bridge(completions).api
    assert kept is Bridge(kept).api is Bridge(kept).backend


# -------------------------------------------------------------------------------------- conversations


async def test_a_conversation_is_there_until_it_is_deleted(store: Store) -> None:
    bridge = over(fake(), store)
    chat = await bridge.create(title="Kyoto", system="Be brief.")
    other = await bridge.create()
    await chat.send("Hello")

    assert ("Kyoto", "Be brief.") == (chat.conversation.title, chat.conversation.system)
    assert [chat.id, other.id] == [each.id async for each in bridge.conversations()]
    assert "Nara" == (await chat.rename("Nara")).title
    assert "Nara" == (await bridge.open(chat.id).refresh()).title

    await chat.delete()

    assert [other.id] == [each.id async for each in bridge.conversations()]
    for call in (chat.refresh, chat.delete, lambda: chat.rename("Uji"), lambda: chat.send("Still there?")):
        with pytest.raises(NotFound, match=f"the store has no conversation '{chat.id}' of fake"):
            await call()
    with pytest.raises(NotFound):
        await said(chat)


async def test_what_was_forgotten_is_gone_as_there_is_no_other_place(store: Store) -> None:
    bridge = over(fake(), store)
    chat = await bridge.create()
    await chat.send("Hello")

    await chat.forget()

    with pytest.raises(NotFound):
        await chat.refresh()
    assert [] == [kept async for kept in store.conversations()]


async def test_the_backend_by_itself_deletes_too(store: Store) -> None:
    bridge = over(fake(), store)
    chat = await bridge.create()

    await bridge.backend.delete_conversation(chat.id)

    assert [] == [each async for each in bridge.conversations()]


async def test_a_conversation_is_deleted_once_the_message_under_way_is_answered(store: Store) -> None:
    backend = fake()
    bridge = over(backend, store)
    chat = await bridge.create()
    held = asyncio.Event()
    fault = backend.fail(Fault(hold=held))
    sending = asyncio.create_task(chat.send("Hello"))
    await fault.reached.wait()
    deleting = asyncio.create_task(chat.delete())
    await asyncio.sleep(0)

    held.set()
    await sending
    await deleting

    assert [] == [kept async for kept in store.conversations()], "nothing comes back with the answer"


async def test_nothing_is_written_down_of_a_message_to_a_conversation_that_is_not_there(store: Store) -> None:
    backend = fake()
    bridge = over(backend, store)
    told: list[object] = []
    bridge.deliveries.on_turn = told.append
    chat = await bridge.create()
    fault = backend.fail(Fault(hold=asyncio.Event()))
    sending = asyncio.create_task(chat.send("Hello"))
    await fault.reached.wait()
    deleting = asyncio.create_task(chat.forget())
    behind = [asyncio.create_task(chat.send("A secret")), asyncio.create_task(streamed(chat, "A secret"))]
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait([deleting])
    told.clear()
    nowhere = bridge.open("nonsense")

    for refused in (*behind, nowhere.send("A secret"), streamed(nowhere, "A secret"), nowhere.settle()):
        with pytest.raises(NotFound, match="the store has no conversation"):
            await refused
    assert (1, [], ()) == (backend.writes, told, await nowhere.turns())
    assert [] == [kept async for kept in store.conversations()]
    assert () == await store.turns()


async def test_what_another_makes_while_a_conversation_is_not_found_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = over(fake(), store)
    remote, forget = bridge.deliveries.ledger.remote("late"), store.forget

    async def made_meanwhile(conversation_id: str, **how: Any) -> None:
        await store.keep(remote, Conversation("late"), created=True)
        await forget(conversation_id, **how)

    monkeypatch.setattr(store, "forget", made_meanwhile)
    with pytest.raises(NotFound):
        await bridge.open("late").send("Hello")

    assert "late" == (await bridge.open("late").refresh()).id


async def test_what_the_store_has_of_a_conversation_that_was_never_made_stays(store: Store) -> None:
    bridge = over(fake(), store)
    remote = bridge.deliveries.ledger.remote("elsewhere")
    kept = await store.keep(remote, messages=[Message.user("Hello")])

    with pytest.raises(NotFound):
        await bridge.open("elsewhere").send("Hello")

    assert ["Hello"] == [message.text async for message in store.messages(kept.id)]


async def test_a_message_is_written_down_once_and_with_its_answer(store: Store) -> None:
    bridge = over(fake(), store)
    chat = await bridge.create(history=[Message.user("What is a maple?"), Message.assistant("A tree.")])

    answers = [(await chat.send("And an oak?")).text, await streamed(chat, "And a pine?")]

    assert "Turn 2: you said 'And an oak?'. Before that you said 'What is a maple?'." == answers[0]
    assert "Turn 3: you said 'And a pine?'. Before that you said 'And an oak?'." == answers[1]
    expected = ["What is a maple?", "A tree.", "And an oak?", answers[0], "And a pine?", answers[1]]
    assert expected == await said(chat)
    assert expected[:-3:-1] == await said(chat, newest_first=True, limit=2)
    ids = [message.id async for message in chat.messages()]
    assert 6 == len(set(ids)), "a message without an id has its identity for one"
    assert expected[2:] == await said(chat, after=ids[1])


async def test_a_conversation_goes_on_in_another_process(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path / 'chats.db'}"
    async with connect("fake:?keeps=nothing", store=where) as bridge:
        chat = await bridge.create(system="Be brief.")
        await chat.send("The word is maple.")
        kept = await bridge.store.find(bridge.deliveries.ledger.remote(chat.id))
    assert kept is not None

    async with connect("fake:?keeps=nothing", store=where) as bridge:
        again = await bridge.resume(kept.id)
        assert (chat.id, "Be brief.", None) == (again.id, again.conversation.system, again.system)
        assert "Before that you said 'The word is maple.'" in (await again.send("What is the word?")).text


async def test_the_system_prompt_goes_with_each_message_and_one_of_the_message_wins(store: Store) -> None:
    backend = fake()
    bridge = over(backend, store)
    chat = await bridge.create(system="Be brief.")

    await chat.send("One")
    await chat.send("Two", system="Be long.")
    await bridge.open(chat.id, system="Be kind.").send("Three")
    await streamed(chat, "Four")

    systems = [None if call.options is None else call.options.system for call in backend.calls]
    assert ["Be brief.", "Be long.", "Be kind.", "Be brief."] == systems
    assert "Be brief." == (await chat.refresh()).system


async def test_what_cannot_be_sent_begins_no_conversation() -> None:
    bridge = Bridge(FakeBackend(profile=evolve(COMPLETIONS, options=())).completions)
    bridge.backend.profile.features.pop(Feature.SYSTEM, None)  # type: ignore[attr-defined]

    with pytest.raises(BadOption, match="colour"):
        await bridge.create(extra={"colour": "red"})
    with pytest.raises(UsageError, match="half a character"):
        await bridge.create(history=[Message.user("\ud800")])
    with pytest.raises(UsageError, match="half a character"):
        await bridge.create(history=[Message(Role.TOOL, [ToolResult("1", "\ud800")])])
    with pytest.raises(UnsupportedFeature, match="system"):
        await bridge.backend.create_conversation(system="Be brief.")
    assert [] == [each async for each in bridge.conversations()]


async def test_a_store_that_fails_makes_no_conversation() -> None:
    """It is an error, as there is no server that would have it all the same."""
    store = MemoryStore()
    bridge = over(fake(), store)
    await store.close()

    with pytest.raises(StoreError):
        await bridge.backend.create_conversation()


# ------------------------------------------------------------------------------------------------ memory


def asked(question: str, told: str) -> list[Message]:
    """Make a whole turn, in which a tool is called."""
    call, result = ToolCall("1", "weather", {}), ToolResult("1", told)
    called, given = Message.assistant([call]), Message(Role.TOOL, [result])
    return [Message.user(question), called, given, Message.assistant("ok")]


class Noting(SQLiteStore):
    """Notes which messages are read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: list[tuple[int, int]] = []

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        self.read.append((start, stop))
        return await super()._read(conversation_id, start, stop)


async def test_what_was_read_before_is_not_read_again(tmp_path: Path) -> None:
    async with Noting(tmp_path / "chats.db") as store:
        bridge = over(fake(), store)
        chat = await bridge.create(history=[Message.user("Hello"), Message.assistant("Hi")])

        answers = [(await chat.send(text)).text for text in ("one", "two")]

        assert "Turn 3: you said 'two'. Before that you said 'one'." == answers[1]
        assert [(0, 2), (1, 4)] == store.read


@pytest.mark.parametrize("rest", [["maple"], ["oak"] * 5, []])
async def test_a_history_that_somebody_has_replaced_is_read_anew(tmp_path: Path, rest: list[str]) -> None:
    async with SQLiteStore(tmp_path / "chats.db") as store:
        bridge = over(fake(), store)
        chat = await bridge.create()
        for text in ("Hello", "Hello again"):
            await chat.send(text)
        kept = await store.find(bridge.deliveries.ledger.remote(chat.id))
        assert kept is not None

        await store.replace(kept, 0, map(Message.user, rest))

        assert f"Turn {len(rest) + 1}: you said 'three'." in (await chat.send("three")).text


async def test_not_more_is_remembered_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recent, "SIZE", 3 * Recent.MESSAGE)
    async with Noting(tmp_path / "chats.db") as store:
        bridge = over(fake(), store)
        first, second = [await bridge.create(history=[Message.user("Hello")] * 2) for _ in range(2)]
        for chat in (first, second, second, first):
            await chat.send("Hello")

    assert [(0, 2), (0, 2), (1, 4), (0, 4)] == store.read


async def test_results_of_tools_take_room_in_what_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recent, "SIZE", 10 * Recent.MESSAGE)
    async with Noting(tmp_path / "chats.db") as store:
        chat = await over(fake(reply="ok"), store).create(history=asked("Hello", "x" * Recent.SIZE))
        for _ in range(2):
            await chat.send("And now?")

    assert [(0, 4), (0, 6)] == store.read


async def test_of_a_conversation_in_which_nothing_was_said_nothing_is_remembered(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "chats.db") as store:
        bridge = over(fake(), store)
        for _ in range(3):
            async with bridge.temporary() as chat:
                await chat.send("Hello")

        assert {} == vars(vars(bridge.backend)["_recent"])["_reads"]


async def test_what_memory_has_forgotten_of_a_conversation_is_told_with_each_answer() -> None:
    store = MemoryStore(keeps=6)
    bridge = over(fake(), store)
    chat = await bridge.create()
    for number in range(3):
        assert () == (await chat.send(f"number {number}")).warnings

    reply = await chat.send("number 3")

    assert any("the first 2 messages of the conversation are not in the store" in w for w in reply.warnings)


async def test_what_memory_has_forgotten_whole_is_told() -> None:
    bridge = over(fake(), MemoryStore(keeps=3))
    first, second = await bridge.create(), await bridge.create()
    await second.send("Hello")

    with pytest.raises(NotFound, match="one in memory forgets what was used longest ago"):
        await first.send("Hello")


async def test_a_fork_of_what_memory_has_forgotten_in_part_begins_with_a_turn_and_says_so() -> None:
    seen: list[Sequence[Message]] = []

    def answer(messages: Sequence[Message]) -> str:
        seen.append(messages)
        return "ok"

    backend = FakeBackend(FakeOptions(keeps="nothing"), answers=answer)
    bridge = over(backend, MemoryStore(keeps=8))
    chat = await bridge.create(
        history=[*asked("And here?", "21 degrees"), *asked("And there?", "22 degrees")]
    )

    fork = await chat.fork()

    assert ("the first 4 messages are left out",) == tuple(
        warning.partition(":")[0] for warning in fork.conversation.warnings
    )
    await fork.send("And now?")
    assert ["And there?", "", "", "ok", "And now?"] == [message.text for message in seen[-1]]


async def test_a_history_may_begin_with_what_the_assistant_says() -> None:
    bridge = over(fake())
    chat = await bridge.create(history=[Message.assistant("Welcome!"), Message.user("Hello")])
    whole = [message async for message in chat.messages()]

    fork = await chat.fork(before=whole[1])

    assert (["Welcome!"], ()) == (await said(fork), fork.conversation.warnings)


async def test_a_turn_whose_beginning_memory_has_forgotten_cannot_go_on() -> None:
    backend = fake()
    question, called, result, _ = asked("And here?", "21 degrees")
    chat = await over(backend, MemoryStore(keeps=4)).create(history=[question, called, result, called])

    with pytest.raises(NotFound, match="the question that their turn begins with is not in the store any"):
        await chat.send(result)
    backend.assert_nothing_sent()
    assert (await chat.send("Ask anew")).warnings


async def test_by_default_memory_keeps_many_where_nothing_else_does() -> None:
    bridge = over(fake())
    first = await bridge.create()
    many = [Message.user(str(number)) for number in range(3000)]
    await bridge.create(history=many)

    assert "Turn 1" in (await first.send("Hello")).text


# ------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize("drop", ["before", "after"])
async def test_a_message_without_an_answer_is_nowhere_and_blocks_nothing(store: Store, drop: Any) -> None:
    backend = fake(attempts=1)
    bridge = over(backend, store)
    chat = await bridge.create()
    for stream in (False, True):
        backend.fail(Fault(drop=drop))
        with pytest.raises(
            NotSent, match="nothing was added to the conversation, and the message may be sent again"
        ) as e:
            await (streamed(chat, "Hello") if stream else chat.send("Hello"))
        assert e.value.retryable
        assert e.value.turn is not None
        assert TurnState.NOT_SENT is e.value.turn.state
    assert [] == await said(chat)
    assert () == await chat.settle()

    assert "Turn 1: you said 'Hello'." == (await chat.send("Hello")).text


async def test_an_answer_that_does_not_come_in_time_is_a_timeout() -> None:
    backend = fake(delay=30.0, first_byte_timeout=5.0, attempts=1)
    chat = await over(backend).create()

    with pytest.raises(NotSentTimeout):
        await chat.send("Hello")


async def test_a_stream_that_broke_tells_what_came_and_leaves_nothing(store: Store) -> None:
    backend = fake()
    chat = await over(backend, store).create()
    backend.fail(Fault(cut_after=2))

    with pytest.raises(AnswerLost) as caught:
        await streamed(chat, "Hello")

    assert "Turn 1:" == caught.value.partial
    assert [(TurnState.ACCEPTED, "Turn 1:")] == [(turn.state, turn.partial) for turn in await chat.turns()]
    assert [] == await said(chat)
    assert "Turn 1: you said 'Hello'." == await streamed(chat, "Hello")


@pytest.mark.parametrize("left", [True, False])
async def test_a_message_whose_answer_broke_off_or_was_left_is_sent_again_like_any_that_failed(
    store: Store, left: bool
) -> None:
    backend = fake(attempts=1)
    chat = await over(backend, store).create()
    message = Message(Role.USER, "Hello", id="hello")
    if left:
        async with chat.stream(message) as stream:
            await anext(stream)
    else:
        backend.fail(Fault(cut_after=2))
        with pytest.raises(AnswerLost):
            await streamed(chat, message)
    backend.fail(Fault(drop="before"))
    with pytest.raises(NotSent, match="nothing was added to the conversation"):
        await chat.send(message, resend=True)

    assert "Turn 1: you said 'Hello'." == (await chat.send(message)).text
    assert ["Hello", "Turn 1: you said 'Hello'."] == await said(chat)
    assert [("hello", TurnState.DELIVERED)] == [(turn.id, turn.state) for turn in await chat.turns()]


async def test_a_message_that_was_answered_stays_so_though_it_is_sent_again_in_vain(store: Store) -> None:
    backend = fake(attempts=1)
    chat = await over(backend, store).create()
    message = Message(Role.USER, "Hello", id="hello")
    answers = [(await chat.send(message)).text]
    for fault in (Fault(cut_after=2), Fault(drop="before"), Fault(cut_after=1)):
        backend.fail(fault)
        with pytest.raises((AnswerLost, NotSent)):
            await chat.send(message, resend=True)
        with pytest.raises(UsageError, match="was sent before and is delivered"):
            await chat.send(message)
    assert ["Hello", *answers] == await said(chat)

    answers.append((await chat.send(message, resend=True)).text)

    assert ["Hello", answers[0], "Hello", answers[1]] == await said(chat)
    assert [TurnState.DELIVERED] == [turn.state for turn in await chat.turns()]


async def test_nobody_waiting_leaves_no_doubt(store: Store) -> None:
    backend = fake()
    chat = await over(backend, store).create()
    fault = backend.fail(Fault(hold=asyncio.Event()))
    task = asyncio.create_task(chat.send("Never mind"))
    await fault.reached.wait()
    task.cancel()
    await asyncio.wait([task])

    assert [TurnState.NOT_SENT] == [turn.state for turn in await chat.turns()]
    assert "Turn 1" in (await chat.send("Hello")).text


async def test_what_a_process_that_died_has_left_is_in_no_doubt(store: Store) -> None:
    """Its message was on its way, and is nowhere."""
    backend = fake()
    dead, bridge = over(backend, store), over(backend, store)
    chat = await dead.create()
    ledger = dead.deliveries.ledger
    for settle in (True, False):
        await dead.deliveries.begin(chat.id, Message(Role.USER, "Lost", f"lost-{settle}"), float("inf"))
        await store.release(ledger.remote(chat.id), ledger.holder)
        here = bridge.open(chat.id)
        assert TurnState.UNKNOWN is (await here.turns())[-1].state
        if settle:
            assert [TurnState.NOT_SENT] == [turn.state for turn in await here.settle()]
        else:
            assert "Turn 1" in (await here.send("Hello")).text
    assert {TurnState.NOT_SENT, TurnState.DELIVERED} == {turn.state for turn in await here.turns()}


async def test_what_is_in_doubt_in_a_conversation_that_is_not_there_is_settled(store: Store) -> None:
    bridge = over(fake(), store)
    nowhere = bridge.open("nowhere")
    lost = Turn("lost", "nowhere", Message(Role.USER, "Lost", "lost"), datetime.now(UTC), TurnState.UNKNOWN)
    await store.record(bridge.deliveries.ledger.remote("nowhere"), lost)

    assert [TurnState.NOT_SENT] == [turn.state for turn in await nowhere.settle()]
    with pytest.raises(NotFound):
        await nowhere.settle()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("act", ["settle", "send", "forget"])
async def test_an_answer_after_others_went_on_is_given_and_not_stored(
    store: Store, act: str, stream: bool
) -> None:
    """Its process held the conversation for too long; what was said meanwhile was said without it."""
    backend = fake()
    slow, bridge = over(backend, store), over(backend, store)
    chat = await slow.create()
    here, ledger = bridge.open(chat.id), slow.deliveries.ledger
    fault = backend.fail(Fault(hold=asyncio.Event()))
    assert fault.hold is not None
    sending = asyncio.create_task(streamed(chat, "First") if stream else chat.send("First"))
    await fault.reached.wait()
    await store.release(ledger.remote(chat.id), ledger.holder)
    await (here.send("Second") if act == "send" else here.settle() if act == "settle" else here.forget())
    told = [(turn.message.text, turn.state.value) for turn in await here.turns()]
    fault.hold.set()

    with pytest.raises(StoreError, match="another process has gone on with it") as caught:
        await sending

    assert ("taken", False) == (caught.value.kind, caught.value.retryable)
    assert caught.value.reply is not None
    assert "Turn 1: you said 'First'." == caught.value.reply.text
    assert caught.value.turn is not None
    assert TurnState.NOT_SENT is caught.value.turn.state
    assert told == [(turn.message.text, turn.state.value) for turn in await here.turns()]
    assert [("First", "not_sent")] * (act != "forget") == told[:1]
    there = [] if await store.find(ledger.remote(chat.id)) is None else await said(here)
    assert ["Second", "Turn 1: you said 'Second'."][: 2 * (act == "send")] == there


async def test_an_answer_is_stored_where_nobody_went_on_meanwhile(store: Store) -> None:
    backend = fake()
    chat = await over(backend, store).create()
    ledger = chat.bridge.deliveries.ledger
    fault = backend.fail(Fault(hold=asyncio.Event()))
    assert fault.hold is not None
    sending = asyncio.create_task(chat.send("First"))
    await fault.reached.wait()
    await store.release(ledger.remote(chat.id), ledger.holder)
    fault.hold.set()
    await sending

    assert ["First", "Turn 1: you said 'First'."] == await said(chat)


async def test_an_answer_that_was_stored_too_late_blocks_nothing(tmp_path: Path) -> None:
    """The store was locked, and another process went on until it no longer was."""

    class Locked(SQLiteStore):
        locked = True

        async def record(self, remote: Remote, turn: Turn, *given: Any, **named: Any) -> Turn:
            if self.locked and turn.state is not TurnState.PENDING:
                raise StoreError("a backup is made", kind="locked")
            return await super().record(remote, turn, *given, **named)

    backend = fake()
    async with Locked(tmp_path / "chats.db") as locked, SQLiteStore(tmp_path / "chats.db") as store:
        chat = await over(backend, locked).create()
        with pytest.raises(StoreError, match="a backup is made"):
            await chat.send("First")
        ledger = chat.bridge.deliveries.ledger
        await store.release(ledger.remote(chat.id), ledger.holder)
        await over(backend, store).open(chat.id).send("Second")
        locked.locked = False

        await chat.send("Third")

        states = [(turn.message.text, turn.state.value) for turn in await chat.turns()]
        assert [("First", "not_sent"), ("Second", "delivered"), ("Third", "delivered")] == states
        assert ["Second", "Third"] == (await said(chat))[::2]


# ------------------------------------------------------------------------------------------------- tools


async def test_results_of_tools_are_sent_and_the_next_answer_comes(store: Store) -> None:
    chat = await over(fake(), store).create()
    reply = await chat.send("Ask weather please", tools=[WEATHER])
    (call,) = [part for part in reply.message.parts if isinstance(part, ToolCall)]

    result = Message(Role.TOOL, [ToolResult(call.id, "21 degrees")])
    told = await chat.send(result, tools=[WEATHER])

    assert "Turn 2: you said '21 degrees'. Before that you said 'Ask weather please'." == told.text
    history = [message async for message in chat.messages()]
    assert [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT] == [message.role for message in history]
    assert ((call,), result.parts) == (history[1].parts, history[2].parts)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (Message(Role.ASSISTANT, "I said"), "none of the assistant"),
        (Message(Role.SYSTEM, "Be"), "none of the system"),
        (Message(Role.TOOL), "without parts says nothing"),
        (Message(Role.USER), "without parts says nothing"),
        (Message(Role.TOOL, [Text("Hello")]), "results of tools and nothing else"),
        (Message(Role.TOOL, [ToolResult("1", "\ud800")]), "half a character"),
    ],
)
async def test_what_neither_user_nor_tool_says_is_refused(message: Message, problem: str) -> None:
    backend = fake()
    chat = await over(backend).create()

    with pytest.raises(UsageError, match=problem):
        await chat.send(message)
    backend.assert_nothing_sent()


# ------------------------------------------------------------------------------------------------- forks


async def test_a_fork_begins_with_what_was_said_before_a_message(store: Store) -> None:
    bridge = over(fake(), store)
    chat = await bridge.create(title="Kyoto", system="Be brief.")
    for text in ("one", "two", "three"):
        await chat.send(text)
    whole = [message async for message in chat.messages()]

    fork = await chat.fork(before=whole[4])

    assert "Turn 3: you said '3'. Before that you said 'two'." == (await fork.send("3")).text
    assert ["one", "two", "3"] == (await said(fork))[::2]
    assert ["one", "two", "three"] == (await said(chat))[::2]
    assert ("Kyoto", "Be brief.") == (fork.conversation.title, fork.conversation.system)
    assert ("Nara", []) == (
        (other := await chat.fork(whole[0].id, title="Nara")).conversation.title,
        await said(other),
    )
    assert await said(chat) == await said(await chat.fork())


async def test_a_fork_shares_what_it_has_in_common(store: Store) -> None:
    bridge = over(fake(), store)
    chat = await bridge.create()
    await chat.send("one")

    fork = await chat.fork()

    kept = [await store.find(bridge.deliveries.ledger.remote(each.id)) for each in (chat, fork)]
    assert 1 == len({None if each is None else each.head for each in kept})


async def test_a_fork_before_what_is_not_there_is_refused() -> None:
    chat = await over(fake()).create()

    with pytest.raises(UsageError, match="no message with the id 'nothing'"):
        await chat.fork("nothing")
    with pytest.raises(UsageError, match="a message with an id"):
        await chat.fork(Message.user("Hello"))


async def test_a_server_that_begins_conversations_with_a_history_forks_too() -> None:
    chat = await connect("fake:").create()
    await chat.send("one")
    await chat.send("two")
    messages = [message async for message in chat.messages()]

    assert "Before that you said 'one'" in (await (await chat.fork(messages[2])).send("zwei")).text


async def test_one_that_cannot_says_so() -> None:
    bridge = FakeBackend(profile="kaziro").bridge()

    with pytest.raises(UnsupportedFeature, match="history_seed"):
        await (await bridge.create()).fork()


async def test_there_is_nothing_to_pull_from() -> None:
    chat = await over(fake()).create()

    with pytest.raises(UnsupportedFeature, match="the store alone has its conversations"):
        await chat.pull()


# --------------------------------------------------------------------------------- what is too long


async def test_too_long_a_conversation_is_an_error_by_default(store: Store) -> None:
    chat = await over(fake(window=12), store).create()
    await chat.send("one two three")

    with pytest.raises(RequestRefused, match="the model takes 12 words") as caught:
        await chat.send("four five six")

    assert CONTEXT_LENGTH == caught.value.code
    assert 2 == len(await said(chat))


@pytest.mark.parametrize("stream", [False, True])
async def test_the_oldest_turns_are_left_out_and_the_reply_says_so(store: Store, stream: bool) -> None:
    backend = fake(window=30, reply="ok")
    bridge = over(backend, store, overflow="drop-oldest")
    history = [m for n in range(20) for m in (Message.user(f"number {n}"), Message.assistant("ok"))]
    chat = await bridge.create(history=history)

    if stream:
        async with chat.stream("the last") as reading:
            _ = [event async for event in reading]
        reply = reading.reply
    else:
        reply = await chat.send("the last")

    expected = "the conversation is longer than the model takes, so 30 of its 41 messages were left out"
    assert (expected,) == reply.warnings
    assert 42 == len(await said(chat)), "the history stays whole"
    before = len(backend.calls)
    assert 1 == len((await chat.send("one more")).warnings)
    assert 1 == len(backend.calls) - before, "what was too much before is not tried again"
    await chat.send("another model", model="bigger")
    assert 4 == len(backend.calls) - before, "another model is given all of it first"


async def test_what_was_left_out_for_a_long_answer_or_for_tools_is_not_left_out_without_them() -> None:
    class Roomy(FakeCompletions):
        async def complete(self, messages: Sequence[Message], options: SendOptions) -> Reply:
            seen.append(len(messages))
            if 10 * len(messages) + (options.max_output_tokens or 0) + 100 * len(options.tools) > 200:
                raise RequestRefused("too long", code=CONTEXT_LENGTH, from_api=True)
            return await super().complete(messages, options)

    seen: list[int] = []
    bridge = Bridge(Roomy(FakeBackend(profile=COMPLETIONS)), overflow=drop_oldest)
    chat = await bridge.create(history=[Message.user("one"), Message.assistant("ok")] * 5)

    assert (await chat.send("long", max_output_tokens=120)).warnings
    assert (await chat.send("tools", tools=[WEATHER])).warnings
    assert () == (await chat.send("short")).warnings
    assert 15 == seen[-1]


async def test_a_message_that_was_said_before_may_be_said_again_where_some_is_left_out() -> None:
    backend = fake(window=6, reply="ok")
    bridge = over(backend, overflow="drop-oldest")
    message = Message(Role.USER, "two words", "said-twice")
    chat = await bridge.create(
        history=[Message.user("three words more"), *[message, Message.assistant("ok")] * 2]
    )

    (warning,) = (await chat.send(message)).warnings

    assert "3 of its 6 messages were left out" in warning


async def test_what_cannot_be_made_shorter_is_the_error_of_the_api() -> None:
    chat = await over(fake(window=2), overflow="drop-oldest").create(history=[Message.user("one two three")])

    with pytest.raises(RequestRefused, match="the model takes 2 words, and the conversation has 4"):
        await chat.send("one two three four")


async def test_a_function_says_what_is_sent_instead() -> None:
    def last_two(messages: Sequence[Message]) -> Sequence[Message]:
        return messages[-2:]

    chat = await over(fake(window=10), overflow=last_two).create()
    await chat.send("one two three")

    reply = await chat.send("four")

    assert (
        "the conversation is longer than the model takes, so 1 of its 3 messages were left out",
    ) == reply.warnings


def all_but_first(messages: Sequence[Message]) -> Sequence[Message]:
    return messages[1:]


def all_but_last(messages: Sequence[Message]) -> Sequence[Message]:
    return messages[:-1]


async def test_what_a_function_puts_in_the_place_of_others_does_not_count_as_them() -> None:
    def summed_up(messages: Sequence[Message]) -> Sequence[Message]:
        return [Message(Role.SYSTEM, "They counted."), messages[-1]]

    chat = await over(fake(window=6), overflow=summed_up).create(history=[Message.user("one two three")] * 2)

    (warning,) = (await chat.send("four")).warnings

    assert "2 of its 3 messages were left out" in warning


async def test_a_function_may_change_the_list_that_it_is_given() -> None:
    def kept_last(messages: Sequence[Message]) -> Sequence[Message]:
        assert isinstance(messages, list)
        del messages[:-1]
        return cast(Sequence[Message], messages)

    backend = fake(window=2, reply="ok")
    chat = await over(backend, overflow=kept_last).create(history=[Message.user("one two three")] * 2)

    assert "ok" == (await chat.send("four")).text


async def test_a_function_is_asked_a_bounded_number_of_times() -> None:
    backend = fake(window=1)
    history = [Message.user("one two")] * 50
    chat = await over(backend, overflow=all_but_first).create(history=history)

    with pytest.raises(RequestRefused) as caught:
        await chat.send("one two")
    assert SHORTENED + 1 == len(backend.calls)
    assert ["it was made shorter 12 times, and not more is tried for one message"] == caught.value.__notes__


def nothing(_: Sequence[Message]) -> Sequence[Message]:
    return []


def last_twice(messages: Sequence[Message]) -> Sequence[Message]:
    return [messages[-1]] * 2


@pytest.mark.parametrize("overflow", [all_but_last, last_twice])
async def test_a_function_that_leaves_out_what_is_asked_is_refused(overflow: Overflow) -> None:
    chat = await over(fake(window=1), overflow=overflow).create(history=[Message.user("Hello")] * 2)

    with pytest.raises(UsageError, match="does not end with the message to be answered"):
        await chat.send("one two")
    assert [TurnState.NOT_SENT] == [turn.state for turn in await chat.turns()]


@pytest.mark.parametrize("overflow", [nothing, list])
async def test_a_function_that_gives_none_or_all_gives_up(overflow: Overflow) -> None:
    chat = await over(fake(window=1), overflow=overflow).create(history=[Message.user("Hello")] * 2)

    with pytest.raises(RequestRefused) as caught:
        await chat.send("one two")
    assert CONTEXT_LENGTH == caught.value.code


async def summary(messages: Sequence[Message]) -> Sequence[Message]:
    await asyncio.sleep(0)
    return [Message.user(f"{len(messages) - 1} before"), messages[-1]]


class Summary:
    async def __call__(self, messages: Sequence[Message]) -> Sequence[Message]:
        return await summary(messages)


@pytest.mark.parametrize("overflow", [summary, Summary()])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_function_may_be_asynchronous(overflow: Overflow, stream: bool) -> None:
    backend = fake(window=4, reply="ok")
    chat = await over(backend, overflow=overflow).create(history=[Message.user("Hello")] * 9)

    await (streamed(chat, "one two") if stream else chat.send("one two"))
    assert ["9 before", "one two"] == backend.heard.splitlines()[1:]


def words(messages: Sequence[Message]) -> object:
    return ["before", messages[-1]]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (print, "a NoneType"),
        (words, "a list of str"),
        (iter, "a list_iterator"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_function_that_gives_no_messages_is_refused(given: Any, told: str, stream: bool) -> None:
    chat = await over(fake(window=1), overflow=given).create()

    with pytest.raises(UsageError, match=f"overflow gives a sequence of messages, and here it gave {told}$"):
        await (streamed(chat, "one two") if stream else chat.send("one two"))


async def test_what_a_function_raises_goes_to_who_sent_the_message() -> None:
    def fails(messages: Sequence[Message]) -> Sequence[Message]:
        raise ZeroDivisionError(messages[-1].text)

    chat = await over(fake(window=1), overflow=fails).create()

    with pytest.raises(ZeroDivisionError):
        await chat.send("one two")
    assert [] == await said(chat)


async def takes_too_long(_: Sequence[Message]) -> Sequence[Message]:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()
    raise AssertionError


async def awaits_what_is_cancelled(_: Sequence[Message]) -> Sequence[Message]:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task
    raise AssertionError


async def reads_a_stream_that_breaks(_: Sequence[Message]) -> Sequence[Message]:
    async with connect("fake:?fail=cut:2") as bridge:
        await streamed(await bridge.create(), "Sum up")
    raise AssertionError


def asks_and_is_not_answered(_: Sequence[Message]) -> Sequence[Message]:
    raise DeliveryUnknown("the summary was lost", kind="lost")


@pytest.mark.parametrize(
    ("overflow", "reason", "cause"),
    [
        (takes_too_long, "TimeoutError", TimeoutError),
        (awaits_what_is_cancelled, "CancelledError", asyncio.CancelledError),
        (reads_a_stream_that_breaks, "StreamCut: ", StreamCut),
        (asks_and_is_not_answered, "DeliveryUnknown: the summary was lost", DeliveryUnknown),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_a_function_that_fails_is_not_told_as_the_fate_of_the_message(
    overflow: Overflow, reason: str, cause: type[BaseException], store: Store, *, stream: bool
) -> None:
    chat = await over(fake(window=1), store, overflow=overflow).create()

    with pytest.raises(RequestRefused, match="the model takes 1 words") as caught:
        await (streamed(chat, "one two") if stream else chat.send("one two"))

    assert CONTEXT_LENGTH == caught.value.code
    assert isinstance(caught.value.__cause__, cause)
    (note,) = caught.value.__notes__
    assert note.startswith(f"it was to be made shorter, and overflow failed: {reason}")
    assert [(TurnState.REFUSED, "")] == [(turn.state, turn.partial) for turn in await chat.turns()]


async def _waits(begun: asyncio.Event, _: Sequence[Message]) -> Sequence[Message]:
    begun.set()
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("stream", [False, True])
async def test_who_is_cancelled_while_a_function_is_asked_is_cancelled(*, stream: bool) -> None:
    begun = asyncio.Event()
    chat = await over(fake(window=1), overflow=partial(_waits, begun)).create()
    task = asyncio.create_task(streamed(chat, "one two") if stream else chat.send("one two"))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert [TurnState.REFUSED] == [turn.state for turn in await chat.turns()]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_function_has_until_the_deadline_of_the_message_whoever_sends_it(*, stream: bool) -> None:
    begun = asyncio.Event()
    backend = fake(window=1)
    bridge = over(backend, overflow=partial(_waits, begun))
    bridge.bounds.trusted = True
    chat = await bridge.create()
    task = asyncio.create_task(streamed(chat, "one two") if stream else chat.send("one two"))
    await begun.wait()
    cast(ManualClock, backend.clock).advance(bridge.options.timeout)

    with pytest.raises(RequestRefused) as caught:
        await asyncio.wait_for(task, 10)
    assert ["it was to be made shorter, and overflow failed: TimeoutError"] == caught.value.__notes__


@pytest.mark.parametrize("stream", [False, True])
async def test_a_function_that_asks_in_the_conversation_that_it_shortens_is_told_so_at_once(
    *, stream: bool
) -> None:
    async def asks(_: Sequence[Message]) -> Sequence[Message]:
        await chat.send("Sum up")
        raise AssertionError

    backend = fake(window=1)
    chat = await over(backend, overflow=asks).create()

    with pytest.raises(RequestRefused, match="the model takes 1 words") as caught:
        await (streamed(chat, "one two") if stream else chat.send("one two"))

    assert "would wait for itself" in caught.value.__notes__[0]
    assert 1 == len(backend.calls)


async def test_how_much_was_too_long_is_remembered_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Completing, "REMEMBERED", 1)
    backend = fake(window=10, reply="ok")
    bridge = over(backend, overflow="drop-oldest")
    history = [Message.user("one two three")] * 4
    first, second = await bridge.create(history=history), await bridge.create(history=history)
    for chat in (first, second, second, first):
        before = len(backend.calls)
        await chat.send("four")
        assert (1 if chat is second and before > 3 else 2) >= len(backend.calls) - before
    assert 1 == len(vars(bridge.backend)["_too_many"])


@pytest.mark.parametrize("overflow", ["drop-oldest", "error", drop_oldest])
async def test_overflow_given_in_code_has_no_effect_where_the_server_has_the_conversation(
    overflow: Any,
) -> None:
    backend = FakeBackend()
    for bridge in (connect("fake:", overflow=overflow), Bridge(backend, overflow=overflow)):
        async with bridge:
            assert "Turn 1: you said 'Hello'." == (await (await bridge.create()).send("Hello")).text


def test_overflow_written_in_a_string_is_refused_where_the_server_has_the_conversation() -> None:
    for read in (connect, declared_profile):
        for word in ("drop-oldest", "error"):
            with pytest.raises(BadOption, match="'overflow' would have no effect"):
                read(BackendURL.parse(f"fake:?overflow={word}"))


def test_a_wrong_overflow_is_refused_by_every_backend() -> None:
    for backend in (FakeBackend(), fake().completions):
        with pytest.raises(ConfigError, match="not 'drop-newest'"):
            Bridge(backend, overflow="drop-newest")


def test_overflow_may_be_given_in_the_string_and_in_code() -> None:
    assert "drop-oldest" == connect("fake:?keeps=nothing&overflow=drop-oldest").options.overflow
    assert "error" == connect("fake:?keeps=nothing&overflow=drop-oldest", overflow="error").options.overflow
    connect("fake:?keeps=nothing", overflow=drop_oldest)
    with pytest.raises(BadOption, match="drop-newest"):
        connect("fake:?keeps=nothing", overflow="drop-newest")


def test_overflow_is_a_word_or_a_function() -> None:
    assert None is read_overflow("error")
    assert drop_oldest is read_overflow("drop-oldest")
    assert summary is read_overflow(summary)
    with pytest.raises(ConfigError, match="overflow is 'error', 'drop-oldest' or a function from messages"):
        read_overflow(7)


def conversation(script: str) -> list[Message]:
    """Make messages: s of the system, u the user's, a the assistant's, t results, r results as the user."""
    roles = {"s": Role.SYSTEM, "u": Role.USER, "a": Role.ASSISTANT, "t": Role.TOOL, "r": Role.USER}
    return [
        Message(roles[each], [ToolResult("1", "x")] if each in "tr" else each, str(number))
        for number, each in enumerate(script)
    ]


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        ("uauauau", "uau"),
        ("suauauau", "suau"),
        ("uasuauau", "suau"),
        ("uatauatau", "uatau"),
        ("uauatauatat", "uatauatat"),
        ("uarauauara", "uauara"),
        ("auau", "u"),
        ("au", "u"),
        ("u", "u"),
        ("su", "su"),
        ("at", "at"),
    ],
)
def test_whole_turns_are_left_out_and_calls_stay_with_their_results(script: str, kept: str) -> None:
    messages = conversation(script)

    left = drop_oldest(messages)

    names = {Role.SYSTEM: "s", Role.ASSISTANT: "a", Role.TOOL: "t"}
    shown = "".join(names.get(each.role, "u" if begins_turn(each) else "r") for each in left)
    assert kept == shown
    assert messages[-1] is left[-1]


# ------------------------------------------------------------------------------------------------ the fake


async def test_a_fake_that_keeps_nothing_tells_what_went_out() -> None:
    backend = fake()
    async with backend.bridge() as bridge:
        await (await bridge.create()).send("Hello")
        assert isinstance(bridge.api, FakeCompletions)

    backend.assert_sent("Hello", times=1)
    assert {} == backend.conversations
    with pytest.raises(UsageError, match="not of the assistant"):
        await backend.complete([Message.assistant("Hello")], SendOptions())


async def test_a_fake_that_keeps_nothing_refuses_results_that_nobody_has_called_for(store: Store) -> None:
    chat = await over(fake(), store).create()
    result = Message(Role.TOOL, [ToolResult("7", "21 degrees")])

    with pytest.raises(UsageError, match="cannot be sent a result of the call '7', which was not made right"):
        await chat.send(result)

    assert [] == await said(chat)


async def test_a_fake_that_keeps_nothing_shows_what_it_was_told() -> None:
    backend = fake()
    assert "" == backend.heard
    chat = await over(backend).create(system="Be brief.", history=[Message.user("What is a maple?")])

    await chat.send("And an oak?")

    assert "Be brief." in backend.heard
    assert ["What is a maple?", "And an oak?"] == backend.heard.splitlines()[1:]
    assert backend.heard == backend.completions.heard


@pytest.mark.parametrize("kept", ["fake:?window=5", "fake:?window=5&profile=kaziro"])
def test_a_fake_has_no_window_where_it_keeps_the_conversation(kept: str) -> None:
    with pytest.raises(BadOption, match="option 'window' would have no effect"):
        connect(kept)


def test_a_fake_is_told_once_what_it_can_do() -> None:
    with pytest.raises(ConfigError, match="profile and keeps each say"):
        connect("fake:?keeps=nothing&profile=kaziro")


async def test_faults_are_planned_for_the_backend_itself() -> None:
    backend = fake(attempts=1)
    bridge = over(backend)
    partner = Checks().partner(bridge)

    partner.fail(Fault(drop="before"))

    with pytest.raises(NotSent):
        await (await bridge.create()).send("Hello")
    assert 1 == partner.writes


# ---------------------------------------------------------------------------------------- the command line


def test_a_description_says_who_keeps_what() -> None:
    shown = " ".join(check(0, run("describe", "fake:?keeps=nothing")).stdout.split())

    assert "with: chatbridge stores a message together with its answer" in shown
    assert "a message without an answer is not in the conversation; none blocks the next" in shown


def test_what_a_process_that_died_has_left_is_settled_by_the_command_line(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path / 'chats.db'}"

    async def die() -> None:
        async with SQLiteStore(tmp_path / "chats.db") as store:
            bridge = over(fake(), store)
            chat = await bridge.create()
            await bridge.deliveries.begin(chat.id, Message(Role.USER, "Lost", "lost"), float("inf"))
            ledger = bridge.deliveries.ledger
            await store.release(ledger.remote(chat.id), ledger.holder)

    asyncio.run(die())
    assert "unknown" in check(0, run("turns", "--store", where)).stdout
    (turn,) = json.loads(check(0, run("settle", "--json", "--store", where, "fake:?keeps=nothing")).stdout)
    assert "not_sent" == turn["state"]
    assert "" == check(0, run("turns", "--store", where)).stdout
