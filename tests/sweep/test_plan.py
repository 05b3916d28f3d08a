from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percoin.cli import compose_config
from percoin.config import CONF_DIR, ProcessesConfig, SampleConfig, TrainConfig, typed
from percoin.errors import ConfigError
from percoin.sweep.jobs import Job
from percoin.sweep.plan import JobBase, jobs_of, plan_sweep

ROOT = CONF_DIR.parent
SYMBOLS = (ROOT / "symbols").read_text().strip()
TIMEFRAMES = ("15m", "1h", "4h", "1d")
SIMULATED = ("symbol=BTCUSDT", "source=simulated")
# Of jobs without an experiment.
BASES = {("", ""): JobBase("BTCUSDT", "1h", "1h", True, SampleConfig())}

# What follows KEY= on a command line, in quotes or not, numbers, lists and paths among it.
VALUES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30
)


def plan(*arguments: str, folder: str = "outputs"):
    return plan_sweep([*SIMULATED, f"outputs_dir={folder}", *arguments])


def name_of(*arguments: str) -> str:
    return plan(*arguments).folder.name


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(*arguments)
    return str(caught.value)


def test_all_markets_on_all_timeframes_are_128_jobs_in_128_folders():
    sweep = plan(f"symbol={SYMBOLS}", f"tf={','.join(TIMEFRAMES)}")

    assert len(sweep.jobs) == 128
    assert {job.folder for job in sweep.jobs} == {
        sweep.folder / symbol / tf for symbol in SYMBOLS.split(",") for tf in TIMEFRAMES
    }
    assert {(job.symbol, job.tf) for job in sweep.jobs} == {
        (job.folder.parent.name, job.folder.name) for job in sweep.jobs
    }
    assert isinstance(sweep.launcher, ProcessesConfig)


@given(
    symbols=st.lists(
        st.from_regex(r"[A-Z0-9]{2,20}", fullmatch=True), min_size=1, max_size=4, unique=True
    ),
    lrs=st.lists(st.floats(1e-6, 0.5), min_size=2, max_size=4, unique=True),
    texts=st.lists(VALUES, min_size=1, max_size=4, unique=True),
)
def test_every_job_has_a_folder_of_its_own_two_or_three_levels_down(symbols, lrs, texts):
    values = {"symbol": symbols, "tf": TIMEFRAMES, "lr": [str(lr) for lr in lrs], "logger": texts}
    folder = Path("/sweeps/one")
    jobs = list(jobs_of(values, folder, BASES))

    assert len(jobs) == len(symbols) * 4 * len(lrs) * len(texts)
    folders = {job.folder for job in jobs}
    assert len(folders) == len(jobs)
    for job in jobs:
        assert job.folder.relative_to(folder).parts[:2] == (job.symbol, job.tf)
        assert len(job.folder.relative_to(folder).parts) == 3
        assert job.market_folder == folder / job.symbol / job.tf
        assert ".." not in job.folder.parts
        assert len(job.folder.name.encode()) <= 255


def test_a_single_value_makes_no_further_level():
    (job,) = jobs_of({"symbol": ["BTCUSDT"], "tf": ["1h"], "lr": ["0.1"]}, Path("/s"), BASES)

    assert job.folder == job.market_folder == Path("/s/BTCUSDT/1h")
    assert (job.name, job.variant) == ("BTCUSDT 1h", "")


def test_swept_settings_name_the_third_level():
    values = {"symbol": ["BTCUSDT"], "tf": ["1h"], "lr": ["0.1", "0.01"], "seed": ["1", "2"]}
    names = [job.folder.name for job in jobs_of(values, Path("/s"), BASES)]

    assert names == ["lr=0.1,seed=1", "lr=0.1,seed=2", "lr=0.01,seed=1", "lr=0.01,seed=2"]


def test_the_same_settings_find_their_folder_again():
    name = name_of("epochs=3")

    assert name_of("epochs=3", "symbol=BTCUSDT,ETHUSDT", "tf=1h,4h") == name
    assert name_of("epochs=3", "workers=1", "force=true", "reuse_bars_secs=1") == name
    assert name_of("epochs=3", "data_dir=elsewhere") == name
    assert name_of("model.dropout=0.1", "epochs=3", "model.dropout=0.3") == name
    assert name_of("epochs=4") != name
    assert name_of("epochs=3", "source.seed=1") != name
    assert name_of("epochs=3", "models_dir=elsewhere") != name


