"""What a store has rows of."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from attrs import field, frozen

from chatbridge.domain import Conversation, Message
from chatbridge.history.chain import Entry
from chatbridge.turns import Turn

__all__ = ["Change", "Hit", "Hold", "Remote", "StoredConversation", "TurnRow"]


class Hold(Enum):
    """
    What came of trying to hold a conversation.

    Another has it (`BUSY`); or it is held again by who held or made it last (`OURS`), or by who knows
    nothing of what others may have said in it (`AFTER_ANOTHER`).
    """

    BUSY = "busy"
    OURS = "ours"
    AFTER_ANOTHER = "after another"


@frozen
class Remote:
    """
    Where a conversation is kept.

    Attributes:
        backend: The backend's name.
        id: The conversation's id there.
        account: Which of its servers, and whose conversations; None where there is but one.
    """

    backend: str
    id: str
    account: str | None = None

    def __str__(self) -> str:
        return self.backend if self.account is None else f"{self.backend} at {self.account}"


@frozen
class StoredConversation:
    """
    A conversation as a store has it.

    Attributes:
        id: The store's own id of it.
        remote: Where it is kept.
        conversation: What its backend last told of it.
        length: How many messages of it the store has, or had.
        gone: How many of them, the first ones, it has no more.
        tip: The last of them, or its identity.
        revision: How often the row was written; 0 while it is not in the store.
        holder: Who last held it to send something, or has made it.
        held_for: Seconds that are left to the holder by the store's clock; 0 or less once it is free.
        used_at: When it was made here, messages were added to it, or one was about to be sent, by the store's
            clock; what was used later never has an earlier time, though the clock is set back.
        created: Whether chatbridge made it at the backend.
        used: Whether a message was to be sent to it, or others came to those that it began with.
        deleted: Whether chatbridge has deleted it at the backend.
    """

    __hash__ = None  # type: ignore[assignment]  # nor has a conversation one

    id: str
    remote: Remote
    conversation: Conversation
    length: int = 0
    tip: Entry | str | None = field(default=None, eq=False, repr=False)
    revision: int = 0
    holder: str | None = None
    held_for: float = field(default=0.0, eq=False)
    used_at: datetime | None = field(default=None, eq=False)
    created: bool = False
    used: bool = False
    deleted: bool = False
    gone: int = 0

    @property
    def head(self) -> str | None:
        """The identity of the last message: equal heads are equal histories."""
        return self.tip.hash if isinstance(self.tip, Entry) else self.tip


@frozen
class TurnRow:
    """A turn, and where its conversation is kept."""

    remote: Remote
    turn: Turn


@frozen
class Change:
    """
    What is written at once, or not at all.

    Attributes:
        conversation: As it will be, but for its revision, which is the one that it must have until then, and
            for its times, which are the store's.
        turns: Each replaces the turn of its id; a new one comes behind the others.
        entries: The last of its messages, which are new.
        start: How many of its older messages stay before them; those behind are removed. None for all.
        lease: Seconds for which its holder has it from now on; None for as long as until now.
        use: Whether it is the one that was last used then, as a new one always is; else its time stays.
    """

    conversation: StoredConversation
    turns: tuple[TurnRow, ...] = ()
    entries: tuple[Entry, ...] = ()
    start: int | None = None
    lease: float | None = None
    use: bool = False


@frozen
class Hit:
    """A message that was searched for, and the conversation that it is in."""

    conversation: StoredConversation
    message: Message
