"""Contrastive search: choices by hand, whole replies beside a plain implementation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
from plugins.samplers.contrastive import Contrastive, best, continuations, directions

Write = Callable[..., list[tuple[int, ...]]]
Text = tuple[int, ...]

VOCABULARY, END = 6, 5

# The logits of each token after the tokens so far.
Model = Callable[[Text], Sequence[float]]


class TestContrastiveKeepsTheContract(SamplerContract):
    @pytest.fixture
    def subject(self) -> Sampler:
        return Contrastive(Contrastive.Settings())


def a_search(alpha: float, window: int = 128) -> Contrastive:
    return Contrastive(Contrastive.Settings(alpha=alpha, window=window))


def exact(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# One choice


@pytest.mark.parametrize(
    ("alpha", "winner"),
    [
        (0.0, 0),
        # .9 · .6 - .1 · .9 = .45; .9 · .3 - .1 · .1 = .26; .9 · .1 = .09
        (0.1, 0),
        # .4 · .6 - .6 · .9 = -.30; .4 · .3 - .6 · .1 = .06; .4 · .1 = .04
        (0.6, 1),
        # -.9, -.1, 0
        (1.0, 2),
    ],
)
def test_novelty_counts_by_alpha(alpha: float, winner: int) -> None:
    chances, likeness = exact(0.6, 0.3, 0.1), exact(0.9, 0.1, 0.0)

    row = best(chances, likeness, torch.zeros(3, dtype=torch.bool), alpha)

    assert row == winner


@pytest.mark.parametrize(
    ("chance", "winner"), [(0.35, 0), (0.31, 0), (0.29, 2), (0.01, 2)]
)
@pytest.mark.parametrize("alpha", [0.6, 0.9, 1.0])
def test_an_end_wins_when_it_is_likelier_than_the_best_of_the_others(
    alpha: float, chance: float, winner: int
) -> None:
    # Of rows 1 and 2 the second wins, though it is less likely than the first.
    chances, likeness = exact(chance, 0.32, 0.3), exact(0.0, 0.9, -0.2)
    ended = torch.tensor([True, False, False])

    assert best(chances, likeness, ended, alpha) == winner


def test_of_several_ends_alone_the_likeliest_wins() -> None:
    row = best(exact(0.2, 0.5), exact(0.0, 0.0), torch.tensor([True, True]), 0.6)

    assert row == 1


def test_states_are_compared_by_direction_round_their_mean() -> None:
    states = directions(
        torch.tensor([[1.0, 2.0, 3.0], [10.0, 11.0, 12.0], [6.0, 4.0, 2.0]])
    )

    # (-1, 0, 1), the same, and (2, 0, -2)
    assert states[0].tolist() == pytest.approx([-math.sqrt(0.5), 0, math.sqrt(0.5)])
    cosines = [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    assert (states @ states.T).numpy() == pytest.approx(np.array(cosines))


def test_what_is_impossible_is_neither_like_nor_unlike() -> None:
    states = directions(torch.tensor([[1.0, 3.0, -math.inf], [-math.inf, 2.0, 4.0]]))

    # (-1, 1, 0) and (0, -1, 1), which have the product -1
    assert (states @ states.T)[0, 1].item() == pytest.approx(-0.5)


@given(
    rows=st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False)
            | st.just(-math.inf),
            min_size=4,
            max_size=4,
        ).filter(lambda row: max(row) > -math.inf),
        min_size=1,
        max_size=4,
    )
)
def test_directions_have_length_one_or_none(rows: list[list[float]]) -> None:
    lengths = directions(torch.tensor(rows)).norm(dim=1)

    assert not lengths.isnan().any()
    assert (lengths < 1 + 1e-5).all()


def test_where_too_few_tokens_are_possible_the_likeliest_is_repeated() -> None:
    logits = exact(0.25, 0.75, 0.0, 0.0).log()

    chances, tokens = continuations(logits, 5)

    assert tokens.tolist() == [1, 0, 1, 1, 1]
    assert chances.tolist() == pytest.approx([0.75, 0.25, 0.75, 0.75, 0.75])


# Whole replies


def random_model(seed: int) -> Model:
    def logits(text: Text) -> Sequence[float]:
        rng = np.random.default_rng([seed, *text])
        drawn: list[float] = rng.normal(scale=2, size=VOCABULARY).tolist()
        return drawn

    return logits


def centred(values: Sequence[float]) -> NDArray[np.float64]:
    state = np.array(values) - np.mean(values)
    unit: NDArray[np.float64] = state / np.linalg.norm(state)
    return unit


def textbook(model: Model, beams: int, limit: int, asked: Contrastive.Settings) -> Text:
    """As it is explained: look one token ahead of each choice, and pick one."""
    text: Text = ()
    states = [centred(model(text))]
    while True:
        weights = np.exp(model(text))
        chances = weights / weights.sum()
        choices = np.argsort(-chances)[:beams].tolist()
        if len(text) == limit - 1:
            return (*text, choices[0])
        scores = {
            token: (1 - asked.alpha) * chances[token]
            - asked.alpha
            * max(
                centred(model((*text, token))) @ state
                for state in states[-asked.window :]
            )
            for token in choices
            if token != END
        }
        chosen = max(scores, key=scores.__getitem__, default=END)
        if END in choices and chances[END] > chances[chosen]:
            chosen = END
        text = (*text, chosen)
        if chosen == END:
            return text
        states.append(centred(model(text)))


@given(
    seed=st.integers(0, 2**32),
    beams=st.integers(1, VOCABULARY + 2),
    limit=st.integers(1, 10),
    asked=st.builds(
        Contrastive.Settings,
        alpha=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
        window=st.sampled_from([1, 2, 128]),
    ),
)
@settings(max_examples=100, deadline=None)
def test_row_0_is_the_textbooks_reply(
    write: Write, seed: int, beams: int, limit: int, asked: Contrastive.Settings
) -> None:
    model = random_model(seed)

    found = write(Contrastive(asked), model, siblings=beams, limit=limit, end=END)

    assert found[0] == textbook(model, beams, limit, asked)


@given(seed=st.integers(0, 2**32), beams=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_rows_are_one_reply_that_differs_at_most_in_an_unjudged_last_token(
    write: Write, seed: int, beams: int
) -> None:
    limit = 8

    found = write(
        a_search(0.6), random_model(seed), siblings=beams, limit=limit, end=END
    )

    cut_short = len(found[0]) == limit
    assert {text[: limit - 1] for text in found} == {found[0][: limit - 1]}
    assert len(set(found)) == (beams if cut_short else 1)
    assert cut_short or found[0][-1] == END


def greedy(model: Model, limit: int) -> Text:
    text: Text = ()
    while len(text) < limit and END not in text:
        text = (*text, int(np.argmax(model(text))))
    return text


@pytest.mark.parametrize(("alpha", "siblings"), [(0.6, 1), (1.0, 1), (0.0, 5)])
@pytest.mark.parametrize("seed", range(5))
def test_one_candidate_or_no_alpha_is_greedy(
    write: Write, alpha: float, siblings: int, seed: int
) -> None:
    model = random_model(seed)

    found = write(a_search(alpha), model, siblings=siblings, limit=9, end=END)

    assert found[0] == greedy(model, 9)


def test_a_model_that_turns_in_circles_is_led_out(write: Write) -> None:
    def circling(text: Text) -> Sequence[float]:
        if 2 in text:
            return [0.0, 0.0, 0.0, 0.0, 0.0, 5.0]
        # 0 and 1 lead to each other; 2 is possible, and ends it.
        last = text[-1] if text else 1
        return [2.0 * last, 2.0 - 2.0 * last, 1.5, -3.0, -3.0, -5.0]

    search = a_search(0.6)

    assert greedy(circling, 8) == (0, 1) * 4
    [reply] = set(write(search, circling, siblings=3, limit=8, end=END))
    assert reply[-2:] == (2, END)


def test_rows_that_a_processor_leaves_one_token_go_on() -> None:
    step = a_search(0.6).begin(a_turn(), 3, torch.Generator())
    only = torch.tensor([[-math.inf, 4.0, -math.inf]]).expand(3, -1)
    free = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(3, -1)

    drawn = [step(logits).tokens.tolist() for logits in (only, only, free)]

    assert drawn == [[1, 1, 1], [1, 1, 1], [0, 1, 2]]


@pytest.mark.parametrize("wrong", [{"alpha": 1.1}, {"window": 0}, {"k": 4}])
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Contrastive.Settings.model_validate(wrong)
