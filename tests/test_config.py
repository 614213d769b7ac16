"""The configuration file: every problem at once, secrets nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot import config_file
from bot.config import Config
from bot.errors import ConfigError

MINIMAL = """
knowledge: {model: embedder}
generation: {model: generator}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "bot.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config_file.load(written(folder, text))
    return caught.value.problems


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    loaded = config_file.load(written(tmp_path, MINIMAL))

    assert loaded.generation.candidates == 8
    assert loaded.redis.url is None


def test_knowledge_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = "knowledge: {model: m, paths: [docs]}\ngeneration: {model: m}"

    loaded = config_file.load(written(tmp_path, text))

    assert loaded.knowledge.paths == (tmp_path / "docs",)


def test_all_problems_are_told_at_once_with_key_value_and_near_match(
    tmp_path: Path,
) -> None:
    problems = problems_of(
        tmp_path,
        """
generation: {model: m, candidats: 5, candidates: 0}
knowledge: {model: m, passages: many}
plugin: []
""",
    )

    text = "\n".join(problems)
    assert len(problems) == 4
    assert all(str(tmp_path / "bot.yaml") in problem for problem in problems)
    assert "generation.candidats: unknown key; did you mean 'candidates'?" in text
    assert "generation.candidates" in text
    assert "found 0" in text
    assert "knowledge.passages" in text
    assert "found 'many'" in text
    assert "plugin: unknown key; did you mean 'plugins'?" in text


def test_a_missing_key_says_what_it_is_for(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, "knowledge: {model: m}\ngeneration: {}")

    assert len(problems) == 1
    assert (
        "generation.model: missing; it needs source of the generator's" in problems[0]
    )


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*--config"):
        config_file.load(tmp_path / "nowhere.yaml")


def test_a_folder_in_place_of_a_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config_file.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1", "line 1"),
        ("- just\n- a list", "expected keys and values"),
        ("", "found NoneType"),
        ("name: a\nname: b\n", "the key 'name' stands twice"),
        ("name: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_what_is_not_a_configuration_is_one_sentence(
    tmp_path: Path, text: str, told: str
) -> None:
    assert told in problems_of(tmp_path, text)[0]


def test_a_file_that_is_not_utf_8_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "bot.yaml"
    path.write_bytes(b"name: \xff\xfe")

    with pytest.raises(ConfigError, match="not UTF-8 at byte 6"):
        config_file.load(path)


def test_a_missing_secret_names_key_and_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHORUS_REDIS", raising=False)

    problems = problems_of(tmp_path, MINIMAL + "redis: {url: {env: CHORUS_REDIS}}")

    assert "redis.url" in problems[0]
    assert "'CHORUS_REDIS' is not set" in problems[0]


def test_a_missing_secret_hides_no_other_problem_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)

    problems = problems_of(
        tmp_path,
        """
generation: {model: {env: ABSENT}, candidates: 0}
knowledge: {model: m}
name: {env: ABSENT}
""",
    )

    keys = [problem.split(": ")[1] for problem in problems]
    assert keys == ["generation.model", "generation.candidates", "name"]


@pytest.mark.parametrize(
    "broken",
    [
        "{env: ABSENT}",
        "1: 2",
        "plugins: {use: mmr}",
        "plugins: [mmr, {use: 5}, {env: ABSENT}]",
        "plugins: [{use: ''}]",
        "channels: [x, {ranking: {weights: {1: 2, a: x}}}, {plugins: [1]}]",
        "knowledge: {paths: [1]}",
    ],
)
def test_no_mistake_keeps_a_file_from_being_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)

    draft = config_file.read(written(tmp_path, broken))

    assert draft.problems


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ("ranking: {weights: {groundedness: .nan}}", "ranking.weights.groundedness"),
        ("ranking: {plugin_timeout_s: .inf}", "ranking.plugin_timeout_s"),
        ("conversation: {ttl_days: .inf}", "conversation.ttl_days"),
        ("conversation: {ttl_days: 1.0e+9}", "conversation.ttl_days"),
        ("redis: {url: nonsense}", "redis.url"),
    ],
)
def test_values_that_would_end_in_a_crash_are_refused(
    tmp_path: Path, wrong: str, key: str
) -> None:
    (problem,) = problems_of(tmp_path, MINIMAL + wrong)

    assert f": {key}: " in problem


