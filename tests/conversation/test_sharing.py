"""Two bots on one data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.app import App
from bot.channels import ChannelPlugins
from bot.config import Config
from bot.conversation import overview
from bot.errors import StoreError
from bot.plugin_manager import Plugins
from bot.testing.fakes import MemoryConnector

pytestmark = pytest.mark.services


def an_app(data: Path) -> App:
    config = Config.model_validate(
        {"data": data, "knowledge": {"model": "m"}, "generation": {"model": "m"}}
    )
    return App(config, ChannelPlugins(everywhere=Plugins()), lambda *_: None)


async def test_a_second_terminal_in_the_folder_of_another_is_refused(
    tmp_path: Path,
) -> None:
    async with an_app(tmp_path).store():
        with pytest.raises(StoreError, match="in use by another Chorus") as told:
            async with an_app(tmp_path).running({}, shares=False):
                pass

    assert repr(str(tmp_path)) in str(told.value)


async def test_everybody_else_may_share_the_folder_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(App, "answerer", lambda app: None)  # nobody asks it

    async with (
        an_app(tmp_path).store(),
        an_app(tmp_path).store() as shared,
        an_app(tmp_path).running({"memory": MemoryConnector()}) as manager,
    ):
        await manager.idle()
        assert await overview.backlogs(shared) == ([], 0)
