# ruff: noqa: RUF001 - marks of all scripts are meant
"""
What a message fills: the value of a slot, as JSON, in what a person wrote.

An entity of the slot's name goes first; then the slot's pattern, which is the only
other way where there is one; then the whole text, by the slot's type. What is not
certain fills nothing, for whoever asked can ask again. Yes and no are known in English,
German, French, Spanish, Italian, Portuguese and Dutch, numbers in figures and as the
English words up to twelve. Knows nothing of what was asked, of open forms, or of rules.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from math import isfinite

import re2
from pydantic import JsonValue
from rapidfuzz import fuzz

from bot.actions.rules import READ_CHARACTERS, Understood, Wording, as_json
from bot.actions_config import QUIET, ActionsConfig, FormConfig, SlotConfig
from bot.text import cleaned, words


def _phrases(listed: str) -> frozenset[str]:
    return frozenset(" ".join(words(phrase)) for phrase in listed.split(","))


# What a message opens with that says yes or no, up to three words.
_YES = _phrases(
    """
    yes, yeah, yea, yep, yup, aye, sure, ok, okay, alright, absolutely, definitely,
    certainly, correct, affirmative, of course, go ahead, do it, please do, sounds good,
    that's right, that is right, that's correct, that is correct,
    ja, jap, jep, jo, jawohl, klar, na klar, natürlich, genau, gerne,
    oui, ouais, d'accord, bien sûr, bien sur,
    sí, claro, claro que sí, claro que si, por supuesto, vale, de acuerdo,
    sì, certo, certamente, va bene, d'accordo,
    sim, claro que sim, com certeza, tá bom,
    jazeker, zeker, natuurlijk, graag
    """
)
_NO = _phrases(
    """
    no, nope, nah, negative, not really, not now, not yet, not at all, rather not,
    i'd rather not, of course not, absolutely not, definitely not, certainly not,
    nein, nö, natürlich nicht,
    non, pas du tout,
    claro que no, para nada,
    certo che no,
    não, nao, claro que não,
    nee, neen, liever niet, natuurlijk niet
    """
)
# These open like an answer and are none.
_NEITHER = _phrases("no idea, no clue, no problem, no worries, no matter")
# These mean it alone: "y" is Spanish for and, "si" is French for if.
_YES_ALONE = _phrases("y, si, si por favor, si claro, si grazie, right, true, 1")
_NO_ALONE = _phrases("n, false, 0")
_FILLERS = _phrases("oh, um, uh, uhm, er, well, hm, hmm, ah, ach, euh, eh, bueno, pues")
_NEGATIONS = _phrases("not, don't, nicht, pas, niet")
_INTENTS: Mapping[str | None, bool] = {"affirm": True, "deny": False}  # as in Rasa
_THUMBS: Mapping[str, bool] = {"👍": True, "👎": False}

# Figures that are no part of a word, of a name such as LK-12, or of a longer number
# that could not be read.
_FIGURES = re.compile(
    r"(?<!\w)(?<![^\W\d_]-)(?<!\d[.,])[-+−]?(?:\d++(?:[.,]\d++)*+|(?<!\.)\.\d++)(?!\w*\d)"
)
# 1234, 1,234, 1.234.567; 1234.5, 1,234.5, .5; 1234,5, 1.234,5. One point is decimal.
_WHOLE = re.compile(
    r"\A[-+]?(?:\d+|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?:\.\d{3}){2,})\Z"
)
_WITH_POINT = re.compile(r"\A[-+]?(?:\d*|[1-9]\d{0,2}(?:,\d{3})+)\.\d+\Z")
_WITH_COMMA = re.compile(r"\A[-+]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+),\d+\Z")
_NUMBER_WORDS = dict(
    zip(
        words("zero one two three four five six seven eight nine ten eleven twelve"),
        range(13),
        strict=True,
    )
)
# Beside these a figure or a word is not the number that is meant: twenty-five, 5 k.
_MORE_THAN_A_WORD = _phrases(
    """
    thirteen, fourteen, fifteen, sixteen, seventeen, eighteen, nineteen, twenty, thirty,
    forty, fifty, sixty, seventy, eighty, ninety, hundred, hundreds, thousand,
    thousands, million, millions, billion, billions, dozen, dozens, half, quarter,
    couple, point, minus, k, mio, mrd, hundert, tausend, mille, mila, mil
    """
)
_INT_LIMIT = 2**63  # JSON's readers hold no more
_INT_DIGITS = 18

_NEAR = 88  # of 100
_NEAR_CHARACTERS = 4  # of shorter values, near ones are other words
_NEAR_WORDS = 50  # O(words · values); a longer text names it outright or not at all

_BETWEEN_ITEMS = re.compile(
    r"[;\n&、，；،]|(?<!\d),|,(?!\d)|(?<!\S)(?:and|und|et|y)(?!\S)", re.IGNORECASE
)

# Latin and wide, Greek as Unicode once wrote it, Arabic, reversed, Ethiopic, Vai,
# Coptic, doubled ones, emoji.
_QUESTION_MARKS = frozenset("?？﹖︖\u037e؟⸮፧\ua60f\u2cfa⁇⁈⁉‽❓❔")
# What may follow one: quotes, brackets, emphasis, Markdown, the eyes of a smiley.
_AFTER_QUESTIONS = frozenset("\"'*_~`!！:-")
_AFTER_QUESTIONS_CATEGORIES = frozenset(
    ("Pf", "Pi", "Pe", "So", "Sk", "Mn", "Cf", "Cc", "Cs")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A slot's value, which JSON can hold, and what in the message it comes from."""

    value: JsonValue
    why: str


