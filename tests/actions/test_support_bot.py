"""The bot in config/support: its file, its actions, and its conversation."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import pytest

from bot import config_file
from bot.actions import places, rules
from bot.actions.dialogue import Dialogue
from bot.actions.doing import CORE, Parts
from bot.actions.domain import domain_of
from bot.actions.responses import Responses
from bot.actions.rules import Rules
from bot.actions.runner import Runner
from bot.testing.fakes import HashEmbedder, ScriptedLanguageModel
from tests.actions.test_dialogue import Talk

FOLDER = Path(__file__).parents[2] / "config" / "support"


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    config = config_file.load(FOLDER / "bot.yaml").actions
    built, problems = places.load(config, ())
    names = places.known_names(config, built)
    assert [*problems, *rules.problems(config, [*names, *CORE])] == []
    parts = Parts(
        config=config,
        runner=Runner(built),
        rules=Rules(config.rules, HashEmbedder().embed),
        responses=Responses(config.responses),
        domain=orjson.dumps(domain_of(config, names)),
    )
    model = ScriptedLanguageModel([])
    return Talk(Dialogue(parts=parts, model=model, persona="You help."))


async def test_an_order_is_looked_up_by_the_number_in_a_sentence(talk: Talk) -> None:
    asked = await talk.says("Where is my order?")

    said = await talk.says("it is lk-771310")

    assert asked == "Which order? Its number starts with LK, as in LK-771204."
    assert said == (
        "Your order LK-771310 (Wren) is with the carrier, due on 2 December."
    )


async def test_a_return_refuses_asks_again_is_put_aside_and_ends(talk: Talk) -> None:
    kilometres = "How many kilometres does the display show?"
    refused = await talk.says("I want to return LK-000001")

    assert refused is not None
    assert refused.startswith("I know no order LK-000001.")
    assert await talk.says("LK-771204") == kilometres
    aside = await talk.says("Where is my order?")
    assert aside is not None
    assert aside.endswith(f"(Heron) was delivered on 24 November.\n{kilometres}")
    far = await talk.says("200")
    assert far is not None
    assert far.endswith(kilometres)
    assert await talk.says("62") == "Why would you like to return it?"
    ended = await talk.says("changed my mind")

    assert ended == (
        "Your return number is RT-771204. Please write it on the parcel. "
        "We keep €7.20 for the kilometres over 50."
    )
    assert talk.slots == {}


async def test_the_reminder_of_a_return_asks_about_it(talk: Talk) -> None:
    due = {"intent": "ask_about_return", "entities": []}

    said = await talk.says("", kind="intent", data=due)

    assert said == (
        "Have you handed in your return? If not, you can start it again here."
    )
