"""
Scripts that are called at the same time travel together.

While one batch is on its way, the calls that come meanwhile gather for the next one: a
busy process spends a fraction of the time on each, and one that is not busy waits for
nothing. Order is that of the calls. Knows nothing about what the scripts do, but that
each may be sent twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import exceptions
from redis.asyncio import Redis

MOST = 100

Argument = str | bytes | int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Call:
    sha: str
    script: bytes
    keys: Sequence[bytes | int]
    args: Sequence[bytes | int]
    answer: asyncio.Future[Any]


class Batch:
    """Sends calls of scripts to one server."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: deque[_Call] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def run(
        self,
        sha: str,
        script: bytes,
        keys: Sequence[str | bytes],
        args: Sequence[Argument],
    ) -> Any:
        """Return the script's answer, or raise what the client or the server did."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Here, so that what cannot be encoded fails alone.
        self._waiting.append(
            _Call(
                sha=sha,
                script=script,
                keys=list(map(_encoded, keys)),
                args=list(map(_encoded, args)),
                answer=answer,
            )
        )
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch = [
                    self._waiting.popleft()
                    for _ in range(min(MOST, len(self._waiting)))
                ]
                await self._send([call for call in batch if not call.answer.done()])
        finally:
            self._sending = None

    async def _send(self, calls: Sequence[_Call]) -> None:
        unknown = await self._sent(calls, by_hash=True)
        if unknown:
            # EVAL loads it too; a server that was started anew knows no script.
            await self._sent(unknown, by_hash=False)

    async def _sent(self, calls: Sequence[_Call], *, by_hash: bool) -> list[_Call]:
        """Send the calls; return those whose script the server does not know."""
        pipeline: Any = self._client.pipeline(transaction=False)
        for call in calls:
            name, script = ("EVALSHA", call.sha) if by_hash else ("EVAL", call.script)
            keys = len(call.keys)
            pipeline.execute_command(name, script, keys, *call.keys, *call.args)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except BaseException as error:
            # Those who wait would only wait as long for the same.
            for call in (*calls, *self._waiting):
                _fail(call, error)
            self._waiting.clear()
            if isinstance(error, Exception):
                return []  # those who wait for an answer have it
            raise
        return [
            call
            for call, answer in zip(calls, answers, strict=True)
            if not _answered(call, answer)
        ]


def _encoded(argument: Argument) -> bytes | int:
    return argument.encode() if isinstance(argument, str) else argument


def _answered(call: _Call, answer: object) -> bool:
    if isinstance(answer, exceptions.NoScriptError):
        return False
    if isinstance(answer, Exception):
        _fail(call, answer)
    elif not call.answer.done():
        call.answer.set_result(answer)
    return True


def _fail(call: _Call, error: BaseException) -> None:
    if call.answer.done():
        return
    if isinstance(error, Exception):
        call.answer.set_exception(error)
    else:
        call.answer.cancel()
