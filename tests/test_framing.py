"""Streams are cut into the same frames however their bytes arrive, and none can exhaust memory or time."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chatbridge.http.content import BrokenContent
from chatbridge.http.framing import DataLines, Frame, Framer, JsonLines, PrefixedLines, ServerSentEvents

BOM = b"\xef\xbb\xbf"
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def keeping_empty(limit: int) -> ServerSentEvents:
    return ServerSentEvents(limit, keep_empty=True)


FRAMERS: list[Callable[[int], Framer]] = [
    JsonLines,
    DataLines,
    PrefixedLines,
    ServerSentEvents,
    keeping_empty,
]

SSE_PARTS = [
    *(
        b"data",
        b"data: ",
        b"data:x",
        b"event",
        b"event: a",
        b"event:",
        b"id: 1",
        b"retry: 5",
        b": ping",
        b"other: 1",
    ),
    *(
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\r\r",
        b"\n\r",
        b" ",
        b":",
        b"\xff",
        b"\xc3",
        b"\0",
        b"\xe2\x80\xa8",
        BOM,
    ),
]
LINE_PARTS = [
    *(
        b"\n",
        b"\n\n",
        b"\r\n",
        b"\r",
        b"{",
        b'{"a":1}',
        b'"x',
        b'"',
        b"12",
        b"3:",
        b"abc:",
        b"abcd:",
        b"d",
        b"0:",
    ),
    *(b" ", b"\t", b"\xe2\x80\xa8", b"\xc2\x85", b"\xff", b"\0", b"null", b"[", BOM),
]


def joined(parts: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(parts), max_size=30).map(b"".join)


STREAMS = st.one_of(joined(SSE_PARTS), joined(LINE_PARTS), st.binary(max_size=60))


def drain(framer: Framer, chunks: Iterable[bytes]) -> tuple[list[Frame], str | None]:
    """Return all frames and the kind of the error that ended the stream, if one did."""
    frames: list[Frame] = []
    try:
        for chunk in chunks:
            frames += framer.feed(chunk)
        frames += framer.close()
    except BrokenContent as error:
        return frames, error.kind
    return frames, None


def single(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


@pytest.mark.parametrize("framer", FRAMERS)
@UNTIMED
@given(stream=STREAMS, limit=st.one_of(st.just(1000), st.integers(1, 12)), data=st.data())
def test_every_split_gives_what_the_whole_gives(
    framer: Callable[[int], Framer], stream: bytes, limit: int, data: st.DataObject
) -> None:
    """That includes the frames before an error, and the error."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = drain(framer(limit), [stream])

    assert whole == drain(framer(limit), chunks)
    assert whole == drain(framer(limit), single(stream))


# Server-sent events.


def reference_lines(stream: bytes) -> Iterator[bytes]:
    """Yield the lines that an end of line has ended, byte by byte."""
    line, i = b"", 0
    while i < len(stream):
        byte = stream[i : i + 1]
        if byte not in b"\r\n":
            line += byte
        else:
            yield line
            line = b""
            if stream[i : i + 2] == b"\r\n":
                i += 1
        i += 1


def reference_events(stream: bytes) -> list[tuple[str, bytes]]:
    """Interpret an event stream as https://html.spec.whatwg.org/multipage/server-sent-events.html says."""
    events: list[tuple[str, bytes]] = []
    data = event_type = b""
    for line in reference_lines(stream[3:] if stream[:3] == BOM else stream):
        if line == b"":
            if data != b"":
                data = data[:-1] if data[-1:] == b"\n" else data
                name = event_type.decode("utf-8", "replace")
                events.append((name if name != "" else "message", data))
            data = event_type = b""
            continue
        if line[:1] == b":":
            continue
        colon = line.find(b":")
        field, value = (line, b"") if colon < 0 else (line[:colon], line[colon + 1 :])
        if value[:1] == b" ":
            value = value[1:]
        if field == b"event":
            event_type = value
        elif field == b"data":
            data += value + b"\n"
    return events


