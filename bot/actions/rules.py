"""
When an action runs: what a message says, and the first rule that it meets.

A command or an intent that a rule names goes before what the text says: patterns and
keywords in the order of the rules, and then the examples, by meaning. Knows nothing of
slots' values, of open forms, or of how actions run.

Patterns are read as they are written, capitals included: an operator who does not mind
them begins with (?i). Keywords are whole words or phrases, whatever their case; in
scripts without spaces any part of the text. Other forms of a word are other words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import orjson
import re2
from numpy.typing import NDArray
from pydantic import JsonValue

from bot.actions.state import REQUESTED
from bot.actions_config import QUIET, ActionsConfig, Rule, SlotConfig
from bot.config_file import did_you_mean
from bot.model import Event
from bot.text import cleaned, words

# Commands of the bot itself, which no rule can have.
BUILT_IN = frozenset({"start", "why", "help", "forget", "human", "bot", "stop"})

# What rules read of a message. RE2 is linear, but patterns are many.
READ_CHARACTERS = 4_000

# gRPC's messages nest a hundred deep, JSON in them a third of that.
_JSON_LEVELS = 16

# Rasa's payload: /intent@confidence{"entity": "value"}
_NAMED = re.compile(r"\A(?P<name>[^\s{@]*)(?P<confidence>@[0-9.]+(?=[\s{]|\Z))?")

# Rows of length one multiply to a hair less than one with themselves.
_ROUNDING = 1e-6

_TYPES: Mapping[str, Sequence[type]] = {
    "text": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "list": (list,),
    "any": (str, bool, int, float, list, dict),
}

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """
    What a message says. `/order 12` is a command with its arguments, a button's
    `/inform{"size": "small"}` and a reminder are an intent with entities, anything else
    is neither. `text` is as in a tracker, with the slash.
    """

    text: str
    intent: str | None = None
    entities: Mapping[str, JsonValue] = field(default_factory=dict)
    command: str | None = None
    arguments: str = ""

    @property
    def is_written(self) -> bool:
        """Whether its text is a person's words, rather than a name."""
        return self.command is None and self.intent is None

    @property
    def named(self) -> str | None:
        """The intent that it names: Rasa reads `/affirm`, without braces, as one."""
        return self.command if self.command and not self.arguments else self.intent


def understood(event: Event) -> Understood:
    """Read a message, a command, a pressed button's payload, or a due reminder."""
    text = cleaned(event.text)
    match event.kind:
        case "command":
            return _command(text.strip())
        case "intent":
            return _reminded(text, event.data)
        case _:
            return Understood(text=text)


def _command(said: str) -> Understood:
    found = _NAMED.match(said)
    assert found is not None  # noqa: S101 - it matches nothing, too
    name, rest = found["name"], said[found.end() :]
    entities = _payload(rest)
    is_payload = rest.startswith("{") or found["confidence"] is not None
    if name and (is_payload or entities is not None):
        return Understood(text=f"/{said}", intent=name, entities=entities or {})
    return Understood(text=f"/{said}", command=name, arguments=rest.strip())


def _payload(written: str) -> dict[str, JsonValue] | None:
    """Return the entities of a payload; None when it is no JSON object."""
    # Rasa goes on without what follows the last brace.
    try:
        entities = orjson.loads(written[: written.rfind("}") + 1])
    except orjson.JSONDecodeError:
        return None
    return _shallow(entities) if isinstance(entities, dict) else None


def _reminded(text: str, data: Mapping[str, JsonValue]) -> Understood:
    intent = data.get("intent")
    if not isinstance(intent, str) or not intent.strip():
        return Understood(text=text)
    intent = cleaned(intent).strip()
    entities = _entities(as_json(data.get("entities")))
    payload = orjson.dumps(entities).decode() if entities else ""
    return Understood(text=f"/{intent}{payload}", intent=intent, entities=entities)


