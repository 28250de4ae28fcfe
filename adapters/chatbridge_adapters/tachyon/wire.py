"""
What travels between a client and Tachyon's chatrooms.

Sources: "Tachyon API 0.58.1" (document) in quantum-box/tachyon-sdk at commit 6c56873, and the server's
documentation in quantum-box/tachyon-docs at commit 21a23c0. Errors have two forms: that document's, and one
with a code, of the newer contract in the same repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from types import NoneType
from typing import Any, cast

from attrs import Attribute, field, frozen

from chatbridge.domain import Conversation, Message, Part, Role
from chatbridge.http import (
    DONE,
    ApiError,
    Chunk,
    Endpoint,
    Hint,
    Id,
    Kind,
    Mender,
    Raw,
    ServerSentEvents,
    as_list,
    beyond,
    keep_raw,
    read_event,
    to_role,
    warn_aside,
)
from chatbridge_adapters.tachyon.agent import AgentChunk, AgentRequest, read_chunk
from chatbridge_adapters.tachyon.completion import CompletionRequest
from chatbridge_adapters.tachyon.parts import to_part


@frozen
class ChatRoom:
    """A room."""

    id: Id
    name: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    raw: Raw = keep_raw()


@frozen
class RoomFields:
    """A new room, or what is to change of one: what is left out stays as it is, and null is never sent."""

    name: str | None = None
    metadata: Any = None


@frozen
class RoomAnswer:
    """A room, wrapped."""

    chatroom: ChatRoom


def _room_or_id(answer: RoomChanged, _: Attribute[Any], value: ChatRoom | None) -> None:
    if value is None and answer.id is None:
        raise TypeError("expected a chatroom")


@frozen
class RoomChanged:
    """A changed room: wrapped by the document and the SDK, bare by the server's documentation."""

    id: Id | None = None
    name: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    chatroom: ChatRoom | None = field(default=None, validator=_room_or_id)
    raw: Raw = keep_raw()

    @property
    def room(self) -> ChatRoom:
        """The room."""
        if self.chatroom is not None:
            return self.chatroom
        return ChatRoom(Id(self.id or ""), self.name, self.created_at, self.updated_at, raw=self.raw)


@frozen
class RoomPage:
    """Some of the rooms."""

    chatrooms: list[ChatRoom]


@frozen
class ChatMessage:
    """A stored message. Its content is one part; a bare text, as in the document's example, is one too."""

    id: Id | None = None
    role: Any = None
    content: Any = None
    created_at: datetime | None = None
    raw: Raw = keep_raw()


@frozen
class MessagePage:
    """Some of the messages."""

    messages: list[ChatMessage]


@frozen
class AgentLog:
    """Some of what agents did, as they told it."""

    messages: list[Mapping[str, Any]]


_DOCUMENT = "Tachyon API document 0.58.1"
_DOCUMENTATION = "Tachyon API document 0.58.1; the stream: the server's documentation"
_ROOM = "/v1/llms/chatrooms/{chatroom_id}"
_EVENTS = "text/event-stream, application/json"


def _events(limit: int) -> ServerSentEvents:
    return ServerSentEvents(limit, keep_empty=True)  # The event `done` has been seen without data.


