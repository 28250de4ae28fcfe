"""A PostgreSQL server of the tests' own, and what may stand before it."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from attrs import define, field

__all__ = ["PASSWORD", "Between", "Server", "damage_in", "missing", "serving"]

PASSWORD = "p@ss:wörd/1"
_RULES = """\
local all postgres,chat trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""


def _binaries() -> Path | None:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    for folder in (*os.get_exec_path(), *map(str, reversed(debian))):
        found = shutil.which("initdb", path=folder)
        # What only leads to a programme elsewhere does not say where the others are.
        if found is not None and (Path(found).resolve().parent / "postgres").exists():
            return Path(found).resolve().parent
    return None


def _owner() -> str | None:
    """Whose the server is: another user's where this one is root, as which it would not run."""
    if os.geteuid():
        return pwd.getpwuid(os.geteuid()).pw_name
    users = {each.pw_name for each in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in users), None)


def _as_owner() -> dict[str, Any]:
    """Give what `Popen` takes to be that user."""
    if os.geteuid():
        return {}
    owner = pwd.getpwnam(_owner() or "")
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def missing() -> str:
    """Why no server can be started here; empty where one can."""
    if not hasattr(os, "geteuid") or _binaries() is None:
        return "there is no PostgreSQL here: initdb and postgres are in no directory of PATH"
    return "" if _owner() is not None else "PostgreSQL does not run as root, and there is no other user"


@define
class Server:
    """
    A server in a directory, which `stop` and `start` as often as wanted.

    By its socket, anyone is let in as `postgres` and as `chat`; elsewhere, and as others, by `PASSWORD`.
    """

    folder: Path
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def make(self) -> None:
        """Make the cluster, with nothing synced: it does not outlast the tests."""
        self._run(
            *("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "--no-sync", "--no-instructions"),
            *("--locale=C", "--encoding=UTF8", "--auth=trust"),
        )
        (self.folder / "data" / "pg_hba.conf").write_text(_RULES)

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it answers."""
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        command = [
            self._path("postgres"),
            *("-D", str(self.folder / "data"), "-k", str(self.folder), "-p", str(self.port), "-F"),
            *("-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB"),
        ]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen[bytes](command, stderr=log, **_as_owner())
        self._process = process
        while process.poll() is None:
            asked = subprocess.run([self._path("pg_isready"), "-q", *self._reach()], check=False)
            if asked.returncode == 0:
                return
            time.sleep(0.01)
        raise RuntimeError((self.folder / "log").read_text(errors="replace"))

    def stop(self) -> None:
        """Stop it at once, as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def string(self, schema: str = "chatbridge") -> str:
        """Give the string of a store there."""
        return f"postgresql://chat@:{self.port}/chats?host={self.folder}&schema={schema}"

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Do something behind the store's back."""
        asked = [part for each in statements for part in ("-c", each)]
        done = self._run("psql", *self._reach(), "-U", "postgres", "-d", database, "-XAtq", *asked)
        return done.strip()

    @contextmanager
    def locked(self, table: str, database: str = "chats") -> Generator[None]:
        """Lock *table* in another session."""
        session = subprocess.Popen[bytes](
            [self._path("psql"), *self._reach(), "-U", "postgres", "-d", database, "-XAtq"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.folder,
        )
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(f"BEGIN; LOCK TABLE {table}; SELECT 'locked';\n".encode())
        session.stdin.flush()
        try:
            assert session.stdout.readline() == b"locked\n"
            yield
        finally:
            session.communicate()

    def _reach(self) -> tuple[str, ...]:
        return "-h", str(self.folder), "-p", str(self.port)

    def _run(self, program: str, *args: str) -> str:
        process = subprocess.Popen[bytes](
            [self._path(program), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            **_as_owner(),
        )
        told = str(process.communicate()[0], errors="replace")
        assert process.returncode == 0, told
        return told

    @staticmethod
    def _path(program: str) -> str:
        folder = _binaries()
        assert folder is not None
        return str(folder / program)


@contextmanager
def serving() -> Generator[Server]:
    """Serve until the end."""
    # In a directory that the server's user may enter, with a name that is short enough for a socket.
    folder = Path(tempfile.mkdtemp(prefix="chatbridge-"))
    server = Server(folder)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _owner() or "")
        server.make()
        server.start()
        server.sql(f"CREATE ROLE chat LOGIN PASSWORD '{PASSWORD}'", "CREATE DATABASE chats OWNER chat")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def damage_in(server: Server, schema: str = "chatbridge") -> str:
    """Say which conversations have messages that are not numbered, or not chained, as they should be."""
    return server.sql(
        f"""
        SELECT c.id, c.length, c.head, count(e.number), array_agg(e.number ORDER BY e.number)
        FROM {schema}.conversations c LEFT JOIN (
            SELECT e.*, m.parent, lag(e.hash) OVER (PARTITION BY conversation ORDER BY number) AS before
            FROM {schema}.entries e JOIN {schema}.messages m USING (hash)
        ) e ON e.conversation = c.id
        GROUP BY c.id
        HAVING count(e.number) <> c.length OR coalesce(max(e.number), -1) <> c.length - 1
            OR bool_or(e.parent IS DISTINCT FROM e.before)
            OR (array_agg(e.hash ORDER BY e.number DESC))[1] IS DISTINCT FROM c.head
        UNION ALL
        SELECT m.hash, 0, '', 0, ARRAY[]::bigint[] FROM {schema}.messages m
        WHERE NOT EXISTS (SELECT 1 FROM {schema}.entries e WHERE e.hash = m.hash)
        """,
        database="chats",
    )


# The server is ready, and in no transaction. The client wants to be told of the statement that it described.
_IDLE = b"Z\0\0\0\x05I"
_FLUSH = b"H\0\0\0\x04"


@define
class Between:
    """
    What stands between a store and the server, as the user `postgres`: a network, or a pooler.

    Attributes:
        server: The server.
        pooling: Whether each transaction gets another connection.
        cut: Whether the next commit of what writes is the last word of its connection, which is lost `before`
            it arrives, or `after` it.
        meanwhile: What happens before who was cut off learns of it.
        port: Its port.
    """

    server: Server
    pooling: bool = False
    cut: Literal["", "before", "after"] = ""
    meanwhile: Callable[[], Awaitable[object]] | None = None
    port: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Self]:
        """Serve until the end."""
        clients: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            clients.add(asyncio.ensure_future(self._serve(reader, writer)))

        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup, writes = await _packet(client), False
        upstream, up = await self._connect()
        try:
            up.write(startup)
            answer = await _until(upstream, b"Z")
            while True:
                writer.write(answer)
                if self.pooling and answer.endswith(_IDLE):
                    up.close()
                    upstream, up = await self._connect()
                    up.write(startup)
                    await _until(upstream, b"Z")
                request = await _until(client, b"QSHX")
                writes = b"BEGIN" not in request and (writes or b"SET LOCAL" in request)
                cut = self.cut if writes and b"COMMIT" in request else ""
                if cut != "before":
                    up.write(request)
                    answer = await _until(upstream, b"TnE" if request.endswith(_FLUSH) else b"Z")
                if cut:
                    self.cut = ""
                    up.close()
                    if self.meanwhile is not None:
                        await self.meanwhile()
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            up.close()
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.server.folder / f".s.PGSQL.{self.server.port}")


async def _until(reader: asyncio.StreamReader, kinds: bytes) -> bytes:
    """Read messages up to one of *kinds*."""
    read, kind = b"", b""
    while not kind or kind not in kinds:
        kind = await reader.readexactly(1)
        read += kind + await _packet(reader)
    return read


async def _packet(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length) - 4)
