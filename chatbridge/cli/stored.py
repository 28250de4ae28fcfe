"""What a store has, for `conversations` without a URL, `turns` and `settle`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import cast

from attrs import evolve
from rich.table import Table
from rich.text import Text

from chatbridge.bridge import Bridge
from chatbridge.cli.arguments import choice
from chatbridge.cli.chat import tell
from chatbridge.cli.conversations import forgotten
from chatbridge.cli.output import Output, one_line, paragraph
from chatbridge.cli.plain import Json, plain
from chatbridge.cli.stores import Place, account_of, find_chat, first
from chatbridge.errors import ChatbridgeError, StoreError, UsageError
from chatbridge.history import Hit, Remote, Store, StoredConversation
from chatbridge.history.known import is_held
from chatbridge.history.rows import TurnRow
from chatbridge.history.store import words_of
from chatbridge.text import quoted
from chatbridge.turns import Turn

__all__ = ["forget", "list_all", "search", "settle", "snippet", "turns", "waive"]

NO_DOUBT = "Nothing is in doubt."
NO_CONVERSATIONS = "The store has no conversations."
NOT_FOUND = "nothing was found"

MINUTES = "%Y-%m-%d %H:%M"

BEFORE, AROUND = 30, 120
"""How much of a message is shown before the first word that was searched for, and in all."""


async def list_all(place: Place, output: Output, *, limit: int | None, as_json: bool) -> None:
    """Show the conversations of all backends, the last used first."""
    async with place.open() as store:
        found = await first(store.conversations(), limit)
    if as_json:
        return output.json([_conversation(kept) for kept in found])
    if not output.watched:
        for kept in found:
            account, deleted = kept.remote.account or "", "deleted" if kept.deleted else ""
            output.row(
                kept.id, _when(kept), kept.remote.backend, account, str(kept.length), deleted, _title(kept)
            )
        return None if found else output.note(NO_CONVERSATIONS)
    table = _table("id", "used", "messages", "kept by", "title")
    for kept in found:
        mark = " (deleted)" if kept.deleted else ""
        where = f"{kept.remote}{mark}"
        table.add_row(*_cells(kept.id, _when(kept), str(kept.length), where, _title(kept)))
    return output.draw(table if found else Text(NO_CONVERSATIONS))


async def search(place: Place, text: str, output: Output, *, limit: int | None, as_json: bool) -> None:
    """Show the messages that have the words of *text*, and what was said around them."""
    async with place.open() as store:
        hits = await first(store.search(text), limit)
    if as_json:
        return output.json([_hit(hit, text) for hit in hits])
    if not output.watched:
        for hit in hits:
            kept, message = hit.conversation, hit.message
            output.row(kept.id, _when(kept), message.role.value, _marked(snippet(message.text, text)))
        return None if hits else output.note(NOT_FOUND)
    for kept, group in groupby(hits, key=lambda hit: hit.conversation):
        output.draw(
            Text(one_line(f"{kept.id}  {_when(kept)}  {kept.remote}  {_title(kept)}".rstrip()), "cyan")
        )
        for hit in group:
            shown = Text(f"  {hit.message.role.value}: ")
            for piece, is_word in snippet(hit.message.text, text):
                shown.append(one_line(piece), "bold" if is_word else "")
            output.draw(shown)
    return None if hits else output.note(NOT_FOUND)


def snippet(said: str, searched: str) -> list[tuple[str, bool]]:
    """Cut *said* to what is around the words of *searched*, in pieces, with which of them are such words."""
    words = tuple(words_of(searched))
    said = " ".join(said.split())
    places = [word.span() for word in re.finditer(r"[^\W_]+", said) if word[0].lower().startswith(words)]
    start = max((places[0][0] if places else 0) - BEFORE, 0)
    stop = start + AROUND
    pieces: list[tuple[str, bool]] = [("…", False)] if start else []
    for begins, ends in places:
        if ends <= stop:
            pieces += [(said[start:begins], False), (said[begins:ends], True)]
            start = ends
    pieces.append((said[start:stop], False))
    if stop < len(said):
        pieces.append(("…", False))
    return [piece for piece in pieces if piece[0]]


async def turns(
    place: Place, account: Remote | None, output: Output, *, everything: bool, as_json: bool
) -> None:
    """Show the messages that are in doubt, or all, of *account* or of all."""
    async with place.open() as store:
        rows = await store.turns(unsettled=not everything)
        rows = tuple(row for row in rows if everything or not row.turn.waived)
        if account is not None:
            rows = _of(account, rows)
        ids = await _ids(store, rows)
    if as_json:
        return output.json([_turn(row, ids) for row in rows])
    none = "The store has no messages." if everything else NO_DOUBT
    if not output.watched:
        for row in rows:
            remote = row.remote
            output.row(*_told(row), remote.backend, remote.account or "", ids[remote], row.turn.message.text)
        return None if rows else output.note(none)
    table = _table("id", "state", "sent", "kept by", "conversation", "message")
    for row in rows:
        table.add_row(*_cells(*_told(row), str(row.remote), ids[row.remote], quoted(row.turn.message.text)))
    return output.draw(table if rows else Text(none))


async def settle(
    bridge: Bridge,
    conversation_id: str | None,
    output: Output,
    *,
    wait: float | None,
    as_json: bool,
) -> bool:
    """
    Look for the messages that are in doubt; whether none of them stays so.

    Args:
        bridge: Where they went.
        conversation_id: The backend's or the store's id of the conversation to look in; None for all.
        output: Where to say what was found.
        wait: Seconds to look in each conversation.
        as_json: Say it as JSON.
    """
    found: list[TurnRow] = []
    readable = True
    async with bridge:
        rows = [row for row in await _rows(bridge, conversation_id) if not row.turn.waived]
        for remote in dict.fromkeys(row.remote for row in rows):
            try:
                settled = await _settled(bridge, remote, rows, output, wait)
            except UsageError:
                raise
            except ChatbridgeError as error:
                readable = False
                output.note(f"chatbridge: {remote.id}: {paragraph(error)}")
            else:
                found += [TurnRow(remote, turn) for turn in settled]
        ids = await _ids(bridge.store, found)
    if as_json:
        output.json([_turn(row, ids) for row in found])
    elif not rows:
        output.note(NO_DOUBT)
    else:
        for remote, group in groupby(found, key=lambda row: row.remote):
            output.note(f"conversation: {remote.id}")
            for row in group:
                tell(row.turn, output, _doubt(bridge, row.turn))
    return readable and not any(row.turn.blocks for row in found)


async def _settled(
    bridge: Bridge, remote: Remote, rows: Iterable[TurnRow], output: Output, wait: float | None
) -> Sequence[Turn]:
    if not bridge.deliveries.can_settle:
        return [row.turn for row in rows if row.remote == remote]
    with output.waiting(f"reading from {bridge.profile.name}"):
        return await bridge.open(remote.id).settle(wait=wait)


def _doubt(bridge: Bridge, turn: Turn) -> str:
    can_look = bridge.deliveries.can_settle
    why = "" if can_look else f": {bridge.profile.name} cannot tell whether it arrived"
    waiving = choice().command("settle", choice().url, "--waive", turn.id)
    return (
        f"{quoted(turn.message.text)} stays in doubt{why}; to let the next message go all the same: {waiving}"
    )


async def waive(
    bridge: Bridge, conversation_id: str | None, turn_id: str, output: Output, *, as_json: bool
) -> None:
    """
    Let the doubt about a message stand.

    Raises:
        UsageError: The store has no such message of the backend's.
    """
    async with bridge:
        rows = await _rows(bridge, conversation_id, turn_id)
        if not rows:
            raise UsageError(
                f"the store has no message {quoted(turn_id)} to {account_of(bridge)}; "
                f"those that it has: {choice().command('turns', choice().url, '--all')}"
            )
        waived = [evolve(row, turn=await bridge.open(row.remote.id).waive(row.turn)) for row in rows]
        ids = await _ids(bridge.store, waived)
    if as_json:
        return output.json([_turn(row, ids) for row in waived])
    for row in waived:
        left = "is left in doubt, and the next message may go"
        said = left if row.turn.waived else f"blocks nothing: it is {row.turn.state.value}"
        output.note(f"{quoted(row.turn.message.text)} {said}")
    return None


async def forget(place: Place, conversation_id: str, output: Output, *, as_json: bool) -> None:
    """
    Drop what the store has of a conversation, by the store's id.

    Raises:
        UsageError: It has none of this id.
        StoreError: A message to it is under way.
    """
    async with place.open() as store:
        kept = await store.find(conversation_id)
        if kept is None:
            raise UsageError(
                f"the store has no conversation {quoted(conversation_id)}; "
                f"those that it has: {choice().command('conversations')}"
            )
        if is_held(kept):
            raise StoreError(
                f"a message is under way to the conversation {quoted(conversation_id)}: try again after it",
                kind="locked",
            )
        await store.forget(kept.id)
    forgotten(conversation_id, output, as_json=as_json)


async def _rows(bridge: Bridge, conversation_id: str | None, turn_id: str | None = None) -> Sequence[TurnRow]:
    """Give the unsettled turns of the account of *bridge*, or of a conversation of it, or that of one id."""
    unsettled = turn_id is None
    if conversation_id is None:
        return _of(account_of(bridge), await bridge.store.turns(None, turn_id, unsettled=unsettled))
    chat = await find_chat(bridge, conversation_id)
    remote = evolve(account_of(bridge), id=chat.id)
    return await bridge.store.turns(remote, turn_id, unsettled=unsettled)


def _of(account: Remote, rows: Iterable[TurnRow]) -> tuple[TurnRow, ...]:
    return tuple(row for row in rows if evolve(row.remote, id="") == account)


async def _ids(store: Store, rows: Iterable[TurnRow]) -> dict[Remote, str]:
    """Give the store's ids of the conversations of *rows*; none of one that was forgotten meanwhile."""
    found = {remote: await store.find(remote) for remote in dict.fromkeys(row.remote for row in rows)}
    return {remote: "" if kept is None else kept.id for remote, kept in found.items()}


