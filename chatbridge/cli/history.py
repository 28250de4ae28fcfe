"""The commands over what was said: conversations, turns, settle."""

from __future__ import annotations

import asyncio

import click

from chatbridge.backend import Feature
from chatbridge.bridge import Bridge
from chatbridge.cli import arguments, stored
from chatbridge.cli import conversations as kept
from chatbridge.cli.arguments import choice, example, open_bridge
from chatbridge.cli.output import Output
from chatbridge.cli.program import FAILED, ListByDefault
from chatbridge.cli.stores import account_of
from chatbridge.errors import UsageError

__all__ = ["conversations", "settle", "turns"]

_BACKEND = "chatbridge.cli.backend"


@click.group(
    cls=ListByDefault,
    no_args_is_help=False,
    subcommand_metavar="[COMMAND [ARGS]...]",
    epilog=example(
        "chatbridge conversations",
        "chatbridge conversations --search maple",
        "chatbridge conversations h2ogpte:",
        "chatbridge conversations forget 09d3f6a1c2b44e57",
        "chatbridge conversations h2ogpte: show 5f0c7d8e --json",
        'chatbridge conversations h2ogpte: rename 5f0c7d8e "Kyoto, with maples"',
    ),
)
@click.argument("url", metavar="URL", required=False)
@arguments.stored
@arguments.ask_key
@arguments.debug
@click.pass_context
def conversations(context: click.Context, url: str | None, *, ask_key: bool) -> None:
    """
    List, show, rename, delete or forget conversations.

    Without a command, list them: with a URL those that the backend keeps, without one those that the store
    has of all backends, the last used first. An ID is the backend's, or the store's.
    """
    context.meta[_BACKEND] = url, ask_key


def _check_asked(url: str | None, *, ask_key: bool) -> None:
    if url is None and ask_key:
        raise UsageError("--ask-key is for a backend: name one, with its URL")


def _named(output: Output) -> Bridge:
    url, ask_key = click.get_current_context().meta[_BACKEND]
    return open_bridge(url, output, ask_key=ask_key)


@conversations.command(
    "list",
    epilog=example("chatbridge conversations fake: list --json", "chatbridge conversations --search maple"),
)
@click.option("--search", metavar="TEXT", help="Show what was said with all these words, of the store alone.")
@arguments.limit
@arguments.json
@arguments.stored
@arguments.debug
@click.pass_obj
def list_(output: Output, search: str | None, limit: int | None, *, as_json: bool) -> None:
    """
    List them; without a URL those that the store has.

    Through a pipe a line each, with tabs between: id, time and title; without a URL the store's id, time,
    backend, account, number of messages, 'deleted' or nothing, and title; with --search the store's id,
    time, who said it and what, the words in brackets.
    """
    url, ask_key = click.get_current_context().meta[_BACKEND]
    _check_asked(url, ask_key=ask_key)
    if url is not None and search is not None:
        raise UsageError("--search looks into the store, over all backends: leave out the URL")
    if url is not None:
        bridge = open_bridge(url, output, ask_key=ask_key, new=False, to=Feature.LIST)
        asyncio.run(kept.list_all(bridge, output, limit=limit, as_json=as_json))
    elif search is not None:
        asyncio.run(stored.search(choice().to_read(), search, output, limit=limit, as_json=as_json))
    else:
        asyncio.run(stored.list_all(choice().to_read(), output, limit=limit, as_json=as_json))


@conversations.command(epilog=example("chatbridge conversations h2ogpte: show 5f0c7d8e"))
@click.argument("conversation_id", metavar="ID")
@arguments.json
@arguments.stored
@arguments.raw
@arguments.debug
@click.pass_obj
def show(output: Output, conversation_id: str, *, as_json: bool) -> None:
    """Show one, with its messages where the backend shows them."""
    asyncio.run(kept.show(_named(output), conversation_id, output, as_json=as_json))


@conversations.command(epilog=example('chatbridge conversations h2ogpte: rename 5f0c7d8e "In autumn"'))
@click.argument("conversation_id", metavar="ID")
@click.argument("title")
@arguments.json
@arguments.stored
@arguments.debug
@click.pass_obj
def rename(output: Output, conversation_id: str, title: str, *, as_json: bool) -> None:
    """Give one another title."""
    asyncio.run(kept.rename(_named(output), conversation_id, title, output, as_json=as_json))


