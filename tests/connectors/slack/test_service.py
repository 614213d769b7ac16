"""The stand-in of Slack, spoken to with Slack's own client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from tests.connectors.slack.faults import (
    DropAfter,
    DropBefore,
    Error,
    ErrorAfter,
    Fine,
    Held,
    RateLimited,
    Slow,
    Status,
)
from tests.connectors.slack.payloads import Payload, Retry
from tests.connectors.slack.service import SlackService

pytestmark = pytest.mark.timeout(30)

MARKDOWN = {"type": "markdown", "text": "It takes **five days**."}
FEEDBACK = {
    "type": "context_actions",
    "elements": [
        {
            "type": "feedback_buttons",
            "action_id": "feedback",
            "positive_button": {
                "text": {"type": "plain_text", "text": "Good"},
                "value": "good",
            },
            "negative_button": {
                "text": {"type": "plain_text", "text": "Bad"},
                "value": "bad",
            },
        }
    ],
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def slack(clock: Clock) -> AsyncIterator[SlackService]:
    async with SlackService(clock) as service:
        yield service


@pytest.fixture
def client(slack: SlackService) -> AsyncWebClient:
    return a_client(slack, slack.token)


def a_client(slack: SlackService, token: str) -> AsyncWebClient:
    return AsyncWebClient(token=token, base_url=slack.url, retry_handlers=[])


async def refusal(call: Awaitable[Any]) -> str:
    """Return Slack's word for what is wrong with a call."""
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


async def test_a_token_says_whose_it_is_and_what_it_may_do(
    client: AsyncWebClient,
) -> None:
    told = await client.auth_test()

    assert (told["team_id"], told["user_id"]) == ("T1", "UBOTT1")
    assert "chat:write" in told.headers["x-oauth-scopes"].split(",")


@pytest.mark.parametrize(
    ("token", "error"),
    [("", "not_authed"), ("xoxb-stolen", "invalid_auth"), ("old", "token_revoked")],
)
async def test_a_token_that_is_worth_nothing_is_refused(
    slack: SlackService, token: str, error: str
) -> None:
    slack.install("T1", "old")
    await a_client(slack, "old").auth_revoke()

    assert await refusal(a_client(slack, token).auth_test()) == error


async def test_after_an_uninstall_the_team_is_gone(
    slack: SlackService, client: AsyncWebClient
) -> None:
    told = slack.uninstall()

    assert told.content["event"]["type"] == "app_uninstalled"
    assert await refusal(client.auth_test()) == "account_inactive"


async def test_a_scope_that_is_missing_is_named(slack: SlackService) -> None:
    slack.install("T3", "few", scopes=("im:history",))
    slack.channel("C3", team="T3")

    with pytest.raises(SlackApiError) as caught:
        await a_client(slack, "few").chat_postMessage(channel="C3", text="x")

    answer = caught.value.response
    assert (answer["error"], answer["needed"]) == ("missing_scope", "chat:write")


async def test_a_method_that_does_not_exist_is_unknown(client: AsyncWebClient) -> None:
    assert await refusal(client.api_call("chat.shout")) == "unknown_method"


async def test_a_post_is_shown_and_found_by_its_metadata(
    slack: SlackService, client: AsyncWebClient
) -> None:
    metadata = {"event_type": "chorus_reply", "event_payload": {"key": "k1"}}
    root = slack.customer.message("How long?", channel="C1").ts

    posted = await client.chat_postMessage(
        channel="C1",
        thread_ts=root,
        text="fallback",
        blocks=[MARKDOWN],
        metadata=metadata,
    )

    found = await client.conversations_replies(
        channel="C1", ts=root, include_all_metadata=True
    )
    assert slack.shown("C1", root) == ["It takes **five days**."]
    assert [m.get("metadata") for m in found["messages"]] == [None, metadata]
    assert found["messages"][1]["ts"] == posted["ts"]
    assert slack.message(posted["ts"]).text == "fallback"


