"""What explain tells of a turn's actions, in words and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rasa_sdk.events import FollowupAction, Restarted, SlotSet

from bot import explain
from bot.model import ActionRun, Outcome, Record, Reply
from bot.testing.makers import a_turn

RAN = ActionRun(
    name="action_status",
    trigger="rule 0: the message matches 'where is'",
    where="http://127.0.0.1:5055",
    ms=12.345,
    events=[SlotSet("order", "LK-771204"), FollowupAction("action_bye"), Restarted()],
    said=["It left.", "It arrives on Monday."],
)
FAILED = ActionRun(
    name="action_bye",
    trigger="action_status is followed by it",
    where="in process",
    ms=1.0,
    problem="action 'action_bye': raised KeyError at shop.py:7: 'price'",
)


def a_record(*runs: ActionRun, outcome: Outcome = "acted") -> Record:
    return Record(
        turn=a_turn(),
        outcome=outcome,
        reply=Reply(text="It left."),
        why="rule 0",
        config="c",
        actions=runs,
        slots={"order": "LK-771204", "gone": None},
    )


def rows(record: Record) -> list[list[str]]:
    """Return the rows of the table of actions."""
    table = explain.text(record).partition("## Actions\n\n")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_each_action_is_a_row_with_why_where_how_long_and_what_came_of_it() -> None:
    (ran, failed) = rows(a_record(RAN, FAILED, outcome="failed"))

    assert ran == [
        "action_status",
        "rule 0: the message matches 'where is'",
        "http://127.0.0.1:5055",
        "12.3",
        "slot order = LK-771204; followup action_bye; restart",
        "It left. / It arrives on Monday.",
    ]
    assert (failed[0], failed[-1]) == ("action_bye", FAILED.problem)


def test_the_actions_come_before_what_was_retrieved() -> None:
    told = explain.text(a_record(RAN))

    assert told.index("**Why**") < told.index("## Actions")
    assert "## Retrieved" not in told


def test_without_actions_nothing_is_told_of_them() -> None:
    assert "## Actions" not in explain.text(a_record())
    assert explain.contract(a_record())["actions"] == []


@pytest.mark.parametrize(
    "value", ["x" * 100_000, "a | b\n| c", "订单 📦", None, {"a": [1]}]
)
def test_any_value_of_a_slot_stays_in_its_cell(value: Any) -> None:
    run = ActionRun(
        name="a", trigger="t", events=[{"event": "slot", "name": "s", "value": value}]
    )

    told = explain.text(a_record(run))

    (line,) = [line for line in told.splitlines() if line.startswith("| a |")]
    assert line.replace("\\|", "").count("|") == 7
    assert len(line) < 400


@pytest.mark.parametrize("event", [{}, {"event": None}, {"event": 7, "name": ["a"]}])
def test_an_event_that_is_none_does_not_keep_a_turn_from_being_explained(
    event: dict[str, Any],
) -> None:
    run = ActionRun(name="a", trigger="t", events=[event])

    assert "| a |" in explain.text(a_record(run))


def test_a_long_answer_is_cut_in_words_and_whole_in_json() -> None:
    run = ActionRun(name="a", trigger="t", said=["word " * 1000])

    told = explain.text(a_record(run))
    whole = explain.everything(a_record(run))

    assert len(told) < 1000
    assert whole["actions"][0]["said"] == ["word " * 1000]


def test_json_has_every_action_with_everything_in_it() -> None:
    whole = json.loads(json.dumps(explain.everything(a_record(RAN, FAILED))))

    assert whole["slots"] == {"order": "LK-771204", "gone": None}
    assert [run["name"] for run in whole["actions"]] == ["action_status", "action_bye"]
    assert whole["actions"][0]["where"] == "http://127.0.0.1:5055"
    assert whole["actions"][0]["ms"] == 12.345
    assert [one["event"] for one in whole["actions"][0]["events"]] == [
        "slot",
        "followup",
        "restart",
    ]
    assert whole["actions"][1]["problem"] == FAILED.problem


def test_the_contract_promises_name_trigger_events_and_problem() -> None:
    (ran, failed) = explain.contract(a_record(RAN, FAILED))["actions"]

    assert set(ran) == {"name", "trigger", "events", "problem"}
    assert ran["events"][0]["value"] == "LK-771204"
    assert (ran["problem"], failed["problem"]) == ("", FAILED.problem)
