"""
A transport that writes down what it carries, secrets replaced before anything reaches the disk.

A secret is what is typed as one: an option, a header that an adapter sends as a `Secret`, a token that a
server gave out. Each is replaced wherever it stands, in every spelling that `Redactor` knows; of headers only
those known to be harmless show at all. What is not found: one that a server spreads over several JSON texts.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import warnings
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, cast

import aiohttp
from attrs import define, field, fields

from chatbridge.clock import Clock
from chatbridge.errors import ChatbridgeWarning, ConfigError
from chatbridge.http.content import BrokenContent, loads
from chatbridge.http.endpoint import Endpoint
from chatbridge.http.recording import MASKED, Body, End, Exchange, Head, body_of, failure_of, line_of
from chatbridge.http.redact import Redactor
from chatbridge.http.transport import Answer, OnHead, Request, Transport
from chatbridge.observe import OnAttempt
from chatbridge.options import CommonOptions
from chatbridge.registry import Target
from chatbridge.retry import Failure
from chatbridge.secret import MASK, Secret

__all__ = ["RecordingIncomplete", "RecordingTransport"]

_OWNER_ONLY = 0o600
_SHORTEST_SECRET = 4
_SHORTEST_TOKEN = 12  # Of what only the name of its header tells.
_HARMLESS = re.compile(
    r"accept|accept-encoding|allow|cache-control|connection|content-(?:encoding|language|length|type)|date|"
    r"retry-after|retry-after-ms|server|transfer-encoding|user-agent|vary|x-accel-buffering|"
    r"(?:x-)?request-id|x-correlation-id|x-should-retry|x-ratelimit-[a-z-]+",
    re.IGNORECASE,
)
_TELLS_SECRET = re.compile(r".*(?:authorization|cookie|key|secret|session|token)", re.IGNORECASE)


class RecordingIncomplete(ChatbridgeWarning):
    """A recording could not be written to its end; no answer was lost by it."""


@define(eq=False)
class _Entry:
    """What is known of one request so far."""

    number: int
    request: Request
    begun: float
    at: datetime | None = None
    seconds: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    tee: _Tee | None = None


class _Tee:
    """The content of an answer, which keeps what is read of it; all else is the content's own."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self.pieces: list[bytes] = []
        self.broke = False
        self._content = content

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the content has
        return getattr(self._content, name)

    def read_nowait(self, n: int = -1) -> bytes:
        return self._keep(self._content.read_nowait(n))

    def _read_nowait(self, n: int) -> bytes:
        return self._keep(cast(Any, self._content)._read_nowait(n))  # noqa: SLF001 - as `EventStream` does

    async def readany(self) -> bytes:
        self.broke = True
        piece = await self._content.readany()
        self.broke = False
        return self._keep(piece)

    def _keep(self, piece: bytes) -> bytes:
        if piece:
            self.pieces.append(piece)
        return piece


