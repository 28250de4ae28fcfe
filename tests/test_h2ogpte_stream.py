"""How streamed answers of h2oGPTe are read: lines, their end, what is no stream, and failures."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import evolve

from chatbridge import (
    AnswerLost,
    Bridge,
    Chat,
    DeliveryUnknown,
    Outcome,
    ProviderFailed,
    Reply,
    Reset,
    Role,
    SendOptions,
    Started,
    StreamCut,
    StreamEvent,
    TextDelta,
)
from chatbridge.http.fold import DIFFERS
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator

Reach = Callable[..., Awaitable[Bridge]]
MAPLE = "\U0001f341"


def lines(*values: object) -> bytes:
    """Write *values* as a stream does; halves of characters are escaped."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def piece(body: str) -> dict[str, object]:
    return {"body": body, "finished": False}


def whole(body: str, **more: object) -> dict[str, object]:
    return {"message_id": "m", "body": body, "finished": True, **more}


class Reader:
    """Streams what the server is told to answer, from a session that need not exist."""

    def __init__(self, bridge: Bridge, emulator: H2OGPTeEmulator) -> None:
        self.chat = bridge.open("s")
        self.emulator = emulator
        self.events: list[StreamEvent] = []

    async def __call__(self, body: bytes, content_type: str = "application/jsonl", **options: Any) -> Reply:
        self.emulator.fail(Fault(status=200, body=body, headers={"Content-Type": content_type}))
        async with self.chat.stream("Hello", SendOptions(**options)) as stream:
            async for event in stream:
                self.events.append(event)
        return stream.reply

    @property
    def deltas(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, TextDelta)]


@pytest.fixture
def read(h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator) -> Reader:
    return Reader(h2ogpte, h2ogpte_emulator)


async def test_the_last_line_is_the_whole_answer_and_not_one_more_piece(read: Reader) -> None:
    reply = await read(lines(piece("Red"), piece(" leaves"), whole("Red leaves", llm="big")))
    assert [Started(), TextDelta("Red"), TextDelta(" leaves")] == read.events[:-1]
    assert ("Red leaves", "m", (), {"llm": "big"}) == (
        reply.text, reply.message.id, reply.warnings, reply.extra,
    )  # fmt: skip


async def test_what_the_last_line_adds_is_shown(read: Reader) -> None:
    assert "Red leaves" == (await read(lines(piece("Red"), whole("Red leaves")))).text
    assert ["Red", " leaves"] == read.deltas


async def test_a_last_line_that_differs_takes_the_pieces_back_with_a_warning(read: Reader) -> None:
    reply = await read(lines(piece("Red"), piece(" leaves"), whole("Green leaves")))
    assert [Reset(DIFFERS), TextDelta("Green leaves")] == read.events[-3:-1]
    assert ("Green leaves", (DIFFERS,)) == (reply.text, reply.warnings)


async def test_lines_may_carry_the_text_so_far(read: Reader) -> None:
    reply = await read(
        lines(piece("Red"), piece(""), {"finished": False}, piece("Red leaves"), whole("Red leaves fall"))
    )
    assert (["Red", " leaves", " fall"], ()) == (read.deltas, reply.warnings)


@pytest.mark.parametrize("cumulative", [True, False])
async def test_an_answer_of_the_emulator_is_read_in_both_forms(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator, cumulative: bool
) -> None:
    h2ogpte_emulator.cumulative = cumulative
    chat = await (await reach(h2ogpte_emulator)).create()
    async with chat.stream("Hello") as stream:
        assert ["Turn", " 1:", " you", " said", " 'Hello'."] == [text async for text in stream.text()]
    assert () == stream.reply.warnings


async def test_a_last_line_without_a_body_leaves_the_pieces_as_they_are(read: Reader) -> None:
    reply = await read(lines(piece("Red"), {"finished": True, "message_id": "m"}))
    assert ("Red", "m", ()) == (reply.text, reply.message.id, reply.warnings)


async def test_an_answer_may_be_empty(read: Reader) -> None:
    assert ("", ()) == ((reply := await read(lines(whole("")))).text, reply.warnings)


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json", "text/plain; charset=x"])
async def test_the_form_of_the_lines_decides_and_not_what_the_header_says(
    read: Reader, content_type: str
) -> None:
    assert "Red" == (await read(lines(piece("Re"), whole("Red")), content_type)).text


