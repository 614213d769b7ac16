"""
Records what a real Rasa sends: one JSON file per request in ../captured.

Starts `python -m rasa_sdk` with the assistant's actions, Rasa itself and, between
them, a server that stores each raw request before it answers: an action call with what
rasa-sdk said to it, a request for wording from the responses of domain.yml. Knows
nothing about Chorus. Runs in Rasa's environment: see ../captured/README.md.
"""

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

HERE = Path(__file__).parent
CAPTURED = HERE.parent / "captured"
SDK, RECORDER, RASA = 5056, 5057, 5058  # RECORDER is in the endpoints files too
# The name of a capture, and what it is.
ABOUT = {
    "webhook_reminder": (
        "a reminder is due: latest_message is the external intent, its text is not "
        "the user's (EXTERNAL: …, metadata.is_external) and message_id is null"
    ),
    "webhook_external_intent": (
        "an intent from outside (POST /conversations/cleo/trigger_intent)"
    ),
    "webhook_slot_mappings": (
        "Rasa's own call after every message, when the domain lists the action: "
        "before any action was chosen"
    ),
    "webhook_first_message": (
        "the first message of a conversation, nothing understood (nlu_fallback)"
    ),
    "nlg_greet": (
        "wording of utter_greet after a Chinese greeting with an emoji; id is the "
        "variation that Rasa would have taken"
    ),
    "webhook_names_a_response": (
        "an action whose answer names a response and its arguments"
    ),
    "nlg_with_arguments": (
        "wording of utter_welcome for an action: what the action's answer held is in "
        "arguments, its empty fields too; id is null though the variation has one"
    ),
    "webhook_with_entity": "an entity was found and fills a slot",
    "webhook_refusing_action": (
        "an action that refuses to run: rasa-sdk answers 400, Rasa takes the "
        "next best action"
    ),
    "webhook_after_restart": (
        "after /restart: slots are empty, Rasa hands over only the events since"
    ),
    "nlg_nobody_wrote_it": (
        "Rasa asks to word utter_restart though the domain has no such "
        "response; an error here loses the restart"
    ),
    "validate_form_begins": "the form was just chosen: validate_* without a new slot",
    "nlg_form_asks": (
        "wording of a form's question: active_loop and requested_slot are set"
    ),
    "webhook_in_a_form": (
        "an aside in an active form: no slot could be filled, the form is "
        "rejected for this turn"
    ),
    "validate_refused_value": "validate_* with a value that the action refuses",
    "validate_slot": (
        "validate_* with a value from an entity: the last events are the slots "
        "that Rasa took from the message"
    ),
    "nlg_form_asks_next": (
        "wording of the form's next question; its slots are in the tracker"
    ),
    "nlg_form_ended": "wording after the form has ended: active_loop is empty again",
    "webhook_channel_and_metadata": (
        "input_channel and metadata given with the REST message; the first "
        "message's metadata is in the slot session_started_metadata too"
    ),
    "nlg_channel_and_metadata": (
        "wording for a named channel: channel.name is the collector's, the "
        "input channel is in the tracker only"
    ),
    "webhook_empty_text": "a message of no words",
    "webhook_half_surrogate": "Chinese, a family emoji and half a surrogate pair",
    "webhook_long_history": "the 40th turn: all events",
    "webhook_deflated_after_new_process": (
        "COMPRESS_ACTION_SERVER_REQUEST=true (zlib, chunked), the conversation "
        "loaded from the tracker store by a new Rasa process"
    ),
    "validate_deflated": "validate_* in a form, deflated",
    "nlg_is_not_deflated": (
        "a request for wording under the same variable: Rasa never deflates it"
    ),
    "webhook_without_domain": (
        "selective domain: the key domain is absent; rasa-sdk 3.6 runs it"
    ),
    "webhook_selective_with_domain": (
        "selective domain, an action with send_domain: true"
    ),
    "nlg_token_in_header": "wording, the token in a header",
}
HOP_BY_HOP = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass
class Recorder:
    """Every request in the order in which it came, and its answer."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, request: web.Request, body: bytes, status: int, answer: Any) -> None:
        self.requests.append(
            {
                "method": request.method,
                "path": request.path,
                "query": request.query_string,
                # As they were written: Rasa's own spelling, its order.
                "headers": {k.decode(): v.decode() for k, v in request.raw_headers},
                "body_base64": base64.b64encode(body).decode(),
                "answer": {"status": status, "json": answer},
            }
        )
        self.came.set()


RECORDER_KEY = web.AppKey("recorder", Recorder)


async def pass_on(request: web.Request) -> web.Response:
    """Answer as rasa-sdk does, which is handed the same bytes."""
    body = await request.read()
    headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            request.method,
            f"http://127.0.0.1:{SDK}{request.path}",
            data=body,
            headers=headers,
        ) as response,
    ):
        answer = await response.json(content_type=None)
        request.app[RECORDER_KEY].keep(request, body, response.status, answer)
        return web.json_response(answer, status=response.status)


async def word(request: web.Request) -> web.Response:
    """Answer a request for wording from domain.yml, the first variation of each."""
    body = await request.read()
    asked = json.loads(body)
    responses = yaml.safe_load((HERE / "domain.yml").read_text("utf-8"))["responses"]
    # Rasa also asks for responses that nobody wrote (utter_restart): `{}` is "nothing".
    answer = dict(responses.get(asked["response"], [{}])[0])
    if answer:
        values = {**asked["tracker"]["slots"], **asked["arguments"]}
        answer["text"] = answer["text"].format_map(values)
    request.app[RECORDER_KEY].keep(request, body, 200, answer)
    return web.json_response(answer)


@contextlib.asynccontextmanager
async def recording() -> AsyncIterator[Recorder]:
    app = web.Application(client_max_size=64 << 20)
    app[RECORDER_KEY] = Recorder()
    app.router.add_post("/nlg", word)
    app.router.add_route("*", "/{path:.*}", pass_on)
    # The body as it came: a deflated one is stored deflated.
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", RECORDER).start()
    try:
        yield app[RECORDER_KEY]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def running(
    arguments: list[str], health: str, env: Mapping[str, str], log: Path
) -> AsyncIterator[None]:
    """A server process, from its first good answer to its end."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=log.parent,
            env={**os.environ, **env},
            stdout=output,
            stderr=output,
        )
    try:
        await _answers(health, process)
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            if process.returncode is not None:
                sys.exit(f"the server for {url} ended; read its log")
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
    sys.exit(f"no answer from {url} for a minute")


