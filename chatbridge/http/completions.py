"""Words that many chat APIs have in common: who speaks, why an answer ended, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from chatbridge.domain import FinishReason, Role, Usage

__all__ = ["to_finish_reason", "to_role", "to_usage"]


def to_finish_reason(word: str | None) -> FinishReason | None:
    """Say why an answer ended; a word that is none of ours is `OTHER`."""
    if word is None:
        return None
    return FinishReason(word) if word in set(FinishReason) else FinishReason.OTHER


def to_role(word: str) -> tuple[Role, dict[str, str]]:
    """Say who speaks; one who is none of ours passes for the assistant, and the word is for `extra`."""
    return (Role(word), {}) if word in set(Role) else (Role.ASSISTANT, {"role": word})


def to_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """
    Read `prompt_tokens`, `completion_tokens`, `total_tokens`, `cache_read_input_tokens`, `total_cost`.

    What is no number, or below 0, counts as not told; None where nothing is told.
    """
    given = usage or {}

    def count(name: str) -> int | None:
        value: object = given.get(name)
        return value if type(value) is int and value >= 0 else None

    cost: object = given.get("total_cost")
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < math.inf
    found = Usage(
        count("prompt_tokens"),
        count("completion_tokens"),
        count("total_tokens"),
        cached_tokens=count("cache_read_input_tokens"),
        cost=float(cost) if known and isinstance(cost, int | float) else None,
    )
    return None if found == Usage() else found
