import sys
from pathlib import Path

import pytest
import warm_processes
from report_builders import NOW, export, judged

from percoin.errors import ConfigError, ModelNotFoundError
from percoin.report.__main__ import main, report

FILES = ["index.html", "report.json", "report.md", "skills.svg"]


def run(*arguments, folder):
    return warm_processes.run(["-m", "percoin.report", *arguments], folder)


def test_the_command_writes_its_files_and_says_where(tmp_path):
    export(tmp_path / "models", evaluation=judged(n_rows=300))

    result = run(folder=tmp_path)

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "BTCUSDT 15m" in result.stdout
    assert "report: outputs/report/index.html" in result.stdout
    assert sorted(path.name for path in (tmp_path / "outputs" / "report").iterdir()) == FILES


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["symbol=BTCUSDT", "tf=1h"], 1, "BTCUSDT 1h: no model exported"),
        (["symbol=ETHUSDT"], 2, "holds no model of ETHUSDT"),
        (["symbol=BTC-USDT"], 2, "did you mean symbol=BTCUSDT?"),
        (["tf=2h"], 2, "tf=2h is not an option"),
        (["symbl=BTCUSDT"], 2, "did you mean symbol?"),
        (["tf.threshold=1"], 2, "tf.threshold is a setting of trainings"),
    ],
)
def test_a_mistake_ends_with_one_line(tmp_path, arguments, code, message):
    export(tmp_path / "models")

    result = run(*arguments, folder=tmp_path)

    assert result.returncode == code
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def test_one_bar_length_or_one_market_can_be_asked_for(tmp_path, capsys):
    for symbol, timeframe in (("BTCUSDT", "15m"), ("BTCUSDT", "1h"), ("ETHUSDT", "1h")):
        export(tmp_path, symbol, timeframe)
    folders = [f"models_dir={tmp_path}", f"output_dir={tmp_path / 'out'}"]

    report([*folders, "tf=1h"], NOW)
    assert "of the 2 models" in capsys.readouterr().out
    report([*folders, "symbol=BTCUSDT"], NOW)
    assert "of the 2 models" in capsys.readouterr().out
    report([*folders, "symbol=BTCUSDT", "tf=1h"], NOW)
    assert "BTCUSDT 1h: not judged." in capsys.readouterr().out


def test_the_same_models_at_the_same_moment_give_the_same_files(tmp_path):
    export(tmp_path, evaluation=judged(n_rows=300))
    written = []
    for _ in range(2):
        report([f"models_dir={tmp_path}", f"output_dir={tmp_path / 'out'}"], NOW)
        written.append({p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()})

    assert written[0] == written[1]
    assert sorted(written[0]) == FILES


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    export(tmp_path / "models")
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(ConfigError, match=r"output_dir=.*taken cannot be written"):
        report([f"models_dir={tmp_path / 'models'}", f"output_dir={tmp_path / 'taken'}"], NOW)


def test_a_missing_model_is_an_error_of_its_market(tmp_path):
    with pytest.raises(ModelNotFoundError):
        report([f"models_dir={tmp_path}", "symbol=BTCUSDT", "tf=15m"], NOW)


def test_help_names_every_key(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["report", "--help"])
    assert main(["--help"]) == 0

    shown = capsys.readouterr().out
    for key in ("symbol", "tf", "models_dir", "output_dir"):
        assert key in shown


def test_the_templates_go_into_the_package():
    package = Path(sys.modules["percoin.report"].__file__).parent

    assert {path.suffix for path in package.iterdir() if path.is_file()} == {
        ".py",
        ".css",
        ".js",
        ".jinja",
    }
