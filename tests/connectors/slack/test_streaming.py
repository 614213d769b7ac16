from __future__ import annotations

import asyncio
from functools import partial

import pytest

from bot.errors import DeliveryError
from bot.model import Citation, Reply
from tests.connectors.slack.bot_on_slack import MemoryShelf
from tests.connectors.slack.connected import KEY, Connected, connected, thread
from tests.connectors.slack.faults import (
    DropAfter,
    DropBefore,
    Error,
    Held,
    RateLimited,
)
from tests.connectors.slack.service import SlackService

WHOLE = Reply(text="Five days. Or six. It depends.", feedback=True)


def asked(slack: SlackService, channel: str = "C1") -> str:
    return slack.customer.message("How long?", channel=channel).ts


async def grow(
    bot: Connected, stamp: str | None, *texts: str, chat: str = "C1"
) -> None:
    """Show frames, far enough apart for each of them to be shown."""
    for text in texts:
        await bot.connector.frame(thread(chat, stamp), text)
        bot.time.pass_(4)


async def test_a_stream_becomes_the_reply(slack: SlackService) -> None:
    stamp = asked(slack)
    cited = Reply(
        text=WHOLE.text, feedback=True, citations=[Citation(source="a", passage="1")]
    )

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five", "Five days. Or")
        growing = slack.shown("C1")
        sent = await bot.connector.send(thread("C1", stamp), cited, KEY)
        found = await bot.connector.find(thread("C1", stamp), KEY)

    assert growing == ["Five days. Or"]
    assert slack.shown("C1") == [WHOLE.text]
    message = slack.message(sent.ids[0])
    assert message.streaming == "done"
    assert message.context == ["Sources: a"]
    assert message.feedback is not None
    assert found == sent
    assert not slack.calls_of("chat.update")
    assert not slack.calls_of("chat.postMessage")


async def test_a_stream_in_a_channel_names_for_whom_it_is(slack: SlackService) -> None:
    async with connected(slack) as bot:
        slack.customer.home_team = "T77"
        told = slack.customer.mention("How long?")
        await bot.tell(*told)
        await grow(bot, told[0].ts, "Five")

    (call,) = slack.calls_of("chat.startStream")
    assert call.arguments["recipient_user_id"] == "U1"
    assert call.arguments["recipient_team_id"] == "T77"


async def test_frames_that_come_too_fast_are_left_out(slack: SlackService) -> None:
    stamp = asked(slack)

    async with connected(slack) as bot:
        for text in ("Five", "Five days", "Five days."):
            await bot.connector.frame(thread("C1", stamp), text)
        bot.time.pass_(1)
        await bot.connector.frame(thread("C1", stamp), "Five days. Or")

    assert slack.shown("C1") == ["Five days. Or"]
    assert len(slack.calls_of("chat.appendStream")) == 1


async def test_a_text_that_changed_is_put_right_at_the_end(slack: SlackService) -> None:
    stamp = asked(slack)

    async with connected(slack) as bot:
        await grow(bot, stamp, "Six weeks", "Seven")
        await bot.connector.send(thread("C1", stamp), WHOLE, KEY)

    assert slack.shown("C1") == [WHOLE.text]
    assert len(slack.calls_of("chat.update")) == 1


async def test_a_stream_goes_on_in_a_new_one_before_it_dies(
    slack: SlackService,
) -> None:
    stamp = asked(slack)

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five")
        bot.time.pass_(240)
        await grow(bot, stamp, "Five days.", "Five days. Or six.")
        growing = slack.shown("C1")
        sent = await bot.connector.send(thread("C1", stamp), WHOLE, KEY)

    assert growing == ["Five", " days. Or six."]
    assert slack.shown("C1") == [WHOLE.text]
    assert len(sent.ids) == 1


@pytest.mark.parametrize("dies_before", ["frame", "reply"])
async def test_a_stream_that_died_is_edited_once(
    slack: SlackService, dies_before: str
) -> None:
    stamp = asked(slack)

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five")
        slack.expire(slack.said("C1")[0].ts)
        if dies_before == "frame":
            await grow(bot, stamp, "Five days.", "Five days. Or", "Five days. Or six.")
        await bot.connector.send(thread("C1", stamp), WHOLE, KEY)

    assert slack.shown("C1") == [WHOLE.text]
    assert len(slack.calls_of("chat.update")) == 1
    assert len(slack.calls_of("chat.appendStream")) == (dies_before == "frame")


