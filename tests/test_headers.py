"""What headers say and may say: waits, ids, limits on what callers set, and keys that never show."""

from __future__ import annotations

import base64
import pickle
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import NoneType

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from chatbridge import errors
from chatbridge.errors import ChatbridgeError
from chatbridge.http import Api, ApiError, Endpoint, JsonLines, Kind, Transport
from chatbridge.http.headers import request_id, retry_after, says_final
from chatbridge.options import CommonOptions
from chatbridge.secret import Secret
from fault_server import KEY, Script, Step, answer, client_of

READ, READ_HEAD, RESET, FIN, STALL, HANG = Step

NOW = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()
IN_TEN = NOW - 10


@frozen
class Anything:
    """An object of any shape."""


SEND = Endpoint("say", "POST", "/say", answer=Anything)
GET = Endpoint("get", "GET", "/get", Kind.READ, answer=Anything)
CREATE = Endpoint("create", "POST", "/new", Kind.CREATE, answer=Anything)
RESULT = Endpoint("result", "GET", "/result", Kind.RESULT, answer=Anything)
STREAM = Endpoint("ask", "POST", "/ask", answer=Anything, framing=JsonLines, ends=lambda _: False)


def headers(*fields: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(fields))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("5", 5), (" 5\t", 5), ("1.5", 1.5), ("0.0", 0), ("007", 7), ("1000000000", 1e9),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 10),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 10),
        ("Sun Nov  6 08:49:37 1994", 10), ("Sun, 06 Nov 1994 08:49:26 GMT", 0),
        ("", None), ("-1", None), ("-0", None), ("+5", None), ("inf", None), ("nan", None), ("1e9", None),
        ("0x10", None), ("1_000", None), ("1,5", None), ("1, 2", None), ("5.", None), (".5", None),
        ("5s", None),
        ("\u0665", None), ("\uff15", None), ("1994-11-06T08:49:37Z", None), ("soon", None), ("9" * 400, None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None), ("Sun, 06 Nov 999999999999 08:49:37 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None), ("Sun,", None),
    ],
)  # fmt: skip
def test_w1_a_wait_is_a_number_or_a_date_of_http_and_nothing_else(text: str, seconds: float | None) -> None:
    assert seconds == retry_after(headers(("Retry-After", text)), IN_TEN)


def test_w1_milliseconds_come_first_and_of_repeated_headers_the_largest() -> None:
    assert 1.5 == retry_after(headers(("retry-after-ms", "1500"), ("Retry-After", "9")), NOW)
    assert 9 == retry_after(headers(("retry-after-ms", "x"), ("Retry-After", "9")), NOW)
    assert 7 == retry_after(headers(("Retry-After", "3"), ("Retry-After", "7"), ("Retry-After", "inf")), NOW)
    assert None is retry_after(headers(), NOW)


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2,8},? [0-9A-Za-z: -]{10,40}", fullmatch=True))
def test_w3_no_value_whatever_raises(text: str) -> None:
    seconds = retry_after(headers(("Retry-After", text), ("retry-after-ms", text)), NOW)
    assert 0 <= (seconds or 0) < 1e18


@given(st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1)))  # noqa: DTZ001 - made aware below
def test_w1_any_date_is_read(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC, microsecond=0)
    expected = max(0.0, moment.timestamp() - NOW)
    assert expected == retry_after(headers(("Retry-After", format_datetime(moment, usegmt=True))), NOW)


def test_only_false_says_that_a_repetition_is_unwelcome() -> None:
    assert [True, True, False, False] == [
        says_final(headers(("X-Should-Retry", value))) for value in ("false", "False", "true", "")
    ]
    assert not says_final(headers())


def test_the_servers_id_is_found_under_its_usual_names() -> None:
    for name in ("X-Request-Id", "request-id", "X-Correlation-ID"):
        assert "r-1" == request_id(headers((name, "r-1")))
    assert None is request_id(headers(("X-Request-Id", "")))


async def test_w2_what_the_server_asks_is_in_the_error_and_waited_for_up_to_a_minute() -> None:
    slow = answer(b'{"message":"slow"}', "429 No", "Retry-After: 61")
    async with client_of((READ, slow)) as client:
        with pytest.raises(errors.RateLimited, match="slow") as caught:
            await client.api.call(SEND, {})
    assert (61, [], 1) == (caught.value.retry_after, client.clock.slept, client.server.begun)
    async with client_of((READ, slow.replace(b"61", b"60")), (READ, answer(b"{}"))) as client:
        await client.api.call(SEND, {})
    assert [60.0] == client.clock.slept


