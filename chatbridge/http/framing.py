"""Byte streams cut into frames, whatever the pieces in which they arrive."""

import re
from collections.abc import Iterable
from itertools import takewhile
from typing import Protocol

import attrs

from chatbridge.http.content import BrokenContent, loads

LIMIT = 16 * 1024 * 1024

_LF = 0x0A
_BOM = b"\xef\xbb\xbf"
_PREFIX = re.compile(rb"[a-z0-9]{1,3}(?=:)")
_FIELD = re.compile(rb"(?:event|id|retry)?:")


@attrs.define
class Frame:
    """
    One event or line of a stream.

    Attributes:
        name: The event's name or the line's prefix; empty for a line without one.
        data: What it carries, normally a JSON document.
    """

    name: str
    data: bytes


class Framer(Protocol):
    """
    Cuts one stream into frames.

    The frames do not depend on how the stream is split into chunks. Both methods raise BrokenContent
    `oversize` for a line or event over the limit, once the frames before it have been returned.
    """

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete."""
        ...

    def close(self) -> list[Frame]:
        """Return the frames that the stream's end completes; raise BrokenContent `cut` for a broken one."""
        ...


class JsonLines:
    """
    One JSON document per line.

    Only LF ends a line, with or without a CR before it; blank lines yield nothing. A last line without its LF
    is a frame if it parses. *limit* is in bytes, per line.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._cutter = _Cutter(b"\n", limit)

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next bytes and return the lines that they complete."""
        return self._frames(self._cutter.feed(chunk))

    def close(self) -> list[Frame]:
        """Return the unfinished last line if it parses, else raise BrokenContent `cut`."""
        frames = self._frames([self._cutter.close()])
        if all(_parses(frame.data) for frame in frames):
            return frames
        raise BrokenContent("cut", "the last line is unfinished")

    def _frames(self, lines: Iterable[bytes]) -> list[Frame]:
        return [self._frame(line.removesuffix(b"\r")) for line in lines if line.strip()]

    def _frame(self, line: bytes) -> Frame:
        return Frame("", line)


class DataLines(JsonLines):
    """
    One JSON document per line, bare or as a data line of server-sent events.

    Their other fields and comments yield nothing. The rest is as in `JsonLines`.
    """

    def _frames(self, lines: Iterable[bytes]) -> list[Frame]:
        return super()._frames(line.removeprefix(b"data:") for line in lines if not _FIELD.match(line))


class PrefixedLines(JsonLines):
    """
    One JSON document per line, named by a prefix as in ``2:{...}`` or bare.

    A prefix is 1 to 3 lower-case letters or digits and a colon, with which no JSON document begins. The rest
    is as in `JsonLines`.
    """

    def _frame(self, line: bytes) -> Frame:
        prefix = _PREFIX.match(line)
        return Frame(prefix[0].decode(), line[prefix.end() + 1 :]) if prefix else Frame("", line)


class ServerSentEvents:
    """
    Server-sent events by the WHATWG's rules: any line end, a byte order mark, comments, several data lines.

    An event without a name is called "message". Without any data line it is dropped, but with *keep_empty* a
    named one is kept, its data empty. An event that the stream's end leaves unfinished is dropped. Ids and
    retry times are ignored. *limit* is in bytes, per event with its comments.
    """

    def __init__(self, limit: int = LIMIT, *, keep_empty: bool = False) -> None:
        self._cutter = _Cutter(b"\n\n", limit)
        self._keep_empty = keep_empty
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next bytes and return the events that they complete."""
        blocks = self._cutter.feed(self._with_lf(chunk))
        if self._at_start and blocks:
            self._at_start = False
            blocks[0] = blocks[0].removeprefix(_BOM)
        frames: list[Frame] = []
        for block in blocks:
            # Nearly every event is one data line: taking it whole saves two thirds of the time.
            if block[:6] == b"data: " and _LF not in block:
                frames.append(Frame("message", block[6:]))
            elif frame := self._parse(block):
                frames.append(frame)
        return frames

    def close(self) -> list[Frame]:
        """Return nothing: an unfinished event is dropped."""
        self._cutter.close()
        return []

    def _with_lf(self, chunk: bytes) -> bytes:
        """Return *chunk* with LF for CRLF and CR."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" not in chunk:
            return chunk
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _parse(self, block: bytes) -> Frame | None:
        name = b""
        data: list[bytes] = []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
        if data or (name and self._keep_empty):
            return Frame(name.decode("utf-8", "replace") or "message", b"\n".join(data))
        return None


class _Cutter:
    """
    Cuts a byte stream at a separator.

    Each byte is searched and copied a bounded number of times, and about *limit* of them wait at most.
    """

    def __init__(self, separator: bytes, limit: int) -> None:
        self._separator = separator
        self._limit = limit
        self._waiting = bytearray()
        self._oversize = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the pieces that *chunk* completes, up to the first that is too long."""
        self._refuse_oversize()
        waiting = self._waiting
        # A separator may have begun in what waits, but only in its last bytes.
        if waiting and self._separator not in waiting[len(waiting) - len(self._separator) + 1 :] + chunk:
            waiting += chunk
            return self._within_limit([]) if len(waiting) > self._limit else []
        whole = b"".join((waiting, chunk))
        waiting.clear()
        *pieces, rest = whole.split(self._separator)
        waiting += rest
        return self._within_limit(pieces) if len(whole) > self._limit else pieces

    def close(self) -> bytes:
        """Return what no separator has ended."""
        self._refuse_oversize()
        rest = bytes(self._waiting)
        self._waiting.clear()
        return rest

    def _within_limit(self, pieces: list[bytes]) -> list[bytes]:
        allowed = list(takewhile(lambda piece: len(piece) <= self._limit, pieces))
        # What waits may end in all but the last byte of a separator.
        too_long = len(self._waiting) > self._limit + len(self._separator) - 1
        if too_long or len(allowed) < len(pieces):
            self._oversize = True
            self._waiting.clear()
            if not allowed:
                self._refuse_oversize()
        return allowed

    def _refuse_oversize(self) -> None:
        if self._oversize:
            raise BrokenContent("oversize", f"a line or event of over {self._limit} bytes")


def _parses(data: bytes) -> bool:
    try:
        loads(data)
    except BrokenContent:
        return False
    return True
