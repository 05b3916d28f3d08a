"""The layout of ARCHITECTURE.md, read from the imports: who may know whom."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import percoin

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "percoin"

# A module imports only what stands before it. A new module takes its place here first. A dotted
# name is a part with a place of its own, later than that of its package: a package's command
# composes configs and trains, and the package itself knows neither.
ORDER = (
    "errors",
    "printable",
    "json_codec",
    "memory",
    "file_lock",
    "whole_file",
    "interruption",
    "intervals",
    "types",
    "commands",
    "provenance",
    "plugins",
    "targets",
    "bars",
    "features",
    "labels",
    "splits",
    "windows",
    "dataset",
    "network",
    "own_network",
    "evaluation",
    "expected_move",
    "registry",
    "inference",
    "signals",
    "monitoring",
    "serving",
    "config",
    "assembly",
    "run_record",
    "run_folder",
    "cli",
    "fetch",
    "predict",
    "plot",
    "report",
    "signals.command",
    "judge",
    "training",
    "audit",
    "tuning",
    "sweep",
    "train",
    "registry.command",
    "retrain",
    "serve",
    "__main__",
)
TRAINING_FRAMEWORKS = {"lightning", "pytorch_lightning", "hydra", "omegaconf"}
# What a prediction would pay for at start-up without using it.
HEAVY = TRAINING_FRAMEWORKS | {
    "matplotlib",
    "pandera",
    "scipy",
    "sklearn",
    "tensorboard",
    "torchmetrics",
}
# What takes a tenth of a second or more to import.
EXPENSIVE = HEAVY | {
    *("torch", "onnxruntime", "onnx", "onnxscript", "optuna", "sqlalchemy", "fastapi", "ccxt"),
    *("arch", "ray", "submitit", "psycopg"),
}
# What each command needs of that before it has looked at its settings; of the training ones
# Lightning imports all but itself.
LIGHTNING = {"torch", "lightning", "torchmetrics", "matplotlib", "scipy", "hydra", "omegaconf"}
STARTS_WITH = {
    # Which imports what all recipes with networks do.
    "training.recipes.fleet": LIGHTNING,
    "training.pipeline": {"hydra", "omegaconf"},
    "training.recipes.last_row": {"hydra", "omegaconf"},
    "tuning.command": LIGHTNING | {"optuna", "sqlalchemy", "tensorboard"},
    "sweep.launcher": {"hydra", "omegaconf"},
    "registry.command.actions": {"hydra", "omegaconf"},
    "fetch": {"hydra", "omegaconf"},
    "audit.run": {"hydra", "omegaconf"},
    "signals.command": {"hydra", "omegaconf"},
    "judge.run": {"hydra", "omegaconf"},
    "retrain.round": {"hydra", "omegaconf", "sqlalchemy"},
    "serve": {"hydra", "omegaconf"},
    "report.page": set(),
}
# A command composes settings, trains or serves; what else needs one of its functions finds it in
# the room of what the function is about.
COMMANDS = ("fetch", "predict", "serve", "judge", "registry.command", "signals.command")
# What a library keeps to itself, it may change in any release.
LIBRARIES_WITH_PRIVATE_PARTS = {"hydra", "optuna", "ray"}
MOST_LINES = 60
MOST_PARAMETERS = 8
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools"}


def module_name(path: Path, package: Path = PACKAGE) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module that ``source`` imports anywhere, inside functions too, by its full name.

    ``from a import b`` gives ``a`` and ``a.b``, because ``b`` may be a module itself.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = len(parents) - node.level + is_package
                base = ".".join([*parents[:kept], *filter(None, [base])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def imports_of(path: Path) -> set[str]:
    is_package = path.name == "__init__.py"
    return set(imported_modules(path.read_text(), module_name(path), is_package))


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def owner(module: str) -> str | None:
    """The part of percoin that ``module`` belongs to: ``percoin.bars.store`` is in bars.

    A package's ``__main__`` belongs to its command, if that has a place of its own.
    """
    parts = module.split(".")
    if parts[0] != "percoin" or len(parts) == 1:
        return None
    subpackage = ".".join(parts[1:3]).replace(".__main__", ".command")
    return subpackage if subpackage in ORDER else parts[1]


def room(path: Path) -> str | None:
    """Where the module at ``path`` stands in the order."""
    return owner(module_name(path))


def known_parts() -> set[str]:
    return {name for path in sources() if (name := room(path))}


def test_imports_are_found_in_every_spelling():
    source = """
