"""What is known of a call that failed: its outcome, how far it came, each attempt."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypedDict

from attrs import frozen

if TYPE_CHECKING:
    from chatbridge.turns import Turn

__all__ = ["Attempt", "Facts", "Outcome", "Phase"]


class Outcome(StrEnum):
    """What is known of a call's effect on the server."""

    OK = "ok"
    NOT_SENT = "not_sent"
    REFUSED = "refused"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"


class Phase(StrEnum):
    """How far a call had come when it failed."""

    LOCAL = "local"
    QUEUE = "queue"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    CERTIFICATE = "certificate"
    UPLOAD = "upload"
    LOST = "lost"
    NO_HEAD = "no_head"
    BAD_HEAD = "bad_head"
    STATUS = "status"
    BODY = "body"
    CONTENT = "content"
    FIRST_EVENT = "first_event"
    EVENTS = "events"


@frozen
class Attempt:
    """
    One request that was made, or tried, for a call.

    Attributes:
        number: From 1.
        phase: How far it came; None when it succeeded.
        error: The name of what went wrong, as text.
        seconds: What it took.
        wait: Seconds waited before the next attempt; None after the last.
    """

    number: int
    phase: Phase | None
    status: int | None
    error: str | None
    seconds: float
    wait: float | None = None


class Facts(TypedDict, total=False):
    """What an error may know besides its message; each is an attribute of every `ChatbridgeError`."""

    provider: str | None
    operation: str | None
    phase: Phase | None
    attempts: tuple[Attempt, ...]
    elapsed: float | None
    retry_after: float | None
    request_id: str | None
    client_id: str | None
    conversation_id: str | None
    status: int | None
    code: str | None
    url: str | None
    excerpt: str | None
    budget_exhausted: bool
    from_api: bool
    turn: Turn | None
