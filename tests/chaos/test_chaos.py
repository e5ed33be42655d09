"""Faults in the middle of builds over SSH: what is made is what plain make makes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from d1fleet.chaos import TRIES
from d1fleet.chaos_faults import BY_NAME, FAULTS
from d1fleet.errors import ChaosError, UsageError
from tests.chaos.tree import make_tree
from tests.chaos.trial import Trial, shown, trial
from tests.kill.fleet import CHECKOUT
from tests.support.sshd import missing_reason

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "sshd is there"),
]

SEED = int.from_bytes(os.urandom(4))

USUAL = [fault.name for fault in FAULTS if fault.usual]

AGAIN_LIMIT_S = 20.0
"""From a loss until the work is given to another host, with the leases that users have."""

CORRUPTING = ("supervisor", "make", "freeze", "thaw", "host", "all")
"""Those that leave something torn where nobody sees to that."""


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with trial(tmp_path_factory.mktemp("chaos"), SEED) as found:
        assert found.peace.clean  # its logins last longer than a test
        yield found


@pytest.fixture(scope="module")
def unprotected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with trial(tmp_path_factory.mktemp("chaos"), SEED, protected=False) as found:
        assert found.peace.clean
        yield found


@pytest.fixture(scope="module")
def usual_leases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with trial(tmp_path_factory.mktemp("chaos"), SEED, times=None) as found:
        assert found.peace.clean
        yield found


def check(trial: Trial, name: str) -> None:
    outcome = trial.strike(name)
    if name == "garbage" and "ptrace_scope" in outcome.skipped:
        pytest.skip(outcome.skipped)
    assert not outcome.skipped, f"{SEED}: {shown(outcome)}: {outcome.skipped}"
    assert not outcome.wrong, f"{SEED}: {shown(outcome)}"
    if name == "garbage":
        logs = "".join(path.read_text() for path in trial.chaos.folder.glob("*garbage.log"))
        assert "its server sent what the protocol does not allow" in logs
    assert outcome.host and outcome.recipe and outcome.folder.startswith(str(trial.tree))


@pytest.mark.parametrize("name", USUAL)
def test_what_is_made_is_right(protected: Trial, name: str) -> None:
    check(protected, name)


def test_the_build_in_peace_was_slow(protected: Trial) -> None:
    """Then most blows would fall when the build is over."""
    slow = replace(protected.peace, took_s=20 * protected.peace.took_s)
    assert not protected.chaos.strike(BY_NAME["make"], slow).skipped


@pytest.mark.full
@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("name", USUAL)
def test_it_is_right_each_time(protected: Trial, name: str, number: int) -> None:
    check(protected, name)


@pytest.mark.full
@pytest.mark.parametrize("name", CORRUPTING)
def test_without_protection_it_is_not(unprotected: Trial, name: str) -> None:
    """Else the faults would prove nothing."""
    outcomes = []
    for _ in range(12):
        outcomes.append(unprotected.strike(name))
        if outcomes[-1].wrong:
            return
    pytest.fail(f"{SEED}: nothing was torn: {[*map(shown, outcomes)]}")


@pytest.mark.full
@pytest.mark.parametrize("name", ["host", "freeze", "cut", "sshd", "server", "hang"])
def test_how_soon_it_is_done_again(usual_leases: Trial, name: str) -> None:
    for _ in range(TRIES):
        outcome = usual_leases.strike(name)
        assert not outcome.skipped and not outcome.wrong, f"{SEED}: {shown(outcome)}: {outcome.skipped}"
        if outcome.again_s is not None:  # else what was hit had a moment left to end by itself
            print(f"{name}: again after {outcome.again_s:.1f} s, took {outcome.took_s:.1f} s")
            assert outcome.again_s <= AGAIN_LIMIT_S
            return
    pytest.fail(f"nothing was lost, {TRIES} times")


def run(trial: Trial, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "d1fleet.cli", "chaos", *arguments],
        cwd=cwd or trial.tree,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(protected: Trial) -> None:
    # Builds run in a copy of the tree: what was typed counts from here.
    typed = [
        os.path.relpath(each, protected.tree) if "/sshd/" in each else each for each in protected.arguments
    ]
    assert typed != protected.arguments
    done = run(protected, *typed, "--faults", "supervisor,make", "--", "make", "-j6")
    assert done.returncode == 0, done.stderr
    heads, first, second, _, _, total = done.stdout.splitlines()
    assert heads.split()[:2] == ["fault", "host"]
    assert first.startswith("supervisor  ") and first.endswith("equal")
    assert second.startswith("make  ") and " 2, then 0 " in second
    assert total.startswith("2 of 2 runs ended as with plain make: equal in all ")
    assert not (protected.tree / ".d1fleet-chaos").exists()
    done = run(protected, *protected.arguments, "--faults", "look", "--", "-j6")
    assert done.returncode == UsageError.exit_code and "there is no fault 'look'" in done.stderr
    assert run(protected, "--", "-j6").returncode == UsageError.exit_code
    assert "coordinator" in run(protected, "--faults", "list").stdout


def test_where_nothing_can_be_tried(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    trial = Trial(None, ["--hosts", ":/2"], tree)  # type: ignore[arg-type]

    def refused(*arguments: str) -> str:
        done = run(trial, *trial.arguments, *arguments)
        assert done.returncode == ChaosError.exit_code, done.stderr
        return done.stdout + done.stderr

    assert "plain make ends with 2 in a copy of this tree: make: *** No rule to make target" in refused(
        "nothing"
    )
    said = refused("--faults", "sshd,cut,thaw", "-j2")
    assert "no host is reached over SSH" in said and "no fault could be made" in said
    assert "the frozen one would keep its slots" in said
    subprocess.run(["make", "-s", "-j2"], cwd=tree, check=True)
    assert "in a copy of this tree make has nothing to do" in refused("-j2")
    done = run(trial, *trial.arguments, "--fault", "sshd")
    assert done.returncode == UsageError.exit_code and "has an option --fault" in done.stderr


def test_faults_of_the_site_s_own(protected: Trial, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    own = (
        f"--own=note=echo broken $D1FLEET_CHAOS_HOST $D1FLEET_CHAOS_ADDRESS >> {noted}",
        f"--own-heal=note=echo mended $D1FLEET_CHAOS_HOST >> {noted}",
        "--own=bad=echo no switch; exit 3",
    )
    done = run(protected, *protected.arguments, *own, "--faults", "note,bad", "--", "-j6")
    assert done.returncode == 0, done.stderr
    broken, mended = noted.read_text().splitlines()
    name = broken.split()[1]
    assert (broken, mended) == (f"broken {name} {name}", f"mended {name}")
    assert (
        "not done: bad (echo no switch; exit 3): echo no switch; exit 3: exit status 3: no switch"
        in done.stdout
    )
    for wrong in (("--own", "host=x"), ("--own", "n="), ("--own-heal", "n=x")):
        assert run(protected, *protected.arguments, *wrong).returncode == UsageError.exit_code
