"""The conduct table: every row under plain make and under d1fleet, once per transport, at the same path.

Equal must be: stdout, stderr, exit status or signal, and all files with their contents and modes. Each row
also says what has to run on a server and what must not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import OVER_CONTAINERS, Stage
from .judge import check_places, check_plain, compare
from .rows import Row, load

ROWS = load()
TRANSPORTS = ("pipes", "ssh", "openssh", *OVER_CONTAINERS)

QUICK = {"pipes": (2, 0), "ssh": (6, 1), "openssh": (100, 3), "hosts": (60, 5)}
"""Of so many rows the one with that number goes that way in the quick tests too; in the full ones all do."""


def _cases() -> list[object]:
    cases: list[object] = []
    for transport in TRANSPORTS:
        for number, row in enumerate(ROWS):
            marks = [pytest.mark.xfail(reason=row.xfail)] if row.xfail else []
            of, one = QUICK.get(transport, (len(ROWS) + 1, len(ROWS)))
            if number % of != one:
                marks.append(pytest.mark.full)
            if transport in OVER_CONTAINERS:
                marks.append(pytest.mark.containers)
            cases.append(pytest.param(row, transport, id=f"{transport}-{row.name}", marks=marks))
    return cases


@pytest.mark.parametrize(("row", "hosts"), _cases(), indirect=["hosts"])
def test_as_plain_make(
    row: Row, stage: Stage, hosts: list[str], record_property: Callable[[str, object], None]
) -> None:
    plain = stage.plain(row)
    faults = check_plain(row, plain)
    assert not faults, "the row itself is wrong\n" + "\n".join(faults)
    other, jobs = stage.fleet(row, hosts)
    record_property("ran on", " ".join(job.host or "here" for job in jobs))
    faults = compare(row, plain, other) + check_places(row, jobs)
    assert not faults, "\n".join(faults) + f"\nstderr was {other.err[-1500:]!r}"


@pytest.mark.full
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_control(row: Row, stage: Stage) -> None:
    """Plain make twice: what differs here would be no fault of d1fleet's."""
    first, second = stage.plain(row), stage.run(row, lambda _: ["make"])
    assert check_plain(row, first) == []
    assert compare(row, first, second) == []


def test_the_table_is_large_enough() -> None:
    assert len(ROWS) >= 80
    assert sum(row.dispatch > 0 for row in ROWS) >= 60
