"""A fake whose module loads what only tests need."""

from __future__ import annotations

import hypothesis

from broken_backends import Broken

__all__ = ["Heavy"]


class Heavy(Broken):
    """It is heavy to import."""

    made_with = hypothesis.__name__
