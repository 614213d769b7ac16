"""A stand-in of Slack for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.connectors.slack.service import SlackService


@pytest.fixture
async def slack() -> AsyncIterator[SlackService]:
    async with SlackService() as service:
        yield service
