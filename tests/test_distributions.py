"""The numbers that several plugins compare by: searches, tokens, labels, totals."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bot.distributions import (
    UNUSED,
    comparable,
    entropy,
    finished,
    finite_logits,
    first_alone,
    length_penalty,
    likeliest,
    mean_log_prob,
    scaled,
    softmax,
)

ANY = st.floats(width=32)
UNKNOWN = [None, math.nan, math.inf, -math.inf]
TOTALS = st.lists(st.sampled_from(UNKNOWN) | st.floats(-1e300, 1e300), max_size=6)


def test_scorers_and_rerankers_load_no_torch() -> None:
    program = "import sys, bot.distributions; print('torch' in sys.modules)"

    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert printed.stdout == "False\n"


# Searches


def test_of_rows_that_begin_as_one_text_the_first_may_continue_it() -> None:
    sums = first_alone(3)

    assert sums.tolist() == [0, UNUSED, UNUSED]
    assert sums.dtype == torch.float64


def test_the_likeliest_tokens_come_with_their_own_log_probabilities() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3], [0.8, 0.1, 0.1]]).log()

    log_probs, tokens = likeliest(logits, 2)

    assert log_probs.exp().tolist() == [
        pytest.approx([0.5, 0.3]),
        pytest.approx([0.8, 0.1]),
    ]
    assert tokens[0].tolist() == [1, 2]
    assert log_probs.dtype == torch.float64


def test_there_are_no_more_likely_tokens_than_the_vocabulary_has() -> None:
    log_probs, tokens = likeliest(torch.zeros(4, 2), 4)

    assert log_probs.shape == tokens.shape == (4, 2)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([-torch.inf, 0.0, -torch.inf], True),
        ([-torch.inf, 1.5, -torch.inf], False),  # all that a processor left
        ([-torch.inf, 0.0, -3.0], False),
        ([-torch.inf, -torch.inf, -torch.inf], False),
    ],
)
def test_a_row_has_ended_when_one_token_is_left_at_zero(
    row: list[float], *, expected: bool
) -> None:
    logits = torch.tensor([row, [0.0, 0.0, 0.0]])

    assert finished(logits).tolist() == [expected, False]


@pytest.mark.parametrize(("exponent", "expected"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_the_length_penalty_is_the_papers(exponent: float, expected: float) -> None:
    # (5 + 7) / 6 = 2, and (5 + 1) / 6 = 1.
    found = length_penalty(torch.tensor([7, 1]), exponent)

    assert found.tolist() == pytest.approx([expected, 1.0])


# Tokens


def test_the_entropy_of_a_row_with_one_token_left_is_nothing() -> None:
    log_probs = torch.tensor([[0.0, -torch.inf], [math.log(0.5), math.log(0.5)]])

    found = entropy(log_probs)

    assert found.flatten().tolist() == pytest.approx([0.0, math.log(2)])
    assert found.shape == (2, 1)


@given(st.lists(st.floats(-(2**99), 2**99, width=32), min_size=1, max_size=8))
def test_the_entropy_lies_between_nothing_and_that_of_equal_tokens(
    logits: list[float],
) -> None:
    found = float(entropy(torch.tensor([logits]).log_softmax(dim=-1)))

    assert -1e-6 <= found <= math.log(len(logits)) + 1e-4


@pytest.mark.parametrize(
    ("log_probs", "exponent", "expected"),
    [
        ([-1.0, -2.0, -6.0], 1.0, -3.0),  # -9 / 3
        ([-1.0, -2.0, -6.0], 0.0, -9.0),
        ([-1.0, -2.0, -6.0, -3.0], 0.5, -6.0),  # -12 / 2
        ([-math.inf, -10.0], 1.0, -30.0),  # impossible counts as -50
        ([math.nan, -10.0], 1.0, -30.0),
        ([math.inf, 3.0], 1.0, 0.0),  # no probability is above one
        ([], 1.0, 0.0),
        ([], 0.0, 0.0),
    ],
)
def test_log_probabilities_are_averaged_within_their_bounds(
    log_probs: list[float], exponent: float, expected: float
) -> None:
    assert mean_log_prob(log_probs, exponent) == pytest.approx(expected)


@given(log_probs=st.lists(ANY, max_size=8))
def test_a_mean_log_probability_lies_between_minus_50_and_0(
    log_probs: list[float],
) -> None:
    assert -50 <= mean_log_prob(np.array(log_probs, np.float32)) <= 0


# Labels of a classifier


def test_probabilities_of_labels_are_the_softmax() -> None:
    logits = np.log(np.array([[1, 3], [2, 2]], np.float32))

    found = softmax(logits)

    assert found.tolist() == [pytest.approx([0.25, 0.75]), pytest.approx([0.5, 0.5])]


def test_a_logit_that_is_no_number_speaks_for_nothing() -> None:
    logits = np.array([[np.nan, 0.0, -np.inf, np.inf]], np.float32)

    assert finite_logits(logits).tolist() == [[0, 0, -1e4, 1e4]]
    assert softmax(logits[:, :3]).tolist() == [[0.5, 0.5, 0.0]]


@given(st.lists(st.tuples(ANY, ANY, ANY), max_size=4))
def test_probabilities_sum_to_one_whatever_the_logits(
    rows: list[tuple[float, float, float]],
) -> None:
    found = softmax(np.array(rows, np.float32).reshape(-1, 3))

    assert found.sum(axis=1).tolist() == pytest.approx([1.0] * len(rows))
    assert (found >= 0).all()


def test_no_labels_have_no_probabilities() -> None:
    assert softmax(np.zeros((2, 0), np.float32)).shape == (2, 0)


# Totals of candidates


@pytest.mark.parametrize("total", UNKNOWN)
def test_a_total_that_is_no_number_is_below_all_others(total: float | None) -> None:
    assert comparable(total) < comparable(-1e308)


@given(totals=TOTALS)
def test_scaled_totals_lie_between_0_and_1_and_keep_their_order(
    totals: list[float | None],
) -> None:
    found = scaled(totals)

    assert all(0 <= one <= 1 for one in found)
    order = sorted(range(len(totals)), key=lambda place: comparable(totals[place]))
    assert all(np.diff(found[order]) >= 0)
