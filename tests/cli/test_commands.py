"""The commands, over a bot whose parts are given: output, JSON shape, exit code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from bot.app import App
from bot.cli import COMMANDS, chorus
from bot.config import (
    Config,
    GenerationConfig,
    KnowledgeConfig,
    OperationsConfig,
    Use,
)
from bot.conversation.state import Forgotten, turn_id
from bot.errors import ConfigError, KnowledgeError, TurnError
from bot.evaluation.report import BenchRow, Report, Row
from bot.evaluation.suites import How
from bot.generation.models import Weights
from bot.interfaces import Connector, Progress
from bot.knowledge.ingest import IngestReport
from bot.model import Address, Citation, Event, Passage, Record, Reply, Turn
from bot.plugin_manager import Plugins
from bot.testing import a_candidate, a_passage, a_turn
from connectors.terminal import Terminal

CONFIG = Config(
    knowledge=KnowledgeConfig(model="e"), generation=GenerationConfig(model="g")
)


def a_record(turn: Turn | None = None, **more: Any) -> Record:
    made = Record(
        turn=turn or a_turn(passages=["Refunds take five days."]),
        outcome="answered",
        reply=Reply(
            text="Five **days**.",
            citations=(Citation(source="refunds.md", passage="p1"),) * 2,
        ),
        why="best total",
        config="c0ffee",
        candidates=(
            a_candidate(
                "Five **days**.",
                {"groundedness": 0.9},
                rank=1,
                contributions={"groundedness": 0.9},
            ),
        ),
        chosen=0,
        ms={"retrieve": 4.1, "total": 10.0},
    )
    return replace(made, **more)


class FakeStore:
    def __init__(self, records: dict[str, Record]) -> None:
        self.records = records
        self.judged: dict[str, list[int]] = {}
        self.forgotten: list[str] = []
        self.retired: list[str] = []
        self.abandoned: list[Address] = []

    async def record(self, turn: str) -> Record | None:
        return self.records.get(turn)

    async def ratings(self, turn: str) -> list[int]:
        return self.judged.get(turn, [])

    async def abandon(self, address: Address) -> None:
        self.abandoned.append(address)

    async def retire(self, platform: str) -> None:
        self.retired.append(platform)

    async def forget(self, user: str, platform: str | None) -> Forgotten:
        self.forgotten.append(user if platform is None else f"{user} on {platform}")
        return Forgotten(conversations=2, events=7) if user == "ada" else Forgotten()


class FakeRetriever:
    name = "documents"

    def __init__(self) -> None:
        self.limits: list[int] = []

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        self.limits.append(limit)
        scores = {"relevance": 0.2}
        return [a_passage("Five\n days.", line=3, score=1.5, scores=scores)]


class FakeManager:
    """Answers every accepted message at once, as `reply` says."""

    def __init__(self, app: FakeApp, connectors: Mapping[str, Connector]) -> None:
        self._app = app
        self._connectors = connectors

    async def run(self, until: object = None) -> None:
        for connector in self._connectors.values():
            await connector.run(self._accept)

    async def idle(self) -> None:
        """Everything was answered when it was accepted."""

    async def _accept(self, event: Event) -> Any:
        self._app.accepted.append(event)
        connector = self._connectors[event.address.platform]
        record = self._app.answer(event)
        if record is not None:
            self._app.the_store.records[turn_id(event)] = record
        reply = record.reply if record else Reply(text="Too long.")
        await connector.send(event.address, reply, "key")
        return "accepted"


@dataclass
class FakeApp:
    """A bot of which each part is given, and which notes what was asked of it."""

    config: Config = CONFIG
    plugins: Plugins = field(default_factory=Plugins)
    answer: Callable[[Event], Record | None] = lambda event: a_record(
        a_turn(event.text, id=turn_id(event))
    )
    report: IngestReport = field(default_factory=IngestReport)
    the_store: FakeStore = field(default_factory=lambda: FakeStore({"t1": a_record()}))
    accepted: list[Event] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    patient: bool | None = None
    roles: Sequence[str] = ()
    operations: OperationsConfig | None = None
    ingested: list[Sequence[Path] | None] = field(default_factory=list)
    opened: list[tuple[Path, Config]] = field(default_factory=list)
    fetched: int = 0
    missing_index: bool = False
    the_retriever: FakeRetriever = field(default_factory=FakeRetriever)
    closed: bool = False

    def close(self) -> None:
        self.closed = True

    def __call__(
        self, path: Path, progress: Progress, changed: Callable[[Config], Config]
    ) -> App:
        self.config = changed(self.config)
        self.opened.append((path, self.config))
        return cast("App", self)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[FakeStore]:
        yield self.the_store

    @asynccontextmanager
    async def running(  # noqa: PLR0913 (what it stands for has them)
        self,
        connectors: Mapping[str, Connector] | None = None,
        *,
        roles: Sequence[str] = ("connectors", "workers"),
        seeds: Callable[[], int] | None = None,
        shares: bool = True,
        patient: bool = True,
        operations: OperationsConfig | None = None,
    ) -> AsyncIterator[FakeManager]:
        self.patient = patient
        self.roles = roles
        self.operations = operations
        if seeds is not None:
            self.seeds.append(seeds())
        own = {one.name: one for one in self.plugins.connectors}
        yield FakeManager(self, own if connectors is None else connectors)

    def index(self) -> None:
        if self.missing_index:
            raise KnowledgeError("there is no index")

    def ingest(self, paths: Sequence[Path] | None = None) -> IngestReport:
        self.ingested.append(paths)
        return self.report

    def retriever(self) -> FakeRetriever:
        return self.the_retriever

    def schema(self) -> dict[str, Any]:
        return {"title": "Config"}

    def weights(self) -> list[Weights]:
        return [
            Weights(
                source="org/model",
                folder=Path("/cache/model"),
                present=bool(self.fetched),
                size_bytes=1_500_000 if self.fetched else None,
                sha256="ab" * 32,
                origin="hub",
            )
        ]

    def fetch_models(self) -> None:
        self.fetched += 1


def invoke(app: FakeApp, *arguments: str) -> Result:
    return CliRunner().invoke(chorus, list(arguments), obj=app)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_begins_as_the_list_of_commands_says(
    name: str,
) -> None:
    result = invoke(FakeApp(), name, "--help")

    assert result.exit_code == 0
    assert " ".join(COMMANDS[name].split()) in " ".join(result.stdout.split())
    if name != "new-plugin":  # there is no bot yet
        assert "--config FILE" in result.stdout


def test_help_lists_every_command() -> None:
    result = invoke(FakeApp(), "--help")

    assert result.exit_code == 0
    for name, sentence in COMMANDS.items():
        assert f"{name} " in result.stdout
        assert sentence in " ".join(result.stdout.split())


def test_a_misspelt_command_and_a_missing_argument_are_for_the_operator() -> None:
    assert invoke(FakeApp(), "aks").exit_code == 2
    assert invoke(FakeApp(), "ask").exit_code == 2
    assert invoke(FakeApp(), "eval", "nothing").exit_code == 2


# ask


def test_ask_prints_the_reply_with_each_source_once_and_the_turn_elsewhere() -> None:
    app = FakeApp()

    result = invoke(app, "ask", "How long?")

    assert result.exit_code == 0
    assert result.stdout == "Five **days**.\n\nSources:\n\n- refunds.md\n"
    (event,) = app.accepted
    assert result.stderr == f"explain with: chorus explain {turn_id(event)}\n"


def test_ask_has_a_conversation_of_its_own_each_time() -> None:
    app = FakeApp()

    invoke(app, "ask", "How long?")
    invoke(app, "ask", "How long?")

    keys = [event.address.key for event in app.accepted]
    assert all(key.startswith("ask-") for key in keys)
    assert keys[0] != keys[1]
    assert app.the_store.abandoned == [event.address for event in app.accepted]
    assert app.the_store.retired == [event.address.platform for event in app.accepted]


def test_ask_json_is_the_contract() -> None:
    result = invoke(FakeApp(), "ask", "How long?", "--json", "--seed", "7")

    printed = json.loads(result.stdout)
    assert list(printed) == [
        "turn",
        "reply",
        "candidates",
        "chosen",
        "why",
        "passages",
        "ms",
        "actions",
    ]
    assert printed["reply"]["citations"][0] == {"source": "refunds.md", "passage": "p1"}
    assert printed["candidates"] == [
        {
            "text": "Five **days**.",
            "scores": {"groundedness": 0.9},
            "total": 0.9,
            "rank": 1,
            "dropped": None,
            "tokens": 0,
        }
    ]
    assert result.stderr == ""


def test_ask_passes_its_seed_on() -> None:
    app = FakeApp()

    invoke(app, "ask", "How long?", "--seed", "7")
    invoke(app, "ask", "How long?")

    assert app.seeds == [7]
    assert invoke(app, "ask", "How long?", "--seed", "-1").exit_code == 2


@pytest.mark.parametrize("settings", [{}, {"user": "ada"}])
def test_ask_is_forgotten_by_the_name_that_the_terminal_gives(
    settings: dict[str, str],
) -> None:
    connectors = (Use(use="terminal", settings=settings),)
    app = FakeApp(config=CONFIG.model_copy(update={"connectors": connectors}))

    invoke(app, "ask", "How long?")

    terminal = Terminal(Terminal.Settings(**settings))
    assert app.accepted[0].address.user == terminal._address.user


def test_ask_needs_no_connector() -> None:
    app = FakeApp(config=CONFIG.model_copy(update={"connectors": (Use(use="slack"),)}))

    invoke(app, "ask", "How long?")

    assert app.config.connectors == ()


def test_a_failed_turn_ends_with_1_and_its_reason() -> None:
    app = FakeApp(
        answer=lambda event: a_record(
            outcome="failed", reply=Reply(text="Sorry."), why="no memory"
        )
    )

    result = invoke(app, "ask", "How long?")

    assert result.exit_code == 1
    assert result.stdout == "Sorry.\n"
    assert "failed: no memory" in result.stderr


def test_a_refused_question_ends_with_1_and_what_the_bot_says_to_it() -> None:
    result = invoke(FakeApp(answer=lambda event: None), "ask", "x" * 100_000)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Too long.\n"


def test_a_question_that_is_no_utf_8_arrives_as_text() -> None:
    app = FakeApp()

    result = invoke(app, "ask", "caf\udce9?")

    assert result.exit_code == 0
    assert app.accepted[0].text == "caf\N{REPLACEMENT CHARACTER}?"


def test_a_reply_cannot_command_the_terminal() -> None:
    hostile = Reply(text="\x1b]0;owned\x07 \x9b2J five")
    app = FakeApp(answer=lambda event: a_record(reply=hostile))

    result = invoke(app, "ask", "How long?")

    assert result.stdout == "]0;owned 2J five\n"


# explain


def test_explain_shows_the_turn_as_text_and_as_json() -> None:
    shown = invoke(FakeApp(), "explain", "t1")
    printed = invoke(FakeApp(), "explain", "t1", "--json")

    assert shown.exit_code == printed.exit_code == 0
    assert shown.stdout.startswith("# Turn t1: answered")
    assert "best total" in shown.stdout
    assert json.loads(printed.stdout)["candidates"][0]["text"] == "Five **days**."


def test_an_unknown_turn_is_for_the_operator() -> None:
    result = invoke(FakeApp(), "explain", "t9")

    assert result.exit_code == 2
    assert result.stderr.startswith("no record of turn 't9'")


# ingest, search, models, forget, schema


def test_ingest_reads_what_is_named_and_counts() -> None:
    app = FakeApp(report=IngestReport(added=["a.md", "b.md"], passages=9))

    result = invoke(app, "ingest", "a.md", "b.md")

    assert result.exit_code == 0
    assert app.ingested == [(Path("a.md"), Path("b.md"))]
    assert result.stdout == (
        "9 passages; documents: 2 added, 0 changed, 0 removed, 0 unchanged\n"
    )


def test_ingest_without_paths_reads_the_configured_ones() -> None:
    app = FakeApp()

    invoke(app, "ingest")

    assert app.ingested == [None]


def test_ingest_names_what_could_not_be_read_and_keeps_the_rest() -> None:
    app = FakeApp(report=IngestReport(passages=9, problems=["x.pdf: is encrypted"]))

    result = invoke(app, "ingest")

    assert result.exit_code == 2
    assert result.stderr == "x.pdf: is encrypted\n"
    assert result.stdout.startswith("9 passages")


def test_search_shows_passages_with_scores_and_whether_they_would_do() -> None:
    app = FakeApp()

    result = invoke(app, "search", "How long?", "--limit", "3")

    assert result.exit_code == 0
    assert app.the_retriever.limits == [3]
    header, line = result.stdout.splitlines()
    assert header.split() == ["score", "parts", "source", "text"]
    assert "1.50" in line
    assert "relevance 0.20" in line
    assert "refunds.md, line 3" in line
    assert line.endswith("Five days.")
    assert "none is relevant enough" in result.stderr


def test_search_json_is_a_list_of_passages() -> None:
    result = invoke(FakeApp(), "search", "How long?", "--json")

    (passage,) = json.loads(result.stdout)
    assert passage["source"] == "refunds.md"
    assert passage["text"] == "Five\n days."
    assert passage["scores"] == {"relevance": 0.2}


def test_models_are_listed_and_fetched_on_request_only() -> None:
    app = FakeApp()

    listed = invoke(app, "models")
    before = app.fetched
    fetched = invoke(app, "models", "--fetch", "--json")

    assert before == 0
    assert listed.stdout.splitlines()[1].split()[:2] == ["org/model", "no"]
    assert json.loads(fetched.stdout) == [
        {
            "source": "org/model",
            "present": True,
            "size_bytes": 1_500_000,
            "sha256": "ab" * 32,
            "origin": "hub",
            "folder": "/cache/model",
        }
    ]


class FittingApp(FakeApp):
    """A bot whose generator is a folder with a configuration of a small model."""

    def __init__(self, folder: Path, **generation: Any) -> None:
        settings = {"model": str(folder), "precision": "float32", "device": "cpu"}
        super().__init__(
            config=Config(
                knowledge=KnowledgeConfig(model="e", budget_tokens=188),
                generation=GenerationConfig.model_validate(settings | generation),
            )
        )
        self._folder = folder

    def weights(self) -> list[Weights]:
        (embedder,) = super().weights()
        generator = replace(
            embedder,
            source=str(self._folder),
            folder=self._folder,
            present=(self._folder / "config.json").is_file(),
        )
        return [embedder, generator]


def a_llama(folder: Path) -> Path:
    """Write what is known of a model without its weights: 10,000 parameters."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 161}
    described = {"model_type": "llama", **sizes, **heads}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def test_models_fit_says_what_the_generator_takes(tmp_path: Path) -> None:
    app = FittingApp(a_llama(tmp_path), kv_tokens=20_000, candidates=5)

    result = invoke(app, "models", "--fit")

    assert result.exit_code == 0
    assert result.stderr == ""
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    found = {what: amount.strip() for what, amount in rows.items()}
    assert found["device, precision"] == "cpu, float32"
    assert found["keys and values of a token"] == "0.1 kB"  # 2 x 2 x 1 x 8 x 4 bytes
    assert found["generation.kv_tokens"] == "20,000"
    assert found["tokens of a set"] == "1,480 = 1,000 + 5 x 96"
    assert found["sets at once"].startswith("13; with all the memory ")


