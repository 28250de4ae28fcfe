"""
What adapters of HTTP APIs are made of.

Endpoints and wire types say what travels; `Api` carries it. Nothing here knows an API by name.
"""

from __future__ import annotations

from chatbridge.http.api import Api, ApiError, Warn, bearer, warn_aside
from chatbridge.http.completions import to_finish_reason, to_role, to_usage
from chatbridge.http.content import BrokenContent, Mender, loads, mend, mend_all
from chatbridge.http.endpoint import Endpoint
from chatbridge.http.fold import TextFold
from chatbridge.http.framing import DataLines, Frame, JsonLines, PrefixedLines, ServerSentEvents
from chatbridge.http.paging import by_offset
from chatbridge.http.stream import EventStream
from chatbridge.http.transport import Limits, Transport
from chatbridge.http.wire import Id, Raw, beyond, keep_raw, parse_time, structure
from chatbridge.retry import Hint, Kind

__all__ = [
    "Api",
    "ApiError",
    "BrokenContent",
    "DataLines",
    "Endpoint",
    "EventStream",
    "Frame",
    "Hint",
    "Id",
    "JsonLines",
    "Kind",
    "Limits",
    "Mender",
    "PrefixedLines",
    "Raw",
    "ServerSentEvents",
    "TextFold",
    "Transport",
    "Warn",
    "bearer",
    "beyond",
    "by_offset",
    "keep_raw",
    "loads",
    "mend",
    "mend_all",
    "parse_time",
    "structure",
    "to_finish_reason",
    "to_role",
    "to_usage",
    "warn_aside",
]
