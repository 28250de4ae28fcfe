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
from chatbridge.errors import ChatbridgeError, ChatbridgeWarning, MissingSecret, UsageError

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "ListByDefault", "Program"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


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

    Options, of which none takes a value, may stand anywhere: the group's own are its, others the command's.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Bring URL, command and options into their order; a command in the URL's place is misplaced."""
        flags: list[str] = []
        words: list[str] = []
        rest = list(args)
        while rest and len(words) < 2:  # noqa: PLR2004 - URL and command
            word = rest.pop(0)
            (flags if word.startswith("-") and word != "-" else words).append(word)
        own: set[str] = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if words and words[0] in self.commands:
            if set(ctx.help_option_names).isdisjoint(args):
                right = f"{ctx.command_path} URL {words[0]}"
                raise click.UsageError(f"the URL comes before {words[0]!r}, as in: {right}", ctx)
            words, own = ["URL", words[0]], set()
        elif len(words) == 1:
            words.append("list")
        mine = [flag for flag in flags if flag in own]
        theirs = [flag for flag in flags if words and flag not in own]
        return super().parse_args(ctx, [*mine, *words, *theirs, *rest])


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
        hint = "; or use --ask-key" if isinstance(error, MissingSecret) else ""
        output.note(f"chatbridge: {paragraph(error)}{hint}")
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


def _let_go_of_stdout() -> None:
    """Give up what cannot be written to stdout; the interpreter would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
