"""Which recorded call a call is: the same, but for secrets and for what each run of a program makes anew."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import unified_diff
from typing import Any, cast

from attrs import field, frozen

from chatbridge.http.recording import Body, Exchange, body_of
from chatbridge.http.transport import Request
from chatbridge.http.wire import parse_time
from chatbridge.secret import MASK
from chatbridge.text import printable

__all__ = ["Asked", "Matcher", "difference"]

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE)
_MASKED = re.compile(rf"{re.escape(MASK)}(?::[0-9]+)?")
_SLACK = 1.0  # Times are written in whole seconds at times.


@frozen
class Asked:
    """A request, as a recording writes it."""

    method: str
    path: str
    body: Body | None = field(repr=False)

    @classmethod
    def of(cls, request: Request, base_url: str) -> Asked:
        """Take a request apart; all bytes are kept."""
        path = str(request.url).removeprefix(base_url)
        return cls(request.method, path, None if request.body is None else body_of(request.body))


class Matcher:
    """
    Tells whether calls are the recorded ones.

    A secret in the recording matches any text. An id that the client made up, a UUID, matches the one that it
    makes up now, and stands for it from then on, in answers as well; one that a server gave out does not. So
    does the time at which a request was made.

    Args:
        recorded: When the recording was begun, in seconds since 1970.
        now: When the replay was.
    """

    def __init__(self, recorded: float, now: float) -> None:
        self._recorded_from = recorded
        self._from = now
        self._ids: dict[str, str] = {}  # The recorded ones, by ours.
        self._given = set[str]()  # By a server, in an answer.

    def matches(self, exchange: Exchange, asked: Asked, now: float) -> bool:
        """Tell whether *asked* is the request of *exchange*; if so, its ids are bound."""
        if exchange.method != asked.method or not self._same_text(exchange.path, asked.path, {}):
            return False
        found: dict[str, str] = {}
        at = now if exchange.at is None else exchange.at.timestamp()
        if not self._same_body(exchange.body, asked.body, found, (at, now)):
            return False
        self._ids |= found
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

    def _same_body(
        self, recorded: Body | None, asked: Body | None, found: dict[str, str], moments: tuple[float, float]
    ) -> bool:
        if recorded is None or asked is None:
            return recorded is asked
        return self._same(dict(recorded), dict(asked), found, moments)

    def _same(
        self, recorded: object, asked: object, found: dict[str, str], moments: tuple[float, float]
    ) -> bool:
        plain = not isinstance(recorded, dict | list)
        same = type(recorded) is type(asked) and recorded == asked
        if plain and (same or self._made_now(recorded, asked, moments)):
            return True
        if isinstance(recorded, dict) and isinstance(asked, dict):
            left, right = cast(dict[str, object], recorded), cast(dict[str, object], asked)
            return left.keys() == right.keys() and all(
                self._same(value, right[name], found, moments) for name, value in left.items()
            )
        if isinstance(recorded, list) and isinstance(asked, list):
            ours, theirs = cast(list[object], recorded), cast(list[object], asked)
            return len(ours) == len(theirs) and all(
                self._same(one, other, found, moments) for one, other in zip(ours, theirs, strict=True)
            )
        if isinstance(recorded, str) and isinstance(asked, str):
            return self._same_text(recorded, asked, found)
        return False

    def _same_text(self, recorded: str, asked: str, found: dict[str, str]) -> bool:
        for ours, theirs in (self._ids | found).items():
            asked = asked.replace(ours, theirs)
        if recorded == asked:
            return True
        if MASK in recorded:
            pattern = ".*".join(map(re.escape, _MASKED.split(recorded)))
            return re.fullmatch(pattern, asked, re.DOTALL) is not None
        return self._bind(recorded, asked, found)

    def _bind(self, recorded: str, asked: str, found: dict[str, str]) -> bool:
        """Let *asked*, an id of ours, stand for *recorded*, if both were made up by the client."""
        if not (_UUID.fullmatch(recorded) and _UUID.fullmatch(asked)) or len(recorded) != len(asked):
            return False
        known = self._given | {*self._ids, *self._ids.values(), *found, *found.values()}
        if recorded.lower() in known or asked.lower() in known:
            return False
        found[asked] = recorded
        return True

    def _made_now(self, recorded: object, asked: object, moments: tuple[float, float]) -> bool:
        """Tell whether both are the time at which they were written."""
        begun = (self._recorded_from, self._from)
        for value, begin, end in zip((recorded, asked), begun, moments, strict=True):
            time = parse_time(value)
            if time is None or not begin - _SLACK <= time.timestamp() <= end + _SLACK:
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
