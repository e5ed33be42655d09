"""Starts this checkout's d1fleet without a variable in the environment, which recipes would see."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from d1fleet.cli import main  # noqa: E402 (the path comes first)

if __name__ == "__main__":
    sys.exit(main())
