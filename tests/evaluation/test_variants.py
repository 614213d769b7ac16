"""One file of differences becomes several configurations, or one list of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.app import App
from bot.config import Config
from bot.config_file import load
from bot.errors import ConfigError
from bot.evaluation.variants import variants

pytestmark = pytest.mark.slow  # test-fast does without

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "bot.yaml"
BASE = Config.model_validate(
    {
        "knowledge": {"model": "e"},
        "generation": {"model": "g", "candidates": 8},
        "plugins": [
            {"use": "multinomial", "settings": {"temperature": 0.7, "top_k": 50}},
            {"use": "min-p"},
        ],
    }
)


def of(tmp_path: Path, text: str) -> dict[str, Config]:
    path = tmp_path / "variants.yaml"
    path.write_text(text)
    return variants(path, BASE)


def test_a_variant_differs_in_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    found = of(
        tmp_path,
        "hot:\n  plugins: {multinomial: {temperature: 1.2}, min-p: off, typical: {}}\n"
        "one:\n  generation: {candidates: 1}\n",
    )

    assert list(found) == ["hot", "one"]
    assert [(use.use, use.settings) for use in found["hot"].plugins] == [
        ("multinomial", {"temperature": 1.2, "top_k": 50}),
        ("typical", {}),
    ]
    assert found["hot"].generation == BASE.generation
    assert found["one"].generation.candidates == 1
    assert found["one"].generation.model == "g"
    assert found["one"].plugins == BASE.plugins


def test_every_mistake_of_a_file_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        of(
            tmp_path,
            "a: 5\nb:\n  generation: {candidates: many}\nc:\n  plugins: [typical]\n",
        )

    a, b, c = raised.value.problems
    assert a.endswith(
        "a: 5 is no mapping; write a name, and below it the keys that "
        "differ, as in config/bot.yaml"
    )
    assert "b: generation.candidates" in b
    assert "c: plugins: ['typical'] is no mapping" in c


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("{min-p: 7}", "plugins.min-p: 7 is neither `off` nor settings; write `off`"),
        ("{min-p: true}", "plugins.min-p: True is neither `off` nor settings"),
        ("{min-p: [1]}", "plugins.min-p: [1] is neither `off` nor settings"),
        (
            "{quotatoin: off}",
            "plugins: no plugin 'quotatoin'; did you mean 'quotation'",
        ),
        ("{quotatoin: {}}", "plugins: no plugin 'quotatoin'; did you mean"),
        ("{7: off}", "plugins: no plugin '7'"),
    ],
)
def test_a_plugin_that_is_not_there_or_no_settings_are_told(
    tmp_path: Path, change: str, told: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        of(tmp_path, f"a:\n  plugins: {change}\nb: 5\n")

    problem, after_it = raised.value.problems
    assert f"variants.yaml: a: {told}" in problem
    assert "b: 5 is no mapping" in after_it


def test_a_plugin_that_is_off_already_may_be_put_off(tmp_path: Path) -> None:
    found = of(tmp_path, "a:\n  plugins: {quotation: off}\n")

    assert found["a"].plugins == BASE.plugins


@pytest.mark.parametrize("name", ['""', '"  "', "~"])
def test_a_variant_without_a_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name; write a name"):
        of(tmp_path, f"{name}: {{}}\n")


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("a: {}\nb: {}\na: {}\n", 3, "a"),
        ("a:\n  plugins: {min-p: off, min-p: {}}\n", 2, "min-p"),
        ("x: &x\n  data: [{d: 1, d: 2}]\ny: *x\n", 2, "d"),
    ],
)
def test_a_key_that_stands_twice_is_refused(
    tmp_path: Path, text: str, line: int, key: str
) -> None:
    with pytest.raises(ConfigError, match=f"line {line}: '{key}' stands twice"):
        of(tmp_path, text)


def test_what_is_merged_into_a_variant_may_be_said_otherwise_there(
    tmp_path: Path,
) -> None:
    found = of(
        tmp_path,
        "a:\n  plugins: &p {min-p: off}\n"
        "b:\n  plugins:\n    <<: *p\n    min-p: {minimum: 0.2}\n",
    )

    assert found["b"].plugins[1].settings == {"minimum": 0.2}


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\ud800"])
def test_a_file_without_variants_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "variants.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))

    with pytest.raises(ConfigError, match=r"write a name|save it as UTF-8"):
        variants(path, BASE)


def test_a_file_that_is_not_there_is_the_operators_to_find(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        variants(tmp_path / "none.yaml", BASE)


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "config" / "evaluation").glob("*.yaml")),
    ids=lambda p: p.stem,
)
def test_the_shipped_variants_are_sound(path: Path) -> None:
    for name, config in variants(path, load(SHIPPED)).items():
        app = App.from_config(config, lambda *_: None, name)

        assert any(
            one.name == config.generation.sampler for one in app.plugins.samplers
        )
