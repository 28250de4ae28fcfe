"""What the file has at each moment of a message, for whoever comes after a crash (M1, M2, M5, M7)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from chatbridge import (
    Bridge,
    Chat,
    DeliveryUnknown,
    Finished,
    Message,
    Opaque,
    Reply,
    Role,
    SendOptions,
    Started,
    StoreError,
    StreamCut,
    Text,
    TextDelta,
    Turn,
    TurnState,
)
from chatbridge.backend import SettleBy
from chatbridge.history import SQLiteStore
from chatbridge.history.rows import Remote
from chatbridge.named import find_backend
from chatbridge.options import CommonOptions
from chatbridge.registry import resolve
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Call, serve
from chatbridge.testing.fake import FakeBackend, FakeOptions
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from doubles import Double, turns_of_the_loop


class File:
    """The file of a store, as another process sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(statement).fetchall()

    def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(statement)

    def refuse(self, event: str) -> None:
        """Let *event* fail, until `allow`."""
        self.execute(f"CREATE TRIGGER no BEFORE {event} BEGIN SELECT RAISE(ABORT, 'no'); END")

    def allow(self) -> None:
        self.execute("DROP TRIGGER no")

    def turns(self) -> list[tuple[str, str]]:
        """Give the state and the partial text of each turn."""
        bodies = [json.loads(body) for (body,) in self.query("SELECT body FROM turns ORDER BY number")]
        return [(body.get("state", "pending"), body.get("partial", "")) for body in bodies]

    def texts(self) -> list[str]:
        rows = self.query(
            "SELECT text FROM entries JOIN messages ON message = messages.number ORDER BY entries.number"
        )
        return [text for (text,) in rows]


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "store.db")


@pytest.fixture
async def store(file: File) -> AsyncGenerator[SQLiteStore]:
    async with SQLiteStore(file.path) as store:
        yield store


async def begin(store: SQLiteStore, double: Double, clock: ManualClock | None = None, **options: Any) -> Chat:
    clock = ManualClock() if clock is None else clock
    return await Bridge(double, clock=clock, store=store, options=CommonOptions(**options)).create()


# ------------------------------------------------------------------------------------------- intents


@pytest.mark.parametrize("streamed", [False, True])
async def test_m1_the_intent_is_in_the_file_when_the_request_arrives(file: File, *, streamed: bool) -> None:
    seen: list[Sequence[object]] = []

    class Curious(H2OGPTeEmulator):
        def admit(self, call: Call) -> None:
            if call.operation == "get_completion":
                seen.append((file.query("SELECT unsettled FROM turns"), file.turns(), file.texts()))
            super().admit(call)

    async with serve(Curious()) as at, at.connect(store=f"sqlite:///{file.path}") as bridge:
        chat = await bridge.create()
        if streamed:
            async with chat.stream("Hi") as stream:
                async for _ in stream:
                    pass
            reply = stream.reply
        else:
            reply = await chat.send("Hi")

    assert [([(1,)], [("pending", "")], [])] == seen
    assert [("delivered", "")] == file.turns()
    assert ["Hi", reply.text] == file.texts()


async def test_m1_an_intent_that_cannot_be_stored_is_not_sent(store: SQLiteStore, file: File) -> None:
    double = Double()
    chat = await begin(store, double)
    file.refuse("INSERT ON turns")
    with pytest.raises(StoreError, match="no") as caught:
        await chat.send("Hi")

    assert "not_sent" == caught.value.outcome
    assert [] == double.sent
    assert [(0,)] == file.query("SELECT held_until FROM conversations")


# ------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("table", ["messages", "entries", "turns"])
async def test_m5_an_answer_and_its_turn_are_stored_together_or_not(
    store: SQLiteStore, file: File, table: str
) -> None:
    """Whatever of the transaction fails, nothing of it is there; and all of it once it can be."""
    double = Double()
    chat = await begin(store, double)
    event = f"UPDATE ON {table}" if table == "turns" else f"INSERT ON {table}"
    file.refuse(event)
    with pytest.raises(StoreError) as caught:
        await chat.send("Hi")

    assert caught.value.reply is not None
    assert ([("pending", "")], []) == (file.turns(), file.texts())
    file.allow()
    assert [TurnState.DELIVERED] == [turn.state for turn in await chat.turns()]
    assert ["Hi", caught.value.reply.text] == file.texts()
    assert 1 == len(double.sent)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()], ids=["set", "nan", "object"])
