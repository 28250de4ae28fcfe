"""What a contract is: checks, a test for each, and a report of all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest import SkipTest

from attrs import frozen

from chatbridge.testing.checking import NotApplicable

__all__ = ["Contract", "Result"]


@frozen
class Result:
    """
    How one rule is kept.

    Attributes:
        check: The method that checks it.
        rule: What it says.
        problem: How it is broken; None where it is not.
        skipped: Why it says nothing of what is tried; None where it does.
    """

    check: str
    rule: str
    problem: str | None = None
    skipped: str | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"BROKEN  {self.rule} ({self.check}: {self.problem})"
        return f"skipped {self.rule} ({self.skipped})" if self.skipped is not None else f"kept    {self.rule}"


def _test_of(name: str, check: object) -> Callable[[Contract], None]:
    def test(self: Contract) -> None:
        try:
            asyncio.run(self.check(name))
        except NotApplicable as reason:
            skipped = str(reason)
        else:
            return
        raise SkipTest(skipped)

    test.__doc__ = check.__doc__
    marks = getattr(check, "pytestmark", None)
    if marks is not None:
        setattr(test, "pytestmark", marks)  # noqa: B010 - functions have no such attribute by their type
    return test


class Contract:
    """
    Rules, as checks.

    Each `check_...` raises AssertionError with what is wrong, or `NotApplicable`; the first line of its
    docstring is the rule. For each there is a `test_...` in a subclass, which needs no running event loop.
    """

    def __init_subclass__(cls) -> None:
        """Make a test of each check."""
        super().__init_subclass__()
        for name in cls.checks():
            test = f"test_{name.removeprefix('check_')}"
            if test not in vars(cls):
                setattr(cls, test, _test_of(name, getattr(cls, name)))

    @classmethod
    def checks(cls) -> tuple[str, ...]:
        """Name the checks."""
        names = (name for base in reversed(cls.__mro__) for name in vars(base) if name.startswith("check_"))
        return tuple(dict.fromkeys(names))

    async def check(self, name: str) -> None:
        """
        Try one rule.

        Raises:
            AssertionError: It is broken.
            NotApplicable: It has nothing to say of what is tried.
        """
        await getattr(self, name)()

    async def run(self) -> tuple[Result, ...]:
        """Run all checks, one after another."""
        return tuple([await self._run(name) for name in self.checks()])

    async def _run(self, name: str) -> Result:
        rule = (getattr(self, name).__doc__ or name).strip().splitlines()[0]
        try:
            await self.check(name)
        except AssertionError as broken:
            return Result(name, rule, problem=str(broken))
        except NotApplicable as reason:
            return Result(name, rule, skipped=str(reason))
        return Result(name, rule)
