"""
A conversation at the terminal, or through a pipe.

Lines are read outside of the event loop, which runs for one command or message at a time: so nothing hangs
at the prompt when it is left, and Ctrl-C during an answer leaves only that.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from typing import Any, TypeVar

from attrs import define, field

from chatbridge.backend import Feature, Profile, SettleBy
from chatbridge.bridge import Bridge
from chatbridge.chat import Chat
from chatbridge.cli.arguments import choice
from chatbridge.cli.output import Output, paragraph
from chatbridge.cli.stores import account_of, find_chat, last_used
from chatbridge.completing import is_kept_here
from chatbridge.domain import Conversation, Message, Reply, Role
from chatbridge.errors import ChatbridgeError, Outcome, StoreError, UnsettledTurn, UsageError
from chatbridge.text import quoted
from chatbridge.turns import Turn, TurnState

__all__ = ["HELP", "Talk", "advised", "after", "create", "cure", "first_in", "tell", "warn"]

T = TypeVar("T")

HELP = """\
/help          show this
/new [TITLE]   begin another conversation
/list          list the conversations
/open N|ID     go on with one of them: its number in the list, or an id
/title TEXT    give this conversation a title
/settle        look again for messages and answers that were lost on the way
/waive         leave in doubt whether it arrived, so that the next message may go
/quit          leave, as Ctrl-D does; the conversation stays
//TEXT         send a message that begins with '/'
Ctrl-C leaves an answer, or at the prompt the program."""

RECALLED = 10
"""How many lines show how a conversation ended."""

_FOUND = {
    TurnState.ACCEPTED: "arrived, and there is no answer to it",
    TurnState.NOT_SENT: "did not arrive",
}
"""What is said of a message whose answer was not found; of others, that it may have arrived."""


async def create(bridge: Bridge, output: Output, title: str | None = None) -> Chat:
    """Create a conversation to talk in, and say its id on stderr; none where nothing can be said."""
    bridge.require(Feature.SEND)
    try:
        chat = await bridge.create(title=title)
    except ChatbridgeError as error:
        if error.conversation_id is not None:
            output.note(f"conversation: {error.conversation_id}")
            error.add_note(created(error.conversation_id))
        raise
    output.note(f"conversation: {chat.id}")
    return chat


def created(conversation_id: str) -> str:
    """Say that a conversation is there."""
    return f"the conversation {conversation_id} was created"


@contextmanager
def after(what: str) -> Generator[None]:
    """Let an error tell *what* was done before."""
    try:
        yield
    except ChatbridgeError as error:
        error.add_note(what)
        raise


@asynccontextmanager
async def first_in(chat: Chat, output: Output) -> AsyncGenerator[None]:
    """
    Let an error tell that *chat* was created just before, and warn of it, but for what the error says.

    One that the store alone has is removed again where its first message certainly did not arrive.
    """
    told: str | None = None
    try:
        yield
    except ChatbridgeError as error:
        told = str(error)
        in_vain = error.outcome in {Outcome.NOT_SENT, Outcome.REFUSED}
        removed = in_vain and is_kept_here(chat.bridge.profile) and await _removed(chat)
        gone = f"the conversation {chat.id} was removed again, as nothing was said in it"
        error.add_note(gone if removed else created(chat.id))
        raise
    finally:
        warn(chat.conversation, output, but=told)


async def _removed(chat: Chat) -> bool:
    try:
        await chat.delete()
    except ChatbridgeError:  # What went wrong before is told.
        return False
    return True


@contextmanager
def advised(profile: Profile) -> Generator[None]:
    """Let the error of a message that another one blocks say what to do about that one."""
    try:
        yield
    except UnsettledTurn as error:
        if error.turn is None:
            raise
        problem = f"not sent: {quoted(error.turn.message.text)} is in doubt, and blocks what follows it"
        raise UsageError(f"{problem}; {cure(profile, error.turn)}") from error


def cure(profile: Profile, turn: Turn) -> str:
    """Say which commands end the doubt about *turn*."""
    chosen = choice()
    waiving = chosen.command("settle", chosen.url, "--waive", turn.id)
    let_go = f"to let the next message go all the same: {waiving}"
    if SettleBy.READ_BACK not in profile.settle_by:
        return f"{profile.name} cannot tell whether it arrived; {let_go}"
    return f"to look for it: {chosen.command('settle', chosen.url, turn.conversation_id)}; {let_go}"


def warn(said: Reply | Conversation, output: Output, *, but: str | None = None) -> None:
    """Say on stderr what was not as asked, unless it tells of *but*, and whether an answer has no text."""
    for warning in said.warnings:
        if but is None or but not in warning:
            output.note(f"warning: {warning}")
    if isinstance(said, Reply) and not said.text:
        output.note("warning: the answer has no text")


def tell(turn: Turn, output: Output, doubt: str) -> None:
    """Say what became of a message that was looked for: the answer on stdout, or *doubt* if it blocks."""
    message = quoted(turn.message.text)
    if turn.reply is not None:
        output.note(f"{message} was answered:")
        output.write(turn.reply.text)
        warn(turn.reply, output)
    elif turn.blocks:
        output.note(doubt)
    else:
        output.note(f"{message} {_FOUND.get(turn.state, 'may have arrived')}")


def _lines(message: Message) -> list[str]:
    """Show a message as it is seen in a conversation at a terminal."""
    lines = message.text.splitlines()
    return [f"> {line}" for line in lines] if message.role is Role.USER else lines


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

    def run(self, conversation_id: str | None = None, *, go_on: bool = False) -> None:
        """
        Go on with a conversation or begin; read lines until the end, piped until the first failure.

        Args:
            conversation_id: The one to go on with.
            go_on: Go on with the last used; at a terminal, show first how it ended, and what is in doubt.
        """
        with asyncio.Runner() as runner:
            try:
                if go_on:
                    runner.run(self._go_on())
                elif conversation_id is not None:
                    runner.run(self._open(conversation_id))
                if self.output.interactive:
                    self._greet(runner)
                while (line := self._read()) not in {None, "/quit"}:
                    if line:
                        self._do(runner, self._act(line))
            finally:
                runner.run(self.bridge.close())

    async def _go_on(self) -> None:
        store = self.bridge.store
        kept = await last_used(store, account_of(self.bridge))
        await self._open(kept.id)
        if self.output.interactive:
            newest = [each async for each in store.messages(kept.id, limit=RECALLED, newest_first=True)]
            lines = [line for message in reversed(newest) for line in _lines(message)]
            for line in lines[-RECALLED:]:
                self.output.write(line)
            for turn in await self._in_doubt():
                self.output.note(self._doubt(turn))

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
            with advised(self.bridge.profile):
                return runner.run(action)
        try:
            runner.run(action)
        except ChatbridgeError as error:
            self.output.note(self._explained(error))
        except KeyboardInterrupt:
            self.output.write("")
            doubts = [self._doubt(turn) for turn in runner.run(self._in_doubt())]
            self.output.note(f"left; {doubts[-1] if doubts else 'what was under way may have been done'}")

    def _explained(self, error: ChatbridgeError) -> str:
        """Say what went wrong, and of a message in doubt what can be done."""
        if error.turn is None or not error.turn.blocks:
            return paragraph(error)
        doubt = self._doubt(error.turn)
        if isinstance(error, UnsettledTurn):
            return f"not sent: {doubt}"
        return f"{paragraph(error).rstrip('.')}. {doubt}"

    def _doubt(self, turn: Turn) -> str:
        name = self.bridge.profile.name
        look = "/settle looks for it again" if self._can_look else f"{name} cannot tell whether it arrived"
        return f"{quoted(turn.message.text)} is in doubt: {look}, /waive lets the next message go"

    @property
    def _can_look(self) -> bool:
        return self.bridge.deliveries.can_settle

    async def _in_doubt(self) -> list[Turn]:
        turns = () if self.chat is None else await self.chat.turns()
        return [turn for turn in turns if turn.blocks]

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
            "/settle": self._settle,
            "/waive": self._waive,
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
        warn(self.chat.conversation, self.output)

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
        chat = await find_chat(self.bridge, ids.get(which, which))
        if self.bridge.backend.profile.can(Feature.GET):
            await self._waited(chat.refresh())
        self.chat = chat
        self.output.note(f"conversation: {chat.id} {chat.conversation.title or ''}".rstrip())
        warn(chat.conversation, self.output)

    async def _title(self, title: str) -> None:
        if not title:
            raise UsageError("say the title: /title TEXT")
        conversation = await self._waited(self._here().rename(title))
        self.output.note(f"title: {conversation.title or title}")
        warn(conversation, self.output)

    def _here(self) -> Chat:
        if self.chat is None:
            raise UsageError("there is no conversation yet: /new TITLE begins one")
        return self.chat

    async def _settle(self, _: str) -> None:
        if not self._can_look:
            name = self.bridge.profile.name
            raise UsageError(f"{name} cannot tell what arrived; /waive lets the next message go all the same")
        turns = await self._waited(self._here().settle())
        for turn in turns:
            tell(turn, self.output, self._doubt(turn))
        if not turns:
            self.output.note("there is nothing to look for")

    async def _waive(self, _: str) -> None:
        chat, turns = self._here(), await self._in_doubt()
        for turn in turns:
            await chat.waive(turn)
            self.output.note(f"{quoted(turn.message.text)} is left in doubt, and the next message may go")
        if not turns:
            self.output.note("nothing is in doubt")

    async def _say(self, text: str) -> None:
        if self.chat is not None:
            return await self._answer(self.chat, text)
        self.chat = await self._waited(create(self.bridge, self.output))
        async with first_in(self.chat, self.output):
            return await self._answer(self.chat, text)

    async def _answer(self, chat: Chat, text: str) -> None:
        shown, unstored = "", None
        with self.output.waiting(f"waiting for {self.bridge.profile.name}") as waiting:
            try:
                async with chat.stream(text) as stream:
                    async for piece in stream.text():
                        waiting.done()
                        shown += piece
                        self.output.write(piece, end="")
                reply = stream.reply
            except StoreError as error:
                if error.reply is None:
                    raise
                reply, unstored = error.reply, error
            finally:
                if shown:
                    self.output.write("")
        warn(reply, self.output)
        if shown != spoken(reply):  # It was taken back, as a warning has said.
            self.output.write(reply.text)
        if unstored is not None:
            raise unstored

    async def _waited(self, call: Awaitable[T]) -> T:
        with self.output.waiting(f"waiting for {self.bridge.profile.name}"):
            return await call
