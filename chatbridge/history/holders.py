"""Names of those who hold conversations, which tell whether their process lives."""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex

__all__ = ["is_gone", "new_holder"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")


def new_holder() -> str:
    """Make a name: of the place where process ids are counted, this process, and nobody else in it."""
    return f"{_place()}/{os.getpid()}/{token_hex(8)}"


def is_gone(holder: str) -> bool:
    """Tell whether the process of *holder* is known to have ended; of another machine nothing is known."""
    place, _, rest = holder.rpartition("/")[0].rpartition("/")
    if not place or place != _place() or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False  # Another user's.
    return False


def _place() -> str:
    """
    Name what counts the ids of processes: a start of a machine, and a container in it.

    Names of machines would not do, as any number of them may have the same. Empty where it cannot be told.
    """
    try:
        return f"{_BOOT.read_text().strip()}.{_PROCESSES.stat().st_ino}"
    except OSError:
        return ""
