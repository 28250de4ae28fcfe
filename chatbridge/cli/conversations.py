"""`chatbridge conversations`: what a backend keeps, listed, shown, renamed, deleted and forgotten."""

from __future__ import annotations

from attrs import evolve
from rich.table import Table
from rich.text import Text

from chatbridge.backend import Feature
from chatbridge.bridge import Bridge
from chatbridge.cli.arguments import choice
from chatbridge.cli.chat import warn
from chatbridge.cli.output import Output, one_line
from chatbridge.cli.plain import kind_of, plain, time_text
from chatbridge.cli.stores import account_of, find_chat, first
from chatbridge.domain import Conversation, Message
from chatbridge.domain import Text as TextPart
from chatbridge.errors import UnsupportedFeature, UsageError
from chatbridge.text import quoted

__all__ = ["delete", "forget", "forgotten", "list_all", "rename", "show"]


async def list_all(bridge: Bridge, output: Output, *, limit: int | None = None, as_json: bool) -> None:
    """Show all conversations; a table for people, lines of id, time and title for pipes."""
    async with bridge:
        with output.waiting(f"reading from {bridge.profile.name}"):
            found = await first(bridge.conversations(), limit)
    _note_filled(bridge, Feature.LIST, output)
    if as_json:
        return output.json(plain(found))
    for conversation in found:
        warn(conversation, output)
    if not output.watched:
        for conversation in found:
            output.row(*_cells(conversation))
        return None
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("id", overflow="fold", style="cyan")
    table.add_column("updated", no_wrap=True)
    table.add_column("title", overflow="fold")
    for conversation in found:
        table.add_row(*(Text(one_line(cell)) for cell in _cells(conversation)))
    return output.draw(table if found else Text("There are no conversations."))


def _note_filled(bridge: Bridge, feature: Feature, output: Output) -> None:
    """Say what *feature* holds, where the API does not have it."""
    if feature in bridge.filling.features:
        output.note(
            f"{bridge.profile.name} tells no {feature.value}: this is {bridge.profile.instead[feature]}"
        )


def _cells(conversation: Conversation) -> tuple[str, str, str]:
    moment = conversation.updated_at or conversation.created_at
    when = "" if moment is None else moment.strftime("%Y-%m-%d %H:%M")
    return conversation.id, when, conversation.title or ""


async def show(bridge: Bridge, conversation_id: str, output: Output, *, as_json: bool) -> None:
    """Show a conversation, and its messages where the backend shows them."""
    messages: list[Message] | None = None
    async with bridge:
        with output.waiting(f"reading from {bridge.profile.name}"):
            chat = await find_chat(bridge, conversation_id)
            if bridge.backend.profile.can(Feature.GET) or not bridge.profile.can(Feature.HISTORY):
                await chat.refresh()
            if bridge.profile.can(Feature.HISTORY):
                messages = [message async for message in chat.messages()]
    if as_json:
        document = plain(chat.conversation)
        return output.json({"conversation": document, "messages": plain(messages)})
    _show_fields(chat.conversation, output)
    warn(chat.conversation, output)
    if messages is None:
        return output.note(str(bridge.profile.unsupported(Feature.HISTORY)))
    _note_filled(bridge, Feature.HISTORY, output)
    for message in messages:
        _show_message(message, output)
    return None


def _show_fields(conversation: Conversation, output: Output) -> None:
    fields = {
        "id": conversation.id,
        "title": conversation.title,
        "system": conversation.system,
        "created": conversation.created_at and time_text(conversation.created_at),
        "updated": conversation.updated_at and time_text(conversation.updated_at),
        **conversation.extra,
    }
    for name, value in fields.items():
        if value is not None:
            output.write(one_line(f"{name}: {value}"))


def _show_message(message: Message, output: Output) -> None:
    when = "" if message.created_at is None else f", {time_text(message.created_at)}"
    author = "" if message.author is None else f" {message.author}"
    output.write("\n" + one_line(f"{message.role.value}{author}{when}"))
    if message.text:
        output.write(message.text)
    for part in message.parts:
        if not isinstance(part, TextPart):
            output.write(f"[{kind_of(part)}]")
    for reference in message.references:
        output.write(one_line(f"[reference: {reference.title or reference.document_id}]"))


async def rename(bridge: Bridge, conversation_id: str, title: str, output: Output, *, as_json: bool) -> None:
    """Give a conversation another title."""
    async with bridge:
        with output.waiting(f"waiting for {bridge.profile.name}"):
            conversation = await (await find_chat(bridge, conversation_id)).rename(title)
    if as_json:
        return output.json(plain(conversation))
    warn(conversation, output)
    return output.row(conversation.id, conversation.title or "")


async def delete(bridge: Bridge, conversation_id: str, output: Output, *, as_json: bool) -> None:
    """Delete a conversation."""
    async with bridge:
        with output.waiting(f"waiting for {bridge.profile.name}"):
            try:
                await (await find_chat(bridge, conversation_id)).delete()
            except UnsupportedFeature as error:
                error.add_note(f"here that is '{choice().command(*_forgetting(conversation_id))}'")
                raise
    if as_json:
        return output.json({"id": conversation_id, "deleted": True})
    return output.note(f"deleted: {conversation_id}")


def _forgetting(conversation_id: str) -> tuple[str, ...]:
    return "conversations", choice().url, "forget", conversation_id


async def forget(bridge: Bridge, conversation_id: str, output: Output, *, as_json: bool) -> None:
    """
    Drop what the store has of a conversation, once nothing is under way to it.

    Raises:
        UsageError: The store has none of this id of the backend's.
    """
    async with bridge:
        chat = await find_chat(bridge, conversation_id)
        account = account_of(bridge)
        if await bridge.store.find(evolve(account, id=chat.id)) is None:
            raise UsageError(
                f"the store has no conversation {quoted(conversation_id)} of {account}; "
                f"those that it has: {choice().command('conversations')}"
            )
        await chat.forget()
    return forgotten(conversation_id, output, as_json=as_json)


def forgotten(conversation_id: str, output: Output, *, as_json: bool) -> None:
    """Say that the store has dropped a conversation."""
    if as_json:
        return output.json({"id": conversation_id, "forgotten": True})
    return output.note(f"forgotten: {conversation_id}")
