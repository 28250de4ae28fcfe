"""The rules of the contract for what a backend shows and leaves behind: errors, secrets, tasks, imports."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import os
import sys
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial

from attrs import fields

from chatbridge.backend import Feature, Stores
from chatbridge.bridge import Bridge
from chatbridge.domain import SendOptions
from chatbridge.errors import ChatbridgeError, NotFound, Refused, UsageError
from chatbridge.secret import Secret
from chatbridge.testing.checking import (
    Checks,
    NotApplicable,
    again,
    blind,
    both,
    expect,
    expect_equal,
    expect_refused,
    what_raises,
)
from chatbridge.testing.faults import Fault
from chatbridge.testing.leaks import leak_in, leaks_of

__all__ = ["HouseChecks"]

NO_OPTIONS = SendOptions()
_SHORTEST_SECRET = 8  # a shorter one turns up by chance
_HEAVY = ("pytest", "hypothesis", "aiohttp.web", "click", "rich")
_MEASURE = """
import importlib, json, sys, time
start = time.perf_counter(); import chatbridge.http; core = time.perf_counter() - start
start = time.perf_counter(); importlib.import_module(sys.argv[1]); own = time.perf_counter() - start
print(json.dumps([core, own, list(sys.modules)]))
"""


class HouseChecks(Checks):
    """Rules for a backend's manners."""

    SLOWEST_IMPORT = 2.0

    async def check_errors(self) -> None:
        """Raise errors that can be pickled and copied, and say the same afterwards."""
        async with self.bridge() as bridge:
            raised: list[ChatbridgeError] = [bridge.profile.unsupported(feature) for feature in Feature]
            chat = bridge.open(self.unknown_id())
            if bridge.profile.can(Feature.GET):
                raised.append(await what_raises(NotFound, "reading an unknown conversation", chat.refresh))
            if bridge.profile.stores is not Stores.NEVER:
                what = "a message to an unknown conversation"
                raised += [await what_raises(Refused, what, call) for call in both(chat, NO_OPTIONS)]
            for error in raised:
                for same in (again(error), copy.copy(error), copy.deepcopy(error)):
                    expect_equal(error.__class__, same.__class__, "the class of an error after pickling")
                    expect_equal(str(error), str(same), "the text of an error after pickling")
                    expect_equal(vars(error), vars(same), "the facts of an error after pickling")

    async def check_secrets(self) -> None:
        """Show no secret in errors and logs, not even one that the server sends back."""
        with _logged() as records:
            async with self.bridge() as bridge:
                secrets = _secrets_of(bridge)
                if not secrets:
                    raise NotApplicable("it was opened without a secret that is long enough to be looked for")
                mishaps = await self._mishaps(bridge, secrets[0])
                if not mishaps:
                    raise NotApplicable("nothing can be made to fail")
                for error in mishaps:
                    leak = next(leaks_of(error, secrets), None)
                    expect(leak is None, f"a secret is in the {leak} of {type(error).__name__}")
        for record in records:
            shown = f"{record.getMessage()} {record.args!r} {vars(record)!r}"
            expect(not leak_in(shown, secrets), f"a secret is in a record of {record.name}")

    async def _mishaps(self, bridge: Bridge, secret: Secret) -> list[ChatbridgeError]:
        """Have as many calls fail as can be made to, with what is *secret* in the server's words."""
        raised: list[ChatbridgeError] = []

        async def fail(call: Callable[[], Awaitable[object]], fault: Fault | None = None) -> None:
            if fault is not None:
                self.partner(bridge).fail(fault)
            try:
                await call()
            except ChatbridgeError as error:
                raised.append(error)

        can, nowhere = bridge.profile.can, bridge.open(self.unknown_id())
        calls = {Feature.GET: nowhere.refresh, Feature.SEND: lambda: nowhere.send("Hello")}
        for call in (call for feature, call in calls.items() if can(feature)):
            await fail(call)
        telling = _telling(secret.reveal())
        with suppress(NotApplicable):
            for fault in telling[:1] if can(Feature.GET) else ():
                await fail(nowhere.refresh, fault)
            for fault in telling if can(Feature.CREATE) else ():
                await fail(bridge.create, fault)
            for asked in (self.sent, self.streamed) if can(Feature.SEND) else ():
                for fault in telling:
                    chat = await self.conversation(blind(bridge))
                    await fail(partial(asked, chat, "Hello"), fault)
        return raised

    async def check_nothing_left(self) -> None:
        """Leave no task and no connection behind when closed."""
        before = asyncio.all_tasks()
        gc.collect()  # What others have left is not this backend's.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            async with self.bridge() as bridge:
                if bridge.profile.can(Feature.SEND):
                    chat = await self.conversation(bridge)
                    await chat.send("Hello")
                    async with chat.stream("Hello again") as stream:
                        await anext(stream)
                elif bridge.profile.can(Feature.LIST):
                    _ = [each async for each in bridge.conversations()]
            for _ in range(20):
                await asyncio.sleep(0)
            left = asyncio.all_tasks() - before
            gc.collect()
        named = ", ".join(task.get_name() for task in left)
        for task in left:
            task.cancel()
        expect(not left, f"{len(left)} tasks are left after closing: {named}")
        unclosed = [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)]
        expect(not unclosed, f"something is left unclosed: {unclosed}")
        connected = getattr(self.emulator, "connections", 0)
        expect(not connected, f"{connected} connections to the server are open after closing")

    async def check_import(self) -> None:
        """Be imported quickly, and without test frameworks, servers or command lines."""
        async with self.bridge() as bridge:
            module = type(bridge.api).__module__
        if module == "__main__" or sys.modules[module].__spec__ is None:
            raise NotApplicable("its module cannot be imported by its name")
        if module not in _measured:
            _measured[module] = await _measure(module)
        core, own, heavy = _measured[module]
        expect(not heavy, f"importing {module} imports {', '.join(heavy)}")
        ratio = own / core
        slow = f"importing {module} takes {ratio:.1f} times as long as chatbridge.http"
        expect(ratio <= self.SLOWEST_IMPORT, slow)

    async def check_closed(self) -> None:
        """Say so once closed, and be closed again without harm."""
        async with self.bridge() as bridge:
            chat = await self.conversation(bridge)
            await bridge.close()
            await bridge.close()
            for call in (bridge.create, *both(chat, NO_OPTIONS)):
                expect_refused(UsageError, "a call after closing", call)


