"""Watching what goes on: hooks, and the standard `logging` under `chatbridge`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["OnAttempt", "run_hook"]

EventT = TypeVar("EventT")

OnAttempt = Callable[[Any], object]
"""Is told of every attempt to call an API."""

_log = logging.getLogger("chatbridge")
_log.addHandler(logging.NullHandler())


def run_hook(hook: Callable[[EventT], object], event: EventT) -> None:
    """Call *hook*; that it fails is logged, without what it says, and changes nothing."""
    try:
        hook(event)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's hook raises
        failed = type(error).__name__
    else:
        return
    _log.error("the hook %s raised %s", getattr(hook, "__qualname__", type(hook).__name__), failed)
