"""``python scripts/evaluate.py ...`` is ``gpucnn evaluate ...``, from a clone and without an install."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from gpucnn.cli.main import command

if __name__ == "__main__":
    command(["evaluate", *sys.argv[1:]])