def rasa_sdk(work: Path) -> contextlib.AbstractAsyncContextManager[None]:
    return running(
        ["-m", "rasa_sdk", "--actions", "actions", "--port", str(SDK)],
        f"http://127.0.0.1:{SDK}/health",
        {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
        work / "sdk.log",
    )


def rasa(
    work: Path, endpoints: str = "endpoints.yml", **env: str
) -> contextlib.AbstractAsyncContextManager[None]:
    arguments = ["run", "--enable-api", "-i", "127.0.0.1", "-p", str(RASA)]
    arguments += ["--model", str(work / "models" / "captures.tar.gz")]
    arguments += ["--endpoints", str(HERE / endpoints)]
    arguments += ["--credentials", str(HERE / "credentials.yml")]
    return running(
        ["-m", "rasa", *arguments],
        f"http://127.0.0.1:{RASA}/status",
        {
            "RASA_TELEMETRY_ENABLED": "false",
            "TRACKERS": str(work / "trackers.db"),
            **env,
        },
        work / "rasa.log",
    )


@dataclass
class Dialogue:
    """One conversation over Rasa's REST channel, whose requests are kept by name."""

    recorder: Recorder
    sender: str
    transcript: list[str]

    async def say(
        self, text: str, keep: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """`keep` maps what is called (`action_x`, `utter_x`) to the capture's name."""
        before = len(self.recorder.requests)
        answers = await _post(
            "/webhooks/rest/webhook",
            {"sender": self.sender, "message": text, **more},
        )
        self._note(text, answers, before)
        for called, name in (keep or {}).items():
            _store(name, self._last(called, before))

    async def trigger(self, intent: str, called: str, name: str) -> None:
        before = len(self.recorder.requests)
        answer = await _post(
            f"/conversations/{self.sender}/trigger_intent?output_channel=latest",
            {"name": intent, "entities": {"order_number": "A-1234"}},
        )
        self._note(f"(trigger_intent {intent})", answer["messages"], before)
        _store(name, self._last(called, before))

    async def wait_for(self, called: str, name: str) -> None:
        """For what Rasa sends on its own account: a reminder."""

        async def called_at_last() -> dict[str, Any]:
            while not (found := self._all(called, 0)):
                self.recorder.came.clear()
                await self.recorder.came.wait()
            return found[-1]

        _store(name, await asyncio.wait_for(called_at_last(), 30))

    def _note(self, text: str, answers: list[dict[str, Any]], before: int) -> None:
        self.transcript.append(f"{self.sender} > {text}")
        self.transcript += [
            f"   {_called(request)} → {request['answer']['status']}"
            for request in self.recorder.requests[before:]
        ]
        self.transcript += [
            f"bot > {json.dumps(answer, ensure_ascii=False)}" for answer in answers
        ]

    def _last(self, called: str, before: int) -> dict[str, Any]:
        found = self._all(called, before)
        if not found:
            so_far = "\n".join(self.transcript)
            sys.exit(f"{called} was not called; the dialogue so far:\n{so_far}")
        return found[-1]

    def _all(self, called: str, before: int) -> list[dict[str, Any]]:
        return [r for r in self.recorder.requests[before:] if _called(r) == called]


def _called(request: Mapping[str, Any]) -> str:
    """What was asked for: an action's name or a response's."""
    body = base64.b64decode(request["body_base64"])
    if request["headers"].get("Content-Encoding") == "deflate":
        body = zlib.decompress(body)
    asked = json.loads(body)
    name = asked.get("next_action") or asked["response"]
    return str(name)


def _store(name: str, request: Mapping[str, Any]) -> None:
    kept = {"about": ABOUT[name], **request}
    text = json.dumps(kept, ensure_ascii=False, indent=2)
    # Half a surrogate pair becomes the escape that JSON writes for it.
    (CAPTURED / f"{name}.json").write_text(text + "\n", "utf-8", "backslashreplace")


async def _post(path: str, body: Mapping[str, Any]) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{RASA}{path}", json=body) as response,
    ):
        return await response.json()


async def first_run(recorder: Recorder, transcript: list[str]) -> None:
    """Whole domain, token in the query, nothing compressed."""
    ann = Dialogue(recorder, "ann", transcript)
    await ann.say(
        "why is the sky blue?",
        {
            "action_validate_slot_mappings": "webhook_slot_mappings",
            "action_generate_reply": "webhook_first_message",
        },
    )
    await ann.say("你好 👋", {"utter_greet": "nlg_greet"})
    await ann.say(
        "my name is Ann",
        {
            "action_welcome": "webhook_names_a_response",
            "utter_welcome": "nlg_with_arguments",
        },
    )
    await ann.say(
        "where is order A-1234", {"action_look_up_order": "webhook_with_entity"}
    )
    await ann.say("what time is it", {"action_refuse": "webhook_refusing_action"})
    # The slot order_number is full by now: without this the form would not ask.
    await ann.say("/restart", {"utter_restart": "nlg_nobody_wrote_it"})
    await ann.say(
        "are you still there?", {"action_generate_reply": "webhook_after_restart"}
    )
    await _form(ann)
    await _channel_and_metadata(Dialogue(recorder, "bob@example.org", transcript))
    await _from_outside(Dialogue(recorder, "cleo", transcript))
    await _awkward(Dialogue(recorder, "dee", transcript))


async def _form(ann: Dialogue) -> None:
    await ann.say(
        "send it back",
        {
            "validate_return_form": "validate_form_begins",
            "utter_ask_order_number": "nlg_form_asks",
        },
    )
    await ann.say(
        "why is the sky blue?", {"action_generate_reply": "webhook_in_a_form"}
    )
    await ann.say("Z-0000", {"validate_return_form": "validate_refused_value"})
    await ann.say(
        "A-1234",
        {
            "validate_return_form": "validate_slot",
            "utter_ask_reason": "nlg_form_asks_next",
        },
    )
    await ann.say("it is too small", {"utter_returned": "nlg_form_ended"})


async def _channel_and_metadata(bob: Dialogue) -> None:
    more = {
        "input_channel": "web-widget",
        "metadata": {"page": "/returns", "vip": True, "basket": [1, 2.5, None]},
    }
    await bob.say(
        "which papers do I need?",
        {"action_generate_reply": "webhook_channel_and_metadata"},
        **more,
    )
    await bob.say("hello", {"utter_greet": "nlg_channel_and_metadata"}, **more)


async def _from_outside(cleo: Dialogue) -> None:
    await cleo.say("remind me")
    await cleo.wait_for("action_say_reminder", "webhook_reminder")
    await cleo.trigger(
        "EXTERNAL_reminder", "action_say_reminder", "webhook_external_intent"
    )


async def _awkward(dee: Dialogue) -> None:
    await dee.say("", {"action_generate_reply": "webhook_empty_text"})
    await dee.say(
        "為什麼天是藍的?👩‍👩‍👧‍👦 \ud83d",
        {"action_generate_reply": "webhook_half_surrogate"},
    )
    for n in range(3, 40):
        await dee.say(f"question {n}")
    await dee.say("question 40", {"action_generate_reply": "webhook_long_history"})


async def after_the_process_ended(recorder: Recorder, transcript: list[str]) -> None:
    """The same tracker store, a new Rasa process, now with deflate."""
    ann = Dialogue(recorder, "ann", transcript)
    await ann.say(
        "do you remember me?",
        {"action_generate_reply": "webhook_deflated_after_new_process"},
    )
    eve = Dialogue(recorder, "eve", transcript)
    await eve.say("send it back")
    await eve.say(
        "A-1234",
        {
            "validate_return_form": "validate_deflated",
            "utter_ask_reason": "nlg_is_not_deflated",
        },
    )


async def selective_run(recorder: Recorder, transcript: list[str]) -> None:
    """enable_selective_domain, and the token in a header."""
    fay = Dialogue(recorder, "fay", transcript)
    await fay.say(
        "why is the sky blue?", {"action_generate_reply": "webhook_without_domain"}
    )
    await fay.say(
        "where is order A-1234",
        {"action_look_up_order": "webhook_selective_with_domain"},
    )
    await fay.say("hello", {"utter_greet": "nlg_token_in_header"})


async def main(work: Path) -> None:
    transcript: list[str] = []
    (work / "trackers.db").unlink(missing_ok=True)
    CAPTURED.mkdir(exist_ok=True)
    async with recording() as recorder, rasa_sdk(work):
        async with rasa(work):
            await first_run(recorder, transcript)
        async with rasa(work, COMPRESS_ACTION_SERVER_REQUEST="true"):
            await after_the_process_ended(recorder, transcript)
        async with rasa(work, "endpoints-selective.yml"):
            await selective_run(recorder, transcript)
        paths = sorted({f"{r['method']} {r['path']}" for r in recorder.requests})
    transcript.append(f"all that Rasa asked for: {', '.join(paths)}")
    text = "\n".join(transcript) + "\n"
    (work / "transcript.txt").write_text(text, "utf-8", "backslashreplace")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).resolve()))
