"""Train one signal classifier: ``python train.py symbol=BTCUSDT tf=15m``."""

import sys

from percoin.train import main

if __name__ == "__main__":
    sys.exit(main())
