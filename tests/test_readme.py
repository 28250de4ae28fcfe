"""README tells the truth: its Python runs, and its tables name what there is."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from attrs import fields

from chatbridge import Chat, connect, errors
from chatbridge.options import CommonOptions
from chatbridge.registry import load_adapter
from chatbridge.testing.emulator import Emulator, serve
from chatbridge.turns import TurnState
from chatbridge_adapters.anthropic.emulator import AnthropicEmulator
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator
from chatbridge_adapters.openai.emulator import OpenAIEmulator

README = Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")
# The blocks of that section are pieces of the example adapter, whose own tests run them.
ELSEWHERE = re.sub(r"^## Write an adapter\n.*?(?=^## )", "", README, flags=re.DOTALL | re.MULTILINE)
BLOCKS = re.findall(r"^```python\n(.*?)^```$", ELSEWHERE, re.DOTALL | re.MULTILINE)
SPECIAL = [block for block in BLOCKS if "isinstance(bridge.api" in block]
PROGRAMS = [
    block
    for block in BLOCKS
    if "async with connect(" in block and "async def" not in block and block not in SPECIAL
]
(SWAPPED,) = (block for block in PROGRAMS if "connect()" in block)
KEPT_HERE = [block for block in PROGRAMS if 'connect("openai:' in block]
SHARED = [block for block in PROGRAMS if block not in {SWAPPED, *KEPT_HERE}]
TESTS = [block for block in BLOCKS if "async def" in block]


async def run(code: str, **names: Any) -> dict[str, Any]:
    """Run *code*, which may await."""
    program = "async def main():\n" + textwrap.indent(code, "    ") + "    return locals()\n"
    scope: dict[str, Any] = {**names}
    exec(compile(program, "README.md", "exec"), scope)
    found: dict[str, Any] = await scope["main"]()
    return found


def test_the_blocks_are_found() -> None:
    assert (7, 3, 4) == (len(SHARED), len(TESTS), len(SPECIAL))


def test_the_bot_that_is_shown_is_the_one_among_the_examples() -> None:
    bot = Path(__file__).parent.joinpath("examples", "faq_bot.py").read_text(encoding="utf-8")
    shown = next(block for block in TESTS if "class FaqBot" in block)
    assert bot[bot.index("class FaqBot") :].strip() in shown


@pytest.mark.parametrize("backend", ["fake", "h2ogpte"])
@pytest.mark.parametrize("block", SHARED)
async def test_each_program_runs_on_any_backend_that_can_do_it(
    block: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    emulator = H2OGPTeEmulator()
    async with serve(emulator) as served:
        url = "fake:?" if backend == "fake" else f"{served.config}?"
        options = "include=usage" if "include=usage" in block else ""
        there = re.sub(r'connect\("[^"]*"', f'connect("{url}{options}", **key', block)
        await run(there, key={} if backend == "fake" else {"key": emulator.key})


@pytest.mark.parametrize("profile", ["fake", "kaziro"])
async def test_a_message_in_doubt_is_found_out_about_as_shown(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def lose_an_answer(chat: Chat) -> None:
        with pytest.raises(errors.AnswerLost):
            await chat.send("Hello")

    (block,) = (block for block in PROGRAMS if ".settle(" in block)
    block = block.replace("fake:", f"fake:?profile={profile}&settle_timeout=0&fail=cut:1,lost")
    made = "    chat = await bridge.create()\n"
    found = await run(
        block.replace(made, f"{made}    await lose_an_answer(chat)\n"), lose_an_answer=lose_an_answer
    )
    turn = found["turn"]
    if profile == "kaziro":
        assert TurnState.UNKNOWN == turn.state
        assert not any(each.blocks for each in await found["chat"].turns())
    else:
        assert "Book the table" == turn.message.text
        assert f"{turn.reply.text}\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    "emulator",
    [H2OGPTeEmulator(), OpenAIEmulator(), OpenAIEmulator(mode="llamacpp"), AnthropicEmulator()],
    ids=["h2ogpte", "openai", "llamacpp", "anthropic"],
)
async def test_the_same_program_runs_elsewhere_by_one_variable(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serve(emulator) as served:
        monkeypatch.setenv("CHATBRIDGE_BACKEND", served.config)
        monkeypatch.setenv(emulator.key_variable, emulator.key)
        await run(SWAPPED)
    assert "Turn 2: you said 'And the crowds?'. Before that you said 'When do" in capsys.readouterr().out


@pytest.fixture(params=[OpenAIEmulator, AnthropicEmulator], ids=["openai", "anthropic"])
def keeps_nothing(request: pytest.FixtureRequest) -> Emulator:
    """Give the emulator of an API that keeps nothing."""
    emulator: Emulator = request.param()
    return emulator


async def run_kept(block: str, emulator: Emulator) -> dict[str, Any]:
    """Run *block* with *emulator* in place of the API that it names."""
    async with serve(emulator) as served:
        there = block.replace('connect("openai:gpt-5-mini"', f'connect("{served.config}", key=key')
        return await run(there, key=emulator.key)


async def test_tools_and_forks_work_as_shown(keeps_nothing: Emulator) -> None:
    (block,) = (block for block in KEPT_HERE if ".fork(" in block)
    found = await run_kept(block, keeps_nothing)
    assert "21 degrees and clear" in found["reply"].text
    assert 6 == len(found["history"])


@pytest.fixture
def _leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go where the picture is."""
    monkeypatch.chdir(tmp_path)
    Path("leaf.jpg").write_bytes(b"\xff\xd8\xff")


