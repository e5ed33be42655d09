"""The meter against made-up /proc and cgroup trees, and once against this machine's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from d1fleet.server import load
from d1fleet.server.load import LoadMeter, usable_cpus

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CGROUP2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
HYBRID = "\n".join(
    [
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    ]
)


class Machine:
    """A made-up root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_s = 100.0
        self.write("proc/meminfo", "MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n")
        self.write("proc/loadavg", "0.75 0.5 0.2 1/90 4711\n")
        self.write("proc/self/task/1/children", "")
        self.cpu(0)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def cgroups(self, own: str, mounts: str) -> None:
        self.write("proc/self/cgroup", own + "\n")
        self.write("proc/self/mountinfo", mounts + "\n")

    def cpu(self, user: int, *rest: int) -> None:
        """CPU 0: ticks of user, then of what follows in /proc/stat; CPU 1 is always busy, and not ours."""
        fields = [user, *rest, *[0] * (9 - len(rest))]
        line = " ".join(map(str, fields))
        self.write(
            "proc/stat",
            f"cpu  {line}\ncpu0 {line}\ncpu1 {round(self.now_s * 100)} 0 0 0 0 0 0 0 0 0\nintr 5\n",
        )

    def process(self, pid: int, ticks: int, waited: int = 0, children: str = "", parent: int = 1) -> None:
        stat = f"{pid} (a ) b) S {parent} " + "0 " * 9 + f"{ticks} 0 {waited} 0 20 0 1 0 {pid}7 0 0\n"
        self.write(f"proc/{pid}/stat", stat)
        self.write(f"proc/{pid}/task/{pid}/children", children)

    def gone(self, pid: int) -> None:
        (self.root / f"proc/{pid}/stat").unlink()

    def meter(self) -> LoadMeter:
        return LoadMeter(str(self.root), lambda: self.now_s)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    return Machine(tmp_path)


def many_cpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)))


QUOTAS = [
    ("nothing mounted", "0::/", "", {}, 8),
    ("v2, own group", "0::/a/b", CGROUP2, {"a/b/cpu.max": "150000 100000"}, 2),
    (
        "v2, a parent's is tighter",
        "0::/a/b",
        CGROUP2,
        {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"},
        3,
    ),
    ("v2, the top's counts (a container's own namespace)", "0::/", CGROUP2, {"cpu.max": "20000 100000"}, 1),
    ("v2, the top of what is mounted", "0::/a/b", CGROUP2, {"cpu.max": "310000 100000"}, 4),
    ("v2, wider than the affinity", "0::/a", CGROUP2, {"a/cpu.max": "9900000 100000"}, 8),
    ("v2, exactly whole", "0::/a", CGROUP2, {"a/cpu.max": "400000 100000"}, 4),
    (
        "v2, mounted from below the top",
        "0::/box/a",
        CGROUP2.replace(" / /sys", " /box /sys"),
        {"a/cpu.max": "500000 100000"},
        5,
    ),
    (
        "v2, our name is another namespace's",
        "0::/docker/77",
        CGROUP2.replace(" / /sys", " /docker/78 /sys"),
        {"cpu.max": "500000 100000"},
        5,
    ),
    (
        "hybrid, v1 rules",
        "1:cpu,cpuacct:/a/b\n0::/",
        HYBRID,
        {
            "unified/cpu.stat": "usage_usec 1",
            "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/a/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        },
        3,
    ),
    (
        "a mount point with a blank",
        "0::/a",
        CGROUP2.replace("/sys/fs/cgroup", "/sys/fs/c\\040g"),
        {"../c g/a/cpu.max": "200000 100000"},
        2,
    ),
]


@pytest.mark.parametrize(
    ("own", "mounts", "files", "expected"), [row[1:] for row in QUOTAS], ids=[r[0] for r in QUOTAS]
)
def test_usable_cpus(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    own: str,
    mounts: str,
    files: dict[str, str],
    expected: int,
) -> None:
    many_cpus(monkeypatch, 8)
    machine.cgroups(own, mounts)
    (machine.root / "sys/fs/cgroup/a/b").mkdir(parents=True)
    for path, text in files.items():
        machine.write(f"sys/fs/cgroup/{path}", text + "\n")
    assert usable_cpus(str(machine.root)) == expected


def test_others_are_what_is_used_less_our_own(machine: Machine) -> None:
    machine.process(10, ticks=0, children="11")
    machine.process(11, ticks=0)
    meter = machine.meter()
    machine.now_s += 2
    machine.cpu(120, 20, 30, 9999, 9999, 5, 5, 20)
    machine.process(10, ticks=10, waited=40, children="11 ")
    machine.process(11, ticks=50)
    found = meter.sample([10])
    assert found.own_cpus == pytest.approx(0.5)
    assert found.others_cpus == pytest.approx(0.5)
    assert found.load_1min == 0.75
    assert found.memory_available_bytes == 4000 * 1024


def test_affinity_says_which_cpus_count(machine: Machine) -> None:
    meter = machine.meter()
    machine.now_s += 2
    machine.cpu(0)
    assert meter.sample([]).others_cpus == 0


def test_without_lines_of_our_cpus_all_are_counted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5})
    meter = machine.meter()
    machine.now_s += 2
    machine.cpu(100)
    assert meter.sample([]).others_cpus == pytest.approx(0.5)