def _entities(found: JsonValue) -> dict[str, JsonValue]:
    """Return Rasa's entities by name; one that comes several times is a list."""
    if isinstance(found, dict):
        return _shallow(found)
    values: dict[str, list[JsonValue]] = {}
    for entity in found if isinstance(found, list) else ():
        if isinstance(entity, dict) and isinstance(name := entity.get("entity"), str):
            values.setdefault(name, []).append(entity.get("value"))
    return _shallow(
        {name: all_[0] if len(all_) == 1 else all_ for name, all_ in values.items()}
    )


def as_json(value: object) -> JsonValue:
    """Return a stranger's value as JSON can hold it; None when it cannot."""
    try:
        plain: JsonValue = orjson.loads(
            orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATETIME)
        )
    except (orjson.JSONEncodeError, orjson.JSONDecodeError):
        return None
    return plain


def _shallow(entities: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        name: value
        for name, value in entities.items()
        if _is_shallow(value, _JSON_LEVELS)
    }


def _is_shallow(value: JsonValue, levels: int) -> bool:
    inner: Iterable[JsonValue] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    return levels > 0 and all(_is_shallow(one, levels - 1) for one in inner)


@dataclass(frozen=True, slots=True)
class Wording:
    """
    A text as phrases are looked for in it: its `words` between spaces, folded, scripts
    without spaces by character; and its `marks`, folded, for a phrase that has no words
    (👍).
    """

    words: str
    marks: str

    @classmethod
    def of(cls, text: str) -> Wording:
        """Read a text that is `cleaned`."""
        found = words(text.replace("’", "'"))  # noqa: RUF001 - phones write it so
        return cls(
            words=f" {' '.join(found)} " if found else "",
            marks=unicodedata.normalize("NFKC", text).casefold().strip(),
        )

    def has(self, phrase: Wording) -> bool:
        """Say whether a phrase is in it, as whole words."""
        if phrase.words:
            return phrase.words in self.words
        return bool(phrase.marks) and phrase.marks in self.marks

    def says(self, phrase: Wording) -> bool:
        """Say whether it is a phrase and nothing more, punctuation aside."""
        if phrase.words or self.words:
            return phrase.words == self.words
        return bool(phrase.marks) and phrase.marks == self.marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """
    A rule that a message meets, its place among the rules, and why, for explain.
    `entities` are the named groups of its pattern.
    """

    rule: Rule
    number: int
    why: str
    entities: Mapping[str, str] = field(default_factory=dict)


class Rules:
    """
    The rules of a configuration, ready to be met. `embed` returns rows of length one;
    without it, examples match nothing. Several threads may ask at once.
    """

    def __init__(self, rules: Sequence[Rule], embed: Embed | None) -> None:
        self._rules = tuple(enumerate(rules))
        self._embed = embed
        self._patterns: Mapping[int, Any] = {
            number: re2.compile(rule.pattern, options=QUIET)
            for number, rule in self._rules
            if rule.pattern is not None
        }
        self._keywords = [
            [(keyword, Wording.of(cleaned(keyword))) for keyword in rule.keywords]
            for rule in rules
        ]
        self._examples = [
            (number, rule, example)
            for number, rule in self._rules
            for example in rule.examples
        ]

    def match(self, said: Understood, *, by_meaning: bool) -> Match | None:
        """
        Return the rule that a message meets. With `by_meaning` it waits for the
        embedder where no other trigger is met, and raises what the embedder raises.
        """
        if not said.is_written:
            return self._by_name(said)
        text = said.text[:READ_CHARACTERS].strip()
        if not text:
            return None
        found = self._by_words(text)
        if found is None and by_meaning:
            return self._by_meaning(text)
        return found

    def of_slot(self, name: str) -> list[tuple[int, Rule]]:
        """Return the rules that wait for a slot to be filled, with their places."""
        return [(number, rule) for number, rule in self._rules if rule.slot == name]

    def commands(self) -> Mapping[str, str]:
        """Return what each command runs."""
        found: dict[str, str] = {}
        for _, rule in self._rules:
            if rule.command is not None:
                found.setdefault(rule.command, rule.run)
        return found

    def _by_name(self, said: Understood) -> Match | None:
        for number, rule in self._rules:
            if rule.command is not None and rule.command == said.command:
                why = f"rule {number}: the command /{rule.command}"
                return Match(rule=rule, number=number, why=why)
        for number, rule in self._rules:
            if rule.intent is not None and rule.intent == said.named:
                why = f"rule {number}: the intent {rule.intent!r}"
                return Match(rule=rule, number=number, why=why)
        return None

    def _by_words(self, text: str) -> Match | None:
        wording = Wording.of(text)
        for number, rule in self._rules:
            pattern = self._patterns.get(number)
            if pattern is not None and (found := pattern.search(text)) is not None:
                why = f"rule {number}: the pattern {rule.pattern!r}"
                groups = {
                    name: told
                    for name, told in found.groupdict().items()
                    if told is not None
                }
                return Match(rule=rule, number=number, why=why, entities=groups)
            for keyword, phrase in self._keywords[number]:
                if wording.has(phrase):
                    why = f"rule {number}: the keyword {keyword!r}"
                    return Match(rule=rule, number=number, why=why)
        return None

    def _by_meaning(self, text: str) -> Match | None:
        if self._embed is None or not self._examples:
            return None
        similarities = self._rows @ self._embed([text])[0]
        thresholds = np.array([rule.threshold for _, rule, _ in self._examples])
        near = similarities >= thresholds - _ROUNDING
        if not near.any():
            return None
        best = int(np.where(near, similarities, -np.inf).argmax())
        number, rule, example = self._examples[best]
        told = f"{similarities[best]:.2f}, threshold {rule.threshold:g}"
        why = f"rule {number}: like {example!r} ({told})"
        return Match(rule=rule, number=number, why=why)

    @cached_property
    def _rows(self) -> NDArray[np.float32]:
        """The examples' embeddings, (examples, dimensions); made at first need."""
        assert self._embed is not None  # noqa: S101 - whoever asks has looked
        return self._embed([example for _, _, example in self._examples])


