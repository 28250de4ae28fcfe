"""The frame of the command line, and the commands that are one call: send, backends, describe."""

from __future__ import annotations

import errno
import json
import runpy
import sys
import warnings
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

import chatbridge.cli
from chatbridge.backend import Feature
from chatbridge.cli import app as app_module
from chatbridge.cli.app import app
from chatbridge.cli.describe import secret_options
from chatbridge.cli.output import Output, escaped, one_line
from chatbridge.cli.plain import plain
from chatbridge.domain import Message, Opaque, Reasoning, Reply, Role, Text, ToolCall
from chatbridge.errors import NotSent
from chatbridge.registry import load_adapter
from chatbridge.secret import Secret
from chatbridge.testing.emulator import Fault
from chatbridge.testing.fake import FakeBackend
from chatbridge_adapters.kaziro.emulator import COMPLETE, KaziroEmulator
from chatbridge_adapters.mtmai.emulator import MtmaiEmulator
from cli_kit import KEY, check, failure, h2ogpte, install, run, served

COMMANDS = [
    ["backends"],
    ["chat"],
    ["conversations"],
    *(["conversations", "fake:", name] for name in ("list", "show", "rename", "delete")),
    ["demo"],
    ["describe"],
    ["emulate"],
    ["conformance"],
    ["features"],
    ["send"],
    ["settle"],
    ["turns"],
]


# The frame


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_within_80_columns(command: list[str]) -> None:
    help_text = check(0, run(*command, "--help")).stdout
    assert f"chatbridge {command[0]}" in help_text.partition("Example")[2]
    assert max(map(len, help_text.splitlines())) <= 80
    assert help_text == run(*command, "-h").stdout


def test_every_command_is_listed_whole_in_the_help_of_the_program() -> None:
    help_text = run("--help").stdout
    assert set(app.commands) == {command[0] for command in COMMANDS}
    assert all(f"\n  {name} " in help_text for name in app.commands)
    assert "..." not in help_text.partition("Commands:")[2]
    assert "Exit codes: 0 done, 1 the backend failed, 2 usage or configuration, 130 Ctrl-C." in " ".join(
        help_text.split()
    )


def test_without_a_command_the_help_goes_to_stderr_as_a_mistake() -> None:
    result = check(2, run())
    assert "" == result.stdout
    assert "Usage: chatbridge" in result.stderr


def test_the_version_is_one_line() -> None:
    name, version = check(0, run("--version")).stdout.split()
    assert "chatbridge" == name
    assert "0" <= version[0] <= "9"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'. See 'chatbridge --help'."),
        (["send", "fake:"], "Missing argument 'TEXT'. See 'chatbridge send --help'."),
        (["conversations", "fake:", "frob"], "See 'chatbridge conversations --help'."),
        (["send", "nowhere:", "hi"], "no chat backend named 'nowhere' is installed"),
        (["send", "fake:?replyy=x", "hi"], "did you mean 'reply'?"),
        (["send", "nickname", "hi"], "neither a config string"),
        (["send", "-", "hi"], "no backend is named"),
        (["chat"], "no backend is named"),
        (["send", "fake:", " \n"], "there is nothing to send"),
        (["send", "fake:", "hi", "--conversation", ""], "a conversation's id is not empty"),
        (["send", "kaziro:", "hi"], "there is none in KAZIRO_API_KEY"),
        (["send", "kaziro:", "hi"], "; or use --ask-key"),
        (["send", "kaziro:?key=file:/nonexistent", "hi"], "kaziro needs a key"),
        (["send", "h2ogpte+http://192.0.2.1?key=env:HOME", "hi"], "plain http"),
        (["describe", "kazirro"], "did you mean 'kaziro'?"),
        (["describe", "h2ogpte:?attempts=none"], "is not a whole number"),
        (["emulate", "fake"], "fake has no emulator"),
        (["emulate", "kaziro", "--port", "65536"], "See 'chatbridge emulate --help'."),
    ],
)
def test_usage_and_configuration_errors_are_one_line_on_stderr_and_exit_2(
    args: list[str], words: str
) -> None:
    assert words in failure(2, *args)


