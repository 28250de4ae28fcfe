"""
A history, as Anthropic's Messages API takes it.

Sources: as in `wire`. The API knows two roles, which take turns: what tools gave is said by the user, before
anything else that the user says there. `turns` has the rules of what must stand together.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
from collections.abc import Iterator, Mapping
from email.message import Message as Header

from attrs import define, field

from chatbridge.domain import Attachment, Message, Opaque, Part, Reasoning, Role, Text, ToolCall, ToolResult
from chatbridge.errors import UsageError
from chatbridge.http import as_list, as_object
from chatbridge_adapters.anthropic.turns import Block, Turn, in_order, is_thought
from chatbridge_adapters.anthropic.wire import HOST, NAME

UNREAD = "partial_json"
"""Where the arguments of a call are kept as text, that are no JSON object."""

SIGNED_BY = "signed_by"
"""Where a hidden thought says who signed it, if not Anthropic itself."""

OF = "of"
"""Of which text or call it is, what is kept beside it."""

INVALID = "INVALID_JSON"
"""Under which name the API is given them back ("Fine-grained tool streaming")."""

MOVED = "a system message within the history was put before it, where each model takes one"

_IMAGES = ("image/gif", "image/jpeg", "image/png", "image/webp")
_TAKEN = f"{', '.join(_IMAGES)}, application/pdf and text/... (the last not by a url)"
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MODELLED = frozenset({"text", "thinking", "tool_use"})


def sign(signature: str, host: str = HOST) -> str:
    """Give the signature of a thought in a form that says whose it is, as another's is never sent."""
    return f"{signer(host)}:{signature}"


def signer(host: str) -> str:
    """Name who signs at *host*; a digest stands for another's, as there may be a secret in its path."""
    return NAME if host == HOST else f"{NAME}+{digest(host)}"


def digest(text: str) -> str:
    """Give some letters by which *text* is known again."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def given_back(block: Block) -> Block:
    """
    Say a block of an answer as the API takes it back.

    It refuses the `file_id` that it tells of citations, and the texts that cannot be read as the arguments of
    a call.
    """
    if UNREAD in block:
        rest = {name: value for name, value in block.items() if name != UNREAD}
        return {**rest, "input": {INVALID: block[UNREAD]}}
    if not isinstance(block.get("citations"), list):
        return block
    citations = [
        {name: value for name, value in as_object(each).items() if name != "file_id"}
        for each in as_list(block["citations"])
    ]
    return {**block, "citations": citations}


def known_by(part: Part) -> str | None:
    """Give that by which a text or a call is known again, where something is kept of it beside it."""
    match part:
        case Text(text):
            return digest(text)
        case ToolCall(call_id):
            return call_id
        case _:
            return None


def container_of(told: Mapping[str, object]) -> str | None:
    """Find where the server's tools worked, for them to go on there."""
    container = as_object(told.get("container")).get("id")
    return container if isinstance(container, str) else None


@define
class History:
    """
    Messages, in the API's form.

    Attributes:
        host: Where they are sent: a thought that was signed elsewhere is not.
        prompts: The system's texts.
        warnings: What was left out, moved or added.
        container: Where a tool of the server's is to go on, once the turns are given.
    """

    host: str = HOST
    prompts: list[str] = field(factory=list[str])
    warnings: list[str] = field(factory=list[str])
    container: str | None = None
    _turns: list[Turn] = field(factory=list[Turn])
    _last: list[Block] = field(factory=list[Block])
    _latest: str | None = None

    def take(self, message: Message, *, last: bool) -> None:
        """
        Add *message*.

        Raises:
            UsageError: It is the *last*, which is to be answered, and cannot be sent as it is.
        """
        role, parts = message.role, message.parts
        plain = len(parts) == 1 and role is not Role.SYSTEM and not message.extra
        if plain and isinstance(part := parts[0], Text) and part.text.strip():  # As nearly every one is.
            self._last = [{"type": "text", "text": part.text}]
            self._turns.append((_side(role), self._last))
            return
        self._last = []
        self._latest = container_of(message.extra) or self._latest
        for number, part in enumerate(parts):
            if isinstance(part, Text) and not part.text.strip():
                continue  # The API refuses blank texts.
            try:
                self._add(part, message, number)
            except UsageError as error:
                if last:
                    raise
                self._warn(f"left out of the history: {error}")
        if last and all(map(is_thought, self._last)):
            raise UsageError(f"{NAME}: the last message is to be answered, and says nothing", provider=NAME)

    def turns(self) -> list[Block]:
        """
        Give the messages, each side's turn as one, in an order that the API takes.

        Raises:
            UsageError: The last message has a result of a call that was not made before it, or has one.
        """
        ordered = in_order(self._turns, self._warn)
        self.container = self._latest if ordered.waits else None
        for result, why in ordered.orphans:
            if any(result is block for block in self._last):
                raise UsageError(f"{NAME} cannot be sent {why}", provider=NAME)
            self._warn(f"left out of the history: {why}")
        return [{"role": side, "content": blocks} for side, blocks in ordered.turns]

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _add(self, part: Part, message: Message, number: int) -> None:
        role = message.role
        if role is Role.SYSTEM:
            if not isinstance(part, Text):
                raise _refusal(part, role)
            if self._turns:
                self._warn(MOVED)
            self.prompts.append(part.text)
            return
        if isinstance(part, Opaque) and part.origin != NAME and role is Role.ASSISTANT:
            kind, origin = part.kind, part.origin
            self._warn(f"a part of the kind {kind!r} was left out: it can be given back to {origin} only")
            return
        for side, block in _blocks(part, role, self.host):
            self._last.append(given_back({**block, **_beside(part, message, number)}))
            self._turns.append((side, self._last[-1:]))


