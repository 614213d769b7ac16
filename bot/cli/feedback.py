"""
`chorus feedback`: what customers thought of replies, and what can be learned from it.

Knows nothing of the scorer that reads what was learned but its name, `feedback`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bot.app import App
from bot.cli.opening import Opened, config_option, json_option, opened
from bot.cli.screen import say, write, write_json, write_table
from bot.config import Config, RankingConfig, Use
from bot.errors import ConfigError
from bot.evaluation.thumbs import Arms, arm_counts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import JsonValue

    from bot.conversation.state import Judged
    from bot.conversation.store import Store
    from bot.evaluation.feedback_model import Example, Training
    from bot.model import Candidate

UNITS: Mapping[str, str] = {"d": "days", "h": "hours", "m": "minutes"}
LONGEST_D = 3650  # as good as for ever, and far from what a date cannot hold
NO_CANDIDATE = "no candidate"  # a plugin or an action said it
SCORER = "feedback"
LEARNED = Path("feedback.json")
COUNTED = Path("thumbs.json")
AT_ONCE = 256  # texts of one call of the embedder


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


_since_option = click.option(
    "--since", type=Ago(), metavar="SPAN", help="Only what was judged within 7d, 12h …"
)


@click.group("feedback", invoke_without_command=True)
@_since_option
@config_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, *, since: timedelta | None, path: Path, as_json: bool
) -> None:
    """
    List the turns that customers judged, with totals.

    `train` learns from them which replies customers call good, `count` counts them by
    who wrote the reply.
    """
    if ctx.invoked_subcommand is not None:
        return
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


@command.command("train")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=LEARNED,
    show_default=True,
    help="File to write; the setting `model` of the plugin names it.",
)
@click.option(
    "--minimum",
    type=click.IntRange(min=2),
    default=20,
    show_default=True,
    help="Good and bad replies needed, of each.",
)
@_since_option
@config_option
@json_option
@click.pass_context
def train(  # noqa: PLR0913 (one per option)
    ctx: click.Context,
    *,
    out: Path,
    minimum: int,
    since: timedelta | None,
    path: Path,
    as_json: bool,
) -> None:
    """
    Learn which replies customers call good, for the scorer `feedback`.

    Options that stand before `train` count as well. How well it tells good replies from
    bad ones is measured on replies that it has not seen.
    """
    from bot.evaluation import feedback_model

    before = _before(ctx)
    with opened(before.get("path", path), without_scorer) as bot:
        examples = asyncio.run(_examples(bot, since or before.get("since")))
    trained = feedback_model.train(examples, minimum=minimum)
    _keep(out, json.dumps(trained.model.as_json()))
    if as_json or before.get("as_json"):
        write_json(_learned(trained, out))
    else:
        _tell(trained, out)


@command.command("count")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=COUNTED,
    show_default=True,
    help="File to write; the setting `counts` of the plugin `thompson` names it.",
)
@_since_option
@config_option
@json_option
@click.pass_context
def count(
    ctx: click.Context,
    *,
    out: Path,
    since: timedelta | None,
    path: Path,
    as_json: bool,
) -> None:
    """
    Count thumbs by who wrote the reply, for the selector `thompson`.

    A reply counts for the prompt variant it was written with as long as its record is
    kept, and for its writer after that. Options that stand before `count` count too.
    """
    before = _before(ctx)
    with opened(before.get("path", path)) as bot:
        counted = asyncio.run(_counted(bot, since or before.get("since")))
    _keep(out, json.dumps(counted))
    if as_json or before.get("as_json"):
        arms: dict[str, JsonValue] = {
            arm: {**thumbs} for arm, thumbs in counted["arms"].items()
        }
        write_json({"file": str(out), "arms": arms})
    else:
        write_table(
            ["by", "good", "bad"],
            [
                [arm, str(thumbs["up"]), str(thumbs["down"])]
                for arm, thumbs in counted["arms"].items()
            ],
        )
    say(f"{out} is written")


def _before(ctx: click.Context) -> dict[str, Any]:
    """Return the options that stand before the subcommand; its own --config wins."""
    before = {} if ctx.parent is None else dict(ctx.parent.params)
    if ctx.get_parameter_source("path") is ParameterSource.COMMANDLINE:
        before.pop("path", None)
    return before


async def _counted(bot: Opened, since: timedelta | None) -> Arms:
    variants: dict[str, str] = {}
    async with bot.app.store() as store:
        found = await _judged(store, since)
        for one in found:
            record = await store.record(one.turn)
            if record is not None and one.candidate is not None:
                variants[one.turn] = record.candidates[one.candidate].variant
    return arm_counts(found, variants)


def without_scorer(config: Config) -> Config:
    """Leave out the scorer that waits for what is only now to be learned."""
    channels = [
        channel.model_copy(
            update={
                "plugins": channel.plugins and _others(channel.plugins),
                "ranking": channel.ranking and _unweighted(channel.ranking),
            }
        )
        for channel in config.channels
    ]
    return config.model_copy(
        update={
            "plugins": _others(config.plugins),
            "ranking": _unweighted(config.ranking),
            "channels": tuple(channels),
        }
    )


def _others(plugins: Sequence[Use]) -> tuple[Use, ...]:
    return tuple(one for one in plugins if one.use != SCORER)


def _unweighted(ranking: RankingConfig) -> RankingConfig:
    weights = {name: w for name, w in ranking.weights.items() if name != SCORER}
    return ranking.model_copy(update={"weights": weights})


async def _examples(bot: Opened, since: timedelta | None) -> list[Example]:
    """Return the replies that more people found good than bad, or the other way."""
    from bot.evaluation.feedback_model import Example

    chosen: list[tuple[Candidate, bool]] = []
    async with bot.app.store() as store:
        found = [one for one in await _judged(store, since) if one.rating]
        for done, one in enumerate(found):
            bot.progress("Reading what was judged", done, len(found))
            record = await store.record(one.turn)
            if record is not None and one.candidate is not None:
                chosen.append((record.candidates[one.candidate], one.rating > 0))
    vectors = _embedded(bot, [candidate.text for candidate, _ in chosen])
    return [
        Example(scores=candidate.scores, vector=vector, good=good)
        for (candidate, good), vector in zip(chosen, vectors, strict=True)
    ]


def _embedded(bot: Opened, texts: Sequence[str]) -> list[NDArray[np.float32]]:
    if not texts:
        return []
    embedder = bot.app.embedder()
    vectors: list[NDArray[np.float32]] = []
    for start in range(0, len(texts), AT_ONCE):
        bot.progress("Embedding replies", start, len(texts))
        vectors.extend(embedder.embed(texts[start : start + AT_ONCE]))
    return vectors


def _keep(out: Path, written: str) -> None:
    """Write the file in one step: a bot that starts meanwhile reads no half of it."""
    beside = out.with_name(f"{out.name}.new")
    try:
        beside.write_text(written, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise ConfigError(
            f"--out: {str(out)!r} cannot be written ({error.strerror}); name another "
            "file"
        ) from error


def _learned(trained: Training, out: Path) -> dict[str, JsonValue]:
    return {
        "file": str(out),
        "good": trained.good,
        "bad": trained.bad,
        "auc": trained.auc,
        "chance_auc": trained.chance_auc,
        "useful": trained.useful,
        "weights": dict(_weights(trained)),
    }


def _tell(trained: Training, out: Path) -> None:
    write(f"learned from {trained.good} good and {trained.bad} bad replies")
    write(
        f"AUC {trained.auc:.2f} on replies it had not seen; 0.50 is chance, and up to "
        f"{trained.chance_auc:.2f} may be"
    )
    write_table(
        ["by", "weight"], [[name, f"{w:+.2f}"] for name, w in _weights(trained)]
    )
    if trained.useful:
        say(f"{out} is written; enable the plugin {SCORER!r} after the other scorers")
    else:
        say(
            f"{out} is written, but it is no better than chance; leave the plugin "
            f"{SCORER!r} off until more replies are judged"
        )


def _weights(trained: Training) -> list[tuple[str, float]]:
    """Return what the log-odds gain by one spread of each score, the most first."""
    model = trained.model
    by_scores = zip(model.names, model.weights, strict=True)
    return [
        *sorted(by_scores, key=lambda one: -abs(one[1])),
        ("embedding", math.hypot(*model.embedding)),
    ]


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
    async with app.store() as store:
        return await _judged(store, since)


async def _judged(store: Store, since: timedelta | None) -> list[Judged]:
    from bot.conversation import judgements

    oldest = None if since is None else datetime.now(UTC) - since
    return await judgements.judged(store, oldest)
