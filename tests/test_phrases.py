"""What users of other tools type first works as they mean it, or gets one right sentence."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from percoin import __main__ as program
from percoin.cli import EXIT_USAGE, compose_config, run_command, run_jobs
from percoin.cli.overrides import split_lists, text_keys
from percoin.config import SCHEMAS, TrainConfig, typed
from percoin.config.elsewhere import NOT_WITH_VALUE, RENAMED, SENTENCES
from percoin.config.folders import options
from percoin.config.structure import leaves_of
from percoin.sweep.plan import plan_sweep

ROOT = Path(__file__).parents[1]
COMMANDS = tuple(SCHEMAS)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ML_DEFAULT_TF", raising=False)


def call(monkeypatch, line: str) -> tuple[int, list]:
    """What a command line that begins with a command's name ends with, and the settings it made.

    Nothing is trained, fetched or served.
    """
    name, *words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    made: list = []
    if name == "train":
        code = run_jobs(
            made.append, TrainConfig, "train", lambda told: made.append(plan_sweep(told).settings)
        )
        return code, made
    schema = SCHEMAS[name]
    return run_command(lambda: made.append(typed(compose_config(name, words), schema)), name), made


def value_of(settings: object, key: str) -> object:
    """A setting by its dotted name."""
    for part in key.split("."):
        settings = settings[part] if isinstance(settings, dict) else getattr(settings, part)
    return settings


# A phrase, and a setting with the value that it gives; "option" is the class attribute of a group.
WORKS = [
    # lightning-hydra-template and Lightning
    ("train symbol=BTCUSDT debug=fdr", {"epochs": 1, "trainer.limit_train_batches": 1}),
    ("train symbol=BTCUSDT debug=fdr", {"models_dir": "outputs/debug/models", "logger": None}),
    ("train symbol=BTCUSDT debug=limit", {"epochs": 3, "trainer.limit_val_batches": 5}),
    ("train symbol=BTCUSDT debug=overfit", {"trainer.overfit_batches": 3, "epochs": 20}),
    ("train symbol=BTCUSDT debug=fdr epochs=2", {"epochs": 2, "trainer.limit_val_batches": 1}),
    ("train symbol=BTCUSDT debug=null", {"epochs": 50}),
    ("train symbol=BTCUSDT train=true test=true ckpt_path=null", {"epochs": 50}),
    ("train symbol=BTCUSDT trainer.max_epochs=5", {"epochs": 5}),
    ("train symbol=BTCUSDT ++trainer.max_epochs=5", {"epochs": 5}),
    ("train symbol=BTCUSDT trainer.limit_train_batches=10", {"trainer.limit_train_batches": 10}),
    ("train symbol=BTCUSDT trainer.limit_val_batches=10", {"trainer.limit_val_batches": 10}),
    ("train symbol=BTCUSDT trainer.overfit_batches=10", {"trainer.overfit_batches": 10}),
    ("train symbol=BTCUSDT trainer.gradient_clip_val=0.5", {"optimizer.gradient_clip_norm": 0.5}),
    ("train symbol=BTCUSDT trainer=gpu", {"trainer.accelerator": "gpu"}),
    (
        "train symbol=BTCUSDT callbacks.early_stopping.patience=9",
        {"optimizer.early_stopping_patience": 9},
    ),
    ("train symbol=BTCUSDT data.batch_size=128", {"batch_size": 128}),
    ("train symbol=BTCUSDT model.optimizer.lr=0.01", {"lr": 0.01}),
    ("train symbol=BTCUSDT paths.output_dir=there", {"outputs_dir": "there"}),
    ("train symbol=BTCUSDT tags=[a,b]", {"tags": ["a", "b"]}),
    ("""train symbol=BTCUSDT 'tags=["a", "b"]'""", {"tags": ["a", "b"]}),
    ("train symbol=BTCUSDT seed=42", {"seed": 42}),
    ("train symbol=BTCUSDT logger=null", {"logger": None}),
    ("train symbol=BTCUSDT logger=csv", {"logger.csv.name": "csv"}),
    ("train symbol=BTCUSDT 'logger=[csv,tensorboard]'", {"logger.csv.name": "csv"}),
    ("train -m symbol=BTCUSDT,ETHUSDT debug=fdr trainer.max_epochs=2,3", {"epochs": 2}),
    ("train -m symbol=BTCUSDT data.batch_size=32,64", {"batch_size": 32}),
    # Hydra
    ("train symbol=BTCUSDT ++epochs=3", {"epochs": 3}),
    ("train --multirun symbol=BTCUSDT lr=0.1,0.2", {"lr": 0.1}),
    ("train --run symbol=BTCUSDT", {"symbol": "BTCUSDT"}),
    ("train symbol=BTCUSDT experiment=null", {"experiment": None}),
    ("train symbol=BTCUSDT experiment=tune", {"experiment.trials": 20}),
    # FreqAI, freqtrade, ccxt
    ("train symbol=BTC/USDT", {"symbol": "BTCUSDT"}),
    ("train symbol=btcusdt", {"symbol": "BTCUSDT"}),
    ("train symbol=btc/usdt tf=1h", {"symbol": "BTCUSDT"}),
    ("train recipe=pooled symbol=btcusdt,ETH/USDT", {"symbol": "BTCUSDT,ETHUSDT"}),
    ("audit symbol=null", {"symbol": None}),
    ("predict symbol=eth/usdt", {"symbol": "ETHUSDT"}),
    ("train symbol=BTCUSDT tf=5m", {"tf.name": "5m", "labels.threshold": 0.0015}),
    ("train symbol=BTCUSDT tf=30m", {"tf.name": "30m", "labels.threshold": 0.0035}),
    ("predict symbol=BTCUSDT tf=5m", {"tf.name": "5m"}),
    (
        "train symbol=BTCUSDT start=2024-01-01 end=2025-01-01",
        {"start": "2024-01-01", "end": "2025-01-01"},
    ),
    (
        "train symbol=BTCUSDT timerange=20240101-20250101",
        {"start": "2024-01-01", "end": "2025-01-01"},
    ),
    ("train symbol=BTCUSDT timerange=20240101-", {"start": "2024-01-01", "end": None}),
    ("judge symbol=BTCUSDT forecasts=f.csv start=20240101", {"start": "20240101"}),
    # Values that can only be texts
    ("train symbol=BTCUSDT 'tags=[größe,a (b)=~#;]'", {"tags": ["größe", "a (b)=~#;"]}),
    (
        """registry "why=it's worse: (a=b) ~50 % #1; see [x]\"""",
        {"why": "it's worse: (a=b) ~50 % #1; see [x]"},
    ),
]