def test_more_values_of_a_swept_key_are_the_same_sweep():
    name = name_of("lr=0.1,0.01")

    assert name_of("lr=0.1,0.01,0.02") == name
    assert name_of("lr=0.1") != name
    assert name_of("seed=1,2") != name
    assert name_of("model.dropout=0.1,0.2") == name_of("model.dropout=0.2,0.4")


def test_a_name_that_is_given_is_the_name():
    assert plan("sweep=june-3.1", folder="here").folder == Path("here/june-3.1").absolute()


def test_jobs_are_told_all_but_what_concerns_the_sweep():
    (job,) = plan(
        "sweep=june", "workers=3", "force=true", "lr=0.01", "hydra/launcher=processes"
    ).jobs

    assert job.overrides == (
        "symbol=BTCUSDT",
        "source=simulated",
        "outputs_dir=outputs",
        "lr=0.01",
        "tf=15m",
        "logger=csv",
    )


LONG = "x" * 200


@pytest.mark.parametrize(
    "values",
    [["a/b", "a b", "a_b"], [f"{LONG}1", f"{LONG}2", LONG], ["ä", "ö", "_"]],
    ids=["replaced letters", "cut off", "not ASCII"],
)
def test_no_two_variants_share_a_folder(values):
    told = {"symbol": ["BTCUSDT"], "tf": ["1h"], "source.path": values}
    folders = [job.folder for job in jobs_of(told, Path("sweep"), BASES)]
    assert len(set(folders)) == len(values)
    assert all(len(folder.name) < 150 for folder in folders)
    assert {folder.parent for folder in folders} == {Path("sweep/BTCUSDT/1h")}


@pytest.mark.parametrize("logger", ["logger=tensorboard", "logger.version=3"])
def test_a_logger_that_is_asked_for_is_the_jobs_logger(logger):
    (job,) = plan(logger).jobs
    assert [text for text in job.overrides if text.startswith("logger")] == [logger]


def test_the_default_timeframe_is_named(monkeypatch):
    monkeypatch.setenv("ML_DEFAULT_TF", "4h")
    (job,) = plan().jobs
    assert job.tf == "4h"
    assert "tf=4h" in job.overrides