@settings(UNTIMED, max_examples=500)
@given(st.one_of(joined(SSE_PARTS), st.binary(max_size=60)))
@example(BOM + BOM + b"data: x\n\n")
@example(b"\n" + BOM + b"data: x\n\n")
def test_events_are_those_of_the_standard(stream: bytes) -> None:
    frames, kind = drain(ServerSentEvents(), [stream])

    assert reference_events(stream) == [(frame.name, frame.data) for frame in frames]
    assert None is kind


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: x\n\n", [("message", b"x")]),
        (b"data:x\r\rdata:y\r\n\r\ndata: z\n\n", [("message", b"x"), ("message", b"y"), ("message", b"z")]),
        (b"event: done\ndata: x\n\ndata: y\n\n", [("done", b"x"), ("message", b"y")]),
        (b"data: a\ndata:  b\ndata\n\n", [("message", b"a\n b\n")]),
        (b"data:\n\n", [("message", b"")]),
        (b": ping\n\nid: 1\nretry: 9\n\n", []),
        (b"event: done\n\n", []),
        (b"data: unfinished\n", []),
        (BOM + b"data: x\n\n", [("message", b"x")]),
        (b"event: \xff\ndata: x\n\n", [("\ufffd", b"x")]),
    ],
)
def test_an_event_is_its_name_and_its_data_lines(stream: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert expected == [(frame.name, frame.data) for frame in ServerSentEvents().feed(stream)]


def test_a_named_event_without_data_is_kept_on_request() -> None:
    stream = b"event: done\n\n: ping\n\nid: 1\n\nevent:\n\nevent: end\ndata: x\n\n"

    assert [Frame("done", b""), Frame("end", b"x")] == keeping_empty(100).feed(stream)


def test_an_event_is_there_as_soon_as_its_blank_line_is() -> None:
    """A CR may be half of a CRLF, but nobody waits for the other half."""
    framer = ServerSentEvents()

    assert [Frame("message", b"x")] == framer.feed(b"data: x\r\n\r")
    assert [] == framer.feed(b"")
    assert [Frame("message", b"y")] == framer.feed(b"\ndata: y\n\n")


def test_an_empty_chunk_between_cr_and_lf_makes_no_second_line_end() -> None:
    framer = ServerSentEvents()

    assert [] == framer.feed(b"data: a\r")
    assert [] == framer.feed(b"")
    assert [Frame("message", b"a\nb")] == framer.feed(b"\ndata: b\n\n")


# Lines.


@UNTIMED
@given(joined(LINE_PARTS))
def test_a_line_ends_with_lf_and_nothing_else(stream: bytes) -> None:
    lines = [line.removesuffix(b"\r") for line in (stream + b"\n").split(b"\n") if line.strip() != b""]

    assert lines == [frame.data for frame in JsonLines().feed(stream + b"\n")]


@pytest.mark.parametrize("framer", [JsonLines, PrefixedLines])
@pytest.mark.parametrize("rest", [b'{"a": 1}', b'{"a": 1}\r', b"12"])
def test_an_unfinished_last_line_counts_if_it_parses(framer: Callable[[], Framer], rest: bytes) -> None:
    assert ([Frame("", b"1"), Frame("", rest.rstrip())], None) == drain(framer(), [b"1\n" + rest])


@pytest.mark.parametrize("framer", [JsonLines, PrefixedLines])
@pytest.mark.parametrize("rest", [b'{"a": 1', b'{"a": NaN}', b"x"])
def test_an_unfinished_last_line_that_does_not_parse_is_cut(
    framer: Callable[[], Framer], rest: bytes
) -> None:
    assert ([Frame("", b"1")], "cut") == drain(framer(), [b"1\n" + rest])


@pytest.mark.parametrize("rest", [b"", b" ", b"\r"])
def test_blanks_at_the_end_are_no_line(rest: bytes) -> None:
    assert ([Frame("", b"1")], None) == drain(JsonLines(), [b"1\n" + rest])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'2:{"a":1}', Frame("2", b'{"a":1}')),
        (b'0:"text"', Frame("0", b'"text"')),
        (b"d:{}", Frame("d", b"{}")),
        (b"ab9:[]", Frame("ab9", b"[]")),
        (b"d:", Frame("d", b"")),
        (b'{"a":1}', Frame("", b'{"a":1}')),
        (b'"2:x"', Frame("", b'"2:x"')),
        (b"[1]", Frame("", b"[1]")),
        (b"12", Frame("", b"12")),
        (b"null", Frame("", b"null")),
        (b"abcd:{}", Frame("", b"abcd:{}")),
        (b"D:{}", Frame("", b"D:{}")),
        (b" d:{}", Frame("", b" d:{}")),
        (b":{}", Frame("", b":{}")),
    ],
)
def test_a_prefix_is_up_to_three_small_letters_or_digits(line: bytes, expected: Frame) -> None:
    assert [expected] == PrefixedLines().feed(line + b"\n")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\n\n", b""])
