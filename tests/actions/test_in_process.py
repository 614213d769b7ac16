from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
from pathlib import Path

import pytest

from bot.actions import threads as threads_module
from bot.actions.calls import ActionAnswer, unseen
from bot.actions.state import DialogueState
from bot.actions.threads import ActionThreads, Crowded
from bot.actions_config import ActionsConfig
from bot.errors import ActionError, ConfigError
from tests.actions import demo_actions as demo
from tests.actions.conftest import Call, Place

ODD = "tests.actions.unloadable_actions"


async def failed(place: Place, call: Call, name: str, message: str = "hi") -> str:
    """Run an action that fails; return how, and in which words."""
    action = place(name)
    with pytest.raises(ActionError) as raised:
        await action.run(call(action.name, message), unseen)
    return f"{raised.value.fault}: {raised.value}"


def values(answer: ActionAnswer) -> list[object]:
    """Return what the slots were set to."""
    return [event.get("value") for event in answer.events]


# Loading


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ("no_such_module:X", r"no module 'no_such_module'; put it beside"),
        ("tests.actions.nowhere.deep:X", r"no module 'tests.actions.nowhere.deep'"),
        (f"{ODD}:Raise", r"has no 'Raise'; did you mean 'Raises'\?"),
        (f"{ODD}:NOT_A_CLASS", r"'NOT_A_CLASS' of .* is int, not an Action"),
        (f"{ODD}:NoAction", r"is a class, not an Action"),
        (f"{ODD}:Action", r"is a class, not an Action"),
        (f"{ODD}:FormValidationAction", r"is a class, not an Action"),
        (f"{ODD}:NoRun", r"'NoRun' has no run of its own"),
        (f"{ODD}:Abstract", r"'Abstract' is abstract; write its answer"),
        (f"{ODD}:NeedsArguments", r"its __init__ needs url, key; give them defaults"),
        (
            f"{ODD}:CannotBeMade",
            r"raised OSError at .*unloadable_actions.py:\d+: no such",
        ),
        (f"{ODD}:ExitsWhenMade", r"raised SystemExit at .*unloadable_actions.py"),
        (f"{ODD}:InterruptedWhenMade", r"__init__ .* raised CancelledError at "),
        (f"{ODD}:MuteWhenMade", r"raised Mute at .*: its words raised SystemExit"),
        (f"{ODD}:Wordy", r"raised ValueError at .*: one two x+$"),
        (f"{ODD}:ExitsWhenNamed", r"the name of 'ExitsWhenNamed' raised SystemExit"),
        (f"{ODD}:OddBeyondWords", r"the name of 'OddBeyondWords' raised SystemExit"),
        (f"{ODD}:ExitsWhenCopied", r"'ExitsWhenCopied' cannot be copied \(SystemExit"),
        (f"{ODD}:NO_TYPE", r"'NO_TYPE' of .* is NoType, not an Action"),
        (f"{ODD}:Nameless", r"the name of 'Nameless' raised NotImplementedError"),
        (f"{ODD}:OddName", r"the name of 'OddName' is 5, not a short text"),
        (f"{ODD}:TakesTooLittle", r"does not take dispatcher, tracker and domain"),
        (f"{ODD}:CannotBeCopied", r"'CannotBeCopied' cannot be copied"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_sentence(
    place: Place, use: str, told: str
) -> None:
    module, _, name = use.partition(":")

    with pytest.raises(ConfigError, match=told) as raised:
        place(name, module=module)

    assert len(raised.value.problems) == 1
    assert "\n" not in raised.value.problems[0]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import not_installed", "imports 'not_installed', which is not installed"),
        ("raise SystemExit(1)", "raised SystemExit at .*mine.py:1"),
        ("1 / 0", "raised ZeroDivisionError at .*mine.py:1: division by zero"),
        ("import asyncio; raise asyncio.CancelledError", "raised CancelledError"),
        ("x = 1\ndef (", r"mine.py, line 2, is no Python: invalid syntax; correct it"),
        ("if x:\nx", r"mine.py, line 2, is no Python: expected an indented block"),
        (
            "def __getattr__(name): raise SystemExit",
            "'X' of 'mine' raised SystemExit at .*mine.py:1",
        ),
        ("import broken", r"broken.py, line 3, is no Python: .* was never closed"),
        (
            "raise SyntaxError('mine')",
            "importing 'mine' raised SyntaxError at .*: mine",
        ),
        (
            "class Mute(Exception):\n    def __str__(self): exit()\nraise Mute",
            "raised Mute at .*mine.py:3: its words raised SystemExit",
        ),
    ],
)
def test_what_a_module_does_on_import_is_the_operators_to_mend(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    told: str,
) -> None:
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "broken.py").write_text("\n\nx = (")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    with pytest.raises(ConfigError, match=told) as raised:
        place("X", module="mine")

    assert "\n" not in raised.value.problems[0]