async def test_a_stop_that_is_noticed_by_a_frame_stops_the_turn(
    slack: SlackService,
) -> None:
    stamp = asked(slack)

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five")
        told = slack.customer.session_stopped(stamp, channel="C1")
        await grow(bot, stamp, "Five days.")
        assert await bot.tell(told) == [200]
        await bot.errands()
        await bot.connector.send(thread("C1", stamp), Reply(text="Stopped."), KEY)
        events = bot.core.events

    assert [event.kind for event in events] == ["cancel", "cancel"]
    assert len({event.id for event in events}) == 1
    assert slack.state.sessions["C1", stamp] == "active"
    assert slack.shown("C1") == ["Stopped."]


async def test_without_a_thread_one_message_is_edited_now_and_then(
    slack: SlackService,
) -> None:
    async with connected(slack) as bot:
        await bot.connector.frame(thread("D1", None), "Five")
        bot.time.pass_(2)
        await bot.connector.frame(thread("D1", None), "Five days.")
        early = slack.shown("D1")
        bot.time.pass_(1)
        await bot.connector.frame(thread("D1", None), "Five days. Or")
        late = slack.shown("D1")
        sent = await bot.connector.send(thread("D1", None), WHOLE, KEY)

    assert early == ["Five"]
    assert late == ["Five days. Or"]
    assert slack.shown("D1") == [WHOLE.text]
    assert slack.message(sent.ids[0]).metadata["event_payload"]["key"] == KEY


async def test_a_workspace_without_streams_gets_edits(slack: SlackService) -> None:
    stamp = asked(slack)
    slack.fail("chat.startStream", Error("feature_not_enabled"))

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five", "Five days.", "Five days. Or")
        growing = slack.shown("C1")
        await bot.connector.send(thread("C1", stamp), WHOLE, KEY)

    assert growing == ["Five days. Or"]
    assert len(slack.calls_of("chat.startStream")) == 1
    assert slack.shown("C1") == [WHOLE.text]


async def test_where_there_is_no_room_the_reply_comes_whole(
    slack: SlackService,
) -> None:
    stamp = asked(slack)
    slack.fail("chat.startStream", RateLimited(60))

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five", "Five days.", "Five days. Or")
        growing = slack.shown("C1")
        await bot.connector.send(thread("C1", stamp), WHOLE, KEY)

    assert growing == []
    assert len(slack.calls_of("chat.startStream")) == 1
    assert slack.shown("C1") == [WHOLE.text]


async def test_no_more_streams_are_begun_than_slack_allows(slack: SlackService) -> None:
    async with connected(slack) as bot:
        for _ in range(30):
            stamp = asked(slack)
            await bot.connector.frame(thread("C1", stamp), "Five")

    assert len(slack.calls_of("chat.startStream")) == 5


@pytest.mark.parametrize("chat", ["C1", "D1"])
@pytest.mark.parametrize("fault", [DropAfter(), DropBefore()])
async def test_a_beginning_whose_answer_is_lost_becomes_the_reply(
    slack: SlackService, chat: str, fault: DropAfter | DropBefore
) -> None:
    stamp = asked(slack, chat) if chat == "C1" else None
    slack.fail("chat.startStream" if chat == "C1" else "chat.postMessage", fault)

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five", "Five days.", chat=chat)
        await bot.connector.send(thread(chat, stamp), WHOLE, KEY)

    assert slack.shown(chat) == [WHOLE.text]


@pytest.mark.parametrize("chat", ["C1", "D1"])
async def test_another_process_finishes_the_same_message(
    slack: SlackService, chat: str
) -> None:
    stamp = asked(slack, chat) if chat == "C1" else None
    shelf = MemoryShelf()

    async with connected(slack, shelf) as first:
        await grow(first, stamp, "Five", "Five days.", chat=chat)
    async with connected(slack, shelf) as second:
        await second.connector.send(thread(chat, stamp), WHOLE, KEY)

    assert slack.shown(chat) == [WHOLE.text]
    assert len(slack.said(chat)) == 1


