"""What a message fills: every way to a value, and what is better asked again."""

# ruff: noqa: RUF001 - marks and digits of other scripts are meant

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from bot.actions.filling import (
    Filled,
    always,
    fitted,
    is_question,
    leaves,
    named,
    value,
)
from bot.actions.rules import Understood, understood
from bot.actions_config import FormConfig, SlotConfig
from bot.model import EventKind
from bot.testing.makers import an_event

KINDS = ["text", "bool", "float", "int", "categorical", "list", "any"]


def a_slot(type: str = "text", **more: Any) -> SlotConfig:  # noqa: A002 - its key
    return SlotConfig.model_validate({"type": type, **more})


def said(text: str, kind: EventKind = "message") -> Understood:
    return understood(an_event(text, kind))


def filled(slot: SlotConfig, text: str) -> JsonValue:
    found = value(slot, said(text), "it")
    return None if found is None else found.value


class TestWhereAValueComesFrom:
    def test_an_entity_goes_before_the_text(self) -> None:
        told = Understood(text="5 of them", entities={"it": 7})

        assert value(a_slot("int"), told, "it") == Filled(
            value=7, why="the entity 'it'"
        )

    def test_an_entity_of_a_payload_fills(self) -> None:
        told = said('inform{"it": "small"}', "command")

        assert value(a_slot(), told, "it") == Filled(
            value="small", why="the entity 'it'"
        )
        assert value(a_slot(), told, "other") is None

    def test_an_entity_that_does_not_fit_leaves_it_to_the_text(self) -> None:
        told = Understood(text="it is 5", entities={"it": {"a": 1}})

        assert value(a_slot("int"), told, "it") == Filled(value=5, why="the message")

    def test_a_pattern_gives_its_group_value_or_all_it_found(self) -> None:
        whole = a_slot(pattern=r"[A-Z]{2}\d+")
        group = a_slot("int", pattern=r"order (?P<value>\d+)")

        assert value(whole, said("for AB12, please"), "it") == Filled(
            value="AB12", why="its pattern"
        )
        assert filled(group, "2 of order 77") == 77

    def test_where_there_is_a_pattern_nothing_else_in_the_text_fills(self) -> None:
        assert filled(a_slot(pattern=r"\d{5}"), "I have none") is None
        assert filled(a_slot("bool", pattern="aye"), "yes") is None

    @pytest.mark.parametrize("pattern", ["x*", r"(?P<value>a)?b", "(?P<value>x*)b"])
    def test_a_pattern_that_finds_nothing_to_keep_fills_nothing(
        self, pattern: str
    ) -> None:
        assert filled(a_slot(pattern=pattern), "b") is None

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("text", ["order 5", "yes now", "small, large"])
    def test_a_command_is_no_answer(self, kind: str, text: str) -> None:
        slot = a_slot(kind, values=("small",))

        assert value(slot, said(text, "command"), "it") is None

    def test_what_follows_a_command_is_searched_for_a_pattern(self) -> None:
        slot = a_slot("int", pattern=r"\d+", always=True)

        found = named(slot, said("order5 7", "command"), "it")

        assert found is not None
        assert found.value == 7

    @pytest.mark.parametrize(
        ("text", "answer"),
        [("affirm", True), ("deny", False), ("affirm{}", True), ("deny@0.9", False)],
    )
    def test_the_intents_affirm_and_deny_say_yes_and_no(
        self, text: str, *, answer: bool
    ) -> None:
        told = said(text, "command")

        assert value(a_slot("bool"), told, "it") == Filled(
            value=answer, why=f"the intent {told.named!r}"
        )
        assert value(a_slot("text"), told, "it") is None


