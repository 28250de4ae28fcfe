"""What the rules of the contract are made of: a bridge to try, hooks, and expectations."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from attrs import evolve, field, frozen

from chatbridge.backend import ChatBackend, Feature, Stores
from chatbridge.bridge import Bridge, connect
from chatbridge.chat import Chat
from chatbridge.domain import (
    Finished,
    Message,
    Part,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    Reply,
    Reset,
    Role,
    SendOptions,
    StreamEvent,
    Text,
    TextDelta,
)
from chatbridge.errors import ChatbridgeError, UnsupportedFeature, UsageError
from chatbridge.testing.faults import Fault
from chatbridge.turns import TurnState

__all__ = [
    "UNKNOWN",
    "Ask",
    "Checks",
    "NotApplicable",
    "OpenBackend",
    "Opened",
    "Partner",
    "Witness",
    "again",
    "blind",
    "both",
    "expect",
    "expect_equal",
    "expect_refused",
    "expect_refused_by",
    "fold",
    "said",
    "strict",
    "what_raises",
]

Opened = str | ChatBackend | AbstractAsyncContextManager[Bridge]
"""A backend under test: a config string, the backend itself, or a bridge to it, as `connect` gives."""

OpenBackend = Callable[[], Opened]
"""Opens a backend under test; each rule opens its own."""

UNKNOWN = "00000000-0000-4000-8000-000000000000"
"""An id that no conversation has."""

ErrorT = TypeVar("ErrorT", bound=Exception)


class NotApplicable(Exception):
    """A rule has nothing to say of a backend; the message says why."""


@runtime_checkable
class Partner(Protocol):
    """What stands behind a backend and fails as planned."""

    def fail(self, fault: Fault, /) -> object:
        """Plan *fault* for the next call."""
        ...

    @property
    def writes(self) -> int:
        """How many calls there were that were no reads."""
        ...


@runtime_checkable
class Witness(Partner, Protocol):
    """A partner that shows what it was told."""

    @property
    def heard(self) -> str:
        """All that the last call told it, as text."""
        ...


@frozen
class Ask:
    """What to send to have a certain kind of answer."""

    text: str
    options: SendOptions = field(factory=SendOptions)


def expect(holds: bool, problem: str) -> None:  # noqa: FBT001 - reads like `assert`
    """Raise AssertionError with *problem* unless it *holds*; `assert` would be gone under -O."""
    if not holds:
        raise AssertionError(problem)


def expect_equal(expected: object, found: object, what: str) -> None:
    """Raise AssertionError unless *what* is as *expected*."""
    expect(expected == found, f"{what}: expected {_short(expected)}, found {_short(found)}")


def expect_refused(kind: type[ErrorT], what: str, action: Callable[[], Any]) -> ErrorT:
    """
    Begin *action*, and raise AssertionError unless it raises *kind* before it waits for anything.

    *action* gives something to await, or to iterate over asynchronously.
    """
    try:
        begun = action()
        steps = (begun if hasattr(begun, "__await__") else anext(begun)).__await__()
        next(steps)
    except kind as refusal:
        return refusal
    except StopIteration:
        done = True
    except Exception as error:
        raise AssertionError(f"{what} must raise {kind.__name__}, not {_named(error)}") from error
    else:
        steps.close()
        done = False
    raise AssertionError(
        f"{what} must raise {kind.__name__} before any I/O, and it {'went through' if done else 'began I/O'}"
    )


async def what_raises(kind: type[ErrorT], what: str, action: Callable[[], Any]) -> ErrorT:
    """Run *action* to its end and give the *kind* that it raises; AssertionError if it does not."""
    try:
        begun = action()
        if hasattr(begun, "__aiter__"):
            async for _ in begun:
                pass
        else:
            await begun
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"{what} must raise {kind.__name__}, not {_named(error)}") from error
    raise AssertionError(f"{what} must raise {kind.__name__}, and it went through")


def strict(bridge: Bridge) -> Bridge:
    """Give a second bridge over the same backend that takes what cannot be honoured for an error."""
    return Bridge(bridge.api, options=evolve(bridge.options, strict=True), clock=bridge.clock)


def blind(bridge: Bridge) -> Bridge:
    """Give a second bridge over the same backend, which looks for nothing by itself, as that takes time."""
    return Bridge(bridge.api, options=evolve(bridge.options, settle_timeout=0.0), clock=bridge.clock)


def said(messages: Iterable[Message]) -> list[tuple[Role, str]]:
    """Say who said what."""
    return [(message.role, message.text) for message in messages]


def fold(events: Iterable[StreamEvent]) -> tuple[Part, ...]:
    """Put the parts of an answer together from its *events*; a text that stays empty is none."""
    parts: dict[int, Part] = {}
    for event in events:
        if isinstance(event, Reset):
            parts.clear()
        elif isinstance(event, PartAdded):
            parts[event.index] = event.part
        elif isinstance(event, TextDelta):
            before = parts.get(event.index)
            parts[event.index] = Text((before.text if isinstance(before, Text) else "") + event.text)
        elif isinstance(event, ReasoningDelta):
            before = parts.get(event.index)
            thought = before.text if isinstance(before, Reasoning) else ""
            parts[event.index] = Reasoning(thought + event.text)
    return tuple(parts[index] for index in sorted(parts))


def both(
    chat: Chat, options: SendOptions, message: str | Message = "Hello"
) -> list[Callable[[], Awaitable[object]]]:
    """Give both ways to have *message* answered."""
    return [lambda: chat.send(message, options), lambda: chat.stream(message, options).__aenter__()]


def again(value: Any) -> Any:  # noqa: ANN401 - whatever it was
    """Pickle *value* and read it again."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - made on this line


