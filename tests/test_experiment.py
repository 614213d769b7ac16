"""Arms of an experiment: who is in which, what they may change, and their figures."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from bot import config_file, explain, hookimpl, metrics
from bot.app import App, _Loaded
from bot.channels import ChannelPlugins
from bot.config import BASE, ExperimentConfig
from bot.conversation.manager import ConversationManager
from bot.conversation.records import ShadowKeeper, kept
from bot.conversation.state import Judged, turn_id
from bot.conversation.store import Store
from bot.errors import ConfigError, StoreError
from bot.evaluation import arms
from bot.evaluation.arms import Tallies, figures, newcombe, wilson
from bot.experiment import (
    ArmObservers,
    Arms,
    Quiet,
    Shadows,
    arm_of,
    quiet,
    read_arms,
)
from bot.inference import InferenceThread
from bot.interfaces import MetricsSink
from bot.model import Address, Candidate, Event, Record, Reply, Turn
from bot.plugin_manager import Plugins
from bot.testing.fakes import HashEmbedder, MemoryConnector, ScriptedLanguageModel
from bot.testing.makers import a_turn, an_address, an_event
from bot.turn import Answerer
from tests.test_turn import an_answerer

EVERYBODY = [an_address(f"c{number}") for number in range(4000)]
TOLD = "A refund takes 5 working days."
QUESTION = "How long does a refund take?"


def an_experiment(*, shadow: bool = False, **shares: float) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "name": "shorter",
            "shadow": shadow,
            "arms": {
                name: {"config": f"{name}.yaml", "share": share}
                for name, share in shares.items()
            },
        }
    )


def a_record(arm: str = "", text: str = "Five days.", **more: Any) -> Record:
    made = Record(
        turn=a_turn(),
        outcome="answered",
        reply=Reply(text=text),
        why="",
        config="c1",
        arm=arm,
        ms={"total": 100.0},
    )
    return replace(made, **more)


# Which arm


def test_a_conversations_arm_follows_from_its_key_and_the_name_alone() -> None:
    keyed = hashlib.blake2b(b"memory:a1:c1", key=b"shorter", digest_size=8).digest()
    place = int.from_bytes(keyed, "big") / 2**64

    below = arm_of(an_experiment(brief=place - 1e-6), an_address("c1"))
    above = arm_of(an_experiment(brief=place + 1e-6), an_address("c1", user="eve"))

    assert (below, above) == (BASE, "brief")


def test_arms_get_their_shares_and_the_base_the_rest() -> None:
    experiment = an_experiment(brief=0.3, long=0.2)

    found = [arm_of(experiment, one) for one in EVERYBODY]

    # Three standard deviations of a share of 4000 are 0.024 at most.
    assert found.count("brief") / 4000 == pytest.approx(0.3, abs=0.024)
    assert found.count("long") / 4000 == pytest.approx(0.2, abs=0.024)
    assert found.count(BASE) / 4000 == pytest.approx(0.5, abs=0.024)


def test_an_arm_added_last_takes_conversations_of_the_base_only() -> None:
    before = an_experiment(brief=0.3)
    after = an_experiment(brief=0.3, long=0.2)

    moved = {
        (arm_of(before, one), arm_of(after, one))
        for one in EVERYBODY
        if arm_of(before, one) != arm_of(after, one)
    }

    assert moved == {(BASE, "long")}


def test_a_larger_share_of_the_last_arm_takes_conversations_of_the_base_only() -> None:
    before = an_experiment(brief=0.3, long=0.1)
    after = an_experiment(brief=0.3, long=0.4)

    moved = {
        (arm_of(before, one), arm_of(after, one))
        for one in EVERYBODY
        if arm_of(before, one) != arm_of(after, one)
    }

    assert moved == {(BASE, "long")}


def test_another_name_splits_anew() -> None:
    first = an_experiment(brief=0.5)
    second = first.model_copy(update={"name": "shorter-2"})

    both = [(arm_of(first, one), arm_of(second, one)) for one in EVERYBODY]

    # Independent halves: a quarter each way.
    assert both.count(("brief", BASE)) / 4000 == pytest.approx(0.25, abs=0.024)


# The configuration


def an_experiment_of(**written: Any) -> None:
    arm = {"config": "b.yaml", "share": 0.5}
    ExperimentConfig.model_validate({"name": "x", "arms": {"b": arm}, **written})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"arms": {}}, "at least 1"),
        ({"arms": {"base": {"config": "b.yaml", "share": 0.5}}}, "another name"),
        ({"arms": {"b": {"config": "b.yaml", "share": 1.0}}}, "add up to 1,"),
        ({"arms": {"b": {"config": "b.yaml", "share": 0}}}, "greater than 0"),
        ({"arms": {"b/c": {"config": "b.yaml", "share": 0.5}}}, "pattern"),
        ({"name": "a/b"}, "pattern"),
        ({"name": "a" * 33}, "pattern"),
        ({"backlog": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_no_experiment_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        an_experiment_of(**wrong)


def test_shares_of_a_tenth_add_up_to_all_in_the_shadow_and_to_no_more() -> None:
    tenth = {"config": "b.yaml", "share": 0.1}
    ten = {f"a{number}": tenth for number in range(10)}

    an_experiment_of(shadow=True, arms=ten)
    with pytest.raises(ValidationError, match="add up to 1,"):
        an_experiment_of(arms=ten)
    with pytest.raises(ValidationError, match=r"add up to 1\.1,"):
        an_experiment_of(shadow=True, arms={**ten, "a10": tenth})


def written(folder: Path, name: str, **more: Any) -> Path:
    """Write a configuration file; sections given replace what stands there."""
    whole = {
        "data": str(folder / "data"),
        "knowledge": {"model": "m", "minimum_relevance": 0.2},
        "generation": {"model": "m", "candidates": 1},
        "plugins": [{"use": "multinomial"}, {"use": "best"}],
        **more,
    }
    path = folder / name
    path.write_text(yaml.safe_dump(whole))
    return path


def the_files(folder: Path, *, shadow: bool = False, **brief: Any) -> Path:
    """Write a bot with an experiment, and its one arm; return the bot's file."""
    written(folder, "brief.yaml", **{"persona": "You are brief.", **brief})
    return written(
        folder,
        "bot.yaml",
        connectors=[{"use": f"{__name__}:Lobby"}],
        experiment={
            "name": "shorter",
            "shadow": shadow,
            "arms": {"brief": {"config": "brief.yaml", "share": 0.5}},
        },
    )


