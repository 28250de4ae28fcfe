"""Dialogues: held with backends and bots, written down, and shown where they go otherwise."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import (
    AuthFailed,
    Bridge,
    ChatbridgeError,
    DeliveryUnknown,
    Message,
    Reply,
    SendOptions,
    StreamCut,
    UsageError,
    connect,
    errors,
)
from chatbridge.backend import SettleBy
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.cues import Cue
from chatbridge.testing.dialogue import RECORDED, BadScript, Dialogue, DialogueMismatch, say
from chatbridge.testing.emulator import Emulator, Fault
from chatbridge.testing.memory import EVERYTHING, MemoryBackend
from chatbridge.testing.script import Expect, ExpectError, ExpectStream, Fail, Say, Step, Switch
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator

Reach = Callable[..., Awaitable[Bridge]]

STORY = "fake:?reply=Once%20upon%20a%20time"


async def echo(_: Bridge, said: str) -> str:
    return said


async def whole(bridge: Bridge, said: str) -> str:
    return (await (await bridge.create()).send(said)).text


async def spell(_: Bridge, said: str) -> AsyncIterator[str]:
    for piece in said.split(" "):
        yield piece


async def failing(_: Bridge, said: str) -> AsyncIterator[str]:
    yield "Well "
    raise KeyError(said)


async def mismatch(
    dialogue: Dialogue, bot: Callable[[Bridge, str], Awaitable[str] | AsyncIterator[str]]
) -> str:
    """Give the text of the failure of *dialogue*."""
    with pytest.raises(DialogueMismatch) as failed:
        await dialogue.run("fake:", bot)
    return str(failed.value)


# ------------------------------------------------------------------------------ holding a dialogue


async def test_a_backend_answers_by_itself_in_one_conversation() -> None:
    dialogue = (
        say("one")
        .expect(re.compile("Turn 1"))
        .say("two")
        .expect("Turn 2: you said 'two'. Before that you said 'one'.")
    )
    await dialogue.run("fake:")


async def test_an_answer_is_a_text_a_pattern_or_what_a_function_holds_for() -> None:
    await say("hello").expect("hello").expect(re.compile("^h.*o$")).expect(str.islower).run("fake:", echo)


async def test_an_answer_that_nothing_is_expected_of_is_right() -> None:
    await say("hello").say("again").run("fake:", echo)


async def test_a_bridge_is_not_closed_and_a_chat_is_gone_on_with() -> None:
    async with connect("fake:") as bridge:
        chat = await bridge.create()
        await say("one").run(bridge)
        await say("two").expect(re.compile("Turn 1")).run(chat)
        await say("three").expect(re.compile("Turn 2")).run(chat)


async def test_a_bot_is_asked_over_the_bridge() -> None:
    await (
        say("hello")
        .expect("Turn 1: you said 'hello'.")
        .say("hi")
        .expect("Turn 1: you said 'hi'.")
        .run("fake:", whole)
    )


async def test_what_a_bot_streams_is_put_together() -> None:
    await say("a b").expect("ab").expect_stream("a", "b").run("fake:", spell)


async def test_a_bot_with_a_memory_is_an_object() -> None:
    class Counting:
        def __init__(self) -> None:
            self.turns = 0

        async def __call__(self, _: Bridge, said: str) -> str:
            self.turns += 1
            return f"{self.turns}: {said}"

    await say("a").expect("1: a").say("b").expect("2: b").run("fake:", Counting())


async def test_an_error_is_expected_by_its_class_and_its_words() -> None:
    dialogue = say("hello").expect_error(KeyError, "hello").expect_error(LookupError).expect_stream("Well")
    await dialogue.run("fake:", failing)


# ------------------------------------------------------------------------------ streams


async def test_a_streamed_answer_comes_in_these_pieces_or_as_this_whole_in_several() -> None:
    for pieces in (["Once", "upon", "a", "time"], [re.compile("^On"), "upon", "a", re.compile("ime$")]):
        await say("tell me").expect_stream(*pieces).expect("Once upon a time").run(STORY)
    for one in ("Once upon a time", re.compile("upon")):
        await say("tell me").expect_stream(one).run(STORY)


@pytest.mark.parametrize(
    "pieces", [["Once", "upon"], ["Once upon", "a time"], ["Once upon"], [re.compile("never")]]
)
async def test_other_pieces_or_another_whole_are_told(pieces: list[str]) -> None:
    with pytest.raises(DialogueMismatch) as failed:
        await say("tell me").expect_stream(*pieces).run(STORY)
    assert "=> <| Once | upon | a | time" in str(failed.value)


async def test_an_answer_in_one_piece_is_not_streamed() -> None:
    assert "=> < hello" in await mismatch(say("hello").expect_stream("hello"), echo)
    assert "=> <| hello" in await mismatch(say("hello").expect_stream("hello"), spell)


async def test_a_stream_that_is_cut_is_what_came_and_the_error(reach: Reach) -> None:
    emulator = H2OGPTeEmulator()
    bridge = await reach(emulator)
    dialogue = (
        Dialogue().fault("cut:2").say("tell me").expect_stream(re.compile("^Turn")).expect_error(StreamCut)
    )

    await dialogue.run(bridge, partner=emulator)


async def test_a_bot_that_streams_is_closed_when_it_fails() -> None:
    closed: list[bool] = []

    async def bot(_: Bridge, said: str) -> AsyncIterator[str]:
        try:
            yield said
        finally:
            closed.append(True)

    await say("hello").expect("hello").run("fake:", bot)
    assert [True] == closed


async def test_a_bot_may_give_any_iterator() -> None:
    class Letters:
        def __init__(self, said: str) -> None:
            self.left = list(said)

        def __aiter__(self) -> Letters:
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    await say("abc").expect_stream("a", "b", "c").run("fake:", lambda _, said: Letters(said))


# ------------------------------------------------------------------------------ faults


class Faulty(MemoryBackend):
    """A fake where faults can be planned: each send that one strikes is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Fault] = []

    def fail(self, fault: Fault) -> None:
        self.faults.append(fault)

    async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
        if self.faults:
            raise DeliveryUnknown(f"lost by {self.faults.pop(0).word}", kind="lost")
        return await super().send(conversation_id, message, options)


