"""An answer of chat completions, with what servers say beyond the form that such APIs share."""

from __future__ import annotations

from attrs import define, evolve

from chatbridge.domain import FinishReason, Opaque, Reply, StreamEvent
from chatbridge.http import CompletionFold, Said, as_list
from chatbridge_adapters.openai.messages import sign
from chatbridge_adapters.openai.wire import NAME

NO_CHOICE = "the answer holds no choice, so there is no text"

# The first is what llama.cpp, LM Studio and DeepSeek say, the second what Ollama, OpenRouter and vLLM do.
_THOUGHTS = ("reasoning_content", "reasoning")


@define
class AnswerFold(CompletionFold):
    """
    An answer, put together from a stream or taken whole.

    A refusal is text like any other; the finish reason tells what it is, and the message's `extra` has it. A
    call of a tool that came without an id is given one, so that its result can name it.
    """

    origin: str = NAME
    _refused: bool = False

    def finish(self) -> list[StreamEvent]:
        """End the answer."""
        for number, call in enumerate(self._parts.calls):
            if not call.id:
                place = str(self._of_chunks.get("id") or "").rpartition("-")[2]
                call.add("_".join(filter(None, ("call", place, str(number)))), "", "")
        return super().finish()

    def reply(self) -> Reply:
        """Give the answer, once it has ended."""
        reply = super().reply()
        if not self._of_choices:
            return evolve(reply, warnings=(NO_CHOICE, *reply.warnings))
        if self._refused and reply.finish_reason in {None, FinishReason.STOP}:
            return evolve(reply, finish_reason=FinishReason.REFUSAL)
        return reply

    def _take(self, said: Said, *, whole: bool) -> None:
        if "reasoning" in said.raw or "reasoning_content" in said.raw:
            said = self._think(said)
        refusal = said.raw.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._refused = True
            said = evolve(said, content=[*as_list(said.content), refusal])
        super()._take(said, whole=whole)

    def _think(self, said: Said) -> Said:
        """Take the reasoning out of a message."""
        thought, rest = "", dict(said.raw)
        for name in _THOUGHTS:
            told = said.raw.get(name)
            if isinstance(told, str) and (not thought or told in {"", thought}):
                del rest[name]  # There are servers that say the same in both.
                if told and not thought:
                    thought = told
                    self._parts.think(told, sign(name))
        return evolve(said, raw=rest)

    def _call_all(self, said: Said, *, whole: bool) -> None:
        for position, piece in enumerate(said.tool_calls or ()):
            if "custom" in piece:  # It takes a text, and no arguments.
                self._parts.put(Opaque(NAME, "tool_call", self._parts.mended(piece)))
            else:
                self._call(position, piece, whole=whole)
