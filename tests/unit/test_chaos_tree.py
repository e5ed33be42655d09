"""The copies of a tree that chaos breaks."""

from __future__ import annotations

import os
from pathlib import Path

from d1fleet import journal
from d1fleet.chaos_tree import Copies
from d1fleet.entries import Entry


def test_a_fresh_copy_has_no_history(tmp_path: Path) -> None:
    """The next build would put away what the last one may have torn, where there is nothing of it."""
    (tmp_path / "source").write_text("words\n")
    copies = Copies(tmp_path)
    copies.renew()
    (copies.copy / "made").touch()
    place = os.fsencode(os.path.realpath(copies.copy))
    kept = journal.Journal(place, 10.0, 6.0)
    kept.began(Entry(2, "alder", 7, place, [b"make"], {}))
    assert journal.left_over(place) is not None
    copies.renew()
    assert os.listdir(copies.copy) == ["source"]
    assert journal.left_over(place) is None
    os.close(kept._fd)
    copies.remove()
    assert os.listdir(tmp_path) == ["source"]
