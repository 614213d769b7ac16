"""`chorus eval`: how good retrieval, candidates, ranking and answers are."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bot.app import App
from bot.cli.columns import write_columns
from bot.cli.opening import DEFAULT_CONFIG, json_option, opened
from bot.cli.screen import say, write_json
from bot.config import Config
from bot.config_file import did_you_mean, load
from bot.errors import ConfigError
from bot.evaluation.answers import QUOTATION, REFERENCE
from bot.evaluation.html import html
from bot.evaluation.judges import Bots
from bot.evaluation.lines import HalfOrAll
from bot.evaluation.memory import Memory
from bot.evaluation.report import Detail, Report, Row
from bot.evaluation.suites import SUITES, How, QuestionFile
from bot.evaluation.variants import variants

# Rows that suites have of their own. A configuration of the same name would be counted
# as one with them.
_TAKEN = frozenset(
    (REFERENCE, "one sample", QUOTATION, "dense", "bm25", "hybrid", "random", "oracle")
)

# In the table unless --metrics names others: what decides, then what it costs. A suite
# that has none of these shows all that it has.
_SHOWN = (
    "contained",
    "f1",
    "contained - greedy",
    "f1 - greedy",
    "any",
    "gap",
    "declined",
    "wrongly declined",
    "failed",
    "problems",
    "distinct-2",
    "vendi",
    "clusters",
    "perplexity",
    "write ms",
    "total ms",
    "recall@5",
    "mrr",
)


class Names(click.ParamType[tuple[str, ...]]):
    """Names between commas, each once."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = [name.strip() for name in str(value).split(",")]
        found = tuple(dict.fromkeys(name for name in names if name))
        if not found:
            self.fail("there is no name in it; write contained,f1", param, ctx)
        return found


_NAMED = 4  # configurations in a page's title