@pytest.mark.parametrize("flags", [["--debug", "send"], ["send", "--debug"]])
def test_debug_adds_the_traceback_wherever_it_stands(flags: list[str]) -> None:
    result = run(*flags, "fake:?replyy=x", "hi")
    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("Traceback")
    assert "\nchatbridge: fake: option 'replyy' is unknown" in result.stderr


def test_a_bug_is_called_one_and_shows_its_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise LookupError("no such \x1b[31mthing")

    monkeypatch.setattr(app_module, "list_backends", broken)
    line = failure(1, "backends")
    assert (
        "this is a bug in chatbridge or in a backend's package: LookupError: no such \\x1b[31mthing" in line
    )
    assert "--debug shows where" in line
    shown = run("backends", "--debug").stderr
    assert "Traceback" in shown
    assert "--debug" not in shown


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=str)
def test_each_warning_is_one_line_on_stderr_every_time(flags: list[str]) -> None:
    emulator = MtmaiEmulator(metadata=False)
    with served(emulator) as listening:
        for _ in range(2):
            run(
                "send", listening.config, "hi", env=emulator.env
            )  # It makes a session, and cannot know its id.
        result = check(0, run("conversations", listening.config, "list", *flags, env=emulator.env))

    assert (
        2 * ["warning: mtmai chat_list: a session without an id was left out"] == result.stderr.splitlines()
    )
    assert ("[]\n" if flags else "") == result.stdout


def test_warnings_of_others_stay_pythons_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    def aside() -> tuple[()]:
        warnings.warn("somebody's", UserWarning, stacklevel=1)
        return ()

    monkeypatch.setattr(app_module, "list_backends", aside)
    with pytest.warns(UserWarning, match="somebody's"):
        assert "" == check(0, run("backends")).stderr
    assert warnings.showwarning.__module__ == "warnings"


@pytest.mark.parametrize("stuck", [True, False])
def test_what_the_system_refuses_is_no_bug(monkeypatch: pytest.MonkeyPatch, *, stuck: bool) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left")

    def full_once() -> None:
        monkeypatch.delattr(sys.stdout, "flush")
        full()

    def list_backends() -> None:
        if stuck:
            monkeypatch.setattr(sys.stdout, "flush", full_once, raising=False)
        full()

    monkeypatch.setattr(app_module, "list_backends", list_backends)
    line = failure(1, "backends")
    assert f"the system says: [Errno {errno.ENOSPC}] No space left (--debug shows where)" == line


def test_an_error_of_a_connection_that_gets_through_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def reset() -> None:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(app_module, "list_backends", reset)
    assert "this is a bug" in failure(1, "backends")


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app_module, "list_backends", interrupted)
    result = check(130, run("backends"))
    assert ("", "\n") == (result.stdout, result.stderr)


def test_main_runs_the_program_under_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["whatever", "frobnicate"])
    with pytest.raises(SystemExit) as left:
        chatbridge.cli.main()
    assert 2 == left.value.code
    assert "See 'chatbridge --help'" in capsys.readouterr().err


def test_main_takes_streams_that_have_no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["chatbridge", "--version"])
    monkeypatch.setattr(sys, "stdout", said := StringIO())
    with pytest.raises(SystemExit) as left:
        chatbridge.cli.main()
    assert (0, "chatbridge ") == (left.value.code, said.getvalue()[:11])


def test_the_package_runs_as_a_module_and_does_nothing_when_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chatbridge", "--version"])
    # The hook by which pytest rewrites the assertions of plug-ins cannot run a module.
    finders = [each for each in sys.meta_path if "pytest" not in type(each).__module__]
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.delitem(sys.modules, "chatbridge.__main__", raising=False)
    import_module("chatbridge.__main__")
    monkeypatch.delitem(sys.modules, "chatbridge.__main__")
    assert "" == capsys.readouterr().out
    with pytest.raises(SystemExit):
        runpy.run_module("chatbridge", run_name="__main__")
    assert "chatbridge " == capsys.readouterr().out[:11]


