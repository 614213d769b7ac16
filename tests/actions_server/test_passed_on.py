"""Actions on a server of rasa-sdk's, a process of its own, asked for through us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bot.actions.remote import Remote
from tests.actions_server.rasa import a_call, a_service, served

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
STARTS_S = 60


@pytest.fixture
async def rasa_sdk() -> AsyncIterator[Remote]:
    """Start `python -m rasa_sdk` with the actions beside this file."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "rasa_sdk", "--actions", "sdk_actions", "--port", str(port)),
        cwd=HERE,
        env={**os.environ, "SANIC_HOST": "127.0.0.1", "PYTHONPATH": str(HERE)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    remote = Remote(
        url=url, token=None, actions=(), streams=(), timeout_s=10, reword=False
    )
    try:
        async with asyncio.timeout(STARTS_S):
            await is_up(f"{url}/health")
        yield remote
    finally:
        await remote.close()
        os.killpg(process.pid, signal.SIGKILL)  # its worker outlives a SIGTERM
        await process.wait()


async def is_up(url: str) -> None:
    async with aiohttp.ClientSession() as client:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get(url):
                    return
            await asyncio.sleep(0.05)  # a process that starts can only be asked


async def test_its_actions_run_and_none_sees_the_domain_of_another_assistant(
    rasa_sdk: Remote,
) -> None:
    theirs = a_call("action_domain", domain={"slots": {"a": {}}}, domain_digest="d1")
    ours = a_call("action_domain", domain_digest="d1")

    async with served(a_service(actions=rasa_sdk)) as rasa:
        first = await rasa.post("/webhook", theirs)
        second = await rasa.post("/webhook", ours)
        unknown, _ = await rasa.post("/webhook", a_call("action_nobody_has"))

    assert first[0] == second[0] == 200
    assert first[1]["responses"][0]["custom"] == {"slots": {"a": {}}}
    assert second[1]["responses"][0]["custom"]["slots"] == {}
    assert unknown == 404
