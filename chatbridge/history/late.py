"""Answers that were found by reading a conversation back, when more may have been written down of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import dropwhile

from chatbridge.domain import Message
from chatbridge.history.chain import Entry, canonical
from chatbridge.turns import Turn, TurnState

__all__ = ["to_be_added"]


def to_be_added(
    said: tuple[Message, ...], turn: Turn, turns: Sequence[Turn], last: Sequence[Entry]
) -> tuple[Message, ...]:
    """
    Give what of a message and its answer belongs at the end of a history.

    Nothing, where later messages were answered already: it belongs before them, and a comparison with the API
    puts it there. And not what such a comparison has brought, of which no turn has the id.

    Args:
        said: The message of *turn*, and the answer to it.
        turn: What is known of the message.
        turns: All of the conversation, oldest first.
        last: As many messages from the end of the history.
    """
    later = list(dropwhile(lambda each: each.id != turn.id, turns))[1:]
    if any(each.state is TurnState.DELIVERED for each in later):
        return ()
    sent = {each.id for each in turns}
    for count in range(len(said), 0, -1):
        there = last[-count:]
        contents = [canonical(message) for message in said[:count]]
        if [entry.content for entry in there] == contents and there[0].message.id not in sent:
            return said[count:]
    return said
