"""d1fleet: one make build, its sub-makes on many hosts."""

__version__ = "0.1.0"
