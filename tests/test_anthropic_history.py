"""What a history must be so that a conversation with Anthropic's Messages API can always go on."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from anthropic_kit import Json, message, said, talk
from chatbridge import (
    Attachment,
    BadOption,
    Message,
    Opaque,
    Part,
    Reasoning,
    Role,
    SendOptions,
    Text,
    ToolCall,
    ToolResult,
    UsageError,
)
from chatbridge_adapters.anthropic.asked import OLD, Asked
from chatbridge_adapters.anthropic.backend import PROFILE
from chatbridge_adapters.anthropic.messages import sign
from chatbridge_adapters.anthropic.request import to_request
from chatbridge_adapters.anthropic.turns import BEGUN

CALL = ToolCall("1", "f", {})
UNREAD = Opaque("anthropic", "tool_use", {"type": "tool_use", "id": "1", "name": "f", "partial_json": '{"a'})
SEARCH: Json = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
FOUND: Json = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
CITED: Json = {
    "type": "web_search_result_location",
    "url": "https://example.com/",
    "cited_text": "Red.",
    "encrypted_index": "77",
}
UNANSWERED = "a call of the tool 'f' was never answered; the model is told so"


def request(*messages: Message | str, **options: Any) -> tuple[Json, list[str]]:
    body, warnings = to_request(said(messages), SendOptions(**options), PROFILE, model="m", max_tokens=9)
    Asked(fields=json.loads(json.dumps(body)), version=OLD)  # The emulator takes it.
    return body, warnings


def turns(*messages: Message | str) -> tuple[list[tuple[str, list[Json]]], list[str]]:
    body, warnings = request(*messages)
    return [(turn["role"], turn["content"]) for turn in body["messages"]], warnings


def t(words: str) -> Json:
    return {"type": "text", "text": words}


def use(call_id: str, **given: Any) -> Json:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": given}


def gave(call_id: str, content: str, **more: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def not_run(call_id: str) -> Json:
    return gave(call_id, "not run", is_error=True)


def answer(*parts: Part | str, **extra: Any) -> Message:
    return Message(Role.ASSISTANT, parts, extra=extra)


def results(*parts: Part) -> Message:
    return Message(Role.TOOL, parts)


def ours(block: Json) -> Opaque:
    return Opaque("anthropic", block["type"], block)


def test_a_call_that_was_never_answered_gets_a_result_that_says_so() -> None:
    sent, warnings = turns("Hi", answer(CALL), "Never mind.")
    assert [("assistant", [use("1")]), ("user", [not_run("1"), t("Never mind.")])] == sent[1:]
    assert [UNANSWERED] == warnings
    sent, warnings = turns("Hi", answer(CALL, ToolCall("2", "f", {})), results(ToolResult("2", "two")))
    assert [gave("2", "two"), not_run("1")] == sent[2][1]
    assert [UNANSWERED] == warnings
    sent, warnings = turns("Hi", answer(CALL))
    assert ("user", [not_run("1")]) == sent[2]


def test_a_call_that_cannot_be_read_goes_back_in_the_documented_form_with_its_result() -> None:
    failed = ToolResult("1", "This is no JSON.", is_error=True)
    sent, warnings = turns("Hi", answer(UNREAD), results(failed))
    assert [use("1", INVALID_JSON='{"a')] == sent[1][1]
    assert ([gave("1", "This is no JSON.", is_error=True)], []) == (sent[2][1], warnings)
    sent, warnings = turns("Hi", answer(ToolCall("0", "f", {}), UNREAD), "Go on.")
    assert ([not_run("0"), not_run("1"), t("Go on.")], [UNANSWERED]) == (sent[2][1], warnings)


def test_a_result_without_its_call_is_left_out_or_refused_where_it_is_to_be_answered() -> None:
    theirs = answer(Opaque("openai", "tool_call", {"id": "1"}))
    orphan = results(ToolResult("1", "one"))
    sent, warnings = turns("Hi", theirs, orphan, answer("Done."), "Ho")
    assert [("user", [t("Hi")]), ("assistant", [t("Done.")]), ("user", [t("Ho")])] == sent
    assert [
        "a part of the kind 'tool_call' was left out: it can be given back to openai only",
        "left out of the history: a result of the call '1', which is not in the message before it",
    ] == warnings
    for messages in (("Hi", theirs, orphan), ("Hi", answer(CALL), "Wait.", answer("So?"), orphan)):
        with pytest.raises(UsageError, match="cannot be sent a result of the call '1'") as caught:
            request(*messages)
        assert "anthropic" == caught.value.provider
    sent, _ = turns("Hi", answer("a"), orphan, answer("b"), "Ho")
    assert ("assistant", [t("a"), t("b")]) == sent[1]


def test_a_result_that_comes_late_goes_to_its_call() -> None:
    two = ToolCall("2", "f", {})
    agent = answer(CALL, two, ToolResult("1", "one"), "Well.", ToolResult("2", "two"), "Done.")
    sent, warnings = turns("Hi", agent, "Ho")
    assert [
        ("assistant", [use("1"), use("2")]),
        ("user", [gave("1", "one"), gave("2", "two")]),
        ("assistant", [t("Well."), t("Done.")]),
        ("user", [t("Ho")]),
    ] == sent[1:]
    assert [] == warnings
    late = results(ToolResult("1", "one"))
    sent, warnings = turns("Hi", answer(CALL), "Wait.", answer("So?"), late, answer("Done."), "Ho")
    assert ("user", [gave("1", "one"), t("Wait.")]) == sent[2]
    assert ("assistant", [t("So?"), t("Done.")]) == sent[3]
    assert [] == warnings


def test_of_two_results_of_a_call_the_first_is_sent() -> None:
    sent, warnings = turns("Hi", answer(CALL), results(ToolResult("1", "a"), ToolResult("1", "b")), "Ho")
    assert [gave("1", "a"), t("Ho")] == sent[2][1]
    assert 1 == len(warnings)


def test_a_second_result_of_a_call_is_not_said_to_be_without_one() -> None:
    two = results(ToolResult("1", "a"), ToolResult("1", "b"))
    sent, warnings = turns("Hi", answer(CALL), two, "Ho")
    assert ["left out of the history: a result of the call '1', which has a result already"] == warnings
    with pytest.raises(
        UsageError, match="cannot be sent a result of the call '1', which has a result already"
    ):
        request("Hi", answer(CALL), two)
    ids: list[Any] = [[], {}]
    odd: list[Json] = [{"type": "tool_result", "tool_use_id": each} for each in ids]
    sent, warnings = turns("Hi", answer(CALL), Message.user([*map(ours, odd)]), "Ho")
    assert ([not_run("1"), t("Ho")], 3) == (sent[2][1], len(warnings))


def test_what_was_added_or_left_out_is_told_with_the_first_answer_after_it_only() -> None:
    half = answer("So.", CALL, ours(SEARCH), ours({**FOUND, "tool_use_id": "s2"}))
    history: list[Message | str] = [answer("Hello!", ToolCall("0", "g", {})), "Hi"]
    sent, warnings = turns(*history)
    assert (3, ["a call of the tool 'g' was never answered; the model is told so", BEGUN]) == (
        len(sent),
        warnings,
    )
    history += [half, "Ho"]
    sent, warnings = turns(*history)
    assert ([t("So."), use("1")], 3) == (sent[3][1], len(warnings))
    assert UNANSWERED in warnings
    more = [("assistant", [t("Ah.")]), ("user", [t("Well.")])]
    assert ([*sent, *more], []) == turns(*history, answer("Ah."), "Well.")


def test_a_call_of_the_servers_that_is_broken_off_after_others_is_told_all_the_same() -> None:
    code = answer(ours(CODE), CALL, content={"1": {"caller": FROM_CODE}})
    result = results(ToolResult("1", "one"))
    sent, warnings = turns("Hi", code, result, answer(CALL), result, "Never mind.")
    assert ([use("1")], 1) == (sent[1][1], len(warnings))


def test_a_history_that_begins_with_the_assistant_has_a_word_of_the_users_before_it() -> None:
    assert ([("user", [t(".")]), ("assistant", [t("Hello!")]), ("user", [t("Hi")])], [BEGUN]) == turns(
        answer("Hello!"), "Hi"
    )
    unsendable = Message.user([Attachment("application/msword", data=b"x")])
    sent, warnings = turns(unsendable, answer("Nice."), "Hi")
    assert (["user", "assistant", "user"], 2) == ([side for side, _ in sent], len(warnings))


@pytest.mark.parametrize(
    "beside", [[], [Text("I search.")], [ours({"type": "redacted_thinking", "data": "x"})]]
)
def test_a_call_of_the_servers_tool_that_has_no_result_is_left_out(beside: list[Part]) -> None:
    sent, warnings = turns("Hi", answer(*beside, ours(SEARCH)), "Ho")
    assert "server_tool_use" not in json.dumps(sent)
    assert [
        "left out of the history: a call of the server's tool 'web_search', which has no result"
    ] == warnings
    said = any(isinstance(part, Text) for part in beside)
    assert (["user", "assistant", "user"] if said else ["user"]) == [side for side, _ in sent]


def test_no_turn_of_the_assistants_ends_with_a_thought() -> None:
    thought = Reasoning("Hm.", sign("x"))
    hidden = ours({"type": "redacted_thinking", "data": "x"})
    shown = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    assert ([("user", [t("Hi"), t("Ho")])], []) == turns("Hi", answer(thought), "Ho")
    sent, _ = turns("Hi", answer(thought, "So.", hidden, thought), "Ho")
    assert [shown, t("So.")] == sent[1][1]
    sent, _ = turns("Hi", answer(thought), answer("So."), "Ho")
    assert [shown, t("So.")] == sent[1][1]
    sent, warnings = turns("Hi", answer(CALL), answer(hidden), results(ToolResult("1", "one")))
    assert ([use("1")], [gave("1", "one")], []) == (sent[1][1], sent[2][1], warnings)
    sent, warnings = turns("Hi", answer(thought, ours(SEARCH)), "Ho")
    assert ([("user", [t("Hi"), t("Ho")])], 1) == (sent, len(warnings))
    with pytest.raises(UsageError, match="the last message is to be answered, and says nothing"):
        request("Hi", answer(thought))


def test_a_result_of_the_servers_tool_that_has_no_call_is_left_out() -> None:
    sent, warnings = turns("Hi", answer(ours(FOUND), "Red."), "Ho")
    assert [t("Red.")] == sent[1][1]
    assert [
        "left out of the history: a part of the kind 'web_search_tool_result', whose call is not there"
    ] == warnings


CODE: Json = {"type": "server_tool_use", "id": "c1", "name": "code_execution", "input": {}}
RAN: Json = {"type": "code_execution_tool_result", "tool_use_id": "c1", "content": {}}
FROM_CODE: Json = {"type": "code_execution_20260120", "tool_id": "c1"}


def test_a_tool_of_the_server_that_waits_for_one_of_the_programs_goes_on_in_its_container() -> None:
    box = {"container": {"id": "box_1", "expires_at": "2026-01-01T00:00:00Z"}}
    called = answer(ours(CODE), CALL, content={"1": {"caller": FROM_CODE}}, **box)
    made = {**use("1"), "caller": FROM_CODE}
    result = results(ToolResult("1", "one"))
    body, warnings = request("Hi", called, result)
    assert ([CODE, made], "box_1", []) == (body["messages"][1]["content"], body["container"], warnings)
    body, _ = request("Hi", called, result, answer(CALL, content={"0": {"caller": FROM_CODE}}), result)
    assert "box_1" == body["container"]
    assert "box_2" == request("Hi", called, result, extra={"container": "box_2"})[0]["container"]
    body, warnings = request("Hi", called, result, answer(ours(RAN), "Red."), "Ho")
    assert ([CODE, made], None, []) == (body["messages"][1]["content"], body.get("container"), warnings)


def test_what_a_tool_of_the_servers_called_does_not_depend_on_it_once_it_is_left_out() -> None:
    nested = [ours({**SEARCH, "caller": FROM_CODE}), ours({**FOUND, "caller": FROM_CODE})]
    called = answer("So.", ours(CODE), *nested, CALL, content={"4": {"caller": FROM_CODE}})
    sent, warnings = turns("Hi", called, "Never mind.")
    assert [t("So."), use("1")] == sent[1][1]
    assert [
        "left out of the history: a call of the server's tool 'code_execution', which has no result",
        "left out of the history: a call of the server's tool 'web_search', which has no result",
        UNANSWERED,
    ] == warnings


def test_an_id_that_the_server_uses_again_is_of_the_nearest_call() -> None:
    search = answer(ours(SEARCH), ours(FOUND), "Red.")
    sent, warnings = turns("Hi", search, "Ho", answer("So.", ours(SEARCH)), "Well?")
    assert ([SEARCH, FOUND, t("Red.")], [t("So.")]) == (sent[1][1], sent[3][1])
    assert 1 == len(warnings)
    sent, _ = turns("Hi", answer("So.", ours(SEARCH)), "Ho", search, "Well?")
    assert ([t("So.")], [SEARCH, FOUND, t("Red.")]) == (sent[1][1], sent[3][1])
    sent, _ = turns("Hi", answer(ours(FOUND), ours(SEARCH), "So."), "Ho")
    assert [t("So.")] == sent[1][1]


def test_a_call_that_was_made_from_one_that_is_not_there_does_not_say_so() -> None:
    searched = answer(ours({**SEARCH, "caller": FROM_CODE}), ours({**FOUND, "caller": FROM_CODE}), CALL)
    result = results(ToolResult("1", "one"))
    sent, warnings = turns("Hi", evolve(searched, extra={"content": {"2": {"caller": FROM_CODE}}}), result)
    assert ([SEARCH, FOUND, use("1")], []) == (sent[1][1], warnings)
    image: Json = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    assert ([("user", [image])], []) == turns(Message.user([ours({**image, "caller": FROM_CODE})]))


async def test_an_answer_tells_its_container_for_the_result_that_follows() -> None:
    code = [CODE, {**use("1"), "caller": FROM_CODE}]
    async with talk() as here:
        first = await here.answered(message(*code, reason="tool_use", container={"id": "box_1"}), how="whole")
        second = await here.whole("Hello", first.message, results(ToolResult("1", "one")))
    assert "box_1" == here.sent[-1]["container"]
    assert () == second.warnings


def test_citations_and_callers_go_back_and_what_is_not_of_their_form_does_not() -> None:
    beside = {"0": {"citations": [{**CITED, "file_id": "file_1"}]}, "1": {"caller": {"type": "direct"}}}
    result = results(ToolResult("1", "one"))
    sent, _ = turns("Hi", answer("Red.", CALL, content=beside), result)
    assert [{**t("Red."), "citations": [CITED]}, {**use("1"), "caller": {"type": "direct"}}] == sent[1][1]
    others: list[Any] = [
        7,
        {"0": 7},
        {"0": {"citations": None}, "1": {"caller": None}},
        {"0": {"citations": [7]}, "1": {"caller": {}}},
        {"0": {"citations": ["page 3"], "caller": {"type": "direct"}}, "1": {"citations": [CITED]}},
    ]
    for other in others:
        sent, _ = turns("Hi", answer("Red.", CALL, content=other), result)
        assert [t("Red."), use("1")] == sent[1][1]


async def test_what_is_kept_beside_a_part_goes_back_with_it_only() -> None:
    cites = {**t("Red."), "citations": [CITED]}
    called = {**use("1"), "caller": {"type": "direct"}}
    async with talk() as here:
        first = await here.answered(message(t("So:"), cites, called), how="whole")
    said, result = first.message, results(ToolResult("1", "one"))
    assert [t("So:"), cites, called] == turns("Hi", said, result)[0][1][1]
    other = evolve(said, parts=["So:", "Gold.", ToolCall("2", "f", {})])
    assert [t("So:"), t("Gold."), use("2")] == turns("Hi", other, results(ToolResult("2", "two")))[0][1][1]
    assert [t("Red."), use("1")] == turns("Hi", evolve(said, parts=said.parts[1:]), result)[0][1][1]


async def test_what_an_answer_cites_is_given_back() -> None:
    async with talk() as here:
        for ask in (here.whole, here.streamed):
            first = await ask("Maples?", extra={"tools": [{"type": "web_search_20250305", "name": "s"}]})
            await ask("Maples?", first.message, "Go on")
            (cited,) = here.sent[-1]["messages"][1]["content"][-1]["citations"]
            assert "web_search_result_location" == cited["type"]
        cites = {**t("Red."), "citations": [{**CITED, "file_id": None}]}
        await here.answered(message(cites, reason="pause_turn"), message(), how="whole")
        assert [{**t("Red."), "citations": [CITED]}] == here.sent[-1]["messages"][1]["content"]


def test_ids_of_calls_are_sent_as_the_api_takes_them_each_once() -> None:
    ids = ["functions.f:0", "functions_f_0", "", "é", "functions.f:0"]
    calls = answer(*(ToolCall(each, "f", {}) for each in ids))
    given = results(*(ToolResult(each, str(number)) for number, each in enumerate(ids)))
    again = answer(ToolCall("functions_f_0", "f", {})), results(ToolResult("functions_f_0", "5"))
    sent, warnings = turns("Hi", calls, given, *again)
    expected = ["functions_f_0", "functions_f_0_2", "_", "__2", "functions_f_0_3"]
    assert expected == [each["id"] for each in sent[1][1]]
    assert [gave(each, str(number)) for number, each in enumerate(expected)] == sent[2][1]
    assert ([gave("functions_f_0_4", "5")], []) == (sent[4][1], warnings)
    sent, _ = turns(
        "Hi", answer(*[CALL] * 3, ToolCall("1_3", "f", {}), ToolCall("1_5", "f", {}), *[CALL] * 2)
    )
    assert ["1", "1_2", "1_3", "1_3_2", "1_5", "1_4", "1_6"] == [each["id"] for each in sent[1][1]]


def test_an_error_of_a_tool_that_says_nothing_is_sent_as_a_word() -> None:
    sent, _ = turns("Hi", answer(CALL), results(ToolResult("1", " ", is_error=True)))
    assert [gave("1", "error", is_error=True)] == sent[2][1]


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "text", "text": 5},
        {"type": "tool_use", "id": "1", "name": "f", "input": 7},
        {"type": "tool_use", "id": 7, "name": "f", "partial_json": "{"},
        {"type": "thinking", "thinking": "Hm.", "signature": 7},
    ],
)
def test_blocks_that_are_not_of_their_form_are_left_out(odd: Json) -> None:
    sent, warnings = turns("Hi", answer("So.", ours(odd)), "Ho")
    assert [t("So.")] == sent[1][1]
    kind = odd["type"]
    refusal = f"anthropic takes no part of anthropic of the kind {kind!r} in a message of the assistant's"
    assert [f"left out of the history: {refusal}"] == warnings


@pytest.mark.parametrize("kind", [None, [], {}, 7])
def test_blocks_without_a_type_are_given_back_as_they_came(kind: object) -> None:
    odd: Json = {"type": kind, "id": [], "tool_use_id": {}}
    body, _ = to_request(
        said(["Hi", answer(Opaque("anthropic", str(kind), odd)), "Ho"]),
        SendOptions(),
        PROFILE,
        model="m",
        max_tokens=9,
    )
    assert [odd] == body["messages"][1]["content"]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("text/plain", "Köln".encode()),
        ("text/plain", b"\xef\xbb\xbfK\xc3\xb6ln"),
        ("text/plain; charset=ISO-8859-1", "Köln".encode("latin-1")),
        ('text/csv; charset="windows-1252"', "Köln".encode("cp1252")),
        ("text/csv", "Köln".encode("utf-16")),
        ("text/csv", "Köln".encode("utf-32")),
        ("text/csv; charset=utf-16", "Köln".encode("utf-16")),
    ],
)
def test_a_text_file_is_read_in_its_charset(kind: str, data: bytes) -> None:
    sent, _ = turns(Message.user([Attachment(kind, data=data), "What?"]))
    assert {"type": "text", "media_type": "text/plain", "data": "Köln"} == sent[0][1][0]["source"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text/plain; name=\ud83d", "it is not utf-8"),
        ("text/plain", "the text file 'a.txt': it is not utf-8; name its charset"),
        ("text/plain; charset=ascii", "it is not ascii"),
        ("text/plain; charset=klingon", "it is not klingon"),
        ("text/plain; charset=base64", "it is not base64"),
    ],
)
def test_a_text_file_of_an_unknown_charset_is_refused(kind: str, words: str) -> None:
    file = Attachment(kind, data="Köln".encode("latin-1"), name="a.txt")
    with pytest.raises(UsageError, match=words):
        request(Message.user([file, "What?"]))
    with pytest.raises(UsageError, match="cannot be sent a text file: it is not"):
        request(Message.user([Attachment(kind, data=b"\xff")]))


def test_a_schema_is_closed_wherever_it_is_open_and_the_programs_own_stays_as_it_is() -> None:
    place = {"type": "object", "properties": {"city": {"type": "string"}}}
    schema = {
        "type": ["object", "null"],
        "properties": {
            "type": place,
            "all": {"type": "array", "items": place},
            "any": {"anyOf": [place, True]},
        },
        "$defs": {"place": place, "free": {"type": "object", "additionalProperties": False}},
        "required": ["type"],
        "definitions": None,
    }
    before = json.dumps(schema)
    closed = {**place, "additionalProperties": False}
    assert {
        **schema,
        "properties": {
            "type": closed,
            "all": {"type": "array", "items": closed},
            "any": {"anyOf": [closed, True]},
        },
        "$defs": {"place": closed, "free": schema["$defs"]["free"]},  # type: ignore[index,call-overload]
        "additionalProperties": False,
    } == request("Hi", response_format={"type": "json_schema", "schema": schema})[0]["output_config"][
        "format"
    ]["schema"]
    assert before == json.dumps(schema)


A: Json = {"properties": {"a": {"type": "string"}}}
B: Json = {"type": "object", "properties": {"b": A}}
CLOSED_A: Json = {**A, "additionalProperties": False}
HALF_CLOSED_B: Json = {"type": "object", "properties": {"b": CLOSED_A}}


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"allOf": [A, B]}, {"allOf": [A, HALF_CLOSED_B]}),
        ({"allOf": [A]}, {"allOf": [CLOSED_A]}),
        ({**A, "allOf": [B]}, {**A, "allOf": [HALF_CLOSED_B]}),
        ({**A, "anyOf": [B, {"allOf": [B]}]}, {**A, "anyOf": [HALF_CLOSED_B, {"allOf": [HALF_CLOSED_B]}]}),
        ({"type": "object", "$ref": "#/$defs/a"}, {"type": "object", "$ref": "#/$defs/a"}),
        ({"properties": {}}, {"properties": {}, "additionalProperties": False}),
        ({"type": "object", "additionalProperties": {}}, {"type": "object", "additionalProperties": {}}),
    ],
)
def test_no_schema_is_closed_to_what_others_say_of_the_same_object(schema: Json, closed: Json) -> None:
    body, _ = to_request(said(["Hi"]), SendOptions(response_format=schema), PROFILE, model="m", max_tokens=9)
    assert closed == body["output_config"]["format"]["schema"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"properties": {"m": {"type": ["object", "null"]}}},
        {"anyOf": [{"type": "object"}]},
    ],
)
def test_a_schema_of_any_object_is_refused_as_the_api_takes_none(schema: Json) -> None:
    with pytest.raises(BadOption, match=r"an object that may hold anything, .* name its properties"):
        request("Hi", response_format=schema)


@pytest.mark.parametrize(
    ("tool", "sent"),
    [
        ({"parameters": {"properties": {}}}, {"input_schema": {"type": "object", "properties": {}}}),
        ({"input_schema": {"properties": {}}}, {"input_schema": {"type": "object", "properties": {}}}),
        ({"type": "custom", "strict": True}, {"strict": True, "input_schema": {"type": "object"}}),
        ({"type": "function", "parameters": {}}, {"input_schema": {"type": "object"}}),
        ({"type": "web_search_20250305"}, {"type": "web_search_20250305"}),
    ],
)
def test_a_tool_may_be_in_the_apis_own_form(tool: Json, sent: Json) -> None:
    assert [{"name": "f", **sent}] == request("Hi", tools=[{"name": "f", **tool}])[0]["tools"]


IDS = st.sampled_from(["1", "2", "a:b", "a_b", ""])
BLOCKS: list[Json] = [SEARCH, FOUND, {**SEARCH, "id": "s2"}]
PARTS = {
    Role.USER: st.builds(Text, st.text(min_size=1))
    | st.builds(Attachment, st.just("image/png"), data=st.binary())
    | st.builds(ToolResult, IDS, st.text(), st.booleans()),
    Role.ASSISTANT: st.builds(Text, st.text(min_size=1))
    | st.builds(ToolCall, IDS, st.text(), st.dictionaries(st.text(), st.integers()))
    | st.builds(Reasoning, st.text(), st.none() | st.text().map(sign))
    | st.sampled_from(BLOCKS).map(ours)
    | st.just(Opaque("else", "x", {"type": "x"}))
    | st.just(UNREAD)
    | st.builds(ToolResult, IDS, st.text(), st.booleans()),
}
MESSAGES = st.sampled_from([Role.USER, Role.ASSISTANT]).flatmap(
    lambda role: st.builds(Message, st.just(role), st.lists(PARTS[role], max_size=4))
)


@given(st.lists(MESSAGES, max_size=8))
@settings(max_examples=100)
def test_whatever_was_said_the_server_takes_it_and_no_word_is_lost(messages: list[Message]) -> None:
    body, _ = request(*messages, "Last.")
    sides = [turn["role"] for turn in body["messages"]]
    assert all(one != other for one, other in pairwise(sides))
    blocks = [block for turn in body["messages"] for block in turn["content"]]
    parts = [part for each in messages for part in each.parts]
    texts = [part.text for part in parts if isinstance(part, Text) and part.text.strip()]
    sent = [each["text"] for each in blocks if each["type"] == "text"]
    assert sent in ([*texts, "Last."], [".", *texts, "Last."])  # Of a dot it warns once only.
    calls = sum(isinstance(part, ToolCall) or part == UNREAD for part in parts)
    assert calls == sum(each["type"] == "tool_use" for each in blocks)
    images = sum(isinstance(part, Attachment) for part in parts)
    assert images == sum(each["type"] == "image" for each in blocks)
