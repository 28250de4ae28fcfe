"""The emulator of h2oGPTe: its fifteen operations, their errors and quirks, streams byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.h2ogpte.emulator import H2OGPTeEmulator

NOBODY = str(uuid.UUID(int=0))
NOW = "2026-01-01T12:00:00.000005Z"


@pytest.fixture
def h2ogpte() -> H2OGPTeEmulator:
    return H2OGPTeEmulator(now=lambda: datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC))


class Client:
    """Says what is asked and gives status and JSON."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def __call__(self, method: str, path: str, json: object = None, **query: str) -> tuple[int, Any]:
        async with self.http.request(method, path, json=json, params=query) as response:
            assert "application/json" == response.headers["Content-Type"]
            return response.status, await response.json()

    async def create(self, **query: str) -> str:
        _, session = await self("POST", "chats", **query)
        return str(session["id"])

    async def say(self, session: str, message: str, **fields: object) -> str:
        """Send *message*; gives the id of the answer."""
        status, answer = await self("POST", f"chats/{session}/completions", {"message": message, **fields})
        assert 200 == status
        return str(answer["message_id"])

    async def history(self, session: str) -> list[str]:
        _, messages = await self("GET", f"chats/{session}/messages")
        return [message["content"] for message in messages]

    async def meta(self, message: str, kind: str) -> Any:
        _, [entry] = await self("GET", f"messages/{message}/meta", info_type=kind)
        assert kind == entry["message_type"]
        return json.loads(entry["content"])


@pytest.fixture
async def client(h2ogpte: H2OGPTeEmulator) -> AsyncGenerator[Client, None]:
    headers = {"Authorization": f"Bearer {h2ogpte.key}"}
    async with (
        serve(h2ogpte) as served,
        aiohttp.ClientSession(f"{served.base_url}/api/v1/", headers=headers) as http,
    ):
        yield Client(http)
    assert [] == h2ogpte.crashes


async def test_a_new_session_is_a_201_that_shows_only_what_is_set(client: Client) -> None:
    status, session = await client("POST", "chats")
    assert 201 == status
    assert str(uuid.UUID(session["id"])) == session["id"]
    assert {"name", "collection_id", "latest_message_content"}.isdisjoint(session)
    assert NOW == session["updated_at"]


async def test_a_session_takes_a_collection_and_a_workspace_but_no_name(client: Client) -> None:
    _, session = await client("POST", "chats", {"workspace": "w", "name": "ignored"}, collection_id="c")
    assert ("c", "w") == (session["collection_id"], session["workspace"])
    assert "name" not in session


async def test_an_empty_body_with_a_json_content_type_is_no_body(client: Client) -> None:
    headers = {"Content-Type": "application/json"}
    async with client.http.post("chats", data=b"", headers=headers) as response:
        session = (await response.json())["id"]
        assert 201 == response.status
    async with client.http.delete(f"chats/{session}", data=b"", headers=headers) as response:
        assert 204 == response.status


async def test_a_session_shows_all_its_fields_null_where_unset(client: Client) -> None:
    session = await client.create()
    assert (
        200,
        {
            "id": session,
            "name": None,
            "collection_id": None,
            "collection_name": None,
            "prompt_template_id": None,
            "latest_message_content": None,
            "updated_at": NOW,
            "workspace": None,
            "username": "emulator",
            "status": "active",
            "expiry_date": None,
            "inactivity_interval": None,
            "keep_forever": False,
            "archived_at": None,
            "source": "user",
        },
    ) == await client("GET", f"chats/{session}")


