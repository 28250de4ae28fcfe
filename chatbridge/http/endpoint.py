"""
The call table of an adapter: what can be called, as data.

Whatever the transport must know to carry a call safely stands here, and nowhere in code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from attrs import field, frozen

from chatbridge.errors import UsageError
from chatbridge.http.content import loads
from chatbridge.http.framing import Frame, Framer
from chatbridge.retry import Kind

__all__ = ["Endpoint"]

AnswerT = TypeVar("AnswerT")

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")  # Most ids are like this, and need no encoding.
_HALF = re.compile(r"[\ud800-\udfff]")
_DOTS = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff]|%(?:2f|5c|00)", re.IGNORECASE)


def _document(frame: Frame) -> object:
    return loads(frame.data)


def _statuses(statuses: Iterable[int]) -> frozenset[int]:
    return frozenset(statuses)


@frozen
class Endpoint(Generic[AnswerT]):
    """
    One operation of an API.

    Attributes:
        operation: The API's own name for it.
        method: The HTTP method.
        path: The path under the base URL; `{name}` stands for one path segment.
        kind: What repeating it would cost; a send unless declared.
        answer: The wire type of the answer, or of each event where *framing* is given; NoneType where
            the answer has no content to judge by, and is not read.
        request: The wire type of the body; None where there is none.
        success: The statuses that mean success.
        accept: The media types that the answer may have.
        framing: Makes the decoder that cuts a streamed answer into events, given a line's limit in bytes.
        read: Makes of a frame the JSON value that *answer* is built from, where its name counts or its data
            is no JSON; raises BrokenContent.
        ends: Says which event is the stream's end mark.
        whole: Says of an event without an end mark, the only one of its stream, whether it is the whole
            answer, of a server that does not stream.
        gone_is_done: Whether 404 means success after an attempt whose outcome is unknown, as for deletion.
        beyond: Where it is documented, if not in the API's own documents.
    """

    operation: str
    method: str
    path: str
    kind: Kind = Kind.SEND
    answer: type[AnswerT] = field(kw_only=True)
    request: type | None = field(default=None, kw_only=True)
    success: frozenset[int] = field(default=frozenset({200}), converter=_statuses, kw_only=True)
    accept: str = field(default="application/json", kw_only=True)
    framing: Callable[[int], Framer] | None = field(default=None, kw_only=True)
    read: Callable[[Frame], Any] = field(default=_document, kw_only=True)
    ends: Callable[[AnswerT], bool] | None = field(default=None, kw_only=True)
    whole: Callable[[AnswerT], bool] | None = field(default=None, kw_only=True)
    gone_is_done: bool = field(default=False, kw_only=True)
    beyond: str | None = field(default=None, kw_only=True)

    def target(self, ids: Mapping[str, str], query: Mapping[str, Any]) -> str:
        """
        Give path and query with *ids* filled in, each one percent-encoded segment.

        Raises:
            UsageError: An id is empty or would leave its segment.
        """
        path = self.path
        for name, value in ids.items():
            if not _PLAIN.fullmatch(value):
                self._check_segment(name, value)
                value = quote(value, safe="")  # noqa: PLW2901 - the same id, as it travels
            path = path.replace(f"{{{name}}}", value)
        present = {name: value for name, value in query.items() if value is not None}
        for name, value in present.items():
            if isinstance(value, str) and _HALF.search(value):
                raise UsageError(f"{self.operation}: the {name} holds half a character")
        return f"{path}?{urlencode(present, quote_via=quote)}" if present else path

    def _check_segment(self, name: str, value: str) -> None:
        if not value or _DOTS.fullmatch(value) or _UNSAFE.search(value):
            raise UsageError(
                f"{self.operation}: {value!r} cannot be a {name}: it is empty, or holds slashes, "
                "dots alone, control characters or half a character"
            )
