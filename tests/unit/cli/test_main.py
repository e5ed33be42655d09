"""What is said to those who forgot `build`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from d1fleet.cli.main import main
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
