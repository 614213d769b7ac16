"""Gumbel-top-k: its sample of texts is one without replacement, exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from bot.interfaces import Sampler
from bot.testing.contracts import SamplerContract
from plugins.samplers.gumbel_top_k import (
    GumbelTopK,
    GumbelTopKStep,
    conditioned,
    gumbel_like,
)

Write = Callable[..., list[tuple[int, ...]]]

# A model of four tokens that looks at the last one only. A text has at most three
# tokens and may end before; what it would then be padded with is END again.
TOKENS, START, END, LENGTH = 4, 4, 3, 3


class TestGumbelTopKKeepsTheContract(SamplerContract):
    @pytest.fixture
    def subject(self) -> Sampler:
        return GumbelTopK(GumbelTopK.Settings())


def markov(seed: int = 3) -> Tensor:
    """Return logits [5, 4] after each token and, last, at the start."""
    chances = np.random.default_rng(seed).dirichlet([1.5] * TOKENS, size=TOKENS + 1)
    logits = torch.tensor(chances).log()
    logits[END] = torch.tensor([-math.inf, -math.inf, -math.inf, 0.0])
    return logits


def chances_of_texts(model: Tensor, temperature: float) -> NDArray[np.float64]:
    """Return P of all 64 padded texts, in the order of their digits; most are 0."""
    weights = np.exp(model.numpy() / temperature)
    steps = weights / weights.sum(axis=1, keepdims=True)
    return np.array(
        [
            math.prod(steps[last, token] for last, token in itertools.pairwise(text))
            for text in itertools.product([START], *[range(TOKENS)] * LENGTH)
        ]
    )


def samples(
    model: Tensor, siblings: int, runs: int, temperature: float, seed: int = 0
) -> NDArray[np.int64]:
    """Return the numbers [runs, k] of the texts drawn, all runs beside each other."""
    generator = torch.Generator().manual_seed(seed)
    step = GumbelTopKStep(siblings, temperature, generator)
    last = torch.full((runs, siblings), START)
    texts = torch.zeros((runs, siblings), dtype=torch.long)
    for _ in range(LENGTH):
        draw = step(model[last])
        assert draw.parents is not None
        texts = texts.gather(1, draw.parents) * TOKENS + draw.tokens
        last = draw.tokens
    numbers: NDArray[np.int64] = texts.numpy()
    return numbers


def assert_as_often_as_expected(
    drawn: NDArray[np.int64], chances: NDArray[np.float64]
) -> None:
    """Chi-square at p = .001; what is expected less than five times is one cell."""
    counts = np.bincount(drawn, minlength=len(chances))
    assert counts[chances == 0].sum() == 0
    expected = len(drawn) * chances
    often = expected >= 5
    found = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    if wanted[-1] < 5:
        found, wanted = found[:-1], wanted[:-1]
    freedom = len(wanted) - 1
    assert freedom > 10
    # Wilson and Hilferty's approximation; 3.09 is where a normal has .001 above it.
    spread = 2 / (9 * freedom)
    critical = freedom * (1 - spread + 3.09 * math.sqrt(spread)) ** 3
    assert ((found - wanted) ** 2 / wanted).sum() < critical


# The distribution


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_first_row_is_an_ordinary_sample(temperature: float) -> None:
    model = markov()

    drawn = samples(model, 3, 100_000, temperature)

    assert_as_often_as_expected(drawn[:, 0], chances_of_texts(model, temperature))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_second_row_is_drawn_from_what_the_first_left(temperature: float) -> None:
    model = markov()
    chances = chances_of_texts(model, temperature)
    pairs = chances[:, None] * chances / (1 - chances[:, None])
    np.fill_diagonal(pairs, 0.0)

    drawn = samples(model, 2, 200_000, temperature)

    assert pairs.sum() == pytest.approx(1)
    assert_as_often_as_expected(drawn[:, 0] * 64 + drawn[:, 1], pairs.flatten())


def test_the_third_row_is_drawn_from_what_the_first_two_left() -> None:
    model = markov()
    chances = chances_of_texts(model, 1.0)
    triples = np.zeros((64, 64, 64))
    for a, b, c in itertools.permutations(np.flatnonzero(chances), 3):
        left = 1 - chances[a]
        second = chances[b] / left
        triples[a, b, c] = chances[a] * second * chances[c] / (left - chances[b])

    drawn = samples(model, 3, 300_000, 1.0)

    assert triples.sum() == pytest.approx(1)
    numbers = (drawn[:, 0] * 64 + drawn[:, 1]) * 64 + drawn[:, 2]
    assert_as_often_as_expected(numbers, triples.flatten())


@given(seed=st.integers(0, 2**32), siblings=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_no_text_comes_twice(seed: int, siblings: int) -> None:
    model = markov(seed)

    drawn = samples(model, siblings, 10, 1.0, seed)

    assert all(len(set(row)) == siblings for row in drawn.tolist())
    assert (chances_of_texts(model, 1.0)[drawn] > 0).all()


def test_rows_beyond_the_number_of_texts_are_copies_of_possible_ones() -> None:
    model = markov()
    chances = chances_of_texts(model, 1.0)

    drawn = samples(model, 45, 50, 1.0)

    assert np.count_nonzero(chances) == 40  # END, 3 · END, 9 · 4
    assert all(len(set(row[:40])) == 40 for row in drawn.tolist())
    assert (chances[drawn] > 0).all()


def test_the_core_is_given_different_texts_of_different_lengths(write: Write) -> None:
    model = markov()

    texts = write(
        GumbelTopK(GumbelTopK.Settings(temperature=1)),
        lambda text: model[text[-1] if text else START].tolist(),
        siblings=40,
        limit=LENGTH,
        end=END,
    )

    assert set(texts) == {
        text[: text.index(END) + 1] if END in text else text
        for text in itertools.product(range(TOKENS), repeat=LENGTH)
    }


def test_one_row_that_can_only_go_one_way_goes_it() -> None:
    step = GumbelTopKStep(3, 0.7, torch.Generator())
    only = torch.tensor([[-math.inf, 4.0, -math.inf]]).expand(3, -1)

    drawn = [step(only).tokens.tolist() for _ in range(5)]

    assert drawn == [[1, 1, 1]] * 5


def test_logits_of_any_size_are_drawn_from() -> None:
    step = GumbelTopKStep(2, 0.05, torch.Generator())
    largest = torch.finfo(torch.float32).max
    logits = torch.tensor([[largest, -largest, 0.0, -math.inf]]).expand(2, -1)

    for _ in range(3):
        draw = step(logits)

        assert draw.tokens[0] == 0
        assert (draw.tokens < 3).all()


# The noise


def test_noise_is_gumbels() -> None:
    generator = torch.Generator().manual_seed(0)
    zeros = torch.zeros(200_000, dtype=torch.float64)

    noise = gumbel_like(zeros, generator)

    for point in (-2.0, -1.0, 0.0, 1.0, 3.0, 6.0):
        share = math.exp(-math.exp(-point))
        error = math.sqrt(share * (1 - share) / len(zeros))
        below = (noise < point).double().mean().item()
        assert below == pytest.approx(share, abs=4 * error)


def test_noise_is_finite_where_the_uniform_number_is_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def zeros(*size: object, generator: object, **more: Any) -> Tensor:
        return torch.zeros(3, **more)

    monkeypatch.setattr(torch, "rand", zeros)

    noise = gumbel_like(torch.ones(3, dtype=torch.float64), torch.Generator())

    assert noise.isfinite().all()


def test_keys_are_conditioned_by_the_formula() -> None:
    perturbed = torch.tensor([[2.0, 1.0, -1.0]], dtype=torch.float64)
    maximum = torch.tensor([0.5], dtype=torch.float64)

    keys = conditioned(perturbed, maximum)

    # e^-.5 = .60653, e^-2 = .13534
    # 2: -log(.60653) = .5
    # 1: -log(.60653 - .13534 + .36788) = -log .83908 = .17545
    # -1: -log(.60653 - .13534 + 2.71828) = -log 3.18948 = -1.15985
    assert keys[0].tolist() == pytest.approx([0.5, 0.17545, -1.15985], abs=1e-5)


@given(
    perturbed=st.lists(
        st.floats(-1e9, 1e9) | st.just(-math.inf), min_size=0, max_size=6
    ),
    largest=st.floats(-1e9, 1e9),
    maximum=st.floats(-1e9, 1e9),
)
def test_conditioned_keys_keep_their_order_under_their_maximum(
    perturbed: Sequence[float], largest: float, maximum: float
) -> None:
    rest = sorted((min(each, largest) for each in perturbed), reverse=True)
    ordered = torch.tensor([largest, *rest], dtype=torch.float64)

    keys = conditioned(ordered, torch.tensor(maximum, dtype=torch.float64))

    assert not keys.isnan().any()
    assert keys[0] == maximum
    assert (keys[1:] <= keys[:-1]).all()
    assert keys.isneginf().equal(ordered.isneginf())


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": 6}, {"k": 2}])
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        GumbelTopK.Settings.model_validate(wrong)
