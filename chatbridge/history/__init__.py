"""
Stores: where conversations, their messages and turns are kept beyond one bridge.

    async with connect("kaziro:", store="sqlite:///chats.db") as bridge: ...

`open_store` makes a store by its string; a store of another kind is a subclass of `Store`, and
`chatbridge.testing.store_contract` checks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatbridge.history.chain import Entry
from chatbridge.history.memory import MemoryStore
from chatbridge.history.rows import Change, Hit, Hold, Remote, StoredConversation, TurnRow
from chatbridge.history.store import Store
from chatbridge.history.strings import open_store

if TYPE_CHECKING:
    from chatbridge.history.postgres import PostgresStore
    from chatbridge.history.sqlite import SQLiteStore

__all__ = [
    "Change",
    "Entry",
    "Hit",
    "Hold",
    "MemoryStore",
    "PostgresStore",
    "Remote",
    "SQLiteStore",
    "Store",
    "StoredConversation",
    "TurnRow",
    "open_store",
]


def __getattr__(name: str) -> object:
    """Import what takes time when it is first used."""
    if name == "SQLiteStore":
        from chatbridge.history.sqlite import SQLiteStore  # noqa: PLC0415 - the same

        return SQLiteStore
    if name == "PostgresStore":
        from chatbridge.history.postgres import PostgresStore  # noqa: PLC0415 - asyncpg, which may be missing

        return PostgresStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
