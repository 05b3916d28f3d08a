import shlex
import sys
from dataclasses import replace

import optuna
import pytest
from hydra.core.hydra_config import HydraConfig
from tuning_builders import SEARCH, TINY, make_space, tuning

from percoin.cli import Composed, compose_config, run_jobs
from percoin.config import FixedHorizonConfig, TrainConfig, TripleBarrierConfig, typed
from percoin.errors import ConfigError
from percoin.training.run_files import RunContext
from percoin.tuning.space import SearchSpace, command_for

BASES = [
    (),
    ("labels.horizon=5", "split.purge_bars=9", "split.embargo_bars=0", "model=cnn_lstm_half"),
    ("labels=triple_barrier", "labels.volatility_bars=20", "lr=0.0123456", "lookback=200"),
    ("labels.threshold=0.5", "model.dropout=0.7", "trials=4", "looks=2"),
    ("labels=volatility_scaled",),
    ("labels=volatility_scaled", "labels.width=0.7", "experiment.space.labels=[]"),
    ("tf.threshold=0.9",),
    ("experiment.space.labels=[]", "labels.horizon=2", "tf.threshold=0.01"),
]


def proposals(space: SearchSpace, n: int = 6) -> list:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(n)]


@pytest.mark.parametrize("base", BASES)
def test_the_own_settings_are_a_point_of_the_space(base):
    space = make_space(*base)
    assert space.settings(space.candidate(space.own())) == space.base
    assert space.base.experiment is None


@pytest.mark.parametrize("base", BASES)
def test_the_command_of_a_proposal_makes_its_very_settings(base):
    settings = tuning(*base)
    space = SearchSpace(settings, settings.experiment.space)
    for candidate in proposals(space, 3):
        chosen = space.settings(candidate)
        command = command_for([*TINY, *SEARCH, *base], settings, chosen)
        python, program, *words = shlex.split(command)
        assert (python, program) == ("python", "train.py")
        assert len({word.partition("=")[0] for word in words}) == len(words)
        assert typed(compose_config("train", words), TrainConfig) == chosen


def test_purge_and_embargo_follow_the_horizon_of_every_proposal():
    space = make_space()
    horizons = set()
    for candidate in proposals(space, 20):
        split = space.settings(candidate).split
        assert split.purge_bars == split.embargo_bars == candidate.labels.horizon
        horizons.add(candidate.labels.horizon)
    assert len(horizons) > 3


def test_a_purge_that_the_command_asks_for_is_kept_but_never_shorter_than_the_horizon():
    space = make_space("split.purge_bars=9", "split.embargo_bars=0")
    for candidate in proposals(space, 20):
        split = space.settings(candidate).split
        assert split.purge_bars == max(9, candidate.labels.horizon)
        assert split.embargo_bars == 0


def test_proposals_keep_to_their_ranges_and_to_three_digits():
    space = make_space()
    kinds = set()
    for candidate in proposals(space, 40):
        assert 1e-4 <= candidate.lr <= 1e-2
        assert 0 <= candidate.dropout <= 0.5
        assert candidate.width in {0.25, 0.5, 1.0}
        assert 6 <= candidate.lookback <= 20
        assert float(f"{candidate.lr:.3g}") == candidate.lr
        labels = candidate.labels
        kinds.add(type(labels))
        if isinstance(labels, FixedHorizonConfig):
            assert 1 <= labels.horizon <= 12
            assert 0.0025 <= labels.threshold <= 0.01  # 0.5 to 2 times that of 1h
        else:
            assert 4 <= labels.horizon <= 24
            assert 0.5 <= labels.barrier_width <= 2
            assert labels.volatility_bars == 50
    assert kinds == {FixedHorizonConfig, TripleBarrierConfig}


def test_every_width_is_a_network_whose_heads_share_its_states_evenly():
    space = make_space(
        "experiment.space.width=[0.1,0.3,0.77,3]", "model=cnn_lstm", "model.n_heads=4"
    )
    widths = {candidate.width: candidate for candidate in proposals(space, 40)}
    assert set(widths) == {0.1, 0.3, 0.77, 1.0, 3.0}
    for width, candidate in widths.items():
        model = space.settings(candidate).model
        assert (2 * model.hidden_size) % model.n_heads == 0
        assert model.hidden_size == pytest.approx(width * space.base.model.hidden_size, abs=2)


