from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence

import pytest
from pydantic import SecretStr

from bot.actions.calls import JsonObject, unseen
from bot.actions.remote import FRESH_S, PAUSE_S, Remote, joined
from bot.errors import ActionError
from tests.actions.conftest import Answer, Call, Serve

TOKEN = "a-token"  # noqa: S105 (of no server)
NOTHING_DONE = b'{"events":[],"responses":[]}'


class Clock:
    """A clock in seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_remote(  # noqa: PLR0913 (all that an operator says)
    url: str,
    *,
    token: str = "",
    actions: Sequence[str] = (),
    streams: Sequence[str] = (),
    timeout_s: float = 10.0,
    clock: Clock | None = None,
) -> Remote:
    return Remote(
        url=url,
        token=SecretStr(token) if token else None,
        actions=actions,
        streams=streams,
        timeout_s=timeout_s,
        reword=False,
        clock=clock or Clock(),
    )


class Server:
    """Answers every request with the next of its answers, and keeps the requests."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        try:
            while self.answers:
                self.requests.append(await a_request(reader))
                answer = self.answers.pop(0)
                writer.write(answer)
                await writer.drain()
                if not answer:  # nothing is said, and the connection is closed
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


async def a_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return head + await reader.readexactly(int(value))
    return head


def says(status: int, body: bytes, *headers: str) -> bytes:
    """Write an answer of HTTP."""
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


async def failed(remote: Remote, call: Call, name: str = "action_x") -> ActionError:
    with pytest.raises(ActionError) as raised:
        await remote.run(call(name), unseen)
    await remote.close()
    return raised.value


# Running


@pytest.mark.parametrize("end", ["", "/", "/webhook", "/webhook/"])
async def test_the_call_is_posted_to_the_webhook_as_it_is(
    serve: Serve, call: Call, end: str
) -> None:
    server = Server(says(200, NOTHING_DONE))
    remote = a_remote(await serve(server.answer) + end, token=TOKEN)
    one = call("action_x")

    answer = await remote.run(one, unseen)
    await remote.close()

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /webhook HTTP/1.1")
    assert f"Authorization: Bearer {TOKEN}".encode() in head
    assert body == one.request
    assert (list(answer.events), list(answer.responses)) == ([], [])


async def test_the_answer_is_read_with_its_integers_whole(
    serve: Serve, call: Call
) -> None:
    values = [7, 7.0, 2**63, -(10**30), 0.1, "x", None]
    events = [{"event": "slot", "name": "x", "value": value} for value in values]
    body = json.dumps({"events": events, "responses": [{"text": "a", "more": {}}]})
    server = Server(says(200, body.encode()))
    remote = a_remote(await serve(server.answer))

    answer = await remote.run(call("action_x"), unseen)
    await remote.close()

    read = [event["value"] for event in answer.events]
    assert read == values
    assert [type(value) for value in read] == [type(value) for value in values]
    assert answer.responses == [{"text": "a", "more": {}}]


async def test_a_connection_is_used_again(serve: Serve, call: Call) -> None:
    server = Server(*3 * [says(200, NOTHING_DONE)])
    remote = a_remote(await serve(server.answer))

    for _ in range(3):
        await remote.run(call("action_x"), unseen)
    await remote.close()

    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("calls_before", [0, 1])
async def test_a_call_that_was_read_and_not_answered_is_never_sent_again(
    serve: Serve, call: Call, calls_before: int
) -> None:
    server = Server(*calls_before * [says(200, NOTHING_DONE)], b"")
    remote = a_remote(await serve(server.answer))
    for _ in range(calls_before):
        await remote.run(call("action_x"), unseen)

    error = await failed(remote, call)

    assert error.fault == "away"
    assert "nobody knows what it did, so it was not asked again" in str(error)
    assert len(server.requests) == calls_before + 1


async def test_a_connection_that_the_server_closed_is_not_used_again(
    serve: Serve, call: Call
) -> None:
    closed = asyncio.Event()
    server = Server(says(200, NOTHING_DONE))

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.answer(reader, writer)
        await writer.wait_closed()
        closed.set()

    remote = a_remote(await serve(once))
    await remote.run(call("action_x"), unseen)
    await closed.wait()
    for _ in range(5):  # the client's side hears of it
        await asyncio.sleep(0)
    server.answers.append(says(200, NOTHING_DONE))

    await remote.run(call("action_x"), unseen)
    await remote.close()

    assert server.connections == 2


