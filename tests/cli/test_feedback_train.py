"""`chorus feedback train`, on a real server: from thumbs to the scorer's file."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bot.app import App
from bot.channels import ChannelPlugins
from bot.cli import chorus
from bot.cli.feedback import without_scorer
from bot.config import Config
from bot.conversation.manager import ConversationManager
from bot.conversation.state import turn_id
from bot.model import Candidate, Record, Reply, Turn
from bot.plugin_manager import Plugins
from bot.testing.fakes import FixedClock, HashEmbedder, MemoryConnector
from bot.testing.makers import an_address, an_event
from tests.cli.test_operations_commands import Nobody

SETTINGS: dict[str, Any] = {
    "knowledge": {"model": "m", "embedder": "hash"},
    "generation": {"model": "m"},
}
TURNS = 8


class Choosing:
    """An answerer that is well grounded where the question begins with `good`."""

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        grounded = 1.0 if turn.question.startswith("good") else 0.0
        rejected = Candidate(text="never sent", scores={"grounded": -1.0})
        sent = Candidate(
            text=f"about {turn.question}", scores={"grounded": grounded, "length": 1.0}
        )
        return Record(
            turn=turn,
            outcome="answered",
            reply=Reply(text=sent.text),
            why="",
            config="",
            candidates=(rejected, sent),
            chosen=1,
        )


@pytest.fixture
def app(tmp_path: Path) -> App:
    config = Config.model_validate({"data": tmp_path / "data", **SETTINGS})
    plugins = Plugins(embedders=[HashEmbedder(64)])
    return App(config, ChannelPlugins(everywhere=plugins), lambda *_: None)


def judge(app: App, ratings: dict[str, int]) -> None:
    """Have each question answered and the reply judged."""

    async def judged() -> None:
        async with (
            app.store() as store,
            ConversationManager(
                store=store,
                answerer=Choosing(),
                connectors={"memory": MemoryConnector()},
                observers=Nobody(),
                config=app.config,
                explain=str,
                clock=FixedClock(),
                seeds=lambda: 1,
            ) as manager,
        ):
            for question, rating in ratings.items():
                asked = an_event(question, address=an_address(question))
                await manager.accept(asked)
                await manager.idle()
                thumb = {"turn": turn_id(asked), "rating": rating}
                await manager.accept(
                    an_event(
                        question,
                        "feedback",
                        address=an_address(question, user="ada"),
                        data=thumb,
                    )
                )
            await manager.idle()

    asyncio.run(judged())


def invoke(app: App, *arguments: str | Path | int) -> Result:
    def opening(*_: object) -> App:
        return app

    return CliRunner().invoke(chorus, list(map(str, arguments)), obj=opening)


@pytest.mark.services
def test_what_customers_liked_is_learned_and_told(app: App, tmp_path: Path) -> None:
    liked = {f"good {n}": 1 for n in range(TURNS)}
    disliked = {f"bad {n}": -1 for n in range(TURNS)}
    judge(app, {**liked, **disliked, "good, but nobody minds": 0})
    out = tmp_path / "learned.json"

    told = invoke(app, "feedback", "train", "--minimum", TURNS, "--out", out)
    printed = invoke(
        app, "feedback", "--json", "train", "--minimum", TURNS, "--out", out
    )

    learned, as_json = json.loads(out.read_text()), json.loads(printed.stdout)
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines()[0] == "learned from 8 good and 8 bad replies"
    assert "AUC 1.00" in told.stdout
    assert "enable the plugin 'feedback'" in told.stderr
    assert (learned["names"], learned["trained_on"]) == (["grounded", "length"], 16)
    assert learned["weights"] == [pytest.approx(1.78, abs=0.01), pytest.approx(0)]
    assert len(learned["embedding"]) == 64
    assert (as_json["good"], as_json["bad"], as_json["useful"]) == (8, 8, True)
    assert list(as_json["weights"]) == ["grounded", "length", "embedding"]
    assert [one.name for one in tmp_path.iterdir()].count("learned.json.new") == 0


@pytest.mark.services
def test_thumbs_are_counted_by_who_wrote_the_reply(app: App, tmp_path: Path) -> None:
    judge(app, {"good": 1, "better": 1, "bad": -1})
    out = tmp_path / "thumbs.json"

    result = invoke(app, "feedback", "count", "--out", out)

    assert result.exit_code == 0
    (counts,) = json.loads(out.read_text())["arms"].values()
    assert counts == {"up": 2, "down": 1}
    for before, after in ((["--json"], []), ([], ["--json"])):
        told = invoke(app, "feedback", *before, "count", "--out", out, *after)
        assert json.loads(told.stdout)["arms"] == json.loads(out.read_text())["arms"]


def test_thumbs_that_say_nothing_are_told_to_be_no_better_than_chance(
    app: App, tmp_path: Path
) -> None:
    judge(app, {f"good {n:02}": 1 if n % 2 else -1 for n in range(2 * TURNS)})

    told = invoke(
        app, "feedback", "train", "--minimum", TURNS, "--out", tmp_path / "f.json"
    )

    assert told.exit_code == 0, told.output
    assert "no better than chance; leave the plugin 'feedback' off" in told.stderr


@pytest.mark.services
def test_too_few_thumbs_are_refused_and_nothing_is_written(
    app: App, tmp_path: Path
) -> None:
    judge(app, {"good": 1, "bad": -1})
    out = tmp_path / "learned.json"

    refused = invoke(app, "feedback", "train", "--out", out)
    nobody_lately = invoke(app, "feedback", "--since", "0m", "train", "--out", out)

    assert refused.exit_code == 2
    assert "1 good and 1 bad replies are too few" in refused.stderr
    assert "wait for 20 of each kind" in refused.stderr
    assert "0 good and 0 bad" in nobody_lately.stderr
    assert not out.exists()


@pytest.mark.services
def test_a_file_that_cannot_be_written_is_for_the_operator(
    app: App, tmp_path: Path
) -> None:
    judge(app, {f"good {n}": 1 if n % 2 else -1 for n in range(4)})

    result = invoke(
        app, "feedback", "train", "--minimum", 2, "--out", tmp_path / "no" / "f.json"
    )

    assert result.exit_code == 2
    assert "cannot be written (No such file or directory)" in result.stderr


def test_the_file_that_is_named_before_train_counts_for_it(
    app: App, tmp_path: Path
) -> None:
    opened: list[Path] = []

    def opening(path: Path, *_: object) -> App:
        opened.append(path)
        raise KeyboardInterrupt

    for arguments in (
        ["feedback", "--config", "before.yaml", "train"],
        ["feedback", "--config", "before.yaml", "train", "--config", "after.yaml"],
        ["--config", "first.yaml", "feedback", "train"],
    ):
        CliRunner().invoke(chorus, arguments, obj=opening)

    assert [path.name for path in opened] == ["before.yaml", "after.yaml", "first.yaml"]


def test_the_scorer_is_left_out_while_it_has_nothing_to_read() -> None:
    uses = [{"use": "relevance"}, {"use": "feedback"}]
    ranking = {"weights": {"relevance": 2, "feedback": 0.5}}
    matching = {"match": {"platform": "slack"}}
    config = Config.model_validate(
        {
            **SETTINGS,
            "plugins": uses,
            "ranking": ranking,
            "channels": [
                {**matching, "plugins": uses, "ranking": ranking},
                matching,
            ],
        }
    )

    without = without_scorer(config)

    narrow, plain = without.channels
    assert [use.use for use in without.plugins] == ["relevance"]
    assert without.ranking.weights == {"relevance": 2}
    assert narrow.plugins is not None
    assert [use.use for use in narrow.plugins] == ["relevance"]
    assert narrow.ranking is not None
    assert narrow.ranking.weights == {"relevance": 2}
    assert (plain.plugins, plain.ranking) == (None, None)