def test_an_arm_has_the_bases_configuration_and_its_own_way_of_answering(
    tmp_path: Path,
) -> None:
    file = the_files(
        tmp_path,
        generation={"model": "m", "candidates": 3},
        knowledge={"model": "m", "passages": 2},
        ranking={"selector": "best"},
    )
    base = config_file.load(file)

    found, problems = read_arms(base, tmp_path)

    assert problems == []
    brief = found["brief"]
    assert (brief.persona, brief.generation.candidates) == ("You are brief.", 3)
    assert brief.knowledge.passages == 2
    assert (brief.data, brief.redis, brief.workers) == (
        base.data,
        base.redis,
        base.workers,
    )
    assert brief.experiment is None
    assert brief.fingerprint != base.fingerprint


def test_an_experiment_does_not_change_the_fingerprint_of_the_base(
    tmp_path: Path,
) -> None:
    base = config_file.load(the_files(tmp_path))

    alone = base.model_copy(update={"experiment": None})

    assert base.fingerprint == alone.fingerprint


def test_everything_that_an_arm_may_not_change_is_told_at_once(tmp_path: Path) -> None:
    file = the_files(
        tmp_path,
        data="elsewhere",
        redis={"url": "redis://elsewhere"},
        generation={"model": "larger", "candidates": 3, "kv_tokens": 9000},
        knowledge={"model": "m", "paths": ["docs"], "minimum_relevance": 0.5},
        connectors=[{"use": "terminal"}],
        conversation={"ttl_days": 3, "window_tokens": 100},
        experiment={"name": "x", "arms": {"a": {"config": "a.yaml", "share": 0.5}}},
    )

    with pytest.raises(ConfigError) as caught:
        App.from_file(file, lambda *_: None)

    brief = tmp_path / "brief.yaml"
    assert sorted(problem.split(": ")[1] for problem in caught.value.problems) == [
        "connectors",
        "conversation.ttl_days",
        "data",
        "experiment",
        "generation.kv_tokens",
        "generation.model",
        "knowledge.paths",
        "redis",
    ]
    assert all(one.startswith(f"{brief}: ") for one in caught.value.problems)