async def test_history_pages_backwards_and_leaves_threads_out(
    slack: SlackService, client: AsyncWebClient
) -> None:
    said = [slack.customer.message(text).ts for text in "abcde"]
    await client.chat_postMessage(channel="D1", thread_ts=said[0], text="in a thread")

    read, cursor = [], None
    while cursor != "":
        page = await client.conversations_history(channel="D1", limit=2, cursor=cursor)
        read += [message["text"] for message in page["messages"]]
        cursor = page["response_metadata"]["next_cursor"]

    assert read == ["e", "d", "c", "b", "a"]


async def test_replies_to_a_reply_are_that_reply(
    slack: SlackService, client: AsyncWebClient
) -> None:
    root = slack.customer.message("root").ts
    reply = await client.chat_postMessage(channel="D1", thread_ts=root, text="reply")

    found = await client.conversations_replies(channel="D1", ts=reply["ts"])

    assert [message["text"] for message in found["messages"]] == ["reply"]


@pytest.mark.parametrize(
    ("channel", "error"),
    [("C2", "not_in_channel"), ("C9", "channel_not_found"), ("C4", "is_archived")],
)
async def test_where_the_bot_may_not_write_it_is_told_why(
    slack: SlackService, client: AsyncWebClient, channel: str, error: str
) -> None:
    slack.channel("C4", archived=True)

    assert await refusal(client.chat_postMessage(channel=channel, text="x")) == error


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({}, "no_text"),
        ({"blocks": [{"type": "shout", "text": "x"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "divider"}] * 51}, "invalid_blocks"),
        (
            {"blocks": [{"type": "markdown", "text": "x" * 12_001}]},
            "msg_blocks_too_long",
        ),
        (
            {"blocks": [{"type": "markdown", "text": "x" * 6_700}] * 2},
            "msg_blocks_too_long",
        ),
        ({"markdown_text": "x" * 12_001}, "msg_too_long"),
        ({"markdown_text": "x", "blocks": [MARKDOWN]}, "markdown_text_conflict"),
        ({"text": "x", "metadata": {"event_type": "x"}}, "invalid_metadata_format"),
        (
            {
                "blocks": [
                    {
                        "type": "actions",
                        "elements": [
                            {
                                "type": "button",
                                "text": {"type": "plain_text", "text": "Yes"},
                                "value": "x" * 2_001,
                            }
                        ],
                    }
                ]
            },
            "invalid_blocks",
        ),
    ],
)
async def test_what_slack_refuses_is_refused(
    client: AsyncWebClient, what: dict[str, Any], error: str
) -> None:
    call = client.api_call("chat.postMessage", json={"channel": "C1", **what})

    assert await refusal(call) == error


async def test_an_update_keeps_the_blocks_and_metadata_that_it_does_not_name(
    slack: SlackService, client: AsyncWebClient
) -> None:
    metadata = {"event_type": "e", "event_payload": {"key": "k"}}
    posted = await client.chat_postMessage(
        channel="C1", text="one", blocks=[MARKDOWN], metadata=metadata
    )

    await client.chat_update(channel="C1", ts=posted["ts"], text="two")
    kept = slack.message(posted["ts"]).shown
    await client.chat_update(channel="C1", ts=posted["ts"], text="two", blocks=[])

    message = slack.message(posted["ts"])
    assert (kept, message.shown) == (MARKDOWN["text"], "two")
    assert (message.metadata, message.edits) == (metadata, 2)


async def test_nobody_updates_or_deletes_what_another_wrote(
    slack: SlackService, client: AsyncWebClient
) -> None:
    ts = slack.customer.message("mine", channel="C1").ts

    update = client.chat_update(channel="C1", ts=ts, text="yours")
    assert await refusal(update) == "cant_update_message"
    late = client.chat_update(channel="C1", ts="1.1", text="x")
    assert await refusal(late) == "message_not_found"


async def test_an_update_with_a_long_text_is_refused(client: AsyncWebClient) -> None:
    posted = await client.chat_postMessage(channel="C1", text="x" * 5_000)

    long = client.chat_update(channel="C1", ts=posted["ts"], text="x" * 4_001)

    assert await refusal(long) == "msg_too_long"


