"""Fixtures that reach an emulator through a bridge, and settings for all tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from chatbridge import Bridge, connect
from chatbridge.testing.emulator import Emulator, serve
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.kaziro.emulator import KaziroEmulator

# The plug-in under test is loaded here, not by its entry point, as coverage is measured from here on.
pytest_plugins = ["chatbridge.testing.pytest_plugin", "pytester"]

# How fast the machine is decides nothing.
settings.register_profile("chatbridge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("chatbridge")


@pytest.fixture(scope="session", autouse=True)
def no_store_of_mine() -> Generator[None]:
    """Keep the command line, in this process and in those that tests start, from its user's own store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHATBRIDGE_STORE", "memory:")
        yield


@pytest.fixture
async def reach() -> AsyncGenerator[Callable[..., Awaitable[Bridge]], None]:
    """
    Serve an emulator until the test ends, and give a bridge to it; keywords are those of `connect`.

    Unless told to, it reads no conversation back, so that each call is the request that it is made of.
    """
    served: list[Emulator] = []
    async with AsyncExitStack() as stack:

        async def reach(emulator: Emulator, **options: object) -> Bridge:
            at = await stack.enter_async_context(serve(emulator))
            served.append(emulator)
            given: dict[str, Any] = {"key": emulator.key, "settle_timeout": 0, **options}
            return await stack.enter_async_context(connect(at.config, **given))

        yield reach
    assert [] == [crash for emulator in served for crash in emulator.crashes]


@pytest.fixture
def kaziro_emulator() -> KaziroEmulator:
    return KaziroEmulator()


@pytest.fixture
def h2ogpte_emulator() -> H2OGPTeEmulator:
    return H2OGPTeEmulator()


@pytest.fixture
async def kaziro(reach: Callable[..., Awaitable[Bridge]], kaziro_emulator: KaziroEmulator) -> Bridge:
    """Give a bridge to the emulator of Kaziro."""
    return await reach(kaziro_emulator)


@pytest.fixture
async def h2ogpte(reach: Callable[..., Awaitable[Bridge]], h2ogpte_emulator: H2OGPTeEmulator) -> Bridge:
    """Give a bridge to the emulator of h2oGPTe."""
    return await reach(h2ogpte_emulator)
