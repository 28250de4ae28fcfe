"""
What adapters of HTTP APIs are made of.

Endpoints and wire types say what travels; `Api` carries it. Nothing here knows an API by name.
"""

from __future__ import annotations

from chatbridge.http.api import Api, ApiError, Warn, bearer, warn_aside
from chatbridge.http.chunks import DONE, Choice, Chunk, Said, read_event, tells_failure, words
from chatbridge.http.completion_fold import CALLS, CompletionFold, Increments, to_progress
from chatbridge.http.completions import CUT_SHORT, beside_usage, to_finish_reason, to_role, to_usage
from chatbridge.http.content import BrokenContent, Mender, loads, mend, mend_all
from chatbridge.http.endpoint import Endpoint
from chatbridge.http.fold import TextFold
from chatbridge.http.framing import DataLines, Frame, JsonLines, PrefixedLines, ServerSentEvents
from chatbridge.http.loose import as_list, as_object, as_text, read_fields, read_loosely
from chatbridge.http.paging import by_offset
from chatbridge.http.parts import CallFold, PartsFold, to_tool_call, unread_warning
from chatbridge.http.stream import EventStream
from chatbridge.http.transport import Limits, Transport
from chatbridge.http.wire import Id, Raw, beyond, keep_raw, parse_time, structure
from chatbridge.retry import Hint, Kind
from chatbridge.strict import dumps, problem_of

__all__ = [
    "CALLS",
    "CUT_SHORT",
    "DONE",
    "Api",
    "ApiError",
    "BrokenContent",
    "CallFold",
    "Choice",
    "Chunk",
    "CompletionFold",
    "DataLines",
    "Endpoint",
    "EventStream",
    "Frame",
    "Hint",
    "Id",
    "Increments",
    "JsonLines",
    "Kind",
    "Limits",
    "Mender",
    "PartsFold",
    "PrefixedLines",
    "Raw",
    "Said",
    "ServerSentEvents",
    "TextFold",
    "Transport",
    "Warn",
    "as_list",
    "as_object",
    "as_text",
    "bearer",
    "beside_usage",
    "beyond",
    "by_offset",
    "dumps",
    "keep_raw",
    "loads",
    "mend",
    "mend_all",
    "parse_time",
    "problem_of",
    "read_event",
    "read_fields",
    "read_loosely",
    "structure",
    "tells_failure",
    "to_finish_reason",
    "to_progress",
    "to_role",
    "to_tool_call",
    "to_usage",
    "unread_warning",
    "warn_aside",
    "words",
]
