"""Strict JSON: documents written without guessing, and what cannot be written named by its path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import cast

__all__ = ["MAX_DEPTH", "dumps", "is_deep", "problem_of"]

MAX_DEPTH = 100

_BRACKETS_TO_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1 as signed bytes
_ALL_BUT_MARKS = bytes(set(range(256)) - set(b'[{]}"'))
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dumps(value: object) -> bytes:
    """
    Write *value* as compact JSON in UTF-8.

    Raises ValueError for what strict JSON cannot hold (NaN, lone surrogates, foreign types, cycles); the
    message names its path, such as ``$.messages[0].content``, and never shows it.
    """
    written = _write(value)
    if written is None:
        raise ValueError(_first_offence(value))
    return written


def problem_of(value: object, *, kept: bool = True) -> str | None:
    """
    Say what of *value* could not be written or read back; None where nothing is.

    That is also what is nested too deep (over 100), and in what is *kept*, to come back as it is, a key that
    is no text, of which writing makes one.
    """
    written = _write(value)
    if written is None or is_deep(written) or (kept and not _has_texts_for_keys(value)):
        return _first_offence(value, only_texts=kept)
    return None


def is_deep(data: bytes) -> bool:
    """Say whether the JSON document *data* is nested over 100 deep."""
    # Two counts clear most documents. In the others the brackets outside strings are added up, all in C.
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Taking out neighbouring quotes first leaves few strings to split at.
    marks = data.translate(_BRACKETS_TO_STEPS, _ALL_BUT_MARKS).replace(b'""', b"")
    steps = memoryview(b"".join(marks.split(b'"')[::2])).cast("b")
    return max(accumulate(steps), default=0) > MAX_DEPTH


def _write(value: object) -> bytes | None:
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _has_texts_for_keys(value: object) -> bool:
    inner: Iterable[object] = ()
    if isinstance(value, dict):
        mapping = cast("dict[object, object]", value)
        if not all(isinstance(key, str) for key in mapping):
            return False
        inner = mapping.values()
    elif isinstance(value, (list, tuple)):
        inner = cast("Sequence[object]", value)
    return all(_has_texts_for_keys(item) for item in inner if type(item) not in _PLAIN_TYPES)


def _first_offence(value: object, *, only_texts: bool = False) -> str:
    path, reason = next(_offences(value, "$", 0, only_texts=only_texts), ("$", "cannot be written"))
    return f"{path}: {reason}"


def _offences(value: object, path: str, depth: int, *, only_texts: bool) -> Iterator[tuple[str, str]]:
    """Yield path and reason of each part of *value*, *depth* deep in it, that JSON cannot hold."""
    if not isinstance(value, (dict, list, tuple)):
        if _write(value) is None:
            yield path, _reason(value)
    elif depth == MAX_DEPTH:
        yield path, "is nested too deep, or holds itself"
    elif isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            if _write({key: None}) is None:
                yield path, f"has a key that {_reason(key)}"
            elif only_texts and not isinstance(key, str):
                yield path, f"has a key that is of type {type(key).__name__}, and is no text"
            yield from _offences(item, f"{path}{_step(key)}", depth + 1, only_texts=only_texts)
    else:
        for index, item in enumerate(cast("Sequence[object]", value)):
            yield from _offences(item, f"{path}[{index}]", depth + 1, only_texts=only_texts)


def _step(key: object) -> str:
    name = str(key)
    return f".{name}" if _PLAIN_KEY.match(name) else f"[{json.dumps(name)}]"


def _reason(value: object) -> str:
    match value:
        case str():
            return "holds half of a surrogate pair"
        case float():
            return "is not a finite number"
        case int():
            return "has too many digits"
        case _:
            return f"is of type {type(value).__name__}, which JSON does not have"
