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
from typing import Any

from attrs import define, field, frozen

from chatbridge.http import as_object

Block = Mapping[str, Any]
Turn = tuple[str, Sequence[Block]]

BEGUN = "the history begins with the assistant, so a message of the user's that says '.' was put before it"

_NOT_RUN = "not run"
_RESULT = "_tool_result"
_PLAIN = ("text", "image", "document")  # What nothing before or after it depends on.
_THOUGHTS = ("thinking", "redacted_thinking")
_SERVER_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})
_ODD = re.compile("[^a-zA-Z0-9_-]")


@frozen
class Ordered:
    """
    Turns in an order that the API takes.

    Attributes:
        orphans: The results that were left out, and what is wrong with each.
        waits: Whether a tool of the server's is to go on.
    """

    turns: list[Turn]
    orphans: list[tuple[Block, str]]
    waits: bool


def in_order(turns: Iterable[Turn], warn: Callable[[str], None]) -> Ordered:
    """
    Put *turns* in order, and warn of what has to be left out or added.

    That is with the first answer after it only, as the history stays as it is.
    """
    ordered = _joined(turns)
    orphans: list[tuple[Block, str]] = []
    waits = False
    if not all(
        block.get("type") in _PLAIN and "caller" not in block for _, blocks in ordered for block in blocks
    ):
        whole, waits = _without_half_runs(ordered, warn)
        ordered, orphans = _paired(whole, warn)
    if ordered and ordered[0][0] == "assistant":
        if all(side == "user" for side, _ in ordered[1:]):
            warn(BEGUN)
        ordered.insert(0, ("user", [{"type": "text", "text": "."}]))
    return Ordered(ordered, orphans, waits)


def _paired(turns: Iterable[Turn], warn: Callable[[str], None]) -> tuple[list[Turn], list[tuple[Block, str]]]:
    """Give each call a result, and say which results have no call."""
    pairs = _Pairs()
    ended = [
        (side, without_last_thoughts(blocks) if side == "assistant" else blocks)
        for side, blocks in _joined(turns)
    ]
    for side, blocks in _joined(_without_delays(_joined(ended))):
        if side == "assistant":
            pairs.call(blocks)
        else:
            pairs.answer(blocks)
    pairs.answer([])
    for name in pairs.unanswered:
        warn(f"a call of the tool {name!r} was never answered; the model is told so")
    return _joined(pairs.turns), pairs.orphans


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
    joined: list[tuple[str, list[Block]]] = []
    for side, blocks in turns:
        if joined and joined[-1][0] == side:
            joined[-1][1].extend(blocks)
        elif blocks:
            joined.append((side, list(blocks)))
    return [*joined]


def _without_delays(turns: Sequence[Turn]) -> list[Turn]:
    """Put each late result right behind its call, if that had none yet; those of the last turn stay."""
    kept: list[list[Block]] = [[] for _ in turns]
    waiting: dict[str, int] = {}
    for here, (side, blocks) in enumerate(turns):
        for block in blocks:
            behind = here
            if side == "assistant" and block.get("type") == "tool_use":
                waiting[str(block["id"])] = here + 1
            elif _is_result(block):
                answered = waiting.pop(str(block.get("tool_use_id")), here)
                behind = here if here == len(turns) - 1 else answered
            kept[behind].append(block)
    return [(side, blocks) for (side, _), blocks in zip(turns, kept, strict=True)]


def _without_half_runs(turns: Sequence[Turn], warn: Callable[[str], None]) -> tuple[list[Turn], bool]:
    """Leave out calls of the server's tools and results of them that stand alone; tell if one waits."""
    blocks = [(number, block) for number, (_, said) in enumerate(turns) for block in said]
    runs = _Runs()
    for place, (_, block) in enumerate(blocks):
        runs.take(place, block)
    begin, latest = _goes_on_from(turns), _goes_on_from(turns[:-1])
    waiting = {place for place in runs.without_result if blocks[place][0] >= begin}
    lost = runs.without_result - waiting
    kept: list[list[Block]] = [[] for _ in turns]
    for place, (number, block) in enumerate(blocks):
        why = None
        if _is_server_call(block):
            if runs.callers.get(place) in lost:
                lost.add(place)
            if place in lost:
                why = f"a call of the server's tool {block.get('name')!r}, which has no result"
        elif _is_server_result(block) and place not in runs.calls:
            why = f"a part of the kind {block['type']!r}, whose call is not there"
        if why is not None and number >= latest:
            warn(f"left out of the history: {why}")
        if why is None and runs.calls.get(place) not in lost:
            caller = runs.callers.get(place, place)
            kept[number].append(_freed(block) if caller is None or caller in lost else block)
    return [(side, said) for (side, _), said in zip(turns, kept, strict=True)], bool(waiting - lost)