def problems(
    config: ActionsConfig, actions: Sequence[str], *, all_known: bool = True
) -> list[str]:
    """
    Return a sentence for each mistake in the rules, slots, forms and tools. `actions`
    are the names of all that can run, the core's own included; unless they are
    `all_known`, a server may have more of them.
    """
    return [
        *_without_runner(config, actions, all_known=all_known),
        *_ends_in_itself(config),
        *_validates_nothing(config, actions),
        *_bad_commands(config.rules),
        *_unknown_slots(config),
        *chain.from_iterable(map(_bad_slot, config.slots, config.slots.values())),
        *(_unasked(config, {*actions, *config.responses}) if all_known else ()),
        *_blank(config),
        *_offers_nothing(config),
    ]


def _without_runner(
    config: ActionsConfig, actions: Sequence[str], *, all_known: bool
) -> Iterator[str]:
    known = {*actions, *config.forms, *config.responses}
    for key, name in _run(config):
        # Rasa takes an utter_ name for a response, wherever other actions may be.
        if name not in known and (all_known or name.startswith("utter_")):
            yield (
                f"actions.{key}: no action, form or response is called {name!r}; "
                f"{did_you_mean(name, known)}"
            )


def _run(config: ActionsConfig) -> Iterator[tuple[str, str]]:
    """Yield what runs by its name, each with the key that names it."""
    for number, rule in _numbered(config):
        yield f"rules[{number}].run", rule.run
    for name, form in config.forms.items():
        if form.submit is not None:
            yield f"forms.{name}.submit", form.submit
    for name in config.tools:
        yield f"tools.{name}", name


def _validates_nothing(config: ActionsConfig, actions: Sequence[str]) -> Iterator[str]:
    if not config.forms:  # it may be served to Rasa, whose forms nobody here knows
        return
    by_name = {name for _, name in _run(config)}
    for action in actions:
        form = action.removeprefix("validate_")
        if form != action and form not in config.forms and action not in by_name:
            yield (
                f"actions.sources: {action!r} checks no form; "
                f"{did_you_mean(form, config.forms)}"
            )


def _ends_in_itself(config: ActionsConfig) -> Iterator[str]:
    for name, form in config.forms.items():
        if form.submit == name:
            yield (
                f"actions.forms.{name}.submit: {name!r} is the form itself, and would "
                "never end; name an action, a response or another form"
            )


