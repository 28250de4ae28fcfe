"""How the runs of Tachyon's agents are read: what shows, tools, questions, the end, and failures."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    Bridge,
    DeliveryUnknown,
    FinishReason,
    Opaque,
    Outcome,
    PartAdded,
    Progress,
    ProviderFailed,
    Reply,
    Reset,
    Role,
    SendOptions,
    Started,
    StreamCut,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
)
from chatbridge.events import shown_text
from chatbridge.http import BrokenContent, Frame, Mender, structure
from chatbridge.testing.checking import fold
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.tachyon import TachyonBackend
from chatbridge_adapters.tachyon.agent import (
    ANSWERING,
    SAID_AFTER_ALL,
    AgentChunk,
    AgentFold,
    read_chunk,
)
from chatbridge_adapters.tachyon.emulator import TachyonEmulator

Reach = Callable[..., Awaitable[Bridge]]
Json = dict[str, Any]
ROOM = "ch_01jm4x3w6r7n8p9q0s1t2v3w4x"
MAPLE = "\U0001f341"


def event(kind: str, **fields: Any) -> bytes:
    """Write an event; halves of characters are escaped."""
    return f"event: {kind}\ndata: ".encode() + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


def say(text: str, index: int = 1) -> bytes:
    return event("say", index=index, text=text)


def attempt(result: Any = "", command: Any = None, *, is_finished: bool = False) -> bytes:
    return event("attempt_completion", result=result, command=command, is_finished=is_finished)


def call(tool_id: str, name: str, *pieces: Any) -> bytes:
    given = b"".join(event("tool_call_args", tool_id=tool_id, args=piece) for piece in pieces)
    return event("tool_call", tool_id=tool_id, tool_name=name) + given


def result(tool_id: str, *pieces: Any, **more: Any) -> bytes:
    last = len(pieces) - 1
    return b"".join(
        event("tool_result", tool_id=tool_id, result=piece, is_finished=number == last, **more)
        for number, piece in enumerate(pieces)
    )


TRIED = attempt(is_finished=True)
DONE = event("done")


@pytest.fixture
def emulator() -> TachyonEmulator:
    return TachyonEmulator()


@pytest.fixture
async def bridge(reach: Reach, emulator: TachyonEmulator) -> Bridge:
    return await reach(emulator, mode="agent")


class Reader:
    """Reads the run that the server is told to answer, in a room that need not exist."""

    def __init__(self, bridge: Bridge, emulator: TachyonEmulator) -> None:
        self.chat = bridge.open(ROOM)
        self.emulator = emulator
        self.events: list[StreamEvent] = []

    async def __call__(self, *body: bytes, content_type: str = "text/event-stream", **options: Any) -> Reply:
        self.events.clear()
        self.emulator.fail(Fault(status=200, body=b"".join(body), headers={"Content-Type": content_type}))
        async with self.chat.stream("Hello", SendOptions(**options)) as stream:
            async for each in stream:
                self.events.append(each)
        assert stream.reply.message.parts == fold(self.events)
        assert shown_text(self.events) == stream.reply.text
        return stream.reply

    @property
    def deltas(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, TextDelta)]

    @property
    def progress(self) -> list[Progress]:
        return [event for event in self.events if isinstance(event, Progress)]


@pytest.fixture
def read(bridge: Bridge, emulator: TachyonEmulator) -> Reader:
    return Reader(bridge, emulator)


# What shows


async def test_what_the_agent_says_is_the_answer_letter_by_letter(read: Reader) -> None:
    reply = await read(say("H"), say(""), say("\u4eac"), TRIED, DONE)
    assert [Started(), TextDelta("H"), TextDelta("\u4eac")] == read.events[:-1]
    assert ("H\u4eac", (Text("H\u4eac"),), FinishReason.STOP, "attempt_completion", (), {}) == (
        reply.text,
        reply.message.parts,
        reply.finish_reason,
        reply.raw_finish_reason,
        reply.warnings,
        reply.extra,
    )


async def test_an_attempt_is_the_answer_where_nothing_is_said(read: Reader) -> None:
    reply = await read(attempt("Red"), attempt(" leaves", "ls"), TRIED, DONE)
    assert (["Red", " leaves"], "Red leaves") == (read.deltas, reply.text)
    assert {"command": "ls"} == reply.extra


async def test_an_attempt_beside_what_is_said_stays_in_extra(read: Reader) -> None:
    reply = await read(say("Red"), attempt("Gre"), attempt("en", {"run": ["ls"]}), TRIED, DONE)
    assert (["Red"], "Red") == (read.deltas, reply.text)
    assert {"attempt_completion": "Green", "command": {"run": ["ls"]}} == reply.extra


async def test_an_attempt_is_taken_back_once_the_agent_speaks(read: Reader) -> None:
    reply = await read(
        call("a", "weather", "{}"),
        attempt("Gre"),
        result("a", "sunny"),
        attempt("en"),
        say("Re"),
        say("d"),
        DONE,
    )
    assert [
        Started(),
        PartAdded(ToolCall("a", "weather", {}), 0),
        TextDelta("Gre", 1),
        PartAdded(ToolResult("a", "sunny"), 2),
        TextDelta("en", 3),
        Reset(SAID_AFTER_ALL),
        PartAdded(ToolCall("a", "weather", {}), 0),
        PartAdded(ToolResult("a", "sunny"), 2),
        TextDelta("Re", 4),
        TextDelta("d", 4),
    ] == read.events[:-1]
    assert ("Red", {"attempt_completion": "Green"}, (SAID_AFTER_ALL,)) == (
        reply.text,
        reply.extra,
        reply.warnings,
    )


async def test_a_call_that_is_complete_when_an_attempt_is_taken_back_is_not_lost(read: Reader) -> None:
    reply = await read(attempt("Green"), event("ask", text="Sure?"), call("a", "weather"), say("Red"), DONE)
    assert (Text("Sure?"), ToolCall("a", "weather", {}), Text("Red")) == reply.message.parts


async def test_a_question_is_not_taken_back_with_an_attempt(read: Reader) -> None:
    asked = event("ask", text="Sure")
    reply = await read(asked, attempt("Green"), event("ask", text="?"), say("Red"), DONE)
    assert (Text("Sure"), Text("?"), Text("Red")) == reply.message.parts


async def test_a_run_of_nothing_is_an_empty_answer(read: Reader) -> None:
    reply = await read(DONE)
    assert ("", (), None, None, ()) == (
        reply.text, reply.message.parts, reply.finish_reason, reply.raw_finish_reason, reply.warnings,
    )  # fmt: skip


async def test_a_question_ends_the_run_and_waits_for_an_answer(read: Reader) -> None:
    options = ["Kyoto", {"label": "Nara"}]
    reply = await read(
        say("Let me see. "), event("ask", text="Which", options=options), event("ask", text=" city?"), DONE
    )
    assert (Text("Let me see. "), Text("Which city?")) == reply.message.parts
    assert (FinishReason.INPUT_REQUIRED, "ask", {"options": options}) == (
        reply.finish_reason, reply.raw_finish_reason, reply.extra,
    )  # fmt: skip


async def test_a_character_that_is_cut_between_two_events_is_joined(read: Reader) -> None:
    reply = await read(say("a\ud83c"), event("ping"), say("\udf41"), result("t", "\ud83c", "\udf41"), DONE)
    assert ((Text(f"a{MAPLE}"), ToolResult("t", MAPLE)), ()) == (reply.message.parts, reply.warnings)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (say("a\ud83c"), Text("a\ufffd")),
        (attempt("a\udf41"), Text("a\ufffd")),
        (event("ask", text="\ud83c?"), Text("\ufffd?")),
        (result("t\ud800", "\ud83c", "a"), ToolResult("t\ufffd", "\ufffda")),
        (call("t", "n\ud800", r'{"a":', r'"\ud800"}'), ToolCall("t", "n\ufffd", {"a": "\ufffd"})),
    ],
)
async def test_half_a_character_is_replaced_with_a_warning(read: Reader, body: bytes, part: object) -> None:
    reply = await read(body, DONE)
    assert ((part,), (Mender.WARNING,)) == (reply.message.parts, reply.warnings)


async def test_half_a_character_beside_the_answer_is_replaced_too(read: Reader) -> None:
    reply = await read(
        event("ping", note="\ud800"),
        say("Red"),
        attempt("a\ud800", "b\ud800"),
        event("ask", options=["\ud800"]),
        DONE,
    )
    assert {"attempt_completion": "a\ufffd", "command": "b\ufffd", "options": ["\ufffd"]} == reply.extra
    assert (Mender.WARNING,) == reply.warnings
    assert [Progress("ping", {"type": "ping", "note": "\ufffd"})] == read.progress


# Tools


async def test_tools_are_parts_in_their_place_between_what_is_said(read: Reader) -> None:
    reply = await read(
        say("One. "),
        call("a", "weather", '{"city": ', '"\u4ed9\u53f0"}'),
        result("a", "sun", "ny", ""),
        say("Two."),
        TRIED,
        DONE,
    )
    parts = (
        Text("One. "),
        ToolCall("a", "weather", {"city": "\u4ed9\u53f0"}),
        ToolResult("a", "sunny"),
        Text("Two."),
    )
    assert (parts, "One. Two.") == (reply.message.parts, reply.text)
    assert [0, 1, 2, 3] == [each.index for each in read.events if isinstance(each, PartAdded | TextDelta)]


async def test_tools_may_work_at_the_same_time(read: Reader) -> None:
    reply = await read(
        call("a", "x"), call("b", "y", {"n": 1}), event("tool_call_args", tool_id="a", args="{}"),
        result("b", {"ok": True}), result("a", "1"), DONE,
    )  # fmt: skip
    assert (
        ToolCall("a", "x", {}),
        ToolCall("b", "y", {"n": 1}),
        ToolResult("b", '{"ok": true}'),
        ToolResult("a", "1"),
    ) == reply.message.parts


async def test_a_call_is_told_before_its_result_is_complete(read: Reader) -> None:
    unfinished = event("tool_result", tool_id="a", result="sun", is_finished=False)
    await read(call("a", "x"), unfinished, event("tool_result", tool_id="a", result="ny"), DONE)
    assert [PartAdded(ToolCall("a", "x", {}), 0), PartAdded(ToolResult("a", "sunny"), 1)] == read.events[1:-1]


async def test_arguments_that_come_late_replace_the_call(read: Reader) -> None:
    reply = await read(
        call("a", "x"), say("Hm."), event("tool_call_args", tool_id="a", args='{"n": 1}'), DONE
    )
    assert (ToolCall("a", "x", {"n": 1}), Text("Hm.")) == reply.message.parts


async def test_a_result_may_say_that_the_tool_failed(read: Reader) -> None:
    reply = await read(result("a", "gone", is_error=True), DONE)
    assert (ToolResult("a", "gone", is_error=True),) == reply.message.parts


@pytest.mark.parametrize("arguments", ["[1]", "sunny", '{"a": ', "NaN", [1]])
async def test_arguments_that_are_no_object_leave_the_call_whole(read: Reader, arguments: object) -> None:
    reply = await read(call("a", "x", arguments), DONE)
    kept = {"tool_id": "a", "tool_name": "x", "args": str(arguments)}
    assert (Opaque("tachyon", "tool_call", kept),) == reply.message.parts
    (warning,) = reply.warnings
    assert warning.startswith("a call of the tool 'x' cannot be read: its arguments are no JSON object")


async def test_fields_of_a_tool_may_be_missing(read: Reader) -> None:
    body = (event("tool_call"), event("tool_call_args", tool_id=7), event("tool_result", result=None))
    reply = await read(*body, DONE)
    assert (ToolCall("", "", {}), ToolCall("7", "", {}), ToolResult("", "")) == reply.message.parts


# What is no part of the answer


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("user", {"text": "Say hello", "id": "01K"}),
        ("thinking", {"index": 0, "text": "Hm", "is_finished": True}),
        ("tool_call_pending", {"tool_id": "a", "tool_name": "x", "args": {}}),
        ("coding_job_started", {"tool_id": "a", "coding_job_id": "j"}),
        ("tool_job_started", {}),
        ("newer", {"text": {"not": "a text"}, "tool_id": []}),
        *(
            (kind, {"agent": {"chatroom_id": "ch_2"}, "text": "x", "message": 5})
            for kind in sorted(ANSWERING)
        ),
    ],
)
async def test_what_is_no_part_of_the_answer_is_progress(
    read: Reader, kind: str, fields: Mapping[str, Any]
) -> None:
    """That is: events of other types, and all events of agents that this one has set to work."""
    reply = await read(say("Red"), event(kind, **fields), say(" leaves"), DONE)
    assert [Progress(kind, {"type": kind, **fields})] == read.progress
    assert ("Red leaves", (Text("Red leaves"),), None) == (reply.text, reply.message.parts, reply.usage)


@pytest.mark.parametrize(
    ("body", "kind", "data"),
    [
        (b'data: {"note": 1}\n\n', "message", {"note": 1, "type": "message"}),
        (b'event: ping\ndata: {"type": null}\n\n', "ping", {"type": "ping"}),
        (b"event: ping\n\n", "ping", {"type": "ping"}),
        (b"event: ping\ndata: pong\n\n", "ping", {"type": "ping", "message": "pong"}),
        (b'data: {"type": 5}\n\n', "5", {"type": 5}),
        (b'data: {"type": ["say"]}\n\n', '["say"]', {"type": ["say"]}),
    ],
)
async def test_events_that_are_odd_are_progress_too(read: Reader, body: bytes, kind: str, data: Json) -> None:
    reply = await read(say("Red"), body, DONE)
    assert ([Progress(kind, data)], "Red") == (read.progress, reply.text)


@pytest.mark.parametrize(
    "body",
    [b'data: {"type": "say", "text": "Red"}\n\n', b'event: ping\ndata: {"type": "say", "text": "Red"}\n\n'],
)
async def test_the_data_tells_the_type_and_not_the_name(read: Reader, body: bytes) -> None:
    assert "Red" == (await read(body, DONE)).text


async def test_a_name_tells_the_type_where_the_data_does_not(read: Reader) -> None:
    assert "Red" == (await read(b'event: say\ndata: {"text": "Red"}\n\n', DONE)).text


# Usage


async def test_usage_comes_with_its_cost(read: Reader) -> None:
    told = {"prompt_tokens": 4250, "completion_tokens": 380, "total_tokens": 4630, "total_cost": 0.0185}
    reply = await read(
        say("Red"), event("usage", **told, cache_creation_input_tokens=2), DONE, include={"usage"}
    )
    assert (Usage(4250, 380, 4630, cost=0.0185), ()) == (reply.usage, reply.warnings)
    assert {"usage": {"cache_creation_input_tokens": 2}} == reply.extra


async def test_usage_that_was_asked_for_and_is_not_told_is_a_warning(read: Reader) -> None:
    reply = await read(say("Red"), event("usage", prompt_tokens="many"), DONE, include={"usage"})
    assert (None, ("the server told no usage that can be read",)) == (reply.usage, reply.warnings)


# The end


@pytest.mark.parametrize(
    "done",
    [DONE, b"event: done\n\n", b'data: {"type":"done"}\n\n', b"data: [DONE]\n\n", b"event: done\ndata:\n\n"],
)
async def test_the_end_is_known_in_any_dress_and_what_follows_is_ignored(read: Reader, done: bytes) -> None:
    assert "Red" == (await read(say("Red"), done, say("Blue"), event("error", message="late"))).text


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_the_run_is_read_whatever_ends_its_lines(read: Reader, end: bytes) -> None:
    body = b": ping\n\n" + say("Red") + b": ping\n\nevent: done\n\n"
    assert "Red" == (await read(body.replace(b"\n", end))).text


async def failing(read: Reader, *body: bytes) -> AnswerLost:
    """Give the error of a stream, which a send raises just so."""
    with pytest.raises(AnswerLost) as lost:
        await read(*body)
    assert (ROOM, Outcome.ACCEPTED, "tachyon") == (
        lost.value.conversation_id, lost.value.outcome, lost.value.provider,
    )  # fmt: skip
    assert ["execute_agent"] == [call.operation for call in read.emulator.calls]
    read.emulator.fail(Fault(status=200, body=b"".join(body)))
    with pytest.raises(AnswerLost) as again:
        await read.chat.send("Hello")
    assert (type(lost.value), lost.value.partial, lost.value.events, lost.value.code) == (
        type(again.value), again.value.partial, again.value.events, again.value.code,
    )  # fmt: skip
    return lost.value


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (event("error", code="PAYMENT_REQUIRED", message="no credits"), "PAYMENT_REQUIRED", "no credits"),
        (event("error", message="ExecutionError: gone"), "ExecutionError", "gone"),
        (b'data: {"type": "error", "code": "X", "message": "gone"}\n\n', "X", "gone"),
        (b'event: error\ndata: {"code": "X", "message": "gone"}\n\n', "X", "gone"),
        (b"event: error\ndata: gone\n\n", None, "gone"),
        (event("error", error={"code": "X", "message": "gone"}), "X", "gone"),
        (event("error", code=5, message={"not": "a text"}), None, ""),
        (b"event: error\n\n", None, ""),
    ],
)
async def test_an_error_in_the_run_fails_it_and_keeps_what_was_said(
    read: Reader, failure: bytes, code: str | None, said: str
) -> None:
    error = await failing(read, say("Red"), say(" leaves"), failure, DONE)
    assert isinstance(error, ProviderFailed)
    assert ("provider", "Red leaves", code) == (error.kind, error.partial, error.code)
    assert said in str(error)


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        (b"", "cut"),
        (TRIED, "cut"),
        (b"event: done\n", "cut"),
        (event("done", agent={"chatroom_id": "ch_2"}), "cut"),
        (b"event: say\ndata: Red\n\n", "json"),
        (b"data: Red\n\n", "json"),
        (event("say", text=5), "schema"),
        (event("tool_call", tool_name=[]), "schema"),
        (b"data: [1]\n\n", "schema"),
    ],
)
async def test_a_run_that_does_not_end_as_it_should_is_cut_and_keeps_what_was_said(
    read: Reader, rest: bytes, kind: str
) -> None:
    error = await failing(read, say("Red"), say(" leaves"), rest)
    assert isinstance(error, StreamCut)
    assert (kind, "Red leaves") == (error.kind, error.partial)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"code": "X", "message": "no agent"}, "no agent"),
        ({"type": "error", "message": "no agent"}, "no agent"),
        ({"status": "started"}, "not an answer"),
        ({"type": "done"}, "not an answer"),
    ],
)
async def test_a_document_in_place_of_a_run_is_no_answer(read: Reader, document: Json, said: str) -> None:
    error = await failing(read, json.dumps(document).encode())
    assert isinstance(error, ProviderFailed)
    assert said in str(error)


async def test_a_web_page_in_place_of_a_run_leaves_the_delivery_in_doubt(read: Reader) -> None:
    with pytest.raises(DeliveryUnknown):
        await read(b"<!doctype html>\n<p>Sign in", content_type="text/html")


# With the emulator


def own(bridge: Bridge) -> TachyonBackend:
    return cast(TachyonBackend, bridge.api)


async def test_a_run_is_read_the_same_streamed_and_whole(bridge: Bridge, emulator: TachyonEmulator) -> None:
    chat = await bridge.create()
    reply = await chat.send("Say hello")
    assert "Turn 1: you said 'Say hello'." == reply.text
    assert reply.usage is not None
    assert 0.001 == reply.usage.cost
    async with chat.stream("And again") as stream:
        assert list("Turn 2: you said 'And again'. Before that you said 'Say hello'.") == [
            text async for text in stream.text()
        ]
    assert {"execute_agent"} == {call.operation for call in emulator.calls[1:]}


async def test_without_credits_a_run_fails_and_nothing_is_stored(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    emulator.broke = True
    chat = await bridge.create()
    with pytest.raises(ProviderFailed, match="Insufficient credits") as failed:
        await chat.send("Hello")
    assert ("PAYMENT_REQUIRED", "", False) == (
        failed.value.code,
        failed.value.partial,
        failed.value.retryable,
    )
    assert [] == [message async for message in chat.messages()]


@pytest.mark.parametrize(
    ("fault", "kind", "kept"),
    [
        (Fault(cut_after=3), "cut", 2),
        (Fault(cut_after=3, cut="end"), "cut", 2),
        (Fault(cut_after=3, error="The agent left"), "provider", 0),
    ],
)
async def test_a_run_that_breaks_off_is_not_begun_again(
    bridge: Bridge, emulator: TachyonEmulator, fault: Fault, kind: str, kept: int
) -> None:
    chat = await bridge.create()
    emulator.fail(evolve(fault), operation="execute_agent")
    with pytest.raises(AnswerLost) as lost:
        await chat.send("Hello")
    assert (kind, "Tur") == (lost.value.kind, lost.value.partial)
    assert 2 == len(emulator.calls)
    assert kept == len([message async for message in chat.messages()])


RUN: list[Json] = [
    {"type": "thinking", "index": 0, "text": "Hm", "is_finished": True},
    {"type": "say", "index": 1, "text": "Wait."},
    {"type": "tool_call", "tool_id": "a", "tool_name": "weather"},
    {"type": "tool_call_args", "tool_id": "a", "args": '{"city":"\u4ed9\u53f0"}'},
    {"type": "tool_result", "tool_id": "a", "result": "sun", "is_finished": False},
    {"type": "tool_result", "tool_id": "a", "result": "ny", "is_finished": True},
    {"type": "say", "index": 2, "text": " Sun"},
    {"type": "say", "index": 2, "text": "ny."},
    {"type": "attempt_completion", "result": "", "command": None, "is_finished": True},
]


async def test_what_an_agent_did_is_in_the_history_and_in_its_log(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    emulator.run = RUN
    chat = await bridge.create()
    reply = await chat.send("What weather?")
    tool = (ToolCall("a", "weather", {"city": "\u4ed9\u53f0"}), ToolResult("a", "sunny"))
    assert (Text("Wait."), *tool, Text(" Sunny.")) == reply.message.parts
    assert [
        (Role.USER, (Text("What weather?"),)),
        (Role.ASSISTANT, (Text("Wait."),)),
        (Role.ASSISTANT, tool[:1]),
        (Role.TOOL, tool[1:]),
        (Role.ASSISTANT, (Text(" Sunny."),)),
    ] == [(message.role, message.parts) async for message in chat.messages()]
    log = await own(bridge).agent_log(chat.id)
    assert [
        "user", "thinking", "say", "tool_call", "tool_call_args", "tool_result", "tool_result", "say",
        "attempt_completion", "usage",
    ] == [chunk["type"] for chunk in log]  # fmt: skip
    assert ("What weather?", " Sunny.") == (log[0]["text"], log[7]["text"])


async def test_a_long_log_is_read_page_by_page(bridge: Bridge, emulator: TachyonEmulator) -> None:
    emulator.run = [{"type": "tool_call", "tool_id": str(number), "tool_name": "x"} for number in range(250)]
    chat = await bridge.create()
    await chat.send("Go")
    emulator.calls.clear()
    assert 252 == len(await own(bridge).agent_log(chat.id))
    assert [("0", "100"), ("100", "100"), ("200", "100")] == [
        (call.query["offset"], call.query["limit"]) for call in emulator.calls
    ]


async def test_an_attempt_alone_is_the_answer_in_the_history_too(
    bridge: Bridge, emulator: TachyonEmulator
) -> None:
    emulator.run = [{"type": "attempt_completion", "result": "Red", "is_finished": True}]
    chat = await bridge.create()
    assert "Red" == (await chat.send("Which?")).text
    assert ["Which?", "Red"] == [message.text async for message in chat.messages()]


async def test_a_name_can_change_behind_the_clients_back(bridge: Bridge) -> None:
    chat = await bridge.create()
    await chat.send("Say\n\x00 hello")
    assert "Say hello" == (await chat.refresh()).title
    named = await bridge.create(title="Kyoto")
    await named.send("Say hello")
    assert "Kyoto" == (await named.refresh()).title
    await named.send("Say more", extra={"chatroom_name_generation": "always"})
    assert "Say more" == (await named.refresh()).title


# Properties

KEYS = st.sampled_from([
    "type", "text", "tool_id", "tool_name", "args", "result", "is_finished", "is_error", "command", "options",
    "agent", "code", "message", "prompt_tokens", "total_cost",
])  # fmt: skip
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["\ud83c", "{}"])
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)


JSON = st.recursive(VALUES, nested, max_leaves=6)
CHUNKS = st.tuples(
    st.sampled_from([*sorted(ANSWERING), "message", "ping"]), st.dictionaries(KEYS, JSON, max_size=5)
)
PLAIN = st.fixed_dictionaries(
    {"type": st.sampled_from(sorted(ANSWERING)), "tool_id": st.sampled_from(["a", "b"])},
    optional={
        "text": st.sampled_from(["x", "\ud83c", "\udf41"]),
        "args": st.sampled_from(["{", "}", "x"]),
        "result": st.sampled_from(["r", "\ud83c"]),
        "is_finished": st.booleans(),
    },
)


@given(st.lists(CHUNKS | st.tuples(st.just("message"), PLAIN), max_size=8))
def test_whatever_an_agent_sends_it_is_a_reply_or_broken(values: list[tuple[str, Json]]) -> None:
    answer = AgentFold()
    events: list[StreamEvent] = []
    for name, value in values:
        with suppress(BrokenContent):
            chunk = structure(read_chunk(Frame(name, json.dumps(value).encode())), AgentChunk)
            events += answer.take(chunk)
    events += answer.finish()
    reply = answer.reply()
    assert reply.message.parts == fold(events)
    told: list[object] = [reply.extra, repr(reply), repr(events)]
    assert json.dumps(told, ensure_ascii=False).encode()


@given(st.binary(), st.sampled_from(["message", "error", "say", "ping"]))
def test_whatever_an_event_holds_it_is_json_or_broken(data: bytes, name: str) -> None:
    with suppress(BrokenContent):
        read_chunk(Frame(name, data))


async def test_attempts_stand_where_they_were_made(read: Reader) -> None:
    reply = await read(attempt("Draft. "), event("ask", text="OK? "), attempt("Final."), DONE)
    assert (Text("Draft. "), Text("OK? "), Text("Final.")) == reply.message.parts

    reply = await read(attempt("Let me look. "), call("a", "w"), result("a", "sun"), attempt("Sunny."), DONE)
    assert [Text, ToolCall, ToolResult, Text] == [type(part) for part in reply.message.parts]

    reply = await read(attempt("Draft. "), call("a", "w"), attempt("Final."), say("Red"), DONE)
    assert ("Red", "Draft. Final.") == (reply.text, reply.extra["attempt_completion"])


async def test_an_empty_attempt_leaves_the_question_open(read: Reader) -> None:
    reply = await read(event("ask", text="Which?"), TRIED, DONE)
    assert (FinishReason.INPUT_REQUIRED, "ask") == (reply.finish_reason, reply.raw_finish_reason)


@pytest.mark.parametrize(
    "failure",
    [
        b'event: error\ndata: {"type": "STREAM_ERROR", "message": "no credit"}\n\n',
        b'data: {"code": "X", "message": "no credit"}\n\n',
        b"event: error\ndata: no credit\n\n",
    ],
)
async def test_an_error_is_one_by_its_name_or_by_its_form(read: Reader, failure: bytes) -> None:
    with pytest.raises(ProviderFailed, match="no credit") as caught:
        await read(say("Re"), failure, DONE)
    assert "Re" == caught.value.partial


async def test_done_is_done_whatever_its_data_says(read: Reader) -> None:
    assert "Red" == (await read(say("Red"), b'event: done\ndata: {"type": "x"}\n\n')).text


async def test_a_call_of_an_id_that_has_its_result_is_another(read: Reader) -> None:
    reply = await read(
        call("t", "w", '{"a": 1}'), result("t", "r1"), call("t", "w", '{"a": 2}'), result("t", "r2"), DONE
    )
    first = (ToolCall("t", "w", {"a": 1}), ToolResult("t", "r1"))
    assert (*first, ToolCall("t", "w", {"a": 2}), ToolResult("t", "r2")) == reply.message.parts


async def test_what_else_a_call_tells_is_kept(read: Reader) -> None:
    told = event("tool_call", tool_id="a", tool_name="w", is_client_tool=True)
    assert (await read(told, DONE)).extra["is_client_tool"] is True


async def test_half_a_character_before_a_tool_is_replaced_where_it_stood(read: Reader) -> None:
    reply = await read(say("a\ud83c"), call("a", "w"), say("b"), DONE)
    assert (Text("a\ufffd"), ToolCall("a", "w", {}), Text("b")) == reply.message.parts


async def test_the_room_keeps_what_the_reply_says_and_nothing_of_other_agents(reach: Reach) -> None:
    emulator = TachyonEmulator()
    other = {"agent": {"chatroom_id": "ch_2"}}
    emulator.run = [
        {"type": "say", "index": 1, "text": "SUB", **other},
        {"type": "tool_call", "tool_id": "x", "tool_name": "theirs", **other},
        {"type": "tool_call", "tool_id": "a", "tool_name": "weather"},
        {"type": "tool_call_args", "tool_id": "a", "args": {"city": "Sendai"}},
        {"type": "tool_result", "tool_id": "a", "result": "clear", "is_finished": True},
        {"type": "say", "index": 2, "text": "Clear."},
    ]
    chat = await (await reach(emulator, mode="agent")).create()
    reply = await chat.send("Weather?")
    _, *held = [message async for message in chat.messages()]

    assert reply.message.parts == tuple(part for message in held for part in message.parts)
    assert ToolCall("a", "weather", {"city": "Sendai"}) == reply.message.parts[0]


async def test_a_tool_has_failed_if_any_piece_of_its_result_says_so(read: Reader) -> None:
    pieces = (
        event("tool_result", tool_id="a", result="go", is_error=True),
        event("tool_result", tool_id="a", result="ne", is_finished=True),
    )
    assert (ToolResult("a", "gone", is_error=True),) == (await read(*pieces, DONE)).message.parts


async def test_a_result_after_a_finished_one_is_another(read: Reader) -> None:
    reply = await read(result("a", "1"), result("a", "2"), DONE)
    assert (ToolResult("a", "1"), ToolResult("a", "2")) == reply.message.parts


async def test_the_later_name_of_a_call_counts(read: Reader) -> None:
    reply = await read(call("a", "x"), call("a", "y"), DONE)
    assert (ToolCall("a", "y", {}),) == reply.message.parts


async def test_an_agent_is_another_one_however_little_is_told_of_it(read: Reader) -> None:
    assert "Red" == (await read(say("Red"), event("say", text="Blue", agent={}), DONE)).text


async def test_usage_that_was_told_is_not_lost_by_one_that_cannot_be_read(read: Reader) -> None:
    reply = await read(event("usage", prompt_tokens=1), event("usage", prompt_tokens="many"), DONE)
    assert Usage(1) == reply.usage


async def test_a_question_may_have_no_options_to_choose_from(read: Reader) -> None:
    assert {"options": []} == (await read(event("ask", text="Which?", options=[]), DONE)).extra


async def test_saying_nothing_takes_no_attempt_back(read: Reader) -> None:
    reply = await read(attempt("Red"), say(""), attempt(" leaves"), DONE)
    assert ("Red leaves", ()) == (reply.text, reply.warnings)


@pytest.mark.parametrize(
    ("events", "word"),
    [
        ([event("ask", text="Which?"), attempt("Red")], "attempt_completion"),
        ([attempt("Red"), event("ask", text="Which?")], "ask"),
    ],
)
async def test_what_comes_last_is_why_the_run_ends(read: Reader, events: list[bytes], word: str) -> None:
    assert word == (await read(*events, DONE)).raw_finish_reason


def calls(tool_id: str, args: Any = None) -> list[Json]:
    named = {"type": "tool_call", "tool_id": tool_id, "tool_name": "x"}
    return [named, {"type": "tool_call_args", "tool_id": tool_id, "args": args}]


def gives(tool_id: str, given: Any, *, last: bool = True, **more: Any) -> Json:
    return {"type": "tool_result", "tool_id": tool_id, "result": given, "is_finished": last, **more}


OTHER: Json = {"agent": {"chatroom_id": "ch_2"}}


@pytest.mark.parametrize(
    "run",
    [
        [{"type": "attempt_completion", "result": "Draft"}, {"type": "ask", "text": "OK?"}],
        [{"type": "say", "text": "Red"}, {"type": "attempt_completion", "result": "Blue"}],
        [{"type": "say", "text": ""}, {"type": "attempt_completion", "result": {"a": 1}}],
        [{"type": "say", "text": "Sub", **OTHER}, {"type": "attempt_completion", "result": "Red"}],
        [{"type": "error", "message": "gone", **OTHER}, {"type": "say", "text": "Red"}],
        [*calls("a", {"n": 1}), gives("a", {"ok": [True]}), {"type": "say", "text": "Red"}],
        [*calls("a"), gives("a", "1"), *calls("a"), gives("a", "2")],
        [*calls("a"), gives("a", "1"), gives("a", "2", is_error=True)],
        [*calls("a"), *calls("b"), gives("a", "1", last=False), gives("b", "x"), gives("a", "2")],
        [{**each, **OTHER} for each in calls("a")],
    ],
)
async def test_the_history_holds_what_the_reply_does(
    bridge: Bridge, emulator: TachyonEmulator, run: list[Json]
) -> None:
    emulator.run, chat = run, await bridge.create()
    reply = await chat.send("Go")
    held = [part for message in [each async for each in chat.messages()][1:] for part in message.parts]
    assert [*reply.message.parts] == [part for part in held if part != Text("")]


async def test_a_run_that_fails_leaves_nothing_behind(bridge: Bridge, emulator: TachyonEmulator) -> None:
    emulator.run = [{"type": "say", "text": "Red"}, {"type": "error", "code": "X", "message": "gone"}]
    chat = await bridge.create()
    with pytest.raises(ProviderFailed, match="gone"):
        await chat.send("Go")
    assert ([], (), "New Room") == (
        [message async for message in chat.messages()],
        await own(bridge).agent_log(chat.id),
        (await chat.refresh()).title,
    )
