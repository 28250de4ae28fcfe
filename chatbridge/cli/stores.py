"""Which store a command uses: the one that is named, or a file in the user's data directory."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import urlsplit

import platformdirs
from attrs import define, evolve, frozen

from chatbridge.bridge import Bridge
from chatbridge.chat import Chat
from chatbridge.errors import StoreError, UsageError
from chatbridge.guard import is_loopback
from chatbridge.history import Remote, Store, StoredConversation, open_store

__all__ = ["Choice", "Place", "account_of", "address", "find_chat", "first", "last_used"]

T = TypeVar("T")

NOWHERE = "memory:"


@frozen
class Place:
    """
    Where a command keeps what is said.

    Attributes:
        store: The store, as a string.
        directory: Made, for its owner alone, where it is not there yet.
    """

    store: str
    directory: Path | None = None

    def open(self) -> Store:
        """
        Give the store, in its directory.

        Raises:
            StoreError: The directory cannot be made.
        """
        self.prepare()
        return open_store(self.store)

    def prepare(self) -> None:
        """Make the directory."""
        if self.directory is None:
            return
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        else:
            return
        raise StoreError(f"the store's directory {str(self.directory)!r} cannot be made: {problem}")


@define
class Choice:
    """
    What the user says of the store.

    Attributes:
        named: A store, as a string.
        nothing: Whether nothing is to be kept.
    """

    named: str | None = None
    nothing: bool = False

    def to_talk(self, *, in_process: bool = False) -> Place:
        """
        Say where to keep what is said to a backend; what lives *in_process* is kept only where that is named.

        Raises:
            UsageError: A store is named, and nothing is to be kept.
        """
        if self.named is not None and self.nothing:
            raise UsageError("choose one of --store and --no-store")
        if self.named is not None:
            return Place(self.named)
        if self.nothing or in_process:
            return Place(NOWHERE)
        if named := os.environ.get("CHATBRIDGE_STORE"):
            return Place(named)
        directory = platformdirs.user_data_path("chatbridge", appauthor=False).absolute()
        return Place(f"sqlite:///{directory / 'history.db'}", directory)

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
            if ours and (kept.used or kept.created) and not kept.deleted:
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
