"""What bot authors write in their tests, as type checkers see it; it is checked, and never run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chatbridge import Message
from chatbridge.testing.answers import Heard
from chatbridge.testing.dialogue import Dialogue
from chatbridge.testing.fake import FakeBackend

TEXTS = {"hello": "Hi!"}
PIECES = {"hello": ["Hi", "!"]}
PATTERNS = {re.compile("my name is (.*)"): r"Hello, \1."}
FUNCTIONS = {str.isupper: "Do not shout."}
MIXED: dict[Heard, str] = {"hello": "Hi!", re.compile("bye"): "Bye.", str.isupper: "Do not shout."}
ONE_BY_ONE = ["Hi!", "Bye."]
ONE_BY_ONE_IN_PIECES = [["Hi", "!"], ["Bye."]]


def is_shout(said: str) -> bool:
    return said.isupper()


NAMED = {is_shout: "Do not shout."}


def count(messages: Sequence[Message]) -> str:
    return str(len(messages))


def fakes() -> list[FakeBackend]:
    return [
        FakeBackend(answers="Hi!"),
        FakeBackend(answers=TEXTS),
        FakeBackend(answers=PIECES),
        FakeBackend(answers=PATTERNS),
        FakeBackend(answers=FUNCTIONS),
        FakeBackend(answers=NAMED),
        FakeBackend(answers=MIXED),
        FakeBackend(
            answers={"hello": "Hi!", re.compile("bye"): ["By", "e."], lambda said: not said: "What?"}
        ),
        FakeBackend(answers=ONE_BY_ONE),
        FakeBackend(answers=ONE_BY_ONE_IN_PIECES),
        FakeBackend(answers=["Hi!", ["By", "e."]]),
        FakeBackend(answers=count),
        FakeBackend(answers=Dialogue.parse("> hello\n< Hi!").cues()),
    ]
