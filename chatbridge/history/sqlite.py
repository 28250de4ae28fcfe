"""A store in a file, by the SQLite of the standard library, which works in a thread of its own."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from chatbridge.domain import Conversation
from chatbridge.errors import StoreError
from chatbridge.history.chain import Entry
from chatbridge.history.codec import dump, load
from chatbridge.history.rows import Change, Hit, Remote, StoredConversation, TurnRow
from chatbridge.history.schema import APPLICATION, migrate
from chatbridge.history.store import Store
from chatbridge.history.worker import Worker
from chatbridge.turns import Turn

if TYPE_CHECKING:
    from chatbridge.errors import StoreKind

__all__ = ["SQLiteStore"]

T = TypeVar("T")

_KINDS: Final[dict[int, StoreKind]] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_CANTOPEN: "gone",
}

_CURES: Final[dict[StoreKind, str]] = {
    "full": "make room for it",
    "read_only": "let this user write to it, and to its directory",
    "locked": "another program is writing to it; try again",
    "corrupt": "put it aside, and use a copy or another file",
    "gone": "put it, or its directory, back",
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_COLUMNS: Final = (
    "conversations.id, backend, account, remote, body, length, head, revision, holder, held_until, used_at, "
    "created, used, deleted"
)


class SQLiteStore(Store):
    """
    Keeps everything in one file, which only its owner may read.

    It may be used from several event loops at once, and by several processes: they write one at a time. The
    file is opened, and made if there is none, when it is first needed.

    Attributes:
        path: The file.
    """

    # Seconds to wait for another process that is writing.
    BUSY_TIMEOUT = 5.0
    # A log ahead of the file is faster; before 3.51.3 two connections could damage a file that has one.
    WAL = sqlite3.sqlite_version_info >= (3, 51, 3)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._file: tuple[int, int] | None = None
        self._worker = Worker(self._connect, self.BUSY_TIMEOUT)

    async def close(self) -> None:
        """Finish what was begun, close the file and end the thread; closing again does nothing."""
        await self._worker.close()

    async def open(self, *, write: bool = False) -> None:
        """
        Open the file, made if there is none, and bring it to this version.

        Args:
            write: Whether to try if it can be written, which changes nothing.

        Raises:
            StoreError: It cannot be read, or a later version wrote it.
        """
        await self._run(_try_writing if write else lambda _: None)

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        if isinstance(which, Remote):
            where, values = "backend = ? AND account = ? AND remote = ?", tuple[str, ...](_key(which))
        else:
            where, values = "id = ?", (which,)
        query = f"SELECT {_COLUMNS} FROM conversations WHERE {where}"
        found = await self._rows(_conversation, query, *values)
        return found[0] if found else None

    async def _list(
        self, backend: str | None, behind: StoredConversation | None, limit: int
    ) -> Sequence[StoredConversation]:
        conditions: list[str] = []
        values: list[object] = []
        if backend is not None:
            conditions.append("backend = ?")
            values.append(backend)
        if behind is not None:
            conditions.append("(used_at, id) < (?, ?)")
            values += [_micros(behind.used_at), behind.id]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return await self._rows(
            _conversation,
            f"SELECT {_COLUMNS} FROM conversations{where} ORDER BY used_at DESC, id DESC LIMIT ?",
            *values,
            limit,
        )

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        return await self._rows(
            _entry,
            "SELECT hash, parent, content, details FROM entries JOIN messages ON message = messages.number "
            "WHERE conversation = ? AND entries.number >= ? AND entries.number < ? ORDER BY entries.number",
            conversation_id,
            start,
            stop,
        )

    async def _turns(
        self, remote: Remote | None, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[TurnRow]:
        conditions: list[str] = ["unsettled"] if unsettled else []
        values: list[object] = []
        if remote is not None:
            conditions.append("backend = ? AND account = ? AND remote = ?")
            values += _key(remote)
        if turn_id is not None:
            conditions.append("turns.id = ?")
            values.append(turn_id)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return await self._rows(
            _turn,
            "SELECT backend, account, remote, turns.body FROM turns "
            f"JOIN conversations ON conversation = conversations.id{where} ORDER BY turns.number",
            *values,
        )

    async def _search(self, words: Sequence[str]) -> AsyncGenerator[Hit, None]:
        searched = " ".join(f'"{word}"*' for word in words)
        behind, values = "", list[object]()
        while True:
            # All are found and put in order each time; but for their places they are read as they are needed.
            places = await self._rows(
                tuple[Any, ...],
                "SELECT used_at, conversation, entries.number FROM words "
                "JOIN entries ON message = words.rowid "
                f"JOIN conversations ON conversations.id = conversation WHERE words MATCH ? {behind}"
                "ORDER BY used_at DESC, conversation DESC, entries.number LIMIT ?",
                *(searched, *values, self.PLACES),
            )
            for start in range(0, len(places), self.PAGE):
                for hit in await self._hits([place[1:] for place in places[start : start + self.PAGE]]):
                    yield hit
            if len(places) < self.PLACES:
                return
            used_at, conversation, number = places[-1]
            behind = "AND ((used_at, conversation) < (?, ?) OR (conversation = ? AND entries.number > ?)) "
            values = [used_at, conversation, conversation, number]

    async def _hits(self, places: Sequence[tuple[Any, ...]]) -> list[Hit]:
        """Read the messages with these conversations and numbers, in this order."""
        query = (
            f"SELECT {_COLUMNS}, hash, parent, content, details FROM entries "
            "JOIN messages ON messages.number = message "
            "JOIN conversations ON conversations.id = conversation "
            "WHERE conversation = ? AND entries.number = ?"
        )
        return await self._run(
            lambda connection: [
                _hit(row) for place in places for row in connection.execute(query, place).fetchall()
            ]
        )

    async def _forget(self, conversation_id: str, revision: int | None = None) -> None:
        await self._run(lambda connection: _remove(connection, conversation_id, revision))

    async def _commit(self, change: Change) -> bool:
        return await self._run(lambda connection: _write(connection, change))

    async def _rows(self, make: Callable[[Sequence[Any]], T], query: str, *values: object) -> list[T]:
        """Make something of each row, all in the thread."""
        return await self._run(lambda connection: list(map(make, connection.execute(query, values))))

    async def _run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Do *job* in the thread, and let nothing out but StoreError, which names the file."""
        if self._worker.closed:
            raise StoreError(f"the store {str(self.path)!r} is closed", kind="closed")
        try:
            return await self._worker.run(partial(self._do, job))
        except (StoreError, sqlite3.Error, OSError, ValueError, OverflowError) as error:
            kind, problem = _explained(error)
        cure = f"; {_CURES[kind]}" if kind in _CURES else ""
        raise StoreError(f"the store {str(self.path)!r}: {problem}{cure}", kind=kind)

    def _do(self, job: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
        """Do *job* while the file is still the one that was opened."""
        self._check(self.path.stat())
        return job(connection)

    def _check(self, found: os.stat_result) -> None:
        if self._file not in {None, _identity(found)}:
            raise StoreError("the file was replaced since it was opened", kind="gone")

    def _connect(self, patience: float) -> sqlite3.Connection:
        if self._file is None:
            # One that is there is not opened to look at it: closing it would end the locks of others here.
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o600))
        found = self.path.stat()
        self._check(found)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError("it is no file; choose a place for one", kind="failed")
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA mmap_size = 0")
            # An intent must outlast the machine before the first byte of its message leaves.
            connection.execute("PRAGMA synchronous = FULL")
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if found.st_mode & 0o077 and (application == APPLICATION or not found.st_size):
                # SQLite gives the files beside it the same mode.
                with suppress(OSError):  # Another user's file: that one's to say who may read it.
                    self.path.chmod(found.st_mode & 0o600)
            migrate(connection)
            with suppress(sqlite3.OperationalError):  # Others have it open: then it stays as it is.
                connection.execute(f"PRAGMA journal_mode = {'WAL' if self.WAL else 'DELETE'}")
        except BaseException:
            connection.close()
            raise
        self._file = _identity(found)
        return connection


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _explained(error: Exception) -> tuple[StoreKind, str]:
    if isinstance(error, StoreError):
        return error.kind, str(error)
    if isinstance(error, sqlite3.Error):
        return _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "failed"), str(error)
    if isinstance(error, OSError):
        problem = error.strerror or type(error).__name__
        kinds: dict[type[OSError], StoreKind] = {FileNotFoundError: "gone", PermissionError: "read_only"}
        return kinds.get(type(error), "failed"), problem
    return "value", f"a value cannot be written ({type(error).__name__})"


