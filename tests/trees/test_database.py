"""What `make -p` prints is understood, whatever make of the tree has printed it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.trees.database import read_rules

TOP = """
all: maybe-sub last | order
maybe-sub: sub
maybe-sub:
sub: ; @$(MAKE) -C sub
last: maybe-sub ; @:
order: ; @:
twice:: a
twice:: b
a b: ; @:
last: VARIABLE := x: y
.PHONY: all sub
"""


@pytest.fixture
def output(tmp_path: Path) -> list[str]:
    (tmp_path / "sub").mkdir()
    (tmp_path / "Makefile").write_text(TOP)
    (tmp_path / "sub/Makefile").write_text("all: inner\ninner: ; @echo 'inner: no rule'\n")
    done = subprocess.run(
        ["make", "-p"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines(keepends=True)


def test_each_make_has_rules_of_its_own(output: list[str], tmp_path: Path) -> None:
    rules = read_rules(output)
    top = rules[str(tmp_path)]
    assert set(top["all"]) == {"maybe-sub", "last", "order"}
    assert top["maybe-sub"] == ("sub",)
    assert top["last"] == ("maybe-sub",)
    assert set(top["twice"]) == {"a", "b"}
    assert rules[str(tmp_path / "sub")]["all"] == ("inner",)


def test_what_is_no_target_is_passed_over(output: list[str], tmp_path: Path) -> None:
    known = read_rules(output)[str(tmp_path)]
    assert "last" in known
    assert not {"last: VARIABLE", "Makefile", ".DEFAULT_GOAL", "CURDIR"} & set(known)
    assert read_rules(["nothing of all this\n"]) == {}
