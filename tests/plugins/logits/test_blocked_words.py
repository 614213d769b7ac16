# ruff: noqa: RUF001 - letters of full width are meant
"""blocked-words: what can no longer be said, and what still can."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.errors import PluginError
from bot.interfaces import LogitsProcessor, Vocabulary
from bot.testing import FakeVocabulary, a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.blocked_words import BlockedWords, read


class ByteVocabulary:
    """Tokens of bytes, some of them parts of characters; the first ends a text."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self.size = len(pieces)
        self.end_tokens = frozenset({0})
        self.decoded = 0

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        self.decoded += 1
        return b"".join(self._pieces[token] for token in tokens).decode(
            errors="replace"
        )

    def piece(self, token: int) -> str:
        return self.decode([token])


class TestBlockedWordsKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return blocking(("ass", "a", "9"), FakeVocabulary())


def blocking(words: tuple[str, ...], vocabulary: Vocabulary) -> BlockedWords:
    plugin = BlockedWords(BlockedWords.Settings(words=words))
    plugin.read_vocabulary(vocabulary)
    return plugin


def unsayable(
    plugin: BlockedWords, vocabulary: Vocabulary, drawn: Sequence[int]
) -> set[int]:
    step = plugin.begin(a_turn(), 1)
    changed = step(torch.tensor([drawn]).long(), torch.zeros(1, vocabulary.size))
    return set(changed[0].isneginf().nonzero().flatten().tolist())


def blocked_pieces(
    words: tuple[str, ...], pieces: Sequence[str], said: Sequence[str] = ()
) -> set[str]:
    """Return which of the pieces cannot follow what was said, given piece by piece."""
    vocabulary = FakeVocabulary(["", *pieces])
    drawn = [pieces.index(piece) + 1 for piece in said]
    found = unsayable(blocking(words, vocabulary), vocabulary, drawn)
    return {pieces[token - 1] for token in found}


