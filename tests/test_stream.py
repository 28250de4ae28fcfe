"""Answers that arrive event by event: their end, their faults, their limits of time and size."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from attrs import evolve, frozen

from chatbridge import errors
from chatbridge.errors import ChatbridgeError, Outcome, Phase
from chatbridge.http import Endpoint, Frame, JsonLines, Kind, Limits, PrefixedLines, ServerSentEvents, loads
from chatbridge.http.framing import Framer
from fault_server import KEY, Client, Script, Step, answer, chunked, client_of, settle

READ, READ_HEAD, RESET, FIN, STALL, HANG = Step


@frozen
class Line:
    text: str
    end: bool = False


def ends(line: Line) -> bool:
    return line.end


def asking(
    framing: Callable[[int], Framer], kind: Kind = Kind.SEND, end: Callable[[Line], bool] | None = ends
) -> Endpoint[Line]:
    return Endpoint("ask", "POST", "/ask", kind, answer=Line, framing=framing, ends=end)


LINES, EVENTS = asking(JsonLines), asking(ServerSentEvents)
READ_LINES = asking(JsonLines, Kind.READ)
UNMARKED = asking(JsonLines, end=None)

A, B, C = b'{"text":"a"}\n', b'{"text":"b"}\n', b'{"text":"c"}\n'
END = b'{"text":"","end":true}\n'


def sse(*lines: bytes) -> bytes:
    return b"".join(b"data: %s\n" % line for line in lines)


def unframed(*parts: bytes | Step | asyncio.Event) -> Script:
    """Answer with *parts* as they are, which only the end of the connection ends."""
    return READ, answer(b"", framed=False), *parts


async def read(client: Client, endpoint: Endpoint[Line] = LINES) -> tuple[str, ChatbridgeError | None]:
    """Read a stream to its end, or to the error, and give the texts that came before."""
    text = ""
    try:
        async with client.api.stream(endpoint, {}) as events:
            async for event in events:
                text += event.text
    except ChatbridgeError as error:
        return text, error
    return text, None


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (LINES, A + b"\n" + B + END),
        (EVENTS, b": hi\n\n" + sse(A, B, END)),
        (EVENTS, sse(A, B, END).replace(b"\n", b"\r")),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_t1_any_split_of_the_bytes_gives_the_same_events(
    endpoint: Endpoint[Line], body: bytes, size: int
) -> None:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    for script in (unframed(*pieces, STALL), (READ, chunked(*pieces)), (READ, answer(body))):
        async with client_of(script) as client:
            assert ("ab", None) == await read(client, endpoint)
        assert 1 == client.server.begun


async def test_t4_what_follows_the_end_mark_is_ignored_and_the_connection_closed_at_once() -> None:
    script = unframed(A + END + B + b"nonsense", STALL)
    async with client_of(script) as client, client.api.stream(LINES, {}) as events:
        assert ["a", ""] == [event.text async for event in events]
        await client.server.left.wait()
        assert [] == [event async for event in events]


CUTS: dict[str, tuple[Script, str, str]] = {
    "cut_clean": (unframed(A, B, FIN), "ab", "cut"),
    "unframed_reset": (unframed(A, B, RESET), "ab", "cut"),
    "short": ((READ, answer(A + B)), "ab", "cut"),
    "cut_line": (unframed(A, B[:-4], FIN), "a", "cut"),
    "cut_chunked": ((READ, chunked(A, B, last=b""), FIN), "ab", "cut"),
    "cut_in_chunk": ((READ, chunked(A, last=b"ff\r\n" + B), FIN), "ab", "cut"),
    "reset": ((READ, chunked(A, B, last=b""), RESET), "ab", "cut"),
    "stall": (unframed(A, B, STALL), "ab", "idle"),
    "comments": (unframed(A, b"\n\n\n", STALL), "a", "idle"),
    "bad_json": (unframed(A, b"{]\n", B, END, STALL), "a", "json"),
    "wrong_shape": (unframed(A + B + b'{"text":5}\n' + END, STALL), "ab", "schema"),
    "bad_text": (unframed(A, b'{"text":"\xff"}\n', END, STALL), "a", "encoding"),
}


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("kind", [Kind.SEND, Kind.READ, Kind.COMPLETE])
async def test_t2_a_stream_that_stops_before_its_end_mark_is_cut_and_never_repeated(
    name: str, kind: Kind
) -> None:
    script, text, why = CUTS[name]
    async with client_of(script) as client:
        got, error = await client.clock.through_stalls(
            client.server, read(client, asking(JsonLines, kind)), 60.0
        )
    assert text == got
    assert error is not None
    assert (Outcome.ACCEPTED, 200, 1) == (error.outcome, error.status, client.server.begun)
    assert ("idle" == why) is isinstance(error, TimeoutError) is error.timed_out
    if kind is Kind.READ:
        assert isinstance(error, errors.Unavailable if why == "idle" else errors.BadAnswer)
    else:
        assert isinstance(error, errors.StreamCut)
        assert why == error.kind


async def test_what_arrived_before_a_break_is_handed_out_to_a_reader_that_was_busy() -> None:
    for after in (B, B + END):
        gate, chunk = asyncio.Event(), b"%x\r\n%s\r\n" % (len(after), after)
        async with client_of((READ, chunked(A, last=b""), gate, chunk, RESET)) as client:
            text = ""
            with pytest.raises(errors.StreamCut) if after is B else nullcontext():
                async with client.api.stream(LINES, {}) as events:
                    async for event in events:
                        text += event.text
                        gate.set()
                        await client.server.left.wait()
                        await settle()
            assert "ab" == text


GZIP = answer(gzip.compress(A), "200 OK", "Content-Encoding: gzip")

FIRST: dict[str, tuple[Script, type[ChatbridgeError], str | None, int]] = {
    # What a send ends in, and how often a read goes out, before any event.
    "empty": ((READ, answer(b"")), errors.StreamCut, "empty", 3),
    "blank": ((READ, answer(b"\n \n")), errors.StreamCut, "empty", 3),
    "blank_after_a_mark": ((READ, answer(b"\xef\xbb\xbf \r\n")), errors.StreamCut, "empty", 3),
    "unframed_empty": (unframed(FIN), errors.StreamCut, "empty", 3),
    "cut": (unframed(A[:-4], FIN), errors.StreamCut, "cut", 3),
    "stall": (unframed(A[:-4], STALL), errors.StreamCutTimeout, "idle", 3),
    "web_page": ((READ, answer(b"<html>\n<p>hi\n")), errors.DeliveryUnknown, "not_the_api", 1),
    "gzip": ((READ, GZIP), errors.AnswerLost, "encoding", 1),
    "wrong_shape": (unframed(b"[]\n", STALL), errors.StreamCut, "schema", 3),
    "web_page_on_one_line": ((READ, answer(b"\r\n <html></html>")), errors.DeliveryUnknown, "not_the_api", 1),
    "text": (unframed(b"Internal error\n", FIN), errors.StreamCut, "json", 3),
    "no_head": ((READ, STALL), errors.DeliveryUnknownTimeout, "timeout", 3),
    "lost": ((READ, RESET), errors.DeliveryUnknown, "lost", 3),
    "status_503": ((READ, answer(b"{}", "503 No")), errors.DeliveryUnknown, "server_error", 3),
    "status_400": ((READ, answer(b"{}", "400 No")), errors.RequestRefused, None, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST)
async def test_before_the_first_event_a_send_is_never_repeated_and_a_read_is(name: str) -> None:
    script, cls, kind, times = FIRST[name]
    for endpoint, expected in ((LINES, 1), (READ_LINES, times)):
        async with client_of(script) as client:
            _, error = await client.clock.through_stalls(client.server, read(client, endpoint), 300.0)
        assert expected == client.server.begun
        if endpoint is LINES:
            assert (cls, kind) == (type(error), getattr(error, "kind", None))
        else:
            assert isinstance(error, errors.Unavailable | errors.BadAnswer | errors.Refused)


async def test_a_read_whose_stream_broke_before_its_first_event_starts_anew() -> None:
    async with client_of(unframed(A[:5], RESET), unframed(A, END, STALL)) as client:
        assert ("a", None) == await read(client, READ_LINES)


@pytest.mark.parametrize("body", [b": ping\n\n", b": ping\n\ndata: {", b"event: x\n\n"])
async def test_events_cut_before_the_first_are_called_cut(body: bytes) -> None:
    async with client_of((READ, answer(body))) as client:
        _, error = await read(client, EVENTS)
    assert isinstance(error, errors.StreamCut)
    assert "cut" == error.kind


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
@pytest.mark.parametrize("endpoint", [LINES, EVENTS])
async def test_a_text_in_place_of_a_stream_is_shown_without_secrets(
    endpoint: Endpoint[Line], end: bytes
) -> None:
    body = f"Service down\nfor {KEY}: {'x' * 1000}".encode() + end
    async with client_of((READ, answer(body))) as client:
        _, error = await read(client, endpoint)
    assert isinstance(error, errors.StreamCut)
    assert ("json", Outcome.ACCEPTED, 200) == (error.kind, error.outcome, error.status)
    assert "neither a stream of events nor a JSON object: Service down\\nfor ***: xxx" in str(error)
    assert KEY not in str(error)
    assert 500 == len(error.excerpt or "")


@pytest.mark.parametrize(
    "said",
    [
        "401: Unauthorized",
        "502: Bad gateway",
        "[ERROR] model not loaded",
        "[2026-11-21] no model",
        "[503] no model",
        "{oops}",
        '"quoted" text',
        "dates",
    ],
)
@pytest.mark.parametrize("endpoint", [LINES, EVENTS])
async def test_a_text_for_people_is_shown_whatever_it_begins_with(
    endpoint: Endpoint[Line], said: str
) -> None:
    async with client_of((READ, answer(b"\xef\xbb\xbf " + said.encode()))) as client:
        _, error = await read(client, endpoint)
    assert isinstance(error, errors.StreamCut)
    assert ("json", said) == (error.kind, error.excerpt)


@pytest.mark.parametrize("body", [b"d", b"dat", b"data", b"data:", b"event", b"event: x\nda", b": wait"])
async def test_an_event_that_is_cut_off_is_no_text_for_people(body: bytes) -> None:
    async with client_of((READ, answer(body))) as client:
        _, error = await read(client, EVENTS)
    assert isinstance(error, errors.StreamCut)
    assert ("cut", None) == (error.kind, error.excerpt)


@pytest.mark.parametrize("body", [b"4", b"401", b"401:", b"401: x", b"a:{"])
async def test_a_line_with_a_prefix_is_no_text_for_people_where_lines_have_one(body: bytes) -> None:
    async with client_of((READ, answer(body))) as client:
        _, error = await read(client, asking(PrefixedLines))
    assert isinstance(error, errors.StreamCut)
    assert error.excerpt is None


@pytest.mark.parametrize("body", [b'{"text": "a', b'{ "', b"{", b'[{"a', b"[", b'["a'])
async def test_a_document_that_is_cut_off_is_not_shown(body: bytes) -> None:
    async with client_of((READ, answer(body))) as client:
        _, error = await read(client, EVENTS)
    assert isinstance(error, errors.StreamCut)
    assert ("json", None) == (error.kind, error.excerpt)


PRETTY = b'{\n  "text":\n\n    "a"\n}'


@pytest.mark.parametrize(
    "body", [PRETTY, PRETTY + b"\n", b"\xef\xbb\xbf" + PRETTY, PRETTY.replace(b"\n", b"\r\n")]
)
@pytest.mark.parametrize("endpoint", [LINES, EVENTS])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_t5_a_document_in_place_of_a_stream_is_the_only_event(
    body: bytes, endpoint: Endpoint[Line], size: int
) -> None:
    """It needs no end mark."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    async with client_of(unframed(*pieces, FIN)) as client, client.api.stream(endpoint, {}) as events:
        assert [Line("a")] == [event async for event in events]
        assert events.whole


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
async def test_t5_a_document_on_one_line_is_an_event_like_any_other_where_events_are_lines(
    end: bytes,
) -> None:
    async with client_of((READ, answer(END.strip() + end))) as client:
        assert ("", None) == await read(client, LINES)
    async with client_of((READ, answer(A.strip() + end))) as client:
        assert ("a", None) == await read(client, UNMARKED)
        assert ("a", None) == await read(client, EVENTS)
        text, error = await read(client, LINES)
    assert "a" == text
    assert isinstance(error, errors.StreamCut)


