"""
One and the same conversation over every backend, then the contract: a check of all that profiles claim.

Nothing here knows an API: `Walk` uses what the bridge offers, and asks its profile what that is.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from attrs import define, field

from chatbridge.backend import ContextOwner, Feature, Profile
from chatbridge.bridge import Bridge, connect
from chatbridge.chat import Chat
from chatbridge.cli.rules import FEATURES, summary, try_rules
from chatbridge.domain import Conversation, Reply, Role
from chatbridge.errors import NotFound
from chatbridge.option_types import describe_options
from chatbridge.registry import Adapter
from chatbridge.testing import fake
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.contract import Result, taciturn
from chatbridge.testing.emulator import Emulator, serve

__all__ = ["Check", "Listener", "Prepare", "Walk", "demonstrate", "takes_part"]

TITLE, LATER_TITLE = "Kyoto in autumn", "Kyoto, with maples"
QUESTIONS = ("When do the maples turn?", "And the crowds?", "Where is it quiet?")
STREAMED = 1
"""Which of the questions has its answer streamed."""

Prepare = Callable[[Emulator], None]
"""What is done to an emulator before it is served, for tests that break it."""


class Listener(Protocol):
    """What follows a conversation as it happens."""

    def begins(self, name: str, where: str) -> None:
        """Show which backend comes on, and where it is."""
        ...

    def asks(self, text: str) -> None:
        """Show what the user says."""
        ...

    def answers(self, piece: str) -> None:
        """Show a piece of the answer."""
        ...

    def answered(self) -> None:
        """Note that the answer is complete, or broke off."""
        ...

    def did(self, step: str, what: str) -> None:
        """Show what a step found; it has the name of a feature, or is the contract."""
        ...

    def failed(self, step: str, problem: str) -> None:
        """Show what a step found wrong."""
        ...


@define
class Check:
    """
    What came of one backend.

    Attributes:
        worked: What was tried and found right.
        problems: What is claimed and did not work, and how that showed.
        broken: The rules of the contract that are broken and belong to nothing claimed, and how.
        turns: How many messages of the conversation were answered.
    """

    name: str
    profile: Profile
    worked: set[Feature] = field(factory=set[Feature])
    problems: dict[Feature, str] = field(factory=dict[Feature, str])
    broken: dict[str, str] = field(factory=dict[str, str])
    turns: int = 0
    seconds: float = 0.0

    def worked_well(self, feature: Feature) -> None:
        """Note that *feature* was tried and found right; once it was found wrong, it stays so."""
        if feature not in self.problems:
            self.worked.add(feature)

    def went_wrong(self, feature: Feature, problem: str) -> None:
        """Note that *feature* is claimed and did not work; its first problem is kept."""
        self.problems.setdefault(feature, problem)
        self.worked.discard(feature)


class _Unmet(Exception):
    """Something is not as the profile says."""


def _expect(holds: object, problem: str) -> None:
    if not holds:
        raise _Unmet(problem)


def takes_part(adapter: Adapter) -> bool:
    """Whether *adapter* can be shown without a server of somebody's."""
    return adapter.emulator is not None or adapter.name == fake.NAME


async def demonstrate(adapter: Adapter, listener: Listener, prepare: Prepare | None = None) -> Check:
    """Hold the conversation over *adapter*, then try the contract, against its emulator where it has one."""
    started = time.perf_counter()
    async with _reachable(adapter, prepare) as (open_bridge, where, emulator):
        listener.begins(adapter.name, where)
        async with open_bridge() as bridge:
            walk = Walk(bridge, listener)
            await walk.run()
        _judge(walk.check, await try_rules(adapter.name, open_bridge, emulator), listener)
    walk.check.seconds = time.perf_counter() - started
    return walk.check


def _judge(check: Check, results: Sequence[Result], listener: Listener) -> None:
    """Note and show what came of the rules; what is known to be wrong is not shown again."""
    listener.did("contract", summary(results))
    for result in results:
        feature = FEATURES.get(result.check)
        claimed = feature if feature is not None and check.profile.can(feature) else None
        if result.problem is None:
            if claimed is not None and result.skipped is None:
                check.worked_well(claimed)
        elif claimed is None:
            check.broken[result.rule] = result.problem
            listener.failed("contract", f"{result.rule} {result.problem}")
        else:
            if claimed not in check.problems:
                listener.failed(claimed, f"{result.rule} {result.problem}")
            check.went_wrong(claimed, result.problem)


@asynccontextmanager
async def _reachable(
    adapter: Adapter, prepare: Prepare | None
) -> AsyncGenerator[tuple[Callable[[], Bridge], str, Emulator | None]]:
    if adapter.emulator is None:
        yield partial(connect, f"{adapter.name}:"), "in this process", None
        return
    emulator: Emulator = adapter.load_emulator()(responder=taciturn)
    if prepare is not None:
        prepare(emulator)
    has_collections = "collection" in {info.name for info in describe_options(adapter.options, {})}
    # An answer has references only where there are documents.
    options = {"collection": "demo"} if has_collections else {}
    async with serve(emulator) as served:
        # No retry waits by that clock.
        yield partial(served.connect, clock=ManualClock(), **options), served.config, emulator


