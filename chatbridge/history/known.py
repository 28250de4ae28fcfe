"""What a store knows already, joined to what it is told now."""

from __future__ import annotations

from attrs import evolve

from chatbridge.domain import Conversation, Message, Reply
from chatbridge.errors import StoreError
from chatbridge.history.holders import is_gone
from chatbridge.history.rows import StoredConversation, TurnRow
from chatbridge.turns import Turn, TurnState

__all__ = ["check_answer", "check_holder", "died", "is_held", "merged", "settled"]


def is_held(kept: StoredConversation) -> bool:
    """Tell whether somebody who lives holds a conversation."""
    return kept.holder is not None and kept.held_for > 0 and not is_gone(kept.holder)


def died(row: TurnRow) -> TurnRow:
    """Put a turn in doubt whose process has died."""
    return evolve(row, turn=evolve(row.turn, state=TurnState.UNKNOWN))


def check_holder(turn: Turn, holder: str | None, wanted: str | None) -> None:
    """Refuse a *turn* that is about to begin where another than who is *wanted* is the holder."""
    if wanted is not None and holder != wanted and turn.state is TurnState.PENDING:
        raise StoreError(
            "the conversation was held for too long, and another process has taken it; try again",
            kind="locked",
        )


def check_answer(holder: str | None, wanted: str | None) -> None:
    """Refuse to add an answer to a conversation where another than who is *wanted* is the holder."""
    if wanted is not None and holder != wanted:
        raise StoreError(
            "the conversation was held for too long, and another process has gone on with it, or forgotten "
            "it: the message is not in it",
            kind="taken",
        )


def settled(
    known: Turn | None, turn: Turn, answer: Reply | None, sends: int
) -> tuple[Turn, tuple[Message, ...]]:
    """
    Join what is *known* of a turn and cannot be otherwise to what is told now; and give what is new.

    Who tells it knows of so many *sends* of its message, or of all if it is about to leave: what is known of
    later ones stays.
    """
    begins = turn.state is TurnState.PENDING
    if known is not None and not begins and known.sends > max(sends, turn.sends):
        earlier, said = settled(known.earlier, turn, answer, sends)
        return evolve(known, earlier=earlier), said
    waived = known is not None and known.waived and not begins
    while known is not None and known.sends > turn.sends:
        known = known.earlier  # It was sent again, which came to nothing.
    written = known is not None and known.state is TurnState.DELIVERED and known.sends == turn.sends
    if known is not None and written and turn.state is not TurnState.DELIVERED:
        turn = evolve(known, waived=turn.waived)
    if waived and not turn.waived:
        turn = evolve(turn, waived=True)
    if known is not None and known.sends == turn.sends and turn.earlier is not None:
        turn = evolve(turn, earlier=known.earlier)  # Of which more may have become known.
    answer = turn.reply if answer is None else answer
    if written or answer is None or turn.state is not TurnState.DELIVERED:
        return turn, ()
    return turn, (turn.message, *answer.messages)


def merged(old: Conversation, new: Conversation) -> Conversation:
    """Give what is told of a conversation now, with what was told before where it says nothing."""
    return evolve(
        new,
        title=old.title if new.title is None else new.title,
        system=old.system if new.system is None else new.system,
        created_at=new.created_at or old.created_at,
        updated_at=new.updated_at or old.updated_at,
        warnings=(),
    )
