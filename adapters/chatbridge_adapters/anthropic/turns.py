"""
The order of a conversation that Anthropic's Messages API takes.

Source: its documentation ("Tool use", "Stop reasons and fallback"), and the words in which it refuses others.
The user begins, and both sides take turns. What a tool gave stands in the turn after its call, before all
else; each call has a result there, and each result its call. A tool that the server runs has its result in
the assistant's turns; it may come later than the call only if the user says nothing but results meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from attrs import define, field, frozen

from chatbridge.http import as_object

Block = Mapping[str, Any]
Turn = tuple[str, Sequence[Block]]

BEGUN = "the history begins with the assistant, so a message of the user's that says '.' was put before it"

_NOT_RUN = "not run"
_RESULT = "_tool_result"
_SERVER_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})
_ODD = re.compile("[^a-zA-Z0-9_-]")


def in_order(turns: Iterable[Turn], warn: Callable[[str], None]) -> tuple[list[Turn], list[Block]]:
    """Put *turns* in order, and give beside them the results whose call is not in the turn before."""
    pairs = _Pairs(warn)
    for side, blocks in _joined(_without_half_runs(_joined(turns), warn)):
        if side == "assistant":
            pairs.call(blocks)
        else:
            pairs.answer(blocks)
    pairs.answer([])
    ordered = _joined(pairs.turns)
    if ordered and ordered[0][0] == "assistant":
        warn(BEGUN)
        ordered.insert(0, ("user", [{"type": "text", "text": "."}]))
    return ordered, pairs.orphans


def _joined(turns: Iterable[Turn]) -> list[Turn]:
    """Make the turns that a side has in a row one; leave out those in which nothing is said."""
    said = ((side, block) for side, blocks in turns for block in blocks)
    joined: list[Turn] = []
    for side, together in groupby(said, key=lambda each: each[0]):
        joined.append((side, [block for _, block in together]))
    return joined


def _without_half_runs(turns: Sequence[Turn], warn: Callable[[str], None]) -> list[Turn]:
    """Leave out calls of the server's tools without a result, and results without a call."""
    blocks = [block for side, blocks in turns if side == "assistant" for block in blocks]
    called = {str(block["id"]) for block in blocks if _is_server_call(block)}
    resulted = {str(block["tool_use_id"]) for block in blocks if _is_server_result(block)}
    waiting = len(turns)  # From there on, the server goes on where it was.
    while waiting and (turns[waiting - 1][0] == "assistant" or all(map(_is_result, turns[waiting - 1][1]))):
        waiting -= 1

    kept: list[Turn] = []
    for number, (side, told) in enumerate(turns):
        if side == "user":
            kept.append((side, told))
            continue
        lost = called - resulted if number < waiting else set[str]()
        said: list[Block] = []
        for block in told:
            if _is_server_call(block) and block["id"] in lost:
                name = block.get("name")
                warn(f"left out of the history: a call of the server's tool {name!r}, which has no result")
            elif _is_server_result(block) and block["tool_use_id"] not in called:
                warn(
                    f"left out of the history: a part of the kind {block['type']!r}, whose call is not there"
                )
            else:
                said.append(_freed(block, lost))
        kept.append((side, said))
    return kept


def _freed(block: Block, lost: set[str]) -> Block:
    """Let a call not say that it comes from one that is left out."""
    if str(as_object(block.get("caller")).get("tool_id")) in lost:
        return {name: value for name, value in block.items() if name != "caller"}
    return block


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
