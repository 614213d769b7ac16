"""replay, on a real server: stored turns under another configuration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bot.conversation.records import before
from bot.conversation.state import EVENTS, turn_id
from bot.evaluation.replay import Compared, Stored, repeated, summary
from bot.experiment import is_comparable
from bot.inference import InferenceThread
from bot.model import Event, Record, Reply
from bot.testing.fakes import ScriptedLanguageModel
from bot.testing.makers import a_passage, a_turn, an_address, an_event
from tests.cli.bots import ScriptedBot
from tests.test_experiment import (
    QUESTION,
    TOLD,
    ingest,
    talking,
    with_curious,
    written,
)
from tests.test_turn import RELEVANT, an_answerer

ADA = an_address("c1", user="ada")


def a_record(text: str = "Five days.", **more: Any) -> Record:
    made = Record(
        turn=a_turn(),
        outcome="answered",
        reply=Reply(text=text),
        why="best total",
        config="c1",
        ms={"total": 100.0},
    )
    return replace(made, **more)


# The turn, answered again


async def test_a_turn_is_answered_as_it_began_then() -> None:
    model = ScriptedLanguageModel(["Six days."])
    answerer = an_answerer(InferenceThread(), model)
    then = a_record(
        turn=a_turn(seed=7, slots={"order": "9"}, passages=["Gone."], prompt="old")
    )
    history = [an_event(f"{number}") for number in range(20)]

    compared = await repeated(answerer, Stored(record=then, history=history))

    (request,) = model.requests
    assert request.turn.seed == 7
    assert request.turn.slots == {"order": "9"}
    assert request.turn.history == history[-40:]  # conversation.window_events
    assert request.turn.passages == (RELEVANT,)  # searched anew
    assert request.turn.prompt == "asked: How long does a refund take?"
    assert request.background
    assert (compared.now.reply.text, compared.same) == ("Six days.", False)


async def test_the_same_passages_are_given_back_where_there_were_some() -> None:
    model = ScriptedLanguageModel(["Six days.", "Six days."])
    answerer = an_answerer(InferenceThread(), model)
    given = a_passage("Refunds take six days.", scores={"relevance": 0.9})
    searched = a_record(turn=a_turn(passages=[given]))
    direct = a_record(outcome="direct")

    for then in (searched, direct):
        stored = Stored(record=then, history=[])
        await repeated(answerer, stored, same_passages=True)

    found = [request.turn.passages for request in model.requests]
    assert found == [(given,), (RELEVANT,)]


async def test_no_plugin_is_told_of_a_replay() -> None:
    plugins, curious = with_curious()
    model = ScriptedLanguageModel(["Six days."])
    answerer = an_answerer(InferenceThread(), model, plugins=plugins)

    await repeated(answerer, Stored(record=a_record(), history=[]))

    assert curious.heard == []


@pytest.mark.parametrize(
    ("kind", "outcome", "may"),
    [
        ("message", "answered", True),
        ("message", "declined", True),
        ("message", "failed", True),
        ("message", "direct", True),
        ("message", "cancelled", False),
        ("message", "handed_over", False),
        ("command", "direct", False),
    ],
)
def test_only_what_a_configuration_decides_is_repeated(
    kind: Any, outcome: Any, may: bool
) -> None:
    record = a_record(turn=a_turn(message=an_event(kind=kind)), outcome=outcome)

    assert is_comparable(record) is may


def test_replies_are_the_same_whatever_their_white_space() -> None:
    def same(one: str, other: str) -> bool:
        return Compared(then=a_record(one), now=a_record(other)).same

    assert same("Five\ndays. ", "Five days.")
    assert not same("Five days.", "five days.")
    assert not same("五天", "六天")
    assert same("", "")


def test_a_summary_counts_both_sides() -> None:
    pairs = [
        Compared(then=a_record("a"), now=a_record("a", ms={"total": 50.0})),
        Compared(
            then=a_record("b", outcome="declined"),
            now=a_record("c", outcome="failed", ms={"total": 150.0}),
        ),
    ]

    told = summary(pairs)

    assert (told.n, told.same, told.different) == (2, 1, 1)
    assert (told.declined_then, told.declined_now) == (1, 0)
    assert (told.failed_then, told.failed_now) == (0, 1)
    assert (told.ms_then, told.ms_now) == (100.0, 100.0)


def test_no_comparison_has_a_summary_without_nan() -> None:
    told = summary([])

    assert (told.n, told.ms_then, told.ms_now) == (0, 0.0, 0.0)


# The command


@dataclass(kw_only=True)
class Files(ScriptedBot):
    """A bot's file and another one, and the model behind both."""

    brief: Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    lobby = [{"use": "tests.test_experiment:Lobby"}]
    made = Files(
        file=written(tmp_path, "bot.yaml", connectors=lobby),
        brief=written(tmp_path, "brief.yaml", persona="You are brief."),
    )
    ingest(made.app(), tmp_path)
    return made


