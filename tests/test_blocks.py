"""A reply in blocks: through the real turn and ranking, with a scripted model."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import blocks, explain
from bot.blocks import ends_block
from bot.config import Config
from bot.errors import PluginError
from bot.inference import InferenceThread
from bot.interfaces import GenerationRequest, Tools
from bot.model import KEPT, Candidate, Record, Reply, Selection, Turn, Verdict, dropped
from bot.plugin_manager import Plugins
from bot.ranking import Ranking
from bot.testing import HashEmbedder, ScriptedLanguageModel, a_candidate, a_turn
from bot.turn import Answerer, Pipeline

WHOLE = "Refunds take five days. They go to your card. Ask us for more."


class Prompts:
    def render(self, turn: Turn, parts: Sequence[str], instruction: str = "") -> Turn:
        return replace(turn, prompt=turn.question)


class Shortest:
    """Picks the shortest, or else the first."""

    name = "shortest"

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        lengths = [len(one.text) for one in ranked]
        return Selection(index=lengths.index(min(lengths)), why="it is the shortest")


class Backwards:
    name = "backwards"

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: object
    ) -> Sequence[Candidate]:
        return candidates[::-1]


@dataclass
class Refuses:
    """Drops candidates that contain a word, and keeps what it was asked about."""

    word: str
    name: str = "refuses"
    seen: list[list[str]] = field(default_factory=list)

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        self.seen.append([one.text for one in candidates])
        return [
            dropped(f"says {self.word}") if self.word in one.text else KEPT
            for one in candidates
        ]


@dataclass
class Quotes:
    """A writer, and how often it was asked."""

    text: str
    name: str = "quotes"
    asked: int = 0

    def write(self, turn: Turn, tools: object) -> list[Candidate]:
        self.asked += 1
        return [a_candidate(self.text, origin="quotes", finish="written")]


@dataclass
class Bot:
    """Answers in blocks; keeps what it has shown."""

    model: ScriptedLanguageModel
    shown: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    generation: dict[str, Any] = field(default_factory=dict)
    on_show: Callable[[], None] = lambda: None

    async def answer(self, **stages: Any) -> Record:
        inference = InferenceThread()
        ranking = Ranking(
            inference=inference,
            writers=(),
            filters=(),
            scorers=(),
            weights={},
            rerankers=(),
            selector=Shortest(),
            plugin_timeout_s=5,
        )
        pipeline = Pipeline(
            plugins=Plugins(),
            retrievers=(),
            prompt_parts=(),
            prompter=Prompts(),
            sampler=None,  # type: ignore[arg-type]  # the scripted model draws nothing
            logits_processors=(),
            ranking=replace(ranking, **stages),
        )
        generation = {"model": "m", "mode": "blocks", "candidates": 2}
        config = Config.model_validate(
            {
                "knowledge": {"model": "m", "minimum_relevance": 0},
                "generation": {**generation, **self.generation},
            }
        )
        answerer = Answerer(
            config=config,
            pipeline=lambda address: pipeline,
            model=self.model,
            embedder=HashEmbedder(),
            inference=inference,
        )
        return await answerer.answer(a_turn(), self.cancelled, self._show)

    def _show(self, text: str) -> None:
        self.shown.append(text)
        self.on_show()


def always(*texts: str) -> ScriptedLanguageModel:
    return ScriptedLanguageModel(lambda turn: list(texts))


async def test_a_reply_is_written_sentence_by_sentence_and_shown_as_it_grows() -> None:
    bot = Bot(always(WHOLE, "Refunds are a long and winding story."))

    record = await bot.answer()

    assert record.outcome == "answered"
    assert record.reply.text == WHOLE
    assert bot.shown == [
        "Refunds take five days.",
        "Refunds take five days. They go to your card.",
        WHOLE,
    ]
    begun = [one.begun.text if one.begun else None for one in bot.model.requests]
    assert begun == [None, *bot.shown]


async def test_the_winner_of_each_block_is_what_the_next_siblings_go_on_from() -> None:
    script = [
        ["It is long, very long.", "It is short."],
        ["It is short. Then this.", "It is short. Then that, perhaps."],
        ["It is short. Then this.", "It is short. Then this."],
    ]
    bot = Bot(ScriptedLanguageModel(script))

    record = await bot.answer()

    assert record.reply.text == "It is short. Then this."
    assert [(one.block, one.settled, one.text) for one in record.candidates] == [
        (1, False, "It is long, very long."),
        (1, True, "It is short."),
        (2, True, "It is short. Then this."),
        (2, False, "It is short. Then that, perhaps."),
        (3, True, "It is short. Then this."),
        (3, False, "It is short. Then this."),
    ]
    assert record.chosen == 4
    assert record.why == (
        "3 blocks: (1) it is the shortest (2) it is the shortest (3) it is the shortest"
    )


async def test_every_block_is_filtered_and_rerankers_are_named_with_it() -> None:
    refuses = Refuses("winding")
    bot = Bot(always("One. Two.", "One. A winding road."))

    record = await bot.answer(filters=[refuses], rerankers=[Backwards()])

    assert record.reply.text == "One. Two."
    assert refuses.seen[:2] == [["One.", "One."], ["One. Two.", "One. A winding road."]]
    assert record.orders == {
        "backwards, block 1": [1, 0],
        "backwards, block 2": [0],
        "backwards, block 3": [1, 0],
    }


async def test_a_reply_ends_with_what_is_settled_when_all_that_follows_is_dropped() -> (
    None
):
    bot = Bot(always("One. Two. Three."))

    record = await bot.answer(filters=[Refuses("Three")])

    assert record.outcome == "answered"
    assert record.reply.text == "One. Two."
    assert record.chosen is not None
    assert record.candidates[record.chosen].block == 2
    assert record.why.endswith("(3) every candidate was dropped")
    assert bot.shown[-1] == record.reply.text


async def test_when_all_of_the_first_block_is_dropped_nothing_is_shown() -> None:
    bot = Bot(always("One. Two."))

    record = await bot.answer(filters=[Refuses("One")])

    assert record.outcome == "declined"
    assert record.why == "every candidate was dropped"
    assert [one.block for one in record.candidates] == [1, 1]
    assert bot.shown == []
    assert "first_block" not in record.ms


async def test_a_quotation_may_win_at_once_and_is_the_whole_reply() -> None:
    bot, quotes = Bot(always(WHOLE)), Quotes("5 days.")

    record = await bot.answer(writers=[quotes])

    assert record.reply.text == "5 days."
    assert len(bot.model.requests) == 1
    assert bot.shown == []
    assert record.ms["first_block"] <= record.ms["total"]


async def test_writers_are_asked_in_the_first_block_only() -> None:
    bot = Bot(always(WHOLE))
    quotes = Quotes("A refund takes five working days from when it reaches us.")

    record = await bot.answer(writers=[quotes])

    assert record.reply.text == WHOLE
    assert quotes.asked == 1


async def test_a_reply_that_is_complete_at_once_is_not_shown_before_it_is_sent() -> (
    None
):
    bot = Bot(always("Yes"))

    record = await bot.answer()

    assert record.reply.text == "Yes"
    assert bot.shown == []


async def test_the_limits_are_those_of_the_whole_reply() -> None:
    bot = Bot(always(WHOLE), generation={"max_new_tokens": 9, "timeout_s": 30})

    record = await bot.answer()

    first, second, *rest = bot.model.requests
    assert rest == []
    assert (first.max_new_tokens, second.max_new_tokens) == (9, 5)
    assert first.timeout_s == 30
    assert second.timeout_s is not None
    assert second.timeout_s < 30
    assert record.reply.text == "Refunds take five days. They go to your card."


async def test_a_reply_whose_time_is_over_ends_with_what_is_settled() -> None:
    class Slow(ScriptedLanguageModel):
        def generate(self, request: GenerationRequest) -> list[Candidate]:
            assert request.timeout_s is not None
            threading.Event().wait(request.timeout_s)
            return super().generate(request)

    bot = Bot(Slow(lambda turn: WHOLE), generation={"timeout_s": 0.05})

    record = await bot.answer()

    assert record.reply.text == "Refunds take five days."
    assert len(bot.model.requests) == 1


async def test_siblings_of_each_block_draw_with_numbers_of_their_own() -> None:
    bot = Bot(always("One. Two."))

    await bot.answer()

    seeds = [request.turn.seed for request in bot.model.requests]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == a_turn().seed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("out of memory"), "block 2: RuntimeError: out of memory"),
        (PluginError("odd", "drew nonsense"), "plugin 'odd': drew nonsense"),
    ],
)
async def test_what_was_shown_is_the_reply_when_a_later_block_fails(
    error: Exception, told: str
) -> None:
    bot = Bot(ScriptedLanguageModel(["One. Two.", error]))

    record = await bot.answer()

    assert record.outcome == "answered"
    assert record.reply.text == "One."
    assert record.problems == (told,)
    assert bot.shown == ["One."]


async def test_a_first_block_that_fails_fails_the_turn() -> None:
    bot = Bot(ScriptedLanguageModel([RuntimeError("out of memory")]))

    record = await bot.answer()

    assert record.outcome == "failed"
    assert bot.shown == []


async def test_a_turn_that_is_stopped_shows_no_further_block() -> None:
    bot = Bot(always(WHOLE))
    bot.on_show = bot.cancelled.set

    record = await bot.answer()

    assert record.outcome == "cancelled"
    assert bot.shown == ["Refunds take five days."]


async def test_explain_shows_the_candidates_of_every_block_and_who_won_it() -> None:
    bot = Bot(always("One. Two.", "One. A winding road."))

    record = await bot.answer(filters=[Refuses("winding")])
    told = explain.text(record)
    kept = explain.everything(record)["candidates"]

    assert "| block 1: 1, settled |" in told
    assert "| block 2: 1, settled | 0.00 | model | 2 | … Two. |" in told
    assert "| block 3: sent | 0.00 | model | 2 | … (ends here) |" in told
    assert "| block 2: refuses: says winding | … A winding road. |" in told
    assert "first_block" in told
    assert [(one["block"], one["settled"]) for one in kept] == [
        (one.block, one.settled) for one in record.candidates
    ]


def test_a_scorer_that_failed_in_one_block_leaves_its_cells_empty() -> None:
    scored = a_candidate(
        "One.", {"a": 1.0}, contributions={"a": 1.0}, block=1, rank=1, settled=True
    )
    also = replace(scored, text="One. Two.", block=2)
    also = replace(also, scores={"b": 2.0}, contributions={"b": 0.5})
    record = Record(
        turn=a_turn(),
        outcome="answered",
        reply=Reply(text="One. Two."),
        why="",
        config="",
        candidates=[scored, also],
        chosen=1,
    )

    told = explain.text(record)

    assert "| rank | a | b |" in told
    assert "| block 2: 1, settled |  | 2.000 (+0.50) |" in told


@pytest.mark.parametrize(
    "text",
    [
        "It takes five days.",
        "Really?",
        "Wait!",
        "Well…",
        "It is **five days.**",
        'He said "no."',
        "It costs 3.5 euros.",
        "It costs 3. ",
        "It costs 3.\n",
        "It costs 3. The",
        "- an item\n",
        "\n\n1. Do it.",
        "See fig. 3 for it.",
        "退款需要五天。",
        "はい。",
        "真的吗？",  # noqa: RUF001
    ],
)
def test_a_block_ends_where_a_sentence_does(text: str) -> None:
    assert ends_block(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "\n\n",
        "It takes five days",
        "It costs 3.",
        "It costs 3.5",
        "See e.g.",
        "See e.g. the",
        "Dr.",
        "Dr. Who",
        "1.",
        "\n1. First",
        "in the U.S.",
        "Version v2.",
        "see www.example.",
        "see www.example.com for",
        "退款需要",
    ],
)
def test_a_block_goes_on_where_only_a_stop_stands(text: str) -> None:
    assert not ends_block(text)


@given(st.text(alphabet="a1 ./@_\n字", max_size=12))
def test_a_stop_is_undecided_after_a_digit_or_within_a_name(text: str) -> None:
    pattern = re.compile(r"(?:\d|\S*[./@_]\S*)\.\Z")  # cubic, so not in the program

    undecided = blocks._is_undecided(text)

    assert undecided == (pattern.search(text) is not None)


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("It costs 3.5 euros, or 4. Ask us.", "It costs 3.5 euros, or 4. "),
        ("Ask Dr. Who, e.g. today. He knows.", "Ask Dr. Who, e.g. today."),
        ("\n1. First this.\n2. Then that.", "\n1. First this."),
        ("二。三。", "二。"),
    ],
)
def test_a_text_that_grows_ends_at_its_first_sentence(text: str, block: str) -> None:
    grown = [text[:end] for end in range(len(text) + 1)]

    assert next(filter(ends_block, grown)) == block
