"""
The Slack connector when things go wrong: with Slack, with Redis, between processes.

Everything is real but Slack and the model: the connector as `chorus run` puts it
together, its web server, the conversation manager and a redis-server. Pauses are twenty
times shorter than by the clock. In the end each message has its answer, whole and once.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis

from bot.config import ConversationConfig
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.store import Store
from bot.model import Address, Reply
from tests.connectors.slack.bot_on_slack import (
    Author,
    Bot,
    Hurried,
    Running,
    a_connector,
    until,
)
from tests.connectors.slack.faults import (
    DropAfter,
    DropBefore,
    Error,
    ErrorAfter,
    Fault,
    Fine,
    Garbled,
    Held,
    RateLimited,
    Slow,
    Status,
)
from tests.connectors.slack.payloads import Payload, Retry
from tests.connectors.slack.service import SlackService
from tests.conversation.redis_processes import RedisServer

pytestmark = [pytest.mark.services, pytest.mark.timeout(60)]

ONE, TWO, THREE = "Refunds take five days.", "They go to your card.", "Ask for more."
ANSWER = f"{ONE} {TWO} {THREE}"
LONG = "\n\n".join(
    f"Paragraph {number}. " + "Notwithstanding considerable circumlocution. " * 25
    for number in range(30)
)
QUESTION = "How long does a refund take?"

FAULTS: dict[str, Fault] = {
    "rate limited": RateLimited(1),
    "no answer, not done": DropBefore(),
    "no answer, done": DropAfter(),
    "half an answer, done": Garbled(),
    "an error, not done": Error("internal_error"),
    "an error, done": ErrorAfter("internal_error"),
    "a passing error": Error("service_unavailable"),
    "bad gateway": Status(502),
    "unavailable": Status(503),
}
every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())

# `make faults` tries more.
SEEDS = 20 if os.environ.get("CHORUS_FAULTS") == "full" else 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def url(server: EmbeddedRedis) -> str:
    """Return the address of an empty server."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
def author() -> Author:
    return Author(answer_to)


@pytest.fixture
async def slack() -> AsyncIterator[SlackService]:
    async with SlackService(Hurried(20).clock) as service:
        yield service


@pytest.fixture
def whole(slack: SlackService, url: str, author: Author) -> Bot:
    """Return a bot that shows a reply only when it is whole."""
    return Bot(slack=slack, url=url, author=author, mode="replies")


@pytest.fixture
def growing(slack: SlackService, url: str, author: Author) -> Bot:
    """Return a bot that shows a reply while it is written."""
    return Bot(slack=slack, url=url, author=author, mode="blocks")


def answer_to(question: str) -> str:
    if "long story" in question:
        return LONG
    return ANSWER if question == QUESTION else f"You said {question}."


async def settled(running: Running, limit_s: float = 20) -> None:
    """Wait until nothing is left to do."""
    async with asyncio.timeout(limit_s):
        await running.manager.idle()


async def ask(slack: SlackService, *payloads: Payload) -> None:
    for payload in payloads:
        assert (await slack.deliver(payload)).status == 200


# Posts


@every_fault
@pytest.mark.parametrize("where", ["a direct message", "a thread"])
async def test_a_reply_is_there_once_whatever_becomes_of_its_post(
    whole: Bot, slack: SlackService, fault: Fault, where: str
) -> None:
    slack.fail("chat.postMessage", fault)
    customer = slack.customer

    async with whole.running() as running:
        if where == "a thread":
            await ask(slack, *customer.mention(QUESTION))
        else:
            await ask(slack, customer.message(QUESTION))
        await settled(running)

    assert [*slack.shown("C1"), *slack.shown("D1")] == [ANSWER]


@every_fault
async def test_each_part_of_a_long_reply_is_there_once_and_in_order(
    whole: Bot, slack: SlackService, fault: Fault
) -> None:
    slack.fail("chat.postMessage", Fine(), fault, fault)

    async with whole.running() as running:
        await ask(slack, *slack.customer.mention("Tell me a long story"))
        await settled(running)

    parts = slack.said("C1")
    numbers = [part.metadata["event_payload"]["part"] for part in parts]
    assert numbers == list(range(1, len(parts) + 1))
    assert len(parts) >= 3
    assert paragraphs("\n".join(part.shown for part in parts)) == list(range(30))


