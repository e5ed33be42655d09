"""One host is broken: it is named, with what is wrong and the mend, and the build goes on with the other."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from d1fleet.errors import HostError
from tests.containers import ContainerHosts, Host
from tests.kill.fleet import CHECKOUT
from tests.support import history
from tests.trouble.test_trouble import build, write

SCRIPT = "d1fleet/server/toolchain.py"
OTHER_COMPILER = "/usr/local/bin/cc"

pytestmark = [pytest.mark.containers, pytest.mark.timeout(240)]


@dataclass
class Case:
    """A broken host among two.

    Attributes:
        hosts: as `--hosts` names them, the broken one first.
        ssh_config: as `--ssh-config` names it.
        undo: what mends it.
    """

    folder: Path
    broken: Host
    sound: Host
    ssh_config: Path
    hosts: list[str] = field(default_factory=list)
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def on(self, *argv: str) -> None:
        """Run something on the broken host, from outside."""
        done = self.broken.run(argv)
        assert done.returncode == 0, done.stderr

    def in_its_place(self, *argv: str) -> None:
        """Run something of this machine's among the broken host's files, as it may not itself."""
        pid = str(self.broken.pid())
        subprocess.run(["nsenter", "--target", pid, "--mount", "--", *argv], check=True)


def _wrong_key(case: Case) -> None:
    """The sound host's, as if somebody stood between."""
    text = case.ssh_config.read_text()
    (known,) = {line.split()[1] for line in text.splitlines() if "UserKnownHostsFile" in line}
    lines = Path(known).read_text().splitlines()
    keys = {line.split(",")[0]: line.split(" ", 1)[1] for line in lines}
    exchanged = case.folder / "known_hosts"
    exchanged.write_text(
        "".join(
            f"{line.split(' ')[0]} {keys[case.sound.name]}\n"
            if line.startswith(case.broken.name)
            else f"{line}\n"
            for line in lines
        )
    )
    case.ssh_config = case.folder / "ssh_config"
    case.ssh_config.write_text(text.replace(known, str(exchanged)))


def _unknown_key(case: Case) -> None:
    text = case.ssh_config.read_text()
    (known,) = {line.split()[1] for line in text.splitlines() if "UserKnownHostsFile" in line}
    lines = Path(known).read_text().splitlines(keepends=True)
    some = case.folder / "known_hosts"
    some.write_text("".join(line for line in lines if not line.startswith(case.broken.name)))
    case.ssh_config = case.folder / "ssh_config"
    case.ssh_config.write_text(text.replace(known, str(some)))


def _wrong_user(case: Case) -> None:
    case.hosts[0] = f"nobody@{case.broken.name}"


def _no_python(case: Case) -> None:
    case.on("mv", "/usr/bin/python3", "/usr/bin/python3.away")
    case.undo.callback(case.on, "mv", "/usr/bin/python3.away", "/usr/bin/python3")


def _no_make(case: Case) -> None:
    case.on("mv", "/usr/bin/make", "/usr/bin/make.away")
    case.undo.callback(case.on, "mv", "/usr/bin/make.away", "/usr/bin/make")


def _other_tree(case: Case) -> None:
    """Another folder lies at the same path."""
    case.in_its_place("mount", "-t", "tmpfs", "tmpfs", str(case.folder / "tree"))
    case.undo.callback(case.in_its_place, "umount", str(case.folder / "tree"))


def _no_tree(case: Case) -> None:
    """Nothing lies there."""
    case.in_its_place("mount", "-t", "tmpfs", "tmpfs", str(case.folder))
    case.undo.callback(case.in_its_place, "umount", str(case.folder))


def _full_disk(case: Case) -> None:
    """No room anywhere: for the server there is memory, but slots of a host have to be files."""
    for place in ("/root/.cache", "/tmp"):
        case.on("mkdir", "-p", place)
        case.in_its_place("mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", place)
        case.undo.callback(case.in_its_place, "umount", place)


def _refused(case: Case) -> None:
    case.on("systemctl", "stop", "ssh")
    case.undo.callback(case.broken.wait_for_sshd)
    case.undo.callback(case.on, "systemctl", "start", "ssh")


@dataclass(frozen=True)
class Trouble:
    """A way to break a host, and what has to be said of it."""

    breaks: Callable[[Case], None]
    says: str
    mend: str


