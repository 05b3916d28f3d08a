import hashlib
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import trained_registry
from trained_registry import SIMULATED, SYMBOL, TIMEFRAME, add_version, market, served, train_one

from percoin.assembly import label_rule
from percoin.bars.store import BarStore
from percoin.cli import EXIT_USAGE, compose_config
from percoin.config import CONF_DIR, TrainConfig, typed
from percoin.errors import InvalidArtifactError
from percoin.provenance import code_version, library_versions, machine_facts
from percoin.registry.artifact import load_artifact
from percoin.registry.command import reproduction
from percoin.registry.command.actions import EXIT_FOUND
from percoin.training.pipeline import prepare

REPRODUCE = ("reproduce", f"symbol={SYMBOL}", f"tf={TIMEFRAME.value}")
PARTS = ["weights", "scaling", "calibration", "training history", "test metrics"]


def contents(folder: Path) -> dict[str, str]:
    """Every path below ``folder`` with a hash of what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes() if path.is_file() else b""
        ).hexdigest()
        for path in folder.rglob("*")
    }


def config_of(folder: Path) -> dict:
    return dict(load_artifact(folder / "models", SYMBOL, TIMEFRAME).manifest.config)


def test_a_model_trained_again_is_the_same_bit_for_bit_and_nothing_else_changes(
    call, trained, capsys, tmp_path, monkeypatch
):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    before = contents(trained)
    assert call(trained, *REPRODUCE) == 0
    lines = capsys.readouterr().out.splitlines()

    assert lines[0] == f"BTCUSDT 1h {served(trained)}: the same, bit for bit"
    assert lines[1] == "  weights           same: 52 tensors, 1,851 numbers"
    assert [line.split(":")[0].rpartition(" ")[0].strip() for line in lines[1:6]] == PARTS
    assert lines[6:] == ["  code, libraries, bars and machine are those of the manifest"]
    assert contents(trained) == before
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["blend=logistic"], ["weights", "scaling", "calibration", "regression", "blend"]),
        (["model=logistic"], ["scaling", "calibration", "regression"]),
    ],
)
def test_the_numbers_of_a_regression_are_compared_too(call, tmp_path, capsys, overrides, parts):
    train_one(tmp_path, *overrides)
    assert call(tmp_path, *REPRODUCE, "output=json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_same"]
    compared = [entry["part"] for entry in found["compared"]]
    assert compared == [*parts, "training history", "test metrics"]

    # Only in the registry's version: its own last bit is another one.
    regression = load_artifact(tmp_path / "models", SYMBOL, TIMEFRAME).manifest.regression
    first, *rest = regression.intercept
    other = replace(regression, intercept=(math.nextafter(first, 1), *rest))
    add_version(tmp_path, regression=other)
    assert call(tmp_path, *REPRODUCE, "output=json") == EXIT_FOUND
    found = json.loads(capsys.readouterr().out)
    assert [e["part"] for e in found["compared"] if not e["is_same"]] == ["regression"]


JUDGED = ("scaling", "calibration")
BOTH = "blend=volatility+boosting"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "parts", "files"),
    [
        # Here all weight goes to the trees, and there to the volatility.
        ([BOTH, "labels=triple_barrier"], ["weights", *JUDGED, "combination"], ("boosting.json",)),
        ([BOTH, "labels.threshold=0.002"], ["weights", *JUDGED, "combination"], ()),
        (["model=boosting"], [*JUDGED, "last_row"], ("boosting.json",)),
        (["model=volatility"], [*JUDGED, "last_row"], ()),
    ],
)
def test_trees_and_volatility_come_out_the_same(call, tmp_path, capsys, overrides, parts, files):
    train_one(tmp_path, *overrides)
    manifest = load_artifact(tmp_path / "models", SYMBOL, TIMEFRAME).manifest
    assert manifest.tree_files == files
    assert manifest.weights.get("network", 0.0) == 0.0
    assert call(tmp_path, *REPRODUCE, "output=json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_same"]
    compared = [entry["part"] for entry in found["compared"]]
    assert compared == [*parts, *files, "training history", "test metrics"]


def test_another_seed_gives_another_model_and_every_part_says_so(call, trained, capsys):
    add_version(trained, config=config_of(trained) | {"seed": 1}, seed=1)
    assert call(trained, *REPRODUCE, *SIMULATED, "output=json") == EXIT_FOUND
    found = json.loads(capsys.readouterr().out)

    assert not found["is_same"]
    parts = {entry["part"]: entry for entry in found["compared"]}
    assert list(parts) == PARTS
    assert [name for name in parts if not parts[name]["is_same"]] == [
        "weights",
        "calibration",
        "training history",
        "test metrics",
    ]
    assert " tensors, by up to " in parts["weights"]["detail"]
    assert "log_loss" in parts["test metrics"]["detail"]
    assert found["changed"] == []


def test_other_bars_are_told_and_nothing_is_trained(call, trained, capsys):
    store = BarStore(trained / "data" / "bars")
    bars = store.load(SYMBOL, TIMEFRAME)
    frame = bars.frame.copy()
    frame.iloc[500, frame.columns.get_loc("volume")] *= 1.001
    (trained / "data").rename(trained / "before")
    type(store)(trained / "data" / "bars").write(type(bars)(SYMBOL, TIMEFRAME, frame, bars.origin))
    assert call(trained, *REPRODUCE) == EXIT_FOUND
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "not trained again, because the bars are not those of the manifest" in lines[0]
    assert lines[1].startswith("  changed since then: bars: 1390 from simulated")
    assert call(trained, *REPRODUCE, "data_dir=nowhere") == 1
    assert "BTCUSDT 1h: " in capsys.readouterr().err


def test_what_has_changed_since_is_named_even_if_the_bits_are_the_same(call, trained, capsys):
    facts = machine_facts() | {"cpu": "another one"}
    libraries = library_versions() | {"torch": "1.0", "abandoned": "2.0"}
    add_version(trained, code_version="0.0.1+0123456789ab", libraries=libraries, machine=facts)
    assert call(trained, *REPRODUCE) == 0
    out = capsys.readouterr().out
    assert "the same, bit for bit" in out
    now = library_versions()["torch"]
    changed = [line for line in out.splitlines() if "changed since then" in line]
    assert [line.partition(": ")[2] for line in changed] == [
        f"code: 0.0.1+0123456789ab -> {code_version()}",
        f"library torch: 1.0 -> {now}",
        "library abandoned: 2.0 -> -",
        f"machine cpu: another one -> {machine_facts()['cpu']}",
    ]


@pytest.mark.slow
def test_a_walk_forward_is_trained_again_fold_by_fold(call, tmp_path, capsys):
    train_one(tmp_path, "evaluation=walk_forward", "folds=2", "split.train=0.5", "split.test=0.35")
    assert call(tmp_path, *REPRODUCE) == 0
    assert "the same, bit for bit" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["model=logistic"],
        ["evaluation=walk_forward", "folds=2", "split.train=0.5", "split.test=0.35"],
    ],
)
def test_a_model_that_a_search_chose_is_judged_on_the_same_rows_again(
    call, tmp_path, capsys, monkeypatch, overrides
):
    def searched(settings, load):
        """The settings of a search that saw the first rows of the test part."""
        recipe = prepare(settings, load)
        first, *others = recipe.folds
        fresh = first.tested_on(first.rows("test")[5:])
        return replace(recipe, folds=[fresh, *others])

    with monkeypatch.context() as patch:
        patch.setattr(trained_registry, "prepare", searched)
        train_one(tmp_path, *overrides)
    assert call(tmp_path, *REPRODUCE) == 0
    assert "the same, bit for bit" in capsys.readouterr().out


def test_settings_of_another_percoin_are_told_with_the_code_that_knows_them(call, trained, capsys):
    config = config_of(trained) | {"momentum": 0.9}
    add_version(trained, config=config, code_version="0.0.1+0123456789ab")
    assert call(trained, *REPRODUCE) == EXIT_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "momentum" in line
    assert line.endswith("use the code that made it, 0.0.1+0123456789ab")


# A rule of the user's own needs its code.
@pytest.mark.parametrize(
    "option", sorted({path.stem for path in (CONF_DIR / "labels").glob("*.yaml")} - {"own"})
)
def test_a_label_rule_is_composed_by_its_kind(option):
    pool = ["symbol='BTCUSDT,ETHUSDT'", "recipe=pooled"]
    words = [*(pool if option == "relative" else ["symbol=BTCUSDT"]), f"labels={option}"]
    settings = typed(compose_config("train", words), TrainConfig)
    assert label_rule(settings.labels).kind == settings.labels.option == option


@pytest.mark.parametrize(
    ("machine", "workers", "expected"),
    [
        ({"threads": "3"}, 1, 3),
        ({"threads": "many"}, 2, 2),
        ({"threads": "100000"}, 2, 2),
        (None, 2, 2),
        ({}, None, None),
    ],
)
def test_as_many_threads_are_used_as_then_if_that_is_known(trained, machine, workers, expected):
    config = config_of(trained) | {"workers": workers}
    add_version(trained, config=config, machine=machine)
    manifest = load_artifact(trained / "models", SYMBOL, TIMEFRAME).manifest
    assert reproduction._threads(manifest) == expected


def test_a_machine_that_was_not_noted_is_told(trained):
    add_version(trained, machine=None)
    artifact = load_artifact(market(trained).root, SYMBOL, TIMEFRAME)
    bars = BarStore(trained / "data" / "bars").load(SYMBOL, TIMEFRAME)
    settings = typed(compose_config("train", [f"symbol={SYMBOL}"]), TrainConfig)
    found = {
        entry.name: entry for entry in reproduction._changes(artifact.manifest, bars, settings)
    }
    assert found["machine"].then == "not recorded"
    assert found["bars"].now.startswith("1440 from")


def test_figures_that_cannot_be_read_are_told_before_anything_is_trained(
    call, trained, capsys, monkeypatch
):
    def broken(*_args):
        raise InvalidArtifactError(SYMBOL, TIMEFRAME, "metrics.json cannot be read", "train again")

    monkeypatch.setattr(reproduction, "_record", broken)
    monkeypatch.setattr(reproduction, "train", lambda *_: pytest.fail("it trains"))
    assert call(trained, *REPRODUCE) == 1
    assert capsys.readouterr().err == (
        "error: BTCUSDT 1h: metrics.json cannot be read; train again\n"
    )
