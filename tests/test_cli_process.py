"""The command line as a process: signals, pipes that close, a terminal, a missing extra; and `emulate`."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define, field

from chatbridge.bridge import connect
from chatbridge.cli.emulate import emulate
from chatbridge.cli.output import Output
from chatbridge.cli.plain import Json
from chatbridge.errors import ConfigError
from chatbridge.registry import backend_names, load_adapter
from chatbridge.testing.emulator import Fault
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from cli_kit import KEY, check, failure, h2ogpte, interruptible, run, served

PATIENCE = 60
"""Seconds that a process may take in the worst case; none is ever waited for in vain."""

PROGRAM = (sys.executable, "-m", "chatbridge")


@contextmanager
def process(
    *args: str,
    env: dict[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Generator[subprocess.Popen[str]]:
    """Start the program; it is gone at the end of the block."""
    with interruptible():
        running = subprocess.Popen(
            (*PROGRAM, *args),
            # Without development mode, in which asyncio tells how long a step took: that is the machine's.
            env=os.environ | {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": ""} | (env or {}),
            text=True,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
    with running:
        try:
            yield running
        finally:
            running.kill()


# emulate


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_emulator_says_where_it_is_in_one_line_and_stops_on_a_signal(number: int) -> None:
    with process("emulate", "h2ogpte", "--json") as running:
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        assert ["name", "base_url", "config", "env"] == list(ready)
        assert ("h2ogpte", {"H2OGPTE_API_KEY": "sk-emulator"}) == (ready["name"], ready["env"])
        assert ready["base_url"].startswith("http://127.0.0.1:")
        answered = check(0, run("send", ready["config"], "hi", env=ready["env"]))
        assert "Turn 1: you said 'hi'.\n" == answered.stdout
        running.send_signal(number)
        assert ("", "") == running.communicate(timeout=PATIENCE)
        assert 0 == running.returncode


@define
class Heard(Output):
    """An output that stops the program as soon as it has said something as JSON."""

    documents: list[Json] = field(factory=list[Json])

    def json(self, value: Json) -> None:
        self.documents.append(value)
        os.kill(os.getpid(), signal.SIGTERM)


async def test_an_emulator_leaves_nothing_open() -> None:
    output = Heard()
    before = asyncio.all_tasks()
    await emulate("kaziro", "127.0.0.1", 0, output, as_json=True)
    (ready,) = output.documents
    assert isinstance(ready, dict)
    port = int(str(ready["base_url"]).rpartition(":")[2])
    assert before == asyncio.all_tasks()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "url", "config"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}", "kaziro+http://127.0.0.1:{}"),
        ("localhost", "http://localhost:{}", "kaziro+http://localhost:{}"),
        ("0.0.0.0", "http://127.0.0.1:{}", "kaziro+http://127.0.0.1:{}"),
        ("::", "http://[::1]:{}", "kaziro+http://[::1]:{}"),
    ],
)
async def test_the_address_that_is_told_can_be_connected_to(host: str, url: str, config: str) -> None:
    if host == "::" and not _has_ipv6():
        pytest.skip("there is no IPv6 here")
    output = Heard()
    await emulate("kaziro", host, 0, output, as_json=True)
    (ready,) = output.documents
    assert isinstance(ready, dict)
    port = str(ready["base_url"]).rpartition(":")[2]
    assert (url.format(port), config.format(port)) == (ready["base_url"], ready["config"])
    await connect(config.format(port), key="x").close()


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def test_an_address_of_this_machine_in_a_network_is_named_with_insecure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that is not loopback's, though it leads there, stands for such an address."""
    monkeypatch.setattr(
        asyncio.get_running_loop(), "create_server", _listen_on_loopback(asyncio.get_running_loop())
    )
    output = Heard()
    await emulate("kaziro", "machine.example", 0, output, as_json=True)
    (ready,) = output.documents
    assert isinstance(ready, dict)
    assert str(ready["config"]).endswith("?insecure=true")
    await connect(str(ready["config"]), key="x").close()


def _listen_on_loopback(loop: asyncio.AbstractEventLoop) -> object:
    listen = loop.create_server

    async def create_server(factory: object, _: str, *args: object, **settings: object) -> object:
        return await listen(factory, "127.0.0.1", *args, **settings)  # type: ignore[call-overload]

    return create_server


