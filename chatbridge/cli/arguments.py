"""What several commands take, and the bridge and the store that it leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import evolve

from chatbridge.backend import Feature
from chatbridge.bridge import Bridge, connect
from chatbridge.cli.describe import secret_options
from chatbridge.cli.keys import Keys
from chatbridge.cli.output import Output
from chatbridge.cli.stores import NOWHERE, Choice, Place, account_of, address, last_used
from chatbridge.completing import is_kept_here
from chatbridge.config import BackendURL
from chatbridge.errors import UsageError
from chatbridge.filling import from_store
from chatbridge.history import Remote
from chatbridge.named import find_backend, known_backends
from chatbridge.registry import load_adapter, resolve
from chatbridge.secret import Secret

__all__ = [
    "ask_key",
    "choice",
    "debug",
    "example",
    "json",
    "limit",
    "open_bridge",
    "open_last",
    "pairs",
    "raw",
    "save_key",
    "stored",
]

F = TypeVar("F", bound=Callable[..., Any] | click.Command)

_CHOICE = "chatbridge.cli.store"


def example(*lines: str) -> str:
    """Write an epilogue that shows *lines*."""
    return "\b\n" + "\n".join(("Examples:" if len(lines) > 1 else "Example:", *(f"  {x}" for x in lines)))


def _set_debug(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    if value:
        context.ensure_object(Output).debug = True


def _set_raw(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    if value:
        context.ensure_object(Output).raw = True


def pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """
    Read values of the form NAME=VALUE; of one name the last counts.

    Raises:
        click.BadParameter: One is of another form.
    """
    read: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        read[name] = value
    return read


def choice() -> Choice:
    """Give what the command that runs was told of the store."""
    chosen: Choice = click.get_current_context().meta.setdefault(_CHOICE, Choice())
    return chosen


def _set_store(_: click.Context, __: click.Parameter, value: str | None) -> None:
    if value is not None:
        choice().named = value


def _set_no_store(_: click.Context, __: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    if value:
        choice().nothing = True


debug = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_debug,
    help="Show a traceback with an error.",
)
raw = click.option(
    "--raw",
    is_flag=True,
    expose_value=False,
    callback=_set_raw,
    help="Print what is said as it is, not with terminal controls escaped.",
)
json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option("--limit", metavar="N", type=click.IntRange(1), help="Show N at most.")
ask_key = click.option("--ask-key", is_flag=True, help="Ask for the key at the terminal, without showing it.")
save_key = click.option(
    "--save-key",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, resolve_path=True, path_type=Path),
    help="Save the key that the server gives out, for key=file:FILE next time.",
)


def stored(command: F) -> F:
    """Give *command* the options that choose the store."""
    store = click.option(
        "--store",
        metavar="STORE",
        expose_value=False,
        callback=_set_store,
        help="Where conversations are kept: sqlite:///FILE or postgresql://USER@HOST/DATABASE; by default "
        "$CHATBRIDGE_STORE, else a file in your data directory.",
    )
    no_store = click.option(
        "--no-store",
        is_flag=True,
        expose_value=False,
        callback=_set_no_store,
        help="Keep nothing, and write nothing anywhere.",
    )
    return store(no_store(command))


def open_bridge(
    url: str | BackendURL | None,
    output: Output,
    *,
    ask_key: bool,
    keys: Keys | None = None,
    new: bool = True,
    to: Feature | None = None,
) -> Bridge:
    """
    Make a bridge to the backend that *url* names, with the store that was chosen.

    Args:
        url: How the user names the backend; None for the default.
        output: Where a key is asked for.
        ask_key: Whether it is.
        keys: What becomes of those that the server gives out.
        new: Whether the store's file is made, where there is none.
        to: What alone it is for; the store is not touched, where the backend does that itself.

    Raises:
        ConfigError: Naming the part at fault.
        StoreError: There is no place for the store.
        UsageError: There is no such store, and none is to be made.
    """
    backend = url if isinstance(url, BackendURL) else find_backend(None if url in {None, "-"} else url)
    adapter = load_adapter(backend.scheme)
    given: dict[str, Any] = {}
    if ask_key:
        if not output.typed:
            raise UsageError("--ask-key needs a terminal to ask at")
        for name in secret_options(adapter):
            typed: str = click.prompt(f"{backend.scheme} {name}", hide_input=True, err=True)
            given[name] = Secret(typed)
    chosen = choice()
    chosen.url = url if isinstance(url, str) and url != "-" else str(backend)
    place = chosen.to_talk(in_process=adapter.defaults.in_process)
    if to is not None:
        target = resolve(backend, given)
        profile = target.adapter.profile(target.options)
        if not is_kept_here(profile) and to not in from_store(profile):
            place = Place(NOWHERE)
    store = place.store(new=new)
    bridge = connect(backend, store=store if place.named is None else place.named, **given)
    if keys is not None:
        keys.watch(bridge, backend)
    place.prepare(store)
    if place.named is None:
        click.get_current_context().call_on_close(lambda: asyncio.run(store.close()))
    return bridge


def open_last(output: Output, *, ask_key: bool, keys: Keys) -> Bridge:
    """
    Make a bridge to the backend of the conversation that was used last.

    Raises:
        UsageError: There is none, or the user has named no backend that leads there.
    """
    account = asyncio.run(_last_account(choice().to_read()))
    for url in known_backends():
        if url.scheme == account.backend:
            bridge = open_bridge(url, output, ask_key=ask_key, keys=keys, new=False)
            if account_of(bridge) == account:
                return bridge
    raise UsageError(
        f"the conversation last used is kept by {account}, and neither the default backend nor one in the "
        f"config file is that: name it, as in: {choice().command('chat', '--continue', address(account))}"
    )


async def _last_account(place: Place) -> Remote:
    async with place.open() as store:
        return evolve((await last_used(store)).remote, id="")
