"""
What travels between a client and Datamonkey's chat.

Sources: Datamonkey API 1.2.0 (document), its generated client `openapi_client` 1.0.0, and the server
service-datamonkey at commit 8fa7f84, which wins where they differ: in the bodies of errors, and in what it
leaves out or sends as null.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import NoneType
from typing import Any, cast

from attrs import evolve, frozen

from chatbridge.domain import Conversation, Message, Reply, Role, Text
from chatbridge.http import ApiError, Endpoint, Id, Kind, Raw, beyond, keep_raw, to_role


@frozen
class NewConversation:
    """The body of a creation, which may be left out altogether."""

    title: str


@frozen
class ChatConversation:
    """
    A conversation. The answer to a creation has no title where it is empty.

    That to a read holds the messages too, which the history is for.
    """

    id: Id
    title: str | None = None
    created: datetime | None = None
    updated: datetime | None = None
    raw: Raw = keep_raw()


@frozen
class ConversationList:
    """All conversations of a session, newest update first."""

    conversations: list[ChatConversation] | None = None


@frozen
class ChatMessage:
    """A message; it has no id."""

    role: str
    content: str
    timestamp: datetime | None = None
    raw: Raw = keep_raw()


@frozen
class History:
    """The messages of a conversation, oldest first; null where there are none."""

    messages: list[ChatMessage] | None = None


@frozen
class NewMessage:
    """A question."""

    message: str


@frozen
class Answer:
    """The answer to a question, complete."""

    message: ChatMessage
    raw: Raw = keep_raw()


_CONVERSATION = "/chat/{conversation_id}"

CREATE = Endpoint(
    "create_conversation",
    "POST",
    "/chat",
    Kind.CREATE,
    request=NewConversation,
    answer=ChatConversation,
    success={201},
)
LIST = Endpoint("list_user_conversations", "GET", "/chat", Kind.READ, answer=ConversationList)
GET = Endpoint("get_conversation", "GET", _CONVERSATION, Kind.READ, answer=ChatConversation)
DELETE = Endpoint(
    "delete_conversation",
    "DELETE",
    _CONVERSATION,
    Kind.WRITE,
    answer=NoneType,
    success={204},
    gone_is_done=True,
)
LIST_MESSAGES = Endpoint(
    "get_conversation_messages", "GET", f"{_CONVERSATION}/messages", Kind.READ, answer=History
)
SEND = Endpoint(
    "send_conversation_message",
    "POST",
    f"{_CONVERSATION}/messages",
    Kind.SEND,
    request=NewMessage,
    answer=Answer,
)
ENDPOINTS = (CREATE, LIST, GET, DELETE, LIST_MESSAGES, SEND)


def to_conversation(conversation: ChatConversation, warnings: Iterable[str] = ()) -> Conversation:
    """Say a conversation in ours; an empty title is none."""
    created, updated = conversation.created, conversation.updated
    return Conversation(
        conversation.id,
        title=conversation.title or None,
        created_at=created,
        updated_at=updated,
        warnings=tuple(warnings),
        extra=beyond(conversation.raw, "id", "title", "messages", created=created, updated=updated),
    )


def to_message(message: ChatMessage) -> Message:
    """Say a message in ours."""
    role, odd = to_role(message.role)
    extra = beyond(message.raw, "role", "content", timestamp=message.timestamp) | odd
    return Message(role, (Text(message.content),), created_at=message.timestamp, extra=extra)


def to_reply(answer: Answer, warnings: Iterable[str]) -> Reply:
    """Say an answer in ours; whoever is said to speak, it is the assistant's."""
    message = to_message(answer.message)
    if message.role is not Role.ASSISTANT:
        extra = {**message.extra, "role": message.role.value}
        message = evolve(message, role=Role.ASSISTANT, extra=extra)
    return Reply((message,), warnings=tuple(warnings), extra=beyond(answer.raw, "message"))


def read_error(_: int, body: Any) -> ApiError:  # noqa: ANN401 - JSON
    """Read `error`, all that the server says, or `message` and `code`, which the document promises."""
    if isinstance(body, dict):
        fields = cast(dict[str, object], body)
        said = [fields.get("error"), fields.get("message")]
        code = fields.get("code")
        return ApiError(
            next((text for text in said if isinstance(text, str) and text), None),
            code=code if isinstance(code, str) else None,
        )
    return ApiError()
