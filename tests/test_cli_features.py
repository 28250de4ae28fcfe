"""The command `features`: what backends can do, side by side; README's copy of its table."""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import Result
from rich.text import Text

from chatbridge.backend import Feature
from chatbridge.cli.features import OPTIONS, draw_beside
from chatbridge.cli.output import Output
from chatbridge.registry import GROUP
from cli_kit import check, failure, install, run

README = Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")
FACTS = ["context", "stores", "settle_by"]
ROWS = [*map(str, Feature), *FACTS, *(f"{name}=" for name in OPTIONS)]
TENANT = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a backend that can do all, and one whose options change what it can do, be installed."""
    install(
        monkeypatch,
        fake="chatbridge.testing.fake:ADAPTER",
        odd="cli_kit:ODD",
        strict="cli_kit:STRICT",
    )


def table(result: Result) -> dict[str, list[str]]:
    """Read a table of Markdown: its cells by the first of each line."""
    lines = result.stdout.partition("\n\n")[0].splitlines()
    rows = [re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |")) for line in lines]
    assert ["---"] * len(rows[0]) == rows.pop(1)
    return {name: cells for name, *cells in rows}


def titles(*urls: str) -> list[str]:
    """Give the titles of the columns that *urls* make."""
    return table(check(0, run("features", "--markdown", *urls)))["backend"]


# README


def told() -> tuple[list[str], str]:
    """Give the command in README, and what stands below it."""
    marked = re.compile(r"^<!-- (chatbridge .*?) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
    ((command, text),) = marked.findall(README)
    return shlex.split(command)[1:], text


def test_the_table_in_readme_is_what_its_command_prints() -> None:
    command, text = told()
    shown = check(0, run(*command)).stdout
    assert ["features", "--markdown"] == command[:2]
    assert shown == text, f"README.md is stale; below the command belongs:\n{shown}"


def test_the_table_in_readme_has_every_backend_of_ours() -> None:
    command, _ = told()
    shown = {url.partition(":")[0] for url in command}
    ours = {each.name for each in entry_points(group=GROUP) if each.value.startswith("chatbridge_adapters.")}
    assert ours
    assert set() == ours - shown


# What is in the table


@pytest.mark.usefixtures("two")
def test_without_a_name_every_installed_backend_has_a_column_and_every_feature_a_row() -> None:
    shown = table(check(0, run("features", "--markdown")))
    assert ["backend", *ROWS] == list(shown)
    assert ["fake", "odd", "strict"] == shown["backend"]
    assert ["yes", "-", "yes"] == shown["send"]
    assert ["yes", "-", "emulated"] == shown["stream"]
    assert ["yes", "-", "yes"] == shown["model="]
    assert ["server"] * 3 == shown["context"]
    assert ["with", "undocumented", "undocumented"] == shown["stores"]
    assert ["read_back", "-", "-"] == shown["settle_by"]


@pytest.mark.usefixtures("two")
def test_a_legend_below_the_table_says_what_its_words_mean() -> None:
    _, legend = check(0, run("features", "--markdown")).stdout.split("\n\n")
    assert "yes: the API has it; emulated: chatbridge makes up for it; -: neither" in legend


@pytest.mark.usefixtures("two")
def test_names_and_config_strings_choose_the_columns_and_their_order() -> None:
    assert ["odd", "fake", "odd"] == titles("odd", "fake:", "odd://host?team=x")


@pytest.mark.usefixtures("two")
def test_the_names_of_the_config_file_do_as_well(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[backends.work]\nurl = "odd:?mode=all"\n')
    shown = check(0, run("features", "--markdown", "work", env={"CHATBRIDGE_CONFIG": str(config)}))
    assert ["odd mode=all"] == table(shown)["backend"]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("url", "title"),
    [
        ("odd:?mode=all&team=x&timeout=5&key=env:UNSET", "odd mode=all"),
        ("odd:all", "odd mode=all"),
        ("odd:?mode=some", "odd"),
        (f"strict:?team=x&tenant={TENANT}&shard=100", "strict team=x"),
        (f"strict://host?team=x&lead=ada&tenant={TENANT}", "strict lead=ada team=x"),
        ("strict:?team=a%7Cb%1B[31m", "strict team=a\\|b\\\\x1b\\[31m"),
    ],
)
def test_a_column_is_named_after_its_backend_and_the_options_that_change_what_it_can_do(
    url: str, title: str
) -> None:
    assert [title] == titles(url)


@pytest.mark.usefixtures("two")
def test_options_change_what_is_shown() -> None:
    shown = table(check(0, run("features", "--markdown", "strict", "strict:?team=x&lead=ada")))
    assert ["yes", "-"] == shown["send"]
    assert ["-", "yes"] == shown["create"]
    assert ["-", "yes"] == shown["tools"]
    assert ["yes", "-"] == shown["model="]


# Options that are required


@pytest.mark.usefixtures("two")
def test_what_a_backend_requires_may_be_missing_though_it_has_no_public_host() -> None:
    shown = json.loads(check(0, run("describe", "strict", "--json")).stdout)
    assert {"key", "tenant", "shard"} == {each["name"] for each in shown["options"] if each["required"]}
    assert ["strict://HOST:PORT/PATH", "strict+http://127.0.0.1:PORT", "...?NAME=VALUE&NAME=VALUE"] == list(
        shown["config"]
    )
    assert "native" == json.loads(run("describe", "strict:?team=x", "--json").stdout)["features"]["create"]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("command", ["describe", "features"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("tenant=mine", "strict: option 'tenant' = 'mine' must match regex"),
        ("shard=5", "strict: option 'shard' = '5' must be >= 100"),
        ("lead=ada", "strict: lead needs a team"),
        ("teem=x", "did you mean 'team'?"),
    ],
)
def test_what_is_given_is_checked(command: str, options: str, words: str) -> None:
    assert words in failure(2, command, f"strict:?{options}")


# As JSON


@pytest.mark.usefixtures("two")
def test_as_json_it_is_an_array_of_what_describe_tells() -> None:
    (shown,) = json.loads(check(0, run("features", "odd:?mode=all", "--json")).stdout)
    described = json.loads(check(0, run("describe", "odd:?mode=all", "--json")).stdout)
    assert {"title": "odd mode=all", "error": None, "name": "odd"} == {
        name: shown.pop(name) for name in ("title", "error", "name")
    }
    assert {name: described[name] for name in shown} == shown
    assert {"features", "send_options", "context", "stores", "settle_by"} <= set(shown)


def test_it_is_either_json_or_markdown() -> None:
    assert "choose one of --markdown and --json" == failure(2, "features", "--json", "--markdown")


# What is broken


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let a backend be installed that works, and three that do not."""
    (tmp_path / "raises_at_once.py").write_text("raise RuntimeError('out of \\x1b[31morder')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    install(
        monkeypatch,
        absent="no_such_module:ADAPTER",
        fake="chatbridge.testing.fake:ADAPTER",
        puzzled="cli_kit:PUZZLED",
        raising="raises_at_once:ADAPTER",
    )


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("flag", [[], ["--markdown"], ["--json"]])
def test_an_installed_backend_that_is_broken_is_noted_and_makes_it_fail(flag: list[str]) -> None:
    result = check(1, run("features", *flag))
    absent, puzzled, raising = result.stderr.splitlines()
    assert absent.startswith("chatbridge: absent is broken: the backend 'absent' is installed and cannot")
    assert "chatbridge: puzzled is broken: describing it raises LookupError: no such model" == puzzled
    assert raising.endswith("raising is broken: importing it raises RuntimeError: out of \\x1b[31morder")
    assert "fake" in result.stdout


