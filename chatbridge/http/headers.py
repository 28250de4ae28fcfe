"""What the headers of an answer say beside its content."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

__all__ = ["request_id", "retry_after", "says_final"]

_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")
_DATE = re.compile(r"[A-Z][a-z]{2,8},? [0-9A-Za-z: -]{10,40}")
_REQUEST_IDS = ("x-request-id", "request-id", "x-correlation-id")


class _MultiHeaders(Protocol):
    """The headers of an answer, of which one may come several times."""

    def getall(self, key: str, default: list[str], /) -> list[str]: ...


def _seconds(text: str, wall: float) -> float | None:
    text = text.strip(" \t")
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, _since_epoch(moment) - wall)


def _since_epoch(moment: datetime) -> float:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _largest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return max(known, default=None)


def retry_after(headers: _MultiHeaders, wall: float) -> float | None:
    """
    Read how many seconds the server asks to wait; None where it does not say, or not properly.

    `retry-after-ms` wins over `Retry-After`, which is a number or a date of HTTP. Of repeated headers the
    largest counts; a date in the past is 0. *wall* is now, in seconds since 1970.
    """
    milliseconds = _largest(
        float(text) / 1000 if _NUMBER.fullmatch(text.strip()) else None
        for text in headers.getall("retry-after-ms", [])
    )
    if milliseconds is not None:
        return milliseconds
    return _largest(_seconds(text, wall) for text in headers.getall("Retry-After", []))


def says_final(headers: Mapping[str, str]) -> bool:
    """Say whether the server asks not to be asked again. That it *may* be asked widens nothing."""
    return headers.get("x-should-retry", "").lower() == "false"


def request_id(headers: Mapping[str, str]) -> str | None:
    """Find the server's id for the request."""
    return next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)
