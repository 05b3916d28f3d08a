"""One network for several small markets, with ready objects."""

import math
import os
import signal
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.nn import functional
from training_builders import LOOKBACK, TINY, make_plan, tiny_network

from percoin.bars.schema import Bars
from percoin.bars.sources.simulated import SimulatedSource
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec
from percoin.errors import DivergedError, InterruptedRunError, ResumeError
from percoin.evaluation.fold_forecasts import JudgingRules
from percoin.features.feature_set import FEATURE_NAMES, FeatureSet
from percoin.labels import FixedHorizon
from percoin.network import CnnLstm
from percoin.training.datamodule import MarketDataModule
from percoin.training.fitted_network import forecast_test
from percoin.training.interruption import RunInterruption
from percoin.training.lit_module import SignalClassifier
from percoin.training.pooled_module import GentleClassifier, PooledDataModule, lr_share, thinned
from percoin.training.pooled_run import PooledPlan, TrainedPool, _PoolTraining, train_pool
from percoin.training.recipes.network import ask_network
from percoin.training.recipes.pool import Pool, build_pool
from percoin.training.run import train as train_alone
from percoin.types import Timeframe

SPEC = DatasetSpec(
    FixedHorizon(horizon=3, threshold=0.005),
    FeatureSet(),
    LOOKBACK,
    SplitSpec(purge_bars=3, embargo_bars=3),
    1095,
)
PLAN = PooledPlan(
    make_plan(epochs=3, lr=0.02),
    windows_per_epoch=600,
    validation_windows=120,
    warmup_epochs=1.0,
)


def bars_of(symbol: str, n_bars: int = 800) -> Bars:
    return SimulatedSource(seed=0, n_bars=n_bars, edge=0.9).load(symbol, Timeframe.H1)


MARKETS = [bars_of("AAA"), bars_of("BBB", 500), bars_of("CCC")]


@pytest.fixture(scope="module")
def pool() -> Pool:
    """The second market has fewer rows; the third is left out."""
    return build_pool(MARKETS, ["CCC"], SPEC)


def train(pool: Pool, folder, plan: PooledPlan = PLAN, network: CnnLstm | None = None, **further):
    """What train_pool has made of one network."""
    network = network or tiny_network()
    return train_pool(pool, lambda _: network, plan, folder, **further).model


@pytest.fixture(scope="module")
def trained(pool, tmp_path_factory):
    return train(pool, tmp_path_factory.mktemp("pooled"))


def drawn(pool: Pool, epoch: int, seed: int = 3, n_windows: int = 100) -> torch.Tensor:
    """The last bars of all windows of an epoch, sorted."""
    loader = PooledDataModule(pool, 20, seed, n_windows, 50).train_dataloader()
    loader.sampler.set_epoch(epoch)
    return torch.cat([windows[:, -1] for windows, _ in loader])


def test_every_epoch_draws_afresh_and_the_same_seed_the_same(pool):
    first, again, second = drawn(pool, 0), drawn(pool, 0), drawn(pool, 1)
    assert len(first) == len(second) == 100
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, drawn(pool, 0, seed=4))
    in_both = {tuple(row) for row in first.tolist()} & {tuple(row) for row in second.tolist()}
    # Of 895 train rows about 11 are drawn twice; a fixed subsample would share all 100.
    assert len(in_both) < 40


def test_an_epoch_has_no_window_twice_and_no_more_than_there_are(pool):
    whole = drawn(pool, 0, n_windows=10**6)
    n_rows = sum(len(dataset.rows("train")) for dataset in pool.seen)
    # But for what does not fill a batch.
    assert len(whole) == n_rows // 20 * 20 == len({tuple(row) for row in whole.tolist()})


def test_windows_and_labels_are_those_of_the_markets(pool):
    data = PooledDataModule(pool, 64, 3, 100, 10**6)
    for dataset, loader in zip(pool.seen, data.val_dataloader(), strict=True):
        rows = dataset.rows("validation")
        windows, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert np.array_equal(windows.numpy(), dataset.windows[rows - LOOKBACK + 1])
        assert np.array_equal(labels.numpy(), dataset.label[rows])