async def test_sessions_are_listed_latest_update_first_and_counted(client: Client) -> None:
    a, b, c = [await client.create() for _ in range(3)]
    await client.say(b, "hi")
    await client("PATCH", f"chats/{a}", {"name": "A"})
    _, sessions = await client("GET", "chats")
    assert [a, b, c] == [session["id"] for session in sessions]
    assert (200, {"count": 3}) == await client("GET", "chats/count")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, "gfedcba"),
        ({"offset": "2"}, "edcba"),
        ({"limit": "2"}, "gf"),
        ({"offset": "5", "limit": "9"}, "ba"),
        ({"offset": "7"}, ""),
        ({"limit": "0"}, ""),
    ],
)
async def test_sessions_come_in_pages(client: Client, query: dict[str, str], expected: str) -> None:
    for name in "abcdefg":
        await client("PATCH", f"chats/{await client.create()}", {"name": name})
    _, sessions = await client("GET", "chats", **query)
    assert expected == "".join(session["name"] for session in sessions)


async def test_a_page_is_a_hundred_entries_unless_asked_and_clipped_at_the_maximum(
    h2ogpte: H2OGPTeEmulator, client: Client
) -> None:
    session = await client.create()
    for n in range(51):
        await client.say(session, str(n))
    assert 100 == len(await client.history(session))
    h2ogpte.max_limit = 7
    _, messages = await client("GET", f"chats/{session}/messages", limit="50", offset="1")
    assert 7 == len(messages)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("chats", "offset"),
        ("chats", "limit"),
        ("chats/{}/messages", "limit"),
        ("chats/{}/questions", "limit"),
    ],
)
@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "\u0661", "9" * 5000])
async def test_a_paging_number_below_zero_or_too_long_or_no_number_is_a_400(
    client: Client, path: str, name: str, value: str
) -> None:
    problem = f"{name} must be a whole number from 0 up, of at most 18 digits"
    expected = (400, {"code": 400, "message": problem})
    assert expected == await client("GET", path.format(await client.create()), **{name: value})


async def test_renaming_answers_the_session_and_touches_it(client: Client) -> None:
    session = await client.create()
    status, renamed = await client("PATCH", f"chats/{session}", {"name": "Heroes"})
    assert (200, "Heroes") == (status, renamed["name"])


@pytest.mark.parametrize("part", ["collection", "prompt_template"])
async def test_binding_and_unbinding_both_answer_200_with_the_session(client: Client, part: str) -> None:
    session = await client.create()
    status, bound = await client("PUT", f"chats/{session}/{part}", {f"{part}_id": "anything"})
    assert (200, "anything") == (status, bound[f"{part}_id"])
    status, unbound = await client("DELETE", f"chats/{session}/{part}")
    assert (200, session, None) == (status, unbound["id"], unbound[f"{part}_id"])


async def test_a_prompt_template_may_be_left_out_which_removes_it(client: Client) -> None:
    session = await client.create()
    await client("PUT", f"chats/{session}/prompt_template", {"prompt_template_id": "t"})
    _, changed = await client("PUT", f"chats/{session}/prompt_template", {})
    assert changed["prompt_template_id"] is None


async def test_deleting_is_a_204_without_body_and_final(client: Client) -> None:
    session = await client.create()
    message = await client.say(session, "hi")
    async with client.http.delete(f"chats/{session}", params={"timeout": "5.5"}) as response:
        assert (204, b"") == (response.status, await response.read())
        assert "Content-Type" not in response.headers
    assert 404 == (await client("DELETE", f"chats/{session}"))[0]
    assert 404 == (await client("GET", f"messages/{message}/meta"))[0]
    assert (200, {"count": 0}) == await client("GET", "chats/count")


async def test_the_timeout_of_a_deletion_is_a_number(client: Client) -> None:
    expected = (400, {"code": 400, "message": "timeout must be a number of seconds"})
    assert expected == await client("DELETE", f"chats/{await client.create()}", timeout="soon")


async def test_a_turn_is_stored_as_a_question_and_an_answer_that_replies_to_it(client: Client) -> None:
    session = await client.create()
    answer = await client.say(session, "hi", llm_args={"seed": 1})
    _, [question, reply] = await client("GET", f"chats/{session}/messages")
    common = {
        "votes": 0,
        "created_at": NOW,
        "has_references": False,
        "total_references": 0,
        "error": None,
        "type_list": None,
    }
    asked = {"id": question["id"], "content": "hi", "username": "emulator", "llm_args": '{"seed": 1}'}
    assert common | asked == question
    said = {
        "id": answer,
        "content": "Turn 1: you said 'hi'.",
        "reply_to": question["id"],
        "llm_args": "null",
    }
    assert common | said == reply
    _, shown = await client("GET", f"chats/{session}")
    assert "Turn 1: you said 'hi'." == shown["latest_message_content"]


