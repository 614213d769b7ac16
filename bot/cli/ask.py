"""`chorus ask`: one question through the real path, and its reply."""

from __future__ import annotations

import asyncio
import getpass
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from bot import explain
from bot.cli.opening import Opened, Words, config_option, json_option, opened
from bot.cli.screen import say, write_json, write_markdown
from bot.config import Config
from bot.conversation.state import turn_id
from bot.errors import StoreError, TurnError
from bot.interfaces import Accepted, Delivery
from bot.model import Address, Event, Record, Reply, Sent

TERMINAL = "terminal"
REFUSED_S = 5.0  # for the reply that says why, which may be none


@click.command("ask")
@click.argument("question", type=Words())
@click.option("--seed", type=click.IntRange(min=0), help="Repeats a turn exactly.")
@config_option
@json_option
def command(*, question: str, seed: int | None, path: Path, as_json: bool) -> None:
    """Ask one question and print the reply with its sources."""
    asking = OneQuestion(question)

    def changed(config: Config) -> Config:
        """Take the person's name from the terminal; one question needs no platform."""
        asking.ask_as(_user(config))
        return config.model_copy(update={"connectors": ()})

    with opened(path, changed) as bot:
        reply, record = asyncio.run(_asked(bot, asking, seed))
    if record is None:
        raise TurnError(reply.text)
    if as_json:
        write_json(explain.contract(record))
    else:
        write_markdown(with_sources(reply))
        say(f"explain with: chorus explain {record.turn.id}")
    if record.outcome == "failed":
        raise TurnError(f"turn {record.turn.id!r} failed: {record.why}")


def with_sources(reply: Reply) -> str:
    """Return the reply as Markdown, with each of its documents named once."""
    sources = dict.fromkeys(citation.source for citation in reply.citations)
    if not sources:
        return reply.text
    listed = "\n".join(f"- {source}" for source in sources)
    return f"{reply.text}\n\nSources:\n\n{listed}"


def _user(config: Config) -> str:
    """Name the person as the terminal connector does, so that one name forgets both."""
    for use in config.connectors:
        named = use.settings.get("user") if use.use == TERMINAL else None
        if isinstance(named, str) and named:
            return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return "me"


async def _asked(
    bot: Opened, asking: OneQuestion, seed: int | None
) -> tuple[Reply, Record | None]:
    """Return the reply and its record; a refused question has a reply only."""
    seeds = None if seed is None else lambda: seed
    try:
        async with bot.app.running(
            {asking.name: asking}, seeds=seeds, patient=False
        ) as manager:
            bot.progress("Answering", 0, None)
            await manager.run()
            # Its delivery is marked before what is left is dropped.
            await manager.idle()
    except BaseException:
        with suppress(StoreError):  # what ended it says it better
            await _cleared(bot, asking)
        raise
    bot.progress.end()
    return asking.reply, await _cleared(bot, asking)


async def _cleared(bot: Opened, asking: OneQuestion) -> Record | None:
    """Leave nothing to do where nobody will be again; return the question's record."""
    async with bot.app.store() as store:
        await store.abandon(asking.event.address)
        await store.retire(asking.name)
        return await store.record(turn_id(asking.event))


class OneQuestion:
    """
    A connector that asks once and is finished when it has the reply. It is a platform
    of its own, so that no other process answers it, or takes its reply.
    """

    delivery: Delivery = "at_most_once"

    def __init__(self, question: str) -> None:
        self.name = f"ask-{uuid.uuid4().hex[:12]}"
        self.event = Event(
            id="question",
            kind="message",
            address=Address(platform=self.name, account="local", chat="ask"),
            time=datetime.now(UTC),
            text=question,
        )
        self.reply = Reply(text="the question was not accepted")
        self._replied = asyncio.Event()

    def ask_as(self, user: str) -> None:
        # A login that is no UTF-8 would have the question refused.
        readable = user.encode(errors="replace").decode()
        address = replace(self.event.address, user=readable)
        self.event = replace(self.event, address=address)

    async def run(self, accept: Callable[[Event], Awaitable[Accepted]]) -> None:
        if await accept(self.event) == "accepted":
            await self._replied.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(REFUSED_S):
                await self._replied.wait()

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self.reply = reply
        self._replied.set()
        return Sent(ids=(key,))

    async def status(self, address: Address, text: str) -> None:
        """The command's own progress says that the bot is working."""
