"""The loader: finds, checks, orders; refuses in its own words, all at once."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

from bot import plugin_manager
from bot.config import Use
from bot.errors import ConfigError
from bot.plugin_manager import Plugins
from bot.testing.makers import a_turn


class Written(Protocol):
    def __call__(self, body: str, settings: str = ...) -> str: ...


SETTINGS = """
    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
"""

numbers = itertools.count()


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Write a plugin class `One` with the given body; return its `module:Class`."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(body: str, settings: str = SETTINGS) -> str:
        module = f"written_plugin_{next(numbers)}"
        source = f"""
import asyncio
from pydantic import BaseModel, ConfigDict, Field
from bot import hookimpl

class Thing:
    name = "thing"
    def rerank(self, turn, candidates, tools):
        return candidates

class One:
{settings}
    def __init__(self, settings):
        self.settings = settings

{textwrap.indent(textwrap.dedent(body), "    ")}
"""
        (tmp_path / f"{module}.py").write_text(source)
        return f"{module}:One"

    return write


def load(*uses: str | Use) -> Plugins:
    return plugin_manager.load(
        {
            f"bot.yaml: plugins[{number}]": Use(use=use)
            if isinstance(use, str)
            else use
            for number, use in enumerate(uses)
        }
    )


def refused(*uses: str | Use) -> Sequence[str]:
    with pytest.raises(ConfigError) as caught:
        load(*uses)
    return caught.value.problems


A_RERANKER = """
@hookimpl
def rerankers(self):
    return [Thing()]