@pytest.mark.parametrize("setting", [{}, {"include_chat_history": "true"}, {"include_chat_history": "auto"},
                                     {"include_chat_history": True}])  # fmt: skip
async def test_the_model_sees_the_history(client: Client, setting: dict[str, object]) -> None:
    session = await client.create()
    await client.say(session, "a")
    await client.say(session, "b", **setting)
    assert "Turn 2: you said 'b'. Before that you said 'a'." == (await client.history(session))[-1]


@pytest.mark.parametrize("setting", ["false", False])
async def test_the_model_does_not_see_the_history_when_told_so(client: Client, setting: object) -> None:
    session = await client.create()
    await client.say(session, "a")
    await client.say(session, "b", include_chat_history=setting)
    assert "Turn 1: you said 'b'." == (await client.history(session))[-1]


async def test_a_stream_sends_json_lines_and_the_whole_answer_last(client: Client) -> None:
    session = await client.create()
    request = {"message": "é", "stream": True}
    headers = {"Accept": "application/json"}
    async with client.http.post(f"chats/{session}/completions", json=request, headers=headers) as response:
        assert (200, "application/jsonl") == (response.status, response.headers["Content-Type"])
        content = await response.read()
    _, [_, answer] = await client("GET", f"chats/{session}/messages")
    assert [
        '{"body":"Turn","finished":false}',
        '{"body":" 1:","finished":false}',
        '{"body":" you","finished":false}',
        '{"body":" said","finished":false}',
        '{"body":" \'é\'.","finished":false}',
        '{"message_id":"ID","body":"Turn 1: you said \'é\'.","finished":true}'.replace("ID", answer["id"]),
        "",
    ] == content.decode().split("\n")


async def test_each_line_of_a_stream_leaves_before_the_next_is_made(
    h2ogpte: H2OGPTeEmulator, client: Client
) -> None:
    hold = asyncio.Event()
    h2ogpte.fail(Fault(cut_after=1, cut="resume", hold=hold), operation="get_completion")
    session = await client.create()
    async with client.http.post(
        f"chats/{session}/completions", json={"message": "a", "stream": True}
    ) as response:
        assert b'{"body":"Turn","finished":false}\n' == await response.content.readline()
        assert [] == await client.history(session)
        hold.set()
        assert (await response.read()).endswith(b'"finished":true}\n')
    assert ["a", "Turn 1: you said 'a'."] == await client.history(session)


async def test_a_stream_may_carry_the_text_so_far_instead(h2ogpte: H2OGPTeEmulator, client: Client) -> None:
    h2ogpte.cumulative = True
    session = await client.create()
    async with client.http.post(
        f"chats/{session}/completions", json={"message": "a", "stream": True}
    ) as response:
        lines = [json.loads(line)["body"] for line in (await response.read()).splitlines()]
    whole = "Turn 1: you said 'a'."
    assert ["Turn", "Turn 1:", "Turn 1: you", "Turn 1: you said", whole, whole] == lines


@pytest.mark.parametrize("llm", [None, "auto"])
async def test_usage_stats_name_the_model_and_count_words_as_tokens(client: Client, llm: str | None) -> None:
    session = await client.create()
    named = await client.meta(
        await client.say(session, "a b", llm="gpt-4o", system_prompt="c d e"), "usage_stats"
    )
    assert [{"llm": "gpt-4o", "input_tokens": 5, "output_tokens": 6}] == named["usage"]
    assert "gpt-4o" == named["llm"]
    chosen = await client.meta(await client.say(session, "f", llm=llm), "usage_stats")
    assert [{"llm": "emulator-llm", "input_tokens": 9, "output_tokens": 11}] == chosen["usage"]