CREATE_ROOM = Endpoint(
    "create_chatroom",
    "POST",
    "/v1/llms/chatrooms",
    Kind.CREATE,
    request=RoomFields,
    answer=RoomAnswer,
    success={200, 201},
)
UPDATE_ROOM = Endpoint("update_chatroom", "PATCH", _ROOM, Kind.WRITE, request=RoomFields, answer=RoomChanged)
DELETE_ROOM = Endpoint(
    "delete_chatroom", "DELETE", _ROOM, Kind.WRITE, answer=NoneType, success={200, 204}, gone_is_done=True
)
LIST_ROOMS = Endpoint(
    "get_chatrooms", "GET", "/v1/llms/chatrooms", Kind.READ, answer=RoomPage, beyond=_DOCUMENT
)
LIST_MESSAGES = Endpoint(
    "get_chatroom_messages", "GET", f"{_ROOM}/messages", Kind.READ, answer=MessagePage, beyond=_DOCUMENT
)
COMPLETE = Endpoint(
    "chat_completion_on_chatroom",
    "POST",
    f"{_ROOM}/chat/completions",
    Kind.SEND,
    request=CompletionRequest,
    answer=Chunk,
    beyond=_DOCUMENT,
)
STREAM = Endpoint(
    "chat_completion_on_chatroom",
    "POST",
    f"{_ROOM}/chat/completions",
    Kind.SEND,
    request=CompletionRequest,
    answer=Chunk,
    accept=_EVENTS,
    framing=_events,
    read=read_event,
    ends=lambda chunk: chunk.object == DONE,
    beyond=_DOCUMENTATION,
)
RUN_AGENT = Endpoint(
    "execute_agent",
    "POST",
    f"{_ROOM}/agent/execute",
    Kind.SEND,
    request=AgentRequest,
    answer=AgentChunk,
    accept=_EVENTS,
    framing=_events,
    read=read_chunk,
    ends=lambda chunk: chunk.type == "done",
    beyond=_DOCUMENTATION,
)
READ_LOG = Endpoint(
    "get_agent_messages", "GET", f"{_ROOM}/agent/messages", Kind.READ, answer=AgentLog, beyond=_DOCUMENT
)
ENDPOINTS = (
    CREATE_ROOM,
    UPDATE_ROOM,
    DELETE_ROOM,
    LIST_ROOMS,
    LIST_MESSAGES,
    COMPLETE,
    STREAM,
    RUN_AGENT,
    READ_LOG,
)


def to_conversation(room: ChatRoom, warnings: list[str] | None = None) -> Conversation:
    """Say a room in ours."""
    return Conversation(
        room.id,
        title=room.name,
        created_at=room.created_at,
        updated_at=room.updated_at,
        warnings=warnings or (),
        extra=beyond(room.raw, "id", "name", created_at=room.created_at, updated_at=room.updated_at),
    )


def to_message(message: ChatMessage) -> Message:
    """Say a stored message in ours; one of a role that is none of ours passes for the assistant's."""
    mended = Mender()
    parts: list[Part] = []
    extra = beyond(message.raw, "id", "role", "content", "chatroom_id", created_at=message.created_at)
    role, unread = _role(message.role)
    for each in as_list(message.content):
        part, beside = to_part(each, mended)
        parts.append(part)
        extra |= beside
    if mended.replaced:
        warn_aside(Mender.WARNING)
    return Message(
        role,
        parts,
        id=message.id or None,
        created_at=message.created_at,
        extra=extra | unread,
    )


def _role(role: object) -> tuple[Role, dict[str, Any]]:
    if isinstance(role, str):
        known, unread = to_role(role)
        return known, dict(unread)
    return Role.ASSISTANT, {} if role is None else {"role": role}


_NAMED = re.compile(r"([A-Za-z]+): ")
_MONEY = re.compile("payment|credit|quota|billing", re.IGNORECASE)


def read_error(status: int, body: Any) -> ApiError:  # noqa: ANN401 - JSON
    """Read an error in either form: with a code, or with the error's name before its message."""
    if isinstance(body, str):
        return ApiError(body or None)
    if not isinstance(body, dict):
        return ApiError()
    fields = cast(dict[str, object], body)
    message, code = fields.get("message"), fields.get("code")
    if message is None and "error" in fields:
        return read_error(status, fields["error"])
    if not isinstance(message, str):
        message = None
    if not isinstance(code, str):
        named = _NAMED.match(message or "")
        code = named[1] if named else None
    hint = Hint.QUOTA if _MONEY.search(code or "") else None
    return ApiError(message, code, hint, from_api=code is not None)


def read_failure(said: Chunk | AgentChunk, *, whole: bool = True) -> tuple[str | None, str | None]:
    """Read the words and the code of a failure, or of a *whole* document that is no answer."""
    failure = said.failure if isinstance(said, Chunk) else None
    error = read_error(200, failure or said.raw)
    return error.message or ("what came is not an answer" if whole else None), error.code
