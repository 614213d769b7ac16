"""Arithmetic sampling: what each sibling draws, exactly, and how they are spread."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from bot.interfaces import Sampler
from bot.testing import a_turn
from bot.testing.contracts import SamplerContract
from plugins.samplers.arithmetic import (
    Arithmetic,
    ArithmeticStep,
    located,
    shared_out,
    spread,
)

Write = Callable[..., list[tuple[int, ...]]]

# A model of four tokens that looks at the last one only. A text has at most three
# tokens and may end before; what it would then be padded with is END again.
TOKENS, START, END, LENGTH = 4, 4, 3, 3

WHOLE = Arithmetic.Settings(temperature=1, top_k=0, top_p=1)


class TestArithmeticKeepsTheContract(SamplerContract):
    @pytest.fixture
    def subject(self) -> Sampler:
        return Arithmetic(Arithmetic.Settings())


class TestArithmeticOverTheWholeVocabularyKeepsTheContract(SamplerContract):
    @pytest.fixture
    def subject(self) -> Sampler:
        return Arithmetic(WHOLE)


def exact(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def shares(logits: Tensor, asked: Arithmetic.Settings) -> tuple[Tensor, Tensor]:
    return shared_out(
        logits, temperature=asked.temperature, top_k=asked.top_k, top_p=asked.top_p
    )


# Codes


def test_codes_lie_at_equal_distances_on_a_circle() -> None:
    codes = spread(4, exact(0.2))

    # 1/8, 3/8, 5/8 and 7/8, and .2 more: the last passes 1
    assert codes.tolist() == pytest.approx([0.325, 0.575, 0.825, 0.075])


def test_a_code_is_found_in_its_share_and_rescaled_to_it() -> None:
    ends = exact(0.5, 0.8, 1.0).expand(3, -1).contiguous()

    places, within, widths = located(ends, exact(0.25, 0.6, 0.95))

    assert places.tolist() == [0, 1, 2]
    assert widths.tolist() == pytest.approx([0.5, 0.3, 0.2])
    # The second is .1 into a share of .3, and so on.
    assert within.tolist() == pytest.approx([0.5, 1 / 3, 0.75])


def test_a_code_on_a_border_lies_in_the_share_that_begins_there() -> None:
    ends = exact(0.0, 0.5, 0.5, 1.0).expand(2, -1).contiguous()

    places, within, _ = located(ends, exact(0.0, 0.5))

    assert places.tolist() == [1, 3]
    assert within.tolist() == [0.0, 0.0]


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=20).filter(any),
    code=st.floats(0, 1, exclude_max=True),
)
def test_a_code_stays_a_code_and_finds_what_is_possible(
    weights: list[float], code: float
) -> None:
    ends = exact(*weights).cumsum(0)
    ends = (ends / ends[-1]).unsqueeze(0)

    places, within, widths = located(ends, exact(code))

    assert weights[int(places)] > 0
    assert 0 <= within.item() < 1
    assert 0 < widths.item() <= 1


# Shares


def expected_distribution(
    logits: NDArray[np.float64], asked: Arithmetic.Settings
) -> NDArray[np.float64]:
    """The textbook's way: sort the whole vocabulary, one row, in float64."""
    order = np.argsort(-logits, kind="stable")
    weights = np.exp((logits - logits.max()) / asked.temperature)
    if asked.top_k:
        weights[order[asked.top_k :]] = 0
    weights /= weights.sum()
    reached = 0.0
    for token in order:
        if reached >= asked.top_p:
            weights[token] = 0
        reached += weights[token]
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


@pytest.mark.parametrize(
    ("asked", "possible"),
    [
        (WHOLE, 10),
        (Arithmetic.Settings(temperature=0.7, top_k=5, top_p=1), 5),
        (Arithmetic.Settings(temperature=2, top_k=6, top_p=0.8), 5),
        (Arithmetic.Settings(temperature=1, top_k=0, top_p=0.5), 2),
        (Arithmetic.Settings(temperature=1, top_k=99, top_p=0.001), 1),
    ],
)
def test_a_tokens_share_is_its_chance_after_truncation(
    asked: Arithmetic.Settings, possible: int
) -> None:
    logits = torch.tensor([2.0, 0.1, 1.5, -1.0, 0.7, 1.0, -0.4, 0.4, -2.0, 1.8])

    ends, tokens = shares(logits.unsqueeze(0), asked)

    found = np.zeros(10)
    found[tokens[0].numpy()] = np.diff(ends[0].numpy(), prepend=0.0)
    expected = expected_distribution(logits.double().numpy(), asked)
    assert np.count_nonzero(found) == possible
    assert found == pytest.approx(expected)