def value(slot: SlotConfig, said: Understood, name: str) -> Filled | None:
    """Return what a message, taken for an answer, says of the slot of this name."""
    found = _by_entity(slot, said, name)
    if found is not None:
        return found
    if not said.is_written:
        return _by_intent(slot, said)
    if slot.pattern is not None:
        return _by_pattern(slot, slot.pattern, said.text)
    return _filled(fitted(slot, said.text), "the message")


def named(slot: SlotConfig, said: Understood, name: str) -> Filled | None:
    """
    Return what a message says of a slot whatever was asked: an entity of its name, or,
    if it is `always` looked for, what its pattern finds.
    """
    found = _by_entity(slot, said, name)
    if found is not None or slot.pattern is None or not slot.always:
        return found
    written = said.text if said.is_written else said.arguments
    return _by_pattern(slot, slot.pattern, written)


def always(slots: Mapping[str, SlotConfig], said: Understood) -> dict[str, JsonValue]:
    """Return what a message says of the slots that any message may fill."""
    found = {
        name: named(slot, said, name) for name, slot in slots.items() if slot.always
    }
    return {name: filled.value for name, filled in found.items() if filled is not None}


def fitted(slot: SlotConfig, told: JsonValue) -> JsonValue:
    """
    Return a value that the slot can hold for one that an entity, a pattern or a model
    told; None when it says nothing that fits. Of a list, a slot for one thing takes the
    last.
    """
    if isinstance(told, list) and slot.type not in {"list", "any"}:
        told = told[-1] if told else None
    if isinstance(told, str):
        return _in_text(slot, cleaned(told).strip())
    if told is None or (isinstance(told, float) and not isfinite(told)):
        return None
    return _in_json(slot, told)


def told_value(slot: SlotConfig, told: JsonValue) -> JsonValue:
    """
    Return a slot's value for what a payload, a rule's group or a model told; None where
    nothing fits. Customers can type payloads: a slot's pattern holds for them, too.
    """
    if slot.pattern is None or told is None:
        return fitted(slot, told)
    found = _by_pattern(slot, slot.pattern, f"{told}")
    return None if found is None else found.value


def open_to_customers(config: ActionsConfig) -> frozenset[str]:
    """Return the slots that a message may fill; the others are for actions alone."""
    asked = {slot for form in config.forms.values() for slot in form.slots}
    called = {slot for tool in config.tools.values() for slot in tool.slots}
    patterns = [rule.pattern for rule in config.rules if rule.pattern]
    grouped = {
        name
        for pattern in patterns
        for name in re2.compile(pattern, options=QUIET).groupindex
    }
    always = {name for name, slot in config.slots.items() if slot.always}
    return frozenset(asked | called | grouped | always)


def leaves(form: FormConfig, said: Understood) -> bool:
    """Say whether a message is one of the phrases that leave a form, and no more."""
    text = said.text if said.is_written else said.command or ""
    written = Wording.of(text[:READ_CHARACTERS])
    return any(written.says(Wording.of(cleaned(phrase))) for phrase in form.leave)


def is_question(text: str) -> bool:
    """Say whether a text ends with a question mark of any script."""
    for place in range(len(text) - 1, -1, -1):
        if text[place] in _QUESTION_MARKS or _is_greek_mark(text, place):
            return True
        if not _may_follow_questions(text[place]):
            return False
    return False


def _is_greek_mark(text: str, place: int) -> bool:
    """Normal forms of Unicode write the Greek question mark as a semicolon."""
    before = text[place - 1 : place]
    is_greek = unicodedata.name(before, "").startswith("GREEK") if before else False
    return text[place] == ";" and is_greek


def _may_follow_questions(character: str) -> bool:
    return (
        character.isspace()
        or character in _AFTER_QUESTIONS
        or unicodedata.category(character) in _AFTER_QUESTIONS_CATEGORIES
    )


def _by_entity(slot: SlotConfig, said: Understood, name: str) -> Filled | None:
    return _filled(told_value(slot, said.entities.get(name)), f"the entity {name!r}")


def _filled(found: JsonValue, why: str) -> Filled | None:
    return None if found is None else Filled(value=found, why=why)


def _by_pattern(slot: SlotConfig, pattern: str, text: str) -> Filled | None:
    compiled = re2.compile(pattern, options=QUIET)  # re2 keeps the last ones
    found = compiled.search(text[:READ_CHARACTERS])
    if found is None:
        return None
    told = found["value" if "value" in compiled.groupindex else 0]
    return _filled(fitted(slot, told), "its pattern")


