"""
The deterministic partner that emulators and the fake backend answer with.

Its answers prove what the model was shown: each counts the turns and quotes the
message before, so a conversation can be checked by reading it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attrs import frozen

__all__ = ["Exchange", "Responder", "pieces", "respond"]


@frozen
class Exchange:
    """One earlier turn, as far as the model may see it."""

    said: str
    answered: str


Responder = Callable[[str, Sequence[Exchange]], str]
"""What answers a message: the text said, and the earlier turns that the model sees, oldest first."""


def respond(said: str, history: Sequence[Exchange]) -> str:
    """Answer *said*, counting the turns in *history* and quoting the last of them."""
    answer = f"Turn {len(history) + 1}: you said {said!r}."
    if history:
        answer += f" Before that you said {history[-1].said!r}."
    return answer


def pieces(text: str) -> list[str]:
    """Cut *text* into the pieces that a stream sends, a word and its space each; joined they are *text*."""
    return re.findall(r"\s*\S+|\s+\Z", text)
