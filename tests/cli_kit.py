"""What the tests of the command line share: running it in the process, and emulators beside it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Literal

import pytest
from attrs import frozen, validators
from click.testing import CliRunner, Result

from chatbridge import registry
from chatbridge.backend import Feature, Profile, Support
from chatbridge.cli.app import app
from chatbridge.cli.output import Output
from chatbridge.options import CommonOptions, option
from chatbridge.registry import Adapter, Defaults
from chatbridge.secret import Secret
from chatbridge.testing import fake
from chatbridge.testing.emulator import Emulator, Served, serve

KEY = "sk-emulator"


def run(
    *args: str,
    stdin: str | bytes = "",
    output: Output | None = None,
    env: Mapping[str, str | None] | None = None,
) -> Result:
    """Run the command line with *args*; it sees no config file and no keys but those in *env*."""
    clean: dict[str, str | None] = dict.fromkeys(
        (
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "CHATBRIDGE_BACKEND",
            "CHATBRIDGE_CONFIG",
            "DATAMONKEY_SESSION_TOKEN",
            "H2OGPTE_API_KEY",
            "HATCHET_CLIENT_TENANT_ID",
            "HATCHET_CLIENT_TOKEN",
            "KAZIRO_API_KEY",
            "MTMAI_TOKEN",
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "OPENAI_ORG_ID",
            "OPENAI_PROJECT_ID",
            "TACHYON_API_KEY",
            "TACHYON_OPERATOR_ID",
            "COLUMNS",
            "FORCE_COLOR",
        )
    )
    return CliRunner(env=clean | {"XDG_CONFIG_HOME": "/nonexistent"} | dict(env or {})).invoke(
        app, args, input=stdin, obj=Output() if output is None else output, prog_name="chatbridge"
    )


def check(code: int, result: Result) -> Result:
    """Hold that it ended with *code*, and that no traceback and no key was shown."""
    assert code == result.exit_code, result.output
    assert "Traceback" not in result.output
    assert KEY not in result.output
    return result


def failure(code: int, *args: str, **settings: object) -> str:
    """Hold that *args* fail with *code*, nothing on stdout and one line on stderr; give that line."""
    result = check(code, run(*args, **settings))  # type: ignore[arg-type]  # passed on as they are
    assert "" == result.stdout
    line, end, more = result.stderr.partition("\n")
    assert ("\n", "") == (end, more)
    return line.removeprefix("chatbridge: ")


@contextmanager
def interruptible() -> Generator[None]:
    """Take SIGINT as a program at a terminal does, however the tests were started; so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def served(emulator: Emulator) -> Generator[Served]:
    """Serve *emulator* from a thread, for commands that run an event loop of their own."""
    ready: Future[tuple[Served, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serving() -> None:
        stop = asyncio.Event()
        async with serve(emulator) as listening:
            ready.set_result((listening, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serving(),))
    thread.start()
    listening, loop, stop = ready.result(timeout=30)
    try:
        yield listening
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)
    assert [] == emulator.crashes


@contextmanager
def h2ogpte() -> Generator[tuple[Emulator, str, dict[str, str]]]:
    """Serve h2oGPTe's emulator; give it, the config string that reaches it, and the variables for it."""
    emulator: Emulator = registry.load_adapter("h2ogpte").load_emulator()()
    with served(emulator) as listening:
        yield emulator, listening.config, emulator.env


def install(monkeypatch: pytest.MonkeyPatch, **backends: str) -> None:
    """Let *backends*, each `module:NAME`, be all that is installed."""
    entries = [EntryPoint(name, value, registry.GROUP) for name, value in backends.items()]

    def entry_points(*, group: str) -> list[EntryPoint]:
        assert registry.GROUP == group
        return entries

    monkeypatch.setattr(registry, "entry_points", entry_points)


@frozen(kw_only=True)
class OddOptions(CommonOptions):
    """Options of every kind that a backend may have."""

    key: Secret = option("The key.")
    cookie: Secret | None = option("Another.", default=None)
    team: str = option("The team.")
    mode: Literal["some", "all"] = option("How much it can do.", default="some")


def _odd_profile(options: OddOptions) -> Profile:
    return Profile("odd", {Feature.STREAM: Support.NATIVE} if options.mode == "all" else {})


ODD = Adapter(
    "odd",
    "A backend whose options change what it can do",
    options=OddOptions,
    profile=_odd_profile,
    open=fake.FakeBackend,
    defaults=Defaults(model_option="mode"),
)
"""A backend that has no public host, and needs more than a key."""


@frozen(kw_only=True)
class StrictOptions(CommonOptions):
    """Options that are required and checked, and such as need each other."""

    key: Secret = option("The key.")
    tenant: str = option("The tenant's UUID.", validator=validators.matches_re(r"[0-9a-f-]{36}"))
    shard: int = option("The shard.", validator=validators.ge(100))
    team: str | None = option("The team that answers.", default=None)
    lead: str | None = option("Who leads the team.", default=None)

    def __attrs_post_init__(self) -> None:
        """Hold that there is a team where there is a lead."""
        if self.lead is not None and self.team is None:
            raise ValueError("lead needs a team")


def _strict_profile(options: StrictOptions) -> Profile:
    if options.team is None:
        return Profile("strict", {Feature.SEND: Support.NATIVE}, options={"model"})
    tools = Support.UNSUPPORTED if options.lead is None else Support.NATIVE
    return Profile("strict", {Feature.CREATE: Support.NATIVE, Feature.TOOLS: tools})


STRICT = Adapter(
    "strict",
    "A backend that takes nothing for granted",
    options=StrictOptions,
    profile=_strict_profile,
    open=fake.FakeBackend,
)
"""A backend whose required options are checked."""


def _no_profile(_: object) -> Profile:
    raise LookupError("no such model")


PUZZLED = Adapter(
    "puzzled",
    "A backend that does not know what it can do",
    options=CommonOptions,
    profile=_no_profile,
    open=fake.FakeBackend,
)
"""A backend that can be loaded, and not described."""