async def test_m7_a_message_that_no_store_takes_is_refused_and_nothing_else(
    store: SQLiteStore, value: object
) -> None:
    double = Double()
    chat = await begin(store, double)
    with pytest.raises(StoreError) as caught:
        await chat.send(Message(Role.USER, "Hi", extra={"value": value}))
    await chat.send("Ho")

    assert ("value", "not_sent") == (caught.value.kind, caught.value.outcome)
    assert 1 == len(double.sent)
    assert [TurnState.DELIVERED] == [turn.state for turn in await chat.turns()]


@pytest.mark.parametrize("value", [{1, 2}, float("nan")], ids=["set", "nan"])
async def test_m7_of_an_answer_that_no_store_takes_the_texts_are_stored(
    store: SQLiteStore, file: File, value: object
) -> None:
    double = Double()
    parts = (Text("Kyo"), Opaque("double", "widget", {"value": value}), Text("to"))
    double.reply = Reply([Message(Role.ASSISTANT, parts, id="a", extra={"raw": value})])
    chat = await begin(store, double)
    with pytest.raises(StoreError, match="the answer is here, and could not be stored") as caught:
        await chat.send("Hi")
    double.reply = None
    await chat.send("Ho")

    assert "value" == caught.value.kind
    assert caught.value.reply is not None
    assert "a" == caught.value.reply.message.id
    assert [("delivered", "")] * 2 == file.turns()
    assert ["Hi", "Kyoto", "Ho"] == file.texts()[:3]
    await chat.forget()


async def test_m7_what_no_store_takes_and_comes_late_is_left_out_then(store: SQLiteStore, file: File) -> None:
    double = Double()
    double.reply = Reply([Message(Role.ASSISTANT, "Ho", extra={"raw": {1}})])
    chat = await begin(store, double)
    file.refuse("UPDATE ON turns")
    with pytest.raises(StoreError) as caught:
        await chat.send("Hi")
    file.allow()

    assert double.reply is caught.value.reply
    assert [TurnState.DELIVERED] == [turn.state for turn in await chat.turns()]
    assert ["Hi", "Ho"] == file.texts()


async def test_m5_an_empty_answer_is_an_answer(store: SQLiteStore, file: File) -> None:
    double = Double()
    double.reply = Reply([Message.assistant("")])
    chat = await begin(store, double)

    await chat.send("Hi")

    assert ([("delivered", "")], ["Hi", ""]) == (file.turns(), file.texts())


# ---------------------------------------------------------------------------------------- partial texts


async def all_written(chat: Chat) -> None:
    """Wait until what is due is written."""
    await turns_of_the_loop()
    await chat.bridge.deliveries.writing.end()


@pytest.mark.parametrize(
    "text", ["x" * 100, "\u3042" * 100, "x" * 5000, "\ud800" * 10], ids=["ascii", "wide", "long", "broken"]
)
@pytest.mark.parametrize("pause", [0.0, 0.3])
async def test_m5_no_more_of_an_answer_is_missing_than_four_kib_or_a_second(
    store: SQLiteStore, file: File, text: str, pause: float
) -> None:
    double, clock, times = Double(), ManualClock(), 4 if len(text) > 4096 else 60
    reply = Reply([Message.assistant(text * times)])
    double.script = [Started("m"), *[TextDelta(text)] * times, Finished(reply)]
    chat = await begin(store, double, clock)
    moments = list[tuple[float, int]]()
    async with chat.stream("Hi") as stream:
        async for event in stream:
            if isinstance(event, Finished):
                break
            moments.append((clock.now(), len(stream.partial)))
            await all_written(chat)
            ((state, partial),) = file.turns()
            assert "accepted" == state
            assert stream.partial.startswith(partial)
            missing = stream.partial[len(partial) :].encode(errors="surrogatepass")
            assert 4096 > len(missing)
            assert not any(when <= clock.now() - 1 and length > len(partial) for when, length in moments)
            clock.advance(pause)

    assert [("delivered", "")] == file.turns()


