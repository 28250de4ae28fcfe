"""
Tests of bots, written as what is said and what must be answered.

    await say("hello").expect("Hi!").say("my name is Ada").expect(re.compile("Ada")).run("fake:", bot)

or read from a file of plain text, whose form `chatbridge.testing.script` describes:

    await Dialogue.load("tests/greeting.dialogue").run(bridge, bot)

The same dialogue runs against the fake, a recording, an emulator or a live backend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import takewhile
from os import PathLike, fspath
from pathlib import Path
from typing import cast

from attrs import evolve, field, frozen

from chatbridge.errors import ChatbridgeError, UsageError
from chatbridge.testing import script
from chatbridge.testing.cues import Cue, cues
from chatbridge.testing.faults import Fault
from chatbridge.testing.mismatch import DialogueMismatch, Transcript
from chatbridge.testing.script import (
    BadScript,
    Expect,
    Expectation,
    Expected,
    ExpectError,
    ExpectStream,
    Fail,
    Say,
    Step,
    Switch,
)
from chatbridge.testing.stage import RECORDED, Answered, Bot, Partner, Speaker, Stage, Target

__all__ = [
    "RECORDED",
    "BadScript",
    "Bot",
    "Cue",
    "Dialogue",
    "DialogueMismatch",
    "Expected",
    "Fault",
    "Partner",
    "Target",
    "say",
]


@frozen
class Dialogue:
    """
    What is said and what must be answered; each method gives a longer dialogue.

    Attributes:
        source: The file that it was read from.
    """

    steps: tuple[Step, ...] = ()
    source: str | None = field(default=None, eq=False)

    def say(self, text: str) -> Dialogue:
        """Say *text*; without expectations behind it, any answer is right, but no error is."""
        return self._with(Say(text))

    def expect(self, answer: Expected) -> Dialogue:
        """Expect *answer*: the text itself, a pattern found in it, or a function that holds for it."""
        return self._with(Expect(answer))

    def expect_stream(self, *pieces: str | re.Pattern[str]) -> Dialogue:
        """
        Expect an answer that comes in *pieces*, blanks at their ends aside.

        A single one is the whole answer, in more than one piece. Before an expected error it is what came
        until then.
        """
        return self._with(ExpectStream(pieces))

    def expect_error(self, kind: type[Exception], match: str | re.Pattern[str] | None = None) -> Dialogue:
        """
        Expect an error of class *kind*, in whose text the pattern *match* is found.

        Without a bot, a doubt that is expected is waived, so that the dialogue can go on.
        """
        return self._with(ExpectError(kind, None if match is None else script.compiled(match)))

    def fault(self, fault: Fault | str) -> Dialogue:
        """
        Plan *fault*, or the one that a word such as "lost" stands for, for the next message.

        Several strike its attempts, one after another. One that strikes nothing is an error.
        """
        return self._with(Fail(fault if isinstance(fault, Fault) else Fault.parse(fault)))

    def switch(self, name: str) -> Dialogue:
        """Go on with the backend that `run` is given under *name*, or that a config string names."""
        return self._with(Switch(name))

    def _with(self, step: Step) -> Dialogue:
        return evolve(self, steps=(*self.steps, step))

    def __str__(self) -> str:
        return script.render(self.steps)

    @classmethod
    def parse(cls, text: str, source: str | None = None) -> Dialogue:
        """
        Read a dialogue from *text*, which is what `str` makes of it.

        Raises:
            BadScript: Naming the line at fault.
        """
        return cls(script.parse(text, source), source)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Dialogue:
        """
        Read a dialogue from a file.

        Raises:
            BadScript: Naming the line at fault.
            UsageError: The file cannot be read.
        """
        try:
            text = Path(path).read_bytes().decode("utf-8-sig")
        except OSError as error:
            problem = error.strerror or type(error).__name__
        except UnicodeDecodeError:
            problem = "it is not UTF-8"
        else:
            return cls.parse(text, fspath(path))
        raise UsageError(f"the dialogue {fspath(path)} cannot be read: {problem}")

    def cues(self) -> tuple[Cue, ...]:
        """
        Take the dialogue for a script that answers, as a fake backend may.

        Raises:
            BadScript: It has more than texts, or patterns, and the texts that are answered.
        """
        return cues(self.steps, self.source)

    async def run(
        self,
        target: Target,
        bot: Bot | None = None,
        *,
        backends: Mapping[str, Target] | None = None,
        partner: Partner | None = None,
        partners: Mapping[str, Partner] | None = None,
    ) -> None:
        """
        Hold the dialogue, up to the first step that goes otherwise.

        Args:
            target: A bridge, a config string that is opened for the run, or, without a bot, a chat.
            bot: What answers; without one the backend does, in one conversation for each bridge.
            backends: What `switch` goes on with, by name.
            partner: Where faults are planned if the backend itself cannot plan any: the emulator behind it,
                or `RECORDED`.
            partners: The same for *backends*, by name.

        Raises:
            DialogueMismatch: Something else was answered; its text is the transcript.
            UsageError: The dialogue cannot be held so: it expects an answer where nothing was said, for
                example, or nothing plans its faults. Its notes have the step, its line and what came before.
        """
        self._check()
        async with AsyncExitStack() as stack:
            stage = Stage(bot, stack, backends or {}, partners or {})
            await self._hold(stage, await stage.open(target, partner))

    def _check(self) -> None:
        """Refuse what cannot be held in this order."""
        answered = False
        problem = "nothing is said in it"
        step: Step | None = None
        for step in self.steps:
            if isinstance(step, Expectation) and not answered:
                raise BadScript("nothing was said that this could answer", line=step.line, source=self.source)
            if isinstance(step, Say) and not isinstance(step.text, str):
                problem = f"the pattern {step} can be answered by a script, but not said"
                raise BadScript(problem, line=step.line, source=self.source)
            if isinstance(step, Fail | Switch):
                problem = f"nothing is said behind the last step, {step}"
            answered = isinstance(step, Say | Expectation)
        if not answered:
            raise BadScript(problem, line=None if step is None else step.line, source=self.source)

    async def _hold(self, stage: Stage, speaker: Speaker) -> None:
        transcript, answer, faults = Transcript(self.source), Answered(), list[Fault]()
        for number, step in enumerate(self.steps, 1):
            if isinstance(step, Expectation):
                if not answer.keeps(step):
                    at = -1 if isinstance(step, ExpectError) else -len(answer.entries)
                    raise transcript.mismatch(number, step, at=at, text=answer.text) from answer.error
                if isinstance(step, ExpectError):
                    await speaker.waive(answer.error)
                continue
            transcript.add(step)
            try:
                if isinstance(step, Fail):
                    faults.append(step.fault)
                elif isinstance(step, Switch):
                    speaker = await stage.go_on(step.name)
                else:
                    answer = await self._say(number, speaker, faults, transcript)
                    faults.clear()
            except DialogueMismatch:
                raise
            except Exception as error:  # A mistake in the dialogue or in the bot.
                transcript.note(error, number, step)
                raise

    async def _say(
        self, number: int, speaker: Speaker, faults: Sequence[Fault], transcript: Transcript
    ) -> Answered:
        """Have what step *number* says answered; an error that no step expects ends the dialogue."""
        said, *behind = self.steps[number - 1 :]
        expected = list(takewhile(lambda step: isinstance(step, Expectation), behind))
        streamed = any(isinstance(step, ExpectStream) for step in expected)
        answer = await speaker.answer(cast(str, cast(Say, said).text), faults, streamed=streamed)
        for entry in answer.entries:
            transcript.add(entry)
        error_is_expected = any(isinstance(step, ExpectError) for step in expected)
        if answer.error is None or error_is_expected:
            return answer
        if isinstance(answer.error, ChatbridgeError):
            number, wanted = (number + 1, expected[0]) if expected else (number, said)
            raise transcript.mismatch(number, wanted, at=-1, text=answer.text) from answer.error
        raise answer.error


def say(text: str) -> Dialogue:
    """Begin a dialogue in which *text* is said first."""
    return Dialogue().say(text)