async def begun(
    client: AsyncWebClient, channel: str = "D1", thread: str = "1.1"
) -> str:
    answer = await client.chat_startStream(
        channel=channel,
        thread_ts=thread,
        markdown_text="It",
        recipient_user_id="U1",
        recipient_team_id="T1",
    )
    return str(answer["ts"])


async def test_a_stream_grows_and_ends_with_its_blocks(
    slack: SlackService, client: AsyncWebClient
) -> None:
    ts = await begun(client)
    await client.chat_appendStream(channel="D1", ts=ts, markdown_text=" takes")
    growing = slack.shown("D1")
    stopped = await client.chat_stopStream(
        channel="D1",
        ts=ts,
        markdown_text=" five days.",
        blocks=[FEEDBACK],
        metadata={"event_type": "e", "event_payload": {"key": "k"}},
    )

    message = slack.message(ts)
    assert growing == ["It takes"]
    assert slack.shown("D1") == ["It takes five days."]
    assert stopped["message"]["streaming_state"] == "completed"
    assert message.feedback is not None
    assert message.metadata["event_payload"] == {"key": "k"}
    assert slack.state.sessions["D1", "1.1"] == "active"


async def test_the_sdks_own_stream_works(
    slack: SlackService, client: AsyncWebClient
) -> None:
    stream = await client.chat_stream(channel="D1", thread_ts="1.1", buffer_size=1)

    await stream.append(markdown_text="Good ")
    await stream.append(markdown_text="morning.")
    await stream.stop()

    assert slack.shown("D1") == ["Good morning."]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"channel": "D1"}, "invalid_arguments"),
        ({"channel": "C1", "thread_ts": "1.1"}, "missing_recipient_user_id"),
        (
            {"channel": "G1", "thread_ts": "1.1", "recipient_user_id": "U1"},
            "missing_recipient_team_id",
        ),
    ],
)
async def test_a_stream_needs_a_thread_and_in_a_channel_a_recipient(
    client: AsyncWebClient, given: dict[str, Any], error: str
) -> None:
    assert await refusal(client.api_call("chat.startStream", json=given)) == error


async def test_a_stream_dies_of_age_and_then_only_an_update_reaches_it(
    slack: SlackService, client: AsyncWebClient, clock: Clock
) -> None:
    ts = await begun(client)
    early = client.chat_update(channel="D1", ts=ts, text="x", blocks=[MARKDOWN])
    assert await refusal(early) == "streaming_state_conflict"
    clock.now = 299
    await client.chat_appendStream(channel="D1", ts=ts, markdown_text=" takes")
    clock.now = 300

    for late in (client.chat_appendStream, client.chat_stopStream):
        call = late(channel="D1", ts=ts, markdown_text="!")
        assert await refusal(call) == "message_not_in_streaming_state"
    await client.chat_update(channel="D1", ts=ts, text="x", blocks=[MARKDOWN])

    assert slack.shown("D1") == [MARKDOWN["text"]]


async def test_a_stream_can_be_ended_by_the_test_and_by_the_customer(
    slack: SlackService, client: AsyncWebClient
) -> None:
    expired, stopped = await begun(client), await begun(client)
    slack.expire(expired)
    told = slack.customer.session_stopped("1.1").content["event"]

    assert told["streaming_message_ts"] == [stopped]
    for ts, error in (
        (expired, "message_not_in_streaming_state"),
        (stopped, "stopped_by_user"),
    ):
        call = client.chat_appendStream(channel="D1", ts=ts, markdown_text="!")
        assert await refusal(call) == error


async def test_all_of_a_stream_is_limited_not_only_each_piece(
    client: AsyncWebClient,
) -> None:
    ts = await begun(client)
    await client.chat_appendStream(channel="D1", ts=ts, markdown_text="x" * 11_998)

    more = client.chat_appendStream(channel="D1", ts=ts, markdown_text="x")

    assert await refusal(more) == "msg_too_long"