@pytest.mark.parametrize("finished", [{}, {"finished": None}])
async def test_only_a_line_that_says_so_ends_the_answer(read: Reader, finished: dict[str, None]) -> None:
    """One that does not say whether it is the last is a piece like any other."""
    reply = await read(
        lines({"body": "Red", **finished}, {"body": " leaves", **finished}, whole("Red leaves"))
    )
    assert ("Red leaves", "m", ["Red", " leaves"]) == (reply.text, reply.message.id, read.deltas)
    error = await failing(read, lines({"body": "Red", **finished}, {"body": " leaves", **finished}))
    assert ("cut", "Red leaves") == (error.kind, error.partial)


async def test_lines_may_be_framed_as_server_sent_events(read: Reader) -> None:
    events = [b": hello\n\n", b"event: message\nid: 7\nretry: 5\ndata: " + lines(piece("Re")) + b"\n"]
    reply = await read(b"".join(events) + b"data:" + lines(whole("Red")) + b"\ndata: [DONE]\n\n")
    assert ("Red", ["Re", "d"]) == (reply.text, read.deltas)


async def test_blank_lines_and_carriage_returns_are_nothing(read: Reader) -> None:
    body = b"\n\r\n" + lines(piece("Re")).replace(b"\n", b"\r\n") + b"\n" + lines(whole("Red")).rstrip()
    assert "Red" == (await read(body)).text


async def test_what_comes_after_the_last_line_is_ignored(read: Reader) -> None:
    assert "Red" == (await read(lines(whole("Red"), piece("Blue"), {"error": "late"}))).text


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_server_that_does_not_stream_is_understood(
    read: Reader, indent: int | None, end: bytes
) -> None:
    document = json.dumps({"message_id": "m", "body": "Red leaves"}, indent=indent).encode() + end
    reply = await read(document, "application/json")
    assert ("Red leaves", "m", ["Red leaves"]) == (reply.text, reply.message.id, read.deltas)


# Halves of characters


async def test_a_character_that_is_cut_between_two_lines_is_joined(read: Reader) -> None:
    high, low = "\ud83c", "\udf41"
    reply = await read(lines(piece("a" + high), piece(low + "b"), whole(f"a{MAPLE}b")))
    assert (["a", f"{MAPLE}b"], ()) == (read.deltas, reply.warnings)


async def test_half_a_character_is_replaced_with_a_warning_wherever_it_is(read: Reader) -> None:
    last = {**whole("a\ud83cb", note="\udf41"), "message_id": "m\ud83c"}
    reply = await read(lines(piece("a\ud83c"), piece("b"), last))
    assert ("a\ufffdb", "m\ufffd", {"note": "\ufffd"}) == (reply.text, reply.message.id, reply.extra)
    assert ["a", "\ufffdb"] == read.deltas
    assert ("the answer held halves of characters, which are replaced by U+FFFD",) == reply.warnings


async def test_a_document_in_place_of_a_stream_is_mended_too(read: Reader) -> None:
    for indent in (None, 1):
        reply = await read(json.dumps({"body": "a\ud83c"}, indent=indent).encode(), "application/json")
        assert ("a\ufffd", 1) == (reply.text, len(reply.warnings))


# Failures


async def failing(read: Reader, body: bytes) -> AnswerLost:
    with pytest.raises(AnswerLost) as lost:
        await read(body)
    assert ("s", Outcome.ACCEPTED, "h2ogpte") == (
        lost.value.conversation_id, lost.value.outcome, lost.value.provider,
    )  # fmt: skip
    assert "get_completion" == read.emulator.calls[-1].operation
    return lost.value


async def test_an_error_line_fails_the_answer_and_keeps_what_was_said(read: Reader) -> None:
    error = await failing(read, lines(piece("Red"), piece(" leaves"), {"error": "interrupted \x1b[1m"}))
    assert isinstance(error, ProviderFailed)
    assert ("provider", "Red leaves") == (error.kind, error.partial)
    assert (Started(), TextDelta("Red"), TextDelta(" leaves")) == error.events
    assert "interrupted" in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"error": "no model"}, "no model"),
        ({"code": 500, "message": "no model"}, "no model"),
        ({"code": 500, "message": "no model", "finished": None}, "no model"),
        ({"status": "queued"}, "not an answer"),
        ({}, "not an answer"),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_document_that_is_no_answer_fails_it(
    read: Reader, document: object, said: str, indent: int | None, end: bytes
) -> None:
    error = await failing(read, json.dumps(document, indent=indent).encode() + end)
    assert isinstance(error, ProviderFailed)
    assert said in str(error)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (lines(piece("Red"), piece(" leaves")), "cut"),
        (lines(piece("Red"), piece(" leaves")) + b'{"body": "fal', "cut"),
        (lines(piece("Red"), piece(" leaves")) + b"no JSON\n", "json"),
        (lines(piece("Red"), piece(" leaves"), {"body": 5, "finished": False}), "schema"),
        (lines(piece("Red"), piece(" leaves"), ["body"]), "schema"),
        (lines(piece("Red"), piece(" leaves"), {"progress": 1}), "cut"),
    ],
)
async def test_a_stream_that_does_not_end_as_it_should_is_cut_and_keeps_what_was_said(
    read: Reader, body: bytes, kind: str
) -> None:
    error = await failing(read, body)
    assert isinstance(error, StreamCut)
    assert (kind, "Red leaves") == (error.kind, error.partial)