LOST = (
    Dialogue()
    .fault("lost").say("are you there?").expect_error(DeliveryUnknown)
    .say("hello?").expect(re.compile("hello"))
)  # fmt: skip


def blind(backend: MemoryBackend) -> Bridge:
    """Give a bridge that looks for no message in doubt."""
    bridge = Bridge(backend)
    return Bridge(backend, options=evolve(bridge.options, settle_timeout=0.0))


async def test_a_fault_strikes_the_next_message_and_no_other_request(reach: Reach) -> None:
    emulator = KaziroEmulator()
    await LOST.run(await reach(emulator), partner=emulator)

    assert [200, None, 200] == [call.status for call in emulator.calls]


async def test_a_backend_that_can_plan_faults_is_its_own_partner() -> None:
    await LOST.run(blind(Faulty()))


async def test_several_faults_strike_one_message_in_turn(reach: Reach) -> None:
    emulator = KaziroEmulator()
    bridge = await reach(emulator, clock=ManualClock(), attempts=2)
    dialogue = Dialogue().fault("429").fault(Fault(status=503)).say("hello").expect_error(ChatbridgeError)
    await dialogue.fault("429").say("hello").expect(re.compile("hello")).run(bridge, partner=emulator)

    assert [200, 429, 503, 429, 200] == [call.status for call in emulator.calls]


async def test_a_slow_answer_takes_the_time_of_the_clock(reach: Reach) -> None:
    clock = ManualClock()
    emulator = KaziroEmulator(sleep=clock.sleep)
    bridge = await reach(emulator, clock=clock, first_byte_timeout=30)
    await Dialogue().fault("slow:20").say("hello").expect(re.compile("hello")).run(bridge, partner=emulator)
    await Dialogue().fault("slow:60").say("hello").expect_error(TimeoutError).run(bridge, partner=emulator)

    assert [20, 60] == clock.slept


