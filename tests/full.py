"""All tests, in parts: each in a pytest of its own; a part that has passed for this commit is not run again.

    python tests/full.py [--list] [--again] [--only PART ...]

To add a part, add a line to PARTS. A part has to end within LIMIT_MIN.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".cache" / "full.json"
LIMIT_MIN = 45


@dataclass(frozen=True)
class Part:
    """Some of the tests; `select` are pytest's arguments, of which `-m ""` takes tests of every marker."""

    name: str
    select: Sequence[str]


PARTS = (
    Part("quick", ("-m", "not full", "tests/unit")),
    Part("conduct-control", ("-m", "not containers", "tests/conduct", "-k", "not pipes and not ssh")),
    Part("conduct-pipes", ("-m", "", "tests/conduct", "-k", "pipes")),
    Part("conduct-ssh", ("-m", "", "tests/conduct", "-k", "ssh and not openssh")),
    Part("conduct-openssh", ("-m", "not containers", "tests/conduct", "-k", "openssh")),
    Part("conduct-hosts", ("-m", "containers", "tests/conduct", "-k", "not openssh")),
    Part("conduct-hosts-openssh", ("-m", "containers", "tests/conduct", "-k", "openssh")),
    Part("limits", ("-m", "", "tests/limits", "-k", "not openssh")),
    Part("limits-openssh", ("-m", "", "tests/limits", "-k", "openssh")),
    Part("packages-e2fsprogs", ("-m", "", "tests/packages", "-k", "e2fsprogs")),
    Part("packages-xfsprogs", ("-m", "", "tests/packages", "-k", "xfsprogs")),
    Part("trees-made", ("-m", "", "tests/trees", "-k", "not test_package and not test_debian")),
    Part("trees-e2fsprogs", ("-m", "", "tests/trees/test_trees.py", "-k", "e2fsprogs")),
    Part("trees-cmake", ("-m", "", "tests/trees/test_trees.py", "-k", "mbedtls")),
    Part("trees-binutils", ("-m", "", "tests/trees/test_trees.py", "-k", "binutils")),
    Part("trees-debian", ("-m", "", "tests/trees/test_trees.py", "-k", "debian")),
    Part("packages-debian", ("-m", "", "tests/packages/test_debian_packages.py")),
    Part("command", ("-m", "", "tests/command")),
    Part("depth", ("-m", "", "tests/depth")),
    Part("learning", ("-m", "", "tests/learning")),
    Part(
        "kill-events-pipes", ("-m", "", "tests/kill/test_events.py", "-k", "not ssh and not killed_clients")
    ),
    Part("kill-events-ssh", ("-m", "", "tests/kill/test_events.py", "-k", "ssh and not openssh")),
    Part("kill-events-openssh", ("-m", "", "tests/kill/test_events.py", "-k", "openssh or killed_clients")),
    Part("kill-hosts", ("-m", "", "tests/kill/test_hosts.py", "-k", "not openssh")),
    Part("kill-hosts-openssh", ("-m", "", "tests/kill/test_hosts.py", "-k", "openssh")),
    Part("faults", ("-m", "", "tests/faults", "--ignore=tests/faults/test_late.py")),
    Part("faults-late", ("-m", "", "tests/faults/test_late.py")),
    Part("chaos", ("-m", "not full", "tests/chaos")),
    Part("chaos-again", ("-m", "full", "tests/chaos/test_chaos.py", "-k", "how_soon")),
    Part("chaos-torn", ("-m", "full", "tests/chaos/test_chaos.py", "-k", "without_protection")),
    Part(
        "chaos-frozen",
        ("-m", "full", "tests/chaos/test_chaos.py", "-k", "each_time and (freeze or thaw or pause or hang)"),
    ),
    Part(
        "chaos-lost",
        (
            "-m",
            "full",
            "tests/chaos/test_chaos.py",
            "-k",
            "each_time and (host or all or cut or sshd or flap)",
        ),
    ),
    Part(
        "chaos-killed",
        (
            *("-m", "full", "tests/chaos/test_chaos.py", "-k"),
            "each_time and not (freeze or thaw or pause or hang or host or all or cut or sshd or flap)",
        ),
    ),
    Part("chaos-machines", ("-m", "full", "tests/chaos/test_machines.py", "-k", "tree or disk")),
    Part("chaos-package", ("-m", "full", "tests/chaos/test_machines.py", "-k", "package")),
    Part("transport", ("-m", "full", "tests/unit/transport")),
    Part("schedules", ("-m", "full", "tests/unit/test_schedules.py")),
    Part("placement", ("-m", "full", "tests/unit/test_simulator.py")),
    Part("kill-left", ("-m", "", "tests/kill/test_left.py")),
    Part("kill-stop", ("-m", "", "tests/kill/test_stop.py")),
    Part("trouble", ("-m", "", "tests/trouble")),
    Part("containers", ("-m", "", "tests/containers")),
    Part("distcc", ("-m", "", "tests/distcc")),
    Part("doctor", ("-m", "", "tests/doctor/test_doctor.py")),
    Part("doctor-root", ("-m", "", "tests/doctor", "--ignore=tests/doctor/test_doctor.py")),
    Part(
        "roles",
        ("-m", "", "tests/roles", "-k", "not (distcc or retire or projects or molecule)"),
    ),
    Part("roles-distcc", ("-m", "", "tests/roles", "-k", "distcc")),
    Part("roles-retire", ("-m", "", "tests/roles", "-k", "retire and not distcc")),
    Part("roles-projects", ("-m", "", "tests/roles", "-k", "projects and not distcc")),
    Part("roles-molecule", ("-m", "", "tests/roles", "-k", "molecule and not distcc")),
    Part("fuzz", ("-m", "", "tests/fuzz")),
    Part(
        "registry",
        (
            *("-m", "full", "tests/unit/registry", "tests/unit/checkin", "tests/unit/cli"),
            "tests/unit/test_inventory_plugin.py",
        ),
    ),
    Part("registry-hosts", ("-m", "", "tests/registry/test_hosts.py")),
    Part("registry-trouble", ("-m", "", "tests/registry/test_trouble.py")),
    Part("panel", ("-m", "", "tests/panel")),
)


