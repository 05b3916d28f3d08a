"""Newest closed bar of a market to a signal: ``python predict.py symbol=ETHUSDT``."""

import gc
import sys


def predict() -> None:
    """Compose the settings and answer them."""
    from percoin.cli import compose_config
    from percoin.config import PredictConfig, typed
    from percoin.predict import answer

    answer(typed(compose_config("predict", sys.argv[1:]), PredictConfig))


if __name__ == "__main__":
    # The process ends before garbage could matter, and looking for it among all that
    # the libraries create while they load is a tenth of the time to the answer.
    gc.disable()
    from percoin.cli import run_command

    sys.exit(run_command(predict, config_name="predict"))