@pytest.mark.parametrize("name", ["click", "platformdirs", "rich"])
def test_without_the_extra_one_line_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    for module in [each for each in sys.modules if each.startswith("chatbridge.cli.")]:
        monkeypatch.delitem(sys.modules, module)
    if name == "rich":
        for module in [each for each in sys.modules if each.startswith("rich.")]:
            monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SystemExit) as left:
        chatbridge.cli.main()
    assert 2 == left.value.code
    out, err = capsys.readouterr()
    assert ("", 1) == (out, err.count("\n"))
    assert f"needs {name}" in err
    assert "pip install '.[cli]'" in err


def test_another_missing_module_is_not_taken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chatbridge.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match="chatbridge"):
        chatbridge.cli.main()


# Keys


def test_a_key_may_be_asked_for_and_is_not_shown() -> None:
    with h2ogpte() as (emulator, url, _):
        result = check(
            0, run("send", url, "hi", "--ask-key", stdin=f"{KEY}\n", output=Output(terminal=True, moment=60))
        )
        assert "Turn 1: you said 'hi'.\n" == result.stdout
        assert "h2ogpte key: " in result.stderr
        assert {KEY} == {call.bearer for call in emulator.calls}


def test_a_key_is_asked_for_at_a_terminal_only() -> None:
    assert "needs a terminal" in failure(2, "send", "kaziro:", "hi", "--ask-key")


def test_a_key_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    with h2ogpte() as (_, url, _env):
        assert "Turn 1" in check(0, run("send", f"{url}?key=file:{path}", "hi")).stdout


def test_a_key_in_the_config_string_is_refused_and_not_shown() -> None:
    assert "must not be a secret" in failure(2, "send", f"kaziro:?key={KEY}", "hi")


# send


def test_send_prints_the_reply_on_stdout_and_the_conversations_id_on_stderr() -> None:
    result = check(0, run("send", "fake:", "Hello"))
    assert ("Turn 1: you said 'Hello'.\n", "conversation: conversation-1\n") == (result.stdout, result.stderr)


def test_send_goes_on_with_a_conversation() -> None:
    with h2ogpte() as (_, url, env):
        first = check(0, run("send", url, "One", env=env))
        chat_id = first.stderr.split()[1]
        second = check(0, run("send", url, "Two", "--conversation", chat_id, env=env))
        assert f"conversation: {chat_id}\n" == second.stderr
        assert "Turn 2: you said 'Two'. Before that you said 'One'.\n" == second.stdout


def test_send_reads_the_text_from_stdin() -> None:
    assert "Turn 1: you said 'a\\nb'.\n" == check(0, run("send", "fake:", "-", stdin="a\nb\n")).stdout


def test_send_refuses_what_is_not_utf8() -> None:
    assert "not UTF-8" in failure(2, "send", "fake:", "-", stdin=b"\xff\xfe")


def test_send_as_json_is_the_whole_reply() -> None:
    reply = json.loads(check(0, run("send", "fake:", "Hello", "--json")).stdout)
    assert "conversation-1" == reply["conversation_id"]
    assert "Turn 1: you said 'Hello'." == reply["text"] == reply["messages"][0]["text"]
    assert {"type": "text", "text": reply["text"]} == reply["messages"][0]["parts"][0]
    assert ("assistant", "2025-01-01T00:00:02Z") == (
        reply["messages"][0]["role"],
        reply["messages"][0]["created_at"],
    )
    assert ("stop", "fake-model", [], False) == tuple(
        reply[name] for name in ("finish_reason", "model", "warnings", "recovered")
    )
    assert (1, 5, None) == tuple(reply["usage"][n] for n in ("input_tokens", "output_tokens", "cost"))


def test_warnings_of_a_reply_go_to_stderr_or_into_the_json() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:
        url = f"{listening.config}?include=references"
        result = check(0, run("send", url, "hi", env=emulator.env))
        assert "warning: kaziro cannot honour include=references, which was left out" in result.stderr
        reply = json.loads(check(0, run("send", url, "hi", "--json", env=emulator.env)).stdout)
        assert ["kaziro cannot honour include=references, which was left out"] == reply["warnings"]


def test_an_answer_without_text_is_said_to_be_one() -> None:
    result = check(0, run("send", "fake:?reply=", "hi"))
    assert ("\n", "warning: the answer has no text") == (result.stdout, result.stderr.splitlines()[-1])