class TestWhatAnyMessageFills:
    def test_an_entity_fills_its_slot_whatever_was_asked(self) -> None:
        told = said('inform{"it": "5"}', "command")

        assert named(a_slot("int"), told, "it") == Filled(
            value=5, why="the entity 'it'"
        )

    def test_a_pattern_does_where_it_is_always_looked_for(self) -> None:
        sought = a_slot("int", pattern=r"\d{3}", always=True)
        asked = a_slot("int", pattern=r"\d{3}")

        assert named(sought, said("order 123"), "it") == Filled(
            value=123, why="its pattern"
        )
        assert named(asked, said("order 123"), "it") is None

    def test_the_text_alone_does_not(self) -> None:
        assert named(a_slot("bool", always=True), said("yes"), "it") is None

    def test_always_gives_the_values_of_the_slots_that_want_it(self) -> None:
        slots = {
            "number": a_slot("int", pattern=r"\d{3}", always=True),
            "email": a_slot(pattern=r"\S+@\S+", always=True),
            "asked": a_slot(pattern=r"\d{3}"),
        }

        assert always(slots, said("order 123")) == {"number": 123}
        assert always(slots, said('x{"email": "a@b", "asked": 1}', "command")) == {
            "email": "a@b"
        }


@pytest.mark.parametrize("kind", ["text", "any"])
def test_a_text_is_all_of_it_without_the_space_around(kind: str) -> None:
    assert filled(a_slot(kind), "  it\nbroke 🙈 \n") == "it\nbroke 🙈"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", " \n\t", "\u200b"])
def test_nothing_fills_nothing(kind: str, text: str) -> None:
    assert value(a_slot(kind, values=("a",)), said(text), "it") is None


YES = """
yes|Yes!|YES please|yeah, that would be nice|oh yes|yep|sure thing|ok|Okay.|of course
that’s right|true|y|👍|👍🏽|ja|Ja, bitte|na klar|oui|oui, merci|d'accord|si|sí|si\u0301
Sí, por favor|claro|claro que sí|sì, grazie|va bene|sim|sim, obrigado|jazeker|ja graag
"""
NO = """
no|No!|no thanks|nope|well, no|no, I do not want that|not really|absolutely not|false|n
👎|nein|Nein, danke|non|non merci|no, gracias|claro que no|não|nao|não, obrigado|nee
nee, bedankt|natürlich nicht|certo che no
"""
NEITHER = """
maybe|no idea|no problem|I don't know|not sure|yes and no|no, yes|yes, not that
y cuánto cuesta|si je veux|what does it cost?|nothing|yesterday|november|knowing|嗯|yess
👍👎 hm|ok no|sure, but don't|bien sûr que non|never mind|1 or 0|right away|.|🤷
"""


def told(table: str) -> list[str]:
    return table.strip().replace("\n", "|").split("|")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        *((text, True) for text in told(YES)),
        *((text, False) for text in told(NO)),
        *((text, None) for text in told(NEITHER)),
    ],
)
def test_yes_and_no(text: str, answer: object) -> None:
    assert filled(a_slot("bool"), text) is answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("it is 5.", 5),
        ("-5", -5),
        ("−5°", -5),
        ("+5", 5),
        ("#5", 5),
        ("LK-000005", None),
        ("hmm...5", 5),
        ("5kg", 5),
        ("$1,234.50", 1234.5),
        ("1,234.5", 1234.5),
        ("1.234,5", 1234.5),
        ("1,234", 1234),
        ("1.234", 1.234),
        ("1.234.567", 1234567),
        ("1,234,567", 1234567),
        ("1,5", 1.5),
        ("0,125", 0.125),
        (".5", 0.5),
        ("-.5", -0.5),
        ("007", 7),
        ("５", 5),
        ("٥", 5),
        ("१२", 12),
        ("我要5个", None),
        ("five", 5),
        ("Twelve, please", 12),
        ("zero", 0),
        ("five thousand", None),
        ("twenty-five", None),
        ("5 k", None),
        ("5k", None),
        ("5 or 6", None),
        ("5-6", None),
        ("five or 6", None),
        ("10:30", None),
        ("2024-01-05", None),
        ("1.2.3", None),
        ("192.168.0.1", None),
        ("12,34,567", None),
        ("1,234.5.6", None),
        ("12ab34", None),
        ("1e5", None),
        ("A5", None),
        ("1_000", None),
        ("½", None),
        ("seventh", None),
        ("none", None),
        ("nan", None),
        ("inf", None),
        ("9" * 400, None),
        ("9" * 5_000, None),
    ],
)
def test_the_one_number_of_a_text(text: str, number: float | None) -> None:
    found = filled(a_slot("float"), text)

    assert found == number
    assert found is None or isinstance(found, float)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("5.0", 5),
        ("5.5", None),
        ("eleven", 11),
        ("123456789012345678", 123456789012345678),
        ("9" * 30, None),
    ],
)
def test_an_int_is_whole(text: str, number: int | None) -> None:
    found = filled(a_slot("int"), text)

    assert found == number
    assert found is None or isinstance(found, int)


