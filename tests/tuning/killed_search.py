"""A search whose process kills itself in a trial: ``killed_search.py FOLDER TRIAL``."""

import os
import signal
import sys
from pathlib import Path

from tuning_builders import measure_worth, searcher, silent

from percoin.config import TrainConfig
from percoin.tuning.trial import Measured, Report


def main(folder: Path, in_trial: int) -> None:
    begun = 0

    def measure(settings: TrainConfig, report: Report) -> Measured:
        nonlocal begun
        begun += 1
        if begun == in_trial:
            report(1, 0.0)
            os.kill(os.getpid(), signal.SIGKILL)
        return measure_worth(settings, report)

    with searcher(folder, "experiment.trials=6") as search:
        search.run(measure, silent)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
