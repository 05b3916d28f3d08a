"""``train.py recipe=pooled`` and ``init=pooled``: from the command to the registry."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import write_parquet
from train_runs import Finished, run_train, train_arguments

from percoin.audit.findings import FindingStatus
from percoin.audit.pooled import check_pooled_scaling
from percoin.audit.served import audit_served, rebuild
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.errors import BarsNotFoundError, RegistryWriteError, VersionRefusedError
from percoin.features.feature_set import compute_features
from percoin.features.scaling import Scaling
from percoin.inference import ServedModel
from percoin.registry.artifact import Artifact, load_artifact
from percoin.registry.catalogue import version_ids
from percoin.registry.changes import promote
from percoin.registry.command.details import read_details, show_as_text
from percoin.registry.command.reproduction import Reproduction, reproduce
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import ScalingNumbers
from percoin.registry.publish import served_id
from percoin.report.board import make_board
from percoin.report.reading import read_models
from percoin.sweep.worker import job_key
from percoin.training import markets as trained_markets
from percoin.training.pipeline import prepare
from percoin.training.recipes.pooled import Pooled, warn_of_slow_bars
from percoin.types import Timeframe

SEEN, UNSEEN = ("BTCUSDT", "ETHUSDT"), "SOLUSDT"
MARKETS = (*SEEN, UNSEEN)
POOL = (
    f"symbol={','.join(MARKETS)}",
    "recipe=pooled",
    f"pooled.leave_out=[{UNSEEN}]",
    "pooled.windows_per_epoch=400",
    "pooled.validation_windows=100",
    "pooled.seeds=1",
    "model.dropout=0.1",
    "lr=0.01",
)


def train_pooled(folder: Path, *overrides: str, **source) -> Finished:
    arguments = train_arguments(folder, *POOL, *overrides, **source)
    return run_train(arguments)


def begin_with_pool(folder: Path, symbol: str, *overrides: str) -> Finished:
    arguments = train_arguments(
        folder, f"symbol={symbol}", "init=pooled", "model.dropout=0.1", *overrides
    )
    return run_train(arguments)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("pooled")
    return train_pooled(folder, "pooled.seeds=2"), folder


def artifact(folder: Path, symbol: str) -> Artifact:
    return load_artifact(folder / "models", symbol, Timeframe.H1)


def stored(folder: Path, symbol: str):
    return BarStore(folder / "data" / "bars").load(symbol, Timeframe.H1)


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "outputs" / "pooled" / "1h").iterdir()
    return found


def only_error(finished: Finished) -> str:
    (line,) = finished.stderr.splitlines()
    return line


def test_one_command_leaves_a_judged_model_of_every_market(pooled):
    finished, folder = pooled
    assert (finished.code, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    for symbol in MARKETS:
        (line,) = [line for line in lines if line.startswith(f"{symbol} ") and "[" in line]
        assert line.split()[1] == ("unseen" if symbol == UNSEEN else "seen")
    for words in ("seen: mean skill ", "unseen: mean skill ", "seen: ahead of the rival"):
        assert any(line.startswith(words) for line in lines), words
    result = json.loads((run_folder(folder) / "result.json").read_text())
    assert set(result["markets"]) == set(MARKETS)
    for symbol, entry in result["markets"].items():
        manifest = artifact(folder, symbol).manifest
        assert entry["version"] == manifest.version_id
        assert entry["verdict"] == manifest.gate.verdict.value
        files = {path.name for path in (run_folder(folder) / "markets" / symbol).iterdir()}
        assert files == {"figures", "evaluation.txt", "summary.txt", "result.json"}
    mean = np.mean([result["markets"][symbol]["skill"] for symbol in SEEN])
    assert result["means"]["seen"]["value"] == pytest.approx(mean)


def test_a_report_of_a_pool_counts_its_markets_once_in_the_deflated_sharpe_ratio(pooled):
    _, folder = pooled
    for models in (read_models(folder / "models"), read_models(folder / "models", "BTCUSDT")):
        for entry in make_board(models).entries:
            counted = {r.n_trials for r in entry.model.evaluation.money if r.moments is not None}
            assert counted <= {len(MARKETS), len(models)}
            assert len(MARKETS) in counted


def test_all_markets_have_one_network_one_scaler_and_their_own_calibration(pooled):
    _, folder = pooled
    first, *others = [artifact(folder, symbol) for symbol in MARKETS]
    for other in others:
        assert other.manifest.scaling == first.manifest.scaling
        assert other.manifest.pool == first.manifest.pool
        assert all(
            np.array_equal(first.state_dict[name], tensor)
            for name, tensor in other.state_dict.items()
        )
        assert other.manifest.calibration != first.manifest.calibration
    pool = first.manifest.pool
    assert pool.seen == SEEN
    assert set(pool.markets) == set(MARKETS)
    for symbol in MARKETS:
        bars = artifact(folder, symbol).manifest.bars
        assert pool.markets[symbol].sha256 == bars.sha256
        assert bars.splits["val"].first > pool.validation_time > bars.splits["train"].last
        assert bars.splits["test"].first > pool.test_time > bars.splits["val"].last


def test_the_seed_that_is_best_on_validation_windows_is_kept_and_named(pooled):
    finished, folder = pooled
    result = json.loads((run_folder(folder) / "result.json").read_text())
    losses = {int(seed): loss for seed, loss in result["validation_losses"].items()}
    assert set(losses) == {0, 1}
    assert result["seed"] == min(losses, key=losses.get)
    assert f"2 seeds, kept seed {result['seed']} at epoch {result['best_epoch']} of" in (
        finished.stdout.replace("\n", " ")
    )
    assert {artifact(folder, symbol).manifest.seed for symbol in MARKETS} == {result["seed"]}
    for seed in losses:
        assert (run_folder(folder) / f"seed-{seed}" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("symbol", MARKETS)
def test_serving_gives_what_was_measured(pooled, symbol):
    _, folder = pooled
    found = artifact(folder, symbol)
    dataset = rebuild(found.manifest, stored(folder, symbol))
    rows, probabilities = ServedModel(found).probabilities(stored(folder, symbol))
    by_row = dict(zip(rows.tolist(), probabilities, strict=True))
    asked = dataset.rows("test")
    losses = [-np.log(by_row[row][dataset.label[row]]) for row in asked.tolist()]
    record = json.loads((found.folder / "metrics.json").read_text())
    assert len(asked) == record["dataset_info"]["test_samples"]
    assert np.mean(losses) == pytest.approx(record["test_metrics"]["log_loss"], abs=1e-6)


@pytest.mark.parametrize("symbol", MARKETS)
def test_the_audit_finds_no_leak_and_knows_the_scaler_of_a_pool(pooled, symbol):
    _, folder = pooled
    found = {
        finding.check: finding
        for finding in audit_served(
            folder / "models", stored(folder, symbol), lambda name: stored(folder, name)
        )
    }
    assert FindingStatus.LEAK not in {finding.status for finding in found.values()}
    scaler = found["model: scaler knows train only"]
    assert scaler.status is FindingStatus.OK
    assert "train rows of 2 markets" in scaler.evidence
    assert found["model: splits are as described"].status is FindingStatus.OK


def with_scaler_of(folder: Path, *parts: str):
    """A manifest whose scaler knows other rows of the pool's markets too."""
    manifests = [artifact(folder, symbol).manifest for symbol in SEEN]
    rows = []
    for manifest, symbol in zip(manifests, SEEN, strict=True):
        dataset = rebuild(manifest, stored(folder, symbol))
        features = compute_features(dataset.bars, dataset.feature_set)
        rows += [features[dataset.rows(part)] for part in parts]
    numbers = ScalingNumbers.of(Scaling.fit_together(rows))
    return replace(manifests[0], scaling=numbers)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("train", "validation"), "fitted on train and validation rows of 2 markets"),
        (("train", "validation", "test"), "fitted on the rows of all three parts of 2 markets"),
        (("test",), "deviations off those of the train rows of 2 markets"),
    ],
)
def test_a_scaler_that_knows_more_than_the_train_rows_of_the_pool_is_a_leak(pooled, parts, words):
    _, folder = pooled
    manifest = with_scaler_of(folder, *parts)
    finding = check_pooled_scaling(manifest, manifest.pool, lambda name: stored(folder, name))
    assert finding.status is FindingStatus.LEAK
    assert words in finding.evidence


