"""The filters: what each drops, what it keeps, and what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import CandidateFilter
from bot.model import Verdict
from bot.testing import a_candidate, a_tools, a_turn, an_event
from bot.testing.contracts import CandidateFilterContract
from plugins.filters.blocklist import Blocklist
from plugins.filters.empty import Empty
from plugins.filters.repeated import Repeated, longest_loop
from plugins.filters.truncated import Truncated


class TestEmptyKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return Empty(Empty.Settings())


class TestTruncatedKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return Truncated(Truncated.Settings())


class TestRepeatedKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return Repeated(Repeated.Settings(drop_last_reply=True))


class TestBlocklistKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return Blocklist(Blocklist.Settings(phrases=("five days", "no")))


def kept(subject: CandidateFilter, *texts: str) -> list[bool]:
    verdicts = subject.keep(a_turn(), [a_candidate(text) for text in texts], a_tools())
    return [verdict.kept for verdict in verdicts]


# empty


def test_a_text_without_a_readable_character_is_empty() -> None:
    empty = Empty(Empty.Settings())

    nothing = kept(empty, "", " \n\t", "…", "*", "\u200b\u200b", "- .")
    something = kept(empty, "5", "是", "👍", "Yes.")

    assert not any(nothing)
    assert all(something)


def test_a_minimum_drops_what_is_too_short_and_says_how_short() -> None:
    empty = Empty(Empty.Settings(minimum_characters=4))

    [short, long] = empty.keep(
        a_turn(), [a_candidate("Yes!"), a_candidate("Sure.")], a_tools()
    )

    assert short.why == "has 3 readable characters, fewer than 4"
    assert long.kept


# truncated


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("It takes five days.", True),
        ("It takes five days. Then", False),
        ('He said "five days."', True),
        ("**Five days.**", True),
        ("It costs 4.", True),
        ("It costs 4.9", False),
        ("See chorus.ai", False),
        ("需要五天。", True),
        ("需要五天", False),
        ("Really?!", True),
        ("", False),
    ],
)
def test_a_cut_text_is_dropped_unless_it_ends_a_sentence(
    text: str, *, whole: bool
) -> None:
    truncated = Truncated(Truncated.Settings())

    [verdict] = truncated.keep(
        a_turn(), [a_candidate(text, finish="length")], a_tools()
    )

    assert verdict.kept is whole


def test_a_text_that_the_model_ended_is_kept_without_a_stop() -> None:
    truncated = Truncated(Truncated.Settings())

    assert kept(truncated, "five days") == [True]


def test_a_cut_text_may_be_allowed_after_whole_sentences() -> None:
    truncated = Truncated(Truncated.Settings(allow_after_sentences=2))
    texts = ["One. Two. And", "One. And"]

    verdicts = truncated.keep(
        a_turn(), [a_candidate(text, finish="length") for text in texts], a_tools()
    )

    assert [verdict.kept for verdict in verdicts] == [True, False]


# repeated


def test_the_first_of_equal_texts_is_kept() -> None:
    repeated = Repeated(Repeated.Settings())

    verdicts = repeated.keep(
        a_turn(),
        [
            a_candidate("Five days."),
            a_candidate("Six days."),
            a_candidate("five  DAYS!"),
        ],
        a_tools(),
    )

    assert [verdict.kept for verdict in verdicts] == [True, True, False]
    assert verdicts[2].why == "has the words of an earlier candidate"


def test_different_symbols_are_not_copies_of_each_other() -> None:
    assert kept(Repeated(Repeated.Settings()), "👍", "👎") == [True, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the plan is the plan is the plan is the plan is", 12),
        ("very very very very very very very very", 8),
        ("It is free. It is free. It is free.", 9),
        ("没有没有没有没有没有", 10),
    ],
)
def test_a_text_that_loops_is_dropped_with_its_length(text: str, words: int) -> None:
    [verdict] = Repeated(Repeated.Settings()).keep(
        a_turn(), [a_candidate(text)], a_tools()
    )

    assert verdict == Verdict(
        kept=False, why=f"repeats itself for {words} words in a row"
    )


def test_emphasis_and_parallel_sentences_are_not_loops() -> None:
    texts = [
        "No, no, no!",
        "The plus plan costs 9 euros. The pro plan costs 12 euros. The end.",
        "Call 555 555 555.",
    ]

    assert all(kept(Repeated(Repeated.Settings()), *texts))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Is the Wren or the Finch lighter?", False),
        ("The Finch is lighter or the Wren.", False),
        ("The Finch.", True),
        ("The Finch is lighter, at 19 kg.", True),
    ],
)
def test_a_reply_that_only_repeats_the_question_is_dropped(
    text: str, *, kept: bool
) -> None:
    turn = a_turn("Is the Wren or the Finch lighter?")

    (verdict,) = Repeated(Repeated.Settings()).keep(
        turn, [a_candidate(text)], a_tools()
    )

    assert verdict.kept is kept


def test_the_last_reply_may_be_said_again_unless_asked_not_to() -> None:
    turn = a_turn(
        history=(
            an_event("Five days.", "reply"),
            an_event("Sure?"),
            an_event("Yes, five days.", "reply"),
        )
    )
    candidates = [a_candidate("yes, five days"), a_candidate("Five days.")]

    allowed = Repeated(Repeated.Settings()).keep(turn, candidates, a_tools())
    strict = Repeated(Repeated.Settings(drop_last_reply=True)).keep(
        turn, candidates, a_tools()
    )

    assert [verdict.kept for verdict in allowed] == [True, True]
    assert [verdict.kept for verdict in strict] == [False, True]
    assert strict[0].why == "repeats the bot's last reply"


@given(
    phrase=st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
    rounds=st.integers(3, 6),
    before=st.lists(st.sampled_from("xyz"), max_size=5, unique=True),
)
def test_a_planted_loop_is_found(
    phrase: list[str], rounds: int, before: list[str]
) -> None:
    sequence = before + phrase * rounds

    assert longest_loop(sequence, 3) >= len(phrase) * rounds


@given(sequence=st.lists(st.integers().map(str), max_size=30, unique=True))
def test_different_words_are_no_loop(sequence: list[str]) -> None:
    assert longest_loop(sequence, 3) == 0


def test_a_run_of_a_thousand_words_is_the_longest_that_is_looked_for() -> None:
    thousand = [str(number) for number in range(1000)]

    assert longest_loop(thousand * 2, 2) == 2000
    assert longest_loop([*thousand, "more"] * 2, 2) == 0


# blocklist


@pytest.mark.parametrize(
    "text",
    [
        "What an ass.",
        "ASS!",
        "an a\u00adss",
        "ＡＳＳ",  # noqa: RUF001 full width, as evaders write
        "dumb   - As a: rock",
        "这是垃圾产品",
        "Der STRASSE entlang",
        "वह मूर्ख है",
    ],
)
def test_listed_phrases_are_found_in_any_dress(text: str) -> None:
    blocklist = Blocklist(
        Blocklist.Settings(phrases=("ass", "dumb as a rock", "垃圾", "straße", "मूर्ख"))
    )

    assert kept(blocklist, text) == [False]


@pytest.mark.parametrize("text", ["A class act.", "dumb as rocks", "圾垃", "मूर्खता"])
def test_parts_of_words_are_not_found(text: str) -> None:
    blocklist = Blocklist(
        Blocklist.Settings(phrases=("ass", "dumb as a rock", "垃圾", "मूर्ख"))
    )

    assert kept(blocklist, text) == [True]


def test_the_reason_names_the_entry_and_not_the_word() -> None:
    blocklist = Blocklist(Blocklist.Settings(phrases=("darn", "heck")))

    [verdict] = blocklist.keep(a_turn(), [a_candidate("What the heck.")], a_tools())

    assert verdict.why == "contains entry 2 of the blocklist"


@pytest.mark.parametrize("phrases", [[], [""], ["!!"], ["ok", " "], ["x" * 201]])
def test_a_list_that_cannot_match_is_refused(phrases: list[str]) -> None:
    with pytest.raises(ValidationError):
        Blocklist.Settings.model_validate({"phrases": phrases})


def test_a_blocked_word_is_found_inside_a_run_of_any_spaceless_script() -> None:
    blocklist = Blocklist(Blocklist.Settings(phrases=("ပြန်", "ページ・番号")))

    verdicts = kept(blocklist, "ငွေပြန်အမ်း", "ページ番号", "ငွေ")

    assert verdicts == [False, False, True]
