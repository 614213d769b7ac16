"""The public names of Chorus. Importing this loads neither torch nor faiss nor redis."""

from bot.hookspecs import hookimpl

__all__ = ["hookimpl"]
