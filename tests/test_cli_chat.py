"""The command `chat`, piped and at a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from chatbridge.backend import Feature, Support
from chatbridge.bridge import connect
from chatbridge.cli.chat import HELP, Talk
from chatbridge.cli.output import Output
from chatbridge.domain import (
    Conversation,
    Finished,
    Message,
    Reply,
    Reset,
    SendOptions,
    Started,
    StreamEvent,
    TextDelta,
)
from chatbridge.errors import ChatbridgeError, ConnectFailed, DeliveryUnknown, StreamCut
from chatbridge.testing import fake
from chatbridge.testing.emulator import Emulator, Fault
from chatbridge.testing.fake import FakeBackend
from chatbridge_adapters.kaziro.emulator import COMPLETE, KaziroEmulator
from cli_kit import check, h2ogpte, interruptible, run, served


def typed(
    *lines: str, url: str = "fake:", more: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> Result:
    """Type *lines* at a terminal."""
    text = "".join(f"{line}\n" for line in lines)
    return check(0, run("chat", url, *more, stdin=text, output=Output(terminal=True, moment=60), env=env))


# Through a pipe


def test_each_line_is_a_message_and_stdout_has_the_answers_alone() -> None:
    result = check(0, run("chat", "fake:", stdin="One\n\n  Two  \n"))
    assert "Turn 1: you said 'One'.\nTurn 2: you said 'Two'. Before that you said 'One'.\n" == result.stdout
    assert "conversation: conversation-1\n" == result.stderr


def test_without_a_message_no_conversation_is_made() -> None:
    with h2ogpte() as (emulator, url, env):
        result = check(0, run("chat", url, env=env))
        assert ("", "", []) == (result.stdout, result.stderr, emulator.calls)


@pytest.mark.parametrize("url", [[], ["-"]])
def test_without_a_url_the_default_backend_is_meant(url: list[str], tmp_path: Path) -> None:
    result = check(0, run("chat", *url, stdin="Hi", env={"CHATBRIDGE_BACKEND": "fake:"}))
    assert "Turn 1: you said 'Hi'.\n" == result.stdout
    config = tmp_path / "config.toml"
    config.write_text('default = "mine"\n[backends.mine]\nurl = "fake:"\n')
    assert result.stdout == run("chat", *url, stdin="Hi", env={"CHATBRIDGE_CONFIG": str(config)}).stdout
    assert result.stdout == run("chat", "mine", stdin="Hi", env={"CHATBRIDGE_CONFIG": str(config)}).stdout


def test_the_first_failure_ends_it() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:
        emulator.fail(Fault(status=400, error="no"), operation=COMPLETE)
        result = check(1, run("chat", listening.config, stdin="One\nTwo\n", env=emulator.env))
        assert "" == result.stdout
        (thread_id,) = emulator.threads
        words = f"The conversation {thread_id} was created. Nothing else was done."
        assert f"the server answered 400: no. {words}\n" in result.stderr
        assert 1 == len([call for call in emulator.calls if call.operation == COMPLETE])


def test_a_stream_that_breaks_off_leaves_what_came_on_a_line_of_its_own() -> None:
    with h2ogpte() as (emulator, url, env):
        emulator.fail(Fault(cut_after=2), operation="get_completion")
        result = check(1, run("chat", url, stdin="One\n", env=env))
        assert "Turn 1:\n" == result.stdout
        assert result.stderr.endswith(
            "The message arrived, and was not sent again; the answer is lost or incomplete.\n"
        )


def test_an_unknown_command_is_a_mistake() -> None:
    result = check(2, run("chat", "fake:", stdin="/frob x\nHi\n"))
    assert "" == result.stdout
    assert "there is no command /frob: /help shows them" in result.stderr


def test_what_is_not_utf8_is_a_mistake() -> None:
    assert "not UTF-8" in check(2, run("chat", "fake:", stdin=b"\xff\n")).stderr


def test_an_interrupt_ends_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def readline(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        Talk(connect("fake:"), Output(terminal=False)).run()


def test_commands_work_through_a_pipe() -> None:
    result = check(0, run("chat", "fake:", stdin="/new First\n/new\n/list\n/open 2\nHi\n/quit\nlost\n"))
    assert "1*\tconversation-2\t\n2\tconversation-1\tFirst\nTurn 1: you said 'Hi'.\n" == result.stdout
    assert ["conversation-1", "conversation-2", "conversation-1 First"] == [
        line.removeprefix("conversation: ") for line in result.stderr.splitlines()
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/title First", "there is no conversation yet: /new TITLE begins one"),
        ("/title", "say the title: /title TEXT"),
        ("/open", "say which: /open N or /open ID"),
        ("/settle", "there is no conversation yet: /new TITLE begins one"),
        ("/waive", "there is no conversation yet: /new TITLE begins one"),
    ],
)
def test_a_command_that_lacks_something_says_what(line: str, words: str) -> None:
    assert f"chatbridge: {words}\n" == check(2, run("chat", "fake:", stdin=line)).stderr


@pytest.fixture
def warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every fake warn of what it creates, reads and renames."""

    async def create(_: FakeBackend, *, title: str | None = None, **__: object) -> Conversation:
        return Conversation("c-1", title=title, warnings=["the group was not found"])

    async def read(_: FakeBackend, conversation_id: str) -> Conversation:
        return Conversation(conversation_id, warnings=["half of it is lost"])

    async def rename(_: FakeBackend, conversation_id: str, title: str) -> Conversation:
        return Conversation(conversation_id, title=title[:3], warnings=["the title was cut"])

    monkeypatch.setattr(FakeBackend, "create_conversation", create)
    monkeypatch.setattr(FakeBackend, "get_conversation", read)
    monkeypatch.setattr(FakeBackend, "rename_conversation", rename)


