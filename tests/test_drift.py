"""Pulling: how a store's copy of a conversation is to what its API shows, and what is taken over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    Bridge,
    Chat,
    ChatbridgeError,
    DeliveryUnknown,
    Message,
    NotFound,
    Reasoning,
    Role,
    StoreError,
    Text,
    ToolCall,
    TurnState,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.backend import SettleBy
from chatbridge.drift import Drift, DriftState, pieces_of, with_ours
from chatbridge.history import MemoryStore, SQLiteStore, StoredConversation
from chatbridge.history.chain import Entry
from chatbridge.options import CommonOptions
from chatbridge.testing.emulator import Emulator, Fault, serve
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator
from chatbridge_adapters.tachyon.emulator import TachyonEmulator
from doubles import Double
from operations import APIS

Reach = Callable[..., Awaitable[Bridge]]

IN_STEP = Drift(DriftState.IN_STEP)

Said = list[str]


class Shown(Double):
    """
    Its history may be read back and changed behind the bridge's back.

    Attributes:
        reads: How often it was read.
    """

    def __init__(self) -> None:
        super().__init__()
        self._profile = evolve(self._profile, settle_by={SettleBy.READ_BACK})

    @property
    def reads(self) -> int:
        return self.calls.count("messages")

    def put(self, conversation_id: str, *texts: str) -> None:
        """Have the conversation say *texts*, and nothing else."""
        self.show(conversation_id, map(Message.user, texts))

    def show(self, conversation_id: str, messages: Iterable[Message]) -> None:
        """Have the conversation hold *messages*."""
        self._kept[conversation_id].messages[:] = messages


async def copied(bridge: Bridge, texts: Said, chat: Chat | None = None) -> Chat:
    """Make a conversation that the store of *bridge* has with *texts*."""
    chat = await bridge.create() if chat is None else chat
    remote = bridge.deliveries.ledger.remote(chat.id)
    await bridge.store.keep(remote, None, map(Message.user, texts))
    return chat


async def kept(bridge: Bridge, chat: Chat) -> Said:
    found = await bridge.store.find(bridge.deliveries.ledger.remote(chat.id))
    assert found is not None
    return [message.text async for message in bridge.store.messages(found.id)]


# ----------------------------------------------------------------------------------------- what is reported

CASES: list[tuple[str, str, Drift]] = [
    ("", "", IN_STEP),
    ("ab", "ab", IN_STEP),
    ("", "ab", Drift(DriftState.REMOTE_AHEAD, 0, 2)),
    ("a", "abc", Drift(DriftState.REMOTE_AHEAD, 1, 2)),
    ("ac", "abc", Drift(DriftState.REMOTE_AHEAD, 1, 1)),
    ("bc", "abc", Drift(DriftState.REMOTE_AHEAD, 0, 1)),
    ("aa", "aaa", Drift(DriftState.REMOTE_AHEAD, 2, 1)),
    ("abab", "abbabb", Drift(DriftState.REMOTE_AHEAD, 2, 2)),
    ("ab", "", Drift(DriftState.LOCAL_AHEAD, 0)),
    ("abc", "ab", Drift(DriftState.LOCAL_AHEAD, 2)),
    ("abc", "ac", Drift(DriftState.LOCAL_AHEAD, 1)),
    ("abc", "axc", Drift(DriftState.DIVERGED, 1)),
    ("ab", "ba", Drift(DriftState.DIVERGED, 0)),
    ("abc", "acd", Drift(DriftState.DIVERGED, 1)),
]


@pytest.mark.parametrize(("ours", "theirs", "expected"), CASES)
@pytest.mark.parametrize("durable", [False, True])
async def test_the_report_says_which_side_has_more_and_where_they_part(
    ours: str, theirs: str, expected: Drift, durable: bool, tmp_path: Path
) -> None:
    backend = Shown()
    store = SQLiteStore(tmp_path / "chats.db") if durable else MemoryStore()
    async with store, Bridge(backend, store=store) as bridge:
        chat = await copied(bridge, list(ours))
        backend.put(chat.id, *theirs)

        assert expected == await chat.pull()

        taken = expected.state is DriftState.REMOTE_AHEAD
        assert list(theirs if taken else ours) == await kept(bridge, chat)
        again = await chat.pull()
        assert (IN_STEP if taken else expected) == again


@pytest.mark.parametrize(("ours", "theirs", "expected"), CASES)
async def test_overwriting_makes_the_copy_the_apis(ours: str, theirs: str, expected: Drift) -> None:
    backend = Shown()
    bridge = Bridge(backend)
    chat = await copied(bridge, list(ours))
    backend.put(chat.id, *theirs)
    new = len(theirs) - (expected.at or 0) if expected.state is DriftState.DIVERGED else expected.new

    assert evolve(expected, new=new) == await chat.pull(overwrite=True)

    assert list(theirs) == await kept(bridge, chat)
    assert IN_STEP == await chat.pull()


def is_within(short: Said, long: Said) -> bool:
    rest = iter(long)
    return all(each in rest for each in short)


TEXTS = st.lists(st.sampled_from("abc"), max_size=7)


@given(ours=TEXTS, theirs=TEXTS)
def test_the_report_is_true_of_any_two_histories(ours: Said, theirs: Said) -> None:
    async def check() -> None:
        backend = Shown()
        bridge = Bridge(backend)
        chat = await copied(bridge, ours)
        backend.put(chat.id, *theirs)
        drift = await chat.pull()
        states = {
            DriftState.IN_STEP: ours == theirs,
            DriftState.REMOTE_AHEAD: ours != theirs and is_within(ours, theirs),
            DriftState.LOCAL_AHEAD: ours != theirs and is_within(theirs, ours),
        }
        assert drift.state is next((each for each, holds in states.items() if holds), DriftState.DIVERGED)
        if drift.at is None:
            assert ours == theirs
        else:
            assert ours[: drift.at] == theirs[: drift.at]
            assert ours[drift.at : drift.at + 1] != theirs[drift.at : drift.at + 1]
        taken = states[DriftState.REMOTE_AHEAD]
        assert (len(theirs) - len(ours) if taken else 0) == drift.new
        assert (theirs if taken else ours) == await kept(bridge, chat)
        await chat.pull(overwrite=True)
        assert theirs == await kept(bridge, chat)
        assert IN_STEP == await chat.pull()
        remote = bridge.deliveries.ledger.remote
        other = await copied(bridge, theirs)
        heads = [await bridge.store.find(remote(each.id)) for each in (chat, other)]
        assert heads[0] is not None
        assert heads[1] is not None
        assert heads[0].head == heads[1].head, "the chain is as if it had been told so"

    asyncio.run(check())


# ------------------------------------------------------------------------------------------ what ours have

HM, OH = Reasoning("Hm."), Reasoning("Oh.")
A, B, C, X = map(Text, "abcx")
F, G = ToolCall("1", "f", {}), ToolCall("2", "g", {})

Parts = tuple[Any, ...]

JOINED: dict[str, tuple[list[Parts], list[Parts], list[Parts]]] = {
    "before": ([(A,), (HM, B)], [(X,), (A,), (B,)], [(X,), (A,), (HM, B)]),
    "between": ([(HM, A), (OH, B)], [(A,), (X,), (B,)], [(HM, A), (X,), (OH, B)]),
    "one of ours is many of theirs": ([(HM, A, F, B)], [(X,), (A,), (F,), (B,)], [(X,), (HM, A, F, B)]),
    "one of theirs is many of ours": ([(HM, A), (F,), (B,)], [(X,), (A, F, B)], [(X,), (HM, A), (F,), (B,)]),
    "the ends meet later": (
        [(HM, A, F), (OH, G, B)],
        [(X,), (A,), (F, G), (B,)],
        [(X,), (HM, A, F), (OH, G, B)],
    ),
    "within one of ours": ([(HM, A, F), (OH, B)], [(A,), (X,), (F,), (B,)], [(A,), (X,), (F,), (OH, B)]),
    "within one of theirs": ([(HM, A), (OH, B)], [(A, F), (B,)], [(A, F), (OH, B)]),
    "between parts of one of theirs": ([(HM, A), (F,), (OH, B)], [(A, G, F), (B,)], [(A, G, F), (OH, B)]),
    "thought is shown apart": ([(A,), (HM, B)], [(X,), (A,), (HM,), (B,)], [(X,), (A,), (HM, B)]),
    "what thought is shown is theirs": ([(A,)], [(X,), (HM,), (A,)], [(X,), (HM,), (A,)]),
    "thought alone": ([(HM,), (A,)], [(X,), (HM,), (A,)], [(X,), (HM,), (A,)]),
    "thought alone at the end": ([(A,), (HM,)], [(X,), (A,), (HM,), (B,)], [(X,), (A,), (HM,), (B,)]),
    "thought that is not shown": ([(A,), (HM,)], [(X,), (A,), (B,)], [(X,), (A,), (HM,), (B,)]),
}


@pytest.mark.parametrize("case", JOINED)
async def test_pulling_keeps_what_the_api_does_not_show(case: str) -> None:
    ours, theirs, expected = (
        [Message(Role.ASSISTANT, parts) for parts in messages] for messages in JOINED[case]
    )
    backend = Shown()
    bridge = Bridge(backend)
    chat = await bridge.create()
    remote = bridge.deliveries.ledger.remote(chat.id)
    stored = await bridge.store.keep(remote, None, [evolve(each, extra={"mine": True}) for each in ours])
    backend.show(chat.id, theirs)

    assert DriftState.REMOTE_AHEAD is (await chat.pull()).state

    messages = [message async for message in bridge.store.messages(stored.id)]
    assert [each.parts for each in expected] == [each.parts for each in messages]
    assert [each in ours and each not in theirs for each in expected] == [
        bool(each.extra) and each.parts not in [their.parts for their in theirs] for each in messages
    ]
    assert IN_STEP == await chat.pull()


async def test_what_is_written_while_ours_are_read_is_left_to_the_next_try() -> None:
    async def ours() -> AsyncGenerator[Entry, None]:
        yield Entry(Message.user("other"), None)

    theirs = [Message.user("a"), Message.user("b")]
    assert theirs == await with_ours(ours(), theirs)


# ---------------------------------------------------------------------------------------------- an API each

SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "datamonkey": ("datamonkey", {}),
    "tachyon": ("tachyon", {}),
    "tachyon-agent": ("tachyon", {"mode": "agent"}),
    "h2ogpte": ("h2ogpte", {}),
}

TEXTS_SENT = (
    "Hello",
    " blank around ",
    "lines\nand\r\nlines\t",
    "e\u0301 is not \u00e9 \U0001f341",
    "a\x00b",
    "Hello",
)


async def streamed(chat: Chat, text: str) -> None:
    async with chat.stream(text) as stream:
        async for _ in stream:
            pass


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("durable", [False, True])
async def test_what_went_through_chatbridge_is_in_step(
    name: str, durable: bool, reach: Reach, tmp_path: Path
) -> None:
    api, options = SHOWN[name]
    emulator = APIS[api].emulator()
    store = SQLiteStore(tmp_path / "chats.db") if durable else MemoryStore()
    async with store:
        bridge = await reach(emulator, store=store, **options)
        other = await reach(emulator, **options)
        chat = await bridge.create()
        assert IN_STEP == await chat.pull()
        for text in TEXTS_SENT:
            await chat.send(text)
            await streamed(chat, text)
        assert IN_STEP == await chat.pull()

        elsewhere = other.open(chat.id)
        await elsewhere.send("From elsewhere")
        assert Drift(DriftState.REMOTE_AHEAD, 24, 2) == await chat.pull()
        await chat.send("And back")
        assert IN_STEP == await chat.pull()
        known = await kept(bridge, chat)
        assert Drift(DriftState.REMOTE_AHEAD, 0, len(known) - 2) == await elsewhere.pull()
        assert known == await kept(other, elsewhere)
        for each in (chat, elsewhere):
            assert IN_STEP == await each.pull()


RUN = (
    {"type": "thinking", "text": "Hm."},
    {"type": "say", "text": "Let me see. "},
    {"type": "tool_call", "tool_id": "t1", "tool_name": "search", "args": {"q": 1}},
    {"type": "tool_result", "tool_id": "t1", "result": "found", "is_finished": True},
    {"type": "say", "text": "Here."},
)


async def test_an_answer_is_the_same_in_one_message_and_in_many(reach: Reach) -> None:
    """What an agent says, calls and is told is one message as it comes, and later one for each part."""
    emulator = TachyonEmulator(run=RUN)
    bridge = await reach(emulator, mode="agent")
    chat = await bridge.create()
    await chat.send("Hello")
    await streamed(chat, "Hello")
    assert 4 == len(await kept(bridge, chat))
    assert 10 == len([message async for message in chat.messages()])
    assert IN_STEP == await chat.pull()

    other = await reach(emulator, mode="agent")
    await other.open(chat.id).send("From elsewhere")
    assert Drift(DriftState.REMOTE_AHEAD, 4, 5) == await chat.pull()
    assert IN_STEP == await chat.pull()


async def test_what_somebody_edits_has_diverged(reach: Reach) -> None:
    emulator = DatamonkeyEmulator()
    bridge = await reach(emulator)
    chat = await bridge.create()
    for text in ("one", "two"):
        await chat.send(text)
    (there,) = emulator._conversations.values()  # pyright: ignore[reportPrivateUsage]
    there.messages[2] = evolve(there.messages[2], content="zwei")

    assert Drift(DriftState.DIVERGED, 2) == await chat.pull()
    assert "two" == (await kept(bridge, chat))[2]
    assert Drift(DriftState.DIVERGED, 2, 2) == await chat.pull(overwrite=True)
    assert "zwei" == (await kept(bridge, chat))[2]


async def test_what_others_write_into_a_session_is_taken_over() -> None:
    class Teamless(MtmaiEmulator):
        @property
        def options(self) -> dict[str, str]:
            return {"tenant": self.tenant}

    emulator = Teamless()
    async with serve(emulator) as at, connect(at.config, key=emulator.key) as bridge:
        chat = await bridge.create()
        emulator.remember(chat.id, "user", "Hello")

        assert Drift(DriftState.REMOTE_AHEAD, 0, 1) == await chat.pull()
        assert ["Hello"] == await kept(bridge, chat)


@pytest.mark.parametrize("make", [KaziroEmulator, MtmaiEmulator])
async def test_where_the_api_shows_nothing_there_is_nothing_to_compare(
    make: Callable[[], Emulator], reach: Reach
) -> None:
    emulator = make()
    chat = await (await reach(emulator)).create()
    calls = len(emulator.calls)

    with pytest.raises(UnsupportedFeature, match=r"pulling: it does not show .* instead: chat\.messages"):
        await chat.pull()
    assert calls == len(emulator.calls)


async def test_a_conversation_that_is_not_there_leaves_nothing_behind(reach: Reach) -> None:
    bridge = await reach(H2OGPTeEmulator())
    with pytest.raises(NotFound) as caught:
        await bridge.open("nowhere").pull()

    assert "nowhere" == caught.value.conversation_id


# -------------------------------------------------------------------------------------- one message in many


def part(text: str) -> Text | ToolCall:
    return ToolCall(text, "f", {}) if text.isupper() else Text(text)


def pieces(messages: list[Message]) -> list[str]:
    return [piece for message in messages for piece in pieces_of(message)]


def answers(*messages: str, role: Role = Role.ASSISTANT) -> list[Message]:
    return [Message(role, map(part, texts)) for texts in messages]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (answers("aB"), answers("a", "B"), IN_STEP),
        (answers("a", "B"), answers("aB"), IN_STEP),
        (answers("aB"), [*answers("a"), *answers("B", role=Role.TOOL)], IN_STEP),
        (answers("aB", role=Role.USER), answers("a", "B"), Drift(DriftState.DIVERGED, 0, 2)),
        (answers("aBcD"), answers("a", "Bc", "D", "E"), Drift(DriftState.REMOTE_AHEAD, 1, 1)),
        (answers("aB"), answers("a", "BcD"), Drift(DriftState.REMOTE_AHEAD, 0, 1)),
        (answers("aB", "c"), answers("a", "B"), Drift(DriftState.LOCAL_AHEAD, 1)),
        (answers("x", "aB"), answers("x", "a"), Drift(DriftState.LOCAL_AHEAD, 1)),
        (answers("x", "aBc"), answers("x", "a", "D"), Drift(DriftState.DIVERGED, 1, 2)),
        (answers("aB"), [*answers("a"), Message.assistant([Reasoning("Hm.")]), *answers("B")], IN_STEP),
        ([Message.assistant([Reasoning("Hm.")]), *answers("a")], answers("a"), IN_STEP),
        ([Message.assistant("")], [], Drift(DriftState.LOCAL_AHEAD, 0)),
        ([Message(Role.TOOL)], [Message(Role.ASSISTANT)], IN_STEP),
    ],
)
async def test_it_does_not_matter_how_an_answer_is_divided(
    ours: list[Message], theirs: list[Message], expected: Drift
) -> None:
    backend = Shown()
    bridge = Bridge(backend)
    chat = await bridge.create()
    remote = bridge.deliveries.ledger.remote(chat.id)
    await bridge.store.keep(remote, None, ours)
    backend.show(chat.id, theirs)

    assert expected == await chat.pull(overwrite=True)

    found = await bridge.store.find(remote)
    assert found is not None
    held = [message async for message in bridge.store.messages(found.id)]
    assert pieces(theirs) == pieces(held)
    assert IN_STEP == await chat.pull()


# ------------------------------------------------------------------------------------------ how it is taken


async def test_what_stands_at_the_end_is_read_once_and_what_stands_within_twice() -> None:
    """Only what is new is held; what stands behind a gap is read again once the gap is known."""
    backend = Shown()
    bridge = Bridge(backend)
    chat = await copied(bridge, ["a", "c"])
    for texts, reads in (("ac", 1), ("acd", 1), ("abcd", 2)):
        backend.put(chat.id, *texts)
        before = backend.reads
        await chat.pull()
        assert reads == backend.reads - before


async def test_a_long_history_is_compared_page_by_page() -> None:
    backend = Shown()
    store = MemoryStore(keeps=10_000)
    bridge = Bridge(backend, store=store)
    texts = [str(number) for number in range(3 * store.PAGE + 1)]
    chat = await copied(bridge, texts)
    backend.put(chat.id, *texts, "new")

    assert Drift(DriftState.REMOTE_AHEAD, len(texts), 1) == await chat.pull()
    assert [*texts, "new"] == await kept(bridge, chat)


async def test_equal_messages_keep_their_rows() -> None:
    """Also what the server does not tell again."""
    backend = Shown()
    bridge = Bridge(backend)
    chat = await bridge.create()
    remote = bridge.deliveries.ledger.remote(chat.id)
    await bridge.store.keep(remote, None, [evolve(Message.user("a"), author="me")])
    backend.put(chat.id, "a", "b")
    await chat.pull()
    found = await bridge.store.find(remote)
    assert found is not None

    assert ["me", None] == [message.author async for message in bridge.store.messages(found.id)]


async def test_a_beginning_that_memory_has_lost_is_told_as_missing() -> None:
    backend = Shown()
    bridge = Bridge(backend, store=MemoryStore(keeps=4))
    chat = await copied(bridge, list("abcde"))
    assert list("cde") == await kept(bridge, chat)

    backend.put(chat.id, *"cdef")
    assert Drift(DriftState.REMOTE_AHEAD, 3, 1) == await chat.pull()
    assert list("def") == await kept(bridge, chat)
    backend.put(chat.id, *"adef")
    assert Drift(DriftState.REMOTE_AHEAD, 0, 1) == await chat.pull()
    assert list("def") == await kept(bridge, chat)
    backend.put(chat.id, *"xe")
    assert Drift(DriftState.DIVERGED, 0) == await chat.pull()
    assert Drift(DriftState.DIVERGED, 0, 2) == await chat.pull(overwrite=True)
    assert list("xe") == await kept(bridge, chat)
    assert IN_STEP == await chat.pull()
    assert ["e", "x"] == await said_backwards(bridge, chat)


async def said_backwards(bridge: Bridge, chat: Chat) -> Said:
    found = await bridge.store.find(bridge.deliveries.ledger.remote(chat.id))
    assert found is not None
    return [message.text async for message in bridge.store.messages(found.id, newest_first=True, limit=2)]


class Raced(MemoryStore):
    """Another process writes to it just before something is replaced, once."""

    raced = False

    async def replace(
        self, before: StoredConversation, start: int, messages: Iterable[Message]
    ) -> StoredConversation | None:
        if not self.raced:
            self.raced = True
            await self.keep(before.remote, None, [Message.user("b")])
        return await super().replace(before, start, messages)


async def test_when_another_was_faster_it_begins_again() -> None:
    backend = Shown()
    bridge = Bridge(backend, store=Raced())
    chat = await copied(bridge, ["a"])
    backend.put(chat.id, *"abc")

    assert Drift(DriftState.REMOTE_AHEAD, 2, 1) == await chat.pull()
    assert list("abc") == await kept(bridge, chat)


class Overrun(Raced):
    """Another process does so each time."""

    async def replace(
        self, before: StoredConversation, start: int, messages: Iterable[Message]
    ) -> StoredConversation | None:
        self.raced = False
        return await super().replace(before, start, messages)


async def test_it_does_not_begin_again_for_ever() -> None:
    backend = Shown()
    bridge = Bridge(backend, store=Overrun())
    chat = await copied(bridge, ["a"])
    backend.put(chat.id, *"abbbbbbbbbc")

    with pytest.raises(StoreError, match="try again") as caught:
        await chat.pull()

    assert "locked" == caught.value.kind


class Renewing(Shown):
    """Its bridge says that it still holds the conversation, whenever it is read."""

    renew: Callable[[], Awaitable[None]]

    async def list_messages(self, conversation_id: str, **how: Any) -> AsyncIterator[Message]:
        async for message in super().list_messages(conversation_id, **how):
            yield message
        await self.renew()


async def test_what_is_held_for_longer_meanwhile_is_no_other_history() -> None:
    backend = Renewing()
    bridge = Bridge(backend)
    backend.renew = bridge.deliveries.ledger.renew
    chat = await copied(bridge, ["a"])
    backend.put(chat.id, *"ab")

    assert Drift(DriftState.REMOTE_AHEAD, 1, 1) == await chat.pull()
    assert 1 == backend.reads


class Growing(Shown):
    """Something is said while it is read, the first time."""

    async def list_messages(self, conversation_id: str, **how: Any) -> AsyncIterator[Message]:
        async for message in super().list_messages(conversation_id, **how):
            yield message
        if self.reads == 1:
            self.put(conversation_id, *"axbcd")


async def test_what_is_said_meanwhile_is_in_the_report() -> None:
    backend = Growing()
    bridge = Bridge(backend)
    chat = await copied(bridge, list("abc"))
    backend.put(chat.id, *"axbc")

    assert Drift(DriftState.REMOTE_AHEAD, 1, 2) == await chat.pull()
    assert list("axbcd") == await kept(bridge, chat)


async def test_no_message_is_under_way_meanwhile() -> None:
    backend, gate = Shown(), asyncio.Event()
    bridge = Bridge(backend)
    chat = await bridge.create()
    backend.gates = {"messages": gate}
    pulling = asyncio.create_task(chat.pull())
    for _ in range(20):
        await asyncio.sleep(0)
    assert 1 == backend.reads
    sending = asyncio.create_task(chat.send("Hello"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert [] == backend.sent

    gate.set()
    assert IN_STEP == await pulling
    await sending
    async with chat.stream("And on") as stream:
        await anext(stream)
        with pytest.raises(UsageError, match="would wait for itself"):
            await chat.pull()


async def test_a_store_that_fails_is_told_of() -> None:
    class Full(MemoryStore):
        async def replace(
            self, before: StoredConversation, start: int, messages: Iterable[Message]
        ) -> StoredConversation | None:
            del before, start, messages
            raise StoreError("no room", kind="full")

    backend = Shown()
    bridge = Bridge(backend, store=Full())
    chat = await bridge.create()
    backend.put(chat.id, "a")
    with pytest.raises(StoreError, match="no room"):
        await chat.pull()
    assert not bridge.order.is_held(chat.id)


async def test_after_close_nothing_is_compared() -> None:
    bridge = Bridge(Shown())
    chat = await bridge.create()
    await bridge.close()

    with pytest.raises(UsageError, match="closed"):
        await chat.pull()


# -------------------------------------------------------------------------------------- messages in doubt


async def left(chat: Chat, text: str) -> None:
    async with chat.stream(text) as stream:
        await anext(stream)


async def test_a_stream_that_was_left_is_in_the_history_once(reach: Reach) -> None:
    """Its answer is found by reading, behind messages that were answered since."""
    bridge = await reach(H2OGPTeEmulator())
    chat = await bridge.create()
    await left(chat, "Tell me a long story")
    assert [TurnState.ACCEPTED] == [turn.state for turn in await chat.turns()]
    await chat.send("Enough")

    assert Drift(DriftState.REMOTE_AHEAD, 0, 2) == await chat.pull()

    assert [TurnState.DELIVERED] * 2 == [turn.state for turn in await chat.turns()]
    assert [message.text async for message in chat.messages()] == await kept(bridge, chat)
    assert IN_STEP == await chat.pull()


async def test_a_message_in_doubt_is_looked_for_first(reach: Reach) -> None:
    emulator = H2OGPTeEmulator()
    bridge = await reach(emulator)
    chat = await bridge.create()
    emulator.fail(Fault(drop="after"))
    with pytest.raises(ChatbridgeError):
        await chat.send("Hello")

    assert IN_STEP == await chat.pull()
    assert [TurnState.DELIVERED] == [turn.state for turn in await chat.turns()]
    assert IN_STEP == await chat.pull()


async def test_what_a_pull_has_brought_is_not_added_again_once_its_answer_comes() -> None:
    backend = Shown()
    backend.fails["send"] = DeliveryUnknown("lost", kind="lost")
    bridge = Bridge(backend, options=CommonOptions(settle_timeout=0))
    chat = await bridge.create()
    with pytest.raises(DeliveryUnknown):
        await chat.send("Hello")
    backend.put(chat.id, "Hello")
    assert Drift(DriftState.REMOTE_AHEAD, 0, 1) == await chat.pull()
    backend.show(chat.id, [Message.user("Hello"), Message.assistant("Hi")])

    assert IN_STEP == await chat.pull()

    assert ["Hello", "Hi"] == await kept(bridge, chat)
    assert [TurnState.DELIVERED] == [turn.state for turn in await chat.turns()]
