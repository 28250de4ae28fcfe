"""Which call of a tool a piece belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from attrs import frozen

from chatbridge.http.content import BrokenContent, loads
from chatbridge.http.loose import as_object, as_text
from chatbridge.http.parts import CallFold
from chatbridge.http.wire import beyond

__all__ = ["CallPiece", "begins", "is_again", "read_piece", "tell_again"]


@frozen
class CallPiece:
    """
    A call, or a piece of one.

    Attributes:
        place: Its number, or without one its position.
        numbered: Whether it has a number.
    """

    place: int
    numbered: bool
    id: str
    name: str
    arguments: str
    custom: bool
    beside: Mapping[str, Any]


def read_piece(position: int, piece: Mapping[str, Any]) -> CallPiece:
    """Read a piece of a call."""
    index = piece.get("index")
    custom = "custom" in piece  # Such a tool takes a text.
    function = as_object(piece.get("custom" if custom else "function"))
    return CallPiece(
        index if isinstance(index, int) else position,
        isinstance(index, int),
        as_text(piece.get("id")),
        as_text(function.get("name")),
        as_text(function.get("input" if custom else "arguments")),
        custom,
        beyond(piece, "index", "id", "type", "function", "custom"),
    )


def begins(call: CallFold, piece: CallPiece) -> bool:
    """Tell whether a *piece* with the number of *call* begins another, as numbers count again from 0."""
    if call.answered:
        return bool(piece.id or piece.name)
    if piece.id:
        return call.named and piece.id != call.id
    if call.named or not piece.name:
        return False
    return (bool(call.name) and piece.name != call.name) or (
        bool(piece.arguments) and _read(call.arguments) is not None
    )


def is_again(call: CallFold, piece: CallPiece, *, at_place: bool) -> bool:
    """Tell whether a *piece* of a message is of a *call* that came, or, *at_place*, that is where it is."""
    if piece.name and call.name and piece.name != call.name:
        return False
    if piece.id and call.named:
        return piece.id == call.id
    if at_place and (piece.numbered or not piece.name):
        return True
    return bool(piece.name) and (
        piece.arguments.startswith(call.arguments)
        or call.arguments.startswith(piece.arguments)
        or _same(call.arguments, piece.arguments)
    )


def tell_again(call: CallFold, piece: CallPiece) -> bool:
    """Take of a *piece* what is not known of its *call*, and tell whether there was any."""
    more = piece.arguments.removeprefix(call.arguments)
    named = (piece.id and not call.named) or (piece.name and not call.name)
    if piece.arguments.startswith(call.arguments):
        if not (more or named):
            return False
    elif _read(piece.arguments) is not None:
        if _same(call.arguments, piece.arguments):
            return False
        call.forget()
    elif _read(call.arguments) is not None:
        return False
    call.add(piece.id, piece.name, more)
    return True


def _read(arguments: str) -> dict[str, Any] | None:
    try:
        value: object = loads(arguments.encode("utf-8", "surrogatepass"))
    except BrokenContent:
        return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _same(one: str, other: str) -> bool:
    read = _read(one)
    return read is not None and read == _read(other)
