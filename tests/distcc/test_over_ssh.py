"""distcc over SSH, on real servers: keys that are bound to the launcher, and one login a host for a build."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from d1fleet import distcc, distccrun
from d1fleet.distcc import Project
from d1fleet.hostsfile import SERVE, HostsFile, Peer
from d1fleet.transport import pack
from tests.distcc.lan import until
from tests.support.sshd import LoopbackSshd, missing_reason

_LACKING = [each for each in ("distcc", "distccd") if not shutil.which(each)]

pytestmark = [
    pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-"),
    pytest.mark.skipif(bool(_LACKING), reason=f"not installed: {', '.join(_LACKING)}"),
    pytest.mark.timeout(180),
]

ROOT = Path(__file__).parents[2]
FILES = 12
MAKEFILE = """
CC = gcc
all: $(patsubst %.c,%.o,$(wildcard f*.c))
%.o: %.c ; $(CC) -O1 -g -c -o $@ $<
"""


@dataclass
class Site:
    """Two hosts h1 and h2, each a server of ours, with one compile server for both."""

    sshd: LoopbackSshd
    folder: Path
    log: Path

    @property
    def project(self) -> Project:
        peers = tuple(Peer(f"h{number}", f"192.0.2.{number}", 2, ssh=True) for number in (1, 2))
        return Project("engine", self.folder / "engine", HostsFile(1, peers))

    def connections(self) -> list[str]:
        """ssh processes of ours that are there now."""
        found = []
        for each in psutil.process_iter(["name", "cmdline"]):
            words = " ".join(each.info["cmdline"] or ())
            if each.info["name"] == "ssh" and (str(self.folder) in words or "distcc-" in words):
                found.append(words)
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "distccd.log"
    argv = ["distccd", "--no-detach", "--daemon", "--user", "distccd", "--listen", "127.0.0.1"]
    argv += ["--allow", "127.0.0.1", "--port", str(port), "--log-stderr", "--log-level", "notice"]
    with log.open("wb") as file:
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/")
    try:
        until(lambda: _listens(port), "distccd")
        with LoopbackSshd(tmp_path / "sshd", ("h1", "h2"), servers=2) as sshd:
            _bind(sshd, tmp_path, port)
            _client(sshd, tmp_path)
            monkeypatch.setattr(distcc, "SSH", tmp_path / "ssh")
            monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
            monkeypatch.setenv("DISTCC_DIR", str(tmp_path / "distcc"))
            (tmp_path / "distcc").mkdir()
            yield Site(sshd, tmp_path, log)
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _bind(sshd: LoopbackSshd, folder: Path, port: int) -> None:
    """The key starts the launcher and nothing else; what that starts stands in a folder of the test's."""
    pack.pack(folder)
    launcher = folder / "launcher"
    text = launcher.read_text().replace(
        "os.execv(COMPILE, [COMPILE])", f'os.execv("{folder}/serve", ["serve"])'
    )
    assert "/serve" in text.split("os.execv")[1]
    launcher.write_text(text)
    relay = ROOT / "roles/distcc/files/distcc_relay.py"
    (folder / "serve").write_text(f"#!/bin/sh\nexec /usr/bin/python3 -ISE {relay} {port}\n")
    (folder / "serve").chmod(0o755)
    key = sshd.key.with_suffix(".pub").read_text()
    (sshd.folder / "authorized_keys").write_text(f'restrict,command="{launcher}" {key}')