async def test_the_assistant_shows_a_status_until_something_is_posted(
    slack: SlackService, client: AsyncWebClient
) -> None:
    await client.assistant_threads_setStatus(
        channel_id="D1", thread_ts="1.1", status="is thinking"
    )
    thinking = dict(slack.state.statuses)
    await client.assistant_threads_setTitle(
        channel_id="D1", thread_ts="1.1", title="Refunds"
    )
    await client.assistant_threads_setSuggestedPrompts(
        channel_id="D1", prompts=[{"title": "Refunds", "message": "How long?"}]
    )
    await client.agents_sessions_setStatus(
        channel_id="D1", thread_ts="1.1", status="processing"
    )
    await client.chat_postMessage(channel="D1", thread_ts="1.1", text="Five days.")

    assert thinking == {("D1", "1.1"): "is thinking"}
    assert slack.state.statuses == {}
    assert slack.state.titles == {("D1", "1.1"): "Refunds"}
    assert slack.state.prompts["D1", None][0]["title"] == "Refunds"
    assert slack.state.sessions == {("D1", "1.1"): "processing"}


async def test_small_things_are_answered(
    slack: SlackService, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel="C1", text="Five days.")
    slack.customer.reaction("+1", posted["ts"])

    whisper = await client.chat_postEphemeral(channel="C1", user="U1", text="psst")
    view = {"type": "home", "blocks": [MARKDOWN]}
    await client.views_publish(user_id="U1", view=view)
    reactions = await client.reactions_get(channel="C1", timestamp=posted["ts"])
    user = await client.users_info(user="U1")
    await client.chat_delete(channel="C1", ts=posted["ts"])

    assert slack.state.ephemeral[0].ts == whisper["message_ts"]
    assert slack.state.homes["U1"] == view
    assert reactions["message"]["reactions"][0]["users"] == ["U1"]
    assert user["user"]["profile"]["display_name"] == "Ada"
    assert slack.shown("C1") == []


async def test_timestamps_are_unique_and_grow(
    slack: SlackService, client: AsyncWebClient
) -> None:
    said = [slack.customer.message("x", channel="C1").ts for _ in range(3)]
    posted = [
        (await client.chat_postMessage(channel="C1", text="x"))["ts"] for _ in range(3)
    ]

    assert sorted({*said, *posted}) == said + posted


# slack_sdk calls a function that aiohttp gives up; nothing we can change
OLD_BASIC_AUTH = pytest.mark.filterwarnings("ignore:BasicAuth:DeprecationWarning")


@OLD_BASIC_AUTH
async def test_a_code_is_good_once_and_a_refresh_token_is_used_up(
    slack: SlackService,
) -> None:
    slack.grants.rotates = True
    code = slack.authorize("T2")
    nobody = AsyncWebClient(base_url=slack.url, retry_handlers=[])
    ours = {"client_id": "11.22", "client_secret": "client-secret"}

    granted = await nobody.oauth_v2_access(**ours, code=code)
    again = await refusal(nobody.oauth_v2_access(**ours, code=code))
    renewed = await nobody.oauth_v2_access(
        **ours, grant_type="refresh_token", refresh_token=granted["refresh_token"]
    )
    used_up = nobody.oauth_v2_access(
        **ours, grant_type="refresh_token", refresh_token=granted["refresh_token"]
    )

    assert again == "code_already_used"
    assert await refusal(used_up) == "invalid_refresh_token"
    assert granted["team"]["id"] == "T2"
    assert renewed["expires_in"] == 43_200
    assert (await a_client(slack, renewed["access_token"]).auth_test())["ok"]


@OLD_BASIC_AUTH
async def test_only_the_app_itself_is_given_a_token(slack: SlackService) -> None:
    nobody = AsyncWebClient(base_url=slack.url, retry_handlers=[])
    theirs = {"client_id": "11.22", "client_secret": "guess"}
    call = nobody.oauth_v2_access(**theirs, code=slack.authorize())

    assert await refusal(call) == "bad_client_secret"