async def test_m5_a_broken_stream_leaves_all_that_came(store: SQLiteStore, file: File) -> None:
    double = Double()
    double.script = [Started("m"), TextDelta("Kyo"), TextDelta("to"), StreamCut("cut", kind="cut")]
    chat = await begin(store, double)
    async with chat.stream("Hi") as stream:
        with pytest.raises(StreamCut):
            async for _ in stream:
                pass

    assert [("accepted", "Kyoto")] == file.turns()
    assert [(0,)] == file.query("SELECT held_until FROM conversations")


async def test_m7_progress_that_cannot_be_stored_breaks_no_stream(store: SQLiteStore, file: File) -> None:
    double = Double()
    reply = Reply([Message.assistant("Kyoto")])
    double.script = [Started("m"), TextDelta("Kyoto"), Finished(reply)]
    chat = await begin(store, double)
    async with chat.stream("Hi") as stream:
        file.refuse("UPDATE ON turns")
        assert Started("m") == await anext(stream)
        assert TextDelta("Kyoto") == await anext(stream)
        await all_written(chat)
        assert [("pending", "")] == file.turns()
        file.allow()
        assert Finished(reply) == await anext(stream)

    assert ([("delivered", "")], ["Hi", "Kyoto"]) == (file.turns(), file.texts())


# ---------------------------------------------------------------------------------- answers that are found


class Found(Double):
    """A double whose answer is lost, and found by reading the conversation back; *file* then refuses it."""

    def __init__(self, file: File) -> None:
        super().__init__()
        self._profile = evolve(self._profile, settle_by={SettleBy.READ_BACK}, absent_after=60.0)
        self._file = file

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        await super().send(conversation_id, message, options)
        self._file.refuse("INSERT ON entries")
        raise DeliveryUnknown("lost", kind="lost")


async def test_m7_an_answer_that_was_read_back_and_cannot_be_stored_is_in_the_error(
    store: SQLiteStore, file: File
) -> None:
    chat = await begin(store, Found(file))

    with pytest.raises(StoreError, match="the answer is here, and could not be stored") as caught:
        await chat.send("Hi", resend=True)

    assert caught.value.reply is not None
    assert caught.value.reply.recovered
    assert [("unknown", "")] == file.turns()


