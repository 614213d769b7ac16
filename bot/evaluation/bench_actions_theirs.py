"""
What bench `actions` compares with: rasa-sdk itself, its server and its executor.

The server is a process of its own, on a free port of this machine, with the actions of
one module. Loads rasa-sdk.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from rasa_sdk.executor import ActionExecutor
from rasa_sdk.interfaces import Action

START_S = 60.0
END_S = 5.0
LOOK_S = 0.1


class NotServed(AssertionError):
    """rasa-sdk's server did not start: there is nothing to compare with."""


def bare(action: type[Action]) -> Callable[[dict[str, Any]], Awaitable[object]]:
    """Return what runs a parsed call of an action, as their server does."""
    executor = ActionExecutor()
    executor.register_action(action)
    run: Callable[[dict[str, Any]], Awaitable[object]] = executor.run
    return run


@asynccontextmanager
async def served(module: str) -> AsyncIterator[str]:
    """Run rasa-sdk's server with the actions of a module; yield its address."""
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "ignore", "-m", "rasa_sdk", "--quiet"),
        *("--actions", module, "--port", f"{port}"),
        env={**os.environ, "SANIC_HOST": "127.0.0.1"},
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,  # its workers are processes, too
    )
    try:
        await _serving(process, port, module)
        yield f"http://127.0.0.1:{port}"
    finally:
        await _ended(process)


async def _serving(process: Process, port: int, module: str) -> None:
    """Wait until it answers: one that is ended while it starts does not end."""
    async with asyncio.timeout(START_S):
        while process.returncode is None:
            with suppress(OSError):
                if await _is_well(port):
                    return
            await asyncio.sleep(LOOK_S)
    raise NotServed(
        f"rasa-sdk's server with {module!r} ended with {process.returncode}"
    )


async def _is_well(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return b" 200 " in await reader.readline()
    finally:
        writer.close()


async def _ended(process: Process) -> None:
    for end in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, end)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_S)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port
