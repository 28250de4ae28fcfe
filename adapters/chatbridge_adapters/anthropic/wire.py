"""
What travels between a client and Anthropic's Messages API, version 2023-06-01.

Sources: the API's documentation at platform.claude.com, as of November 2026 ("Messages", "Streaming
messages", "Stop reasons and fallback", "Errors", "Models"), and the types of the package anthropic 2.11.0.
The words of errors without a code of their own are those that users of the API have quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from attrs import define, field, frozen

from chatbridge.domain import FinishReason, Usage
from chatbridge.http import ApiError, Endpoint, Hint, Kind, Raw, ServerSentEvents, as_object, beyond, keep_raw
from chatbridge.http.completions import QUOTA, is_too_long
from chatbridge.overflow import CONTEXT_LENGTH

NAME = "anthropic"
HOST = "api.anthropic.com"
VERSION = "2023-06-01"
_TOO_LARGE = "request_too_large"


@define
class Event:
    """
    A whole answer, or one event of a streamed one, whatever its type; new types may come at any time.

    Attributes:
        type: Its name, such as `content_block_delta`; some servers write errors without it.
        index: The number of the block in the answer.
        message: What the answer begins with.
        content_block: What a block begins with.
        delta: What is added to the block, or what is now known of the answer.
        usage: The cost so far.
        content: The blocks of a whole answer.
    """

    # Not shown: any of them may tell the key back, and tracebacks may show an event.
    type: str = field(default="", repr=False)
    index: int | None = None
    message: Raw | None = field(default=None, repr=False)
    content_block: Raw | None = field(default=None, repr=False)
    delta: Raw | None = field(default=None, repr=False)
    usage: Raw | None = field(default=None, repr=False)
    content: list[Mapping[str, Any]] | None = field(default=None, repr=False)
    raw: Raw = keep_raw()

    @property
    def is_error(self) -> bool:
        """Whether it tells of an error."""
        return self.type == "error" or (not self.type and bool(self.raw.get("error")))


@frozen
class Model:
    """
    A model on offer.

    Attributes:
        max_input_tokens: How long what it reads may be.
        max_tokens: How long an answer may be.
        raw: All that the API tells of it, such as `capabilities` and `lifecycle`.
    """

    id: str
    display_name: str | None = None
    created_at: datetime | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    raw: Raw = keep_raw()


@frozen
class ModelPage:
    """Some of the models; where there are more, they come after *last_id*."""

    data: list[Model]
    has_more: bool = False
    last_id: str | None = None


CREATE = Endpoint(
    "messages.create",
    "POST",
    "/v1/messages",
    Kind.COMPLETE,
    answer=Event,
    accept="text/event-stream, application/json",
    framing=ServerSentEvents,
    ends=lambda event: event.type == "message_stop",
)
LIST_MODELS = Endpoint("models.list", "GET", "/v1/models", Kind.READ, answer=ModelPage)
ENDPOINTS = (CREATE, LIST_MODELS)


_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.REFUSAL,
}


def to_finish_reason(word: str | None) -> FinishReason | None:
    """Say why an answer ended; a paused turn has not, and ends as `OTHER`, as words do that are new."""
    return None if word is None else _REASONS.get(word, FinishReason.OTHER)


_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def to_usage(usage: Raw) -> Usage | None:
    """
    Read what an answer cost; None where no number is told.

    The API tells what was read from its cache, and written to it, apart from `input_tokens`; ours is the sum.
    """
    details = usage.get("output_tokens_details")
    thought = cast(Raw, details).get("thinking_tokens") if isinstance(details, Mapping) else None
    read = [count for name in _COUNTS if (count := _count(usage.get(name))) is not None]
    found = Usage(
        sum(read) if read else None,
        _count(usage.get("output_tokens")),
        cached_tokens=_count(usage.get("cache_read_input_tokens")),
        reasoning_tokens=_count(thought),
    )
    return None if found == Usage() else found


def beside_usage(usage: Raw) -> dict[str, Any]:
    """Pick for `extra` what the API tells of usage beyond our model."""
    return beyond(usage, "input_tokens", "cache_read_input_tokens", "output_tokens")


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


PASSING = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
"""The codes of failures that may pass: those of the statuses 429, 500, 504 and 529."""

_NO_MONEY = re.compile(r"credit balance is too low|API usage limits", re.IGNORECASE)
_SPENT = re.compile(r"spend_limit|billing")


def read_error(status: int, body: Any) -> ApiError:  # noqa: ANN401 - JSON
    """
    Read an error: its code is the `error_code` among its details, or else its `type`.

    A conversation that is too long, and credit that is spent, come as `invalid_request_error`, told apart by
    their words alone; their codes are `context_length_exceeded` and `insufficient_quota` here. The former
    stands for a request of too many bytes, too: that is another limit of what a history may be. The latter
    stands for what the API calls billing and limits of spending; its own word is in the message then.
    """
    told = as_object(body).get("error")
    error = as_object(told)
    message, kind = error.get("message", told), error.get("type")
    said = message if isinstance(message, str) else None
    code = as_object(error.get("details")).get("error_code") or kind
    if not isinstance(code, str):
        return ApiError(said, from_api=False)
    if code == _TOO_LARGE or is_too_long(status, code, said):
        return ApiError(said, CONTEXT_LENGTH, Hint.TOO_LONG, from_api=True)
    if code == "invalid_request_error" and _NO_MONEY.search(said or ""):
        return ApiError(said, QUOTA, Hint.QUOTA, from_api=True)
    if _SPENT.search(code):
        return ApiError(": ".join(filter(None, (code, said))), QUOTA, Hint.QUOTA, from_api=True)
    return ApiError(said, code, Hint.QUOTA if "on_hold" in code else None, from_api=True)


def read_failure(raw: Raw) -> tuple[str, str | None]:
    """Read the words and the code of an error that came in place of an answer, or within it."""
    error = read_error(200, raw)
    return error.message or "what came is not an answer", error.code
