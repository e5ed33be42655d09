"""What has changed in a tree: as it travels, and when it is seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet import changes
from d1fleet.changes import EXACT, FILE, GONE, LINK, OTHER, Change, decode, encode, shows_late

S = 1_000_000_000
_NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name)
_CHANGES = st.builds(
    Change,
    _NAMES.filter(lambda name: name != b"..").map(lambda name: b"/t/" + name),
    st.sampled_from([FILE, EXACT, LINK, OTHER, GONE]),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
)


@given(st.lists(_CHANGES))
def test_what_travels_comes_as_it_was(found: list[Change]) -> None:
    assert [change for block in encode(found) for change in decode(block)] == found


def test_much_goes_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST_BYTES", 100)
    found = [Change(b"/t/%d" % number, FILE, 1, 2) for number in range(50)] + [
        Change(b"/" + b"x" * 200, GONE)
    ]
    blocks = encode(found)
    assert len(blocks) > 5 and all(len(block) <= 100 for block in blocks[:-1])
    assert [change for block in blocks for change in decode(block)] == found


@pytest.mark.parametrize(
    "block",
    [
        b"f 1 2 /a",
        b"x 1 2 /a\0",
        b"f -1 2 /a\0",
        b"f 1 2\0",
        b"f 1 2 a\0",
        b"f 1 2 /a/../b\0",
        b"\0",
        b"f 1 2x /a\0",
        b"f %d 2 /a\0" % 10**25,
    ],
)
def test_what_is_no_block(block: bytes) -> None:
    with pytest.raises(ValueError):
        decode(block)


@pytest.mark.parametrize(
    ("made", "found", "seen"),
    [
        (Change(b"/a", FILE, 5 * S + 7000, 3), Change(b"/a", FILE, 5 * S + 7000, 3), True),
        (Change(b"/a", FILE, 5 * S + 7000, 3), Change(b"/a", FILE, 5 * S + 6000, 3), False),
        (Change(b"/a", FILE, 5 * S + 7000, 3), Change(b"/a", FILE, 5 * S + 7000, 2), False),
        (
            Change(b"/a", FILE, 5 * S + 7000, 3),
            Change(b"/a", FILE, 5 * S + 8000, 2),
            True,
        ),  # changed again
        (
            Change(b"/a", FILE, 5 * S + 7000, 3),
            Change(b"/a", FILE, 5 * S, 3),
            True,
        ),  # knows seconds
        (Change(b"/a", FILE, 5 * S, 3), Change(b"/a", FILE, 5 * S + 7000, 3), True),
        (Change(b"/a", FILE, 5 * S + 7000, 3), Change(b"/a", FILE, 4 * S, 3), False),
        (Change(b"/a", FILE, 5 * S + 7000, 3), Change(b"/a", GONE), False),
        (Change(b"/a", FILE, 5 * S + 7000, 3), Change(b"/a", OTHER), False),
        (Change(b"/a", FILE, 5 * S + 456_789, 3), Change(b"/a", FILE, 5 * S + 456_700, 3), True),  # CIFS
        (Change(b"/a", EXACT, 5 * S + 7000, 3), Change(b"/a", FILE, 9 * S + 8, 3), False),  # cp -p over it
        (Change(b"/a", EXACT, 5 * S + 7000, 3), Change(b"/a", EXACT, 5 * S + 7000, 3), True),
        (Change(b"/a", EXACT, 5 * S + 7000, 3), Change(b"/a", FILE, 5 * S, 3), True),
        (
            Change(b"/a", LINK, 5 * S + 7000, 3),
            Change(b"/a", LINK, 4 * S + 7, 3),
            False,
        ),  # turned
        (Change(b"/a", LINK, 5 * S + 7000, 3), Change(b"/a", LINK, 5 * S + 7000, 3), True),
        (Change(b"/a", LINK, 5 * S + 7000, 3), Change(b"/a", FILE, 5 * S + 7000, 3), False),
        (Change(b"/a", OTHER), Change(b"/a", OTHER), True),
        (Change(b"/a", OTHER), Change(b"/a", GONE), False),
        (Change(b"/a", GONE), Change(b"/a", FILE, 9 * S, 3), False),
        (Change(b"/a", GONE), Change(b"/a", GONE), True),
    ],
)
def test_when_a_change_is_seen(made: Change, found: Change, seen: bool) -> None:
    assert made.is_seen(found) is seen


@pytest.mark.parametrize(
    ("kind", "options", "late"),
    [
        ("nfs4", "rw,vers=4.2", True),
        ("nfs4", "rw,noac,vers=4.2", False),
        ("nfs", "rw", True),
        ("fuse.sshfs", "rw", True),
        ("ext4", "rw", False),
        ("lustre", "rw", False),
        ("nfsd", "rw", False),
    ],
)
def test_mounts_that_show_changes_late(kind: str, options: str, late: bool) -> None:
    assert shows_late(kind, options) is late