def paragraphs(text: str) -> list[int]:
    return [
        int(line.split(".")[0].removeprefix("Paragraph "))
        for line in text.splitlines()
        if line.startswith("Paragraph")
    ]


async def test_a_slow_slack_keeps_no_other_conversation_waiting(
    whole: Bot, slack: SlackService
) -> None:
    held = Held()
    slack.fail("chat.postMessage", held)

    async with whole.running() as running:
        await ask(slack, slack.customer.message("one", channel="D1"))
        await held.came.wait()
        await ask(slack, slack.customer.message("two", channel="D2", user="U2"))
        await until(lambda: bool(slack.shown("D2")), "D2 had no reply")
        before = slack.shown("D1")
        held.go.set()
        await settled(running)

    assert (before, slack.shown("D1")) == ([], ["You said one."])


async def test_a_limit_is_waited_out_and_not_asked_against(
    whole: Bot, slack: SlackService
) -> None:
    slack.fail("chat.postMessage", RateLimited(40))

    async with whole.running() as running:
        await ask(slack, slack.customer.message(QUESTION))
        await settled(running)

    first, second = slack.calls_of("chat.postMessage")
    assert second.at - first.at >= 40
    assert slack.shown("D1") == [ANSWER]


async def test_a_reply_that_slack_refuses_for_good_is_not_tried_again(
    whole: Bot, slack: SlackService
) -> None:
    slack.fail("chat.postMessage", Error("is_archived"))

    async with whole.running() as running:
        await ask(slack, slack.customer.message(QUESTION))
        await settled(running)
        await ask(slack, slack.customer.message("hello"))
        await settled(running)

    assert slack.shown("D1") == ["You said hello."]


async def test_where_nobody_may_look_a_doubtful_reply_is_not_sent_twice(
    whole: Bot, slack: SlackService
) -> None:
    slack.install("T1", slack.token, scopes=("chat:write", "assistant:write"))
    slack.fail("chat.postMessage", DropAfter())

    async with whole.running() as running:
        await ask(slack, slack.customer.message(QUESTION))
        await settled(running)

    assert slack.shown("D1") == [ANSWER]


async def test_a_look_that_fails_is_repeated_until_it_is_known(
    whole: Bot, slack: SlackService
) -> None:
    slack.fail("chat.postMessage", DropAfter())
    slack.fail(
        "conversations.history", DropBefore(), Status(503), RateLimited(1), Garbled()
    )

    async with whole.running() as running:
        await ask(slack, slack.customer.message(QUESTION))
        await settled(running)

    assert slack.shown("D1") == [ANSWER]


# Streams


async def grows(
    growing: Bot,
    slack: SlackService,
    author: Author,
    *faults: tuple[str, Fault],
    then: str = "",
) -> None:
    """Let a reply of three sentences grow in a thread, with these faults."""
    for method, fault in faults:
        slack.fail(method, fault)
    pen = author.hold(QUESTION)

    async with growing.running() as running:
        await ask(slack, *slack.customer.mention(QUESTION))
        for number in (1, 2, 3):
            await author.written(QUESTION, number)
            # As long as Slack wants between two looks of a stream, and a frame to come.
            await asyncio.sleep(0.15)
            if then == f"expire {number}":
                for message in slack.said("C1"):
                    slack.expire(message.ts)
            pen.release()
        await settled(running)


@every_fault
@pytest.mark.parametrize(
    "method", ["chat.startStream", "chat.appendStream", "chat.stopStream"]
)
async def test_a_reply_that_is_shown_growing_is_whole_and_once_in_the_end(
    growing: Bot, slack: SlackService, author: Author, method: str, fault: Fault
) -> None:
    await grows(growing, slack, author, (method, fault))

    assert slack.calls_of(method)
    assert slack.shown("C1") == [ANSWER]
    assert all(message.streaming != "open" for message in slack.said("C1"))


