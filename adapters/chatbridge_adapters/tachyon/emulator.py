"""
An emulator of Tachyon's chatrooms: nine operations, completions whole and streamed, runs of agents.

Sources: "Tachyon API 0.58.1" (document) and its newer contract, both in quantum-box/tachyon-sdk at commit
6c56873, and the server's documentation in quantum-box/tachyon-docs at commit 21a23c0. What they leave open
is decided here: rooms come newest update first, messages oldest first; a page is clipped to 100 rooms; null
is as good as left out; any operator may call, but one must; names and texts are searched whatever their case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from attrs import define, field

from chatbridge.testing.emulator import Answer, Call, Emulator, Keeper, Kept, Operation, Refusal, is_object
from chatbridge.testing.instances import arguments
from chatbridge.testing.responder import Exchange
from chatbridge_adapters.tachyon import answers
from chatbridge_adapters.tachyon.answers import Given
from chatbridge_adapters.tachyon.records import (
    DEFAULT_NAME,
    ROOM_ID,
    Room,
    StoredMessage,
    Turn,
    log_of,
    ulid,
)
from chatbridge_adapters.tachyon.requests import SIZES, CompletionAsked, RunAsked
from chatbridge_adapters.tachyon.turns import Json, parts_of_deltas, parts_of_run, words_of

__all__ = ["TachyonEmulator"]

_MASKED = 500
_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("BadRequest", "BAD_REQUEST"),
    401: ("UnauthorizedError", "UNAUTHORIZED"),
    402: ("PaymentRequired", "PAYMENT_REQUIRED"),
    403: ("PermissionDenied", "FORBIDDEN"),
    404: ("NotFoundError", "NOT_FOUND"),
    405: ("MethodNotAllowed", "METHOD_NOT_ALLOWED"),
    409: ("Conflict", "CONFLICT"),
    422: ("UnprocessableEntity", "UNPROCESSABLE_ENTITY"),
    429: ("TooManyRequests", "TOO_MANY_REQUESTS"),
    _MASKED: ("InternalServerError", "INTERNAL_SERVER_ERROR"),
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@define(kw_only=True, eq=False)
class TachyonEmulator(Emulator):
    """
    The three documented operations on rooms, and six more.

    A turn is stored once it is answered, question and answer together as they were told, or not at all: a
    run that is scripted to fail leaves nothing. A message that names a tool on offer has it called.

    Attributes:
        operator: The tenant that clients are told to name.
        errors: The version whose form errors have.
        providers: Whose models are served.
        broke: Refuse answers, as there are no credits.
        chunk_shaped: Answer whole completions in a room with a chunk, as the document declares.
        bare_done: End the runs of agents with a `done` that has no data.
        deltas: Streamed before the words of a completion in a room, such as what tools on the server do.
        run: What an agent streams instead of saying the answer, up to its usage.
    """

    name: ClassVar[str] = "tachyon"
    key_variable: ClassVar[str] = "TACHYON_API_KEY"

    operator: str = "tn_01hjryxysgey07h5jz5wagqj0m"
    errors: Literal["0.58.1", "v1"] = "0.58.1"
    providers: frozenset[str] = frozenset({"anthropic", "google_ai", "openai"})
    broke: bool = False
    chunk_shaped: bool = False
    bare_done: bool = False
    deltas: Sequence[Json] = ()
    run: Sequence[Json] | None = None
    # In the order of their last update, which no clock can blur.
    _rooms: dict[str, Room] = field(init=False, factory=dict[str, Room])

    @property
    def operations(self) -> Sequence[Operation]:
        """The API's routes."""
        rooms, room = "/v1/llms/chatrooms", "/v1/llms/chatrooms/{chatroom_id}"
        stateless = "/v1/llms/chat/completions"
        return (
            Operation("create_chatroom", "POST", rooms, self._create),
            Operation("get_chatrooms", "GET", rooms, self._list),
            Operation("update_chatroom", "PATCH", room, self._update),
            Operation("delete_chatroom", "DELETE", room, self._delete),
            Operation("get_chatroom_messages", "GET", f"{room}/messages", self._messages),
            Operation("chat_completion_on_chatroom", "POST", f"{room}/chat/completions", self._complete),
            Operation("chat_completion", "POST", stateless, self._complete_without_room),
            Operation("execute_agent", "POST", f"{room}/agent/execute", self._run_agent),
            Operation("get_agent_messages", "GET", f"{room}/agent/messages", self._log),
        )

    @property
    def options(self) -> dict[str, str]:
        """The operator."""
        return {"operator": self.operator}

    def admit(self, call: Call) -> None:
        """Raise `Refusal` unless *call* carries the key and names an operator."""
        if call.bearer != self.key:
            # Seen like this; it has a code whatever the version.
            said = {"code": "UNAUTHORIZED", "message": "verify token failed"}
            raise Refusal(Answer.json(said, status=401))
        if not call.headers.get("x-operator-id", "").strip():
            raise Refusal(self.error(400, "x-operator-id is required"))

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Say *message* in the form of the version; what the server itself fails at is masked."""
        name, code = _ERRORS.get(status, _ERRORS[400 if status < _MASKED else _MASKED])
        if status >= _MASKED:
            message = "internal server error"
        return self._said(status, name, code, message, headers)

    def error_line(self, message: str) -> bytes:
        """Say *message* in an event, whose data tells its type as agents' do."""
        return answers.event({"type": "error", "code": "STREAM_ERROR", "message": message}, "error")

    def _said(
        self, status: int, name: str, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> Answer:
        said = {"message": f"{name}: {message}"}
        if self.errors == "v1":
            said = {"code": code, "message": message}
        return Answer.json(said, status=status, headers=headers)

    # Rooms

    async def _create(self, call: Call) -> Answer:
        fields = call.fields()
        name, metadata, now = self._name(fields), fields.get("metadata"), self.now()
        room = Room(
            id=f"ch_{self._ulid()}", operator=call.headers["x-operator-id"], created_at=now, updated_at=now
        )
        room.name = room.name if name is None else name
        room.metadata = room.metadata if metadata is None else metadata
        self._rooms[room.id] = room
        return Answer.json({"chatroom": room.show()})

    async def _list(self, call: Call) -> Answer:
        search, user = call.query.get("search", ""), call.query.get("metadata_user_id")
        rooms = [
            room
            for room in reversed(self._rooms.values())
            if room.operator == call.headers["x-operator-id"]
            and search.casefold() in room.name.casefold()
            and (user is None or (is_object(room.metadata) and room.metadata.get("user_id") == user))
        ]
        offset, limit = self._number(call, "offset", "0"), min(self._number(call, "limit", "20"), 100)
        paginator = {
            "current_page": offset // max(limit, 1) + 1,
            "items_per_page": limit,
            "total_items": len(rooms),
            "total_pages": -(-len(rooms) // max(limit, 1)),
        }
        page = [room.show() for room in rooms[offset : offset + limit]]
        return Answer.json({"chatrooms": page, "paginator": paginator})

    async def _update(self, call: Call) -> Answer:
        room, fields = self._room(call), call.fields()
        name, metadata = self._name(fields), fields.get("metadata")
        room.name = room.name if name is None else name
        room.metadata = room.metadata if metadata is None else metadata
        self._changed(room)
        return Answer.json({"chatroom": room.show()})

    async def _delete(self, call: Call) -> Answer:
        del self._rooms[self._room(call).id]
        return Answer(status=204, content_type=None)

    async def _messages(self, call: Call) -> Answer:
        room = self._room(call)
        offset, limit = self._number(call, "offset"), self._number(call, "limit")
        if "search" not in call.query:
            raise Refusal(self.error(400, "search is required"))
        found = [each for each in room.messages() if each.says(call.query["search"])]
        return Answer.json({"messages": [each.show(room.id) for each in found[offset : offset + limit]]})

    # Completions

    async def _complete(self, call: Call) -> Answer:
        room, asked = self._room(call), self._completion(call)
        history = room.history()
        given = self._given(asked, history)
        head = {"id": f"msg_{self._ulid().upper()}", "model": asked.model}
        before = self.deltas if asked.stream else ()
        keep = self._keeper(room, asked.said, parts_of_deltas([*before, *given.deltas()]))
        if asked.stream:
            return _events(list(answers.room_chunks(head, given, self.deltas)), keep)
        counts = answers.usage(_shown(history, asked.said), given.text)
        whole = answers.whole_answer(head, self._seconds(), given, counts, chunk_shaped=self.chunk_shaped)
        return Answer.json(whole, keep=keep)

    async def _complete_without_room(self, call: Call) -> Answer:
        asked = self._completion(call)
        given = self._given(asked, asked.history)
        head = {"id": f"chatcmpl-{self._ulid()}", "model": asked.model}
        if asked.stream:
            return _events(list(answers.stateless_chunks(head, self._seconds(), given)))
        counts = answers.usage(_shown(asked.history, asked.said), given.text)
        return Answer.json(answers.whole_answer(head, self._seconds(), given, counts, chunk_shaped=False))

    def _given(self, asked: CompletionAsked, history: Sequence[Exchange]) -> Given:
        self._check_model(asked.model)
        if self.broke:
            raise Refusal(self.error(402, "insufficient credits"))
        if asked.tool is not None:
            given = answers.compact(arguments(asked.tool.get("parameters"), asked.said))
            call = {"id": f"call_{self._ulid()}", "name": str(asked.tool.get("name")), "arguments": given}
            return Given(text="", reason="tool_calls", call=call)
        text, reason = asked.shorten(self.responder(asked.said, history))
        return Given(text=text, reason=reason)

    # Agents

    async def _run_agent(self, call: Call) -> Answer:
        room, asked = self._room(call), self._task(call)
        self._check_model(asked.model)
        done = b"event: done\n\n" if self.bare_done else _event({"type": "done"})
        if self.broke:
            code = {"type": "error", "code": "PAYMENT_REQUIRED", "message": "Insufficient credits"}
            return _events([_event(code), done])
        chunks = self.run
        if chunks is None:
            chunks = answers.run_of(self.responder(asked.task, room.history()))
        parts = parts_of_run(chunks)
        counts = answers.usage(_shown(room.history(), asked.task), words_of(parts))
        told = [*chunks, {"type": "usage", **counts, "total_cost": 0.001}]
        turn = self._keeper(room, asked.task, parts)
        fails = any(chunk.get("type") == "error" and chunk.get("agent") is None for chunk in chunks)

        def keep(kept: Kept, error: str | None) -> None:
            turn(kept, error)
            if kept == "turn":
                self._note_run(room, asked, told)

        frames = [_event(chunk) for chunk in told if chunk.get("type") != "thinking"]
        return _events([*frames, done], None if fails else keep)

    async def _log(self, call: Call) -> Answer:
        room = self._room(call)
        offset, limit = self._number(call, "offset", "0"), self._number(call, "limit", "100")
        return Answer.json({"messages": room.log[offset : offset + limit]})

    def _note_run(self, room: Room, asked: RunAsked, chunks: Sequence[Json]) -> None:
        if asked.names_room(first=not room.log and room.name == DEFAULT_NAME):
            room.name = " ".join(_CONTROL.sub(" ", asked.task).split())[:30].strip() or room.name
        room.log.extend(log_of(asked.task, self._ulid().upper(), self.now(), chunks))

    # Turns

    def _keeper(self, room: Room, said: str, parts: Sequence[Json]) -> Keeper:
        def keep(kept: Kept, _: str | None) -> None:
            if kept != "turn":
                return
            question = self._message("user", {"type": "text", "text": said})
            roles = {"tool-result": "tool"}
            answer = [self._message(roles.get(str(part["type"]), "assistant"), part) for part in parts]
            room.turns.append(Turn(Exchange(said, words_of(parts)), [question, *answer]))
            self._changed(room)

        return keep

    def _message(self, role: str, content: Json) -> StoredMessage:
        return StoredMessage(id=f"me_{self._ulid()}", role=role, content=content, created_at=self.now())

    def _changed(self, room: Room) -> None:
        room.updated_at = self.now()
        # It may have been deleted while its answer was on the way.
        if self._rooms.pop(room.id, None) is not None:
            self._rooms[room.id] = room

    def _ulid(self) -> str:
        return ulid(self.now(), self.ids())

    def _seconds(self) -> int:
        return int(self.now().timestamp())

    # Reading requests

    def _room(self, call: Call) -> Room:
        room_id = call.params["chatroom_id"]
        if not ROOM_ID.fullmatch(room_id):
            raise Refusal(self.error(400, "invalid chatroom id"))
        room = self._rooms.get(room_id)
        if room is None or room.operator != call.headers["x-operator-id"]:
            raise Refusal(self.error(404, "chatroom is not found"))
        return room

    def _name(self, fields: Mapping[str, object]) -> str | None:
        name = fields.get("name")
        if name is None:
            return None
        if not isinstance(name, str):
            raise Refusal(self.error(400, "name must be a string"))
        name = name.strip()
        if not 1 <= len(name) <= 100 or _CONTROL.search(name):  # noqa: PLR2004 - the documented length
            raise Refusal(
                self.error(422, "name must have 1 to 100 characters, none of them control characters")
            )
        return name

    def _number(self, call: Call, name: str, default: str = "") -> int:
        value = call.query.get(name, default)
        if not re.fullmatch("[0-9]{1,18}", value, re.ASCII):
            raise Refusal(self.error(400, f"{name} must be a whole number from 0 up"))
        return int(value)

    def _completion(self, call: Call) -> CompletionAsked:
        fields = call.fields()
        try:
            return CompletionAsked(fields=fields)
        except ValueError as error:
            raise Refusal(self.error(400, str(error)))

    def _task(self, call: Call) -> RunAsked:
        fields = call.fields()
        try:
            return RunAsked(fields=fields)
        except ValueError as error:
            raise Refusal(self.error(400, str(error)))

    def _check_model(self, model: str) -> None:
        provider, _, name = model.partition(":")
        if model not in SIZES and (provider not in self.providers or not name):
            message = f"nobody serves the model {model}"
            raise Refusal(self._said(400, "BadRequest", "unsupported_model", f"unsupported_model: {message}"))


def _event(chunk: Json) -> bytes:
    return answers.event(chunk, str(chunk["type"]))


def _events(frames: Sequence[bytes], keep: Keeper | None = None) -> Answer:
    return Answer(parts=tuple(frames), content_type="text/event-stream", streamed=True, keep=keep)


def _shown(history: Sequence[Exchange], said: str) -> str:
    """Give all that a model is shown."""
    return " ".join([*(f"{turn.said} {turn.answered}" for turn in history), said])
