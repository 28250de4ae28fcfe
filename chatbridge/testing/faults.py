"""What can be planned to go wrong with a request to an emulator."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Literal

from attrs import field, frozen

from chatbridge.errors import UsageError
from chatbridge.testing.exchange import Kept
from chatbridge.text import quoted

__all__ = ["Fault", "phrase"]

WORDS = "lost, unsent, cut:PIECES, slow:SECONDS and statuses such as 429"


@frozen(kw_only=True)
class Fault:
    """
    What goes wrong with a request: at most one of *status*, *drop* and *cut_after*.

    Attributes:
        status: Answer with this status.
        body: The body of that answer, JSON unless *headers* say otherwise; None takes the API's error form.
        headers: Added to that answer.
        drop: Abort the connection instead of answering: before the request is processed, after it, or while
            the API is still at work, which then takes until *hold*.
        cut_after: Stop the answer after this many lines, or the fake's pieces; a stream of no more is whole.
            An answer that is no stream stops in its middle, with 0 before its beginning.
        cut: How it stops: the connection is aborted, ends as if all were said, or resumes after *hold*.
        error: The API's words: in the error body of *status*; with *cut_after*, in a line that ends the
            stream. An emulator's answer that is no stream becomes a 500, however many lines that is after,
            which chatbridge repeats where nothing can be doubled.
        kept: What a send leaves in the history. By default nothing with *status* and a drop before, the
            question with an error line, else the whole turn. Other operations know only nothing and all, and
            an API that stores a turn as a whole has no question alone.
        hold: The fault strikes only once this event is set; alone it delays processing.
        delay: Seconds, by the partner's clock, after which the fault strikes; alone it delays processing.
        reached: Set when the request waits for *hold*.
    """

    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str])
    drop: Literal["before", "after", "during"] | None = None
    cut_after: int | None = None
    cut: Literal["abort", "end", "resume"] = "abort"
    error: str | None = None
    kept: Kept | None = None
    hold: asyncio.Event | None = None
    delay: float = 0
    reached: asyncio.Event = field(factory=asyncio.Event, eq=False)

    def __attrs_post_init__(self) -> None:
        kinds = [kind for kind in (self.status, self.drop, self.cut_after) if kind is not None]
        if len(kinds) > 1:
            raise ValueError("a fault has one of status, drop and cut_after, not several")
        if self.status is None and (self.body is not None or self.headers):
            raise ValueError("body and headers belong to status")
        if self.error is not None and self.status is None and self.cut_after is None:
            raise ValueError("error belongs to status or cut_after")
        if self.drop == "before" and self.kept not in {None, "nothing"}:
            raise ValueError("a request dropped before processing leaves nothing")
        if not 0 <= self.delay < math.inf:
            raise ValueError("a delay is a number of seconds, and not negative")

    @staticmethod
    def parse(word: str) -> Fault:
        """
        Make the fault that *word* stands for.

        `lost` drops the connection once the message is stored, `unsent` before; `cut:10` ends a stream after
        ten pieces; `slow:60` takes a minute; three digits are the status of the answer.

        Raises:
            UsageError: It is no such word.
        """
        fault = _parsed(word)
        if fault is None:
            raise UsageError(f"there is no fault {quoted(word)}, only {WORDS}")
        return fault

    @property
    def word(self) -> str | None:
        """The word that `parse` makes it of; None where no word says it all."""
        kinds = {
            "lost": self.drop == "after",
            "unsent": self.drop == "before",
            f"cut:{self.cut_after}": self.cut_after is not None,
            f"slow:{self.delay:f}".rstrip("0").rstrip("."): self.delay > 0,
            f"{self.status}": self.status is not None,
        }
        words = [word for word, holds in kinds.items() if holds]
        return words[0] if len(words) == 1 and _parsed(words[0]) == self else None

    @property
    def cuts(self) -> bool:
        """Whether it keeps a part of the answer back for good."""
        return self.cut_after is not None and self.cut != "resume"

    @property
    def leaves(self) -> Kept:
        """What a send leaves in the history: *kept*, or its default."""
        if self.kept is not None:
            return self.kept
        if self.status is not None or self.drop == "before":
            return "nothing"
        return "turn" if self.error is None else "question"

    @property
    def words(self) -> str | None:
        """What the API says of it."""
        if self.error is not None:
            return self.error
        return None if self.status is None else phrase(self.status)

    async def wait(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Wait for *hold*, if there is one, and for *delay*."""
        if self.hold is not None:
            self.reached.set()
            await self.hold.wait()
        if self.delay:
            await sleep(self.delay)


def _parsed(word: str) -> Fault | None:
    if word in {"lost", "unsent"}:
        return Fault(drop="after" if word == "lost" else "before")
    if cut := re.fullmatch(r"cut:([0-9]{1,9})", word):
        return Fault(cut_after=int(cut[1]))
    if slow := re.fullmatch(r"slow:(?=.*[1-9])([0-9]{1,9}(?:\.[0-9]{1,6})?)", word):
        return Fault(delay=float(slow[1]))
    return Fault(status=int(word)) if re.fullmatch(r"[3-5][0-9]{2}", word) else None


def phrase(status: int) -> str:
    """Say *status* in HTTP's words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"
