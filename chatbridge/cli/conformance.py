"""`chatbridge conformance`: every rule of the contract tried over one backend."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from attrs import asdict
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from chatbridge.backend import Feature
from chatbridge.bridge import connect
from chatbridge.cli.describe import find
from chatbridge.cli.features import escape_markdown
from chatbridge.cli.output import Output, one_line
from chatbridge.cli.plain import Json
from chatbridge.cli.rules import Contract, FakeContract, summary
from chatbridge.config import BackendURL
from chatbridge.errors import NotFound, UsageError
from chatbridge.option_types import describe_options
from chatbridge.registry import Adapter, load_adapter
from chatbridge.testing import fake
from chatbridge.testing.checking import UNKNOWN
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.contract import Result, taciturn
from chatbridge.testing.emulator import Emulator, serve

__all__ = ["conform", "report"]

_STYLES = {"kept": "green", "BROKEN": "bold red", "skipped": "dim"}


async def conform(text: str, *, emulated: bool, live: bool) -> Sequence[Result]:
    """
    Try the rules over the backend of *text*, a config string or a name.

    Args:
        text: Which backend.
        emulated: Use the emulator that its adapter names, with the options of *text*.
        live: Whether a model answers, which says what it likes.

    Raises:
        ConfigError: There is no such backend, or it has no emulator.
        UsageError: A host is named, and the emulator asked for.
    """
    url = find(text)
    adapter = load_adapter(url.scheme)
    contract = FakeContract if adapter.name == fake.NAME else Contract
    if not emulated:
        await _reach(url)
        tried = contract(partial(connect, url), live=live)
        tried.TIDY = True
        return await tried.run()
    if url.host is not None:
        raise UsageError(f"the emulator of {adapter.name} runs in this process: leave out the host")
    emulator: Emulator = adapter.load_emulator()(responder=taciturn)
    async with serve(emulator) as at:
        there = _with_documents(adapter, BackendURL.parse(at.config).with_options(**url.options))
        open_bridge = partial(connect, there, clock=ManualClock(), **at.credentials)
        return await contract(open_bridge, emulator, live=live).run()


async def _reach(url: BackendURL) -> None:
    """
    See that the backend of *url* can be asked at all.

    Raises:
        ConfigError: It cannot be opened.
        ChatbridgeError: It cannot be reached, or does not take the key.
    """
    async with connect(url) as bridge:
        own = bridge.backend.profile
        if own.can(Feature.LIST):
            async for _ in bridge.conversations():
                break
        elif own.can(Feature.GET):
            with suppress(NotFound):
                await bridge.open(UNKNOWN).refresh()


def _with_documents(adapter: Adapter, url: BackendURL) -> BackendURL:
    """Name a collection, as an answer has references only where there are documents."""
    known = {info.name for info in describe_options(adapter.options, {})}
    return url.with_options(collection="demo") if "collection" in known - set(url.options) else url


def report(results: Sequence[Result], output: Output, *, as_json: bool, as_markdown: bool) -> bool:
    """Show *results*, and tell whether no rule is broken."""
    if as_json:
        output.json([_plain(result) for result in results])
    elif as_markdown:
        rows = [("rule", "", "because"), ("---",) * 3, *map(_row, results)]
        output.write("\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows))
    else:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for title in ("rule", "", "because"):
            table.add_column(title, overflow="fold")
        for result in results:
            rule, word, because = _row(result)
            table.add_row(Text(rule), Text(word, _STYLES[word]), Text(one_line(because)))
        output.draw(table, Text(summary(results)))
    return not any(result.problem for result in results)


def _plain(result: Result) -> Json:
    return {**asdict(result), "result": _row(result)[1].lower()}


def _row(result: Result) -> tuple[str, str, str]:
    if result.problem is not None:
        return result.rule, "BROKEN", f"{result.check}: {result.problem}"
    return result.rule, "kept" if result.skipped is None else "skipped", result.skipped or ""


def _cell(text: str) -> str:
    return text if text == "---" else escape_markdown(one_line(text))
