"""
Watching what goes on: the hook `on_attempt`, and the standard `logging` under `chatbridge`.

`chatbridge.http` has a line at DEBUG for each attempt and one at INFO for each retry; `chatbridge.turns` one
at INFO for a message that was found again and one at WARNING for one that stays in doubt. No line has
content, and none a secret.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from attrs import define, frozen

from chatbridge.facts import Attempt
from chatbridge.text import printable

__all__ = ["AttemptEvent", "AttemptWatch", "OnAttempt", "run_hook"]

EventT = TypeVar("EventT")

logging.getLogger("chatbridge").addHandler(logging.NullHandler())
_log = logging.getLogger("chatbridge")
_http = logging.getLogger("chatbridge.http")


@frozen
class AttemptEvent:
    """
    An attempt to call an API is over.

    One whose answer is streamed is over with its first event: what breaks later is the error's to tell. One
    that was cancelled has `attempt.error` "cancelled".

    Attributes:
        provider: The backend's name.
        operation: The API's own name for it.
        kind: What repeating it would cost, by `chatbridge.http.Kind`.
        url: Scheme, host, port and path.
        attempt: With the wait before the next one, if there is one.
        started: By the clock of this machine, in UTC.
        message_id: Of the message that it carried, if any.
    """

    provider: str
    operation: str
    kind: str
    method: str
    url: str
    attempt: Attempt
    started: datetime
    message_id: str | None = None


OnAttempt = Callable[[AttemptEvent], object]
"""Is told of every attempt to call an API."""


def run_hook(hook: Callable[[EventT], object], event: EventT) -> None:
    """Call *hook*; that it fails is logged, without what it says, and changes nothing."""
    try:
        hook(event)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's hook raises
        failed = type(error).__name__
    else:
        return
    _log.error("the hook %s raised %s", getattr(hook, "__qualname__", type(hook).__name__), failed)


@define
class AttemptWatch:
    """
    Tells of the attempts of one call; there is none where nobody listens.

    Attributes:
        status: Of the answer to the attempt under way, once there is one.
    """

    provider: str
    operation: str
    kind: str
    method: str
    url: str
    message_id: str | None
    wall: Callable[[], float]
    hook: OnAttempt | None = None
    status: int | None = None

    @staticmethod
    def is_wanted(hook: OnAttempt | None) -> bool:
        """Say whether anybody listens."""
        return hook is not None or _http.isEnabledFor(logging.INFO)

    def succeeded(self, number: int, seconds: float) -> None:
        """Tell of an attempt that succeeded."""
        self.tell(Attempt(number, None, self.status, None, seconds))

    def ended(self, number: int, error: BaseException, seconds: float) -> None:
        """Tell of an attempt that nobody waits for any more, or that something else went wrong with."""
        reason = "cancelled" if isinstance(error, CancelledError) else type(error).__name__
        self.tell(Attempt(number, None, self.status, reason, seconds))

    def tell(self, attempt: Attempt) -> None:
        """Tell of an attempt that is over."""
        self.status = None
        _http.debug(
            "%s %s: %s %s, attempt %d%s: %s%s after %.3f s",
            self.provider,
            self.operation,
            self.method,
            self.url,
            attempt.number,
            f" of message {printable(self.message_id)}" if self.message_id else "",
            "ok" if attempt.error is None else attempt.phase or attempt.error,
            "" if attempt.status is None else f" ({attempt.status})",
            attempt.seconds,
        )
        if attempt.wait is not None:
            _http.info(
                "%s %s: attempt %d failed (%s), the next comes in %.2f s",
                self.provider,
                self.operation,
                attempt.number,
                attempt.status or attempt.phase,
                attempt.wait,
            )
        if self.hook is not None:
            started = datetime.fromtimestamp(self.wall() - attempt.seconds, UTC)
            run_hook(
                self.hook,
                AttemptEvent(
                    self.provider,
                    self.operation,
                    self.kind,
                    self.method,
                    self.url,
                    attempt,
                    started,
                    self.message_id,
                ),
            )
