"""A bot that greets."""

from chatbridge import Bridge


async def greet(bridge: Bridge, said: str) -> str:
    """Answer in a conversation of its own."""
    chat = await bridge.create()
    reply = await chat.send(said)
    return f"Ahoy! {reply.text}"
