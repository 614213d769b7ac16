"""Installing the app, where somebody cancels, lies, or is away."""

from __future__ import annotations

import logging

import pytest

from bot.errors import DeliveryError, StoreError
from bot.interfaces import Shelf
from connectors.slack.oauth import OAuth
from tests.connectors.slack.faults import (
    DropAfter,
    DropBefore,
    Error,
    Fault,
    RateLimited,
    Status,
)
from tests.connectors.slack.many_workspaces.world import (
    REDIRECT,
    Browser,
    Tags,
    Unwell,
    an_app,
    text_of,
)
from tests.connectors.slack.service import SlackService

pytestmark = pytest.mark.services


async def test_who_cancels_is_told_that_nothing_has_changed(
    slack: SlackService, browser: Browser
) -> None:
    state = await browser.begin()

    page = await browser.get(REDIRECT, error="access_denied", state=state)
    again = await browser.finish(state, slack.authorize())

    assert page.status == 200
    assert "You cancelled it" in text_of(page)
    assert again.status == 400


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"state": ""},
        {"state": "x"},
        {"state": "x" * 100_000, "code": "y"},
        {"state": "\udcff" * 43, "code": "y"},
        {"state": "é" * 43, "code": "y"},
        {"code": "code-1"},
        {"error": ""},
        {"error": "\x00\udcff", "state": "{}"},
        {"state": "../../etc/passwd", "error": "%00"},
    ],
    ids=range(10),
)
async def test_garbage_gets_a_page_and_nothing_is_asked(
    slack: SlackService, browser: Browser, query: dict[str, str]
) -> None:
    page = await browser.get(REDIRECT, **query)

    assert page.status == 400
    assert "Begin again" in text_of(page)
    assert slack.calls == []


@pytest.mark.parametrize("code", ["", "c" * 513])
async def test_a_code_that_can_be_none_is_not_sent(
    slack: SlackService, browser: Browser, code: str
) -> None:
    page = await browser.finish(await browser.begin(), code)

    assert (page.status, slack.calls) == (400, [])


@pytest.mark.parametrize(
    "name", ["error", "state", "code", "team", "error_description"]
)
async def test_nothing_written_into_the_address_is_on_the_page(
    browser: Browser, name: str
) -> None:
    query = {name: "<script>alert('pwned')</script>\" onload=pwned"}

    page = await browser.get(REDIRECT, **query)

    assert "pwned" not in text_of(page)


async def test_what_slack_says_of_a_team_is_escaped(
    slack: SlackService, browser: Browser
) -> None:
    name = '"><script>alert(1)</script>'
    code = slack.authorize("T2", enterprise=name, org_wide=True)

    page = await browser.finish(await browser.begin(), code)

    assert page.status == 200
    assert "script" not in Tags.of(page)
    assert "&lt;script&gt;" in text_of(page)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Error("bad_client_secret"), "bad_client_secret"),
        (Error("<b>bold</b>"), "HTTP 200"),
        (RateLimited(5), "ratelimited"),
        (Status(502), "HTTP 502"),
        (DropBefore(), "ServerDisconnectedError"),
        (DropAfter(), "ServerDisconnectedError"),
    ],
    ids=str,
)
async def test_an_exchange_that_fails_is_told_and_not_repeated(
    slack: SlackService, app: OAuth, browser: Browser, fault: Fault, told: str
) -> None:
    slack.fail("oauth.v2.access", fault)

    page = await browser.install(slack)

    assert page.status == 502
    assert told in text_of(page)
    assert len(slack.calls_of("oauth.v2.access")) == 1
    with pytest.raises(DeliveryError):
        await app.workspaces.of("T2")


async def test_without_the_bots_own_ids_nothing_is_installed(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    slack.fail("auth.test", Status(500))

    page = await browser.install(slack)

    assert page.status == 502
    with pytest.raises(DeliveryError):
        await app.workspaces.of("T2")


async def test_an_answer_that_lacks_something_installs_nothing(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    slack.install("T2", "xoxb-T2").bot_id = ""
    pages = [await browser.install(slack)]
    nowhere = slack.authorize("T3", org_wide=True)
    pages.append(await browser.finish(await browser.begin(), nowhere))

    assert [page.status for page in pages] == [502, 502]
    assert all("answer_not_understood" in text_of(page) for page in pages)
    with pytest.raises(DeliveryError):
        await app.workspaces.of("T2")


async def test_a_store_that_is_away_is_the_cores_to_answer_for(
    slack: SlackService, shelf: Shelf
) -> None:
    unwell = Unwell(shelf)
    browser = Browser(an_app(slack, unwell))
    unwell.failures["put"] = 1

    with pytest.raises(StoreError):
        await browser.begin()


async def test_an_installation_that_could_not_be_kept_is_logged_without_its_token(
    slack: SlackService, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    unwell = Unwell(shelf)
    browser = Browser(an_app(slack, unwell))
    state = await browser.begin()
    unwell.failures["put"] = 1

    with pytest.raises(StoreError):
        await browser.finish(state, slack.authorize())

    assert "an installation was not kept: StoreError" in caplog.text
    assert slack.state.workspaces["T2"].token not in caplog.text


async def test_no_secret_is_logged_at_any_level(
    slack: SlackService, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    slack.grants.rotates = True
    code = slack.authorize()
    state = await browser.begin()

    await browser.finish(state, code)

    workspace = slack.state.workspaces["T2"]
    secrets = [workspace.token, str(workspace.refresh_token), code, state]
    assert [one for one in secrets if one in caplog.text] == []
    assert "installed in T2" in caplog.text
