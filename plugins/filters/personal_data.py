"""
Drops candidates that give away personal data or a secret.

    dropped where data(reply) - data(passages, question, history) - allowed is not empty

A model repeats what it was trained on (Carlini et al. 2021, arXiv:2012.07805) and makes
up the rest; in a support reply an e-mail address that stands in no passage is one or
the other. Card numbers are told by their issuers' digits and Luhn's sum (ISO/IEC 7812),
IBANs by the remainder modulo 97 (ISO 13616), keys by the prefixes that their issuers
gave them, telephone numbers by their form, so that a date, a price or an order number
is none. The reason names the kind, never the datum: reasons are shown and logged.

What hides is not found: "anna at example dot org", a number in words. Linear in the
length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped
from bot.text import visible

Kind = Literal["e-mail", "phone", "card", "iban", "key", "address"]
Datum = tuple[Kind, str]
Allowed = Annotated[str, Field(min_length=3, max_length=200)]

_CALLED: Mapping[Kind, str] = {
    "e-mail": "an e-mail address",
    "phone": "a telephone number",
    "card": "a payment card's number",
    "iban": "a bank account's number",
    "key": "a key or password",
    "address": "a street address",
}


class PersonalData:
    """Refuses addresses, numbers and keys that stand in no passage."""

    name = "personal-data"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        kinds: tuple[Kind, ...] = Field(
            ("e-mail", "phone", "card", "iban", "key"),
            min_length=1,
            max_length=6,
            description="what to look for; `address` knows English, German and Chinese "
            "street addresses and is off unless named",
        )
        allow_known: bool = Field(
            default=True,
            description="allow what stands in the passages or in the conversation",
        )
        allowed: tuple[Allowed, ...] = Field(
            (),
            max_length=1000,
            description="what may always be said, such as your own address and number; "
            "'@example.com' allows every address there",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._allowed = frozenset(_all_data(settings.allowed))
        self._domains = tuple(
            each.casefold() for each in settings.allowed if each.startswith("@")
        )

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        known = self._allowed
        if self._settings.allow_known:
            known |= frozenset(_all_data(_known_texts(turn)))
        return [self._verdict(candidate.text, known) for candidate in candidates]

    def _verdict(self, text: str, known: frozenset[Datum]) -> Verdict:
        for datum in data(text, self._settings.kinds):
            kind, value = datum
            if datum in known or (kind == "e-mail" and value.endswith(self._domains)):
                continue
            return dropped(f"contains {_CALLED[kind]} that stands nowhere")
        return KEPT


def _known_texts(turn: Turn) -> Iterator[str]:
    for passage in turn.passages:
        yield from (passage.text, passage.title, *passage.headings)
    yield turn.question
    # The bot's own replies were allowed once, by passages that are not here any more.
    yield from (event.text for event in turn.history)


def _all_data(texts: Iterable[str]) -> Iterator[Datum]:
    for text in texts:
        yield from data(text, tuple(_FINDERS))


def data(text: str, kinds: Iterable[Kind]) -> Iterator[Datum]:
    """Yield what a text gives away, in a form in which equal data are equal."""
    folded = unicodedata.normalize("NFKC", visible(text))
    for kind in kinds:
        for value in _FINDERS[kind](folded):
            yield kind, value


# Parts are bounded, so that a search that fails has not read far. Letters are Latin:
# in Chinese, words stand at an address without a space.
_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9À-ɏ_.+%-]{1,64}@"
    r"(?:[A-Za-z0-9À-ɏ-]{1,63}\.){1,8}[A-Za-zÀ-ɏ]{2,24}",
    re.ASCII,
)


def emails(text: str) -> Iterator[str]:
    for match in _EMAIL.finditer(text):
        yield match.group().casefold()


# Cards and accounts

_DIGITS = re.compile(r"(?<![\w.,])\d(?:[ -]?\d){11,22}(?!\w)", re.ASCII)
# Visa, Mastercard, American Express, Discover and UnionPay, JCB, Diners, Maestro.
_ISSUERS = re.compile(r"4|5[0-9]|2[2-7]|3[4-9]|6")
_CARD_LENGTHS = range(13, 20)


def cards(text: str) -> Iterator[str]:
    for match in _DIGITS.finditer(text):
        digits = re.sub("[ -]", "", match.group())
        if len(digits) in _CARD_LENGTHS and _ISSUERS.match(digits) and luhn(digits):
            yield digits


def luhn(digits: str) -> bool:
    """
    Tell whether the sum is a multiple of ten, every second digit from the right counted
    twice, less 9 where that has two digits.
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value  # noqa: PLR2004
    return total % 10 == 0 and len(set(digits)) > 1


_IBAN = re.compile(
    r"(?<!\w)[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{1,4}){3,9}", re.IGNORECASE | re.ASCII
)
_IBAN_LENGTHS = range(15, 35)


def ibans(text: str) -> Iterator[str]:
    for match in _IBAN.finditer(text):
        # A word after it looks like one more group: try without the last ones.
        groups = match.group().upper().split()
        for count in range(len(groups), 0, -1):
            joined = "".join(groups[:count])
            if len(joined) in _IBAN_LENGTHS and mod_97(joined):
                yield joined
                break


def mod_97(iban: str) -> bool:
    """Tell whether the first four characters at the end leave 1; A is 10, Z is 35."""
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


# Telephone numbers

