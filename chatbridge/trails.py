"""What is known to be in each conversation of a bridge, of the many that were used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from chatbridge.domain import Message
from chatbridge.settling import Trail
from chatbridge.turns import Turn

__all__ = ["Trails"]


class Trails:
    """
    The trails of a bridge's conversations, those used last.

    Args:
        in_use: Tells of a conversation whether a message to it is under way; it is not forgotten then.
    """

    # How many conversations are remembered.
    KNOWN = 1000

    def __init__(self, in_use: Callable[[str], bool]) -> None:
        self._in_use = in_use
        # None of a conversation that could not be read whole: then an equal text may be an old one.
        self._trails: OrderedDict[str, Trail | None] = OrderedDict()

    def __contains__(self, conversation_id: object) -> bool:
        return conversation_id in self._trails

    def get(self, conversation_id: str) -> Trail | None:
        """Give what is known of a conversation."""
        return self._trails.get(conversation_id)

    def use(self, conversation_id: str) -> None:
        """Note that a conversation is used again."""
        self._trails.move_to_end(conversation_id)

    def remember(
        self, conversation_id: str, history: Sequence[Message] | None, doubtful: Sequence[Turn] = ()
    ) -> None:
        """
        Take in all that is in a conversation.

        Args:
            conversation_id: Which.
            history: Its messages; None if they cannot be read.
            doubtful: Turns whose messages may be among them.
        """
        trail = None if history is None else Trail.of(history)
        if trail is not None:
            for turn in doubtful:
                trail.doubt(turn)
        self._trails[conversation_id] = trail
        if len(self._trails) > self.KNOWN:
            oldest = next((each for each in self._trails if not self._in_use(each)), None)
            self.forget(oldest or conversation_id)

    def record(self, turn: Turn, before: Turn | None) -> None:
        """Take in that *turn* has changed."""
        trail = self._trails.get(turn.conversation_id)
        if trail is not None:
            trail.record(turn, before)

    def forget(self, conversation_id: str) -> None:
        """Drop what is known of a conversation."""
        self._trails.pop(conversation_id, None)
