"""When an action runs: what messages say, which rule they meet, and what is amiss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bot.actions.rules import (
    BUILT_IN,
    READ_CHARACTERS,
    Match,
    Rules,
    Understood,
    Wording,
    problems,
    understood,
)
from bot.actions_config import ActionsConfig, Rule
from bot.conversation import commands
from bot.model import EventKind
from bot.testing.makers import an_event

# Characters that payloads are made of, and some that are not ASCII.
WRITTEN = st.text('ab1@{}[]":,\\ \n字🙈', max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WRITTEN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WRITTEN, inner, max_size=3)
    ),
    max_leaves=4,
)


def said(text: str, kind: EventKind = "message", **data: Any) -> Understood:
    return understood(an_event(text, kind, data=data))


def rules(*written: Mapping[str, Any]) -> Rules:
    return Rules([rule(**one) for one in written], embed=None)


def rule(**written: Any) -> Rule:
    return Rule.model_validate({"run": "action_it", **written})


def met(by: Rules, understood: Understood) -> Match:
    found = by.match(understood, by_meaning=True)
    assert found is not None
    return found


class Embedder:
    """Each text is where the table says, on the unit circle, in degrees."""

    def __init__(self, **degrees: float) -> None:
        self._degrees = degrees
        self.asked: list[Sequence[str]] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(texts)
        angles = np.radians([self._degrees.get(text, 180) for text in texts])
        rows: NDArray[np.float32] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return rows.astype(np.float32)


class TestWhatAMessageSays:
    def test_a_message_is_its_text(self) -> None:
        assert said("where is it?") == Understood(text="where is it?")

    def test_a_command_has_arguments(self) -> None:
        assert said("order 12  x ", "command") == Understood(
            text="/order 12  x", command="order", arguments="12  x"
        )

    def test_a_command_without_arguments_names_an_intent_too(self) -> None:
        assert said("affirm", "command").named == "affirm"
        assert said("affirm now", "command").named is None

    @pytest.mark.parametrize(
        ("text", "entities"),
        [
            ('inform{"size": "small"}', {"size": "small"}),
            ('inform {"size": "small"}', {"size": "small"}),
            ('inform@0.9{"size": "small"}', {"size": "small"}),
            ('inform@0.9 {"size": "small"}', {"size": "small"}),
            ('inform{"size": "small"} and more', {"size": "small"}),
            ('inform{"a": 1, "b": ["x", null]}', {"a": 1, "b": ["x", None]}),
            ('inform{"茶": "🍵"}', {"茶": "🍵"}),
            ("inform{}", {}),
            ("inform@1.0", {}),
        ],
    )
    def test_a_payload_of_rasa_is_an_intent_with_entities(
        self, text: str, entities: Mapping[str, Any]
    ) -> None:
        found = said(text, "command")

        assert found == Understood(text=f"/{text}", intent="inform", entities=entities)
        assert found.named == "inform"

    @pytest.mark.parametrize(
        "rest",
        [
            '{"size": ',
            "{size}",
            "{NaN}",
            '{"a": NaN}',
            '{"a": 1e999}',
            '["a"]}',
            "{",
            "{}}",
        ],
    )
    def test_a_broken_payload_is_an_intent_without_entities(self, rest: str) -> None:
        text = f"inform{{{rest}" if rest.startswith("[") else f"inform{rest}"

        found = said(text, "command")

        assert (found.intent, found.entities, found.command) == ("inform", {}, None)

    def test_braces_in_a_commands_arguments_are_its_arguments(self) -> None:
        found = said("note {buy milk}", "command")

        assert (found.command, found.arguments) == ("note", "{buy milk}")

    @pytest.mark.parametrize("depth", [17, 1000, 5000])
    def test_an_entity_that_nests_too_deep_is_left_out(self, depth: int) -> None:
        deep = "[" * depth + "]" * depth

        found = said(f'inform{{"deep": {deep}, "size": 1}}', "command")

        assert found.intent == "inform"
        assert "deep" not in found.entities

    def test_a_slash_alone_is_a_command_without_a_name(self) -> None:
        assert said("", "command") == Understood(text="/", command="")

    @pytest.mark.parametrize(
        "entities",
        [
            {"size": "small", "n": 2},
            [{"entity": "size", "value": "small"}, {"entity": "n", "value": 2}],
            [
                7,
                {"entity": 3},
                {"entity": "size", "value": "small"},
                {"entity": "n", "value": 2},
            ],
        ],
    )
    def test_a_reminder_is_an_intent_with_its_entities(self, entities: Any) -> None:
        found = said("", "intent", intent="remind", entities=entities)

        assert found.intent == "remind"
        assert found.entities == {"size": "small", "n": 2}
        assert found.text == '/remind{"size":"small","n":2}'

    def test_an_entity_that_comes_twice_is_a_list(self) -> None:
        entities = [{"entity": "topping", "value": one} for one in ("ham", "corn")]

        found = said("", "intent", intent="order", entities=entities)

        assert found.entities == {"topping": ["ham", "corn"]}

    @pytest.mark.parametrize(
        "entities", [None, 3, "x", {1: 2}, {"a": {1, 2}}, {"a": "\ud800"}, {"a": 2**70}]
    )
    def test_entities_of_a_reminder_that_are_no_json_are_none(
        self, entities: Any
    ) -> None:
        found = said("", "intent", intent="remind", entities=entities)

        assert (found.intent, found.entities) == ("remind", {})

    @pytest.mark.parametrize("intent", [None, 3, " ", ["a"]])
    def test_a_reminder_without_an_intent_is_its_text(self, intent: Any) -> None:
        assert said("x", "intent", intent=intent) == Understood(text="x")

    @settings(deadline=None)
    @given(st.text(st.characters()), st.sampled_from(["message", "command", "intent"]))
    def test_everything_can_be_read_and_written_as_json(
        self, text: str, kind: EventKind
    ) -> None:
        found = said(text, kind, intent=text, entities={"it": text})

        written = [found.text, found.intent, found.entities, found.arguments]
        assert orjson.loads(orjson.dumps(written)) == written

    @settings(deadline=None)
    @given(st.dictionaries(WRITTEN, JSON, max_size=3))
    def test_a_payload_gives_back_the_entities_that_were_written(
        self, entities: dict[str, Any]
    ) -> None:
        found = said(f"inform{orjson.dumps(entities).decode()}", "command")

        assert found.entities == entities


class TestWording:
    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("I want a REFUND, now", "refund"),
            ("never-mind", "Never mind"),
            ("Straße", "STRASSE"),
            ("ｒｅｆｕｎｄ", "refund"),  # noqa: RUF001 - wide
            ("don’t do it", "don't"),  # noqa: RUF001 - as phones write it
            ("我想退货。", "退货"),
            ("ขอคืนเงินครับ", "คืนเงิน"),
            ("iPhoneを返品したい", "返品"),
            ("thanks 👍🏽", "👍"),
            ("cafe\u0301", "café"),
        ],
    )
    def test_a_phrase_is_found(self, text: str, phrase: str) -> None:
        assert Wording.of(text).has(Wording.of(phrase))

    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("refunds", "refund"),
            ("prerefund", "refund"),
            ("mind never", "never mind"),
            ("我想退", "退货"),
            ("", "refund"),
            ("anything", ""),
            ("anything", "  "),
        ],
    )
    def test_no_part_of_a_word_is(self, text: str, phrase: str) -> None:
        assert not Wording.of(text).has(Wording.of(phrase))


class TestTheRuleThatAMessageMeets:
    def test_a_command(self) -> None:
        by = rules({"keywords": ["order"]}, {"command": "order"})

        found = met(by, said("order 12", "command"))

        assert (found.number, found.why) == (1, "rule 1: the command /order")

    @pytest.mark.parametrize(
        "text", ["greet{}", 'greet{"name": "Ann"}', "greet@0.5", "greet"]
    )
    def test_an_intent(self, text: str) -> None:
        found = met(rules({"intent": "greet"}), said(text, "command"))

        assert found.why == "rule 0: the intent 'greet'"

    def test_a_command_goes_before_the_intent_of_its_name(self) -> None:
        by = rules({"intent": "order"}, {"command": "order"})

        assert met(by, said("order", "command")).number == 1
        assert met(by, said("order{}", "command")).number == 0

    def test_a_reminder(self) -> None:
        found = met(rules({"intent": "wake"}), said("", "intent", intent="wake"))

        assert found.number == 0

    def test_a_pattern_gives_the_groups_that_took_part(self) -> None:
        by = rules({"pattern": r"order (?P<number>\d+)|(?P<email>\S+@\S+)"})

        found = met(by, said("my order 123!"))

        assert found.entities == {"number": "123"}
        assert found.why == (
            r"rule 0: the pattern 'order (?P<number>\\d+)|(?P<email>\\S+@\\S+)'"
        )

    def test_a_pattern_minds_capitals_unless_it_says_otherwise(self) -> None:
        by = rules({"pattern": "REFUND"}, {"pattern": "(?i)Refund"})

        assert met(by, said("refund")).number == 1

    def test_a_keyword(self) -> None:
        by = rules({"keywords": ["parcel", "where is it"]})

        found = met(by, said("Hello, where is it?"))

        assert found.why == "rule 0: the keyword 'where is it'"
        assert found.entities == {}

    def test_the_first_of_several(self) -> None:
        by = rules(
            {"keywords": ["never"]}, {"keywords": ["parcel"]}, {"pattern": "parcel"}
        )

        assert met(by, said("my parcel")).number == 1

    @pytest.mark.parametrize("kind", ["command", "intent"])
    def test_names_are_not_read_as_text(self, kind: EventKind) -> None:
        by = rules({"keywords": ["order"], "pattern": "order", "examples": ["order"]})

        assert by.match(said("order", kind, intent="order"), by_meaning=True) is None

    def test_only_the_beginning_of_a_long_message_is_read(self) -> None:
        by = rules({"pattern": "needle"}, {"keywords": ["needle"]})
        long = "hay " * (READ_CHARACTERS // 4)

        assert by.match(said(f"{long}needle"), by_meaning=True) is None
        assert met(by, said(f"{long[:-8]} needle")).number == 0

    @pytest.mark.parametrize("text", ["", " \n", "\ud800", "x" * 10_000, "\0" * 99])
    def test_nothing_to_be_read_meets_none(self, text: str) -> None:
        embed = Embedder(hello=0)
        by = Rules([rule(pattern="^$", examples=["hello"], keywords=["y"])], embed)

        assert by.match(said(text), by_meaning=True) is None

    def test_half_a_surrogate_is_passed_over(self) -> None:
        assert met(rules({"pattern": "ab"}), said("a\ud83db")).number == 0

    @pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(?:a?){50}a{50}$"])
    def test_a_pattern_that_goes_back_elsewhere_is_linear_here(
        self, pattern: str
    ) -> None:
        by = rules({"pattern": pattern})

        assert by.match(said("a" * 3_999 + "b"), by_meaning=False) is None


class TestMeaning:
    def test_the_nearest_example_at_or_above_its_own_threshold_wins(self) -> None:
        embed = Embedder(near=20, strict=10, far=40, it=0)
        by = Rules(
            [
                rule(examples=["far"], threshold=0.7),
                rule(examples=["strict"], threshold=0.99),
                rule(examples=["other", "near"], threshold=0.9),
            ],
            embed,
        )

        found = met(by, said("it"))

        assert found.why == "rule 2: like 'near' (0.94, threshold 0.9)"

    def test_the_same_text_is_alike_enough_for_any_threshold(self) -> None:
        embed = Embedder(it=33)
        by = Rules([rule(examples=["it"], threshold=1)], embed)

        assert met(by, said("it")).number == 0

    def test_below_every_threshold_there_is_none(self) -> None:
        by = Rules([rule(examples=["far"])], Embedder(far=60, it=0))

        assert by.match(said("it"), by_meaning=True) is None

    def test_words_go_before_meaning(self) -> None:
        embed = Embedder(it=0)
        by = Rules([rule(examples=["it"]), rule(keywords=["it"])], embed)

        assert met(by, said("it")).number == 1
        assert embed.asked == []

    def test_without_meaning_the_embedder_is_not_asked(self) -> None:
        embed = Embedder(it=0)

        found = Rules([rule(examples=["it"])], embed).match(
            said("it"), by_meaning=False
        )

        assert found is None
        assert embed.asked == []

    def test_examples_are_embedded_once(self) -> None:
        embed = Embedder(a=0, b=90, it=0)
        by = Rules([rule(examples=["a"]), rule(examples=["b"])], embed)

        met(by, said("it"))
        met(by, said("it"))

        assert embed.asked == [["a", "b"], ["it"], ["it"]]

    def test_an_embedder_that_fails_once_is_asked_again(self) -> None:
        embed = Embedder(it=0)
        fails = [RuntimeError("away")]

        def unsteady(texts: Sequence[str]) -> NDArray[np.float32]:
            if fails:
                raise fails.pop()
            return embed(texts)

        by = Rules([rule(examples=["it"])], unsteady)
        with pytest.raises(RuntimeError, match="away"):
            by.match(said("it"), by_meaning=True)

        assert met(by, said("it")).number == 0

    def test_without_an_embedder_examples_match_nothing(self) -> None:
        by = rules({"examples": ["it"]})

        assert by.match(said("it"), by_meaning=True) is None


def test_rules_of_a_slot_come_with_their_places() -> None:
    by = rules({"slot": "size"}, {"command": "x"}, {"slot": "size", "run": "other"})

    assert [(number, one.run) for number, one in by.of_slot("size")] == [
        (0, "action_it"),
        (2, "other"),
    ]
    assert by.of_slot("colour") == []


def test_the_first_rule_of_a_command_counts() -> None:
    by = rules(
        {"command": "b", "run": "first"},
        {"command": "a"},
        {"command": "b", "run": "second"},
    )

    assert list(by.commands().items()) == [("b", "first"), ("a", "action_it")]


def test_the_built_in_commands_are_those_of_conversations() -> None:
    assert commands.BUILT_IN.keys() | {"stop"} == BUILT_IN


def found_in(*actions: str, all_known: bool = True, **written: Any) -> list[str]:
    config = ActionsConfig.model_validate(written)
    return problems(config, actions, all_known=all_known)


TEXT = [{"text": "x"}]
SLOTS = {"size": {"type": "categorical", "values": ["small", "large"]}, "note": {}}


class TestProblems:
    def test_a_sound_configuration_has_none(self) -> None:
        found = found_in(
            "action_order",
            "action_ask_note",
            rules=[
                {"run": "action_order", "command": "order"},
                {"run": "order_form", "pattern": r"(?P<note>\d+)"},
                {"run": "utter_hi", "slot": "size"},
            ],
            slots=SLOTS,
            forms={"order_form": {"slots": ["size", "note"], "submit": "action_order"}},
            responses={
                "utter_hi": [{"text": "hi"}],
                "utter_ask_order_form_size": [{"text": "which?"}],
            },
            tools={"action_order": {"description": "orders", "slots": ["size"]}},
        )

        assert found == []

    def test_what_runs_has_to_be_there(self) -> None:
        found = found_in(
            "action_order",
            rules=[{"run": "action_ordr", "command": "x"}],
            forms={"f": {"slots": ["note"], "submit": "utter_don"}},
            slots={"note": {}},
            responses={"utter_done": TEXT, "utter_ask_note": TEXT},
            tools={"action_zzz": {"description": "?"}},
        )

        assert found[:2] == [
            (
                "actions.rules[0].run: no action, form or response is called "
                "'action_ordr'; did you mean 'action_order'?"
            ),
            (
                "actions.forms.f.submit: no action, form or response is called "
                "'utter_don'; did you mean 'utter_done'?"
            ),
        ]
        assert len(found) == 3
        assert found[2].startswith("actions.tools.action_zzz: no action, form or ")

    def test_a_server_may_have_actions_that_nobody_knows_but_no_responses(self) -> None:
        found = found_in(
            all_known=False,
            rules=[
                {"run": "action_theirs", "command": "x"},
                {"run": "utter_mine", "command": "y"},
            ],
            forms={"f": {"slots": ["note"], "submit": "action_also_theirs"}},
            slots={"note": {}},
        )

        assert [problem.partition(":")[0] for problem in found] == [
            "actions.rules[1].run"
        ]

    @pytest.mark.parametrize("all_known", [True, False])
    def test_what_validates_a_form_has_to_find_it(self, all_known: bool) -> None:
        found = found_in(
            "validate_return_form",
            "validate_retrun_form",
            "action_validate_slot_mappings",
            "action_ask_note",
            all_known=all_known,
            slots={"note": {}},
            forms={"return_form": {"slots": ["note"]}},
        )

        assert found == [
            (
                "actions.sources: 'validate_retrun_form' checks no form; did you mean "
                "'return_form'?"
            )
        ]

    def test_what_validates_may_be_for_forms_of_rasa_or_run_by_its_name(self) -> None:
        for_rasa = found_in("validate_return_form")
        by_name = found_in(
            "validate_address",
            "action_ask_note",
            rules=[{"run": "validate_address", "command": "x"}],
            slots={"note": {}},
            forms={"return_form": {"slots": ["note"]}},
        )

        assert for_rasa == by_name == []

    def test_a_form_does_not_end_in_itself(self) -> None:
        found = found_in(
            "action_ask_note",
            slots={"note": {}},
            forms={"f": {"slots": ["note"], "submit": "f"}},
        )

        assert found == [
            (
                "actions.forms.f.submit: 'f' is the form itself, and would never end; "
                "name an action, a response or another form"
            )
        ]

    def test_slots_have_to_be_there(self) -> None:
        found = found_in(
            "action_a",
            rules=[
                {"run": "action_a", "slot": "siez"},
                {"run": "action_a", "pattern": r"(?P<note>a)(?P<nte>b)"},
            ],
            forms={"f": {"slots": ["note", "z"]}},
            responses={"utter_ask_note": TEXT},
            tools={"action_a": {"description": "?", "slots": ["sise"]}},
            slots=SLOTS,
        )

        assert found == [
            "actions.rules[0].slot: no slot is called 'siez'; did you mean 'size'?",
            "actions.rules[1].pattern: no slot is called 'nte'; did you mean 'note'?",
            "actions.forms.f.slots[1]: no slot is called 'z'; did you mean 'size'?",
            (
                "actions.tools.action_a.slots[0]: no slot is called 'sise'; did you "
                "mean 'size'?"
            ),
        ]

    def test_a_form_has_to_be_able_to_ask(self) -> None:
        written: dict[str, Any] = {
            "forms": {"f": {"slots": ["size", "note"]}},
            "slots": SLOTS,
        }
        responses: Mapping[str, Any] = {"utter_ask_size": TEXT}

        assert found_in(**written, responses=responses) == [
            (
                "actions.forms.f.slots[1]: nothing asks for 'note'; add the response "
                "utter_ask_note (or utter_ask_f_note), or an action of the name "
                "action_ask_note (or action_ask_f_note)"
            )
        ]
        assert found_in(**written, responses=responses, all_known=False) == []
        for name in ("action_ask_f_note", "action_ask_note"):
            assert found_in(name, **written, responses=responses) == []

    def test_a_command_belongs_to_one_rule_and_not_to_the_bot(self) -> None:
        found = found_in(
            "a",
            rules=[
                {"run": "a", "command": "order"},
                {"run": "a", "command": "stop"},
                {"run": "a", "command": "order"},
            ],
        )

        assert found == [
            "actions.rules[1].command: 'stop' is built in; choose another name",
            (
                "actions.rules[2].command: 'order' is the command of actions.rules[0]; "
                "remove one of them"
            ),
        ]

    def test_a_categorical_slot_needs_values(self) -> None:
        slots = {"size": {"type": "categorical", "initial_value": "x"}}

        assert found_in(slots=slots) == [
            (
                "actions.slots.size.values: missing; list what the categorical slot "
                "may hold"
            )
        ]

    @pytest.mark.parametrize(
        ("kind", "right"),
        [
            ("text", "a"),
            ("bool", False),
            ("int", 0),
            ("float", 1),
            ("float", 0.5),
            ("list", []),
            ("any", {"a": [1]}),
            ("any", False),
            ("text", None),
        ],
    )
    def test_an_initial_value_of_its_type_is_right(self, kind: str, right: Any) -> None:
        assert found_in(slots={"x": {"type": kind, "initial_value": right}}) == []

    @pytest.mark.parametrize(
        ("kind", "wrong"),
        [
            ("text", 1),
            ("bool", 1),
            ("bool", "yes"),
            ("int", True),
            ("int", 1.5),
            ("float", True),
            ("float", float("nan")),
            ("float", "1"),
            ("list", "a"),
            ("list", [float("inf")]),
            ("any", {1: 2}),
            ("any", an_event().time),
        ],
    )
    def test_an_initial_value_of_another_type_is_told(
        self, kind: str, wrong: Any
    ) -> None:
        found = found_in(slots={"x": {"type": kind, "initial_value": wrong}})

        assert found == [
            (
                f"actions.slots.x.initial_value: expected a value of type {kind}, "
                f"found {wrong!r}; correct it, or the type"
            )
        ]

    def test_an_initial_value_has_to_be_among_the_values(self) -> None:
        slots = {"size": {**SLOTS["size"], "initial_value": "tiny"}}

        assert found_in(slots=slots) == [
            (
                "actions.slots.size.initial_value: expected a value one of ['small', "
                "'large'], found 'tiny'; correct it, or the type"
            )
        ]

    def test_requested_slot_is_for_forms(self) -> None:
        assert found_in(slots={"requested_slot": {}}) == [
            (
                "actions.slots.requested_slot: forms keep here what they ask for; "
                "choose another name"
            )
        ]

    def test_empty_phrases_are_told(self) -> None:
        found = found_in(
            "a",
            rules=[{"run": "a", "keywords": ["x", " "], "examples": [""]}],
            slots={"s": {"type": "categorical", "values": [""]}},
            forms={"f": {"slots": ["s"], "leave": ["\n"]}},
            responses={"utter_ask_s": TEXT},
        )

        assert [problem.partition(":")[0] for problem in found] == [
            "actions.rules[0].keywords[1]",
            "actions.rules[0].examples[0]",
            "actions.slots.s.values[0]",
            "actions.forms.f.leave[0]",
        ]


def test_a_choice_by_the_model_needs_something_to_choose() -> None:
    config = ActionsConfig.model_validate({"by_model": True})

    (problem,) = problems(config, ["action_x"])

    assert problem.startswith("actions.by_model: nothing is offered")
