"""The file of history: private, replaced as a whole, and no build fails because of it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from d1fleet import history_file
from d1fleet.history import History, job_key
from d1fleet.history_file import load_history, save_history

KEY = job_key("p", b"/tree", b"/tree/a", [b"all"])
OTHER = job_key("p", b"/tree", b"/tree/b", [b"all"])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "d1fleet" / "history" / "jobs"


def _learn(key: bytes) -> None:
    history = load_history()
    history.ran(key, 1.0, None, "h", 1e9)
    save_history(history)


def test_builds_teach_the_next_one(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert load_history().job(KEY) is None
    _learn(KEY)
    _learn(OTHER)
    assert load_history().job(KEY) is not None
    assert load_history().job(OTHER) is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["jobs"]
    assert capfd.readouterr() == ("", "")


def test_two_builds_at_once(path: Path) -> None:
    one, other = load_history(), load_history()
    one.ran(KEY, 1.0, None, "h", 1e9)
    other.ran(OTHER, 1.0, None, "h", 1e9)
    save_history(one)
    save_history(other)
    assert load_history().job(KEY) is not None
    assert load_history().job(OTHER) is not None


def test_a_build_that_learned_nothing_writes_nothing(path: Path) -> None:
    save_history(History())
    assert not path.exists()


def test_a_damaged_file_is_told_and_written_anew(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _learn(KEY)
    path.write_bytes(path.read_bytes()[:-1])
    assert load_history().job(KEY) is None
    assert "what past builds taught is not used" in capfd.readouterr().err
    _learn(OTHER)
    assert load_history().job(OTHER) is not None


def test_a_lock_that_is_held_for_ever_stops_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _learn(KEY)
    monkeypatch.setattr(history_file, "_LOCK_S", 0.0)
    fd = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    _learn(OTHER)
    os.close(fd)
    assert "what this build taught is not kept" in capfd.readouterr().err
    assert load_history().job(OTHER) is None


def test_a_cache_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    _learn(KEY)
    said = capfd.readouterr().err
    assert "is not used" in said and "is not kept" in said


def test_a_write_that_fails_leaves_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _learn(KEY)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        _learn(OTHER)
    assert "No space left" in capfd.readouterr().err
    assert os.listdir(path.parent) == ["jobs"]
    assert load_history().job(KEY) is not None
