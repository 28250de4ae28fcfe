"""Lists read page by page: all of it, once, whatever a server makes of a page's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbridge import AnswerWarning
from chatbridge.http import by_offset


async def read(items: Sequence[int], clip: int, size: int = 10) -> tuple[list[int], list[tuple[int, int]]]:
    """Read *items* from a server that gives at most *clip* at a time; also give what it was asked for."""
    asked: list[tuple[int, int]] = []

    async def page(offset: int, limit: int) -> Sequence[int]:
        asked.append((offset, limit))
        return items[offset : offset + min(limit, clip)]

    return [item async for item in by_offset(page, size=size, key=lambda item: item)], asked


@given(count=st.integers(0, 60), clip=st.integers(1, 20), size=st.integers(1, 20))
async def test_every_item_is_read_once_whatever_the_server_clips(count: int, clip: int, size: int) -> None:
    items, asked = await read(range(count), clip, size)

    assert list(range(count)) == items
    assert [size] * len(asked) == [limit for _, limit in asked]


async def test_a_page_shorter_than_the_one_before_is_the_last() -> None:
    assert [(0, 10), (10, 10)] == (await read(range(15), 10))[1]
    assert [(0, 10), (10, 10), (20, 10)] == (await read(range(20), 10))[1]
    assert [(0, 10)] == (await read([], 10))[1]


async def test_an_item_that_moved_to_the_next_page_is_yielded_once() -> None:
    pages = {0: [4, 3, 2], 3: [2, 1], 5: []}

    async def page(offset: int, _: int) -> list[int]:
        return pages[offset]

    assert [4, 3, 2, 1] == [item async for item in by_offset(page, key=lambda item: item)]
    assert [4, 3, 2, 2, 1] == [item async for item in by_offset(page)]


async def test_no_page_is_read_before_it_is_needed() -> None:
    asked: list[int] = []

    async def page(offset: int, limit: int) -> Sequence[int]:
        asked.append(offset)
        return range(offset, offset + limit)

    pages = by_offset(page, size=2)
    assert [0, 1] == [await anext(pages), await anext(pages)]
    assert [0] == asked
    await pages.aclose()


def itself(item: int) -> int:
    return item


@pytest.mark.parametrize("key", [None, itself])
async def test_a_server_that_knows_no_offsets_is_not_asked_for_ever(key: Callable[[int], int] | None) -> None:
    async def page(_: int, __: int) -> list[int]:
        return [1, 2, 3]

    with pytest.warns(AnswerWarning, match="the same items for another offset"):
        assert [1, 2, 3] == [item async for item in by_offset(page, key=key)]


async def test_nor_is_one_whose_items_change_meanwhile() -> None:
    asked: list[int] = []

    async def page(offset: int, _: int) -> list[tuple[int, int]]:
        asked.append(offset)
        return [(1, len(asked)), (2, len(asked))]

    with pytest.warns(AnswerWarning, match="the same items for another offset"):
        read = [item async for item in by_offset(page, key=lambda item: item[0])]
    assert ([(1, 1), (2, 1)], [0, 2]) == (read, asked)