async def test_t5_a_document_of_another_shape_is_an_answer_that_is_lost() -> None:
    for body, kind in (
        (b'{\n"error": 1}', "schema"),
        (b'{\n"text": ', "json"),
        (b'{\n"text": "\\ud83d"}', None),
    ):
        async with client_of((READ, answer(body))) as client:
            if kind is None:
                async with client.api.stream(EVENTS, {}) as events:
                    assert ["\ufffd"] == [event.text async for event in events]
                    assert 1 == len(events.warnings)
            else:
                _, error = await read(client, EVENTS)
                assert isinstance(error, errors.AnswerLost)
                assert kind == error.kind


def is_a(line: Line) -> bool:
    return line.text == "a"


SAYS_WHOLE = evolve(LINES, whole=is_a)


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_t5_where_the_endpoint_tells_one_a_document_on_one_line_needs_no_end_mark(end: bytes) -> None:
    async with client_of((READ, answer(A.strip() + end))) as client:
        async with client.api.stream(SAYS_WHOLE, {}) as events:
            assert [Line("a")] == [event async for event in events]
        assert events.whole
        for cut in (unframed(A, STALL), (READ, chunked(A, last=b""), RESET)):
            client.server.scripts = (cut,)
            _, error = await client.clock.through_stalls(client.server, read(client, SAYS_WHOLE), 60.0)
            assert isinstance(error, errors.StreamCut)


