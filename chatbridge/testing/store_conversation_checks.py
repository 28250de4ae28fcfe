"""The rules of stores for conversations."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from secrets import token_hex

from attrs import evolve

from chatbridge.domain import Conversation, Message, Reply
from chatbridge.errors import StoreError, UsageError, WrongBackend
from chatbridge.history.rows import Remote
from chatbridge.testing.checking import expect, expect_equal, what_raises
from chatbridge.testing.store_case import FREE, TEXT, THEN, StoreCase, new_place, new_turns, said_in
from chatbridge.turns import TurnState

__all__ = ["StoreConversationChecks"]

_TICK = timedelta(milliseconds=1)


class StoreConversationChecks(StoreCase):
    """Conversations, and what is known of them."""

    async def check_conversations_are_listed(self) -> None:
        """List conversations, the last used first, all or a backend's own."""
        async with self.open_store() as store:
            backend, other = token_hex(8), token_hex(8)
            places = [
                Remote(name, f"{number}") for number in range(store.PAGE + 1) for name in (backend, other)
            ]
            made = [await store.keep(place, Conversation(place.id)) for place in places]
            made.append(await store.keep(made.pop(2).remote, messages=[Message.user("Hi")]))
            expected = [each.id for each in made[::-1]]
            own = [each.id for each in made[::-1] if each.remote.backend == backend]
            expect_equal(own, [each.id async for each in store.conversations(backend)], "its own")
            ours = [
                each.id async for each in store.conversations() if each.remote.backend in {backend, other}
            ]
            expect_equal(expected, ours, "all")

    async def check_only_what_is_said_changes_the_order(self) -> None:
        """Put a conversation first once it is used: made, added to, or about to be sent to."""
        async with self.open_store() as store:
            backend, (turn,) = token_hex(8), new_turns(1)
            one, two = (Remote(backend, name) for name in "12")

            async def order() -> list[str]:
                return [kept.remote.id async for kept in store.conversations(backend)]

            await store.record(one, turn, holder=None)
            await store.keep(two)
            expect_equal(["2", "1"], await order(), "the order when both are made")
            await store.hold(one, "one")
            await store.release(one, "one", lease=store.lease)
            await store.waive(one, turn.id)
            await store.record(one, evolve(turn, state=TurnState.DELIVERED), Reply([Message.assistant("Ho")]))
            kept = await store.keep(one, Conversation("1", "Title"), deleted=True)
            await store.replace(kept, 0, [Message.user("Hi")])
            await store.release(one, "one")
            expect_equal(["2", "1"], await order(), "the order when nothing was said")
            await store.keep(one, messages=[Message.user("Hi")])
            expect_equal(["1", "2"], await order(), "the order when a message was added")
            await store.record(two, turn)
            expect_equal(["2", "1"], await order(), "the order when one is about to be sent")

    async def check_it_tells_the_time(self) -> None:
        """Tell the time by the clock by which conversations are marked as used."""
        async with self.open_store() as store:
            before = await store.now()
            kept = await store.keep(new_place())
            found, after = await store.find(kept.remote), await store.now()
            used_at = None if found is None else found.used_at
            near = used_at is not None and before - _TICK <= used_at <= after + _TICK
            expect(near, f"it was used at {used_at}, which is not from {before} to {after}")

    async def check_what_is_told_later_counts(self) -> None:
        """Take what a backend tells later of a conversation, and keep what it leaves out."""
        async with self.open_store() as store:
            place = new_place()
            first = Conversation(place.id, "One", "Be brief.", THEN, extra=FREE)
            kept = await store.keep(place, first, [Message.user("Hi")], created=True)
            expect_equal(first, kept.conversation, "the conversation")
            expect_equal((True, False, False), (kept.created, kept.used, kept.deleted), "what happened to it")
            (turn,) = new_turns(1)
            await store.record(place, turn)
            again = await store.keep(place, Conversation(place.id, TEXT, updated_at=THEN), deleted=True)
            expect_equal(again, await store.find(place), "the conversation, found by its place")
            expect_equal((kept.id, 1), (again.id, again.length), "its id and its length")
            expect_equal((True, True, True), (again.created, again.used, again.deleted), "what happened")
            expect_equal(evolve(first, title=TEXT, updated_at=THEN), again.conversation, "what is known")

    async def check_another_backend_is_refused(self) -> None:
        """Open a conversation through the backend and the account that keep it, and through no other."""
        async with self.open_store() as store:
            place = evolve(new_place(), account="me")
            kept = await store.keep(place)
            expect_equal(kept, await store.conversation(kept.id, "a", "me"), "the conversation")
            for other in (("b", "me"), ("a", "you"), ("a", None)):
                opening = partial(store.conversation, kept.id, *other)
                await what_raises(WrongBackend, f"{other}", opening)
            await what_raises(UsageError, "an unknown id", lambda: store.conversation("x", "a"))

    async def check_what_is_forgotten_is_gone(self) -> None:
        """Forget a conversation with its messages and turns, and nothing that others share with it."""
        async with self.open_store() as store:
            place, other, (turn,) = new_place(), new_place(), new_turns(1)
            word = token_hex(8)
            kept = await store.keep(place, messages=[Message.user("Hi"), Message.user(word)])
            await store.keep(other, messages=[Message.user("Hi")])
            await store.record(place, turn)
            await store.forget(kept.id, revision=kept.revision)
            expect_equal(2, (await store.keep(place)).length, "the length of one that was written to since")
            await store.forget(kept.id, revision=(await store.keep(place)).revision)
            await store.forget(kept.id)
            expect_equal(None, await store.find(place), "the conversation")
            expect_equal((), await store.turns(place), "its turns")
            expect_equal([], [hit async for hit in store.search(word)], "what is found of its messages")
            expect_equal(["Hi"], [each.text for each in await said_in(store, other)], "the other's messages")
            expect_equal(0, (await store.keep(place)).length, "the length of a new one there")

    async def check_a_strange_id_is_taken_or_refused(self) -> None:
        """Keep a conversation of any id, or refuse it with a StoreError, whatever it is made of."""
        async with self.open_store() as store:
            for name in ("\0", "\ud800", "x" * 100_000, "'; --"):
                place = Remote("a", f"{token_hex(8)}{name}")
                try:
                    await store.keep(place)
                    found = await store.find(place)
                except StoreError as error:
                    expect_equal("value", error.kind, "the kind of the error")
                else:
                    expect_equal(place, found and found.remote, "where it is kept")
