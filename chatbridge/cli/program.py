"""The frame of the command line: how its words are read, and what becomes of whatever fails."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from chatbridge.cli.output import Output, paragraph
from chatbridge.errors import ChatbridgeError, ChatbridgeWarning, MissingSecret, StoreError, UsageError

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "ListByDefault", "Program"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

_UNUSABLE = frozenset({"corrupt", "failed", "full", "gone", "newer", "read_only"})


class Program(click.Group):
    """The whole command line; any failure becomes one paragraph on stderr and an exit code."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # noqa: ANN401 - click's own
        """Run, and exit: 0 done, 1 the backend failed, 2 usage or configuration, 130 interrupted."""
        output: Output = extra.setdefault("obj", Output())
        extra["standalone_mode"] = False
        try:
            with _noted_warnings(output):
                code = _code(super().main(*args, **extra))
        except Exception as error:  # noqa: BLE001 - the last line of defence
            code = _explain(error, output)
        sys.exit(code)


class ListByDefault(click.Group):
    """
    A group whose commands follow a URL, and of which `list` is meant where none does.

    That needs no URL, nor does `forget` before an id. Options may stand anywhere: the group's own are its,
    others the command's.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Bring URL, command and options into their order; a command in the URL's place is misplaced."""
        flags: list[list[str]] = []
        words: list[str] = []
        rest = list(args)
        valued = self._with_values()
        while rest and len(words) < 2:  # noqa: PLR2004 - URL and command
            word = rest.pop(0)
            if word == "-" or not word.startswith("-"):
                words.append(word)
            else:
                flags.append([word, *(rest.pop(0) for _ in rest[:1] if word in valued)])
        own: set[str] = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        misplaced = words[0] if words and words[0] in self.commands else None
        named = bool(words) and misplaced is None
        if misplaced is not None:
            if not set(ctx.help_option_names).isdisjoint(args):
                own = set()
            elif words != ["list"] and not self._forgets(words, rest):
                right = f"{ctx.command_path} URL {misplaced}"
                raise click.UsageError(f"the URL comes before {misplaced!r}, as in: {right}", ctx)
            words = ["URL", *words]
        elif len(words) < 2:  # noqa: PLR2004 - the same
            words = [*(words or ["URL"]), "list"]
        mine = [word for flag in flags if flag[0].partition("=")[0] in own for word in flag]
        theirs = [word for flag in flags if flag[0].partition("=")[0] not in own for word in flag]
        left = super().parse_args(ctx, [*mine, *words, *theirs, *rest])
        if not named:
            ctx.params["url"] = None
        return left

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show that the URL may be left out together with the command."""
        *options, url, command = super().collect_usage_pieces(ctx)
        return [*options, f"[{url} {command}]"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the options of `list` too, which is meant where no command is."""
        super().format_options(ctx, formatter)
        own: set[str] = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        records = [
            record
            for parameter in self.commands["list"].params
            if own.isdisjoint(parameter.opts) and (record := parameter.get_help_record(ctx)) is not None
        ]
        with formatter.section("Options of list"):
            formatter.write_dl(records)

    def _forgets(self, words: list[str], rest: list[str]) -> bool:
        """Tell whether `forget` comes first, and an id alone follows."""
        return words[0] == "forget" and len(words) > 1 and (not rest or rest[0].startswith("-"))

    def _with_values(self) -> set[str]:
        """Name the options that take a value."""
        return {
            name
            for command in (self, *self.commands.values())
            for option in command.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }


@contextmanager
def _noted_warnings(output: Output) -> Generator[None]:
    """Say each `ChatbridgeWarning` in a line on stderr, every time; others are Python's own affair."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, ChatbridgeWarning):
                output.note(f"warning: {message}")
            else:
                show(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", ChatbridgeWarning)
        warnings.showwarning = note
        yield


def _code(result: object) -> int:
    return result if isinstance(result, int) else 0


def _explain(error: Exception, output: Output) -> int:
    if isinstance(error, click.Abort):
        return INTERRUPTED
    if output.debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f" See '{context.command_path} --help'." if context is not None else ""
        output.note(f"chatbridge: {error.format_message()}{hint}")
        return error.exit_code
    if isinstance(error, ChatbridgeError):
        output.note(f"chatbridge: {paragraph(error, _hint(error))}")
        return MISUSED if isinstance(error, UsageError) else FAILED
    where = "" if output.debug else " (--debug shows where)"
    # Files and pipes fail so, stdout among them; of a connection's errors none should get here.
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        _let_go_of_stdout()
        output.note(f"chatbridge: the system says: {error}{where}")
        return FAILED
    kind = type(error).__name__
    output.note(f"chatbridge: this is a bug in chatbridge or in a backend's package: {kind}: {error}{where}")
    return FAILED


def _hint(error: ChatbridgeError) -> str:
    """Say what can be done about *error* on the command line."""
    if isinstance(error, MissingSecret):
        return "or use --ask-key"
    if isinstance(error, StoreError) and error.kind in _UNUSABLE and error.reply is None:
        return "or use --store for another one, --no-store for none"
    return ""


def _let_go_of_stdout() -> None:
    """Give up what cannot be written to stdout; the interpreter would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
