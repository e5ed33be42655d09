"""`d1fleet run` and `env`: flat makefiles on real compile servers, and what becomes of what does not work."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.errors import HostError, InventoryError, ProgramError, UnknownProjectError
from d1fleet.hostsfile import HostsFile, Peer
from d1fleet.quarantine import MANY
from tests.distcc.lan import Lan, lan, missing_reason

pytestmark = [
    pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-"),
    pytest.mark.timeout(180),
]

FILES = 12
MAKEFILE = """
CC = gcc
OBJECTS := $(patsubst %.c,%.o,$(wildcard f*.c))
all: prog
prog: $(OBJECTS) ; $(CC) -o $@ $^
%.o: %.c ; $(CC) -O1 -c -o $@ $<
"""


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Lan]:
    with lan(tmp_path) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    for number in range(FILES - 1):
        (folder / f"f{number}.c").write_text(f"int f{number}(int x) {{ return x * {number}; }}\n")
    (folder / "f-main.c").write_text("int main(void) { return 0; }\n")
    return folder


def _hosts(folder: Path, *peers: Peer, here: int = 1) -> Path:
    file = folder / "engine"
    file.write_text(HostsFile(here, peers).text(["of a test"]))
    return file


def _peer(number: int, slots: int = 2) -> Peer:
    return Peer(f"h{number}", f"192.0.2.{number}", slots)


def _objects(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.o")}


def test_a_flat_makefile_compiles_on_all_hosts(net: Lan, tree: Path, tmp_path: Path) -> None:
    net.run(["make", "-C", str(tree), "-s"])
    alone = _objects(tree)
    for each in [*tree.glob("*.o"), tree / "prog"]:
        each.unlink()
    logs = [net.distccd(f"192.0.2.{number}", "--nice", "3") for number in (1, 2, 3)]
    file = _hosts(tmp_path, _peer(1), _peer(2), _peer(3))
    done = net.d1fleet("run", "--summary", "--hosts-file", file, "--", "make", "-s", "-j{slots}", cwd=tree)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert _objects(tree) == alone
    assert len(alone) == FILES
    there = sum(log.read_text().count("COMPILE_OK") for log in logs)
    assert f"{FILES} compilations: h1 " in done.stderr
    assert f"this machine {FILES - there}\n" in done.stderr
    assert "1 command that cannot be distributed" in done.stderr
    assert "0 compilations fell back" in done.stderr
    assert all("COMPILE_OK" in log.read_text() for log in logs)


def test_one_server_for_ipv4_and_ipv6(net: Lan, tree: Path, tmp_path: Path) -> None:
    """As role distcc has it listen, and let in whom."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "roles/fleet/files"))
    try:
        from fleet_members import _for_distccd  # type: ignore[import-not-found]
    finally:
        del sys.path[0]
    networks = [ipaddress.ip_network(text) for text in ("192.0.2.0/24", "2001:db8::/64")]
    for address in ("192.0.2.1", "2001:db8::1"):
        net.address(address)
    log = net.distccd(*_for_distccd(networks)[:1], allow=_for_distccd(networks)[1])
    file = _hosts(tmp_path, _peer(1), Peer("six", "2001:db8::1", 2))
    done = net.d1fleet("run", "--summary", "--hosts-file", file, "make", "-s", "-j{slots}", cwd=tree)
    assert done.returncode == 0, done.stderr
    assert re.search(r"h1 \d+, six \d+, ", done.stderr), done.stderr + log.read_text()
    assert "0 compilations fell back" in done.stderr


def test_who_does_not_answer_is_left_out(net: Lan, tree: Path, tmp_path: Path) -> None:
    net.distccd("192.0.2.1")
    net.address("192.0.2.2")
    file = _hosts(tmp_path, _peer(1), _peer(2))
    done = net.d1fleet("run", "--hosts-file", file, "make", "-s", "-j{slots}", cwd=tree)
    assert done.returncode == 0
    assert done.stderr == "d1fleet: host h2 is left out: Connection refused\n"
    checked = net.d1fleet("env", "--check", "--hosts-file", file, cwd=tree)
    assert "engine: 3 slots, 1 of them here" in checked.stdout
    found = json.loads(net.d1fleet("env", "--check", "--json", "--hosts-file", file, cwd=tree).stdout)
    assert {host["name"]: host["left_out"] for host in found["hosts"]} == {
        "h1": "",
        "h2": "Connection refused",
    }


def test_without_any_host_it_is_a_local_build_or_an_error(net: Lan, tree: Path, tmp_path: Path) -> None:
    net.address("192.0.2.2")
    file = _hosts(tmp_path, _peer(2))
    strict = net.d1fleet("run", "--strict", "--hosts-file", file, "make", "-s", cwd=tree)
    assert strict.returncode == HostError.exit_code
    assert "no host of project engine can compile now" in strict.stderr
    assert not _objects(tree)
    done = net.d1fleet("run", "--hosts-file", file, "make", "-s", "-j{slots}", cwd=tree)
    assert done.returncode == 0
    assert len(_objects(tree)) == FILES


