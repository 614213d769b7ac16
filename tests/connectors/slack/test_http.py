from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest

from bot.errors import StoreError
from bot.interfaces import WebRequest
from bot.model import Button, Reply
from tests.connectors.slack.bot_on_slack import MemoryShelf
from tests.connectors.slack.connected import KEY, Time, connected, made, thread
from tests.connectors.slack.faults import DropAfter, DropBefore
from tests.connectors.slack.payloads import Payload, Retry, request_of, signature
from tests.connectors.slack.service import SlackService


def signed(body: bytes, content_type: str = "application/json") -> WebRequest:
    now = str(int(time.time()))
    return WebRequest(
        method="POST",
        path="/slack/events",
        headers={
            "content-type": content_type,
            "x-slack-request-timestamp": now,
            "x-slack-signature": signature(body, now),
        },
        body=body,
    )


async def test_the_request_url_is_verified(slack: SlackService) -> None:
    async with connected(slack) as bot:
        request = request_of(slack.customer.url_verification())
        response = await bot.connector.respond(request)

    assert response.status == 200
    assert response.body == b"3eZbrw1aBm2rZgRN"
    assert not slack.calls


@pytest.mark.parametrize("off", [-301, 301])
async def test_an_old_or_early_request_is_refused(
    slack: SlackService, off: int
) -> None:
    told = slack.customer.message("Hi")

    async with connected(slack) as bot:
        at = str(int(time.time()) + off)
        response = await bot.connector.respond(request_of(told, timestamp=at))

    assert response.status == 401
    assert not bot.core.events


@pytest.mark.parametrize(
    "headers",
    [
        {"x-slack-signature": ""},
        {"x-slack-signature": "v0=" + "0" * 64},
        {"x-slack-signature": "v0=é"},
        {"x-slack-request-timestamp": "abc"},
        {"x-slack-request-timestamp": "²"},
        {"x-slack-request-timestamp": "9" * 5000},
        {"x-slack-request-timestamp": ""},
    ],
)
async def test_what_slack_did_not_sign_is_not_read(
    slack: SlackService, headers: dict[str, str]
) -> None:
    request = signed(b"\xff not even JSON")
    forged = WebRequest(
        method="POST",
        path=request.path,
        headers={**request.headers, **headers},
        body=request.body,
    )

    async with connected(slack) as bot:
        assert (await bot.connector.respond(forged)).status == 401


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff", "application/json"),
        (b"[1,2]", "application/json"),
        (b"null", "application/json"),
        (b"NaN", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "application/json"),
        (b'"\\ud83d"', "application/json"),
        (b"payload=%7B", "application/x-www-form-urlencoded"),
        (b"payload=\xff", "application/x-www-form-urlencoded"),
        (b"a=b&" * 200, "application/x-www-form-urlencoded"),
        (b"{}", "text/plain"),
        (b"{}", ""),
    ],
)
async def test_garbage_that_is_signed_is_no_request(
    slack: SlackService, body: bytes, content_type: str
) -> None:
    async with connected(slack) as bot:
        response = await bot.connector.respond(signed(body, content_type))

    assert response.status == 400


async def test_other_methods_are_not_allowed(slack: SlackService) -> None:
    async with connected(slack) as bot:
        request = WebRequest(method="GET", path="/slack/events")
        assert (await bot.connector.respond(request)).status == 405


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "message"},
        {"type": "message", "channel": 7, "ts": [], "user": {}},
        {"type": "message", "channel": "D1", "ts": "1e400", "user": "U1", "text": 4},
        {"type": "message", "channel": "D1", "ts": "9" * 20, "user": "U1"},
        {"type": "message", "channel": "D:1", "ts": "1.1", "user": "U1"},
        {"type": "app_mention", "channel": None},
        {"type": "reaction_added", "item": "x"},
        {"type": "app_home_opened", "tab": 1},
        {"type": "assistant_thread_started", "assistant_thread": []},
        {"type": "agent_session_stopped", "channel": "D1", "streaming_message_ts": {}},
        {"type": ["message"]},
        "message",
        None,
    ],
)
async def test_wrong_types_are_of_no_concern(slack: SlackService, event: Any) -> None:
    content = {**slack.customer.message("Hi").content, "event": event}

    async with connected(slack) as bot:
        statuses = await bot.tell(Payload(content))

    assert statuses == [200]
    assert all(told.kind in {"cancel", "message"} for told in bot.core.events)


async def test_nothing_is_acknowledged_before_it_is_taken(slack: SlackService) -> None:
    async with connected(slack) as bot:
        bot.core.gate = asyncio.Event()
        telling = asyncio.create_task(bot.tell(slack.customer.message("Hi")))
        await bot.core.came.wait()
        early = telling.done()
        bot.core.gate.set()

        assert await telling == [200]
    assert not early


