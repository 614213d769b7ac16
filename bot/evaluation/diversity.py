"""
How much the candidates of one set differ, as pure functions: texts and vectors in,
floats out.

Form and content are different things: what decoding changes is mostly the form (Tevet
and Berant 2021), and measures of form call even random sentences diverse. So a set has
figures of both kinds: distinct-n, expectation-adjusted distinct, entropy, self-BLEU and
clusters by words; distance, Vendi score and clusters by meaning. Words are those of
`bot.text.words`, so that Chinese has some. Knows nothing about who wrote the texts.
O(k²) in the number of texts.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from bot.text import overlap_f1, words

# NoveltyBench's equivalence by words (Zhang et al. 2025, arXiv:2504.05228).
SAME_WORDS = 0.458
# Our own choice for MiniLM, calibrated on nothing: compare only like with like.
SAME_MEANING = 0.8
# GPT-2's. The size hardly matters where it is far above the number of words in a set.
VOCABULARY = 50_257
_PATIENCE = 0.8

# What a set with fewer texts has, nothing can differ in.
_FEWEST = 2

Vectors = NDArray[np.float32]


def set_diversity(texts: Sequence[str], vectors: Vectors) -> dict[str, float]:
    """
    Return every figure of one candidate set, `vectors` [k, d] being its embeddings.
    A set of fewer than two texts has none: the mapping is empty.
    """
    if len(texts) < _FEWEST:
        return {}
    return {
        "distinct-1": distinct(texts, 1),
        "distinct-2": distinct(texts, 2),
        "distinct-3": distinct(texts, 3),
        "ead": expectation_adjusted_distinct(texts, VOCABULARY),
        "ent-4": entropy(texts, 4),
        "self-bleu": self_bleu(texts),
        "clusters": float(len(set(clusters_by_words(texts)))),
        "distance": mean_distance(vectors),
        "vendi": vendi(vectors),
        "clusters by meaning": float(len(set(clusters_by_meaning(vectors)))),
    }


# Form


def distinct(texts: Sequence[str], n: int) -> float:
    """
    Return the share of different n-grams among all of a set (Li et al. 2016), 0 to 1.
    It falls with length: compare it only at equal length.
    """
    grams = _ngrams(texts, n)
    return len(grams) / grams.total() if grams else 0.0


def expectation_adjusted_distinct(
    texts: Sequence[str], vocabulary: int, n: int = 1
) -> float:
    """
    Return the number of different n-grams over the number to be expected of as many
    drawn evenly from a `vocabulary` (Liu et al. 2022): N / (V · (1 - ((V - 1) / V)^C)).
    """
    grams = _ngrams(texts, n)
    if not grams:
        return 0.0
    # log1p and expm1 keep the digits that a large vocabulary would cost.
    missed = (
        grams.total() * math.log1p(-1 / vocabulary) if vocabulary > 1 else -math.inf
    )
    return len(grams) / (vocabulary * -math.expm1(missed))


def entropy(texts: Sequence[str], n: int) -> float:
    """Return the entropy of a set's n-grams, in nats (Ent-n, Zhang et al. 2018)."""
    counts = np.array(list(_ngrams(texts, n).values()), np.float64)
    if not counts.size:
        return 0.0
    shares = counts / counts.sum()
    return float(max(0.0, -(shares * np.log(shares)).sum()))


def self_bleu(texts: Sequence[str]) -> float:
    """
    Return the mean BLEU-4 of each text against the others (Zhu et al. 2018), 0 to 1;
    lower is more diverse. sacrebleu's sentence BLEU with effective order (a text of two
    words is judged by two orders) and exponential smoothing, over `words`.
    """
    split = [" ".join(words(text)) for text in texts]
    if len(split) < _FEWEST:
        return 0.0
    scores = [
        _sentence_bleu()
        .sentence_score(mine, [other for at, other in enumerate(split) if at != row])
        .score
        for row, mine in enumerate(split)
    ]
    return float(np.clip(np.mean(scores) / 100, 0.0, 1.0))


def clusters_by_words(texts: Sequence[str], same: float = SAME_WORDS) -> list[int]:
    """
    Return the number of each text's cluster, from 0 on, as NoveltyBench counts them: a
    text joins the first cluster whose first member it is like (ROUGE-1 F above `same`),
    or begins one. Texts without any words are alike.
    """
    split = [words(text) for text in texts]

    def alike(row: int, other: int) -> bool:
        if not split[row] and not split[other]:
            return True
        return overlap_f1(split[row], split[other]) > same

    return _first_match(len(split), alike)


def _ngrams(texts: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        split = words(text)
        found.update(zip(*(split[at:] for at in range(n)), strict=False))
    return found


@functools.cache
def _sentence_bleu() -> BLEU:
    # `force`: the texts are split already, which sacrebleu would warn of.
    return BLEU(tokenize="none", smooth_method="exp", effective_order=True, force=True)


# Content


def mean_distance(vectors: Vectors) -> float:
    """Return 1 - the mean cosine of each two texts."""
    similarity = _similarity(vectors)
    pairs = similarity[np.triu_indices(len(similarity), k=1)]
    return float(1 - pairs.mean()) if pairs.size else 0.0


def vendi(vectors: Vectors) -> float:
    """
    Return the Vendi score (Friedman and Dieng 2023, arXiv:2210.02410), the effective
    number of different texts, 1 to k: exp of the entropy of the eigenvalues of the
    cosines over k.
    """
    if not len(vectors):
        return 0.0
    shares = np.linalg.eigvalsh(_similarity(vectors) / len(vectors))
    # Rounding leaves eigenvalues that are zero a little off it, on either side.
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def clusters_by_meaning(vectors: Vectors, same: float = SAME_MEANING) -> list[int]:
    """Return clusters as `clusters_by_words` does; alike is a cosine above `same`."""
    similarity = _similarity(vectors)
    return _first_match(
        len(similarity), lambda row, other: bool(similarity[row, other] > same)
    )


def _similarity(vectors: Vectors) -> NDArray[np.float64]:
    """
    Return the cosines [k, k]. Rows of length zero, which an embedder gives for empty
    texts, get a direction of their own: such texts are alike, and like no other.
    """
    exact = np.nan_to_num(np.asarray(vectors, np.float64), posinf=0.0, neginf=0.0)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    directions = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)
    directions = np.hstack([directions, (lengths == 0).astype(np.float64)])
    similarity: NDArray[np.float64] = np.clip(directions @ directions.T, -1.0, 1.0)
    return similarity


def _first_match(texts: int, alike: Callable[[int, int], bool]) -> list[int]:
    firsts: list[int] = []
    clusters: list[int] = []
    for row in range(texts):
        own = next((at for at, first in enumerate(firsts) if alike(first, row)), None)
        if own is None:
            own = len(firsts)
            firsts.append(row)
        clusters.append(own)
    return clusters


# Both, and quality


def utility(worths: Sequence[float], clusters: Sequence[int]) -> float:
    """
    Return NoveltyBench's utility of a set for a reader who goes through it in order and
    looks at the next text with a chance of 0.8: the mean worth with the weights 0.8^i,
    where a text of a cluster that was seen before is worth nothing.
    """
    if not len(worths):
        return 0.0
    seen: set[int] = set()
    gains: list[float] = []
    for worth, cluster in zip(worths, clusters, strict=True):
        gains.append(0.0 if cluster in seen else worth)
        seen.add(cluster)
    return float(np.average(gains, weights=_PATIENCE ** np.arange(len(gains))))