@pytest.mark.parametrize(("line", "expected"), WORKS, ids=lambda value: str(value)[:60])
def test_it_works_as_it_is_meant(monkeypatch, capsys, line, expected):
    code, made = call(monkeypatch, line)

    assert (code, capsys.readouterr().err) == (0, "")
    assert {key: value_of(made[0], key) for key in expected} == expected


# A phrase, and words of the one sentence that it gets.
TOLD = [
    # lightning-hydra-template and Lightning
    ("train symbol=BTCUSDT debug=profiler", "debug is one of fdr, limit, overfit"),
    ("train symbol=BTCUSDT fleet=true debug=fdr", "fleet=true trains a network from scratch"),
    ("predict symbol=BTCUSDT debug=fdr", "debug is a setting of train, and predict has none"),
    ("train symbol=BTCUSDT trainer.fast_dev_run=true", "one batch of everything is debug=fdr"),
    ("train symbol=BTCUSDT +trainer.fast_dev_run=true", "one batch of everything is debug=fdr"),
    ("train symbol=BTCUSDT ckpt_path=last.ckpt", "resume=true goes on with the newest"),
    ("train symbol=BTCUSDT train=false", "percoin.signals scores it on newer bars"),
    ("train symbol=BTCUSDT test=false", "without being judged on its test rows"),
    ("train symbol=BTCUSDT trainer.devices=2", "one process trains on one device: trainer=gpu"),
    ("train symbol=BTCUSDT trainer.strategy=ddp", "one process trains on one device: trainer=gpu"),
    ("train symbol=BTCUSDT trainer=ddp", "trainer is one of cpu, gpu"),
    ("train symbol=BTCUSDT trainer.deterministic=true", "can be repeated from its seed"),
    ("train symbol=BTCUSDT callbacks=default", "callbacks of your own go to Lightning's Trainer"),
    ("train symbol=BTCUSDT callbacks.model_checkpoint.monitor=x", "early stopping are built in"),
    ("train symbol=BTCUSDT data=mnist", "the data is a market and its bars: symbol=BTCUSDT"),
    ("train symbol=BTCUSDT data.num_workers=4", "workers=N is the number of cores"),
    ("train symbol=BTCUSDT optimizer=adam", "set one of optimizer._target_, optimizer.weight_de"),
    ("train symbol=BTCUSDT hparams_search=mnist_optuna", "a search among settings is experiment="),
    ("train -m symbol=BTCUSDT hparams_search=mnist_optuna", "a search among settings is experime"),
    ("train symbol=BTCUSDT task_name=mine", "outputs_dir=outputs/NAME keeps runs apart"),
    ("train symbol=BTCUSDT seed=null", "give a number, such as seed=1"),
    ("train symbol=BTCUSDT extras.print_config=true", "--cfg job prints the config"),
    ("train symbol=BTCUSDT logger=many_loggers", "logger is one of csv, mlflow, tensorboard, wa"),
    ("train symbol=BTCUSDT experiment=example", "experiment is one of tune"),
    ("train symbol=BTCUSDT optimized_metric=val/acc", "it maximises the skill on validation rows"),
    # Hydra
    ("train symbol=BTCUSDT hydra/sweeper=optuna", "a search among settings is experiment=tune"),
    ("train -m symbol=BTCUSDT hydra/sweeper=optuna", "a search among settings is experiment=tune"),
    ("train symbol=BTCUSDT hydra.sweeper.n_trials=20", "with experiment.trials=20 of them"),
    ("train symbol=BTCUSDT hydra.sweep.dir=x", "sweep=NAME names the folder of a sweep"),
    ("train symbol=BTCUSDT hydra/launcher=joblib", "hydra/launcher is one of processes, ray, slu"),
    ("train symbol=BTCUSDT --config-dir nowhere", "nowhere is no folder of config files"),
    ("train symbol=BTCUSDT --config-name mine", "--config-dir FOLDER experiment=NAME"),
    ("train symbol=BTCUSDT --cfg jobs", "--cfg jobs must be one of job, hydra, all"),
    ("train symbol=BTCUSDT hydra.searchpath=[pkg://mine]", "no folder of this machine"),
    ("train symbol=BTCUSDT ~logger", "a setting cannot be removed; give it another value"),
    ("train -m symbol=BTCUSDT experiment=tune", "searches one market at a time: leave out -m"),
    ("predict symbol=BTCUSDT -m", "-m is for sweeps of train.py; name one market at a time"),
    ("fetch -m", "leave -m out, symbol=A,B names several markets"),
    ("predict symbol=BTCUSDT trainer=gpu", "trainer is a setting of train, and predict has none"),
    (
        "predict symbol=BTCUSDT labels.horizon=3",
        "labels.horizon is a setting of train, audit, sig",
    ),
    ("registry features=raw", "features is a setting of train, audit, and registry has none"),
    ("report source=files", "source is a setting of"),
    # FreqAI, freqtrade, ccxt
    ("train symbol=BTCUSDT tf=1w", "tf=1w is not an option; tf is one of 5m, 15m, 30m, 1h, 4h, 1d"),
    ("train symbol=BTC/USDT:USDT", "did you mean symbol=BTCUSDT source.market=perp?"),
    ("train symbol=true", "symbol='true' is not a market"),
    ("train symbol=BTC-USDT", "did you mean symbol=BTCUSDT?"),
    ("train symbol=BTCUSDT timeframe=1h", "did you mean tf?"),
    ("train symbol=BTCUSDT --timeframe 1h", "--timeframe is not KEY=VALUE; write tf=VALUE"),
    ("train symbol=BTCUSDT --epochs 3", "write epochs=VALUE"),
    ("train symbol=BTCUSDT --timerange 20240101-", "settings are KEY=VALUE, and --help lists them"),
    ("train symbol=BTCUSDT --freqaimodel LightGBMRegressor", "what is trained is model=cnn_lstm"),
    ("train pair=BTC/USDT", "did you mean symbol?"),
    ("train pair_whitelist=[BTC/USDT]", "the markets are symbol=BTCUSDT,ETHUSDT, with -m"),
    ("train symbol=BTCUSDT freqai.identifier=mine", "a registry of its own is models_dir=models/"),
    ("train symbol=BTCUSDT freqai.train_period_days=30", "the history is history_days=365"),
    ("train symbol=BTCUSDT label_period_candles=24", "did you mean labels.horizon?"),
    ("train symbol=BTCUSDT since=2024-01-01", "did you mean start?"),
    ("train symbol=BTCUSDT until=2024-01-01", "did you mean end?"),
    ("train symbol=BTCUSDT start=2025-01-01 end=2024-01-01", "start=2025-01-01 is not before end="),
    ("train symbol=BTCUSDT start=2025-01-01 end=2025-01-01", "start=2025-01-01 is not before end="),
    ("train symbol=BTCUSDT end=2999-01-01", "end=2999-01-01 is in the future; leave it out to use"),
    ("train symbol=BTCUSDT start=2999-01-01", "is in the future; give an earlier day"),
    ("train symbol=BTCUSDT start=yesterday", "is not a day; write it like 2025-05-01"),
]