def test_labels_can_be_left_alone():
    space = make_space("experiment.space.labels=[]", "labels.horizon=2")
    assert {str(candidate.labels) for candidate in proposals(space)} == {str(space.base.labels)}
    assert "labels" not in space.own()


def test_settings_that_contradict_each_other_are_refused():
    space = make_space()
    candidate = proposals(space, 1)[0]
    object.__setattr__(candidate, "lookback", 2)
    with pytest.raises(ConfigError, match="lookback=2"):
        space.settings(candidate)


def test_a_proposal_says_all_of_itself_in_a_line():
    space = make_space()
    assert str(space.candidate(space.own())) == (
        "lr=0.001 dropout=0.3 width=1 lookback=8 labels=fixed_horizon horizon=3 threshold=0.005"
    )


OWN_NET = ("model._target_=my_models:Net", "model.width=8", "model.kind=deep")
OWN_SPACE = "experiment.space.arguments={width:[16,32],kind:[deep,wide]}"


def own_settings(*words: str) -> TrainConfig:
    told = [word for word in TINY if not word.startswith("model.")]
    return typed(compose_config("train", [*told, *SEARCH, *OWN_NET, *words]), TrainConfig)


def test_the_arguments_of_an_own_network_are_searched_and_its_command_says_them():
    settings = own_settings(OWN_SPACE)
    space = SearchSpace(settings, settings.experiment.space)
    assert space.settings(space.candidate(space.own())) == space.base
    own = ("lr", "model.width", "model.kind", "lookback", "labels")
    assert tuple(space.own())[:5] == own
    found = set()
    for candidate in proposals(space, 8):
        chosen = space.settings(candidate)
        found.add(tuple(chosen.model.arguments.items()))
        told = [word for word in TINY if not word.startswith("model.")]
        placed = ("model=own", OWN_NET[0], "++model.arguments.width=8", "model.kind=deep")
        placed += (f"++{OWN_SPACE}",)
        words = shlex.split(command_for([*told, *SEARCH, *placed], settings, chosen))[2:]
        assert len({word.partition("=")[0] for word in words}) == len(words)
        assert typed(compose_config("train", words), TrainConfig) == chosen
    assert found <= {(("width", w), ("kind", k)) for w in (8, 16, 32) for k in ("deep", "wide")}
    assert len(found) > 2
    assert "dropout" not in str(candidate)


def test_only_what_the_command_says_of_an_own_network_can_be_searched():
    settings = own_settings("experiment.space.arguments={depth:[1,2]}")
    with pytest.raises(ConfigError, match=r"say the command's own value too, with model\.depth="):
        SearchSpace(settings, settings.experiment.space)
    with pytest.raises(ConfigError, match="and model=cnn_lstm has dropout and width"):
        make_space("experiment.space.arguments={width:[1]}")
    settings = own_settings("model.sizes=[16,32]", "experiment.space.arguments={sizes:[16,32]}")
    with pytest.raises(ConfigError, match="searches sizes, which holds several"):
        SearchSpace(settings, settings.experiment.space)


def test_a_winner_with_other_labels_leaves_nothing_of_the_users_own_rule(tmp_path):
    (tmp_path / "lab.py").write_text(
        "class Labels:\n"
        "    def __init__(self, horizon, share): pass\n"
        "    def label(self, bars): pass\n"
    )
    own = (f"plugins=[{tmp_path / 'lab.py'}]", "labels._target_=lab:Labels", "labels.share=0.4")
    settings = tuning(*own)
    space = SearchSpace(settings, settings.experiment.space)
    proposed = [space.settings(candidate) for candidate in proposals(space, 8)]
    chosen = next(each for each in proposed if each.labels.option == "fixed_horizon")
    words = shlex.split(command_for([*TINY, *SEARCH, *own], settings, chosen))[2:]
    assert not [word for word in words if "lab:" in word or "share" in word]
    assert typed(compose_config("train", words), TrainConfig) == chosen


