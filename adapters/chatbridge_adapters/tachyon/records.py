"""What the emulator of Tachyon keeps: rooms, their messages, and the log of their agents."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from attrs import define, field, frozen

from chatbridge.testing.responder import Exchange

__all__ = ["DEFAULT_NAME", "ROOM_ID", "USER", "Room", "StoredMessage", "Turn", "log_of", "show_time", "ulid"]

DEFAULT_NAME = "New Room"
USER = "us_01hs2yepy5hw4rz8pdq2wywnwt"

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_MERGED = {"say": "text", "thinking": "text", "attempt_completion": "result"}

ROOM_ID = re.compile(f"ch_[0-7][{_DIGITS}]{{25}}")


def ulid(moment: datetime, random: uuid.UUID) -> str:
    """Make a ULID, in lower case: 48 bits of time in milliseconds, then 80 of *random*."""
    milliseconds = int(moment.timestamp() * 1000) % 2**48
    number = milliseconds << 80 | random.int % 2**80
    return "".join(_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


def show_time(moment: datetime) -> str:
    """Write a time as RFC 3339 in UTC; a fraction of a second only where there is one."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@frozen(kw_only=True)
class StoredMessage:
    """A message; its content is one part."""

    id: str
    role: str
    content: Mapping[str, object]
    created_at: datetime

    def show(self, room_id: str) -> dict[str, object]:
        """Show a ChatMessage; the assistant's have the user's id too."""
        return {
            "id": self.id,
            "chatroom_id": room_id,
            "user_id": USER,
            "role": self.role,
            "content": dict(self.content),
            "created_at": show_time(self.created_at),
        }

    def says(self, words: str) -> bool:
        """Tell whether *words* are in it."""
        return words.casefold() in "\n".join(map(str, self.content.values())).casefold()


@frozen
class Turn:
    """What was said and answered, and the messages that hold it."""

    exchange: Exchange
    messages: Sequence[StoredMessage]


@define(kw_only=True, eq=False)
class Room:
    """A room, its turns and its agents' log, oldest first."""

    id: str
    operator: str
    created_at: datetime
    updated_at: datetime
    name: str = DEFAULT_NAME
    metadata: object = field(factory=dict[str, object])
    turns: list[Turn] = field(factory=list[Turn])
    log: list[Mapping[str, object]] = field(factory=list[Mapping[str, object]])

    def show(self) -> dict[str, object]:
        """Show a ChatRoom, always with its seven keys."""
        return {
            "id": self.id,
            "name": self.name,
            "operator_id": self.operator,
            "owner_id": USER,
            "metadata": self.metadata,
            "created_at": show_time(self.created_at),
            "updated_at": show_time(self.updated_at),
        }

    def history(self) -> list[Exchange]:
        """Give the turns as the model sees them."""
        return [turn.exchange for turn in self.turns]

    def messages(self) -> list[StoredMessage]:
        """Give the messages."""
        return [message for turn in self.turns for message in turn.messages]


def log_of(
    task: str, log_id: str, moment: datetime, chunks: Iterable[Mapping[str, object]]
) -> list[Mapping[str, object]]:
    """
    Make the log of a run of its task and its chunks.

    What an agent says, thinks and tries in neighbouring chunks is put together.
    """
    said = {"type": "user", "text": task, "id": log_id, "user_id": USER, "created_at": show_time(moment)}
    log: list[Mapping[str, object]] = [said]
    for chunk in chunks:
        kind, last = str(chunk.get("type")), log[-1]
        key = _MERGED.get(kind)
        if key and (last.get("type"), last.get("agent")) == (kind, chunk.get("agent")):
            log[-1] = {**last, **chunk, key: f"{last.get(key) or ''}{chunk.get(key) or ''}"}
        else:
            log.append(chunk)
    return log
