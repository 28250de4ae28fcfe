"""JSON read leniently, for what is kept or shown and decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from chatbridge.http.content import BrokenContent, loads
from chatbridge.http.framing import Frame

__all__ = ["as_list", "as_object", "as_text", "read_fields", "read_loosely"]


def as_object(value: object) -> Mapping[str, Any]:
    """Give an object as it is, and an empty one for other JSON."""
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def as_list(content: object) -> list[Any]:
    """Give a content, which is one part or a list of them, as a list; nothing is none."""
    parts: list[Any] = cast(Any, content) if isinstance(content, list) else [content]
    return [part for part in parts if part is not None]


def as_text(value: object) -> str:
    """Give a text as it is, nothing as an empty one, and other JSON written out."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def read_loosely(data: bytes) -> object:
    """Read JSON, or text where it is none; nothing is None."""
    if not data:
        return None
    with suppress(BrokenContent):
        return loads(data)
    return data.decode("utf-8", "replace")


def read_fields(frame: Frame) -> Mapping[str, Any]:
    """Read an object, whatever the data of *frame* is: what is none is its `message`."""
    value = read_loosely(frame.data.strip())
    fields = as_object(value)
    return fields if value is None or fields is value else {"message": value}
