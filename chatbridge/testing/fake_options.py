"""What the fake can be told in a config string, and what that means."""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen, validators

from chatbridge.errors import BadOption, ConfigError, UsageError
from chatbridge.options import CommonOptions, option
from chatbridge.testing.answers import Given, echo
from chatbridge.testing.dialogue import Dialogue
from chatbridge.testing.faults import Fault
from chatbridge.testing.line import MESSAGES
from chatbridge.text import quoted

__all__ = ["NAME", "FakeOptions", "answers_of", "faults_of"]

NAME = "fake"

_PLAN = re.compile(r"(?P<word>[^@*]+)(?:\*(?P<times>[1-9][0-9]{0,3}))?(?:@(?P<nth>[1-9][0-9]{0,5}))?")


@frozen(kw_only=True)
class FakeOptions(CommonOptions):
    """What the fake can be told."""

    model: str = option("The model that it claims to be.", default="fake-model")
    reply: str | None = option(
        "The answer to everything, in place of the usual one.", default=None, empty=True
    )
    echo: bool = option("Answer with what was said.", default=False)
    script: str | None = option(
        "A file of what is said and what is answered, written as a dialogue.", default=None
    )
    profile: str | None = option(
        "A backend, by its name or config string, that it is like: it has the features of that one.",
        default=None,
    )
    keeps: Literal["conversations", "nothing"] = option(
        "What it keeps; an API that keeps nothing is given the whole conversation with each message.",
        default="conversations",
    )
    window: int | None = option(
        "How many words a conversation may have, if nothing is kept.",
        default=None,
        validator=validators.optional(validators.ge(1)),
    )
    fail: str | None = option(
        "What goes wrong with messages, with commas: lost, unsent, cut:PIECES, slow:SECONDS or a status; "
        "429*2 strikes twice, lost@3 the third message.",
        default=None,
    )
    delay: float = option("Seconds, of its own time, that each answer takes.", default=0.0)


def answers_of(options: FakeOptions) -> Given | None:
    """Say what the answers are made of by the *options*, of which one may be given."""
    given = {
        "reply": options.reply,
        "echo": echo if options.echo else None,
        "script": options.script,
    }
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise ConfigError(f"{NAME}: {' and '.join(chosen)} are each an answer to everything: give one")
    if options.script is None:
        return given[chosen[0]] if chosen else None
    try:
        return Dialogue.load(options.script).cues()
    except UsageError as error:
        problem = str(error)
    raise BadOption(backend=NAME, option="script", problem=f"is no script: {problem}", shown=options.script)


def faults_of(text: str | None) -> list[tuple[tuple[str, ...], int | None, Fault]]:
    """Read the option `fail`."""
    plan: list[tuple[tuple[str, ...], int | None, Fault]] = []
    for entry in text.split(",") if text else ():
        match = _PLAN.fullmatch(entry)
        try:
            if match is None:
                raise UsageError("it is not of the form FAULT, FAULT*TIMES or FAULT@NUMBER")
            fault, nth = Fault.parse(match["word"]), match["nth"]
        except UsageError as error:
            problem = f"has {quoted(entry)}: {error}"
        else:
            plan += [(MESSAGES, int(nth) if nth else None, fault)] * int(match["times"] or 1)
            continue
        raise BadOption(backend=NAME, option="fail", problem=problem)
    return plan
