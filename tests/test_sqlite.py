"""The store in a file: its mode, its versions, and everything that can be wrong with a file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chatbridge import Bridge, Chat, Message, StoreError, Turn, TurnState
from chatbridge.history import SQLiteStore, Store, schema
from chatbridge.history.rows import Remote
from chatbridge.testing.fake import FakeBackend

PLACE = Remote("a", "c")


class Opened(SQLiteStore):
    """The store under test, into which a test may reach; *other* is another program with the same file."""

    other: sqlite3.Connection

    async def pragma(self, statement: str) -> object:
        return await self.do(lambda connection: connection.execute(f"PRAGMA {statement}").fetchone())

    async def do(self, job: Callable[[sqlite3.Connection], object]) -> object:
        return await self._run(job)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@asynccontextmanager
async def unopened(path: Path | str) -> AsyncGenerator[Opened]:
    """Give a store whose file is opened when it is first used."""
    store = Opened(path)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(path: Path) -> AsyncGenerator[Opened]:
    async with unopened(path) as store:
        yield store


def query(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Do something to the file behind the store's back."""
    rows: list[tuple[object, ...]] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
    return rows


def make(path: Path, mode: int, data: bytes = b"") -> None:
    path.write_bytes(data)
    path.chmod(mode)


def remove(path: Path) -> None:
    path.rename(f"{path}.old")  # Its number would go to the next file.


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(path: Path) -> bytes:
    return path.read_bytes()


async def kind_of(work: object) -> str:
    """Say what goes wrong, as a store tells it."""
    with pytest.raises(StoreError) as caught:
        await work  # type: ignore[misc]
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "not_sent" == caught.value.outcome
    return caught.value.kind


# ------------------------------------------------------------------------------------------- files


async def test_only_its_owner_may_read_it(store: Opened, path: Path) -> None:
    os.umask(os.umask(0))
    store.WAL = True
    await store.keep(PLACE, messages=[Message.user("Hi")])

    modes = {each.name: oct(mode_of(each)) for each in path.parent.iterdir()}
    assert {"store.db": "0o600", "store.db-wal": "0o600", "store.db-shm": "0o600"} == modes


@pytest.mark.parametrize("data", [b"", b"shared notes\n" * 100])
async def test_a_file_that_is_not_a_store_keeps_its_mode(path: Path, data: bytes) -> None:
    make(path, 0o664, data)
    if not data:
        query(path, "CREATE TABLE theirs (a)")

    async with unopened(path) as store:
        assert "corrupt" == await kind_of(store.open())

    assert "0o664" == oct(mode_of(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
async def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)

    async with unopened(path) as store:
        assert "failed" == await kind_of(store.open())


async def test_opening_a_file_leaves_the_locks_of_others_in_the_process(path: Path) -> None:
    """By POSIX whoever closes a file, however opened, ends all locks of its process on it."""

    def lock() -> str:
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True
        )
        return done.stderr

    async with unopened(path) as one, unopened(path) as two:
        await one.do(lambda connection: connection.execute("BEGIN IMMEDIATE"))
        await two.open()
        told = await asyncio.to_thread(lock)
        await one.do(lambda connection: connection.execute("ROLLBACK"))

    assert "database is locked" in told


@pytest.mark.parametrize(
    ("before", "after"), [(0o644, 0o600), (0o640, 0o600), (0o444, 0o400), (0o400, 0o400)]
)
async def test_a_file_that_others_may_read_is_theirs_no_more(path: Path, before: int, after: int) -> None:
    make(path, before)

    async with unopened(path) as store:
        if os.access(path, os.W_OK):
            await store.find(PLACE)
        else:
            assert "read_only" == await kind_of(store.find(PLACE))

    assert oct(after) == oct(mode_of(path))


async def test_no_file_is_made_before_it_is_needed(path: Path) -> None:
    async with unopened(path):
        pass

    assert [] == list(path.parent.iterdir())


async def test_what_is_written_is_on_disk_before_it_is_said_to_be(store: Opened) -> None:
    assert (2,) == await store.pragma("synchronous")
    assert (1,) == await store.pragma("foreign_keys")
    assert (5000,) == await store.pragma("busy_timeout")


