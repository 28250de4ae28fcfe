"""What each fault of a server, a network or an answer ends in, and how often the request was delivered."""

from __future__ import annotations

import asyncio
import errno
import gzip
import socket
import threading
import traceback
from http import HTTPStatus
from types import NoneType
from typing import Any

import aiohttp
import pytest
from attrs import frozen

from chatbridge import errors
from chatbridge.errors import ChatbridgeError, Outcome, Phase
from chatbridge.http import Endpoint, Id, Kind, Limits, ServerSentEvents, Transport, content
from chatbridge.http.failures import failed_to_connect, to_error
from chatbridge.options import CommonOptions
from chatbridge.retry import Failure
from fault_server import Script, Step, answer, chunked, client_of

READ, READ_HEAD, RESET, FIN, STALL, HANG = Step

DOCUMENT = b'{"id":"x"}'
OK = answer(DOCUMENT)


@frozen
class Hi:
    id: Id


SEND = Endpoint("say", "POST", "/say", answer=Hi)
GET = Endpoint("get", "GET", "/get", Kind.READ, answer=Hi)

LOST = (errors.DeliveryUnknown, "lost", Outcome.UNKNOWN)
SILENT = (errors.DeliveryUnknownTimeout, "timeout", Outcome.UNKNOWN)
BAD_HTTP = (errors.DeliveryUnknown, "bad_http", Outcome.UNKNOWN)
CUT = (errors.AnswerLost, "cut", Outcome.ACCEPTED)
IDLE = (errors.AnswerLostTimeout, "idle", Outcome.ACCEPTED)
FAILED = (errors.DeliveryUnknown, "server_error", Outcome.UNKNOWN)
REDIRECTED = (errors.RedirectRefused, None, Outcome.REFUSED)
UNANSWERED = (errors.AnswerLost, "schema", Outcome.ACCEPTED)

Verdict = tuple[type[ChatbridgeError], str | None, Outcome]


def garbled(kind: str) -> Verdict:
    return errors.AnswerLost, kind, Outcome.ACCEPTED


ODD_CODING = "Content-Encoding: odd"
NOT_THE_API = (errors.DeliveryUnknown, "not_the_api", Outcome.UNKNOWN)
MOVED = (errors.RedirectRefused, None, Outcome.ACCEPTED)
CONFLICT = (errors.Conflict, None, Outcome.REFUSED)
GZIP = answer(gzip.compress(DOCUMENT), "200 OK", "Content-Encoding: gzip")

