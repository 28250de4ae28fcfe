"""
An emulator of the Kaziro broker: threads that the server keeps, and chat completions in and out of them.

Source: kaziro 1.0.6 (generated client and its document); where that is silent, FastAPI's habits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, cast

from attrs import define, field, frozen

from chatbridge.testing.emulator import (
    Answer,
    Call,
    Emulator,
    Keeper,
    Kept,
    Operation,
    Refusal,
    is_array,
    is_object,
)
from chatbridge.testing.responder import Exchange

__all__ = ["COMPLETE", "CREATE", "RETRIEVE", "KaziroEmulator"]

CREATE = "create_thread_endpoint_v1_broker_thread_create_post"
RETRIEVE = "get_thread_metadata_endpoint_v1_broker_thread_retrieve_get"
COMPLETE = "create_chat_message_endpoint_v1_broker_chat_completions_post"

KEY_HEADER = "Kaziro-API-Key"
DECLARED_ERRORS = (400, 500)


@define(kw_only=True, eq=False)
class KaziroEmulator(Emulator):
    """
    The three broker operations.

    A completion without a thread is stateless. Any model is accepted and echoed. No key is a 403, a wrong one
    a 401.

    Attributes:
        threads: What each thread remembers, by its id.
    """

    name: ClassVar[str] = "kaziro"
    key_variable: ClassVar[str] = "KAZIRO_API_KEY"

    threads: dict[str, list[Exchange]] = field(init=False, factory=dict[str, list[Exchange]])

    @property
    def operations(self) -> Sequence[Operation]:
        """The API's routes."""
        return (
            Operation(CREATE, "POST", "/v1/broker/thread/create", self._create),
            Operation(RETRIEVE, "GET", "/v1/broker/thread/retrieve", self._retrieve, public=True),
            Operation(COMPLETE, "POST", "/v1/broker/chat/completions", self._complete),
        )

    def admit(self, call: Call) -> None:
        """Raise `Refusal` unless *call* carries the key."""
        key = call.headers.get(KEY_HEADER)
        if not key:
            raise Refusal(self.error(403, "Not authenticated"))
        if key != self.key:
            raise Refusal(self.error(401, "Invalid API key"))

    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Say *message* under ``detail``: in an object for the declared errors, else as it is."""
        detail = {"status": "error", "status_code": status, "message": message}
        return Answer.json(
            {"detail": detail if status in DECLARED_ERRORS else message}, status=status, headers=headers
        )

    async def _create(self, call: Call) -> Answer:
        del call
        thread_id = f"thread_{self.ids().hex}"
        self.threads[thread_id] = []
        return Answer.json({"thread_id": thread_id})

    async def _retrieve(self, call: Call) -> Answer:
        thread_id = call.query.get("thread_id")
        if thread_id is None:
            raise Refusal(_invalid([_missing("query", "thread_id")]))
        if thread_id not in self.threads:
            raise Refusal(self.error(404, "Thread not found"))
        return Answer.json({"status": "idle", "user_id": "user_emulator", "processing_message_type": None})

    async def _complete(self, call: Call) -> Answer:
        request = _read(call)
        thread = self._thread(request.thread_id)
        if not request.messages:
            raise Refusal(self.error(400, "No messages"))
        *earlier, last = request.messages
        new = _exchanges(earlier)
        history = [*thread, *new]
        answer = self.responder(last.content, history)
        return Answer.json(
            self._completion(request, history, answer), keep=_keeper(thread, new, last.content, answer)
        )

    def _thread(self, thread_id: str | None) -> list[Exchange]:
        if thread_id is None:
            return []
        if thread_id not in self.threads:
            raise Refusal(self.error(400, "Invalid thread"))
        return self.threads[thread_id]

    def _completion(self, request: _Request, history: Iterable[Exchange], answer: str) -> dict[str, object]:
        seen = " ".join([f"{turn.said} {turn.answered}" for turn in history] + [request.messages[-1].content])
        read, written = len(seen.split()), len(answer.split())
        return {
            "id": f"chatcmpl-{self.ids().hex}",
            "object": "chat.completion",
            "created": int(self.now().timestamp()),
            "model": request.model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
            "extra": None,
        }


@frozen
class _Message:
    role: str
    content: str


@frozen
class _Request:
    model: str
    messages: Sequence[_Message]
    thread_id: str | None


def _keeper(thread: list[Exchange], new: Iterable[Exchange], said: str, answer: str) -> Keeper:
    """Remember the turn; a question left alone is remembered with an empty answer."""

    def keep(kept: Kept, error: str | None) -> None:
        del error
        thread.extend([*new, Exchange(said, answer if kept == "turn" else "")])

    return keep


def _exchanges(messages: Iterable[_Message]) -> list[Exchange]:
    """Pair what the user said with what followed; instructions are no turns."""
    turns: list[Exchange] = []
    for message in messages:
        if message.role == "user":
            turns.append(Exchange(message.content, ""))
        elif message.role == "assistant" and turns:
            turns[-1] = Exchange(turns[-1].said, message.content)
    return turns


# What FastAPI says of a wrong type, by the type that was wanted.
_WRONG: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "string_type": ("Input should be a valid string", lambda value: isinstance(value, str)),
    "list_type": ("Input should be a valid list", is_array),
    "dict_type": ("Input should be a valid dictionary", is_object),
    "model_attributes_type": (
        "Input should be a valid dictionary or object to extract fields from",
        is_object,
    ),
}


def _read(call: Call) -> _Request:
    """Read a BrokerMessageRequest, or refuse it with all that is wrong in it."""
    body = _body(call)
    problems = [
        *_field(body, "model", "string_type", "body"),
        *_field(body, "messages", "list_type", "body"),
        *_field(body, "thread_id", "string_type", "body", optional=True),
        *_field(body, "extra_headers", "dict_type", "body", optional=True),
    ]
    messages = body.get("messages")
    for index, message in enumerate(messages if is_array(messages) else ()):
        if not is_object(message):
            problems.append(_wrong("model_attributes_type", "body", "messages", index))
            continue
        problems += _field(message, "role", "string_type", "body", "messages", index)
        problems += _field(message, "content", "string_type", "body", "messages", index)
    if problems:
        raise Refusal(_invalid(problems))
    checked = cast("list[dict[str, str]]", messages)
    return _Request(
        model=cast("str", body["model"]),
        messages=[_Message(message["role"], message["content"]) for message in checked],
        thread_id=cast("str | None", body.get("thread_id")),
    )


def _body(call: Call) -> dict[str, object]:
    if not call.body:
        raise Refusal(_invalid([_missing("body")]))
    media_type = call.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(_invalid([_wrong("model_attributes_type", "body")]))
    try:
        body = call.json()
    except ValueError as error:
        at = getattr(error, "pos", 0)
        raise Refusal(_invalid([{"loc": ["body", at], "msg": "JSON decode error", "type": "json_invalid"}]))
    if not is_object(body):
        raise Refusal(_invalid([_wrong("model_attributes_type", "body")]))
    return body


def _field(
    holder: Mapping[str, object], name: str, kind: str, *path: str | int, optional: bool = False
) -> list[dict[str, object]]:
    value = holder.get(name)
    if value is None and optional:
        return []
    if name not in holder:
        return [_missing(*path, name)]
    return [] if _WRONG[kind][1](value) else [_wrong(kind, *path, name)]


def _missing(*path: str | int) -> dict[str, object]:
    return {"loc": list(path), "msg": "Field required", "type": "missing"}


def _wrong(kind: str, *path: str | int) -> dict[str, object]:
    return {"loc": list(path), "msg": _WRONG[kind][0], "type": kind}


def _invalid(problems: Sequence[dict[str, object]]) -> Answer:
    """Answer with an HTTPValidationError."""
    return Answer.json({"detail": problems}, status=422)
