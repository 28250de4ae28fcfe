"""
An answer of Anthropic's Messages API, put together from a stream or taken whole.

Sources: as in `wire`. Both ways lead through the blocks of the answer as the API has them, so that both make
the same reply, and a paused answer can be given back as it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from attrs import define, field

from chatbridge.domain import (
    Message,
    Opaque,
    Part,
    PartAdded,
    Progress,
    Reasoning,
    ReasoningDelta,
    Reply,
    Role,
    Started,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    Usage,
)
from chatbridge.http import (
    CUT_SHORT,
    BrokenContent,
    Mender,
    Raw,
    TextFold,
    as_object,
    beyond,
    loads,
    unread_warning,
)
from chatbridge_adapters.anthropic.messages import OF, SIGNED_BY, UNREAD, container_of, known_by, sign, signer
from chatbridge_adapters.anthropic.turns import without_last_thoughts
from chatbridge_adapters.anthropic.wire import HOST, NAME, Event, beside_usage, to_finish_reason, to_usage

PAUSED = "pause_turn"
LOST = "the server sent pieces that belong to no part of the answer"
SILENT = "the server paused the answer before anything was said, so it could not go on"
UNENDED = "the server did not say why the answer ended"

_KNOWN: Mapping[type[Part], tuple[str, ...]] = {
    Text: ("text",),
    Reasoning: ("thinking", "signature"),
    ToolCall: ("id", "name", "input"),
}
# What a block is whose beginning did not come, by its pieces.
_BEGUN: Mapping[str, Raw] = {
    "text_delta": {"type": "text", "text": ""},
    "thinking_delta": {"type": "thinking", "thinking": "", "signature": ""},
}


@define(eq=False)
class _BlockFold:
    """
    One block of an answer, whose pieces arrive.

    Attributes:
        block: What is known of it, in the API's form.
        unknown: Pieces of kinds that are new.
        whole: Whether it is no call that the end of a run cut off.
    """

    block: dict[str, Any]
    index: int
    mended: Mender
    host: str
    unknown: list[Raw] = field(init=False, factory=list[Raw])
    whole: bool = field(init=False, default=True)
    _text: TextFold = field(init=False)
    _json: list[str] = field(init=False, factory=list[str])

    def __attrs_post_init__(self) -> None:
        self._text = TextFold(self.index)

    @property
    def key(self) -> str | None:
        """Which of its fields is told piece by piece, as text."""
        kind = _text(self.block.get("type"))
        return kind if kind in {"text", "thinking"} and isinstance(self.block.get(kind, ""), str) else None

    @property
    def is_bare(self) -> bool:
        """Whether it is a call of which no argument has come."""
        given = f"{self.block.get('input') or ''}{''.join(self._json)}"
        return self.block.get("type") == "tool_use" and not given.strip()

    @property
    def warnings(self) -> list[str]:
        """What had to be mended."""
        return self._text.warnings

    def begin(self) -> Iterator[StreamEvent]:
        """Tell what the block begins with."""
        if self.key is not None:
            yield from self._shown(self._text.add(self.block.get(self.key, "")))

    def take(self, delta: Raw) -> Iterator[StreamEvent]:
        """Take what comes next, and tell what it adds."""
        match delta:
            case {"type": "text_delta", "text": str(piece)} if self.key == "text":
                yield from self._text.add(piece)
            case {"type": "thinking_delta", "thinking": str(piece)} if self.key == "thinking":
                yield from self._shown(self._text.add(piece))
            case {"type": "input_json_delta", "partial_json": str(piece)}:
                self._json.append(piece)
            case {"type": "signature_delta", "signature": str(signature)}:
                self.block["signature"] = signature
            case {"type": "citations_delta", "citation": citation} if isinstance(
                told := self.block.get("citations") or [], list
            ):
                self.block["citations"] = [*told, citation]
            case _:
                self.unknown.append(delta)

    def end(self, *, whole: bool = True) -> Iterator[StreamEvent]:
        """End the block; a call that is not *whole* is none that can be run."""
        if self.key is not None:
            yield from self._shown(self._text.finish())
            self.block[self.key] = self._text.shown
        self.whole = whole
        self._end_json()
        self.block, self.unknown = self.mended(self.block), self.mended(self.unknown)
        part = to_part(self.block, self.host)
        if part is not None and not isinstance(part, Text):
            yield PartAdded(part, self.index)

    def _end_json(self) -> None:
        given: object = self.block.get("input")
        text = self.mended("".join(self._json)) or (given if isinstance(given, str) else "")
        if self.block.get("type") == "tool_use" and not self.whole:
            self._keep_unread(text)
            return
        if not text.strip():
            if self.block.get("type") == "tool_use" and (given is None or isinstance(given, str)):
                self.block["input"] = {}
            return
        with suppress(BrokenContent):
            arguments: object = loads(text.encode())
            if isinstance(arguments, dict):
                self.block["input"] = arguments
                return
        self._keep_unread(text)

    def _keep_unread(self, text: str) -> None:
        self.block.pop("input", None)
        self.block[UNREAD] = text

    def _shown(self, events: list[StreamEvent]) -> Iterator[StreamEvent]:
        thought = self.key == "thinking"
        for event in events:
            if thought and isinstance(event, TextDelta):
                yield ReasoningDelta(event.text, event.index)
            else:
                yield event


def to_part(block: Raw, host: str = HOST) -> Part | None:
    """Say a block in ours; None for a text that is empty."""
    match block:
        case {"type": "text", "text": str(text)}:
            return Text(text) if text else None
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)} if signature:
            return Reasoning(text, sign(signature, host))
        case {"type": "thinking", "thinking": str(text)} if not block.get("signature"):
            return Reasoning(text)
        case {"type": "tool_use", "id": str(call_id), "name": str(name), "input": arguments} if isinstance(
            arguments, Mapping
        ):
            return ToolCall(call_id, name, cast(Raw, arguments))
        case {"type": "redacted_thinking"} if host != HOST:
            return Opaque(NAME, "redacted_thinking", {**block, SIGNED_BY: signer(host)})
        case _:
            return Opaque(NAME, str(block.get("type")), dict(block))


@define
class _Run:
    """What one request gave: its id, and what it cost."""

    id: str | None = None
    usage: dict[str, Any] = field(factory=dict[str, Any])


@define
class AnswerFold:
    """
    An answer, in one or several runs: a paused one goes on in another, whose blocks follow.

    Attributes:
        warnings: What had to be mended, or was not as it should be.
        host: Where it comes from, and its thoughts are signed.
    """

    warnings: list[str] = field(factory=list[str])
    host: str = HOST
    _runs: list[_Run] = field(factory=lambda: [_Run()])
    _blocks: list[_BlockFold] = field(factory=list[_BlockFold])
    _open: dict[int | None, _BlockFold] = field(factory=dict[int | None, _BlockFold])
    _held: _BlockFold | None = None
    _message: dict[str, Any] = field(factory=dict[str, Any])
    _mended: Mender = field(factory=Mender)

    @property
    def is_paused(self) -> bool:
        """Whether the answer is to go on, and there is something of it to be given back."""
        return self._message.get("stop_reason") == PAUSED and bool(self.paused)

    @property
    def paused(self) -> Sequence[Raw]:
        """
        The blocks of all runs so far, as they came, to be given back.

        The API refuses blank texts, and a thought at the end.
        """
        return without_last_thoughts([each.block for each in self._blocks if not _is_blank(each.block)])

    @property
    def container(self) -> str | None:
        """Where the server's tools worked, for them to go on there."""
        return container_of(self._message)

    def take_whole(self, raw: Raw) -> Iterator[StreamEvent]:
        """Take a run that came whole."""
        yield from self._start(raw)
        for index, block in enumerate(cast("list[Raw]", raw.get("content") or [])):
            yield from self._begin(index, block)
            yield from self._stop(index)
        yield from self._end_blocks()

    def take(self, event: Event) -> Iterator[StreamEvent]:
        """Take an event of a streamed run, and tell what it adds."""
        kind = event.type
        if kind == "content_block_delta" and event.delta is not None:
            yield from self._take_piece(event, event.delta)
        elif kind == "content_block_start" and event.content_block is not None:
            yield from self._begin(event.index, event.content_block)
        elif kind == "content_block_stop" and event.index in self._open:
            yield from self._stop(event.index)
        elif kind == "message_start" and event.message is not None:
            yield from self._start(event.message)
        elif kind == "message_delta" and event.delta is not None:
            self._note(event.delta, event.usage)
        elif kind == "message_stop":
            yield from self._end_blocks()
        elif kind != "ping":
            yield Progress(kind, self._mended(event.raw))

    def go_on(self) -> None:
        """Begin another run."""
        self._runs.append(_Run())
        del self._message["stop_reason"]

    def break_off(self) -> Iterator[StreamEvent]:
        """End a run that cannot go on: the answer stays paused; a call that did not end cannot be read."""
        yield from self._end_blocks(whole=False)
        if "stop_reason" not in self._message:
            self._message["stop_reason"] = PAUSED
            self._runs[-1].usage.pop("output_tokens", None)

    def reply(self) -> Reply:
        """Give the answer."""
        message: Raw = self._mended(self._message)
        known = {name: _text(message.get(name)) for name in ("id", "model", "stop_reason")}
        parts = [(to_part(each.block, self.host), each) for each in self._blocks]
        kept = [(part, each) for part, each in parts if part is not None]
        halves = [Mender.WARNING] if self._mended.replaced else []
        reason = to_finish_reason(known["stop_reason"])
        cut = self._blocks[-1] if reason in CUT_SHORT and self._blocks else None
        unread = [
            _unread(each.block, cut=each is cut or not each.whole) for part, each in kept if _is_call(part)
        ]
        unended = [UNENDED] if known["stop_reason"] is None else []
        silent = [SILENT] if known["stop_reason"] == PAUSED and not self.paused else []
        of_texts = (each for block in self._blocks for each in block.warnings)
        warnings = [*self.warnings, *of_texts, *halves, *unread, *unended, *silent]
        first, *later = self._runs
        cost = beside_usage(first.usage)
        beside = _beside_parts(kept) | ({} if self.container is None else {"container": message["container"]})
        continued = [{"id": run.id, "usage": beside_usage(run.usage)} for run in later]
        return Reply(
            (Message(Role.ASSISTANT, [part for part, _ in kept], id=first.id, extra=beside),),
            finish_reason=reason,
            raw_finish_reason=known["stop_reason"],
            usage=_sum([to_usage(run.usage) for run in self._runs]),
            model=known["model"],
            warnings=list(dict.fromkeys(warnings)),
            extra=beyond(message, "type", "role", "content", "usage", **known)
            | ({"usage": cost} if cost else {})
            | ({"continued_as": continued} if continued else {}),
        )

    def _start(self, message: Raw) -> Iterator[StreamEvent]:
        self._note(message, as_object(message.get("usage")))
        run = self._runs[-1]
        run.id = _text(message.get("id"))
        if len(self._runs) == 1:
            yield Started(run.id, _text(message.get("model")))

    def _note(self, message: Raw, usage: Raw | None) -> None:
        """Take what is told of the answer and its cost: what is told anew replaces what was told before."""
        self._message |= {name: value for name, value in message.items() if value is not None}
        self._runs[-1].usage |= {name: value for name, value in (usage or {}).items() if value is not None}

    def _take_piece(self, event: Event, piece: Raw) -> Iterator[StreamEvent]:
        begun = _BEGUN.get(str(piece.get("type")))
        if event.index not in self._open and begun is not None:
            yield from self._begin(event.index, begun)
        if event.index in self._open:
            yield from self._open[event.index].take(piece)
        else:
            self.warnings.append(LOST)
            yield Progress(event.type, self._mended(event.raw))

    def _stop(self, index: int | None) -> Iterator[StreamEvent]:
        """End a block, but for a call without arguments: what comes next tells whether it was cut off."""
        block = self._open.pop(index)
        if block is self._blocks[-1] and block.is_bare:
            self._held = block
        else:
            yield from block.end()

    def _end_held(self, *, whole: bool = True) -> Iterator[StreamEvent]:
        held, self._held = self._held, None
        if held is not None:
            yield from held.end(whole=whole)

    def _end_blocks(self, *, whole: bool = True) -> Iterator[StreamEvent]:
        cut = to_finish_reason(_text(self._message.get("stop_reason"))) in CUT_SHORT
        for each in self._open.values():
            lost = cut and each is self._blocks[-1] and each.is_bare
            yield from each.end(whole=whole and not lost)
        self._open = {}
        yield from self._end_held(whole=whole and not cut)

    def _begin(self, index: int | None, block: Raw) -> Iterator[StreamEvent]:
        yield from self._end_held()
        if index in self._open:
            yield from self._open[index].end()
        begun = self._open[index] = _BlockFold(dict(block), len(self._blocks), self._mended, self.host)
        self._blocks.append(begun)
        yield from begun.begin()


