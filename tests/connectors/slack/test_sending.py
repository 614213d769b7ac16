from __future__ import annotations

import asyncio

import pytest

from bot.errors import DeliveryError
from bot.model import Button, Citation, Reply
from tests.connectors.slack.bot_on_slack import MemoryShelf
from tests.connectors.slack.connected import (
    KEY,
    FailingShelf,
    Time,
    connected,
    made,
    thread,
)
from tests.connectors.slack.faults import (
    DropAfter,
    DropBefore,
    Error,
    ErrorAfter,
    Fine,
    Held,
    RateLimited,
    Status,
)
from tests.connectors.slack.service import SlackService

LONG = "\n\n".join(f"Paragraph {number} " + "word " * 500 for number in range(10))


def asked(slack: SlackService, channel: str = "C1") -> str:
    """Say something in a channel; return the stamp that its thread goes by."""
    return slack.customer.message("How long?", channel=channel).ts


async def test_a_reply_appears_in_its_thread_with_sources_and_feedback(
    slack: SlackService,
) -> None:
    stamp = asked(slack)
    reply = Reply(
        text="**Five** days.",
        citations=[
            Citation(
                source="a.md", passage="1", title="A <b>", url="https://x.org/a|b"
            ),
            Citation(source="b.md", passage="2"),
            Citation(source="b.md", passage="3"),
        ],
        feedback=True,
    )

    async with connected(slack) as bot:
        sent = await bot.connector.send(thread("C1", stamp), reply, KEY)

    message = slack.message(sent.ids[0])
    assert message.thread_ts == stamp
    assert message.shown == "**Five** days."
    assert message.context == ["Sources: <https://x.org/a%7Cb|A &lt;b&gt;>  ·  b.md"]
    assert message.feedback is not None
    assert message.metadata["event_payload"] == {"key": KEY, "part": 1, "parts": 1}
    (call,) = slack.calls_of("chat.postMessage")
    assert call.arguments["unfurl_links"] is False
    assert call.arguments["unfurl_media"] is False


async def test_no_feedback_is_asked_for_where_the_operator_does_not_want_it(
    slack: SlackService,
) -> None:
    async with connected(slack, feedback=False) as bot:
        sent = await bot.connector.send(
            thread("D1", None), Reply(text="Yes.", feedback=True), KEY
        )

    assert slack.message(sent.ids[0]).feedback is None


async def test_buttons_say_their_turn_and_place_and_nothing_else(
    slack: SlackService,
) -> None:
    buttons = [
        Button(text="Yes " * 30, payload="/secret"),
        Button(text="No", payload="n"),
    ]

    async with connected(slack) as bot:
        sent = await bot.connector.send(
            thread("D1", None), Reply(text="Sure?", buttons=buttons), KEY
        )

    shown = slack.message(sent.ids[0]).buttons
    assert [button["value"] for button in shown] == [f"{KEY}:0", f"{KEY}:1"]
    assert len(shown[0]["text"]["text"]) == 75


async def test_a_long_reply_comes_in_parts_in_order(slack: SlackService) -> None:
    async with connected(slack) as bot:
        sent = await bot.connector.send(thread("D1", None), Reply(text=LONG), KEY)

    assert len(sent.ids) == 3
    assert "\n\n".join(slack.shown("D1")).split() == LONG.split()


async def test_posts_to_one_channel_are_a_second_apart(slack: SlackService) -> None:
    async with connected(slack) as bot:
        await bot.connector.send(thread("D1", None), Reply(text=LONG), KEY)

        assert bot.time.slept == pytest.approx([1, 1])


async def test_a_second_call_sends_nothing(slack: SlackService) -> None:
    async with connected(slack) as bot:
        first = await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)
        second = await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)

    assert first == second
    assert slack.shown("D1") == ["Yes."]


async def test_a_limit_in_the_middle_goes_on_after_it(slack: SlackService) -> None:
    slack.fail("chat.postMessage", Fine(), RateLimited(7))

    async with connected(slack) as bot:
        with pytest.raises(DeliveryError) as refused:
            await bot.connector.send(thread("D1", None), Reply(text=LONG), KEY)
        assert refused.value.retryable
        assert refused.value.retry_after_s == 7
        bot.time.pass_(7)
        sent = await bot.connector.send(thread("D1", None), Reply(text=LONG), KEY)

    assert len(slack.shown("D1")) == len(sent.ids) == 3
    assert "\n\n".join(slack.shown("D1")).split() == LONG.split()