import percoin.bars.store
from percoin import labels
from . import schema
from ..features import scaling
def inside():
    from percoin.training import run
"""
    found = set(imported_modules(source, "percoin.bars.store", is_package=False))

    assert {
        "percoin.bars.store",
        "percoin.labels",
        "percoin.bars.schema",
        "percoin.features.scaling",
        "percoin.training.run",
    } <= found
    assert "percoin.bars.files" in set(
        imported_modules("from . import files", "percoin.bars", is_package=True)
    )


def test_every_part_of_the_package_has_its_place_in_the_order():
    assert known_parts() - set(ORDER) == set()


@pytest.mark.parametrize("part", ORDER)
def test_a_part_imports_only_what_stands_before_it(part):
    if part not in known_parts():
        pytest.fail(f"percoin.{part} is in the order but not in the package")
    allowed = set(ORDER[: ORDER.index(part) + 1])
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in sources()
        if room(path) == part
        for imported in sorted(imports_of(path))
        if owner(imported) in set(ORDER) - allowed
    ]

    assert wrong == []


def modules_loaded_by(statement: str) -> set[str]:
    """What a statement imports in a process of its own, beyond what Python itself needs."""
    code = (
        "import json, sys; before = set(sys.modules)\n"
        f"{statement}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert loaded.returncode == 0, loaded.stderr
    return set(json.loads(loaded.stdout))


def test_importing_the_package_loads_none_of_its_parts_and_no_library():
    loaded = modules_loaded_by("import percoin")
    tops = {name.split(".")[0] for name in loaded}

    assert {name for name in loaded if owner(name)} == set()
    assert tops - sys.stdlib_module_names == {"percoin"}


def test_the_package_hands_out_the_predictor_and_nothing_that_is_not_there():
    from percoin import Predictor, inference

    assert Predictor is inference.Predictor
    assert percoin.__all__ == ["Predictor"]
    with pytest.raises(AttributeError, match="no attribute 'Predictr'"):
        _ = percoin.Predictr


def test_nothing_up_to_signals_imports_lightning_or_hydra():
    early = set(ORDER[: ORDER.index("config")])
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in sources()
        if room(path) in early
        for imported in sorted(imports_of(path))
        if imported.split(".")[0] in TRAINING_FRAMEWORKS
    ]

    assert wrong == []


def test_every_module_is_named_for_what_it_owns():
    assert [path for path in sources() if set(module_name(path).split(".")) & NAMELESS] == []


def nodes(*kinds: type) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds in the package, with the file that it is in."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds):
                yield str(path.relative_to(PACKAGE)), node


def test_no_two_classes_have_one_name():
    places = defaultdict(list)
    for path, node in nodes(ast.ClassDef):
        places[node.name].append(path)

    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_only_a_command_knows_a_command():
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in sources()
        for imported in sorted(imports_of(path))
        if owner(imported) in COMMANDS or imported.endswith(".__main__")
        if owner(imported) != room(path) and path.name != "__main__.py"
    ]

    assert wrong == []


def test_training_imports_neither_the_report_nor_the_audit():
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in sources()
        if room(path) == "training"
        for imported in sorted(imports_of(path))
        if owner(imported) in {"report", "audit"}
    ]

    assert wrong == []


def private_part(dotted: str) -> str | None:
    """Up to the first name that is private: ``ray._private`` of ``ray._private.worker.Worker``."""
    library, *names = dotted.split(".")
    for position, name in enumerate(names, start=1):
        if name.startswith("_") and not name.startswith("__"):
            is_watched = library in LIBRARIES_WITH_PRIVATE_PARTS
            return ".".join([library, *names[:position]]) if is_watched else None
    return None


def test_no_private_part_of_a_library_is_used_where_there_is_a_public_one():
    assert private_part("optuna.study._tell.x") == "optuna.study._tell"
    assert private_part("optuna.__version__") is None
    imported = {(str(p.relative_to(PACKAGE)), name) for p in sources() for name in imports_of(p)}
    named = {(path, ast.unparse(node)) for path, node in nodes(ast.Attribute)}
    used = {(path, part) for path, name in imported | named if (part := private_part(name))}

    assert used == set()


def test_no_assert_says_what_a_type_or_a_return_value_can_say():
    assert [f"{path}:{node.lineno}" for path, node in nodes(ast.Assert)] == []


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{path} {node.name}"
        for path, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        if node.end_lineno - node.lineno + 1 > MOST_LINES
    }

    assert long == set()


def test_no_constructor_takes_more_than_eight_parameters():
    """Frozen dataclasses are records and settings name their keys; both are made by keyword."""
    many = set()
    for path, node in nodes(ast.ClassDef):
        decorators = "".join(map(ast.unparse, node.decorator_list))
        is_open = "dataclass" in decorators and "frozen=True" not in decorators
        entries = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        if is_open and len(entries) > MOST_PARAMETERS and not path.startswith("config/"):
            many.add(f"{path} {node.name}")
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                arguments = [*part.args.args, *part.args.kwonlyargs]
                if len(arguments) - 1 > MOST_PARAMETERS:
                    many.add(f"{path} {node.name}")

    assert many == set()


def test_every_library_that_the_code_imports_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = [extras[name] for name in extras if name != "dev"]
    declared = {
        requirement.split(">=")[0]
        for group in [project["dependencies"], *optional]
        for requirement in group
    }
    used = {
        name.split(".")[0]
        for path in sources()
        for name in imports_of(path)
        if name.split(".")[0] not in sys.stdlib_module_names | {"percoin"}
    }
    providers = packages_distributions()

    assert {name for name in used if not declared & set(providers.get(name, []))} == set()


def test_importing_inference_in_a_fresh_process_loads_no_training_library():
    loaded = modules_loaded_by("import percoin.inference")

    assert {name.split(".")[0] for name in loaded} & HEAVY == set()


@pytest.mark.slow
def test_training_in_a_notebook_loads_no_config_framework():
    loaded = modules_loaded_by("from percoin.training import *")

    assert "percoin.training.export" in loaded
    assert {name.split(".")[0] for name in loaded} & {"hydra", "omegaconf"} == set()


@pytest.mark.parametrize("module", ["inference", "signals.chain", "predict", "registry.artifact"])
def test_what_a_prediction_imports_loads_neither_of_its_two_engines(module):
    loaded = modules_loaded_by(f"import percoin.{module}")

    assert {name.split(".")[0] for name in loaded} & {"torch", "onnxruntime"} == set()


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(name, marks=pytest.mark.slow) if "torch" in may else name
        for name, may in STARTS_WITH.items()
    ],
)
def test_a_command_imports_nothing_heavy_that_it_may_not_use(module):
    loaded = modules_loaded_by(f"import percoin.{module}")

    assert {name.split(".")[0] for name in loaded} & EXPENSIVE <= STARTS_WITH[module]


# What has one home, by the words that give it away, and who else has a reason of its own.
FOUNDATIONS = {
    r"\bfcntl\b": {"file_lock"},
    # A line of the registry's history is added in place; its probe writes a file without a name.
    r"\bos\.fsync\b": {"whole_file", "registry.history", "registry.publish"},
    r"\.write_(text|bytes)\(|NamedTemporaryFile|mkstemp": set(),
    # Libraries put handlers of their own in place: Ray, submitit and uvicorn.
    r"\bsignal\.signal\(": {
        *("interruption", "serving.server"),
        *("sweep.engines.ray_cluster", "sweep.engines.slurm"),
    },
    r"\{[\w.]*\.lower:.*\{[\w.]*\.upper:": {"intervals"},
}


@pytest.mark.parametrize("words", FOUNDATIONS)
def test_a_foundation_is_not_built_a_second_time(words):
    found = {
        module_name(path).removeprefix("percoin.")
        for path in sources()
        if re.search(words, path.read_text())
    }

    assert found - FOUNDATIONS[words] == set()
