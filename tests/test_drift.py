"""Pulling: how a store's copy of a conversation is to what its API shows, and what is taken over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    Bridge,
    Chat,
    DeliveryUnknown,
    Feature,
    Message,
    StoreError,
    TurnState,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.backend import SettleBy
from chatbridge.drift import Drift, DriftState
from chatbridge.history import MemoryStore, SQLiteStore, Store
from chatbridge.history.rows import StoredConversation
from chatbridge.testing.emulator import Emulator, Fault
from chatbridge.testing.fake import FakeBackend
from doubles import Double
from test_large_answers import APIS

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
        self._kept[conversation_id].messages[:] = map(Message.user, texts)


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
