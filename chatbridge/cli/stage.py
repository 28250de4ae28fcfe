"""How `chatbridge demo` looks: the dialogue as it happens, and the table at its end."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from chatbridge.backend import Feature
from chatbridge.cli.demo import Check, Prepare, demonstrate, takes_part
from chatbridge.cli.describe import STYLES, list_backends
from chatbridge.cli.features import draw_beside
from chatbridge.cli.output import Output, one_line
from chatbridge.registry import load_adapter
from chatbridge.testing.responder import pieces

__all__ = ["Stage", "perform", "results"]

INDENT = 12
"""Where what is said begins, behind who says it."""


@define
class Stage:
    """Shows a conversation line by line; answers appear as their pieces come."""

    output: Output
    _console: Console = field(init=False)
    _name: str = ""
    _column: int = 0

    def __attrs_post_init__(self) -> None:
        self._console = self.output.console()

    def begins(self, name: str, where: str) -> None:
        """Draw a line with the backend's name."""
        self._name = name
        self._console.print()
        self._console.print(Rule(Text(f"{name}: {where}"), align="left"))

    def asks(self, text: str) -> None:
        """Show the user's words."""
        self._line("you", text, "cyan")

    def answers(self, piece: str) -> None:
        """Show a piece of the answer, wrapped between words."""
        if not self._column:
            self._begin(self._name, "magenta")
        for word in pieces(one_line(piece)):
            if self._column + len(word.rstrip()) > self._console.width and self._column > INDENT:
                self._console.print()
                self._console.print(" " * INDENT, end="")
                self._column = INDENT
            shown = word.lstrip() if self._column == INDENT else word
            self._console.print(shown, end="", soft_wrap=True)
            self._column += len(shown)

    def answered(self) -> None:
        """End the line."""
        if self._column:
            self._console.print()
        self._column = 0

    def did(self, step: str, what: str) -> None:
        """Show what a step found."""
        self._line(step, what, "green")

    def failed(self, step: str, problem: str) -> None:
        """Show what a step found wrong."""
        self._line(step, f"FAILED: {problem}", "bold red")

    def _line(self, who: str, text: str, style: str) -> None:
        self._begin(who, style)
        self.answers(text)
        self.answered()

    def _begin(self, who: str, style: str) -> None:
        self._console.print(Text(f"{who:<{INDENT - 1}} ", style), end="")
        self._column = INDENT


async def perform(output: Output, prepare: Prepare | None = None) -> bool:
    """Show every backend that takes part; whether all that is claimed works, and nothing is broken."""
    stage = Stage(output)
    installed = list(list_backends())
    adapters = [load_adapter(listed.name) for listed in installed if listed.error is None]
    checks = [await demonstrate(adapter, stage, prepare) for adapter in adapters if takes_part(adapter)]
    results(checks, output)
    problems = [
        f"{listed.name} is broken: {listed.error}" for listed in installed if listed.error is not None
    ]
    for check in checks:
        problems += [
            f"{check.name} claims {feature.value}, which did not work: {problem}"
            for feature, problem in check.problems.items()
        ]
        problems += [
            f"{check.name} breaks a rule of the contract: {rule} {problem}"
            for rule, problem in check.broken.items()
        ]
    for problem in problems:
        output.note(f"chatbridge: {problem}")
    return not problems


def results(checks: Sequence[Check], output: Output) -> None:
    """Draw what each backend can do and whether it did."""
    features = [(feature.value, [_cell(check, feature) for check in checks]) for feature in Feature]
    facts = [
        ("turns", [Text(str(check.turns)) for check in checks]),
        ("time", [Text(f"{check.seconds:.2f} s") for check in checks]),
    ]
    draw_beside([check.name for check in checks], (features, facts), output)
    output.draw(Text("+ tried and found right   ! claimed, and did not work", style="dim"))


def _cell(check: Check, feature: Feature) -> Text:
    support = check.profile.support(feature)
    if feature in check.problems:
        return Text(f"{support.value} !", "bold red")
    return Text(f"{support.value}{' +' if feature in check.worked else ''}", STYLES[support])