def test_send_deletes_the_conversation_when_asked() -> None:
    with h2ogpte() as (emulator, url, env):
        result = check(0, run("send", url, "hi", "--delete", env=env))
        assert "Turn 1: you said 'hi'.\n" == result.stdout
        assert ["create_chat_session", "get_completion", "delete_chat_session"] == [
            call.operation for call in emulator.calls
        ]


def test_a_failed_deletion_is_an_error_after_the_reply() -> None:
    with h2ogpte() as (emulator, url, env):
        emulator.fail(Fault(status=403), operation="delete_chat_session")
        result = check(1, run("send", url, "hi", "--delete", env=env))
        assert "Turn 1: you said 'hi'.\n" == result.stdout
        assert "delete_chat_session: the server answered 403" in result.stderr
        assert result.stderr.endswith("The message was answered. Nothing else was done.\n")


def test_where_nothing_can_be_deleted_nothing_is_sent() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:
        line = failure(2, "send", listening.config, "hi", "--delete", env=emulator.env)
        assert (
            "kaziro does not support delete; instead: leave the thread; it stays on the server; chat.forget()"
            in line
        )
        assert [] == emulator.calls


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(drop="after"), "The message may have arrived, and was not sent again."),
        (Fault(status=400, error="too \x1b]0;odd"), "Nothing else was done."),
        (
            Fault(status=200, body=b"{"),
            "The message arrived, and was not sent again; the answer is lost or incomplete.",
        ),
    ],
)
@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_a_failed_send_says_whether_it_arrived_and_what_conversation_it_was_in(
    fault: Fault, words: str, json_flag: list[str]
) -> None:
    emulator = KaziroEmulator()
    emulator.fail(fault, operation=COMPLETE)
    with served(emulator) as listening:
        result = check(1, run("send", listening.config, "hi", *json_flag, env=emulator.env))
    assert "" == result.stdout
    (thread_id,) = emulator.threads
    conversation, line = result.stderr.splitlines()
    assert f"conversation: {thread_id}" == conversation
    assert line.endswith(f". The conversation {thread_id} was created. {words}")
    assert "\x1b" not in line
    assert 1 == len([call for call in emulator.calls if call.operation == COMPLETE])


def test_what_a_backend_notes_on_an_error_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> Reply:
        error = NotSent("no network.")
        error.add_note("the new key is lost.")
        raise error

    monkeypatch.setattr(FakeBackend, "send", fail)
    assert (
        "chatbridge: no network. The new key is lost. The message did not arrive."
        == (check(1, run("send", "fake:", "hi", "-c", "c-1")).stderr.splitlines()[-1])
    )


def test_of_a_conversation_that_was_there_before_none_is_said_to_be_created() -> None:
    with h2ogpte() as (emulator, url, env):
        chat_id = run("send", url, "One", env=env).stderr.split()[1]
        emulator.fail(Fault(status=400, error="no"), operation="get_completion")
        result = check(1, run("send", url, "Two", "-c", chat_id, env=env))
        assert result.stderr.endswith("the server answered 400: no. Nothing was done.\n")


def test_a_server_that_is_not_there_is_the_backends_failure() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:
        url = f"{listening.config}?attempts=1"
    line = failure(1, "send", url, "hi", env=emulator.env)
    assert line.endswith("It did not arrive.")


def test_a_conversation_that_was_created_before_a_failure_is_named() -> None:
    with h2ogpte() as (emulator, url, env):
        emulator.fail(Fault(status=403), operation="update_chat_session_prompt_template")
        result = check(1, run("send", f"{url}?prompt_template=p", "hi", env=env))
        conversation, line = result.stderr.splitlines()
        chat_id = conversation.removeprefix("conversation: ")
        assert line.endswith(f". The conversation {chat_id} was created. Nothing else was done.")
        assert ["create_chat_session", "update_chat_session_prompt_template"] == [
            call.operation for call in emulator.calls
        ]