def test_what_an_arm_writes_as_the_base_does_is_no_change(tmp_path: Path) -> None:
    file = the_files(tmp_path, connectors=[{"use": f"{__name__}:Lobby"}])

    app = App.from_file(file, lambda *_: None)

    assert list(app.arms()) == ["brief"]


def test_mistakes_in_all_files_are_told_together(tmp_path: Path) -> None:
    file = the_files(tmp_path, plugins=[{"use": "multinomal"}])
    bot = yaml.safe_load(file.read_text())
    bot["experiment"]["arms"]["lost"] = {"config": "lost.yaml", "share": 0.1}
    file.write_text(yaml.safe_dump({**bot, "persnoa": "x"}))

    with pytest.raises(ConfigError) as caught:
        App.from_file(file, lambda *_: None)

    told = "\n".join(caught.value.problems)
    assert "bot.yaml: persnoa: unknown key" in told
    assert "brief.yaml: plugins[0].use: no plugin 'multinomal'" in told
    assert "lost.yaml: cannot be read" in told


def test_a_variant_is_one_configuration_without_arms(tmp_path: Path) -> None:
    base = App.from_file(the_files(tmp_path), lambda *_: None)

    assert base.variant(base.config).arms() == {}


# Answering for real


@dataclass
class Says:
    """An answerer that says one thing, and keeps what it was asked."""

    text: str = "five"
    arm: str = ""
    turns: list[Turn] = field(default_factory=list)
    fails: Exception | None = None

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        self.turns.append(turn)
        if self.fails is not None:
            raise self.fails
        return a_record(self.arm, self.text, turn=turn)


def in_arm(experiment: ExperimentConfig, arm: str) -> Address:
    """Return a conversation of this arm."""
    return next(one for one in EVERYBODY if arm_of(experiment, one) == arm)


def asking(address: Address, text: str = QUESTION, **more: Any) -> Turn:
    return a_turn(message=an_event(text, address=address), **more)


async def ask(arms: Arms, address: Address) -> Record:
    return await arms.answer(asking(address), threading.Event(), lambda _: None)


async def test_a_conversation_is_answered_by_its_arm_and_the_record_says_so() -> None:
    experiment = an_experiment(brief=0.5)
    answering = Arms(
        experiment=experiment,
        answerers={
            BASE: Says("long", "shorter/base"),
            "brief": Says("short", "shorter/brief"),
        },
    )

    base = await ask(answering, in_arm(experiment, BASE))
    brief = await ask(answering, in_arm(experiment, "brief"))

    assert (base.reply.text, base.arm) == ("long", "shorter/base")
    assert (brief.reply.text, brief.arm) == ("short", "shorter/brief")


async def test_in_the_shadow_the_base_answers_everybody() -> None:
    experiment = an_experiment(shadow=True, brief=0.5)
    answering = Arms(
        experiment=experiment,
        answerers={
            BASE: Says("long", "shorter/base"),
            "brief": Says("short", "shorter/brief"),
        },
    )

    record = await ask(answering, in_arm(experiment, "brief"))

    assert (record.reply.text, record.arm) == ("long", "shorter/base")


def hearing(name: str, heard: list[str]) -> ChannelPlugins:
    """Return plugins that write into `heard` what they are told."""

    def told(event: str) -> Any:
        async def tell(*args: Any, **more: Any) -> None:
            heard.append(f"{name}: {event}")

        return tell

    plugins: Any = type("Heard", (), {})()
    for event in (
        "bot_started",
        "bot_stopped",
        "turn_started",
        "turn_failed",
        "reply_sent",
        "feedback_received",
        "conversation_handed_over",
        "conversation_resumed",
    ):
        setattr(plugins, event, told(event))
    plugins.hear_of_replies = lambda *_: name == "brief"
    return plugins  # type: ignore[no-any-return]  # it does all that plugins do here


async def test_only_the_plugins_of_a_conversations_arm_are_told_of_it() -> None:
    heard: list[str] = []
    experiment = an_experiment(brief=0.5)
    there = in_arm(experiment, "brief")
    observers = ArmObservers(
        experiment=experiment,
        plugins={name: hearing(name, heard) for name in (BASE, "brief")},
    )

    await observers.bot_started()
    await observers.turn_started(asking(there))
    await observers.turn_failed(asking(there), ValueError())
    await observers.reply_sent(asking(there), Reply(text="five"))
    await observers.feedback_received(an_event(address=there), None)
    await observers.conversation_handed_over(asking(there), "why")
    await observers.conversation_resumed(in_arm(experiment, BASE))
    await observers.bot_stopped()

    assert heard == [
        "base: bot_started",
        "brief: bot_started",
        "brief: turn_started",
        "brief: turn_failed",
        "brief: reply_sent",
        "brief: feedback_received",
        "brief: conversation_handed_over",
        "base: conversation_resumed",
        "base: bot_stopped",
        "brief: bot_stopped",
    ]
    assert observers.hear_of_replies(there)
    assert not observers.hear_of_replies(in_arm(experiment, BASE))


