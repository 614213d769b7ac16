"""
What the sections of the configuration have in common: their strictness, and values
that several of them hold. Knows no section.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic_core import PydanticCustomError

HOUR_S = 3600


class Section(BaseModel):
    """A part of the file: frozen, unknown keys and infinite numbers refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def checked_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # no number for a port, half an IPv6 address
        right = False
    if not right or "@" in url:
        raise PydanticCustomError(
            "server_url",
            "not the address of a server; write http://host:port or https://host, with "
            "its path (such as /v1) where it has one, and no name or password",
        )
    return url


def checked_key(secret: SecretStr) -> SecretStr:
    key = secret.get_secret_value().strip()  # files and shells leave a line's end
    if not (key and key.isascii() and key.isprintable()):
        raise PydanticCustomError(
            "api_key", "empty, or with a character that HTTP cannot send in a header"
        )
    return SecretStr(key)
