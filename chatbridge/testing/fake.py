"""
A backend that lives in the process: every feature or those of a profile, answers and failures as planned.

    fake = FakeBackend(answers=["Hi!", "Bye."])  # keeps="nothing": as OpenAI's API, say
    async with fake.bridge() as bridge:
        fake.fail(Fault(drop="after"), operation="send", nth=2)
        ...
    fake.assert_sent("hello")

As a config string it is `fake:`, with the options of `FakeOptions`. Time is its own: nothing sleeps.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from attrs import evolve

from chatbridge.backend import Feature, Profile, SettleBy
from chatbridge.bridge import Bridge
from chatbridge.clock import Clock
from chatbridge.completing import is_kept_here
from chatbridge.config import BackendURL
from chatbridge.deliveries import OnTurn
from chatbridge.domain import (
    Conversation,
    Message,
    Reply,
    SendOptions,
    StreamEvent,
    TextDelta,
)
from chatbridge.errors import BadOption, ConfigError, Phase, RequestRefused, UsageError
from chatbridge.overflow import CONTEXT_LENGTH
from chatbridge.registry import Adapter, Defaults, InProcess, declared_profile
from chatbridge.retry import Failure, Kind
from chatbridge.structuring import structure_options
from chatbridge.testing.answers import Given, Heard, Pieces, as_answers, heard_in, shown
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.exchange import Kept
from chatbridge.testing.fake_options import NAME, FakeOptions, answers_of, faults_of
from chatbridge.testing.faults import Fault
from chatbridge.testing.line import MESSAGES, FakeCall, Line
from chatbridge.testing.memory import COMPLETIONS, EVERYTHING, MemoryBackend, events_of, words_in
from chatbridge.testing.pairs import unpaired
from chatbridge.text import quoted

__all__ = ["ADAPTER", "NAME", "FakeBackend", "FakeCall", "FakeCompletions", "FakeOptions", "Fault"]

T = TypeVar("T")

PROFILE = EVERYTHING

_Asked = tuple[tuple[Reply, Pieces], Fault]

_READS = frozenset({"get_conversation", "list_conversations", "list_messages"})
_OPERATIONS = (
    "create_conversation", "get_conversation", "list_conversations", "rename_conversation",
    "delete_conversation", "list_messages", *MESSAGES,
)  # fmt: skip


class FakeBackend(MemoryBackend):
    """
    A fake of any chat API.

    Args:
        options: What a config string would say; what is given beside it wins.
        place: The clock to live by, and who is told of attempts; by default a clock of its own, where waiting
            costs no time.
        answers: What it says, by `chatbridge.testing.answers.as_answers`.
        profile: What it can do, or the name or config string of a backend that it is like; by default it can
            do everything.
        given: Options of `FakeOptions` by their names, in place of those that *options* has.

    Attributes:
        options: The same.
        clock: The clock that it lives by.

    Raises:
        ConfigError: There is no such option or not with such a value, options contradict each other, or what
            they name is not there.
    """

    def __init__(
        self,
        options: FakeOptions | None = None,
        place: InProcess | None = None,
        *,
        answers: Given | None = None,
        profile: Profile | str | None = None,
        **given: Any,  # noqa: ANN401 - see FakeOptions
    ) -> None:
        self.options = _options_of(options, given)
        if isinstance(profile, str):
            profile = profile_like(profile)
        self.clock: Clock = ManualClock() if place is None else place.clock
        super().__init__(
            _profile_of(self.options, profile),
            as_answers(answers_of(self.options) if answers is None else answers),
            self.options.model,
        )
        hook = None if place is None else place.on_attempt
        self._line = Line(self.profile.name, self.options, self.clock, hook)
        self._line.faults += faults_of(self.options.fail)
        self._heard = ""

    def bridge(self, *, on_turn: OnTurn | None = None, **options: Any) -> Bridge:  # noqa: ANN401 - see CommonOptions
        """Open a bridge to this backend, on its clock; *options* are those of `CommonOptions`."""
        backend = self.completions if is_kept_here(self.profile) else self
        return Bridge(backend, options=evolve(self.options, **options), clock=self.clock, on_turn=on_turn)

    @property
    def calls(self) -> tuple[FakeCall, ...]:
        """Every call so far, oldest first; each attempt is one."""
        return tuple(self._line.calls)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The planned faults that have not struck."""
        return tuple(fault for _, _, fault in self._line.faults)

    @property
    def writes(self) -> int:
        """How many of the calls were no reads."""
        return sum(call.operation not in _READS for call in self._line.calls)

    @property
    def sent(self) -> tuple[str, ...]:
        """What went out, texts or what tools gave, once for each turn, as a tuple."""
        turns = {
            call.turn or call.number: heard_in(call.message)
            for call in self._line.calls
            if call.message is not None
        }
        return tuple(turns.values())

    @property
    def heard(self) -> str:
        """What the last message came with, where nothing is kept: options, and the texts of all messages."""
        return self._heard

    @property
    def conversations(self) -> Mapping[str, tuple[Message, ...]]:
        """The messages in each conversation, by its id."""
        return {name: tuple(kept.messages) for name, kept in self._kept.items()}

    def fail(
        self, fault: Fault | str, *, operation: str | None = None, times: int = 1, nth: int | None = None
    ) -> Fault:
        """
        Plan *fault*, or the one that a word such as "lost" stands for.

        Args:
            fault: What goes wrong.
            operation: The method of the backend that it strikes; "message" stands for `send` and `stream`.
            times: How many calls it strikes, one after another.
            nth: Which turn it strikes, counted from the first; by default the next call.

        Raises:
            UsageError: There is no such operation or word, or it would never strike.
        """
        if operation not in {None, "message", *_OPERATIONS}:
            known = ", ".join(("message", *_OPERATIONS))
            raise UsageError(f"a fake has no operation {quoted(str(operation))}, only {known}")
        operations = MESSAGES if operation == "message" else () if operation is None else (operation,)
        planned = fault if isinstance(fault, Fault) else Fault.parse(fault)
        if times < 1 or (nth is not None and nth <= self._line.count(operations)):
            behind = self._line.count(operations)
            when = f"{times} times" if nth is None else f"at turn {nth}, with {behind} behind us,"
            raise UsageError(f"a fault planned {when} would never strike")
        self._line.faults.extend([(operations, nth, planned)] * times)
        return planned

    def assert_sent(self, expected: Heard, *, times: int | None = None) -> None:
        """
        Check that a message went out, in any conversation.

        Args:
            expected: Its text, a pattern found in it, or a function that holds for it.
            times: How many such messages there were, if that is known.

        Raises:
            AssertionError: Showing what was sent.
        """
        found = sum(_holds(expected, text) for text in self.sent)
        if found != times if times is not None else not found:
            wanted = "once or more" if times is None else f"{times} times"
            sent = "".join(f"\n    {text!r}" for text in self.sent) or " nothing"
            raise AssertionError(
                f"expected {shown(expected)} to be sent {wanted}, and it was {found} times; sent was:{sent}"
            )

    def assert_nothing_sent(self) -> None:
        """
        Check that no message went out.

        Raises:
            AssertionError: Showing what was sent.
        """
        if self.sent:
            raise AssertionError(f"nothing was to be sent, and sent was: {', '.join(map(repr, self.sent))}")

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Make a conversation, beginning with *history*; it takes no `extra`."""
        self._check_creation(title, system, history, extra)
        create = partial(
            super().create_conversation, title=title, system=system, history=history, extra=extra
        )
        return await self._carry("create_conversation", None, Kind.CREATE, create)

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """Give a conversation."""
        self._need(Feature.GET)
        get = partial(super().get_conversation, conversation_id)
        return await self._carry("get_conversation", conversation_id, Kind.READ, get)

    def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield the conversations, the one that changed last first."""
        self._need(Feature.LIST)
        return self._each("list_conversations", None, super().list_conversations)

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a conversation another title."""
        self._need(Feature.RENAME)
        self._check_sendable(title)
        rename = partial(super().rename_conversation, conversation_id, title)
        return await self._carry("rename_conversation", conversation_id, Kind.WRITE, rename)

    async def delete_conversation(self, conversation_id: str) -> None:
        """Forget a conversation."""
        self._need(Feature.DELETE)
        delete = partial(super().delete_conversation, conversation_id)
        await self._carry("delete_conversation", conversation_id, Kind.WRITE, delete)

    def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages."""
        self._need(Feature.HISTORY)
        read = partial(
            super().list_messages, conversation_id, after=after, limit=limit, newest_first=newest_first
        )
        return self._each("list_messages", conversation_id, read)

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Answer *message*."""
        self._need(Feature.SEND)
        call = FakeCall(operation="send", conversation_id=conversation_id, message=message, options=options)
        return await self._whole(call, self._kind, partial(self._ask, call, message, options))

    def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answer *message* a word at a time, or in the pieces that were chosen."""
        self._need(Feature.STREAM)
        call = FakeCall(operation="stream", conversation_id=conversation_id, message=message, options=options)
        return self._pieces(call, self._kind, partial(self._ask, call, message, options))

    @property
    def completions(self) -> FakeCompletions:
        """The same fake as an API that keeps nothing."""
        return FakeCompletions(self)

    async def complete(self, messages: Sequence[Message], options: SendOptions) -> Reply:
        """Answer the last of *messages*, as an API that keeps nothing does."""
        call = FakeCall(operation="send", message=messages[-1], options=options)
        return await self._whole(call, Kind.COMPLETE, partial(self._complete, call, messages, options))

    def stream_completion(
        self, messages: Sequence[Message], options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answer the same in pieces."""
        call = FakeCall(operation="stream", message=messages[-1], options=options)
        return self._pieces(call, Kind.COMPLETE, partial(self._complete, call, messages, options))

    async def close(self) -> None:
        """End what is under way, and keep everything, so that a test can still look."""
        await self._line.close()

    async def _whole(self, call: FakeCall, kind: Kind, ask: Callable[[], Awaitable[_Asked]]) -> Reply:
        started = self.clock.now()
        (reply, _), fault = await ask()
        if fault.cut_after is not None:
            await fault.wait(self.clock.sleep)
        if fault.cut_after is not None and fault.cut != "resume":
            raise self._line.error(call, kind, _broken(fault, Phase.BODY), started)
        return reply

    async def _pieces(
        self, call: FakeCall, kind: Kind, ask: Callable[[], Awaitable[_Asked]]
    ) -> AsyncGenerator[StreamEvent, None]:
        started, count = self.clock.now(), 0
        (reply, chosen), fault = await ask()
        for event in events_of(reply, chosen):
            if isinstance(event, TextDelta):
                count += 1
            if fault.cut_after is not None and count > fault.cut_after:
                await fault.wait(self.clock.sleep)
                if fault.cut != "resume":
                    raise self._line.error(call, kind, _broken(fault, Phase.EVENTS), started)
                fault = Fault()
            yield event

    @property
    def _kind(self) -> Kind:
        return Kind.SEND_WITH_KEY if SettleBy.KEY in self.profile.settle_by else Kind.SEND

    async def _ask(self, call: FakeCall, message: Message, options: SendOptions) -> _Asked:
        """Have a message answered, and store what it leaves behind."""
        self._check_message(message, options)
        conversation_id = call.conversation_id or ""

        async def answer() -> tuple[Reply, Pieces]:
            return self._answer(conversation_id, message, options)

        def keep(kept: Kept, answered: tuple[Reply, Pieces]) -> None:
            if kept != "nothing":
                self._keep(conversation_id, message, answered[0] if kept == "turn" else None)

        return await self._line.carry(call, self._kind, answer, keep, self.options.delay)

    async def _complete(self, call: FakeCall, messages: Sequence[Message], options: SendOptions) -> _Asked:
        """Have the last of *messages* answered, if they are not too many."""
        self._check_message(messages[-1], options)
        warnings = unpaired(messages, self.profile.name)
        self._heard = "\n".join((repr(options), *map(heard_in, messages)))

        async def answer() -> tuple[Reply, Pieces]:
            self._check_length(messages)
            reply, chosen = self._reply(messages, options)
            return evolve(reply, warnings=warnings), chosen

        return await self._line.carry(call, Kind.COMPLETE, answer, pause=self.options.delay)

    def _check_length(self, messages: Sequence[Message]) -> None:
        """Refuse what is longer than the model takes."""
        window, words = self.options.window, words_in(messages)
        if window is not None and words > window:
            raise RequestRefused(
                f"the model takes {window} words, and the conversation has {words}",
                provider=self.profile.name,
                status=400,
                code=CONTEXT_LENGTH,
                from_api=True,
            )

    async def _carry(
        self, operation: str, conversation_id: str | None, kind: Kind, work: Callable[[], Awaitable[T]]
    ) -> T:
        call = FakeCall(operation=operation, conversation_id=conversation_id)
        result, _ = await self._line.carry(call, kind, work)
        return result

    async def _each(
        self, operation: str, conversation_id: str | None, items: Callable[[], AsyncIterator[T]]
    ) -> AsyncGenerator[T, None]:
        async def read() -> list[T]:
            return [item async for item in items()]

        for item in await self._carry(operation, conversation_id, Kind.READ, read):
            yield item


class FakeCompletions:
    """A fake as an API that keeps nothing, a `CompletionBackend`; `FakeBackend.completions` gives it."""

    def __init__(self, fake: FakeBackend) -> None:
        self.fake = fake

    @property
    def profile(self) -> Profile:
        """What it can do."""
        return self.fake.profile

    async def complete(self, messages: Sequence[Message], options: SendOptions) -> Reply:
        """Answer the last of *messages*."""
        return await self.fake.complete(messages, options)

    def stream(self, messages: Sequence[Message], options: SendOptions) -> AsyncGenerator[StreamEvent, None]:
        """Answer the same in pieces."""
        return self.fake.stream_completion(messages, options)

    @property
    def heard(self) -> str:
        """What the last message came with."""
        return self.fake.heard

    @property
    def writes(self) -> int:
        """How many calls there were."""
        return self.fake.writes

    def fail(self, fault: Fault | str) -> Fault:
        """Plan *fault* for the next call."""
        return self.fake.fail(fault)

    async def close(self) -> None:
        """Close the fake."""
        await self.fake.close()


def _broken(fault: Fault, phase: Phase) -> Failure:
    """Say how an answer ends that *fault* cuts."""
    if fault.error is not None:
        reason = "the API reported a failure inside its answer"
        return Failure(phase, reason, kind="provider", from_api=True, excerpt=fault.error)
    ended = fault.cut == "end" and phase is Phase.EVENTS
    return Failure(phase, "it ended without its end mark" if ended else "the answer broke off", kind="cut")


def _profile_of(options: FakeOptions, profile: Profile | None = None) -> Profile:
    """Give what a fake with these *options* can do; a *profile* given beside them goes before theirs."""
    if options.keeps == "nothing" and (profile is not None or options.profile is not None):
        raise ConfigError(f"{NAME}: profile and keeps each say what it can do: give one", provider=NAME)
    if profile is None:
        if options.profile is not None:
            profile = profile_like(options.profile)
        else:
            profile = COMPLETIONS if options.keeps == "nothing" else PROFILE
    if options.window is not None and not is_kept_here(profile):
        raise BadOption(
            backend=NAME,
            option="window",
            problem="would have no effect: it is of an API that keeps nothing, as with keeps=nothing",
        )
    return profile


def _options_of(options: FakeOptions | None, given: Mapping[str, object]) -> FakeOptions:
    """Give *options* with those that are *given* by name in place of their own."""
    read = structure_options(FakeOptions, {}, given, backend=NAME, env={}, environ={})
    return read if options is None else evolve(options, **{name: getattr(read, name) for name in given})


def profile_like(text: str) -> Profile:
    """Give the profile of the backend that a name or config string stands for."""
    return declared_profile(BackendURL.parse(text if ":" in text else f"{text}:"))


def _holds(expected: Heard, text: str) -> bool:
    if isinstance(expected, str):
        return expected == text
    return expected.search(text) is not None if isinstance(expected, re.Pattern) else expected(text)


def _open(options: FakeOptions, place: InProcess) -> FakeBackend | FakeCompletions:
    fake = FakeBackend(options, place)
    return fake.completions if is_kept_here(fake.profile) else fake


def profile(options: FakeOptions | None = None) -> Profile:
    """Tell what the fake can do: everything, or what the backend can that it is like."""
    return _profile_of(FakeOptions() if options is None else options)


ADAPTER = Adapter(
    NAME,
    "A backend in this process, for tests and trials",
    options=FakeOptions,
    profile=profile,
    open=_open,
    defaults=Defaults(model_option="model", in_process=True),
    clock=ManualClock,
)
