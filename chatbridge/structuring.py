"""Options read from what was written, given in code, or found in the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from attrs import NOTHING, Attribute, field, fields, frozen, resolve_types, validators

from chatbridge.config import is_reference, looks_secret
from chatbridge.errors import BadOption, ConfigError, MissingSecret
from chatbridge.option_types import choices_of, is_list, type_name, unwrapped
from chatbridge.options import CommonOptions
from chatbridge.secret import Secret, Veiled

__all__ = ["structure_options", "structure_settings"]

OptionsT = TypeVar("OptionsT", bound=CommonOptions)


def _stand_in(annotation: object) -> object:
    """Give a value of the type of an option, for where its own does not matter."""
    if is_list(annotation):
        return frozenset[str]() if get_origin(annotation) is frozenset else ("any",)
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return next(iter(annotation))
    return _STAND_INS.get(cast(type, annotation))


_STAND_INS: Mapping[type, object] = {Secret: Secret("any"), bool: False, float: 1.0, int: 1, str: "any"}


def _to_bool(value: object, _: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    return known[str(value).lower()]


def _to_int(value: object, _: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return int(value)
    raise ValueError(value)


def _to_float(value: object, _: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and re.fullmatch(
        r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", value
    ):
        return float(value)
    raise ValueError(value)


def _to_str(value: object, _: object) -> str:
    if isinstance(value, str | PathLike):
        return str(fspath(cast("str | PathLike[str]", value)))
    raise ValueError(value)


def _to_list(value: object, annotation: object) -> frozenset[str] | tuple[str, ...]:
    """Read several texts; where their order counts, there is at least one."""
    members = value.split(",") if isinstance(value, str) else cast(list[object], value)
    (member,) = get_args(annotation)
    choices = choices_of(member)
    chosen = tuple(text for item in members if (text := _to_str(item, None).strip()))
    if choices and not set(chosen) <= set(choices):
        raise ValueError(value)
    if get_origin(annotation) is frozenset:
        return frozenset(chosen)
    if not chosen:
        raise ValueError(value)
    return chosen


def _converter() -> Any:  # noqa: ANN401 - cattrs is imported where it is used, for the sake of import time
    from cattrs import Converter  # noqa: PLC0415

    converter = Converter(detailed_validation=False)
    hooks: dict[type, Callable[[object, object], object]] = {
        bool: _to_bool,
        int: _to_int,
        float: _to_float,
        str: _to_str,
    }
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(is_list, _to_list)
    return converter


@frozen
class _Reader:
    """What is needed to read one backend's options."""

    backend: str
    env: Mapping[str, tuple[str, ...]]
    given: Veiled[object]
    environ: Veiled[str]
    complete: bool
    converter: Any = field(factory=_converter)

    def read(self, attribute: Attribute[Any]) -> object:
        """Read one option from what was given or its environment variables; NOTHING leaves the default."""
        name, annotation = attribute.name, unwrapped(attribute.type)
        variables = self.env.get(name, ())
        if annotation is Secret:
            secret = self._secret(name, variables)
            return self._default(attribute, variables) if secret is None else secret
        value = self.given.get(name)
        if value is None:
            value = next((text for variable in variables if (text := self._variable(variable))), None)
        if value is None:
            return self._default(attribute, variables)
        if annotation is str and not (str(value).strip() or attribute.metadata.get("empty")):
            raise BadOption(backend=self.backend, option=name, problem="is empty")
        try:
            result = self.converter.structure(value, attribute.type)
        except Exception:  # noqa: BLE001 - cattrs lets through whatever a hook raises
            result = NOTHING
        problem = "" if result is NOTHING else _violation(attribute, result)
        if problem is None:
            return result
        shown = None if looks_secret(str(value)) else str(value)
        if shown is None or not problem:  # a validator's words may hold the value
            problem = f"is not {type_name(annotation)}"
        raise BadOption(backend=self.backend, option=name, shown=shown, problem=problem)

    def _variable(self, name: str) -> str:
        return self.environ.get(name, "").strip()

    def _default(self, attribute: Attribute[Any], variables: tuple[str, ...]) -> object:
        if attribute.default is not NOTHING:
            return NOTHING
        if not self.complete:
            return _stand_in(unwrapped(attribute.type))
        if unwrapped(attribute.type) is Secret:
            raise MissingSecret(backend=self.backend, option=attribute.name, looked_in=variables)
        hint = f" (or set {' or '.join(variables)})" if variables else ""
        raise BadOption(backend=self.backend, option=attribute.name, problem="is required" + hint)

    # What is raised may be shown with the variables of each function: below, none holds a secret as text.

    def _secret(self, name: str, variables: Sequence[str]) -> Secret | None:
        if name in self.given:
            secret, looked_in = self._given_secret(name)
            if secret is None:
                raise MissingSecret(backend=self.backend, option=name, looked_in=(looked_in,))
        else:
            found = (_sealed(self._variable(variable)) for variable in variables)
            secret = next((secret for secret in found if secret is not None), None)
        if secret is not None and not _SENDABLE.fullmatch(secret.reveal()):
            raise BadOption(
                backend=self.backend,
                option=name,
                problem="holds a character that no secret has, as a line break",
            )
        return secret

    def _given_secret(self, name: str) -> tuple[Secret | None, str]:
        """Give the secret that was given or referred to, and where it was looked for."""
        if not isinstance(self.given[name], str | Secret):
            raise BadOption(backend=self.backend, option=name, problem=f"is not {type_name(Secret)}, or text")
        secret = _sealed(self.given[name])
        if secret is None or secret is self.given[name] or not _REFERENCE.match(secret.reveal()):
            return secret, "the value given"
        kind = secret.reveal()[:4].rstrip(":")
        if not is_reference(secret.reveal()):
            raise BadOption(backend=self.backend, option=name, problem=f"names nothing after '{kind}:'")
        place = secret.reveal().removeprefix(f"{kind}:")
        if kind == "env":
            return _sealed(self._variable(place)), place
        return _sealed(_file(Path(place))), f"file:{place}"


