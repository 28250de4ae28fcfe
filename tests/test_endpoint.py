"""Ids stay in their path segment, queries are encoded, and what could not be sent is refused."""

from __future__ import annotations

import asyncio
import re
from types import NoneType
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbridge.errors import UsageError
from chatbridge.http import Api, ApiError, Endpoint, Kind, Transport
from chatbridge.options import CommonOptions

GET = Endpoint("get", "GET", "/rooms/{room_id}/messages/{id}", Kind.READ, answer=str)

REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff]|%(2f|5c|00)|^(\.|%2e){0,2}$", re.IGNORECASE)
IDS = st.text() | st.text(".%2eE5cCfF/\\?#&=+;: \x85é漢😀", min_size=1)


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "%2e", "%2E%2e", ".%2e", "a/b", "/", "a\\b", "a%2fb", "%5C", "%00", "a\0", "a\nb", "\x7f",
     "\x85", "\ud83d"],
)  # fmt: skip
def test_x7_an_id_that_would_leave_its_segment_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"^get: .*room_id") as caught:
        GET.target({"room_id": value, "id": "1"}, {})
    assert str(caught.value).isprintable()
    assert None is caught.value.__context__


@pytest.mark.parametrize(
    ("value", "segment"),
    [("42", "42"), ("a b", "a%20b"), ("a?b#c", "a%3Fb%23c"), ("...", "..."), (".a", ".a"), ("100%", "100%25"),
     ("é", "%C3%A9"), ("a:b@c", "a%3Ab%40c"), ("{id}", "%7Bid%7D"), ("%41", "%2541")],
)  # fmt: skip
def test_x7_an_id_is_one_segment_percent_encoded(value: str, segment: str) -> None:
    assert f"/rooms/{segment}/messages/1" == GET.target({"room_id": value, "id": "1"}, {})
    assert f"/rooms/1/messages/{segment}" == GET.target({"id": value, "room_id": "1"}, {})


def test_a_query_is_encoded_and_leaves_out_what_is_none() -> None:
    plain = Endpoint("list", "GET", "/list", Kind.READ, answer=str)
    assert "/list" == plain.target({}, {"a": None})
    assert "/list?a=1&q=x%20%26%3D%2F%C3%A9&z=" == plain.target(
        {}, {"a": 1, "n": None, "q": "x &=/é", "z": ""}
    )


def test_an_endpoint_sends_unless_it_says_otherwise() -> None:
    plain = Endpoint("say", "POST", "/say", answer=NoneType, success=[200, 201])
    assert (Kind.SEND, frozenset({200, 201}), False) == (plain.kind, plain.success, plain.gone_is_done)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(IDS, IDS, st.dictionaries(st.text(min_size=1), st.text())), min_size=1, max_size=10)
)
def test_x7_the_server_sees_just_the_id_that_was_given(cases: list[tuple[str, str, dict[str, str]]]) -> None:
    """Each id is either refused or arrives as one segment, and every query as it was."""
    asyncio.run(_round_trips(cases))


async def _round_trips(cases: list[tuple[str, str, dict[str, str]]]) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []

    async def handle(request: web.Request) -> web.Response:
        segments = request.raw_path.partition("?")[0].split("/")
        assert ["", "base", "rooms", "messages"] == [*segments[:3], segments[4]]
        seen.append(([unquote(segment) for segment in segments[3::2]], dict(request.query)))
        return web.json_response("ok")

    app = web.Application()
    app.router.add_get("/{all:.*}", handle)
    async with TestServer(app) as server:
        transport = Transport(str(server.make_url("/base")), CommonOptions())
        api = Api(transport, "acme", headers={}, read_error=lambda _, __: ApiError())
        for room, message, query in cases:
            ids = {"room_id": room, "id": message}
            broken = any(REFUSED.search(value) for value in ids.values())
            if broken or not _can_be_sent(query):
                with pytest.raises(UsageError):
                    await api.call(GET, ids=ids, query=query)
            else:
                assert "ok" == await api.call(GET, ids=ids, query=query)
                assert ([room, message], query) == seen.pop()
        await transport.close()
    assert [] == seen


def _can_be_sent(query: dict[str, Any]) -> bool:
    return not any("\ud800" <= c <= "\udfff" for pair in query.items() for text in pair for c in text)
