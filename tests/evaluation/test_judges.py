"""A bot's ranking by itself, on replies that it did not write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bot.evaluation.judges import AppTools, Judge, knowledge
from bot.interfaces import Tools
from bot.model import Candidate, Turn
from bot.testing import ScriptedLanguageModel, a_turn
from tests.evaluation.bots import a_bot

KNOWN = "A refund takes five working days."
TURN = a_turn("How long does a refund take?", passages=[KNOWN])


async def test_scores_come_back_in_the_order_in_which_replies_were_given(
    tmp_path: Path,
) -> None:
    judge = Judge.of("bot", a_bot(tmp_path), AppTools)

    judged = await judge.judge(TURN, ["Nobody knows.", "Five working days."])

    assert judge.scorers == ["groundedness", "consensus"]
    wrong, right = judged.scores["groundedness"]
    assert right > wrong
    assert judged.order == [1, 0]
    assert judged.picked == 1


async def test_equal_replies_keep_their_places(tmp_path: Path) -> None:
    judge = Judge.of("bot", a_bot(tmp_path), AppTools)

    judged = await judge.judge(TURN, ["Five days."] * 3)

    assert judged.order == [0, 1, 2]
    assert judged.picked == 0


async def test_the_record_shows_the_set_in_the_order_of_the_ranking(
    tmp_path: Path,
) -> None:
    judge = Judge.of("bot", a_bot(tmp_path), AppTools)

    record = judge.record(await judge.judge(TURN, ["Who?", "Five working days."]))

    assert record.reply.text == "Five working days."
    assert [one.text for one in record.candidates] == ["Five working days.", "Who?"]
    assert record.chosen == 0
    assert record.config == judge.fingerprint


async def test_filters_and_writers_are_left_out(tmp_path: Path) -> None:
    app = a_bot(tmp_path, ["multinomial", "quotation", "empty", "groundedness", "best"])

    judged = await Judge.of("bot", app, AppTools).judge(TURN, ["", "Five days."])

    assert len(judged.order) == 2
    assert all(one.dropped is None for one in judged.ranked.candidates)


async def test_a_scorer_that_fails_is_of_no_opinion_and_named(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def score(
            self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
        ) -> list[float]:
            raise RuntimeError("no")

    judge = Judge.of("bot", a_bot(tmp_path), AppTools)
    judge = replace(judge, ranking=replace(judge.ranking, scorers=(Broken(),)))

    judged = await judge.judge(TURN, ["one", "two"])

    assert judged.scores["broken"].tolist() == [0.0, 0.0]
    assert "broken" in judge.record(judged).problems[0]


async def test_scorers_that_read_with_the_model_read_on_from_the_prompt(
    tmp_path: Path,
) -> None:
    model = ScriptedLanguageModel([])
    app = a_bot(tmp_path, ["multinomial", "likelihood", "best"], model=model)

    judged = await Judge.of("bot", app, AppTools).judge(TURN, ["five days", "the moon"])

    prompts = {prompt for prompt, _ in model.scored}
    assert len(prompts) == 1
    assert all(KNOWN in prompt and TURN.question in prompt for prompt in prompts)
    assert judged.picked == 0


async def test_no_text_is_embedded_twice_in_a_suite(tmp_path: Path) -> None:
    app = a_bot(tmp_path)
    embedded: list[str] = []
    hash_ = app.embedder().embed

    class Counting:
        name, dimension, languages = "counting", 512, frozenset({"en"})

        def embed(self, texts: Sequence[str]) -> object:
            embedded.extend(texts)
            return hash_(texts)

    app._loaded.embedder = Counting()  # type: ignore[assignment]  # a vector is a vector
    judge = Judge.of("bot", app, AppTools)

    for _ in range(2):
        await judge.judge(TURN, ["five days", "five days", "who"])

    assert len(embedded) == len(set(embedded))


@pytest.mark.parametrize("text", ["", "知识"])
def test_what_is_known_is_one_passage(text: str) -> None:
    (passage,) = knowledge(text)

    assert passage.text == text
