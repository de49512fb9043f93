"""``python scripts/feature_maps.py ...`` is ``gpucnn features ...``, from a clone and without an install."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn.cli.main import command

if __name__ == "__main__":
    command(["features", *sys.argv[1:]])