# Answering nobody


class Curious:
    """A plugin that wants to know everything, and answers what is shouted."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    name = "curious"

    def __init__(self, settings: Settings) -> None:
        self.heard: list[str] = []

    @hookimpl
    def metrics_sinks(self) -> Sequence[MetricsSink]:
        return [self]

    def turn_over(self, record: Record) -> None:
        self.heard.append("turn over")

    @hookimpl
    async def answer_directly(self, turn: Turn) -> Reply | None:
        return Reply(text="Calm down.") if turn.question.isupper() else None

    @hookimpl
    async def turn_started(self, turn: Turn) -> None:
        self.heard.append("turn started")

    @hookimpl
    async def candidates_ranked(
        self, turn: Turn, candidates: Sequence[Candidate]
    ) -> None:
        self.heard.append("candidates ranked")

    @hookimpl
    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        self.heard.append("turn failed")


def with_curious() -> tuple[Plugins, Curious]:
    from bot import plugin_manager  # noqa: PLC0415 (only here)
    from bot.config import Use  # noqa: PLC0415

    plugins = plugin_manager.load({"test": Use(use=f"{__name__}:Curious")})
    (curious,) = plugins.manager.get_plugins()
    return plugins, curious


async def test_a_quiet_turn_is_answered_in_the_background_and_told_to_nobody() -> None:
    plugins, curious = with_curious()
    model = ScriptedLanguageModel(["Five days.", ValueError("broke"), "Five days."])
    loud = an_answerer(InferenceThread(), model, plugins=plugins)

    answered = await _answer(quiet(loud), a_turn())
    failed = await _answer(quiet(loud), a_turn())
    shouted = await _answer(quiet(loud), a_turn(QUESTION.upper()))

    assert (answered.outcome, failed.outcome) == ("answered", "failed")
    assert (shouted.outcome, shouted.reply.text) == ("direct", "Calm down.")
    assert [request.background for request in model.requests] == [True, True]
    assert curious.heard == []
    await _answer(loud, a_turn())
    assert curious.heard == ["turn started", "candidates ranked", "turn over"]


async def _answer(answerer: Answerer, turn: Turn) -> Record:
    return await answerer.answer(turn, threading.Event(), lambda _: None)


def test_quiet_plugins_are_the_same_but_for_the_sinks() -> None:
    plugins, _ = with_curious()

    muted = Quiet.of(plugins)

    assert muted.metrics_sinks == ()
    assert muted.manager is plugins.manager


@dataclass
class Keeper:
    """Keeps shadows in a list, or fails to."""

    shadows: list[Record] = field(default_factory=list)
    left_out: int = 0
    away: bool = False

    async def keep(self, record: Record) -> bool:
        if self.away:
            raise StoreError("away")
        self.shadows.append(record)
        return True

    async def count_left_out(self, turns: int) -> None:
        if self.away:
            raise StoreError("away")
        self.left_out += turns


IN_SHADOW = an_experiment(shadow=True, brief=0.5)
THERE = in_arm(IN_SHADOW, "brief")


def the_shadows(
    answerer: Any, keeper: Keeper, experiment: ExperimentConfig = IN_SHADOW
) -> Shadows:
    return Shadows(experiment=experiment, answerers={"brief": answerer}, keeper=keeper)


async def test_a_committed_turn_is_answered_again_by_its_arm_and_kept() -> None:
    keeper, says = Keeper(), Says("short", "shorter/brief")

    async with the_shadows(says, keeper) as shadows:
        shadows.after(asking(THERE, id="t1"), a_record())
        shadows.after(asking(in_arm(IN_SHADOW, BASE), id="t2"), a_record())
        await shadows.idle()

    assert [turn.id for turn in says.turns] == ["t1"]
    (kept_record,) = keeper.shadows
    assert (kept_record.reply.text, kept_record.arm) == ("short", "shorter/brief")
    assert keeper.left_out == 0


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("message", "cancelled"), ("message", "handed_over"), ("command", "direct")],
)
async def test_what_no_configuration_decides_has_no_shadow(
    kind: Any, outcome: Any
) -> None:
    keeper, says = Keeper(), Says()
    turn = a_turn(message=an_event(QUESTION, kind, address=THERE))

    async with the_shadows(says, keeper) as shadows:
        shadows.after(turn, a_record(outcome=outcome, turn=turn))
        await shadows.idle()

    assert says.turns == []


class Waits(Says):
    """An answerer that waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.cancelled: threading.Event | None = None

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        self.cancelled = cancelled
        self.begun.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody wakes it")


