"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

__all__ = ["PASSWORD", "Server", "missing", "serving"]

PASSWORD = "p@ss:wörd/1"
_RULES = """\
local all postgres trust
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

    Anyone is let in by its socket as `postgres`, and every other user by `PASSWORD`.
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
        with socket.socket() as free:
            free.bind(("127.0.0.1", self.port))
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

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Do something behind the store's back."""
        asked = [part for each in statements for part in ("-c", each)]
        done = self._run("psql", *self._reach(), "-U", "postgres", "-d", database, "-XAtq", *asked)
        return done.strip()

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
