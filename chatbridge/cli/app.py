"""The commands: their arguments and their help; what they do is in the modules beside this one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from chatbridge.backend import Feature
from chatbridge.bridge import Bridge
from chatbridge.cli import arguments, history
from chatbridge.cli.arguments import choice, example, open_bridge, open_last
from chatbridge.cli.chat import Talk, advised, after, create, first_in, warn
from chatbridge.cli.conformance import conform, report
from chatbridge.cli.describe import describe as describe_backend
from chatbridge.cli.describe import list_backends
from chatbridge.cli.emulate import emulate as serve_emulator
from chatbridge.cli.features import compare
from chatbridge.cli.keys import Keys
from chatbridge.cli.output import Output, one_line
from chatbridge.cli.plain import plain, plain_reply
from chatbridge.cli.program import FAILED, MISUSED, Program
from chatbridge.cli.stage import perform
from chatbridge.cli.stores import find_chat
from chatbridge.errors import StoreError, UsageError

__all__ = ["app"]


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example(
        "chatbridge demo",
        "chatbridge chat h2ogpte://h2ogpte.example.com?llm=auto",
    )
    + "\n\nExit codes: 0 done, 1 the backend failed, 2 usage or configuration, 130 Ctrl-C.",
)
@click.version_option(package_name="chatbridge", prog_name="chatbridge", message="%(prog)s %(version)s")
@arguments.debug
@click.pass_context
def app(context: click.Context) -> int:
    """
    Hold conversations over chat APIs, whoever's they are.

    A URL is a config string such as h2ogpte://HOST, the name of a backend in the config file, or '-' for
    the default ($CHATBRIDGE_BACKEND, else the config file's). Keys come from the environment, from a file
    (key=file:PATH) or from --ask-key. What goes over chat and send is kept in a store, which conversations,
    turns and settle read.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return MISUSED
    return 0


@app.command(epilog=example("chatbridge demo"))
@arguments.debug
@click.pass_obj
def demo(output: Output) -> int:
    """
    Show one conversation over every backend.

    The servers are emulators: nothing leaves this machine. After the conversation each backend is held to
    the rules of the contract, so all that it claims is tried; the exit code is 1 if something of it did
    not work, a rule is broken, or a backend cannot be loaded.
    """
    return 0 if asyncio.run(perform(output)) else FAILED


@app.command(
    epilog=example(
        "chatbridge chat fake:",
        "chatbridge chat --continue",
        "printf 'Hello\\nAnd now?\\n' | chatbridge chat fake:",
    )
)
@click.argument("url", required=False)
@click.option("--conversation", "-c", metavar="ID", help="Go on with this one instead of a new one.")
@click.option("--continue", "go_on", is_flag=True, help="Go on with the one that was used last.")
@arguments.stored
@arguments.raw
@arguments.ask_key
@arguments.save_key
@arguments.debug
@click.pass_obj
def chat(
    output: Output,
    url: str | None,
    conversation: str | None,
    *,
    go_on: bool,
    ask_key: bool,
    save_key: Path | None,
) -> int:
    """
    Talk; the answers are streamed.

    Through a pipe, each line of stdin is a message (or a command, /help shows them), answers go to stdout,
    and the first failure ends it. --continue without URL goes on with whatever backend was used last, if it
    is the default or in the config file; at a terminal it shows the last lines first. An ID is the
    backend's, or the store's.
    """
    if go_on and conversation is not None:
        raise UsageError("choose one of --continue and --conversation")
    keys = Keys(output, save_key)
    if go_on:
        choice().to_read()
    if go_on and url is None:
        bridge = open_last(output, ask_key=ask_key, keys=keys)
    else:
        bridge = open_bridge(url, output, ask_key=ask_key, keys=keys, new=not go_on)
    Talk(bridge, output).run(conversation, go_on=go_on)
    return FAILED if keys.lost else 0


@app.command(
    epilog=example(
        'chatbridge send kaziro: "Which markets close today?"',
        "git diff | chatbridge send fake: - --json",
    )
)
@click.argument("url")
@click.argument("text")
@click.option("--conversation", "-c", metavar="ID", help="Send to this one instead of a new one.")
@click.option(
    "--delete", is_flag=True, help="Delete the conversation after the answer; not if there is none."
)
@arguments.json
@arguments.stored
@arguments.raw
@arguments.ask_key
@arguments.save_key
@arguments.debug
@click.pass_obj
def send(  # one argument for each of the command line's
    output: Output,
    url: str,
    text: str,
    conversation: str | None,
    *,
    delete: bool,
    as_json: bool,
    ask_key: bool,
    save_key: Path | None,
) -> int:
    """
    Send one message and print the answer.

    The conversation's id goes to stderr. TEXT may be '-' for what is on stdin. An answer that cannot be
    stored is printed all the same, and the exit code is 1.
    """
    keys = Keys(output, save_key)
    bridge = open_bridge(url, output, ask_key=ask_key, keys=keys)
    try:
        asyncio.run(_send(bridge, output, text, conversation, delete=delete, as_json=as_json))
    except KeyboardInterrupt:
        output.note("chatbridge: interrupted; a message that was under way may have arrived")
        raise
    return FAILED if keys.lost else 0


def _stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeError:
        pass
    raise UsageError("what was piped in is not UTF-8")


async def _send(
    bridge: Bridge, output: Output, text: str, conversation: str | None, *, delete: bool, as_json: bool
) -> None:
    text = _stdin() if text == "-" else text
    if not text.strip():
        raise UsageError("there is nothing to send")
    unstored: StoreError | None = None
    async with bridge:
        if delete:
            bridge.require(Feature.DELETE)
        with output.waiting(f"waiting for {bridge.profile.name}"):
            talk = await (create(bridge, output) if conversation is None else find_chat(bridge, conversation))
            try:
                if conversation is None:
                    async with first_in(talk, output):
                        reply = await talk.send(text)
                else:
                    output.note(f"conversation: {talk.id}")
                    with advised(bridge.profile):
                        reply = await talk.send(text)
            except StoreError as error:
                if error.reply is None:
                    raise
                reply, unstored = error.reply, error
        if as_json:
            output.json(plain_reply(reply, talk.conversation))
        else:
            output.write(reply.text)
            warn(reply, output)
        if delete:
            with after("the message was answered"):
                await talk.delete()
    if unstored is not None:
        raise unstored


@app.command(epilog=example("chatbridge backends"))
@arguments.json
@arguments.debug
@click.pass_obj
def backends(output: Output, *, as_json: bool) -> None:
    """List the installed backends."""
    found = list(list_backends())
    if as_json:
        return output.json(plain(found))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "emulator", "summary"):
        table.add_column(heading, overflow="fold")
    for listed in found:
        broken = Text(f"broken: {one_line(listed.error)}", "red") if listed.error is not None else None
        summary = broken or Text(listed.summary or "")
        table.add_row(Text(listed.name, "cyan"), "yes" if listed.emulator else "no", summary)
    return output.draw(table)


