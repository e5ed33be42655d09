"""What a job costs on a machine, and what machines are taken to be able to."""

from __future__ import annotations

import pytest

from d1fleet.machines import FASTEST, SHORT_OF_MEMORY, SLOWEST, Machine


@pytest.mark.parametrize(
    ("machine", "narrow", "wide"),
    [
        (Machine(4, cpus=4), 1.0, 0.25),
        (Machine(4, used=3, cpus=4), 1.0, 1.0),
        (Machine(4, used=1, cpus=4, speed=2.0), 0.5, 0.25),
        (Machine(8, cpus=4), 2.0, 0.125),
        (Machine(4, cpus=4, others_cpus=2.0), 1.5, 0.75),
        (Machine(4, used=-2, cpus=4), 1.0, 0.25),
        (Machine(1, cpus=1, available_bytes=0), SHORT_OF_MEMORY, SHORT_OF_MEMORY),
    ],
)
def test_pace(machine: Machine, narrow: float, wide: float) -> None:
    """Seconds for a second's work: a job that runs one recipe, and one that could use all that is left."""
    assert machine.pace(1, wide=False) == pytest.approx(narrow)
    assert machine.pace(1, wide=True) == pytest.approx(wide)


def test_what_a_full_machine_does() -> None:
    assert Machine(4, cpus=4, speed=2.0).usable == pytest.approx(8.0)
    assert Machine(4, cpus=4, others_cpus=4.0).usable == pytest.approx(2.0)


def test_one_wild_observation_changes_little() -> None:
    machine = Machine(1, sureness=20.0)
    machine.learn(1000.0, 1.0)
    assert machine.speed < 1.1


@pytest.mark.parametrize(("ratio", "limit"), [(1e9, FASTEST), (1e-9, SLOWEST)])
def test_speeds_have_bounds(ratio: float, limit: float) -> None:
    machine = Machine(1)
    for _ in range(1000):
        machine.learn(ratio, 1.0)
    assert machine.speed == limit


def test_a_machine_that_was_slow_for_a_while_recovers() -> None:
    machine = Machine(1)
    for _ in range(1000):
        machine.learn(0.25, 1.0)
    assert machine.speed == pytest.approx(0.25)
    for _ in range(200):
        machine.learn(1.0, 1.0)
    assert machine.speed > 0.9
