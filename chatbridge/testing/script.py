r"""
The steps that dialogues consist of, and the plain text that they are written in.

    # A comment; empty lines mean nothing either.
    > hello
    < Hi!
    > my name is Ada
    < /Nice to meet you, \w+/
    ! lost
    > are you there?
    <! DeliveryUnknown /lost/
    @ other
    > tell me a story
    <| Once | upon a time

`>` is said, and `<` is what must be answered: the text itself, or between slashes a pattern that is searched
for in it. `<|` is an answer that must come in pieces, and `<!` an error, perhaps with a pattern for its text.
`!` plans a fault for the next message, `@` goes on with another backend. A line that begins with two blanks
continues the text above it. Blanks at the end of a line do not count.

A backslash before a text that begins with a blank, a slash or a backslash takes it as it is; one at the end
of a line keeps the blanks before it, so that an empty line within a text is two blanks and a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from attrs import field, frozen

from chatbridge import errors
from chatbridge.errors import UsageError
from chatbridge.testing.faults import Fault
from chatbridge.text import quoted

__all__ = [
    "BadScript",
    "Expect",
    "ExpectError",
    "ExpectStream",
    "Expectation",
    "Expected",
    "Fail",
    "Say",
    "Step",
    "Switch",
    "compiled",
    "parse",
    "render",
    "shown",
]

Expected = str | re.Pattern[str] | Callable[[str], bool]
"""What an answer must be: this text, one that the pattern is found in, or one that the function holds for."""

BLANKS = " \t\r"
BACKSLASH = "\\"
PROTECTED = re.compile(r"\\[ \t\r/\\]")
UNWRITTEN = "<?"
"""Marks what a file cannot say, such as a function; no step begins so."""
STEPS = (
    "> TEXT, < TEXT, < /PATTERN/, <| PIECE | PIECE, <! ERROR, ! FAULT, @ BACKEND, # COMMENT "
    "or a continuation line that begins with two blanks"
)


class BadScript(UsageError):
    """
    The text of a dialogue is wrong.

    Attributes:
        line: The number of the line at fault; None where the steps were made in code.
    """

    def __init__(self, problem: str, *, line: int | None, source: str | None = None) -> None:
        self.line = line
        where = "" if line is None else f"line {line} of "
        super().__init__(f"{where}{source or 'the dialogue'}: {problem}")


@frozen
class Step:
    """
    One line of a dialogue; as a string it is that line.

    Attributes:
        line: The number of the line in the text that it was read from.
    """

    line: int | None = field(default=None, eq=False, kw_only=True)


@frozen
class Say(Step):
    """The user says a text; a pattern stands for whatever it is found in, where a script answers."""

    text: str | re.Pattern[str]

    def __str__(self) -> str:
        return _lines(">", shown(self.text))


@frozen
class Expect(Step):
    """The answer is this."""

    answer: Expected

    def __str__(self) -> str:
        if not isinstance(self.answer, str | re.Pattern):
            return _lines(UNWRITTEN, getattr(self.answer, "__qualname__", repr(self.answer)))
        return _lines("<" if _writable(self.answer) else UNWRITTEN, shown(self.answer))


def _stripped(pieces: Iterable[str | re.Pattern[str]]) -> tuple[str | re.Pattern[str], ...]:
    return tuple(piece.strip() if isinstance(piece, str) else piece for piece in pieces)


@frozen
class ExpectStream(Step):
    """
    The answer comes in these pieces, or as this whole in more than one piece.

    Blanks at the ends of a piece do not count.
    """

    pieces: tuple[str | re.Pattern[str], ...] = field(converter=_stripped)

    def __attrs_post_init__(self) -> None:
        if not self.pieces or "" in self.pieces:
            raise UsageError("an answer that is streamed consists of pieces, none of them empty")

    def __str__(self) -> str:
        text = " | ".join(map(shown, self.pieces))
        same = all(map(_writable, self.pieces)) and _read_pieces(text) == self.pieces
        return _lines("<|" if same else UNWRITTEN, text)


@frozen
class ExpectError(Step):
    """The caller gets an error of this class, in whose text the pattern is found."""

    kind: type[Exception]
    match: re.Pattern[str] | None = None

    def __str__(self) -> str:
        match = self.match
        name = self.kind.__name__
        known = _error_named(name) is self.kind and (match is None or _writable(match))
        return _lines("<!" if known else UNWRITTEN, name if match is None else f"{name} {shown(match)}")


Expectation = Expect | ExpectStream | ExpectError
"""What may stand behind what is said."""


@frozen
class Fail(Step):
    """A fault strikes the next message."""

    fault: Fault

    def __str__(self) -> str:
        return _lines("!", self.fault.word or repr(self.fault))


@frozen
class Switch(Step):
    """Another backend goes on."""

    name: str

    def __attrs_post_init__(self) -> None:
        if not self.name or self.name != self.name.strip() or not self.name.isprintable():
            raise UsageError(f"a backend to go on with has a name of one line, and not {quoted(self.name)}")

    def __str__(self) -> str:
        return _lines("@", self.name)


def render(steps: Iterable[Step]) -> str:
    """Write *steps* down; what a file cannot say is shown in a line that `parse` refuses."""
    return "".join(f"{step}\n" for step in steps)


def parse(text: str, source: str | None = None) -> tuple[Step, ...]:
    """
    Read the steps that *text* consists of.

    Args:
        text: As the docstring of this module describes it.
        source: Where it comes from, for errors.

    Raises:
        BadScript: A line is wrong.
    """
    steps: list[Step] = []
    for number, marker, value in _entries(text, source):
        try:
            steps.append(_READERS[marker](value, number))
            continue
        except UsageError as error:
            problem = str(error)
        raise BadScript(problem, line=number, source=source)
    return tuple(steps)


def _entries(text: str, source: str | None) -> Iterator[tuple[int, str, str]]:
    """Give the number, the marker and the value of each entry, its lines put together."""

    def bad(line: int, problem: str) -> NoReturn:
        raise BadScript(problem, line=line, source=source)

    entry: tuple[int, str, str] | None = None
    for number, written in enumerate(text.split("\n"), 1):
        line = written.rstrip(BLANKS)
        if line.startswith("  "):
            if entry is None:
                bad(number, f"{quoted(line.strip())} continues nothing: no text stands right above it")
            if entry[1] in {"!", "@"}:
                bad(number, f"what follows {entry[1]} is one line")
            entry = (entry[0], entry[1], f"{entry[2]}\n{line[2:].removesuffix(BACKSLASH)}")
            continue
        if entry is not None:
            yield entry
            entry = None
        if not line or line.startswith("#"):
            continue
        marker = re.split("[ \t]", line, maxsplit=1)[0]
        if marker not in _READERS:
            bad(number, f"there is no step {quoted(line)}, only {STEPS}")
        entry = (number, marker, line[len(marker) :].lstrip(BLANKS).removesuffix(BACKSLASH))
    if entry is not None:
        yield entry


def _read_say(value: str, line: int) -> Step:
    return Say(_value(value), line=line)


def _read_expect(value: str, line: int) -> Step:
    return Expect(_value(value), line=line)


def _read_stream(value: str, line: int) -> Step:
    return ExpectStream(_read_pieces(value), line=line)


def _read_error(value: str, line: int) -> Step:
    name, _, match = value.partition(" ")
    kind = _error_named(name)
    if kind is None:
        known = [name for name in errors.__all__ if _error_named(name) is not None]
        raise UsageError(f"there is no error {quoted(name)}, only {', '.join(known)}")
    pattern = _value(match.strip()) if match.strip() else None
    if isinstance(pattern, str):
        raise UsageError(f"behind the error stands a /PATTERN/ for its text, and not {quoted(pattern)}")
    return ExpectError(kind, pattern, line=line)


def _read_fault(value: str, line: int) -> Step:
    return Fail(Fault.parse(value), line=line)


def _read_switch(value: str, line: int) -> Step:
    return Switch(value, line=line)


_READERS: dict[str, Callable[[str, int], Step]] = {
    ">": _read_say,
    "<": _read_expect,
    "<|": _read_stream,
    "<!": _read_error,
    "!": _read_fault,
    "@": _read_switch,
}


def _error_named(name: str) -> type[Exception] | None:
    found = getattr(errors, name, None) if name in errors.__all__ else None
    return found if isinstance(found, type) and issubclass(found, errors.ChatbridgeError) else None


def compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    """
    Compile *pattern*.

    Raises:
        UsageError: It is no regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        problem = str(error)
    raise UsageError(f"{quoted(str(pattern))} is no regular expression: {problem}")


