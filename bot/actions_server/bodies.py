"""
Bodies: a request's bytes, read whole and inflated, within bounds.

Rasa deflates with zlib, in chunks and without a length; others send raw deflate or
gzip. Knows nothing of what the bytes mean. Trust that a body that was read, and what
became of it, is not over `LARGEST`, whatever a few bytes pretend to hold.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

from aiohttp import web

from bot.actions_server.requests import LARGEST
from bot.serving import TooLarge, whole_body

BODY_S = 10.0  # until a body is whole

# zlib's window sizes: what header is expected before the deflated bytes.
ZLIB, RAW, GZIP = zlib.MAX_WBITS, -zlib.MAX_WBITS, zlib.MAX_WBITS | 16
WAYS: Mapping[str, tuple[int, ...]] = {
    "identity": (),
    "deflate": (ZLIB, RAW),
    "gzip": (GZIP,),
}


class Unread(Exception):
    """Why a body was not read. What is left of it is not: the connection ends."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


async def body_of(request: web.BaseRequest, within_s: float = BODY_S) -> bytes:
    """Return the body, inflated; raises Unread."""
    ways = WAYS.get(request.headers.get("Content-Encoding", "identity").lower())
    if ways is None:
        raise Unread(415, f"Content-Encoding: send one of {', '.join(WAYS)}")
    try:
        async with asyncio.timeout(within_s):
            body = await whole_body(request, LARGEST)
    except TooLarge:
        raise _too_large() from None
    except TimeoutError:
        raise Unread(408, f"the body was not whole within {within_s:g} s") from None
    # It hung up, or sent chunks that are none; RuntimeError: it hung up earlier.
    except (OSError, RuntimeError, web.RequestPayloadError):
        raise Unread(400, "the body is not whole") from None
    # Apart: a few kilobytes may take the milliseconds of megabytes.
    return await asyncio.to_thread(inflated, body, ways) if ways else body


def inflated(body: bytes, ways: tuple[int, ...]) -> bytes:
    """Return what was deflated in one of these ways; raises Unread."""
    for way in ways:
        inflating = zlib.decompressobj(way)
        try:
            whole = inflating.decompress(body, LARGEST + 1)
        except zlib.error:
            continue
        if len(whole) > LARGEST:
            raise _too_large()
        if inflating.eof and not inflating.unused_data:
            return whole
    raise Unread(400, "the body is not deflated as its Content-Encoding says")


def _too_large() -> Unread:
    return Unread(413, f"the body is over {LARGEST} bytes")
