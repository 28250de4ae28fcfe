"""Datamonkey: conversations with an assistant for evolutionary analyses, owned by a session."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen

from chatbridge.backend import (
    ContextOwner,
    Feature,
    PartialBackend,
    Profile,
    SettleBy,
    Stores,
    Support,
    check_extra,
    select_messages,
    text_to_send,
)
from chatbridge.clock import deadline
from chatbridge.domain import Conversation, Message, Reply, SendOptions
from chatbridge.errors import BadOption, ChatbridgeError, Outcome, OverloadedTimeout, Phase, UsageError
from chatbridge.http import Api, Transport, Warn, bearer
from chatbridge.options import CommonOptions, option
from chatbridge.secret import Secret
from chatbridge_adapters.datamonkey import wire

NAME = "datamonkey"


@frozen(kw_only=True)
class DatamonkeyOptions(CommonOptions):
    """What Datamonkey can be told."""

    key: Secret | None = option(
        "The token of an earlier session; without one, the first creation opens a session.", default=None
    )


_NATIVE = (
    Feature.CREATE,
    Feature.TITLE,
    Feature.GET,
    Feature.LIST,
    Feature.DELETE,
    Feature.HISTORY,
    Feature.SEND,
)

PROFILE = Profile(
    NAME,
    dict.fromkeys(_NATIVE, Support.NATIVE),
    context=ContextOwner.SERVER,
    stores=Stores.WITH,
    settle_by={SettleBy.READ_BACK},
    instead={
        Feature.SYSTEM: "say it in the first message",
        Feature.HISTORY_SEED: "say it in the first message",
        Feature.RENAME: "give the title at creation",
        Feature.ATTACHMENTS: "text only",
        Feature.TOOLS: "none to offer: the assistant uses Datamonkey's own, unseen",
    },
    notes=(
        "Conversations belong to a session, whose token must be kept to reach them again (`session_token`).",
        "Without a token the first creation opens a session (`on_session_token` is called with its token).",
        "A token lives 24 hours and cannot be renewed: what was made with it is then out of reach.",
        "A creation whose token has expired opens another session, and warns; with `strict` it is an error.",
        "Messages have no ids, so `after` can name none; `limit` and `newest_first` filter what was read.",
        "The API does not say why an answer ended, so `finish_reason` is not known.",
    ),
)

EXTRA_TO_CREATE = ()
EXTRA_TO_SEND = ()


def profile(_: DatamonkeyOptions | None = None) -> Profile:
    """Tell what Datamonkey can do, whatever the options."""
    return PROFILE


class SessionReplaced(ChatbridgeError):
    """
    With `strict`: the server did not take the session's token, and opened another session.

    The conversation *conversation_id* was made in it. Those of the old session are out of reach.
    """

    outcome = Outcome.ACCEPTED


_REPLACED = (
    "the server did not take the session's token and opened another session: the conversations of the old "
    "one are out of reach, and the new token must be saved to reach those made from now on "
    "(a program finds it in the backend's session_token)"
)
_UNSENDABLE = "the server opened a session whose token cannot be sent, so the conversation is out of reach"
_ISSUED = "X-Session-Token"
_SENDABLE = re.compile(r"[!-~]+")  # With a blank in it, the server would skip the header.


class DatamonkeyBackend(PartialBackend):
    """
    Chats in conversations that belong to a session.

    Attributes:
        on_session_token: Called with the token that the server gives at a creation, and awaited if it gives
            an awaitable, to save it for the next bridge: whatever became of the creation, which ends only
            after it. What it raises is a warning.
    """

    def __init__(self, options: DatamonkeyOptions, transport: Transport) -> None:
        _check(options.key)
        self.options = options
        self.on_session_token: Callable[[Secret], Awaitable[None] | None] | None = None
        self._session_token = options.key
        self._creation = asyncio.Lock()
        self._api = Api(
            transport,
            NAME,
            headers={} if options.key is None else {"Authorization": bearer(options.key)},
            read_error=wire.read_error,
            can_settle=bool(PROFILE.settle_by),
        )

    @property
    def profile(self) -> Profile:
        """What Datamonkey can do."""
        return PROFILE

    @property
    def session_token(self) -> Secret | None:
        """The token in use; None before there is a session."""
        return self._session_token

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """
        Create a conversation, and a session where there is none, or none any more.

        Raises:
            SessionReplaced: With `strict`, if conversations made earlier are now out of reach.
        """
        self._refuse_given(system=system, history_seed=history)
        check_extra(extra or {}, EXTRA_TO_CREATE, PROFILE)
        request = wire.NewConversation(title) if title else None
        warnings: list[str] = []
        async with self._alone():
            try:
                created = await self._create(request, warnings.append)
            except ChatbridgeError as error:
                _note(error, warnings)
                raise
        if self.options.strict and _REPLACED in warnings:
            warnings.remove(_REPLACED)
            lost = SessionReplaced(
                f"{NAME} {wire.CREATE.operation}: {_REPLACED}",
                provider=NAME,
                operation=wire.CREATE.operation,
                conversation_id=created.id,
            )
            _note(lost, warnings)
            raise lost
        return wire.to_conversation(created, warnings)

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """Read a conversation, its messages aside."""
        warnings: list[str] = []
        ids = {"conversation_id": conversation_id}
        return wire.to_conversation(await self._api.call(wire.GET, ids=ids, warn=warnings.append), warnings)

    async def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield all conversations of the session."""
        for conversation in (await self._api.call(wire.LIST)).conversations or ():
            yield wire.to_conversation(conversation)

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation."""
        await self._api.call(wire.DELETE, ids={"conversation_id": conversation_id})

    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages in the order received; all are read before the first is yielded."""
        if after is not None:
            raise UsageError(f"{NAME}: messages have no ids, so `after` can name none", provider=NAME)
        history = await self._api.call(wire.LIST_MESSAGES, ids={"conversation_id": conversation_id})
        messages = map(wire.to_message, history.messages or ())
        async for message in select_messages(messages, limit=limit, newest_first=newest_first):
            yield message

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Ask, and wait for the whole answer."""
        text = text_to_send(message, PROFILE)
        check_extra(options.extra, EXTRA_TO_SEND, PROFILE)
        warnings: list[str] = []
        answer = await self._api.call(
            wire.SEND,
            wire.NewMessage(text),
            ids={"conversation_id": conversation_id},
            warn=warnings.append,
        )
        return wire.to_reply(answer, warnings)

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """
        Let one creation go at a time, within one deadline.

        Two at once without a token that holds would open two sessions, and lose one.
        """
        until, late = self._api.deadline(), False
        try:
            async with self._api.transport.clock.timeout_at(until):
                await self._creation.acquire()
        except TimeoutError:
            late = True
        if late:
            raise OverloadedTimeout(
                f"{NAME} {wire.CREATE.operation}: earlier creations took until the deadline",
                provider=NAME,
                operation=wire.CREATE.operation,
                phase=Phase.QUEUE,
            )
        try:
            with deadline(until):
                yield
        finally:
            self._creation.release()

    async def _create(self, request: wire.NewConversation | None, warn: Warn) -> wire.ChatConversation:
        """Create a conversation, and take the token of a session that the server opened, even if it fails."""
        before, issued = self._session_token, list[Secret]()

        def on_head(headers: Mapping[str, str]) -> None:
            if headers.get(_ISSUED):
                issued.append(Secret(headers[_ISSUED]))
                self._adopt(issued[-1])

        try:
            return await self._api.call(wire.CREATE, request, warn=warn, on_head=on_head)
        finally:
            if before is not None and before is not self._session_token:
                warn(_REPLACED)
            if issued:
                await self._hand_over(issued[-1], warn)

    def _adopt(self, token: Secret) -> None:
        """Send *token* from now on; one that cannot be sent is no use, and one in use is no other."""
        if _SENDABLE.fullmatch(token.reveal()) and token != self._session_token:
            self._api.set_header("Authorization", bearer(token))
            self._session_token = token

    async def _hand_over(self, token: Secret, warn: Warn) -> None:
        """Give *token* to the application."""
        if token != self._session_token:
            warn(_UNSENDABLE)
        elif self.on_session_token is not None:
            try:
                saving = self.on_session_token(token)
                if inspect.isawaitable(saving):
                    await saving
            except Exception as error:  # noqa: BLE001 - the application's; it must not cost the conversation
                warn(f"on_session_token raised {type(error).__name__}: the new token is not saved")


# What is raised may be shown with the variables of each function: here and above, none holds a token as text.


def _check(key: Secret | None) -> None:
    if key is not None and not _SENDABLE.fullmatch(key.reveal()):
        raise BadOption(
            backend=NAME,
            option="key",
            problem="holds a blank or another character that no token has; "
            "the server would skip it, and open another session",
        )


def _note(error: ChatbridgeError, warnings: Sequence[str]) -> None:
    """Tell *warnings* by an error, where there is no result to tell them by."""
    for warning in warnings:
        error.add_note(warning)
