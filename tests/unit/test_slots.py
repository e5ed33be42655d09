"""Slot locks between real processes, in good folders and bad ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d1fleet.errors import RuntimeFolderError
from d1fleet.folders import slots_directory
from d1fleet.slots import SlotLocks

TOP = str(Path(__file__).parents[3])

CONTENDER = """
import os, sys
from d1fleet.slots import SlotLocks
folder, count, busy, rounds = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
locks = SlotLocks(folder, count)
print("ready", flush=True)
sys.stdin.readline()
held, taken = [], 0
while taken < rounds:
    index = locks.take()
    if index is None or len(held) == 3:
        if index is not None:
            held.append(index)
            os.close(os.open(f"{busy}/{index}", os.O_CREAT | os.O_EXCL))
            taken += 1
        for each in held:
            os.unlink(f"{busy}/{each}")
            locks.give(each)
        held = []
        continue
    assert 0 <= index < count, index
    os.close(os.open(f"{busy}/{index}", os.O_CREAT | os.O_EXCL))
    held.append(index)
    taken += 1
for each in held:
    os.unlink(f"{busy}/{each}")
    locks.give(each)
"""

HOLDER = """
import sys
from d1fleet.slots import SlotLocks
locks = SlotLocks(sys.argv[1], int(sys.argv[2]), int(sys.argv[4]))
print(*[locks.take() for _ in range(int(sys.argv[3]))], flush=True)
locks.want(len(sys.argv) > 5)
print("wants", flush=True)
sys.stdin.readline()
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": TOP},
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def holder() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that takes slots and keeps them."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: object) -> subprocess.Popen[str]:
            process = stack.enter_context(start(HOLDER, *arguments))
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., SlotLocks]]:
    tmp_path.chmod(0o1777)  # several users
    with contextlib.ExitStack() as stack:
        yield lambda count, uid=None: stack.enter_context(
            contextlib.closing(SlotLocks(str(tmp_path), count, uid))
        )


def test_processes_never_hold_the_same_slot(tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.mkdir()
    folder = tmp_path / "slots"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        ones = [stack.enter_context(start(CONTENDER, folder, 4, busy, 1500)) for _ in range(3)]
        assert [line(one) for one in ones] == ["ready"] * 3
        for one in ones:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        assert [one.wait(60) for one in ones] == [0, 0, 0]


def test_a_killed_holder_frees_its_slots(
    tmp_path: Path, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holder(tmp_path, 3, 2, 7)
    assert line(process) == "2 1"
    with contextlib.closing(SlotLocks(str(tmp_path), 3)) as locks:
        assert [locks.take(), locks.take()] == [0, None]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [locks.take(), locks.take(), locks.take()] == [2, 1, None]
        assert locks.held == 3


def test_give_and_close(make: Callable[..., SlotLocks]) -> None:
    one, other = make(2), make(2)
    assert [one.take(), one.take(), other.take()] == [1, 0, None]
    one.give(1)
    assert (one.held, other.take(), other.held) == (1, 1, 1)
    with pytest.raises(KeyError):
        one.give(1)
    one.close()
    one.close()
    assert (one.held, other.take()) == (0, 0)


def test_a_build_that_knows_fewer_slots_shares_the_lower_ones(make: Callable[..., SlotLocks]) -> None:
    small, large = make(2), make(4)
    assert [large.take(), large.take()] == [3, 2]
    assert [small.take(), small.take()] == [1, 0]
    assert large.take() is None


@pytest.mark.parametrize("count", [0, -1])
def test_no_slots_is_a_mistake(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match="slots"):
        SlotLocks(str(tmp_path), count)


def test_programs_that_are_started_hold_nothing(make: Callable[..., SlotLocks], tmp_path: Path) -> None:
    locks = make(1)
    locks.want(True)
    assert locks.take() == 0
    seen = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], stdout=subprocess.PIPE, text=True, close_fds=False, check=True
    )
    assert str(tmp_path) not in seen.stdout


# One user does not keep all while others wait


def test_while_another_waits_a_user_keeps_no_more_than_his_share(make: Callable[..., SlotLocks]) -> None:
    mine, other = make(5, 1), make(5, 2)
    taken = [mine.take() for _ in range(4)]
    other.want(True)
    assert mine.take() is None
    for index in taken[:2]:
        assert index is not None
        mine.give(index)
    # Two users share five: three each at most.
    assert (mine.take() is not None, mine.take()) == (True, None)
    assert [other.take() is not None for _ in range(3)] == [True, True, False]
    other.want(False)
    assert mine.take() is None, "all are taken"
    for index in range(5):
        with contextlib.suppress(KeyError):
            other.give(index)
    assert [mine.take() is not None for _ in range(3)] == [True, True, False]


def test_the_cap_counts_all_builds_of_a_user(make: Callable[..., SlotLocks]) -> None:
    first, second, other = make(4, 1), make(4, 1), make(4, 2)
    first.take()
    second.take()
    other.want(True)
    assert (first.take(), second.take()) == (None, None)