EXPERIMENT = """# @package _global_
defaults:
  - tune@experiment
  - override /labels: volatility_scaled
  - override /tf: 4h
  - override /features: raw
  - override /logger: csv
  - override /model: cnn_lstm_half
  - override /source: simulated
  - _self_
experiment: {trials: 3, space: {lookback: [6, 20]}}
seed: 7
epochs: 4
history_days: 77
blend: volatility+moves
split: {train: 0.6, validation: 0.2, test: 0.2, purge_bars: 9}
labels: {width: 0.7, no_trade_share: 0.4}
costs: {fee_bps: 1.5}
source: {n_bars: 1000, seed: 5}
features: {extra: [clock]}
tags: [first try, "7"]
models_dir: elsewhere
pooled: {seeds: 2}
"""


def printed(line: str, n_proposals: int) -> tuple[list[tuple[TrainConfig, list[str]]], int]:
    """Proposals of a search with the words of their commands, as a run of Hydra prints them."""
    found = []

    def task(settings: TrainConfig) -> None:
        space = SearchSpace(settings, settings.experiment.space)
        overrides = list(HydraConfig.get().overrides.task)
        options = RunContext.of_hydra().choices
        for candidate in proposals(space, n_proposals):
            chosen = replace(space.settings(candidate), trials=3)
            choices = {**options, "labels": chosen.labels.option}
            words = shlex.split(command_for(overrides, settings, chosen, choices))[2:]
            found.append((chosen, words))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setattr(sys, "argv", ["train.py", *shlex.split(line)])
        code = run_jobs(task, TrainConfig, "train", sweep=print)
    return found, code


@pytest.mark.parametrize(
    ("folder", "words"), [("conf", ""), ("mine", "--config-dir mine "), ("conf", "labels.width=1 ")]
)
def test_what_an_experiment_file_says_is_in_the_command_without_the_experiment(
    tmp_path, monkeypatch, folder, words
):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / folder / "experiment"
    place.mkdir(parents=True)
    (place / "mine.yaml").write_text(EXPERIMENT)
    found, code = printed(f"{words}symbol=BTCUSDT experiment=mine lr=0.002 outputs_dir=out", 3)

    assert (code, len(found)) == (0, 3)
    for chosen, command in found:
        assert (chosen.seed, chosen.tf.name, chosen.models_dir) == (7, "4h", "elsewhere")
        assert not [word for word in command if word.startswith("experiment")]
        assert len({word.partition("=")[0] for word in command}) == len(command)
        assert "logger=csv" in command
        assert typed(compose_config("train", command), TrainConfig) == chosen


def test_a_command_without_an_experiment_file_has_no_word_that_nobody_needs():
    words = ["symbol=BTCUSDT", "experiment=tune", "source=sample"]
    composed = Composed.of("train", words)
    settings = typed(composed.config, TrainConfig)
    chosen = replace(settings, experiment=None, lr=0.004, trials=3)

    command = command_for(words, settings, chosen, composed.choices)

    assert command == "python train.py symbol=BTCUSDT source=sample lr=0.004 trials=3"


def test_code_of_your_own_that_an_experiment_file_names_is_in_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text("class Net:\n    pass\n")
    place = tmp_path / "conf" / "experiment"
    place.mkdir(parents=True)
    (place / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - tune@experiment\n  - override /model: own\n  - _self_\n"
        "plugins: [nets.py]\n"
        "model: {_target_: 'nets:Net', arguments: {width: 8, kind: '64'}}\n"
        "loss: {_target_: torch.nn.CrossEntropyLoss, arguments: {label_smoothing: 0.1}}\n"
    )
    found, code = printed("symbol=BTCUSDT experiment=mine ++model.arguments.width=16", 1)

    assert code == 0
    ((chosen, command),) = found
    assert chosen.model.arguments == {"width": 16, "kind": "64"}
    assert typed(compose_config("train", command), TrainConfig) == chosen