@settings(deadline=None)
@given(st.integers(-(10**17), 10**17))
def test_every_int_is_read_as_it_is_written(number: int) -> None:
    slot = a_slot("int")

    assert filled(slot, f"I want {number}, please") == number
    assert filled(slot, f"I want {number:,}, please") == number


@settings(deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
)
def test_every_float_is_read_as_it_is_written(number: float) -> None:
    english = f"{number:,.4f}"
    german = english.translate(str.maketrans(",.", ".,"))

    read = {filled(a_slot("float"), one) for one in (english, german)}

    assert read == {float(f"{number:.4f}")}


SIZES = ("small", "extra small", "Größe L", "大号", "👶", "C", "C++", "size-10")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("small", "small"),
        ("a SMALL one, please", "small"),
        ("extra small", "extra small"),
        ("I'd take the extra  small", "extra small"),
        ("GRÖSSE L", "Größe L"),
        ("我要大号的", "大号"),
        ("👶", "👶"),
        ("for a 👶🏽!", "👶"),
        ("smal", "small"),
        ("smalll one", "small"),
        ("extra smal", None),
        ("etra small", "small"),
        ("C++", "C++"),
        ("c", "C"),
        ("I like C++", None),
        ("small or extra small", None),
        ("small, no, 大号", None),
        ("unsmall", None),
        ("size 10", "size-10"),
        ("size 11", None),
        ("smaller things have happened", None),
        ("none", None),
    ],
)
def test_a_categorical_value_is_named_or_nearly(text: str, found: str | None) -> None:
    assert filled(a_slot("categorical", values=SIZES), text) == found


def test_a_value_is_not_taken_for_its_denial() -> None:
    slot = a_slot("categorical", values=("registered", "guest"))

    assert filled(slot, "unregistered") is None
    assert filled(slot, "registred") == "registered"


def test_in_a_long_text_a_value_has_to_be_named_outright() -> None:
    slot = a_slot("categorical", values=("registered",))

    assert filled(slot, "word " * 60 + "registred") is None
    assert filled(slot, "word " * 60 + "registered") == "registered"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("cheese", ["cheese"]),
        ("cheese, ham and olives.", ["cheese", "ham", "olives"]),
        ("cheese, ham, and olives", ["cheese", "ham", "olives"]),
        ("sand & band AND land", ["sand", "band", "land"]),
        ("茶、咖啡，水", ["茶", "咖啡", "水"]),
        ("Käse und Wein", ["Käse", "Wein"]),
        ("1,5 l milk; 2 eggs\n3 leeks", ["1,5 l milk", "2 eggs", "3 leeks"]),
        (", , and ,", None),
        (",,,", None),
    ],
)
def test_a_list_is_split_at_commas_and_the_word_and(
    text: str, items: list[str] | None
) -> None:
    found = filled(a_slot("list"), text)

    assert found == items