async def test_faults_come_in_order_and_only_some_calls_are_done(
    slack: SlackService, client: AsyncWebClient
) -> None:
    async def post(text: str) -> str:
        try:
            await client.chat_postMessage(channel="C1", text=text)
        except SlackApiError as error:
            return f"{error.response.status_code} {error.response.get('error')}"
        except aiohttp.ClientError as error:
            return type(error).__name__
        return "ok"

    slack.fail(
        "chat.postMessage",
        Fine(),
        RateLimited(7),
        Error("internal_error"),
        Status(502),
        DropBefore(),
        DropAfter(),
        ErrorAfter(),
        Slow(0.01),
    )

    became = [await post(text) for text in "abcdefghi"]

    assert became == [
        "ok",
        "429 ratelimited",
        "200 internal_error",
        "502 None",
        "ServerDisconnectedError",
        "ServerDisconnectedError",
        "200 internal_error",
        "ok",
        "ok",
    ]
    assert slack.shown("C1") == ["a", "f", "g", "h", "i"]
    assert [call.arguments["text"] for call in slack.calls] == list("abcdefghi")


async def test_a_call_can_be_held_until_the_test_lets_it_go(
    slack: SlackService, client: AsyncWebClient
) -> None:
    held = Held()
    slack.fail("chat.postMessage", held)

    posting = asyncio.create_task(client.chat_postMessage(channel="C1", text="x"))
    await held.came.wait()
    before = slack.shown("C1")
    held.go.set()
    await posting

    assert (before, slack.shown("C1")) == ([], ["x"])


