"""OpenSSH servers on loopback for tests: own host keys, own user key, own configuration on both ends.

Nothing of the user's own SSH is read or written. Root is not needed: sshd(8), sshd_config(5).
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from tests.support import sshclient

START_TIMEOUT_S = 20.0
"""Until a server listens; a guess, for a machine that is busy."""

STOP_TIMEOUT_S = 5.0
"""Between asking and killing."""

_PRIVILEGE_SEPARATION = Path("/run/sshd")


def find_sshd() -> Path | None:
    """Where OpenSSH's server is; Debian keeps it outside an ordinary user's PATH."""
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def missing_reason() -> str:
    """Why no server can be started here, or "" when one can."""
    missing = [name for name in ("ssh", "ssh-keygen") if not shutil.which(name)]
    if not find_sshd():
        missing.insert(0, "sshd")
    return f"no {', '.join(missing)} (packages openssh-server, openssh-client)" if missing else ""


class LoopbackSshd:
    """One or several servers on loopback, and what a client needs to reach them under several names.

    Args:
        folder: where keys, configurations and logs go; made if need be.
        aliases: names of hosts for the client; dealt to the servers in turn.
        servers: how many servers, each on a port and with a host key of its own.
        options: sshd_config(5) keywords over ours, for all servers.
        address: where they listen.
        certified: host keys are signed, and the client knows the authority alone.

    Attributes:
        ssh_config, known_hosts, key: files for the client, for `ssh -F`.
        ports: of the servers.
        logs: their logs at level VERBOSE; `log` is the first.

    Raises:
        RuntimeError: a server does not start; with its last words.
    """

    def __init__(
        self,
        folder: Path,
        aliases: Sequence[str] = ("a", "b", "c"),
        *,
        servers: int = 1,
        options: Mapping[str, str | int] | None = None,
        address: str = "127.0.0.1",
        certified: bool = False,
    ) -> None:
        self.address = address
        self.certified = certified
        self.folder = folder
        self.aliases = tuple(aliases)
        self.options = dict(options or {})
        self.ssh_config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self.key = folder / "id_ed25519"
        self.ports: list[int] = []
        self.logs = tuple(folder / f"sshd{number}.log" for number in range(servers))
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def log(self) -> Path:
        return self.logs[0]

    @property
    def pids(self) -> list[int]:
        """Of the listening servers; never of their sessions."""
        return [server.pid for server in self._running.values()]

    def __enter__(self) -> LoopbackSshd:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make keys and configurations, start the servers, and return when all of them listen."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sshclient.make_key(self.key)
        (self.folder / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
        if os.geteuid() == 0:
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        for number in range(len(self.logs)):
            sshclient.make_key(self.folder / f"host_key{number}")
            if self.certified:
                self.sign(self.folder / f"host_key{number}", self.address, "-h")
            self._start_server(number)
        self._write_client_files()

    def stop(self, alias: str | None = None) -> None:
        """End our servers, their sessions, and what those still run; nothing else on this machine.

        Args:
            alias: None for all; else a host whose server is ended alone.
        """
        numbers = list(self._running) if alias is None else [self.number_of(alias)]
        servers = [self._running.pop(number) for number in numbers]
        below = [child for server in servers for child in _descendants(server.pid)]
        for server in servers:
            server.terminate()
        # A session ends by itself only when its client goes.
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(below, timeout=STOP_TIMEOUT_S)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for server in servers:
            try:
                server.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        psutil.wait_procs(below, timeout=STOP_TIMEOUT_S)

    def restart(self, alias: str) -> None:
        """Start a host's server again after `stop`, on the port that it had; returns when it listens."""
        if not self._run_server(self.number_of(alias), self.port_of(alias)):
            raise RuntimeError(f"the sshd of {alias} does not start again")

    def sessions(self) -> list[psutil.Process]:
        """The sshd processes that serve a login now."""
        found = []
        for process in (child for pid in self.pids for child in _descendants(pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    found.append(process)
        return found

    def accepted_logins(self) -> int:
        """How many logins all servers have accepted since the start."""
        return self.count("Accepted publickey")

    def count(self, text: str) -> int:
        """How often `text` stands in the logs."""
        return sum(log.read_text(errors="replace").count(text) for log in self.logs if log.exists())

    def port_of(self, alias: str) -> int:
        return self.ports[self.number_of(alias)]

    def number_of(self, alias: str) -> int:
        """Which of the servers it is."""
        return self.aliases.index(alias) % len(self.logs)

    def ssh(self, alias: str, *command: str) -> list[str]:
        """The argv that runs `command` on `alias` with OpenSSH's client."""
        return ["ssh", "-F", str(self.ssh_config), alias, "--", *command]

    def sign(self, key: Path, principal: str, *options: str) -> Path:
        """Sign a key by our authority, `folder`/authority; returns the certificate."""
        authority = self.folder / "authority"
        sshclient.make_key(authority)
        argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", principal, *options]
        subprocess.run([*argv, f"{key}.pub"], check=True, stdin=subprocess.DEVNULL)
        return key.with_name(f"{key.name}-cert.pub")

    def _start_server(self, number: int) -> None:
        log, config = self.logs[number], self.folder / f"sshd_config{number}"
        # Between choosing a free port and listening on it somebody else can take it.
        for _ in range(5):
            port = _free_port(self.address)
            config.write_text(self._server_config(number, port))
            if self._run_server(number, port):
                self.ports.append(port)
                return
        last = "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""
        raise RuntimeError(f"sshd does not start:\n{last}")

    def _run_server(self, number: int, port: int) -> bool:
        """Start a server by its configuration; does it listen?"""
        sshd = find_sshd()
        if sshd is None:
            raise RuntimeError(missing_reason())
        config = self.folder / f"sshd_config{number}"
        argv = [str(sshd), "-D", "-f", str(config), "-E", str(self.logs[number])]
        # sshd is handed no file of ours, and its sessions have no variable of ours either.
        env = {name: os.environ[name] for name in ("PATH", "HOME", "USER") if name in os.environ}
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=env, start_new_session=True)
        self._running[number] = server
        if _listens(server, self.address, port):
            return True
        del self._running[number]
        return False

    def _server_config(self, number: int, port: int) -> str:
        ours: dict[str, str | int] = {
            "Port": port,
            "ListenAddress": self.address,
            "HostKey": str(self.folder / f"host_key{number}"),
            "AuthorizedKeysFile": str(self.folder / "authorized_keys"),
            "PidFile": "none",
            "UsePAM": "yes" if _account_is_locked() else "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "PermitUserEnvironment": "no",
            "PrintMotd": "no",
            "PrintLastLog": "no",
            "UseDNS": "no",
            "X11Forwarding": "no",
            "LogLevel": "VERBOSE",
            # Many hosts of a test are one server: the limits of logins under way are not what is tested.
            "MaxStartups": 500,
        }
        if self.certified:
            ours["HostCertificate"] = str(self.folder / f"host_key{number}-cert.pub")
        if _ssh_version() >= (9, 8):
            ours["PerSourcePenalties"] = "no"
        chosen = {name.lower() for name in self.options}
        rest = {name: value for name, value in ours.items() if name.lower() not in chosen}
        return "".join(f"{name} {value}\n" for name, value in {**self.options, **rest}.items())

    def _write_client_files(self) -> None:
        lines = []
        for number, port in enumerate(self.ports):
            name, marker = ("authority", "@cert-authority ") if self.certified else (f"host_key{number}", "")
            kind, key = (self.folder / f"{name}.pub").read_text().split()[:2]
            lines.append(f"{marker}[{self.address}]:{port} {kind} {key}\n")
        self.known_hosts.write_text("".join(lines))
        blocks = [
            f"Host {alias}\n    HostName {self.address}\n    Port {self.port_of(alias)}\n"
            for alias in self.aliases
        ]
        common = sshclient.for_all_hosts(getpass.getuser(), self.key, self.known_hosts)
        self.ssh_config.write_text("".join(blocks) + common)


def _free_port(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _listens(server: subprocess.Popen[bytes], address: str, port: int) -> bool:
    """Wait until the server answers (true) or has ended (false)."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None:
        if time.monotonic() > deadline:
            server.kill()
            server.wait()
            return False
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1) as probe:
            if probe.recv(4) == b"SSH-":
                return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.02)
    return False


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _account_is_locked() -> bool:
    """Without PAM, sshd refuses an account whose password field starts with "!", even with a key."""
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:  # not root: sshd cannot read it either
        return False
    return any(line.startswith(f"{getpass.getuser()}:!") for line in lines)


def _ssh_version() -> tuple[int, int]:
    text = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