def test_an_operator_who_interrupts_the_start_is_obeyed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(KeyboardInterrupt):
        place("X", module="interrupted")


async def test_a_place_in_process_has_the_one_action_of_its_class(place: Place) -> None:
    action = place("Remembers")

    assert action.name == "action_remembers"
    assert await action.names() == ("action_remembers",)
    assert action.where == "in process"


# Where it runs


async def test_what_waits_with_await_shares_one_loop_which_is_not_ours(
    place: Place, call: Call
) -> None:
    one, other = place("TellsThread"), place("TellsThreadToo")

    answers = [
        await action.run(call(action.name), unseen) for action in (one, other, one)
    ]

    ran_at = [values(answer)[0] for answer in answers]
    assert ran_at[0] == ran_at[1] == ran_at[2]
    assert ran_at[0] != ["actions loop", id(asyncio.get_running_loop())]
    assert isinstance(ran_at[0], list)
    assert ran_at[0][0] == "actions loop"


async def test_a_plain_run_has_a_thread_that_it_may_block(
    place: Place, call: Call
) -> None:
    action = place("TellsOwnThread")

    answer = await action.run(call(action.name), unseen)

    assert values(answer) == ["action"]


@pytest.mark.parametrize(
    ("name", "ran_on"),
    [("ValidateThreadForm", "action"), ("ValidateLoopForm", "actions loop")],
)
async def test_a_validation_runs_where_its_methods_belong(
    place: Place, call: Call, name: str, ran_on: str
) -> None:
    action = place(name)
    form = action.name.removeprefix("validate_")
    config = a_form(form)
    state = DialogueState(
        slots={"at": "x"}, events=[{"event": "slot", "name": "at", "value": "x"}]
    )

    answer = await action.run(call(action.name, config=config, state=state), unseen)

    assert values(answer) == [ran_on]


def a_form(name: str) -> ActionsConfig:
    return ActionsConfig.model_validate(
        {"slots": {"at": {}}, "forms": {name: {"slots": ["at"]}}}
    )


# Time limits


async def test_an_action_that_waits_too_long_is_late_and_is_cancelled(
    place: Place, call: Call
) -> None:
    action = place("Waits", timeout_s=0.05)
    demo.Waits.ended.clear()

    with pytest.raises(ActionError, match=r"took longer than 0.05 s") as raised:
        await action.run(call(action.name), unseen)

    assert raised.value.fault == "late"
    assert await asyncio.to_thread(demo.Waits.ended.wait, 10)


async def test_an_action_that_blocks_its_thread_is_late_and_left_to_itself(
    place: Place, call: Call
) -> None:
    action, other = place("Blocks", timeout_s=0.05), place("TellsOwnThread")
    demo.Blocks.let_go.clear()

    with pytest.raises(ActionError, match="took longer") as raised:
        await action.run(call(action.name), unseen)
    answer = await other.run(call(other.name), unseen)
    demo.Blocks.let_go.set()

    assert raised.value.fault == "late"
    assert values(answer) == ["action"]


