"""How a dialogue went, and where it went otherwise than it should have."""

from __future__ import annotations

from difflib import SequenceMatcher

from chatbridge.testing.responder import pieces
from chatbridge.testing.script import Expect, Say, Step
from chatbridge.text import printable

__all__ = ["DialogueMismatch", "Transcript"]

LONG = 60
LONGEST = 2000
AROUND = 4


class DialogueMismatch(AssertionError):
    """
    A dialogue went otherwise; the text is its transcript, with the line that differs marked.

    Attributes:
        step: The number of the step that was not kept, from 1 on.
        line: The number of its line in the file; None where the dialogue was made in code.
    """

    def __init__(self, message: str, step: int, line: int | None = None) -> None:
        super().__init__(message, step, line)
        self.step = step
        self.line = line

    def __str__(self) -> str:
        return str(self.args[0])


class Transcript:
    """What was said and answered so far, line by line."""

    def __init__(self, source: str | None = None) -> None:
        self._source = source
        self._entries: list[str] = []

    def __str__(self) -> str:
        return "\n".join(self._entries)

    def add(self, entry: object) -> None:
        """Add a step, or what came of it."""
        self._entries.append(_fit(str(entry)))

    def note(self, error: Exception, number: int, step: Step) -> None:
        """Note on *error* that step *number* led to it, and what came before."""
        error.add_note(f"at {self._place(number, step)}:\n{self}")

    def mismatch(self, number: int, step: Step, *, at: int, text: str) -> DialogueMismatch:
        """
        Say that a step was not kept.

        Args:
            number: The step's, from 1 on.
            step: What was expected; what was said, where any answer was.
            at: The index of the entry that is otherwise, from the end.
            text: What was answered.
        """
        expected = "any answer" if isinstance(step, Say) else _fit(str(step))
        found = self._entries[at]
        marked = {len(self._entries) + at: "=> "}
        lines = [
            f"{self._place(number, step)}: something else was answered",
            "",
            *(_indented(entry, marked.get(index, "   ")) for index, entry in enumerate(self._entries)),
            "",
            _indented(expected, "expected: "),
            _indented(found, "found:    "),
        ]
        if isinstance(step, Expect) and isinstance(step.answer, str) and len(step.answer + text) > 2 * LONG:
            lines.append(_indented(_fit(differences(step.answer, text)), "changed:  "))
        return DialogueMismatch("\n".join(lines), number, step.line)

    def _place(self, number: int, step: Step) -> str:
        line = "" if step.line is None else f", line {step.line} of {self._source or 'the dialogue'}"
        return f"step {number}{line}"


def differences(expected: str, found: str) -> str:
    """Show word by word where the texts differ, as ``[-expected-]{+found+}``, and what is around it."""
    old, new = pieces(expected), pieces(found)
    matcher = SequenceMatcher(None, old, new)
    shown: list[str] = []
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind == "equal":
            same = old[start:end]
            if len(same) > 2 * AROUND:
                same = [*same[:AROUND], " ...", *same[-AROUND:]]
            shown += same
            continue
        gone, come = "".join(old[start:end]), "".join(new[first:last])
        shown += [f"[-{gone}-]"] * bool(gone) + [f"{{+{come}+}}"] * bool(come)
    return "".join(shown)


def _fit(text: str) -> str:
    """Make *text* fit for a terminal, the middle left out where it is long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "\n".join(map(printable, text.split("\n")))


def _indented(text: str, first: str) -> str:
    """Put *first* before the first line of *text*, and as many blanks before the others."""
    return first + text.replace("\n", "\n" + " " * len(first))
