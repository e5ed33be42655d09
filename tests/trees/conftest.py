"""The program that recipes run, and the makes that trees are built with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.debsource import SourceUnavailable
from tests.support.make44 import real_make
from tests.trees.stamp import NoCompiler, stamp


@pytest.fixture(scope="session")
def stamp_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return stamp(tmp_path_factory.mktemp("stamp"))
    except NoCompiler as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["4.3", "4.4"])
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is to hold for each release of make: that one comes first in PATH."""
    try:
        make = real_make(request.param)
    except SourceUnavailable as reason:
        pytest.skip(str(reason))
    monkeypatch.setenv("PATH", f"{make.parent}:{os.environ['PATH']}")
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of what was seen with one make, the other has one test in the gate; the rest is left to `full`."""
    for item in items:
        # This hook is called with the tests of all folders.
        if (
            item.path.is_relative_to(Path(__file__).parent)
            and "4.4" in item.name
            and "files" not in item.name
        ):
            item.add_marker(pytest.mark.full)