def test_a_token_that_reaches_top_p_is_the_last_kept() -> None:
    asked = Arithmetic.Settings(temperature=1, top_k=0, top_p=0.5)

    ends, _ = shares(torch.zeros(1, 2), asked)

    assert ends[0].diff(prepend=exact(0.0)).count_nonzero() == 1


@given(
    logits=st.lists(st.floats(-20, 20, width=32) | st.just(-math.inf), max_size=30),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
)
@settings(deadline=None)
def test_shares_follow_each_other_from_0_to_1_in_the_order_of_ids(
    logits: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    row = torch.tensor([[*logits, 0.0]])

    ends, tokens = shared_out(row, temperature=temperature, top_k=top_k, top_p=top_p)

    assert (ends.diff(dim=1) >= 0).all()
    assert ends[0, -1] == 1
    assert (tokens.diff(dim=1) > 0).all()
    assert tokens.shape[1] == min(top_k or row.shape[1], row.shape[1])


# Whole texts


def markov(seed: int = 3) -> Tensor:
    """Return logits [5, 4] after each token and, last, at the start."""
    chances = np.random.default_rng(seed).dirichlet([1.5] * TOKENS, size=TOKENS + 1)
    logits = torch.tensor(chances).log()
    logits[END] = torch.tensor([-math.inf, -math.inf, -math.inf, 0.0])
    return logits


def chances_of_texts(model: Tensor) -> NDArray[np.float64]:
    """Return P of all 64 padded texts, in the order of their digits; most are 0."""
    steps = np.exp(model.numpy())
    return np.array(
        [
            math.prod(steps[last, token] for last, token in itertools.pairwise(text))
            for text in itertools.product([START], *[range(TOKENS)] * LENGTH)
        ]
    )


def samples(model: Tensor, siblings: int, runs: int, length: int) -> NDArray[np.int64]:
    """Return the tokens [runs, k, length] drawn, all runs beside each other."""
    generator = torch.Generator().manual_seed(0)
    shifts = torch.rand(runs, 1, generator=generator, dtype=torch.float64)
    step = ArithmeticStep(
        spread(siblings, shifts),
        temperature=1,
        top_k=0,
        top_p=1,
        generator=generator,
    )
    last = torch.full((runs, siblings), START)
    drawn = []
    for _ in range(length):
        last = step(model[last]).tokens
        drawn.append(last)
    texts: NDArray[np.int64] = torch.stack(drawn, dim=-1).numpy()
    return texts


@pytest.mark.parametrize("sibling", [0, 1, 2])
def test_each_sibling_is_an_ordinary_sample(sibling: int) -> None:
    model = markov()
    chances = chances_of_texts(model)

    texts = samples(model, 3, 100_000, LENGTH)[:, sibling]

    counts = np.bincount(texts @ [16, 4, 1], minlength=64)
    possible = chances > 0
    expected = len(texts) * chances[possible]
    assert possible.sum() == 40
    assert expected.min() > 5
    assert counts[~possible].sum() == 0
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    assert chi_square < 72.05  # p = .001 at 39 degrees of freedom


@given(
    weights=st.lists(st.floats(0.001, 1), min_size=1, max_size=12),
    siblings=st.integers(1, 20),
    shift=st.floats(0, 1, exclude_max=True),
)
@settings(deadline=None)
def test_a_token_is_drawn_by_k_p_siblings_rounded_up_or_down(
    weights: list[float], siblings: int, shift: float
) -> None:
    chances = exact(*weights) / sum(weights)
    step = ArithmeticStep(
        spread(siblings, exact(shift)),
        temperature=1,
        top_k=0,
        top_p=1,
        generator=torch.Generator(),
    )

    drawn = step(chances.log().expand(siblings, -1)).tokens

    assert_shared_out(drawn.bincount(minlength=len(weights)).numpy(), chances.numpy())


def assert_shared_out(counts: NDArray[np.int64], chances: NDArray[np.float64]) -> None:
    fair = counts.sum() * chances
    # Where a share ends on a code, rounding decides.
    assert (counts >= np.floor(fair - 1e-9)).all()
    assert (counts <= np.ceil(fair + 1e-9)).all()


@pytest.mark.parametrize("siblings", [1, 7, 64, 500])
def test_a_text_is_written_by_k_p_siblings_rounded_up_or_down(siblings: int) -> None:
    model = markov()

    runs = samples(model, siblings, 50, LENGTH)

    chances = chances_of_texts(model)
    for texts in runs:
        counts = np.bincount(texts @ [16, 4, 1], minlength=64)
        assert_shared_out(counts, chances)


def test_a_long_text_is_as_random_at_its_end_as_at_its_beginning() -> None:
    # Two siblings share a first token at most, and have each a code of its own then.
    uniform = torch.zeros(TOKENS + 1, TOKENS)

    texts = samples(uniform, 2, 2_000, 60)

    for sibling in (0, 1):
        last_two = np.bincount(texts[:, sibling, -2:] @ [4, 1], minlength=16)
        expected = 2_000 / 16
        chi_square = ((last_two - expected) ** 2 / expected).sum()
        assert chi_square < 37.70  # p = .001 at 15 degrees of freedom
    same = (texts[:, 0, -1] == texts[:, 1, -1]).mean()
    assert same == pytest.approx(1 / 4, abs=4 * math.sqrt(3 / 16 / 2_000))


def test_a_seed_draws_the_same_although_logits_are_rounded_otherwise() -> None:
    # As they are when other sets are in the batch, or the prompt is known already.
    noise = np.random.default_rng(5)
    logits = torch.tensor(noise.normal(scale=2, size=(60, 8, 300)), dtype=torch.float32)
    rounding = torch.tensor(noise.normal(scale=1e-6, size=logits.shape)).float()
    steps = [Arithmetic(WHOLE).begin(a_turn(), 8, seeded(3)) for _ in range(2)]

    drawn = [steps[0](each).tokens.tolist() for each in logits]
    again = [steps[1](each).tokens.tolist() for each in logits + rounding]

    assert drawn == again


def test_a_sibling_alone_with_its_text_gets_a_new_code() -> None:
    # P is 1/2 for each token: two of four siblings share the first, none the second.
    step = Arithmetic(WHOLE).begin(a_turn(), 4, seeded(3))
    halves = torch.zeros(4, 2)

    first = step(halves).tokens
    shared = step._codes
    step(halves)
    step(halves)
    alone = step._codes

    assert first.bincount().tolist() == [2, 2]
    # Codes that are shared out lie 2/4 apart after the first token, new ones anywhere.
    for token in (0, 1):
        apart = shared[first == token].diff().abs().item()
        assert apart == pytest.approx(0.5)
        assert alone[first == token].diff().abs().item() != pytest.approx(0.5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_core_is_given_texts_that_end(write: Write) -> None:
    model = markov()
    rows = [model[token].tolist() for token in range(TOKENS + 1)]

    texts = write(
        Arithmetic(WHOLE),
        lambda text: rows[text[-1] if text else START],
        siblings=200,
        limit=LENGTH,
        end=END,
    )

    padded = np.array([(*text, END, END)[:LENGTH] for text in texts])
    counts = np.bincount(padded @ [16, 4, 1], minlength=64)
    assert_shared_out(counts, chances_of_texts(model))


def test_another_turns_generator_shifts_the_codes() -> None:
    flat = torch.zeros(1, 1000)
    sampler = Arithmetic(WHOLE)

    drawn = set()
    for seed in range(10):
        step = sampler.begin(a_turn(), 1, torch.Generator().manual_seed(seed))
        drawn.add(step(flat).tokens.item())

    assert len(drawn) == 10


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"top_k": -1}, {"top_p": 0}, {"topk": 5}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Arithmetic.Settings.model_validate(wrong)
