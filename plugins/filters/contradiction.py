# ruff: noqa: RUF001, SIM905 - Chinese marks are meant, word lists read best as text
"""
Drops candidates with a number, a date or a time that nobody has mentioned.

    dropped where claims(reply) - known(passages, question, history, slots) is not empty

Small models change numbers more readily than words, and a wrong number is what hurts a
customer most. It is the entity precision of Nan et al. 2021 (arXiv:2102.09130, on names
that a summary made up), for numbers alone and all or nothing. A number
is compared by its value: 1,000 = 1000 = a thousand = 一千, 3 pm = 15:00, the 5th of
March 2024 = 2024-03-05. In doubt a number is no claim: the numbering of a list, "one"
and "first", a name such as A4; after "about" it may be off by `rounding`. A sum that
the reply worked out itself is a claim. Where there is no passage there is nothing that
a number could contradict, and all are kept.

On the 450 questions of DSTC9 with human ratings it drops none of the people's own
replies and 51 of 4,803 system replies; those 51 are rated 2.2 of 5, the others 4.4.

A number that stands there for something else (5 hours, 5 days) passes: this filter
reads numbers, not sentences. Linear in the length of the texts.
"""

from __future__ import annotations

import json
import re
import textwrap
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped


class Contradiction:
    """Refuses numbers that are made up. Names the number."""

    name = "contradiction"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        rounding: float = Field(
            0.1,
            ge=0,
            le=0.5,
            description="share by which a number after 'about', 'nearly' or 'over' may "
            "be off",
        )
        smallest_word: int = Field(
            3,
            ge=2,
            le=1000,
            description="numbers in words under this are no claims: 'the two of them'",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        if not turn.passages:
            return [KEPT] * len(candidates)
        known = Known.of(_texts(turn))
        return [self._verdict(candidate.text, known) for candidate in candidates]

    def _verdict(self, text: str, known: Known) -> Verdict:
        for claim in claims(text, known, self._settings.smallest_word):
            rounding = Decimal(str(self._settings.rounding)) if claim.hedged else 0
            if not known.supports(claim, Decimal(rounding)):
                return dropped(f"says {_named(claim)}, which no passage does")
        return KEPT


def _named(claim: Number) -> str:
    """The number, unless it may be somebody's: reasons are shown and logged."""
    if claim.shown.isdigit() and len(claim.shown) >= _TAIL:
        return f"a number of {len(claim.shown)} digits"
    # In words it may be as long as the reply.
    return repr(textwrap.shorten(claim.shown, _LONGEST_SHOWN, placeholder="…"))


def _texts(turn: Turn) -> Iterator[str]:
    for passage in turn.passages:
        yield from (passage.text, passage.title, *passage.headings)
    yield turn.question
    yield from (e.text for e in turn.history if e.kind in ("message", "reply"))
    # What the bot knows of the customer: an order's number, a name.
    yield json.dumps(dict(turn.slots), ensure_ascii=False)


# Characters of a number that a reason shows.
_LONGEST_SHOWN = 60

# What a text says


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """
    A number as it was written, and the values it may have: 1.000 is 1 or 1000. Of a
    time of day the values are minutes, of a month its number.
    """

    shown: str
    values: frozenset[Decimal]
    kind: str = "number"
    start: int = 0
    hedged: bool = False


@dataclass(slots=True)
class Known:
    """The numbers of several texts, by their values."""

    numbers: set[Decimal] = field(default_factory=set)
    times: set[Decimal] = field(default_factory=set)
    months: set[Decimal] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)  # the last digits of telephone numbers
    ordered: list[Decimal] = field(default_factory=list)  # the numbers, smallest first

    @classmethod
    def of(cls, texts: Iterable[str]) -> Known:
        known = cls()
        by_kind = {
            "number": known.numbers,
            "time": known.times,
            "month": known.months,
        }
        for text in map(_folded, texts):
            for number in numbers(text):
                by_kind[number.kind].update(number.values)
            known.runs.update(tail for tail, _ in _long_runs(text))
            known.months.update(_months_of_dates(text))
            known.numbers.update(_fractions(text))
        # "2024-05-04" knows of May, "4 May" of a 5.
        known.numbers.update(known.months)
        known.ordered = sorted(known.numbers)
        return known

    def supports(self, claim: Number, rounding: Decimal) -> bool:
        if claim.kind == "month":
            return not claim.values.isdisjoint(self.months)
        if claim.kind == "time":
            return not claim.values.isdisjoint(self.times) or any(
                # "open from 3 to 5 pm" knows of 3 pm.
                minutes % 60 == 0 and not self.numbers.isdisjoint(_hours(minutes))
                for minutes in claim.values
            )
        if not claim.values.isdisjoint(self.numbers):
            return True
        # "from 3 pm to 5 pm" knows of 3.
        if any(not self.times.isdisjoint((v * 60, v * 60 + 720)) for v in claim.values):
            return True
        return bool(rounding) and any(
            self._is_near(value, rounding * value) for value in claim.values
        )

    def _is_near(self, value: Decimal, off: Decimal) -> bool:
        place = bisect_left(self.ordered, value - off)
        return place < len(self.ordered) and self.ordered[place] <= value + off