"""


def test_a_class_in_one_file_contributes_what_it_returns(written: Written) -> None:
    plugins = load(written(A_RERANKER))

    assert [reranker.name for reranker in plugins.rerankers] == ["thing"]


def test_contributions_come_in_the_order_of_the_list(written: Written) -> None:
    def named(name: str) -> str:
        return written(
            f"""
            @hookimpl
            def rerankers(self):
                thing = Thing()
                thing.name = {name!r}
                return [thing]
            """
        )

    plugins = load(named("a"), named("b"), named("c"))

    assert [reranker.name for reranker in plugins.rerankers] == ["a", "b", "c"]


async def test_past_events_are_told_in_the_order_of_the_list(written: Written) -> None:
    told = """
    @hookimpl
    async def turn_started(self, turn):
        turn.slots["told"].append({name!r})
    """
    plugins = load(*(written(told.format(name=name)) for name in "abc"))
    turn = a_turn(slots={"told": []})

    await plugins.turn_started(turn)

    assert turn.slots["told"] == ["a", "b", "c"]


async def test_an_observer_that_fails_does_not_reach_the_next(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    failing = written(
        """
        @hookimpl
        async def turn_started(self, turn):
            raise RuntimeError("boom")
        """
    )
    telling = written(
        """
        @hookimpl
        async def turn_started(self, turn):
            turn.slots["told"].append("b")
        """
    )
    plugins = load(failing, telling)
    turn = a_turn(slots={"told": []})

    await plugins.turn_started(turn)

    assert turn.slots["told"] == ["b"]
    assert "turn_started failed with RuntimeError at " in caplog.text
    assert "boom" not in caplog.text  # it may quote a message


async def test_an_observer_that_hangs_is_left_behind(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_manager, "OBSERVER_TIMEOUT_S", 0.05)
    hanging = written(
        """
        @hookimpl
        async def answer_directly(self, turn):
            await asyncio.Event().wait()
        """
    )

    assert await load(hanging).answer_directly(a_turn()) is None


async def test_the_first_direct_answer_wins(written: Written) -> None:
    silent = written(
        """
        @hookimpl
        async def answer_directly(self, turn):
            return None
        """
    )
    answering = """
        @hookimpl
        async def answer_directly(self, turn):
            from bot.model import Reply
            return Reply(text={text!r})
        """
    plugins = load(
        silent,
        written(answering.format(text="first")),
        written(answering.format(text="second")),
    )

    reply = await plugins.answer_directly(a_turn())

    assert reply is not None
    assert reply.text == "first"


async def test_a_hook_may_leave_out_arguments(written: Written) -> None:
    plugins = load(
        written(
            """
            @hookimpl
            async def reply_sent(self):
                self.settings.__class__.seen = True
            """
        )
    )

    await plugins.reply_sent(a_turn(), None)  # type: ignore[arg-type]  # not looked at


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(
            "@hookimpl\ndef reranker(self): return []",
            "no hook 'reranker'; did you mean 'rerankers'?",
            id="misspelt hook",
        ),
        pytest.param(
            "@hookimpl\nasync def turn_started(self, trun): ...",
            "turn_started has no argument 'trun'; did you mean 'turn'?",
            id="wrong argument",
        ),
        pytest.param(
            "@hookimpl\nasync def turn_started(self, turn=None): ...",
            "argument 'turn' has a default",
            id="default",
        ),
        pytest.param(
            "@hookimpl\nasync def turn_started(self, *, turn): ...",
            "argument 'turn' is keyword-only",
            id="keyword-only",
        ),
        pytest.param(
            "@hookimpl\nasync def rerankers(self): return []",
            "rerankers must be def",
            id="async noun",
        ),
        pytest.param(
            "@hookimpl\ndef turn_started(self, turn): ...",
            "turn_started must be async def",
            id="sync past event",
        ),
        pytest.param(
            "@hookimpl(tryfirst=True)\ndef rerankers(self): return []",
            "rerankers uses tryfirst",
            id="tryfirst",
        ),
        pytest.param(
            "@hookimpl(trylast=True)\ndef rerankers(self): return []",
            "rerankers uses trylast",
            id="trylast",
        ),
        pytest.param(
            "@hookimpl(wrapper=True)\ndef rerankers(self):\n    return (yield)",
            "rerankers uses wrapper",
            id="wrapper",
        ),
        pytest.param(
            "@hookimpl(hookwrapper=True)\ndef rerankers(self):\n    yield",
            "rerankers uses hookwrapper",
            id="old wrapper",
        ),
        pytest.param(
            "def rerankers(self): return []",
            "rerankers is a hook's name; decorate it",
            id="forgotten decorator",
        ),
        pytest.param(
            "def other(self): ...", "has no hook; decorate at least one", id="no hook"
        ),
        pytest.param(
            "@hookimpl\ndef rerankers(self): return [Thing]",
            "rerankers returned the class Thing; return an instance",
            id="class for instance",
        ),
        pytest.param(
            "@hookimpl\ndef rerankers(self): return Thing()",
            "rerankers returned a Thing; return a list",
            id="no list",
        ),
        pytest.param(
            "@hookimpl\ndef rerankers(self): return None",
            "rerankers returned a NoneType; return a list",
            id="None",
        ),
        pytest.param(
            "@hookimpl\ndef scorers(self): return [Thing()]",
            "scorers returned a Thing without score()",
            id="other protocol",
        ),
        pytest.param(
            "@hookimpl\ndef rerankers(self):\n Thing.name = 1\n return [Thing()]",
            "without a name",
            id="no name",
        ),
        pytest.param(
            "@hookimpl\ndef rerankers(self): raise ValueError('no GPU')",
            "rerankers failed with ValueError: no GPU",
            id="raises",
        ),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(
    written: Written, body: str, told: str
) -> None:
    problems = refused(written(body))

    assert len(problems) == 1
    assert problems[0].startswith("bot.yaml: plugins[0]")
    assert told in problems[0]


def test_a_waiting_method_that_computes_is_refused(written: Written) -> None:
    problems = refused(
        written(
            """
            @hookimpl
            def rerankers(self):
                class Waiting(Thing):
                    async def rerank(self, turn, candidates, tools):
                        return candidates
                return [Waiting()]
            """
        )
    )

    assert "Waiting.rerank must be def" in problems[0]


def test_the_problems_of_all_plugins_are_told_together(written: Written) -> None:
    problems = refused(
        written("@hookimpl\ndef scorer(self): return []"),
        "mmmr",
        written("@hookimpl\ndef rerankers(self): return 1"),
    )

    assert len(problems) == 3
    assert "plugins[1].use: no plugin 'mmmr'; did you mean 'mmr'?" in problems[1]


def test_two_plugins_cannot_contribute_the_same_name(written: Written) -> None:
    problems = refused(written(A_RERANKER), written(A_RERANKER))

    assert problems == (
        "bot.yaml: plugins[1]: rerankers has one named 'thing' already",
    )


def test_a_plugin_listed_twice_is_refused(written: Written) -> None:
    use = written(A_RERANKER)

    assert "is listed twice; keep one" in refused(use, use)[0]


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ("no_such_module:One", "module 'no_such_module' cannot be imported"),
        ("bot.model:Candidat", "did you mean 'Candidate'?"),
        ("bot.model:KEPT", "is a Verdict, not a class"),
        ("bot.model:Candidate", "has no nested pydantic class Settings"),
    ],
)
def test_what_cannot_be_found_says_what_is_near(use: str, told: str) -> None:
    assert told in refused(use)[0]


def test_an_error_inside_a_plugins_module_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_plugin.py").write_text("{}['key']")

    assert "KeyError: 'key'" in refused("broken_plugin:One")[0]


def test_wrong_settings_name_the_key_and_what_is_near(written: Written) -> None:
    settings = """
    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        diversity: float = Field(0.5, ge=0, le=1, description="how much")