@pytest.mark.parametrize("body", [A + A, A + B, B + A, B])
async def test_t5_only_an_event_that_is_the_only_one_can_be_the_whole_answer(body: bytes) -> None:
    async with client_of((READ, answer(body))) as client:
        _, error = await read(client, SAYS_WHOLE)
    assert isinstance(error, errors.StreamCut)
    assert "cut" == error.kind


async def test_e1_an_error_after_the_first_event_tells_of_all_attempts() -> None:
    busy = (READ, answer(b"{}", "429 No", "Retry-After: 7"))
    async with client_of(busy, unframed(A, FIN)) as client:
        _, error = await read(client)
    assert error is not None
    assert [(1, Phase.STATUS, 429, 7.0), (2, None, 200, None)] == [
        (each.number, each.phase, each.status, each.wait) for each in error.attempts
    ]
    async with client_of(unframed(A, STALL)) as client, client.api.stream(LINES, {}) as events:
        await anext(events)
        failed = events.failed("no")
    assert [(1, None, 200, None)] == [(a.number, a.phase, a.status, a.error) for a in failed.attempts]


async def test_a_failure_inside_the_stream_is_the_providers_and_ends_it() -> None:
    script = (READ, answer(b"", "200 OK", "X-Request-Id: r-1", framed=False), A, STALL)
    async with client_of(script) as client, client.api.stream(LINES, {}) as events:
        assert "a" == (await anext(events)).text
        error = events.failed("too\nlong", "E7")
        assert [] == [event async for event in events]
        await client.server.left.wait()
    assert isinstance(error, errors.ProviderFailed)
    assert ("E7", "too\\nlong", "r-1", "provider") == (
        error.code,
        error.excerpt,
        error.request_id,
        error.kind,
    )
    assert (Phase.EVENTS, Outcome.ACCEPTED) == (error.phase, error.outcome)
    assert None is events.failed(None).excerpt


