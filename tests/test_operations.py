"""The endpoints over real HTTP: what they say, and what cannot make them hang."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot.errors import ConfigError, StoreError
from bot.metrics import Backlog
from bot.operations import (
    LONGEST_FIELD,
    LONGEST_LINE,
    MOST_HEADERS,
    Backlogs,
    Check,
    Operations,
)

SOON_S = 0.05  # for what is given up
LIMIT_S = 5.0  # for what must come, long before this

BACKLOG = Backlog(
    platform="slack",
    lanes=2,
    waiting=5,
    oldest_waiting_s=61.5,
    addresses=1,
    undelivered=3,
    oldest_undelivered_s=7,
)


async def well() -> str | None:
    return None


async def unwell() -> str | None:
    return "redis://10.0.0.1:6379 does not answer; start it"


async def raises_store_error() -> str | None:
    raise StoreError("redis.url: no route to the store; look at the network")


async def raises_anything() -> str | None:
    raise RuntimeError("hunter2")


async def hangs() -> str | None:
    await asyncio.Event().wait()
    raise AssertionError


async def some_backlogs() -> tuple[Sequence[Backlog], int]:
    return [BACKLOG], 4


async def no_redis() -> tuple[Sequence[Backlog], int]:
    raise StoreError("redis.url: gone; start it")


async def hanging_redis() -> tuple[Sequence[Backlog], int]:
    await asyncio.Event().wait()
    raise AssertionError


async def broken_backlogs() -> tuple[Sequence[Backlog], int]:
    raise RuntimeError("hunter2")


def operations(
    checks: Mapping[str, Check] | None = None,
    backlogs: Backlogs = some_backlogs,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    timeout_s: float = LIMIT_S,
) -> Operations:
    return Operations(
        host=host,
        port=port,
        checks=checks or {},
        backlogs=backlogs,
        timeout_s=timeout_s,
    )


class Answer:
    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = body.decode()
        self.body = body


async def asked(
    served: Operations, path: str, method: str = "GET", **more: Any
) -> Answer:
    async with (
        asyncio.timeout(LIMIT_S),
        aiohttp.ClientSession() as client,
        client.request(method, served.url + path, **more) as response,
    ):
        return Answer(response, await response.read())


async def sent(served: Operations, data: bytes) -> bytes:
    """Send bytes as they are, and return everything until the server hangs up."""
    host, port = served.url.removeprefix("http://").split(":")
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(data)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


async def test_a_process_whose_loop_turns_is_alive() -> None:
    async with operations({"redis": unwell}) as served:
        answer = await asked(served, "/health")

    assert answer.status == 200
    assert json.loads(answer.text) == {"status": "alive"}


async def test_a_bot_is_ready_when_every_check_is_well() -> None:
    async with operations({"redis": well, "model": well}) as served:
        answer = await asked(served, "/ready")

    assert answer.status == 200
    assert json.loads(answer.text) == {
        "ready": True,
        "checks": {"redis": "well", "model": "well"},
    }


async def test_a_bot_is_not_ready_when_one_check_is_not_well() -> None:
    async with operations({"redis": unwell, "model": well}) as served:
        answer = await asked(served, "/ready")

    assert answer.status == 503
    assert json.loads(answer.text) == {
        "ready": False,
        "checks": {
            "redis": "redis://10.0.0.1:6379 does not answer; start it",
            "model": "well",
        },
    }


async def test_checks_are_asked_anew_every_time() -> None:
    found: list[str | None] = ["loading", None]

    async def loading() -> str | None:
        return found.pop(0)

    async with operations({"model": loading}) as served:
        first = await asked(served, "/ready")
        second = await asked(served, "/ready")

    assert (first.status, second.status) == (503, 200)


async def test_checks_run_at_once() -> None:
    both = asyncio.Barrier(2)

    async def waits_for_the_other() -> str | None:
        await both.wait()
        return None

    checks = {"one": waits_for_the_other, "other": waits_for_the_other}
    async with operations(checks) as served:
        answer = await asked(served, "/ready")

    assert answer.status == 200


async def test_a_check_that_hangs_is_given_up_and_the_others_are_told() -> None:
    checks = {"redis": hangs, "model": well}
    async with operations(checks, timeout_s=SOON_S) as served:
        answer = await asked(served, "/ready")

    assert answer.status == 503
    assert json.loads(answer.text)["checks"] == {
        "redis": "no answer within 0.05 s",
        "model": "well",
    }


async def test_a_check_that_raises_counts_as_its_sentence() -> None:
    async with operations({"redis": raises_store_error, "model": well}) as served:
        answer = await asked(served, "/ready")

    assert answer.status == 503
    assert json.loads(answer.text)["checks"] == {
        "redis": "redis.url: no route to the store; look at the network",
        "model": "well",
    }


async def test_a_broken_check_shows_its_class_and_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with operations({"redis": raises_anything}) as served:
        answer = await asked(served, "/ready")

    assert answer.status == 503
    assert "hunter2" not in answer.text
    assert "RuntimeError" in json.loads(answer.text)["checks"]["redis"]
    assert [line.getMessage() for line in caplog.records] == [
        "a check of /ready failed"
    ]


async def test_metrics_are_what_prometheus_reads() -> None:
    async with operations() as served:
        answer = await asked(served, "/metrics")

    families = {
        family.name: family for family in text_string_to_metric_families(answer.text)
    }
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    (waiting,) = families["chorus_waiting_messages"].samples
    assert (waiting.labels, waiting.value) == ({"platform": "slack"}, 5)
    assert families["chorus_redis_up"].samples[0].value == 1


@pytest.mark.parametrize("backlogs", [no_redis, hanging_redis])
async def test_metrics_of_the_process_are_shown_while_redis_is_away(
    backlogs: Backlogs,
) -> None:
    async with operations(backlogs=backlogs, timeout_s=SOON_S) as served:
        answer = await asked(served, "/metrics")

    families = {
        family.name: family for family in text_string_to_metric_families(answer.text)
    }
    assert answer.status == 200
    assert families["chorus_redis_up"].samples[0].value == 0
    assert "chorus_waiting_messages" not in families
    assert "chorus_store_failures" in families


async def test_a_mistake_of_ours_is_logged_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with operations(backlogs=broken_backlogs) as served:
        answer = await asked(served, "/metrics")

    assert (answer.status, answer.text) == (500, "failed\n")
    assert [line.getMessage() for line in caplog.records] == [
        "an operations endpoint failed"
    ]


@pytest.mark.parametrize("path", ["/", "/health/", "/metrics/x", "/%2e%2e/etc"])
async def test_other_paths_are_not_found(path: str) -> None:
    async with operations() as served:
        answer = await asked(served, path)

    assert (answer.status, answer.text) == (404, "not found\n")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_are_refused(method: str, path: str) -> None:
    async with operations() as served:
        answer = await asked(served, path, method)

    assert (answer.status, answer.text) == (405, "only GET\n")
    assert answer.headers["Allow"] == "GET"


async def test_a_request_for_the_head_alone_is_refused_without_a_body() -> None:
    async with operations() as served:
        answer = await asked(served, "/health", "HEAD")

    assert (answer.status, answer.text) == (405, "")


async def test_a_query_is_ignored() -> None:
    async with operations() as served:
        answer = await asked(served, "/health?verbose=1")

    assert answer.status == 200


async def test_the_body_of_a_request_is_ignored() -> None:
    async with operations() as served:
        answer = await asked(served, "/health", data=b"x" * 1_000_000)

    assert answer.status == 200


async def test_requests_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async with operations() as served:
        await asked(served, "/health")
        await asked(served, "/nothing")

    assert not caplog.records


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/nothing"])
async def test_no_answer_names_versions(path: str) -> None:
    async with operations() as served:
        answer = await asked(served, path)

    assert answer.headers["Server"] == "chorus"


async def test_what_is_no_request_is_refused_without_an_echo(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async with operations() as served:
        answer = await sent(served, b"hunter2 \x00\x01\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 ")
    assert b"Server: chorus" in head
    assert body == b"failed\n"
    assert not caplog.records


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * LONGEST_LINE,
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"x" * (LONGEST_FIELD + 1),
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: x\r\n" * (MOST_HEADERS + 1),
    ],
    ids=["a line without end", "a header without end", "headers without end"],
)
async def test_a_request_head_that_does_not_end_is_refused(data: bytes) -> None:
    async with operations() as served:
        answer = await sent(served, data)

    assert answer.startswith(b"HTTP/1.0 400 ")


@pytest.mark.parametrize("data", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
async def test_a_client_that_does_not_finish_its_request_is_cut_off(
    data: bytes,
) -> None:
    async with operations(timeout_s=SOON_S) as served:
        answer = await sent(served, data)

    assert answer == b""


async def test_a_client_that_keeps_its_connection_for_nothing_is_cut_off() -> None:
    async with operations(timeout_s=SOON_S) as served:
        answer = await sent(served, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answer.endswith(b'{"status": "alive"}')


async def test_the_url_has_the_port_that_was_free() -> None:
    async with operations(port=0) as served:
        port = int(served.url.removeprefix("http://127.0.0.1:"))

    assert port > 0


async def test_nobody_listens_after_the_end() -> None:
    async with operations() as served:
        pass

    with pytest.raises(aiohttp.ClientConnectorError):
        await asked(served, "/health")


async def test_a_hanging_check_does_not_hold_up_the_end() -> None:
    asked_for = asyncio.Event()

    async def hangs_once_asked() -> str | None:
        asked_for.set()
        return await hangs()

    async with asyncio.timeout(LIMIT_S):
        async with operations({"redis": hangs_once_asked}, timeout_s=3600) as served:
            asking = asyncio.create_task(asked(served, "/ready"))
            await asked_for.wait()
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_a_port_in_use_is_one_sentence() -> None:
    async with operations() as served:
        port = int(served.url.rpartition(":")[2])

        with pytest.raises(ConfigError) as refused:
            await operations(port=port).__aenter__()

        still = await asked(served, "/health")

    assert str(refused.value) == (
        f"operations.port: 127.0.0.1:{port} is in use by another process; name "
        "another port, 0 for any free one, or null for none"
    )
    assert still.status == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "not-a-host.invalid", "x" * 70, "a\0b"])
async def test_a_host_that_is_not_ours_is_one_sentence(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^operations\.host: .+; write 127\.0\.0\.1"):
        await operations(host=host).__aenter__()


async def test_a_port_that_is_not_ours_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bind(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)

    with pytest.raises(ConfigError) as refused:
        await operations(port=80).__aenter__()

    assert str(refused.value) == (
        "operations.port: 127.0.0.1:80 is not ours to listen on; name another port, "
        "0 for any free one, or null for none"
    )
