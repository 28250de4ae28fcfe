"""Secrets replaced in text: in one printable line of bounded length, to show; in all of it, to keep."""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from string import ascii_letters, digits
from urllib.parse import quote

from chatbridge.secret import MASK, Secret
from chatbridge.text import printable

_SHORTEST_ENCODED = 4  # a shorter secret is looked for in plain form only: its encodings turn up by chance
_LOOKED_AT = 8  # for each character that may be shown, so many are searched: for a long secret that is slow
_LONGEST_BEGINNING = (
    60  # of a cut-off secret that is too short to be found: 5 characters, each escaped twice over
)
_SHORTEST_PREFIX = 6  # a cut-off secret of at least so many characters is replaced too
_NEVER_ESCAPED = frozenset(ascii_letters + digits + "-._~")
_MORE_ESCAPES = {" ": ("+",), "/": ("\\/",), "'": ("\\'", "&#39;"), '"': ("&#34;",)}
_BASE64 = ascii_letters[26:] + ascii_letters[:26] + digits + "+/"
_WHOLE_DIGIT = 0b111111
_BASE64_SPELLINGS = {"+": r"[+\-]|(?i:%2b)", "/": r"[/_]|\\/|(?i:%2f)"}
_BASE64_PADDING = "(?:=|(?i:%3d)){0,2}"
_END = r"\Z"
_END_OR_CUT_ESCAPE = r"(?:[%&\\][%&\\#0-9A-Za-z]{0,11})?\Z"


class Redactor:
    """
    Replaces secrets in text, however the server has spelled them.

    Known spellings: plain; percent-encoded; escaped as in JSON or HTML; base64 of both alphabets, also inside
    the base64 of a longer text; hexadecimal. Of a secret shorter than 4 characters only the plain form is
    replaced.
    """

    __slots__ = ("_finders", "_secrets", "_substitute")

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._secrets = list(secrets)
        self._substitute: Callable[[str, str], str] | None = None
        self._finders: dict[bool, Callable[[str], Iterator[re.Match[str]]]] = {}

    def add(self, secret: Secret) -> None:
        """Replace *secret* too from now on."""
        self._secrets.append(secret)
        self._substitute = None
        self._finders.clear()

    def clean(self, text: str, limit: int = 500) -> str:
        """
        Return *text* without secrets, as one printable line of at most *limit* characters.

        *text* may itself be cut off: the beginning of a secret at its end is replaced as well if it has at
        least 6 characters.
        """
        if self._substitute is None:
            self._substitute = self._compile()
        start = text[: limit * _LOOKED_AT + _LONGEST_BEGINNING]
        cleaned = self._substitute(MASK, start)
        if len(start) < len(text):
            cleaned = cleaned[:-_LONGEST_BEGINNING]
        line = printable(cleaned[: limit + 1])
        return line if len(line) <= limit and len(start) == len(text) else line[: limit - 1] + "…"

    def __contains__(self, secret: Secret) -> bool:
        return secret in self._secrets

    def mask(self, secret: Secret) -> str:
        """Give what `scrub` writes in the place of *secret*, which is known."""
        return _numbered(self._secrets.index(secret))

    def spots(self, text: str, *, cut: bool = False) -> list[tuple[int, int, str]]:
        """
        Find the secrets in *text*: from where to where each stands, and its mask.

        With *cut*, the text may be cut off: the beginning of a secret at its end, of at least 6 characters,
        is found as well.
        """
        if cut not in self._finders:
            self._finders[cut] = self._compile_finder(cut=cut)
        return [
            (match.start(), match.end(), _numbered(int(str(match.lastgroup)[1:])))
            for match in self._finders[cut](text)
        ]

    def scrub(self, text: str, *, cut: bool = False) -> str:
        """Return all of *text*, in the place of each secret a mask that is its own."""
        parts, place = list[str](), 0
        for start, end, mask in self.spots(text, cut=cut):
            parts += (text[place:start], mask)
            place = end
        return "".join((*parts, text[place:]))

    def _compile_finder(self, *, cut: bool) -> Callable[[str], Iterator[re.Match[str]]]:
        firsts = [index for index, secret in enumerate(self._secrets) if self._secrets.index(secret) == index]
        firsts.sort(key=lambda index: len(self._secrets[index].reveal()), reverse=True)
        groups = (
            f"(?P<_{index}>{'|'.join(_spellings(self._secrets[index].reveal(), cut=cut))})"
            for index in firsts
        )
        return re.compile("|".join(groups) or "(?!)").finditer

    def _compile(self) -> Callable[[str, str], str]:
        longest_first = sorted((secret.reveal() for secret in self._secrets), key=len, reverse=True)
        pattern = "|".join(spelling for value in longest_first for spelling in _spellings(value))
        # Only the bound method is kept, since its repr does not show the pattern. (?!) matches nothing.
        return re.compile(pattern or "(?!)").sub


