"""
What the deployment files promise, without an engine to run them.

The Compose file, the Dockerfile, the units and docs/deploy.md are read as text and held
against the program: its defaults, its commands, its metrics and its Redis commands.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from bot import config_file, metrics
from bot.cli import run
from bot.config import Config, OperationsConfig, WorkersConfig
from bot.conversation.redis_server import EmbeddedRedis

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "docs" / "deploy"
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if name != "redis"}
WORKERS = ("workers", "workers-gpu")
PROCESSES = ("connectors", *WORKERS)
LONG_RUNNING = ("redis", *PROCESSES)

each = pytest.mark.parametrize("name", sorted(SERVICES))
each_long_running = pytest.mark.parametrize("name", LONG_RUNNING)
each_process = pytest.mark.parametrize("name", PROCESSES)
each_unit = pytest.mark.parametrize(
    "unit", sorted(UNITS.glob("*.service")), ids=lambda path: path.name
)


def compose_is_here() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    found = subprocess.run(
        [docker, "compose", "version"], capture_output=True, check=False
    )
    return found.returncode == 0


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration, re.ASCII).groups()  # type: ignore[union-attr]  # raises when it is none
    return float(number) * {"s": 1, "m": 60}[unit]


def words_of_redis() -> list[str]:
    (_, _, script) = SERVICES["redis"]["command"]
    return shlex.split(script)


def mounts(name: str) -> dict[str, Mapping[str, Any]]:
    return {one["target"]: one for one in SERVICES[name]["volumes"]}


# The Compose file


@pytest.mark.skipif(not compose_is_here(), reason="docker compose is not installed")
@pytest.mark.processes
def test_docker_compose_accepts_the_file() -> None:
    finished = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--quiet"],  # noqa: S607
        cwd=ROOT,
        env=os.environ | {"CHORUS_REDIS_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr


def test_there_is_a_service_for_every_half_and_for_what_comes_before() -> None:
    commands = {name: one["command"] for name, one in OURS.items()}

    assert commands == {
        "connectors": ["run", "--only", "connectors"],
        "workers": ["run", "--only", "workers"],
        "workers-gpu": ["run", "--only", "workers"],
        "models": ["models", "--fetch"],
        "ingest": ["ingest"],
    }


@each
def test_nothing_is_published(name: str) -> None:
    service = SERVICES[name]

    assert "ports" not in service
    assert service.get("network_mode") is None


def test_redis_is_on_a_network_that_leads_nowhere() -> None:
    networks = SERVICES["redis"]["networks"]

    assert networks == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"] is True


@each
def test_no_container_may_become_more_than_it_is(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["read_only"] is True
    assert "privileged" not in service
    assert "cap_add" not in service


@each
def test_nobody_is_root(name: str) -> None:
    user = SERVICES[name].get("user")

    if name == "redis":
        assert user == "valkey"
    else:
        assert user is None  # the image's, which is not root either
        assert SERVICES[name]["build"]["context"] == "."


@each_long_running
def test_what_runs_long_is_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]

    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True


@each_process
def test_running_turns_get_their_time_before_a_container_is_killed(name: str) -> None:
    grace = seconds(SERVICES[name]["stop_grace_period"])

    assert grace > WorkersConfig().shutdown_s


@each_process
def test_the_health_check_asks_where_chorus_listens(name: str) -> None:
    *_, script = SERVICES[name]["healthcheck"]["test"]

    operations = OperationsConfig()
    assert f'HTTPConnection("{operations.host}", {operations.port},' in script
    assert '"/ready"' in script


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.processes
def test_the_health_check_passes_on_what_ready_says(status: int) -> None:
    command, *arguments = SERVICES["workers"]["healthcheck"]["test"][1:]
    answering = f"""
import http.client
from types import SimpleNamespace
class HTTPConnection:
    def __init__(self, host, port, timeout): pass
    def request(self, method, path): pass
    def getresponse(self): return SimpleNamespace(status={status})
