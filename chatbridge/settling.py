"""
How to tell from a conversation's history whether a message arrived: by counting, never by clocks.

APIs give a message no name of the sender's, so it is known by its text alone. One of many equal texts is told
from the others by their number: a message has arrived once there are more of its text than all that were
known to be there.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from hashlib import blake2b

from attrs import define, field, frozen

from chatbridge.domain import Message, Reply, Role, ToolResult
from chatbridge.turns import Turn, TurnState

__all__ = ["Finding", "History", "Seen", "Trail", "find", "fingerprint"]


class Seen(Enum):
    """What a history shows of a message."""

    ANSWERED = "it is there, with its answer"
    ALONE = "it is there, and no answer yet"
    FAILED = "it is there, and the API reports that there will be no answer"
    MIXED = "it is there, and which of the answers is its own cannot be told"
    ABSENT = "it is not there"
    UNCLEAR = "other messages have the same text, and it cannot be told from them"


@frozen
class Finding:
    """What a look into a history showed; *reply* is the answer, where there is one."""

    seen: Seen
    reply: Reply | None = None


def fingerprint(message: Message) -> bytes:
    """
    Name the text of *message*, but for its blanks and its normal form, which servers change at times.

    Results of tools are known by the calls that they are for: servers write what is in them in their own way.
    """
    text = " ".join(part.call_id for part in message.parts if isinstance(part, ToolResult)) or message.text
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    plain = " ".join(text.replace("\0", "").split()).encode(errors="surrogatepass")
    return blake2b(plain, digest_size=16).digest()


def _is_sent(message: Message) -> bool:
    """Tell whether *message* is one that a turn may have sent: the user's, or results of tools."""
    return message.role is Role.USER or any(isinstance(part, ToolResult) for part in message.parts)


@define(eq=False)
class Trail:
    """
    What is known to be in a conversation, by the texts of the messages that were sent to it.

    Attributes:
        there: How many of each are there for certain.
        perhaps: How many more of each may be there.
    """

    there: Counter[bytes] = field(factory=Counter[bytes])
    perhaps: Counter[bytes] = field(factory=Counter[bytes])

    @classmethod
    def of(cls, history: Iterable[Message]) -> Trail:
        """Begin with what *history* shows."""
        return cls(Counter(fingerprint(message) for message in history if _is_sent(message)))

    def record(self, turn: Turn, before: Turn | None) -> None:
        """Take in that *turn* has changed."""
        name = fingerprint(turn.message)
        if before is not None:
            self._count(name, before, -1)
        self._count(name, turn, 1)

    @classmethod
    def recalled(cls, turn: Turn, equals: Sequence[Turn]) -> Trail | None:
        """
        Begin with what was noted of the time before *turn*, where it was.

        *equals* are the conversation's turns of the same text, oldest first: they are added from it on.
        """
        if turn.baseline is None:
            return None
        name = fingerprint(turn.message)
        there, perhaps = turn.baseline
        trail = cls(Counter({name: there}), Counter({name: perhaps}))
        ids = [each.id for each in equals]
        for each in equals[ids.index(turn.id) :] if turn.id in ids else (turn,):
            trail._count(name, each, 1)
        return trail

    def baseline(self, message: Message) -> tuple[int, int]:
        """Say how many messages of the same text are there, certainly and perhaps."""
        name = fingerprint(message)
        return self.there[name], self.perhaps[name]

    def doubt(self, turn: Turn) -> None:
        """Take in a turn whose message may be one of those that were counted as there."""
        name = fingerprint(turn.message)
        self._count(name, turn, 1)
        may_be_it = min(self.there[name], turn.sends)
        self.there[name] -= may_be_it
        self.perhaps[name] += may_be_it
        self._tidy(name)

    def _count(self, name: bytes, turn: Turn, sign: int) -> None:
        if turn.state is TurnState.DELIVERED:
            self.there[name] += sign
            self.perhaps[name] += sign * (turn.sends - 1)
        elif turn.unsettled:
            self.perhaps[name] += sign * turn.sends
        self._tidy(name)

    def _tidy(self, name: bytes) -> None:
        for count in (self.there, self.perhaps):
            if not count[name]:
                del count[name]


class History:
    """
    A conversation as it was read, so that many messages can be looked for in it.

    Attributes:
        messages: All of it, oldest message first.
        places: Where the user's messages of each text are, and those with results of tools.
        linked: The messages that say what they answer, by the id of that.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.places: dict[bytes, list[int]] = {}
        self.linked: dict[str, list[Message]] = {}
        for place, message in enumerate(messages):
            if _is_sent(message):
                self.places.setdefault(fingerprint(message), []).append(place)
            if message.reply_to is not None:
                self.linked.setdefault(message.reply_to, []).append(message)

    def lacks(self, there: Counter[bytes]) -> bool:
        """Tell whether it shows less than is *there* for certain."""
        return any(len(self.places.get(name, ())) < count for name, count in there.items())


def find(turn: Turn, history: History, trail: Trail | None) -> Finding:
    """
    Look for the message of *turn* in *history*.

    *trail* is what is known to be there, the turn itself counted among what may be there; None where nothing
    is known, so that a text of the same words may be an old one.
    """
    name = fingerprint(turn.message)
    places = history.places.get(name, [])
    if trail is None:
        return Finding(Seen.UNCLEAR if places else Seen.ABSENT)
    if history.lacks(trail.there):
        return Finding(Seen.UNCLEAR)
    certain = trail.there[name]
    others = certain + trail.perhaps[name] - turn.sends
    if len(places) <= certain:
        return Finding(Seen.ABSENT)
    if not others < len(places) <= others + turn.sends:
        return Finding(Seen.UNCLEAR)
    return _answer(history, places[-1])


def _answer(history: History, place: int) -> Finding:
    """Pick the answer to the message at *place*."""
    asked = history.messages[place]
    linked = [] if asked.id is None else history.linked.get(asked.id, [])
    answers = [each for each in linked if each.role is not Role.USER] or _following(history.messages, place)
    if not any(each.role is Role.ASSISTANT for each in answers):
        return Finding(Seen.FAILED if asked.extra.get("error") else Seen.ALONE)
    if not linked and place and history.messages[place - 1].role is Role.USER:
        return Finding(Seen.MIXED)  # It may answer the one before.
    return Finding(Seen.ANSWERED, Reply(tuple(answers), recovered=True))


def _following(messages: Sequence[Message], place: int) -> list[Message]:
    """Give what follows up to the user's next message, but for what is linked to another."""
    following: list[Message] = []
    for message in (messages[each] for each in range(place + 1, len(messages))):
        if message.role is Role.USER:
            break
        if message.reply_to is None:
            following.append(message)
    return following
