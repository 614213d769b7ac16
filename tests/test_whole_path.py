"""
The whole path on real parts: documents, index, small model, plugins, redis-server.

Only the service is a fake: a connector that keeps what it was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot import config_file, explain
from bot.app import App
from bot.testing.fakes import MemoryConnector
from bot.testing.makers import an_address

pytestmark = [pytest.mark.model, pytest.mark.services, pytest.mark.timeout(300)]

SHIPPED = Path(__file__).parents[1] / "config" / "bot.yaml"
DOCUMENTS = {
    "refunds.md": """---
title: Refunds
date: 2026-03-01
---
# Refunds
## How long it takes
A refund takes 5 working days after the bicycle came back to our workshop.
## Exceptions
Custom paint jobs cannot be refunded.
""",
    "opening.txt": "The shop in Cork is open from 9:30 to 18:00, Monday to Saturday.",
    "battery.html": "<h1>Battery care</h1><p>Charge the battery at room temperature, "
    "never below 5 degrees.</p>",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("bot")
    documents = folder / "documents"
    documents.mkdir()
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text)
    shipped = config_file.load(SHIPPED)
    small = shipped.model_copy(
        update={
            "data": folder / "data",
            "connectors": (),
            "knowledge": shipped.knowledge.model_copy(update={"paths": (documents,)}),
            "generation": shipped.generation.model_copy(
                update={"candidates": 3, "max_new_tokens": 24}
            ),
        }
    )
    app = App.from_config(small, lambda *_: None, "test")
    app.ingest()
    return app


@asynccontextmanager
async def talking(app: App, seed: int = 1) -> AsyncIterator[MemoryConnector]:
    connector = MemoryConnector(timeout_s=120)
    async with app.running({"memory": connector}, seeds=lambda: seed) as manager:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(manager.run())
            yield connector
            connector.close()
        await manager.idle()


async def test_a_question_gets_a_grounded_cited_answer_that_can_be_explained(
    app: App,
) -> None:
    async with talking(app) as customer:
        reply = await customer.reply_to("How long does a refund take?")
        await customer.say("why", kind="command")
        why = await customer.next_reply()

    assert "5 working days" in reply.text
    assert [citation.source for citation in reply.citations] == ["refunds.md"]
    assert "How long does a refund take?" in why.text
    assert "groundedness" in why.text


async def test_what_the_documents_do_not_say_is_declined(app: App) -> None:
    async with talking(app) as customer:
        reply = await customer.reply_to("Who won the chess olympiad in 1972?")

    assert reply.text == app.config.replies.fallback
    assert not reply.citations


async def test_a_seed_repeats_a_turn_exactly(app: App) -> None:
    texts = []
    for chat in ("one", "two"):
        async with talking(app, seed=7) as customer:
            await customer.reply_to("When is the shop in Cork open?", chat=chat)
        texts.append(await _candidates(app, chat))

    assert texts[0] == texts[1]
    assert len(texts[0]) > 3


async def _candidates(app: App, chat: str) -> list[str]:
    async with app.store() as store:
        record = await store.last_record(an_address(chat))
    assert record is not None
    assert explain.contract(record)["turn"] == record.turn.id
    return sorted(candidate.text for candidate in record.candidates)
