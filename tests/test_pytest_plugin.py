"""The pytest plug-in, in projects of strangers: its fixtures, markers, options and reports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from chatbridge.testing import pytest_plugin

PLAIN = ("-p", "no:asyncio")
ASYNC = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run a module of tests in a project of its own, by default without asyncio; a warning is an error."""

    def run(code: str, *arguments: str, **outcomes: int) -> pytest.RunResult:
        pytester.makepyfile(test_bot=code)
        plain = () if "asyncio_mode=auto" in arguments else PLAIN
        quiet = ("-p", "no:xdist", "-p", "no:cacheprovider", "-W", "error", *plain)
        done = pytester.runpytest_inprocess(*quiet, *arguments)
        if outcomes:
            done.assert_outcomes(**outcomes)
        return done

    return run


# ---------------------------------------------------------------------------------- what it costs


def test_importing_it_loads_itself_and_nothing_that_takes_time() -> None:
    code = """
import sys, pytest, urllib.parse
before = set(sys.modules)
import chatbridge.testing.pytest_plugin
print(*set(sys.modules) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert {"chatbridge", "chatbridge.testing", "chatbridge.testing.pytest_plugin"} == set(
        done.stdout.split()
    )


def test_the_option_to_record_is_harmless_where_nothing_is_marked(run: Run) -> None:
    run("def test_a(bridge): assert bridge", "--chatbridge-record", passed=1)


def test_markers_and_options_are_known(run: Run) -> None:
    done = run("", "--strict-markers", "--markers")
    done.stdout.fnmatch_lines(["@pytest.mark.chatbridge(*", "@pytest.mark.chatbridge_recording(*"])
    run("", "--help").stdout.fnmatch_lines(["*--chatbridge-record*", "*chatbridge_no_live_backends*"])


# ------------------------------------------------------------------------------------- the bridge


@pytest.mark.parametrize("plugins", [PLAIN, ASYNC], ids=["plain", "asyncio"])
def test_a_synchronous_test_uses_the_bridge_directly_or_as_a_context(run: Run, plugins: tuple[str]) -> None:
    run(
        """
import asyncio
from chatbridge import Bridge
from chatbridge.testing.fake import FakeBackend

async def talk(bridge):
    return (await (await bridge.create()).send("Hello")).text

def test_directly(bridge: Bridge, fake_backend: FakeBackend):
    assert bridge.backend is fake_backend
    assert "Hello" in asyncio.run(talk(bridge))

def test_as_a_context(bridge: Bridge):
    async def inside():
        async with bridge:
            return await talk(bridge)
    assert "Hello" in asyncio.run(inside())
""",
        *plugins,
        passed=2,
    )


def test_an_asynchronous_test_uses_the_bridge(run: Run) -> None:
    run(
        """
async def test_it_answers(bridge):
    chat = await bridge.create()
    assert "Hello" in (await chat.send("Hello")).text
    assert ["Hello", "Turn 1: you said 'Hello'."] == [message.text async for message in chat.messages()]
""",
        *ASYNC,
        passed=1,
    )


def test_a_marker_names_another_backend_and_its_options(run: Run) -> None:
    run(
        """
import asyncio, pytest

@pytest.mark.chatbridge("fake:?reply=Hi!", model="m")
class TestMarked:
    def test_named(self, bridge):
        assert ("Hi!", "m") == (bridge.backend.options.reply, bridge.backend.options.model)

    @pytest.mark.chatbridge("kaziro://localhost", key="sk-any")
    def test_the_closest_wins(self, bridge):
        assert "kaziro" == bridge.profile.name
""",
        passed=2,
    )


@pytest.mark.parametrize(
    "marker", ["chatbridge", "chatbridge()", "chatbridge_recording(1)", "chatbridge('a', 'b')"]
)
def test_a_marker_that_names_nothing_says_how_it_is_written(run: Run, marker: str) -> None:
    done = run(
        f"import pytest\n@pytest.mark.{marker}\ndef test_a(bridge): ...",
        errors=1,
    )
    name = marker.partition("(")[0]
    done.stdout.fnmatch_lines([f'write @pytest.mark.{name}("CONFIG STRING", option=...)'])


def test_a_test_has_one_kind_of_marker(run: Run) -> None:
    done = run(
        """