def test_a_process_that_vanishes_between_two_reads_is_not_counted_twice(machine: Machine) -> None:
    machine.process(10, ticks=0, children="11")
    machine.process(11, ticks=100)
    meter = machine.meter()
    for ticks, waited, child, expected in [(0, 0, True, 1.0), (0, 0, False, 0.0), (0, 150, False, 0.5)]:
        machine.now_s += 1
        machine.process(10, ticks=ticks, waited=waited, children="11")
        if not child and (machine.root / "proc/11/stat").exists():
            machine.gone(11)
        assert meter.sample([10]).own_cpus == pytest.approx(expected)


def test_a_fall_that_lasts_is_believed(machine: Machine) -> None:
    machine.process(10, ticks=100)
    meter = machine.meter()
    owns = []
    for ticks in (100, 20, 20, 120):
        machine.now_s += 1
        machine.process(10, ticks=ticks)
        owns.append(round(meter.sample([10]).own_cpus, 6))
    assert owns == [1.0, 0.0, 0.0, 1.0]


def test_a_supervisor_that_is_gone_and_one_that_never_was(machine: Machine) -> None:
    machine.process(10, ticks=50)
    meter = machine.meter()
    machine.now_s += 1
    assert meter.sample([10, 99]).own_cpus == pytest.approx(0.5)
    machine.gone(10)
    machine.now_s += 1
    assert meter.sample([10, 99]).own_cpus == 0


def test_without_children_files_parents_are_looked_up(machine: Machine) -> None:
    (machine.root / "proc/self/task/1/children").unlink()
    machine.process(10, ticks=10)
    machine.process(11, ticks=20, parent=10)
    machine.process(12, ticks=40, parent=11)
    machine.process(13, ticks=1000, parent=1)
    meter = machine.meter()
    machine.now_s += 1
    assert meter.sample([10]).own_cpus == pytest.approx(70 * TICK_S)


@pytest.mark.parametrize("kind", ["v2", "v1", "v1 apart"])
def test_under_a_quota_the_groups_account_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    many_cpus(monkeypatch, 2)
    quota = {"a/b/cpu.max": "max 100000", "a/cpu.max": "20000 100000"}
    quota_v1 = {"a/cpu.cfs_quota_us": "20000", "a/cpu.cfs_period_us": "100000", "a/b/x": ""}
    if kind == "v2":
        machine.cgroups("0::/a/b", CGROUP2)
        files, account, unit = quota, "a/cpu.stat", "usage_usec {}000000\nuser_usec 1\n"
    elif kind == "v1":
        machine.cgroups("1:cpu,cpuacct:/a/b", HYBRID)
        files = {f"cpu,cpuacct/{path}": text for path, text in quota_v1.items()}
        account, unit = "cpu,cpuacct/a/cpuacct.usage", "{}000000000\n"
    else:
        apart = "\n".join(
            f"3 1 0:2 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}" for name in ("cpu", "cpuacct")
        )
        machine.cgroups("1:cpu:/a/b\n2:cpuacct:/a/b", apart)
        files = {f"cpu/{path}": text for path, text in quota_v1.items()} | {"cpuacct/a/b/x": ""}
        account, unit = "cpuacct/a/cpuacct.usage", "{}000000000\n"
    for path, text in files.items():
        machine.write(f"sys/fs/cgroup/{path}", text + "\n")
    machine.write(f"sys/fs/cgroup/{account}", unit.format(1))
    machine.process(10, ticks=0)
    meter = machine.meter()
    machine.now_s += 20
    machine.cpu(1999)
    machine.process(10, ticks=100)
    machine.write(f"sys/fs/cgroup/{account}", unit.format(4))
    found = meter.sample([10])
    assert found.own_cpus == pytest.approx(0.05)
    assert found.others_cpus == pytest.approx(0.1)