def test_models_fit_json_is_the_contract(tmp_path: Path) -> None:
    result = invoke(FittingApp(a_llama(tmp_path)), "models", "--fit", "--json")

    printed = json.loads(result.stdout)
    assert list(printed) == [
        "model",
        "device",
        "precision",
        "parameters",
        "memory_bytes",
        "kept_bytes",
        "weights_bytes",
        "left_bytes",
        "kv_bytes_per_token",
        "placed_tokens",
        "fitting_tokens",
        "kv_tokens",
        "set_tokens",
        "sets",
        "most_sets",
        "problems",
    ]
    assert printed["weights_bytes"] == 4 * printed["parameters"]
    assert printed["kv_bytes_per_token"] == 128
    assert printed["problems"] == []


def test_models_fit_says_what_does_not_fit(tmp_path: Path) -> None:
    app = FittingApp(a_llama(tmp_path), kv_tokens=1479, candidates=5)

    result = invoke(app, "models", "--fit")

    assert result.exit_code == 0
    assert result.stderr.startswith("generation.kv_tokens: 1479 are allowed, and one")


def test_models_fit_needs_the_weights_to_be_here(tmp_path: Path) -> None:
    result = invoke(FittingApp(tmp_path), "models", "--fit")

    assert result.exit_code == 2
    assert "is not here yet; add --fetch to fetch it first" in result.stderr


