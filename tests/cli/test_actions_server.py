"""actions-server, as a process that Rasa speaks to and as one that ends at once."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.actions_server.rasa import a_call, a_tracker
from tests.cli.bots import ScriptedBot
from tests.test_experiment import QUESTION, ingest, written

SECRET = "t-0987654321"  # noqa: S105 (opens nothing)

# The command line with a scripted model; the file is its first argument.
SCRIPTED = """
import sys
from pathlib import Path
from bot.cli import chorus
from tests.cli.bots import ScriptedBot

bot = ScriptedBot(file=Path(sys.argv[1]))
chorus(["--config", sys.argv[1], "actions-server", *sys.argv[2:]], obj=bot.opening)
"""

ACTIONS = {
    "sources": [{"use": "tests.actions_server.sdk_actions:Tells"}],
    "responses": {"utter_greet": [{"text": "Hello {name}"}]},
}


def a_bot(folder: Path, **server: Any) -> ScriptedBot:
    bot = ScriptedBot(
        file=written(folder, "bot.yaml", actions={**ACTIONS, "server": server})
    )
    ingest(bot.app(), folder)
    return bot


@contextmanager
def serving(bot: ScriptedBot, *arguments: str) -> Iterator[tuple[Any, list[str]]]:
    """Run the command; yield the process and what it has said until it was ready."""
    command = [sys.executable, "-c", SCRIPTED, str(bot.file), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        while not said or "stop with Ctrl-C" not in said[-1]:
            said.append(process.stderr.readline())
            assert said[-1], f"it ended before it began: {said}"
        try:
            yield process, said
        finally:
            process.kill()


def post(url: str, body: object) -> Any:
    request = urllib.request.Request(url, data=json.dumps(body).encode())  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310 (our own server)
        return json.load(answer)


@pytest.mark.processes
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_rasa_until_it_is_told_to_end(
    tmp_path: Path, sign: signal.Signals
) -> None:
    bot = a_bot(tmp_path, token=SECRET)
    call = a_call(tracker=a_tracker(QUESTION, slots={"name": "Ann"}))

    with serving(bot, "--port", "0", "--grpc-port", "0") as (process, said):
        told = "".join(said)
        [webhook] = re.findall(r"http://\S+/webhook", told)
        reply = post(f"{webhook}?token={SECRET}", call)
        tells = post(
            f"{webhook}?token={SECRET}", {**call, "next_action": "action_tells"}
        )
        wording = post(
            f"{webhook.removesuffix('/webhook')}/nlg?token={SECRET}",
            {"response": "utter_greet", "tracker": call["tracker"]},
        )
        process.send_signal(sign)
        code = process.wait(20)
        told += process.stderr.read()

    assert code == 0
    assert reply["responses"][0]["metadata"]["outcome"] == "answered"
    assert "5 working days" in reply["responses"][0]["text"]
    assert [one["text"] for one in tells["responses"]] == [
        "Your order is on its way. 👍",
        "Anything else?",
    ]
    assert wording["text"] == "Hello Ann"
    assert "action_generate_reply, action_tells" in told
    assert re.search(r"gRPC +127\.0\.0\.1:\d+", told)
    assert SECRET not in told
    assert QUESTION not in told


def test_an_address_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    bot = a_bot(tmp_path)

    result = bot.invoke("actions-server", "--host", "0.0.0.0")  # noqa: S104

    assert result.exit_code == 2
    assert "actions.server.token: '0.0.0.0' can be reached" in result.stderr
    assert not bot.model.requests


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_port_that_is_taken_is_for_the_operator(tmp_path: Path, option: str) -> None:
    bot = a_bot(tmp_path, port=0)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = bot.invoke("actions-server", option, port)

    assert result.exit_code == 2
    assert f"127.0.0.1:{port}" in result.stderr


def test_without_an_index_the_operator_is_told_to_make_one(tmp_path: Path) -> None:
    bot = ScriptedBot(file=written(tmp_path, "bot.yaml"))

    result = bot.invoke("actions-server", "--port", "0")

    assert result.exit_code == 2
    assert "chorus ingest" in result.stderr
