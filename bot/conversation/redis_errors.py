"""
What the client library raises, in one sentence for the operator each.

Knows nothing about connections; whoever uses one translates with this.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError

from bot.errors import StoreError

# What redis-py raises: most of it, but not all, has RedisError as its base.
REDIS_ERRORS = (
    exceptions.RedisError,
    exceptions.RedisClusterException,
    exceptions.ChildDeadlockedError,
    exceptions.IncorrectPolicyType,
)

# The first line whose class fits and whose word is in the message says it.
_TOLD: Sequence[tuple[tuple[type[Exception], ...], str, str]] = (
    (
        (exceptions.ResponseError, exceptions.ConnectionError),
        "already authenticated",
        "wants a password; put it into redis.url",
    ),
    (
        (exceptions.ConnectionError,),
        "Authentication required",
        "wants a password; put it into redis.url",
    ),
    (
        (exceptions.ConnectionError,),
        "invalid username-password",
        "refused the user or password; correct them in redis.url",
    ),
    (
        (exceptions.AuthenticationError, exceptions.AuthorizationError),
        "",
        "refused the user or password; correct them in redis.url",
    ),
    (
        (MasterNotFoundError,),
        "auth:",
        "a Sentinel refused the user or password; correct ?sentinel_password=…",
    ),
    (
        (MasterNotFoundError,),
        "network:",
        "not all Sentinels can be reached, and none knows a primary; start them",
    ),
    (
        (MasterNotFoundError,),
        "",
        (
            "no Sentinel knows a primary that is up; correct the service in redis.url, "
            "or wait until one has taken over"
        ),
    ),
    (
        (exceptions.NoPermissionError,),
        "",
        "this user may not do what Chorus needs ({said}); extend its ACL",
    ),
    (
        (exceptions.BusyLoadingError,),
        "",
        "still loading its data; try again in a moment",
    ),
    (
        (exceptions.ConnectionError, exceptions.TimeoutError),
        "",
        "cannot be reached ({said}); start it, or correct redis.url",
    ),
    (
        (exceptions.OutOfMemoryError,),
        "",
        "out of memory, so nothing can be kept; raise its maxmemory",
    ),
    (
        (exceptions.ReadOnlyError, exceptions.MasterDownError),
        "",
        "a replica that cannot be written; name the primary in redis.url",
    ),
    (
        (exceptions.ResponseError,),
        "MISCONF",
        "cannot write to its disk ({said}); free some space on it",
    ),
    (
        (exceptions.ResponseError,),
        "cluster support disabled",
        "not a Cluster; write redis:// instead of redis+cluster://",
    ),
    (
        (exceptions.MovedError,),
        "",
        "a node of a Cluster; write redis+cluster:// instead of redis://",
    ),
    (
        (exceptions.ClusterError, exceptions.SlotNotCoveredError),
        "",
        "a part of the Cluster is down ({said}); see its CLUSTER INFO",
    ),
    (REDIS_ERRORS, "", "answered with {kind} ({said}); see its log"),
)


def translated(error: Exception, where: str) -> StoreError:
    """Say in one sentence what is wrong with the Redis at `where`."""
    error = _reason(error)
    kind = type(error).__name__
    said = " ".join(str(error).split()) or kind
    told = next(
        sentence
        for classes, word, sentence in _TOLD
        if isinstance(error, classes) and word in said
    )
    return StoreError(f"redis.url: {where!r}: {told.format(said=said, kind=kind)}")


def _reason(error: Exception) -> Exception:
    """Look behind "cannot be connected", the Cluster client's word for everything."""
    reason = error.__cause__ or error.__context__
    if isinstance(error, exceptions.RedisClusterException) and isinstance(
        reason, REDIS_ERRORS
    ):
        return _reason(reason)
    return error
