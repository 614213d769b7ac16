from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from bot import metrics
from bot.actions.calls import ActionAnswer, ActionCall, unseen
from bot.actions.runner import Ran, Runner
from bot.errors import ActionError, TurnCancelled
from tests.actions import demo_actions as demo
from tests.actions.conftest import Call, Place

Answers = Callable[[ActionCall, Callable[[str], None]], Awaitable[ActionAnswer]]

SAID = ActionAnswer(
    events=[{"event": "slot", "name": "x", "value": 1}],
    responses=[{"text": "one"}, {"text": None, "image": "a.png"}, {"text": "two"}],
)


class Somewhere:
    """A place that does what the test says."""

    where = "somewhere"
    timeout_s = 1.0
    reword = True

    def __init__(
        self, *names: str, answer: Answers | None = None, away: bool = False
    ) -> None:
        self._names = names
        self._answer = answer
        self._away = away
        self.closed = False

    async def names(self) -> Sequence[str]:
        if self._away:
            raise ActionError("GET /actions", "away", "http://x cannot be reached")
        return self._names

    async def run(
        self, call: ActionCall, stream: Callable[[str], None]
    ) -> ActionAnswer:
        return SAID if self._answer is None else await self._answer(call, stream)

    async def close(self) -> None:
        self.closed = True
        if self._away:
            raise OSError


def raising(error: BaseException) -> Answers:
    async def answer(call: ActionCall, stream: Callable[[str], None]) -> ActionAnswer:
        raise error

    return answer


async def ran(runner: Runner, call: ActionCall) -> Ran:
    return await runner.run(
        call, trigger="rule 1", cancelled=threading.Event(), stream=unseen
    )


async def test_an_action_that_ran_is_told_with_what_it_did_and_said(call: Call) -> None:
    found = await ran(Runner([Somewhere("a")]), call("a"))

    assert found.answer is SAID
    assert found.reword
    assert found.fault is None
    assert (found.run.name, found.run.trigger) == ("a", "rule 1")
    assert (found.run.where, found.run.problem) == ("somewhere", "")
    assert found.run.events == SAID.events
    assert found.run.said == ["one", "two"]
    assert found.run.ms > 0


async def test_an_action_that_fails_says_how_and_answers_nothing(call: Call) -> None:
    place = Somewhere("a", answer=raising(ActionError("a", "late", "took too long")))

    found = await ran(Runner([place]), call("a"))

    assert found.fault == "late"
    assert found.run.problem == "action 'a': took too long"
    assert found.answer == ActionAnswer()
    assert (found.run.events, list(found.run.said)) == ((), [])


