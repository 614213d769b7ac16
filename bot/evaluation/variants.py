"""
Variants: configurations that differ from one another in a few keys, in one file.

    one:
      generation: {candidates: 1}
    typical:
      plugins: {min-p: off, typical: {mass: 0.95}}

A name, then what is different from the configuration that the file is applied to.
Mappings are merged, everything else is replaced. `plugins` maps a plugin to `off` or to
settings, which are merged into those it has; one that was not enabled is put at the
end of the list. Knows nothing about what is done with the configurations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bot.config import Config, Use
from bot.config_file import sentences
from bot.errors import ConfigError
from bot.plugin_manager import class_of

_NEEDS = "write a name, and below it the keys that differ, as in config/bot.yaml"


def variants(path: Path, base: Config) -> dict[str, Config]:
    """Return the configurations of a file, in its order, or raise ConfigError."""
    problems: list[str] = []
    found: dict[str, Config] = {}
    for name, changes in _read(path).items():
        where = f"{path}: {name}"
        if not str(name or "").strip():
            problems.append(f"{path}: {name!r} is no name; {_NEEDS}")
        elif not isinstance(changes, Mapping):
            problems.append(f"{where}: {changes!r} is no mapping; {_NEEDS}")
        else:
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
    known = {use.use for use in uses}
    problems = [
        problem
        for name, change in changes.items()
        for problem in _problems(name, change, known)
    ]
    if problems:
        raise ConfigError(problems)
    new = [Use(use=name) for name in changes if name not in known]
    return [
        use.model_copy(
            update={"settings": {**use.settings, **(changes.get(use.use) or {})}}
        )
        for use in (*uses, *new)
        if changes.get(use.use) is not False
    ]


def _problems(name: Any, change: Any, known: Collection[str]) -> Iterator[str]:
    """Find what is wrong with one plugin's change, but for its settings."""
    if change is not False and change is not None and not isinstance(change, Mapping):
        yield (
            f"plugins.{name}: {change!r} is neither `off` nor settings; write `off`, "
            "or {} for settings as they are"
        )
    if name not in known:
        # Also of one that is to be off: a slip of the pen would leave it on.
        try:
            class_of(str(name))
        except ConfigError as error:
            yield from (f"plugins: {problem}" for problem in error.problems)


def _merged(base: Any, changes: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {**base, **{key: _merged(base.get(key), changes[key]) for key in changes}}


def _read(path: Path) -> Mapping[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        twice = next(_twice(yaml.compose(text, yaml.SafeLoader)), None)
        document = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; correct the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text: {error.reason}; save it as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{path}: not YAML: {told}; {_NEEDS}") from error
    if twice is not None:
        raise ConfigError(
            f"{path}: line {twice.start_mark.line + 1}: {twice.value!r} stands twice, "
            "and only the last would count; rename one, or merge them"
        )
    if not isinstance(document, Mapping) or not document:
        raise ConfigError(f"{path}: holds no variants; {_NEEDS}")
    return document


def _twice(root: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Find the keys that stand a second time in a mapping, as it is written."""
    left, seen = [root], set[int]()
    while left:
        node = left.pop()
        if node is None or id(node) in seen:  # an alias is the node it stands for
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            written: set[str] = set()
            for key, value in node.value:
                left.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if key.value in written:
                        yield key
                    written.add(key.value)