@pytest.mark.parametrize(("body", "kind"), [(b"", "empty"), (b"\n\n", "empty")])
async def test_a_stream_of_nothing_is_no_answer(read: Reader, body: bytes, kind: str) -> None:
    assert kind == (await failing(read, body)).kind


@pytest.mark.parametrize("page", [b"<!doctype html>\n<p>Sign in", b"<html>Sign in</html>"])
@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_web_page_in_place_of_a_stream_leaves_the_delivery_in_doubt(
    read: Reader, page: bytes, end: bytes
) -> None:
    with pytest.raises(DeliveryUnknown) as unknown:
        await read(page + end, "text/html")
    assert ("not_the_api", 1) == (unknown.value.kind, len(read.emulator.calls))


async def history(chat: Chat) -> list[tuple[Role, str]]:
    return [(message.role, message.text) async for message in chat.messages()]


@pytest.mark.parametrize(
    ("fault", "kind", "kept"),
    [
        (Fault(cut_after=2), "cut", 2),
        (Fault(cut_after=2, cut="end"), "cut", 2),
        (Fault(cut_after=2, error="The model left"), "provider", 1),
    ],
)
async def test_an_answer_that_breaks_off_is_not_asked_for_again(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator, fault: Fault, kind: str, kept: int
) -> None:
    chat = await h2ogpte.create()
    h2ogpte_emulator.fail(evolve(fault), operation="get_completion")
    with pytest.raises(AnswerLost) as lost:
        async with chat.stream("Hello") as stream:
            assert [event async for event in stream]
    assert (kind, "Turn 1:", chat.id) == (lost.value.kind, lost.value.partial, lost.value.conversation_id)
    assert 1 == [call.operation for call in h2ogpte_emulator.calls].count("get_completion")
    assert kept == len(await history(chat))


async def test_a_stream_whose_answer_never_begins_is_in_doubt(
    h2ogpte: Bridge, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    chat = await h2ogpte.create()
    h2ogpte_emulator.fail(Fault(drop="after"), operation="get_completion")
    with pytest.raises(DeliveryUnknown):
        await chat.stream("Hello").__aenter__()
    assert [(Role.USER, "Hello"), (Role.ASSISTANT, "Turn 1: you said 'Hello'.")] == await history(chat)
    assert 1 == [call.operation for call in h2ogpte_emulator.calls].count("get_completion")


async def test_a_stream_that_is_one_too_many_waits_as_long_as_the_server_asks(
    reach: Reach, h2ogpte_emulator: H2OGPTeEmulator
) -> None:
    clock = ManualClock()
    chat = await (await reach(h2ogpte_emulator, clock=clock)).create()
    h2ogpte_emulator.fail(Fault(status=429, headers={"Retry-After": "7"}), operation="get_completion")
    async with chat.stream("Hello") as stream:
        assert "Turn 1: you said 'Hello'." == "".join([text async for text in stream.text()])
    assert [7.0] == clock.slept


async def test_references_and_usage_come_with_a_streamed_answer(h2ogpte: Bridge) -> None:
    chat = await h2ogpte.create(extra={"collection_id": "maples"})
    async with chat.stream("Hello", include={"references", "usage"}) as stream:
        assert [event async for event in stream]
    assert 2 == len(stream.reply.message.references)
    assert stream.reply.usage is not None
    assert "emulator-llm" == stream.reply.model


async def test_a_stream_that_is_left_early_still_ends_in_the_history(h2ogpte: Bridge) -> None:
    chat = await h2ogpte.create()
    async with chat.stream("Hello") as stream:
        await anext(stream)
    await chat.send("Are you there?")
    assert "Are you there?" == (await history(chat))[-2][1]
