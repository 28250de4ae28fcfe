"""A store in a file, by the SQLite of the standard library, which works in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from chatbridge.domain import Conversation
from chatbridge.errors import StoreError
from chatbridge.history.chain import Entry
from chatbridge.history.codec import dump, load
from chatbridge.history.schema import migrate
from chatbridge.history.store import Change, Remote, Store, StoredConversation
from chatbridge.text import quoted

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

_CONVERSATION: Final = "SELECT id, backend, account, remote, body, length, head, revision FROM conversations"


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
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._thread = ThreadPoolExecutor(1, "chatbridge-store")
        self._closed = False

    async def close(self) -> None:
        """Finish what is under way, close the file and end the thread; closing again does nothing."""
        if not self._closed:
            self._closed = True
            await asyncio.wrap_future(self._thread.submit(self._disconnect))
            self._thread.shutdown()

    async def _find(self, which: str | Remote) -> StoredConversation | None:
        if isinstance(which, Remote):
            where = "backend = ? AND account = ? AND remote = ?"
            rows = await self._rows(f"{_CONVERSATION} WHERE {where}", *_key(which))
        else:
            rows = await self._rows(f"{_CONVERSATION} WHERE id = ?", which)
        return _conversation(rows[0]) if rows else None

    async def _list(
        self, backend: str | None, before: str | None, limit: int
    ) -> Sequence[StoredConversation]:
        conditions = {"backend = ?": backend, "id < ?": before}
        given = {condition: value for condition, value in conditions.items() if value is not None}
        where = f" WHERE {' AND '.join(given)}" if given else ""
        rows = await self._rows(f"{_CONVERSATION}{where} ORDER BY id DESC LIMIT ?", *given.values(), limit)
        return [_conversation(row) for row in rows]

    async def _read(self, conversation_id: str, start: int, stop: int) -> Sequence[Entry]:
        rows = await self._rows(
            "SELECT hash, parent, content, details FROM entries JOIN messages USING (hash) "
            "WHERE conversation = ? AND number >= ? AND number < ? ORDER BY number",
            conversation_id,
            start,
            stop,
        )
        return [Entry(*row) for row in rows]

    async def _turns(
        self, remote: Remote, turn_id: str | None = None, *, unsettled: bool = False
    ) -> Sequence[str]:
        which, more = (" AND id = ?", (turn_id,)) if turn_id is not None else ("", ())
        if unsettled:
            which += " AND unsettled"
        rows = await self._rows(
            f"SELECT body FROM turns WHERE backend = ? AND account = ? AND remote = ?{which} ORDER BY number",  # noqa: S608 - no value is in it
            *_key(remote),
            *more,
        )
        return [body for (body,) in rows]

    async def _commit(self, change: Change) -> bool:
        return await self._run(lambda connection: _write(connection, change))

    async def _rows(self, query: str, *values: object) -> list[Any]:
        return await self._run(lambda connection: connection.execute(query, values).fetchall())

    async def _run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Do *job* in the thread."""
        if self._closed:
            raise StoreError(f"the store {quoted(str(self.path))} is closed", kind="closed")
        return await asyncio.wrap_future(self._thread.submit(self._do, job))

    def _do(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Do *job*, and let nothing out but StoreError, which names the file."""
        try:
            return job(self._connected())
        except (StoreError, sqlite3.Error, OSError, ValueError, OverflowError) as error:
            kind, problem = _explained(error)
        cure = f"; {_CURES[kind]}" if kind in _CURES else ""
        raise StoreError(f"the store {quoted(str(self.path))}: {problem}{cure}", kind=kind)

    def _connected(self) -> sqlite3.Connection:
        """Give the connection, made at the first call, while the file is still the one that was opened."""
        if self._connection is None:
            self._connection = self._connect()
            self._file = _identity(self.path)
        elif _identity(self.path) != self._file:
            raise StoreError("the file was replaced since it was opened", kind="gone")
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        # SQLite gives the files beside it the same mode.
        os.close(os.open(self.path, os.O_RDONLY | os.O_CREAT, 0o600))
        mode = self.path.stat().st_mode
        if mode & 0o077:
            with suppress(OSError):  # Another user's file: that one's to say who may read it.
                self.path.chmod(mode & 0o600)
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=self.BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA mmap_size = 0")
            # An intent must outlast the machine before the first byte of its message leaves.
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection)
            with suppress(sqlite3.OperationalError):  # Others have it open: then it stays as it is.
                connection.execute(f"PRAGMA journal_mode = {'WAL' if self.WAL else 'DELETE'}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # Everything is committed.
                connection.close()


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


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _key(remote: Remote) -> tuple[str, str, str]:
    return remote.backend, remote.account or "", remote.id


def _conversation(row: tuple[Any, ...]) -> StoredConversation:
    name, backend, account, remote, body, length, head, revision = row
    place = Remote(backend, remote, account or None)
    return StoredConversation(name, place, load(body, Conversation), length, head, revision)


def _write(connection: sqlite3.Connection, change: Change) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if change.conversation is not None and not _put(connection, change.conversation, change.entries):
            return False
        if change.turn is not None:
            turn = change.turn
            connection.execute(
                "INSERT INTO turns (backend, account, remote, id, unsettled, body) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (backend, account, remote, id) "
                "DO UPDATE SET unsettled = excluded.unsettled, body = excluded.body",
                (*_key(turn.remote), turn.id, turn.unsettled, turn.body),
            )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return True


def _put(connection: sqlite3.Connection, kept: StoredConversation, entries: Sequence[Entry]) -> bool:
    body = dump(kept.conversation, Conversation)
    if kept.revision:
        done = connection.execute(
            "UPDATE conversations SET body = ?, length = ?, head = ?, revision = revision + 1 "
            "WHERE id = ? AND revision = ?",
            (body, kept.length, kept.head, kept.id, kept.revision),
        )
    else:
        done = connection.execute(
            "INSERT INTO conversations (id, backend, account, remote, body, length, head, revision) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO NOTHING",
            (kept.id, *_key(kept.remote), body, kept.length, kept.head),
        )
    if not done.rowcount:
        return False
    connection.executemany(
        "INSERT INTO messages (hash, parent, content) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(entry.hash, entry.parent, entry.content) for entry in entries],
    )
    first = kept.length - len(entries)
    connection.executemany(
        "INSERT INTO entries (conversation, number, hash, details) VALUES (?, ?, ?, ?)",
        [(kept.id, first + index, entry.hash, entry.details) for index, entry in enumerate(entries)],
    )
    return True
