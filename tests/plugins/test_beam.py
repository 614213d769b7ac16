"""Beam search: steps computed by hand, whole searches beside a plain implementation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import Sampler, SamplerStep
from bot.testing import a_turn
from bot.testing.contracts import SamplerContract
from plugins.samplers.beam import Beam

A, B, END = 0, 1, 2

# The chances of each token after the tokens so far.
Chances = Callable[[tuple[int, ...]], Sequence[float]]


class TestBeamKeepsTheContract(SamplerContract):
    @pytest.fixture
    def subject(self) -> Sampler:
        return Beam(Beam.Settings())


def begun(beams: int, length_penalty: float = 0.0) -> SamplerStep:
    beam = Beam(Beam.Settings(length_penalty=length_penalty))
    return beam.begin(a_turn(), beams, torch.Generator())


def logits(*rows: Sequence[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


# Steps


def test_the_first_step_takes_different_tokens_of_one_row() -> None:
    draw = begun(2)(logits((0.5, 0.4, 0.1), (0.5, 0.4, 0.1)))

    assert draw.parents is not None
    assert draw.parents.tolist() == [0, 0]
    assert draw.tokens.tolist() == [A, B]


def test_the_likelier_whole_comes_first_though_it_began_less_likely() -> None:
    step = begun(2)
    step(logits((0.6, 0.4, 0.0), (0.6, 0.4, 0.0)))

    # A A: .6 * .55 = .33, A B: .27, B A: .4 * .9 = .36, B B: .04
    draw = step(logits((0.55, 0.45, 0.0), (0.9, 0.1, 0.0)))

    assert draw.parents is not None
    assert draw.parents.tolist() == [1, 0]
    assert draw.tokens.tolist() == [A, A]


@pytest.mark.parametrize(
    ("length_penalty", "parents", "tokens"),
    [
        # END: log .4 = -.92; A A: log .36 = -1.02; A B: log .24 = -1.43
        (0.0, [1, 0], [END, A]),
        # A A: -1.02 / (7 / 6) = -.88; A B: -1.22
        (1.0, [0, 1], [A, END]),
        # A A: -1.02 / (7 / 6)^5 = -.47; A B: -.66
        (5.0, [0, 0], [A, B]),
    ],
)
def test_a_longer_beam_passes_a_finished_one_by_its_length_penalty(
    length_penalty: float, parents: list[int], tokens: list[int]
) -> None:
    step = begun(2, length_penalty)
    step(logits((0.6, 0.0, 0.4), (0.6, 0.0, 0.4)))

    draw = step(logits((0.6, 0.4, 0.0), (0.0, 0.0, 1.0)))

    assert draw.parents is not None
    assert draw.parents.tolist() == parents
    assert draw.tokens.tolist() == tokens


def test_one_token_left_by_a_processor_makes_a_beam_longer_but_does_not_end_it() -> (
    None
):
    step = begun(2, length_penalty=5.0)
    step(logits((0.6, 0.4, 0.0), (0.6, 0.4, 0.0)))
    only_a = [2.5, -math.inf, -math.inf]

    # A A: log .6 / (7 / 6)^5 = -.24; B A: log .4 / (7 / 6)^5 = -.42
    step(torch.tensor([only_a, only_a]))
    # A A A: log .54 / (8 / 6)^5 = -.15; B A A: -.22; A A B: log .06 / … = -.67
    draw = step(logits((0.9, 0.1, 0.0), (1.0, 0.0, 0.0)))

    assert draw.parents is not None
    assert draw.parents.tolist() == [0, 1]
    assert draw.tokens.tolist() == [A, A]


def test_one_beam_takes_the_likeliest_token() -> None:
    step = begun(1)

    drawn = [step(logits(row)).tokens.item() for row in ((0.2, 0.7, 0.1), (0.9, 0, 0))]

    assert drawn == [B, A]


def test_settings_have_bounds() -> None:
    with pytest.raises(ValidationError):
        Beam.Settings(length_penalty=-0.1)


# Searches


def searched(
    chances: Chances, beams: int, steps: int, length_penalty: float
) -> list[tuple[int, ...]]:
    """What the core does with the sampler's draws, on texts in place of tensors."""
    step = begun(beams, length_penalty)
    texts: list[tuple[int, ...]] = [()] * beams
    for _ in range(steps):
        draw = step(logits(*(as_fed(chances, text) for text in texts)))
        assert draw.parents is not None
        pairs = zip(draw.parents.tolist(), draw.tokens.tolist(), strict=True)
        texts = [grown(texts[parent], token) for parent, token in pairs]
    return texts


def as_fed(chances: Chances, text: tuple[int, ...]) -> Sequence[float]:
    return (0.0, 0.0, 1.0) if END in text else chances(text)


def grown(text: tuple[int, ...], token: int) -> tuple[int, ...]:
    return text if END in text else (*text, token)


def textbook(
    chances: Chances, beams: int, steps: int, length_penalty: float
) -> list[tuple[int, ...]]:
    """Beam search as it is explained: list all continuations, sort, keep the best."""

    def score(text: tuple[int, ...]) -> float:
        log_p = sum(math.log(chances(text[:n])[t]) for n, t in enumerate(text))
        return log_p / math.pow((5 + len(text)) / 6, length_penalty)

    kept: list[tuple[int, ...]] = [()]
    for _ in range(steps):
        open_texts = [text for text in kept if END not in text]
        longer = [(*text, token) for text in open_texts for token in (A, B, END)]
        finished = [text for text in kept if END in text]
        kept = sorted([*longer, *finished], key=score, reverse=True)[:beams]
    return kept


def random_chances(seed: int) -> Chances:
    def chances(text: tuple[int, ...]) -> Sequence[float]:
        rng = np.random.default_rng([seed, *text])
        drawn: list[float] = rng.dirichlet([1.0, 1.0, 1.0]).tolist()
        return drawn

    return chances


@given(
    seed=st.integers(0, 2**32),
    beams=st.integers(1, 3),
    steps=st.integers(1, 6),
    length_penalty=st.sampled_from([0.0, 0.6, 2.0]),
)
@settings(max_examples=150, deadline=None)
def test_a_search_equals_the_textbooks(
    seed: int, beams: int, steps: int, length_penalty: float
) -> None:
    chances = random_chances(seed)

    found = searched(chances, beams, steps, length_penalty)

    assert found == textbook(chances, beams, steps, length_penalty)


def test_enough_beams_find_the_likeliest_text_of_all() -> None:
    chances = random_chances(5)
    steps = 3
    every = {
        text[: text.index(END) + 1] if END in text else text
        for text in itertools.product((A, B, END), repeat=steps)
    }

    found = searched(chances, len(every), steps, length_penalty=0.0)

    likeliest = max(
        every,
        key=lambda text: math.prod(chances(text[:n])[t] for n, t in enumerate(text)),
    )
    assert found[0] == likeliest
    assert set(found) == every


def test_beams_beyond_the_number_of_texts_are_copies_of_possible_ones() -> None:
    found = searched(lambda _: (1.0, 0.0, 0.0), beams=3, steps=2, length_penalty=0.6)

    assert found == [(A, A)] * 3