async def test_prompt_raw_shows_all_that_the_model_was_shown(client: Client) -> None:
    session = await client.create(collection_id="c")
    await client("PUT", f"chats/{session}/prompt_template", {"prompt_template_id": "t"})
    await client.say(session, "a")
    fields = {"system_prompt": "s", "pre_prompt_query": "p", "prompt_query": "q"}
    assert fields | {
        "prompt_template_id": "t",
        "context": ["Excerpt 1 of collection c.", "Excerpt 2 of collection c."],
        "history": [["a", "Turn 1: you said 'a'."]],
        "message": "b",
    } == await client.meta(await client.say(session, "b", **fields), "prompt_raw")


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, ["usage_stats", "prompt_raw"]),
        ({"rag_config": {"rag_type": "llm_only"}}, ["usage_stats", "prompt_raw", "llm_only"]),
        ({"rag_config": {"rag_type": "hyde2"}}, ["usage_stats", "prompt_raw", "llm_only", "hyde1"]),
        ({"self_reflection_config": {}}, ["usage_stats", "prompt_raw", "self_reflection"]),
    ],
)
async def test_what_metadata_an_answer_has_depends_on_the_request(
    client: Client, fields: dict[str, object], kinds: list[str]
) -> None:
    session = await client.create()
    answer = await client.say(session, "a", **fields)
    _, entries = await client("GET", f"messages/{answer}/meta")
    assert kinds == [entry["message_type"] for entry in entries]
    assert (200, []) == await client("GET", f"messages/{answer}/meta", info_type="py_client_code")
    _, [question, _] = await client("GET", f"chats/{session}/messages")
    assert (200, []) == await client("GET", f"messages/{question['id']}/meta")


async def test_an_unknown_kind_of_metadata_is_a_400(client: Client) -> None:
    answer = await client.say(await client.create(), "a")
    status, error = await client("GET", f"messages/{answer}/meta", info_type="mood")
    assert (400, 400) == (status, error["code"])
    assert error["message"].startswith("info_type must be one of self_reflection, usage_stats")


async def test_answers_from_a_collection_have_references_and_questions_none(client: Client) -> None:
    session = await client.create(collection_id="c")
    answer = await client.say(session, "a")
    _, [first, second] = await client("GET", f"messages/{answer}/references")
    assert {
        "collection_id": "c",
        "document_id": str(uuid.uuid5(uuid.NAMESPACE_URL, "c/document-2.pdf")),
        "document_name": "document-2.pdf",
        "chunk_id": 2,
        "pages": "2",
        "content": "Excerpt 2 of collection c.",
        "were_references_deleted": False,
        "score": 0.5,
        "uri": None,
    } == second
    assert (200, [first]) == await client("GET", f"messages/{answer}/references", limit="1")
    _, [question, reply] = await client("GET", f"chats/{session}/messages")
    assert (True, 2) == (reply["has_references"], reply["total_references"])
    assert (False, 0) == (question["has_references"], question["total_references"])
    assert (200, []) == await client("GET", f"messages/{question['id']}/references")


@pytest.mark.parametrize(
    ("query", "fields"), [({}, {}), ({"collection_id": "c"}, {"rag_config": {"rag_type": "llm_only"}})]
)
async def test_answers_without_documents_have_no_references(
    client: Client, query: dict[str, str], fields: dict[str, object]
) -> None:
    answer = await client.say(await client.create(**query), "a", **fields)
    assert (200, []) == await client("GET", f"messages/{answer}/references")


async def test_questions_are_suggested_from_what_was_said(client: Client) -> None:
    session = await client.create()
    await client.say(session, "a")
    asked = [{"question": "What can you do?"}, {"question": "What follows from 'a'?"}]
    assert (200, asked) == await client("GET", f"chats/{session}/questions")
    assert (200, asked[:1]) == await client("GET", f"chats/{session}/questions", limit="1")


