"""A bot of a file, with a scripted model, whose commands are run in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner, Result

from bot import config_file
from bot.app import App, _Loaded
from bot.cli import chorus
from bot.config import Config
from bot.interfaces import Progress
from bot.testing.fakes import HashEmbedder, ScriptedLanguageModel
from tests.test_experiment import a_model


@dataclass(kw_only=True)
class ScriptedBot:
    """A bot's file, and the model behind it."""

    file: Path
    model: ScriptedLanguageModel = field(default_factory=a_model)

    def opening(
        self, path: Path, progress: Progress, changed: Callable[[Config], Config]
    ) -> App:
        loaded = _Loaded(embedder=HashEmbedder(), language_model=self.model)
        config = changed(config_file.load(path))
        return App.from_config(config, progress, str(path), loaded)

    def app(self) -> App:
        return self.opening(self.file, lambda *_: None, lambda config: config)

    def invoke(self, *arguments: str) -> Result:
        given = ["--config", str(self.file), *arguments]
        return CliRunner().invoke(chorus, given, obj=self.opening)
