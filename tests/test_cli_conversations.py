"""The command `conversations`: list, show, rename, delete."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from attrs import evolve

from chatbridge.backend import Feature, Support
from chatbridge.cli.output import Output
from chatbridge.domain import Attachment, Conversation, Message, Reference, Role, Text
from chatbridge.errors import NotFound
from chatbridge.testing import fake
from chatbridge.testing.fake import FakeBackend
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from cli_kit import check, failure, h2ogpte, run, served

KEPT = Conversation(
    "c-1",
    title="A\ttitle\x1b[31m",
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    warnings=["half of it is lost"],
    extra={"status": "odd\nstate"},
)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every fake keep `KEPT`."""

    async def listed(_: FakeBackend) -> AsyncIterator[Conversation]:
        yield KEPT
        yield Conversation("c-2")

    async def read(_: FakeBackend, conversation_id: str) -> Conversation:
        if conversation_id != KEPT.id:
            raise NotFound(f"fake has no conversation {conversation_id!r}")
        return KEPT

    async def messages(_: FakeBackend, conversation_id: str, **__: object) -> AsyncIterator[Message]:
        yield Message(Role.USER, "Look:\x1b[2J", created_at=KEPT.created_at)
        yield Message(
            Role.ASSISTANT,
            [Text("I see\na cat."), Attachment("image/png", url="https://example.com/cat.png")],
            author="scout",
            references=[Reference("d-1", title="Cats"), Reference("d-2")],
        )
        yield Message(Role.ASSISTANT, [Attachment("image/png", data=b"x")])
        assert KEPT.id == conversation_id

    monkeypatch.setattr(FakeBackend, "list_conversations", listed)
    monkeypatch.setattr(FakeBackend, "get_conversation", read)
    monkeypatch.setattr(FakeBackend, "list_messages", messages)


@pytest.mark.parametrize("command", [[], ["list"]])
@pytest.mark.usefixtures("kept")
def test_a_pipe_gets_a_line_of_id_time_and_title_for_each(command: list[str]) -> None:
    result = check(0, run("conversations", "fake:", *command))
    assert "c-1\t2026-01-02 03:04\tA\\ttitle\\x1b[31m\nc-2\t\t\n" == result.stdout
    assert "warning: half of it is lost\n" == result.stderr


@pytest.mark.usefixtures("kept")
def test_a_person_gets_a_table() -> None:
    shown = check(0, run("conversations", "fake:", output=Output(terminal=True, moment=60))).stdout
    assert "updated" in shown
    assert "2026-01-02 03:04" in shown
    assert "A\\ttitle\\x1b[31m" in shown