def _client(sshd: LoopbackSshd, folder: Path) -> None:
    """What the role distcc_hosts installs, for these servers."""
    sys.path.insert(0, str(ROOT / "roles/fleet/files"))
    try:
        import fleet_ways  # type: ignore[import-not-found]
    finally:
        del sys.path[0]
    # One by the usual port, as far as keys are known by it, and one by another.
    ports = {"h1": 22, "h2": sshd.port_of("h2")}
    logins = {
        Peer(name, f"192.0.2.{number}", 2, ssh=True): fleet_ways.Login(name, ports[name], sshd.port_of(name))
        for number, name in enumerate(ports, 1)
    }
    text = fleet_ways.ssh_config("h0", logins)
    for number in (1, 2):
        text = text.replace(f"HostName 192.0.2.{number}", "HostName 127.0.0.1")
    text = text.replace(fleet_ways.KNOWN_HOSTS, str(folder / "known_hosts"))
    text = text.replace("Include ~/.ssh/config", f"IdentityFile {sshd.key}\n    IdentityAgent none")
    (folder / "ssh_config").write_text(text)
    known = [
        f"{name} {(sshd.folder / f'host_key{number}.pub').read_text()}"
        for number, name in enumerate(("h1", f"[h2]:{ports['h2']}"))
    ]
    (folder / "known_hosts").write_text("".join(known))
    wrapper = (ROOT / "roles/distcc_hosts/files/ssh").read_text()
    (folder / "ssh").write_text(wrapper.replace("/usr/local/lib/d1fleet/distcc", str(folder)))
    (folder / "ssh").chmod(0o755)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    for number in range(FILES):
        (folder / f"f{number}.c").write_text(f"int f{number}(int x) {{ return x * {number}; }}\n")
    monkeypatch.chdir(folder)
    return folder


def _objects(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.o")}


def _run(site: Site, *words: str, strict: bool = False) -> int:
    return distccrun.run(words, site.project, strict=strict, ccache=False, summary=True)


def test_a_flat_makefile_over_ssh_is_as_a_local_one(
    site: Site, tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["make", "-s"], check=True)
    alone = _objects(tree)
    for name in alone:
        (tree / name).unlink()
    assert _run(site, "make", "-s", "-j{slots}", strict=True) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert f"{FILES} compilations: h1 " in said.err
    assert ", h2 " in said.err and "this machine 0\n" in said.err, said.err
    assert "0 compilations fell back" in said.err
    assert _objects(tree) == alone
    assert site.log.read_text().count("COMPILE_OK") == FILES
    # One login a host for all files, which ends with the build.
    assert site.sshd.accepted_logins() == 2
    assert site.connections() == []


@pytest.mark.parametrize(
    "command",
    [
        "id",
        SERVE,
        f"{SERVE} --inetd --enable-tcp-insecure --user root",
        f"{SERVE} --inetd --enable-tcp-insecure; id",
        "distccd --inetd --enable-tcp-insecure",
        "distccd --inetd",
    ],
)
def test_a_bound_key_gets_nothing_else(site: Site, command: str) -> None:
    before = site.log.read_text()
    done = subprocess.run(
        site.sshd.ssh("h1", command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert done.stdout.startswith("D1FLEET-SERVER ")
    assert "uid=" not in done.stdout
    assert site.log.read_text() == before


def test_the_server_keeps_its_list_of_compilers(site: Site, tree: Path) -> None:
    """distcc itself asks for --enable-tcp-insecure, which does away with it."""
    (site.folder / "bin").mkdir()
    (site.folder / "bin" / "mycc").symlink_to("/usr/bin/gcc")
    environ = {
        **os.environ,
        "PATH": f"{site.folder}/bin:/usr/bin:/bin",
        "DISTCC_SSH": str(site.folder / "ssh"),
        "DISTCC_HOSTS": str(site.project.hosts.peers[0]),
        "DISTCC_FALLBACK": "0",
        distcc.SOCKETS: str(site.folder),
    }
    try:
        for compiler, fits in (("gcc", True), ("mycc", False)):
            argv = ["distcc", compiler, "-c", "f0.c", "-o", "f0.o"]
            done = subprocess.run(argv, env=environ, capture_output=True, check=False)
            assert (done.returncode == 0) is fits, done.stderr
        assert "CRITICAL! mycc not in" in site.log.read_text()
    finally:
        distcc.hang_up(site.project.hosts.peers, environ)


def test_who_cannot_be_reached_is_left_out_with_what_ssh_says(
    site: Site, tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = (site.folder / "known_hosts").read_text().splitlines(keepends=True)
    (site.folder / "known_hosts").write_text(lines[0])
    assert _run(site, "make", "-s", "-j{slots}") == 0
    said = capfd.readouterr().err
    assert "host h2 is left out: Host key verification failed." in said
    assert f"{FILES} compilations: h1 " in said
    (site.folder / "known_hosts").write_text("".join(lines))
    (site.folder / "serve").unlink()
    assert _run(site, "true") == 0
    said = capfd.readouterr().err
    assert "host h1 is left out: d1fleet: this host serves no distcc over SSH: No such file" in said
    assert site.connections() == []
