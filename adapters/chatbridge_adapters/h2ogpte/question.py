"""A question as the emulator of h2oGPTe reads it, each field of the documented form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from attrs import frozen

from chatbridge.testing.emulator import is_array, is_object

__all__ = ["Request"]

LLM = "emulator-llm"
HISTORY_SETTINGS = ("true", "false", "auto")


def _strings(value: object) -> bool:
    return is_array(value) and all(isinstance(each, str) for each in value)


def _tags(value: object) -> bool:
    return _strings(value) or (
        is_object(value) and value.keys() <= {"include", "exclude"} and all(map(_strings, value.values()))
    )


_Rule = tuple[str, Callable[[object], bool]]
_TEXT: _Rule = ("a string or null", lambda value: value is None or isinstance(value, str))
_MAP: _Rule = ("an object or null", lambda value: value is None or is_object(value))
_FIELDS: Mapping[str, _Rule] = {
    "message": ("a non-empty string", lambda value: isinstance(value, str) and value != ""),
    "system_prompt": _TEXT,
    "pre_prompt_query": _TEXT,
    "prompt_query": _TEXT,
    "image_batch_final_prompt": _TEXT,
    "image_batch_image_prompt": _TEXT,
    "llm": _TEXT,
    "llm_args": _MAP,
    "self_reflection_config": _MAP,
    "rag_config": _MAP,
    "include_chat_history": (
        '"true", "false" or "auto"',
        lambda value: isinstance(value, bool) or value in HISTORY_SETTINGS,
    ),
    "tags": ("an array of strings or an object of them", _tags),
    "stream": ("a boolean", lambda value: isinstance(value, bool)),
}


@frozen(kw_only=True)
class Request:
    """
    A ChatCompletionRequest.

    Raises:
        ValueError: A field is not of its form; the message says which.
    """

    fields: Mapping[str, object]

    def __attrs_post_init__(self) -> None:
        for name, (form, fits) in _FIELDS.items():
            if (name in self.fields or name == "message") and not fits(self.fields.get(name)):
                raise ValueError(f"{name} must be {form}")

    @property
    def message(self) -> str:
        """What is asked."""
        return str(self.fields["message"])

    @property
    def stream(self) -> bool:
        """Whether the answer is to be streamed."""
        return self.fields.get("stream") is True

    @property
    def sees_history(self) -> bool:
        """Whether the model is shown the earlier turns."""
        return self.fields.get("include_chat_history") not in {"false", False}

    @property
    def rag_type(self) -> object:
        """How documents are to be used."""
        config = self.fields.get("rag_config")
        return config.get("rag_type", "auto") if is_object(config) else "auto"

    @property
    def llm(self) -> str:
        """The model asked for, or the emulator's."""
        named = self.fields.get("llm")
        return named if isinstance(named, str) and named != "auto" else LLM

    @property
    def llm_args(self) -> str:
        """What the model is told, as a message of the history shows it."""
        return json.dumps(self.fields.get("llm_args") or {}, ensure_ascii=False)
