"""conversations, dead-letters and run, on a real server and as processes."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner, Result

from bot.app import App
from bot.channels import ChannelPlugins
from bot.cli import chorus
from bot.config import Config
from bot.conversation.manager import ConversationManager
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.model import Address, Event, Record, Reply, Turn
from bot.plugin_manager import Plugins
from bot.testing.fakes import FixedClock, MemoryConnector
from bot.testing.makers import an_address, an_event

pytestmark = pytest.mark.services

SETTINGS = {"knowledge": {"model": "m"}, "generation": {"model": "m"}}


class Failing:
    """An answerer that fails on poison."""

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        poison = turn.question == "poison"
        return Record(
            turn=turn,
            outcome="failed" if poison else "answered",
            reply=Reply(text="Sorry" if poison else "Five days."),
            why="the model\nbroke" if poison else "",
            config="",
        )


class Nobody:
    """An observer who does not care."""

    def hear_of_replies(self, address: Address) -> bool:
        return False

    async def turn_started(self, turn: Turn) -> None: ...
    async def turn_failed(self, turn: Turn, error: Exception) -> None: ...
    async def reply_sent(self, turn: Turn, reply: Reply) -> None: ...
    async def feedback_received(self, event: Event, record: Record | None) -> None: ...
    async def conversation_handed_over(self, turn: Turn, reason: str) -> None: ...
    async def conversation_resumed(self, address: Address) -> None: ...


@pytest.fixture
def app(tmp_path: Path) -> App:
    config = Config.model_validate({"data": tmp_path, **SETTINGS})
    return App(config, ChannelPlugins(everywhere=Plugins()), lambda *_: None)


@asynccontextmanager
async def working(app: App, store: Store) -> AsyncIterator[ConversationManager]:
    async with ConversationManager(
        store=store,
        answerer=Failing(),
        connectors={"memory": MemoryConnector()},
        observers=Nobody(),
        config=app.config,
        explain=str,
        clock=FixedClock(),
        seeds=lambda: 1,
    ) as manager:
        yield manager


def after(app: App, *texts: str) -> None:
    """Have each text answered, or fail, and one more wait on another platform."""

    async def answered() -> None:
        async with app.store() as store:
            async with working(app, store) as manager:
                for text in texts:
                    await manager.accept(an_event(text))
                await manager.idle()
            await store.accept(an_event(address=an_address(platform="slack")))

    asyncio.run(answered())


def invoke(app: App, *arguments: str) -> Result:
    def opening(*_: object) -> App:
        return app

    return CliRunner().invoke(chorus, list(arguments), obj=opening)


def test_conversations_are_listed_with_work_to_do_first(app: App) -> None:
    after(app, "hello")

    table = invoke(app, "conversations")
    lines = invoke(app, "conversations", "--json").stdout.splitlines()

    first, second = map(json.loads, lines)
    assert table.exit_code == 0
    assert [line.split()[1] for line in table.stdout.splitlines()] == [
        "state",
        "waiting",
        "idle",
    ]
    assert (first["key"], first["state"], first["waiting"]) == (
        "slack:a1:c1",
        "waiting",
        1,
    )
    assert (second["digest"], second["events"]) == (an_address().digest, 2)


def test_a_dead_letter_is_listed_and_can_be_tried_again(app: App) -> None:
    after(app, "poison")
    id_ = turn_id(an_event("poison"))

    listed = invoke(app, "dead-letters")
    (letter,) = invoke(app, "dead-letters", "--json").stdout.splitlines()
    retried = invoke(app, "dead-letters", "--retry", id_)
    waiting = invoke(app, "conversations").stdout
    again = invoke(app, "dead-letters", "--retry", id_)

    assert listed.stdout.splitlines()[1].split()[0] == id_
    assert "the model broke" in listed.stdout
    assert json.loads(letter)["attempts"] == 3
    assert "waits to be answered again" in retried.stderr
    assert an_address().digest in waiting
    assert again.exit_code == 2
    assert f"no dead letter {id_!r}" in again.stderr


def test_without_conversations_and_dead_letters_the_commands_say_so(app: App) -> None:
    conversations = invoke(app, "conversations")
    letters = invoke(app, "dead-letters")

    assert (conversations.stdout, letters.stdout) == ("", "")
    assert "no conversations" in conversations.stderr
    assert "no dead letters" in letters.stderr


_RUN = """
import sys
from pathlib import Path
from bot import cli
from bot.app import App

class NoModel:
    async def answer(self, turn, cancelled, show, acting):
        raise AssertionError("nobody asks")

App.answerer = lambda app: NoModel()
sys.argv = ["chorus", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.processes
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("only", [[], ["--only", "workers"], ["--only", "connectors"]])
def test_run_ends_well_when_it_is_told_to(
    tmp_path: Path, sign: signal.Signals, only: list[str]
) -> None:
    file = tmp_path / "bot.yaml"
    file.write_text(
        f"data: {tmp_path}/data\n"
        "knowledge: {model: m}\ngeneration: {model: m}\n"
        "plugins: [{use: multinomial}, {use: best}]\nconnectors: [{use: terminal}]\n"
    )
    command = [sys.executable, "-c", _RUN, "run", "--port", "0", *only]

    with subprocess.Popen(
        [*command, "--config", str(file)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = ""
        assert process.stderr is not None
        while "stop with Ctrl-C" not in said:
            said = process.stderr.readline()
            assert said, "it ended before it began"
        process.send_signal(sign)
        code = process.wait(20)

    assert code == 0


def test_a_port_that_is_taken_is_for_the_operator(app: App, tmp_path: Path) -> None:
    plugins = Plugins(connectors=[MemoryConnector()])
    config = app.config.model_copy(
        update={"operations": app.config.operations.model_copy(update={"port": 1})}
    )
    talking = App(config, ChannelPlugins(everywhere=plugins), lambda *_: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = cast("tuple[str, int]", taken.getsockname())[1]

        result = invoke(talking, "run", "--only", "connectors", "--port", str(port))

    assert result.exit_code == 2
    assert f"127.0.0.1:{port} is in use by another process" in result.stderr