def test_models_fit_knows_nothing_of_a_server() -> None:
    settings = {"model": "g", "backend": "openai", "url": "http://127.0.0.1:1/v1"}
    generation = GenerationConfig.model_validate(settings)
    app = FakeApp(config=CONFIG.model_copy(update={"generation": generation}))

    result = invoke(app, "models", "--fit")

    assert result.exit_code == 2
    assert "'openai' keeps the weights on its own machine" in result.stderr


def test_forget_says_what_was_erased() -> None:
    app = FakeApp()

    ada = invoke(app, "forget", "ada")
    nobody = invoke(app, "forget", "nobody")
    invoke(app, "forget", "4711", "--platform", "slack")

    assert app.the_store.forgotten == ["ada", "nobody", "4711 on slack"]
    assert "conversations 2, events 7" in ada.stdout
    assert nobody.stdout == "nothing is stored about 'nobody'\n"
    assert ada.exit_code == nobody.exit_code == 0


def test_schema_is_json() -> None:
    assert json.loads(invoke(FakeApp(), "schema").stdout) == {"title": "Config"}


# chat, run


class OneLine:
    """A connector that says one thing and ends."""

    name = "terminal"

    def __init__(self) -> None:
        self.replies: list[str] = []

    async def run(self, accept: Callable[[Event], Awaitable[object]]) -> None:
        address = replace(a_turn().message.address, platform=self.name)
        await accept(replace(a_turn().message, address=address))

    async def send(self, address: object, reply: Reply, key: str) -> None:
        self.replies.append(reply.text)


