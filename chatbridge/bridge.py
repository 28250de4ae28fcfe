"""
What applications use: a backend made safe, and handles on its conversations.

    async with connect("h2ogpte://h2ogpte.example.com?llm=auto") as bridge:
        chat = await bridge.create(title="Kyoto")
        reply = await chat.send("When do the maples turn?")
        async with chat.stream("And the crowds?") as stream:
            async for piece in stream.text(): ...
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from attrs import evolve

from chatbridge.backend import ChatBackend, CompletionBackend, Feature
from chatbridge.bounds import Bounds
from chatbridge.chat import Chat
from chatbridge.clock import Clock, SystemClock
from chatbridge.completing import full_backend, is_kept_here
from chatbridge.config import BackendURL
from chatbridge.deliveries import Deliveries, OnTurn
from chatbridge.domain import Conversation, Message
from chatbridge.errors import (
    AnswerLost,
    ChatbridgeError,
    ConfigError,
    ConversationKept,
    NotFound,
    StoreError,
    UsageError,
)
from chatbridge.filling import Filling, with_emulations
from chatbridge.guard import check_reachable
from chatbridge.history.ledger import Ledger
from chatbridge.history.memory import MemoryStore
from chatbridge.history.strings import open_store
from chatbridge.messages import check_types
from chatbridge.named import find_backend
from chatbridge.options import CommonOptions, check_hook
from chatbridge.order import Order
from chatbridge.overflow import Overflow, read_overflow
from chatbridge.registry import InProcess, Target, resolve
from chatbridge.secret import Veiled
from chatbridge.sending import check_include, check_text

if TYPE_CHECKING:
    import asyncio

    from chatbridge.history.store import Store
    from chatbridge.http import Transport
    from chatbridge.observe import OnAttempt

__all__ = ["Bridge", "connect"]


def connect(
    url: str | BackendURL | None = None,
    /,
    *,
    clock: Clock | None = None,
    on_attempt: OnAttempt | None = None,
    on_turn: OnTurn | None = None,
    store: str | Store | None = None,
    account: str | None = None,
    overflow: str | Overflow | None = None,
    **options: object,
) -> Bridge:
    """
    Make a bridge to the backend that *url* names; nothing is sent before the first call.

    Args:
        url: A config string, the name of a backend in the user's config file, or None for
            `$CHATBRIDGE_BACKEND` or the file's default.
        clock: Measures time, for tests.
        on_attempt: Called with an `AttemptEvent` after every attempt to call the API.
        on_turn: Called with a `TurnEvent` whenever more is known of a message. What either raises is logged.
        store: Keeps turns, conversations and messages: `sqlite:///FILE`, or what `chatbridge.history` has.
            One named by a string is closed with the bridge. By default nothing is written anywhere: what was
            used last is kept in memory, and gone with the bridge.
        account: Tells in the store whose conversations these are; by default the server's address, with the
            options that name a tenant.
        overflow: What is done with a conversation that is longer than the model takes, where chatbridge gives
            the model the earlier turns: the option, or in its place a function that makes it shorter
            (`chatbridge.overflow.Overflow`). Where the server does, it has no effect.
        options: Options of the backend, and `record`, a file to record the exchange in; they win over those
            in *url*, and None counts as not given. Here a secret may be given itself.

    Raises:
        ConfigError: Naming the part at fault.
        LiveBackendForbidden: A test forbids to reach another machine.
    """
    given = Veiled(options if callable(overflow) else {**options, "overflow": overflow})
    del options  # What is raised may be shown with the variables of this function.
    if not isinstance(cast(object, url), str | BackendURL | None):
        raise ConfigError(f"connect takes a config string, a BackendURL or None, not {type(url).__name__}")
    target = resolve(url if isinstance(url, BackendURL) else find_backend(url), given)
    if clock is None and target.adapter.clock is not None:
        clock = target.adapter.clock()
    place = InProcess(SystemClock() if clock is None else clock, on_attempt)
    transport = _transport(target, place)
    if transport is None:
        check_hook("on_attempt", on_attempt)
    backend = target.adapter.open(target.options, transport or place)
    options_in_use = target.options if transport is None else transport.options
    bridge = Bridge(
        backend,
        options=options_in_use,
        transport=transport,
        clock=clock,
        on_turn=on_turn,
        store=store,
        account=target.account if account is None else account,
        overflow=overflow if callable(overflow) else None,
    )
    check_include(bridge.profile, options_in_use)
    return bridge


def _transport(target: Target, place: InProcess) -> Transport | None:
    """Make what carries the calls to *target*; None where the backend needs nothing of the kind."""
    if target.base_url is None:
        make = target.adapter.transport
        return None if make is None else cast("Transport", make(target.options, place))
    check_reachable(target.base_url)
    if target.record is not None:
        from chatbridge.http.recorder import RecordingTransport  # noqa: PLC0415 - the same

        return RecordingTransport(target, clock=place.clock, on_attempt=place.on_attempt)
    from chatbridge.http import Transport  # noqa: PLC0415 - aiohttp takes time to import

    return Transport(target.base_url, target.options, clock=place.clock, on_attempt=place.on_attempt)


class Bridge:
    """
    A backend made safe to use, as an asynchronous context manager.

    It keeps the order of messages within a conversation, bounds every call in time, and
    fills in what the backend lacks and can be made up for. It may be shared by any number of tasks.

    Attributes:
        api: The backend as its adapter made it, with the methods that only its API has.
        backend: What the bridge calls: the same, with conversations added where the API keeps none.
        profile: What can be done here, where what the bridge fills in is `emulated`.
        store: What keeps its turns, conversations and messages.
    """

    # How many conversations and messages are kept in memory where nothing else keeps them.
    KEPT_IN_MEMORY = 50_000

    def __init__(
        self,
        backend: ChatBackend | CompletionBackend,
        *,
        options: CommonOptions | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        on_turn: OnTurn | None = None,
        store: str | Store | None = None,
        account: str | None = None,
        overflow: str | Overflow | None = None,
    ) -> None:
        check_hook("on_turn", on_turn)
        self.options = CommonOptions() if options is None else options
        self.profile = with_emulations(backend.profile, self.options)
        self.clock: Clock = SystemClock() if clock is None else clock
        self.store = self._default_store() if store is None else open_store(store)
        self._owns_store = isinstance(store, str)
        ledger = Ledger(self.store, self.profile.name, account, kept_here=is_kept_here(self.profile))
        shorten = read_overflow(self.options.overflow if overflow is None else overflow)
        self.api = backend
        self.backend = backend = full_backend(backend, ledger, self.clock, shorten)
        self.order = Order(self.clock)
        self.bounds = Bounds(
            self.clock,
            provider=backend.profile.name,
            timeout=self.options.timeout,
            patience=self.options.idle_timeout,
            trusted=transport is not None,
        )
        self.filling = Filling(backend, ledger)
        self.deliveries = Deliveries(
            backend,
            self.profile,
            self.bounds,
            self.order,
            self.clock,
            settle_timeout=self.options.settle_timeout,
            ledger=ledger,
            on_turn=on_turn,
        )
        self._transport = transport

    def _default_store(self) -> MemoryStore:
        return MemoryStore(keeps=self.KEPT_IN_MEMORY) if is_kept_here(self.profile) else MemoryStore()

    async def __aenter__(self) -> Self:
        self.bounds.check_open()
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections; calls under way fail, later ones raise UsageError."""
        if self.bounds.closed:
            return
        self.bounds.closed = True
        self.order.close()
        self.deliveries.stop()
        async with AsyncExitStack() as stack:
            if self._owns_store:
                stack.push_async_callback(self.store.close)
            stack.push_async_callback(self.deliveries.close)
            stack.push_async_callback(self.bounds.end)
            if self._transport is not None:
                stack.push_async_callback(self._transport.close)
            await self.bounds.close(self.backend.close())

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that its connections belong to; None while there are none."""
        return None if self._transport is None else self._transport.loop

    async def create(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Chat:
        """
        Create a conversation on the server.

        A title that the API does not take at creation is given by renaming; a system prompt that it takes
        with each message is kept by the chat and sent so.

        Args:
            title: Its title.
            system: The system prompt.
            history: Earlier messages to begin with.
            extra: The API's own fields.

        Raises:
            UnsupportedFeature: The backend has no place for one of them; nothing was created.
            UsageError: One of them cannot be sent; nothing was created.
            StoreError: The store cannot be used; nothing was created.
            ChatbridgeError: With `conversation_id` set, the conversation exists, and a later step failed.
        """
        self.require(Feature.CREATE)
        for message in history:
            if not isinstance(cast(object, message), Message):
                raise UsageError(f"a history is made of messages, and has a {type(message).__name__}")
            check_types(message)
        own = self.backend.profile
        for feature, value in {
            Feature.TITLE: title, Feature.SYSTEM: system, Feature.HISTORY_SEED: history
        }.items():  # fmt: skip
            if value:
                self.require(feature)
        check_text("the title", title)
        check_text("the system prompt", system)
        await self.store.open(write=True)
        until = self.clock.now() + self.options.timeout
        conversation = await self.bounds.call(
            self.backend.create_conversation(
                title=title if own.can(Feature.TITLE) else None,
                system=system if own.can(Feature.SYSTEM) else None,
                history=history,
                extra=extra,
            ),
            creates=True,
            until=until,
        )
        if not conversation.id:
            raise AnswerLost(
                f"{self.profile.name} gave the new conversation no id",
                kind="schema",
                provider=self.profile.name,
            )
        self.deliveries.created(conversation.id, history)
        titles_kept = Feature.RENAME in self.filling.features
        if title and titles_kept:
            conversation = evolve(conversation, title=title)
        conversation = await self.keep(conversation, history, system=system, created=True)
        chat = Chat(self, conversation, None if own.can(Feature.SYSTEM) else system or None)
        if title and not own.can(Feature.TITLE) and not titles_kept:
            renamed = await chat.update(self.backend.rename_conversation(chat.id, title), until=until)
            chat.conversation = evolve(renamed, warnings=(*conversation.warnings, *renamed.warnings))
        return chat

    def open(self, conversation_id: str, *, system: str | None = None) -> Chat:
        """Make a handle on a conversation without asking the server; *system* is sent with each message."""
        self.bounds.check_open()
        if not conversation_id:
            raise UsageError("a conversation's id is not empty")
        if system and "system" not in self.profile.options:
            raise self.profile.unsupported(Feature.SYSTEM)
        return Chat(self, Conversation(conversation_id, system=system), system or None)

    async def resume(self, conversation_id: str) -> Chat:
        """
        Make a handle on a conversation that the store has, by the store's id of it.

        Raises:
            WrongBackend: Another backend keeps it, or it is another account's.
            UsageError: The store has none of this id.
            StoreError: The store cannot be read.
        """
        self.bounds.check_open()
        remote = self.deliveries.ledger.remote("")
        kept = await self.store.conversation(conversation_id, remote.backend, remote.account)
        with_each = "system" in self.profile.options and not self.backend.profile.can(Feature.SYSTEM)
        return Chat(self, kept.conversation, kept.conversation.system if with_each else None)

    async def keep(
        self,
        conversation: Conversation,
        history: Sequence[Message] = (),
        *,
        system: str | None = None,
        created: bool = False,
        deleted: bool = False,
    ) -> Conversation:
        """
        Take *conversation* into the store, and give it: with a warning, where that fails.

        Args:
            conversation: As the backend told of it.
            history: What was said in it so far.
            system: The system prompt, where the backend does not tell it.
            created: Whether it was just made.
            deleted: Whether it was just deleted.
        """
        if is_kept_here(self.profile):
            return conversation  # It came from there.
        told = evolve(conversation, system=conversation.system or system)
        remote = self.deliveries.ledger.remote(conversation.id)
        try:
            holder = self.deliveries.ledger.holder if created else None
            await self.store.keep(remote, told, history, created=created, deleted=deleted, holder=holder)
        except StoreError as error:
            return evolve(conversation, warnings=(*conversation.warnings, f"it is not stored: {error}"))
        return conversation

    @asynccontextmanager
    async def temporary(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Chat]:
        """
        Create a conversation for the block, and delete it at its end.

        Where the API cannot delete, the conversation stays and a `ConversationKept` warning says so.
        """
        chat = await self.create(title=title, system=system, history=history, extra=extra)
        failed = True
        try:
            yield chat
            failed = False
        finally:
            kept = await self._discard(chat, quietly=failed)
            if kept is not None:
                try:
                    warnings.warn(
                        f"the conversation {chat.id} is still there: {kept}", ConversationKept, stacklevel=3
                    )
                except ConversationKept:  # Where warnings are errors; the block's own error tells more.
                    if not failed:
                        raise

    async def _discard(self, chat: Chat, *, quietly: bool) -> str | None:
        """Delete the conversation; where it cannot be, say why."""
        if not self.profile.can(Feature.DELETE):
            return f"{self.profile.name} cannot delete it"
        try:
            await chat.delete()
        except NotFound:
            return None  # The block deleted it.
        except ChatbridgeError as error:
            if not quietly:
                raise
            return str(error)
        return None

    def conversations(self) -> AsyncIterator[Conversation]:
        """List the conversations, page by page as they are asked for."""
        self.require(Feature.LIST)
        return self.bounds.each(self.filling.list_conversations())

    def orphans(self, *, older_than: float = 3600.0) -> AsyncIterator[Conversation]:
        """
        List the conversations that were made through chatbridge and never used, for the caller to delete.

        One that the store knows to have more messages than it was made with is used, whoever said them. Where
        the API keeps nothing, one that was made with messages is none either: nobody else has them.

        They are those of this backend and account in the store, whatever process made them.

        Args:
            older_than: Seconds since it was made: a process that has just made one is about to use it. With 0
                all of them.
        """
        self.bounds.check_open()
        if not older_than >= 0:
            raise UsageError(f"orphans that are older than {older_than} seconds make no sense")
        found = self.deliveries.ledger.orphans(older_than, empty=is_kept_here(self.profile))
        return self.bounds.each(found)

    def require(self, feature: Feature) -> None:
        """
        Check that *feature* can be used.

        Raises:
            UnsupportedFeature: It cannot.
            UsageError: The bridge is closed.
        """
        self.bounds.check_open()
        if not self.profile.can(feature):
            raise self.profile.unsupported(feature)
