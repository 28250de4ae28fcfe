"""
What travels between a client and Kaziro's broker.

Source: kaziro 1.0.6 on PyPI, the generated `BrokerApi` and its models. No document of the server is
public; what the client leaves open is read leniently.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from attrs import frozen

from chatbridge.domain import Conversation, FinishReason, Message, Reply, Role, Text
from chatbridge.http import (
    ApiError,
    Endpoint,
    Id,
    Kind,
    Raw,
    beyond,
    keep_raw,
    to_finish_reason,
    to_usage,
)


@frozen
class ThreadCreated:
    """Answer to the creation of a thread."""

    thread_id: Id
    raw: Raw = keep_raw()


@frozen
class ThreadMetadata:
    """State of a thread; each field may be missing or null, and no value is documented."""

    status: str | None = None
    user_id: str | None = None
    processing_message_type: str | None = None
    raw: Raw = keep_raw()


@frozen
class ChatMessage:
    """A message; the role is any text."""

    role: str
    content: str
    raw: Raw = keep_raw()


@frozen
class CompletionRequest:
    """A message to the broker. `extra_headers` is a field of the body, its purpose undocumented."""

    model: str
    messages: list[ChatMessage]
    thread_id: str | None = None
    extra_headers: Mapping[str, Any] | None = None


@frozen
class Choice:
    """One answer; null and a missing `finish_reason` mean stop."""

    index: int
    message: ChatMessage
    finish_reason: str | None = None
    raw: Raw = keep_raw()


@frozen
class Completion:
    """
    Answer to a message.

    `created` is taken for Unix seconds, and `usage` for OpenAI's names; neither is documented.
    """

    id: Id
    choices: list[Choice]
    created: datetime | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    raw: Raw = keep_raw()


CREATE_THREAD = Endpoint(
    "create_thread_endpoint_v1_broker_thread_create_post",
    "POST",
    "/v1/broker/thread/create",
    Kind.CREATE,
    answer=ThreadCreated,
)
GET_THREAD = Endpoint(
    "get_thread_metadata_endpoint_v1_broker_thread_retrieve_get",
    "GET",
    "/v1/broker/thread/retrieve",
    Kind.READ,
    answer=ThreadMetadata,
)
COMPLETE = Endpoint(
    "create_chat_message_endpoint_v1_broker_chat_completions_post",
    "POST",
    "/v1/broker/chat/completions",
    Kind.SEND,
    request=CompletionRequest,
    answer=Completion,
)
ENDPOINTS = (CREATE_THREAD, GET_THREAD, COMPLETE)


def to_conversation(thread_id: str, raw: Raw) -> Conversation:
    """Say a thread in ours: it has an id, and what the API tells of it goes into `extra`."""
    return Conversation(thread_id, extra=beyond(raw, "thread_id"))


def to_reply(answer: Completion) -> Reply:
    """Say the broker's *answer* in ours."""
    extra = beyond(answer.raw, "id", "choices", "model", created=answer.created)
    if not answer.choices:
        empty = Message(Role.ASSISTANT, id=answer.id, created_at=answer.created)
        warning = "the answer holds no choice, so there is no text"
        return Reply((empty,), model=answer.model, warnings=(warning,), extra=extra)
    choice, *others = answer.choices
    if others:
        extra["choices"] = answer.raw["choices"][1:]
    return Reply(
        (_to_message(choice, answer),),
        finish_reason=to_finish_reason(choice.finish_reason or FinishReason.STOP),
        raw_finish_reason=choice.finish_reason,
        usage=to_usage(answer.usage),
        model=answer.model,
        extra=extra,
    )


def _to_message(choice: Choice, answer: Completion) -> Message:
    said = choice.message
    extra = beyond(choice.raw, "index", "message", "finish_reason") | beyond(said.raw, "role", "content")
    if said.role != Role.ASSISTANT:
        extra["role"] = said.role
    return Message(
        Role.ASSISTANT, (Text(said.content),), id=answer.id, created_at=answer.created, extra=extra
    )


def read_error(_: int, body: Any) -> ApiError:  # noqa: ANN401 - JSON
    """
    Read `detail`, which comes in three forms.

    An object for the declared errors, a list for a request that fails validation, and a text for what
    the framework says by itself.
    """
    detail: object = cast(Mapping[str, object], body).get("detail") if isinstance(body, Mapping) else None
    if isinstance(detail, str):
        return ApiError(detail)
    if isinstance(detail, Mapping):
        message = cast(Mapping[str, object], detail).get("message")
        return ApiError(message if isinstance(message, str) else None)
    if isinstance(detail, list):
        return ApiError("; ".join(_problem(item) for item in cast(list[object], detail)) or None)
    return ApiError()


def _problem(item: object) -> str:
    if not isinstance(item, Mapping):
        return "not valid"
    fields = cast(Mapping[str, object], item)
    where = fields.get("loc")
    path = ".".join(str(step) for step in cast(list[object], where)) if isinstance(where, list) else "?"
    return f"{path}: {fields.get('msg', 'not valid')}"