@define
class Walk:
    """
    The conversation over one backend, step by step; a step that fails is noted, and the next one taken.

    Attributes:
        said: What was said so far, question and answer in turn.
    """

    bridge: Bridge
    listener: Listener
    check: Check = field(init=False)
    said: list[tuple[Role, str]] = field(factory=list[tuple[Role, str]])
    replies: list[Reply] = field(factory=list[Reply])
    _chat: Chat | None = None

    def __attrs_post_init__(self) -> None:
        self.check = Check(self.profile.name, self.profile)

    @property
    def profile(self) -> Profile:
        """What is claimed."""
        return self.bridge.profile

    @property
    def chat(self) -> Chat:
        """The conversation."""
        if self._chat is None:
            raise _Unmet("there is no conversation")
        return self._chat

    async def run(self) -> None:
        """Take every step that the profile claims."""
        await self._step(Feature.CREATE, self._create)
        for number in range(len(QUESTIONS)):
            await self._step(
                Feature.STREAM if number == STREAMED and self._can(Feature.STREAM) else Feature.SEND,
                partial(self._turn, number),
            )
        for feature, step in {
            Feature.USAGE: self._usage,
            Feature.REFERENCES: self._references,
            Feature.GET: self._get,
            Feature.TITLE: self._title,
            Feature.LIST: self._list,
            Feature.HISTORY: self._history,
            Feature.RENAME: self._rename,
            Feature.DELETE: self._delete,
        }.items():
            await self._step(feature, step)

    def _extras(self) -> frozenset[str]:
        wanted = (Feature.REFERENCES, Feature.USAGE)
        return frozenset(feature.value for feature in wanted if self._can(feature))

    def _can(self, feature: Feature) -> bool:
        return self.profile.can(feature)

    async def _step(self, feature: Feature, step: Callable[[], Awaitable[str]]) -> None:
        if not self._can(feature):
            return
        try:
            what = await step()
        except Exception as error:  # noqa: BLE001 - whatever an adapter raises, its claim did not hold
            kind = "" if isinstance(error, _Unmet) else f"{type(error).__name__}: "
            self.check.went_wrong(feature, f"{kind}{error}")
            self.listener.failed(feature, f"{kind}{error}")
            return
        self.check.worked_well(feature)
        if what:
            self.listener.did(feature, what)

    async def _create(self) -> str:
        self._chat = await self.bridge.create(title=TITLE if self._can(Feature.TITLE) else None)
        return f"conversation {self.chat.id}"

    async def _turn(self, number: int) -> str:
        chat, question = self.chat, QUESTIONS[number]
        self.listener.asks(question)
        try:
            if number == STREAMED and self._can(Feature.STREAM):
                reply = await self._streamed(chat, question)
            else:
                reply = await chat.send(question, include=self._extras())
                self.listener.answers(reply.text)
        finally:
            self.listener.answered()
        _expect(question in reply.text, "the answer does not quote the question")
        if number and self.profile.context is not ContextOwner.NONE:
            _expect(QUESTIONS[number - 1] in reply.text, "the answer knows nothing of the turn before")
        self.said += [(Role.USER, question), (Role.ASSISTANT, reply.text)]
        self.replies.append(reply)
        self.check.turns += 1
        return ""

    async def _streamed(self, chat: Chat, question: str) -> Reply:
        pieces: list[str] = []
        async with chat.stream(question, include=self._extras()) as stream:
            async for piece in stream.text():
                pieces.append(piece)
                self.listener.answers(piece)
        whole = "".join(message.text for message in stream.reply.messages if message.role is Role.ASSISTANT)
        _expect("".join(pieces) == whole, "the pieces of the stream are not the reply")
        return stream.reply

    async def _usage(self) -> str:
        _expect(self.replies, "there is no answer")
        told = [reply for reply in self.replies if not any("usage" in each for each in reply.warnings)]
        totals = [None if reply.usage is None else reply.usage.total_tokens for reply in told]
        _expect(totals and None not in totals, "an answer does not say how many tokens it took")
        untold = "" if len(told) == len(self.replies) else "; the streamed answer does not tell it"
        return " + ".join(map(str, totals)) + f" tokens{untold}"

    async def _references(self) -> str:
        _expect(self.replies, "there is no answer")
        counts = [len(reply.message.references) for reply in self.replies]
        _expect(all(counts), "an answer has no references")
        return " + ".join(map(str, counts)) + " references"

    async def _get(self) -> str:
        asked = self.chat.id
        _expect((await self.chat.refresh()).id == asked, "another conversation was read")
        return "it can be read"

    async def _title(self) -> str:
        title = (await self._read_again()).title
        _expect(title == TITLE, f"the title is {title!r}")
        return TITLE

    async def _list(self) -> str:
        listed = await self._listed()
        _expect(self.chat.id in listed, "the conversation is not listed")
        return f"{len(listed)} in all, this one among them"

    async def _history(self) -> str:
        history = [(message.role, message.text) async for message in self.chat.messages()]
        _expect(history == self.said, f"the history is not what was said: {len(history)} messages")
        return f"{len(history)} messages, as they were said"

    async def _rename(self) -> str:
        renamed = await self.chat.rename(LATER_TITLE)
        _expect(renamed.title == LATER_TITLE, f"the title given back is {renamed.title!r}")
        title = (await self._read_again()).title
        _expect(title == LATER_TITLE, f"the title is still {title!r}")
        return LATER_TITLE

    async def _delete(self) -> str:
        chat = self.chat
        await chat.delete()
        try:
            if self._can(Feature.GET):
                await chat.refresh()
            elif self._can(Feature.HISTORY):
                _ = [message async for message in chat.messages()]
            elif chat.id not in await self._listed():
                return "done"
        except NotFound:
            return "done: it is not found any more"
        raise _Unmet("the conversation can still be read")

    async def _listed(self) -> list[str]:
        if not self._can(Feature.LIST):
            return []
        return [conversation.id async for conversation in self.bridge.conversations()]

    async def _read_again(self) -> Conversation:
        """Read the conversation as far as that can be done."""
        return await self.chat.refresh() if self._can(Feature.GET) else self.chat.conversation
