"""A process may die at any instruction: a sample of the long run (M1, M2, M5, M8)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kills import kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
async def test_m2_a_killed_process_loses_and_doubles_nothing_and_makes_nobody_wait(tmp_path: Path) -> None:
    toll = await kills(tmp_path, "sample", 6)

    assert 6 == len(toll.killed)
    assert [] == toll.missed
    assert (0, 0, 0, 0, 0) == (toll.lost, toll.doubled, toll.resent, toll.denied, toll.unanswered)
    assert [] == toll.damaged
