import json
import os
import shutil
import subprocess
import sys

import pytest
from hostile_files import vouch_for
from report_builders import export, judged, losses, registry

from percoin import json_codec
from percoin.errors import ConfigError, ModelNotFoundError
from percoin.evaluation.backtest import Exit
from percoin.registry.layout import MarketFolder
from percoin.registry.revision import withdraw_acceptance
from percoin.report import reading
from percoin.report.reading import read_models, read_version
from percoin.types import Timeframe


def only(root):
    (model,) = read_models(root)
    return model


def test_a_judged_model_comes_with_manifest_evaluation_and_how_it_was_judged(tmp_path):
    evaluation = judged()
    judging = {"threshold": 0.41, "folds": 5, "fee_bps": 5.0}
    export(tmp_path, sections={"evaluation": evaluation.to_json(), "judging": judging})

    model = only(tmp_path)

    assert model.name == "BTCUSDT 15m"
    assert model.manifest.seed == 42
    assert model.evaluation.to_json() == json.loads(json.dumps(evaluation.to_json()))
    assert (model.judging.n_folds, model.judging.threshold) == (5, 0.41)
    assert model.problem == ""


def test_exit_and_levels_are_read_and_older_models_closed_where_the_label_ends(tmp_path):
    share = {"value": 0.25, "lower": 0.2, "upper": 0.3}
    levels = {"n_signals": 700} | dict.fromkeys(("stop_loss", "tp1", "tp2", "tp3"), share)
    sections = {"evaluation": judged().to_json(), "judging": {"exit": "levels"}, "levels": levels}
    export(tmp_path / "new", sections=sections)
    export(tmp_path / "old", sections={"evaluation": judged().to_json(), "levels": {}})

    new, old = only(tmp_path / "new").judging, only(tmp_path / "old").judging
    assert (new.exit, new.levels.n_signals) == (Exit.LEVELS, 700)
    assert (old.exit, old.levels) == (Exit.HORIZON, None)


def test_all_models_are_read_whatever_is_wrong_with_some(tmp_path):
    problems = {model.name: model.problem for model in read_models(registry(tmp_path))}

    assert list(problems) == sorted(problems, key=lambda name: name.split()[0])
    assert problems.pop("ADAUSDT 15m") == "metrics.json was changed after the export"
    assert "is gone" in problems.pop("POLUSDT 4h")
    assert "before models were judged" in problems.pop("XRPUSDT 15m")
    assert problems == dict.fromkeys(["BTCUSDT 15m", "BTCUSDT 1h", "ETHUSDT 15m", "SOLUSDT 1d"], "")


@pytest.mark.parametrize(
    ("symbol", "timeframe", "names"),
    [
        ("BTCUSDT", None, ["BTCUSDT 15m", "BTCUSDT 1h"]),
        (None, Timeframe.H1, ["BTCUSDT 1h"]),
        ("BTCUSDT", Timeframe.M15, ["BTCUSDT 15m"]),
    ],
)
def test_some_of_the_models_can_be_asked_for(tmp_path, symbol, timeframe, names):
    export(tmp_path, "BTCUSDT", "15m")
    export(tmp_path, "BTCUSDT", "1h")
    export(tmp_path, "ETHUSDT", "15m")

    assert [model.name for model in read_models(tmp_path, symbol, timeframe)] == names


def test_the_one_model_that_was_asked_for_is_missing(tmp_path):
    export(tmp_path, "ETHUSDT")

    with pytest.raises(ModelNotFoundError, match=r"BTCUSDT 1h: no model exported"):
        read_models(tmp_path, "BTCUSDT", Timeframe.H1)


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_without_models_is_named_with_the_way_out(tmp_path, folder):
    with pytest.raises(
        ConfigError,
        match=r"holds no model; train one \(python train.py symbol=BTCUSDT tf=15m models_dir=",
    ):
        read_models(tmp_path / folder)


