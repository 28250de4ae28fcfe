"""
An emulator of Datamonkey's chat: its six operations, and the sessions that own the conversations.

Sources: Datamonkey API 1.2.0 (document) and the server at commit 8fa7f84, which wins where they differ. What
they leave open is decided here: a question and its answer always have the same timestamp, as they may on the
server; a body that is no JSON is told of in words like those of Go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from typing import ClassVar
from urllib.parse import urlencode

from aiohttp import web
from attrs import define, evolve, field

from chatbridge.testing.emulator import (
    Answer,
    Call,
    Emulator,
    Fault,
    Keeper,
    Kept,
    Operation,
    Refusal,
    is_object,
)
from chatbridge_adapters.datamonkey.records import LIFETIME, Conversation, Message, Session

__all__ = ["DatamonkeyEmulator"]

_Unrouted = Callable[[Call], Answer]

# What a token is needed for, as the server says it.
PURPOSES = {
    "list_user_conversations": "list conversations",
    "get_conversation": "access conversations",
    "delete_conversation": "delete conversations",
    "get_conversation_messages": "access conversations",
    "send_conversation_message": "send messages",
}


@define(kw_only=True, eq=False)
class DatamonkeyEmulator(Emulator):
    """
    The six chat operations.

    A creation without a token that holds opens a session. `key` is the token of one that is there from the
    beginning; a key that is given is taken for such a token, whatever it looks like.

    Attributes:
        sessions: The sessions, by their tokens.
        user_token_enabled: Whether sessions are checked. Without, a creation takes its owner from the header
            `user_token`, and the other operations check nothing.
        has_model: Whether there is a model; without one, a send makes the server panic.
    """

    name: ClassVar[str] = "datamonkey"
    base_path: ClassVar[str] = "/api/v1"
    key_variable: ClassVar[str] = "DATAMONKEY_SESSION_TOKEN"

    key: str = ""
    user_token_enabled: bool = True
    has_model: bool = True
    sessions: dict[str, Session] = field(init=False, factory=dict[str, Session])
    # In the order of their last update, which no clock can blur.
    _conversations: dict[str, Conversation] = field(init=False, factory=dict[str, Conversation])

    def __attrs_post_init__(self) -> None:
        session = self._new_session()
        self.key = self.key or session.token
        self.sessions[self.key] = session

    @property
    def operations(self) -> Sequence[Operation]:
        """The API's routes."""
        chat = "/chat/{conversation_id}"
        return (
            Operation("create_conversation", "POST", "/chat", self._create, public=True),
            Operation("list_user_conversations", "GET", "/chat", self._list),
            Operation("get_conversation", "GET", chat, self._get),
            Operation("delete_conversation", "DELETE", chat, self._delete),
            Operation("get_conversation_messages", "GET", f"{chat}/messages", self._messages),
            Operation("send_conversation_message", "POST", f"{chat}/messages", self._answer),
        )

    def app(self) -> web.Application:
        """Build the application; what is no route of it is redirected or not found, as gin does it."""
        app = super().app()
        for operation in self.operations:
            path = f"{self.base_path}{operation.path}/"
            app.router.add_route(operation.method, path, partial(self._unrouted, _redirect))
        app.router.add_route("*", "/{path:.*}", partial(self._unrouted, _no_route))
        return app

    def admit(self, call: Call) -> None:
        """Raise `Refusal` unless *call* carries the token of a session."""
        if self.user_token_enabled and self._session(call) is None:
            raise Refusal(
                self.error(401, f"Unauthorized - valid token required to {PURPOSES[call.operation or '']}")
            )

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Say *message* under ``error``."""
        return _json({"error": message}, status=status, headers=headers)

    def expire(self, token: str) -> None:
        """Let the time of a session's token be over."""
        self.sessions[token] = evolve(self.sessions[token], expires=self.now())

    # Sessions

    def _new_session(self) -> Session:
        return Session(str(self.ids()), self.now() + LIFETIME)

    def _session(self, call: Call) -> Session | None:
        session = self.sessions.get(_token(call) or "")
        return session if session is not None and self.now() < session.expires else None

    def _owner(self, call: Call) -> tuple[str, dict[str, str]]:
        """Give the owner of a new conversation, and the headers that tell of a session opened for it."""
        if not self.user_token_enabled:
            owner = call.headers.get("user_token")
            if not owner:
                raise Refusal(self.error(401, "User token is required"))
            return owner, {}
        session = self._session(call)
        if session is not None:
            return session.user, {}
        session = self._new_session()
        self.sessions[session.token] = session
        return session.user, {
            "X-Session-Token": session.token,
            "Access-Control-Expose-Headers": "X-Session-Token",
        }

    # Conversations

    async def _create(self, call: Call) -> Answer:
        owner, headers = self._owner(call)
        conversation = Conversation(
            id=f"conv-{self._milliseconds()}-{self.ids().hex[-8:]}",
            owner=owner,
            title=_title(call),
            created=self._milliseconds(),
            updated=self._milliseconds(),
        )
        self._conversations[conversation.id] = conversation
        return _json(conversation.show_new(), status=201, headers=headers)

    async def _list(self, call: Call) -> Answer:
        listed = [
            each.show_listed() for each in reversed(self._conversations.values()) if self._sees(call, each)
        ]
        return _json({"conversations": listed})

    async def _get(self, call: Call) -> Answer:
        return _json(self._conversation(call).show())

    async def _delete(self, call: Call) -> Answer:
        del self._conversations[self._conversation(call, "delete").id]
        return Answer(status=204, content_type=None)

    async def _messages(self, call: Call) -> Answer:
        return _json(self._conversation(call).show_messages())

    async def _answer(self, call: Call) -> Answer:
        conversation = self._conversation(call)
        said, at = self._said(call), self._milliseconds()
        if not self.has_model:
            return Answer(status=500, content_type=None)
        answer = Message("assistant", self.responder(said, conversation.history()), at)
        keep = self._keeper(conversation, Message("user", said, at), answer)
        return _json({"message": answer.show()}, keep=keep)

    def _keeper(self, conversation: Conversation, question: Message, answer: Message) -> Keeper:
        def keep(kept: Kept, error: str | None) -> None:
            del error
            conversation.messages.extend([question, answer] if kept == "turn" else [question])
            conversation.updated = self._milliseconds()
            # It may have been deleted while its answer was on the way.
            if self._conversations.pop(conversation.id, None) is not None:
                self._conversations[conversation.id] = conversation

        return keep

    def _milliseconds(self) -> int:
        return (self.now() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

    # Reading requests

    def _sees(self, call: Call, conversation: Conversation) -> bool:
        session = self._session(call)
        return not self.user_token_enabled or (session is not None and session.user == conversation.owner)

    def _conversation(self, call: Call, purpose: str = "access") -> Conversation:
        conversation = self._conversations.get(call.params["conversation_id"])
        if conversation is None:
            raise Refusal(self.error(404, "Conversation not found"))
        if not self._sees(call, conversation):
            raise Refusal(self.error(403, f"You don't have permission to {purpose} this conversation"))
        return conversation

    def _said(self, call: Call) -> str:
        try:
            said = _said(call)
        except ValueError as error:
            raise Refusal(self.error(400, f"Invalid request: {error}"))
        return said

    # What is no route

    async def _unrouted(self, answer: _Unrouted, request: web.Request) -> web.StreamResponse:
        call = self._record(request, None, await request.read())
        return await self._send(request, call, answer(call), Fault())


def _no_route(_: Call) -> Answer:
    return Answer(parts=(b"404 page not found",), status=404, content_type="text/plain")


def _redirect(call: Call) -> Answer:
    """Point to the path without its slash; only GET is shown a page."""
    query = f"?{urlencode(call.query)}" if call.query else ""
    location = call.path.removesuffix("/") + query
    if call.method != "GET":
        return Answer(status=307, content_type=None, headers={"Location": location})
    page = f'<a href="{escape(location)}">Moved Permanently</a>.\n\n'.encode()
    return Answer(
        parts=(page,), status=301, content_type="text/html; charset=utf-8", headers={"Location": location}
    )


def _token(call: Call) -> str | None:
    """Find the token in the first place that has one; an Authorization of another form is none."""
    scheme, *tokens = call.headers.get("Authorization", "").split(" ")
    if scheme == "Bearer" and len(tokens) == 1:
        return tokens[0]
    return call.headers.get("user_token") or call.query.get("user_token")


def _title(call: Call) -> str:
    """Read the title; whatever is none counts as empty."""
    try:
        body = call.json()
    except ValueError:
        return ""
    title = body.get("title") if is_object(body) else None
    return title if isinstance(title, str) else ""


# What Go calls the values of JSON, null aside.
_KINDS: Mapping[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def _said(call: Call) -> str:
    """
    Read what is said.

    Raises:
        ValueError: There is nothing, in the server's words.
    """
    if not call.body.strip():
        raise ValueError("EOF")
    try:
        body = call.json()
    except ValueError:
        raise ValueError("invalid character in the body") from None
    if not is_object(body) and body is not None:
        raise ValueError(f"json: cannot unmarshal {_KINDS[type(body)]} into Go value")
    said = None if body is None else body.get("message")
    if not isinstance(said, str) and said is not None:
        raise ValueError(
            f"json: cannot unmarshal {_KINDS[type(said)]} into Go struct field .message of type string"
        )
    if not said:
        raise ValueError("Key: 'Message' Error:Field validation for 'Message' failed on the 'required' tag")
    return said


# What travels


def _json(
    value: object,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    keep: Keeper | None = None,
) -> Answer:
    """Answer with *value* as Go's encoder writes it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Answer(
        parts=(text.encode(),),
        status=status,
        content_type="application/json; charset=utf-8",
        headers=headers or {},
        keep=keep,
    )
