"""Newest closed bar of a market to a signal: ``python predict.py symbol=ETHUSDT``."""

import sys

from percoin.cli import run_command
from percoin.predict import main

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:]), config_name="predict"))