def _key(remote: Remote) -> tuple[str, str, str]:
    return remote.backend, remote.account or "", remote.id


def _remote(backend: str, account: str, remote: str) -> Remote:
    return Remote(backend, remote, account or None)


def _entry(row: Sequence[Any]) -> Entry:
    return Entry.load(*row)


def _turn(row: Sequence[Any]) -> TurnRow:
    *place, body = row
    return TurnRow(_remote(*place), load(body, Turn))


def _hit(row: Sequence[Any]) -> Hit:
    return Hit(_conversation(row[:-4]), _entry(row[-4:]).message)


def _micros(moment: datetime | None) -> int:
    return 0 if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)


def _conversation(row: Sequence[Any]) -> StoredConversation:
    name, backend, account, remote, body, length, head, revision, holder, until, used_at, *flags = row
    created, used, deleted = map(bool, flags)
    return StoredConversation(
        id=name,
        remote=_remote(backend, account, remote),
        conversation=load(body, Conversation),
        length=length,
        tip=head,
        revision=revision,
        holder=holder,
        held_for=until / 1e6 - time.time(),
        used_at=_EPOCH + timedelta(microseconds=used_at),
        created=created,
        used=used,
        deleted=deleted,
    )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _try_writing(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version}")  # Where there is no log, this makes one.
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _write(connection: sqlite3.Connection, change: Change) -> bool:
    kept = change.conversation
    with _transaction(connection):
        if not _put(connection, change):
            return False
        first = kept.length - len(change.entries)
        if change.start is not None:
            _cut(connection, kept.id, change.start)
        for number, entry in enumerate(change.entries, first):
            connection.execute(
                "INSERT INTO messages (hash, parent, content, text) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                (entry.hash, entry.before, entry.content, entry.text),
            )
            connection.execute(
                "INSERT INTO entries (conversation, number, message, details) "
                "SELECT ?, ?, number, ? FROM messages WHERE hash = ?",
                (kept.id, number, entry.details, entry.hash),
            )
        for row in change.turns:
            turn = row.turn
            connection.execute(
                "INSERT INTO turns (conversation, id, unsettled, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (conversation, id) "
                "DO UPDATE SET unsettled = excluded.unsettled, body = excluded.body",
                (kept.id, turn.id, turn.unsettled, dump(turn, Turn)),
            )
    return True