@pytest.mark.parametrize(
    ("status", "body", "fault", "told"),
    [
        (
            400,
            b'{"error":"not mine","action_name":"action_x"}',
            "rejected",
            "rejected the call: not mine",
        ),
        (400, b'{"error":"Invalid body request"}', "crashed", "answered 400; see its"),
        (
            404,
            b'{"error":"none","action_name":"action_x"}',
            "missing",
            "does not have it",
        ),
        (404, b"<html>", "missing", "is no action server"),
        (401, b"", "away", "refused the token"),
        (403, b"", "away", "refused the token"),
        (449, b'{"error":"Missing"}', "crashed", "asks for a domain"),
        (500, b'{"error":"x","request_body":{"text":"secret"}}', "crashed", "500"),
        (302, b"", "crashed", "answered 302"),
        (204, b"", "crashed", "answered 204"),
        (503, b"\xff\xfe", "crashed", "answered 503"),
    ],
)
async def test_a_status_says_how_the_action_failed(  # noqa: PLR0913, PLR0917 (a table)
    serve: Serve, call: Call, status: int, body: bytes, fault: str, told: str
) -> None:
    server = Server(says(status, body, "Location: /elsewhere"))
    url = await serve(server.answer)

    error = await failed(a_remote(url, token=TOKEN), call)

    assert error.fault == fault
    assert told in str(error)
    assert "secret" not in str(error)
    assert TOKEN not in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"null", "it is null"),
        (b"", "it is no JSON"),
        (b"<html>", "it is no JSON"),
        (b"[]", "it is a list, not an object"),
        (b"5", "it is a number, not an object"),
        (b'{"events": {}}', "its events are an object, not a list"),
        (b'{"events": null}', "its events are null, not a list"),
        (b'{"events": [1]}', "events[0] is a number, not an object"),
        (b'{"events": [{}]}', "events[0] does not say which event it is"),
        (b'{"events": [{"event": 1}]}', "events[0] does not say"),
        (b'{"responses": "hi"}', "its responses are a text, not a list"),
        (b'{"responses": [["hi"]]}', "responses[0] is a list, not an object"),
        (b'{"events": [{"event": "slot", "value": NaN}]}', "it is no JSON"),
        (b'{"events": [{"event": "slot", "value": 1e999}]}', "it is no JSON"),
        (b'{"responses": [{"text": "\\ud83d"}]}', "it is no JSON"),
        (b'{"events": [' + b"[" * 5000, "it is no JSON"),
        (b'{"responses": [' + b"[" * 200 + b"]" * 201 + b"}", "deeper than 100"),
        (b'{"x": ' + b"9" * 5000 + b"}", "it is no JSON"),
        (b'{"events": [' + b"{}," * 1000 + b"{}]}", "its events are 1001, of which"),
        (b'{"responses": [' + b"{}," * 10_000 + b"{}]}", "its responses are 10001,"),
        (b'{"x": "' + b"x" * 2**21 + b'"}', "it is longer than 2097152 bytes"),
    ],
)
async def test_an_answer_that_is_none_is_nonsense(
    serve: Serve, call: Call, body: bytes, told: str
) -> None:
    server = Server(says(200, body))

    error = await failed(a_remote(await serve(server.answer)), call)

    assert error.fault == "nonsense"
    assert told in str(error)


async def test_an_answer_that_is_packed_is_not_unpacked(
    serve: Serve, call: Call
) -> None:
    bomb = gzip.compress(b" " * 2**24)
    server = Server(says(200, bomb, "Content-Encoding: gzip"))

    error = await failed(a_remote(await serve(server.answer)), call)

    assert error.fault == "nonsense"
    assert b"Accept-Encoding: identity" in server.requests[0]


async def test_an_answer_without_an_end_is_left(serve: Serve, call: Call) -> None:
    async def endless(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await a_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 2**16)
                await writer.drain()
        except ConnectionError:
            writer.close()

    error = await failed(a_remote(await serve(endless)), call)

    assert error.fault == "nonsense"
    assert "longer than" in str(error)


async def test_an_answer_that_is_missing_parts_has_none_of_them(
    serve: Serve, call: Call
) -> None:
    remote = a_remote(await serve(Server(says(200, b"{}")).answer))

    answer = await remote.run(call("action_x"), unseen)
    await remote.close()

    assert (list(answer.events), list(answer.responses)) == ([], [])


async def test_what_is_no_http_is_nonsense(serve: Serve, call: Call) -> None:
    server = Server(b"220 mail.example.org ESMTP\r\n\r\n")

    error = await failed(a_remote(await serve(server.answer)), call)

    assert error.fault == "nonsense"
    assert "is no HTTP" in str(error)


