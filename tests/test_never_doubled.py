"""Never doubled, never silently lost: a sample of the long runs (S1, M1 to M6)."""

from __future__ import annotations

import pytest

from chatbridge import TurnState
from storm import RUNS, storm

COUNT = 40


@pytest.mark.parametrize(("api", "absent_after"), RUNS)
async def test_each_message_is_where_its_turn_says(api: str, absent_after: float | None) -> None:
    tally = await storm(api, f"{api} sample", COUNT, absent_after)

    assert COUNT * 0.8 < len(tally.turns) <= COUNT  # Some are cancelled before they are messages.
    assert (0, 0, 0) == (tally.lost, tally.doubled, tally.denied)
    assert 0 == tally.count(TurnState.PENDING)
    assert tally.count(TurnState.DELIVERED) > COUNT / 3
    if absent_after is not None:
        assert 0 == tally.count(TurnState.UNKNOWN)
    else:
        assert tally.count(TurnState.UNKNOWN) < COUNT / 2