async def test_faults_of_a_bot_strike_its_message_though_it_creates_the_conversation_first(
    reach: Reach,
) -> None:
    emulator = H2OGPTeEmulator()
    bridge = await reach(emulator)
    await (
        Dialogue()
        .fault("lost")
        .say("hello")
        .expect_error(DeliveryUnknown)
        .run(bridge, whole, partner=emulator)
    )

    assert [201, None] == [call.status for call in emulator.calls]


async def test_the_hook_of_the_bridge_goes_on_being_told() -> None:
    told: list[object] = []
    backend = Faulty()
    bridge = blind(backend)
    bridge.deliveries.on_turn = told.append
    await LOST.run(bridge)

    assert 2 * 2 + 1 == len(told)
    assert told.append == bridge.deliveries.on_turn


async def test_a_recording_has_its_faults_already() -> None:
    dialogue = Dialogue().fault("lost").say("are you there?").expect(re.compile("there"))
    await dialogue.run("fake:", partner=RECORDED)


async def test_faults_that_nobody_can_plan_are_an_error(reach: Reach) -> None:
    bridge = await reach(KaziroEmulator())
    with pytest.raises(
        UsageError, match="nothing can plan a fault for kaziro: give the run its emulator as partner"
    ):
        await LOST.run(bridge)


async def test_a_fault_that_the_partner_refuses_is_an_error(reach: Reach) -> None:
    emulator = KaziroEmulator()
    bridge = await reach(emulator)
    dialogue = Dialogue().fault(Fault(cut_after=1, error="no")).say("hello")
    with pytest.raises(
        UsageError, match="kaziro could not be planned: ValueError: kaziro has no error lines"
    ):
        await dialogue.run(bridge, partner=emulator)


async def test_a_fault_that_strikes_nothing_is_an_error() -> None:
    with pytest.raises(
        UsageError, match="no message went out to fake that a fault could strike; what came was < hi"
    ):
        await Dialogue().fault("lost").say("hi").run(Bridge(Faulty()), echo)


async def test_a_fault_for_an_attempt_that_is_not_made_is_an_error_and_taken_back(reach: Reach) -> None:
    emulator = KaziroEmulator()
    bridge = await reach(emulator)
    other = emulator.fail("429", operation="get_thread_metadata_endpoint_v1_broker_thread_retrieve_get")
    dialogue = Dialogue().fault("400").fault("500").fault("lost").say("a").expect_error(ChatbridgeError)
    with pytest.raises(UsageError, match=r"nothing was left of the message to kaziro for ! 500, ! lost to"):
        await dialogue.run(bridge, partner=emulator)

    assert [other] == [fault for _, fault in emulator.faults]


async def test_a_fault_that_is_left_does_not_strike_the_search_for_a_message_in_doubt(reach: Reach) -> None:
    emulator = H2OGPTeEmulator()
    bridge = await reach(emulator, clock=ManualClock(), settle_timeout=10)
    dialogue = Dialogue().fault("lost").fault("500").say("a")
    with pytest.raises(UsageError, match=r"for ! 500 to strike; what came was < Turn 1"):
        await dialogue.run(bridge, partner=emulator)


async def test_a_fault_that_the_fake_is_left_with_is_an_error() -> None:
    dialogue = Dialogue().fault("400").fault("500").say("a").expect_error(ChatbridgeError).say("b")
    with pytest.raises(UsageError, match=r"nothing was left of the message to fake for ! 500 to strike"):
        await dialogue.run("fake:")


@pytest.mark.parametrize("kind", [H2OGPTeEmulator, MtmaiEmulator])
async def test_a_cut_that_leaves_an_answer_whole_is_an_error(reach: Reach, kind: type[Emulator]) -> None:
    emulator = kind()
    dialogue = Dialogue().fault("cut:1000").say("tell me").expect_stream("Once upon a time")
    for target, partner in ((STORY, None), (await reach(emulator), emulator)):
        with pytest.raises(UsageError, match=r"! cut:1000 left the answer of .* whole; what came was <[|] "):
            await dialogue.run(target, partner=partner)


