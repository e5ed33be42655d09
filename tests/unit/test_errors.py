"""The error tree as it is drawn, and the exit codes."""

from __future__ import annotations

import re

import pytest

from d1fleet import errors
from d1fleet.errors import D1fleetError


def _classes() -> list[type[D1fleetError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, D1fleetError)
    ]


def _drawn() -> dict[str, tuple[str | None, int]]:
    """name -> (parent, exit code), from the drawing."""
    found: dict[str, tuple[str | None, int]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+Error) +(?P<code>\d+)  \S", line)
        if match is None:
            continue
        while above and above[-1][0] >= len(match["indent"]):
            above.pop()
        assert match["name"] not in found
        found[match["name"]] = (above[-1][1] if above else None, int(match["code"]))
        above.append((len(match["indent"]), match["name"]))
    return found


def test_the_drawing_is_the_tree() -> None:
    coded = {
        cls.__name__: (
            cls.__base__.__name__ if cls.__base__ and cls is not D1fleetError else None,
            cls.exit_code,
        )
        for cls in _classes()
    }
    assert _drawn() == coded


def test_codes_are_ours_and_differ() -> None:
    codes = {cls: cls.exit_code for cls in _classes()}
    assert len(codes) == len(set(codes.values())) > 10
    # What a shell says of a program that it cannot start, wrappers say too.
    assert codes.pop(errors.ProgramError) == 127
    assert codes.pop(errors.NotExecutableError) == 126
    assert all(80 <= code <= 99 for code in codes.values())


def test_each_class_says_its_own_code_and_what_it_means() -> None:
    for cls in _classes():
        assert "exit_code" in vars(cls), cls
        assert cls.__doc__, cls


@pytest.mark.parametrize(("mend", "text"), [("", "it broke"), ("mend it", "it broke\n  mend: mend it")])
def test_words(mend: str, text: str) -> None:
    error = errors.ConnectError("it broke", mend)
    assert str(error) == text
    assert (error.message, error.mend) == ("it broke", mend)
