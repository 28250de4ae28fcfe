"""
Typed options: what a backend can be told, checked before anything is opened.

Each adapter has an attrs class of options that extends `CommonOptions`. Its fields are
made with `option`, so that error messages and `chatbridge describe` know what each is for.
"""

from __future__ import annotations

import math
from inspect import iscoroutinefunction
from typing import Any, Literal

from attrs import NOTHING, field, frozen, validators

from chatbridge.errors import ConfigError

__all__ = ["CommonOptions", "check_hook", "option"]


def option(
    doc: str,
    *,
    default: Any = NOTHING,  # noqa: ANN401 - whatever the field's type is
    validator: Any = None,  # noqa: ANN401 - attrs' own type for it is not public
    empty: bool = False,
    account: bool = False,
) -> Any:  # noqa: ANN401 - like attrs' own `field`, whose type is the annotation's
    """
    Make a field of an options class.

    Args:
        doc: One sentence for users.
        default: Without one the option is required.
        validator: As attrs has them.
        empty: Whether a text may be empty.
        account: Whether it says whose conversations are seen, so that stores keep them apart.
    """
    metadata = {"doc": doc, "empty": empty, "account": account}
    return field(default=default, validator=validator, metadata=metadata)


def _finite(_: object, __: object, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError("is not a finite number")


_SECONDS = [_finite, validators.gt(0)]

Include = Literal["references", "usage"]


@frozen(kw_only=True)
class CommonOptions:
    """What every backend can be told."""

    timeout: float = option(
        "Seconds that one call may take in all, retries included.", default=600.0, validator=_SECONDS
    )
    connect_timeout: float = option("Seconds to get a connection.", default=5.0, validator=_SECONDS)
    first_byte_timeout: float = option(
        "Seconds from the connection to the head of the answer.", default=300.0, validator=_SECONDS
    )
    idle_timeout: float = option(
        "Seconds without news while an answer arrives.", default=60.0, validator=_SECONDS
    )
    settle_timeout: float = option(
        "Seconds to look for a message in doubt in its conversation; 0 never looks by itself. "
        "The answer to one that is found is waited for until the timeout.",
        default=30.0,
        validator=[_finite, validators.ge(0)],
    )
    absent_after: float | None = option(
        "Seconds after which a message that is not in the conversation will not come any more, where that is "
        "known of the server.",
        default=None,
        validator=validators.optional([_finite, validators.ge(0)]),
    )
    attempts: int = option(
        "How often a call that is safe to repeat is tried.", default=3, validator=validators.ge(1)
    )
    concurrency: int = option("Calls under way at once.", default=8, validator=validators.ge(1))
    include: frozenset[Include] = option(
        "What to fetch beside each answer, at the cost of extra reads.", default=frozenset[Include]()
    )
    strict: bool = option(
        "Make an error of what is otherwise a warning: an option that the API cannot honour, a lost session.",
        default=False,
    )
    overflow: Literal["error", "drop-oldest"] | None = option(
        "Where chatbridge sends the earlier turns: what is done if they are too long for the model. By "
        "default that is an error; or the oldest are left out, of which the reply warns.",
        default=None,
    )
    insecure: bool = option("Allow plain http to other machines.", default=False)


def check_hook(name: str, hook: object) -> None:
    """
    Check that *hook* can be called where nothing waits for it.

    Raises:
        ConfigError: It cannot, or is a coroutine function, which would never run.
    """
    if hook is None:
        return
    call = getattr(hook, "__call__", None)  # noqa: B004 - of an object with an asynchronous one
    if call is None or iscoroutinefunction(hook) or iscoroutinefunction(call):
        kind = type(hook).__name__ if call is None else "coroutine function"
        raise ConfigError(f"{name} takes a plain function that is given an event, not a {kind}")