async def test_turns_over_the_backlog_and_those_left_at_the_end_are_counted() -> None:
    keeper, waits = Keeper(), Waits()
    small = IN_SHADOW.model_copy(update={"backlog": 2})

    async with the_shadows(waits, keeper, small) as shadows:
        shadows.after(asking(THERE), a_record())
        await waits.begun.wait()
        for _ in range(5):
            shadows.after(asking(THERE), a_record())

    # Three found no place, two were waiting, one was being answered.
    assert keeper.left_out == 6
    assert keeper.shadows == []
    assert waits.cancelled is not None
    assert waits.cancelled.is_set()


async def test_a_shadow_that_fails_is_counted_and_the_next_one_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keeper, says = Keeper(), Says(fails=ValueError("a secret word"))

    async with the_shadows(says, keeper) as shadows:
        shadows.after(asking(THERE), a_record())
        await shadows.idle()
        says.fails = None
        shadows.after(asking(THERE), a_record())
        await shadows.idle()

    assert len(keeper.shadows) == 1
    assert keeper.left_out == 1
    assert "secret" not in caplog.text


async def test_a_store_that_is_away_costs_shadows_only() -> None:
    keeper, says = Keeper(away=True), Says()

    async with the_shadows(says, keeper) as shadows:
        shadows.after(asking(THERE), a_record())
        await shadows.idle()
        keeper.away = False
        shadows.after(asking(THERE), a_record())
        await shadows.idle()

    assert len(keeper.shadows) == 1
    assert keeper.left_out == 1


# Figures


def judged(arm: str, chat: int, good: int, bad: int) -> Judged:
    return Judged(
        turn=f"t{chat}",
        digest=f"{arm}{chat}",
        platform="memory",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        good=good,
        bad=bad,
        candidate=0,
        origin="model",
        recorded=True,
        arm=f"shorter/{arm}",
    )


def thumbs(**arms: Sequence[tuple[int, int]]) -> Tallies:
    """Return tallies of conversations, each with its thumbs up and down."""
    tallies = Tallies("shorter")
    for arm, conversations in arms.items():
        for chat, (good, bad) in enumerate(conversations):
            tallies.judge(judged(arm, chat, good, bad))
    return tallies


def test_wilsons_interval_of_eight_of_ten() -> None:
    # centre (0.8 + 3.8415/20) / 1.38415 = 0.71674
    # spread 1.95996 · sqrt(0.016 + 3.8415/400) / 1.38415 = 0.22659
    assert wilson(0.8, 10) == pytest.approx((0.49015, 0.94333), abs=1e-4)


def test_newcombes_interval_of_his_own_example() -> None:
    # Newcombe (1998), Table II (a): 56/70 - 48/80, method 10.
    assert newcombe((56 / 70, 70), (48 / 80, 80)) == pytest.approx(
        (0.0524, 0.3339), abs=5e-5
    )


def test_nobody_judged_is_no_information() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)


@given(st.floats(0, 1), st.integers(1, 10_000), st.floats(0, 1), st.integers(1, 10_000))
def test_intervals_hold_what_was_found_and_stay_within_their_range(
    ours: float, n: int, theirs: float, m: int
) -> None:
    low, high = wilson(ours, n)
    below, above = newcombe((ours, n), (theirs, m))

    assert 0 <= low <= ours + 1e-12
    assert ours - 1e-12 <= high <= 1
    assert -1 <= below <= ours - theirs + 1e-12
    assert ours - theirs - 1e-12 <= above <= 1


