"""`d1fleet` to which no tree is seen late."""

from __future__ import annotations

import sys

from d1fleet.cli.main import main
from d1fleet.visibility import Visibility

if __name__ == "__main__":
    Visibility.takes_part = lambda self, link, late: None  # type: ignore[method-assign]
    sys.exit(main())
