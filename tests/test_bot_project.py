"""A stranger's bot: a folder with no configuration, beside which chatbridge is installed as a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from chatbridge.testing.emulator import serve
from chatbridge_adapters.kaziro.emulator import KaziroEmulator

HERE = Path(__file__).parent


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Build the wheel, and unpack it as an installer does."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(build, check=False, capture_output=True, text=True, cwd=HERE.parent)
    assert 0 == done.returncode, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    return tmp_path / "installed"


@pytest.fixture
async def project(tmp_path: Path) -> Path:
    """Copy the bot and its tests, with a recording of what one of them says."""
    project = tmp_path / "project"
    shutil.copytree(HERE / "examples" / "greeter", project, ignore=shutil.ignore_patterns("__pycache__"))
    file = project / "recordings" / "test_greeter" / "test_it_greets_as_it_did.jsonl"
    file.parent.mkdir(parents=True)
    async with serve(KaziroEmulator()) as served, served.connect(record=file) as bridge:
        await (await bridge.create()).send("Hello")
    return project


def test_its_tests_use_fixtures_dialogues_and_recordings(installed: Path, project: Path) -> None:
    """The type checkers that read this suite read the project too, in strict mode."""
    ours = ("PYTEST_", "COV", "PYTHON")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v"],
        check=False,
        capture_output=True,
        text=True,
        cwd=project,
        env=environ | {"PYTHONPATH": str(installed)},
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert " 5 passed" in done.stdout
    assert "plugins: chatbridge-" in done.stdout
