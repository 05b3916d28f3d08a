"""The command ``python -m percoin.registry``; its work is done in ``percoin.registry.command``."""

import sys

from percoin.registry.command.actions import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