def _telling(secret: str) -> tuple[Fault, ...]:
    """Make the server tell *secret* in all the ways that it has."""
    return (
        Fault(status=401, error=f"the key {secret} is wrong"),
        Fault(status=500, error=f"at {secret}"),
        Fault(status=400, body=json.dumps({"detail": secret}).encode()),
        Fault(status=302, headers={"Location": f"https://elsewhere.example/?key={secret}"}),
        Fault(status=200, body=f'{{"{secret}'.encode()),
        Fault(drop="before"),
    )


def _secrets_of(bridge: Bridge) -> list[Secret]:
    values = [getattr(bridge.options, attribute.name) for attribute in fields(type(bridge.options))]
    secrets = [value for value in values if isinstance(value, Secret)]
    return [secret for secret in secrets if len(secret.reveal()) >= _SHORTEST_SECRET]


class _Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@contextmanager
def _logged() -> Generator[list[logging.LogRecord]]:
    """Collect what is logged in the block, by whomever and at every level."""
    records: list[logging.LogRecord] = []
    handler = _Collector(records)
    known = (each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger))
    loggers = [logging.getLogger(), logging.getLogger("chatbridge"), *known]
    heard = {each: each.level for each in loggers if each.parent is None or each.level or not each.propagate}
    for logger in heard:
        logger.setLevel(logging.DEBUG)
    deaf = [logger for logger in heard if logger.parent is None or not logger.propagate]
    for logger in deaf:
        logger.addHandler(handler)
    try:
        yield records
    finally:
        for logger in deaf:
            logger.removeHandler(handler)
        for logger, level in heard.items():
            logger.setLevel(level)


_measured: dict[str, tuple[float, float, list[str]]] = {}


async def _measure(module: str) -> tuple[float, float, list[str]]:
    """Import *module* in a process of its own: seconds of the core and of it, and what it should not load."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _MEASURE,
        module,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    out, err = await process.communicate()
    expect(process.returncode == 0, f"{module} cannot be imported by itself: {err.decode()[-500:]}")
    core, own, loaded = json.loads(out)
    return core, own, [name for name in _HEAVY if name in loaded]
