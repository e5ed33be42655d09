"""What a host says of itself: its identity, its make, its view of a folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from d1fleet.errors import UnfitError
from d1fleet.server.facts import first_output, machine_identity, make_version, tree_difference


def _program(tmp_path: Path, text: str) -> bytes:
    path = tmp_path / "make"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return os.fsencode(path)


def test_identity_is_stable_and_not_the_machine_id() -> None:
    found = machine_identity()
    assert re.fullmatch(r"[0-9a-f]{32}", found)
    assert found == machine_identity()
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        if os.path.exists(path):
            assert found not in Path(path).read_text()


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("GNU Make 4.3", "4.3"),
        ("GNU Make 4.2.1", "4.2"),
        ("GNU Make 4.4.90", "4.4"),
        ("GNU Make 5.0", "5.0"),
        ("GNU Make 10.12", "10.12"),
    ],
)
def test_makes_that_fit(tmp_path: Path, output: str, version: str) -> None:
    program = _program(tmp_path, f'[ "$1" = --version ] && echo "{output}"\necho Built for x86_64')
    assert make_version(program) == version


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('echo "GNU Make 4.1"', "is GNU make 4.1"),
        ('echo "GNU Make 3.82"', "is GNU make 3.82"),
        ("echo bmake: illegal argument >&2; exit 2", "is not GNU make"),
        ("exit 0", "is not GNU make"),
        ('echo "xGNU Make 4.3"', "is not GNU make"),
        ('echo "GNU Make x"', "is not GNU make"),
    ],
)
def test_makes_that_do_not(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UnfitError, match=words) as caught:
        make_version(_program(tmp_path, text))
    assert str(tmp_path) in caught.value.message
    assert "install GNU make 4.2 or newer" in caught.value.mend


def test_a_make_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(UnfitError):
        make_version(os.fsencode(tmp_path / "missing"))


def test_a_program_that_prints_without_end(tmp_path: Path) -> None:
    found = first_output(_program(tmp_path, "exec cat /dev/zero"))
    assert 4096 <= len(found) <= 8192


def test_a_program_reads_nothing_of_ours(tmp_path: Path) -> None:
    program = _program(tmp_path, "readlink /proc/$$/fd/0; cat; echo noise >&2")
    assert first_output(program) == b"/dev/null\n"


def test_no_descriptor_and_no_child_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    first_output(_program(tmp_path, "echo x"))
    first_output(b"/nonexistent")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_same_tree(tmp_path: Path) -> None:
    nonce = tmp_path / "nonce"
    nonce.write_bytes(b"content")
    assert tree_difference(os.fsencode(tmp_path), os.fsencode(nonce), b"content") is None


@pytest.mark.parametrize("content", [b"", b"conten", b"content\n", b"CONTENT"])
def test_another_content(tmp_path: Path, content: bytes) -> None:
    nonce = tmp_path / "nonce"
    nonce.write_bytes(content)
    reason = tree_difference(os.fsencode(tmp_path), os.fsencode(nonce), b"content")
    assert reason == f"{tmp_path} on this host is another folder, not the coordinator's tree"


def test_no_such_file_and_no_such_folder(tmp_path: Path) -> None:
    missing = os.fsencode(tmp_path / "missing")
    assert "another folder" in (tree_difference(os.fsencode(tmp_path), missing, b"x") or "")
    assert "does not exist on this host" in (tree_difference(missing, missing + b"/n", b"x") or "")


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    assert "does not exist" in (tree_difference(os.fsencode(path), os.fsencode(path), b"") or "")


def test_a_nonce_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read" in (tree_difference(os.fsencode(tmp_path), os.fsencode(tmp_path), b"x") or "")


@pytest.mark.timeout(20)
def test_a_fifo_in_the_nonces_place_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nonce")
    assert tree_difference(os.fsencode(tmp_path), os.fsencode(tmp_path / "nonce"), b"x") is not None
