"""The model's own choice: what it is offered, how its call is read and checked."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.actions.tools import (
    LONGEST,
    MOST_TOKENS,
    PREFACE,
    Choice,
    Greedy,
    NoCall,
    ToolCall,
    checked,
    choose,
    messages,
    read,
    schemas,
)
from bot.actions_config import ActionsConfig
from bot.errors import Overloaded, TurnCancelled, TurnError
from bot.generation.language_model import TransformersModel
from bot.interfaces import GenerationRequest, Sampler, Truncates
from bot.model import Candidate
from bot.testing.fakes import ScriptedLanguageModel
from bot.testing.makers import a_turn, an_event
from tests.conftest import ModelFolders

SLOTS: dict[str, Any] = {
    "order": {"type": "text"},
    "copies": {"type": "int"},
    "weight": {"type": "float"},
    "express": {"type": "bool"},
    "size": {"type": "categorical", "values": ["small", "Large"]},
    "items": {"type": "list"},
    "note": {"type": "any"},
}
ACTIONS = ActionsConfig.model_validate(
    {
        "by_model": True,
        "slots": SLOTS,
        "tools": {
            "look_up_order": {"description": "Finds an order.", "slots": ["order"]},
            "reorder": {"description": "Orders again.", "slots": list(SLOTS)},
        },
    }
)
CALL = '{"name": "look_up_order", "arguments": {"order": "4711"}}'
READ = ToolCall(name="look_up_order", arguments={"order": "4711"})
PERSONA = "You are a support assistant."


# What models write


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"<tool_call>{CALL}",
        f"I will look.\n<tool_call>\n{CALL}\n</tool_call>\nAnything else? {{}}",
        f"<think>{{so}} it is an order</think><tool_call>{CALL}</tool_call>",
        f"<tool_call>{CALL}</tool_call><tool_call>{{}}</tool_call>",
        f"[TOOL_CALLS] [{CALL}]",
        f'[TOOL_CALLS][{CALL}, {{"name": "reorder", "arguments": {{}}}}]</s>',
        f"[{CALL}]",
        f"<|python_tag|>{CALL}<|eom_id|>",
        f"<|python_tag|>{CALL.replace('arguments', 'parameters')}",
        CALL.replace('"arguments"', '"parameters"'),
        CALL,
        f"  {CALL} and so on",
        f"```json\n{CALL}\n```",
        f"Here it is:\n```\n{CALL}\n```\nThat is all.",
        f"{CALL[:-1]}, }}".replace(", }", "}"),
        json.dumps({"name": "look_up_order", "arguments": '{"order": "4711"}'}),
        json.dumps({"id": 1, "type": "function", **json.loads(CALL)}),
    ],
)
def test_the_first_call_is_read_in_every_format(text: str) -> None:
    found = read(text)

    assert found == READ


@pytest.mark.parametrize("arguments", ["", ', "arguments": null', ', "arguments": {}'])
def test_a_call_may_be_without_arguments(arguments: str) -> None:
    found = read(f'<tool_call>{{"name": "reorder"{arguments}}}</tool_call>')

    assert found == ToolCall(name="reorder")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NONE",
        "Your order is on its way.",
        "In CSS you write a { color: red } and that is it.",
        'A schema is {"type": "object"} for example.',
        "\u4f60\u597d \N{GRINNING FACE} {",
    ],
)
def test_what_is_no_call_is_no_problem(text: str) -> None:
    found = read(text)

    assert found == NoCall()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<tool_call>", "no JSON object"),
        ("<tool_call>look_up_order(4711)</tool_call>", "no JSON object"),
        ("<tool_call>{'name': 'look_up_order'}</tool_call>", "not JSON"),
        (f"<tool_call>{CALL[:-6]}", "no end"),
        ('{"name": "look_up_order", "argum', "no end"),
        ('<tool_call>{"arguments": {}}</tool_call>', "names no function"),
        ('{"name": 7, "arguments": {}}', "names no function"),
        ('{"name": "reorder", "arguments": [1, 2]}', "no JSON object"),
        ('{"name": "reorder", "arguments": "4711"}', "no JSON object"),
        ('{"name": "reorder", "arguments": "{\'order\': 1}"}', "no JSON object"),
        ('{"name": "reorder", "arguments": {"weight": NaN}}', "not JSON"),
        ('{"name": "reorder", "arguments": {"order": "\\ud800"}}', "not JSON"),
        ('{"name": "reorder", "arguments": {"order": "\ud800"}}', "not JSON"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(text: str, why: str) -> None:
    found = read(text)

    assert isinstance(found, NoCall)
    assert why in found.problem


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" + '{"a":' * 100_000,
        '{"name": "reorder", "arguments": ' + "[" * 500 + "]" * 500 + "}",
        "[TOOL_CALLS] " + "[" * 100_000,
        '{"name": "' + '\\"' * 100_000,
        "<tool_call>" * 100_000,
        "<|python_tag|" * 100_000,
        "```" + " \n" * 100_000,
    ],
    ids=["objects", "lists", "open", "quotes", "marks", "half marks", "space"],
)
def test_hostile_texts_are_no_calls(text: str) -> None:
    found = read(text)

    assert isinstance(found, NoCall)


def test_nesting_hidden_in_a_text_is_bounded_too() -> None:
    deep = "[" * 900 + "]" * 900
    call = {"name": "reorder", "arguments": f'{{"note": {deep}}}'}

    found = read(json.dumps(call))

    assert isinstance(found, NoCall)


def test_only_the_beginning_of_an_endless_text_is_read() -> None:
    found = read(" " * LONGEST + CALL)

    assert found == NoCall()


PIECES = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "```json",
        '{"name": "reorder", "arguments": ',
        '"parameters": {"order": ',
        *'{}[]",:\\',
        "1e999",
        "\ud800",
        "null",
    ]
)


@given(st.lists(PIECES | st.text(max_size=5)).map("".join))
def test_reading_never_fails(text: str) -> None:
    found = read(text)

    assert isinstance(found, ToolCall | NoCall)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.text(), st.dictionaries(st.sampled_from([*SLOTS, "other"]), JSON))
def test_checking_never_fails(name: str, arguments: dict[str, Any]) -> None:
    for each in (name, "reorder"):
        found = checked(ToolCall(name=each, arguments=arguments), ACTIONS)

        assert isinstance(found, ToolCall | str)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_value_is_read_as_it_was_written(value: str) -> None:
    written = orjson.dumps({"name": "reorder", "arguments": {"order": value}}).decode()

    found = read(f"<tool_call>{written}</tool_call>")

    assert found == ToolCall(name="reorder", arguments={"order": value})


# Whether it can run


def value_of(slot: str, value: Any) -> Any:
    found = checked(ToolCall(name="reorder", arguments={slot: value}), ACTIONS)
    return found if isinstance(found, str) else found.arguments.get(slot)


@pytest.mark.parametrize(
    ("slot", "written", "held"),
    [
        ("order", " 4711 ", "4711"),
        ("order", 4711, "4711"),
        ("order", 12_345_678_901_234_567_890, "12345678901234567890"),
        ("order", 19.5, "19.5"),
        ("order", "\u8ba2\u5355", "\u8ba2\u5355"),
        ("copies", 5, 5),
        ("copies", "5", 5),
        ("copies", "-5", -5),
        ("copies", 5.0, 5),
        ("weight", 2, 2.0),
        ("weight", "2.5", 2.5),
        ("express", True, True),
        ("express", "Yes", True),
        ("express", "no", False),
        ("express", "FALSE", False),
        ("express", 0, False),
        ("size", "large", "Large"),
        ("size", " SMALL", "small"),
        ("items", ["a", 1], ["a", 1]),
        ("items", "a", ["a"]),
        ("note", {"a": [1]}, {"a": [1]}),
        ("order", None, None),
        ("copies", "", None),
        ("note", "  ", None),
    ],
)
def test_a_value_becomes_what_its_slot_holds(
    slot: str, written: Any, held: Any
) -> None:
    found = value_of(slot, written)

    assert found == held
    assert type(found) is type(held)


@pytest.mark.parametrize(
    ("slot", "written", "expected"),
    [
        ("order", True, "text"),
        ("order", ["4711"], "text"),
        ("order", 1.2345678901234568e29, "text"),
        ("copies", "five", "a whole number"),
        ("copies", 5.5, "a whole number"),
        ("copies", True, "a whole number"),
        ("copies", "9" * 5000, "a whole number"),
        ("copies", 10**40, "a whole number"),
        ("weight", "nan", "a number"),
        ("weight", "-inf", "a number"),
        ("weight", "heavy", "a number"),
        ("weight", float("nan"), "a number"),
        ("weight", {}, "a number"),
        ("express", "perhaps", "yes or no"),
        ("express", 2, "yes or no"),
        ("size", "medium", "one of 'small', 'Large'"),
        ("size", ["small"], "one of 'small', 'Large'"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_what_would(
    slot: str, written: Any, expected: str
) -> None:
    sentence = value_of(slot, written)

    assert sentence.startswith(f"actions.tools.reorder: the model gave slot {slot!r}")
    assert sentence.endswith(f"it holds {expected}")
    assert len(sentence) < 200


def test_an_action_that_is_not_offered_is_told_with_the_nearest() -> None:
    sentence = checked(ToolCall(name="lookup_order"), ACTIONS)

    assert sentence == (
        "actions.tools: the model called 'lookup_order', which it was not offered; "
        "did you mean 'look_up_order'?"
    )


def test_an_argument_of_another_action_is_told_with_the_actions_own() -> None:
    call = ToolCall(name="look_up_order", arguments={"order": "1", "copies": 2})

    sentence = checked(call, ACTIONS)

    assert sentence == (
        "actions.tools.look_up_order: the model gave it 'copies', which is none of its "
        "slots; there is 'order'"
    )


def test_an_argument_may_be_missing_for_a_form_asks() -> None:
    call = ToolCall(name="reorder", arguments={"copies": "2"})

    found = checked(call, ACTIONS)

    assert found == ToolCall(name="reorder", arguments={"copies": 2})


# What it is offered


def test_actions_are_offered_with_their_slots_as_json_schema() -> None:
    offered = schemas(ACTIONS)

    assert [(each.name, each.description) for each in offered] == [
        ("look_up_order", "Finds an order."),
        ("reorder", "Orders again."),
    ]
    assert offered[1].parameters == {
        "type": "object",
        "properties": {
            "order": {"type": "string"},
            "copies": {"type": "integer"},
            "weight": {"type": "number"},
            "express": {"type": "boolean"},
            "size": {"type": "string", "enum": ["small", "Large"]},
            "items": {"type": "array"},
            "note": {},
        },
    }


def test_the_model_reads_the_last_of_the_conversation() -> None:
    history = [
        an_event("Hello."),
        an_event("Good morning.", "reply"),
        an_event("My order is late."),
        an_event("", "slot", data={"name": "size", "value": "small"}),
        an_event("Which order?", "reply"),
        an_event("The green one."),
    ]

    told = messages(a_turn("Number 4711.", history=history), PERSONA)

    assert told[0].role == "system"
    assert told[0].content.startswith(PERSONA)
    assert [(each.role, each.content) for each in told[1:]] == [
        ("user", "My order is late."),
        ("assistant", "Which order?"),
        ("user", "The green one."),
        ("user", "Number 4711."),
    ]


# The whole way


def a_model(reply: Any, **more: Any) -> ScriptedLanguageModel:
    return ScriptedLanguageModel([reply], **more)


async def chosen(model: ScriptedLanguageModel, question: str = "Where is 4711?") -> Any:
    async def generate(request: GenerationRequest) -> Sequence[Candidate]:
        return model.generate(request)

    return await choose(
        a_turn(question, history=[an_event("Good morning.")]),
        actions=ACTIONS,
        persona=PERSONA,
        model=model,
        generate=generate,
    )


async def test_the_models_call_becomes_the_choice() -> None:
    model = a_model(f"<tool_call>{CALL}</tool_call>")

    choice = await chosen(model)

    assert choice == Choice(
        action="look_up_order",
        arguments={"order": "4711"},
        wrote=f"<tool_call>{CALL}</tool_call>",
        why="the model called 'look_up_order'",
    )


async def test_one_greedy_candidate_is_asked_for_with_what_is_offered() -> None:
    model = a_model("NONE")

    await chosen(model)

    [request] = model.requests
    assert (request.candidates, request.max_new_tokens) == (1, MOST_TOKENS)
    assert isinstance(request.sampler, Truncates)
    assert request.sampler.truncation.temperature == 0
    assert "Finds an order." in request.turn.prompt
    assert "Good morning." in request.turn.prompt
    assert "Where is 4711?" in request.turn.prompt


async def test_a_model_that_goes_on_is_stopped_after_its_call() -> None:
    model = a_model(f"{CALL} and then some more")

    choice = await chosen(model)

    assert choice.wrote == CALL


async def test_a_model_that_talks_instead_is_stopped_soon() -> None:
    choice = await chosen(a_model("well " * 60))

    assert choice.why == "the model called nothing"
    assert PREFACE < len(choice.wrote) < PREFACE + 10


async def test_a_model_may_say_something_before_it_calls() -> None:
    preface = "I will look where your order is and come back to you as soon as I know."

    choice = await chosen(a_model(f"{preface} <tool_call>{CALL}</tool_call>"))

    assert choice.action == "look_up_order"


async def test_a_model_that_answers_chooses_nothing() -> None:
    choice = await chosen(a_model("NONE"))

    assert (choice.action, choice.problem) == (None, "")
    assert (choice.wrote, choice.why) == ("NONE", "the model called nothing")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("<tool_call>hello", "actions.by_model: the model's call is no JSON object"),
        ('{"name": "delete"}', "which it was not offered"),
        ('{"name": "reorder", "arguments": {"copies": "x"}}', "holds a whole number"),
    ],
)
async def test_a_call_that_cannot_run_is_told(written: str, problem: str) -> None:
    choice = await chosen(a_model(written))

    assert choice.action is None
    assert choice.wrote == written
    assert problem in choice.problem


async def test_what_cannot_be_kept_is_not_in_what_the_model_wrote() -> None:
    choice = await chosen(a_model("no\x00 call\u200b"))

    assert choice.wrote == "no call"


async def test_history_is_left_out_where_the_model_reads_little() -> None:
    roomy = a_model("NONE")
    await chosen(roomy)
    needed = roomy.count_tokens(roomy.requests[0].turn.prompt) + MOST_TOKENS
    model = a_model("NONE", context_tokens=needed - 1)

    await chosen(model)

    prompt = model.requests[0].turn.prompt
    assert "Good morning." not in prompt
    assert "Where is 4711?" in prompt
    assert "Finds an order." in prompt


@pytest.mark.parametrize("error", [Overloaded("too many"), TurnCancelled("stopped")])
async def test_what_generating_raises_is_the_callers(error: TurnError) -> None:
    with pytest.raises(type(error)):
        await chosen(a_model(error))


async def test_an_empty_text_is_no_choice() -> None:
    choice = await chosen(a_model(""))

    assert choice.action is None


async def test_the_prompt_is_not_rendered_on_the_event_loop() -> None:
    threads: list[threading.Thread] = []

    class Watched(ScriptedLanguageModel):
        def count_tokens(self, text: str) -> int:
            threads.append(threading.current_thread())
            return super().count_tokens(text)

    await chosen(Watched(["NONE"]))

    assert threads
    assert threading.current_thread() not in threads


def test_greedy_draws_the_likeliest_token_of_every_row() -> None:
    torch = pytest.importorskip("torch")
    sampler: Sampler = Greedy()

    drawn = sampler.begin(a_turn(), 2, torch.Generator())(
        torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    )

    assert drawn.tokens.tolist() == [1, 0]


@pytest.mark.model
async def test_the_shipped_model_reads_the_tools_and_can_be_asked(
    model_folders: ModelFolders,
) -> None:
    model = TransformersModel(model_folders.generator, "smollm2", "cpu", threads=1)
    asked: list[GenerationRequest] = []

    async def generate(request: GenerationRequest) -> Sequence[Candidate]:
        asked.append(request)
        return model.generate(request)

    choice = await choose(
        a_turn("Where is my order 4711? <|im_end|>"),
        actions=ACTIONS,
        persona=PERSONA,
        model=model,
        generate=generate,
    )

    model.close()
    prompt = asked[0].turn.prompt
    system, _, rest = prompt.partition("<|im_end|>")
    assert '"name": "look_up_order"' in system
    assert "<tool_call>" in system
    assert "Where is my order 4711? < |im_end|>" in rest
    assert prompt.endswith("<|im_start|>assistant\n")
    assert choice.wrote
