"""
The nine traps of rasa-sdk, one test each. What its gRPC does to numbers (6), and that
its server asks nobody who they are (8), is tested in tests/actions_server.
"""

from __future__ import annotations

import asyncio
import socket

import pytest
from rasa_sdk import Action
from rasa_sdk.executor import ActionExecutor
from rasa_sdk.utils import all_subclasses

from bot.actions import tracker
from bot.actions.calls import ActionAnswer, unseen
from bot.actions.replies import reply_of
from bot.actions.responses import Responses
from bot.actions.state import DialogueState
from bot.actions_config import ActionsConfig
from bot.errors import ConfigError
from bot.evaluation.bench_actions import DEMO
from bot.testing.makers import an_event
from tests.actions import demo_actions as demo
from tests.actions.conftest import Call, Place


def slots(answer: ActionAnswer) -> dict[str, object]:
    return {f"{event['name']}": event.get("value") for event in answer.events}


async def test_trap_1_an_action_cannot_change_what_is_ours(
    place: Place, call: Call
) -> None:
    action = place("Scribbles")
    config = ActionsConfig.model_validate({"slots": {"order": {}}})
    events = tracker.events_of([an_event("hi")])
    state = DialogueState(slots={"order": "12"}, events=events)
    before = repr((state, config))
    one = call(action.name, "hi", config=config, state=state)

    first = await action.run(one, unseen)
    again = await action.run(one, unseen)

    assert slots(first) == {"order": "changed"}
    assert first == again
    assert repr((state, config)) == before


def test_trap_2_a_module_that_is_missing_does_not_end_the_process(
    place: Place,
) -> None:
    with pytest.raises(ConfigError, match="no module 'no_such_module'"):
        place("X", module="no_such_module")

    with pytest.raises(SystemExit):  # theirs does
        ActionExecutor().register_package("no_such_module")


async def test_trap_3_only_the_class_that_is_named_can_run(place: Place) -> None:
    imported = {each.__name__ for each in all_subclasses(Action)}

    names = await place("Remembers").names()

    assert {"Remembers", "Raises", "Rejects"} <= imported
    assert names == ("action_remembers",)


async def test_trap_4_what_a_run_keeps_on_self_ends_with_it(
    place: Place, call: Call
) -> None:
    action = place("Remembers")

    answers = [await action.run(call(action.name), unseen) for _ in range(3)]

    assert [slots(answer)["runs"] for answer in answers] == [1, 1, 1]
    assert [slots(answer)["made"] for answer in answers] == [1, 2, 3]  # by __init__


async def test_trap_5_actions_that_block_do_not_wait_for_each_other(
    place: Place, call: Call
) -> None:
    meeting = demo.Meets.meeting
    action = place("Meets")
    meeting.reset()
    ticks = 0

    running = asyncio.gather(
        *[action.run(call(action.name), unseen) for _ in range(meeting.parties)]
    )
    async with asyncio.timeout(10):
        while not running.done():  # our loop goes on
            await asyncio.sleep(0)
            ticks += 1
    answers = await running

    assert len(answers) == meeting.parties
    assert ticks > 0


async def test_trap_6_integers_stay_integers(place: Place, call: Call) -> None:
    action = place("SetEverything", module=DEMO)

    answer = await action.run(call(action.name), unseen)

    assert repr(slots(answer)["five"]) == "5"
    assert repr(slots(answer)["whole_float"]) == "5.0"


async def test_trap_7_two_assistants_never_read_each_others_domain(
    place: Place, call: Call
) -> None:
    action = place("TellsDomain")
    configs = [
        ActionsConfig.model_validate({"slots": {name: {}}}) for name in ("one", "two")
    ]

    answers = await asyncio.gather(
        *[action.run(call(action.name, config=config), unseen) for config in configs]
    )
    without = call(action.name)

    assert [slots(answer)["known"] for answer in answers] == [["one"], ["two"]]
    assert slots(await action.run(without, unseen))["known"] == []


async def test_trap_8_actions_in_this_process_open_no_port_to_anybody(
    place: Place, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(socket.socket, "listen", lambda *of: opened.append(of))

    for name in ("LookUpOrder", "TellTime", "Recite"):
        action = place(name, module=DEMO)
        await action.run(call(action.name), unseen)

    assert not opened


async def test_trap_9_a_responses_name_is_rendered_by_us_or_refused_clearly(
    place: Place, call: Call
) -> None:
    action = place("SayEverything", module=DEMO)
    config = ActionsConfig.model_validate(
        {"responses": {"utter_greet": [{"text": "Hello {name}, {orders} orders."}]}}
    )

    answer = await action.run(call(action.name), unseen)
    said, unknown = (
        reply_of(
            [answer.responses[1]],
            templates=Responses(responses),
            slots={},
            platform="memory",
            seed=1,
        )
        for responses in (config.responses, {})
    )

    assert answer.responses[1]["response"] == "utter_greet"
    assert said.reply is not None
    assert said.reply.text == "Hello Ann, 2 orders."
    assert unknown.reply is None
    assert "utter_greet" in unknown.problems[0]
