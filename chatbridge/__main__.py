"""`python -m chatbridge` is the command line."""

from __future__ import annotations

from chatbridge.cli import main

if __name__ == "__main__":
    main()
