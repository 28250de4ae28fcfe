"""
Stores: where conversations, their messages and turns are kept beyond one bridge.

    async with connect("kaziro:", store="sqlite:///chats.db") as bridge: ...

`open_store` makes a store by its string; a store of another kind is a subclass of `Store`, and
`chatbridge.testing.store_contract` checks it.
"""

from __future__ import annotations

from chatbridge.history.memory import MemoryStore
from chatbridge.history.sqlite import SQLiteStore
from chatbridge.history.store import Store, StoredConversation
from chatbridge.history.strings import open_store

__all__ = ["MemoryStore", "SQLiteStore", "Store", "StoredConversation", "open_store"]
