"""The store in PostgreSQL: its strings, its versions, and everything that can be wrong with a server."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from chatbridge import Bridge, ConfigError, Conversation, Message, StoreError, Turn, TurnState
from chatbridge.history import PostgresStore, Remote, Store, open_store, postgres, postgres_pool
from chatbridge.history import postgres_schema as schema_steps
from chatbridge.testing.fake import FakeBackend
from chatbridge.testing.store_contract import StoreContract
from postgres import PASSWORD, Between, Server, damage_in, missing, serving
from rivals import rivals

PLACE = Remote("a", "c")


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    if missing():
        pytest.skip(missing())
    with serving() as server:
        yield server


@pytest.fixture
def schema() -> str:
    return f"s{token_hex(8)}"


@pytest.fixture
def make(server: Server, schema: str) -> Callable[..., PostgresStore]:
    """Give a store in the schema of the test, with what is wanted otherwise."""

    def make(**wanted: Any) -> PostgresStore:
        given: dict[str, Any] = {"host": str(server.folder), "port": server.port, "user": "chat"}
        given |= {"database": "chats", "schema": schema}
        return PostgresStore(**{**given, **wanted})

    return make


@pytest.fixture
async def store(make: Callable[..., PostgresStore]) -> AsyncGenerator[PostgresStore]:
    async with make() as store:
        yield store


@pytest.fixture
async def between(server: Server) -> AsyncGenerator[Between]:
    async with Between(server).serving() as between:
        yield between


async def error_of(work: Awaitable[object]) -> StoreError:
    """Give what goes wrong, as a store tells it."""
    with pytest.raises(StoreError) as caught:
        await work
    error = caught.value
    assert error.__cause__ is error.__context__ is None
    assert "not_sent" == error.outcome
    assert PASSWORD not in str(error)
    return error


async def said(store: Store) -> list[str]:
    kept = await store.find(PLACE)
    return [] if kept is None else [message.text async for message in store.messages(kept.id)]


async def say(store: Store, *texts: str) -> None:
    await store.keep(PLACE, messages=[Message.user(text) for text in texts])


class TestPostgres(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, server: Server) -> None:
        self.string = server.string()

    def open_store(self) -> Store:
        return open_store(self.string)


# ----------------------------------------------------------------------------------------- strings


@pytest.mark.parametrize(
    ("string", "place", "schema"),
    [
        ("postgresql://bot@db.example:5433/chats", "postgresql://bot@db.example:5433/chats", "chatbridge"),
        ("postgres://db/chats?schema=we%22%20ird&sslmode=require", "postgresql://db/chats", 'we" ird'),
        ("postgresql://[::1]:5/a%2Fb", "postgresql://[::1]:5/a%2Fb", "chatbridge"),
        ("postgresql:///c?host=%2Frun%2Fpg", "postgresql:///c?host=/run/pg", "chatbridge"),
        ("postgresql://m%C3%A9@:7/c?host=/run", "postgresql://m%C3%A9@:7/c?host=/run", "chatbridge"),
        ("postgresql://", "postgresql:///", "chatbridge"),
    ],
)
def test_a_string_names_a_server(string: str, place: str, schema: str) -> None:
    store = open_store(string)

    assert f"PostgresStore({place!r}, schema={schema!r})" == repr(store)


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("//me:hunter2@db/chats", r"a password must not be in the string.*password=env:NAME or .*PGPASSWORD"),
        ("//me@db/chats?password=hunter2", "a password must not be in the string"),
        ("//me:hun@ter2@db/chats", "not of the form postgresql://user@host:5432/database"),
        ("//db/hunter2#x\n", "not of the form"),
        ("//db/hunter2/y", "not of the form"),
        ("hunter2", "not of the form"),
        ("//one,hunter2/db", "on one server, named once"),
        ("//db:65536/x", "the port is not between 1 and 65535"),
        ("//db:hunter2/x", "the port is not between"),
        ("//db/x?hunter2", "written name=value"),
        ("//db/x?schema=", "written name=value"),
        ("//db/x?sk-hunter2=1", "written name=value"),
        ("//db/x?shema=a", "'shema' is unknown .* did you mean 'schema'.*host, password, schema, sslmode"),
        ("//db/x?schema=a&schema=b", "'schema' is given twice"),
        ("//db/x?sslmode=maybe", "'sslmode' is none of disable, allow"),
        ("//db/x?host=/run", "'host' is the directory of a socket"),
        ("///x?host=run", "'host' is the directory of a socket"),
        ("//db/%ff", "the database is not percent-encoded UTF-8"),
        ("//d%zz@db/x", "the user is not percent-encoded"),
        ("//db/x?schema=%00", "the option 'schema' is not percent-encoded"),
        ("//db/x?schema=pg_own", "begins with pg_"),
        ("//db/x?schema=%0a", "cannot be shown"),
        ("//db/x?schema=" + "a" * 64, "is not 1 to 63 bytes long"),
        ("//db/x?password=env:HUNTER", "the password of the store is said to be in env:HUNTER, and there is"),
        ("//db/x?password=file:/nowhere", "is said to be in file:/nowhere, and there is none"),
    ],
)
def test_a_string_that_is_wrong_is_refused_and_not_shown(rest: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        open_store(f"postgresql:{rest}")

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("reference", ["env:CHATS_PASSWORD", "file:{}/password", ""])
async def test_a_password_is_where_the_string_says(
    server: Server, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
    monkeypatch.setenv("CHATS_PASSWORD" if reference else "PGPASSWORD", PASSWORD)
    password = f"&password={reference.format(tmp_path)}" if reference else ""
    string = f"postgresql://chat@127.0.0.1:{server.port}/chats?schema={schema}{password}"
    async with open_store(string) as store:
        await say(store, "Hi")
        assert ["Hi"] == await said(store)
        assert PASSWORD not in repr(vars(store))


def test_without_asyncpg_a_string_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("postgres", "postgres_pool"):
        monkeypatch.delitem(sys.modules, f"chatbridge.history.{name}")
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    with pytest.raises(ConfigError, match=r"needs asyncpg: pip install 'chatbridge\[postgres\]'"):
        open_store("postgresql://db/chats")


def test_importing_stores_loads_no_asyncpg() -> None:
    code = "import sys; from chatbridge.history import open_store; print('asyncpg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert "False" == done.stdout.strip()


# ------------------------------------------------------------------------------- what stands between


async def test_a_pooler_may_give_each_transaction_another_connection(
    make: Callable[..., PostgresStore], between: Between
) -> None:
    between.pooling = True
    async with make(host="127.0.0.1", user="postgres", port=between.port, sslmode="disable") as store:
        await say(store, "Hi", "Ho")
        kept = await store.find(PLACE)
        assert kept is not None
        assert ["Ho"] == [hit.message.text async for hit in store.search("ho")]
        await store.forget(kept.id)
        assert [] == await said(store)


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_commit_whose_outcome_is_lost_is_done_once(
    make: Callable[..., PostgresStore], between: Between, cut: Any
) -> None:
    async with make(host="127.0.0.1", user="postgres", port=between.port, sslmode="disable") as store:
        await say(store, "Hi")
        between.cut = cut
        await say(store, "Ho")
        assert ["Hi", "Ho"] == await said(store)

        between.cut = cut
        other = await store.keep(Remote("a", "d"), messages=[Message.user("Hi")])

    assert ("", 1, 1) == (between.cut, other.length, other.revision)


@pytest.mark.parametrize(("cut", "count"), [("before", 1), ("before", 2), ("after", 1), ("after", 2)])
async def test_who_cannot_know_whether_it_is_done_says_so(
    make: Callable[..., PostgresStore], store: PostgresStore, between: Between, cut: Any, count: int
) -> None:
    async def others() -> None:
        for number in range(count):
            await say(store, f"{number}")

    await say(store, "Hi")
    async with make(host="127.0.0.1", user="postgres", port=between.port, sslmode="disable") as cut_off:
        between.cut, between.meanwhile = cut, others
        if (cut, count) == ("before", 1):
            # Whoever has written the next revision, it was not this one.
            await say(cut_off, "Ho")
        else:
            error = await error_of(say(cut_off, "Ho"))
            assert "gone" == error.kind
            assert "nobody can tell whether it was written" in str(error)

    expected = {("before", 1): ["Hi", "0", "Ho"], ("before", 2): ["Hi", "0", "1"]}
    assert expected.get((cut, count), ["Hi", "Ho", "0", "1"][: 2 + count]) == await said(store)


async def test_a_connection_that_is_killed_costs_nothing(server: Server, store: PostgresStore) -> None:
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'chat'"
    await asyncio.gather(*(say(store, f"{number}") for number in range(4)))
    await asyncio.to_thread(server.sql, kill)
    await asyncio.gather(*(say(store, f"{number}") for number in range(4, 8)))

    assert {f"{number}" for number in range(8)} == set(await said(store))


async def test_a_connection_may_be_killed_in_the_middle(
    server: Server, store: PostgresStore, schema: str
) -> None:
    await store.open()
    # The first transaction that writes a message ends its own connection.
    trigger(
        server,
        schema,
        "IF nextval('{schema}.tries') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; "
        "PERFORM 1; RETURN NEW;",
    )
    await say(store, "Hi")

    assert ["Hi"] == await said(store)


async def test_a_server_that_stops_is_gone_until_it_is_back(
    server: Server, make: Callable[..., PostgresStore]
) -> None:
    store = make(host="127.0.0.1", password=PASSWORD)
    await say(store, "Hi")
    server.stop()
    try:
        error = await error_of(say(store, "Ho"))
    finally:
        server.start()
    await say(store, "He")

    assert "gone" == error.kind
    assert f"the store 'postgresql://chat@127.0.0.1:{server.port}/chats': cannot connect: " in str(error)
    assert ["Hi", "He"] == await said(store)
    await store.close()


async def test_a_server_that_does_not_answer_is_gone(
    server: Server, make: Callable[..., PostgresStore], schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make() as store:
        await say(store, "Hi")
    monkeypatch.setattr(postgres_pool.Database, "PATIENCE", 0.1)
    async with make() as store:
        await store.open()
        with server.locked(f"{schema}.conversations"):
            error = await error_of(store.find(PLACE))

    assert "gone" == error.kind
    assert "it does not answer" in str(error)


# ------------------------------------------------------------------------------------------- faults


def trigger(server: Server, schema: str, body: str) -> None:
    """Do something whenever a message is written."""
    server.sql(
        f"CREATE SEQUENCE {schema}.tries",
        f"GRANT ALL ON SEQUENCE {schema}.tries TO chat",
        f"CREATE FUNCTION {schema}.fail() RETURNS trigger SECURITY DEFINER AS "
        f"$$ BEGIN {body.format(schema=schema)} END $$ LANGUAGE plpgsql",
        f"CREATE TRIGGER fail BEFORE INSERT ON {schema}.messages FOR EACH ROW "
        f"EXECUTE FUNCTION {schema}.fail()",
        database="chats",
    )


KINDS = {
    "53100": "full",
    "25006": "read_only",
    "42501": "read_only",
    "55P03": "locked",
    "57014": "locked",
    "XX001": "corrupt",
    "XX002": "corrupt",
    "42P01": "gone",
    "22003": "value",
    "54000": "value",
    "P0001": "failed",
}


async def test_what_the_server_reports_has_a_kind(server: Server, store: PostgresStore, schema: str) -> None:
    await store.open()
    # The message that is written tells what to report.
    trigger(
        server, schema, "RAISE EXCEPTION 'it is wrong' USING ERRCODE = substring(new.content FROM '~(.*)~');"
    )
    for state, kind in KINDS.items():
        error = await error_of(say(store, f"~{state}~"))
        assert (state, kind) == (state, error.kind)
        assert ("locked" == kind) is error.retryable
        assert "it is wrong" in str(error)

    assert [] == await said(store)


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_a_conflict_is_tried_again(
    server: Server, store: PostgresStore, schema: str, state: str
) -> None:
    await store.open()
    fail = f"RAISE EXCEPTION 'conflict' USING ERRCODE = '{state}';"
    trigger(server, schema, f"IF nextval('{{schema}}.tries') < 4 THEN {fail} END IF; RETURN NEW;")
    await say(store, "Hi")

    assert ["Hi"] == await said(store)


async def test_a_conflict_that_lasts_is_told(server: Server, store: PostgresStore, schema: str) -> None:
    await store.open()
    trigger(server, schema, "RAISE EXCEPTION 'conflict' USING ERRCODE = '40001';")

    assert "locked" == (await error_of(say(store, "Hi"))).kind


async def test_a_lock_that_another_has_is_told(
    server: Server, store: PostgresStore, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(store, "Hi")
    monkeypatch.setattr(postgres, "_DURABLY", "SET LOCAL lock_timeout TO '1ms'")
    with server.locked(f"{schema}.messages IN EXCLUSIVE MODE"):
        assert "locked" == (await error_of(say(store, "Ho"))).kind
    await say(store, "He")

    assert ["Hi", "He"] == await said(store)


async def test_a_database_that_may_only_be_read_is_read(
    server: Server, make: Callable[..., PostgresStore]
) -> None:
    async with make() as store:
        await say(store, "Hi")
    server.sql("ALTER ROLE chat SET default_transaction_read_only = on")
    try:
        async with make() as store:
            assert ["Hi"] == await said(store)
            assert "read_only" == (await error_of(say(store, "Ho"))).kind
        other = make(schema=f"s{token_hex(8)}")
        assert "read_only" == (await error_of(other.open())).kind
        await other.close()
    finally:
        server.sql("ALTER ROLE chat RESET default_transaction_read_only")


async def test_a_schema_that_may_not_be_made_is_told(
    server: Server, make: Callable[..., PostgresStore]
) -> None:
    server.sql("CREATE ROLE guest LOGIN", f"ALTER ROLE guest PASSWORD '{PASSWORD}'")
    try:
        store = make(user="guest", password=PASSWORD)
        assert "read_only" == (await error_of(store.open())).kind
        await store.close()
    finally:
        server.sql("DROP ROLE guest")


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"password": "hunter2"}, 'password authentication failed for user "chat"'),
        ({"password": None}, "password"),
        ({"database": "no such"}, 'database "no such" does not exist'),
        ({"user": "no-one"}, 'password authentication failed for user "no-one"'),
        ({"host": "/nowhere", "port": 5}, "No such file or directory"),
        ({"host": "127.0.0.1", "port": 1}, "Connect call failed"),
        ({"host": "db.invalid"}, ""),
        ({"sslmode": "require"}, "SSL"),
        ({"PGSSLMODE": "maybe"}, "sslmode"),
        ({"PGPORT": "hunter2", "port": None}, "a value is not what it takes (ValueError)"),
    ],
)
async def test_what_cannot_be_connected_to_is_gone(
    make: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], problem: str
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    for name in filter(str.isupper, wrong):
        monkeypatch.setenv(name, wrong[name])
    given = {name: value for name, value in wrong.items() if not name.isupper()}
    store = make(**{"host": "127.0.0.1", "password": PASSWORD, **given})
    error = await error_of(store.open())
    await store.close()

    assert "gone" == error.kind
    assert "cannot connect: " in str(error)
    assert problem in str(error)
    assert "hunter2" not in str(error)
    assert repr(store)[14:].split("'")[0] in str(error)


@pytest.mark.parametrize("key", ["\0", "\ud800", "x" * 100_000 + token_hex(2000)])
async def test_text_that_cannot_be_a_key_is_refused(store: PostgresStore, key: str) -> None:
    error = await error_of(store.keep(Remote("a", key), Conversation("c")))

    assert "value" == error.kind
    assert key not in str(error)
    assert repr(key)[1:-1] not in str(error)


async def test_a_row_that_cannot_be_read_is_no_foreign_error(
    server: Server, store: PostgresStore, schema: str
) -> None:
    turn = Turn("1", "c", Message.user("Hi"), datetime.now(UTC), TurnState.UNKNOWN)
    await store.record(PLACE, turn)
    server.sql(f"UPDATE {schema}.turns SET body = '{{}}'", database="chats")

    assert "corrupt" == (await error_of(store.turns(PLACE))).kind
    assert [] == list(await store.turns(Remote("a", "d")))


async def test_a_fault_before_the_message_sends_nothing(server: Server, store: PostgresStore) -> None:
    fake = FakeBackend()
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        chat = await bridge.create()
        server.stop()
        try:
            with pytest.raises(StoreError) as caught:
                await chat.send("Hi")
        finally:
            server.start()
        assert ("gone", "not_sent") == (caught.value.kind, caught.value.outcome)
        assert [] == list(fake.sent)
        await chat.send("Hi")

    assert ("Hi",) == fake.sent


async def test_an_answer_that_cannot_be_stored_reaches_the_caller(
    server: Server, store: PostgresStore
) -> None:
    fake = FakeBackend(answers=["Ho."])
    async with Bridge(fake, store=store, clock=fake.clock) as bridge:
        chat = await bridge.create()
        send = fake.send

        async def sending(*given: Any) -> Any:
            server.stop()
            return await send(*given)

        fake.send = sending  # type: ignore[method-assign, assignment]
        try:
            with pytest.raises(StoreError) as caught:
                await chat.send("Hi")
        finally:
            server.start()
        assert "gone" == caught.value.kind
        assert caught.value.reply is not None
        assert "Ho." == caught.value.reply.text
        assert [TurnState.DELIVERED] == [turn.state for turn in await chat.turns()]


async def test_very_many_and_very_long_words_are_stored(store: PostgresStore) -> None:
    text = " ".join(f"{number:x}" for number in range(100_000)) + " last " + "\U00020000" * 3000
    await say(store, text, "\U00020000" * 3000)

    assert [text, "\U00020000" * 3000] == await said(store)
    assert [text] == [hit.message.text async for hit in store.search("1a2b")]
    assert ["\U00020000" * 3000] == [hit.message.text async for hit in store.search("\U00020000" * 2000)]


async def test_equal_beginnings_are_kept_once(server: Server, store: PostgresStore, schema: str) -> None:
    await say(store, "Hi", "Ho")
    other = await store.keep(Remote("a", "d"), messages=[Message.user(text) for text in ("Hi", "Ho", "Bye")])
    counts = [f"SELECT count(*) FROM {schema}.{table}" for table in ("messages", "entries")]

    assert "3\n5" == server.sql(*counts, database="chats")
    await store.forget(other.id)
    assert "2\n2" == server.sql(*counts, database="chats")


async def test_what_two_forget_at_once_is_gone(server: Server, store: PostgresStore, schema: str) -> None:
    places = [Remote("a", f"{number}") for number in range(8)]
    kept = [await store.keep(place, messages=[Message.user("Hi"), Message.user("Ho")]) for place in places]
    await asyncio.gather(*(store.forget(each.id) for each in kept), say(store, "Hi"))

    assert ["Hi"] == await said(store)
    assert "1" == server.sql(f"SELECT count(*) FROM {schema}.messages", database="chats")


# ---------------------------------------------------------------------------------------- versions


async def test_many_that_open_it_at_once_make_it_once(
    server: Server, make: Callable[..., PostgresStore], schema: str
) -> None:
    stores = [make() for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await store.close()

    assert "1" == server.sql(f"SELECT value FROM {schema}.meta", database="chats")


async def test_an_older_version_is_brought_forward(
    server: Server, make: Callable[..., PostgresStore], schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make() as store:
        await say(store, "Hi")
    step = ("CREATE TABLE {schema}.notes (text text)", "INSERT INTO {schema}.notes VALUES ('new')")
    monkeypatch.setattr(schema_steps, "STEPS", (*schema_steps.STEPS, step))

    async with make() as one, make() as two:
        assert [["Hi"], ["Hi"]] == list(await asyncio.gather(said(one), said(two)))

    asked = [f"SELECT text FROM {schema}.notes", f"SELECT value FROM {schema}.meta"]
    assert "new\n2" == server.sql(*asked, database="chats")


async def test_a_step_that_fails_leaves_it_as_it_was(
    server: Server, make: Callable[..., PostgresStore], schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make() as store:
        await say(store, "Hi")
    step = ("CREATE TABLE {schema}.notes (text text)", "INSERT INTO {schema}.nothing VALUES (1)")
    with monkeypatch.context() as patched:
        patched.setattr(schema_steps, "STEPS", (*schema_steps.STEPS, step))
        store = make()
        await error_of(store.open())
        await store.close()

    assert "1|" == server.sql(
        f"SELECT value, to_regclass('{schema}.notes') FROM {schema}.meta", database="chats"
    )
    async with make() as store:
        assert ["Hi"] == await said(store)


async def test_a_newer_version_is_refused(
    server: Server, make: Callable[..., PostgresStore], store: PostgresStore, schema: str
) -> None:
    await store.open()
    server.sql(f"UPDATE {schema}.meta SET value = 99", database="chats")
    later = make()
    error = await error_of(later.__aenter__())

    assert "newer" == error.kind
    assert "closed" == (await error_of(later.open())).kind
    assert "a later chatbridge wrote it: its version is 99" in str(error)


@pytest.mark.parametrize("theirs", ["messages (a int)", "meta (a int)"])
async def test_another_programs_tables_are_left_alone(
    server: Server, make: Callable[..., PostgresStore], schema: str, theirs: str
) -> None:
    server.sql(
        f"CREATE SCHEMA {schema}",
        f"CREATE TABLE {schema}.{theirs}",
        f"GRANT ALL ON SCHEMA {schema} TO chat",
        f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO chat",
        database="chats",
    )
    store = make()
    error = await error_of(store.open())
    await store.close()

    assert "corrupt" == error.kind
    assert "1" == server.sql(
        f"SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'", database="chats"
    )


async def test_a_schema_that_somebody_else_has_made_needs_no_right_to_make_one(
    server: Server, make: Callable[..., PostgresStore], schema: str
) -> None:
    server.sql(
        f"CREATE SCHEMA {schema}",
        "CREATE ROLE worker LOGIN",
        f"ALTER ROLE worker PASSWORD '{PASSWORD}'",
        f"GRANT ALL ON SCHEMA {schema} TO worker",
        database="chats",
    )
    try:
        async with make(user="worker", password=PASSWORD) as store:
            await say(store, "Hi")
            assert ["Hi"] == await said(store)
    finally:
        server.sql("DROP OWNED BY worker", "DROP ROLE worker", database="chats")


@pytest.mark.parametrize("which", ["user", "database"])
async def test_who_may_only_read_is_told_before_anything_is_created(
    server: Server, make: Callable[..., PostgresStore], schema: str, which: str
) -> None:
    async with make() as store:
        await say(store, "Hi")
    server.sql(
        "CREATE ROLE reader LOGIN",
        f"ALTER ROLE reader PASSWORD '{PASSWORD}'",
        f"GRANT USAGE ON SCHEMA {schema} TO reader",
        f"GRANT {'SELECT' if which == 'user' else 'ALL'} ON ALL TABLES IN SCHEMA {schema} TO reader",
        f"ALTER ROLE reader SET default_transaction_read_only = {'off' if which == 'user' else 'on'}",
        database="chats",
    )
    fake = FakeBackend()
    try:
        store = make(user="reader", password=PASSWORD)
        async with store, Bridge(fake, store=store, clock=fake.clock) as bridge:
            assert ["Hi"] == await said(store)
            with pytest.raises(StoreError) as caught:
                await bridge.create()
            assert "read_only" == caught.value.kind
            assert [] == [each async for each in fake.list_conversations()]
    finally:
        server.sql("DROP OWNED BY reader", "DROP ROLE reader", database="chats")


async def test_names_may_have_any_character(server: Server, make: Callable[..., PostgresStore]) -> None:
    name = """a "b" 'c'; -- {d} %s $1 \u00e9"""
    server.sql('CREATE DATABASE "{}" OWNER chat'.format(name.replace('"', '""')))
    async with make(database=name, schema=name) as store:
        await say(store, "Hi")
        assert ["Hi"] == await said(store)
    server.sql('DROP DATABASE "{}" WITH (FORCE)'.format(name.replace('"', '""')))


async def test_what_is_found_is_found_once_however_much_it_is(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "PAGE", 2)
    monkeypatch.setattr(Store, "PLACES", 5)
    texts = [f"maple {number}" for number in range(7)]
    for name in "abc":
        await store.keep(Remote("a", name), messages=map(Message.user, texts))

    hits = [(hit.conversation.remote.id, hit.message.text) async for hit in store.search("maple")]

    assert [(name, text) for name in "cba" for text in texts] == hits


async def test_what_is_forgotten_while_it_is_searched_is_left_out(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "PAGE", 1)
    kept = [await store.keep(Remote("a", name), messages=[Message.user("maple")]) for name in "abc"]
    hits = store.search("maple")
    await anext(hits)
    await store.forget(kept[1].id)

    assert ["a"] == [hit.conversation.remote.id async for hit in hits]


# ------------------------------------------------------------------------------------- event loops


async def test_several_event_loops_may_share_it(store: PostgresStore) -> None:
    written, over = threading.Barrier(4), threading.Event()

    async def one(number: int) -> None:
        await say(store, f"{number}")
        written.wait()
        await asyncio.to_thread(over.wait)

    def run(number: int) -> None:
        asyncio.run(one(number))

    threads = [threading.Thread(target=run, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(written.wait)
    assert {"0", "1", "2"} == set(await said(store))
    await store.close()
    over.set()
    for thread in threads:
        await asyncio.to_thread(thread.join)


async def until_blocked(server: Server) -> None:
    while not await asyncio.to_thread(server.sql, "SELECT 1 FROM pg_locks WHERE NOT granted"):
        pass


async def test_closing_waits_for_what_is_under_way(
    server: Server, make: Callable[..., PostgresStore], schema: str
) -> None:
    store = make()
    await store.open()
    with server.locked(f"{schema}.conversations"):
        reading = asyncio.create_task(store.find(PLACE))
        await until_blocked(server)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        assert not closing.done()
    await closing

    assert None is await reading


async def test_closing_does_not_wait_for_ever(
    server: Server, make: Callable[..., PostgresStore], schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    await store.open()
    with server.locked(f"{schema}.conversations"):
        reading = asyncio.create_task(store.find(PLACE))
        await until_blocked(server)
        monkeypatch.setattr(postgres_pool.Database, "PATIENCE", 0.05)
        await store.close()

        assert "closed" == (await error_of(reading)).kind


def connections(server: Server) -> int:
    return int(server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chatbridge'"))


async def test_no_connection_outlasts_its_event_loop(
    server: Server, make: Callable[..., PostgresStore]
) -> None:
    store = make()
    before = await asyncio.to_thread(connections, server)
    for _ in range(3):
        assert None is await asyncio.to_thread(asyncio.run, store.find(PLACE))
    await until_gone(server, before)
    await store.close()


async def until_gone(server: Server, count: int) -> None:
    """Wait until there are *count* connections: the server notes a moment later that one has ended."""
    while await asyncio.to_thread(connections, server) != count:
        pass


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Nobody has cleaned up.
async def test_a_loop_that_ends_without_cleaning_up_leaves_no_connection_for_long(
    server: Server, make: Callable[..., PostgresStore]
) -> None:
    store = make()

    def run() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.find(PLACE))
        loop.close()

    before = await asyncio.to_thread(connections, server)
    await asyncio.to_thread(run)
    assert before + 1 == await asyncio.to_thread(connections, server)
    await asyncio.to_thread(asyncio.run, store.find(PLACE))
    gc.collect()
    await until_gone(server, before)
    await store.close()


async def test_closing_does_not_wait_for_ever_for_a_loop_that_is_busy(
    make: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        with asyncio.Runner() as runner:
            runner.run(use())

    async def use() -> None:
        await store.find(PLACE)
        busy.set()
        over.wait(20)

    store, busy, over = make(), threading.Event(), threading.Event()
    running = asyncio.create_task(asyncio.to_thread(run))
    await asyncio.to_thread(busy.wait, 20)
    monkeypatch.setattr(postgres_pool.Database, "PATIENCE", 0.05)
    await store.close()

    assert not running.done()
    over.set()
    await running


FORKING = """
import asyncio, os, sys
from chatbridge import Message
from chatbridge.history import open_store
from chatbridge.history.rows import Remote