def test_features_are_not_copied(pool):
    data = PooledDataModule(pool, 64, 3, 100, 50)
    start = data._features.data_ptr()
    assert start == pool.features.ctypes.data


@pytest.mark.parametrize(("n_rows", "n_most", "kept"), [(5, 9, 5), (100, 7, 7), (7, 7, 7)])
def test_validation_rows_are_thinned_evenly(n_rows, n_most, kept):
    rows = thinned(np.arange(n_rows) * 3, n_most)
    assert len(rows) == len(set(rows.tolist())) == kept
    assert (rows[0], rows[-1]) == (0, (n_rows - 1) * 3)
    assert np.ptp(np.diff(rows)) <= 3


def test_the_learning_rate_grows_and_falls_to_nothing():
    shares = [lr_share(step, 4, 12) for step in range(13)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shares[8] == pytest.approx(0.5)
    assert shares[12] == pytest.approx(0)
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert lr_share(0, 0, 10) == 1.0


def market_loss(network: CnnLstm, dataset: MarketDataset, n_most: int) -> float:
    rows = thinned(dataset.rows("validation"), n_most)
    windows = torch.tensor(dataset.windows[rows - LOOKBACK + 1])
    with torch.inference_mode():
        logits = network.eval()(windows)
    return float(functional.cross_entropy(logits, torch.tensor(dataset.label[rows])))


def test_the_loss_that_chooses_the_epoch_is_the_mean_of_the_markets(pool, trained):
    losses = [market_loss(trained.module.network, dataset, 60) for dataset in pool.seen]
    n_rows = [len(dataset.rows("validation")) for dataset in pool.seen]
    history = trained.module.history["val_loss"]
    assert history[trained.best_epoch - 1] == min(history) == pytest.approx(np.mean(losses))
    # Or the weights would not be told from a plain mean over rows.
    assert len(set(n_rows)) > 1 or losses[0] != losses[1]


def test_markets_of_unequal_length_count_alike(pool, tmp_path):
    plan = replace(PLAN, validation_windows=10**6, training=make_plan(epochs=1, lr=0.02))
    short = build_pool([MARKETS[0], bars_of("DDD", 800).slice(0, 700)], [], SPEC)
    n_rows = [len(dataset.rows("validation")) for dataset in short.seen]
    assert n_rows[0] == n_rows[1]
    gappy = replace(
        short.seen[1],
        split=replace(short.seen[1].split, validation=short.seen[1].rows("validation")[:20]),
    )
    uneven = replace(short, seen=(short.seen[0], gappy))
    trained = train(uneven, tmp_path, plan)
    losses = [market_loss(trained.module.network, dataset, 10**6) for dataset in uneven.seen]
    assert trained.module.history["val_loss"] == [pytest.approx(np.mean(losses))]
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)


def state(trained) -> dict[str, torch.Tensor]:
    return trained.module.network.state_dict()