FAULTS: dict[str, tuple[Script, Verdict, int]] = {
    # Fault: what the server does, what a send ends in, and how often a read goes out.
    "accept_rst": ((RESET,), LOST, 3),
    "accept_fin": ((FIN,), LOST, 3),
    "accept_silent": ((HANG,), SILENT, 3),
    "reset_after_head": ((READ_HEAD, RESET), LOST, 3),
    "reset_after_body": ((READ, RESET), LOST, 3),
    "close_after_body": ((READ, FIN), LOST, 3),
    "reset_mid_head": ((READ, OK[:20], RESET), LOST, 3),
    "cut_status_line": ((READ, b"HTTP/1.", FIN), LOST, 3),
    "cut_head": ((READ, OK[:20], FIN), LOST, 3),
    "stall_before_head": ((READ, STALL), SILENT, 3),
    "stall_mid_head": ((READ, OK[:20], STALL), SILENT, 3),
    "bad_status": ((READ, answer(DOCUMENT, "abc No")), BAD_HTTP, 2),
    "status_99": ((READ, answer(DOCUMENT, "99 Low")), BAD_HTTP, 2),
    "no_colon": ((READ, answer(DOCUMENT, "200 OK", "nonsense")), BAD_HTTP, 2),
    "space_before_colon": ((READ, answer(DOCUMENT, "200 OK", "A : b")), BAD_HTTP, 2),
    "nul_in_header": ((READ, answer(DOCUMENT, "200 OK", "A: b\0c")), BAD_HTTP, 2),
    "huge_header": ((READ, answer(DOCUMENT, "200 OK", "A: " + "b" * 9000)), BAD_HTTP, 2),
    "many_headers": ((READ, answer(DOCUMENT, "200 OK", *["A: b"] * 200)), BAD_HTTP, 2),
    "large_head": ((READ, answer(DOCUMENT, "200 OK", *["A: " + "b" * 8000] * 9)), BAD_HTTP, 2),
    "length_and_chunked": ((READ, answer(DOCUMENT, "200 OK", "Transfer-Encoding: chunked")), BAD_HTTP, 2),
    "negative_length": ((READ, answer(DOCUMENT, "200 OK", "Content-Length: -5", framed=False)), BAD_HTTP, 2),
    "bad_chunk_size": ((READ, chunked(DOCUMENT, last=b"zz\r\n")), BAD_HTTP, 2),
    "status_999": ((READ, answer(DOCUMENT, "999 Odd")), BAD_HTTP, 1),
    "switching": ((READ, answer(b"", "101 Go", "Upgrade: x", "Connection: upgrade")), BAD_HTTP, 1),
    "reset_after_head_sent": ((READ, OK[: -len(DOCUMENT)], RESET), CUT, 3),
    "cut_length": ((READ, OK[:-3], FIN), CUT, 3),
    "reset_mid_body": ((READ, OK[:-3], RESET), CUT, 3),
    "cut_chunked": ((READ, chunked(DOCUMENT, last=b""), FIN), CUT, 3),
    "cut_in_chunk": ((READ, chunked(last=b"ff\r\n{"), FIN), CUT, 3),
    "no_last_crlf": ((READ, chunked(DOCUMENT, last=b"0\r\n"), FIN), CUT, 3),
    "stall_mid_body": ((READ, OK[:-3], STALL), IDLE, 3),
    "cut_unframed": ((READ, answer(DOCUMENT[:-3], framed=False), FIN), garbled("json"), 1),
    "reset_unframed": ((READ, answer(DOCUMENT[:-3], framed=False), RESET), garbled("json"), 1),
    "gzip": ((READ, GZIP), garbled("encoding"), 1),
    "unknown_coding": ((READ, answer(DOCUMENT, "200 OK", ODD_CODING)), garbled("encoding"), 1),
    "empty_200": ((READ, answer(b"")), garbled("empty"), 1),
    "blank_200": ((READ, answer(b" \n")), garbled("empty"), 1),
    "bad_json": ((READ, answer(b'{"id":')), garbled("json"), 1),
    "nan": ((READ, answer(b'{"id":NaN}')), garbled("json"), 1),
    "deep_json": ((READ, answer(b"[" * 100_000)), garbled("json"), 1),
    "latin1_json": ((READ, answer(b'{"id":"\xe9"}')), garbled("encoding"), 1),
    "wrong_shape": ((READ, answer(b"[]")), garbled("schema"), 1),
    "body_204": ((READ, b"HTTP/1.1 204 No\r\n\r\n"), UNANSWERED, 1),
    "html_200": ((READ, answer(b"\xef\xbb\xbf <html>")), NOT_THE_API, 1),
    "html_502": ((READ, answer(b"<html>", "502 Bad Gateway")), FAILED, 3),
    "status_500": ((READ, answer(b"{}", "500 No")), FAILED, 3),
    "status_500_cut": ((READ, answer(b"{}", "500 No")[:-1], RESET), FAILED, 3),
    "status_500_stalled": ((READ, answer(b"{}", "500 No")[:-1], STALL), FAILED, 3),
    "status_500_gzip": ((READ, answer(b"{}", "500 No", "Content-Encoding: gzip")), FAILED, 3),
    "status_401": ((READ, answer(b"[1]", "401 No")), (errors.AuthFailed, None, Outcome.REFUSED), 1),
    "status_409_cut": ((READ, answer(b"{}", "409 No")[:-1], FIN), CONFLICT, 1),
    "redirect": ((READ, answer(b"", "307 Go", "Location: /else")), REDIRECTED, 1),
    "redirect_loop": ((READ, answer(b"", "302 Go", "Location: /say")), REDIRECTED, 1),
    "redirect_nowhere": ((READ, answer(b"", "302 Go")), REDIRECTED, 1),
    "see_other": ((READ, answer(b"", "303 Go", "Location: /x")), MOVED, 1),
}  # fmt: skip