@every_fault
async def test_an_edit_that_fails_is_made_again(
    growing: Bot, slack: SlackService, author: Author, fault: Fault
) -> None:
    gone = ("chat.appendStream", Error("message_not_in_streaming_state"))

    await grows(growing, slack, author, gone, ("chat.update", fault), then="expire 2")

    assert slack.calls_of("chat.update")
    assert slack.shown("C1") == [ANSWER]


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_stream_that_dies_is_finished_by_an_edit(
    growing: Bot, slack: SlackService, author: Author, after: int
) -> None:
    await grows(growing, slack, author, then=f"expire {after}")

    assert slack.shown("C1") == [ANSWER]
    (message,) = slack.said("C1")
    assert message.metadata["event_payload"]["key"]


@pytest.mark.parametrize(
    "code",
    [
        "missing_recipient_team_id",
        "method_not_supported_for_channel_type",
        "missing_scope",
        "unknown_method",
        "team_not_found",
    ],
)
async def test_where_there_are_no_streams_the_reply_comes_all_the_same(
    growing: Bot, slack: SlackService, author: Author, code: str
) -> None:
    await grows(growing, slack, author, ("chat.startStream", Error(code)))

    assert slack.shown("C1") == [ANSWER]
    assert len(slack.calls_of("chat.startStream")) <= 3


async def test_a_long_reply_grows_and_is_whole_in_the_end(
    growing: Bot, slack: SlackService
) -> None:
    async with growing.running() as running:
        await ask(slack, *slack.customer.mention("Tell me a long story"))
        await settled(running)

    parts = slack.said("C1")
    assert paragraphs("\n".join(part.shown for part in parts)) == list(range(30))
    assert all(part.streaming != "open" for part in parts)


async def test_a_fallback_is_not_tried_for_ever(
    growing: Bot, slack: SlackService, author: Author
) -> None:
    slack.fail("chat.update", *[Error("streaming_state_conflict")] * 50)
    slack.fail("chat.stopStream", *[Error("internal_error")] * 50)

    await grows(growing, slack, author, then="expire 2")

    assert len(slack.calls_of("chat.update")) < 10
    assert ANSWER in slack.shown("C1")


async def test_a_message_that_somebody_deletes_while_it_grows_comes_again(
    growing: Bot, slack: SlackService, author: Author
) -> None:
    pen = author.hold(QUESTION)

    async with growing.running() as running:
        await ask(slack, *slack.customer.mention(QUESTION))
        await until(lambda: bool(slack.said("C1")), "no stream was begun")
        slack.state.remove(slack.said("C1")[0])
        pen.release(10)
        await settled(running)

    assert slack.shown("C1") == [ANSWER]


async def test_replies_in_one_thread_each_have_their_own_message(
    growing: Bot, slack: SlackService
) -> None:
    async with growing.running() as running:
        mention, message = slack.customer.mention("number 0")
        await ask(slack, mention, message)
        for number in range(1, 6):
            more = slack.customer.message(
                f"number {number}", channel="C1", thread_ts=mention.ts
            )
            await ask(slack, more)
        await settled(running)

    assert slack.shown("C1") == [f"You said number {n}." for n in range(6)]


# Stop


@pytest.mark.parametrize("told", ["by an event", "by an error"])
async def test_stop_ends_the_turn_and_its_stream(
    growing: Bot, slack: SlackService, author: Author, told: str
) -> None:
    pen = author.hold(QUESTION)

    async with growing.running() as running:
        mention, message = slack.customer.mention(QUESTION)
        await ask(slack, mention, message)
        await until(lambda: bool(slack.said("C1")), "no stream was begun")
        slack.state.sessions["C1", mention.ts] = "processing"
        stopped = slack.customer.session_stopped(mention.ts, channel="C1")
        if told == "by an event":
            await ask(slack, stopped)
        else:
            await asyncio.sleep(0.1)
            pen.release()
            await slack.called("chat.appendStream")
        await settled(running)
        await until(
            lambda: slack.state.sessions["C1", mention.ts] == "active",
            "the session still shows that the bot is at work",
        )

    assert len(slack.said("C1")) == 1
    assert THREE not in slack.shown("C1")[0]
    assert author.requests[0].cancelled is not None
    assert author.requests[0].cancelled.is_set()


# Deliveries


