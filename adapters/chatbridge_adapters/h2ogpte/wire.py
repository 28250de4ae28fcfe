"""
What travels between a client and h2oGPTe's chat sessions.

Sources: h2ogpte 1.6.20 and 1.7.5 on PyPI (their generated REST clients), and the server's own
document "h2oGPTe REST API v1.0.0". Fields that only newer servers know are optional here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from types import NoneType
from typing import Any, cast

from attrs import define, evolve, field, frozen

from chatbridge.domain import Conversation, Message, Reference, Role, Text, Usage
from chatbridge.http import (
    ApiError,
    BrokenContent,
    DataLines,
    Endpoint,
    Id,
    Kind,
    Raw,
    beyond,
    keep_raw,
    loads,
    mend,
    mend_all,
)


@frozen
class ChatSession:
    """A session; there is no time of creation."""

    id: Id
    name: str | None = None
    updated_at: datetime | None = None
    raw: Raw = keep_raw()


@frozen
class SessionCount:
    """How many sessions there are."""

    count: int


@frozen
class NewSession:
    """The body of a creation, which only newer servers read."""

    workspace: str


@frozen
class SessionUpdate:
    """Another name."""

    name: str


@frozen
class CollectionChange:
    """The collection to answer from."""

    collection_id: str


@frozen
class PromptTemplateChange:
    """The prompt template to use."""

    prompt_template_id: str


@frozen
class ChatMessage:
    """A message of the history. It has no role: with `reply_to` it is an answer, without it is the user's."""

    id: Id
    content: str
    created_at: datetime | None = None
    username: str | None = None
    reply_to: Id | None = None
    raw: Raw = keep_raw()


@frozen
class SuggestedQuestion:
    """A question that the session's documents can answer."""

    question: str


@frozen
class MessageMeta:
    """
    One thing that the server knows of a message.

    Attributes:
        message_type: Such as `usage_stats`, `prompt_raw`, `llm_only`, `self_reflection`, `hyde1`.
        content: Text, often JSON.
    """

    message_type: str
    content: str


@frozen
class MessageReference:
    """A piece of a document that an answer rests on."""

    document_id: Id
    document_name: str | None = None
    pages: str | None = None
    content: str | None = None
    score: float | None = None
    uri: str | None = None
    raw: Raw = keep_raw()


@frozen
class CompletionRequest:
    """
    A question.

    The vendor's client always sends English texts as `pre_prompt_query` and `prompt_query`; left out, the
    server's own apply.
    """

    message: str
    system_prompt: str | None = None
    pre_prompt_query: str | None = None
    prompt_query: str | None = None
    image_batch_final_prompt: str | None = None
    image_batch_image_prompt: str | None = None
    llm: str | None = None
    llm_args: Mapping[str, Any] | None = None
    self_reflection_config: Mapping[str, Any] | None = None
    rag_config: Mapping[str, Any] | None = None
    include_chat_history: str | None = None
    tags: list[str] | Mapping[str, Any] | None = None
    stream: bool = False


@frozen
class Completion:
    """A whole answer; older servers give no `message_id`."""

    body: str
    message_id: Id | None = None
    raw: Raw = keep_raw()


@define  # Frozen ones cost twice as much to make, and a long answer has thousands.
class CompletionLine:
    """
    One line of a streamed answer.

    With `error` the answer has failed. With `finished` true, `body` is the whole answer and replaces
    what came before. Without that field it is the one answer of a server that does not stream, if there
    is no other line.
    """

    body: str | None = None
    finished: bool | None = None
    message_id: Id | None = None
    error: str | None = field(default=None, repr=False)
    raw: Raw = keep_raw()

    @property
    def is_last(self) -> bool:
        """Whether this line is the end mark."""
        return self.finished is True and self.error is None


_SESSION = "/chats/{session_id}"