async def test_there_is_a_log_ahead_only_where_sqlite_is_sound(store: Opened) -> None:
    expected = "wal" if sqlite3.sqlite_version_info >= (3, 51, 3) else "delete"

    assert (expected,) == await store.pragma("journal_mode")


async def test_a_log_ahead_that_others_use_stays(path: Path) -> None:
    async with unopened(path) as one, unopened(path) as two:
        one.WAL, two.WAL = True, False
        await one.keep(PLACE, messages=[Message.user("Hi")])
        assert 1 == getattr(await two.find(PLACE), "length", None)
        assert ("wal",) == await two.pragma("journal_mode")


async def test_the_order_of_use_outlasts_a_clock_that_is_set_back(store: Opened, path: Path) -> None:
    for name in ("a", "b"):
        await store.keep(Remote("a", name))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE conversations SET used_at = used_at + 7200000000")

    await store.keep(Remote("a", "a"), messages=[Message.user("Hi")])
    await store.keep(Remote("a", "c"))

    assert ["c", "a", "b"] == [kept.remote.id async for kept in store.conversations()]


async def test_closing_ends_the_thread(store: Opened, path: Path) -> None:
    writing = [
        asyncio.create_task(store.keep(PLACE, messages=[Message.user(f"{each}")])) for each in range(3)
    ]
    await asyncio.gather(*writing)
    await store.close()

    assert [] == [each.name for each in threading.enumerate() if each.name.startswith("chatbridge-store")]
    assert [(3,)] == query(path, "SELECT length FROM conversations")
    assert ["store.db"] == [each.name for each in path.parent.iterdir()]


async def test_closing_does_not_wait_for_ever(store: Opened, path: Path) -> None:
    await store.find(PLACE)
    go_on = threading.Event()
    store._worker._patience = 0.01  # pyright: ignore[reportPrivateUsage]
    holding = asyncio.create_task(store.do(lambda _: go_on.wait(10)))
    writing = asyncio.create_task(store.do(lambda connection: connection.execute("CREATE TABLE more (a)")))
    await asyncio.sleep(0)

    await store.close()

    assert not holding.done()
    go_on.set()
    await asyncio.gather(holding, writing)
    assert [(0,)] == query(path, "SELECT count(*) FROM more"), "what was asked for is done all the same"


async def test_what_waits_behind_a_locked_file_does_not_wait_as_long_again(store: Opened, path: Path) -> None:
    await store.find(PLACE)
    store._worker._patience = 0.5  # pyright: ignore[reportPrivateUsage]
    await store.pragma("busy_timeout")
    await _locked_for_all(store, path)
    begun = time.monotonic()
    kinds = await asyncio.gather(
        *(kind_of(store.keep(Remote("a", f"{each}"), messages=[])) for each in range(5))
    )

    assert {"locked"} == set(kinds)
    assert time.monotonic() - begun < 5 * 0.5
    store.other.close()
    await store.keep(PLACE)
    assert (500,) == await store.pragma("busy_timeout")


async def test_what_waits_in_a_store_that_is_closed_does_not_wait_for_others(
    store: Opened, path: Path
) -> None:
    await store.find(PLACE)
    await _locked_for_all(store, path)
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(10)

    holding = asyncio.create_task(store.do(hold))
    await asyncio.to_thread(begun.wait, 10)
    writing = [asyncio.create_task(kind_of(store._forget(f"{each}"))) for each in range(3)]  # pyright: ignore[reportPrivateUsage]
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    go_on.set()

    assert [None, "locked", "locked", "locked", None] == await asyncio.gather(holding, *writing, closing)
    store.other.close()