@pytest.mark.usefixtures("broken")
def test_it_has_no_column_and_its_document_says_why() -> None:
    assert ["fake"] == table(check(1, run("features", "--markdown")))["backend"]
    shown = json.loads(run("features", "--json").stdout)
    assert ["absent", "fake", "puzzled", "raising"] == [each["name"] for each in shown]
    assert {
        "name": "puzzled",
        "title": "puzzled",
        "error": "describing it raises LookupError: no such model",
    } == shown[2]


@pytest.mark.usefixtures("broken")
def test_one_that_is_named_and_broken_is_an_error() -> None:
    assert "the backend 'absent' is installed and cannot be loaded" in failure(
        2, "features", "fake", "absent"
    )
    assert "no chat backend named 'none' is installed" in failure(2, "features", "none:")


# At a terminal


@pytest.mark.usefixtures("two")
def test_a_person_sees_it_in_colour_in_the_words_of_describe() -> None:
    result = check(0, run("features", "strict", "fake", output=Output(terminal=True)))
    assert "\x1b[33memulated" in result.stdout
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    rows = {line.split()[0]: line.split()[1:] for line in plain.splitlines() if line.split()}
    assert ["native", "native"] == rows["send"]
    assert ["unsupported", "native"] == rows["get"]
    assert ["unsupported", "native"] == rows["system="]
    assert ["undocumented", "with"] == rows["stores"]


@pytest.mark.usefixtures("two")
def test_a_title_of_several_words_takes_several_lines_rather_than_more_room() -> None:
    lines = check(0, run("features", *["strict:?team=somebody"] * 4)).stdout.splitlines()
    assert [["strict"] * 4, ["backend", *["team=somebody"] * 4]] == [line.split() for line in lines[1:3]]
    assert 80 >= max(map(len, lines))


@pytest.mark.parametrize("width", [36, 50, 79, 80, 81, 120, 200])
def test_tables_stay_within_the_width_and_break_no_cell(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = [f"backend-{number}" for number in range(12)]
    cells = [Text("undocumented") for _ in names]
    draw_beside(names, [[("max_output_tokens=", cells)], [("stores", cells)]], Output())
    lines = capsys.readouterr().out.splitlines()
    assert width >= max(map(len, lines))
    assert names == [word for line in lines for word in line.split() if word.startswith("backend-")]
    assert 24 == sum(line.count("undocumented") for line in lines)
