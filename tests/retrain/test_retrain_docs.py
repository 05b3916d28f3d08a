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
COMMANDS = re.findall(r"python -m percoin\.(retrain|registry)\b([^`\n>]*)", TEXT)


def test_every_command_line_is_understood():
    assert len(COMMANDS) >= 5
    for command, arguments in COMMANDS:
        words = shlex.split(arguments)
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


def test_the_cron_line_has_its_five_fields():
    (line,) = [line for line in TEXT.splitlines() if re.match(r"\d+ \d+ \* ", line)]
    minute, hour, *days = line.split()[:5]
    assert (0 <= int(minute) < 60, 0 <= int(hour) < 24, days) == (True, True, ["*"] * 3)


def test_systemd_takes_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    names = ("percoin-retrain.service", "percoin-retrain.timer", "percoin-timetable.service")
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