class RecordingTransport(Transport):
    """
    Carries the calls to *target*, and writes each attempt to its file when it is over.

    A file that is there is replaced; only its owner may read it. If it cannot be written any more, the calls
    go on, and closing warns of it.

    Raises:
        ConfigError: The file cannot be written, or a secret is too short to be told from other text.
    """

    def __init__(
        self, target: Target, *, clock: Clock | None = None, on_attempt: OnAttempt | None = None
    ) -> None:
        super().__init__(str(target.base_url), target.options, clock=clock, on_attempt=on_attempt)
        secrets = dict(_secrets(target.options))
        for name, secret in secrets.items():
            if len(secret.reveal()) < _SHORTEST_SECRET:
                raise ConfigError(
                    f"{target.adapter.name}: the {name} is too short to record with: under "
                    f"{_SHORTEST_SECRET} characters it cannot be told from other text",
                    provider=target.adapter.name,
                )
            self.redactor.add(secret)
        self._path = cast(Path, target.record)
        self._problem: str | None = None
        self._entries: dict[int, _Entry] = {}
        self._streams: dict[aiohttp.ClientResponse, _Entry] = {}
        self._count = 0
        masks = {name: self.redactor.mask(secret) for name, secret in secrets.items()}
        options = dict(_options(target.options))
        _create(self._path, Head(started=self._now(), config=str(target.url), options=options, secrets=masks))

    async def close(self) -> None:
        """Close the sessions; what is under way is written as left."""
        try:
            await super().close()
        finally:
            for entry in tuple(self._entries.values()):
                self._finish(entry, "left")
        if self._problem is not None:
            warnings.warn(
                f"the recording {str(self._path)!r} is incomplete: {self._problem}",
                RecordingIncomplete,
                stacklevel=2,
            )

    async def attempt(
        self,
        endpoint: Endpoint[Any],
        request: Request,
        deadline: float,
        *,
        fresh: bool = False,
        streamed: bool = False,
        on_head: OnHead | None = None,
    ) -> Answer:
        """Make one attempt, and write it down."""
        self._count += 1
        entry = self._entries[self._count] = _Entry(self._count, request, self.clock.now())

        def heard(headers: Mapping[str, str]) -> None:
            self._mark(entry)
            entry.headers = headers
            if on_head is not None:
                on_head(headers)

        try:
            answer = await super().attempt(
                endpoint, request, deadline, fresh=fresh, streamed=streamed, on_head=heard
            )
        except Failure as failure:
            if self._closed:
                self._finish(entry, "left")
            else:
                entry.status = failure.status
                self._finish(entry, "failed", failure=failure)
            raise
        except asyncio.CancelledError:
            self._finish(entry, "left")
            raise
        entry.status = answer.status
        if answer.response is None:
            self._finish(entry, "whole", answer.body)
        else:
            entry.tee = _Tee(answer.response.content)
            answer.response.content = cast(Any, entry.tee)
            self._streams[answer.response] = entry
        return answer

    def release(self, response: aiohttp.ClientResponse | None, failure: Failure | None = None) -> None:
        """Close *response*, and write down what was read of it."""
        entry = None if response is None else self._streams.pop(response, None)
        end: End = "left"
        if entry is not None and entry.tee is not None and not self._closed:
            if entry.tee.broke and failure is not None:
                end = "failed"
            elif not entry.tee.broke and entry.tee.at_eof():
                end = "whole"
        super().release(response, failure)
        if entry is not None:
            self._finish(entry, end, failure=failure)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.wall(), UTC)

    def _mark(self, entry: _Entry) -> None:
        entry.at, entry.seconds = self._now(), self.clock.now() - entry.begun

    def _finish(
        self, entry: _Entry, end: End, body: bytes | None = None, *, failure: Failure | None = None
    ) -> None:
        """Write *entry* down, unless it is already."""
        if self._entries.pop(entry.number, None) is None:
            return
        if entry.at is None:
            self._mark(entry)
        for name, value in _pairs(entry.headers):
            if _TELLS_SECRET.match(name) and not _HARMLESS.fullmatch(name):
                self._hide(value)
        request, scrub = entry.request, self.redactor.scrub
        path = str(request.url).removeprefix(self.base_url)
        said = {} if failure is None or end != "failed" else failure_of(failure)
        self._write(
            Exchange(
                number=entry.number,
                at=entry.at,
                seconds=round(entry.seconds, 6),
                method=request.method,
                path=scrub(path),
                headers=self._shown(request.headers),
                body=self._scrubbed(request.body),
                literal=_literal([path, (request.body or b"").decode(errors="replace")], self.redactor),
                status=entry.status,
                answer_headers=self._shown(entry.headers),
                answer=self._scrubbed(body),
                pieces=None if entry.tee is None else scrub_pieces(entry.tee.pieces, self.redactor),
                end=end,
                failure={
                    name: scrub(value) if isinstance(value, str) else value for name, value in said.items()
                }
                or None,
            )
        )

    def _hide(self, value: str) -> None:
        """Take the *value* of a header for a secret, and that of a cookie in it."""
        first = value.partition(";")[0]
        for each in {value, first, first.partition("=")[2]}:
            long = len(each) >= _SHORTEST_TOKEN and not each.isdigit()
            if long and Secret(each) not in self.redactor:
                self.redactor.add(Secret(each))

    def _shown(self, headers: Mapping[str, str] | None) -> list[list[str]]:
        return [
            [name, self.redactor.scrub(value) if _HARMLESS.fullmatch(name) else self._masked(value)]
            for name, value in _pairs(headers)
        ]

    def _masked(self, value: str) -> str:
        """Give what stands for *value*: its own mask, where it is known as a secret."""
        known = bool(value) and Secret(value) in self.redactor
        return self.redactor.mask(Secret(value)) if known else MASK

    def _scrubbed(self, data: bytes | None) -> Body | None:
        if data is None:
            return None
        try:
            return {"json": scrub_json(loads(data), self.redactor)}
        except BrokenContent:
            return body_of(b"".join(_scrub_bytes([data], self.redactor)))

    def _write(self, exchange: Exchange) -> None:
        if self._problem is not None:
            return
        try:
            # Opened for each line: no handle is left open by a bridge that is never closed.
            with os.fdopen(
                os.open(self._path, os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8", newline="\n"
            ) as file:
                file.write(line_of(exchange))
        except OSError as error:
            self._problem = error.strerror or type(error).__name__


def _literal(texts: Iterable[str], redactor: Redactor) -> list[str] | None:
    """Find what looks like a mask in *texts*, beside the secrets in them."""
    found = set[str]()
    for text in texts:
        place = 0
        for start, end, _ in (*redactor.spots(text), (len(text), len(text), "")):
            found.update(MASKED.findall(text[place:start]))
            place = end
    return sorted(found) or None


def scrub_json(value: object, redactor: Redactor) -> Any:  # noqa: ANN401 - JSON
    """Replace secrets in all texts of a JSON value; a number that holds one becomes 0."""
    if isinstance(value, str):
        return redactor.scrub(value)
    if isinstance(value, list):
        return [scrub_json(each, redactor) for each in cast(list[object], value)]
    if isinstance(value, dict):
        members = cast(dict[str, object], value).items()
        return {redactor.scrub(name): scrub_json(each, redactor) for name, each in members}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0 if redactor.spots(str(value)) else value
    return value


def scrub_pieces(pieces: Iterable[bytes], redactor: Redactor) -> list[str | Body]:
    """Replace secrets in the pieces of a text, also those that begin in one piece and end in another."""
    written: list[str | Body] = []
    for piece in _scrub_bytes(pieces, redactor):
        try:
            written.append(piece.decode())
        except UnicodeDecodeError:
            written.append({"base64": b64encode(piece).decode()})
    return written


def _scrub_bytes(pieces: Iterable[bytes], redactor: Redactor) -> list[bytes]:
    """Replace secrets in *pieces*; the mask stands in the piece in which the secret began."""
    parts = list(pieces)
    text = b"".join(parts).decode(errors="surrogateescape")
    done, place = 0, 0  # In characters, and in bytes.
    edits: list[tuple[int, int, bytes]] = []
    for start, end, mask in redactor.spots(text, cut=True):
        begin = place + _size(text[done:start])
        done, place = end, begin + _size(text[start:end])
        edits.append((begin, place, mask.encode()))
    for begin, stop, written in reversed(edits):
        offset = 0
        for index, part in enumerate(parts):
            low, high = max(begin - offset, 0), min(stop - offset, len(part))
            if low < high:
                parts[index] = part[:low] + (written if offset <= begin else b"") + part[high:]
            offset += len(part)
    return parts


def _size(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))


def _pairs(headers: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return [] if headers is None else list(headers.items())


def _secrets(options: CommonOptions) -> Iterable[tuple[str, Secret]]:
    for attribute in fields(type(options)):
        value = getattr(options, attribute.name)
        if isinstance(value, Secret):
            yield attribute.name, value


def _options(options: CommonOptions) -> Iterable[tuple[str, Any]]:
    """Give the options that differ from their defaults, as JSON; no secrets."""
    for attribute in fields(type(options)):
        value = getattr(options, attribute.name)
        if isinstance(value, Secret) or value == attribute.default:
            continue
        if isinstance(value, frozenset):
            value = sorted(cast(frozenset[str], value))
        yield attribute.name, value.value if isinstance(value, Enum) else value


def _create(path: Path, head: Head) -> None:
    """Make the file *path* of its first line, for its owner alone."""
    problem = "it is no file"
    try:
        if path.is_file() or not path.exists():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                if stat.S_IMODE(os.fstat(handle).st_mode) != _OWNER_ONLY:
                    path.chmod(_OWNER_ONLY)
                file.write(line_of(head))
            return
    except OSError as error:
        problem = error.strerror or type(error).__name__
    raise ConfigError(f"the recording {str(path)!r} cannot be written: {problem}")
