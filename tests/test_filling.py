"""What a bridge makes up for from its store: histories, lists and titles that an API does not have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from chatbridge import (
    Bridge,
    Chat,
    Conversation,
    DeliveryUnknown,
    Feature,
    Message,
    NotFound,
    Refused,
    Role,
    StoreError,
    Support,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.backend import ContextOwner, Profile, SettleBy, Stores
from chatbridge.errors import BadOption
from chatbridge.filling import from_store, with_emulations
from chatbridge.history import MemoryStore, Remote, SQLiteStore, Store
from chatbridge.options import CommonOptions
from chatbridge.testing.emulator import Fault, serve
from chatbridge.testing.fake import FakeBackend
from chatbridge.testing.memory import COMPLETIONS
from chatbridge_adapters.kaziro.emulator import COMPLETE, KaziroEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator
from doubles import Double

Reach = Callable[..., Awaitable[Bridge]]

TENANT = "707d0855-80ab-4e1f-a156-f1c4546cbf52"


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store, None]:
    async with MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "chats.db") as store:
        yield store


def profile(*features: Feature, **facts: Any) -> Profile:
    return Profile("some", dict.fromkeys(features, Support.NATIVE), **facts)


async def said(chat: Chat, **how: Any) -> list[str]:
    return [message.text async for message in chat.messages(**how)]


async def listed(bridge: Bridge) -> list[Conversation]:
    return [conversation async for conversation in bridge.conversations()]


# ------------------------------------------------------------------------------------------ what is claimed


@pytest.mark.parametrize(
    ("features", "stores", "filled"),
    [
        ((), Stores.WITH, ()),
        ((Feature.SEND,), Stores.WITH, (Feature.HISTORY,)),
        ((Feature.SEND, Feature.HISTORY), Stores.WITH, ()),
        ((Feature.SEND, Feature.HISTORY), Stores.NEVER, (Feature.HISTORY,)),
        ((Feature.HISTORY,), Stores.NEVER, ()),
        ((Feature.CREATE,), Stores.WITH, (Feature.GET, Feature.LIST, Feature.TITLE, Feature.RENAME)),
        ((Feature.CREATE, Feature.GET, Feature.LIST, Feature.TITLE), Stores.WITH, ()),
        ((Feature.CREATE, Feature.GET, Feature.LIST, Feature.RENAME), Stores.WITH, ()),
    ],
)
def test_the_store_makes_up_for_what_it_can_tell_as_well(
    features: tuple[Feature, ...], stores: Stores, filled: tuple[Feature, ...]
) -> None:
    """Of titles it keeps none where the API has some: two would contradict each other."""
    own = profile(*features, stores=stores)

    assert set(filled) == from_store(own)
    emulated = with_emulations(own, CommonOptions())
    assert {Support.EMULATED} >= {emulated.support(feature) for feature in filled}


def test_what_is_made_up_for_says_what_it_holds() -> None:
    told = with_emulations(
        profile(Feature.CREATE, Feature.SEND, instead={Feature.LIST: "a song", Feature.DELETE: "another"}),
        CommonOptions(),
    )

    assert "what went through chatbridge, from its store" == told.instead[Feature.LIST]
    assert "another; chat.forget() drops what chatbridge has of it" == told.instead[Feature.DELETE]
    assert 3 == len([note for note in told.notes if "through chatbridge" in note])
    without = with_emulations(profile(Feature.CREATE, Feature.SEND), CommonOptions())
    assert "chat.forget() drops what chatbridge has of it" == without.instead[Feature.DELETE]


def test_where_a_history_is_replaced_it_is_said_where_the_apis_own_is() -> None:
    told = with_emulations(profile(Feature.SEND, Feature.HISTORY, stores=Stores.NEVER), CommonOptions())

    assert any("bridge.api.list_messages" in note for note in told.notes)


def test_nothing_is_settled_by_a_history_that_is_made_up_for() -> None:
    own = profile(Feature.SEND)

    assert frozenset() == with_emulations(own, CommonOptions()).settle_by
    with pytest.raises(BadOption, match="cannot be read back"):
        with_emulations(own, CommonOptions(absent_after=1.0))
    readable = profile(Feature.SEND, Feature.HISTORY, settle_by={SettleBy.READ_BACK})
    assert 1.0 == with_emulations(readable, CommonOptions(absent_after=1.0)).absent_after


# ---------------------------------------------------------------------------------------------- an API each


async def test_kaziro_has_a_history_a_list_and_titles(reach: Reach, store: Store) -> None:
    bridge = await reach(KaziroEmulator(), store=store)
    one, two = await bridge.create(title="Kyoto"), await bridge.create()
    await one.send("When?")
    async with one.stream("Where?") as stream:
        async for _ in stream:
            pass
    renamed = await two.rename("Nara")

    assert (two.id, "Nara", "idle") == (renamed.id, renamed.title, renamed.extra["status"])
    assert ["Kyoto", "Nara"] == [chat.conversation.title for chat in (one, two)]
    assert [(one.id, "Kyoto"), (two.id, "Nara")] == [(each.id, each.title) for each in await listed(bridge)]
    assert "Kyoto" == (await bridge.open(one.id).refresh()).title
    held = [message async for message in bridge.open(one.id).messages()]
    assert [Role.USER, Role.ASSISTANT] * 2 == [message.role for message in held]
    assert ["When?", "Where?"] == [message.text for message in held[::2]]
    assert [message.text for message in held][:1:-1] == await said(one, newest_first=True, limit=2)


async def test_the_next_process_finds_it_all_again(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/chats.db"
    async with serve(KaziroEmulator()) as at:
        async with connect(at.config, key="sk-emulator", store=where) as bridge:
            chat = await bridge.create(title="Kyoto")
            reply = await chat.send("When?")
        async with connect(at.config, key="sk-emulator", store=where) as bridge:
            (found,) = await listed(bridge)
            assert (chat.id, "Kyoto") == (found.id, found.title)
            assert ["When?", reply.text] == await said(bridge.open(found.id))
            assert "Kyoto" == (await bridge.open(found.id).refresh()).title


async def test_mtmai_has_the_history_of_its_runs(reach: Reach, store: Store) -> None:
    emulator = MtmaiEmulator()
    bridge = await reach(emulator, store=store)
    assert Support.EMULATED is bridge.profile.support(Feature.HISTORY)
    chat = await bridge.create()
    emulator.remember(chat.id, "user", "From elsewhere")
    reply = await chat.send("Hello")

    assert ["Hello", reply.text] == await said(chat)
    assert ["From elsewhere"] == [each.text async for each in bridge.backend.list_messages(chat.id)]


async def test_what_was_not_answered_is_in_no_history(reach: Reach, store: Store) -> None:
    emulator = KaziroEmulator()
    bridge = await reach(emulator, store=store)
    chat = await bridge.create()
    for fault, kind in ((Fault(status=400), Refused), (Fault(drop="during"), DeliveryUnknown)):
        emulator.fail(fault, operation=COMPLETE)
        with pytest.raises(kind):
            await chat.send("Hello")

    assert [] == await said(chat)
    with pytest.raises(UnsupportedFeature, match="does not show what arrived"):
        await chat.settle()


# ------------------------------------------------------------------------------------------------- a history


class Silent(Double):
    """It creates and answers, and shows nothing."""

    def __init__(self, *features: Feature) -> None:
        shown = {Feature.CREATE, Feature.SEND, *features}
        super().__init__(without=set(Feature) - shown)


async def test_a_history_is_cut_and_turned_as_a_backend_does_it(store: Store) -> None:
    bridge = Bridge(Silent(), store=store)
    native = FakeBackend().bridge()
    chats = [await bridge.create(), await native.create()]
    for chat in chats:
        for text in ("one", "two", "three"):
            await chat.send(text)
    filled, shown = [[message async for message in chat.messages()] for chat in chats]
    assert [message.text for message in shown] == [message.text for message in filled]
    for place in (None, 0, 3, 5):
        for limit in (None, 0, 2, 9):
            for newest_first in (False, True):
                cuts = [
                    await said(
                        chat,
                        after=None if place is None else held[place].id,
                        limit=limit,
                        newest_first=newest_first,
                    )
                    for chat, held in zip(chats, (filled, shown), strict=True)
                ]
                assert cuts[1] == cuts[0]


@pytest.mark.parametrize("how", [{}, {"newest_first": True}])
async def test_an_unknown_message_is_the_error_that_backends_give(how: dict[str, Any]) -> None:
    problems: list[str] = []
    for bridge in (Bridge(Silent()), FakeBackend().bridge()):
        chat = await bridge.create()
        await chat.send("one")
        with pytest.raises(UsageError) as caught:
            await said(chat, after="nowhere", **how)
        problems.append(str(caught.value))
        assert chat.id == caught.value.conversation_id

    assert problems[0] == problems[1]


class Nameless(Silent):
    """Its answers have no ids."""

    async def send(self, conversation_id: str, message: Message, options: Any) -> Any:
        reply = await super().send(conversation_id, message, options)
        return evolve(reply, messages=[evolve(each, id=None) for each in reply.messages])


async def test_a_message_without_an_id_gets_one_that_stays(store: Store) -> None:
    """Though the same is said twice."""
    bridge = Bridge(Nameless(), store=store)
    chat = await bridge.create()
    for _ in range(2):
        await chat.send("Hello")
    ids = [message.id async for message in chat.messages()]

    assert 4 == len(set(ids)) == len([each for each in ids if each])
    assert ids == [message.id async for message in Bridge(Nameless(), store=store).open(chat.id).messages()]
    assert (await said(chat))[2:] == await said(chat, after=ids[1])


async def test_a_fork_of_a_history_that_memory_has_forgotten_in_part_says_so() -> None:
    bridge = Bridge(Silent(Feature.HISTORY_SEED), store=MemoryStore(keeps=4))
    chat = await bridge.create()
    for text in ("one", "two"):
        assert () == (await chat.fork()).conversation.warnings
        await chat.send(text)

    (warning,) = (await chat.fork()).conversation.warnings

    assert "messages are left out: their turns are no longer whole in the store" in warning


async def test_of_what_did_not_go_through_chatbridge_there_is_no_history() -> None:
    bridge = Bridge(Silent())

    assert [] == await said(bridge.open("elsewhere"))


async def test_after_close_there_is_nothing_to_read() -> None:
    bridge = Bridge(Silent())
    chat = await bridge.create()
    await chat.send("Hello")
    messages = chat.messages()
    await anext(aiter(messages))
    await bridge.close()

    with pytest.raises(UsageError, match="closed"):
        await anext(aiter(messages))


# --------------------------------------------------------------------------------- conversations and titles


async def test_conversations_of_others_are_not_listed(store: Store) -> None:
    backend = Silent(Feature.DELETE)
    bridge, other = (Bridge(backend, store=store, account=account) for account in ("one", "two"))
    mine, gone, _ = await bridge.create(), await bridge.create(), await other.create()
    await gone.delete()

    assert [mine.id] == [each.id for each in await listed(bridge)]
    with pytest.raises(NotFound):
        await bridge.open(gone.id).refresh()


async def test_what_was_only_asked_for_is_not_listed(store: Store) -> None:
    bridge = Bridge(Silent(), store=store)
    with pytest.raises(NotFound):
        await bridge.open("nowhere").send("Hello")

    assert [] == await listed(bridge)


async def test_a_conversation_made_elsewhere_is_listed_once_it_has_answered(store: Store) -> None:
    backend = Silent()
    elsewhere = backend.add()
    bridge = Bridge(backend, store=store)
    await bridge.open(elsewhere.id).send("Hello")

    assert [elsewhere.id] == [each.id for each in await listed(bridge)]
    assert elsewhere.id == (await bridge.open(elsewhere.id).refresh()).id


async def test_what_cannot_be_read_is_not_found_in_the_store_either() -> None:
    bridge = Bridge(Silent())
    for call in (bridge.open("nowhere").refresh, lambda: bridge.open("nowhere").rename("Kyoto")):
        with pytest.raises(NotFound, match="cannot be asked for the conversation 'nowhere'") as caught:
            await call()
        assert ("double", "nowhere") == (caught.value.provider, caught.value.conversation_id)
    assert [] == await listed(bridge)


async def test_only_a_conversation_that_there_is_gets_a_title(reach: Reach) -> None:
    bridge = await reach(KaziroEmulator())
    with pytest.raises(NotFound, match="404"):
        await bridge.open("nowhere").rename("Kyoto")

    assert [] == await listed(bridge)


async def test_titles_stand_in_the_backends_own_list(store: Store) -> None:
    backend = Silent(Feature.GET, Feature.LIST)
    bridge = Bridge(backend, store=store)
    await bridge.create(title="Kyoto")
    backend.add(title="Its own")
    backend.add()

    assert {"Kyoto", "Its own", None} == {each.title for each in await listed(bridge)}
    assert ["create", "list"] == backend.calls


class Plain(Silent):
    """Its list is no generator, which could be closed."""

    def list_conversations(self) -> AsyncIterator[Conversation]:
        class Listed:
            def __init__(self, listed: AsyncIterator[Conversation]) -> None:
                self._listed = listed

            def __aiter__(self) -> AsyncIterator[Conversation]:
                return self

            async def __anext__(self) -> Conversation:
                return await anext(self._listed)

        return Listed(super().list_conversations())


async def test_any_iterator_is_a_list() -> None:
    bridge = Bridge(Plain(Feature.GET, Feature.LIST))
    await bridge.create(title="Kyoto")

    assert ["Kyoto"] == [each.title for each in await listed(bridge)]


async def test_what_a_backend_has_is_its_own() -> None:
    bridge = FakeBackend().bridge()
    chat = await bridge.create(title="Kyoto")

    assert "Nara" == (await chat.rename("Nara")).title
    assert frozenset() == bridge.filling.features


class Broken(MemoryStore):
    """It cannot be read or written once it is broken."""

    broken = False

    async def _find(self, which: str | Remote) -> Any:
        if self.broken:
            raise StoreError("damaged", kind="corrupt")
        return await super()._find(which)


async def test_a_store_that_fails_costs_only_what_it_tells() -> None:
    store = Broken()
    bridge = Bridge(Silent(Feature.GET), store=store)
    chat = await bridge.create(title="Kyoto")
    store.broken = True

    told = await chat.refresh()
    assert (chat.id, None) == (told.id, told.title)
    assert "its title cannot be read: damaged" in told.warnings
    for call in (lambda: chat.rename("Nara"), lambda: said(chat)):
        with pytest.raises(StoreError, match="damaged") as caught:
            await call()
        assert chat.id == caught.value.conversation_id


def test_a_team_sees_no_context_though_there_is_a_history() -> None:
    told = connect("mtmai://mtm.ai", key="k", tenant=TENANT, team="t").profile

    assert (ContextOwner.NONE, Support.EMULATED) == (told.context, told.support(Feature.HISTORY))


# ------------------------------------------------------------------------------------- forgetting, orphans


async def test_forgetting_leaves_the_conversation_on_the_server(reach: Reach, store: Store) -> None:
    emulator = KaziroEmulator()
    bridge = await reach(emulator, store=store)
    chat = await bridge.create(title="Kyoto")
    await chat.send("one")
    with pytest.raises(UnsupportedFeature, match=r"instead: .*; chat\.forget\(\) drops"):
        await chat.delete()
    assert 2 == len(await said(chat))

    for _ in range(2):
        await chat.forget()
        assert ([], (), []) == (await said(chat), await chat.turns(), await listed(bridge))
    assert None is (await chat.refresh()).title
    assert "Before that you said 'one'" in (await chat.send("two")).text
    assert ["two"] == (await said(chat))[:1]


async def test_forgetting_ends_every_doubt_and_waits_for_what_is_under_way() -> None:
    backend = Silent()
    bridge = Bridge(backend)
    chat = await bridge.create()
    backend.fails["send"] = DeliveryUnknown("lost", kind="lost")
    with pytest.raises(DeliveryUnknown):
        await chat.send("one")
    await chat.forget()
    backend.fails.clear()
    backend.gates["send"] = asyncio.Event()
    sending = asyncio.create_task(chat.send("two"))
    for _ in range(20):
        await asyncio.sleep(0)
    forgetting = asyncio.create_task(chat.forget())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not forgetting.done()
    backend.gates["send"].set()
    await asyncio.gather(sending, forgetting)

    assert ([], ()) == (await said(chat), await chat.turns())
    await bridge.close()
    with pytest.raises(UsageError, match="closed"):
        await chat.forget()


async def test_deleting_forgets_nothing(store: Store) -> None:
    bridge = FakeBackend().bridge()
    bridge = Bridge(bridge.backend, store=store)
    chat = await bridge.create()
    await chat.send("one")
    await chat.delete()

    assert ["one"] == [turn.message.text for turn in await chat.turns()]
    await chat.forget()
    assert () == await chat.turns()


async def orphans(bridge: Bridge, **how: float) -> list[str]:
    return [conversation.id async for conversation in bridge.orphans(**how)]


async def test_orphans_were_made_and_never_used(store: Store) -> None:
    backend = Silent(Feature.DELETE, Feature.HISTORY)
    bridge, other = (Bridge(backend, store=store, account=account) for account in (None, "another"))
    orphan, used, refused, gone = [await bridge.create() for _ in range(4)]
    theirs = await other.create()
    await used.send("Hello")
    backend.fails["send"] = DeliveryUnknown("lost", kind="lost")
    with pytest.raises(DeliveryUnknown):
        await refused.send("Hello")
    await gone.delete()
    async with bridge.temporary():
        pass
    await bridge.open(backend.add().id).pull()

    assert [orphan.id] == await orphans(bridge, older_than=0)
    assert [theirs.id] == await orphans(other, older_than=0)
    async for each in bridge.orphans(older_than=0):
        await bridge.open(each.id).delete()
    assert [] == await orphans(bridge, older_than=0)


async def test_what_others_have_spoken_in_is_no_orphan(store: Store) -> None:
    bridge, said = Bridge(Silent(), store=store), [Message.user("Hi")]
    for name in ("orphan", "added to", "pulled"):
        await bridge.keep(Conversation(name), said, created=True)
    place = bridge.deliveries.ledger.remote
    await store.keep(place("added to"), messages=said)
    pulled = await store.find(place("pulled"))
    assert pulled is not None
    await store.replace(pulled, 1, said)

    assert ["orphan"] == await orphans(bridge, older_than=0)


async def test_where_nobody_else_has_what_was_said_it_is_no_orphan(store: Store) -> None:
    bridge = Bridge(FakeBackend(profile=COMPLETIONS).completions, store=store)
    empty = await bridge.create()
    await (await bridge.create(history=[Message.user("Hi")])).fork()

    assert [empty.id] == await orphans(bridge, older_than=0)


async def test_what_was_just_made_is_no_orphan_by_the_stores_clock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge(Silent(), store=store)
    chat = await bridge.create()
    assert [] == await orphans(bridge)

    later = await store.now() + timedelta(hours=1)

    async def now() -> datetime:
        return later

    monkeypatch.setattr(store, "now", now)
    assert [chat.id] == await orphans(bridge)
    assert [] == await orphans(bridge, older_than=7200)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
async def test_an_age_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="make no sense"):
        await orphans(Bridge(Silent()), older_than=seconds)


async def test_after_close_there_are_no_orphans_to_list() -> None:
    bridge = Bridge(Silent())
    await bridge.close()
    with pytest.raises(UsageError, match="closed"):
        await orphans(bridge)
