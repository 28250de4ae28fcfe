"""What messages are made of, checked before it goes anywhere, as types are not where a program is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from chatbridge.domain import Attachment, Message, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from chatbridge.errors import UsageError
from chatbridge.strict import problem_of

__all__ = ["check_types"]

_FIELDS: Mapping[type[Part], Mapping[str, tuple[type, ...]]] = {
    Text: {"text": (str,)},
    Reasoning: {"text": (str,), "signature": (str, type(None))},
    Attachment: {
        "media_type": (str,),
        "data": (bytes, type(None)),
        "url": (str, type(None)),
        "name": (str, type(None)),
    },
    ToolCall: {"id": (str,), "name": (str,), "arguments": (Mapping,)},
    ToolResult: {"call_id": (str,), "content": (str,)},
    Opaque: {"origin": (str,), "kind": (str,)},
}
_JSON: Mapping[type[Part], str] = {ToolCall: "arguments", Opaque: "data"}
_NAMES: Mapping[type, str] = {str: "a text", bytes: "bytes", Mapping: "a mapping"}


def check_types(message: Message) -> None:
    """
    Refuse parts that are none, fields of another type than they say, and what is kept as JSON and is none.

    Raises:
        UsageError: Naming the first of them.
    """
    for part in cast(tuple[object, ...], message.parts):
        if type(part) is Text and isinstance(cast(object, part.text), str):
            continue  # As nearly every one is.
        fields = _FIELDS.get(cast(type[Part], type(part)))
        if fields is None:
            known = ", ".join(kind.__name__ for kind in _FIELDS)
            raise UsageError(f"a message is made of texts and parts ({known}), not of {_named(part)}")
        _check_fields(part, fields)
        _check_json(part)


def _check_fields(part: object, fields: Mapping[str, tuple[type, ...]]) -> None:
    for name, types in fields.items():
        value = getattr(part, name)
        if not isinstance(value, types):
            cure = ": json.dumps makes one of it" if name == "content" else ""
            told = f"{type(part).__name__}.{name} takes {_NAMES[types[0]]}"
            raise UsageError(f"{told}, not {_named(value)}{cure}")


def _check_json(part: object) -> None:
    name = _JSON.get(cast(type[Part], type(part)))
    if name is not None and (problem := problem_of(getattr(part, name))) is not None:
        raise UsageError(f"{type(part).__name__}.{name} cannot be written as JSON: {problem}")


def _named(value: object) -> str:
    return "None" if value is None else type(value).__name__
