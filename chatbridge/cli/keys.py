"""Keys that a server gives out: saved in a file, or said to be lost; never shown."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, mkstemp

from attrs import define, field

from chatbridge.backend import IssuesKeys
from chatbridge.bridge import Bridge
from chatbridge.cli.output import Output
from chatbridge.config import BackendURL
from chatbridge.errors import ConfigError, UsageError
from chatbridge.secret import Secret
from chatbridge.text import quoted

__all__ = ["Keys"]


@define
class Keys:
    """
    What becomes of the keys that a backend's server gives out.

    Attributes:
        file: Where a key is saved, in place of an earlier one; None where none is.
        lost: Whether one that was to be saved could not be.
    """

    output: Output
    file: Path | None = None
    lost: bool = field(default=False, init=False)
    _next_time: str = field(default="", init=False)

    def watch(self, bridge: Bridge, url: BackendURL) -> None:
        """
        Take the keys that come while *bridge* is used; *url* named it.

        Raises:
            UsageError: They are to be saved, and this backend gives none.
            ConfigError: They cannot be saved where they are to be.
        """
        backend = bridge.api
        if isinstance(backend, IssuesKeys):
            if self.file is not None:
                self._next_time = str(url.with_options(key=f"file:{self.file}"))
                _check(self.file)
            backend.on_session_token = self._take
        elif self.file is not None:
            raise UsageError(f"--save-key: the server of {bridge.profile.name} gives out no keys to save")

    def _take(self, key: Secret) -> None:
        if self.file is None:
            self.output.note(
                "warning: the server gave a key to what it keeps, and it is lost when this program ends; "
                "the next time, save it with --save-key FILE"
            )
            return
        try:
            _save(key, self.file)
        except (OSError, UnicodeError) as error:
            self.lost = True
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            self.output.note(
                f"chatbridge: the key that the server gave is lost: "
                f"it cannot be saved in {quoted(str(self.file))}: {reason}"
            )
        else:
            self.output.note(f"key: saved in {self.file}; to use it: {self._next_time}")


def _check(file: Path) -> None:
    """Hold, before anything is sent, that a key can be saved."""
    try:
        problem = _unfit(file)
        with NamedTemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        problem = error.strerror
    if problem is not None:
        raise ConfigError(f"--save-key: no key can be saved in {quoted(str(file))}: {problem}")


def _unfit(file: Path) -> str | None:
    if not file.exists():
        return None
    if not file.is_file():
        return "it is no regular file"
    for descriptor in (1, 2):
        with suppress(OSError):  # It may be closed.
            if os.path.samestat(file.stat(), os.fstat(descriptor)):
                return "what is printed goes there"
    return None


def _save(key: Secret, file: Path) -> None:
    """Replace *file* by one that holds *key*, which nobody but its owner can read."""
    handle, name = mkstemp(dir=file.parent)  # Its mode is 0600.
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(f"{key.reveal()}\n")
            opened.flush()
            os.fsync(handle)
        if file.exists():
            draft.chmod(file.stat().st_mode & 0o600)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
