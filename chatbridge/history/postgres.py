"""A store in a PostgreSQL database, which any number of processes and machines share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

from chatbridge.domain import Conversation
from chatbridge.errors import ConfigError, StoreError
from chatbridge.history.chain import Entry
from chatbridge.history.codec import dump, load
from chatbridge.history.postgres_pool import Connection, Database
from chatbridge.history.postgres_schema import migrate
from chatbridge.history.rows import Change, Hit, Remote, StoredConversation, TurnRow
from chatbridge.history.store import Store, words_of
from chatbridge.secret import Secret
from chatbridge.text import quoted
from chatbridge.turns import Turn

__all__ = ["PostgresStore"]

T = TypeVar("T")

# A machine that is gone in the middle of a transaction keeps its rows no longer than this.
_DURABLY: Final = (
    "SET LOCAL synchronous_commit TO on; SET LOCAL lock_timeout TO '5s'; "
    "SET LOCAL idle_in_transaction_session_timeout TO '30s'"
)

_CONVERSATION: Final = (
    "c.id, c.backend, c.account, c.remote, c.body, c.length, c.head, c.revision, c.holder, "
    "coalesce(extract(epoch FROM c.held_until - clock_timestamp())::float8, 0) AS held_for, "
    "c.used_at, c.created, c.used, c.deleted"
)
_FIND: Final = f"SELECT {_CONVERSATION} FROM @.conversations c"
_AT: Final = "c.backend = $1 AND c.account = $2 AND c.remote = $3"
_USED_AT: Final = (
    "greatest(clock_timestamp(), (SELECT max(used_at) FROM @.conversations) + interval '1 microsecond')"
)
_HELD_UNTIL: Final = "clock_timestamp() + $6::float8 * interval '1 second'"

# They change nothing, and are refused to who may not write.
_WRITES: Final = tuple(
    statement.format(table)
    for table in ("conversations", "messages", "entries", "turns")
    for statement in (
        "INSERT INTO @.{0} SELECT * FROM @.{0} WHERE false",
        "DELETE FROM @.{0} WHERE false",
        "SELECT FROM @.{0} WHERE false FOR UPDATE",
    )
)

# What one message has to be found by: a row takes no more than 1 MB of words, and each no more than 2 KB.
_SEARCHED: Final = 250_000
_LONGEST_WORD: Final = 500

_ROWS_AT_ONCE: Final = 1000
# Longer ones PostgreSQL cuts, without a word.
_LONGEST_NAME: Final = 63


class PostgresStore(Store):
    """
    Keeps everything in one schema of a database, which is made when it is first needed.

    It may be used from several event loops at once, and shared by any number of processes and machines. What
    is not given, asyncpg takes from `PGHOST` and the like, as other programs do.

    Args:
        host: Where the server is: a name, an address, or the directory of its socket.
        port: Its port.
        user: As whom to connect.
        database: Which of its databases.
        password: The user's; None for `PGPASSWORD`, `~/.pgpass`, or none at all.
        sslmode: `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`.
        schema: The schema that the tables are in.

    Raises:
        ConfigError: No schema can have that name.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        user: str | None = None,
        database: str | None = None,
        *,
        password: Secret | str | None = None,
        sslmode: str | None = None,
        schema: str = "chatbridge",
    ) -> None:
        self.schema = _checked(schema)
        secret = Secret(password) if isinstance(password, str) else password
        options = {
            "host": host,
            "port": port,
            "user": user,
            "database": database,
            "password": None if secret is None else secret.reveal,
            "ssl": sslmode,
        }
        self._database = Database(_place(host, port, user, database), options)
        self._quoted = '"' + schema.replace('"', '""') + '"'
        self._migrated = False

    def __repr__(self) -> str:
        return f"PostgresStore({self._database.place!r}, schema={self.schema!r})"

    async def open(self, *, write: bool = False) -> None:
        """Connect, and make the tables, or bring them forward; and try if they may be written."""
        await self._do(self._try_writing if write else _do_nothing)

    async def _try_writing(self, connection: Connection, _: object) -> None:
        for statement in _WRITES:
            await connection.execute(self._sql(statement))

    async def close(self) -> None:
        """Finish what is under way, and close the connections, of all event loops that still run."""
        await self._database.close()

    async def now(self) -> datetime:
        """Tell the time by the database's clock."""
        rows = await self._rows("SELECT clock_timestamp() AS now")
        return cast(datetime, rows[0]["now"])

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        if isinstance(which, Remote):
            rows = await self._rows(f"{_FIND} WHERE {_AT}", *_key(which))
        else:
            rows = await self._rows(f"{_FIND} WHERE c.id = $1", which)
        return _conversation(rows[0]) if rows else None

    async def _list(
        self, backend: str | None, behind: StoredConversation | None, limit: int
    ) -> Sequence[StoredConversation]:
        conditions, values = ["true"], list[object]([limit])
        if backend is not None:
            values.append(backend)
            conditions.append(f"c.backend = ${len(values)}")
        if behind is not None:
            values += [behind.used_at, behind.id]
            conditions.append(f"(c.used_at, c.id) < (${len(values) - 1}, ${len(values)})")
        rows = await self._rows(
            f"{_FIND} WHERE {' AND '.join(conditions)} ORDER BY c.used_at DESC, c.id DESC LIMIT $1",
            *values,
        )
        return [_conversation(row) for row in rows]

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        rows = await self._rows(
            "SELECT m.hash, m.parent, m.content, e.details FROM @.entries e JOIN @.messages m USING (hash) "
            "WHERE e.conversation = $1 AND e.number >= $2 AND e.number < $3 ORDER BY e.number",
            *(conversation_id, start, stop),
        )
        return [Entry.load(*row) for row in rows]

    async def _turns(
        self, remote: Remote | None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[TurnRow]:
        conditions, values, order = ["true"], list[object](), "t.since, t.conversation, t.number"
        if remote is not None:
            values += _key(remote)
            conditions.append(_AT)
            order = "t.number"
        if turn_id is not None:
            values.append(turn_id)
            conditions.append(f"t.id = ${len(values)}")
        if unsettled:
            conditions.append("t.unsettled")
        rows = await self._rows(
            "SELECT c.backend, c.account, c.remote, t.body FROM @.turns t JOIN @.conversations c "
            f"ON c.id = t.conversation WHERE {' AND '.join(conditions)} ORDER BY {order}",
            *values,
        )
        return [TurnRow(_remote(row), load(row["body"], Turn)) for row in rows]

    async def _search(self, words: Sequence[str]) -> AsyncGenerator[Hit, None]:
        searched = " & ".join(f"'{word[:_LONGEST_WORD]}':*" for word in words)
        behind, values = "", tuple[object, ...]()
        while True:
            # All are found and put in order each time; but for their places they are read as they are needed.
            places = await self._rows(
                "SELECT c.used_at, c.id, e.number FROM @.messages m JOIN @.entries e USING (hash) "
                f"JOIN @.conversations c ON c.id = e.conversation WHERE m.words @@ $1::text::tsquery {behind}"
                "ORDER BY c.used_at DESC, c.id DESC, e.number LIMIT $2",
                *(searched, self.PLACES, *values),
            )
            for start in range(0, len(places), self.PAGE):
                for hit in await self._hits(places[start : start + self.PAGE]):
                    yield hit
            if len(places) < self.PLACES:
                return
            behind = "AND ((c.used_at, c.id) < ($3, $4) OR (c.id = $4 AND e.number > $5)) "
            values = tuple(places[-1])

    async def _hits(self, places: Sequence[Any]) -> list[Hit]:
        """Read the messages with these conversations and numbers, in this order."""
        rows = await self._rows(
            f"SELECT {_CONVERSATION}, m.hash, m.parent, m.content, e.details "
            "FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS place (id, number, nth) "
            "JOIN @.conversations c USING (id) "
            "JOIN @.entries e ON e.conversation = c.id AND e.number = place.number "
            "JOIN @.messages m USING (hash) ORDER BY nth",
            *([place["id"] for place in places], [place["number"] for place in places]),
        )
        return [
            Hit(
                _conversation(row),
                Entry.load(row["hash"], row["parent"], row["content"], row["details"]).message,
            )
            for row in rows
        ]

    async def _commit(self, change: Change) -> bool:
        # By this the conversation's row tells whose change was the last.
        mark = token_hex(8)
        return await self._do(partial(self._write, change=change, mark=mark))

    async def _write(
        self,
        connection: Connection,
        in_doubt: bool,  # noqa: FBT001 - as all jobs
        change: Change,
        mark: str,
    ) -> bool:
        await connection.execute(_DURABLY)
        kept = change.conversation
        if not await self._put(connection, change, mark):
            there = await connection.fetchrow(
                self._sql("SELECT revision, mark FROM @.conversations WHERE id = $1"), kept.id
            )
            if there is None or there["mark"] == mark or not kept.revision:
                return there is not None  # Nobody else gives a conversation that id.
            if in_doubt and there["revision"] > kept.revision + 1:
                raise StoreError(
                    "the connection was lost, and others have written to the conversation since, so that "
                    "nobody can tell whether it was written",
                    kind="gone",
                )
            return False
        if change.start is not None:
            await self._remove(connection, kept.id, change.start)
        await self._add(connection, kept, change.entries)
        for row in change.turns:
            await connection.execute(
                self._sql(
                    "INSERT INTO @.turns (conversation, number, id, unsettled, since, body) "
                    "SELECT $1, coalesce(max(number), 0) + 1, $2, $3, clock_timestamp(), $4 "
                    "FROM @.turns WHERE conversation = $1 ON CONFLICT (conversation, id) "
                    "DO UPDATE SET unsettled = excluded.unsettled, body = excluded.body"
                ),
                *(kept.id, row.turn.id, row.turn.unsettled, dump(row.turn, Turn)),
            )
        return True

    async def _put(self, connection: Connection, change: Change, mark: str) -> bool:
        """Write the row of the conversation; False where it has another revision."""
        kept = change.conversation
        values = (
            *(kept.id, dump(kept.conversation, Conversation), kept.length, kept.head, kept.holder),
            *(change.lease, kept.created, kept.used, kept.deleted, mark),
        )
        if kept.revision:
            query = (
                "UPDATE @.conversations SET body = $2, length = $3, head = $4, holder = $5, created = $7, "
                "used = $8, deleted = $9, mark = $10, revision = revision + 1, "
                f"used_at = CASE WHEN $12 THEN {_USED_AT} ELSE used_at END, "
                f"held_until = CASE WHEN $6::float8 IS NULL THEN held_until ELSE {_HELD_UNTIL} END "
                "WHERE id = $1 AND revision = $11 RETURNING id"
            )
            done = await connection.fetchval(self._sql(query), *values, kept.revision, change.use)
        else:
            query = (
                "INSERT INTO @.conversations (id, body, length, head, holder, held_until, created, used, "
                "deleted, mark, revision, used_at, backend, account, remote) "
                f"VALUES ($1, $2, $3, $4, $5, {_HELD_UNTIL}, $7, $8, $9, $10, 1, {_USED_AT}, "
                "$11, $12, $13) ON CONFLICT DO NOTHING RETURNING id"
            )
            done = await connection.fetchval(self._sql(query), *values, *_key(kept.remote))
        return done is not None

    async def _add(self, connection: Connection, kept: StoredConversation, entries: Sequence[Entry]) -> None:
        """Write *entries*, the last of the conversation."""
        first = kept.length - len(entries)
        for start in range(0, len(entries), _ROWS_AT_ONCE):
            some = entries[start : start + _ROWS_AT_ONCE]
            hashes = [entry.hash for entry in some]
            await connection.execute(
                self._sql(
                    "INSERT INTO @.messages (hash, parent, content, words) "
                    "SELECT hash, parent, content, words::tsvector "
                    "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) "
                    "AS new (hash, parent, content, words) "
                    "ON CONFLICT DO NOTHING"
                ),
                hashes,
                [entry.before for entry in some],
                [entry.content for entry in some],
                [_lexemes(entry.text) for entry in some],
            )
            await connection.execute(
                self._sql(
                    "INSERT INTO @.entries (conversation, number, hash, details) "
                    "SELECT $1, number, hash, details "
                    "FROM unnest($2::bigint[], $3::text[], $4::text[]) AS new (number, hash, details)"
                ),
                kept.id,
                list(range(first + start, first + start + len(some))),
                hashes,
                [entry.details for entry in some],
            )

    async def _forget(self, conversation_id: str, revision: int | None = None) -> None:
        async def forget(connection: Connection, _: object) -> None:
            await connection.execute(_DURABLY)
            find = self._sql("SELECT revision FROM @.conversations WHERE id = $1 FOR UPDATE")
            there = await connection.fetchval(find, conversation_id)
            if there is None or revision not in {None, there}:
                return
            await self._remove(connection, conversation_id, 0)
            await connection.execute(self._sql("DELETE FROM @.conversations WHERE id = $1"), conversation_id)

        await self._do(forget)

    async def _remove(self, connection: Connection, conversation_id: str, start: int) -> None:
        """Remove the messages from number *start* on, and what is then in no conversation."""
        # Who else removes the last use of one waits, and then sees that it is.
        used = "SELECT hash FROM @.entries WHERE conversation = $1 AND number >= $2"
        rows = await connection.fetch(
            self._sql(f"SELECT hash FROM @.messages WHERE hash IN ({used}) ORDER BY hash FOR UPDATE"),
            *(conversation_id, start),
        )
        await connection.execute(
            self._sql("DELETE FROM @.entries WHERE conversation = $1 AND number >= $2"),
            *(conversation_id, start),
        )
        await connection.execute(
            self._sql(
                "DELETE FROM @.messages m WHERE hash = ANY($1) "
                "AND NOT EXISTS (SELECT 1 FROM @.entries e WHERE e.hash = m.hash)"
            ),
            [row["hash"] for row in rows],
        )

    def _sql(self, query: str) -> str:
        return query.replace("@.", f"{self._quoted}.")

    async def _rows(self, query: str, *values: object) -> list[Any]:
        async def read(connection: Connection, _: object) -> list[Any]:
            return list(await connection.fetch(self._sql(query), *values))

        return await self._do(read)

    async def _do(self, job: Callable[[Connection, bool], Awaitable[T]]) -> T:
        if not self._migrated:
            await self._database.run(self._migrate)
            self._migrated = True
        return await self._database.run(job)

    async def _migrate(self, connection: Connection, _: object) -> None:
        await connection.execute(_DURABLY)
        await migrate(connection, self.schema, self._quoted)


async def _do_nothing(*_: object) -> None:
    """Only connect."""


def _checked(schema: str) -> str:
    problem = ""
    if not 0 < len(schema.encode(errors="replace")) <= _LONGEST_NAME:
        problem = f"is not 1 to {_LONGEST_NAME} bytes long"
    elif schema.startswith("pg_"):
        problem = "begins with pg_, as only PostgreSQL's own do"
    elif not schema.isprintable():
        problem = "has a character that cannot be shown"
    if problem:
        raise ConfigError(f"the schema {quoted(schema)} {problem}")
    return schema


def _place(host: str | None, port: int | None, user: str | None, database: str | None) -> str:
    """Say where the store is, as the string that names it does."""
    name = "" if user is None else f"{quote(user, safe='')}@"
    at, socket = host or "", ""
    if at.startswith("/"):
        at, socket = "", f"?host={quote(at)}"
    elif ":" in at:
        at = f"[{at}]"
    at += "" if port is None else f":{port}"
    return f"postgresql://{name}{at}/{quote(database or '', safe='')}{socket}"


def _key(remote: Remote) -> tuple[str, str, str]:
    return remote.backend, remote.account or "", remote.id


def _remote(row: Any) -> Remote:  # noqa: ANN401 - asyncpg has no types
    return Remote(row["backend"], row["remote"], row["account"] or None)


def _conversation(row: Any) -> StoredConversation:  # noqa: ANN401 - the same
    return StoredConversation(
        row["id"],
        _remote(row),
        load(row["body"], Conversation),
        length=row["length"],
        tip=row["head"],
        revision=row["revision"],
        holder=row["holder"],
        held_for=row["held_for"],
        used_at=row["used_at"],
        created=row["created"],
        used=row["used"],
        deleted=row["deleted"],
    )


def _lexemes(text: str) -> str:
    """Write the words of *text* as PostgreSQL's type for them does."""
    return " ".join(f"'{word[:_LONGEST_WORD]}'" for word in words_of(text[:_SEARCHED]))
