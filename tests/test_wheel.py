"""The wheel: built, installed into an environment of its own, used from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL = ("symbol=BTCUSDT", "tf=1h")


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    """``percoin`` as pip installs it; the libraries are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    built = folder / "source"
    # A build leaves files beside the sources.
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, built / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_file():
            target.write_bytes(source.read_bytes())
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(built)],
        check=True,
    )
    home = folder / "environment"
    venv.create(home, with_pip=False)
    packages = sysconfig.get_path("purelib", "venv", {"base": str(home)})
    (wheel,) = folder.glob("percoin-*.whl")
    python = home / "bin" / "python"
    subprocess.run(
        [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)],
        check=True,
    )
    # After the environment's own packages, so that percoin is the installed one.
    others = sysconfig.get_path("purelib")
    (Path(packages) / "others.pth").write_text(f"{others}\n")
    return home / "bin" / "percoin"


@pytest.fixture(scope="session")
def trained(program, tmp_path_factory) -> tuple[Path, str]:
    """An empty folder in which one model was trained, and what the training printed."""
    folder = tmp_path_factory.mktemp("empty")
    small = ("epochs=1", "model=cnn_lstm_half", "history_days=200")
    done = run(program, folder, "train", *MODEL, "source=sample", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def run(program: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
def test_the_installed_program_is_the_wheels_own(program, tmp_path):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    where = subprocess.run(
        [program.parent / "python", "-c", "import percoin; print(percoin.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(where.stdout.strip()).is_relative_to(program.parents[1])
    assert run(program, tmp_path, "--version").stdout == f"percoin {version}\n"


@pytest.mark.slow
def test_a_model_is_trained_and_asked_from_an_empty_folder(program, trained):
    folder, printed = trained
    asked = run(program, folder, "predict", *MODEL, "require_accepted=false")

    assert "percoin predict symbol=BTCUSDT" in printed
    assert "python predict.py" not in printed
    assert asked.returncode == 0, asked.stderr
    assert "BTCUSDT 1h" in asked.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("report",),
        ("registry",),
        ("registry", "verify"),
        ("fetch", "report=true"),
        ("audit", *MODEL, "source=sample", "cuts=2"),
        ("signals", *MODEL, "source=sample"),
        ("retrain", "dry_run=true"),
        ("judge", "--help"),
        ("serve", "--help"),
        ("symbols",),
    ],
    ids=" ".join,
)
def test_every_command_works_from_an_empty_folder(program, trained, words):
    done = run(program, trained[0], *words)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
def test_a_sweep_is_run_by_the_installed_program(program, tmp_path):
    words = ("symbol=BTCUSDT,ETHUSDT", "tf=1h", "source=simulated", "model=volatility")
    done = run(program, tmp_path, "train", "-m", *words)

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "models" / "per_coin").iterdir())) == 2


@pytest.mark.slow
def test_the_installed_program_reads_config_files_of_the_users_own(program, tmp_path):
    experiment = "# @package _global_\ndefaults: [override /model: {name}, _self_]\nseed: 7\n"
    for folder, name, model in (("mine", "a", "logistic"), ("conf", "b", "boosting")):
        (tmp_path / folder / "experiment").mkdir(parents=True)
        path = tmp_path / folder / "experiment" / f"{name}.yaml"
        path.write_text(experiment.format(name=model))
    market = ("symbol=BTCUSDT", "--cfg", "job")

    for words in (("--config-dir", "mine", "experiment=a"), ("experiment=b",)):
        shown = run(program, tmp_path, "train", *market, *words)
        assert shown.returncode == 0, shown.stderr
        assert "seed: 7" in shown.stdout
    wrong = run(program, tmp_path, "train", "symbol=BTCUSDT", "experiment=a")
    assert wrong.stderr == ("error: experiment=a is not an option; experiment is one of b, tune\n")
