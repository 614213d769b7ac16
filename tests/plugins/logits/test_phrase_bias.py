"""phrase-bias: which tokens go on with a phrase, and what they gain."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.errors import PluginError
from bot.interfaces import LogitsProcessor
from bot.testing import FakeVocabulary, a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.phrase_bias import PhraseBias, shares_of


class TestPhraseBiasKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        plugin = PhraseBias(PhraseBias.Settings(phrases=("the class", "a"), bonus=3))
        plugin.read_vocabulary(FakeVocabulary())
        return plugin


def gained(
    phrases: tuple[str, ...],
    pieces: Sequence[str],
    said: Sequence[str] = (),
    bonus: float = 1.0,
) -> dict[str, object]:
    """Return what each piece gains behind what was said, given piece by piece."""
    plugin = PhraseBias(PhraseBias.Settings(phrases=phrases, bonus=bonus))
    plugin.read_vocabulary(FakeVocabulary(["", *pieces]))
    drawn = [pieces.index(piece) + 1 for piece in said]
    changed = plugin.begin(a_turn(), 1)(
        torch.tensor([drawn]).long(), torch.zeros(1, len(pieces) + 1)
    )
    gains = dict(zip(pieces, changed[0, 1:].tolist(), strict=True))
    return {piece: pytest.approx(gain) for piece, gain in gains.items() if gain}


def test_every_token_that_begins_the_phrase_gains_its_share_of_the_word() -> None:
    pieces = ["new", " new", "n", "ne", "York", "newt", "old"]

    assert gained(("New York",), pieces) == {
        "new": 1,
        " new": 1,
        "n": 1 / 3,
        "ne": 2 / 3,
    }


def test_what_goes_on_with_the_phrase_gains() -> None:
    pieces = ["new", " York", " ", "York", " Y", "ork", " Yorker", "er", " York,"]

    assert gained(("New York",), pieces, ["new"]) == {
        " York": 1,
        " Y": 1 / 4,
        " York,": 1,
    }
    assert gained(("New York",), pieces, ["new", " Y"]) == {"ork": 3 / 4}
    # A new beginning is possible behind a space.
    assert gained(("New York",), pieces, ["new", " "]) == {"York": 1, "new": 1}


def test_a_phrase_does_not_begin_inside_a_word() -> None:
    assert gained(("new",), ["re", "new", " new"], ["re"]) == {" new": 1}


def test_a_token_of_several_words_gains_for_each() -> None:
    assert gained(("New York",), ["x", "New York"], bonus=2.5) == {"New York": 5}


def test_a_phrase_that_was_said_gains_no_more() -> None:
    pieces = ["new", " york", " new"]

    assert gained(("new york",), pieces, ["new", " york"]) == {}


def test_a_phrase_that_is_only_part_of_a_word_was_not_said() -> None:
    assert gained(("art",), ["part", " art"], ["part"]) == {" art": 1}


def test_a_malus_stays() -> None:
    pieces = ["new", " york", " new"]

    assert gained(("new york",), pieces, ["new", " york"], bonus=-2) == {" new": -2}


def test_of_phrases_with_the_same_beginning_both_go_on() -> None:
    phrases = ("new york", "new jersey", "newton")

    assert gained(phrases, ["new", " york", " jer", "ton"], ["new"]) == {
        " york": 1,
        " jer": 1 / 2,
        "ton": 1 / 2,
    }


def test_in_scripts_without_spaces_every_character_is_a_word() -> None:
    pieces = ["我", "包", "包邮", "邮", "ab包"]

    assert gained(("包邮",), pieces, ["我"]) == {"包": 1, "包邮": 2}
    assert gained(("包邮",), pieces, ["我", "包"]) == {"邮": 1, "包": 1, "包邮": 2}


def test_what_is_no_letter_has_no_share() -> None:
    assert shares_of("ab, 你c") == [0.5, 0.5, 0, 0, 1, 1]


@checked(max_examples=100, deadline=None)
@given(
    cuts=st.sets(st.integers(1, 12)),
    before=st.sampled_from(["", "x ", "。"]),
)
def test_however_a_phrase_is_cut_it_gains_one_bonus_per_word(
    cuts: set[int], before: str
) -> None:
    phrase = "free delivery"
    at = [0, *sorted(cuts), len(phrase)]
    parts = [phrase[i:j] for i, j in pairwise(at)]
    pieces = ["", before or "unused", *dict.fromkeys(parts)]
    plugin = PhraseBias(PhraseBias.Settings(phrases=(phrase,), bonus=1.5))
    plugin.read_vocabulary(FakeVocabulary(pieces))
    step = plugin.begin(a_turn(), 1)
    drawn = [1] if before else []

    total = 0.0
    for part in parts:
        changed = step(torch.tensor([drawn]).long(), torch.zeros(1, len(pieces)))
        total += changed[0, pieces.index(part)].item()
        drawn.append(pieces.index(part))

    assert total == pytest.approx(2 * 1.5, abs=1e-5)


def test_impossible_tokens_stay_impossible() -> None:
    plugin = PhraseBias(PhraseBias.Settings(phrases=("a",), bonus=100))
    plugin.read_vocabulary(FakeVocabulary(["", "a"]))
    logits = torch.tensor([[0.0, -torch.inf]])

    assert plugin.begin(a_turn(), 1)(torch.zeros(1, 0).long(), logits).equal(logits)


def test_without_a_vocabulary_it_says_what_is_missing() -> None:
    with pytest.raises(PluginError, match="vocabulary"):
        PhraseBias(PhraseBias.Settings(phrases=("a",))).begin(a_turn(), 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"phrases": []},
        {"phrases": [" "]},
        {"phrases": ["!"]},
        {"phrases": ["x" * 101]},
        {"phrases": ["a"], "bonus": 101},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PhraseBias.Settings.model_validate(wrong)