@conversations.command(epilog=example("chatbridge conversations h2ogpte: delete 5f0c7d8e"))
@click.argument("conversation_id", metavar="ID")
@arguments.json
@arguments.stored
@arguments.debug
@click.pass_obj
def delete(output: Output, conversation_id: str, *, as_json: bool) -> None:
    """Delete one on the server; it is not asked for again."""
    asyncio.run(kept.delete(_named(output), conversation_id, output, as_json=as_json))


@conversations.command(
    epilog=example(
        "chatbridge conversations kaziro: forget 5f0c7d8e", "chatbridge conversations forget 09d3f6a1c2b44e57"
    )
)
@click.argument("conversation_id", metavar="ID")
@arguments.json
@arguments.stored
@arguments.debug
@click.pass_obj
def forget(output: Output, conversation_id: str, *, as_json: bool) -> None:
    """
    Drop one, with its doubts, from the store alone.

    The server keeps it. Without a URL the ID is the store's.
    """
    url, ask_key = click.get_current_context().meta[_BACKEND]
    _check_asked(url, ask_key=ask_key)
    place = choice().to_read()
    if url is None:
        asyncio.run(stored.forget(place, conversation_id, output, as_json=as_json))
    else:
        bridge = open_bridge(url, output, ask_key=ask_key, new=False)
        asyncio.run(kept.forget(bridge, conversation_id, output, as_json=as_json))


@click.command(epilog=example("chatbridge turns", "chatbridge turns kaziro: --all --json"))
@click.argument("url", required=False)
@click.option("--all", "everything", is_flag=True, help="Show all messages that were sent.")
@arguments.json
@arguments.stored
@arguments.ask_key
@arguments.debug
@click.pass_obj
def turns(output: Output, url: str | None, *, everything: bool, as_json: bool, ask_key: bool) -> None:
    """
    List the messages in doubt, oldest first.

    Of all backends that the store has, or of one: those that may have arrived (unknown), arrived without an
    answer that is here (accepted), or are on their way (pending). Through a pipe a line each, with tabs
    between: id, state, time, backend, account, the store's id of the conversation, message.
    """
    _check_asked(url, ask_key=ask_key)
    place = choice().to_read()
    account = None if url is None else account_of(open_bridge(url, output, ask_key=ask_key, new=False))
    asyncio.run(stored.turns(place, account, output, everything=everything, as_json=as_json))


@click.command(
    epilog=example(
        "chatbridge settle h2ogpte:",
        "chatbridge settle kaziro: --waive 0c5f4e1b-6d5b-4f0e-8c39-5b1f3a7a9d42",
    )
)
@click.argument("url")
@click.argument("conversation", required=False)
@click.option("--waive", metavar="TURN", help="Look for nothing: leave this message in doubt.")
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0),
    help="How long to look in each conversation; by default the backend's settle_timeout.",
)
@arguments.json
@arguments.stored
@arguments.ask_key
@arguments.raw
@arguments.debug
@click.pass_obj
def settle(  # one argument for each of the command line's
    output: Output,
    url: str,
    conversation: str | None,
    waive: str | None,
    wait: float | None,
    *,
    as_json: bool,
    ask_key: bool,
) -> int:
    """
    Find out what became of messages in doubt.

    Their conversations are read, or the one that is named; nothing is sent. Answers that are found go to
    stdout. A message that stays in doubt blocks the next one to its conversation until it is waived; the
    exit code is then 1, as it is where a conversation cannot be read.
    """
    if waive is not None and wait is not None:
        raise UsageError("choose one of --waive and --wait")
    choice().to_read()
    bridge = open_bridge(url, output, ask_key=ask_key, new=False)
    if waive is not None:
        asyncio.run(stored.waive(bridge, conversation, waive, output, as_json=as_json))
        return 0
    settled = asyncio.run(stored.settle(bridge, conversation, output, wait=wait, as_json=as_json))
    return 0 if settled else FAILED