"""
    use = written(A_RERANKER, settings)

    problems = refused(Use(use=use, settings={"diversty": 1, "diversity": 2}))

    assert len(problems) == 2
    assert "plugins[0].settings.diversity" in problems[0]
    assert "found 2" in problems[0]
    assert "did you mean 'diversity'?" in problems[1]


def test_settings_must_be_strict_frozen_and_described(written: Written) -> None:
    settings = """
    class Settings(BaseModel):
        depth: int = 3
"""
    use = written(A_RERANKER, settings)

    text = "\n".join(refused(use))

    assert 'extra="forbid"' in text
    assert "frozen=True" in text
    assert "Settings.depth needs a description" in text


def test_a_plugin_that_cannot_start_says_why(written: Written) -> None:
    use = written(A_RERANKER + "\ndef __init__(self, settings): raise OSError('full')")

    assert "failed to start with OSError: full" in refused(use)[0]


def test_problems_with_the_configuration_are_gathered(written: Written) -> None:
    complaining = """
    @hookimpl
    def check_config(self, config):
        return ["needs a GPU"]
    """
    failing = """
    @hookimpl
    def check_config(self, config):
        raise RuntimeError("boom")
    """
    plugins = load(written(complaining), written(failing))

    problems = plugins.check_config(None)  # type: ignore[arg-type]  # not looked at

    assert len(problems) == 2
    assert "needs a GPU" in problems[0]
    assert "check_config failed with RuntimeError: boom" in problems[1]


def test_installed_plugins_are_described_enabled_ones_first() -> None:
    listed = plugin_manager.installed([Use(use="mmr")])

    assert listed[0].name == "mmr"
    assert listed[0].enabled
    assert listed[0].kinds == ["reranker"]
    assert listed[0].origin.startswith("chorus ")
    assert "diversity" in listed[0].settings["properties"]  # type: ignore[operator]
    assert not any(plugin.enabled for plugin in listed[1:])


def test_an_installed_plugin_that_cannot_be_loaded_is_listed_with_its_error(
    written: Written,
) -> None:
    broken = written("def broken(")

    listed = plugin_manager.installed([Use(use=broken)])

    assert "SyntaxError" in listed[0].description
    assert listed[0].enabled