async def test_a_store_that_is_away_leaves_it_to_slack_to_come_again(
    slack: SlackService,
) -> None:
    told = slack.customer.message("Hi")

    async with connected(slack) as bot:
        bot.core.away = True
        with pytest.raises(StoreError):
            await bot.connector.respond(request_of(told))
        bot.core.away = False
        again = await bot.connector.respond(request_of(told, retry=Retry(1)))

    assert again.status == 200
    assert bot.core.texts == ["Hi"]


@pytest.mark.parametrize("answer", ["duplicate", "refused"])
async def test_what_the_core_does_not_want_is_acknowledged(
    slack: SlackService, answer: Any
) -> None:
    async with connected(slack) as bot:
        bot.core.answer = answer
        assert await bot.tell(slack.customer.message("Hi")) == [200]


async def test_a_slack_that_does_not_say_who_we_are_is_asked_again(
    slack: SlackService,
) -> None:
    told = slack.customer.message("Hi")
    slack.fail("auth.test", DropBefore())

    async with connected(slack) as bot:
        assert await bot.tell(told, told, told) == [503, 200, 200]

    assert len(slack.calls_of("auth.test")) == 2


async def test_an_unknown_team_is_left_alone(slack: SlackService) -> None:
    content = slack.customer.message("Hi").content
    content["authorizations"][0]["team_id"] = "T9"

    async with connected(slack) as bot:
        assert await bot.tell(Payload(content)) == [200]

    assert not bot.core.events


async def test_requests_wait_until_the_connector_runs(slack: SlackService) -> None:
    connector = made(slack, Time())
    connector.keep_on(MemoryShelf())

    response = await connector.respond(request_of(slack.customer.message("Hi")))

    assert response.status == 503


async def test_retries_and_both_tellings_of_a_mention_are_one_event(
    slack: SlackService,
) -> None:
    mention = slack.customer.mention("How long?")

    async with connected(slack) as bot:
        for retry in (None, Retry(1), Retry(2, "http_error")):
            for told in mention:
                await bot.connector.respond(request_of(told, retry=retry))

    assert len(bot.core.events) == 6
    assert len({event.id for event in bot.core.events}) == 1
    assert bot.core.events[0].address == bot.core.events[1].address
    assert set(bot.core.texts) == {"How long?"}


async def test_in_a_channel_only_what_is_meant_for_the_bot_is_heard(
    slack: SlackService,
) -> None:
    talk = slack.customer.message("Lunch?", channel="C1")
    aside = slack.customer.message("Yes!", channel="C1", thread_ts=talk.ts)

    async with connected(slack) as bot:
        mention, _ = slack.customer.mention("How long?")
        after = slack.customer.message("And then?", channel="C1", thread_ts=mention.ts)
        assert await bot.tell(talk, aside, mention, after) == [200] * 4

    assert bot.core.texts == ["How long?", "And then?"]
    assert len({event.address.key for event in bot.core.events}) == 1


async def test_a_thread_in_which_the_bot_answered_is_its_own(
    slack: SlackService,
) -> None:
    talk = slack.customer.message("Lunch?", channel="C1")

    async with connected(slack) as bot:
        await bot.connector.send(thread("C1", talk.ts), Reply(text="Noon."), KEY)
        await bot.tell(slack.customer.message("Sure?", channel="C1", thread_ts=talk.ts))

    assert bot.core.texts == ["Sure?"]


async def test_pressed_feedback_and_buttons_name_their_turn(
    slack: SlackService,
) -> None:
    mention, _ = slack.customer.mention("How long?")
    reply = Reply(
        text="Five.", feedback=True, buttons=[Button(text="Why", payload="/why")]
    )

    async with connected(slack) as bot:
        sent = await bot.connector.send(thread("C1", mention.ts), reply, KEY)
        stamp = sent.ids[0]
        button = slack.message(stamp).buttons[0]
        await bot.tell(
            mention,
            slack.customer.feedback(stamp, good=True),
            slack.customer.feedback(stamp, good=False),
            slack.customer.button(button["action_id"], button["value"], stamp),
        )

    asked, good, bad, pressed = bot.core.events
    assert [good.kind, bad.kind, pressed.kind] == ["feedback", "feedback", "button"]
    assert good.data == {"turn": KEY, "rating": 1}
    assert bad.data == {"turn": KEY, "rating": -1}
    assert pressed.data == {"turn": KEY, "button": 0}
    assert {asked.address.key} == {e.address.key for e in (good, bad, pressed)}


@pytest.mark.parametrize(
    ("emoji", "removed", "rating"),
    [
        ("+1", False, 1),
        ("thumbsup::skin-tone-4", False, 1),
        ("heart", False, 1),
        ("-1::skin-tone-2", False, -1),
        ("+1", True, 0),
    ],
)
async def test_a_reaction_to_a_reply_is_feedback(
    slack: SlackService, emoji: str, *, removed: bool, rating: int
) -> None:
    mention, _ = slack.customer.mention("How long?")

    async with connected(slack) as bot:
        sent = await bot.connector.send(
            thread("C1", mention.ts), Reply(text="Five."), KEY
        )
        told = slack.customer.reaction(emoji, sent.ids[0])
        if removed:
            told = slack.customer.reaction(emoji, sent.ids[0], removed=True)
        await bot.tell(told)

    (event,) = bot.core.events
    assert event.kind == "feedback"
    assert event.data == {"turn": KEY, "rating": rating}
    assert event.address.thread == mention.ts