def asked(files: Files, *events: Event) -> list[str]:
    """Have the events answered; return their turns."""

    async def answered() -> None:
        async with talking(files.app()) as talk:
            await talk.accept(*events)
            await talk.manager.idle()

    asyncio.run(answered())
    files.model.requests.clear()
    return [turn_id(event) for event in events]


def keys_of(files: Files) -> dict[str, Any]:
    """Return everything in the store, as Redis dumps it."""

    async def read() -> dict[str, Any]:
        async with files.app().store() as store:
            client: Any = store.connection.commands
            keys = sorted(await client.keys("*"))
            return {key: await client.dump(key) for key in keys}

    return asyncio.run(read())


@pytest.mark.services
def test_a_turn_is_shown_side_by_side(files: Files) -> None:
    (turn,) = asked(files, an_event(QUESTION, address=ADA))

    result = files.invoke("replay", turn, "--config", str(files.brief))

    assert result.exit_code == 0
    assert f"{turn}: different" in result.stdout
    assert f"**Question** {QUESTION}" in result.stdout
    assert f"| reply | {TOLD} | 5 days. |" in result.stdout
    assert "| outcome | answered | answered |" in result.stdout
    assert "1 turn: 0 the same, 1 different" in result.stdout


@pytest.mark.services
def test_json_has_both_sides_of_each_turn_and_a_summary(files: Files) -> None:
    (turn,) = asked(files, an_event(QUESTION, address=ADA))

    result = files.invoke("replay", turn, "--config", str(files.brief), "--json")

    one, last = map(json.loads, result.stdout.splitlines())
    assert (one["turn"], one["question"], one["same"]) == (turn, QUESTION, False)
    assert one["history"] is True
    assert (one["then"]["reply"], one["now"]["reply"]) == (TOLD, "5 days.")
    assert one["then"]["config"] != one["now"]["config"]
    assert one["now"]["problems"] == []
    assert last["summary"]["different"] == 1
    assert last["summary"]["older"] == 0


@pytest.mark.services
def test_under_its_own_configuration_a_turn_comes_to_the_same(files: Files) -> None:
    turns = asked(
        files, an_event("hello", address=ADA), an_event(QUESTION, address=ADA)
    )

    result = files.invoke("replay", turns[1])

    (request,) = files.model.requests
    assert "1 turn: 1 the same, 0 different" in result.stdout
    assert [event.text for event in request.turn.history] == [
        "hello",
        files.app().config.replies.fallback,
    ]


@pytest.mark.services
def test_a_replay_changes_nothing_that_is_stored(files: Files) -> None:
    turns = asked(files, an_event(QUESTION, address=ADA))
    before = keys_of(files)

    files.invoke("replay", turns[0], "--config", str(files.brief))
    files.invoke("replay", "--since", "1d", "--config", str(files.brief))

    assert keys_of(files) == before


@pytest.mark.services
def test_since_takes_the_latest_turns_and_says_what_it_left_out(files: Files) -> None:
    now = datetime.now(UTC)
    asked(
        files,
        *(
            an_event(
                f"{QUESTION} {hours}",
                address=an_address(f"c{hours}"),
                time=now - timedelta(hours=hours),
            )
            for hours in (1, 2, 3, 30)
        ),
        an_event("help", "command", address=ADA, time=now),
    )
    since = ("replay", "--config", str(files.brief), "--json", "--since")

    within = files.invoke(*since, "4h", "--limit", "2").stdout.splitlines()
    days = files.invoke(*since, f"{now - timedelta(days=3):%Y-%m-%d}").stdout
    none = files.invoke(*since, "0m")

    *turns, last = map(json.loads, within)
    assert [turn["question"][-1] for turn in turns] == ["2", "1"]  # the oldest first
    assert last["summary"]["older"] == 1
    assert len(days.splitlines()) == 5
    assert (none.exit_code, none.stdout) == (0, "")
    assert "no turn that could be answered again" in none.stderr


