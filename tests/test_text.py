# ruff: noqa: RUF001 - Chinese marks are meant
from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import text as reading
from bot.text import (
    cleaned,
    estimated_tokens,
    folded,
    is_joining,
    is_letter,
    is_unspaced,
    is_written_in,
    joined,
    sentences,
    unwrapped,
    visible,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It works. Does it? Yes!", ["It works.", "Does it?", "Yes!"]),
        ("Version 3.5 costs €2.50. Fine.", ["Version 3.5 costs €2.50.", "Fine."]),
        ("Ask Dr. Lee, e.g. today. Or not.", ["Ask Dr. Lee, e.g. today.", "Or not."]),
        ("See fig. 3 and no. 7. Then stop.", ["See fig. 3 and no. 7.", "Then stop."]),
        ("The answer is no. Then stop.", ["The answer is no.", "Then stop."]),
        ("Mr. J. R. Smith left. He ran.", ["Mr. J. R. Smith left.", "He ran."]),
        ("1. Open it.\n2. Close it.", ["1. Open it.", "2. Close it."]),
        ('He said "Stop!" and left.', ['He said "Stop!" and left.']),
        ("See example.com. It helps.", ["See example.com.", "It helps."]),
        ("退款需要五天。真的吗？是的！", ["退款需要五天。", "真的吗？", "是的！"]),
        ("他说：“好。”然后走了。", ["他说：“好。”", "然后走了。"]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(
    text: str, expected: list[str]
) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet=st.sampled_from("aB 1.!?\n。！e.g")))
def test_sentences_keep_every_letter_in_order(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@given(st.text(alphabet=st.sampled_from("aB1 \n.!?…。」)\"'_")))
def test_a_pattern_that_never_reads_twice_finds_the_same_ends(text: str) -> None:
    reads_twice = re.compile(
        """[。！？｡]+[”’」』）)"']*|[.!?…]+["'”’»)\\]*_]*(?=\\s)|\\n+"""
    )

    found = [one.span() for one in reading._SENTENCE_END.finditer(text)]

    assert found == [one.span() for one in reads_twice.finditer(text)]


@given(st.text(alphabet=st.sampled_from("aB1 _.\n字")))
def test_a_pattern_that_never_reads_twice_finds_the_same_last_word(text: str) -> None:
    reads_twice = re.compile(r"[^\W_](?:[.]?[^\W_])*$")

    found = reading._LAST_WORD.search(text)
    expected = reads_twice.search(text)

    assert (found and found.span()) == (expected and expected.span())


def test_a_flood_without_an_end_is_split_quickly() -> None:
    assert sentences("a. " * 50_000)[:1] == [("a. " * 50_000).strip()]


def test_wrapped_lines_are_joined_and_deliberate_ends_kept() -> None:
    lines = [
        "A text that was wrapped by its",
        "author at some width, and then",
        "ended.",
        "- an item",
        "",
        "退款需要五个工作日才能到达您的银行",
        "账户。",
    ]

    paragraphs = unwrapped(lines)

    assert paragraphs == [
        (
            0,
            "A text that was wrapped by its author at some width, and then ended.",
        ),
        (3, "- an item"),
        (5, "退款需要五个工作日才能到达您的银行"),
        (6, "账户。"),
    ]


def test_control_characters_and_lone_surrogates_are_removed() -> None:
    assert cleaned("a\x00b\ud800c\r\nd\te") == "abc\nd\te"


def test_a_letter_keeps_as_many_accents_as_a_language_may_have() -> None:
    flood = "e" + "\u0301" * 50_000 + "\u0316" * 50_000 + "x\u0301"

    kept = cleaned(flood)

    assert kept == "e" + "\u0301" * 30 + "x\u0301"


@given(st.text(alphabet="a\u0301\u0316\uff9e字", min_size=40, max_size=200))
def test_a_clean_text_has_few_accents_in_a_row_when_it_is_normalised(text: str) -> None:
    once = cleaned(text)

    normal = unicodedata.normalize("NFKD", once)
    runs = "".join("x" if unicodedata.combining(c) else " " for c in normal).split()
    assert max(map(len, runs), default=0) <= 30
    assert cleaned(once) == once


@pytest.mark.parametrize(
    ("text", "languages", "expected"),
    [
        ("How long does it take?", {"en"}, True),
        ("退款需要多长时间？", {"en"}, False),
        ("退款需要多长时间？", {"zh"}, True),
        ("Сколько это стоит?", {"en"}, False),
        ("Сколько это стоит?", {"en", "ru"}, True),
        ("Wren 电池", {"en"}, True),
        ("12345 ?!", {"en"}, True),
    ],
)
def test_a_language_is_told_by_its_script(
    text: str, languages: set[str], expected: bool
) -> None:
    assert is_written_in(text, languages) is expected


def test_tokens_are_estimated_for_both_kinds_of_script() -> None:
    english = estimated_tokens("How long does a refund take?")
    chinese = estimated_tokens("退款需要多长时间")

    assert 7 <= english <= 12
    assert 8 <= chinese <= 14


@pytest.mark.parametrize(
    "character", ["ก", "ລ", "မ", "ខ", "か", "カ", "㐀", "語", "﨎", "\U00020000"]
)
def test_letters_of_scripts_without_spaces_join_no_word(character: str) -> None:
    assert is_letter(character)
    assert is_unspaced(character)
    assert not is_joining(character)


@pytest.mark.parametrize("character", ["a", "ß", "я", "ह", "ि", "\u0301", "5", "한"])
def test_letters_digits_and_marks_join_a_word(character: str) -> None:
    assert is_letter(character)
    assert is_joining(character)


@pytest.mark.parametrize("character", [" ", "-", "_", "👍", "。", "\u200b", "\ud800"])
def test_nothing_else_joins_a_word(character: str) -> None:
    assert not is_letter(character)
    assert not is_joining(character)


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("class", 2, True),
        ("a class", 2, False),
        ("退款", 1, False),
        ("a退", 1, False),
        ("ab", 0, False),
        ("ab", 2, False),
        ("", 0, False),
    ],
)
def test_a_place_inside_a_word_joins_it(text: str, at: int, *, expected: bool) -> None:
    assert joined(text, at) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Straße", "strasse"), ("ＡＢ", "ab"), ("Éa", "e\u0301a"), ("退款", "退款")],
)
def test_folded_text_has_no_case_and_no_width(text: str, expected: str) -> None:
    assert folded(text) == expected


@given(st.text())
def test_text_folded_once_stays_as_it_is(text: str) -> None:
    once = folded(text)

    assert folded(once) == once


def test_format_characters_are_not_visible() -> None:
    assert visible("re\u200bfund\u00ad \u202enow") == "refund now"
    assert visible("退款 e\u0301") == "退款 e\u0301"