@pytest.mark.usefixtures("warning")
def test_the_warnings_of_a_conversation_go_to_stderr() -> None:
    result = check(0, run("chat", "fake:", stdin="/new\n/open c-2\n/title Kyoto\n"))
    assert "" == result.stdout
    assert [
        "conversation: c-1",
        "warning: the group was not found",
        "conversation: c-2",
        "warning: half of it is lost",
        "title: Kyo",
        "warning: the title was cut",
    ] == result.stderr.splitlines()


@pytest.mark.usefixtures("warning")
@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_so_do_those_of_a_conversation_that_send_creates(flag: list[str]) -> None:
    shown = run("send", "fake:", "Hi", *flag).stderr.splitlines()
    assert ["conversation: c-1", "warning: the group was not found"] == shown[:2]


@pytest.mark.usefixtures("warning")
def test_the_json_of_send_has_the_warnings_of_the_creation_before_those_of_the_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(*_: object) -> Reply:
        return Reply([Message.assistant("Hello")], warnings=["it was brief"])

    monkeypatch.setattr(FakeBackend, "send", answer)
    reply = json.loads(check(0, run("send", "fake:", "Hi", "--json")).stdout)
    assert ["the group was not found", "it was brief"] == reply["warnings"]


# What may have arrived, or not

DOUBT = "'One' is in doubt: /settle looks for it again, /waive lets the next message go"


@contextmanager
def losing(fault: Fault) -> Generator[tuple[Emulator, str, dict[str, str]]]:
    """Serve an emulator whose next answer is lost, to a client that does not look for it by itself."""
    with h2ogpte() as (emulator, url, env):
        emulator.fail(fault, operation="get_completion")
        yield emulator, f"{url}?settle_timeout=0", env


def sent(emulator: Emulator) -> int:
    return len([call for call in emulator.calls if call.operation == "get_completion"])


def test_a_message_in_doubt_blocks_the_next_and_is_found_by_settling() -> None:
    with losing(Fault(drop="after")) as (emulator, url, env):
        result = typed("One", "Two", "/settle", "/settle", "Three", url=url, env=env)
        lost, blocked, answered, nothing = result.stderr.splitlines()[2:]
        assert lost.endswith(f". The message may have arrived, and was not sent again. {DOUBT}")
        assert f"not sent: {DOUBT}" == blocked
        assert "'One' was answered:" == answered
        assert "there is nothing to look for" == nothing
        assert (
            "> > > Turn 1: you said 'One'.\n> > Turn 2: you said 'Three'. Before that you said 'One'.\n> \n"
        ) == result.stdout
        assert 2 == sent(emulator)


