"""Ask a misbehaving server for one thing, and print how much memory that took at its peak, in MiB."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

from attrs import frozen

from chatbridge import ChatbridgeError
from chatbridge.http import Api, ApiError, Endpoint, Id, JsonLines, Kind, Transport
from chatbridge.options import CommonOptions


def nothing(_: int, __: object) -> ApiError:
    """Read nothing off an error."""
    return ApiError()


@frozen
class Hi:
    """An answer, or an event."""

    id: Id


def peak() -> float:
    """Give the largest resident set so far, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """Begin to measure the peak anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


async def main(url: str, name: str, streamed: str) -> None:
    """Warm up, then ask."""
    transport = Transport(url, CommonOptions(timeout=60.0))
    api = Api(transport, "acme", headers={}, read_error=nothing)
    for _ in range(20):
        await api.call(Endpoint("get", "GET", "/ok", Kind.READ, answer=Hi))
    gc.collect()
    forget_peak()
    before, outcome = peak(), "ok"
    try:
        if streamed == "stream":
            events: Endpoint[Hi] = Endpoint(
                "get", "GET", f"/{name}", answer=Hi, framing=JsonLines, ends=lambda event: event.id == "end"
            )
            async with api.stream(events) as stream:
                async for _ in stream:
                    pass
        else:
            await api.call(Endpoint("get", "GET", f"/{name}", answer=Hi))
    except ChatbridgeError as error:
        outcome = f"{type(error).__name__} {getattr(error, 'kind', '')}"
    print(f"{peak() - before:.1f} {outcome}")  # noqa: T201
    await transport.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
