"""Two hundred processes that are killed while they send and stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from kills import kills

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

COUNT = 200


async def test_nothing_is_lost_or_doubled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toll = await kills(tmp_path, "soak", COUNT)

    with capsys.disabled():
        print(f"\n{toll}")  # noqa: T201
    assert COUNT == toll.killed.total()
    assert [] == toll.missed
    assert (0, 0, 0, 0, 0) == (toll.lost, toll.doubled, toll.resent, toll.denied, toll.unanswered)
    assert [] == toll.damaged
