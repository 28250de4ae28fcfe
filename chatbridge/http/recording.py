"""
The exchange with a server, kept in a file that people can read: JSON lines, one for each request.

The first line says what the recording is of; each other line is an `Exchange`. A reader takes files of its
own version and of older ones, and refuses newer ones. Fields that it does not know, it keeps.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, TypeVar, cast

from attrs import asdict, field, fields_dict, frozen

from chatbridge.errors import ConfigError, Phase
from chatbridge.http.content import BrokenContent, loads
from chatbridge.http.wire import Raw, structure, unstructure
from chatbridge.retry import Failure
from chatbridge.secret import MASK

__all__ = [
    "MASKED",
    "VERSION",
    "BadRecording",
    "Body",
    "End",
    "Exchange",
    "Head",
    "Recording",
    "body_of",
    "bytes_of",
]

FORMAT = "chatbridge-recording"
VERSION = 1

MASKED = re.compile(rf"{re.escape(MASK)}:[1-9][0-9]*")
"""What stands for a secret in a path or a body."""

Body = Mapping[str, Any]
"""Bytes as they are written: under `json` their value, else under `text`, else under `base64`."""

End = Literal["whole", "left", "failed"]

_LineT = TypeVar("_LineT", bound="Head | Exchange")


class BadRecording(ConfigError):
    """
    A recording cannot be read.

    Attributes:
        path: The file.
        line: The number of the line at fault; None where it is the file itself.
    """

    def __init__(self, path: Path, problem: str, line: int | None = None) -> None:
        self.path = path
        self.line = line
        where = f", line {line}" if line is not None else ""
        super().__init__(f"the recording {str(path)!r}{where}: {problem}")


@frozen(kw_only=True)
class Head:
    """
    What a recording is of.

    Attributes:
        chatbridge: The version that wrote it.
        started: When, in RFC 3339.
        config: The config string.
        options: The options that differ from their defaults, wherever they came from; no secrets.
        secrets: The options that were secrets, each with what stands in the file in its place.
    """

    format: str = FORMAT
    version: int = VERSION
    chatbridge: str = field(factory=lambda: version("chatbridge"))
    started: datetime | None
    config: str
    options: Mapping[str, Any] = field(factory=dict[str, Any])
    secrets: Mapping[str, Any] = field(factory=dict[str, Any])
    raw: Raw = field(factory=dict[str, Any], repr=False, eq=False)


@frozen(kw_only=True)
class Exchange:
    """
    One request, and what came of it.

    Attributes:
        number: Its place in the order in which the requests were made, from 1.
        at: When its answer began, or failed to.
        seconds: How long that took.
        path: With the query, below the base URL.
        headers: Pairs of name and value, as those of the answer.
        body: None for none.
        literal: What looks like the mask of a secret in the path or the body, and is none; None for none.
        status: None where no answer began.
        answer: The body of an answer that was read whole; None where it was not wanted, or not readable.
        pieces: Those of a stream, each a text, or where it is none, a `Body`; None of what is no stream.
        end: How it ended: whole, left by the reader, or failed.
        failure: The fields of the `Failure`.
        raw: The line as it was read.
    """

    number: int
    at: datetime | None
    seconds: float
    method: str
    path: str
    headers: list[list[str]] = field(factory=list[list[str]])
    body: Mapping[str, Any] | None = None
    literal: list[str] | None = None
    status: int | None = None
    answer_headers: list[list[str]] = field(factory=list[list[str]])
    answer: Mapping[str, Any] | None = None
    pieces: list[Any] | None = None
    end: End
    failure: Mapping[str, Any] | None = None
    raw: Raw = field(factory=dict[str, Any], repr=False, eq=False)

    def check(self) -> None:
        """
        See whether all of it can be read.

        Raises:
            BrokenContent: Its parts do not fit together, or cannot be read.
        """
        if (self.end == "failed") != (self.failure is not None):
            raise BrokenContent("schema", "what failed has a failure, and nothing else has")
        if not 0 <= self.seconds < math.inf:
            raise BrokenContent("schema", "it took no finite time @ $.seconds")
        if not all(map(_is_pair, (*self.headers, *self.answer_headers))):
            raise BrokenContent("schema", "a header is a pair of name and value")
        _ = None if self.body is None else bytes_of(self.body)
        _ = self.parts(), self.failed()

    def parts(self) -> list[bytes]:
        """Give the body of the answer: the pieces of a stream, or all of it in one."""
        if self.pieces is None:
            return [] if self.answer is None else [bytes_of(self.answer)]
        return [
            piece.encode(errors="surrogatepass") if isinstance(piece, str) else bytes_of(piece)
            for piece in self.pieces
        ]

    def failed(self) -> Failure | None:
        """Make the failure that it ended in."""
        if self.failure is None:
            return None
        read: _Failed = structure(self.failure, _Failed)
        if read.phase not in {phase.value for phase in Phase}:
            raise BrokenContent("schema", "there is no such phase @ $.failure.phase")
        return Failure(
            Phase(read.phase),
            read.reason,
            kind=read.kind,
            timed_out=read.timed_out,
            status=read.status,
            final=read.final,
            request_id=read.request_id,
        )


def _is_pair(pair: list[str]) -> bool:
    return len(pair) == len(("name", "value"))


@frozen
class _Failed:
    """What a transport tells of a `Failure`."""

    phase: str
    reason: str
    kind: str = "lost"
    timed_out: bool = False
    status: int | None = None
    final: bool = False
    request_id: str | None = None


def failure_of(failure: Failure) -> dict[str, Any]:
    """Write *failure* down; what has its default is left out."""
    return cast(
        dict[str, Any],
        unstructure(
            _Failed(
                failure.phase.value,
                failure.reason,
                failure.kind,
                failure.timed_out,
                failure.status,
                failure.final,
                failure.request_id,
            )
        ),
    )


def bytes_of(body: Body) -> bytes:
    """
    Give the bytes that *body* stands for; those of JSON are another spelling of the same value.

    Raises:
        BrokenContent: It is none.
    """
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        if "json" in body:
            return json.dumps(body["json"], separators=(",", ":")).encode()
        if "text" in body:
            return cast(bytes, body["text"].encode(errors="surrogatepass"))
        return b64decode(body["base64"], validate=True)
    raise BrokenContent("schema", "a body is neither json nor text nor base64")


def body_of(data: bytes) -> Body:
    """Write *data* down so that people can read it, if they can."""
    with suppress(BrokenContent):
        return {"json": loads(data)}
    with suppress(UnicodeDecodeError):
        return {"text": data.decode()}
    return {"base64": b64encode(data).decode()}


@frozen
class Recording:
    """The exchange of a session, in the order in which its requests were made."""

    head: Head
    exchanges: tuple[Exchange, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """
        Read a recording.

        Raises:
            BadRecording: There is none that can be read; the line at fault is named.
        """
        path, problem, text = Path(path), "", ""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            problem = f"it cannot be read: {error.strerror or type(error).__name__}"
        except ValueError:
            problem = "it is not UTF-8"
        if problem:
            raise BadRecording(path, problem)
        first, *rest = text.removesuffix("\n").split("\n")
        number = 1
        try:
            head, exchanges = _parse(first, Head), list[Exchange]()
            for number, line in enumerate(rest, start=2):  # noqa: B007 - it is told below
                exchanges.append(_parse(line, Exchange))
        except BrokenContent as error:
            problem = str(error)
        else:
            return cls(head, tuple(sorted(exchanges, key=lambda exchange: exchange.number)))
        raise BadRecording(path, problem, number)

    def save(self, path: str | Path) -> None:
        """
        Write the recording, with the fields that this version does not know.

        Raises:
            BadRecording: It cannot be written.
        """
        lines = [line_of(self.head), *map(line_of, self.exchanges)]
        problem = None
        try:
            Path(path).write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            problem = f"it cannot be written: {error.strerror or type(error).__name__}"
        if problem:
            raise BadRecording(Path(path), problem)


def line_of(value: Head | Exchange) -> str:
    """Write *value* as a line, with the fields that this version does not know."""
    known = fields_dict(type(value))
    plain = {
        name: each.isoformat() if isinstance(each, datetime) else each
        for name, each in asdict(value, recurse=False).items()
        if name != "raw" and (each is not None or known[name].default is not None)
    }
    unknown = {name: each for name, each in value.raw.items() if name not in known}
    text = json.dumps({**plain, **unknown}, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # Halves of characters.
        text = json.dumps({**plain, **unknown})
    return text + "\n"


def _parse(line: str, kind: type[_LineT]) -> _LineT:
    """Read one line, or raise BrokenContent."""
    try:
        value: object = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        problem = "it is not JSON, or not all of it is there"
    else:
        problem = _foreign(value) if kind is Head else ""
        if not problem:
            read: _LineT = structure(value, kind)
            if isinstance(read, Exchange):
                read.check()
            return read
    raise BrokenContent("schema", problem)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _foreign(head: object) -> str:
    """Say why a file with this *head* is none of ours to read."""
    fields = cast(dict[str, object], head) if isinstance(head, dict) else {}
    if fields.get("format") != FORMAT:
        return f"it is no recording of chatbridge, whose first line has the format {FORMAT!r}"
    number = fields.get("version")
    if type(number) is not int or number < 1:
        return "its version is no number from 1"
    if number > VERSION:
        ours, theirs = version("chatbridge"), str(fields.get("chatbridge"))[:40]
        return (
            f"it is of version {number}, written by chatbridge {theirs!r}; this one, {ours}, reads versions "
            f"up to {VERSION}: install a newer chatbridge, or record again"
        )
    return ""
