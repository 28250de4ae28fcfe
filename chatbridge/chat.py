"""A handle on one conversation: messages to it, its history, its name, its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, Unpack, cast

from attrs import evolve

from chatbridge.backend import Feature
from chatbridge.completing import is_kept_here
from chatbridge.domain import Conversation, Message, Reply
from chatbridge.drift import Drift, pull
from chatbridge.errors import ChatbridgeError, StoreError, UsageError
from chatbridge.overflow import from_first_turn
from chatbridge.sending import OptionChanges, Outgoing, check_text, prepare
from chatbridge.streaming import ReplyStream
from chatbridge.text import quoted
from chatbridge.turns import Turn

if TYPE_CHECKING:
    from chatbridge.bridge import Bridge
    from chatbridge.domain import SendOptions

__all__ = ["Chat"]


class Chat:
    """
    A handle on one conversation of one bridge.

    Attributes:
        bridge: The bridge that it belongs to.
        id: The backend's id of the conversation.
        conversation: What is known of it; `refresh` reads it again.
        system: The system prompt that goes with each message, where the API takes it so.
    """

    def __init__(self, bridge: Bridge, conversation: Conversation, system: str | None = None) -> None:
        self.bridge = bridge
        self.id = conversation.id
        self.conversation = conversation
        self.system = system

    async def send(
        self,
        message: str | Message,
        options: SendOptions | None = None,
        *,
        resend: bool = False,
        **changes: Unpack[OptionChanges],
    ) -> Reply:
        """
        Add *message* to the conversation and wait for the whole answer.

        Messages to one conversation go out one at a time, in the order of the calls, from
        whatever handle. One that may have arrived is never sent again by itself: where the API shows the
        conversation, the message is looked for there, for up to `settle_timeout` seconds; the answer to one
        that is found is waited for until the deadline, and has `Reply.recovered`.

        Args:
            message: A text, or a message of the user's. Where the API keeps nothing, results of tools are
                sent as a message of the role tool, with a `ToolResult` for each call of the answer before.
            options: How it is to be answered.
            resend: Send it though an earlier message is in doubt, which is waived, or though it is that very
                message, which then keeps its id and may arrive twice.
            changes: Single fields of *options*, as in `temperature=0.2`.

        Raises:
            NotSent: It certainly did not arrive.
            Refused: The server would not take it.
            DeliveryUnknown: Perhaps it arrived; it blocks the next until `settle` or `waive`.
            AnswerLost: It arrived, and the answer is lost or partial.
            UnsettledTurn: An earlier message is in doubt.
            StoreError: The store does not take the message, which was not sent; or not the answer, which then
                is `StoreError.reply`.
            UsageError: It cannot be sent, or was sent before.
        """
        self.bridge.require(Feature.SEND)
        outgoing = self._prepare(message, options, changes)
        until = self.bridge.clock.now() + self.bridge.options.timeout
        try:
            lane = await self.bridge.order.take(self.id, until)
            try:
                reply = await self.bridge.deliveries.send(
                    self.id, outgoing.message, outgoing.options, until, resend=resend
                )
            finally:
                self.bridge.deliveries.writing.give_back(lane)
        except ChatbridgeError as error:
            if isinstance(error, StoreError) and error.reply is not None:
                error.reply = outgoing.warned(error.reply)
            raise error.because(
                provider=error.provider or self.bridge.profile.name,
                conversation_id=self.id,
                client_id=error.client_id or outgoing.message.id,
            )
        return outgoing.warned(reply)

    def stream(
        self,
        message: str | Message,
        options: SendOptions | None = None,
        *,
        resend: bool = False,
        **changes: Unpack[OptionChanges],
    ) -> ReplyStream:
        """
        Add *message* to the conversation and read the answer as it arrives.

        The message goes out when the stream is entered, in the order of all sends to the
        conversation. Where the API cannot stream, the answer comes in one piece. The arguments and errors
        are those of `send`; an answer that breaks off after its first event is not looked for. Where the API
        keeps nothing, a message whose answer is not read to its end is not in the conversation.
        """
        self.bridge.require(Feature.STREAM)
        outgoing = self._prepare(message, options, changes)
        return ReplyStream(self.bridge, self.id, outgoing, resend=resend)

    async def turns(self) -> tuple[Turn, ...]:
        """
        Give the messages that went to the conversation, and what became of each.

        By default a store in memory keeps those that block, and of the others the last thousand.
        """
        return await self.bridge.deliveries.turns(self.id)

    async def settle(self, *, wait: float | None = None) -> tuple[Turn, ...]:
        """
        Find out what became of the messages in doubt, by reading the conversation; nothing is sent.

        Where the API keeps nothing, a message that was not answered is not in the conversation, and none is
        in doubt.

        Args:
            wait: Seconds to go on looking, and to wait for a message under way; by default
                `settle_timeout`, with 0 one look.

        Returns:
            Those messages as they are known now, but not those that had been waived: an answer that
            was found is in `Turn.reply`.

        Raises:
            UnsupportedFeature: The API does not show what arrived in a conversation.
            ChatbridgeError: The conversation could not be read.
        """
        self.bridge.bounds.check_open()
        return await self.bridge.deliveries.settle(self.id, wait)

    async def waive(self, turn: Turn) -> Turn:
        """
        Let the doubt about *turn* stand, so that the next message may go.

        Raises:
            UsageError: The conversation has no such turn.
        """
        return await self.bridge.deliveries.waive(self.id, turn)

    def messages(
        self, *, after: str | None = None, limit: int | None = None, newest_first: bool = False
    ) -> AsyncIterator[Message]:
        """
        Read the history, oldest message first.

        Args:
            after: The id of a message to begin behind.
            limit: How many messages at most.
            newest_first: Begin at the end.
        """
        self.bridge.require(Feature.HISTORY)
        if limit is not None and limit < 0:
            raise UsageError(f"a limit of {limit} messages makes no sense")
        messages = self.bridge.filling.list_messages(
            self.id, after=after, limit=limit, newest_first=newest_first
        )
        return self.bridge.bounds.each(messages, conversation_id=self.id)

    async def rename(self, title: str) -> Conversation:
        """Give the conversation another title."""
        self.bridge.require(Feature.RENAME)
        check_text("the title", title)
        return await self.update(self.bridge.filling.rename_conversation(self.id, title))

    async def refresh(self) -> Conversation:
        """Read the conversation from the server."""
        self.bridge.require(Feature.GET)
        return await self.update(self.bridge.filling.get_conversation(self.id))

    async def delete(self) -> None:
        """
        Delete the conversation on the server; the store keeps what it has of it until `forget`.

        Of one that is in the store alone nothing is left; it is deleted once no message to it is under way.
        """
        self.bridge.require(Feature.DELETE)
        try:
            if is_kept_here(self.bridge.profile):
                await self.bridge.bounds.call(self.bridge.backend.get_conversation(self.id))
                return await self.forget()
            await self.bridge.bounds.call(self.bridge.backend.delete_conversation(self.id))
            await self.bridge.deliveries.deleted(self.id)
            await self.bridge.keep(self.conversation, deleted=True)
        except ChatbridgeError as error:
            raise error.because(conversation_id=self.id)

    async def forget(self) -> None:
        """
        Drop what the store has of the conversation: its messages and turns, and every doubt about them.

        The server keeps it, so it can still be talked in; one that is in the store alone is gone.

        Raises:
            StoreError: The store cannot be written.
            OverloadedTimeout: Messages to it were under way until the deadline.
        """
        bridge = self.bridge
        bridge.bounds.check_open()
        async with bridge.deliveries.alone(self.id, bridge.clock.now() + bridge.options.timeout):
            kept = await bridge.store.find(bridge.deliveries.ledger.remote(self.id))
            if kept is not None:
                await bridge.store.forget(kept.id)

    async def fork(self, before: Message | str | None = None, *, title: str | None = None) -> Chat:
        """
        Begin another conversation with what was said in this one, to go on from there in another way.

        A message is edited so: `fork = await chat.fork(before=message)`, and the new one is sent to `fork`.
        This conversation stays as it is. The system prompt goes along, as far as it is known. Where a store
        in memory has forgotten how the conversation began, the new one begins with the first turn that is
        left, and a warning in `Chat.conversation` says so.

        Args:
            before: The first message to leave out, as `messages` gives it, or its id.
            title: The title of the new conversation; by default that of this one, where it is known.

        Raises:
            UnsupportedFeature: The backend shows no history, or makes no conversations that begin with one.
            UsageError: The conversation has no such message.
            ChatbridgeError: It could not be read, or the new one not be made.
        """
        bridge = self.bridge
        for feature in (Feature.HISTORY, Feature.CREATE, Feature.HISTORY_SEED):
            bridge.require(feature)
        known = await self.refresh() if bridge.profile.can(Feature.GET) else self.conversation
        wanted = before.id if isinstance(before, Message) else before
        if before is not None and not wanted:
            raise UsageError("a fork ends before a message with an id, as chat.messages() gives it")
        history: list[Message] = []
        found = before is None
        async with aclosing(cast(AsyncGenerator[Message, None], self.messages())) as messages:
            async for message in messages:
                found = found or message.id == wanted
                if found and before is not None:
                    break
                history.append(message)
        if not found:
            raise UsageError(f"the conversation has no message with the id {quoted(str(wanted))}")
        title = known.title if title is None and bridge.profile.can(Feature.TITLE) else title
        gone = await bridge.filling.forgotten(self.id)
        if gone:
            left = from_first_turn(history) or []
            gone, history = gone + len(history) - len(left), left
        fork = await bridge.create(title=title, system=self.system or known.system, history=history)
        if gone:
            told = f"the first {gone} messages are left out: their turns are no longer whole in the store"
            fork.conversation = evolve(fork.conversation, warnings=(*fork.conversation.warnings, told))
        return fork

    async def pull(self, *, overwrite: bool = False) -> Drift:
        """
        Compare what the store has of the conversation with what the API shows, and take over what is new.

        Where the store has messages that the API does not show, nothing is changed. A message in doubt is
        looked for first.

        Args:
            overwrite: Take over all that the API shows, whatever the store has.

        Raises:
            UnsupportedFeature: The API shows no history, or none of what is sent.
            StoreError: The store cannot be read or written.
            ChatbridgeError: The conversation cannot be read.
        """
        return await pull(self.bridge, self.id, overwrite=overwrite)

    async def update(self, call: Awaitable[Conversation], *, until: float | None = None) -> Conversation:
        """Take what *call* of the backend tells of the conversation."""
        try:
            told = await self.bridge.bounds.call(call, until=until)
        except ChatbridgeError as error:
            raise error.because(conversation_id=self.id)
        self.conversation = await self.bridge.keep(told)
        return self.conversation

    def _prepare(
        self, message: str | Message, options: SendOptions | None, changes: OptionChanges
    ) -> Outgoing:
        return prepare(message, options, changes, self.system, self.bridge.profile, self.bridge.options)
