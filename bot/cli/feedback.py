"""`chorus feedback`: what customers thought of replies."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.app import App
from bot.cli.opening import config_option, json_option, opened
from bot.cli.screen import say, write, write_json, write_table

if TYPE_CHECKING:
    from pydantic import JsonValue

    from bot.conversation.state import Judged

UNITS: Mapping[str, str] = {"d": "days", "h": "hours", "m": "minutes"}
LONGEST_D = 3650  # as good as for ever, and far from what a date cannot hold
NO_CANDIDATE = "no candidate"  # a plugin or an action said it


class Ago(click.ParamType[timedelta]):
    """A time span such as 7d, 12h or 30m."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        number, unit = str(value)[:-1], str(value)[-1:]
        if unit not in UNITS or not (number.isdecimal() and number.isascii()):
            self.fail(f"{value!r} is no time span; write 7d, 12h or 30m", param, ctx)
        span = timedelta(**{UNITS[unit]: int(number[:9])})
        return min(span, timedelta(days=LONGEST_D))


@click.command("feedback")
@click.option(
    "--since", type=Ago(), metavar="SPAN", help="Only what was judged within 7d, 12h …"
)
@config_option
@json_option
def command(*, since: timedelta | None, path: Path, as_json: bool) -> None:
    """List the turns that customers judged, with totals."""
    with opened(path) as bot:
        found = asyncio.run(_found(bot.app, since))
    if as_json:
        for one in found:
            write_json(_json(one), indent=None)
    elif found:
        columns = ["time", "turn", "rating", "good", "bad", "platform", "by", "record"]
        write_table(columns, [_cells(one) for one in found])
        write("")
        write_table(["by", "turns", "good", "bad"], _totals(found))
    else:
        say("nobody has judged a reply")


def _json(one: Judged) -> dict[str, JsonValue]:
    return {**asdict(one), "time": one.time.isoformat(), "rating": one.rating}


def _cells(one: Judged) -> list[str]:
    return [
        f"{one.time:%Y-%m-%d %H:%M}",
        one.turn,
        f"{one.rating:+d}",
        str(one.good),
        str(one.bad),
        one.platform,
        one.origin or NO_CANDIDATE,
        "yes" if one.recorded else "gone",
    ]


def _totals(found: Sequence[Judged]) -> list[list[str]]:
    """Add up by who wrote what was sent: the model, or a plugin's writer."""
    by_origin: defaultdict[str, list[Judged]] = defaultdict(list)
    for one in found:
        by_origin[one.origin or NO_CANDIDATE].append(one)
    return [
        [
            origin,
            str(len(those)),
            str(sum(one.good for one in those)),
            str(sum(one.bad for one in those)),
        ]
        for origin, those in sorted(by_origin.items())
    ]


async def _found(app: App, since: timedelta | None) -> list[Judged]:
    from bot.conversation import judgements

    oldest = None if since is None else datetime.now(UTC) - since
    async with app.store() as store:
        return await judgements.judged(store, oldest)
