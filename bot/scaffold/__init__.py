"""
The package of a new plugin, as text: what `chorus new-plugin` writes.

The templates beside this file are whole files; `$name`, `$module`, `$cls` and a few
more stand for what differs. Knows nothing of folders: the command writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from string import Template

# Kind: what an operator has to know to enable one.
KINDS: Mapping[str, str] = {
    "reranker": "The order of the list is the order of the rerankers.",
    "scorer": "`ranking.weights` says by name how much it counts; 1 where it does not.",
    "filter": "The order of the list is the order of the filters.",
    "logits-processor": "The order of the list is that of the changes to the logits.",
    "sampler": "Name it as `generation.sampler`, too.",
    "selector": "Name it as `ranking.selector`, too.",
    "writer": "Its replies compete with those of the model.",
    "prompt-variant": "The model's replies take turns with the variants of the list.",
    "retriever": "Its passages are merged with those of the documents.",
    "connector": "It talks as long as `chorus run` does.",
    "action": "A customer runs it by sending its name after a slash.",
}


def class_name(name: str) -> str:
    """Return KindWords for kind-words."""
    return "".join(part.capitalize() for part in name.split("-"))


def module_name(name: str) -> str:
    """Return chorus_kind_words for kind-words."""
    return f"chorus_{name.replace('-', '_')}"


def package(name: str, kind: str) -> dict[str, str]:
    """Return the files of a package by their path in it."""
    module = module_name(name)
    filled = {
        "name": name,
        "kind": kind.replace("-", " "),
        "distribution": f"chorus-{name}",
        "module": module,
        "cls": class_name(name),
        "list": "connectors" if kind == "connector" else "plugins",
        "enabling": KINDS[kind],
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": f"{kind}.py",
        f"tests/test_{name.replace('-', '_')}.py": f"{kind}_test.py",
    }
    return {
        path: Template(_template(template)).substitute(filled)
        for path, template in templates.items()
    }


def _template(name: str) -> str:
    """Templates end in .txt, so that nothing takes them for code."""
    folder = resources.files("bot.scaffold") / "templates"
    return (folder / f"{name}.txt").read_text(encoding="utf-8")