async def test_m7_an_answer_that_settling_finds_and_cannot_store_is_in_the_turn(
    store: SQLiteStore, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    chat = await begin(store, Found(file), settle_timeout=0)
    with pytest.raises(DeliveryUnknown):
        await chat.send("Hi")

    (turn,) = await chat.settle(wait=0)

    assert turn.reply is not None
    assert TurnState.DELIVERED is turn.state
    assert "is delivered, which could not be stored" in caplog.text
    assert [("unknown", "")] == file.turns()
    with pytest.raises(StoreError):
        await chat.settle(wait=0)
    file.allow()
    assert [turn] == list(await chat.turns())
    assert ["Hi", turn.reply.text] == file.texts()


# ---------------------------------------------------------------------------------------------- accounts


@pytest.mark.parametrize(
    ("url", "options", "account"),
    [
        ("fake:", {}, None),
        ("h2ogpte://h2ogpte.example.com", {"key": "sk-1"}, "h2ogpte.example.com/api/v1"),
        ("h2ogpte://h2ogpte.example.com", {"key": "sk-2", "llm": "other"}, "h2ogpte.example.com/api/v1"),
        ("h2ogpte+http://localhost:8080/api/", {"key": "sk-1"}, "localhost:8080/api"),
    ],
)
def test_an_account_is_the_server_and_no_secret(
    url: str, options: dict[str, Any], account: str | None
) -> None:
    assert account == resolve(find_backend(url), options).account


def test_an_option_that_names_a_tenant_belongs_to_the_account() -> None:
    tenant = "00000000-0000-0000-0000-000000000001"
    target = resolve(find_backend("mtmai://mtmai.example.com"), {"key": "sk-1", "tenant": tenant})

    assert f"mtmai.example.com?tenant={tenant}" == target.account


async def test_an_account_may_be_said(store: SQLiteStore, file: File) -> None:
    async with serve(H2OGPTeEmulator()) as at:
        async with at.connect(store=store) as bridge:
            await bridge.create()
        async with at.connect(store=store, account="me") as bridge:
            chat = await bridge.create()
            kept = await store.find(Remote("h2ogpte", chat.id, "me"))
            assert kept is not None
            assert chat.id == (await bridge.resume(kept.id)).id

    server = at.base_url.removeprefix("http://")
    assert {(f"{server}/api/v1",), ("me",)} == set(file.query("SELECT account FROM conversations"))


# --------------------------------------------------------------------------------- what comes too late


async def test_what_is_late_in_one_conversation_does_not_wait_for_another(
    store: SQLiteStore, file: File
) -> None:
    double = Double()
    one = await begin(store, double)
    two = await one.bridge.create()
    file.refuse("INSERT ON entries")
    with pytest.raises(StoreError):
        await one.send("1")
    assert () == await two.turns()
    file.allow()
    await two.send("2")

    assert ["pending", "delivered"] == [state for state, _ in file.turns()]
    assert [TurnState.DELIVERED] == [turn.state for turn in await one.turns()]


def keeping_nothing(store: SQLiteStore) -> Bridge:
    backend = FakeBackend(FakeOptions(keeps="nothing"))
    return Bridge(backend.completions, options=backend.options, clock=backend.clock, store=store)


def held(file: File) -> bool:
    return bool(file.query("SELECT 1 FROM conversations WHERE held_until > 0"))


async def test_m5_an_answer_that_comes_late_into_the_store_is_held_for_until_it_is_there(
    store: SQLiteStore, file: File
) -> None:
    chat = await keeping_nothing(store).create()
    ledger = chat.bridge.deliveries.ledger
    file.refuse("INSERT ON entries")
    with pytest.raises(StoreError, match="the answer is here"):
        await chat.send("1")
    file.execute("UPDATE conversations SET held_until = held_until - 5000000")
    ((before,),) = file.query("SELECT held_until FROM conversations")
    await ledger.renew()
    await all_written(chat)
    ((after,),) = file.query("SELECT held_until FROM conversations")
    assert before < after
    file.allow()

    await ledger.renew()
    await all_written(chat)

    assert [("delivered", "")] == file.turns()
    assert ["1", "Turn 1: you said '1'."] == file.texts()
    assert not held(file)
    await chat.bridge.close()


async def test_what_is_being_written_late_is_not_begun_again(store: SQLiteStore, file: File) -> None:
    chat = await keeping_nothing(store).create()
    file.refuse("INSERT ON entries")
    with pytest.raises(StoreError):
        await chat.send("1")
    deliveries, noted, written = chat.bridge.deliveries, asyncio.Event(), asyncio.Event()

    async def write() -> None:
        noted.set()
        await written.wait()

    writing = deliveries.writing.begin(chat.id, write)
    await noted.wait()
    assert {chat.id} == set(deliveries.ledger.late())
    assert [writing] == list(vars(deliveries.writing)["_last"].values())
    written.set()
    file.allow()
    await chat.bridge.close()
    assert [("delivered", "")] == file.turns()


async def test_of_an_answer_that_came_too_late_into_the_store_it_is_told(
    store: SQLiteStore, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[TurnState, TurnState | None]] = []
    chat = await keeping_nothing(store).create()
    chat.bridge.deliveries.on_turn = lambda event: told.append((event.turn.state, event.before))
    file.refuse("INSERT ON entries")
    with pytest.raises(StoreError) as caught:
        await chat.send("1")
    assert "taken" != caught.value.kind
    file.allow()
    file.execute("UPDATE conversations SET held_until = 0")
    async with SQLiteStore(file.path) as other, keeping_nothing(other) as bridge:
        await bridge.open(chat.id).send("2")
    told.clear()

    assert [TurnState.NOT_SENT, TurnState.DELIVERED] == [turn.state for turn in await chat.turns()]
    await chat.turns()

    assert [(TurnState.NOT_SENT, TurnState.DELIVERED)] == told
    assert "could not be stored: the conversation was held for too long" in caplog.text
    await chat.bridge.close()


class Watched(Found):
    """The same, at whose conversation `meanwhile` happens while it is read back."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def list_messages(self, *given: Any, **named: Any) -> AsyncGenerator[Message, None]:
        if self.meanwhile is not None:
            self._file.allow()
            await self.meanwhile()
        async for message in super().list_messages(*given, **named):
            yield message


async def test_m6_reading_the_turns_releases_nothing_that_is_being_looked_for(
    store: SQLiteStore, file: File
) -> None:
    double, seen = Watched(file), list[bool]()
    chat = await begin(store, double)
    ledger = chat.bridge.deliveries.ledger
    record = store.record

    async def refuse(*given: Any, **named: Any) -> Turn:
        if given[1].state is TurnState.UNKNOWN and not seen:
            seen.append(True)
            raise StoreError("no")
        return await record(*given, **named)

    async def meanwhile() -> None:
        double.meanwhile = None
        (turn,) = await ledger.turns(chat.id)
        book = vars(chat.bridge.deliveries)["_book"]
        vars(store)["record"] = refuse
        await book.change(turn, TurnState.UNKNOWN)
        await chat.turns()
        seen.append(held(file))

    double.meanwhile = meanwhile
    reply = await chat.send("Hi")

    assert reply.recovered
    assert [True, True] == seen
    assert not held(file)


async def test_a_later_word_is_not_dropped_with_an_earlier_one(
    store: SQLiteStore, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is recorded that the message is in doubt, its answer is found, and cannot be stored either."""
    chat = await begin(store, Found(file), settle_timeout=0)
    deliveries = chat.bridge.deliveries
    record = store.record

    async def fail(*_: Any, **__: Any) -> Turn:
        raise StoreError("no")

    async def find_meanwhile(*given: Any, **named: Any) -> Turn:
        monkeypatch.setattr(store, "record", fail)
        (unknown,) = await deliveries.ledger.turns(chat.id)
        book = vars(deliveries)["_book"]
        await book.change(unknown, TurnState.DELIVERED, reply=Reply([Message.assistant("Ho")]))
        monkeypatch.setattr(store, "record", record)
        return await record(*given, **named)

    async def only_pending(*given: Any, **named: Any) -> Turn:
        return await (record if given[1].state is TurnState.PENDING else fail)(*given, **named)

    monkeypatch.setattr(store, "record", only_pending)
    with pytest.raises(DeliveryUnknown):
        await chat.send("Hi")
    file.allow()
    monkeypatch.setattr(store, "record", find_meanwhile)
    await chat.turns()

    (turn,) = await chat.turns()
    assert TurnState.DELIVERED is turn.state
    assert ["Hi", "Ho"] == file.texts()


async def test_m8_what_cannot_be_written_at_the_end_keeps_nothing_else_from_it(
    store: SQLiteStore, file: File
) -> None:
    double = Double()
    one = await begin(store, double)
    two = await one.bridge.create()
    file.refuse("UPDATE ON turns")
    for chat in (one, two):
        with pytest.raises(StoreError, match="the answer is here"):
            await chat.send("Hi")
    file.allow()
    file.refuse("UPDATE ON turns WHEN old.number = 1")
    assert 2 == len(file.query("SELECT 1 FROM conversations WHERE held_until > 0"))

    await one.bridge.close()

    assert [("pending", ""), ("delivered", "")] == file.turns()
    assert [] == file.query("SELECT 1 FROM conversations WHERE held_until > 0")
