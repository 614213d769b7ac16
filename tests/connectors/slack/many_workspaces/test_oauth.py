"""Installing the app: browser, pages, a real Redis, and a stand-in of Slack."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import pytest
import redis

from bot.errors import DeliveryError
from bot.interfaces import Shelf, WebRequest
from connectors.slack import oauth_pages
from connectors.slack.oauth import OFFERS, OAuth
from connectors.slack.scopes import SCOPES
from tests.connectors.slack.faults import (
    Held,
)
from tests.connectors.slack.many_workspaces.world import (
    INSTALL,
    REDIRECT,
    SITE,
    SOME_SCOPES,
    Browser,
    Tags,
    an_app,
    link_of,
    text_of,
)
from tests.connectors.slack.service import SlackService

pytestmark = pytest.mark.services


# The page and its button


async def test_the_button_leads_to_slack_with_everything_it_needs(
    slack: SlackService, browser: Browser
) -> None:
    page = await browser.get(INSTALL)

    link = urlsplit(link_of(page))
    query = parse_qs(link.query)
    assert link._replace(query="").geturl() == slack.url.replace(
        "/api/", "/oauth/v2/authorize"
    )
    assert len(query.pop("state")[0]) == 43
    assert query == {
        "client_id": ["11.22"],
        "scope": [",".join(SOME_SCOPES)],
        "redirect_uri": [SITE + REDIRECT],
    }


async def test_the_page_says_what_the_app_may_do(browser: Browser) -> None:
    page = await browser.get(INSTALL)

    assert "read direct messages to it" in text_of(page)
    assert "write messages as itself" in text_of(page)


def test_every_scope_has_a_meaning() -> None:
    assert oauth_pages.MEANINGS.keys() == SCOPES.keys()


async def test_a_page_runs_and_fetches_nothing_and_is_kept_nowhere(
    browser: Browser,
) -> None:
    page = await browser.get(INSTALL)

    policy = page.headers["Content-Security-Policy"]
    style = text_of(page).split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert Tags.of(page).isdisjoint({"script", "img", "iframe", "form", "object"})


async def test_the_cookie_is_for_this_site_alone_and_for_no_script(
    browser: Browser,
) -> None:
    page = await browser.get(INSTALL)

    name, *attributes = page.headers["Set-Cookie"].split("; ")
    assert name.startswith("__Host-")
    assert set(attributes) == {
        "Path=/",
        "Max-Age=600",
        "HttpOnly",
        "SameSite=Lax",
        "Secure",
    }


async def test_on_loopback_a_cookie_needs_no_https(
    slack: SlackService, shelf: Shelf
) -> None:
    browser = Browser(an_app(slack, shelf, url="http://127.0.0.1:8080"))

    page = await browser.get(INSTALL)

    assert "Secure" not in page.headers["Set-Cookie"]
    assert "__Host-" not in page.headers["Set-Cookie"]
    assert (await browser.install(slack)).status == 200


async def test_only_get_is_answered(app: OAuth) -> None:
    answers = [
        await app.respond(WebRequest(method=method, path=path))
        for method in ("POST", "HEAD", "PUT")
        for path in app.paths
    ]

    assert {answer.status for answer in answers} == {405}


async def test_who_asks_for_the_page_too_often_fills_no_store(
    app: OAuth, client: redis.Redis
) -> None:
    ask = WebRequest(method="GET", path=INSTALL)

    pages = [await app.respond(ask) for _ in range(round(OFFERS.times) + 5)]

    assert [page.status for page in pages[-5:]] == [429] * 5
    assert pages[-1].headers["Retry-After"] == "60"
    assert len(client.keys("*shelf*")) == OFFERS.times


# A team installs the app


async def test_a_team_that_agreed_has_a_workspace(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    page = await browser.install(slack)

    workspace = await app.workspaces.of("T2")
    assert page.status == 200
    assert "The bot is in Team T2" in text_of(page)
    assert (workspace.team, workspace.bot_user, workspace.bot_id) == (
        "T2",
        "UBOTT2",
        "BBOTT2",
    )
    assert workspace.token == slack.state.workspaces["T2"].token


async def test_teams_do_not_get_each_others_tokens(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    await browser.install(slack, "T2")
    await browser.install(slack, "T3")

    tokens = [(await app.workspaces.of(team)).token for team in ("T2", "T3")]

    assert tokens == [slack.state.workspaces[team].token for team in ("T2", "T3")]


async def test_an_organisation_is_one_account(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    code = slack.authorize("T2", enterprise="E1", org_wide=True)

    page = await browser.finish(await browser.begin(), code)

    assert (await app.workspaces.of("E1")).team == "E1"
    assert link_of(page) == (
        "https://app.slack.com/manage/E1/integrations/profile/A1/workspaces/add"
    )
    with pytest.raises(DeliveryError):
        await app.workspaces.of("T2")


async def test_a_team_of_an_organisation_is_an_account_of_its_own(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    code = slack.authorize("T2", enterprise="E1")

    await browser.finish(await browser.begin(), code)

    assert (await app.workspaces.of("T2")).team == "T2"


async def test_a_team_that_installs_again_has_its_new_token(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    await browser.install(slack)
    before = (await app.workspaces.of("T2")).token

    await browser.install(slack)

    after = (await app.workspaces.of("T2")).token
    assert after == slack.state.workspaces["T2"].token != before


async def test_two_tabs_of_a_browser_both_finish(
    slack: SlackService, browser: Browser
) -> None:
    first, second = await browser.begin(), await browser.begin()

    pages = [
        await browser.finish(first, slack.authorize("T2")),
        await browser.finish(second, slack.authorize("T3")),
    ]

    assert [page.status for page in pages] == [200, 200]


async def test_an_exchange_is_finished_though_the_browsers_time_is_up(
    slack: SlackService, shelf: Shelf
) -> None:
    app = an_app(slack, shelf, patience_s=0.01)
    held = Held()
    slack.fail("oauth.v2.access", held)

    page = await Browser(app).install(slack)
    held.go.set()

    assert page.status == 202
    assert await _token_in_time(app) == slack.state.workspaces["T2"].token


async def test_an_exchange_is_finished_though_the_browser_has_gone(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    held = Held()
    slack.fail("oauth.v2.access", held)

    waiting = asyncio.create_task(browser.install(slack))
    await held.came.wait()
    waiting.cancel()
    await asyncio.wait({waiting})
    held.go.set()

    assert waiting.cancelled()
    assert await _token_in_time(app) == slack.state.workspaces["T2"].token


# States


async def test_a_state_is_good_once(slack: SlackService, browser: Browser) -> None:
    state = await browser.begin()
    await browser.finish(state, slack.authorize())

    page = await browser.finish(state, slack.authorize())

    assert page.status == 400
    assert "This attempt is over" in text_of(page)
    assert len(slack.calls_of("oauth.v2.access")) == 1


async def test_a_state_used_twice_at_once_is_good_once(
    slack: SlackService, browser: Browser
) -> None:
    state = await browser.begin()

    pages = await asyncio.gather(
        *(browser.finish(state, slack.authorize()) for _ in range(5))
    )

    assert sorted(page.status for page in pages) == [200, 400, 400, 400, 400]


async def test_a_state_of_another_browser_is_refused_and_used_up(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    victim = Browser(app)
    await victim.begin()
    state = await browser.begin()

    pages = [
        await victim.finish(state, slack.authorize()),
        await browser.finish(state, slack.authorize()),
    ]

    assert [page.status for page in pages] == [400, 400]
    assert "another browser" in text_of(pages[0])
    assert "This attempt is over" in text_of(pages[1])
    assert slack.calls_of("oauth.v2.access") == []


async def test_a_browser_without_its_cookie_is_refused(
    slack: SlackService, browser: Browser
) -> None:
    state = await browser.begin()
    browser.cookie = ""

    page = await browser.finish(state, slack.authorize())

    assert (page.status, slack.calls_of("oauth.v2.access")) == (400, [])
    assert "another browser" in text_of(page)


async def test_a_state_that_nobody_was_given_is_refused(
    slack: SlackService, browser: Browser
) -> None:
    await browser.begin()

    page = await browser.finish("f" * 43, slack.authorize())

    assert (page.status, slack.calls_of("oauth.v2.access")) == (400, [])


async def test_a_cookie_does_not_show_a_state_nor_a_state_a_cookie(
    browser: Browser, client: redis.Redis
) -> None:
    state = await browser.begin()

    _, _, cookie = browser.cookie.partition("=")
    (key,) = client.keys("*shelf*")
    assert state != cookie
    assert cookie.encode() not in (client.get(key) or b"")
    assert state.encode() not in key


async def test_a_state_is_kept_for_ten_minutes_and_no_longer(
    slack: SlackService, browser: Browser, client: redis.Redis
) -> None:
    state = await browser.begin()
    (key,) = client.keys("*shelf*")
    kept_ms = client.pttl(key)
    client.pexpire(key, 1)
    await _until_gone(client, key)

    page = await browser.finish(state, slack.authorize())

    assert 590_000 < int(kept_ms) <= 600_000
    assert (page.status, slack.calls_of("oauth.v2.access")) == (400, [])


async def test_a_cookie_that_was_planted_is_not_taken_over(
    slack: SlackService, app: OAuth, browser: Browser
) -> None:
    browser.cookie = "__Host-chorus-slack=known-to-an-attacker"

    await browser.begin()

    assert "attacker" not in browser.cookie


async def _token_in_time(app: OAuth) -> str:
    async with asyncio.timeout(5):
        while True:
            try:
                return (await app.workspaces.of("T2")).token
            except DeliveryError:
                await asyncio.sleep(0.01)


async def _until_gone(client: redis.Redis, key: bytes | str) -> None:
    async with asyncio.timeout(5):
        while client.exists(key):  # noqa: ASYNC110 (Redis has no event for it)
            await asyncio.sleep(0.005)
