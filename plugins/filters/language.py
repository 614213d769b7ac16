"""
Drops candidates in another language than the customer's.

    dropped where P(the reply is in a language that the question may be in) < 1 - c
    and P(the likeliest other one) >= 1/2

P is py3langid's naive Bayes over byte n-grams (Lui and Baldwin 2012, langid.py; the
model is part of the package: 4.6 MB, BSD, numpy only). `c` is the certainty. Short
texts are guesses, so nothing is decided under `minimum_letters`, and the languages that
the question may be in are as many as it takes to be certain; where the question is too
short, the customer's earlier messages are read too. What a reply quotes, and its
numbers, addresses and code, are in no language. A script is surer than a language: a
reply that is in good part in the question's script is kept, whatever foreign names
are in it.

Half a second to load (once for the process), under 1 ms for each candidate.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from typing import Annotated, Protocol

from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped

_LONGEST = 4000  # characters; more of a text says nothing new about its language
_NO_LANGUAGE = re.compile(
    r"""
      `[^`\n]{1,200}`                                       # code
    | "[^"\n]{1,200}" | “[^”\n]{1,200}” | «[^»\n]{1,200}»   # quotations
    | 「[^」\n]{1,200}」 | 《[^》\n]{1,200}》
    | \b(?:https?://|www\.)\S{1,200}                        # addresses
    | [^\s@]{1,64}@[^\s@]{1,64}
    | \w{0,30}\d\w{0,30}                                    # numbers, model names
    """,
    re.VERBOSE,
)
# A character of these says as much as several letters.
_DENSE = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI"})
_DENSITY = 4
_WORD = re.compile(r"[^\W\d_]+")
_SMALL_WORD = 3
_IN_GOOD_PART = 0.25
_LIKELY = 0.5
# Languages of one script that a short text cannot tell apart.
_ALIKE = (
    {"en", "pcm"},
    {"no", "nb", "nn", "da", "sv"},
    {"hr", "sr", "bs", "sl"},
    {"cs", "sk"},
    {"id", "ms", "jv", "su"},
    {"es", "gl", "ca", "pt", "an", "oc", "ast"},
    {"de", "lb", "nl", "af"},
    {"ru", "uk", "be", "bg", "mk", "sr"},
    {"hi", "mr", "ne"},
    {"zh", "yue", "wuu"},
    {"ar", "ary", "arz"},
)


class Identifier(Protocol):
    """What is used of py3langid, which has no types."""

    @property
    def labels(self) -> list[str]: ...
    def rank(self, text: str) -> list[tuple[str, float]]: ...


@cache
def identifier() -> Identifier:
    """Return the classifier, loaded once for the process."""
    loaded: Identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return loaded


def _known(code: str) -> str:
    if code not in identifier().labels:
        raise ValueError("is no language that can be told; use its ISO 639 code")
    return code


Code = Annotated[str, Field(max_length=3), AfterValidator(_known)]


class Language:
    """Refuses to answer in a language that the customer did not use."""

    name = "language"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        certainty: float = Field(
            0.95, ge=0.5, lt=1, description="how sure to be of another language"
        )
        minimum_letters: int = Field(
            12,
            ge=4,
            le=1000,
            description="letters under which nothing is decided; a Chinese, Japanese, "
            "Korean or Thai character counts as four",
        )
        languages: tuple[Code, ...] = Field(
            (),
            max_length=140,
            description="ISO 639 codes of languages in which a reply is always allowed",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._identifier = identifier()

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        asked = self._asked(turn)
        if letters(asked) < self._settings.minimum_letters:
            return [KEPT] * len(candidates)
        possible = self._possible(asked)
        script = main_script(asked)
        return [
            self._verdict(spoken(candidate.text), possible, script)
            for candidate in candidates
        ]

    def _asked(self, turn: Turn) -> str:
        """The question, with earlier messages of the customer where it is short."""
        asked = spoken(turn.question)
        for event in reversed(turn.history):
            if letters(asked) >= self._settings.minimum_letters:
                break
            if event.kind == "message":
                asked = f"{asked}\n{spoken(event.text)}"
        return asked

    def _possible(self, asked: str) -> list[str]:
        """The languages that the question may be in, the likeliest first."""
        possible: list[str] = []
        mass = 0.0
        for code, probability in self._identifier.rank(asked):
            if mass >= self._settings.certainty:
                break
            possible.append(code)
            mass += probability
        return possible

    def _verdict(self, text: str, possible: Sequence[str], script: str) -> Verdict:
        if letters(text) < self._settings.minimum_letters or is_a_name(text):
            return KEPT
        if script != "LATIN" and share_of_script(text, script) >= _IN_GOOD_PART:
            return KEPT
        ranked = self._identifier.rank(text)
        allowed = with_alike({*possible, *self._settings.languages})
        probability = sum(p for code, p in ranked if code in allowed)
        if probability >= 1 - self._settings.certainty:
            return KEPT
        # A name or a technical word is improbable in every language.
        if sum(p for code, p in ranked if code in with_alike([ranked[0][0]])) < _LIKELY:
            return KEPT
        return dropped(f"is in {ranked[0][0]!r}, the question in {possible[0]!r}")


def spoken(text: str) -> str:
    """Return the beginning of a text without what is in no language."""
    return _NO_LANGUAGE.sub(" ", unicodedata.normalize("NFC", text[:_LONGEST]))


def is_a_name(text: str) -> bool:
    """
    Tell whether a text is no more than a name, "Bank of America": capitals on all its
    words but those of up to three letters.
    """
    initials = [w[0] for w in _WORD.findall(text) if len(w) > _SMALL_WORD]
    return any(map(str.isupper, initials)) and not any(map(str.islower, initials))


def letters(text: str) -> int:
    """Count letters; a character of a dense script counts as several."""
    return sum(
        count * (_DENSITY if script in _DENSE else 1)
        for script, count in scripts(text).items()
    )


def scripts(text: str) -> Counter[str]:
    """Count the letters of each script, by the first word of their Unicode names."""
    return Counter(
        unicodedata.name(character, "?").split(maxsplit=1)[0]
        for character in text
        if character.isalpha()
    )


def main_script(text: str) -> str:
    """Return the script of most letters, "" where there is none."""
    return max(scripts(text).items(), key=lambda item: (item[1], item[0]))[0]


def share_of_script(text: str, script: str) -> float:
    """Return how much of a text is in a script, by the weights of `letters`."""
    total = letters(text)
    weight = _DENSITY if script in _DENSE else 1
    return weight * scripts(text)[script] / total if total else 0.0


def with_alike(codes: Collection[str]) -> frozenset[str]:
    """Return the languages, and those that a short text cannot tell from them."""
    alike = (group for group in _ALIKE if not group.isdisjoint(codes))
    return frozenset(codes).union(*alike)