OPERATIONS = [(each.method, each.path.format(session_id=NOBODY, message_id=NOBODY)) for each in
              H2OGPTeEmulator().operations]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("authorization", ["", "Bearer sk-other", "bearer sk-emulator", "sk-emulator"])
async def test_every_operation_needs_the_key_as_a_bearer(
    client: Client, method: str, path: str, authorization: str
) -> None:
    async with client.http.request(method, path[1:], headers={"Authorization": authorization}) as response:
        error = {"code": 401, "message": "Unauthorized - Invalid or missing API key"}
        assert (401, error) == (response.status, await response.json())


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p in OPERATIONS if NOBODY in p])
async def test_an_unknown_session_or_message_is_a_404(client: Client, method: str, path: str) -> None:
    await client.say(await client.create(), "so that there are messages to search")
    what = "Message" if "messages/" in path else "Chat session"
    assert (404, {"code": 404, "message": f"{what} not found"}) == await client(
        method, path[1:], {"message": "a"}
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "chats", b"{", "The body must be a JSON object"),
        ("POST", "chats", b'{"workspace":1}', "workspace must be a non-empty string"),
        ("PATCH", "chats/{}", b"", "The body must be a JSON object"),
        ("PATCH", "chats/{}", b"[]", "The body must be a JSON object"),
        ("PATCH", "chats/{}", b"{}", "name must be a non-empty string"),
        ("PATCH", "chats/{}", b'{"name":1}', "name must be a non-empty string"),
        ("PUT", "chats/{}/collection", b'{"collection_id":""}', "collection_id must be a non-empty string"),
        ("PUT", "chats/{}/prompt_template", b'{"prompt_template_id":[]}',
         "prompt_template_id must be a non-empty string"),
        ("POST", "chats/{}/completions", b"", "The body must be a JSON object"),
        ("POST", "chats/{}/completions", b"NaN", "The body must be a JSON object"),
        ("POST", "chats/{}/completions", b"{}", "message must be a non-empty string"),
        ("POST", "chats/{}/completions", b'{"message":""}', "message must be a non-empty string"),
        ("POST", "chats/{}/completions", b'{"message":["a"]}', "message must be a non-empty string"),
    ],
)  # fmt: skip
async def test_a_malformed_or_incomplete_body_is_a_400(
    client: Client, method: str, path: str, body: bytes, message: str
) -> None:
    session = await client.create()
    async with client.http.request(method, path.format(session), data=body) as response:
        assert (400, {"code": 400, "message": message}) == (response.status, await response.json())
    assert [] == await client.history(session)


@pytest.mark.parametrize(
    ("field", "good", "bad", "form"),
    [
        *[(name, [None, "x"], [1, ["x"]], "a string or null")
          for name in ("system_prompt", "pre_prompt_query", "prompt_query", "llm",
                       "image_batch_final_prompt", "image_batch_image_prompt")],
        *[(name, [None, {"a": 1}], ["x", ["x"]], "an object or null")
          for name in ("llm_args", "self_reflection_config", "rag_config")],
        ("include_chat_history", ["auto", False], ["on", None, 1], '"true", "false" or "auto"'),
        ("tags", [["a"], {"include": ["a"], "exclude": ["b"]}, {}],
         [["a", 1], "a", {"only": ["a"]}, {"include": "a"}],
         "an array of strings or an object of them"),
        ("stream", [False], ["true", 1], "a boolean"),
    ],
)  # fmt: skip
async def test_each_field_of_a_completion_takes_its_type_and_no_other(
    client: Client, field: str, good: list[object], bad: list[object], form: str
) -> None:
    session = await client.create()
    for value in good:
        await client.say(session, "a", **{field: value})
    for value in bad:
        expected = (400, {"code": 400, "message": f"{field} must be {form}"})
        assert expected == await client(
            "POST", f"chats/{session}/completions", {"message": "a", field: value}
        )


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [("GET", "nothing", 404, "Not Found"), ("PUT", "chats", 405, "Method Not Allowed")],
)
async def test_what_is_no_operation_is_an_endpoint_error(
    client: Client, method: str, path: str, status: int, message: str
) -> None:
    assert (status, {"code": status, "message": message}) == await client(method, path)


