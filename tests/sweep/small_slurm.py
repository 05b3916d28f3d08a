"""Slurm's commands for one machine that never lets a job wait: real processes, files for a memory.

``small_slurm`` puts them into a folder for PATH. As with Slurm, jobs belong to nobody who
could take them along by dying, and what is known of a job is what ``squeue`` says.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_COMMAND = """#!{python}
import sys
sys.path.insert(0, {here!r})
from small_slurm import {name}
{name}({memory!r}, sys.argv[1:])
"""


def small_slurm(folder: Path) -> Path:
    """Write the commands; returns the folder for PATH."""
    memory, commands = folder / "memory", folder / "bin"
    memory.mkdir(parents=True)
    commands.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel"):
        text = _COMMAND.format(
            python=sys.executable, here=str(Path(__file__).parent), name=name, memory=str(memory)
        )
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return commands


def sbatch(memory: str, arguments: list[str]) -> None:
    script = Path(arguments[-1]).read_text()
    if "#SBATCH --partition=nowhere" in script:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    job_id = str(100 + len(list(Path(memory).glob("*.sh"))))
    (Path(memory) / f"{job_id}.sh").write_text(script)
    process = subprocess.Popen(
        ["bash", Path(memory) / f"{job_id}.sh"],
        env=os.environ | {"SLURM_JOB_ID": job_id, "SLURM_NTASKS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    (Path(memory) / f"{job_id}.group").write_text(str(process.pid))
    print(f"Submitted batch job {job_id}")


def srun(memory: str, arguments: list[str]) -> None:
    """Become the program, with its output where ``--output`` and ``--error`` say."""
    job_id = os.environ["SLURM_JOB_ID"]
    assert "--cpus-per-task" in " ".join(arguments)
    program = next(number for number, word in enumerate(arguments) if word == sys.executable)
    for option, descriptor in (("--output", 1), ("--error", 2)):
        path = arguments[arguments.index(option) + 1].replace("%j", job_id).replace("%t", "0")
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    (Path(memory) / f"{job_id}.step").write_text(str(os.getpid()))
    os.execv(arguments[program], arguments[program:])


def squeue(memory: str, arguments: list[str]) -> None:
    (jobs,) = [word for word in arguments if word.startswith("--jobs=")]
    for job_id in jobs.removeprefix("--jobs=").split(","):
        with suppress(FileNotFoundError):
            group = int((Path(memory) / f"{job_id}.group").read_text())
            print(job_id, "RUNNING" if _is_alive(group) else "FAILED")


def scancel(memory: str, arguments: list[str]) -> None:
    """With a signal, send it to the programs; without, end all of the jobs."""
    if "--state=PENDING" in arguments:
        return
    kind, number = ("group", signal.SIGKILL)
    if "--signal=TERM" in arguments:
        kind, number = ("step", signal.SIGTERM)
    for job_id in arguments:
        path = Path(memory) / f"{job_id}.{kind}"
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = int(path.read_text())
            os.kill(pid, number) if kind == "step" else os.killpg(pid, number)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
