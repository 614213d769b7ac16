"""The fakes: they do what they are told, and keep what they were asked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bot.testing
from bot.errors import DeliveryError, TurnCancelled, TurnError
from bot.interfaces import Accepted, ChatMessage, GenerationRequest, ToolSchema
from bot.model import Event, Reply
from bot.testing import (
    NOON,
    FixedClock,
    HashEmbedder,
    MemoryConnector,
    ScriptedLanguageModel,
    a_tools,
    a_turn,
    an_address,
    fakes,
)
from plugins.samplers.multinomial import Multinomial


def a_request(question: str = "Why?", candidates: int = 2) -> GenerationRequest:
    return GenerationRequest(
        turn=a_turn(question, prompt=f"user: {question} five days"),
        candidates=candidates,
        max_new_tokens=5,
        sampler=Multinomial(Multinomial.Settings()),
    )


# the language model


def test_each_call_takes_the_next_entry_of_the_script() -> None:
    model = ScriptedLanguageModel(["yes", ["one", "two"]])

    first = model.generate(a_request())
    second = model.generate(a_request(candidates=3))

    assert [candidate.text for candidate in first] == ["yes", "yes"]
    assert [candidate.text for candidate in second] == ["one", "two", "one"]


def test_a_script_may_depend_on_the_turn() -> None:
    model = ScriptedLanguageModel(lambda turn: turn.question.upper())

    [candidate] = model.generate(a_request("why?", candidates=1))

    assert candidate.text == "WHY?"


def test_a_script_that_is_over_says_so() -> None:
    model = ScriptedLanguageModel(["yes"])
    model.generate(a_request())

    with pytest.raises(AssertionError, match=r"has 1 replies.*for 'Why\?'"):
        model.generate(a_request())


def test_an_exception_in_the_script_is_raised() -> None:
    model = ScriptedLanguageModel([TurnError("out of memory"), "yes"])

    with pytest.raises(TurnError, match="out of memory"):
        model.generate(a_request())
    assert model.generate(a_request())[0].text == "yes"


@given(st.text(alphabet="ab \n", max_size=12))
def test_a_word_has_all_the_space_before_it(text: str) -> None:
    words = fakes._WITH_SPACE.findall(text)

    assert "".join(words) == text.rstrip()
    assert [word.strip() for word in words] == text.split()


def test_replies_are_cut_like_a_models() -> None:
    model = ScriptedLanguageModel([["one two three four five six", "one END two"]])

    long, stopped = model.generate(replace(a_request(), stop=(" END",)))

    assert (long.text, long.finish) == ("one two three four five", "length")
    assert (stopped.text, stopped.finish) == ("one", "stop")


def test_words_of_the_prompt_are_likelier() -> None:
    model = ScriptedLanguageModel(["five weeks"])

    [candidate] = model.generate(a_request(candidates=1))
    [read] = model.log_probs(["five days"], ["five weeks"])

    assert candidate.log_probs == (-0.1, -2.0)
    assert read.tolist() == pytest.approx([-0.1, -2.0])
    assert model.scored == [("five days", "five weeks")]


def test_a_gate_holds_the_reply_until_it_is_set() -> None:
    gate = threading.Event()
    model = ScriptedLanguageModel(["yes"], gate=gate)

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(model.generate, a_request())
        assert model.started.wait(timeout=10)
        early = writing.done()
        gate.set()
        written = writing.result(timeout=10)

    assert not early
    assert written[0].text == "yes"


def test_a_held_reply_can_be_cancelled() -> None:
    model = ScriptedLanguageModel(["yes"], gate=threading.Event())
    cancelled = threading.Event()

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(model.generate, replace(a_request(), cancelled=cancelled))
        assert model.started.wait(timeout=10)
        cancelled.set()

        with pytest.raises(TurnCancelled, match="'t1' was cancelled"):
            writing.result(timeout=10)


def test_a_held_reply_ends_at_its_deadline() -> None:
    model = ScriptedLanguageModel(["yes"], gate=threading.Event())
    late = replace(a_request(candidates=1), timeout_s=0.01)

    [candidate] = model.generate(late)

    assert (candidate.text, candidate.finish) == ("", "length")


def test_a_reply_is_written_word_by_word_until_it_is_asked_to_stop() -> None:
    model = ScriptedLanguageModel([["Five days. Or six.", "No"]])
    told: list[tuple[int, str]] = []
    request = replace(
        a_request(),
        until=lambda text: text.endswith("."),
        on_text=lambda sibling, text: told.append((sibling, text)),
    )

    block, whole = model.generate(request)

    assert (block.text, block.finish) == ("Five days.", "block")
    assert (whole.text, whole.finish) == ("No", "stop")
    assert told == [(0, "Five"), (0, "Five days."), (1, "No")]


def test_a_reply_goes_on_from_what_is_begun() -> None:
    model = ScriptedLanguageModel(["Five days. Or six.", ["Five days.\nSo.", "Well."]])
    request = replace(a_request(candidates=1), until=lambda text: text.endswith("."))
    (begun,) = model.generate(request)

    same, other = model.generate(replace(a_request(), begun=begun, max_new_tokens=1))

    assert (same.text, same.finish) == ("Five days.\nSo.", "stop")
    assert (other.text, other.finish) == ("Five days. Well.", "stop")
    assert list(same.tokens[:2]) == list(begun.tokens)
    assert list(same.log_probs[:2]) == list(begun.log_probs)
    assert len(same.tokens) == len(same.log_probs) == 3


def test_messages_are_rendered_readably_and_counted_by_words() -> None:
    model = ScriptedLanguageModel([])

    prompt = model.render([ChatMessage(role="user", content="Why not?")])

    assert prompt == "user: Why not?\n\nassistant:"
    assert model.count_tokens(prompt) == 4


def test_tools_are_rendered_before_the_messages() -> None:
    model = ScriptedLanguageModel([])
    tool = ToolSchema(name="find", description="Finds it.", parameters={"a": 1})

    prompt = model.render([ChatMessage(role="user", content="Why not?")], [tool])

    assert prompt == ('tool: find, Finds it., {"a": 1}\n\nuser: Why not?\n\nassistant:')


# the embedder and the tools


def test_texts_are_close_when_they_share_words() -> None:
    question, near, far = HashEmbedder().embed(
        ["How long does a REFUND take?", "a refund", "opening hours"]
    )

    assert question @ near == pytest.approx(2 / (6 * 2) ** 0.5, abs=1e-6)
    assert question @ far == 0


def test_tools_keep_what_they_were_asked() -> None:
    tools = a_tools(lambda prompt, word: -len(word))

    tools.embed(["a", "b"])
    [read] = tools.log_probs(["p"], ["one four"])

    assert tools.embedded == [("a", "b")]
    assert tools.scored == [(("p", "one four"),)]
    assert read.tolist() == [-3, -4]


def test_the_clock_stands_still_until_it_is_advanced() -> None:
    clock = FixedClock()

    before, again = clock(), clock()
    clock.advance(90)

    assert before == again == NOON
    assert clock() - NOON == timedelta(seconds=90)


# the connector


class Program:
    """What a connector talks to: keeps the events, answers each in capitals."""

    def __init__(self, connector: MemoryConnector) -> None:
        self._connector = connector
        self.events: list[Event] = []

    async def accept(self, event: Event) -> Accepted:
        if event.id in {known.id for known in self.events}:
            return "duplicate"
        self.events.append(event)
        reply = Reply(text=event.text.upper())
        await self._connector.send(event.address, reply, event.id)
        return "accepted"


async def test_a_reply_reaches_the_chat_that_asked() -> None:
    connector = MemoryConnector()
    program = Program(connector)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(connector.run(program.accept))
        await connector.say("one", chat="c1")
        answer = await connector.reply_to("two", chat="c2")
        connector.close()

    assert answer.text == "TWO"
    assert (await connector.next_reply("c1")).text == "ONE"
    assert connector.replies("c2") == ["TWO"]
    assert [event.address.chat for event in program.events] == ["c1", "c2"]


async def test_an_event_can_be_delivered_again() -> None:
    connector = MemoryConnector()
    program = Program(connector)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(connector.run(program.accept))
        event = await connector.say("one")
        again = await connector.deliver(event)
        connector.close()

    assert again == "duplicate"
    assert connector.replies() == ["ONE"]


async def test_what_accept_raises_reaches_the_speaker_and_the_service_goes_on() -> None:
    connector = MemoryConnector()
    answers = iter([TurnError("the store is down"), None])

    async def accept(event: Event) -> Accepted:
        if (error := next(answers)) is not None:
            raise error
        return "accepted"

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(connector.run(accept))
        with pytest.raises(TurnError, match="the store is down"):
            await connector.say("one")
        event = await connector.say("two")
        connector.close()

    assert event.text == "two"


async def test_failures_are_raised_once_each_and_the_reply_can_be_sent_again() -> None:
    connector = MemoryConnector()
    connector.failures.append(DeliveryError("memory: later", retryable=True))

    with pytest.raises(DeliveryError, match="later"):
        await connector.send(an_address(), Reply(text="hi"), "k1")
    sent = await connector.send(an_address(), Reply(text="hi"), "k1")
    again = await connector.send(an_address(), Reply(text="hi"), "k1")

    assert sent == again
    assert connector.replies() == ["hi"]


async def test_status_is_kept() -> None:
    connector = MemoryConnector()

    await connector.status(an_address(), "thinking")
    await connector.status(an_address(), "")

    assert [text for _, text in connector.statuses] == ["thinking", ""]


async def test_a_reply_that_never_comes_fails_the_test_with_a_sentence() -> None:
    connector = MemoryConnector(timeout_s=0.01)

    with pytest.raises(AssertionError, match=r"no reply came in chat 'c9' within 0.01"):
        await connector.next_reply("c9")


# the kit


def test_the_kit_names_everything_public() -> None:
    public = [name for name in vars(bot.testing) if not name.startswith("_")]

    assert set(bot.testing.__all__) <= set(public)
    assert set(public) - set(bot.testing.__all__) <= {"fakes", "makers", "contracts"}


def test_the_kit_loads_neither_torch_nor_pytest() -> None:
    code = (
        "import bot.testing, sys; print({'torch', 'pytest', 'faiss'} & {*sys.modules})"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.strip() == "set()"


async def test_frames_are_kept_and_can_be_waited_for() -> None:
    connector = MemoryConnector(timeout_s=0.05)

    await connector.frame(an_address(), "Five")
    await connector.frame(an_address(), "Five days.")

    assert [await connector.next_frame(), await connector.next_frame()] == [
        "Five",
        "Five days.",
    ]
    assert connector.frames == [(an_address(), "Five"), (an_address(), "Five days.")]
    with pytest.raises(AssertionError, match="no frame came in chat 'c1'"):
        await connector.next_frame()