def talking(connector: OneLine, **more: Any) -> FakeApp:
    return FakeApp(plugins=Plugins(connectors=[cast("Connector", connector)]), **more)


def test_chat_talks_on_the_terminal_only_with_its_configured_settings() -> None:
    terminal = OneLine()
    own = Use(use="terminal", settings={"user": "ada"})
    connectors = (Use(use="slack"), own)
    app = talking(terminal, config=CONFIG.model_copy(update={"connectors": connectors}))

    result = invoke(app, "chat")

    assert result.exit_code == 0
    assert app.config.connectors == (own,)
    assert terminal.replies == ["Five **days**."]
    assert app.ingested == []


def test_chat_ingests_the_configured_documents_when_there_is_no_index() -> None:
    app = talking(OneLine(), missing_index=True)

    result = invoke(app, "chat")

    assert result.exit_code == 0
    assert app.config.connectors == (Use(use="terminal"),)
    assert app.ingested == [None]
    assert "0 passages" in result.stderr


@pytest.mark.parametrize(
    ("command", "patient"),
    [(["ask", "How long?"], False), (["chat"], False), (["run"], True)],
)
def test_only_run_waits_for_a_store_that_stays_away(
    command: list[str], *, patient: bool
) -> None:
    app = talking(OneLine())

    invoke(app, *command)

    assert app.patient is patient


