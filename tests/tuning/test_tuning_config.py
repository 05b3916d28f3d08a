import pytest
from tuning_builders import TINY, tuning

from percoin.cli import compose_config, explain, help_text
from percoin.config import TrainConfig, typed


def refusal(*overrides: str) -> str:
    """The one line that the command prints for these overrides."""
    words = [*TINY, *overrides]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of several libraries; explained below
        typed(compose_config("train", words), TrainConfig)
    line = explain(caught.value, "train", words)
    assert "\n" not in line
    return line


def test_without_the_experiment_there_is_no_search():
    assert typed(compose_config("train", list(TINY)), TrainConfig).experiment is None


def test_the_searched_ranges_hold_what_percoin_starts_with():
    config = tuning().experiment
    settings = typed(compose_config("train", ["symbol=BTCUSDT"]), TrainConfig)
    space = tuning("experiment.space.lookback=[24,96]").experiment.space
    assert space.lr[0] < settings.lr < space.lr[1]
    assert space.dropout[0] < settings.model.dropout < space.dropout[1]
    assert space.lookback[0] < settings.lookback < space.lookback[1]
    assert 1.0 in space.width
    assert space.fixed_horizon.threshold[0] < 1 < space.fixed_horizon.threshold[1]
    assert config.startup_trials < config.trials


@pytest.mark.parametrize(
    "override",
    [
        "experiment.trials=0",
        "experiment.epochs=0",
        "experiment.startup_trials=0",
        "experiment.max_minutes=0",
        "experiment.max_minutes=nan",
        "experiment.seed=-1",
        "experiment.min_class_share=-0.1",
        "experiment.min_class_share=0.34",
        "experiment.pruner.kind=hyperband",
        "experiment.pruner.startup_trials=0",
        "experiment.pruner.warmup_epochs=0",
        "experiment.pruner.reduction_factor=1",
        "experiment.space.lr=[0,0.1]",
        "experiment.space.lr=[0.1,0.01]",
        "experiment.space.lr=[0.01]",
        "experiment.space.lr=[0.001,nan]",
        "experiment.space.dropout=[0,1]",
        "experiment.space.lookback=[3,9]",
        "experiment.space.width=[]",
        "experiment.space.width=[0,1]",
        "experiment.space.width=[99]",
        "experiment.space.labels=[triple]",
        "experiment.space.fixed_horizon.horizon=[0,3]",
        "experiment.space.fixed_horizon.threshold=[0,1]",
        "experiment.space.triple_barrier.horizon=[3]",
        "experiment.space.triple_barrier.barrier_width=[2,1]",
        "experiment.space.triple_barrier.volatility_bars=1",
    ],
)
def test_a_value_out_of_its_range_names_its_key(override):
    assert refusal("experiment=tune", override).startswith(override.partition("=")[0] + "=")


def test_a_misspelt_key_names_the_nearest():
    assert refusal("experiment=tune", "experiment.space.dropuot=[0,0.1]") == (
        "experiment.space.dropuot is not a setting; did you mean experiment.space.dropout?"
    )
    assert refusal("experiment=tnue") == (
        "experiment=tnue is not an option; experiment is one of tune"
    )


def test_a_key_of_the_experiment_without_it_names_it():
    assert refusal("experiment.trials=3") == (
        "experiment.trials is a setting of experiment=tune; add experiment=tune"
    )


def test_resume_is_refused_because_a_search_goes_on_by_itself():
    assert refusal("experiment=tune", "resume=true") == (
        "experiment=tune goes on with its study by itself: leave out resume=true"
    )


def test_the_help_lists_every_key_of_a_search():
    text = help_text("train")
    for key in ("experiment.trials=20", "experiment.space.lr=[0.0001, 0.01]"):
        assert key in text
    assert "experiment.space.triple_barrier.volatility_bars=50" in text
