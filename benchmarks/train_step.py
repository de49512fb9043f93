"""``python benchmarks/train_step.py ...`` is ``gpucnn benchmark ...``, from a clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn.cli.main import command

if __name__ == "__main__":
    command(["benchmark", *sys.argv[1:]])
