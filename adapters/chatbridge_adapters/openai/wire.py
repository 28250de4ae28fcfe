"""
What travels between a client and a server of OpenAI's chat completions.

Sources: the types of the Python package openai 3.52.0, which are generated from OpenAI's OpenAPI document.
What other servers do differently: ollama (openai/openai.go at commit 00988753), vLLM (entrypoints/openai/
engine/protocol.py at 040a2cc2), llama.cpp (tools/server/server-common.cpp at 006639c3), llama-cpp-python
(llama_cpp/server/errors.py at 10732af5), and LM Studio as its bug tracker shows it (issues 618 and 2339).
"""

from __future__ import annotations

import re
from typing import Any, cast

from attrs import frozen

from chatbridge.http import (
    ApiError,
    Chunk,
    Endpoint,
    Hint,
    Kind,
    Raw,
    ServerSentEvents,
    Warn,
    as_list,
    as_object,
    as_text,
    keep_raw,
    read_event,
)
from chatbridge.http.completions import QUOTA, is_too_long
from chatbridge.overflow import CONTEXT_LENGTH

NAME = "openai"
HOST = "api.openai.com"


@frozen
class Model:
    """
    A model that the server has.

    Attributes:
        raw: The whole entry; servers tell different things beside the id.
    """

    id: str
    owned_by: str | None = None
    raw: Raw = keep_raw()


COMPLETE = Endpoint(
    "createChatCompletion",
    "POST",
    "/chat/completions",
    Kind.COMPLETE,
    answer=Chunk,
    accept="text/event-stream, application/json",
    # A whole answer is read as a stream of one event: there are servers that stream whatever they are asked.
    framing=ServerSentEvents,
    read=read_event,
)
_JSON = cast(type[object], Any)  # `read_models` reads it.
LIST_MODELS = Endpoint("listModels", "GET", "/models", Kind.READ, answer=_JSON)
ENDPOINTS = (COMPLETE, LIST_MODELS)

PASSING = frozenset({
    "InternalServerError",
    "ServiceUnavailableError",
    "api_error",
    "overloaded_error",
    "rate_limit_error",
    "rate_limit_exceeded",
    "server_error",
    "unavailable_error",
})  # fmt: skip
"""The codes of failures that may pass, as several servers have them."""

_MONEY = re.compile("quota|billing|balance|credit|payment", re.IGNORECASE)
_OK = 200
_PAYMENT_REQUIRED = 402
_RATE_LIMITED = 429
_CLIENT_ERRORS = range(400, 500)
_PASSING_STATUSES = frozenset({429, 500, 502, 503, 504, 529})
_STATUS = re.compile(r"[1-5]\d\d", re.ASCII)


def read_error(status: int, body: Any) -> ApiError:  # noqa: ANN401 - JSON
    """
    Read an error in any of the forms that servers have for it.

    They are an object or a text under `error`, the fields of such an object by themselves, an array of one of
    these, and what FastAPI says under `detail`. Where the *status* is 200, the number that some of them have
    for a code stands for it; without a word beside it, it is the code.
    """
    fields = _fields(body)
    message, code, number = as_text(fields.get("message")), _code(fields), _number(fields)
    meant = number if number is not None and (status == _OK or number == _RATE_LIMITED) else status
    if is_too_long(meant, code, message):
        return ApiError(message or None, CONTEXT_LENGTH, Hint.TOO_LONG)
    hint = _hint(meant, fields, code)
    if hint is Hint.QUOTA and code != QUOTA:
        return ApiError(": ".join(filter(None, (code, message))) or None, QUOTA, hint)
    if status != _OK:
        return ApiError(message or None, code, hint)
    if hint is None and (meant in _PASSING_STATUSES or code in PASSING):
        hint = Hint.REFUSED
    return ApiError(message or None, code or (None if number is None else str(number)), hint)


def _fields(error: object) -> Raw:
    """Give an error as an object, whatever it is wrapped in; a list of problems is told in one line."""
    if isinstance(error, list):
        problems = as_list(cast(object, error))
        first = as_object(problems[0] if problems else None)
        return _fields(first) if "error" in first else {"message": "; ".join(map(_problem, problems))}
    if not isinstance(error, dict):
        return {"message": as_text(error)}
    fields = as_object(cast(object, error))
    told = (fields.get(name) for name in ("error", "detail"))
    inner = next((each for each in told if each and not isinstance(each, bool)), None)
    if inner is None:
        return fields
    if isinstance(inner, dict | list):
        return _fields(cast(object, inner))
    words = dict.fromkeys((as_text(inner), as_text(fields.get("message"))))
    return {**fields, "message": ": ".join(filter(None, words))}


def _problem(item: object) -> str:
    fields = as_object(item)
    if "msg" not in fields:
        return as_text(item)
    path = ".".join(map(str, as_list(fields.get("loc"))))
    return ": ".join(filter(None, (path, as_text(fields["msg"]))))


def _code(fields: Raw) -> str | None:
    """Find the code; some servers repeat the status there, and tell the error's type."""
    told = (fields.get("code"), fields.get("type"))
    return next((code for code in told if isinstance(code, str) and code and not code.isdigit()), None)


def _number(fields: Raw) -> int | None:
    """Find the status that is told as the code."""
    told: object = fields.get("code")
    return int(told) if isinstance(told, int | str) and _STATUS.fullmatch(str(told)) else None


def _hint(status: int, fields: Raw, code: str | None) -> Hint | None:
    if status == _PAYMENT_REQUIRED or (status in (_OK, *_CLIENT_ERRORS) and _MONEY.search(code or "")):
        return Hint.QUOTA
    # The model is still being loaded: nothing was begun.
    return Hint.REFUSED if fields.get("type") == "unavailable_error" else None


def read_models(answer: object, warn: Warn) -> tuple[Model, ...] | ApiError:
    """
    Read which models there are: an array, by itself or as `data`, which may be null; else it is an error.

    Entries without an id are left out, and *warn* is told.
    """
    fields = as_object(answer)
    entries = cast(object, fields["data"]) if "data" in fields and not fields.get("error") else answer
    if entries is not None and not isinstance(entries, list):
        return read_error(_OK, answer)
    models: list[Model] = []
    for entry in map(as_object, as_list(cast(object, entries))):
        model_id, owner = entry.get("id"), entry.get("owned_by")
        if isinstance(model_id, str):
            models.append(Model(model_id, owner if isinstance(owner, str) else None, raw=entry))
        else:
            warn("an entry of the list of models has no id, and was left out")
    return tuple(models)


def is_good(chunk: Chunk, *, whole: bool) -> bool:
    """Tell whether *chunk* is no failure, and as a *whole* document an answer, which may have no choice."""
    return chunk.failure is None and (not whole or chunk.is_answer or chunk.choices == [])


def read_failure(chunk: Chunk, *, whole: bool) -> tuple[str | None, str | None]:
    """Read the words and the code of a failure, or of a *whole* document that is no answer."""
    error = read_error(_OK, chunk.failure or chunk.raw)
    return error.message or ("what came is not an answer" if whole else None), error.code


def passing(chunk: Chunk) -> tuple[str, ...]:
    """Give the code of a failure if it may pass."""
    error = read_error(_OK, chunk.failure or chunk.raw)
    return (error.code,) if error.code is not None and error.hint is Hint.REFUSED else ()
