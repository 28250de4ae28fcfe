"""The contract over APIs that keep nothing, with each store: there their conversations are."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from secrets import token_hex

import pytest

from chatbridge import Bridge, SendOptions
from chatbridge.completing import is_kept_here
from chatbridge.config import BackendURL
from chatbridge.history import PostgresStore, SQLiteStore, Store
from chatbridge.registry import declared_profile
from chatbridge.testing.answers import by_rule
from chatbridge.testing.contract import (
    SAY_NOTHING,
    Ask,
    ChatBackendContract,
    EmulatorContract,
)
from chatbridge.testing.fake import FakeBackend
from chatbridge.testing.memory import COMPLETIONS
from postgres import missing, serving
from test_contract import CONTRACTS

KEEP_NOTHING = {
    contract.backend: contract
    for contract in reversed(CONTRACTS)
    if issubclass(contract, EmulatorContract)
    and is_kept_here(declared_profile(BackendURL.parse(f"{contract.backend}:")))
}
"""By its backend, each contract for an API that keeps nothing; of several the first."""


@pytest.fixture(params=["sqlite", "postgres"], scope="module")
def make(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Callable[[], Store]]:
    """Give a way to a store that all rules share, each as another account."""
    if request.param == "sqlite":
        path: Path = tmp_path_factory.mktemp("kept") / "chats.db"
        yield lambda: SQLiteStore(path)
        return
    if missing():
        pytest.skip(missing())
    with serving() as server:
        where = {"host": str(server.folder), "port": server.port, "user": "chat", "database": "chats"}
        yield lambda: PostgresStore(**where)  # type: ignore[arg-type]


class _Kept:
    MANY = 12


class FakeContract(_Kept, ChatBackendContract):
    store: Store

    def open_backend(self) -> Bridge:
        self.emulator = fake = FakeBackend(
            profile=COMPLETIONS,
            answers=lambda messages: "" if messages[-1].text == SAY_NOTHING else by_rule(messages),
        )
        return Bridge(
            fake.completions, options=fake.options, clock=fake.clock, store=self.store, account=token_hex(4)
        )

    def ask_for_nothing(self) -> Ask:
        return Ask(SAY_NOTHING)

    def ask_to_reason(self) -> Ask:
        return Ask("Think.", SendOptions(extra={"reasoning": True}))


async def problems(contract: ChatBackendContract) -> list[str]:
    return [str(result) for result in await contract.run() if result.problem]


async def test_the_fake_keeps_every_rule_in_any_store(make: Callable[[], Store]) -> None:
    contract = FakeContract()
    async with make() as contract.store:
        assert [] == await problems(contract)


@pytest.mark.parametrize("backend", KEEP_NOTHING)
async def test_an_adapter_keeps_every_rule_in_any_store(backend: str, make: Callable[[], Store]) -> None:
    contract = KEEP_NOTHING[backend]
    async with make() as store:

        class Contract(_Kept, contract):  # type: ignore[valid-type,misc]
            def open_backend(self) -> AbstractAsyncContextManager[Bridge]:
                type(self).options = {**contract.options, "store": store, "account": token_hex(4)}
                served: AbstractAsyncContextManager[Bridge] = self.served()
                return served

        assert [] == await problems(Contract())
