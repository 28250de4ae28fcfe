"""Tachyon: chatrooms with a language model, or with an agent."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from attrs import evolve, frozen

from chatbridge.backend import (
    ContextOwner,
    Feature,
    PartialBackend,
    Profile,
    SettleBy,
    Stores,
    Support,
    by_time,
    check_extra,
    check_tools,
    select_messages,
    text_to_send,
)
from chatbridge.domain import (
    Conversation,
    Finished,
    Message,
    Reply,
    SendOptions,
    Started,
    StreamEvent,
    ToolResult,
)
from chatbridge.errors import NotFound, UsageError
from chatbridge.events import reply_of
from chatbridge.http import Api, Transport, bearer, by_offset
from chatbridge.options import CommonOptions, option
from chatbridge.secret import Secret
from chatbridge_adapters.tachyon import wire
from chatbridge_adapters.tachyon.agent import AgentFold, AgentRequest
from chatbridge_adapters.tachyon.completion import CompletionRequest, RequestMessage, RoomFold
from chatbridge_adapters.tachyon.parts import NAME

PAGE = 100
_SENDABLE = re.compile(r"[\x21-\x7e]+")


def _sendable(_: object, __: object, value: str) -> None:
    if not _SENDABLE.fullmatch(value):
        raise ValueError("holds a character that no tenant's id has")


@frozen(kw_only=True)
class TachyonOptions(CommonOptions):
    """What Tachyon can be told."""

    key: Secret = option("The API key, or a token.")
    operator: str = option(
        "Id of the tenant that the rooms belong to, as in tn_...", validator=_sendable, account=True
    )
    model: str | None = option("The model, as provider:model, or large, or small.", default=None)
    mode: Literal["completion", "agent"] = option(
        "What answers: a model's completion, or the run of an agent.", default="completion"
    )


_NATIVE = (
    Feature.CREATE,
    Feature.TITLE,
    Feature.LIST,
    Feature.RENAME,
    Feature.DELETE,
    Feature.HISTORY,
    Feature.SEND,
    Feature.STREAM,
    Feature.USAGE,
    Feature.TOOLS,
)
_IN_BOTH_MODES = (
    "A conversation is read by looking for it in the list: the API reads no single one.",
    "A room that changes while the list is read moves, and may be missing from what was read.",
    "A history is read as a whole and sorted by time, as the API promises no order.",
)

PROFILE = Profile(
    NAME,
    {**dict.fromkeys(_NATIVE, Support.NATIVE), Feature.GET: Support.EMULATED},
    options={"model", "temperature", "top_p", "max_output_tokens", "tools", "tool_choice", "response_format"},
    context=ContextOwner.SERVER,
    stores=Stores.WITH,
    settle_by={SettleBy.READ_BACK},
    instead={
        Feature.SYSTEM: "say it in the first message",
        Feature.HISTORY_SEED: "say it in the first message",
        Feature.ATTACHMENTS: "a link in the text",
        Feature.REFERENCES: "the results of the server's tools, among the parts of an answer",
        Feature.REASONING: "mode=agent and its agent_log",
    },
    notes=(
        *_IN_BOTH_MODES,
        "Usage comes with whole answers; the API documents none for streams.",
        "What a tool gave is said in the next message: the API documents no other way.",
    ),
)

AGENT_PROFILE = evolve(
    PROFILE.with_features({Feature.TOOLS: Support.UNSUPPORTED}),
    options={"model"},
    instead={
        **PROFILE.instead,
        Feature.SYSTEM: "user_custom_instructions in extra",
        Feature.TOOLS: "tool_access in extra",
        Feature.REASONING: "agent_log",
    },
    notes=(
        *_IN_BOTH_MODES,
        "The server may rename a conversation after a run; chatroom_name_generation=never in extra stops it.",
        "Each turn is a run of an agent, whose tools' calls and results are parts of the answer.",
    ),
)

EXTRA_TO_CREATE = ("metadata",)
EXTRA_TO_SEND = (
    "communication_style",
    "explanation_style",
    "frequency_penalty",
    "memory_settings",
    "presence_penalty",
    "technical_level",
    "user",
)
EXTRA_TO_RUN = (
    "additional_tool_description",
    "agent_protocol_id",
    "agent_protocol_mode",
    "assistant_name",
    "auto_approve",
    "chatroom_name_generation",
    "max_requests",
    "mcp_hub_config_json",
    "tool_access",
    "use_json_tool_calls",
    "user_custom_instructions",
)


def profile(options: TachyonOptions | None = None) -> Profile:
    """Tell what Tachyon can do in the mode of *options*."""
    return AGENT_PROFILE if options is not None and options.mode == "agent" else PROFILE


class TachyonBackend(PartialBackend):
    """Chats in rooms that Tachyon keeps. Beside the protocol it has the API's own operations."""

    def __init__(self, options: TachyonOptions, transport: Transport) -> None:
        self.options = options
        self._profile = profile(options)
        self._api = Api(
            transport,
            NAME,
            headers={"Authorization": bearer(options.key), "x-operator-id": options.operator},
            read_error=wire.read_error,
            can_settle=bool(PROFILE.settle_by),
        )

    @property
    def profile(self) -> Profile:
        """What Tachyon can do in this mode."""
        return self._profile

    async def create_conversation(
        self,
        *,
        title: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Create a room. `extra` may hold `metadata`, any JSON value."""
        self._refuse_given(system=system, history_seed=history)
        extra = extra or {}
        check_extra(extra, EXTRA_TO_CREATE, self.profile)
        warnings: list[str] = []
        if "metadata" in extra:
            _check_metadata(extra["metadata"])
        room = wire.RoomFields(title or None, extra.get("metadata"))
        answer = await self._api.call(wire.CREATE_ROOM, room, warn=warnings.append)
        return wire.to_conversation(answer.chatroom, warnings)

    async def get_conversation(self, conversation_id: str) -> Conversation:
        """
        Look for a room in the list, page by page.

        A room that changes between two pages moves to the first, so that is read again at last.

        Raises:
            NotFound: It is not there.
            UsageError: It is no id of a room.
        """
        _check_id(conversation_id)
        pages = 0

        async def page(offset: int, limit: int) -> list[wire.ChatRoom]:
            nonlocal pages
            rooms = await self._page_of_rooms(offset, limit)
            pages += bool(rooms)
            return rooms

        async for room in by_offset(page, key=lambda room: room.id):
            if room.id == conversation_id:
                return wire.to_conversation(room)
        for room in await page(0, PAGE) if pages > 1 else ():
            if room.id == conversation_id:
                return wire.to_conversation(room)
        raise NotFound(
            f"{NAME} lists no chatroom {conversation_id!r}", provider=NAME, conversation_id=conversation_id
        )

    async def list_conversations(self) -> AsyncIterator[Conversation]:
        """Yield all rooms of the operator."""
        async for room in self._rooms():
            yield wire.to_conversation(room)

    async def search_conversations(
        self, search: str | None = None, *, metadata_user_id: str | None = None
    ) -> AsyncIterator[Conversation]:
        """Yield the rooms that the server finds by *search*, or by the `user_id` in their metadata."""
        async for room in self._rooms(search=search, metadata_user_id=metadata_user_id):
            yield wire.to_conversation(room)

    async def rename_conversation(self, conversation_id: str, title: str) -> Conversation:
        """Give a room another name, which the server trims."""
        return await self._update(conversation_id, wire.RoomFields(name=title))

    async def set_metadata(self, conversation_id: str, metadata: object) -> Conversation:
        """
        Give a room other metadata, any JSON value but null.

        Raises:
            UsageError: It is None, of which nobody knows what the server makes.
        """
        _check_metadata(metadata)
        return await self._update(conversation_id, wire.RoomFields(metadata=metadata))

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a room."""
        await self._api.call(wire.DELETE_ROOM, ids={"chatroom_id": conversation_id})

    async def list_messages(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Message]:
        """Yield the messages, once the whole history has been read and sorted by time."""
        messages = self._history(conversation_id)
        async for message in select_messages(messages, after=after, limit=limit, newest_first=newest_first):
            yield message

    async def agent_log(self, conversation_id: str) -> tuple[Mapping[str, Any], ...]:
        """Read what agents did in a room, reasoning included, as the API tells it: objects with a `type`."""

        async def page(offset: int, limit: int) -> list[Mapping[str, Any]]:
            query = {"limit": limit, "offset": offset}
            log = await self._api.call(wire.READ_LOG, ids={"chatroom_id": conversation_id}, query=query)
            return log.messages

        return tuple([chunk async for chunk in by_offset(page)])

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        """Ask, and wait for the whole answer; `extra` holds fields of `EXTRA_TO_SEND` or `EXTRA_TO_RUN`."""
        if self.options.mode == "agent":
            return await reply_of(self.stream(conversation_id, message, options))
        warnings: list[str] = []
        answer = await self._api.call(
            wire.COMPLETE,
            self._request(message, options),
            ids={"chatroom_id": conversation_id},
            warn=warnings.append,
        )
        if not answer.is_answer:
            raise self._api.failed(wire.COMPLETE, *wire.read_failure(answer))
        fold = RoomFold()
        fold.take(answer, whole=True)
        fold.finish()
        return _finished(fold.reply(), options, warnings)

    def stream(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        """Ask, and yield the answer as it arrives."""
        if self.options.mode == "agent":
            return self._run(conversation_id, message, options)
        return self._complete(conversation_id, message, options)

    async def _complete(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        request = evolve(self._request(message, options), stream=True)
        fold, begun = RoomFold(), False
        async with self._api.stream(wire.STREAM, request, ids={"chatroom_id": conversation_id}) as chunks:
            async for chunk in chunks:
                if chunk.failure is not None or (chunks.whole and not chunk.is_answer):
                    raise chunks.failed(*wire.read_failure(chunk, whole=chunks.whole))
                events = fold.take(chunk, whole=chunks.whole)
                if not begun:
                    begun = True
                    yield Started(model=fold.model)
                for event in events:
                    yield event
        for event in fold.finish():
            yield event
        yield Finished(_finished(fold.reply(), options, chunks.warnings))

    async def _run(
        self, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        extra = dict(options.extra)
        check_extra(extra, EXTRA_TO_RUN, self.profile)
        task, model = text_to_send(message, self.profile), options.model or self.options.model
        request, fold = AgentRequest(task=task, model=model, **extra), AgentFold()
        async with self._api.stream(wire.RUN_AGENT, request, ids={"chatroom_id": conversation_id}) as chunks:
            yield Started()
            async for chunk in chunks:
                if chunks.whole or chunk.type == "error":
                    raise chunks.failed(*wire.read_failure(chunk, whole=chunks.whole))
                for event in fold.take(chunk):
                    yield event
        for event in fold.finish():
            yield event
        yield Finished(_finished(fold.reply(), options, chunks.warnings))

    async def _update(self, conversation_id: str, fields: wire.RoomFields) -> Conversation:
        warnings: list[str] = []
        ids = {"chatroom_id": conversation_id}
        answer = await self._api.call(wire.UPDATE_ROOM, fields, ids=ids, warn=warnings.append)
        return wire.to_conversation(answer.room, warnings)

    def _rooms(self, **query: str | None) -> AsyncGenerator[wire.ChatRoom, None]:
        return by_offset(partial(self._page_of_rooms, query=query), key=lambda room: room.id)

    async def _page_of_rooms(
        self, offset: int, limit: int, *, query: Mapping[str, str | None] | None = None
    ) -> list[wire.ChatRoom]:
        place = {"limit": limit, "offset": offset, **(query or {})}
        return (await self._api.call(wire.LIST_ROOMS, query=place)).chatrooms

    async def _history(self, conversation_id: str) -> AsyncGenerator[Message, None]:
        async def page(offset: int, limit: int) -> list[wire.ChatMessage]:
            # The document requires all three, so an empty search too.
            query = {"limit": limit, "offset": offset, "search": ""}
            ids = {"chatroom_id": conversation_id}
            return (await self._api.call(wire.LIST_MESSAGES, ids=ids, query=query)).messages

        stored = by_offset(page, key=lambda message: message.id or object())
        for message in by_time([wire.to_message(each) async for each in stored]):
            yield message

    def _request(self, message: Message, options: SendOptions) -> CompletionRequest:
        extra = dict(options.extra)
        check_extra(extra, EXTRA_TO_SEND, self.profile)
        check_tools(options.tools, self.profile)
        if any(isinstance(part, ToolResult) for part in message.parts):
            raise UsageError(
                f"{NAME} documents no way to give a tool's result: say it in a text", provider=NAME
            )
        tools: list[Mapping[str, Any]] = [{"type": "function", "function": tool} for tool in options.tools]
        return CompletionRequest(
            messages=[RequestMessage("user", text_to_send(message, self.profile))],
            model=options.model or self.options.model,
            temperature=options.temperature,
            top_p=options.top_p,
            max_completion_tokens=options.max_output_tokens,
            tools=tools or None,
            tool_choice=options.tool_choice,
            response_format=options.response_format,
            **extra,
        )


def _check_id(conversation_id: str) -> None:
    """Refuse what no path could hold, as the calls that send it do."""
    try:
        wire.UPDATE_ROOM.target({"chatroom_id": conversation_id}, {})
    except UsageError as error:
        raise error.because(provider=NAME)


def _check_metadata(metadata: object) -> None:
    if metadata is None:
        raise UsageError(f"{NAME} documents no way to take metadata away: give {{}}", provider=NAME)


def _finished(reply: Reply, options: SendOptions, warnings: Sequence[str]) -> Reply:
    """Add *warnings* to a reply, and one if usage was asked for and not told."""
    if "usage" in options.include and reply.usage is None:
        warnings = [*warnings, "the server told no usage that can be read"]
    every = dict.fromkeys((*warnings, *reply.warnings))
    return evolve(reply, warnings=tuple(every)) if every else reply