SOUND: dict[str, Script] = {
    "ok": (READ, OK),
    "drip_head": (READ, *(OK[i : i + 1] for i in range(len(OK)))),
    "no_reason": (READ, answer(DOCUMENT, "200")),
    "latin1_header": (READ, answer(DOCUMENT, "200 OK", "A: \xe9")),
    "twenty_fields": (READ, answer(DOCUMENT, "200 OK", *["A: b"] * 20)),
    "interim_storm": (READ, b"HTTP/1.1 103 Early\r\n\r\n" * 50 + OK),
    "http10": (READ, OK.replace(b"1.1", b"1.0")),
    "unframed": (READ, answer(DOCUMENT, framed=False), FIN),
    "chunks": (READ, chunked(b'{"id"', b':"x"}')),
    "byte_order_mark": (READ, answer(b"\xef\xbb\xbf" + DOCUMENT)),
    "wrong_type": (READ, answer(DOCUMENT, "200 OK", "Content-Type: text/html; charset=latin-1")),
    "evil_charset": (READ, answer(DOCUMENT, "200 OK", "Content-Type: application/json; charset=evil")),
    "identity": (READ, answer(DOCUMENT, "200 OK", "Content-Encoding: Identity")),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_s1_a_send_that_fails_is_delivered_once_and_says_what_is_known(name: str) -> None:
    script, (cls, kind, outcome), _ = FAULTS[name]
    async with client_of(script) as client:
        call = client.api.call(SEND, {"text": "hi"})
        with pytest.raises(ChatbridgeError) as caught:
            await client.clock.through_stalls(client.server, call, 300.0 if kind == "timeout" else 60.0)

    assert (cls, outcome) == (type(caught.value), caught.value.outcome)
    assert kind == getattr(caught.value, "kind", None)
    assert issubclass(cls, TimeoutError) is caught.value.timed_out
    assert 1 == client.server.begun == len(caught.value.attempts)


@pytest.mark.parametrize("name", FAULTS)
async def test_s3_a_read_that_fails_goes_out_as_often_as_the_matrix_says(name: str) -> None:
    """The second attempt that aiohttp makes, after a lost connection, would double the number."""
    script, (_, kind, outcome), times = FAULTS[name]
    async with client_of(script) as client:
        with pytest.raises(ChatbridgeError) as caught:
            await client.clock.through_stalls(
                client.server, client.api.call(GET), 300.0 if kind == "timeout" else 60.0
            )

    assert times == client.server.begun == len(caught.value.attempts)
    assert outcome is caught.value.outcome
    assert isinstance(caught.value, errors.Refused | errors.Unavailable | errors.BadAnswer)


@pytest.mark.parametrize("name", SOUND)
async def test_what_is_odd_but_whole_is_the_answer(name: str) -> None:
    async with client_of(SOUND[name]) as client:
        assert Hi(Id("x")) == await client.api.call(SEND, {})
    assert 1 == client.server.begun


async def test_two_lengths_or_data_behind_the_answer_are_never_believed() -> None:
    """The parser decides whether the answer is refused or the rest ignored; a forged answer is never read."""
    forged = answer(b'{"id":"forged"}')
    for script in ((READ, OK + forged), (READ, answer(DOCUMENT, "200 OK", "Content-Length: 3"))):
        async with client_of(script, (READ, OK)) as client:
            (got,) = await asyncio.gather(client.api.call(SEND, {}), return_exceptions=True)
            assert Hi(Id("x")) == got or getattr(got, "kind", None) in {"bad_http", "json"}
            assert "x" == (await client.api.call(GET)).id


async def test_a_banner_before_the_request_is_not_an_answer() -> None:
    async with client_of((b"220 ready\r\n", STALL)) as client:
        with pytest.raises(errors.DeliveryUnknown):
            await client.clock.through_stalls(client.server, client.api.call(SEND, {}), 300.0)
    assert 1 == client.server.begun


async def test_a_bad_chunk_that_comes_late_ends_by_the_idle_limit_if_aiohttp_hangs() -> None:
    gate = asyncio.Event()
    async with client_of((READ, chunked(DOCUMENT[:4], last=b""), gate, b"zz\r\nxx", STALL)) as client:
        call = asyncio.ensure_future(client.api.call(SEND, {}))
        await client.server.reached.wait()
        await client.clock.until_waiting(60.0)
        client.server.reached.clear()
        gate.set()
        with pytest.raises(errors.AnswerLost) as caught:
            await client.clock.through_stalls(client.server, call, 60.0)
    assert caught.value.kind in {"idle", "cut"}


async def test_a_closed_port_proves_that_nothing_was_sent() -> None:
    async with client_of((READ, OK)) as client:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        client.api.transport.base_url = f"http://127.0.0.1:{port}"
        with pytest.raises(errors.ConnectFailed) as caught:
            await client.api.call(SEND, {})
    assert (Phase.CONNECT, Outcome.NOT_SENT) == (caught.value.phase, caught.value.outcome)
    assert 3 == len(caught.value.attempts)


@pytest.mark.parametrize("found", [OSError("no such name"), []])
async def test_a_name_that_is_not_found_proves_that_nothing_was_sent(found: OSError | list[Any]) -> None:
    async with client_of((READ, OK), resolver=found) as client:
        with pytest.raises(errors.ConnectFailed) as caught:
            await client.api.call(SEND, {})
    assert (Phase.DNS, Outcome.NOT_SENT, 3) == (
        caught.value.phase,
        caught.value.outcome,
        len(caught.value.attempts),
    )
    assert 0 == client.server.begun


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "http://", "/path", ""])
async def test_a_base_url_that_cannot_be_is_a_usage_error(url: str) -> None:
    async with client_of((READ, OK)) as client:
        client.api.transport.base_url = url
        with pytest.raises(errors.UsageError, match="base URL"):
            await client.api.call(SEND, {})


