"""
Chats: what kind one is, and how often something may be done in it.

Telegram publishes no exact limits: one message a second in a chat, with short bursts,
and twenty calls a minute in a group, where edits and chat actions count as well
(https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this). Its
own word, Retry-After, closes the budget of the one chat that it is about.
"""

from __future__ import annotations

from bot.errors import DeliveryError
from bot.pacing import Budget, Pace

# What is shown on the way leaves so many calls for what matters more.
LEFT_FOR_REPLIES = 5
# A longer wait is the core's: a reply must not hold a place while others could go out.
PATIENCE_S = 1.5


def is_group(chat: str) -> bool:
    """Groups have negative ids, people the same id as their chat."""
    return chat.startswith("-")


def budget(chat: str) -> Budget:
    """Return what a chat's messages are taken from."""
    if is_group(chat):
        # Five at once and fifteen more: twenty in any minute.
        return Budget(name=f"group {chat}", times=5, per_s=20)
    return Budget(name=f"chat {chat}", times=5, per_s=5)


def draft_budget(chat: str) -> Budget:
    """Drafts are no messages; a penalty for them must not hold up the reply."""
    return Budget(name=f"drafts {chat}", times=2, per_s=0.5)


async def wait_for_room(pace: Pace, chat: str) -> None:
    """Wait until a reply may go out; raise DeliveryError if that takes long."""
    there = budget(chat)
    wait_s = pace.wait_s(there)
    if wait_s > PATIENCE_S:
        raise DeliveryError(
            "telegram: the chat takes no more messages for now; it is tried again",
            retryable=True,
            retry_after_s=wait_s,
        )
    await pace.wait(there)
