"""Ranking: what each plugin decides, and what a broken one costs."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.inference import InferenceThread
from bot.interfaces import Tools
from bot.model import KEPT, Candidate, Selection, Turn, Verdict, dropped
from bot.ranking import Ranking, TurnTools, with_totals
from bot.testing.fakes import FakeTools, HashEmbedder, ScriptedLanguageModel
from bot.testing.makers import a_candidate, a_turn


@dataclass
class Plays:
    """A plugin of every kind that answers what it was given."""

    name: str = "plays"
    answer: Any = None
    seen: list[Sequence[Candidate]] = field(default_factory=list)

    def _given(self, candidates: Sequence[Candidate]) -> Any:
        self.seen.append(candidates)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(candidates) if callable(self.answer) else self.answer

    def write(self, turn: Turn, tools: Tools) -> Any:
        return self._given(())

    def keep(self, turn: Turn, candidates: Sequence[Candidate], tools: Tools) -> Any:
        return self._given(candidates)

    def score(self, turn: Turn, candidates: Sequence[Candidate], tools: Tools) -> Any:
        return self._given(candidates)

    def rerank(self, turn: Turn, candidates: Sequence[Candidate], tools: Tools) -> Any:
        return self._given(candidates)

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Any:
        return self._given(ranked)


FIRST = Plays("first", Selection(index=0, why="it is first"))


@pytest.fixture
def inference() -> InferenceThread:
    return InferenceThread()


def a_ranking(inference: InferenceThread, **more: Any) -> Ranking:
    made = Ranking(
        inference=inference,
        writers=(),
        filters=(),
        scorers=(),
        weights={},
        rerankers=(),
        selector=FIRST,
        plugin_timeout_s=1.0,
    )
    return replace(made, **more)


ONE, TWO, THREE = (a_candidate(text) for text in ("one", "two", "three"))


async def test_the_highest_weighted_total_is_first(inference: InferenceThread) -> None:
    scorers = (Plays("a", [1.0, 0.0, 0.0]), Plays("b", [0.0, 1.0, 0.0]))
    ranking = a_ranking(inference, scorers=scorers, weights={"a": 1.0, "b": 3.0})

    ranked = await ranking.rank(a_turn(), [ONE, TWO, THREE], FakeTools())

    assert [one.text for one in ranked.candidates] == ["two", "one", "three"]
    assert [one.rank for one in ranked.candidates] == [1, 2, 3]
    assert ranked.candidates[0].scores == {"a": 0.0, "b": 1.0}
    assert ranked.chosen == 0
    assert ranked.why == "it is first"


async def test_writers_candidates_compete(inference: InferenceThread) -> None:
    ranking = a_ranking(
        inference,
        writers=(Plays("writer", [TWO]),),
        scorers=(Plays("a", [0.0, 1.0]),),
    )

    written = await ranking.write(a_turn(), FakeTools())
    both = [*written.candidates, ONE]
    ranked = await ranking.rank(a_turn(), both, FakeTools())

    assert [one.text for one in ranked.candidates] == ["one", "two"]


async def test_equal_totals_keep_the_order_they_came_in(
    inference: InferenceThread,
) -> None:
    ranking = a_ranking(inference)

    ranked = await ranking.rank(a_turn(), [TWO, ONE], FakeTools())

    assert [one.text for one in ranked.candidates] == ["two", "one"]


async def test_a_scorer_sees_what_those_before_it_said(
    inference: InferenceThread,
) -> None:
    second = Plays("second", [0.0, 0.0])
    ranking = a_ranking(inference, scorers=(Plays("first", [1.0, 2.0]), second))

    await ranking.rank(a_turn(), [ONE, TWO], FakeTools())

    assert [one.scores for one in second.seen[0]] == [{"first": 1.0}, {"first": 2.0}]


async def test_what_plugins_embed_is_read_in_one_call(
    inference: InferenceThread,
) -> None:
    class Reads(Plays):
        def texts(self, turn: Turn) -> list[str]:
            return [f"{self.name} text"]

    tools = FakeTools()
    scorers = (Reads("a", [0.0, 0.0]), Reads("b", [0.0, 0.0]))

    await a_ranking(inference, scorers=scorers).rank(a_turn(), [ONE, TWO], tools)

    question = a_turn().question
    assert tools.embedded == [(question, "one", "two", "a text", "b text")]


async def test_a_dropped_candidate_says_why_and_is_seen_by_nobody_else(
    inference: InferenceThread,
) -> None:
    scorer = Plays("a", [1.0])
    ranking = a_ranking(
        inference,
        filters=(Plays("short", [dropped("too short"), KEPT]),),
        scorers=(scorer,),
    )

    ranked = await ranking.rank(a_turn(), [ONE, TWO], FakeTools())

    assert [one.text for one in scorer.seen[0]] == ["two"]
    assert ranked.candidates[-1].dropped == "short: too short"
    assert ranked.candidates[-1].rank is None


async def test_when_all_are_dropped_nothing_is_chosen(
    inference: InferenceThread,
) -> None:
    ranking = a_ranking(inference, filters=(Plays("no", [dropped("no")]),))

    ranked = await ranking.rank(a_turn(), [ONE], FakeTools())

    assert ranked.chosen is None
    assert ranked.why == "every candidate was dropped"


async def test_rerankers_follow_each_other_and_their_orders_are_kept(
    inference: InferenceThread,
) -> None:
    def backwards(candidates: Sequence[Candidate]) -> list[Candidate]:
        return list(reversed(candidates))

    def second_first(candidates: Sequence[Candidate]) -> list[Candidate]:
        return [candidates[1], candidates[0], *candidates[2:]]

    ranking = a_ranking(
        inference,
        rerankers=(Plays("backwards", backwards), Plays("swap", second_first)),
    )

    ranked = await ranking.rank(a_turn(), [ONE, TWO, THREE], FakeTools())

    assert [one.text for one in ranked.candidates] == ["two", "three", "one"]
    assert ranked.orders == {"backwards": [2, 1, 0], "swap": [1, 2, 0]}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (RuntimeError("boom"), "plugin 'bad': raised RuntimeError: boom"),
        ([1.0], "plugin 'bad': returned 1 scores for 2 candidates; return one each"),
        ([1.0, math.nan], "plugin 'bad': returned a score that is not a finite number"),
        ([1.0, math.inf], "plugin 'bad': returned a score that is not a finite number"),
        ([1.7e308, 0.0], "plugin 'bad': returned a score that is not a finite number"),
        (None, "plugin 'bad': raised TypeError"),
        (["x", "y"], "plugin 'bad': raised TypeError"),
    ],
)
async def test_a_broken_scorer_loses_its_weight_and_is_named(
    inference: InferenceThread, answer: object, told: str
) -> None:
    scorers = (Plays("bad", answer), Plays("good", [0.0, 1.0]))
    ranking = a_ranking(inference, scorers=scorers)

    ranked = await ranking.rank(a_turn(), [ONE, TWO], FakeTools())

    assert ranked.candidates[0].text == "two"
    assert ranked.candidates[0].scores == {"good": 1.0}
    assert len(ranked.problems) == 1
    assert ranked.problems[0].startswith(told)


async def test_a_hanging_scorer_is_left_out_in_time(
    inference: InferenceThread,
) -> None:
    release = threading.Event()
    hanging = Plays("hangs", lambda _: release.wait())
    ranking = a_ranking(
        inference,
        scorers=(hanging, Plays("good", [0.0, 1.0])),
        plugin_timeout_s=0.05,
    )

    ranked = await ranking.rank(a_turn(), [ONE, TWO], FakeTools())
    release.set()

    assert ranked.candidates[0].text == "two"
    assert ranked.problems == (
        "plugin 'hangs': no answer within 0.05 s; it was left out of this turn",
    )


@pytest.mark.parametrize("answer", [RuntimeError("boom"), [KEPT], None, [True, True]])
async def test_a_broken_filter_lets_nothing_through(
    inference: InferenceThread, answer: object
) -> None:
    ranking = a_ranking(inference, filters=(Plays("bad", answer),))

    ranked = await ranking.rank(a_turn(), [ONE, TWO], FakeTools())

    assert ranked.chosen is None
    assert {one.dropped for one in ranked.candidates} == {
        "bad: failed, and what is unchecked is not sent"
    }


@pytest.mark.parametrize("answer", [RuntimeError("boom"), [], [ONE, ONE], [ONE]])
async def test_a_broken_reranker_changes_nothing(
    inference: InferenceThread, answer: object
) -> None:
    ranking = a_ranking(inference, rerankers=(Plays("bad", answer),))

    ranked = await ranking.rank(a_turn(), [ONE, TWO], FakeTools())

    assert [one.text for one in ranked.candidates] == ["one", "two"]
    assert ranked.orders == {}
    assert len(ranked.problems) == 1


@pytest.mark.parametrize(
    "answer", [RuntimeError("boom"), None, Selection(index=9, why="")]
)
async def test_a_broken_selector_costs_only_its_choice(
    inference: InferenceThread, answer: object
) -> None:
    ranking = a_ranking(inference, selector=Plays("bad", answer))

    ranked = await ranking.rank(a_turn(), [ONE, TWO], FakeTools())

    assert ranked.chosen == 0
    assert "selector 'bad' failed" in ranked.why


@pytest.mark.parametrize("answer", [RuntimeError("boom"), ["text"], None, iter([TWO])])
async def test_a_broken_writer_adds_nothing(
    inference: InferenceThread, answer: object
) -> None:
    ranking = a_ranking(inference, writers=(Plays("bad", answer),))

    written = await ranking.write(a_turn(), FakeTools())

    assert list(written.candidates) == []
    assert len(written.problems) == 1


async def test_no_candidates_at_all_is_not_an_error(inference: InferenceThread) -> None:
    scorer = Plays("a", [])
    ranking = a_ranking(inference, scorers=(scorer,), filters=(Plays("f", []),))

    ranked = await ranking.rank(a_turn(), [], FakeTools())

    assert ranked.chosen is None
    assert scorer.seen == []


def test_a_verdict_without_a_reason_still_reads() -> None:
    assert Verdict(kept=False).why == ""


def test_scores_of_any_scale_weigh_the_same() -> None:
    totals = with_totals(
        [ONE, TWO], {"small": [0.0, 0.001], "large": [1000.0, 0.0]}, {}
    )

    assert totals[0].total == pytest.approx(0.0)
    assert totals[0].contributions == pytest.approx({"small": -1.0, "large": 1.0})


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=16),
    st.floats(0.001, 1000),
    st.floats(-1e6, 1e6),
)
def test_totals_do_not_depend_on_scale_and_offset(
    values: list[float], scale: float, offset: float
) -> None:
    candidates = [ONE] * len(values)
    moved = [scale * value + offset for value in values]
    apart = len(set(values)) > 1 and max(moved) - min(moved) > 1e-3

    before = with_totals(candidates, {"a": values}, {})
    after = with_totals(candidates, {"a": moved}, {})

    if apart and max(values) - min(values) > 1e-3:
        for one, other in zip(before, after, strict=True):
            assert one.total == pytest.approx(other.total, abs=1e-2)


def test_equal_scores_contribute_nothing() -> None:
    totals = with_totals([ONE, TWO, THREE], {"same": [0.1 + 0.2, 0.3, 0.3]}, {})

    assert [one.total for one in totals] == [0.0, 0.0, 0.0]


async def test_half_a_character_of_a_writer_is_taken_out(
    inference: InferenceThread,
) -> None:
    quotation = a_candidate("half \ud83d a pair", origin="quotation")
    ranking = a_ranking(inference, writers=(Plays("writer", [quotation]),))

    written = await ranking.write(a_turn(), FakeTools())

    assert [one.text for one in written.candidates] == ["half  a pair"]


def test_tools_embed_each_text_once_a_turn() -> None:
    embedded: list[str] = []

    class Counting(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> Any:
            embedded.extend(texts)
            return super().embed(texts)

    tools = TurnTools(Counting(), ScriptedLanguageModel([]), str, {})

    first = tools.embed(["a b", "c", "a b"])
    second = tools.embed(["c", "d"])

    assert embedded == ["a b", "c", "d"]
    assert first.shape == (3, 512)
    assert (first[0] == first[2]).all()
    assert (first[1] == second[0]).all()
    assert tools.embed([]).shape == (0, 512)
