"""Keys that a server gives out, saved with --save-key or told of as lost."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chatbridge.domain import Conversation
from chatbridge.secret import Secret
from chatbridge.testing.fake import FakeBackend
from chatbridge.text import quoted
from chatbridge_adapters.datamonkey.emulator import DatamonkeyEmulator
from cli_kit import check, failure, run, served

LOST = (
    "warning: the server gave a key to what it keeps, and it is lost when this program ends; "
    "the next time, save it with --save-key FILE\n"
)


@contextmanager
def sessions() -> Generator[tuple[DatamonkeyEmulator, str]]:
    """Serve an API whose keys come from its server; give the emulator, and what reaches it without."""
    emulator = DatamonkeyEmulator()
    with served(emulator) as listening:
        yield emulator, listening.config.partition("?")[0]


@contextmanager
def printed_to(file: Path, descriptor: int) -> Generator[None]:
    """Let stdout or stderr end in *file*."""
    before = os.dup(descriptor)
    with file.open("w") as opened:
        os.dup2(opened.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)


def given(emulator: DatamonkeyEmulator) -> str:
    """Give the newest key that the server gave out."""
    assert emulator.key != list(emulator.sessions)[-1]
    return list(emulator.sessions)[-1]


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=str)
def test_a_key_is_saved_for_its_owner_alone_and_reaches_the_conversation_again(
    tmp_path: Path, flags: list[str]
) -> None:
    file = tmp_path / "a key"
    with sessions() as (emulator, url):
        result = check(0, run("send", url, "hi", "--save-key", str(file), *flags))
        use = f"{url}?key=file:{tmp_path}/a%20key"
        saved, conversation = result.stderr.splitlines()

        assert f"key: saved in {file}; to use it: {use}" == saved
        assert given(emulator) not in result.output
        assert (f"{given(emulator)}\n", 0o600) == (file.read_text(), mode(file))
        assert [file] == list(tmp_path.iterdir())
        listed = check(0, run("conversations", use, "--json"))
        assert [conversation.removeprefix("conversation: ")] == [
            one["id"] for one in json.loads(listed.stdout)
        ]


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o600), (0o600, 0o600), (0o200, 0o200)], ids=oct)
def test_a_file_that_exists_is_replaced_and_may_be_read_by_nobody_more(
    tmp_path: Path, before: int, after: int
) -> None:
    file, link = tmp_path / "key", tmp_path / "link"
    file.write_text("of yesterday")
    file.chmod(before)
    link.symlink_to(file)
    number = file.stat().st_ino
    with file.open("a"), sessions() as (emulator, url):  # While it is open, nothing else has its number.
        check(0, run("send", url, "hi", "--save-key", str(link)))

        assert after == mode(file)
        file.chmod(0o600)
        assert f"{given(emulator)}\n" == file.read_text()
        assert link.is_symlink()
        assert number != file.stat().st_ino


def test_a_key_that_is_in_use_is_not_written_again(tmp_path: Path) -> None:
    file, other = tmp_path / "key", tmp_path / "other"
    with sessions() as (_, url):
        check(0, run("send", url, "hi", "--save-key", str(file)))
        result = check(0, run("send", f"{url}?key=file:{file}", "hi", "--save-key", str(other)))

        assert ["conversation"] == [line.partition(":")[0] for line in result.stderr.splitlines()]
        assert not other.exists()


def test_a_key_that_is_over_is_replaced_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with sessions() as (emulator, url):
        file.write_text(emulator.key)
        emulator.expire(emulator.key)
        result = check(0, run("send", f"{url}?key=file:{file}", "hi", "--save-key", str(file)))

        assert "warning: " in result.stderr
        assert f"; to use it: {url}?key=file:{file}\n" in result.stderr
        assert f"{given(emulator)}\n" == file.read_text()


@pytest.mark.parametrize("command", [["send", "-"], ["chat"]], ids=" ".join)
def test_a_key_that_is_not_saved_is_told_of_as_lost(command: list[str]) -> None:
    with sessions() as (emulator, url):
        result = check(0, run(command[0], url, *command[1:], stdin="hi\n"))

        assert result.stderr.startswith(LOST)
        assert given(emulator) not in result.output


def test_chat_saves_a_key_at_once(tmp_path: Path) -> None:
    with sessions() as (emulator, url):
        result = check(0, run("chat", url, "--save-key", str(tmp_path / "key"), stdin="hi\n/new\n"))

        assert 1 == result.stderr.count("key: saved in ")
        assert f"{given(emulator)}\n" == (tmp_path / "key").read_text()


@pytest.mark.parametrize("command", [["send", "fake:", "hi"], ["chat", "fake:"]], ids=" ".join)
def test_a_backend_without_keys_of_its_own_has_none_to_save(tmp_path: Path, command: list[str]) -> None:
    line = failure(2, *command, "--save-key", str(tmp_path / "key"))

    assert "--save-key: the server of fake gives out no keys to save\n" == f"{line}\n"
    assert [] == list(tmp_path.iterdir())


def test_a_place_that_takes_no_key_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    pipe, absent = tmp_path / "pipe", tmp_path / "absent" / "key"
    os.mkfifo(pipe)
    with sessions() as (emulator, url):
        for place, reason in {
            tmp_path: f"File '{tmp_path}' is a directory. See 'chatbridge send --help'.",
            pipe: f"--save-key: no key can be saved in {quoted(str(pipe))}: it is no regular file",
            absent: f"--save-key: no key can be saved in {quoted(str(absent))}: No such file or directory",
        }.items():
            assert failure(2, "send", url, "hi", "--save-key", str(place)).endswith(reason)
        assert [] == emulator.calls


def test_a_place_that_no_config_string_can_name_is_refused(tmp_path: Path) -> None:
    with sessions() as (emulator, url):
        assert "surrogate" in failure(2, "send", url, "hi", "--save-key", f"{tmp_path}/\udcff")
        assert [] == emulator.calls


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_key_is_not_saved_where_something_is_printed(tmp_path: Path, descriptor: int) -> None:
    printed = tmp_path / "printed"
    with sessions() as (emulator, url), printed_to(printed, descriptor):
        assert failure(2, "send", url, "hi", "--save-key", str(printed)).endswith(
            "what is printed goes there"
        )
        assert [] == emulator.calls


def test_a_key_that_can_no_longer_be_saved_is_an_error_that_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, __: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    file = tmp_path / "key"
    for command in (["send", "-"], ["chat"]):
        with sessions() as (emulator, url):
            result = check(1, run(command[0], url, *command[1:], "--save-key", str(file), stdin="hi\n"))

            lost = f"chatbridge: the key that the server gave is lost: it cannot be saved in '{file}'"
            assert f"{lost}: No space left on device" == result.stderr.splitlines()[0]
            assert "hi" in result.stdout
            assert given(emulator) not in result.output
            assert [] == list(tmp_path.iterdir())


def test_a_key_that_is_no_text_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the attributes gives out keys."""

    async def create(backend: FakeBackend, **_: object) -> Conversation:
        backend.on_session_token(Secret("half \ud800"))  # type: ignore[attr-defined]
        return Conversation("c-1")

    monkeypatch.setattr(FakeBackend, "session_token", None, raising=False)
    monkeypatch.setattr(FakeBackend, "on_session_token", None, raising=False)
    monkeypatch.setattr(FakeBackend, "create_conversation", create)
    result = run("chat", "fake:", "--save-key", str(tmp_path / "key"), stdin="/new\n")

    assert (1, "") == (result.exit_code, result.stdout)
    assert result.stderr.splitlines()[0].endswith(
        "it cannot be saved in '" + f"{tmp_path}/key': it is no text"
    )