async def test_every_operation_is_logged_under_its_id(h2ogpte: H2OGPTeEmulator, client: Client) -> None:
    for method, path in OPERATIONS:
        async with client.http.request(method, path[1:]):
            pass
    assert [each.id for each in h2ogpte.operations] == [call.operation for call in h2ogpte.calls]
    assert 15 == len(h2ogpte.calls)


async def test_sends_to_one_session_at_once_keep_every_answer_with_its_question(client: Client) -> None:
    session = await client.create()
    await asyncio.gather(*(client.say(session, str(n), stream=False) for n in range(20)))
    _, messages = await client("GET", f"chats/{session}/messages")
    questions, answers = messages[::2], messages[1::2]
    assert [question["id"] for question in questions] == [answer["reply_to"] for answer in answers]
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True), 1):
        assert answer["content"].startswith(f"Turn {number}: you said {question['content']!r}.")


@pytest.mark.parametrize(
    ("fault", "stream", "error"),
    [
        (Fault(status=500, error="LLM gone", kept="question"), False, "LLM gone"),
        (Fault(cut_after=2, error="LLM gone"), True, "LLM gone"),
        (Fault(cut_after=2, error="LLM gone"), False, "LLM gone"),
        (Fault(drop="after", kept="question"), False, None),
    ],
)
async def test_a_failed_completion_may_leave_the_question_alone(
    h2ogpte: H2OGPTeEmulator, client: Client, fault: Fault, stream: bool, error: str | None
) -> None:
    session = await client.create()
    h2ogpte.fail(fault, operation="get_completion")
    try:
        async with client.http.post(
            f"chats/{session}/completions", json={"message": "a", "stream": stream}
        ) as response:
            last = (await response.read()).splitlines()[-1]
        expected: object = {"error": error} if stream else {"code": 500, "message": error}
        assert expected == json.loads(last)
    except aiohttp.ServerDisconnectedError:
        assert fault.drop == "after"
    _, [question] = await client("GET", f"chats/{session}/messages")
    assert ("a", error) == (question["content"], question["error"])
    await client.say(session, "b")
    assert "Turn 1: you said 'b'." == (await client.history(session))[-1]


async def test_a_question_left_alone_can_be_answered_late(h2ogpte: H2OGPTeEmulator, client: Client) -> None:
    session = await client.create()
    h2ogpte.fail(Fault(status=502, kept="question"), operation="get_completion")
    await client("POST", f"chats/{session}/completions", {"message": "a"})
    h2ogpte.answer_late(session)
    _, [question, answer] = await client("GET", f"chats/{session}/messages")
    assert (None, question["id"]) == (question["error"], answer["reply_to"])
    assert "Turn 1: you said 'a'." == answer["content"]
    with pytest.raises(ValueError, match="no question of session"):
        h2ogpte.answer_late(session)


async def test_an_answer_to_a_session_deleted_meanwhile_does_not_bring_it_back(
    h2ogpte: H2OGPTeEmulator, client: Client
) -> None:
    hold = asyncio.Event()
    fault = h2ogpte.fail(Fault(cut_after=1, cut="resume", hold=hold), operation="get_completion")
    session = await client.create()
    async with client.http.post(
        f"chats/{session}/completions", json={"message": "a", "stream": True}
    ) as response:
        await fault.reached.wait()
        async with client.http.delete(f"chats/{session}"):
            hold.set()
        await response.read()
    assert (200, []) == await client("GET", "chats")


def test_config_and_environment_reach_the_emulator() -> None:
    h2ogpte = H2OGPTeEmulator()
    assert "h2ogpte+http://127.0.0.1:8101" == h2ogpte.config("http://127.0.0.1:8101")
    assert {"H2OGPTE_API_KEY": "sk-emulator"} == h2ogpte.env
    assert re.match("sk-", h2ogpte.key)
