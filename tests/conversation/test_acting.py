"""A turn that may have done something outside, and whoever takes it up again."""

from __future__ import annotations

import pytest
import redis

from bot.conversation.store import Store
from bot.conversation.tokens import Token, Tokens
from bot.testing.makers import an_address, an_event
from tests.conversation.test_store import begun, taken

pytestmark = pytest.mark.services

META = "chorus:{s0}:c:memory:a1:c1:meta"


async def taken_over(store: Store) -> Token:
    """Take the token of somebody who does not renew it any more."""
    tokens = Tokens(store.connection, store.shards, "ready", ["memory"])
    (token,) = await tokens.take_over(store.shards.all[0], 1, 0)
    return token


async def test_a_turn_that_nobody_began_before_is_not_acting(store: Store) -> None:
    await store.accept(an_event())

    _, work = await begun(store)

    assert not work.acting


async def test_whoever_takes_over_from_the_dead_hears_that_they_were_acting(
    store: Store,
) -> None:
    await store.accept(an_event())
    token, work = await begun(store)

    marked = await store.mark_acting(token, work.messages[0].turn_id)
    again = await store.begin(await taken_over(store))

    assert marked
    assert again is not None
    assert again.acting


@pytest.mark.parametrize("failed", [True, False])
async def test_a_turn_that_is_handed_back_is_still_acting(
    store: Store, *, failed: bool
) -> None:
    await store.accept(an_event())
    token, work = await begun(store)
    await store.mark_acting(token, work.messages[0].turn_id)

    await store.hand_back(token, "ready", failed=failed)
    _, again = await begun(store)

    assert again.acting


async def test_marking_again_because_the_answer_was_lost_changes_nothing(
    store: Store,
) -> None:
    await store.accept(an_event())
    token, work = await begun(store)

    marked = [
        await store.mark_acting(token, work.messages[0].turn_id) for _ in range(2)
    ]

    assert marked == [True, True]


async def test_who_lost_the_lease_may_not_act(store: Store) -> None:
    await store.accept(an_event())
    slow, work = await begun(store)
    quick = await taken_over(store)
    await store.begin(quick)

    marked = await store.mark_acting(slow, work.messages[0].turn_id)
    await store.hand_back(quick, "ready")
    _, again = await begun(store)

    assert not marked
    assert not again.acting


async def test_nobody_acts_in_a_conversation_that_was_erased(
    store: Store, client: redis.Redis
) -> None:
    await store.accept(an_event(address=an_address(user="u1")))
    token, work = await begun(store)
    await store.forget("u1")

    marked = await store.mark_acting(token, work.messages[0].turn_id)

    assert not marked
    assert not client.exists(META)


async def test_a_commit_ends_it_for_the_messages_that_follow(
    store: Store, client: redis.Redis
) -> None:
    await store.accept(an_event("first"))
    await store.accept(an_event("second"))
    token, work = await begun(store)
    await store.mark_acting(token, work.messages[0].turn_id)

    await store.commit(token, work.messages)
    _, following = await begun(store)

    assert not following.acting
    assert not client.hexists(META, "acting")


async def test_a_turn_that_is_set_aside_ends_it(
    store: Store, client: redis.Redis
) -> None:
    await store.accept(an_event())
    token, work = await begun(store)
    await store.mark_acting(token, work.messages[0].turn_id)

    await store.commit(token, work.messages, set_aside="it failed")

    assert not client.hexists(META, "acting")


async def test_a_turn_that_is_not_committed_is_still_acting(store: Store) -> None:
    await store.accept(an_event())
    token, work = await begun(store)
    await store.mark_acting(token, work.messages[0].turn_id)

    committed = await store.commit(token, work.messages, handed="12345")
    await store.hand_back(token, "ready")
    _, again = await begun(store)

    assert committed == "changed"
    assert again.acting


async def test_it_says_nothing_of_another_turn_at_the_head(store: Store) -> None:
    await store.accept(an_event())
    token, _ = await begun(store)

    await store.mark_acting(token, "0123456789abcdef")
    await store.hand_back(token, "ready")
    _, again = await begun(store)

    assert not again.acting


async def test_who_forgets_in_the_middle_of_a_turn_still_knows_of_it(
    store: Store,
) -> None:
    await store.accept(an_event("forget", "command"))
    token, work = await begun(store)
    await store.mark_acting(token, work.messages[0].turn_id)

    await store.forget_conversation(an_address())
    await store.hand_back(token, "ready")
    again = await store.begin(await taken(store))

    assert again is not None
    assert again.acting
