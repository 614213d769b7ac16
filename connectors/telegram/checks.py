"""
Checks: whether the bot is set up right at Telegram, and what to click if it is not.

Asks and changes nothing. A service that cannot be reached is a finding, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegram.error import InvalidToken, TelegramError

from bot.interfaces import Finding
from connectors.telegram.bot_api import BotApi
from connectors.telegram.outcomes import failure
from connectors.telegram.webhook import what_is_wrong
from connectors.telegram.wire import a_text, an_integer, an_object


async def inspected(
    *, token: str, api_url: str, webhook_url: str | None
) -> Sequence[Finding]:
    """Look at the bot, its place in groups and its webhook (None: it polls)."""
    api = BotApi(token=token, api_url=api_url)
    try:
        me = an_object(await api.call("getMe"))
        webhook = an_object(await api.call("getWebhookInfo"))
    except InvalidToken:
        return [
            _wrong(
                "telegram: Telegram does not know the token; send /mybots to "
                "@BotFather, choose the bot, API Token, and put it into settings.token"
            )
        ]
    except TelegramError as error:
        told = api.hide_token(failure(error).told)
        return [
            _wrong(
                f"telegram: Telegram cannot be reached ({told}); look at the network "
                "and at settings.api_url"
            )
        ]
    finally:
        await api.let_go()
    return [
        Finding(well=True, told=f"telegram: the bot is @{_name(me)}"),
        _groups(me),
        _polling(webhook) if webhook_url is None else _webhook(webhook, webhook_url),
    ]


def _groups(me: object) -> Finding:
    bot = an_object(me)
    if bot.get("can_join_groups") is False:
        told = (
            "cannot be added to groups; to change that, send /setjoingroups to "
            "@BotFather"
        )
    elif bot.get("can_read_all_group_messages") is True:
        told = (
            "gets every message of its groups, and answers those that mention it or "
            "reply to it; to get no others, send /setprivacy to @BotFather: Enable"
        )
    else:
        told = (
            "gets of its groups what mentions it, replies to it or is a command, which "
            "is all that it needs; where it is an administrator it gets everything. "
            "To change that, send /setprivacy to @BotFather and add it again"
        )
    return Finding(well=True, told=f"telegram: it {told}")


def _polling(webhook: object) -> Finding:
    told = an_object(webhook)
    if a_text(told.get("url")):
        return _wrong(
            "telegram: a webhook is set, so polling will hear nothing; set "
            "settings.mode to webhook or, if nobody needs it, delete it with the Bot "
            "API's deleteWebhook"
        )
    waiting = an_integer(told.get("pending_update_count")) or 0
    return Finding(well=True, told=f"telegram: no webhook, {waiting} updates wait")


def _webhook(webhook: object, url: str) -> Finding:
    wrong = what_is_wrong(webhook, url)
    if wrong is not None:
        return _wrong(wrong)
    waiting = an_integer(an_object(webhook).get("pending_update_count")) or 0
    return Finding(well=True, told=f"telegram: webhook set, {waiting} updates wait")


def _name(me: object) -> str:
    return a_text(an_object(me).get("username")) or "?"


def _wrong(told: str) -> Finding:
    return Finding(well=False, told=told)
