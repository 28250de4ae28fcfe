"""Stores by their strings."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from chatbridge.errors import ConfigError
from chatbridge.history.memory import MemoryStore
from chatbridge.history.postgres_url import read_url
from chatbridge.history.store import Store

__all__ = ["open_store"]

_KNOWN = (
    "stores: sqlite:///FILE, with a fourth slash for an absolute path, "
    "postgresql://USER@HOST/DATABASE?password=env:NAME, and memory:"
)


def open_store(which: str | Store) -> Store:
    """
    Give the store that *which* names; a file is opened when it is first needed, and so is a connection.

    Args:
        which: `sqlite:///chats.db`, `sqlite:////var/lib/bot/chats.db`,
            `postgresql://bot@db.example/chats?password=env:NAME` with `sslmode` and `schema` as further
            options, `memory:`, or a store, which is given back.

    Raises:
        ConfigError: It names none, or what it needs is missing. The string is not in the message: it may
            hold a password.
    """
    if isinstance(which, Store):
        return which
    if not isinstance(cast(object, which), str):
        raise ConfigError(f"a store is a string or a Store, not {type(which).__name__} ({_KNOWN})")
    scheme, colon, rest = which.partition(":")
    if colon and scheme == "memory":
        if rest:
            raise ConfigError(f"nothing comes after 'memory:' ({_KNOWN})")
        return MemoryStore()
    if colon and scheme == "sqlite":
        from chatbridge.history.sqlite import SQLiteStore  # noqa: PLC0415 - sqlite3 and cattrs take time to import

        return SQLiteStore(_path(rest))
    if colon and scheme in {"postgresql", "postgres"}:
        options = read_url(rest)
        from chatbridge.history.postgres import PostgresStore  # noqa: PLC0415 - asyncpg, which may be missing

        return PostgresStore(**options)
    raise ConfigError(f"the string names no kind of store that there is ({_KNOWN})")


def _path(rest: str) -> Path:
    path = rest.removeprefix("///")
    if path == rest or not path:
        raise ConfigError(f"'sqlite:' is followed by three slashes and a file ({_KNOWN})")
    if any(mark in path for mark in "?#\0"):
        raise ConfigError(
            "'sqlite:///' is followed by a file alone: no '?', '#' or NUL; SQLiteStore takes any"
        )
    return Path(path)
