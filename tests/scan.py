"""Looks through all that an error or a log shows, for secrets and for exceptions of other libraries."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from chatbridge import AnswerLost, ChatbridgeError

__all__ = ["KEY", "SPELLINGS", "all_of", "assert_clean", "assert_log_clean", "assert_nothing_in", "shown_by"]

KEY = "sk-Zq83hF/x+71kd"
"""A key that is spelled differently in each coding."""

SPELLINGS = {
    "plain": KEY,
    "quoted": quote(KEY, safe=""),
    "json": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "base64": b64encode(KEY.encode()).decode(),
    "base64url": urlsafe_b64encode(KEY.encode()).decode().rstrip("="),
    "basic": b64encode(f"user:{KEY}".encode()).decode(),
    "hex": KEY.encode().hex(),
}


def assert_nothing_in(text: str, where: str) -> None:
    """Check that no spelling of the key is in *text*."""
    found = [name for name, spelling in SPELLINGS.items() if spelling in text]
    assert [] == found, f"the key is in {where}, {found[0] if found else ''}: {text[:2000]}"


def assert_clean(error: BaseException, own: str = "/tests/") -> None:
    """
    Check an error and all that hangs on it.

    Frames of files under *own* are left out, as their locals hold the key on purpose.
    """
    for each in all_of(error):
        foreign = not isinstance(each, ChatbridgeError | TimeoutError) and type(each).__module__ != "builtins"
        assert not foreign, f"{type(each)} hangs on {error!r}"
        assert not isinstance(each, OSError) or isinstance(each, TimeoutError), f"{each!r} hangs on {error!r}"
        for what, text in shown_by(each, own):
            assert_nothing_in(text, f"{type(each).__name__}'s {what}")
    if isinstance(error, ChatbridgeError):
        assert str(error).isprintable()


def all_of(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it is chained to."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [other for other in (each.__cause__, each.__context__) if other is not None]


def shown_by(error: BaseException, own: str) -> Iterator[tuple[str, str]]:
    """Give all that *error* shows of itself, but what was handed out of an answer, which is content."""
    if isinstance(error, AnswerLost):
        error = copy.copy(error).with_traceback(error.__traceback__)
        error.events = ()
    yield "str", str(error)
    yield "repr", repr(error)
    yield "args", repr(error.args)
    yield "attributes", repr(vars(error))
    yield "notes", repr(getattr(error, "__notes__", []))
    yield "pickle", pickle.dumps(error).decode("latin-1")
    for frame in traceback.TracebackException.from_exception(error, capture_locals=True).stack:
        if own not in frame.filename:
            yield f"locals in {frame.name} at {frame.filename}", repr(frame.locals)


def assert_log_clean(records: Iterable[logging.LogRecord]) -> None:
    """Check log records, their arguments, and the errors in them."""
    for record in records:
        assert_nothing_in(record.getMessage(), f"a record of {record.name}")
        assert_nothing_in(repr(record.args), f"the arguments of a record of {record.name}")
        assert_nothing_in(repr(vars(record)), f"a record of {record.name}")
        if record.exc_info and record.exc_info[1] is not None:
            assert_clean(record.exc_info[1])
