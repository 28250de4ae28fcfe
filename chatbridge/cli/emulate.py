"""`chatbridge emulate`: one emulator, served until it is told to stop."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Mapping
from contextlib import suppress

from attrs import evolve, frozen

from chatbridge.cli.output import Output
from chatbridge.cli.plain import Json, plain
from chatbridge.config import BackendURL
from chatbridge.errors import ConfigError
from chatbridge.guard import is_loopback
from chatbridge.registry import load_adapter
from chatbridge.structuring import structure_settings
from chatbridge.testing.emulator import Served, serve

__all__ = ["emulate"]


async def emulate(
    name: str,
    host: str,
    port: int,
    output: Output,
    *,
    key: str | None = None,
    settings: Mapping[str, str] | None = None,
    as_json: bool,
) -> None:
    """
    Serve the emulator *name* until SIGINT or SIGTERM, and say where it is.

    Args:
        name: The API's scheme.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        output: Where that is said.
        key: The key to accept; None leaves it to the emulator.
        settings: How the emulator is to behave, by the names of its attributes.
        as_json: Whether it is said in JSON.

    Raises:
        ConfigError: There is none, it cannot listen there, the key is empty, or a setting is unknown or bad.
    """
    if key is not None and not key.strip():
        raise ConfigError(f"{name}: a key is not empty")
    kind = load_adapter(name).load_emulator()
    values = structure_settings(kind, settings or {}, backend=name)
    emulator = kind(**(values if key is None else {**values, "key": key}))
    stop = asyncio.Event()
    # Before it is said to be ready, so that whoever reads that can stop it.
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has no such handlers; Ctrl-C works there all the same.
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    problem = None
    try:
        async with serve(emulator, host, port) as served:
            _announce(_Ready.of(served), output, as_json=as_json)
            await stop.wait()
    except BrokenPipeError:
        raise
    except OSError as error:
        problem = error.strerror or str(error)
    if problem is not None:
        raise ConfigError(f"{name}: cannot listen on {host}, port {port}: {problem}")


@frozen
class _Ready:
    """An emulator that answers, and what a client needs to reach it."""

    name: str
    base_url: str
    config: str
    env: dict[str, str]

    @classmethod
    def of(cls, served: Served) -> _Ready:
        # "Any address" is none to connect to.
        url = served.base_url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        served = evolve(served, base_url=url)
        config = BackendURL.parse(served.config)
        if not is_loopback(config.host or ""):
            config = config.with_options(insecure="true")
        return cls(served.emulator.name, url, str(config), served.emulator.env)


def _announce(ready: _Ready, output: Output, *, as_json: bool) -> None:
    if as_json:
        document: Json = {name: plain(getattr(ready, name)) for name in ("name", "base_url", "config", "env")}
        return output.json(document)
    output.write(f"{ready.name} is emulated at {ready.base_url}; Ctrl-C stops it. To talk to it:\n")
    for variable, value in ready.env.items():
        output.write(f"  export {variable}={shlex.quote(value)}")
    return output.write(f"  chatbridge chat {shlex.quote(ready.config)}")