def test_a_data_line_is_its_document_and_other_fields_are_nothing(ending: bytes) -> None:
    lines = [b": hi", b"event: x", b"id: 1", b"retry:2", b"data:", b'{"a":":"}', b"data:5", b"data: [1]"]
    (*frames,) = drain(DataLines(), [b"\n".join(lines) + ending])[0]
    assert [b'{"a":":"}', b"5", b" [1]"] == [frame.data for frame in frames]


def test_an_unfinished_prefixed_line_counts_if_its_document_parses() -> None:
    assert ([Frame("d", b"{}")], None) == drain(PrefixedLines(), [b"d:{}"])
    assert ([], "cut") == drain(PrefixedLines(), [b"d:{"])
    assert ([], "cut") == drain(PrefixedLines(), [b"d:"])


# Limits.


@pytest.mark.parametrize("framer", FRAMERS)
def test_a_line_or_event_of_the_limit_passes_and_one_byte_more_does_not(
    framer: Callable[[int], Framer],
) -> None:
    def stream(size: int) -> bytes:
        return b"data: " + b"x" * (size - 6) + b"\n\n"

    frames, kind = drain(framer(50), [stream(50), stream(50)])
    assert (2, None) == (len(frames), kind)
    frames, kind = drain(framer(50), [stream(50) + stream(51) + stream(50)])
    assert (1, "oversize") == (len(frames), kind)


@pytest.mark.parametrize("framer", FRAMERS)
def test_what_waits_for_its_end_is_bounded_too(framer: Callable[[int], Framer]) -> None:
    fed = framer(50)
    for _ in range(50):
        fed.feed(b"x")

    with pytest.raises(BrokenContent) as caught:
        fed.feed(b"xx")
    assert "oversize" == caught.value.kind


def test_an_event_of_many_short_lines_is_bounded() -> None:
    framer = ServerSentEvents(50)
    for _ in range(5):
        framer.feed(b"data: xyz\n")

    with pytest.raises(BrokenContent, match="over 50 bytes"):
        framer.feed(b"data: xyz\n")


@pytest.mark.parametrize("framer", FRAMERS)
def test_a_stream_that_went_over_the_limit_stays_broken(framer: Callable[[int], Framer]) -> None:
    fed = framer(50)
    with pytest.raises(BrokenContent, match="over 50 bytes"):
        fed.feed(b"x" * 60)
    with pytest.raises(BrokenContent, match="over 50 bytes"):
        fed.feed(b"1\n\n")
    with pytest.raises(BrokenContent, match="over 50 bytes"):
        fed.close()


@pytest.mark.parametrize("framer", [JsonLines, ServerSentEvents])
def test_a_long_line_in_small_chunks_is_copied_once(framer: Callable[[], Framer]) -> None:
    """Joining what waits for every chunk would make the cost quadratic."""
    calls: Counter[str] = Counter()

    def count(_frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call":
            calls[getattr(argument, "__name__", "")] += 1

    fed = framer()
    frames: list[Frame] = []
    sys.setprofile(count)
    try:
        for _ in range(2000):
            frames += fed.feed(b"data: 1234567890")
        frames += fed.feed(b"\n\n")
    finally:
        sys.setprofile(None)

    assert 1 == len(frames)
    # The first chunk has nothing to wait behind, the last one ends the line.
    assert (2, 2) == (calls["join"], calls["split"])
