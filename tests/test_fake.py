"""The fake backend: every feature, the same answers each time."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from chatbridge import (
    Attachment,
    BadOption,
    Bridge,
    ChatbridgeError,
    ConfigError,
    Feature,
    Finished,
    FinishReason,
    Message,
    NotFound,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    RequestRefused,
    Role,
    SendOptions,
    Support,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UsageError,
    connect,
)
from chatbridge.backend import ContextOwner
from chatbridge.testing.fake import ADAPTER, FakeBackend, FakeOptions, profile

JUMP = {
    "name": "jump",
    "parameters": {
        "type": "object",
        "properties": {"over": {"type": "string"}, "metres": {"type": "integer"}},
    },
}
RESULT = ToolResult("c1", "2 metres")


@pytest.fixture
def bridge() -> Bridge:
    return connect("fake:")


def test_every_feature_is_native() -> None:
    bridge = connect("fake:")

    assert {Support.NATIVE} == {bridge.profile.support(feature) for feature in Feature}
    assert FakeBackend().profile == profile() == bridge.profile == ADAPTER.profile(FakeOptions())
    assert ContextOwner.SERVER is bridge.profile.context


async def conversation_of(bridge: Bridge) -> list[object]:
    chat = await bridge.create(title="Kyoto", history=[Message.user("Hi"), Message.assistant("Hello")])
    first = await chat.send(Message("user", "one", id="a"), include="references")
    async with chat.stream(Message("user", "two", id="b")) as stream:
        events = [event async for event in stream]
    renamed = await chat.rename("Nara")
    return [first, *events, renamed, *[message async for message in chat.messages()]]


async def test_two_bridges_say_the_same_and_know_nothing_of_each_other() -> None:
    one, other = connect("fake:"), connect("fake:")

    said = await conversation_of(one)
    assert [] == [conversation async for conversation in other.conversations()]
    assert said == await conversation_of(other)


async def test_it_sees_the_turns_before(bridge: Bridge) -> None:
    chat = await bridge.create()

    assert "Turn 1: you said 'one'." == (await chat.send("one")).text
    assert "Turn 2: you said 'two'. Before that you said 'one'." == (await chat.send("two")).text


async def test_a_seeded_history_counts(bridge: Bridge) -> None:
    seed = [Message.assistant("Welcome"), Message.user("one"), Message.assistant("Yes?")]
    chat = await bridge.create(history=seed)

    assert "Turn 2: you said 'two'. Before that you said 'one'." == (await chat.send("two")).text
    history = [message async for message in chat.messages()]
    assert all(mine.same_content(kept) for mine, kept in zip(seed, history, strict=False))
    assert 5 == len({message.id for message in history})


async def test_time_begins_in_2025_and_moves_on(bridge: Bridge) -> None:
    chat = await bridge.create()
    assert datetime(2025, 1, 1, tzinfo=UTC) == chat.conversation.created_at
    await chat.send("Hi")

    times = [message.created_at async for message in chat.messages()]
    after = (await chat.refresh()).updated_at
    assert len({*times, after, chat.conversation.created_at}) == 4


async def test_the_conversation_that_changed_last_comes_first(bridge: Bridge) -> None:
    first, second = await bridge.create(title="first"), await bridge.create(title="second")
    assert ["second", "first"] == [each.title async for each in bridge.conversations()]
    await first.send("Hi")
    assert ["first", "second"] == [each.title async for each in bridge.conversations()]
    await second.rename("third")
    assert ["third", "first"] == [each.title async for each in bridge.conversations()]


async def test_an_answer_belongs_to_its_message(bridge: Bridge) -> None:
    reply = await (await bridge.create()).send(Message("user", "Hi there", id="a"))

    assert ("a", "fake-model", FinishReason.STOP) == (
        reply.message.reply_to,
        reply.model,
        reply.finish_reason,
    )
    assert Usage(2, 6) == reply.usage
    assert () == reply.message.references


async def test_references_come_where_they_are_asked_for(bridge: Bridge) -> None:
    reply = await (await bridge.create()).send("Hi", include="references")

    assert ["fake-document"] == [reference.document_id for reference in reply.message.references]


@pytest.mark.parametrize("url", ["fake:parrot?reply=Squawk", "fake:?model=parrot&reply=Squawk"])
async def test_it_says_and_is_what_it_is_told(url: str) -> None:
    chat = await connect(url).create()
    reply = await chat.send("Hi")

    assert ("parrot", "Squawk") == (reply.model, reply.text)
    assert "crow" == (await chat.send("Hi", model="crow")).model


async def test_it_stops_before_a_stop(bridge: Bridge) -> None:
    chat = await bridge.create()

    assert "Turn 1" == (await chat.send("Hi", stop=(":", "", "never"))).text


@pytest.mark.parametrize(
    ("most", "text", "reason"),
    [
        (0, "", FinishReason.LENGTH),
        (2, "Turn 1:", FinishReason.LENGTH),
        (5, "Turn 1: you said 'Hi'.", FinishReason.STOP),
    ],
)
async def test_it_says_no_more_than_it_may(
    bridge: Bridge, most: int, text: str, reason: FinishReason
) -> None:
    chat = await bridge.create()
    async with chat.stream("Hi", max_output_tokens=most) as stream:
        pieces = [piece async for piece in stream.text()]

    assert text == "".join(pieces) == stream.reply.text
    assert reason is stream.reply.finish_reason


async def test_it_counts_what_is_attached(bridge: Bridge) -> None:
    picture = Attachment("image/png", data=b"png")
    reply = await (await bridge.create()).send(Message.user(["Look", picture, picture]))

    assert "Turn 1: you said 'Look'. Attached: 2." == reply.text


async def test_it_reasons_where_it_is_asked_to(bridge: Bridge) -> None:
    chat = await bridge.create()
    async with chat.stream("Hi", extra={"reasoning": True}) as stream:
        events = [event async for event in stream]

    assert ReasoningDelta("I was asked 'Hi'.", 0) in events
    assert (Reasoning("I was asked 'Hi'."), Text("Turn 1: you said 'Hi'.")) == stream.reply.message.parts


async def test_it_calls_the_tool_that_is_named(bridge: Bridge) -> None:
    chat = await bridge.create()
    tools = ({"name": "look"}, JUMP)
    async with chat.stream("please jump", tools=tools) as stream:
        events = [event async for event in stream]

    (call,) = stream.reply.message.parts
    assert isinstance(call, ToolCall)
    assert ("jump", {"over": "please jump", "metres": 1}) == (call.name, call.arguments)
    assert [PartAdded(call, 0), Finished(stream.reply)] == events[1:]
    assert FinishReason.TOOL_CALLS is stream.reply.finish_reason
    assert "Turn 2" in (await chat.send("sit", tools=tools)).text


LOOK = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}


@pytest.mark.parametrize("url", ["fake:", "fake:?keeps=nothing", "fake:?profile=openai"])
@pytest.mark.parametrize(
    ("said", "choice", "called"),
    [
        ("please jump", "auto", ["jump"]),
        ("please jump", "none", []),
        ("please jump", "look", ["look"]),
        ("please jump", "required", ["jump"]),
        ("Hi", "auto", []),
        ("Hi", "required", ["look"]),
        ("Hi", "any", ["look"]),
        ("Hi", "jump", ["jump"]),
    ],
)
async def test_it_calls_the_tool_that_is_chosen(url: str, said: str, choice: str, called: list[str]) -> None:
    async with connect(url) as bridge:
        reply = await (await bridge.create()).send(said, tools=[LOOK, JUMP], tool_choice=choice)
    assert called == [part.name for part in reply.message.parts if isinstance(part, ToolCall)]
    assert called or "Turn 1" in reply.text


async def test_a_call_that_is_demanded_may_follow_what_a_tool_gave() -> None:
    async with connect("fake:?keeps=nothing") as bridge:
        chat, options = await bridge.create(), SendOptions(tools=[LOOK], tool_choice="required")
        (call,) = (await chat.send("Hi", options)).message.parts
        assert isinstance(call, ToolCall)
        (again,) = (await chat.send(Message(Role.TOOL, [ToolResult(call.id, "fog")]), options)).message.parts
    assert isinstance(again, ToolCall)
    assert {"at": "fog"} == again.arguments


TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "evergreen": {"type": "boolean"}},
    "required": ["name", "evergreen"],
}
WRAPPED = {"type": "json_schema", "json_schema": {"name": "tree", "schema": TREE}}


@pytest.mark.parametrize("url", ["fake:", "fake:?keeps=nothing", "fake:?profile=anthropic"])
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (TREE, {"name": "Turn 1: you said 'Hi'.", "evergreen": True}),
        (WRAPPED, {"name": "Turn 1: you said 'Hi'.", "evergreen": True}),
        ({"type": "json_schema", "schema": TREE}, {"name": "Turn 1: you said 'Hi'.", "evergreen": True}),
        ({"type": "array", "items": {"type": "integer"}}, [1]),
        ({"type": "json_object"}, {"answer": "Turn 1: you said 'Hi'."}),
        ({}, "Turn 1: you said 'Hi'."),
    ],
)
async def test_it_answers_in_the_form_that_is_asked_for(
    url: str, form: dict[str, Any], expected: object
) -> None:
    async with connect(url) as bridge:
        chat = await bridge.create()
        async with chat.stream("Hi", response_format=form) as stream:
            text = "".join([piece async for piece in stream.text()])
    assert (text, expected) == (stream.reply.text, json.loads(text))


@pytest.mark.parametrize("form", [{"type": "text"}, None])
async def test_an_answer_in_no_form_is_a_text(bridge: Bridge, form: dict[str, Any] | None) -> None:
    reply = await (await bridge.create()).send("Hi", response_format=form)
    assert "Turn 1: you said 'Hi'." == reply.text


async def test_answers_that_are_given_to_it_stay_as_they_are() -> None:
    async with FakeBackend(reply="Hello").bridge() as bridge:
        chat = await bridge.create()
        for options in (
            SendOptions(response_format=TREE),
            SendOptions(tools=[JUMP], tool_choice="required"),
        ):
            assert "Hello" == (await chat.send("Hi", options)).text
        assert "Hello" == (await chat.send("please jump", tools=[JUMP], tool_choice="none")).text


@pytest.mark.parametrize("keeps", ["conversations", "nothing"])
async def test_it_answers_what_a_tool_gave(keeps: str) -> None:
    fake = FakeBackend(keeps=keeps, answers={"2 metres": "How high!", "And?": "No more."})
    async with fake.bridge() as bridge:
        chat = await bridge.create()
        for turn in range(2):
            called = await chat.send("please jump", tools=[JUMP])
            (call,) = called.message.parts
            assert isinstance(call, ToolCall)
            results = Message(Role.TOOL, [ToolResult(call.id, "2 metres")])
            if turn:
                async with chat.stream(results, tools=[JUMP]) as stream:
                    _ = [event async for event in stream]
                reply = stream.reply
            else:
                reply = await chat.send(results, tools=[JUMP])
            assert "How high!" == reply.text
        assert "No more." == (await chat.send("And?")).text
        roles = [message.role async for message in chat.messages()]

    turns = [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]
    assert [*turns, *turns, Role.USER, Role.ASSISTANT] == roles
    fake.assert_sent("2 metres", times=2)


async def test_what_a_tool_gave_is_found_after_a_failure() -> None:
    fake = FakeBackend(answers={"2 metres": "How high!", "And?": "No more."})
    async with fake.bridge() as bridge:
        chat = await bridge.create()
        for _ in range(2):
            (call,) = (await chat.send("please jump", tools=[JUMP])).message.parts
            assert isinstance(call, ToolCall)
            fake.fail("lost")
            reply = await chat.send(Message(Role.TOOL, [ToolResult(call.id, "2 metres")]))
            assert (True, "How high!") == (reply.recovered, reply.text)
        fake.fail("lost")
        assert "No more." == (await chat.send("And?")).text


async def test_a_result_that_nothing_called_for_is_refused() -> None:
    async with FakeBackend().bridge() as bridge:
        chat = await bridge.create()
        with pytest.raises(RequestRefused, match="a result of the call 'c1', and no such call"):
            await chat.send(Message(Role.TOOL, [RESULT]))


async def test_where_nothing_is_kept_a_result_answers_a_call_made_right_before_it() -> None:
    problem = r"^fake cannot be sent a result of the call '.*', which was not made right before it"
    fake = FakeBackend(keeps="nothing")
    async with fake.bridge() as bridge:
        chat = await bridge.create()
        with pytest.raises(UsageError, match=problem):
            await chat.send(Message(Role.TOOL, [RESULT]))
        (call,) = (await chat.send("please jump", tools=[JUMP])).message.parts
        assert isinstance(call, ToolCall)
        reply = await chat.send("Or not")
        assert ("a call of the tool 'jump' was never answered; the model is told so",) == reply.warnings
        with pytest.raises(UsageError, match=problem):
            await chat.send(Message(Role.TOOL, [ToolResult(call.id, "2 metres")]))
        assert () == (await chat.send("Hi")).warnings
    assert ("please jump", "Or not", "Hi") == fake.sent


async def test_where_nothing_is_kept_a_call_takes_one_result() -> None:
    fake = FakeBackend(keeps="nothing", answers={"1 metre": "So low!"})
    async with fake.bridge() as bridge:
        chat = await bridge.create()
        (call,) = (await chat.send("please jump", tools=[JUMP])).message.parts
        assert isinstance(call, ToolCall)
        results = [ToolResult(call.id, height) for height in ("1 metre", "2 metres")]
        with pytest.raises(UsageError, match=r"a result of the call '.*', which has a result already$"):
            await chat.send(Message(Role.TOOL, results))
        assert "So low!" == (await chat.send(Message(Role.TOOL, results[:1]))).text
    assert ("please jump", "1 metre") == fake.sent


async def test_where_nothing_is_kept_a_seeded_result_without_its_call_is_left_out() -> None:
    seed = [
        Message.user("Hi"),
        Message.assistant("Yes?"),
        Message(Role.TOOL, [RESULT]),
        Message.assistant("So"),
    ]
    async with FakeBackend(keeps="nothing").bridge() as bridge:
        reply = await (await bridge.create(history=seed)).send("And?")
    left_out = f"a result of the call {RESULT.call_id!r}, which was not made right before it"
    assert (f"left out of the history: {left_out}",) == reply.warnings


@pytest.mark.parametrize("url", ["fake:", "fake:?keeps=nothing", "fake:?profile=anthropic"])
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tools": [{"nome": "x"}]}, "takes mappings with name, description and parameters"),
        ({"tools": [{"type": "function", "function": JUMP}]}, "give what is under 'function'"),
        (
            {"tools": [JUMP], "tool_choice": "jmp"},
            "is none of auto, none, required, any, and no tool on offer",
        ),
    ],
)
async def test_tools_that_cannot_be_called_are_refused(
    url: str, options: dict[str, Any], problem: str
) -> None:
    async with connect(url) as bridge:
        with pytest.raises(BadOption, match=problem):
            await (await bridge.create()).send("Hi", **options)


@pytest.mark.parametrize("message", [Message(Role.TOOL, [RESULT]), Message.user([RESULT])])
async def test_one_like_an_api_that_takes_no_results_takes_none(message: Message) -> None:
    async with FakeBackend(profile="tachyon").bridge() as bridge:
        (call,) = (await (chat := await bridge.create()).send("please jump", tools=[JUMP])).message.parts
        assert isinstance(call, ToolCall)
        with pytest.raises(UsageError, match=r"^tachyon takes "):
            await chat.send(message)
    async with FakeBackend(profile="kaziro").bridge() as bridge:
        with pytest.raises(ChatbridgeError, match=r"of the user only|tools"):
            await (await bridge.create()).send(message)


async def test_a_model_reads_all_that_was_said_each_time() -> None:
    for keeps in ("conversations", "nothing"):
        async with FakeBackend(keeps=keeps, reply="Hi there").bridge() as bridge:
            chat = await bridge.create()
            usages = [(await chat.send(text)).usage for text in ("one", "two three")]
            (call,) = (await chat.send("jump", tools=[{"name": "jump"}])).message.parts
            assert isinstance(call, ToolCall)
            usages.append((await chat.send(Message(Role.TOOL, [ToolResult(call.id, "2 metres")]))).usage)
        assert [Usage(1, 2), Usage(5, 2), Usage(12, 2)] == usages


async def test_options_are_given_by_their_names() -> None:
    fake = FakeBackend(FakeOptions(reply="No.", delay=2.0), keeps="nothing", delay="1", window=2)
    async with fake.bridge() as bridge:
        chat = await bridge.create()
        assert "No." == (await chat.send("one")).text
        with pytest.raises(RequestRefused, match="takes 2 words"):
            await chat.send("two")
    assert 1 == fake.options.delay


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"answer": "Hi"}, "option 'answer' is unknown"),
        ({"keeps": "all"}, "is not one of conversations, nothing"),
        ({"keeps": "nothing", "window": 0}, "must be >= 1"),
        ({"keeps": "nothing", "profile": "kaziro"}, "profile and keeps"),
        ({"keeps": "nothing", "options": FakeOptions(profile="kaziro")}, "profile and keeps"),
    ],
)
def test_what_is_no_option_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        FakeBackend(**given)


@pytest.mark.parametrize("role", [Role.ASSISTANT, Role.SYSTEM])
async def test_it_listens_to_the_user_only(bridge: Bridge, role: Role) -> None:
    chat = await bridge.create()

    with pytest.raises(UsageError, match=f"not of the {role}"):
        await chat.send(Message(role, "Hi"))
    with pytest.raises(UsageError, match="results of tools and nothing else"):
        await chat.send(Message(Role.TOOL, "Hi"))
    assert [] == [message async for message in chat.messages()]


async def test_it_refuses_options_that_it_does_not_know(bridge: Bridge) -> None:
    chat = await bridge.create()

    with pytest.raises(BadOption, match="reasonning"):
        await chat.send("Hi", extra={"reasonning": True})
    with pytest.raises(BadOption, match="colour"):
        await bridge.create(extra={"colour": "red"})
    assert 1 == len([conversation async for conversation in bridge.conversations()])


async def test_what_was_deleted_is_gone(bridge: Bridge) -> None:
    chat = await bridge.create()
    await chat.delete()

    with pytest.raises(NotFound, match="fake has no conversation 'conversation-1'"):
        await chat.refresh()
    with pytest.raises(NotFound):
        _ = [message async for message in chat.messages()]


async def test_a_history_that_is_being_read_does_not_change(bridge: Bridge) -> None:
    chat = await bridge.create(history=[Message.user("one"), Message.assistant("two")])
    texts: list[str] = []
    async for message in chat.messages():
        texts.append(message.text)
        await chat.send("more")

    assert ["one", "two"] == texts


async def test_a_test_can_look_after_the_end(bridge: Bridge) -> None:
    async with bridge:
        chat = await bridge.create(title="Kyoto")

    assert "Kyoto" == (await bridge.backend.get_conversation(chat.id)).title


SENDS: list[Callable[[Bridge, str], Awaitable[object]]] = [
    lambda bridge, text: bridge.create(title=text),
    lambda bridge, text: bridge.create(system=text),
    lambda bridge, text: bridge.create(history=[Message.user(text)]),
    lambda bridge, text: bridge.open("conversation-1").rename(text),
    lambda bridge, text: bridge.open("conversation-1").send(text),
    lambda bridge, text: bridge.open("conversation-1").send("Hi", system=text),
    lambda bridge, text: bridge.open("conversation-1").send("Hi", tools=[{"name": text}]),
]


@pytest.mark.parametrize("send", SENDS)
async def test_it_refuses_text_that_no_api_could_be_sent(
    bridge: Bridge, send: Callable[[Bridge, str], Awaitable[object]]
) -> None:
    chat = await bridge.create()
    with pytest.raises(UsageError, match=r"half (a character|of a surrogate pair)"):
        await send(bridge, "\ud800")

    assert [] == [message async for message in chat.messages()]
    await send(bridge, "\U0001f363")


async def test_it_keeps_its_system_prompt(bridge: Bridge) -> None:
    chat = await bridge.create(system="Be brief.")

    assert "Be brief." == (await chat.refresh()).system


def test_it_says_which_options_change_nothing() -> None:
    (note,) = [note for note in profile().notes if "change nothing" in note]

    for name in ("temperature", "top_p", "seed"):
        assert name in note


async def test_its_answer_may_be_empty() -> None:
    chat = await connect("fake:?reply=").create()

    assert "" == (await chat.send("Hi")).text