def holds_word(words: Sequence[str], text: str) -> bool:
    """Tell independently whether a text of letters and Han holds a word."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u200b", "")
    latin = [re.escape(word) for word in words if word.isascii()]
    other = [re.escape(word) for word in words if not word.isascii()]
    # A letter beside Han is not of one word with it.
    letter = r"[^\W\u4e00-\u9fff]"
    patterns = [rf"(?<!{letter})(?:{'|'.join(latin)})(?!{letter})"] if latin else []
    return any(re.search(pattern, plain) for pattern in [*patterns, *other])


def test_a_listed_word_cannot_be_said_in_any_cut() -> None:
    pieces = ["a", "s", "ss", "as", "ass", " ass", " as", " "]

    assert blocked_pieces(("ass",), pieces) == {"ass", " ass"}
    assert blocked_pieces(("ass",), pieces, ["a"]) == {"ss", " ass"}
    assert blocked_pieces(("ass",), pieces, [" ", "a", "s"]) == {"s", " ass"}
    assert blocked_pieces(("ass",), pieces, [" as"]) == {"s", " ass"}


def test_a_longer_word_does_not_hold_it() -> None:
    pieces = ["cl", "ass", "a", "ss", "assume", "ass ", "ass's"]

    assert blocked_pieces(("ass",), pieces, ["cl"]) == set()
    assert blocked_pieces(("ass",), pieces, ["cl", "a"]) == set()
    assert blocked_pieces(("ass",), pieces) == {"ass", "ass ", "ass's"}


def test_the_end_of_a_token_counts_as_the_end_of_the_word() -> None:
    # "assume" can be said as one token, or as "as" + "sume", but not through "ass".
    assert blocked_pieces(("ass",), ["ass", "as", "ume", "sume", "assume"]) == {"ass"}
    assert blocked_pieces(("ass",), ["as", "s", "sume"], ["as"]) == {"s"}


@pytest.mark.parametrize(
    "spelling", ["ASS", "aSs", "ａｓｓ", "a\u200bss", "(ass)", "-ass-"]
)
def test_case_width_and_invisible_characters_make_no_difference(spelling: str) -> None:
    assert blocked_pieces(("Ass",), ["b", spelling]) == {spelling}


def test_a_word_is_found_across_invisible_tokens() -> None:
    pieces = ["as", "\u200b", "s"]

    said = ["as", *["\u200b"] * 100]

    assert blocked_pieces(("ass",), pieces, said) == {"s"}


def test_digits_and_marks_are_parts_of_a_word() -> None:
    pieces = ["ass1", "1", "ass", "cafe", "cafe\u0301", "café"]

    assert blocked_pieces(("ass",), pieces, ["1"]) == set()
    assert blocked_pieces(("cafe",), pieces) == {"cafe"}
    assert blocked_pieces(("café",), pieces) == {"cafe\u0301", "café"}


def test_words_of_scripts_without_spaces_match_anywhere() -> None:
    pieces = ["你", "傻", "瓜", "大傻瓜们", "瓜傻"]

    assert blocked_pieces(("傻瓜",), pieces) == {"大傻瓜们"}
    assert blocked_pieces(("傻瓜",), pieces, ["你", "傻"]) == {"瓜", "大傻瓜们", "瓜傻"}


def test_a_character_whose_bytes_are_drawn_one_by_one_is_recognised() -> None:
    one, other = "傻".encode(), "瓜".encode()
    vocabulary = ByteVocabulary([b"", *(bytes([b]) for b in one + other), b"a", one])
    plugin = blocking(("傻瓜",), vocabulary)

    # The last byte completes the word after the bytes, or after the whole character.
    assert unsayable(plugin, vocabulary, [1, 2, 3, 4, 5]) == {6}
    assert unsayable(plugin, vocabulary, [8, 4, 5]) == {6}
    assert unsayable(plugin, vocabulary, [7, 4, 5]) == set()
    assert unsayable(plugin, vocabulary, [1, 2, 3, 4]) == set()


def test_an_unfinished_character_is_looked_at_once() -> None:
    one = "傻".encode()
    vocabulary = ByteVocabulary([b"", *(bytes([b]) for b in one), b"a"])
    plugin = blocking(("傻",), vocabulary)
    first = unsayable(plugin, vocabulary, [1, 2])
    before = vocabulary.decoded

    again = unsayable(plugin, vocabulary, [4, 1, 2])

    assert first == again == {3}
    assert vocabulary.decoded - before < vocabulary.size


def test_where_only_a_listed_word_is_left_the_reply_ends() -> None:
    vocabulary = FakeVocabulary(["", "ass", "b"])
    step = blocking(("ass",), vocabulary).begin(a_turn(), 2)
    logits = torch.tensor([[-torch.inf, 4.0, -torch.inf], [-torch.inf, 4.0, 1.0]])

    changed = step(torch.zeros(2, 0).long(), logits)

    assert changed.isfinite().tolist() == [[True, False, False], [False, False, True]]


def test_where_nothing_ends_a_reply_a_row_keeps_what_it_has() -> None:
    vocabulary = FakeVocabulary(["ass"], end_tokens=())

    changed = blocking(("ass",), vocabulary).begin(a_turn(), 1)(
        torch.zeros(1, 0).long(), torch.ones(1, 1)
    )

    assert changed.tolist() == [[1.0]]


_TOKENS = [
    b"",
    b"a",
    b"s",
    b"as",
    b"ss",
    b"ass",
    b" ass",
    b" ",
    b"A",
    b"x",
    b".",
    b"sx",
]
_TOKENS += ["傻".encode(), "瓜a".encode(), "傻".encode()[:1], "傻".encode()[1:]]
_TOKENS += ["瓜".encode()[:2], "瓜".encode()[2:] + "傻".encode()[:2], b"\xbb", b"\xef"]
_TOKENS += ["ａ".encode()[1:], "\u200b".encode(), "ｓ".encode(), b" \xef", b"ass "]


@checked(max_examples=100, deadline=None)
@given(wishes=st.lists(st.integers(1, len(_TOKENS) - 1), max_size=12))
def test_exactly_those_tokens_are_blocked_that_would_say_a_word(
    wishes: list[int],
) -> None:
    words = ("ass", "傻瓜", "s")
    vocabulary = ByteVocabulary(_TOKENS)
    plugin = blocking(words, vocabulary)
    drawn: list[int] = []

    for wish in wishes:
        found = unsayable(plugin, vocabulary, drawn)
        assert found == {
            token
            for token in range(1, vocabulary.size)
            if holds_word(words, vocabulary.decode([*drawn, token]))
        }
        if wish not in found:
            drawn.append(wish)


@given(one=st.text(max_size=10), other=st.text(max_size=10))
def test_folding_the_parts_folds_the_whole_up_to_the_order_of_marks(
    one: str, other: str
) -> None:
    assert sorted(read(one) + read(other)) == sorted(read(one + other))


def test_without_a_vocabulary_it_says_what_is_missing() -> None:
    plugin = BlockedWords(BlockedWords.Settings(words=("ass",)))

    with pytest.raises(PluginError, match="vocabulary"):
        plugin.begin(a_turn(), 1)


@pytest.mark.parametrize(
    "words", [(), ("",), ("two words",), ("-",), ("\u200b",), ("x" * 51,), ("a-",)]
)
def test_what_is_no_word_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        BlockedWords.Settings(words=words)
