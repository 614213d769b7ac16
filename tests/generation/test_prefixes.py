"""Prefixes: what was read is found again, and what is in use is never let go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bot.generation.prefixes import Match, Prefixes

if TYPE_CHECKING:
    from torch import Tensor


def a_segment(tokens: Sequence[int]) -> Tensor:
    """Keys and values that say which tokens they are of, and where those stand."""
    places = torch.arange(len(tokens))
    return torch.stack([torch.tensor(tokens), places]).view(1, 2, 1, len(tokens), 1)


def kept(prefixes: Prefixes, *tokens: int) -> int:
    """Keep a whole prompt, as a job does that found nothing of it."""
    return prefixes.keep(tokens, 0, a_segment(tokens))


def read_back(match: Match) -> list[list[int]]:
    """The tokens and the places that a match's segments hold."""
    if not match.segments:
        return [[], []]
    whole: list[list[int]] = torch.cat(list(match.segments), dim=3)[
        0, :, 0, :, 0
    ].tolist()
    return whole


def found(prefixes: Prefixes, *tokens: int) -> list[int]:
    """The tokens that are known of a prompt; nothing is held."""
    match = prefixes.match(tokens)
    prefixes.release(match)
    own, places = read_back(match)
    assert places == list(range(match.length))
    assert prefixes.known(tokens) == match.length == len(own)
    return own


def test_nothing_is_known_at_first() -> None:
    prefixes = Prefixes()

    assert found(prefixes, 1, 2, 3) == []
    assert found(prefixes) == []
    assert prefixes.tokens == 0


def test_what_was_kept_is_found_as_far_as_it_goes() -> None:
    prefixes = Prefixes()
    assert kept(prefixes, 1, 2, 3, 4) == 4

    assert found(prefixes, 1, 2, 3, 4) == [1, 2, 3, 4]
    assert found(prefixes, 1, 2, 3, 4, 5, 6) == [1, 2, 3, 4]
    assert found(prefixes, 1, 2, 9) == [1, 2]
    assert found(prefixes, 1) == [1]
    assert found(prefixes, 2, 3, 4) == []


def test_what_is_common_to_two_prompts_is_kept_once() -> None:
    prefixes = Prefixes()

    new = [
        kept(prefixes, 1, 2, 3, 4),
        kept(prefixes, 1, 2, 7, 8),
        kept(prefixes, 1, 2),
        kept(prefixes, 1, 2, 3, 4, 5),
    ]

    assert new == [4, 2, 0, 1]
    assert prefixes.tokens == 7
    assert found(prefixes, 1, 2, 7, 8) == [1, 2, 7, 8]
    assert found(prefixes, 1, 2, 3, 4, 5) == [1, 2, 3, 4, 5]


def test_a_segment_need_not_hold_what_is_known_already() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 2, 3)
    whole = a_segment([1, 2, 3, 4, 5])

    new = prefixes.keep([1, 2, 3, 4, 5], 2, whole[..., 2:, :])

    assert new == 2
    assert found(prefixes, 1, 2, 3, 4, 5) == [1, 2, 3, 4, 5]


def test_what_comes_before_a_segment_must_be_known() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 2)

    with pytest.raises(ValueError, match="tokens 2 to 3 are not known"):
        prefixes.keep([1, 2, 3, 4], 3, a_segment([4]))

    assert prefixes.tokens == 2


def test_what_was_kept_does_not_change_with_the_rows_it_came_from() -> None:
    prefixes = Prefixes()
    rows = a_segment([1, 2, 3, 4]).float().unsqueeze(3).repeat(1, 1, 1, 2, 1, 1)

    prefixes.keep([1, 2, 3], 0, rows[:, :, :, 0, :3])
    rows.zero_()

    assert found(prefixes, 1, 2, 3) == [1, 2, 3]


def test_a_split_leaves_a_running_sets_prefix_as_it_was() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 2, 3, 4)
    held = prefixes.match([1, 2, 3, 4])

    kept(prefixes, 1, 2, 9)
    prefixes.make_room(0)

    assert read_back(held)[0] == [1, 2, 3, 4]
    assert found(prefixes, 1, 2, 3, 4) == [1, 2, 3, 4]
    assert prefixes.tokens == 4
    prefixes.release(held)
    prefixes.make_room(0)
    assert prefixes.tokens == 0


def test_the_least_recently_used_is_let_go_first() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 1)
    kept(prefixes, 2, 2)
    kept(prefixes, 3, 3)
    found(prefixes, 1, 1)

    prefixes.make_room(4)

    assert prefixes.tokens == 4
    assert found(prefixes, 2, 2) == []
    assert found(prefixes, 1, 1) == [1, 1]
    assert found(prefixes, 3, 3) == [3, 3]


def test_looking_whether_something_is_known_is_no_use_of_it() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 1)
    kept(prefixes, 2, 2)
    prefixes.known([1, 1])

    prefixes.make_room(2)

    assert found(prefixes, 2, 2) == [2, 2]


