"""
Variants: configurations that differ from one another in a few keys, in one file.

    greedy:
      generation: {candidates: 1}
      plugins: {multinomial: {temperature: 0}, min-p: off}
    typical:
      plugins: {min-p: off, typical: {mass: 0.95}}

A name, then what is different from the configuration that the file is applied to.
Mappings are merged, everything else is replaced. `plugins` maps a plugin to `off` or to
settings, which are merged into those it has; one that was not enabled is put at the
end of the list. Knows nothing about what is done with the configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bot.config import Config, Use
from bot.config_file import sentences
from bot.errors import ConfigError

_NEEDS = "write a name, and below it the keys that differ, as in config/bot.yaml"


def variants(path: Path, base: Config) -> dict[str, Config]:
    """Return the configurations of a file, in its order, or raise ConfigError."""
    problems: list[str] = []
    found: dict[str, Config] = {}
    for name, changes in _read(path).items():
        where = f"{path}: {name}"
        if not isinstance(changes, Mapping):
            problems.append(f"{where}: {changes!r} is no mapping; {_NEEDS}")
            continue
        try:
            found[str(name)] = changed(base, changes)
        except ValidationError as error:
            problems += [f"{where}: {told}" for told in sentences(error, Config)]
        except ConfigError as error:
            problems += [f"{where}: {told}" for told in error.problems]
    if problems:
        raise ConfigError(problems)
    return found


def changed(base: Config, changes: Mapping[str, Any]) -> Config:
    """Return `base` with the changes of one variant; secrets and paths stay."""
    rest = {key: value for key, value in changes.items() if key != "plugins"}
    merged = _merged(base.model_dump(), rest)
    merged["plugins"] = _plugins(base.plugins, changes.get("plugins") or {})
    return Config.model_validate(merged)


def _plugins(uses: tuple[Use, ...], changes: Any) -> list[Use]:
    if not isinstance(changes, Mapping):
        raise ConfigError(
            f"plugins: {changes!r} is no mapping; write a plugin's name and `off` or "
            "its settings"
        )
    kept = [use for use in uses if changes.get(use.use, {}) is not False]
    known = {use.use for use in kept}
    new = [name for name in changes if name not in known]
    enabled = [*kept, *(Use(use=name) for name in new if changes[name] is not False)]
    return [
        use.model_copy(
            update={"settings": {**use.settings, **(changes.get(use.use) or {})}}
        )
        for use in enabled
    ]


def _merged(base: Any, changes: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {**base, **{key: _merged(base.get(key), changes[key]) for key in changes}}


def _read(path: Path) -> Mapping[Any, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{path}: not YAML: {told}; {_NEEDS}") from error
    if not isinstance(document, Mapping) or not document:
        raise ConfigError(f"{path}: holds no variants; {_NEEDS}")
    return document
