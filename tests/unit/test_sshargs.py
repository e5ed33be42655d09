"""Options of ssh, by letter."""

from __future__ import annotations

import pytest

from d1fleet import sshargs


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["-4C", "-oA=b c", "-p", "22"], [("4", None), ("C", None), ("o", "A=b c"), ("p", "22")]),
        (["-Cp22"], [("C", None), ("p", "22")]),
        (["-o", "-J"], [("o", "-J")]),
    ],
)
def test_letters_and_values(words: list[str], expected: list[tuple[str, str | None]]) -> None:
    assert sshargs.parse(words) == expected
    assert sshargs.parse(sshargs.join(expected)) == expected


@pytest.mark.parametrize("words", [["host"], ["-"], ["--", "host"], ["-A"], ["-4N"], ["-o"], [""]])
def test_what_cannot_stand_there(words: list[str]) -> None:
    with pytest.raises(sshargs.BadOption):
        sshargs.parse(words)


def test_what_playbooks_need_beside_is_left_out() -> None:
    words = ["-ACtt", "-L", "1:b:2", "-vvvq", "-S", "/s", "-p7"]
    assert sshargs.of_inventory(words) == ("-C", "-p", "7")
    for letter in "NfWGVOQws":
        with pytest.raises(sshargs.BadOption):
            sshargs.of_inventory([f"-{letter}", "x"])


def test_the_last_configuration_counts() -> None:
    assert sshargs.config_file(["-F", "a", "-4Fb"]) == "b"
    assert sshargs.config_file(["-4"]) is None