def test_settling_that_finds_nothing_leaves_the_doubt_and_waiving_lets_the_next_message_go() -> None:
    with losing(Fault(drop="before")) as (emulator, url, env):
        result = typed("One", "/settle", "/waive", "/waive", "/settle", "Two", url=url, env=env)
        assert [
            DOUBT,
            "'One' is left in doubt, and the next message may go",
            "nothing is in doubt",
            "there is nothing to look for",
        ] == result.stderr.splitlines()[3:]
        assert "> > > > > > Turn 1: you said 'Two'.\n> \n" == result.stdout
        assert 2 == sent(emulator)


def test_a_message_that_is_there_without_an_answer_is_said_to_be_and_blocks_nothing() -> None:
    with losing(Fault(drop="after", kept="question")) as (_, url, env):
        result = typed("One", "/settle", "Two", url=url, env=env)
        assert ["'One' arrived, and there is no answer to it"] == result.stderr.splitlines()[3:]
        assert "> > > Turn 1: you said 'Two'.\n> \n" == result.stdout


def test_a_message_that_is_proven_not_to_be_there_did_not_arrive() -> None:
    with losing(Fault(drop="before")) as (_, url, env):
        result = typed("One", "/settle", "Two", url=f"{url}&absent_after=0", env=env)
        assert ["'One' did not arrive"] == result.stderr.splitlines()[3:]
        assert "Turn 1: you said 'Two'." in result.stdout


def test_a_conversation_that_cannot_be_read_leaves_the_doubt() -> None:
    with losing(Fault(drop="after")) as (emulator, url, env):
        emulator.fail(Fault(status=403, error="no"), operation="get_chat_session_messages")
        result = typed("One", "/settle", "/settle", url=url, env=env)
        refused, answered = result.stderr.splitlines()[3:]
        assert refused.endswith(f"the server answered 403: no. {DOUBT}")
        assert "'One' was answered:" == answered


@pytest.mark.parametrize(
    ("lost", "then"),
    [
        (DeliveryUnknown("lost", kind="lost"), f"no network. {DOUBT}"),
        (StreamCut("cut", kind="cut"), "no network"),
    ],
)
def test_that_a_look_was_not_sent_says_nothing_of_the_message(
    lost: ChatbridgeError, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(error: ChatbridgeError) -> Any:
        raise error

    async def lose(*_: object) -> AsyncGenerator[StreamEvent, None]:
        yield await fail(lost)

    async def unreachable(*_: object, **__: object) -> AsyncIterator[Message]:
        yield await fail(ConnectFailed("no network"))

    monkeypatch.setattr(FakeBackend, "stream", lose)
    monkeypatch.setattr(FakeBackend, "list_messages", unreachable)
    assert then == typed("One", "/settle", url="fake:?settle_timeout=0").stderr.splitlines()[3]


def test_where_nothing_can_be_read_back_only_waiving_is_offered() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:
        emulator.fail(Fault(drop="after"), operation=COMPLETE)
        result = typed("One", "Two", "/settle", "/waive", "Two", url=listening.config, env=emulator.env)
    lost, blocked, settled, waived = result.stderr.splitlines()[2:]
    cure = "kaziro cannot tell whether it arrived, /waive lets the next message go"
    assert lost.endswith(f"The message may have arrived, and was not sent again. 'One' is in doubt: {cure}")
    assert f"not sent: 'One' is in doubt: {cure}" == blocked
    assert "kaziro cannot tell what arrived; /waive lets the next message go all the same" == settled
    assert "'One' is left in doubt, and the next message may go" == waived
    assert "> > > > > Turn 2: you said 'Two'. Before that you said 'One'.\n> \n" == result.stdout


def test_what_is_said_of_a_message_in_doubt_cannot_control_the_terminal() -> None:
    with losing(Fault(drop="after")) as (_, url, env):
        shown = typed("On\x1be" + 100 * "x", url=url, env=env).stderr
    assert "\x1b" not in shown
    assert f" 'On\\x1be{75 * 'x'}…' is in doubt: " in shown


def test_a_message_may_begin_with_a_slash() -> None:
    assert "Turn 1: you said '/settle'.\n" == check(0, run("chat", "fake:", stdin="//settle")).stdout


# At a terminal


def test_a_person_sees_the_conversations_id_at_once_and_is_prompted() -> None:
    result = typed("Hello")
    assert "> Turn 1: you said 'Hello'.\n> \n" == result.stdout
    assert [
        "conversation: conversation-1",
        "Type a message, /help for the commands, /quit to leave.",
    ] == result.stderr.splitlines()


def test_the_commands_at_a_terminal() -> None:
    result = typed("/title One", "/new Two", "/list", "/open 2", "//x", "/help", "/quit", "never read")
    shown = f"1*\tconversation-2\tTwo\n2\tconversation-1\tOne\n> > Turn 1: you said '/x'.\n> {HELP}\n> "
    assert f"> > > {shown}" == result.stdout
    assert ["title: One", "conversation: conversation-2", "conversation: conversation-1 One"] == (
        result.stderr.splitlines()[2:]
    )


def test_a_failure_is_said_and_the_talk_goes_on() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:
        emulator.fail(Fault(status=400, error="no"), operation=COMPLETE)
        result = typed("One", "/list", "/frob", "Two", url=listening.config, env=emulator.env)
        (thread_id,) = emulator.threads
        assert f"> > 1*\t{thread_id}\t\n> > Turn 1: you said 'Two'.\n> \n" == result.stdout
        refused, unknown = result.stderr.splitlines()[2:]
        assert refused.endswith("the server answered 400: no. Nothing was done.")
        assert "there is no command /frob" in unknown


def test_a_conversation_can_be_gone_on_with() -> None:
    with h2ogpte() as (_, url, env):
        chat_id = run("send", url, "One", env=env).stderr.split()[1]
        result = typed("Two", url=url, more=("--conversation", chat_id), env=env)
        assert "> Turn 2: you said 'Two'. Before that you said 'One'.\n> \n" == result.stdout
        assert f"conversation: {chat_id}" == result.stderr.splitlines()[0]
        gone = check(1, run("chat", url, "-c", "0" * 8, stdin="x", env=env))
        assert "404" in gone.stderr


def test_where_a_conversation_cannot_be_read_it_is_opened_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "PROFILE", fake.PROFILE.with_features({Feature.GET: Support.UNSUPPORTED}))
    assert "conversation: c-1" in typed("/open c-1").stderr


