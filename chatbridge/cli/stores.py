"""Which store a command uses: the one that is named, or a file in the user's data directory."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import urlsplit

import platformdirs
from attrs import define, evolve, frozen

from chatbridge import history
from chatbridge.bridge import Bridge
from chatbridge.chat import Chat
from chatbridge.errors import ConfigError, StoreError, UsageError
from chatbridge.guard import is_loopback
from chatbridge.history import Remote, Store, StoredConversation, open_store

__all__ = ["NOWHERE", "Choice", "Place", "account_of", "address", "find_chat", "first", "last_used"]

T = TypeVar("T")

NOWHERE = "memory:"


@frozen
class Place:
    """
    Where a command keeps what is said.

    Attributes:
        named: The store, as a string; None for the file in the user's data directory.
        by: Who named it.
    """

    named: str | None = None
    by: str = ""

    def store(self, *, new: bool = True) -> Store:
        """
        Give the store; nothing is written before it is used.

        Args:
            new: Make its file, where there is none. Without, the user's own is taken for an empty one.

        Raises:
            ConfigError: The string names no store.
            StoreError: There is no place for the user's own.
            UsageError: There is no such file, and none is to be made.
        """
        if self.named is None:
            path = _own_file()
            return history.SQLiteStore(path) if new or _is_there(path) else open_store(NOWHERE)
        try:
            store = open_store(self.named)
        except ConfigError as error:
            raise ConfigError(f"{self.by}: {error}") from None
        if not new and isinstance(store, history.SQLiteStore) and not _is_there(store.path):
            raise UsageError(f"{self.by}: there is no store {str(store.path)!r}")
        return store

    def prepare(self, store: Store) -> None:
        """
        Make the directory of the user's own *store*.

        Raises:
            StoreError: It cannot be made.
        """
        if self.named is None and isinstance(store, history.SQLiteStore):
            _make(store.path.parent)

    def open(self) -> Store:
        """Give the store for reading: it must be there, or is taken for an empty one."""
        store = self.store(new=False)
        self.prepare(store)
        return store


def _own_file() -> Path:
    """Name the file in the user's data directory."""
    try:
        directory = platformdirs.user_data_path("chatbridge", appauthor=False)
    except RuntimeError:
        directory = None
    if directory is None or directory.parts[:1] == ("~",):
        raise StoreError("there is no home directory to keep a store in: set HOME or XDG_DATA_HOME")
    return directory.absolute() / "history.db"


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:  # Opening it will tell more.
        pass
    return True


def _make(directory: Path) -> None:
    """Make *directory*, for its owner alone, where it is not there yet."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    else:
        return
    raise StoreError(f"the store's directory {str(directory)!r} cannot be made: {problem}")


@define
class Choice:
    """
    What the user says of the store, and of the backend.

    Attributes:
        named: A store, as a string.
        nothing: Whether nothing is to be kept.
        url: How to name the backend to which a bridge was made.
    """

    named: str | None = None
    nothing: bool = False
    url: str = ""

    def command(self, *words: str) -> str:
        """Write a command to use with the same store."""
        return shlex.join(("chatbridge", *words, *(("--store", self.named) if self.named else ())))

    def to_talk(self, *, in_process: bool = False) -> Place:
        """
        Say where to keep what is said to a backend; what lives *in_process* is kept only where that is named.

        Raises:
            UsageError: A store is named, and nothing is to be kept.
        """
        if self.named is not None and self.nothing:
            raise UsageError("choose one of --store and --no-store")
        if self.named is not None:
            return Place(self.named, "--store")
        if self.nothing or in_process:
            return Place(NOWHERE)
        if named := os.environ.get("CHATBRIDGE_STORE"):
            return Place(named, "CHATBRIDGE_STORE")
        return Place()

    def to_read(self) -> Place:
        """
        Say where to look for what was kept.

        Raises:
            UsageError: Nothing is to be kept.
        """
        place = self.to_talk()
        if self.nothing:
            raise UsageError("this reads what a store has: leave out --no-store")
        return place


def account_of(bridge: Bridge) -> Remote:
    """Say which backend and account *bridge* leads to, as a store has it."""
    return bridge.deliveries.ledger.remote("")


def address(remote: Remote) -> str:
    """Give a config string that leads to the backend and account of *remote*."""
    if remote.account is None:
        return f"{remote.backend}:"
    place = f"//{remote.account}"
    return f"{remote.backend}{'+http' if is_loopback(urlsplit(place).hostname or '') else ''}:{place}"


async def find_chat(bridge: Bridge, conversation_id: str) -> Chat:
    """Make a handle on the conversation with this id, be it the backend's or the store's."""
    store, remote = bridge.store, evolve(account_of(bridge), id=conversation_id)
    kept = await store.find(remote) or await store.find(conversation_id)
    return bridge.open(conversation_id) if kept is None else await bridge.resume(kept.id)


async def last_used(store: Store, account: Remote | None = None) -> StoredConversation:
    """
    Give the conversation that was last talked in, of *account* or of all.

    Raises:
        UsageError: There is none.
    """
    found = store.conversations(None if account is None else account.backend)
    async with aclosing(found):
        async for kept in found:
            ours = account is None or evolve(kept.remote, id="") == account
            if ours and kept.used and not kept.deleted:
                return kept
    where = "" if account is None else f" of {account}"
    raise UsageError(f"the store has no conversation{where} to go on with: leave out --continue to begin one")


async def first(found: AsyncIterator[T], limit: int | None) -> list[T]:
    """Give the first *limit* of what is *found*, or all."""
    items: list[T] = []
    async with aclosing(cast(AsyncGenerator[T, None], found)):
        async for item in found:
            items.append(item)
            if len(items) == limit:
                break
    return items
