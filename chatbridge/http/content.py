"""Strict JSON: documents read without guessing, and text without halves of characters."""

import json
import math
from typing import Any, Literal, cast

from chatbridge.strict import MAX_DEPTH, is_deep

Kind = Literal["json", "schema", "empty", "encoding", "oversize", "cut"]

MAX_DIGITS = 4300

_BOM = b"\xef\xbb\xbf"
_BLANK = " \t\n\r"
_BLANK_BYTES = _BOM + _BLANK.encode()
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")


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
    if is_deep(data):
        raise BrokenContent("json", f"nested over {MAX_DEPTH} deep")
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


def _mended(value: object, joiner: TextJoiner) -> object:
    if isinstance(value, str):
        return joiner.mend(value)
    if isinstance(value, list):
        return [_mended(item, joiner) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {joiner.mend(key): _mended(item, joiner) for key, item in items}
    return value
