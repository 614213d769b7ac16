"""A turn, from message to record, with a scripted model and the rest real."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl, plugin_manager
from bot.config import Config, Use
from bot.errors import Overloaded, PluginError
from bot.inference import InferenceThread
from bot.interfaces import GenerationRequest
from bot.model import Address, Candidate, Passage, Record, Selection, Turn
from bot.plugin_manager import Plugins
from bot.ranking import Ranking
from bot.testing.fakes import HashEmbedder, ScriptedLanguageModel
from bot.testing.makers import a_passage, a_turn
from bot.turn import Answerer, Pipeline

CONFIG = Config.model_validate(
    {
        "knowledge": {"model": "m", "minimum_relevance": 0.5},
        "generation": {"model": "m", "candidates": 2, "timeout_s": 0.5},
        "ranking": {"plugin_timeout_s": 0.2},
    }
)


@dataclass(frozen=True)
class Finds:
    passages: Sequence[Passage] | Exception
    name: str = "finds"

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        if isinstance(self.passages, Exception):
            raise self.passages
        return self.passages


class Prompts:
    def render(self, turn: Turn, parts: Sequence[str], instruction: str = "") -> Turn:
        said = " ".join([*parts, "asked:", *([instruction] if instruction else [])])
        return replace(turn, prompt=f"{said} {turn.question}")


@dataclass(frozen=True)
class Says:
    """A prompt variant that says its sentence, and reads a text as its parts."""

    name: str
    instructs: str | Exception = ""
    replies: int = 1

    def instruction(self, turn: Turn) -> str:
        if isinstance(self.instructs, Exception):
            raise self.instructs
        return self.instructs

    def read(self, turn: Turn, written: Candidate) -> list[Candidate]:
        return [replace(written, text=part) for part in written.text.split("|")]


class First:
    name = "first"

    def select(self, turn: Turn, ranked: Sequence[object]) -> Selection:
        return Selection(index=0, why="first")


RELEVANT = a_passage("Refunds take five days.", scores={"relevance": 0.9})
IRRELEVANT = a_passage("We like bikes.", scores={"relevance": 0.1})


@pytest.fixture
def inference() -> InferenceThread:
    return InferenceThread()


def an_answerer(
    inference: InferenceThread,
    model: ScriptedLanguageModel,
    retrievers: Sequence[Finds] = (Finds([RELEVANT]),),
    **more: Any,
) -> Answerer:
    pipeline = Pipeline(
        plugins=Plugins(),
        retrievers=retrievers,
        prompt_parts=(),
        prompter=Prompts(),
        sampler=None,  # type: ignore[arg-type]  # the scripted model draws nothing
        logits_processors=(),
        ranking=Ranking(
            inference=inference,
            writers=(),
            filters=(),
            scorers=(),
            weights={},
            rerankers=(),
            selector=First(),
            plugin_timeout_s=1,
        ),
    )

    def everywhere(address: Address) -> Pipeline:
        return replace(pipeline, **more)

    return Answerer(
        config=CONFIG,
        pipeline=everywhere,
        model=model,
        embedder=HashEmbedder(),
        inference=inference,
    )


def unseen(text: str) -> None:
    """Nobody watches."""


async def answered(answerer: Answerer) -> Record:
    return await answerer.answer(a_turn(), threading.Event(), unseen)


async def test_a_question_is_answered_from_passages_and_cited(
    inference: InferenceThread,
) -> None:
    model = ScriptedLanguageModel([["Refunds take five days.", "No idea."]])

    record = await answered(an_answerer(inference, model))

    assert record.outcome == "answered"
    assert record.reply.text == "Refunds take five days."
    assert [citation.source for citation in record.reply.citations] == ["refunds.md"]
    assert record.turn.prompt == "asked: How long does a refund take?"
    assert len(record.candidates) == 2
    assert set(record.ms) == {"retrieve", "generate", "rank", "total"}
    assert record.config == CONFIG.fingerprint


@pytest.mark.parametrize(
    ("passage", "url"),
    [
        (
            {"source": "https://shop.example/refunds?a=1"},
            "https://shop.example/refunds?a=1",
        ),
        ({"metadata": {"url": "http://shop.example"}}, "http://shop.example"),
        ({"metadata": {"url": "javascript://shop.example/%0aalert(1)"}}, ""),
        ({"metadata": {"url": "https://shop.example/a b"}}, ""),
        ({"metadata": {"url": "https://[half"}}, ""),
        ({"source": "file:///etc/passwd"}, ""),
        ({"source": "https:refunds.md"}, ""),
        ({}, ""),
    ],
)
async def test_a_citation_has_the_documents_title_and_address(
    inference: InferenceThread, passage: dict[str, Any], url: str
) -> None:
    relevant = replace(RELEVANT, title="Refunds", **passage)
    model = ScriptedLanguageModel(["Refunds take five days."])

    record = await answered(an_answerer(inference, model, [Finds([relevant])]))

    (citation,) = record.reply.citations
    assert (citation.title, citation.url) == ("Refunds", url)
    assert (citation.source, citation.passage) == (relevant.source, relevant.id)


async def test_only_an_answer_asks_what_the_customer_thinks_of_it(
    inference: InferenceThread,
) -> None:
    model = ScriptedLanguageModel(["Five days.", RuntimeError("no")])

    answer = await answered(an_answerer(inference, model))
    declined = await answered(an_answerer(inference, model, [Finds([])]))
    failed = await answered(an_answerer(inference, model))

    assert (answer.outcome, answer.reply.feedback) == ("answered", True)
    assert (declined.outcome, declined.reply.feedback) == ("declined", False)
    assert (failed.outcome, failed.reply.feedback) == ("failed", False)


class Asks:
    """A plugin that does what its test wants when asked whether to hand over."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        says: Any = Field(None, description="the reason; raise: fail instead")

    def __init__(self, settings: Settings) -> None:
        self.says = settings.says

    @hookimpl
    async def needs_person(self, turn: Turn) -> str | None:
        if self.says == "raise":
            raise KeyError(turn.question)
        return self.says  # type: ignore[no-any-return]  # a stranger's mistake, perhaps