async def test_a_server_that_asks_not_to_be_asked_again_is_not_and_one_that_does_changes_nothing() -> None:
    for value, kind, times in (("false", Kind.READ, 1), ("true", Kind.SEND, 1), ("true", Kind.READ, 3)):
        async with client_of((READ, answer(b"", "503 No", f"X-Should-Retry: {value}"))) as client:
            with pytest.raises(ChatbridgeError):
                await client.api.call(Endpoint("x", "POST", "/x", kind, answer=Anything))
        assert times == client.server.begun


async def test_s4_sends_and_creations_go_out_on_fresh_connections_and_reads_share_one() -> None:
    for endpoint, settle, connections in (
        (SEND, False, 3),
        (SEND, True, 1),
        (CREATE, False, 3),
        (CREATE, True, 3),
        (RESULT, False, 3),
        (RESULT, True, 3),
        (GET, False, 1),
    ):
        async with client_of((READ, answer(b"{}")), can_settle=settle) as client:
            for _ in range(3):
                await client.api.call(endpoint)
        assert connections == len({request.connection for request in client.server.requests})


async def test_x1_x3_nothing_is_followed_kept_or_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ann password pw\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    cookie = answer(b"{}", "200 OK", "Set-Cookie: a=b; Path=/")
    async with client_of((READ, cookie), (READ, answer(b"", "302 Go", "Location: /else"))) as client:
        client.api.transport.base_url = client.server.url.replace("127.0.0.1", "localhost")
        for _ in range(3):
            with pytest.raises(errors.RedirectRefused) if client.server.begun else nullcontext():
                await client.api.call(GET)
    assert ["/get"] * 3 == [request.path for request in client.server.requests]
    for request in client.server.requests:
        assert ([], [f"Bearer {KEY}"]) == (request.header("Cookie"), request.header("Authorization"))


async def test_j5_a_request_says_just_what_it_must() -> None:
    async with client_of((READ, answer(b"{}"))) as client:
        client.api.set_header("accept", "text/odd")
        client.api.set_header("X-Odd", "a")
        client.api.set_header("X-Key", Secret("bare"))
        client.api.set_header("x-odd", "\xe9")
        await client.api.call(SEND)
        await client.api.call(SEND, {})
    empty, full = client.server.requests
    for request in (empty, full):
        assert ["identity"] == request.header("Accept-Encoding")
        assert ["text/odd"] == request.header("Accept")
        assert 1 == len(request.header("X-Odd"))
        assert ["bare"] == request.header("X-Key")
        assert request.header("User-Agent")[0].startswith("chatbridge/")
    assert ([], ["0"], b"") == (empty.header("Content-Type"), empty.header("Content-Length"), empty.body)
    assert (["application/json"], b"{}") == (full.header("Content-Type"), full.body)


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "TE", "Trailer", "Upgrade", "Expect",
     "Proxy-Authorization", "proxy-x", "", "a b", "a:", "a\r\nb", "\xe4", "a\n"],
)  # fmt: skip
async def test_x6_headers_that_frame_a_request_or_are_no_names_cannot_be_set(name: str) -> None:
    async with client_of() as client:
        with pytest.raises(errors.UsageError, match="not a header that may be set"):
            client.api.set_header(name, "x")


@pytest.mark.parametrize("bad", ["\r\nA: b", "\n", "\0", "\x7f", "漢"])
def test_x6_a_value_that_no_header_may_have_is_refused_without_being_shown(bad: str) -> None:
    for value in (Secret(KEY + bad), KEY + bad):
        with pytest.raises(errors.UsageError) as caught:
            Api(
                Transport("http://127.0.0.1:1", CommonOptions()),
                "acme",
                headers={"Authorization": value},
                read_error=lambda _, __: ApiError(),
            )
        assert KEY not in str(caught.value)
        if isinstance(value, Secret):
            assert not shown(caught.value)


SPELLINGS = (KEY, KEY.replace("/", "%2F").replace("+", "%2B"), base64.b64encode(KEY.encode()).decode())


