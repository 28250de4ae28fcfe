"""A bot at the front desk, which hands a conversation over to whoever knows more, with a briefing."""

from __future__ import annotations

from collections.abc import Mapping

from chatbridge import Bridge, Chat, ChatbridgeError
from chatbridge.backend import ContextOwner

__all__ = ["TriageBot"]

BRIEFING = "You take over this conversation. What was said last:"
RECENT = 8


class TriageBot:
    """
    Talks over the bridge that it is called with until a word comes up that belongs to an expert.

    A conversation cannot move from one API to another, so the expert gets a new one, whose first message
    begins with what was said before.

    Attributes:
        experts: Bridges to who takes over, by the word that calls for them.
    """

    def __init__(self, experts: Mapping[str, Bridge]) -> None:
        self.experts = experts
        self._expert: Bridge | None = None
        self._chat: Chat | None = None
        self._turns: list[str] = []

    async def __call__(self, bridge: Bridge, said: str) -> str:
        """Answer what the user says, as the expert or, where there is none or nobody answers, at the desk."""
        called = (expert for word, expert in self.experts.items() if word in said.lower())
        self._expert = next(called, self._expert)
        for place in filter(None, (self._expert, bridge)):
            try:
                answer = await self._ask(place, said)
            except ChatbridgeError:
                self._chat = None  # Whoever is asked next begins anew, and is briefed.
            else:
                self._turns += [f"- The user: {said}", f"- We: {answer}"]
                return answer
        return "Nobody can answer just now. Please say that again."

    async def _ask(self, bridge: Bridge, said: str) -> str:
        new = self._chat is None or self._chat.bridge is not bridge
        if self._chat is None or new:
            self._chat = await bridge.create()
        # A model that is never shown what was said before is told each time.
        if self._turns and (new or bridge.profile.context is ContextOwner.NONE):
            said = "\n".join([BRIEFING, *self._turns[-RECENT:], f"The user goes on: {said}"])
        return (await self._chat.send(said)).text
