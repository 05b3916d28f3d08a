"""What a clone holds: the files a newcomer meets and the versions they will get."""

import re
import subprocess
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import percoin
from percoin.types import check_symbol

ROOT = Path(__file__).parents[1]

# A folder of somebody's machine, or a package registry that everybody configures for themselves.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|work|Users)/[\w.]")
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|index[-]url\b")

# torch's GPU builds pin their CUDA packages themselves, and its CPU builds have none.
CUDA_PACKAGES = ("nvidia-", "cuda-", "triton")

TODAYS_SYMBOLS = (
    "BTC ETH BNB SOL XRP ADA DOGE AVAX DOT LINK POL LTC TRX ATOM UNI ETC "
    "XLM NEAR APT FIL ARB OP ICP VET ALGO AAVE SAND MANA AXS S EGLD THETA"
)


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared() -> list[Requirement]:
    groups = [project()["dependencies"], *project()["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


@cache
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pinned}


def git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "not a git repository" in answer.stderr:
        pytest.skip("not a git checkout")
    return answer.stdout


def test_symbols_holds_the_32_markets_on_one_line():
    text = (ROOT / "symbols").read_text()

    assert text == ",".join(f"{coin}USDT" for coin in TODAYS_SYMBOLS.split()) + "\n"
    assert len({check_symbol(symbol) for symbol in text.strip().split(",")}) == 32


@pytest.mark.parametrize("folder", ["models", "data", "outputs"])
def test_git_keeps_the_readme_alone_of_a_folder_that_runs_fill(folder):
    ignored = git(
        "check-ignore", f"{folder}/x.json", f"{folder}/a/b.parquet", f"{folder}/README.md"
    )

    assert ignored.splitlines() == [f"{folder}/x.json", f"{folder}/a/b.parquet"]
    assert (ROOT / folder / "README.md").is_file()


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("see /" + "home/ann/data", True),
        ("path=/" + "work/main", True),
        ("../shared/data/klines and network/work/x", False),
        ("--extra-index" + "-url https://host/simple", True),
        ("https://" + "pypi" + ".org/project/ta", True),
        ("installed from the package registries", False),
    ],
)
def test_machine_paths_and_registries_are_told_from_plain_text(text, is_found):
    assert bool(MACHINE_PATH.search(text) or REGISTRY.search(text)) == is_found


def test_no_tracked_file_names_a_machines_folder_or_a_registry():
    found = [
        f"{name}: {match.group()}"
        for name in git("ls-files").splitlines()
        if (ROOT / name).is_file()
        for pattern in (MACHINE_PATH, REGISTRY)
        if (match := pattern.search((ROOT / name).read_text(errors="replace")))
    ]

    assert found == []


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_the_tested_version_satisfies_the_declared_bound(requirement):
    assert requirement.specifier, "a dependency without a lower bound"
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_everything_that_is_installed_with_percoin_is_pinned():
    missing, seen, waiting = set(), set(), declared()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or name.startswith(CUDA_PACKAGES):
            continue
        seen.add(name)
        if name not in pins():
            missing.add(name)
        waiting += needed_by(requirement)

    assert missing == set()


def test_every_pinned_version_runs_on_the_oldest_python_that_percoin_promises():
    oldest = project()["requires-python"].removeprefix(">=") + ".0"
    asked = {
        canonicalize_name(found.name): found.metadata.get("Requires-Python")
        for found in distributions()
    }
    refusing = {
        name: asked[name]
        for name in pins()
        if asked.get(name) and oldest not in SpecifierSet(asked[name])
    }

    assert refusing == {}


def needed_by(requirement: Requirement) -> list[Requirement]:
    """What the installed distribution needs here, on this platform, with these extras."""
    try:
        needs = [Requirement(text) for text in requires(requirement.name) or []]
    except PackageNotFoundError:
        pytest.fail(f"{requirement.name} is not installed; run: make setup")
    extras = {"", *requirement.extras}
    return [
        need
        for need in needs
        if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in extras)
    ]


@cache
def locked() -> dict[str, str]:
    """The lines of the lock file by the name of their package."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {canonicalize_name(line.split("==")[0]): line for line in lines if line[:1] != "#"}


def test_the_lock_file_has_a_hash_of_every_version_and_names_no_place():
    entry = re.compile(r"[\w.-]+==[\w.]+( ; [^;#@]+?)?( --hash=sha256:[0-9a-f]{64})+")

    assert len(locked()) > 100
    assert [name for name, line in locked().items() if not entry.fullmatch(line)] == []


def test_the_lock_file_holds_the_tested_versions_of_all_that_a_server_needs():
    extras = project()["optional-dependencies"]
    waiting = [*project()["dependencies"]]
    waiting += [text for extra in ("serve", "onnx", "postgres") for text in extras[extra]]
    needed, left = set(), [Requirement(text) for text in waiting]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name not in needed and not name.startswith(CUDA_PACKAGES):
            needed.add(name)
            left += needed_by(requirement)

    assert needed - set(locked()) == set()
    for name, line in locked().items():
        if name in pins():
            assert line.startswith(f"{line.split('==')[0]}=={pins()[name]} "), line[:80]


def test_hydra_stays_below_the_next_minor_version():
    (hydra,) = [need for need in declared() if need.name == "hydra-core"]
    assert "1.4.0" not in hydra.specifier


def test_constraints_hold_public_versions_only():
    assert [pin for pin in pins().items() if Version(pin[1]).local] == []
    assert pins()["torch"] == "2.13.0"
    assert "percoin" not in pins()


def test_the_sample_package_is_pinned_by_hash():
    lines = (ROOT / "constraints" / "sample.txt").read_text().splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]

    assert wanted
    for line in wanted:
        assert re.fullmatch(r"[\w-]+==[\d.]+( --hash=sha256:[0-9a-f]{64})+", line)


def test_the_version_is_the_same_everywhere():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"\b\d+\.\d+\.\d+\b", changelog[changelog.index("## [Unreleased]") :])

    assert newest
    assert project()["version"] == percoin.__version__ == newest.group()


def test_the_tests_run_on_this_checkout():
    assert Path(percoin.__file__).resolve() == ROOT.resolve() / "src" / "percoin" / "__init__.py"


def test_the_licence_is_mit_and_goes_into_the_package():
    assert (
        (ROOT / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) 2026 The percoin")
    )
    assert project()["license"] == "MIT"
    assert project()["license-files"] == ["LICENSE"]


def test_make_alone_lists_every_target():
    # Under `make test` this is a make within a make, which would also name its folder.
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert set(phony[1].split()) == {line.split()[0] for line in listed.splitlines()[1:]}


def test_setup_names_what_is_missing_where_no_python_will_do(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "constraints/sample.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())

    result = subprocess.run(
        ["make", "setup", "PYTHON=false no-such-python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode != 0
    assert "no Python 3.11 or newer" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_the_readmes_test_command_and_then_the_demo():
    steps = re.findall(r"^make \w+$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text()

    assert steps == ["make test", "make lint", "make demo"]
    assert "make test" in readme
    assert "make demo" in readme
