"""
The rules that every store keeps, for authors of stores to run.

    class TestShelf(StoreContract):
        def open_store(self): return ShelfStore("/tmp/shelf")

A test framework such as pytest finds a test for each rule in that class; without one there is
`await TestShelf().run()`. The rules use conversations of their own, and leave them there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from secrets import token_hex
from typing import Any

from attrs import evolve

from chatbridge.bridge import Bridge
from chatbridge.domain import (
    Attachment,
    Conversation,
    Message,
    Opaque,
    Reasoning,
    Reference,
    Reply,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from chatbridge.errors import StoreError, UnsettledTurn, UsageError, WrongBackend
from chatbridge.history.store import Remote, Store
from chatbridge.testing.checking import NotApplicable, expect, expect_equal, what_raises
from chatbridge.testing.fake import FakeBackend
from chatbridge.testing.rules import Contract
from chatbridge.turns import Turn, TurnState

__all__ = ["StoreContract"]

_THEN = datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC)
_TEXT = "na\u00efve \U0001f341 \u202e \0 \ud800 line\r\nend"
_FREE = {"none": None, "deep": [{"n": [1, 2.5, True, _TEXT]}], "": -0.0, "large": 2**70}


class StoreContract(Contract):
    """
    What types cannot say of a `Store`, as checks.

    Attributes:
        LASTS: Whether what a store has written is there for the next one that `open_store` gives.
    """

    LASTS = True

    def open_store(self) -> Store:
        """Open the store under test; override this. Within one check, each call opens the same place."""
        raise UsageError(f"{type(self).__name__} needs an open_store, which opens the store under test")

    async def check_a_turn_comes_back_as_it_was(self) -> None:
        """Give a turn back as it was recorded, in place of what was recorded before."""
        async with self.open_store() as store:
            ledger, (first, *others) = store.ledger("a"), _turns(3)
            for each in (first, *others):
                await ledger.record(each)
            full = _full(first)
            await ledger.record(full)
            found = await ledger.find(full.conversation_id, full.id)
            expect_equal(full, found, "the turn")
            expect_equal([_FREE], [found and found.message.extra], "the extra of its message")
            expect_equal((full, *others), tuple(await ledger.turns(full.conversation_id)), "all turns")
            expect_equal(None, await ledger.find(full.conversation_id, "x"), "a turn that there is not")
            expect_equal(None, await ledger.find("x", full.id), "a turn of another conversation")

    async def check_turns_in_doubt_are_found(self) -> None:
        """Find the turns that are pending, unknown or accepted, waived or not."""
        async with self.open_store() as store:
            ledger = store.ledger("a")
            turns = [evolve(turn, state=state) for turn, state in zip(_turns(6), TurnState, strict=True)]
            turns[-1] = evolve(turns[-1], waived=True)
            for each in turns:
                await ledger.record(each)
            expected = [each for each in turns if each.unsettled]
            expect_equal(expected, list(await ledger.unsettled(turns[0].conversation_id)), "the unsettled")
            for each in expected:
                await ledger.record(evolve(each, state=TurnState.REFUSED))
            expect_equal(0, len(await ledger.unsettled(turns[0].conversation_id)), "how many are unsettled")

    async def check_backends_do_not_see_each_others_turns(self) -> None:
        """Keep conversations that have the same id at two backends apart."""
        async with self.open_store() as store:
            (turn,) = _turns(1)
            await store.ledger("a").record(turn)
            await store.record(Remote("a", turn.conversation_id, "someone"), evolve(turn, partial="other"))
            expect_equal((), tuple(await store.ledger("b").turns(turn.conversation_id)), "turns of another")
            expect_equal(None, await store.ledger("b").find(turn.conversation_id, turn.id), "the turn there")
            expect_equal([turn], list(await store.ledger("a").turns(turn.conversation_id)), "the turns")

    async def check_an_answer_comes_with_its_turn(self) -> None:
        """Take a message and its answer into the history with the turn that is delivered, once only."""
        async with self.open_store() as store:
            ledger, turns = store.ledger("a"), _turns(2)
            place = Remote("a", turns[0].conversation_id)
            for number, turn in enumerate(turns):
                answer = Reply([Message(Role.TOOL, "found"), Message.assistant(f"Answer {number}")])
                await ledger.record(turn)
                done = evolve(turn, state=TurnState.DELIVERED, reply=answer if number else None)
                for _ in range(2):
                    await ledger.record(done, None if number else answer)
            expect_equal(
                ["Message 0", "found", "Answer 0", "Message 1", "found", "Answer 1"],
                [message.text for message in await _all(store, place)],
                "the history",
            )

    async def check_messages_come_back_as_they_were(self) -> None:
        """Give messages back whole: parts of every kind, bytes, any text, times, references, extra."""
        async with self.open_store() as store:
            place, said = _place(), [_everything(), Message.user(""), Message(Role.SYSTEM)]
            await store.append(place, said)
            found = await _all(store, place)
            expect_equal(said, found, "the messages")
            expect_equal(_FREE, found[0].extra, "the extra")
            expect_equal(_FREE, found[0].references[0].extra, "the extra of the reference")

    async def check_histories_are_read_in_pages(self) -> None:
        """Give a history in order from either end, as much of it as wanted, whatever its length."""
        async with self.open_store() as store:
            place, count = _place(), 2 * store.PAGE + 1
            kept = await store.append(place, [Message.user(str(number)) for number in range(count)])
            for limit in (None, 0, 1, store.PAGE, count + 1):
                wanted = count if limit is None else min(limit, count)
                found = [int(each.text) async for each in store.messages(kept.id, limit=limit)]
                expect_equal(list(range(wanted)), found, f"the first {limit}")
                last = [
                    int(each.text) async for each in store.messages(kept.id, limit=limit, newest_first=True)
                ]
                expect_equal(list(range(count))[::-1][:wanted], last, f"the last {limit}")
            expect_equal([], [each async for each in store.messages("x")], "the messages of none")

    async def check_equal_histories_have_equal_heads(self) -> None:
        """Know a message by what it says and what came before it, whatever its id and times."""
        async with self.open_store() as store:
            said = [Message.user("Hi"), Message.assistant("Ho")]
            again = [evolve(each, id="1", created_at=_THEN, author="me") for each in said]
            one, two = await store.append(_place(), said), await store.append(_place("b"), again)
            expect_equal(one.head, two.head, "the head of an equal history")
            expect_equal(["1", "1"], [each.id async for each in store.messages(two.id)], "the ids there")
            expect_equal([None, None], [each.id async for each in store.messages(one.id)], "the ids here")
            fork = await store.append(two.remote, [Message.user("Hi")])
            expect(one.head != fork.head, "a longer history must have another head")

    async def check_conversations_are_listed(self) -> None:
        """List conversations, the last made first, all or a backend's own."""
        async with self.open_store() as store:
            backend, other = token_hex(8), token_hex(8)
            made = [
                await store.keep(name, Conversation(f"{number}"))
                for number in range(store.PAGE + 1)
                for name in (backend, other)
            ]
            expected = [each.id for each in made[::-1]]
            expect_equal(expected[1::2], [each.id async for each in store.conversations(backend)], "its own")
            ours = [
                each.id async for each in store.conversations() if each.remote.backend in {backend, other}
            ]
            expect_equal(expected, ours, "all")

    async def check_what_is_told_later_counts(self) -> None:
        """Take what a backend tells later of a conversation, and keep what it leaves out."""
        async with self.open_store() as store:
            first = Conversation(token_hex(8), "One", "Be brief.", _THEN, extra=_FREE)
            kept = await store.keep("a", first, [Message.user("Hi")])
            expect_equal(first, kept.conversation, "the conversation")
            again = await store.keep("a", Conversation(first.id, _TEXT, updated_at=_THEN))
            expect_equal(again, await store.find(again.remote), "the conversation, found by its place")
            expect_equal((kept.id, 1), (again.id, again.length), "its id and its length")
            expect_equal(evolve(first, title=_TEXT, updated_at=_THEN), again.conversation, "what is known")

    async def check_another_backend_is_refused(self) -> None:
        """Open a conversation through the backend that keeps it, and through no other."""
        async with self.open_store() as store:
            kept = await store.keep("a", Conversation(token_hex(8)))
            expect_equal(kept, await store.conversation(kept.id, "a"), "the conversation")
            await what_raises(WrongBackend, "another backend", lambda: store.conversation(kept.id, "b"))
            await what_raises(UsageError, "an unknown id", lambda: store.conversation("x", "a"))

    async def check_writers_at_once_lose_nothing(self) -> None:
        """Lose none of the messages that several tasks add at once, and keep each task's in order."""
        async with self.open_store() as store:
            await self._write_at_once([store] * 5)

    async def check_stores_on_one_place_share_it(self) -> None:
        """Let two stores on one place write at once, and each see what the other has written."""
        self._expect_to_last()
        async with self.open_store() as one, self.open_store() as two:
            await self._write_at_once([one, two, one, two])
            (turn,) = _turns(1)
            await one.ledger("a").record(turn)
            expect_equal(turn, await two.ledger("a").find(turn.conversation_id, turn.id), "the turn")

    async def _write_at_once(self, stores: Sequence[Store]) -> None:
        place, rounds = _place(), 5

        async def write(writer: int, store: Store) -> None:
            for number in range(rounds):
                await store.append(place, [Message.user(f"{writer} {number}")])

        await asyncio.gather(*(write(writer, store) for writer, store in enumerate(stores)))
        found = [each.text for each in await _all(stores[0], place)]
        for writer in range(len(stores)):
            expected = [f"{writer} {number}" for number in range(rounds)]
            own = [each for each in found if each.startswith(f"{writer} ")]
            expect_equal(expected, own, "what one task has written")

    async def check_what_is_written_lasts(self) -> None:
        """Have what was written when opened again."""
        self._expect_to_last()
        (turn,) = _turns(1)
        async with self.open_store() as store:
            await store.ledger("a").record(turn)
            kept = await store.keep("a", Conversation(turn.conversation_id, "Kyoto"), [_everything()])
        async with self.open_store() as store:
            expect_equal([turn], list(await store.ledger("a").turns(turn.conversation_id)), "the turns")
            expect_equal(kept, await store.conversation(kept.id, "a"), "the conversation")
            expect_equal([_everything()], await _all(store, kept.remote), "the messages")

    async def check_what_is_begun_is_written(self) -> None:
        """Write what was begun, though the task that began it is cancelled."""
        async with self.open_store() as store:
            (turn,) = _turns(1)
            answer = Reply([Message.assistant("Ho")])
            done = evolve(turn, state=TurnState.DELIVERED)
            recording = asyncio.create_task(store.ledger("a").record(done, answer))
            await asyncio.sleep(0)
            recording.cancel()
            await asyncio.wait([recording])
            expect(recording.cancelled(), "the task must be cancelled all the same")
            place = Remote("a", turn.conversation_id)
            expect_equal(2, len(await _all(store, place)), "how many messages are there")

    async def check_what_json_lacks_is_refused(self) -> None:
        """Refuse what could not be read back as it was, and write nothing of it."""
        async with self.open_store() as store:
            place, deep = _place(), list[object]()
            for _ in range(100_000):
                deep = [deep]
            for wrong in (object(), float("nan"), {1: "one"}, b"", deep):
                message = evolve(Message.user("Hi"), extra={"wrong": wrong})
                adding = partial(store.append, place, [message])
                error = await what_raises(StoreError, f"a {type(wrong).__name__}", adding)
                expect_equal("value", error.kind, "the kind of the error")
            expect_equal(None, await store.find(place), "what was written")

    async def check_a_closed_store_says_so(self) -> None:
        """Refuse everything once closed, and let it be closed again."""
        store = self.open_store()
        (turn,) = _turns(1)
        await store.ledger("a").record(turn)
        await store.close()
        await store.close()
        actions: dict[str, Callable[[], Any]] = {
            "recording": lambda: store.ledger("a").record(turn),
            "reading": lambda: store.ledger("a").turns(turn.conversation_id),
            "listing": store.conversations,
            "a history": lambda: store.messages("x"),
        }
        for what, action in actions.items():
            error = await what_raises(StoreError, f"{what} after closing", action)
            expect_equal("closed", error.kind, "the kind of the error")

    async def check_a_message_in_doubt_blocks_the_next(self) -> None:
        """Block the next message while one is in doubt whose program has ended, until it is waived."""
        async with self.open_store() as store:
            fake = FakeBackend()
            async with Bridge(fake, store=store, clock=fake.clock) as bridge:
                chat = await bridge.create()
                (turn,) = _turns(1)
                await store.ledger(bridge.profile.name).record(evolve(turn, conversation_id=chat.id))
                error = await what_raises(UnsettledTurn, "the next message", lambda: chat.send("Hi"))
                expect(error.turn is not None and error.turn.id == turn.id, "the error must have the turn")
                await chat.waive(evolve(turn, conversation_id=chat.id))
                await chat.send("Hi")
                expect_equal(("Hi",), fake.sent, "what was sent")

    def _expect_to_last(self) -> None:
        if not self.LASTS:
            raise NotApplicable("what it has is gone when it is closed")