SMALL = Limits(line=100, stream=1000, body=500)
LONG = b'{"text":"%s"}\n' % (b"x" * 60)


@pytest.mark.parametrize(
    ("parts", "events"),
    [
        ((A, b'{"text":"' + b"x" * 200), 1),
        ((LONG * 30,), 0),
        ((LONG,) * 30, None),
        ((b"\n" * 600,), 0),
        ((b"{\n" + b" " * 600,), 0),
    ],
    ids=["line", "stream at once", "stream", "nothing", "document"],
)
async def test_j4_over_a_limit_the_stream_is_closed(parts: tuple[bytes, ...], events: int | None) -> None:
    async with client_of(unframed(*parts, STALL), limits=SMALL) as client:
        text, error = await read(client)
        await client.server.left.wait()
    assert isinstance(error, errors.StreamCut)
    assert "oversize" == error.kind
    if events is not None:
        assert events == len(text)


async def fail_within(client: Client) -> None:
    async with client.api.stream(LINES, {}) as events:
        async for _ in events:
            raise KeyError


async def test_c4_leaving_early_closes_the_connection_and_gives_the_place_back() -> None:
    async with client_of(unframed(A, B, STALL), concurrency=1) as client:
        for _ in range(3):
            client.server.left.clear()
            with pytest.raises(KeyError):
                await fail_within(client)
            await client.server.left.wait()


