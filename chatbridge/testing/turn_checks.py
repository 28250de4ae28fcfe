"""The rules of the contract for what goes to and fro: context, order, text, cancellation, errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import fields

from chatbridge.backend import ContextOwner, Feature, Profile, SettleBy, Stores, Support
from chatbridge.bridge import Bridge
from chatbridge.domain import Finished, FinishReason, Message, Reply, Role, SendOptions
from chatbridge.errors import (
    BadOption,
    NotFound,
    Refused,
    UnsupportedFeature,
    UsageError,
)
from chatbridge.testing.checking import (
    Checks,
    NotApplicable,
    Witness,
    again,
    both,
    expect,
    expect_equal,
    expect_refused,
    expect_refused_by,
    said,
    strict,
    what_raises,
)

__all__ = ["TurnChecks"]

TEXTS = (
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u3001\u4e16\u754c",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 e\u0301 is not \u00e9",
    "a\x00b",
    "lines\nand\r\nlines\tand\u2028more\u2029of\x85them",
    "\u202eright to left\u202c \ufeff \ufffd \\ \" ' </script>",
    " blank around ",
)
HALF = "half \ud83d a character"
LONG = "\u9577\u3044 long " * 18_000  # Over 200 KB in UTF-8.
NO_OPTIONS = SendOptions()
FORM = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
_TOLD = frozenset({"temperature", "top_p", "max_output_tokens", "stop", "seed", "response_format"})
"""Options that an API must be told; the samples of others may be what it does by itself."""
STEPS = (0, 1, 2, 3, 5, 8, 13, 21, 34)


class TurnChecks(Checks):
    """Rules for sending and receiving."""

    async def check_profile(self) -> None:
        """Have a profile that is data: it can be pickled, and contradicts itself nowhere."""
        async with self.bridge() as bridge:
            for profile in (bridge.profile, bridge.backend.profile):
                expect_equal(profile, again(profile), "the profile after pickling")
                _expect_sound(profile)
            for feature in Feature:
                own, filled = bridge.backend.profile.support(feature), bridge.profile.support(feature)
                if own is not Support.UNSUPPORTED and feature not in bridge.filling.features:
                    expect_equal(own, filled, f"the bridge's support of {feature.value}")

    async def check_stream_equals_send(self) -> None:
        """Give the same reply streamed and whole; what it cost may be told of one of them only."""
        async with self.bridge() as bridge:
            whole = await self.sent(await self.conversation(bridge), "When do the maples turn?")
            streamed = await self.streamed(await self.conversation(bridge), "When do the maples turn?")
            expect_equal(_content(whole), _content(streamed), "the streamed reply")
            if whole.usage is not None and streamed.usage is not None:
                expect_equal(whole.usage, streamed.usage, "the usage of the streamed reply")

    async def check_context(self) -> None:
        """Show the model the earlier turns of its conversation, as the profile says, and of no other."""
        async with self.bridge() as bridge:
            chat = await self.conversation(bridge)
            await chat.send("The word is maple.")
            answers = [(await chat.send("What is the word?")).text]
            await chat.send("The word is maple.")
            answers.append((await self.streamed(chat, "What is the word?")).text)
            for answer in answers:
                expect_equal(
                    bridge.profile.context is not ContextOwner.NONE,
                    self.quotes(answer, "The word is maple."),
                    f"whether the model saw the turn before, by {answer!r}",
                )
            await chat.send("The word is maple.")
            other = (await (await self.conversation(bridge)).send("What is the word?")).text
            expect(not self.quotes(other, "The word is maple."), f"another conversation shows in {other!r}")

    async def check_prompt(self) -> None:
        """Tell an API that keeps nothing all that was said, the system prompt and options, in one call."""
        async with self.bridge() as bridge:
            if bridge.profile.context is not ContextOwner.CLIENT:
                return
            partner = self.partner(bridge)
            if not isinstance(partner, Witness):
                raise NotApplicable("what the API is told cannot be seen")
            rules = ("Be kind.", "Be brief.") if bridge.profile.can(Feature.SYSTEM) else ()
            seed = [Message(Role.SYSTEM, rules[0])] if rules else []
            seed += [Message.user("What is an elm?"), Message.assistant("A tree of the north.")]
            chat = await bridge.create(history=seed, system=rules[1] if rules else None)
            spoken = [message.text for message in seed if message.role is not Role.SYSTEM]
            for text in ("And an oak?", "And a pine?", "And a yew?"):
                for asked in (self.sent, self.streamed):
                    before = partner.writes
                    reply = await asked(chat, text)
                    calls = partner.writes - before
                    expect_equal(1, calls, f"the number of calls for a message that is {asked.__name__}")
                    spoken += [text, reply.text]
                    _expect_told(partner.heard, spoken[:-1], rules)
            await self._expect_options_told(bridge, partner)

    async def _expect_options_told(self, bridge: Bridge, partner: Witness) -> None:
        """Check that what is told changes with each option that is honoured, of those in `_TOLD`."""
        for asked in (self.sent, self.streamed):
            await asked(await self.conversation(bridge), "Hello")
            plain = partner.heard
            for name in sorted(_TOLD & bridge.profile.options):
                value: Any = self.SAMPLES[name] and (
                    FORM if name == "response_format" else self.SAMPLES[name]
                )
                if value is not None:
                    options = SendOptions(**{name: value})
                    await asked(await self.conversation(bridge), "Hello", options)
                    expect(partner.heard != plain, f"the API is not told the option {name}")

    async def check_finish_reason(self) -> None:
        """End an answer where an option says so, and say why it ended."""
        text = "Tell me a long story"
        async with self.bridge() as bridge:
            for asked in (self.sent, self.streamed):
                whole = await asked(await self.conversation(bridge), text)
                if "max_output_tokens" in bridge.profile.options:
                    options = SendOptions(max_output_tokens=1)
                    cut = await asked(await self.conversation(bridge), text, options)
                    reason = cut.finish_reason
                    if reason is not None:  # Some APIs do not tell.
                        expect_equal(FinishReason.LENGTH, reason, "why an answer of one token ends")
                        expect(len(cut.text) < len(whole.text), f"it is told that {cut.text!r} is cut")
                if "stop" in bridge.profile.options:
                    options = SendOptions(stop=(whole.text[-5:],))
                    cut = await asked(await self.conversation(bridge), text, options)
                    expect(options.stop[0] not in cut.text, f"{cut.text!r} does not end before a stop")

    async def check_unknown_conversation(self) -> None:
        """Refuse what is not there: reading says NotFound, whatever else at least Refused."""
        async with self.bridge() as bridge:
            chat = bridge.open(self.unknown_id())
            calls: dict[Feature, tuple[type[Refused], Any]] = {
                Feature.GET: (NotFound, chat.refresh),
                Feature.RENAME: (Refused, lambda: chat.rename("Nowhere")),
                Feature.HISTORY: (Refused, chat.messages),
                Feature.DELETE: (Refused, chat.delete),
            }
            if bridge.profile.stores is not Stores.NEVER:  # Else a message goes into no conversation.
                calls[Feature.SEND] = (Refused, lambda: chat.send("Hello"))
                calls[Feature.STREAM] = (Refused, lambda: self.streamed(chat, "Hello"))
            if Feature.HISTORY in bridge.filling.features:  # Then nobody is asked.
                del calls[Feature.HISTORY]
            for feature, (kind, call) in calls.items():
                if bridge.profile.can(feature):
                    what = f"{feature.value} of an unknown conversation"
                    error = await what_raises(kind, what, call)
                    expect_equal(bridge.profile.name, error.provider, f"the provider in the error of {what}")

    async def check_text(self) -> None:
        """Carry text of any script as it was written."""
        async with self.bridge() as bridge:
            for text in TEXTS:
                chat = await self.conversation(bridge)
                replies = [await asked(chat, text) for asked in (self.sent, self.streamed)]
                await self._expect_said(bridge, chat.id, [(text, reply) for reply in replies])

    async def check_half_characters(self) -> None:
        """Refuse to send half a character, before any I/O."""
        async with self.bridge() as bridge:
            chat, backend = await self.conversation(bridge), bridge.backend
            calls = both(chat, NO_OPTIONS, HALF)
            calls.append(lambda: backend.send(chat.id, Message.user(HALF), NO_OPTIONS))
            if backend.profile.can(Feature.STREAM):
                calls.append(lambda: anext(backend.stream(chat.id, Message.user(HALF), NO_OPTIONS)))
            if bridge.profile.can(Feature.TITLE):
                calls.append(lambda: bridge.create(title=HALF))
            if backend.profile.can(Feature.TITLE):
                calls.append(lambda: backend.create_conversation(title=HALF))
            if backend.profile.can(Feature.RENAME):
                calls.append(lambda: backend.rename_conversation(chat.id, HALF))
            for call in calls:
                expect_refused(UsageError, "sending half a character", call)

    async def check_long_text(self) -> None:
        """Carry a text of 200 KB whole."""
        async with self.bridge() as bridge:
            # The answer quotes it, and is no shorter.
            limited = "max_output_tokens" in bridge.profile.options
            options = SendOptions(max_output_tokens=len(LONG)) if limited else NO_OPTIONS
            for asked in (self.sent, self.streamed):
                chat = await self.conversation(bridge)
                await self._expect_said(bridge, chat.id, [(LONG, await asked(chat, LONG, options))])

    async def check_empty_answer(self) -> None:
        """Take an empty answer for an answer."""
        ask = self.ask_for_nothing()
        if ask is None:
            raise NotApplicable("nothing is known that makes it answer with an empty text")
        async with self.bridge() as bridge:
            for asked in (self.sent, self.streamed):
                chat = await self.conversation(bridge)
                reply = await asked(chat, ask.text, ask.options)
                expect_equal("", reply.text, "the text of an empty answer")
                # Where the history is sent, an answer that says nothing may be missing in it.
                expect("Hello" in (await chat.send("Hello")).text, "the conversation does not go on")

    async def check_conversations_at_once(self) -> None:
        """Answer sends to different conversations at once, each for itself."""
        async with self.bridge() as bridge:
            chats = [await self.conversation(bridge) for _ in range(5)]
            for asked in (self.sent, self.streamed):
                replies = await asyncio.gather(*(asked(chat, f"I am {chat.id}") for chat in chats))
                for chat, reply in zip(chats, replies, strict=True):
                    expect(self.quotes(reply.text, f"I am {chat.id}"), f"{reply.text!r} answers another")

    async def check_order(self) -> None:
        """Take sends to one conversation one at a time, in the order of the calls."""
        async with self.bridge() as bridge:
            chat = await self.conversation(bridge)
            texts = [f"number {number}" for number in range(5)]
            # Two handles on one conversation share its order.
            handles = [chat, bridge.open(chat.id)] * 3
            sends = (handle.send(text) for handle, text in zip(handles, texts, strict=False))
            replies = await asyncio.gather(*sends)
            await self._expect_said(bridge, chat.id, list(zip(texts, replies, strict=True)))
            if bridge.profile.context is not ContextOwner.NONE:
                for before, reply in zip(texts, replies[1:], strict=False):
                    expect(self.quotes(reply.text, before), f"{reply.text!r} does not follow {before!r}")

    async def check_leaving_a_stream(self) -> None:
        """Let the next message go once a stream is left early."""
        async with self.bridge() as bridge:
            chat = await self.conversation(bridge)
            async with chat.stream("Tell me a long story") as stream:
                first = await anext(stream)
            expect(not isinstance(first, Finished), "the first event must not be the last")
            expect(self.quotes((await chat.send("Enough")).text, "Enough"), "the next answer is another's")
            async with chat.stream("Once more"):
                pass
            expect((await self.streamed(chat, "And whole")).text != "", "the next stream has no text")

    async def check_sending_inside_a_stream(self) -> None:
        """Refuse a send from the task that reads a stream of the same conversation."""
        async with self.bridge() as bridge:
            chat = await self.conversation(bridge)
            async with chat.stream("One") as stream:
                await anext(stream)
                expect_refused(UsageError, "a send inside an open stream", lambda: chat.send("Two"))
                second = chat.stream("Two")
                expect_refused(UsageError, "a second stream inside one", second.__aenter__)
                other = await self.conversation(bridge)
                expect(self.quotes((await other.send("Elsewhere")).text, "Elsewhere"), "another is blocked")
                events = [event async for event in stream]
            expect(isinstance(events[-1], Finished), "the open stream did not survive")

    async def check_cancelling(self) -> None:
        """End a cancelled send as cancelled, wherever it was, and leave the conversation usable."""
        async with self.bridge() as bridge:
            chat = await self.conversation(bridge)
            for asked in (self.sent, self.streamed):
                for steps in STEPS:
                    task = asyncio.create_task(asked(chat, "Never mind"))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    under_way = task.cancel()
                    await asyncio.wait([task])
                    expect_equal(under_way, task.cancelled(), f"a send cancelled after {steps} steps")
                    if not under_way:
                        task.result()
                    await self.waive(chat)
                text = f"Still there after {asked.__name__}?"
                expect(self.quotes((await chat.send(text)).text, text), "the next answer is another's")

    async def check_options(self) -> None:
        """Honour an option, or name it in a warning, or with `strict` refuse it before any I/O."""
        async with self.bridge() as bridge:
            names = {attribute.name for attribute in fields(SendOptions)} - {"include", "extra"}
            expect_equal(names, set(self.SAMPLES), "the options that SAMPLES has values for")
            samples = {**self.SAMPLES}
            if model := getattr(bridge.options, "model", None):
                samples["model"] = model
            known = {name: value for name, value in samples.items() if value is not None}
            honoured = {name: known[name] for name in bridge.profile.options if name in known}
            chat = await self.conversation(bridge)
            reply = await chat.send("Hello", SendOptions(**honoured))
            expect_equal((), reply.warnings, f"the warnings of options that are honoured: {sorted(honoured)}")
            for name in sorted(names - bridge.profile.options):
                value: Any = samples[name] or "any"
                options = SendOptions(**{name: value})
                for asked in (self.sent, self.streamed):
                    warnings = (await asked(chat, "Hello", options)).warnings
                    expect(any(name in each for each in warnings), f"no warning names {name}: {warnings}")
                for call in both(strict(bridge).open(chat.id), options):
                    refusal = expect_refused(UnsupportedFeature, f"the option {name}, strictly,", call)
                    expect(name in refusal.feature, f"{refusal} does not name {name}")

    async def check_unknown_extra(self) -> None:
        """Refuse an `extra` that no API has, by name and before any I/O."""
        extra = {"no_such_option": 1}
        async with self.bridge() as bridge:
            chat = await self.conversation(bridge)
            calls: list[Callable[[], Awaitable[object]]] = []
            if bridge.profile.can(Feature.CREATE):
                calls.append(lambda: bridge.create(extra=extra))
            if bridge.profile.can(Feature.SEND):
                calls += both(chat, SendOptions(extra=extra))
            for call in calls:
                refusal = await expect_refused_by(bridge, BadOption, "an unknown extra", call)
                expect("no_such_option" in str(refusal), f"{refusal} does not name the option")

    async def check_roles(self) -> None:
        """Refuse to send what the user did not say."""
        async with self.bridge() as bridge:
            chat = await self.conversation(bridge)
            for role in (Role.ASSISTANT, Role.SYSTEM):
                for call in both(chat, NO_OPTIONS, Message(role, "Hello")):
                    await expect_refused_by(bridge, UsageError, f"a message of the {role.value}", call)

    async def _expect_said(
        self, bridge: Bridge, conversation_id: str, turns: list[tuple[str, Reply]]
    ) -> None:
        for text, reply in turns:
            shown = text if len(text) < len(LONG) else "200 KB"
            expect(self.quotes(reply.text, text), f"the answer does not show {shown!r} as it was sent")
        if bridge.profile.can(Feature.HISTORY):
            held = [message async for message in bridge.open(conversation_id).messages()]
            expect_equal(self.stored(bridge, turns), said(held), "the history")


def _expect_told(heard: str, said: Sequence[str], rules: Sequence[str]) -> None:
    """Check that all that was *said* is in what was *heard*, in its order, and the *rules* anywhere."""
    for rule in rules:
        expect(rule in heard, f"the API is not told the system's {rule!r}")
    place = 0
    for number, text in enumerate(said):
        # As JSON has it, or as it is.
        found = max(heard.find(each, place) for each in (text, json.dumps(text)[1:-1]))
        expect(found >= 0, f"the API is not told {text!r} as message {number + 1} of {len(said)}")
        place = found + len(text)


def _content(reply: Reply) -> object:
    """Pick what two answers to the same message share, whichever of them tells its cost."""
    spoken = [(message.role, message.parts) for message in reply.messages]
    return spoken, reply.finish_reason, reply.raw_finish_reason, reply.model, reply.warnings


def _expect_sound(profile: Profile) -> None:
    expect(bool(profile.name), "a profile has a name")
    for feature in Feature:
        expect(profile.support(feature) in set(Support), f"the support of {feature.value} is none")
        native = profile.support(feature) is Support.NATIVE
        expect(not (native and feature in profile.instead), f"{feature.value} is there, and `instead`")
    expect(set(profile.features) <= set(Feature), "the profile has features that are none")
    known = {attribute.name for attribute in fields(SendOptions)} - {"include", "extra"}
    expect(profile.options <= known, f"unknown options: {sorted(profile.options - known)}")
    expect(profile.context in set(ContextOwner), "the context has no owner that is known")
    expect(profile.stores in set(Stores), "when a turn is stored is none of what is known")
    expect(profile.settle_by <= set(SettleBy), "a delivery cannot be settled so")
    settles = SettleBy.READ_BACK in profile.settle_by
    expect(not settles or profile.can(Feature.HISTORY), "reading back needs a history")
