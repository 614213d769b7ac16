"""
The webhook: Telegram brings updates itself.

Whoever does not know the secret gets nothing read, let alone taken. Telegram is told
200 when an update is durable, or means nothing to the bot; told anything else, it comes
again. On the way out the webhook stays: what is said meanwhile waits at Telegram.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

import orjson
from telegram.error import TelegramError

from bot.interfaces import WebRequest, WebResponse
from connectors.telegram.bot_api import BotApi
from connectors.telegram.listening import Listener
from connectors.telegram.outcomes import failure
from connectors.telegram.parsing import KINDS
from connectors.telegram.trouble import Trouble
from connectors.telegram.wire import a_text, an_integer, an_object

SECRET_HEADER = "x-telegram-bot-api-secret-token"  # noqa: S105 (its name)
# The largest updates, such as polls with everything in them, are far smaller.
LONGEST_BODY = 1024 * 1024
# Telegram brings a chat's updates one after the other, so these are so many chats.
CONNECTIONS = 40
LOOK_S = 60.0
LONGEST_PAUSE_S = 60.0

_OK = WebResponse(status=200)
_NOT_JSON = WebResponse(status=400)
_NO_SECRET = WebResponse(status=403)
_NOT_HERE = WebResponse(status=404)
_NOT_POST = WebResponse(status=405, headers={"allow": "POST"})
_TOO_LONG = WebResponse(status=413)
_NOT_YET = WebResponse(status=503)


class Webhook:
    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        api: BotApi,
        trouble: Trouble,
        sleep: Callable[[float], Awaitable[None]],
        url: str,
        path: str,
        secret: str,
    ) -> None:
        self._api = api
        self._trouble = trouble
        self._sleep = sleep
        self._url = url
        self._path = path
        self._secret = secret
        self._listener: Listener | None = None

    async def run(self, listener: Listener) -> None:
        """Answer requests, and look now and then whether they would come."""
        self._listener = listener
        try:
            await self._set()
            while True:
                await self._sleep(LOOK_S)
                await self._look()
        finally:
            self._listener = None

    async def respond(self, request: WebRequest) -> WebResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        if self._listener is None:
            return _NOT_YET
        try:
            update = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return _NOT_JSON
        told = self._listener.read(update)
        if told is None:
            return _NOT_JSON
        await self._listener.take(told)
        return _OK

    def _refusal(self, request: WebRequest) -> WebResponse | None:
        if request.path != self._path:
            return _NOT_HERE
        if request.method != "POST":
            return _NOT_POST
        given = request.headers.get(SECRET_HEADER, "")
        if not hmac.compare_digest(_bytes(given), _bytes(self._secret)):
            return _NO_SECRET
        return _TOO_LONG if len(request.body) > LONGEST_BODY else None

    async def _set(self) -> None:
        """Tell Telegram where to bring updates, however long that takes."""
        failures = 0
        while True:
            try:
                await self._api.call(
                    "setWebhook",
                    url=self._url,
                    secret_token=self._secret,
                    allowed_updates=list(KINDS),
                    max_connections=CONNECTIONS,
                )
            except TelegramError as error:
                failures += 1
                failed = failure(error)
                told = self._api.hide_token(failed.told)
                self._trouble.say(
                    f"telegram: the webhook could not be set ({told}); look at "
                    "settings.url, which must be one that Telegram reaches by https"
                )
                pause = min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S)
                await self._sleep(max(pause, failed.after_s or 0))
            else:
                self._trouble.over()
                return

    async def _look(self) -> None:
        try:
            told = an_object(await self._api.call("getWebhookInfo"))
        except TelegramError:
            return  # what matters is whether Telegram reaches us
        trouble = what_is_wrong(told, self._url)
        if trouble is None:
            self._trouble.over()
        else:
            self._trouble.say(trouble)


def what_is_wrong(told: object, url: str) -> str | None:
    """Say what is wrong with a webhook; None when updates come through."""
    webhook = an_object(told)
    there = a_text(webhook.get("url"))
    if there != url:
        where = "is not set" if not there else "leads to another address"
        return (
            f"telegram: the webhook {where}; start this program again to set it, and "
            "let no other one have the same bot"
        )
    waiting = an_integer(webhook.get("pending_update_count")) or 0
    error = a_text(webhook.get("last_error_message"))
    # The last error stays there after it is over.
    if waiting and error:
        return (
            f"telegram: {waiting} updates wait, because the webhook answers wrongly "
            f"({error}); look at the proxy before it"
        )
    return None


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
