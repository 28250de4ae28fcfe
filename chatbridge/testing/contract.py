"""
The rules that every backend keeps, for authors of adapters to run.

    class AcmeContract(ChatBackendContract):
        def open_bridge(self): return connect("acme+http://127.0.0.1:8101", key="...")

    for result in await AcmeContract().run(): print(result)

The rules ask what the profile claims, never what the backend is called: what is claimed must work, and what
is not must be refused before any I/O. They need a partner that answers alike each time, such as an emulator.
With an `emulator` they try faults too. No test framework is needed; with one, each of `checks()` makes a
test.
"""

from __future__ import annotations

from attrs import frozen

from chatbridge.testing.checking import Ask, NotApplicable, OpenBridge
from chatbridge.testing.feature_checks import FeatureChecks
from chatbridge.testing.turn_checks import TurnChecks

__all__ = ["Ask", "ChatBackendContract", "NotApplicable", "OpenBridge", "Result"]


@frozen
class Result:
    """
    How a backend keeps one rule.

    Attributes:
        check: The method that checks it.
        rule: What it says.
        problem: How it is broken; None where it is not.
        skipped: Why it says nothing of this backend; None where it does.
    """

    check: str
    rule: str
    problem: str | None = None
    skipped: str | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"BROKEN  {self.rule} ({self.check}: {self.problem})"
        return f"skipped {self.rule} ({self.skipped})" if self.skipped is not None else f"kept    {self.rule}"


class ChatBackendContract(FeatureChecks, TurnChecks):
    """
    What types cannot say of a `ChatBackend`, as checks.

    Each `check_...` opens a bridge of its own, and raises AssertionError with what is wrong, or
    `NotApplicable`; the first line of its docstring is the rule, as told to a backend. A subclass may add
    checks, and override the hooks of `Checks` where its partner answers differently.
    """

    @classmethod
    def checks(cls) -> tuple[str, ...]:
        """Name the checks."""
        names = (name for base in reversed(cls.__mro__) for name in vars(base) if name.startswith("check_"))
        return tuple(dict.fromkeys(names))

    async def run(self) -> tuple[Result, ...]:
        """Run all checks, one after another."""
        return tuple([await self._run(name) for name in self.checks()])

    async def _run(self, name: str) -> Result:
        check = getattr(self, name)
        rule = (check.__doc__ or name).strip().splitlines()[0]
        try:
            await check()
        except AssertionError as broken:
            return Result(name, rule, problem=str(broken))
        except NotApplicable as reason:
            return Result(name, rule, skipped=str(reason))
        return Result(name, rule)