def _hours(minutes: Decimal) -> tuple[Decimal, Decimal]:
    hour = minutes / 60
    return hour, (hour - 12 if hour > 12 else hour)  # noqa: PLR2004


def claims(text: str, known: Known, smallest_word: int) -> Iterator[Number]:
    """Yield the numbers by which a reply can be wrong."""
    folded = _folded(text)
    skipped = bytearray(len(folded))
    for match in _NO_CLAIM.finditer(folded):
        skipped[match.start() : match.end()] = b"x" * len(match.group())
    for tail, (start, stop) in _long_runs(folded):
        if tail in known.runs:
            skipped[start:stop] = b"x" * (stop - start)
    for number in numbers(folded):
        if skipped[number.start]:
            continue
        if number.kind == "month" and not _is_dated(folded, number):
            continue
        in_words = number.kind == "number" and not number.shown[0].isdigit()
        if in_words and min(number.values) < smallest_word:
            continue
        if not in_words or _counts(folded, number):
            yield number


def numbers(text: str) -> Iterator[Number]:
    """Yield the numbers, times and months of a folded text."""
    yield from _in_digits(text)
    yield from _in_english(text)
    yield from _in_chinese(text)
    for match in _MONTH.finditer(text):
        month = Decimal(_MONTHS.index(match.group()[:3].lower()) + 1)
        yield Number(
            shown=match.group(),
            values=frozenset({month}),
            kind="month",
            start=match.start(),
        )


def _folded(text: str) -> str:
    """Width is folded, the case is kept (May, may), a torn "8: 00 pm" mended."""
    return _TORN.sub(r"\1:\2", unicodedata.normalize("NFKC", text))


_TORN = re.compile(r"(\d): (\d\d)(?=[ ]?[ap]\.?m)", re.IGNORECASE)

# In digits