def test_a_person_is_told_that_there_are_none() -> None:
    shown = check(0, run("conversations", "fake:", output=Output(terminal=True, moment=60)))
    assert "There are no conversations." in shown.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["fake:", "--json"],
        ["--json", "fake:"],
        ["fake:", "list", "--json"],
        ["fake:", "--json", "list"],
        ["--debug", "fake:", "--json", "--debug", "list"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("kept")
def test_the_list_as_json_is_one_array_wherever_the_options_stand(words: list[str]) -> None:
    listed = json.loads(check(0, run("conversations", *words)).stdout)
    assert ["c-1", "c-2"] == [each["id"] for each in listed]
    assert {
        "id": "c-1",
        "title": "A\ttitle\x1b[31m",
        "system": None,
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": None,
        "warnings": ["half of it is lost"],
        "extra": {"status": "odd\nstate"},
    } == listed[0]


@pytest.mark.usefixtures("kept")
def test_show_gives_the_fields_and_the_messages() -> None:
    result = check(0, run("conversations", "fake:", "show", "c-1"))
    assert (
        "id: c-1\n"
        "title: A\\ttitle\\x1b[31m\n"
        "created: 2026-01-02T03:04:05Z\n"
        "status: odd\\nstate\n"
        "\nuser, 2026-01-02T03:04:05Z\nLook:\\x1b[2J\n"
        "\nassistant scout\nI see\na cat.\n[attachment]\n[reference: Cats]\n[reference: d-2]\n"
        "\nassistant\n[attachment]\n"
    ) == result.stdout


@pytest.mark.usefixtures("kept")
def test_show_raw_gives_the_text_as_it_is() -> None:
    shown = check(0, run("conversations", "fake:", "show", "c-1", "--raw")).stdout
    assert "Look:\x1b[2J\n" in shown
    assert "A\\ttitle\\x1b[31m" in shown


@pytest.mark.usefixtures("kept")
def test_show_as_json_has_both() -> None:
    shown = json.loads(check(0, run("conversations", "fake:", "show", "c-1", "--json")).stdout)
    assert "c-1" == shown["conversation"]["id"]
    assert ["Look:\x1b[2J", "I see\na cat.", ""] == [each["text"] for each in shown["messages"]]
    assert {"type": "attachment", "media_type": "image/png", "data": "eA==", "url": None, "name": None} == (
        shown["messages"][2]["parts"][0]
    )


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_what_is_not_there_is_the_backends_failure(flag: list[str]) -> None:
    assert "fake has no conversation 'c-9'. Nothing was done." == failure(
        1, "conversations", "fake:", "show", "c-9", *flag
    )


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("command", [["list"], ["show", "c-1"]])
def test_the_warnings_of_conversations_are_noted_or_in_the_json(command: list[str]) -> None:
    assert "warning: half of it is lost\n" == check(0, run("conversations", "fake:", *command)).stderr
    result = check(0, run("conversations", "fake:", *command, "--json"))
    assert "" == result.stderr
    assert '"warnings": ["half of it is lost"]' in result.stdout


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_the_warnings_of_a_renaming_are_noted_or_in_the_json(
    flag: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rename(_: FakeBackend, conversation_id: str, title: str) -> Conversation:
        return Conversation(conversation_id, title=title[:3], warnings=["the title was cut"])

    monkeypatch.setattr(FakeBackend, "rename_conversation", rename)
    result = check(0, run("conversations", "fake:", "rename", "c-1", "Kyoto", *flag))
    assert ("" if flag else "warning: the title was cut\n") == result.stderr
    assert (["the title was cut"] if flag else "c-1\tKyo\n") == (
        json.loads(result.stdout)["warnings"] if flag else result.stdout
    )


def test_where_the_api_has_no_history_it_is_said_what_is_shown() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening:
        run("send", listening.config, "hi", env=emulator.env)
        (thread_id,) = emulator.threads
        arguments = ("conversations", listening.config, "show", thread_id)
        result = check(0, run(*arguments, env=emulator.env))
        assert f"id: {thread_id}\n" == result.stdout.splitlines(keepends=True)[0]
        told = "this is what went through chatbridge, from its store"
        assert f"kaziro tells no history: {told}\n" == result.stderr
        assert [] == json.loads(run(*arguments, "--json", env=emulator.env).stdout)["messages"]
        listed = check(0, run("conversations", listening.config, env=emulator.env))
        assert f"kaziro tells no list: {told}\n" == listed.stderr


@pytest.mark.usefixtures("kept")
def test_where_only_the_history_can_be_read_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "PROFILE", fake.PROFILE.with_features({Feature.GET: Support.UNSUPPORTED}))
    shown = check(0, run("conversations", "fake:", "show", "c-1")).stdout
    assert shown.startswith("id: c-1\n\nuser, ")


def test_where_nothing_can_be_read_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = evolve(fake.PROFILE, features={}, instead={Feature.GET: "your memory"})
    monkeypatch.setattr(fake, "PROFILE", nothing)
    assert "fake does not support get; instead: your memory" == failure(
        2, "conversations", "fake:", "show", "x"
    )


def test_what_the_backend_cannot_do_is_a_usage_error() -> None:
    env = {"KAZIRO_API_KEY": "x", "DATAMONKEY_SESSION_TOKEN": "x"}
    for backend, *command in (("kaziro", "delete", "x"), ("datamonkey", "rename", "x", "y")):
        line = failure(2, "conversations", f"{backend}:", *command, env=env)
        assert line.startswith(f"{backend} does not support {command[0]}; instead: ")


def test_rename_and_delete() -> None:
    with h2ogpte() as (emulator, url, env):
        one, two = (run("send", url, "hi", env=env).stderr.split()[1] for _ in range(2))
        renamed = check(0, run("conversations", url, "rename", one, "First", env=env))
        assert f"{one}\tFirst\n" == renamed.stdout
        document = json.loads(run("conversations", url, "rename", two, "Second", "--json", env=env).stdout)
        assert (two, "Second") == (document["id"], document["title"])
        deleted = check(0, run("conversations", url, "delete", one, env=env))
        assert ("", f"deleted: {one}\n") == (deleted.stdout, deleted.stderr)
        document = json.loads(run("conversations", url, "delete", two, "--json", env=env).stdout)
        assert {"id": two, "deleted": True} == document
        assert [] == json.loads(run("conversations", url, "--json", env=env).stdout)
        line = failure(1, "conversations", url, "delete", one, env=env)
        assert "the server answered 404" in line
        assert {"Bearer sk-emulator"} == {call.headers["Authorization"] for call in emulator.calls}


def test_the_help_of_a_subcommand_needs_no_backend_that_works() -> None:
    assert (
        "Usage: chatbridge conversations URL delete"
        in check(0, run("conversations", "nowhere:", "delete", "--help")).stdout
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--frob"], "No such option '--frob'. See 'chatbridge conversations URL list --help'."),
        (["fake:", "--frob"], "No such option '--frob'. See 'chatbridge conversations URL list --help'."),
        (
            ["fake:", "--raw", "list"],
            "No such option '--raw'. See 'chatbridge conversations URL list --help'.",
        ),
        (["fake:", "--ask-key"], "--ask-key needs a terminal to ask at"),
        (["fake:", "show"], "Missing argument 'ID'. See 'chatbridge conversations URL show --help'."),
        (["-"], "no backend is named"),
    ],
)
def test_what_is_missing_or_too_much_is_said(words: list[str], problem: str) -> None:
    assert problem in failure(2, "conversations", *words)


@pytest.mark.usefixtures("kept")
def test_options_before_a_command_are_the_commands() -> None:
    shown = json.loads(check(0, run("conversations", "--json", "fake:", "show", "c-1")).stdout)
    assert "c-1" == shown["conversation"]["id"]


@pytest.mark.parametrize("command", ["list", "show", "rename", "delete"])
def test_each_command_tells_its_own_help(command: str) -> None:
    usage = check(0, run("conversations", command, "--help")).stdout.splitlines()[0]

    assert f"conversations URL {command} " in usage


def test_a_command_in_the_urls_place_is_told_where_the_url_goes() -> None:
    result = check(2, run("conversations", "show", "c-1"))

    assert "the URL comes before 'show', as in: chatbridge conversations URL show" in result.stderr
