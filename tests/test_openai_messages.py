"""What of a conversation is sent to chat completions, and in which form."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from chatbridge.http import Chunk, structure
from chatbridge.testing.emulator import is_array, is_object
from chatbridge_adapters.openai.fold import AnswerFold
from chatbridge_adapters.openai.messages import (
    HOST_OF_CALLS,
    History,
    to_response_format,
    to_tool_choice,
    to_tools,
)
from chatbridge_adapters.openai.requests import Asked
from openai_kit import Json, said

PNG = b"\x89PNG\r\n"
TOOLS: list[Json] = [{"name": "add"}, {"name": "any"}]


def ordered(
    *messages: Message, reasoning: bool = False, strict: bool = False
) -> tuple[list[Json], list[str]]:
    history = History(reasoning=reasoning, strict=strict)
    for message in messages:
        history.add(message)
    return history.messages(), history.warnings


def sent(*messages: Message, reasoning: bool = False) -> list[Json]:
    return ordered(*messages, reasoning=reasoning)[0]


def warned(*messages: Message) -> list[str]:
    return ordered(*messages)[1]


def calling(*names: str) -> Message:
    """Call tools whose names are the ids of the calls, too."""
    return Message.assistant([ToolCall(name, name, {}) for name in names])


def roles(messages: list[Json]) -> list[str]:
    return [each.get("tool_call_id") or each["role"] for each in messages]


# Who speaks


def test_each_role_has_its_message() -> None:
    assert [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Add"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":"é"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ] == sent(
        Message(Role.SYSTEM, "Be kind."),
        Message.user("Add"),
        Message.assistant([ToolCall("c1", "add", {"a": "é"})]),
        Message(Role.TOOL, [ToolResult("c1", "3")]),
        Message.assistant("It is 3."),
    )


@pytest.mark.parametrize("given", [date(2026, 4, 1), math.nan, "\ud800", [10**5000], {(1,): 2}])
def test_arguments_that_are_no_json_are_refused(given: object) -> None:
    with pytest.raises(UsageError, match=r"the call 'c1': its arguments cannot be written as JSON: \$\.on"):
        sent(Message.user("Add"), Message.assistant([ToolCall("c1", "add", {"on": given})]))


def test_results_come_before_what_the_user_says_with_them() -> None:
    """The API wants them right behind their calls."""
    assert [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "user", "content": "Go on"},
    ] == sent(
        calling("a", "b"), Message.user([ToolResult("a", "1"), "Go on", ToolResult("b", "2", is_error=True)])
    )[1:]


def test_tools_that_ran_on_another_server_are_told_in_order() -> None:
    parts: list[Part | str] = ["Let me see.", ToolCall("a", "look", {}), ToolResult("a", "1"), "It is 1."]
    assert ["assistant", "tool", "assistant"] == [each["role"] for each in sent(Message.assistant(parts))]
    assert "Let me see." == sent(Message.assistant(parts))[0]["content"]


@pytest.mark.parametrize("role", [Role.SYSTEM, Role.USER, Role.ASSISTANT])
def test_what_one_says_twice_in_a_row_is_one_message(role: Role) -> None:
    """As after a question that got no answer; the templates of many models want roles in turn."""
    assert [{"role": role.value, "content": "One\n\nTwo"}] == sent(Message(role, "One"), Message(role, "Two"))


def test_messages_of_different_forms_are_joined_too() -> None:
    picture = Attachment("image/png", url="https://h/x.png")
    shown = {"type": "image_url", "image_url": {"url": "https://h/x.png"}}
    text: Json = {"type": "text", "text": "One"}
    assert [{"role": "user", "content": [text, shown]}] == sent(Message.user("One"), Message.user([picture]))
    assert [{"role": "user", "content": [shown, text]}] == sent(Message.user([picture]), Message.user("One"))
    assert [{"role": "user", "content": "One"}] == sent(Message.user(""), Message.user("One"))
    call = ToolCall("a", "add", {})
    joined, *_ = sent(Message.assistant([call]), Message.assistant(["Hm.", ToolCall("b", "add", {})]))
    assert ("Hm.", ["a", "b"]) == (joined["content"], [each["id"] for each in joined["tool_calls"]])


def test_the_results_of_several_tools_stay_apart() -> None:
    results = [Message(Role.TOOL, [ToolResult(name, "1")]) for name in "ab"]
    assert ["assistant", "a", "b"] == roles(sent(calling("a", "b"), *results))


def test_a_message_that_says_nothing_is_sent_as_such() -> None:
    assert [{"role": "user", "content": ""}] == sent(Message.user([]))
    assert [{"role": "assistant", "content": ""}] == sent(Message.assistant(""))
    assert [] == sent(Message.assistant([]))


# Calls and results


UNREAD = Opaque(
    "openai", "tool_call", {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"k": '}}
)


def test_a_call_that_was_never_answered_gets_a_result_that_says_so() -> None:
    """The API would refuse this message, and each later one."""
    history = [calling("add", "cut"), Message("tool", [ToolResult("cut", "1")]), Message.user("Never mind")]
    messages, warnings = ordered(*history)
    assert ["assistant", "add", "cut", "user"] == roles(messages)
    assert ["not run", "1"] == [each["content"] for each in messages[1:3]]
    assert ["a call of the tool 'add' was never answered; the model is told so"] == warnings
    Asked(fields={"messages": messages})


def test_a_call_that_was_cut_off_is_left_out_unless_something_answered_it() -> None:
    """Its arguments are no JSON, which servers refuse, or cannot read."""
    left_out = "left out of the history: a call of the tool 'add', which nothing answered"
    one, two = Message.user("One"), Message.user("Two")
    assert ([{"role": "user", "content": "One\n\nTwo"}], [left_out]) == ordered(
        one, Message.assistant([UNREAD]), two
    )
    assert ["user", "assistant", "b", "user"] == roles(
        sent(one, Message.assistant([UNREAD, ToolCall("b", "cut", {})]), two)
    )
    answered = [one, Message.assistant(["Hm.", UNREAD]), Message("tool", [ToolResult("x", "bad")]), two]
    messages, warnings = ordered(*answered)
    assert (["user", "assistant", "x", "user"], []) == (roles(messages), warnings)
    assert [UNREAD.data] == messages[1]["tool_calls"]


def test_what_was_added_or_left_out_is_told_with_the_first_answer_after_it_only() -> None:
    history = [Message.user("One"), calling("cut"), Message.user("Two"), Message.assistant(["Hm.", UNREAD])]
    messages, warnings = ordered(*history, Message.user("Three"))
    assert ["left out of the history: a call of the tool 'add', which nothing answered"] == warnings
    more = [{"role": "assistant", "content": "Ah."}, {"role": "user", "content": "Four"}]
    later = ordered(*history, Message.user("Three"), Message.assistant("Ah."), Message.user("Four"))
    assert ([*messages, *more], []) == later


def test_a_result_whose_call_is_not_right_before_it_is_left_out() -> None:
    lost = Message("tool", [ToolResult("a", "1")])
    messages, warnings = ordered(Message.user("One"), lost, Message.user("Two"))
    assert [{"role": "user", "content": "One\n\nTwo"}] == messages
    assert [
        "left out of the history: a result of the call 'a', which was not made right before it"
    ] == warnings


def test_such_a_result_in_the_last_message_is_refused() -> None:
    history = [calling("a"), Message.user("Never mind"), Message.assistant("Fine.")]
    with pytest.raises(
        UsageError, match="openai cannot be sent a result of the call 'a', which was not made"
    ):
        sent(*history, Message("tool", [ToolResult("a", "1")]))


def test_results_stand_behind_their_calls_wherever_the_user_speaks() -> None:
    history = [calling("a", "b"), Message.user("Wait"), Message("tool", [ToolResult("b", "1")])]
    late = Message.user(["Now", ToolResult("a", "2")])
    assert ["assistant", "a", "b", "user"] == roles(sent(*history, late))
    assert "Wait\n\nNow" == sent(*history, late)[-1]["content"]


def test_a_late_result_goes_back_to_its_call() -> None:
    """As of an agent on another server, which spoke between the results: the tool did run."""
    ran = [*calling("a", "b").parts, ToolResult("a", "1"), Text("Hm."), ToolResult("b", "2"), Text("Done.")]
    messages, warnings = ordered(Message.user("Go"), Message.assistant(ran), Message.user("Fine"))
    assert ["user", "assistant", "a", "b", "assistant", "user"] == roles(messages)
    assert ["1", "2", "Hm.\n\nDone."] == [each["content"] for each in messages[2:5]]
    assert [] == warnings


def test_a_late_result_is_that_of_the_nearest_call_before_it() -> None:
    late = [calling("a"), Message.user("Hm."), calling("a"), Message.user("Go on"), Message.assistant("Wait")]
    messages = sent(*late, Message("tool", [ToolResult("a", "1")]), Message.user("Fine"))
    assert ["not run", "1"] == [each["content"] for each in messages if each["role"] == "tool"]


def test_a_call_that_was_told_twice_has_one_result() -> None:
    """As in an answer that came again."""
    messages, warnings = ordered(calling("a"), calling("a"), Message("tool", [ToolResult("a", "1")]))
    assert ["1", "1"] == [each["content"] for each in messages[1:]]
    assert [] == warnings
    other = Message.assistant([ToolCall("a", "cut", {})])
    assert ["1", "not run"] == [
        each["content"] for each in sent(calling("a"), other, Message("tool", [ToolResult("a", "1")]))[1:]
    ]


def test_a_result_in_an_older_message_is_not_that_in_the_last_one() -> None:
    lost = Message("tool", [ToolResult("a", "1")])
    messages, warnings = ordered(lost, Message.user("Go"), calling("a"), lost)
    assert ["user", "assistant", "a"] == roles(messages)
    assert [
        "left out of the history: a result of the call 'a', which was not made right before it"
    ] == warnings


def test_of_two_results_of_a_call_the_later_counts() -> None:
    """As after a message that was sent again."""
    one, two = (Message("tool", [ToolResult("a", content)]) for content in "12")
    assert ["2"] == [each["content"] for each in sent(calling("a"), one, two)[1:]]
    assert ["1", "2"] == [each["content"] for each in sent(calling("a", "a"), one, two)[1:]]


def test_what_a_server_says_of_a_call_goes_back_to_it_but_not_to_openai() -> None:
    """Gemini refuses a call without the signature that it gave; OpenAI refuses what it does not know."""
    beside: Json = {"extra_content": {"google": {"thought_signature": "SIG"}}}
    answer = Message(Role.ASSISTANT, [ToolCall("a", "add", {})], extra={"tool_calls": {"a": beside}})
    (call,) = sent(answer)[0]["tool_calls"]
    assert ("a", beside["extra_content"]) == (call["id"], call["extra_content"])
    assert {"id", "type", "function"} == ordered(answer, strict=True)[0][0]["tool_calls"][0].keys()
    of_gemini = Message(Role.ASSISTANT, answer.parts, extra={**answer.extra, HOST_OF_CALLS: "gemini.test"})
    for host, goes in (("gemini.test", True), ("other.test", False)):
        history = History(host=host)
        history.add(of_gemini)
        assert goes is ("extra_content" in history.messages()[0]["tool_calls"][0])
    odd = Message(Role.ASSISTANT, [ToolCall("a", "add", {})], extra={"tool_calls": [1], HOST_OF_CALLS: [1]})
    assert {"id", "type", "function"} == sent(odd)[0]["tool_calls"][0].keys()


spoken = st.sampled_from(["user", "system", "text", "a", "b", "ab", "unread", "=a", "=b", "=x", "=ab"])


def one_of(kind: str) -> Message:
    if kind in {"user", "system"}:
        return Message(Role(kind), kind)
    if kind.startswith("="):
        return Message("tool", [ToolResult(each, "1") for each in kind[1:]])
    return {"text": Message.assistant("text"), "unread": Message.assistant([UNREAD])}.get(kind) or calling(
        *kind
    )


@given(st.lists(spoken, max_size=10))
def test_whatever_was_said_the_history_is_in_an_order_that_the_api_takes(kinds: list[str]) -> None:
    messages = sent(*map(one_of, kinds), Message.user("Go on"))
    Asked(fields={"messages": messages})
    assert messages[-1]["content"].endswith("Go on")
    waiting: list[object] = []
    for message in messages:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
        else:
            assert [] == waiting
            waiting = [call["id"] for call in message.get("tool_calls", ())]
    assert all(one != other or one == "tool" for one, other in pairwise(each["role"] for each in messages))


def test_much_that_is_said_in_a_row_costs_no_more_than_its_length() -> None:
    joined = 0

    class Counted(str):
        __slots__ = ()

        def __add__(self, other: str) -> str:
            nonlocal joined
            joined += 1
            return Counted(str(self) + other)

    sent(*(Message.user(Counted("y")) for _ in range(50)))
    assert 0 == joined


# Attachments


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            Attachment("image/png", PNG),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
        ),
        (
            Attachment("image/*", url="https://h/x"),
            {"type": "image_url", "image_url": {"url": "https://h/x"}},
        ),
        (
            Attachment("audio/wav", b"RIFF"),
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        ),
        (
            Attachment("audio/mpeg", url="data:audio/mpeg;base64,UklGRg=="),
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "mp3"}},
        ),
        (
            Attachment("application/pdf", b"%PDF", name="a.pdf"),
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
            },
        ),
        (
            Attachment("application/pdf", url="data:application/pdf;base64,JVBERg=="),
            {
                "type": "file",
                "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
            },
        ),
        (
            Attachment("x/nobody-knows", b""),
            {"type": "file", "file": {"filename": "file", "file_data": "data:x/nobody-knows;base64,"}},
        ),
        (
            Attachment("IMAGE/PNG", PNG),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
        ),
        (
            Attachment("audio/WAV; codecs=1", url="DATA:audio/wav,%52IFF"),
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        ),
        (
            Attachment("text/plain; charset=utf-8", b"Hi", name="a.txt"),
            {
                "type": "file",
                "file": {"filename": "a.txt", "file_data": "data:text/plain;charset=utf-8;base64,SGk="},
            },
        ),
    ],
)
def test_an_attachment_has_the_form_of_its_kind(part: Attachment, expected: Json) -> None:
    message = Message.user(["Look", part])
    assert [{"role": "user", "content": [{"type": "text", "text": "Look"}, expected]}] == sent(message)
    Asked(fields={"messages": sent(message)})


@pytest.mark.parametrize("media_type", ["application/pdf", "audio/wav"])
def test_a_file_elsewhere_cannot_be_sent(media_type: str) -> None:
    with pytest.raises(UsageError, match=f"{media_type} as data only") as caught:
        sent(Message.user([Attachment(media_type, url="https://h/x")]))
    assert "openai" == caught.value.provider


# What stays behind


@pytest.mark.parametrize(
    ("role", "part"),
    [
        (Role.SYSTEM, Attachment("image/png", PNG)),
        (Role.SYSTEM, ToolCall("a", "add", {})),
        (Role.USER, ToolCall("a", "add", {})),
        (Role.USER, Reasoning("Hm.")),
        (Role.TOOL, Text("3")),
        (Role.ASSISTANT, Attachment("image/png", PNG)),
    ],
)
def test_what_the_api_does_not_take_from_who_speaks_is_refused(role: Role, part: Part) -> None:
    with pytest.raises(UsageError, match=f"openai cannot be sent the part {type(part).__name__}"):
        sent(Message(role, [part]))


def test_what_is_opaque_goes_back_to_its_origin_only() -> None:
    ours, call = Opaque("openai", "thinking", {"type": "thinking"}), {"id": "a", "custom": {"name": "sql"}}
    parts: list[Part | str] = [
        ours,
        "Hi",
        Opaque("openai", "tool_call", call),
        Opaque("acme", "map", {"secret": 1}),
    ]
    assert [
        {
            "role": "assistant",
            "content": [{"type": "thinking"}, {"type": "text", "text": "Hi"}],
            "tool_calls": [call],
        }
    ] == sent(Message.assistant(parts), Message("tool", [ToolResult("a", "1")]))[:1]
    warning = "a part of the kind 'map' was left out: it can be given back to acme only"
    assert [warning] == warned(*2 * [Message.assistant(parts[1::2])])
    assert [{"role": "user", "content": [{"type": "thinking"}]}] == sent(Message.user([ours]))


@pytest.mark.parametrize("data", [7, None, "text", [1]])
def test_what_came_and_is_no_part_is_left_out_with_a_warning(data: object) -> None:
    answer = Message.assistant(["Hi", Opaque("openai", "content", data)])
    assert [{"role": "assistant", "content": "Hi"}] == sent(answer)
    assert ["a part of the kind 'content' was left out: no server takes such a one"] == warned(answer)


def test_a_text_that_is_none_is_given_back_as_it_came() -> None:
    part = {"type": "text", "text": 7}
    assert [{"role": "assistant", "content": [part]}] == sent(
        Message.assistant([Opaque("openai", "text", part)])
    )


def test_a_message_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing of the user's message is left: a part of the kind 'map'"):
        sent(Message.user([Opaque("acme", "map", {})]))
    assert [] == sent(Message.assistant([Opaque("acme", "map", {})]))


@pytest.mark.parametrize("signature", [None, "anthropic:abc", "openai", "EqQB"])
def test_reasoning_of_another_is_never_given_back(signature: str | None) -> None:
    message = Message.assistant([Reasoning("Hm.", signature), "Hi"])
    assert [{"role": "assistant", "content": "Hi"}] == sent(message, reasoning=True)


def test_reasoning_goes_back_in_the_field_that_it_came_in() -> None:
    thoughts = [Reasoning("One. ", "openai:reasoning"), Reasoning("Two.", "openai:reasoning")]
    shown, _ = sent(Message.assistant([*thoughts, ToolCall("a", "add", {})]), reasoning=True)
    assert (None, "One. Two.") == (shown["content"], shown["reasoning"])
    assert [{"role": "assistant", "content": "", "reasoning": "Hm."}] == sent(
        Message.assistant([Reasoning("Hm.", "openai:reasoning")]), reasoning=True
    )
    assert [] == sent(Message.assistant([Reasoning("Hm.", "openai:reasoning")]))
    twice = 2 * [Message.assistant([Reasoning("Hm.", "openai:reasoning"), "Hi"])]
    assert [{"role": "assistant", "content": "Hi\n\nHi", "reasoning": "Hm.\n\nHm."}] == sent(
        *twice, reasoning=True
    )


def test_reasoning_that_was_a_part_of_the_content_goes_back_as_one() -> None:
    message = Message.assistant([Reasoning("Hm.", "openai:thinking"), "Hi"])
    thinking: Json = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    text: Json = {"type": "text", "text": "Hi"}
    assert [{"role": "assistant", "content": [thinking, text]}] == sent(message, reasoning=True)
    assert [{"role": "assistant", "content": "Hi"}] == sent(message)


# Tools, and the form of the answer


def test_a_tool_goes_as_it_is() -> None:
    tool = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}, "strict": True}
    assert [{"type": "function", "function": tool}] == to_tools([tool])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("add", {"type": "function", "function": {"name": "add"}}),
        ("any", {"type": "function", "function": {"name": "any"}}),
    ],
)
def test_a_choice_is_a_word_or_a_tool(choice: str, expected: object) -> None:
    assert expected == to_tool_choice(choice, TOOLS)
    assert "required" == to_tool_choice("any", TOOLS[:1])


def test_another_choice_is_refused() -> None:
    with pytest.raises(BadOption, match=r"'tool_choice' = 'ad' is none of .* on offer \(add, any\)"):
        to_tool_choice("ad", TOOLS)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}},
        {"type": "structural_tag", "format": {}},
    ],
)
def test_the_apis_own_form_of_an_answer_stays_as_it_is(form: Json) -> None:
    assert form == to_response_format(form)


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"type": "object"}, "answer"),
        ({"type": ["object", "null"], "title": "A title"}, "A_title"),
        ({"anyOf": [], "title": "x" * 99}, "x" * 64),
        ({"$ref": "#/x", "title": ""}, "answer"),
    ],
)
def test_a_json_schema_is_wrapped(schema: Json, name: str) -> None:
    expected = {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
    assert expected == to_response_format(schema)


# Both ways

names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
values = st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda v: st.lists(v, max_size=3))
calls = st.builds(ToolCall, names, names, st.dictionaries(texts, values, max_size=3))
answers = st.tuples(
    st.lists(texts.map(Text), max_size=1), st.lists(calls, max_size=3, unique_by=lambda c: c.id)
)


@given(answers)
def test_an_answer_that_is_sent_back_is_the_one_that_came(answer: tuple[list[Text], list[ToolCall]]) -> None:
    """What goes out in a history is in the form in which it comes in."""
    parts: tuple[Part, ...] = (*answer[0], *answer[1])
    if not parts:
        return
    message = sent(Message.assistant(parts))[0]
    fold = AnswerFold()
    fold.take(structure(json.loads(json.dumps(said(**message))), Chunk), whole=True)
    fold.finish()
    assert parts == fold.reply().message.parts


speakers = st.sampled_from([Role.SYSTEM, Role.USER, Role.ASSISTANT])
turns = st.lists(st.tuples(speakers, texts), min_size=1, max_size=8)


@given(turns)
def test_nothing_that_is_said_gets_lost_and_nobody_speaks_twice_in_a_row(
    said: list[tuple[Role, str]],
) -> None:
    shown = sent(*(Message(role, text) for role, text in said))
    assert all(one != other for one, other in pairwise(each["role"] for each in shown))
    assert "\n\n".join(text for _, text in said) == "\n\n".join(each["content"] for each in shown)
    Asked(fields={"messages": shown})


@given(st.binary(), st.sampled_from(["image/png", "application/pdf", "audio/wav"]))
def test_data_is_sent_whole(data: bytes, media_type: str) -> None:
    (message,) = sent(Message.user([Attachment(media_type, data)]))
    assert b64encode(data).decode() in [text.rpartition(",")[2] for text in texts_in(message)]


def texts_in(value: object) -> list[str]:
    if is_object(value):
        return [text for each in value.values() for text in texts_in(each)]
    if is_array(value):
        return [text for each in value for text in texts_in(each)]
    return [str(value)]


def test_options_of_a_message_stay_as_they_were() -> None:
    """Nothing that was given is changed on the way."""
    history = [Message.user(["Hi", Opaque("openai", "x", {"a": [1]})]), Message.user("Again")]
    before = repr((history, SendOptions(tools=TOOLS)))
    sent(*history)
    to_tools(TOOLS)
    assert before == repr((history, SendOptions(tools=TOOLS)))
