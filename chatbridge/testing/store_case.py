"""What the rules of stores share: the store under test, and what is written to it."""

from __future__ import annotations

from datetime import UTC, datetime
from secrets import token_hex

from chatbridge.domain import (
    Attachment,
    Message,
    Opaque,
    Reasoning,
    Reference,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from chatbridge.errors import ChatbridgeError, UsageError
from chatbridge.history.rows import Remote
from chatbridge.history.store import Store
from chatbridge.testing.checking import NotApplicable
from chatbridge.testing.rules import Contract
from chatbridge.turns import Turn

__all__ = ["FREE", "TEXT", "THEN", "StoreCase", "everything", "new_place", "new_turns", "recorded", "said_in"]

THEN = datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC)
TEXT = "na\u00efve \U0001f341 \u202e \0 \ud800 line\r\nend"
FREE = {"none": None, "deep": [{"n": [1, 2.5, True, TEXT]}], "": -0.0, "large": 2**70}


class StoreCase(Contract):
    """Some of the rules of `StoreContract`, which says what its attributes are."""

    LASTS = True

    def open_store(self) -> Store:
        """Open the store under test; override this. Within one check, each call opens the same place."""
        raise UsageError(f"{type(self).__name__} needs an open_store, which opens the store under test")

    async def check(self, name: str) -> None:
        """Try one rule, and that the store lets no foreign error out meanwhile."""
        try:
            await super().check(name)
        except (AssertionError, NotApplicable, ChatbridgeError):
            raise
        except Exception as error:
            raise AssertionError(f"a store raises StoreError, not {type(error).__name__}: {error}") from error

    def expect_to_last(self) -> None:
        """Leave the check where what the store has does not last."""
        if not self.LASTS:
            raise NotApplicable("what it has is gone when it is closed")


def new_place(backend: str = "a") -> Remote:
    """Give a conversation that nothing is known of yet."""
    return Remote(backend, token_hex(8))


async def recorded(store: Store, place: Remote, *, unsettled: bool = False) -> list[Turn]:
    """Give the turns there, all or the unsettled ones."""
    return [row.turn for row in await store.turns(place, unsettled=unsettled)]


async def said_in(store: Store, place: Remote) -> list[Message]:
    """Give the messages there, the oldest first."""
    kept = await store.find(place)
    return [] if kept is None else [message async for message in store.messages(kept.id)]


def new_turns(count: int) -> list[Turn]:
    """Give that many pending turns of one conversation."""
    place = token_hex(8)
    return [Turn(f"{number}", place, Message.user(f"Message {number}"), THEN) for number in range(count)]


def everything() -> Message:
    """Give a message with all that a message can have."""
    reference = Reference("d", TEXT, "https://example.com", "1-2", 0.5, "\u2026", extra=FREE)
    parts = (
        Text(TEXT),
        Reasoning("hm", "signed"),
        Attachment("image/png", bytes(range(256)), name=TEXT),
        Attachment("text/plain", url="https://example.com/a"),
        ToolCall("1", "weather", FREE),
        ToolResult("1", "rain", is_error=True),
        Opaque("acme", "map", FREE),
        Opaque("acme", "list", [FREE]),
        Opaque("acme", "nothing", None),
    )
    return Message(Role.ASSISTANT, parts, "id", "author", THEN, "other", [reference], extra=FREE)
