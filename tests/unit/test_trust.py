"""Settings files that came with a tree, before and after the user has said yes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from d1fleet.errors import RuntimeFolderError, TrustError, UsageError
from d1fleet.trust import FILE, require_trust, trust


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/d1fleet/trusted.json"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / FILE).write_text("slots: 2\n")
    return tmp_path / "tree" / FILE


def test_trust_is_for_this_place_and_this_content(file: Path, state: Path) -> None:
    with pytest.raises(TrustError, match="not trusted") as caught:
        require_trust(file, file.read_bytes())
    assert caught.value.mend == f"read it, then say: d1fleet trust {file.parent}"
    assert not state.parent.exists(), "to ask leaves nothing behind"
    assert trust(file.parent) == file
    require_trust(file, file.read_bytes())
    with pytest.raises(TrustError, match="has changed since"):
        require_trust(file, b"slots: 3\n")
    other = file.parent.parent / FILE
    other.write_bytes(file.read_bytes())
    with pytest.raises(TrustError, match="not trusted"):
        require_trust(other, other.read_bytes())
    assert state.stat().st_mode & 0o777 == 0o600
    assert state.parent.stat().st_mode & 0o777 == 0o700


def test_trust_by_file_by_link_and_of_several(file: Path, tmp_path: Path) -> None:
    trust(file)
    (tmp_path / "link").symlink_to(file.parent)
    require_trust(tmp_path / "link" / FILE, file.read_bytes())
    (tmp_path / FILE).write_text("slots: 9\n")
    trust(tmp_path)
    require_trust(file, file.read_bytes())


def test_nothing_to_trust(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"d1fleet\.yml cannot be read"):
        trust(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"x": 1}'])
def test_a_corrupt_record_trusts_nothing_and_is_made_anew(file: Path, state: Path, content: bytes) -> None:
    trust(file)
    state.write_bytes(content)
    with pytest.raises(TrustError):
        require_trust(file, file.read_bytes())
    trust(file)
    require_trust(file, file.read_bytes())


def test_a_record_that_others_can_write_is_refused(file: Path, state: Path) -> None:
    trust(file)
    state.parent.chmod(0o777)
    with pytest.raises(RuntimeFolderError, match="can be written by others"):
        require_trust(file, file.read_bytes())


def test_a_record_that_cannot_be_kept(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(RuntimeFolderError):
        trust(file)


def test_the_usual_place(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    trust(file)
    assert os.listdir(tmp_path / "home/.local/state/d1fleet") == ["trusted.json"]
