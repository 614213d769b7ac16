"""The scorers: values worked out by hand, and what must never come out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.distributions import mean_log_prob
from bot.interfaces import Scorer
from bot.testing import FakeTools, a_candidate, a_passage, a_tools, a_turn
from bot.testing.contracts import ScorerContract
from bot.text import content_words
from plugins.scorers.consensus import Consensus, mean_agreement, novel_overlap
from plugins.scorers.coverage import Coverage, covered, idf
from plugins.scorers.groundedness import Groundedness, precision
from plugins.scorers.likelihood import Likelihood
from plugins.scorers.relevance import Relevance

UTILITIES = ["novel", "token-f1", "rouge-l", "embedding", "both"]


class TestRelevanceKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Relevance(Relevance.Settings())


class TestGroundednessKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Groundedness(Groundedness.Settings())


class TestCoverageKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Coverage(Coverage.Settings())


class TestLexicalGroundednessKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Groundedness(Groundedness.Settings(embedding_share=0))


class TestLikelihoodKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Likelihood(Likelihood.Settings())


class TestConsensusKeepsTheContract(ScorerContract):
    @pytest.fixture(params=UTILITIES)
    def subject(self, request: pytest.FixtureRequest) -> Scorer:
        return Consensus(Consensus.Settings(utility=request.param))


# coverage


def test_the_rare_word_of_the_question_decides() -> None:
    turn = a_turn(
        "My display says E22, what does it mean?",
        ["Display code E12: wrong battery.\nDisplay code E22: no signal."],
    )
    candidates = [
        a_candidate("Display code E12: wrong battery."),
        a_candidate("Display code E22: no signal."),
    ]

    wrong, right = Coverage(Coverage.Settings()).score(turn, candidates, a_tools())

    # "display" and "e" are in both of the two sentences, "22" in one of them: a code
    # is read as its letters and its number.
    assert wrong == pytest.approx(2 * math.log(2) / (2 * math.log(2) + math.log(3)))
    assert right == pytest.approx(1.0)


def test_words_that_no_passage_knows_count_for_nobody() -> None:
    weights = idf({"how", "refund"}, [{"refund", "five"}, {"five"}])

    assert weights == {"refund": pytest.approx(math.log(3))}
    assert covered({"refund", "how"}, weights) == 1.0
    assert covered({"how"}, weights) == 0.0


def test_without_passages_nothing_is_covered() -> None:
    scores = Coverage(Coverage.Settings()).score(
        a_turn("refund?"), [a_candidate("refund")], a_tools()
    )

    assert scores == [0.0]


# relevance


def test_a_reply_about_the_question_is_more_relevant() -> None:
    relevance = Relevance(Relevance.Settings())
    turn = a_turn("how long does a refund take")
    candidates = [a_candidate("a refund take five days"), a_candidate("hello there")]

    on_subject, off_subject = relevance.score(turn, candidates, a_tools())

    # Three shared words of six and five, each once.
    assert on_subject == pytest.approx(3 / math.sqrt(6 * 5), abs=1e-6)
    assert off_subject == pytest.approx(0, abs=1e-6)


# groundedness


def test_precision_is_the_weighted_share_of_known_words() -> None:
    known = frozenset(["refund", "takes", "5"])

    # refund 1, takes 1, 5 weighs 2 (known); 6 weighs 2, weeks 1 (not): 4 of 7.
    share = precision("A refund takes 5 or 6 weeks.", known, number_weight=2)

    assert share == pytest.approx(4 / 7)


def test_a_wrong_number_costs_more_than_a_wrong_word() -> None:
    turn = a_turn(passages=["The refund takes 5 days."])
    groundedness = Groundedness(Groundedness.Settings(embedding_share=0))

    right, wrong_word, wrong_number = groundedness.score(
        turn,
        [
            a_candidate("The refund takes 5 days."),
            a_candidate("The refund takes 5 weeks."),
            a_candidate("The refund takes 6 days."),
        ],
        a_tools(),
    )

    assert right == 1
    assert right > wrong_word > wrong_number


def test_titles_and_headings_support_a_reply() -> None:
    passage = a_passage("It takes days.", title="Refunds", headings=["Bank transfer"])
    groundedness = Groundedness(Groundedness.Settings(embedding_share=0))

    [score] = groundedness.score(
        a_turn(passages=[passage]),
        [a_candidate("Refunds: bank transfer takes days")],
        a_tools(),
    )

    assert score == 1


def test_without_passages_nothing_is_grounded_and_nothing_is_embedded() -> None:
    tools = FakeTools()

    scores = Groundedness(Groundedness.Settings()).score(
        a_turn(), [a_candidate("Five days."), a_candidate("Six.")], tools
    )

    assert scores == [0.0, 0.0]
    assert tools.embedded == []


def test_a_passage_without_a_sentence_grounds_nothing() -> None:
    turn = a_turn(passages=["", " \n"])

    scores = Groundedness(Groundedness.Settings()).score(
        turn, [a_candidate("Five days.")], a_tools()
    )

    assert scores == [0]


def test_chinese_is_compared_by_pairs_of_characters() -> None:
    turn = a_turn(passages=["退款需要五天。"])
    groundedness = Groundedness(Groundedness.Settings(embedding_share=0))

    supported, reordered = groundedness.score(
        turn, [a_candidate("需要五天"), a_candidate("天五要需")], a_tools()
    )

    assert supported == 1
    assert reordered == 0


def test_a_number_is_supported_whatever_its_separators() -> None:
    known = frozenset(content_words("It costs 1200.50."))

    assert precision("1,200.50", known, number_weight=2) == 1
    assert precision("1,200", known, number_weight=2) == 0


def test_the_sentences_to_be_embedded_are_said_beforehand() -> None:
    turn = a_turn(passages=["It costs 3.50. Pay.", "需要五天。好。"])
    tools = FakeTools()
    groundedness = Groundedness(Groundedness.Settings())

    said = groundedness.texts(turn)
    groundedness.score(turn, [a_candidate("Five.")], tools)

    assert said == ["It costs 3.50.", "Pay.", "需要五天。", "好。"]
    assert tools.embedded == [("Five.", *said)]


def test_words_alone_have_nothing_embedded() -> None:
    groundedness = Groundedness(Groundedness.Settings(embedding_share=0))

    assert groundedness.texts(a_turn(passages=["It costs 3.50."])) == []


def test_the_embedding_takes_its_share() -> None:
    turn = a_turn(passages=["alpha beta", "gamma delta"])
    candidate = a_candidate("alpha gamma")
    settings = Groundedness.Settings(embedding_share=0.5)

    [score] = Groundedness(settings).score(turn, [candidate], a_tools())

    # All words are known (1); the closest sentence shares one word of two (.5).
    assert score == pytest.approx(0.75, abs=1e-6)


@given(st.text(max_size=60), st.text(max_size=60))
def test_precision_is_a_share(text: str, passage: str) -> None:
    share = precision(text, frozenset(content_words(passage)), 2)

    assert 0 <= share <= 1


@given(st.text(max_size=60))
def test_a_quotation_is_wholly_supported(text: str) -> None:
    share = precision(text, frozenset(content_words(text)), 2)

    assert share == (1 if content_words(text) else 0)


# likelihood


def test_likelihood_is_the_mean_log_probability() -> None:
    assert mean_log_prob([-1.0, -2.0, -3.0], exponent=1) == pytest.approx(-2)


def test_no_penalty_compares_whole_texts() -> None:
    assert mean_log_prob([-1.0, -2.0, -3.0], exponent=0) == pytest.approx(-6)


def test_what_the_model_did_not_write_is_read_in_one_call() -> None:
    tools = a_tools(lambda prompt, word: -0.5)
    candidates = [
        a_candidate("quoted once", origin="quotation"),
        a_candidate("sampled", log_probs=(-1.0, -3.0)),
        a_candidate("quoted twice over", origin="quotation"),
    ]

    scores = Likelihood(Likelihood.Settings()).score(
        a_turn(prompt="user: hi"), candidates, tools
    )

    assert scores == pytest.approx([-0.5, -2, -0.5])
    assert tools.scored == [
        (("user: hi", "quoted once"), ("user: hi", "quoted twice over"))
    ]


def test_the_model_is_not_asked_about_its_own_words() -> None:
    tools = FakeTools()

    Likelihood(Likelihood.Settings()).score(
        a_turn(), [a_candidate("sampled", log_probs=(-1.0,))], tools
    )

    assert tools.scored == []


def test_a_reply_without_tokens_is_put_with_the_least_likely() -> None:
    candidates = [
        a_candidate("good", log_probs=(-1.0,)),
        a_candidate("bad", log_probs=(-4.0,)),
        a_candidate(""),
    ]

    scores = Likelihood(Likelihood.Settings()).score(a_turn(), candidates, a_tools())

    assert scores == pytest.approx([-1, -4, -4])


@given(
    st.lists(st.floats(), min_size=1),
    st.floats(0, 2),
)
def test_an_impossible_token_leaves_the_likelihood_finite_and_at_most_0(
    log_probs: list[float], penalty: float
) -> None:
    assert -math.inf < mean_log_prob(log_probs, penalty) <= 0


# consensus


def test_agreement_is_the_mean_over_the_others() -> None:
    utility = np.array([[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]])

    assert mean_agreement(utility).tolist() == pytest.approx([0.3, 0.4, 0.2])


def test_novel_overlap_is_f1_over_words_that_the_question_lacks() -> None:
    overlap = novel_overlap(
        "How long does a refund take?",
        ["A refund takes five days.", "five days", "The refund: long."],
    )

    # {takes five days} and {five days}: 2 · 2 / (3 + 2).
    assert overlap[0, 1] == overlap[1, 0] == pytest.approx(0.8)
    assert overlap[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("utility", "expected"),
    [
        # All words: 2 · 3 / (3 + 5), whatever their order.
        ("token-f1", 0.75),
        # In order: "five days" alone, 2 · 2 / (3 + 5).
        ("rouge-l", 0.5),
        # "refund" was asked, "a" is empty: {five days} and {five days takes}.
        ("novel", 0.8),
    ],
)
def test_agreement_by_words_is_that_of_the_utility(
    utility: str, expected: float
) -> None:
    consensus = Consensus(Consensus.Settings.model_validate({"utility": utility}))
    candidates = [
        a_candidate("five days refund"),
        a_candidate("a refund takes five days"),
    ]

    scores = consensus.score(a_turn("Is a refund free?"), candidates, FakeTools())

    assert scores == pytest.approx([expected] * 2)


def test_rouge_l_reads_no_more_of_a_reply_than_its_beginning() -> None:
    consensus = Consensus(Consensus.Settings(utility="rouge-l"))
    candidates = [a_candidate("five " * 100_000), a_candidate("five " * 200 + "six")]

    scores = consensus.score(a_turn(), candidates, FakeTools())

    assert scores == [1, 1]


@pytest.mark.parametrize("utility", UTILITIES)
def test_the_odd_one_out_scores_least(utility: str) -> None:
    consensus = Consensus(Consensus.Settings.model_validate({"utility": utility}))
    candidates = [
        a_candidate("five days"),
        a_candidate("within five days"),
        a_candidate("three weeks"),
    ]

    scores = consensus.score(a_turn(), candidates, a_tools())

    assert min(scores) == scores[2]


@pytest.mark.parametrize("utility", ["novel", "token-f1", "rouge-l"])
def test_words_alone_need_no_embedding(utility: str) -> None:
    tools = FakeTools()

    Consensus(Consensus.Settings.model_validate({"utility": utility})).score(
        a_turn(), [a_candidate("a"), a_candidate("b")], tools
    )

    assert tools.embedded == []


def test_a_reply_without_siblings_has_no_one_to_agree_with() -> None:
    scores = Consensus(Consensus.Settings()).score(
        a_turn(), [a_candidate("five days")], a_tools()
    )

    assert scores == [0.0]