def test_ctrl_c_during_an_answer_leaves_only_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = FakeBackend.stream

    async def slow(
        self: FakeBackend, conversation_id: str, message: Message, options: SendOptions
    ) -> AsyncGenerator[StreamEvent, None]:
        if message.text == "slow":
            yield TextDelta("So")
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        async for event in answer(self, conversation_id, message, options):
            yield event

    monkeypatch.setattr(FakeBackend, "stream", slow)
    with interruptible():
        result = typed("slow", "quick")
    assert "> So\n\n> Turn 1: you said 'quick'.\n> \n" == result.stdout
    assert "left; what was under way may have been done" == result.stderr.splitlines()[2]


def test_ctrl_c_before_an_answer_leaves_a_message_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> AsyncGenerator[StreamEvent, None]:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        yield TextDelta("never")

    monkeypatch.setattr(FakeBackend, "stream", silent)
    with interruptible():
        left = typed("One").stderr.splitlines()[2]
    assert f"left; {DOUBT}" == left


def test_ctrl_c_at_the_prompt_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert "\n" == typed("Hello").stdout


def test_text_that_was_taken_back_is_followed_by_the_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def corrected(*_: object) -> AsyncGenerator[StreamEvent, None]:
        yield Started()
        yield TextDelta("Wrong")
        yield Reset("a mistake")
        yield TextDelta("Right")
        yield Finished(Reply([Message.assistant("Right")], warnings=["it changed its mind"]))

    monkeypatch.setattr(FakeBackend, "stream", corrected)
    result = check(0, run("chat", "fake:", stdin="Hi\n"))
    assert "Wrong\nRight\n" == result.stdout
    assert "taken back" in result.stderr
    assert "warning: it changed its mind\n" in result.stderr


def test_pieces_of_an_answer_are_escaped_as_they_come() -> None:
    assert "a\\x1b[31mb\n" == check(0, run("chat", "fake:?reply=a%1B[31mb", stdin="Hi")).stdout
    assert "a\x1b[31mb\n" == check(0, run("chat", "fake:?reply=a%1B[31mb", "--raw", stdin="Hi")).stdout


def test_progress_is_taken_away_when_the_answer_begins() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:
        result = check(
            0,
            run(
                "chat",
                listening.config,
                stdin="Hi\n",
                output=Output(terminal=True, moment=0),
                env=emulator.env,
            ),
        )
    assert "waiting for kaziro" in result.stderr
    assert "\n> Turn 1: you said 'Hi'.\n> \n" == f"\n{result.stdout}"