def _bad_commands(rules: Sequence[Rule]) -> Iterator[str]:
    taken: dict[str, int] = {}
    for number, rule in enumerate(rules):
        if rule.command is None:
            continue
        key = f"actions.rules[{number}].command"
        if rule.command in BUILT_IN:
            yield f"{key}: {rule.command!r} is built in; choose another name"
        elif rule.command in taken:
            yield (
                f"{key}: {rule.command!r} is the command of "
                f"actions.rules[{taken[rule.command]}]; remove one of them"
            )
        taken.setdefault(rule.command, number)


def _unknown_slots(config: ActionsConfig) -> Iterator[str]:
    named = [
        *(
            (f"rules[{number}].slot", rule.slot)
            for number, rule in _numbered(config)
            if rule.slot is not None
        ),
        *(
            (f"rules[{number}].pattern", group)
            for number, rule in _numbered(config)
            for group in _groups(rule.pattern)
        ),
        *_listed("forms", config.forms),
        *_listed("tools", config.tools),
    ]
    for key, name in named:
        if name not in config.slots:
            yield (
                f"actions.{key}: no slot is called {name!r}; "
                f"{did_you_mean(name, config.slots)}"
            )


def _listed(section: str, parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, part in parts.items():
        for place, slot in enumerate(part.slots):
            yield f"{section}.{name}.slots[{place}]", slot


def _groups(pattern: str | None) -> Iterable[str]:
    if pattern is None:
        return ()
    named: Mapping[str, int] = re2.compile(pattern, options=QUIET).groupindex
    return named


def _bad_slot(name: str, slot: SlotConfig) -> Iterator[str]:
    key = f"actions.slots.{name}"
    if name == REQUESTED:
        yield f"{key}: forms keep here what they ask for; choose another name"
    if slot.type == "categorical" and not slot.values:
        yield f"{key}.values: missing; list what the categorical slot may hold"
    elif slot.initial_value is not None and not _holds(slot, slot.initial_value):
        kind = f"one of {list(slot.values)}" if slot.values else f"of type {slot.type}"
        yield (
            f"{key}.initial_value: expected a value {kind}, found "
            f"{slot.initial_value!r}; correct it, or the type"
        )


def _holds(slot: SlotConfig, value: object) -> bool:
    if slot.type == "categorical":
        return value in slot.values
    # Its very type: Python takes True for an int.
    return type(value) in _TYPES[slot.type] and as_json(value) == value


def _unasked(config: ActionsConfig, known: set[str]) -> Iterator[str]:
    for name, form in config.forms.items():
        for place, slot in enumerate(form.slots):
            asks = [f"ask_{name}_{slot}", f"ask_{slot}"]
            ways = {f"{kind}_{ask}" for kind in ("utter", "action") for ask in asks}
            if slot in config.slots and known.isdisjoint(ways):
                yield (
                    f"actions.forms.{name}.slots[{place}]: nothing asks for {slot!r}; "
                    f"add the response utter_{asks[1]} (or utter_{asks[0]}), or an "
                    f"action of the name action_{asks[1]} (or action_{asks[0]})"
                )


def _offers_nothing(config: ActionsConfig) -> Iterator[str]:
    if config.by_model and not config.tools:
        yield (
            "actions.by_model: nothing is offered to the model; describe actions under "
            "actions.tools, or remove it"
        )


def _blank(config: ActionsConfig) -> Iterator[str]:
    phrases = [
        *((f"rules[{at}].keywords", rule.keywords) for at, rule in _numbered(config)),
        *((f"rules[{at}].examples", rule.examples) for at, rule in _numbered(config)),
        *((f"slots.{name}.values", slot.values) for name, slot in config.slots.items()),
        *((f"forms.{name}.leave", form.leave) for name, form in config.forms.items()),
    ]
    for key, written in phrases:
        for place, phrase in enumerate(written):
            if not phrase.strip():
                yield (
                    f"actions.{key}[{place}]: empty; write a word or a phrase, or "
                    "remove it"
                )


def _numbered(config: ActionsConfig) -> Iterable[tuple[int, Rule]]:
    return enumerate(config.rules)