def test_a_scaler_is_not_judged_without_the_bars_of_every_market(pooled):
    _, folder = pooled
    manifest = artifact(folder, SEEN[0]).manifest

    def load(name: str):
        if name == SEEN[1]:
            raise BarsNotFoundError(name, "1h", "none", "fetch some")
        return stored(folder, name)

    for finding in (
        check_pooled_scaling(manifest, manifest.pool, load),
        check_pooled_scaling(manifest, manifest.pool, None),
    ):
        assert finding.status is FindingStatus.CANNOT_TELL
    assert SEEN[1] in check_pooled_scaling(manifest, manifest.pool, load).evidence


def test_markets_without_bars_are_all_named_before_any_training(tmp_path):
    bars = SimulatedSource(n_bars=900).load("BTCUSDT", Timeframe.H1)
    write_parquet(bars, tmp_path / "bars" / "BTCUSDT" / "1h.parquet")
    finished = train_pooled(tmp_path, source=("source=files", f"source.path={tmp_path / 'bars'}"))
    assert finished.code == 1
    line = only_error(finished)
    assert line.startswith("error: 2 of 3 markets have no bars to train on: ETHUSDT (")
    assert "SOLUSDT (" in line
    assert "epoch" not in finished.stdout
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_a_market_whose_bars_end_too_early_is_refused_by_name_and_the_others_go_on(tmp_path):
    for symbol in (*MARKETS, "XRPUSDT"):
        bars = SimulatedSource(n_bars=900).load(symbol, Timeframe.H1)
        short = bars.slice(0, 400) if symbol == "XRPUSDT" else bars
        write_parquet(short, tmp_path / "bars" / symbol / "1h.parquet")
    finished = train_pooled(
        tmp_path,
        f"symbol={','.join(MARKETS)},XRPUSDT",
        "epochs=1",
        source=("source=files", f"source.path={tmp_path / 'bars'}"),
    )
    assert (finished.code, finished.stderr) == (0, "")
    assert "refused XRPUSDT: no validation rows are left" in finished.stdout
    assert not (tmp_path / "models" / "per_coin" / "XRPUSDT" / "1h").exists()


