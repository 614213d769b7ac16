"""
Broken HTTP against the web server: mutations, floods and clients that never finish.

Whatever comes, the only 5xx is 503, nothing but a whole request reaches a connector,
memory stays where it was, and the next customer is answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bot import serving
from bot.interfaces import WebRequest, WebResponse
from bot.testing import MemoryConnector
from bot.web import LARGEST, LIMITS, Web, routes

pytestmark = pytest.mark.slow  # test-fast does without

MUTATIONS = 4000
AT_ONCE = 64
SOON_S = 0.05  # for what is given up
LIMIT_S = 10.0  # for what must come, long before this

POST = b"POST /hook HTTP/1.1\r\nHost: x\r\n"
CHUNKS = b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: aGk=\r\n"

SEEDS = (
    POST + b'Content-Length: 7\r\n\r\n{"a":1}',
    POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    b"GET /hook?code=a&state=%2F HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
    b"GET http://x:80/hook HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n\x81\x00",
    b"POST /hook HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
    b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\nmore",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD /hook HTTP/1.1\r\nHost: x\r\n\r\n",
)
SPICE = (
    *(b"\r\n", b"\r", b"\n", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b" ", b"\t", b":"),
    *(b"-1", b"0x10", b"99999999999999999999", b"1e9", b"%", b"%00", b"%zz", b"#?&=;"),
    *(
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Host: y\r\n",
    ),
    *(b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b"http://[::1", b"http:///", b"//", b"/..", b"user:pw@", b"[", b"x://y/hook"),
    *(b"A: " + b"a" * 9000 + b"\r\n", b"A: b\r\n" * 200, b"x" * 9000),
    *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"FFFFFFFFFFFFFFFF\r\n"),
)


class Hook(MemoryConnector):
    paths = ("/hook",)

    def __init__(self) -> None:
        super().__init__("hook")
        self.largest = 0
        self.asked = 0

    async def respond(self, request: WebRequest) -> WebResponse:
        # What a connector does with them: none of it may fail on what it is given.
        repr(request).encode()
        "".join((*request.headers, *request.headers.values())).encode()
        "".join((*request.query, *request.query.values(), request.path)).encode()
        self.largest = max(self.largest, len(request.body))
        self.asked += 1
        return WebResponse(body=b"well")


@asynccontextmanager
async def listening(
    hook: Hook, body_s: float = SOON_S
) -> AsyncIterator[tuple[str, int]]:
    limits = replace(LIMITS, head_s=SOON_S, idle_s=SOON_S)
    web = Web(
        host="127.0.0.1", port=0, routes=routes([hook]), limits=limits, body_s=body_s
    )
    async with web, web.answering():
        yield "127.0.0.1", int(web.url.rpartition(":")[2])


async def sent(place: tuple[str, int], parts: list[bytes]) -> bytes:
    """Send bytes as they are, and return everything until the server hangs up."""
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(*place)
        try:
            # The server may hang up at any time.
            with suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
            with suppress(ConnectionError):
                return await reader.read()
            return b""
        finally:
            writer.close()


def mutations(seed: int) -> Iterator[list[bytes]]:
    """Yield requests with bytes changed, cut, doubled, moved and put in, in parts."""
    dice = random.Random(seed)  # noqa: S311 (to be the same each time)
    for _ in range(MUTATIONS):
        data = b"".join(dice.choices(SEEDS, k=dice.choice((1, 1, 1, 2, 5))))
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            data = mutated(data, dice)
        cut = dice.randint(0, len(data))
        yield [data[:cut], data[cut:]] if dice.random() < 0.5 else [data]


def mutated(data: bytes, dice: random.Random) -> bytes:
    begin = dice.randint(0, len(data))
    end = begin + dice.choice((1, 5, 50))
    match dice.randrange(6):
        case 0:
            return data[:begin] + dice.choice(SPICE) + data[begin:]
        case 1:
            return data[:begin] + dice.choice(SPICE) + data[end:]
        case 2:
            return data[:begin] + data[end:]
        case 3:
            return data[:end] + data[begin:]
        case 4:
            return data[:begin] + bytes([dice.randrange(256)]) + data[begin + 1 :]
        case _:
            return data[begin:end] + data[:begin] + data[end:]


def statuses(answers: bytes) -> list[int]:
    return [
        int(line.split()[1])
        for line in answers.split(b"\r\n")
        if line.removeprefix(b"well").startswith(b"HTTP/")
    ]


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("seed", range(2))
async def test_broken_http_is_refused_and_nothing_else_happens(
    seed: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LINGER_S", SOON_S)
    hook = Hook()
    caplog.set_level(logging.WARNING)
    met: set[int] = set()
    broken = mutations(seed)

    async def client(place: tuple[str, int]) -> None:
        for parts in broken:
            met.update(statuses(await sent(place, parts)))

    async with listening(hook) as place:
        async with asyncio.TaskGroup() as clients:
            for _ in range(AT_ONCE):
                clients.create_task(client(place))
        last = await sent(place, [SEEDS[0]])

    assert {status for status in met if status >= 500} <= {503}
    assert {200, 400, 404, 405, 408, 415} <= met  # they got as far as there is
    assert hook.asked > MUTATIONS / 20
    assert hook.largest <= LARGEST
    assert last.endswith(b"well")
    assert not caplog.records


@pytest.mark.parametrize("chunked", [True, False])
async def test_ten_megabytes_leave_memory_where_it_was(*, chunked: bool) -> None:
    hook = Hook()
    size = 10 * 2**20
    piece = b"x" * 2**16
    if chunked:
        head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        parts = [b"%x\r\n" % len(piece) + piece + b"\r\n"] * (size // len(piece))
    else:
        head = POST + b"Content-Length: %d\r\n\r\n" % size
        parts = [piece] * (size // len(piece))
    peak = before = 0.0

    async with listening(hook, LIMIT_S) as place:
        await sent(place, [head, *parts])
        before = peak = resident_mib()
        for _ in range(8):
            answers = [sent(place, [head, *parts]) for _ in range(8)]
            for answer in await asyncio.gather(*answers):
                assert statuses(answer) in ([413], [])  # [] when it was reset
            peak = max(peak, resident_mib())
        last = await sent(place, [SEEDS[0]])

    assert peak - before < 8 * 4  # what eight of them may hold, far from 640
    assert hook.asked == 1
    assert last.endswith(b"well")
