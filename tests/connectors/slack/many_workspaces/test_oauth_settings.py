"""What an operator writes for many workspaces, and what is said of mistakes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import SecretStr, ValidationError

from bot import config_file
from connectors.slack.cipher import Cipher
from connectors.slack.oauth import OAuthSettings
from tests.connectors.slack.many_workspaces.world import KEY, some_settings


def test_a_wrong_key_is_told_with_how_to_make_one_and_not_shown() -> None:
    for key in ("hunter2", f"{KEY},hunter2", KEY[:-4], KEY + "é", f"!{KEY}", ""):
        with pytest.raises(ValidationError) as caught:
            some_settings(encryption_key=key)

        (told,) = config_file.sentences(caught.value, OAuthSettings)
        assert told.startswith("encryption_key: ")
        assert "Fernet.generate_key()" in told
        assert "hunter2" not in told + str(caught.value)


def test_each_of_several_keys_is_looked_at() -> None:
    with pytest.raises(ValidationError, match="key 2 of 2 is not a Fernet key"):
        some_settings(encryption_key=f"{KEY},{KEY[:-8]}")


def test_a_key_made_as_the_sentence_says_is_one() -> None:
    from cryptography.fernet import Fernet  # noqa: PLC0415 (as the sentence says)

    made = Fernet.generate_key().decode()

    settings = some_settings(encryption_key=SecretStr(f" {made} , {KEY}\n"))

    cipher = Cipher(settings.encryption_key.get_secret_value().split(","))
    assert cipher.open(cipher.seal(b"abc")).plain == b"abc"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("url", "http://bot.example.com", "not https"),
        ("url", "bot.example.com", "not the address of a site"),
        ("url", "https://bot.example.com/?a=b", "not the address of a site"),
        ("url", "https://me:pw@bot.example.com", "not the address of a site"),
        ("url", "ftp://127.0.0.1", "not https"),
        ("install_path", "slack/install", "not a plain path"),
        ("install_path", "/a b", "not a plain path"),
        ("redirect_path", "/slack/install", "the same as install_path"),
        ("client_secret", "  ", "empty"),
        ("client_id", "", "at least 1"),
        ("scopes", [], "extra"),
    ],
)
def test_a_wrong_setting_is_told(key: str, value: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        some_settings(**{key: value})

    assert told in str(caught.value).lower()
    assert KEY not in str(caught.value)


def test_every_setting_is_described() -> None:
    fields = OAuthSettings.model_fields.values()

    assert all(field.description for field in fields)


def test_an_address_may_end_with_a_slash_and_may_have_a_path() -> None:
    assert some_settings(url="https://example.com/bot/").url == (
        "https://example.com/bot"
    )


@pytest.mark.processes
def test_importing_the_module_loads_no_heavy_library() -> None:
    heavy = "{'slack_sdk', 'slack_bolt', 'aiohttp', 'cryptography'}"
    program = f"import sys, connectors.slack.oauth; print({heavy} & set(sys.modules))"

    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "set()"