@pytest.mark.usefixtures("_leaf")
async def test_pictures_and_answers_of_a_form_work_as_shown(keeps_nothing: Emulator) -> None:
    (block,) = (block for block in KEPT_HERE if "response_format=" in block)
    found = await run_kept(block, keeps_nothing)
    assert {"name", "evergreen"} == set(json.loads(found["reply"].text))


@pytest.mark.parametrize("block", TESTS)
async def test_each_test_passes(block: str) -> None:
    found = await run(block)
    (test,) = (value for name, value in found.items() if name.startswith("test_"))
    await test()


def of(api: str) -> str:
    """Give the block that shows what only *api* has."""
    (block,) = (str(block) for block in SPECIAL if f"chatbridge_adapters.{api} " in block)
    return block


@pytest.mark.parametrize(
    ("api", "operations"),
    [
        ("openai", {"listModels"}),
        ("h2ogpte", {"update_chat_session_collection", "list_questions_for_chat_session"}),
        ("tachyon", {"update_chatroom", "get_chatrooms"}),
    ],
)
async def test_what_only_one_api_has_works_as_shown(api: str, operations: set[str]) -> None:
    emulator = load_adapter(api).load_emulator()()
    async with serve(emulator) as served:
        setup = (
            "from chatbridge import connect\n"
            f'async with connect("{served.config}", key=key) as bridge:\n    chat = await bridge.create()\n'
        )
        await run(setup + textwrap.indent(of(api), "    "), key=emulator.key)

    assert operations <= {call.operation for call in emulator.calls}


async def test_a_session_is_gone_on_with_the_next_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATAMONKEY_SESSION_TOKEN", raising=False)
    emulator = load_adapter("datamonkey").load_emulator()()
    async with serve(emulator) as served:
        program = "from chatbridge import connect\n" + of("datamonkey").replace("datamonkey:", served.config)
        for day in (1, 2):
            found = await run(program)
            key = found["saved"].read_text()
            async with connect(served.config, key=key) as bridge:
                assert day == len([conversation async for conversation in bridge.conversations()])


def test_the_common_options_and_their_defaults_are_those_in_the_table() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| ([\w.]*) ?\|", README, re.MULTILINE))
    defaults = {
        attribute.name: f"{attribute.default:g}"
        if isinstance(attribute.default, float)
        else attribute.default
        for attribute in fields(CommonOptions)
    }
    shown = {
        name: "" if default == frozenset() else str(default).lower() for name, default in defaults.items()
    }

    assert shown == told


def test_each_error_that_is_named_exists() -> None:
    table = README[README.index("| error |") : README.index("```python", README.index("| error |"))]
    named = re.findall(r"`([A-Z]\w+)`", table)

    assert named
    assert [] == [name for name in named if not hasattr(errors, name)]
