"""
One YAML file becomes one `Config`, or one list of everything wrong with it.

Completes what is written (secrets, paths) and words every mistake for who can mend it.
Knows no setting by name but those that stand in for what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from rapidfuzz import process

from bot.config import Config, Use
from bot.errors import ConfigError

Location = tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """
    A file as it was read. With `problems`, `config` is what is right in spite of them:
    there to be checked further, never to be run. `keys` is every key of the file, from
    top to bottom.
    """

    config: Config
    problems: Sequence[str]
    keys: Sequence[str]


def load(path: Path) -> Config:
    """
    Read, complete and check `path`.

    Raises ConfigError with every problem found, each naming file, key, value and what
    is expected.
    """
    draft = read(path)
    if draft.problems:
        raise ConfigError(draft.problems)
    return draft.config


def read(path: Path) -> Draft:
    """Do as `load` does, but hand back what is right together with the problems."""
    written = _parse(path)
    unset: dict[Location, str] = {}
    settings = _with_secrets(written, (), unset)
    found = list(unset.values())
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        # A secret that is not set is one problem, not also a value of the wrong type.
        found += [
            _sentence(dict(problem), Config, "")
            for problem in error.errors()
            if problem["loc"] not in unset
        ]
        config = _mended(settings, unset)
    keys = list(_keys(written, ()))
    problems = [f"{path}: {problem}" for problem in found]
    return Draft(
        config=_absolute(config, path.parent),
        problems=in_order(problems, keys, f"{path}: "),
        keys=keys,
    )


def in_order(problems: Iterable[str], keys: Sequence[str], prefix: str) -> list[str]:
    """Sort sentences by where in the file their key stands; drop repetitions."""

    def position(problem: str) -> int:
        told = problem.removeprefix(prefix)
        begins = [at for at, key in enumerate(keys) if told.startswith(key)]
        return max(begins, key=lambda at: len(keys[at]), default=len(keys))

    return sorted(dict.fromkeys(problems), key=position)


def sentences(
    error: ValidationError, model: type[BaseModel], where: str = ""
) -> list[str]:
    """
    Word each problem of `error` as `key: what is wrong, what was found, what is
    expected`, with near matches for an unknown key. `where` prefixes the keys.
    """
    return [_sentence(dict(problem), model, where) for problem in error.errors()]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" or, with nothing near, what there is."""
    names = sorted(known)
    near = process.extractOne(word, names, score_cutoff=60)
    if near is not None:
        return f"did you mean {near[0]!r}?"
    return f"there is {', '.join(map(repr, names)) or 'none'}"


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a key stand twice and keeps the last; here that is an error."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - yaml's own signature
    ) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.MarkedYAMLError(
                problem=f"the key {twice!r} stands twice", problem_mark=node.start_mark
            )
        return mapping


def _parse(path: Path) -> dict[str, Any]:
    try:
        # _UniqueKeys is a SafeLoader
        written = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); name a configuration file "
            "with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}:{at}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(written, dict):
        raise ConfigError(
            f"{path}: expected keys and values at the top, found "
            f"{type(written).__name__}; see config/bot.yaml for an example"
        )
    return written