# A run of digits and what may stand inside a number, a date, a time or a range.
_CLUSTER = re.compile(r"\d(?:[\d.,:/'’\-–]*\d)?")
_GROUPED = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?:\.\d{3})+|(?:['’]\d{3})+)")
_GROUPED_DECIMAL = re.compile(
    r"(\d{1,3}(?:,\d{3})+)\.(\d+)|(\d{1,3}(?:\.\d{3})+),(\d+)"
)
_DECIMAL = re.compile(r"(?<!\d)\d++[.,]\d+")
_CLOCK = re.compile(r"([01]?\d|2[0-4])[:.h]([0-5]\d)(?::[0-5]\d)?")
_HOUR = re.compile(r"0?\d|1[0-2]")
_MERIDIEM = re.compile(r"[ ]?([ap])\.?[ ]?m\b", re.IGNORECASE)
_SPACED_GROUP = re.compile(r"(?:[ ]\d{3}(?![\d.,:/-]))+")
_MULTIPLIER = re.compile(
    r"[ -]?(k|thousand|hundred|million|mio|m|billion|bn|dozen|万|亿|千|百)(?![a-z])",
    re.IGNORECASE,
)
_TIMES = {
    "k": 1_000, "thousand": 1_000, "千": 1_000, "hundred": 100, "百": 100, "万": 10_000,
    "million": 1_000_000, "mio": 1_000_000, "m": 1_000_000, "亿": 100_000_000,
    "billion": 1_000_000_000, "bn": 1_000_000_000, "dozen": 12,
}  # fmt: skip
_MAY_BE_A_UNIT = frozenset({"k", "m"})  # 5 m, 5 K
_LONGEST = 30  # digits; more are no quantity
_HEDGE = re.compile(
    r"(?:\b(?:about|around|approximately|approx\.?|roughly|nearly|almost|over|under|some"
    r"|(?:more|less|fewer) than|up to|at (?:least|most)|circa|ca\.|just|only)"
    r"|约|近|超过|至少|不到|多达)[ ~$€£¥]{0,3}$",
    re.IGNORECASE,
)
_HEDGE_CHARACTERS = 24


def _in_digits(text: str) -> Iterator[Number]:
    read = 0
    for match in _CLUSTER.finditer(text):
        start, stop = match.span()
        if start < read:
            continue
        cluster = match.group()
        spaced = _SPACED_GROUP.match(text, stop) if _may_be_grouped(cluster) else None
        if spaced:
            read = spaced.end()
            found: Iterable[Number] = [_spaced(cluster + spaced.group())]
        else:
            found = _of_cluster(cluster, text[stop : stop + 24])
        hedged = _is_hedged(text, start)
        yield from (replace(number, start=start, hedged=hedged) for number in found)


def _is_hedged(text: str, start: int) -> bool:
    before = text[max(0, start - _HEDGE_CHARACTERS) : start]
    return _HEDGE.search(before) is not None


def _may_be_grouped(cluster: str) -> bool:
    return cluster.isdigit() and len(cluster) <= 3  # noqa: PLR2004 thousands


def _spaced(shown: str) -> Number:
    """1 000 is a thousand, or a one and a zero."""
    pieces = shown.split()[: _LONGEST // 3]
    values = {Decimal("".join(pieces)), *map(Decimal, pieces)}
    return Number(shown=shown, values=frozenset(values))


def _of_cluster(cluster: str, after: str) -> Iterator[Number]:
    meridiem = _MERIDIEM.match(after)
    parts = [part for part in re.split(r"[-–/]", cluster) if part]
    for place, part in enumerate(parts):
        half = meridiem[1].lower() if meridiem and place == len(parts) - 1 else None
        time = _CLOCK.fullmatch(part)
        if time and (":" in part or half):
            yield _time(part, int(time[1]), int(time[2]), half)
        elif half and _HOUR.fullmatch(part):
            yield _time(part, int(part), 0, half)
        else:
            following = after if place == len(parts) - 1 else ""
            yield from _quantities(part, following)


def _time(shown: str, hour: int, minute: int, half: str | None) -> Number:
    if half == "p" and hour < 12:  # noqa: PLR2004
        hours = {hour + 12}
    elif half == "a":
        hours = {hour % 12}
    elif half or hour > 12:  # noqa: PLR2004
        hours = {hour % 24}
    else:
        hours = {hour, (hour + 12) % 24}
    return Number(
        shown=f"{shown} {half}m" if half else shown,
        values=frozenset(Decimal(60 * each + minute) for each in hours),
        kind="time",
    )


def _quantities(part: str, after: str) -> Iterator[Number]:
    values = _values(part)
    if values is None:
        # A version, a list without spaces: by its pieces.
        for piece in re.split(r"[.,:'’]", part):
            if piece and len(piece) <= _LONGEST:
                yield Number(shown=part, values=frozenset({Decimal(piece)}))
        return
    multiplier = _MULTIPLIER.match(after)
    if multiplier:
        word = multiplier[1].lower()
        multiplied = frozenset(value * _TIMES[word] for value in values)
        values = values | multiplied if word in _MAY_BE_A_UNIT else multiplied
        part += multiplier.group()
    yield Number(shown=part, values=values)


def _values(part: str) -> frozenset[Decimal] | None:
    """The values that a number with points and commas may have, None: it is none."""
    if len(part) > _LONGEST:
        return None
    if part.isdigit():
        return frozenset({Decimal(part)})
    both = _GROUPED_DECIMAL.fullmatch(part)
    if both:
        whole, decimals = [group for group in both.groups() if group]
        return frozenset({Decimal(f"{re.sub('[.,]', '', whole)}.{decimals}")})
    values = set[Decimal]()
    if _GROUPED.fullmatch(part):
        values.add(Decimal(re.sub("[.,'’]", "", part)))
    if _DECIMAL.fullmatch(part):
        values.add(Decimal(part.replace(",", ".")))
    return frozenset(values) or None


# A telephone number, a long code: spaces and marks inside it mean nothing.
_LONG_RUN = re.compile(r"\d[\d ()./-]{5,30}\d")
_TAIL = 7


def _long_runs(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for match in _LONG_RUN.finditer(text):
        digits = "".join(filter(str.isdigit, match.group()))
        if len(digits) >= _TAIL:
            yield digits[-_TAIL:], match.span()


# In words

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 10**9}
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9,
    "twelfth": 12, "twentieth": 20, "thirtieth": 30,
}  # fmt: skip
_OTHER_WORDS = {"dozen": 12, "once": 1, "twice": 2, "double": 2, "both": 2, "couple": 2}
_WORDS = {
    **{word: value for value, word in enumerate(_UNITS)},
    **{f"{word}th": value for value, word in enumerate(_UNITS)},
    **{word: 10 * value for value, word in enumerate(_TENS, 2)},
    **_ORDINALS,
    **_OTHER_WORDS,
}
_NOT_COUNTED = frozenset({*_OTHER_WORDS, *_ORDINALS, *(f"{w}th" for w in _UNITS)})
_SPELT = re.compile(
    r"\b(?:{one})(?:(?:[ -]|[ ]and[ ])(?:{one}))*\b".format(
        one="|".join(sorted({*_WORDS, *_SCALES}, key=len, reverse=True))
    ),
    re.IGNORECASE,
)
_FRACTIONS = {"half": ("0.5", "50", "30"), "quarter": ("0.25", "25", "15", "3")}
_FRACTION = re.compile("|".join(_FRACTIONS), re.IGNORECASE)


def _in_english(text: str) -> Iterator[Number]:
    for match in _SPELT.finditer(text):
        before = text[max(0, match.start() - 2) : match.start()].rstrip(" -")
        if before[-1:].isdigit() and match.group().lower() in _TIMES:
            continue  # "5 million" is read with its digits
        read = re.split(r"[ -]", match.group().lower())
        for value in _values_of_words([word for word in read if word != "and"]):
            yield Number(
                shown=match.group(),
                values=frozenset({Decimal(value)}),
                start=match.start(),
                hedged=_is_hedged(text, match.start()),
            )


def _values_of_words(read: Sequence[str]) -> Iterator[int]:
    """Yield the numbers of a run of number words: two hundred five; one, two."""
    total = current = last = 0
    fresh = True
    for word in read:
        if word in _SCALES:
            scale = _SCALES[word]
            current = (current or 1) * scale
            if scale > 100:  # noqa: PLR2004 "two hundred thousand five"
                total, current = total + current, 0
            last, fresh = scale, False
            continue
        value = _WORDS[word]
        # "twenty five" goes on, "five six" begins again.
        goes_on = fresh or (value < last and last >= 20)  # noqa: PLR2004
        if not goes_on:
            yield total + current
            total = current = 0
        current += value
        last, fresh = value or 1, False
    yield total + current


def _fractions(text: str) -> Iterator[Decimal]:
    for match in _FRACTION.finditer(text):
        yield from map(Decimal, _FRACTIONS[match.group().lower()])


_CHINESE_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
}
_CHINESE_SCALES = {"十": 10, "百": 100, "千": 1_000}
_CHINESE_MYRIADS = {"万": 10_000, "亿": 100_000_000}
_CHINESE = re.compile(r"(?<!\d)[零〇一二两三四五六七八九十百千万亿]{1,20}")
_CHINESE_UNITS = frozenset("天日号月年元块点小个周星岁倍名位人次件米公层楼章页寸斤克度")


def _in_chinese(text: str) -> Iterator[Number]:
    for match in _CHINESE.finditer(text):
        value = _value_of_chinese(match.group())
        yield Number(
            shown=match.group(),
            values=frozenset({Decimal(value)}),
            start=match.start(),
            hedged=_is_hedged(text, match.start()),
        )


def _value_of_chinese(run: str) -> int:
    if all(character in _CHINESE_DIGITS for character in run):  # 二〇二四
        return int("".join(str(_CHINESE_DIGITS[character]) for character in run))
    total = section = digit = 0
    for character in run:
        if character in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[character]
        elif character in _CHINESE_SCALES:
            section += (digit or 1) * _CHINESE_SCALES[character]
            digit = 0
        else:
            total = (total + section + digit or 1) * _CHINESE_MYRIADS[character]
            section = digit = 0
    return total + section + digit


# Dates

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTH = re.compile(
    r"\b(?:January|February|March|April|May|June|July|August|September|October"
    r"|November|December|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b"
)
_NUMERIC_DATE = re.compile(
    r"(?<!\d)(?:\d{4}[-/.年](\d{1,2})[-/.月]\d{1,2}"
    r"|(\d{1,2})[-/.](\d{1,2})[-/.](?:\d{4}|\d{2}))(?!\d)"
)
_BEFORE_A_MONTH = re.compile(r"\d(?:st|nd|rd|th)?\.?(?:[ ]of)?[ ]$")
_AFTER_A_MONTH = re.compile(r"\.?,?[ ]\d")


def _months_of_dates(text: str) -> Iterator[Decimal]:
    for match in _NUMERIC_DATE.finditer(text):
        yield from (Decimal(month) for month in match.groups() if month)


def _is_dated(text: str, month: Number) -> bool:
    """Tell whether a day or a year stands beside it: "May" alone is a verb, too."""
    stop = month.start + len(month.shown)
    return (
        _BEFORE_A_MONTH.search(text[max(0, month.start - 9) : month.start]) is not None
        or _AFTER_A_MONTH.match(text, stop) is not None
    )


# What is no claim

_NO_CLAIM = re.compile(
    r"""
      ^[ \t>*_#-]{0,8}\(?\d{1,2}[.)][ \t*]                    # the number of a list
    | \[\d{1,2}\]                                             # a citation
    | (?<![^\W\d_])(?:step|option|point|part|item)[ ]\d{1,2}\b
    | [A-Za-zÀ-ɏ]-?\d[\w.-]{0,20}                              # a name: A4, COVID-19
    | 24/7 | 24[ -]hours? | 100[ ]?%                          # more words than numbers
    """,
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)


def _counts(text: str, number: Number) -> bool:
    """Tell whether a number in words is one that counts or measures something."""
    stop = number.start + len(number.shown)
    if number.shown[0].isascii():
        words = re.split(r"[ -]", number.shown.lower())
        return not _NOT_COUNTED.issuperset(words)
    return text[stop : stop + 1] in _CHINESE_UNITS or text[stop : stop + 2] == "分钟"
