"""
What adapters of HTTP APIs are made of.

Endpoints and wire types say what travels; `Api` carries it. Nothing here knows an API by name.
"""

from __future__ import annotations

from chatbridge.http.api import Api, ApiError, bearer
from chatbridge.http.content import BrokenContent, loads, mend, mend_all
from chatbridge.http.endpoint import Endpoint
from chatbridge.http.fold import TextFold
from chatbridge.http.framing import DataLines, JsonLines, PrefixedLines, ServerSentEvents
from chatbridge.http.stream import EventStream
from chatbridge.http.transport import Limits, Transport
from chatbridge.http.wire import Id, Raw, beyond, keep_raw, parse_time
from chatbridge.retry import Hint, Kind

__all__ = [
    "Api",
    "ApiError",
    "BrokenContent",
    "DataLines",
    "Endpoint",
    "EventStream",
    "Hint",
    "Id",
    "JsonLines",
    "Kind",
    "Limits",
    "PrefixedLines",
    "Raw",
    "ServerSentEvents",
    "TextFold",
    "Transport",
    "bearer",
    "beyond",
    "keep_raw",
    "loads",
    "mend",
    "mend_all",
    "parse_time",
]
