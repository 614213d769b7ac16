"""The same actions in this process and on rasa-sdk's own server come to the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bot.actions.calls import ActionAnswer, unseen
from bot.actions.remote import Remote
from bot.actions.threads import ActionThreads
from bot.errors import ActionError
from bot.evaluation import demo_actions
from bot.evaluation.bench_actions import (
    DEMO,
    at_server,
    hard_call,
    in_process,
    outcome,
)
from bot.evaluation.bench_actions_theirs import NotServed, served
from tests.actions.conftest import HARD, Call, Place

pytestmark = [
    pytest.mark.processes,
    pytest.mark.asyncio(loop_scope="module"),
]

# Every kind of answer that is none, a crash, and what their server makes of it.
WRONG = {
    "Raises": ("crashed", "crashed"),
    "Rejects": ("rejected", "rejected"),
    "NoEvents": ("crashed", "crashed"),
    "SaysMuch": ("nonsense", "nonsense"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def remote() -> AsyncIterator[Remote]:
    async with served(DEMO) as url, at_server(url) as place:
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hard_remote() -> AsyncIterator[Remote]:
    async with served(HARD) as url, at_server(url) as place:
        yield place


@pytest.mark.parametrize("action", demo_actions.ACTIONS)
async def test_an_action_comes_to_the_same_both_ways(
    threads: ActionThreads, remote: Remote, action: type[Any]
) -> None:
    place = in_process(action, threads)
    call = hard_call(place.name)

    here = await outcome(place, call)
    there = await outcome(remote, call)

    assert here == there
    assert repr(here) == repr(there)  # 5 is 5.0, but not the same


async def test_the_server_has_the_actions_that_are_here(remote: Remote) -> None:
    here = [action().name() for action in demo_actions.ACTIONS]

    assert sorted(await remote.names()) == sorted(here)


async def test_integers_stay_integers_and_floats_floats(
    threads: ActionThreads, remote: Remote
) -> None:
    call = hard_call("action_set_everything")
    here = in_process(demo_actions.SetEverything, threads)

    answers = [await here.run(call, unseen), await remote.run(call, unseen)]

    for answer in answers:
        values = {event["name"]: event["value"] for event in answer.events}
        assert repr(values["five"]) == "5"
        assert repr(values["whole_float"]) == "5.0"
        assert repr(values["sixty_four_bits"]) == "9223372036854775808"
        assert repr(values["big"]) == "12345678901234567890123"
        assert values["as_it_came"] == [5, 5.0, -(2**64), "急件 🎁", None]
        assert repr(values["as_it_came"]) == repr([5, 5.0, -(2**64), "急件 🎁", None])


@pytest.mark.parametrize("name", list(WRONG))
async def test_an_action_that_goes_wrong_goes_wrong_in_the_same_way(
    place: Place, hard_remote: Remote, call: Call, name: str
) -> None:
    here = place(name)
    one = call(here.name, "number")

    faults = []
    for at in (here, hard_remote):
        with pytest.raises(ActionError) as raised:
            await at.run(one, unseen)
        faults.append(raised.value.fault)

    assert tuple(faults) == WRONG[name]


@pytest.mark.parametrize(
    "value",
    ["nan", "infinity", "time", "set", "bytes", "half", "object"],
)
async def test_what_is_no_json_is_refused_both_ways(
    place: Place, hard_remote: Remote, call: Call, value: str
) -> None:
    one = call("action_odd", value)

    for at in (place("Odd"), hard_remote):
        with pytest.raises(ActionError) as raised:
            await at.run(one, unseen)
        # Their server fails with what its JSON library refuses, and lets NaN through.
        assert raised.value.fault in {"nonsense", "crashed"}


async def test_numbers_that_are_said_are_texts_both_ways(
    place: Place, hard_remote: Remote, call: Call
) -> None:
    here = place("SaysNumbers")
    one = call(here.name)

    answers: list[ActionAnswer] = [
        await at.run(one, unseen) for at in (here, hard_remote)
    ]

    assert answers[0] == answers[1]
    assert answers[0].responses[0]["text"] == "5"


async def test_a_module_that_is_not_there_is_not_served() -> None:
    with pytest.raises(NotServed, match="'no_such_module' ended with 1"):
        async with served("no_such_module"):
            pass