CREATE_SESSION = Endpoint(
    "create_chat_session",
    "POST",
    "/chats",
    Kind.CREATE,
    request=NewSession,
    answer=ChatSession,
    success={200, 201},
)
LIST_SESSIONS = Endpoint("list_chat_sessions", "GET", "/chats", Kind.READ, answer=list[ChatSession])
COUNT_SESSIONS = Endpoint("get_chat_session_count", "GET", "/chats/count", Kind.READ, answer=SessionCount)
GET_SESSION = Endpoint("get_chat_session", "GET", _SESSION, Kind.READ, answer=ChatSession)
RENAME_SESSION = Endpoint(
    "update_chat_session", "PATCH", _SESSION, Kind.WRITE, request=SessionUpdate, answer=ChatSession
)
# Judged by its status alone: the documents promise a session, and 204 has no body.
DELETE_SESSION = Endpoint(
    "delete_chat_session",
    "DELETE",
    _SESSION,
    Kind.WRITE,
    answer=NoneType,
    success={200, 204},
    gone_is_done=True,
)
SET_COLLECTION = Endpoint(
    "update_chat_session_collection",
    "PUT",
    f"{_SESSION}/collection",
    Kind.WRITE,
    request=CollectionChange,
    answer=ChatSession,
)
REMOVE_COLLECTION = Endpoint(
    "delete_chat_session_collection",
    "DELETE",
    f"{_SESSION}/collection",
    Kind.WRITE,
    answer=ChatSession,
)
SET_PROMPT_TEMPLATE = Endpoint(
    "update_chat_session_prompt_template",
    "PUT",
    f"{_SESSION}/prompt_template",
    Kind.WRITE,
    request=PromptTemplateChange,
    answer=ChatSession,
)
REMOVE_PROMPT_TEMPLATE = Endpoint(
    "delete_chat_session_prompt_template",
    "DELETE",
    f"{_SESSION}/prompt_template",
    Kind.WRITE,
    answer=ChatSession,
)
LIST_MESSAGES = Endpoint(
    "get_chat_session_messages", "GET", f"{_SESSION}/messages", Kind.READ, answer=list[ChatMessage]
)
LIST_QUESTIONS = Endpoint(
    "list_questions_for_chat_session",
    "GET",
    f"{_SESSION}/questions",
    Kind.READ,
    answer=list[SuggestedQuestion],
)
COMPLETE = Endpoint(
    "get_completion",
    "POST",
    f"{_SESSION}/completions",
    Kind.SEND,
    request=CompletionRequest,
    answer=Completion,
)
STREAM = Endpoint(
    "get_completion",
    "POST",
    f"{_SESSION}/completions",
    Kind.SEND,
    request=CompletionRequest,
    answer=CompletionLine,
    accept="*/*",
    framing=DataLines,
    ends=lambda line: line.is_last,
    whole=lambda line: line.finished is None,
)
GET_META = Endpoint(
    "get_message_meta", "GET", "/messages/{message_id}/meta", Kind.READ, answer=list[MessageMeta]
)
GET_REFERENCES = Endpoint(
    "get_message_references",
    "GET",
    "/messages/{message_id}/references",
    Kind.READ,
    answer=list[MessageReference],
)
ENDPOINTS = (
    CREATE_SESSION,
    LIST_SESSIONS,
    COUNT_SESSIONS,
    GET_SESSION,
    RENAME_SESSION,
    DELETE_SESSION,
    SET_COLLECTION,
    REMOVE_COLLECTION,
    SET_PROMPT_TEMPLATE,
    REMOVE_PROMPT_TEMPLATE,
    LIST_MESSAGES,
    LIST_QUESTIONS,
    COMPLETE,
    STREAM,
    GET_META,
    GET_REFERENCES,
)


def mended(line: CompletionLine) -> CompletionLine:
    """Take halves of characters out of all but the text of *line*, whose other half may be in the next."""
    raw, _ = mend_all(line.raw)
    return evolve(line, raw=raw, message_id=line.message_id and Id(mend(line.message_id)[0]))


def to_conversation(session: ChatSession) -> Conversation:
    """Say a session in ours."""
    return Conversation(
        session.id,
        title=session.name,
        updated_at=session.updated_at,
        extra=beyond(session.raw, "id", "name", updated_at=session.updated_at),
    )


def to_message(message: ChatMessage) -> Message:
    """Say a message of the history in ours."""
    return Message(
        Role.USER if message.reply_to is None else Role.ASSISTANT,
        (Text(message.content),),
        id=message.id,
        author=message.username,
        created_at=message.created_at,
        reply_to=message.reply_to,
        extra=beyond(message.raw, "id", "content", "username", "reply_to", created_at=message.created_at),
    )


def to_reference(reference: MessageReference) -> Reference:
    """Say a reference in ours."""
    return Reference(
        reference.document_id,
        title=reference.document_name,
        uri=reference.uri,
        pages=reference.pages,
        score=reference.score,
        excerpt=reference.content,
        extra=beyond(reference.raw, "document_id", "document_name", "uri", "pages", "score", "content"),
    )


def to_usage(entries: Iterable[MessageMeta]) -> tuple[Usage | None, Mapping[str, Any]]:
    """
    Read the `usage_stats` of an answer, and give them as they came besides.

    Its content is JSON whose `usage` lists the calls of models with `input_tokens` and `output_tokens`, as
    the command line in h2ogpte 1.7.5 reads it; no document describes it.
    """
    for entry in entries:
        if entry.message_type == "usage_stats":
            try:
                stats, _ = mend_all(loads(entry.content.encode()))
            except BrokenContent:
                continue
            if isinstance(stats, dict):
                known = cast(dict[str, object], stats)
                return _sum_usage(known), known
    return None, {}


def _sum_usage(stats: Mapping[str, object]) -> Usage | None:
    usage = stats.get("usage", stats)
    calls = cast(list[object], usage) if isinstance(usage, list) else [usage]
    dicts = [cast(dict[str, object], call) for call in calls if isinstance(call, dict)]

    def total(name: str) -> int | None:
        counts = [call[name] for call in dicts if name in call]
        known = [count for count in counts if isinstance(count, int) and not isinstance(count, bool)]
        return sum(known) if known else None

    found = Usage(total("input_tokens"), total("output_tokens"), cost=_to_cost(stats.get("cost")))
    return None if found == Usage() else found


def _to_cost(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # A whole number may be beyond any float.
            return float(value)
    return None


def read_error(_: int, body: Any) -> ApiError:  # noqa: ANN401 - JSON
    """Read an EndpointError. Its `code` repeats the status; newer servers add an `error_type`."""
    if not isinstance(body, dict):
        return ApiError()
    fields = cast(dict[str, object], body)
    message, kind = fields.get("message"), fields.get("error_type")
    return ApiError(
        message if isinstance(message, str) else None,
        code=kind if isinstance(kind, str) else None,
        # A gateway may say `message` too; `code` is required.
        from_api=isinstance(message, str) and isinstance(fields.get("code"), int),
    )
