"""Ways of answering the same questions, through the real turn, a scripted model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from bot import plugin_manager
from bot.app import App
from bot.config import Config, GenerationConfig, KnowledgeConfig, Use
from bot.evaluation.answers import Way, answer_rows, answered, tuned_rows, ways
from bot.evaluation.questions import Question
from bot.evaluation.report import Row
from bot.evaluation.suites import How, QuestionFile, diversity, qa
from bot.inference import InferenceThread
from bot.model import Passage, Turn
from bot.ranking import Ranking
from bot.testing import HashEmbedder, ScriptedLanguageModel, a_passage
from bot.turn import Answerer, Pipeline

REFUND = Question(id="refund", question="How long?", answers=("five days",))
COLOUR = Question(id="colour", question="Which colour?", answers=("green",))
MOON = Question(id="moon", question="A shop on the moon?")


class Retrieving:
    """Finds something relevant for every question but the one about the moon."""

    name = "fixed"

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        relevance = 0.0 if turn.id == MOON.id else 1.0
        text = "It takes five days. The bike is green."
        return [a_passage(text, scores={"relevance": relevance})]


class Plain:
    """A prompt that is the question."""

    def render(self, turn: Turn, parts: Sequence[str], instruction: str = "") -> Turn:
        return replace(turn, prompt=turn.question)


USES = ("multinomial", "quotation", "empty", "groundedness", "mmr", "best")


def an_answerer(model: ScriptedLanguageModel, uses: Sequence[str] = USES) -> Answerer:
    plugins = plugin_manager.load({name: Use(use=name) for name in uses})
    inference = InferenceThread()
    ranking = Ranking(
        inference=inference,
        writers=plugins.writers,
        filters=plugins.candidate_filters,
        scorers=plugins.scorers,
        weights={},
        rerankers=plugins.rerankers,
        selector=plugins.selectors[0],
        plugin_timeout_s=5,
    )
    pipeline = Pipeline(
        plugins=plugins,
        retrievers=(Retrieving(),),
        prompt_parts=(),
        prompter=Plain(),
        sampler=plugins.samplers[0],
        logits_processors=(),
        ranking=ranking,
    )
    return Answerer(
        config=a_config(),
        pipeline=lambda address: pipeline,
        model=model,
        embedder=HashEmbedder(),
        inference=inference,
    )


def a_config() -> Config:
    return Config(
        knowledge=KnowledgeConfig(model="e"), generation=GenerationConfig(model="g")
    )


def quiet(step: str, done: int, total: int | None) -> None:
    """Progress that nobody looks at."""


def as_is(answerer: Answerer, *, blocks: bool = False) -> list[Way]:
    """The ways of one bot."""
    return ways([("chorus", answerer)], blocks=blocks)


async def rows_of(every_way: Sequence[Way], questions: Sequence[Question]) -> list[Row]:
    return answer_rows(await answered(every_way, questions, quiet))


def by_name(rows: Sequence[Row]) -> dict[str, Row]:
    return {row.config: row for row in rows}


async def test_every_way_answers_the_same_questions_and_is_compared_to_greedy() -> None:
    model = ScriptedLanguageModel(lambda turn: "It is green.")

    rows = await rows_of(as_is(an_answerer(model)), [REFUND, COLOUR, MOON])

    found = by_name(rows)
    assert list(found) == ["greedy", "one sample", "quotation", "chorus"]
    assert found["greedy"].metrics["contained"] == 0.5
    assert "contained - greedy" not in found["greedy"].metrics
    assert found["one sample"].metrics["contained - greedy"] == 0.0
    assert [row.metrics["declined"] for row in rows] == [1.0] * 4
    assert [row.metrics["wrongly declined"] for row in rows] == [0.0] * 4
    assert [row.n for row in rows] == [3] * 4


async def test_greedy_and_one_sample_write_one_candidate_and_chorus_all() -> None:
    model = ScriptedLanguageModel(lambda turn: "It is green.")

    await rows_of(as_is(an_answerer(model)), [COLOUR])

    greedy, sample, chorus = model.requests
    assert [one.candidates for one in model.requests] == [1, 1, 8]
    assert getattr(greedy.sampler, "greedy", False)
    assert not getattr(sample.sampler, "greedy", False)
    assert greedy.turn.seed == sample.turn.seed == chorus.turn.seed


async def test_the_quotation_is_the_documents_word_without_the_model() -> None:
    model = ScriptedLanguageModel([])
    (quotation,) = [way for way in as_is(an_answerer(model)) if way.name == "quotation"]

    greedy = replace(quotation, name="greedy")
    (row,) = await rows_of(
        [greedy], [REFUND.model_copy(update={"question": "It takes how long?"})]
    )

    assert row.metrics["contained"] == 1.0
    assert model.requests == []


async def test_replies_in_blocks_are_compared_and_timed_to_what_is_read_first() -> None:
    model = ScriptedLanguageModel(lambda turn: "It is green. It is a bike.")
    without_quotations = [name for name in USES if name != "quotation"]
    every_way = as_is(an_answerer(model, without_quotations), blocks=True)

    rows = await rows_of(every_way, [COLOUR, MOON])

    found = by_name(rows)
    blocks = found["chorus, in blocks"].metrics
    assert blocks["contained"] == 1.0
    assert blocks["first ms p50"] <= blocks["first ms p90"]
    assert blocks["first ms p50"] < blocks["whole ms p50"]
    whole = found["chorus"].metrics
    assert whole["first ms p50"] == whole["whole ms p50"]
    assert set(found["chorus"].intervals) == set(whole)


async def test_only_the_bot_in_blocks_writes_in_blocks() -> None:
    model = ScriptedLanguageModel(lambda turn: "Green. A bike.")

    await rows_of(as_is(an_answerer(model), blocks=True), [COLOUR])

    assert [bool(one.until) for one in model.requests[:4]] == [False] * 3 + [True]


async def test_failed_turns_are_shown_in_the_row() -> None:
    model = ScriptedLanguageModel(lambda turn: RuntimeError("no memory"))

    rows = by_name(await rows_of(as_is(an_answerer(model)), [COLOUR]))

    assert rows["greedy"].metrics["failed"] == 1.0
    assert "failed" not in rows["quotation"].metrics


async def test_progress_counts_the_answers() -> None:
    told: list[tuple[str, int, int | None]] = []
    model = ScriptedLanguageModel(lambda turn: "It is green.")

    await answered(
        as_is(an_answerer(model)),
        [COLOUR, REFUND],
        lambda *step: told.append(step),
        at_once=3,
    )

    assert told == [("Answering", done, 8) for done in range(9)]


async def test_a_set_says_what_its_best_pick_would_be_worth_and_how_it_differs() -> (
    None
):
    texts = ["It is green.", "It is a bike.", "No idea.", "Perhaps it is red."]
    model = ScriptedLanguageModel(lambda turn: texts)
    without_quotations = [name for name in USES if name != "quotation"]

    details = await answered(
        as_is(an_answerer(model, without_quotations)), [COLOUR], quiet
    )

    chorus = details[-1]
    assert chorus.config == "chorus"
    assert [one for one in chorus.worth if one] == [1.0, 1.0]
    assert chorus.metrics["any"] == 1.0
    assert chorus.metrics["random"] == 0.25
    assert chorus.metrics["clusters"] < 8
    assert "clusters" not in details[0].metrics
    picked = chorus.record.candidates[chorus.record.chosen or 0]
    assert chorus.metrics["groundedness"] == picked.scores["groundedness"]
    assert "groundedness" not in details[0].metrics
    (*_, row) = answer_rows(details)
    assert row.metrics["gap"] == pytest.approx(
        (row.metrics["contained"] - 0.25) / (1 - 0.25)
    )


async def test_weights_are_tuned_on_some_questions_and_reported_on_the_others() -> None:
    def reply(turn: Turn) -> list[str]:
        right = (
            "The bike is green." if turn.id.startswith("c") else "It takes five days."
        )
        return ["Purple penguins dance.", right]

    colours = [COLOUR.model_copy(update={"id": f"c{number}"}) for number in range(4)]
    uses = [name for name in USES if name != "quotation"]
    details = await answered(
        as_is(an_answerer(ScriptedLanguageModel(reply), uses)), colours, quiet
    )

    alone, configured, tuned = tuned_rows(
        "chorus", details, {"groundedness": -1.0}, ["c0", "c1"]
    )

    assert alone.config == "chorus, groundedness alone, report half"
    assert alone.metrics == tuned.metrics
    assert configured.n == tuned.n == 2
    assert configured.metrics["contained"] == 0.0
    assert tuned.metrics["contained"] == 1.0
    assert "groundedness" in tuned.config


class FakeApp:
    """An app whose parts are given, and which notes how it was varied."""

    def __init__(self, answerer: Answerer) -> None:
        self.config = a_config()
        self._answerer = answerer

    def answerer(self) -> Answerer:
        return self._answerer

    def variant(self, config: Config) -> FakeApp:
        self.config = config
        return self


async def test_qa_gives_each_question_the_passage_it_came_with(tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    def reply(turn: Turn) -> str:
        seen[turn.question] = turn.passages[0].text
        return "green"

    path = tmp_path / "xquad.json"
    path.write_text(
        '[{"context": "The bike is green.", "qas": [{"id": "1", "question": "Colour?", '
        '"answers": [{"text": "green"}]}]}, {"context": "It weighs 20 kg.", "qas": '
        '[{"id": "2", "question": "Weight?", "answers": [{"text": "20 kg"}]}]}]'
    )
    app = FakeApp(an_answerer(ScriptedLanguageModel(reply)))

    bots = [("chorus", cast("App", app))]
    report = await qa(bots, QuestionFile(path=path), quiet, How())
    rows = report.rows

    assert seen == {"Colour?": "The bike is green.", "Weight?": "It weighs 20 kg."}
    assert by_name(rows)["greedy"].metrics["contained"] == pytest.approx(0.5)
    assert app.config.knowledge.budget_tokens > a_config().knowledge.budget_tokens


async def test_an_open_ended_prompt_is_read_alone_and_nothing_is_quoted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "p1", "category": "c", "prompt": "Name a colour."}\n')
    model = ScriptedLanguageModel(lambda turn: ["Red.", "Blue."])
    app = FakeApp(an_answerer(model))

    report = await diversity(
        [("chorus", cast("App", app))], QuestionFile(path=path), quiet, How()
    )

    (row,) = report.rows
    assert {one.turn.prompt for one in model.requests} == {
        "user: Name a colour.\n\nassistant:"
    }
    assert row.metrics["clusters"] == 2.0
    assert "contained" not in row.metrics
    assert {one.origin for one in report.details[0].record.candidates} == {"model"}
