"""Looks for secrets in all that an error shows of itself, however they are spelled."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from chatbridge.errors import AnswerLost
from chatbridge.secret import Secret

__all__ = ["all_of", "leak_in", "leaks_of", "shown_by", "spellings"]

_OWN = str(Path(__file__).parent)


def spellings(text: str) -> dict[str, str]:
    """Spell *text* in the ways in which a server may send it back."""
    return {
        "plain": text,
        "quoted": quote(text, safe=""),
        "json": json.dumps(text)[1:-1].replace("/", "\\/"),
        "base64": b64encode(text.encode()).decode().rstrip("="),
        "base64url": urlsafe_b64encode(text.encode()).decode().rstrip("="),
        "hex": text.encode().hex(),
    }


def leak_in(text: str, secrets: Iterable[Secret]) -> bool:
    """Tell whether one of *secrets* is in *text*."""
    return any(spelled in text for secret in secrets for spelled in spellings(secret.reveal()).values())


def leaks_of(error: BaseException, secrets: Iterable[Secret], own: str = _OWN) -> Iterator[str]:
    """
    Name the parts of an error, and of what it is chained to, that show one of *secrets*.

    Frames of files under *own* are left out, as their locals hold secrets on purpose.
    """
    known = tuple(secrets)
    for each in all_of(error):
        for what, text in shown_by(each, own):
            if leak_in(text, known):
                yield what


def all_of(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it is chained to."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [other for other in (each.__cause__, each.__context__) if other is not None]


def shown_by(error: BaseException, own: str = _OWN) -> Iterator[tuple[str, str]]:
    """Give all that *error* shows of itself, but what was handed out of an answer, which is content."""
    if isinstance(error, AnswerLost):
        error = copy.copy(error).with_traceback(error.__traceback__)
        error.events = ()
    yield "text", str(error)
    yield "repr", repr(error)
    yield "args", repr(error.args)
    yield "attributes", repr(vars(error))
    yield "notes", repr(getattr(error, "__notes__", []))
    yield "pickle", pickle.dumps(error).decode("latin-1")
    for frame in traceback.TracebackException.from_exception(error, capture_locals=True).stack:
        if own not in frame.filename:
            yield f"locals in {frame.name} at {frame.filename}", repr(frame.locals)
