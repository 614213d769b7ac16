"""ab, on a real server: the arms of an experiment on live conversations."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bot.config import BASE
from bot.conversation.records import ShadowKeeper
from bot.conversation.state import turn_id
from bot.experiment import arm_of
from bot.model import Address, Event
from bot.testing.makers import an_event
from tests.cli.bots import ScriptedBot
from tests.test_experiment import (
    EVERYBODY,
    QUESTION,
    REAL,
    THERE,
    TOLD,
    ingest,
    judging,
    shadow_of,
    talking,
    the_files,
    written,
)

pytestmark = pytest.mark.services


def a_bot(folder: Path, *, shadow: bool = False) -> ScriptedBot:
    bot = ScriptedBot(file=the_files(folder, shadow=shadow))
    ingest(bot.app(), folder)
    return bot


def conversations(arm: str, number: int) -> list[Address]:
    return [one for one in EVERYBODY if arm_of(REAL, one) == arm][:number]


def asked(address: Address) -> Event:
    return an_event(QUESTION, address=address)


def after(bot: ScriptedBot, *events: Event) -> None:
    async def accepted() -> None:
        async with talking(bot.app()) as talk:
            for event in events:
                await talk.accept(event)
                if event.kind != "feedback":
                    await talk.service.next_reply(event.address.chat)

    asyncio.run(accepted())


def rows(result: Result) -> dict[str, dict[str, Any]]:
    found = map(json.loads, result.stdout.splitlines())
    return {row["arm"]: row for row in found if "arm" in row}


def test_arms_are_reported_with_thumbs_intervals_and_what_can_be_told(
    tmp_path: Path,
) -> None:
    bot = a_bot(tmp_path)
    here, there = conversations(BASE, 2), conversations("brief", 1)
    questions = [asked(one) for one in (*here, *there)]
    thumbs = [
        judging(turn_id(question), rating, question.address)
        for question, rating in zip(questions, (1, -1, 1), strict=True)
    ]
    declined = an_event("Who won?", address=there[0])
    after(bot, *questions, *thumbs, declined)

    result = bot.invoke("ab", "--json")
    table = bot.invoke("ab").stdout

    base, brief = rows(result)[BASE], rows(result)["brief"]
    assert result.exit_code == 0
    assert (base["conversations"], base["turns"]) == (2, 2)
    assert (base["up"], base["down"], base["judged"], base["share"]) == (1, 1, 2, 0.5)
    assert (brief["conversations"], brief["turns"]) == (1, 2)
    assert (brief["up"], brief["declined"], brief["configurations"]) == (1, 0.5, 1)
    assert brief["difference"]["word"] == "too little to tell"
    assert brief["experiment"] == "shorter"
    assert base["difference"] is None
    assert "0.500 [0.095, 0.905]" in table  # Wilson's interval of 1 of 2
    assert "brief: too little to tell: an arm has 1 judged conversations" in table


def test_without_thumbs_the_command_says_so(tmp_path: Path) -> None:
    bot = a_bot(tmp_path)
    after(bot, asked(conversations("brief", 1)[0]))

    result = bot.invoke("ab")

    assert result.exit_code == 0
    assert "brief: too little to tell: nobody has judged both arms" in result.stdout


def test_an_arm_that_was_changed_on_the_way_is_told(tmp_path: Path) -> None:
    bot = a_bot(tmp_path)
    first, second = conversations("brief", 2)
    after(bot, asked(first))
    written(tmp_path, "brief.yaml", persona="You are brief. And kind.")
    after(bot, asked(second))

    told = bot.invoke("ab").stdout

    assert "brief: was answered under 2 configurations" in told


def test_an_arm_that_was_taken_out_is_still_reported(tmp_path: Path) -> None:
    bot = a_bot(tmp_path)
    after(bot, asked(conversations("brief", 1)[0]))
    text = bot.file.read_text()
    bot.file.write_text(
        text.replace("      brief:", "      other:").replace("    brief:", "    other:")
    )

    found = rows(bot.invoke("ab", "--json"))

    assert list(found) == [BASE, "other", "brief"]
    assert found["brief"]["turns"] == 1


def test_the_shadow_is_reported_and_shown_side_by_side(tmp_path: Path) -> None:
    bot = a_bot(tmp_path, shadow=True)

    async def answered() -> None:
        async with talking(bot.app()) as talk, bot.app().store() as store:
            await talk.ask(THERE)
            await shadow_of(store, turn_id(asked(THERE)))
            await ShadowKeeper(store, "shorter").count_left_out(3)
            await ShadowKeeper(store, "another").count_left_out(4)

    asyncio.run(answered())

    result = bot.invoke("ab", "--json")
    table = bot.invoke("ab").stdout
    turns = bot.invoke("ab", "--turns").stdout
    (one,) = map(json.loads, bot.invoke("ab", "--turns", "--json").stdout.splitlines())
    explained = bot.invoke("explain", f"{turn_id(asked(THERE))}:shadow").stdout

    brief = rows(result)["brief"]
    assert (brief["turns"], brief["differs"], brief["difference"]) == (1, 1.0, None)
    assert json.loads(result.stdout.splitlines()[-1]) == {"left_out": 3}
    assert "3 turns were left out" in table
    assert f"| reply | {TOLD} | 5 days. |" in turns
    assert "arm shorter/brief" in turns
    assert (one["then"]["arm"], one["now"]["arm"]) == ("shorter/base", "shorter/brief")
    assert "**Reply** 5 days." in explained


def test_turns_that_nobody_shadowed_yet_are_told(tmp_path: Path) -> None:
    bot = a_bot(tmp_path, shadow=True)

    result = bot.invoke("ab", "--turns")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "no turn has an answer in the shadow yet" in result.stderr


def test_turns_are_for_the_shadow_only(tmp_path: Path) -> None:
    result = a_bot(tmp_path).invoke("ab", "--turns")

    assert result.exit_code == 2
    assert "compare with `chorus replay`" in result.stderr


def test_without_an_experiment_there_is_one_sentence(tmp_path: Path) -> None:
    bot = ScriptedBot(file=written(tmp_path, "bot.yaml"))

    result = bot.invoke("ab")

    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "experiment: there is none; docs/experiments.md shows" in result.stderr
