import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from artifact_builders import (
    SYMBOL,
    TIMEFRAME,
    check_whole,
    draft,
    export,
    forge,
    load,
    record,
    state_dict,
)
from hostile_files import Trap
from hostile_files import saved_weights as saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from percoin.errors import (
    ConfigError,
    InvalidArtifactError,
    ModelNotFoundError,
)
from percoin.features.feature_set import FEATURE_NAMES
from percoin.registry import artifact
from percoin.registry.layout import HASHED_FILES, MANIFEST_FILE
from percoin.registry.manifest import Gate, StoredVerdict
from percoin.registry.weights import load_weights
from percoin.types import Timeframe

ALL_FILES = (*HASHED_FILES, MANIFEST_FILE)


def test_a_model_comes_back_as_it_was_exported(tmp_path):
    rng = torch.Generator().manual_seed(1)
    best = {"weight": torch.randn(3, 4, generator=rng), "steps": torch.tensor(7)}
    served = {"weight": torch.randn(4, 3, generator=rng).t(), "steps": torch.tensor(9)}
    made = draft()
    folder = artifact.export_artifact(tmp_path, made, best, served, record()).folder
    loaded = load(tmp_path)
    assert loaded.folder == folder
    assert set(loaded.state_dict) == {"weight", "steps"}
    assert all(torch.equal(loaded.state_dict[name], served[name]) for name in served)
    best_again = torch.load(folder / "cnn_lstm_best.pth", weights_only=True)
    assert all(torch.equal(best_again[name], best[name]) for name in best)
    assert loaded.manifest.scaling == made.scaling
    assert loaded.manifest.version_id == folder.name


@pytest.mark.parametrize(
    "verdict", [StoredVerdict.REJECTED, StoredVerdict.UNTESTABLE, StoredVerdict.NOT_JUDGED]
)
def test_an_accepted_version_stays_served_when_the_next_is_not_accepted(tmp_path, verdict):
    accepted = export(tmp_path, 0.25, gate=Gate(StoredVerdict.ACCEPTED))
    weights = state_dict(0.75)
    made = draft(config={"value": 0.75}, gate=Gate(verdict))
    exported = artifact.export_artifact(tmp_path, made, weights, weights, record())
    assert not exported.is_served
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(ALL_FILES)
    assert load(tmp_path).folder == accepted
    newer = export(tmp_path, 0.5, gate=Gate(StoredVerdict.ACCEPTED))
    assert load(tmp_path).folder == newer


def test_a_model_of_simulated_bars_never_takes_the_place_of_one_of_real_bars(tmp_path):
    simulated = draft().bars
    real = export(
        tmp_path,
        gate=Gate(StoredVerdict.REJECTED),
        bars=replace(simulated, origin="files: 15m.parquet"),
    )
    export(tmp_path, 0.75, gate=Gate(StoredVerdict.ACCEPTED), bars=simulated)
    assert load(tmp_path).folder == real


def test_a_rejected_version_is_shown_while_nothing_was_ever_accepted(tmp_path):
    export(tmp_path, 0.25, gate=Gate(StoredVerdict.REJECTED))
    newer = export(tmp_path, 0.75, gate=Gate(StoredVerdict.REJECTED))
    assert load(tmp_path).folder == newer


def test_a_damaged_version_is_replaced_whatever_it_was(tmp_path):
    accepted = export(tmp_path, 0.25, gate=Gate(StoredVerdict.ACCEPTED))
    (accepted / "meta.json").write_text("{}")
    newer = export(tmp_path, 0.75, gate=Gate(StoredVerdict.REJECTED))
    assert load(tmp_path).folder == newer


def test_an_export_writes_the_five_files_where_the_original_had_them(tmp_path):
    export(tmp_path)
    shown = tmp_path / "per_coin" / "BTCUSDT" / "15m"
    assert sorted(path.name for path in shown.iterdir()) == sorted(ALL_FILES)


def test_a_weight_file_holds_no_more_than_its_weights(tmp_path):
    big = torch.zeros(1_000_000)
    folder = artifact.export_artifact(
        tmp_path, draft(), {"view": big[:3]}, {"view": big[:3]}, record()
    ).folder
    assert (folder / "cnn_lstm_v1.pth").stat().st_size < 10_000


def test_loading_logs_the_lines_operators_look_for(tmp_path, caplog):
    export(tmp_path)
    with caplog.at_level(logging.INFO, logger="percoin"):
        load(tmp_path)
    assert [entry.getMessage() for entry in caplog.records] == [
        "Loaded metadata: BTCUSDT 15m",
        "Loaded model: BTCUSDT 15m (features=15)",
        "Loaded scaler: BTCUSDT 15m",
    ]


