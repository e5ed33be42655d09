"""`python3 -m d1fleet.checkin`, and by this file's path where `python3 -ISE` knows of no package."""

import os
import sys

if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from d1fleet.checkin.main import main

if __name__ == "__main__":
    sys.exit(main())