def shown(error: BaseException) -> set[str]:
    """Give the spellings of the key that any view of *error* and what hangs on it shows."""
    texts: list[str] = []
    for one in chain(error):
        texts += [str(one), repr(one), repr(one.args), repr(vars(one))]
        # The tests' own frames hold the key; they come first, and are left out.
        frames = traceback.TracebackException.from_exception(one, capture_locals=True)
        ours = [frame for frame in frames.stack if not frame.filename.startswith(str(Path(__file__).parent))]
        texts += [repr(frame.locals) for frame in ours]
    if isinstance(error, ChatbridgeError):
        texts.append(repr(pickle.dumps(error)))
        assert str(error) == str(pickle.loads(pickle.dumps(error)))
    return {spelling for spelling in SPELLINGS if any(spelling in text for text in texts)}


def chain(error: BaseException) -> Iterator[BaseException]:
    yield error
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from chain(other)


ECHO = " and ".join(SPELLINGS)
QUOTED = ECHO.encode()
ECHOES: dict[str, Script] = {
    "body": (READ, answer(QUOTED, "401 No")),
    "message": (READ, answer(b'{"message":"%s","code":"%s"}' % (QUOTED, QUOTED), "401 No")),
    "cut": (READ, answer(b"no " + KEY[:-3].encode(), "400 No")),
    "reason": (READ, answer(b"", f"500 {ECHO}")),
    "headers": (READ, answer(b"", "403 No", f"X-Request-Id: {ECHO}", f"WWW-Authenticate: {ECHO}")),
    "location": (READ, answer(b"", "307 Go", f"Location: http://a:{KEY}@b/{KEY}")),
    "bad head": (READ, answer(b"", f"200 {ECHO}", f"{ECHO} : x")),
    "lost": (READ, RESET),
    "id of a lost answer": (READ, answer(b"xx", "200 OK", f"X-Request-Id: {ECHO}")[:-1], FIN),
    "id of a bad answer": (READ, answer(b"", "200 OK", f"X-Request-Id: {ECHO}")),
    "bad json": (READ, answer(QUOTED)),
    "wrong shape": (READ, answer(b'["%s"]' % QUOTED)),
}


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("streamed", [False, True])
async def test_x5_e3_e4_a_key_that_the_server_echoes_is_shown_nowhere(name: str, streamed: bool) -> None:
    async with client_of(ECHOES[name]) as client:
        with pytest.raises(ChatbridgeError) as caught:
            await (client.api.stream(STREAM, {}).__aenter__() if streamed else client.api.call(SEND, {}))
    assert set() == shown(caught.value)
    assert [caught.value] == list(chain(caught.value))
    assert str(caught.value).isprintable()
    if name == "cut":
        assert KEY[:8] not in str(caught.value)


async def test_x5_a_key_echoed_inside_a_stream_is_shown_nowhere() -> None:
    script = (READ, answer(b"{}\n", "200 OK", f"Request-Id: {ECHO}", framed=False), STALL)
    async with client_of(script) as client, client.api.stream(STREAM, {}) as events:
        await anext(events)
        error = events.failed(ECHO, ECHO)
    assert set() == shown(error)
    assert "***" in str(error)


@pytest.mark.parametrize("body", [{"text": float("nan")}, {"text": "\ud800"}])
async def test_x4_a_request_that_cannot_be_made_shows_no_key_in_its_traceback(body: object) -> None:
    async with client_of() as client:
        with pytest.raises(errors.UsageError) as caught:
            await client.api.call(SEND, body)
        assert set() == shown(caught.value)
        with pytest.raises(errors.UsageError) as caught:
            await client.api.call(Endpoint("get", "GET", "/{id}", answer=NoneType), ids={"id": ".."})
        assert set() == shown(caught.value)
        request = client.api.request(SEND, {"secret": "text"}, {}, {})
        assert set() == {text for text in (KEY, "text") if text in repr(request)}


def test_shown_sees_a_key_in_a_local_and_in_a_context() -> None:
    """Else the tests above could not fail."""
    source = f"def fail():\n    key = {KEY!r}\n    1 / 0\n"
    names: dict[str, object] = {}
    exec(compile(source, "/elsewhere.py", "exec"), names)
    fail = names["fail"]
    assert callable(fail)
    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert {KEY} == shown(caught.value)
    try:
        try:
            raise KeyError(KEY)
        except KeyError:
            raise ValueError
    except ValueError as error:
        assert {KEY} == shown(error)  # noqa: PT017 - the context must still hang on it