@pytest.mark.parametrize("method", ["chat.stopStream", "chat.update"])
@pytest.mark.parametrize("fault", [DropAfter(), DropBefore()])
async def test_an_ending_whose_answer_is_lost_is_ended_again(
    slack: SlackService, method: str, fault: DropAfter | DropBefore
) -> None:
    stamp = asked(slack)
    slack.fail(method, fault)

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five" if method == "chat.stopStream" else "Six")
        ends = partial(bot.connector.send, thread("C1", stamp), WHOLE, KEY)
        if method == "chat.update":
            with pytest.raises(DeliveryError) as refused:
                await ends()
            assert refused.value.retryable
        await ends()

    assert slack.shown("C1") == [WHOLE.text]


async def test_a_message_that_was_deleted_is_posted_anew(slack: SlackService) -> None:
    stamp = asked(slack)

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five")
        slack.state.remove(slack.said("C1")[0])
        await bot.connector.send(thread("C1", stamp), WHOLE, KEY)

    assert slack.shown("C1") == [WHOLE.text]


async def test_a_long_reply_goes_on_below_its_stream(slack: SlackService) -> None:
    stamp = asked(slack)
    text = "\n\n".join(f"Paragraph {n} " + "word " * 500 for n in range(10))

    async with connected(slack) as bot:
        await grow(bot, stamp, text[:9000], text[:15_000], text[:20_000])
        await bot.connector.send(thread("C1", stamp), Reply(text=text), KEY)

    assert "\n\n".join(slack.shown("C1")).split() == text.split()
    assert len(slack.said("C1")) == 3


async def test_a_frame_that_takes_its_time_is_waited_for(slack: SlackService) -> None:
    stamp = asked(slack)
    held = Held()
    slack.fail("chat.startStream", held)

    async with connected(slack) as bot:
        frame = asyncio.create_task(bot.connector.frame(thread("C1", stamp), "Five"))
        await held.came.wait()
        frame.cancel()
        sending = asyncio.create_task(
            bot.connector.send(thread("C1", stamp), WHOLE, KEY)
        )
        await asyncio.sleep(0)
        held.go.set()
        await sending

    assert slack.shown("C1") == [WHOLE.text]


async def test_the_next_reply_is_a_message_of_its_own(slack: SlackService) -> None:
    stamp = asked(slack)

    async with connected(slack) as bot:
        await grow(bot, stamp, "Five")
        await bot.connector.send(thread("C1", stamp), WHOLE, KEY)
        await bot.connector.send(thread("C1", stamp), Reply(text="No."), "b" * 16)

    assert slack.shown("C1") == [WHOLE.text, "No."]


async def test_a_frame_that_comes_with_the_reply_is_left_out(
    slack: SlackService,
) -> None:
    stamp = asked(slack)
    held = Held()
    slack.fail("chat.postMessage", held)

    async with connected(slack) as bot:
        sending = asyncio.create_task(
            bot.connector.send(thread("C1", stamp), WHOLE, KEY)
        )
        await held.came.wait()
        frame = asyncio.create_task(bot.connector.frame(thread("C1", stamp), "Five"))
        await asyncio.sleep(0)
        held.go.set()
        await asyncio.gather(sending, frame)

    assert slack.shown("C1") == [WHOLE.text]


@pytest.mark.parametrize("chat", ["C1", "D1"])
async def test_a_process_notices_that_another_one_has_finished_its_draft(
    slack: SlackService, chat: str
) -> None:
    stamp = asked(slack, chat) if chat == "C1" else None
    shelf = MemoryShelf()

    async with connected(slack, shelf) as one, connected(slack, shelf) as other:
        await grow(one, stamp, "Five", chat=chat)
        await grow(other, stamp, "Five days.", chat=chat)
        await other.connector.send(thread(chat, stamp), WHOLE, KEY)
        await grow(one, stamp, "No", chat=chat)
        await one.connector.send(thread(chat, stamp), Reply(text="No."), "b" * 16)

    assert slack.shown(chat) == [WHOLE.text, "No."]