import pytest
@pytest.mark.chatbridge("fake:")
@pytest.mark.chatbridge_recording("kaziro:")
def test_a(bridge): ...
""",
        errors=1,
    )
    done.stdout.fnmatch_lines(["a test is marked chatbridge or chatbridge_recording, not both"])


@pytest.mark.parametrize("marker", ["chatbridge('fake:')", "chatbridge('kaziro://localhost', key='k')"])
def test_a_bridge_without_connections_is_closed_after_the_test(run: Run, marker: str) -> None:
    run(
        f"""
import pytest
kept = []

@pytest.mark.{marker}
def test_a(bridge):
    kept.append(bridge)

def test_b():
    assert kept[0].bounds.closed
""",
        passed=2,
    )


# A bridge of the fixture's is to an address that the test knows beforehand.
CONNECTED = """
import asyncio, pytest
from chatbridge.testing.emulator import serve
from chatbridge_adapters.kaziro.emulator import KaziroEmulator

PORT = {port}

async def talk(bridge):
    async with serve(KaziroEmulator(key="k"), port=PORT):
        await bridge.create()
        {then}

@pytest.mark.chatbridge(f"kaziro+http://127.0.0.1:{{PORT}}", key="k")
"""
SYNCHRONOUS = CONNECTED + "def test_a(bridge): asyncio.run(talk(bridge))"
ASYNCHRONOUS = CONNECTED + "async def test_a(bridge): await talk(bridge)"
OUTLIVING = (*ASYNC, "-o", "asyncio_default_test_loop_scope=session")
EITHER = pytest.mark.parametrize(
    ("code", "plugins"),
    [(SYNCHRONOUS, PLAIN), (ASYNCHRONOUS, ASYNC), (ASYNCHRONOUS, OUTLIVING)],
    ids=["plain", "asyncio", "a loop that goes on"],
)


@EITHER
def test_a_bridge_with_connections_is_the_tests_to_close(
    run: Run, code: str, plugins: tuple[str], unused_tcp_port: int
) -> None:
    done = run(code.format(port=unused_tcp_port, then=""), *plugins, passed=1, errors=1)

    done.stdout.fnmatch_lines(["the bridge was not closed, *`async with bridge:`*"])
    done.stdout.no_fnmatch_line("*Warning*")
    done.stdout.no_fnmatch_line("*Unclosed*")


@EITHER
def test_a_test_that_failed_is_not_blamed_for_that_too(
    run: Run, code: str, plugins: tuple[str], unused_tcp_port: int
) -> None:
    done = run(code.format(port=unused_tcp_port, then="assert not bridge"), *plugins, failed=1)

    done.stdout.no_fnmatch_line("*Warning*")


@EITHER
def test_a_bridge_with_connections_that_the_test_closes_is_fine(
    run: Run, code: str, plugins: tuple[str], unused_tcp_port: int
) -> None:
    run(code.format(port=unused_tcp_port, then="await bridge.close()"), *plugins, passed=1)


def test_a_bridge_that_cannot_be_closed_without_its_loop_is_the_tests_to_close(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest_plugin, "CLOSING", 0.01)
    done = run(
        """
import asyncio, pytest

@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

def test_a(loop, bridge):
    async def leave():
        bridge.deliveries.writing.begin('x', lambda: asyncio.sleep(0))
    loop.run_until_complete(leave())
""",
        passed=1,
        errors=1,
    )
    done.stdout.fnmatch_lines(["the bridge was not closed, *`async with bridge:`*"])


BROKEN_AT_CLOSING = """
import pytest
from chatbridge import ConfigError
from chatbridge.testing.fake import FakeBackend

class Broken(FakeBackend):
    async def close(self):
        raise ConfigError("not played: 3")

@pytest.fixture
def fake_backend():
    return Broken()

def test_a(bridge):
    assert {holds}