async def test_for_a_person_it_shows_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def wait(_: asyncio.Event) -> None:
        """Stop at once."""

    monkeypatch.setattr(asyncio.Event, "wait", wait)
    await emulate("kaziro", "127.0.0.1", 0, Output(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("kaziro is emulated at http://127.0.0.1:")
    assert "  export KAZIRO_API_KEY=sk-emulator" == lines[2]
    assert lines[3].startswith("  chatbridge chat kaziro+http://127.0.0.1:")


@pytest.mark.parametrize(
    ("name", "auth"),
    [
        *((name, "") for name in backend_names() if load_adapter(name).emulator),
        ("mtmai", "&auth=basic"),
        ("mtmai", "&auth=cookie"),
    ],
)
def test_an_emulator_accepts_the_key_that_it_is_given(name: str, auth: str) -> None:
    with process("emulate", name, "--key", "joe:sesame", "--json") as running:
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        assert "joe:sesame" in ready["env"].values()
        result = check(0, run("send", f"{ready['config']}{auth}", "hi", env=ready["env"]))
    assert "Turn 1: you said 'hi'.\n" == result.stdout


def test_an_emulator_that_is_given_a_key_accepts_no_other() -> None:
    with process("emulate", "kaziro", "--key", "sesame", "--json") as running:
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        line = failure(1, "send", ready["config"], "hi", env={"KAZIRO_API_KEY": KEY})
    assert "the server answered 401" in line


def test_an_emulator_behaves_as_it_is_set() -> None:
    with process("emulate", "openai", "--set", "mode=llamacpp", "--set", "context=10", "--json") as running:
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        question = "How many words may a question have here? " * 4
        result = check(1, run("send", ready["config"], question, env=ready["env"]))
    assert "exceeds the available context size (10 tokens)" in result.stderr


def test_an_emulator_has_the_models_that_are_set() -> None:
    with process(
        "emulate", "openai", "--set", "mode=ollama", "--set", "models=gemma3, llama3.2", "--json"
    ) as running:
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        assert ready["config"].endswith("?model=gemma3")
        second = ready["config"].replace("gemma3", "llama3.2")
        result = check(0, run("send", second, "hi", env=ready["env"]))
        assert "not found" in check(1, run("send", second + "x", "hi", env=ready["env"])).stderr
    assert "Turn 1: you said 'hi'.\n" == result.stdout


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        (
            "mode=azure",
            "openai: option 'mode' = 'azure' is not one of openai, ollama, vllm, llamacpp, lmstudio",
        ),
        (
            "also=no_done,no_dome",
            "openai: option 'also' = 'no_done,no_dome' is not a list, with commas, of always_stream, ",
        ),
        ("models=,", "openai: option 'models' = ',' is not a list, with commas, of texts"),
        ("context=many", "openai: option 'context' = 'many' is not a whole number"),
        ("contexts=1", "openai: option 'contexts' is unknown"),
        ("key=sesame", "openai: option 'key' is unknown"),
        ("responder=x", "openai: option 'responder' is unknown"),
        ("mode", "'mode' is not of the form NAME=VALUE"),
        ("=x", "'=x' is not of the form NAME=VALUE"),
    ],
)
def test_a_setting_that_an_emulator_cannot_have_is_refused(setting: str, complaint: str) -> None:
    assert complaint in failure(2, "emulate", "openai", "--set", setting)


@pytest.mark.parametrize("key", ["", " "])
def test_an_empty_key_is_refused(key: str) -> None:
    assert "kaziro: a key is not empty" == failure(2, "emulate", "kaziro", "--key", key)


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(2, "emulate", "kaziro", "--port", str(port))
    assert line.startswith(f"kaziro: cannot listen on 127.0.0.1, port {port}: ")


async def test_a_host_that_is_none_is_said_too() -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        await emulate("kaziro", "256.256.256.256", 0, Output(), as_json=True)


async def test_a_reader_that_is_gone_is_no_trouble_with_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Output, "json", gone)
    with pytest.raises(BrokenPipeError):
        await emulate("kaziro", "127.0.0.1", 0, Output(), as_json=True)


