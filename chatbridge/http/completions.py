"""Words that many chat APIs have in common: who speaks, why an answer ended, and what it cost."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from chatbridge.domain import FinishReason, Role, Usage
from chatbridge.http.loose import as_object
from chatbridge.http.wire import Raw, beyond
from chatbridge.overflow import CONTEXT_LENGTH

__all__ = ["CUT_SHORT", "QUOTA", "beside_usage", "is_too_long", "to_finish_reason", "to_role", "to_usage"]

QUOTA = "insufficient_quota"
"""The code of a refusal where credit, or what may be spent, is used up, whatever the API calls it."""

_TOO_LONG = re.compile(
    r"max(?:imum)? (?:context|prompt) length"
    r"|exceeds? (?:the )?(?:available |model'?s? )?context (?:size|length|window|limit)"
    r"|(?:prompt|input)\b[^.]{0,80}exceeds? the maximum number of tokens"
    r"|context (?:size|length|window) (?:has been |was |is )?exceeded"
    r"|context length (?:is|of) only"
    r"|longer than the (?:maximum model length|model'?s? context length)"
    r"|n_keep .* >= n_ctx"
    r"|`inputs` tokens \+ `max_new_tokens` must be <="
    r"|`inputs` must have less than \d+ tokens"
    r"|too many tokens: (?:size limit exceeded|total number of tokens)"
    r"|exceeded model token limit"
    r"|range of input length should be"
    r"|(?<!\b(?:in|of) )(?<!\b(?:in|of) the )(?:prompt|input) (?:is )?too long",
    re.IGNORECASE,
)
_TOO_LONG_CODES = frozenset({CONTEXT_LENGTH, "exceed_context_size_error"})
_MAY_PASS = re.compile(r"\bper[ -](?:sec|min|hour|day)|rate.?limit|quota|\bTPM\b", re.IGNORECASE)
_RATE_LIMITED = 429


CUT_SHORT = frozenset({
    FinishReason.LENGTH,
    FinishReason.CONTENT_FILTER,
    FinishReason.REFUSAL,
    FinishReason.ERROR,
})  # fmt: skip
"""Why an answer may end within a call of a tool."""


def to_finish_reason(word: str | None) -> FinishReason | None:
    """Say why an answer ended; a word that is none of ours is `OTHER`."""
    if word is None:
        return None
    return _REASONS.get(word, FinishReason.OTHER)


_REASONS = {reason.value: reason for reason in FinishReason}


def is_too_long(status: int, code: str | None, message: str | None) -> bool:
    """
    Tell by its code or its words whether an error says that history and answer do not fit, ever.

    What speaks of a rate or a quota is not of that kind, whatever its status: there are servers that say so
    within a stream, or with a status of their own.
    """
    if code in _TOO_LONG_CODES:
        return True
    said = message or ""
    if status == _RATE_LIMITED or _MAY_PASS.search(f"{code or ''} {said}"):
        return False
    return bool(_TOO_LONG.search(said))


def to_role(word: str) -> tuple[Role, dict[str, str]]:
    """Say who speaks; one who is none of ours passes for the assistant, and the word is for `extra`."""
    return (Role(word), {}) if word in set(Role) else (Role.ASSISTANT, {"role": word})


def to_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """
    Read `prompt_tokens`, `completion_tokens`, `total_tokens`, `cache_read_input_tokens`, `total_cost`.

    Cached and reasoning tokens may be told in `prompt_tokens_details` and `completion_tokens_details` too.
    What is no number, or below 0, counts as not told; None where nothing is told.
    """
    given = usage or {}
    read, written = (as_object(given.get(name)) for name in _DETAILS)
    cached = _count(given.get("cache_read_input_tokens"))
    cost: object = given.get("total_cost")
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < math.inf
    found = Usage(
        _count(given.get("prompt_tokens")),
        _count(given.get("completion_tokens")),
        _count(given.get("total_tokens")),
        cached_tokens=_count(read.get("cached_tokens")) if cached is None else cached,
        reasoning_tokens=_count(written.get("reasoning_tokens")),
        cost=float(cost) if known and isinstance(cost, int | float) else None,
    )
    return None if found == Usage() else found


_DETAILS = {"prompt_tokens_details": "cached_tokens", "completion_tokens_details": "reasoning_tokens"}


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def beside_usage(usage: Raw) -> dict[str, Any]:
    """Pick for `extra` what the API tells of usage beyond our model."""
    more = beyond(
        usage,
        "type",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cache_read_input_tokens",
        "total_cost",
    )
    for name, read in _DETAILS.items():
        if details := as_object(more.get(name)):
            told = beyond(details, **{read: _count(details.get(read))})
            more = {**more, name: told} if told else beyond(more, name)
    return {"usage": more} if more else {}