@asynccontextmanager
async def an_app(
    slack: SlackService, answer: Callable[[web.Request], Awaitable[web.Response]]
) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_post("/slack/events", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    slack.events_url = f"http://{host}:{port}/slack/events"
    try:
        yield
    finally:
        await runner.cleanup()


async def test_deliveries_are_signed_as_slacks_own_verifier_wants(
    slack: SlackService,
) -> None:
    verifier = SignatureVerifier(slack.signing_secret)
    seen: list[tuple[bool, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = dict(request.headers)
        valid = verifier.is_valid_request(await request.read(), headers)
        seen.append((valid, headers.get("x-slack-retry-num")))
        return web.Response(text="thanks")

    told = slack.customer.message("hello")
    old = str(int(time.time()) - 400)
    async with an_app(slack, answer):
        answered = await slack.deliver(told, retry=Retry(2))
        await slack.deliver(told, sign=False)
        await slack.deliver(told, sign="another secret")
        await slack.deliver(told, timestamp=old)
        await slack.deliver(told, raw=b"{")
        await slack.deliver(slack.customer.slash("help"))

    assert answered[:2] == (200, b"thanks")
    assert seen == [
        (True, "2"),
        (False, None),
        (False, None),
        (False, None),
        (True, None),
        (True, None),
    ]


async def test_a_mention_is_told_twice_with_one_timestamp(slack: SlackService) -> None:
    mention, message = slack.customer.mention("How long?")

    assert mention.content["event"]["type"] == "app_mention"
    assert message.content["event"]["type"] == "message"
    assert mention.ts == message.ts
    assert mention.content["event_id"] != message.content["event_id"]
    assert slack.message(message.ts).text == "<@UBOTT1> How long?"


async def test_what_happens_to_messages_is_told_with_what_they_were(
    slack: SlackService,
) -> None:
    ts = slack.customer.message("How long?", channel="C1").ts

    unfurled = slack.customer.edited(ts).content["event"]
    edited = slack.customer.edited(ts, "How much?").content["event"]
    deleted = slack.customer.deleted(ts).content["event"]

    assert unfurled["message"]["text"] == unfurled["previous_message"]["text"]
    assert edited["message"]["text"] == "How much?"
    assert edited["previous_message"]["text"] == "How long?"
    assert (deleted["subtype"], deleted["deleted_ts"]) == ("message_deleted", ts)
    assert len({ts, unfurled["ts"], edited["ts"], deleted["ts"]}) == 4


async def test_what_is_pressed_is_what_was_posted(
    slack: SlackService, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(
        channel="D1", text="x", blocks=[MARKDOWN, FEEDBACK]
    )

    pressed = slack.customer.feedback(posted["ts"], good=False)

    assert pressed.kind == "interactive"
    assert pressed.content["actions"][0]["value"] == "bad"
    assert pressed.content["actions"][0]["action_id"] == "feedback"
    assert pressed.content["message"]["ts"] == posted["ts"]


@asynccontextmanager
async def sockets(
    slack: SlackService,
    listener: Callable[[AsyncBaseSocketModeClient, SocketModeRequest], Awaitable[None]],
    number: int = 1,
) -> AsyncIterator[list[SocketModeClient]]:
    clients = [
        SocketModeClient(
            slack.app_token,
            web_client=AsyncWebClient(base_url=slack.url),
            ping_interval=0.05,
        )
        for _ in range(number)
    ]
    try:
        for client in clients:
            client.socket_mode_request_listeners.append(listener)
            await client.connect()  # type: ignore[no-untyped-call]
        await slack.links.connected(number)
        yield clients
    finally:
        for client in clients:
            await client.close()  # type: ignore[no-untyped-call]


async def acknowledge(
    client: AsyncBaseSocketModeClient, request: SocketModeRequest
) -> None:
    await client.send_socket_mode_response(SocketModeResponse(request.envelope_id))


async def over(*payloads: Payload, slack: SlackService) -> list[int]:
    """Push payloads, wait for the end of each, and return how often each was sent."""
    envelopes = [slack.push(payload) for payload in payloads]
    async with asyncio.timeout(10):
        for envelope in envelopes:
            await envelope.over.wait()
    return [envelope.attempts for envelope in envelopes]


async def test_each_envelope_goes_to_one_of_the_sockets(slack: SlackService) -> None:
    got: list[tuple[int, str]] = []

    async def listen(
        client: AsyncBaseSocketModeClient, request: SocketModeRequest
    ) -> None:
        got.append((id(client), request.type))
        await acknowledge(client, request)

    async with sockets(slack, listen, number=2):
        attempts = await over(
            slack.customer.message("one"), slack.customer.slash("help"), slack=slack
        )

    assert attempts == [1, 1]
    assert {kind for _, kind in got} == {"events_api", "slash_commands"}
    assert len({client for client, _ in got}) == 2
    assert len(slack.links.acked) == 2


async def test_what_is_not_acknowledged_comes_three_times_more(
    slack: SlackService,
) -> None:
    retries: list[int | None] = []

    async def listen(
        client: AsyncBaseSocketModeClient, request: SocketModeRequest
    ) -> None:
        retries.append(request.retry_attempt)

    slack.links.ack_s = 0.05
    async with sockets(slack, listen):
        attempts = await over(slack.customer.message("one"), slack=slack)

    assert (attempts, retries) == ([4], [0, 1, 2, 3])
    assert [envelope.acked for envelope in slack.links.unacked] == [False]


@pytest.mark.parametrize("how", ["drop", "disconnect", "silent"])
async def test_a_client_that_lost_its_socket_opens_another(
    slack: SlackService, how: str
) -> None:
    async with sockets(slack, acknowledge):
        match how:
            case "drop":
                slack.links.drop()
            case "disconnect":
                await slack.links.disconnect("refresh_requested")
            case "silent":
                slack.links.silent()
        async with asyncio.timeout(10):
            while slack.links.opened < 2:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.02)
        slack.links.silent(silent=False)
        attempts = await over(slack.customer.message("one"), slack=slack)

    assert attempts[0] >= 1
    assert len(slack.links.acked) == 1


async def test_a_socket_is_opened_with_the_apps_own_token_only(
    slack: SlackService, client: AsyncWebClient
) -> None:
    call = client.apps_connections_open(app_token=slack.token)
    assert await refusal(call) == "not_allowed_token_type"

    async with aiohttp.ClientSession() as session:
        url = slack.url.replace("http", "ws", 1).replace("/api/", "/link/?ticket=x")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(url)
