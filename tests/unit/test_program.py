"""How a program is found: as a shell finds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from d1fleet.errors import NotExecutableError, ProgramError
from d1fleet.program import find


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, mode in (("one/tool", 0o644), ("two/tool", 0o755), ("two/only", 0o644), ("here", 0o755)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        path.chmod(mode)
    (tmp_path / "one" / "dir").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_may_not_be_executed_is_passed_by(folders: Path) -> None:
    assert find("tool", f"{folders}/none:{folders}/one:{folders}/two") == f"{folders}/two/tool"


@pytest.mark.parametrize("path", ["", "one:", ":two", "."])
def test_an_empty_folder_is_the_working_one(folders: Path, path: str) -> None:
    assert find("here", path) == "./here"


def test_a_word_with_a_slash_is_no_matter_of_path(folders: Path) -> None:
    assert find("./here", "/usr/bin") == "./here"
    assert find(f"{folders}/two/tool", "") == f"{folders}/two/tool"


@pytest.mark.parametrize("word", ["none", "./none", "tool/x", "", "one/none"])
def test_what_is_not_there(folders: Path, word: str) -> None:
    with pytest.raises(ProgramError) as caught:
        find(word, f"{folders}/one")
    assert caught.value.exit_code == 127


@pytest.mark.parametrize("word", ["tool", "dir", "./one", "one/tool", "two/only"])
def test_what_cannot_be_executed(folders: Path, word: str) -> None:
    with pytest.raises(NotExecutableError) as caught:
        find(word, f"{folders}/one")
    assert caught.value.exit_code == 126


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_may_not_be_looked_into(folders: Path) -> None:
    (folders / "one").chmod(0)
    with pytest.raises(ProgramError):
        find("tool", f"{folders}/one")
    (folders / "one").chmod(0o755)