class AsksAgain(Asks):
    """Another one, so that both may be enabled."""


@pytest.mark.parametrize(
    ("first", "second", "outcome", "why"),
    [
        ("angry", "rich", "handed_over", "a plugin asked for a person: angry"),
        (None, "rich", "handed_over", "a plugin asked for a person: rich"),
        ("raise", "rich", "handed_over", "a plugin asked for a person: rich"),
        (7, "  ", "answered", "first"),
        ("raise", None, "answered", "first"),
    ],
)
async def test_the_first_reason_for_a_person_counts_and_a_failing_plugin_has_none(
    inference: InferenceThread, first: Any, second: Any, outcome: str, why: str
) -> None:
    plugins = plugin_manager.load(
        {
            "plugins[0]": Use(use=f"{__name__}:Asks", settings={"says": first}),
            "plugins[1]": Use(use=f"{__name__}:AsksAgain", settings={"says": second}),
        }
    )
    model = ScriptedLanguageModel(["Five days."])

    record = await answered(an_answerer(inference, model, plugins=plugins))

    handed = CONFIG.replies.handed_over
    assert (record.outcome, record.why) == (outcome, why)
    assert record.reply.text == (handed if outcome == "handed_over" else "Five days.")


async def test_nothing_relevant_means_the_fallback_and_no_generation(
    inference: InferenceThread,
) -> None:
    model = ScriptedLanguageModel([])

    record = await answered(an_answerer(inference, model, [Finds([IRRELEVANT])]))

    assert record.outcome == "declined"
    assert record.reply.text == CONFIG.replies.fallback
    assert record.why == "nothing relevant was retrieved (best 0.10, minimum 0.5)"
    assert model.requests == []


async def test_no_passage_at_all_means_the_fallback(inference: InferenceThread) -> None:
    record = await answered(
        an_answerer(inference, ScriptedLanguageModel([]), [Finds([])])
    )

    assert record.outcome == "declined"


async def test_a_retriever_that_fails_is_left_out_and_named(
    inference: InferenceThread,
) -> None:
    retrievers = [Finds(OSError("down"), name="wiki"), Finds([RELEVANT])]
    model = ScriptedLanguageModel(["Five days."])

    record = await answered(an_answerer(inference, model, retrievers))

    assert record.outcome == "answered"
    assert record.problems == ("plugin 'wiki': raised OSError: down",)


