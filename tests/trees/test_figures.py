"""What is kept of whole trees, and its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trees.figures import HEAD, Figures, keep, kept, table

ONE = Figures("made", "8 x 0.2 CPU", 100.0, 25.0, 20.0, 8.0, 7.5, 15.0, 0.85, 0.6, 50)
BARE = Figures("lz4", "3 x 0.5 CPU", 10.0, 12.5)


def test_a_tree_is_kept_once_a_fleet(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "trees.json"
    for each in (
        ONE,
        BARE,
        Figures("made", "3 x 0.5 CPU", 1.0, 1.0),
        Figures("made", "8 x 0.2 CPU", 90.0, 25.0),
    ):
        keep(each, path)
    assert [(each.tree, each.fleet, each.plain_s) for each in kept(path)] == [
        ("lz4", "3 x 0.5 CPU", 10.0),
        ("made", "3 x 0.5 CPU", 1.0),
        ("made", "8 x 0.2 CPU", 90.0),
    ]


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"tree": "x"}]'])
def test_a_file_that_makes_no_sense_keeps_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trees.json"
    path.write_text(text)
    assert kept(path) == []


def test_the_table() -> None:
    head, one, bare = table([ONE, BARE]).splitlines()
    assert [head.index(word) for word in HEAD] == sorted(head.index(word) for word in HEAD)
    # d1fleet took a quarter; its last build was five times as fast, of eight times.
    shown = "made 8 x 0.2 CPU 100.0 25.0 0.25 20.0 5.00 8.00 62% 7.50 15.0 85% 60% 50"
    assert one.split() == shown.split()
    bare_shown = "lz4 3 x 0.5 CPU 10.0 12.5 1.25 - 0.80 - - - - - - 0"
    assert bare.split() == bare_shown.split()
