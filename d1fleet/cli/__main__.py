"""`python -m d1fleet.cli`."""

import sys

from .main import main

sys.exit(main())