def test_holders_count_as_users(make: Callable[..., SlotLocks]) -> None:
    mine, holds, waits = make(6, 1), make(6, 2), make(6, 3)
    holds.take()
    mine.take()
    mine.take()
    waits.want(True)
    assert mine.take() is None, "a third of six"


def test_to_wait_oneself_is_no_reason_to_hold_less(make: Callable[..., SlotLocks]) -> None:
    mine, again = make(3, 1), make(3, 1)
    mine.want(True)
    again.want(True)
    assert [mine.take(), mine.take(), again.take()] == [2, 1, 0]


def test_a_user_waits_as_long_as_any_of_his_builds(make: Callable[..., SlotLocks]) -> None:
    first, second, other = make(2, 1), make(2, 1), make(2, 2)
    first.want(True)
    second.want(True)
    first.want(False)
    # Every try marks again.
    assert other.take() == 1
    assert second.take() == 0
    assert (other.take(), second.take()) == (None, None)
    second.give(0)
    assert other.take() is None, "second still waits"
    second.want(False)
    assert other.take() == 0


def test_a_killed_waiter_counts_no_more(
    tmp_path: Path, make: Callable[..., SlotLocks], holder: Callable[..., subprocess.Popen[str]]
) -> None:
    mine = make(2, 1)
    process = holder(tmp_path, 2, 0, 3, "wants")
    assert [line(process), line(process)] == ["", "wants"]
    assert [mine.take(), mine.take()] == [1, None]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert mine.take() == 0


def test_a_killed_holder_counts_no_more(
    tmp_path: Path, make: Callable[..., SlotLocks], holder: Callable[..., subprocess.Popen[str]]
) -> None:
    mine, other = make(6, 1), make(6, 2)
    assert [mine.take(), mine.take()] == [5, 4]
    process = holder(tmp_path, 6, 2, 3)
    assert line(process) == "3 2"
    other.want(True)
    assert mine.take() is None, "a third of six"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [mine.take(), mine.take()] == [3, None], "half of six"


