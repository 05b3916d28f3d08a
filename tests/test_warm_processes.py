"""A forked command does what a fresh Python would have done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm_processes

FACTS = """
import json, os, signal, sys
print(json.dumps({
    "argv": sys.argv,
    "cwd": os.getcwd(),
    "env": dict(os.environ),
    "path": sys.path[:2],
    "session": os.getsid(0) == os.getpid(),
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "streams": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "percoin": [name for name in sys.modules if name.startswith("percoin")],
    "name": __name__,
}))
"""
ENDS = {
    "nothing": "",
    "code": "sys.exit(3)",
    "text": "sys.exit('no such market')",
    "error": "raise ValueError('no such market')",
    "signal": "print(end='', flush=True); os.kill(os.getpid(), 15)",
    "at exit": "import atexit; atexit.register(print, 'last words'); sys.exit(4)",
}


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONPATH": str(tmp_path / "more")}


def both(
    arguments: list[str], folder: Path, environment: dict[str, str]
) -> list[subprocess.CompletedProcess[str]]:
    """What a fork and a fresh Python make of the same arguments."""
    fresh = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return [warm_processes.run(arguments, folder, environment), fresh]


@pytest.mark.parametrize("arguments", [["script/facts.py"], ["-m", "facts"], ["-c", FACTS]])
def test_a_fork_is_given_what_a_fresh_python_is_given(arguments, tmp_path, environment):
    for folder in ("script", "more"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "facts.py").write_text(FACTS)
    fork, fresh = both([*arguments, "symbol=BTCUSDT", "x y"], tmp_path, environment)

    assert (fork.returncode, fork.stderr) == (fresh.returncode, fresh.stderr) == (0, "")
    assert json.loads(fork.stdout) == json.loads(fresh.stdout)


def test_a_fork_has_a_session_of_its_own_if_it_is_to(tmp_path, environment):
    (tmp_path / "facts.py").write_text(FACTS)
    with warm_processes.Process(
        ["facts.py"], tmp_path, environment, start_new_session=True
    ) as process:
        stdout, _ = process.communicate(60)

    assert json.loads(stdout)["session"]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_fork_ends_as_a_fresh_python_ends(end, tmp_path, environment):
    (tmp_path / "end.py").write_text(f"import os, sys\nprint('first words', end='')\n{end}\n")
    fork, fresh = both(["end.py"], tmp_path, environment)

    assert (fork.returncode, fork.stdout) == (fresh.returncode, fresh.stdout)
    assert fork.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]
    assert fresh.stdout.startswith("first words")