def test_a_wrong_redis_url_may_hold_a_password_and_is_not_shown(
    tmp_path: Path,
) -> None:
    problems = problems_of(tmp_path, MINIMAL + "redis: {url: 'http://:canary@host'}")

    assert "canary" not in problems[0]
    assert "rediss://" in problems[0]


def test_a_secret_is_read_and_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORUS_REDIS", "redis://:canary@localhost")

    loaded = config_file.load(
        written(tmp_path, MINIMAL + "redis: {url: {env: CHORUS_REDIS}}")
    )

    assert loaded.redis.url is not None
    assert loaded.redis.url.get_secret_value() == "redis://:canary@localhost"
    assert "canary" not in repr(loaded)
    assert "canary" not in loaded.model_dump_json()


def test_a_wrong_secret_is_not_shown_in_the_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "canary")

    problems = problems_of(tmp_path, MINIMAL + "name: {env: SECRET}")

    assert "canary" not in "\n".join(problems)


def test_the_fingerprint_changes_with_any_setting(tmp_path: Path) -> None:
    base = config_file.load(written(tmp_path, MINIMAL))
    same = config_file.load(written(tmp_path, MINIMAL))
    other = config_file.load(written(tmp_path, MINIMAL + "name: Other"))

    assert base.fingerprint == same.fingerprint
    assert base.fingerprint != other.fingerprint


def test_the_configuration_cannot_be_changed_behind_anyones_back(
    tmp_path: Path,
) -> None:
    loaded = config_file.load(written(tmp_path, MINIMAL))

    with pytest.raises(ValueError, match="frozen"):
        loaded.name = "other"  # type: ignore[misc]  # the mistake under test


def test_every_setting_has_a_description() -> None:
    def undescribed(schema: dict[str, object]) -> list[str]:
        properties = schema.get("properties", {})
        assert isinstance(properties, dict)
        return [
            name
            for name, field in properties.items()
            if "description" not in field and "$ref" not in str(field)
        ]

    schema = Config.model_json_schema()

    assert [undescribed(schema), *map(undescribed, schema["$defs"].values())] == [
        [] for _ in range(1 + len(schema["$defs"]))
    ]


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ("candidates: 64, max_new_tokens: 4000", 256_200),
        ("candidates: 64, max_new_tokens: 40, kv_tokens: 1000", 2760),
    ],
)
def test_memory_that_holds_no_candidate_set_is_told_with_what_it_needs(
    tmp_path: Path, settings: str, needed: int
) -> None:
    text = f"knowledge: {{model: m}}\ngeneration: {{model: m, {settings}}}"

    (problem,) = problems_of(tmp_path, text)

    assert "generation.kv_tokens: 64 candidates of" in problem
    assert f"a short prompt need {needed}; raise it" in problem


@pytest.mark.parametrize(
    "actions",
    [
        "{rules: [{command: x}]}",
        "{forms: {f: {slots: []}}}",
        "{forms: {f: {}}}",
        '{tools: {a: {description: ""}}}',
        "{slots: {a b: {}}}",
        "{sources: [{}]}",
        "{sources: [{url: x}]}",
        "{server: []}",
    ],
)
def test_what_is_missing_in_the_actions_is_told_and_the_rest_is_read(
    tmp_path: Path, actions: str
) -> None:
    path = written(tmp_path, f"{MINIMAL}actions: {actions}\nname: Larkspur\n")

    draft = config_file.read(path)

    assert len(draft.problems) == 1
    assert "actions." in draft.problems[0]
    assert draft.config.name == "Larkspur"


def test_a_token_that_stands_at_the_wrong_source_is_not_shown(tmp_path: Path) -> None:
    sources = "{sources: [{use: 'mine:Mine', token: secret}]}"
    path = written(tmp_path, f"{MINIMAL}actions: {sources}\n")

    (problem,) = config_file.read(path).problems

    assert "actions.sources[0].token: is for a server" in problem
    assert "secret" not in problem
