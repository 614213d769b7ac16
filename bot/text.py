# ruff: noqa: RUF001, SIM905 - Chinese marks are meant; word lists read best as text
"""
Text as people write it: words, sentences, wrapped lines, scripts. Pure functions, for
plugins too.

Knows no language but a few English function words, only the marks that languages share:
a full stop, a line's end, a script. A language written in a trusted script (German for
an English model) therefore passes for trusted; telling those apart would need a
language model of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from rapidfuzz.distance import LCSseq

# The lookbehinds keep a search from beginning again inside a run that came to nothing:
# a hundred thousand exclamation marks would take it a minute.
_SENTENCE_END = re.compile(
    r"""
      [。！？｡]+[”’」』）)"']*                   # needs no space after it
    | (?<![.!?…])[.!?…]+["'”’»)\]*_]*(?=\s)    # needs one: 3.5, example.com
    | \n+
    """,
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"(?<![^\W_])(?<![^\W_][.])[^\W_](?:[.]?[^\W_])*$")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")
_NEVER_LAST = frozenset(
    "mr mrs ms dr prof sr jr st vs etc cf ca approx est min max inc ltd co corp dept "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun "
    "bzw z.b usw nr".split()
)
_LAST_UNLESS_A_NUMBER_FOLLOWS = frozenset("no nos art fig figs sec p pp vol ch".split())
_ABBREVIATION_CHARACTERS = 16

_LIST_ITEM = re.compile(r"^\s*(?:[-*+•–]|\(?\w{1,3}[.)])\s")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
# Unicode's own limit (UAX #15, stream-safe text). Normalising sorts accents, and takes
# minutes when a document stacks a hundred thousand of them on one letter.
_STACKED_ACCENTS = 30
_HALFWIDTH = frozenset("\uff9e\uff9f")  # Japanese; accents only once normalised

# Scripts without spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_OF_UNSPACED = re.compile(f"[{_UNSPACED}]")
_UNSPACED_GAP = re.compile(rf"(?<=[{_UNSPACED}。！？，、：；]) (?=[{_UNSPACED}])")
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_TOKENS_PER_WORD = 1.4

_WORD = re.compile(
    rf"(?P<number>\d+(?:[.,:]\d+)*)|(?P<run>[{_UNSPACED}]+)"
    rf"|(?P<word>[^\W\d_{_UNSPACED}]+(?:['’][^\W\d_{_UNSPACED}]+)?)"
)
# Words that say nothing of their own. Negations are not among them.
FUNCTION_WORDS = frozenset(
    "a an and are as at be been but by can do does for from had has have he her his "
    "i if in is it its me my of on or our she so such than that the their them then "
    "there these they this those to us was we were what when where which who will "
    "with would you your".split()
)

# The first word of the Unicode names of a script's letters.
_SCRIPTS_OF: dict[str, frozenset[str]] = {
    "ar": frozenset({"ARABIC"}),
    "bg": frozenset({"CYRILLIC"}),
    "el": frozenset({"GREEK"}),
    "fa": frozenset({"ARABIC"}),
    "he": frozenset({"HEBREW"}),
    "hi": frozenset({"DEVANAGARI"}),
    "ja": frozenset({"CJK", "HIRAGANA", "KATAKANA"}),
    "ko": frozenset({"HANGUL", "CJK"}),
    "ru": frozenset({"CYRILLIC"}),
    "sr": frozenset({"CYRILLIC", "LATIN"}),
    "th": frozenset({"THAI"}),
    "uk": frozenset({"CYRILLIC"}),
    "zh": frozenset({"CJK"}),
}
_OTHER_LANGUAGES = frozenset({"LATIN"})


def words(text: str) -> list[str]:
    """
    Return words and numbers in order, folded (NFKC, case), without punctuation. A
    number is whole: `1,000.50` is `1000.50`. Scripts without spaces go by character.
    """
    found: list[str] = []
    for kind, token in _tokens(text):
        found.extend(token if kind == "run" else [token])
    return found


def content_words(text: str) -> list[str]:
    """
    Return the words that say something, to look up in other texts: as `words`, without
    English function words, and scripts without spaces by pairs of characters, which
    stand for the words in them.
    """
    found: list[str] = []
    for kind, token in _tokens(text):
        if kind == "run":
            found.extend(_pairs(token))
        elif token not in FUNCTION_WORDS:
            found.append(token)
    return found


def stems(text: str) -> list[str]:
    """Return `content_words` with English plurals cut."""
    return [_singular(word) for word in content_words(text)]


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    for match in _WORD.finditer(folded):
        kind, token = match.lastgroup or "", match.group()
        yield kind, token.replace(",", "") if kind == "number" else token


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):  # noqa: PLR2004
        return word[:-1]
    return word


def folded(text: str) -> str:
    """
    Return the text without case and width, accents apart behind their letters (NFKD):
    the parts of a text, folded, are the text folded, up to the order of accents. What
    a stranger wrote is `cleaned` first, or accents without end take it minutes.
    """
    apart = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKD", apart)


def visible(text: str) -> str:
    """Return the text without format characters, which would split a word unseen."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def joined(text: str, at: int) -> bool:
    """Tell whether the characters before and behind a place are of one word."""
    return 0 < at < len(text) and is_joining(text[at - 1]) and is_joining(text[at])


@lru_cache(maxsize=65_536)
def is_joining(character: str) -> bool:
    """Tell whether two such characters side by side are of one word."""
    return is_letter(character) and not is_unspaced(character)


def is_letter(character: str) -> bool:
    """Tell whether a character is a letter, a digit or a mark on one."""
    # Marks (M) belong to their letter: Devanagari vowels, combining accents.
    return unicodedata.category(character)[0] in "LNM"


def is_unspaced(character: str) -> bool:
    """
    Tell whether a character is of a script without spaces between words: Thai, Lao,
    Burmese, Khmer, kana, Han with its rare characters.
    """
    return _OF_UNSPACED.match(character) is not None


def overlap_f1(one: Collection[str], other: Collection[str]) -> float:
    """Return the F1 of two bags of words, 0 to 1; two empty ones agree on nothing."""
    total = len(one) + len(other)
    common = (Counter(one) & Counter(other)).total()
    return 2 * common / total if total else 0.0


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """
    Return ROUGE-L (Lin 2004): the F1 of the longest common subsequence of two lists of
    words, 0 to 1. O(n · m / 64) for n and m words.
    """
    total = len(one) + len(other)
    return 2 * LCSseq.similarity(one, other) / total if total else 0.0


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, in order, without the space around them."""
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """
    Return where sentences start and end. Only white space lies between them. A line's
    end ends a sentence: lines that belong together are to be joined before.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for end in _ends(text):
        span = _without_space_around(text, start, end)
        if span is not None:
            spans.append(span)
        start = end
    return spans


def _ends(text: str) -> Iterator[int]:
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if _ends_here(text, start, match):
            yield match.end()
            start = match.end()
    yield len(text)


def _ends_here(text: str, start: int, match: re.Match[str]) -> bool:
    mark = match.group()
    if mark[0] in "\n。！？｡":
        return True
    following = text[match.end() : match.end() + 8].lstrip()
    if following[:1].islower():
        return False
    if mark != ".":
        return True
    return not _is_abbreviation(text, start, match.start(), following)


def _is_abbreviation(text: str, start: int, stop: int, following: str) -> bool:
    first = max(start, stop - _ABBREVIATION_CHARACTERS)
    found = _LAST_WORD.search(text[first:stop])
    if found is None:
        return False
    word = found.group().casefold()
    return (
        word in _NEVER_LAST
        or (word in _LAST_UNLESS_A_NUMBER_FOLLOWS and following[:1].isdigit())
        or _INITIALS.fullmatch(word) is not None
        # "1. First, …": the number of a list item, not a sentence.
        or (word.isdecimal() and not text[start : first + found.start()].strip())
    )


def _without_space_around(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    kept = piece.strip()
    if not kept:
        return None
    first = start + len(piece) - len(piece.lstrip())
    return first, first + len(kept)


def cleaned(text: str) -> str:
    """
    Return the text without control characters and lone surrogates, and with no more
    accents on a letter than any language has.
    """
    printable = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return unstacked(printable.encode("utf-8", "ignore").decode("utf-8"))


def unstacked(text: str) -> str:
    """Return the text with no more accents on a letter than any language has."""
    if not _has_accents(text):
        return text
    kept: list[str] = []
    stacked = 0
    for character in text:
        stacked = stacked + 1 if _has_accents(character) else 0
        if stacked <= _STACKED_ACCENTS:
            kept.append(character)
    return "".join(kept)


def _has_accents(text: str) -> bool:
    return not text.isascii() and (
        any(map(unicodedata.combining, text)) or not _HALFWIDTH.isdisjoint(text)
    )


def on_one_line(text: str) -> str:
    """Return the text with every run of white space as one space, none in Chinese."""
    return _UNSPACED_GAP.sub("", " ".join(text.split()))


def unwrapped(lines: Sequence[str]) -> list[tuple[int, str]]:
    """
    Return paragraphs, each with the index of its first line. A line that ends early or
    is followed by a list item was ended on purpose; the others were wrapped.
    """
    paragraphs: list[tuple[int, list[str]]] = []
    full_line = max((len(line) for line in lines), default=0) * 0.6
    ended = True
    for index, line in enumerate(lines):
        if not line.strip():
            ended = True
            continue
        if ended or _LIST_ITEM.match(line):
            paragraphs.append((index, []))
        paragraphs[-1][1].append(line)
        ended = len(line) < full_line
    return [(index, on_one_line(" ".join(joined))) for index, joined in paragraphs]


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has, for embedders that cannot say."""
    return round(len(_TOKEN.findall(text)) * _TOKENS_PER_WORD)


def is_written_in(text: str, languages: Collection[str]) -> bool:
    """Tell whether most letters of a text are of the scripts of these languages."""
    trusted = frozenset[str]().union(
        *(_SCRIPTS_OF.get(language, _OTHER_LANGUAGES) for language in languages)
    )
    scripts = Counter(
        unicodedata.name(character, "?").split(maxsplit=1)[0]
        for character in text
        if character.isalpha()
    )
    known = sum(count for script, count in scripts.items() if script in trusted)
    return 2 * known >= scripts.total()