def _with_secrets(value: Any, at: Location, unset: dict[Location, str]) -> Any:
    """
    Replace every `{env: NAME}` by the variable, as a SecretStr, so that no message,
    dump or log can show it.
    """
    if isinstance(value, dict):
        if set(value) == {"env"}:
            return _secret(value["env"], at, unset)
        return {
            name: _with_secrets(inner, (*at, name), unset)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [
            _with_secrets(inner, (*at, number), unset)
            for number, inner in enumerate(value)
        ]
    return value


def _secret(name: Any, at: Location, unset: dict[Location, str]) -> SecretStr | None:
    if isinstance(name, str) and (secret := os.environ.get(name)):
        return SecretStr(secret)
    unset[at] = (
        f"{_key(at) or 'the file'}: the environment variable {name!r} is not set; "
        "export it before starting Chorus"
    )
    return None


def _keys(value: Any, at: Location) -> Iterable[str]:
    if at:
        yield _key(at)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _keys(inner, (*at, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _keys(inner, (*at, number))


# What stands where something necessary is missing, so that the rest can be checked.
_STAND_INS: Mapping[int | str, Any] = {
    "knowledge": {"model": ""},
    "generation": {"model": ""},
    "model": "",
    "url": "http://unknown/v1",
    "match": {},
}


def _mended(settings: Any, unset: Iterable[Location]) -> Config:
    """Return what is left when everything wrong and every unset secret is cut out."""
    if not isinstance(settings, dict):
        settings, unset = {}, ()
    for at in unset:
        _cut(settings, at)
    while True:
        try:
            return Config.model_validate(settings)
        except ValidationError as error:
            # One at a time, for a cut may take other problems with it. It ends: every
            # cut takes something away, or puts a stand-in where there was nothing.
            problem = error.errors()[0]
            if problem["type"] == "missing" and problem["loc"][-1] in _STAND_INS:
                *above, name = problem["loc"]
                _at(settings, above)[name] = deepcopy(_STAND_INS[name])
            else:
                _cut(settings, problem["loc"])


def _cut(settings: Any, at: Sequence[int | str]) -> None:
    """
    Take out what stands at `at`. In lists of plugins and channels something stays in
    its place, so that the others keep their numbers; of a plugin the whole entry goes,
    for half its settings would only bring more problems.
    """
    for depth, part in enumerate(at[1:], 1):
        if at[depth - 1] in {"plugins", "connectors"}:
            # a model is not checked again, so its empty name passes
            _at(settings, at[:depth])[part] = Use.model_construct(use="")
            return
    *above, part = at
    # Not what is missing, nor a key's own mistake, which pydantic calls [key]: what
    # they are missing in, and what the key names.
    while not _holds(parent := _at_most(settings, above), part):
        if not above:  # a key that is no text
            settings.clear()
            return
        *above, part = above
    if isinstance(parent, list) and above == ["channels"]:
        parent[int(part)] = {"match": {}}
    elif isinstance(parent, list):
        del parent[int(part)]
    else:
        del parent[part]


def _holds(parent: Any, part: int | str) -> bool:
    return (isinstance(parent, dict) and part in parent) or (
        isinstance(parent, list) and isinstance(part, int) and part < len(parent)
    )


def _at_most(settings: Any, location: Sequence[int | str]) -> Any:
    """Return what is at a place, None where the way to it breaks off."""
    try:
        return _at(settings, location)
    except (KeyError, IndexError, TypeError):
        return None


def _at(settings: Any, location: Sequence[int | str]) -> Any:
    for part in location:
        settings = settings[part]
    return settings


def _absolute(config: Config, folder: Path) -> Config:
    paths = tuple((folder / path).resolve() for path in config.knowledge.paths)
    knowledge = config.knowledge.model_copy(update={"paths": paths})
    return config.model_copy(update={"knowledge": knowledge})


def _sentence(problem: dict[str, Any], model: type[BaseModel], where: str) -> str:
    location = list(problem["loc"])
    key = f"{where}{_key(location)}" or "the file"
    found = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            known = _fields_at(model, location[:-1])
            return f"{key}: unknown key; {did_you_mean(str(location[-1]), known)}"
        case "missing":
            return f"{key}: missing; it needs {_description(model, location)}"
        # These may hold a secret, so what was found is not shown.
        case (
            "redis_url"
            | "server_url"
            | "api_key"
            | "other_backend"
            | "one_source"
            | "other_source"
        ):
            return f"{key}: {problem['msg']}"
        case _:
            expected = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{key}: {expected}; found {_shown(found)}"


def _key(location: Sequence[int | str]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".")


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."  # noqa: PLR2004


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    found = _model_at(model, location)
    return list(found.model_fields) if found else []


def _description(model: type[BaseModel], location: Sequence[int | str]) -> str:
    owner = _model_at(model, location[:-1])
    field = owner.model_fields.get(str(location[-1])) if owner else None
    return (field.description if field else None) or "a value"


def _model_at(
    model: type[BaseModel], location: Sequence[int | str]
) -> type[BaseModel] | None:
    """
    Follow `location` down the models' fields; positions in lists, and the names in
    mappings, are passed over.
    """
    current: type[BaseModel] | None = model
    named = False  # whether the next part is a name in a mapping
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        if named:
            named = False
            continue
        field = current.model_fields.get(part)
        named = field is not None and get_origin(field.annotation) is Mapping
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