def test_an_end_is_let_go_before_the_beginning_that_others_go_on_from() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 2, 3)
    kept(prefixes, 1, 2, 4)
    kept(prefixes, 1, 2, 5)

    prefixes.make_room(3)

    assert found(prefixes, 1, 2, 5) == [1, 2, 5]
    assert found(prefixes, 1, 2, 3) == [1, 2]


def test_what_will_hardly_be_used_again_goes_before_all_else() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 2)
    kept(prefixes, 7, 7)
    prefixes.keep([1, 2, 3], 2, a_segment([3]), soon=False)

    prefixes.make_room(4)

    assert found(prefixes, 1, 2, 3) == [1, 2]
    assert found(prefixes, 7, 7) == [7, 7]


def test_no_more_is_let_go_than_has_to_be() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 1)
    kept(prefixes, 2, 2)

    prefixes.make_room(4)

    assert prefixes.tokens == 4


def test_what_is_in_use_stays_whatever_room_is_asked_for() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 2)
    kept(prefixes, 1, 2, 3)
    kept(prefixes, 4)
    held = prefixes.match([1, 2])

    prefixes.make_room(0)

    assert prefixes.tokens == 2
    assert read_back(held)[0] == [1, 2]


def test_two_sets_on_one_prefix_hold_it_until_both_have_gone() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 2)
    first, second = prefixes.match([1, 2]), prefixes.match([1, 2])

    prefixes.release(first)
    prefixes.make_room(0)
    assert prefixes.tokens == 2
    prefixes.release(second)
    prefixes.make_room(0)

    assert prefixes.tokens == 0


def test_a_set_holds_no_more_than_it_found() -> None:
    prefixes = Prefixes()
    kept(prefixes, 1, 2, 3, 4, 5, 6)
    held = prefixes.match([1, 2, 9])

    prefixes.make_room(0)

    assert held.length == 2
    assert prefixes.tokens == 2


class Index(RuleBasedStateMachine):
    """Against a plain set of all beginnings that are kept."""

    some_tokens = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)

    @initialize()
    def begin(self) -> None:
        self.prefixes = Prefixes()
        self.beginnings: set[tuple[int, ...]] = set()
        self.held: list[tuple[Match, tuple[int, ...]]] = []

    def longest(self, tokens: Sequence[int]) -> tuple[int, ...]:
        known = [
            tuple(tokens[:end])
            for end in range(len(tokens) + 1)
            if tuple(tokens[:end]) in self.beginnings
        ]
        return max(known, key=len, default=())

    @rule(tokens=some_tokens, soon=st.booleans(), start=st.integers(0, 7))
    def keep(self, tokens: tuple[int, ...], soon: bool, start: int) -> None:
        known = len(self.longest(tokens))
        start = min(start, known)
        segment = a_segment(tokens)[..., start:, :]

        new = self.prefixes.keep(tokens, start, segment, soon=soon)

        assert new == len(tokens) - known
        ends = range(1, len(tokens) + 1)
        self.beginnings |= {tokens[:end] for end in ends}

    @rule(tokens=some_tokens)
    def match(self, tokens: tuple[int, ...]) -> None:
        match = self.prefixes.match(tokens)

        assert tuple(read_back(match)[0]) == self.longest(tokens)
        self.held.append((match, self.longest(tokens)))

    @rule(chosen=st.randoms())
    def release(self, chosen: Any) -> None:
        if self.held:
            match, _ = self.held.pop(chosen.randrange(len(self.held)))
            self.prefixes.release(match)

    @rule(most=st.integers(0, 12))
    def make_room(self, most: int) -> None:
        before = self.prefixes.tokens

        self.prefixes.make_room(most)

        left = {each for each in self.beginnings if found(self.prefixes, *each)}
        left = {each for each in left if found(self.prefixes, *each) == list(each)}
        assert before == self.prefixes.tokens or before > most
        nodes = list(self.prefixes._nodes())
        in_use = all(node.users or node.children for node in nodes)
        assert self.prefixes.tokens <= most or in_use
        self.beginnings = left

    @invariant()
    def what_is_held_is_known(self) -> None:
        for match, tokens in self.held:
            own, places = read_back(match)
            assert tuple(own) == tokens
            assert places == list(range(len(tokens)))
            assert self.prefixes.known(tokens) == len(tokens)

    @invariant()
    def tokens_are_counted(self) -> None:
        nodes = list(self.prefixes._nodes())
        assert self.prefixes.tokens == sum(len(node.tokens) for node in nodes)
        # One token stands for the beginning that ends in it.
        assert self.prefixes.tokens == len(self.beginnings)
        assert all(node.users >= 0 for node in nodes)

    def teardown(self) -> None:
        for match, _ in self.held:
            self.prefixes.release(match)
        assert all(not node.users for node in self.prefixes._nodes())
        self.prefixes.make_room(0)
        assert self.prefixes.tokens == 0


TestIndexAgainstAllBeginnings = Index.TestCase
TestIndexAgainstAllBeginnings.settings = settings(
    max_examples=120, stateful_step_count=25, deadline=None, derandomize=True
)