@app.command(epilog=example("chatbridge describe h2ogpte", "chatbridge describe fake --json"))
@click.argument("scheme")
@arguments.json
@arguments.debug
@click.pass_obj
def describe(output: Output, scheme: str, *, as_json: bool) -> None:
    """
    Tell what a backend can do, and its options.

    It needs no key and no network. In place of SCHEME a config string does, or the name of a backend in
    the config file, where options change what can be done. "emulated" is what the API lacks and chatbridge
    makes up for.
    """
    description = describe_backend(scheme)
    if as_json:
        return output.json(description.plain())
    return output.draw(*description.shown())


@app.command(epilog=example("chatbridge features", "chatbridge features kaziro h2ogpte --markdown"))
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a table of Markdown, as GitHub has it.")
@arguments.json
@arguments.debug
@click.pass_obj
def features(output: Output, urls: tuple[str, ...], *, as_markdown: bool, as_json: bool) -> int:
    """
    Compare what backends can do.

    It needs no key and no network. In place of a URL the name of a backend does; without any, all that are
    installed are compared. A column is named after its backend and the options that change what it can do.
    """
    if as_markdown and as_json:
        raise UsageError("choose one of --markdown and --json")
    return 0 if compare(urls, output, as_markdown=as_markdown, as_json=as_json) else FAILED


@app.command(
    epilog=example(
        "chatbridge conformance fake:",
        "chatbridge conformance --emulator 'h2ogpte:?collection=maples'",
        "chatbridge conformance --live h2ogpte://h2ogpte.example.com",
    )
)
@click.argument("url")
@click.option("--emulator", "emulated", is_flag=True, help="Use the emulator of the API, and try faults too.")
@click.option("--live", is_flag=True, help="A model answers: leave out what needs to know its words.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a table of Markdown, as GitHub has it.")
@arguments.json
@arguments.debug
@click.pass_obj
def conformance(
    output: Output, url: str, *, emulated: bool, live: bool, as_markdown: bool, as_json: bool
) -> int:
    """
    Hold a backend to every rule of the contract.

    In place of a URL the name of a backend does. The rules send messages, and make conversations, which they
    delete where the API can. Without --live the answers must be those of an emulator. The exit code is 1 if
    a rule is broken.
    """
    if as_markdown and as_json:
        raise UsageError("choose one of --markdown and --json")
    results = asyncio.run(conform(url, emulated=emulated, live=live))
    return 0 if report(results, output, as_json=as_json, as_markdown=as_markdown) else FAILED


@app.command(
    epilog=example(
        "chatbridge emulate h2ogpte --port 8101",
        "chatbridge emulate kaziro --json",
        "chatbridge emulate mtmai --key joe:sesame",
        "chatbridge emulate openai --set mode=llamacpp --set context=2000",
        "chatbridge emulate openai --set mode=ollama --set models=llama3.2",
    )
)
@click.argument("name")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port; by default a free one.")
@click.option(
    "--key",
    metavar="KEY",
    help="The key to accept. It is no secret: it opens nothing else, and is shown.",
)
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    callback=arguments.pairs,
    help="How it is to behave; one that it does not have is answered with those that it has.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='When ready, print one line: {"name", "base_url", "config", "env"}.',
)
@arguments.debug
@click.pass_obj
def emulate(
    output: Output,
    name: str,
    host: str,
    port: int,
    *,
    key: str | None,
    settings: dict[str, str],
    as_json: bool,
) -> None:
    """
    Serve an emulator of the API NAME.

    It runs until Ctrl-C or SIGTERM, and answers as the API's documents say, from memory.
    `chatbridge backends` shows who has one. What its key may be, `chatbridge describe NAME` says: one that
    is NAME:PASSWORD serves auth=basic too, where the API has that. A list is set with
    commas, as in models=llama3.2,gemma3.
    """
    asyncio.run(serve_emulator(name, host, port, output, key=key, settings=settings, as_json=as_json))


for command in (history.conversations, history.settle, history.turns):
    app.add_command(command)
