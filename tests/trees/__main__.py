"""`python -m tests.trees`: what builds of whole trees took, as their tests have found it last."""

from __future__ import annotations

from tests.trees.figures import kept, table

print(table(kept()) if kept() else "nothing is known: python tests/full.py --only trees-made ...")
