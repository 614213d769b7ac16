"""
Numbers about answers and rankings, and how certain they are, as pure functions.

Knows nothing about bots, files or models: texts and ranks in, floats out. Answers are
compared the way SQuAD does, so that figures can be set beside published ones; Chinese
(and Japanese) is compared by characters, because it is not written in words.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

_ARTICLES = frozenset({"a", "an", "the"})
_RESAMPLES = 2000
_COVERAGE = 0.95

# Han, kana and their extensions: written without spaces, so each stands alone.
_UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


def normalised(text: str) -> list[str]:
    """
    Split into comparable words: case, punctuation, English articles and width
    folded, as SQuAD's evaluation script does; unspaced scripts by character.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(character for character in folded if not _is_mark(character))
    words = _UNSPACED.sub(r" \1 ", bare).split()
    return [word for word in words if word not in _ARTICLES]


def _is_mark(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(
        character
    ).startswith("P")


def contains(reply: str, gold: str) -> bool:
    """Tell whether the words of `gold` stand in `reply`, in a row."""
    words, wanted = normalised(reply), normalised(gold)
    if not wanted:
        return False
    return any(
        words[start : start + len(wanted)] == wanted
        for start in range(len(words) - len(wanted) + 1)
    )


def token_f1(reply: str, gold: str) -> float:
    """SQuAD's F1 of the two bags of words, 0 to 1."""
    words, wanted = normalised(reply), normalised(gold)
    if not words or not wanted:
        return float(words == wanted)
    common = (Counter(words) & Counter(wanted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def best_containment(reply: str, golds: Sequence[str]) -> float:
    return float(any(contains(reply, gold) for gold in golds))


def best_f1(reply: str, golds: Sequence[str]) -> float:
    return max((token_f1(reply, gold) for gold in golds), default=0.0)


def holds_quote(passage: str, quote: str, share: float = 0.8) -> bool:
    """
    Tell whether a passage contains a quote, white space and case folded. A quote that
    was cut by the passage's border, or a table row whose cells were labelled, counts
    when at least `share` of its words are in.
    """
    if " ".join(quote.casefold().split()) in " ".join(passage.casefold().split()):
        return True
    wanted = Counter(normalised(quote))
    found = (wanted & Counter(normalised(passage))).total()
    return found >= share * wanted.total() > 0


def hit(rank: int | None, depth: int) -> float:
    """1 when the first right result stands within the first `depth`; ranks from 1."""
    return float(rank is not None and rank <= depth)


def reciprocal(rank: int | None) -> float:
    return 0.0 if rank is None else 1 / rank


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """
    The 95 % percentile interval of the mean. `values` are one number per question;
    of a paired difference, for instance, one difference per question.
    """
    if not len(values):
        return (0.0, 0.0)
    return _percentiles(_resampled(values, seed).mean(axis=1))


def quantile(values: Sequence[float], share: float) -> float:
    """Return what so large a share of the values do not exceed."""
    return float(np.quantile(values, share)) if len(values) else 0.0


def quantile_bootstrap(
    values: Sequence[float], share: float, seed: int = 0
) -> Interval:
    """Return the 95 % percentile interval of a quantile."""
    if not len(values):
        return (0.0, 0.0)
    return _percentiles(np.quantile(_resampled(values, seed), share, axis=1))


def _resampled(values: Sequence[float], seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(values), size=(_RESAMPLES, len(values)))
    resampled: NDArray[np.float64] = np.asarray(values, dtype=np.float64)[drawn]
    return resampled


def _percentiles(statistics: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(statistics, [(1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2])
    return (float(low), float(high))


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Pair two measurements of the same questions, in the same order."""
    return [mine - other for mine, other in zip(ours, theirs, strict=True)]
