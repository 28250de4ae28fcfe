"""A switch for tests: while it is on, no bridge reaches beyond this machine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

from chatbridge.errors import LiveBackendForbidden

__all__ = ["check_reachable", "is_loopback", "only_loopback"]

_forbidden_by: list[str] = []


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine: localhost, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def only_loopback(forbidden_by: str) -> Generator[None]:
    """
    Forbid, for the length of the block, to open a bridge to another machine, and to call one that is open.

    It is forbidden to the whole process. `LiveBackendForbidden` says that *forbidden_by* forbids it.
    """
    _forbidden_by.append(forbidden_by)
    try:
        yield
    finally:
        _forbidden_by.remove(forbidden_by)


def check_reachable(base_url: str) -> None:
    """
    Check that what *base_url* names may be reached.

    Raises:
        LiveBackendForbidden: It is another machine, within `only_loopback`.
    """
    if _forbidden_by:
        host = urlsplit(base_url).hostname or ""
        if not is_loopback(host):
            raise LiveBackendForbidden(host=host, forbidden_by=_forbidden_by[-1])
