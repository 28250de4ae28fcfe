"""
The rules that every store keeps, for authors of stores to run.

    class TestShelf(StoreContract):
        def open_store(self): return ShelfStore("/tmp/shelf")

A test framework such as pytest finds a test for each rule in that class; without one there is
`await TestShelf().run()`. The rules use conversations of their own, and leave them there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import evolve

from chatbridge.domain import Conversation, Message, Reply
from chatbridge.errors import StoreError
from chatbridge.testing.checking import expect, expect_equal, what_raises
from chatbridge.testing.store_case import everything, new_place, new_turns, recorded, said_in
from chatbridge.testing.store_conversation_checks import StoreConversationChecks
from chatbridge.testing.store_history_checks import StoreHistoryChecks
from chatbridge.testing.store_sharing_checks import StoreSharingChecks
from chatbridge.testing.store_turn_checks import StoreTurnChecks
from chatbridge.turns import TurnState

__all__ = ["StoreContract"]


class StoreContract(StoreConversationChecks, StoreHistoryChecks, StoreSharingChecks, StoreTurnChecks):
    """
    What types cannot say of a `Store`, as checks.

    Attributes:
        LASTS: Whether what a store has written is there for the next one that `open_store` gives.
    """

    async def check_what_is_written_lasts(self) -> None:
        """Have what was written when opened again."""
        self.expect_to_last()
        (turn,) = new_turns(1)
        async with self.open_store() as store:
            place = new_place()
            turn = await store.record(place, evolve(turn, state=TurnState.UNKNOWN))
            kept = await store.keep(place, Conversation(place.id, "Kyoto"), [everything()])
        async with self.open_store() as store:
            expect_equal([turn], await recorded(store, place), "the turns")
            expect_equal(kept, await store.conversation(kept.id, "a"), "the conversation")
            expect_equal([everything()], await said_in(store, kept.remote), "the messages")

    async def check_what_is_begun_is_written(self) -> None:
        """Write what was begun, though the task that began it is cancelled."""
        async with self.open_store() as store:
            (turn,) = new_turns(1)
            answer = Reply([Message.assistant("Ho")])
            done = evolve(turn, state=TurnState.DELIVERED)
            place = new_place()
            recording = asyncio.create_task(store.record(place, done, answer))
            await asyncio.sleep(0)
            recording.cancel()
            await asyncio.wait([recording])
            expect(recording.cancelled() or recording.done(), "the task must end")
            expect_equal(2, len(await said_in(store, place)), "how many messages are there")

    async def check_what_json_lacks_is_refused(self) -> None:
        """Refuse what could not be read back as it was, and write nothing of it."""
        self.expect_to_last()
        async with self.open_store() as store:
            place, deep = new_place(), list[object]()
            for _ in range(100_000):
                deep = [deep]
            for wrong in (object(), float("nan"), {1: "one"}, b"", deep):
                message = evolve(Message.user("Hi"), extra={"wrong": wrong})
                adding = partial(store.keep, place, messages=[message])
                error = await what_raises(StoreError, f"a {type(wrong).__name__}", adding)
                expect_equal("value", error.kind, "the kind of the error")
            expect_equal(None, await store.find(place), "what was written")

    async def check_a_closed_store_says_so(self) -> None:
        """Refuse everything once closed, and let it be closed again."""
        store = self.open_store()
        (turn,), place = new_turns(1), new_place()
        await store.record(place, turn)
        await store.close()
        await store.close()
        actions: dict[str, Callable[[], Any]] = {
            "opening": store.open,
            "recording": lambda: store.record(place, turn),
            "reading": lambda: store.turns(place),
            "listing": store.conversations,
            "a history": lambda: store.messages("x"),
            "forgetting": lambda: store.forget("x"),
        }
        for what, action in actions.items():
            error = await what_raises(StoreError, f"{what} after closing", action)
            expect_equal("closed", error.kind, "the kind of the error")
