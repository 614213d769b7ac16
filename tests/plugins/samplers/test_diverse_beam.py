"""Diverse beam search: steps by hand, whole searches beside a plain implementation."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import Sampler, SamplerStep
from bot.testing import a_turn
from bot.testing.contracts import SamplerContract
from plugins.samplers.beam import Beam
from plugins.samplers.diverse_beam import DiverseBeam, group_sizes

Write = Callable[..., list[tuple[int, ...]]]
Text = tuple[int, ...]

A, B, C, END = 0, 1, 2, 3
TOKENS = (A, B, C, END)

# The chances of each token after the tokens so far.
Chances = Callable[[Text], Sequence[float]]


class TestDiverseBeamKeepsTheContract(SamplerContract):
    @pytest.fixture
    def subject(self) -> Sampler:
        return DiverseBeam(DiverseBeam.Settings(groups=2))


def a_search(groups: int, strength: float, length_penalty: float = 0.0) -> DiverseBeam:
    return DiverseBeam(
        DiverseBeam.Settings(
            groups=groups, strength=strength, length_penalty=length_penalty
        )
    )


def begun(beams: int, groups: int, strength: float, **more: float) -> SamplerStep:
    search = a_search(groups, strength, **more)
    return search.begin(a_turn(), beams, torch.Generator())


def logits(*rows: Sequence[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


# Steps


@pytest.mark.parametrize(
    ("strength", "tokens"),
    [
        # A: log .5 = -.69; B: log .3 = -1.20; C: log .2 = -1.61
        (0.0, [A, A, A]),
        # A once used: -.99, twice: -1.29
        (0.3, [A, A, B]),
        # A once used: -1.29; then B once used: -1.80
        (0.6, [A, B, A]),
        # A once used: -2.69; then B once used: -3.20
        (2.0, [A, B, C]),
    ],
)
def test_a_token_costs_strength_for_each_earlier_use(
    strength: float, tokens: list[int]
) -> None:
    row = (0.5, 0.3, 0.2, 0.0)

    draw = begun(3, groups=3, strength=strength)(logits(row, row, row))

    assert draw.tokens.tolist() == tokens


def test_a_group_goes_on_from_its_own_beams_alone() -> None:
    step = begun(4, groups=2, strength=5.0)
    step(logits(*[(0.4, 0.3, 0.2, 0.1)] * 4))
    sure, unsure = (1.0, 0.0, 0.0, 0.0), (0.3, 0.25, 0.25, 0.2)

    # The first group holds A and B, the second, kept from both, C and END.
    draw = step(logits(unsure, unsure, sure, sure))

    assert draw.parents is not None
    assert draw.parents.tolist() == [0, 0, 2, 3]


def test_what_was_paid_in_one_step_is_not_paid_again() -> None:
    step = begun(3, groups=2, strength=0.5)
    first = (0.5, 0.3, 0.2, 0.0)
    # Beams: A and B; then A again, since -.69 - .5 = -1.19 is above C's -1.61 and,
    # barely, above what B costs, -1.20 - .5.
    step(logits(first, first, first))
    rows = (0.9, 0.1, 0.0, 0.0), (0.0, 0.1, 0.9, 0.0), (0.0, 0.4, 0.0, 0.6)

    # First group: A A .45, B C .27. Second: A END .3, A B .2; nothing of it was used.
    draw = step(logits(*rows))

    assert draw.parents is not None
    assert draw.parents.tolist() == [0, 1, 2]
    assert draw.tokens.tolist() == [A, C, END]


def test_the_price_is_in_nats_at_any_length() -> None:
    step = begun(2, groups=2, strength=0.3, length_penalty=5.0)
    # A: log .6 - .3 = -.81; B: log .3 = -1.20
    step(logits(*[(0.6, 0.3, 0.1, 0.0)] * 2))

    # A A: log .3 - .3 = -1.50; A B: log .18 = -1.71; both / (7 / 6)^5 = 2.16. Taken
    # off afterwards, the price would decide: -.56 - .3 = -.86 and -.79.
    draw = step(logits(*[(0.5, 0.3, 0.2, 0.0)] * 2))

    assert draw.tokens.tolist() == [A, A]


def test_a_beam_that_has_ended_neither_pays_nor_counts() -> None:
    step = begun(3, groups=3, strength=50.0)
    first = (0.0, 0.0, 0.3, 0.7)
    # END, C, and END again at the price of 50: the other tokens are impossible.
    step(logits(first, first, first))
    ended = (0.0, 0.0, 0.0, 1.0)

    # END is what an ended beam is padded with. It costs C END nothing, though END
    # stands before it, and costs the third beam nothing, though C draws END.
    draw = step(logits(ended, (0.0, 0.0, 0.1, 0.9), ended))

    assert draw.parents is not None
    assert draw.parents.tolist() == [0, 1, 2]
    assert draw.tokens.tolist() == [END, END, END]


@pytest.mark.parametrize(
    ("beams", "groups", "sizes"),
    [
        (8, 4, [2, 2, 2, 2]),
        (8, 3, [3, 3, 2]),
        (5, 4, [2, 1, 1, 1]),
        (3, 4, [1, 1, 1]),
        (1, 4, [1]),
        (6, 1, [6]),
    ],
)
def test_groups_are_as_equal_as_can_be(
    beams: int, groups: int, sizes: list[int]
) -> None:
    assert group_sizes(beams, groups) == sizes


# Searches


def textbook(
    chances: Chances, sizes: Sequence[int], steps: int, asked: DiverseBeam.Settings
) -> list[Text]:
    """As it is explained: list all continuations, take off what was used, sort."""

    def log_p(text: Text) -> float:
        return sum(math.log(chances(text[:n])[t]) for n, t in enumerate(text))

    def continuations(kept: Sequence[Text], used: Counter[int]) -> list[Text]:
        def score(text: Text) -> float:
            uses = 0 if text in kept else used[text[-1]]
            length = math.pow((5 + len(text)) / 6, asked.length_penalty)
            return (log_p(text) - asked.strength * uses) / length

        longer = [
            (*text, token)
            for text in kept
            if END not in text
            for token in TOKENS
            if chances(text)[token] > 0
        ]
        finished = [text for text in kept if END in text]
        return sorted([*longer, *finished], key=score, reverse=True)

    groups: list[list[Text]] = [[()] for _ in sizes]
    for _ in range(steps):
        used = Counter[int]()
        for number, size in enumerate(sizes):
            before = groups[number]
            groups[number] = continuations(before, used)[:size]
            used.update(text[-1] for text in groups[number] if text not in before)
    return [text for group in groups for text in group]


def random_chances(seed: int) -> Chances:
    def chances(text: Text) -> Sequence[float]:
        rng = np.random.default_rng([seed, *text])
        drawn: list[float] = rng.dirichlet([1.0] * len(TOKENS)).tolist()
        return drawn

    return chances


def as_logits(chances: Chances) -> Chances:
    return lambda text: [math.log(chance) for chance in chances(text)]


@given(
    seed=st.integers(0, 2**32),
    beams=st.integers(1, 8),
    steps=st.integers(1, 5),
    asked=st.builds(
        DiverseBeam.Settings,
        groups=st.integers(1, 9),
        strength=st.sampled_from([0.0, 0.3, 2.0]),
        length_penalty=st.sampled_from([0.0, 0.6, 2.0]),
    ),
)
@settings(max_examples=100, deadline=None)
def test_a_search_equals_the_textbooks(
    write: Write, seed: int, beams: int, steps: int, asked: DiverseBeam.Settings
) -> None:
    chances = random_chances(seed)
    sizes = [
        len(part) for part in np.array_split(range(beams), min(asked.groups, beams))
    ]
    # A group of more beams than there are texts holds copies, and a textbook's none.
    assume(steps > 1 or max(sizes) <= len(TOKENS))

    found = write(
        DiverseBeam(asked), as_logits(chances), siblings=beams, limit=steps, end=END
    )

    assert found == textbook(chances, sizes, steps, asked)


@given(
    seed=st.integers(0, 2**32),
    beams=st.integers(1, 8),
    steps=st.integers(1, 5),
    length_penalty=st.sampled_from([0.0, 0.6, 2.0]),
)
@settings(max_examples=50, deadline=None)
def test_one_group_is_beam_search(
    write: Write, seed: int, beams: int, steps: int, length_penalty: float
) -> None:
    model = as_logits(random_chances(seed))
    beam = Beam(Beam.Settings(length_penalty=length_penalty))
    size = {"siblings": beams, "limit": steps, "end": END}

    found = write(a_search(1, 3.0, length_penalty), model, **size)

    assert found == write(beam, model, **size)


@given(seed=st.integers(0, 2**32), strength=st.floats(0, 10))
@settings(max_examples=30, deadline=None)
def test_the_first_group_is_beam_search_whatever_the_others_pay(
    write: Write, seed: int, strength: float
) -> None:
    model = as_logits(random_chances(seed))
    beam = Beam(Beam.Settings(length_penalty=0))

    found = write(a_search(3, strength), model, siblings=9, limit=4, end=END)

    assert found[:3] == write(beam, model, siblings=3, limit=4, end=END)


def test_groups_that_pay_nothing_find_the_same(write: Write) -> None:
    model = as_logits(random_chances(1))

    found = write(a_search(3, 0.0), model, siblings=6, limit=4, end=END)

    assert found == found[:2] * 3


def test_groups_that_pay_enough_never_agree_on_a_token(write: Write) -> None:
    chances = random_chances(2)

    def endless(text: Text) -> Sequence[float]:
        return [math.log(chance) for chance in chances(text)[:END]]

    found = write(a_search(3, 100.0), endless, siblings=3, limit=6)

    for one, other in itertools.combinations(found, 2):
        assert all(a != b for a, b in zip(one, other, strict=True))


def test_beams_beyond_the_number_of_texts_are_copies_of_possible_ones(
    write: Write,
) -> None:
    def only_a(text: Text) -> Sequence[float]:
        return [0.0, -math.inf, -math.inf, -math.inf]

    found = write(a_search(2, 0.5), only_a, siblings=5, limit=3, end=END)

    assert found == [(A, A, A)] * 5


def test_copies_cost_later_groups_nothing() -> None:
    row = (0.6, 0.4, 0.0, 0.0)

    draw = begun(5, groups=2, strength=0.45)(logits(*[row] * 5))

    # The first group holds A, B and a copy of A. A: log .6 - .45 = -.96, and not
    # -1.41; B: log .4 - .45 = -1.37
    assert draw.tokens.tolist() == [A, B, A, A, B]


@pytest.mark.parametrize(
    "wrong", [{"groups": 0}, {"strength": -1}, {"length_penalty": -0.1}, {"beams": 2}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        DiverseBeam.Settings.model_validate(wrong)
