"""How messages are answered through Mtmai's runs: what is sent, the lines that come, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AnswerLost,
    AuthFailed,
    Bridge,
    Chat,
    DeliveryUnknown,
    Finished,
    Message,
    Outcome,
    PartAdded,
    Progress,
    ProviderFailed,
    Reply,
    RequestRefused,
    Reset,
    Role,
    SendOptions,
    Started,
    StreamCut,
    StreamEvent,
    Text,
    TextDelta,
    Usage,
    UsageError,
)
from chatbridge.events import shown_text, text_of
from chatbridge.http import BrokenContent, Frame, Mender, structure
from chatbridge.http.fold import DIFFERS
from chatbridge.testing.checking import fold
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.mtmai import wire
from chatbridge_adapters.mtmai.agents import OVERLAPS, Agents
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator

Reach = Callable[..., Awaitable[Bridge]]
Json = dict[str, Any]

SESSION = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
RUN = "3d6f0a52-9d0e-4b57-8a53-0c9a3b1c7e21"
ECHO = {"source": "user", "models_usage": None, "content": "Hello", "type": "TextMessage"}
MAPLE = "\U0001f341"


def chunk(content: str, source: str | None = "ann", **more: object) -> Json:
    return {"source": source, "content": content, "type": "ModelClientStreamingChunkEvent", **more}


def said(content: str, source: str | None = "ann", **more: object) -> Json:
    return {"source": source, "content": content, "type": "TextMessage", **more}


def lines(events: Iterable[object]) -> bytes:
    """Write *events*, of which bytes are lines already; halves of characters are escaped."""
    return b"".join((e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n" for e in events)


class Reader:
    """Streams what a run is told to say."""

    def __init__(self, bridge: Bridge, emulator: MtmaiEmulator) -> None:
        self.chat = bridge.open(SESSION)
        self.emulator = emulator
        self.events: list[StreamEvent] = []

    async def __call__(self, *events: object, **options: Any) -> Reply:
        self.emulator.script = [lines(events)]
        self.events = []
        async with self.chat.stream("Hello", SendOptions(**options)) as stream:
            async for event in stream:
                self.events.append(event)
        # Whatever was streamed, it folds into the reply.
        parts = tuple(part for each in stream.reply.messages for part in each.parts if part != Text(""))
        assert parts == fold(self.events)
        assert stream.reply.text == shown_text(self.events)
        return stream.reply

    @property
    def told(self) -> list[StreamEvent]:
        """All but the first event and the last."""
        assert Started() == self.events[0]
        assert isinstance(self.events[-1], Finished)
        return self.events[1:-1]


@pytest.fixture
def emulator() -> MtmaiEmulator:
    return MtmaiEmulator()


@pytest.fixture
async def mtmai(reach: Reach, emulator: MtmaiEmulator) -> Bridge:
    return await reach(emulator)


@pytest.fixture
def read(mtmai: Bridge, emulator: MtmaiEmulator) -> Reader:
    return Reader(mtmai, emulator)


@pytest.fixture
def chat(mtmai: Bridge) -> Chat:
    return mtmai.open(SESSION)


async def failing(read: Reader, *events: object) -> AnswerLost:
    with pytest.raises(AnswerLost) as lost:
        await read(*events)
    assert (Outcome.ACCEPTED, SESSION) == (lost.value.outcome, lost.value.conversation_id)
    return lost.value


# What is sent


async def test_a_message_goes_to_a_run_and_its_events_are_pulled(
    reach: Reach, emulator: MtmaiEmulator
) -> None:
    clock = ManualClock()
    chat = (await reach(emulator, clock=clock)).open(SESSION)
    reply = await chat.send(Message(Role.USER, "你好", id="own-id"))
    run, pull = emulator.calls
    body: Any = run.json()
    at = "2023-11-14T22:13:20.000Z"
    assert {
        "name": "ag",
        "isStream": False,
        "params": {
            "teamId": emulator.team,
            "sessionId": SESSION,
            "messages": [
                {
                    "metadata": {"id": "own-id", "createdAt": at, "updatedAt": at},
                    "role": "user",
                    "content": "你好",
                }
            ],
        },
    } == body
    tenant = f"/api/v1/tenants/{emulator.tenant}"
    assert ("POST", f"{tenant}/nodes/run", "application/json") == (
        run.method, run.path, run.headers["Content-Type"],
    )  # fmt: skip
    assert ("GET", f"{tenant}/stream/{reply.extra['workflowRunId']}", b"") == (
        pull.method, pull.path, pull.body,
    )  # fmt: skip
    assert ["text/event-stream"] * 2 == [run.headers["Accept"], pull.headers["Accept"]]


@pytest.mark.parametrize(("own", "kept"), [("a" * 36, True), ("a" * 37, False), (None, False), ("", False)])
async def test_an_id_that_is_too_long_gives_way_to_one_that_is_not(
    mtmai: Bridge, emulator: MtmaiEmulator, own: str | None, kept: bool
) -> None:
    message = Message(Role.USER, "Hi", id=own)
    await mtmai.backend.send(SESSION, message, SendOptions())
    body: Any = emulator.calls[0].json()
    sent = body["params"]["messages"][0]["metadata"]["id"]
    assert kept is (sent == own)
    assert 36 == len(sent)


async def test_the_agent_sees_the_last_message_only(chat: Chat) -> None:
    await chat.send("Hello")
    assert "Turn 1: you said 'Again'." == (await chat.send("Again")).text


async def test_what_cannot_be_sent_is_refused_before_anything_leaves(
    chat: Chat, emulator: MtmaiEmulator
) -> None:
    for message in ("\ud800", Message(Role.USER, "a", id="\ud800"), Message.assistant("a")):
        with pytest.raises(UsageError):
            await chat.send(message)
        with pytest.raises(UsageError):
            await chat.stream(message).__aenter__()
    assert [] == emulator.calls


# Lines


async def test_the_answer_of_the_documents_example_is_read(read: Reader) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 2}
    reply = await read(ECHO, chunk("你"), chunk("好!"), said("你好!", models_usage=usage))
    assert [TextDelta("你"), TextDelta("好!")] == read.told
    assert (Message(Role.ASSISTANT, "你好!", author="ann"),) == reply.messages
    assert (Usage(12, 2), (), None) == (reply.usage, reply.warnings, reply.finish_reason)
    assert {} == reply.message.extra


async def test_an_answer_without_pieces_is_shown_whole(read: Reader) -> None:
    assert "Red" == (await read(ECHO, said("Red"))).text
    assert [TextDelta("Red")] == read.told


async def test_several_agents_answer_with_a_message_each(read: Reader) -> None:
    reply = await read(
        ECHO,
        chunk("Re"),
        chunk("d"),
        said("Red", models_usage={"prompt_tokens": 1, "completion_tokens": 2}),
        chunk("Gre", "bob"),
        chunk("en", "bob"),
        said("Green", "bob", models_usage={"prompt_tokens": 4, "completion_tokens": 8}),
        said("", "cy", models_usage={"prompt_tokens": 0, "completion_tokens": 0}),
        said("Blue", "ann", models_usage={"prompt_tokens": 16, "completion_tokens": 32}),
    )
    assert [("ann", "Red"), ("bob", "Green"), ("cy", ""), ("ann", "Blue")] == [
        (each.author, each.text) for each in reply.messages
    ]
    assert "Red\n\nGreen\n\nBlue" == reply.text
    assert [
        TextDelta("Re"),
        TextDelta("d"),
        TextDelta("\n\nGre", 1),
        TextDelta("en", 1),
        PartAdded(Text("Green"), 1),
        TextDelta("\n\nBlue", 3),
        PartAdded(Text("Blue"), 3),
    ] == read.told
    assert (Usage(21, 42), ()) == (reply.usage, reply.warnings)


OVERLAPPING = [chunk("a1 ", "ann"), chunk("b1 ", "bob"), said("a1 a2", "ann"), said("b1 b2", "bob")]


async def test_a_message_ends_the_pieces_of_its_own_agent_though_another_has_begun(read: Reader) -> None:
    reply = await read(*OVERLAPPING)
    assert [("ann", "a1 a2"), ("bob", "b1 b2")] == [(each.author, each.text) for each in reply.messages]
    assert [
        TextDelta("a1 "),
        TextDelta("\n\nb1 ", 1),
        Reset(OVERLAPS),
        TextDelta("a1 a2"),
        TextDelta("\n\nb1 ", 1),
        TextDelta("b2", 1),
        PartAdded(Text("b1 b2"), 1),
    ] == read.told
    assert (OVERLAPS,) == reply.warnings


async def test_pieces_behind_those_of_another_wait_for_their_message(read: Reader) -> None:
    first, second, *messages = OVERLAPPING
    reply = await read(first, second, chunk("a2"), chunk("b2", "bob"), *reversed(messages))
    assert ["a1 a2", "b1 b2"] == [each.text for each in reply.messages]
    assert [
        TextDelta("a1 "),
        TextDelta("\n\nb1 ", 1),
        TextDelta("b2", 1),
        PartAdded(Text("b1 b2"), 1),
        Reset(OVERLAPS),
        TextDelta("a1 a2"),
        TextDelta("\n\nb1 b2", 1),
        PartAdded(Text("b1 b2"), 1),
    ] == read.told


async def test_a_message_that_differs_from_pieces_which_others_follow_is_told_of(read: Reader) -> None:
    reply = await read(chunk("a"), chunk("b", "bob"), said("x"), said("b", "bob"))
    assert ("x\n\nb", {DIFFERS, OVERLAPS}) == (reply.text, set(reply.warnings))


async def test_nothing_is_taken_back_where_agents_overlap_and_nothing_is_missing(
    read: Reader, chat: Chat, emulator: MtmaiEmulator
) -> None:
    events = [chunk("a"), chunk("b1 ", "bob"), said("a"), chunk("b2", "bob"), said("b1 b2", "bob")]
    reply = await read(*events)
    assert ("a\n\nb1 b2", ()) == (reply.text, reply.warnings)
    emulator.script = [lines(events)]
    async with chat.stream("Hello") as stream:
        assert reply.text == "".join([piece async for piece in stream.text()])


@pytest.mark.parametrize(
    ("events", "partial"),
    [
        (OVERLAPPING[:3], "a1 a2\n\nb1 "),
        ([*OVERLAPPING[:2], said("b1", "bob"), chunk("a2")], "b1"),
        ([*OVERLAPPING[:2], chunk("a2"), OVERLAPPING[3]], "a1 \n\nb1 b2"),
    ],
)
async def test_an_overlapping_answer_of_which_a_message_is_missing_was_cut(
    read: Reader, events: list[Json], partial: str
) -> None:
    error = await failing(read, *events)
    assert "cut" == error.kind
    assert partial in (error.partial or "")


async def test_what_nobody_claims_is_of_the_agent_that_spoke_last(read: Reader) -> None:
    events = [chunk("a", "ann"), chunk("b", "bob"), chunk("", "ann"), chunk("c", "bob"), b'0:"d"']
    reply = await read(*events, said("bcd!", None), said("a", "ann"))
    assert [("ann", "a"), ("bob", "bcd!")] == [(each.author, each.text) for each in reply.messages]
    assert () == reply.warnings
    reply = await read(chunk("a", "ann"), chunk("b", "bob"), said("b!", None), said("a", "ann"))
    assert [("ann", "a"), ("bob", "b!")] == [(each.author, each.text) for each in reply.messages]
    reply = await read(chunk("a", "ann"), b'0:"b"', said("ab", "ann"))
    assert [("ann", "ab")] == [(each.author, each.text) for each in reply.messages]
    reply = await read(b'0:"a"', chunk("b", "ann"), said("ab", None), said("c", None))
    assert [("ann", "ab"), (None, "c")] == [(each.author, each.text) for each in reply.messages]


async def test_a_final_text_that_differs_takes_back_what_was_shown_and_gives_the_rest_again(
    read: Reader,
) -> None:
    reply = await read(
        said("One"), said("Two", "bob"), said(""), chunk("Three", "cy"), said("Drei", "cy"), said("Four")
    )
    assert [
        TextDelta("One"),
        TextDelta("\n\nTwo", 1),
        PartAdded(Text("Two"), 1),
        TextDelta("\n\nThree", 3),
        Reset(DIFFERS),
        TextDelta("One"),
        TextDelta("\n\nTwo", 1),
        PartAdded(Text("Two"), 1),
        TextDelta("\n\nDrei", 3),
        PartAdded(Text("Drei"), 3),
        TextDelta("\n\nFour", 4),
        PartAdded(Text("Four"), 4),
    ] == read.told
    assert ("One\n\nTwo\n\nDrei\n\nFour", (DIFFERS,)) == (reply.text, reply.warnings)


async def test_a_first_message_may_turn_out_to_be_empty(read: Reader) -> None:
    reply = await read(chunk("Hm"), said(""), said("Two", "bob"))
    assert [TextDelta("Hm"), Reset(DIFFERS), TextDelta("Two", 1)] == read.told
    assert "Two" == reply.text
    reply = await read(said("One"), chunk("Hm", "bob"), said("", "bob"))
    assert [TextDelta("One"), TextDelta("\n\nHm", 1), Reset(DIFFERS), TextDelta("One")] == read.told


async def test_an_agent_that_hands_over_without_a_final_text_has_said_its_pieces(read: Reader) -> None:
    reply = await read(
        said("Zero", "zoe"),
        chunk("Let me "),
        chunk("ask."),
        chunk("Yes", "bob"),
        chunk(""),
        said("Yes!", "bob"),
    )
    assert "Zero\n\nLet me ask.\n\nYes!" == reply.text
    assert PartAdded(Text("Let me ask."), 1) in read.told
    assert ["zoe", "ann", "bob"] == [each.author for each in reply.messages]


async def test_the_same_agent_may_speak_twice(read: Reader) -> None:
    reply = await read(chunk("a"), said("a"), chunk("b"), said("b"))
    assert ["a", "b"] == [each.text for each in reply.messages]


async def test_an_answer_may_be_empty(read: Reader) -> None:
    reply = await read(ECHO, said(""))
    assert ("", [], ()) == (reply.text, read.told, reply.warnings)


async def test_events_may_have_prefixes_come_in_lists_and_name_their_kind_by_event(read: Reader) -> None:
    reply = await read(
        b"2:" + json.dumps(ECHO).encode(),
        b"2: " + json.dumps([chunk("Re"), chunk("d")]).encode(),
        b"",
        b"  \t\r",
        {"event": "TextMessage", "type": "ignored", "content": "Red", "source": "ann"},
        b'd:{"finishReason":"stop"}',
    )
    assert [TextDelta("Re"), TextDelta("d"), Progress("d", {"finishReason": "stop"})] == read.told
    assert "Red" == reply.text


async def test_a_kind_that_is_unknown_is_progress(read: Reader) -> None:
    call = {"type": "ToolCallRequestEvent", "source": 7, "content": [{"name": "weather"}]}
    reply = await read(
        {**call, "models_usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        {"event": "StepRun", "data": None, "content": None},
        {"data": "nothing"},
        b'e:{"a":1}',
        b"9:7",
        b"2:[1, null]",
        said("Sunny", models_usage={"prompt_tokens": 1, "completion_tokens": 1}),
        {"type": "WorkflowRunEnd"},
    )
    kinds = [(event.kind, event.data) for event in read.told if isinstance(event, Progress)]
    assert ["ToolCallRequestEvent", "StepRun", "event", "e", "9", "event", "event", "WorkflowRunEnd"] == [
        kind for kind, _ in kinds
    ]
    assert [{"data": "nothing"}, {"a": 1}, {"data": 7}, {"data": 1}, {"data": None}] == [
        data for _, data in kinds[2:7]
    ]
    assert ("Sunny", Usage(4, 5)) == (reply.text, reply.usage)


async def test_text_lines_are_increments_that_the_end_mark_completes(read: Reader) -> None:
    reply = await read(b'0:"Re"', b'0:"d"', b'd:{"finishReason":"stop"}')
    assert (Message(Role.ASSISTANT, "Red"),) == reply.messages
    assert "cut" == (await failing(read, b'0:"Re"', b'0:"d"')).kind
    reply = await read(said("One"), b'0:"Two"', b"d:null")
    assert "One\n\nTwo" == reply.text
    reply = await read(b'0:"One"', b"d:{}", said("Two"))
    assert [(None, "One"), ("ann", "Two")] == [(each.author, each.text) for each in reply.messages]


@pytest.mark.parametrize(
    ("events", "partial"),
    [
        ([b'0:"a"', b"d:{}", b'0:"par"'], "a\n\npar"),
        ([b'0:"One"', b"d:{}", said("Two"), b'0:"Tw"'], "One\n\nTwo\n\nTw"),
        ([b"d:{}", b'0:"a"'], "a"),
        ([chunk("a"), b"d:{}"], "a"),
    ],
)
async def test_an_end_mark_completes_the_text_before_it_alone(
    read: Reader, events: list[object], partial: str
) -> None:
    error = await failing(read, *events)
    assert (StreamCut, "cut", partial) == (type(error), error.kind, error.partial)


@pytest.mark.parametrize(
    ("events", "marked"),
    [
        ([said("Red")], False),
        ([said("Red"), {"type": "StepRun"}], False),
        ([said("Red"), {"type": "WorkflowRunEnd"}], True),
        ([said("Red"), {"event": "WorkflowRunEnd"}, {"type": "StepRun"}, ECHO], True),
        ([b'0:"Red"', b"d:{}"], True),
        ([b'0:"Red"', b"d:{}", said("Green")], False),
        ([b'0:"Red"', b"d:{}", b'0:"Green"', b"d:{}"], True),
    ],
)
async def test_an_answer_without_an_end_mark_says_so(
    read: Reader, events: list[object], *, marked: bool
) -> None:
    reply = await read(*events)
    assert (None if marked else "unmarked") == reply.extra.get("end")


async def test_a_message_says_who_said_the_text_lines_before_it(read: Reader) -> None:
    reply = await read(b'0:"Re"', said("Red"))
    assert (Message(Role.ASSISTANT, "Red", author="ann"),) == reply.messages


async def test_what_else_comes_with_a_message_is_kept(read: Reader) -> None:
    reply = await read(said("Red", models_usage={"tokens": 5}, metadata={"a": 1}, x=None))
    assert {"models_usage": {"tokens": 5}, "metadata": {"a": 1}} == reply.message.extra
    reply = await read(said("Red", models_usage="none"))
    assert ({"models_usage": "none"}, None) == (reply.message.extra, reply.usage)


BOTH: Json = {"prompt_tokens": 1, "completion_tokens": 2}
NOTHING: Json = {}


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ([BOTH, BOTH], Usage(2, 4, 6)),
        ([{"prompt_tokens": 1}, BOTH], Usage(2, None)),
        ([BOTH, {"completion_tokens": 2, "prompt_tokens": -1}], Usage(None, 4)),
        ([BOTH, None], None),
        ([NOTHING, BOTH], None),
        ([NOTHING, None], None),
    ],
)
async def test_a_count_that_a_message_does_not_tell_has_no_sum(
    read: Reader, told: list[Json | None], usage: Usage | None
) -> None:
    events = [ECHO, *(said(str(n), models_usage=each) for n, each in enumerate(told)), {"type": "StepRun"}]
    reply = await read(*events, include="usage")
    assert usage == reply.usage
    whole = usage is not None and usage.total_tokens is not None
    assert (() if whole else ("the server did not tell the whole usage",)) == reply.warnings


async def test_a_count_that_cannot_be_read_is_kept(read: Reader) -> None:
    reply = await read(said("Red", models_usage={}))
    assert {"models_usage": {}} == reply.message.extra


async def test_usage_that_nobody_told_is_a_warning_where_it_is_asked_for(read: Reader) -> None:
    assert () == (await read(said("Red"))).warnings
    reply = await read(said("Red"), include="usage")
    assert (None, ("the server did not tell the whole usage",)) == (reply.usage, reply.warnings)


async def test_an_event_may_come_in_any_pieces(chat: Chat, emulator: MtmaiEmulator) -> None:
    body = lines([ECHO, chunk("R\u00e9"), chunk("d"), said("R\u00e9d")])
    for size in (1, 7, len(body)):
        emulator.script = [body[at : at + size] for at in range(0, len(body), size)]
        assert "R\u00e9d" == (await chat.send("Hello")).text
    emulator.script = [body.rstrip()]
    assert "R\u00e9d" == (await chat.send("Hello")).text


async def test_a_character_whose_halves_come_in_two_pieces_is_whole(read: Reader) -> None:
    reply = await read(chunk("a\ud83c"), chunk("\udf41b"), said(f"a{MAPLE}b"))
    assert ([TextDelta("a"), TextDelta(f"{MAPLE}b")], ()) == (read.told, reply.warnings)


async def test_half_a_character_is_replaced_with_a_warning(read: Reader) -> None:
    reply = await read(chunk("a\ud83c"), said("a\ud83c!"), said("b\udc00", "bob"))
    assert ("a\ufffd!\n\nb\ufffd", (Mender.WARNING,)) == (reply.text, reply.warnings)
    reply = await read({"type": "X\ud83c", "data": "\ud83c"}, said("a", "\ud83c", more="\ud83c"))
    assert (("\ufffd", {"more": "\ufffd"}), (Mender.WARNING,)) == (
        (reply.message.author, reply.message.extra), reply.warnings,
    )  # fmt: skip
    assert Progress("X\ufffd", {"type": "X\ufffd", "data": "\ufffd"}) == read.told[0]
    reply = await read(chunk("a\udf41"), chunk("b\ud83c", "bob"), said("b", "bob"))
    assert ("a\ufffd\n\nb", (Mender.WARNING,)) == (reply.text, reply.warnings)
    reply = await read(b'0:"a\\ud83c"', b"d:{}")
    assert ("a\ufffd", (Mender.WARNING,)) == (reply.text, reply.warnings)


async def test_text_of_any_script_and_five_megabytes_come_whole(
    reach: Reach, emulator: MtmaiEmulator
) -> None:
    emulator.streaming = False
    emulator.responder = lambda text, _: "maple \u5341 " * 500_000 + text
    chat = (await reach(emulator)).open(SESSION)
    text = f"a\x00b\u2028\u85e4\u306e {MAPLE}\r\n"
    reply = await chat.send(text)
    assert reply.text.endswith(f"maple \u5341 {text}")
    assert 500_000 * len("maple \u5341 ") + len(text) == len(reply.text)
    emulator.responder = lambda text, _: text
    async with chat.stream(text) as stream:
        assert text == "".join([piece async for piece in stream.text()])


@pytest.mark.parametrize("streaming", [True, False])
async def test_five_megabytes_of_chinese_come_whole_though_escapes_double_them(
    reach: Reach, emulator: MtmaiEmulator, *, streaming: bool
) -> None:
    text = ("\u67ab\u53f6" * 5_000 + "\u3002 ") * 167
    emulator.streaming, emulator.responder = streaming, lambda _, __: text
    chat = (await reach(emulator)).open(SESSION)
    assert 5_000_000 < len(text.encode()) < 2 * len(text.encode()) < len(json.dumps(text)) + 1000
    assert text == (await chat.send("Hello")).text
    async with chat.stream("Hello") as stream:
        assert text == "".join([piece async for piece in stream.text()])
    assert (text, ()) == (stream.reply.text, stream.reply.warnings)


# How a run starts


async def test_the_start_of_a_run_may_name_it_by_another_field(chat: Chat, emulator: MtmaiEmulator) -> None:
    emulator.run_id_field = "workflowRunId"
    assert "Turn 1: you said 'Hello'." == (await chat.send("Hello")).text


NODE = {"metadata": {"id": "x"}, "workflowRunId": RUN, "nodeId": "y", "description": "a run"}


@pytest.mark.parametrize(
    "body",
    [
        lines([NODE]),
        json.dumps(NODE).encode(),
        json.dumps(NODE, indent=1).encode(),
        lines([b"2:" + json.dumps([{"type": "x"}, {"type": "y", "workflowRunId": RUN}]).encode()]),
        lines([{"type": "StepRun", "data": {"id": "z"}}, {"event": "WorkflowRunStart", "data": {"id": RUN}}]),
        lines([{"type": "WorkflowRunStart", "data": {"workflowRunId": RUN, "id": None}}, b"3:late"]),
        lines([{"type": "StartWorkflowRunEvent", "workflowRunId": RUN}]),
        lines([{"type": "WorkflowRunStart", "data": {}}, {"type": "WorkflowRunStart", "data": {"id": RUN}}]),
    ],
)
async def test_the_start_of_a_run_is_read_in_every_form(
    chat: Chat, emulator: MtmaiEmulator, body: bytes
) -> None:
    emulator.fail(Fault(status=200, body=body), operation="agent_run")
    emulator.fail(Fault(status=200, body=lines([said("Red")])), operation="agent_stream")
    reply = await chat.send("Hello")
    assert ("Red", RUN) == (reply.text, reply.extra["workflowRunId"])
    assert emulator.calls[-1].path.endswith(f"/stream/{RUN}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"workflowRunId":17}',
        b'{\n"workflowRunId":17}',
        b'2:{"type":"WorkflowRunStart","data":{"id":17}}\n',
        b'2:{"type":"WorkflowRunStart","data":{"id":"","workflowRunId":17}}\n',
    ],
)
async def test_the_id_of_a_run_may_be_a_number(chat: Chat, emulator: MtmaiEmulator, body: bytes) -> None:
    emulator.fail(Fault(status=200, body=body), operation="agent_run")
    emulator.fail(Fault(status=200, body=lines([said("Red")])), operation="agent_stream")
    assert "17" == (await chat.send("Hello")).extra["workflowRunId"]
    assert emulator.calls[-1].path.endswith("/stream/17")


UNNAMED = b'{"metadata":{"id":"x"},"nodeId":"y","description":"a run"'


@pytest.mark.parametrize(
    ("body", "kind", "problem"),
    [
        (b'3:"no model"\n', "provider", "no model"),
        (b'3:{"message":"no model"}\n', "provider", "no model"),
        (b"3:null\n", "provider", "no reason was given"),
        (b'{"description":"no model"}\n', "provider", "no model"),
        (b'{\n"errors":[{"description":"no model"}]}', "provider", "no model"),
        (b'{"error":"no model"}', "provider", "no model"),
        (b'{\n"error":{"message":"no model"}}', "provider", "no model"),
        (b'{\n"events":5}', "provider", "the run's start tells no id"),
        (b"{\n}", "provider", "the run's start tells no id"),
        (UNNAMED + b"}", "provider", "the run's start tells no id"),
        (UNNAMED + b"\n}", "provider", "the run's start tells no id"),
        (UNNAMED + b',"workflowRunId":true}\n', "provider", "the run's start tells no id"),
        (b'2:{"type":"WorkflowRunStart","data":{"id":"a/b"}}\n', "provider", "none that can be asked for"),
        (b'2:{"type":"WorkflowRunStart","data":{"id":""}}\n', "provider", "the run's start tells no id"),
        (b'2:{"type":"WorkflowRunStart","data":[]}\n', "provider", "the run's start tells no id"),
        (b'2:{"type":"StepRun","data":{"id":"z"}}\n', "cut", "without its end mark"),
        (b"d:null\n", "cut", "without its end mark"),
        (b'2:{"type":"WorkflowRunStart"', "cut", "unfinished"),
        (b'2:{"type":"TextMessage"}\n', "schema", "content"),
        (b"2:nonsense\n", "json", "cannot be read"),
        (b"7", "provider", "the run's start tells no id"),
        (b"[\n]", "schema", "expected an object"),
        (b"", "empty", "empty"),
    ],
)
async def test_a_run_that_does_not_start_well_was_accepted_and_its_answer_is_lost(
    chat: Chat, emulator: MtmaiEmulator, body: bytes, kind: str, problem: str
) -> None:
    emulator.fail(Fault(status=200, body=body), operation="agent_run")
    with pytest.raises(AnswerLost) as lost:
        await chat.send("Hello")
    assert (kind, Outcome.ACCEPTED) == (lost.value.kind, lost.value.outcome)
    assert problem in str(lost.value)
    assert 1 == len(emulator.calls)


async def test_half_a_character_beside_the_start_is_a_warning(chat: Chat, emulator: MtmaiEmulator) -> None:
    body = json.dumps({**NODE, "title": "\ud83c"}, indent=1).encode()
    emulator.fail(Fault(status=200, body=body), operation="agent_run")
    emulator.fail(Fault(status=200, body=lines([said("Red")])), operation="agent_stream")
    (warning,) = (await chat.send("Hello")).warnings
    assert "U+FFFD" in warning


@pytest.mark.parametrize("fault", [Fault(drop="after"), Fault(drop="before"), Fault(status=500)])
async def test_a_run_in_doubt_is_not_started_again(chat: Chat, emulator: MtmaiEmulator, fault: Fault) -> None:
    emulator.fail(fault)
    with pytest.raises(DeliveryUnknown) as unknown:
        await chat.send("Hello")
    assert (1, SESSION, False) == (
        len(emulator.calls), unknown.value.conversation_id, unknown.value.retryable,
    )  # fmt: skip


async def test_a_run_that_is_refused_says_why(reach: Reach, emulator: MtmaiEmulator) -> None:
    chat = (await reach(emulator, team="another")).open(SESSION)
    with pytest.raises(RequestRefused, match=r"params\.teamId must be the id of a team") as refused:
        await chat.send("Hello")
    assert "1400" == refused.value.code
    emulator.key = "another"
    with pytest.raises(AuthFailed, match="Please provide valid credentials"):
        await chat.send("Hello")


# How a run ends


@pytest.mark.parametrize("events", [[ECHO], [ECHO, {"type": "WorkflowRunEnd"}], [b"d:null"]])
async def test_a_run_without_a_message_has_failed(read: Reader, events: list[object]) -> None:
    error = await failing(read, *events)
    assert isinstance(error, ProviderFailed)
    assert "mtmai agent_stream" in str(error)
    assert "the run ended without a message" in str(error)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error":"team crashed"}', "team crashed"),
        (b'{"error":"team crashed"}\n', "team crashed"),
        (b'{\n"error":"team crashed"\n}', "team crashed"),
        (b'{\n"error":{"message":"team crashed"}}', "team crashed"),
        (b'{\n"description":"team crashed"\n}', "team crashed"),
        (b'{\n"errors":[{"description":"team crashed"}]}', "team crashed"),
        (b'{\n"events":5,"error":"team crashed"}', "team crashed"),
        (b'{\n"events":5}', "the run ended without a message"),
        (b'{"events":5}', "the run ended without a message"),
    ],
)
async def test_a_document_in_place_of_events_says_why_the_run_has_failed(
    chat: Chat, emulator: MtmaiEmulator, body: bytes, reason: str
) -> None:
    emulator.fail(Fault(status=200, body=body), operation="agent_stream")
    with pytest.raises(ProviderFailed) as failed:
        await chat.send("Hello")
    assert reason == failed.value.excerpt


async def test_pieces_without_their_message_are_an_answer_that_was_cut(read: Reader) -> None:
    for begun, partial in (([], ""), ([said("One", "bob")], "One\n\n")):
        error = await failing(read, ECHO, *begun, chunk("Re"), chunk("d"))
        assert isinstance(error, StreamCut)
        assert ("cut", f"{partial}Red", "agent_stream") == (error.kind, error.partial, error.operation)
        assert Started() == error.events[0]


async def test_a_sent_message_fails_as_a_streamed_one_does(chat: Chat, emulator: MtmaiEmulator) -> None:
    emulator.script = [lines([chunk("Re"), chunk("d")])]
    with pytest.raises(StreamCut) as cut:
        await chat.send("Hello")
    assert ("Red", 3) == (cut.value.partial, len(cut.value.events))
    emulator.script = [lines([chunk("Re"), b'3:"no"'])]
    with pytest.raises(ProviderFailed, match="no") as failed:
        await chat.send("Hello")
    assert "Re" == failed.value.partial


@pytest.mark.parametrize(
    ("line", "cls", "kind"),
    [
        (b'3:"out of memory"', ProviderFailed, "provider"),
        (b'{"errors":[{"description":"out of memory"}]}', ProviderFailed, "provider"),
        (b"2:{", StreamCut, "json"),
        (b"nonsense", StreamCut, "json"),
        (b'{"type":"TextMessage","content":5}', StreamCut, "schema"),
        (b'{"type":"TextMessage","source":"ann"}', StreamCut, "schema"),
        (b'{"type":"TextMessage","content":"a","source":5}', StreamCut, "schema"),
        (b'{"event":"ModelClientStreamingChunkEvent","content":null}', StreamCut, "schema"),
        (b"0:5", StreamCut, "schema"),
        (b'"\xff"', StreamCut, "encoding"),
    ],
)
async def test_a_line_that_is_none_ends_the_answer_with_what_had_come(
    read: Reader, line: bytes, cls: type[AnswerLost], kind: str
) -> None:
    error = await failing(read, chunk("Re"), line, said("Red"))
    assert (cls, kind, "Re") == (type(error), error.kind, error.partial)


async def test_pulling_is_repeated_where_it_was_certainly_not_served(
    reach: Reach, emulator: MtmaiEmulator
) -> None:
    chat = (await reach(emulator, clock=ManualClock())).open(SESSION)
    emulator.fail(Fault(status=429), operation="agent_stream", times=2)
    assert "Turn 1: you said 'Hello'." == (await chat.send("Hello")).text
    assert ["agent_run", *["agent_stream"] * 3] == [call.operation for call in emulator.calls]


@pytest.mark.parametrize(
    ("fault", "cls"),
    [
        (Fault(status=503), ProviderFailed),  # Perhaps pulled, and they can be pulled only once.
        (Fault(status=403), ProviderFailed),
        (Fault(status=404, body=b""), ProviderFailed),
        (Fault(drop="before"), StreamCut),
        (Fault(drop="after"), StreamCut),
        (Fault(status=200, body=b""), StreamCut),
        (Fault(status=200, body=b"<html>"), StreamCut),
    ],
)
async def test_a_run_whose_events_cannot_be_pulled_was_accepted(
    reach: Reach, emulator: MtmaiEmulator, fault: Fault, cls: type[AnswerLost]
) -> None:
    chat = (await reach(emulator, clock=ManualClock())).open(SESSION)
    emulator.fail(fault, operation="agent_stream")
    with pytest.raises(AnswerLost) as lost:
        await chat.send("Hello")
    assert (cls, Outcome.ACCEPTED) == (type(lost.value), lost.value.outcome)
    assert ["agent_run", "agent_stream"] == [call.operation for call in emulator.calls]


@pytest.mark.parametrize("after", range(1, 5))
@pytest.mark.parametrize("fault", ["abort", "end", "error"])
async def test_a_stream_that_stops_is_cut_or_has_failed(
    chat: Chat, emulator: MtmaiEmulator, after: int, fault: Any
) -> None:
    plan = Fault(cut_after=after, error="no more") if fault == "error" else Fault(cut_after=after, cut=fault)
    emulator.fail(plan, operation="agent_stream")
    with pytest.raises(AnswerLost) as lost:
        await chat.send("Hello")
    words = ["", "Turn", "Turn 1:", "Turn 1: you"]
    failed = fault == "error" or (fault == "end" and after == 1)
    assert (ProviderFailed if failed else StreamCut) is type(lost.value)
    assert lost.value.partial in words[:after]
    if fault != "abort":
        assert words[after - 1] == lost.value.partial


async def test_leaving_a_stream_early_lets_the_next_message_go(chat: Chat) -> None:
    async with chat.stream("Hello") as stream:
        assert Started() == await anext(stream)
    assert "Turn 1: you said 'Again'." == (await chat.send("Again")).text


# Whatever comes

WORDS = st.sampled_from(["a", "b", " c", "", "\ud83c", "\udf41", "\u5341"])
SOURCES = st.sampled_from(["ann", "bob", "user", None])
EVENTS = st.lists(
    st.builds(chunk, WORDS, SOURCES)
    | st.builds(said, WORDS, SOURCES)
    | st.just({"type": "StepRun"})
    | st.fixed_dictionaries({"type": st.just("X"), "models_usage": st.none() | st.just({"prompt_tokens": 1})})
)


@given(EVENTS)
def test_whatever_a_run_says_its_events_fold_into_its_messages(events: list[Json]) -> None:
    agents = Agents()
    told: list[StreamEvent] = []
    for event in events:
        line = structure(wire.read_line(Frame("", json.dumps(event).encode())), wire.Line)
        for each in line.events:
            told += agents.take(each)
    told += agents.end()
    texts = [message.text for message in agents.messages]
    assert tuple(Text(text) for text in texts if text) == fold(told)
    assert "\n\n".join(filter(None, texts)) == shown_text(told)
    "".join(texts).encode()  # No half of a character is left.
    spoken = [event for event in events if "content" in event]
    finals = [event for event in spoken if event["type"] == "TextMessage" and event["source"] != "user"]
    assert bool(texts) or not finals
    if not any(isinstance(event, Reset) for event in told):
        begun: set[int] = set()
        assert "\n\n".join(filter(None, texts)) == "".join(text_of(event, begun) for event in told)


TURNS = st.lists(st.tuples(st.sampled_from(["ann", "bob", "cy"]), st.text(min_size=1, max_size=3)))


@given(TURNS)
def test_however_agents_overlap_each_has_said_its_message(turns: list[tuple[str, str]]) -> None:
    texts: dict[str, str] = {}
    for source, piece in turns:
        texts[source] = texts.get(source, "") + piece
    agents = Agents()
    told: list[StreamEvent] = []
    for event in (
        *(chunk(piece, source) for source, piece in turns),
        *(said(text, source) for source, text in texts.items()),
    ):
        line = structure(wire.read_line(Frame("", json.dumps(event).encode())), wire.Line)
        told += [one for each in line.events for one in agents.take(each)]
    assert agents.complete
    assert texts == {message.author: message.text for message in agents.messages}
    assert list(texts) == [message.author for message in agents.messages]
    assert "\n\n".join(texts.values()) == shown_text(told)
    assert [Text(text) for text in texts.values()] == list(fold(told))


def ids_in(value: object) -> set[str]:
    """Give all texts and numbers in *value*, as ids are written."""
    inner: list[object] = []
    match value:
        case dict():
            inner += cast(Json, value).values()
        case list():
            inner += cast(list[object], value)
        case _:
            return {str(value)}
    return {each for one in inner for each in ids_in(one)}


KINDS = ["TextMessage", "ModelClientStreamingChunkEvent", "WorkflowRunStart"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "event", "data", "id", "workflowRunId", "content", "source", "description",
                         "errors", "models_usage", "message"]),
        inner,
    ),
)  # fmt: skip


@given(st.sampled_from(["", "0", "2", "3", "d", "e"]), JSON)
def test_whatever_a_line_holds_it_is_a_line_or_of_another_form(prefix: str, value: object) -> None:
    try:
        line = structure(wire.read_line(Frame(prefix, json.dumps(value).encode())), wire.Line)
    except BrokenContent:
        return
    agents = Agents()
    for event in line.events:
        list(agents.take(event))
    assert line.error is None or not line.events
    assert line.run_id is None or line.run_id in ids_in(value)
