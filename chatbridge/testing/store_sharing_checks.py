"""The rules of stores for several at once: who holds a conversation, and who writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from attrs import evolve

from chatbridge.domain import Conversation, Message, Reply
from chatbridge.errors import StoreError
from chatbridge.history.rows import Hold, Remote
from chatbridge.history.store import Store
from chatbridge.testing.checking import expect, expect_equal, what_raises
from chatbridge.testing.store_case import StoreCase, new_place, new_turns, recorded, said_in
from chatbridge.turns import TurnState

__all__ = ["StoreSharingChecks"]


class StoreSharingChecks(StoreCase):
    """Several tasks, stores and processes on one place."""

    async def check_one_holds_a_conversation(self) -> None:
        """Let one holder at a time have a conversation, until it is released or its time is over."""
        async with self.open_store() as store:
            place, (turn,) = new_place(), new_turns(1)
            expect_equal(Hold.AFTER_ANOTHER, await store.hold(place, "one"), "what the first gets")
            expect_equal(Hold.BUSY, await store.hold(place, "two"), "what another gets meanwhile")
            expect_equal(Hold.OURS, await store.hold(place, "one"), "what the first gets again")
            expect(await store.release(place, "one", lease=store.lease), "who has it must be able to keep it")
            expect_equal(Hold.BUSY, await store.hold(place, "two"), "what another gets then")
            expect(not await store.release(place, "two"), "another must not release it")
            expect(await store.release(place, "one"), "who has it must be able to release it")
            expect_equal(Hold.AFTER_ANOTHER, await store.hold(place, "two"), "what another gets at last")
            before = await store.find(place)
            await store.release(place, "two", lease=1e-6)
            while (await store.find(place) or before).held_for > 0:  # type: ignore[union-attr]
                pass
            expect_equal(Hold.AFTER_ANOTHER, await store.hold(place, "three"), "what comes after its time")
            lost = partial(store.record, place, turn, holder="two")
            error = await what_raises(StoreError, "a message of one who no longer has it", lost)
            expect_equal("locked", error.kind, "the kind of the error")
            expect_equal((), await store.turns(place), "what was recorded of it")
            await store.record(place, turn, holder="three")
            done = evolve(turn, state=TurnState.REFUSED)
            await store.record(place, done, holder="three", last=True)
            expect_equal(
                Hold.AFTER_ANOTHER, await store.hold(place, "four"), "what comes after the last word"
            )

    async def check_only_what_is_about_holding_changes_it(self) -> None:
        """Leave a conversation held for as long as it was, or free, by all else that is written."""
        async with self.open_store() as store:
            place, (turn,) = new_place(), new_turns(1)

            async def write() -> None:
                await store.record(place, turn)
                await store.waive(place, turn.id)
                await store.keep(place, Conversation(place.id, "Title"), [Message.user("Hi")])

            lease = min(store.lease, 1000.0) / 2
            await store.hold(place, "one")
            await store.release(place, "one", lease=lease)
            await write()
            kept = await store.find(place)
            expect(kept is not None and kept.held_for <= lease, "it must not be held for longer")
            expect_equal(Hold.BUSY, await store.hold(place, "two"), "what another gets while it is held")
            await store.release(place, "one")
            await write()
            expect_equal(Hold.AFTER_ANOTHER, await store.hold(place, "two"), "what it gets once it is free")

    async def check_who_makes_a_conversation_knows_it(self) -> None:
        """Give who has made a conversation, and nobody else, it as one that no other has spoken in."""
        async with self.open_store() as store:
            place = new_place()
            kept = await store.keep(place, created=True, holder="one")
            expect(kept.held_for <= 0, "who has made it must not hold it yet")
            expect_equal(Hold.OURS, await store.hold(place, "one"), "what its maker gets")
            await store.release(place, "one")
            await store.keep(place, holder="two")
            expect_equal(Hold.OURS, await store.hold(place, "one"), "what its maker gets again")
            await store.forget(kept.id)
            await store.keep(place)
            expect_equal(Hold.AFTER_ANOTHER, await store.hold(place, "one"), "what it gets of a new row")

    async def check_a_dead_holders_message_is_in_doubt(self) -> None:
        """Call a turn unknown that is pending though nobody holds its conversation."""
        async with self.open_store() as store:
            place, turns = new_place(), new_turns(2)
            await store.hold(place, "one")
            for turn in turns:
                await store.record(place, turn, holder="one")
            expect_equal(turns, await recorded(store, place), "the turns while they are under way")
            await store.release(place, "one")
            died = [evolve(turn, state=TurnState.UNKNOWN) for turn in turns]
            expect_equal(died, await recorded(store, place, unsettled=True), "the turns afterwards")
            await store.hold(place, "two")
            expect_equal(died, await recorded(store, place), "the turns while another has it")

    async def check_a_turn_is_not_in_doubt_while_its_end_is_written(self) -> None:
        """Call no turn unknown that is delivered, and its conversation released, while the turns are read."""
        async with self.open_store() as store:
            place, answer = new_place(), Reply([Message.assistant("Ho")])
            for turn in new_turns(5):
                await store.hold(place, "one")
                await store.record(place, turn, holder="one")
                # Each is at another place when the end is written.
                watching = [asyncio.create_task(_watch(store, place, pauses)) for pauses in range(4)]
                done = evolve(turn, state=TurnState.DELIVERED)
                await store.record(place, done, answer, holder="one", last=True)
                for seen in await asyncio.gather(*watching):
                    expect(TurnState.UNKNOWN not in seen, "no turn may seem to be in doubt")

    async def check_several_event_loops_share_it(self) -> None:
        """Serve an event loop in another thread as well."""
        async with self.open_store() as store:
            place = new_place()
            await store.keep(place, messages=[Message.user("one")])
            two = partial(store.keep, place, messages=[Message.user("two")])
            await asyncio.to_thread(lambda: asyncio.run(two()))
            await store.keep(place, messages=[Message.user("three")])
            expect_equal(
                ["one", "two", "three"], [each.text for each in await said_in(store, place)], "the history"
            )

    async def check_writers_at_once_lose_nothing(self) -> None:
        """Lose none of the messages that several tasks add at once, and keep each task's in order."""
        async with self.open_store() as store:
            await self._write_at_once([store] * 5)

    async def check_stores_on_one_place_share_it(self) -> None:
        """Let two stores on one place write at once, and each see what the other has written."""
        self.expect_to_last()
        async with self.open_store() as one, self.open_store() as two:
            await self._write_at_once([one, two, one, two])
            (turn,), place = new_turns(1), new_place()
            await one.hold(place, "one")
            expect_equal(Hold.BUSY, await two.hold(place, "two"), "what another gets meanwhile")
            await one.record(place, turn, holder="one")
            expect_equal([turn], await recorded(two, place), "the turns")

    async def _write_at_once(self, stores: Sequence[Store]) -> None:
        place, rounds = new_place(), 5

        async def write(writer: int, store: Store) -> None:
            for number in range(rounds):
                await store.keep(place, messages=[Message.user(f"{writer} {number}")])

        await asyncio.gather(*(write(writer, store) for writer, store in enumerate(stores)))
        found = [each.text for each in await said_in(stores[0], place)]
        for writer in range(len(stores)):
            expected = [f"{writer} {number}" for number in range(rounds)]
            own = [each for each in found if each.startswith(f"{writer} ")]
            expect_equal(expected, own, "what one task has written")


async def _watch(store: Store, place: Remote, pauses: int) -> set[TurnState]:
    """Give the states in which turns are seen, beginning after some *pauses*."""
    seen = set[TurnState]()
    for _ in range(pauses):
        await store.find(place)
    for _ in range(5):
        seen |= {turn.state for turn in await recorded(store, place)}
        await asyncio.sleep(0)
    return seen