async def test_an_answer_that_was_cut_and_repeated_is_whole() -> None:
    class Repeating(MemoryBackend):
        def fail(self, fault: Fault) -> None:
            """Let the fault strike an attempt that another one follows."""

    backend = Repeating(evolve(EVERYTHING, settle_by={SettleBy.KEY}))
    await Dialogue().fault("cut:1").say("hello").expect(re.compile("hello")).run(Bridge(backend))


async def test_a_cut_that_only_holds_the_answer_up_need_not_show() -> None:
    pause = Fault(cut_after=1, cut="resume", delay=5)
    await Dialogue().fault(pause).say("tell me").expect_stream("Once upon a time").run(STORY)


async def test_an_answer_that_is_found_again_was_cut() -> None:
    await Dialogue().fault("cut:1").say("tell me").expect("Once upon a time").run(STORY)


async def test_another_message_of_a_bot_does_not_end_the_one_that_a_fault_is_for() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    class Slow(Faulty):
        async def send(self, conversation_id: str, message: Message, options: SendOptions) -> Reply:
            if message.text == "another":
                return await MemoryBackend.send(self, conversation_id, message, options)
            arrived.set()
            await go.wait()
            return await super().send(conversation_id, message, options)

    async def two(bridge: Bridge, said: str) -> str:
        first = asyncio.create_task(whole(bridge, said))
        await arrived.wait()
        await whole(bridge, "another")
        go.set()
        return await first

    await Dialogue().fault("lost").say("one").expect_error(DeliveryUnknown).run(blind(Slow()), two)


async def test_a_conversation_that_cannot_be_created_is_an_error_that_can_be_expected(reach: Reach) -> None:
    bridge = await reach(KaziroEmulator(), key="wrong")
    await say("hello").expect_error(AuthFailed).run(bridge)


# ------------------------------------------------------------------------------ changes of the backend


async def test_another_backend_goes_on_in_a_conversation_of_its_own() -> None:
    dialogue = (
        say("one").expect(re.compile("Turn 1"))
        .switch("other").say("two").expect(re.compile("Turn 1"))
        .switch("first").say("three").expect(re.compile("Turn 2: .*'one'"))
        .switch("other").say("four").expect(re.compile("Turn 2: .*'two'"))
    )  # fmt: skip
    async with connect("fake:") as first:
        await dialogue.run(first, backends={"first": first, "other": "fake:"})


async def test_a_backend_to_go_on_with_may_be_a_chat_or_a_config_string_in_the_dialogue() -> None:
    async with connect("fake:") as bridge:
        chat = await bridge.create()
        await chat.send("zero")
        await (
            say("one")
            .switch("chat")
            .say("two")
            .expect(re.compile("zero"))
            .run(bridge, backends={"chat": chat})
        )
    await say("one").switch(STORY).say("two").expect("Once upon a time").run("fake:")


async def test_a_bot_is_asked_over_the_other_bridge() -> None:
    await say("one").switch(STORY).say("two").expect("Once upon a time").run("fake:", whole)


async def test_a_backend_that_was_switched_to_has_a_partner_by_its_name(reach: Reach) -> None:
    emulator = KaziroEmulator()
    dialogue = say("one").switch("other").fault("lost").say("two").expect_error(DeliveryUnknown)
    await dialogue.run("fake:", backends={"other": await reach(emulator)}, partners={"other": emulator})


async def test_a_backend_that_nobody_gave_is_an_error_that_names_those_given() -> None:
    with pytest.raises(
        UsageError, match="goes on with 'other', and the backends given to its run are: 'one', 'two'"
    ):
        await (
            say("hello").switch("other").say("hello").run("fake:", backends={"one": "fake:", "two": "fake:"})
        )