@pytest.mark.parametrize(("line", "words"), TOLD, ids=lambda value: str(value)[:60])
def test_one_sentence_says_how_it_is_done_here(monkeypatch, capsys, tmp_path, line, words):
    code, made = call(monkeypatch, line)

    out, err = capsys.readouterr()
    assert (code, out, made) == (EXIT_USAGE, "", [])
    assert words in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_a_sentence_names_is_there():
    known = {leaf.name for leaf in leaves_of(TrainConfig)} | {"debug", "experiment"}
    groups = {name.partition(".")[0] for name in known}
    sentences = [*SENTENCES.values(), *NOT_WITH_VALUE.values()]
    named = {word for text in sentences for word in re.findall(r"[\w.]+=[\w.]*", text)}

    assert len(named) > 20
    for key, _, value in (word.partition("=") for word in named):
        assert key in known | groups, key
        is_choice = options(key) and value.islower()
        assert not is_choice or value in options(key), f"{key}={value}"
    assert set(RENAMED.values()) <= known


EXPERIMENT = """\
# @package _global_
defaults:
  - override /model: logistic
  - override /labels: triple_barrier
  - override /tf: 1h
{order}
seed: 7
history_days: 200
labels: {{barrier_width: 1.5}}
split: {{train: 0.6, validation: 0.2, test: 0.2}}
"""


