"""
An emulator of Mtmai: the five operations on chat sessions, and the two through which a team answers.

Sources: the generated client of codeh007/mtmai at commit 03a13158, the web interface codeh007/mtx at commit
201dfeac, autogen-agentchat 0.4.5 for the events of a run, hatchet-dev/hatchet for the errors. What they
leave open is decided here: sessions come newest first, messages in the order in which they were stored; an
unknown session or run is a 404 without a body; another tenant is a 403; the events of a run can be pulled
once; a run leaves nothing in a session.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar, Literal

from attrs import define, field

from chatbridge.testing.emulator import Answer, Call, Emulator, Operation, Refusal
from chatbridge.testing.responder import pieces
from chatbridge_adapters.mtmai.requests import read_name, read_run

__all__ = ["MtmaiEmulator"]

BAD_REQUEST = 1400
FORBIDDEN = "Please provide valid credentials"
LINES = "text/event-stream"  # That is what they are called, and not what they are.
UNNAMED = "新会话"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _metadata(thing_id: str, created: datetime, updated: datetime) -> dict[str, object]:
    return {"id": thing_id, "createdAt": _time(created), "updatedAt": _time(updated)}


@define(kw_only=True, eq=False)
class Session:
    """A session and what was put into it; without metadata, as the document allows, it tells no id."""

    id: str
    name: str
    team: str
    created_at: datetime
    updated_at: datetime
    has_metadata: bool
    messages: list[dict[str, object]] = field(factory=list[dict[str, object]])

    def show(self) -> dict[str, object]:
        """Show a ChatSession."""
        metadata = {"metadata": _metadata(self.id, self.created_at, self.updated_at)}
        shown: dict[str, object] = {"name": self.name, "version": "1", "team": self.team}
        return metadata | shown if self.has_metadata else shown


@define(kw_only=True, eq=False)
class MtmaiEmulator(Emulator):
    """
    The seven operations, for one tenant with one team.

    The key is taken as a bearer token, as NAME:PASSWORD, or as the cookie `hatchet`. The first agent of the
    team answers the last message of a run, and each further one the agent before it.

    Attributes:
        tenant: The tenant's id.
        team: The team's id.
        agents: The names of the agents that answer, in their order.
        streaming: Whether an agent's text comes in pieces before it comes whole.
        run_id_field: Where the answer to a run names the run.
        script: The lines that runs tell in place of what happens; None for that.
        empty: How a list of nothing is shown.
        metadata: Whether new sessions have metadata, and so an id that clients can see.
    """

    name: ClassVar[str] = "mtmai"
    key_variable: ClassVar[str] = "MTMAI_TOKEN"

    tenant: str = "707d0855-80ab-4e1f-a156-f1c4546cbf52"
    team: str = "0b0e9f0c-6f5d-4a3e-9f0b-2f1f4a6f7a11"
    agents: Sequence[str] = ("assistant",)
    streaming: bool = True
    run_id_field: Literal["id", "workflowRunId"] = "id"
    script: Sequence[bytes] | None = None
    empty: Literal["array", "missing", "null"] = "array"
    metadata: bool = True
    _sessions: dict[str, Session] = field(init=False, factory=dict[str, Session])
    _runs: dict[str, Sequence[bytes]] = field(init=False, factory=dict[str, Sequence[bytes]])

    @property
    def operations(self) -> Sequence[Operation]:
        """The API's routes."""
        tenant = "/api/v1/tenants/{tenant}"
        chats = f"{tenant}/chats"
        return (
            Operation("chat_create_chat_session", "POST", chats, self._create),
            Operation("chat_list", "GET", chats, self._list),
            Operation("chat_get", "GET", f"{chats}/{{chat}}", self._get),
            Operation("chat_update_chat_session", "PUT", f"{chats}/{{chat}}", self._rename),
            Operation("chat_messages", "GET", f"{chats}/{{chatId}}/messages", self._messages),
            Operation("agent_run", "POST", f"{tenant}/nodes/run", self._run),
            Operation("agent_stream", "GET", f"{tenant}/stream/{{stream}}", self._pull),
        )

    @property
    def options(self) -> dict[str, str]:
        """The tenant and its team."""
        return {"tenant": self.tenant, "team": self.team}

    def admit(self, call: Call) -> None:
        """Raise `Refusal` unless *call* carries the key in one of the three ways, and is the tenant's."""
        presented = (call.bearer, _basic(call), _cookie(call))
        if self.key not in presented or call.params["tenant"] != self.tenant:
            raise Refusal(self.error(403, FORBIDDEN))

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Say *message* in an APIErrors (400), an APIError (403), or as the framework does."""
        said: object = {"message": message}
        if status == 400:  # noqa: PLR2004 - as HTTP has it
            said = {"errors": [{"code": BAD_REQUEST, "description": message}]}
        elif status == 403:  # noqa: PLR2004
            said = {"description": message}
        return Answer.json(said, status=status, headers=headers)

    def error_line(self, message: str) -> bytes:
        """Say *message* on an error line of a data stream."""
        return b"3:" + _line(message)

    def remember(
        self, session_id: str, role: str, content: str, *, at: datetime | None = None, **more: object
    ) -> str:
        """Put a message into a session, with *more* of its fields, and give its id."""
        message_id, moment = str(self.ids()), at or self.now()
        shown = {"metadata": _metadata(message_id, moment, moment), "role": role, "content": content, **more}
        self._sessions[session_id].messages.append(shown)
        return message_id

    # Sessions

    async def _create(self, call: Call) -> Answer:
        now = self.now()
        session = Session(
            id=str(self.ids()),
            name=self._name(call) or UNNAMED,
            team=self.team,
            created_at=now,
            updated_at=now,
            has_metadata=self.metadata,
        )
        self._sessions[session.id] = session
        return Answer.json(session.show())

    async def _list(self, call: Call) -> Answer:
        del call
        return self._all("rows", [session.show() for session in reversed(self._sessions.values())])

    async def _get(self, call: Call) -> Answer:
        return Answer.json(self._session(call, "chat").show())

    async def _rename(self, call: Call) -> Answer:
        session, name = self._session(call, "chat"), self._name(call)
        if name is not None:
            session.name, session.updated_at = name, self.now()
        return Answer.json(session.show())

    async def _messages(self, call: Call) -> Answer:
        return self._all("messages", self._session(call, "chatId").messages)

    def _all(self, name: str, entries: Sequence[object]) -> Answer:
        if not entries and self.empty != "array":
            return Answer.json({} if self.empty == "missing" else {name: None})
        return Answer.json({name: entries})

    # Runs

    async def _run(self, call: Call) -> Answer:
        try:
            message = read_run(call.fields(), self.team)
        except ValueError as error:
            raise Refusal(self.error(400, str(error)))
        run_id, now = str(self.ids()), self.now()
        self._runs[run_id] = tuple(self._told(message)) if self.script is None else self.script
        if "application/json" in call.headers.get("Accept", ""):
            node = {"workflowRunId": run_id, "nodeId": str(self.ids())}
            return Answer.json({"metadata": _metadata(str(self.ids()), now, now), **node})
        start = {"type": "WorkflowRunStart", "data": {self.run_id_field: run_id}}
        return Answer(parts=(b"2:" + _line(start),), content_type=LINES, streamed=True)

    async def _pull(self, call: Call) -> Answer:
        lines = self._runs.pop(call.params["stream"], None)
        if lines is None:
            raise Refusal(_missing())
        return Answer(parts=tuple(lines), content_type=LINES, streamed=True)

    def _told(self, message: str) -> Iterator[bytes]:
        """Give the lines that a run tells of how the team answers *message*."""
        yield _event("user", message, "TextMessage")
        for agent in self.agents:
            answer = self.responder(message, [])
            if self.streaming:
                for piece in pieces(answer):
                    yield _event(agent, piece, "ModelClientStreamingChunkEvent")
            usage = {"prompt_tokens": len(message.split()), "completion_tokens": len(answer.split())}
            yield _event(agent, answer, "TextMessage", usage)
            message = answer

    # Reading requests

    def _session(self, call: Call, placeholder: str) -> Session:
        session = self._sessions.get(call.params[placeholder])
        if session is None:
            raise Refusal(_missing())
        return session

    def _name(self, call: Call) -> str | None:
        try:
            return read_name(call.fields())
        except ValueError as error:
            raise Refusal(self.error(400, str(error)))


def _missing() -> Answer:
    return Answer(status=404, content_type=None)


def _event(source: str, content: str, kind: str, usage: Mapping[str, int] | None = None) -> bytes:
    return _line({"source": source, "models_usage": usage, "content": content, "type": kind})


def _line(value: object) -> bytes:
    """Write a line as Python's json does by itself: ASCII, a blank behind each comma and colon."""
    return json.dumps(value).encode() + b"\n"


def _basic(call: Call) -> str | None:
    scheme, _, encoded = call.headers.get("Authorization", "").partition(" ")
    try:
        return b64decode(encoded, validate=True).decode() if scheme == "Basic" else None
    except (binascii.Error, ValueError):
        return None


def _cookie(call: Call) -> str | None:
    cookies = (pair.strip().partition("=") for pair in call.headers.get("Cookie", "").split(";"))
    return next((value for name, _, value in cookies if name == "hatchet"), None)