def test_folders_that_are_no_market_are_passed_over(tmp_path):
    export(tmp_path)
    (tmp_path / "per_coin" / "notes" / "15m").mkdir(parents=True)
    (tmp_path / "per_coin" / "README.md").write_text("notes")
    (tmp_path / "per_coin" / "BTCUSDT" / "2h").mkdir()

    assert only(tmp_path).name == "BTCUSDT 15m"


@pytest.mark.parametrize(
    ("evaluation", "problem"),
    [
        (None, "its evaluation cannot be read: Expected `object`, got `null`"),
        ({"model": 1}, "its evaluation cannot be read: model: Expected `object`, got `int`"),
        ([], "its evaluation cannot be read"),
    ],
)
def test_an_evaluation_that_cannot_be_read_leaves_the_manifest(tmp_path, evaluation, problem):
    export(tmp_path, sections={"evaluation": evaluation})

    model = only(tmp_path)

    assert problem in model.problem
    assert model.manifest is not None
    assert model.evaluation is None


@pytest.mark.parametrize(
    "judging",
    [None, [], "x", {"threshold": "high", "folds": "5"}, {"threshold": True, "folds": -1}],
)
def test_the_figures_stand_without_knowing_how_they_were_judged(tmp_path, judging):
    sections = {"evaluation": judged(n_rows=100).to_json(), "judging": judging}
    export(tmp_path, sections=sections)

    model = only(tmp_path)

    assert model.evaluation is not None
    assert (model.judging.n_folds, model.judging.threshold) == (1, None)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1", b"{}", b"null"])
def test_a_manifest_that_is_none_makes_a_broken_model(tmp_path, content):
    (export(tmp_path) / "meta.json").write_bytes(content)

    model = only(tmp_path)

    assert model.manifest is None
    assert model.problem.startswith("meta.json: ")


def test_changed_weights_make_a_broken_model(tmp_path):
    (export(tmp_path) / "cnn_lstm_v1.pth").write_bytes(b"other")

    assert only(tmp_path).problem == "cnn_lstm_v1.pth was changed after the export"


def test_a_manifest_of_another_market_makes_a_broken_model(tmp_path):
    export(tmp_path, "BTCUSDT")
    (tmp_path / "per_coin" / "BTCUSDT").rename(tmp_path / "per_coin" / "ETHUSDT")

    assert only(tmp_path).problem == "meta.json: it belongs to BTCUSDT 15m"


def test_the_files_of_a_version_under_another_versions_name_make_a_broken_model(tmp_path):
    folder = export(tmp_path)
    other = folder.with_name("20200101T000000000000Z-" + "0" * 12)
    folder.rename(other)
    link = tmp_path / "per_coin" / "BTCUSDT" / "15m"
    link.unlink()
    link.symlink_to(f".versions/15m/{other.name}")

    assert only(tmp_path).problem == f"{other.name} holds the files of {folder.name}"


def test_reading_loads_neither_torch_nor_the_training_libraries():
    code = "import sys, percoin.report.__main__; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )

    assert {"torch", "lightning", "sklearn", "scipy", "matplotlib"} & set(
        loaded.stdout.split()
    ) == set()


def test_losses_by_day_and_the_course_of_the_training_come_along(tmp_path):
    export(tmp_path, evaluation=judged(n_rows=200), daily=losses())

    course = only(tmp_path).course

    assert course.daily == losses()
    assert course.val_loss == (1.0,)


@pytest.mark.parametrize(
    "section",
    [
        None,
        [],
        {"days": ["2025-01-02"]},
        json.loads(json_codec.dumps(losses(n_days=2))) | {"days": ["2025-01-02"] * 2},
    ],
)
def test_losses_that_cannot_be_read_are_as_good_as_none(tmp_path, section):
    evaluation = judged(n_rows=200).to_json()
    export(tmp_path, sections={"evaluation": evaluation, "daily_losses": section})

    assert only(tmp_path).course.daily is None
    assert only(tmp_path).problem == ""