http.client.HTTPConnection = HTTPConnection
"""
    option, script = arguments

    checked = subprocess.run([sys.executable, option, answering + script], check=False)

    assert command == "python"
    assert checked.returncode == (status != 200)


@each_process
def test_a_process_waits_for_redis_and_finds_it(name: str) -> None:
    service = SERVICES[name]

    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert "@redis:6379/" in service["environment"]["CHORUS_REDIS_URL"]
    assert "inside" in service["networks"]


def test_redis_keeps_everything_it_is_given() -> None:
    words = words_of_redis()

    assert words[:3] == ["exec", "valkey-server", "-"]
    options = dict(pairwise(words))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--dir"] == "/data"
    assert mounts("redis")["/data"]["source"] in COMPOSE["volumes"]


def test_the_redis_image_is_pinned_to_the_last_digit() -> None:
    image = SERVICES["redis"]["image"]

    assert re.fullmatch(r"valkey/valkey:\d+\.\d+\.\d+-\w+", image)


def test_the_password_comes_from_the_environment_and_is_required() -> None:
    used = re.findall(
        r"\$\{?\w*PASSWORD[^}]*\}?", (ROOT / "docker-compose.yml").read_text()
    )

    assert len(used) == 2
    assert all(one.startswith("${CHORUS_REDIS_PASSWORD:?put a ") for one in used)
    assert "requirepass" in words_of_redis()


def test_the_password_is_no_argument_of_a_process() -> None:
    words = words_of_redis()

    before_standard_input = words[: words.index("<<END")]
    assert not [word for word in before_standard_input if "AUTH" in word]


@pytest.mark.parametrize("name", WORKERS)
def test_workers_can_be_scaled(name: str) -> None:
    service = SERVICES[name]

    assert "container_name" not in service
    assert "hostname" not in service
    assert all(one.get("read_only") for one in service["volumes"])


def test_workers_with_a_gpu_are_there_on_request() -> None:
    service = SERVICES["workers-gpu"]

    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert service["profiles"] == ["gpu"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert service["image"] != SERVICES["workers"]["image"]


@pytest.mark.parametrize("name", ["models", "ingest"])
def test_what_comes_before_runs_once_and_may_write(name: str) -> None:
    service, mounted = SERVICES[name], mounts(name)

    assert service["restart"] == "no"
    assert service["profiles"] == ["prepare"]
    assert not mounted["/srv/chorus/.chorus"].get("read_only")
    assert not mounted["/cache"].get("read_only")


@pytest.mark.parametrize("name", sorted(OURS))
def test_configuration_documents_index_and_models_are_where_chorus_looks(
    name: str,
) -> None:
    mounted = mounts(name)

    assert set(mounted) == {
        "/srv/chorus/config/bot.yaml",
        "/srv/chorus/config/knowledge",
        "/srv/chorus/.chorus",
        "/cache",
    }
    assert "WORKDIR /srv/chorus\n" in (ROOT / "Dockerfile").read_text()
    assert Config.model_fields["data"].default == Path(".chorus")


# The configuration


def test_the_mounted_configuration_exists_and_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = mounts("workers")["/srv/chorus/config/bot.yaml"]["source"]
    default = re.fullmatch(r"\$\{CHORUS_CONFIG:-(.+)\}", source)
    assert default is not None
    url = "redis://:secret@redis:6379/0"
    monkeypatch.setenv("CHORUS_REDIS_URL", url)

    loaded = config_file.load(ROOT / default[1])

    assert loaded.redis.url is not None
    assert loaded.redis.url.get_secret_value() == url
    assert loaded.operations == OperationsConfig()
    assert loaded.connectors


def test_the_mounted_configuration_is_the_shipped_bot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHORUS_REDIS_URL", "redis://redis:6379/0")
    shipped = config_file.load(ROOT / "config" / "bot.yaml")

    deployed = config_file.load(UNITS / "bot.yaml")

    own = {"redis", "operations", "workers", "knowledge"}
    assert deployed.model_dump(exclude=own) == shipped.model_dump(exclude=own)
    apart = {"paths"}  # relative to the file; in a container and in /etc beside it
    assert deployed.knowledge.model_dump(exclude=apart) == shipped.knowledge.model_dump(
        exclude=apart
    )
    assert deployed.workers.shutdown_s == WorkersConfig().shutdown_s


# The image


def test_the_image_runs_chorus_as_somebody_without_a_shell_between() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()

    last_stage = lines[
        max(at for at, line in enumerate(lines) if line[:5] == "FROM ") :
    ]
    users = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert users[-1] == "10001:10001"
    assert 'ENTRYPOINT ["chorus"]' in last_stage
    assert not [line for line in last_stage if line.startswith("EXPOSE")]


def test_the_image_is_built_from_named_files_only() -> None:
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )

    wanted = {path for line in copied for path in line.split()}
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == wanted
    assert all((ROOT / path).exists() for path in wanted)


def test_the_image_installs_the_pinned_versions_as_the_makefile_does() -> None:
    steps = re.findall(r"pip install (.+)", (ROOT / "Dockerfile").read_text())

    pinned = "--constraint constraints.txt"
    assert steps == [f"{pinned} ${{PIP_ARGS}} torch", f"{pinned} ."]
    assert f"install {pinned} torch\n" in (ROOT / "Makefile").read_text()


# The units


def settings_of(unit: Path) -> list[tuple[str, str]]:
    lines = unit.read_text().splitlines()
    return [
        (name, value)
        for name, equals, value in (line.partition("=") for line in lines)
        if equals and not name.startswith("#")
    ]


def test_the_units_start_what_the_containers_start() -> None:
    started = {
        unit.name: dict(settings_of(unit))["ExecStart"]
        for unit in UNITS.glob("*.service")
    }

    program = "/opt/chorus/venv/bin/chorus"
    halves = {name: shlex.join(SERVICES[name]["command"]) for name in PROCESSES}
    assert started == {
        "chorus.service": f"{program} run --config /etc/chorus/bot.yaml",
        "chorus-connectors.service": (
            f"{program} {halves['connectors']} --config /etc/chorus/bot.yaml"
        ),
        "chorus-workers@.service": (
            f"{program} {halves['workers']} --port %i --config /etc/chorus/bot.yaml"
        ),
    }


@each_unit
def test_a_unit_starts_chorus_with_options_that_it_has(unit: Path) -> None:
    words = shlex.split(dict(settings_of(unit))["ExecStart"])

    known = {option for one in run.command.params for option in one.opts}
    assert words[1] == run.command.name
    assert {word for word in words if word.startswith("--")} <= known


@each_unit
def test_a_unit_gives_running_turns_their_time_and_starts_again(unit: Path) -> None:
    settings = dict(settings_of(unit))

    assert float(settings["TimeoutStopSec"]) > WorkersConfig().shutdown_s
    assert settings["Restart"] == "on-failure"
    assert settings["StartLimitIntervalSec"] == "0"
    assert settings["KillMode"] == "mixed"


@each_unit
def test_a_unit_may_do_no_more_than_the_others(unit: Path) -> None:
    settings = settings_of(unit)

    names = [name for name, _ in settings]
    allowed = settings[names.index("NoNewPrivileges") :]
    model = settings_of(UNITS / "chorus.service")
    assert allowed == model[[name for name, _ in model].index("NoNewPrivileges") :]
    assert {
        ("User", "chorus"),
        ("StateDirectory", "chorus"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
    } <= set(settings)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
@pytest.mark.processes
@each_unit
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    installed = tmp_path / unit.name
    installed.write_text(
        unit.read_text().replace("/opt/chorus/venv/bin/chorus", sys.executable)
    )

    finished = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    assert installed.name not in finished.stderr


# The guide


def commands_of_the_guide() -> set[str]:
    return set(re.findall(r"docker compose ([^`#|\n]+)", GUIDE))


def test_the_guide_names_only_services_that_there_are() -> None:
    named = {
        word
        for command in commands_of_the_guide()
        for word in re.findall(r"(?:run|exec) (?:-\S+ )*([a-z-]+)", command)
    }

    assert named == {"models", "ingest", "workers", "redis"}


def test_the_guide_names_every_variable_of_the_compose_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    variables = set(re.findall(r"\$\{(CHORUS_\w+)", text))
    assert variables
    assert [name for name in variables if f"`{name}`" not in GUIDE] == []


def yaml_of_the_guide() -> list[Any]:
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def test_every_alert_is_about_a_metric_that_there_is() -> None:
    _, alerts = yaml_of_the_guide()
    shown = metrics.exposition([], 0).decode()

    (group,) = alerts["groups"]
    expressions = " ".join(rule["expr"] for rule in group["rules"])
    named = re.findall(r"chorus_\w+", expressions)
    assert named == [
        "chorus_oldest_waiting_seconds",
        "chorus_outbox_oldest_seconds",
        "chorus_lease_losses_total",
        "chorus_dead_letters",
    ]
    assert [name for name in named if f"# HELP {name} " not in shown] == []


def test_prometheus_is_told_of_the_port_that_chorus_has() -> None:
    scrape, _ = yaml_of_the_guide()

    (job,) = scrape["scrape_configs"]
    first = job["static_configs"][0]["targets"][0]
    assert first.endswith(f":{OperationsConfig().port}")


# The Redis user


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Any]:
    """A server that knows the guide's user; the client is another one's."""
    (rules,) = re.findall(r"^user (chorus on .+)$", GUIDE, flags=re.MULTILINE)
    with EmbeddedRedis(tmp_path / "redis") as server:
        client: Any = redis.Redis.from_url(server.url)  # execute_command has no types
        client.execute_command("ACL", "SETUSER", *rules.split())
        yield client
        client.close()


def verdict(client: Any, command: Sequence[str]) -> str:
    said = client.execute_command("ACL", "DRYRUN", "chorus", *command)
    return said.decode() if isinstance(said, bytes) else str(said)


def commands_of_the_scripts() -> set[str]:
    """Return every command; one with a subcommand as xinfo|stream."""
    sources = (ROOT / "bot" / "conversation").glob("*.py")
    return {
        "|".join(filter(None, called)).lower()
        for source in sources
        for called in re.findall(
            r"redis\.p?call\(\s*'([A-Z]+)'(?:,\s*'([A-Z]{3,})')?", source.read_text()
        )
    }


def as_it_may_be_called(client: Any, command: str) -> list[str]:
    """Return the command with as many arguments as it needs, all of them ours."""
    (described,) = client.execute_command("COMMAND", "INFO", command).values()
    words = command.split("|")
    ours = "chorus:frames:slack" if command == "publish" else "chorus:{s0}:key"
    return words + [ours] * (abs(described["arity"]) - len(words))


@pytest.mark.services
def test_the_redis_user_of_the_guide_may_do_what_the_scripts_do(
    guarded: Any,
) -> None:
    commands = commands_of_the_scripts()

    verdicts = {
        command: verdict(guarded, as_it_may_be_called(guarded, command))
        for command in commands
    }

    assert len(commands) > 10
    assert {one: said for one, said in verdicts.items() if said != "OK"} == {}


@pytest.mark.services
@pytest.mark.parametrize(
    "command",
    [
        "EVAL return 1 chorus:{s0}:key",
        "EVALSHA 0123 1 chorus:{s0}:key",
        "PING",
        "HSETNX chorus:meta shards 1",
        "XGROUP CREATE chorus:{s0}:ready:slack g 0 MKSTREAM",
        "XREADGROUP GROUP g c STREAMS chorus:{s0}:ready:slack >",
        "XAUTOCLAIM chorus:{s0}:ready:slack g c 1 0",
        "COMMAND",
        "CLUSTER SLOTS",
        "SUBSCRIBE chorus:frames:slack",
    ],
)
def test_the_redis_user_of_the_guide_may_do_what_the_client_does(
    guarded: Any, command: str
) -> None:
    assert verdict(guarded, command.split()) == "OK"


@pytest.mark.services
@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "KEYS *",
        "CONFIG GET requirepass",
        "ACL LIST",
        "GET another:key",
        "SUBSCRIBE another:channel",
    ],
)
def test_the_redis_user_of_the_guide_may_do_nothing_else(
    guarded: Any, command: str
) -> None:
    assert "no permissions" in verdict(guarded, command.split())