_PHONE = re.compile(
    r"(?<![\w.,:/@#=-])[+(]{0,2}\d[\d ()./-]{5,22}\d(?![\w@])", re.ASCII
)
_DATE = re.compile(
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})(?:[ -].{0,20})?"
)
_CALL = re.compile(
    r"(?:\b(?:tel(?:ephone)?|phone|call|ring|dial|fax|mobile|hotline|number is|sms|text"
    r"|whatsapp|telefon|handy)\b|电话|手机|热线|致电|拨打)[^\d\n]{0,20}$",
    re.IGNORECASE,
)
_CALL_CHARACTERS = 40
_CHINESE_MOBILE = re.compile(r"1[3-9]\d{9}")
_TAIL = 7


def phones(text: str) -> Iterator[str]:
    """Yield the last seven digits, the same with the country's and without."""
    for match in _PHONE.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        before = text[max(0, match.start() - _CALL_CHARACTERS) : match.start()]
        if _is_phone(match.group(), digits, before):
            yield digits[-_TAIL:]


def _is_phone(written: str, digits: str, before: str) -> bool:
    if _DATE.fullmatch(written) or not 7 <= len(digits) <= 15:  # noqa: PLR2004
        return False
    if written.lstrip("(").startswith("+"):
        return len(digits) > _TAIL
    if _CALL.search(before):
        return True
    groups = re.findall(r"\d+", written)
    if len(groups) == 1:
        return _CHINESE_MOBILE.fullmatch(digits) is not None
    sizes = [len(group) for group in groups]
    if sizes[-3:] == [3, 3, 4] and len(sizes) <= 4:  # noqa: PLR2004 1 800 555 0123
        return True
    # A trunk prefix: 030 1234567, (0)20 7946 0958.
    return groups[0].startswith("0") and len(digits) >= 9 and len(groups[0]) > 1  # noqa: PLR2004


# Keys

_KEY = re.compile(
    r"""
      -----BEGIN[ ](?:[A-Z]{1,12}[ ]){0,4}PRIVATE[ ]KEY-----
    | (?<![A-Za-z0-9_-])(?:
        sk-[A-Za-z0-9_-]{20,200}                             # OpenAI, Anthropic
      | [rsp]k_(?:live|test)_[A-Za-z0-9]{16,100}             # Stripe
      | gh[opsur]_[A-Za-z0-9]{36,100} | github_pat_[A-Za-z0-9_]{22,100}
      | glpat-[A-Za-z0-9_-]{20,60}
      | xox[abeoprs]-[A-Za-z0-9-]{10,200} | xapp-\d-[A-Za-z0-9-]{10,200}
      | (?:AKIA|ASIA)[A-Z0-9]{16}                            # Amazon
      | AIza[A-Za-z0-9_-]{35} | ya29\.[A-Za-z0-9_-]{20,300}  # Google
      | hf_[A-Za-z0-9]{30,60} | npm_[A-Za-z0-9]{36} | pypi-[A-Za-z0-9_-]{50,300}
      | SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}       # SendGrid
      | \d{8,10}:[A-Za-z0-9_-]{35}                           # a Telegram bot's token
      | eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,2000}
      )
    | ://[^\s:/@]{1,64}:[^\s:/@]{3,64}@                      # a password in an address
    | hooks\.slack\.com/services/[A-Za-z0-9/]{20,80}
    """,
    re.VERBOSE,
)
_NAMED_KEY = re.compile(
    r"\b(?:pass(?:word|wd|code)|pwd|secret|token|api[ _-]?key|access[ _-]?key"
    r"|private[ _-]?key)[\"']?(?:[ ]is)?[ ]?[:=]?[ ]?[\"'`]?"
    r"(?P<key>[^\s\"'`,;]{6,200})",
    re.IGNORECASE,
)


def keys(text: str) -> Iterator[str]:
    for match in _KEY.finditer(text):
        yield match.group()
    for match in _NAMED_KEY.finditer(text):
        key = match["key"].rstrip(".!?)")
        if _looks_made_up(key):
            yield key


def _looks_made_up(word: str) -> bool:
    """Tell a password from a word: 'hunter2x!' from 'requirements' and '2-factor'."""
    kinds = {_kind(character) for character in word}
    changes = sum(_kind(one) != _kind(other) for one, other in pairwise(word))
    return len(word) > 5 and "digit" in kinds and len(kinds) > 1 and changes > 1  # noqa: PLR2004


def _kind(character: str) -> str:
    if character.isdigit():
        return "digit"
    if character.isalpha():
        return "upper" if character.isupper() else "lower"
    return "mark"


# Addresses

_ADDRESS = re.compile(
    r"""
      (?<![\w.,])\d{1,5}[a-z]?[ ](?:(?:[NSEW]|North|South|East|West)\.?[ ])?
      (?:[A-Z][\w'.-]{1,20}[ ]|\d{1,3}(?:st|nd|rd|th)[ ]){1,3}
      (?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Square
        |Place|Pl|Terrace|Way|Highway|Hwy)\b
    | (?<!\w)[A-ZÄÖÜ][\w-]{1,30}(?:straße|strasse|str\.|weg|gasse|allee|platz)
      [ ]\d{1,4}[a-z]?(?!\w)
    | [\u4e00-\u9fff]{2,8}(?:路|街|大道|巷|弄)\d{1,5}号
    """,
    re.VERBOSE,
)


def addresses(text: str) -> Iterator[str]:
    for match in _ADDRESS.finditer(text):
        yield " ".join(match.group().casefold().replace(".", "").split())


_FINDERS: Mapping[Kind, Callable[[str], Iterator[str]]] = {
    "e-mail": emails,
    "phone": phones,
    "card": cards,
    "iban": ibans,
    "key": keys,
    "address": addresses,
}
