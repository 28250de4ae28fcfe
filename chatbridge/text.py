"""Text made fit to show."""

from __future__ import annotations

__all__ = ["printable", "quoted"]

_LONGEST_QUOTE = 80


def printable(text: str) -> str:
    r"""Return *text* as one line with everything unprintable escaped as in Python, such as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str) -> str:
    """Return *text* in quotes, cut to a length that a message can hold."""
    return repr(text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…")