async def test_who_is_cancelled_cancels_the_action(place: Place, call: Call) -> None:
    action = place("Waits")
    demo.Waits.begun.clear()
    demo.Waits.ended.clear()
    running = asyncio.ensure_future(action.run(call(action.name), unseen))
    await asyncio.to_thread(demo.Waits.begun.wait, 10)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert await asyncio.to_thread(demo.Waits.ended.wait, 10)


async def test_a_loop_that_an_action_blocks_is_passed_over_until_it_answers(
    place: Place, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    blocking, other = place("BlocksTheLoop"), place("TellsThread")
    demo.BlocksTheLoop.begun.clear()
    demo.BlocksTheLoop.let_go.clear()
    first = values(await other.run(call(other.name), unseen))
    blocked = asyncio.ensure_future(blocking.run(call(blocking.name), unseen))
    await asyncio.to_thread(demo.BlocksTheLoop.begun.wait, 10)

    meanwhile = values(await other.run(call(other.name), unseen))
    demo.BlocksTheLoop.let_go.set()
    await blocked
    async with asyncio.timeout(10):  # it answers a moment after it is free
        while (
            afterwards := values(await other.run(call(other.name), unseen))
        ) != first:
            pass

    assert meanwhile != first
    assert afterwards == first
    assert "blocks the event loop of all actions" in caplog.text


async def test_more_actions_than_there_are_threads_are_refused(
    place: Place, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads_module, "MOST_THREADS", 1)
    action = place("Blocks")
    demo.Blocks.begun.clear()
    demo.Blocks.let_go.clear()
    running = asyncio.ensure_future(action.run(call(action.name), unseen))
    await asyncio.to_thread(demo.Blocks.begun.wait, 10)

    with pytest.raises(ActionError, match="1 actions run already, or hang") as raised:
        await action.run(call(action.name), unseen)
    demo.Blocks.let_go.set()
    await running

    assert raised.value.fault == "late"


async def test_when_every_loop_is_blocked_an_action_is_refused(
    threads: ActionThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads_module, "MOST_LOOPS", 0)

    with pytest.raises(Crowded, match="mend what waits in them without await"):
        await threads.on_loop(_nothing, 1)


async def _nothing() -> bytes:
    return b""


# What it raises


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Raises", r"crashed: action 'action_raises': raised KeyError at .*demo_act"),
        ("Exits", r"crashed: .* raised SystemExit at .*demo_actions.py:\d+: 3"),
        ("ExitsWaiting", r"crashed: .* raised KeyboardInterrupt at .*demo_actions.py"),
        ("GivesUp", r"crashed: .* raised CancelledError at .*demo_actions.py"),
        ("Unspeakable", r"crashed: .* raised Mute at .*: its words raised ValueError"),
        ("ExitsInWords", r"crashed: .* raised Exiting at .*: its words raised SystemE"),
        ("Rejects", r"rejected: action 'action_rejects': rejected the call: not mine"),
    ],
)
async def test_what_an_action_raises_is_how_it_failed(
    place: Place, call: Call, name: str, told: str
) -> None:
    said = await failed(place, call, name)

    assert re.match(told, said)


async def test_a_log_is_told_where_an_action_raised_but_not_what_it_said(
    place: Place, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    said = await failed(place, call, "Raises")

    assert "my card" in said  # the operator's record
    assert "'action_raises' raised KeyError at" in caplog.text
    assert "my card" not in caplog.text


async def test_an_exit_in_a_task_of_an_action_leaves_the_loop_running(
    place: Place, call: Call
) -> None:
    action = place("ExitsElsewhere")

    answers = [await action.run(call(action.name), unseen) for _ in range(3)]

    assert answers == 3 * [ActionAnswer(events=[], responses=[])]


# What it answers


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("nan", r"events\[0\].value is nan"),
        ("infinity", r"events\[0\].value\[1\] is -inf"),
        ("time", r"events\[0\].value is of the type datetime"),
        ("set", r"events\[0\].value is of the type set"),
        ("bytes", r"events\[0\].value is of the type bytes"),
        ("half", r"events\[0\].value has half a character"),
        ("tuple_key", r"events\[0\].value has a key that is no text"),
        ("object", r"events\[0\].value is of the type object"),
        ("endless", r"events\[0\].value\[0\].* goes on without an end"),
    ],
)
async def test_what_is_no_json_is_named(
    place: Place, call: Call, value: str, told: str
) -> None:
    said = await failed(place, call, "Odd", value)

    assert said.startswith("nonsense: action 'action_odd': its answer is none: ")
    assert re.search(told, said)