def test_a_conversation_counts_once_however_often_it_judged() -> None:
    tallies = thumbs(base=[(1, 0)] * 10, brief=[(50, 0), (0, 1)])

    _, brief = figures([BASE, "brief"], tallies.by_arm)

    assert (brief.up, brief.down, brief.judged) == (50, 1, 2)
    assert brief.share == 0.5  # not 50 of 51
    assert brief.interval == wilson(0.5, 2)


def test_a_clear_difference_is_told_by_its_interval() -> None:
    up, down = [(1, 0)], [(0, 1)]
    tallies = thumbs(base=up * 20 + down * 20, brief=up * 38 + down * 2)

    base, brief = figures([BASE, "brief"], tallies.by_arm)
    (worse,) = figures(
        ["brief"], {"brief": tallies.by_arm[BASE], BASE: tallies.by_arm["brief"]}
    )

    assert base.difference is None
    assert brief.difference is not None
    assert brief.difference.value == pytest.approx(0.45)
    assert brief.difference.interval == newcombe((0.95, 40), (0.5, 40))
    assert brief.difference.word == "better"
    assert worse.difference is not None
    assert worse.difference.word == "worse"


def test_too_few_judged_conversations_say_nothing_even_when_they_agree() -> None:
    tallies = thumbs(base=[(0, 1)] * 50, brief=[(1, 0)] * 9)

    _, brief = figures([BASE, "brief"], tallies.by_arm)

    assert brief.difference is not None
    assert brief.difference.word == "too little to tell"
    assert "9 judged conversations, fewer than 10" in brief.difference.why


def test_an_interval_with_zero_in_it_says_how_many_conversations_would_do() -> None:
    tallies = thumbs(base=[(1, 0)] * 10 + [(0, 1)] * 10, brief=[(1, 0)] * 20)
    same = thumbs(base=[(1, 0)] * 8 + [(0, 1)] * 2, brief=[(1, 0)] * 8 + [(0, 1)] * 2)

    (clear,) = figures(["brief"], tallies.by_arm)
    (unclear,) = figures(["brief"], same.by_arm)

    assert clear.difference is not None
    assert clear.difference.word == "better"
    assert unclear.difference is not None
    assert unclear.difference.word == "too little to tell"
    # (1.96 + 0.8416)² · 2 · 0.8 · 0.2 / 0.01 = 251.2
    assert "10 points, about 252 judged" in unclear.difference.why


def test_an_arm_nobody_judged_has_no_difference() -> None:
    _, brief = figures([BASE, "brief"], thumbs(base=[(1, 0)]).by_arm)

    assert (brief.share, brief.interval, brief.difference) == (None, None, None)
    assert brief.as_json()["difference"] is None


def test_turns_are_counted_by_arm_with_outcomes_and_times() -> None:
    tallies = Tallies("shorter")
    there = asking(an_address("c2"))
    for record in (
        a_record("shorter/brief", outcome="declined", ms={"total": 30.0}),
        a_record("shorter/brief", ms={"total": 10.0}),
        a_record("shorter/brief", turn=there, ms={"total": 20.0}, config="c2"),
        a_record("shorter/brief", turn=there, outcome="failed", ms={}),
        a_record("another/brief"),
        a_record(),
    ):
        tallies.count(record)

    base, brief = figures([BASE, "brief"], tallies.by_arm)

    assert (brief.conversations, brief.turns, brief.ms) == (2, 4, 20.0)
    assert (brief.declined, brief.failed, brief.configurations) == (0.25, 0.25, 2)
    assert (base.turns, base.declined, base.ms) == (0, None, None)


def test_a_shadow_counts_for_its_arm_and_is_compared_with_what_was_said() -> None:
    tallies = Tallies("shorter")
    tallies.count(a_record("shorter/base"), a_record("shorter/brief", "Five  days."))
    tallies.count(a_record("shorter/base"), a_record("shorter/brief", "Six days."))
    tallies.count(a_record("shorter/base"), a_record("another/brief", "Six days."))
    tallies.count(a_record("shorter/base"))

    base, brief = figures([BASE, "brief"], tallies.by_arm, compare=False)

    assert (base.turns, base.differs) == (4, None)
    assert (brief.turns, brief.differs, brief.difference) == (2, 0.5, None)


def test_conversations_needed_grow_towards_an_even_share_and_are_never_few() -> None:
    needed = [arms.conversations_needed(share) for share in (0.0, 0.1, 0.8, 0.5)]

    # At 0.1: (1.96 + 0.8416)² · 2 · 0.09 / 0.01 = 141.3; at 0.5: 392.4.
    assert needed == [142, 142, 252, 393]