@pytest.mark.slow
def test_what_was_judged_before_an_interruption_is_not_judged_again(tmp_path, monkeypatch):
    write, seen = trained_markets.write_market_result, []

    def interrupted(folder, summary, further):
        write(folder, summary, further)
        seen.append(folder.name)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trained_markets, "write_market_result", interrupted)
    assert train_pooled(tmp_path).code == 130
    monkeypatch.undo()
    assert seen == ["BTCUSDT"]
    finished = train_pooled(tmp_path, "resume=true")
    assert (finished.code, finished.stderr) == (0, "")
    assert "BTCUSDT was judged before the interruption" in finished.stdout
    versions = {
        symbol: version_ids(MarketFolder(tmp_path / "models", symbol, Timeframe.H1))
        for symbol in MARKETS
    }
    assert {symbol: len(found) for symbol, found in versions.items()} == dict.fromkeys(MARKETS, 1)
    assert len(json.loads((run_folder(tmp_path) / "result.json").read_text())["markets"]) == 3


@pytest.mark.slow
def test_a_market_that_fails_while_it_is_judged_is_named_and_the_others_go_on(
    tmp_path, monkeypatch
):
    judge = trained_markets.judge

    def failing(fitted, rules):
        if fitted.symbol == SEEN[0]:
            raise RegistryWriteError(SEEN[0], "1h", "no room", "make some")
        return judge(fitted, rules)

    monkeypatch.setattr(trained_markets, "judge", failing)
    finished = train_pooled(tmp_path, "epochs=1")
    assert finished.code == 1
    assert only_error(finished) == (
        "error: 1 of 3 markets have no new model: BTCUSDT (no room; make some); the others have one"
    )
    assert "FAILED BTCUSDT: no room; make some" in finished.stdout
    result = json.loads((run_folder(tmp_path) / "result.json").read_text())
    assert result["failed"] == {"BTCUSDT": "no room; make some"}
    assert set(result["markets"]) == {"ETHUSDT", "SOLUSDT"}
    assert artifact(tmp_path, SEEN[1]).manifest.pool.seen == SEEN


