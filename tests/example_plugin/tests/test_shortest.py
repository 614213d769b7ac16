"""The reranker `shortest`: contract and effect."""

from __future__ import annotations

import pytest
from chorus_example_shortest import Shortest, shortest_first

from bot.interfaces import Reranker
from bot.testing import a_candidate, a_tools, a_turn
from bot.testing.contracts import RerankerContract


class TestShortestKeepsTheContract(RerankerContract):
    @pytest.fixture
    def subject(self) -> Reranker:
        return Shortest(Shortest.Settings())


def test_the_shortest_of_the_good_replies_comes_first() -> None:
    subject = Shortest(Shortest.Settings(margin=0.5))
    long = a_candidate("A refund takes five days.", {"a": 1.0})
    short = a_candidate("Five days.", {"a": 0.8})
    shorter_but_worse = a_candidate("Days.", {"a": 0.1})

    ranked = subject.rerank(a_turn(), [long, short, shorter_but_worse], a_tools())

    assert ranked == [short, long, shorter_but_worse]


def test_without_a_margin_the_best_stays_first() -> None:
    assert shortest_first([1.0, 0.9, None], [5, 2, 1], margin=0) == [0, 1, 2]