store, loop = open_store(sys.argv[1]), asyncio.new_event_loop()

async def say(name):
    for number in range(5):
        await store.keep(Remote("a", "c"), messages=[Message.user(f"{name} {number}")])

loop.run_until_complete(say("a"))
if not (child := os.fork()):
    async def there():
        await say("b")
        await store.close()
    asyncio.run(there())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
loop.run_until_complete(say("c"))
loop.run_until_complete(store.close())
loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
async def test_it_may_be_used_before_and_after_a_fork(
    server: Server, make: Callable[..., PostgresStore], schema: str
) -> None:
    def fork() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-c", FORKING, server.string(schema)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    done = await asyncio.to_thread(fork)

    assert ("", 0) == (done.stderr, done.returncode)
    async with make() as store:
        assert [f"{name} {number}" for name in "abc" for number in range(5)] == await said(store)


async def test_a_loop_that_has_ended_does_not_hinder_closing() -> None:
    async def fail() -> None:
        database = PostgresStore("/nowhere")
        with suppress(StoreError):
            await database.open()
        ended.append(database)

    ended: list[PostgresStore] = []
    await asyncio.to_thread(asyncio.run, fail())

    await ended[0].close()
    assert "closed" == (await error_of(ended[0].open())).kind


# ------------------------------------------------------------------------------- several processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
async def test_processes_that_are_killed_at_once_lose_and_double_nothing(server: Server, schema: str) -> None:
    toll = await rivals(server.string(schema), "sample", 2)

    assert 2 == toll.killed.total()
    assert (0, 0, 0, 0, 0) == (toll.lost, toll.doubled, toll.resent, toll.denied, toll.unanswered)
    assert "" == damage_in(server, schema)
