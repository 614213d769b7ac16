"""
Suite `intents`: can the bot's embedder tell what a customer wants from examples, and
that it is none of it?

A phrase is given the intent of the example phrase nearest to it: by the cosine of the
bot's embedder (`dense`), by BM25 over the examples (`bm25`), and by the sum of both as
z-scores over the intents (`both`); an intent is as near as its nearest example. Two
formats are read:

- banking77 (Casanueva et al. 2020): a folder with `train.csv` and `test.csv`, each with
  the columns `text` and `category`
- clinc150 (Larson et al. 2019): `{"train": [["what is my balance", "balance"], …],
  "val": …, "test": …, "oos_val": [["how tall is the moon", "oos"], …], "oos_test": …}`

With out-of-scope phrases it also measures how well the nearest example's score tells
them from those in scope (AUC), and what a threshold does that was chosen on `val`, for
the best balanced accuracy: which share of the out-of-scope phrases is refused, which
share in scope is kept, and kept with the right intent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from bot.evaluation import metrics, quality, tuning
from bot.evaluation.lines import (
    DataFile,
    Line,
    chosen,
    inside,
    json_document,
    named,
    table,
)
from bot.evaluation.questions import evenly
from bot.evaluation.report import Report, Row, row
from bot.interfaces import Embedder, Progress
from bot.knowledge import lexical

if TYPE_CHECKING:
    from bot.app import App

_TABLE_NEEDS = "a table with commas whose header names text and category"
_DOCUMENT_NEEDS = (
    "a JSON object with train, val, test, oos_val and oos_test, each a list of "
    "[text, intent]"
)
_BATCH = 256

Floats = NDArray[np.float64]
# Scores [n phrases, intents] by leg.
Legs = Mapping[str, Floats]


class _Categorised(Line):
    text: Annotated[str, Field(min_length=1)]
    category: Annotated[str, Field(min_length=1)]


Phrase = tuple[Annotated[str, Field(min_length=1)], str]
Phrases = tuple[Phrase, ...]
Some = Annotated[Phrases, Field(min_length=1)]


class Intents(Line):
    """Phrases with their intents: to learn from, to choose by, and to measure on."""

    train: Some
    test: Some
    val: Phrases = ()
    oos_val: Phrases = ()
    oos_test: Phrases = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examples:
    """The example phrases, sorted by intent; `starts` says where each intent begins."""

    texts: Sequence[str]
    intents: Sequence[str]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, phrases: Phrases) -> _Examples:
        ordered = sorted(phrases, key=lambda one: one[1])
        intents, starts = np.unique([one[1] for one in ordered], return_index=True)
        return cls(
            texts=[text for text, _ in ordered],
            intents=intents.tolist(),
            starts=starts,
        )

    def by_intent(self, scores: Floats) -> Floats:
        """Return [n, intents], the best of each intent's, for scores [n, examples]."""
        best: Floats = np.maximum.reduceat(scores, self.starts, axis=1)
        return best


async def intents(
    bots: Sequence[tuple[str, App]], file: DataFile, progress: Progress
) -> Report:
    """Measure accuracy@1, @5 and MRR of the intents, and what is out of scope."""
    path = named(file, "a folder of banking77 or clinc150")
    found = read(path)
    found = found.model_copy(
        update={
            "test": chosen(path, found.test, file),
            "oos_test": evenly(tuning.of_half(found.oos_test, file.half), file.limit),
        }
    )
    examples = _Examples.of(found.train)
    asked = [text for text, _ in _asked(found)]
    by_words = _by_words(examples, asked, progress)
    rows: list[Row] = []
    for name, app in bots:
        by_meaning = _by_meaning(examples, asked, app.embedder(), progress)
        legs = {
            "dense": by_meaning,
            # Who shares no word with a phrase is not found, not last.
            "bm25": np.where(by_words > 0, by_words, -np.inf),
            "both": _both(by_meaning, by_words),
        }
        rows += [
            _row(f"{name}: {leg}", found, examples, scores)
            for leg, scores in legs.items()
        ]
    return Report(suite="intents", rows=rows)


