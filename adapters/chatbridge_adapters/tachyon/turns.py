"""What the emulator of Tachyon keeps of an answer: its parts, in their order, each for one message."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field

from chatbridge.testing.emulator import is_array, is_object

__all__ = ["Json", "parts_of_deltas", "parts_of_run", "words_of"]

Json = Mapping[str, object]


@define(eq=False)
class _Growing:
    """
    A part whose pieces arrive.

    Attributes:
        fields: All but what grows.
        key: What grows.
        spoken: How it is said, if it is a text: as an answer, a question, an attempt.
        answered: Whether it is a call that has a result.
    """

    fields: dict[str, object]
    key: str
    spoken: str = ""
    answered: bool = False
    pieces: list[str] = field(factory=list[str])

    def add(self, told: object) -> None:
        self.pieces.append(_written(told))

    def show(self) -> Json:
        return {**self.fields, self.key: "".join(self.pieces)}


@define
class _Parts:
    """The parts of one answer."""

    _parts: list[_Growing] = field(factory=list[_Growing])

    def show(self) -> list[Json]:
        return [part.show() for part in self._parts] or [{"type": "text", "text": ""}]

    def say(self, spoken: str, words: object) -> None:
        if not words:
            return
        last = self._parts[-1] if self._parts else None
        if last is None or last.spoken != spoken:
            tried = spoken == "attempt_completion"
            kind, key = ("attempt-completion", "result") if tried else ("text", "text")
            last = self._begin({"type": kind}, key, spoken)
        last.add(words)

    def call(self, tool_id: object, name: object) -> _Growing:
        return self._begin({"type": "tool-call", "tool_call_id": tool_id, "tool_name": name or ""}, "args")

    def result(self, tool_id: object, call: _Growing | None) -> _Growing:
        name = ""
        if call is not None:
            call.answered, name = True, str(call.fields["tool_name"])
        return self._begin({"type": "tool-result", "tool_call_id": tool_id, "tool_name": name}, "result")

    def _begin(self, fields: dict[str, object], key: str, spoken: str = "") -> _Growing:
        self._parts.append(_Growing(fields, key, spoken))
        return self._parts[-1]


def parts_of_deltas(deltas: Iterable[Json]) -> list[Json]:
    """Put together what the deltas of a completion tell; a result belongs to the first call without one."""
    parts, calls = _Parts(), dict[object, _Growing]()
    waiting, last = deque[_Growing](), None
    for delta in deltas:
        content = _content(delta.get("content"))
        if content and delta.get("role") in {None, "tool"}:
            last = waiting.popleft() if waiting else last
            parts.result(last.fields["tool_call_id"] if last else "", last).add(content)
        else:
            parts.say("say", content)
        pieces = delta.get("tool_calls")
        for piece in filter(is_object, pieces if is_array(pieces) else ()):
            number, function = piece.get("index"), piece.get("function")
            named = function if is_object(function) else {}
            call = calls.get(number)
            if call is None or piece.get("id") not in {None, call.fields["tool_call_id"]}:
                call = calls[number] = parts.call(piece.get("id") or "", named.get("name"))
                waiting.append(call)
            call.add(named.get("arguments"))
    return parts.show()


def parts_of_run(chunks: Sequence[Json]) -> list[Json]:
    """
    Put together what the events of an agent tell.

    Its attempts count only where it says nothing, and what other agents tell never does.
    """
    own = [chunk for chunk in chunks if chunk.get("agent") is None]
    spoke = any(chunk.get("type") == "say" and chunk.get("text") for chunk in own)
    parts, calls, results = _Parts(), dict[str, _Growing](), dict[str, _Growing]()
    for chunk in own:
        kind, tool_id = str(chunk.get("type")), _written(chunk.get("tool_id"))
        match kind:
            case "say" | "ask":
                parts.say(kind, chunk.get("text"))
            case "attempt_completion" if not spoke:
                parts.say(kind, chunk.get("result"))
            case "tool_call" | "tool_call_args":
                call = calls.get(tool_id)
                if call is None or (call.answered and kind == "tool_call"):
                    call = calls[tool_id] = parts.call(tool_id, chunk.get("tool_name"))
                call.add(chunk.get("args"))
            case "tool_result":
                result = results.get(tool_id) or parts.result(tool_id, calls.get(tool_id))
                result.add(chunk.get("result"))
                result.fields |= {"is_error": True} if chunk.get("is_error") is True else {}
                results[tool_id] = result
                if chunk.get("is_finished") is True:
                    del results[tool_id]
            case _:
                pass
    return parts.show()


def words_of(parts: Iterable[Json]) -> str:
    """Give the text of an answer."""
    keys = {"text": "text", "attempt-completion": "result"}
    return "".join(str(part[keys[kind]]) for part in parts if (kind := str(part["type"])) in keys)


def _content(content: object) -> object:
    """Give the text of a delta's content where it is a list of texts, and else the content as it is."""
    if not is_array(content):
        return content
    texts = [part.get("text") if is_object(part) else None for part in content]
    return "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else content


def _written(value: object) -> str:
    """Write *value* as it is stored: a text as it is, nothing as an empty one, and the rest as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