async def expect_refused_by(
    bridge: Bridge, kind: type[ErrorT], what: str, action: Callable[[], Any]
) -> ErrorT:
    """Expect the same of *action* that sends; a store that lasts is written to before it is refused."""
    if bridge.store.durable:
        return await what_raises(kind, what, action)
    return expect_refused(kind, what, action)


def _bridge(opened: Opened) -> AbstractAsyncContextManager[Bridge]:
    if isinstance(opened, str):
        return connect(opened)
    pending: object = opened
    if isinstance(pending, Coroutine):
        pending.close()
        raise UsageError("open_backend is a plain method, and no coroutine")
    return opened if isinstance(opened, AbstractAsyncContextManager) else Bridge(opened)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 500 else f"{text[:240]} ... {text[-240:]}"  # noqa: PLR2004 - a screen's worth


def _named(error: Exception) -> str:
    return f"{type(error).__name__} ({error})"


class Checks:
    """
    What all rules share.

    A subclass overrides the hooks where its backend does not answer as `chatbridge.testing.responder` does.

    Attributes:
        emulator: Where faults can be planned: the emulator that `open_backend` leads to. Without one, and
            where the backend is no fake, the rules for faults do not apply.
        TIDY: Whether the conversations that a rule has made are deleted behind it, where that can be done.
        PATIENCE: Seconds after which a rule that hangs has failed.
        MANY: How many conversations and messages are more than a page of any list holds.
        SAMPLES: A value for each field of `SendOptions` but `include` and `extra`; None where none is known
            that the API takes. The model that the backend was opened with goes before the one here.
        TOOL: A tool that the message "Ask weather please" has called, where tools are supported.
    """

    PATIENCE: float = 60.0
    MANY: int = 110
    TOOL: Mapping[str, Any] = {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {"type": "object"},
    }
    SAMPLES: Mapping[str, Any] = {
        "model": "a-model",
        "system": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.5,
        "max_output_tokens": 1000,
        "stop": ("\u00a7",),
        "seed": 7,
        "tools": (TOOL,),
        "tool_choice": "auto",
        "response_format": {"type": "text"},
    }

    TIDY: bool = False
    emulator: Partner | None = None

    def open_backend(self) -> Opened:
        """Open the backend under test; override this."""
        raise UsageError(f"{type(self).__name__} needs an open_backend, which opens the backend under test")

    async def conversation(self, bridge: Bridge) -> Chat:
        """Give an empty conversation; override this where the API cannot create one."""
        return await bridge.create()

    def unknown_id(self) -> str:
        """Give an id that no conversation has."""
        return UNKNOWN

    def quotes(self, answer: str, message: str) -> bool:
        """Tell whether *answer* shows that the model saw *message*, as the one answered or the one before."""
        return repr(message) in answer

    def about_documents(self) -> Mapping[str, Any]:
        """Give the `extra` of a creation after which answers rest on documents."""
        return {}

    def ask_to_reason(self) -> Ask | None:
        """Give what makes the model show its reasoning; None where nothing does."""
        return Ask("Think about it.")

    def ask_for_nothing(self) -> Ask | None:
        """Give what makes the model answer with an empty text; None where nothing does."""
        return None

    @asynccontextmanager
    async def bridge(self) -> AsyncGenerator[Bridge]:
        """Open a bridge for a rule; what escapes from it breaks it, unless nothing can be sent at all."""
        mute, patience = False, asyncio.timeout(self.PATIENCE)
        try:
            self._forget_faults()
            async with patience, _bridge(self.open_backend()) as bridge:
                mute = not bridge.profile.can(Feature.SEND)
                async with self._tidied(bridge):
                    yield bridge
        except (AssertionError, NotApplicable):
            raise
        except Exception as error:
            if patience.expired() and isinstance(error, TimeoutError):
                raise AssertionError(f"it takes longer than {self.PATIENCE:g} s") from None
            if (
                mute
                and isinstance(error, UnsupportedFeature)
                and error.feature in {Feature.SEND, Feature.STREAM}
            ):
                raise NotApplicable("it answers no messages") from error
            raise AssertionError(f"unexpected {_named(error)}") from error

    @asynccontextmanager
    async def _tidied(self, bridge: Bridge) -> AsyncGenerator[None]:
        """Delete what the block creates in the backend, if that is wanted and can be done."""
        if not self.TIDY or not bridge.profile.can(Feature.DELETE):
            yield
            return
        made: list[str] = []
        create = bridge.create

        async def creating(**given: Any) -> Chat:  # noqa: ANN401 - as the bridge takes it
            chat = await create(**given)
            made.append(chat.id)
            return chat

        setattr(bridge, "create", creating)  # noqa: B010 - the type's own is a method
        try:
            yield
        finally:
            for conversation_id in () if bridge.bounds.closed else made:
                with suppress(ChatbridgeError):
                    await bridge.backend.delete_conversation(conversation_id)

    def _forget_faults(self) -> None:
        """Let no fault outlive the rule that it was planned for."""
        planned = getattr(self.emulator, "faults", None)
        if isinstance(planned, list):
            cast("list[object]", planned).clear()

    def partner(self, bridge: Bridge) -> Partner:
        """
        Give where faults can be planned.

        Raises:
            NotApplicable: Nowhere.
        """
        if self.emulator is not None:
            return self.emulator
        if isinstance(bridge.api, Partner):
            return bridge.api
        raise NotApplicable("there is no emulator to plan faults with")

    def claims(
        self,
        bridge: Bridge,
        feature: Feature,
        by_bridge: Callable[[], Any],
        by_backend: Callable[[], Any] | None = None,
    ) -> bool:
        """
        Say whether *bridge* can do *feature*; where it or its backend cannot, the call must say so.

        Args:
            bridge: Whose profile is asked.
            feature: What is claimed or not.
            by_bridge: The call that needs it.
            by_backend: The same on the backend, where there is one.
        """
        for whose, profile, call in (
            ("the bridge", bridge.profile, by_bridge),
            ("the backend", bridge.backend.profile, by_backend),
        ):
            if call is not None and not profile.can(feature):
                what = f"{whose} of {profile.name}, whose profile has no {feature.value},"
                refusal = expect_refused(UnsupportedFeature, what, call)
                # Who cannot create or send at all may say that of whatever it was to be done with.
                lacking = {each for each in (Feature.CREATE, Feature.SEND) if not profile.can(each)}
                named = any(reason.value in refusal.feature for reason in {feature, *lacking})
                expect(named, f"{refusal} does not name {feature.value}")
                expect_equal(profile.name, refusal.provider, "the backend that the refusal names")
        return bridge.profile.can(feature)

    def stored(self, bridge: Bridge, turns: Iterable[tuple[str, Reply]]) -> list[tuple[Role, str]]:
        """Give the history that *turns* leave: who said what, nothing where none is stored."""
        if not self.remembers(bridge):
            return []
        return [turn for text, reply in turns for turn in ((Role.USER, text), (Role.ASSISTANT, reply.text))]

    def remembers(self, bridge: Bridge) -> bool:
        """Tell whether a history holds what was said: the API's, or the one that the bridge keeps."""
        return bridge.profile.stores is not Stores.NEVER or Feature.HISTORY in bridge.filling.features

    async def streamed(self, chat: Chat, text: str | Message, options: SendOptions | None = None) -> Reply:
        """Stream the answer to *text*, and check that its events say the same as the reply."""
        events: list[StreamEvent] = []
        async with chat.stream(text, options) as stream:
            events.extend([event async for event in stream])
        return self.finished(events)

    def finished(self, events: list[StreamEvent]) -> Reply:
        """Give the reply at the end of *events*, once they fold into it."""
        finished = [event for event in events if isinstance(event, Finished)]
        expect_equal(1, len(finished), "the number of Finished events")
        expect(events[-1] is finished[0], "Finished must be the last event")
        reply = finished[0].reply
        answers = [message for message in reply.messages if message.role is Role.ASSISTANT]
        parts = tuple(part for answer in answers for part in answer.parts if part != Text(""))
        expect_equal(parts, fold(events), "the parts that the events fold into")
        shown = "".join(part.text for part in fold(events) if isinstance(part, Text))
        expect_equal("".join(answer.text for answer in answers), shown, "the text of the deltas, joined")
        return reply

    async def sent(self, chat: Chat, text: str | Message, options: SendOptions | None = None) -> Reply:
        """Send *text*; the counterpart of `streamed`."""
        return await chat.send(text, options)

    async def waive(self, chat: Chat) -> None:
        """Let the next message go, whatever became of those before; none of them is still on its way."""
        for turn in await chat.turns():
            expect(turn.state is not TurnState.PENDING, "a message that nobody waits for is left as pending")
            await chat.waive(turn)