async def test_a_limit_of_slack_holds_for_everyone_of_the_workspace(
    slack: SlackService,
) -> None:
    slack.fail("chat.postMessage", RateLimited(30))

    async with connected(slack) as bot:
        with pytest.raises(DeliveryError):
            await bot.connector.send(thread("D1", None), Reply(text="One."), KEY)
        with pytest.raises(DeliveryError) as refused:
            await bot.connector.send(thread("D2", None), Reply(text="Two."), "b" * 16)

    assert refused.value.retryable
    assert refused.value.retry_after_s == pytest.approx(30)
    assert len(slack.calls_of("chat.postMessage")) == 1


@pytest.mark.parametrize(
    "fault", [DropAfter(), ErrorAfter("internal_error"), ErrorAfter("fatal_error")]
)
@pytest.mark.parametrize("chat", ["C1", "D1"])
async def test_a_post_whose_answer_is_lost_is_found(
    slack: SlackService, fault: DropAfter | ErrorAfter, chat: str
) -> None:
    address = thread(chat, asked(slack) if chat == "C1" else None)
    slack.fail("chat.postMessage", fault)

    async with connected(slack) as bot:
        sent = await bot.connector.send(address, Reply(text="Five."), KEY)
        found = await bot.connector.find(address, KEY)
        again = await bot.connector.send(address, Reply(text="Five."), KEY)

    assert sent.status == "unknown"
    assert found is not None
    assert again == found
    assert slack.shown(chat) == ["Five."]


@pytest.mark.parametrize("fault", [DropBefore(), Status(502), Error("internal_error")])
async def test_a_post_that_was_lost_is_sent_again(
    slack: SlackService, fault: DropBefore | Status | Error
) -> None:
    address = thread("C1", asked(slack))
    slack.fail("chat.postMessage", fault)

    async with connected(slack) as bot:
        sent = await bot.connector.send(address, Reply(text="Five."), KEY)
        found = await bot.connector.find(address, KEY)
        again = await bot.connector.send(address, Reply(text="Five."), KEY)

    assert sent.status == "unknown"
    assert found is None
    assert again.status == "ok"
    assert slack.shown("C1") == ["Five."]


async def test_what_is_there_of_a_long_reply_is_not_the_whole(
    slack: SlackService,
) -> None:
    slack.fail("chat.postMessage", Fine(), DropAfter())

    async with connected(slack) as bot:
        unknown = await bot.connector.send(thread("D1", None), Reply(text=LONG), KEY)
        found = await bot.connector.find(thread("D1", None), KEY)
        sent = await bot.connector.send(thread("D1", None), Reply(text=LONG), KEY)

    assert unknown.status == "unknown"
    assert found is None
    assert len(sent.ids) == len(slack.shown("D1")) == 3
    assert "\n\n".join(slack.shown("D1")).split() == LONG.split()


async def test_another_process_finishes_what_one_has_begun(slack: SlackService) -> None:
    shelf = MemoryShelf()
    slack.fail("chat.postMessage", Fine(), DropAfter())

    async with connected(slack, shelf) as first:
        await first.connector.send(thread("D1", None), Reply(text=LONG), KEY)
    async with connected(slack, shelf) as second:
        sent = await second.connector.send(thread("D1", None), Reply(text=LONG), KEY)

    assert len(sent.ids) == len(slack.shown("D1")) == 3


@pytest.mark.parametrize(
    ("code", "more", "says"),
    [
        ("not_in_channel", {}, "/invite"),
        ("is_archived", {}, "archived"),
        ("missing_scope", {"needed": "chat:write"}, "chat:write"),
        ("invalid_auth", {}, "Bot User OAuth Token"),
        ("something_new", {}, "'something_new'"),
    ],
)
async def test_a_refusal_says_what_to_do_and_is_final(
    slack: SlackService, code: str, more: dict[str, str], says: str
) -> None:
    slack.fail("chat.postMessage", Error(code, more))

    async with connected(slack) as bot:
        with pytest.raises(DeliveryError, match=says) as refused:
            await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)

    assert not refused.value.retryable


