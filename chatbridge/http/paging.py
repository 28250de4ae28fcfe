"""Lists that come page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from chatbridge.http.api import warn_aside

__all__ = ["PAGE", "by_offset"]

PAGE = 100

ItemT = TypeVar("ItemT")


async def by_offset(
    read: Callable[[int, int], Awaitable[Sequence[ItemT]]],
    *,
    size: int = PAGE,
    key: Callable[[ItemT], Hashable] | None = None,
) -> AsyncGenerator[ItemT, None]:
    """
    Yield the items of a list that is read from an offset on.

    A server may give less than it is asked for, so only the page before tells how long a full one is: the
    list ends with an empty page, or one that is shorter than the one before; a page in which nothing is new
    ends it too, with an `AnswerWarning`.

    Args:
        read: Reads a page, given the offset and the size.
        size: How many items are asked for at a time.
        key: What tells two items apart. An item that moves while the list is read comes on two pages; given
            this, it is yielded once.
    """
    seen = set[Hashable]()
    before: Sequence[ItemT] = ()
    offset = 0
    while True:
        page = await read(offset, size)
        fresh = [item for item in page if key is None or key(item) not in seen]
        if page and (not fresh or page == before):
            warn_aside("the server gives the same items for another offset, so the list may not be whole")
            return
        for item in fresh:
            if key is not None:
                seen.add(key(item))
            yield item
        if not page or len(page) < len(before):
            return
        offset, before = offset + len(page), page