# ------------------------------------------------------------------------------ what cannot be held


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the dialogue: nothing is said in it"),
        ("# a comment", "the dialogue: nothing is said in it"),
        ("\n< hello", "line 2 of the dialogue: nothing was said that this could answer"),
        ("> hi\n! lost\n< hello", "line 3 of the dialogue: nothing was said that this could answer"),
        ("> hi\n! lost", "line 2 of the dialogue: nothing is said behind the last step, ! lost"),
        ("> hi\n@ other", "line 2 of the dialogue: nothing is said behind the last step, @ other"),
        ("> /hi/", "line 1 of the dialogue: the pattern > /hi/ can be answered by a script, but not said"),
    ],
)
async def test_a_dialogue_that_cannot_be_held_is_refused_before_it_begins(text: str, problem: str) -> None:
    with pytest.raises(BadScript) as refused:
        await Dialogue.parse(text).run("no such backend")
    assert problem == str(refused.value)


async def test_a_bot_is_given_a_bridge_and_not_a_chat() -> None:
    async with connect("fake:") as bridge:
        chat = await bridge.create()
        with pytest.raises(UsageError, match="run the dialogue on the bridge"):
            await say("hello").run(chat, echo)


async def test_a_bot_that_answers_with_something_else_than_text_is_told_so() -> None:
    async def bot(bridge: Bridge, said: str) -> str:
        return await (await bridge.create()).send(said)  # type: ignore[return-value]

    with pytest.raises(UsageError, match="the bot answered with a Reply"):
        await say("hello").run("fake:", bot)


async def test_a_bot_is_asynchronous() -> None:
    def bot(_: Bridge, said: str) -> str:
        return said

    shown = await mismatch(say("hello"), bot)  # type: ignore[arg-type]
    assert "the bot answered with a str at once; a bot is an asynchronous function, or" in shown


async def test_a_mistake_in_a_bot_comes_out_with_the_dialogue_noted() -> None:
    with pytest.raises(KeyError) as failed:
        await say("hello").expect("Well").run("fake:", failing)
    assert ["at step 1:\n> hello\n< Well \\\n<! KeyError: 'hello'"] == failed.value.__notes__


async def answer_nothing(_: Bridge, __: str) -> str:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "bot", "place"),
    [
        ("> one\n\n! lost\n> two", echo, "step 3, line 4 of a.dialogue:\n> one\n< one\n! lost\n> two"),
        ("> one", answer_nothing, "step 1, line 1 of a.dialogue:\n> one"),
        ("> one\n@ other\n> two", echo, "step 2, line 2 of a.dialogue:\n> one\n< one\n@ other"),
    ],
)
async def test_a_dialogue_that_cannot_be_gone_on_with_says_where(
    text: str, bot: Callable[[Bridge, str], Awaitable[str]], place: str
) -> None:
    with pytest.raises(UsageError) as failed:
        await Dialogue.parse(text, "a.dialogue").run("fake:", bot)
    assert [f"at {place}"] == failed.value.__notes__


async def test_what_went_otherwise_is_told_once() -> None:
    with pytest.raises(DialogueMismatch) as failed:
        await Dialogue().fault("lost").say("hello").run(blind(Faulty()))
    assert not hasattr(failed.value, "__notes__")


# ------------------------------------------------------------------------------ what went otherwise


async def test_a_failure_shows_the_transcript_and_marks_what_differs() -> None:
    text = r"""
> hello
< hello
# The name is not remembered.
> my name
  is Ada
< /Nice to meet you, \w+/
> never said
"""
    with pytest.raises(DialogueMismatch) as failed:
        await Dialogue.parse(text, "ada.dialogue").run("fake:", echo)
    assert r"""step 4, line 7 of ada.dialogue: something else was answered

   > hello
   < hello
   > my name
     is Ada
=> < my name
     is Ada

expected: < /Nice to meet you, \w+/
found:    < my name
            is Ada""" == str(failed.value)
    assert (4, 7) == (failed.value.step, failed.value.line)


async def test_a_failure_can_be_pickled() -> None:
    failure = DialogueMismatch("it differs", 3, 4)
    again = pickle.loads(pickle.dumps(failure))
    assert ("it differs", 3, 4) == (str(again), again.step, again.line)


