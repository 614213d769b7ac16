from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.conversation.cleaning import cleaned_text, is_readable


@pytest.mark.parametrize(
    ("arrived", "kept"),
    [
        ("a\x00b\x1b[31mc\x7f\x85", "ab[31mc"),
        ("tab\tline\n", "tab\tline\n"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("half \ud83d of it", "half  of it"),
        ("cafe\u0301", "caf\u00e9"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_text_keeps_what_can_be_read(arrived: str, kept: str) -> None:
    assert cleaned_text(arrived) == kept


def test_accents_without_end_are_cut_before_they_are_sorted() -> None:
    """Sorting 40,000 of them, the most that one message holds, takes seconds."""
    assert cleaned_text("e" + "\u0301" * 40_000) == "\u00e9" + "\u0301" * 29


@given(st.text())
def test_clean_text_is_valid_and_stays_as_it_is(text: str) -> None:
    once = cleaned_text(text)

    assert cleaned_text(once) == once
    assert once.encode().decode() == once


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\u2060", "\u3000"])
def test_text_without_a_visible_character_is_not_readable(text: str) -> None:
    assert not is_readable(text)


@pytest.mark.parametrize("text", ["?", "退", " a "])
def test_one_visible_character_is_enough(text: str) -> None:
    assert is_readable(text)
