"""What a run that goes on may change, and what binds it."""

from pathlib import Path

import pytest
from train_runs import train_arguments

from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.errors import ResumeError
from percoin.training.run_files import check_resumable, plain_settings

FLEET = ("fleet=true", "symbol='BTCUSDT,ETHUSDT'")


def go_on(folder: Path, *overrides: str) -> None:
    words = train_arguments(folder, *FLEET, *overrides)
    settings = typed(compose_config("train", words), TrainConfig)
    check_resumable(settings, folder, {"config": plain_settings(settings, {}), "bars": {}})


def test_a_market_that_is_judged_binds_all_further_ones_to_the_settings_it_was_judged_by(tmp_path):
    go_on(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    go_on(tmp_path, "resume=true", "blend=logistic", "costs.fee_bps=3")
    judged = tmp_path / "markets" / "BTCUSDT"
    judged.mkdir(parents=True)
    (judged / "result.json").touch()
    go_on(tmp_path, "resume=true", "blend=logistic", "costs.fee_bps=3", "epochs=3")
    with pytest.raises(ResumeError, match=r"1h: blend, costs\.fee_bps changed since "):
        go_on(tmp_path, "resume=true")
