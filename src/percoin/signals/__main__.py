"""The command: ``python -m percoin.signals symbol=BTCUSDT``."""

import sys

from percoin.signals.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
