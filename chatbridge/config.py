"""
Config strings: which backend, where, with which options.

    scheme[+http]://host[:port][/base/path][?option=value&...]
    scheme:                 the API's public host
    scheme:model            the same, with a model
    record+scheme...        any of these, its exchange recorded in the file that ?record=FILE names

A config string never holds a secret, only a reference to the place where one is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, Self
from urllib.parse import quote, unquote_to_bytes

from attrs import evolve, field, frozen

from chatbridge.errors import BadOption, ConfigError
from chatbridge.text import quoted

__all__ = ["BackendURL", "is_reference", "looks_secret", "refuse_secret"]

_HEAD = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)(\+[A-Za-z0-9+]*)?:")
_RECORDED = "record+"
_SCHEME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_OPTION = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
_ESCAPED_DOT_OR_SLASH = re.compile(r"%(?:2e|2f|5c)", re.IGNORECASE)
_USERINFO = re.compile(r"(?::|//)[^/]*@")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_OPTION = re.compile(
    r"(?:.*_)?(?:api_?key|key|token|jwt|secret|password|passphrase|passwd|pwd|credentials?|authorization|cookie)"
)
_SECRET_VALUE = re.compile(
    r"(?<![\w-])(?:(?:sk|pk|rk|xox[abprs]|glpat)-[\w-]{3,}|eyJ[\w-]{8,}\.|(?:bearer|basic)\s+\S{12,}"
    r"|(?:[spr]k_(?:live|test)|gh[oprsu]|github_pat|hf|gsk)_\w{12,}|(?:AKIA|AIza)[\w-]{12,})",
    re.IGNORECASE,
)
_HIGHEST_PORT = 65535


def looks_secret(text: str) -> bool:
    """Whether *text* has the form that some well-known kind of key has."""
    return _SECRET_VALUE.search(text) is not None


def is_reference(value: str) -> bool:
    """Whether *value* says where a secret is: env:NAME or file:PATH."""
    kind, _, place = value.partition(":")
    if kind == "env":
        return _VARIABLE.fullmatch(place) is not None and not looks_secret(place)
    return kind == "file" and place != "" and not _SECRET_VALUE.match(place)


def refuse_secret(where: str, option: str = "key") -> NoReturn:
    """
    Say that a secret stands *where* none may, and how *option* refers to one.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"{where} must not be a secret, for config strings are printed and stored; refer to it: "
        f"{option}=env:NAME, {option}=file:PATH, or in code connect(url, {option}=...)"
    )


