"""The tables of a SQLite store, as the steps that lead from each version to the next."""

from __future__ import annotations

import sqlite3
from typing import Final

from chatbridge.errors import StoreError

__all__ = ["APPLICATION", "STEPS", "migrate"]

APPLICATION: Final = int.from_bytes(b"chbr")
"""What marks the file as a store, in its header."""

STEPS: Final = (
    (
        """
        CREATE TABLE conversations (
            id TEXT PRIMARY KEY,
            backend TEXT NOT NULL,
            account TEXT NOT NULL,
            remote TEXT NOT NULL,
            body TEXT NOT NULL,
            length INTEGER NOT NULL,
            head TEXT,
            revision INTEGER NOT NULL,
            holder TEXT,
            held_until INTEGER NOT NULL,
            used_at INTEGER NOT NULL,
            created INTEGER NOT NULL,
            used INTEGER NOT NULL,
            deleted INTEGER NOT NULL,
            UNIQUE (backend, account, remote)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX conversations_by_use ON conversations (used_at, id)",
        "CREATE INDEX conversations_of ON conversations (backend, used_at, id)",
        # Shared by all conversations that begin alike.
        """
        CREATE TABLE messages (
            number INTEGER PRIMARY KEY,
            hash TEXT NOT NULL UNIQUE,
            parent TEXT,
            content TEXT NOT NULL,
            text TEXT NOT NULL
        )
        """,
        """
        CREATE VIRTUAL TABLE words USING fts5 (
            text, content = 'messages', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 0'
        )
        """,
        """
        CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
            INSERT INTO words (rowid, text) VALUES (new.number, new.text);
        END
        """,
        """
        CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
            INSERT INTO words (words, rowid, text) VALUES ('delete', old.number, old.text);
        END
        """,
        """
        CREATE TABLE entries (
            conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
            number INTEGER NOT NULL,
            message INTEGER NOT NULL REFERENCES messages,
            details TEXT NOT NULL,
            PRIMARY KEY (conversation, number)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX entries_of ON entries (message)",
        """
        CREATE TABLE turns (
            number INTEGER PRIMARY KEY,
            conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
            id TEXT NOT NULL,
            unsettled INTEGER NOT NULL,
            body TEXT NOT NULL,
            UNIQUE (conversation, id)
        )
        """,
        "CREATE INDEX turns_of ON turns (conversation, number)",
        "CREATE INDEX turns_unsettled ON turns (conversation, number) WHERE unsettled",
    ),
)
"""By version, beginning with the first: what makes it of the one before."""


def migrate(connection: sqlite3.Connection) -> None:
    """
    Bring the file of *connection* to the version that is written here.

    Raises:
        StoreError: It is another program's, or a later version's.
    """
    version = _version(connection)
    if version == len(STEPS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster.
        for statement in (each for step in STEPS[_version(connection) :] for each in step):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection) -> int:
    """Give the version of the file, 0 for an empty one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (application or version or tables):
        raise StoreError("the file is another program's database", kind="corrupt")
    if version > len(STEPS):
        raise StoreError(
            f"a later chatbridge wrote the file: its version is {version}, and this one reads up to "
            f"{len(STEPS)}; update chatbridge, or use another file",
            kind="newer",
        )
    return int(version)
