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
from datetime import UTC, datetime, timedelta
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
from chatbridge.errors import ChatbridgeError, StoreError, UnsettledTurn, UsageError, WrongBackend
from chatbridge.history.rows import Hit, Hold, Remote
from chatbridge.history.store import Store
from chatbridge.testing.checking import NotApplicable, expect, expect_equal, what_raises
from chatbridge.testing.fake import FakeBackend
from chatbridge.testing.rules import Contract
from chatbridge.turns import Turn, TurnState

__all__ = ["StoreContract"]

_THEN = datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC)
_TICK = timedelta(milliseconds=1)
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

    async def check(self, name: str) -> None:
        """Try one rule, and that the store lets no foreign error out meanwhile."""
        try:
            await super().check(name)
        except (AssertionError, NotApplicable, ChatbridgeError):
            raise
        except Exception as error:
            raise AssertionError(f"a store raises StoreError, not {type(error).__name__}: {error}") from error

    async def check_a_turn_comes_back_as_it_was(self) -> None:
        """Give a turn back as it was recorded, in place of what was recorded before."""
        async with self.open_store() as store:
            place, (first, *others) = _place(), _turns(3)
            await store.hold(place, "one")
            for each in (first, *others):
                await store.record(place, each)
            full = _full(first)
            expect_equal(full, await store.record(place, full), "what was recorded")
            (found,) = await store.turns(place, full.id)
            expect_equal(full, found.turn, "the turn")
            expect_equal(_FREE, found.turn.message.extra, "the extra of its message")
            expect_equal([full, *others], await _recorded(store, place), "all turns")
            expect_equal((), await store.turns(place, "x"), "a turn that there is not")
            expect_equal((), await store.turns(_place(), full.id), "a turn of another conversation")

    async def check_turns_in_doubt_are_found(self) -> None:
        """Find the turns that are unknown or accepted, waived or not."""
        async with self.open_store() as store:
            place = _place()
            states = [state for state in TurnState if state is not TurnState.PENDING]
            turns = [evolve(turn, state=state) for turn, state in zip(_turns(5), states, strict=True)]
            turns[-1] = evolve(turns[-1], waived=True)
            for each in turns:
                await store.record(place, each)
            expected = [each for each in turns if each.unsettled]
            expect_equal(expected, await _recorded(store, place, unsettled=True), "the unsettled")
            everywhere = [row.turn for row in await store.turns(unsettled=True) if row.remote == place]
            expect_equal(expected, everywhere, "the unsettled, of all conversations")
            for each in expected:
                await store.record(place, evolve(each, state=TurnState.REFUSED))
            expect_equal([], await _recorded(store, place, unsettled=True), "the unsettled afterwards")

    async def check_backends_do_not_see_each_others_turns(self) -> None:
        """Keep conversations that have the same id at two backends, or for two accounts, apart."""
        async with self.open_store() as store:
            (turn,), place = _turns(1), _place()
            await store.record(place, turn)
            elsewhere = [evolve(place, backend="b"), evolve(place, account="someone")]
            await store.record(elsewhere[1], evolve(turn, partial="other"))
            expect_equal((), await store.turns(elsewhere[0]), "the turns at another backend")
            expect_equal(1, len(await store.turns(elsewhere[1])), "the turns of another account")
            expect_equal("", (await store.turns(place))[0].turn.partial, "what the turn has")

    async def check_an_answer_comes_with_its_turn(self) -> None:
        """Take a message and its answer into the history with the turn that is delivered, once only."""
        async with self.open_store() as store:
            turns, place = _turns(2), _place()
            for number, turn in enumerate(turns):
                answer = Reply([Message(Role.TOOL, "found"), Message.assistant(f"Answer {number}")])
                await store.record(place, turn)
                done = evolve(turn, state=TurnState.DELIVERED, reply=answer if number else None)
                for _ in range(2):
                    await store.record(place, done, None if number else answer)
            expect_equal(
                ["Message 0", "found", "Answer 0", "Message 1", "found", "Answer 1"],
                [message.text for message in await _all(store, place)],
                "the history",
            )

    async def check_what_is_found_late_stands_nowhere_else(self) -> None:
        """Add a message that was read back only where it is the last, and was not taken over already."""
        (first, second), answer = _turns(2), Reply([Message.assistant("Answer")])
        theirs, found = (
            evolve(first.message, id="theirs"),
            evolve(first, state=TurnState.DELIVERED, reply=answer),
        )
        async with self.open_store() as store:
            for taken in ([theirs], [theirs, answer.message], [], [Message.user("Another")]):
                place, others = _place(), [each.text for each in taken if each.text == "Another"]
                await store.record(place, first)
                await store.keep(place, messages=taken)
                await store.record(place, found)
                there = [message.text for message in await _all(store, place)]
                expect_equal([*others, "Message 0", "Answer"], there, "the history")
            place = _place()
            await store.record(place, first)
            await store.record(place, evolve(second, state=TurnState.DELIVERED), answer)
            await store.record(place, found)
            there = [message.text for message in await _all(store, place)]
            expect_equal(["Message 1", "Answer"], there, "the history, without what belongs further up")
            expect_equal(answer, (await store.turns(place, first.id))[0].turn.reply, "the answer in its turn")

    async def check_what_is_certain_stays(self) -> None:
        """Keep that a turn was delivered, and that it was waived, when told later by who does not know."""
        async with self.open_store() as store:
            (turn,), place = _turns(1), _place()
            await store.record(place, evolve(turn, waived=True))
            waived = await store.record(place, evolve(turn, state=TurnState.UNKNOWN))
            expect(waived.waived, "the turn must stay waived")
            await store.record(
                place, evolve(turn, state=TurnState.DELIVERED), Reply([Message.assistant("Ho")])
            )
            told = await store.record(place, evolve(turn, state=TurnState.UNKNOWN))
            expect_equal(TurnState.DELIVERED, told.state, "the state")

    async def check_a_late_word_on_a_sending_leaves_the_next_as_it_is(self) -> None:
        """Keep what is known of a message that was sent again, when told of the time before."""
        async with self.open_store() as store:
            (first,), place = _turns(1), _place()
            lost = evolve(first, state=TurnState.UNKNOWN)
            again = evolve(first, sends=2, earlier=lost)
            for turn in (first, again):
                await store.record(place, turn)
            late = evolve(first, state=TurnState.DELIVERED)
            expect_equal(2, (await store.record(place, lost)).sends, "how often it was sent")
            for _ in range(2):
                await store.record(place, late, Reply([Message.assistant("First")]))
            (kept,) = await _recorded(store, place)
            expect_equal((2, late), (kept.sends, kept.earlier), "how often it was sent, and what was before")
            done = evolve(again, state=TurnState.DELIVERED)
            await store.record(place, done, Reply([Message.assistant("Second")]))
            told = await store.record(place, lost)
            expect_equal((TurnState.DELIVERED, 2), (told.state, told.sends), "what it is at last")
            there = [message.text for message in await _all(store, place)]
            expect_equal(["Message 0", "First", "Message 0", "Second"], there, "the history")

    async def check_a_sending_in_vain_is_taken_back(self) -> None:
        """Have a turn as it was before its message was sent again, once that is known to be in vain."""
        async with self.open_store() as store:
            (first,), place = _turns(1), _place()
            lost = evolve(first, state=TurnState.UNKNOWN)
            for turn in (first, lost, evolve(first, sends=2, earlier=lost)):
                await store.record(place, turn)
            expect_equal(lost, await store.record(place, lost, sends=2), "what was recorded")
            expect_equal([lost], await _recorded(store, place), "the turns")

    async def check_an_answer_comes_too_late_where_others_went_on(self) -> None:
        """Add no answer to a history that is kept here alone, once another has held its conversation."""
        async with self.open_store() as store:
            place, answer = _place(), Reply([Message.assistant("Ho")])
            for turn, goes_on in zip(_turns(2), (False, True), strict=True):
                await store.hold(place, "one")
                await store.record(place, turn, holder="one")
                await store.release(place, "one")
                done = evolve(turn, state=TurnState.DELIVERED)
                add = partial(store.record, place, done, answer, holder="one", kept_here=True)
                if not goes_on:
                    await add()
                    continue
                await store.hold(place, "two")
                error = await what_raises(StoreError, "an answer that is late", add)
                expect_equal("taken", error.kind, "the kind of the error")
                there = [message.text for message in await _all(store, place)]
                expect_equal(["Message 0", "Ho"], there, "the history")
                expect_equal(TurnState.UNKNOWN, (await _recorded(store, place))[-1].state, "the state")
                await store.record(place, done, answer, holder="one")
                expect_equal(4, len(await _all(store, place)), "the length of one that is kept elsewhere")

    async def check_what_is_told_late_brings_nothing_back(self) -> None:
        """Leave a conversation forgotten, whatever its last holder tells of it."""
        async with self.open_store() as store:
            (turn,), place = _turns(1), _place()
            await store.hold(place, "one")
            await store.record(place, turn, holder="one")
            kept = await store.find(place)
            await store.forget("" if kept is None else kept.id)
            done, answer = evolve(turn, state=TurnState.DELIVERED), Reply([Message.assistant("Ho")])
            expect_equal(done, await store.record(place, done, answer, holder="one"), "what is given back")
            expect_equal(None, await store.find(place), "what is there")

    async def check_one_holds_a_conversation(self) -> None:
        """Let one holder at a time have a conversation, until it is released or its time is over."""
        async with self.open_store() as store:
            place, (turn,) = _place(), _turns(1)
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
            place, (turn,) = _place(), _turns(1)

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

    async def check_a_turn_and_its_answer_are_written_at_once(self) -> None:
        """Write a turn and the messages that come with it, or neither where one of them cannot be."""
        self._expect_to_last()
        async with self.open_store() as store:
            place, (turn,) = _place(), _turns(1)
            await store.record(place, turn)
            good, wrong = (Reply([evolve(Message.assistant("Ho"), extra={"x": x})]) for x in (1, object()))
            done = evolve(turn, state=TurnState.DELIVERED)
            for each, answer in ((done, wrong), (evolve(done, reply=wrong), good)):
                await what_raises(StoreError, "what is wrong", partial(store.record, place, each, answer))
                expect_equal(TurnState.UNKNOWN, (await _recorded(store, place))[0].state, "the state")
                expect_equal([], await _all(store, place), "the history")

    async def check_several_event_loops_share_it(self) -> None:
        """Serve an event loop in another thread as well."""
        async with self.open_store() as store:
            place = _place()
            await store.keep(place, messages=[Message.user("one")])
            two = partial(store.keep, place, messages=[Message.user("two")])
            await asyncio.to_thread(lambda: asyncio.run(two()))
            await store.keep(place, messages=[Message.user("three")])
            expect_equal(
                ["one", "two", "three"], [each.text for each in await _all(store, place)], "the history"
            )

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

    async def check_who_makes_a_conversation_knows_it(self) -> None:
        """Give who has made a conversation, and nobody else, it as one that no other has spoken in."""
        async with self.open_store() as store:
            place = _place()
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
            place, turns = _place(), _turns(2)
            await store.hold(place, "one")
            for turn in turns:
                await store.record(place, turn, holder="one")
            expect_equal(turns, await _recorded(store, place), "the turns while they are under way")
            await store.release(place, "one")
            died = [evolve(turn, state=TurnState.UNKNOWN) for turn in turns]
            expect_equal(died, await _recorded(store, place, unsettled=True), "the turns afterwards")
            await store.hold(place, "two")
            expect_equal(died, await _recorded(store, place), "the turns while another has it")

    async def check_a_turn_is_not_in_doubt_while_its_end_is_written(self) -> None:
        """Call no turn unknown that is delivered, and its conversation released, while the turns are read."""
        async with self.open_store() as store:
            place, answer = _place(), Reply([Message.assistant("Ho")])
            for turn in _turns(5):
                await store.hold(place, "one")
                await store.record(place, turn, holder="one")
                # Each is at another place when the end is written.
                watching = [asyncio.create_task(_watch(store, place, pauses)) for pauses in range(4)]
                done = evolve(turn, state=TurnState.DELIVERED)
                await store.record(place, done, answer, holder="one", last=True)
                for seen in await asyncio.gather(*watching):
                    expect(TurnState.UNKNOWN not in seen, "no turn may seem to be in doubt")

    async def check_messages_come_back_as_they_were(self) -> None:
        """Give messages back whole: parts of every kind, bytes, any text, times, references, extra."""
        async with self.open_store() as store:
            place, said = _place(), [_everything(), Message.user(""), Message(Role.SYSTEM)]
            await store.keep(place, messages=said)
            found = await _all(store, place)
            expect_equal(said, found, "the messages")
            expect_equal(_FREE, found[0].extra, "the extra")
            expect_equal(_FREE, found[0].references[0].extra, "the extra of the reference")

    async def check_histories_are_read_in_pages(self) -> None:
        """Give a history in order from either end, as much of it as wanted, whatever its length."""
        async with self.open_store() as store:
            place, count = _place(), 2 * store.PAGE + 1
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
            again = [evolve(each, id="1", created_at=_THEN, author="me") for each in said]
            one, two = (
                await store.keep(_place(), messages=said),
                await store.keep(_place("b"), messages=again),
            )
            expect_equal(one.head, two.head, "the head of an equal history")
            expect_equal(["1", "1"], [each.id async for each in store.messages(two.id)], "the ids there")
            expect_equal([None, None], [each.id async for each in store.messages(one.id)], "the ids here")
            fork = await store.keep(two.remote, messages=[Message.user("Hi")])
            expect(one.head != fork.head, "a longer history must have another head")

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
            backend, (turn,) = token_hex(8), _turns(1)
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
            kept = await store.keep(_place())
            found, after = await store.find(kept.remote), await store.now()
            used_at = None if found is None else found.used_at
            near = used_at is not None and before - _TICK <= used_at <= after + _TICK
            expect(near, f"it was used at {used_at}, which is not from {before} to {after}")

    async def check_what_is_told_later_counts(self) -> None:
        """Take what a backend tells later of a conversation, and keep what it leaves out."""
        async with self.open_store() as store:
            place = _place()
            first = Conversation(place.id, "One", "Be brief.", _THEN, extra=_FREE)
            kept = await store.keep(place, first, [Message.user("Hi")], created=True)
            expect_equal(first, kept.conversation, "the conversation")
            expect_equal((True, False, False), (kept.created, kept.used, kept.deleted), "what happened to it")
            (turn,) = _turns(1)
            await store.record(place, turn)
            again = await store.keep(place, Conversation(place.id, _TEXT, updated_at=_THEN), deleted=True)
            expect_equal(again, await store.find(place), "the conversation, found by its place")
            expect_equal((kept.id, 1), (again.id, again.length), "its id and its length")
            expect_equal((True, True, True), (again.created, again.used, again.deleted), "what happened")
            expect_equal(evolve(first, title=_TEXT, updated_at=_THEN), again.conversation, "what is known")

    async def check_another_backend_is_refused(self) -> None:
        """Open a conversation through the backend and the account that keep it, and through no other."""
        async with self.open_store() as store:
            place = evolve(_place(), account="me")
            kept = await store.keep(place)
            expect_equal(kept, await store.conversation(kept.id, "a", "me"), "the conversation")
            for other in (("b", "me"), ("a", "you"), ("a", None)):
                opening = partial(store.conversation, kept.id, *other)
                await what_raises(WrongBackend, f"{other}", opening)
            await what_raises(UsageError, "an unknown id", lambda: store.conversation("x", "a"))

    async def check_a_history_can_be_replaced(self) -> None:
        """Put other messages in the place of the last ones, unless somebody was faster."""
        async with self.open_store() as store:
            place = _place()
            said = [Message.user(text) for text in "abc"]
            kept = await store.keep(place, messages=said)
            other = await store.keep(_place(), messages=said)
            for start, told, expected in ((1, "de", "ade"), (3, "f", "adef"), (0, "g", "g"), (0, "", "")):
                kept = await store.find(place) or kept
                done = await store.replace(kept, start, [Message.user(text) for text in told])
                there = "".join([message.text for message in await _all(store, place)])
                expect_equal((expected, len(expected)), (there, done and done.length), "what is there")
            expect_equal(None, await store.replace(kept, 0, said), "what comes of a change that is late")
            same = await store.keep(place, messages=said)
            expect_equal(other.head, same.head, "the head of an equal history")
            expect_equal(3, len(await _all(store, other.remote)), "how many messages another history has")

    async def check_what_is_forgotten_is_gone(self) -> None:
        """Forget a conversation with its messages and turns, and nothing that others share with it."""
        async with self.open_store() as store:
            place, other, (turn,) = _place(), _place(), _turns(1)
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
            expect_equal(["Hi"], [each.text for each in await _all(store, other)], "the other's messages")
            expect_equal(0, (await store.keep(place)).length, "the length of a new one there")

    async def check_messages_are_found_by_their_words(self) -> None:
        """Find the messages that have all words of a text, in any case and with any ending."""
        async with self.open_store() as store:
            mark = f"m{token_hex(8)}"
            texts = [f"{mark} in Kyoto", f"The {mark}s, in kyoto's NORTH", "Kyoto", f"{mark}"]
            older = await store.keep(_place(), messages=map(Message.user, texts[::-1]))
            newer = await store.keep(_place("b"), messages=map(Message.assistant, texts[:1]))
            hits = [hit async for hit in store.search(f"kyoto {mark.upper()}!")]
            expect_equal(
                [(newer.id, texts[0]), (older.id, texts[1]), (older.id, texts[0])],
                [(hit.conversation.id, hit.message.text) for hit in hits],
                "what is found",
            )
            expect_equal([], [hit async for hit in store.search(f"{mark} osaka")], "what is found of others")
            many = await store.keep(
                _place(), messages=[Message.user(f"x{mark} {n}") for n in range(store.PAGE + 1)]
            )
            count = sum([hit.conversation.id == many.id async for hit in store.search(f"x{mark}")])
            expect_equal(store.PAGE + 1, count, "how many are found")
            expect_equal(hits, [hit async for hit in store.search(f"kyoto {mark}")], "what is found again")
            expect_equal(4, len(await _found(store, mark)), "how many have the word, or begin with it")
            for nothing in ("", "\"*'\0"):
                searching = partial(_found, store, nothing)
                await what_raises(UsageError, "a text without words", searching)

    async def check_writers_at_once_lose_nothing(self) -> None:
        """Lose none of the messages that several tasks add at once, and keep each task's in order."""
        async with self.open_store() as store:
            await self._write_at_once([store] * 5)

    async def check_stores_on_one_place_share_it(self) -> None:
        """Let two stores on one place write at once, and each see what the other has written."""
        self._expect_to_last()
        async with self.open_store() as one, self.open_store() as two:
            await self._write_at_once([one, two, one, two])
            (turn,), place = _turns(1), _place()
            await one.hold(place, "one")
            expect_equal(Hold.BUSY, await two.hold(place, "two"), "what another gets meanwhile")
            await one.record(place, turn, holder="one")
            expect_equal([turn], await _recorded(two, place), "the turns")

    async def _write_at_once(self, stores: Sequence[Store]) -> None:
        place, rounds = _place(), 5

        async def write(writer: int, store: Store) -> None:
            for number in range(rounds):
                await store.keep(place, messages=[Message.user(f"{writer} {number}")])

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
            place = _place()
            turn = await store.record(place, evolve(turn, state=TurnState.UNKNOWN))
            kept = await store.keep(place, Conversation(place.id, "Kyoto"), [_everything()])
        async with self.open_store() as store:
            expect_equal([turn], await _recorded(store, place), "the turns")
            expect_equal(kept, await store.conversation(kept.id, "a"), "the conversation")
            expect_equal([_everything()], await _all(store, kept.remote), "the messages")

    async def check_what_is_begun_is_written(self) -> None:
        """Write what was begun, though the task that began it is cancelled."""
        async with self.open_store() as store:
            (turn,) = _turns(1)
            answer = Reply([Message.assistant("Ho")])
            done = evolve(turn, state=TurnState.DELIVERED)
            place = _place()
            recording = asyncio.create_task(store.record(place, done, answer))
            await asyncio.sleep(0)
            recording.cancel()
            await asyncio.wait([recording])
            expect(recording.cancelled() or recording.done(), "the task must end")
            expect_equal(2, len(await _all(store, place)), "how many messages are there")

    async def check_what_json_lacks_is_refused(self) -> None:
        """Refuse what could not be read back as it was, and write nothing of it."""
        self._expect_to_last()
        async with self.open_store() as store:
            place, deep = _place(), list[object]()
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
        (turn,), place = _turns(1), _place()
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

    async def check_a_message_in_doubt_blocks_the_next(self) -> None:
        """Block the next message while one is in doubt whose program has ended, until it is waived."""
        async with self.open_store() as store:
            fake = FakeBackend()
            async with Bridge(fake, store=store, clock=fake.clock) as bridge:
                chat = await bridge.create()
                (turn,) = _turns(1)
                place = Remote(bridge.profile.name, chat.id)
                await store.record(place, evolve(turn, conversation_id=chat.id))
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


async def _recorded(store: Store, place: Remote, *, unsettled: bool = False) -> list[Turn]:
    return [row.turn for row in await store.turns(place, unsettled=unsettled)]


async def _watch(store: Store, place: Remote, pauses: int) -> set[TurnState]:
    """Give the states in which turns are seen, beginning after some *pauses*."""
    seen = set[TurnState]()
    for _ in range(pauses):
        await store.find(place)
    for _ in range(5):
        seen |= {turn.state for turn in await _recorded(store, place)}
        await asyncio.sleep(0)
    return seen


async def _found(store: Store, text: str) -> list[Hit]:
    return [hit async for hit in store.search(text)]


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