def _is_call(part: Part) -> bool:
    """Tell whether *part* is a call that is not of its form."""
    return isinstance(part, Opaque) and part.kind == "tool_use"


def _unread(block: Raw, *, cut: bool) -> str:
    """Warn of a call that is not of its form; *cut* says that the answer ended within it."""
    name = block.get("name")
    if isinstance(block.get("input"), Mapping):
        return f"a call of the tool {name!r} cannot be read: it has no id, or no name"
    return unread_warning(name, cut=cut)


def _beside_parts(parts: list[tuple[Part, _BlockFold]]) -> dict[str, Any]:
    """Pick for `extra` what blocks tell beyond our parts, such as citations, by the number of the part."""
    beside: dict[str, Any] = {}
    for number, (part, fold) in enumerate(parts):
        known = fold.block if isinstance(part, Opaque) else ("type", *_KNOWN[type(part)])
        more = beyond(fold.block, *known) | ({"deltas": fold.unknown} if fold.unknown else {})
        if more:
            whose = known_by(part)
            beside[str(number)] = more if whose is None else {**more, OF: whose}
    return {"content": beside} if beside else {}


def _is_blank(block: Raw) -> bool:
    """Tell whether *block* is a text of which nothing can be seen."""
    text = _text(block.get("text"))
    return block.get("type") == "text" and text is not None and not text.strip()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _sum(usages: list[Usage | None]) -> Usage | None:
    """Add up what the runs of an answer cost; what one of them does not tell is not known of all."""
    if len(usages) == 1:
        return usages[0]

    def total(name: str) -> int | None:
        counts: list[int | None] = [getattr(usage, name, None) for usage in usages]
        told = [count for count in counts if count is not None]
        return sum(told) if len(told) == len(counts) else None

    found = Usage(
        total("input_tokens"),
        total("output_tokens"),
        cached_tokens=total("cached_tokens"),
        reasoning_tokens=total("reasoning_tokens"),
    )
    return None if found == Usage() else found