@pytest.mark.parametrize("junk", [["x"], None, PluginError("wiki", "is down")])
async def test_a_retriever_that_returns_junk_is_left_out_and_named(
    inference: InferenceThread, junk: Any
) -> None:
    retrievers = [Finds(junk, name="wiki"), Finds([RELEVANT])]
    model = ScriptedLanguageModel(["Five days."])

    record = await answered(an_answerer(inference, model, retrievers))

    assert record.outcome == "answered"
    assert len(record.problems) == 1
    assert record.problems[0].startswith("plugin 'wiki': ")


async def test_a_retriever_that_hangs_is_left_behind(
    inference: InferenceThread,
) -> None:
    class Hangs(Finds):
        async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
            await asyncio.Event().wait()
            return []

    retrievers = [Hangs([], name="wiki"), Finds([RELEVANT])]
    model = ScriptedLanguageModel(["Five days."])

    record = await answered(an_answerer(inference, model, retrievers))

    assert record.outcome == "answered"
    assert record.problems == ("plugin 'wiki': raised TimeoutError",)


async def test_a_prompt_part_that_hangs_is_left_out_and_the_next_is_heard(
    inference: InferenceThread,
) -> None:
    release = threading.Event()

    class Part:
        def __init__(self, name: str, said: Callable[[], str | None]) -> None:
            self.name = name
            self._said = said

        def render(self, turn: Turn) -> str | None:
            return self._said()

    parts = (
        Part("hangs", lambda: str(release.wait())),
        Part("silent", lambda: None),
        Part("speaks", lambda: "Be kind."),
    )
    model = ScriptedLanguageModel(["Five days."])
    answerer = an_answerer(inference, model, prompt_parts=parts)

    record = await answered(answerer)
    release.set()

    assert record.outcome == "answered"
    assert record.turn.prompt.startswith("Be kind. asked:")
    assert record.problems == (
        "plugin 'hangs': no answer within 0.2 s; it was left out of this turn",
    )


async def test_a_failing_model_means_the_apology(inference: InferenceThread) -> None:
    model = ScriptedLanguageModel([RuntimeError("out of memory")])

    record = await answered(an_answerer(inference, model))

    assert record.outcome == "failed"
    assert record.reply.text == CONFIG.replies.apology
    assert record.why == "RuntimeError: out of memory"


async def test_a_failing_sampler_is_named_and_nothing_is_made_up(
    inference: InferenceThread,
) -> None:
    model = ScriptedLanguageModel([PluginError("odd", "drew a token of no vocabulary")])

    record = await answered(an_answerer(inference, model))

    assert record.outcome == "declined"
    assert record.reply.text == CONFIG.replies.fallback
    assert record.problems == ("plugin 'odd': drew a token of no vocabulary",)


async def test_siblings_take_turns_with_the_prompt_variants(
    inference: InferenceThread,
) -> None:
    model = ScriptedLanguageModel(lambda turn: turn.prompt)
    variants = (Says("plain"), Says("brief", "Be brief."), Says("unused", "No."))
    answerer = an_answerer(inference, model, prompt_variants=variants)

    record = await answered(answerer)

    assert [(one.variant, one.text) for one in record.candidates] == [
        ("plain", "asked: How long does a refund take?"),
        ("brief", "asked: Be brief. How long does a refund take?"),
    ]
    assert [one.candidates for one in model.requests] == [1, 1]
    assert len({one.turn.seed for one in model.requests}) == 2
    assert record.turn.prompt == "asked: How long does a refund take?"


async def test_one_text_may_hold_several_replies(inference: InferenceThread) -> None:
    model = ScriptedLanguageModel([["Five days.|A week.", "Soon."]])
    variants = (Says("lists", "List two.", replies=2),)
    answerer = an_answerer(inference, model, prompt_variants=variants)

    record = await answered(answerer)

    texts = [one.text for one in record.candidates]
    assert texts == ["Five days.", "A week.", "Soon."]
    assert model.requests[0].max_new_tokens == 2 * CONFIG.generation.max_new_tokens


