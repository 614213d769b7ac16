"""`chorus search`: what would be retrieved for a question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from pydantic import JsonValue

from bot import explain
from bot.app import App
from bot.cli.opening import Words, config_option, json_option, opened
from bot.cli.screen import say, write_json, write_table
from bot.model import Address, Event, Passage, Turn


@click.command("search")
@click.argument("question", type=Words())
@click.option(
    "--limit",
    type=click.IntRange(1, 100),
    help="Passages to show; default knowledge.passages.",
)
@config_option
@json_option
def command(*, question: str, limit: int | None, path: Path, as_json: bool) -> None:
    """Show what would be retrieved for a question, with scores."""
    with opened(path) as bot:
        found = asyncio.run(_found(bot.app, question, limit))
    if as_json:
        write_json([_as_json(passage) for passage in found])
        return
    write_table(["score", "parts", "source", "text"], [_cells(one) for one in found])
    least = bot.app.config.knowledge.minimum_relevance
    if all(one.scores.get("relevance", 1.0) < least for one in found):
        say(f"none is relevant enough to answer from (minimum_relevance {least:g})")


async def _found(app: App, question: str, limit: int | None) -> Sequence[Passage]:
    """Ask the bot's retrievers in order, as a turn does."""
    turn = _turn(question)
    depth = limit or app.config.knowledge.passages
    found: dict[str, Passage] = {}
    for retriever in (app.retriever(), *app.plugins.retrievers):
        for passage in await retriever.retrieve(turn, depth):
            found.setdefault(passage.id, passage)
    return list(found.values())


def _turn(question: str) -> Turn:
    address = Address(platform="terminal", account="search", chat="search")
    message = Event(
        id="search",
        kind="message",
        address=address,
        time=datetime.now(UTC),
        text=question,
    )
    return Turn(id="search", message=message, seed=0)


def _as_json(passage: Passage) -> dict[str, JsonValue]:
    return {
        "source": passage.source,
        "passage": passage.id,
        "text": passage.text,
        "title": passage.title,
        "headings": list(passage.headings),
        "page": passage.page,
        "line": passage.line,
        "metadata": dict(passage.metadata),
        "score": passage.score,
        "scores": dict(passage.scores),
    }


def _cells(passage: Passage) -> list[str]:
    return [
        f"{passage.score:.2f}",
        " ".join(f"{name} {value:.2f}" for name, value in passage.scores.items()),
        explain.place(passage),
        " ".join(passage.text.split()),
    ]