async def test_one_message_told_in_many_ways_is_answered_once(
    whole: Bot, slack: SlackService
) -> None:
    mention, message = slack.customer.mention(QUESTION)
    others = [{**mention.content, "event_id": f"Ev-{number}"} for number in range(9)]
    told = [mention, message, *map(Payload, others)]
    deliveries = [
        slack.deliver(payload, retry=Retry(number) if number else None)
        for number in range(4)
        for payload in told
    ]

    async with whole.running() as running:
        answers = await asyncio.gather(*deliveries)
        await settled(running)
        late = await slack.deliver(message, retry=Retry(3))
        await settled(running)

    assert {answer.status for answer in answers} == {late.status} == {200}
    assert slack.shown("C1") == [ANSWER]


async def test_messages_told_out_of_order_are_answered_once_each(
    whole: Bot, slack: SlackService
) -> None:
    said = [slack.customer.message(text) for text in ("one", "two", "three")]

    async with whole.running() as running:
        await ask(slack, said[1], said[0], said[2], said[0])
        await settled(running)

    told = sorted(slack.shown("D1"))
    assert told == ["You said one.", "You said three.", "You said two."]


async def test_an_edit_told_before_its_message_starts_no_turn(
    whole: Bot, slack: SlackService
) -> None:
    message = slack.customer.message(QUESTION)
    edited = slack.customer.edited(message.ts, "Never mind")

    async with whole.running() as running:
        await ask(slack, edited, message)
        await settled(running)

    assert slack.shown("D1") == [ANSWER]


async def test_a_button_pressed_twice_in_a_hurry_is_one_event_each(
    whole: Bot, slack: SlackService
) -> None:
    async with whole.running() as running:
        await ask(slack, slack.customer.message(QUESTION))
        await settled(running)
        ts = slack.said("D1")[0].ts
        pressed = slack.customer.feedback(ts, good=True)
        answers = await asyncio.gather(
            *(slack.deliver(pressed, retry=Retry(number)) for number in range(1, 4))
        )
        await settled(running)

    assert {answer.status for answer in answers} == {200}
    assert slack.shown("D1") == [ANSWER]


async def test_a_burst_is_acknowledged_in_time(whole: Bot, slack: SlackService) -> None:
    for number in range(20):
        slack.channel(f"D1{number}", "im")
    said = [
        slack.customer.message(f"{number}", channel=f"D1{number % 20}")
        for number in range(100)
    ]

    async with whole.running() as running:
        answers = await asyncio.gather(*(slack.deliver(one) for one in said))
        await settled(running)

    assert {answer.status for answer in answers} == {200}
    assert max(answer.seconds for answer in answers) < 3
    for number in range(20):
        told = [f"You said {said}." for said in range(number, 100, 20)]
        assert sorted(slack.shown(f"D1{number}")) == sorted(told)


async def test_many_reactions_at_once_keep_no_message_waiting(
    whole: Bot, slack: SlackService
) -> None:
    async with whole.running() as running:
        await ask(slack, slack.customer.message(QUESTION))
        await settled(running)
        ts = slack.said("D1")[0].ts
        reactions = [
            slack.customer.reaction("+1", ts, user=f"U{number}")
            for number in range(10, 70)
        ]
        reacting = asyncio.gather(*(slack.deliver(one) for one in reactions))
        message = await slack.deliver(slack.customer.message("hello"))
        answers = await reacting
        await settled(running)

    assert message.status == 200
    assert message.seconds < 1
    assert max(answer.seconds for answer in answers) < 3
    assert {answer.status for answer in answers} <= {200, 503}


# Processes


async def test_two_processes_on_one_store_answer_each_message_once(
    slack: SlackService, url: str, author: Author
) -> None:
    bots = [
        Bot(slack=slack, url=url, author=author, mode=mode, alone=False)
        for mode in ("replies", "blocks")
    ]
    said = [slack.customer.mention(f"number {number}") for number in range(10)]

    async with AsyncExitStack() as opened:
        running = [await opened.enter_async_context(bot.running()) for bot in bots]
        for mention, message in said:
            for process, payload in zip(running, (mention, message), strict=True):
                slack.events_url = f"{process.url}/slack/events"
                await ask(slack, payload, payload)
        for process in running:
            await settled(process)

    told = sorted(f"You said number {number}." for number in range(10))
    assert sorted(slack.shown("C1")) == told