async def test_where_a_long_answer_differs_is_shown_word_by_word() -> None:
    said = "The maples of Kyoto turn red in the second half of November, and the crowds come to see them all"
    dialogue = say(said).expect(said.replace("second half", "first days").replace(" all", ""))
    assert (
        "changed:  The maples of Kyoto turn red in the[- first days-]{+ second half+} of November, "
        "and the ... come to see them{+ all+}"
    ) in await mismatch(dialogue, echo)


async def test_very_long_answers_are_cut_and_control_characters_escaped() -> None:
    shown = await mismatch(say("a" * 5000 + "\x1b[2J").expect("b" * 5000), echo)
    assert len(shown) < 12_000
    assert "\x1b" not in shown
    assert r"\x1b[2J" in shown


async def test_an_error_that_was_not_expected_is_shown_where_the_answer_is_missing() -> None:
    for dialogue, expected in (
        (Dialogue().fault("lost").say("hello").expect("Hi!"), "expected: < Hi!"),
        (Dialogue().fault("lost").say("hello").say("again"), "expected: any answer"),
    ):
        with pytest.raises(DialogueMismatch) as failed:
            await dialogue.run(blind(Faulty()))
        assert "   ! lost\n   > hello\n=> <! DeliveryUnknown: " in str(failed.value)
        assert expected in str(failed.value)
        assert isinstance(failed.value.__cause__, DeliveryUnknown)


async def test_another_error_or_none_is_shown() -> None:
    shown = await mismatch(say("hello").expect_error(StreamCut, "x"), failing)
    assert (
        "   < Well \\\n=> <! KeyError: 'hello'\n\nexpected: <! StreamCut /x/\nfound:    <! KeyError: 'hello'"
        in shown
    )
    assert "=> <! KeyError" in await mismatch(say("hello").expect_error(KeyError, "bye"), failing)
    assert "=> < hello\n\nexpected: <! StreamCut" in await mismatch(
        say("hello").expect_error(StreamCut), echo
    )


async def test_a_function_that_does_not_hold_is_shown_by_its_name() -> None:
    assert "expected: <? str.isupper" in await mismatch(say("hello").expect(str.isupper), echo)


async def test_a_change_of_the_backend_is_in_the_transcript() -> None:
    assert "   @ fake:\n   > hello\n=> < hello" in await mismatch(
        say("hi").switch("fake:").say("hello").expect("Hi!"), echo
    )


# ------------------------------------------------------------------------------ written down

EXAMPLE = r"""> hello
< Hi!
> my name is Ada
< /Nice to meet you, \w+/
! lost
> are you there?
<! DeliveryUnknown /lost/
@ other
> tell me
  a story
<| Once | upon a time | /end/
"""


def test_a_dialogue_is_read_and_written() -> None:
    dialogue = (
        say("hello").expect("Hi!")
        .say("my name is Ada").expect(re.compile(r"Nice to meet you, \w+"))
        .fault("lost").say("are you there?").expect_error(DeliveryUnknown, "lost")
        .switch("other").say("tell me\na story").expect_stream("Once", "upon a time", re.compile("end"))
    )  # fmt: skip
    assert EXAMPLE == str(dialogue)
    assert dialogue == Dialogue.parse(EXAMPLE)
    assert [1, 2, 3, 4, 5, 6, 7, 8, 9, 11] == [step.line for step in Dialogue.parse(EXAMPLE).steps]


def test_comments_empty_lines_blanks_and_the_ends_of_lines_mean_nothing() -> None:
    assert say("hello").expect("Hi!") == Dialogue.parse("# one\r\n\r\n>  hello \t\r\n   \r\n#two\n<\tHi!\r\n")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", ">\n"),
        ("/help", "> /help\n"),
        ("/help/", "> \\/help/\n"),
        ("  indented", "> \\  indented\n"),
        ("blank at the end ", "> blank at the end \\\n"),
        ("\\", "> \\\\\n"),
        ("\\1", "> \\1\n"),
        ("\\ 1", "> \\\\ 1\n"),
        ("two\n\n  paragraphs\n", "> two\n  \\\n    paragraphs\n  \\\n"),
        ("# no comment\n> no step", "> # no comment\n  > no step\n"),
    ],
)
def test_any_text_can_be_written(text: str, written: str) -> None:
    assert written == str(say(text))
    assert say(text) == Dialogue.parse(written)