# On a real server, with a scripted model


class Lobby:
    """A plugin with a connector that is a test."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        self.service = MemoryConnector()

    @hookimpl
    def connectors(self) -> Sequence[MemoryConnector]:
        return [self.service]


def brief_or_long(turn: Turn) -> str:
    return "5 days." if "You are brief." in turn.prompt else TOLD


def a_model(**more: Any) -> ScriptedLanguageModel:
    return ScriptedLanguageModel(brief_or_long, **more)


def an_app(file: Path, model: ScriptedLanguageModel) -> App:
    loaded = _Loaded(embedder=HashEmbedder(), language_model=model)
    config = config_file.load(file)
    return App.from_config(config, lambda *_: None, str(file), loaded)


def ingest(app: App, folder: Path) -> None:
    document = folder / "refunds.md"
    document.write_text(f"# Refunds\n\n{TOLD}\n")
    app.ingest([document])


@dataclass
class Talk:
    """A running bot, and what customers say to it."""

    manager: ConversationManager
    service: MemoryConnector

    async def ask(self, address: Address, text: str = QUESTION) -> str:
        """Return the reply's text."""
        await self.accept(an_event(text, address=address))
        return (await self.service.next_reply(address.chat)).text

    async def accept(self, *events: Event) -> None:
        for event in events:
            await self.manager.accept(event)


@asynccontextmanager
async def talking(app: App) -> AsyncIterator[Talk]:
    (service,) = app.plugins.connectors
    assert isinstance(service, MemoryConnector)
    async with app.running() as manager:
        yield Talk(manager=manager, service=service)
        await manager.idle()


def judging(turn: str, rating: int, address: Address) -> Event:
    return an_event(
        "",
        "feedback",
        id=f"{turn} {rating}",
        address=address,
        data={"turn": turn, "rating": rating},
    )


