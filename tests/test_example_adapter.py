"""An adapter of a stranger's: a package of its own, installed beside chatbridge and found by name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import chatbridge
import chatbridge_adapters
from chatbridge.testing.contract import ChatBackendContract

HERE = Path(__file__).parent
EXAMPLE = HERE / "examples" / "parrot"
CONTRACT = HERE / "examples" / "test_parrot.py"
README = HERE.parent / "README.md"

PIP = ("-m", "pip", "--isolated", "--disable-pip-version-check", "--no-cache-dir", "install")
OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation")

Python = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs a fresh interpreter, in which a warning is an error, and which has the example installed."""


def files() -> list[Path]:
    """Name the files that the example consists of."""
    return [path for path in EXAMPLE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Install the example without a network, from a copy, so that the checkout stays as it is."""
    there = tmp_path_factory.mktemp("parrot")
    source, target = there / "source", there / "installed"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, *PIP, *OFFLINE, "--target", str(target), str(source)]
    done = subprocess.run(pip, check=False, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout + done.stderr
    environ = os.environ | {"PYTHONPATH": str(target), "PYTHONWARNINGS": "error"}

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=there,
            env=environ | variables,
        )

    return run


def test_it_is_listed_among_the_installed_backends(python: Python) -> None:
    done = python("-m", "chatbridge", "backends")

    assert 0 == done.returncode, done.stderr
    assert re.search(r"^parrot +yes +An invented chat API$", done.stdout, re.MULTILINE)


def test_it_describes_itself_without_a_key(python: Python) -> None:
    done = python("-m", "chatbridge", "describe", "parrot")

    assert 0 == done.returncode, done.stderr
    for line in (
        r"parrot: +https://parrot\.example\.com",
        r"a secret: .*; required; from\s+PARROT_API_KEY",
        r"history +native",
        r"delete +unsupported; it forgets",
        r"stream +emulated",
    ):
        assert re.search(line, done.stdout)


RULES = len(ChatBackendContract.checks())
LATE = 1  # One rule has nothing to say of an API that cannot be read back.


def test_it_keeps_every_rule_of_the_contract(python: Python, tmp_path: Path) -> None:
    shutil.copy(CONTRACT, tmp_path)
    done = python(
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-q",
        str(tmp_path),
        PYTHONWARNINGS="default",
    )

    assert 0 == done.returncode, done.stdout
    assert f"{RULES - LATE} passed, {LATE} skipped" in done.stdout.splitlines()[-1]


TALK = """
import asyncio, sys
from chatbridge import AuthFailed, ChatbridgeError, connect
from chatbridge.registry import load_adapter
from chatbridge.testing.emulator import Fault, serve

async def main(emulator):
    async with serve(emulator) as served:
{body}
    assert not emulator.crashes

asyncio.run(main(load_adapter("parrot").load_emulator()()))
"""


def talk(*lines: str) -> str:
    """Make a program that runs *lines* while the example's emulator is served."""
    return TALK.format(body="\n".join(f"        {line}" for line in lines))


def test_a_wrong_key_is_refused_in_the_words_of_the_api(python: Python) -> None:
    done = python(
        "-c",
        talk(
            "async with connect(served.config, key='sk-of-another') as bridge:",
            "    try:",
            "        await bridge.create()",
            "    except AuthFailed as error:",
            "        print(error.status, error.excerpt, error)",
        ),
    )

    assert 0 == done.returncode, done.stderr
    assert done.stdout.startswith("401 this key opens no cage ")
    assert "sk-of-another" not in done.stdout


def test_what_a_lost_answer_leaves_is_in_the_history(python: Python) -> None:
    done = python(
        "-c",
        talk(
            "async with connect(served.config, key=emulator.key) as bridge:",
            "    chat = await bridge.create()",
            "    for kept in 'nothing', 'question', 'turn':",
            "        emulator.fail(Fault(drop='after', kept=kept), operation='say')",
            "        try:",
            "            await chat.send(kept, resend=True)",
            "        except ChatbridgeError as error:",
            "            print(type(error).__name__)",
            "    print([message.text async for message in chat.messages()])",
            "    print((await chat.send('Hello', resend=True)).text)",
        ),
    )

    assert 0 == done.returncode, done.stderr
    *lost, history, answer = done.stdout.splitlines()
    assert ["DeliveryUnknown"] * 3 == lost
    assert str(["question", "turn", "Turn 1: you said 'turn'."]) == history
    assert "Turn 2: you said 'Hello'. Before that you said 'turn'." == answer


def test_it_has_fewer_than_150_lines_in_all() -> None:
    assert {"pyproject.toml", "__init__.py", "emulator.py", "py.typed"} == {path.name for path in files()}
    assert 150 > sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files())


@pytest.mark.parametrize("package", [chatbridge, chatbridge_adapters], ids=lambda package: package.__name__)
def test_nothing_of_ours_knows_it(package: object) -> None:
    (root,) = map(Path, getattr(package, "__path__", ()))
    ours = list(root.rglob("*.py"))

    assert ours
    assert [] == [path for path in ours if "parrot" in path.read_text(encoding="utf-8").lower()]


def test_readme_shows_it_word_for_word() -> None:
    """Each block of the section is whole lines of one of its files, and no file is left out."""
    section = re.search(
        r"^## Write an adapter\n(.*?)^## ", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert section is not None
    blocks: list[str] = re.findall(r"^```(?:python|toml)\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    texts = {path.name: "\n" + path.read_text(encoding="utf-8") for path in [*files(), CONTRACT]}
    shown = [next((name for name, text in texts.items() if f"\n{block}" in text), block) for block in blocks]

    assert texts.keys() - {"py.typed"} == set(shown)
    assert shown.index("__init__.py") < shown.index("emulator.py") < shown.index("test_parrot.py")
