"""Hashes of what each way of training gives on simulated bars: a change of code keeps them.

    python stress/recipe_hashes.py [RECIPE...] [--keep FILE] [--compare FILE]

Each recipe is trained by its command in an empty folder, with fixed seeds and one thread. A line
for each model says the sha256 of its weights, of the numbers beside them (scaling, calibration,
regression, blend, verdict) and of its figures (history, test metrics, evaluation). ``--keep``
writes them to a file, ``--compare`` exits with 1 where one differs from such a file. The same
code on the same machine gives the same hashes; another processor or library may not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
COMMON = (
    *("tf=1h", "source=simulated", "history_days=100", "lookback=24"),
    *("workers=1", "logger=csv", "seed=7"),
)
NETWORK = ("model=cnn_lstm_half", "epochs=2")
LOGISTIC = "model=logistic"
POOL = ("recipe=pooled", "pooled.seeds=2", "pooled.windows_per_epoch=1500")
MARKETS = "symbol=BTCUSDT,ETHUSDT,SOLUSDT"
# The commands of each recipe in their order; all of them share one folder.
RECIPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "per_market": (("symbol=BTCUSDT",),),
    "blend": (("symbol=BTCUSDT", "blend=logistic"),),
    "walk_forward": (("symbol=ETHUSDT", "evaluation=walk_forward", "folds=2"),),
    "logistic": (("symbol=BTCUSDT", LOGISTIC),),
    "sweep": (("-m", "symbol=BTCUSDT,ETHUSDT"),),
    "fleet": (("fleet=true", MARKETS),),
    "pooled": ((MARKETS, *POOL),),
    "init_pooled": ((MARKETS, *POOL), ("symbol=BTCUSDT", "init=pooled")),
    "tune": (("symbol=BTCUSDT", "experiment=tune", "experiment.trials=2", "experiment.epochs=1"),),
}
# What of the two JSON files does not hang on when and where a model was trained.
NUMBERS = ("scaling", "calibration", "regression", "blend", "gate", "label_rule", "features")
FIGURES = ("training_history", "test_metrics", "evaluation", "daily_losses", "judging")


def main() -> int:
    """Train, print, keep or compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(RECIPES)}; all without")
    parser.add_argument("--keep", type=Path, help="write the hashes to this file")
    parser.add_argument("--compare", type=Path, help="exit with 1 where they differ from this file")
    arguments = parser.parse_args()
    unknown = set(arguments.recipes) - set(RECIPES)
    if unknown:
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}")
    hashes: dict[str, dict[str, str]] = {}
    for recipe in arguments.recipes or RECIPES:
        for name, found in train(recipe):
            hashes[name] = found
            print(name, *(f"{part} {value[:16]}" for part, value in found.items()), flush=True)
    if arguments.keep:
        arguments.keep.write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    if arguments.compare is None:
        return 0
    before = json.loads(arguments.compare.read_text(encoding="utf-8"))
    trained = arguments.recipes or RECIPES
    # A model of the file that is no longer made differs too.
    names = {*hashes, *(name for name in before if name.split("/")[0] in trained)}
    differing = sorted(name for name in names if before.get(name) != hashes.get(name))
    print("differs: " + ", ".join(differing) if differing else "all the same")
    return 1 if differing else 0


def train(recipe: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Run a recipe's commands in a folder of their own; the hashes of each model that is left."""
    with tempfile.TemporaryDirectory(prefix="percoin-hashes-") as name:
        for words in RECIPES[recipe]:
            network = () if LOGISTIC in words else NETWORK
            command = [sys.executable, str(TRAIN), *words[:1], *COMMON, *network, *words[1:]]
            done = subprocess.run(
                command,
                cwd=name,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"{recipe}: {' '.join(words)} failed\n{done.stderr[-2000:]}")
        for folder in sorted(Path(name).glob("models/per_coin/*/.versions/*/*/")):
            manifest = _json(folder / "meta.json")
            yield f"{recipe}/{manifest['symbol']}/{_number(folder)}", _hashes(folder, manifest)


def _number(folder: Path) -> int:
    """Which of its market's versions it is, from 1."""
    return sorted(path for path in folder.parent.iterdir() if path.is_dir()).index(folder) + 1


def _hashes(folder: Path, manifest: dict[str, Any]) -> dict[str, str]:
    metrics = _json(folder / "metrics.json")
    return {
        "weights": _of_weights(folder / "cnn_lstm_v1.pth"),
        "numbers": _of_json({part: manifest.get(part) for part in NUMBERS}),
        "figures": _of_json({part: metrics.get(part) for part in FIGURES}),
    }


def _of_weights(path: Path) -> str:
    if not path.is_file():
        return "none"
    digest = hashlib.sha256()
    for name, tensor in torch.load(path, weights_only=True).items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _of_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    sys.exit(main())
