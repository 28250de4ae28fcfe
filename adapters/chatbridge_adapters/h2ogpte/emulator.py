"""
An emulator of h2oGPTe's chat sessions: its fifteen chat operations, answers whole and streamed.

Sources: h2ogpte 1.6.20 and 1.7.5 (generated clients), "h2oGPTe REST API v1.0.0". What they leave open is
decided here: sessions come newest update first, messages oldest first; both halves of a turn are stored once
the answer is complete; an unknown session or message is a 404; any id of a collection or prompt template
will do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, TypeVar

from attrs import define, evolve, field

from chatbridge.testing.emulator import (
    Answer,
    Call,
    Emulator,
    Keeper,
    Kept,
    Operation,
    Refusal,
)
from chatbridge.testing.responder import pieces
from chatbridge_adapters.h2ogpte.question import Request
from chatbridge_adapters.h2ogpte.records import Message, Reference, Session, answer_meta

__all__ = ["H2OGPTeEmulator"]

_Entry = TypeVar("_Entry")

INFO_TYPES = ("self_reflection", "usage_stats", "prompt_raw", "llm_only", "hyde1", "py_client_code")


@define(kw_only=True, eq=False)
class H2OGPTeEmulator(Emulator):
    """
    The fifteen chat operations.

    What a request asks for can be read back: ``prompt_raw`` in the metadata of an answer is JSON with all
    that the model was shown, and ``usage_stats`` names the model. In a session with a collection every answer
    has two references, unless ``rag_type`` is ``llm_only``.

    Attributes:
        max_limit: A page is clipped to this many entries.
        cumulative: Stream the text so far in each line instead of what is new; the documents allow both.
    """

    name: ClassVar[str] = "h2ogpte"
    base_path: ClassVar[str] = "/api/v1"
    key_variable: ClassVar[str] = "H2OGPTE_API_KEY"

    max_limit: int = 1000
    cumulative: bool = False
    # In the order of their last update, which no clock can blur.
    _sessions: dict[str, Session] = field(init=False, factory=dict[str, Session])

    @property
    def operations(self) -> Sequence[Operation]:
        """The API's routes, ``/chats/count`` before ``/chats/{session_id}``."""
        chat, message = "/chats/{session_id}", "/messages/{message_id}"
        return (
            Operation("create_chat_session", "POST", "/chats", self._create),
            Operation("list_chat_sessions", "GET", "/chats", self._list),
            Operation("get_chat_session_count", "GET", "/chats/count", self._count),
            Operation("get_chat_session", "GET", chat, self._get),
            Operation("update_chat_session", "PATCH", chat, self._rename),
            Operation("delete_chat_session", "DELETE", chat, self._delete),
            Operation("update_chat_session_collection", "PUT", f"{chat}/collection", self._set_collection),
            Operation(
                "delete_chat_session_collection", "DELETE", f"{chat}/collection", self._unset_collection
            ),
            Operation(
                "update_chat_session_prompt_template", "PUT", f"{chat}/prompt_template", self._set_template
            ),
            Operation(
                "delete_chat_session_prompt_template",
                "DELETE",
                f"{chat}/prompt_template",
                self._unset_template,
            ),
            Operation("get_chat_session_messages", "GET", f"{chat}/messages", self._messages),
            Operation("list_questions_for_chat_session", "GET", f"{chat}/questions", self._questions),
            Operation("get_completion", "POST", f"{chat}/completions", self._complete),
            Operation("get_message_meta", "GET", f"{message}/meta", self._meta),
            Operation("get_message_references", "GET", f"{message}/references", self._references),
        )

    def admit(self, call: Call) -> None:
        """Raise `Refusal` unless *call* carries the key."""
        if call.bearer != self.key:
            raise Refusal(self.error(401, "Unauthorized - Invalid or missing API key"))

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Say *message* in an EndpointError."""
        return Answer.json({"code": status, "message": message}, status=status, headers=headers)

    def error_line(self, message: str) -> bytes:
        """Say *message* in a ChatError on a line of its own."""
        return Answer.json_lines([{"error": message}]).parts[0]

    def answer_late(self, session_id: str) -> None:
        """
        Answer the last question of a session, which a fault left alone.

        Raises:
            ValueError: It is not alone.
        """
        session = self._sessions[session_id]
        if not session.messages or session.messages[-1].reply_to is not None:
            raise ValueError(f"no question of session {session_id} waits for an answer")
        question = session.messages.pop()
        request = Request(fields={"message": question.content, "llm_args": json.loads(question.llm_args)})
        answer = self._answer(session, request)
        self._store(session, evolve(question, error=None), evolve(answer, reply_to=question.id))

    # Sessions

    async def _create(self, call: Call) -> Answer:
        session = Session(
            id=str(self.ids()),
            updated_at=self.now(),
            collection_id=call.query.get("collection_id"),
            workspace=self._text(call, "workspace", optional=True) if call.body else None,
        )
        self._sessions[session.id] = session
        # A new session shows only what is set; later it shows all fields, null where unset.
        shown = {name: value for name, value in session.show().items() if value is not None}
        return Answer.json(shown, status=201)

    async def _list(self, call: Call) -> Answer:
        newest_first = list(reversed(self._sessions.values()))
        return Answer.json([session.show() for session in self._page(call, newest_first)])

    async def _count(self, call: Call) -> Answer:
        del call
        return Answer.json({"count": len(self._sessions)})

    async def _get(self, call: Call) -> Answer:
        return Answer.json(self._session(call).show())

    async def _rename(self, call: Call) -> Answer:
        session = self._session(call)
        session.name = self._text(call, "name")
        return self._changed(session)

    async def _delete(self, call: Call) -> Answer:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", call.query.get("timeout", "300"), re.ASCII):
            raise Refusal(self.error(400, "timeout must be a number of seconds"))
        del self._sessions[self._session(call).id]
        return Answer(status=204, content_type=None)

    async def _set_collection(self, call: Call) -> Answer:
        session = self._session(call)
        session.collection_id = self._text(call, "collection_id")
        return self._changed(session)

    async def _unset_collection(self, call: Call) -> Answer:
        session = self._session(call)
        session.collection_id = None
        return self._changed(session)

    async def _set_template(self, call: Call) -> Answer:
        session = self._session(call)
        session.prompt_template_id = self._text(call, "prompt_template_id", optional=True)
        return self._changed(session)

    async def _unset_template(self, call: Call) -> Answer:
        session = self._session(call)
        session.prompt_template_id = None
        return self._changed(session)

    async def _questions(self, call: Call) -> Answer:
        said = [turn.said for turn in self._session(call).history()]
        questions = ["What can you do?", *(f"What follows from {each!r}?" for each in said)]
        shown = questions[: self._number(call, "limit", 100)]
        return Answer.json([{"question": question} for question in shown])

    # Messages

    async def _messages(self, call: Call) -> Answer:
        return Answer.json([message.show() for message in self._page(call, self._session(call).messages)])

    async def _complete(self, call: Call) -> Answer:
        session, request = self._session(call), self._completion(call)
        answer = self._answer(session, request)
        keep = self._keeper(session, request, answer)
        whole: dict[str, object] = {"message_id": answer.id, "body": answer.content}
        if not request.stream:
            return Answer.json(whole, keep=keep)
        lines = [{"body": body, "finished": False} for body in self._bodies(answer.content)]
        return Answer.json_lines([*lines, whole | {"finished": True}], keep=keep)

    async def _meta(self, call: Call) -> Answer:
        wanted = call.query.get("info_type")
        if wanted not in {None, *INFO_TYPES}:
            raise Refusal(self.error(400, f"info_type must be one of {', '.join(INFO_TYPES)}"))
        meta = self._message(call).meta.items()
        return Answer.json(
            [{"message_type": kind, "content": content} for kind, content in meta if wanted in {None, kind}]
        )

    async def _references(self, call: Call) -> Answer:
        references = self._message(call).references[: self._number(call, "limit", self.max_limit)]
        return Answer.json([reference.show() for reference in references])

    # Turns

    def _answer(self, session: Session, request: Request) -> Message:
        history = session.history() if request.sees_history else []
        content = self.responder(request.message, history)
        references: Sequence[Reference] = ()
        if session.collection_id is not None and request.rag_type != "llm_only":
            references = [Reference(document=n, collection_id=session.collection_id) for n in (1, 2)]
        return Message(
            id=str(self.ids()),
            content=content,
            created_at=self.now(),
            llm_args="null",
            references=references,
            meta=dict(answer_meta(session, request, history, [each.excerpt for each in references], content)),
        )

    def _keeper(self, session: Session, request: Request, answer: Message) -> Keeper:
        def keep(kept: Kept, error: str | None) -> None:
            question = Message(
                id=str(self.ids()),
                content=request.message,
                created_at=self.now(),
                llm_args=request.llm_args,
                error=error if kept == "question" else None,
            )
            answers = [evolve(answer, reply_to=question.id, created_at=self.now())] if kept == "turn" else []
            self._store(session, question, *answers)

        return keep

    def _store(self, session: Session, *messages: Message) -> None:
        session.messages.extend(messages)
        self._changed(session)

    def _changed(self, session: Session) -> Answer:
        session.updated_at = self.now()
        # It may have been deleted while its answer was on the way.
        if self._sessions.pop(session.id, None) is not None:
            self._sessions[session.id] = session
        return Answer.json(session.show())

    def _bodies(self, text: str) -> Iterator[str]:
        said = ""
        for piece in pieces(text):
            said = said + piece if self.cumulative else piece
            yield said

    # Reading requests

    def _session(self, call: Call) -> Session:
        session = self._sessions.get(call.params["session_id"])
        if session is None:
            raise Refusal(self.error(404, "Chat session not found"))
        return session

    def _message(self, call: Call) -> Message:
        for session in self._sessions.values():
            for message in session.messages:
                if message.id == call.params["message_id"]:
                    return message
        raise Refusal(self.error(404, "Message not found"))

    def _page(self, call: Call, entries: Sequence[_Entry]) -> Sequence[_Entry]:
        offset = self._number(call, "offset", 0)
        return entries[offset : offset + min(self._number(call, "limit", 100), self.max_limit)]

    def _number(self, call: Call, name: str, default: int) -> int:
        value = call.query.get(name, str(default))
        if not re.fullmatch("[0-9]{1,18}", value, re.ASCII):
            raise Refusal(self.error(400, f"{name} must be a whole number from 0 up, of at most 18 digits"))
        return int(value)

    def _text(self, call: Call, name: str, *, optional: bool = False) -> str | None:
        value = call.fields().get(name)
        if (isinstance(value, str) and value) or (value is None and optional):
            return value or None
        raise Refusal(self.error(400, f"{name} must be a non-empty string"))

    def _completion(self, call: Call) -> Request:
        try:
            return Request(fields=call.fields())
        except ValueError as error:
            raise Refusal(self.error(400, str(error)))
