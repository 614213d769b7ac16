# ruff: noqa: SIM905 - lists of words read best as text
"""
Words: the terms of a text and the full-text index (SQLite's FTS5) over them.

Knows no passages, only numbered texts. Stemming and folding are FTS5's own (porter,
unicode61); what it cannot do, finding words where no spaces are, is done here. No text
of a customer reaches FTS5 but as quoted terms, so there is no syntax to break.
"""

from __future__ import annotations

import functools
import json
import math
import re
import sqlite3
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jieba

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OTHER_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
_RUN = re.compile(
    rf"(?P<han>[{_HAN}]+)|(?P<unspaced>[{_OTHER_UNSPACED}]+)"
    rf"|[^\W_{_HAN}{_OTHER_UNSPACED}]+"
)

# Words that say nothing about what is asked, courtesies included.
STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been before being but by
    can could d did do does doing don for from get got had has have having he her here
    hers him his how i if in into is isn it its just ll m may me might mine more most
    must my no not of on or our ours out over own please re s shall she should so some
    such t than that the their theirs them then there these they this those to too up
    us ve very was wasn we were what when where whether which while who whom whose why
    will with without would yes you your yours
    hello hey hi ok okay thank thanks bye tell want need know
    的 了 吗 呢 吧 啊 是 在 有 和 与 或 我 你 您 他 她 它 我们 你们 他们 这 那 这个 那个
    什么 怎么 怎样 如何 为什么 哪 哪个 哪里 哪些 谁 多少 几 请 请问 谢谢 你好 您好 就 都
    也 还 要 想 能 可以 会 对 被 把 从 到 为 之 其 及 以 么 个
    """.split()
)
_COURTESIES = frozenset(
    ["bye", "hello", "hey", "hi", "ok", "okay", "thank", "thanks", "谢谢", "你好"]
)

_QUERY_TERMS = 64


def terms(text: str) -> list[str]:
    """Return the words of a text, folded, in order; Chinese is cut into words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [term for run in _RUN.finditer(folded) for term in _words(run)]


def content_terms(text: str) -> list[str]:
    """Return the different terms of a text that are not stop words, in order."""
    return [term for term in dict.fromkeys(terms(text)) if term not in STOP_WORDS]


def is_courtesy(text: str) -> bool:
    """Tell whether a text is nothing but a greeting or thanks."""
    said = [
        term for term in terms(text) if term in _COURTESIES or term not in STOP_WORDS
    ]
    return bool(said) and all(term in _COURTESIES for term in said)


class Words:
    """
    The full-text index inside an SQLite database: numbered texts with what stands
    above them (title, headings).
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def create(self) -> None:
        # Contentless: the text itself is kept once, beside it.
        self._database.execute(
            "CREATE VIRTUAL TABLE words USING fts5(body, above, content='', "
            "tokenize='porter unicode61 remove_diacritics 2')"
        )

    def add(self, number: int, body: str, above: str) -> None:
        self._database.execute(
            "INSERT INTO words (rowid, body, above) VALUES (?, ?, ?)",
            (number, " ".join(terms(body)), " ".join(terms(above))),
        )

    def best(
        self,
        asked: Sequence[str],
        limit: int,
        among: Iterable[int] | None = None,
    ) -> list[tuple[int, float]]:
        """
        Return the texts with the highest BM25 for the terms, best first: of all texts,
        or of those `among` which to choose.
        """
        if not asked:
            return []
        query = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? "
        # The plus keeps SQLite from running the whole search once for each number.
        among_these = "AND +rowid IN (SELECT value FROM json_each(?)) "
        order = "ORDER BY bm25(words) LIMIT ?"
        if among is None:
            rows = self._database.execute(query + order, (_any_of(asked), limit))
        else:
            rows = self._database.execute(
                query + among_these + order, (_any_of(asked), _listed(among), limit)
            )
        return [(int(number), float(score)) for number, score in rows]

    def scores(self, asked: Sequence[str], numbers: Iterable[int]) -> dict[int, float]:
        """Return the BM25 of these texts; those without any term are left out."""
        return dict(self.best(asked, -1, among=numbers))

    def holding(self, term: str, numbers: Iterable[int]) -> set[int]:
        """Return which of these texts hold a term."""
        rows = self._database.execute(
            "SELECT rowid FROM words WHERE words MATCH ? "
            "AND +rowid IN (SELECT value FROM json_each(?))",
            (_quoted(term), _listed(numbers)),
        )
        return {int(number) for (number,) in rows}

    def rarest(self, asked: Sequence[str], total: int) -> dict[str, float]:
        """
        Return the inverse document frequencies of at most 64 of the terms: all of a
        question's, the rarest of a flood's.
        """
        rarities = {term: rarity(self._count(term), total) for term in asked}
        kept = sorted(rarities, key=lambda term: -rarities[term])[:_QUERY_TERMS]
        return {term: rarities[term] for term in kept}

    def _count(self, term: str) -> int:
        query = "SELECT count(*) FROM words WHERE words MATCH ?"
        (count,) = self._database.execute(query, (_quoted(term),)).fetchone()
        return int(count)


def rarity(found: int, total: int) -> float:
    """Return the inverse document frequency of a term, as in BM25, never negative."""
    return math.log(1 + (total - found + 0.5) / (found + 0.5))


def coverage(
    held: Mapping[str, set[int]], rarities: Mapping[str, float], number: int
) -> float:
    """Return which share of the terms, weighted by rarity, a text holds."""
    total = sum(rarities.values())
    found = sum(rarities[term] for term, numbers in held.items() if number in numbers)
    return found / total if total else 0.0


def _words(run: re.Match[str]) -> Iterator[str]:
    text = run.group()
    if run["han"]:
        yield from _chinese().cut_for_search(text)
    elif run["unspaced"]:
        yield from (text[at : at + 2] for at in range(max(1, len(text) - 1)))
    else:
        yield text


@functools.cache
def _chinese() -> jieba.Tokenizer:
    """Load jieba's dictionary (a second), the first time Chinese is met."""
    with warnings.catch_warnings():
        # It imports pkg_resources where there is one, which warns.
        warnings.simplefilter("ignore")
        import jieba  # noqa: PLC0415 - slow, and most never need it

    segmenter = jieba.Tokenizer()
    # What initialize() does, without its cache: that is a marshal file with a known
    # name in a folder where everybody on the machine may write.
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter


def _any_of(asked: Sequence[str]) -> str:
    return " OR ".join(_quoted(term) for term in asked)


def _quoted(term: str) -> str:
    # Inside quotes FTS5 knows but two characters: the quote, and the end of all text.
    return '"' + term.replace('"', '""').replace("\0", "") + '"'


def _listed(numbers: Iterable[int]) -> str:
    return json.dumps([int(number) for number in numbers])
