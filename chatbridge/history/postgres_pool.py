"""Transactions in a PostgreSQL database, by asyncpg."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import Any, Final, TypeAlias, TypeVar, cast

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from chatbridge.errors import ConfigError, StoreError, StoreKind
from chatbridge.text import quoted

try:
    asyncpg: Any = import_module("asyncpg")
except ImportError:
    raise ConfigError("a store on PostgreSQL needs asyncpg: pip install 'chatbridge[postgres]'") from None

__all__ = ["Connection", "Database"]

T = TypeVar("T")

# asyncpg has no types.
Connection: TypeAlias = Any

_FOREIGN: Final[tuple[type[Exception], ...]] = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(OSError, ValueError),
)
_FAILURES: Final[tuple[type[Exception], ...]] = (StoreError, *_FOREIGN)

# Of each event loop, the pool, and what keeps it.
_Pools: TypeAlias = dict[asyncio.AbstractEventLoop, tuple[AsyncGenerator[Any, None], Any]]

# What is not to be closed here, nor collected.
_INHERITED: Final[list[_Pools]] = []

# By SQLSTATE, or its class.
_KINDS: Final[dict[str, StoreKind]] = {
    state: kind
    for kind, states in cast(
        dict[StoreKind, str],
        {
            "gone": "08 28 3D 3F 25P03 42P01 53300 57P01 57P02 57P03 57P05",
            "full": "53100",
            "read_only": "25006 42501",
            "locked": "40 23503 55P03 57014",
            "corrupt": "42703 XX001 XX002",
            "value": "22 54",
        },
    ).items()
    for state in states.split()
}

_CURES: Final[dict[StoreKind, str]] = {
    "full": "make room for it",
    "read_only": "let this user write to it",
    "locked": "another process is writing to it; try again",
    "corrupt": "restore it, or use another schema",
    "gone": "see that it is there, and lets this user in",
}

# The transaction has certainly failed, and may succeed when it is repeated.
_CONFLICTS: Final = frozenset({"40001", "40P01", "23503", "23505", "42P06", "42P07", "42710"})
# The connection has ended, and the transaction with it, or after it.
_ENDS: Final = frozenset({"57P01", "57P02", "57P05", "25P03", "40003"})


class Database:
    """
    A database that transactions run in, from any event loop.

    Nothing outlasts a transaction, so that what stands between may give each of them another connection.

    Attributes:
        place: What messages call it.
        closed: Whether it was closed.
    """

    # Connections of one event loop.
    CONNECTIONS = 4
    # Seconds to connect, for one statement, and for what is under way when it is closed.
    PATIENCE = 10.0

    def __init__(self, place: str, options: Mapping[str, object]) -> None:
        self.place = place
        self.closed = False
        self._options = options
        self._pools: _Pools = {}
        self._process = os.getpid()
        self._retrying = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(6),
            wait=wait_random_exponential(0.02, max=1),
            reraise=True,
        )

    async def close(self) -> None:
        """Finish what is under way, and close the connections, of all event loops that still run."""
        self.closed = True
        here, ends = asyncio.get_running_loop(), list[Awaitable[None]]()
        for loop, (keeping, _) in tuple(self._own().items()):  # A loop that is busy closes its own later.
            if loop is here:
                ends.append(keeping.aclose())
            elif loop.is_running():
                end = asyncio.run_coroutine_threadsafe(_end(keeping), loop)
                ends.append(asyncio.wait_for(asyncio.wrap_future(end), self.PATIENCE))
        await asyncio.gather(*ends, return_exceptions=True)

    async def run(self, job: Callable[[Connection, bool], Awaitable[T]]) -> T:
        """
        Do *job* in a transaction; once more where that may pass.

        Args:
            job: Is given a connection, and whether it may have been done already: by one that was lost while
                it was committed.

        Raises:
            StoreError: It failed, whatever the reason, which names the database.
        """
        try:
            return await self._repeat(job)
        except _FAILURES as error:
            kind, problem = _explained(error)
        cure = f"; {_CURES[kind]}" if kind in _CURES else ""
        raise StoreError(f"the store {quoted(self.place)}: {problem}{cure}", kind=kind)

    async def _repeat(self, job: Callable[[Connection, bool], Awaitable[T]]) -> T:
        in_doubt = False

        async def once() -> T:
            nonlocal in_doubt
            async with self._connected() as connection:
                try:
                    async with connection.transaction(isolation="read_committed"):
                        return await job(connection, in_doubt)
                except _FOREIGN as error:
                    in_doubt = in_doubt or _has_ended(error)
                    raise

        return await self._retrying.copy()(once)

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Connection, None]:
        self._check_open()
        pool, connection, problem = await self._pool(), None, ""
        try:
            connection = await (await pool).acquire(timeout=self.PATIENCE)
        except _FOREIGN as error:
            problem = _explained(error)[1]
        if connection is None:
            raise StoreError(f"cannot connect: {problem}", kind="gone")
        try:
            self._check_open()
            yield connection
        finally:
            await pool.release(connection)

    def _check_open(self) -> None:
        if self.closed:
            raise StoreError("it is closed", kind="closed")

    async def _pool(self) -> Any:  # noqa: ANN401 - asyncpg has no types
        """Give the pool of this event loop."""
        pools, loop = self._own(), asyncio.get_running_loop()
        if loop not in pools:
            for ended in [each for each in tuple(pools) if each.is_closed()]:
                del pools[ended]
            keeping = self._keep()
            pools[loop] = keeping, await anext(keeping)
        return pools[loop][1]

    async def _keep(self) -> AsyncGenerator[Any, None]:
        """Make a pool, and close it when this is closed: as each event loop does that comes to its end."""
        pool = asyncpg.create_pool(
            **self._options,
            min_size=0,
            max_size=self.CONNECTIONS,
            timeout=self.PATIENCE,
            command_timeout=self.PATIENCE,
            statement_cache_size=0,
            reset=_leave,
            server_settings={"application_name": "chatbridge"},
        )
        try:
            yield pool
        finally:
            with suppress(*_FOREIGN):  # It then ends all connections at once.
                await asyncio.wait_for(pool.close(), self.PATIENCE)

    def _own(self) -> _Pools:
        """Give the pools of this process: those of one that it was forked from are that one's."""
        if self._process != os.getpid():
            _INHERITED.append(self._pools)
            self._pools, self._process = {}, os.getpid()
        return self._pools


