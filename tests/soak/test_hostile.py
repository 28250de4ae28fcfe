"""Every mutation of every answer, of which the suite tries some."""

from __future__ import annotations

import pytest

from hostile import mutations
from operations import Row
from test_hostile_answers import IDS, ROWS, recorded, tried

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("row", ROWS, ids=IDS)
async def test_j2_every_damaged_answer_is_a_value_or_an_error_of_ours(
    row: Row, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await recorded(row)
    damage = [] if answer is None or not answer.body.strip() else list(mutations(answer))
    problems = [] if answer is None else await tried(row, answer, damage)
    with capsys.disabled():
        print(f"\n{row.api} {row.operation}: {len(damage)} damaged answers, {len(problems)} problems")  # noqa: T201
    assert [] == problems[:20]
