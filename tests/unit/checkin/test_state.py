"""What the agent keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from d1fleet.checkin import facts
from d1fleet.checkin.state import State
from d1fleet.errors import RuntimeFolderError

CREDENTIAL = "abc.def-ghi_" * 4


@pytest.fixture
def state(tmp_path: Path) -> State:
    tmp_path.chmod(0o700)
    return State(str(tmp_path))


def test_a_credential_is_kept_for_us_alone(state: State, tmp_path: Path) -> None:
    assert state.credential() == ""
    state.keep_credential(CREDENTIAL)
    assert state.credential() == CREDENTIAL
    assert (tmp_path / "credential").stat().st_mode & 0o777 == 0o600
    state.keep_credential("x" * 40)
    assert state.credential() == "x" * 40
    assert os.listdir(tmp_path) == ["credential"]


@pytest.mark.parametrize(
    "text", ["", "short", "a b" * 20, "x" * 9000, "x" * 30 + "\r\nX-Evil: y", "\xff" * 30]
)
def test_what_is_no_credential_is_not_shown_to_anybody(state: State, tmp_path: Path, text: str) -> None:
    (tmp_path / "credential").write_bytes(text.encode("latin-1"))
    assert state.credential() == ""


def test_one_that_cannot_be_written_leaves_the_old_one(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.keep_credential(CREDENTIAL)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.keep_credential("x" * 40)
    assert state.credential() == CREDENTIAL
    assert os.listdir(tmp_path) == ["credential"]


def test_peers_are_kept(state: State, tmp_path: Path) -> None:
    assert state.peers() is None
    state.keep_peers({"name": "alder", "projects": {}})
    assert state.peers() == {"name": "alder", "projects": {}}
    (tmp_path / "peers").write_text('{"name": ')
    assert state.peers() is None


def test_a_machine_without_an_id_gets_a_number_that_stays(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "machine", lambda: "")
    first = state.machine()
    assert len(first) == 64 and state.machine() == first
    (tmp_path / "machine").write_text("nonsense")
    assert state.machine() not in ("nonsense", first)
    monkeypatch.setattr(facts, "machine", lambda: "1" * 64)
    assert state.machine() == "1" * 64


def test_tokens_are_noted_until_the_host_leaves(state: State, tmp_path: Path) -> None:
    state.keep_token("d1j_00000001")
    state.keep_token("d1j_00000002")
    assert state.tokens() == {"d1j_00000001", "d1j_00000002"}
    state.keep_credential(CREDENTIAL)
    state.keep_peers({})
    state.forget_membership()
    assert (state.tokens(), state.credential(), state.peers()) == (set(), "", None)
    assert os.listdir(tmp_path) == []
    state.forget_membership()


def test_a_folder_of_others_is_not_used(tmp_path: Path) -> None:
    for mode in (0o770, 0o707):
        tmp_path.chmod(mode)
        with pytest.raises(RuntimeFolderError, match="alone"):
            State(str(tmp_path))
    tmp_path.chmod(0o700)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RuntimeFolderError, match="alone"):
        State(str(tmp_path / "link"))
    with pytest.raises(RuntimeFolderError, match="cannot be looked at"):
        State(str(tmp_path / "none"))


def test_a_credential_that_is_a_link_is_none(state: State, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(CREDENTIAL)
    (tmp_path / "credential").symlink_to(tmp_path / "other")
    assert state.credential() == ""
    os.mkfifo(tmp_path / "peers")
    assert state.peers() is None