async def _end(keeping: AsyncGenerator[Any, None]) -> None:
    await keeping.aclose()


async def _leave(_: Connection) -> None:
    """Reset nothing: nothing outlasts a transaction."""


def _explained(error: Exception) -> tuple[StoreKind, str]:
    if isinstance(error, StoreError):
        return error.kind, str(error)
    if isinstance(error, asyncpg.PostgresError):
        state = _state_of(error)
        kind = _KINDS.get(state) or _KINDS.get(state[:2], "failed")
        told = getattr(error, "message", None)  # By the server; what asyncpg tells of a value shows it.
        if kind == "value":
            return kind, f"a value cannot be written ({told or type(error).__name__})"
        return kind, told or str(error)
    if isinstance(error, TimeoutError):
        return "gone", "it does not answer"
    if isinstance(error, OSError):
        return "gone", error.strerror or str(error) or type(error).__name__
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return "gone", str(error)
    return "value", f"a value is not what it takes ({type(error).__name__})"


def _state_of(error: BaseException) -> str:
    """Give the SQLSTATE of what the server has told; '' where *error* is not from there."""
    return getattr(error, "sqlstate", None) or ""


def _has_ended(error: BaseException) -> bool:
    """Tell whether the connection, or the wait for it, ended with *error*, and the outcome is not known."""
    if state := _state_of(error):
        return state[:2] == "08" or state in _ENDS
    return isinstance(error, _FOREIGN) and not isinstance(error, ValueError)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, TimeoutError):  # It had its time.
        return False
    return _state_of(error) in _CONFLICTS or _has_ended(error)
