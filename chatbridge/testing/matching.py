"""Which recorded call a call is: the same, but for secrets and for what each run of a program makes anew."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from difflib import unified_diff
from typing import Any, cast

from attrs import field, frozen

from chatbridge.delivery import current_delivery
from chatbridge.http.recording import MASKED, Body, Exchange, body_of
from chatbridge.http.transport import Request
from chatbridge.http.wire import parse_time
from chatbridge.text import printable

__all__ = ["Asked", "Matcher", "difference"]

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE)
_SLACK = 1.0  # Times are written in whole seconds at times.


@frozen
class Asked:
    """
    A request, as a recording writes it.

    Attributes:
        message_id: The id of the message that it carries, if any.
    """

    method: str
    path: str
    body: Body | None = field(repr=False)
    message_id: str | None = None

    @classmethod
    def of(cls, request: Request, base_url: str) -> Asked:
        """Take the *request* of the call in progress apart; all bytes are kept."""
        path, delivery = str(request.url).removeprefix(base_url), current_delivery()
        body = None if request.body is None else body_of(request.body)
        return cls(request.method, path, body, None if delivery is None else delivery.message_id)


class Matcher:
    """
    Tells whether calls are the recorded ones.

    A secret in the recording matches any text, and the time at which a request was made that of this one. A
    message's own id, which each run makes up, matches the one that it has now, and stands for it from then
    on, in answers as well; other ids are texts like any other.

    Args:
        recorded: When the recording was begun, in seconds since 1970.
        now: When the replay was.
    """

    def __init__(self, recorded: float, now: float) -> None:
        self._begun = (recorded, now)
        self._ids: dict[str, str] = {}  # The recorded ones, by ours.
        self._given = set[str]()  # By a server, in an answer.

    def matches(self, exchange: Exchange, asked: Asked, now: float) -> bool:
        """Tell whether *asked* is the request of *exchange*; if so, the id of its message is bound."""
        at = now if exchange.at is None else exchange.at.timestamp()
        comparison = _Comparison(
            ids=dict(self._ids),
            own=asked.message_id,
            given=self._given,
            literal=frozenset(exchange.literal or ()),
            spans=tuple(zip(self._begun, (at, now), strict=True)),
        )
        before = [exchange.method, exchange.path, None if exchange.body is None else dict(exchange.body)]
        after = [asked.method, asked.path, None if asked.body is None else dict(asked.body)]
        if not comparison.same(before, after):
            return False
        self._ids = comparison.ids
        return True

    def played(self, exchange: Exchange) -> None:
        """Take in what the server said in *exchange*."""
        said = json.dumps([exchange.answer, exchange.pieces, exchange.answer_headers])
        self._given.update(match.lower() for match in _UUID.findall(said))

    def in_ours(self, data: bytes) -> bytes:
        """Put our ids in the place of the recorded ones."""
        for ours, recorded in self._ids.items():
            data = data.replace(recorded.encode(), ours.encode())
        return data


@frozen
class _Comparison:
    """
    A request beside a recorded one.

    Attributes:
        ids: The recorded ids, by ours; the one that this request brings is added.
        own: The id of the message that the request carries, if any.
        given: Ids that a server gave out.
        literal: What looks like the mask of a secret, and is none.
        spans: When the recording began and the request was made then; when both were now.
    """

    ids: dict[str, str]
    own: str | None
    given: AbstractSet[str]
    literal: frozenset[str]
    spans: tuple[tuple[float, float], ...]

    def same(self, recorded: object, asked: object) -> bool:
        """Tell whether *asked*, JSON, is the *recorded* one."""
        plain = not isinstance(recorded, dict | list)
        equal = type(recorded) is type(asked) and recorded == asked
        if plain and (equal or self._made_now(recorded, asked)):
            return True
        if isinstance(recorded, dict) and isinstance(asked, dict):
            left, right = cast(dict[str, object], recorded), cast(dict[str, object], asked)
            return left.keys() == right.keys() and all(
                self.same(value, right[name]) for name, value in left.items()
            )
        if isinstance(recorded, list) and isinstance(asked, list):
            ours, theirs = cast(list[object], recorded), cast(list[object], asked)
            return len(ours) == len(theirs) and all(map(self.same, ours, theirs))
        return isinstance(recorded, str) and isinstance(asked, str) and self._same_text(recorded, asked)

    def _same_text(self, recorded: str, asked: str) -> bool:
        for ours, theirs in self.ids.items():
            asked = asked.replace(ours, theirs)
        if recorded == asked:
            return True
        parts, place = list[str](), 0
        for mask in MASKED.finditer(recorded):
            if mask[0] not in self.literal:
                parts.append(recorded[place : mask.start()])
                place = mask.end()
        if place:
            pattern = ".*".join(map(re.escape, (*parts, recorded[place:])))
            return re.fullmatch(pattern, asked, re.DOTALL) is not None
        return self._bind(recorded, asked)

    def _bind(self, recorded: str, asked: str) -> bool:
        """Let *asked*, the message's own id, stand for *recorded*, if both were made up by the client."""
        if asked != self.own or not (_UUID.fullmatch(recorded) and _UUID.fullmatch(asked)):
            return False
        known = self.given | {*self.ids, *self.ids.values()}
        if recorded.lower() in known or asked.lower() in known:
            return False
        self.ids[asked] = recorded
        return True

    def _made_now(self, recorded: object, asked: object) -> bool:
        """Tell whether both are the time at which they were written."""
        for value, (begun, end) in zip((recorded, asked), self.spans, strict=True):
            time = parse_time(value)
            if time is None or not begun - _SLACK <= time.timestamp() <= end + _SLACK:
                return False
        return True


def difference(recorded: Exchange, asked: Asked) -> list[str]:
    """Show line by line in what *asked* differs from a *recorded* call."""
    before = _lines(recorded.method, recorded.path, recorded.body)
    after = _lines(asked.method, asked.path, asked.body)
    lines = unified_diff(before, after, f"call {recorded.number} of the recording", "this call", lineterm="")
    return [printable(line) for line in lines if not line.startswith("@@")]


def _lines(method: str, path: str, body: Mapping[str, Any] | None) -> list[str]:
    lines = [f"{method} {path}"]
    if body is not None:
        value = body["json"] if "json" in body else next(iter(body.values()), None)
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        lines += text.split("\n")
    return lines