class TestWhatFits:
    @pytest.mark.parametrize(
        ("kind", "told", "found"),
        [
            ("text", " a ", "a"),
            ("text", 5, "5"),
            ("text", True, "true"),
            ("text", ["a", "b"], "b"),
            ("text", {"a": 1}, None),
            ("text", [], None),
            ("text", [["a"]], None),
            ("bool", True, True),
            ("bool", 0, False),
            ("bool", 2, None),
            ("bool", "true", True),
            ("bool", "0", False),
            ("int", 5, 5),
            ("int", 5.0, 5),
            ("int", 5.5, None),
            ("int", True, None),
            ("int", "5", 5),
            ("int", 2**63, None),
            ("float", 5, 5.0),
            ("float", float("nan"), None),
            ("float", float("inf"), None),
            ("float", False, None),
            ("categorical", "SMALL", "small"),
            ("categorical", "huge", None),
            ("categorical", 10, "10"),
            ("list", ["a", 1], ["a", 1]),
            ("list", "a, b", ["a", "b"]),
            ("list", 1, [1]),
            ("list", None, None),
            ("any", {"a": [1]}, {"a": [1]}),
            ("any", 0, 0),
            ("any", False, False),
        ],
    )
    def test_a_value_is_made_to_fit_or_refused(
        self, kind: str, told: JsonValue, found: JsonValue
    ) -> None:
        fit = fitted(a_slot(kind, values=("small", "10")), told)

        assert (type(fit), fit) == (type(found), found)

    def test_what_json_cannot_hold_does_not_fit(self) -> None:
        class Unknown:
            pass

        strange: Any = Unknown()

        assert fitted(a_slot("any"), strange) is None
        assert fitted(a_slot("list"), [strange]) is None
        assert fitted(a_slot("text"), "\ud800") is None


WRITTEN = st.text(st.characters()) | st.sampled_from(told(YES + NO + NEITHER))


@settings(deadline=None)
@given(
    text=WRITTEN,
    entity=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | WRITTEN,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(WRITTEN, inner, max_size=3)
        ),
        max_leaves=4,
    ),
    kind=st.sampled_from(KINDS),
)
def test_what_is_filled_can_always_be_written_as_json(
    text: str, entity: JsonValue, kind: str
) -> None:
    slot = a_slot(kind, values=SIZES)
    entities: Mapping[str, JsonValue] = {} if entity is None else {"it": entity}
    written = Understood(text=said(text).text, entities=entities)

    found = value(slot, written, "it")

    if found is not None:
        assert found.value is not None
        assert orjson.loads(orjson.dumps(found.value)) == found.value


@pytest.mark.parametrize(
    "flood",
    [
        "a",
        "1",
        "1,",
        "1.",
        "-",
        " ",
        "and ",
        ", ",
        "\u0301",
        "字",
        "🙈",
        "é ",
        "1a",
        "no ",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_is_read_in_the_end(kind: str, flood: str) -> None:
    slot = a_slot(kind, values=("small", "extra small"))
    text = flood * (100_000 // len(flood))

    found = filled(slot, text)

    assert isinstance(found, str | list | int | float | None)


FORM = FormConfig(slots=("a",), leave=("cancel", "Never mind", "算了", "❌"))


class TestLeavingAForm:
    @pytest.mark.parametrize(
        "text", ["cancel", " Cancel! ", "never-mind…", "NEVER MIND", "算了。", "❌"]
    )
    def test_a_phrase_leaves_it(self, text: str) -> None:
        assert leaves(FORM, said(text))

    @pytest.mark.parametrize(
        "text",
        ["cancel my order", "never", "mind never", "", "?", "🙈", "❌❌", "x" * 9_999],
    )
    def test_more_than_a_phrase_does_not(self, text: str) -> None:
        assert not leaves(FORM, said(text))

    def test_a_phrase_as_a_command_does(self) -> None:
        assert leaves(FORM, said("cancel", "command"))
        assert not leaves(FORM, said("order", "command"))


class TestQuestions:
    @pytest.mark.parametrize(
        "text",
        [
            "where?",
            "where ? ",
            "really?!",
            "'where?'",
            "(where?)",
            "**where?**",
            "where? 🙈🙈🏽",
            "where?❤️",
            "where? :)",
            "¿dónde?",
            "在哪里？",
            "「どこ？」",
            "أين؟",
            "πού;",
            "πού\u037e",
            "what⁉",
            "was‽",
            "where❓",
            "የት፧",
        ],
    )
    def test_a_question_mark_of_any_script_ends_one(self, text: str) -> None:
        assert is_question(text)
        assert is_question(said(text).text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "where",
            "where? here.",
            "a;",
            ";",
            "?x",
            "🙈",
            '"',
            "\ud800",
            "5" * 9_999,
        ],
    )
    def test_nothing_else_does(self, text: str) -> None:
        assert not is_question(text)
