"""What a pool's network and regression, averaged, are worth: a line of Markdown a registry.

    python benchmarks/pool_table.py MODELS_DIR [MODELS_DIR ...] [--tf 15m]

Each folder is the ``models_dir`` of one ``recipe=pooled blend=logistic`` run. Read from the
manifests of the served versions: mean log-loss skill over the markets of the network alone,
of the regression alone (each calibrated on validation rows) and of the two averaged, on
validation and test rows; on how many markets the average is ahead of the regression on test
rows; the mean weight of the network; how many were accepted.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

from percoin.evaluation.baselines import LOGISTIC
from percoin.evaluation.blend import BLEND, NETWORK, PartSkills
from percoin.registry.artifact import load_artifact
from percoin.registry.manifest import Manifest, StoredVerdict
from percoin.types import Timeframe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--tf", type=Timeframe, default=Timeframe.M15)
    arguments = parser.parse_args()
    print(
        "| models | markets | network: validation, test | logistic | blend | ahead of the "
        "logistic regression | weight of the network | accepted |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for folder in arguments.folders:
        print(row(folder, arguments.tf))


def row(folder: Path, timeframe: Timeframe) -> str:
    symbols = sorted(path.name for path in (folder / "per_coin").iterdir())
    manifests = [load_artifact(folder, symbol, timeframe).manifest for symbol in symbols]
    blended = [manifest for manifest in manifests if LOGISTIC in manifest.weights]
    ahead = sum(
        skills(manifest, "blend").test.value > skills(manifest, LOGISTIC).test.value
        for manifest in blended
    )
    weight = statistics.mean(manifest.weights[NETWORK] for manifest in blended)
    n_accepted = sum(manifest.gate.verdict is StoredVerdict.ACCEPTED for manifest in manifests)
    cells = [
        folder.name,
        str(len(blended)),
        *(both(blended, part) for part in (NETWORK, LOGISTIC, BLEND)),
        f"{ahead} of {len(blended)}",
        f"{weight:.2f}",
        str(n_accepted),
    ]
    return f"| {' | '.join(cells)} |"


def both(manifests: list[Manifest], part: str) -> str:
    validation = mean(manifests, lambda manifest: skills(manifest, part).validation.value)
    test = mean(manifests, lambda manifest: skills(manifest, part).test.value)
    return f"{validation:+.4f}, {test:+.4f}"


def mean(manifests: list[Manifest], value: Callable[[Manifest], float]) -> float:
    return statistics.mean(map(value, manifests))


def skills(manifest: Manifest, part: str) -> PartSkills:
    return manifest.part_skills[part]


if __name__ == "__main__":
    main()
