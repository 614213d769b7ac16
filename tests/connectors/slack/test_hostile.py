"""
What strangers, and what Slack never, sends to the Slack connector.

F12 (payloads), F13 (signatures) and F15 (addresses that lead inside) of the threats in
STATE.md, section 5. The connector is asked directly; that a body of 10 MB does not get
so far is shown over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.errors import DeliveryError, StoreError
from bot.interfaces import Accepted, WebResponse
from bot.model import Event, Reply
from bot.testing.makers import NOON
from bot.web import Web, routes
from connectors.slack import Slack
from tests.connectors.slack.bot_on_slack import (
    Hurried,
    MemoryShelf,
    a_connector,
    running,
)
from tests.connectors.slack.faults import Redirect
from tests.connectors.slack.hostile import CANARY, SPOILT, Case, cases, real_payloads
from tests.connectors.slack.payloads import Payload, Retry, request_of
from tests.connectors.slack.service import SlackService

pytestmark = pytest.mark.slow  # test-fast does without

ANSWERS = {200, 400, 401, 404, 405, 413, 503}
FEW, MANY = 5_000, 100_000
MOST_MS = 5.0  # of one request, on average
MOST_GROWN_MIB = 100
SECRETS = (CANARY, "xoxb-T1-token", "8f742231b10e")


@dataclass(slots=True)
class Inbox:
    """An `accept` that keeps what it is given, or says that nothing can be kept."""

    events: list[Event] = field(default_factory=list)
    down: bool = False

    async def accept(self, event: Event) -> Accepted:
        if self.down:
            raise StoreError("redis: away; start it")
        self.events.append(event)
        return "accepted"


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
async def connector(slack: SlackService, inbox: Inbox) -> AsyncIterator[Slack]:
    # Its limits on what it asks of Slack are not what is tried here.
    made = a_connector(slack, pace=Hurried(1000))
    made.keep_on(MemoryShelf())
    async with running(made, inbox.accept):
        yield made


# F12


async def survives(
    connector: Slack, inbox: Inbox, hostile: Iterable[Case]
) -> Counter[int]:
    """Send requests, check each answer, and count the answers."""
    answered: Counter[int] = Counter()
    for case in hostile:
        before = len(inbox.events)
        answer = await connector.respond(case.request)
        answered[answer.status] += 1
        assert answer.status in ANSWERS, case
        if not case.signed:
            assert answer.status in {401, 405}, case
            assert len(inbox.events) == before, case
        # Whatever came through must be what the core can keep.
        for event in inbox.events[before:]:
            assert_writable(event)
        del inbox.events[before:]
    return answered


def assert_writable(event: Event) -> None:
    said = [event.id, event.text, event.address.key, event.address.user or ""]
    "".join(said).encode()
    json.dumps(dict(event.data), allow_nan=False).encode()
    assert event.address.platform == "slack"
    assert event.address.account == "T1"
    assert event.time.tzinfo is not None


async def test_whatever_comes_is_answered_and_only_what_is_signed_is_taken(
    slack: SlackService,
    connector: Slack,
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    answered = await survives(
        connector, inbox, cases(real_payloads(slack), FEW, seed=1)
    )

    assert answered[200] > FEW / 10
    assert answered[401] > FEW / 10
    assert not [line for line in caplog.messages if any(s in line for s in SECRETS)]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_hundred_thousand_requests_cost_little_and_leave_nothing_behind(
    slack: SlackService,
    connector: Slack,
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    payloads = real_payloads(slack)
    await survives(connector, inbox, cases(payloads, FEW, seed=2))
    hostile = list(cases(payloads, FEW, seed=3))
    before, began = peak_mib(), time.process_time()

    for _ in range(MANY // FEW):
        await survives(connector, inbox, hostile)

    spent_ms = 1000 * (time.process_time() - began) / MANY
    assert spent_ms < MOST_MS
    assert peak_mib() - before < MOST_GROWN_MIB
    assert not [line for line in caplog.messages if any(s in line for s in SECRETS)]


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


# Words that Slack's payloads are made of, so that some of it is nearly one.
WORDS = ["message", "app_mention", "reaction_added", "reaction_removed", "+1", "1.1"]
WORDS += ["app_home_opened", "home", "messages", "block_actions", "chorus_feedback"]
WORDS += ["assistant_thread_started", "agent_session_stopped", "D1", "C1", "U1", "T1"]
WORDS += ["UBOTT1", "tokens_revoked", "app_uninstalled", "file_share", "k:1"]
KEYS = ["type", "event", "team_id", "channel", "user", "ts", "text", "item", "tab"]
KEYS += ["subtype", "bot_id", "item_user", "reaction", "event_ts", "thread_ts"]
KEYS += ["actions", "action_id", "value", "container", "message", "message_ts"]
KEYS += ["assistant_thread", "channel_id", "user_id", "tokens", "bot", "id"]
KEYS += ["streaming_message_ts", "authorizations", "channel_type", "app_id"]
JSON = st.recursive(
    st.sampled_from(WORDS)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(categories=["L", "N", "P", "S", "Z", "C"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8)
    ),
    max_leaves=20,
)
KINDS = st.sampled_from(["events_api", "interactive", "slash_commands"])


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(event=JSON, rest=JSON, kind=KINDS)
def test_any_json_at_all_is_answered(event: Any, rest: Any, kind: Any) -> None:
    content = {"type": "event_callback", "team_id": "T1", "event": event, "x": rest}
    if isinstance(rest, dict):
        content |= rest

    async def answer() -> WebResponse:
        async with SlackService() as slack:
            made, inbox = a_connector(slack), Inbox()
            made.keep_on(MemoryShelf())
            async with running(made, inbox.accept):
                return await made.respond(request_of(Payload(content, kind)))

    assert asyncio.run(answer()).status in ANSWERS


@pytest.mark.parametrize("event_type", ["message", "app_mention", "reaction_added"])
@pytest.mark.parametrize(
    "wrong", [None, True, 7, 1.5, [], {}, [[]], {"a": []}, "", "x"]
)
async def test_a_wrong_type_at_any_key_is_answered(
    slack: SlackService, connector: Slack, event_type: str, wrong: Any
) -> None:
    payload = {
        "message": slack.customer.message("hello"),
        "app_mention": slack.customer.mention("hello")[0],
        "reaction_added": slack.customer.reaction(
            "+1",
            slack.state.post(
                slack.state.workspaces["T1"], slack.state.channels["C1"], text="x"
            ).ts,
        ),
    }[event_type]

    for key in [*payload.content["event"], "subtype", "bot_id", "hidden", "files"]:
        event = {**payload.content["event"], key: wrong}
        request = request_of(Payload({**payload.content, "event": event}))
        answer = await connector.respond(request)
        assert answer.status in ANSWERS, key
    for key in payload.content:
        request = request_of(Payload({**payload.content, key: wrong}))
        answer = await connector.respond(request)
        assert answer.status in ANSWERS, key


async def test_ten_megabytes_are_turned_away_before_they_are_read(
    slack: SlackService, connector: Slack, inbox: Inbox
) -> None:
    big = slack.customer.message("x" * 10_000_000)

    async with served(connector, slack):
        refused = await slack.deliver(big)
        fine = await slack.deliver(slack.customer.message("hello"))

    assert (refused.status, fine.status) == (413, 200)
    assert [event.text for event in inbox.events] == ["hello"]


async def test_ten_megabytes_that_come_so_far_do_no_harm(
    slack: SlackService, connector: Slack
) -> None:
    began = time.process_time()

    answer = await connector.respond(
        request_of(slack.customer.message("<@U1>" * 2_000_000))
    )

    assert answer.status in ANSWERS
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "text",
    [
        "<" * 100_000,
        "<@" * 50_000,
        "<@U" + "|" * 100_000,
        "&" * 100_000,
        "&amp;" * 20_000,
        "<!subteam^" * 10_000,
        "<https://x|" * 9_000,
        "/" + " " * 100_000,
        "\n" * 100_000,
    ],
)
async def test_text_made_to_take_long_is_read_at_once(
    slack: SlackService, connector: Slack, text: str
) -> None:
    began = time.process_time()

    answer = await connector.respond(request_of(slack.customer.message(text)))

    assert answer.status == 200
    assert time.process_time() - began < 0.5


async def test_a_store_that_is_away_is_no_answer(
    slack: SlackService, connector: Slack, inbox: Inbox
) -> None:
    inbox.down = True

    with pytest.raises(StoreError):
        await connector.respond(request_of(slack.customer.message("hello")))


# F13


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
@pytest.mark.parametrize("kind", ["event", "button", "command", "verification"])
async def test_without_slacks_signature_nothing_is_done(
    slack: SlackService, connector: Slack, inbox: Inbox, kind: str, spoil: Any
) -> None:
    payload = a_payload(slack, kind)
    request = request_of(payload)

    answer = await connector.respond(
        replace(request, headers=spoil(dict(request.headers), request.body))
    )

    assert (answer.status, answer.body) == (401, b"")
    assert inbox.events == []


@pytest.mark.parametrize("kind", ["event", "button", "command"])
@pytest.mark.parametrize(
    ("late_s", "status"), [(-301, 401), (-300, 200), (0, 200), (300, 200), (301, 401)]
)
async def test_a_signature_holds_for_five_minutes_either_way(
    slack: SlackService, inbox: Inbox, kind: str, late_s: int, status: int
) -> None:
    connector = a_connector(slack, now=lambda: NOON)
    connector.keep_on(MemoryShelf())
    timestamp = str(int(NOON.timestamp()) - late_s)

    async with running(connector, inbox.accept):
        answer = await connector.respond(
            request_of(a_payload(slack, kind), timestamp=timestamp)
        )

    assert answer.status == status
    assert len(inbox.events) == (status == 200)


async def test_a_signature_is_good_for_its_own_bytes_only(
    slack: SlackService, connector: Slack, inbox: Inbox
) -> None:
    request = request_of(slack.customer.message("hello"))

    for body in (request.body + b" ", request.body[:-1], b"", request.body * 2):
        answer = await connector.respond(replace(request, body=body))
        assert answer.status == 401

    assert inbox.events == []


async def test_a_replay_is_the_same_event_whatever_is_said_about_retries(
    slack: SlackService, connector: Slack, inbox: Inbox
) -> None:
    told = slack.customer.message("hello")
    for retry in (None, None, Retry(1), Retry(3, "http_error")):
        await connector.respond(request_of(told, retry=retry))
    again = Payload({**told.content, "event_id": "Ev-another", "event_time": 1})
    await connector.respond(request_of(again))

    assert len(inbox.events) == 5
    assert len({event.id for event in inbox.events}) == 1


async def test_an_answer_to_url_verification_is_the_challenge_and_no_more(
    slack: SlackService, connector: Slack, inbox: Inbox
) -> None:
    verification = slack.customer.url_verification()

    answer = await connector.respond(request_of(verification))

    assert answer.status == 200
    assert verification.content["challenge"].encode() in answer.body
    assert inbox.events == []


def a_payload(slack: SlackService, kind: str) -> Payload:
    if kind == "verification":
        return slack.customer.url_verification()
    if kind == "command":
        return slack.customer.slash("how long?")
    if kind == "event":
        return slack.customer.message("how long?")
    posted = slack.state.post(
        slack.state.workspaces["T1"], slack.state.channels["C1"], text="x"
    )
    return slack.customer.button("chorus_button_0", "0123456789abcdef:0", posted.ts)


@asynccontextmanager
async def served(connector: Slack, slack: SlackService) -> AsyncIterator[None]:
    """Serve a connector as `chorus run` does."""
    web = Web(host="127.0.0.1", port=0, routes=routes([connector]))
    async with web, web.answering():
        slack.events_url = f"{web.url}/slack/events"
        yield


# F15


@dataclass(slots=True)
class Destinations:
    """Where connections were opened to."""

    ports: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@pytest.fixture
def destinations(monkeypatch: pytest.MonkeyPatch) -> Destinations:
    """Watch every connection that the loop opens, and every name that it looks up."""
    seen = Destinations()
    loop_class: Any = asyncio.SelectorEventLoop
    connect, look_up = loop_class.sock_connect, loop_class.getaddrinfo

    async def sock_connect(loop: Any, sock: Any, address: Any) -> None:
        seen.ports.append(address[1])
        await connect(loop, sock, address)

    async def getaddrinfo(loop: Any, host: Any, *args: Any, **more: Any) -> Any:
        seen.names.append(str(host))
        return await look_up(loop, host, *args, **more)

    monkeypatch.setattr(loop_class, "sock_connect", sock_connect)
    monkeypatch.setattr(loop_class, "getaddrinfo", getaddrinfo)
    return seen


# {trap}: the port of a server that must never be reached; {slack}: the stand-in's.
INSIDE = [
    "http://127.0.0.1:{trap}/",
    "http://127.0.0.1:{trap}/response/T1/1",
    "https://127.0.0.1:{trap}/",
    "http://localhost:{trap}/",
    "http://[::1]:{trap}/",
    "http://[::ffff:127.0.0.1]:{trap}/",
    "http://2130706433:{trap}/",
    "http://0x7f000001:{trap}/",
    "http://0177.0.0.1:{trap}/",
    "http://127.1:{trap}/",
    "http://0:{trap}/",
    "http://0.0.0.0:{trap}/",
    "http://127.0.0.1.nip.io:{trap}/",
    "http://169.254.169.254/latest/meta-data/",
    "https://hooks.slack.com@127.0.0.1:{trap}/",
    "https://hooks.slack.com:443@127.0.0.1:{trap}/",
    "http://127.0.0.1:{slack}@127.0.0.1:{trap}/",
    "http://127.0.0.1:{slack}\\@127.0.0.1:{trap}/",
    "http://127.0.0.1:{slack}#@127.0.0.1:{trap}/",
    "https://hooks.slack.com.evil.test/",
    "https://hooks.slack.com.:{trap}/",
    "https://hooks.slack.com:{trap}/",
    "https://hooks.slack.com%2f@127.0.0.1:{trap}/",
    "https://hooks.slack.com\t.evil.test/",
    "https://hooks.slack.com\n.evil.test/",
    "https://hooks。slack。com.evil.test/",
    "https://ⓗooks.slack.com/",
    "http://hooks.slack.com/commands/1",
    "https://evil.test/hooks.slack.com/",
    "https://evil.test?https://hooks.slack.com/",
    "//127.0.0.1:{trap}/",
    "HTTP://127.0.0.1:{trap}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{trap}/_x",
    "ftp://127.0.0.1:{trap}/",
    "ws://127.0.0.1:{trap}/",
    "unix:///var/run/docker.sock",
    "javascript:alert(1)",
    "http://127.0.0.1:{trap}:80/",
    "http://[::1",
    "http://127.0.0.1:99999999/",
    "",
    " ",
    "x" * 100_000,
]


@pytest.mark.parametrize("url", INSIDE, ids=range(len(INSIDE)))
async def test_an_address_for_the_answer_that_is_not_slacks_is_never_called(
    slack: SlackService,
    connector: Slack,
    inbox: Inbox,
    destinations: Destinations,
    url: str,
) -> None:
    async with SlackService() as trap:
        ours = port_of(slack)
        address = url.format(trap=port_of(trap), slack=ours)
        command = slack.customer.slash("how long?", channel="C2", response_url=address)

        answer = await connector.respond(request_of(command))
        with pytest.raises(DeliveryError) as refused:
            await connector.send(inbox.events[0].address, Reply(text="Five days."), KEY)

    assert answer.status == 200
    assert not refused.value.retryable
    assert set(destinations.ports) == {ours}
    assert set(destinations.names) <= {"127.0.0.1"}
    assert trap.responses == slack.responses == []
    assert trap.calls == []


async def test_an_address_for_the_answer_that_is_slacks_is_used(
    slack: SlackService, connector: Slack, inbox: Inbox
) -> None:
    await connector.respond(request_of(slack.customer.slash("how long?", channel="C2")))

    await connector.send(inbox.events[0].address, Reply(text="Five days."), KEY)

    assert len(slack.responses) == 1


@pytest.mark.parametrize("where", ["elsewhere", "itself"])
async def test_nobody_is_led_on_to_another_address(
    slack: SlackService,
    connector: Slack,
    inbox: Inbox,
    destinations: Destinations,
    where: str,
) -> None:
    await connector.respond(request_of(slack.customer.slash("how long?", channel="C2")))

    async with SlackService() as trap:
        host = {"elsewhere": trap, "itself": slack}[where]
        url = host.url.replace("/api/", "/response/T1/9")
        slack.fail("response_url", Redirect(url))
        with pytest.raises(DeliveryError):
            await connector.send(inbox.events[0].address, Reply(text="Five days."), KEY)

    assert set(destinations.ports) == {port_of(slack)}
    assert trap.responses == slack.responses == []


KEY = "0123456789abcdef"


def port_of(slack: SlackService) -> int:
    return int(slack.url.split(":")[2].split("/")[0])
