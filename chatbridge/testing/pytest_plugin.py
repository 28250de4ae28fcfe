"""
What pytest gets from chatbridge: fixtures, markers, and reports without chatbridge's own frames.

    async def test_the_bot_greets(bridge: Bridge) -> None:
        assert "Hello!" == await greet(await bridge.create())

The fixtures are synchronous, so that any plug-in for asynchronous tests goes with them, or none. pytest
imports this module in every run; all that takes time to import is imported when it is used.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from inspect import signature
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatbridge.bridge import Bridge
    from chatbridge.testing.emulator import Served
    from chatbridge.testing.fake import FakeBackend

__all__ = ["EmulatorFactory", "bridge", "chatbridge_emulator", "fake_backend", "no_live_backends"]

CLOSING = 5.0
"""Seconds that a bridge may take to close after a test."""

NO_LIVE = "chatbridge_no_live_backends"
MARKERS = (
    "chatbridge(config, **options): what the fixture `bridge` opens, in place of `fake_backend`.",
    "chatbridge_recording(config, file=None, **options): what `bridge` plays from a recording of it.",
    "chatbridge_live: the test may reach other machines, whatever forbids that to the others.",
)


class EmulatorFactory(Protocol):
    """What the fixture `chatbridge_emulator` is."""

    def __call__(self, name: str, /, **settings: Any) -> AbstractAsyncContextManager[Served]:  # noqa: ANN401
        """
        Serve the emulator of the backend *name* for the length of the block.

        Args:
            name: The backend's, as in config strings.
            settings: The emulator's attributes, such as `responder`.

        Raises:
            ConfigError: There is no such backend, emulator or setting.
            Exception: The first that a handler or the responder raised.
        """
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--chatbridge-record` and the ini option."""
    parser.getgroup("chatbridge").addoption(
        "--chatbridge-record",
        action="store_true",
        help="Call the real backends of tests marked chatbridge_recording, and record them anew.",
    )
    parser.addini(
        NO_LIVE,
        "Whether no test may reach another machine through a bridge.",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


# ------------------------------------------------------------------------------------- fixtures


@pytest.fixture
def fake_backend() -> FakeBackend:
    """Give a fake backend of the test's own."""
    from chatbridge.testing.fake import FakeBackend  # noqa: PLC0415 - see above

    return FakeBackend()


@pytest.fixture
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """
    Give a bridge to `fake_backend`, or to what the test's marker names, and close it after the test.

    One that has connections can be closed in the test's own event loop only: by `async with bridge`.
    """
    opened = _open(request)
    yield opened
    failed = request.node.stash.get(_FAILED, False)
    try:
        _close(opened, failed=failed)
    except BaseException:
        failed = True
        raise
    finally:
        _keep_recording(request, failed=failed)


@pytest.fixture
def chatbridge_emulator() -> EmulatorFactory:
    """Give what serves the emulators of backends."""
    return _serve


@pytest.fixture
def no_live_backends(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the test on this machine: no bridge to another one can be opened, or used."""
    with _on_this_machine(request.node, "the fixture no_live_backends"):
        yield


def _open(request: pytest.FixtureRequest) -> Bridge:
    recorded, named = (_marker(request.node, name) for name in ("chatbridge_recording", "chatbridge"))
    if recorded and named:
        pytest.fail("a test is marked chatbridge or chatbridge_recording, not both", pytrace=False)
    if recorded:
        return _open_recorded(request, *recorded)
    if named:
        from chatbridge.bridge import connect  # noqa: PLC0415

        config, options = named
        return connect(config, **options)
    fake: FakeBackend = request.getfixturevalue("fake_backend")
    return fake.bridge()


def _marker(node: pytest.Item, name: str) -> tuple[str, Mapping[str, Any]] | None:
    """Read the config string and the options of a marker, if there is one."""
    from chatbridge.secret import Veiled  # noqa: PLC0415

    mark = node.get_closest_marker(name)
    if mark is None:
        return None
    if len(mark.args) != 1 or not isinstance(mark.args[0], str):
        pytest.fail(f'write @pytest.mark.{name}("CONFIG STRING", option=...)', pytrace=False)
    # What is raised may be shown with the variables of the functions that it passes.
    return mark.args[0], Veiled(mark.kwargs)


def _open_recorded(request: pytest.FixtureRequest, config: str, options: Mapping[str, Any]) -> Bridge:
    from chatbridge.bridge import connect  # noqa: PLC0415
    from chatbridge.secret import Veiled  # noqa: PLC0415

    file = _recording(request, options.get("file"))
    if request.config.getoption("chatbridge_record"):
        file.parent.mkdir(parents=True, exist_ok=True)
        given = Veiled({name: value for name, value in options.items() if name != "file"})
        request.node.stash[_RECORDED] = file
        return connect(config, record=_unfinished(file), **given)
    if not file.is_file():
        pytest.fail(f"there is no recording {file}: run pytest --chatbridge-record to make it", pytrace=False)
    return connect("replay:", file=str(file))


def _unfinished(file: Path) -> Path:
    """Say where a recording is until its test has passed."""
    return file.with_name(f"{file.name}.new")


def _keep_recording(request: pytest.FixtureRequest, *, failed: bool) -> None:
    """Put a new recording in the place of the old one, unless the test has failed."""
    file = request.node.stash.get(_RECORDED, None)
    if file is not None and failed:
        _unfinished(file).unlink(missing_ok=True)
    elif file is not None:
        _unfinished(file).replace(file)


def _recording(request: pytest.FixtureRequest, file: str | Path | None) -> Path:
    """Say where the recording of a test is: in a folder beside the test's file."""
    if file is None:
        chain = cast(pytest.Item, request.node).listchain()
        test = ".".join(node.name for node in chain if isinstance(node, pytest.Class | pytest.Function))
        file = Path("recordings", request.path.stem, quote(test, safe="[]=, ") + ".jsonl")
    return request.path.parent / file


def _close(bridge: Bridge, *, failed: bool) -> None:
    """Close *bridge*, if that was forgotten, and fail where only the test could have done it."""
    if bridge.bounds.closed:
        return
    import asyncio  # noqa: PLC0415
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    loop = bridge.loop
    in_use = loop is not None
    closing = asyncio.wait_for(bridge.close(), CLOSING)
    try:
        if loop is not None and not loop.is_closed():
            loop.run_until_complete(closing)
        else:
            # What is left of connections whose loop is gone is told below.
            with warnings.catch_warnings(), ThreadPoolExecutor(1) as thread:
                warnings.simplefilter("ignore", ResourceWarning)
                thread.submit(asyncio.run, closing).result()
                if in_use:
                    gc.collect()
    except TimeoutError:
        in_use = True
    except Exception:
        if not failed:
            raise
    if in_use and not failed:
        pytest.fail(
            "the bridge was not closed, and is in use by an event loop that only the test has: "
            "write `async with bridge:` around what it does",
            pytrace=False,
        )


@asynccontextmanager
async def _serve(name: str, /, **settings: Any) -> AsyncGenerator[Served]:  # noqa: ANN401 - see EmulatorFactory
    from chatbridge.errors import BadOption  # noqa: PLC0415
    from chatbridge.registry import load_adapter  # noqa: PLC0415
    from chatbridge.testing.emulator import serve  # noqa: PLC0415

    new_emulator = load_adapter(name).load_emulator()
    known = tuple(signature(new_emulator).parameters)
    for setting in settings:
        if setting not in known:
            raise BadOption(
                option=setting, problem="is no setting of the emulator", backend=name, known=known
            )
    async with serve(new_emulator(**settings)) as served:
        crashes = served.emulator.crashes
        try:
            yield served
        except Exception as error:
            for crash in crashes:
                error.add_note(f"the emulator of {name} crashed: {crash!r}")
            raise
    if crashes:
        raise crashes[0]


# -------------------------------------------------------------------------------- no live backends


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keep tests on this machine where the ini option says so."""
    if not item.config.getini(NO_LIVE):
        return (yield)
    with _on_this_machine(item, f"the ini option {NO_LIVE}"):
        return (yield)


def _on_this_machine(item: pytest.Item, forbidden_by: str) -> AbstractContextManager[None]:
    records = item.config.getoption("chatbridge_record") and item.get_closest_marker("chatbridge_recording")
    if records or item.get_closest_marker("chatbridge_live"):
        return nullcontext()
    from chatbridge.guard import only_loopback  # noqa: PLC0415

    return only_loopback(f"{forbidden_by} (unless a test is marked chatbridge_live)")


# ----------------------------------------------------------------------------------------- reports

_FAILED = pytest.StashKey[bool]()
_RECORDED = pytest.StashKey[Path]()

_OURS = frozenset({"chatbridge", "chatbridge_adapters"})
# What stands between the frames of a test and ours, and below ours.
_HIDDEN = _OURS | {
    "_pytest",
    "aiohttp",
    "asyncio",
    "concurrent",
    "contextlib",
    "pluggy",
    "pytest_asyncio",
    "tenacity",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show errors of chatbridge's with the frames of the test's own, unless all are asked for."""
    caught = call.excinfo
    if call.when == "call":
        item.stash[_FAILED] = caught is not None
    if caught is None or item.config.getoption("fulltrace"):
        return (yield)
    for error in _linked(caught.value):
        if error is not caught.value and _is_ours(error):
            error.__traceback__ = _shortened(error.__traceback__)
    shown: TracebackType | None = caught.tb
    if _is_ours(caught.value):
        shown = _shortened(shown)
        if shown is not None:
            caught.traceback = type(caught.traceback)(shown)
    report = yield
    if shown is None and report.failed:
        notes = getattr(caught.value, "__notes__", ())
        report.longrepr = "\n".join([f"{type(caught.value).__qualname__}: {caught.value}", *notes])
    return report


def _linked(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, and all that hang on it."""
    found, seen = [error], set[int]()
    while found:
        each = found.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        found += [link for link in (each.__cause__, each.__context__) if link is not None]
        if isinstance(each, BaseExceptionGroup):
            found += cast("BaseExceptionGroup[BaseException]", each).exceptions


def _is_ours(error: BaseException) -> bool:
    """Whether *error* is a class of chatbridge's, or a demand of `chatbridge.testing` that was not met."""
    if any(_package(cls.__module__) in _OURS for cls in type(error).__mro__):
        return True
    entries = _entries(error.__traceback__)
    return isinstance(error, AssertionError) and bool(entries) and _where(entries[-1]) in _OURS


def _package(module: str) -> str:
    return module.partition(".")[0]


def _where(entry: TracebackType) -> str:
    return _package(entry.tb_frame.f_globals.get("__name__", ""))


def _entries(traceback: TracebackType | None) -> list[TracebackType]:
    entries = list[TracebackType]()
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    return entries


def _shortened(traceback: TracebackType | None) -> TracebackType | None:
    """Leave out the frames that are hidden."""
    short: TracebackType | None = None
    for entry in reversed(_entries(traceback)):
        if _where(entry) not in _HIDDEN:
            short = TracebackType(short, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return short
