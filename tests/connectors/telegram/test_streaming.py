"""A reply while it is written: drafts for people, one growing message for groups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from bot.errors import DeliveryError
from bot.model import Reply
from connectors.telegram import Telegram, streams
from tests.connectors.telegram.chats import ANN
from tests.connectors.telegram.limits import units
from tests.connectors.telegram.service import TelegramService
from tests.connectors.telegram.shelf import DictShelf
from tests.connectors.telegram.talking import (
    OTHER,
    TURN,
    FakeTime,
    a_telegram,
    address,
    listening,
)
from tests.connectors.telegram.wire import (
    BadRequest,
    DropAfter,
    FloodWait,
    Hang,
    Slow,
    Status,
    Well,
)

HERE = address(ANN.id, ANN.id)
FRAME_S = 0.25  # the core's pace


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def shelf() -> DictShelf:
    return DictShelf()


@pytest.fixture
async def connector(
    service: TelegramService, shelf: DictShelf, time: FakeTime
) -> AsyncIterator[Telegram]:
    made = a_telegram(service, shelf=shelf, clock=time)
    service.private()
    yield made
    await made.bot_stopped()


# Drafts


async def test_a_person_sees_one_draft_that_grows_and_then_the_reply(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    for text in ("Five", "Five **days**", "Five **days**."):
        await connector.frame(HERE, text)
        time.now += FRAME_S
    await connector.send(HERE, Reply(text="Five **days**. Or six."), TURN)

    drafts = service.chats[ANN.id].drafts
    assert [draft.text for draft in drafts] == ["Five", "Five days", "Five days."]
    assert len({draft.id for draft in drafts}) == 1
    assert all(draft.can_stop for draft in drafts)
    assert service.shown() == ["Five days. Or six."]
    assert service.draft() is None


async def test_the_next_reply_has_a_draft_of_its_own(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    for turn in (TURN, OTHER):
        await connector.frame(HERE, "Five")
        await connector.send(HERE, Reply(text="Five."), turn)
        time.now += 10

    assert len({draft.id for draft in service.chats[ANN.id].drafts}) == 2


async def test_stop_under_a_draft_cancels_the_turn(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.frame(HERE, "Five")

    async with listening(connector) as core:
        await service.until(lambda: service.updates.asked_for)
        service.stop()
        event = await core.next()

    assert (event.kind, event.address) == ("cancel", HERE)


async def test_a_draft_is_as_long_as_a_message_may_be(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.frame(HERE, "🚲" * 5000)

    (draft,) = service.drafts()
    assert units(draft) == 4096


async def test_what_did_not_change_is_not_shown_again(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    for text in ("Five", "Five", "Five "):
        await connector.frame(HERE, text)
        time.now += FRAME_S

    assert service.drafts() == ["Five"]


async def test_nothing_yet_is_no_draft(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.frame(HERE, " \n")

    assert service.drafts() == []


async def test_drafts_that_fail_three_times_are_given_up_until_the_next_reply(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    service.fail("sendMessageDraft", *[BadRequest("no drafts here")] * 3)
    for number in range(6):
        await connector.frame(HERE, f"frame {number}")
        time.now += FRAME_S
    await connector.send(HERE, Reply(text="Five."), TURN)
    await connector.frame(HERE, "again")

    assert len(service.called("sendMessageDraft")) == 4
    assert service.drafts() == ["again"]
    assert service.shown() == ["Five."]


async def test_failures_between_successes_are_forgotten(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    fails = BadRequest("not now")
    service.fail("sendMessageDraft", fails, fails, Well(), fails, fails, Well())

    for number in range(6):
        await connector.frame(HERE, f"frame {number}")
        time.now += FRAME_S

    assert service.drafts() == ["frame 2", "frame 5"]


async def test_a_penalty_skips_drafts_and_holds_up_no_reply(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    service.fail("sendMessageDraft", FloodWait(30))
    for number in range(10):
        await connector.frame(HERE, f"frame {number}")
        time.now += FRAME_S
    await connector.send(HERE, Reply(text="Five."), TURN)

    assert len(service.called("sendMessageDraft")) == 1
    assert service.shown() == ["Five."]
    assert time.slept == []


async def test_a_draft_that_is_slow_is_not_waited_for(
    service: TelegramService, connector: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FRAME_S", 0.05)
    service.fail("sendMessageDraft", Slow(5))

    async with asyncio.timeout(2):
        await connector.frame(HERE, "Five")


# Groups


@pytest.fixture
def group(service: TelegramService) -> int:
    return service.supergroup()


async def test_a_group_sees_one_message_that_grows_into_the_reply(
    service: TelegramService, connector: Telegram, group: int, time: FakeTime
) -> None:
    seen = []
    for number in range(80):
        await connector.frame(address(group, ANN.id), f"**frame** {number}")
        seen.append(service.shown(group))
        time.now += FRAME_S
    await connector.send(address(group, ANN.id), Reply(text="**Five.**"), TURN)

    assert seen[0] == ["frame 0"]
    assert {len(shown) for shown in seen} == {1}
    assert service.shown(group) == ["Five."]
    assert len(service.called("sendMessage")) == 1
    times = [call.at for call in service.called("editMessageText")]
    assert 3 <= len(times) <= 8


async def test_edits_keep_their_distance(
    service: TelegramService, connector: Telegram, group: int, time: FakeTime
) -> None:
    service.clock = time
    for number in range(100):
        await connector.frame(address(group), f"frame {number}")
        time.now += FRAME_S

    calls = service.called("sendMessage", "editMessageText")
    between = [two.at - one.at for one, two in pairwise(calls)]
    assert min(between) >= 3.1


async def test_frames_leave_room_for_replies(
    service: TelegramService, connector: Telegram, group: int, time: FakeTime
) -> None:
    for number in range(100):
        await connector.frame(address(group), f"frame {number}")
        time.now += FRAME_S
    for number in range(4):
        other = address(group, thread=None, user=number)
        await connector.send(other, Reply(text=f"reply {number}"), f"{number:016x}")

    assert time.slept == []
    assert len(service.shown(group)) == 4


async def test_a_long_reply_begins_in_the_message_that_grew(
    service: TelegramService, connector: Telegram, group: int
) -> None:
    long = "\n\n".join(f"part {number} " + "word " * 700 for number in (1, 2))
    await connector.frame(address(group), "part")
    grown = service.last(group)["message_id"]

    sent = await connector.send(address(group), Reply(text=long, feedback=True), TURN)

    assert sent.ids[0] == str(grown)
    assert [text[:6] for text in service.shown(group)] == ["part 1", "part 2"]
    assert "reply_markup" not in service.message(group, grown)
    assert "reply_markup" in service.last(group)


async def test_after_a_crash_another_process_finishes_the_message_that_grew(
    service: TelegramService, connector: Telegram, group: int, shelf: DictShelf
) -> None:
    await connector.frame(address(group), "Fi")
    other = a_telegram(service, shelf=shelf)

    await other.send(address(group), Reply(text="Five."), TURN)
    await other.send(address(group), Reply(text="And six."), OTHER)
    await other.bot_stopped()

    assert service.shown(group) == ["Five.", "And six."]


async def test_after_a_crash_in_an_edit_the_edit_is_made_again(
    service: TelegramService, connector: Telegram, group: int, shelf: DictShelf
) -> None:
    await connector.frame(address(group), "Fi")
    service.fail("editMessageText", Hang())
    reply = Reply(text="Five.")
    dying = asyncio.create_task(connector.send(address(group), reply, TURN))
    await service.until(lambda: service.called("editMessageText"))
    dying.cancel()
    await asyncio.wait({dying})
    other = a_telegram(service, shelf=shelf)

    found = await other.find(address(group), TURN)
    sent = await other.send(address(group), reply, TURN)
    await other.bot_stopped()

    assert found is None
    assert sent.status == "ok"
    assert service.shown(group) == ["Five."]


async def test_a_first_frame_of_which_nobody_knows_ends_the_frames(
    service: TelegramService, connector: Telegram, group: int, time: FakeTime
) -> None:
    service.fail("sendMessage", DropAfter())
    for number in range(40):
        await connector.frame(address(group), f"frame {number}")
        time.now += FRAME_S
    await connector.send(address(group), Reply(text="Five."), TURN)

    assert len(service.called("sendMessage")) == 2
    assert service.called("editMessageText") == []
    assert service.shown(group)[-1] == "Five."


async def test_an_edit_of_which_nobody_knows_is_made_again(
    service: TelegramService, connector: Telegram, group: int, time: FakeTime
) -> None:
    await connector.frame(address(group), "Fi")
    service.fail("editMessageText", DropAfter())

    with pytest.raises(DeliveryError) as error:
        await connector.send(address(group), Reply(text="Five."), TURN)
    time.now += error.value.retry_after_s or 0
    sent = await connector.send(address(group), Reply(text="Five."), TURN)

    assert error.value.retryable
    assert sent.status == "ok"  # "message is not modified" is a success
    assert service.shown(group) == ["Five."]


async def test_a_reply_that_waits_still_ends_in_the_message_that_grew(
    service: TelegramService, connector: Telegram, group: int, time: FakeTime
) -> None:
    await connector.frame(address(group), "Fi")
    service.fail("editMessageText", FloodWait(137))

    with pytest.raises(DeliveryError) as error:
        await connector.send(address(group), Reply(text="Five."), TURN)
    time.now += 137
    await connector.send(address(group), Reply(text="Five."), TURN)

    assert error.value.retry_after_s == 137
    assert service.shown(group) == ["Five."]


async def test_a_growing_message_that_somebody_deleted_is_sent_anew(
    service: TelegramService, connector: Telegram, group: int
) -> None:
    await connector.frame(address(group), "Fi")
    service.chats[group].messages.clear()

    sent = await connector.send(address(group), Reply(text="Five."), TURN)

    assert sent.status == "ok"
    assert service.shown(group) == ["Five."]


async def test_a_frame_that_is_slow_is_in_place_before_the_reply(
    service: TelegramService,
    connector: Telegram,
    group: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "FRAME_S", 0.05)
    service.fail("sendMessage", Slow(0.5))

    await connector.frame(address(group), "Fi")
    await connector.send(address(group), Reply(text="Five."), TURN)

    assert service.shown(group) == ["Five."]


async def test_entities_that_are_refused_in_an_edit_cost_the_formats_only(
    service: TelegramService, connector: Telegram, group: int
) -> None:
    await connector.frame(address(group), "Fi")
    service.fail("editMessageText", BadRequest("can't parse entities: no idea"))

    await connector.send(address(group), Reply(text="**Five.**"), TURN)

    assert service.shown(group) == ["Five."]


async def test_a_frame_that_fails_is_no_error(
    service: TelegramService, connector: Telegram, group: int, time: FakeTime
) -> None:
    service.fail("sendMessage", Status(502))

    await connector.frame(address(group), "Fi")
    time.now += 10
    await connector.frame(address(group), "Fiv")
    await connector.send(address(group), Reply(text="Five."), TURN)

    assert service.shown(group) == ["Five."]


async def test_typing_gives_way_to_the_words(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.status(HERE, "Thinking …")

    await connector.frame(HERE, "Five")

    assert connector._service()._presence._typing == {}