def test_what_a_model_says_cannot_control_the_terminal_unless_raw() -> None:
    url = "fake:?reply=a%1B[31mb%0A%09c%C2%9B"
    assert "a\\x1b[31mb\n\tc\\x9b\n" == check(0, run("send", url, "x")).stdout
    assert "a\x1b[31mb\n\tc\x9b\n" == check(0, run("send", url, "x", "--raw")).stdout
    assert "\x1b" not in check(0, run("send", url, "x", "--json")).stdout


@given(st.text())
def test_escaping_leaves_no_control_but_newline_and_tab(text: str) -> None:
    shown = escaped(text)
    assert not [c for c in shown if c not in "\n\t" and (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0)]
    assert 1 == len(f"{one_line(text)}.".splitlines())
    shown.encode()


@pytest.mark.parametrize("text", ["日本語\u3000です", "naïve 👩‍👩‍👧", "a\tb\nc", "«שלום»"])
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert text == escaped(text)


def test_progress_shows_after_a_moment_where_someone_watches() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:

        def send(output: Output) -> Result:
            return check(0, run("send", listening.config, "hi", env=emulator.env, output=output))

        watched = send(Output(moment=0, terminal=True))
        assert "waiting for kaziro" in watched.stderr
        assert "waiting" not in send(Output(moment=60, terminal=True)).stderr
        piped = send(Output(moment=0))
        assert "waiting" not in piped.stderr
        assert "Turn 1: you said 'hi'.\n" == piped.stdout == watched.stdout


# JSON


def test_every_part_says_what_it_is() -> None:
    message = Message(
        Role.ASSISTANT,
        [
            Text("a"),
            Reasoning("b"),
            ToolCall("1", "look", {"at": ["x", 1, None]}),
            Opaque("fake", "odd", {"y": b"\x00"}),
        ],
    )
    shown = plain(message)
    assert isinstance(shown, dict)
    assert [
        {"type": "text", "text": "a"},
        {"type": "reasoning", "text": "b", "signature": None},
        {"type": "tool_call", "id": "1", "name": "look", "arguments": {"at": ["x", 1, None]}},
        {"type": "opaque", "origin": "fake", "kind": "odd", "data": {"y": "AA=="}},
    ] == shown["parts"]
    assert "a" == shown["text"]


def test_what_json_has_no_word_for_is_shown_as_text() -> None:
    assert "***" == plain(Secret("x"))
    assert ["a", "b"] == plain({"b", "a"})
    assert isinstance(plain(Reply([Message.assistant("x")])), dict)


# backends


def test_backends_are_listed_with_their_emulators() -> None:
    shown = check(0, run("backends")).stdout.splitlines()
    assert "name        emulator  summary" == shown[0]
    assert "fake        no        A backend in this process, for tests and trials" in shown
    assert any(line.startswith("kaziro      yes ") for line in shown)
    assert {
        "name": "fake",
        "summary": "A backend in this process, for tests and trials",
        "emulator": False,
        "error": None,
    } in json.loads(check(0, run("backends", "--json")).stdout)


def test_a_broken_backend_is_shown_as_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "raises_when_imported.py").write_text("raise RuntimeError('out of \\x1b[31morder')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    install(
        monkeypatch,
        fake="chatbridge.testing.fake:ADAPTER",
        absent="no_such_module:ADAPTER",
        raising="raises_when_imported:ADAPTER",
    )
    shown = " ".join(check(0, run("backends")).stdout.split())
    assert "absent no broken: the backend 'absent' is installed and cannot be loaded" in shown
    assert "raising no broken: importing it raises RuntimeError: out of \\x1b[31morder" in shown
    listed = json.loads(check(0, run("backends", "--json")).stdout)
    assert [False, True, False] == [each["error"] is None for each in listed]


# describe


def test_describe_needs_no_key_and_no_network() -> None:
    shown = " ".join(check(0, run("describe", "h2ogpte")).stdout.split())
    assert "h2ogpte: https://h2ogpte.genai.h2o.ai/api/v1" in shown
    assert "a secret: env:NAME or file:PATH; required; from H2OGPTE_API_KEY" in shown
    assert "timeout Seconds that one call may take in all, retries included. a number; default 600" in shown
    assert "title emulated; rename the session after its creation" in shown
    assert "history_seed unsupported; say it in the first message" in shown
    assert "can be found out by reading the history back" in shown
    assert "a message's absence from the history proves nothing" in shown
    assert "send options max_output_tokens, model, seed, system, temperature, top_p" in shown
    assert "Notes - Usage and references are read after the answer" in shown