def test_run_needs_a_connector() -> None:
    result = invoke(FakeApp(), "run")

    assert result.exit_code == 2
    assert "connectors: the list is empty" in result.stderr


def test_run_runs_every_configured_connector() -> None:
    terminal = OneLine()

    result = invoke(talking(terminal), "run")

    assert result.exit_code == 0
    assert terminal.replies == ["Five **days**."]
    assert "talks on terminal" in result.stderr


# eval, bench


def test_eval_prints_a_table_and_json_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        Row(
            config="hybrid",
            metrics={"mrr": 0.75},
            intervals={"mrr": (0.5, 1.0)},
            n=4,
        ),
        Row(
            config="chorus",
            metrics={"total ms": 12.3},
            intervals={"total ms": (10.0, 15.0)},
            n=2,
        ),
    ]
    asked: list[object] = []

    async def suite(bots: object, file: object, progress: object, how: How) -> Report:
        asked.append((file, how.blocks))
        return Report(suite="handbook", rows=rows)

    monkeypatch.setattr("bot.cli.eval.SUITES", {"handbook": suite})

    table = invoke(FakeApp(), "eval", "handbook", "--limit", "4", "--half", "tune")
    lines = invoke(FakeApp(), "eval", "handbook", "--json", "--blocks")

    assert table.exit_code == lines.exit_code == 0
    header, hybrid, chorus_row = table.stdout.splitlines()
    assert header.split() == ["total", "ms", "mrr", "n"]
    assert hybrid.split() == ["hybrid", "0.750", "[0.500,", "1.000]", "4"]
    assert chorus_row.split() == ["chorus", "12", "[10,", "15]", "2"]
    assert [json.loads(line) for line in lines.stdout.splitlines()] == [
        {
            "config": "hybrid",
            "metrics": {"mrr": 0.75},
            "intervals": {"mrr": [0.5, 1.0]},
            "n": 4,
        },
        {
            "config": "chorus",
            "metrics": {"total ms": 12.3},
            "intervals": {"total ms": [10.0, 15.0]},
            "n": 2,
        },
    ]
    assert "limit=4, half='tune'), False" in repr(asked[0])
    assert "limit=None, half='all'), True" in repr(asked[1])


