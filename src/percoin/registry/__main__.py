"""The command ``python -m percoin.registry``; its work is done in ``percoin.versions``."""

import sys

from percoin.versions.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
