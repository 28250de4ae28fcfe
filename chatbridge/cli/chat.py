"""
A conversation at the terminal, or through a pipe.

Lines are read outside of the event loop, which runs for one command or message at a time: so nothing hangs
at the prompt when it is left, and Ctrl-C during an answer leaves only that.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from importlib import import_module
from typing import Any, TypeVar

from attrs import define, field

from chatbridge.backend import Feature
from chatbridge.bridge import Bridge, Chat
from chatbridge.cli.output import Output, paragraph
from chatbridge.domain import Conversation, Reply, Role
from chatbridge.errors import ChatbridgeError, UsageError

__all__ = ["HELP", "Talk", "create", "warn"]

T = TypeVar("T")

HELP = """\
/help          show this
/new [TITLE]   begin another conversation
/list          list the conversations
/open N|ID     go on with one of them: its number in the list, or its id
/title TEXT    give this conversation a title
/quit          leave, as Ctrl-D does; the conversation stays
//TEXT         send a message that begins with '/'
Ctrl-C leaves an answer, or at the prompt the program."""


async def create(bridge: Bridge, output: Output, title: str | None = None) -> Chat:
    """Create a conversation to talk in, and say its id on stderr; none where nothing can be said."""
    bridge.require(Feature.SEND)
    try:
        chat = await bridge.create(title=title)
    except ChatbridgeError as error:
        if error.conversation_id is not None:
            output.note(f"conversation: {error.conversation_id}")
        raise
    output.note(f"conversation: {chat.id}")
    warn(chat.conversation, output)
    return chat


def warn(said: Reply | Conversation, output: Output) -> None:
    """Say on stderr what was not as asked, and whether an answer has no text."""
    for warning in said.warnings:
        output.note(f"warning: {warning}")
    if isinstance(said, Reply) and not said.text:
        output.note("warning: the answer has no text")


def spoken(reply: Reply) -> str:
    """Give the text as the pieces of a stream add up to it."""
    return "".join(message.text for message in reply.messages if message.role is Role.ASSISTANT)


@define
class Talk:
    """
    What `chatbridge chat` does, line by line.

    Attributes:
        bridge: Where the conversations are; it is closed at the end.
        chat: The one that goes on; None until the first message of a pipe.
        listed: What the last `/list` showed.
    """

    bridge: Bridge
    output: Output
    chat: Chat | None = None
    listed: list[Conversation] = field(factory=list[Conversation])

    def run(self, conversation_id: str | None = None) -> None:
        """Go on with *conversation_id* or begin; read lines until the end, piped until the first failure."""
        with asyncio.Runner() as runner:
            try:
                if conversation_id is not None:
                    runner.run(self._open(conversation_id))
                if self.output.interactive:
                    self._greet(runner)
                while (line := self._read()) not in {None, "/quit"}:
                    if line:
                        self._do(runner, self._act(line))
            finally:
                runner.run(self.bridge.close())

    def _greet(self, runner: asyncio.Runner) -> None:
        with suppress(ImportError):
            import_module("readline")  # Where there is one, it gives `input` editing and a history.
        if self.chat is None:
            runner.run(self._new(""))
        self.output.note("Type a message, /help for the commands, /quit to leave.")

    def _read(self) -> str | None:
        """Read a line, without blanks around it; None at the end."""
        try:
            if self.output.interactive:
                return input("> ").strip()
            line = sys.stdin.readline()
            return line.strip() if line else None
        except (EOFError, KeyboardInterrupt) as left:
            if isinstance(left, KeyboardInterrupt) and not self.output.interactive:
                raise
            self.output.write("")
            return None
        except UnicodeError:
            pass
        raise UsageError("what was typed or piped in is not UTF-8")

    def _do(self, runner: asyncio.Runner, action: Coroutine[Any, Any, None]) -> None:
        if not self.output.interactive:
            return runner.run(action)
        try:
            runner.run(action)
        except ChatbridgeError as error:
            self.output.note(paragraph(error))
        except KeyboardInterrupt:
            self.output.write("")
            self.output.note("left; a message that was under way may have arrived")

    def _act(self, line: str) -> Coroutine[Any, Any, None]:
        if line.startswith("//") or not line.startswith("/"):
            return self._say(line.removeprefix("/"))
        command, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
            "/help": self._help,
            "/new": self._new,
            "/list": self._list,
            "/open": self._open,
            "/title": self._title,
        }
        return commands.get(command, self._unknown)(rest.strip() if command in commands else command)

    async def _unknown(self, command: str) -> None:
        raise UsageError(
            f"there is no command {command}: /help shows them, and //... sends a text that begins so"
        )

    async def _help(self, _: str) -> None:
        self.output.write(HELP)

    async def _new(self, title: str) -> None:
        self.chat = await self._waited(create(self.bridge, self.output, title or None))

    async def _list(self, _: str) -> None:
        self.listed = await self._waited(self._conversations())
        for number, conversation in enumerate(self.listed, 1):
            here = self.chat is not None and self.chat.id == conversation.id
            self.output.row(f"{number}{'*' if here else ''}", conversation.id, conversation.title or "")

    async def _conversations(self) -> list[Conversation]:
        return [conversation async for conversation in self.bridge.conversations()]

    async def _open(self, which: str) -> None:
        if not which:
            raise UsageError("say which: /open N or /open ID")
        ids = {str(number): conversation.id for number, conversation in enumerate(self.listed, 1)}
        chat = self.bridge.open(ids.get(which, which))
        if self.bridge.profile.can(Feature.GET):
            await self._waited(chat.refresh())
        self.chat = chat
        self.output.note(f"conversation: {chat.id} {chat.conversation.title or ''}".rstrip())
        warn(chat.conversation, self.output)

    async def _title(self, title: str) -> None:
        if not title:
            raise UsageError("say the title: /title TEXT")
        if self.chat is None:
            raise UsageError("there is no conversation yet: /new TITLE begins one")
        conversation = await self._waited(self.chat.rename(title))
        self.output.note(f"title: {conversation.title or title}")
        warn(conversation, self.output)

    async def _say(self, text: str) -> None:
        if self.chat is None:
            self.chat = await self._waited(create(self.bridge, self.output))
        shown = ""
        with self.output.waiting(f"waiting for {self.bridge.profile.name}") as waiting:
            try:
                async with self.chat.stream(text) as stream:
                    async for piece in stream.text():
                        waiting.done()
                        shown += piece
                        self.output.write(piece, end="")
            finally:
                if shown:
                    self.output.write("")
        reply = stream.reply
        warn(reply, self.output)
        if shown != spoken(reply):  # It was taken back, as a warning has said.
            self.output.write(reply.text)

    async def _waited(self, call: Awaitable[T]) -> T:
        with self.output.waiting(f"waiting for {self.bridge.profile.name}"):
            return await call