def test_bench_prints_rows_with_their_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    row = BenchRow(
        case="k 8",
        ours=2.0,
        baseline="generate",
        theirs=5.0,
        unit="s",
        spread=((1.9, 2.1), (4.0, 6.0)),
        also={"of roofline": 0.5},
    )
    chosen: list[tuple[str, str]] = []

    def bench(name: str, only: str) -> Callable[..., list[BenchRow]]:
        chosen.append((name, only))
        return lambda app, progress: [row]

    monkeypatch.setattr("bot.cli.bench.bench", bench)

    table = invoke(FakeApp(), "bench", "generation", "--only", "k 8")
    lines = invoke(FakeApp(), "bench", "generation", "--json")

    heads, cells = table.stdout.splitlines()
    assert heads.split()[-3:] == ["of", "roofline", "baseline"]
    assert cells.split()[:6] == ["k", "8", "2", "5", "s", "2.50"]
    assert cells.split()[-2:] == ["0.5", "generate"]
    assert chosen == [("generation", "k 8"), ("generation", "")]
    assert json.loads(lines.stdout) == {
        "case": "k 8",
        "ours": 2.0,
        "baseline": "generate",
        "theirs": 5.0,
        "unit": "s",
        "ratio": 2.5,
        "spread": [[1.9, 2.1], [4.0, 6.0]],
        "also": {"of roofline": 0.5},
    }


def test_a_bench_without_parts_is_not_asked_for_one() -> None:
    result = invoke(FakeApp(), "bench", "state", "--only", "k 8")

    assert result.exit_code == 2
    assert "bench 'state' has no parts" in result.stderr


# Errors


def failing(error: BaseException) -> FakeApp:
    class Failing(FakeApp):
        def schema(self) -> dict[str, Any]:
            raise error

    return Failing()


def test_every_problem_stands_on_its_own_line() -> None:
    result = invoke(failing(ConfigError(["a: wrong", "b: missing"])), "schema")

    assert result.exit_code == 2
    assert result.stderr == "a: wrong\nb: missing\n"
    assert result.stdout == ""


def test_what_the_operator_cannot_fix_ends_with_1() -> None:
    result = invoke(failing(TurnError("the turn failed")), "schema")

    assert result.exit_code == 1
    assert result.stderr == "the turn failed\n"


def test_errors_of_tasks_are_shown_as_if_they_were_alone() -> None:
    error = BaseExceptionGroup(
        "tasks", [ExceptionGroup("inner", [ConfigError("a: wrong")])]
    )

    result = invoke(failing(error), "schema")

    assert (result.exit_code, result.stderr) == (2, "a: wrong\n")


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("tasks", [KeyboardInterrupt()])]
)
def test_an_interrupt_ends_quietly_with_130(error: BaseException) -> None:
    result = invoke(failing(error), "schema")

    assert (result.exit_code, result.output) == (130, "")


def test_a_mistake_in_the_program_is_not_hidden() -> None:
    result = invoke(failing(ZeroDivisionError()), "schema")

    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == 1


# Configuration


def test_the_file_may_be_named_before_and_after_the_command() -> None:
    app = FakeApp()

    for arguments in (
        ["--config", "a.yaml", "schema"],
        ["schema", "--config", "b.yaml"],
        ["--config", "a.yaml", "schema", "--config", "c.yaml"],
        ["schema"],
    ):
        invoke(app, *arguments)

    assert [str(path) for path, _ in app.opened] == [
        "a.yaml",
        "b.yaml",
        "c.yaml",
        "config/bot.yaml",
    ]