def write_conf(folder: Path, **experiments: str) -> Path:
    for name, text in experiments.items():
        (folder / "experiment").mkdir(parents=True, exist_ok=True)
        (folder / "experiment" / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("order", ["  - _self_", ""])
@pytest.mark.parametrize(
    "named",
    ["", "--config-dir=mine", "--config-dir mine", "-cd mine", "hydra.searchpath=[file://mine]"],
)
def test_an_experiment_file_of_the_template_works_as_a_whole(monkeypatch, named, order):
    write_conf(Path("mine" if named else "conf"), good=EXPERIMENT.format(order=order))

    code, made = call(monkeypatch, f"train symbol=BTCUSDT {named} experiment=good seed=8")

    assert code == 0
    settings = made[0]
    assert (settings.model.option, settings.tf.name) == ("logistic", "1h")
    assert (settings.labels.option, settings.labels.barrier_width) == ("triple_barrier", 1.5)
    assert (settings.history_days, settings.split.train) == (200, 0.6)
    assert settings.seed == 8, "the command line comes last"
    assert settings.experiment is None


def test_experiments_are_swept_with_their_folder(monkeypatch):
    write_conf(Path("mine"), a="# @package _global_\nseed: 1\n", b="# @package _global_\nseed: 2\n")
    monkeypatch.setattr(sys, "argv", ["train.py"])

    plan = plan_sweep(["symbol=BTCUSDT", "experiment=a,b", "hydra.searchpath=[mine]"])

    made = [typed(compose_config("train", job.overrides), TrainConfig) for job in plan.jobs]
    assert [settings.seed for settings in made] == [1, 2]
    assert len({job.folder for job in plan.jobs}) == 2


DATES = """# @package _global_
start: 2024-01-01
evaluation: walk_forward
features: {extra: [market]}
"""
INIT = "# @package _global_\ninit: pooled\n"


@pytest.mark.parametrize("how", ["", "-m"])
def test_what_an_experiment_says_decides_which_settings_are_used(monkeypatch, capsys, how):
    write_conf(Path("conf"), dates=DATES, begun=INIT)
    one = f"train symbol=BTCUSDT source=simulated {how} experiment=dates "
    for word in ("folds=3", "features.references=[ETHUSDT,SOLUSDT]", "lr=0.1"):
        code, made = call(monkeypatch, one + word)
        assert (code, made[0].evaluation) == (0, "walk_forward"), word

    assert call(monkeypatch, one + "history_days=100")[0] == 2
    assert capsys.readouterr().err == (
        "error: history_days has no effect with start=2024-01-01: leave it out, or give another "
        "start\n"
    )
    assert call(monkeypatch, one + "history_days=100 start=null")[0] == 0
    assert call(monkeypatch, one.replace("=dates", "=begun") + "lr=0.1")[0] == 2
    assert "lr has no effect with init=pooled: leave it out, or" in capsys.readouterr().err


def test_a_sweep_over_experiments_takes_what_any_of_them_uses(monkeypatch):
    write_conf(Path("conf"), dates=DATES, plain="# @package _global_\nepochs: 2\n")
    sweep = "train -m symbol=BTCUSDT source=simulated experiment=plain,dates "
    assert call(monkeypatch, f"{sweep} folds=3")[0] == 0
    assert call(monkeypatch, f"{sweep} history_days=100")[0] == 0


def test_an_experiment_may_be_a_search(monkeypatch):
    search = "# @package _global_\ndefaults: [tune@experiment, _self_]\nexperiment: {trials: 7}\n"
    write_conf(Path("conf"), search=search)

    code, made = call(monkeypatch, "train symbol=BTCUSDT experiment=search")

    assert code == 0
    assert (made[0].experiment.trials, made[0].experiment.epochs) == (7, 5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", "bad.yaml: epoch is not a setting; did you mean epochs?"),
        ("defaults: [override /modl: own]", "bad.yaml: modl is not a setting; did you mean model?"),
        ("defaults: [override /model: lgst]", "model=lgst is not an option; model is one of ave"),
        ("seed: x", "Value 'x' of type 'str' could not be converted to Integer"),
        ("seed: -1", "seed=-1 must be at least 0"),
    ],
)
def test_a_mistake_in_an_experiment_file_is_one_line(monkeypatch, capsys, text, words):
    write_conf(Path("conf"), bad=f"# @package _global_\n{text}\n")

    code, _ = call(monkeypatch, "train symbol=BTCUSDT experiment=bad")

    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (EXIT_USAGE, 1)
    assert words in err