@pytest.mark.slow
def test_a_resumed_pool_with_other_bars_is_refused(tmp_path):
    train_pooled(tmp_path)
    (run_folder(tmp_path) / "result.json").unlink()  # as if it had been killed
    line = only_error(train_pooled(tmp_path, "resume=true", "source.seed=1"))
    assert line.startswith("error: pool of 3 markets 1h: source.seed, the bars changed since ")


@pytest.mark.slow
def test_a_market_that_begins_with_its_pool_has_its_cuts_and_scaler_and_says_what_came_of_it(
    pooled,
):
    _, folder = pooled
    before = artifact(folder, SEEN[0])
    finished = begin_with_pool(folder, SEEN[0], "pooled.init_lr=0.9")
    assert (finished.code, finished.stderr) == (0, "")
    assert "the pooled ones, as they were, are kept" in finished.stdout
    assert "no epoch was better: the pooled weights are kept" in finished.stdout
    market = MarketFolder(folder / "models", SEEN[0], Timeframe.H1)
    newest = json.loads((market.version(version_ids(market)[-1]) / "meta.json").read_text())
    pool = before.manifest.pool
    assert newest["pool"]["started_from"] == before.manifest.version_id
    assert newest["pool"]["improved"] is False
    assert newest["pool"]["test_time"] == pool.test_time
    assert newest["scaling"]["mean"] == list(before.manifest.scaling.mean)
    assert newest["bars"]["splits"]["test"]["first"] > pool.test_time
    # It begins with the pooled model again, not with what became of it.
    again = begin_with_pool(folder, SEEN[0], "epochs=1")
    assert again.code == 0
    newest = json.loads((market.version(version_ids(market)[-1]) / "meta.json").read_text())
    assert newest["pool"]["started_from"] == before.manifest.version_id


@pytest.mark.slow
def test_a_market_from_elsewhere_begins_with_a_pool_that_is_named(pooled):
    _, folder = pooled
    assert "no model of recipe=pooled" in only_error(begin_with_pool(folder, "XRPUSDT"))
    for name in (UNSEEN, str(artifact(folder, UNSEEN).folder.resolve())):
        finished = begin_with_pool(folder, "XRPUSDT", f"pooled.init_model={name}", "epochs=1")
        assert (finished.code, finished.stderr) == (0, "")
    found = artifact(folder, "XRPUSDT").manifest
    assert found.pool.started_from == artifact(folder, UNSEEN).manifest.version_id
    findings = audit_served(
        folder / "models", stored(folder, "XRPUSDT"), lambda name: stored(folder, name)
    )
    assert FindingStatus.LEAK not in {finding.status for finding in findings}


def test_what_is_shown_of_a_version_names_its_pool(pooled):
    _, folder = pooled
    for symbol, place in ((SEEN[0], "among"), (UNSEEN, "not among")):
        market = MarketFolder(folder / "models", symbol, Timeframe.H1)
        shown = show_as_text(read_details(market, version_ids(market)[0]))
        assert f"2 markets, {symbol} {place} them: BTCUSDT, ETHUSDT" in shown
        assert f"test from {artifact(folder, symbol).manifest.pool.test_time}" in shown