"""


def test_what_closing_raises_is_the_tests_failure(run: Run) -> None:
    done = run(BROKEN_AT_CLOSING.format(holds=True), passed=1, errors=1)

    done.stdout.fnmatch_lines(["E *ConfigError: not played: 3"])


def test_what_closing_raises_after_a_failure_is_not_shown(run: Run) -> None:
    done = run(BROKEN_AT_CLOSING.format(holds=False), failed=1)

    done.stdout.no_fnmatch_line("*not played*")


# ------------------------------------------------------------------------------------- emulators


def test_an_emulator_is_served_and_a_bridge_to_it_opened_in_one_call(run: Run) -> None:
    run(
        """
from chatbridge import connect
from chatbridge.testing.pytest_plugin import EmulatorFactory

async def test_it(chatbridge_emulator: EmulatorFactory) -> None:
    def answer(said, history):
        return f"{said} to you!"

    async with chatbridge_emulator("datamonkey", responder=answer) as served:
        async with served.connect() as bridge:
            assert "Hello to you!" == (await (await bridge.create()).send("Hello")).text
        assert served.config.startswith("datamonkey+http://127.0.0.1:")
        assert "Hello" in str([call.body for call in served.emulator.calls])
""",
        *ASYNC,
        passed=1,
    )


def test_an_emulator_that_is_not_there_and_a_setting_that_is_none_are_named(run: Run) -> None:
    done = run(
        """
async def test_name(chatbridge_emulator):
    async with chatbridge_emulator("kazyro"): ...

async def test_fake(chatbridge_emulator):
    async with chatbridge_emulator("fake"): ...

async def test_setting(chatbridge_emulator):
    async with chatbridge_emulator("kaziro", respnder=print): ...
""",
        *ASYNC,
        failed=3,
    )
    done.stdout.fnmatch_lines(
        [
            "E *UnknownBackend: no chat backend named 'kazyro' is installed; did you mean 'kaziro'?*",
            "E *ConfigError: fake has no emulator",
            "E *BadOption: kaziro: option 'respnder' is no setting *; did you mean 'responder'?*",
        ]
    )


def test_a_responder_that_crashes_fails_the_test_with_what_it_raised(run: Run) -> None:
    done = run(
        """
import pytest
from chatbridge import ChatbridgeError

def crash(said, history):
    raise ZeroDivisionError("a bug")

async def test_shown(chatbridge_emulator):
    async with chatbridge_emulator("kaziro", responder=crash) as served, served.connect() as bridge:
        chat = await bridge.create()
        with pytest.raises(ChatbridgeError):
            await chat.send("Hello")

async def test_noted(chatbridge_emulator):
    async with chatbridge_emulator("kaziro", responder=crash) as served, served.connect() as bridge:
        await (await bridge.create()).send("Hello")
""",
        *ASYNC,
        failed=2,
    )
    done.stdout.fnmatch_lines(
        ["E *ZeroDivisionError: a bug", "E *the emulator of kaziro crashed: ZeroDivisionError('a bug')"]
    )


# -------------------------------------------------------------------------------- no live backends

LIVE = """
import pytest
from chatbridge import LiveBackendForbidden, connect

def test_forbidden({fixture}):
    with pytest.raises(LiveBackendForbidden, match="'example.com' is another machine, and {reason}"):
        connect("kaziro://example.com", key="k")
    connect("fake:"), connect("kaziro://localhost", key="k")

@pytest.mark.chatbridge_live
def test_let_out({fixture}):
    connect("kaziro://example.com", key="k")
"""


def test_a_fixture_keeps_a_test_on_this_machine(run: Run) -> None:
    run(LIVE.format(fixture="no_live_backends", reason="the fixture no_live_backends"), passed=2)
    run("from chatbridge import connect\ndef test_a(): connect('kaziro://example.com', key='k')", passed=1)


def test_an_ini_option_keeps_a_suite_on_this_machine(run: Run) -> None:
    reason = "the ini option chatbridge_no_live_backends"
    run(LIVE.format(fixture="", reason=reason), "-o", "chatbridge_no_live_backends=true", passed=2)


def test_fixtures_of_any_scope_are_kept_on_this_machine(run: Run) -> None:
    done = run(
        """
import pytest
from chatbridge import connect

