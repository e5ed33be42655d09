"""A disk that is full in the middle of a write."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kill.conftest import TRANSPORTS, NewFleet
from tests.kill.fleet import SHORT

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]

SIZE_BYTES, OTHER_BYTES, TARGET_BYTES = 40 << 20, 36 << 20, 8 << 20

MAKEFILE = "all: ; $(MAKE) -C sub\n"
SUB = f"big.o: ; @head -c {TARGET_BYTES} /dev/zero > $@\n"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=0700", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        # What the build has ended on hosts may have been there a moment ago.
        deadline = time.monotonic() + 20.0
        while subprocess.run(["umount", place], check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not place.is_mount()


TIMES = [pytest.param(number, marks=[pytest.mark.full] if number else []) for number in range(10)]


@pytest.mark.parametrize("number", TIMES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_did_not_fit_is_not_taken_for_whole(
    new_fleet: NewFleet, tmp_path: Path, disk: Path, transport: str, number: int
) -> None:
    """make itself leaves it there, and mostly there is no room to move it. Then somebody frees some."""
    fleet = new_fleet(transport, SHORT)
    (disk / "sub").mkdir()
    (disk / "Makefile").write_text(MAKEFILE)
    (disk / "sub" / "Makefile").write_text(SUB)
    other = disk / "other"
    other.write_bytes(bytes(OTHER_BYTES))
    command, environment = fleet.command("-j2"), fleet.environment()
    ends = []
    for _ in range(2):
        ends.append(
            subprocess.run(command, cwd=disk, env=environment, capture_output=True, text=True, check=False)
        )
        other.unlink(missing_ok=True)
    first, second = (end.stderr for end in ends)
    assert [end.returncode for end in ends] == [2, 0], f"{first}\n---\n{second}"
    assert "where next to no room was left in its folder" in first
    said = "may be half written, and will be made again: sub/big.o"
    if said not in first:
        assert "sub/big.o may be half written, and was left where it is: it cannot be moved" in first
        assert said in second
    assert (disk / "sub" / "big.o").stat().st_size == TARGET_BYTES
