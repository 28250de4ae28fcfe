"""The store of the command line: which one it is, what is read from it, and what goes wrong with it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from click.testing import Result

from chatbridge import history
from chatbridge.cli.output import Output
from chatbridge.cli.stored import snippet
from chatbridge.cli.stores import address
from chatbridge.domain import Reply
from chatbridge.errors import StoreError
from chatbridge.history import Remote, Store
from chatbridge.testing.emulator import Emulator, Fault
from chatbridge.turns import Turn, TurnState
from chatbridge_adapters.anthropic.emulator import AnthropicEmulator
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.kaziro.emulator import COMPLETE, KaziroEmulator
from chatbridge_adapters.openai.emulator import OpenAIEmulator
from cli_kit import check, failure, run, served

KAZIRO = "sk-kaziro"


@define
class Home:
    """A user with a data directory, and what reaches an emulator."""

    path: Path
    emulator: Emulator
    url: str
    env: dict[str, str | None]

    @property
    def file(self) -> Path:
        return self.path / "chatbridge" / "history.db"

    def run(self, *args: str, **settings: Any) -> Result:
        return run(*args, env=self.env | settings.pop("env", {}), **settings)

    def ok(self, *args: str, **settings: Any) -> Result:
        return check(0, self.run(*args, **settings))

    def fails(self, code: int, *args: str, **settings: Any) -> str:
        return failure(code, *args, env=self.env | settings.pop("env", {}), **settings)

    def json(self, *args: str, **settings: Any) -> Any:
        return json.loads(self.ok(*args, "--json", **settings).stdout)

    def shown(self, *args: str, **settings: Any) -> str:
        return self.ok(*args, output=Output(terminal=True, moment=60), **settings).stdout

    def send(self, text: str, *more: str, url: str | None = None) -> str:
        """Send a message, and give the backend's id of the conversation."""
        return self.ok("send", url or self.url, text, *more).stderr.split()[1]

    def lose(self, text: str, *more: str, fault: Fault | None = None) -> str:
        """Send a message whose answer is lost, and give the backend's id of the conversation."""
        operation = COMPLETE if isinstance(self.emulator, KaziroEmulator) else "get_completion"
        self.emulator.fail(fault or Fault(drop="after"), operation=operation)
        return check(1, self.run("send", self.url, text, *more)).stderr.split()[1]


@contextmanager
def at_home(path: Path, emulator: Emulator, options: str = "") -> Generator[Home]:
    with served(emulator) as listening:
        env = {**emulator.env, "CHATBRIDGE_STORE": None, "XDG_DATA_HOME": str(path), "COLUMNS": "300"}
        yield Home(path, emulator, f"{listening.config}{options}", env)


@pytest.fixture
def kaziro(tmp_path: Path) -> Generator[Home]:
    """Give a user of an API that shows no history."""
    with at_home(tmp_path, KaziroEmulator()) as home:
        yield home


@pytest.fixture
def h2ogpte(tmp_path: Path) -> Generator[Home]:
    """Give a user of an API that shows one, who does not look by himself."""
    with at_home(tmp_path, H2OGPTeEmulator(), "?settle_timeout=0") as home:
        yield home


def typed(home: Home, *args: str, lines: tuple[str, ...] = (), **settings: Any) -> Result:
    text = "".join(f"{line}\n" for line in lines)
    return home.ok("chat", *args, stdin=text, output=Output(terminal=True, moment=60), **settings)


# Which store it is


def test_by_default_it_is_a_file_for_its_owner_alone_in_the_data_directory(kaziro: Home) -> None:
    kaziro.send("hi")
    assert [0o700, 0o600] == [each.stat().st_mode & 0o777 for each in (kaziro.file.parent, kaziro.file)]
    assert ["history.db"] == [each.name for each in kaziro.file.parent.iterdir()]
    assert 1 == len(kaziro.json("conversations"))