async def test_numbers_that_are_said_and_prices_from_databases_are_read(
    place: Place, call: Call
) -> None:
    action = place("SaysNumbers")

    answer = await action.run(call(action.name), unseen)

    assert answer.responses[0]["text"] == "5"
    assert values(answer) == [19.9, {"1": 2}]


@pytest.mark.parametrize(("message", "kept"), [("none", []), ("odd", [1])])
async def test_what_is_no_event_is_left_out_as_rasa_sdk_does(
    place: Place, call: Call, message: str, kept: list[object]
) -> None:
    action = place("NoEvents")

    answer = await action.run(call(action.name, message), unseen)

    assert values(answer) == kept


async def test_what_is_no_list_of_events_is_a_crash(place: Place, call: Call) -> None:
    said = await failed(place, call, "NoEvents", "number")

    assert said.startswith("crashed: action 'action_noevents': raised TypeError")


async def test_an_answer_without_an_end_is_none(place: Place, call: Call) -> None:
    said = await failed(place, call, "SaysMuch")

    assert "its answer is none: it is longer than 2097152 bytes" in said


@pytest.mark.parametrize(("what", "most"), [("events", 1000), ("responses", 10_000)])
async def test_an_answer_of_many_parts_is_none(
    place: Place, call: Call, what: str, most: int
) -> None:
    action = place("DoesMuch")

    whole = await action.run(call(action.name, f"{what} {most}"), unseen)
    said = await failed(place, call, "DoesMuch", f"{what} {most + 1}")

    assert len(whole.events) + len(whole.responses) == most
    assert said.startswith("nonsense: action 'action_doesmuch': its answer is none: ")
    assert said.endswith(f"its {what} are {most + 1}, of which it may have {most}")


# Streams


async def test_a_stream_is_heard_as_it_grows_and_becomes_one_response_in_its_place(
    place: Place, call: Call
) -> None:
    action = place("Streams")
    heard: list[str] = []

    answer = await action.run(call(action.name), heard.append)

    assert heard == ["one ", "one two", "3"]
    assert [response["text"] for response in answer.responses] == [
        "before",
        "one two",
        None,
        "after",
        "3",
    ]
    whole = answer.responses[1]
    assert whole["buttons"] == [{"title": "A"}, {"title": "B"}]
    assert whole["custom"] == {"x": 1}
    assert [response["image"] for response in answer.responses[1:3]] == [
        "a.png",
        "b.png",
    ]


async def test_of_a_stream_without_an_end_only_so_much_is_shown_as_it_grows(
    place: Place, call: Call
) -> None:
    action = place("StreamsMuch")
    heard: list[str] = []

    answer = await action.run(call(action.name), heard.append)

    assert max(map(len, heard)) == 50_000
    assert answer.responses[0]["text"] == "x" * 100_000


async def test_nobody_hears_what_an_action_streams_that_nobody_waits_for(
    place: Place, call: Call
) -> None:
    action = place("StreamsOn")
    demo.StreamsOn.let_go.clear()
    demo.StreamsOn.over.clear()
    heard: list[str] = []
    first = threading.Event()

    def hear(text: str) -> None:
        heard.append(text)
        first.set()

    running = asyncio.ensure_future(action.run(call(action.name), hear))
    await asyncio.to_thread(first.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    demo.StreamsOn.let_go.set()
    await asyncio.to_thread(demo.StreamsOn.over.wait, 10)

    assert heard == ["heard"]
