"""Strict JSON: documents read and written without guessing, and text without halves of characters."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal, cast

Kind = Literal["json", "schema", "empty", "encoding", "oversize", "cut"]

MAX_DEPTH = 100
MAX_DIGITS = 4300

_BOM = b"\xef\xbb\xbf"
_BLANK = " \t\n\r"
_BLANK_BYTES = _BOM + _BLANK.encode()
_BRACKETS_TO_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1 as signed bytes
_ALL_BUT_MARKS = bytes(set(range(256)) - set(b'[{]}"'))
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class BrokenContent(Exception):
    """
    Content that cannot be used; the message says what is wrong and where, and shows none of it.

    Attributes:
        kind: json (not strict JSON), schema (not the wanted shape), empty, encoding (not UTF-8, or packed),
            oversize, or cut (it ends too early).
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(kind, message)
        self.kind: Kind = kind

    def __str__(self) -> str:
        return str(self.args[1])


def is_web_page(data: bytes) -> bool:
    """Say whether *data* begins like HTML or XML."""
    return data.lstrip(_BLANK_BYTES).startswith(b"<")


def loads(data: bytes) -> Any:  # noqa: ANN401  # a document has any shape
    """
    Read one JSON document in UTF-8, with or without a byte order mark.

    Raises BrokenContent for all that RFC 8259 does not allow, such as NaN or trailing data, and for numbers
    beyond a float, integers of over 4300 digits, objects that name a key twice, and nesting over 100 deep.
    Strings may hold lone surrogates, so that pieces of a text can still be joined; `mend_all` takes them out.
    """
    _refuse_depth(data)
    decoder = _COUNTING_DECODER if _may_hold_long_integer(data) else _DECODER
    try:
        text = str(data.removeprefix(_BOM), "utf-8").strip(_BLANK)
        value, end = decoder.raw_decode(text)
    except UnicodeDecodeError as error:
        broken = BrokenContent("encoding", f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        if error.doc:
            broken = BrokenContent("json", f"not JSON at character {error.pos}: {error.msg}")
        else:
            broken = BrokenContent("empty", "nothing where a JSON document was expected")
    except (ValueError, RecursionError):
        broken = BrokenContent("json", "digits or nesting beyond this interpreter's limit")
    else:
        if end == len(text):
            return value
        broken = BrokenContent("json", f"more data after the document's end at character {end}")
    # Not inside `except`: the foreign error would hang on ours, and it holds the whole document.
    raise broken


def dumps(value: object) -> bytes:
    """
    Write *value* as compact JSON in UTF-8.

    Raises ValueError for what strict JSON cannot hold (NaN, lone surrogates, foreign types, cycles); the
    message names its path, such as ``$.messages[0].content``, and never shows it.
    """
    written = _write(value)
    if written is None:
        path, reason = next(_offences(value, "$", 0), ("$", "cannot be written"))
        raise ValueError(f"{path}: {reason}")
    return written


def may_hold_surrogates(data: bytes) -> bool:
    r"""Say whether a string of the JSON document *data* may hold a surrogate: not without a ``\ud`` in it."""
    return b"\\ud" in data or b"\\uD" in data


def mend(text: str) -> tuple[str, bool]:
    """Join surrogate pairs and replace lone surrogates by U+FFFD; also say whether any was replaced."""
    if text.isascii():
        return text, False
    try:
        text.encode()
    except UnicodeEncodeError:
        units = text.encode("utf-16-le", "surrogatepass")
    else:
        return text, False
    mended = units.decode("utf-16-le", "replace")
    return mended, mended.count("\ufffd") > text.count("\ufffd")


def mend_all(value: object) -> tuple[Any, bool]:
    """Return a JSON value with every string and key mended, and whether anything was replaced."""
    joiner = TextJoiner()
    return _mended(value, joiner), joiner.replaced


class Mender:
    """
    Takes halves of characters out of one JSON value after another.

    Attributes:
        replaced: Whether there were any so far; `WARNING` says so.
    """

    WARNING = "the answer held halves of characters, which are replaced by U+FFFD"

    def __init__(self) -> None:
        self.replaced = False

    def __call__(self, value: object) -> Any:  # noqa: ANN401 - of the same shape
        """Return *value* with every string and key mended."""
        if not value or (isinstance(value, str) and value.isascii()):
            return value
        mended, replaced = mend_all(value)
        self.replaced |= replaced
        return mended


class TextJoiner:
    """
    Joins surrogate pairs whose halves come in neighbouring pieces of one text.

    Attributes:
        replaced: Whether a lone surrogate became U+FFFD so far.
    """

    def __init__(self) -> None:
        self.replaced = False
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return *piece* mended, but for a high surrogate at its end: that waits for the next piece."""
        if not self._held and piece.isascii():
            return piece
        text = self._held + piece
        self._held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return self.mend(text.removesuffix(self._held))

    def flush(self) -> str:
        """Return what still waited, mended: the text has ended."""
        held, self._held = self._held, ""
        return self.mend(held)

    def mend(self, text: str) -> str:
        """Return *text*, a whole one, mended."""
        mended, replaced = mend(text)
        self.replaced |= replaced
        return mended


def _refuse_depth(data: bytes) -> None:
    # Two counts clear most documents. In the others the brackets outside strings are added up, all in C.
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Taking out neighbouring quotes first leaves few strings to split at.
    marks = data.translate(_BRACKETS_TO_STEPS, _ALL_BUT_MARKS).replace(b'""', b"")
    steps = memoryview(b"".join(marks.split(b'"')[::2])).cast("b")
    if max(accumulate(steps), default=0) > MAX_DEPTH:
        raise BrokenContent("json", f"nested over {MAX_DEPTH} deep")


def _may_hold_long_integer(data: bytes) -> bool:
    # Over 4300 digits in a row show as 10 in a row when only every 430th byte is looked at.
    sample = data[:: MAX_DIGITS // 10] if len(data) > MAX_DIGITS else b""
    return b"0" * 10 in sample.translate(_DIGITS_TO_ZERO)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise BrokenContent("json", "an object names a key twice")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise BrokenContent("json", "a number is beyond the range of a float")
    return value


def _short_integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAX_DIGITS:
        raise BrokenContent("json", f"an integer has over {MAX_DIGITS} digits")
    return int(digits)


def _no_constant(name: str) -> None:
    raise BrokenContent("json", f"{name} is not JSON")


# Comparing lengths in a hook costs 0.25 us per object, and small documents save it again because no encoding
# is guessed. A hook for integers would cost about as much per number, so only documents that may hold a long
# one are read with it.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_no_constant)
_COUNTING_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_float=_finite,
    parse_int=_short_integer,
    parse_constant=_no_constant,
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _write(value: object) -> bytes | None:
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _offences(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield path and reason of each part of *value* that JSON cannot hold."""
    if depth > MAX_DEPTH:
        yield path, "is nested too deep, or holds itself"
    elif isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            if _write({key: None}) is None:
                yield path, f"has a key that {_reason(key)}"
            yield from _offences(item, f"{path}{_step(key)}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("Sequence[object]", value)):
            yield from _offences(item, f"{path}[{index}]", depth + 1)
    elif _write(value) is None:
        yield path, _reason(value)


def _step(key: object) -> str:
    name = str(key)
    return f".{name}" if _PLAIN_KEY.match(name) else f"[{json.dumps(name)}]"


def _reason(value: object) -> str:
    match value:
        case str():
            return "holds half of a surrogate pair"
        case float():
            return "is not a finite number"
        case int():
            return "has too many digits"
        case _:
            return f"is of type {type(value).__name__}, which JSON does not have"


def _mended(value: object, joiner: TextJoiner) -> object:
    if isinstance(value, str):
        return joiner.mend(value)
    if isinstance(value, list):
        return [_mended(item, joiner) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {joiner.mend(key): _mended(item, joiner) for key, item in items}
    return value