async def test_a_prompt_variant_that_fails_is_named_and_leaves_the_prompt_plain(
    inference: InferenceThread,
) -> None:
    model = ScriptedLanguageModel(lambda turn: turn.prompt)
    variants = (Says("bad", RuntimeError("boom")), Says("good", "Be brief."))
    answerer = an_answerer(inference, model, prompt_variants=variants)

    record = await answered(answerer)

    assert [one.text for one in record.candidates] == [
        "asked: How long does a refund take?",
        "asked: Be brief. How long does a refund take?",
    ]
    assert record.problems == ("plugin 'bad': raised RuntimeError: boom",)


async def test_a_variant_whose_set_fails_leaves_those_of_the_others(
    inference: InferenceThread,
) -> None:
    def write(turn: Turn) -> str | Exception:
        if "Be brief." in turn.prompt:
            return Overloaded("generation: 64 sets wait already")
        return "Five days."

    variants = (Says("plain"), Says("brief", "Be brief."))
    answerer = an_answerer(
        inference, ScriptedLanguageModel(write), prompt_variants=variants
    )

    record = await answered(answerer)

    assert record.reply.text == "Five days."
    assert record.problems == ("generation: 64 sets wait already",)


async def test_when_the_sets_of_all_variants_fail_the_turn_fails(
    inference: InferenceThread,
) -> None:
    model = ScriptedLanguageModel(lambda turn: Overloaded("64 sets wait already"))
    variants = (Says("plain"), Says("brief", "Be brief."))

    record = await answered(an_answerer(inference, model, prompt_variants=variants))

    assert record.outcome == "failed"
    assert "64 sets wait already" in record.why


async def test_what_no_store_can_hold_is_taken_out_of_a_candidate(
    inference: InferenceThread,
) -> None:
    model = ScriptedLanguageModel([["Five\x00 days.", "Six."]])

    record = await answered(an_answerer(inference, model))

    assert record.reply.text == "Five days."


async def test_while_one_turn_is_written_others_are_ranked(
    inference: InferenceThread,
) -> None:
    gate = threading.Event()
    model = ScriptedLanguageModel(["Five days."], gate=gate)
    writing = asyncio.ensure_future(answered(an_answerer(inference, model)))
    await asyncio.to_thread(model.started.wait)

    ranked = await inference.run(lambda: "ranked")

    assert ranked == "ranked"
    assert not writing.done()
    gate.set()
    assert (await writing).outcome == "answered"


async def test_the_stages_of_the_generator_are_in_the_record(
    inference: InferenceThread,
) -> None:
    class Timed(ScriptedLanguageModel):
        def generate(self, request: GenerationRequest) -> list[Candidate]:
            assert request.on_ms is not None
            request.on_ms("read", 12.0)
            return super().generate(request)

    record = await answered(an_answerer(inference, Timed(["Five days."])))

    assert record.ms["generate_read"] == 12.0


async def test_a_cancelled_turn_says_so(inference: InferenceThread) -> None:
    gate = threading.Event()
    cancelled = threading.Event()
    cancelled.set()
    model = ScriptedLanguageModel(["late"], gate=gate)

    record = await an_answerer(inference, model).answer(a_turn(), cancelled, unseen)

    assert record.outcome == "cancelled"
    assert record.reply.text == CONFIG.replies.cancelled


async def test_the_line_of_a_turn_holds_no_message_text(
    inference: InferenceThread, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = ScriptedLanguageModel(["Five days."])

    await answered(an_answerer(inference, model))

    (line,) = [one for one in caplog.records if one.name == "chorus.turn"]
    assert line.__dict__["outcome"] == "answered"
    assert line.__dict__["chosen"] == 0
    assert "ms_total" in line.__dict__
    assert not any("refund" in str(value).lower() for value in vars(line).values())


async def test_a_metrics_sink_that_fails_costs_nobody_the_answer(
    inference: InferenceThread,
) -> None:
    class Sink:
        name = "sink"

        def turn_over(self, record: Record) -> None:
            raise RuntimeError("boom")

    answerer = an_answerer(
        inference,
        ScriptedLanguageModel(["Five days."]),
        plugins=Plugins(metrics_sinks=[Sink()]),
    )

    assert (await answered(answerer)).outcome == "answered"
