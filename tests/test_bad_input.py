"""Bad input to a training: one clear error, a non-zero exit, an untouched registry.

Most cases run in this process, by the steps of ``train.py`` up to where the network is
made; the last ones run ``train.py`` itself.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import warm_processes
from builders import bars_from_closes, drop_bars, make_bars, write_parquet
from exported_models import bars_to_learn_from, export, make_dataset, random_network

from percoin.bars.schema import Bars
from percoin.cli import compose_config, run_command
from percoin.config import TrainConfig, typed
from percoin.types import Timeframe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A place to run in, with a model that must outlive everything that is tried here."""
    export(tmp_path / "models", random_network(), make_dataset(bars_to_learn_from(600)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ML_DEFAULT_TF", raising=False)
    return tmp_path


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Every file, link and folder below, with what it holds."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def train(*overrides: str) -> Callable[[], None]:
    """The command of ``train.py``, up to where its network would be made."""

    def command() -> None:
        from percoin.registry.artifact import check_writable
        from percoin.training.pipeline import prepare

        settings = typed(compose_config("train", overrides), TrainConfig)
        check_writable(Path(settings.models_dir), settings.symbol, settings.tf.timeframe)
        prepare(settings)

    return command


def refused(capsys, monkeypatch, *overrides: str) -> str:
    """The line that a training with these overrides ends with."""
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    before = tree(Path("models"))
    code = run_command(train(*overrides), "train")
    line = capsys.readouterr().err.rstrip("\n")

    assert code != 0
    assert line.startswith("error: ")
    assert "\n" not in line
    assert tree(Path("models")) == before
    return line.removeprefix("error: ")


def with_rows(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Write a file whose rows have been spoilt by ``change``."""

    def write(path: Path) -> None:
        bars = make_bars(600)
        write_parquet(Bars(bars.symbol, bars.timeframe, change(bars.frame.copy()), ""), path)

    return write


def put(position: int, column: str, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.iloc[position, frame.columns.get_loc(column)] = value
        return frame

    return change


def cut_short(path: Path) -> None:
    write_parquet(make_bars(600), path)
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    """Damage the page of values in the middle of the file that the store itself wrote."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x40
    path.write_bytes(content)


SPOILT = {
    "cut short": (cut_short, "cannot be read"),
    "no Parquet": (lambda path: path.write_bytes(b"open,high\n1,2\n"), "no .parquet file"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "no rows": (with_rows(lambda frame: frame.iloc[:0]), "no bars"),
    "no volume": (with_rows(lambda frame: frame.drop(columns="volume")), "no column volume"),
    "duplicate": (
        with_rows(lambda frame: pd.concat([frame, frame.iloc[-2:]])),
        "duplicate open_time in 2 bars",
    ),
    "shuffled": (
        with_rows(lambda frame: frame.sample(frac=1, random_state=0)),
        "open_time before that of the row above in ",
    ),
    "NaN": (
        with_rows(put(300, "close", float("nan"))),
        "close NaN or infinite in 1 bar (2024-01-04 03:00)",
    ),
    "infinite": (with_rows(put(300, "high", float("inf"))), "high NaN or infinite in 1 bar"),
    "negative": (with_rows(put(5, "low", -1.0)), "low not above zero in 1 bar (2024-01-01 01:15)"),
    "negative volume": (with_rows(put(5, "volume", -1.0)), "negative volume in 1 bar"),
    "high below": (with_rows(put(5, "high", 1.0)), "high below open or close in 1 bar"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_bars_are_named_with_what_is_wrong(folder, capsys, monkeypatch, case):
    spoil, words = SPOILT[case]
    path = folder / "bars" / "BTCUSDT" / "15m.parquet"
    path.parent.mkdir(parents=True)
    spoil(path)
    line = refused(
        capsys, monkeypatch, "symbol=BTCUSDT", "tf=15m", "source=files", "source.path=bars"
    )

    assert line.startswith("BTCUSDT 15m: ")
    assert "15m.parquet" in line
    assert words in line
    assert "; " in line  # what to do
    assert not (folder / "data").exists()


def test_a_damaged_store_is_named_with_what_to_do(folder, capsys, monkeypatch):
    from percoin.bars.store import BarStore

    store = BarStore(folder / "data" / "bars")
    store.write(make_bars(600))
    flip_a_bit(store.path("BTCUSDT", Timeframe.M15))
    line = refused(capsys, monkeypatch, "symbol=BTCUSDT", "tf=15m", "source=store")

    assert line.startswith("BTCUSDT 15m: data/bars/BTCUSDT/15m.parquet cannot be read as Parquet")
    assert line.endswith("move the file away and load the bars again from their source")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["symbol=NOSUCHUSDT"], ["NOSUCHUSDT 15m", "no file in bars", "give another source.path"]),
        (["symbol=BTCUSDT", "tf=15m", "source.path=nowhere"], ["nowhere does not exist"]),
        (["symbol=btc"], ["BTC 15m", "did you mean symbol=BTCUSDT?"]),
        (["symbol=BTCUSDT", "tf=7m"], ["tf=7m is not an option", "5m, 15m, 30m, 1h, 4h, 1d"]),
    ],
)
def test_what_is_not_there_is_said(folder, capsys, monkeypatch, overrides, words):
    (folder / "bars").mkdir()
    defaults = ["source=files", *([] if "source.path" in overrides[-1] else ["source.path=bars"])]
    line = refused(capsys, monkeypatch, *defaults, *overrides)

    for word in words:
        assert word in line


def test_an_empty_store_names_the_sources(folder, capsys, monkeypatch):
    line = refused(capsys, monkeypatch, "symbol=ETHUSDT", "tf=1h", "source=store")

    assert line.startswith("ETHUSDT 1h: no bars are stored in data/bars")
    assert "source=" in line


def test_a_coarser_market_than_asked_for_names_what_there_is(folder, capsys, monkeypatch):
    write_parquet(make_bars(50, timeframe=Timeframe.H1), folder / "bars/BTCUSDT/1h.parquet")
    line = refused(capsys, monkeypatch, "symbol=BTCUSDT", "source=files", "source.path=bars")

    assert (
        line
        == "BTCUSDT 15m: bars has only 1h, none that makes up 15m; use tf=1h or another source.path"
    )


@pytest.mark.parametrize("n_bars", [1, 10, 60, 110, 120])
def test_too_few_bars_say_how_many_there_are_and_how_many_it_takes(
    folder, capsys, monkeypatch, n_bars
):
    write_parquet(make_bars(n_bars), folder / "bars/BTCUSDT/15m.parquet")
    line = refused(capsys, monkeypatch, "symbol=BTCUSDT", "source=files", "source.path=bars")

    assert line.startswith(f"BTCUSDT 15m: {n_bars} bars ")
    assert "lookback=60 takes at least " in line


def test_bars_that_are_mostly_gaps_are_too_few(folder, capsys, monkeypatch):
    bars = drop_bars(make_bars(1500), range(40, 1500, 41))
    write_parquet(bars, folder / "bars/BTCUSDT/15m.parquet")
    line = refused(capsys, monkeypatch, "symbol=BTCUSDT", "source=files", "source.path=bars")

    assert "give 0 usable rows" in line
    assert "without gaps" in line


@pytest.mark.parametrize("labels", ["fixed_horizon", "triple_barrier"])
def test_a_class_that_training_would_never_see_is_named(folder, capsys, monkeypatch, labels):
    # A price that only ever rises is never SHORT.
    rising = bars_from_closes([100 * 1.002**step for step in range(900)])
    write_parquet(rising, folder / "bars/BTCUSDT/15m.parquet")
    line = refused(
        capsys,
        monkeypatch,
        "symbol=BTCUSDT",
        "source=files",
        "source.path=bars",
        f"labels={labels}",
    )

    assert line.startswith("BTCUSDT 15m: the train rows lack a class (SHORT 0, ")
    assert "change the label rule" in line
    assert "history_days" in line


@pytest.mark.parametrize("below", ["models", "models/per_coin", "models/per_coin/ETHUSDT"])
def test_a_models_folder_with_a_file_in_its_place(folder, capsys, monkeypatch, below):
    place = folder / "elsewhere" / below
    place.parent.mkdir(parents=True)
    place.write_text("a file")
    before = tree(folder / "elsewhere")
    line = refused(
        capsys, monkeypatch, "symbol=ETHUSDT", "source=simulated", "models_dir=elsewhere/models"
    )

    assert line.startswith("ETHUSDT 15m: ")
    assert "elsewhere/models" in line
    assert "models_dir=FOLDER" in line
    assert tree(folder / "elsewhere") == before
    # Found out before any bars were fetched.
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        (["symbol=BTCUSDT", "source=store"], 1, "BTCUSDT 15m: no bars are stored"),
        (["symbol=BTCUSDT", "source=simulated", "source.n_bars=100"], 1, "BTCUSDT 15m: 100 bars"),
        (["symbol=BTCUSDT", "source=simulated", "models_dir=file"], 1, "BTCUSDT 15m: "),
        (["symbol=BTCUSDT", "lookbck=3"], 2, "did you mean lookback?"),
    ],
)
def test_train_itself_ends_with_one_line(folder, overrides, code, words):
    (folder / "file").touch()
    before = tree(folder / "models")
    result = warm_processes.run([str(ROOT / "train.py"), *overrides])

    assert result.returncode == code
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert "Traceback" not in result.stdout
    assert tree(folder / "models") == before


def test_a_gpu_that_is_not_there_is_one_line(folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    simulated = ("source=simulated", "source.n_bars=1500")
    result = warm_processes.run(
        [str(ROOT / "train.py"), "symbol=BTCUSDT", *simulated, "trainer=gpu", "logger=csv"]
    )

    assert result.returncode != 0
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert "trainer=cpu" in result.stderr
