"""The fake as bot authors use it: what it answers, how it fails, what it tells afterwards."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from chatbridge import (
    AnswerLost,
    AuthFailed,
    BadOption,
    Bridge,
    Chat,
    ChatbridgeError,
    ConfigError,
    DeliveryUnknown,
    Feature,
    Finished,
    Message,
    NotFound,
    ProviderFailed,
    RateLimited,
    SendOptions,
    StreamCut,
    TextDelta,
    TurnState,
    UnsupportedFeature,
    UsageError,
    connect,
)
from chatbridge.backend import ContextOwner, Profile, SettleBy, Stores, Support
from chatbridge.errors import DeliveryUnknownTimeout, Unavailable
from chatbridge.observe import AttemptEvent
from chatbridge.options import CommonOptions
from chatbridge.registry import InProcess
from chatbridge.testing.answers import NoAnswer, as_answers, echo
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.dialogue import Dialogue
from chatbridge.testing.fake import ADAPTER, FakeBackend, FakeOptions, Fault
from chatbridge.testing.line import FakeCall
from doubles import turns_of_the_loop

GREETING = """\
> hello
< Hi!
> /my name is (\\w+)/
< Hello, \\1.
> sing
<| La | la | la
"""


@pytest.fixture
def fake() -> FakeBackend:
    return FakeBackend(FakeOptions(settle_timeout=0))


@pytest.fixture
async def chat(fake: FakeBackend) -> Chat:
    chat = await fake.bridge().create()
    vars(fake)["_line"].calls.clear()  # What the tests look at begins here.
    return chat


async def pieces_of(chat: Chat, text: str) -> list[str]:
    async with chat.stream(text) as stream:
        return [event.text async for event in stream if isinstance(event, TextDelta)]


async def read(chat: Chat, text: str) -> None:
    async with chat.stream(text) as stream:
        async for _ in stream:
            pass


# ----------------------------------------------------------------------------- answers


async def said(answers: Any, *texts: str) -> list[str]:
    fake = FakeBackend(answers=answers)
    chat = fake.bridge().open(fake.add().id)
    return [(await chat.send(text)).text for text in texts]


async def test_it_says_one_thing_or_a_list_or_the_same_again() -> None:
    assert ["Yes.", "Yes."] == await said("Yes.", "one", "two")
    assert ["Yes.", "No."] == await said(["Yes.", ["N", "o."]], "one", "two")
    assert ["one", "two"] == await said(echo, "one", "two")


async def test_a_list_that_is_at_its_end_says_so() -> None:
    with pytest.raises(NoAnswer, match="was given 1 answers, and has none left for 'two'"):
        await said(["Yes."], "one", "two")


async def test_a_script_answers_what_is_heard() -> None:
    script = {
        "hello": "Hi!",
        re.compile(r"my name is (\w+)"): r"Hello, \1.",
        str.isupper: "Do not shout.",
        re.compile("."): "What?",
    }
    assert ["Hi!", "Hello, Ada.", "Do not shout.", "What?"] == await said(
        script, "hello", "well, my name is Ada", "HELLO", "bye"
    )


async def test_a_script_without_an_answer_says_what_it_knows() -> None:
    with pytest.raises(NoAnswer, match=r"no answer to 'bye'; it answers 'hello', /\^H/, isupper"):
        await said({"hello": "Hi!", re.compile("^H"): "Ho!", str.isupper: "No."}, "bye")


async def test_a_function_sees_the_whole_conversation() -> None:
    def count(messages: Sequence[Message]) -> str:
        return " ".join(message.text for message in messages)

    assert ["one", "one one two"] == await said(count, "one", "two")


async def test_pieces_that_are_chosen_are_streamed_so() -> None:
    fake = FakeBackend(answers=[["On", "ce upon ", "a time"], ["all at once"], "word by word"])
    chat = fake.bridge().open(fake.add().id)

    assert ["On", "ce upon ", "a time"] == await pieces_of(chat, "one")
    assert ["all", " at", " once"] == await pieces_of(chat, "two")
    assert ["word", " by", " word"] == await pieces_of(chat, "three")


async def test_a_dialogue_is_a_script(tmp_path: Path) -> None:
    file = tmp_path / "greeting.dialogue"
    file.write_text(GREETING, encoding="utf-8")
    async with connect("fake:", script=str(file)) as bridge:
        chat = await bridge.create()
        assert ["Hi!", "Hello, Ada."] == [(await chat.send(t)).text for t in ("hello", "my name is Ada")]
        assert ["La", " la", " la"] == await pieces_of(chat, "sing")
    assert ["Hi!"] == await said(Dialogue.parse(GREETING).cues(), "hello")


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(
        UsageError, match="answers are a text, a sequence, a mapping or a function, not a int"
    ):
        as_answers(3)  # type: ignore[arg-type]


async def later(_: object) -> str:
    return "later"


async def by_and_by(_: object) -> AsyncIterator[str]:
    yield "later"


class Later:
    async def __call__(self, _: object) -> str:
        return "later"


@pytest.mark.parametrize("answers", [later, by_and_by, Later(), partial(later), {later: "Hi!"}])
def test_an_asynchronous_function_is_refused(answers: Any) -> None:
    with pytest.raises(UsageError, match=r"a fake takes plain functions, and .* is an asynchronous one"):
        as_answers(answers)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reply": "a", "echo": True}, "reply and echo are each an answer to everything: give one"),
        ({"script": "/no/such/file"}, "option 'script' = '/no/such/file' is no script: .*cannot be read"),
        ({"profile": "cockatoo"}, "no chat backend named 'cockatoo' is installed"),
        ({"fail": "lost@"}, "has 'lost@': it is not of the form"),
        ({"fail": "lost,found"}, "has 'found': there is no fault 'found', only lost"),
        ({"fail": "429*0"}, "not of the form"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        connect("fake:", **options)


# ---------------------------------------------------------------------------- profiles


async def test_it_is_like_another_backend() -> None:
    async with connect("fake:?profile=kaziro") as bridge:
        assert ("kaziro", Stores.UNDOCUMENTED) == (bridge.profile.name, bridge.profile.stores)
        chat = await bridge.create()
        assert (await chat.send("Hello")).text
        with pytest.raises(UnsupportedFeature, match="kaziro"):
            await chat.delete()
    assert "kaziro" == FakeBackend(profile="kaziro").profile.name
    assert Support.UNSUPPORTED is connect("fake:?profile=mtmai:").profile.support(Feature.SEND)
    assert {"model"} == connect("fake:?profile=tachyon:?mode%3Dagent").profile.options
    assert ADAPTER.profile(FakeOptions(profile="kaziro")).name == "kaziro"


async def test_what_an_api_does_not_show_the_model_is_not_seen() -> None:
    profile = Profile("odd", dict.fromkeys(Feature, Support.NATIVE), context=ContextOwner.NONE)
    fake = FakeBackend(profile=profile)
    chat = fake.bridge().open(fake.add().id)
    await chat.send("one")
    assert "Turn 1: you said 'two'." == (await chat.send("two")).text
    assert not fake.bridge().profile.options


# ------------------------------------------------------------------------------ faults


async def test_429_twice_is_overcome(chat: Chat, fake: FakeBackend) -> None:
    fake.fail("429", operation="message", times=2)

    assert (await chat.send("Hello")).text
    assert ["the server answered 429", "the server answered 429", None] == [c.failed for c in fake.calls]
    assert 1 == len({call.turn for call in fake.calls})
    assert 2 == len(fake.clock.slept)  # type: ignore[attr-defined]


async def test_429_for_ever_is_rate_limited(chat: Chat, fake: FakeBackend) -> None:
    fake.fail(Fault(status=429, headers={"Retry-After": "7"}), times=9)
    with pytest.raises(RateLimited) as caught:
        await chat.send("Hello")
    assert (3, 7.0, 429) == (len(caught.value.attempts), caught.value.retry_after, caught.value.status)
    assert 6 == len(fake.faults)


async def test_the_third_is_lost_after_it_was_stored(fake: FakeBackend, chat: Chat) -> None:
    fake.fail("lost", operation="message", nth=3)
    await chat.send("one")
    await read(chat, "two")
    with pytest.raises(DeliveryUnknown):
        await chat.send("three")
    (messages,) = fake.conversations.values()
    assert ["one", "two", "three"] == [each.text for each in messages][::2]
    assert [TurnState.DELIVERED] == [turn.state for turn in await chat.settle()]


async def test_by_a_config_string_too() -> None:
    async with connect("fake:?fail=429*2,lost@2,cut:3@3&settle_timeout=0") as bridge:
        chat = await bridge.create()
        await chat.send("one")
        with pytest.raises(DeliveryUnknown):
            await chat.send("two")
        await chat.settle()
        with pytest.raises(StreamCut) as caught:
            await read(chat, "three")
        assert "Turn 3: you" == caught.value.partial


async def test_unsent_stores_nothing(chat: Chat, fake: FakeBackend) -> None:
    fake.fail("unsent")
    with pytest.raises(DeliveryUnknown):
        await chat.send("Hello")
    assert [()] == list(fake.conversations.values())


async def test_a_stream_is_cut_after_ten_words(chat: Chat, fake: FakeBackend) -> None:
    fake.fail("cut:10")
    pieces: list[str] = []

    async def collect() -> None:
        async with chat.stream("a b c d e f g h i j k") as stream:
            async for piece in stream.text():
                pieces.append(piece)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(StreamCut, match="broke off"):
        await collect()
    assert 10 == len(pieces)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault(cut_after=1), AnswerLost, "broke off"),
        (Fault(cut_after=1, cut="end"), AnswerLost, "broke off"),
        (Fault(cut_after=99, cut="end"), AnswerLost, "broke off"),
        (Fault(cut_after=1, error="no credit"), ProviderFailed, "no credit"),
        (Fault(cut_after=99, error="no credit"), ProviderFailed, "no credit"),
        (Fault(status=200, body=b"{"), AnswerLost, "200"),
        (Fault(status=401), AuthFailed, "401"),
        (Fault(status=500), DeliveryUnknown, "500"),
        (Fault(status=503, kept="turn"), DeliveryUnknown, "503"),
    ],
)
async def test_a_whole_answer_fails_as_planned(
    chat: Chat, fake: FakeBackend, fault: Fault, kind: type[ChatbridgeError], said: str
) -> None:
    fake.fail(fault)
    with pytest.raises(kind, match=said):
        await chat.send("Hello there")
    kept = {"nothing": 0, "question": 1, "turn": 2}[fault.leaves]
    assert kept == len(next(iter(fake.conversations.values())))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(cut_after=1, cut="end"), "without its end mark"),
        (Fault(cut_after=1, error="no credit"), "no credit"),
    ],
)
async def test_a_stream_ends_as_planned(chat: Chat, fake: FakeBackend, fault: Fault, said: str) -> None:
    fake.fail(fault)
    with pytest.raises(AnswerLost, match=said):
        await read(chat, "Hello there")


async def test_a_stream_may_go_on(chat: Chat, fake: FakeBackend) -> None:
    fake.fail(Fault(cut_after=1, cut="resume", delay=5))
    async with chat.stream("Hello there") as stream:
        events = [event async for event in stream]
    assert isinstance(events[-1], Finished)
    assert [5.0] == fake.clock.slept  # type: ignore[attr-defined]


async def test_a_virtual_minute_costs_no_time_and_may_be_too_long(fake: FakeBackend) -> None:
    chat = fake.bridge().open(fake.add().id)
    fake.fail("slow:60")
    assert (await chat.send("Hello")).text
    assert 1060.0 == fake.clock.now()
    hasty = fake.bridge(timeout=30.0).open(chat.id)
    fake.fail("slow:60", times=2)
    with pytest.raises(DeliveryUnknownTimeout):
        await hasty.send("Hello")


async def test_an_answer_takes_its_time() -> None:
    async with connect("fake:?delay=5&first_byte_timeout=3&settle_timeout=0") as bridge:
        chat = await bridge.create()
        with pytest.raises(DeliveryUnknownTimeout, match="no answer in time"):
            await chat.send("Hello")


async def test_what_is_still_at_work_arrives_late(chat: Chat, fake: FakeBackend) -> None:
    late = asyncio.Event()
    fake.fail(Fault(drop="during", hold=late))
    with pytest.raises(DeliveryUnknown):
        await chat.send("Hello")
    assert [TurnState.UNKNOWN] == [turn.state for turn in await chat.settle(wait=0)]
    late.set()
    await turns_of_the_loop()
    assert [TurnState.DELIVERED] == [turn.state for turn in await chat.settle(wait=0)]


async def test_closing_ends_what_is_still_at_work(fake: FakeBackend) -> None:
    async with fake.bridge() as bridge:
        chat = bridge.open(fake.add().id)
        fake.fail(Fault(drop="during", hold=asyncio.Event()))
        with pytest.raises(DeliveryUnknown):
            await chat.send("Hello")
    assert [()] == list(fake.conversations.values())


@pytest.mark.parametrize("keeps", ["conversations", "nothing"])
async def test_closing_fails_what_is_under_way_and_cancels_nobody(
    keeps: Literal["conversations", "nothing"],
) -> None:
    fake = FakeBackend(FakeOptions(keeps=keeps))
    async with fake.bridge() as bridge:
        chat = await bridge.create()
        fault = fake.fail(Fault(hold=asyncio.Event()))
        sending = asyncio.create_task(chat.send("Hello"))
        await fault.reached.wait()
    with pytest.raises(ChatbridgeError, match="the bridge was closed"):
        await sending
    assert "the bridge was closed" == fake.calls[-1].failed
    assert 1 == len([call for call in fake.calls if call.turn])


async def test_a_held_message_that_is_cancelled_may_have_arrived(chat: Chat, fake: FakeBackend) -> None:
    fault = fake.fail(Fault(hold=asyncio.Event()))
    sending = asyncio.create_task(chat.send("Hello"))
    await fault.reached.wait()
    sending.cancel()
    await asyncio.wait([sending])
    assert (["cancelled"], [TurnState.UNKNOWN]) == (
        [call.failed for call in fake.calls],
        [turn.state for turn in await chat.turns()],
    )


@pytest.mark.parametrize("operation", ["get_conversation", "list_conversations", "list_messages"])
async def test_reads_are_repeated(chat: Chat, fake: FakeBackend, operation: str) -> None:
    fake.fail("503", operation=operation, times=2)
    await chat.refresh()
    _ = [each async for each in chat.bridge.conversations()]
    _ = [each async for each in chat.messages()]
    assert 3 == sum(call.operation == operation for call in fake.calls)
    assert 0 == fake.writes
    await chat.send("Hello")
    fake.fail("lost", operation="list_messages")
    assert 2 == len([each async for each in chat.messages()])
    fake.fail("503", times=3)
    with pytest.raises(Unavailable):
        await chat.refresh()


async def test_with_a_key_a_message_is_repeated() -> None:
    profile = Profile("keyed", dict.fromkeys(Feature, Support.NATIVE), settle_by={SettleBy.KEY})
    fake = FakeBackend(profile=profile)
    fake.fail("unsent", operation="send")
    assert (await fake.bridge().open(fake.add().id).send("Hello")).text
    assert 2 == fake.writes


async def test_a_time_limit_of_the_callers_is_the_callers(chat: Chat, fake: FakeBackend) -> None:
    fake.fail(Fault(hold=asyncio.Event()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await chat.send("Hello")


def test_what_cannot_be_planned_is_refused(fake: FakeBackend) -> None:
    with pytest.raises(UsageError, match="a fake has no operation 'sned', only message, create_conversation"):
        fake.fail("lost", operation="sned")
    with pytest.raises(UsageError, match="there is no fault 'found'"):
        fake.fail("found")


# -------------------------------------------------------------------------- afterwards


async def test_it_tells_what_it_was_sent(chat: Chat, fake: FakeBackend) -> None:
    fake.assert_nothing_sent()
    reply = await chat.send("Hello", temperature=0.5)
    fake.assert_sent("Hello")
    fake.assert_sent(re.compile("^H"), times=1)
    fake.assert_sent(str.istitle)
    with pytest.raises(AssertionError, match=r"nothing was to be sent, and sent was: 'Hello'"):
        fake.assert_nothing_sent()
    with pytest.raises(AssertionError, match=r"expected 'Bye' to be sent once or more.*\n    'Hello'"):
        fake.assert_sent("Bye")
    with pytest.raises(AssertionError, match=r"expected /H/ to be sent 2 times, and it was 1 times"):
        fake.assert_sent(re.compile("H"), times=2)
    (call,) = fake.calls
    assert ("send", chat.id, 0.5) == (
        call.operation,
        call.conversation_id,
        call.options and call.options.temperature,
    )
    assert call.turn == (await chat.turns())[0].id
    assert f"send 'Hello' to {chat.id}" == str(call)
    assert "create_conversation: no" == str(FakeCall(operation="create_conversation", failed="no"))
    assert {chat.id: ("Hello", reply.text)} == {
        name: tuple(message.text for message in messages) for name, messages in fake.conversations.items()
    }


def test_nothing_sent_is_said() -> None:
    with pytest.raises(AssertionError, match="sent was: nothing"):
        FakeBackend().assert_sent("Hello")


async def test_what_a_server_refuses_is_noted(fake: FakeBackend) -> None:
    with pytest.raises(NotFound):
        await fake.bridge().open("nowhere").send("Hello")
    assert ["NotFound: fake has no conversation 'nowhere'"] == [call.failed for call in fake.calls]


async def test_attempts_are_told_of() -> None:
    told: list[AttemptEvent] = []
    async with connect("fake:?fail=503@2&settle_timeout=0", on_attempt=told.append) as bridge:
        chat = await bridge.create()
        await chat.send("one")
        with pytest.raises(DeliveryUnknown):
            await chat.send("two")
    assert ["create_conversation", "send", "send"] == [event.operation for event in told]
    assert [None, None, 503] == [event.attempt.status for event in told]


async def test_it_lives_by_the_clock_that_it_is_given() -> None:
    clock = ManualClock()
    backend = FakeBackend(FakeOptions(delay=3.0), InProcess(clock))
    async with Bridge(backend, clock=clock, options=CommonOptions()) as bridge:
        await (await bridge.create()).send("Hello")
    assert [3.0] == clock.slept


async def test_extra_of_a_feature_that_it_lacks_is_refused() -> None:
    fake = FakeBackend(profile=Profile("odd", {Feature.SEND: Support.NATIVE}))
    with pytest.raises(BadOption):
        await fake.send(fake.add().id, Message.user("Hello"), SendOptions(extra={"reasoning": True}))


async def test_a_client_that_leaves_does_not_stop_the_server() -> None:
    fake = FakeBackend(FakeOptions(settle_timeout=0, first_byte_timeout=3.0))
    chat = await fake.bridge().create()
    late = asyncio.Event()
    fake.fail(Fault(hold=late))
    sending = asyncio.create_task(chat.send("Cancelled"))
    await turns_of_the_loop()
    sending.cancel()
    await asyncio.wait([sending])
    late.set()
    await turns_of_the_loop()
    await chat.waive((await chat.turns())[0])
    fake.fail("slow:60")
    with pytest.raises(DeliveryUnknownTimeout):
        await chat.send("Too slow")
    await turns_of_the_loop()
    assert ["Cancelled", "Too slow"] == [each.text for each in fake.conversations[chat.id]][::2]


async def test_without_a_bridge_each_message_counts(fake: FakeBackend) -> None:
    conversation = fake.add()
    for text in ("a", "b"):
        await fake.send(conversation.id, Message.user(text), SendOptions())
    assert ("a", "b") == fake.sent


async def test_what_would_never_strike_is_refused(chat: Chat, fake: FakeBackend) -> None:
    await chat.send("one")
    for plan in ({"nth": 0}, {"nth": 1}, {"times": 0}):
        with pytest.raises(UsageError, match="would never strike"):
            fake.fail("lost", operation="message", **plan)


async def test_a_question_comes_before_its_answer(chat: Chat, fake: FakeBackend) -> None:
    reply = await chat.send("one")
    question, answer = fake.conversations[chat.id]
    assert question.created_at is not None
    assert answer.created_at is not None
    assert question.created_at < answer.created_at
    assert reply.message == answer
