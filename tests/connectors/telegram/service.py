"""
A stand-in for Telegram: the Bot API over real HTTP on loopback, strict and with state.

`TelegramService` is an async context manager. People act through its methods (see
people.py), the bot calls it as it would call api.telegram.org, and a test looks at what
stands in the chats (see chats.py). `fail` scripts what goes wrong. Nothing waits but
long polls, `Slow` and `Hang`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientSession, ClientTimeout, web

from tests.connectors.telegram.chats import BOT
from tests.connectors.telegram.limits import ACTIONS, check_commands, check_webhook
from tests.connectors.telegram.people import People
from tests.connectors.telegram.wire import (
    JSON,
    Call,
    DropAfter,
    DropBefore,
    Fault,
    Garbage,
    Hang,
    Refusal,
    Result,
    Script,
    Slow,
    Status,
    another_poll,
    arguments,
    bad_request,
    refused_by,
)

TOKEN = f"{BOT.id}:canary-of-the-token-AAAAAAAAAAAAAAA"
AS_SET = "<as set by setWebhook>"  # no bot can have set this one
REPEATS = 5
# What counts against a group's budget of calls.
# https://github.com/python-telegram-bot/python-telegram-bot AIORateLimiter
COUNTED = (
    "sendMessage",
    "editMessageText",
    "editMessageReplyMarkup",
    "sendChatAction",
    "deleteMessage",
)

Method = Callable[[Mapping[str, Any]], Awaitable[Any]]


class TelegramService(People):
    """
    Telegram for one bot. `api_url` is where it answers; `url` is the same as the
    library's base_url wants it. `clock` dates the calls and ends the penalties.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock, self._arrived)
        self.api_url = ""
        self.calls: list[Call] = []
        self.commands: list[JSON] = []
        self.webhook: JSON = {}
        self._trouble: JSON = {}
        self._pushes_to: str | None = None
        self._script = Script()
        self._poll: asyncio.Future[None] | None = None
        self._runner: web.AppRunner | None = None
        self._client: ClientSession | None = None
        self._methods: dict[str, Method] = {
            name.lower(): method for name, method in self._table().items()
        }
        self._names = {name.lower(): name for name in self._table()}

    @property
    def url(self) -> str:
        return f"{self.api_url}/bot"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/bot{token}/{method}", self._answer)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.api_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._client = ClientSession(timeout=ClientTimeout(total=60))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._client is not None
        assert self._runner is not None
        await self._client.close()
        await self._runner.cleanup()

    # What a test asks and arranges

    def fail(self, method: str, *faults: Fault, chat: int | None = None) -> None:
        """Let the next calls of a method (about a chat) go wrong, one fault each."""
        assert method.lower() in self._methods, f"no method {method!r}"
        self._script.add(method, chat, faults)

    def called(self, *methods: str, chat: int | None = None) -> list[Call]:
        """Return the calls of these methods, about one chat or all, oldest first."""
        return [
            call
            for call in self.calls
            if call.method in methods and chat in (None, call.chat)
        ]

    def busiest_minute(self, chat: int) -> int:
        """Return how many calls about a chat any sixty seconds have seen."""
        at = [call.at for call in self.called(*COUNTED, chat=chat)]
        return max(
            (sum(0 <= one - start < 60 for one in at) for start in at), default=0
        )

    @property
    def confirmed(self) -> int:
        """The highest update_id that the bot has confirmed."""
        return self.updates.confirmed

    @property
    def pending(self) -> list[JSON]:
        return list(self.updates.pending.values())

    async def until(self, true: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Wait until something holds, however long it takes up to the limit."""
        try:
            async with asyncio.timeout(timeout_s):
                while not true():  # noqa: ASYNC110 (what holds may be anything)
                    await asyncio.sleep(0.005)
        except TimeoutError as late:
            counted: dict[str, int] = defaultdict(int)
            for call in self.calls:
                counted[call.method] += 1
            raise AssertionError(
                f"did not become true within {timeout_s:g} s; calls: {dict(counted)}"
            ) from late

    # Pushing

    @property
    def webhook_url(self) -> str:
        """Where updates are pushed: what the test said, or what the bot has set."""
        pushed: str = self._pushes_to or self.webhook.get("url", "")
        return pushed

    @webhook_url.setter
    def webhook_url(self, url: str) -> None:
        self._pushes_to = url

    async def push(
        self,
        update: JSON | None = None,
        *,
        secret: str | None = AS_SET,
        raw: bytes | None = None,
        retry: bool = False,
    ) -> tuple[int, bytes, float]:
        """
        Post an update, or `raw`, and return status, body and seconds; with `retry` as
        Telegram does, again until it is taken. What is taken is no longer pending.
        """
        body = json.dumps(update).encode() if raw is None else raw
        headers = {"Content-Type": "application/json"}
        secret = self.webhook.get("secret_token") if secret == AS_SET else secret
        if secret is not None:
            headers["X-Telegram-Bot-Api-Secret-Token"] = secret
        answer = await self._post(body, headers)
        for _ in range(REPEATS if retry else 0):
            if 200 <= answer[0] < 300:
                break
            answer = await self._post(body, headers)
        if update is not None:
            self._note_push(update, answer[0])
        return answer

    async def _post(
        self, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes, float]:
        assert self._client is not None
        begun = time.monotonic()
        async with self._client.post(
            self.webhook_url, data=body, headers=headers
        ) as answered:
            told = await answered.read()
            return answered.status, told, time.monotonic() - begun

    def _note_push(self, update: JSON, status: int) -> None:
        if 200 <= status < 300:
            self.updates.forget(update["update_id"])
        else:
            self._trouble = {
                "last_error_date": next(self._seconds),
                "last_error_message": f"Wrong response from the webhook: {status}",
            }

    # HTTP

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_token(request.match_info["token"])
            method = self._named(request.match_info["method"])
            args = await arguments(request)
            call = Call(method=self._names[method], args=args, at=self.clock())
            self.calls.append(call)
            return await self._played(self._script.next(call), request, call)
        except Refusal as refusal:
            return refusal.answer()

    async def _played(
        self, fault: Fault | None, request: web.Request, call: Call
    ) -> web.StreamResponse:
        refusal = refused_by(fault)
        if refusal is not None:
            raise refusal
        match fault:
            case Status(code):
                return web.Response(status=code, text="<html>no Telegram here</html>")
            case Result(value):
                return web.json_response({"ok": True, "result": value})
            case Garbage(body):
                return web.Response(body=body, content_type="application/json")
            case DropBefore():
                return _cut_off(request)
            case Hang():
                await asyncio.Event().wait()
        result = await self._methods[call.method.lower()](call.args)
        match fault:
            case DropAfter():
                return _cut_off(request)
            case Slow(seconds):
                await asyncio.sleep(seconds)
        return web.json_response({"ok": True, "result": result})

    def _check_token(self, token: str) -> None:
        if not token.partition(":")[0].isdigit():
            raise Refusal(404, "Not Found")
        if token != TOKEN:
            raise Refusal(401, "Unauthorized")

    def _named(self, method: str) -> str:
        # Telegram takes their names in any case.
        if method.lower() not in self._methods:
            raise Refusal(404, "Not Found: method not found")
        return method.lower()

    # Methods

    def _table(self) -> dict[str, Method]:
        return {
            "getMe": self._get_me,
            "getUpdates": self._get_updates,
            "setWebhook": self._set_webhook,
            "deleteWebhook": self._delete_webhook,
            "getWebhookInfo": self._get_webhook_info,
            "sendMessage": _at_once(self.send_message),
            "editMessageText": _at_once(self.edit_message),
            "editMessageReplyMarkup": _at_once(self.edit_keyboard),
            "deleteMessage": _at_once(self.delete_message),
            "sendMessageDraft": _at_once(self.show_draft),
            "sendChatAction": self._send_chat_action,
            "answerCallbackQuery": self._answer_callback_query,
            "setMyCommands": self._set_my_commands,
            "getChat": self._get_chat,
        }

    async def _get_me(self, args: Mapping[str, Any]) -> JSON:
        return {
            **BOT.wire,
            "can_join_groups": True,
            "can_read_all_group_messages": not self.privacy,
            "supports_inline_queries": False,
        }

    async def _get_updates(self, args: Mapping[str, Any]) -> list[JSON]:
        if self.webhook:
            raise Refusal(
                409,
                "Conflict: can't use getUpdates method while webhook is active; use "
                "deleteWebhook to delete the webhook first",
            )
        self._end_poll(another_poll())
        if "allowed_updates" in args:
            self.updates.asked_for = args["allowed_updates"]
        self._confirm(args.get("offset", 0))
        if not self.updates.pending and args.get("timeout", 0) > 0:
            await self._long_poll(args["timeout"])
        return self.pending[: min(100, args.get("limit", 100))]

    def _confirm(self, offset: int) -> None:
        if offset < 0:
            kept = list(self.updates.pending)[offset:]
            offset = kept[0] if kept else 0
        self.updates.confirm(offset)

    async def _long_poll(self, timeout_s: float) -> None:
        poll = self._poll = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await poll
        except TimeoutError:
            pass
        finally:
            if self._poll is poll:
                self._poll = None

    def _arrived(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def _end_poll(self, why: Refusal) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_exception(why)

    async def _set_webhook(self, args: Mapping[str, Any]) -> bool:
        check_webhook(args)
        if args.get("drop_pending_updates"):
            self.updates.pending.clear()
        if not args.get("url"):
            self.webhook = {}
            return True
        self._end_poll(Refusal(409, "Conflict: terminated by setWebhook request"))
        if "allowed_updates" in args:
            self.updates.asked_for = args["allowed_updates"]
        self.webhook = dict(args)
        return True

    async def _delete_webhook(self, args: Mapping[str, Any]) -> bool:
        if args.get("drop_pending_updates"):
            self.updates.pending.clear()
        self.webhook = {}
        return True

    async def _get_webhook_info(self, args: Mapping[str, Any]) -> JSON:
        told = {
            "url": self.webhook.get("url", ""),
            "has_custom_certificate": False,
            "pending_update_count": len(self.updates.pending),
            **self._trouble,
        }
        if self.webhook:
            told["max_connections"] = self.webhook.get("max_connections", 40)
        if self.updates.asked_for:
            told["allowed_updates"] = list(self.updates.asked_for)
        return told

    async def _send_chat_action(self, args: Mapping[str, Any]) -> bool:
        chat = self.reached(args)
        if args.get("action") not in ACTIONS:
            raise bad_request("wrong parameter action in request")
        self.typing.append(chat.id)
        return True

    async def _answer_callback_query(self, args: Mapping[str, Any]) -> bool:
        query = args.get("callback_query_id")
        if query not in self.unanswered:
            raise bad_request(
                "query is too old and response timeout expired or query ID is invalid"
            )
        self.unanswered.remove(query)
        return True

    async def _set_my_commands(self, args: Mapping[str, Any]) -> bool:
        check_commands(args["commands"])
        self.commands = args["commands"]
        return True

    async def _get_chat(self, args: Mapping[str, Any]) -> JSON:
        return {
            **self.reached(args).wire,
            "accent_color_id": 0,
            "max_reaction_count": 11,
            "accepted_gift_types": {
                "unlimited_gifts": False,
                "limited_gifts": False,
                "unique_gifts": False,
                "premium_subscription": False,
                "gifts_from_channels": False,
            },
        }


def _at_once(does: Callable[[Mapping[str, Any]], Any]) -> Method:
    async def method(args: Mapping[str, Any]) -> Any:
        return does(args)

    return method


def _cut_off(request: web.Request) -> web.Response:
    """Cut the connection; what is returned reaches nobody."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
