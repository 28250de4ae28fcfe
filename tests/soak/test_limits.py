"""Deadlines by the real clock, memory under bombs, and what is left after thousands of calls (D1, J4, K3)."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from attrs import evolve, frozen

from chatbridge import ChatbridgeError, connect
from chatbridge.http import Api, ApiError, Endpoint, Id, JsonLines, Kind, ServerSentEvents, Transport
from chatbridge.options import CommonOptions

pytestmark = pytest.mark.soak

HERE = Path(__file__).parent
DEADLINE, OVERRUN = 1.0, 0.25
MEMORY = 48.0

TIMED = ["stall", "stall-in-head", "stall-in-body", "drip-head", "drip-body", "late-bad-chunk", "bomb"]
TIMED_STREAMS = [*TIMED, "comments", "blank-lines", "stream-for-ever"]


def nothing(_: int, __: object) -> ApiError:
    """Read nothing off an error."""
    return ApiError()


@frozen
class Hi:
    id: Id


def is_end(event: Hi) -> bool:
    return event.id == "end"


@contextmanager
def serving(script: Path) -> Generator[str]:
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(HERE / "misbehaving.py") as found:
        yield found


@asynccontextmanager
async def api_of(url: str, **options: float) -> AsyncGenerator[Api]:
    transport = Transport(url, CommonOptions(**options))  # type: ignore[arg-type]  # each takes a number
    yield Api(transport, "acme", headers={}, read_error=nothing)
    await transport.close()


async def read(api: Api, events: Endpoint[Hi]) -> None:
    async with api.stream(events) as stream:
        async for _ in stream:
            pass


@pytest.mark.parametrize("kind", [Kind.SEND, Kind.READ])
@pytest.mark.parametrize(
    ("name", "streamed"), [(n, False) for n in TIMED] + [(n, True) for n in TIMED_STREAMS]
)
async def test_d1_a_deadline_is_overrun_by_a_quarter_of_a_second_at_most(
    url: str, name: str, streamed: bool, kind: Kind, capsys: pytest.CaptureFixture[str]
) -> None:
    framing = ServerSentEvents if name == "comments" else JsonLines
    called: Endpoint[Hi] = Endpoint("get", "GET", f"/{name}", kind, answer=Hi)
    events = evolve(called, framing=framing, ends=is_end)
    async with api_of(url, timeout=DEADLINE) as api:
        begun = time.monotonic()
        with pytest.raises(ChatbridgeError) as caught:
            await (read(api, events) if streamed else api.call(called))
        took = time.monotonic() - begun
    with capsys.disabled():
        how = "streamed" if streamed else "whole"
        print(f"\n{name} {how} {kind.value}: {took:.3f} s, {type(caught.value).__name__}")  # noqa: T201
    assert took < DEADLINE + OVERRUN


@pytest.mark.parametrize(
    ("name", "how", "outcome"),
    [
        ("bomb", "whole", "AnswerLost encoding"),
        ("bomb", "stream", "AnswerLost encoding"),
        ("small-bomb", "whole", "AnswerLost encoding"),
        ("body-64", "whole", "AnswerLost oversize"),
        ("body-64", "stream", "AnswerLost oversize"),
        ("body-15", "whole", "ok"),
        ("stream-63", "stream", "ok"),
        ("stream-for-ever", "stream", "StreamCut oversize"),
        ("line-5", "stream", "ok"),
    ],
)
def test_j4_memory_stays_within_bounds(
    url: str, name: str, how: str, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "use_memory.py"), url, name, how],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    used, _, said = done.stdout.strip().partition(" ")
    with capsys.disabled():
        print(f"\n{name} {how}: {used} MiB over idle, {said}")  # noqa: T201
    assert outcome.rpartition(" ")[2] in said
    assert float(used) < MEMORY


def resident() -> float:
    """Give the resident set in MiB."""
    gc.collect()
    return (
        int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        * os.sysconf("SC_PAGE_SIZE")
        / 2**20
    )


def open_sockets() -> int:
    """Count the sockets of this process."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum("socket" in str(link.readlink()) for link in links if link.exists())


async def test_k3_thousands_of_calls_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten rounds of a thousand messages at once, each to a conversation of its own."""
    sizes: list[float] = []
    with serving(HERE.parent / "benchmarks" / "server.py") as served:
        url = served.replace("http", "h2ogpte+http", 1)
        async with connect(url, key="sk-soak", concurrency=64) as bridge:
            tasks = len(asyncio.all_tasks())
            for number in range(10):
                places = asyncio.Semaphore(120)

                async def say(text: str, places: asyncio.Semaphore = places) -> None:
                    async with places:
                        await bridge.open(text).send(text)

                async with asyncio.TaskGroup() as group:
                    for each in range(1000):
                        group.create_task(say(f"c{number}-{each}"))
                assert tasks == len(asyncio.all_tasks())
                sizes.append(resident())
        await asyncio.sleep(0)
    sockets = open_sockets()
    with capsys.disabled():
        shown = " ".join(f"{size:.1f}" for size in sizes)
        print(f"\nMiB after each round: {shown}; sockets left: {sockets}")  # noqa: T201
    assert sizes[-1] - sizes[1] < 5
    assert sockets <= 4  # The event loop's own.
