"""What is said to those who forgot `build`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from d1fleet.cli.main import cli, main, split_program
from d1fleet.errors import UsageError


def run(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["d1fleet", *words])
    return main()


@pytest.mark.parametrize(
    ("words", "said", "mend"),
    [
        (["-j8"], "d1fleet itself has no option -j", "did you mean d1fleet build -j8?"),
        (["-j", "8", "a b"], "d1fleet itself has no option -j", "did you mean d1fleet build -j 8 'a b'?"),
        (
            ["--hosts=a", "all"],
            "d1fleet itself has no option --hosts",
            "did you mean d1fleet build --hosts=a all?",
        ),
        (["all", "-j8"], "d1fleet has no command all", "did you mean d1fleet build all -j8?"),
        (["biuld", "-j8"], "d1fleet has no command biuld", "did you mean d1fleet build?"),
        (
            ["-j8", "build"],
            "d1fleet itself has no option -j",
            "write d1fleet build first, all arguments after it",
        ),
    ],
)
def test_build_was_forgotten(
    words: list[str],
    said: str,
    mend: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(words, monkeypatch) == UsageError.exit_code
    assert capfd.readouterr() == ("", f"d1fleet: {said}\nd1fleet:   mend: {mend}\n")


def test_an_option_of_the_groups_own_is_misspelt(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["--verison"], monkeypatch) == UsageError.exit_code
    assert "--version" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"), [(["--help"], "build"), (["build", "--help"], "its folder, host")]
)
def test_help_is_none_of_this(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words, monkeypatch) == 0
    assert said in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--command", "x"], ([], None, ["x"])),
        (["--command", "--", "x", "-j3", "--hosts"], ([], None, ["x", "-j3", "--hosts"])),
        (["-j8", "--command", "x"], ([], 8, ["x"])),
        (["--command", "-j8", "--", "x"], ([], 8, ["x"])),
        (["-j", "8", "--command", "-j", "x"], ([], 0, ["x"])),
        (["-j", "--command", "x"], ([], 0, ["x"])),
        (["--jobs", "3", "--command", "x"], ([], 3, ["x"])),
        (["--jobs=3", "--command", "x"], ([], 3, ["x"])),
        (["--hosts", "a", "-j8", "--strict", "--command", "x"], (["--hosts", "a", "--strict"], 8, ["x"])),
        (["--command", "--record=f", "x"], (["--record=f"], None, ["x"])),
        (["--command", "--", "--command"], ([], None, ["--command"])),
        (["--hosts", "--command", "all"], None),
        (["-j8", "all"], None),
        (["--", "--command", "x"], None),
        (["all"], None),
        ([], None),
    ],
)
def test_a_program_is_told_from_make(
    words: list[str], expected: tuple[list[str], int | None, list[str]] | None
) -> None:
    found = split_program(cli.commands["build"], words)
    if found is not None:
        found = ([word for word in found[0] if word != "--command"], *found[1:])
    assert found == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--command"], "--command is given, and no program"),
        (["--command", "--"], "--command is given, and no program"),
        (["-j8", "--command", "-j"], "--command is given, and no program"),
        (["-k", "all", "--command", "x"], "-k stands before --command"),
        (["-j0", "--command", "x"], "-j0 is no number of jobs"),
    ],
)
def test_a_program_that_is_asked_for_wrongly(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", *words], monkeypatch) == UsageError.exit_code
    assert said in capfd.readouterr().err