def test_a_misspelt_experiment_lists_those_of_the_user_too(monkeypatch, capsys):
    write_conf(Path("conf"), mine="# @package _global_\n")

    call(monkeypatch, "train symbol=BTCUSDT experiment=typo")

    assert "experiment is one of mine, tune" in capsys.readouterr().err


def test_files_of_the_user_take_the_place_of_percoins(monkeypatch):
    (Path("conf") / "tf").mkdir(parents=True)
    length = "name: {name}\nhistory_days: 9\nthreshold: 0.5\n"
    for name in ("1m", "1h"):
        (Path("conf") / "tf" / f"{name}.yaml").write_text(length.format(name=name))

    for name in ("1m", "1h"):
        _, made = call(monkeypatch, f"train symbol=BTCUSDT tf={name}")
        assert (made[0].tf.name, made[0].history_days) == (name, 9)


def test_a_config_of_another_program_in_the_working_folder_is_named(monkeypatch, capsys):
    Path("conf").mkdir()
    (Path("conf") / "train.yaml").write_text("defaults: [data: mnist]\n")

    code, _ = call(monkeypatch, "train symbol=BTCUSDT")

    assert code == EXIT_USAGE
    assert "conf/train.yaml would take the place of percoin's own train.yaml" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_config(monkeypatch, capsys, name):
    code, made = call(monkeypatch, f"{name} --cfg job")

    shown = OmegaConf.create(capsys.readouterr().out)
    assert (code, made) == (0, [])
    assert set(shown) == set(SCHEMAS[name].__dataclass_fields__)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_hydras_help_and_percoins_version(monkeypatch, capsys, name):
    assert call(monkeypatch, f"{name} --hydra-help")[0] == 0
    assert capsys.readouterr().out.startswith("Hydra (")
    assert call(monkeypatch, f"{name} --version") == (0, [])
    assert capsys.readouterr().out.startswith("percoin ")


