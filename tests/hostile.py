"""Answers as no server should give them: every field of a real one changed in turn, and its bytes damaged."""

from __future__ import annotations

import copy
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import aiohttp
from attrs import frozen, has

from chatbridge.testing.emulator import Call

__all__ = ["Mutation", "Recorded", "conforms", "mutations", "record", "wrong_in"]

LONE = "half \ud83d of it"
VALUES: dict[str, object] = {
    "null": None,
    "true": True,
    "seven": 7,
    "minus one": -1,
    "a fraction": 1.5,
    "huge": 1e300,
    "2**63": 2**63,
    "10**18": 10**18,
    "nothing": "",
    "a text": "text",
    "a half": LONE,
    "controls": "a\0b\u2028\u202e\x1b[31m",
    "no time": "0000-13-41T99:00:00Z",
    "a year": "-5000-01-01T00:00:00Z",
    "a list": [],
    "an object": {},
    "nulls": [None],
    "lists": [[]],
    "a thing": {"a": 1},
    "numbers": [1, 2],
}
TIMES = frozenset({"created_at", "updated_at", "created", "updated", "timestamp", "createdAt", "updatedAt"})
MISSING = object()

Path = tuple[str | int, ...]


@frozen
class Recorded:
    """A real answer."""

    body: bytes
    content_type: str
    status: int

    @property
    def streamed(self) -> bool:
        """Whether it is made of lines or events."""
        return "json" not in self.content_type or "jsonl" in self.content_type


@frozen
class Mutation:
    """A damaged answer, and whether what is damaged is only a time."""

    name: str
    body: bytes
    only_time: bool = False


async def record(base_url: str, call: Call) -> Recorded:
    """Repeat a request that was seen, and give what is answered."""
    headers = {name: value for name, value in call.headers.items() if name.lower() not in _OWN}
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            call.method,
            base_url + call.path,
            params=dict(call.query),
            headers=headers,
            data=call.body or None,
        ) as response,
    ):
        return Recorded(await response.read(), response.headers.get("Content-Type", ""), response.status)


_OWN = {"host", "content-length", "connection"}


def mutations(recorded: Recorded) -> Iterator[Mutation]:
    """Damage an answer in every way there is."""
    if recorded.streamed:
        yield from _of_lines(recorded.body)
    else:
        for name, value, only_time in _of_document(json.loads(recorded.body)):
            yield Mutation(name, _dump(value), only_time)
    yield from _of_bytes(recorded.body)


def _of_lines(body: bytes) -> Iterator[Mutation]:
    lines = body.split(b"\n")
    for number, line in enumerate(lines):
        prefix, text = _split(line)
        try:
            document = json.loads(text)
        except ValueError:
            continue
        for name, value, only_time in _of_document(document):
            changed = [*lines[:number], prefix + _dump(value), *lines[number + 1 :]]
            yield Mutation(f"line {number} {name}", b"\n".join(changed), only_time)
        yield Mutation(f"line {number} left out", b"\n".join(lines[:number] + lines[number + 1 :]))
        yield Mutation(f"line {number} twice", b"\n".join([*lines[: number + 1], *lines[number:]]))


def _split(line: bytes) -> tuple[bytes, bytes]:
    for prefix in (b"data: ", *(b"%c:" % each for each in b"0123456789abcdefgh")):
        if line.startswith(prefix):
            return prefix, line[len(prefix) :]
    return b"", line


def _of_document(document: object) -> Iterator[tuple[str, object, bool]]:
    for path in _paths(document):
        shown = "$" + "".join(f"[{step!r}]" for step in path)
        for name, value in VALUES.items():
            yield f"{shown} = {name}", _changed(document, path, value), bool(path) and path[-1] in TIMES
        if path:
            yield f"{shown} missing", _changed(document, path, MISSING), path[-1] in TIMES
    if isinstance(document, dict):
        yield "one more", {**cast(dict[str, object], document), "unheard-of": {"a": [1]}}, False


def _paths(value: object, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(value, dict):
        for name, each in cast(dict[str, object], value).items():
            yield from _paths(each, (*path, name))
    elif isinstance(value, list):
        for place, each in enumerate(cast(list[object], value)[:3]):
            yield from _paths(each, (*path, place))


def _changed(document: object, path: Path, value: object) -> object:
    if not path:
        return value
    changed: Any = copy.deepcopy(document)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def _of_bytes(body: bytes) -> Iterator[Mutation]:
    damaged = {
        "two documents": body + body,
        "a comma": body.rstrip()[:-1] + b"," + body.rstrip()[-1:],
        "NaN": b'{"id": NaN}',
        "Infinity": b"[Infinity]",
        "5,000 digits": b'{"id": %s}' % (b"7" * 5000),
        "depth": b"[" * 10_000 + b"]" * 10_000,
        "objects in objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "a name twice": b'{"id": "a", "id": "b"}',
        "a mark": b"\xef\xbb\xbf" + body,
        "UTF-16": body.decode("utf-8").encode("utf-16"),
        "no UTF-8": body.replace(b'"', b'"\xff', 1),
        "CR": body.replace(b"\n", b"\r"),
        "NUL": b"\0" + body,
        "nothing": b"",
        "blanks": b" \r\n\t",
        "a page": b"<!DOCTYPE html><html>it works</html>",
    }
    for name, each in damaged.items():
        yield Mutation(name, each)
    step = max(1, len(body) // 10)
    for length in range(step, len(body), step):
        yield Mutation(f"cut at {length}", body[:length])


# Whether a value is what its type says


def wrong_in(value: object, path: str = "value") -> Iterator[str]:
    """Say what in *value*, at any depth, is not of its declared type."""
    if has(type(value)):
        cls = type(value)
        for name, hint in get_type_hints(cls).items():
            if not hasattr(value, name):
                continue
            each = getattr(value, name)
            if not conforms(each, hint):
                yield f"{path}.{name} is {each!r}, and not {hint}"
            yield from wrong_in(each, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for place, each in enumerate(cast(Sequence[object], value)):
            yield from wrong_in(each, f"{path}[{place}]")


def conforms(value: object, hint: Any) -> bool:  # noqa: C901, PLR0912 - a case for each form of type
    """Tell whether *value* is of the type *hint*."""
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if hint is None or hint is type(None):
        return value is None
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return any(conforms(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        held = cast(tuple[object, ...], value)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(conforms(each, arguments[0]) for each in held)
        return len(held) == len(arguments) and all(map(conforms, held, arguments))
    if origin is not None and isinstance(origin, type):
        if not isinstance(value, origin):
            return False
        if isinstance(value, Mapping) and len(arguments) == 2:
            items = cast(Mapping[object, object], value).items()
            return all(conforms(k, arguments[0]) and conforms(v, arguments[1]) for k, v in items)
        if isinstance(value, list | set | frozenset) and arguments:
            return all(conforms(each, arguments[0]) for each in cast(list[object], value))
        return True
    if not isinstance(hint, type):
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if issubclass(hint, Enum):
        return isinstance(value, hint)
    return isinstance(value, hint)