TEXTS = st.text(st.sampled_from("ab /|\\<>#!@\n\r\t\u2028\x1f") | st.characters(codec="utf-8"), max_size=12)
PATTERNS = st.sampled_from(["a", "", "/", "\\w+ ?", "(?i)a|b", "a | b", " a\\\n b\\\\", "(a)(b)"]).map(
    re.compile
)
NAMES = st.sampled_from(["other", "fake:?reply=a b", "a\\", "\\a", "/a/", "|"])
CLASSES = st.sampled_from([ChatbridgeError, DeliveryUnknown, StreamCut, errors.StreamCutTimeout])
FAULTS = st.sampled_from(["lost", "unsent", "cut:0", "cut:10", "429", "slow:60", "slow:0.5"]).map(Fault.parse)
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(Say, TEXTS | PATTERNS),
    st.builds(Expect, TEXTS | PATTERNS),
    st.builds(ExpectError, CLASSES, st.none() | PATTERNS),
    st.builds(Fail, FAULTS),
    st.builds(Switch, NAMES),
)
PIECES = st.lists(TEXTS.filter(str.strip) | PATTERNS, min_size=1, max_size=4).map(tuple)


@given(st.lists(STEPS, max_size=5))
def test_what_is_written_is_read_back(steps: list[Step]) -> None:
    dialogue = Dialogue(tuple(steps))
    assert dialogue == Dialogue.parse(str(dialogue))


@given(PIECES)
def test_pieces_are_read_back_or_refused(pieces: tuple[str | re.Pattern[str], ...]) -> None:
    step = ExpectStream(pieces)
    if str(step).startswith("<|"):
        assert (step,) == Dialogue.parse(str(step)).steps
    else:
        with pytest.raises(BadScript):
            Dialogue.parse(str(step))


@given(TEXTS)
def test_whatever_a_file_holds_is_read_or_refused_by_line(text: str) -> None:
    lines = text.count("\n") + 1
    try:
        dialogue = Dialogue.parse(text)
    except BadScript as error:
        refused: int | None = error.line
    else:
        refused = 1
        assert dialogue == Dialogue.parse(str(dialogue))
    assert refused in range(1, lines + 1)


@pytest.mark.parametrize(
    "dialogue",
    [
        say("a").expect(str.isupper),
        say("a").expect(re.compile("a", re.IGNORECASE)),
        say("a").expect_stream("a | b", "c"),
        say("a").expect_error(KeyError),
        Dialogue().fault(Fault(drop="during")),
        Dialogue().fault(Fault(drop="after", delay=1)),
    ],
)
def test_what_a_file_cannot_say_is_shown_and_not_read(dialogue: Dialogue) -> None:
    with pytest.raises(BadScript):
        Dialogue.parse(str(dialogue))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (">hello", "there is no step '>hello', only > TEXT, < TEXT, < /PATTERN/, "),
        ("hello", "there is no step 'hello', only"),
        (" > hello", "there is no step ' > hello', only"),
        ("\n  hello", "'hello' continues nothing: no text stands right above it"),
        ("# hello\n  you", "'you' continues nothing"),
        ("! lost\n  again", "what follows ! is one line"),
        (
            "! loss",
            "there is no fault 'loss', only lost, unsent, cut:PIECES, slow:SECONDS and statuses such as 429",
        ),
        ("< /(/", "'(' is no regular expression: missing ), unterminated subpattern at position 0"),
        ("<! Lost", "there is no error 'Lost', only AnswerLost, "),
        ("<! AnswerWarning", "there is no error 'AnswerWarning', only AnswerLost, "),
        ("<! NotSent lost", "behind the error stands a /PATTERN/ for its text, and not 'lost'"),
        ("<| a | | b", "an answer that is streamed consists of pieces, none of them empty"),
        ("<|", "an answer that is streamed consists of pieces, none of them empty"),
        ("@", "a backend to go on with has a name of one line, and not ''"),
    ],
)
def test_a_bad_line_is_refused_with_what_there_could_be(text: str, problem: str) -> None:
    line = text.count("\n") + 3
    with pytest.raises(BadScript) as refused:
        Dialogue.parse(f"> hi\n< hi\n{text}\n", "a.dialogue")
    assert str(refused.value).startswith(f"line {line} of a.dialogue: {problem}")
    assert line == refused.value.line
    assert refused.value.__context__ is None