async def test_slacks_passing_trouble_is_tried_again(slack: SlackService) -> None:
    slack.fail("chat.postMessage", Error("service_unavailable"))

    async with connected(slack) as bot:
        with pytest.raises(DeliveryError) as refused:
            await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)

    assert refused.value.retryable


async def test_a_slack_that_cannot_be_reached_is_tried_again(
    slack: SlackService,
) -> None:
    connector = made(slack, Time(), api_url="http://127.0.0.1:9/api/")
    connector.keep_on(MemoryShelf())

    with pytest.raises(DeliveryError, match="cannot be reached") as refused:
        await connector.send(thread("D1", None), Reply(text="Yes."), KEY)

    assert refused.value.retryable


async def test_a_team_without_the_app_gets_nothing(slack: SlackService) -> None:
    async with connected(slack) as bot:
        address = thread("D1", None)
        with pytest.raises(DeliveryError, match="T9") as refused:
            await bot.connector.send(
                type(address)(platform="slack", account="T9", chat="D1"),
                Reply(text="Yes."),
                KEY,
            )

    assert not refused.value.retryable


async def test_nobody_is_notified_by_what_a_model_writes(slack: SlackService) -> None:
    text = "<!channel> <!here> <!subteam^S1> <@U2> ![x](https://evil.example/?q=1)"

    async with connected(slack) as bot:
        await bot.connector.send(thread("D1", None), Reply(text=text), KEY)

    (call,) = slack.calls_of("chat.postMessage")
    said = call.arguments["text"] + call.arguments["blocks"][0]["text"]
    for live in ("<!", "<@", "!["):
        assert live not in said
    assert "[x](https://evil.example/?q=1)" in said


async def test_a_token_that_cannot_read_leaves_it_open_what_became_of_a_post(
    slack: SlackService,
) -> None:
    slack.install("T1", slack.token, scopes=("chat:write",))
    slack.fail("chat.postMessage", DropAfter())

    async with connected(slack) as bot:
        sent = await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)
        with pytest.raises(DeliveryError, match="im:history") as refused:
            await bot.connector.find(thread("D1", None), KEY)
        again = await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)

    assert not refused.value.retryable
    assert sent.status == again.status == "unknown"
    assert slack.shown("D1") == ["Yes."]


@pytest.mark.parametrize("shown", [False, True])
async def test_a_store_that_is_away_leaves_the_reply_for_later(
    slack: SlackService, *, shown: bool
) -> None:
    shelf = FailingShelf()

    async with connected(slack, shelf) as bot:
        if shown:
            await bot.connector.frame(thread("D1", None), "Ye")
        shelf.away = True
        await bot.connector.frame(thread("D1", None), "Yes")
        with pytest.raises(DeliveryError, match="store is away") as unsent:
            await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)
        with pytest.raises(DeliveryError, match="store is away") as unfound:
            await bot.connector.find(thread("D1", None), KEY)
        assert unsent.value.retryable
        assert unfound.value.retryable
        shelf.away = False
        await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)

    assert slack.shown("D1") == ["Yes."]


async def test_a_store_that_goes_away_meanwhile_costs_no_second_copy(
    slack: SlackService,
) -> None:
    shelf = FailingShelf()
    held = Held()
    slack.fail("chat.postMessage", held)

    async with connected(slack, shelf) as bot:
        sending = asyncio.create_task(
            bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)
        )
        await held.came.wait()
        shelf.away = True
        held.go.set()
        sent = await sending
        shelf.away = False
        again = await bot.connector.send(thread("D1", None), Reply(text="Yes."), KEY)

    assert sent == again
    assert slack.shown("D1") == ["Yes."]


async def test_another_bots_message_is_not_taken_for_a_reply(
    slack: SlackService,
) -> None:
    stamp = asked(slack)
    payload = {"key": KEY, "part": 1, "parts": 1}
    slack.state.say(
        "C1",
        "U9",
        "Buy this.",
        bot_id="B9",
        thread_ts=stamp,
        metadata={"event_type": "chorus_reply", "event_payload": payload},
    )

    async with connected(slack) as bot:
        found = await bot.connector.find(thread("C1", stamp), KEY)

    assert found is None
