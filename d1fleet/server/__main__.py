"""`python -m d1fleet.server`: the d1make server on stdin and stdout."""

import sys

from .main import main

sys.exit(main())