async def test_c4_a_stream_that_is_dropped_is_closed_with_a_warning() -> None:
    async with client_of(unframed(A, STALL), concurrency=1) as client:
        events = client.api.stream(LINES, {})
        await events.__aenter__()
        with pytest.warns(ResourceWarning, match="a stream was left open"):
            del events
        await client.server.left.wait()
        assert ("a", True) == await _until_idle(client)


async def _until_idle(client: Client) -> tuple[str, bool]:
    client.server.reached.clear()
    text, error = await client.clock.through_stalls(client.server, read(client), 60.0)
    return text, isinstance(error, TimeoutError)


@pytest.mark.parametrize("script", [(READ, STALL), unframed(STALL), unframed(A, STALL)])
async def test_c1_cancelling_comes_out_unchanged_and_closes_the_connection(script: Script) -> None:
    async with client_of(script, concurrency=1) as client:
        for _ in range(2):
            client.server.reached.clear()
            client.server.left.clear()
            task = asyncio.ensure_future(read(client))
            await client.server.reached.wait()
            await settle()
            task.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await task
            await client.server.left.wait()


def test_an_endpoint_without_framing_cannot_be_streamed() -> None:
    from chatbridge.http.stream import EventStream  # noqa: PLC0415

    plain = Endpoint("say", "POST", "/say", answer=Line)
    nothing: Any = None
    with pytest.raises(TypeError, match="say has no framing"):
        EventStream(nothing, plain, nothing)


def named(frame: Frame) -> object:
    """Read an event by its name; its data need not be JSON."""
    if frame.data == b"[DONE]":
        return {"text": "", "end": True}
    return (
        {"text": f"{frame.name}:", **loads(frame.data)} if frame.data else {"text": frame.name, "end": True}
    )


def named_events(framing: Callable[[int], Framer]) -> Endpoint[Line]:
    return Endpoint(
        "ask", "POST", "/ask", answer=Line, framing=framing, read=named, ends=ends, accept="text/event-stream"
    )


NAMED = named_events(ServerSentEvents)


async def test_an_endpoint_may_read_its_frames_by_name_and_take_what_is_no_json() -> None:
    async with client_of((READ, answer(b"event: say\ndata: {}\n\ndata: [DONE]\n\n"))) as client:
        assert ("say:", None) == await read(client, NAMED)
    assert ["text/event-stream"] == client.server.requests[0].header("Accept")


async def test_an_event_without_data_is_read_where_the_framing_keeps_it() -> None:
    kept = named_events(partial(ServerSentEvents, keep_empty=True))
    async with client_of((READ, answer(b"event: done\n\n"))) as client:
        assert ("done", None) == await read(client, kept)


async def test_what_an_endpoint_cannot_read_breaks_the_stream() -> None:
    async with client_of((READ, answer(b"data: {}\n\ndata: [NOT]\n\ndata: [DONE]\n\n"))) as client:
        text, error = await read(client, NAMED)
    assert ("message:", "json") == (text, getattr(error, "kind", None))


async def test_a_stream_whose_events_tell_that_more_should_have_come_is_cut() -> None:
    async with client_of(unframed(A, FIN)) as client, client.api.stream(UNMARKED, {}) as events:
        assert ["a"] == [event.text async for event in events]
        error = events.cut("the last word is missing")
    assert (errors.StreamCut, "cut", 200) == (type(error), getattr(error, "kind", None), error.status)
    assert "acme ask: the last word is missing" == str(error)
