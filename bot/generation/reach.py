"""
Reach: how many tokens of context a model can be trusted with here.

Mostly what its configuration says. Less, where the model would do something else beyond
some length that the engine does not see: a window or a chunk that travels by the mask
alone, which our attention is not given, and rotary factors that change with the longest
text of a batch, which would let one conversation change another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

_WINDOWS = ("sliding_window", "attention_chunk_size", "keep_window_size")
_LENGTHS = ("max_position_embeddings", "max_seq_len", "seq_length")
_CHANGING_ROPES = ("dynamic", "longrope")


def context_tokens(config: Any, told: Collection[int | None]) -> int | None:
    """
    Return it for a text model's `config`; `told` are the windows that its layers hand
    to their attention. None when the configuration says nothing about a length.
    """
    lengths = [getattr(config, name, None) for name in _LENGTHS]
    whole = next((length for length in lengths if length), None)
    if whole is None:
        return None
    limits = [window for window in _windows(config) if window not in told]
    return int(min([whole, *limits, *_original_lengths(config)]))


def _windows(config: Any) -> Iterator[int]:
    kinds = getattr(config, "layer_types", None)
    # Some name a window and use none.
    if kinds is not None and set(kinds) == {"full_attention"}:
        return
    for name in _WINDOWS:
        window = getattr(config, name, None)
        if isinstance(window, int):
            yield window


def _original_lengths(config: Any) -> Iterator[int]:
    """Lengths up to which rotary factors stay what they are."""
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        if rope.get("rope_type") in _CHANGING_ROPES:
            original = rope.get("original_max_position_embeddings")
            original = original or getattr(
                config, "original_max_position_embeddings", None
            )
            yield original or config.max_position_embeddings


def _ropes(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """Some models have one for each kind of layer."""
    if isinstance(parameters, Mapping):
        yield parameters
        for value in parameters.values():
            yield from _ropes(value)