def test_a_quota_that_does_not_bind_leaves_the_machine_to_be_measured(machine: Machine) -> None:
    machine.cgroups("0::/a", CGROUP2)
    machine.write("sys/fs/cgroup/a/cpu.max", "200000 100000\n")
    machine.write("sys/fs/cgroup/a/cpu.stat", "usage_usec 0\n")
    meter = machine.meter()
    machine.now_s += 1
    machine.cpu(100)
    assert meter.sample([]).others_cpus == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("own", "mounts", "files", "expected_kib"),
    [
        (
            "0::/a/b",
            CGROUP2,
            {"a/b/memory.max": "max", "a/memory.max": "1024000", "a/memory.current": "512000"},
            500,
        ),
        (
            "0::/a",
            CGROUP2,
            {
                "a/memory.max": "1024000",
                "a/memory.current": "1024000",
                "a/memory.stat": "anon 7\ninactive_file 102400\n",
            },
            100,
        ),
        ("0::/a", CGROUP2, {"a/memory.max": "max", "a/memory.high": "2048"}, 2),
        ("0::/a", CGROUP2, {"a/memory.max": "2048", "a/memory.current": "4096"}, 0),
        (
            "4:memory:/a",
            HYBRID,
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/a/memory.limit_in_bytes": "1024000",
                "memory/a/memory.usage_in_bytes": "1024000",
                "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 204800\n",
            },
            200,
        ),
    ],
)
def test_memory_is_bounded_by_the_group(
    machine: Machine, own: str, mounts: str, files: dict[str, str], expected_kib: int
) -> None:
    machine.cgroups(own, mounts)
    for path, text in files.items():
        machine.write(f"sys/fs/cgroup/{path}", text + "\n")
    assert machine.meter().sample([]).memory_available_bytes == expected_kib * 1024


def test_samples_too_close_together_repeat_the_last(machine: Machine) -> None:
    meter = machine.meter()
    machine.now_s += 1
    machine.cpu(50)
    first = meter.sample([])
    machine.now_s += 0.01
    machine.cpu(51)
    assert meter.sample([]) == first
    machine.now_s += 0.99
    assert meter.sample([]).others_cpus == pytest.approx(0.01)


def test_a_machine_that_shows_nothing_is_no_error(tmp_path: Path) -> None:
    ticks = iter([0.0, 1.0])
    assert LoadMeter(str(tmp_path), lambda: next(ticks)).sample([1]) == load.Load(0.0, 0.0, 0, 0.0)


def test_here_our_own_child_is_ours() -> None:
    """A busy child of this process counts as own on the real /proc, and is gone without an error."""
    now = [0.0]
    meter = LoadMeter(clock=lambda: now[0])
    used = "import os, signal\nwhile sum(os.times()[:2]) < 0.3: pass\nprint('x', flush=True)\nsignal.pause()"
    with subprocess.Popen([sys.executable, "-c", used], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == "x"
        now[0] += 1
        found = meter.sample([child.pid])
        child.send_signal(signal.SIGKILL)
    assert 0.25 <= found.own_cpus < 1
    assert found.memory_available_bytes > 0
    now[0] += 1
    assert meter.sample([child.pid]).own_cpus == 0
    assert usable_cpus() >= 1
