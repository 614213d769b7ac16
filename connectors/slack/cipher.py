"""
Cipher: what is kept of an installation is worth nothing without the operator's keys.

Fernet (AES-128 in CBC with an HMAC over it) of `cryptography`: the first key encrypts,
every key decrypts, so that a key can be replaced while the bot runs. Knows neither
Slack nor where the encrypted bytes lie.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field

KEY_BYTES = 32
MAKE_ONE = (
    'make one with: python -c "from cryptography.fernet import Fernet; '
    'print(Fernet.generate_key().decode())"'
)


class Unreadable(Exception):
    """It was encrypted with none of the keys, or is not what was encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was encrypted, and whether the first of the keys had done it."""

    plain: bytes = field(repr=False)
    newest_key: bool


class Cipher:
    """Takes keys that `keys_in` returned; never changes what it is given."""

    def __init__(self, keys: Sequence[str]) -> None:
        from cryptography.fernet import Fernet  # noqa: PLC0415 (loads with the connector)

        self._fernets = [Fernet(key) for key in keys]

    def seal(self, plain: bytes) -> bytes:
        return self._fernets[0].encrypt(plain)

    def open(self, sealed: bytes) -> Opened:
        """Raise Unreadable where no key fits."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 (as above)

        # Not MultiFernet, because it does not say which of its keys it was.
        for place, fernet in enumerate(self._fernets):
            try:
                return Opened(plain=fernet.decrypt(sealed), newest_key=place == 0)
            except InvalidToken:
                continue
        raise Unreadable


def keys_in(text: str) -> list[str]:
    """
    Return the keys of a comma-separated list. Raises ValueError, which says which one
    is wrong by its place, never by its value.
    """
    keys = [key.strip() for key in text.split(",")]
    for place, key in enumerate(keys, 1):
        if not _is_key(key):
            which = f"key {place} of {len(keys)} is" if len(keys) > 1 else "it is"
            raise ValueError(
                f"{which} not a Fernet key, which is {KEY_BYTES} bytes in URL-safe "
                f"Base64; {MAKE_ONE}"
            )
    return keys


def _is_key(key: str) -> bool:
    try:
        # Fernet itself skips characters that are not Base64.
        return len(base64.b64decode(key, altchars=b"-_", validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return False