def test_to_look_is_not_to_wait(tmp_path: Path, make: Callable[..., SlotLocks]) -> None:
    mine = make(2, 1)
    with open(tmp_path / "wait.2", "w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        assert [mine.take(), mine.take()] == [1, 0]


OPERATIONS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["take", "take", "give", "want", "rest"])), max_size=60
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 6), operations=OPERATIONS)
def test_any_order_of_takes_and_gives(tmp_path: Path, count: int, operations: list[tuple[int, str]]) -> None:
    tmp_path.chmod(0o1777)
    """Builds 0 and 1 are of one user, 2 and 3 of others."""
    users = [10, 10, 11, 12]
    with contextlib.ExitStack() as stack:
        builds = [
            stack.enter_context(contextlib.closing(SlotLocks(str(tmp_path), count, user))) for user in users
        ]
        held: list[set[int]] = [set() for _ in builds]
        wanting: set[int] = set()
        for who, what in operations:
            build, user = builds[who], users[who]
            if what == "take":
                waiting = {users[each] for each in wanting} - {user}
                sharers = (
                    waiting | {user} | {owner for owner, slots in zip(users, held, strict=True) if slots}
                )
                own = sum(len(slots) for owner, slots in zip(users, held, strict=True) if owner == user)
                used = set().union(*held)
                may = len(used) < count and (not waiting or own + 1 <= -(-count // len(sharers)))
                index = build.take()
                assert (index is not None) == may
                if index is not None:
                    assert index not in used and 0 <= index < count
                    held[who].add(index)
            elif what == "give" and held[who]:
                build.give(held[who].pop())
            elif what == "want" and not any(users[each] == user for each in wanting):
                build.want(True)
                wanting.add(who)
            elif what == "rest":
                build.want(False)
                wanting.discard(who)
            assert [each.held for each in builds] == [len(slots) for slots in held]


# What others may have put into the folder


def test_a_slot_file_that_is_no_plain_file_is_left_alone(
    tmp_path: Path, make: Callable[..., SlotLocks]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "slot.0").symlink_to(victim)
    linked = tmp_path / "linked"
    linked.write_text("precious")
    os.link(linked, tmp_path / "slot.1")
    (tmp_path / "slot.2").mkdir()
    os.mkfifo(tmp_path / "slot.3")
    (tmp_path / "wait.77").symlink_to(victim)
    (tmp_path / "wait.x").write_text("")
    (tmp_path / "slot.4").write_bytes(b"\xff\xfe nonsense")
    locks = make(6)
    assert [locks.take(), locks.take(), locks.take()] == [5, 4, None]
    locks.close()
    assert victim.read_text() == linked.read_text() == "precious"


def test_a_folder_that_was_cleaned_up_is_filled_again(tmp_path: Path, make: Callable[..., SlotLocks]) -> None:
    one, other = make(1), make(1)
    assert one.take() == 0
    one.give(0)
    assert other.take() == 0
    other.give(0)
    (tmp_path / "slot.0").unlink()
    assert (one.take(), other.take()) == (0, None)


def test_a_folder_that_was_taken_away_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "slots"
    folder.mkdir()
    with contextlib.closing(SlotLocks(str(folder), 1)) as locks:
        folder.rmdir()
        with pytest.raises(RuntimeFolderError, match="slot"):
            locks.take()


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("missing", "link"):
        with pytest.raises(RuntimeFolderError, match=name):
            SlotLocks(str(tmp_path / name), 1)


# Which folder


def choose(tmp_path: Path, **environ: str) -> str:
    return slots_directory(
        environ,
        system=str(tmp_path / "system"),
        run_user=str(tmp_path / "users"),
        temporary=str(tmp_path / "tmp"),
    )


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    for name in ("tmp", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    return tmp_path


def test_the_folder_of_ones_own(bases: Path) -> None:
    found = choose(bases)
    assert found == str(bases / f"tmp/d1fleet-{os.geteuid()}/slots")
    assert stat.S_IMODE(os.stat(found).st_mode) == 0o700
    assert choose(bases) == found
    runtime = choose(bases, XDG_RUNTIME_DIR=str(bases / "run"))
    assert runtime == str(bases / "run/d1fleet/slots")
    (bases / "users" / str(os.geteuid())).mkdir(parents=True)
    assert choose(bases).startswith(str(bases / "users"))


@pytest.mark.parametrize("runtime", ["", "run", "/nonexistent/run", "open"])
def test_a_runtime_folder_that_says_nothing_about_us_is_passed_over(
    bases: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.chdir(bases)
    if runtime == "open":
        (bases / "run").chmod(0o777)
        runtime = str(bases / "run")
    assert choose(bases, XDG_RUNTIME_DIR=runtime).startswith(str(bases / "tmp"))


@pytest.mark.parametrize("level", ["", "/slots"])
@pytest.mark.parametrize("fault", ["group", "others", "sticky", "symlink", "file"])
def test_a_bad_folder_is_refused(bases: Path, level: str, fault: str) -> None:
    bad = bases / f"tmp/d1fleet-{os.geteuid()}{level}"
    bad.parent.mkdir(exist_ok=True, mode=0o700)
    modes = {"group": 0o720, "others": 0o702, "sticky": 0o1777}
    if fault in modes:
        bad.mkdir()
        bad.chmod(modes[fault])
    elif fault == "symlink":
        (bases / "elsewhere").mkdir(mode=0o700)
        bad.symlink_to(bases / "elsewhere")
    else:
        bad.write_text("")
    with pytest.raises(RuntimeFolderError) as caught:
        choose(bases)
    assert str(bad) in caught.value.message
    assert str(bad) in caught.value.mend


def test_a_folder_of_another_user_is_refused(bases: Path) -> None:
    other = os.geteuid() + 1
    (bases / f"tmp/d1fleet-{other}").mkdir(mode=0o700)
    with pytest.raises(RuntimeFolderError, match="belongs to uid"):
        slots_directory({}, other, str(bases / "system"), str(bases / "users"), str(bases / "tmp"))


def test_a_folder_that_cannot_be_made_is_named(bases: Path) -> None:
    (bases / "tmp").rmdir()
    with pytest.raises(RuntimeFolderError, match="cannot be made"):
        choose(bases)


@pytest.mark.parametrize(("mode", "shared"), [(0o1777, True), (0o755, True), (0o777, False), (0o775, False)])
def test_the_folder_of_all_users(
    bases: Path, monkeypatch: pytest.MonkeyPatch, mode: int, shared: bool
) -> None:
    system = bases / "system"
    system.mkdir()
    system.chmod(mode)
    if os.geteuid() != 0:
        real = os.lstat
        monkeypatch.setattr(
            os, "lstat", lambda path: _as_root(real(path)) if path == str(system) else real(path)
        )
    assert (choose(bases) == str(system)) == shared


def _as_root(found: os.stat_result) -> os.stat_result:
    fields = list(found)
    fields[stat.ST_UID] = 0
    return os.stat_result(fields)


def test_the_folder_of_all_users_must_be_roots(bases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = bases / "system"
    system.mkdir()
    system.chmod(0o1777)
    if os.geteuid() == 0:
        os.chown(system, 1, 1)
    assert choose(bases) != str(system)


def test_one_of_all_may_gather(tmp_path: Path) -> None:
    with contextlib.closing(SlotLocks(str(tmp_path), 2)) as one:
        with contextlib.closing(SlotLocks(str(tmp_path), 2)) as other:
            assert other.gather() and other.gather()
            assert not one.gather()
            assert one.take() is None, "as long as another one gathers, it comes first"
            assert other.take() is not None
            other.end_gathering()
            assert one.take() is not None
            assert one.gather()
            assert not other.gather()
            one.end_gathering()
            assert other.gather()
        assert one.gather(), "who has ended gathers no more"
