"""A request to an emulator, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NoReturn, TypeGuard

from attrs import field, frozen

__all__ = ["Answer", "BadBody", "Call", "Keeper", "Kept", "Refusal", "is_array", "is_object"]

Kept = Literal["nothing", "question", "turn"]
"""What a send leaves in the history."""

Keeper = Callable[[Kept, str | None], None]
"""Stores what a send leaves behind, and the error text of a question that got no answer."""


class BadBody(ValueError):
    """
    The body of a request is not the JSON it should be; where no handler catches it, the answer is a 400.

    Attributes:
        pos: The character at fault, as far as that is known.
    """

    def __init__(self, problem: str, pos: int = 0) -> None:
        super().__init__(problem)
        self.pos = pos


@frozen(kw_only=True)
class Call:
    """
    A request as it arrived.

    Attributes:
        operation: Its id in the API's document; None where no operation matches.
        path: As sent, still percent-encoded, without the query.
        params: The values of the path's placeholders, decoded.
        query: Decoded; of a name given twice, the last.
        status: Of the answer; None until there is one, and for ever after a drop.
    """

    operation: str | None
    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)  # The key is among them.
    body: bytes
    status: int | None = None

    @property
    def bearer(self) -> str | None:
        """The token of ``Authorization: Bearer``; None where there is no such header."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    def json(self) -> object:
        """
        Read the body as JSON.

        Raises:
            BadBody: It is not UTF-8, not JSON, too deep, or holds NaN, Infinity or a lone surrogate.
        """
        try:
            value: object = json.loads(self.body.decode(), parse_constant=_no_constant)
            _to_json(value)
        except RecursionError:
            problem, at = "nested too deeply", 0
        except ValueError as error:
            problem, at = str(error), getattr(error, "pos", 0)
        else:
            return value
        raise BadBody(f"The body is not JSON: {problem}", at)

    def fields(self) -> dict[str, object]:
        """
        Read the body as a JSON object.

        Raises:
            BadBody: It is none.
        """
        try:
            value = self.json()
        except BadBody:
            value = None
        if is_object(value):
            return value
        raise BadBody("The body must be a JSON object")


@frozen(kw_only=True)
class Answer:
    """
    What an operation answers.

    Attributes:
        parts: The body; of a stream, what is flushed at a time.
        content_type: None leaves the header out.
        streamed: Sent part by part, with no length announced.
        keep: Of a send: called once, when the answer is complete and before its last part leaves.
    """

    parts: tuple[bytes, ...] = ()
    status: int = 200
    content_type: str | None = "application/json"
    headers: Mapping[str, str] = field(factory=dict[str, str])
    streamed: bool = False
    keep: Keeper | None = None

    @classmethod
    def json(
        cls,
        value: object,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        keep: Keeper | None = None,
    ) -> Answer:
        """Answer with *value* as compact JSON in UTF-8."""
        return cls(parts=(_to_json(value),), status=status, headers=headers or {}, keep=keep)

    @classmethod
    def json_lines(
        cls, values: Iterable[object], *, content_type: str = "application/jsonl", keep: Keeper | None = None
    ) -> Answer:
        """Stream *values*, each as compact JSON on a line of its own."""
        lines = tuple(_to_json(value) + b"\n" for value in values)
        return cls(parts=lines, content_type=content_type, streamed=True, keep=keep)


class Refusal(Exception):
    """Raised by a handler to answer with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Tell whether a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Tell whether a JSON value is an array."""
    return isinstance(value, list)


def _to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
