"""Fakes that are broken, each in one way."""

from __future__ import annotations

import asyncio
import logging
import socket
import unicodedata
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve, frozen

from chatbridge import (
    Conversation,
    Feature,
    Finished,
    FinishReason,
    Message,
    Profile,
    Reply,
    Role,
    SendOptions,
    StreamEvent,
    Support,
    TextDelta,
    ToolCall,
)
from chatbridge.backend import Stores
from chatbridge.errors import ChatbridgeError, DeliveryUnknown, NotFound, NotSent, RequestRefused, UsageError
from chatbridge.options import option
from chatbridge.secret import Secret
from chatbridge.testing.answers import Given
from chatbridge.testing.fake import FakeBackend, FakeCall, FakeOptions


class Broken(FakeBackend):
    """A fake whose profile may deny a feature that it has."""

    denied: Feature | None = None

    @property
    def profile(self) -> Profile:
        profile = super().profile
        return profile.with_features({self.denied: Support.UNSUPPORTED} if self.denied else {})


class DropsTheLastEvent(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in super().stream(conversation_id, message, options):
            if not isinstance(event, Finished):
                yield event


class FinishesTwice(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in super().stream(conversation_id, message, options):
            yield event
            if isinstance(event, Finished):
                yield event


class GoesOnAfterTheEnd(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in super().stream(conversation_id, message, options):
            yield event
        yield TextDelta("By the way.")


class RepeatsThePieces(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in super().stream(conversation_id, message, options):
            if isinstance(event, TextDelta):
                yield event
            yield event


class SaysAnotherThingWhenStreaming(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        reply = await self.send(conversation_id, message, options)
        text = reply.text.upper()
        yield TextDelta(text)
        yield Finished(evolve(reply, messages=[evolve(reply.message, parts=text)]))


class ClaimsMore(Broken):
    """It claims a history and shows none."""

    def list_messages(self, *_: object, **__: object) -> AsyncIterator[Message]:
        raise self.profile.unsupported(Feature.HISTORY)


class ClaimsLess(Broken):
    denied = Feature.RENAME


class ClaimsNoTitle(Broken):
    denied = Feature.TITLE


class ClaimsNoReasoning(Broken):
    """It reasons all the same."""

    denied = Feature.REASONING

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        return await super().send(conversation_id, message, evolve(options, extra={"reasoning": True}))


class ClaimsNoTools(Broken):
    """The feature is denied, the option is not."""

    denied = Feature.TOOLS


class RefusesLate(Broken):
    """It asks before it says no."""

    denied = Feature.DELETE

    async def delete_conversation(self, conversation_id: str) -> None:
        await asyncio.sleep(0)
        del conversation_id
        raise self.profile.unsupported(Feature.DELETE)


class RefusesSomethingElse(Broken):
    denied = Feature.DELETE

    async def delete_conversation(self, conversation_id: str) -> None:
        del conversation_id
        raise self.profile.unsupported(Feature.RENAME)


class TurnsTheHistoryAround(Broken):
    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        async for message in super().list_messages(
            conversation_id, after=after, limit=limit, newest_first=not newest_first
        ):
            yield message


class IgnoresTheLimit(Broken):
    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        del limit
        async for message in super().list_messages(conversation_id, after=after, newest_first=newest_first):
            yield message


class SendsTwice(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        await super().send(conversation_id, message, options)
        return await super().send(conversation_id, message, options)


class ForgetsTheRenaming(Broken):
    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        return evolve(await self.get_conversation(conversation_id), title=title)


class ForgetsTheTitle(Broken):
    async def create_conversation(self, **given: Any) -> Conversation:
        kept: dict[str, Any] = {name: value for name, value in given.items() if name != "title"}
        return await super().create_conversation(**kept)


class SpeaksAsTheUser(Broken):
    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        async for message in super().list_messages(
            conversation_id, after=after, limit=limit, newest_first=newest_first
        ):
            yield evolve(message, role=Role.USER)


class FindsEverything(Broken):
    async def get_conversation(self, conversation_id: str) -> Conversation:
        try:
            return await super().get_conversation(conversation_id)
        except NotFound:
            return Conversation(conversation_id)


class DeletesNothing(Broken):
    async def delete_conversation(self, conversation_id: str) -> None:
        await self.get_conversation(conversation_id)


class DeletesAll(Broken):
    async def delete_conversation(self, conversation_id: str) -> None:
        await self.get_conversation(conversation_id)
        self._kept.clear()


class ListsTwice(Broken):
    async def list_conversations(self) -> AsyncIterator[Conversation]:
        async for conversation in super().list_conversations():
            yield conversation
            yield conversation


class HasOneConversation(Broken):
    async def create_conversation(self, **given: Any) -> Conversation:
        created = await super().create_conversation(**given)
        self._kept = {"same": self._kept.get("same", self._kept[created.id])}
        return evolve(created, id="same")


class Normalizes(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        text = unicodedata.normalize("NFC", message.text)
        return await super().send(conversation_id, evolve(message, parts=text), options)


class Shortens(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        return await super().send(conversation_id, evolve(message, parts=message.text[:65536]), options)


class Forgets(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        self._find(conversation_id).messages.clear()
        return await super().send(conversation_id, message, options)


class CannotBeCancelled(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return await super().send(conversation_id, message, options)


class TakesAnyExtra(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        return await super().send(conversation_id, message, evolve(options, extra={}))


class SaysWhatOthersSaid(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        return await super().send(conversation_id, evolve(message, role=Role.USER), options)


class RaisesSomethingForeign(Broken):
    async def get_conversation(self, conversation_id: str) -> Conversation:
        if conversation_id not in self._kept:
            raise KeyError(conversation_id)
        return await super().get_conversation(conversation_id)


class RaisesWhatCannotBePickled(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except NotFound as error:
            error.__dict__["hook"] = lambda: None
            raise


class HasNoReferences(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        return await super().send(conversation_id, message, evolve(options, include=()))


class CountsNothing(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        return evolve(await super().send(conversation_id, message, options), usage=None)


class SaysNothing(Broken):
    """It takes an empty answer for none, and answers something else."""

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        reply = await super().send(conversation_id, message, options)
        return reply if reply.text else evolve(reply, messages=[evolve(reply.message, parts="(nothing)")])


class AnswersByNumber(Broken):
    """Which conversation asked is forgotten while two of them wait."""

    last: Message

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        self.last = message
        await asyncio.sleep(0)
        return await super().send(conversation_id, self.last, options)


class DropsFiles(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        return await super().send(conversation_id, evolve(message, parts=message.text), options)


class LosesTheSeed(Broken):
    async def create_conversation(self, **given: Any) -> Conversation:
        kept: dict[str, Any] = {name: value for name, value in given.items() if name != "history"}
        return await super().create_conversation(**kept)


class ProfileOfNothingKnown(Broken):
    @property
    def profile(self) -> Profile:
        return evolve(super().profile, options={"colour"})


class Hangs(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        await asyncio.get_running_loop().create_future()
        return await super().send(conversation_id, message, options)


class SendsHalves(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        whole = message.text.encode("utf-8", "replace").decode()
        return await super().send(conversation_id, evolve(message, parts=whole), options)


class StoresWhatItSaysItDoesNot(Broken):
    @property
    def profile(self) -> Profile:
        return evolve(super().profile, stores=Stores.NEVER)


class WarnsOfEveryCreation(Broken):
    async def create_conversation(self, **given: Any) -> Conversation:
        return evolve(await super().create_conversation(**given), warnings="as always")


class RenamesIntoAnother(Broken):
    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        return evolve(await super().rename_conversation(conversation_id, title), id="another")


class ReadsOnBehindAnything(Broken):
    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        held = [message async for message in super().list_messages(conversation_id)]
        known = after in {message.id for message in held}
        async for message in super().list_messages(
            conversation_id, after=after if known else None, limit=limit, newest_first=newest_first
        ):
            yield message


class NamesEveryMessageAlike(Broken):
    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        if after is not None and after != "m":
            raise UsageError("there is no such message")
        async for message in super().list_messages(conversation_id, limit=limit, newest_first=newest_first):
            yield evolve(message, id="m")


class TurnsBeforeItReadsOn(Broken):
    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        if after is None or not newest_first:
            messages = super().list_messages(
                conversation_id, after=after, limit=limit, newest_first=newest_first
            )
            async for message in messages:
                yield message
            return
        held = [message async for message in super().list_messages(conversation_id, newest_first=True)]
        at = [message.id for message in held].index(after)
        for message in held[at + 1 :]:
            yield message


class TitlesWithHalves(Broken):
    async def create_conversation(self, *, title: str | None = None, **given: Any) -> Conversation:
        whole = title and title.encode("utf-8", "replace").decode()
        return await super().create_conversation(title=whole, **given)


class RenamesWithHalves(Broken):
    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        whole = title.encode("utf-8", "replace").decode()
        return await super().rename_conversation(conversation_id, whole)


class StreamsUncounted(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in super().stream(conversation_id, message, options):
            if isinstance(event, Finished):
                yield Finished(evolve(event.reply, usage=None))
            else:
                yield event


class ListsOnePage(Broken):
    async def list_messages(self, conversation_id: str, **chosen: Any) -> AsyncIterator[Message]:
        messages = [message async for message in super().list_messages(conversation_id, **chosen)]
        for message in messages[:100]:
            yield message


class SkipsBetweenPages(Broken):
    async def list_conversations(self) -> AsyncIterator[Conversation]:
        number = 0
        async for conversation in super().list_conversations():
            number += 1
            if number != 101:
                yield conversation


class SaysThatWhatIsLostWasNotSent(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except DeliveryUnknown as error:
            raise NotSent(str(error), provider=error.provider) from None


class RepeatsWhatIsLost(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except DeliveryUnknown:
            return await super().send(conversation_id, message, options)


class CreatesAgainWhatIsLost(Broken):
    async def create_conversation(self, **given: Any) -> Conversation:
        try:
            return await super().create_conversation(**given)
        except DeliveryUnknown:
            return await super().create_conversation(**given)


class TakesAFailureForARefusal(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except DeliveryUnknown as error:
            if error.status is None:
                raise
            raise RequestRefused("no", provider=error.provider, status=error.status) from None


class RaisesSomethingForeignOfFailures(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except DeliveryUnknown as error:
            raise ConnectionError(str(error)) from None


class SaysThatEverythingMayBeRepeated(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except DeliveryUnknown as error:
            error.retryable = True
            raise


class TakesAbsenceForProof(Broken):
    @property
    def profile(self) -> Profile:
        return evolve(super().profile, absent_after=0.0)


class SettlesWhatItCannotSee(Broken):
    """It claims to be read back, and shows what was never sent."""

    def list_messages(self, conversation_id: str, **chosen: Any) -> AsyncIterator[Message]:
        async def invented() -> AsyncIterator[Message]:
            yield Message.user("Lost")
            yield Message.assistant("Found")

        return invented() if self.writes > 1 else super().list_messages(conversation_id, **chosen)


class LeavesATask(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        self.task = asyncio.create_task(asyncio.sleep(3600))
        return await super().send(conversation_id, message, options)


class LeavesASocket(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        socket.socket()
        return await super().send(conversation_id, message, options)


@frozen(kw_only=True)
class KeyedOptions(FakeOptions):
    key: Secret = option("The key.", default=Secret("sk-0123456789abcdef"))


class Keyed(Broken):
    """A fake that was given a key."""

    def __init__(self, *, profile: Profile | None = None, answers: Given | None = None) -> None:
        super().__init__(KeyedOptions(), profile=profile, answers=answers)


class LeaksItsKey(Keyed):
    async def get_conversation(self, conversation_id: str) -> Conversation:
        try:
            return await super().get_conversation(conversation_id)
        except NotFound as error:
            options = self.options
            assert isinstance(options, KeyedOptions)
            error.add_note(f"asked with {b64encode(options.key.reveal().encode()).decode()}")
            raise


class LogsItsKey(Keyed):
    async def get_conversation(self, conversation_id: str) -> Conversation:
        options = self.options
        assert isinstance(options, KeyedOptions)
        logging.getLogger("chatbridge.keyed").debug("asking with %s", options.key.reveal())
        return await super().get_conversation(conversation_id)


class ResendsWhatAGatewayLost(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except ChatbridgeError as error:
            if error.status is None or error.status < 500:
                raise
            return await super().send(conversation_id, message, options)


class InventsAnswers(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except ChatbridgeError as error:
            if error.status in {None, 404}:
                raise
            return Reply([Message.assistant("Sorry, something went wrong.")])


class ForgetsTheStatus(Broken):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except ChatbridgeError as error:
            if error.status is None:
                raise
            raise RequestRefused("it failed", provider=error.provider) from None


class LeaksItsKeyInMessages(Keyed):
    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        try:
            return await super().send(conversation_id, message, options)
        except ChatbridgeError as error:
            assert isinstance(self.options, KeyedOptions)
            error.add_note(f"the key was {self.options.key.reveal()}")
            raise


class LogsItsKeyElsewhere(Keyed):
    async def get_conversation(self, conversation_id: str) -> Conversation:
        assert isinstance(self.options, KeyedOptions)
        logging.getLogger("acme.adapter").info("asking with %s", self.options.key.reveal())
        return await super().get_conversation(conversation_id)


class PagesOnlyForward(Broken):
    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        held = [message async for message in super().list_messages(conversation_id, after=after)]
        for message in (held[:20][::-1] if newest_first else held)[:limit]:
            yield message


class RenamesAll(Broken):
    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        for other in self.conversations:
            await super().rename_conversation(other, title)
        return await super().rename_conversation(conversation_id, title)


class StreamDropsFiles(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in super().stream(conversation_id, evolve(message, parts=message.text), options):
            yield event


class StreamDropsTools(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        async for event in super().stream(conversation_id, message, evolve(options, tools=())):
            yield event


class StreamShortens(Broken):
    async def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        short = evolve(message, parts=message.text[:65536]) if len(message.text) > 65536 else message
        async for event in super().stream(conversation_id, short, options):
            yield event


class KeepsConnections(Broken):
    """Its server counts a connection that nobody closed."""

    connections = 1


class Telling(Broken):
    """A fake that keeps nothing, and is told something else than it should be."""

    async def _complete(self, call: FakeCall, messages: Sequence[Message], options: SendOptions) -> Any:
        return await super()._complete(call, self.told(messages), self.chosen(options))

    def told(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages

    def chosen(self, options: SendOptions) -> SendOptions:
        return options


class TellsTheLastThree(Telling):
    def told(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages[-3:]


class TellsTheLastFirst(Telling):
    def told(self, messages: Sequence[Message]) -> Sequence[Message]:
        return (*messages[-2::-1], messages[-1])


class TellsNoSystemPrompt(Telling):
    def chosen(self, options: SendOptions) -> SendOptions:
        return evolve(options, system=None)


class TellsNothingOfTheSystem(Telling):
    def told(self, messages: Sequence[Message]) -> Sequence[Message]:
        return [message for message in messages if message.role is not Role.SYSTEM]


class TellsNoTemperature(Telling):
    def chosen(self, options: SendOptions) -> SendOptions:
        return evolve(options, temperature=None)


class TellsNoForm(Telling):
    def chosen(self, options: SendOptions) -> SendOptions:
        return evolve(options, response_format=None)


class TellsNoLimit(Telling):
    def chosen(self, options: SendOptions) -> SendOptions:
        return evolve(options, max_output_tokens=None)


class TellsNoStop(Telling):
    def chosen(self, options: SendOptions) -> SendOptions:
        return evolve(options, stop=())


class TellsNoCalls(Telling):
    def told(self, messages: Sequence[Message]) -> Sequence[Message]:
        return [
            evolve(message, parts=[part for part in message.parts if not isinstance(part, ToolCall)])
            for message in messages
        ]


class CompletesTwice(Broken):
    async def complete(self, messages: Sequence[Message], options: SendOptions) -> Reply:
        await super().complete(messages, options)
        return await super().complete(messages, options)


class IsAlwaysDone(Broken):
    async def complete(self, messages: Sequence[Message], options: SendOptions) -> Reply:
        return evolve(await super().complete(messages, options), finish_reason=FinishReason.STOP)
