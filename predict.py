"""Newest closed bar of a market to a signal: ``python predict.py symbol=ETHUSDT``."""

import sys

from percoin.__main__ import predict

if __name__ == "__main__":
    sys.exit(predict())
