"""The command line: `main` is the script `chatbridge`; it needs the extra `cli`."""

from __future__ import annotations

import sys
from io import TextIOWrapper

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code; without the extra, say in one line what to install."""
    try:
        from chatbridge.cli.app import app  # noqa: PLC0415 - click and rich may be absent
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "platformdirs", "rich"}:
            raise
        sys.stderr.write(
            f"chatbridge: the command line needs {error.name}, of the extra 'cli': "
            "run pip install '.[cli]' in a checkout of chatbridge\n"
        )
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What the terminal's encoding lacks is shown escaped, instead of ending the program.
            stream.reconfigure(errors="backslashreplace")
    app.main(prog_name="chatbridge")