def read(path: Path) -> Intents:
    """Read banking77's folder or clinc150's document, or raise ConfigError."""
    if path.is_dir() and (path / "train.csv").exists():
        train, test = (
            tuple(
                (one.text, one.category)
                for one in table(path / name, _Categorised, _TABLE_NEEDS, delimiter=",")
            )
            for name in ("train.csv", "test.csv")
        )
        return Intents(train=train, test=test)
    document: Intents = json_document(
        inside(path, "data_small.json"), TypeAdapter(Intents), _DOCUMENT_NEEDS
    )
    return document


def _asked(found: Intents) -> Phrases:
    return (*found.test, *found.oos_test, *found.val, *found.oos_val)


# Legs


def _by_meaning(
    examples: _Examples, asked: Sequence[str], embedder: Embedder, progress: Progress
) -> Floats:
    texts = [*examples.texts, *asked]
    vectors: list[NDArray[np.float32]] = []
    for start in range(0, len(texts), _BATCH):
        progress("Embedding", start, len(texts))
        vectors.append(embedder.embed(texts[start : start + _BATCH]))
    progress("Embedding", len(texts), len(texts))
    known, wanted = np.split(np.concatenate(vectors), [len(examples.texts)])
    return np.concatenate(
        [
            examples.by_intent((wanted[start : start + _BATCH] @ known.T).astype(float))
            for start in range(0, len(wanted), _BATCH)
        ]
    )


def _by_words(examples: _Examples, asked: Sequence[str], progress: Progress) -> Floats:
    """An example without any word of the phrase has 0, any other more."""
    scores = np.zeros((len(asked), len(examples.intents)))
    with closing(sqlite3.connect(":memory:")) as database:
        known = lexical.Words(database)
        known.create()
        for number, text in enumerate(examples.texts):
            known.add(number, text, "")
        for row_, text in enumerate(asked):
            progress("Searching (bm25)", row_, len(asked))
            terms = lexical.content_terms(text) or lexical.terms(text)
            of_examples = np.zeros((1, len(examples.texts)))
            for number, score in known.best(terms, -1):
                of_examples[0, number] = score
            scores[row_] = examples.by_intent(of_examples)[0]
    progress("Searching (bm25)", len(asked), len(asked))
    return scores


def _both(by_meaning: Floats, by_words: Floats) -> Floats:
    return np.stack(
        [
            tuning.z_scores(np.stack(pair, axis=1)).sum(axis=1)
            for pair in zip(by_meaning, by_words, strict=True)
        ]
    )


# Figures


def _row(name: str, found: Intents, examples: _Examples, scores: Floats) -> Row:
    sizes = [len(found.test), len(found.oos_test), len(found.val), len(found.oos_val)]
    test, oos, val, oos_val = np.split(scores, np.cumsum(sizes)[:-1])
    ranks = [
        _rank(examples.intents, intent, of)
        for (_, intent), of in zip(found.test, test, strict=True)
    ]
    measured = {
        "accuracy@1": [metrics.hit(rank, 1) for rank in ranks],
        "accuracy@5": [metrics.hit(rank, 5) for rank in ranks],
        "mrr": [metrics.reciprocal(rank) for rank in ranks],
    }
    made = row(name, measured, n=len(found.test))
    area = quality.auc_estimate(test.max(axis=1).tolist(), oos.max(axis=1).tolist())
    if area is None or not len(val) or not len(oos_val):
        return made
    threshold = quality.threshold(val.max(axis=1), oos_val.max(axis=1))
    kept = test.max(axis=1) >= threshold
    gated = row(
        name,
        {
            "oos recall": (oos.max(axis=1) < threshold).astype(float).tolist(),
            "kept": kept.astype(float).tolist(),
            "kept and right": [
                float(each and rank == 1)
                for each, rank in zip(kept, ranks, strict=True)
            ],
        },
    )
    return replace(
        made,
        metrics={**made.metrics, "oos auc": area.value, **gated.metrics},
        intervals={**made.intervals, "oos auc": area.interval, **gated.intervals},
    )


def _rank(intents: Sequence[str], intent: str, scores: Floats) -> int | None:
    """Return the rank of the right intent, None for one that is not found."""
    if intent not in intents:
        return None
    at = intents.index(intent)
    own = scores[at]
    if own == -np.inf:
        return None
    # Of equals those before it in the alphabet are ahead.
    return 1 + int((scores > own).sum()) + int((scores[:at] == own).sum())