def _side(role: Role) -> str:
    return "assistant" if role is Role.ASSISTANT else "user"


def _beside(part: Part, message: Message, number: int) -> Block:
    """Find what the API told of a part beyond ours, and wants back: it stands in `extra` of its message."""
    told = as_object(as_object(message.extra.get("content")).get(str(number)))
    if not told:
        return {}
    if told.get(OF, known_by(part)) != known_by(part):
        return {}  # The parts were changed since.
    citations, caller = as_list(told.get("citations")), as_object(told.get("caller"))
    if isinstance(part, Text) and citations and all("type" in as_object(each) for each in citations):
        return {"citations": citations}
    return {"caller": caller} if isinstance(part, ToolCall) and "type" in caller else {}


def _blocks(part: Part, role: Role, host: str) -> Iterator[tuple[str, Block]]:
    """
    Say a part in the API's form, and who says it; thoughts that were not signed here give nothing.

    Raises:
        UsageError: The API cannot take it there.
    """
    answered, side = role is Role.ASSISTANT, _side(role)
    match part:
        case Text(text):
            yield side, {"type": "text", "text": text}
        case ToolResult(call_id, content, is_error):
            result = {"type": "tool_result", "tool_use_id": call_id}
            failed = {"content": content if content.strip() else "error", "is_error": True}
            yield "user", {**result, **(failed if is_error else {"content": content})}
        case ToolCall(call_id, name, arguments) if answered:
            yield side, {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
        case Attachment() if not answered:
            yield side, _attached(part)
        case Opaque(origin, _, data) if origin == NAME and _is_whole(as_object(data)):
            block = dict(as_object(data))
            if block.get("type") != "redacted_thinking" or block.pop(SIGNED_BY, NAME) == signer(host):
                yield side, block
        case Reasoning(text, signature) if answered:
            ours = sign("", host)
            if signature is not None and signature.startswith(ours):
                signature = signature.removeprefix(ours)
                yield side, {"type": "thinking", "thinking": text, "signature": signature}
        case _:
            raise _refusal(part, role)


def _is_whole(block: Block) -> bool:
    """Tell whether the API may take *block*: what it has types for is opaque only for want of a form."""
    if not block:
        return False
    if str(block.get("type")) not in _MODELLED:
        return True
    return UNREAD in block and isinstance(block.get("id"), str) and isinstance(block.get("name"), str)


def _refusal(part: Part, role: Role) -> UsageError:
    kind = type(part).__name__
    if isinstance(part, Opaque):
        kind = f"part of {part.origin} of the kind {part.kind!r}"
    return UsageError(f"{NAME} takes no {kind} in a message of the {role.value}'s", provider=NAME)


def _attached(part: Attachment) -> Block:
    kind = part.media_type.lower().partition(";")[0].strip()
    title = {} if part.name is None else {"title": part.name}
    data: bytes | None = part.data
    if data is None:
        source = {"type": "url", "url": part.url}
        if kind.startswith("image/"):
            return {"type": "image", "source": source}
        if kind == "application/pdf":
            return {"type": "document", "source": source, **title}
    elif kind in _IMAGES:
        return {"type": "image", "source": _base64(kind, data)}
    elif kind == "application/pdf":
        return {"type": "document", "source": _base64(kind, data), **title}
    elif kind.startswith("text/"):
        text = {"type": "text", "media_type": "text/plain", "data": _decoded(part, data)}
        return {"type": "document", "source": text, **title}
    raise UsageError(
        f"{NAME} takes no attachment of the type {part.media_type!r}"
        f"{' by its url' if data is None else ''}, only {_TAKEN}",
        provider=NAME,
    )


def _base64(kind: str, data: bytes) -> Block:
    return {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}


def _decoded(part: Attachment, data: bytes) -> str:
    """
    Read a text file: its type names the charset, or its first bytes tell it, or else it is UTF-8.

    Raises:
        UsageError: It is another.
    """
    header = Header()
    header["Content-Type"] = part.media_type
    marked = next((charset for mark, charset in _MARKS.items() if data.startswith(mark)), "utf-8")
    charset = marked
    try:
        charset = header.get_content_charset(marked)
        return data.decode(charset).removeprefix("\ufeff")
    except (LookupError, ValueError):
        pass
    named = "a text file" if part.name is None else f"the text file {part.name!r}"
    raise UsageError(
        f"{NAME} cannot be sent {named}: it is not {charset}; name its charset in the type, as in "
        "'text/plain; charset=iso-8859-1'",
        provider=NAME,
    )