def _numbered(index: int) -> str:
    return f"{MASK}:{index + 1}"


def _spellings(value: str, *, cut: bool = True) -> Iterator[str]:
    """Yield a pattern for each way in which *value* may appear, in a text that may be *cut* off."""
    if len(value) < _SHORTEST_ENCODED:
        yield re.escape(value)
        return
    # Doubled and single backslashes are two patterns: as a choice in one they would backtrack exponentially.
    for backslash in ("\\\\", "\\") if "\\" in value else ("\\",):
        yield _pattern([_written(c, backslash) for c in value], _SHORTEST_PREFIX if cut else None)
    octets = value.encode("utf-8", "surrogatepass")
    for offset in range(3):
        units = _base64_digits(octets, offset)
        yield _pattern(units, _SHORTEST_PREFIX * 4 // 3 if cut else None) + _BASE64_PADDING
    yield f"(?i:{_pattern(list(octets.hex()), _SHORTEST_PREFIX * 2 if cut else None)})"


def _pattern(units: Sequence[str], required: int | None) -> str:
    """Join the patterns of single characters; after the first *required* ones, the text may end."""
    if required is None:
        required = len(units)
    # Each unit offers the end of the text by itself: nested groups could not be parsed for a long secret.
    whole = [f"(?:{unit})" for unit in units[:required]]
    rest = [f"(?:{unit}|{_END_OR_CUT_ESCAPE if '|' in unit else _END})" for unit in units[required:]]
    return "".join(whole + rest)


def _written(character: str, backslash: str) -> str:
    """Return a pattern for one character: plain, percent-encoded, or escaped as in JSON or HTML."""
    if character in _NEVER_ESCAPED:
        return re.escape(character)
    halves = character.encode("utf-16-be", "surrogatepass").hex()
    escaped = {
        quote(character, safe="", errors="surrogatepass"),
        "".join(f"\\u{halves[i : i + 4]}" for i in range(0, len(halves), 4)),
        escape(character),
    }
    if character == "\\":
        plain = backslash
    else:
        plain = character
        escaped |= {json.dumps(character, ensure_ascii=False)[1:-1], *_MORE_ESCAPES.get(character, ())}
    choices = [f"(?i:{_escape(text)})" for text in sorted(escaped - {character}, key=len, reverse=True)]
    return "|".join([*choices, re.escape(plain)])


def _escape(text: str) -> str:
    """Return a pattern for an escaped character; JSON in JSON doubles the backslash before it."""
    return rf"\\{{1,8}}{re.escape(text[1:])}" if text.startswith("\\") else re.escape(text)


def _base64_digits(octets: bytes, offset: int) -> list[str]:
    """
    Return a pattern for each base64 digit that *octets* decide, when they begin *offset* bytes into a group.

    The first and last digit may share bits with the neighbours; their patterns allow for any neighbour.
    """
    low, high = (
        b64encode(fill * offset + octets + fill * (-(offset + len(octets)) % 3)).decode()
        for fill in (b"\0", b"\xff")
    )
    patterns: list[str] = []
    for one, other in zip(map(_BASE64.index, low), map(_BASE64.index, high), strict=True):
        free = one ^ other
        if free != _WHOLE_DIGIT:
            choices = (digit for i, digit in enumerate(_BASE64) if i | free == one | free)
            patterns.append("|".join(_BASE64_SPELLINGS.get(digit, digit) for digit in choices))
    return patterns
