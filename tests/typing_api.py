"""How applications use chatbridge, for type checkers alone: nothing here is run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import chatbridge as cb
from chatbridge_adapters.openai import Model, OpenAIBackend


async def talk() -> cb.Reply:
    async with cb.connect("fake:", reply="Hello", timeout=5.0) as bridge:
        assert_type(bridge, cb.Bridge)
        assert_type(bridge.profile.support(cb.Feature.STREAM), cb.Support)
        chat = await bridge.create(title="Kyoto", system="Be brief.", history=[cb.Message.user("Hi")])
        assert_type(chat, cb.Chat)
        assert_type(chat.id, str)
        await chat.send(cb.Message.user(["Look", cb.Attachment("image/png", data=b"")]))
        await chat.send("Hi", cb.SendOptions(stop="."), temperature=0.2, include="usage")
        await chat.send("Hi", stop=["a", "b"], include={"usage"}, tools=[{"name": "look"}])
        reply = await chat.send("When do the maples turn?")
        assert_type(reply, cb.Reply)
        assert_type(reply.text, str)
        assert_type(reply.message, cb.Message)
        if reply.usage is not None:
            assert_type(reply.usage.total_tokens, int | None)
        return reply


async def stream(chat: cb.Chat) -> str:
    async with chat.stream("And the crowds?", model="m") as answer:
        assert_type(answer, cb.ReplyStream)
        async for piece in answer.text():
            assert_type(piece, str)
    assert_type(answer.reply, cb.Reply)
    return answer.partial


async def events(chat: cb.Chat) -> AsyncIterator[str]:
    async with chat.stream("Hi") as answer:
        async for event in answer:
            match event:
                case cb.TextDelta(text) | cb.ReasoningDelta(text):
                    yield text
                case cb.PartAdded(cb.ToolCall(_, name, arguments), index):
                    yield f"{index}: {name} {dict(arguments)}"
                case cb.Reset(reason):
                    yield reason
                case cb.Finished(reply):
                    yield reply.text
                case cb.Started() | cb.PartAdded() | cb.Progress():
                    pass


async def manage(bridge: cb.Bridge) -> None:
    async for conversation in bridge.conversations():
        assert_type(conversation, cb.Conversation)
        chat = bridge.open(conversation.id, system="Be brief.")
        assert_type(await chat.rename("Nara"), cb.Conversation)
        assert_type(await chat.refresh(), cb.Conversation)
        async for message in chat.messages(limit=3, newest_first=True):
            assert_type(message, cb.Message)
    async with bridge.temporary(title="Scratch") as chat:
        await chat.delete()


async def carefully(chat: cb.Chat) -> str | None:
    try:
        return (await chat.send("Hi")).text
    except cb.NotSent as error:
        assert_type(error.retry_after, float | None)
    except cb.Refused as error:
        assert_type(error.status, int | None)
    except cb.DeliveryUnknown as error:
        assert_type(error.client_id, str | None)
    except cb.AnswerLost as error:
        return error.partial
    except TimeoutError:
        pass
    except cb.ChatbridgeError as error:
        assert_type(error.outcome, cb.Outcome)
    return None


async def models(bridge: cb.Bridge) -> tuple[Model, ...]:
    assert isinstance(bridge.api, OpenAIBackend)
    return await bridge.api.list_models()
