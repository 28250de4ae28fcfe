"""`chatbridge conformance`: the contract over one backend, as a table, as JSON and as Markdown."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from chatbridge.cli.rules import UNFORETELLABLE, Contract
from chatbridge.domain import Conversation
from chatbridge.testing.contract import ChatBackendContract, Result
from chatbridge.testing.emulator import serve
from chatbridge.testing.fake import FakeBackend
from chatbridge_adapters.kaziro.emulator import KaziroEmulator
from cli_kit import check, h2ogpte, run

RULES = len(ChatBackendContract.checks())


def results(*arguments: str, code: int = 0, env: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Give what `--json` says, by the names of the rules."""
    told = json.loads(check(code, run("conformance", "--json", *arguments, env=env)).stdout)
    return {each["check"]: each for each in told}


def test_an_adapter_is_tried_against_its_emulator_with_its_options() -> None:
    found = results("--emulator", "h2ogpte:auto?collection=maples")

    assert RULES == len(found)
    assert {"kept"} == {each["result"] for each in found.values()}


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let three rules be all that there are, one of them broken and one skipped."""

    async def conform(*_: object, **__: object) -> list[Result]:
        return [
            Result("check_one", "Be good."),
            Result("check_two", "Be | better.", problem="not so\x1b"),
            Result("check_three", "Be best.", skipped="too much to ask"),
        ]

    monkeypatch.setattr("chatbridge.cli.app.conform", conform)


@pytest.mark.usefixtures("some")
def test_the_table_ends_with_what_came_of_all() -> None:
    shown = check(1, run("conformance", "fake:")).stdout

    assert "1 rules kept, 1 broken, 1 does not apply: three" == shown.splitlines()[-1]
    assert re.search(r"^ Be \| better\. +BROKEN +check_two: not so\\x1b$", shown, re.MULTILINE)


@pytest.mark.usefixtures("some")
def test_markdown_is_a_table() -> None:
    assert [
        "| rule |  | because |",
        "| --- | --- | --- |",
        "| Be good. | kept |  |",
        r"| Be \| better. | BROKEN | check\_two: not so\\x1b |",
        "| Be best. | skipped | too much to ask |",
    ] == check(1, run("conformance", "--markdown", "fake:")).stdout.splitlines()


def test_a_broken_rule_is_shown_and_makes_it_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unchanged(self: FakeBackend, conversation_id: str, _: str) -> Conversation:
        return await self.get_conversation(conversation_id)

    monkeypatch.setattr(FakeBackend, "rename_conversation", unchanged)
    found = results("fake:", code=1)
    assert "check_rename" in [name for name, each in found.items() if each["result"] == "broken"]
    assert "what renaming answers" in found["check_rename"]["problem"]


async def test_a_crash_of_the_emulator_breaks_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KaziroEmulator, "_retrieve", None)
    emulator = KaziroEmulator()
    async with serve(emulator) as at:
        contract = Contract(at.connect, emulator)
        with pytest.raises(AssertionError, match="the emulator crashed"):
            await contract.check("check_get")


def test_where_a_model_answers_what_cannot_be_foretold_is_left_out() -> None:
    found = results("--live", "fake:?reply=Whatever%20you%20say")

    assert UNFORETELLABLE <= {name for name, each in found.items() if each["result"] == "skipped"}
    assert {"kept", "skipped"} == {each["result"] for each in found.values()}
    assert "what a model answers cannot be foretold" == found["check_context"]["skipped"]


def test_a_server_is_tried_without_faults_and_left_as_it_was() -> None:
    with h2ogpte() as (emulator, url, env):
        found = results(f"{url}?collection=maples", env=env)
        left = vars(type(emulator))["_sessions"].__get__(emulator)

    assert {"check_lost_answers", "check_doubt", "check_failures", "check_late_arrival"} < {
        name for name, each in found.items() if each["result"] == "skipped"
    }
    assert "broken" not in {each["result"] for each in found.values()}
    # Of the rules that close the bridge or lose a creation some conversations stay.
    assert len(left) < 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fake:", "--json", "--markdown"], "choose one of --markdown and --json"),
        (["--emulator", "kaziro://host.example"], "leave out the host"),
        (["--emulator", "fake:"], "fake has no emulator"),
        (["cockatoo:"], "no chat backend named 'cockatoo' is installed"),
        (["h2ogpte:"], "H2OGPTE_API_KEY"),
    ],
)
def test_what_cannot_be_tried_is_said(arguments: list[str], said: str) -> None:
    assert said in check(2, run("conformance", *arguments)).stderr


@pytest.mark.parametrize("scheme", ["kaziro", "h2ogpte"])
def test_what_cannot_be_reached_is_said_once(scheme: str) -> None:
    url = f"{scheme}+http://127.0.0.1:9?attempts=1"
    result = check(1, run("conformance", url, env={"KAZIRO_API_KEY": "k", "H2OGPTE_API_KEY": "k"}))
    assert ("", 1) == (result.stdout, result.stderr.count("\n"))
    assert "no connection to http://127.0.0.1:9" in result.stderr