# Processes


def test_a_missing_extra_ends_in_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "click").mkdir()
    (tmp_path / "click" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'click'\", name='click')\n"
    )
    path = os.pathsep.join((str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])))
    with process("demo", env={"PYTHONPATH": path}) as running:
        out, err = running.communicate(timeout=PATIENCE)
    assert (2, "") == (running.returncode, out)
    assert (
        "chatbridge: the command line needs click, of the extra 'cli': "
        "run pip install '.[cli]' in a checkout of chatbridge\n"
    ) == err


@pytest.mark.parametrize("command", [["describe", "fake"], ["--help"], ["send", "fake:", "hi"], ["demo"]])
def test_a_pipe_that_closes_ends_it_quietly(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with process(*command, stdout=writing) as running:
        os.close(writing)
        _, err = running.communicate(timeout=PATIENCE)
    assert 1 == running.returncode
    assert "" == err.replace("conversation: conversation-1\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="nothing here is always full")
@pytest.mark.parametrize(
    "command", [["describe", "fake"], ["--help"], ["send", "fake:", "hi"], ["demo"], ["backends", "--json"]]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_said_in_one_line(command: list[str], unbuffered: str) -> None:
    env = {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full, process(*command, env=env, stdout=full.fileno()) as running:
        _, err = running.communicate(timeout=PATIENCE)
    assert 1 == running.returncode
    problem = f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"
    assert f"chatbridge: the system says: {problem} (--debug shows where)" == err.splitlines()[-1]
    assert "" == "".join(err.splitlines()[:-1]).replace("conversation: conversation-1", "")


def test_ctrl_c_during_a_send_ends_with_130_and_the_conversations_id() -> None:
    emulator = KaziroEmulator()
    with served(emulator) as listening, process("send", listening.config, "hi", env=emulator.env) as running:

        def interrupt(*_: object) -> str:
            running.send_signal(signal.SIGINT)
            running.wait(timeout=PATIENCE)
            return "too late"

        emulator.responder = interrupt
        out, err = running.communicate(timeout=PATIENCE)
    assert (130, "") == (running.returncode, out)
    assert f"conversation: {next(iter(emulator.threads))}" == err.splitlines()[0]
    assert "Traceback" not in err


def test_what_the_terminals_encoding_lacks_is_escaped() -> None:
    with process("send", "fake:?reply=%E6%97%A5", "hi", env={"PYTHONIOENCODING": "latin-1"}) as running:
        assert "\\u65e5\n" == running.communicate(timeout=PATIENCE)[0]


def test_a_talk_at_a_terminal() -> None:
    """Typed in, answered piece by piece, an answer left with Ctrl-C, and the program with Ctrl-D."""
    with h2ogpte() as (emulator, url, env):
        ours, theirs = pty.openpty()
        variables = env | {"TERM": "dumb"}
        with process("chat", url, env=variables, stdin=theirs, stdout=theirs, stderr=theirs) as running:
            os.close(theirs)
            screen = Screen(ours)
            screen.wait_for("conversation: ")
            screen.wait_for("> ")
            screen.type("Hello\n")
            screen.wait_for("Turn 1: you said 'Hello'.")
            screen.wait_for("> ")
            emulator.fail(Fault(cut_after=2, hold=asyncio.Event()), operation="get_completion")
            screen.type("And now\n")
            screen.wait_for("Turn 2:")
            running.send_signal(signal.SIGINT)  # as the terminal does at Ctrl-C
            screen.wait_for("left; what was under way may have been done")
            screen.wait_for("> ")
            screen.type("\x04")
            assert 0 == running.wait(timeout=PATIENCE)
        os.close(ours)
        assert "Traceback" not in screen.seen


@define
class Screen:
    """What a terminal shows, and its keyboard."""

    terminal: int
    seen: str = ""
    _at: int = 0

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def wait_for(self, text: str) -> None:
        """Read on until *text* is shown behind what was waited for before."""
        while (found := self.seen.find(text, self._at)) < 0:
            assert select.select([self.terminal], [], [], PATIENCE)[0], self.seen
            self.seen += os.read(self.terminal, 4096).decode()
        self._at = found + len(text)