def _marked(pieces: Iterable[tuple[str, bool]]) -> str:
    return "".join(f"[{piece}]" if is_word else piece for piece, is_word in pieces)


def _when(kept: StoredConversation) -> str:
    return "" if kept.used_at is None else f"{kept.used_at:{MINUTES}}"


def _title(kept: StoredConversation) -> str:
    return kept.conversation.title or ""


def _told(row: TurnRow) -> tuple[str, str, str]:
    turn = row.turn
    return turn.id, f"{turn.state.value}{', waived' if turn.waived else ''}", f"{turn.started_at:{MINUTES}}"


def _conversation(kept: StoredConversation) -> dict[str, Json]:
    return {
        "id": kept.id,
        "backend": kept.remote.backend,
        "account": kept.remote.account,
        "remote_id": kept.remote.id,
        "title": kept.conversation.title,
        "messages": kept.length,
        "used_at": plain(kept.used_at),
        "deleted": kept.deleted,
    }


def _hit(hit: Hit, text: str) -> Json:
    return {
        "conversation": _conversation(hit.conversation),
        "message": plain(hit.message),
        "snippet": _marked(snippet(hit.message.text, text)),
    }


def _turn(row: TurnRow, ids: Mapping[Remote, str]) -> Json:
    turn = plain(row.turn)
    where = {
        "backend": row.remote.backend,
        "account": row.remote.account,
        "stored_as": ids[row.remote] or None,
    }
    return {**where, **cast(dict[str, Json], turn)}


def _cells(*cells: str) -> Iterator[Text]:
    return (Text(one_line(cell)) for cell in cells)


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold", style="cyan" if heading == "id" else "")
    return table
