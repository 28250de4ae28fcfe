"""Names of those who hold conversations, which tell whether their process lives."""

from __future__ import annotations

import os
import platform
from secrets import token_hex

__all__ = ["is_gone", "new_holder"]


def new_holder() -> str:
    """Make a name: of this machine, this process, and nobody else in it."""
    return f"{platform.node()}/{os.getpid()}/{token_hex(8)}"


def is_gone(holder: str) -> bool:
    """Tell whether the process of *holder* is known to have ended; of another machine nothing is known."""
    machine, _, rest = holder.rpartition("/")[0].rpartition("/")
    if os.name != "posix" or not machine or machine != platform.node() or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False  # Another user's.
    return False
