"""Attachments, as chat completions take them."""

from __future__ import annotations

import mimetypes
from base64 import b64encode
from typing import Any
from urllib.parse import unquote_to_bytes

from chatbridge.domain import Attachment
from chatbridge.errors import UsageError
from chatbridge_adapters.openai.wire import NAME

_SOUNDS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_DATA = "data:"
_BASE64 = ";base64"


def attached(part: Attachment) -> dict[str, Any]:
    """
    Say an attachment in the API's form: an image, a sound or another file.

    Raises:
        UsageError: It is no image, and there is its address alone.
    """
    kind, *beside = (piece.strip() for piece in part.media_type.split(";"))
    kind = kind.lower()
    url = _url(part, ";".join((kind, *beside)))
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if not _is_data(url):
        raise UsageError(
            f"{NAME} takes images by their address, and {part.media_type} as data only: give its data",
            provider=NAME,
        )
    if kind in _SOUNDS:
        sound = {"data": url.partition(",")[2], "format": _SOUNDS[kind]}
        return {"type": "input_audio", "input_audio": sound}
    name = part.name or f"file{mimetypes.guess_extension(kind) or ''}"
    return {"type": "file", "file": {"filename": name, "file_data": url}}


def _is_data(url: str) -> bool:
    return url[: len(_DATA)].lower() == _DATA


def _url(part: Attachment, media_type: str) -> str:
    """Give the address, or an address that is the data, in base64."""
    if part.data is not None:
        return f"{_DATA}{media_type}{_BASE64},{b64encode(part.data).decode()}"
    url = part.url or ""
    head, _, data = url.partition(",")
    if not _is_data(url) or head.lower().endswith(_BASE64):
        return url
    return f"{head}{_BASE64},{b64encode(unquote_to_bytes(data)).decode()}"