async def test_other_reactions_are_of_no_concern(slack: SlackService) -> None:
    theirs = slack.customer.message("Hi", channel="C1")

    async with connected(slack) as bot:
        await bot.tell(
            slack.customer.reaction("tada", theirs.ts),
            slack.customer.reaction("+1", theirs.ts),
        )

    assert not bot.core.events


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("why", "command", "why"),
        ("bot", "command", "bot"),
        ("Forget", "command", "forget"),
        ("/order 12", "command", "order 12"),
        ("", "command", "help"),
        ("stop", "cancel", ""),
        ("why is it slow?", "message", "why is it slow?"),
    ],
)
async def test_a_slash_command_is_a_command_or_a_question(
    slack: SlackService, text: str, kind: str, said: str
) -> None:
    async with connected(slack) as bot:
        assert await bot.tell(slack.customer.slash(text)) == [200]

    (event,) = bot.core.events
    assert (event.kind, event.text) == (kind, said)
    assert event.address.thread is None


async def test_where_the_bot_is_not_a_command_is_answered_where_slack_says(
    slack: SlackService,
) -> None:
    async with connected(slack) as bot:
        await bot.tell(slack.customer.slash("why", channel="C2"))
        address = bot.core.events[0].address
        first = await bot.connector.send(address, Reply(text="Because."), KEY)
        second = await bot.connector.send(address, Reply(text="Because."), KEY)

    assert first == second
    ((_, answer),) = slack.responses
    assert answer["blocks"][0]["text"] == "Because."
    assert answer["response_type"] == "ephemeral"


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.com/commands/1",
        "https://hooks.slack.com.evil.example/1",
        "https://evil@hooks.slack.com/1",
        "https://hooks.slack.com:8443/1",
        "https://127.0.0.1/1",
        "http://[::1]/1",
        "http://2130706433/",
        "file:///etc/passwd",
        "https://hooks.slack.com\\@evil.example/",
        "http://127.0.0.1:99999999/",
    ],
)
async def test_only_slacks_own_address_is_answered_to(
    slack: SlackService, url: str
) -> None:
    async with connected(slack) as bot:
        await bot.tell(slack.customer.slash("why", channel="C2", response_url=url))

        assert not [kept for kept in bot.shelf.kept.values() if url.encode() in kept]
    assert len(bot.core.events) == 1


async def test_an_app_that_is_taken_away_is_forgotten(slack: SlackService) -> None:
    async with connected(slack) as bot:
        await bot.tell(slack.customer.message("Hi"))
        gone = slack.uninstall()
        late = slack.customer.message("Still there?")

        assert await bot.tell(gone, late) == [200, 200]
    assert bot.core.texts == ["Hi"]


async def test_a_persons_revoked_token_is_not_the_bots(slack: SlackService) -> None:
    content = slack.customer.tokens_revoked().content
    content["event"]["tokens"] = {"oauth": ["U1"], "bot": []}

    async with connected(slack) as bot:
        await bot.tell(slack.customer.message("Hi"), Payload(content))
        await bot.tell(slack.customer.message("There?"))

    assert bot.core.texts == ["Hi", "There?"]
    assert len(slack.calls_of("auth.test")) == 1


async def test_a_request_of_ours_reads_as_json(slack: SlackService) -> None:
    told = slack.customer.message("Grüße <https://x.org|x> &lt;3")

    async with connected(slack) as bot:
        await bot.connector.respond(signed(orjson.dumps(told.content)))

    assert bot.core.texts == ["Grüße x (https://x.org) <3"]


async def test_a_button_of_a_message_that_was_answered_to_is_of_its_conversation(
    slack: SlackService,
) -> None:
    async with connected(slack) as bot:
        told = slack.customer.message("How long?")
        sent = await bot.connector.send(
            thread("D1", None), Reply(text="Five.", feedback=True), KEY
        )
        # Slack names a message that has answers as its own thread.
        slack.message(sent.ids[0]).thread_ts = sent.ids[0]
        await bot.tell(told, slack.customer.feedback(sent.ids[0], good=True))

    asked, judged = bot.core.events
    assert judged.address.key == asked.address.key


@pytest.mark.parametrize("fault", [DropAfter(), DropBefore()])
async def test_an_answer_to_a_command_that_was_lost_is_not_given_twice(
    slack: SlackService, fault: DropAfter | DropBefore
) -> None:
    slack.fail("response_url", fault)

    async with connected(slack) as bot:
        await bot.tell(slack.customer.slash("why", channel="C2"))
        address = bot.core.events[0].address
        first = await bot.connector.send(address, Reply(text="Because."), KEY)
        second = await bot.connector.send(address, Reply(text="Because."), KEY)

    assert first.status == second.status == "unknown"
    assert len(slack.responses) == (fault == DropAfter())