def test_a_process_has_what_another_said(kaziro: Home) -> None:
    kaziro.send("hi")
    env = {**os.environ, "XDG_DATA_HOME": str(kaziro.path), "CHATBRIDGE_STORE": ""}
    done = subprocess.run(
        (sys.executable, "-m", "chatbridge", "conversations", "--search", "hi"),
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ["user", "assistant"] == [line.split("\t")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("place", ["option", "variable"])
def test_a_store_may_be_named(kaziro: Home, tmp_path: Path, place: str) -> None:
    named = f"sqlite:///{tmp_path}/mine.db"
    words, env = (("--store", named), {}) if place == "option" else ((), {"CHATBRIDGE_STORE": named})
    kaziro.ok("send", kaziro.url, "hi", *words, env=env)
    assert ["mine.db"] == [each.name for each in tmp_path.iterdir()]
    assert 1 == len(kaziro.json("conversations", *words, env=env))


def test_the_option_wins_over_the_variable(kaziro: Home, tmp_path: Path) -> None:
    env = {"CHATBRIDGE_STORE": f"sqlite:///{tmp_path}/mine.db"}
    kaziro.ok("send", kaziro.url, "hi", "--store", f"sqlite:///{tmp_path}/other.db", env=env)
    kaziro.ok("send", kaziro.url, "hi", "--no-store", env=env)
    assert ["other.db"] == [each.name for each in tmp_path.iterdir()]


@pytest.mark.parametrize("command", ["send", "chat", "conversations"])
def test_with_no_store_nothing_is_written(h2ogpte: Home, command: str) -> None:
    if command == "send":
        h2ogpte.ok("send", h2ogpte.url, "hi", "--no-store")
    elif command == "chat":
        h2ogpte.ok("chat", h2ogpte.url, "--no-store", stdin="hi\n")
    else:
        h2ogpte.ok("conversations", h2ogpte.url, "--no-store", "list")
    assert [] == [*h2ogpte.path.iterdir()]


@pytest.mark.parametrize(
    "words",
    [
        ["send", "fake:", "hi"],
        ["chat", "fake:"],
        ["conversations", "fake:"],
        ["describe", "fake"],
        ["features"],
        ["backends"],
        ["conformance", "fake:"],
        ["send", "nowhere:", "hi"],
        ["send", "kaziro:", "hi"],
        ["turns", "--no-store"],
        ["conversations", "--help"],
    ],
    ids=" ".join,
)
def test_who_speaks_to_no_server_writes_nothing(tmp_path: Path, words: list[str]) -> None:
    result = run(*words, stdin="hi\n", env={"CHATBRIDGE_STORE": None, "XDG_DATA_HOME": str(tmp_path)})
    assert "Traceback" not in result.output
    assert [] == [*tmp_path.iterdir()]


def test_what_lives_in_the_process_is_kept_only_where_that_is_named(tmp_path: Path) -> None:
    store = ("--store", f"sqlite:///{tmp_path}/mine.db")
    check(0, run("send", "fake:", "hi", *store))
    (kept,) = json.loads(check(0, run("conversations", *store, "--json")).stdout)
    assert ("fake", None, "conversation-1", 2) == tuple(
        kept[name] for name in ("backend", "account", "remote_id", "messages")
    )


@pytest.mark.parametrize(
    "words",
    [
        ["send", "fake:", "hi"],
        ["chat", "fake:"],
        ["chat", "--continue"],
        ["conversations"],
        ["conversations", "fake:", "show", "x"],
        ["turns"],
        ["settle", "fake:"],
    ],
    ids=" ".join,
)
def test_a_store_and_none_is_a_contradiction(words: list[str]) -> None:
    words = [*words, "--no-store", "--store", "memory:"]
    assert "choose one of --store and --no-store" == failure(2, *words, stdin="hi\n")


@pytest.mark.parametrize(
    "words",
    [
        ["chat", "--continue"],
        ["chat", "fake:", "--continue"],
        ["conversations"],
        ["turns"],
        ["settle", "fake:"],
    ],
)
def test_who_reads_the_store_needs_one(words: list[str]) -> None:
    assert "this reads what a store has: leave out --no-store" == failure(2, *words, "--no-store")


def test_a_string_that_names_no_store_is_told_without_being_shown() -> None:
    line = failure(2, "send", "fake:", "hi", "--store", "redis://me:pass@host")
    assert line.startswith("--store: the string names no kind of store that there is")
    assert "me:pass" not in line


def test_of_a_variable_that_names_no_store_the_name_alone_is_told() -> None:
    for words in (("send", "h2ogpte:", "hi"), ("turns",)):
        env = {"CHATBRIDGE_STORE": "s3cret.db", "H2OGPTE_API_KEY": "x"}
        line = failure(2, *words, env=env)
        assert line.startswith("CHATBRIDGE_STORE: the string names no kind of store")
        assert "s3cret" not in line


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%23b"])
def test_the_data_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    with at_home(tmp_path / name, KaziroEmulator()) as home:
        home.send("hi")
        assert home.file.exists()
        assert 1 == len(home.json("conversations"))
    assert [name] == [each.name for each in tmp_path.iterdir()]


@pytest.mark.parametrize("raised", [True, False])
def test_who_has_no_home_is_told_what_to_do(
    h2ogpte: Home, monkeypatch: pytest.MonkeyPatch, *, raised: bool
) -> None:
    def nowhere(*_: object, **__: object) -> Path:
        if raised:
            raise RuntimeError("Could not determine home directory.")
        return Path("~/.local/share/chatbridge")

    monkeypatch.setattr("platformdirs.user_data_path", nowhere)
    for words in (("send", h2ogpte.url, "hi"), ("turns",), ("conversations",)):
        assert (
            "there is no home directory to keep a store in: set HOME or XDG_DATA_HOME; or use --store for "
            "another one, --no-store for none"
        ) == h2ogpte.fails(1, *words)
    h2ogpte.ok("send", h2ogpte.url, "hi", "--no-store")
    assert 1 == len(h2ogpte.json("conversations", h2ogpte.url))


def test_a_list_that_the_api_has_needs_no_store(h2ogpte: Home, kaziro: Home) -> None:
    h2ogpte.ok("send", h2ogpte.url, "hi", "--no-store")
    h2ogpte.file.parent.write_bytes(b"")  # Where the directory would be.
    assert 1 == len(h2ogpte.json("conversations", h2ogpte.url))
    assert "cannot be made" in kaziro.fails(1, "conversations", kaziro.url)


@pytest.mark.parametrize(
    "words",
    [["conversations"], ["conversations", "--search", "x"], ["turns"], ["settle"], ["chat", "--continue"]],
    ids=" ".join,
)
def test_who_only_reads_makes_no_store(kaziro: Home, words: list[str]) -> None:
    words = [*words, kaziro.url] if words == ["settle"] else words
    typo = kaziro.path / "typo.db"
    line = kaziro.fails(2, *words, "--store", f"sqlite:///{typo}")
    assert f"--store: there is no store '{typo}'" == line
    variable = kaziro.fails(2, *words, env={"CHATBRIDGE_STORE": f"sqlite:///{typo}"})
    assert f"CHATBRIDGE_STORE: there is no store '{typo}'" == variable
    kaziro.run(*words)
    assert [] == [*kaziro.path.iterdir()]


def test_through_a_pipe_too_an_empty_store_is_told(kaziro: Home) -> None:
    assert "The store has no conversations.\n" == kaziro.ok("conversations").stderr
    assert "Nothing is in doubt.\n" == kaziro.ok("turns").stderr
    assert "The store has no messages.\n" == kaziro.ok("turns", "--all").stderr
    assert "nothing was found\n" == kaziro.ok("conversations", "--search", "x").stderr
    assert ("[]\n", "") == ((result := kaziro.ok("conversations", "--json")).stdout, result.stderr)


# APIs that keep nothing


@pytest.mark.parametrize("emulator", [OpenAIEmulator, AnthropicEmulator])
def test_of_an_api_that_keeps_nothing_every_command_has_what_the_store_keeps(
    tmp_path: Path, emulator: type[Emulator]
) -> None:
    with at_home(tmp_path, emulator()) as home:
        first, second = home.send("I like maples."), home.send("I like oaks.")

        assert [second, first] == [each["id"] for each in home.json("conversations", home.url)]
        assert 2 == len(home.json("conversations", home.url, "show", first)["messages"])
        assert "Trees" == home.json("conversations", home.url, "rename", first, "Trees")["title"]
        assert "Trees" in home.ok("conversations", home.url).stdout
        assert "I like maples." in home.ok("turns", home.url, "--all").stdout
        assert "Nothing is in doubt.\n" == home.ok("settle", home.url).stderr
        home.ok("send", home.url, "And pines.", "--conversation", first)
        assert 4 == len(home.json("conversations", home.url, "show", first)["messages"])
        home.ok("conversations", home.url, "delete", first)
        home.ok("conversations", home.url, "forget", second)
        assert [] == home.json("conversations", home.url)
        assert [] == home.json("conversations")


@pytest.mark.parametrize("words", [["send", "Hi"], ["chat"]])
@pytest.mark.parametrize(
    ("fault", "left", "told"),
    [
        (Fault(status=401), 0, "was removed again, as nothing was said in it"),
        (Fault(drop="before"), 0, "was removed again"),
        (Fault(drop="after"), 0, "was removed again"),
        (Fault(status=200, body=b'{"choices": 1}'), 1, "was created"),
    ],
)
def test_a_conversation_of_an_api_that_keeps_nothing_goes_with_its_first_message(
    tmp_path: Path, words: list[str], fault: Fault, left: int, told: str
) -> None:
    with at_home(tmp_path, OpenAIEmulator(), "&attempts=1") as home:
        home.emulator.fail(fault)
        failed = home.run(words[0], home.url, *words[1:], stdin="Hi\n")
        assert 1 == failed.exit_code
        assert told in failed.stderr
        assert left == len(home.json("conversations"))


def test_that_it_could_not_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise StoreError("the file cannot be written", kind="failed")

    monkeypatch.setattr(history.SQLiteStore, "forget", refuse)
    with at_home(tmp_path, OpenAIEmulator()) as home:
        home.emulator.fail(Fault(status=401))
        failed = check(1, home.run("send", home.url, "Hi"))
        assert "was created" in failed.stderr
        assert "cannot be written" not in failed.stderr


def test_of_a_fake_that_keeps_nothing_too(tmp_path: Path) -> None:
    url, store = "fake:?keeps=nothing", ("--store", f"sqlite:///{tmp_path / 'chats.db'}")
    sent = check(0, run("send", url, "Hello", *store)).stderr.split()[1]

    (listed,) = json.loads(check(0, run("conversations", url, "list", "--json", *store)).stdout)

    assert sent == listed["id"]


# chat --continue


def test_it_goes_on_with_the_conversation_last_used(kaziro: Home) -> None:
    first, second = kaziro.send("One"), kaziro.send("Two")
    assert first != second
    assert f"conversation: {second}\n" == kaziro.ok("chat", kaziro.url, "--continue").stderr
    kaziro.send("Three", "-c", first)
    result = kaziro.ok("chat", "--continue", kaziro.url, stdin="Four\n")
    assert f"conversation: {first}\n" == result.stderr
    assert result.stdout.startswith("Turn 3: you said 'Four'. Before that you said 'Three'.")


def test_at_a_terminal_the_last_lines_are_shown_first(kaziro: Home) -> None:
    chat_id = kaziro.send("One\nand a half")
    result = typed(kaziro, kaziro.url, "--continue", lines=("Two",))
    before, after = result.stdout.split("> ", 2)[1:]
    assert ("One\n", "and a half\nTurn 1: you said 'One\\nand a half'.\n") == (before, after.split("> ")[0])
    assert f"conversation: {chat_id}" == result.stderr.splitlines()[0]


def test_what_is_in_doubt_is_told_at_once(h2ogpte: Home) -> None:
    h2ogpte.lose("One")
    doubt = "'One' is in doubt: /settle looks for it again, /waive lets the next message go"
    assert doubt in typed(h2ogpte, h2ogpte.url, "--continue").stderr.splitlines()


def test_no_more_than_ten_lines_are_shown(kaziro: Home) -> None:
    kaziro.send("\n".join("abcdefghijklmnop"))
    shown = typed(kaziro, kaziro.url, "--continue").stdout.splitlines()
    assert [*(f"> {letter}" for letter in "hijklmnop"), "Turn 1: you said "] == [
        *shown[:9],
        shown[9][: len("Turn 1: you said ")],
    ]


@pytest.mark.parametrize("named", ["variable", "default", "other"])
def test_without_a_url_it_goes_to_whoever_was_used_last_and_is_known(
    kaziro: Home, tmp_path: Path, named: str
) -> None:
    chat_id = kaziro.send("One")
    config = tmp_path / "config.toml"
    lines = 'default = "fake:"\n' if named == "other" else 'default = "mine"\n' if named == "default" else ""
    other = f'[backends.a]\nurl = "kaziro://other.example"\n[backends.mine]\nurl = "{kaziro.url}"\n'
    config.write_text(f"{lines}{other if named != 'variable' else ''}")
    env = {"CHATBRIDGE_CONFIG": str(config)}
    env |= {"CHATBRIDGE_BACKEND": kaziro.url} if named == "variable" else {}
    result = kaziro.ok("chat", "--continue", stdin="Two\n", env=env)
    assert f"conversation: {chat_id}\n" == result.stderr
    assert result.stdout.startswith("Turn 2: you said 'Two'.")


def test_without_a_url_one_that_is_not_known_is_asked_for(kaziro: Home) -> None:
    kaziro.send("One")
    account = kaziro.url.partition("//")[2]
    assert (
        f"the conversation last used is kept by kaziro at {account}, and neither the default backend nor one "
        f"in the config file is that: name it, as in: chatbridge chat --continue {kaziro.url}"
    ) == kaziro.fails(2, "chat", "--continue")


@pytest.mark.parametrize(
    ("account", "url"),
    [
        (None, "kaziro:"),
        ("kaziro.example", "kaziro://kaziro.example"),
        ("kaziro.example:8443/api?tenant=a", "kaziro://kaziro.example:8443/api?tenant=a"),
        ("127.0.0.1:80", "kaziro+http://127.0.0.1:80"),
        ("[::1]:80/v1", "kaziro+http://[::1]:80/v1"),
    ],
)
def test_the_url_that_is_proposed_leads_to_the_account(account: str | None, url: str) -> None:
    assert url == address(Remote("kaziro", "t-1", account))


def test_what_an_api_does_not_show_comes_from_the_store(kaziro: Home) -> None:
    chat_id = kaziro.send("One")
    kaziro.ok("conversations", kaziro.url, "rename", chat_id, "First")
    assert [(chat_id, "First")] == [
        (each["id"], each["title"]) for each in kaziro.json("conversations", kaziro.url)
    ]
    shown = kaziro.ok("conversations", kaziro.url, "show", local_id(kaziro)).stdout
    assert f"id: {chat_id}\ntitle: First\n" in shown
    assert "user\nOne\n" in shown


def test_what_was_deleted_is_not_gone_on_with(h2ogpte: Home) -> None:
    first = h2ogpte.send("One")
    h2ogpte.send("Two", "--delete")
    assert f"conversation: {first}" in h2ogpte.ok("chat", "--continue", h2ogpte.url).stderr


def test_what_was_only_looked_at_is_not_gone_on_with(h2ogpte: Home) -> None:
    elsewhere, here = h2ogpte.send("One", "--no-store"), h2ogpte.send("Two")
    h2ogpte.ok("conversations", h2ogpte.url, "show", elsewhere)
    assert f"conversation: {here}" in h2ogpte.ok("chat", "--continue", h2ogpte.url).stderr


@pytest.mark.parametrize("words", [["show"], ["rename", "New"]], ids=str)
def test_what_was_talked_in_before_and_only_looked_at_since_is_not_gone_on_with(
    h2ogpte: Home, words: list[str]
) -> None:
    first, last = h2ogpte.send("One"), h2ogpte.send("Two")
    h2ogpte.ok("conversations", h2ogpte.url, words[0], first, *words[1:])
    assert f"conversation: {last}" in h2ogpte.ok("chat", "--continue", h2ogpte.url).stderr


def test_what_was_made_and_never_talked_in_is_not_gone_on_with(h2ogpte: Home) -> None:
    here = h2ogpte.send("One")
    typed(h2ogpte, h2ogpte.url)
    assert f"conversation: {here}" in h2ogpte.ok("chat", "--continue", h2ogpte.url).stderr


def test_another_accounts_conversation_is_not_gone_on_with(kaziro: Home) -> None:
    kaziro.send("One")
    with served(KaziroEmulator()) as other:
        line = kaziro.fails(2, "chat", other.config, "--continue")
    account = other.config.partition("//")[2]
    assert line.startswith(
        f"the store has no conversation of kaziro at {account} to go on with: leave out --"
    )


def test_an_empty_store_has_nothing_to_go_on_with(kaziro: Home) -> None:
    assert "the store has no conversation to go on with: leave out --continue to begin one" == kaziro.fails(
        2, "chat", "--continue"
    )


def test_one_conversation_is_named_at_most() -> None:
    assert "choose one of --continue and --conversation" == failure(2, "chat", "--continue", "-c", "x")


# The store's ids


def local_id(home: Home) -> str:
    return str(home.json("conversations")[0]["id"])


def test_the_stores_id_does_where_the_backends_does(h2ogpte: Home) -> None:
    chat_id = h2ogpte.send("One")
    here = local_id(h2ogpte)
    assert chat_id == h2ogpte.send("Two", "-c", here)
    assert f"conversation: {chat_id}" in h2ogpte.ok("chat", h2ogpte.url, "-c", here).stderr
    assert f"conversation: {chat_id}" in h2ogpte.ok("chat", h2ogpte.url, stdin=f"/open {here}\n").stderr
    assert h2ogpte.ok("conversations", h2ogpte.url, "show", here).stdout.startswith(f"id: {chat_id}\n")
    assert f"{chat_id}\tNew\n" == h2ogpte.ok("conversations", h2ogpte.url, "rename", here, "New").stdout
    h2ogpte.ok("conversations", h2ogpte.url, "delete", here)
    assert h2ogpte.json("conversations")[0]["deleted"]


def test_anothers_conversation_is_told_whose_it_is(kaziro: Home) -> None:
    kaziro.send("One")
    here, account = local_id(kaziro), kaziro.url.partition("//")[2]
    line = kaziro.fails(
        2, "send", "h2ogpte://h2ogpte.example", "Two", "-c", here, env={"H2OGPTE_API_KEY": "x"}
    )
    assert line.startswith(f"the conversation '{here}' is kept by kaziro at {account}, and cannot be opened")


# conversations without URL


def test_conversations_without_url_has_all_backends_the_last_used_first(kaziro: Home) -> None:
    one = kaziro.send("One")
    with at_home(kaziro.path, H2OGPTeEmulator()) as other:
        two = other.send("Two", "--delete")
    account = {"account": kaziro.url.partition("//")[2], "deleted": False, "title": None, "messages": 2}
    listed = kaziro.json("conversations")
    assert [two, one] == [each["remote_id"] for each in listed]
    assert {"backend": "kaziro", "remote_id": one, **account} == {
        name: value for name, value in listed[1].items() if name not in {"id", "used_at"}
    }
    assert ["h2ogpte", True] == [listed[0]["backend"], listed[0]["deleted"]]
    lines = [line.split("\t") for line in kaziro.ok("conversations").stdout.splitlines()]
    assert [["2", "deleted", ""], ["2", "", ""]] == [line[4:] for line in lines]
    assert [each["id"] for each in listed] == [line[0] for line in lines]
    assert [listed[0]["used_at"][:10], "h2ogpte", listed[0]["account"]] == [lines[0][1][:10], *lines[0][2:4]]
    shown = kaziro.shown("conversations")
    assert f"h2ogpte at {listed[0]['account']} (deleted)" in shown
    assert f"kaziro at {account['account']}  " in shown


@pytest.mark.parametrize("words", [[], ["list"], ["--limit", "2", "list"], ["--debug"]], ids=" ".join)
def test_an_empty_store_has_no_conversations(kaziro: Home, words: list[str]) -> None:
    assert "" == kaziro.ok("conversations", *words).stdout
    assert "The store has no conversations.\n" == kaziro.shown("conversations", *words)


def test_a_list_has_a_limit(h2ogpte: Home) -> None:
    first, second = h2ogpte.send("One"), h2ogpte.send("Two")
    assert [second] == [each["remote_id"] for each in h2ogpte.json("conversations", "--limit", "1")]
    assert 1 == len(h2ogpte.json("conversations", h2ogpte.url, "--limit=1"))
    assert {first, second} == {each["id"] for each in h2ogpte.json("conversations", h2ogpte.url)}
    assert "0 is not in the range" in h2ogpte.fails(2, "conversations", "--limit", "0")


# conversations --search


def test_a_search_shows_where_the_words_were_said(kaziro: Home) -> None:
    kaziro.send("When do the maples turn?")
    kaziro.send("Nothing of interest")
    lines = [
        line.split("\t") for line in kaziro.ok("conversations", "--search", "MAPLE turn").stdout.splitlines()
    ]
    assert ["user", "When do the [maples] [turn]?"] == lines[0][2:]
    assert "assistant" == lines[1][2]
    assert 1 == len({line[0] for line in lines})
    assert 1 == len(kaziro.ok("conversations", "--search", "maple", "--limit", "1").stdout.splitlines())
    (hit, _) = kaziro.json("conversations", "--search", "maple")
    assert ("When do the [maples] turn?", "When do the maples turn?", lines[0][0]) == (
        hit["snippet"],
        hit["message"]["text"],
        hit["conversation"]["id"],
    )
    shown = kaziro.shown("conversations", "--search", "maple")
    assert "user: When do the \x1b[1mmaples\x1b[0m turn?" in shown


def test_a_search_that_finds_nothing_says_so(kaziro: Home) -> None:
    kaziro.send("hi")
    result = kaziro.ok("conversations", "--search", "maple", output=Output(terminal=True, moment=60))
    assert ("", "nothing was found\n") == (result.stdout, result.stderr)
    assert "" == kaziro.ok("conversations", "--search", "maple").stdout


def test_what_cannot_be_searched_is_refused(kaziro: Home) -> None:
    assert "there is no word to search for in '!?'" == kaziro.fails(2, "conversations", "--search", "!?")
    assert "--search looks into the store, over all backends: leave out the URL" == kaziro.fails(
        2, "conversations", kaziro.url, "--search", "x"
    )


@pytest.mark.parametrize(
    ("said", "searched", "shown"),
    [
        ("Maples\n\tturn red", "red maple", "<Maples> turn <red>"),
        ("no such word", "maple", "no such word"),
        (f"{'a ' * 40}maple{' b' * 80}", "maple", f"…{'a ' * 15}<maple>{' b' * 42} …"),
        (f"maple {'a' * 120} maple", "maple", f"<maple> {'a' * 114}…"),
        ("x_maple", "maple", "x_<maple>"),
        ("", "maple", ""),
    ],
)
def test_a_snippet_is_what_is_around_the_first_word(said: str, searched: str, shown: str) -> None:
    pieces = snippet(said, searched)
    assert shown == "".join(f"<{piece}>" if is_word else piece for piece, is_word in pieces)


# turns


def test_turns_shows_what_is_in_doubt(kaziro: Home) -> None:
    chat_id = kaziro.lose("Book\nit")
    kaziro.send("Fine")
    (turn,) = kaziro.json("turns")
    account = kaziro.url.partition("//")[2]
    assert ("unknown", "kaziro", account, chat_id, "Book\nit", False) == (
        *(turn[name] for name in ("state", "backend", "account", "conversation_id")),
        turn["message"]["text"],
        turn["waived"],
    )
    kept = {each["remote_id"]: each["id"] for each in kaziro.json("conversations")}
    (line,) = kaziro.ok("turns").stdout.splitlines()
    cells = [turn["id"], "unknown", turn["started_at"][:16].replace("T", " "), "kaziro", account]
    assert [*cells, kept[chat_id], "Book\\nit"] == line.split("\t")
    assert kept[chat_id] == turn["stored_as"]
    shown = kaziro.shown("turns")
    assert f"kaziro at {account}" in shown
    assert "'Book\\nit'" in shown


def test_turns_may_show_all(kaziro: Home) -> None:
    kaziro.lose("One")
    kaziro.send("Two")
    assert ["unknown", "delivered"] == [turn["state"] for turn in kaziro.json("turns", "--all")]


def test_turns_may_be_of_one_backend(kaziro: Home) -> None:
    kaziro.lose("One")
    with at_home(kaziro.path, H2OGPTeEmulator(), "?settle_timeout=0") as other:
        other.lose("Two")
        assert ["One", "Two"] == [turn["message"]["text"] for turn in kaziro.json("turns")]
        assert ["Two"] == [turn["message"]["text"] for turn in other.json("turns", other.url)]


def test_where_nothing_is_in_doubt_that_is_said(kaziro: Home) -> None:
    assert "The store has no messages.\n" == kaziro.shown("turns", "--all")
    kaziro.send("hi")
    assert ("Nothing is in doubt.\n", "") == (kaziro.shown("turns"), kaziro.ok("turns").stdout)
    assert "Nothing is in doubt.\n" == kaziro.ok("settle", kaziro.url).stderr
    assert [] == kaziro.json("settle", kaziro.url)


# settle


def test_a_message_in_doubt_blocks_and_the_cure_is_told(h2ogpte: Home) -> None:
    chat_id = h2ogpte.lose("One")
    (turn,) = h2ogpte.json("turns")
    told = (
        "chatbridge: not sent: 'One' is in doubt, and blocks what follows it; to look for it: chatbridge "
        f"settle '{h2ogpte.url}' {chat_id}; to let the next message go all the same: chatbridge settle "
        f"'{h2ogpte.url}' --waive {turn['id']}"
    )
    for words in (("send", h2ogpte.url, "Two"), ("chat", h2ogpte.url)):
        result = check(2, h2ogpte.run(*words, "-c", chat_id, stdin="Two\n"))
        assert told == result.stderr.splitlines()[-1]


def test_the_cure_names_the_store_as_it_was_given_and_works_as_it_is_told(kaziro: Home) -> None:
    store = f"sqlite:///{kaziro.path}/my own.db"
    chat_id = kaziro.lose("One", "--store", store)
    (turn,) = kaziro.json("turns", "--store", store)
    blocked = check(2, kaziro.run("send", kaziro.url, "Two", "-c", chat_id, "--store", store))
    cure = f"chatbridge settle {kaziro.url} --waive {turn['id']} --store '{store}'"
    way = f"kaziro cannot tell whether it arrived; to let the next message go all the same: {cure}"
    assert blocked.stderr.endswith(f"; {way}\n")
    settled = check(1, kaziro.run("settle", kaziro.url, "--store", store))
    assert settled.stderr.endswith(f": {cure}\n")
    kaziro.ok(*shlex.split(cure)[1:])
    assert [] == kaziro.json("turns", "--store", store)


def test_with_a_backend_that_is_named_by_nobody_the_cure_names_it(kaziro: Home) -> None:
    chat_id = kaziro.lose("One")
    result = check(
        2, kaziro.run("chat", "-c", chat_id, stdin="Two\n", env={"CHATBRIDGE_BACKEND": kaziro.url})
    )
    assert f"chatbridge settle {kaziro.url} --waive " in result.stderr


@pytest.mark.parametrize("which", ["all", "remote", "local"])
def test_settle_finds_the_answer_that_was_lost(h2ogpte: Home, which: str) -> None:
    chat_id = h2ogpte.lose("One")
    (turn,) = h2ogpte.json("turns")
    names = {"all": [], "remote": [chat_id], "local": [turn["stored_as"]]}
    result = h2ogpte.ok("settle", h2ogpte.url, *names[which])
    assert "Turn 1: you said 'One'.\n" == result.stdout
    assert [f"conversation: {chat_id}", "'One' was answered:"] == result.stderr.splitlines()
    assert [] == h2ogpte.json("turns")
    assert chat_id == h2ogpte.send("Two", "-c", chat_id)


def test_settle_as_json_has_the_turns(h2ogpte: Home) -> None:
    h2ogpte.lose("One")
    (turn,) = h2ogpte.json("settle", h2ogpte.url)
    assert ("delivered", True) == (turn["state"], turn["reply"]["recovered"])


def test_what_stays_in_doubt_is_a_failure_until_it_is_waived(h2ogpte: Home) -> None:
    chat_id = h2ogpte.lose("One", fault=Fault(drop="after", kept="nothing"))
    (turn,) = h2ogpte.json("turns")
    result = check(1, h2ogpte.run("settle", h2ogpte.url, "--wait", "0"))
    cure = f"chatbridge settle '{h2ogpte.url}' --waive {turn['id']}"
    assert (
        "",
        [
            f"conversation: {chat_id}",
            f"'One' stays in doubt; to let the next message go all the same: {cure}",
        ],
    ) == (result.stdout, result.stderr.splitlines())
    waived = h2ogpte.ok("settle", h2ogpte.url, "--waive", turn["id"])
    assert "'One' is left in doubt, and the next message may go\n" == waived.stderr
    assert [] == h2ogpte.json("turns")
    assert ["unknown, waived"] == [
        line.split("\t")[1] for line in h2ogpte.ok("turns", "--all").stdout.splitlines()
    ]
    assert chat_id == h2ogpte.send("Two", "-c", chat_id)


def test_where_the_api_cannot_tell_that_is_said_and_how_to_go_on(kaziro: Home) -> None:
    chat_id = kaziro.lose("One")
    calls = len(kaziro.emulator.calls)
    (turn,) = kaziro.json("turns")
    result = check(1, kaziro.run("settle", kaziro.url))
    assert (
        f"'One' stays in doubt: kaziro cannot tell whether it arrived; to let the next message go all the "
        f"same: chatbridge settle {kaziro.url} --waive {turn['id']}"
    ) == result.stderr.splitlines()[1]
    (waived,) = kaziro.json("settle", kaziro.url, chat_id, "--waive", turn["id"])
    assert waived["waived"]
    assert calls == len(kaziro.emulator.calls)
    assert chat_id == kaziro.send("Two", "-c", chat_id)


def test_what_arrived_and_was_not_answered_is_no_doubt(kaziro: Home) -> None:
    kaziro.lose("One", fault=Fault(status=200, body=b"{"))
    assert ["accepted"] == [turn["state"] for turn in kaziro.json("turns")]
    assert (
        "'One' arrived, and there is no answer to it"
        == kaziro.ok("settle", kaziro.url).stderr.splitlines()[1]
    )


def test_only_what_is_in_doubt_can_be_waived(kaziro: Home) -> None:
    kaziro.send("One")
    (turn,) = kaziro.json("turns", "--all")
    assert "'One' blocks nothing: it is delivered\n" == (
        kaziro.ok("settle", kaziro.url, "--waive", turn["id"]).stderr
    )
    account = kaziro.url.partition("//")[2]
    assert (
        f"the store has no message 'x' to kaziro at {account}; those that it has: chatbridge turns "
        f"{kaziro.url} --all" == kaziro.fails(2, "settle", kaziro.url, "--waive", "x")
    )


def test_a_conversation_that_cannot_be_read_does_not_keep_others_from_being_settled(h2ogpte: Home) -> None:
    gone, there = h2ogpte.lose("One"), h2ogpte.lose("Two")
    h2ogpte.ok("conversations", h2ogpte.url, "--no-store", "delete", gone)
    result = check(1, h2ogpte.run("settle", h2ogpte.url))
    assert "Turn 1: you said 'Two'.\n" == result.stdout
    first, second, _ = result.stderr.splitlines()
    assert first.startswith(f"chatbridge: {gone}: ")
    assert "404" in first
    assert f"conversation: {there}" == second


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["conversations", "--ask-key"], "--ask-key is for a backend: name one, with its URL"),
        (["turns", "--ask-key"], "--ask-key is for a backend: name one, with its URL"),
        (["settle", "fake:", "--waive", "x", "--wait", "0"], "choose one of --waive and --wait"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(words: list[str], problem: str) -> None:
    assert problem == failure(2, *words)


def test_a_time_to_wait_that_is_none_is_refused(h2ogpte: Home) -> None:
    h2ogpte.lose("One")
    assert "to wait for nan seconds makes no sense" in h2ogpte.fails(
        2, "settle", h2ogpte.url, "--wait", "nan"
    )


# conversations forget


@pytest.mark.parametrize("by", ["the backend's id", "the store's id", "the store's id alone"])
def test_a_conversation_is_forgotten_with_its_doubts(kaziro: Home, by: str) -> None:
    chat_id, other = kaziro.lose("One"), kaziro.send("Two")
    here = kaziro.json("conversations")[1]["id"]
    words = [kaziro.url] if by != "the store's id alone" else []
    shown = chat_id if by == "the backend's id" else here
    calls = len(kaziro.emulator.calls)
    result = kaziro.ok("conversations", *words, "forget", shown)
    assert ("", f"forgotten: {shown}\n") == (result.stdout, result.stderr)
    assert [other] == [each["remote_id"] for each in kaziro.json("conversations")]
    assert [] == kaziro.json("turns")
    assert calls == len(kaziro.emulator.calls)
    kaziro.ok("send", kaziro.url, "Three", "-c", chat_id)


def test_forgetting_may_be_told_as_json_and_of_any_store(kaziro: Home) -> None:
    store = ("--store", f"sqlite:///{kaziro.path}/mine.db")
    kaziro.send("One", *store)
    (kept,) = kaziro.json("conversations", *store)
    for words in (["forget", kept["id"], *store], [*store, "forget", kept["id"]]):
        result = kaziro.run("conversations", *words, "--json")
        if words[0] == "forget":
            assert {"id": kept["id"], "forgotten": True} == json.loads(check(0, result).stdout)
    assert 2 == result.exit_code
    assert f"the store has no conversation '{kept['id']}'; those that it has: " in result.stderr


def test_what_the_store_does_not_have_cannot_be_forgotten(kaziro: Home) -> None:
    account = kaziro.url.partition("//")[2]
    assert (
        f"the store has no conversation 'x' of kaziro at {account}; those that it has: chatbridge "
        "conversations"
    ) == kaziro.fails(2, "conversations", kaziro.url, "forget", "x")
    assert "the store has no conversation 'x'; those that it has: chatbridge conversations" == kaziro.fails(
        2, "conversations", "forget", "x"
    )


def test_what_is_under_way_is_not_forgotten(kaziro: Home) -> None:
    kaziro.send("One")
    (kept,) = kaziro.json("conversations")

    async def hold() -> None:
        async with history.SQLiteStore(kaziro.file) as store:
            there = await store.find(kept["id"])
            assert there is not None
            await store.hold(there.remote, "somebody")

    asyncio.run(hold())
    line = kaziro.fails(1, "conversations", "forget", kept["id"])
    assert f"a message is under way to the conversation '{kept['id']}': try again after it" == line


@pytest.mark.parametrize("words", [["forget"], ["forget", "kaziro:", "x"], ["show", "x"]], ids=" ".join)
def test_a_command_in_the_place_of_the_url_is_misplaced(words: list[str]) -> None:
    line = failure(2, "conversations", *words)
    assert line.startswith(f"the URL comes before '{words[0]}'")


def test_a_key_is_asked_for_a_backend_alone() -> None:
    line = failure(2, "conversations", "--ask-key", "forget", "x")
    assert "--ask-key is for a backend: name one, with its URL" == line


def test_who_cannot_delete_is_told_how_to_forget(kaziro: Home) -> None:
    chat_id = kaziro.send("One")
    line = kaziro.fails(2, "conversations", kaziro.url, "delete", chat_id)
    command = f"chatbridge conversations {kaziro.url} forget {chat_id}"
    assert line.endswith(f"Here that is '{command}'.")
    kaziro.ok(*shlex.split(command)[1:])
    assert [] == kaziro.json("conversations")


def test_the_help_has_the_options_of_the_list_that_is_meant() -> None:
    shown = check(0, run("conversations", "--help")).stdout
    own, _, listing = shown.partition("Options of list:")
    assert "--search" not in own.partition("Options:")[2]
    assert all(name in listing for name in ("--search TEXT", "--limit N", "--json"))
    assert "--store" not in listing


# What goes wrong


@pytest.mark.parametrize(
    "words",
    [["send", "URL", "hi"], ["chat", "URL"], ["conversations"], ["turns"], ["settle", "URL"]],
    ids=str,
)
@pytest.mark.parametrize(
    ("damage", "words_of_it"),
    [
        ("corrupt", "put it aside, and use a copy or another file"),
        ("newer", "update chatbridge, or use another file"),
        ("foreign", "the file is another program's database; put it aside, and use a copy or another file"),
        ("no directory", "cannot be made: "),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_with_the_cure(
    kaziro: Home, words: list[str], damage: str, words_of_it: str
) -> None:
    if damage == "no directory":
        kaziro.file.parent.write_bytes(b"")
    else:
        kaziro.file.parent.mkdir()
        DAMAGES[damage](kaziro.file)
    asked = [kaziro.url if word == "URL" else word for word in words]
    line = kaziro.fails(1, *asked, stdin="hi\n")
    assert words_of_it in line
    assert str(kaziro.file.parent) in line
    assert line.endswith("; or use --store for another one, --no-store for none")
    assert [] == kaziro.emulator.calls


def _newer(path: Path) -> None:
    check(0, run("send", "fake:", "hi", "--store", f"sqlite:///{path}"))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    "corrupt": lambda path: path.write_bytes(b"no database at all" * 100),
    "newer": _newer,
    "foreign": _foreign,
}


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no store keep an answer."""
    record = Store.record

    async def refuse(
        store: Store, remote: Remote, turn: Turn, answer: Reply | None = None, **more: Any
    ) -> Turn:
        if turn.state is TurnState.DELIVERED:
            raise StoreError("the disk is full", kind="full")
        return await record(store, remote, turn, answer, **more)

    monkeypatch.setattr(Store, "record", refuse)


UNSTORED = "chatbridge: the answer is here, and could not be stored: the disk is full"


@pytest.mark.usefixtures("unwritable")
def test_an_answer_that_cannot_be_stored_is_printed_and_told(kaziro: Home) -> None:
    result = check(1, kaziro.run("send", kaziro.url, "hi"))
    assert "Turn 1: you said 'hi'.\n" == result.stdout
    assert result.stderr.splitlines()[-1].startswith(UNSTORED)
    result = check(1, kaziro.run("send", kaziro.url, "hi", "--json"))
    assert "Turn 1: you said 'hi'." == json.loads(result.stdout)["text"]
    assert result.stderr.splitlines()[-1].startswith(UNSTORED)


@pytest.mark.usefixtures("unwritable")
def test_a_chat_shows_an_answer_that_cannot_be_stored(h2ogpte: Home) -> None:
    result = check(1, h2ogpte.run("chat", h2ogpte.url, stdin="hi\nlost\n"))
    assert "Turn 1: you said 'hi'.\n" == result.stdout
    assert result.stderr.splitlines()[-1].startswith(UNSTORED)
    result = typed(h2ogpte, h2ogpte.url, lines=("hi",))
    assert "Turn 1: you said 'hi'.\n" in result.stdout
    assert UNSTORED.removeprefix("chatbridge: ") in result.stderr


def test_a_message_that_cannot_be_recorded_is_not_sent(kaziro: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> Turn:
        raise StoreError("the disk is full", kind="full")

    monkeypatch.setattr(Store, "record", refuse)
    for words in (("send", kaziro.url, "hi"), ("chat", kaziro.url)):
        result = check(1, kaziro.run(*words, stdin="hi\n"))
        assert "" == result.stdout
        assert "chatbridge: the disk is full. The conversation " in result.stderr
    assert [] == [call for call in kaziro.emulator.calls if call.operation == COMPLETE]


def test_what_is_to_be_done_is_a_sentence_after_sentences(
    kaziro: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> Turn:
        raise StoreError("the disk is full", kind="full")

    monkeypatch.setattr(Store, "record", refuse)
    line = check(1, kaziro.run("send", kaziro.url, "hi")).stderr.splitlines()[-1]
    assert line.endswith(" was created. Or use --store for another one, --no-store for none.")


@pytest.mark.parametrize("command", ["send", "chat"])
def test_the_same_reason_is_told_once(kaziro: Home, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    async def refuse(*_: object, **__: object) -> Turn:
        raise StoreError("the disk is full", kind="full")

    monkeypatch.setattr(Store, "keep", refuse)
    words = (kaziro.url, "hi") if command == "send" else (kaziro.url,)
    warned = kaziro.ok(command, *words, stdin="hi\n")
    assert "warning: it is not stored: the disk is full" == warned.stderr.splitlines()[1]
    monkeypatch.setattr(Store, "record", refuse)
    failed = check(1, kaziro.run(command, *words, stdin="hi\n"))
    assert 1 == failed.stderr.count("the disk is full")
