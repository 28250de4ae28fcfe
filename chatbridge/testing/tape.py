"""The calls of a recording that are still to be made, and what is said to a program that makes others."""

from __future__ import annotations

from attrs import define, field

from chatbridge.errors import Phase, UsageError
from chatbridge.http.recording import Exchange, Recording
from chatbridge.testing.matching import Asked, Matcher, difference

__all__ = ["ReplayMismatch", "Tape", "called"]

_LONGEST = 500  # Characters of a message.


class ReplayMismatch(UsageError):
    """
    A call is not in the recording, or was made more often than there, or too early.

    Attributes:
        difference: What it has other than the call of the recording that is the most like it, line by line,
            a note, too; empty where there is none.
    """

    def __init__(self, message: str, *, difference: str = "") -> None:
        super().__init__(message, provider="replay")
        self.difference = difference
        if difference:
            self.add_note(difference)


@define(eq=False)
class Tape:
    """
    The calls of *recording* that are still to be made.

    Args:
        file: The name of the recording.
        matcher: Tells which of them a call is.

    Attributes:
        mismatch: The first of all that were made, as it may not come through to the program.
    """

    recording: Recording
    file: str
    matcher: Matcher
    mismatch: ReplayMismatch | None = field(default=None, init=False)
    _waiting: list[Exchange] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._waiting = list(self.recording.exchanges)

    def take(self, asked: Asked, now: float) -> Exchange:
        """
        Find the recorded call that *asked* is, and take it off.

        Raises:
            ReplayMismatch: There is none.
        """
        for index, exchange in enumerate(self._waiting):
            if self.matcher.matches(exchange, asked, now):
                del self._waiting[index]
                self.matcher.played(exchange)
                return exchange
        raise self._unlike(asked)

    def overtaken(self, exchange: Exchange) -> Exchange | None:
        """Give the first call still to be made that was answered before that of *exchange* began."""
        for each in self._waiting:
            if each.number > exchange.number:
                break
            if _reached_server(each) and each.at is not None and exchange.at is not None:
                begun = exchange.at.timestamp() - exchange.seconds
                if each.at.timestamp() < begun:
                    return each
        return None

    def missed(self) -> list[Exchange]:
        """Give the calls still to be made, but for those of which a replay may do without."""
        return [each for each in self._waiting if _reached_server(each)]

    def stray(self, problem: str, difference: str = "") -> ReplayMismatch:
        """Make the error for a program that strays."""
        shown = problem if len(problem) <= _LONGEST else f"{problem[: _LONGEST - 1]}…"
        mismatch = ReplayMismatch(shown, difference=difference)
        self.mismatch = self.mismatch or mismatch
        return mismatch

    def _unlike(self, asked: Asked) -> ReplayMismatch:
        problem = f"{asked.method} {asked.path} is not in the recording {self.file!r}"
        place = asked.path.partition("?")[0]
        alike = [
            each
            for each in self._waiting
            if (each.method, each.path.partition("?")[0]) == (asked.method, place)
        ]
        nearest = next(iter(alike or self._waiting), None)
        if nearest is None:
            count = len(self.recording.exchanges)
            return self.stray(f"{problem}: all {count} recorded calls were made already")
        lines = "\n".join(difference(nearest, asked))
        return self.stray(f"{problem}; the nearest that is left is call {called(nearest)}", lines)


def _reached_server(exchange: Exchange) -> bool:
    """Tell whether more came of a call than its caller giving up, or having no time to begin."""
    failure = exchange.failed()
    begun = failure is None or failure.phase not in {Phase.LOCAL, Phase.QUEUE}
    return begun and (exchange.status is not None or exchange.end != "left")


def called(exchange: Exchange) -> str:
    """Name a call."""
    return f"{exchange.number}, {exchange.method} {exchange.path}"