def same_state(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("changed", ["AAA", "CCC"])
def test_test_rows_and_markets_left_out_have_no_say_in_the_weights(
    pool, trained, tmp_path, changed
):
    first = pool.cuts.test_time if changed == "AAA" else 0

    def disturbed(bars: Bars) -> Bars:
        frame = bars.frame.copy()
        frame.loc[bars.open_time >= first, ["open", "high", "low", "close"]] *= 1.3
        return replace(bars, frame=frame)

    markets = [disturbed(bars) if bars.symbol == changed else bars for bars in MARKETS]
    other = build_pool(markets, ["CCC"], SPEC)
    assert other.scaling.mean_.tobytes() == pool.scaling.mean_.tobytes()
    assert same_state(state(train(other, tmp_path)), state(trained))


@pytest.mark.slow
def test_a_pool_learns_what_its_markets_share_and_a_market_left_out_has_too(tmp_path):
    markets = [bars_of(symbol, 3000) for symbol in ("AAA", "BBB", "CCC", "DDD")]
    pool = build_pool(markets, ["DDD"], SPEC)
    plan = replace(PLAN, training=make_plan(epochs=5, lr=0.01), windows_per_epoch=6000)
    skills = []

    torch.manual_seed(0)
    wider = {"hidden_size": 8, "channels": (8, 8, 8), "head_sizes": (16, 8), "dropout": 0.0}
    network = CnnLstm(len(FEATURE_NAMES), **{**TINY, **wider})
    module = train(pool, tmp_path, plan, network).module
    for dataset in pool.markets:
        shares = dataset.class_counts("train") / dataset.class_counts("train").sum()
        labels = dataset.label[dataset.rows("validation")]
        prior = -np.log(shares[labels]).mean()
        skills.append(1 - market_loss(module.network, dataset, 10**6) / prior)
    assert min(skills) > 0.01


class Interrupting(CnnLstm):
    """Sends Ctrl-C to this process at one of its answers."""

    at = -1

    def forward(self, windows):
        self.at -= 1
        if self.at == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(windows)


def test_an_interrupted_pool_goes_on_as_if_nothing_had_been(pool, trained, tmp_path):
    torch.manual_seed(0)
    network = Interrupting(len(FEATURE_NAMES), **TINY)
    # Ten train batches and two of validation an epoch.
    network.at = 17
    with pytest.raises(InterruptedRunError, match=r"pool of 3 markets 1h: .* resume=true goes on"):
        train(pool, tmp_path, network=network)
    resumed = train(pool, tmp_path, resume=True)
    assert resumed.module.history == trained.module.history
    assert same_state(state(resumed), state(trained))


SEEDS = replace(PLAN, training=make_plan(epochs=2, lr=0.02, seed=7), n_seeds=3)


def train_seeds(pool: Pool, folder, make_network=tiny_network, resume: bool = False) -> TrainedPool:
    return train_pool(pool, make_network, SEEDS, folder, resume=resume)


def test_of_several_seeds_the_best_on_validation_windows_is_kept_as_it_would_be_alone(
    pool, tmp_path
):
    found = train_seeds(pool, tmp_path / "all")
    assert list(found.losses) == [7, 8, 9]
    assert len(set(found.losses.values())) == 3
    assert found.seed == min(found.losses, key=found.losses.get)
    for seed, loss in found.losses.items():
        plan = replace(SEEDS, training=replace(SEEDS.training, seed=seed), n_seeds=1)
        alone = train(pool, tmp_path / str(seed), plan, tiny_network(seed))
        assert min(alone.module.history["val_loss"]) == loss
        if seed == found.seed:
            assert same_state(state(alone), state(found.model))
            assert found.folder == tmp_path / "all" / f"seed-{seed}"


def test_several_seeds_go_on_in_the_one_that_was_interrupted(pool, tmp_path):
    made = []

    def make_network(seed: int) -> CnnLstm:
        made.append(seed)
        torch.manual_seed(seed)
        network = Interrupting(len(FEATURE_NAMES), **TINY)
        # In the second seed's second epoch.
        network.at = 17 if len(made) == 2 else -1
        return network

    with pytest.raises(InterruptedRunError, match="resume=true goes on"):
        train_seeds(pool, tmp_path / "cut", make_network)
    assert made == [7, 8]
    resumed = train_seeds(pool, tmp_path / "cut", resume=True)
    whole = train_seeds(pool, tmp_path / "whole")
    assert resumed.losses == whole.losses
    assert same_state(state(resumed.model), state(whole.model))


def test_a_pool_is_not_resumed_beyond_its_epochs(pool, tmp_path):
    train(pool, tmp_path)
    plan = replace(PLAN, training=make_plan(epochs=2))
    with pytest.raises(ResumeError, match="has trained 3 epochs already"):
        train(pool, tmp_path, plan, resume=True)


def further(pool: Pool, folder, network: CnnLstm, lr: float, epochs: int = 3, batch_size: int = 64):
    plan = make_plan(epochs=epochs, lr=lr, batch_size=batch_size)
    return train_alone(pool.unseen[0], network, plan, folder, is_gentle=True)


def pooled_network(trained) -> CnnLstm:
    network = tiny_network()
    network.load_state_dict(state(trained))
    return network


def statistics(network: CnnLstm) -> dict[str, torch.Tensor]:
    """All that batch normalisation knows."""
    return {
        f"{place}.{name}": tensor.clone()
        for place, layer in network.named_modules()
        if isinstance(layer, torch.nn.BatchNorm1d)
        for name, tensor in layer.state_dict().items()
    }


def test_going_on_gently_keeps_what_validation_prefers(pool, trained, tmp_path):
    dataset = pool.unseen[0]
    before = market_loss(trained.module.network, dataset, 10**6)
    network = pooled_network(trained)
    result = further(pool, tmp_path, network, lr=0.003)
    assert result.best_epoch >= 1
    assert market_loss(network, dataset, 10**6) < before
    assert not same_state(state(result), state(trained))


def test_weights_that_only_got_worse_are_given_back(pool, trained, tmp_path):
    network = pooled_network(trained)
    result = further(pool, tmp_path, network, lr=0.9)
    assert result.best_epoch == 0
    assert same_state(state(result), state(trained))
    # What is exported is what was tested.
    assert len(result.module.test_labels) == len(pool.unseen[0].rows("test"))


class Poison(pl.Callback):
    """Spoils a weight after the first batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        with torch.no_grad():
            pl_module.network.head[0].weight[0, 0] = torch.inf


def test_a_fine_tuning_that_diverges_names_the_setting_that_helps(pool, trained, tmp_path):
    # Here lr has no effect: pooled.init_lr takes its place.
    with pytest.raises(DivergedError, match=r"smaller learning rate than pooled\.init_lr=0\.003$"):
        train_alone(
            pool.unseen[0],
            pooled_network(trained),
            make_plan(lr=0.003),
            tmp_path,
            callbacks=[Poison()],
            is_gentle=True,
        )


def test_batch_normalisation_learns_nothing_from_one_market(pool, trained, tmp_path):
    network = pooled_network(trained)
    before = statistics(network)
    further(pool, tmp_path, network, lr=0.003)
    assert same_state(statistics(network), before)


def test_an_interrupted_market_goes_on_from_the_same_pooled_weights(pool, trained, tmp_path):
    whole = further(pool, tmp_path / "whole", pooled_network(trained), lr=0.003)
    network = Interrupting(len(FEATURE_NAMES), **TINY)
    network.load_state_dict(state(trained))
    # One validation before, then batches of train rows.
    network.at = 16
    with pytest.raises(InterruptedRunError):
        further(pool, tmp_path / "cut", network, lr=0.003)
    plan = make_plan(epochs=3, lr=0.003)
    resumed = train_alone(
        pool.unseen[0],
        pooled_network(trained),
        plan,
        tmp_path / "cut",
        resume=True,
        is_gentle=True,
    )
    assert resumed.module.history == whole.module.history
    assert same_state(state(resumed), state(whole))


def test_a_forecast_of_a_market_is_made_with_its_own_rows(pool, tmp_path):
    module, rules = train(pool, tmp_path).module, JudgingRules(repetitions=100)
    for dataset in pool.markets:
        asked = ask_network(module, dataset, PLAN.training, RunInterruption(("pool", "1h"), None))
        forecast = forecast_test(asked, dataset, rules)
        data = MarketDataModule.of(dataset, 64, 0)
        n_rows = sum(len(labels) for _, labels in data.test_dataloader())
        assert len(forecast.model.probabilities) == n_rows
    assert math.isfinite(module.history["val_loss"][-1])
    assert not isinstance(module, GentleClassifier)


def test_seeds_are_compared_by_their_best_epochs(pool, tmp_path, monkeypatch):
    courses = {3: ([0.9, 0.5, 0.8], 2), 4: ([0.9, 0.6, 0.7], 2)}

    def fit(training, seed, network, loggers):
        module = SignalClassifier(network, PLAN.training.optimizer, 0.1, seed)
        losses, epoch = courses[seed]
        module.history["val_loss"] += losses
        return module, epoch

    monkeypatch.setattr(_PoolTraining, "_fit", fit)
    plan = replace(PLAN, n_seeds=2)
    kept = train_pool(pool, lambda _: tiny_network(), plan, tmp_path)
    assert (kept.seed, kept.losses) == (3, {3: 0.5, 4: 0.6})
    assert (kept.model.best_epoch, kept.model.n_epochs) == (2, 3)