class _Key:
    host, port, ssl, is_ssl = "acme", 443, True, True


KEYED: Any = _Key()


@pytest.mark.parametrize(
    ("error", "phase", "retryable"),
    [
        (aiohttp.ClientConnectorCertificateError(KEYED, ValueError("self-signed")), Phase.CERTIFICATE, False),
        (aiohttp.ClientConnectorSSLError(KEYED, OSError(1, "no")), Phase.TLS, True),
        (aiohttp.ClientConnectorDNSError(KEYED, OSError(1, "no")), Phase.DNS, True),
        (RuntimeError("the resolver found nothing"), Phase.DNS, True),
        (aiohttp.ClientConnectorError(KEYED, OSError(104, "reset")), Phase.CONNECT, True),
        (TimeoutError(), Phase.CONNECT, True),
        (aiohttp.InvalidURL("http://user:pw@"), Phase.LOCAL, False),
        (ValueError("newline in header"), Phase.LOCAL, False),
    ],
)
def test_what_breaks_before_there_is_a_connection_was_not_sent(
    error: Exception, phase: Phase, retryable: bool
) -> None:
    failure = failed_to_connect(error, "https://acme/say")
    assert phase is failure.phase
    assert phase is Phase.LOCAL or "no connection to https://acme/say" in failure.reason
    public = to_error(Kind.SEND, failure)
    assert (Outcome.NOT_SENT, retryable) == (public.outcome, public.retryable)
    assert isinstance(error, TimeoutError) is isinstance(public, TimeoutError)
    assert "pw" not in str(public)


LARGE = {"text": "x" * (24 * 2**20)}


async def test_an_upload_that_breaks_off_is_proven_not_sent_and_repeated() -> None:
    """Without aiohttp's upload tracker, new in 3.14.4, there is no proof, and so no repetition."""
    async with client_of((READ_HEAD, RESET), (READ, OK)) as client:
        if hasattr(aiohttp, "UploadTracker"):
            assert Hi(Id("x")) == await client.api.call(SEND, LARGE)
            assert 2 == client.server.begun
        else:
            with pytest.raises(errors.DeliveryUnknown):
                await client.api.call(SEND, LARGE)
            assert 1 == client.server.begun


async def test_a_server_that_stops_reading_ends_by_the_limit_of_the_first_byte() -> None:
    async with client_of((READ_HEAD, HANG), attempts=1) as client:
        with pytest.raises(TimeoutError) as caught:
            await client.clock.through_stalls(client.server, client.api.call(SEND, LARGE), 300.0)
    tracked = hasattr(aiohttp, "UploadTracker")
    assert (errors.ConnectFailedTimeout if tracked else errors.DeliveryUnknownTimeout) is type(caught.value)
    assert 1 == client.server.begun


async def test_a_large_body_arrives_whole() -> None:
    async with client_of((READ, OK)) as client:
        await client.api.call(SEND, LARGE)
    assert len(LARGE["text"]) + len('{"text":""}') == len(client.server.requests[0].body)