def test_a_newer_version_that_is_not_served_is_mentioned(tmp_path):
    good = judged(n_rows=400)
    served = export(tmp_path, evaluation=good)
    export(tmp_path, evaluation=judged(constant=True, n_rows=200))
    newer = export(tmp_path, evaluation=judged(constant=True, n_rows=200))

    assert only(tmp_path).manifest.version_id == served.name
    assert only(tmp_path).standing.startswith(f"version {newer.name} of ")
    assert only(tmp_path).standing.endswith(" (rejected) is not served")


def test_any_version_can_be_read_and_says_which_one_is_served(tmp_path):
    served = export(tmp_path, evaluation=judged(n_rows=400))
    newer = export(tmp_path, evaluation=judged(constant=True, n_rows=200))
    market = MarketFolder(tmp_path, "BTCUSDT", Timeframe.M15)

    model = read_version(market, newer.name)

    assert model.manifest.version_id == newer.name
    assert model.standing.startswith(f"it is not served, version {served.name} of ")
    assert model.standing.endswith(" (accepted) is")
    assert read_version(market, "../../x").problem == "there is no version ../../x"


def test_a_withdrawn_acceptance_is_mentioned(tmp_path):
    folder = export(tmp_path, evaluation=judged(n_rows=400))
    withdraw_acceptance(tmp_path, "BTCUSDT", Timeframe.M15, folder.name, "luck")
    market = MarketFolder(tmp_path, "BTCUSDT", Timeframe.M15)

    assert read_version(market, folder.name).standing.endswith("; its acceptance was withdrawn")
    assert only(tmp_path).manifest.gate.reasons[0] == "luck"
    assert only(tmp_path).standing == ""


def test_a_model_pruned_while_it_is_read_gives_way_to_the_one_served_then(tmp_path, monkeypatch):
    first, second = (export(tmp_path, evaluation=judged(n_rows=300), seed=seed) for seed in (1, 2))
    market = MarketFolder(tmp_path, "BTCUSDT", Timeframe.M15)
    read_saved = reading.read_saved

    def prune_before(where, folder):
        if folder == second.resolve():
            market.link.unlink()
            market.link.symlink_to(market.link_target(first.name))
            shutil.rmtree(folder)
        return read_saved(where, folder)

    monkeypatch.setattr(reading, "read_saved", prune_before)
    [model] = read_models(tmp_path)
    assert (model.problem, model.manifest.version_id) == ("", first.name)


@pytest.mark.parametrize("content", [b"", b"NaN", b"[" * 10_000 + b"]" * 10_000, b"[]", b"\xff"])
def test_a_record_that_is_no_json_leaves_the_manifest_and_the_other_markets(tmp_path, content):
    export(tmp_path, "ETHUSDT", evaluation=judged(n_rows=300))
    folder = export(tmp_path, "BTCUSDT", evaluation=judged(n_rows=300))
    vouch_for(MarketFolder(tmp_path, "BTCUSDT", Timeframe.M15), folder, {"metrics.json": content})
    broken, whole = read_models(tmp_path)
    assert broken.manifest is not None
    assert broken.problem.startswith("metrics.json cannot be read: ")
    assert (whole.symbol, whole.problem) == ("ETHUSDT", "")


@pytest.mark.parametrize("call", ["listdir", "readlink"])
def test_a_market_that_the_system_refuses_to_read_leaves_the_others(tmp_path, monkeypatch, call):
    for symbol in ("BTCUSDT", "ETHUSDT"):
        export(tmp_path, symbol, evaluation=judged(n_rows=300))
    real = getattr(os, call)

    def refuse(path, *args, **kwargs):
        if "BTCUSDT" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, call, refuse)
    refused, whole = read_models(tmp_path)
    assert "cannot be read: Permission denied" in refused.problem + refused.standing
    assert (whole.symbol, whole.problem, whole.standing) == ("ETHUSDT", "", "")