def test_a_part_of_the_config_is_shown_with_its_values(monkeypatch, capsys):
    call(monkeypatch, "train symbol=BTCUSDT labels.horizon=7 --cfg job --package split --resolve")

    assert "purge_bars: 7" in capsys.readouterr().out


def test_a_sweep_shows_the_config_of_its_first_job(monkeypatch, capsys):
    code, made = call(monkeypatch, "train -m symbol=BTCUSDT,ETHUSDT lr=0.1,0.2 --cfg job")

    shown = OmegaConf.create(capsys.readouterr().out)
    assert (code, made) == (0, [])
    assert (shown.symbol, shown.lr) == ("BTCUSDT", 0.1)
    assert call(monkeypatch, "train -m symbol=BTCUSDT --hydra-help")[0] == 0


NASTY = (
    "a=b",
    "(a",
    "~/a",
    "#a",
    "[a",
    "a;b",
    "it's",
    "Bücher/币",
    "a, b",
    "{a}",
    "20250630",
    "true",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_can_only_be_a_text_is_taken_as_it_is(name):
    """Paths and sentences; other texts have a form of their own, such as that of a market."""
    free = [key for key in text_keys(SCHEMAS[name]) if re.fullmatch(r"\w+_dir|why|forecasts", key)]

    assert free
    for value in NASTY:
        config = compose_config(name, [f"{key}={value}" for key in free])
        assert {key: config[key] for key in free} == dict.fromkeys(free, value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict", "symbol=BTCUSDT", "trainer=gpu"), "trainer is a setting of train"),
        (("train", "symbol=BTCUSDT", "callbacks=none"), "callbacks is not a setting: checkpoints"),
        (("serve", "--timeframe", "1h"), "--timeframe is not"),
    ],
)
def test_the_program_itself_ends_with_that_line(tmp_path, words, said):
    done = subprocess.run(
        [sys.executable, "-m", "percoin", *words],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_lists_of_markets_and_bar_lengths_are_read_as_they_are_meant():
    lists, others = split_lists(["symbol=btcusdt,ETH/USDT", "tf=5m,30m", "port=8000"])

    assert lists == {"symbol": ["BTCUSDT", "ETHUSDT"], "tf": ["5m", "30m"]}
    assert others == ["port=8000"]


def test_every_command_of_the_program_is_in_this_table():
    assert {*COMMANDS, "symbols"} == set(program.COMMANDS)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            "serve record_url=postgresql://u:pw@h/db --cfg job",
            "record_url: postgresql://u:***@h/db",
        ),
        (
            "retrain record_url=postgresql://h/db?password=pw --cfg all",
            "postgresql://h/db?password=***",
        ),
        ("train symbol=BTCUSDT source.api_url=https://u:pw@h -c job -p source", "https://u:***@h"),
    ],
)
def test_a_config_is_shown_without_passwords(monkeypatch, capsys, words, shown):
    assert call(monkeypatch, words)[0] == 0
    out = capsys.readouterr().out
    assert shown in out
    assert "pw" not in out


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (
            "source.archive_url=https://u:pw@h",
            "source.archive_url=https://u:***@h holds a password",
        ),
        ("+logger.tensorboard.api_key=pw", "logger.tensorboard.api_key holds a secret"),
        ("+logger.tensorboard.more={the_token:pw}", "logger.tensorboard.the_token holds a secret"),
        ("+logger.tensorboard.uri=https://u:pw@h", "logger.tensorboard.uri holds a secret"),
    ],
)
@pytest.mark.parametrize("begin", ["train symbol=BTCUSDT", "train -m symbol=BTCUSDT,ETHUSDT"])
def test_a_training_takes_no_password_that_its_files_would_keep(
    monkeypatch, capsys, tmp_path, begin, words, refusal
):
    code, _ = call(monkeypatch, f"{begin} {words} outputs_dir={tmp_path / 'outputs'}")
    err = capsys.readouterr().err
    assert (code, err.count("\n"), "pw" in err) == (2, 1, False)
    assert err.startswith(f"error: {refusal}")
    assert not (tmp_path / "outputs").exists()
