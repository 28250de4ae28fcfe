"""What a fake says: by rule, from a list, from a script, or by a function of the whole conversation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

from attrs import evolve

from chatbridge.domain import Message, Role, ToolResult
from chatbridge.errors import UsageError
from chatbridge.testing.cues import Cue
from chatbridge.testing.responder import Exchange, respond
from chatbridge.text import quoted

__all__ = [
    "Answer",
    "Answers",
    "Given",
    "Heard",
    "NoAnswer",
    "Pieces",
    "Script",
    "as_answers",
    "as_text",
    "by_rule",
    "echo",
    "heard_in",
    "shown",
]


class NoAnswer(AssertionError):
    """
    A fake was asked what it was given no answer to.

    The test is at fault then, so it is no `ChatbridgeError`, which a bot may well catch.
    """


Pieces = Sequence[str]
"""A text in the pieces that it is streamed in."""

Answer = str | Pieces
"""A text, or the pieces that it is streamed in."""

Answers = Callable[[Sequence[Message]], Answer]
"""Answers the last of the messages, given all that the model sees."""

Heard = str | re.Pattern[str] | Callable[[str], bool]
"""A text, a pattern that is found in it, or a function that holds for it."""


@runtime_checkable
class Script(Protocol):
    """
    A mapping from what is said to what is answered.

    To type checkers, a `Mapping` whose keys are texts is none whose keys may be texts, patterns or functions.
    """

    def items(self) -> Iterable[tuple[Heard, Answer]]:
        """Give what is said with its answer, one by one."""
        ...


Given = str | Sequence[Answer] | Mapping[Heard, Answer] | Script | Sequence[Cue] | Answers
"""What answers are made of; see `as_answers`. `Mapping` types the functions in a literal."""


def heard_in(message: Message) -> str:
    """Give what *message* says: its text, or else what tools gave."""
    results = (part.content for part in message.parts if isinstance(part, ToolResult))
    return message.text or " ".join(results)


def by_rule(messages: Sequence[Message]) -> str:
    """Answer as the emulators do, counting the turns and quoting the message before, or results of tools."""
    *earlier, asked = messages
    return respond(heard_in(asked), _exchanges(earlier))


def echo(messages: Sequence[Message]) -> str:
    """Say the same again."""
    return heard_in(messages[-1])


def as_answers(given: Given | None) -> Answers:
    r"""
    Make the function that answers.

    Args:
        given: A text answers everything; a sequence is said one after another, each a text or the sequence
            of its pieces; a mapping answers by what is said: a text, a pattern found in it (then `\1` in the
            answer is what its first group found) or a function that holds for it, the first that fits; a
            function is given all messages. None answers by rule.

    Raises:
        UsageError: It is none of these, or a function is asynchronous. What is answered later raises
            `NoAnswer` where there is none.
    """
    if given is None:
        return by_rule
    if callable(given):
        _check_plain(given)
        return given
    if isinstance(given, str):
        return lambda _: given
    if isinstance(given, Script):
        return _by_script([_Entry(heard, answer) for heard, answer in given.items()])
    if isinstance(cast(object, given), Sequence):
        if given and all(isinstance(each, Cue) for each in given):
            return _by_script([_Entry(cue.said, cue.pieces) for cue in cast(Sequence[Cue], given)])
        return _in_turn(cast(Sequence[Answer], given))
    raise UsageError(f"answers are a text, a sequence, a mapping or a function, not a {type(given).__name__}")


def as_text(answer: Answer) -> tuple[str, Pieces]:
    """Give the text of an answer, and the pieces that were chosen for it, if there are several."""
    if isinstance(answer, str):
        return answer, ()
    chosen = tuple(answer)
    return "".join(chosen), chosen if len(chosen) > 1 else ()


def _in_turn(answers: Sequence[Answer]) -> Answers:
    rest: Iterator[Answer] = iter(tuple(answers))

    def answer(messages: Sequence[Message]) -> Answer:
        for each in rest:
            return each
        said = quoted(heard_in(messages[-1]))
        raise NoAnswer(f"the fake was given {len(answers)} answers, and has none left for {said}")

    return answer


class _Entry:
    """One line of a script."""

    def __init__(self, heard: Heard, answer: Answer) -> None:
        self.heard = heard
        pieces = (answer,) if isinstance(answer, str) else tuple(answer)
        self._pieces = pieces
        self._cue = Cue(heard, pieces) if isinstance(heard, str | re.Pattern) else None
        _check_plain(heard)

    def answer(self, said: str) -> Answer | None:
        if self._cue is not None:
            return self._cue.answer(said)
        holds = cast(Callable[[str], bool], self.heard)
        return self._pieces if holds(said) else None


def _check_plain(function: Heard | Answers) -> None:
    """Refuse a function that is asynchronous, whose results nobody would await."""
    for called in (function, getattr(function, "__call__", None)):  # noqa: B004 - an object's may be so as well
        if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
            raise UsageError(f"a fake takes plain functions, and {shown(function)} is an asynchronous one")


def _by_script(entries: Sequence[_Entry]) -> Answers:
    def answer(messages: Sequence[Message]) -> Answer:
        said = heard_in(messages[-1])
        for entry in entries:
            found = entry.answer(said)
            if found is not None:
                return found
        known = ", ".join(shown(entry.heard) for entry in entries) or "nothing"
        raise NoAnswer(f"the fake's script has no answer to {quoted(said)}; it answers {known}")

    return answer


def shown(heard: Heard | Answers) -> str:
    """Show what is to be heard, for messages."""
    if isinstance(heard, str):
        return quoted(heard)
    return f"/{heard.pattern}/" if isinstance(heard, re.Pattern) else getattr(heard, "__name__", "a function")


def _exchanges(messages: Iterable[Message]) -> list[Exchange]:
    """Pair each message of the user's with the answer behind it."""
    exchanges: list[Exchange] = []
    for message in messages:
        if message.role is Role.USER:
            exchanges.append(Exchange(message.text, ""))
        elif exchanges:
            exchanges[-1] = evolve(exchanges[-1], answered=message.text)
    return exchanges