async def _locked_for_all(store: Opened, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store.other = other


async def test_loops_of_several_threads_may_share_it(store: Opened) -> None:
    def write(number: int) -> None:
        asyncio.run(one(number))

    async def one(number: int) -> None:
        await store.keep(PLACE, messages=[Message.user(f"{number}")])

    await asyncio.gather(*(asyncio.to_thread(write, number) for number in range(4)))

    assert 4 == getattr(await store.find(PLACE), "length", None)


async def test_equal_beginnings_are_kept_once(store: Opened, path: Path) -> None:
    said = [Message.user("Hi"), Message.assistant("Ho")]
    await store.keep(PLACE, messages=said)
    await store.keep(Remote("a", "d"), messages=[*said, Message.user("Bye")])

    assert [(3,)] == query(path, "SELECT count(*) FROM messages")
    assert [(5,)] == query(path, "SELECT count(*) FROM entries")
    assert [("ok",)] == query(path, "PRAGMA integrity_check")


async def test_text_that_has_no_utf8_is_refused_where_it_would_be_a_key(store: Opened) -> None:
    assert "value" == await kind_of(store.keep(Remote("a", "\ud800")))


async def test_what_is_found_is_found_once_however_much_it_is(
    store: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "PAGE", 2)
    monkeypatch.setattr(Store, "PLACES", 5)
    texts = [f"maple {number}" for number in range(7)]
    for name in "abc":
        await store.keep(Remote("a", name), messages=map(Message.user, texts))

    hits = [(hit.conversation.remote.id, hit.message.text) async for hit in store.search("maple")]

    assert [(name, text) for name in "cba" for text in texts] == hits


async def test_what_is_forgotten_while_it_is_searched_is_left_out(
    store: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "PAGE", 1)
    kept = [await store.keep(Remote("a", name), messages=[Message.user("maple")]) for name in "abc"]
    hits = store.search("maple")
    await anext(hits)
    await store.forget(kept[1].id)

    assert ["a"] == [hit.conversation.remote.id async for hit in hits]


# ---------------------------------------------------------------------------------------- versions


async def test_an_older_file_is_brought_forward(
    store: Opened, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.keep(PLACE, messages=[Message.user("Hi")])
    await store.close()
    steps = (*schema.STEPS, ("CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('new')"))
    monkeypatch.setattr(schema, "STEPS", steps)

    async with unopened(path) as one, unopened(path) as two:
        kept, again = await asyncio.gather(one.find(PLACE), two.find(PLACE))

    assert kept is not None
    assert kept == again
    assert 1 == kept.length
    assert [("new",)] == query(path, "SELECT text FROM notes")
    assert [(2,)] == query(path, "PRAGMA user_version")


async def test_another_process_may_be_faster_to_bring_it_forward(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unopened(path) as store:
        await store.find(PLACE)
    versions = iter([0, 1])

    def version(_: sqlite3.Connection) -> int:
        return next(versions)

    monkeypatch.setattr(schema, "_version", version)

    async with unopened(path) as store:
        assert None is await store.find(PLACE)


async def test_a_step_that_fails_leaves_the_file_as_it_was(
    store: Opened, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.keep(PLACE, messages=[Message.user("Hi")])
    await store.close()
    before = contents(path)
    monkeypatch.setattr(
        schema, "STEPS", (*schema.STEPS, ("CREATE TABLE notes (text)", "INSERT INTO nothing"))
    )

    async with unopened(path) as later:
        assert "failed" == await kind_of(later.find(PLACE))

    assert before == contents(path)


async def test_a_store_in_use_opens_its_file_at_once(path: Path) -> None:
    async with SQLiteStore(path) as store:
        assert [path] == list(path.parent.glob("*.db"))
        await store.open()
    assert "closed" == await kind_of(store.open())


async def test_a_newer_file_is_refused(store: Opened, path: Path) -> None:
    await store.find(PLACE)
    await store.close()
    query(path, "PRAGMA user_version = 99")

    async with unopened(path) as later:
        with pytest.raises(
            StoreError, match=r"a later chatbridge wrote the file: its version is 99"
        ) as caught:
            await later.find(PLACE)

    assert "newer" == caught.value.kind
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "theirs", ["CREATE TABLE theirs (a)", "PRAGMA user_version = 1", "PRAGMA application_id = 17"]
)
async def test_another_programs_database_is_left_alone(store: Opened, path: Path, theirs: str) -> None:
    query(path, theirs)
    before = contents(path)

    with pytest.raises(StoreError, match="another program's database"):
        await store.keep(PLACE, messages=[Message.user("Hi")])

    assert before == contents(path)


# ------------------------------------------------------------------------------------------ faults


async def _full(store: Opened, path: Path) -> None:  # noqa: ARG001 - as the others
    await store.pragma("max_page_count = 1")  # It cannot be less than there are.


async def _read_only(store: Opened, path: Path) -> None:  # noqa: ARG001
    await store.pragma("query_only = 1")


async def _locked(store: Opened, path: Path) -> None:
    await store.pragma("busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.other = other


async def _corrupt(store: Opened, path: Path) -> None:  # noqa: ARG001
    with path.open("r+b") as file:
        file.write(b"garbage!" * 2048)


async def _vanished(store: Opened, path: Path) -> None:  # noqa: ARG001
    remove(path)


async def _replaced(store: Opened, path: Path) -> None:  # noqa: ARG001
    remove(path)
    make(path, 0o600)


FAULTS = {
    "full": _full,
    "read_only": _read_only,
    "locked": _locked,
    "corrupt": _corrupt,
    "gone": _vanished,
    "replaced": _replaced,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_before_the_message_sends_nothing(store: Opened, path: Path, fault: str) -> None:
    fake = FakeBackend()
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        chat = await bridge.create()
        await FAULTS[fault](store, path)

        with pytest.raises(StoreError) as caught:
            await chat.send("x" * 100_000)
        with pytest.raises(StoreError):
            async with chat.stream("x" * 100_000):
                pass

        assert {"replaced": "gone"}.get(fault, fault) == caught.value.kind
        assert ("not_sent", chat.id, "fake") == (
            caught.value.outcome,
            caught.value.conversation_id,
            caught.value.provider,
        )
        assert () == fake.sent
        assert caught.value.__cause__ is caught.value.__context__ is None
    if fault == "locked":
        store.other.close()


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"full"}))
async def test_where_nothing_can_be_written_nothing_is_created(store: Opened, path: Path, fault: str) -> None:
    fake = FakeBackend()
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        await FAULTS[fault](store, path)
        assert {"replaced": "gone"}.get(fault, fault) == await kind_of(bridge.create())

        assert [] == [each async for each in fake.list_conversations()]
    if fault == "locked":
        store.other.close()


async def test_what_cannot_be_written_can_be_read(store: Opened, path: Path) -> None:
    kept = await store.keep(PLACE, messages=[Message.user("Hi")])
    await _read_only(store, path)
    await store.open()

    assert ["Hi"] == [message.text async for message in store.messages(kept.id)]
    assert "read_only" == await kind_of(store.open(write=True))


@pytest.mark.parametrize("wal", [False, True])
async def test_trying_to_write_changes_nothing(path: Path, wal: bool) -> None:
    async with unopened(path) as store:
        store.WAL = wal
        await store.keep(PLACE, messages=[Message.user("Hi")])
        before = contents(path)
        await store.open(write=True)
        assert before == contents(path)


async def test_a_directory_without_room_for_a_log_is_noticed(store: Opened, path: Path) -> None:
    store.WAL = False
    await store.open()
    path.with_name("store.db-journal").mkdir()  # Nothing can be made in its place.

    await store.open()
    assert "failed" == await kind_of(store.open(write=True))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
async def test_m7_a_fault_after_the_answer_gives_it_all_the_same(
    store: Opened, path: Path, fault: str, *, streamed: bool
) -> None:
    fake = FakeBackend(answers=["x" * 100_000, "Yes."])
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        chat = await bridge.create()
        _when_sent(fake, lambda: FAULTS[fault](store, path))
        with pytest.raises(StoreError) as caught:
            await say(chat, "Hi", streamed=streamed)
        error = caught.value

        assert error.reply is not None
        assert "x" * 100_000 == error.reply.text
        assert str(error).startswith(f"the answer is here, and could not be stored: the store '{path}': ")
        assert ({"replaced": "gone"}.get(fault, fault), "ok") == (error.kind, error.outcome)
        assert not error.retryable
        assert ("fake", chat.id) == (error.provider, error.conversation_id)
        assert error.turn is not None
        assert (error.client_id, TurnState.DELIVERED) == (error.turn.id, error.turn.state)
        assert error.__cause__ is error.__context__ is None
        with pytest.raises(StoreError):
            await chat.send("And now?")
        assert ("Hi",) == fake.sent
    if fault == "locked":
        store.other.close()


async def test_m7_a_stream_has_its_answer_though_it_could_not_be_stored(store: Opened, path: Path) -> None:
    fake = FakeBackend(answers=["Yes."])
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        chat = await bridge.create()
        _when_sent(fake, lambda: _read_only(store, path))
        async with chat.stream("Hi") as stream:
            with pytest.raises(StoreError):
                async for _ in stream:
                    pass

            assert ("Yes.", "Yes.") == (stream.reply.text, stream.partial)


async def say(chat: Chat, text: str, *, streamed: bool) -> None:
    if not streamed:
        await chat.send(text)
        return
    async with chat.stream(text) as stream:
        async for _ in stream:
            pass


def _when_sent(fake: FakeBackend, action: Callable[[], object]) -> None:
    """Do *action* while the next message is answered."""
    send, stream = fake.send, fake.stream

    async def sending(*given: object) -> object:
        await action()  # type: ignore[misc]
        return await send(*given)  # type: ignore[arg-type]

    async def streaming(*given: object) -> AsyncGenerator[object]:
        await action()  # type: ignore[misc]
        async for event in stream(*given):  # type: ignore[arg-type]
            yield event

    fake.send, fake.stream = sending, streaming  # type: ignore[method-assign, assignment]


async def test_what_could_not_be_stored_is_stored_before_the_next_message(store: Opened, path: Path) -> None:
    fake = FakeBackend()
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        chat = await bridge.create()
        _when_sent(fake, lambda: _locked(store, path))
        with pytest.raises(StoreError):
            await chat.send("Hi")
        store.other.close()
        assert ["delivered"] == [turn.state for turn in await chat.turns()]
        del fake.send, fake.stream
        await chat.send("Ho")

    assert [(4,)] == query(path, "SELECT length FROM conversations")


async def test_closing_the_bridge_is_the_last_chance_to_store(store: Opened, path: Path) -> None:
    fake = FakeBackend()
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        chat = await bridge.create()
        _when_sent(fake, lambda: _locked(store, path))
        with pytest.raises(StoreError):
            await chat.send("Hi")
        store.other.close()

    assert [(2,)] == query(path, "SELECT length FROM conversations")


async def test_a_conversation_that_could_not_be_stored_has_a_warning(store: Opened, path: Path) -> None:
    fake = FakeBackend()
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        create = fake.create_conversation

        async def creating(**given: object) -> object:
            await _locked(store, path)
            return await create(**given)  # type: ignore[arg-type]

        fake.create_conversation = creating  # type: ignore[method-assign, assignment]
        chat = await bridge.create(title="Kyoto")
        store.other.close()

    (warning,) = chat.conversation.warnings
    assert warning.startswith(f"it is not stored: the store '{path}': database is locked")


async def test_bytes_that_are_no_database_are_refused(store: Opened, path: Path) -> None:
    make(path, 0o600, b"garbage!" * 1000)

    assert "corrupt" == await kind_of(store.find(PLACE))


async def test_a_row_that_cannot_be_read_is_no_foreign_error(store: Opened, path: Path) -> None:
    turn = Turn("1", "c", Message.user("Hi"), _now(), TurnState.UNKNOWN)
    await store.record(PLACE, turn)
    query(path, "UPDATE turns SET body = '{}'")

    assert "corrupt" == await kind_of(store.turns(PLACE, "1"))
    assert () == await store.turns(Remote("a", "d"))


async def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    async with unopened(tmp_path / "no" / "store.db") as nowhere:
        assert "gone" == await kind_of(nowhere.find(PLACE))
    async with unopened(tmp_path) as folder:
        assert "failed" == await kind_of(folder.find(PLACE))
    async with unopened(f"{tmp_path}/\0") as impossible:
        assert "value" == await kind_of(impossible.find(PLACE))


async def test_a_file_that_may_not_be_opened_is_told(store: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)

    assert "read_only" == await kind_of(store.find(PLACE))


async def test_who_is_cancelled_twice_waits_for_what_is_being_written(store: Opened, path: Path) -> None:
    await store.find(PLACE)
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(10)

    holding = asyncio.create_task(store.do(hold))
    await asyncio.to_thread(begun.wait, 10)
    turn = Turn("1", "c", Message.user("Hi"), _now())
    writing = asyncio.create_task(store.record(PLACE, turn))
    for _ in range(3):
        await asyncio.sleep(0)
        writing.cancel()
    assert not writing.done()
    go_on.set()
    await asyncio.wait([holding, writing])

    assert writing.cancelled()
    assert [("1",)] == query(path, "SELECT id FROM turns")


async def test_who_is_cancelled_is_not_told_of_a_failure(store: Opened, path: Path) -> None:
    await store.find(PLACE)
    await _read_only(store, path)
    writing = asyncio.create_task(store.keep(PLACE, messages=[Message.user("Hi")]))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])

    assert writing.cancelled()


