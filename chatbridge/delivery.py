"""What is known of a message on its way: told by the transport, read by who must stop waiting for it."""

from __future__ import annotations

from contextvars import ContextVar

from attrs import define

from chatbridge.facts import Outcome

__all__ = ["Delivery", "current_delivery", "delivering"]

_IN_DOUBT = frozenset({Outcome.UNKNOWN, Outcome.ACCEPTED})


@define(eq=False)
class Delivery:
    """
    How far one message has come.

    Attributes:
        message_id: The message's own id.
        outcome: What would be true of it if nothing more were heard; None where nobody tells.
    """

    message_id: str | None = None
    outcome: Outcome | None = None

    def begin(self) -> None:
        """Note that somebody tells from here on, and that nothing has left before."""
        if self.outcome is None:
            self.outcome = Outcome.NOT_SENT

    def note(self, outcome: Outcome, before: Outcome | None) -> None:
        """Take in what an attempt shows; a doubt from *before* it stays, unless arrival is proven."""
        kept = before in _IN_DOUBT and outcome is not Outcome.ACCEPTED
        self.outcome = before if kept else outcome


_delivery: ContextVar[Delivery | None] = ContextVar("chatbridge_delivery", default=None)


def current_delivery() -> Delivery | None:
    """Give the message that the call in progress carries; None where it carries none."""
    return _delivery.get()


class delivering:  # noqa: N801 - used like a function
    """Let the calls in the block that send something tell of it to *delivery*."""

    __slots__ = ("_delivery", "_token")

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __enter__(self) -> None:
        self._token = _delivery.set(self._delivery)

    def __exit__(self, *_: object) -> None:
        _delivery.reset(self._token)
