"""
The `chorus` command: a group whose commands are imported when they are run.

Knows the commands' names and how errors become exit codes; each command's work is in
its own file. Exit code 0 is well, 1 failed, 2 the operator's to fix. Data goes to
standard output, talk to standard error.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from bot.errors import ChorusError, ConfigError

FAILED, FIXABLE, INTERRUPTED = 1, 2, 130

# Name: what `chorus --help` says. The file of the same name has the command, and says
# the same; importing all of them for a list of names would take seconds.
COMMANDS: Mapping[str, str] = {
    "chat": "Talk to the bot in this terminal.",
    "run": "Talk on every configured connector until stopped.",
    "actions-server": "Serve actions, replies and wordings to a Rasa assistant.",
    "ask": "Ask one question and print the reply with its sources.",
    "explain": "Show how a turn was answered, and what was not sent and why.",
    "ingest": "Read documents into the index; only what changed is read again.",
    "search": "Show what would be retrieved for a question, with scores.",
    "plugins": "List the plugins that are installed, the enabled ones first.",
    "new-plugin": "Write a package for a plugin that passes its own tests at once.",
    "check": "Check a configuration file and show every problem at once.",
    "schema": "Print the JSON Schema of the configuration file.",
    "models": "List the configured models, fetch them, and say what fits.",
    "feedback": "List the turns that customers judged, with totals.",
    "handoff": "List the conversations that people have, hand one over or back.",
    "conversations": "List the conversations, those with work to do first.",
    "dead-letters": "List the messages that were set aside, or have one tried again.",
    "forget": "Erase what is stored about a person.",
    "bench": "Measure the speed of a part against its usual alternative.",
    "eval": "Measure how good retrieval, candidates, ranking and answers are.",
    "replay": "Answer stored turns again under another configuration, and compare.",
    "ab": "Report how the arms of the experiment fare, with intervals.",
}


class Chorus(click.Group):
    """Shipped commands by name, then those that enabled plugins contribute."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_contributed(ctx))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"bot.cli.{cmd_name.replace('-', '_')}")
            command: click.Command = module.command
            return command
        return _contributed(ctx, by_source=False).get(cmd_name)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        contributed = _contributed(ctx)
        if contributed:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(
                    [
                        (name, command.get_short_help_str(limit=80))
                        for name, command in sorted(contributed.items())
                    ]
                )

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        # Task groups wrap what their tasks raise.
        except (ChorusError, KeyboardInterrupt, BaseExceptionGroup) as error:
            causes = list(_leaves(error))
            if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
                ctx.exit(INTERRUPTED)
            expected = [cause for cause in causes if isinstance(cause, ChorusError)]
            if len(expected) < len(causes):
                raise
            _fail(ctx, expected)


@click.group(cls=Chorus, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chorus")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,  # --help lists what the plugins of this file add
    help="Configuration file for every command; default config/bot.yaml.",
)
def chorus(config: Path | None) -> None:
    """Write several grounded answers and send the best one."""


def main() -> None:
    """Run the command line of this process, and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character, and arguments and file names that are not
        # valid UTF-8, must not end the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    chorus()


def _contributed(
    ctx: click.Context, *, by_source: bool = True
) -> dict[str, click.Command]:
    """Return the commands of the enabled plugins; shipped names stay the shipped."""
    from bot.cli.opening import contributed_commands

    return {
        command.name: command
        for command in contributed_commands(ctx, by_source=by_source)
        if command.name is not None and command.name not in COMMANDS
    }


def _fail(ctx: click.Context, errors: Sequence[ChorusError]) -> NoReturn:
    """Print every sentence on its own line, and exit with whose they are to fix."""
    sentences = [sentence for error in errors for sentence in _sentences(error)]
    for sentence in dict.fromkeys(sentences):
        click.echo(sentence, err=True)
    fixable = all(isinstance(error, ConfigError) for error in errors)
    ctx.exit(FIXABLE if fixable else FAILED)


def _sentences(error: ChorusError) -> Sequence[str]:
    return error.problems if isinstance(error, ConfigError) else [str(error)]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