# ------------------------------------------------------------------------------- several processes

WRITER = """
import asyncio, sys
from chatbridge import Message
from chatbridge.history import SQLiteStore
from chatbridge.history.rows import Remote

async def main():
    async with SQLiteStore(sys.argv[1]) as store:
        for number in range(10):
            await store.keep(Remote("a", "c"), messages=[Message.user(f"{sys.argv[2]} {number}")])

asyncio.run(main())
"""


def test_processes_write_one_at_a_time(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name], stderr=subprocess.PIPE) for name in "ab"
    ]

    assert [b"", b""] == [writer.communicate()[1] for writer in writers]
    assert sorted(f"{name} {number}" for name in "ab" for number in range(10)) == asyncio.run(said(path))


FORKING = """
import asyncio, os, sys
from chatbridge import Message
from chatbridge.history import SQLiteStore
from chatbridge.history.rows import Remote

store, unused = SQLiteStore(sys.argv[1]), SQLiteStore(sys.argv[1])

async def main(name):
    for number in range(10):
        await store.keep(Remote("a", "c"), messages=[Message.user(f"{name} {number}")])

asyncio.run(main("a"))
child = os.fork()
asyncio.run(main("b" if child else "c"))
asyncio.run(store.close())
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_it_may_be_used_before_and_after_a_fork(path: Path) -> None:
    forking = [sys.executable, "-W", "ignore", "-c", FORKING, str(path)]
    done = subprocess.run(forking, check=False, capture_output=True, text=True, timeout=20)

    assert ("", 0) == (done.stderr, done.returncode)
    assert sorted(f"{name} {number}" for name in "abc" for number in range(10)) == asyncio.run(said(path))


@pytest.mark.parametrize("forked", [False, True])
async def test_a_fork_waits_for_what_is_being_written_and_all_goes_on(store: Opened, forked: bool) -> None:
    await store.find(PLACE)
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(10)

    holding = asyncio.create_task(store.do(hold))
    await asyncio.to_thread(begun.wait, 10)
    worker = store._worker  # pyright: ignore[reportPrivateUsage]
    pausing = asyncio.create_task(asyncio.to_thread(worker.pause))
    await asyncio.sleep(0)
    assert not pausing.done()
    go_on.set()
    await asyncio.gather(holding, pausing)
    worker.go_on(forked=forked)

    await store.keep(PLACE, messages=[Message.user("Hi")])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of threads; the child does nothing.
async def test_the_process_that_forks_goes_on(store: Opened) -> None:
    await store.keep(PLACE, messages=[Message.user("Hi")])
    if not (child := os.fork()):
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)

    await store.keep(PLACE, messages=[Message.user("Ho")])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what is open cannot be seen")
def test_no_connection_is_carried_through_a_fork(path: Path) -> None:
    look = """
from pathlib import Path

def files():
    return [each for each in Path("/proc/self/fd").iterdir() if each.resolve() == store.path.resolve()]

assert len(files()) == 1
"""
    code = FORKING[: FORKING.index("child =")] + look
    code += "if child := os.fork():\n    sys.exit(os.waitpid(child, 0)[1])\nos._exit(len(files()))\n"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path)], check=True, timeout=20)


async def said(path: Path) -> list[str]:
    async with SQLiteStore(path) as store:
        kept = await store.find(PLACE)
        assert kept is not None
        return sorted([message.text async for message in store.messages(kept.id)])


def test_importing_the_package_loads_no_database() -> None:
    code = "import sys; from chatbridge import *; connect('fake:'); print('sqlite3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert "False" == done.stdout.strip()


def _now() -> datetime:
    return datetime.now(UTC)