def test_other_tools_get_the_scaler_of_the_manifest(tmp_path):
    folder = export(tmp_path)
    scaler = pickle.loads((folder / "scaler.pkl").read_bytes())
    features = np.random.default_rng(0).normal(size=(5, len(FEATURE_NAMES)))
    scaling = load(tmp_path).manifest.scaling
    expected = (features - np.array(scaling.mean)) / np.array(scaling.scale)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        assert np.array_equal(scaler.transform(features), expected)
    assert list(scaler.get_feature_names_out()) == list(FEATURE_NAMES)
    assert scaler.n_samples_seen_ == 800


def test_a_market_without_a_model_says_how_to_get_one(tmp_path):
    export(tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        artifact.load_artifact(tmp_path, "ETHUSDT", Timeframe.H1)
    assert str(caught.value) == (
        f"ETHUSDT 1h: no model exported in {tmp_path}; "
        f"train one: python train.py symbol=ETHUSDT tf=1h models_dir={tmp_path}"
    )
    with pytest.raises(ModelNotFoundError):
        artifact.load_artifact(tmp_path / "nowhere", SYMBOL, TIMEFRAME)


@pytest.mark.parametrize("symbol", ["..", "../BTCUSDT", "per_coin/BTCUSDT"])
def test_a_symbol_that_is_a_path_is_refused(tmp_path, symbol):
    export(tmp_path)
    with pytest.raises(ConfigError, match="is not a market"):
        artifact.load_artifact(tmp_path, symbol, TIMEFRAME)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_flipped_bit_in_any_file_is_refused(tmp_path, name):
    path = export(tmp_path) / name
    content = path.read_bytes()
    for position in range(0, len(content), max(1, len(content) // 25)):
        flipped = bytearray(content)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(InvalidArtifactError, match=name.replace(".", r"\.")):
            load(tmp_path)
    path.write_bytes(content)
    assert check_whole(load(tmp_path)) == 0.5


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "folder", "pipe", "link out", "link in"])
def test_a_file_that_is_not_the_one_exported_is_refused(tmp_path, name, damage):
    path = export(tmp_path / "models") / name
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    if damage == "empty":
        path.touch()
    elif damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "link out":
        path.symlink_to(elsewhere)
    elif damage == "link in":
        shutil.copy(elsewhere, path.with_name("copy"))
        path.symlink_to("copy")
    with pytest.raises(InvalidArtifactError, match=name.replace(".", r"\.")):
        load(tmp_path / "models")


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_file_of_another_version_is_refused(tmp_path, name):
    other = export(tmp_path, 0.25, seed=3, bars=draft().bars)
    if name in {"scaler.pkl", "metrics.json"}:
        (other / name).write_bytes((other / name).read_bytes() + b" ")
    served = export(tmp_path, 0.75)
    shutil.copy(other / name, served / name)
    with pytest.raises(InvalidArtifactError, match=r"was changed after|holds the files of"):
        load(tmp_path)


def test_the_folder_of_another_market_is_refused(tmp_path):
    export(tmp_path)
    served = tmp_path / "per_coin" / SYMBOL
    shutil.copytree(served, tmp_path / "per_coin" / "ETHUSDT", symlinks=True)
    with pytest.raises(InvalidArtifactError, match="it belongs to BTCUSDT 15m"):
        artifact.load_artifact(tmp_path, "ETHUSDT", TIMEFRAME)


def test_a_newer_format_is_refused_by_its_number(tmp_path):
    path = export(tmp_path) / MANIFEST_FILE
    content = json.loads(path.read_text()) | {"format_version": 12}
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidArtifactError, match="format version 12 is newer than 7; upgrade"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"null", b"{}" * 2])
def test_a_manifest_that_is_none_is_refused(tmp_path, content):
    (export(tmp_path) / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(InvalidArtifactError, match=r"meta\.json"):
        load(tmp_path)


def test_a_malicious_scaler_is_never_executed(tmp_path):
    hit = tmp_path / "hit"
    trap = pickle.dumps(Trap(hit))
    # The trap works; so the folder's absence below means that nobody sprang it.
    pickle.loads(trap)
    hit.rmdir()
    folder = export(tmp_path)
    intact = (folder / "scaler.pkl").read_bytes()
    (folder / "scaler.pkl").write_bytes(trap)
    with pytest.raises(InvalidArtifactError, match=r"scaler\.pkl was changed"):
        load(tmp_path)
    (folder / "scaler.pkl").write_bytes(intact)
    forge(folder, scaler=trap)
    assert check_whole(load(tmp_path)) == 0.5
    assert not hit.exists()


@pytest.mark.parametrize("wrap", [saved, pickle.dumps, lambda trap: saved({"w": trap})])
def test_a_malicious_weight_file_is_refused_and_never_executed(tmp_path, wrap):
    hit = tmp_path / "hit"
    trap = wrap(Trap(hit))
    folder = export(tmp_path)
    intact = (folder / "cnn_lstm_v1.pth").read_bytes()
    (folder / "cnn_lstm_v1.pth").write_bytes(trap)
    with pytest.raises(InvalidArtifactError, match=r"cnn_lstm_v1\.pth was changed"):
        load(tmp_path)
    (folder / "cnn_lstm_v1.pth").write_bytes(intact)
    forge(folder, weights=trap)
    with pytest.raises(InvalidArtifactError, match="holds no weights that are safe to load"):
        load(tmp_path)
    assert not hit.exists()


NOT_WEIGHTS = {
    "a list": [torch.zeros(2)],
    "nothing": {},
    "a text": {"w": "zeros"},
    "a nested dict": {"state_dict": state_dict()},
    "a key that is no name": {1: torch.zeros(2)},
    "an expanded tensor": {"w": torch.zeros(1).expand(10**12)},
    "a sparse tensor": {"w": torch.zeros(10, 10).to_sparse()},
    "a tensor of no device": {"w": torch.empty(10**12, device="meta")},
    "complex numbers": {"w": torch.zeros(3, dtype=torch.complex64)},
}


@pytest.mark.parametrize("content", NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
def test_a_weight_file_that_holds_something_else_is_refused(tmp_path, content):
    forge(export(tmp_path), weights=saved(content))
    with pytest.raises(InvalidArtifactError, match=r"cnn_lstm_v1\.pth holds"):
        load(tmp_path)


@pytest.fixture(scope="module")
def weights() -> bytes:
    return saved(state_dict())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_broken_weights_with_a_right_hash_never_crash_the_reader(tmp_path, weights, changes):
    broken = bytearray(weights)
    for position, value in changes:
        broken[position % len(broken)] = value
    market = artifact.MarketFolder(tmp_path, SYMBOL, TIMEFRAME)
    try:
        loaded = load_weights(market, "cnn_lstm_v1.pth", bytes(broken))
    except InvalidArtifactError:
        return
    assert all(torch.isfinite(tensor).all() for tensor in loaded.values())


@pytest.mark.parametrize("target", ["{elsewhere}", "../../../elsewhere", ".versions/15m/..", "/"])
def test_a_link_that_leads_out_is_refused(tmp_path, target):
    folder = export(tmp_path / "models")
    shutil.copytree(folder, tmp_path / "elsewhere")
    link = tmp_path / "models" / "per_coin" / SYMBOL / "15m"
    link.unlink()
    link.symlink_to(target.format(elsewhere=tmp_path / "elsewhere"))
    with pytest.raises(InvalidArtifactError, match=r"leads to .*, which is no version of it"):
        load(tmp_path / "models")


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_folder_on_the_way_that_is_a_link_out_is_refused(tmp_path, level):
    folder = export(tmp_path / "models")
    way = [folder, *folder.parents][level]
    way.rename(tmp_path / "elsewhere")
    way.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidArtifactError, match="leads out of the models folder"):
        load(tmp_path / "models")


def test_a_version_under_the_name_of_another_is_refused(tmp_path):
    old, new = export(tmp_path, 1.0), export(tmp_path, 2.0)
    shutil.rmtree(new)
    old.rename(new)
    with pytest.raises(InvalidArtifactError, match=f"{new.name} holds the files of {old.name}"):
        load(tmp_path)


def test_a_served_version_that_is_gone_is_told(tmp_path):
    folder = export(tmp_path)
    shutil.rmtree(folder)
    with pytest.raises(InvalidArtifactError, match=f"the served version {folder.name} is gone"):
        load(tmp_path)


def test_a_models_folder_behind_a_link_may_be_used(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    export(tmp_path / "models")
    assert check_whole(load(tmp_path / "models")) == 0.5


def test_a_copy_with_its_links_followed_can_be_read(tmp_path):
    export(tmp_path / "models")
    served = tmp_path / "models" / "per_coin" / SYMBOL / "15m"
    shutil.copytree(served, tmp_path / "copy" / "per_coin" / SYMBOL / "15m")
    assert check_whole(load(tmp_path / "copy")) == 0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_never_replace_a_model(tmp_path, bad):
    export(tmp_path, 0.5)
    for best, served in [(bad, 0.1), (0.1, bad)]:
        with pytest.raises(InvalidArtifactError, match=r"\.pth holds a value that is not finite"):
            artifact.export_artifact(
                tmp_path, draft(), state_dict(best), state_dict(served), record()
            )
    assert check_whole(load(tmp_path)) == 0.5


def test_loading_imports_neither_sklearn_nor_the_training(tmp_path):
    export(tmp_path)
    code = (
        "import sys, pathlib; from percoin.registry.artifact import load_artifact\n"
        "load_artifact(pathlib.Path(sys.argv[1]), 'BTCUSDT', '15m')\n"
        "heavy = {'sklearn', 'joblib', 'lightning', 'hydra', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_hashes_of_the_manifest_are_those_of_the_files(tmp_path):
    folder = export(tmp_path)
    files = json.loads((folder / MANIFEST_FILE).read_text())["files"]
    assert set(files) == set(HASHED_FILES)
    for name, sha256 in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
