"""What sizes something in a version is held to a bound before it is read, unpacked or built."""

import io
import json
import os
import pickle
import time
import zipfile

import pytest
import torch
from artifact_builders import GOLDEN, SYMBOL, TIMEFRAME, draft, export, forge, load, state_dict
from hostile_files import saved_weights

from percoin.errors import InvalidArtifactError
from percoin.network import CnnLstm
from percoin.registry import bounds, publish
from percoin.registry.catalogue import check_market
from percoin.registry.contents import read_files, read_manifest
from percoin.registry.layout import (
    HASHED_FILES,
    MANIFEST_FILE,
    METRICS_FILE,
    SERVED_WEIGHTS_FILE,
    MarketFolder,
)
from percoin.registry.manifest import Manifest, ModelSpec
from percoin.registry.weights import load_weights

FIFTY_GB = 50 * 10**9
SMALL = {"channels": (3, 5, 7), "hidden_size": 6, "n_layers": 3, "n_heads": 2, "head_sizes": (4, 2)}


@pytest.mark.parametrize("kwargs", [{}, SMALL, SMALL | {"n_layers": 1}, {"hidden_size": 8}])
def test_the_weights_are_counted_as_the_network_has_them(kwargs):
    bounds.check_network(kwargs, 15)
    state = CnnLstm(15, **kwargs).state_dict()
    n_numbers = sum(tensor.numel() for name, tensor in state.items() if "num_batches" not in name)
    assert bounds.count_weights(kwargs, 15) == n_numbers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layers", 1_000_000),
        ("n_layers", 0),
        ("n_layers", 2.0),
        ("n_layers", True),
        ("n_heads", 0),
        ("hidden_size", 10**30),
        ("hidden_size", "100"),
        ("hidden_size", 20_000),
        ("channels", [64, 128]),
        ("channels", [64, 128, 10**9]),
        ("channels", [65_536, 65_536, 65_536]),
        ("head_sizes", [[1], 2]),
        ("head_sizes", 128),
    ],
)
def test_a_manifest_whose_network_nobody_trains_is_refused(name, value):
    content = json.loads((GOLDEN / "format_1/per_coin/BTCUSDT/15m" / MANIFEST_FILE).read_text())
    content["model"]["kwargs"] = SMALL | {name: value}
    began = time.monotonic()
    with pytest.raises(InvalidArtifactError, match=f"BTCUSDT 15m: .*({name}|weights)"):
        Manifest.from_json(json.dumps(content), SYMBOL, TIMEFRAME)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lookback": 10**9}, "lookback 1000000000 is no number of bars"),
        ({"label_rule": {"kind": "fixed_horizon", "horizon": 10**15}}, r"label_rule\.horizon"),
        ({"label_rule": {"kind": "fixed_horizon", "width": -1e300}}, r"label_rule\.width"),
    ],
)
def test_numbers_of_bars_have_an_end(change, said):
    with pytest.raises(ValueError, match=said):
        draft(**change)


def sparse(path) -> None:
    """A file of 50 GB that takes no room."""
    os.truncate(path, FIFTY_GB)


@pytest.mark.parametrize("name", [*HASHED_FILES, MANIFEST_FILE])
def test_a_file_of_50_gb_is_refused_by_its_size_in_every_reader(tmp_path, monkeypatch, name):
    folder = export(tmp_path)
    market = MarketFolder(tmp_path, SYMBOL, TIMEFRAME)
    sparse(folder / name)
    monkeypatch.setattr(publish.os, "fdopen", _refusing_to_read(name, os.fdopen))
    said = rf"{name} has {FIFTY_GB} bytes, more than the \d+ that it may have"
    with pytest.raises(InvalidArtifactError, match=said):
        load(tmp_path)
    problems = {check.subject: check.problem for check in check_market(market)}
    assert str(FIFTY_GB) in problems["served"]
    assert str(FIFTY_GB) in problems[folder.name]


def _refusing_to_read(name, fdopen):
    """Opens files as ever, but dies where one of 50 GB would be read."""

    def opened(descriptor, *args, **kwargs):
        file = fdopen(descriptor, *args, **kwargs)
        if os.fstat(descriptor).st_size == FIFTY_GB:
            file.read = lambda *_: pytest.fail(f"{name} was read")
        return file

    return opened


def test_no_file_is_read_before_all_are_known_to_fit_the_manifest(tmp_path, monkeypatch):
    folder = export(tmp_path, model=ModelSpec(SMALL))
    market = MarketFolder(tmp_path, SYMBOL, TIMEFRAME)
    manifest = read_manifest(market, folder)
    # Far below what any weight file may have, and far beyond what this network's could.
    os.truncate(folder / SERVED_WEIGHTS_FILE, 20_000_000)
    monkeypatch.setattr(publish, "read_file", lambda *_: pytest.fail("a file was read"))
    with pytest.raises(InvalidArtifactError, match=r"cnn_lstm_v1\.pth has 20000000 bytes"):
        read_files(market, folder, manifest)


def test_a_file_that_grows_while_it_is_read_is_not_read_on(tmp_path, monkeypatch):
    folder = export(tmp_path)
    market = MarketFolder(tmp_path, SYMBOL, TIMEFRAME)
    fstat = os.fstat

    def grow(descriptor):
        status = fstat(descriptor)
        os.truncate(folder / METRICS_FILE, 100_000_000)
        return status

    before = (folder / METRICS_FILE).read_bytes()
    monkeypatch.setattr(publish.os, "fstat", grow)
    assert publish.read_file(market, folder, METRICS_FILE) == before


def compressed(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as before,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for part in before.infolist():
            after.writestr(part.filename, before.read(part))
    return buffer.getvalue()


def test_compressed_weights_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    bomb = compressed(saved_weights({"w": torch.zeros(2_000_000)}))
    assert len(bomb) < 20_000
    forge(export(tmp_path), weights=bomb)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(
        InvalidArtifactError, match=r"cnn_lstm_v1\.pth holds no .*: it is compressed"
    ):
        load(tmp_path)


class Asks:
    """Pickles as a call of something that torch holds safe, and that takes memory."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        saved_weights({"w": Asks(bytearray, 10)}),
        pickle.dumps({"w": 1}),
        saved_weights({"w": torch.zeros(2)})[:-30],
        b"",
    ],
    ids=["bytearray", "a bare pickle", "cut short", "nothing"],
)
def test_weights_that_are_more_than_names_and_numbers_never_reach_torch(monkeypatch, content):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(InvalidArtifactError, match=r"w\.pth holds no weights that are safe"):
        load_weights(MarketFolder("models", SYMBOL, TIMEFRAME), "w.pth", content)


def test_parts_that_share_their_bytes_are_refused(monkeypatch):
    """An archive whose directory names one part many times unpacks to more than it is."""
    buffer = io.BytesIO()
    plain = saved_weights(state_dict())
    with (
        zipfile.ZipFile(io.BytesIO(plain)) as before,
        zipfile.ZipFile(buffer, "w") as after,
    ):
        for part in before.infolist():
            after.writestr(part.filename, before.read(part))
        data = next(part for part in after.infolist() if part.filename.endswith("data/0"))
        after.filelist += [data] * 2_000
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(InvalidArtifactError, match="its parts are larger than the file"):
        load_weights(MarketFolder("models", SYMBOL, TIMEFRAME), "w.pth", buffer.getvalue())
