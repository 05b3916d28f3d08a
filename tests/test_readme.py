"""Every shell command in README.md is run, or the README says why it is not.

A block of commands is fenced as ``console`` (commands start with ``$ ``, the rest is output),
``bash`` or ``sh``; a block of ``python`` is a script. A comment on the line before the fence may
change what happens::

    <!-- not run: reason -->          the commands are not run; where they call train.py or
                                      predict.py their keys are checked all the same
    <!-- test: epochs=1 seed=3 -->    the words are appended to every command of the block
    <!-- test: max_epochs=1 -->       a script gives the name this value instead of its own
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from percoin.cli import compose_config
from percoin.config import PredictConfig, TrainConfig, typed

ROOT = Path(__file__).parents[1]
SHELL_LANGUAGES = {"console", "bash", "sh"}
SCRIPTS = {"python"}
OTHER_LANGUAGES = {"text", "json", "yaml", "toml", "csv"}
FENCE = re.compile(r"^ *```(?P<language>.*)$")
COMMENT = re.compile(r"^ *<!-- *(?P<text>.*?) *-->$")
SECONDS_PER_COMMAND = 600
SCHEMAS = {"train": TrainConfig, "predict": PredictConfig}


@dataclass(frozen=True)
class Command:
    """One command of the README, with the line its block starts on."""

    line: str
    block_line: int
    appended: str = ""
    not_run: str = ""


def commands_in(markdown: str) -> list[Command]:
    """Every shell command of ``markdown``, in order.

    Raises:
        ValueError: A fence without a known language, so that no command hides in
            it, or a comment before a fence that is neither of the two known.
    """
    commands: list[Command] = []
    language, block, before, start = None, [], "", 0
    for number, line in enumerate(markdown.splitlines(), start=1):
        fence = FENCE.match(line)
        if fence and language is None:
            language, block, start = fence["language"].strip(), [], number
            if language not in SHELL_LANGUAGES | SCRIPTS | OTHER_LANGUAGES:
                raise ValueError(f"line {number}: a block in {language or 'no language'}")
        elif fence:
            if language in SHELL_LANGUAGES:
                appended, not_run = instruction(before, start)
                lines = command_lines(block, with_prompt=language == "console")
                commands += [Command(text, start, appended, not_run) for text in lines]
            elif language in SCRIPTS:
                changes, not_run = instruction(before, start)
                script = changed("\n".join(block), changes.split(), start)
                commands.append(Command(f"python -c {shlex.quote(script)}", start, "", not_run))
            language, before = None, ""
        elif language is not None:
            block.append(line if language in SCRIPTS else line.strip())
        elif line.strip():
            before = line
    return commands


def instruction(before: str, block_line: int) -> tuple[str, str]:
    """What the line before a block asks for: words to append, reason not to run."""
    comment = COMMENT.match(before)
    if not comment:
        return "", ""
    kind, _, text = comment["text"].partition(":")
    if kind not in {"not run", "test"} or not text.strip():
        raise ValueError(f"line {block_line}: the comment before it is not understood: {before}")
    return (text.strip(), "") if kind == "test" else ("", text.strip())


def changed(script: str, changes: list[str], block_line: int) -> str:
    """The script with other values for the names that the changes give, as ``max_epochs=1``."""
    for change in changes:
        name, _, value = change.partition("=")
        script, n_found = re.subn(rf"\b{name}=[\w.]+", f"{name}={value}", script)
        if n_found != 1:
            raise ValueError(f"line {block_line}: {name} is given {n_found} times, not once")
    return script


def command_lines(block: list[str], with_prompt: bool) -> list[str]:
    """The commands of a block, each as one line; a final backslash joins two lines."""
    joined: list[str] = []
    continued = False
    for line in block:
        if continued:
            joined[-1] += " " + line.rstrip("\\").strip()
        elif with_prompt and line.startswith("$ "):
            joined.append(line[2:].rstrip("\\").strip())
        elif not with_prompt and line and not line.startswith("#"):
            joined.append(line.rstrip("\\").strip())
        else:
            continue
        continued = line.endswith("\\")
    return joined


def scratch_copy(folder: Path) -> Path:
    """Copy what git tracks or would track, so that no run touches the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def shell_environment(checkout: Path) -> dict[str, str]:
    """This interpreter first on PATH, the copy's own source before the installed one."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout / "src"),
        "OMP_NUM_THREADS": "1",
    }


def run_in_shell(command: Command, checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command.line} {command.appended}"],
        cwd=checkout,
        env=shell_environment(checkout),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_PER_COMMAND,
        check=False,
    )


def composed_by(line: str) -> tuple[str, list[str]] | None:
    """The config and overrides of a call of train.py or predict.py, if ``line`` is one.

    Sweeps and shell substitutions are left out: their values are no single config.
    """
    script = re.search(r"\bpython3? (train|predict)\.py\b(.*)", line)
    if not script or "$(" in line or {"-m", "--multirun"} & set(script[2].split()):
        return None
    words = shlex.split(script[2], comments=True)
    return script[1], [word for word in words if re.match(r"[+~]*[\w./@]+=", word)]


SMALL_README = """
Text with `code`.

