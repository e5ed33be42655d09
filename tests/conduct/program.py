"""Starts this checkout's d1fleet without a variable in the environment, which recipes would see.

Without a history, too: where a sub-make runs is the row's to say, and one that was short would stay here.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from d1fleet import history_file  # noqa: E402 (the path comes first)
from d1fleet.cli import main  # noqa: E402
from d1fleet.history import History  # noqa: E402

if __name__ == "__main__":
    history_file.load_history = History
    history_file.save_history = lambda history: None
    sys.exit(main())