@click.command("eval")
@click.argument("suite", metavar="SUITE", type=click.Choice(list(SUITES)))
@click.option(
    "--config",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A configuration; again for each further one. Default config/bot.yaml.",
)
@click.option(
    "--variants",
    "variants_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file of what is to differ from the last configuration, by name.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="File in the suite's format; `handbook` ships its own.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use so many, evenly spread.")
@click.option(
    "--half",
    type=click.Choice(["tune", "report", "all"]),
    default="all",
    help="Questions of one half; default all.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Look for better weights on one half, and report them on the other.",
)
@click.option(
    "--blocks",
    is_flag=True,
    help="Also answer in blocks, and time what is read first; handbook and qa.",
)
@click.option(
    "--at-once",
    type=click.IntRange(1, 64),
    default=1,
    help="Turns answered at a time: more are faster together, and each is slower.",
)
@click.option("--fresh", is_flag=True, help="Write anew what was written before.")
@click.option(
    "--metrics", type=Names(), help="Columns of the table, separated by commas."
)
@click.option(
    "--html",
    "html_path",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Also write a report in which every figure leads to its candidates.",
)
@json_option
@click.pass_context
def command(  # noqa: PLR0913 (one per option)
    ctx: click.Context,
    *,
    suite: str,
    paths: tuple[Path, ...],
    variants_path: Path | None,
    data: Path | None,
    limit: int | None,
    half: HalfOrAll,
    tune: bool,
    blocks: bool,
    at_once: int,
    fresh: bool,
    metrics: tuple[str, ...] | None,
    html_path: Path | None,
    as_json: bool,
) -> None:
    """
    Measure how good retrieval, candidates, ranking and answers are.

    handbook: the shipped questions about the shipped documents. qa: an XQuAD file, each
    question with its own passage. diversity: open-ended prompts. ratings, attribution,
    pairs: what scorers make of replies that people judged. retrieval, faq, intents,
    dialogues: what is found. docs/evaluation.md says more of each, and of its file.
    Intervals are 95 % bootstrap intervals over the questions. What a model wrote is
    kept, so an evaluation that was interrupted goes on where it stopped.
    """
    if html_path is not None and not html_path.parent.is_dir():
        raise ConfigError(
            f"--html: there is no folder {html_path.parent}; make it, or name another"
        )
    first, *others = paths or (ctx.find_root().params.get("config") or DEFAULT_CONFIG,)
    questions = QuestionFile(path=data, limit=limit, half=half)
    with opened(first) as bot:
        bots = _bots(bot.app, [first, *others], variants_path)
        with closing(Memory(bot.app.config.data / "evaluation.sqlite")) as memory:
            if fresh:
                memory.forget()
            how = How(tune=tune, blocks=blocks, at_once=at_once, memory=memory)
            report = asyncio.run(SUITES[suite](bots, questions, bot.progress, how))
    measured = list(dict.fromkeys(name for row in report.rows for name in row.metrics))
    if as_json:
        for row in report.rows:
            write_json(row.as_json(), indent=None)
    else:
        _write_rows(report.rows, measured, metrics or ())
    if html_path is not None:
        _write_html(report, html_path, bots, data)
    _tell_failures(report.details)
    if memory.trouble:
        say(memory.trouble)
    # Last, because a slip of the pen must not cost what took an hour to measure.
    unknown = [name for name in metrics or () if name not in measured]
    if unknown:
        raise ConfigError(
            [
                f"--metrics: no metric {name!r}; {did_you_mean(name, measured)}"
                for name in unknown
            ]
        )


def _bots(app: App, paths: Sequence[Path], variants_path: Path | None) -> Bots:
    """Return the bots by the names of their rows, or raise ConfigError."""
    found = [app, *(_varied(app, load(path), str(path)) for path in paths[1:])]
    names = [path.stem for path in paths] if len(paths) > 1 else ["chorus"]
    if variants_path is not None:
        last, problems = found[-1], list[str]()
        differing = variants(variants_path, last.config)
        names += differing
        for name, config in differing.items():
            try:
                found.append(_varied(last, config, f"{variants_path}: {name}"))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise ConfigError(
            f"two configurations are called {twice[0]!r}; rename the file or the "
            "variant, so that their rows can be told apart"
        )
    taken = [name for name in names if name in _TAKEN]
    if taken:
        raise ConfigError(
            f"a configuration is called {taken[0]!r}, as a row is that suites have of "
            "their own; rename the file or the variant"
        )
    return list(zip(names, found, strict=True))


def _varied(app: App, config: Config, where: str) -> App:
    """Return the app of a configuration; what is wrong with it is told by its file."""
    try:
        return app.variant(config)
    except ConfigError as error:
        raise ConfigError(
            [_placed(problem, config, where) for problem in error.problems]
        ) from error


def _placed(problem: str, config: Config, where: str) -> str:
    """Say a plugin's name for its number: in a file of variants it has none."""
    told = re.sub(
        r"^plugins\[(\d+)\]",
        lambda found: f"plugins.{config.plugins[int(found[1])].use}",
        problem.removeprefix("variant: "),
    )
    return f"{where}: {told}"


def _write_rows(
    rows: Sequence[Row], measured: Sequence[str], wanted: Sequence[str]
) -> None:
    """Write the columns that are wanted, or the usual ones where there is none."""
    names = [name for name in wanted if name in measured]
    names = names or [name for name in _SHOWN if name in measured] or list(measured)
    write_columns(
        ["", *names, "n"],
        [
            [row.config, *(_cell(row, name) for name in names), str(row.n)]
            for row in rows
        ],
    )
    more = [name for name in measured if name not in names]
    if more:
        say(f"Also measured: {', '.join(more)} (--metrics, --json, --html)")


def _tell_failures(details: Sequence[Detail]) -> None:
    """Nobody would look for the reason of bad figures in turns that failed."""
    whys: dict[str, list[str]] = {}
    for one in details:
        if one.record.outcome == "failed":
            whys.setdefault(one.config, []).append(one.record.why)
    for config, of_config in whys.items():
        turns = sum(one.config == config for one in details)
        first = " ".join(of_config[0].split())
        say(f"{config}: {len(of_config)} of {turns} turns failed; the first: {first}")


def _cell(row: Row, name: str) -> str:
    if name not in row.metrics:
        return ""
    low, high = row.intervals[name]
    digits = 0 if "ms" in name.split() else 3
    return f"{row.metrics[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _write_html(report: Report, path: Path, bots: Bots, data: Path | None) -> None:
    names = ", ".join(name for name, _ in bots[:_NAMED])
    if len(bots) > _NAMED:
        names += f" and {len(bots) - _NAMED} more"
    title = f"{report.suite}: {names}" + (f", {data.name}" if data else "")
    page = html(report, title=title, made=datetime.now(UTC))
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; name another file"
        ) from error
    say(f"The report is in {path}")