```console
$ echo one
one
$ echo two \\
    three
```

<!-- not run: it takes hours -->
```bash
# a comment
python train.py symbol=BTCUSDT epochs=50

make demo
```

1. In a list:

   <!-- test: epochs=1 -->
   ```sh
   python train.py symbol=ETHUSDT
   ```

```text
$ this is no command
```

<!-- test: n=1 -->
```python
for _ in range(2):
    print(dict(n=3))
```
"""


def test_commands_are_taken_from_shell_blocks_alone():
    assert [command.line for command in commands_in(SMALL_README)] == [
        "echo one",
        "echo two three",
        "python train.py symbol=BTCUSDT epochs=50",
        "make demo",
        "python train.py symbol=ETHUSDT",
        "python -c 'for _ in range(2):\n    print(dict(n=1))'",
    ]


def test_a_comment_counts_for_the_block_after_it_alone():
    commands = commands_in(SMALL_README)

    assert [command.not_run for command in commands] == [
        "",
        "",
        "it takes hours",
        "it takes hours",
        "",
        "",
    ]
    assert [command.appended for command in commands] == ["", "", "", "", "epochs=1", ""]


@pytest.mark.parametrize(
    "markdown",
    [
        "<!-- not run -->\n```bash\nmake demo\n```",
        "<!-- not run: -->\n```bash\nmake demo\n```",
        "<!-- skip: because -->\n```bash\nmake demo\n```",
        "```\nmake demo\n```",
        "```shell\nmake demo\n```",
        "<!-- test: n=1 -->\n```python\nprint(3)\n```",
    ],
)
def test_a_block_that_would_go_unchecked_without_a_reason_is_refused(markdown):
    with pytest.raises(ValueError, match=r"line \d"):
        commands_in(markdown)


def test_a_command_runs_in_the_copy_with_this_interpreter(tmp_path):
    command = Command(
        "python -c 'import os, sys; print(os.getcwd(), sys.prefix, sys.argv)'", 1, "x"
    )

    result = run_in_shell(command, tmp_path)

    assert result.stdout.split(maxsplit=2) == [str(tmp_path), sys.prefix, "['-c', 'x']\n"]


def test_a_failing_command_is_noticed_behind_a_pipe(tmp_path):
    assert run_in_shell(Command("false | cat", 1), tmp_path).returncode != 0


def test_overrides_are_read_from_calls_of_the_two_programs():
    assert composed_by("ML_DEFAULT_TF=1h python train.py symbol=BTCUSDT +x=1 --cfg job  # why") == (
        "train",
        ["symbol=BTCUSDT", "+x=1"],
    )
    assert composed_by("python train.py -m symbol=$(cat symbols)") is None
    assert composed_by("tensorboard --logdir outputs") is None


def test_every_setting_in_the_readme_exists_and_has_a_value_it_may_have():
    calls = [composed_by(command.line) for command in commands_in((ROOT / "README.md").read_text())]
    checked = [call for call in calls if call]

    assert checked, "the README shows neither train.py nor predict.py"
    for name, overrides in checked:
        assert typed(compose_config(name, overrides), SCHEMAS[name])


@pytest.mark.timeout(3600)
def test_every_command_in_the_readme_works(tmp_path):
    commands = [
        command for command in commands_in((ROOT / "README.md").read_text()) if not command.not_run
    ]
    assert commands, "the README has no command that can be run"

    checkout = scratch_copy(tmp_path / "percoin")
    for command in commands:
        started = time.monotonic()
        result = run_in_shell(command, checkout)
        print(f"{time.monotonic() - started:.0f} s: {command.line} {command.appended}")
        assert result.returncode == 0, (
            f"README.md line {command.block_line}: {command.line} {command.appended}\n"
            f"exit code {result.returncode}\n{result.stdout[-4000:]}"
        )


def test_no_figure_in_the_readme_is_still_to_be_filled_in():
    assert (
        re.findall(r"\b(?:REAL|DEMO|STARTUP|TODO)_?[A-Z]+\b", (ROOT / "README.md").read_text())
        == []
    )
