"""The shipped configuration inside Rasa: the real model answers a real webhook."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from bot import config_file
from bot.actions_config import ActionsServerConfig
from bot.app import App
from tests.actions_server.rasa import a_call, a_tracker

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

SHIPPED = Path(__file__).parents[2] / "config" / "bot.yaml"
TOLD = "A refund takes 5 working days after the bicycle came back to our workshop."


async def test_rasa_gets_a_grounded_reply_with_its_candidates(tmp_path: Path) -> None:
    document = tmp_path / "refunds.md"
    document.write_text(f"# Refunds\n\n{TOLD}\n")
    shipped = config_file.load(SHIPPED)
    config = shipped.model_copy(update={"data": tmp_path / "data", "connectors": ()})
    app = App.from_config(config, lambda *_: None, str(SHIPPED))
    app.ingest([document])
    call = a_call(tracker=a_tracker("How long does a refund take?"))

    async with (
        app.serving_rasa(ActionsServerConfig(port=0)) as server,
        aiohttp.ClientSession(server.url) as client,
    ):
        answers = []
        for _ in range(2):
            async with client.post("/webhook", json=call) as response:
                answers.append(await response.json())
    app.close()

    [[first], [again]] = [one["responses"] for one in answers]
    kept = first["metadata"]
    assert "5 working days" in first["text"]
    assert again["text"] == first["text"]
    assert kept["outcome"] == "answered"
    assert [one["source"] for one in kept["citations"]] == ["refunds.md"]
    totals = [one["score"] for one in kept["candidates"] if one["rank"] is not None]
    assert totals == sorted(totals, reverse=True)
    assert totals