@pytest.fixture(scope="session")
def live():
    return connect("kaziro://example.com", key="k")

def test_a(live): ...
""",
        "-o",
        "chatbridge_no_live_backends=true",
        errors=1,
    )
    done.stdout.fnmatch_lines(["E *LiveBackendForbidden: 'example.com' is another machine*"])


# ------------------------------------------------------------------------------------- recordings

RECORDED = """
import pytest

@pytest.mark.chatbridge_recording("kaziro://example.com"{more}, key="k")
class TestBot:
    @pytest.mark.parametrize("word", ["a/b"])
    def test_it(self, bridge, word): ...
"""


@pytest.mark.parametrize(
    ("more", "file"),
    [("", "recordings/test_bot/TestBot.test_it[[]a%2Fb].jsonl"), (", file='kept/a.jsonl'", "kept/a.jsonl")],
)
def test_without_a_recording_the_test_fails_and_says_how_to_make_one(run: Run, more: str, file: str) -> None:
    done = run(RECORDED.format(more=more), errors=1)

    done.stdout.fnmatch_lines([f"there is no recording *{file}: run pytest --chatbridge-record to make it"])


REPLAYED = """
import asyncio, pytest
from chatbridge.testing.emulator import serve
from chatbridge_adapters.kaziro.emulator import KaziroEmulator

async def talk(bridge, *texts):
    async with bridge:
        chat = await bridge.create()
        for text in texts:
            assert text in (await chat.send(text)).text

@pytest.mark.chatbridge_recording("kaziro+http://127.0.0.1:{port}", key="sk-live-key-of-the-bot")
def test_it(bridge, pytestconfig):
    async def main():
        if not pytestconfig.getoption("chatbridge_record"):
            return await talk(bridge, {texts})
        async with serve(KaziroEmulator(key="sk-live-key-of-the-bot"), port={port}):
            await talk(bridge, {texts})
    asyncio.run(main())
"""


def test_what_was_recorded_is_replayed(run: Run, pytester: pytest.Pytester, unused_tcp_port: int) -> None:
    there = pytester.path / "recordings" / "test_bot" / "test_it.jsonl"
    for texts in ("'Hello'", "'Hello', 'Goodbye'"):  # The second time anew.
        code = REPLAYED.format(port=unused_tcp_port, texts=texts)
        run(code, "--chatbridge-record", passed=1)
        run(code, "-o", "chatbridge_no_live_backends=true", passed=1)

    assert "Goodbye" in there.read_text(encoding="utf-8")
    assert "sk-live-key" not in there.read_text(encoding="utf-8")


def test_a_test_that_fails_leaves_the_recording_that_there_was(
    run: Run, pytester: pytest.Pytester, unused_tcp_port: int
) -> None:
    good, bad = (REPLAYED.format(port=unused_tcp_port, texts=texts) for texts in ("'a'", "'a', 1"))
    run(good, "--chatbridge-record", passed=1)
    run(bad, "--chatbridge-record", failed=1)

    folder = pytester.path / "recordings" / "test_bot"
    assert ["test_it.jsonl"] == [path.name for path in folder.iterdir()]
    run(good, passed=1)


def test_what_a_test_does_not_ask_for_any_more_fails_it(run: Run, unused_tcp_port: int) -> None:
    run(REPLAYED.format(port=unused_tcp_port, texts="'a', 'b'"), "--chatbridge-record", passed=1)
    done = run(REPLAYED.format(port=unused_tcp_port, texts="'a'"), failed=1)

    done.stdout.fnmatch_lines(["E *ReplayIncomplete: *"])


def test_a_replay_that_the_test_does_not_close_must_be_complete_too(run: Run, unused_tcp_port: int) -> None:
    run(REPLAYED.format(port=unused_tcp_port, texts="'a'"), "--chatbridge-record", passed=1)
    forgetful = """
import pytest
@pytest.mark.chatbridge_recording("kaziro:", file="recordings/test_bot/test_it.jsonl")
def test_it(bridge): ...
"""
    done = run(forgetful, passed=1, errors=1)

    done.stdout.fnmatch_lines(["*ERROR at teardown of test_it*", "ReplayIncomplete: *"])


def test_where_the_suite_is_kept_on_this_machine_a_recording_can_be_made(run: Run) -> None:
    run(
        """