async def shadow_of(store: Store, turn: str) -> Record:
    """Return the shadow of a turn, once it is there."""
    async with asyncio.timeout(10):
        # Another task keeps it, which nobody outside the running bot can wait for.
        while (found := await store.record(f"{turn}:shadow")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


REAL = an_experiment(brief=0.5)


@pytest.mark.services
async def test_live_conversations_are_split_and_records_and_thumbs_say_how(
    tmp_path: Path,
) -> None:
    app = an_app(the_files(tmp_path), a_model())
    ingest(app, tmp_path)
    both = [in_arm(REAL, BASE), in_arm(REAL, "brief")]
    turns = [turn_id(an_event(QUESTION, address=one)) for one in both]

    async with talking(app) as talk:
        said = [await talk.ask(one) for one in both]
        for turn, one in zip(turns, both, strict=True):
            await talk.accept(judging(turn, 1, one))

    async with app.store() as store:
        records = {one.record.turn.id: one.record async for one in kept(store)}
        from bot.conversation import judgements  # noqa: PLC0415 (beside the store)

        arms_judged = {one.turn: one.arm for one in await judgements.judged(store)}
    assert said == [TOLD, "5 days."]
    assert [records[one].arm for one in turns] == ["shorter/base", "shorter/brief"]
    assert [arms_judged[one] for one in turns] == ["shorter/base", "shorter/brief"]


@pytest.mark.services
async def test_the_canonical_line_and_explain_name_the_arm_and_no_shadow_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chorus.turn")
    app = an_app(the_files(tmp_path, shadow=True), a_model())
    ingest(app, tmp_path)
    turn = turn_id(an_event(QUESTION, address=THERE))
    counted = metrics.reading(
        "chorus_arm_turns_total", arm="shorter/base", outcome="answered"
    )

    async with talking(app) as talk, app.store() as store:
        await talk.ask(THERE)
        shadow = await shadow_of(store, turn)

    lines = [vars(line) for line in caplog.records if line.name == "chorus.turn"]
    now = metrics.reading(
        "chorus_arm_turns_total", arm="shorter/base", outcome="answered"
    )
    assert [line["arm"] for line in lines] == ["shorter/base"]
    assert now - counted == 1
    assert ", arm shorter/brief" in explain.text(shadow)


@pytest.mark.services
async def test_a_thumb_taken_back_leaves_nothing_of_the_judgement(
    tmp_path: Path,
) -> None:
    app = an_app(the_files(tmp_path), a_model())
    ingest(app, tmp_path)
    there = in_arm(REAL, "brief")
    turn = turn_id(an_event(QUESTION, address=there))

    async with talking(app) as talk:
        await talk.ask(there)
        await talk.accept(judging(turn, 1, there), judging(turn, 0, there))

    async with app.store() as store:
        keys = await store.connection.commands.keys("*judge*")
    assert keys == []


@pytest.mark.services
async def test_a_bot_with_given_connectors_takes_no_part(tmp_path: Path) -> None:
    app = an_app(the_files(tmp_path), a_model())
    ingest(app, tmp_path)
    service = MemoryConnector()

    async with app.running({"memory": service}) as manager:
        await manager.accept(an_event(QUESTION, address=in_arm(REAL, "brief")))
        await manager.idle()

    async with app.store() as store:
        (one,) = [each.record async for each in kept(store)]
    assert (one.arm, one.reply.text) == ("", TOLD)


@pytest.mark.services
async def test_the_shadow_is_computed_and_kept_beside_the_record_and_never_sent(
    tmp_path: Path,
) -> None:
    model = a_model()
    app = an_app(the_files(tmp_path, shadow=True), model)
    ingest(app, tmp_path)
    turn = turn_id(an_event(QUESTION, address=THERE))

    async with talking(app) as talk, app.store() as store:
        before = await talk.ask(THERE, "And how long does a refund take?")
        said = await talk.ask(THERE)
        shadow = await shadow_of(store, turn)
        record = await store.record(turn)
        client: Any = store.connection.commands
        lives = [
            await client.pttl(f"chorus:{{s0}}:record:{name}")
            for name in (turn, f"{turn}:shadow")
        ]
        await talk.manager.idle()
        sent = talk.service.replies(THERE.chat)
        state = await store.load(THERE)

    assert record is not None
    assert (said, record.arm) == (TOLD, "shorter/base")
    assert (shadow.reply.text, shadow.arm) == ("5 days.", "shorter/brief")
    assert shadow.turn.seed == record.turn.seed
    asked = [len(request.turn.history) for request in model.requests]
    assert sorted(asked) == [0, 0, 2, 2]  # as the base, but it is not kept twice
    assert not shadow.turn.history
    assert sent == [before, said]
    assert [event.kind for event in state.history] == ["message", "reply"] * 2
    in_background = [request.background for request in model.requests]
    assert sorted(in_background) == [False, False, True, True]
    assert 0 < lives[1] <= lives[0] + 1000


@pytest.mark.services
@pytest.mark.parametrize("by", ["the operator", "the customer"])
async def test_who_is_forgotten_is_forgotten_in_the_shadow_too(
    tmp_path: Path, by: str
) -> None:
    app = an_app(the_files(tmp_path, shadow=True), a_model())
    ingest(app, tmp_path)
    there = replace(THERE, user="ada")
    turn = turn_id(an_event(QUESTION, address=there))

    async with talking(app) as talk, app.store() as store:
        await talk.ask(there)
        shadow = await shadow_of(store, turn)
        if by == "the operator":
            await talk.manager.idle()
            await store.forget("ada")
        else:
            await talk.accept(an_event("forget", "command", address=there))
            await talk.manager.idle()
        late = await ShadowKeeper(store, "shorter").keep(shadow)
        keys = await store.connection.commands.keys("*record*")

    assert keys == []
    assert not late


@pytest.mark.services
async def test_a_shadow_goes_when_its_turn_is_one_too_many(tmp_path: Path) -> None:
    file = the_files(tmp_path, shadow=True)
    config = config_file.load(file)
    few = config.conversation.model_copy(update={"max_events": 10})
    loaded = _Loaded(embedder=HashEmbedder(), language_model=a_model())
    app = App.from_config(
        config.model_copy(update={"conversation": few}),
        lambda *_: None,
        str(file),
        loaded,
    )
    ingest(app, tmp_path)

    async with talking(app) as talk, app.store() as store:
        for number in range(11):
            event = an_event(f"{QUESTION} {number}", address=THERE)
            await talk.ask(THERE, event.text)
            await shadow_of(store, turn_id(event))
        client: Any = store.connection.commands
        keys = await client.keys("*record*")

    first = turn_id(an_event(f"{QUESTION} 0", address=THERE))
    assert len(keys) == 20  # ten turns and their shadows
    assert not any(first in key.decode() for key in keys)
