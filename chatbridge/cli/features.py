"""`chatbridge features`: what backends can do, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from attrs import fields
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from chatbridge.backend import Feature, Profile, Support
from chatbridge.cli.describe import STYLES, Description, Listed, describe, list_backends, plain_profile
from chatbridge.cli.output import Output, one_line
from chatbridge.cli.plain import Json
from chatbridge.domain import SendOptions

__all__ = ["compare", "draw_beside", "escape_markdown"]

COLUMN = 14
"""How wide a backend's column is at least, with the blanks beside it."""

WORDS = {Support.NATIVE: "yes", Support.EMULATED: "emulated", Support.UNSUPPORTED: "-"}
"""How Markdown says it."""

LEGEND = (
    "yes: the API has it; emulated: chatbridge makes up for it; -: neither; NAME=: an option of a message."
)

OPTIONS = tuple(each.name for each in fields(SendOptions) if each.name not in {"include", "extra"})
"""What a message may be sent with. What may be included are features, and `extra` differs."""

Row = tuple[str, Sequence[Support | str]]

_MEANING = re.compile(r"[\\`*_|<>\[\]&~]")
"""What means something in a cell of Markdown."""


def compare(texts: Sequence[str], output: Output, *, as_markdown: bool, as_json: bool) -> bool:
    """
    Show what the backends of *texts* can do, names or config strings, or else all that are installed.

    Returns:
        Whether none of them is broken.

    Raises:
        ConfigError: Of one in *texts* there is none, it is broken, or an option is wrong.
    """
    compared: list[Description | Listed] = [describe(text) for text in texts]
    if not texts:
        compared += [_described(each) for each in list_backends()]
    described = [each for each in compared if isinstance(each, Description)]
    if as_json:
        output.json([_plain(each) for each in compared])
    elif as_markdown:
        output.write(_markdown(described))
    else:
        _draw(described, output)
    for each in compared:
        if isinstance(each, Listed):
            output.note(f"chatbridge: {each.name} is broken: {each.error}")
    return len(described) == len(compared)


def _described(listed: Listed) -> Description | Listed:
    if listed.error is not None:
        return listed
    try:
        return describe(listed.name)
    except Exception as error:  # noqa: BLE001 - a stranger's options and profile may raise anything
        return Listed(listed.name, error=f"describing it raises {type(error).__name__}: {error}")


def _plain(each: Description | Listed) -> Json:
    if isinstance(each, Listed):
        return {"name": each.name, "title": each.name, "error": each.error}
    return {"name": each.adapter.name, "title": each.title, "error": None, **plain_profile(each.profile)}


def _sections(profiles: Sequence[Profile]) -> Iterator[list[Row]]:
    yield [(feature.value, [profile.support(feature) for profile in profiles]) for feature in Feature]
    yield [
        ("context", [profile.context.value for profile in profiles]),
        ("stores", [profile.stores.value for profile in profiles]),
        ("settle_by", [", ".join(sorted(profile.settle_by)) or "-" for profile in profiles]),
    ]
    yield [(f"{name}=", [_honoured(name, profile) for profile in profiles]) for name in OPTIONS]


def _honoured(option: str, profile: Profile) -> Support:
    return Support.NATIVE if option in profile.options else Support.UNSUPPORTED


def escape_markdown(text: str) -> str:
    """Escape what means something in a cell of Markdown."""
    return _MEANING.sub(r"\\\g<0>", text)


def _markdown(described: Sequence[Description]) -> str:
    titles = [escape_markdown(one_line(each.title)) for each in described]
    lines = [["backend", *titles], ["---"] * (len(titles) + 1)]
    for section in _sections([each.profile for each in described]):
        lines += [[name, *map(_word, cells)] for name, cells in section]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{LEGEND}"


def _word(cell: Support | str) -> str:
    return WORDS[cell] if isinstance(cell, Support) else cell


def _draw(described: Sequence[Description], output: Output) -> None:
    sections = [
        [(name, [_text(cell) for cell in cells]) for name, cells in section]
        for section in _sections([each.profile for each in described])
    ]
    draw_beside([one_line(each.title) for each in described], sections, output)
    output.draw(Text("emulated: chatbridge makes up for it   NAME=: an option of a message", style="dim"))


def _text(cell: Support | str) -> Text:
    return Text(cell, STYLES[cell]) if isinstance(cell, Support) else Text(cell)


def draw_beside(
    titles: Sequence[str], sections: Sequence[Sequence[tuple[str, Sequence[Text]]]], output: Output
) -> None:
    """Draw *sections* of rows, a name and a cell for each title, in as many tables as fit side by side."""
    names = max(len(name) for section in sections for name, _ in section)
    beside = max(1, (output.console().width - names - 2) // COLUMN)
    for first in range(0, len(titles), beside):
        shown = slice(first, first + beside)
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("backend", no_wrap=True)
        for title in titles[shown]:
            table.add_column(Text(title), overflow="fold", min_width=COLUMN - 2)
        for section in sections:
            table.add_section()
            for name, cells in section:
                table.add_row(name, *cells[shown])
        output.draw(table)