def _value(written: str) -> str | re.Pattern[str]:
    """Read a text or a pattern."""
    if PROTECTED.match(written):
        return written[1:]
    return compiled(written[1:-1]) if _looks_like_pattern(written) else written


def shown(value: str | re.Pattern[str]) -> str:
    """Write a text or a pattern."""
    if isinstance(value, re.Pattern):
        return f"/{value.pattern}/"
    protect = value.startswith(tuple(BLANKS)) or PROTECTED.match(value) or _looks_like_pattern(value)
    return BACKSLASH + value if protect else value


def _looks_like_pattern(text: str) -> bool:
    return text.startswith("/") and text.endswith("/") and len(text) > 1


def _writable(value: str | re.Pattern[str]) -> bool:
    """Say whether *value* is the same when read back: flags are lost, but those in the pattern itself."""
    return isinstance(value, str) or value == compiled(value.pattern)


def _read_pieces(text: str) -> tuple[str | re.Pattern[str], ...]:
    return _stripped(_value(piece.strip()) for piece in re.split(r"(?<!\S)\|(?!\S)", text))


def _lines(marker: str, text: str) -> str:
    first, *rest = text.split("\n")
    head = f"{marker} {_ended(first)}" if first else marker
    return "\n".join([head, *(f"  {_ended(line) or BACKSLASH}" for line in rest)])


def _ended(line: str) -> str:
    """Protect the end of a line."""
    return line + BACKSLASH if line.endswith((*BLANKS, BACKSLASH)) else line