@pytest.mark.services
def test_a_turn_nobody_has_is_for_the_operator(files: Files) -> None:
    (turn,) = asked(files, an_event(QUESTION, address=ADA))
    unknown = files.invoke("replay", "0" * 16, "--config", str(files.brief))
    asyncio.run(_forget(files, "ada"))

    forgotten = files.invoke("replay", turn, "--config", str(files.brief))

    for result in (unknown, forgotten):
        assert (result.exit_code, result.stdout) == (2, "")
        assert "its person was forgotten" in result.stderr
        assert len(result.stderr.splitlines()) == 1


async def _forget(files: Files, person: str) -> None:
    async with files.app().store() as store:
        await store.forget(person)


@pytest.mark.services
def test_what_no_configuration_decides_is_for_the_operator(files: Files) -> None:
    (turn,) = asked(files, an_event("human", "command", address=ADA))

    result = files.invoke("replay", turn)

    assert result.exit_code == 2
    assert "it is a command, not a message" in result.stderr


@pytest.mark.services
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name a TURN, or say --since"),
        (("t1", "--since", "2h"), "not both"),
        (("--since", "2w"), "write 2h, 7d or 2026-11-29"),
        (("--since", "2026-13-01"), "write 2026-11-29"),
        (("--since", "2h", "--config", "none.yaml"), "none.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_for_the_operator(
    files: Files, arguments: Sequence[str], told: str
) -> None:
    result = files.invoke("replay", *arguments)

    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.services
def test_a_history_that_is_gone_is_told(files: Files) -> None:
    (turn,) = asked(files, an_event(QUESTION, address=ADA))
    asyncio.run(_lose_the_log(files))

    result = files.invoke("replay", turn)

    assert result.exit_code == 0
    assert "Its history is not in the log any more." in result.stdout


async def _lose_the_log(files: Files) -> None:
    async with files.app().store() as store:
        client: Any = store.connection.commands
        await client.delete("chorus:{s0}:c:memory:a1:c1:log")


@pytest.mark.services
def test_the_history_of_a_message_tried_again_is_from_before_its_last_try(
    files: Files,
) -> None:
    first, again, last = (
        an_event(QUESTION, address=ADA),
        an_event(QUESTION, address=ADA),
        an_event("thanks", address=ADA),
    )
    reply = an_event(TOLD, "reply", id="r2", address=ADA, data={"turn": "t2"})
    apology = an_event("Sorry", "reply", id="r1", address=ADA, data={"turn": "t1"})

    async def log_then_read() -> list[str]:
        async with files.app().store() as store:
            client: Any = store.connection.commands
            for event in (first, apology, again, reply, last):
                await client.rpush(
                    "chorus:{s0}:c:memory:a1:c1:log", EVENTS.write(event)
                )
            turn = a_turn(id="t2", message=again)
            found = await before(store, a_record(turn=turn))
        assert found is not None
        return [event.text for event in found]

    assert asyncio.run(log_then_read()) == [QUESTION, "Sorry"]


@pytest.mark.services
def test_a_bot_that_runs_meanwhile_is_not_disturbed(files: Files) -> None:
    """The embedded server is then another one's, as for `chorus explain`."""

    async def both() -> tuple[Result, str]:
        async with talking(files.app()) as talk:
            await talk.ask(ADA)
            turn = turn_id(an_event(QUESTION, address=ADA))
            await talk.manager.idle()
            result = await asyncio.to_thread(
                files.invoke, "replay", turn, "--config", str(files.brief)
            )
            return result, await talk.ask(ADA, f"{QUESTION} please")

    result, said = asyncio.run(both())

    assert result.exit_code == 0
    assert "1 different" in result.stdout
    assert said == TOLD
