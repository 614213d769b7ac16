"""
What bench `connectors` compares with: slack-bolt's own dispatch.

An app with one listener that does nothing, no store, no HTTP and no Redis: the request
is checked, parsed, matched and acknowledged, and that is all. The least that anybody
who builds on bolt pays for each event.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest

from bot.evaluation.bench_connectors_events import SIGNING_SECRET, SlackPosts
from bot.evaluation.bench_connectors_service import BOT, BOT_USER, TEAM


class NotAcknowledged(AssertionError):
    """An event was refused: what was measured means nothing."""


async def bolt_seconds(posts: Sequence[tuple[int, int]]) -> float:
    """Return the seconds that bolt takes to dispatch these messages, one by one."""
    app, slack = _app(), SlackPosts()
    written = [slack.post(conversation, number) for conversation, number in posts]
    began = time.perf_counter()
    for headers, body in written:
        response = await app.async_dispatch(
            AsyncBoltRequest(body=body.decode(), headers=dict(headers))
        )
        if response.status != 200:  # noqa: PLR2004 (HTTP's own)
            raise NotAcknowledged(f"bolt answered {response.status}")
    return time.perf_counter() - began


def _app() -> AsyncApp:
    async def authorize(**_: Any) -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=None,
            team_id=TEAM,
            bot_token="xoxb-bench",  # noqa: S106 (of nobody's app)
            bot_id=BOT,
            bot_user_id=BOT_USER,
        )

    app = AsyncApp(
        signing_secret=SIGNING_SECRET,
        authorize=authorize,
        process_before_response=True,
    )

    async def listen(event: Any) -> None:
        """Everything that is done with a message costs extra."""

    app.event("message")(listen)
    return app
