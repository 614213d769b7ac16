"""
Prefixes: a radix index over token ids that keeps keys and values for the next prompt.

What is common to all conversations (persona and rules) and a conversation's history
are found again by their tokens, however long the common part is. Bounded by tokens,
least recently used out; what a running set stands on is never let go. Knows nothing
about text, nor how keys and values come about.

Keys and values found here were computed in another batch than a fresh reading would
be: results agree to rounding, not to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from bot.generation.kv import Segment


@dataclass(slots=True, eq=False)
class Node:
    """
    A run of tokens behind its parent's, with their keys and values. `users` counts the
    running sets that stand on it or on a node below.
    """

    tokens: tuple[int, ...]
    segment: Segment
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)
    users: int = 0
    used: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Match:
    """The longest known beginning of a prompt; `node` is where it ends."""

    node: Node | None = None
    segments: Sequence[Segment] = ()
    length: int = 0


class Prefixes:
    """The index. `tokens` counts all that it keeps."""

    def __init__(self) -> None:
        self._first: dict[int, Node] = {}
        self._clock = count(1)
        self.tokens = 0

    def match(self, tokens: Sequence[int]) -> Match:
        """Return what is known of the beginning, and hold it until `release`."""
        node, segments, length = None, list[Segment](), 0
        for each, same in list(self._walk(tokens)):
            # Split where it ends, so that no more is held than was found.
            node = each if same == len(each.tokens) else self._split(each, same)
            segments.append(node.segment)
            length += same
        self._use(node)
        for each in _upwards(node):
            each.users += 1
        return Match(node=node, segments=segments, length=length)

    def known(self, tokens: Sequence[int]) -> int:
        """Return how many tokens `match` would find, and change nothing."""
        return sum(same for _, same in self._walk(tokens))

    def release(self, match: Match) -> None:
        for each in _upwards(match.node):
            each.users -= 1

    def keep(
        self, tokens: Sequence[int], start: int, segment: Segment, *, soon: bool = True
    ) -> int:
        """
        Keep the keys and values of `tokens[start:]`, which are `segment`'s, and return
        how many of them were new. The tokens before must be known. What is not `soon`
        to be used again is the first to go.
        """
        node, at = None, 0
        for child, same in list(self._walk(tokens)):
            node = child if same == len(child.tokens) else self._split(child, same)
            at += same
        if soon:
            self._use(node)
        if at == len(tokens):
            return 0
        if at < start:
            raise ValueError(f"tokens {at} to {start} are not known")
        # What is part of more becomes a copy, so that the rest can be freed.
        new = segment[..., at - start :, :].contiguous()
        kept = Node(tokens=tuple(tokens[at:]), segment=new, parent=node)
        self._below(node)[tokens[at]] = kept
        if soon:
            self._use(kept)
        self.tokens += len(kept.tokens)
        return len(kept.tokens)

    def make_room(self, most: int) -> None:
        """Let go of the least recently used until at most so many tokens are kept."""
        while self.tokens > most:
            free = [node for node in self._nodes() if _is_free(node)]
            if not free:
                return
            self._drop(min(free, key=lambda node: node.used))

    def _walk(self, tokens: Sequence[int]) -> Iterator[tuple[Node, int]]:
        """Go down as far as `tokens` lead; with each node, how many of its tokens."""
        below, at = self._first, 0
        while at < len(tokens) and (node := below.get(tokens[at])):
            same = _common(node.tokens, tokens, at)
            yield node, same
            if same < len(node.tokens):
                return
            below, at = node.children, at + same

    def _below(self, node: Node | None) -> dict[int, Node]:
        return self._first if node is None else node.children

    def _use(self, node: Node | None) -> None:
        now = next(self._clock)
        for each in _upwards(node):
            each.used = now

    def _split(self, lower: Node, at: int) -> Node:
        """
        Put a new node over `lower` that takes its first tokens, and return it. Sets
        know the node their prefix ends in, which stays the lower one.
        """
        upper = Node(
            tokens=lower.tokens[:at],
            segment=lower.segment[..., :at, :].clone(),
            parent=lower.parent,
            children={lower.tokens[at]: lower},
            users=lower.users,
            used=lower.used,
        )
        self._below(lower.parent)[upper.tokens[0]] = upper
        lower.parent = upper
        lower.tokens = lower.tokens[at:]
        lower.segment = lower.segment[..., at:, :].clone()
        return upper

    def _drop(self, node: Node) -> None:
        del self._below(node.parent)[node.tokens[0]]
        self.tokens -= len(node.tokens)

    def _nodes(self) -> Iterator[Node]:
        remaining = list(self._first.values())
        while remaining:
            node = remaining.pop()
            yield node
            remaining.extend(node.children.values())


def _is_free(node: Node) -> bool:
    return not node.children and not node.users


def _upwards(node: Node | None) -> Iterator[Node]:
    each = node
    while each is not None:
        yield each
        each = each.parent


def _common(run: Sequence[int], tokens: Sequence[int], at: int) -> int:
    """Return how many tokens of `run` stand in `tokens` from `at` on."""
    length = min(len(run), len(tokens) - at)
    return next(
        (place for place in range(length) if run[place] != tokens[at + place]), length
    )