import pytest
@pytest.mark.chatbridge_recording("kaziro://example.com", key="sk-any")
def test_it(bridge):
    assert "kaziro" == bridge.profile.name
""",
        "--chatbridge-record",
        "-o",
        "chatbridge_no_live_backends=true",
        passed=1,
    )


# ----------------------------------------------------------------------------------------- reports

FAILING = """
import os
from chatbridge import ChatbridgeError, connect

async def ask(chat):
    return await chat.send("Hello")

async def test_it(chatbridge_emulator):
    async with chatbridge_emulator("kaziro") as served, served.connect(key=os.environ["BOT_KEY"]) as bridge:
        chat = bridge.open("a-room")
        {body}
"""
DIRECT = "await ask(chat)"
CHAINED = """
        try:
            await ask(chat)
        except ChatbridgeError as error:
            raise KeyError("wrapped") from error
"""
GROUPED = """
        import asyncio
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask(chat))
"""


@pytest.mark.parametrize("body", [DIRECT, CHAINED, GROUPED], ids=["direct", "chained", "grouped"])
def test_of_our_errors_the_users_frames_and_the_message_are_shown(
    run: Run, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_KEY", "sk-live-key-of-the-bot")
    done = run(FAILING.format(body=body), *ASYNC, "--showlocals", failed=1)
    shown = done.stdout.str()

    done.stdout.fnmatch_lines(['*await chat.send("Hello")*', "*AuthFailed: *"])
    assert "chatbridge/" not in shown
    assert "sk-live-key-of-the-bot" not in shown


def test_all_frames_are_shown_where_that_is_asked_for_and_no_secret(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_KEY", "sk-live-key-of-the-bot")
    done = run(FAILING.format(body=DIRECT), *ASYNC, "--full-trace", "--showlocals", failed=1)

    assert "chatbridge/chat.py" in done.stdout.str()
    assert "sk-live-key-of-the-bot" not in done.stdout.str()


@pytest.mark.parametrize("options", [(), ("--full-trace",)])
def test_the_secret_of_a_marker_is_not_shown(run: Run, options: tuple[str, ...]) -> None:
    done = run(
        """
import os, pytest
KEY = "-".join(["sk", "live", "key"])
@pytest.mark.chatbridge("kaziro://localhost:1", key=KEY, timeout="long")
def test_a(bridge): ...
""",
        "--showlocals",
        *options,
        errors=1,
    )
    done.stdout.fnmatch_lines(["*BadOption: kaziro: option 'timeout'*"])
    assert "sk-live-key" not in done.stdout.str()


def test_where_no_frame_is_the_users_the_message_stands_alone(run: Run) -> None:
    done = run("import pytest\n@pytest.mark.chatbridge('kazyro:')\ndef test_a(bridge): ...", errors=1)

    done.stdout.fnmatch_lines(
        ["*ERROR at setup of test_a*", "UnknownBackend: no chat backend named 'kazyro' *"]
    )
    assert "> " not in done.stdout.str()


def test_what_our_kit_demands_is_shown_short_and_what_the_test_demands_as_ever(run: Run) -> None:
    done = run(
        """
from chatbridge.testing.checking import expect

def test_ours():
    expect(False, "there is no answer")

def test_of_the_user():
    assert 1 == 2
""",
        failed=2,
    )
    done.stdout.fnmatch_lines(
        ["E *AssertionError: there is no answer", "test_bot.py:4: AssertionError", "E *assert 1 == 2"]
    )
    assert "checking.py" not in done.stdout.str()


def test_an_error_that_was_expected_is_no_failure(run: Run) -> None:
    run(
        """
import pytest
from chatbridge import ConfigError, UnknownBackend

@pytest.mark.xfail(raises=ConfigError, strict=True)
@pytest.mark.chatbridge("kazyro:")
def test_a(bridge): ...

def test_b():
    pytest.skip("later")
""",
        xfailed=1,
        skipped=1,
    )