def test_ranges_and_patterns_are_read_as_hydra_reads_them():
    assert [job.variant for job in plan("seed=range(1,4)").jobs] == ["seed=1", "seed=2", "seed=3"]
    assert {job.tf for job in plan("tf=glob(1*)").jobs} == {"15m", "1h", "1d"}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("symbol=BTCUSDT,ETHUSDT,BTCUSDT", "symbol names BTCUSDT twice"),
        ("lr=0.1,0.10", "lr names 0.1 twice"),
        ("symbol=BTCUSDT,btcusdt", "did you mean symbol=BTCUSDT?"),
        ("symbol=BTCUSDT,MATICUSDT", "use symbol=POLUSDT"),
        ("resume=true", "goes on by itself: leave it out"),
        ("workers=1,2", "workers is the same for a whole sweep"),
        ("models_dir=a,b", "models_dir is the same for a whole sweep"),
        ("hydra/launcher=processes,slurm", "hydra/launcher is the same for a whole sweep"),
        ("hydra.sweep.dir=x", "hydra.sweep.dir does nothing in a sweep; sweep=NAME"),
        ("lr=interval(0.1,0.2)", "list the values, separated by commas"),
        ("lr=0.1,0.2,3", "lr=3 must be below 1"),
        ("sweep=../up", "cannot name a folder"),
        ("sweep=BTCUSDT", "could be a market"),
        ("reuse_bars_secs=-1", "reuse_bars_secs=-1 must be at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(argument, words):
    assert words in refusal(argument)


@pytest.fixture
def experiments(tmp_path, monkeypatch) -> None:
    """Experiment files of the user's own in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ML_DEFAULT_TF", raising=False)
    texts = {
        "calm": "defaults: [override /tf: 1h, _self_]",
        "bold": "defaults: [override /tf: 4h, override /logger: mlflow, _self_]\nseed: 4",
        "plain": "seed: 2",
        "search": "defaults: [tune@experiment, _self_]",
        "btc": "symbol: BTCUSDT",
        "eth": "symbol: ETHUSDT",
        "quiet": "logger: null",
        "sample": "defaults: [override /source: sample, _self_]",
        "apart": "models_dir: models/apart",
        "elsewhere": "outputs_dir: out",
    }
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{text}\n")


def jobs_and_settings(*arguments: str) -> list[tuple[Job, TrainConfig]]:
    jobs = plan_sweep([*arguments, "source=simulated"]).jobs
    return [(job, typed(compose_config("train", job.overrides), TrainConfig)) for job in jobs]


@pytest.mark.usefixtures("experiments")
def test_every_experiment_of_a_sweep_has_its_own_bar_length_and_logger():
    made = jobs_and_settings("symbol=BTCUSDT,ETHUSDT", "experiment=calm,bold,plain")

    own = [("1h", "csv"), ("4h", "mlflow"), ("15m", "csv")]
    assert [(job.tf, *settings.logger) for job, settings in made] == own * 2
    for job, settings in made:
        assert (job.symbol, job.tf) == (settings.symbol, settings.tf.name)
        assert job.folder.parts[-3:-1] == (job.symbol, job.tf)
    assert len({job.folder for job, _ in made}) == 6
    typed_length = jobs_and_settings("symbol=BTCUSDT", "experiment=calm,bold", "tf=30m,1d")
    assert [settings.tf.name for _, settings in typed_length] == ["30m", "1d", "30m", "1d"]


@pytest.mark.usefixtures("experiments")
def test_an_experiment_may_name_the_market_of_its_jobs():
    made = jobs_and_settings("experiment=btc", "lr=0.001,0.003")
    assert [(job.symbol, settings.lr) for job, settings in made] == [
        ("BTCUSDT", 0.001),
        ("BTCUSDT", 0.003),
    ]
    made = jobs_and_settings("experiment=btc,eth", "tf=1h")
    assert [(job.symbol, settings.symbol) for job, settings in made] == [
        ("BTCUSDT", "BTCUSDT"),
        ("ETHUSDT", "ETHUSDT"),
    ]


@pytest.mark.usefixtures("experiments")
@pytest.mark.parametrize("word", ["experiment=search", "experiment=plain,search"])
def test_a_search_in_any_experiment_of_a_sweep_is_refused(word):
    with pytest.raises(ConfigError, match="searches one market at a time: leave out -m"):
        plan_sweep(["symbol=BTCUSDT", word])


@pytest.mark.usefixtures("experiments")
@pytest.mark.parametrize(
    ("other", "found"),
    [
        ("apart", "models_dir is the same for a whole sweep: apart says models/apart, the first "),
        ("elsewhere", "outputs_dir is the same for a whole sweep: elsewhere says out, the first "),
    ],
)
def test_experiments_with_folders_of_their_own_are_no_sweep(other, found):
    words = ["symbol=BTCUSDT", "source=simulated", f"experiment=plain,{other}"]
    with pytest.raises(ConfigError) as caught:
        plan_sweep(words)
    assert str(caught.value).startswith(found)
    name = found.partition(" ")[0]
    assert f"give {name}=FOLDER beside -m" in str(caught.value)
    assert len(plan_sweep([*words, f"{name}=together"]).jobs) == 2


@pytest.mark.usefixtures("experiments")
def test_a_sweep_knows_whether_all_jobs_have_the_same_source():
    words = ["symbol=BTCUSDT", "tf=1h"]
    assert plan_sweep([*words, "experiment=plain,quiet", "source=sample"]).has_one_source
    assert not plan_sweep([*words, "source=sample,simulated"]).has_one_source
    assert not plan_sweep([*words, "experiment=sample,plain"]).has_one_source


@pytest.mark.usefixtures("experiments")
def test_what_debug_says_of_the_logger_stays():
    ((_, settings), (_, other)) = jobs_and_settings("symbol=BTCUSDT", "experiment=plain,quiet")
    assert (list(settings.logger), other.logger) == (["csv"], None)
    ((job, debugged),) = jobs_and_settings("symbol=BTCUSDT", "debug=fdr")
    assert (job.tf, debugged.logger, debugged.epochs) == ("15m", None, 1)
