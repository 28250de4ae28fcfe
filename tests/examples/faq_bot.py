"""A bot that knows a list of answers and its user's name, and asks the model what is not on the list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from chatbridge import Bridge, Chat, ChatbridgeError

__all__ = ["FaqBot"]


class FaqBot:
    """
    Answers questions; one for each user.

    It remembers the name itself and tells it with each question, as not every API shows the model what was
    said before.

    Attributes:
        answers: The answers, by their questions.
        name: The user's name, once it is known.
    """

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = {question.lower(): answer for question, answer in answers.items()}
        self.name: str | None = None
        self._chats: dict[Bridge, Chat] = {}

    async def __call__(self, bridge: Bridge, said: str) -> str:
        """Answer what the user says."""
        if named := re.search(r"\bmy name is (\w+)", said, re.IGNORECASE):
            self.name = named[1]
            return f"Nice to meet you, {self.name}."
        answer = self._known(said) or await self._ask(bridge, said)
        return f"{answer} Anything else, {self.name}?" if self.name else answer

    def _known(self, said: str) -> str | None:
        match = get_close_matches(said.lower(), self.answers, n=1, cutoff=0.8)
        return self.answers[match[0]] if match else None

    async def _ask(self, bridge: Bridge, said: str) -> str:
        asked = f"The user's name is {self.name}. {said}" if self.name else said
        try:
            if bridge not in self._chats:
                self._chats[bridge] = await bridge.create()
            return (await self._chats[bridge].send(asked)).text
        except ChatbridgeError:
            # Whether the question arrived matters little: the next one begins anew.
            self._chats.pop(bridge, None)
            return "I cannot look that up just now. Please ask me again."
