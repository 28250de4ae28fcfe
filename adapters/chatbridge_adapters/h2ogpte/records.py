"""
What the emulator of h2oGPTe keeps: sessions, their messages, and what is known of an answer.

The names in ``usage_stats`` are those that the command line inside h2ogpte 1.7.5 reads.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from attrs import define, field, frozen

from chatbridge.testing.emulator import is_array, is_object
from chatbridge.testing.responder import Exchange
from chatbridge_adapters.h2ogpte.question import Request

__all__ = ["Message", "Reference", "Session", "answer_meta"]

USERNAME = "emulator"


@frozen(kw_only=True)
class Reference:
    """A piece of a document, made up from the number of the document and the collection's id."""

    document: int
    collection_id: str

    @property
    def excerpt(self) -> str:
        """What it says."""
        return f"Excerpt {self.document} of collection {self.collection_id}."

    def show(self) -> dict[str, object]:
        """Show a ChatMessageReference."""
        name = f"document-{self.document}.pdf"
        return {
            "collection_id": self.collection_id,
            "document_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.collection_id}/{name}")),
            "document_name": name,
            "chunk_id": self.document,
            "pages": str(self.document),
            "content": self.excerpt,
            "were_references_deleted": False,
            "score": 1 / self.document,
            "uri": None,
        }


@frozen(kw_only=True)
class Message:
    """A question or an answer, with what is known of it."""

    id: str
    content: str
    created_at: datetime
    llm_args: str
    reply_to: str | None = None
    error: str | None = None
    references: Sequence[Reference] = ()
    meta: Mapping[str, str] = field(factory=dict[str, str])

    def show(self) -> dict[str, object]:
        """Show a ChatMessage; a question has no ``reply_to`` and an answer no ``username``."""
        return {
            "id": self.id,
            "content": self.content,
            "votes": 0,
            "created_at": _time(self.created_at),
            "has_references": bool(self.references),
            "total_references": len(self.references),
            **({"username": USERNAME} if self.reply_to is None else {"reply_to": self.reply_to}),
            "error": self.error,
            "llm_args": self.llm_args,
            "type_list": None,
        }


@define(kw_only=True, eq=False)
class Session:
    """A session and its messages, oldest first."""

    id: str
    updated_at: datetime
    name: str | None = None
    collection_id: str | None = None
    prompt_template_id: str | None = None
    workspace: str | None = None
    messages: list[Message] = field(factory=list[Message])

    def show(self) -> dict[str, object]:
        """Show a ChatSession, null where a field is unset."""
        return {
            "id": self.id,
            "name": self.name,
            "collection_id": self.collection_id,
            "collection_name": self.collection_id and f"Collection {self.collection_id}",
            "prompt_template_id": self.prompt_template_id,
            "latest_message_content": self.messages[-1].content if self.messages else None,
            "updated_at": _time(self.updated_at),
            "workspace": self.workspace,
            "username": USERNAME,
            "status": "active",
            "expiry_date": None,
            "inactivity_interval": None,
            "keep_forever": False,
            "archived_at": None,
            "source": "user",
        }

    def history(self) -> list[Exchange]:
        """Give the answered turns."""
        said = {message.id: message.content for message in self.messages if message.reply_to is None}
        return [
            Exchange(said[each.reply_to], each.content) for each in self.messages if each.reply_to is not None
        ]


def answer_meta(
    session: Session, request: Request, history: Sequence[Exchange], context: Sequence[str], answer: str
) -> Iterator[tuple[str, str]]:
    """Give the metadata of an answer, by type."""
    prompt = {
        name: request.fields.get(name) for name in ("system_prompt", "pre_prompt_query", "prompt_query")
    }
    prompt |= {
        "prompt_template_id": session.prompt_template_id,
        "context": list(context),
        "history": [[turn.said, turn.answered] for turn in history],
        "message": request.message,
    }
    usage = {
        "llm": request.llm,
        "llm_args": request.fields.get("llm_args"),
        "response_time": 0.5,
        "retrieval_time": 0.125,
        "queue_time": 0.0,
        "cost": 0.001,
        "usage": [{"llm": request.llm, "input_tokens": _count(prompt), "output_tokens": _count(answer)}],
    }
    yield "usage_stats", json.dumps(usage, ensure_ascii=False)
    yield "prompt_raw", json.dumps(prompt, ensure_ascii=False)
    if request.rag_type in {"llm_only", "hyde1", "hyde2"}:
        yield "llm_only", answer
    if request.rag_type == "hyde2":
        yield "hyde1", answer
    if request.fields.get("self_reflection_config") is not None:
        yield (
            "self_reflection",
            json.dumps({"score": 1, "reflection": f"Checked: {answer}"}, ensure_ascii=False),
        )


def _count(value: object) -> int:
    """Count the words in all strings of *value*, which stand for tokens."""
    if isinstance(value, str):
        return len(value.split())
    if is_object(value):
        return sum(map(_count, value.values()))
    return sum(map(_count, value)) if is_array(value) else 0


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