async def test_a_server_that_does_not_run_is_away(serve: Serve, call: Call) -> None:
    server = await asyncio.start_server(Server().answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()

    error = await failed(a_remote(f"http://127.0.0.1:{port}"), call)

    assert error.fault == "away"
    assert f"http://127.0.0.1:{port} cannot be reached" in str(error)


async def test_a_server_that_is_silent_is_late(serve: Serve, call: Call) -> None:
    over = asyncio.Event()
    remote = a_remote(await serve(silent_until(over)), timeout_s=0.1)

    error = await failed(remote, call)
    over.set()

    assert error.fault == "late"
    assert "took longer than 0.1 s" in str(error)


async def test_who_is_cancelled_leaves_the_server(serve: Serve, call: Call) -> None:
    asked, over = asyncio.Event(), asyncio.Event()
    remote = a_remote(await serve(silent_until(over, asked)))
    running = asyncio.ensure_future(remote.run(call("action_x"), unseen))
    await asked.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    over.set()
    await remote.close()


def silent_until(over: asyncio.Event, asked: asyncio.Event | None = None) -> Answer:
    async def silent(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await a_request(reader)
        if asked is not None:
            asked.set()
        await over.wait()
        writer.close()

    return silent


# Streams


async def test_the_pieces_of_an_action_that_streams_are_joined(
    serve: Serve, call: Call
) -> None:
    pieces = [{"text": "Re", "buttons": []}, {"text": "turns "}, {"text": "take"}]
    body = json.dumps({"events": [], "responses": pieces}).encode()
    server = Server(says(200, body), says(200, body))
    remote = a_remote(await serve(server.answer), streams=["action_x"])

    streamed = await remote.run(call("action_x"), unseen)
    plain = await remote.run(call("action_y"), unseen)
    await remote.close()

    assert [one["text"] for one in streamed.responses] == ["Returns take"]
    assert list(plain.responses) == pieces


def test_only_text_beside_text_is_joined() -> None:
    buttons: JsonObject = {"text": "c", "buttons": [{"title": "x"}]}
    template: JsonObject = {"text": None, "response": "utter_x"}
    said: list[JsonObject] = [{"text": "a"}, {"text": "b"}, buttons, {"text": "d"}]

    assert joined([*said, template, {"text": ""}, {"text": "e"}]) == [
        {"text": "ab"},
        buttons,
        {"text": "d"},
        template,
        {"text": "e"},
    ]
    assert joined([]) == []


# What it has


async def test_the_operators_list_is_believed_without_asking() -> None:
    remote = a_remote("http://127.0.0.1:9", actions=["action_x"])

    assert await remote.names() == ("action_x",)


async def test_what_a_server_has_is_remembered_for_a_while(serve: Serve) -> None:
    server = Server(says(200, b'[{"name":"a"}]'), says(200, b'[{"name":"b"}]'))
    clock = Clock()
    remote = a_remote(await serve(server.answer), clock=clock, token=TOKEN)

    first, again = await remote.names(), await remote.names()
    clock.now += FRESH_S
    later = await remote.names()
    await remote.close()

    assert (first, again, later) == (["a"], ["a"], ["b"])
    assert server.requests[0].startswith(b"GET /actions HTTP/1.1")
    assert f"Authorization: Bearer {TOKEN}".encode() in server.requests[0]


async def test_a_server_that_did_not_say_what_it_has_is_asked_again_a_little_later(
    serve: Serve,
) -> None:
    server = Server(says(503, b"starting"), says(200, b'[{"name":"a"}]'))
    clock = Clock()
    remote = a_remote(await serve(server.answer), clock=clock)

    for _ in range(2):
        with pytest.raises(ActionError, match="answered 503"):
            await remote.names()
    clock.now += PAUSE_S
    names = await remote.names()
    await remote.close()

    assert names == ["a"]
    assert len(server.requests) == 2


async def test_a_server_that_has_nothing_is_not_asked_at_every_turn(
    serve: Serve,
) -> None:
    server = Server(says(200, b"[]"))
    remote = a_remote(await serve(server.answer))

    names = [await remote.names() for _ in range(3)]
    await remote.close()

    assert names == [[], [], []]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"null", b'["a"]', b'[{"name":1}]', b'[{"x":"a"}]', b"[" * 9999],
)
async def test_what_is_no_list_of_actions_is_nonsense(
    serve: Serve, body: bytes
) -> None:
    remote = a_remote(await serve(Server(says(200, body)).answer))

    with pytest.raises(ActionError, match="no list of actions") as raised:
        await remote.names()
    await remote.close()

    assert raised.value.fault == "nonsense"


async def test_names_that_nothing_here_could_name_are_left_out(serve: Serve) -> None:
    listed = json.dumps([{"name": "x" * 101}, {"name": ""}, {"name": "a"}]).encode()
    remote = a_remote(await serve(Server(says(200, listed)).answer))

    names = await remote.names()
    await remote.close()

    assert names == ["a"]


def test_it_serves_every_event_loop_that_it_is_used_on(call: Call) -> None:
    async def used() -> None:
        server = await asyncio.start_server(
            Server(says(200, NOTHING_DONE)).answer, "127.0.0.1", port or 0
        )
        ports.append(server.sockets[0].getsockname()[1])
        remote = remotes.setdefault("one", a_remote(f"http://127.0.0.1:{ports[0]}"))
        await remote.run(call("action_x"), unseen)
        await remote.close()
        server.close()
        await server.wait_closed()

    remotes: dict[str, Remote] = {}
    ports: list[int] = []
    port = 0
    asyncio.run(used())
    port = ports[0]

    asyncio.run(used())

    assert ports == [port, port]
