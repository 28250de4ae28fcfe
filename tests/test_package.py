"""The package as it is installed: what it holds, what it needs, what importing it costs."""

from __future__ import annotations

import ast
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackagePath, distribution
from pathlib import Path
from typing import Any

import pytest

import chatbridge
import chatbridge_adapters
from chatbridge import errors
from chatbridge.registry import GROUP, backend_names

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
DISTRIBUTION = distribution("chatbridge")
EDITABLE = bool(
    json.loads(DISTRIBUTION.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable")
)
HEAVY = ("aiohttp", "cattrs", "tenacity", "yarl", "click", "platformdirs", "rich", "chatbridge_adapters")


def modules_loaded_by(code: str) -> set[str]:
    """Run *code* in a fresh interpreter, and name the packages that it loaded."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "" == done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


# ------------------------------------------------------------------------------ what importing costs


def test_importing_the_names_loads_nothing_heavy() -> None:
    loaded = modules_loaded_by("from chatbridge import *")

    assert "chatbridge" in loaded
    assert set() == loaded.intersection(HEAVY)


def test_the_fake_needs_no_http() -> None:
    loaded = modules_loaded_by("from chatbridge import connect; connect('fake:').open('a')")

    assert set() == loaded.intersection({"aiohttp", "yarl", "chatbridge_adapters"})


def test_a_backend_loads_its_own_adapter_only() -> None:
    code = """
import sys
from chatbridge import connect
connect("kaziro:", key="x")
assert not [name for name in sys.modules if name.startswith("chatbridge_adapters.h2ogpte")]
"""

    assert {"aiohttp", "chatbridge_adapters"} <= modules_loaded_by(code)


# ---------------------------------------------------------------------------------- public names


def test_all_is_exactly_the_public_names_in_order() -> None:
    """What type checkers see, and what there is."""
    tree = ast.parse(inspect.getsource(chatbridge))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chatbridge.")
        for alias in node.names
    }

    assert sorted(seen) == chatbridge.__all__
    assert set(chatbridge.__all__) <= set(dir(chatbridge))
    for name, module in seen.items():
        assert getattr(import_module(module or ""), name) is getattr(chatbridge, name)


def test_names_are_imported_when_one_is_used() -> None:
    loaded = modules_loaded_by("import chatbridge")

    assert set() == loaded.intersection({"asyncio", "attrs", *HEAVY})
    assert "attrs" in modules_loaded_by("import chatbridge; chatbridge.Message; chatbridge.errors.NotSent")


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="module 'chatbridge' has no attribute 'conect'"):
        _ = getattr(chatbridge, "conect")  # noqa: B009 - mypy would find it


def members(value: object) -> dict[str, object]:
    """Give what *value* itself defines and shows."""
    if not inspect.isclass(value):
        return {}
    return {
        name: member
        for name, member in vars(value).items()
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    }


# The two unions aside: Python has no place for their docstrings.
@pytest.mark.parametrize("name", sorted(set(chatbridge.__all__) - {"Part", "StreamEvent"}))
def test_every_public_name_has_a_docstring(name: str) -> None:
    value = getattr(chatbridge, name)
    assert inspect.cleandoc(value.__doc__ or "")
    assert [] == [member for member, found in members(value).items() if not inspect.getdoc(found)]


def test_what_is_raised_can_be_imported_from_one_place() -> None:
    """Each error in the drawing at the top of `chatbridge.errors` is a public name of the package."""
    drawing = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\nWhere")[0]
    drawn = set(re.findall(r"\b[A-Z][A-Za-z]+[a-z]\b", drawing)) - {"ValueError"}

    assert set() == drawn - set(chatbridge.__all__)
    assert 20 < len(drawn)


# ----------------------------------------------------------------------------------- what is in it


def adapter_packages() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(chatbridge_adapters.__path__) if module.ispkg}


def test_the_adapters_are_the_entry_points() -> None:
    entries = {entry.name: entry.value for entry in DISTRIBUTION.entry_points if entry.group == GROUP}
    adapters = {name: f"chatbridge_adapters.{name}:ADAPTER" for name in adapter_packages()}

    ours = {name: f"chatbridge.testing.{name}:ADAPTER" for name in ("fake", "replay")}

    assert {**adapters, **ours} == entries
    assert set(entries) <= set(backend_names())


def test_pytest_finds_its_plugin() -> None:
    plugins = [entry.value for entry in DISTRIBUTION.entry_points if entry.group == "pytest11"]

    assert ["chatbridge.testing.pytest_plugin"] == plugins


@pytest.mark.parametrize("package", [chatbridge, chatbridge_adapters])
def test_both_packages_are_typed(package: Any) -> None:
    assert (Path(package.__path__[0]) / "py.typed").is_file()


def kind_of(file: PackagePath) -> str:
    """Tell which part of the distribution *file* belongs to."""
    top = file.parts[0]
    if re.fullmatch(r"chatbridge-[0-9.]+\.dist-info", top):
        return "metadata"
    if top == ".." and file.name in {"chatbridge", "chatbridge.exe"}:
        return "script"
    return top


def test_p4_only_the_two_packages_are_installed() -> None:
    """An editable installation has one .pth in their place."""
    kinds = {kind_of(file) for file in DISTRIBUTION.files or ()} - {"metadata", "script"}

    if EDITABLE:
        assert [".pth"] == [Path(kind).suffix for kind in kinds]
    else:
        assert {"chatbridge", "chatbridge_adapters"} == kinds


def test_p1_it_needs_four_packages() -> None:
    needed = {
        re.split(r"[^A-Za-z0-9._-]", line)[0]
        for line in DISTRIBUTION.requires or ()
        if "extra ==" not in line
    }

    assert {"aiohttp", "attrs", "cattrs", "tenacity"} == needed


def test_p5_aiohttp_is_new_enough() -> None:
    """The floor is raised for advisories."""
    (line,) = [line for line in DISTRIBUTION.requires or () if line.startswith("aiohttp")]

    assert "aiohttp>=3.14.3" == line


# ----------------------------------------------------------------------------------- what is checked


def contracts() -> dict[str, dict[str, Any]]:
    linter = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert ["chatbridge", "chatbridge_adapters"] == linter["root_packages"]
    return {contract["name"]: contract for contract in linter["contracts"]}


def test_the_direction_of_imports_is_written_down() -> None:
    """`lint-imports` checks it; here only that it covers everything there is."""
    written = contracts()

    assert ["chatbridge.cli", "chatbridge.testing", "chatbridge.bridge"] == written["arrows point one way"][
        "layers"
    ][:3]
    assert ["chatbridge_adapters"] == written["the core knows no adapter"]["forbidden_modules"]
    assert {"pytest", "hypothesis"} == set(written["no test framework in shipped code"]["forbidden_modules"])
    assert {f"chatbridge_adapters.{name}" for name in adapter_packages()} == set(
        written["adapters do not know each other"]["modules"]
    )