def _put(connection: sqlite3.Connection, change: Change) -> bool:
    """Write the row of a conversation; False if it has another revision."""
    kept, lease = change.conversation, change.lease
    now = time.time_ns() // 1000
    row = {
        "body": dump(kept.conversation, Conversation),
        "length": kept.length,
        "head": kept.head,
        "holder": kept.holder,
        "created": kept.created,
        "used": kept.used,
        "deleted": kept.deleted,
    }
    if change.use or not kept.revision:
        (last,) = connection.execute("SELECT max(used_at) FROM conversations").fetchone()
        row["used_at"] = max(now, (last or 0) + 1)
    if lease is not None:
        row["held_until"] = now + round(lease * 1e6) if lease else 0
    if kept.revision:
        values = ", ".join(f"{name} = :{name}" for name in row)
        query = (
            f"UPDATE conversations SET {values}, revision = revision + 1 "
            "WHERE id = :id AND revision = :revision"
        )
        row |= {"id": kept.id, "revision": kept.revision}
    else:
        backend, account, remote = _key(kept.remote)
        row = {"held_until": 0} | row
        row |= {"id": kept.id, "backend": backend, "account": account, "remote": remote, "revision": 1}
        values = ", ".join(f":{name}" for name in row)
        query = f"INSERT INTO conversations ({', '.join(row)}) VALUES ({values}) ON CONFLICT DO NOTHING"
    return bool(connection.execute(query, row).rowcount)


def _cut(connection: sqlite3.Connection, conversation_id: str, start: int) -> None:
    """Remove all messages of a conversation but the first *start*; those that others share stay theirs."""
    which = "FROM entries WHERE conversation = ? AND number >= ?"
    place = (conversation_id, start)
    messages = connection.execute(f"SELECT message {which}", place).fetchall()
    connection.execute(f"DELETE {which}", place)
    shared = "SELECT 1 FROM entries WHERE entries.message = messages.number"
    connection.executemany(f"DELETE FROM messages WHERE number = ? AND NOT EXISTS ({shared})", messages)


def _remove(connection: sqlite3.Connection, conversation_id: str, revision: int | None) -> None:
    with _transaction(connection):
        find = "SELECT revision FROM conversations WHERE id = ?"
        there = connection.execute(find, (conversation_id,)).fetchone()
        if there is None or revision not in {None, there[0]}:
            return
        _cut(connection, conversation_id, 0)
        connection.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