@dataclass(frozen=True)
class Result:
    """How a part ended; `reasons` say why tests were skipped, so that nobody takes them for passed."""

    status: str
    passed: int
    failed: int
    skipped: int
    minutes: float
    reasons: Sequence[str] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not passed yet; returns 0 when every part has passed, or could not be run here at all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PART", choices=[part.name for part in PARTS])
    parser.add_argument("--again", action="store_true", help="run parts that have passed, too")
    parser.add_argument("--list", action="store_true", help="show the parts and what is known of them")
    chosen = parser.parse_args(arguments)
    version = tree_version()
    results = {} if chosen.again else load(STATE, version)
    if not chosen.list:
        for part in PARTS:
            done = results.get(part.name)
            if (chosen.only and part.name not in chosen.only) or (done and done.status == "passed"):
                continue
            print(f"== {part.name}", flush=True)
            results[part.name] = run(part)
            # After each part: whoever stops here resumes here.
            save(STATE, version, results)
    print(table(results))
    ended = (results[part.name].status if part.name in results else "" for part in PARTS)
    return 0 if all(status in ("passed", "skipped") for status in ended) else 1


def run(part: Part) -> Result:
    """Run a part in its own pytest."""
    report = STATE.parent / f"{part.name}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    start = time.monotonic()
    code = _call(
        [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *part.select], LIMIT_MIN * 60
    )
    minutes = round((time.monotonic() - start) / 60, 1)
    if code is None:
        status = f"over {LIMIT_MIN} min"
    else:
        # 4 and 5 of pytest: there is no such file, or no test in it.
        status = {0: "passed", 4: "no tests", 5: "no tests"}.get(code, "failed")
    passed, failed, skipped, reasons = count(report)
    if status == "passed" and not passed:
        status = "skipped"
    return Result(status, passed, failed, skipped, minutes, sorted(reasons))


def _call(argv: Sequence[str], limit_s: float) -> int | None:
    """The exit status; None when it took too long: then it is killed, with all that it started."""
    child = subprocess.Popen(argv, cwd=ROOT)
    try:
        return child.wait(limit_s)
    except subprocess.TimeoutExpired:
        # Pytest adopts its orphans, so everything is below it as long as it lives: it goes last.
        for process in psutil.Process(child.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        child.kill()
        child.wait()
        return None


def count(report: Path) -> tuple[int, int, int, set[str]]:
    """Passed, failed, skipped tests of a JUnit report, and why some were skipped."""
    if not report.exists():
        return 0, 0, 0, set()
    total = failed = skipped = 0
    reasons = set()
    for case in ElementTree.parse(report).iter("testcase"):
        total += 1
        failed += case.find("failure") is not None or case.find("error") is not None
        skip = case.find("skipped")
        if skip is not None:
            skipped += 1
            reasons.add(skip.get("message", ""))
    return total - failed - skipped, failed, skipped, reasons


def table(results: Mapping[str, Result]) -> str:
    """One line a part, then the reasons of what was skipped."""
    width = max(len(part.name) for part in PARTS)
    lines = [f"{'part':<{width}}  passed  failed  skipped  minutes  result"]
    for part in PARTS:
        result = results.get(part.name) or Result("not run", 0, 0, 0, 0.0)
        lines.append(
            f"{part.name:<{width}}  {result.passed:6}  {result.failed:6}  {result.skipped:7}"
            f"  {result.minutes:7.1f}  {result.status}"
        )
    for name, result in results.items():
        lines += [f"skipped in {name}: {reason}" for reason in result.reasons]
    return "\n".join(lines)


def tree_version() -> str:
    """The commit, and what differs from it: only results for exactly this code count."""
    commit = _git("rev-parse", "HEAD").strip()
    change = _git("diff", "HEAD") + _git("ls-files", "--others", "--exclude-standard")
    digest = hashlib.sha256(change.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{commit}+{digest}" if change else commit


def load(path: Path, version: str) -> dict[str, Result]:
    """Results that belong to this version; none when the file is of another one, or unreadable."""
    try:
        kept = json.loads(path.read_text())
        if kept["version"] == version:
            return {name: Result(**result) for name, result in kept["results"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def save(path: Path, version: str, results: Mapping[str, Result]) -> None:
    path.parent.mkdir(exist_ok=True)
    kept = {"version": version, "results": {name: asdict(result) for name, result in results.items()}}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(kept, indent=1) + "\n")
    new.replace(path)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
