"""
What travels between a client and Mtmai: its chat sessions, and the runs through which a message is answered.

Sources: the generated client of codeh007/mtmai at commit 03a13158 (document version 1.0.0) for the sessions;
for runs the same document, and the web interface codeh007/mtx at commit 201dfeac, which reads them. The
events inside are the messages of autogen-agentchat 0.4.5. The server itself is not public.
"""

# ruff: noqa: N815 - the fields have the API's names

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

from attrs import define, field, frozen, validators

from chatbridge.domain import Conversation, Message, Text
from chatbridge.http import (
    ApiError,
    Endpoint,
    Frame,
    Id,
    Kind,
    PrefixedLines,
    Raw,
    beyond,
    keep_raw,
    loads,
    to_role,
)

TEXT_MESSAGE = "TextMessage"
CHUNK = "ModelClientStreamingChunkEvent"
END_OF_TEXT = "d"
END_OF_RUN = "WorkflowRunEnd"

_START = "WorkflowRunStart"
_SENT_AS_EVENTS = ("", "2")  # The prefixes of lines that hold events; bare lines do, too.


@frozen(kw_only=True)
class Metadata:
    """What the server keeps of each thing that it stores."""

    id: Id | None = None
    createdAt: datetime | None = None
    updatedAt: datetime | None = None
    raw: Raw = keep_raw()


@frozen(kw_only=True)
class KnownMetadata(Metadata):
    """That of a thing that has an id."""

    id: Id = field(validator=validators.min_len(1))


@frozen(kw_only=True)
class ChatSession:
    """A session; the document lets it be without metadata, and so without an id."""

    name: str
    metadata: Metadata | None = None
    raw: Raw = keep_raw()


@frozen(kw_only=True)
class CreatedSession(ChatSession):
    """A session that nobody could address if it told no id."""

    metadata: KnownMetadata = field()


@frozen
class ChatSessionList:
    """All sessions of a tenant."""

    rows: list[ChatSession] | None = None


@frozen
class ChatSessionUpdate:
    """The body of a creation and of a renaming."""

    name: str | None = None


@frozen
class ChatMessage:
    """A message of the history."""

    metadata: KnownMetadata
    role: str
    content: str
    source: str | None = None
    raw: Raw = keep_raw()


@frozen
class ChatMessages:
    """The whole history of a session."""

    messages: list[ChatMessage] | None = None


@frozen
class NewMetadata:
    """What a client makes up for a message that it sends."""

    id: str
    createdAt: str
    updatedAt: str


@frozen
class NewMessage:
    """A message to be answered."""

    metadata: NewMetadata
    role: str
    content: str


@frozen
class FlowAgPayload:
    """What the flow "ag" takes: the team reads the last message only, and nobody reads the session's id."""

    teamId: str
    sessionId: str
    messages: list[NewMessage]


@frozen
class AgentRunInput:
    """A run to be started; the web interface says `isStream` false, and reads a stream all the same."""

    name: str
    isStream: bool
    params: FlowAgPayload


@define
class Said:
    """What an agent says: a whole message, or a piece of one. Without `source` nobody tells who."""

    content: str
    source: str | None = None
    raw: Raw = keep_raw()


@define
class Event:
    """
    One event of a run.

    Attributes:
        kind: The API's word for it; the prefix of its line, where that is none for events.
        said: Of the kinds `TEXT_MESSAGE` and `CHUNK`, what is said.
        fields: All of it as it came.
    """

    kind: str = field(repr=False)
    fields: Raw = field(repr=False)
    said: Said | None = None


@define
class Told:
    """What a line tells: events, or the words of a failure."""

    events: list[Event] = field(factory=list[Event])
    error: str | None = field(default=None, repr=False)


@define
class Line:
    """
    One line of a run, or a JSON document in place of its lines.

    Attributes:
        as_line: What `read_line` makes of a line; None for a document.
        raw: The document.
    """

    as_line: Told | None = None
    raw: Raw = keep_raw()

    @property
    def events(self) -> list[Event]:
        """The events on the line."""
        return self.as_line.events if self.as_line else []

    @property
    def error(self) -> str | None:
        """The words of a failure, if this is what tells one."""
        return self.as_line.error if self.as_line else _failure(self.raw)

    @property
    def run_id(self) -> str | None:
        """The id of the run that has been started, if this is what says so."""
        told = [event.fields for event in self.events] if self.as_line else [self.raw]
        return next((found for fields in told if (found := _run_id(fields))), None)

    @property
    def begins(self) -> bool:
        """Whether there is nothing here but the start of a run, or what is no event."""
        return all(event.kind in {"", _START} for event in self.events)


_BEYOND = "the API's document as the web interface codeh007/mtx at commit 201dfeac uses it"
_CHATS = "/api/v1/tenants/{tenant}/chats"

CREATE_SESSION = Endpoint(
    "chat_create_chat_session",
    "POST",
    _CHATS,
    Kind.CREATE,
    request=ChatSessionUpdate,
    answer=CreatedSession,
)
LIST_SESSIONS = Endpoint("chat_list", "GET", _CHATS, Kind.READ, answer=ChatSessionList)
GET_SESSION = Endpoint("chat_get", "GET", f"{_CHATS}/{{chat}}", Kind.READ, answer=ChatSession)
RENAME_SESSION = Endpoint(
    "chat_update_chat_session",
    "PUT",
    f"{_CHATS}/{{chat}}",
    Kind.WRITE,
    request=ChatSessionUpdate,
    answer=ChatSession,
)
LIST_MESSAGES = Endpoint(
    "chat_messages", "GET", f"{_CHATS}/{{chatId}}/messages", Kind.READ, answer=ChatMessages
)


