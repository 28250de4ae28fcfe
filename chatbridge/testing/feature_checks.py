"""The rules of the contract that belong to one feature: what a profile claims works, and the rest says no."""

from __future__ import annotations

from attrs import astuple

from chatbridge.backend import ContextOwner, Feature, Support
from chatbridge.bridge import Bridge
from chatbridge.domain import Attachment, Message, Reasoning, Role, SendOptions, Text, ToolCall, ToolResult
from chatbridge.errors import NotFound, UnsupportedFeature, UsageError
from chatbridge.testing.checking import (
    Ask,
    Checks,
    NotApplicable,
    expect,
    expect_equal,
    expect_refused,
    said,
    strict,
    what_raises,
)

__all__ = ["FeatureChecks"]

NO_OPTIONS = SendOptions()
PIXEL = Attachment("image/png", data=b"\x89PNG\r\n\x1a\n", name="pixel.png")


class FeatureChecks(Checks):
    """One rule for each feature."""

    async def check_create(self) -> None:
        """Give each new conversation an id of its own."""
        async with self.bridge() as bridge:
            if self.claims(bridge, Feature.CREATE, bridge.create, bridge.backend.create_conversation):
                made = [(await bridge.create()).conversation for _ in range(3)]
                expect(all(each.id for each in made), "a conversation's id is not empty")
                expect_equal(3, len({each.id for each in made}), "the number of ids of three conversations")
                expect_equal([()] * 3, [each.warnings for each in made], "the warnings of plain creations")

    async def check_title(self) -> None:
        """Keep the title that a conversation is created with."""
        async with self.bridge() as bridge:
            backend = bridge.backend
            if self.claims(
                bridge,
                Feature.TITLE,
                lambda: bridge.create(title="Kyoto"),
                lambda: backend.create_conversation(title="Kyoto"),
            ):
                title = "Kyoto \u4eac\u90fd"
                chat = await bridge.create(title=title)
                expect_equal(title, chat.conversation.title, "the title of the new conversation")
                await self._expect_title(bridge, chat.id, title)

    async def check_system(self) -> None:
        """Take a system prompt at creation, which the new conversation tells, and by a handle."""
        async with self.bridge() as bridge:
            backend = bridge.backend
            if self.claims(
                bridge,
                Feature.SYSTEM,
                lambda: bridge.create(system="Be brief."),
                lambda: backend.create_conversation(system="Be brief."),
            ):
                chat = await bridge.create(system="Be brief.")
                if bridge.profile.support(Feature.SYSTEM) is Support.EMULATED:
                    expect_equal("Be brief.", chat.system, "the system prompt that goes with each message")
                else:
                    told = chat.conversation.system
                    expect_equal("Be brief.", told, "the system prompt of the new conversation")
                expect_equal((), (await chat.send("Hello")).warnings, "the warnings of an answer under it")
            if "system" in bridge.profile.options:
                handle = bridge.open((await self.conversation(bridge)).id, system="Be long.")
                warnings = (await handle.send("Hello")).warnings
                expect_equal((), warnings, "the warnings of an answer by a handle")
            else:
                what = "a handle with a system prompt"
                expect_refused(UnsupportedFeature, what, lambda: bridge.open("x", system="Be brief."))

    async def check_history_seed(self) -> None:
        """Hold the messages that a conversation begins with, and show them to the model."""
        seed = (Message.user("What is a maple?"), Message.assistant("A tree."))
        async with self.bridge() as bridge:
            backend = bridge.backend
            if self.claims(
                bridge,
                Feature.HISTORY_SEED,
                lambda: bridge.create(history=seed),
                lambda: backend.create_conversation(history=seed),
            ):
                chat = await bridge.create(history=seed)
                if bridge.profile.can(Feature.HISTORY):
                    held = [message async for message in chat.messages()]
                    expect_equal(said(seed), said(held), "the history of a seeded conversation")
                if bridge.profile.context is not ContextOwner.NONE:
                    answer = (await chat.send("And an oak?")).text
                    expect(self.quotes(answer, "What is a maple?"), f"{answer!r} does not show the seed")

    async def check_get(self) -> None:
        """Read a conversation by its id."""
        async with self.bridge() as bridge:
            if self.claims(
                bridge,
                Feature.GET,
                lambda: bridge.open("x").refresh(),
                lambda: bridge.backend.get_conversation("x"),
            ):
                chat = await self.conversation(bridge)
                expect_equal(chat.id, (await bridge.open(chat.id).refresh()).id, "the id of what was read")

    async def check_list(self) -> None:
        """List each conversation once."""
        async with self.bridge() as bridge:
            if self.claims(bridge, Feature.LIST, bridge.conversations, bridge.backend.list_conversations):
                made = [(await self.conversation(bridge)).id for _ in range(3)]
                listed = [conversation.id async for conversation in bridge.conversations()]
                for conversation_id in made:
                    expect_equal(1, listed.count(conversation_id), f"{conversation_id} in the list")

    async def check_rename(self) -> None:
        """Give a new title in the answer, and in what is read afterwards."""
        async with self.bridge() as bridge:
            if self.claims(
                bridge,
                Feature.RENAME,
                lambda: bridge.open("x").rename("Nara"),
                lambda: bridge.backend.rename_conversation("x", "Nara"),
            ):
                chat, other = await self.conversation(bridge), await self.conversation(bridge)
                before = (await other.refresh()).title if bridge.profile.can(Feature.GET) else None
                for title in ("Nara", "Nara \u5948\u826f \U0001f98c"):
                    renamed = await chat.rename(title)
                    expect_equal((chat.id, title), (renamed.id, renamed.title), "what renaming answers")
                    await self._expect_title(bridge, chat.id, title)
                after = (await other.refresh()).title if bridge.profile.can(Feature.GET) else None
                expect_equal(before, after, "the title of another conversation")

    async def check_delete(self) -> None:
        """Neither list nor find a deleted conversation, and touch no other."""
        async with self.bridge() as bridge:
            if self.claims(
                bridge,
                Feature.DELETE,
                lambda: bridge.open("x").delete(),
                lambda: bridge.backend.delete_conversation("x"),
            ):
                kept, gone = await self.conversation(bridge), await self.conversation(bridge)
                await gone.delete()
                if bridge.profile.can(Feature.GET):
                    await what_raises(NotFound, "reading a deleted conversation", gone.refresh)
                    await kept.refresh()
                if bridge.profile.can(Feature.LIST):
                    listed = [conversation.id async for conversation in bridge.conversations()]
                    expect(gone.id not in listed, "a deleted conversation is listed")
                    expect(kept.id in listed, "another conversation is gone")

    async def check_history(self) -> None:
        """Hold what was said, by whom, once, oldest first, if it is stored; and cut and turn it as asked."""
        async with self.bridge() as bridge:
            if not self.claims(
                bridge,
                Feature.HISTORY,
                lambda: bridge.open("x").messages(),
                lambda: bridge.backend.list_messages("x"),
            ):
                return
            chat = await self.conversation(bridge)
            expect_equal([], [m async for m in chat.messages()], "the history of a new conversation")
            replies = [await chat.send(text) for text in ("one", "two", "three")]
            spoken = self.stored(bridge, list(zip(("one", "two", "three"), replies, strict=True)))
            held = [message async for message in chat.messages()]
            expect_equal(spoken, said(held), "the history")
            if bridge.backend.profile.can(Feature.HISTORY) and Feature.HISTORY in bridge.filling.features:
                shown = [message async for message in bridge.backend.list_messages(chat.id)]
                expect_equal([], said(shown), "the history of an API that stores none")
            first = [message async for message in chat.messages(limit=2)]
            expect_equal(spoken[:2], said(first), "the history up to a limit of 2")
            last = [message async for message in chat.messages(newest_first=True, limit=3)]
            expect_equal(spoken[:-4:-1], said(last), "the last three messages, newest first")
            ids = [message.id for message in held]
            unknown = chat.messages(after="no-such-message")
            await what_raises(UsageError, "reading on behind an unknown message", lambda: unknown)
            if any(ids):  # Some APIs give their messages none.
                expect_equal(len(held), len(set(ids)), "the number of message ids")
                for reply, message in zip(replies, held[1::2], strict=True):
                    told = reply.message.id or message.id
                    expect_equal(told, message.id, "the id of an answer in the history")
                rest = [message async for message in chat.messages(after=ids[1])]
                expect_equal(spoken[2:], said(rest), "the history after the second message")
                behind = [message async for message in chat.messages(after=ids[1], newest_first=True)]
                expect_equal(spoken[:1:-1], said(behind), "the same, newest first")

    async def check_paging(self) -> None:
        """Give long lists and histories whole, each entry once, in their order."""
        async with self.bridge() as bridge:
            can = bridge.profile.can
            if can(Feature.LIST) and can(Feature.CREATE):
                made = [(await bridge.create()).id for _ in range(self.MANY)]
                listed = [conversation.id async for conversation in bridge.conversations()]
                expect_equal(sorted(made), sorted(set(listed) & set(made)), "the conversations in the list")
                expect_equal(len(set(listed)), len(listed), "the number of conversations in the list")
            if can(Feature.HISTORY) and can(Feature.SEND) and self.remembers(bridge):
                chat = await self.conversation(bridge)
                texts = [f"number {number}" for number in range(self.MANY // 2)]
                spoken = self.stored(bridge, [(text, await chat.send(text)) for text in texts])
                held = [message async for message in chat.messages()]
                expect_equal(spoken, said(held), "a long history")
                last = [message async for message in chat.messages(newest_first=True, limit=3)]
                expect_equal(spoken[:-4:-1], said(last), "the end of a long history, newest first")

    async def check_send(self) -> None:
        """Answer what was sent, as the assistant."""
        async with self.bridge() as bridge:
            if self.claims(
                bridge,
                Feature.SEND,
                lambda: bridge.open("x").send("Hello"),
                lambda: bridge.backend.send("x", Message.user("Hello"), NO_OPTIONS),
            ):
                chat = await self.conversation(bridge)
                for message in ("Hello", Message.user("Hello again")):
                    text = message if isinstance(message, str) else message.text
                    reply = await chat.send(message)
                    expect_equal(Role.ASSISTANT, reply.message.role, "the role of the answer")
                    expect(self.quotes(reply.text, text), f"{reply.text!r} does not answer {text!r}")
                    expect_equal((), reply.warnings, "the warnings of a plain answer")

    async def check_stream(self) -> None:
        """End a stream with exactly one Finished, whose reply is what the events fold into."""
        async with self.bridge() as bridge:
            if self.claims(
                bridge,
                Feature.STREAM,
                lambda: bridge.open("x").stream("Hello").__aenter__(),
                lambda: bridge.backend.stream("x", Message.user("Hello"), NO_OPTIONS),
            ):
                chat = await self.conversation(bridge)
                reply = await self.streamed(chat, "Hello there")
                expect(self.quotes(reply.text, "Hello there"), f"{reply.text!r} answers another")
                async with chat.stream("As text") as stream:
                    shown = "".join([piece async for piece in stream.text()])
                expect_equal(stream.reply.text, shown, "the text that was streamed")
                if bridge.profile.support(Feature.STREAM) is Support.NATIVE:
                    events = bridge.backend.stream(chat.id, Message.user("By the backend"), NO_OPTIONS)
                    self.finished([event async for event in events])

    async def check_attachments(self) -> None:
        """Take a file with a message, and keep it there."""
        message = Message.user([Text("What is this?"), PIXEL])
        async with self.bridge() as bridge:
            if self.claims(
                bridge,
                Feature.ATTACHMENTS,
                lambda: bridge.open("x").send(message),
                lambda: bridge.backend.send("x", message, NO_OPTIONS),
            ):
                for stream in (False, True):
                    chat = await self.conversation(bridge)
                    if stream:
                        async with chat.stream(message) as reading:
                            _ = [event async for event in reading]
                        reply = reading.reply
                    else:
                        reply = await chat.send(message)
                    expect_equal((), reply.warnings, "the warnings of an answer to a file")
                    if bridge.profile.can(Feature.HISTORY):
                        held = [each async for each in chat.messages()]
                        expect(PIXEL in held[0].parts, "the file is not in the history")

    async def check_tools(self) -> None:
        """Call a tool on offer; where the API keeps nothing, take the result and answer again."""
        async with self.bridge() as bridge:
            expect_equal(
                bridge.profile.can(Feature.TOOLS),
                "tools" in bridge.profile.options,
                "tools among the options, as among the features",
            )
            if self.claims(
                bridge,
                Feature.TOOLS,
                lambda: strict(bridge).open("x").send(f"Ask {self.TOOL['name']} please", tools=(self.TOOL,)),
            ):
                options = SendOptions(tools=(self.TOOL,))
                for asked in (self.sent, self.streamed):
                    chat = await self.conversation(bridge)
                    reply = await asked(chat, f"Ask {self.TOOL['name']} please", options)
                    calls = [part for part in reply.message.parts if isinstance(part, ToolCall)]
                    expect_equal(
                        [self.TOOL["name"]], [call.name for call in calls], "the tools that were called"
                    )
                    if bridge.profile.context is ContextOwner.CLIENT:
                        results = Message(Role.TOOL, [ToolResult(call.id, "21 degrees") for call in calls])
                        await asked(chat, results, options)
                        held = [message async for message in chat.messages()]
                        roles = [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]
                        expect_equal(roles, [each.role for each in held], "who spoke around a call of a tool")
                        expect_equal(results.parts, held[2].parts, "the results in the history")

    async def check_references(self) -> None:
        """Give the documents that an answer rests on where they are asked for, streamed or not."""
        async with self.bridge() as bridge:
            if await self._includes(bridge, Feature.REFERENCES):
                chat = await bridge.create(extra=self.about_documents())
                for asked in (self.streamed, self.sent):
                    reply = await asked(chat, "Where is that written?", SendOptions(include="references"))
                    expect(
                        bool(reply.message.references),
                        "there are no references; `about_documents` says how to have some",
                    )
                    expect_equal((), reply.warnings, "the warnings of an answer with references")
                    expect(all(each.document_id for each in reply.message.references), "one has no document")

    async def check_usage(self) -> None:
        """Give what an answer cost where it is asked for; a stream whose API does not tell it says so."""
        async with self.bridge() as bridge:
            if await self._includes(bridge, Feature.USAGE):
                chat = await self.conversation(bridge)
                for asked in (self.streamed, self.sent):
                    reply = await asked(chat, "What does it cost?", SendOptions(include="usage"))
                    if reply.usage is None and asked == self.streamed:
                        warned = any("usage" in each for each in reply.warnings)
                        expect(warned, f"no usage, and no warning names it: {reply.warnings}")
                        continue
                    expect_equal((), reply.warnings, "the warnings of an answer with usage")
                    counts: tuple[float | None, ...] = () if reply.usage is None else astuple(reply.usage)
                    expect(any(count is not None for count in counts), "there is no usage")
                    expect(all(count is None or count >= 0 for count in counts), "a count is below 0")

    async def check_reasoning(self) -> None:
        """Show reasoning as a part of its own, and only where the profile says so."""
        async with self.bridge() as bridge:
            chat, ask = await self.conversation(bridge), self.ask_to_reason()
            if not bridge.profile.can(Feature.REASONING):
                ask = Ask("Think about it.")
            elif ask is None:
                raise NotApplicable("nothing is known that makes it show its reasoning")
            for asked in (self.streamed, self.sent):
                reply = await asked(chat, ask.text, ask.options)
                thought = any(isinstance(part, Reasoning) for part in reply.message.parts)
                expect_equal(bridge.profile.can(Feature.REASONING), thought, "reasoning in the answer")

    async def _includes(self, bridge: Bridge, feature: Feature) -> bool:
        """Say whether *feature* can be included; if not, that is a warning, and strictly an error."""
        what = SendOptions(include=feature.value)
        if self.claims(bridge, feature, lambda: strict(bridge).open("x").send("Hello", what)):
            return True
        reply = await (await self.conversation(bridge)).send("Hello", what)
        expect(any(feature.value in each for each in reply.warnings), f"no warning names {feature.value}")
        return False

    async def _expect_title(self, bridge: Bridge, conversation_id: str, title: str) -> None:
        if bridge.profile.can(Feature.GET):
            read = await bridge.open(conversation_id).refresh()
            expect_equal(title, read.title, "the title that is read")
        if bridge.profile.can(Feature.LIST):
            listed = [each.title async for each in bridge.conversations() if each.id == conversation_id]
            expect_equal([title], listed, "the title that is listed")
