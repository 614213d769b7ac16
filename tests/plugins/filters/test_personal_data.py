"""The filter of personal data: what gives somebody away, and what looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import CandidateFilter
from bot.model import Verdict
from bot.testing import a_candidate, a_passage, a_tools, a_turn, an_event
from bot.testing.contracts import CandidateFilterContract
from plugins.filters.personal_data import (
    Kind,
    PersonalData,
    data,
    luhn,
    mod_97,
)

ALL: tuple[Kind, ...] = ("e-mail", "phone", "card", "iban", "key", "address")
# Put together here, so that nobody's scanner takes this file for a leak.
SLACK = "xoxb-" + "1234567890-abcdefGHIJ"
STRIPE = "sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc"
AMAZON = "AKIA" + "IOSFODNN7EXAMPLE"
TELEGRAM = "123456789" + ":" + "AAF" + "x1Y" * 10 + "zz"
TOKEN = "eyJhbGciOiJIUzI1NiJ9" + "." + "eyJzdWIiOiIxMjM0In0" + "." + "c2lnbmF0dXJl"


class TestPersonalDataKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return PersonalData(PersonalData.Settings(kinds=ALL))


def kinds(text: str) -> list[Kind]:
    return [kind for kind, _ in data(text, ALL)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to Anna.Lee+x@mail.example.co.uk.", "e-mail"),
        ("Write to jürgen@exämple.de!", "e-mail"),
        ("anna\u200b@example\u00ad.org", "e-mail"),
        ("Call +1 (415) 555-0123.", "phone"),
        ("It is (415) 555-0123.", "phone"),
        ("It is 415.555.0123.", "phone"),
        ("Dial 555-0123.", "phone"),
        ("1-800-555-0123 is free.", "phone"),
        ("Call 0301234567 now.", "phone"),
        ("It is 030 1234567.", "phone"),
        ("It is 020 7946 0958.", "phone"),
        ("请拨打13812345678。", "phone"),
        ("He has the card 4111 1111 1111 1111.", "card"),
        ("378282246310005", "card"),
        ("5555-5555-5555-4444", "card"),
        ("Pay to DE89 3704 0044 0532 0130 00 AND wait.", "iban"),
        ("GB82WEST12345698765432", "iban"),
        (f"Use {SLACK}.", "key"),
        (f"Use {STRIPE}", "key"),
        (f"id={AMAZON}", "key"),
        (TELEGRAM, "key"),
        (TOKEN, "key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "key"),
        ("redis://:x@h and postgres://bob:hunter2@db/x", "key"),
        ("The password is hunter2X9.", "key"),
        ('api_key="a8f5f167f44f"', "key"),
        ("He lives at 221B Baker Street.".replace("B ", "b "), "address"),
        ("It is at 1600 Pennsylvania Avenue.", "address"),
        ("Sie wohnt Lindenstraße 12a.", "address"),
        ("他住在南京西路123号。", "address"),
    ],
)
def test_personal_data_are_found(text: str, kind: Kind) -> None:
    assert kinds(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "On 2024-03-05 or 05.03.2024 or 3/5/2024 10:30.",
        "From 8:00-22:00, 2019-2024, pages 100-2500.",
        "It costs 1,234,567.89 or 1 234 567 or 1.234.567 euros.",
        "Order 1234567890 of item 12345678 was sent.",
        "Version 10.15.7, address 192.168.100.200, ISBN 978-3-16-148410-0.",
        "4111 1111 1111 1112 fails Luhn's sum.",
        "0000 0000 0000 0000",
        "DE88 3704 0044 0532 0130 00 leaves another remainder.",
        "Write to us @example, at a@b, or by mail.",
        "The password is required. Your token is invalid, your password: see below.",
        "The secret to success is patience; api key rotation is weekly.",
        "Set a password of at least 8 characters.",
        "See https://example.com/a/1234567/x and http://example.com:8080/path.",
        "Two streets, 5 Great Roads and 3 ways.",
        "五个工作日，第12345678号订单。",  # noqa: RUF001
    ],
)
def test_what_only_looks_like_data_is_none(text: str) -> None:
    assert kinds(text) == []


def test_luhn_adds_up() -> None:
    # From the right: 8, 2*2=4, 9, 7*2=14->5, 4: 8+4+9+5+4 = 30... for 47928.
    assert luhn("47928") == ((8 + 4 + 9 + 5 + 4) % 10 == 0)
    assert not luhn("47929")


def test_an_iban_leaves_1() -> None:
    # BE 68 5390 0754 7034: 539007547034 111468 mod 97 = 1.
    assert 539007547034111468 % 97 == 1
    assert mod_97("BE68539007547034")
    assert not mod_97("BE67539007547034")


def verdict(text: str, **settings: object) -> Verdict:
    turn = a_turn(
        "I am anna@example.org, is that right?",
        [a_passage("Call us at (030) 123-4567 or write to help@shop.example.")],
        history=(an_event("My card is 4111 1111 1111 1111"),),
    )
    subject = PersonalData(PersonalData.Settings.model_validate(settings))
    [found] = subject.keep(turn, [a_candidate(text)], a_tools())
    return found


@pytest.mark.parametrize(
    "text",
    [
        "Call +49 30 1234567.",
        "Write to Help@Shop.example.",
        "You are ANNA@example.org.",
        "Your card is 4111-1111-1111-1111.",
    ],
)
def test_what_the_passages_or_the_customer_said_may_be_said(text: str) -> None:
    assert verdict(text).kept
    assert not verdict(text, allow_known=False).kept


def test_what_nobody_said_is_dropped_and_the_reason_keeps_the_secret() -> None:
    assert verdict("Write to bob@example.org.") == Verdict(
        kept=False, why="contains an e-mail address that stands nowhere"
    )
    assert verdict("Call 030 7654321.").why == (
        "contains a telephone number that stands nowhere"
    )


def test_what_is_allowed_may_always_be_said() -> None:
    allowed = ("bob@corp.example", "@shop.example", "+1 415 555 0123")

    assert verdict("bob@corp.example", allowed=allowed).kept
    assert verdict("eve@shop.example", allowed=allowed).kept
    assert verdict("Call (415) 555-0123.", allowed=allowed).kept
    assert not verdict("eve@corp.example", allowed=allowed).kept


def test_only_the_kinds_that_are_named_are_looked_for() -> None:
    text = "bob@corp.example lives at 5 Main Street"

    assert verdict(text, kinds=("card",)).kept
    assert "street address" in verdict(text, kinds=("address",)).why
    assert "street" not in verdict(text).why


@hypothesis_settings(deadline=None)
@given(st.from_regex(r"[a-z0-9]{1,20}@[a-z]{1,20}\.(com|de|org)", fullmatch=True))
def test_an_address_in_a_sentence_is_found_as_it_is(address: str) -> None:
    assert list(data(f"Write to {address}, please.", ("e-mail",))) == [
        ("e-mail", address)
    ]


@hypothesis_settings(deadline=None)
@given(st.integers(10**14, 10**15 - 1), st.sampled_from(["4", "5"]))
def test_one_check_digit_of_ten_makes_a_card(middle: int, issuer: str) -> None:
    found = [
        d for d in range(10) if kinds(f"{issuer}{str(middle)[:14]}{d}") == ["card"]
    ]

    assert len(found) == 1


@hypothesis_settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    found = verdict(text, kinds=ALL)

    assert found.kept or found.why


@pytest.mark.parametrize(
    "settings", [{"kinds": []}, {"kinds": ["name"]}, {"allowed": ["x"]}]
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PersonalData.Settings.model_validate(settings)
