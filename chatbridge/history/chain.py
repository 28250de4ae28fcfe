"""
The identity of a message: a hash of what is said, and of the message before it.

What is said is the role and the parts, written by `codec.dump`. Ids, times and names differ from server to
server and do not count, nor does reasoning, which few of them show again; texts that follow each other are
one. The hash is BLAKE2b with 32 bytes over the parent's hash (nothing for the first), a line feed, and that
text; `b2:` stands before it. Equal hashes therefore are equal histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from chatbridge.domain import Message, Part, Reasoning, Role, Text

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Entry", "Said", "canonical", "entries_of", "identify", "said_in"]


@frozen
class Said:
    """What a message says, whoever tells of it."""

    __hash__ = None  # type: ignore[assignment]  # nor have parts

    role: Role
    parts: tuple[Part, ...]


@define(eq=False)
class Entry:
    """
    A message in its place in a conversation; what is made of it is made when it is asked for.

    Attributes:
        message: The message.
        parent: The one before it, or its identity.
    """

    message: Message
    parent: Entry | str | None
    _hash: str | None = field(default=None, repr=False)
    _content: str | None = field(default=None, repr=False)

    @classmethod
    def load(cls, identity: str, parent: str | None, content: str, details: str) -> Self:
        """Make the entry again from what a store has written of it."""
        from chatbridge.history.codec import load  # noqa: PLC0415 - cattrs takes time to import

        message = load(details, Message)
        if not message.parts:
            message = evolve(message, parts=load(content, Said).parts)
        return cls(message, parent, identity, content)

    @property
    def content(self) -> str:
        """What is said, in the form that all messages of that identity share."""
        if self._content is None:
            self._content = canonical(self.message)
        return self._content

    @property
    def details(self) -> str:
        """What belongs to this place alone: the server's id, times and the like."""
        from chatbridge.history.codec import dump  # noqa: PLC0415 - the same

        message = self.message
        if said_in(message).parts == message.parts:
            message = evolve(message, parts=())
        return dump(message, Message)

    @property
    def text(self) -> str:
        """Its text, for searching: without what UTF-8 or a database has no place for."""
        return self.message.text.encode(errors="replace").decode().replace("\0", " ")

    @property
    def before(self) -> str | None:
        """The identity of the message before it."""
        return self.parent.hash if isinstance(self.parent, Entry) else self.parent

    @property
    def hash(self) -> str:
        """Its identity."""
        waiting: list[Entry] = []
        entry: Entry | str | None = self
        while isinstance(entry, Entry) and entry._hash is None:  # noqa: SLF001 - its own
            waiting.append(entry)
            entry = entry.parent
        parent = entry._hash if isinstance(entry, Entry) else entry  # noqa: SLF001 - the same
        for each in reversed(waiting):
            parent = each._hash = identify(each.content, parent)  # noqa: SLF001 - the same
        return self._hash or ""


def said_in(message: Message) -> Said:
    """Tell what *message* says."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Reasoning) or (isinstance(part, Text) and not part.text):
            continue
        last = parts[-1] if parts else None
        if isinstance(part, Text) and isinstance(last, Text):
            parts[-1] = Text(last.text + part.text)
        else:
            parts.append(part)
    return Said(message.role, tuple(parts))


def canonical(message: Message) -> str:
    """Write what *message* says."""
    from chatbridge.history.codec import dump  # noqa: PLC0415 - the same

    return dump(said_in(message), Said)


def identify(content: str, parent: str | None) -> str:
    """Give the identity of a message that says *content* (in its canonical form) after *parent*."""
    return "b2:" + blake2b(f"{parent or ''}\n{content}".encode(), digest_size=32).hexdigest()


def entries_of(messages: Iterable[Message], parent: Entry | str | None) -> Iterator[Entry]:
    """Chain *messages* to *parent*, an entry or its identity."""
    for message in messages:
        parent = Entry(message, parent)
        yield parent
