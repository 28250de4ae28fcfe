"""
The strings that name a PostgreSQL store.

    postgresql://user@host:5432/database?password=env:NAME&sslmode=require&schema=chatbridge
    postgresql:///database?host=/run/postgresql

Each part may be left out: then asyncpg takes what the variables of PostgreSQL's own programs say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import unquote

from chatbridge.config import is_reference, looks_secret
from chatbridge.errors import BadOption, ConfigError
from chatbridge.secret import Secret

__all__ = ["read_url"]

_FORM: Final = "postgresql://user@host:5432/database?password=env:NAME"
_URL: Final = re.compile(
    r"//(?:([^/?@]*)@)?(\[[^\]/?]*\]|[^:/?@\[\]]*)(?::([^:/?@]*))?(?:/([^/?]*))?(?:\?(.*))?"
)
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HIGHEST_PORT: Final = 65535

_OPTIONS: Final = ("host", "password", "schema", "sslmode")
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def read_url(rest: str) -> dict[str, Any]:
    """
    Read what comes after `postgresql:`, and look its password up where it says.

    Returns:
        What `PostgresStore` takes.

    Raises:
        ConfigError: Naming the part at fault; never showing what may be a password.
    """
    match = _URL.fullmatch(rest)
    if match is None or not rest.isprintable():
        raise ConfigError(f"the string is not of the form {_FORM}")
    name, host, port, database, query = match.groups()
    user, colon, _ = (name or "").partition(":")
    if colon:
        _literal_password()
    if not _HOST.fullmatch(host.strip("[]")):
        raise ConfigError("the host is no host name or address; a store is on one server, named once")
    if port and not (_PORT.fullmatch(port) and 1 <= int(port) <= _HIGHEST_PORT):
        raise ConfigError(f"the port is not between 1 and {_HIGHEST_PORT}")
    return {
        "host": host.strip("[]") or None,
        "port": int(port) if port else None,
        "user": _decoded(user, "the user") or None,
        "database": _decoded(database or "", "the database") or None,
        **_read_options(query or "", host),
    }


def _read_options(query: str, host: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for piece in query.split("&") if query else ():
        name, equals, value = piece.partition("=")
        if not equals or not value or looks_secret(name):
            raise ConfigError("each option after '?' is written name=value, with '&' between two of them")
        if name not in _OPTIONS:
            raise BadOption(option=name, problem="is unknown to a store on PostgreSQL", known=_OPTIONS)
        if name in options:
            raise BadOption(option=name, problem="is given twice")
        options[name] = _decoded(value, f"the option {name!r}")
    if "host" in options and (host or not options["host"].startswith("/")):
        raise BadOption(
            option="host", problem="is the directory of a socket, from '/' on, where no host comes after '//'"
        )
    if options.get("sslmode", "prefer") not in _SSL_MODES:
        raise BadOption(option="sslmode", problem=f"is none of {', '.join(_SSL_MODES)}")
    if "password" in options:
        options["password"] = _password(options["password"], os.environ)
    return options


def _decoded(text: str, what: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded or re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ConfigError(f"{what} is not percent-encoded UTF-8")
    return decoded


def _password(reference: str, environ: Mapping[str, str]) -> Secret:
    if not is_reference(reference):
        _literal_password()
    kind, _, place = reference.partition(":")
    try:
        return Secret((environ.get(place, "") if kind == "env" else Path(place).read_text("utf-8")).strip())
    except (OSError, ValueError):
        pass
    raise ConfigError(f"the password of the store is said to be in {reference}, and there is none")


def _literal_password() -> NoReturn:
    raise ConfigError(
        "a password must not be in the string, for such strings are printed and stored; refer to it by "
        "?password=env:NAME or ?password=file:PATH, or leave it out: PGPASSWORD and ~/.pgpass work as well"
    )