_REFERENCE = re.compile("env:|file:")
# Whether the header that it goes into can hold it is checked where that is made.
_SENDABLE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")


def _sealed(value: object) -> Secret | None:
    """Take a secret's text out of sight; None stands for a blank one."""
    if isinstance(value, Secret):
        return value if value.reveal().strip() else None
    return Secret(value) if isinstance(value, str) and value.strip() else None


def _file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _violation(attribute: Attribute[Any], value: object) -> str | None:
    if attribute.validator is None or value is None:
        return None
    try:
        attribute.validator(None, attribute, value)
    except (ValueError, TypeError) as error:
        # attrs' own validators begin with the name, and end with the value or keep it in more arguments.
        message = str(next(iter(error.args), "is not allowed"))
        return message.removeprefix(f"'{attribute.name}' ").removesuffix(f": {value}")
    return None


def structure_options(
    cls: type[OptionsT],
    written: Mapping[str, str],
    given: Mapping[str, object],
    *,
    backend: str,
    env: Mapping[str, tuple[str, ...]],
    environ: Mapping[str, str],
    complete: bool = True,
) -> OptionsT:
    """
    Make the options *cls* from those *written* in a config string and those *given* in code, which win.

    Options in neither, or given as None, are looked up in the variables that *env* names for them. Unless
    they must be *complete*, a value of its type stands in for each that is required and still missing,
    whatever its validator says: enough to describe a backend, and not to open one.

    Raises:
        BadOption: An option is unknown, missing, or its value not what it takes.
        MissingSecret: No secret was found where one is needed.
    """
    attributes = {attribute.name: attribute for attribute in fields(resolve_types(cls))}
    # What is raised may be shown with the variables of this function.
    environ = Veiled(environ)
    given = Veiled({**written, **{name: value for name, value in given.items() if value is not None}})
    for name in given:
        if name not in attributes:
            raise BadOption(
                backend=backend, option=name, problem="is unknown", known=tuple(sorted(attributes))
            )
    for name, value in written.items():
        if unwrapped(attributes[name].type) is Secret and not is_reference(value):
            raise BadOption(
                backend=backend,
                option=name,
                problem=f"is a secret: write {name}=env:NAME or {name}=file:PATH, "
                f"or pass connect(..., {name}=...)",
            )
    reader = _Reader(backend, env, given, environ, complete)
    read = {name: reader.read(attribute) for name, attribute in attributes.items()}
    values: dict[str, Any] = {name: value for name, value in read.items() if value is not NOTHING}
    try:
        if complete:
            return cls(**values)
        with validators.disabled():  # What was given, the reader has checked.
            return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        problem = str(error)
    raise ConfigError(f"{backend}: {problem}", provider=backend)


def structure_settings(cls: type[Any], written: Mapping[str, str], *, backend: str) -> dict[str, Any]:
    """
    Read what is *written* as values for those fields of an attrs class that a text can stand for.

    One that does not show, as a key does not, is none of them.

    Raises:
        BadOption: There is no such field, or its value is not what it takes.
    """
    attributes = {
        attribute.name: attribute
        for attribute in fields(resolve_types(cls))
        if attribute.init and attribute.repr and _is_writable(attribute.type)
    }
    reader = _Reader(backend, {}, Veiled(written), Veiled[str]({}), complete=True)
    values: dict[str, Any] = {}
    for name in written:
        if name not in attributes:
            raise BadOption(
                backend=backend, option=name, problem="is unknown", known=tuple(sorted(attributes))
            )
        values[name] = reader.read(attributes[name])
    return values


def _is_writable(annotation: object) -> bool:
    kind = unwrapped(annotation)
    return any(kind is each for each in _WRITABLE) or bool(choices_of(kind)) or is_list(kind)


_WRITABLE: Sequence[object] = (bool, int, float, str)
