"""Where things are said: results on stdout, all else on stderr, nothing that a terminal would obey."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from types import TracebackType
from typing import Self

import click
from attrs import define
from rich.console import Console, RenderableType
from rich.status import Status

from chatbridge.cli.plain import Json
from chatbridge.errors import AnswerLost, ChatbridgeError, DeliveryUnknown, NotSent, Refused

__all__ = ["Output", "Waiting", "escaped", "one_line", "paragraph"]

# Controls, bidirectional overrides and lone surrogates; beside them, what ends a line.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_ENDS = re.compile(r"[\t\n\u2028\u2029]")

_ARRIVAL: dict[type[ChatbridgeError], str] = {
    DeliveryUnknown: "{it} may have arrived, and was not sent again",
    AnswerLost: "{it} arrived, and was not sent again; the answer is lost or incomplete",
    Refused: "Nothing{else_} was done",
    NotSent: "{it} did not arrive",
}


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def escaped(text: str) -> str:
    r"""Escape what controls a terminal, such as ``\x1b``; newlines and tabs stay."""
    return _CONTROLS.sub(_escape, text)


def one_line(text: str) -> str:
    """Escape what controls a terminal or ends a line."""
    return _LINE_ENDS.sub(_escape, escaped(text))


def paragraph(error: ChatbridgeError, hint: str = "") -> str:
    """Say what went wrong, what its notes tell of, whether the request arrived, and give a *hint*."""
    more: list[str] = [*getattr(error, "__notes__", [])]
    it, else_ = "It" if error.turn is None else "The message", " else" if more else ""
    # Where turn and outcome differ, no sending failed, but a look at what became of the message.
    if error.turn is None or error.turn.state.value == error.outcome.value:
        words = (words for kind, words in _ARRIVAL.items() if isinstance(error, kind))
        more += [each.format(it=it, else_=else_) for each in words]
    if not more:
        return f"{error}; {hint}" if hint else str(error)
    more += [hint] if hint else []
    sentences = (str(error), *(f"{said[:1].upper()}{said[1:]}" for said in more))
    return " ".join(f"{said.rstrip('.')}." for said in sentences)


class Waiting:
    """A spinner that appears after *moment* seconds, until the block ends or `done` is called."""

    def __init__(self, status: Status, moment: float) -> None:
        self._status = status
        self._timer = asyncio.get_running_loop().call_later(moment, status.start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.done()

    def done(self) -> None:
        """Take the spinner away, or never show it."""
        self._timer.cancel()
        self._status.stop()


@define
class Output:
    """
    How to speak to whoever runs the command.

    Attributes:
        debug: Show tracebacks.
        raw: Show what models and servers say as it is, controls included.
        moment: Seconds that something takes before its progress shows.
        terminal: Whether a person watches; None looks at the streams.
    """

    debug: bool = False
    raw: bool = False
    moment: float = 0.5
    terminal: bool | None = None

    @property
    def watched(self) -> bool:
        """Whether both streams end at a terminal."""
        return sys.stdout.isatty() and sys.stderr.isatty() if self.terminal is None else self.terminal

    @property
    def typed(self) -> bool:
        """Whether stdin is a terminal."""
        return sys.stdin.isatty() if self.terminal is None else self.terminal

    @property
    def interactive(self) -> bool:
        """Whether a person types and reads."""
        return self.typed and self.watched

    def write(self, text: str, end: str = "\n") -> None:
        """Write what a model or server said to stdout, at once."""
        # click takes controls out of what it pipes, unless told that they are wanted.
        click.echo((text if self.raw else escaped(text)) + end, nl=False, color=True)

    def row(self, *cells: str) -> None:
        """Write one line of tab-separated texts to stdout."""
        click.echo("\t".join(map(one_line, cells)))

    def json(self, value: Json) -> None:
        """Write one document to stdout, on one line of ASCII."""
        click.echo(json.dumps(value))

    def note(self, text: str) -> None:
        """Say on stderr, in one line, what is no result."""
        click.echo(one_line(text), err=True)

    def draw(self, *shown: RenderableType) -> None:
        """Draw on stdout, where it is piped without blanks at the ends of lines."""
        console = self.console()
        with console.capture() as captured:
            console.print(*shown, sep="\n")
        text = captured.get()
        if not self.watched:
            text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        click.echo(text, nl=False, color=True)

    def console(self) -> Console:
        """Make what draws tables on stdout."""
        return Console(force_terminal=self.terminal, markup=False, highlight=False, emoji=False)

    def waiting(self, what: str) -> Waiting:
        """Show on stderr that *what* is waited for, if someone watches and it takes longer than a moment."""
        console = Console(stderr=True, force_terminal=self.terminal, quiet=not self.watched)
        return Waiting(Status(what, console=console), self.moment)
