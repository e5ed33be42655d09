"""Measures d1fleet on one machine, against plain make and against ssh: `python -m bench`."""