def test_describe_fits_into_80_columns_without_blanks_at_the_ends() -> None:
    for name in ("fake", "h2ogpte", "kaziro"):
        lines = check(0, run("describe", name)).stdout.splitlines()
        assert 80 >= max(map(len, lines))
        assert lines == [line.rstrip() for line in lines]


def test_describe_draws_in_colour_for_a_person() -> None:
    assert "\x1b[" in check(0, run("describe", "fake", output=Output(terminal=True))).stdout


def test_describe_as_json_has_all_of_it() -> None:
    shown = json.loads(check(0, run("describe", "kaziro", "--json")).stdout)
    assert {
        "name",
        "summary",
        "emulator",
        "config",
        "options",
        "features",
        "instead",
        "send_options",
        "context",
        "stores",
        "settle_by",
        "absent_after",
        "notes",
    } == set(shown)
    assert {
        "name": "key",
        "type": "a secret: env:NAME or file:PATH",
        "default": None,
        "required": True,
        "environment": ["KAZIRO_API_KEY"],
        "doc": "The API key.",
    } == shown["options"][0]
    assert {feature.value for feature in Feature} == set(shown["features"])
    assert ("native", "emulated", "unsupported") == tuple(
        shown["features"][name] for name in ("send", "history", "delete")
    )
    assert ("server", "undocumented", [], None) == tuple(
        shown[name] for name in ("context", "stores", "settle_by", "absent_after")
    )


def test_describe_of_a_backend_in_the_process() -> None:
    shown = json.loads(check(0, run("describe", "fake", "--json")).stdout)
    assert "it lives in this process" == shown["config"]["fake:"]
    assert ["fake:", "fake:MODEL", "...?NAME=VALUE&NAME=VALUE"] == list(shown["config"])
    assert (["read_back"], None) == (shown["settle_by"], shown["absent_after"])


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("odd", "unsupported"),
        ("odd:?mode=all", "native"),
        ("odd:all", "native"),
        ("odd://host?mode=all&team=x&key=env:UNSET", "native"),
    ],
)
def test_options_may_change_what_is_described(
    text: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, odd="cli_kit:ODD")
    shown = json.loads(check(0, run("describe", text, "--json")).stdout)
    assert stream == shown["features"]["stream"]
    assert ["odd://HOST:PORT/PATH", "odd+http://127.0.0.1:PORT", "...?NAME=VALUE&NAME=VALUE"] == list(
        shown["config"]
    )


def test_a_backend_that_can_do_nothing_is_described_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, odd="cli_kit:ODD")
    shown = " ".join(check(0, run("describe", "odd")).stdout.split())
    assert "whether a message arrived cannot be found out" in shown
    assert "send options none" in shown
    assert "Notes" not in shown
    assert "another server; left out, the path is /" in shown


def test_all_secrets_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, odd="cli_kit:ODD")
    assert ("key", "cookie") == secret_options(load_adapter("odd"))


def test_describe_knows_the_names_of_the_config_file(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[backends.work]\nurl = "kaziro:?strict=true"\n')

    result = check(0, run("describe", "work", env={"CHATBRIDGE_CONFIG": str(config)}))

    assert result.stdout.startswith("kaziro: Kaziro's broker")


def test_an_interrupted_send_says_that_the_message_may_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chatbridge.cli.app._send", interrupted)

    result = check(130, run("send", "fake:", "Hi"))

    assert "interrupted; a message that was under way may have arrived" in result.stderr


def test_nothing_is_created_to_talk_in_where_nothing_can_be_said() -> None:
    emulator = MtmaiEmulator()
    with served(emulator) as listening:
        url = listening.config.partition("&team=")[0]
        error = failure(2, "send", url, "hi", env=emulator.env)
    assert error.startswith("mtmai does not support send; instead: name a team")
    assert [] == emulator.calls