def read_line(frame: Frame) -> dict[str, object]:
    """
    Make a `Line` of a frame.

    Raises:
        BrokenContent: It holds no JSON.
    """
    return {"as_line": _told(frame.name, loads(frame.data))}


def _told(prefix: str, value: object) -> dict[str, object]:
    """Make a `Told` of a line; its prefixes are those of the AI SDK's data streams."""
    if prefix == "3":
        return {"error": value if isinstance(value, str) else _message(value) or "no reason was given"}
    if prefix == "0":
        return {"events": [{"kind": CHUNK, "fields": {}, "said": {"content": value}}]}
    if prefix not in _SENT_AS_EVENTS:
        return {"events": [{"kind": prefix, "fields": _fields(value)}]}
    if _is_object(value) and (message := _failure(value)):
        return {"error": message}
    return {"events": [_event(each) for each in (value if _is_list(value) else [value])]}


RUN = Endpoint(
    "agent_run",
    "POST",
    "/api/v1/tenants/{tenant}/nodes/run",
    Kind.SEND,
    request=AgentRunInput,
    answer=Line,
    accept="text/event-stream",
    framing=PrefixedLines,
    read=read_line,
    ends=lambda line: line.run_id is not None,
    whole=lambda line: line.begins,
    beyond=_BEYOND,
)
PULL = Endpoint(
    "agent_stream",
    "GET",
    "/api/v1/tenants/{tenant}/stream/{stream}",
    Kind.RESULT,
    answer=Line,
    accept="text/event-stream",
    framing=PrefixedLines,
    read=read_line,
    beyond=_BEYOND,
)
ENDPOINTS = (CREATE_SESSION, LIST_SESSIONS, GET_SESSION, RENAME_SESSION, LIST_MESSAGES, RUN, PULL)


def to_run(team: str, session_id: str, message_id: str, text: str, at: float) -> AgentRunInput:
    """Make the run in which *team* answers *text*, sent *at* that many seconds after 1970."""
    now = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = NewMessage(NewMetadata(message_id, now, now), "user", text)
    return AgentRunInput("ag", isStream=False, params=FlowAgPayload(team, session_id, [message]))


def to_conversation(session: ChatSession, session_id: str) -> Conversation:
    """Say a session in ours."""
    metadata = session.metadata or Metadata()
    return Conversation(
        session_id,
        title=session.name,
        created_at=metadata.createdAt,
        updated_at=metadata.updatedAt,
        extra=beyond(session.raw, "metadata", "name") | _more(metadata, updatedAt=metadata.updatedAt),
    )


def to_message(message: ChatMessage) -> Message:
    """Say a message of the history in ours."""
    role, odd = to_role(message.role)
    return Message(
        role,
        (Text(message.content),),
        id=message.metadata.id,
        author=message.source,
        created_at=message.metadata.createdAt,
        extra=beyond(message.raw, "metadata", "role", "content", "source") | odd | _more(message.metadata),
    )


def read_error(_: int, body: Any) -> ApiError:  # noqa: ANN401 - JSON
    """Read an APIErrors or an APIError, of whatever status, or what others say in `message` or `error`."""
    if not _is_object(body):
        return ApiError()
    errors, error = body.get("errors"), body.get("error")
    listed = [each for each in errors if _is_object(each)] if _is_list(errors) else []
    listed = listed or [error if _is_object(error) else body]
    codes = [each["code"] for each in listed if isinstance(each.get("code"), int | str)]
    return ApiError(
        "; ".join(filter(None, map(_words, listed))) or None, code=str(codes[0]) if codes else None
    )


def _words(error: Mapping[str, object]) -> str | None:
    """Give the words of an error, behind the field at fault."""
    told = (error.get(name) for name in ("description", "message", "error"))
    text = next((each for each in told if isinstance(each, str) and each), None)
    place = error.get("field")
    return f"{place}: {text}" if text and place and isinstance(place, str) else text


def _message(body: object) -> str | None:
    return read_error(200, body).message


def _failure(value: Mapping[str, object]) -> str | None:
    """Find the words of a failure in what is no event, and no AgentNodeRun, which is described alike."""
    return None if _kind(value) or _run_id(value) or "nodeId" in value else _message(value)


def _more(metadata: Metadata, **read: object) -> dict[str, Any]:
    """Give what is left of the metadata, if anything, under its own name."""
    left = beyond(metadata.raw, "id", createdAt=metadata.createdAt, **read)
    return {"metadata": left} if left else {}


def _kind(event: Mapping[str, object]) -> str:
    words = (event.get("event"), event.get("type"))
    return next((word for word in words if isinstance(word, str)), "")


def _event(value: object) -> dict[str, object]:
    fields = _fields(value)
    kind = _kind(fields)
    said = {"said": fields} if kind in {TEXT_MESSAGE, CHUNK} else {}
    return {"kind": kind, "fields": fields, **said}


def _run_id(fields: Mapping[str, object]) -> str | None:
    """Find the id of a run: of an AgentNodeRun, or of the event that says that it starts."""
    ids = [fields.get("workflowRunId")]
    data = fields.get("data")
    if _kind(fields) == _START and _is_object(data):
        ids += [data.get("id"), data.get("workflowRunId")]
    return next((str(each) for each in ids if (isinstance(each, str) and each) or type(each) is int), None)


def _fields(value: object) -> dict[str, object]:
    return value if _is_object(value) else {"data": value}


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