async def test_a_place_that_breaks_its_promise_fails_its_action_alone(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    place = Somewhere("a", answer=raising(ValueError("a secret")))

    found = await ran(Runner([place]), call("a"))

    assert found.fault == "crashed"
    assert "its place raised ValueError at" in found.run.problem
    assert "secret" not in f"{found.run.problem} {caplog.text}"


async def test_an_action_that_gives_itself_up_has_crashed(call: Call) -> None:
    async def answer(call: ActionCall, stream: Callable[[str], None]) -> ActionAnswer:
        gone: asyncio.Future[ActionAnswer] = asyncio.get_running_loop().create_future()
        gone.cancel()
        return await gone

    found = await ran(Runner([Somewhere("a", answer=answer)]), call("a"))

    assert found.fault == "crashed"
    assert "waited for what was cancelled" in found.run.problem


async def test_who_is_cancelled_while_an_action_runs_is_cancelled(call: Call) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer(call: ActionCall, stream: Callable[[str], None]) -> ActionAnswer:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return SAID

    running = asyncio.ensure_future(
        ran(Runner([Somewhere("a", answer=answer)]), call("a"))
    )
    await begun.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await asyncio.wait_for(ended.wait(), 10)


async def test_a_name_that_nobody_has_is_missing_with_what_is_near(call: Call) -> None:
    runner = Runner([Somewhere("action_look_up_order"), Somewhere("other")])

    found = await ran(runner, call("action_lookup_order"))

    assert found.fault == "missing"
    assert "nobody has it; did you mean 'action_look_up_order'?" in found.run.problem
    assert found.run.where == "nowhere"
    assert not found.reword


async def test_of_thousands_of_names_a_sentence_shows_a_few(call: Call) -> None:
    runner = Runner([Somewhere(*[f"{number:050}" for number in range(5000)])])

    found = await ran(runner, call("x"))

    assert len(found.run.problem) < 400


async def test_a_server_that_does_not_say_keeps_nobody_elses_action_from_running(
    call: Call,
) -> None:
    runner = Runner([Somewhere(away=True), Somewhere("a")])

    assert (await ran(runner, call("a"))).fault is None
    assert await runner.names() == ["a"]


async def test_what_only_a_server_that_does_not_say_may_have_is_away(
    call: Call,
) -> None:
    runner = Runner([Somewhere("a"), Somewhere(away=True)])

    found = await ran(runner, call("b"))
    with pytest.raises(ActionError, match="http://x cannot be reached"):
        await runner.place_of("b")

    assert found.fault == "away"


async def test_the_first_place_with_a_name_has_it() -> None:
    first, second = Somewhere("a", "b"), Somewhere("b", "c")
    runner = Runner([first, second])

    places = [await runner.place_of(name) for name in "abcd"]

    assert places == [first, first, second, None]
    assert await runner.names() == ["a", "b", "c"]


async def test_a_stop_ends_the_wait_and_the_action(call: Call, place: Place) -> None:
    action, stop = place("Waits"), threading.Event()
    demo.Waits.begun.clear()
    demo.Waits.ended.clear()
    running = asyncio.ensure_future(
        Runner([action]).run(
            call(action.name), trigger="", cancelled=stop, stream=unseen
        )
    )
    await asyncio.to_thread(demo.Waits.begun.wait, 10)

    stop.set()
    with pytest.raises(TurnCancelled, match="'action_waits': turn 't1' was stopped"):
        await running

    assert await asyncio.to_thread(demo.Waits.ended.wait, 10)


async def test_what_was_stopped_before_is_not_begun(call: Call) -> None:
    begun = []

    async def answer(call: ActionCall, stream: Callable[[str], None]) -> ActionAnswer:
        begun.append(call)
        return SAID

    stop = threading.Event()
    stop.set()

    with pytest.raises(TurnCancelled):
        await Runner([Somewhere("a", answer=answer)]).run(
            call("a"), trigger="", cancelled=stop, stream=unseen
        )

    assert not begun


async def test_a_stop_that_an_action_does_not_obey_is_obeyed_all_the_same(
    call: Call,
) -> None:
    stubborn, let_go, stop = asyncio.Event(), asyncio.Event(), threading.Event()

    async def answer(call: ActionCall, stream: Callable[[str], None]) -> ActionAnswer:
        stop.set()
        try:
            await let_go.wait()
        except asyncio.CancelledError:
            stubborn.set()
            await let_go.wait()
            raise ActionError("a", "crashed", "too late") from None
        return SAID

    with pytest.raises(TurnCancelled):
        await Runner([Somewhere("a", answer=answer)]).run(
            call("a"), trigger="", cancelled=stop, stream=unseen
        )
    await stubborn.wait()
    let_go.set()


async def test_runs_are_counted_by_action_and_outcome(call: Call) -> None:
    def counted(action: str, outcome: str) -> float:
        return metrics.reading("chorus_actions_total", action=action, outcome=outcome)

    late = raising(ActionError("counted", "late", "took too long"))
    before = counted("counted", "done"), counted("counted", "late")
    unknown = counted("unknown", "missing")

    await ran(Runner([Somewhere("counted")]), call("counted"))
    await ran(Runner([Somewhere("counted", answer=late)]), call("counted"))
    await ran(Runner([]), call("made_up_by_a_stranger"))

    after = counted("counted", "done"), counted("counted", "late")
    assert after == (before[0] + 1, before[1] + 1)
    assert counted("unknown", "missing") == unknown + 1
    assert counted("made_up_by_a_stranger", "missing") == 0
    assert metrics.reading("chorus_action_seconds_count", action="counted") >= 2


def test_of_names_without_an_end_only_so_many_are_counted_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "_MOST_ACTIONS", len(metrics._ACTIONS_COUNTED) + 1)
    unknown = metrics.reading("chorus_actions_total", action="unknown", outcome="late")

    metrics.action_over("the_last_one", "late", 0.1)
    metrics.action_over("one_too_many", "late", 0.1)
    metrics.action_over("the_last_one", "late", 0.1)

    def late(action: str) -> float:
        return metrics.reading("chorus_actions_total", action=action, outcome="late")

    assert late("the_last_one") == 2
    assert late("one_too_many") == 0
    assert late("unknown") == unknown + 1


async def test_every_place_is_closed_whatever_the_others_do() -> None:
    places = [Somewhere(), Somewhere(away=True), Somewhere()]

    await Runner(places).close()

    assert all(place.closed for place in places)
