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
from chatbridge.registry import backend_names, declared_profile
from chatbridge.testing.answers import by_rule
from chatbridge.testing.contract import SAY_NOTHING, Ask, ChatBackendContract, EmulatorContract
from chatbridge.testing.fake import COMPLETIONS, FakeBackend
from postgres import missing, serving

KEEP_NOTHING = [
    name for name in backend_names() if is_kept_here(declared_profile(BackendURL.parse(f"{name}:")))
]


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
    """
    The settings of a contract over a store.

    Attributes:
        store: The store.
    """

    MANY = 12
    store: Store


class FakeContract(_Kept, ChatBackendContract):
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


@pytest.mark.parametrize("name", KEEP_NOTHING)
async def test_an_adapter_keeps_every_rule_in_any_store(name: str, make: Callable[[], Store]) -> None:
    async with make() as store:

        class Contract(_Kept, EmulatorContract):
            backend = name

            def open_backend(self) -> AbstractAsyncContextManager[Bridge]:
                type(self).options = {"store": store, "account": token_hex(4)}
                return super().open_backend()

        assert [] == await problems(Contract())
