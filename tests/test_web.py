"""Connectors over real HTTP: what reaches them, what does not, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.app import App
from bot.channels import ChannelPlugins
from bot.config import Config, OperationsConfig
from bot.errors import ConfigError, StoreError
from bot.interfaces import Accepted, WebRequest, WebResponse
from bot.model import Event
from bot.plugin_manager import Plugins
from bot.testing import MemoryConnector, an_event
from bot.web import LARGEST, LIMITS, Web, routes

SOON_S = 0.05  # for what is given up
LIMIT_S = 5.0  # for what must come, long before this

HEAD = b"POST /hook HTTP/1.1\r\nHost: x\r\n"
LAST = HEAD + b"Connection: close\r\n"

Answer = Callable[[WebRequest], Awaitable[WebResponse]]


async def well(request: WebRequest) -> WebResponse:
    return WebResponse(body=b"well")


class Hook(MemoryConnector):
    """A connector whose service speaks by HTTP."""

    def __init__(
        self, answer: Answer = well, *, name: str = "hook", paths: Sequence[str] = ()
    ) -> None:
        super().__init__(name)
        self.paths = paths or ("/hook",)
        self.asked: list[WebRequest] = []
        self._answer = answer

    async def respond(self, request: WebRequest) -> WebResponse:
        self.asked.append(request)
        return await self._answer(request)


def a_web(hook: Hook, *, host: str = "127.0.0.1", port: int = 0, **more: Any) -> Web:
    return Web(host=host, port=port, routes=routes([hook]), **more)


@asynccontextmanager
async def serving(hook: Hook, **more: Any) -> AsyncIterator[str]:
    async with a_web(hook, **more) as web, web.answering():
        yield web.url


async def asked(
    url: str, method: str = "POST", **more: Any
) -> tuple[int, Mapping[str, str], bytes]:
    async with (
        asyncio.timeout(LIMIT_S),
        aiohttp.ClientSession() as client,
        client.request(method, url, **more) as response,
    ):
        return response.status, response.headers, await response.read()


@asynccontextmanager
async def connected(
    url: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = url.removeprefix("http://").split(":")
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()


async def sent(url: str, data: bytes) -> bytes:
    """Send bytes as they are, and return everything until the server hangs up."""
    async with connected(url) as (reader, writer):
        writer.write(data)
        return await reader.read()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# What reaches a connector


async def test_a_connector_is_given_a_request_as_it_came() -> None:
    hook = Hook()

    async with serving(hook) as url:
        await asked(
            f"{url}/hook?a=1&b=%20x&a=2",
            data=b"\xff\x00 raw",
            headers={"X-Signature": "v0=AbC"},
        )

    (request,) = hook.asked
    assert (request.method, request.path, request.body) == (
        "POST",
        "/hook",
        b"\xff\x00 raw",
    )
    assert request.query == {"a": "2", "b": " x"}
    assert request.headers["x-signature"] == "v0=AbC"


async def test_what_a_connector_answers_is_sent() -> None:
    async def answer(request: WebRequest) -> WebResponse:
        return WebResponse(status=418, body=b"{}", headers={"Content-Type": "a/b"})

    async with serving(Hook(answer)) as url:
        status, headers, body = await asked(f"{url}/hook", "GET")

    assert (status, headers["Content-Type"], body) == (418, "a/b", b"{}")


async def test_each_connector_has_its_own_paths() -> None:
    one = Hook(name="one", paths=["/one", "/one/more"])
    two = Hook(name="two", paths=["/two"])

    async with (
        Web(host="127.0.0.1", port=0, routes=routes([one, two])) as web,
        web.answering(),
    ):
        for path in ("/one/more", "/two", "/one"):
            await asked(web.url + path)

    assert [request.path for request in one.asked] == ["/one/more", "/one"]
    assert [request.path for request in two.asked] == ["/two"]


async def test_a_body_in_chunks_is_read_whole() -> None:
    hook = Hook()
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"

    async with serving(hook) as url:
        await sent(url, LAST + chunked)

    assert hook.asked[0].body == b"abcde"


async def test_requests_that_come_at_once_are_answered_in_order() -> None:
    async def echo(request: WebRequest) -> WebResponse:
        await asyncio.sleep(0)
        return WebResponse(body=b"<" + request.body + b">")

    async with serving(Hook(echo)) as url:
        first = b"".join(
            HEAD + b"Content-Length: 1\r\n\r\n%d" % number for number in range(9)
        )
        answers = await sent(url, first + LAST + b"Content-Length: 1\r\n\r\n9")

    assert answers.count(b"HTTP/1.1 200 OK") == 10
    assert [answers.index(b"<%d>" % number) for number in range(10)] == sorted(
        answers.index(b"<%d>" % number) for number in range(10)
    )


async def test_bytes_that_are_no_utf_8_are_replaced_in_headers_and_query() -> None:
    hook = Hook()

    async with serving(hook) as url:
        head = b"GET /hook?q=%ED%A0%80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        await sent(url, head + b"A: \xff\xed\xa0\x80\r\n\r\n")

    (request,) = hook.asked
    json.dumps([request.query, request.headers], ensure_ascii=False).encode()
    assert "?" in request.headers["a"]


async def test_a_client_that_asks_first_whether_to_send_a_body_is_told_so() -> None:
    async with serving(Hook()) as url, connected(url) as (reader, writer):
        writer.write(LAST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        first = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hi")
        second = await reader.read()

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")


# What does not


@pytest.mark.parametrize("path", ["/", "/hook/", "/hook/x", "//hook", "/../hook2"])
async def test_other_paths_are_not_found(path: str) -> None:
    hook = Hook()

    async with serving(hook) as url:
        answer = await sent(url, b"POST %s HTTP/1.0\r\nHost: x\r\n\r\n" % path.encode())

    assert b" 404 " in answer.splitlines()[0]
    assert not hook.asked


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
async def test_other_methods_are_refused(method: str) -> None:
    hook = Hook()

    async with serving(hook) as url:
        status, headers, _ = await asked(f"{url}/hook", method)

    assert (status, headers["Allow"]) == (405, "GET, POST")
    assert not hook.asked


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x"])
async def test_a_compressed_body_is_refused(coding: str) -> None:
    hook = Hook()

    async with serving(hook) as url:
        status, _, _ = await asked(
            f"{url}/hook", data=b"\x1f\x8b", headers={"Content-Encoding": coding}
        )

    assert status == 415
    assert not hook.asked


async def test_the_largest_body_is_read() -> None:
    hook = Hook()

    async with serving(hook) as url:
        status, _, _ = await asked(f"{url}/hook", data=b"x" * LARGEST)

    assert status == 200
    assert len(hook.asked[0].body) == LARGEST


@pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"])
async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(
    more: bytes,
) -> None:
    hook = Hook()

    async with serving(hook) as url, connected(url) as (reader, writer):
        writer.write(HEAD + more + b"Content-Length: %d\r\n\r\n" % (LARGEST + 1))
        answer = await reader.readuntil(b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer
    assert not hook.asked


async def test_chunks_that_do_not_end_are_refused() -> None:
    hook = Hook()

    async with serving(hook) as url:
        async with connected(url) as (reader, writer):
            writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(LARGEST // 0x10000 + 1):
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            answer = await reader.readuntil(b"\r\n\r\n")
        still = await asked(f"{url}/hook")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert still[0] == 200
    assert len(hook.asked) == 1


async def test_a_body_that_comes_too_slowly_is_cut_off() -> None:
    hook = Hook()

    async with serving(hook, body_s=SOON_S) as url, connected(url) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 5\r\n\r\nhal")
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert not hook.asked


async def test_a_head_that_trickles_is_cut_off() -> None:
    limits = replace(LIMITS, head_s=2 * SOON_S)

    async with (
        serving(Hook(), limits=limits) as url,
        connected(url) as (reader, writer),
    ):
        ended = asyncio.create_task(reader.read())
        for byte in HEAD * 100:
            if ended.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(SOON_S / 10)
        answer = await ended

    assert answer == b""


async def test_a_second_head_that_trickles_is_cut_off() -> None:
    limits = replace(LIMITS, head_s=SOON_S)

    async with (
        serving(Hook(), limits=limits) as url,
        connected(url) as (reader, writer),
    ):
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        first = await reader.readuntil(b"well")
        writer.write(b"POST")
        rest = await reader.read()

    assert first.startswith(b"HTTP/1.1 200 OK")
    assert rest == b""


async def test_a_connection_is_kept_for_longer_than_a_head_may_take() -> None:
    limits = replace(LIMITS, head_s=SOON_S)

    async with (
        serving(Hook(), limits=limits) as url,
        connected(url) as (reader, writer),
    ):
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await reader.readuntil(b"well")
        await asyncio.sleep(2 * SOON_S)
        writer.write(LAST + b"Content-Length: 0\r\n\r\n")
        second = await reader.read()

    assert second.startswith(b"HTTP/1.1 200 OK")


async def test_where_too_many_are_connected_one_that_is_owed_nothing_makes_room() -> (
    None
):
    begun, go = asyncio.Event(), asyncio.Event()

    async def waits(request: WebRequest) -> WebResponse:
        begun.set()
        await go.wait()
        return WebResponse(body=b"well")

    limits = replace(LIMITS, connections=2)
    async with serving(Hook(waits), limits=limits) as url, connected(url) as busy:
        busy[1].write(LAST + b"Content-Length: 0\r\n\r\n")
        await begun.wait()
        async with connected(url) as idle, connected(url) as (reader, writer):
            left = await idle[0].read()
            go.set()
            writer.write(LAST + b"Content-Length: 0\r\n\r\n")
            newest, owed = await reader.read(), await busy[0].read()

    assert left == b""
    assert newest.endswith(b"well")
    assert owed.endswith(b"well")


async def test_a_client_that_hangs_up_in_its_body_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = Hook()

    async with serving(hook) as url:
        async with connected(url) as (_, writer):
            writer.write(HEAD + b"Content-Length: 5\r\n\r\nhal")
            await writer.drain()
        await asked(f"{url}/hook", data=b"whole")

    assert [request.body for request in hook.asked] == [b"whole"]
    assert not caplog.records


@pytest.mark.parametrize(
    "data",
    [
        b"hunter2\r\n\r\n",
        b"POST /hook HTTP/1.1\r\n\r\n",
        LAST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        LAST + b"Content-Length: -1\r\n\r\n",
        LAST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        LAST + b"Transfer-Encoding: chunked\r\n\r\nhunter2\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        LAST + b"A: " + b"x" * 9000 + b"\r\n\r\n",
        LAST + b"A: x\r\n" * 200 + b"\r\n",
    ],
)
async def test_what_is_no_request_is_refused_without_an_echo(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook()
    caplog.set_level(logging.INFO)

    async with serving(hook) as url:
        answer = await sent(url, data)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 ")
    assert b"Server: chorus" in head
    assert body == b"failed\n"
    assert not hook.asked
    assert not caplog.records


# When a connector cannot answer


async def test_a_store_that_is_away_has_the_service_come_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def away(request: WebRequest) -> WebResponse:
        raise StoreError("redis.url: gone; start it")

    async with serving(Hook(away)) as url:
        status, headers, body = await asked(f"{url}/hook")

    assert (status, headers["Retry-After"], body) == (503, "5", b"come again\n")
    assert not caplog.records


async def test_a_connector_that_hangs_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given_up = asyncio.Event()

    async def hangs(request: WebRequest) -> WebResponse:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        raise AssertionError

    async with serving(Hook(hangs), answer_s=SOON_S) as url:
        status, headers, _ = await asked(f"{url}/hook")

    assert (status, headers["Retry-After"]) == (503, "5")
    assert given_up.is_set()
    assert lines(caplog) == ["hook did not answer a request within 0.05 s"]


async def test_a_broken_connector_is_one_line_without_what_was_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request: WebRequest) -> WebResponse:
        raise KeyError(request.body.decode())

    async with serving(Hook(broken)) as url:
        status, headers, body = await asked(f"{url}/hook", data=b"hunter2")

    assert (status, headers["Retry-After"], body) == (503, "5", b"come again\n")
    (line,) = lines(caplog)
    assert line.startswith("a request was not answered: KeyError at ")
    assert __file__ in line
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        WebResponse(status=500, body=b"hunter2"),
        WebResponse(status=502),
        WebResponse(status=100),
        WebResponse(status=1000),
        WebResponse(headers={"Location": "a\r\nSet-Cookie: hunter2"}),
        WebResponse(headers={"A\n": "hunter2"}),
        WebResponse(headers={"A": "\ud800"}),
        None,
    ],
)
async def test_an_answer_that_is_none_has_the_service_come_again(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def mistaken(request: WebRequest) -> WebResponse:
        mistake: WebResponse = answer
        return mistake

    async with serving(Hook(mistaken)) as url:
        status, _, body = await asked(f"{url}/hook")

    assert (status, body) == (503, b"come again\n")
    assert len(caplog.records) == 1
    assert "hunter2" not in caplog.text


async def test_requests_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async with serving(Hook()) as url:
        await asked(f"{url}/hook", data=b"hunter2")
        await asked(f"{url}/nothing")

    assert not caplog.records


@pytest.mark.parametrize("path", ["/hook", "/nothing"])
async def test_no_answer_names_versions(path: str) -> None:
    async with serving(Hook()) as url:
        _, headers, _ = await asked(url + path)

    assert headers["Server"] == "chorus"


# Beginning and end


async def test_before_and_after_it_answers_a_service_is_to_come_again() -> None:
    hook = Hook()

    async with a_web(hook) as web:
        before = await asked(f"{web.url}/hook")
        async with web.answering():
            meanwhile = await asked(f"{web.url}/hook")
        after = await asked(f"{web.url}/hook")

    assert (before[0], meanwhile[0], after[0]) == (503, 200, 503)
    assert len(hook.asked) == 1


async def test_what_is_being_answered_is_finished() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def waits(request: WebRequest) -> WebResponse:
        begun.set()
        await go.wait()
        return WebResponse(body=b"well")

    async with a_web(Hook(waits)) as web:
        async with web.answering():
            owed = asyncio.create_task(asked(f"{web.url}/hook"))
            await begun.wait()
            asyncio.get_running_loop().call_later(SOON_S, go.set)
        over = go.is_set()
        status, _, body = await owed

    assert over
    assert (status, body) == (200, b"well")


async def test_a_connector_that_does_not_let_go_does_not_hold_up_the_end() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def stubborn(request: WebRequest) -> WebResponse:
        begun.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return WebResponse()

    async with asyncio.timeout(LIMIT_S), a_web(Hook(stubborn), answer_s=SOON_S) as web:
        async with web.answering():
            owed = asyncio.create_task(asked(f"{web.url}/hook"))
            await begun.wait()
        assert not owed.done()
        go.set()
        await owed


async def test_nobody_listens_after_the_end() -> None:
    async with serving(Hook()) as url:
        pass

    with pytest.raises(aiohttp.ClientConnectorError):
        await asked(f"{url}/hook")


async def test_a_port_in_use_is_one_sentence() -> None:
    async with serving(Hook()) as url:
        port = int(url.rpartition(":")[2])

        with pytest.raises(ConfigError) as refused:
            await a_web(Hook(), port=port).__aenter__()

    assert str(refused.value) == (
        f"web.port: 127.0.0.1:{port} is in use by another process; name another port, "
        "or 0 for any free one"
    )


async def test_a_host_that_is_not_ours_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^web\.host: .+; write 127\.0\.0\.1"):
        await a_web(Hook(), host="192.0.2.1").__aenter__()


def test_two_connectors_at_one_path_are_one_sentence() -> None:
    with pytest.raises(ConfigError) as refused:
        routes([Hook(name="one"), MemoryConnector(), Hook(name="two")])

    assert str(refused.value) == (
        "connectors: 'one' and 'two' both answer at '/hook'; give one of them another "
        "path in its settings"
    )


# In a running bot


class Troubled(Hook):
    """Hands in what it is asked, and hears nothing from its service."""

    def __init__(self) -> None:
        super().__init__(self._accepted)
        self._accept: Callable[[Event], Awaitable[Accepted]] | None = None

    async def run(self, accept: Callable[[Event], Awaitable[Accepted]]) -> None:
        self._accept = accept
        await super().run(accept)

    def trouble(self) -> str | None:
        return "hook: nothing was heard for an hour; look at the service"

    async def _accepted(self, request: WebRequest) -> WebResponse:
        assert self._accept is not None
        event = replace(an_event(request.body.decode()), id=request.body.decode())
        event = replace(event, address=replace(event.address, platform=self.name))
        return WebResponse(body=(await self._accept(event)).encode())


def an_app(tmp_path: Path) -> App:
    config = Config.model_validate(
        {
            "data": tmp_path,
            "knowledge": {"model": "m"},
            "generation": {"model": "m"},
            "web": {"port": 0},
        }
    )
    return App(config, ChannelPlugins(everywhere=Plugins()), lambda *_: None)


@pytest.mark.services
async def test_a_running_bot_accepts_what_a_service_sends(tmp_path: Path) -> None:
    app, hook = an_app(tmp_path), Troubled()
    stopped = asyncio.Event()

    async with app.running({"hook": hook}, roles=["connectors"]) as manager:
        talking = asyncio.create_task(manager.run(stopped))
        while hook._accept is None:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
        first = await asked(f"{app.web_url}/hook", data=b"hello")
        again = await asked(f"{app.web_url}/hook", data=b"hello")
        stopped.set()
        await talking

    assert (first[2], again[2]) == (b"accepted", b"duplicate")
    with pytest.raises(aiohttp.ClientConnectorError):
        await asked(f"{app.web_url}/hook")


@pytest.mark.services
async def test_readiness_tells_the_trouble_of_connectors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = an_app(tmp_path)
    caplog.set_level(logging.INFO, "bot.app")

    async with app.running(
        {"hook": Troubled()}, roles=["connectors"], operations=OperationsConfig(port=0)
    ):
        url = lines(caplog)[0].split()[-1]
        status, _, body = await asked(f"{url}/ready", "GET")

    assert status == 503
    assert json.loads(body)["checks"] == {
        "redis": "well",
        "connector hook": "hook: nothing was heard for an hour; look at the service",
    }
    assert lines(caplog)[1] == f"services reach {app.web_url}/hook"


@pytest.mark.services
async def test_a_bot_without_a_service_that_speaks_by_http_listens_nowhere(
    tmp_path: Path,
) -> None:
    app = an_app(tmp_path)

    async with app.running({"memory": MemoryConnector()}, roles=["connectors"]):
        assert app.web_url == ""