def test_what_makes_no_step_is_refused_in_code_as_well() -> None:
    with pytest.raises(UsageError, match="is no regular expression"):
        say("a").expect_error(StreamCut, "(")
    with pytest.raises(UsageError, match="none of them empty"):
        say("a").expect_stream()
    with pytest.raises(UsageError, match="there is no fault 'loss'"):
        say("a").fault("loss")


def test_a_dialogue_is_loaded_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.dialogue"
    file.write_bytes(b"\xef\xbb\xbf> na\xc3\xafve\r\n")
    assert say("na\u00efve") == Dialogue.load(file)
    assert str(file) == Dialogue.load(str(file)).source

    file.write_bytes(b"> \xff")
    with pytest.raises(UsageError, match=r"a\.dialogue cannot be read: it is not UTF-8"):
        Dialogue.load(file)
    with pytest.raises(UsageError, match=r"no\.dialogue cannot be read: No such file"):
        Dialogue.load(tmp_path / "no.dialogue")


@pytest.mark.parametrize("word", ["lost", "unsent", "cut:10", "429", "503", "slow:60", "slow:0.25"])
def test_a_fault_is_made_of_its_word(word: str) -> None:
    assert word == Fault.parse(word).word


@pytest.mark.parametrize(
    "word", ["", "LOST", "cut", "cut:", "cut:-1", "slow:0", "slow:1e9", "42", "200", "429*2"]
)
def test_there_are_no_other_words_for_faults(word: str) -> None:
    with pytest.raises(UsageError, match="there is no fault"):
        Fault.parse(word)


@pytest.mark.parametrize("delay", [-1.0, float("inf"), float("nan")])
def test_a_delay_is_a_number_of_seconds(delay: float) -> None:
    with pytest.raises(ValueError, match="a delay is a number of seconds"):
        Fault(delay=delay)


# ------------------------------------------------------------------------------ taken for a script


def test_a_dialogue_is_a_script_of_what_is_answered() -> None:
    cues = Dialogue.parse("> hello\n< Hi!\n> /my name is (\\w+)(!)?/\n<| Nice to | meet you, \\1\\2\n").cues()

    assert (
        Cue("hello", ("Hi!",)),
        Cue(re.compile(r"my name is (\w+)(!)?"), ("Nice to", r" meet you, \1\2")),
    ) == cues
    assert [("Hi!",), None] == [cue.answer("hello") for cue in cues]
    assert [None, ("Nice to", " meet you, Ada")] == [cue.answer("So my name is Ada") for cue in cues]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("> hello", "line 1 of a.dialogue: > hello has no answer"),
        ("> hello\n> again", "line 1 of a.dialogue: > hello has no answer, but > again"),
        ("> hello\n< /hello/", "line 1 of a.dialogue: > hello has no answer, but < /hello/"),
        ("> hello\n<| /a/ | b", "line 1 of a.dialogue: > hello has no answer, but <| /a/ | b"),
        (
            "! lost\n> hello\n< hello",
            "line 1 of a.dialogue: a script consists of what is said and the text of ",
        ),
        (
            "> hello\n< a\n< b",
            "line 3 of a.dialogue: a script consists of what is said and the text of its answer",
        ),
        ("> /(a)/\n< \\2", "line 1 of a.dialogue: /(a)/ has no group 2"),
    ],
)
def test_a_dialogue_with_more_in_it_is_no_script(text: str, problem: str) -> None:
    with pytest.raises(BadScript) as refused:
        Dialogue.parse(text, "a.dialogue").cues()
    assert str(refused.value).startswith(problem)
