"""ngram-block: which tokens would say the same again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

from bot.interfaces import LogitsProcessor
from bot.testing import FakeVocabulary, a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.ngram_block import NgramBlock, NgramBlockStep


class TestNgramBlockKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return NgramBlock(NgramBlock.Settings(size=2, across_siblings=True))


def a_step(size: int, *, across_siblings: bool = False) -> NgramBlockStep:
    return NgramBlockStep(size=size, across_siblings=across_siblings, kept=())


def blocked(step: NgramBlockStep, tokens: list[list[int]]) -> list[list[int]]:
    changed = step(torch.tensor(tokens).long(), torch.zeros(len(tokens), 10))
    return [row.isneginf().nonzero().flatten().tolist() for row in changed]


def test_what_followed_the_last_tokens_before_is_blocked() -> None:
    # 1 2 was followed by 3 and by 4; 2 alone was also followed by 5.
    assert blocked(a_step(3), [[1, 2, 3, 1, 2, 4, 2, 5, 1, 2]]) == [[3, 4]]


def test_a_row_shorter_than_the_ngram_is_left_alone() -> None:
    assert blocked(a_step(3), [[1, 1]]) == [[]]


def test_the_row_may_overlap_itself() -> None:
    assert blocked(a_step(3), [[7, 7, 7]]) == [[7]]


def test_siblings_do_not_block_each_other_unless_told() -> None:
    tokens = [[1, 2, 3], [4, 1, 2]]

    assert blocked(a_step(3), tokens) == [[], []]
    assert blocked(a_step(3, across_siblings=True), tokens) == [[], [3]]


def test_a_sibling_that_has_ended_does_not_keep_others_from_ending() -> None:
    plugin = NgramBlock(NgramBlock.Settings(size=2, across_siblings=True))
    plugin.read_vocabulary(FakeVocabulary(["", "a", "b"], end_tokens=[0]))
    tokens = torch.tensor([[1, 2, 0, 0], [1, 1, 1, 2]])

    changed = plugin.begin(a_turn(), 2)(tokens, torch.zeros(2, 3))

    assert changed[1].isfinite().tolist() == [True, True, True]


def test_a_row_in_which_nothing_else_is_possible_keeps_what_it_has() -> None:
    logits = torch.tensor([[-torch.inf, 2.0], [1.0, 2.0]])
    tokens = torch.tensor([[1, 1, 1], [1, 1, 1]])

    changed = a_step(2)(tokens, logits)

    assert changed.tolist() == [[-torch.inf, 2.0], [1.0, -torch.inf]]


@checked(max_examples=100, deadline=None)
@given(
    rows=st.integers(0, 40).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(0, 3), min_size=length, max_size=length),
            min_size=1,
            max_size=3,
        )
    ),
    size=st.integers(2, 5),
)
def test_it_blocks_what_transformers_blocks(rows: list[list[int]], size: int) -> None:
    tokens = torch.tensor(rows).long()
    # A fifth token that is never drawn keeps every row possible.
    logits = torch.zeros(len(rows), 5)

    changed = a_step(size)(tokens, logits)

    assert changed.equal(NoRepeatNGramLogitsProcessor(size)(tokens, logits))


@checked(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 4))
def test_across_siblings_it_blocks_what_stands_in_any_row(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 3, (3, 12), generator=generator)
    ngrams = {
        tuple(each) for each in tokens.unfold(1, size, 1).reshape(-1, size).tolist()
    }

    found = blocked(a_step(size, across_siblings=True), tokens.tolist())

    ends = [tuple(row[1 - size :]) for row in tokens.tolist()]
    assert found == [[v for v in range(10) if (*end, v) in ngrams] for end in ends]


@pytest.mark.parametrize("size", [1, 51])
def test_a_size_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(ValidationError):
        NgramBlock.Settings(size=size)