@pytest.mark.slow
def test_a_job_of_a_sweep_is_another_one_once_its_pool_is(pooled, tmp_path):
    _, folder = pooled
    shutil.copytree(folder / "models", tmp_path / "models", symlinks=True)
    arguments = train_arguments(tmp_path, "init=pooled", "model.dropout=0.1")
    settings = typed(compose_config("train", arguments), TrainConfig)

    def key() -> str:
        return job_key(settings, prepare(settings, lambda _: stored(folder, SEEN[0])))

    before = key()
    assert key() == before
    assert train_pooled(tmp_path, "epochs=1").code == 0
    newest = key()
    assert newest != before
    # Not once another version is served, be it of a pool or fine-tuned.
    market = MarketFolder(tmp_path / "models", SEEN[0], Timeframe.H1)
    pools = version_ids(market)
    assert begin_with_pool(tmp_path, SEEN[0], "epochs=1").code == 0
    for version in {pools[0], pools[-1], version_ids(market)[-1]} - {served_id(market)}:
        promote(market, version, "a test", force=True)
        assert served_id(market) == version
        assert key() == newest


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lookback=9", "has lookback=8, not 9"),
        ("features=raw", "has features.definition=relative, not raw"),
        ("labels.horizon=2 split.purge_bars=3", "has labels="),
        ("split.purge_bars=9", "has split.purge_bars=3, not 9"),
        ("model.dropout=0.2", "has model="),
        ("pooled.init_model=/nowhere", "pooled.init_model=/nowhere is no version of a model"),
    ],
)
def test_a_pooled_model_is_not_begun_with_under_other_settings(pooled, override, words):
    _, folder = pooled
    assert words in only_error(begin_with_pool(folder, SEEN[1], *override.split()))


def reproduced(folder: Path, symbol: str) -> Reproduction:
    market = MarketFolder(folder / "models", symbol, Timeframe.H1)
    words = ["action=reproduce", f"version={version_ids(market)[-1]}"]
    words.append(f"data_dir={folder / 'data'}")
    return reproduce(typed(compose_config("registry", words), RegistryConfig), market)


@pytest.mark.slow
@pytest.mark.parametrize("symbol", [SEEN[1], UNSEEN])
def test_a_market_of_a_pool_is_reproduced_by_training_the_pool_again(pooled, symbol):
    found = reproduced(pooled[1], symbol)
    assert found.is_same, found.as_text()
    assert {entry.part for entry in found.compared} >= {"weights", "scaling", "test metrics"}


def test_a_version_that_began_with_a_pool_is_not_reproduced_and_says_why(pooled, tmp_path):
    shutil.copytree(pooled[1], tmp_path, symlinks=True, dirs_exist_ok=True)
    assert begin_with_pool(tmp_path, SEEN[0]).code == 0
    with pytest.raises(VersionRefusedError, match=r"started from the weights of .*init=pooled"):
        reproduced(tmp_path, SEEN[0])


def test_each_market_of_a_pool_pays_for_the_looks_at_its_own_test_rows():
    arguments = ["recipe=pooled", "symbol='BTCUSDT,ETHUSDT'", "pooled.looks=[3,5]"]
    settings = typed(compose_config("train", arguments), TrainConfig)
    recipe = Pooled(pool=SimpleNamespace())
    for symbol, looks in (("BTCUSDT", 3), ("ETHUSDT", 5)):
        own = recipe.settings_of(settings, symbol)
        assert trained_markets.judging_rules(own).n_looks == own.looks == looks


@pytest.mark.parametrize(
    ("words", "is_warned"),
    [(["tf=1d"], True), (["tf=4h"], True), (["tf=1h"], False), (["tf=1d", "blend=none"], False)],
)
def test_a_pool_of_slow_bars_is_told_that_its_network_is_no_gain(words, is_warned, caplog):
    words = ["recipe=pooled", "symbol='BTCUSDT,ETHUSDT'", *words]
    warn_of_slow_bars(typed(compose_config("train", words), TrainConfig))
    assert ["model=average" in record.getMessage() for record in caplog.records] == [
        True
    ] * is_warned


def test_a_training_of_slow_bars_says_so_before_its_first_epoch(tmp_path):
    source = ("source=simulated", "source.n_bars=3000", "history_days=400")
    done = train_pooled(
        tmp_path, "tf=4h", "epochs=1", "blend=volatility", "pooled.leave_out=[]", source=source
    )
    assert done.code == 0, done.stderr
    told = done.stdout + done.stderr
    assert 0 < told.find("model=average trains those alone") < told.find("epoch 1/1")
