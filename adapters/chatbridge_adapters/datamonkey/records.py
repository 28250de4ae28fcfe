"""What the emulator of Datamonkey keeps: sessions with their tokens, conversations, and messages."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta

from attrs import define, evolve, field, frozen

from chatbridge.testing.responder import Exchange

__all__ = ["LIFETIME", "Conversation", "Message", "Session"]

LIFETIME = timedelta(hours=24)

_HEADER = {"alg": "HS256", "typ": "JWT"}
_SIGNING_KEY = b"datamonkey-emulator"


@frozen
class Session:
    """Who owns conversations, and until when the token is good."""

    user: str
    expires: datetime

    @property
    def token(self) -> str:
        """Its token, a JSON Web Token signed with HS256."""
        issued = self.expires - LIFETIME
        claims = {"sub": self.user, "iat": int(issued.timestamp()), "exp": int(self.expires.timestamp())}
        signed = ".".join(_base64url(_json(part)) for part in (_HEADER, claims))
        return f"{signed}.{_base64url(hmac.digest(_SIGNING_KEY, signed.encode(), 'sha256'))}"


@frozen
class Message:
    """A question or an answer; the timestamp is in milliseconds."""

    role: str
    content: str
    timestamp: int

    def show(self) -> dict[str, object]:
        """Show a ChatMessage."""
        return {"role": self.role, "content": self.content, "timestamp": self.timestamp}


@define(kw_only=True, eq=False)
class Conversation:
    """A conversation and its messages; times are in milliseconds."""

    id: str
    owner: str
    title: str
    created: int
    updated: int
    messages: list[Message] = field(factory=list[Message])

    def show_new(self) -> dict[str, object]:
        """Show it in the answer to its creation: without a title that is empty, and without messages."""
        title = {"title": self.title} if self.title else {}
        return {"id": self.id, **title, "created": self.created, "updated": self.updated}

    def show_listed(self) -> dict[str, object]:
        """Show it in a list."""
        return {"created": self.created, "id": self.id, "title": self.title, "updated": self.updated}

    def show(self) -> dict[str, object]:
        """Show it by itself."""
        return dict(sorted({**self.show_listed(), **self.show_messages()}.items()))

    def show_messages(self) -> dict[str, object]:
        """Show the messages, oldest first; null where there are none."""
        ordered = sorted(self.messages, key=lambda message: message.timestamp)
        return {"messages": [message.show() for message in ordered] or None}

    def history(self) -> list[Exchange]:
        """Give the turns so far; a question that was left alone has an empty answer."""
        turns: list[Exchange] = []
        for message in self.messages:
            if message.role == "user":
                turns.append(Exchange(message.content, ""))
            else:
                turns[-1] = evolve(turns[-1], answered=message.content)
        return turns


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