async def test_what_a_process_began_to_show_another_one_finishes(
    growing: Bot, slack: SlackService, author: Author
) -> None:
    pen = author.hold(QUESTION)
    async with growing.running():
        await ask(slack, *slack.customer.mention(QUESTION))
        await until(lambda: slack.shown("C1") == [ONE], "no stream was begun")

    pen.release(10)
    async with growing.running() as running:
        await settled(running)

    assert slack.shown("C1") == [ANSWER]


async def test_two_processes_share_a_thread_and_leave_each_reply_alone(
    slack: SlackService, url: str, author: Author
) -> None:
    bots = [Bot(slack=slack, url=url, author=author, alone=False) for _ in range(2)]
    mention, message = slack.customer.mention("one. two. three")

    async with AsyncExitStack() as opened:
        running = [await opened.enter_async_context(bot.running()) for bot in bots]
        await ask(slack, mention, message)
        for number in range(20):
            for process in running:
                await settled(process)
            process = running[number // 2 % 2]
            slack.events_url = f"{process.url}/slack/events"
            text = f"{number}. two. three"
            more = slack.customer.message(text, channel="C1", thread_ts=mention.ts)
            await ask(slack, more)
        for process in running:
            await settled(process)

    told = ["one", *map(str, range(20))]
    assert slack.shown("C1") == [f"You said {first}. two. three." for first in told]


async def test_a_reply_waits_for_the_frame_that_another_process_is_showing(
    slack: SlackService, url: str
) -> None:
    held = Held()
    slack.fail("chat.startStream", held)
    root = slack.customer.message(QUESTION).ts
    address = Address(platform="slack", account="T1", chat="D1", thread=root, user="U1")
    shows, sends = a_connector(slack), a_connector(slack)

    async with Store(url=url, settings=ConversationConfig(), embedded=True) as store:
        for connector in (shows, sends):
            connector.keep_on(store.shelf("slack"))
        showing = asyncio.create_task(shows.frame(address, ONE))
        await held.came.wait()
        sending = asyncio.create_task(
            sends.send(address, Reply(text=ANSWER), "0123456789abcdef")
        )
        # Time enough to post, for one that does not wait.
        await asyncio.wait({sending}, timeout=0.5)
        early = slack.shown("D1")
        held.go.set()
        await asyncio.gather(showing, sending)

    assert early == []
    assert slack.shown("D1") == [ANSWER]


@pytest.mark.parametrize("done", [True, False])
async def test_a_process_that_ends_while_it_posts_leaves_one_reply(
    whole: Bot, slack: SlackService, *, done: bool
) -> None:
    held = Held()
    slack.fail("chat.postMessage", held)
    async with whole.running():
        await ask(slack, slack.customer.message(QUESTION))
        await held.came.wait()
        if done:
            held.go.set()
            await until(lambda: bool(slack.said("D1")), "nothing was posted")

    async with whole.running() as running:
        await settled(running)
    held.go.set()

    assert slack.shown("D1") == [ANSWER]


# The store


async def test_what_could_not_be_kept_is_not_acknowledged_and_answered_later_once(
    slack: SlackService, author: Author, tmp_path: Path
) -> None:
    with RedisServer(tmp_path / "redis") as store:
        bot = Bot(slack=slack, url=store.url, author=author, mode="replies")
        told = slack.customer.message(QUESTION)

        async with bot.running() as running:
            await ask(slack, slack.customer.message("hello", channel="D2"))
            await settled(running)
            store.stop()
            refused = await slack.deliver(told)
            again = await slack.deliver(told, retry=Retry(1))
            store.start()
            taken = await answered(slack, told)
            await slack.deliver(told, retry=Retry(3))
            await settled(running)

    assert [refused.status, again.status, taken] == [503, 503, 200]
    assert max(refused.seconds, again.seconds) < 3
    assert slack.shown("D1") == [ANSWER]


async def answered(slack: SlackService, told: Payload) -> int:
    """Deliver until it is taken, as Slack does, but sooner."""
    for number in range(50):
        answer = await slack.deliver(told, retry=Retry(number))
        if answer.status == 200:
            return answer.status
        await asyncio.sleep(0.1)
    raise AssertionError("it was never taken")


async def test_a_store_that_goes_away_while_a_reply_grows_costs_nothing_but_time(
    slack: SlackService, author: Author, tmp_path: Path
) -> None:
    with RedisServer(tmp_path / "redis", ["--appendonly", "yes"]) as store:
        bot = Bot(slack=slack, url=store.url, author=author)
        pen = author.hold(QUESTION)

        async with bot.running() as running:
            await ask(slack, *slack.customer.mention(QUESTION))
            await until(lambda: bool(slack.said("C1")), "no stream was begun")
            store.stop()
            pen.release(10)
            await asyncio.sleep(0.5)
            store.start()
            await settled(running)

    assert slack.shown("C1") == [ANSWER]


async def test_who_gives_up_waiting_for_a_lock_keeps_nobody_out(url: str) -> None:
    async with Store(url=url, settings=ConversationConfig(), embedded=True) as store:
        shelf = store.shelf("slack")

        async def hold(name: str) -> None:
            async with shelf.lock(name, ttl_s=30):
                pass

        # At each of the first steps on its way to Redis and back.
        for steps in range(30):
            holding = asyncio.create_task(hold(f"lock {steps}"))
            for _ in range(steps):
                await asyncio.sleep(0)
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            async with asyncio.timeout(2):
                await hold(f"lock {steps}")


# Sockets


@pytest.fixture
def by_socket(slack: SlackService, url: str, author: Author) -> Bot:
    return Bot(
        slack=slack,
        url=url,
        author=author,
        mode="replies",
        settings={"mode": "socket"},
        pace=Hurried(1),
    )


@pytest.mark.parametrize("lost", ["one", "all"])
async def test_a_socket_lost_before_its_acknowledgement_costs_no_message(
    by_socket: Bot, slack: SlackService, lost: str
) -> None:
    slack.links.ack_s = 1
    async with by_socket.running() as running:
        await slack.links.connected(2)
        envelopes = [
            slack.push(slack.customer.message(f"{number}")) for number in range(6)
        ]
        slack.links.drop(1 if lost == "one" else None)
        async with asyncio.timeout(30):
            for envelope in envelopes:
                await envelope.over.wait()
        await settled(running)

    told = sorted(f"You said {number}." for number in range(6))
    assert [envelope.acked for envelope in envelopes] == [True] * 6
    assert sorted(slack.shown("D1")) == told


async def test_slack_may_refresh_the_sockets_in_the_middle_of_things(
    by_socket: Bot, slack: SlackService
) -> None:
    async with by_socket.running() as running:
        await slack.links.connected(2)
        envelopes = []
        for number in range(6):
            envelopes.append(slack.push(slack.customer.message(f"{number}")))
            if number % 2:
                await slack.links.disconnect()
        async with asyncio.timeout(30):
            for envelope in envelopes:
                await envelope.over.wait()
        await settled(running)

    assert not slack.links.unacked
    assert len(slack.shown("D1")) == 6


async def test_down_a_socket_too_nothing_is_acknowledged_that_was_not_kept(
    slack: SlackService, author: Author, tmp_path: Path
) -> None:
    slack.links.ack_s = 1.5
    with RedisServer(tmp_path / "redis") as store:
        bot = Bot(
            slack=slack,
            url=store.url,
            author=author,
            mode="replies",
            settings={"mode": "socket"},
            pace=Hurried(1),
        )
        async with bot.running() as running:
            await slack.links.connected(2)
            store.stop()
            envelope = slack.push(slack.customer.message(QUESTION))
            await until(lambda: envelope.attempts == 2, "it was not told again")
            early = envelope.acked
            store.start()
            async with asyncio.timeout(20):
                await envelope.over.wait()
            await settled(running)

    assert (early, envelope.acked) == (False, True)
    assert slack.shown("D1") == [ANSWER]


# The app itself


async def test_an_uninstall_in_the_middle_of_a_reply_harms_nothing_else(
    growing: Bot, slack: SlackService, author: Author
) -> None:
    pen = author.hold(QUESTION)

    async with growing.running() as running:
        await ask(slack, *slack.customer.mention(QUESTION))
        await until(lambda: bool(slack.said("C1")), "no stream was begun")
        told = slack.uninstall()
        pen.release(10)
        await ask(slack, told)
        await settled(running)
        await ask(slack, slack.customer.message("are you there?"))
        await settled(running)
        before = len(slack.calls)
        await asyncio.sleep(0.3)
        after = len(slack.calls)
        slack.install("T1", slack.token)
        await ask(slack, slack.customer.message("hello"))
        await settled(running)

    assert before == after
    assert slack.shown("D1") == ["You said hello."]


async def test_slow_answers_everywhere_lose_and_double_nothing(
    growing: Bot, slack: SlackService
) -> None:
    for method in ("chat.startStream", "chat.appendStream", "chat.stopStream"):
        slack.fail(method, *[Slow(0.3)] * 10)

    async with growing.running() as running:
        await ask(slack, *slack.customer.mention(QUESTION))
        await settled(running)

    assert slack.shown("C1") == [ANSWER]


async def test_an_answer_to_a_command_waits_out_a_limit_too(
    whole: Bot, slack: SlackService
) -> None:
    slack.fail("response_url", RateLimited(1))

    async with whole.running() as running:
        await ask(slack, slack.customer.slash(QUESTION, channel="C2"))
        await settled(running)

    assert len(slack.responses) == 1


@pytest.mark.parametrize(
    "fault", [Status(503), DropBefore(), DropAfter(), RateLimited(1), Garbled()]
)
async def test_until_the_bot_knows_who_it_is_nothing_is_acknowledged(
    whole: Bot, slack: SlackService, fault: Fault
) -> None:
    slack.fail("auth.test", fault)
    told = slack.customer.message(QUESTION)

    async with whole.running() as running:
        first = await slack.deliver(told)
        taken = await answered(slack, told)
        await settled(running)

    assert (first.status, taken) == (503, 200)
    assert slack.shown("D1") == [ANSWER]


# Everything at once

METHODS = [
    "auth.test",
    "chat.postMessage",
    "chat.update",
    "chat.delete",
    "chat.startStream",
    "chat.appendStream",
    "chat.stopStream",
    "conversations.replies",
    "conversations.history",
    "assistant.threads.setStatus",
]


def chaos(slack: SlackService, chance: random.Random, share: float) -> None:
    """Let this share of all calls go wrong, each in one of all ways."""
    for method in METHODS:
        for _ in range(500):
            wrong = chance.random() < share
            fault = chance.choice(list(FAULTS.values())) if wrong else Fine()
            slack.fail(method, fault)


async def converse(slack: SlackService, chance: random.Random) -> dict[str, list[str]]:
    """Ask in direct messages and threads; return what each place is to read."""
    asked: list[Payload] = []
    expected: dict[str, list[str]] = {}
    for chat in range(10):
        slack.channel(f"D9{chat}", "im")
        slack.channel(f"C9{chat}")
        said = [f"{chat}. Then {number}" for number in range(3)]
        asked += [slack.customer.message(text, channel=f"D9{chat}") for text in said]
        mention, _ = slack.customer.mention(said[0], channel=f"C9{chat}")
        thread = {"channel": f"C9{chat}", "thread_ts": mention.ts}
        asked += [mention]
        asked += [
            slack.customer.mention(text, **thread)[chance.randrange(2)]
            for text in said[1:]
        ]
        for place in (f"D9{chat}", f"C9{chat}"):
            expected[place] = sorted(f"You said {text}." for text in said)
    chance.shuffle(asked)
    await asyncio.gather(*(answered(slack, told) for told in asked))
    return expected


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whatever_goes_wrong_each_reply_is_there_whole_and_once(
    growing: Bot, slack: SlackService, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 (repeatable)
    chaos(slack, chance, share=0.3)

    async with growing.running() as running:
        expected = await converse(slack, chance)
        await settled(running)

    assert {place: sorted(slack.shown(place)) for place in expected} == expected
    assert all(not m.by_bot or m.streaming != "open" for m in slack.state.all())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_however_often_the_process_ends_each_reply_is_there_whole_and_once(
    growing: Bot, slack: SlackService, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 (repeatable)
    chaos(slack, chance, share=0.1)

    async with growing.running():
        expected = await converse(slack, chance)
    for _ in range(8):
        async with growing.running():
            await asyncio.sleep(chance.random() / 3)
    async with growing.running() as running:
        # A lock that an ended process has left behind holds others up for 30 s.
        await settled(running, limit_s=60)

    assert {place: sorted(slack.shown(place)) for place in expected} == expected
