"""The public names of Chorus; importing them loads no torch, faiss or redis."""

from bot.hookspecs import hookimpl

__all__ = ["hookimpl"]
