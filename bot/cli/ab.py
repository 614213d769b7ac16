"""`chorus ab`: how the arms of the experiment on live conversations fare."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.app import App
from bot.cli.columns import write_columns
from bot.cli.opening import config_option, json_option, opened
from bot.cli.screen import say, write, write_json, write_markdown
from bot.config import BASE, ExperimentConfig
from bot.errors import ConfigError

if TYPE_CHECKING:
    from bot.evaluation.arms import ArmFigures
    from bot.evaluation.replay import Compared

COLUMNS = (
    "arm",
    "conversations",
    "turns",
    "up",
    "down",
    "judged",
    "share up",
    "difference to base",
    "declined",
    "failed",
    "median ms",
)


@click.command("ab")
@click.option(
    "--turns",
    is_flag=True,
    help="Show what was said beside what the arm would have said; in the shadow only.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="With --turns, so many of them.",
)
@config_option
@json_option
def command(*, turns: bool, limit: int, path: Path, as_json: bool) -> None:
    """
    Report how the arms of the experiment fare, with intervals.

    Of thumbs, each conversation counts once, with its share of thumbs up: a
    conversation was given an arm, and its turns are not independent. Intervals are 95 %
    intervals: Wilson's of a share, Newcombe's of a difference.
    """
    with opened(path) as bot:
        experiment = bot.app.config.experiment
        if experiment is None:
            raise ConfigError(
                f"{path}: experiment: there is none; docs/experiments.md shows how "
                "conversations are split between configurations"
            )
        if turns and not experiment.shadow:
            raise ConfigError(
                "--turns: only an experiment with `shadow: true` has two answers to a "
                "turn; compare with `chorus replay`"
            )
        if turns:
            _show_turns(asyncio.run(_shadowed(bot.app, experiment, limit)), as_json)
            return
        found, left_out = asyncio.run(_figures(bot.app, experiment))
    if as_json:
        for one in found:
            write_json({"experiment": experiment.name, **one.as_json()}, indent=None)
        if experiment.shadow:
            write_json({"left_out": left_out}, indent=None)
        return
    columns = [*COLUMNS, "differs"] if experiment.shadow else COLUMNS
    write_columns(columns, [_cells(one)[: len(columns)] for one in found])
    write("")
    for sentence in _told(found, experiment, left_out):
        write(sentence)


async def _figures(
    app: App, experiment: ExperimentConfig
) -> tuple[list[ArmFigures], int]:
    from bot.conversation import judgements, records
    from bot.evaluation.arms import Tallies, figures

    tallies = Tallies(experiment.name)
    async with app.store() as store:
        async for kept in records.kept(store):
            tallies.count(kept.record, kept.shadow)
        for judged in await judgements.judged(store):
            tallies.judge(judged)
        left_out = await records.ShadowKeeper(store, experiment.name).left_out()
    # An arm that was taken out of the file is still reported, after the others.
    arms = dict.fromkeys([BASE, *experiment.arms, *sorted(tallies.by_arm)])
    compare = not experiment.shadow
    return figures(list(arms), tallies.by_arm, compare=compare), left_out


def _cells(one: ArmFigures) -> list[str]:
    told = one.difference
    return [
        one.arm,
        str(one.conversations),
        str(one.turns),
        str(one.up),
        str(one.down),
        str(one.judged),
        _share(one.share, one.interval),
        "" if told is None else _share(told.value, told.interval, signed=True),
        _share(one.declined),
        _share(one.failed),
        "" if one.ms is None else f"{one.ms:.0f}",
        _share(one.differs),
    ]


def _share(
    value: float | None,
    interval: tuple[float, float] | None = None,
    *,
    signed: bool = False,
) -> str:
    if value is None:
        return ""
    sign = "+" if signed else ""
    if interval is None:
        return f"{value:{sign}.3f}"
    low, high = interval
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _told(
    found: Sequence[ArmFigures], experiment: ExperimentConfig, left_out: int
) -> list[str]:
    """Put into words what the table says, and what it must not be taken to say."""
    told = []
    if experiment.shadow:
        told.append(
            "in the shadow the arms' answers are not sent, so nobody judges them; "
            f"{left_out} turns were left out because too many waited"
        )
    for one in found:
        if one.difference is not None:
            told.append(f"{one.arm}: {one.difference.word}: {one.difference.why}")
        elif one.arm != BASE and not experiment.shadow:
            told.append(f"{one.arm}: too little to tell: nobody has judged both arms")
        if one.configurations > 1:
            told.append(
                f"{one.arm}: was answered under {one.configurations} configurations; "
                "give the experiment a new name when an arm is changed"
            )
    return told


# Turn by turn


async def _shadowed(
    app: App, experiment: ExperimentConfig, limit: int
) -> list[Compared]:
    from bot.conversation import records
    from bot.evaluation.replay import Compared

    found: list[Compared] = []
    async with app.store() as store, aclosing(records.kept(store)) as every:
        async for kept in every:
            shadow = kept.shadow
            if shadow and shadow.arm.partition("/")[0] == experiment.name:
                found.append(Compared(then=kept.record, now=shadow))
            if len(found) == limit:
                break
    return found


def _show_turns(compared: Sequence[Compared], as_json: bool) -> None:  # noqa: FBT001
    from bot.cli.replay import side_by_side

    if not compared:
        say("no turn has an answer in the shadow yet")
    for one in compared:
        if as_json:
            write_json(one.as_json(), indent=None)
        else:
            write_markdown(side_by_side(one))
