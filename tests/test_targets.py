"""Words that name objects of the user's own, and how they are found and called."""

import pytest

from percoin.cli.targets import as_typed, with_targets
from percoin.config import PredictConfig, TrainConfig
from percoin.errors import ConfigError
from percoin.sweep.plan import plan_sweep
from percoin.targets import code_name, find_target


def placed(*words: str) -> list[str]:
    return with_targets(words, TrainConfig)


def test_arguments_beside_a_target_go_where_hydra_takes_them():
    assert placed("model._target_=a:B", "model.width=3", "lr=0.1") == [
        *("model=own", "model._target_=a:B", "++model.arguments.width=3", "lr=0.1")
    ]
    optimizer = ("optimizer._target_=torch.optim.SGD", "optimizer.weight_decay=0")
    assert placed(*optimizer, "optimizer.momentum=1") == [
        *(*optimizer, "++optimizer.arguments.momentum=1")
    ]
    assert with_targets(["symbol=BTCUSDT"], PredictConfig) == ["symbol=BTCUSDT"]


@pytest.mark.parametrize(
    "words",
    [
        ("loss.gamma=2",),
        ("loss._target_=null", "loss.gamma=2"),
        ("model.width=3",),
        ("model=own", "model._target_=a:B", "++model.arguments.width=3"),
    ],
)
def test_without_a_target_and_once_they_are_placed_words_stay_as_they_are(words):
    assert placed(*words) == list(words)


def test_a_target_and_another_option_contradict_each_other():
    with pytest.raises(ConfigError, match="leave out model=cnn_lstm_half"):
        placed("model._target_=a:B", "model=cnn_lstm_half")


def test_a_sweep_over_arguments_is_named_as_it_was_typed():
    told = ("symbol=BTCUSDT", "model._target_=a:B")
    plan = plan_sweep([*told, "model.width=3,4"])
    assert [job.variant for job in plan.jobs] == ["model.width=3", "model.width=4"]
    assert [job.folder.name for job in plan.jobs] == ["model.width=3", "model.width=4"]
    assert plan.folder == plan_sweep([*told, "model.width=5,6"]).folder
    assert plan.folder != plan_sweep([*told, "model.depth=5,6"]).folder
    assert as_typed("++model.arguments.width=3") == "model.width=3"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("my_models.Net", "my_models:Net"),
        ("my.models.Net", "my.models:Net"),
        ("my_models:Nets.Wide", "my_models:Nets.Wide"),
        ("./my_models.py:Net", "./my_models.py:Net"),
    ],
)
def test_a_dot_stands_for_the_colon(name, found):
    assert code_name(name) == found


@pytest.mark.parametrize("name", ["torch.hub.load", "torch.nn.functional.relu", "os.system"])
def test_nothing_else_of_a_library_can_be_named(name):
    with pytest.raises(ConfigError):
        find_target("loss._target_", name)
