"""A models folder that others may write is worth a line that says who."""

import os

import pytest
from artifact_builders import SYMBOL, TIMEFRAME, check_whole, export, load

from percoin.registry import ownership
from percoin.registry.catalogue import check_market
from percoin.registry.layout import MANIFEST_FILE, MarketFolder


@pytest.fixture(autouse=True)
def _nothing_told_yet(monkeypatch):
    monkeypatch.setattr(ownership, "_told", set())


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_folder_of_ones_own_is_not_spoken_of(tmp_path, caplog):
    export(tmp_path)
    load(tmp_path)
    assert warnings(caplog) == []


@pytest.mark.parametrize("level", ["root", "per_coin", "market", "versions", "version", "manifest"])
def test_whoever_may_write_at_any_level_is_named_once(tmp_path, caplog, level):
    root = tmp_path / "models"
    folder = export(root)
    market = MarketFolder(root, SYMBOL, TIMEFRAME)
    path = {
        "root": root,
        "per_coin": root / "per_coin",
        "market": market.folder,
        "versions": market.versions,
        "version": folder,
        "manifest": folder / MANIFEST_FILE,
    }[level]
    path.chmod(path.stat().st_mode | 0o002)
    assert check_whole(load(root)) == 0.5
    load(root)
    check_market(market)
    [said] = warnings(caplog)
    assert said.startswith(f"{path} may be written by every user of this machine")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_the_folder_of_another_user_is_told_by_the_users_name(tmp_path, caplog):
    folder = export(tmp_path)
    os.chown(folder, 65534, -1)
    load(tmp_path)
    [said] = warnings(caplog)
    assert said.startswith(f"{folder} may be written by user nobody")
    os.chown(folder.parent, 123_456, -1)
    load(tmp_path)
    assert "may be written by user 123456" in warnings(caplog)[-1]
