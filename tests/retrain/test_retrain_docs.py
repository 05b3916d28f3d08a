"""What docs/RETRAIN.md tells people to install can be installed."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from percoin.cli import compose_config
from percoin.config import RegistryConfig, typed
from percoin.retrain.__main__ import read_task

TEXT = (Path(__file__).parents[2] / "docs" / "RETRAIN.md").read_text()
UNITS = re.findall(r"```ini\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"python -m percoin\.(retrain|registry)\b([^`\n>;&]*)", TEXT)


def test_every_command_line_is_understood():
    assert len(COMMANDS) >= 5
    for command, arguments in COMMANDS:
        words = shlex.split(arguments, comments=True)
        if command == "retrain":
            read_task([word for word in words if not word.startswith("-")])
        else:
            action, *others = words
            typed(
                compose_config("registry", [f"action={action}", *map(quoted, others)]),
                RegistryConfig,
            )


def quoted(word: str) -> str:
    name, _, value = word.partition("=")
    return f"{name}='{value}'" if " " in value else word


def test_the_cron_lines_have_their_five_fields():
    lines = re.findall(r"^(10 3 \* \* \*) cd |`(10 [^`]+)`", TEXT, re.MULTILINE)
    assert ["".join(line) for line in lines] == ["10 3 * * *", "10 * * * *", "10 3 * * 1"]


def test_systemd_takes_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    names = ("percoin-retrain.service", "percoin-retrain.timer")
    paths = [tmp_path / name for name in names]
    for path, unit in zip(paths, UNITS, strict=True):
        # There is neither the folder nor the user here.
        unit = unit.replace("/opt/percoin/.venv/bin/python", "/usr/bin/env")
        path.write_text(unit.replace("User=percoin\n", "").replace("/opt/percoin", "/tmp"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Failed to" in verified.stderr and "lookup" in verified.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {verified.stderr.strip()}")
    assert (verified.returncode, verified.stderr) == (0, "")
