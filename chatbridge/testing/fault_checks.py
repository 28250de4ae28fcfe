"""The rules of the contract for what goes wrong on the way: deliveries, doubt, errors, connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal

from chatbridge.backend import ContextOwner, Feature, SettleBy
from chatbridge.bridge import Bridge
from chatbridge.chat import Chat
from chatbridge.domain import Reply, Role
from chatbridge.errors import (
    AuthFailed,
    ChatbridgeError,
    NotFound,
    NotSent,
    Outcome,
    Phase,
    Refused,
    RequestRefused,
    UnsettledTurn,
    UnsupportedFeature,
)
from chatbridge.retry import Failure, outcome_of
from chatbridge.testing.checking import (
    Checks,
    NotApplicable,
    Partner,
    blind,
    expect,
    expect_equal,
    expect_refused,
    said,
    what_raises,
)
from chatbridge.testing.faults import Fault
from chatbridge.turns import TurnState

__all__ = ["FaultChecks"]

_HARMLESS = frozenset({Outcome.NOT_SENT, Outcome.REFUSED})
_STATUSES = (300, 302, 307, 400, 401, 402, 403, 404, 405, 410, 413, 415, 422, 451, 501, 502, 503, 504, 599)
"""Statuses after which no message is sent again."""


_BREAKS = (
    Fault(drop="before"),
    Fault(drop="after"),
    Fault(status=200, body=b'{"cut', kept="turn"),
    # What stands in front of the API has lost its patience.
    Fault(status=504, body=b"<html>gateway</html>", headers={"Content-Type": "text/html"}, kept="turn"),
    Fault(cut_after=0),
    Fault(cut_after=0, cut="end"),
)
_CLASSES: Mapping[int, type[ChatbridgeError]] = {
    401: AuthFailed,
    403: AuthFailed,
    404: NotFound,
    400: Refused,
}
# There is no conversation that could be missing.
_CLASSES_OF_COMPLETIONS: Mapping[int, type[ChatbridgeError]] = {**_CLASSES, 404: RequestRefused}
_OVER = frozenset({TurnState.NOT_SENT, TurnState.REFUSED})


class FaultChecks(Checks):
    """Rules that need a partner to plan faults with."""

    async def check_lost_answers(self) -> None:
        """Send a message or a creation once even if its answer is lost; say so, or find the answer."""
        async with self.bridge() as bridge:
            emulator = self.partner(bridge)
            found = SettleBy.READ_BACK in bridge.profile.settle_by
            if bridge.profile.context is ContextOwner.CLIENT:
                await self._expect_harmless(bridge, emulator, "after")
                return
            if bridge.profile.can(Feature.CREATE):
                await self._lose(emulator, "a creation", bridge.create)
            if not bridge.profile.can(Feature.SEND):
                return
            chat = await self.conversation(bridge)
            for asked in (self.sent, self.streamed):
                text, what = f"Once, {asked.__name__}", f"a message that is {asked.__name__}"
                call = partial(asked, chat, text)
                if found:
                    with self._losing(emulator, what):
                        reply = await call()
                    expect(reply.recovered and self.quotes(reply.text, text), f"the answer to {what} is lost")
                    continue
                error = await self._lose(emulator, what, call)
                turn = error.turn
                expect(turn is not None and turn.message.text == text, f"the error of {what} has no turn")
                await self.waive(chat)

    async def check_doubt(self) -> None:
        """Let nothing follow a message in doubt before that is settled or waived."""
        async with self.bridge() as bridge:
            emulator = self.partner(bridge)
            bridge.require(Feature.SEND)
            if bridge.profile.context is ContextOwner.CLIENT:
                await self._expect_harmless(bridge, emulator, "before")
                return
            asking = blind(bridge)
            chat = await self.conversation(asking)
            for asked in (self.sent, self.streamed):
                error = await self._lose(
                    emulator, "a message that never arrives", partial(asked, chat, "Lost"), drop="before"
                )
                expect_equal(Outcome.UNKNOWN, error.outcome, "the outcome of a message that never arrives")
                expect_refused(UnsettledTurn, "a message after one in doubt", lambda: chat.send("Next"))
                if SettleBy.READ_BACK in bridge.profile.settle_by:
                    states = [turn.state for turn in await chat.settle() if not turn.waived]
                    proven = asking.profile.absent_after == 0
                    known = TurnState.NOT_SENT if proven else TurnState.UNKNOWN
                    expect_equal([known], states, "what settling finds of a message that never arrives")
                else:
                    expect_refused(UnsupportedFeature, "settling", chat.settle)
                await self.waive(chat)
                again = await asked(chat, "Lost")
                expect(self.quotes(again.text, "Lost"), "the conversation does not go on")

    async def _expect_harmless(
        self, bridge: Bridge, emulator: Partner, drop: Literal["before", "after"]
    ) -> None:
        """Lose answers of an API that keeps nothing: their messages are nowhere, and go out again at will."""
        chat, turns = await self.conversation(bridge), list[tuple[str, Reply]]()
        for asked in (self.sent, self.streamed):
            text, lost, reply = f"Lost {drop}, {asked.__name__}", 0, None
            for _ in range(2):  # A call whose answer is lost may be repeated once.
                emulator.fail(Fault(drop=drop))
            while reply is None:
                try:
                    reply = await asked(chat, text)
                except NotSent as error:
                    lost += 1
                    expect(lost < 3, f"{type(error).__name__} comes without end")  # noqa: PLR2004 - as many as faults
            expect(lost > 0, "a message whose answer is lost does not fail")
            expect_equal(
                Outcome.NOT_SENT, (await chat.turns())[-2].state.value, "what is known of a lost message"
            )
            turns.append((text, reply))
        expect_equal((), await chat.settle(), "what is in doubt where nothing can be")
        held = [message async for message in chat.messages()]
        expect_equal(self.stored(bridge, turns), said(held), "the history behind lost answers")

    async def check_failures(self) -> None:
        """Send a message once however its answer fails, and say of it no less than is known."""
        async with self.bridge() as bridge:
            emulator = self.partner(bridge)
            bridge.require(Feature.SEND)
            chat = await self.conversation(blind(bridge))
            for asked in (self.sent, self.streamed):
                for fault in (*_BREAKS, *(Fault(status=status) for status in _STATUSES)):
                    text = f"{fault.word or 'broken'}, {asked.__name__}"
                    what, call = f"a message ({text})", partial(asked, chat, text)
                    if bridge.profile.context is ContextOwner.CLIENT:
                        error = await self._failed_completion(emulator, fault, call)
                    else:
                        error = await self._failed(emulator, fault, what, call)
                    if error is not None:
                        await self._expect_honest(chat, text, error)
                    await self.waive(chat)

    async def _failed(
        self, emulator: Partner, fault: Fault, what: str, call: Callable[[], Awaitable[Reply]]
    ) -> ChatbridgeError | None:
        """Make *call* with *fault*, and give its error; None where it was answered all the same."""
        before, failed, reply = emulator.writes, None, None
        emulator.fail(fault)
        try:
            reply = await call()
        except ChatbridgeError as error:
            failed = error
        except Exception as error:
            raise AssertionError(
                f"{what} raises {type(error).__name__} ({error}), no ChatbridgeError"
            ) from error
        expect(emulator.writes - before <= 1, f"{what} went out {emulator.writes - before} times")
        if reply is not None:
            expect(fault.status is None, f"{what} is answered with {reply.text!r}, which nobody said")
            return None
        if failed is not None and fault.status in _STATUSES:
            rule = outcome_of(Failure(Phase.STATUS, "", status=fault.status))
            known = {rule, Outcome.REFUSED} if fault.status >= 400 else {rule}  # noqa: PLR2004 - not a redirection
            expect(failed.outcome in known, f"{what} says {failed.outcome}, which a {fault.status} does not")
            kind = _CLASSES.get(fault.status, ChatbridgeError)
            expect(isinstance(failed, kind), f"{what} raises {type(failed).__name__}, not {kind.__name__}")
        return failed

    async def _failed_completion(
        self, emulator: Partner, fault: Fault, call: Callable[[], Awaitable[Reply]]
    ) -> ChatbridgeError | None:
        """Make *call* with *fault*, after which it may go out again, and give its error, if there is one."""
        emulator.fail(fault)
        try:
            await call()
        except ChatbridgeError as error:
            kind = _CLASSES_OF_COMPLETIONS.get(fault.status or 0, ChatbridgeError)
            expect(isinstance(error, kind), f"a {fault.status} raises {type(error).__name__}")
            return error
        return None

    async def _expect_honest(self, chat: Chat, text: str, error: ChatbridgeError) -> None:
        """Check that *error* says no less of the message *text* than is known."""
        name = type(error).__name__
        states = [turn.state for turn in await chat.turns() if turn.message.text == text]
        harmless = error.outcome in _HARMLESS
        expect(
            not states or harmless == (states[-1] in _OVER), f"{name} says {error.outcome}, the turn {states}"
        )
        profile = chat.bridge.profile
        expect(
            harmless or not error.retryable or profile.context is ContextOwner.CLIENT,
            f"{name} may be repeated, though the message may have arrived",
        )
        if not profile.can(Feature.HISTORY) or not self.remembers(chat.bridge):
            return
        held = [each.text async for each in chat.messages() if each.role is Role.USER]
        if profile.context is ContextOwner.CLIENT:
            answered = [turn.message.text for turn in await chat.turns() if turn.state is TurnState.DELIVERED]
            expect_equal(answered, held, "what is in the conversation, of what was answered,")
        elif harmless:
            expect(text not in held, f"{name} says {error.outcome} of a message that is in the conversation")

    async def check_late_arrival(self) -> None:
        """Say of no message that it was not sent while the server may still be at work on it."""
        async with self.bridge() as bridge:
            emulator = self.partner(bridge)
            bridge.require(Feature.SEND)
            if SettleBy.READ_BACK not in bridge.profile.settle_by:
                raise NotApplicable("nothing can be read back")
            chat, late = await self.conversation(blind(bridge)), asyncio.Event()
            emulator.fail(Fault(drop="during", hold=late))
            await what_raises(ChatbridgeError, "a message that arrives late", lambda: chat.send("Late"))
            states = [turn.state for turn in await chat.settle(wait=0)]
            late.set()
            for _ in range(10):
                held = [each.text async for each in chat.messages()]
                if "Late" in held:
                    denied = TurnState.NOT_SENT in states
                    expect(
                        not denied, "a message arrived late of which settling has said that it was not sent"
                    )
                    return
            raise NotApplicable("what is under way when the connection is lost never arrives")

    async def check_cancelling_closes(self) -> None:
        """Close the connection of a call that is cancelled."""
        async with self.bridge() as bridge:
            emulator = self.partner(bridge)
            count = getattr(emulator, "connections", None)
            if count is None:
                raise NotApplicable("there are no connections to count")
            bridge.require(Feature.SEND)
            chat = await self.conversation(blind(bridge))
            for asked in (self.sent, self.streamed):
                fault = Fault(hold=asyncio.Event())
                emulator.fail(fault)
                task = asyncio.create_task(asked(chat, "Never mind"))
                await fault.reached.wait()
                before = getattr(emulator, "connections", 0)
                task.cancel()
                await asyncio.wait([task])
                expect(task.cancelled(), f"a message that is {asked.__name__} and cancelled ends otherwise")
                for _ in range(self.LOOKS):
                    if getattr(emulator, "connections", 0) < before:
                        break
                    await asyncio.sleep(self.PATIENCE / self.LOOKS / 10)
                else:
                    raise AssertionError(
                        f"the connection of a message {asked.__name__} stays when it is cancelled"
                    )
                await self.waive(chat)

    LOOKS = 500

    async def _lose(
        self,
        emulator: Partner,
        what: str,
        call: Callable[[], Awaitable[object]],
        drop: Literal["before", "after"] = "after",
    ) -> ChatbridgeError:
        """Lose the answer to *call*, which must say that it may have arrived."""
        with self._losing(emulator, what, drop):
            error = await what_raises(ChatbridgeError, f"{what} whose answer is lost", call)
        doubt = error.outcome in {Outcome.UNKNOWN, Outcome.ACCEPTED}
        expect(doubt, f"{what} may have arrived, and {type(error).__name__} says {error.outcome}")
        return error

    @contextmanager
    def _losing(
        self, emulator: Partner, what: str, drop: Literal["before", "after"] = "after"
    ) -> Generator[None]:
        """Lose the answer to what goes out in the block, which must go out once."""
        before = emulator.writes
        emulator.fail(Fault(drop=drop))
        yield
        expect_equal(1, emulator.writes - before, f"how often {what} went out")
