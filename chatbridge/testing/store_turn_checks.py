"""The rules of stores for turns: what they give back, and what is told late."""

from __future__ import annotations

from functools import partial

from attrs import evolve

from chatbridge.bridge import Bridge
from chatbridge.domain import Message, Reply, Role, Usage
from chatbridge.errors import StoreError, UnsettledTurn
from chatbridge.history.rows import Remote
from chatbridge.testing.checking import expect, expect_equal, what_raises
from chatbridge.testing.fake import FakeBackend
from chatbridge.testing.store_case import (
    FREE,
    TEXT,
    StoreCase,
    everything,
    new_place,
    new_turns,
    recorded,
    said_in,
)
from chatbridge.turns import Turn, TurnState

__all__ = ["StoreTurnChecks"]


class StoreTurnChecks(StoreCase):
    """What becomes of messages."""

    async def check_a_turn_comes_back_as_it_was(self) -> None:
        """Give a turn back as it was recorded, in place of what was recorded before."""
        async with self.open_store() as store:
            place, (first, *others) = new_place(), new_turns(3)
            await store.hold(place, "one")
            for each in (first, *others):
                await store.record(place, each)
            full = _full(first)
            expect_equal(full, await store.record(place, full), "what was recorded")
            (found,) = await store.turns(place, full.id)
            expect_equal(full, found.turn, "the turn")
            expect_equal(FREE, found.turn.message.extra, "the extra of its message")
            expect_equal([full, *others], await recorded(store, place), "all turns")
            expect_equal((), await store.turns(place, "x"), "a turn that there is not")
            expect_equal((), await store.turns(new_place(), full.id), "a turn of another conversation")

    async def check_turns_in_doubt_are_found(self) -> None:
        """Find the turns that are unknown or accepted, waived or not."""
        async with self.open_store() as store:
            place = new_place()
            states = [state for state in TurnState if state is not TurnState.PENDING]
            turns = [evolve(turn, state=state) for turn, state in zip(new_turns(5), states, strict=True)]
            turns[-1] = evolve(turns[-1], waived=True)
            for each in turns:
                await store.record(place, each)
            expected = [each for each in turns if each.unsettled]
            expect_equal(expected, await recorded(store, place, unsettled=True), "the unsettled")
            everywhere = [row.turn for row in await store.turns(unsettled=True) if row.remote == place]
            expect_equal(expected, everywhere, "the unsettled, of all conversations")
            for each in expected:
                await store.record(place, evolve(each, state=TurnState.REFUSED))
            expect_equal([], await recorded(store, place, unsettled=True), "the unsettled afterwards")

    async def check_backends_do_not_see_each_others_turns(self) -> None:
        """Keep conversations that have the same id at two backends, or for two accounts, apart."""
        async with self.open_store() as store:
            (turn,), place = new_turns(1), new_place()
            await store.record(place, turn)
            elsewhere = [evolve(place, backend="b"), evolve(place, account="someone")]
            await store.record(elsewhere[1], evolve(turn, partial="other"))
            expect_equal((), await store.turns(elsewhere[0]), "the turns at another backend")
            expect_equal(1, len(await store.turns(elsewhere[1])), "the turns of another account")
            expect_equal("", (await store.turns(place))[0].turn.partial, "what the turn has")

    async def check_an_answer_comes_with_its_turn(self) -> None:
        """Take a message and its answer into the history with the turn that is delivered, once only."""
        async with self.open_store() as store:
            turns, place = new_turns(2), new_place()
            for number, turn in enumerate(turns):
                answer = Reply([Message(Role.TOOL, "found"), Message.assistant(f"Answer {number}")])
                await store.record(place, turn)
                done = evolve(turn, state=TurnState.DELIVERED, reply=answer if number else None)
                for _ in range(2):
                    await store.record(place, done, None if number else answer)
            expect_equal(
                ["Message 0", "found", "Answer 0", "Message 1", "found", "Answer 1"],
                [message.text for message in await said_in(store, place)],
                "the history",
            )

    async def check_what_is_found_late_stands_nowhere_else(self) -> None:
        """Add a message that was read back only where it is the last, and was not taken over already."""
        (first, second), answer = new_turns(2), Reply([Message.assistant("Answer")])
        theirs, found = (
            evolve(first.message, id="theirs"),
            evolve(first, state=TurnState.DELIVERED, reply=answer),
        )
        async with self.open_store() as store:
            for taken in ([theirs], [theirs, answer.message], [], [Message.user("Another")]):
                place, others = new_place(), [each.text for each in taken if each.text == "Another"]
                await store.record(place, first)
                await store.keep(place, messages=taken)
                await store.record(place, found)
                there = [message.text for message in await said_in(store, place)]
                expect_equal([*others, "Message 0", "Answer"], there, "the history")
            place = new_place()
            await store.record(place, first)
            await store.record(place, evolve(second, state=TurnState.DELIVERED), answer)
            await store.record(place, found)
            there = [message.text for message in await said_in(store, place)]
            expect_equal(["Message 1", "Answer"], there, "the history, without what belongs further up")
            expect_equal(answer, (await store.turns(place, first.id))[0].turn.reply, "the answer in its turn")

    async def check_what_is_certain_stays(self) -> None:
        """Keep that a turn was delivered, and that it was waived, when told later by who does not know."""
        async with self.open_store() as store:
            (turn,), place = new_turns(1), new_place()
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
            (first,), place = new_turns(1), new_place()
            lost = evolve(first, state=TurnState.UNKNOWN)
            again = evolve(first, sends=2, earlier=lost)
            for turn in (first, again):
                await store.record(place, turn)
            late = evolve(first, state=TurnState.DELIVERED)
            expect_equal(2, (await store.record(place, lost)).sends, "how often it was sent")
            for _ in range(2):
                await store.record(place, late, Reply([Message.assistant("First")]))
            (kept,) = await recorded(store, place)
            expect_equal((2, late), (kept.sends, kept.earlier), "how often it was sent, and what was before")
            done = evolve(again, state=TurnState.DELIVERED)
            await store.record(place, done, Reply([Message.assistant("Second")]))
            told = await store.record(place, lost)
            expect_equal((TurnState.DELIVERED, 2), (told.state, told.sends), "what it is at last")
            there = [message.text for message in await said_in(store, place)]
            expect_equal(["Message 0", "First", "Message 0", "Second"], there, "the history")

    async def check_a_sending_in_vain_is_taken_back(self) -> None:
        """Have a turn as it was before its message was sent again, once that is known to be in vain."""
        async with self.open_store() as store:
            (first,), place = new_turns(1), new_place()
            lost = evolve(first, state=TurnState.UNKNOWN)
            for turn in (first, lost, evolve(first, sends=2, earlier=lost)):
                await store.record(place, turn)
            expect_equal(lost, await store.record(place, lost, sends=2), "what was recorded")
            expect_equal([lost], await recorded(store, place), "the turns")

    async def check_an_answer_comes_too_late_where_others_went_on(self) -> None:
        """Add no answer to a history that is kept here alone, once another has held its conversation."""
        async with self.open_store() as store:
            place, answer = new_place(), Reply([Message.assistant("Ho")])
            for turn, goes_on in zip(new_turns(2), (False, True), strict=True):
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
                there = [message.text for message in await said_in(store, place)]
                expect_equal(["Message 0", "Ho"], there, "the history")
                expect_equal(TurnState.UNKNOWN, (await recorded(store, place))[-1].state, "the state")
                await store.record(place, done, answer, holder="one")
                expect_equal(4, len(await said_in(store, place)), "the length of one that is kept elsewhere")

    async def check_what_is_told_late_brings_nothing_back(self) -> None:
        """Leave a conversation forgotten, whatever its last holder tells of it."""
        async with self.open_store() as store:
            (turn,), place = new_turns(1), new_place()
            await store.hold(place, "one")
            await store.record(place, turn, holder="one")
            kept = await store.find(place)
            await store.forget("" if kept is None else kept.id)
            done, answer = evolve(turn, state=TurnState.DELIVERED), Reply([Message.assistant("Ho")])
            expect_equal(done, await store.record(place, done, answer, holder="one"), "what is given back")
            expect_equal(None, await store.find(place), "what is there")

    async def check_a_turn_and_its_answer_are_written_at_once(self) -> None:
        """Write a turn and the messages that come with it, or neither where one of them cannot be."""
        self.expect_to_last()
        async with self.open_store() as store:
            place, (turn,) = new_place(), new_turns(1)
            await store.record(place, turn)
            good, wrong = (Reply([evolve(Message.assistant("Ho"), extra={"x": x})]) for x in (1, object()))
            done = evolve(turn, state=TurnState.DELIVERED)
            for each, answer in ((done, wrong), (evolve(done, reply=wrong), good)):
                await what_raises(StoreError, "what is wrong", partial(store.record, place, each, answer))
                expect_equal(TurnState.UNKNOWN, (await recorded(store, place))[0].state, "the state")
                expect_equal([], await said_in(store, place), "the history")

    async def check_a_message_in_doubt_blocks_the_next(self) -> None:
        """Block the next message while one is in doubt whose program has ended, until it is waived."""
        async with self.open_store() as store:
            fake = FakeBackend()
            async with Bridge(fake, store=store, clock=fake.clock) as bridge:
                chat = await bridge.create()
                (turn,) = new_turns(1)
                place = Remote(bridge.profile.name, chat.id)
                await store.record(place, evolve(turn, conversation_id=chat.id))
                error = await what_raises(UnsettledTurn, "the next message", lambda: chat.send("Hi"))
                expect(error.turn is not None and error.turn.id == turn.id, "the error must have the turn")
                await chat.waive(evolve(turn, conversation_id=chat.id))
                await chat.send("Hi")
                expect_equal(("Hi",), fake.sent, "what was sent")


def _full(turn: Turn) -> Turn:
    usage = Usage(1, 2, None, 0, 5, 0.25)
    reply = Reply([everything()], "other", "why", usage, "m", ["careful"], recovered=True, extra=FREE)
    return evolve(
        turn,
        message=everything(),
        state=TurnState.ACCEPTED,
        partial=TEXT,
        reply=reply,
        from_api=True,
        waived=True,
        baseline=(3, 1),
        sends=2,
        earlier=evolve(turn, state=TurnState.UNKNOWN),
    )
