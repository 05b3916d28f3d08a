"""Every shell command of README.md and of docs/ is run, or the page says why it is not.

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
import warm_processes

from percoin.cli import compose_config
from percoin.config import PredictConfig, TrainConfig, typed

ROOT = Path(__file__).parents[1]
# Their commands are run in this order, in one folder: README trains the model that others use.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL_LANGUAGES = {"console", "bash", "sh"}
SCRIPTS = {"python"}
OTHER_LANGUAGES = {"text", "json", "yaml", "toml", "csv", "ini"}
FENCE = re.compile(r"^ *```(?P<language>.*)$")
COMMENT = re.compile(r"^ *<!-- *(?P<text>.*?) *-->$")
SECONDS_PER_COMMAND = 600
FOR_A_SHELL = re.compile(r"[$`\\|&;<>(){}*?~!#]")
SCHEMAS = {"train": TrainConfig, "predict": PredictConfig}


@dataclass(frozen=True)
class Command:
    """One command of a page, with the line its block starts on."""

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
            is_directive = language.startswith("{")  # of the site: a table of contents, say
            if not is_directive and language not in SHELL_LANGUAGES | SCRIPTS | OTHER_LANGUAGES:
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
        # The package has conf/ by a link.
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
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


def arguments_of_python(line: str) -> list[str] | None:
    """What follows ``python`` in a line that is one call of it, or of ``percoin``, and no more."""
    if FOR_A_SHELL.search(re.sub("'[^']*'", "", line)):
        return None
    program, *words = shlex.split(line)
    if program == "percoin":
        return [str(Path(sys.executable).with_name("percoin")), *words]
    return words if program == "python" else None


def run_command(command: Command, checkout: Path) -> subprocess.CompletedProcess[str]:
    """Where nothing is left for a shell to do, by a fork that has the libraries already."""
    words = arguments_of_python(f"{command.line} {command.appended}")
    if words is None:
        return run_in_shell(command, checkout)
    return warm_processes.run(words, checkout, shell_environment(checkout), SECONDS_PER_COMMAND)


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


@pytest.mark.parametrize("run", [run_in_shell, run_command])
def test_a_command_runs_in_the_copy_with_this_interpreter(run, tmp_path):
    command = Command(
        "python -c 'import os, sys; print(os.getcwd(), sys.prefix, sys.argv)'", 1, "x"
    )

    result = run(command, tmp_path)

    assert result.stdout.split(maxsplit=2) == [str(tmp_path), sys.prefix, "['-c', 'x']\n"]


def test_a_failing_command_is_noticed_behind_a_pipe(tmp_path):
    assert run_command(Command("false | cat", 1), tmp_path).returncode != 0


def test_what_is_one_call_of_python_needs_no_shell():
    assert arguments_of_python("python predict.py 'chain=[ml,hold]' \"a b\"") == [
        *("predict.py", "chain=[ml,hold]", "a b")
    ]
    assert arguments_of_python("python -c 'print(1); print($2)'") == ["-c", "print(1); print($2)"]
    assert arguments_of_python("percoin report")[-1] == "report"
    for line in (
        *("python a.py | cat", "python a.py x=$(cat y)", "python a.py # why", "cat a.py"),
        *("ML_DEFAULT_TF=1h python predict.py", "cd x && python a.py", "python a.py *"),
    ):
        assert arguments_of_python(line) is None


def test_overrides_are_read_from_calls_of_the_two_programs():
    assert composed_by("ML_DEFAULT_TF=1h python train.py symbol=BTCUSDT +x=1 --cfg job  # why") == (
        "train",
        ["symbol=BTCUSDT", "+x=1"],
    )
    assert composed_by("python train.py -m symbol=$(cat symbols)") is None
    assert composed_by("tensorboard --logdir outputs") is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_on_a_page_exists_and_has_a_value_it_may_have(page):
    calls = [composed_by(command.line) for command in commands_in(page.read_text())]

    for name, overrides in filter(None, calls):
        assert typed(compose_config(name, overrides), SCHEMAS[name])


def test_the_readme_shows_both_programs():
    calls = [composed_by(command.line) for command in commands_in(PAGES[0].read_text())]

    assert {call[0] for call in calls if call} == {"train", "predict"}


def test_the_readme_is_a_door():
    assert len(PAGES[0].read_text().splitlines()) <= 250


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_on_the_pages_works(tmp_path):
    checkout, done = scratch_copy(tmp_path / "percoin"), set()
    for page in PAGES:
        for command in commands_in(page.read_text()):
            if command.not_run or command.line in done:
                continue
            done.add(command.line)
            started = time.monotonic()
            result = run_command(command, checkout)
            print(f"{time.monotonic() - started:.0f} s: {command.line} {command.appended}")
            assert result.returncode == 0, (
                f"{page.name} line {command.block_line}: {command.line} {command.appended}\n"
                f"exit code {result.returncode}\n{result.stdout[-4000:]}{result.stderr or ''}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_figure_on_a_page_is_still_to_be_filled_in(page):
    assert re.findall(r"\b(?:REAL|DEMO|STARTUP|TODO)_?[A-Z]+\b", page.read_text()) == []


def anchors_in(markdown: str) -> set[str]:
    """The anchors that a Markdown page has for its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", markdown, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page",
    sorted({*ROOT.glob("*.md"), *ROOT.glob("*/*.md")}),
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors_in(target.read_text()), f"{page.name}: {link}"
