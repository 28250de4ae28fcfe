"""What goes to Anthropic's Messages API and comes back: a history as its blocks, its blocks as our parts."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthropic_kit import MODEL, Json, Talk, begin, block, end, event, message, said, talk, text
from chatbridge import (
    Attachment,
    BadOption,
    FinishReason,
    Message,
    Opaque,
    Part,
    PartAdded,
    Progress,
    Reasoning,
    Reply,
    Role,
    SendOptions,
    StreamEvent,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UsageError,
)
from chatbridge.http import Mender, ServerSentEvents, structure
from chatbridge.testing.checking import fold
from chatbridge_adapters.anthropic import wire
from chatbridge_adapters.anthropic.backend import EMPTY, PROFILE
from chatbridge_adapters.anthropic.emulator import AnthropicEmulator
from chatbridge_adapters.anthropic.fold import LOST, UNENDED, AnswerFold
from chatbridge_adapters.anthropic.messages import MOVED, digest, sign
from chatbridge_adapters.anthropic.request import to_request

BOTH = pytest.mark.parametrize("how", ["whole", "streamed"])
MAPLE = "\U0001f341"


@pytest.fixture
async def here() -> AsyncGenerator[Talk, None]:
    async with talk() as opened:
        yield opened


def request(*messages: Message | str, **options: Any) -> tuple[Json, list[str]]:
    return to_request(said(messages), SendOptions(**options), PROFILE, model="m", max_tokens=9)


def turns(*messages: Message | str) -> list[tuple[str, list[Json]]]:
    body, warnings = request(*messages)
    assert [] == warnings
    return [(turn["role"], turn["content"]) for turn in body["messages"]]


def t(words: str) -> Json:
    return {"type": "text", "text": words}


def tool(*parts: Part) -> Message:
    return Message(Role.TOOL, parts)


def system(*parts: Part | str) -> Message:
    return Message(Role.SYSTEM, parts)


# The history


def test_messages_of_one_side_are_one_turn() -> None:
    assert [
        ("user", [t("a"), t("b")]),
        ("assistant", [t("c"), t("d")]),
        ("user", [t("e")]),
    ] == turns("a", "b", Message.assistant("c"), Message.assistant("d"), "e")


def test_what_tools_gave_is_said_by_the_user_before_anything_else() -> None:
    calls = Message.assistant(["Wait.", ToolCall("1", "f", {"x": 1}), ToolCall("2", "g", {})])
    results = Message.user(["So?", ToolResult("1", "one")]), tool(ToolResult("2", "two", is_error=True))
    assert [
        ("user", [t("Hi")]),
        (
            "assistant",
            [
                t("Wait."),
                {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "2", "name": "g", "input": {}},
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "2", "content": "two", "is_error": True},
                t("So?"),
            ],
        ),
    ] == turns("Hi", calls, *results)


def test_an_answer_with_the_results_of_a_servers_own_tools_becomes_several_turns() -> None:
    answer = Message.assistant([ToolCall("1", "f", {}), ToolResult("1", "one"), "It is one."])
    assert ["user", "assistant", "user", "assistant", "user"] == [
        side for side, _ in turns("Hi", answer, "Thanks")
    ]


def test_system_messages_and_the_options_make_the_system_prompt() -> None:
    body, warnings = request(system("Be kind."), "Hi", system="Be brief.")
    assert ("Be brief.\n\nBe kind.", []) == (body["system"], warnings)
    body, warnings = request(system("A"), "Hi", system("B"), "Ho")
    assert ("A\n\nB", [MOVED]) == (body["system"], warnings)
    assert [t("Hi"), t("Ho")] == body["messages"][0]["content"]


def test_blank_texts_are_not_sent() -> None:
    assert [("user", [t("Hi"), t("Ho")])] == turns(
        "Hi", Message.assistant(" \n"), "", Message.user(["Ho", ""])
    )


def test_what_only_another_backend_knows_again_is_not_sent() -> None:
    theirs: list[Part] = [
        Reasoning("unsigned"),
        Reasoning("signed", "else:77"),
        Reasoning("signed", "77"),
    ]
    assert ["user"] == [side for side, _ in turns("Hi", Message.assistant(theirs), "Ho")]
    refusal = Message.assistant([Opaque("openai", "refusal", {"refusal": "No."})] * 2)
    body, warnings = request("Hi", refusal, "Ho")
    assert ["user"] == [turn["role"] for turn in body["messages"]]
    assert ["a part of the kind 'refusal' was left out: it can be given back to openai only"] == warnings


def test_the_signature_of_a_thought_says_where_it_was_made() -> None:
    assert "anthropic:x" == sign("x")
    hosts = [
        "proxy.example:8443",
        "proxy.example",
        "proxy.example/secret-of-the-gateway",
        "api.anthropic.com",
    ]
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "8443:x"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    for made, host in product(hosts, hosts):
        answer = AnswerFold(host=made)
        list(answer.take_whole(json.loads(message(thought, hidden, t("So.")))))
        said = answer.reply().message
        assert "secret" not in repr(said)
        body, _ = to_request(
            [Message.user("Hi"), said, Message.user("Ho")],
            SendOptions(),
            PROFILE,
            model="m",
            max_tokens=9,
            host=host,
        )
        thoughts = [thought, hidden] if made == host else []
        assert [*thoughts, t("So.")] == body["messages"][1]["content"]


def test_what_is_ours_is_given_back_as_it_came() -> None:
    hidden = {"type": "redacted_thinking", "data": "c2VjcmV0"}
    ours = Message.assistant(
        [Reasoning("", sign("abc")), Opaque("anthropic", "redacted_thinking", hidden), "."]
    )
    thought = {"type": "thinking", "thinking": "", "signature": "abc"}
    assert [thought, hidden, t(".")] == turns("Hi", ours, "Ho")[1][1]
    file = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    assert [file] == turns(Message.user([Opaque("anthropic", "document", file)]))[0][1]


UNSENDABLE = [
    (Role.USER, ToolCall("1", "f", {}), "no ToolCall in a message of the user's"),
    (Role.USER, Reasoning("x", sign("y")), "no Reasoning in a message of the user's"),
    (Role.USER, Opaque("openai", "audio", {}), "no part of openai of the kind 'audio'"),
    (Role.USER, Opaque("anthropic", "odd", "text"), "no part of anthropic of the kind 'odd'"),
    (Role.SYSTEM, Attachment("image/png", data=b"x"), "no Attachment in a message of the system's"),
    (Role.USER, Attachment("audio/wav", data=b"x"), "no attachment of the type 'audio/wav', only image/gif"),
    (Role.USER, Attachment("image/bmp", data=b"x"), "no attachment of the type 'image/bmp', only"),
    (Role.USER, Attachment("text/plain", url="https://x.example/"), "'text/plain' by its url, only image/"),
    (Role.ASSISTANT, Attachment("image/png", data=b"x"), "no Attachment in a message of the assistant's"),
    (
        Role.ASSISTANT,
        Opaque("anthropic", "tool_use", {"type": "tool_use", "partial_json": "{"}),
        "no part of anthropic of the kind 'tool_use'",
    ),
]


@pytest.mark.parametrize(("role", "part", "words"), UNSENDABLE)
def test_what_cannot_be_sent_is_refused_in_the_last_message_and_left_out_of_earlier_ones_with_a_warning(
    role: Role, part: Part, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        request("Hi", Message(role, ("Look:", part)))
    assert "anthropic" == caught.value.provider
    body, warnings = request("Hi", Message(role, ("Look:", part)), "Ho")
    (warning,) = [each for each in warnings if each != MOVED]
    assert warning == f"left out of the history: {caught.value}"
    assert "Look:" in json.dumps(body)


@pytest.mark.parametrize(
    "messages",
    [(), ("Hi", ""), ("Hi", Message.user([])), ("Hi", system("Be kind.")), (Message.assistant(" "),)],
)
def test_there_must_be_something_to_answer(messages: tuple[Message | str, ...]) -> None:
    with pytest.raises(UsageError, match=r"says nothing|no message to answer"):
        request(*messages)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": 7}}, "response_format"),
        ({"tools": [{"description": "f"}]}, "takes mappings with name"),
        ({"tools": [{"name": "f"}], "tool_choice": "g"}, r"'g' is none of auto, .* \(options: f\)"),
        ({"extra": {"output_config": 7}}, "'output_config' in extra takes a mapping"),
        ({"extra": {"tools": "f"}}, "'tools' in extra takes a list of mappings"),
        ({"extra": {"tools": ["f"]}, "tool_choice": "f"}, "'tools' in extra takes a list of mappings"),
        ({"extra": {"tools": [{"name": 7}]}, "tool_choice": "7"}, "'7' is none of"),
        ({"tool_choice": ""}, "option 'tool_choice' = '' is none of"),
        ({"extra": {"thinkin": {}}}, "did you mean 'thinking'"),
    ],
)
def test_an_option_of_another_form_is_refused(options: Json, words: str) -> None:
    with pytest.raises(BadOption, match=words):
        request("Hi", **options)


def test_forms_of_answers_are_said_in_the_apis_way() -> None:
    schema = {"type": "object", "additionalProperties": False}
    own = {"type": "json_schema", "schema": schema}
    assert "output_config" not in request("Hi", response_format={"type": "text"})[0]
    effort = {"output_config": {"effort": "low"}}
    assert {"effort": "low"} == request("Hi", extra=effort)[0]["output_config"]
    for form in (own, schema, {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}):
        assert {"format": own} == request("Hi", response_format=form)[0]["output_config"]
    both = request("Hi", response_format=own, extra=effort)[0]
    assert {"effort": "low", "format": own} == both["output_config"]


def test_a_tool_in_the_apis_own_form_keeps_its_schema() -> None:
    tool = {"name": "f", "input_schema": {"type": "object", "required": ["x"]}}
    assert [tool] == request("Hi", tools=[tool])[0]["tools"]


def test_tools_of_the_server_stand_beside_those_of_the_program() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    body, _ = request("Hi", tools=[{"name": "f", "strict": True}], extra={"tools": (search,)})
    assert [{"name": "f", "strict": True, "input_schema": {"type": "object"}}, search] == body["tools"]
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert choice == request("Hi", extra={"tool_choice": choice})[0]["tool_choice"]


# Answers

CITED = {"type": "web_search_result_location", "url": "https://example.com/", "cited_text": "Red."}


@BOTH
async def test_what_blocks_tell_beyond_our_parts_is_kept_beside_them(here: Talk, how: str) -> None:
    call = {**use({}), "caller": {"type": "direct"}}
    whole = message({**t("Red."), "citations": [CITED]}, call, t(""), t("End."))
    streamed = (
        begin()
        + block(
            0,
            {**t(""), "citations": []},
            {"type": "text_delta", "text": "Red."},
            {"type": "citations_delta", "citation": CITED},
        )
        + block(1, call, {"type": "input_json_delta", "partial_json": ""})
        + text(2)
        + text(3, "End.")
        + end()
    )
    reply = await here.answered(whole if how == "whole" else streamed, how=how)
    assert (Text("Red."), ToolCall("1", "f", {}), Text("End.")) == reply.message.parts
    assert {
        "content": {
            "0": {"citations": [CITED], "of": digest("Red.")},
            "1": {"caller": {"type": "direct"}, "of": "1"},
        }
    } == reply.message.extra


@pytest.mark.parametrize("odd", [3, "ab", {"type": "odd"}])
async def test_citations_that_are_no_list_are_kept_and_given_back_as_they_came(here: Talk, odd: Any) -> None:
    piece = {"type": "citations_delta", "citation": CITED}
    cites = {**t("Red."), "citations": odd}
    reply = await here.answered(begin() + block(0, cites, piece) + end("pause_turn"), message(t("End.")))
    assert (Text("Red."), Text("End.")) == reply.message.parts
    kept = {"citations": odd, "deltas": [piece], "of": digest("Red.")}
    assert {"content": {"0": kept}} == reply.message.extra
    assert [cites] == here.sent[-1]["messages"][-1]["content"]


@BOTH
async def test_what_a_message_tells_beyond_ours_is_in_extra(here: Talk, how: str) -> None:
    told = {"container": {"id": "box"}, "stop_details": {"type": "refusal", "category": "bio"}}
    counts = {"output_tokens_details": {"thinking_tokens": 2}, "server_tool_use": {"web_search_requests": 1}}
    usage = {"input_tokens": 1, "output_tokens": 7, **counts}
    whole = message(t("No."), reason="refusal", usage=usage, **told)
    streamed = begin(usage=usage) + text(0, "No.") + end("refusal", **told)
    reply = await here.answered(whole if how == "whole" else streamed, how=how)
    assert {**told, "usage": counts} == reply.extra
    assert FinishReason.REFUSAL is reply.finish_reason
    assert Usage(1, 7 if how == "whole" else 4, reasoning_tokens=2) == reply.usage


@BOTH
@pytest.mark.parametrize("content", [[], [t("")]])
@pytest.mark.parametrize(
    ("reason", "warnings"),
    [("end_turn", (EMPTY,)), ("max_tokens", ()), ("stop_sequence", ()), ("refusal", ())],
)
async def test_an_answer_that_is_empty_for_no_reason_says_so(
    here: Talk, how: str, content: list[Json], reason: str, warnings: tuple[str, ...]
) -> None:
    streamed = begin() + b"".join(block(index, each) for index, each in enumerate(content)) + end(reason)
    reply = await here.answered(message(*content, reason=reason) if how == "whole" else streamed, how=how)
    assert ((), warnings) == (reply.message.parts, reply.warnings)


async def test_a_call_whose_arguments_are_cut_off_is_kept_whole(here: Talk) -> None:
    call = use({})
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"a', '": [1')]
    reply = await here.answered(begin() + block(0, call, *deltas) + end("max_tokens"))
    data = {"type": "tool_use", "id": "1", "name": "f", "partial_json": '{"a": [1'}
    assert (Opaque("anthropic", "tool_use", data),) == reply.message.parts
    kept = "so it is kept as an Opaque part and not as a ToolCall"
    assert (
        f"a call of the tool 'f' cannot be read: the answer was cut off within it, {kept}",
    ) == reply.warnings
    deltas = [{"type": "input_json_delta", "partial_json": "[1]"}]
    reply = await here.answered(begin() + block(0, call, *deltas) + end())
    assert (Opaque("anthropic", "tool_use", {**data, "partial_json": "[1]"}),) == reply.message.parts


@BOTH
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded", "refusal"])
async def test_a_call_that_is_cut_off_before_its_arguments_is_none_that_can_be_run(
    here: Talk, how: str, reason: str, *, closed: bool
) -> None:
    """Only the last one can be it."""
    calls = [use({}), {**use({}), "id": "2"}]
    streamed = begin() + block(0, calls[0])
    streamed += (
        block(1, calls[1]) if closed else event("content_block_start", index=1, content_block=calls[1])
    )
    body = message(*calls, reason=reason) if how == "whole" else streamed + end(reason)
    reply = await here.answered(body, how=how)
    data = {"type": "tool_use", "id": "2", "name": "f", "partial_json": ""}
    assert (ToolCall("1", "f", {}), Opaque("anthropic", "tool_use", data)) == reply.message.parts
    assert ["the answer was cut off within it"] == [
        each.partition(": ")[2].partition(",")[0] for each in reply.warnings
    ]
    if how == "streamed":
        assert reply.message.parts == fold(here.events)
    await here.whole("Hello", reply.message, Message("tool", [ToolResult("1", "done")]))


@BOTH
@pytest.mark.parametrize("given", [None, "", " "])
async def test_a_call_without_arguments_has_none(here: Talk, how: str, given: str | None) -> None:
    call: Json = {"type": "tool_use", "id": "1", "name": "f", "input": given}
    whole = message(call, reason="tool_use")
    pieces: list[Json] = [{"type": "input_json_delta", "partial_json": given}] if given is not None else []
    streamed = begin() + block(0, {**call, "input": {}}, *pieces) + end("tool_use")
    reply = await here.answered(whole if how == "whole" else streamed, how=how)
    assert ((ToolCall("1", "f", {}),), ()) == (reply.message.parts, reply.warnings)


async def test_arguments_that_are_written_as_text_are_read(here: Talk) -> None:
    call: Json = {"type": "tool_use", "id": "1", "name": "f", "input": '{"a": 1}'}
    reply = await here.answered(message(call), how="whole")
    assert (ToolCall("1", "f", {"a": 1}),) == reply.message.parts


@pytest.mark.parametrize("arguments", ['{"a', '{"a": 1, "a": 2}', "[1]"])
async def test_a_call_that_cannot_be_read_is_a_warning(here: Talk, arguments: str) -> None:
    call = block(0, use({}), {"type": "input_json_delta", "partial_json": arguments})
    reply = await here.answered(begin() + call + end("tool_use"))
    why = "its arguments are no JSON object, so it is kept as an Opaque part and not as a ToolCall"
    assert (f"a call of the tool 'f' cannot be read: {why}",) == reply.warnings


async def test_a_call_without_an_id_is_a_warning(here: Talk) -> None:
    reply = await here.answered(message({"type": "tool_use", "name": "f", "input": {}}), how="whole")
    assert ("a call of the tool 'f' cannot be read: it has no id, or no name",) == reply.warnings


@pytest.mark.parametrize(
    ("piece", "part"),
    [
        ({"type": "text_delta", "text": "Hi"}, Text("Hi")),
        ({"type": "thinking_delta", "thinking": "Hm."}, Reasoning("Hm.")),
    ],
)
async def test_pieces_of_a_block_that_never_began_begin_it(here: Talk, piece: Json, part: Part) -> None:
    piece_of = event("content_block_delta", index=0, delta=piece)
    reply = await here.answered(begin() + piece_of + end())
    assert ((part,), ()) == (reply.message.parts, reply.warnings)
    assert reply.message.parts == fold(here.events)


async def test_pieces_that_belong_to_nothing_are_a_warning(here: Talk) -> None:
    piece = {"type": "input_json_delta", "partial_json": "{}"}
    reply = await here.answered(begin() + 2 * event("content_block_delta", index=0, delta=piece) + end())
    assert ((), (LOST, EMPTY)) == (reply.message.parts, reply.warnings)


@BOTH
async def test_an_answer_without_a_reason_for_its_end_has_a_warning(here: Talk, how: str) -> None:
    body = (
        message(t("Hi"), reason=None) if how == "whole" else begin() + text(0, "Hi") + event("message_stop")
    )
    reply = await here.answered(body, how=how)
    assert (None, (UNENDED,)) == (reply.finish_reason, reply.warnings)


async def test_new_kinds_of_events_blocks_and_pieces_are_kept(here: Talk) -> None:
    odd = {"type": "odd_delta", "x": 1}
    body = (
        begin()
        + event("weather", degrees=7)
        + block(0, {"type": "hologram", "beam": "b"}, odd)
        + block(1, t("Hi"), odd)
        + event("content_block_delta", index=1, delta=odd)
        + end()
    )
    reply = await here.answered(body)
    assert (Opaque("anthropic", "hologram", {"type": "hologram", "beam": "b"}), Text("Hi")) == (
        reply.message.parts
    )
    assert {
        "content": {"0": {"deltas": [odd]}, "1": {"deltas": [odd], "of": digest("Hi")}}
    } == reply.message.extra
    progress = [each for each in here.events if isinstance(each, Progress)]
    assert ["weather", "content_block_delta"] == [each.kind for each in progress]
    assert {"type": "weather", "degrees": 7} == progress[0].data
    assert reply.message.parts == fold(here.events)


async def test_blocks_that_are_never_closed_end_with_the_next_of_their_number_or_the_answer(
    here: Talk,
) -> None:
    opened = event("content_block_start", index=0, content_block=t("Hi"))
    thought = {"type": "thinking", "thinking": "", "signature": ""}
    signed = {"type": "signature_delta", "signature": "s"}
    body = (
        begin()
        + opened
        + opened
        + event("content_block_start", index=1, content_block=thought)
        + event("content_block_delta", index=1, delta=signed)
        + end()
    )
    reply = await here.answered(body)
    thoughts = Reasoning("", sign("s", here.transport.base_url.removeprefix("http://")))
    assert (Text("Hi"), Text("Hi"), thoughts) == reply.message.parts
    assert PartAdded(thoughts, 2) in here.events


async def test_an_answer_need_not_tell_anything_of_itself(here: Talk) -> None:
    body = text(0, "Hi") + event("message_stop")
    reply = await here.answered(body)
    assert ("Hi", None, None, None, None) == (
        reply.text,
        reply.message.id,
        reply.model,
        reply.finish_reason,
        reply.usage,
    )
    reply = await here.answered(message(t("Hi"), id=7, model=7, reason=None, stop_reason=[8]), how="whole")
    assert ({"id": 7, "model": 7, "stop_reason": [8]}, None) == (reply.extra, reply.finish_reason)
    reply = await here.answered(message({"type": "thinking", "thinking": "Hm."}), how="whole")
    assert (Reasoning("Hm."),) == reply.message.parts
    odds = [{"type": "text", "text": 7}, {"type": "thinking", "thinking": "Hm.", "signature": 7}]
    reply = await here.answered(message(*odds), how="whole")
    assert (Opaque("anthropic", "text", odds[0]), Opaque("anthropic", "thinking", odds[1])) == (
        reply.message.parts
    )
    odd = {"input_tokens": "3", "output_tokens": -1, "output_tokens_details": 7}
    assert None is (await here.answered(message(usage=odd), how="whole")).usage


@BOTH
async def test_halves_of_characters_are_joined_or_replaced_with_a_warning(here: Talk, how: str) -> None:
    high, low = "\ud83c", "\udf41"
    reply = await here.answered(begin() + text(0, high, low) + end())
    assert (MAPLE, ()) == (reply.text, reply.warnings)
    streamed = begin() + text(0, f"a{high}", "b") + end() if how == "streamed" else None
    reply = await here.answered(streamed or message(t(f"a{high}b")), how=how)
    assert ("a\ufffdb", (Mender.WARNING,)) == (reply.text, reply.warnings)
    hidden = {"type": "redacted_thinking", "data": low}
    streamed = begin() + block(0, hidden) + end() if how == "streamed" else None
    reply = await here.answered(streamed or message(hidden), how=how)
    assert (Mender.WARNING,) == reply.warnings


def thinking(thought: str, signature: str) -> Json:
    return {"type": "thinking", "thinking": thought, "signature": signature}


def use(given: Json) -> Json:
    return {"type": "tool_use", "id": "1", "name": "f", "input": given}


def redacted(data: str) -> Json:
    return {"type": "redacted_thinking", "data": data}


ARGUMENTS = st.dictionaries(st.text(), st.text() | st.integers() | st.booleans())
BLOCKS: st.SearchStrategy[Json] = st.one_of(
    st.builds(t, st.text()),
    st.builds(thinking, st.text(), st.text()),
    st.builds(use, ARGUMENTS),
    st.builds(redacted, st.text()),
)
DELTAS = {
    "text": ("text", "text_delta", "text"),
    "thinking": ("thinking", "thinking_delta", "thinking"),
    "tool_use": ("input", "input_json_delta", "partial_json"),
}


def in_pieces(index: int, whole: Json, size: int) -> bytes:
    """Stream a block, *size* characters at a time."""
    if whole["type"] not in DELTAS:
        return block(index, whole)
    key, kind, name = DELTAS[whole["type"]]
    value = whole[key] if isinstance(whole[key], str) else json.dumps(whole[key])
    empty: Any = "" if isinstance(whole[key], str) else {}
    begun: Json = {**whole, key: empty}
    pieces = [value[at : at + size] for at in range(0, len(value), size)]
    deltas: list[Json] = [{"type": kind, name: piece} for piece in pieces]
    if "signature" in whole:
        begun["signature"] = ""
        deltas.append({"type": "signature_delta", "signature": whole["signature"]})
    return block(index, begun, *deltas)


def read(data: bytes, cuts: list[int]) -> tuple[Reply, tuple[Part, ...]]:
    """Read a stream that arrives in pieces."""
    framer, answer = ServerSentEvents(), AnswerFold()
    events: list[StreamEvent] = []
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for one, other in pairwise(edges):
        for frame in framer.feed(data[one:other]):
            events += answer.take(structure(json.loads(frame.data), wire.Event))
    return answer.reply(), fold(events)


@given(st.lists(BLOCKS, max_size=5), st.integers(1, 9), st.lists(st.integers(0, 10_000)))
def test_however_an_answer_is_cut_it_is_the_one_that_comes_whole(
    blocks: list[Json], size: int, cuts: list[int]
) -> None:
    stream = begin() + b"".join(in_pieces(at, each, size) for at, each in enumerate(blocks)) + end()
    streamed, shown = read(stream, cuts)
    answer = AnswerFold()
    list(answer.take_whole(json.loads(message(*blocks))))
    whole = answer.reply()
    assert whole.message.same_content(streamed.message)
    assert (whole.usage, whole.extra, whole.message.extra, whole.warnings) == (
        streamed.usage,
        streamed.extra,
        streamed.message.extra,
        streamed.warnings,
    )
    assert shown == streamed.message.parts


@given(st.lists(BLOCKS, max_size=5))
@settings(max_examples=50)
def test_what_came_goes_back_as_it_came(blocks: list[Json]) -> None:
    answer = AnswerFold()
    blocks = [*blocks, t("So.")]  # No thought may be the last.
    list(answer.take_whole(json.loads(message(*blocks))))
    body, _ = request("Hi", answer.reply().message, "Ho")
    sendable = [
        each
        for each in blocks
        if each["type"] not in {"text", "thinking"} or each.get("text", "").strip() or each.get("signature")
    ]
    sent = [each for turn in body["messages"] if turn["role"] == "assistant" for each in turn["content"]]
    assert sendable == [{**each, "id": "1"} if "id" in each else each for each in sent]


def test_the_words_of_errors_tell_what_has_no_code_of_its_own() -> None:
    def code(words: str, kind: str = "invalid_request_error") -> str | None:
        return wire.read_error(400, {"error": {"type": kind, "message": words}}).code

    assert "context_length_exceeded" == code("prompt is too long: 207791 tokens > 200000 maximum")
    over = (
        "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length"
    )
    assert "context_length_exceeded" == code(over)
    assert "insufficient_quota" == code(
        "You have reached your specified API usage limits. You will regain access"
    )
    assert "invalid_request_error" == code("max_tokens: Field required")
    assert "context_length_exceeded" == code("Request exceeds the maximum size", "request_too_large")
    busy = {"type": "rate_limit_error", "message": "prompt is too long for what is left of this minute"}
    assert "rate_limit_error" == wire.read_error(429, {"error": busy}).code


async def test_an_answer_of_ours_is_understood_by_the_server_again(here: Talk) -> None:
    emulator = here.emulator
    assert isinstance(emulator, AnthropicEmulator)
    first = await here.streamed("Hi", extra={"tools": [{"type": "web_search_20250305", "name": "s"}]})
    second = await here.whole("Hi", first.message, "Ho")
    assert "Turn 2: you said 'Ho'. Before that you said 'Hi'." == second.text
    assert MODEL == second.model
