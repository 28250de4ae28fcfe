"""The backends that a user has named, in the environment and in a config file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from chatbridge.config import BackendURL, looks_secret, refuse_secret
from chatbridge.errors import ConfigError
from chatbridge.secret import Veiled
from chatbridge.text import quoted

__all__ = ["find_backend", "known_backends"]


def _config_file(environ: Mapping[str, str]) -> Path:
    if named := environ.get("CHATBRIDGE_CONFIG"):
        return Path(named)
    if configs := environ.get("XDG_CONFIG_HOME"):
        return Path(configs) / "chatbridge" / "config.toml"
    try:
        return Path.home() / ".config" / "chatbridge" / "config.toml"
    except RuntimeError:
        pass
    raise ConfigError("there is no home directory to look for a config file in: set CHATBRIDGE_CONFIG")


def _read_config(path: Path, *, required: bool) -> dict[str, Any]:
    problem = None
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        problem = "does not exist"
    except (OSError, UnicodeError) as error:
        problem = f"cannot be read: {type(error).__name__}"
    except (ValueError, RecursionError) as error:
        problem = f"is not TOML: {error}"
    raise ConfigError(f"the config file {str(path)!r} {problem}")


def _named_backends(config: Mapping[str, Any], where: str) -> dict[str, str]:
    if unknown := sorted(set(config) - {"default", "backends"}):
        raise ConfigError(f"{where} has an unknown entry {quoted(unknown[0])} (known: default, backends)")
    backends = config.get("backends", {})
    if not isinstance(backends, dict):
        raise ConfigError(f"{where}: 'backends' is not a table; write [backends.NAME] and url = \"...\"")
    urls: dict[str, str] = {}
    for name, entry in cast(dict[str, object], backends).items():
        fields = cast(dict[str, object], entry) if isinstance(entry, dict) else {}
        url = fields.get("url")
        if len(fields) != 1 or not isinstance(url, str):
            raise ConfigError(f'{where}: the table of backend {quoted(name)} has one entry, url = "..."')
        urls[name] = url
    return urls


def _is_config_string(text: str) -> bool:
    return ":" in text or "|" in text


def _parse_from(where: str, text: str) -> BackendURL:
    try:
        return BackendURL.parse(text)
    except ConfigError as error:
        problem = str(error)
    raise ConfigError(f"{where}: {problem}")


def find_backend(text: str | None, environ: Mapping[str, str] | None = None) -> BackendURL:
    """
    Turn what the user said into a `BackendURL`.

    A text with a colon is a config string; any other is a name in the user's config file
    (`$CHATBRIDGE_CONFIG`, else `chatbridge/config.toml` under `$XDG_CONFIG_HOME` or `~/.config`). None means
    `$CHATBRIDGE_BACKEND`, then the file's `default`. An empty variable counts as none.

    Raises:
        ConfigError: Naming the part at fault.
    """
    environ = Veiled(os.environ if environ is None else environ)
    if text is not None and (not text or _is_config_string(text)):
        return BackendURL.parse(text)
    name: object = environ.get("CHATBRIDGE_BACKEND") or None if text is None else text
    if isinstance(name, str) and _is_config_string(name):
        return _parse_from("the variable CHATBRIDGE_BACKEND", name)
    path = _config_file(environ)
    where = f"the config file {str(path)!r}"
    config = _read_config(path, required=bool(environ.get("CHATBRIDGE_CONFIG")))
    urls = _named_backends(config, where)
    name = config.get("default") if name is None else name
    if name is None:
        raise ConfigError(
            "no backend is named: pass a config string, set CHATBRIDGE_BACKEND, "
            f'or write default = "NAME" into {str(path)!r}'
        )
    if not isinstance(name, str):
        raise ConfigError(f"{where}: 'default' is not a text")
    if _is_config_string(name):
        return _parse_from(f"{where}: default", name)
    if name in urls:
        return _parse_from(f"{where}: backend {quoted(name)}", urls[name])
    if looks_secret(name):
        refuse_secret("a backend's name")
    raise ConfigError(
        f"{quoted(name)} is neither a config string (as {quoted(name + ':')} would be) "
        f"nor a backend named in {str(path)!r} (named there: {', '.join(sorted(urls)) or 'none'})"
    )


def known_backends(environ: Mapping[str, str] | None = None) -> tuple[BackendURL, ...]:
    """
    Give the backends that the user has named: the default first, then those in the config file by name.

    Raises:
        ConfigError: Naming the part at fault.
    """
    environ = Veiled(os.environ if environ is None else environ)
    path = _config_file(environ)
    config = _read_config(path, required=bool(environ.get("CHATBRIDGE_CONFIG")))
    named = sorted(_named_backends(config, f"the config file {str(path)!r}"))
    default = environ.get("CHATBRIDGE_BACKEND") or config.get("default")
    names = named if default is None else [None, *named]
    return tuple(dict.fromkeys(find_backend(name, environ) for name in names))