def _goes_on_from(turns: Sequence[Turn]) -> int:
    """Find the turn from which on the server goes on where it was: the user says only results there."""
    begin = len(turns)
    while begin and (turns[begin - 1][0] == "assistant" or all(map(_is_result, turns[begin - 1][1]))):
        begin -= 1
    return begin


@define
class _Runs:
    """
    Which calls of the server's tools have a result, and from which of them others were made, by their places.

    Attributes:
        calls: The call of each result that has one.
        callers: The call from which a block says that it was made; None for one that is not before it.
    """

    calls: dict[int, int] = field(factory=dict[int, int])
    callers: dict[int, int | None] = field(factory=dict[int, int | None])
    _open: dict[str, list[int]] = field(factory=dict[str, list[int]])
    _last: dict[str, int] = field(factory=dict[str, int])

    def take(self, place: int, block: Block) -> None:
        """Take the block at *place*, the next one. Ids may come again: the nearest call before is meant."""
        caller = as_object(block.get("caller")).get("tool_id")
        if caller is not None:
            self.callers[place] = self._last.get(str(caller))
        if _is_server_call(block):
            self._last[block["id"]] = place
            self._open.setdefault(block["id"], []).append(place)
        elif _is_server_result(block) and self._open.get(block["tool_use_id"]):
            self.calls[place] = self._open[block["tool_use_id"]].pop()

    @property
    def without_result(self) -> set[int]:
        """The calls that have none so far."""
        return {place for places in self._open.values() for place in places}


def _freed(block: Block) -> Block:
    """Let a call not say from which other it was made."""
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
        orphans: Results that answer no call, and why.
        unanswered: The tools whose calls in the assistant's latest turn have no result.
    """

    turns: list[Turn] = field(factory=list[Turn])
    orphans: list[tuple[Block, str]] = field(factory=list[tuple[Block, str]])
    unanswered: list[object] = field(factory=list[object])
    _open: list[_Call] = field(factory=list[_Call])
    _ids: set[str] = field(factory=set[str])
    _counts: dict[str, int] = field(factory=dict[str, int])

    def call(self, blocks: Sequence[Block]) -> None:
        """Take a turn of the assistant's."""
        said: list[Block] = []
        self.unanswered = []
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
        made = [call.id for call in self._open]
        for block in filter(_is_result, blocks):
            call_id = block.get("tool_use_id")
            call = next((call for call in self._open if call.id == call_id), None)
            if call is None:
                why = (
                    "which has a result already"
                    if call_id in made
                    else "which is not in the message before it"
                )
                self.orphans.append((block, f"a result of the call {call_id!r}, {why}"))
            else:
                self._open.remove(call)
                results.append({**block, "tool_use_id": call.sent})
        for call in self._open:
            missing = {"type": "tool_result", "tool_use_id": call.sent, "content": _NOT_RUN}
            results.append({**missing, "is_error": True})
        self.unanswered += [call.name for call in self._open]
        self._open = []
        rest = [block for block in blocks if not _is_result(block)]
        self.turns.append(("user", [*results, *rest]))

    def _new_id(self, told: str) -> str:
        """Give the id of a call as the API takes one: of few kinds of characters, and each once."""
        sent = plain = _ODD.sub("_", told) or "_"
        count = self._counts.get(plain, 1)
        while sent in self._ids:
            count += 1
            sent = f"{plain}_{count}"
        self._counts[plain] = count
        self._ids.add(sent)
        return sent
