"""The rules of stores for the messages of conversations."""

from __future__ import annotations

from functools import partial
from secrets import token_hex

from attrs import evolve

from chatbridge.domain import Message, Role
from chatbridge.errors import UsageError
from chatbridge.history.rows import Hit
from chatbridge.history.store import Store
from chatbridge.testing.checking import expect, expect_equal, what_raises
from chatbridge.testing.store_case import FREE, THEN, StoreCase, everything, new_place, said_in

__all__ = ["StoreHistoryChecks"]


class StoreHistoryChecks(StoreCase):
    """The messages of conversations."""

    async def check_messages_come_back_as_they_were(self) -> None:
        """Give messages back whole: parts of every kind, bytes, any text, times, references, extra."""
        async with self.open_store() as store:
            place, said = new_place(), [everything(), Message.user(""), Message(Role.SYSTEM)]
            await store.keep(place, messages=said)
            found = await said_in(store, place)
            expect_equal(said, found, "the messages")
            expect_equal(FREE, found[0].extra, "the extra")
            expect_equal(FREE, found[0].references[0].extra, "the extra of the reference")

    async def check_histories_are_read_in_pages(self) -> None:
        """Give a history in order from either end, as much of it as wanted, whatever its length."""
        async with self.open_store() as store:
            place, count = new_place(), 2 * store.PAGE + 1
            kept = await store.keep(place, messages=[Message.user(str(number)) for number in range(count)])
            for limit in (None, 0, 1, store.PAGE, count + 1):
                wanted = count if limit is None else min(limit, count)
                found = [int(each.text) async for each in store.messages(kept.id, limit=limit)]
                expect_equal(list(range(wanted)), found, f"the first {limit}")
                last = [
                    int(each.text) async for each in store.messages(kept.id, limit=limit, newest_first=True)
                ]
                expect_equal(list(range(count))[::-1][:wanted], last, f"the last {limit}")
            for start in (0, store.PAGE + 1, count, count + 1):
                for back in (False, True):
                    entries = store.entries(kept.id, start=start, newest_first=back)
                    rest = [int(entry.message.text) async for entry in entries]
                    numbers = list(range(start, count))
                    expect_equal(numbers[::-1] if back else numbers, rest, f"all but the first {start}")
            expect_equal([], [each async for each in store.messages("x")], "the messages of none")

    async def check_equal_histories_have_equal_heads(self) -> None:
        """Know a message by what it says and what came before it, whatever its id and times."""
        async with self.open_store() as store:
            said = [Message.user("Hi"), Message.assistant("Ho")]
            again = [evolve(each, id="1", created_at=THEN, author="me") for each in said]
            one, two = (
                await store.keep(new_place(), messages=said),
                await store.keep(new_place("b"), messages=again),
            )
            expect_equal(one.head, two.head, "the head of an equal history")
            expect_equal(["1", "1"], [each.id async for each in store.messages(two.id)], "the ids there")
            expect_equal([None, None], [each.id async for each in store.messages(one.id)], "the ids here")
            fork = await store.keep(two.remote, messages=[Message.user("Hi")])
            expect(one.head != fork.head, "a longer history must have another head")

    async def check_a_history_can_be_replaced(self) -> None:
        """Put other messages in the place of the last ones, unless somebody was faster."""
        async with self.open_store() as store:
            place = new_place()
            said = [Message.user(text) for text in "abc"]
            kept = await store.keep(place, messages=said)
            other = await store.keep(new_place(), messages=said)
            for start, told, expected in ((1, "de", "ade"), (3, "f", "adef"), (0, "g", "g"), (0, "", "")):
                kept = await store.find(place) or kept
                done = await store.replace(kept, start, [Message.user(text) for text in told])
                there = "".join([message.text for message in await said_in(store, place)])
                expect_equal((expected, len(expected)), (there, done and done.length), "what is there")
            expect_equal(None, await store.replace(kept, 0, said), "what comes of a change that is late")
            same = await store.keep(place, messages=said)
            expect_equal(other.head, same.head, "the head of an equal history")
            expect_equal(3, len(await said_in(store, other.remote)), "how many messages another history has")

    async def check_messages_are_found_by_their_words(self) -> None:
        """Find the messages that have all words of a text, in any case and with any ending."""
        async with self.open_store() as store:
            mark = f"m{token_hex(8)}"
            texts = [f"{mark} in Kyoto", f"The {mark}s, in kyoto's NORTH", "Kyoto", f"{mark}"]
            older = await store.keep(new_place(), messages=map(Message.user, texts[::-1]))
            newer = await store.keep(new_place("b"), messages=map(Message.assistant, texts[:1]))
            hits = [hit async for hit in store.search(f"kyoto {mark.upper()}!")]
            expect_equal(
                [(newer.id, texts[0]), (older.id, texts[1]), (older.id, texts[0])],
                [(hit.conversation.id, hit.message.text) for hit in hits],
                "what is found",
            )
            expect_equal([], [hit async for hit in store.search(f"{mark} osaka")], "what is found of others")
            many = await store.keep(
                new_place(), messages=[Message.user(f"x{mark} {n}") for n in range(store.PAGE + 1)]
            )
            count = sum([hit.conversation.id == many.id async for hit in store.search(f"x{mark}")])
            expect_equal(store.PAGE + 1, count, "how many are found")
            expect_equal(hits, [hit async for hit in store.search(f"kyoto {mark}")], "what is found again")
            expect_equal(4, len(await _found(store, mark)), "how many have the word, or begin with it")
            for nothing in ("", "\"*'\0"):
                searching = partial(_found, store, nothing)
                await what_raises(UsageError, "a text without words", searching)


async def _found(store: Store, text: str) -> list[Hit]:
    return [hit async for hit in store.search(text)]
