"""Fifty processes that are killed while three at a time send and stream by one PostgreSQL store."""

from __future__ import annotations

import pytest

from postgres import damage_in, missing, serving
from rivals import rivals

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() != "", reason=missing()),
]

COUNT = 50


async def test_nothing_is_lost_or_doubled(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        toll = await rivals(server.string(), "soak", COUNT)
        damage = damage_in(server)

    with capsys.disabled():
        print(f"\n{toll}")  # noqa: T201
    assert COUNT == toll.killed.total()
    assert (0, 0, 0, 0, 0) == (toll.lost, toll.doubled, toll.resent, toll.denied, toll.unanswered)
    assert "" == damage
    assert toll.left.total() > COUNT / 10