async def test_a_refusal_before_the_whole_body_was_sent_is_a_refusal() -> None:
    async with client_of((READ_HEAD, answer(b"", "413 Too Large"), FIN)) as client:
        with pytest.raises(errors.RequestRefused) as caught:
            await client.api.call(SEND, LARGE)
    assert (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 1) == (caught.value.status, client.server.begun)


async def test_s5_every_attempt_sends_the_same_bytes() -> None:
    async with client_of(
        (READ, answer(b"", "429 Slow")), (READ, answer(b"", "429 Slow")), (READ, OK)
    ) as client:
        body = {"text": "hi"}
        await client.api.call(SEND, body)
    assert 3 == len(client.server.requests)
    assert 1 == len({request.body for request in client.server.requests})


async def test_an_answer_that_is_not_needed_is_not_read() -> None:
    delete = Endpoint("delete", "DELETE", "/x", Kind.WRITE, answer=NoneType, gone_is_done=True)
    async with client_of((READ, OK[:-3], STALL)) as client:
        await client.api.call(delete)
        await client.server.left.wait()


async def test_gone_after_an_unknown_deletion_is_success_and_else_not_found() -> None:
    delete = Endpoint("delete", "DELETE", "/x", Kind.WRITE, answer=NoneType, gone_is_done=True)
    gone: Script = (READ, answer(b"{}", "404 No"))
    for first in ((READ, RESET), (READ, answer(b"", "502 Bad"))):
        async with client_of(first, gone) as client:
            await client.api.call(delete)
        assert 2 == client.server.begun
    for scripts in ((gone,), ((READ, answer(b"", "429 Slow")), gone)):
        async with client_of(*scripts) as client:
            with pytest.raises(errors.NotFound):
                await client.api.call(delete)


SMALL = Limits(body=1000, error_body=100)


@pytest.mark.parametrize("framed", [True, False])
async def test_j4_an_answer_over_the_limit_is_not_read_on_and_its_connection_closed(framed: bool) -> None:
    async with client_of((READ, answer(b"[" + b" " * 2000, framed=framed), STALL), limits=SMALL) as client:
        with pytest.raises(errors.AnswerLost, match="over 1000 bytes") as caught:
            await client.api.call(SEND, {})
        await client.server.left.wait()
    assert "oversize" == caught.value.kind


async def test_j4_an_answer_of_just_the_limit_is_read() -> None:
    padded = DOCUMENT + b" " * (SMALL.body - len(DOCUMENT))
    async with client_of((READ, answer(padded)), limits=SMALL) as client:
        assert Hi(Id("x")) == await client.api.call(SEND, {})


async def test_j4_of_a_large_refusal_the_status_counts() -> None:
    async with client_of((READ, answer(b"n" * 2000, "400 No"), STALL), limits=SMALL) as client:
        with pytest.raises(errors.RequestRefused):
            await client.api.call(SEND, {})
        await client.server.left.wait()


async def test_an_error_of_a_lost_answer_knows_status_and_request_id() -> None:
    cut = answer(DOCUMENT, "200 OK", "X-Request-Id: r-1")[:-1]
    for script in ((READ, cut, FIN), (READ, answer(b"", "200 OK", "Request-Id: r-1"))):
        async with client_of(script) as client:
            with pytest.raises(errors.AnswerLost) as caught:
                await client.api.call(SEND, {})
        assert (200, "r-1") == (caught.value.status, caught.value.request_id)
        assert f"{client.server.url}/say" == caught.value.url
        assert ("acme", "say", 0.0) == (caught.value.provider, caught.value.operation, caught.value.elapsed)


def test_a_failure_that_only_the_caller_can_mend_is_not_called_retryable() -> None:
    for status, retryable in ((429, True), (425, True), (400, False), (501, False)):
        error = to_error(Kind.SEND, Failure(Phase.STATUS, "no", status=status))
        assert retryable is error.retryable


async def test_halves_of_characters_are_replaced_with_a_warning() -> None:
    warnings: list[str] = []
    async with client_of((READ, answer(b'{"id":"\\ud83d"}'))) as client:
        assert Hi(Id("\ufffd")) == await client.api.call(SEND, {}, warn=warnings.append)
        with pytest.warns(errors.AnswerWarning, match="halves of characters"):
            assert Hi(Id("\ufffd")) == await client.api.call(SEND, {})
    assert 1 == len(warnings)