def _place(backend: str = "a") -> Remote:
    return Remote(backend, token_hex(8))


async def _all(store: Store, place: Remote) -> list[Message]:
    kept = await store.find(place)
    return [] if kept is None else [message async for message in store.messages(kept.id)]


def _turns(count: int) -> list[Turn]:
    place = token_hex(8)
    return [Turn(f"{number}", place, Message.user(f"Message {number}"), _THEN) for number in range(count)]


def _full(turn: Turn) -> Turn:
    usage = Usage(1, 2, None, 0, 5, 0.25)
    reply = Reply([_everything()], "other", "why", usage, "m", ["careful"], recovered=True, extra=_FREE)
    return evolve(
        turn,
        message=_everything(),
        state=TurnState.ACCEPTED,
        partial=_TEXT,
        reply=reply,
        from_api=True,
        waived=True,
        baseline=(3, 1),
        sends=2,
        earlier=evolve(turn, state=TurnState.UNKNOWN),
    )


def _everything() -> Message:
    reference = Reference("d", _TEXT, "https://example.com", "1-2", 0.5, "\u2026", extra=_FREE)
    parts = (
        Text(_TEXT),
        Reasoning("hm", "signed"),
        Attachment("image/png", bytes(range(256)), name=_TEXT),
        Attachment("text/plain", url="https://example.com/a"),
        ToolCall("1", "weather", _FREE),
        ToolResult("1", "rain", is_error=True),
        Opaque("acme", "map", _FREE),
        Opaque("acme", "list", [_FREE]),
        Opaque("acme", "nothing", None),
    )
    return Message(Role.ASSISTANT, parts, "id", "author", _THEN, "other", [reference], extra=_FREE)