BUSY = """#!/bin/sh
# Is a compiler, and notes how many of it run at once; preprocessors have a limit of their own.
case " $* " in *" -E "*) exec /usr/bin/x86_64-linux-gnu-gcc "$@" ;; esac
mkdir -p FOLDER/now && touch FOLDER/now/$$
ls FOLDER/now | wc -l >>FOLDER/most
/usr/bin/x86_64-linux-gnu-gcc "$@"; status=$?
sleep 0.05
rm -f FOLDER/now/$$
exit $status
"""


def test_what_falls_back_is_counted_and_bounded(net: Lan, tree: Path, tmp_path: Path) -> None:
    """The server does not know the compiler: all fall back, one at a time."""
    net.distccd("192.0.2.1")
    file = _hosts(tmp_path, _peer(1, slots=8))
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "slowcc").write_text(BUSY.replace("FOLDER", str(tmp_path)))
    (bin_ / "slowcc").chmod(0o755)
    path = {"PATH": f"{bin_}:/usr/bin:/bin:/usr/sbin:/sbin"}
    # Its name is in nobody's list of compilers: the server refuses it.
    words = ("make", "-s", "-j20", "CC=distcc slowcc", "all")
    done = net.d1fleet("run", "--hosts-file", file, *words, cwd=tree, environ=path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ compilations fell back to this machine:", done.stderr)
    assert f"h1 {done.stderr.split()[1]}: it gave no answer" in done.stderr
    assert max(map(int, (tmp_path / "most").read_text().split())) == 1
    strict = net.d1fleet("run", "--strict", "--hosts-file", file, *words, "-B", cwd=tree, environ=path)
    assert strict.returncode == 2
    assert "distcc ended with " in strict.stderr


def test_a_host_that_disagrees_is_left_out_from_then_on(net: Lan, tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    for name in ("gcc", "x86_64-linux-gnu-gcc"):
        (other / name).write_text("#!/bin/sh\necho broken >&2; exit 1\n")
        (other / name).chmod(0o755)
    net.distccd("192.0.2.1", environ={"DISTCCD_PATH": str(other), "PATH": f"{other}:/usr/bin:/bin"})
    file = _hosts(tmp_path, _peer(1))
    for number in range(MANY):
        # distcc itself leaves a host alone for a minute after that.
        shutil.rmtree(tmp_path / "distcc", ignore_errors=True)
        # One of two goes there, the other one here.
        words = ("make", "-s", "-j2", f"f{2 * number}.o", f"f{2 * number + 1}.o")
        done = net.d1fleet("run", "--hosts-file", file, *words, cwd=tree)
        assert done.returncode == 0, done.stderr
        assert "host h1 could not compile f" in done.stderr
        assert "host h1 is left out" not in done.stderr
    again = net.d1fleet("run", "--hosts-file", file, "true", cwd=tree)
    assert "host h1 is left out: it could not compile f" in again.stderr


UNSEEN = "d1fleet: distcc has seen no compilation: all was up to date, or the compiler is called by a path"


def test_a_compiler_that_passes_distcc_by_is_told_of(net: Lan, tree: Path, tmp_path: Path) -> None:
    log = net.distccd("192.0.2.1")
    file = _hosts(tmp_path, _peer(1))
    words = ("--hosts-file", file, "make", "-s", "-j{slots}", "CC=/usr/bin/gcc")
    for more in ((), ("--summary",), ("--strict",)):
        done = net.d1fleet("run", *more, *words, "-B", cwd=tree)
        assert done.returncode == 0, done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith(UNSEEN)]) == 1, done.stderr
        assert "| d1fleet lint` tells" in done.stderr
    assert net.d1fleet("run", "--quiet", *words, "-B", cwd=tree).stderr == ""
    assert UNSEEN not in net.d1fleet("run", *words, "nothing", cwd=tree).stderr
    assert "COMPILE_OK" not in log.read_text()
    dry = tmp_path / "dry"
    dry.write_text(net.run(["make", "-C", str(tree), "-nB", "CC=/usr/bin/gcc"]).stdout)
    said = net.d1fleet("lint", dry, cwd=tree).stdout
    assert f"0 of {FILES + 1} commands are distributed" in said
    assert f"{FILES}  here: /usr/bin/gcc is a path, which passes distcc by: CC=gcc (f" in said


