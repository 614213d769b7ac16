"""`chorus replay`: what stored turns would have come to under another configuration."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.app import App
from bot.cli.feedback import Ago
from bot.cli.opening import DEFAULT_CONFIG, Opened, Words, json_option, opened
from bot.cli.screen import say, write_json, write_markdown
from bot.config_file import load
from bot.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from bot.conversation.store import Store
    from bot.evaluation.replay import Compared, Stored, Summary
    from bot.model import Record

MOST = 50  # turns, unless told otherwise: each takes as long as it took the customer

ReadBack = tuple[list["Stored"], int]


class Since(click.ParamType[datetime]):
    """A time span such as 2h, or a date such as 2026-11-29, which begins in UTC."""

    name = "span or date"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        text = str(value)
        if text[:1].isdigit() and "-" in text:
            try:
                day = datetime.fromisoformat(text)
            except ValueError:
                self.fail(f"{value!r} is no date; write 2026-11-29", param, ctx)
            return day if day.tzinfo else day.replace(tzinfo=UTC)
        try:
            return datetime.now(UTC) - Ago().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(
                f"{value!r} is neither a time span nor a date; write 2h, 7d or "
                "2026-11-29",
                param,
                ctx,
            )


@click.command("replay")
@click.argument("turn", type=Words(), required=False)
@click.option(
    "--since",
    type=Since(),
    metavar="SPAN|DATE",
    help="Instead of one turn, those since 2h, 7d, 2026-11-29 …; dates are UTC.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=MOST,
    show_default=True,
    help="With --since, the latest so many.",
)
@click.option(
    "--config",
    "under",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration to answer under; default: the one the turns are stored by.",
)
@click.option(
    "--stored-by",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration of the bot that answered, whose Redis or data folder has the "
    "turns; default config/bot.yaml, or what stands before the command: "
    "`chorus --config FILE replay …`.",
)
@click.option(
    "--same-passages",
    is_flag=True,
    help="Give each turn what was retrieved then, instead of searching anew.",
)
@json_option
def command(  # noqa: PLR0913 (one per option)
    *,
    turn: str | None,
    since: datetime | None,
    limit: int,
    under: Path | None,
    stored_by: Path | None,
    same_passages: bool,
    as_json: bool,
) -> None:
    """
    Answer stored turns again under another configuration, and compare.

    Each turn begins as it began then, with its message, history, slots and seed.
    Nothing is sent or kept, and no plugin is told of it. The bot may be running
    meanwhile.
    """
    if (turn is None) == (since is None):
        raise ConfigError("replay: name a TURN, or say --since; not both")
    if under is not None:
        load(under)  # its mistakes are told even where no turn is found
    root = click.get_current_context().find_root().params
    stored_by = stored_by or root.get("config") or DEFAULT_CONFIG
    under = under or stored_by
    with opened(stored_by) as bot:
        if since is None:
            stored, older = asyncio.run(_one(bot.app, turn or "")), 0
        else:
            stored, older = asyncio.run(_since(bot.app, since, limit))
    if not stored:
        say("no turn that could be answered again was found in that time")
        return
    with opened(under) as bot:
        asyncio.run(_replay(bot, stored, older, same=same_passages, as_json=as_json))


# Reading


async def _one(app: App, turn: str) -> list[Stored]:
    from bot.experiment import is_comparable

    async with app.store() as store:
        record = await store.record(turn)
        if record is None:
            days = app.config.conversation.record_ttl_days
            raise StoreError(
                f"no record of turn {turn!r}: there never was one, it is older than "
                f"conversation.record_ttl_days ({days:g}), or its person was forgotten"
            )
        if not is_comparable(record):
            raise StoreError(
                f"turn {turn!r} cannot be answered again: it is "
                f"{_why_not(record)}; name another one"
            )
        return [await _with_history(store, record)]


def _why_not(record: Record) -> str:
    if record.turn.message.kind != "message":
        return f"a {record.turn.message.kind}, not a message"
    return f"{record.outcome.replace('_', ' ')}, which no configuration decides"


async def _since(app: App, since: datetime, limit: int) -> ReadBack:
    """Return the latest turns, the oldest first, and how many were left out."""
    from bot.conversation import records
    from bot.experiment import is_comparable

    # Records are large: no more than the limit are held at once.
    latest: list[tuple[datetime, str, Record]] = []
    seen = 0
    async with app.store() as store:
        async for kept in records.kept(store, since):
            if not is_comparable(kept.record):
                continue
            seen += 1
            turn = kept.record.turn
            entry = (turn.message.time, turn.id, kept.record)
            if len(latest) < limit:
                heapq.heappush(latest, entry)
            else:
                heapq.heappushpop(latest, entry)
        stored = [
            await _with_history(store, record)
            for _, _, record in sorted(latest, key=lambda entry: entry[:2])
        ]
    return stored, seen - len(stored)


async def _with_history(store: Store, record: Record) -> Stored:
    from bot.conversation import records
    from bot.evaluation.replay import Stored

    return Stored(record=record, history=await records.before(store, record))


# Answering


async def _replay(
    bot: Opened, stored: Sequence[Stored], older: int, *, same: bool, as_json: bool
) -> None:
    """Answer and show one after the other: whoever interrupts it has the first ones."""
    from bot.evaluation.replay import repeated, summary

    answerer = await asyncio.to_thread(bot.app.answerer)
    compared = []
    for done, turn in enumerate(stored):
        bot.progress("Answering again", done, len(stored))
        one = await repeated(answerer, turn, same_passages=same)
        bot.progress.end()
        if as_json:
            write_json(one.as_json(), indent=None)
        else:
            write_markdown(side_by_side(one))
        compared.append(one)
    whole = summary(compared)
    if as_json:
        write_json({"summary": {**asdict(whole), "older": older}}, indent=None)
    else:
        write_markdown(_told(whole, older))


# Showing


def side_by_side(one: Compared) -> str:
    turn = one.then.turn
    verdict = "the same" if one.same else "different"
    rows = [
        ("", f"then ({_under(one.then)})", f"now ({_under(one.now)})"),
        ("---", "---", "---"),
        *(
            (name, then, now)
            for name, then, now in zip(
                _ROWS, _column(one.then), _column(one.now), strict=True
            )
            if then or now
        ),
    ]
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    history = "" if one.whole else "\n\nIts history is not in the log any more.\n"
    return (
        f"## {turn.message.time:%Y-%m-%d %H:%M} {turn.id}: {verdict}\n\n"
        f"**Question** {turn.question}{history}\n\n" + "\n".join(lines) + "\n"
    )


_ROWS = ("reply", "outcome", "why", "sources", "scores", "problems", "ms")


def _column(record: Record) -> tuple[str, ...]:
    from bot.evaluation.replay import pick, took

    picked = pick(record)
    scores = {} if picked is None else picked.scores
    sources = dict.fromkeys(citation.source for citation in record.reply.citations)
    return (
        record.reply.text,
        record.outcome,
        record.why,
        ", ".join(sources),
        ", ".join(f"{name} {score:.2f}" for name, score in scores.items()),
        " ".join(record.problems),
        f"{took(record):.0f}",
    )


def _under(record: Record) -> str:
    """Name the configuration, and the arm of an experiment if there was one."""
    return f"{record.config}, arm {record.arm}" if record.arm else record.config


def _told(whole: Summary, older: int) -> str:
    turns = "1 turn" if whole.n == 1 else f"{whole.n} turns"
    told = [
        f"{turns}: {whole.same} the same, {whole.different} different",
        f"declined {whole.declined_then} then, {whole.declined_now} now",
        f"failed {whole.failed_then} then, {whole.failed_now} now",
        f"mean {whole.ms_then:.0f} ms then, {whole.ms_now:.0f} ms now",
    ]
    if older:
        told.append(f"left out because they are older: {older}, see --limit")
    return "\n".join(("## Summary", "", *(f"- {one}" for one in told)))


def _cell(content: str) -> str:
    return " ".join(content.split()).replace("|", "\\|")
