"""What a build's recipes find first in PATH as `make`: shim.c, and standin.py of the same contract.

A folder of shims holds `make`, `gmake` and an empty `.d1fleet-shim`, by which every shim knows to pass it by.
`d1fleet.interpose` builds and places them.
"""
