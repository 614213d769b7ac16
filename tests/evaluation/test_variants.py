"""One file of differences becomes several configurations, or one list of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.app import App
from bot.config import Config
from bot.config_file import load
from bot.errors import ConfigError
from bot.evaluation.variants import variants

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


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\ud800"])
def test_a_file_without_variants_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "variants.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))

    with pytest.raises(ConfigError, match="write a name"):
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
