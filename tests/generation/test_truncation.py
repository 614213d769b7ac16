"""Truncation: what is drawn for many rows at once, against the exact distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.generation.decoding import Drawing, called
from bot.generation.truncation import SLICE, draw, truncation_of
from bot.interfaces import GenerationRequest, Truncation
from bot.testing import a_turn
from plugins.logits.min_p import MinP
from plugins.samplers.multinomial import Multinomial

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.slow  # test-fast does without

DRAWS = 6_000


def some_logits(vocabulary: int, spread: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(vocabulary, generator=generator) * spread


def some_uniforms(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def exact_chances(logits: Tensor, truncation: Truncation) -> Tensor:
    """The distribution as its definition says it, in float64, over a full sort."""
    if truncation.temperature == 0:
        return torch.zeros_like(logits.double()).index_fill(0, logits.argmax(), 1.0)
    values, ids = logits.double().sort(descending=True, stable=True)
    if truncation.min_p:
        floor = values[0] + math.log(truncation.min_p)
        values = values.masked_fill(values < floor, -math.inf)
    values = values / truncation.temperature
    if truncation.top_k:
        values[truncation.top_k :] = -math.inf
    chances = values.softmax(dim=0)
    before = chances.cumsum(dim=0) - chances
    chances = chances.masked_fill(before >= truncation.top_p, 0.0)
    return torch.zeros_like(chances).index_copy(0, ids, chances / chances.sum())


def assert_drawn_like(tokens: Tensor, chances: Tensor) -> None:
    """Chi-square over cells of five or more; five standard deviations are allowed."""
    counts = tokens.bincount(minlength=len(chances)).double()
    expected = chances * len(tokens)
    full = expected >= 5
    found = torch.cat([counts[full], counts[~full].sum().view(1)])
    wanted = torch.cat([expected[full], expected[~full].sum().view(1)])
    if wanted[-1] < 5:
        assert found[-1] < 5 * 5
        found, wanted = found[:-1], wanted[:-1]
    assert len(wanted) > 2, "too few cells to say anything"
    statistic = float(((found - wanted) ** 2 / wanted).sum())
    freedom = len(wanted) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


# Against the exact distribution

SETTINGS = {
    "all": Truncation(),
    "hot": Truncation(temperature=1.7),
    "cold": Truncation(temperature=0.4),
    "top-k": Truncation(top_k=20),
    "top-k wider than the slice": Truncation(top_k=SLICE + 50),
    "top-p": Truncation(top_p=0.6),
    "min-p": Truncation(min_p=0.02),
    "as shipped": Truncation(temperature=0.7, top_k=50, top_p=0.95),
    "everything": Truncation(temperature=1.3, top_k=40, top_p=0.8, min_p=0.01),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("vocabulary", [100, 600])
def test_tokens_are_drawn_as_often_as_the_settings_say(
    name: str, vocabulary: int
) -> None:
    logits, truncation = some_logits(vocabulary, spread=1.2), SETTINGS[name]

    tokens, _ = draw(
        logits.expand(DRAWS, -1), [truncation] * DRAWS, some_uniforms(DRAWS)
    )

    assert_drawn_like(tokens, exact_chances(logits, truncation))


def test_a_nucleus_wider_than_the_slice_is_drawn_from_whole() -> None:
    logits, truncation = some_logits(600, spread=0.3), Truncation(top_p=0.9)
    chances = exact_chances(logits, truncation)

    tokens, _ = draw(
        logits.expand(DRAWS, -1), [truncation] * DRAWS, some_uniforms(DRAWS)
    )

    assert int((chances > 0).sum()) > SLICE
    assert bool((chances[tokens] > 0).all())
    assert_drawn_like(tokens, chances)


def test_a_nucleus_wider_than_the_slice_is_a_share_of_what_min_p_keeps() -> None:
    # 400 likely tokens, of which top-p keeps 162, and 1000 that min-p cuts.
    logits = torch.cat([3.0 - torch.arange(400) * 0.002, torch.zeros(1000)])
    truncation = Truncation(min_p=0.2, top_p=0.5)
    chances = exact_chances(logits, truncation)

    tokens, _ = draw(
        logits.expand(DRAWS, -1), [truncation] * DRAWS, some_uniforms(DRAWS)
    )

    assert bool((chances[tokens] > 0).all())
    assert_drawn_like(tokens, chances)


def test_top_k_wider_than_the_vocabulary_cuts_nothing() -> None:
    logits = some_logits(50, spread=1.0).expand(200, -1)

    wide, _ = draw(logits, [Truncation(top_k=1_000_000)] * 200, some_uniforms(200))
    free, _ = draw(logits, [Truncation()] * 200, some_uniforms(200))

    assert torch.equal(wide, free)


@pytest.mark.parametrize("vocabulary", [7, 3000])
def test_temperature_nothing_takes_the_likeliest_whatever_the_number(
    vocabulary: int,
) -> None:
    logits = torch.stack([some_logits(vocabulary, 1.0, seed) for seed in range(50)])
    greedy = [Truncation(temperature=0, top_k=5, top_p=0.5)] * 50

    for uniform in (0.0, 0.5, 1 - 2**-24):
        tokens, _ = draw(logits, greedy, torch.full((50,), uniform))
        assert torch.equal(tokens, logits.argmax(dim=1))


def test_log_probabilities_are_those_of_the_logits_as_they_are() -> None:
    logits = torch.stack([some_logits(500, 3.0, seed) for seed in range(60)])
    truncations = list(SETTINGS.values())
    truncations = [truncations[row % len(truncations)] for row in range(60)]

    tokens, log_probs = draw(logits, truncations, some_uniforms(60))

    plain = logits.double().log_softmax(dim=1)
    expected = plain.gather(1, tokens.unsqueeze(1)).squeeze(1)
    assert log_probs.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


# Rows and their own settings


def test_rows_of_different_settings_are_each_drawn_by_their_own() -> None:
    logits = some_logits(500, spread=1.2)
    truncations = [*SETTINGS.values(), Truncation(temperature=0)]
    each = 3000
    rows = len(truncations) * each

    tokens, _ = draw(logits.expand(rows, -1), truncations * each, some_uniforms(rows))

    of_greedy = tokens[len(truncations) - 1 :: len(truncations)]
    assert set(of_greedy.tolist()) == {int(logits.argmax())}
    for number, truncation in enumerate(truncations[:-1]):
        own = tokens[number :: len(truncations)]
        assert_drawn_like(own, exact_chances(logits, truncation))


COMPANY = [
    Truncation(temperature=0),
    Truncation(temperature=0.7, top_k=50, top_p=0.95),
    Truncation(top_k=700),
    Truncation(temperature=1.5, min_p=0.05),
    Truncation(temperature=1.2),
]


def drawn_alone_and_beside(
    own: Truncation, others: Sequence[Truncation], *, rounded: bool
) -> tuple[list[int], list[int]]:
    """Draw 100 rows, each by itself and each below one row of every other setting."""
    alone, beside = [], []
    for seed in range(100):
        rows = some_logits(700 * (len(others) + 1), 2.0, seed).view(-1, 700)
        if rounded:  # as from a GPU: many tokens are exactly as likely as others
            rows = rows.bfloat16().float()
        uniforms = some_uniforms(len(rows), seed)
        alone += draw(rows[-1:], [own], uniforms[-1:])[0].tolist()
        beside += draw(rows, [*others, own], uniforms)[0].tolist()[-1:]
    return alone, beside


@pytest.mark.parametrize("own", COMPANY[:4])
def test_a_rows_token_does_not_depend_on_the_rows_beside_it(own: Truncation) -> None:
    alone, beside = drawn_alone_and_beside(own, COMPANY, rounded=False)

    assert alone == beside


def test_a_row_that_cuts_nothing_does_not_depend_on_the_rows_beside_it() -> None:
    alone, beside = drawn_alone_and_beside(
        Truncation(temperature=1.2), COMPANY, rounded=False
    )

    assert alone == beside


def test_a_rows_token_does_not_depend_on_the_rows_beside_it_among_equals() -> None:
    own = Truncation(temperature=0.7, top_k=50, top_p=0.95)

    alone, beside = drawn_alone_and_beside(own, [Truncation()], rounded=True)

    assert alone == beside


def test_of_equally_likely_tokens_greedy_takes_the_first() -> None:
    logits = torch.stack(
        [some_logits(3000, 2.0, seed).bfloat16().float() for seed in range(300)]
    )

    tokens, _ = draw(logits, [Truncation(temperature=0)] * 300, some_uniforms(300))

    assert torch.equal(tokens, logits.argmax(dim=1))


@st.composite
def batches(chosen: Any) -> tuple[Tensor, list[Truncation], Tensor]:
    rows = chosen(st.integers(1, 5))
    vocabulary = chosen(st.sampled_from([1, 2, 9, 300]))
    seed = chosen(st.integers(0, 10_000))
    spread = chosen(st.sampled_from([0.0, 0.1, 3.0, 40.0]))
    logits = some_logits(rows * vocabulary, spread, seed).view(rows, vocabulary)
    truncation = st.builds(
        Truncation,
        temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 5.0]),
        top_k=st.sampled_from([0, 1, 2, 50, 1000]),
        top_p=st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
        min_p=st.sampled_from([0.0, 0.001, 0.5, 1.0]),
    )
    truncations = chosen(st.lists(truncation, min_size=rows, max_size=rows))
    uniform = st.sampled_from([0.0, 1e-7, 0.3, 0.5, 1 - 2**-24])
    uniforms = chosen(st.lists(uniform, min_size=rows, max_size=rows))
    return logits, truncations, torch.tensor(uniforms)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(batches())
def test_what_is_cut_is_never_drawn(
    batch: tuple[Tensor, list[Truncation], Tensor],
) -> None:
    logits, truncations, uniforms = batch

    tokens, log_probs = draw(logits, truncations, uniforms)

    assert bool(log_probs.isfinite().all())
    for row, truncation, token in zip(logits, truncations, tokens, strict=True):
        likelier = row > row[token]
        assert not truncation.top_k or int(likelier.sum()) < truncation.top_k
        assert truncation.temperature or not bool(likelier.any())
        assert row[token] >= row.max() + _log(truncation.min_p) - 1e-5
        if truncation.temperature:
            assert _before(row, token, truncation) < truncation.top_p + 1e-5


def _log(min_p: float) -> float:
    return math.log(min_p) if min_p else -math.inf


def _before(row: Tensor, token: Tensor, truncation: Truncation) -> float:
    """How likely what is likelier than the token is, of what top-k and min-p left."""
    uncut = exact_chances(
        row,
        Truncation(
            temperature=truncation.temperature,
            top_k=truncation.top_k,
            min_p=truncation.min_p,
        ),
    )
    return float(uncut[row > row[token]].sum())


# The same as the plugins would draw

PLUGINS: list[dict[str, Any]] = [
    {"temperature": 0.7, "top_k": 50, "top_p": 0.95},
    {"temperature": 1.3, "top_k": 0, "top_p": 1.0},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.7},
    {"temperature": 1.0, "top_k": 12, "top_p": 0.9, "minimum": 0.1},
    {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "minimum": 0.05},
]


def a_request(
    count: int, temperature: float, top_k: int, top_p: float, minimum: float = 0.0
) -> GenerationRequest:
    sampler = Multinomial(
        Multinomial.Settings(temperature=temperature, top_k=top_k, top_p=top_p)
    )
    processors = [MinP(MinP.Settings(minimum=minimum))] if minimum else []
    return GenerationRequest(
        turn=a_turn(),
        candidates=count,
        max_new_tokens=1,
        sampler=sampler,
        logits_processors=processors,
    )


@pytest.mark.parametrize("chosen", PLUGINS)
def test_the_plugins_own_steps_draw_from_the_same_distribution(
    chosen: dict[str, Any],
) -> None:
    request, logits = a_request(DRAWS, **chosen), some_logits(400, spread=1.5)
    truncation = truncation_of(request)
    assert truncation is not None
    drawing = Drawing(request, torch.Generator().manual_seed(3), called)
    rows = logits.expand(DRAWS, -1)

    theirs = drawing(torch.empty(DRAWS, 0).long(), rows, [], 0).tokens
    ours, _ = draw(rows, [truncation] * DRAWS, some_uniforms(DRAWS))

    chances = exact_chances(logits, truncation)
    assert_drawn_like(theirs, chances)
    assert_drawn_like(ours, chances)
    assert set(theirs.tolist()) | set(ours.tolist()) <= set(
        chances.nonzero().squeeze(1).tolist()
    )


def test_two_min_p_steps_cut_as_the_stricter_one() -> None:
    request = a_request(1, temperature=1.0, top_k=0, top_p=1.0, minimum=0.1)
    stricter = MinP(MinP.Settings(minimum=0.3))
    both = GenerationRequest(
        turn=request.turn,
        candidates=1,
        max_new_tokens=1,
        sampler=request.sampler,
        logits_processors=[*request.logits_processors, stricter],
    )

    assert truncation_of(both) == Truncation(min_p=0.3)


def test_greedy_needs_no_min_p() -> None:
    request = a_request(1, temperature=0.0, top_k=0, top_p=1.0, minimum=0.1)

    assert truncation_of(request) == Truncation(temperature=0.0)