def _by_intent(slot: SlotConfig, said: Understood) -> Filled | None:
    if slot.type != "bool":
        return None
    return _filled(_INTENTS.get(said.named), f"the intent {said.named!r}")


def _in_text(slot: SlotConfig, text: str) -> JsonValue:
    if not text or slot.type in {"text", "any"}:
        return text or None
    text = text[:READ_CHARACTERS]
    match slot.type:
        case "bool":
            return _yes_or_no(text)
        case "categorical":
            return _category(slot.values, text)
        case "list":
            return _items(text) or None
        case _:
            return _of_number(slot, _number(text))


def _in_json(slot: SlotConfig, told: JsonValue) -> JsonValue:
    match slot.type, told:
        case ("any", _) | ("list", list()):
            return as_json(told)
        case "list", _:
            return as_json([told])
        case "bool", bool() | 0 | 1:
            return bool(told)
        case "int" | "float", int() | float() if not isinstance(told, bool):
            return _of_number(slot, told)
        case "text" | "categorical", bool() | int() | float():
            # as JSON writes it: true, not True
            return _in_text(slot, f"{told}".lower())
        case _:
            return None


def _yes_or_no(text: str) -> bool | None:
    said = Wording.of(text).words.split()
    if not said:
        return _THUMBS.get(text[:1])
    whole = " ".join(said)
    if whole in _YES_ALONE | _NO_ALONE:
        return whole in _YES_ALONE
    said = list(dropwhile(_FILLERS.__contains__, said))
    for count in (3, 2, 1):
        opening, rest = " ".join(said[:count]), said[count:]
        if opening in _NEITHER:
            return None
        if opening in _YES:
            return True if (_NO | _NEGATIONS).isdisjoint(rest) else None
        if opening in _NO:
            return False if _YES.isdisjoint(rest) else None
    return None


def _number(text: str) -> int | float | None:
    """Return the one number of a text."""
    text = unicodedata.normalize("NFKC", text)
    said = words(text)
    if not _MORE_THAN_A_WORD.isdisjoint(said):
        return None
    found = [
        *(_read(figures) for figures in _FIGURES.findall(text)),
        *(_NUMBER_WORDS[word] for word in said if word in _NUMBER_WORDS),
    ]
    return found[0] if len(found) == 1 else None


def _read(figures: str) -> int | float | None:
    # Digits of other scripts are digits, too.
    digits = "".join(f"{unicodedata.decimal(c, c)}" for c in figures.replace("−", "-"))
    if _WHOLE.match(digits):
        digits = digits.replace(",", "").replace(".", "")
        return int(digits) if len(digits) <= _INT_DIGITS else float(digits)
    if _WITH_POINT.match(digits):
        return float(digits.replace(",", ""))
    if _WITH_COMMA.match(digits):
        return float(digits.replace(".", "").replace(",", "."))
    return None


def _of_number(slot: SlotConfig, number: float | None) -> int | float | None:
    """Return a number as the slot holds it; None for one that it cannot hold."""
    if number is None or not isfinite(number):
        return None
    if slot.type == "float":
        return float(number)
    is_whole = abs(number) < _INT_LIMIT and number == int(number)
    return int(number) if is_whole else None


def _category(values: Sequence[str], text: str) -> str | None:
    """Return the one value that a text names, or nearly names."""
    phrases = {value: Wording.of(cleaned(value)) for value in values}
    said = Wording.of(text)
    same = [value for value, phrase in phrases.items() if phrase.marks == said.marks]
    found = same or _named(phrases, said) or _nearly_named(phrases, said)
    return found[0] if len(found) == 1 else None


def _named(phrases: Mapping[str, Wording], said: Wording) -> list[str]:
    """Return the values named, but for those that are only a part of a longer one."""
    left, named = said.words, set()
    for phrase in sorted({one.words for one in phrases.values()}, key=len)[::-1]:
        if phrase and phrase in left:
            named.add(phrase)
            left = left.replace(phrase, " | ")
    return [
        value
        for value, phrase in phrases.items()
        if phrase.words in named or (not phrase.words and said.has(phrase))
    ]


def _nearly_named(phrases: Mapping[str, Wording], said: Wording) -> list[str]:
    spoken = said.words.split()
    if len(spoken) > _NEAR_WORDS:
        return []
    return [
        value
        for value, phrase in phrases.items()
        if _is_near(phrase.words.split(), spoken)
    ]


def _is_near(phrase: Sequence[str], spoken: Sequence[str]) -> bool:
    meant = " ".join(phrase)
    # A number that is nearly another is another.
    if len(meant) < _NEAR_CHARACTERS or any(map(str.isdigit, meant)):
        return False
    windows = (
        " ".join(spoken[at : at + len(phrase)])
        for at in range(len(spoken) - len(phrase) + 1)
    )
    # Nobody mistypes the first letter, and prefixes deny: unregistered.
    return any(
        window[0] == meant[0] and fuzz.ratio(window, meant, score_cutoff=_NEAR) > 0
        for window in windows
    )


def _items(text: str) -> list[JsonValue]:
    pieces = _BETWEEN_ITEMS.split(text.rstrip(".!。！ "))
    return [piece.strip() for piece in pieces if piece.strip()]
