"""
The identity of a message: a hash of what is said, and of the message before it.

What is said is the role and the parts, written by `codec.dump`: ids, times and names differ from server to
server and do not count. The hash is BLAKE2b with 32 bytes over the parent's hash (nothing for the first), a
line feed, and that text; `b2:` stands before it. Equal hashes therefore are equal histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from attrs import evolve, frozen

from chatbridge.domain import Message, Part, Role
from chatbridge.history.codec import dump, load

__all__ = ["Entry", "canonical", "entries_of", "identify"]


@frozen
class _Said:
    role: Role
    parts: tuple[Part, ...]


@frozen
class Entry:
    """
    A message in its place in a conversation.

    Attributes:
        hash: Its identity.
        parent: That of the message before it.
        content: What is said, which all messages of that identity share.
        details: What belongs to this place alone: the server's id, times and the like.
    """

    hash: str
    parent: str | None
    content: str
    details: str

    @property
    def message(self) -> Message:
        """The message, whole."""
        said = load(self.content, _Said)
        return evolve(load(self.details, Message), parts=said.parts)


def canonical(message: Message) -> str:
    """Write what *message* says."""
    return dump(_Said(message.role, message.parts), _Said)


def identify(content: str, parent: str | None) -> str:
    """Give the identity of a message that says *content* (in its canonical form) after *parent*."""
    return "b2:" + blake2b(f"{parent or ''}\n{content}".encode(), digest_size=32).hexdigest()


def entries_of(messages: Iterable[Message], parent: str | None) -> Iterator[Entry]:
    """Chain *messages* to the one whose identity is *parent*."""
    for message in messages:
        content = canonical(message)
        entry = Entry(identify(content, parent), parent, content, dump(evolve(message, parts=()), Message))
        yield entry
        parent = entry.hash
