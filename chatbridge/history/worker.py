"""A thread with a connection to a SQLite file, in which all that the file takes time for is done."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar
from weakref import WeakSet

__all__ = ["Worker"]

T = TypeVar("T")

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Worker:
    """
    Does one job after the other, with a connection that is made for the first.

    What waits behind a job that found the file locked does not wait as long once more. No connection is open
    while the process forks, as SQLite demands: each of the two processes then makes its own, and has its own
    thread.

    Args:
        connect: Makes a connection that waits so many seconds for others who are writing.
        patience: How many seconds these are for each job.

    Attributes:
        closed: Whether it was closed.
    """

    def __init__(self, connect: Callable[[float], sqlite3.Connection], patience: float) -> None:
        self.closed = False
        self._connect = connect
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._waits = 0.0
        self._locked_at = -math.inf
        # Whoever has it may use the connection.
        self._lock = threading.Lock()
        self._thread = _thread()
        _WORKERS.add(self)

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Do *job* in the thread."""
        return await asyncio.wrap_future(self._thread.submit(self._do, job, time.monotonic()))

    async def close(self) -> None:
        """Do what was asked for, as far as the file is free, and end the thread; again it does nothing."""
        if self.closed:
            return
        self.closed = True
        end = asyncio.wrap_future(self._thread.submit(self._end))
        await asyncio.wait([end], timeout=2 * self._patience)
        self._thread.shutdown(wait=end.done())

    def pause(self) -> None:
        """Close the connection, once nobody uses it, and let nobody make another."""
        self._lock.acquire()
        self._disconnect()

    def go_on(self, *, forked: bool) -> None:
        """Let one be made again: in the process that was *forked*, where no other thread is, by a new one."""
        self._lock.release()
        if forked:
            self._thread = _thread()

    def _do(self, job: Callable[[sqlite3.Connection], T], asked: float) -> T:
        with self._lock:
            waited = max(self._locked_at - asked, 0.0)
            waits = 0.0 if self.closed else max(self._patience - waited, 0.0)
            try:
                if self._connection is None:
                    self._connection, self._waits = self._connect(waits), waits
                elif self._waits != waits:
                    self._connection.execute(f"PRAGMA busy_timeout = {round(waits * 1000)}")
                    self._waits = waits
                return job(self._connection)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
                    self._locked_at = time.monotonic()
                raise

    def _end(self) -> None:
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # Everything is committed.
                connection.close()


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "chatbridge-store")


_WORKERS: Final[WeakSet[Worker]] = WeakSet()
_PAUSED: Final[list[Worker]] = []
_FORKING: Final = threading.Lock()


def _before() -> None:
    _FORKING.acquire()
    for worker in tuple(_WORKERS):
        worker.pause()
        _PAUSED.append(worker)


def _after(*, forked: bool) -> None:
    while _PAUSED:
        _PAUSED.pop().go_on(forked=forked)
    _FORKING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(forked=False),
        after_in_child=lambda: _after(forked=True),
    )