TROUBLES = {
    "wrong-key": Trouble(_wrong_key, "the host key of {address} has changed", "ssh-keygen -R"),
    "unknown-key": Trouble(
        _unknown_key, "the host key of {address} is not known here", "log in once by hand"
    ),
    "wrong-user": Trouble(_wrong_user, "does not let nobody in", "ssh-copy-id"),
    "refused": Trouble(_refused, "connection refused", "is sshd running there"),
    "no-python": Trouble(_no_python, "there is no python3 on the host", "install python3 there"),
    "no-make": Trouble(_no_make, "there is no make in PATH", "install GNU make there"),
    "other-tree": Trouble(_other_tree, "another folder", "mount the tree on that host"),
    "no-tree": Trouble(_no_tree, "does not exist on this host", "mount the tree on that host"),
    "full-disk": Trouble(_full_disk, "No space left on device", "look at its parent"),
}


_MAKEFILE = """\
all: one two
one two:
\t@while ! grep -q host-failed {record}*; do sleep 0.05; done
\t@$(MAKE) -s --no-print-directory -f sub.mk $@
"""
# A build that has ended does not say of a host that it could not have taken part.


def _cases() -> Iterator[object]:
    for name in TROUBLES:
        yield pytest.param(name, "ssh", id=f"ssh-{name}")
        yield pytest.param(name, "openssh", id=f"openssh-{name}", marks=pytest.mark.full)


@pytest.mark.parametrize(("name", "transport"), list(_cases()))
def test_it_is_named_and_left_out(
    container_hosts: ContainerHosts, tmp_path: Path, name: str, transport: str
) -> None:
    trouble = TROUBLES[name]
    tree = write(tmp_path, _MAKEFILE.format(record=tmp_path / "record"))
    broken, sound, _ = container_hosts
    case = Case(tmp_path, broken, sound, container_hosts.ssh_config, [broken.name, sound.name])
    with case.undo:
        trouble.breaks(case)
        with_the_other = _build(case, tree, transport, case.hosts)
        history.forget()
        alone = _build(case, tree, transport, case.hosts[:1], "--strict")
    said = with_the_other.stderr
    assert with_the_other.returncode == 0, said
    assert sorted(with_the_other.stdout.split("\n")) == ["", "made one", "made two"]
    assert f"d1fleet: host {case.hosts[0]}: " in said
    assert trouble.says.format(address=broken.address) in said
    assert trouble.mend in said
    assert f"host {sound.name}" not in said
    assert _places(tmp_path) == {sound.name}
    assert alone.returncode == HostError.exit_code, alone.stderr
    assert trouble.says.format(address=broken.address) in alone.stderr
    assert "Traceback" not in said + alone.stderr


def test_another_toolchain(container_hosts: ContainerHosts, tmp_path: Path) -> None:
    """Its project's toolchain is on record there, as the role leaves it; its own is another one."""
    tree = write(tmp_path, _MAKEFILE.format(record=tmp_path / "record"))
    broken, *others = container_hosts
    case = Case(tmp_path, broken, others[0], container_hosts.ssh_config)
    found = others[0].run(["python3", "-ISE", "-"], stdin=(CHECKOUT / SCRIPT).read_text())
    parts = json.loads(found.stdout)["parts"]
    record = json.dumps({"version": 1, "projects": {"test": {"parts": parts, "tools": []}}})
    with case.undo:
        for host in container_hosts:
            case.undo.callback(host.run, ["rm", "-r", "/etc/d1fleet"])
            host.put("/etc/d1fleet/toolchain.json", record)
        case.undo.callback(broken.run, ["rm", OTHER_COMPILER])
        broken.put(OTHER_COMPILER, "#!/bin/sh\necho cc of another kind\n", 0o755)
        end = build(
            tree,
            "--inventory",
            str(container_hosts.inventory),
            "--record",
            str(tmp_path / "record"),
            "--strict",
            "-j2",
        )
    assert end.returncode == 0, end.stderr
    assert f"host {broken.name}: its toolchain is not project test's: cc: cc of another kind" in end.stderr
    assert f"at {OTHER_COMPILER}, the project has {parts['cc'].partition(' [')[0]}" in end.stderr
    assert "bring its packages, links and wrappers to what the other hosts have" in end.stderr
    assert _places(tmp_path) <= {host.name for host in others}


def _build(
    case: Case, tree: Path, transport: str, hosts: Sequence[str], *options: str
) -> subprocess.CompletedProcess[str]:
    record = case.folder / "record" if len(hosts) > 1 else case.folder / "record-alone"
    own = ["--ssh-config", str(case.ssh_config), "--transport", transport, "--record", str(record)]
    return build(tree, *own, "--hosts", " ".join(hosts), *options, "-j2")


def _places(folder: Path) -> set[str | None]:
    events = map(json.loads, (folder / "record").read_text().splitlines())
    return {event["host"] for event in events if event["event"] == "job"}
