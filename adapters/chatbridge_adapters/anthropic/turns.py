"""
The order of a conversation that Anthropic's Messages API takes.

Source: its documentation ("Tool use", "Stop reasons and fallback"), and the words in which it refuses others.
The user begins, and both sides take turns. What a tool gave stands in the turn after its call, before all
else; each call has a result there, and each result its call. A tool that the server runs has its result in
the assistant's turns; it may come later than the call only if the user says nothing but results meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from attrs import define, field, frozen

from chatbridge.http import as_object

Block = Mapping[str, Any]
Turn = tuple[str, Sequence[Block]]

BEGUN = "the history begins with the assistant, so a message of the user's that says '.' was put before it"

_NOT_RUN = "not run"
_RESULT = "_tool_result"
_THOUGHTS = ("thinking", "redacted_thinking")
_SERVER_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})
_ODD = re.compile("[^a-zA-Z0-9_-]")


@frozen
class Ordered:
    """
    Turns in an order that the API takes.

    Attributes:
        orphans: The results that were left out, as their call is not in the turn before.
        waits: Whether a tool of the server's is to go on.
    """

    turns: list[Turn]
    orphans: list[Block]
    waits: bool


def in_order(turns: Iterable[Turn], warn: Callable[[str], None]) -> Ordered:
    """Put *turns* in order, and warn of what has to be left out or added."""
    whole, waits = _without_half_runs(_joined(turns), warn)
    pairs = _Pairs(warn)
    ended = [
        (side, without_last_thoughts(blocks) if side == "assistant" else blocks)
        for side, blocks in _joined(whole)
    ]
    for side, blocks in _joined(ended):
        if side == "assistant":
            pairs.call(blocks)
        else:
            pairs.answer(blocks)
    pairs.answer([])
    ordered = _joined(pairs.turns)
    if ordered and ordered[0][0] == "assistant":
        warn(BEGUN)
        ordered.insert(0, ("user", [{"type": "text", "text": "."}]))
    return Ordered(ordered, pairs.orphans, waits)


def without_last_thoughts(blocks: Sequence[Block]) -> Sequence[Block]:
    """Leave out the thoughts that *blocks* of the assistant's end with, as nothing came of them."""
    end = len(blocks)
    while end and is_thought(blocks[end - 1]):
        end -= 1
    return blocks[:end]


def is_thought(block: Block) -> bool:
    """Tell whether *block* is a thought, shown or hidden."""
    return block.get("type") in _THOUGHTS


def _joined(turns: Iterable[Turn]) -> list[Turn]:
    """Make the turns that a side has in a row one; leave out those in which nothing is said."""
    said = ((side, block) for side, blocks in turns for block in blocks)
    joined: list[Turn] = []
    for side, together in groupby(said, key=lambda each: each[0]):
        joined.append((side, [block for _, block in together]))
    return joined


def _without_half_runs(turns: Sequence[Turn], warn: Callable[[str], None]) -> tuple[list[Turn], bool]:
    """Leave out calls of the server's tools and results of them that stand alone; tell if one waits."""
    begin = len(turns)  # From there on, the server goes on where it was.
    while begin and (turns[begin - 1][0] == "assistant" or all(map(_is_result, turns[begin - 1][1]))):
        begin -= 1
    calls = {call["id"]: call for call in _said_by_server(turns, _is_server_call)}
    results = {result["tool_use_id"] for result in _said_by_server(turns, _is_server_result)}
    waiting = {call["id"] for call in _said_by_server(turns[begin:], _is_server_call)} - results
    lost = calls.keys() - results - waiting
    lost |= {call_id for call_id, call in calls.items() if _caller(call) in lost}

    def is_whole(block: Block) -> bool:
        if _is_server_call(block) and block["id"] in lost:
            name = block.get("name")
            warn(f"left out of the history: a call of the server's tool {name!r}, which has no result")
            return False
        if _is_server_result(block) and block["tool_use_id"] not in calls:
            warn(f"left out of the history: a part of the kind {block['type']!r}, whose call is not there")
        return not _is_server_result(block) or block["tool_use_id"] in calls.keys() - lost

    kept = [(side, [_freed(block, lost) for block in blocks if is_whole(block)]) for side, blocks in turns]
    return [*kept], bool(waiting)


def _said_by_server(turns: Iterable[Turn], kind: Callable[[Block], bool]) -> Iterator[Block]:
    return (block for _, blocks in turns for block in blocks if kind(block))


def _caller(block: Block) -> str:
    """Tell from which call of the server's tools a call was made."""
    return str(as_object(block.get("caller")).get("tool_id"))


def _freed(block: Block, lost: set[str]) -> Block:
    """Let a call not say that it comes from one that is left out."""
    if _caller(block) not in lost:
        return block
    return {name: value for name, value in block.items() if name != "caller"}


def _is_result(block: Block) -> bool:
    return block.get("type") == "tool_result"


def _is_server_call(block: Block) -> bool:
    return str(block.get("type")) in _SERVER_CALLS and isinstance(block.get("id"), str)


def _is_server_result(block: Block) -> bool:
    return str(block.get("type")).endswith(_RESULT) and isinstance(block.get("tool_use_id"), str)


@frozen
class _Call:
    """A call of a tool, with the id that the program knows, and the one that is sent."""

    id: object
    sent: str
    name: object


@define
class _Pairs:
    """
    Puts calls and results together.

    Attributes:
        turns: What there is so far.
        orphans: Results whose call is not in the turn before.
    """

    warn: Callable[[str], None]
    turns: list[Turn] = field(factory=list[Turn])
    orphans: list[Block] = field(factory=list[Block])
    _open: list[_Call] = field(factory=list[_Call])
    _ids: set[str] = field(factory=set[str])

    def call(self, blocks: Sequence[Block]) -> None:
        """Take a turn of the assistant's."""
        said: list[Block] = []
        for block in blocks:
            if block.get("type") == "tool_use":
                call = _Call(block["id"], self._new_id(str(block["id"])), block["name"])
                self._open.append(call)
                said.append({**block, "id": call.sent})
            else:
                said.append(block)
        self.turns.append(("assistant", said))

    def answer(self, blocks: Sequence[Block]) -> None:
        """Take a turn of the user's: results first, also of the calls that have none."""
        results: list[Block] = []
        for block in filter(_is_result, blocks):
            call = next((call for call in self._open if call.id == block.get("tool_use_id")), None)
            if call is None:
                self.orphans.append(block)
            else:
                self._open.remove(call)
                results.append({**block, "tool_use_id": call.sent})
        for call in self._open:
            self.warn(f"a call of the tool {call.name!r} was never answered; the model is told so")
            missing = {"type": "tool_result", "tool_use_id": call.sent, "content": _NOT_RUN}
            results.append({**missing, "is_error": True})
        self._open = []
        rest = [block for block in blocks if not _is_result(block)]
        self.turns.append(("user", [*results, *rest]))

    def _new_id(self, told: str) -> str:
        """Give the id of a call as the API takes one: of few kinds of characters, and each once."""
        plain = _ODD.sub("_", told) or "_"
        sent, count = plain, 1
        while sent in self._ids:
            count += 1
            sent = f"{plain}_{count}"
        self._ids.add(sent)
        return sent