async def test_j3_what_cannot_be_written_as_json_is_refused_before_anything_leaves() -> None:
    async with client_of((READ, OK)) as client:
        for broken in ({"text": "\ud83d"}, {"text": float("nan")}, {"text": object()}):
            with pytest.raises(errors.UsageError, match=r"acme say: .*\$\.text"):
                await client.api.call(SEND, broken)
    assert 0 == client.server.begun


async def test_d1_a_large_answer_is_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 1 MiB: other tasks are not held up, and the answer is the same."""
    threads: list[int] = []
    loads = content.loads

    def noted(data: bytes) -> object:
        threads.append(threading.get_ident())
        return loads(data)

    monkeypatch.setattr("chatbridge.http.api.loads", noted)
    text = "x" * (2**20 + 1)
    async with client_of((answer(b'{"id":"%b"}' % text.encode()),), (OK,)) as client:
        assert text == (await client.api.call(SEND, {})).id
        assert "x" == (await client.api.call(SEND, {})).id

    assert [False, True] == [thread == threading.get_ident() for thread in threads]


_reading = threading.Event()
_go_on = threading.Event()


@frozen
class Slow:
    """An answer that takes as long to read as the test wants."""

    id: Id

    def __attrs_post_init__(self) -> None:
        _reading.set()
        _go_on.wait()


@pytest.mark.parametrize("streamed", [False, True])
async def test_d1_reading_a_large_answer_ends_with_the_deadline(*, streamed: bool) -> None:
    _reading.clear()
    _go_on.clear()
    framing = ServerSentEvents if streamed else None
    endpoint = Endpoint("say", "POST", "/say", answer=Slow, framing=framing)
    body = b'{\n"id":"%b"}' % (b"x" * 2**20)
    async with client_of((READ, answer(body)), timeout=50.0) as client:
        reading = client.api.stream(endpoint).__aenter__() if streamed else client.api.call(endpoint)
        call = asyncio.ensure_future(reading)
        assert await asyncio.to_thread(_reading.wait, 10)
        client.clock.advance(50.0)
        try:
            with pytest.raises(errors.AnswerLostTimeout if not streamed else errors.StreamCutTimeout) as late:
                await call
        finally:
            _go_on.set()
    assert ("idle", 200, 1) == (late.value.kind, late.value.status, client.server.begun)


async def test_where_there_is_no_connection_the_error_says_to_what() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with client_of((READ, OK), attempts=1) as client:
            client.api.transport.base_url = url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            with pytest.raises(errors.ConnectFailed) as refused:
                await client.api.call(SEND, query={"q": "not shown"})
    assert (
        f"acme say: no connection to {url}/say: the connection was refused: is the server running? "
        "(ECONNREFUSED)"
    ) == str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<p>Cannot POST</p>",
        b"404 page not found",
        b'{"message": "Not Found"}',
        b'{"message": "404: Not Found."}',
    ],
)
async def test_a_404_in_which_the_api_says_nothing_asks_whether_the_base_path_is_right(body: bytes) -> None:
    async with client_of((READ, answer(body, "404 Not Found"))) as client:
        client.api.transport.base_url += "/v2"
        url = client.api.transport.base_url
        with pytest.raises(errors.NotFound) as caught:
            await client.api.call(SEND, query={"q": "not shown"})
    said = f"acme say: the server answered 404 for {url}/say (is {url} where the API begins?)"
    assert str(caught.value).startswith(said)
    assert "not shown" not in str(caught.value)


async def test_a_404_of_the_api_itself_is_told_as_it_is() -> None:
    async with client_of((READ, answer(b'{"message": "no such room"}', "404 Not Found"))) as client:
        with pytest.raises(errors.NotFound) as caught:
            await client.api.call(SEND)
    assert "acme say: the server answered 404: no such room" == str(caught.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ECONNRESET, "the connection was reset before it was made (ECONNRESET)"),
        (errno.EHOSTUNREACH, "there is no way to the host (EHOSTUNREACH)"),
        (errno.ENETUNREACH, "there is no way to the host's network (ENETUNREACH)"),
        (errno.EDOM, f"ClientConnectorError (errno {errno.EDOM})"),
        (99_999, "ClientConnectorError (errno 99999)"),
        (None, "ClientConnectorError"),
    ],
)
def test_why_there_is_no_connection_is_said_in_words(number: int | None, words: str) -> None:
    error = aiohttp.ClientConnectorError(KEYED, OSError(number, "shows hunter2"))
    assert f"no connection to https://acme: {words}" == failed_to_connect(error, "https://acme").reason


async def test_b2_bridges_to_one_origin_share_its_retry_budget() -> None:
    one = Transport("http://127.0.0.1:9/a", CommonOptions())
    other = Transport("http://127.0.0.1:9/b", CommonOptions())
    elsewhere = Transport("http://127.0.0.1:10/a", CommonOptions())

    assert one.retrier.bucket is other.retrier.bucket
    assert one.retrier.bucket is not elsewhere.retrier.bucket


async def test_a_body_of_another_type_than_the_call_table_says_is_a_mistake_of_the_adapter() -> None:
    async with client_of((OK,)) as client:
        with pytest.raises(TypeError, match="say takes no Hi as its request"):
            await client.api.call(SEND, Hi(Id("x")))


async def test_the_headers_of_an_answer_are_told_even_if_the_body_is_lost() -> None:
    token = answer(DOCUMENT, "200 OK", "X-Token: t1")
    heads: list[str | None] = []

    async with client_of((READ, token)) as client:
        await client.api.call(SEND, {}, on_head=lambda headers: heads.append(headers.get("x-token")))
    async with client_of((READ, token[:-3], FIN)) as client:
        with pytest.raises(errors.AnswerLost):
            await client.api.call(SEND, {}, on_head=lambda headers: heads.append(headers.get("x-token")))
    assert ["t1", "t1"] == heads


@pytest.mark.parametrize("status", ["201 Odd", "302 Go", "403 No", "500 Oh"])
async def test_the_headers_of_any_other_answer_are_told_as_well(status: str) -> None:
    heads: list[str | None] = []
    async with client_of((READ, answer(b"{}", status, "X-Token: t1"))) as client:
        with pytest.raises(ChatbridgeError):
            await client.api.call(SEND, {}, on_head=lambda headers: heads.append(headers.get("x-token")))
    assert ["t1"] == heads


RESULT = Endpoint("result", "GET", "/result", Kind.RESULT, answer=Hi)

RESULTS: dict[str, tuple[type[ChatbridgeError], str]] = {
    "close_after_body": (errors.StreamCut, "cut"),
    "stall_before_head": (errors.StreamCutTimeout, "idle"),
    "bad_status": (errors.StreamCut, "cut"),
    "cut_length": (errors.StreamCut, "cut"),
    "bad_json": (errors.StreamCut, "json"),
    "wrong_shape": (errors.StreamCut, "schema"),
    "html_200": (errors.StreamCut, "cut"),
    "status_500": (errors.ProviderFailed, "provider"),
    "status_401": (errors.ProviderFailed, "provider"),
    "redirect": (errors.ProviderFailed, "provider"),
}


@pytest.mark.parametrize("fault", RESULTS)
async def test_whatever_becomes_of_a_result_the_message_was_accepted(fault: str) -> None:
    script, (_, unknown, _), _ = FAULTS[fault]
    cls, kind = RESULTS[fault]
    async with client_of(script) as client:
        with pytest.raises(errors.AnswerLost) as caught:
            await client.clock.through_stalls(
                client.server, client.api.call(RESULT), 300.0 if unknown == "timeout" else 60.0
            )
    assert (cls, kind, Outcome.ACCEPTED) == (type(caught.value), caught.value.kind, caught.value.outcome)
    assert not caught.value.retryable
    assert 1 == client.server.begun


async def test_a_result_without_a_connection_is_an_accepted_message_too() -> None:
    failure = failed_to_connect(aiohttp.ClientConnectionError(), "http://127.0.0.1:1")
    error = to_error(Kind.RESULT, failure)
    assert (errors.StreamCut, Outcome.ACCEPTED) == (type(error), error.outcome)


async def test_a_call_that_is_cancelled_while_its_answer_arrives_shows_no_header_of_it() -> None:
    async with client_of((READ, answer(b"{}", "200 OK", "X-Token: hunter2")[:-1], STALL)) as client:
        call = asyncio.create_task(client.api.call(SEND, {}))
        await client.clock.until_waiting(60.0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        assert caught.value.__traceback__ is not None
        ours = caught.value.with_traceback(
            caught.value.__traceback__.tb_next
        )  # Without this test's own frame.

    shown = "".join(traceback.TracebackException.from_exception(ours, capture_locals=True).format())
    assert "in attempt" in shown
    assert "hunter2" not in shown
