"""The settings of recipe=pooled and init=pooled, and the list of markets that goes with them."""

import sys
from pathlib import Path

import pytest

from percoin.cli import EXIT_USAGE, compose_config, explain, run_jobs
from percoin.config import TrainConfig, typed
from percoin.errors import ConfigError
from percoin.run_folder import run_dir

POOL = ("recipe=pooled", "symbol='BTCUSDT,ETHUSDT'")


def settings(*overrides: str) -> TrainConfig:
    return typed(compose_config("train", overrides), TrainConfig)


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(*overrides)
    return explain(caught.value, "train", overrides)


def test_one_market_from_scratch_is_what_a_training_always_meant():
    made = settings("symbol=BTCUSDT")
    assert (made.recipe, made.init, made.symbols) == ("per_market", None, ("BTCUSDT",))


def test_a_pool_has_several_markets():
    assert settings(*POOL).symbols == ("BTCUSDT", "ETHUSDT")


def test_a_pool_trains_as_long_as_was_measured():
    pool = settings(*POOL)
    assert (pool.epochs, pool.pooled.windows_per_epoch) == (15, 30_000)
    assert settings("symbol=BTCUSDT").epochs == 50
    assert settings(*POOL, "epochs=3").epochs == 3


def test_markets_of_a_pool_may_have_no_part_in_it_and_looks_of_their_own():
    three = ("recipe=pooled", "symbol='BTCUSDT,ETHUSDT,SOLUSDT'", "looks=2")
    made = settings(*three, "pooled.without=[ETHUSDT]", "pooled.looks=[1,1,4]")
    assert made.pooled_symbols == ("BTCUSDT", "SOLUSDT")
    assert [made.looks_of(symbol) for symbol in made.pooled_symbols] == [1, 4]
    assert settings(*three).looks_of("SOLUSDT") == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("symbol=BTCUSDT", "recipe=both"), "recipe=both must be one of per_market, pooled"),
        (("symbol=BTCUSDT", "init=best"), "init=best must be pooled, or null"),
        (("symbol=BTCUSDT", "recipe=pooled"), "recipe=pooled learns from several"),
        (
            ("symbol='BTCUSDT,ETHUSDT'",),
            "symbol names 2 markets; several values make a sweep: add -m ",
        ),
        (("recipe=pooled", "symbol='BTCUSDT,BTCUSDT'"), "symbol names BTCUSDT twice"),
        (("recipe=pooled", "symbol='BTCUSDT,eth'"), "symbol='eth' is not a market"),
        ((*POOL, "pooled.leave_out=[SOLUSDT]"), "pooled.leave_out names SOLUSDT, which symbol"),
        ((*POOL, "pooled.without=[SOLUSDT]"), "pooled.without names SOLUSDT, which symbol"),
        ((*POOL, "pooled.without=[ETHUSDT]"), "pooled.without=['ETHUSDT'] leaves fewer than two"),
        ((*POOL, "pooled.looks=[1]"), "pooled.looks=[1] must have a number for each market"),
        ((*POOL, "pooled.looks=[1,0]"), "pooled.looks=[1, 0] must be at least 1"),
        ((*POOL, "pooled.leave_out=[MATICUSDT]"), "symbol=MATICUSDT is called POLUSDT today"),
        ((*POOL, "init=pooled"), "init=pooled is for one market after its pool was trained"),
        ((*POOL, "evaluation=walk_forward"), "recipe=pooled uses the cuts of the pool"),
        ((*POOL, "experiment=tune"), "recipe=pooled and experiment=tune do not go together"),
        (("symbol=BTCUSDT", "init=pooled", "evaluation=walk_forward"), "init=pooled uses the cuts"),
        (("symbol=BTCUSDT", "init=pooled", "experiment=tune"), "init=pooled and experiment=tune"),
        ((*POOL, "optimizer.averaging=.9"), "optimizer.averaging=0.9 is for one market that"),
        (
            ("symbol=BTCUSDT", "init=pooled", "windows_per_epoch=9"),
            "windows_per_epoch=9 is for one",
        ),
        (
            ("symbol=BTCUSDT", "refit=true", "trainer.overfit_batches=2"),
            "trainer.overfit_batches trains on a few batches alone, and refit=true on all rows",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides, words):
    assert refusal(*overrides).startswith(words)


@pytest.mark.parametrize(
    "override",
    [
        "pooled.windows_per_epoch=1",
        "pooled.validation_windows=0",
        "pooled.warmup_epochs=-1",
        "pooled.seeds=0",
        "pooled.init_lr=0",
        "pooled.init_lr=1",
    ],
)
def test_a_number_of_the_pool_out_of_its_range_names_its_key(override):
    assert refusal("symbol=BTCUSDT", override).startswith(override.partition("=")[0])


def run(monkeypatch, capsys, tmp_path, *arguments: str):
    """What ``train.py`` makes of these arguments; the task only notes its settings."""
    seen: list[TrainConfig] = []
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(
        sys, "argv", ["train.py", *arguments, f"outputs_dir={tmp_path / 'outputs'}"]
    )
    code = run_jobs(seen.append, TrainConfig, "train", sweep=seen.append)
    return code, seen, capsys.readouterr().err


def test_a_list_of_markets_needs_no_quotes_with_a_pool(monkeypatch, capsys, tmp_path):
    code, seen, err = run(
        monkeypatch, capsys, tmp_path, "recipe=pooled", "symbol=BTCUSDT,ETHUSDT,SOLUSDT"
    )
    assert (code, err) == (0, "")
    assert seen[0].symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["pooled"]


def test_a_list_without_either_names_both_ways_to_mean_it(monkeypatch, capsys, tmp_path):
    code, seen, err = run(monkeypatch, capsys, tmp_path, "symbol=BTCUSDT,ETHUSDT")
    assert (code, seen) == (EXIT_USAGE, [])
    assert "several values make a sweep: add -m to train one model for each" in err
    assert "or recipe=pooled to train one network on all of them" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_other_lists_are_not_told_of_pools(monkeypatch, capsys, tmp_path):
    _, _, err = run(monkeypatch, capsys, tmp_path, "symbol=BTCUSDT", "epochs=1,2")
    assert "add -m" in err
    assert "recipe" not in err


def test_a_pool_is_no_sweep():
    from percoin.sweep.plan import plan_sweep

    with pytest.raises(ConfigError, match=r"recipe=pooled trains one network .* leave out -m"):
        plan_sweep(["recipe=pooled", "symbol=BTCUSDT,ETHUSDT"])


def test_the_runs_of_pools_lie_in_one_folder(tmp_path):
    folder = Path(run_dir(str(tmp_path), "BTCUSDT,ETHUSDT", "15m", resume=False))
    assert folder.parent == tmp_path / "pooled" / "15m"
