"""
How a Redis is named: one server, the primary of Sentinels, or a Cluster.

    redis://, rediss://, unix://    as redis-py reads them
    redis+sentinel://[user:password@]host:26379,host:26379/service/0
    redis+cluster://[user:password@]host:6379,host:6379

What is wrong with a URL is said without its password. Opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import parse_url

from bot.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a URL says; `options` and `sentinel_login` in redis-py's words."""

    kind: Literal["server", "sentinel", "cluster"]
    options: Mapping[str, Any]
    tls: bool = False
    hosts: Sequence[tuple[str, int]] = ()
    service: str = ""
    sentinel_login: Mapping[str, Any] = field(default_factory=dict)


def without_password(url: str) -> str:
    """Return the URL as messages may show it."""
    parts = _split(url)
    hidden = f"{parts.scheme}://…"
    try:
        for host in parts.hosts:
            _ = urlsplit(f"//{host}").port  # raises when it is no number
    except ValueError:
        return hidden
    # A password with / ? or # in it ends up behind the host.
    if not parts.scheme or parts.fragment or "@" in parts.path + parts.query:
        return hidden
    return f"{parts.scheme}://{','.join(parts.hosts)}{parts.path}"


def read_url(url: str) -> Place:
    where = without_password(url)
    parts = _split(url)
    transport, _, kind = parts.scheme.partition("+")
    try:
        if where.endswith("…") or (kind and transport not in {"redis", "rediss"}):
            raise ValueError(where)  # noqa: TRY301 (the same sentence)
        if kind == "sentinel":
            return _read_sentinel(parts, where)
        if kind == "cluster":
            return _read_cluster(parts, where)
        return Place(kind="server", options={**parse_url(url)})
    except ValueError as error:
        raise StoreError(
            f"redis.url: {where!r}: not a Redis URL; write redis://host:6379/0, "
            f"rediss://…, unix:///path, redis+sentinel://host:26379/service or "
            f"redis+cluster://host:6379, with user and password percent-encoded"
        ) from error


def _read_sentinel(parts: _Parts, where: str) -> Place:
    hosts, options = _hosts(parts, where, default_port=26379)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise StoreError(
            f"redis.url: {where!r}: no service name, by which Sentinels know the "
            f"primary; write redis+sentinel://host:26379/service"
        )
    if database:
        if not database.isdecimal():
            raise StoreError(
                f"redis.url: {where!r}: the database {database!r} is not a number; "
                f"write redis+sentinel://host:26379/service/0"
            )
        options["db"] = int(database)
    login = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    return Place(
        kind="sentinel",
        options=options,
        tls=parts.scheme.startswith("rediss"),
        hosts=hosts,
        service=unquote(service),
        sentinel_login=login,
    )


def _read_cluster(parts: _Parts, where: str) -> Place:
    hosts, options = _hosts(parts, where, default_port=6379)
    if parts.path.strip("/") not in {"", "0"} or options.pop("db", 0):
        raise StoreError(
            f"redis.url: {where!r}: a Cluster has no numbered databases; end it after "
            f"the hosts"
        )
    return Place(
        kind="cluster",
        options=options,
        tls=parts.scheme.startswith("rediss"),
        hosts=hosts,
    )


def _hosts(
    parts: _Parts, where: str, *, default_port: int
) -> tuple[Sequence[tuple[str, int]], dict[str, Any]]:
    """Return the hosts with their ports, and what else redis-py reads in the URL."""
    transport = parts.scheme.partition("+")[0]
    found: list[dict[str, Any]] = [
        {**parse_url(f"{transport}://{parts.login}{host}?{parts.query}")}
        for host in parts.hosts
    ]
    if not all("host" in one for one in found):
        raise StoreError(
            f"redis.url: {where!r}: a host is missing; write "
            f"{parts.scheme}://host:{default_port},host2:{default_port}"
        )
    hosts = [(one.pop("host"), one.pop("port", default_port)) for one in found]
    options = found[0]
    options.pop("connection_class", None)
    return hosts, options


class _Parts(NamedTuple):
    scheme: str
    login: str  # with its @
    hosts: Sequence[str]
    path: str
    query: str
    fragment: str


def _split(url: str) -> _Parts:
    """Split it as urlsplit does, which takes no several hosts with IPv6 among them."""
    scheme, found, rest = url.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    login, at, hosts = netloc.rpartition("@")
    tail = urlsplit(f"//{rest[len(netloc) :]}")
    return _Parts(
        scheme if found else "",
        login + at,
        hosts.split(","),
        tail.path,
        tail.query,
        tail.fragment,
    )
