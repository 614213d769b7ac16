# ruff: noqa: RUF001 - Chinese marks are meant
"""The filter of languages: what is surely another one, and what is not sure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import CandidateFilter
from bot.model import Event, Verdict
from bot.testing import a_candidate, a_tools, a_turn, an_event
from bot.testing.contracts import CandidateFilterContract
from plugins.filters.language import Language, letters, share_of_script, spoken

ENGLISH = "Refunds take about five working days."
CHINESE = "退款大约需要五个工作日。"
GERMAN = "Die Erstattung dauert ungefähr fünf Werktage."


class TestLanguageKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return Language(Language.Settings())


def verdict(
    question: str, text: str, history: tuple[Event, ...] = (), **settings: object
) -> Verdict:
    subject = Language(Language.Settings.model_validate(settings))
    turn = a_turn(question, history=history)
    [found] = subject.keep(turn, [a_candidate(text)], a_tools())
    return found


@pytest.mark.parametrize(
    ("question", "text", "why"),
    [
        ("退款需要多长时间？", ENGLISH, "is in 'en', the question in 'zh'"),
        ("How long does a refund take?", CHINESE, "is in 'zh', the question in 'en'"),
        ("How long does a refund take?", GERMAN, "is in 'de', the question in 'en'"),
        (
            "Wie lange dauert die Erstattung?",
            ENGLISH,
            "is in 'en', the question in 'de'",
        ),
        (
            "Сколько времени занимает возврат денег?",
            ENGLISH,
            "is in 'en', the question in 'ru'",
        ),
    ],
)
def test_another_language_is_dropped(question: str, text: str, why: str) -> None:
    assert verdict(question, text) == Verdict(kept=False, why=why)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How long does a refund take?", ENGLISH),
        ("退款需要多长时间？", CHINESE),
        ("Wie lange dauert die Erstattung?", GERMAN),
        # Too short to be sure of.
        ("How long does a refund take?", "Fünf Tage."),
        ("How long does a refund take?", "是的。"),
        # Names, numbers, addresses, code and quotations.
        ("退款需要多长时间？", "5"),
        ("哪家酒店有停车场？", "Washington Square Inn"),
        ("网址是什么？", "https://example.com/help/getting-started-with-refunds"),
        ("怎么安装？", "`pip install chorus and then run it`"),
        ("文件怎么说？", "文件写道：“Refunds take about five working days.”"),
        ("哪家酒店有停车场？", "有停车场的酒店是 Washington Square Inn"),
        ("How do I say it?", '"Die Erstattung dauert ungefähr fünf Werktage."'),
        # As good as the same language.
        (
            "Hvor lang tid tager det at få pengene tilbage?",
            "Det tar omtrent fem dager.",
        ),
    ],
)
def test_what_may_be_the_customers_language_is_kept(question: str, text: str) -> None:
    assert verdict(question, text).kept


def test_a_short_question_is_read_with_the_messages_before_it() -> None:
    history = (
        an_event("退款需要多长时间？"),
        an_event("This reply of the bot is in English.", "reply"),
    )

    alone = verdict("ok?", ENGLISH)
    after_chinese = verdict("ok?", ENGLISH, history)

    assert alone.kept
    assert not after_chinese.kept


def test_some_languages_can_be_allowed_always() -> None:
    assert verdict("退款需要多长时间？", ENGLISH, languages=("en",)).kept
    assert not verdict("退款需要多长时间？", GERMAN, languages=("en",)).kept


def test_letters_of_dense_scripts_count_for_more() -> None:
    # 3 + 4 * 2 letters; the digits and marks are none.
    assert letters("abc, 退款 123!") == 11
    assert share_of_script("abc退款", "CJK") == 8 / 11
    assert share_of_script("", "CJK") == 0


def test_what_is_in_no_language_is_not_spoken() -> None:
    text = 'See "alte Post", www.example.com a@b.org MP3 and `x = 1`.'

    assert spoken(text).split() == ["See", ",", "and", "."]


@hypothesis_settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_texts_have_a_verdict(question: str, text: str) -> None:
    found = verdict(question, text)

    assert found.kept or found.why


@pytest.mark.parametrize(
    "settings",
    [
        {"certainty": 0.4},
        {"certainty": 1},
        {"minimum_letters": 3},
        {"languages": ["klingon"]},
        {"languages": ["xx"]},
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Language.Settings.model_validate(settings)