def _decode(text: str, where: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ConfigError(f"{where}: a '%' is not followed by two hex digits")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        pass
    raise ConfigError(f"{where}: the percent-encoded bytes are not UTF-8")


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return
    raise ConfigError(f"{where}: half a surrogate pair is no character")


def _lower(name: str) -> str:
    # Some other letters have an ASCII one for their lower case, and are not it.
    return name.lower() if name.isascii() else name


def _lower_if_given(name: str | None) -> str | None:
    return None if name is None else _lower(name)


def _check_scheme(_: object, __: object, scheme: str) -> None:
    if looks_secret(scheme):
        refuse_secret("the backend's name")
    if not _SCHEME.fullmatch(scheme):
        raise ConfigError("a backend's name is up to 64 letters, digits, '.', '_' and '-', a letter first")


def _check_host(_: object, __: object, host: str | None) -> None:
    if host is None:
        return
    if ":" in host:
        if not _is_address(ipaddress.IPv6Address, host) or "%" in host:
            raise ConfigError("the host in brackets is not an IPv6 address (without a zone)")
        return
    # A name with dots may well begin with sk-; a token of three parts has dots as well.
    if looks_secret(host) and ("." not in host or host.startswith("eyj")):
        refuse_secret("the host")
    if not _HOST.fullmatch(host):
        raise ConfigError("the host is no host name (letters, digits, '-', '.'; others as xn--...)")
    if _ENDS_IN_NUMBER.fullmatch(host) and not _is_address(ipaddress.IPv4Address, host):
        raise ConfigError("the host is neither a host name nor an IPv4 address of four numbers")


def _is_address(kind: Callable[[str], object], host: str) -> bool:
    try:
        kind(host)
    except ValueError:
        return False
    return True


def _check_port(_: object, __: object, port: int | None) -> None:
    if port is not None and not 1 <= port <= _HIGHEST_PORT:
        raise ConfigError(f"the port is not between 1 and {_HIGHEST_PORT}")


def _check_path(_: object, __: object, path: str | None) -> None:
    if not path:
        return
    decoded = _decode(path, "the base path")
    if looks_secret(decoded):
        refuse_secret("the base path")
    root, *segments = path.split("/")
    if root:
        raise ConfigError("the base path does not begin with '/'")
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment in {".", ".."} or _ESCAPED_DOT_OR_SLASH.search(segment):
            raise ConfigError(
                "the base path has a part that is empty, '.', '..', or holds a character that must be encoded"
            )
    if _CONTROLS.search(decoded):
        raise ConfigError("the base path has a control character")


# A forgotten "//" must not send key and messages to another server.
_HOST_LIKE = re.compile(
    r"/.*|localhost(?:[:/].*)?|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:[:/].*)?|\[.*"
    r"|[^/]*:[0-9]{2,5}(?:/.*)?|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\.[A-Za-z]{2,}(?:/.*)?",
    re.DOTALL,
)


_URL = re.compile(r"https?:|.*://", re.IGNORECASE | re.DOTALL)


def _check_model(url: BackendURL, _: object, model: str | None) -> None:
    if model is None:
        return
    if not model:
        raise ConfigError("the model is empty")
    _check_text(model, "the model")
    if looks_secret(model) or _USERINFO.search(model):
        refuse_secret("the model")
    if match := _URL.match(model):
        suffix = "+http" if match[0].lower() == "http:" else ""
        place = model[match.end() :].lstrip("/") or "HOST"
        raise ConfigError(
            f"{quoted(model)} after ':' would be a model on the API's public host, and is a URL: for a "
            f"server of another address, write {quoted(f'{url.scheme}{suffix}://{place}')}"
        )
    if _HOST_LIKE.fullmatch(model):
        raise ConfigError(
            f"{quoted(model)} after ':' would be a model on the API's public host, and looks like a host: "
            "write '://' for a host, or name a model like this by an option"
        )


def _check_option_name(name: str) -> None:
    if looks_secret(name):
        refuse_secret("an option's name")
    if not _OPTION.fullmatch(name):
        raise ConfigError("an option's name is up to 64 of a-z, 0-9 and '_', a letter first")


def _check_options(_: object, __: object, options: tuple[tuple[str, str], ...]) -> None:
    names: set[str] = set()
    for name, value in options:
        _check_option_name(name)
        if name in names:
            raise BadOption(option=name, problem="is given twice")
        names.add(name)
        _check_text(value, f"option {name!r}")
        if not is_reference(value) and (looks_secret(value) or _SECRET_OPTION.fullmatch(name)):
            refuse_secret(f"option {name!r}", name)


def _sorted(options: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(options))


@frozen(repr=False)
class BackendURL:
    """
    A parsed config string: an immutable value, always safe to print.

    Attributes:
        scheme: The backend's name.
        plain_http: Whether http is used in place of https.
        host: None for the API's public host; an IPv6 address without its brackets.
        path: The base path; None for the API's default, `""` for none at all.
        model: The model of `scheme:model`.
        recorded: Whether it says `record+`; the option `record` names the file.
    """

    scheme: str = field(converter=_lower, validator=_check_scheme)
    plain_http: bool = False
    host: str | None = field(default=None, converter=_lower_if_given, validator=_check_host)
    port: int | None = field(default=None, validator=_check_port)
    path: str | None = field(default=None, validator=_check_path)
    model: str | None = field(default=None, validator=_check_model)
    _options: tuple[tuple[str, str], ...] = field(
        default=(),
        alias="options",
        converter=_sorted,
        validator=_check_options,
    )
    recorded: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.host is None and (self.port is not None or self.path is not None or self.plain_http):
            raise ConfigError("a port, a base path and '+http' need a host")
        if self.host is not None and self.model is not None:
            raise ConfigError("with a host, the model is an option: ?model=NAME")

    @property
    def options(self) -> Mapping[str, str]:
        """The options as written, by name."""
        return dict(self._options)

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read a config string.

        Raises:
            ConfigError: Naming the part at fault; never showing what may be a secret.
        """
        if "|" in text:
            raise ConfigError("a chain of backends ('A | B') is not supported yet: name a single backend")
        if re.search(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]", text):
            raise ConfigError("a config string has no blanks and no control characters: percent-encode them")
        if "#" in text:
            raise ConfigError("a config string has no '#...' part: write %23 for the character")
        recorded = text[: len(_RECORDED)].lower() == _RECORDED
        if recorded:
            text = text[len(_RECORDED) :]
        match = _HEAD.match(text)
        if match is None:
            raise ConfigError("a config string begins with a backend's name and ':', such as 'h2ogpte:'")
        scheme, plain_http = match[1], match[2] is not None
        if plain_http and match[2].lower() != "+http":
            raise ConfigError("after a backend's name, only '+http' is known; https needs no suffix")
        rest, question, query = text[match.end() :].partition("?")
        options = cls._parse_query(query) if question else ()
        if not rest.startswith("//"):
            model = _decode(rest, "the model") if rest else None
            return cls(scheme, plain_http=plain_http, model=model, options=options, recorded=recorded)
        authority, slash, path = rest[2:].partition("/")
        host, port = cls._parse_authority(authority)
        base = (f"/{path.rstrip('/')}" if path else "") if slash else None
        return cls(
            scheme,
            plain_http=plain_http,
            host=host,
            port=port,
            path=base,
            options=options,
            recorded=recorded,
        )

    @staticmethod
    def _parse_authority(authority: str) -> tuple[str, int | None]:
        if "@" in authority:
            refuse_secret("the part before '@'")
        match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:\[\]]*))?", authority)
        if match is None:
            raise ConfigError("the host is not of the form NAME, NAME:PORT or [IPV6]:PORT")
        host, port = match[1], match[2]
        if not host or host == "[]":
            raise ConfigError("there is no host after '//'")
        if host.startswith("[") and ":" not in host:
            raise ConfigError("the host in brackets is not an IPv6 address")
        if port is not None and not re.fullmatch(r"[0-9]{1,5}", port):
            raise ConfigError(f"the port is not between 1 and {_HIGHEST_PORT}")
        return host.strip("[]"), None if port is None else int(port)

    @staticmethod
    def _parse_query(query: str) -> tuple[tuple[str, str], ...]:
        options: list[tuple[str, str]] = []
        for piece in query.split("&") if query else ():
            name, equals, value = piece.partition("=")
            if not equals:
                raise ConfigError("each option after '?' is written name=value, with '&' between two of them")
            _check_option_name(name)
            options.append((name, _decode(value, f"option {name!r}")))
        return tuple(options)

    def with_options(self, **options: str | None) -> Self:
        """Make a config string in which *options* are set, or removed where None."""
        merged: dict[str, str | None] = {**self.options, **options}
        return evolve(
            self, options=tuple((name, value) for name, value in merged.items() if value is not None)
        )

    def unrecorded(self) -> Self:
        """Make the same config string without `record+` and its option."""
        return evolve(self.with_options(record=None), recorded=False)

    def __str__(self) -> str:
        text = (_RECORDED if self.recorded else "") + self.scheme + ("+http" if self.plain_http else "") + ":"
        if self.host is not None:
            text += "//" + (f"[{self.host}]" if ":" in self.host else self.host)
            text += f":{self.port}" if self.port is not None else ""
            text += {None: "", "": "/"}.get(self.path, self.path or "")
        elif self.model is not None:
            # A leading "//" would read as a host.
            text += quote(self.model, safe=":@+,=/" if not self.model.startswith("/") else ":@+,=")
        if self._options:
            text += "?" + "&".join(f"{name}={quote(value, safe=':/@,+')}" for name, value in self._options)
        return text

    def __repr__(self) -> str:
        return f"BackendURL.parse({str(self)!r})"
