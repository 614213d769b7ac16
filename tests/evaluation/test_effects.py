"""What plugins changed, by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.evaluation import effects
from bot.evaluation.effects import Change, Place
from bot.evaluation.report import Detail
from bot.model import Candidate, Record, Reply
from bot.testing import a_candidate, a_turn

WORTHS = st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=7)


def a_detail(
    candidates: Sequence[Candidate],
    worth: Sequence[float] = (),
    *,
    config: str = "a",
    chosen: int | None = 0,
    orders: Mapping[str, Sequence[int]] | None = None,
) -> Detail:
    record = Record(
        turn=a_turn(),
        outcome="answered",
        reply=Reply(text="It takes five days."),
        why="first in rank",
        config="c0ffee",
        candidates=candidates,
        chosen=chosen,
        orders=orders or {},
    )
    return Detail(config=config, record=record, worth=worth)


def adding(**contributions: float) -> Candidate:
    """A candidate to whose total each scorer added so much."""
    total = sum(contributions.values())
    return a_candidate(
        scores=contributions, contributions=contributions, total=total, rank=1
    )


# Worth


@pytest.mark.parametrize(
    ("worth", "bar"),
    [
        ([0.0, 1.0], 0.5),
        ([0.0, 0.0], 0.5),
        ([0.2, 0.9], 0.5),
        ([1.0, 5.0], 3.0),
        ([4.0, 5.0], 4.5),
        ([float("nan"), 1.0], 0.5),
        ([], 0.5),
    ],
)
def test_worthy_is_a_half_of_a_share_and_the_middle_of_ratings(
    worth: list[float], bar: float
) -> None:
    detail = a_detail([a_candidate(), a_candidate()], worth)

    assert effects.bar([detail]) == bar


def test_a_worth_that_nobody_gave_is_unknown() -> None:
    detail = a_detail([a_candidate()] * 3, [1.0, float("nan")])

    worths = [effects.worth_of(detail, position) for position in (0, 1, 2, -1, None)]

    assert worths == [1.0, None, None, None, None]


# Filters


def test_a_filters_drops_are_counted_by_its_name_and_the_worthy_among_them() -> None:
    details = [
        a_detail(
            [
                a_candidate(),
                a_candidate(dropped="blocklist: says: no"),
                a_candidate(dropped="blocklist: says: never"),
                a_candidate(dropped="empty: nothing"),
            ],
            [1.0, 1.0, 0.0, 0.0],
        ),
        a_detail([a_candidate(dropped="blocklist: again")], chosen=None),
    ]

    first, second = effects.filter_effects(details, 0.5)

    assert (first.plugin, second.plugin) == ("blocklist", "empty")
    assert first.candidates == 5
    assert first.dropped == [Place(0, 1), Place(0, 2), Place(1, 0)]
    assert first.worthy == [Place(0, 1)]
    assert first.judged == 2
    assert second.worthy == []


def test_filters_of_different_configurations_are_kept_apart() -> None:
    lost = [a_candidate(dropped="empty: nothing")]

    found = effects.filter_effects(
        [a_detail(lost, config="a"), a_detail(lost, config="b")], 0.5
    )

    assert [(one.config, one.dropped) for one in found] == [
        ("a", [Place(0, 0)]),
        ("b", [Place(1, 0)]),
    ]


# Scorers


def test_a_scorer_is_judged_by_who_is_first_without_it() -> None:
    # total:         3.0             2.0             1.0
    # without up:    0.0             2.0 (first)     1.0
    # without down:  3.0 (first)     0.0             0.0
    candidates = [
        adding(up=3.0, down=0.0),
        adding(up=0.0, down=2.0),
        adding(up=0, down=1),
    ]
    details = [a_detail(candidates, [1.0, 0.0, 0.0]), a_detail(candidates)]

    up, down = effects.scorer_effects(details)

    assert (up.plugin, up.sets) == ("up", 2)
    assert up.changes == [Change(0, 0, 1, 1.0), Change(1, 0, 1, None)]
    assert up.gained == 1.0
    assert up.interval == (1.0, 1.0)
    assert (down.plugin, down.changes, down.gained) == ("down", [], 0.0)


def test_what_a_scorer_gained_is_over_all_questions_and_can_be_a_loss() -> None:
    right = [adding(up=1.0), adding(up=0.0)]
    wrong = [adding(up=1.0, down=0.0), adding(up=0.0, down=0.5)]
    details = [a_detail(right, [1.0, 1.0]), a_detail(wrong, [0.0, 1.0])]

    up = effects.scorer_effects(details)[0]

    # The first loses nothing without it (equals keep their order); the second 0 - 1.
    assert up.changes == [Change(1, 0, 1, -1.0)]
    assert up.gained == -0.5


def test_a_tie_without_the_scorer_changes_nothing_even_with_rounding() -> None:
    first = adding(up=1.0, left=0.3, right=0.0)
    other = adding(up=0.0, left=0.1, right=0.2)  # more than 0.3 in binary

    up = effects.scorer_effects([a_detail([first, other])])[0]

    assert up.changes == []


def test_a_reranked_record_is_put_back_into_the_order_by_total() -> None:
    by_total = [adding(up=3.0), adding(up=2.0), adding(up=1.0)]
    reranked = [by_total[2], by_total[0], by_total[1]]
    detail = a_detail(reranked, orders={"mmr": [2, 0, 1]})

    (up,) = effects.scorer_effects([detail])

    # All equal without it: the first by total, at position 1 in the record, stays.
    assert up.changes == []


def test_unscored_candidates_have_no_scorers() -> None:
    assert effects.scorer_effects([a_detail([a_candidate()]), a_detail([])]) == []


# Rerankers


def test_each_reranker_is_compared_with_the_order_it_was_given() -> None:
    # by total A B C; mmr makes it B A C, then fusion B C A
    a, b, c = adding(up=3.0), adding(up=2.0), adding(up=1.0)
    orders = {"mmr": [1, 0, 2], "fusion": [1, 2, 0]}
    details = [a_detail([b, c, a], [1.0, 0.0, 0.0], orders=orders)]

    mmr, fusion = effects.reranker_effects(details)

    assert (mmr.plugin, mmr.sets) == ("mmr", 1)
    assert mmr.changes == [Change(0, 0, 2, 1.0)]
    assert mmr.gained == 1.0
    assert (fusion.plugin, fusion.changes, fusion.gained) == ("fusion", [], 0.0)


def test_an_order_that_does_not_fit_its_candidates_is_left_out() -> None:
    detail = a_detail([adding(up=1.0)], orders={"mmr": [1, 0], "dpp": [0, 0]})

    assert effects.reranker_effects([detail]) == []


def test_every_block_of_a_reply_is_a_set_of_its_own() -> None:
    def block(number: int, up: float) -> Candidate:
        return a_candidate(
            scores={"up": up}, contributions={"up": up}, total=up, block=number
        )

    detail = a_detail(
        [block(1, 2.0), block(1, 1.0), block(2, 1.0), block(2, 2.0)],
        [0.0, 0.0, 1.0, 0.0],
        orders={"mmr, block 1": [0, 1], "mmr, block 2": [1, 0]},
        chosen=2,
    )

    (mmr,) = effects.reranker_effects([detail])

    assert (mmr.plugin, mmr.sets) == ("mmr", 2)
    assert mmr.changes == [Change(0, 2, 3, 1.0)]
    assert mmr.gained == 1.0


# Writers and variants


def test_sources_have_shares_of_the_picks_and_mean_worths() -> None:
    quoted = a_candidate(origin="quotation")
    brief = a_candidate(variant="brief")
    details = [
        a_detail([quoted, brief, brief], [1.0, 0.0, 1.0], chosen=0),
        a_detail([brief, quoted], [0.0, 1.0], chosen=1),
        a_detail([brief, quoted], [0.5, 0.0], chosen=0),
        a_detail([quoted], chosen=None),
    ]

    quotation, model = effects.source_effects(details)

    assert (quotation.origin, quotation.variant) == ("quotation", "")
    assert quotation.picks == [Place(0, 0), Place(1, 1)]
    assert quotation.sets == 3
    assert quotation.worth == pytest.approx(2 / 3)
    assert quotation.picked_worth == 1.0
    assert len(quotation.candidates) == 4
    assert (model.origin, model.variant) == ("model", "brief")
    assert model.picks == [Place(2, 0)]
    assert model.worth == pytest.approx((0.0 + 1.0 + 0.0 + 0.5) / 4)
    assert model.picked_worth == 0.5


def test_a_source_that_nobody_judged_has_no_worth() -> None:
    (model,) = effects.source_effects([a_detail([a_candidate()])])

    assert (model.worth, model.picked_worth) == (None, None)


def test_settled_blocks_are_picks() -> None:
    blocks = [a_candidate(block=1, settled=True), a_candidate(block=1)]
    detail = a_detail([*blocks, a_candidate(block=2, settled=True)], chosen=2)

    (model,) = effects.source_effects([detail])

    assert model.picks == [Place(0, 0), Place(0, 2)]


# Separation


def test_scores_are_parted_by_worth_and_compared() -> None:
    details = [
        a_detail([adding(up=3.0), adding(up=1.0)], [1.0, 0.0]),
        a_detail([adding(up=2.0), adding(up=2.0), adding(up=5.0)], [1.0, 0.0, 0.0]),
        a_detail([adding(up=9.0)]),
    ]

    (up,) = effects.separations(details, 0.5)

    assert up.worthy == {Place(0, 0): 3.0, Place(1, 0): 2.0}
    assert up.unworthy == {Place(0, 1): 1.0, Place(1, 1): 2.0, Place(1, 2): 5.0}
    # 3 beats 1 and 2; 2 beats 1 and ties 2: 3.5 of 6
    assert up.auc == pytest.approx(3.5 / 6)
    # (3 > 1: 1 of 1; 2 = 2 and 2 < 5: 0.5 of 2), their mean
    assert up.within == pytest.approx((1.0 + 0.25) / 2)


def test_scores_of_one_side_have_no_auc() -> None:
    (up,) = effects.separations([a_detail([adding(up=1.0)], [1.0])], 0.5)

    assert (up.auc, up.within) == (None, None)


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=9),
    st.lists(st.integers(-3, 3), min_size=1, max_size=9),
)
def test_auc_counts_pairs(positives: list[int], negatives: list[int]) -> None:
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in positives
        for low in negatives
    ]

    assert effects.auc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))


# Coverage


def test_the_expected_best_of_j_is_pass_at_k() -> None:
    # two of four are right: one is with 2/4, any of two with 1 - C(2,2)/C(4,2) = 5/6
    assert effects.expected_best([1.0, 0.0, 0.0, 1.0]) == pytest.approx(
        [1 / 2, 5 / 6, 1.0, 1.0]
    )


@given(WORTHS)
def test_the_expected_best_is_the_mean_over_all_choices(worths: list[float]) -> None:
    found = effects.expected_best(worths)

    for j, value in enumerate(found, 1):
        best = [max(chosen) for chosen in combinations(worths, j)]
        assert value == pytest.approx(sum(best) / len(best), abs=1e-9)


def test_coverage_counts_dropped_ones_as_drawn_and_not_as_ranked() -> None:
    details = [
        a_detail([a_candidate(), a_candidate(dropped="empty: it")], [0.0, 1.0]),
        a_detail([a_candidate()], [1.0]),
        a_detail([a_candidate(dropped="empty: it")], [1.0], chosen=None),
        a_detail([a_candidate()]),
    ]

    (coverage,) = effects.coverages(details)

    assert coverage.details == [0, 1, 2]
    # the second and third have one candidate, and keep it at j = 2
    assert coverage.drawn == [[0.5, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert coverage.ranked == [[0.0, 1.0, 0.0]]
    assert coverage.picked == [0.0, 1.0, 0.0]


def test_coverage_is_over_the_block_that_the_reply_was_picked_from() -> None:
    candidates = [a_candidate(block=1), a_candidate(block=2), a_candidate(block=2)]
    detail = a_detail(candidates, [0.0, 0.0, 1.0], chosen=2)

    (coverage,) = effects.coverages([detail])

    assert coverage.drawn == [[0.5], [1.0]]
    assert coverage.ranked == [[0.0], [1.0]]
    assert coverage.picked == [1.0]


def test_no_details_have_no_effects() -> None:
    assert effects.filter_effects([], 0.5) == []
    assert effects.scorer_effects([]) == []
    assert effects.reranker_effects([]) == []
    assert effects.source_effects([]) == []
    assert effects.separations([], 0.5) == []
    assert effects.coverages([]) == []
