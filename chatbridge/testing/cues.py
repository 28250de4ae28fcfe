"""A dialogue taken for a script: what is answered when something is said."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest

from attrs import frozen

from chatbridge.errors import UsageError
from chatbridge.testing.script import BadScript, Expect, ExpectStream, Say, Step, shown

__all__ = ["Cue", "cues"]

GROUP = r"\\([1-9][0-9]?)"


@frozen
class Cue:
    r"""
    What a script answers when something is said.

    Attributes:
        said: This text, or any in which the pattern is found.
        pieces: The answer, in the pieces that it is streamed in; a single one is streamed in any. Where
            *said* is a pattern, `\1` stands for what its first group found.
    """

    said: str | re.Pattern[str]
    pieces: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        if isinstance(self.said, re.Pattern):
            for group in re.findall(GROUP, "".join(self.pieces)):
                if int(group) > self.said.groups:
                    raise UsageError(f"{shown(self.said)} has no group {group}")

    def answer(self, said: str) -> tuple[str, ...] | None:
        """Give the pieces of the answer to *said*; None where something else is answered."""
        if isinstance(self.said, str):
            return self.pieces if self.said == said else None
        found = self.said.search(said)
        return None if found is None else tuple(_filled(piece, found) for piece in self.pieces)


def _filled(piece: str, found: re.Match[str]) -> str:
    """Put into *piece* what the groups of a pattern found."""
    return re.sub(GROUP, lambda reference: found[int(reference[1])] or "", piece)


def cues(steps: Iterable[Step], source: str | None = None) -> tuple[Cue, ...]:
    """
    Take *steps* for a script of what is answered, in its order.

    Raises:
        BadScript: They hold something else than texts and their answers, one each.
    """
    steps = tuple(steps)
    found: list[Cue] = []
    for said, answered in zip_longest(steps[::2], steps[1::2]):
        problem = f"a script consists of what is said and the text of its answer in turn, and not of {said}"
        if isinstance(said, Say):
            pieces = _pieces_of(answered)
            problem = f"{said} has no answer, but {answered}" if answered else f"{said} has no answer"
            try:
                if pieces is not None:
                    found.append(Cue(said.text, pieces))
                    continue
            except UsageError as error:
                problem = str(error)
        raise BadScript(problem, line=said.line, source=source)
    return tuple(found)


def _pieces_of(step: Step | None) -> tuple[str, ...] | None:
    """Give the text that *step* stands for, in its pieces; None where it is no text."""
    if isinstance(step, Expect) and isinstance(step.answer, str):
        return (step.answer,)
    if isinstance(step, ExpectStream):
        texts = [piece for piece in step.pieces if isinstance(piece, str)]
        if len(texts) == len(step.pieces):
            return (texts[0], *(f" {text}" for text in texts[1:]))
    return None
