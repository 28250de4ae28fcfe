"""Five hundred messages to each emulator through faults, by three seeds, with and without `absent_after`."""

from __future__ import annotations

import pytest

from chatbridge import TurnState
from storm import RUNS, storm

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

COUNT = 500


@pytest.mark.parametrize("seed", ["one", "two", "three"])
@pytest.mark.parametrize(("api", "absent_after"), RUNS)
async def test_nothing_is_lost_or_doubled(
    api: str, absent_after: float | None, seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = await storm(api, seed, COUNT, absent_after)

    states = ", ".join(f"{tally.count(state)} {state.value}" for state in TurnState if tally.count(state))
    with capsys.disabled():
        found = f"lost {tally.lost}, doubled {tally.doubled}, denied {tally.denied}"
        print(f"\n{api} {seed} absent_after={absent_after}: {found}; {states}; {tally.requests} requests")  # noqa: T201
    assert (0, 0, 0) == (tally.lost, tally.doubled, tally.denied)
    assert 0 == tally.count(TurnState.PENDING)
    if absent_after is not None:
        assert 0 == tally.count(TurnState.UNKNOWN)
