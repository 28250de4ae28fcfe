"""What came of an answer so far, so that nothing is told twice where a stream tells it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from attrs import define, field

from chatbridge.http.chunks import words
from chatbridge.http.loose import as_list

__all__ = ["SoFar", "merged", "without"]


@define
class SoFar:
    """
    The texts of an answer that came so far, by their fields.

    A message in a stream may tell a text so far, a further piece of it or, behind all pieces, the whole. Once
    a field came in deltas, or a message told more than what came, messages tell such a text again; before,
    one that does not begin with what came is a further piece.

    Attributes:
        differs: Whether a message told another text than the deltas.
    """

    differs: bool = False
    _texts: dict[str, list[str]] = field(factory=dict[str, list[str]])
    _in_deltas: set[str] = field(factory=set[str])
    _again: bool = False
    _parts: list[object] = field(factory=list[object])

    def hear(self, texts: Mapping[str, str], content: object = None) -> None:
        """Take the texts of a delta, and the parts of its content."""
        for name, text in texts.items():
            if text:
                self._in_deltas.add(name)
                self._texts.setdefault(name, []).append(text)
        if isinstance(content, list):
            self._parts += _others(cast(list[object], content))

    def known(self, texts: Mapping[str, str], beside: Mapping[str, str]) -> dict[str, int]:
        """Take the texts of a message *beside* those of a delta; give how much of each was told before."""
        came = {name: "".join(self._texts.get(name, ())) for name in texts}
        self._again = self._again or _is_more(came, texts)
        known = {
            name: len(text) if text == beside.get(name) else self._known(name, came[name], text)
            for name, text in texts.items()
        }
        for name, text in texts.items():
            self._texts[name] = [came[name] + text[known[name] :]]
        return known

    def known_parts(self, content: object) -> int:
        """Take the content of a message; give how many of its parts that are no text were told before."""
        others = _others(as_list(content))
        known = 0
        while known < min(len(others), len(self._parts)) and others[known] == self._parts[known]:
            known += 1
        self._parts += others[known:]
        return known

    def _known(self, name: str, came: str, text: str) -> int:
        again = self._again or name in self._in_deltas
        if text.startswith(came) and (again or len(text) > len(came)):
            return len(came)
        if again and came.startswith(text):
            return len(text)
        if name not in self._in_deltas or not came.strip():
            return 0
        self.differs = self.differs or came.strip() != text.strip()
        return len(text)


def _is_more(came: Mapping[str, str], texts: Mapping[str, str]) -> bool:
    """Tell whether *texts* tell again what *came*, and more."""
    pairs = [(came[name], text) for name, text in texts.items()]
    return (
        all(text.startswith(old) or old.startswith(text) for old, text in pairs)
        and any(old and text for old, text in pairs)
        and any(len(text) > len(old) for old, text in pairs)
    )


def _others(content: list[object]) -> list[object]:
    return [part for part in content if words(part) is None]


def without(content: object, known: int, parts: int) -> Any:  # noqa: ANN401 - JSON
    """Leave out of a content the *known* beginning of its text, and as many of its other *parts*."""
    if isinstance(content, str):
        return content[known:]
    left = list[object]()
    for part in as_list(content):
        text = words(part)
        if text is not None:
            left.append(text[known:])
            known = max(known - len(text), 0)
        elif parts:
            parts -= 1
        else:
            left.append(part)
    return left


def merged(came: Any, value: Any) -> Any:  # noqa: ANN401 - JSON
    """Join what messages told, of which each may tell again what came; of other JSON the last counts."""
    if isinstance(came, dict) and isinstance(value, dict):
        fields, more = cast(dict[str, Any], came), cast(dict[str, Any], value)
        return {**fields, **{name: merged(fields.get(name), each) for name, each in more.items()}}
    if isinstance(came, str) and isinstance(value, str):
        return value if value.startswith(came) else came + value
    if isinstance(came, list) and isinstance(value, list):
        told, again = cast(list[object], came), cast(list[object], value)
        return again if again[: len(told)] == told else told + again
    return value
