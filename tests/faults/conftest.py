"""What the fault tests share: a server, a platform, a fleet of processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conversation.redis_processes import RedisServer
from tests.faults.platform import Platform
from tests.faults.worker_process import Fleet, Settings


@pytest.fixture
def full() -> bool:
    """Whether there is time for many faults (`make faults`), or for some only."""
    return os.environ.get("CHORUS_FAULTS") == "full"


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """
    A folder where forcing a file to the disk takes no time. With `everysec`, Redis
    answers before it writes while that goes on (docs/reliability.md): on a busy disk a
    kill then loses what is not promised.
    """
    memory = Path("/dev/shm")  # noqa: S108 (the folder made in it is ours alone)
    if not memory.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with Platform() as platform:
        yield platform


@pytest.fixture
async def fleet(tmp_path: Path, platform: Platform) -> AsyncIterator[Fleet]:
    async with Fleet(tmp_path / "fleet") as fleet:
        yield fleet


@pytest.fixture
def settings(redis_server: RedisServer, platform: Platform) -> Settings:
    """Processes that do everything, with a short lease; change it with `replace`."""
    return Settings(
        url=redis_server.url,
        platform=str(platform.path),
        workers={"lease_s": 1, "attempts": 1000},
    )