def test_strict_fails_where_distcc_itself_compiles_here(net: Lan, tree: Path, tmp_path: Path) -> None:
    net.distccd("192.0.2.1")
    file = _hosts(tmp_path, _peer(1))
    words = ("--hosts-file", file, "make", "-s", "-j{slots}")
    done = net.d1fleet("run", "--strict", *words, cwd=tree)
    assert (done.returncode, done.stderr) == (0, "")
    native = (*words, "-B", "CC=gcc -march=native")
    done = net.d1fleet("run", "--strict", *native, cwd=tree)
    assert done.returncode == HostError.exit_code
    assert done.stderr.startswith(
        f"d1fleet: this machine has compiled {FILES} files, which --strict forbids: f"
    )
    assert f" and {FILES - 5} more: native is another processor on each host" in done.stderr
    assert "compilations that distcc does not distribute" not in done.stderr
    assert (tree / "prog").exists()
    # A program's own failure is its own.
    assert net.d1fleet("run", "--strict", *native, "all", "nothing", cwd=tree).returncode == 2
    loose = net.d1fleet("run", *native, cwd=tree)
    assert loose.returncode == 0
    assert loose.stderr.startswith(f"d1fleet: {FILES} compilations that distcc does not distribute: f")


def test_what_configure_tries_is_no_compilation_for_strict(net: Lan, tree: Path, tmp_path: Path) -> None:
    net.distccd("192.0.2.1")
    file = _hosts(tmp_path, _peer(1))
    (tree / "conftest.c").write_text("int main(void) { return 0; }\n")
    script = "gcc -march=native -c conftest.c && gcc -E conftest.c >x && gcc -march=native conftest.o -o prog"
    done = net.d1fleet("run", "--strict", "--summary", "--hosts-file", file, "sh", "-ec", script, cwd=tree)
    assert done.returncode == 0, done.stderr
    assert "3 commands that cannot be distributed" in done.stderr
    assert UNSEEN in done.stderr


def test_the_programs_end_is_ours(net: Lan, tree: Path, tmp_path: Path) -> None:
    file = _hosts(tmp_path)
    for words, code in (
        (["false"], 1),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + 15),
        (["/nonexistent/make"], ProgramError.exit_code),
    ):
        assert net.d1fleet("run", "--hosts-file", file, "--", *words, cwd=tree).returncode == code


def test_the_environment_for_a_shell(net: Lan, tree: Path, tmp_path: Path) -> None:
    net.distccd("192.0.2.1")
    (tmp_path / "distcc").mkdir()
    found = net.d1fleet("env", "--hosts-file", _hosts(tmp_path, _peer(1)), cwd=tree).stdout
    script = f'{found}\ncommand -v gcc; echo $D1FLEET_SLOTS; distcc -j; make -s -j"$D1FLEET_SLOTS" f0.o'
    done = net.run(
        ["sh", "-ec", script], cwd=tree, env={"DISTCC_DIR": str(tmp_path / "distcc"), "PATH": "/usr/bin:/bin"}
    )
    assert done.stdout.split() == ["/usr/lib/distcc/gcc", "3", "3"], done.stderr
    assert (tree / "f0.o").exists()


@pytest.mark.skipif(not shutil.which("ccache"), reason="ccache is not installed")
def test_with_ccache_in_front_nothing_is_compiled_twice(net: Lan, tree: Path, tmp_path: Path) -> None:
    logs = [net.distccd(f"192.0.2.{number}") for number in (1, 2)]
    file = _hosts(tmp_path, _peer(1), _peer(2))
    config = tmp_path / "ccache.conf"
    config.write_text("compiler_check = content\ndirect_mode = false\n")
    environ = {"CCACHE_CONFIGPATH": str(config), "CCACHE_DIR": str(tmp_path / "cache")}
    words = ("run", "--ccache", "--summary", "--hosts-file", file, "make", "-s", "-j{slots}")
    first = net.d1fleet(*words, cwd=tree, environ=environ)
    assert first.returncode == 0, first.stderr
    assert f"{FILES} compilations: " in first.stderr
    assert all("COMPILE_OK" in log.read_text() for log in logs)
    made = _objects(tree)
    for each in tree.glob("*.o"):
        each.unlink()
    second = net.d1fleet(*words, cwd=tree, environ=environ)
    assert second.returncode == 0, second.stderr
    assert "0 compilations: " in second.stderr
    assert _objects(tree) == made
    for each in tree.glob("*.o"):
        each.unlink()
    without = net.d1fleet("run", "--no-ccache", *words[2:], cwd=tree, environ=environ)
    assert f"{FILES} compilations: " in without.stderr


def test_which_project(tmp_path: Path) -> None:
    from d1fleet.distcc import project_here

    folder = tmp_path / "hosts"
    with pytest.raises(InventoryError, match="this machine is in no project"):
        project_here(None, folder=folder)
    folder.mkdir()
    _hosts(folder, _peer(1))
    assert project_here(None, folder=folder).name == "engine"
    shutil.copy(folder / "engine", folder / "firmware")
    (folder / "firmware").write_text("localhost/3\n")
    with pytest.raises(UnknownProjectError, match="engine, firmware"):
        project_here(None, folder=folder)
    assert project_here("firmware", folder=folder).hosts.slots == 3
    with pytest.raises(UnknownProjectError, match="not in project 'other'"):
        project_here("other", folder=folder)
    (folder / "firmware").write_text("localhost/3 @evil:/x\n")
    with pytest.raises(InventoryError, match="is no hosts file of d1fleet: line 1: '@evil:/x'"):
        project_here("firmware", folder=folder)
